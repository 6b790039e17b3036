//! `--tenants-curve`: what one node costs as the number of its tenants grows.
//!
//! One node is filled further and further. At each number of tenants it is started anew a few times, and single
//! requests of each kind are timed by one client.

use std::{
    fs,
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use hyper::{Method, StatusCode, body::Bytes};
use tokio::task::JoinSet;

use crate::{
    client::{Client, expect_success},
    load::DOCUMENT,
    machine,
    options::Options,
    process::Process,
    programs,
    recipe::{Listening, Parking, Recipe, World},
    seed,
};

/// Requests of each kind, each to a tenant of its own.
const SAMPLES: usize = 200;
/// Starts at each number of tenants.
const STARTS: usize = 5;
/// Connections over which tenants are made.
const CLIENTS: usize = 48;

const HEAD: &str = "\
| tenants | start, ms | resident MB | create p50 ms | created per second | page of 100 p50 ms | route p50 ms | \
first request, used before p50 ms | first request, never used p50 ms | control.db MB | files of tenants |\n\
|---|---|---|---|---|---|---|---|---|---|---|";

/// Fills a node to each of `sizes` tenants, and prints a line of the table for each.
pub(crate) async fn run(options: &Options, sizes: &[u64], scratch: &Path) -> Result<()> {
    let program = programs::dormouse().await?;
    let component = match &options.guestbook {
        Some(path) => path.clone(),
        None => programs::component(&program, "functions/guestbook").await?,
    };
    let component = Bytes::from(fs::read(component)?);
    let data = scratch.join("curve");
    let recipe = Recipe::Dormouse { program, data, parking: Parking::Shipped, world: World::P2 };
    for item in machine::describe(scratch).await {
        println!("- {item}");
    }
    println!("- {}\n\n{HEAD}", recipe.detail().await);
    let mut node = Node::start(recipe, scratch.join("curve.log")).await?;
    let mut made = 0;
    for size in sizes {
        let point = measure(&mut node, made..*size, &component).await?;
        println!("{}", point.line(&node)?);
        made = *size;
    }
    node.process.stop().await
}

struct Node {
    recipe: Recipe,
    log: PathBuf,
    process: Process,
    listening: Listening,
}

impl Node {
    async fn start(recipe: Recipe, log: PathBuf) -> Result<Self> {
        let (process, listening) = Process::start(recipe.command()?, &log, Listening::parse).await?;
        Ok(Self { recipe, log, process, listening })
    }

    /// Stops it, and starts it again. Gives how long the start took, in milliseconds.
    async fn restart(&mut self) -> Result<f64> {
        self.process.stop().await?;
        let started = Instant::now();
        let command = self.recipe.command()?;
        (self.process, self.listening) = Process::start(command, &self.log, Listening::parse).await?;
        Ok(milliseconds(started))
    }

    async fn public(&self) -> Result<Client> {
        Client::connect(self.listening.public, None).await
    }

    async fn admin(&self) -> Result<Client> {
        let address = self.listening.admin.context("it did not say where its admin door is")?;
        Client::connect(address, Some(self.recipe.admin_token()?)).await
    }

    fn data(&self) -> Result<&Path> {
        match &self.recipe {
            Recipe::Dormouse { data, .. } => Ok(data),
            _ => anyhow::bail!("only Dormouse has tenants"),
        }
    }
}

/// What was found at one number of tenants. Times are in milliseconds.
struct Point {
    tenants: u64,
    created: Vec<f64>,
    created_per_second: f64,
    starts: Vec<f64>,
    resident_bytes: u64,
    pages: Vec<f64>,
    routes: Vec<f64>,
    used_before: Vec<f64>,
    never_used: Vec<f64>,
}

impl Point {
    fn line(self, node: &Node) -> Result<String> {
        let data = node.data()?;
        let control_bytes = fs::metadata(data.join("control.db"))?.len();
        let mb = |bytes: u64| bytes as f64 / 1e6;
        Ok(format!(
            "| {} | {:.0} | {:.1} | {:.2} | {:.0} | {:.2} | {:.2} | {:.2} | {:.2} | {:.1} | {} |",
            self.tenants,
            median(self.starts),
            mb(self.resident_bytes),
            median(self.created),
            self.created_per_second,
            median(self.pages),
            median(self.routes),
            median(self.used_before),
            median(self.never_used),
            mb(control_bytes),
            files_below(&data.join("tenants")),
        ))
    }
}

async fn measure(node: &mut Node, new: Range<u64>, component: &Bytes) -> Result<Point> {
    let mut random = fastrand::Rng::with_seed(new.end);
    let started = Instant::now();
    let created = create(node, new.clone()).await?;
    let created_per_second = created.len() as f64 / started.elapsed().as_secs_f64();
    let drawn = random.choose_multiple(new.clone(), 2 * SAMPLES + 1);
    ensure!(drawn.len() > 2 * SAMPLES, "a step of the curve must add more than {} tenants", 2 * SAMPLES);
    let (warm, drawn) = drawn.split_first().context("no tenant")?;
    let (used, fresh) = drawn.split_at(SAMPLES);
    deploy(node, std::iter::once(warm).chain(drawn), component).await?;
    call(node, used).await?;
    let mut starts = Vec::new();
    for _ in 0..STARTS {
        starts.push(node.restart().await?);
    }
    // What a start leaves to do has been done by then, or is being done.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let resident_bytes = node.process.resident_bytes();
    let others: Vec<u64> = (0..SAMPLES).map(|_| random.u64(0..new.end)).collect();
    let (pages, routes) = (list(node, &others).await?, route(node, &others).await?);
    // From here on the component is mapped.
    call(node, &[*warm]).await?;
    let (used_before, never_used) = (call(node, used).await?, call(node, fresh).await?);
    let tenants = new.end;
    Ok(Point {
        tenants,
        created,
        created_per_second,
        starts,
        resident_bytes,
        pages,
        routes,
        used_before,
        never_used,
    })
}

/// The name of the n-th tenant. In the order of their numbers the names come in no order.
fn name(n: u64) -> String {
    format!("t-{:08x}", n.wrapping_mul(2_654_435_761) & 0xffff_ffff)
}

async fn create(node: &Node, numbers: Range<u64>) -> Result<Vec<f64>> {
    let next = Arc::new(AtomicU64::new(numbers.start));
    let mut workers = JoinSet::new();
    for _ in 0..CLIENTS {
        let (next, mut client) = (Arc::clone(&next), node.admin().await?);
        workers.spawn(async move {
            let mut times = Vec::new();
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= numbers.end {
                    return anyhow::Ok(times);
                }
                let started = Instant::now();
                client.post_json("/v1/tenants", &format!(r#"{{"name":"{}"}}"#, name(n))).await?;
                times.push(milliseconds(started));
            }
        });
    }
    let mut times = Vec::new();
    while let Some(ended) = workers.join_next().await {
        times.extend(ended??);
    }
    Ok(times)
}

async fn deploy(node: &Node, numbers: impl Iterator<Item = &u64>, component: &Bytes) -> Result<()> {
    let mut client = node.admin().await?;
    for n in numbers {
        let path = format!("/v1/tenants/{}/functions/fn", name(*n));
        let sent = client.send(Method::PUT, &path, "application/wasm", component.clone()).await?;
        expect_success(&path, sent.0, &sent.1)?;
    }
    Ok(())
}

/// Posts a document to the function of each tenant.
async fn call(node: &Node, numbers: &[u64]) -> Result<Vec<f64>> {
    let (mut client, mut times) = (node.public().await?, Vec::new());
    for n in numbers {
        let started = Instant::now();
        client.post_json(&seed::path(&name(*n)), DOCUMENT).await?;
        times.push(milliseconds(started));
    }
    Ok(times)
}

/// Asks for the page of tenants that follows each.
async fn list(node: &Node, numbers: &[u64]) -> Result<Vec<f64>> {
    let (mut client, mut times) = (node.admin().await?, Vec::new());
    for n in numbers {
        let started = Instant::now();
        let (status, body) = client.get(&format!("/v1/tenants?limit=100&after={}", name(*n))).await?;
        times.push(milliseconds(started));
        expect_success("a page", status, &body)?;
    }
    Ok(times)
}

/// Asks each tenant for a function that it does not have: what the control data says to that is not remembered.
async fn route(node: &Node, numbers: &[u64]) -> Result<Vec<f64>> {
    let (mut client, mut times) = (node.public().await?, Vec::new());
    for n in numbers {
        let started = Instant::now();
        let (status, _) = client.get(&format!("/t/{}/none", name(*n))).await?;
        times.push(milliseconds(started));
        ensure!(status == StatusCode::NOT_FOUND, "{}: {status}", name(*n));
    }
    Ok(times)
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn files_below(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let count = |entry: fs::DirEntry| if entry.path().is_dir() { files_below(&entry.path()) } else { 1 };
    entries.map(count).sum()
}
