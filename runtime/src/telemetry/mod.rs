//! Telemetry: log events and metrics. It measures and writes; it decides nothing.

mod format;
mod metrics;
mod request;

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use format::Lines;
pub use metrics::{Gauges, Metrics, resident_bytes};
pub use request::{RequestContext, in_current_request};

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl std::str::FromStr for LogFormat {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => Err(format!("{other:?} is none of auto, text, json")),
        }
    }
}

/// Starts logging to stderr. A second call in one process changes nothing.
pub fn start_logging(format: LogFormat, level: &str) {
    // These crates speak at warn of what guests and clients do, which is not the operator's doing.
    let quiet = ["wasmtime_wasi_http", "wasmtime_wasi", "hickory_resolver", "hickory_net", "h2"];
    let quiet: String = quiet.iter().map(|name| format!(",{name}=error")).collect();
    let filter = EnvFilter::new(format!("{level}{quiet}"));
    let lines = match format {
        LogFormat::Auto if std::io::stderr().is_terminal() => Lines::Text,
        LogFormat::Auto | LogFormat::Json => Lines::Json,
        LogFormat::Text => Lines::Text,
    };
    let started = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .event_format(lines)
        .try_init();
    if started.is_err() {
        tracing::debug!("logging has been started before");
    }
}
