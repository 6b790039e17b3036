//! How each server is started, and how it says where it listens.

use std::{
    env, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde_json::Value;
use tokio::process::Command;

use crate::programs;

/// One way to run one server. Every server takes a free port on loopback.
#[derive(Debug, Clone)]
pub(crate) enum Recipe {
    /// This program as a bare hyper server.
    Hyper,
    /// This program as a hyper server that keeps every tenant's database open.
    Native {
        /// Where the tenants' files lie.
        data: PathBuf,
    },
    /// `dormouse serve` over a data folder.
    Dormouse {
        /// The server.
        program: PathBuf,
        /// The data folder.
        data: PathBuf,
        /// Whether databases stay open between requests.
        parking: Parking,
        /// The world of the functions that it runs.
        world: World,
    },
    /// `wasmtime serve` with one component.
    Wasmtime {
        /// The wasmtime program.
        program: PathBuf,
        /// The component that answers.
        component: PathBuf,
        /// Options beyond those that every run needs.
        flags: &'static [&'static str],
    },
    /// `tests/bench/bun-server.ts` over a data folder.
    Bun {
        /// The bun program.
        program: PathBuf,
        /// Where the tenants' files lie.
        data: PathBuf,
    },
}

/// What Dormouse does with a database after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parking {
    /// As shipped: it stays open for a moment.
    Shipped,
    /// It is closed at once.
    Off,
}

/// The version of `wasi:http` that a function is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum World {
    /// `wasi:http/incoming-handler@0.2`.
    P2,
    /// `wasi:http/handler@0.3`.
    P3,
}

impl World {
    /// Its name in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::P2 => "wasi:http 0.2",
            Self::P3 => "wasi:http 0.3",
        }
    }
}

/// What `wasmtime serve` always gets: std's guests import all of wasi:cli, and an instance serves one
/// request, as in Dormouse (that is wasmtime's default for wasi:http 0.2, not for 0.3).
const WASMTIME_FLAGS: [&str; 3] = ["-Scli", "--max-instance-reuse-count", "1"];

/// What measured best of the options that keep an instance fresh: pooled slots that keep their pages and are
/// cleaned with the kernel's help, and no wasi 0.3, which this component does not use.
pub(crate) const WASMTIME_TUNED: &[&str] = &[
    "-Opooling-allocator=y",
    "-Opooling-memory-keep-resident=1048576",
    "-Opooling-table-keep-resident=65536",
    "-Opooling-async-stack-keep-resident=65536",
    "-Opooling-pagemap-scan=auto",
    "-Wcomponent-model-async=n",
    "-Sp3=n",
];

impl Recipe {
    /// The command that starts the server.
    pub(crate) fn command(&self) -> Result<Command> {
        let mut command = match self {
            Self::Hyper => {
                let mut command = Command::new(env::current_exe()?);
                command.arg("hyper-server");
                command
            }
            Self::Native { data } => {
                fs::create_dir_all(data)?;
                let mut command = Command::new(env::current_exe()?);
                command.arg("native-server").arg(data);
                command
            }
            Self::Dormouse { program, data, parking, .. } => {
                let mut command = Command::new(program);
                as_shipped(&mut command, data);
                command.arg("serve").arg("--data").arg(data);
                command.args(["--public-listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
                if *parking == Parking::Off {
                    command.args(["--park-time-max-ms", "0"]);
                }
                command
            }
            Self::Wasmtime { program, component, flags } => {
                let mut command = Command::new(program);
                command.arg("serve").args(WASMTIME_FLAGS).args(*flags);
                command.args(["--addr", "127.0.0.1:0"]).arg(component);
                command
            }
            Self::Bun { program, data } => {
                fs::create_dir_all(data)?;
                let mut command = Command::new(program);
                command.arg(programs::support("bun-server.ts")).arg(data);
                command
            }
        };
        // It would make each error that a Rust server handles take a backtrace.
        command.env_remove("RUST_BACKTRACE");
        Ok(command)
    }

    /// Version and options, for the reader of the table.
    pub(crate) async fn detail(&self) -> String {
        match self {
            Self::Hyper => "hyper 1, tokio with as many threads as cores".to_owned(),
            Self::Native { .. } => {
                "hyper 1 and libsql 0.10 in one program, every database kept open".to_owned()
            }
            Self::Dormouse { program, parking, world, .. } => {
                let options = match parking {
                    Parking::Shipped => "as shipped",
                    Parking::Off => "`--park-time-max-ms 0`",
                };
                let (version, world) = (programs::version(program).await, world.name());
                format!("{version}, {options}, functions of {world}")
            }
            Self::Wasmtime { program, flags, .. } => {
                let options = WASMTIME_FLAGS.iter().chain(*flags).copied().collect::<Vec<_>>().join(" ");
                format!("{}, `{options}`", programs::version(program).await)
            }
            Self::Bun { program, .. } => format!("bun {}, `bun-server.ts`", programs::version(program).await),
        }
    }

    /// The token for the admin door, once the server listens.
    pub(crate) fn admin_token(&self) -> Result<String> {
        let Self::Dormouse { data, .. } = self else { anyhow::bail!("only Dormouse has an admin door") };
        read_token(&data.join("keys/admin.token"))
    }
}

/// Keeps the settings of the operator's shell and folder away from a server that is to run with its defaults.
fn as_shipped(command: &mut Command, data: &Path) {
    if let Some(folder) = data.parent() {
        command.current_dir(folder);
    }
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("DORMOUSE_") {
            command.env_remove(name);
        }
    }
}

fn read_token(path: &Path) -> Result<String> {
    let token = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    Ok(token.trim().to_owned())
}

/// The addresses that a server has bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Listening {
    /// Where requests go.
    pub(crate) public: SocketAddr,
    /// Dormouse's admin door.
    pub(crate) admin: Option<SocketAddr>,
}

impl Listening {
    /// Reads them from a line of the server's log: the JSON event "listening", its fields at the top or under
    /// `fields`, or the sentence that wasmtime prints.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        if let Some(address) = line.strip_prefix("Serving HTTP on http://") {
            let public = address.trim_end_matches('/').parse().ok()?;
            return Some(Self { public, admin: None });
        }
        let event: Value = serde_json::from_str(line).ok()?;
        let fields = event.get("fields").unwrap_or(&event);
        let text = |name: &str| fields.get(name).or_else(|| event.get(name)).and_then(Value::as_str);
        if text("message")? != "listening" {
            return None;
        }
        let public = text("public")?.parse().ok()?;
        Some(Self { public, admin: text("admin").and_then(|admin| admin.parse().ok()) })
    }
}

#[cfg(test)]
mod tests {
    use super::Listening;

    #[test]
    fn every_server_is_understood() {
        let both = Some(("127.0.0.1:1".to_owned(), Some("127.0.0.1:2".to_owned())));
        let one = Some(("127.0.0.1:1".to_owned(), None));
        let parse = |line| {
            Listening::parse(line).map(|l| (l.public.to_string(), l.admin.map(|admin| admin.to_string())))
        };
        let nested = r#"{"fields":{"message":"listening","public":"127.0.0.1:1","admin":"127.0.0.1:2"}}"#;
        assert_eq!(parse(nested), both);
        assert_eq!(parse(r#"{"message":"listening","public":"127.0.0.1:1","admin":"127.0.0.1:2"}"#), both);
        assert_eq!(parse("Serving HTTP on http://127.0.0.1:1/"), one);
        assert_eq!(parse(r#"{"message":"starting"}"#), None);
        assert_eq!(parse("anything"), None);
    }
}
