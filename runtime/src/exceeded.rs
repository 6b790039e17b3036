//! A limit that somebody ran into: which one, how much was used, and how much was allowed.
//!
//! Whoever enforces a limit makes one and tells of it once, by [`crate::telemetry::Metrics::exceeded`].

use std::time::Duration;

/// A limit. What it is called in a metric's label and in the log is the same, and most are called so where they are set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// CPU time of a request, in milliseconds.
    CpuTime,
    /// Time from a request's arrival to its end, in milliseconds.
    WallTime,
    /// Memory of a guest, in bytes.
    Memory,
    /// Elements of a guest's table.
    TableElements,
    /// Core instances that a component is made of.
    CoreInstances,
    /// Stack of a guest, in bytes.
    Stack,
    /// Resource handles of a guest.
    Handles,
    /// Host memory that one call of a guest takes, in bytes.
    HostCall,
    /// Names and values of header fields that a guest makes, in bytes.
    FieldBytes,
    /// Random bytes that one call of a guest asks for.
    RandomBytes,
    /// Log output of a request, in bytes.
    Log,
    /// Body of a request, in bytes.
    RequestBytes,
    /// Body of a response, in bytes.
    ResponseBytes,
    /// A tenant's database and its log, in bytes.
    DatabaseBytes,
    /// How fast a client sends a body, in bytes per second.
    RequestRate,
    /// How fast a client takes a body, in bytes per second.
    ResponseRate,
}

impl Limit {
    /// Its name, with the unit.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::CpuTime => "cpu_time_max_ms",
            Self::WallTime => "wall_time_max_ms",
            Self::Memory => "memory_bytes_max",
            Self::TableElements => "table_elements_max",
            Self::CoreInstances => "core_instances_max",
            Self::Stack => "stack_bytes_max",
            Self::Handles => "handles_max",
            Self::HostCall => "hostcall_bytes_max",
            Self::FieldBytes => "field_bytes_max",
            Self::RandomBytes => "random_bytes_max",
            Self::Log => "log_bytes_max",
            Self::RequestBytes => "body_bytes_max",
            Self::ResponseBytes => "response_bytes_max",
            Self::DatabaseBytes => "database_bytes_max",
            Self::RequestRate => "request_bytes_per_second_min",
            Self::ResponseRate => "response_bytes_per_second_min",
        }
    }
}

/// One occurrence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{} of {allowed}: {used} used", .limit.name())]
pub struct Exceeded {
    /// Which limit.
    pub limit: Limit,
    /// How much was used or asked for; where nobody counts on, all that is allowed.
    pub used: u64,
    /// How much is allowed: the node's limit, or a function's own.
    pub allowed: u64,
}

impl Exceeded {
    /// A limit in bytes or pieces.
    #[must_use]
    pub fn new(limit: Limit, used: u64, allowed: u64) -> Self {
        Self { limit, used, allowed }
    }

    /// A limit on time.
    #[must_use]
    pub fn of_time(limit: Limit, used: Duration, allowed: Duration) -> Self {
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self::new(limit, milliseconds(used), milliseconds(allowed))
    }
}
