//! The node's log, as a developer wants to see it: a line for each request, what functions print, what went wrong.

use std::convert::Infallible;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;

use super::watch::Watch;
use crate::cli::{output, text};

/// Which events the node writes: its own, all of the functions, and one for each request.
pub(super) const LEVEL: &str = "info,guest=trace,request=debug";

/// The fields that every event has.
const COMMON: [&str; 5] = ["timestamp", "level", "target", "message", "span"];

/// Shows what is written to a log from now on, for ever.
pub(super) async fn follow(path: &Path) -> anyhow::Result<Infallible> {
    let mut watch = Watch::new()?;
    watch.add(path)?;
    let mut log = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut unread = Vec::new();
    loop {
        log.read_to_end(&mut unread).with_context(|| format!("cannot read {}", path.display()))?;
        let whole = unread.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        for line in String::from_utf8_lossy(&unread.drain(..whole).collect::<Vec<u8>>()).lines() {
            if let Some(shown) = shown(line) {
                output::lines(&shown)?;
            }
        }
        watch.changed().await?;
    }
}

/// What a line of the log says to a developer, if anything.
fn shown(line: &str) -> Option<String> {
    let Ok(event) = serde_json::from_str::<Value>(line) else {
        // The node's last words, when it could not start.
        return Some(format!("node: {line}"));
    };
    let field = |name: &str| event.get(name).map(plain).unwrap_or_default();
    let function = event.pointer("/span/function").map(plain).unwrap_or_default();
    let (target, message) = (field("target"), field("message"));
    if target == "request" {
        let time = event.get("microseconds").and_then(Value::as_u64).unwrap_or_default();
        let time = text::span(Duration::from_micros(time));
        return Some(format!("{} {} {} {time}", field("method"), field("path"), field("status")));
    }
    let level = field("level");
    if target == "guest" {
        let level = if level == "INFO" { String::new() } else { format!("{level} ") };
        let fields = event.get("fields").and_then(Value::as_object).into_iter().flatten();
        return Some(format!("  {function} | {level}{message}{}", pairs(fields)));
    }
    if message == "guest failed" {
        return Some(format!("  {function} ! {}", field("failure")));
    }
    if message == "a limit was exceeded" {
        let (limit, used, allowed) = (field("limit"), field("used"), field("allowed"));
        return Some(format!("  {function} ! {limit} is {allowed}, and {used} were used"));
    }
    let fields = event.as_object().into_iter().flatten();
    let own = fields.filter(|(name, _)| !COMMON.contains(&name.as_str()));
    matches!(level.as_str(), "WARN" | "ERROR").then(|| format!("node {level}: {message}{}", pairs(own)))
}

/// Fields behind a message.
fn pairs<'e>(fields: impl Iterator<Item = (&'e String, &'e Value)>) -> String {
    fields.map(|(name, value)| format!(" {name}={}", plain(value))).collect()
}

/// As one line.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text::escaped(text),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(line: &str) -> String {
        shown(line).unwrap_or_default()
    }

    #[test]
    fn requests_and_what_functions_print_are_shown() {
        let request = r#"{"timestamp":"t","level":"DEBUG","target":"request","method":"POST","path":"/t/dev/fn",
            "status":201,"outcome":"ok","microseconds":3240,"message":"answered"}"#;
        assert_eq!(told(request), "POST /t/dev/fn 201 3.2 ms");
        let guest = r#"{"level":"INFO","target":"guest","stream":"stdout","message":"a\u001b[1m",
            "span":{"request_id":"r","tenant":"dev","function":"fn"}}"#;
        assert_eq!(told(guest), "  fn | a\\u{1b}[1m");
        let event = r#"{"level":"WARN","target":"guest","stream":"stderr","message":"soon sold out",
            "fields":{"card":"menu","left":3},"span":{"function":"fn"}}"#;
        assert_eq!(told(event), "  fn | WARN soon sold out card=menu left=3");
        let failed = r#"{"level":"INFO","target":"dormouse::sandbox","message":"guest failed",
            "failure":"the guest trapped: unreachable","span":{"function":"fn"}}"#;
        assert_eq!(told(failed), "  fn ! the guest trapped: unreachable");
        let exceeded = r#"{"level":"INFO","target":"dormouse::telemetry","message":"a limit was exceeded",
            "limit":"cpu_time_max_ms","used":208,"allowed":200,"span":{"function":"fn"}}"#;
        assert_eq!(told(exceeded), "  fn ! cpu_time_max_ms is 200, and 208 were used");
    }

    #[test]
    fn of_the_node_only_what_went_wrong_is_shown() {
        assert_eq!(shown(r#"{"level":"INFO","target":"dormouse::node","message":"listening"}"#), None);
        let error = r#"{"timestamp":"t","level":"ERROR","target":"x","message":"no","path":"/a"}"#;
        assert_eq!(told(error), "node ERROR: no path=/a");
        assert_eq!(told("error: no such folder"), "node: error: no such folder");
    }
}
