//! `dormouse tenant`: create, list, show, recover, export and delete tenants.

use std::io::{IsTerminal as _, Write as _};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use ureq::http::StatusCode;

use super::client::{Client, ClientOptions, Refused};
use super::table::{self, Cell};
use super::{database, output, text};
use crate::name::TenantName;

/// Tenants that are asked for at once: the most that the API gives.
const PAGE_TENANTS: u32 = 1_000;

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  dormouse tenant create acme\n  dormouse tenant list")]
pub(super) struct TenantArgs {
    #[command(subcommand)]
    command: TenantCommand,
}

#[derive(Debug, Subcommand)]
enum TenantCommand {
    /// Create a tenant, with an empty database
    #[command(after_help = "Example:\n  dormouse tenant create acme")]
    Create {
        /// Its name: 1 to 63 lowercase letters, digits and hyphens
        name: TenantName,
        #[command(flatten)]
        client: ClientOptions,
    },
    /// List all tenants
    #[command(after_help = "Example:\n  dormouse tenant list --json | jq -r '.tenants[].name'")]
    List {
        /// Print the API's JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        client: ClientOptions,
    },
    /// Show a tenant, its functions and its database
    #[command(after_help = "Example:\n  dormouse tenant show acme")]
    Show {
        /// Its name
        name: TenantName,
        /// Print the API's JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        client: ClientOptions,
    },
    /// Take a tenant's database out of quarantine, once the cause of its failure is gone, or end its suspension
    ///
    /// The node reads the files from the disk again, has SQLite check them, and writes to them. What was acknowledged
    /// is there then. A database that fails again stays in quarantine.
    #[command(after_help = "Example:\n  dormouse tenant recover acme")]
    Recover {
        /// Its name
        name: TenantName,
        #[command(flatten)]
        client: ClientOptions,
    },
    /// Write a tenant's whole database to a file, as it is at one moment, while the tenant goes on
    #[command(name = "export-db", after_help = "Example:\n  dormouse tenant export-db acme acme.db")]
    ExportDb(database::ExportArgs),
    /// Put a database from a file in the place of a tenant's
    ///
    /// The node checks the file and takes it over, or changes nothing. The tenant's database before it, if it has used
    /// one, is kept, so that revert-db can go back to it.
    #[command(name = "import-db", after_help = "Example:\n  dormouse tenant import-db acme acme.db")]
    ImportDb(database::ImportArgs),
    /// Go back to the database that a tenant had before the latest import
    ///
    /// What has been written since then is kept beside it: the same command once more goes forward again.
    #[command(name = "revert-db", after_help = "Example:\n  dormouse tenant revert-db acme")]
    RevertDb(database::RevertArgs),
    /// Delete a tenant with its functions and all its data
    #[command(after_help = "Example:\n  dormouse tenant delete acme --yes")]
    Delete {
        /// Its name
        name: TenantName,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        client: ClientOptions,
    },
}

pub(super) fn run(args: &TenantArgs) -> anyhow::Result<()> {
    match &args.command {
        TenantCommand::Create { name, client } => {
            create(&client.client()?, name)?;
            output::lines(&format!("created {name}"))
        }
        TenantCommand::List { json, client } => list(&client.client()?, *json),
        TenantCommand::Show { name, json, client } => show(&client.client()?, name, *json),
        TenantCommand::Recover { name, client } => recover(&client.client()?, name),
        TenantCommand::ExportDb(args) => database::export(args),
        TenantCommand::ImportDb(args) => database::import(args),
        TenantCommand::RevertDb(args) => database::revert(args),
        TenantCommand::Delete { name, yes, client } => {
            let client = client.client()?;
            if !yes {
                confirm_deletion(name)?;
            }
            client.delete(&format!("/v1/tenants/{name}"))?;
            output::lines(&format!("deleted {name}"))
        }
    }
}

/// Creates a tenant.
fn create(client: &Client, name: &TenantName) -> anyhow::Result<Value> {
    client.post("/v1/tenants", &json!({ "name": name }))
}

/// Whether a tenant had to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ensured {
    Created,
    WasThere,
}

/// Creates a tenant that is not there yet.
pub(super) fn ensure(client: &Client, name: &TenantName) -> anyhow::Result<Ensured> {
    match create(client, name) {
        Ok(_) => Ok(Ensured::Created),
        Err(error) if is_conflict(&error) => Ok(Ensured::WasThere),
        Err(error) => Err(error),
    }
}

fn is_conflict(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Refused>().is_some_and(|refused| refused.status == StatusCode::CONFLICT)
}

fn list(client: &Client, as_json: bool) -> anyhow::Result<()> {
    let tenants = client.all("tenants", &format!("/v1/tenants?limit={PAGE_TENANTS}"))?;
    if as_json {
        return output::lines(&text::escaped_json(&json!({ "tenants": tenants, "next": null })));
    }
    let row = |tenant| vec![name_of(tenant), date_of(tenant, "created_at"), database_of(tenant)];
    let rows: Vec<_> = tenants.iter().map(row).collect();
    output::lines(&table::layout(&["name", "created", "database"], &rows).join("\n"))?;
    output::note(&text::count(rows.len() as u64, "tenant"));
    Ok(())
}

fn show(client: &Client, name: &TenantName, as_json: bool) -> anyhow::Result<()> {
    let tenant = client.get(&format!("/v1/tenants/{name}"))?;
    if as_json {
        return output::lines(&text::escaped_json(&tenant));
    }
    output::lines(&description(&tenant).join("\n"))
}

fn description(tenant: &Value) -> Vec<String> {
    let text_of = |name| tenant.get(name).and_then(Value::as_str).map(text::escaped).unwrap_or_default();
    let number_of = |name| tenant.get(name).and_then(Value::as_u64).unwrap_or_default();
    let database = tenant.get("database").unwrap_or(&Value::Null);
    let bytes_of = |name| text::size(database.get(name).and_then(Value::as_u64).unwrap_or_default());
    let state = database.get("state").and_then(Value::as_str).map(text::escaped).unwrap_or_default();
    let quarantine = object(database, "quarantine");
    let mut lines = vec![
        format!("name      {}", text_of("name")),
        format!("id        {}", text_of("id")),
        format!("created   {}", text::date(number_of("created_at"))),
        match state.as_str() {
            "unused" => "database  unused, it has no file yet".to_owned(),
            _ => format!("database  {state}, {} and {} of WAL", bytes_of("bytes"), bytes_of("wal_bytes")),
        },
    ];
    if let Some(quarantine) = quarantine {
        lines.push(format!("          {}", failure(quarantine)));
        lines.push(format!("          when the cause is gone: dormouse tenant recover {}", text_of("name")));
    }
    if let Some(suspension) = object(database, "suspension") {
        let since = suspension.get("since").and_then(Value::as_u64).unwrap_or_default();
        lines.push(format!(
            "          since {}: a statement did not end at its time limit",
            text::date(since)
        ));
        lines.push(format!("          before its time is over: dormouse tenant recover {}", text_of("name")));
    }
    if database.get("previous_generation").is_some_and(Value::is_u64) {
        lines
            .push(format!("          the one before is kept: dormouse tenant revert-db {}", text_of("name")));
    }
    lines.push(String::new());
    let functions = tenant.get("functions").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if functions.is_empty() {
        lines.push(format!("no functions yet: dormouse deploy {} PATH", text_of("name")));
        return lines;
    }
    let rows: Vec<_> = functions.iter().map(function_row).collect();
    lines.extend(table::layout(&["function", "component", "size", "deployed"], &rows));
    let asked: Vec<String> = functions.iter().flat_map(asked_for).collect();
    if !asked.is_empty() {
        lines.push(String::new());
        lines.extend(asked);
    }
    lines
}

fn recover(client: &Client, name: &TenantName) -> anyhow::Result<()> {
    let answer = client.post_and_wait(&format!("/v1/tenants/{name}/recover"))?;
    match object(&answer, "quarantine") {
        None if object(&answer, "suspension").is_some() => {
            output::lines(&format!("{name} can use its database again, which was suspended"))
        }
        None => output::lines(&format!("{name} is not in quarantine: there is nothing to recover")),
        Some(quarantine) => output::lines(&format!(
            "recovered {name}: its database was read from the disk, checked and written; it {}",
            failure(quarantine)
        )),
    }
}

/// A part of an answer, when it is there.
fn object<'a>(answer: &'a Value, name: &str) -> Option<&'a Value> {
    answer.get(name).filter(|part| part.is_object())
}

/// What put a database in quarantine, and when.
fn failure(quarantine: &Value) -> String {
    let since = quarantine.get("since").and_then(Value::as_u64).unwrap_or_default();
    let reason = quarantine.get("reason").and_then(Value::as_str).unwrap_or_default();
    format!("failed at {}: {}", text::date(since), text::escaped(reason))
}

/// What a function's manifest says of how it runs.
fn asked_for(function: &Value) -> Vec<String> {
    let of_manifest = |name: &str| function.get("manifest").and_then(|manifest| manifest.get(name));
    let name = function.get("name").and_then(Value::as_str).map(text::escaped).unwrap_or_default();
    let limits = of_manifest("limits").and_then(Value::as_object).into_iter().flatten();
    let limits = limits.map(|(limit, bound)| {
        let which = if limit.ends_with("_min") { "least" } else { "most" };
        format!("{name}: {} at {which} {bound}", text::escaped(limit))
    });
    let list = |key: &str, means: &str| {
        let items = of_manifest(key)?.as_array()?.iter().filter_map(Value::as_str).map(text::escaped);
        Some(format!("{name}: {means} {}", items.collect::<Vec<_>>().join(", ")))
    };
    let lists =
        [list("allowed_outbound_hosts", "may send requests to"), list("variables", "needs the variables")];
    limits.chain(lists.into_iter().flatten()).collect()
}

fn function_row(function: &Value) -> Vec<Cell> {
    let digest = function.get("component").and_then(Value::as_str).unwrap_or_default();
    let short: String = digest.chars().take(12).collect();
    let bytes = function.get("bytes").and_then(Value::as_u64).unwrap_or_default();
    let size = Cell::number(text::size(bytes));
    vec![name_of(function), Cell::text(&short), size, date_of(function, "deployed_at")]
}

fn name_of(object: &Value) -> Cell {
    Cell::text(object.get("name").and_then(Value::as_str).unwrap_or_default())
}

fn database_of(tenant: &Value) -> Cell {
    let is_quarantined = tenant.get("quarantined").and_then(Value::as_bool).unwrap_or_default();
    Cell::text(if is_quarantined { "quarantined" } else { "" })
}

fn date_of(object: &Value, member: &str) -> Cell {
    Cell::text(&object.get(member).and_then(Value::as_u64).map(text::date).unwrap_or_default())
}

fn confirm_deletion(name: &TenantName) -> anyhow::Result<()> {
    if !std::io::stdin().is_terminal() {
        bail!("deleting {name} deletes its functions and all its data: give --yes to do it");
    }
    let mut stderr = std::io::stderr().lock();
    write!(stderr, "This deletes {name}, its functions and all its data. Type its name to do it: ")?;
    stderr.flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).context("cannot read the answer")?;
    if answer.trim() != name.as_str() {
        bail!("that is not its name: nothing was deleted");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_is_described_with_its_functions() {
        let tenant = json!({
            "name": "acme", "id": "0a", "created_at": 0,
            "functions": [{
                "name": "fn", "component": "0123456789abcdef", "bytes": 2048, "deployed_at": 1,
                "manifest": {
                    "limits": {"cpu_time_max_ms": 200}, "allowed_outbound_hosts": ["https://a", "https://b"],
                    "variables": ["token"]
                }
            }],
            "database": {"state": "parked", "bytes": 8192, "wal_bytes": 0}
        });
        assert_eq!(
            description(&tenant),
            [
                "name      acme",
                "id        0a",
                "created   1970-01-01T00:00:00Z",
                "database  parked, 8.0 KB and 0 B of WAL",
                "",
                "function  component       size  deployed",
                "--------  ------------  ------  --------------------",
                "fn        0123456789ab  2.0 KB  1970-01-01T00:00:01Z",
                "",
                "fn: cpu_time_max_ms at most 200",
                "fn: may send requests to https://a, https://b",
                "fn: needs the variables token",
            ]
        );
    }

    #[test]
    fn a_quarantine_is_told_with_its_way_out() {
        let database = json!({
            "state": "quarantined", "bytes": 4096, "wal_bytes": 0,
            "quarantine": {"reason": "disk I/O error", "since": 1}
        });
        let lines = description(&json!({"name": "acme", "functions": [], "database": database}));
        assert_eq!(
            lines.get(3..6),
            Some(
                &[
                    "database  quarantined, 4.0 KB and 0 B of WAL",
                    "          failed at 1970-01-01T00:00:01Z: disk I/O error",
                    "          when the cause is gone: dormouse tenant recover acme",
                ]
                .map(str::to_owned)[..]
            )
        );
    }

    #[test]
    fn a_tenant_without_functions_is_told_how_to_get_one() {
        let lines = description(&json!({"name": "acme", "functions": []}));
        assert_eq!(lines.last().map(String::as_str), Some("no functions yet: dormouse deploy acme PATH"));
    }
}
