//! A control group with little memory: the nearest thing to a small machine. Only root can make one.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};

use crate::eventually;

/// The file that lists a group's processes; one that writes itself into it is moved there.
const MEMBERS: &str = "cgroup.procs";

/// Names of the files, which differ between the versions of cgroups(7).
#[derive(Debug, Clone, Copy)]
struct Names {
    limit: &'static str,
    /// Memory and swap together, or swap: neither may help out.
    swap: &'static str,
    kills: &'static str,
    peak: &'static str,
}

const VERSION_1: Names = Names {
    limit: "memory.limit_in_bytes",
    swap: "memory.memsw.limit_in_bytes",
    kills: "memory.oom_control",
    peak: "memory.max_usage_in_bytes",
};

const VERSION_2: Names =
    Names { limit: "memory.max", swap: "memory.swap.max", kills: "memory.events", peak: "memory.peak" };

/// A control group. Dropping it removes it; its processes have ended by then.
#[derive(Debug)]
pub struct MemoryGroup {
    folder: PathBuf,
    names: Names,
}

impl MemoryGroup {
    /// A group of at most so many bytes; nothing where that is not allowed.
    ///
    /// # Errors
    /// When the group is there and cannot be limited.
    pub fn of(bytes: u64) -> Result<Option<Self>> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let name = format!("dormouse-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        for (parent, names) in groups.lines().filter_map(parent_of) {
            let group = Self { folder: parent.join(&name), names };
            if fs::create_dir(&group.folder).is_err() {
                continue;
            }
            if group.folder.join(names.limit).exists() {
                group.limit(bytes)?;
                return Ok(Some(group));
            }
        }
        Ok(None)
    }

    fn limit(&self, bytes: u64) -> Result<()> {
        fs::write(self.folder.join(self.names.limit), bytes.to_string()).context("no limit can be set")?;
        let swap = if self.names.swap == VERSION_2.swap { 0 } else { bytes };
        // A kernel without accounts of swap has no such file.
        let _ = fs::write(self.folder.join(self.names.swap), swap.to_string());
        Ok(())
    }

    /// Where a process writes its id to move in.
    #[must_use]
    pub fn members(&self) -> PathBuf {
        self.folder.join(MEMBERS)
    }

    /// Processes that the kernel has killed because the group was full.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn kills(&self) -> Result<u64> {
        let text = fs::read_to_string(self.folder.join(self.names.kills))?;
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        Ok(count.with_context(|| format!("no oom_kill: {text}"))?.trim().parse()?)
    }

    /// The most that the group has had, caches of the kernel included.
    #[must_use]
    pub fn peak(&self) -> Option<u64> {
        fs::read_to_string(self.folder.join(self.names.peak)).ok()?.trim().parse().ok()
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // The last process may be on its way out.
        let removed = eventually("the group is empty", || Ok(fs::remove_dir(&self.folder).ok()));
        if removed.is_err() {
            eprintln!("{} stays behind", self.folder.display());
        }
    }
}

/// Where a group may be made, from a line of `/proc/self/cgroup`. A group of version 2 that has processes cannot have
/// groups with limits below it, so that one is made beside it.
fn parent_of(line: &str) -> Option<(PathBuf, Names)> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (controllers, path) = (parts.next()?, Path::new(parts.next()?.trim_start_matches('/')));
    if controllers.is_empty() {
        let parent = path.parent().unwrap_or(path);
        return Some((Path::new("/sys/fs/cgroup").join(parent), VERSION_2));
    }
    let holds_memory = controllers.split(',').any(|controller| controller == "memory");
    holds_memory.then(|| (Path::new("/sys/fs/cgroup/memory").join(path), VERSION_1))
}
