//! Where settings come from, and what is wrong with them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use crate::spelling;

/// The file that is read when no other is named, if it is there.
const DEFAULT_FILE: &str = "/etc/dormouse/node.toml";

/// `DORMOUSE_*` variables that are no settings of the node: the client's, and those of the project's own tests.
const OTHER_VARIABLES: &[&str] =
    &["DORMOUSE_CONFIG", "DORMOUSE_NODE", "DORMOUSE_TOKEN", "DORMOUSE_TOKEN_FILE", "DORMOUSE_TEST_TENANTS"];

/// Settings that are lists. In a file they are arrays, elsewhere texts with commas.
const LISTS: &[&str] = &["outbound_networks_allowed", "trusted_proxies"];

macro_rules! settings {
    ($($(#[$doc:meta])* $key:ident,)*) => {
        /// Every setting as a flag of `dormouse serve`.
        #[derive(Debug, Default, Clone, clap::Args)]
        pub struct Flags {
            /// Configuration file [default: /etc/dormouse/node.toml, if it is there]
            #[arg(long, value_name = "FILE", env = "DORMOUSE_CONFIG")]
            pub config: Option<PathBuf>,
            $($(#[$doc])* #[arg(long, value_name = "VALUE")] pub $key: Option<String>,)*
        }

        const KEYS: &[&str] = &[$(stringify!($key)),*];

        impl Flags {
            fn given(&self) -> Vec<(&'static str, Option<&String>)> {
                vec![$((stringify!($key), self.$key.as_ref())),*]
            }
        }
    };
}

settings! {
    /// Folder of all data [default: data]
    data,
    /// Address for tenants' requests [default: 0.0.0.0:8080]
    public_listen,
    /// Address of the admin API [default: 127.0.0.1:9090]
    admin_listen,
    /// The address that callers use, such as https://fn.example.com
    public_url,
    /// The domain below which each tenant has a host of its own, such as fn.example.com
    base_domain,
    /// Networks of the proxies in front, such as 10.0.0.0/8, with commas between them [default: none]
    trusted_proxies,
    /// Where they name their client: Fly-Client-IP, CF-Connecting-IP, X-Forwarded-For or proxy_protocol
    client_ip_header,
    /// Memory of the node, such as 256MB or 4GiB; limits below are by default what fits [default: all there is]
    memory,
    /// Landlock and seccomp for the process: required, best-effort or off [default: best-effort]
    process_sandbox,
    /// auto, text or json [default: auto]
    log_format,
    /// Which log events are written [default: info]
    log_level,
    /// Open connections of the public listener [default: what fits, at most 4096]
    connections_max,
    /// Open connections of one client address, or one IPv6 network of 64 bits [default: an eighth, at least 32]
    client_connections_max,
    /// Requests of one client address that run or wait at the same time [default: half of the node's, at least 32]
    client_requests_max,
    /// Whether the public listener speaks HTTP/2 without TLS too, for a proxy that does: true or false [default: false]
    h2c,
    /// Largest request body, in bytes [default: 10485760]
    body_bytes_max,
    /// Largest response body, in bytes [default: 67108864]
    response_bytes_max,
    /// How long a client may send or take nothing of a body that is waited for [default: 10000]
    body_wait_max_ms,
    /// How fast a client must send or take a body in the long run, in bytes per second [default: 1024]
    body_bytes_per_second_min,
    /// Time for a whole request and its response [default: 30000]
    wall_time_max_ms,
    /// Memory of one guest, in bytes [default: what fits, at most 134217728]
    memory_bytes_max,
    /// CPU time of one request [default: 1000]
    cpu_time_max_ms,
    /// Requests that run at the same time [default: what fits, at most 512]
    concurrency_max,
    /// Memory that idle slots of the instance pools may keep, in bytes [default: what fits, at most 1073741824]
    pool_idle_bytes_max,
    /// Requests of one tenant that run at the same time [default: an eighth of the node's, at most 64]
    tenant_concurrency_max,
    /// Requests of one tenant per second; 0 is no limit [default: 0]
    tenant_requests_per_second_max,
    /// Requests of one tenant at once, before that rate holds [default: as many as per second]
    tenant_requests_burst_max,
    /// How long a request waits for its turn [default: 1000]
    turn_wait_max_ms,
    /// Largest component that can be uploaded, in bytes [default: what fits, at most 67108864]
    component_bytes_max,
    /// CPU time that compiling a component may take, rounded down to whole seconds [default: 120000]
    compile_cpu_time_max_ms,
    /// How long a component stays mapped after its last request [default: 30000]
    component_park_time_max_ms,
    /// Threads that run SQL [default: 4 for each core, or what fits]
    database_threads,
    /// Processes that these threads are in, apart from the node's own; 0 for threads of the node [default: 0]
    database_processes,
    /// Size of the log that commits of all tenants share; 0: each tenant's own log is flushed at each commit [default: 67108864, less on a small disk]
    commit_log_bytes,
    /// How long a statement may go on behind its time limit before it is given up [default: 2000]
    statement_grace_ms,
    /// How long a database stays open after its last request [default: 2000]
    park_time_max_ms,
    /// Memory of all parked databases, in bytes [default: what fits, at most 100663296]
    park_memory_bytes_max,
    /// Connections to one tenant's database [default: 4]
    sessions_per_tenant,
    /// Connections to all databases [default: 2048]
    sessions_max,
    /// Running time of one SQL statement [default: 5000]
    statement_time_max_ms,
    /// How long a request may hold a write transaction open [default: 5000]
    transaction_held_max_ms,
    /// Size of one tenant's database and its log together, in bytes [default: 1073741824]
    database_bytes_max,
    /// Free bytes of the disk below which writes are turned away [default: 268435456]
    disk_free_bytes_min,
    /// Networks that functions may reach although they are not public, such as 10.0.0.0/8, with commas between them
    /// [default: none]
    outbound_networks_allowed,
    /// The name server for functions' requests, such as 127.0.0.1:5353 [default: those of /etc/resolv.conf]
    resolver,
    /// A file in PEM with authorities that functions' requests believe besides the known ones [default: none]
    outbound_ca_file,
    /// Requests of a function that one request may have open at the same time [default: 8]
    outbound_concurrency_max,
    /// Requests of a function that one request may send in all [default: 50]
    outbound_requests_max,
    /// Body of a function's request, in bytes [default: 10485760]
    outbound_request_bytes_max,
    /// Body of the response to it, in bytes [default: 10485760]
    outbound_response_bytes_max,
    /// How long a function's request may take to reach its server [default: 5000]
    outbound_connect_time_max_ms,
    /// How long the response to it may take to begin [default: 30000]
    outbound_first_byte_time_max_ms,
    /// How long the response may pause [default: 10000]
    outbound_between_bytes_time_max_ms,
    /// Entries of the audit log for the node's own tokens, and a hundredth for each tenant's [default: 100000]
    audit_entries_max,
    /// Days that an entry of the audit log is kept [default: 365]
    audit_days_max,
    /// How long a shutdown waits for requests in flight [default: 25000]
    drain_deadline_ms,
}

/// Where a value stands.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    File(PathBuf),
    Variable(String),
    Flag(String),
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Variable(name) => write!(f, "variable {name}"),
            Self::Flag(flag) => write!(f, "flag {flag}"),
            Self::Default => write!(f, "default"),
        }
    }
}

/// Everything that is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
#[error("the configuration has mistakes:{}", .0.iter().map(|mistake| format!("\n  {mistake}")).collect::<String>())]
pub struct ConfigError(Vec<String>);

/// The values of all sources, and the mistakes found so far.
pub(super) struct Reader {
    values: BTreeMap<String, (String, Source)>,
    mistakes: Vec<String>,
}

impl Reader {
    pub(super) fn gather(flags: &Flags) -> Self {
        let mut reader = Self { values: BTreeMap::new(), mistakes: Vec::new() };
        match &flags.config {
            Some(path) => reader.add_file(path),
            None if Path::new(DEFAULT_FILE).exists() => reader.add_file(Path::new(DEFAULT_FILE)),
            None => {}
        }
        reader.add_variables(std::env::vars_os());
        for (key, value) in flags.given() {
            if let Some(value) = value {
                let flag = format!("--{}", key.replace('_', "-"));
                reader.values.insert(key.to_owned(), (value.clone(), Source::Flag(flag)));
            }
        }
        reader
    }

    fn add_file(&mut self, path: &Path) {
        let source = Source::File(path.to_owned());
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => return self.mistakes.push(format!("{source}: cannot be read: {error}")),
        };
        let table = match text.parse::<toml::Table>() {
            Ok(table) => table,
            Err(error) => return self.mistakes.push(format!("{source}: {}", error.to_string().trim_end())),
        };
        for (key, value) in table {
            let value = match value {
                toml::Value::String(text) => text,
                toml::Value::Integer(number) => number.to_string(),
                toml::Value::Boolean(choice) => choice.to_string(),
                toml::Value::Array(list) if LISTS.contains(&key.as_str()) => joined(&list),
                other => {
                    self.mistakes.push(format!(
                        "{source}: {key} is neither a text, an integer, nor true or false: {other}"
                    ));
                    continue;
                }
            };
            self.add(&key, value, source.clone());
        }
    }

    fn add_variables(&mut self, variables: impl Iterator<Item = (std::ffi::OsString, std::ffi::OsString)>) {
        for (name, value) in variables {
            let Some(name) = name.to_str().filter(|name| name.starts_with("DORMOUSE_")) else { continue };
            if OTHER_VARIABLES.contains(&name) {
                continue;
            }
            let source = Source::Variable(name.to_owned());
            match value.into_string() {
                Ok(value) => {
                    let key = name.trim_start_matches("DORMOUSE_").to_ascii_lowercase();
                    self.add(&key, value, source);
                }
                Err(_) => self.mistakes.push(format!("{source}: is not UTF-8")),
            }
        }
    }

    fn add(&mut self, key: &str, value: String, source: Source) {
        if KEYS.contains(&key) {
            self.values.insert(key.to_owned(), (value, source));
        } else {
            let hint = spelling::nearest(key, KEYS)
                .map(|near| format!("; did you mean {near}?"))
                .unwrap_or_default();
            self.mistakes.push(format!("{source}: there is no setting {key}{hint}"));
        }
    }

    /// Notes a mistake about a setting, wherever its value came from.
    pub(super) fn mistake(&mut self, key: &str, what: String) {
        let source = self.values.get(key).map_or(Source::Default, |(_, source)| source.clone());
        self.mistakes.push(format!("{source}: {key}: {what}"));
    }

    pub(super) fn text(&mut self, key: &str) -> Option<String> {
        self.values.get(key).map(|(value, _)| value.clone())
    }

    pub(super) fn path(&mut self, key: &str, default: &str) -> Option<PathBuf> {
        let path = PathBuf::from(self.text(key).unwrap_or_else(|| default.to_owned()));
        match std::path::absolute(&path) {
            Ok(path) => Some(path),
            Err(error) => {
                self.mistake(key, format!("{}: {error}", path.display()));
                None
            }
        }
    }

    /// A setting without a default. The outer `None`: it is there and wrong.
    pub(super) fn optional<T: FromStr<Err: fmt::Display>>(&mut self, key: &str) -> Option<Option<T>> {
        let Some(text) = self.text(key) else { return Some(None) };
        match text.parse() {
            Ok(value) => Some(Some(value)),
            Err(error) => {
                self.mistake(key, format!("{text:?}: {error}"));
                None
            }
        }
    }

    pub(super) fn value<T: FromStr<Err: fmt::Display>>(&mut self, key: &str, default: T) -> Option<T> {
        self.optional(key).map(|given| given.unwrap_or(default))
    }

    pub(super) fn at_least<T>(&mut self, key: &str, minimum: T, default: T) -> Option<T>
    where
        T: FromStr<Err: fmt::Display> + PartialOrd + fmt::Display,
    {
        let value = self.value(key, default)?;
        if value < minimum {
            self.mistake(key, format!("{value} is less than {minimum}"));
            return None;
        }
        Some(value)
    }

    pub(super) fn milliseconds(&mut self, key: &str, minimum: u64, default: Duration) -> Option<Duration> {
        let default = u64::try_from(default.as_millis()).unwrap_or(u64::MAX);
        self.at_least(key, minimum, default).map(Duration::from_millis)
    }

    pub(super) fn finish<T>(self, value: Option<T>) -> Result<T, ConfigError> {
        match value {
            Some(value) if self.mistakes.is_empty() => Ok(value),
            Some(_) | None => Err(ConfigError(self.mistakes)),
        }
    }
}

/// A list as a text with commas. An element that is no text is told of where the text is read.
fn joined(list: &[toml::Value]) -> String {
    let text = |value: &toml::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    list.iter().map(text).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_win_over_variables_and_variables_over_files() {
        let mut reader = Reader { values: BTreeMap::new(), mistakes: Vec::new() };
        reader.add("data", "file".to_owned(), Source::File("node.toml".into()));
        reader.add_variables([("DORMOUSE_DATA".into(), "variable".into())].into_iter());
        assert_eq!(reader.text("data").as_deref(), Some("variable"));
        reader.add_variables([("DORMOUSE_DATTA".into(), "x".into())].into_iter());
        assert!(
            reader.mistakes.iter().any(|mistake| mistake.contains("did you mean data?")),
            "{:?}",
            reader.mistakes
        );
    }
}
