//! The node: builds the rooms, opens the doors, keeps house, and closes everything in order.
//!
//! Shutdown: stop accepting → finish what is in flight, up to a deadline → name and cancel what is left → copy and
//! close the databases → exit 0.

mod restore;

pub use restore::{Restored, restore};

use std::fs::{File, TryLockError};
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::admission::Admission;
use crate::catalog::{Artifacts, Catalog, Compiler, CompilerLimits};
use crate::config::{Config, DescriptorLimit, Flags};
use crate::control::{self, AdminDoor, AdminState, Audit, Directory, Failures, Keys, Store, Variables};
use crate::database::{self, CommitLog, Database, ProcessRecipe, ProcessSize};
use crate::disk::Disk;
use crate::edge::{self, Edge};
use crate::limits;
use crate::listener::{Bounds, Clients, Connections, Listener};
use crate::memory::Budget;
use crate::outbound::Outbound;
use crate::process_sandbox;
use crate::sandbox::Sandbox;
use crate::telemetry::{self, Gauges, Metrics};
use crate::tenant::{Tenants, Watched};

/// How long the last steps of a shutdown may take: rolling back, copying WALs, closing.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(4);

/// Sessions beside the tenants': the control data's. The others are room in the queue for commands to it whose requests
/// were given up.
const CONTROL_SESSIONS: u32 = 256;

/// How long to wait for the lock of the data folder: a node that was killed may have a process that still waits for the
/// disk.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(3);

/// Threads for the control data alone, when tenants' SQL runs elsewhere.
const CONTROL_THREADS: u32 = 2;

/// Runs a node until it is told to stop. What goes wrong before logging starts is said on stderr.
#[must_use]
pub fn serve(flags: Flags) -> ExitCode {
    let descriptors = raise_descriptor_limit();
    let config = match Config::load(&flags, descriptors) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    telemetry::start_logging(config.log_format, &config.log_level);
    let run = || -> Result<()> {
        let lock = lock_data(&config.data)?;
        enter_sandbox(&config)?;
        database::start_allocator_thread();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let ended = runtime.block_on(async { Node::open(config, lock).await?.run().await });
        // A guest that outlived the drain's deadline does not hold up the exit.
        runtime.shutdown_background();
        ended
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// From here on the process opens its data folder, binds its ports, and little else. It has one thread so far.
fn enter_sandbox(config: &Config) -> Result<()> {
    if rustix::process::geteuid().is_root() {
        tracing::warn!(
            "the node runs as root, which it does not need: start it as a user of its own that owns the data folder"
        );
    }
    let ports = [config.public_listen.port(), config.admin_listen.port()];
    let profile = process_sandbox::Profile::Node { data: &config.data, ports: &ports };
    let Some(in_force) = process_sandbox::apply(profile, config.process_sandbox)? else {
        tracing::info!("process sandbox: off");
        return Ok(());
    };
    let landlock = in_force.landlock.as_ref().map_or_else(String::clone, ToString::to_string);
    let seccomp = in_force.seccomp.as_ref().unwrap_or_else(|missing| missing);
    if in_force.landlock.is_ok() && in_force.seccomp.is_ok() {
        tracing::info!(landlock, seccomp, "process sandbox: in force");
    } else {
        tracing::warn!(landlock, seccomp, "process sandbox: a part of it is missing");
    }
    Ok(())
}

/// Raises the soft limit on open files to the hard one.
fn raise_descriptor_limit() -> DescriptorLimit {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let usable = if setrlimit(Resource::Nofile, raised).is_ok() { limit.maximum } else { limit.current };
    DescriptorLimit(usable.unwrap_or(u64::MAX))
}

struct Node {
    config: Config,
    rooms: Rooms,
    public: TcpListener,
    admin: TcpListener,
    state: Arc<AdminState>,
    draining: Arc<AtomicBool>,
    connections: (Connections, Arc<Clients>),
    _lock: File,
}

#[derive(Clone)]
struct Rooms {
    store: Arc<Store>,
    variables: Arc<Variables>,
    directory: Arc<Directory>,
    admission: Arc<Admission>,
    catalog: Arc<Catalog>,
    database: Database,
    tenants: Tenants,
    sandbox: Arc<Sandbox>,
    outbound: Arc<Outbound>,
    memory: Arc<Budget>,
    disk: Arc<Disk>,
    clients: Arc<Clients>,
    metrics: Arc<Metrics>,
}

impl Node {
    async fn open(config: Config, lock: File) -> Result<Self> {
        refuse_unfinished(&config.data)?;
        database::replay_commit_log(&config.data).with_context(|| {
            format!(
                "the commit log of {} cannot be replayed; mend the disk, or what is named, and start again",
                config.data.display()
            )
        })?;
        let keys = Keys::load_or_make(&config.data.join("keys"))?;
        let rooms = Rooms::build(&config, &keys, &lock).await?;
        control::remove_unnamed(&rooms.store, &rooms.tenants).await?;
        let public = bind(config.public_listen, "public_listen").await?;
        let admin = bind(config.admin_listen, "admin_listen").await?;
        let draining = Arc::new(AtomicBool::new(false));
        let connected = Clients::new(
            "connections; if it is a proxy, name it in trusted_proxies",
            config.ingress.client_connections_max,
        );
        let connections = (Connections::new(config.connections_max), connected);
        let (not_ready, gauges, counted) = (draining.clone(), rooms.clone(), connections.clone());
        let refusals = rooms.metrics.clone();
        let state = Arc::new(AdminState {
            keys,
            audit: Audit::new(rooms.store.clone(), config.audit),
            failures: Failures::default(),
            refused: Box::new(move |problem| refusals.admin_refused(problem)),
            store: rooms.store.clone(),
            directory: rooms.directory.clone(),
            catalog: rooms.catalog.clone(),
            variables: rooms.variables.clone(),
            tenants: rooms.tenants.clone(),
            component_bytes_max: config.component_bytes_max,
            memory: rooms.memory.clone(),
            disk: rooms.disk.clone(),
            limits: edge::as_manifest(config.guest),
            public_listen: public.local_addr()?.to_string(),
            public_url: config.public_url.clone(),
            base_domain: config.base_domain.clone(),
            is_ready: Box::new(move || !not_ready.load(Ordering::Relaxed)),
            metrics: Box::new(move || gauges.metrics.text(&gauges.gauges(&counted)).unwrap_or_default()),
        });
        Ok(Self { config, rooms, public, admin, state, draining, connections, _lock: lock })
    }

    async fn run(self) -> Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tracing::info!(
            public = %self.public.local_addr()?,
            admin = %self.admin.local_addr()?,
            data = %self.config.data.display(),
            version = env!("CARGO_PKG_VERSION"),
            "listening"
        );
        let (drain, drained) = watch::channel(false);
        let edge = Arc::new(self.rooms.edge(&self.config, self.draining.clone()));
        let wall_time_max = self.config.guest.wall_time_max;
        let metrics = self.rooms.metrics.clone();
        let bounds = Bounds { write_time_max: wall_time_max, h2c: self.config.ingress.h2c };
        let public = Listener::new(self.public, edge, self.connections, bounds, metrics.clone())
            .behind(self.config.proxies.clone());
        let public = tokio::spawn(public.run(drained));
        let (close_admin, admin_closed) = watch::channel(false);
        let admin_connections = (
            Connections::new(limits::ADMIN_CONNECTIONS_MAX),
            Clients::new("admin connections", limits::ADMIN_CLIENT_CONNECTIONS_MAX),
        );
        let admin = Arc::new(AdminDoor::new(self.state));
        let bounds = Bounds { write_time_max: wall_time_max, h2c: false };
        let admin = Listener::new(self.admin, admin, admin_connections, bounds, metrics);
        let admin = tokio::spawn(admin.run(admin_closed));
        let housekeeping = tokio::spawn(keep_house(
            self.rooms.clone(),
            self.config.component_park_time_max,
            self.config.statement_grace,
        ));
        let sweep = tokio::spawn({
            let tenants = self.rooms.tenants.clone();
            async move { tenants.sweep_leftovers().await }
        });
        tokio::select! {
            _ = terminate.recv() => tracing::info!("SIGTERM: draining"),
            _ = interrupt.recv() => tracing::info!("SIGINT: draining"),
        }
        self.draining.store(true, Ordering::Relaxed);
        drain.send_replace(true);
        sweep.abort();
        let connections = public.await?;
        drain_requests(connections, &self.rooms.admission, self.config.drain_deadline).await;
        close_admin.send_replace(true);
        admin.await?.shutdown().await;
        housekeeping.abort();
        close(&self.rooms).await;
        Ok(())
    }
}

impl Rooms {
    async fn build(config: &Config, keys: &Keys, lock: &File) -> Result<Self> {
        database::start().map_err(anyhow::Error::msg)?;
        let plan = config.memory;
        let memory = Arc::new(Budget::new(plan.shared_bytes, plan.bytes - plan.bytes / 16));
        let program = std::env::current_exe()?;
        let database = start_database(config, &program, lock, &memory)?;
        let store = Store::open(database.clone(), &config.data.join("control.db")).await?;
        let store = Arc::new(store);
        let variables = Arc::new(Variables::new(store.clone(), keys.variables));
        let metrics: Arc<Metrics> = Arc::default();
        let outbound = Arc::new(Outbound::new(config.outbound.clone(), memory.clone(), metrics.clone())?);
        let sandbox = Sandbox::new(config.guest, config.pool(), memory.clone(), metrics.clone()).context(
            "the sandbox cannot be made; concurrency_max decides how much address space it reserves",
        )?;
        let sandbox = Arc::new(sandbox);
        let artifacts = config.data.join("artifacts");
        make_private_folder(&artifacts)?;
        let artifacts = Artifacts::new(artifacts, keys.artifacts);
        let compiler_limits = CompilerLimits {
            bytes_max: plan.compile_bytes_max,
            bytes_charged: plan.compile_charge,
            cpu_time_max: config.compile_cpu_time_max,
            sandbox: config.process_sandbox,
        };
        let compiler = Compiler::new(program, compiler_limits, memory.clone());
        let disk = Arc::new(Disk::of(config.data.clone(), config.disk_free_bytes_min));
        let watched = Watched { disk: disk.clone(), metrics: metrics.clone() };
        let folder = config.data.join("tenants");
        let tenants = Tenants::new(folder, database.clone(), config.tenants.clone(), store.clone(), watched);
        Ok(Self {
            directory: Arc::new(Directory::new(store.clone(), variables.clone(), plan.routes_max)),
            store,
            variables,
            admission: Arc::new(Admission::new(config.admission())),
            catalog: Arc::new(Catalog::new(
                artifacts,
                sandbox.clone(),
                compiler,
                plan.components_max,
                metrics.clone(),
            )),
            database,
            tenants,
            sandbox,
            outbound,
            memory,
            disk,
            clients: Clients::new(
                "requests; if it is a proxy, name it in trusted_proxies",
                config.ingress.client_requests_max,
            ),
            metrics,
        })
    }

    fn edge(&self, config: &Config, draining: Arc<AtomicBool>) -> Edge {
        Edge {
            directory: self.directory.clone(),
            admission: self.admission.clone(),
            catalog: self.catalog.clone(),
            tenants: self.tenants.clone(),
            sandbox: self.sandbox.clone(),
            outbound: self.outbound.clone(),
            memory: self.memory.clone(),
            clients: self.clients.clone(),
            metrics: self.metrics.clone(),
            base_domain: config.base_domain.clone(),
            proxies: config.proxies.clone(),
            body_bytes_max: config.body_bytes_max,
            limits: config.guest,
            draining,
        }
    }

    fn gauges(&self, (connections, connected): &(Connections, Arc<Clients>)) -> Gauges {
        let (sandbox, tenants) = (self.sandbox.figures(), self.tenants.figures());
        let (components_mapped, components_mapped_bytes) = self.catalog.mapped();
        let (memory, admission) = (self.memory.figures(), self.admission.figures());
        let (processes, log) = (self.database.process_figures(), self.database.log_figures());
        Gauges {
            requests_in_flight: admission.running,
            requests_waiting: admission.waiting,
            tenants_counted: admission.tenants,
            connections: connections.open(),
            clients_present: connected.present() + self.clients.present(),
            instances: sandbox.instances,
            guests_in_line: sandbox.guests_in_line,
            pool_unused_resident_bytes: sandbox.pool_unused_resident_bytes,
            components_mapped,
            components_mapped_bytes,
            database_sessions: tenants.open,
            database_sessions_parked: tenants.parked,
            database_parked_bytes: tenants.parked_bytes,
            database_commands_running: tenants.commands.running,
            database_commands_waiting: tenants.commands.waiting,
            tenants_present: tenants.present,
            databases_quarantined: tenants.quarantined,
            databases_suspended: tenants.suspended,
            routes_remembered: self.directory.remembered(),
            memory_shared_bytes_max: memory.bytes_max,
            memory_shared_bytes: memory.used,
            memory_refusals: memory.refused,
            resident_bytes: self.resident_bytes(),
            disk_free_bytes: self.disk.free_bytes(),
            disk_is_low: u64::from(self.disk.is_low()),
            database_processes: processes.pids.len() as u64,
            database_process_deaths: processes.deaths,
            commit_log_records: log.records,
            commit_log_flushes: log.flushes,
        }
    }

    /// Resident memory of the node, its database processes included.
    fn resident_bytes(&self) -> u64 {
        let processes = self.database.process_figures().pids;
        telemetry::resident_bytes(None)
            + processes.into_iter().map(|pid| telemetry::resident_bytes(Some(pid))).sum::<u64>()
    }
}

/// Starts what runs SQL: threads of this process and, where they are asked for, processes for the tenants' part.
fn start_database(config: &Config, program: &Path, lock: &File, memory: &Arc<Budget>) -> Result<Database> {
    let sessions_max = config.tenants.sessions_max.saturating_add(CONTROL_SESSIONS);
    let processes = config.database_processes;
    if processes == 0 {
        let threads = config.database_threads;
        return Ok(match start_commit_log(config)? {
            Some(log) => Database::start_logged(log, threads, sessions_max, memory)?,
            None => Database::start(threads, sessions_max, memory)?,
        });
    }
    let memory_bytes = config.memory.database_process_bytes;
    let threads = config.database_threads.div_ceil(processes).max(limits::DATABASE_PROCESS_THREADS_MIN);
    let stack_bytes = limits::DATABASE_STACK_BYTES as u64 * u64::from(threads);
    let recipe = ProcessRecipe {
        program: program.to_owned(),
        folder: config.data.clone(),
        sandbox: config.process_sandbox,
        processes,
        size: ProcessSize {
            threads,
            memory_bytes,
            address_bytes: limits::DATABASE_PROCESS_ADDRESS_BYTES + stack_bytes + config.memory.bytes,
        },
        sessions_max,
        lock: lock.try_clone()?,
    };
    let database = Database::start(CONTROL_THREADS, sessions_max, memory)?;
    database.with_processes(recipe).context("a database process cannot be started")
}

/// Starts the log of tenants' commits; none on a disk that has little room for it.
fn start_commit_log(config: &Config) -> Result<Option<CommitLog>> {
    let free = rustix::fs::statvfs(&config.data).context("the disk does not tell what is free")?;
    let bytes =
        config.commit_log_bytes.min(free.f_bavail.saturating_mul(free.f_frsize) / limits::COMMIT_LOG_PART);
    if bytes < limits::COMMIT_LOG_BYTES_MIN {
        tracing::info!(
            bytes,
            least = limits::COMMIT_LOG_BYTES_MIN,
            "no commit log: each commit flushes its tenant's own"
        );
        return Ok(None);
    }
    CommitLog::start(&config.data, bytes).context("the commit log cannot be made").map(Some)
}

fn make_private_folder(folder: &Path) -> Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .and_then(|()| folder.ancestors().take(2).try_for_each(|folder| File::open(folder)?.sync_all()))
        .with_context(|| format!("{} cannot be made", folder.display()))
}

/// The mark of a data folder that a restore has not finished.
const UNFINISHED_RESTORE: &str = "restore-unfinished";

fn refuse_unfinished(data: &Path) -> Result<()> {
    if data.join(UNFINISHED_RESTORE).exists() {
        anyhow::bail!(
            "{} is what a restore left that was not finished: remove it, and restore again",
            data.display()
        );
    }
    Ok(())
}

/// Makes the data folder and locks it, so that no second server uses it.
fn lock_data(data: &Path) -> Result<File> {
    make_private_folder(data)?;
    let path = data.join("lock");
    let file = File::create(&path).with_context(|| format!("{} cannot be written", path.display()))?;
    let started = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if started.elapsed() < LOCK_WAIT_MAX => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(TryLockError::WouldBlock) => {
                anyhow::bail!(
                    "{} is in use by another server; stop it, or choose another --data",
                    data.display()
                )
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).context(format!("{} cannot be locked", path.display()));
            }
        }
    }
}

async fn bind(address: SocketAddr, setting: &str) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("{setting}: {address} cannot be bound"))
}

/// Lets go of what idle tenants left in memory.
async fn keep_house(rooms: Rooms, component_idle_max: Duration, statement_grace: Duration) {
    let mut interval = tokio::time::interval(limits::HOUSEKEEPING_INTERVAL);
    loop {
        interval.tick().await;
        rooms.catalog.release_idle(component_idle_max);
        rooms.directory.release_idle(component_idle_max);
        rooms.disk.look();
        rooms.admission.release_idle();
        rooms.database.watch(statement_grace);
        rooms.memory.note_resident(rooms.resident_bytes());
    }
}

async fn drain_requests(mut connections: JoinSet<()>, admission: &Admission, deadline: Duration) {
    let finished = async {
        while connections.join_next().await.is_some() {}
        admission.idle().await;
    };
    if tokio::time::timeout(deadline, finished).await.is_ok() {
        return;
    }
    for request in admission.in_flight() {
        tracing::warn!(
            request_id = %request.request_id,
            address = %request.address,
            milliseconds = u64::try_from(request.since.elapsed().as_millis()).unwrap_or(u64::MAX),
            "a request did not finish before the drain's deadline and is cancelled"
        );
    }
    connections.shutdown().await;
}

async fn close(rooms: &Rooms) {
    let closing = async {
        rooms.tenants.close().await;
        rooms.store.close().await;
        rooms.database.close().await;
    };
    match tokio::time::timeout(CLOSE_TIME_MAX, closing).await {
        Ok(()) => tracing::info!("closed"),
        Err(_) => {
            tracing::warn!("some databases were not closed in time; their WALs are copied at the next start")
        }
    }
}
