//! Tokens of the admin API: who may do what with one, and when one ends.

use std::fs;

use anyhow::{Context, Result, ensure};
use dormouse_tests::client::Response;
use dormouse_tests::{Stop, TestNode, eventually, problem_of, root};
use serde_json::{Value, json};

use crate::SHIPPED;
use crate::cli;

/// A token that was made through the API.
pub(crate) struct Made {
    pub(crate) id: String,
    pub(crate) token: String,
}

pub(crate) fn make(node: &TestNode, asked: &Value) -> Result<Made> {
    let made = node.admin("POST", "/v1/tokens", asked.to_string().as_bytes())?.expect(201)?.json()?;
    let text =
        |member: &str| made.get(member).and_then(Value::as_str).context("no such text").map(str::to_owned);
    Ok(Made { id: text("id")?, token: text("token")? })
}

pub(crate) fn with(node: &TestNode, token: &str, method: &str, path: &str, body: &[u8]) -> Result<Response> {
    let bearer = format!("Bearer {token}");
    node.admin_request(method, path, &[("authorization", &bearer)], body)
}

/// The answer that a request without a token gets, but for its id.
fn is_unauthorized(answer: &Response) -> Result<()> {
    ensure!(answer.status == 401, "{}: {}", answer.status, answer.text());
    assert_eq!(problem_of(answer)?, "unauthorized");
    let detail = answer.json()?.get("detail").cloned();
    ensure!(detail.as_ref().and_then(Value::as_str).is_some_and(|text| text.contains("that still holds")));
    Ok(())
}

/// What a route needs of a token, as `control/api.rs` writes it.
type Need = &'static str;

/// Every route: its method, its path, what it needs.
const ROUTES: &[(&str, &str, Need)] = &[
    ("GET", "/v1/node", "Token"),
    ("GET", "/v1/node/database", "Node(Read)"),
    ("GET", "/v1/audit", "Node(Read)"),
    ("GET", "/v1/tokens", "Node(Read)"),
    ("POST", "/v1/tokens", "Node(Full)"),
    ("DELETE", "/v1/tokens/{token}", "Node(Full)"),
    ("GET", "/v1/tenants", "Node(Read)"),
    ("POST", "/v1/tenants", "Node(Full)"),
    ("GET", "/v1/tenants/{tenant}", "Tenant(Read)"),
    ("DELETE", "/v1/tenants/{tenant}", "Node(Full)"),
    ("PUT", "/v1/tenants/{tenant}/functions/{function}", "Tenant(Full)"),
    ("GET", "/v1/tenants/{tenant}/database", "Tenant(Read)"),
    ("PUT", "/v1/tenants/{tenant}/database", "Tenant(Full)"),
    ("POST", "/v1/tenants/{tenant}/database/revert", "Tenant(Full)"),
    ("POST", "/v1/tenants/{tenant}/sql", "Tenant(Full)"),
    ("POST", "/v1/tenants/{tenant}/recover", "Node(Full)"),
    ("GET", "/v1/tenants/{tenant}/variables", "Tenant(Read)"),
    ("PUT", "/v1/tenants/{tenant}/variables/{variable}", "Tenant(Full)"),
    ("DELETE", "/v1/tenants/{tenant}/variables/{variable}", "Tenant(Full)"),
];

type Reaches = fn(Need) -> bool;

/// The scopes that a token can have, and whether one of that scope meets a need.
const SCOPES: &[(&str, Reaches)] = &[
    ("the operator's", |_| true),
    ("node", |_| true),
    ("node, read-only", |need| need == "Token" || need.ends_with("(Read)")),
    ("tenant", |need| need == "Token" || need.starts_with("Tenant")),
    ("tenant, read-only", |need| need == "Token" || need == "Tenant(Read)"),
    ("another tenant", |need| need == "Token"),
    ("another tenant, read-only", |need| need == "Token"),
];

#[test]
fn every_route_is_in_the_table_and_in_the_docs() -> Result<()> {
    let source = fs::read_to_string(root().join("runtime/src/control/api.rs"))?;
    let source = source.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut found = Vec::new();
    for method in ["get", "post", "put", "delete"] {
        for route in source.split(&format!(".{method}(")).skip(1) {
            let Some((path, rest)) =
                route.trim_start().strip_prefix('"').and_then(|rest| rest.split_once("\", "))
            else {
                continue;
            };
            let need = rest.split(',').next().unwrap_or_default();
            found.push((method.to_ascii_uppercase(), path.to_owned(), need.to_owned()));
        }
    }
    let owned = |(method, path, need): &(&str, &str, Need)| {
        ((*method).to_owned(), (*path).to_owned(), (*need).to_owned())
    };
    let mut wanted: Vec<_> = ROUTES.iter().map(owned).collect();
    found.sort();
    wanted.sort();
    assert_eq!(found, wanted, "the routes of control/api.rs are not those of this test");

    let documented = fs::read_to_string(root().join("docs/admin-api.md"))?;
    for (method, path, _) in ROUTES {
        let path = path.replace("{tenant}", "<name>").replace('{', "<").replace('}', ">");
        let row = format!("| `{method} {path}");
        let is_told =
            |line: &str| line.strip_prefix(&row).is_some_and(|rest| rest.starts_with(['`', '?', '[']));
        ensure!(documented.lines().any(is_told), "docs/admin-api.md does not tell of {method} {path}");
    }
    Ok(())
}

#[test]
fn each_scope_reaches_its_routes_and_no_other() -> Result<()> {
    let node = TestNode::start()?;
    let scopes = [
        json!({"label": "node"}),
        json!({"label": "node, read-only", "read_only": true}),
        json!({"label": "tenant", "tenant": "own"}),
        json!({"label": "tenant, read-only", "tenant": "own", "read_only": true}),
        json!({"label": "another", "tenant": "other"}),
        json!({"label": "another, read-only", "tenant": "other", "read_only": true}),
    ];
    node.create_tenant("own")?;
    node.create_tenant("other")?;
    let made = scopes.iter().map(|asked| Ok(make(&node, asked)?.token)).collect::<Result<Vec<_>>>()?;
    let tokens = std::iter::once(node.token()?.to_owned()).chain(made);
    for ((scope, may), token) in SCOPES.iter().zip(tokens) {
        for (method, path, need) in ROUTES {
            // What a handler makes of this is a mistake, never a change: what matters is who gets as far.
            let path = path
                .replace("{tenant}", if *need == "Node(Full)" { "nobody" } else { "own" })
                .replace("{function}", "Not-A-Name")
                .replace("{variable}", "Not-A-Name")
                .replace("{token}", "no-token");
            let answer = with(&node, &token, method, &path, b"{")?;
            ensure!(answer.status != 401 && answer.status < 500, "{method} {path}: {}", answer.text());
            let forbidden = answer.status == 403;
            ensure!(forbidden != may(need), "{scope}: {method} {path}: {}", answer.text());
            if forbidden {
                assert_eq!(problem_of(&answer)?, "forbidden");
                let text = answer.text();
                ensure!(text.contains("scope node"), "{text}");
                ensure!(text.contains("read-only") == need.ends_with("(Full)"), "{text}");
                ensure!(text.contains("this tenant") == need.starts_with("Tenant"), "{text}");
            }
        }
    }
    Ok(())
}

#[test]
fn a_tenants_token_does_not_tell_which_others_there_are() -> Result<()> {
    let node = SHIPPED.node()?;
    node.create_tenant("curious")?;
    node.create_tenant("discreet")?;
    let token = make(&node, &json!({"label": "curious", "tenant": "curious"}))?.token;
    let mut told = Vec::new();
    for name in ["discreet", "no-such-tenant", "%20", "UPPER"] {
        let answer = with(&node, &token, "GET", &format!("/v1/tenants/{name}"), b"")?.expect(403)?;
        told.push(answer.json()?.get("detail").cloned());
    }
    told.dedup();
    ensure!(told.len() == 1, "{told:?}");
    with(&node, &token, "GET", "/v1/tenants/curious", b"")?.expect(200)?;
    Ok(())
}

#[test]
fn a_token_is_shown_once_and_kept_as_its_hash() -> Result<()> {
    let mut node = TestNode::start()?;
    let made = make(&node, &json!({"label": "ci"}))?;
    let secret = made.token.strip_prefix(&format!("dm_{}_", made.id)).context("another prefix")?.to_owned();
    ensure!(secret.len() == 64 && secret.bytes().all(|byte| byte.is_ascii_hexdigit()), "{secret}");
    let listed = node.admin("GET", "/v1/tokens", b"")?.expect(200)?;
    ensure!(!listed.text().contains(&secret), "{}", listed.text());
    let listed = listed.json()?;
    let expected = [
        ("id", json!(made.id)),
        ("label", json!("ci")),
        ("tenant", json!(null)),
        ("read_only", json!(false)),
    ];
    for (member, value) in expected {
        assert_eq!(listed.pointer(&format!("/tokens/0/{member}")), Some(&value));
    }
    node.restart(Stop::Terminate)?;
    with(&node, &made.token, "GET", "/v1/tenants", b"")?.expect(200)?;
    node.stop(Stop::Terminate)?;
    for entry in fs::read_dir(node.data())? {
        let path = entry?.path();
        let bytes = if path.is_file() { fs::read(&path)? } else { Vec::new() };
        ensure!(
            !bytes.windows(secret.len()).any(|part| part == secret.as_bytes()),
            "{} holds it",
            path.display()
        );
    }
    ensure!(node.logs().matching(|line| line.text.contains(&secret)).is_empty(), "it is in the log");
    Ok(())
}

#[test]
fn a_token_ends_when_it_is_revoked_expires_or_its_tenant_goes() -> Result<()> {
    let node = SHIPPED.node()?;
    let path = "/v1/node";
    let made = make(&node, &json!({"label": "revoked"}))?;
    let mut connection = dormouse_tests::client::Connection::open(node.admin_address()?)?;
    let bearer = format!("Bearer {}", made.token);
    connection.request("GET", path, &[("authorization", &bearer)], b"")?;
    connection.response("GET")?.expect(200)?;
    node.admin("DELETE", &format!("/v1/tokens/{}", made.id), b"")?.expect(204)?;
    // Also on the connection that it was good on.
    connection.request("GET", path, &[("authorization", &bearer)], b"")?;
    is_unauthorized(&connection.response("GET")?)?;
    let again = node.admin("DELETE", &format!("/v1/tokens/{}", made.id), b"")?.expect(404)?;
    assert_eq!(problem_of(&again)?, "unknown-token");

    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
    let expiring = make(&node, &json!({"label": "expiring", "expires_at": now + 2}))?.token;
    let expired = eventually("it expires", || {
        let answer = with(&node, &expiring, "GET", path, b"")?;
        Ok((answer.status != 200).then_some(answer))
    })?;
    is_unauthorized(&expired)?;

    node.create_tenant("passing")?;
    let of_tenant = make(&node, &json!({"label": "passing", "tenant": "passing"}))?.token;
    with(&node, &of_tenant, "GET", "/v1/tenants/passing", b"")?.expect(200)?;
    node.admin("DELETE", "/v1/tenants/passing", b"")?.expect(204)?;
    is_unauthorized(&with(&node, &of_tenant, "GET", path, b"")?)?;
    node.create_tenant("passing")?;
    is_unauthorized(&with(&node, &of_tenant, "GET", "/v1/tenants/passing", b"")?)
}

#[test]
fn a_token_that_is_nearly_right_is_wrong() -> Result<()> {
    let node = TestNode::start()?;
    let (one, other) = (make(&node, &json!({"label": "one"}))?, make(&node, &json!({"label": "other"}))?);
    let secret = one.token.rsplit('_').next().unwrap_or_default();
    let shorter = one.token.get(..one.token.len() - 1).unwrap_or_default();
    for wrong in [
        shorter,
        secret,
        &format!("{}0", one.token),
        &format!("dm_{}_{secret}", other.id),
        &format!("dm_{}_{secret}", "0".repeat(32)),
        &format!("dm_{}_", one.id),
        &one.token.to_ascii_uppercase(),
        &format!("dm_{}_{}", one.id, node.token()?),
    ] {
        is_unauthorized(&with(&node, wrong, "GET", "/v1/node", b"")?)?;
    }
    with(&node, &one.token, "GET", "/v1/node", b"")?.expect(200)?;
    Ok(())
}

#[test]
fn a_token_that_makes_no_sense_is_not_made() -> Result<()> {
    let node = SHIPPED.node()?;
    for (asked, status, problem) in [
        (json!({"label": ""}), 422, "bad-token"),
        (json!({"label": "a\u{1b}b"}), 422, "bad-token"),
        (json!({"label": "x".repeat(65)}), 422, "bad-token"),
        (json!({"label": "late", "expires_at": 1}), 422, "bad-token"),
        (json!({"label": "whose", "tenant": "no-such-tenant"}), 404, "unknown-tenant"),
        (json!({"label": "typo", "tenent": "acme"}), 400, "bad-request"),
        (json!({}), 400, "bad-request"),
    ] {
        let answer = node.admin("POST", "/v1/tokens", asked.to_string().as_bytes())?;
        ensure!(answer.status == status, "{asked}: {}: {}", answer.status, answer.text());
        assert_eq!(problem_of(&answer)?, problem, "{asked}");
    }
    Ok(())
}

#[test]
fn the_command_makes_lists_and_revokes_tokens() -> Result<()> {
    let node = SHIPPED.node()?;
    node.create_tenant("by-token")?;
    let create = ["token", "create", "from cli", "--tenant", "by-token", "--expires-in", "90d"];
    let said = cli::run(&node, &create)?;
    let token = said.stdout.trim();
    ensure!(token.starts_with("dm_") && said.stderr.contains("dormouse token revoke"), "{}", said.stderr);
    let id = token.split('_').nth(1).context("no id")?;
    let own = |arguments: &[&str]| -> Result<std::process::Output> {
        Ok(cli::command(&node, arguments)?.env("DORMOUSE_TOKEN", token).output()?)
    };
    ensure!(own(&["tenant", "show", "by-token"])?.status.success());
    let refused = cli::fails(&own(&["tenant", "list"])?)?;
    ensure!(refused.contains("this needs a token with the scope node"), "{refused}");

    let listed = cli::run(&node, &["token", "list"])?.stdout;
    let line = listed.lines().find(|line| line.contains(id)).context("it is not listed")?;
    for part in ["from cli", "by-token", "change"] {
        ensure!(line.contains(part), "{line}");
    }
    ensure!(!listed.contains(token), "{listed}");
    cli::run(&node, &["token", "revoke", id])?;
    let refused = cli::fails(&own(&["tenant", "show", "by-token"])?)?;
    ensure!(refused.contains("401"), "{refused}");
    Ok(())
}
