//! `dormouse sql`: runs SQL on a tenant's database and shows what it gives.
//!
//! The API runs one statement per request, on a session of its own. A text with several is sent one statement at a
//! time and stops at the first that fails; what would not mean the same in pieces is refused: transactions, and
//! parameters for several statements.

use std::io::{IsTerminal as _, Read as _};
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::{Value, json};

use super::client::{Client, ClientOptions};
use super::split::{Statement, split};
use super::table::{self, Cell};
use super::{output, text};
use crate::name::TenantName;

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    dormouse sql acme 'SELECT * FROM entries WHERE name = ?' -p Ada\n  \
    dormouse sql acme --file schema.sql\n  \
    echo 'SELECT count(*) FROM entries' | dormouse sql acme\n\n\
    Several statements run one after the other up to the first that fails, each committed by itself.\n\
    A VALUE of -p that is a number is one, null is NULL, everything else is text; \
    -p '\"42\"' is the text 42.")]
pub(super) struct SqlArgs {
    /// The tenant
    tenant: TenantName,
    /// The SQL; `-` or nothing reads it from standard input
    #[arg(value_name = "SQL")]
    text: Option<String>,
    /// A value for the next `?` of the statement
    #[arg(short, long = "parameter", value_name = "VALUE", allow_hyphen_values = true)]
    parameters: Vec<String>,
    /// Read the SQL from a file
    #[arg(long, value_name = "PATH", conflicts_with = "text")]
    file: Option<PathBuf>,
    /// Print the API's JSON, one line per statement
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    client: ClientOptions,
}

pub(super) fn run(args: &SqlArgs) -> anyhow::Result<()> {
    let client = args.client.client()?;
    let text = sql_text(args)?;
    let statements = split(&text);
    check(&statements, args.parameters.len())?;
    let parameters: Vec<Value> = args.parameters.iter().map(|value| parameter(value)).collect();
    for (index, statement) in statements.iter().enumerate() {
        let answer = execute(&client, &args.tenant, statement.text, &parameters)
            .with_context(|| failure(&args.tenant, statement, index, statements.len()))?;
        if args.json {
            output::lines(&text::escaped_json(&answer))?;
        } else {
            output::lines(&shown(&answer).join("\n"))?;
        }
    }
    Ok(())
}

/// Runs one statement and gives the API's answer.
pub(super) fn execute(
    client: &Client,
    tenant: &TenantName,
    sql: &str,
    values: &[Value],
) -> anyhow::Result<Value> {
    client.post(&format!("/v1/tenants/{tenant}/sql"), &json!({ "sql": sql, "parameters": values }))
}

/// An answer as lines: the table, if the statement gives one, and how many rows there are or were changed.
pub(super) fn shown(answer: &Value) -> Vec<String> {
    let array = |name| answer.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let columns: Vec<&str> = array("columns").iter().map(|name| name.as_str().unwrap_or_default()).collect();
    let changed = answer.get("changes").and_then(Value::as_u64).unwrap_or_default();
    if columns.is_empty() {
        return vec![format!("{} changed", text::count(changed, "row"))];
    }
    let cells = |row: &Value| row.as_array().into_iter().flatten().map(Cell::value).collect();
    let rows: Vec<Vec<Cell>> = array("rows").iter().map(cells).collect();
    let mut lines = table::layout(&columns, &rows);
    let found = text::count(rows.len() as u64, "row");
    lines.push(if changed == 0 { format!("({found})") } else { format!("({found}, {changed} changed)") });
    lines
}

fn sql_text(args: &SqlArgs) -> anyhow::Result<String> {
    if let Some(file) = &args.file {
        return std::fs::read_to_string(file)
            .with_context(|| format!("cannot read SQL from {}", file.display()));
    }
    match args.text.as_deref() {
        Some(text) if text != "-" => Ok(text.to_owned()),
        None if std::io::stdin().is_terminal() => {
            bail!("no SQL is given: put it behind the tenant's name, in --file, or in standard input")
        }
        _ => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context("cannot read SQL from standard input")?;
            Ok(text)
        }
    }
}

/// Refuses what would not mean in pieces what it means as a whole.
fn check(statements: &[Statement<'_>], parameters: usize) -> anyhow::Result<()> {
    if statements.is_empty() {
        bail!("there is no SQL statement in the text");
    }
    if let Some(statement) = statements.iter().find(|statement| statement.controls_transaction()) {
        bail!(
            "{} in line {}: a transaction cannot span statements here, because each is a request of its own; \
             leave it out (each statement is atomic by itself), or do the work in a function",
            statement.keyword,
            statement.line
        );
    }
    if statements.len() > 1 && parameters > 0 {
        bail!("-p goes with one statement and the text has {}: run them one by one", statements.len());
    }
    Ok(())
}

fn failure(tenant: &TenantName, statement: &Statement<'_>, index: usize, all: usize) -> String {
    match (index, all) {
        (_, 1) => format!("cannot run the statement on {tenant}"),
        (0, _) => format!("the first of {all} statements failed and none has run"),
        _ => format!(
            "statement {} of {all}, in line {}, failed; {} before it had succeeded",
            index + 1,
            statement.line,
            text::count(index as u64, "statement")
        ),
    }
}

/// A value of `-p`: a number only when that number is written exactly so, so that no digit of a text is lost.
fn parameter(text: &str) -> Value {
    if text == "null" {
        return Value::Null;
    }
    if let Some(integer) = text.parse::<i64>().ok().filter(|integer| integer.to_string() == text) {
        return integer.into();
    }
    if let Some(real) = text.parse::<f64>().ok().filter(|real| text.contains('.') && real.to_string() == text)
    {
        return real.into();
    }
    let quoted = text.starts_with('"').then(|| serde_json::from_str::<String>(text).ok());
    quoted.flatten().unwrap_or_else(|| text.to_owned()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_lose_nothing() {
        for (text, value) in [
            ("42", json!(42)),
            ("-1", json!(-1)),
            ("9223372036854775807", json!(i64::MAX)),
            ("9223372036854775808", json!("9223372036854775808")),
            ("1.5", json!(1.5)),
            ("1.10", json!("1.10")),
            ("007", json!("007")),
            ("+49", json!("+49")),
            ("1e5", json!("1e5")),
            ("NaN", json!("NaN")),
            ("inf", json!("inf")),
            ("null", Value::Null),
            ("NULL", json!("NULL")),
            ("true", json!("true")),
            ("", json!("")),
            ("\"42\"", json!("42")),
            ("\"", json!("\"")),
            ("\"a\" and \"b\"", json!("\"a\" and \"b\"")),
        ] {
            assert_eq!(parameter(text), value, "{text}");
        }
    }

    #[test]
    fn answers_are_tables_or_counts() {
        let answer = |columns, rows, changes| json!({"columns": columns, "rows": rows, "changes": changes});
        assert_eq!(shown(&answer(json!([]), json!([]), 2)), ["2 rows changed"]);
        assert_eq!(shown(&answer(json!(["id"]), json!([[7]]), 0)), ["id", "--", " 7", "(1 row)"]);
        assert_eq!(shown(&answer(json!(["id"]), json!([[7]]), 1)), ["id", "--", " 7", "(1 row, 1 changed)"]);
    }

    #[test]
    fn what_cannot_be_split_is_refused() {
        let refusal = |text, parameters| check(&split(text), parameters).err().map(|error| error.to_string());
        assert_eq!(refusal("SELECT ?", 1), None);
        assert_eq!(refusal("SELECT 1; SELECT 2", 0), None);
        assert_eq!(refusal(" -- ", 0).as_deref(), Some("there is no SQL statement in the text"));
        assert!(refusal("SELECT 1;\nbegin; SELECT 2", 0).is_some_and(|e| e.starts_with("begin in line 2:")));
        assert!(refusal("SELECT ?; SELECT ?", 2).is_some_and(|e| e.contains("the text has 2")));
    }

    #[test]
    fn a_failure_says_what_has_been_done() -> anyhow::Result<()> {
        let tenant: TenantName = "acme".parse()?;
        let statements = split("SELECT 1;\nSELECT 2;\nSELECT 3");
        let told: Vec<_> = statements.iter().enumerate().map(|(i, s)| failure(&tenant, s, i, 3)).collect();
        assert_eq!(
            told,
            [
                "the first of 3 statements failed and none has run",
                "statement 2 of 3, in line 2, failed; 1 statement before it had succeeded",
                "statement 3 of 3, in line 3, failed; 2 statements before it had succeeded",
            ]
        );
        Ok(())
    }
}
