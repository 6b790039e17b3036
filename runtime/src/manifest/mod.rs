//! The manifest room: what a function project says of its functions in `dormouse.toml`.
//!
//! It owns the grammar, described in `docs/manifest.md`. The command line reads the file; the node is sent each
//! function's section as JSON, checks it by the same types, and keeps it with the version that was deployed. Both
//! forms end in [`FunctionManifest`], whose values are well-formed by their types. The room reads no file, builds
//! nothing and enforces nothing.

mod outbound;
mod read;

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::name::{FunctionName, VariableName};
pub use outbound::{OutboundHost, OutboundHostError, OutboundHosts, read_host};
pub use read::{ManifestError, Mistake};

/// The manifest's name in a project's folder.
pub const FILE_NAME: &str = "dormouse.toml";

/// Less memory than this holds no program that a compiler makes.
const MEMORY_BYTES_MIN: u64 = 1 << 20;

/// The functions of a project.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manifest {
    /// Each function by its name, the last part of its address.
    pub functions: BTreeMap<FunctionName, FunctionManifest>,
}

impl Manifest {
    /// Reads the text of a `dormouse.toml`.
    ///
    /// # Errors
    /// All mistakes in it, each with its line.
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        read::manifest(text)
    }
}

/// One function: how it is built, and what holds for it when it runs. Paths are relative to the manifest's folder.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FunctionManifest {
    /// The folder that the function is built in; without one, the manifest's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// A command for the shell that builds it; without one, it is a Rust package.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build: Option<String>,
    /// The component that the command makes, or one that is there already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub component: Option<String>,
    /// What `dormouse dev` watches; without any, all of `path`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub watch: Vec<String>,
    /// What a request of it may take.
    #[serde(skip_serializing_if = "Limits::is_empty")]
    pub limits: Limits,
    /// Where it may send requests.
    #[serde(skip_serializing_if = "OutboundHosts::is_empty")]
    pub allowed_outbound_hosts: OutboundHosts,
    /// The variables that it cannot do without.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub variables: Vec<VariableName>,
}

/// What a request of a function may take. The node's own limits hold where one is missing, and where they are lower.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Memory of the guest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes_max: Option<MemoryBytes>,
    /// CPU time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_time_max_ms: Option<Milliseconds>,
    /// Time from the request's arrival to the end of its response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wall_time_max_ms: Option<Milliseconds>,
    /// Body of the response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_bytes_max: Option<u64>,
}

impl Limits {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Memory of the guest, in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> Option<u64> {
        self.memory_bytes_max.map(u64::from)
    }

    /// CPU time of a request.
    #[must_use]
    pub fn cpu_time(&self) -> Option<Duration> {
        self.cpu_time_max_ms.map(Milliseconds::time)
    }

    /// Time for a whole request and its response.
    #[must_use]
    pub fn wall_time(&self) -> Option<Duration> {
        self.wall_time_max_ms.map(Milliseconds::time)
    }

    /// Body of the response, in bytes.
    #[must_use]
    pub fn response_bytes(&self) -> Option<u64> {
        self.response_bytes_max
    }

    /// What is more than a node's limits allow, in words.
    #[must_use]
    pub fn beyond(&self, node: &Self) -> Vec<String> {
        let pairs = [
            ("memory_bytes_max", self.memory_bytes_max.map(u64::from), node.memory_bytes_max.map(u64::from)),
            ("cpu_time_max_ms", self.cpu_time_max_ms.map(u64::from), node.cpu_time_max_ms.map(u64::from)),
            ("wall_time_max_ms", self.wall_time_max_ms.map(u64::from), node.wall_time_max_ms.map(u64::from)),
            ("response_bytes_max", self.response_bytes_max, node.response_bytes_max),
        ];
        let beyond = |(name, own, most): (&str, Option<u64>, Option<u64>)| {
            let (own, most) = (own?, most?);
            (own > most).then(|| format!("limits.{name} is {own}, and this node allows at most {most}"))
        };
        pairs.into_iter().filter_map(beyond).collect()
    }
}

/// A size of memory that a program can live in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct MemoryBytes(u64);

impl TryFrom<u64> for MemoryBytes {
    type Error = String;
    fn try_from(bytes: u64) -> Result<Self, String> {
        if bytes < MEMORY_BYTES_MIN {
            return Err(format!(
                "{bytes} bytes are less than {MEMORY_BYTES_MIN}, the least that a guest needs"
            ));
        }
        Ok(Self(bytes))
    }
}

impl From<MemoryBytes> for u64 {
    fn from(bytes: MemoryBytes) -> Self {
        bytes.0
    }
}

/// A time span of at least one millisecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Milliseconds(NonZeroU64);

impl Milliseconds {
    /// The time span, rounded down; at least one millisecond.
    #[must_use]
    pub fn of(time: Duration) -> Self {
        let whole = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self(NonZeroU64::new(whole).unwrap_or(NonZeroU64::MIN))
    }

    /// The time span.
    #[must_use]
    pub fn time(self) -> Duration {
        Duration::from_millis(self.0.get())
    }
}

impl From<Milliseconds> for u64 {
    fn from(time: Milliseconds) -> Self {
        time.0.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_the_same_after_json() -> serde_json::Result<()> {
        let json = r#"{"build":"make","component":"a.wasm","limits":{"cpu_time_max_ms":20},
            "allowed_outbound_hosts":["https://example.com"],"variables":["api_token"]}"#;
        let function: FunctionManifest = serde_json::from_str(json)?;
        assert_eq!(serde_json::from_str::<FunctionManifest>(&serde_json::to_string(&function)?)?, function);
        assert_eq!(serde_json::to_string(&FunctionManifest::default())?, "{}");
        Ok(())
    }

    #[test]
    fn json_that_means_nothing_here_is_refused() {
        for json in [
            r#"{"memory":1}"#,
            r#"{"limits":{"memory_bytes_max":4096}}"#,
            r#"{"limits":{"wall_time_max_ms":0}}"#,
            r#"{"variables":["API_TOKEN"]}"#,
            r#"{"allowed_outbound_hosts":["example.com"]}"#,
        ] {
            assert!(serde_json::from_str::<FunctionManifest>(json).is_err(), "{json}");
        }
    }

    #[test]
    fn every_limit_beyond_the_nodes_is_named() -> Result<(), String> {
        let limits = |bytes: u64, milliseconds: u64| -> Result<Limits, String> {
            let time = Some(Milliseconds::of(Duration::from_millis(milliseconds)));
            let memory = Some(bytes.try_into()?);
            Ok(Limits {
                memory_bytes_max: memory,
                cpu_time_max_ms: time,
                wall_time_max_ms: time,
                response_bytes_max: Some(bytes),
            })
        };
        assert_eq!(limits(2 << 20, 5)?.beyond(&limits(2 << 20, 5)?), Vec::<String>::new());
        assert_eq!(limits(4 << 20, 9)?.beyond(&limits(2 << 20, 5)?).len(), 4);
        assert!(Limits::default().beyond(&limits(2 << 20, 5)?).is_empty());
        Ok(())
    }
}
