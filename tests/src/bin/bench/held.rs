//! `-- --memory`: what a request in flight takes, each with an instance and a database that has written.

use std::{net::SocketAddr, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use hyper::body::Bytes;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};

use crate::{
    mappings::Resident,
    process::Process,
    programs,
    recipe::{Listening, Parking, Recipe, World},
    report, seed,
};

const REQUESTS: u64 = 2_000;
/// Requests that are being opened at the same time.
const WORKERS: u64 = 8;
/// How long the node is left alone before it is looked at.
const REST: Duration = Duration::from_secs(3);

/// What the node had resident, before, with all requests held open, and after their end.
#[derive(Debug)]
struct Held {
    world: World,
    before: Resident,
    during: Resident,
    after: Resident,
}

/// Measures both worlds and gives the section of the page.
pub(crate) async fn measure(scratch: &Path) -> Result<String> {
    let dormouse = programs::dormouse().await?;
    let mut all = Vec::new();
    for (world, guest) in [(World::P2, "misbehave"), (World::P3, "misbehave3")] {
        let component = programs::component(&dormouse, &format!("tests/guests/{guest}")).await?;
        let component = Bytes::from(std::fs::read(component)?);
        let recipe = Recipe::Dormouse {
            program: dormouse.clone(),
            data: scratch.join(guest),
            parking: Parking::Shipped,
            world,
        };
        all.push(hold(&recipe, world, component, &scratch.join(format!("{guest}.log"))).await?);
    }
    Ok(section(&all))
}

async fn hold(recipe: &Recipe, world: World, component: Bytes, log: &Path) -> Result<Held> {
    let mut command = recipe.command()?;
    let permits = REQUESTS.to_string();
    command.args(["--concurrency-max", &permits, "--sessions-max", &permits, "--wall-time-max-ms", "600000"]);
    command.args(["--client-connections-max", "4096", "--client-requests-max", &permits]);
    let (mut process, listening) = Process::start(command, log, Listening::parse).await?;
    let door =
        seed::Door { address: listening.admin.context("no admin door")?, token: recipe.admin_token()? };
    let tenants = (0..REQUESTS).map(|n| (seed::tenant(n), component.clone())).collect();
    seed::upload(&door, tenants).await?;
    drop(open(listening.public, 0).await?);
    tokio::time::sleep(REST).await;
    let before = Resident::of(process.pid())?;
    let connections = open_all(listening.public).await.with_context(|| process.log_tail())?;
    tokio::time::sleep(REST).await;
    let during = Resident::of(process.pid())?;
    drop(connections);
    tokio::time::sleep(REST * 3).await;
    let after = Resident::of(process.pid())?;
    process.stop().await?;
    Ok(Held { world, before, during, after })
}

async fn open_all(address: SocketAddr) -> Result<Vec<TcpStream>> {
    let mut workers = JoinSet::new();
    for worker in 0..WORKERS {
        workers.spawn(async move {
            let mut own = Vec::new();
            for tenant in (worker..REQUESTS).step_by(usize::try_from(WORKERS)?) {
                own.push(open(address, tenant).await?);
            }
            anyhow::Ok(own)
        });
    }
    let mut all = Vec::new();
    while let Some(own) = workers.join_next().await {
        all.extend(own??);
    }
    Ok(all)
}

/// Sends a request whose guest writes a row, sends the beginning of its response, and waits.
async fn open(address: SocketAddr, tenant: u64) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    let path = format!("{}/write-and-hold?ms=600000", seed::path(&seed::tenant(tenant)));
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: {address}\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    while !answer.windows(7).any(|window| window == b"partial") {
        let read = stream.read_buf(&mut answer).await?;
        ensure!(read > 0, "{path}: {}", String::from_utf8_lossy(&answer));
    }
    ensure!(answer.starts_with(b"HTTP/1.1 200"), "{path}: {}", String::from_utf8_lossy(&answer));
    Ok(stream)
}

/// What is measured, and how it is read off.
type Part = (&'static str, fn(&Resident) -> u64);

const PARTS: [Part; 6] = [
    ("all of it", Resident::total),
    ("heap: SQLite's handle, the request, its connection", |r| r.heap),
    ("stack of the guest", |r| r.stacks),
    ("memory of the guest", |r| r.memories),
    ("tables of the guest", |r| r.tables),
    ("program and compiled component", |r| r.files),
];

fn section(all: &[Held]) -> String {
    let worlds: Vec<_> = all.iter().map(|held| held.world.name()).collect();
    let mut text = format!("| KB for each of {REQUESTS} requests | {} |\n", worlds.join(" | "));
    text.push_str(&format!("|---|{}\n", "---|".repeat(all.len())));
    let mut line = |what: &str, cells: Vec<String>| {
        text.push_str(&format!("| {what} | {} |\n", cells.join(" | ")));
    };
    for (what, read) in PARTS {
        let each = |held: &Held| {
            let more = read(&held.during).saturating_sub(read(&held.before));
            format!("{:.0}", more as f64 / 1e3 / REQUESTS as f64)
        };
        line(what, all.iter().map(each).collect());
    }
    let mut resident = |moment: &str, of: fn(&Held) -> Resident| {
        let megabytes = |held: &Held| format!("{:.0} MB", of(held).total() as f64 / 1e6);
        line(&format!("resident in all, {moment}"), all.iter().map(megabytes).collect());
    };
    resident("before", |held| held.before);
    resident("held open", |held| held.during);
    resident("after", |held| held.after);
    text
}

/// Measures, prints and writes the section.
pub(crate) async fn run(options: &crate::options::Options, scratch: &Path) -> Result<()> {
    let machine = crate::machine::describe(scratch).await;
    let machine: String = machine.iter().map(|item| format!("- {item}\n")).collect();
    let section = format!("{machine}\n{}", measure(scratch).await?);
    println!("{section}");
    report::write_section(options, "memory", &section)
}
