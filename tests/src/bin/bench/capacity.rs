//! `-- --capacity`: the load of the founding capacity model, and what a process per tenant would take beside it.
//!
//! 5,000 tenants are known and 1,500 of them are called, over 2,000 connections: three webhooks to each read. The load
//! is made in this process, because every acknowledged row is counted.

use std::{
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use hyper::{Method, StatusCode, body::Bytes};
use tokio::task::JoinSet;

use crate::{
    client::Client,
    load::DOCUMENT,
    options::Options,
    process::Process,
    programs,
    recipe::{Listening, Parking, Recipe, World},
    report, seed,
};

const TENANTS: u64 = 5_000;
const ACTIVE: u64 = 1_500;
const CONNECTIONS: u64 = 2_000;
/// One request of so many reads.
const READS_ONE_IN: u64 = 4;
/// Processes of the peer, each with one tenant.
const PEERS: u64 = 20;
const PEER_REQUESTS: u64 = 100;
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// What one connection, or all of them, saw.
#[derive(Debug, Default)]
struct Seen {
    latencies_us: Vec<u32>,
    rows: u64,
    /// Refused with 503: too busy.
    refused: u64,
    /// Any other answer that is no success.
    failed: u64,
    /// Connections that broke.
    broken: u64,
}

/// What the node had while it was loaded.
#[derive(Debug, Default, Clone, Copy)]
struct Most {
    resident: u64,
    sessions: u64,
    parked: u64,
}

/// What a process of the peer takes, in bytes.
#[derive(Debug, Clone, Copy)]
struct Peer {
    resident: u64,
    /// With the pages that processes share counted once.
    proportional: u64,
}

/// Measures, prints and writes the section.
pub(crate) async fn run(options: &Options, scratch: &Path) -> Result<()> {
    let machine = crate::machine::describe(scratch).await;
    let mut text: String = machine.iter().map(|item| format!("- {item}\n")).collect();
    text.push_str(&dormouse(options.minutes, scratch).await?);
    text.push_str(&peers(options, scratch).await?);
    println!("{text}");
    report::write_section(options, "capacity", &text)
}

async fn dormouse(minutes: u64, scratch: &Path) -> Result<String> {
    let program = programs::dormouse().await?;
    let component = Bytes::from(std::fs::read(programs::component(&program, "functions/guestbook").await?)?);
    let data = scratch.join("dormouse");
    let recipe = Recipe::Dormouse { program, data, parking: Parking::Shipped, world: World::P2 };
    let permits = CONNECTIONS.to_string();
    let mut command = recipe.command()?;
    command.args(["--concurrency-max", &permits, "--sessions-max", &permits]);
    command.args(["--client-connections-max", &permits, "--client-requests-max", &permits]);
    let log = scratch.join("dormouse.log");
    let (mut process, listening) = Process::start(command, &log, Listening::parse).await?;
    let admin = listening.admin.context("no admin door")?;
    let door = seed::Door { address: admin, token: recipe.admin_token()? };
    let tenants = (0..TENANTS).map(|n| (seed::tenant(n), component.clone())).collect();
    seed::upload(&door, tenants).await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let idle = process.resident_bytes();
    let cpu_before = process.cpu()?;
    let time = Duration::from_secs(minutes * 60);
    let (seen, most) = load(listening.public, admin, &process, time).await?;
    let cpu = process.cpu()?.saturating_sub(cpu_before);
    tokio::time::sleep(Duration::from_secs(40)).await;
    let rest = process.resident_bytes();
    let stored = count(listening.public).await?;
    let lost = seen.rows.saturating_sub(stored);
    process.stop().await?;
    ensure!(lost == 0, "{lost} acknowledged rows are lost");
    Ok(table(seen, most, Run { minutes, time, cpu, idle, rest, stored }))
}

struct Run {
    minutes: u64,
    time: Duration,
    cpu: Duration,
    idle: u64,
    rest: u64,
    stored: u64,
}

async fn load(
    address: SocketAddr,
    admin: SocketAddr,
    process: &Process,
    time: Duration,
) -> Result<(Seen, Most)> {
    let end = Instant::now() + time;
    let mut connections = JoinSet::new();
    for seed in 0..CONNECTIONS {
        connections.spawn(call(address, seed, end));
    }
    let (mut all, mut most) = (Seen::default(), Most::default());
    let mut interval = tokio::time::interval(LOOK_INTERVAL);
    let mut metrics = Client::connect(admin, None).await?;
    loop {
        tokio::select! {
            ended = connections.join_next() => match ended {
                Some(seen) => all.add(seen??),
                None => return Ok((all, most)),
            },
            _ = interval.tick() => most.look(process, &mut metrics).await?,
        }
    }
}

/// One connection: a request after the other, to tenants drawn at random, until the end.
async fn call(address: SocketAddr, seed: u64, end: Instant) -> Result<Seen> {
    let (mut random, mut seen) = (fastrand::Rng::with_seed(seed), Seen::default());
    let mut client = Client::connect(address, None).await?;
    let document = Bytes::from_static(DOCUMENT.as_bytes());
    while Instant::now() < end {
        let path = seed::path(&seed::tenant(random.u64(..ACTIVE)));
        let reads = random.u64(..READS_ONE_IN) == 0;
        let started = Instant::now();
        let answer = if reads {
            client.get(&path).await
        } else {
            client.send(Method::POST, &path, "application/json", document.clone()).await
        };
        match answer {
            Ok((status, _)) if status.is_success() => {
                seen.rows += u64::from(!reads);
                seen.latencies_us.push(u32::try_from(started.elapsed().as_micros()).unwrap_or(u32::MAX));
            }
            Ok((StatusCode::SERVICE_UNAVAILABLE, _)) => seen.refused += 1,
            Ok(_) => seen.failed += 1,
            Err(_) => {
                seen.broken += 1;
                client = Client::connect(address, None).await?;
            }
        }
    }
    Ok(seen)
}

impl Seen {
    fn add(&mut self, other: Self) {
        self.latencies_us.extend(other.latencies_us);
        self.rows += other.rows;
        self.refused += other.refused;
        self.failed += other.failed;
        self.broken += other.broken;
    }

    fn percentile(&self, percent: usize) -> f64 {
        let last = self.latencies_us.len().saturating_sub(1);
        self.latencies_us.get(last * percent / 100).map_or(0.0, |us| f64::from(*us) / 1e3)
    }
}

impl Most {
    async fn look(&mut self, process: &Process, admin: &mut Client) -> Result<()> {
        self.resident = self.resident.max(process.resident_bytes());
        self.sessions = self.sessions.max(admin.gauge("dormouse_database_sessions").await?);
        self.parked = self.parked.max(admin.gauge("dormouse_database_sessions_parked").await?);
        Ok(())
    }
}

/// Rows of all tenants that were called. A tenant that drew no webhook has none.
async fn count(address: SocketAddr) -> Result<u64> {
    let mut client = Client::connect(address, None).await?;
    let mut stored = 0;
    for n in 0..ACTIVE {
        client.post_json(&seed::path(&seed::tenant(n)), DOCUMENT).await?;
        stored += seed::newest_row(&mut client, &seed::tenant(n)).await? - 1;
    }
    Ok(stored)
}

fn table(mut seen: Seen, most: Most, run: Run) -> String {
    seen.latencies_us.sort_unstable();
    let answered = seen.latencies_us.len() as f64;
    let seconds = run.time.as_secs_f64();
    let mb = |bytes: u64| format!("{:.1} MB", bytes as f64 / 1e6);
    let (rate, cpu) = (answered / seconds, run.cpu.as_secs_f64());
    let rows = [
        ("tenants known / called / connections", format!("{TENANTS} / {ACTIVE} / {CONNECTIONS}")),
        ("length", format!("{} min, three webhooks to each read", run.minutes)),
        ("requests answered with success", format!("{answered:.0}, {rate:.0} each second")),
        ("latency, median / 99 %", format!("{:.0} ms / {:.0} ms", seen.percentile(50), seen.percentile(99))),
        (
            "refused with 503 / failed / broken connections",
            format!("{} / {} / {}", seen.refused, seen.failed, seen.broken),
        ),
        ("rows acknowledged / stored", format!("{} / {}", seen.rows, run.stored)),
        ("CPU", format!("{:.2} cores, {:.0} µs each request", cpu / seconds, cpu * 1e6 / answered.max(1.0))),
        ("resident before, no tenant called", mb(run.idle)),
        ("resident, most under load", mb(most.resident)),
        ("resident 40 s after", mb(run.rest)),
        ("open databases, most / of these parked, most", format!("{} / {}", most.sessions, most.parked)),
    ];
    let lines = rows.iter().map(|(what, figure)| format!("| {what} | {figure} |\n"));
    format!("\n| dormouse | |\n|---|---|\n{}", lines.collect::<String>())
}

/// Starts the processes of the peer, calls each, and multiplies what they take.
async fn peers(options: &Options, scratch: &Path) -> Result<String> {
    let Some(program) = programs::find(options.bun.as_deref(), "bun") else {
        return Ok("\nLeft out: bun, which is neither on PATH nor in BUN.\n".to_owned());
    };
    let document = Arc::new(DOCUMENT);
    let (mut processes, mut taken) = (Vec::new(), Vec::new());
    for n in 0..PEERS {
        let recipe = Recipe::Bun { program: program.clone(), data: scratch.join(format!("bun-{n}")) };
        let log = scratch.join(format!("bun-{n}.log"));
        let (process, listening) = Process::start(recipe.command()?, &log, Listening::parse).await?;
        let mut client = Client::connect(listening.public, None).await?;
        for _ in 0..PEER_REQUESTS {
            client.post_json(&seed::path(&seed::tenant(n)), &document).await?;
        }
        processes.push(process);
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    for process in &processes {
        let (resident, proportional) = (process.resident_bytes(), process.proportional_bytes());
        taken.push(Peer { resident, proportional });
    }
    for mut process in processes {
        process.stop().await?;
    }
    let version = programs::version(&program).await;
    Ok(peer_table(&version, &taken))
}

fn peer_table(version: &str, taken: &[Peer]) -> String {
    let mean =
        |read: fn(&Peer) -> u64| taken.iter().map(read).sum::<u64>() as f64 / taken.len().max(1) as f64;
    let mut text = format!(
        "\n| a process of bun {version} for each tenant, {PEER_REQUESTS} webhooks each | each, mean of {PEERS} \
         | × {ACTIVE}, multiplied | × {TENANTS}, multiplied |\n|---|---|---|---|\n"
    );
    for (what, bytes) in [
        ("resident", mean(|peer| peer.resident)),
        ("resident, shared pages counted once", mean(|peer| peer.proportional)),
    ] {
        text.push_str(&format!(
            "| {what} | {:.1} MB | {:.1} GB | {:.1} GB |\n",
            bytes / 1e6,
            bytes * ACTIVE as f64 / 1e9,
            bytes * TENANTS as f64 / 1e9
        ));
    }
    text
}
