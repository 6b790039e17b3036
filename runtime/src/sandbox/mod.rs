//! The sandbox: runs one guest for one request, within its limits, and says how it went.
//!
//! It owns an engine, a linker and an instance pool for each world of `wasi:http`, the ticker and the slow lane. A
//! guest gets a fresh instance and a store of its own; its database lease lives in that store and goes when it drops,
//! whatever the reason, and its admission ticket goes after it. The sandbox reads no request and chooses no status:
//! [`crate::edge`] does.

mod body;
mod engine;
mod guest;
mod guest_event;
mod lane;
mod least_rate;
mod link;
mod logs;
mod meter;
mod outgoing;
mod p2;
mod p3;
mod sqlite;
mod ticker;
mod variables;
mod world;

use std::future::poll_fn;
use std::path::Path;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Bytes;
use wasmtime::component::ResourceTableError;
use wasmtime::{Engine, Store, Trap};

use crate::admission::Ticket;
use crate::exceeded::{Exceeded, Limit};
use crate::limits;
use crate::memory::{Budget, Exhausted};
use crate::outbound::Caller;
use crate::telemetry::{Metrics, in_current_request};
use crate::tenant::Lease;
use body::{Course, Head, Taking};
pub use body::{GuestBody, Interrupted, OnDisconnect};
pub use engine::{Code, compile};
use guest::{Guest, Limiter};
use lane::{Guided, Lane, Outcome};
pub use least_rate::{LeastRate, Progress};
use link::Runner;
pub use link::{Compiled, LinkError};
use meter::Meter;
use outgoing::Hooks;
use sqlite::Calls;
use ticker::Ticker;
pub use variables::{Reading, Unavailable, Variables};
pub use world::World;

/// The body of a request on its way to a guest.
pub type RequestBody = UnsyncBoxBody<Bytes, wasmtime_wasi_http::Error>;

/// What one guest may take.
#[derive(Debug, Clone, Copy)]
pub struct GuestLimits {
    /// Linear memory, in bytes.
    pub memory_bytes_max: u64,
    /// CPU time of the request.
    pub cpu_time_max: Duration,
    /// Time from the request's arrival to the end of its response.
    pub wall_time_max: Duration,
    /// Body of the response, in bytes.
    pub response_bytes_max: u64,
    /// How slowly its client may send or take a body.
    pub least_rate: LeastRate,
    /// Elements of a table.
    pub table_elements_max: u64,
    /// Core instances that its component is made of.
    pub core_instances_max: u64,
    /// Resource handles; in the 0.3 world also tasks and streams.
    pub handles_max: u64,
    /// Host memory for the arguments of one call, in bytes.
    pub hostcall_bytes_max: u64,
    /// Log output of the request, in bytes.
    pub log_bytes_max: u64,
}

impl Default for GuestLimits {
    fn default() -> Self {
        Self {
            memory_bytes_max: limits::MEMORY_BYTES_MAX,
            cpu_time_max: limits::CPU_TIME_MAX,
            wall_time_max: limits::WALL_TIME_MAX,
            response_bytes_max: limits::RESPONSE_BYTES_MAX,
            least_rate: LeastRate {
                wait_max: limits::BODY_WAIT_MAX,
                bytes_per_second: limits::BODY_BYTES_PER_SECOND_MIN,
            },
            table_elements_max: limits::TABLE_ELEMENTS_MAX,
            core_instances_max: u64::from(limits::CORE_INSTANCES_PER_COMPONENT),
            handles_max: limits::HANDLES_MAX,
            hostcall_bytes_max: limits::HOSTCALL_BYTES_MAX,
            log_bytes_max: limits::LOG_BYTES_MAX,
        }
    }
}

impl GuestLimits {
    /// A request that is not over `late` after its deadline, or at it.
    #[must_use]
    pub fn out_of_time(self, late: Duration) -> Exceeded {
        Exceeded::of_time(Limit::WallTime, self.wall_time_max + late, self.wall_time_max)
    }
}

/// How large the pools of both worlds are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolSize {
    /// Guests that run at the same time, all in one world if it comes to that.
    pub guests_max: u32,
    /// What both pools may keep in slots that no guest uses, in bytes.
    pub idle_bytes_max: u64,
}

impl PoolSize {
    /// What each guest of each world has of it.
    #[must_use]
    pub fn idle_bytes_per_guest(self) -> u64 {
        self.idle_bytes_max / World::ALL.len() as u64 / u64::from(self.guests_max.max(1))
    }
}

/// Why a guest gave no whole response.
#[derive(Debug, thiserror::Error)]
pub enum GuestFailure {
    /// It trapped: `unreachable`, an out-of-bounds access, a panic.
    #[error("the guest trapped: {0}")]
    Trap(String),
    /// It ran into one of its limits.
    #[error(transparent)]
    Limit(#[from] Exceeded),
    /// It asked for memory that the node does not have for requests now, and was ended.
    #[error(transparent)]
    NodeMemory(#[from] Exhausted),
    /// It returned without a response.
    #[error("the guest returned without a response")]
    NoResponse,
    /// It answered with an error code instead of a response.
    #[error("the guest answered with an error: {0}")]
    ErrorCode(String),
    /// The instance pool has no free slot.
    #[error("the instance pool is used up: {0}")]
    PoolExhausted(String),
}

/// One run of a guest.
pub struct Run {
    /// The request, as the guest will see it. Its address has a scheme and an authority.
    pub request: http::Request<RequestBody>,
    /// When the response must be complete.
    pub deadline: Instant,
    /// What this guest may take: the node's limits or less.
    pub limits: GuestLimits,
    /// The right to run; goes after the store.
    pub ticket: Ticket,
    /// The right to the tenant's database; goes with the store.
    pub lease: Lease,
    /// What the operator has set for the function.
    pub variables: Arc<dyn Variables>,
    /// What sends the guest's own requests.
    pub caller: Caller,
    /// What happens to the guest when the client goes away before the whole response is sent.
    pub on_disconnect: OnDisconnect,
}

/// The engines and all that is made once from them.
pub struct Sandbox {
    p2: Runner,
    p3: Runner,
    ticker: Ticker,
    lane: Arc<Lane>,
    memory: Arc<Budget>,
    metrics: Arc<Metrics>,
}

impl Sandbox {
    /// For each world an engine whose pool holds guests of at most these limits. What they take beyond their own part
    /// of the node's memory is charged to `memory`.
    ///
    /// # Errors
    /// When the pools' address space cannot be had, or the threads.
    pub fn new(
        limits: GuestLimits,
        size: PoolSize,
        memory: Arc<Budget>,
        metrics: Arc<Metrics>,
    ) -> anyhow::Result<Self> {
        let p2 = Runner::new(World::P2, limits, size)?;
        let p3 = Runner::new(World::P3, limits, size)?;
        let ticker = Ticker::start(&[&p2.engine, &p3.engine])?;
        let lane = Arc::new(Lane::start()?);
        Ok(Self { p2, p3, ticker, lane, memory, metrics })
    }

    fn runner(&self, world: World) -> &Runner {
        match world {
            World::P2 => &self.p2,
            World::P3 => &self.p3,
        }
    }

    /// What the compiled form of a component depends on: wasmtime's version and the settings of its world's engine.
    #[must_use]
    pub fn compatibility(&self, world: World) -> u64 {
        engine::compatibility(&self.runner(world).engine)
    }

    /// Maps a component from disk that was compiled for a world, and links it.
    ///
    /// # Errors
    /// When it does not fit that world's engine, or imports what the node does not offer.
    pub fn link(&self, world: World, path: &Path) -> Result<Compiled, LinkError> {
        self.runner(world).link(path)
    }

    /// Runs a guest until its response's head is there; what it still does then runs beside the body.
    ///
    /// The guest is polled by the caller until then, and once more: most have finished by that, and need no task of their
    /// own. One that computes is polled in the [slow lane](lane). Dropping this future cancels the guest.
    ///
    /// # Errors
    /// When the guest fails before the head, or right behind it.
    pub async fn run(
        self: &Arc<Self>,
        compiled: Arc<Compiled>,
        run: Run,
    ) -> Result<http::Response<GuestBody>, GuestFailure> {
        let (head, mut response) = Head::channel();
        let (course, taking) = (Course::default(), Taking::new(run.limits.least_rate));
        let load = run.ticket.load().clone();
        let (on_disconnect, deadline) = (run.on_disconnect, run.deadline);
        let has_body = run.request.method() != http::Method::HEAD;
        let size = body::Size::new(run.limits.response_bytes_max, self.metrics.clone());
        if load.typical() > limits::TYPICALLY_HEAVY {
            course.found_heavy();
        }
        let guest = Box::pin(self.clone().drive(compiled, run, head, course.clone(), taking.clone()));
        let mut guest = Guided::new(self.lane.clone(), course.clone(), load, deadline, guest);
        let (outcome, response) = tokio::select! {
            biased;
            outcome = &mut guest => (Some(outcome), response.try_recv().ok()),
            response = &mut response => match response {
                Ok(response) => (None, Some(response)),
                // It has ended, and whoever polls it is about to say how.
                Err(_) => (Some((&mut guest).await), None),
            },
        };
        let (answer, rest) = match (outcome, response) {
            // Nothing has been sent yet, so that a guest that fails behind its head can still be told of.
            (Some(Err(failure)), _) => return Err(failure),
            (_, None) => return Err(GuestFailure::NoResponse),
            (_, Some(Err(code))) => return Err(GuestFailure::ErrorCode(code)),
            (_, Some(Ok(answer))) if has_body && let Some(too_large) = size.promised_by(&answer.response) => {
                self.metrics.exceeded(too_large);
                return Err(too_large.into());
            }
            (Some(Ok(())), Some(Ok(answer))) => (answer, None),
            (None, Some(Ok(answer))) => match at_once(&mut guest).await {
                Some(ended) => (ended.map(|()| answer)?, None),
                None => {
                    taking.watch();
                    (answer, Some(body::Rest::new(tokio::spawn(in_current_request(guest)))))
                }
            },
        };
        Ok(GuestBody::new(answer, body::Parts { course, rest, on_disconnect, deadline, size, taking }))
    }

    async fn drive(
        self: Arc<Self>,
        compiled: Arc<Compiled>,
        run: Run,
        head: Head,
        course: Course,
        taking: Taking,
    ) -> Result<(), GuestFailure> {
        let (deadline, limits) = (run.deadline, run.limits);
        let calls = Calls::new(run.lease, self.memory.clone());
        let limiter = Limiter::new(limits, self.memory.charge(0)?);
        // Declared before the store, so that whoever has the turn next finds the instance's slot free.
        let ticket = run.ticket;
        let hooks = Hooks::new(run.caller);
        let guest = Guest::new(calls, run.variables, hooks, limiter, limits, &self.metrics);
        let mut store = self.store(compiled.world(), guest, limits);
        // Declared after the store, so that it speaks before the store closes the body.
        let mut verdict = course.verdict();
        let _ticking = self.ticker.tick();
        let mut meter = Meter::new(limits.cpu_time_max, course.clone(), ticket.load().clone());
        let ended = {
            // Pinned where they are made: each layer that takes a future by value copies it, with all that it will hold.
            let call = pin!(compiled.call(&mut store, run.request, head));
            let call = pin!(meter.run(call));
            let ended = pin!(async {
                tokio::select! {
                    biased;
                    called = call => called,
                    too_slow = taking.too_slow(&course) => Err(too_slow),
                }
            });
            tokio::time::timeout_at(deadline.into(), ended).await
        };
        let outcome = match ended {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(error))) => Err(classify(&error, store.data(), limits)),
            Ok(Err(exceeded)) => Err(exceeded.into()),
            Err(_) => Err(limits.out_of_time(deadline.elapsed()).into()),
        };
        match &outcome {
            Ok(()) => verdict.completed(),
            Err(GuestFailure::Limit(exceeded)) => self.metrics.exceeded(*exceeded),
            Err(failure) => tracing::info!(%failure, "guest failed"),
        }
        outcome
    }

    fn store(&self, world: World, guest: Guest, limits: GuestLimits) -> Store<Guest> {
        let mut store = Store::new(&self.runner(world).engine, guest);
        store.limiter(|guest| &mut guest.limiter);
        store.set_epoch_deadline(1);
        store.epoch_deadline_async_yield_and_update(1);
        let handles_max = usize::try_from(limits.handles_max).unwrap_or(usize::MAX);
        store.set_hostcall_fuel(usize::try_from(limits.hostcall_bytes_max).unwrap_or(usize::MAX));
        store.set_max_component_handles(handles_max);
        if let Some(tasks_and_streams) = store.concurrent_resource_table() {
            tasks_and_streams.set_max_capacity(handles_max);
        }
        store
    }

    /// What the sandbox holds now.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let (p2, p3) = (figures(&self.p2.engine), figures(&self.p3.engine));
        Figures {
            instances: p2.instances + p3.instances,
            pool_unused_resident_bytes: p2.pool_unused_resident_bytes + p3.pool_unused_resident_bytes,
            guests_in_line: self.lane.waiting(),
        }
    }
}

/// The outcome of a guest that ends when it is polled once more, as one of the 0.3 world does that yields behind its head.
/// The head waits meanwhile, for a tick at most.
async fn at_once(guest: &mut (impl Future<Output = Outcome> + Unpin)) -> Option<Outcome> {
    match poll_fn(|context| Poll::Ready(Pin::new(&mut *guest).poll(context))).await {
        Poll::Ready(outcome) => Some(outcome),
        Poll::Pending => None,
    }
}

fn figures(engine: &Engine) -> PoolFigures {
    let metrics = engine.pooling_allocator_metrics();
    let resident = metrics.as_ref().map_or(0, |metrics| {
        metrics.unused_memory_bytes_resident()
            + metrics.unused_table_bytes_resident()
            + metrics.unused_stack_bytes_resident().unwrap_or(0)
    });
    let instances = metrics.as_ref().map_or(0, wasmtime::PoolingAllocatorMetrics::component_instances);
    PoolFigures { instances, pool_unused_resident_bytes: resident as u64 }
}

/// What one world's pool holds.
struct PoolFigures {
    instances: u64,
    pool_unused_resident_bytes: u64,
}

/// What the sandbox holds now.
#[derive(Debug, Clone, Copy)]
pub struct Figures {
    /// Live instances.
    pub instances: u64,
    /// Resident bytes of slots that no guest uses.
    pub pool_unused_resident_bytes: u64,
    /// Guests of the slow lane that wait for their turn.
    pub guests_in_line: u64,
}

fn classify(error: &wasmtime::Error, guest: &Guest, allowed: GuestLimits) -> GuestFailure {
    if error.is::<wasmtime::PoolConcurrencyLimitError>() {
        GuestFailure::PoolExhausted(format!("{error:#}"))
    } else if let Some(exhausted) = error.downcast_ref::<Exhausted>() {
        GuestFailure::NodeMemory(*exhausted)
    } else if let Some(exceeded) = guest.limiter.refused {
        exceeded.into()
    } else if let Some(exceeded) = limit_of_the_engine(error, allowed) {
        exceeded.into()
    } else if let Some(trap) = error.downcast_ref::<Trap>() {
        GuestFailure::Trap(format!("{trap}"))
    } else {
        GuestFailure::Trap(format!("{error:#}"))
    }
}

/// The limit that wasmtime or its host functions found exceeded. Some of their errors have no type that can be named.
fn limit_of_the_engine(error: &wasmtime::Error, allowed: GuestLimits) -> Option<Exceeded> {
    let whole = |limit, allowed: u64| Some(Exceeded::new(limit, allowed, allowed));
    let says = |text: &str| error.chain().any(|cause| cause.to_string().contains(text));
    if error.downcast_ref::<Trap>() == Some(&Trap::StackOverflow) {
        whole(Limit::Stack, (limits::STACK_BYTES / 2) as u64)
    } else if matches!(error.downcast_ref(), Some(ResourceTableError::Full))
        || says("store handle limit exceeded")
    {
        whole(Limit::Handles, allowed.handles_max)
    } else if says("fuel allocated for hostcalls has been exhausted") {
        whole(Limit::HostCall, allowed.hostcall_bytes_max)
    } else if says("resource limit exceeded: instance count") {
        whole(Limit::CoreInstances, allowed.core_instances_max)
    } else if says("total size of fields exceeds limit") {
        whole(Limit::FieldBytes, limits::FIELD_BYTES_MAX as u64)
    } else if says("requested len") && says("exceeds limit") {
        whole(Limit::RandomBytes, limits::RANDOM_BYTES_MAX)
    } else {
        None
    }
}
