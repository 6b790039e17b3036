//! `-- --neighbours`: what a quiet tenant feels of a tenant that attacks the node.
//!
//! The quiet tenant is called at a steady rate, whatever becomes of its requests (an open loop), alone and beside each
//! attacker in turn. All load is made in this process, on the node's own cores.

use std::{
    fmt::Write as _,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use dormouse::{limits::HEAVY_GUEST_SLICE, thread::lower_priority};
use hyper::{Method, body::Bytes};
use rustix::thread::gettid;
use tokio::{io::AsyncWriteExt as _, net::TcpStream, task::JoinSet};

use crate::{
    client::Client,
    load::DOCUMENT,
    options::Options,
    process::Process,
    programs,
    recipe::{Listening, Parking, Recipe, World},
    report, seed,
};

/// Requests of the quiet tenant each second.
const RATE: u32 = 50;
/// Connections that they come over, so that a late answer holds up no other request.
const QUIET_CONNECTIONS: u32 = 32;
/// Requests of an attacker at the same time: all that a tenant may have.
const ATTACKS: u32 = 64;
/// Uploads of an attacker at the same time: far more than it may have.
const UPLOADS: u32 = 300;
/// How long an attacker is at work before anything is measured.
const RUN_UP: Duration = Duration::from_secs(2);

const QUIET: &str = "quiet";
const BOMB: &str =
    r#"{"sql":"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"}"#;

/// Who is beside the quiet tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Neighbour {
    Nobody,
    /// No tenant: a busy thread for each core that never calls the kernel, at the priority of guests that compute.
    Threads,
    Loops,
    Memory,
    Sql,
    Bodies,
}

impl Neighbour {
    const ALL: [Self; 6] = [Self::Nobody, Self::Threads, Self::Loops, Self::Memory, Self::Sql, Self::Bodies];

    fn name(self) -> &'static str {
        match self {
            Self::Nobody => "nobody",
            Self::Threads => "threads of no tenant, nice 10",
            Self::Loops => "CPU loops",
            Self::Memory => "memory",
            Self::Sql => "SQL bombs",
            Self::Bodies => "slow bodies",
        }
    }

    fn tenant(self) -> &'static str {
        match self {
            Self::Nobody | Self::Threads => QUIET,
            Self::Loops => "loops",
            Self::Memory => "memory",
            Self::Sql => "sql",
            Self::Bodies => "bodies",
        }
    }

    /// What it does over and over, on each of its connections, until the task is dropped.
    fn attack(self, address: SocketAddr) -> Result<JoinSet<Result<()>>> {
        let mut attacks = JoinSet::new();
        let path = |rest: &str| format!("{}{rest}", seed::path(self.tenant()));
        match self {
            Self::Nobody => {}
            Self::Threads => {
                let busy = Busy::start()?;
                attacks.spawn(async {
                    let _busy = busy;
                    std::future::pending().await
                });
            }
            Self::Loops => repeat(&mut attacks, address, &path("/spin"), ""),
            Self::Memory => repeat(&mut attacks, address, &path("/allocate"), ""),
            Self::Sql => repeat(&mut attacks, address, &path("/sql"), BOMB),
            Self::Bodies => {
                for _ in 0..UPLOADS {
                    attacks.spawn(upload_slowly(address, path("/echo")));
                }
            }
        }
        Ok(attacks)
    }
}

/// A busy thread of low priority for each core, until it is dropped.
struct Busy(Arc<AtomicBool>);

impl Busy {
    fn start() -> Result<Self> {
        let goes_on = Arc::new(AtomicBool::new(true));
        for _ in 0..std::thread::available_parallelism()?.get() {
            let goes_on = goes_on.clone();
            std::thread::spawn(move || {
                lower_priority(gettid(), HEAVY_GUEST_SLICE);
                while goes_on.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        Ok(Self(goes_on))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

fn repeat(attacks: &mut JoinSet<Result<()>>, address: SocketAddr, path: &str, body: &'static str) {
    for _ in 0..ATTACKS {
        let path = path.to_owned();
        attacks.spawn(async move {
            loop {
                let mut client = Client::connect(address, None).await?;
                let method = if body.is_empty() { Method::GET } else { Method::POST };
                // Most are refused or ended, and some are cut off: that is what an attacker expects.
                while client
                    .send(method.clone(), &path, "", Bytes::from_static(body.as_bytes()))
                    .await
                    .is_ok()
                {}
            }
        });
    }
}

/// Sends a byte of a body now and then, until the node has had enough, and again.
async fn upload_slowly(address: SocketAddr, path: String) -> Result<()> {
    loop {
        let mut stream = TcpStream::connect(address).await?;
        let head = format!("POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-length: 1000000\r\n\r\n");
        stream.write_all(head.as_bytes()).await?;
        while stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// What the quiet tenant saw beside one neighbour.
#[derive(Debug, Default)]
struct Seen {
    latencies: Vec<Duration>,
    failed: u64,
}

impl Seen {
    fn add(&mut self, other: Self) {
        self.latencies.extend(other.latencies);
        self.failed += other.failed;
    }

    fn milliseconds(&self, permille: usize) -> f64 {
        let last = self.latencies.len().saturating_sub(1);
        self.latencies.get(last * permille / 1000).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
    }
}

/// Measures, prints and writes the section.
pub(crate) async fn run(options: &Options, scratch: &Path) -> Result<()> {
    let machine = crate::machine::describe(scratch).await;
    let mut text: String = machine.iter().map(|item| format!("- {item}\n")).collect();
    let program = programs::dormouse().await?;
    let data = scratch.join("dormouse");
    let recipe =
        Recipe::Dormouse { program: program.clone(), data, parking: Parking::Shipped, world: World::P2 };
    let _ = writeln!(
        text,
        "- {}; {} slices of {} s, {RATE} requests each second",
        recipe.detail().await,
        options.slices,
        options.seconds
    );
    let log = scratch.join("dormouse.log");
    let mut command = recipe.command()?;
    // The clients of all tenants have one address here, as no node's have.
    command.args(["--client-requests-max", "4096"]);
    let (mut process, listening) = Process::start(command, &log, Listening::parse).await?;
    let admin = listening.admin.context("no admin door")?;
    fill(&program, &seed::Door { address: admin, token: recipe.admin_token()? }).await?;
    let seen = measure(options, listening.public, admin).await.with_context(|| process.log_tail())?;
    process.stop().await?;
    text.push_str(&table(seen));
    println!("{text}");
    report::write_section(options, "neighbours", &text)
}

async fn fill(program: &Path, door: &seed::Door) -> Result<()> {
    let read =
        async |folder| anyhow::Ok(Bytes::from(std::fs::read(programs::component(program, folder).await?)?));
    let (guestbook, attacker) = (read("functions/guestbook").await?, read("tests/guests/misbehave").await?);
    let attackers = Neighbour::ALL.iter().filter(|neighbour| neighbour.tenant() != QUIET);
    let mut tenants: Vec<_> = attackers.map(|one| (one.tenant().to_owned(), attacker.clone())).collect();
    tenants.push((QUIET.to_owned(), guestbook));
    seed::upload(door, tenants).await
}

/// The slices, one neighbour after the other and the first another each time.
async fn measure(
    options: &Options,
    address: SocketAddr,
    admin: SocketAddr,
) -> Result<Vec<(Neighbour, Seen)>> {
    let mut all: Vec<_> = Neighbour::ALL.into_iter().map(|neighbour| (neighbour, Seen::default())).collect();
    for slice in 0..options.slices {
        for (neighbour, seen) in &mut all {
            let attacks = neighbour.attack(address)?;
            tokio::time::sleep(RUN_UP).await;
            seen.add(call_steadily(address, Duration::from_secs(options.seconds)).await?);
            drop(attacks);
            settle(admin).await?;
        }
        all.rotate_left(1);
        eprintln!("  slice {} of {}", slice + 1, options.slices);
    }
    all.sort_by_key(|(neighbour, _)| Neighbour::ALL.iter().position(|one| one == neighbour));
    Ok(all)
}

/// Waits until nothing of an attack is left.
async fn settle(admin: SocketAddr) -> Result<()> {
    let mut metrics = Client::connect(admin, None).await?;
    for _ in 0..200 {
        let left = metrics.gauge("dormouse_requests_in_flight").await?
            + metrics.gauge("dormouse_requests_waiting").await?
            + metrics.gauge("dormouse_database_commands_running").await?;
        if left == 0 {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    anyhow::bail!("something of an attack is left")
}

/// One request after the other at a steady rate, each in turn on another connection.
async fn call_steadily(address: SocketAddr, time: Duration) -> Result<Seen> {
    let (interval, start) = (Duration::from_secs(1) / RATE, Instant::now() + Duration::from_millis(50));
    let mut connections = JoinSet::new();
    for first in 0..QUIET_CONNECTIONS {
        connections.spawn(async move {
            let mut client = Client::connect(address, None).await?;
            let mut seen = Seen::default();
            let mut at = start + interval * first;
            while at < start + time {
                let is_late = Instant::now() > at;
                tokio::time::sleep_until(at.into()).await;
                // The timer's own lateness is not the node's; that of the answer before is.
                let sent = if is_late { at } else { Instant::now() };
                let document = Bytes::from_static(DOCUMENT.as_bytes());
                let answer =
                    client.send(Method::POST, &seed::path(QUIET), "application/json", document).await;
                match answer {
                    Ok((status, _)) if status.is_success() => seen.latencies.push(sent.elapsed()),
                    Ok(_) => seen.failed += 1,
                    Err(_) => {
                        seen.failed += 1;
                        client = Client::connect(address, None).await?;
                    }
                }
                at += interval * QUIET_CONNECTIONS;
            }
            anyhow::Ok(seen)
        });
    }
    let mut all = Seen::default();
    while let Some(seen) = connections.join_next().await {
        all.add(seen??);
    }
    ensure!(!all.latencies.is_empty(), "the quiet tenant had no answer");
    Ok(all)
}

fn table(mut all: Vec<(Neighbour, Seen)>) -> String {
    let mut text = String::from(
        "\n| beside | p50 ms | p99 ms | p50, × alone | p99, × alone | slowest ms | answered | failed |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for (_, seen) in &mut all {
        seen.latencies.sort_unstable();
    }
    let alone = all
        .first()
        .map_or((f64::NAN, f64::NAN), |(_, seen)| (seen.milliseconds(500), seen.milliseconds(990)));
    for (neighbour, seen) in &all {
        let (p50, p99) = (seen.milliseconds(500), seen.milliseconds(990));
        let _ = writeln!(
            text,
            "| {} | {p50:.2} | {p99:.2} | {:.1} | {:.1} | {:.1} | {} | {} |",
            neighbour.name(),
            p50 / alone.0,
            p99 / alone.1,
            seen.milliseconds(1000),
            seen.latencies.len(),
            seen.failed
        );
    }
    text
}
