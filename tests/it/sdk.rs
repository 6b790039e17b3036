//! The SDK through the real server: what it does with what the host gives.

use anyhow::{Context, Result, ensure};
use dormouse_tests::logs::Line;
use serde_json::{Value, json};

use crate::SHIPPED;
use crate::cli::run;

#[test]
fn a_function_knows_its_request_and_its_address() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant("sdk")?;
    let headers = [("x-request-id", "sdk-told-0001")];
    let told = tenant.request("GET", "/told/b/c?d=e", &headers, b"")?.expect(200)?.json()?;
    let link = tenant.path("/a");
    assert_eq!(
        told,
        json!({ "id": "sdk-told-0001", "link": link, "url": format!("http://dormouse.test{link}") })
    );
    Ok(())
}

#[test]
fn a_function_reads_variables_and_secrets() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant("sdk")?;
    run(&node, &["variable", "set", &tenant.name, "greeting", "Moin"])?;
    tenant.set_variable("token", &json!({ "value": "s3cret", "secret": true }))?;
    assert_eq!(tenant.json("/variable/greeting")?, json!({ "value": "Moin", "is_offered": false }));
    let offer = [("authorization", "Bearer s3cret"), ("x-request-id", "sdk-variable-0001")];
    let read = tenant.request("GET", "/variable/token", &offer, b"")?.expect(200)?.json()?;
    assert_eq!(read, json!({ "value": "s3cret", "is_offered": true }));
    let logged = |line: &Line| {
        line.request("request_id") == Some("sdk-variable-0001") && line.message() == "read a variable"
    };
    let logged = node.logs().wait_for("that it was read", logged)?;
    assert_eq!(logged.of_guest("secret"), Some(&json!("Secret(…)")));
    tenant.get("/variable/nobodys")?.expect(500)?;
    Ok(())
}

#[test]
fn what_a_function_logs_is_an_event_of_its_request() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant("sdk")?;
    let id = "sdk-logs-0001";
    tenant.request("GET", "/log", &[("x-request-id", id)], b"")?.expect(204)?;
    let odd = |line: &Line| line.request("request_id") == Some(id) && line.message() == "odd";
    let odd = node.logs().wait_for("the warning", odd)?;
    assert_eq!((odd.get("level"), odd.get("target")), (Some("WARN"), Some("guest")));
    let noted = |line: &Line| line.request("request_id") == Some(id) && line.message() == "noted";
    let noted = node.logs().wait_for("the note", noted)?;
    assert_eq!(noted.get("level"), Some("INFO"));
    assert_eq!(noted.of_guest("answer"), Some(&json!(42)));
    assert_eq!(noted.of_guest("path"), Some(&json!("/log")));
    assert_eq!(noted.request("tenant"), Some(tenant.name.as_str()));
    Ok(())
}

#[test]
fn an_internal_error_is_for_the_log_only() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant("sdk")?;
    let id = "sdk-fails-0001";
    let response = tenant.request("GET", "/fail", &[("x-request-id", id)], b"")?.expect(500)?;
    assert_eq!(response.header("content-type"), Some("application/problem+json"));
    assert_eq!(
        response.json()?,
        json!({ "type": "about:blank", "title": "Internal Server Error", "status": 500 })
    );
    let said = |line: &Line| line.request("request_id") == Some(id) && line.message() == "the till is empty";
    assert_eq!(node.logs().wait_for("the reason", said)?.get("level"), Some("ERROR"));
    Ok(())
}

#[test]
fn an_outgoing_request_is_denied_and_says_so() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant("sdk")?;
    let said = tenant.get("/fetch")?.expect(200)?.text();
    ensure!(said.starts_with("this function may not send requests to example.com: name it in"), "{said}");
    let problem = tenant.get("/fetch-and-fail")?.expect(502)?.json()?;
    assert_eq!(problem.get("detail"), None, "the caller is not told what the function tried");
    Ok(())
}

#[test]
fn mistakes_in_sql_are_told_apart() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant("sdk")?;
    let kinds = tenant.json("/errors")?;
    let kinds: Vec<_> = kinds.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let expected = [
        "UNIQUE: kinds.a",
        "NOT NULL: kinds.b",
        "CHECK: b > 0",
        "type: cannot store TEXT value in INTEGER column kinds.b",
        "NoSuchTable(\"nowhere\")",
        "NotAuthorized(\"not authorized: ATTACH, DETACH and VACUUM are not allowed: a tenant has one database\")",
        "TooLarge(\"string or blob too big: at most 1048576 bytes in a value or a row; split it over several rows\")",
        "Statement(\"cannot commit - no transaction is active\")",
        "Syntax(\"near \\\"SELEKT\\\": syntax error\")",
        "NoSuchColumn(\"c\")",
        "Statement(\"the text in column \\\"t\\\" is not UTF-8; read it as a blob: CAST(… AS BLOB)\")",
    ];
    assert_eq!(kinds, expected);
    Ok(())
}

#[test]
fn a_transaction_that_fails_leaves_nothing() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant("sdk")?;
    assert_eq!(tenant.json("/rolled-back")?, json!(0));
    assert_eq!(tenant.sql("SELECT count(*) FROM numbers")?, json!([[0]]));
    Ok(())
}

#[test]
fn a_form_with_files_arrives_in_pieces() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant("sdk")?;
    let file = "x".repeat(200_000);
    let head = "content-disposition: form-data; name=";
    let form = format!(
        "--b\r\n{head}\"title\"\r\n\r\nMenu\r\n--b\r\n{head}\"file\"; filename=\"m.txt\"\r\n\r\n{file}\r\n--b--\r\n"
    );
    let headers = [("content-type", "multipart/form-data; boundary=b")];
    let mut connection = node.connect()?;
    connection.chunked_request("POST", &tenant.path("/multipart"), &headers)?;
    for piece in form.as_bytes().chunks(7_001) {
        connection.chunk(piece)?;
    }
    connection.chunk(b"")?;
    let fields = connection.response("POST")?.expect(200)?.json()?;
    assert_eq!(fields, json!([["title", null, 4], ["file", "m.txt", 200_000]]));
    tenant.request("POST", "/multipart", &headers, b"--b\r\n")?.expect(400)?;
    tenant.request("POST", "/multipart", &[], b"--b--")?.expect(415)?;
    Ok(())
}

#[test]
fn bodies_are_read_and_passed_on_piece_by_piece() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant("sdk")?;
    let body = vec![b'x'; 3 << 20];
    assert_eq!(tenant.request("POST", "/count", &[], &body)?.expect(200)?.text(), body.len().to_string());
    let mut connection = node.connect()?;
    connection.chunked_request("POST", &tenant.path("/echo"), &[])?;
    let mut incoming = None;
    for piece in ["one", "two"] {
        connection.chunk(piece.as_bytes())?;
        if incoming.is_none() {
            incoming = Some(connection.head("POST")?);
        }
        let incoming = incoming.as_mut().context("a head came")?;
        assert_eq!(connection.next(incoming)?, Some(piece.into()), "before the next piece is sent");
    }
    connection.chunk(b"")?;
    assert_eq!(connection.rest(&mut incoming.context("a head came")?)?, b"");
    Ok(())
}

#[test]
fn routes_answer_with_404_405_and_head() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant("sdk")?;
    let missing = tenant.get("/nowhere")?.expect(404)?;
    assert_eq!(missing.header("content-type"), Some("application/problem+json"));
    let refused = tenant.request("DELETE", "/log", &[], b"")?.expect(405)?;
    assert_eq!(refused.header("allow"), Some("GET, HEAD"));
    assert_eq!(tenant.request("HEAD", "/rolled-back", &[], b"")?.expect(200)?.body, b"");
    Ok(())
}
