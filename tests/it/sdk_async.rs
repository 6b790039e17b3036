//! The SDK's async handlers through the real server: what they do with what the host gives.

use anyhow::{Context, Result, ensure};
use dormouse_tests::client::Cut;
use dormouse_tests::eventually;
use dormouse_tests::logs::Line;
use serde_json::{Value, json};

use crate::SHIPPED;

const GUEST: &str = "sdk3";

#[test]
fn json_and_forms_come_in_and_go_out() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant(GUEST)?;
    let made = tenant.post("/orders", &json!({ "item": "cheese" }))?.expect(201)?;
    assert_eq!(made.header("content-type"), Some("application/json"));
    assert_eq!(made.json()?, json!({ "id": 1, "item": "cheese" }));
    assert_eq!(tenant.sql("SELECT id, item FROM orders")?, json!([[1, "cheese"]]));
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let read = tenant.request("POST", "/form", &form, b"id=7&item=a+b")?.expect(200)?.json()?;
    assert_eq!(read, json!({ "id": 7, "item": "a b" }));
    tenant.post("/form", &json!({}))?.expect(415)?;
    let problem = tenant.request("POST", "/orders", &[], b"{")?.expect(400)?.json()?;
    let detail = problem.get("detail").and_then(Value::as_str).unwrap_or_default();
    ensure!(detail.starts_with("the body is not the expected JSON: "), "{problem}");
    Ok(())
}

#[test]
fn rows_are_sent_as_they_are_read() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant(GUEST)?;
    for item in ["cheese", "bread"] {
        tenant.post("/orders", &json!({ "item": item }))?.expect(201)?;
    }
    tenant.sql(
        "WITH RECURSIVE n (i) AS (SELECT 3 UNION ALL SELECT i + 1 FROM n LIMIT 998)
         INSERT INTO orders (id, item) SELECT i, 'more' FROM n",
    )?;
    let rows = tenant.get("/orders")?.expect(200)?.text();
    ensure!(rows.starts_with("1 cheese\n2 bread\n3 more\n") && rows.ends_with("\n1000 more\n"), "{rows}");
    assert_eq!(rows.lines().count(), 1_000);
    Ok(())
}

#[test]
fn a_transaction_that_fails_or_is_given_up_leaves_nothing() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant(GUEST)?;
    for path in ["/rolled-back", "/given-up"] {
        assert_eq!(tenant.json(path)?, json!(0), "{path}");
        assert_eq!(tenant.sql("SELECT count(*) FROM orders")?, json!([[0]]), "{path}");
    }
    Ok(())
}

#[test]
fn a_transaction_that_is_given_up_while_it_begins_takes_nothing_along() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant(GUEST)?;
    tenant.get("/given-up-at-once")?.expect(204)?;
    assert_eq!(tenant.sql("SELECT item FROM orders")?, json!([["kept"]]));
    Ok(())
}

#[test]
fn a_task_goes_on_after_the_response() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant(GUEST)?;
    assert_eq!(tenant.get("/after")?.expect(200)?.text(), "answered");
    eventually("the row arrives", || {
        let rows = tenant.try_sql("SELECT item FROM orders", &json!([]))?;
        Ok((rows.status == 200 && rows.text().contains("after the response")).then_some(()))
    })
}

#[test]
fn bodies_are_passed_on_and_changed_piece_by_piece() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant(GUEST)?;
    for (path, pieces) in [("/echo", ["one", "two"]), ("/upper", ["ONE", "TWO"])] {
        let mut connection = node.connect()?;
        connection.chunked_request("POST", &tenant.path(path), &[])?;
        let mut incoming = None;
        for (sent, expected) in ["one", "two"].into_iter().zip(pieces) {
            connection.chunk(sent.as_bytes())?;
            if incoming.is_none() {
                incoming = Some(connection.head("POST")?);
            }
            let incoming = incoming.as_mut().context("a head came")?;
            assert_eq!(connection.next(incoming)?, Some(expected.into()), "before the next piece is sent");
        }
        connection.chunk(b"")?;
        assert_eq!(connection.rest(&mut incoming.context("a head came")?)?, b"");
    }
    let large = vec![b'x'; 3 << 20];
    let answer = tenant.request("POST", "/upper", &[], &large)?.expect(200)?;
    ensure!(answer.body == large.to_ascii_uppercase(), "{} bytes came back", answer.body.len());
    Ok(())
}

#[test]
fn a_body_is_not_complete_after_a_read_that_was_given_up() -> Result<()> {
    let node = SHIPPED.node()?;
    let mut connection = node.connect()?;
    connection.chunked_request("POST", &node.tenant(GUEST)?.path("/given-up-read"), &[])?;
    assert_eq!(connection.head("POST")?.status, 400);
    Ok(())
}

/// What the log says of a request.
fn logged(node: &dormouse_tests::TestNode, id: &str, message: &str) -> Result<()> {
    let said = |line: &Line| line.request("request_id") == Some(id) && line.message().contains(message);
    assert_eq!(node.logs().wait_for(message, said)?.get("level"), Some("ERROR"));
    Ok(())
}

#[test]
fn the_cause_of_an_error_is_for_the_log_only() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant(GUEST)?;
    for (path, cause) in [("/fail", "the till is empty"), ("/mistake", "SELEKT")] {
        let id = format!("sdk3{}-0001", path.replace('/', "-"));
        let problem = tenant.request("GET", path, &[("x-request-id", &id)], b"")?.expect(500)?;
        assert_eq!(problem.header("content-type"), Some("application/problem+json"));
        let words = json!({ "type": "about:blank", "title": "Internal Server Error", "status": 500 });
        assert_eq!(problem.json()?, words);
        logged(&node, &id, cause)?;
    }
    Ok(())
}

#[test]
fn a_body_that_fails_is_cut() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant(GUEST)?;
    let id = "sdk3-breaks-off-0001";
    let answer = tenant.request("GET", "/breaks-off", &[("x-request-id", id)], b"");
    ensure!(answer.is_err_and(|error| error.is::<Cut>()), "the client must not take the part for the whole");
    logged(&node, id, "the ink is empty")
}

#[test]
fn variables_are_read_and_outgoing_requests_denied() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant(GUEST)?;
    tenant.set_variable("greeting", &json!({ "value": "Moin" }))?;
    assert_eq!(tenant.get("/variable")?.expect(200)?.text(), "Moin");
    let told = tenant.get("/fetch")?.expect(200)?.text();
    ensure!(told.starts_with("this function may not send requests to example.com"), "{told}");
    Ok(())
}
