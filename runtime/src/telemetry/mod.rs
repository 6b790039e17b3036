//! Telemetry: log events and metrics. It measures and writes; it decides nothing.

mod metrics;

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;
pub use metrics::{Gauges, Metrics, resident_bytes};

/// Starts logging to stderr. A second call in one process changes nothing.
pub fn start_logging(format: LogFormat, level: &str) {
    // wasmtime's crates speak of guests' doings at warn; a guest's doings are not the operator's.
    let filter = EnvFilter::new(format!("{level},wasmtime_wasi_http=error,wasmtime_wasi=error"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let as_text = match format {
        LogFormat::Auto => std::io::stderr().is_terminal(),
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    let started = if as_text {
        builder.with_ansi(std::io::stderr().is_terminal()).try_init()
    } else {
        builder.json().flatten_event(true).with_current_span(true).with_span_list(false).try_init()
    };
    if started.is_err() {
        tracing::debug!("logging has been started before");
    }
}
