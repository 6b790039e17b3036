//! The node's memory: how much there is, and what of it goes where.
//!
//! `memory` names it; otherwise it is that of the machine, or of the control group that the node runs in. From it come
//! the defaults of the settings that decide how much memory the node takes; one that is set wins, and what cannot fit is
//! refused at start.
//!
//! | part | bytes | 256 MB | 1 GB | 4 GB |
//! |---|---|---|---|---|
//! | the program, its threads, control data, mapped components | [`FIXED_BYTES`] | 48 | 48 | 48 |
//! | open connections: heads that arrive, sockets of the kernel | `connections_max` × [`CONNECTION_BYTES`] | 16 | 62 | 134 |
//! | parked databases | `park_memory_bytes_max` | 8 | 31 | 101 |
//! | requests: what is each one's own | `concurrency_max` × [`REQUEST_BYTES`] | 91 | 428 | 1611 |
//! | what they share: [`crate::memory::Budget`] | the rest | 93 | 430 | 2107 |
//!
//! Database processes, where there are any, take [`DATABASE_PROCESS_BYTES`] each, and half of what requests share.
//!
//! A request's own part holds the first 2 MiB of its guest, its stack and tables, a session of SQLite's with its first
//! 256 KiB, buffers, and what a freed slot of the other world's pool keeps. Everything beyond is charged to the shared
//! part: larger guests, larger SQL, rows and values that wait, uploads, and the compiler while it runs. So the requests
//! that stay within their own part never feel those that do not.
//!
//! A request that was measured (docs/benchmarks.md) takes far less than its part. Whoever sets `concurrency_max` may
//! count on [`REQUEST_BYTES_MIN`].

use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::limits;
use crate::sandbox::World;

/// What the node takes without a request.
const FIXED_BYTES: u64 = 48_000_000;
/// What a database process takes without a session: its own pages of the program, its threads, its allocator.
const DATABASE_PROCESS_BYTES: u64 = 16_000_000;
/// What one open connection takes at most: a head that has not arrived whole, and the kernel's buffers.
const CONNECTION_BYTES: u64 = 32 << 10;
/// What one request may take before it is charged for anything.
const REQUEST_BYTES: u64 = 3 << 20;
/// What one request takes when it is small: an instance and a database that has written.
const REQUEST_BYTES_MIN: u64 = 400_000;
/// The fewest requests of one tenant that run at the same time.
const TENANT_CONCURRENCY_MIN: u32 = 8;
/// The least that requests share.
pub(super) const SHARED_BYTES_MIN: u64 = 16_000_000;
/// What of the compiler's address space is the program, which is in memory already, and stacks that it never touches.
const COMPILER_FIXED_BYTES: u64 = 64 << 20;
/// The least address space that the compiler can do anything in.
const COMPILE_BYTES_MIN: u64 = 80 << 20;

/// From here on the pools keep what makes requests fastest.
const LARGE_BYTES: u64 = 4_000_000_000;

/// A number of bytes as a person writes it: `256MB`, `1GiB`, `500000000`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bytes(pub(super) u64);

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.trim_end_matches(|letter: char| !letter.is_ascii_digit());
        let unit: u64 =
            match text.get(digits.len()..).unwrap_or_default().trim().to_ascii_lowercase().as_str() {
                "" | "b" => 1,
                "kb" => 1_000,
                "mb" => 1_000_000,
                "gb" => 1_000_000_000,
                "kib" => 1 << 10,
                "mib" => 1 << 20,
                "gib" => 1 << 30,
                _ => return Err("write a number of bytes, or one with MB, GB, MiB or GiB: 256MB".to_owned()),
            };
        let number: u64 = digits.parse().map_err(|error| format!("{error}; write for example 256MB"))?;
        number.checked_mul(unit).map(Self).ok_or_else(|| "that is too much".to_owned())
    }
}

/// The node's memory in bytes, and the defaults that follow from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Node {
    bytes: u64,
}

/// The settings that say how much of the memory is spoken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spoken {
    pub(super) connections_max: u32,
    pub(super) concurrency_max: u32,
    pub(super) park_memory_bytes_max: u64,
    pub(super) database_processes: u32,
}

/// What the node's memory is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryPlan {
    /// All of it, in bytes.
    pub bytes: u64,
    /// What requests share, in bytes.
    pub shared_bytes: u64,
    /// What the sessions of one database process share beside that, in bytes.
    pub database_process_bytes: u64,
    /// Address space of the compiler's process, in bytes.
    pub compile_bytes_max: u64,
    /// What of that is charged to what requests share.
    pub compile_charge: u64,
    /// Components that are mapped.
    pub components_max: usize,
    /// Threads that run SQL when nobody says.
    pub database_threads: u32,
    /// Addresses that are remembered.
    pub routes_max: usize,
    /// What the instance pools keep in slots that no guest uses, in bytes, when nobody says.
    pub pool_idle_bytes_max: u64,
}

impl Node {
    pub(super) fn new(bytes: u64) -> Self {
        Self { bytes }
    }

    /// One for each `bytes`, within bounds.
    fn one_per(self, bytes: u64, least: u32, most: u32) -> u32 {
        u32::try_from(self.bytes / bytes).unwrap_or(u32::MAX).clamp(least, most)
    }

    pub(super) fn connections_max(self) -> u32 {
        self.one_per(512 << 10, 64, limits::CONNECTIONS_MAX)
    }

    pub(super) fn park_memory_bytes_max(self) -> u64 {
        (self.bytes / 32).clamp(4 << 20, limits::PARK_MEMORY_BYTES_MAX)
    }

    /// Half of what is left goes to requests of their own, the rest to what they share.
    pub(super) fn concurrency_max(
        self,
        connections_max: u32,
        park_memory_bytes_max: u64,
        database_processes: u32,
    ) -> u32 {
        let spoken =
            Spoken { connections_max, concurrency_max: 0, park_memory_bytes_max, database_processes };
        let left = self.bytes.saturating_sub(spoken.bytes(0));
        u32::try_from(left / 2 / REQUEST_BYTES).unwrap_or(u32::MAX).clamp(1, limits::CONCURRENCY_MAX)
    }

    /// What freed slots keep for their next guests: what makes requests fastest, but no more than a quarter of all.
    fn pool_idle_bytes_max(self, concurrency_max: u32) -> u64 {
        let guests = u64::from(concurrency_max) * World::ALL.len() as u64;
        let each = if self.bytes < LARGE_BYTES { 320 << 10 } else { 1 << 20 };
        let least = guests * limits::POOL_IDLE_BYTES_PER_GUEST_MIN;
        (guests * each).min(self.bytes / 4).min(limits::POOL_IDLE_BYTES_MAX).max(least)
    }

    /// What requests share beside all that is spoken for; the figures when that is too little.
    pub(super) fn shared_bytes(self, spoken: Spoken) -> Result<u64, String> {
        let beside = |request_bytes| self.bytes.saturating_sub(spoken.bytes(request_bytes));
        let generous = beside(REQUEST_BYTES);
        if generous >= SHARED_BYTES_MIN {
            return Ok(generous);
        }
        let left = beside(REQUEST_BYTES_MIN);
        if left >= SHARED_BYTES_MIN {
            return Ok(left);
        }
        Err(format!(
            "{} MB are too little: the program takes {}, {} database processes {}, {} connections {}, parked databases {}, \
             {} requests {} at least, and what they share {}; lower connections_max, park_memory_bytes_max, \
             concurrency_max or database_processes",
            megabytes(self.bytes),
            megabytes(FIXED_BYTES),
            spoken.database_processes,
            megabytes(u64::from(spoken.database_processes) * DATABASE_PROCESS_BYTES),
            spoken.connections_max,
            megabytes(u64::from(spoken.connections_max) * CONNECTION_BYTES),
            megabytes(spoken.park_memory_bytes_max),
            spoken.concurrency_max,
            megabytes(u64::from(spoken.concurrency_max) * REQUEST_BYTES_MIN),
            megabytes(SHARED_BYTES_MIN),
        ))
    }

    /// The rest of the plan. Database processes have half of what requests share, each its part of it: an account in
    /// one process would have to be believed by the others.
    pub(super) fn plan(self, spoken: Spoken, shared_bytes: u64) -> MemoryPlan {
        let processes = u64::from(spoken.database_processes);
        let database_process_bytes = (shared_bytes / 2).checked_div(processes).unwrap_or(0);
        let shared_bytes = shared_bytes - database_process_bytes * processes;
        let compile_bytes_max =
            (shared_bytes / 2 + COMPILER_FIXED_BYTES).clamp(COMPILE_BYTES_MIN, limits::COMPILE_BYTES_MAX);
        MemoryPlan {
            bytes: self.bytes,
            shared_bytes,
            database_process_bytes,
            compile_bytes_max,
            compile_charge: compile_bytes_max.saturating_sub(COMPILER_FIXED_BYTES).min(shared_bytes),
            components_max: limits::COMPONENTS_MAX.min(self.one_per(8 << 20, 16, u32::MAX) as usize),
            database_threads: self.one_per(32 << 20, 4, database_threads()),
            routes_max: limits::ROUTES_MAX.min(self.one_per(128 << 10, 1_024, u32::MAX) as usize),
            pool_idle_bytes_max: self.pool_idle_bytes_max(spoken.concurrency_max),
        }
    }
}

fn database_threads() -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    u32::try_from(cores)
        .unwrap_or(u32::MAX)
        .saturating_mul(limits::DATABASE_THREADS_PER_CORE)
        .min(limits::DATABASE_THREADS_MAX)
}

/// What one guest may take when nobody says: never more than half of what all share.
pub(super) fn guest_bytes_max(shared_bytes: u64) -> u64 {
    limits::MEMORY_BYTES_MAX.min(shared_bytes / 2 + limits::MEMORY_INCLUDED_BYTES)
}

/// An eighth of the node's requests when nobody says, but never so few that a page with its pictures waits in line.
pub(super) fn tenant_concurrency_max(concurrency_max: u32) -> u32 {
    (concurrency_max / 8).clamp(TENANT_CONCURRENCY_MIN.min(concurrency_max), limits::TENANT_CONCURRENCY_MAX)
}

/// The largest component when nobody says: an upload is held twice while it arrives.
pub(super) fn component_bytes_max(shared_bytes: u64) -> u64 {
    limits::COMPONENT_BYTES_MAX.min(shared_bytes / 8)
}

impl Spoken {
    fn bytes(self, request_bytes: u64) -> u64 {
        let connections = u64::from(self.connections_max) * CONNECTION_BYTES;
        let requests = u64::from(self.concurrency_max) * request_bytes;
        let processes = u64::from(self.database_processes) * DATABASE_PROCESS_BYTES;
        FIXED_BYTES
            .saturating_add(processes)
            .saturating_add(connections)
            .saturating_add(self.park_memory_bytes_max)
            .saturating_add(requests)
    }
}

fn megabytes(bytes: u64) -> u64 {
    bytes / 1_000_000
}

/// The memory of this machine, or of the control group that this process runs in if that is less.
pub(super) fn of_this_machine() -> u64 {
    let read = |path: &Path| std::fs::read_to_string(path).ok();
    let machine = read(Path::new("/proc/meminfo")).and_then(|text| total_of(&text)).unwrap_or(u64::MAX);
    let groups = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
    let limits = files_of(&groups).into_iter().filter_map(|file| read(&file)?.trim().parse().ok());
    limits.fold(machine, u64::min)
}

/// `MemTotal` of proc_meminfo(5).
fn total_of(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
}

/// The files that may hold a limit for a process with these lines of cgroups(7): its group's and all above it.
fn files_of(groups: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (root, name) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            list if list.split(',').any(|one| one == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let path = Path::new(path.trim_start_matches('/'));
        files.extend(path.ancestors().map(|group| Path::new(root).join(group).join(name)));
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(bytes: u64, database_processes: u32) -> Result<(Spoken, MemoryPlan), String> {
        let node = Node::new(bytes);
        let (connections_max, park_memory_bytes_max) = (node.connections_max(), node.park_memory_bytes_max());
        let concurrency_max =
            node.concurrency_max(connections_max, park_memory_bytes_max, database_processes);
        let spoken = Spoken { connections_max, concurrency_max, park_memory_bytes_max, database_processes };
        Ok((spoken, node.plan(spoken, node.shared_bytes(spoken)?)))
    }

    #[test]
    fn a_size_is_written_as_people_write_it() {
        let read = |text: &str| text.parse::<Bytes>().map(|bytes| bytes.0).ok();
        for (text, bytes) in [
            ("256MB", 256_000_000),
            ("256 mb", 256_000_000),
            ("256MiB", 256 << 20),
            ("1GB", 1_000_000_000),
            ("2GiB", 2 << 30),
            ("1000", 1_000),
        ] {
            assert_eq!(read(text), Some(bytes), "{text}");
        }
        for text in ["", "MB", "-1", "1.5GB", "256 apples", "99999999999999GB"] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn the_smallest_machine_on_fly() -> Result<(), String> {
        let (spoken, plan) = planned(256_000_000, 0)?;
        assert_eq!(
            spoken,
            Spoken {
                connections_max: 488,
                concurrency_max: 29,
                park_memory_bytes_max: 8_000_000,
                database_processes: 0
            }
        );
        assert_eq!(megabytes(plan.shared_bytes), 92);
        assert_eq!(megabytes(plan.compile_bytes_max), 113);
        assert_eq!((plan.components_max, plan.routes_max), (30, 1_953));
        assert_eq!(spoken.bytes(REQUEST_BYTES) + plan.shared_bytes, plan.bytes);
        Ok(())
    }

    #[test]
    fn database_processes_have_their_part() -> Result<(), String> {
        let (spoken, plan) = planned(4_000_000_000, 2)?;
        assert!(plan.shared_bytes.abs_diff(plan.database_process_bytes * 2) < 2);
        let all = spoken.bytes(REQUEST_BYTES) + plan.shared_bytes + plan.database_process_bytes * 2;
        assert_eq!(all, plan.bytes);
        Ok(())
    }

    #[test]
    fn a_machine_of_4_gb_has_the_largest_defaults() -> Result<(), String> {
        let (spoken, plan) = planned(4_000_000_000, 0)?;
        assert_eq!(spoken.connections_max, limits::CONNECTIONS_MAX);
        assert_eq!(spoken.concurrency_max, limits::CONCURRENCY_MAX);
        assert_eq!(spoken.park_memory_bytes_max, limits::PARK_MEMORY_BYTES_MAX);
        assert_eq!(plan.components_max, limits::COMPONENTS_MAX);
        assert_eq!(guest_bytes_max(plan.shared_bytes), limits::MEMORY_BYTES_MAX);
        assert_eq!(component_bytes_max(plan.shared_bytes), limits::COMPONENT_BYTES_MAX);
        Ok(())
    }

    #[test]
    fn two_thousand_small_requests_fit_into_a_gigabyte() -> Result<(), String> {
        let node = Node::new(1_000_000_000);
        let spoken = |concurrency_max| Spoken {
            connections_max: node.connections_max(),
            concurrency_max,
            park_memory_bytes_max: node.park_memory_bytes_max(),
            database_processes: 0,
        };
        assert!(node.shared_bytes(spoken(2_000))? >= SHARED_BYTES_MIN);
        let refused = node.shared_bytes(spoken(4_000)).err().unwrap_or_default();
        assert!(refused.contains("4000 requests 1600 at least"), "{refused}");
        Ok(())
    }

    #[test]
    fn the_groups_of_both_versions_are_found() {
        let version_2 = files_of("0::/system.slice/dormouse.service\n");
        assert!(version_2.contains(&"/sys/fs/cgroup/system.slice/dormouse.service/memory.max".into()));
        assert!(version_2.contains(&"/sys/fs/cgroup/memory.max".into()));
        let version_1 = files_of("3:cpu:/x\n4:memory:/x\n");
        assert_eq!(
            version_1,
            [
                PathBuf::from("/sys/fs/cgroup/memory/x/memory.limit_in_bytes"),
                PathBuf::from("/sys/fs/cgroup/memory/memory.limit_in_bytes")
            ]
        );
        assert_eq!(total_of("MemTotal:  1000 kB\nMemFree: 1 kB\n"), Some(1_024_000));
    }
}
