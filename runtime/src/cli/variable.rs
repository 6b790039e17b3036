//! `dormouse variable`: set, list and unset what functions read as their variables.
//!
//! A value goes to the node and, when it is a secret, never comes back.

use std::io::{IsTerminal as _, Read as _};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::client::{Client, ClientOptions};
use super::table::{self, Cell};
use super::{output, text};
use crate::name::{FunctionName, TenantName, VariableName};

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
    dormouse variable set acme greeting Hello\n  \
    dormouse variable set acme api_key --secret < api-key.txt\n  \
    dormouse variable list acme")]
pub(super) struct VariableArgs {
    #[command(subcommand)]
    command: VariableCommand,
}

#[derive(Debug, Subcommand)]
enum VariableCommand {
    /// Set a variable; requests that arrive from then on see it, and nothing is deployed again
    #[command(after_help = "Examples:\n  \
        dormouse variable set acme greeting Hello\n  \
        dormouse variable set acme api_key --secret < api-key.txt\n\n\
        Other users of this machine can see arguments: give a secret by standard input. One line break at its end \
        is not part of the value.")]
    Set {
        #[command(flatten)]
        place: Place,
        /// Its value, behind `--` when it starts with a hyphen; `-` or nothing reads it from standard input
        value: Option<String>,
        /// Never show the value again
        #[arg(long)]
        secret: bool,
        #[command(flatten)]
        client: ClientOptions,
    },
    /// List a tenant's variables, without the values of secrets
    #[command(after_help = "Example:\n  dormouse variable list acme")]
    List {
        /// The tenant
        tenant: TenantName,
        /// Print the API's JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        client: ClientOptions,
    },
    /// Remove a variable
    #[command(after_help = "Example:\n  dormouse variable unset acme greeting")]
    Unset {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        client: ClientOptions,
    },
}

/// Which variable.
#[derive(Debug, Args)]
struct Place {
    /// The tenant
    tenant: TenantName,
    /// Its name: lowercase letters, digits and underscores
    name: VariableName,
    /// For this function only; its own value comes before the tenant's
    #[arg(long, value_name = "NAME")]
    function: Option<FunctionName>,
}

impl Place {
    fn path(&self) -> String {
        let function = self.function.as_ref().map(|name| format!("?function={name}")).unwrap_or_default();
        format!("/v1/tenants/{}/variables/{}{function}", self.tenant, self.name)
    }
}

pub(super) fn run(args: &VariableArgs) -> anyhow::Result<()> {
    match &args.command {
        VariableCommand::Set { place, value, secret, client } => {
            let client = client.client()?;
            let value = match value.as_deref() {
                Some(value) if value != "-" => value.to_owned(),
                _ => from_stdin()?,
            };
            client.put(&place.path(), &json!({ "value": value, "secret": secret }))?;
            output::lines(&format!("set {}", place.name))
        }
        VariableCommand::List { tenant, json, client } => list(&client.client()?, tenant, *json),
        VariableCommand::Unset { place, client } => {
            client.client()?.delete(&place.path())?;
            output::lines(&format!("unset {}", place.name))
        }
    }
}

fn from_stdin() -> anyhow::Result<String> {
    if std::io::stdin().is_terminal() {
        bail!("no value is given: put it behind the variable's name, or in standard input");
    }
    let mut value = String::new();
    std::io::stdin().read_to_string(&mut value).context("cannot read the value from standard input")?;
    Ok(without_line_break(&value).to_owned())
}

fn without_line_break(text: &str) -> &str {
    text.strip_suffix("\r\n").or_else(|| text.strip_suffix('\n')).unwrap_or(text)
}

fn list(client: &Client, tenant: &TenantName, as_json: bool) -> anyhow::Result<()> {
    let answer = client.get(&format!("/v1/tenants/{tenant}/variables"))?;
    if as_json {
        return output::lines(&text::escaped_json(&answer));
    }
    let variables = answer.get("variables").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let rows: Vec<_> = variables.iter().map(row).collect();
    output::lines(&table::layout(&["name", "function", "kind", "value", "changed"], &rows).join("\n"))?;
    output::note(&text::count(rows.len() as u64, "variable"));
    Ok(())
}

fn row(variable: &Value) -> Vec<Cell> {
    let text_of = |member| variable.get(member).and_then(Value::as_str).unwrap_or_default();
    let is_secret = variable.get("secret").and_then(Value::as_bool).unwrap_or_default();
    let changed = variable.get("changed_at").and_then(Value::as_u64).map(text::date).unwrap_or_default();
    vec![
        Cell::text(text_of("name")),
        Cell::text(if text_of("function").is_empty() { "(all)" } else { text_of("function") }),
        Cell::text(if is_secret { "secret" } else { "plain" }),
        Cell::text(text_of("value")),
        Cell::text(&changed),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_break_is_no_part_of_a_value() {
        for (read, value) in
            [("a\n", "a"), ("a\r\n", "a"), ("a", "a"), ("a\n\n", "a\n"), ("\n", ""), ("", ""), ("a\r", "a\r")]
        {
            assert_eq!(without_line_break(read), value);
        }
    }

    #[test]
    fn a_secret_has_no_value_to_show() {
        let plain = json!({"name": "a", "function": null, "secret": false, "value": "x", "changed_at": 0});
        let secret = json!({"name": "b", "function": "fn", "secret": true, "value": null, "changed_at": 0});
        assert_eq!(
            table::layout(&["name", "function", "kind", "value", "changed"], &[row(&plain), row(&secret)]),
            [
                "name  function  kind    value  changed",
                "----  --------  ------  -----  --------------------",
                "a     (all)     plain   x      1970-01-01T00:00:00Z",
                "b     fn        secret         1970-01-01T00:00:00Z",
            ]
        );
    }
}
