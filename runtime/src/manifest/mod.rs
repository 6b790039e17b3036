//! The manifest room: what a function project says of its functions in `dormouse.toml`.
//!
//! It owns the grammar, described in `docs/manifest.md`. The command line reads the file; the node is sent each
//! function's section as JSON, checks it by the same types, and keeps it with the version that was deployed. Both
//! forms end in [`FunctionManifest`], whose values are well-formed by their types. The room reads no file, builds
//! nothing and enforces nothing.

mod limits;
mod outbound;
mod read;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::name::{FunctionName, VariableName};
pub use limits::{Limits, MemoryBytes, Milliseconds};
pub use outbound::{OutboundHost, OutboundHostError, OutboundHosts, read_host};
pub use read::{ManifestError, Mistake};

/// The manifest's name in a project's folder.
pub const FILE_NAME: &str = "dormouse.toml";

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
}
