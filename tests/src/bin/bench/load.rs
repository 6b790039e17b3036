//! The load generator: wrk, or oha where only that is installed.
//!
//! Both are used as they come, as a process of their own. wrk draws the tenants in `tests/bench/load.lua`
//! from a fixed seed; oha draws them from a list of addresses, unseeded.

use std::{
    collections::HashMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::process::Command;

use crate::{options::Options, programs, seed};

/// The document that every webhook request carries.
pub(crate) const DOCUMENT: &str = r#"{"name":"Ada","message":"Sleep well, little dormouse."}"#;

/// An installed load generator.
#[derive(Debug)]
pub(crate) enum Generator {
    /// wrk, by path.
    Wrk(PathBuf),
    /// oha, by path.
    Oha(PathBuf),
}

/// What is asked of the server in a slice.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Ask<'a> {
    /// GET this path.
    Get(&'a str),
    /// GET what one of so many tenants has.
    Read {
        /// How many tenants.
        tenants: u64,
        /// What the draw starts from.
        seed: u64,
    },
    /// Post the document to one of so many tenants.
    Webhook {
        /// How many tenants.
        tenants: u64,
        /// What the draw starts from.
        seed: u64,
    },
}

/// What a slice gave.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Sample {
    /// Requests answered.
    pub(crate) requests: u64,
    /// Length of the slice as the generator measured it.
    pub(crate) seconds: f64,
    /// Median latency in microseconds.
    pub(crate) p50_us: f64,
    /// 99th percentile of the latency in microseconds.
    pub(crate) p99_us: f64,
    /// Answers that were no success.
    pub(crate) status_errors: u64,
    /// Connections that failed and requests that timed out.
    pub(crate) socket_errors: u64,
}

impl Generator {
    /// The one that is installed; wrk is preferred.
    pub(crate) fn find() -> Result<Self> {
        let wrk = programs::find(None, "wrk").map(Self::Wrk);
        let Some(found) = wrk.or_else(|| programs::find(None, "oha").map(Self::Oha)) else {
            bail!("no load generator: `apt-get install wrk`, `brew install wrk` or `cargo install oha`");
        };
        Ok(found)
    }

    /// Its name, for the page.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Wrk(_) => "wrk",
            Self::Oha(_) => "oha",
        }
    }

    /// The command that loads `server` for one slice. `scratch` is for files that it reads.
    pub(crate) fn command(
        &self,
        options: &Options,
        server: SocketAddr,
        ask: Ask<'_>,
        scratch: &Path,
    ) -> Result<Command> {
        let mut command = match self {
            Self::Wrk(program) => wrk(program, options, server, ask),
            Self::Oha(program) => oha(program, options, server, ask, scratch)?,
        };
        command.stdin(Stdio::null()).stderr(Stdio::inherit()).kill_on_drop(true);
        Ok(command)
    }

    /// Reads what it printed.
    pub(crate) fn parse(&self, output: &str) -> Result<Sample> {
        let sample = match self {
            Self::Wrk(_) => parse_wrk(output),
            Self::Oha(_) => parse_oha(output),
        };
        sample.with_context(|| format!("{} printed no result:\n{output}", self.name()))
    }
}

fn wrk(program: &Path, options: &Options, server: SocketAddr, ask: Ask<'_>) -> Command {
    let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get().min(2));
    let mut command = Command::new(program);
    command.args(["--timeout", "10s", "--threads", &threads.to_string()]);
    command.args(["--connections", &options.connections.to_string()]);
    command.args(["--duration", &format!("{}s", options.seconds)]);
    command.arg("--script").arg(programs::support("load.lua"));
    match ask {
        Ask::Get(path) => command.arg(format!("http://{server}{path}")),
        Ask::Read { tenants, seed } => {
            command.args([&format!("http://{server}"), "--", &tenants.to_string(), &seed.to_string()])
        }
        Ask::Webhook { tenants, seed } => command.args([
            &format!("http://{server}"),
            "--",
            &tenants.to_string(),
            &seed.to_string(),
            DOCUMENT,
        ]),
    };
    command
}

/// The last line of `load.lua`: `slice requests=1 duration_us=2 …`.
fn parse_wrk(output: &str) -> Option<Sample> {
    let line = output.lines().find_map(|line| line.strip_prefix("slice "))?;
    let fields: HashMap<&str, f64> =
        line.split(' ').filter_map(|field| field.split_once('=')?.parse_second()).collect();
    let field = |name: &str| fields.get(name).copied();
    Some(Sample {
        requests: field("requests")? as u64,
        seconds: field("duration_us")? / 1e6,
        p50_us: field("p50_us")?,
        p99_us: field("p99_us")?,
        status_errors: field("status")? as u64,
        socket_errors: (field("socket")? + field("timeout")?) as u64,
    })
}

fn oha(
    program: &Path,
    options: &Options,
    server: SocketAddr,
    ask: Ask<'_>,
    scratch: &Path,
) -> Result<Command> {
    let mut command = Command::new(program);
    command.args(["--no-tui", "--output-format", "json", "-c", &options.connections.to_string()]);
    command.args(["-z", &format!("{}s", options.seconds)]);
    match ask {
        Ask::Get(path) => command.arg(format!("http://{server}{path}")),
        Ask::Read { tenants, .. } | Ask::Webhook { tenants, .. } => {
            let path = scratch.join("addresses.txt");
            let line = |n| format!("http://{server}/t/{}/fn\n", seed::tenant(n));
            fs::write(&path, (0..tenants).map(line).collect::<String>())?;
            if matches!(ask, Ask::Webhook { .. }) {
                command.args(["-m", "POST", "-T", "application/json", "-d", DOCUMENT]);
            }
            command.arg("--urls-from-file").arg(path)
        }
    };
    Ok(command)
}

/// The fields of oha's JSON output (its schema.json). Requests that the end of the slice cut off are no
/// errors.
fn parse_oha(output: &str) -> Option<Sample> {
    let json: Value = serde_json::from_str(output).ok()?;
    let number = |pointer: &str| json.pointer(pointer).and_then(Value::as_f64);
    let count = |pointer: &str, counts: &dyn Fn(&str) -> bool| -> Option<u64> {
        let table = json.pointer(pointer)?.as_object()?;
        Some(table.iter().filter(|(key, _)| counts(key)).filter_map(|(_, n)| n.as_u64()).sum())
    };
    Some(Sample {
        requests: count("/statusCodeDistribution", &|_| true)?,
        seconds: number("/summary/total")?,
        p50_us: number("/latencyPercentiles/p50")? * 1e6,
        p99_us: number("/latencyPercentiles/p99")? * 1e6,
        status_errors: count("/statusCodeDistribution", &|status| !status.starts_with('2'))?,
        socket_errors: count("/errorDistribution", &|error| !error.contains("deadline"))?,
    })
}

/// Reads the value of a `name=value` pair.
trait ParseSecond<'a> {
    fn parse_second(self) -> Option<(&'a str, f64)>;
}

impl<'a> ParseSecond<'a> for (&'a str, &str) {
    fn parse_second(self) -> Option<(&'a str, f64)> {
        self.1.parse().ok().map(|value| (self.0, value))
    }
}

#[cfg(test)]
mod tests {
    use super::{Sample, parse_oha, parse_wrk};

    #[test]
    fn reads_both_generators() {
        let wrk = "Running 2s test\n\
            slice requests=10 duration_us=2000000 p50_us=7 p99_us=9 status=1 socket=2 timeout=3\n";
        let (p50_us, p99_us) = (7.0, 9.0);
        let expected =
            Sample { requests: 10, seconds: 2.0, p50_us, p99_us, status_errors: 1, socket_errors: 5 };
        assert_eq!(parse_wrk(wrk), Some(expected));
        let oha = r#"{"summary":{"total":2.0},"latencyPercentiles":{"p50":0.5,"p99":0.25},
            "statusCodeDistribution":{"201":9,"500":1},
            "errorDistribution":{"aborted due to deadline":4,"x":5}}"#;
        let (p50_us, p99_us) = (500_000.0, 250_000.0);
        assert_eq!(parse_oha(oha), Some(Sample { p50_us, p99_us, ..expected }));
    }
}
