//! `dormouse token`: create, list and revoke tokens of the admin API.

use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::client::{Client, ClientOptions};
use super::table::{self, Cell};
use super::{output, text};
use crate::name::{Id, TenantName};

/// Tokens that are asked for at once: the most that the API gives.
const PAGE_TOKENS: u32 = 1_000;

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
    dormouse token create ci --tenant acme --expires-in 90d > acme.token\n  \
    dormouse deploy acme shop --token-file acme.token\n  \
    dormouse token list")]
pub(super) struct TokenArgs {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Make a token, and show it this once
    ///
    /// Without --tenant it reaches the whole node, as the operator's own does.
    #[command(after_help = "Examples:\n  \
        dormouse token create ci --tenant acme --expires-in 90d > acme.token\n  \
        dormouse token create backup --read-only")]
    Create {
        /// What it is for; the audit log names it
        label: String,
        /// Let it reach this tenant only
        #[arg(long, value_name = "NAME")]
        tenant: Option<TenantName>,
        /// Let it look and change nothing
        #[arg(long)]
        read_only: bool,
        /// End it after this time, such as 12h or 90d [default: it does not end]
        #[arg(long, value_name = "TIME")]
        expires_in: Option<Lifetime>,
        #[command(flatten)]
        client: ClientOptions,
    },
    /// List tokens; what they are themselves is not shown again
    #[command(after_help = "Example:\n  dormouse token list")]
    List {
        /// Print the API's JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        client: ClientOptions,
    },
    /// End a token at once
    #[command(after_help = "Example:\n  dormouse token revoke 0f3a8c5d1e9b47728a6d4c2e5f708192")]
    Revoke {
        /// Its id, as `dormouse token list` shows it
        id: String,
        #[command(flatten)]
        client: ClientOptions,
    },
}

/// How long a token holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Lifetime(Duration);

impl FromStr for Lifetime {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        const HELP: &str = "a time is a number and one of s, m, h and d, such as 90d";
        let unit = text.chars().next_back().context(HELP)?;
        let seconds: u64 = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3_600,
            'd' => 86_400,
            _ => bail!(HELP),
        };
        let number: u64 = text.strip_suffix(unit).and_then(|number| number.parse().ok()).context(HELP)?;
        Ok(Self(Duration::from_secs(number.checked_mul(seconds).context("that is too long")?)))
    }
}

impl Lifetime {
    /// Unix seconds of its end, if it begins now.
    fn end(self) -> anyhow::Result<u64> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock stands before 1970")?;
        Ok(now.checked_add(self.0).context("that is too long")?.as_secs())
    }
}

pub(super) fn run(args: &TokenArgs) -> anyhow::Result<()> {
    match &args.command {
        TokenCommand::Create { label, tenant, read_only, expires_in, client } => {
            let expires_at = expires_in.map(Lifetime::end).transpose()?;
            let asked = json!({
                "label": label, "tenant": tenant, "read_only": read_only, "expires_at": expires_at,
            });
            create(&client.client()?, &asked)
        }
        TokenCommand::List { json, client } => list(&client.client()?, *json),
        TokenCommand::Revoke { id, client } => {
            if Id::parse(id).is_none() {
                bail!("{id:?} is no id of a token; `dormouse token list` shows them");
            }
            client.client()?.delete(&format!("/v1/tokens/{id}"))?;
            output::lines(&format!("revoked {id}"))
        }
    }
}

fn create(client: &Client, asked: &Value) -> anyhow::Result<()> {
    let made = client.post("/v1/tokens", asked)?;
    let text_of = |member| made.get(member).and_then(Value::as_str);
    let token = text_of("token").context("the node answered without a token")?;
    output::lines(token)?;
    output::note(&format!(
        "this is the only time it is shown; to end it: dormouse token revoke {}",
        text_of("id").unwrap_or_default()
    ));
    Ok(())
}

fn list(client: &Client, as_json: bool) -> anyhow::Result<()> {
    let tokens = client.all("tokens", &format!("/v1/tokens?limit={PAGE_TOKENS}"))?;
    if as_json {
        return output::lines(&text::escaped_json(&json!({ "tokens": tokens, "next": null })));
    }
    let rows: Vec<_> = tokens.iter().map(row).collect();
    let columns = ["id", "label", "reaches", "may", "created", "expires"];
    output::lines(&table::layout(&columns, &rows).join("\n"))?;
    output::note(&text::count(rows.len() as u64, "token"));
    Ok(())
}

fn row(token: &Value) -> Vec<Cell> {
    let text_of = |member| token.get(member).and_then(Value::as_str);
    let date_of = |member| token.get(member).and_then(Value::as_u64).map(text::date);
    let is_read_only = token.get("read_only").and_then(Value::as_bool).unwrap_or_default();
    vec![
        Cell::text(text_of("id").unwrap_or_default()),
        Cell::text(text_of("label").unwrap_or_default()),
        Cell::text(text_of("tenant").unwrap_or("(node)")),
        Cell::text(if is_read_only { "look" } else { "change" }),
        Cell::text(&date_of("created_at").unwrap_or_default()),
        Cell::text(&date_of("expires_at").unwrap_or_else(|| "never".to_owned())),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_have_a_unit() -> anyhow::Result<()> {
        for (text, seconds) in [("1s", 1), ("2m", 120), ("12h", 43_200), ("90d", 7_776_000)] {
            assert_eq!(text.parse::<Lifetime>()?, Lifetime(Duration::from_secs(seconds)));
        }
        for text in
            ["", "d", "90", "-1d", "1y", "1dd", "99999999999999999999d", "18446744073709551615d", "1ä"]
        {
            assert!(text.parse::<Lifetime>().is_err(), "{text}");
        }
        Ok(())
    }
}
