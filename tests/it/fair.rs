//! Fair share: what one tenant does, or its clients, leaves the others their part.

use anyhow::{Context, Result, ensure};
use dormouse_tests::client::{Connection, Response};
use dormouse_tests::{Tenant, TestNode, eventually, problem_of};
use serde_json::json;

/// A node on which one request runs at a time and the others wait long.
fn one_at_a_time() -> Result<TestNode> {
    TestNode::builder().flag("--concurrency-max", 1).flag("--turn-wait-max-ms", 60_000).start()
}

/// A request that holds its turn until its body has been sent.
fn hold_turn(tenant: &Tenant<'_>) -> Result<Connection> {
    let mut connection = tenant.node.connect()?;
    connection.chunked_request("POST", &tenant.path("/echo"), &[])?;
    tenant.node.wait_for_metric("dormouse_requests_in_flight", 1.0)?;
    Ok(connection)
}

/// A request that says its name in the log when it has its turn. It is in line when this returns.
fn wait_in_line(tenant: &Tenant<'_>, name: &str, place: u32) -> Result<Connection> {
    let connection = tenant.send(&format!("/log?line={name}"))?;
    tenant.node.wait_for_metric("dormouse_requests_waiting", f64::from(place))?;
    Ok(connection)
}

#[test]
fn turns_go_round_the_tenants_that_wait() -> Result<()> {
    let node = one_at_a_time()?;
    let (loud, quiet) = (node.tenant("misbehave")?, node.tenant("misbehave")?);
    let mut held = hold_turn(&loud)?;
    let mut waiting = vec![
        wait_in_line(&loud, "loud-1", 1)?,
        wait_in_line(&loud, "loud-2", 2)?,
        wait_in_line(&loud, "loud-3", 3)?,
        wait_in_line(&quiet, "quiet-1", 4)?,
    ];
    held.finish_sending()?;
    held.response("POST")?.expect(200)?;
    for connection in &mut waiting {
        connection.response("GET")?.expect(200)?;
    }
    // Each guest says it on both of its outputs.
    let lines = eventually("all have spoken", || {
        let lines = node.logs().matching(|line| line.is_of_guest());
        Ok((lines.len() == 2 * waiting.len()).then_some(lines))
    })?;
    let mut served: Vec<_> = lines.iter().map(|line| line.message().to_owned()).collect();
    served.dedup();
    assert_eq!(served, ["loud-1", "quiet-1", "loud-2", "loud-3"]);
    node.wait_for_metric("dormouse_tenants_counted", 0.0)
}

#[test]
fn a_client_that_gives_up_in_line_leaves_nothing_behind() -> Result<()> {
    let node = one_at_a_time()?;
    let (loud, quiet) = (node.tenant("misbehave")?, node.tenant("misbehave")?);
    let mut held = hold_turn(&loud)?;
    let waiting = [wait_in_line(&loud, "loud", 1)?, wait_in_line(&quiet, "quiet", 2)?];
    node.wait_for_metric("dormouse_tenants_counted", 2.0)?;
    drop(waiting);
    node.wait_for_metric("dormouse_requests_waiting", 0.0)?;
    node.wait_for_metric("dormouse_tenants_counted", 1.0)?;
    held.finish_sending()?;
    held.response("POST")?.expect(200)?;
    node.wait_for_metric("dormouse_tenants_counted", 0.0)?;
    ensure!(node.logs().matching(|line| line.is_of_guest()).is_empty(), "a request without a client ran");
    Ok(())
}

#[test]
fn a_full_line_is_its_tenants_own() -> Result<()> {
    let node = one_at_a_time()?;
    let (loud, quiet) = (node.tenant("misbehave")?, node.tenant("misbehave")?);
    let mut held = hold_turn(&loud)?;
    let mut waiting = Vec::new();
    for place in 1..=4 {
        waiting.push(wait_in_line(&loud, "loud", place)?);
    }
    let refused = loud.get("/ok")?;
    assert_eq!(problem_of(&refused)?, "tenant-busy");
    waiting.push(wait_in_line(&quiet, "quiet", 5)?);
    held.finish_sending()?;
    for connection in &mut waiting {
        connection.response("GET")?.expect(200)?;
    }
    Ok(())
}

/// The number of a parameter of a structured field.
fn parameter(response: &Response, field: &str, name: &str) -> Result<u64> {
    let value = response.header(field).with_context(|| format!("no {field}"))?;
    let (policy, parameters) = value.split_once(';').with_context(|| format!("no parameters in {value}"))?;
    assert_eq!(policy, "\"tenant\"");
    let found = parameters.split(';').find_map(|one| one.strip_prefix(name)?.strip_prefix('='));
    Ok(found.with_context(|| format!("no {name} in {value}"))?.parse()?)
}

#[test]
fn a_tenant_over_its_rate_is_told_when_to_come_back() -> Result<()> {
    let node = TestNode::builder()
        .flag("--tenant-requests-per-second-max", 2)
        .flag("--tenant-requests-burst-max", 3)
        .start()?;
    let (loud, quiet) = (node.tenant("misbehave")?, node.tenant("misbehave")?);
    let refused = eventually("the tenant is over its rate", || {
        let response = loud.get("/ok")?;
        Ok((response.status != 200).then_some(response))
    })?;
    assert_eq!(refused.status, 429);
    assert_eq!(problem_of(&refused)?, "rate-limited");
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(parameter(&refused, "ratelimit-policy", "q")?, 3);
    assert_eq!(parameter(&refused, "ratelimit-policy", "w")?, 2);
    assert_eq!(parameter(&refused, "ratelimit", "r")?, 0);
    assert_eq!(parameter(&refused, "ratelimit", "t")?, 1);
    quiet.get("/ok")?.expect(200)?;
    ensure!(node.metric("dormouse_requests_total{outcome=\"rate-limited\"}")? >= 1.0);
    // A bucket that has filled up is no state.
    node.wait_for_metric("dormouse_tenants_counted", 0.0)?;
    loud.get("/ok")?.expect(200)?;
    Ok(())
}

#[test]
fn without_a_rate_a_tenant_that_rests_has_no_entry() -> Result<()> {
    let node = TestNode::start()?;
    let tenant = node.tenant("misbehave")?;
    for _ in 0..50 {
        tenant.get("/ok")?.expect(200)?;
    }
    assert_eq!(node.metric("dormouse_tenants_counted")?.total_cmp(&0.0), std::cmp::Ordering::Equal);
    Ok(())
}

/// Runs until its time is over.
const BOMB: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";

/// Sends a statement through a guest and reads nothing.
fn send_sql(tenant: &Tenant<'_>, sql: &str) -> Result<Connection> {
    let mut connection = tenant.node.connect()?;
    let body = json!({ "sql": sql }).to_string();
    connection.request("POST", &tenant.path("/sql"), &[], body.as_bytes())?;
    Ok(connection)
}

#[test]
fn slow_statements_keep_no_thread_from_a_quick_one() -> Result<()> {
    const ATTACKERS: usize = 3;
    const SESSIONS: usize = 4;
    let node = TestNode::builder()
        .flag("--database-threads", 2)
        .flag("--sessions-per-tenant", SESSIONS)
        .flag("--statement-time-max-ms", 120_000)
        .flag("--wall-time-max-ms", 120_000)
        .start()?;
    let quiet = node.tenant("misbehave")?;
    let attackers: Vec<_> = (0..ATTACKERS).map(|_| node.tenant("misbehave")).collect::<Result<_>>()?;
    let mut bombs = Vec::new();
    for attacker in &attackers {
        for _ in 0..SESSIONS {
            bombs.push(send_sql(attacker, BOMB)?);
        }
    }
    let all = (ATTACKERS * SESSIONS) as f64;
    // Far more than there are threads for quick ones.
    node.wait_for_metric("dormouse_database_commands_running", all)?;
    let answer =
        quiet.guest_statements(&["CREATE TABLE t(x)", "INSERT INTO t VALUES (1)", "SELECT x FROM t"])?;
    assert_eq!(answer.last().and_then(|last| last.pointer("/rows/0/0")), Some(&json!(1)), "{answer:?}");
    ensure!(
        node.metric("dormouse_database_commands_running")? >= all,
        "the bombs did not outlast the answer"
    );
    drop(bombs);
    node.wait_for_metric("dormouse_database_commands_running", 0.0)?;
    // The threads that the bombs had are gone, and those in their place are as many as before.
    eventually("the threads of slow statements end", || Ok((database_threads(&node)? == 2).then_some(())))
}

#[test]
fn a_slow_statement_gets_on_beside_guests_that_compute() -> Result<()> {
    const LOOPS: u32 = 16;
    let node =
        TestNode::builder().flag("--cpu-time-max-ms", 120_000).flag("--wall-time-max-ms", 12_000).start()?;
    let (loud, quiet) = (node.tenant("misbehave")?, node.tenant("misbehave")?);
    let loops = computing(&loud, LOOPS)?;
    node.wait_for_metric("dormouse_instances", LOOPS.into())?;
    // Far more than a quick statement computes.
    let answer = quiet.guest_statements(&[
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 500000) SELECT count(*) FROM n",
    ])?;
    assert_eq!(answer.last().and_then(|last| last.pointer("/rows/0/0")), Some(&json!(500_000)), "{answer:?}");
    ensure!(node.metric("dormouse_instances")? >= LOOPS.into(), "the loops did not outlast the statement");
    drop(loops);
    node.wait_for_metric("dormouse_instances", 0.0)
}

/// Threads of the node that run SQL.
fn database_threads(node: &TestNode) -> Result<usize> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", node.pid()?.as_raw_nonzero()))?;
    // One may end while we look.
    let names = tasks.flatten().filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    let number = |name: String| name.trim().strip_prefix("database-")?.parse::<u32>().ok();
    Ok(names.filter_map(number).count())
}

/// Guests of one tenant that compute until they are ended.
fn computing<'a>(tenant: &'a Tenant<'a>, number: u32) -> Result<Vec<Connection>> {
    (0..number).map(|_| tenant.send("/spin")).collect()
}

in_both_worlds!(a_request_is_answered_beside_guests_that_compute, computing_guests_take_turns_by_tenant);

fn a_request_is_answered_beside_guests_that_compute(guest: &str) -> Result<()> {
    const LOOPS: u32 = 64;
    let node = TestNode::builder()
        .flag("--concurrency-max", 2 * LOOPS)
        .flag("--tenant-concurrency-max", LOOPS)
        .flag("--client-requests-max", 2 * LOOPS)
        .flag("--cpu-time-max-ms", 120_000)
        .flag("--wall-time-max-ms", 120_000)
        .start()?;
    let (loud, quiet) = (node.tenant(guest)?, node.tenant("guestbook")?);
    let loops = computing(&loud, LOOPS)?;
    node.wait_for_metric("dormouse_instances", LOOPS.into())?;
    for n in 0..20 {
        quiet.post("", &json!({ "name": n.to_string(), "message": "beside loops" }))?.expect(201)?;
    }
    assert_eq!(problem_of(&send_and_read(&loud)?)?, "tenant-busy");
    ensure!(node.metric("dormouse_instances")? >= LOOPS.into(), "the loops did not outlast the answers");
    drop(loops);
    node.wait_for_metric("dormouse_instances", 0.0)?;
    node.wait_for_metric("dormouse_guests_in_line", 0.0)
}

fn send_and_read(tenant: &Tenant<'_>) -> Result<Response> {
    tenant.send("/spin")?.response("GET")
}

fn computing_guests_take_turns_by_tenant(guest: &str) -> Result<()> {
    const LOOPS: u32 = 64;
    let node = TestNode::builder()
        .flag("--concurrency-max", 2 * LOOPS)
        .flag("--tenant-concurrency-max", LOOPS)
        .flag("--client-requests-max", 2 * LOOPS)
        .flag("--cpu-time-max-ms", 500)
        .flag("--wall-time-max-ms", 120_000)
        .start()?;
    let (loud, quiet) = (node.tenant(guest)?, node.tenant(guest)?);
    let loops = computing(&loud, LOOPS)?;
    node.wait_for_metric("dormouse_requests_in_flight", LOOPS.into())?;
    // It needs as much CPU time as each of them, and has it when they have had as much all together.
    assert_eq!(problem_of(&send_and_read(&quiet)?)?, "cpu-time-limit");
    let left = node.metric("dormouse_requests_in_flight")?;
    ensure!(left > f64::from(LOOPS / 2), "only {left} of {LOOPS} loops were still running");
    drop(loops);
    node.wait_for_metric("dormouse_requests_in_flight", 0.0)
}
