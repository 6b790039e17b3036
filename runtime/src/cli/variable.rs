//! `dormouse variable`: set, list and unset what functions read as their variables.
//!
//! A value goes to the node and, when it is a secret, never comes back.

use std::io::{IsTerminal as _, Read as _};
use std::str::FromStr;

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

/// A variable and its value, as one argument.
#[derive(Debug, Clone)]
pub(super) struct Assignment {
    name: VariableName,
    value: String,
}

impl FromStr for Assignment {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (name, value) = text.split_once('=').context("it is no <name>=<value>")?;
        Ok(Self { name: name.parse()?, value: value.to_owned() })
    }
}

impl Assignment {
    /// Sets the variable for all functions of a tenant.
    pub(super) fn set(&self, client: &Client, tenant: &TenantName) -> anyhow::Result<()> {
        let path = format!("/v1/tenants/{tenant}/variables/{}", self.name);
        client.put(&path, &json!({ "value": self.value }))?;
        Ok(())
    }
}

/// Refuses a function that cannot do without variables which are not set, in the words of `dormouse dev`.
pub(super) fn require(
    client: &Client,
    tenant: &TenantName,
    function: &FunctionName,
    required: &[VariableName],
) -> anyhow::Result<()> {
    if required.is_empty() {
        return Ok(());
    }
    let answer = client.get(&format!("/v1/tenants/{tenant}/variables"))?;
    let set = answer.get("variables").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let is_set = |name: &VariableName| set.iter().any(|row| is_for(row, name, function));
    let missing: Vec<_> = required.iter().filter(|name| !is_set(name)).map(ToString::to_string).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let options: String = missing.iter().map(|name| format!(" --variable {name}=<value>")).collect();
    bail!("it requires {}, not set yet: start `dormouse dev{options}`", missing.join(" and "))
}

fn is_for(row: &Value, name: &VariableName, function: &FunctionName) -> bool {
    let text_of = |member| row.get(member).and_then(Value::as_str);
    let own = text_of("function");
    text_of("name") == Some(name.as_str()) && own.is_none_or(|own| own == function.as_str())
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
