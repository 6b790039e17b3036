//! Between the limits of a manifest and those of the sandbox.

use crate::manifest::{Limits, Milliseconds};
use crate::sandbox::{GuestLimits, LeastRate};

/// What a request of a function may take: the node's limits, or stricter ones of its own.
pub(super) fn of(own: &Limits, node: GuestLimits) -> GuestLimits {
    let at_most = |node: u64, own: Option<u64>| own.map_or(node, |own| own.min(node));
    let time = |own: Option<Milliseconds>| own.map(Milliseconds::time);
    let bytes_per_second = node.least_rate.bytes_per_second.max(own.body_bytes_per_second_min.unwrap_or(0));
    GuestLimits {
        memory_bytes_max: at_most(node.memory_bytes_max, own.memory_bytes_max.map(u64::from)),
        cpu_time_max: node.cpu_time_max.min(time(own.cpu_time_max_ms).unwrap_or(node.cpu_time_max)),
        wall_time_max: node.wall_time_max.min(time(own.wall_time_max_ms).unwrap_or(node.wall_time_max)),
        response_bytes_max: at_most(node.response_bytes_max, own.response_bytes_max),
        least_rate: LeastRate { bytes_per_second, ..node.least_rate },
        table_elements_max: at_most(node.table_elements_max, own.table_elements_max),
        core_instances_max: at_most(node.core_instances_max, own.core_instances_max),
        handles_max: at_most(node.handles_max, own.handles_max),
        hostcall_bytes_max: at_most(node.hostcall_bytes_max, own.hostcall_bytes_max),
        log_bytes_max: at_most(node.log_bytes_max, own.log_bytes_max),
    }
}

/// The node's limits as a manifest would write them.
#[must_use]
pub fn as_manifest(node: GuestLimits) -> Limits {
    Limits {
        memory_bytes_max: node.memory_bytes_max.try_into().ok(),
        cpu_time_max_ms: Some(Milliseconds::of(node.cpu_time_max)),
        wall_time_max_ms: Some(Milliseconds::of(node.wall_time_max)),
        response_bytes_max: Some(node.response_bytes_max),
        body_bytes_per_second_min: Some(node.least_rate.bytes_per_second),
        table_elements_max: Some(node.table_elements_max),
        core_instances_max: Some(node.core_instances_max),
        handles_max: Some(node.handles_max),
        hostcall_bytes_max: Some(node.hostcall_bytes_max),
        log_bytes_max: Some(node.log_bytes_max),
    }
}
