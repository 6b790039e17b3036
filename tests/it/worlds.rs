//! What only the 0.3 world has: work after the response, trailers, several database calls at once, streamed rows.
//!
//! What both worlds have is tested for both where it belongs, with `in_both_worlds!`.

use std::cmp::Ordering;

use anyhow::{Context, Result, ensure};
use dormouse_tests::client::Cut;
use dormouse_tests::{Shared, Tenant, TestNode, eventually, problem_of};
use serde_json::{Value, json};

use crate::{SHIPPED, TIGHT};

in_both_worlds![a_request_has_an_instance_of_its_own];

const GUEST: &str = "misbehave3";

/// A node whose guests may compute for a moment only.
static HASTY: Shared = Shared::new(&[("--cpu-time-max-ms", "100")]);

fn notes(tenant: &Tenant<'_>) -> Result<Value> {
    tenant.sql("SELECT note FROM log ORDER BY id")
}

/// Waits until work after the response has written its note.
fn wait_for_note(tenant: &Tenant<'_>, note: &str) -> Result<()> {
    eventually(&format!("the note {note:?}"), || {
        let answer = tenant.try_sql("SELECT note FROM log", &json!([]))?;
        // There is no table yet before the first note.
        Ok((answer.status == 200 && answer.text().contains(note)).then_some(()))
    })
}

fn a_request_has_an_instance_of_its_own(guest: &str) -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant(guest)?;
    let mut connection = node.connect()?;
    for _ in 0..3 {
        connection.request("GET", &tenant.path("/count"), &[], b"")?;
        assert_eq!(connection.response("GET")?.expect(200)?.text(), "1");
    }
    Ok(())
}

/// What the benchmark runs must do in either world what it measures.
#[test]
fn the_functions_of_the_benchmark_answer_alike() -> Result<()> {
    let node = SHIPPED.node()?;
    for function in ["hello", "hello3"] {
        let answer = node.tenant(function)?.get("")?.expect(200)?;
        assert_eq!(answer.header("content-length"), Some("20"), "{function}");
        assert_eq!(answer.text(), "Hello from Dormouse\n", "{function}");
    }
    for function in ["guestbook", "guestbook3"] {
        let tenant = node.tenant(function)?;
        let answer = tenant.post("", &json!({ "name": "Ada", "message": "Hello" }))?.expect(201)?.json()?;
        assert_eq!(answer.get("id"), Some(&json!(1)), "{function}");
        assert_eq!(tenant.json("")?, json!([answer]), "{function}");
        assert_eq!(tenant.sql("SELECT id, name, message FROM entries")?, json!([[1, "Ada", "Hello"]]));
    }
    Ok(())
}

fn failed(step: &Value) -> Option<&str> {
    step.pointer("/error/message").and_then(Value::as_str)
}

#[test]
fn a_guest_works_on_after_its_response() -> Result<()> {
    let node = SHIPPED.node()?;
    for path in ["/after?ms=100", "/after-204?ms=100"] {
        let tenant = node.tenant(GUEST)?;
        let answer = tenant.get(path)?;
        ensure!(answer.status == 200 || answer.status == 204, "{}", answer.status);
        wait_for_note(&tenant, "after the response")?;
    }
    Ok(())
}

#[test]
fn a_client_that_has_its_response_may_go() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant(GUEST)?;
    let (mut connection, mut incoming) = tenant.start("/after?ms=300")?;
    assert_eq!(connection.rest(&mut incoming)?, b"answered");
    drop(connection);
    wait_for_note(&tenant, "after the response")
}

#[test]
fn work_after_the_response_ends_with_the_limits() -> Result<()> {
    let node = TIGHT.node()?;
    let tenant = node.tenant(GUEST)?;
    let answered = |path: &str| -> Result<()> {
        assert_eq!(tenant.get(path)?.expect(200)?.text(), "answered");
        Ok(())
    };
    answered("/after-trap?ms=10")?;
    wait_for_note(&tenant, "before the trap")?;
    answered("/after-spin")?;
    answered("/after?ms=3600000")?;
    // Its transaction goes with it, so that others can write.
    answered("/begin-and-leave-running")?;
    for limit in ["cpu_time_max_ms", "wall_time_max_ms"] {
        node.logs().wait_for(limit, |line| {
            line.get("limit") == Some(limit) && line.request("tenant") == Some(tenant.name.as_str())
        })?;
    }
    tenant.sql("INSERT INTO log(note) VALUES ('another')")?;
    assert_eq!(notes(&tenant)?, json!([["before the trap"], ["another"]]));
    Ok(())
}

#[test]
fn work_after_the_response_holds_a_drain() -> Result<()> {
    let mut node = TestNode::start()?;
    let name = {
        let tenant = node.tenant(GUEST)?;
        tenant.get("/after?ms=700")?.expect(200)?;
        tenant.name
    };
    node.terminate()?;
    ensure!(node.wait()?.success());
    node.restart_after_stop()?;
    let body = json!({ "sql": "SELECT note FROM log" }).to_string();
    let told =
        node.admin("POST", &format!("/v1/tenants/{name}/sql"), body.as_bytes())?.expect(200)?.json()?;
    assert_eq!(told.pointer("/rows"), Some(&json!([["after the response"]])));
    Ok(())
}

#[test]
fn a_guest_learns_whether_its_response_arrived() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant(GUEST)?;
    assert_eq!(tenant.get("/delivered")?.expect(200)?.text(), "answered");
    wait_for_note(&tenant, "delivered")?;
    assert_eq!(notes(&tenant)?, json!([["delivered"]]));
    Ok(())
}

#[test]
fn an_error_code_is_no_response() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant(GUEST)?;
    assert_eq!(problem_of(&tenant.get("/error")?.expect(502)?)?, "guest-error");
    Ok(())
}

#[test]
fn a_body_that_is_handed_on_streams_without_its_guest() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant(GUEST)?;
    let mut connection = node.connect()?;
    connection.chunked_request("POST", &tenant.path("/hand-on"), &[])?;
    connection.chunk(b"one")?;
    let mut incoming = connection.head("POST")?;
    assert_eq!(connection.next(&mut incoming)?.as_deref(), Some(b"one".as_slice()));
    connection.chunk(b"two")?;
    assert_eq!(connection.next(&mut incoming)?.as_deref(), Some(b"two".as_slice()));
    connection.chunk(b"")?;
    assert_eq!(connection.next(&mut incoming)?, None);
    Ok(())
}

#[test]
fn a_body_that_is_handed_on_ends_with_the_wall_time() -> Result<()> {
    let node = TIGHT.node()?;
    let tenant = node.tenant(GUEST)?;
    let mut connection = node.connect()?;
    connection.chunked_request("POST", &tenant.path("/hand-on"), &[])?;
    connection.chunk(b"one")?;
    let mut incoming = connection.head("POST")?;
    assert_eq!(connection.next(&mut incoming)?.as_deref(), Some(b"one".as_slice()));
    // Its client sends no more.
    let Err(error) = connection.rest(&mut incoming) else { anyhow::bail!("the body looks whole") };
    ensure!(error.is::<Cut>(), "{error:#}");
    Ok(())
}

#[test]
fn calls_at_once_run_in_the_order_in_which_they_were_made() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant(GUEST)?;
    let told = tenant.json("/many-calls?n=100")?;
    let steps = told.as_array().with_context(|| told.to_string())?;
    assert_eq!(steps.len(), 102);
    ensure!(steps.iter().all(|step| failed(step).is_none()), "{told}");
    assert_eq!(tenant.number("SELECT count(*) FROM log WHERE note = CAST(id AS TEXT)")?, 100);
    Ok(())
}

#[test]
fn requests_with_calls_at_once_keep_their_transactions() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant(GUEST)?;
    std::thread::scope(|scope| {
        let requests: Vec<_> = (0..8).map(|_| scope.spawn(|| tenant.json("/many-calls?n=20"))).collect();
        requests.into_iter().try_for_each(|request| {
            let told = request.join().ok().context("a thread failed")??;
            ensure!(told.as_array().into_iter().flatten().all(|step| failed(step).is_none()), "{told}");
            Ok(())
        })
    })?;
    // Each request's rows lie together, in its own order: none wrote in another's transaction.
    assert_eq!(tenant.number("SELECT count(*) FROM log WHERE note = CAST((id - 1) % 20 + 1 AS TEXT)")?, 160);
    Ok(())
}

#[test]
fn a_call_that_blocks_does_not_wait_for_ever() -> Result<()> {
    let node = TIGHT.node()?;
    let tenant = node.tenant(GUEST)?;
    let told = tenant.json("/blocking-beside")?;
    assert_eq!(told.get("seen"), Some(&json!([2])), "{told}");
    assert_eq!(told.get("rowid"), Some(&json!(2)));
    for changes in ["changes", "asked"] {
        assert_eq!(told.get(changes), Some(&json!(2)), "{told}");
    }
    Ok(())
}

#[test]
fn calls_that_are_given_up_leave_the_session_in_order() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant(GUEST)?;
    let told = tenant.json("/give-up")?;
    ensure!(failed(told.get("rollback").context("no rollback")?).is_none(), "{told}");
    let inside = told.get("inside").and_then(Value::as_i64).context("no number")?;
    ensure!((0..=20).contains(&inside), "{told}");
    assert_eq!(told.get("after"), Some(&json!(0)));
    assert_eq!(tenant.number("SELECT count(*) FROM log")?, 0);
    Ok(())
}

#[test]
fn what_cannot_be_prepared_is_told_by_the_future() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant(GUEST)?;
    let told = tenant.json("/prepare-error")?;
    assert_eq!(told.get("columns"), Some(&json!([])));
    assert_eq!(told.get("rows"), Some(&json!(0)));
    assert_eq!(told.pointer("/ended/variant"), Some(&json!("io")));
    let message = told.pointer("/ended/message").and_then(Value::as_str).unwrap_or_default();
    ensure!(message.contains("SELEKT"), "{told}");
    Ok(())
}

#[test]
fn rows_are_streamed() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant(GUEST)?;
    let answer = tenant.get("/rows?n=5000")?.expect(200)?.text();
    let mut lines = answer.lines();
    assert_eq!(lines.next(), Some("i hex(zeroblob(500))"));
    assert_eq!(lines.next_back(), Some("end"));
    let zeros = "0".repeat(1000);
    for number in 1..=5000 {
        ensure!(lines.next() == Some(&format!("{number} \"{zeros}\"")), "row {number} differs");
    }
    assert_eq!(lines.next(), None);
    Ok(())
}

#[test]
fn a_slow_client_of_rows_holds_no_database() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant(GUEST)?;
    tenant.sql("CREATE TABLE log(id INTEGER PRIMARY KEY, note TEXT)")?;
    let (mut connection, mut incoming) = tenant.start("/rows?n=8000")?;
    connection.next(&mut incoming)?.context("no columns")?;
    // It reads no more for now; others read and write, and the log can be copied whole.
    tenant.guest_sql("INSERT INTO log(note) VALUES ('beside')")?;
    assert_eq!(notes(&tenant)?, json!([["beside"]]));
    ensure!(String::from_utf8(connection.rest(&mut incoming)?)?.ends_with("\nend\n"));
    Ok(())
}

#[test]
fn rows_that_are_not_read_are_let_go() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant(GUEST)?;
    assert_eq!(tenant.json("/drop-rows?n=12")?, json!({ "read": 6 }));
    assert_eq!(tenant.json("/forget-rows")?, json!("forgotten"));
    Ok(())
}

#[test]
fn rows_that_wait_to_be_read_are_bounded() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant(GUEST)?;
    let told = tenant.json("/hoard-rows")?;
    let message = told.pointer("/second/message").and_then(Value::as_str).unwrap_or_default();
    ensure!(message.contains("read or drop the rows"), "{told}");
    assert_eq!(told.get("third"), Some(&json!(10_000)));
    Ok(())
}

#[test]
fn statements_that_wait_are_bounded() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant(GUEST)?;
    let told = tenant.json("/flood?n=300")?;
    let steps = told.as_array().with_context(|| told.to_string())?;
    let refused = steps.iter().filter_map(failed).collect::<Vec<_>>();
    ensure!(!refused.is_empty() && refused.len() < 200, "{} were refused", refused.len());
    ensure!(refused.iter().all(|message| message.contains("wait for some of them first")), "{refused:?}");
    Ok(())
}

#[test]
fn a_trailer_does_no_harm() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant(GUEST)?;
    let mut connection = node.connect()?;
    connection
        .send(format!("GET {} HTTP/1.1\r\nhost: x\r\nte: trailers\r\n\r\n", tenant.path("/trailer")))?;
    assert_eq!(connection.response("GET")?.expect(200)?.text(), "body");
    connection.request("GET", &tenant.path("/ok"), &[], b"")?;
    assert_eq!(connection.response("GET")?.expect(200)?.text(), "ok");
    Ok(())
}

#[test]
fn limits_after_the_head_leave_nothing_behind() -> Result<()> {
    let node = HASTY.node()?;
    let tenant = node.tenant(GUEST)?;
    for path in ["/after-spin", "/spin", "/trap", "/trap-after-head"] {
        tenant.get(path).ok();
    }
    tenant.get("/ok")?.expect(200)?;
    node.wait_for_metric("dormouse_instances", 0.0)?;
    assert_eq!(node.metric("dormouse_requests_in_flight")?.total_cmp(&0.0), Ordering::Equal);
    Ok(())
}
