//! The node: this program's own `serve`, as a child process.
//!
//! The child is in a process group of its own, so that Ctrl-C reaches only this process, which then tells the child to
//! drain. If this process is killed outright, the kernel tells the child (`--with-parent`).

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use super::Stop;
use super::folder::Folder;

/// The public address that is tried first, because it is the one that people remember.
pub(in crate::cli) const PUBLIC_PREFERRED: SocketAddr = SocketAddr::new(LOOPBACK, 8_080);

/// An address with a port that the system chooses.
const ANY_PORT: SocketAddr = SocketAddr::new(LOOPBACK, 0);

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Where a project may send requests besides the internet: to what else its developer runs on this machine.
const LOOPBACK_NETWORKS: &str = "127.0.0.0/8,::1";

/// The base domain of the tenants' hosts. Browsers know without DNS where the hosts below it are.
pub(in crate::cli) const BASE_DOMAIN: &str = "localhost";

/// How long the node may take to open its doors.
const START_TIME_MAX: Duration = Duration::from_secs(30);

/// How long the node may take to drain and close. It has deadlines of its own, 45 seconds in all.
const STOP_TIME_MAX: Duration = Duration::from_secs(60);

/// How often the log is looked at for the addresses.
const LOG_POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Where the node listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) struct Doors {
    /// The functions' addresses.
    pub(in crate::cli) public: SocketAddr,
    /// The admin API.
    pub(in crate::cli) admin: SocketAddr,
}

/// The running node.
pub(in crate::cli) struct Server {
    child: Child,
}

impl Server {
    /// Starts the node. Its configuration is given here alone: no file and no variable of the user changes it.
    pub(in crate::cli) fn start(
        folder: &Folder,
        public: SocketAddr,
        log_level: &str,
    ) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot tell where this program is")?;
        let log = folder.log();
        let log = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = Command::new(&program);
        command
            .args(["serve", "--with-parent", "--config", "/dev/null", "--log-format", "json"])
            .args(["--base-domain", BASE_DOMAIN, "--outbound-networks-allowed", LOOPBACK_NETWORKS])
            .args(["--log-level", log_level, "--public-listen", &public.to_string()])
            .args(["--admin-listen", &ANY_PORT.to_string(), "--data"])
            .arg(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .process_group(0)
            .kill_on_drop(true);
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("DORMOUSE_")) {
                command.env_remove(name);
            }
        }
        let child = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Self { child })
    }

    /// Waits until the node listens, and gives its addresses.
    pub(in crate::cli) async fn listening(&mut self, folder: &Folder) -> anyhow::Result<Doors> {
        let doors = async {
            loop {
                let log = std::fs::read_to_string(folder.log()).unwrap_or_default();
                if let Some(doors) = log.lines().find_map(doors_in) {
                    return doors;
                }
                sleep(LOG_POLL_INTERVAL).await;
            }
        };
        tokio::select! {
            doors = timeout(START_TIME_MAX, doors) => {
                doors.with_context(|| format!("the node did not listen within {} s", START_TIME_MAX.as_secs()))
            }
            status = self.child.wait() => Err(ended(status)),
        }
    }

    /// The node's process id.
    pub(in crate::cli) fn process(&self) -> anyhow::Result<u32> {
        self.child.id().context("the node has ended")
    }

    /// Waits until the node ends by itself, which it should not.
    pub(in crate::cli) async fn ended(&mut self) -> anyhow::Error {
        ended(self.child.wait().await)
    }

    /// Tells the node to drain and waits for it. A second Ctrl-C kills it.
    pub(in crate::cli) async fn stop(&mut self, stop: &mut Stop) -> anyhow::Result<()> {
        let Some(process) = self.child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)) else {
            return Ok(());
        };
        kill_process(process, Signal::TERM).context("cannot tell the node to stop")?;
        let status = tokio::select! {
            status = timeout(STOP_TIME_MAX, self.child.wait()) => status,
            () = stop.asked() => return self.child.kill().await.context("cannot kill the node"),
        };
        match status {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => bail!("the node did not end cleanly ({status})"),
            Ok(Err(error)) => Err(error).context("cannot wait for the node"),
            Err(_) => {
                self.child.kill().await.context("cannot kill the node")?;
                bail!("the node did not stop within {} s and was killed", STOP_TIME_MAX.as_secs())
            }
        }
    }
}

fn ended(status: std::io::Result<std::process::ExitStatus>) -> anyhow::Error {
    match status {
        Ok(status) => anyhow!("the node ended unasked ({status})"),
        Err(error) => anyhow!(error).context("cannot wait for the node"),
    }
}

/// The address when it is free, else one with a port that the system chooses.
pub(in crate::cli) fn free_or_any(preferred: SocketAddr) -> SocketAddr {
    if TcpListener::bind(preferred).is_ok() { preferred } else { ANY_PORT }
}

/// The addresses in the log line that says `listening`.
fn doors_in(line: &str) -> Option<Doors> {
    let event: Value = serde_json::from_str(line).ok()?;
    let field = |name| event.get(name).or_else(|| event.get("fields")?.get(name))?.as_str();
    if field("message")? != "listening" {
        return None;
    }
    let address = |name| field(name)?.parse().ok();
    Some(Doors { public: address("public")?, admin: address("admin")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_doors_are_read_from_the_log() {
        let doors = Doors {
            public: SocketAddr::from(([127, 0, 0, 1], 8_080)),
            admin: SocketAddr::from(([127, 0, 0, 1], 9_090)),
        };
        let flat =
            r#"{"level":"INFO","message":"listening","public":"127.0.0.1:8080","admin":"127.0.0.1:9090"}"#;
        let nested =
            r#"{"fields":{"message":"listening","public":"127.0.0.1:8080","admin":"127.0.0.1:9090"}}"#;
        assert_eq!([flat, nested].map(doors_in), [Some(doors), Some(doors)]);
        for other in ["", "listening", r#"{"message":"closed"}"#, r#"{"message":"listening","public":"x"}"#] {
            assert_eq!(doors_in(other), None, "{other}");
        }
    }
}
