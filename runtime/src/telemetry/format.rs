//! The shape of a log line, for machines and for people.

use std::fmt;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::request::RequestContext;

/// One event a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lines {
    /// A JSON object; the request's fields stand under `span`.
    Json,
    /// `<time> <level> <target>: <message> <field>=<value>…`
    Text,
}

/// The field in which an event of a guest's carries its own fields: an object, as text.
const GUEST_FIELDS: &str = "fields";

#[derive(Default)]
struct Fields(Map<String, Value>);

impl Fields {
    fn set(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match serde_json::from_str(value) {
            Ok(Value::Object(fields)) if field.name() == GUEST_FIELDS => self.set(field, fields),
            _ => self.set(field, value),
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, value);
    }
}

fn request_fields() -> Option<Map<String, Value>> {
    let context = RequestContext::current()?;
    let mut fields = Map::new();
    fields.insert("request_id".to_owned(), Value::from(&*context.request_id));
    if let Some(client) = &context.client {
        fields.insert("client".to_owned(), Value::from(client.to_string()));
    }
    if let Some(tenant) = &context.tenant {
        fields.insert("tenant".to_owned(), Value::from(tenant.as_str()));
    }
    if let Some(function) = &context.function {
        fields.insert("function".to_owned(), Value::from(function.as_str()));
    }
    Some(fields)
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let mut fields = Fields::default();
        event.record(&mut fields);
        let (level, target) = (event.metadata().level().as_str(), event.metadata().target());
        match self {
            Self::Json => {
                let mut line = Map::new();
                line.insert("timestamp".to_owned(), time.into());
                line.insert("level".to_owned(), level.into());
                line.insert("target".to_owned(), target.into());
                line.extend(fields.0);
                if let Some(request) = request_fields() {
                    line.insert("span".to_owned(), request.into());
                }
                writeln!(writer, "{}", Value::Object(line))
            }
            Self::Text => {
                let mut fields = fields.0;
                let message = fields.remove("message").unwrap_or_default();
                write!(writer, "{time} {level:>5} {target}: {}", plain(&message))?;
                for (name, value) in fields.iter().chain(request_fields().iter().flatten()) {
                    write!(writer, " {name}={}", plain(value))?;
                }
                writer.write_char('\n')
            }
        }
    }
}

/// A value as people read it. Control characters are escaped: a guest's text must not drive a terminal.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text
            .chars()
            .flat_map(|character| {
                let escaped = character.is_control().then(|| character.escape_default());
                let whole = (!character.is_control()).then_some(character);
                escaped.into_iter().flatten().chain(whole)
            })
            .collect(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_drive_a_terminal() {
        assert_eq!(plain(&Value::from("a\u{1b}[2Jö\n")), "a\\u{1b}[2Jö\\n");
        assert_eq!(plain(&Value::from(7)), "7");
    }
}
