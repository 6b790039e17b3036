//! Database processes: one that crashes or does not come back is replaced. Nothing that was acknowledged is lost, and
//! whoever has nothing to do with it goes on.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context, Result, ensure};
use dormouse_tests::faults::{Call, Faults};
use dormouse_tests::{Builder, Stop, Tenant, TestNode, eventually};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// What the node logs when one of its processes has ended.
const ENDED: &str = "a database process has ended";

/// What it logs when that was for a statement that did not come back.
const SUSPENDED: &str = "its tenant's database is suspended";

/// A node whose sessions stay where they are while a test looks.
fn node() -> Builder {
    node_that_parks_for(60_000)
}

fn node_that_parks_for(milliseconds: u32) -> Builder {
    TestNode::builder().flag("--database-processes", 2).flag("--park-time-max-ms", milliseconds)
}

/// The field of a line of proc_pid_status(5).
fn status(pid: i32, field: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    Some(line.trim().to_owned())
}

/// The database processes of a node.
fn processes(node: &TestNode) -> Result<BTreeSet<i32>> {
    let parent = node.pid()?.as_raw_nonzero().to_string();
    let pids = fs::read_dir("/proc")?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    Ok(pids.filter(|pid| status(*pid, "PPid").is_some_and(|found| found == parent)).collect())
}

/// The process that has a tenant's database open.
fn home(tenant: &Tenant<'_>) -> Result<i32> {
    let id = tenant.id()?;
    let has_open = |pid: &i32| {
        let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        files
            .filter_map(|file| fs::read_link(file.path()).ok())
            .any(|path| path.to_string_lossy().contains(&id))
    };
    processes(tenant.node)?.into_iter().find(has_open).with_context(|| format!("{} is nowhere", tenant.name))
}

fn signal(pid: i32, signal: Signal) -> Result<()> {
    Ok(kill_process(Pid::from_raw(pid).context("no process")?, signal)?)
}

/// Whether nothing is left of a process, or only that nobody has asked how it ended.
fn is_gone(pid: i32) -> bool {
    status(pid, "State").is_none_or(|state| state.starts_with('Z'))
}

/// Lets a process crash. Rust's handler takes the first signal for the end of a stack, and waits for it to come again.
fn crash(pid: i32) -> Result<()> {
    eventually("it crashes", || {
        if is_gone(pid) {
            return Ok(Some(()));
        }
        signal(pid, Signal::SEGV).map(|()| None)
    })
}

/// Tenants with a table, and a session that is parked. Both processes have some.
fn tenants(node: &TestNode, number: usize) -> Result<Vec<Tenant<'_>>> {
    let mut tenants = Vec::new();
    let mut homes = BTreeSet::new();
    while tenants.len() < number || homes.len() < 2 {
        let tenant = node.tenant("misbehave")?;
        written(&tenant.guest_sql("CREATE TABLE kept (id TEXT PRIMARY KEY)")?)?;
        homes.insert(home(&tenant)?);
        tenants.push(tenant);
    }
    Ok(tenants)
}

fn written(answer: &Value) -> Result<()> {
    ensure!(answer.get("error").is_none_or(Value::is_null), "refused: {answer}");
    Ok(())
}

fn insert(tenant: &Tenant<'_>, key: &str) -> Result<()> {
    written(&tenant.guest_sql(&format!("INSERT INTO kept VALUES ('{key}')"))?)
}

/// What one tenant's writer has seen.
#[derive(Default)]
struct Writer {
    acknowledged: AtomicUsize,
    keys: Mutex<Vec<String>>,
    errors: Mutex<Vec<String>>,
}

impl Writer {
    fn write(&self, tenant: &Tenant<'_>, stop: &AtomicBool) {
        for n in 0.. {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            match insert(tenant, &format!("key-{n}")) {
                Ok(()) => {
                    self.keys.lock().unwrap_or_else(|error| error.into_inner()).push(format!("key-{n}"));
                    self.acknowledged.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => {
                    self.errors.lock().unwrap_or_else(|error| error.into_inner()).push(format!("{error:#}"));
                }
            }
        }
    }

    /// Waits until this many more writes are acknowledged.
    fn goes_on(&self, more: usize) -> Result<()> {
        let wanted = self.acknowledged.load(Ordering::Relaxed) + more;
        eventually("writes are acknowledged", || {
            Ok((self.acknowledged.load(Ordering::Relaxed) >= wanted).then_some(()))
        })
    }

    fn errors(&self) -> Vec<String> {
        self.errors.lock().map(|errors| errors.clone()).unwrap_or_default()
    }

    fn keys(&self) -> Vec<String> {
        self.keys.lock().map(|keys| keys.clone()).unwrap_or_default()
    }
}

/// Runs a writer for each tenant while `work` is done.
fn under_load<'a>(tenants: &[Tenant<'a>], work: impl FnOnce(&[Writer]) -> Result<()>) -> Result<Vec<Writer>> {
    let writers: Vec<Writer> = tenants.iter().map(|_| Writer::default()).collect();
    let stop = AtomicBool::new(false);
    let done = thread::scope(|scope| {
        for (tenant, writer) in tenants.iter().zip(&writers) {
            scope.spawn(|| writer.write(tenant, &stop));
        }
        let done = writers.iter().try_for_each(|writer| writer.goes_on(5)).and_then(|()| work(&writers));
        stop.store(true, Ordering::Relaxed);
        done
    });
    done.map(|()| writers)
}

fn everything_is_there(tenants: &[Tenant<'_>], writers: &[Writer]) -> Result<()> {
    for (tenant, writer) in tenants.iter().zip(writers) {
        let rows = tenant.sql("SELECT id FROM kept")?;
        let rows = rows.as_array().context("no rows")?;
        let found: BTreeSet<&str> = rows.iter().filter_map(|row| row.pointer("/0")?.as_str()).collect();
        for key in writer.keys() {
            ensure!(found.contains(key.as_str()), "{} has lost {key}", tenant.name);
        }
    }
    Ok(())
}

#[test]
fn a_process_that_crashes_under_load_loses_nothing_and_disturbs_nobody_else() -> Result<()> {
    let mut node = node().start()?;
    node.expect_log(ENDED);
    let (tenants, writers) = {
        let tenants = tenants(&node, 6)?;
        let homes: Vec<i32> = tenants.iter().map(home).collect::<Result<_>>()?;
        let victim = *homes.first().context("no tenant")?;
        let writers = under_load(&tenants, |writers| {
            crash(victim)?;
            node.wait_for_metric("dormouse_database_process_deaths", 1.0)?;
            writers.iter().try_for_each(|writer| writer.goes_on(5))
        })?;
        everything_is_there(&tenants, &writers)?;
        for ((tenant, writer), home) in tenants.iter().zip(&writers).zip(&homes) {
            let errors = writer.errors();
            ensure!(*home == victim || errors.is_empty(), "{} met {errors:?}", tenant.name);
            let is_told = |error: &String| error.contains("has ended");
            ensure!(errors.iter().all(is_told), "{} was told {errors:?}", tenant.name);
        }
        let line = node.logs().wait_for("the end", |line| line.message().starts_with(ENDED))?;
        ensure!(line.get("ended") == Some("signal 11"), "{line}");
        ensure!(processes(&node)?.len() == 2 && !processes(&node)?.contains(&victim));
        let names: Vec<String> = tenants.iter().map(|tenant| tenant.name.clone()).collect();
        (names, writers)
    };
    node.restart(Stop::Kill)?;
    let tenants: Vec<Tenant<'_>> = tenants.into_iter().map(|name| node.tenant_named(name)).collect();
    everything_is_there(&tenants, &writers)
}

#[test]
fn a_parked_session_whose_process_has_ended_is_no_error() -> Result<()> {
    let node = node_that_parks_for(2_000).start()?;
    node.expect_log(ENDED);
    let tenant = node.tenant("misbehave")?;
    written(&tenant.guest_sql("CREATE TABLE kept (id TEXT PRIMARY KEY)")?)?;
    for n in 1..=3 {
        signal(home(&tenant)?, Signal::KILL)?;
        node.wait_for_metric("dormouse_database_process_deaths", f64::from(n))?;
        insert(&tenant, &format!("key-{n}"))?;
    }
    assert_eq!(tenant.number("SELECT count(*) FROM kept")?, 3);
    // Nobody comes by any more who was parked: the log is copied all the same.
    signal(home(&tenant)?, Signal::KILL)?;
    let shown = tenant.wait_for_state("closed")?;
    assert_eq!(shown.pointer("/database/wal_bytes"), Some(&json!(0)));
    Ok(())
}

#[test]
fn a_process_that_does_not_come_back_is_killed_and_its_tenant_suspended() -> Result<()> {
    let node = node().flag("--statement-time-max-ms", 300).flag("--statement-grace-ms", 300).start()?;
    node.expect_log(ENDED);
    node.expect_log(SUSPENDED);
    let tenants = tenants(&node, 4)?;
    let (victim, others) = tenants.split_first().context("no tenants")?;
    let stopped = home(victim)?;
    let elsewhere: Vec<&Tenant<'_>> =
        others.iter().filter(|tenant| home(tenant).is_ok_and(|home| home != stopped)).collect();
    signal(stopped, Signal::STOP)?;
    thread::scope(|scope| -> Result<()> {
        let stuck = scope.spawn(|| victim.guest_sql("INSERT INTO kept VALUES ('unknown')"));
        for tenant in &elsewhere {
            insert(tenant, "meanwhile")?;
        }
        let answer = stuck.join().ok().context("the request panicked")??;
        ensure!(answer.to_string().contains("did not end at its time limit"), "{answer}");
        Ok(())
    })?;
    node.wait_for_metric("dormouse_database_process_deaths", 1.0)?;
    let line = node.logs().wait_for("the end", |line| line.message().starts_with(ENDED))?;
    ensure!(line.get("stuck_tenants") == Some(victim.id()?.as_str()), "{line}");
    let shown = victim.shown()?;
    assert_eq!(shown.pointer("/database/state"), Some(&json!("suspended")));
    node.wait_for_metric("dormouse_databases_suspended", 1.0)?;
    let refused = victim.guest_sql("SELECT 1")?;
    ensure!(refused.to_string().contains("suspended"), "{refused}");
    let refused = victim.try_sql("SELECT 1", &json!([]))?;
    assert_eq!(dormouse_tests::problem_of(&refused)?, "database-suspended");
    for tenant in others {
        insert(tenant, "afterwards")?;
    }
    eventually("the tenant is back", || Ok(insert(victim, "back").ok()))?;
    // It was not acknowledged, and may be there or not; what is there is whole.
    assert_eq!(victim.sql("PRAGMA integrity_check")?, json!([["ok"]]));
    Ok(())
}

/// Without processes: a flush hangs, and with it the only thread there is.
#[test]
fn a_thread_that_does_not_come_back_is_replaced_and_its_tenant_suspended() -> Result<()> {
    let faults = Faults::new()?;
    let node = faults
        .node()
        .flag("--database-processes", 0)
        .flag("--database-threads", 1)
        .flag("--commit-log-bytes", 0)
        .flag("--statement-time-max-ms", 300)
        .flag("--statement-grace-ms", 300)
        .start()?;
    node.expect_log(SUSPENDED);
    let made = |()| -> Result<Tenant<'_>> {
        let tenant = node.tenant("misbehave")?;
        written(&tenant.guest_sql("CREATE TABLE kept (id TEXT PRIMARY KEY)")?)?;
        Ok(tenant)
    };
    let (other, one, two) = (made(())?, made(())?, made(())?);
    for tenant in [&one, &two] {
        faults.hang(Call::Sync, &tenant.id()?, "-wal")?;
        let answer = tenant.guest_sql("INSERT INTO kept VALUES ('unknown')")?;
        ensure!(answer.to_string().contains("did not end at its time limit"), "{answer}");
        insert(&other, &format!("while {} hangs", tenant.name))?;
        assert_eq!(tenant.shown()?.pointer("/database/state"), Some(&json!("suspended")));
        faults.end()?;
    }
    for tenant in [&one, &two] {
        eventually("the tenant is back", || Ok(insert(tenant, "back").ok()))?;
        assert_eq!(tenant.sql("PRAGMA integrity_check")?, json!([["ok"]]));
    }
    insert(&other, "afterwards")
}

#[test]
fn an_operator_ends_a_suspension() -> Result<()> {
    let node = node().flag("--statement-time-max-ms", 300).flag("--statement-grace-ms", 300).start()?;
    node.expect_log(ENDED);
    node.expect_log(SUSPENDED);
    let tenants = tenants(&node, 1)?;
    let tenant = tenants.first().context("no tenant")?;
    signal(home(tenant)?, Signal::STOP)?;
    ensure!(insert(tenant, "unknown").is_err());
    let path = format!("/v1/tenants/{}/recover", tenant.name);
    let answer = node.admin("POST", &path, b"")?.expect(200)?.json()?;
    assert_eq!(answer.get("recovered"), Some(&json!(true)));
    assert_eq!(answer.pointer("/suspension/seconds"), Some(&json!(5)));
    insert(tenant, "known")
}

#[test]
fn processes_end_with_a_node_that_is_killed() -> Result<()> {
    let mut node = node().start()?;
    let (names, writers, old) = {
        let tenants = tenants(&node, 4)?;
        let writers =
            under_load(&tenants, |writers| writers.iter().try_for_each(|writer| writer.goes_on(5)))?;
        let names: Vec<String> = tenants.iter().map(|tenant| tenant.name.clone()).collect();
        (names, writers, processes(&node)?)
    };
    assert_eq!(old.len(), 2);
    node.restart(Stop::Kill)?;
    // The lock of the folder was free, so they were gone before.
    ensure!(old.iter().all(|pid| is_gone(*pid)), "{old:?} are left");
    let tenants: Vec<Tenant<'_>> = names.into_iter().map(|name| node.tenant_named(name)).collect();
    everything_is_there(&tenants, &writers)
}

#[test]
fn a_drain_closes_what_processes_have_open() -> Result<()> {
    let mut node = node().start()?;
    let (paths, old) = {
        let tenants = tenants(&node, 4)?;
        tenants.iter().try_for_each(|tenant| insert(tenant, "kept"))?;
        let ids = tenants.iter().map(Tenant::id).collect::<Result<Vec<_>>>()?;
        (ids, processes(&node)?)
    };
    let status = node.stop(Stop::Terminate)?;
    ensure!(status.success(), "{status}");
    ensure!(old.iter().all(|pid| is_gone(*pid)), "{old:?} are left");
    for id in paths {
        let folder = node.data().join("tenants").join(id.get(..2).unwrap_or_default()).join(&id);
        let environment = fs::read_dir(folder)?.flatten().next().context("no environment")?.path();
        assert_eq!(fs::metadata(environment.join("1.db-wal"))?.len(), 0);
    }
    Ok(())
}

#[test]
fn a_process_takes_little_with_it() -> Result<()> {
    // In the sandbox of a node that runs as root, as tests may, none can say how soon it is to end.
    let node = node().flag("--process-sandbox", "off").start()?;
    let own = fs::read_to_string(format!("/proc/{}/oom_score_adj", node.pid()?.as_raw_nonzero()))?;
    let processes = processes(&node)?;
    assert_eq!(processes.len(), 2);
    for pid in processes {
        // The kernel ends it sooner than its node.
        let score = fs::read_to_string(format!("/proc/{pid}/oom_score_adj"))?;
        ensure!(score.trim().parse::<i32>()? > own.trim().parse::<i32>()?, "{score}");
        let listens = fs::read_dir(format!("/proc/{pid}/fd"))?.flatten();
        let names: Vec<String> = listens
            .filter_map(|file| Some(fs::read_link(file.path()).ok()?.display().to_string()))
            .filter(|name| name.contains("control.db") || name.contains("keys"))
            .collect();
        ensure!(names.is_empty(), "it has {names:?} open");
    }
    Ok(())
}
