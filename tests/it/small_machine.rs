//! A machine with 256 MB under more load than it can carry: it refuses what is too much, and does not die.
//!
//! The machine is a control group, which root can make; elsewhere the test says that it was skipped.

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use dormouse_tests::client::{Connection, Response};
use dormouse_tests::group::MemoryGroup;
use dormouse_tests::{TestNode, eventually, guest, problem_of};
use serde_json::{Value, json};

const MACHINE_BYTES: u64 = 256_000_000;
const TENANTS: usize = 1_000;
const WRITERS: usize = 64;
const WRITES: usize = 150;
const EATERS: usize = 8;
const EATEN: usize = 60;
const UPLOADERS: usize = 4;
const UPLOADS: usize = 30;

fn name_of(tenant: usize) -> String {
    format!("small-{tenant:04}")
}

/// What was answered, how often: a status and the problem that goes with it.
#[derive(Default)]
struct Answers {
    by_kind: std::sync::Mutex<BTreeMap<String, u64>>,
    acknowledged: Vec<AtomicU64>,
}

impl Answers {
    fn new() -> Self {
        Self { acknowledged: (0..TENANTS).map(|_| AtomicU64::new(0)).collect(), ..Self::default() }
    }

    /// Notes an answer. Anything but a success and a refusal for want of room is an error.
    fn note(&self, what: &str, answer: &Response) -> Result<bool> {
        let is_success = answer.status < 300;
        let kind = if is_success { "answered".to_owned() } else { problem_of(answer)? };
        let is_refusal =
            answer.status == 503 && ["node-memory", "node-busy", "tenant-busy"].contains(&&*kind);
        ensure!(is_success || is_refusal, "{what}: {}: {}", answer.status, answer.text());
        let mut by_kind = self.by_kind.lock().ok().context("a thread failed")?;
        *by_kind.entry(format!("{what}: {kind}")).or_default() += 1;
        Ok(is_success)
    }
}

fn post(node: &TestNode, connection: &mut Connection, path: &str, body: &Value) -> Result<Response> {
    let sent = connection.request("POST", path, &[], body.to_string().as_bytes());
    match sent.and_then(|()| connection.response("POST")) {
        Ok(answer) => Ok(answer),
        // A connection that was idle for too long, or was closed after a refusal: once more on a new one.
        Err(_) => {
            *connection = node.connect()?;
            connection.request("POST", path, &[], body.to_string().as_bytes())?;
            connection.response("POST")
        }
    }
}

fn write(node: &TestNode, answers: &Answers, writer: usize) -> Result<()> {
    let mut random = fastrand::Rng::with_seed(writer as u64);
    let mut connection = node.connect()?;
    for write in 0..WRITES {
        let tenant = random.usize(..TENANTS);
        let body = json!({ "statements": [
            { "sql": "CREATE TABLE IF NOT EXISTS entries(id INTEGER PRIMARY KEY, note TEXT)" },
            { "sql": "INSERT INTO entries(note) VALUES (?)", "params": [format!("{writer}/{write}")] },
        ] });
        let path = format!("/t/{}/fn/sql", name_of(tenant));
        let answer = post(node, &mut connection, &path, &body)?;
        if !answers.note("write", &answer)? {
            continue;
        }
        let told = answer.json()?;
        if told.to_string().contains("suspended") {
            continue;
        }
        ensure!(told.pointer("/1/error").is_none(), "a write failed: {told}");
        answers.acknowledged.get(tenant).context("no such tenant")?.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// Guests that take 30 MB each, and statements that sort 30 MB.
fn eat(node: &TestNode, answers: &Answers, eater: usize) -> Result<()> {
    let sorting = "WITH RECURSIVE n(x, y) AS (SELECT 1, randomblob(500000) UNION ALL SELECT x + 1, randomblob(500000) \
                   FROM n WHERE x < 60) SELECT count(*) FROM (SELECT x FROM n ORDER BY y)";
    for number in 0..EATEN {
        let path = format!("/t/{}/fn", name_of(eater * EATEN + number));
        let answer = if number % 3 == 0 {
            let body = json!({ "sql": sorting }).to_string();
            node.request("POST", &format!("{path}/sql"), &[], body.as_bytes())?
        } else {
            node.request("GET", &format!("{path}/take?bytes=30000000&ms=50"), &[], b"")?
        };
        answers.note("eater", &answer)?;
    }
    Ok(())
}

/// Bodies of 8 MB, which the guest reads whole.
fn send_much(node: &TestNode, answers: &Answers, uploader: usize) -> Result<()> {
    let body = json!({ "sql": "SELECT 1", "unused": "x".repeat(8_000_000) }).to_string();
    for number in 0..UPLOADS {
        let path = format!("/t/{}/fn/sql", name_of(uploader * UPLOADS + number));
        // A refusal may come before the body has been sent, and cut the connection.
        match node.request("POST", &path, &[], body.as_bytes()) {
            Ok(answer) => answers.note("body", &answer)?,
            Err(_) => false,
        };
    }
    Ok(())
}

fn deploy(node: &TestNode, answers: &Answers) -> Result<()> {
    for name in ["hello", "guestbook", "hello3", "guestbook3", "webhook-inbox", "hello", "guestbook"] {
        let answer = node.upload("deployed", "fn", &fs::read(guest(name)?)?)?;
        answers.note("deploy", &answer)?;
    }
    Ok(())
}

#[test]
fn a_machine_with_256_mb_refuses_and_does_not_die() -> Result<()> {
    let Some(group) = MemoryGroup::of(MACHINE_BYTES)? else {
        println!("skipped: a test in a control group of 256 MB needs root and a memory controller");
        return Ok(());
    };
    let node = TestNode::builder()
        .flag("--memory", "256MB")
        // All clients have one address here.
        .flag("--client-connections-max", 4_096)
        .flag("--client-requests-max", 4_096)
        .in_group(&group)
        .start()?;
    node.expect_log("memory is nearly used up");
    // Where the kernel reclaims memory slowly, a statement that sorts can stand still for longer than it may run.
    node.expect_log("a statement did not end at its time limit and was given up");
    let component = fs::read(guest("misbehave")?)?;
    node.create_tenant("deployed")?;
    for tenant in 0..TENANTS {
        node.create_tenant(&name_of(tenant))?;
        node.upload(&name_of(tenant), "fn", &component)?.expect(200)?;
    }
    let answers = &Answers::new();
    let node = &node;
    thread::scope(|scope| {
        let mut threads = Vec::new();
        threads.extend((0..WRITERS).map(|n| scope.spawn(move || write(node, answers, n))));
        threads.extend((0..EATERS).map(|n| scope.spawn(move || eat(node, answers, n))));
        threads.extend((0..UPLOADERS).map(|n| scope.spawn(move || send_much(node, answers, n))));
        threads.push(scope.spawn(move || deploy(node, answers)));
        threads.into_iter().try_for_each(|thread| match thread.join() {
            Ok(result) => result,
            Err(_) => bail!("a thread failed"),
        })
    })
    .with_context(|| format!("{} kills, {:?} bytes at most", group.kills().unwrap_or(0), group.peak()))?;
    let by_kind = answers.by_kind.lock().ok().context("a thread failed")?;
    println!("{by_kind:#?}, {:?} bytes at most", group.peak());
    assert_eq!(group.kills()?, 0, "the kernel has killed a process");
    let count = |kind: &str| by_kind.get(kind).copied().unwrap_or(0);
    ensure!(count("write: answered") > 0 && count("eater: answered") > 0, "nothing was done: {by_kind:?}");
    assert_eq!(node.request("GET", &format!("/t/{}/fn/ok", name_of(0)), &[], b"")?.expect(200)?.text(), "ok");
    for (tenant, acknowledged) in answers.acknowledged.iter().enumerate() {
        let acknowledged = acknowledged.load(Ordering::Relaxed);
        if acknowledged == 0 {
            continue;
        }
        let path = format!("/v1/tenants/{}/sql", name_of(tenant));
        let body = json!({ "sql": "SELECT count(*) FROM entries" }).to_string();
        let rows = eventually("a suspension ends", || {
            let answer = node.admin("POST", &path, body.as_bytes())?;
            Ok((!answer.text().contains("suspended")).then_some(answer))
        })?;
        let rows = rows.expect(200)?.json()?;
        let found = rows.pointer("/rows/0/0").and_then(Value::as_u64).context("no count")?;
        ensure!(found >= acknowledged, "{}: {found} rows of {acknowledged}", name_of(tenant));
    }
    Ok(())
}
