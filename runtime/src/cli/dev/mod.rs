//! `dormouse dev`: a project that is built, served and kept current while it is edited.
//!
//! It starts a node as a child process in the project's own folder, and then is nothing but a client of it that
//! deploys whatever a change has become. What a developer calls is what production would run.
//!
//! ```text
//!            ┌──────────── a change ◀──────────┐
//!            ▼                                 │
//!  survey ─▶ build ─▶ deploy ─▶ (new version) ─┤
//!              │                               │
//!              └─ fails ─▶ (old version) ──────┘
//! ```

mod build;
mod log;
mod survey;
mod watch;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;

use super::client::Client;
use super::local::{BASE_DOMAIN, Contents, Doors, Folder, PUBLIC_PREFERRED, Server, Stop, free_or_any};
use super::project::{Function, Project};
use super::variable::{self, Assignment};
use super::{deploy, output, tenant, text};
use crate::name::{FunctionName, TenantName};
use crate::toolchain::Recipe;
use survey::{Fingerprint, Survey};
use watch::Watch;

/// Where a project keeps what its commands leave, from its own folder.
const LEFTOVERS: &str = ".dormouse";

/// The tenant that a project is served as.
const TENANT: &str = "dev";

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
                        dormouse dev\n  \
                        dormouse dev functions/guestbook --public-listen 127.0.0.1:3000\n  \
                        dormouse dev --variable api_token=test\n  \
                        dormouse dev --fresh\n\n\
                        The database and the variables stay between runs, in .dormouse/ of the project's folder.")]
pub(super) struct DevArgs {
    /// The project's folder: one with a dormouse.toml, or a Rust package that is a cdylib
    #[arg(default_value = ".")]
    path: PathBuf,
    /// Where to serve it [default: 127.0.0.1:8080, or a free port where that is taken]
    #[arg(long, value_name = "ADDRESS")]
    public_listen: Option<SocketAddr>,
    /// Set a variable; can be given several times
    #[arg(long = "variable", value_name = "NAME=VALUE")]
    variables: Vec<Assignment>,
    /// Start with an empty database and no variables
    #[arg(long)]
    fresh: bool,
}

pub(super) fn run(args: &DevArgs) -> anyhow::Result<()> {
    // A project that cannot be read is no reason to start anything.
    Project::load(&args.path, None)?;
    let leftovers = args.path.join(LEFTOVERS);
    let contents = if args.fresh { Contents::Wipe } else { Contents::Keep };
    let folder = Folder::prepare(&leftovers.join("dev"), contents)?;
    // Whatever the project's own says: a database is not for its repository.
    std::fs::write(leftovers.join(".gitignore"), "*\n")
        .with_context(|| format!("cannot write in {}", leftovers.display()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(serve(args, folder));
    // An upload that Ctrl-C cut short may still wait for its answer.
    runtime.shutdown_background();
    ended
}

async fn serve(args: &DevArgs, folder: Folder) -> anyhow::Result<()> {
    let mut stop = Stop::listen()?;
    let public = args.public_listen.unwrap_or_else(|| free_or_any(PUBLIC_PREFERRED));
    let mut server = Server::start(&folder, public, log::LEVEL)?;
    let outcome = tokio::select! {
        ended = develop(args, &folder, &mut server) => ended.map(|never| match never {}),
        () = stop.asked() => {
            output::note("\nstopping");
            Ok(())
        }
    };
    let stopped = server.stop(&mut stop).await;
    outcome.and(stopped)
}

/// Keeps the project current for as long as the node runs.
async fn develop(args: &DevArgs, folder: &Folder, server: &mut Server) -> anyhow::Result<Infallible> {
    let doors = server.listening(folder).await.with_context(|| folder.last_log_lines())?;
    if args.public_listen.is_none() && doors.public != PUBLIC_PREFERRED {
        output::note(&format!("{PUBLIC_PREFERRED} is taken, so this project is served at {}", doors.public));
    }
    let log = folder.log();
    let mut session = Session::open(args, folder, doors).await?;
    tokio::select! {
        ended = session.keep_current() => ended,
        ended = log::follow(&log) => ended,
        ended = server.ended() => Err(ended.context(folder.last_log_lines())),
    }
}

/// A project and what of it is deployed.
struct Session {
    project: PathBuf,
    client: Arc<Client>,
    tenant: TenantName,
    public: SocketAddr,
    watch: Watch,
    built: BTreeMap<FunctionName, Built>,
}

/// The last build of a function, whether it worked or not.
struct Built {
    function: Function,
    recipe: Option<Recipe>,
    fingerprint: Fingerprint,
    is_live: bool,
}

impl Session {
    async fn open(args: &DevArgs, folder: &Folder, doors: Doors) -> anyhow::Result<Self> {
        let node = format!("http://{}", doors.admin).parse()?;
        let client = Arc::new(Client::from_token_file(node, &folder.token_file())?);
        let tenant: TenantName = TENANT.parse()?;
        let (asking, name, variables) = (client.clone(), tenant.clone(), args.variables.clone());
        let prepare = move || {
            tenant::ensure(&asking, &name)?;
            variables.iter().try_for_each(|variable| variable.set(&asking, &name))
        };
        tokio::task::spawn_blocking(prepare).await??;
        let (watch, built) = (Watch::new()?, BTreeMap::new());
        Ok(Self { project: args.path.clone(), client, tenant, public: doors.public, watch, built })
    }

    async fn keep_current(&mut self) -> anyhow::Result<Infallible> {
        loop {
            // A project with mistakes is one that is being edited.
            match self.project() {
                Ok(functions) => {
                    for function in functions {
                        self.renew(function).await?;
                    }
                }
                Err(error) => output::note(&format!("error: {error:#}")),
            }
            self.watch.settled().await?;
        }
    }

    fn project(&mut self) -> anyhow::Result<Vec<Function>> {
        self.watch.add(&self.project)?;
        Ok(Project::load(&self.project, None)?.functions)
    }

    /// Builds and deploys a function, if it is another one than last time.
    async fn renew(&mut self, function: Function) -> anyhow::Result<()> {
        let fingerprint = self.survey(&function)?;
        let last = self.built.remove(&function.name);
        if let Some(last) = last.as_ref().filter(|last| last.fingerprint == fingerprint) {
            // Whatever this was for, the watched files are as they were.
            let same = Built { function, recipe: last.recipe.clone(), ..*last };
            self.built.insert(same.function.name.clone(), same);
            return Ok(());
        }
        let was_live = last.as_ref().is_some_and(|last| last.is_live);
        let same = last.filter(|last| last.function == function);
        let mut now =
            Built { recipe: same.and_then(|last| last.recipe), function, fingerprint, is_live: was_live };
        match self.deploy(&mut now).await {
            Ok(told) => {
                now.is_live = true;
                output::lines(&told)?;
            }
            Err(error) => {
                let what_now =
                    if was_live { "the old version keeps serving" } else { "it waits for a change" };
                output::note(&format!("error: {}: {error:#}\n{what_now}", now.function.name));
            }
        }
        self.built.insert(now.function.name.clone(), now);
        Ok(())
    }

    /// Watches first and looks then, so that no change falls in between.
    fn survey(&mut self, function: &Function) -> anyhow::Result<Fingerprint> {
        loop {
            let survey = Survey::of(function)?;
            let mut is_new = false;
            for folder in &survey.folders {
                is_new |= self.watch.add(folder)?;
            }
            if !is_new {
                return Ok(survey.fingerprint);
            }
        }
    }

    async fn deploy(&self, built: &mut Built) -> anyhow::Result<String> {
        let recipe = match built.recipe.take() {
            Some(recipe) => recipe,
            None => recipe_of(built.function.clone()).await?,
        };
        let recipe = built.recipe.insert(recipe);
        if let Some(announcement) = recipe.announcement() {
            output::note(&announcement);
        }
        let begun = Instant::now();
        let component = build::follow(recipe).await?;
        let compiled = Instant::now();
        let (client, tenant, function) = (self.client.clone(), self.tenant.clone(), built.function.clone());
        let upload = move || {
            let manifest = function.manifest.as_ref();
            let required = manifest.map(|manifest| manifest.variables.as_slice()).unwrap_or_default();
            variable::require(&client, &tenant, &function.name, required)?;
            deploy::upload(&client, &tenant, &function.name, &component, manifest)
        };
        tokio::task::spawn_blocking(upload).await??;
        Ok(self.told(&built.function.name, compiled - begun, compiled.elapsed()))
    }

    fn told(&self, function: &FunctionName, building: Duration, deploying: Duration) -> String {
        let (building, deploying) = (text::span(building), text::span(deploying));
        let Self { public, tenant, .. } = self;
        let mut address = format!("http://{public}/t/{tenant}/{function} is live");
        if *function == FunctionName::main() {
            let port = public.port();
            address += &format!(", with pages at http://{tenant}.{BASE_DOMAIN}:{port}/");
        }
        format!("{address}: built in {building}, deployed in {deploying}")
    }
}

async fn recipe_of(function: Function) -> anyhow::Result<Recipe> {
    tokio::task::spawn_blocking(move || function.recipe(&mut output::note)).await?
}
