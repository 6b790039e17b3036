//! `functions/webhook-inbox` through the real server: what came is kept and found, by its reader only.

use anyhow::{Context, Result, ensure};
use dormouse_tests::Tenant;
use dormouse_tests::client::Response;
use serde_json::{Value, json};

use crate::SHIPPED;

const KEY: &str = "correct-horse-battery-staple";

/// A tenant whose inbox has a reader.
struct Inbox<'a> {
    tenant: Tenant<'a>,
    bearer: String,
}

impl<'a> Inbox<'a> {
    fn new(tenant: Tenant<'a>) -> Result<Self> {
        tenant.set_variable("reader_key", &json!({ "value": KEY, "secret": true }))?;
        Ok(Self { tenant, bearer: format!("Bearer {KEY}") })
    }

    fn read(&self, method: &str, rest: &str) -> Result<Response> {
        self.tenant.request(method, rest, &[("authorization", &self.bearer)], b"")
    }

    /// The ids of the messages that a search finds.
    fn find(&self, query: &str) -> Result<Vec<i64>> {
        let page = self.read("GET", &format!("/messages{query}"))?.expect(200)?.json()?;
        let messages = page.get("messages").and_then(Value::as_array).context("no messages")?;
        Ok(messages.iter().filter_map(|message| message.get("id")?.as_i64()).collect())
    }
}

#[test]
fn a_webhook_is_kept_with_its_headers_and_its_body() -> Result<()> {
    let node = SHIPPED.node()?;
    let inbox = Inbox::new(node.tenant("webhook-inbox")?)?;
    let headers = [("x-github-event", "push"), ("content-type", "application/json")];
    let body = br#"{"ref":"refs/heads/main"}"#;
    let kept = inbox.tenant.request("POST", "/in/github?x=1", &headers, body)?.expect(201)?.json()?;
    assert_eq!(kept, json!({ "id": 1 }));
    let message = inbox.read("GET", "/messages/1")?.expect(200)?.json()?;
    assert_eq!(message.get("source"), Some(&json!("github")));
    assert_eq!(message.get("query"), Some(&json!("x=1")));
    assert_eq!(message.get("text"), Some(&json!(String::from_utf8_lossy(body))));
    let headers = message.get("headers").and_then(Value::as_array).context("no headers")?;
    ensure!(headers.contains(&json!(["x-github-event", "push"])), "{headers:?}");
    let raw = inbox.read("GET", "/messages/1/body")?.expect(200)?;
    assert_eq!(raw.body, body);
    assert_eq!(raw.header("content-disposition"), Some("attachment"));
    Ok(())
}

#[test]
fn webhooks_are_listed_and_searched() -> Result<()> {
    let node = SHIPPED.node()?;
    let inbox = Inbox::new(node.tenant("webhook-inbox")?)?;
    for (method, source, body) in
        [("POST", "shop", "Order 7: cheese"), ("PUT", "shop", "Order 8"), ("POST", "bank", "")]
    {
        inbox.tenant.request(method, &format!("/in/{source}"), &[], body.as_bytes())?.expect(201)?;
    }
    assert_eq!(inbox.find("")?, [3, 2, 1]);
    assert_eq!(inbox.find("?q=order")?, [2, 1]);
    assert_eq!(inbox.find("?q=CHEESE&source=shop")?, [1]);
    assert_eq!(inbox.find("?limit=1&before=3")?, [2]);
    inbox.read("DELETE", "/messages/2")?.expect(204)?;
    assert_eq!(inbox.find("")?, [3, 1]);
    Ok(())
}

#[test]
fn a_large_body_in_pieces_is_kept_whole() -> Result<()> {
    let node = SHIPPED.node()?;
    let inbox = Inbox::new(node.tenant("webhook-inbox")?)?;
    let mut connection = node.connect()?;
    connection.chunked_request("POST", &inbox.tenant.path("/in/large"), &[])?;
    for piece in vec![b'x'; 500_000].chunks(60_000) {
        connection.chunk(piece)?;
    }
    connection.chunk(b"")?;
    connection.response("POST")?.expect(201)?;
    assert_eq!(inbox.read("GET", "/messages/1/body")?.expect(200)?.body.len(), 500_000);
    // Refused for its last byte: before that an answer would cut the connection that the rest is sent on.
    let too_large = vec![b'x'; 512 * 1024 + 1];
    inbox.tenant.request("POST", "/in/large", &[], &too_large)?.expect(413)?;
    assert_eq!(inbox.find("")?, [1]);
    Ok(())
}

#[test]
fn only_the_reader_reads() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant("webhook-inbox")?;
    tenant.get("/messages")?.expect(401)?;
    let inbox = Inbox::new(tenant)?;
    inbox.tenant.request("POST", "/in/shop", &[], b"private")?.expect(201)?;
    for (method, rest) in
        [("GET", "/messages"), ("GET", "/messages/1"), ("GET", "/messages/1/body"), ("DELETE", "/messages/1")]
    {
        inbox.tenant.request(method, rest, &[("authorization", "Bearer guessed")], b"")?.expect(401)?;
    }
    Ok(())
}
