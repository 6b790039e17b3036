//! The load: what was tried, and what was acknowledged when.

use std::net::SocketAddr;
use std::ops::AddAssign;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Signal, kill_process};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

use super::oracle::{Deployed, Oracle};
use crate::client::{Connection, Response};
use crate::{Builder, TestNode};

/// Writers of one tenant: one may be killed while it waits for the other.
const WRITERS_PER_TENANT: usize = 2;

/// The table that a tenant which was used has.
pub(super) const USED: &str = "used";

/// A row that was sent: its key tells its value.
pub(super) type Key = String;

/// A moment: nanoseconds of `CLOCK_MONOTONIC`.
pub(super) type Moment = u64;

/// After everything.
pub(super) const END: Moment = Moment::MAX;

/// Something that was asked for, and when it was acknowledged.
#[derive(Debug)]
pub(super) struct Attempt<T> {
    pub what: T,
    pub acknowledged: Option<Moment>,
}

impl<T> Attempt<T> {
    fn acknowledged_now(what: T) -> Self {
        Self { what, acknowledged: Some(now()) }
    }

    fn unanswered(what: T) -> Self {
        Self { what, acknowledged: None }
    }

    /// Whether it was acknowledged before a moment.
    pub(super) fn is_before(&self, moment: Moment) -> bool {
        self.acknowledged.is_some_and(|acknowledged| acknowledged < moment)
    }
}

/// What one writer sent.
#[derive(Debug, Default)]
pub(super) struct Writes {
    pub tenant: usize,
    /// Transactions that write the key into two tables.
    pub pairs: Vec<Attempt<Key>>,
    /// Single statements.
    pub singles: Vec<Attempt<Key>>,
}

/// What became of a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is there, and nobody has used its database.
    Made,
    /// Its database has been written to for the first time.
    Used,
    /// It is not there.
    Gone,
}

/// A step in the life of a tenant.
#[derive(Debug)]
pub(super) struct TenantChange {
    pub name: String,
    pub fate: Fate,
}

/// What was asked of the admin API, in order.
#[derive(Debug, Default)]
pub(super) struct Control {
    pub deploys: Vec<Attempt<Deployed>>,
    pub tenants: Vec<Attempt<TenantChange>>,
}

/// All that was tried in one life of a node.
#[derive(Debug)]
pub(super) struct Seen {
    pub writes: Vec<Writes>,
    pub control: Control,
    /// Databases that were imported, by their numbers.
    pub imports: Vec<Attempt<u32>>,
}

/// What was tried, and what became of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Writes that were acknowledged, all of them found.
    pub acknowledged: u64,
    /// Writes without an answer.
    pub unanswered: u64,
    /// Those of them that were found, whole.
    pub unanswered_found: u64,
    /// Acknowledged deploys, and tenants made, used and deleted.
    pub control: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.acknowledged += other.acknowledged;
        self.unanswered += other.unanswered;
        self.unanswered_found += other.unanswered_found;
        self.control += other.control;
    }
}

/// A node of which some handles fit into the lot and few stay there for long: sessions close and WALs are copied all the
/// time, as the files of the commit log become full. Without one of those, each commit flushes its tenant's own log.
pub(super) fn node(has_commit_log: bool) -> Builder {
    TestNode::builder()
        .flag("--park-time-max-ms", 40)
        .flag("--park-memory-bytes-max", 200_000)
        .flag("--commit-log-bytes", if has_commit_log { 2 << 20 } else { 0 })
}

fn now() -> Moment {
    let time = clock_gettime(ClockId::Monotonic);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// The node's doors: what stays of a node that is gone.
#[derive(Debug, Clone)]
struct Doors {
    public: SocketAddr,
    admin: SocketAddr,
    bearer: String,
}

impl Doors {
    fn admin(&self, method: &str, path: &str, content_type: &str, body: &[u8]) -> Result<Response> {
        let mut connection = Connection::open(self.admin)?;
        let headers = [("authorization", self.bearer.as_str()), ("content-type", content_type)];
        connection.request(method, path, &headers, body)?;
        connection.response(method)
    }
}

/// Loads the node for `load_time`, lets it rest for `rest_time` or not at all, and kills it.
pub(super) fn until_killed(
    node: &TestNode,
    oracle: &Oracle,
    round: u32,
    load_time: Duration,
    rest_time: Option<Duration>,
) -> Result<Seen> {
    let (public, admin) = (node.public_address()?, node.admin_address()?);
    let doors = &Doors { public, admin, bearer: format!("Bearer {}", node.token()?) };
    let stop = &AtomicBool::new(false);
    thread::scope(|scope| {
        let writer = |n: usize| {
            let tenant = n % oracle.tenants.len();
            let name = oracle.tenants.get(tenant).context("no such tenant");
            scope.spawn(move || write(doors, name?, tenant, &format!("{round}-{n}"), stop))
        };
        let writers: Vec<_> = (0..oracle.tenants.len() * WRITERS_PER_TENANT).map(writer).collect();
        let controller = scope.spawn(|| control(doors, oracle, round, stop));
        let mover = scope.spawn(|| move_databases(doors, oracle, stop));
        // Not a wait for a state: the moment is what is drawn.
        thread::sleep(load_time);
        if let Some(rest_time) = rest_time {
            stop.store(true, Ordering::Relaxed);
            thread::sleep(rest_time);
        }
        kill_process(node.pid()?, Signal::KILL)?;
        let writes = writers.into_iter().map(|writer| writer.join().ok().context("a writer failed")?);
        let writes = writes.collect::<Result<_>>()?;
        let control = controller.join().ok().context("the controller failed")??;
        let imports = mover.join().ok().context("the mover failed")??;
        Ok(Seen { writes, control, imports })
    })
}

/// The value that belongs to a key: mostly short, at times several pages.
pub(super) fn value_of(key: &str) -> String {
    let sum = key.bytes().fold(7_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    let length = if sum.is_multiple_of(8) { sum % 20_000 } else { sum % 200 };
    key.chars().cycle().take(length).collect()
}

fn write(doors: &Doors, tenant: &str, number: usize, tag: &str, stop: &AtomicBool) -> Result<Writes> {
    let mut writes = Writes { tenant: number, ..Writes::default() };
    let Ok(mut connection) = Connection::open(doors.public) else { return Ok(writes) };
    for n in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let key = format!("{tag}-{n}");
        let params = json!([key, value_of(&key)]);
        let insert = |table| json!({ "sql": format!("INSERT INTO {table} VALUES (?, ?)"), "params": params });
        let (attempts, statements) = if n % 2 == 0 {
            let (begin, commit) = (json!({ "sql": "BEGIN IMMEDIATE" }), json!({ "sql": "COMMIT" }));
            (&mut writes.pairs, vec![begin, insert("one"), insert("other"), commit])
        } else {
            (&mut writes.singles, vec![insert("single")])
        };
        let body = json!({ "statements": statements }).to_string();
        let answer = connection
            .request("POST", &format!("/t/{tenant}/fn/sql"), &[], body.as_bytes())
            .and_then(|()| connection.response("POST"));
        let Ok(answer) = answer else {
            attempts.push(Attempt::unanswered(key));
            break;
        };
        attempts.push(Attempt::acknowledged_now(key));
        carried_out(answer)?;
    }
    Ok(writes)
}

fn carried_out(answer: Response) -> Result<()> {
    let answer = answer.expect(200)?.json()?;
    let failed = answer.as_array().context("no answers")?.iter().find_map(|answer| answer.get("error"));
    ensure!(failed.is_none_or(Value::is_null), "a write was refused: {answer}");
    Ok(())
}

/// Deploys, makes tenants, uses and deletes them, one after the other.
fn control(doors: &Doors, oracle: &Oracle, round: u32, stop: &AtomicBool) -> Result<Control> {
    let mut control = Control::default();
    for n in 0_u64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let next = if n % 2 == 0 { Deployed::Guestbook } else { Deployed::Hello };
        let path = format!("/v1/tenants/{}/functions/fn", Oracle::DEPLOYED);
        let Ok(answer) = doors.admin("PUT", &path, "application/wasm", oracle.component(next)) else {
            control.deploys.push(Attempt::unanswered(next));
            break;
        };
        control.deploys.push(Attempt::acknowledged_now(next));
        answer.expect(200)?;

        if !live(doors, &format!("made-{round}-{n}"), n, &mut control.tenants)? {
            break;
        }
    }
    Ok(control)
}

/// The life of a tenant: it is made, then perhaps used, then perhaps deleted. Tells whether all of it was answered.
fn live(doors: &Doors, name: &str, n: u64, seen: &mut Vec<Attempt<TenantChange>>) -> Result<bool> {
    let path = format!("/v1/tenants/{name}");
    let made = json!({ "name": name }).to_string();
    let used = json!({ "sql": format!("CREATE TABLE {USED} (a)") }).to_string();
    let steps = [
        (true, Fate::Made, "POST", "/v1/tenants", made, 201),
        (!n.is_multiple_of(3), Fate::Used, "POST", &format!("{path}/sql"), used, 200),
        (n % 2 == 1, Fate::Gone, "DELETE", &path, String::new(), 204),
    ];
    for (_, fate, method, path, body, status) in steps.into_iter().filter(|(is_taken, ..)| *is_taken) {
        let change = TenantChange { name: name.to_owned(), fate };
        let Ok(answer) = doors.admin(method, path, "application/json", body.as_bytes()) else {
            seen.push(Attempt::unanswered(change));
            return Ok(false);
        };
        seen.push(Attempt::acknowledged_now(change));
        answer.expect(status)?;
    }
    Ok(true)
}

/// Imports one database after the other, and exports those that are written to.
fn move_databases(doors: &Doors, oracle: &Oracle, stop: &AtomicBool) -> Result<Vec<Attempt<u32>>> {
    let mut imports = Vec::new();
    let mut last = None;
    for tenant in oracle.tenants.iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let (number, file) = oracle.import(last);
        let path = format!("/v1/tenants/{}/database", Oracle::IMPORTED);
        let Ok(answer) = doors.admin("PUT", &path, "application/vnd.sqlite3", &file) else {
            imports.push(Attempt::unanswered(number));
            break;
        };
        imports.push(Attempt::acknowledged_now(number));
        answer.expect(200)?;
        last = Some(number);

        let path = format!("/v1/tenants/{tenant}/database");
        let Ok(answer) = doors.admin("GET", &path, "application/json", b"") else { break };
        answer.expect(200)?;
    }
    Ok(imports)
}
