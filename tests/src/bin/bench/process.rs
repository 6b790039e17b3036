//! A server as a child process: started, waited for until it listens, observed, and always killed.
//!
//! The child's output goes to a file, never through a pipe that the benchmark would have to drain while it
//! measures.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

const START_TIME_MAX: Duration = Duration::from_secs(60);
const STOP_TIME_MAX: Duration = Duration::from_secs(30);
/// The unit of the times in `/proc/<pid>/stat`; Linux has shown 100 per second to every program for decades.
const TICK: Duration = Duration::from_millis(10);

/// A running child. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    pid: i32,
    log: PathBuf,
}

impl Process {
    /// Starts `command`, its output going to `log`, and waits until `ready` finds in a line of it what it
    /// looks for.
    pub(crate) async fn start<T>(
        mut command: Command,
        log: &Path,
        ready: impl Fn(&str) -> Option<T>,
    ) -> Result<(Self, T)> {
        let output = fs::File::create(log).with_context(|| format!("create {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).kill_on_drop(true);
        let child = command.spawn().with_context(|| format!("start {:?}", command.as_std().get_program()))?;
        let pid = i32::try_from(child.id().context("the child is gone")?)?;
        let mut process = Self { child, pid, log: log.to_owned() };
        let found = process.wait_until(ready).await?;
        Ok((process, found))
    }

    async fn wait_until<T>(&mut self, ready: impl Fn(&str) -> Option<T>) -> Result<T> {
        let started = Instant::now();
        while started.elapsed() < START_TIME_MAX {
            let exited = self.child.try_wait()?;
            let text = fs::read_to_string(&self.log).unwrap_or_default();
            if let Some(found) = text.lines().find_map(&ready) {
                return Ok(found);
            }
            if let Some(status) = exited {
                bail!("it ended with {status} before it listened:\n{}", self.log_tail());
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Err(anyhow!("it did not listen within {START_TIME_MAX:?}:\n{}", self.log_tail()))
    }

    /// Asks the child to stop, as an operator would, and waits until it has.
    pub(crate) async fn stop(&mut self) -> Result<()> {
        if self.child.try_wait()?.is_none() {
            let pid = Pid::from_raw(self.pid).context("no process id")?;
            kill_process(pid, Signal::TERM)?;
        }
        if tokio::time::timeout(STOP_TIME_MAX, self.child.wait()).await.is_err() {
            self.child.kill().await?;
            bail!("it did not stop within {STOP_TIME_MAX:?} of SIGTERM:\n{}", self.log_tail());
        }
        Ok(())
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// CPU time used so far by the process, its children, and children that have ended.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let own = crate::clock::cpu_time(self.pid).with_context(|| self.log_tail())?;
        let children = family(self.pid).into_iter().filter(|pid| *pid != self.pid);
        let running: Duration = children.filter_map(|pid| crate::clock::cpu_time(pid).ok()).sum();
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid))?;
        Ok(own + running + ended_children(&stat).unwrap_or_default())
    }

    /// Resident memory of the process and its children, in bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let status = |pid| fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        family(self.pid).into_iter().filter_map(|pid| resident(&status(pid))).sum()
    }

    /// The same with each page that several processes share divided among them.
    pub(crate) fn proportional_bytes(&self) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid)).unwrap_or_default();
        kib(&text, "Pss:").unwrap_or(0) * 1024
    }

    /// The last lines that the child wrote, for an error message.
    pub(crate) fn log_tail(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(15).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

/// A process and everything it has started that still runs.
fn family(pid: i32) -> Vec<i32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let children = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let pids: Vec<i32> = children.flat_map(|line| numbers(&line)).collect();
    std::iter::once(pid).chain(pids.into_iter().flat_map(family)).collect()
}

fn numbers(line: &str) -> Vec<i32> {
    line.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

/// The time of ended children in a line of `/proc/<pid>/stat`: fields 16 and 17 of proc_pid_stat(5), where
/// the second is a name in brackets that may hold anything.
fn ended_children(stat: &str) -> Option<Duration> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(13);
    let (user, system): (u32, u32) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(TICK * (user + system))
}

/// The bytes of the `VmRSS` line of `/proc/<pid>/status`.
fn resident(status: &str) -> Option<u64> {
    kib(status, "VmRSS:").map(|kib| kib * 1024)
}

/// The number in the line that starts with this word.
fn kib(text: &str, word: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(word))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{ended_children, resident};

    #[test]
    fn reads_what_the_kernel_writes() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194304 10 20 0 0 100 200 3 4 20 0 1 0 5 6 7";
        assert_eq!(ended_children(stat), Some(Duration::from_millis(70)));
        assert_eq!(resident("Name:\tx\nVmRSS:\t   1024 kB\n"), Some(1_048_576));
        assert_eq!(resident("Name:\tx\n"), None);
    }
}
