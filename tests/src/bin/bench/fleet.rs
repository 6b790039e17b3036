//! The servers of a run: which take part, started, filled with tenants and checked once each.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use dormouse::limits;
use hyper::body::Bytes;

use crate::{
    client::Client,
    options::Options,
    process::Process,
    programs,
    recipe::{Listening, Parking, Recipe, WASMTIME_TUNED, World},
    seed,
};

/// How long after its last request a database of Dormouse has surely been copied and closed, parked or not, with a
/// margin. The deferred work of a slice belongs to that slice.
const PARKED_TIME: Duration = limits::PARK_TIME_MAX
    .saturating_add(limits::HOUSEKEEPING_INTERVAL)
    .saturating_add(Duration::from_millis(250));

/// What a server is, before it runs.
#[derive(Debug)]
pub(crate) struct Spec {
    /// Its name on the command line.
    pub(crate) key: &'static str,
    /// Its name in the table.
    pub(crate) name: &'static str,
    /// How it is started.
    pub(crate) recipe: Recipe,
    /// The path of its hello, if it takes part in that workload.
    pub(crate) hello: Option<&'static str>,
    /// Whether it takes part in the webhook workload.
    pub(crate) webhook: bool,
    /// How long it may still work off the path after a webhook slice.
    pub(crate) settle_min: Duration,
}

/// Resident memory of a server over the run, in bytes.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Memory {
    /// A second after its start, all tenants known, none called.
    pub(crate) idle: u64,
    /// The most that was seen in a slice.
    pub(crate) load_max: u64,
    /// After the load, when everything that parks has been closed.
    pub(crate) after: u64,
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    /// What it is.
    pub(crate) spec: Spec,
    /// Version and options.
    pub(crate) detail: String,
    /// Its process.
    pub(crate) process: Process,
    /// Where it listens.
    pub(crate) listening: Listening,
    /// What it occupied.
    pub(crate) memory: Memory,
    log: PathBuf,
}

/// All servers of a run.
#[derive(Debug)]
pub(crate) struct Fleet {
    /// Those that run.
    pub(crate) servers: Vec<Server>,
    /// Those that are missing, each with the reason.
    pub(crate) skipped: Vec<String>,
}

impl Server {
    async fn start(spec: Spec, scratch: &Path) -> Result<Self> {
        let log = scratch.join(format!("{}.log", spec.key));
        eprintln!("starting {}", spec.name);
        let (process, listening) = Process::start(spec.recipe.command()?, &log, Listening::parse)
            .await
            .with_context(|| format!("start {}", spec.name))?;
        let detail = spec.recipe.detail().await;
        Ok(Self { spec, detail, process, listening, memory: Memory::default(), log })
    }

    /// Stops the server and starts it again on the same data.
    pub(crate) async fn restart(&mut self) -> Result<()> {
        self.process.stop().await.with_context(|| format!("stop {}", self.spec.name))?;
        let command = self.spec.recipe.command()?;
        let started = Process::start(command, &self.log, Listening::parse).await;
        (self.process, self.listening) = started.with_context(|| format!("restart {}", self.spec.name))?;
        Ok(())
    }

    /// A connection to its public door.
    pub(crate) async fn client(&self) -> Result<Client> {
        Client::connect(self.listening.public, None).await
    }

    async fn check_hello(&self) -> Result<()> {
        let Some(path) = self.spec.hello else { return Ok(()) };
        let (status, body) = self.client().await?.get(path).await?;
        if status != 200 || body != "Hello from Dormouse\n" {
            let body = String::from_utf8_lossy(&body);
            bail!("{}{path}: {status}: {body}\n{}", self.spec.name, self.process.log_tail());
        }
        Ok(())
    }
}

/// Starts every server that is wanted and present, and makes it ready for the first slice.
pub(crate) async fn start(options: &Options, scratch: &Path) -> Result<Fleet> {
    let (specs, skipped) = specs(options, scratch).await?;
    for skipped in &skipped {
        eprintln!("skipping {skipped}");
    }
    let components = components(options, &specs).await?;
    let mut servers = Vec::new();
    for mut spec in specs {
        if let Recipe::Wasmtime { component, .. } = &mut spec.recipe {
            component.clone_from(&components.p2.hello);
        }
        let mut server = Server::start(spec, scratch).await?;
        if let Recipe::Dormouse { world, .. } = server.spec.recipe {
            let functions = match world {
                World::P2 => &components.p2,
                World::P3 => &components.p3,
            };
            fill(options, &server, functions).await?;
            server.restart().await?;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        server.memory.idle = server.process.resident_bytes();
        server.check_hello().await?;
        if server.spec.webhook {
            seed::touch(&server, options.tenants, seed::tenant).await?;
            seed::touch(&server, options.cold_tenants(), seed::sleeping_tenant).await?;
        }
        servers.push(server);
    }
    Ok(Fleet { servers, skipped })
}

/// The functions of each world.
#[derive(Debug, Default)]
struct Components {
    p2: Functions,
    p3: Functions,
}

/// The components of one world, as paths; empty where no server needs one.
#[derive(Debug, Default)]
struct Functions {
    hello: PathBuf,
    guestbook: PathBuf,
}

async fn components(options: &Options, specs: &[Spec]) -> Result<Components> {
    let dormouse = specs.iter().find_map(|spec| match &spec.recipe {
        Recipe::Dormouse { program, .. } => Some(program.clone()),
        _ => None,
    });
    let wasmtime = specs.iter().any(|spec| matches!(spec.recipe, Recipe::Wasmtime { .. }));
    let runs = |wanted| {
        specs.iter().any(|spec| matches!(spec.recipe, Recipe::Dormouse { world, .. } if world == wanted))
    };
    let build = async |named: &Option<PathBuf>, folder: &str, needed: bool| match (named, &dormouse) {
        (Some(path), _) => Ok(path.clone()),
        (None, Some(dormouse)) if needed => programs::component(dormouse, folder).await,
        (None, None) if needed => bail!("without dormouse, --hello must name the component"),
        (None, _) => Ok(PathBuf::new()),
    };
    let (p2, p3) = (runs(World::P2), runs(World::P3));
    Ok(Components {
        p2: Functions {
            hello: build(&options.hello, "functions/hello", wasmtime || p2).await?,
            guestbook: build(&options.guestbook, "functions/guestbook", p2).await?,
        },
        p3: Functions {
            hello: build(&None, "tests/guests/hello3", p3).await?,
            guestbook: build(&None, "tests/guests/guestbook3", p3).await?,
        },
    })
}

async fn fill(options: &Options, server: &Server, functions: &Functions) -> Result<()> {
    let admin = server.listening.admin.context("Dormouse did not say where its admin door is")?;
    let door = seed::Door { address: admin, token: server.spec.recipe.admin_token()? };
    let read =
        |path: &Path| fs::read(path).map(Bytes::from).with_context(|| format!("read {}", path.display()));
    let (hello, guestbook) = (read(&functions.hello)?, read(&functions.guestbook)?);
    let mut tenants = vec![("hello".to_owned(), hello)];
    tenants.extend((0..options.tenants).map(|n| (seed::tenant(n), guestbook.clone())));
    for name in [seed::sleeping_tenant, seed::new_tenant] {
        tenants.extend((0..options.cold_tenants()).map(|n| (name(n), guestbook.clone())));
    }
    seed::upload(&door, tenants).await.with_context(|| server.process.log_tail())
}

/// What takes part, and the names of what is missing.
async fn specs(options: &Options, scratch: &Path) -> Result<(Vec<Spec>, Vec<String>)> {
    let (mut specs, mut skipped) = (Vec::new(), Vec::new());
    if options.wants("hyper") {
        specs.push(Spec { hello: Some("/"), ..spec("hyper", "hyper", Recipe::Hyper) });
    }
    if options.wants("native") {
        let recipe = Recipe::Native { data: scratch.join("native") };
        specs.push(Spec { webhook: true, ..spec("native", "native", recipe) });
    }
    if ["dormouse", "dormouse-unparked", "dormouse-p3"].into_iter().any(|key| options.wants(key)) {
        specs.extend(dormouse(options, scratch, &programs::dormouse().await?));
    }
    if options.wants("wasmtime") || options.wants("wasmtime-tuned") {
        match programs::find(options.wasmtime.as_deref(), "wasmtime") {
            Some(program) => specs.extend(wasmtime(options, &program)),
            None => skipped.push("wasmtime serve: no wasmtime on PATH nor in WASMTIME".to_owned()),
        }
    }
    if options.wants("bun") {
        match programs::find(options.bun.as_deref(), "bun") {
            Some(program) => {
                let recipe = Recipe::Bun { program, data: scratch.join("bun") };
                specs.push(Spec { hello: Some("/hello"), webhook: true, ..spec("bun", "bun", recipe) });
            }
            None => skipped.push("bun: no bun on PATH nor in BUN".to_owned()),
        }
    }
    Ok((specs, skipped))
}

fn spec(key: &'static str, name: &'static str, recipe: Recipe) -> Spec {
    Spec { key, name, recipe, hello: None, webhook: false, settle_min: Duration::ZERO }
}

fn dormouse(options: &Options, scratch: &Path, program: &Path) -> Vec<Spec> {
    let recipe = |key, parking, world| Recipe::Dormouse {
        program: program.to_owned(),
        data: scratch.join(key),
        parking,
        world,
    };
    let bound =
        |key, name, recipe| Spec { webhook: true, settle_min: PARKED_TIME, ..spec(key, name, recipe) };
    let shipped = |key, name, world| Spec {
        hello: Some("/t/hello/fn"),
        ..bound(key, name, recipe(key, Parking::Shipped, world))
    };
    let p2 = shipped("dormouse", "dormouse", World::P2);
    let p3 = shipped("dormouse-p3", "dormouse (wasi:http 0.3)", World::P3);
    let unparked = recipe("dormouse-unparked", Parking::Off, World::P2);
    let unparked = bound("dormouse-unparked", "dormouse (parking off)", unparked);
    [p2, p3, unparked].into_iter().filter(|spec| options.wants(spec.key)).collect()
}

/// Their component is filled in when it has been built.
fn wasmtime(options: &Options, program: &Path) -> Vec<Spec> {
    let all: [(_, _, &[&str]); 2] =
        [("wasmtime", "wasmtime serve", &[]), ("wasmtime-tuned", "wasmtime serve (tuned)", WASMTIME_TUNED)];
    let wanted = all.into_iter().filter(|(key, ..)| options.wants(key));
    let recipe = |flags| Recipe::Wasmtime { program: program.to_owned(), component: PathBuf::new(), flags };
    wanted.map(|(key, name, flags)| Spec { hello: Some("/"), ..spec(key, name, recipe(flags)) }).collect()
}
