//! What a line of a guest's stderr says: plain text, or an event with a level and fields of its own.
//!
//! The SDK writes an event as one JSON object: `{"level":"warn","message":"…","slug":"menu"}`. Its fields stand in the
//! node's log as one object, `fields`, beside what the node itself knows of the request, so a guest can overwrite none
//! of that. A line that is no such object stays what it is: text at the level of information.

use serde::Deserialize;
use serde_json::{Map, Value};

/// An event as a guest writes it.
#[derive(Debug, Deserialize)]
pub(super) struct GuestEvent {
    level: GuestLevel,
    message: String,
    #[serde(flatten)]
    fields: Map<String, Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum GuestLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// The level of a tracing event is part of the code, so each has its own.
macro_rules! emit_at {
    ($level:ident, $event:expr) => {
        tracing::event!(
            target: "guest",
            tracing::Level::$level,
            stream = "stderr",
            fields = $event.fields_as_text(),
            "{}",
            $event.message
        )
    };
}

impl GuestEvent {
    /// The event that a line is, if it is one.
    pub(super) fn read(line: &[u8]) -> Option<Self> {
        // Most lines are text, and are seen to be without reading them.
        line.starts_with(b"{\"level\":\"").then(|| serde_json::from_slice(line).ok()).flatten()
    }

    pub(super) fn emit(&self) {
        match self.level {
            GuestLevel::Error => emit_at!(ERROR, self),
            GuestLevel::Warn => emit_at!(WARN, self),
            GuestLevel::Info => emit_at!(INFO, self),
            GuestLevel::Debug => emit_at!(DEBUG, self),
            GuestLevel::Trace => emit_at!(TRACE, self),
        }
    }

    /// Tracing carries no objects; `telemetry` reads this one back.
    fn fields_as_text(&self) -> Option<String> {
        (!self.fields.is_empty()).then(|| serde_json::to_string(&self.fields).ok()).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_a_level_a_message_and_fields() {
        let event = GuestEvent::read(br#"{"level":"warn","message":"low","slug":"menu","left":3}"#);
        let event = event.map(|event| (event.level, event.message.clone(), event.fields_as_text()));
        let fields = r#"{"left":3,"slug":"menu"}"#.to_owned();
        assert_eq!(event, Some((GuestLevel::Warn, "low".to_owned(), Some(fields))));
        let plain = GuestEvent::read(br#"{"level":"info","message":"m"}"#);
        assert_eq!(plain.and_then(|event| event.fields_as_text()), None);
    }

    #[test]
    fn anything_else_is_text() {
        for line in [
            "",
            "hello",
            "{}",
            r#"{"level":"loud","message":"m"}"#,
            r#"{"level":"info"}"#,
            r#"{"level":"info","message":7}"#,
            r#"{"level":"info","message":"cut"#,
            r#"{"level":"info","message":"m"} and more"#,
        ] {
            assert!(GuestEvent::read(line.as_bytes()).is_none(), "{line}");
        }
        let deep = format!(r#"{{"level":"info","message":"m","deep":{}"#, "[".repeat(8_000));
        assert!(GuestEvent::read(deep.as_bytes()).is_none());
    }
}
