//! `dormouse audit`: who changed what.

use clap::Args;
use serde_json::Value;

use super::client::ClientOptions;
use super::table::{self, Cell};
use super::{output, text};

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  dormouse audit --limit 20\n  dormouse audit --after 0 --limit 1000 --json"
)]
pub(super) struct AuditArgs {
    /// Show the entries after the one with this number [default: the latest]
    #[arg(long, value_name = "NUMBER")]
    after: Option<u64>,
    /// How many, at most 1000
    #[arg(long, value_name = "NUMBER", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Print the API's JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    client: ClientOptions,
}

pub(super) fn run(args: &AuditArgs) -> anyhow::Result<()> {
    let after = args.after.map(|after| format!("&after={after}")).unwrap_or_default();
    let answer = args.client.client()?.get(&format!("/v1/audit?limit={}{after}", args.limit))?;
    if args.json {
        return output::lines(&text::escaped_json(&answer));
    }
    let entries = answer.get("entries").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let rows: Vec<_> = entries.iter().map(row).collect();
    let columns = ["number", "when", "who", "from", "what", "object", "outcome"];
    output::lines(&table::layout(&columns, &rows).join("\n"))?;
    output::note(&match answer.get("next").and_then(Value::as_u64) {
        Some(next) => format!("{}; more with --after {next}", entry_count(rows.len())),
        None => entry_count(rows.len()),
    });
    Ok(())
}

fn entry_count(number: usize) -> String {
    if number == 1 { "1 entry".to_owned() } else { format!("{number} entries") }
}

fn row(entry: &Value) -> Vec<Cell> {
    let text_of = |member| entry.get(member).and_then(Value::as_str).unwrap_or_default();
    let number_of = |member| entry.get(member).and_then(Value::as_u64).unwrap_or_default();
    let who = match text_of("token").get(..8) {
        Some(token) => format!("{} ({token})", text_of("label")),
        None => text_of("label").to_owned(),
    };
    vec![
        Cell::number(number_of("id").to_string()),
        Cell::text(&text::date(number_of("at"))),
        Cell::text(&who),
        Cell::text(text_of("address")),
        Cell::text(&format!("{} {}", text_of("method"), text_of("path"))),
        Cell::text(text_of("object")),
        Cell::text(text_of("outcome")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_entry_is_one_line() {
        let entry = json!({
            "id": 7, "at": 0, "token": "0123456789abcdef", "label": "ci\u{1b}", "address": "192.0.2.1",
            "method": "POST", "path": "/v1/tenants", "object": null, "outcome": "done",
        });
        let lines = table::layout(&["n", "when", "who", "from", "what", "object", "outcome"], &[row(&entry)]);
        let line = "7  1970-01-01T00:00:00Z  ci\\u{1b} (01234567)  192.0.2.1  POST /v1/tenants          done";
        assert_eq!(lines.last().map(String::as_str), Some(line));
    }
}
