//! The sandbox: runs one guest for one request, within its limits, and says how it went.
//!
//! It owns the engine, the linker, the instance pool and the ticker. A guest gets a fresh instance and a store of
//! its own; its database lease and its admission ticket live in that store and go when it drops, whatever the
//! reason. The sandbox reads no request and chooses no status: [`crate::edge`] does.

mod body;
mod engine;
mod guest;
mod guest_event;
mod logs;
mod meter;
mod sqlite;
mod ticker;
mod variables;

use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Bytes;
use tokio::sync::oneshot;
use wasmtime::component::{Component, Linker};
use wasmtime::{Engine, Store, Trap};
use wasmtime_wasi_http::WasiHttpView as _;
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, Scheme};
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

use crate::admission::Ticket;
use crate::limits;
use crate::telemetry::in_current_request;
use crate::tenant::Lease;
use body::Ended;
pub use body::{GuestBody, Interrupted, OnDisconnect};
pub use engine::compile;
use guest::Guest;
use meter::Metered;
use ticker::Ticker;
pub use variables::{Reading, Unavailable, Variables};

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
}

impl GuestLimits {
    /// These limits, each lowered to what a function asks for itself.
    #[must_use]
    pub fn lowered_to(
        self,
        memory: Option<u64>,
        cpu_time: Option<Duration>,
        wall_time: Option<Duration>,
    ) -> Self {
        Self {
            memory_bytes_max: memory.map_or(self.memory_bytes_max, |own| own.min(self.memory_bytes_max)),
            cpu_time_max: cpu_time.map_or(self.cpu_time_max, |own| own.min(self.cpu_time_max)),
            wall_time_max: wall_time.map_or(self.wall_time_max, |own| own.min(self.wall_time_max)),
        }
    }
}

/// Why a guest gave no whole response.
#[derive(Debug, thiserror::Error)]
pub enum GuestFailure {
    /// It trapped: `unreachable`, an out-of-bounds access, a panic.
    #[error("the guest trapped: {0}")]
    Trap(String),
    /// It used all the CPU time of a request.
    #[error("the guest used more than {} ms of CPU time", .0.as_millis())]
    CpuTime(Duration),
    /// It asked for more memory than it may have, and trapped.
    #[error("the guest needed more than {0} bytes of memory")]
    Memory(u64),
    /// It had not finished when the request's time was over.
    #[error("the guest did not finish within {} ms", .0.as_millis())]
    WallTime(Duration),
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

/// Why a component cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// It imports what the node does not offer, or exports no handler.
    #[error("{0}")]
    Unsupported(String),
    /// Its compiled form cannot be read.
    #[error("the compiled component cannot be read: {0}")]
    Unreadable(String),
}

/// A component that is compiled, mapped and linked: one step from an instance.
pub struct Compiled(ProxyPre<Guest>);

/// One run of a guest.
pub struct Run {
    /// The request, as the guest will see it. Its address has a scheme and an authority.
    pub request: http::Request<RequestBody>,
    /// When the response must be complete.
    pub deadline: Instant,
    /// What this guest may take: the node's limits or less.
    pub limits: GuestLimits,
    /// The right to run; goes with the store.
    pub ticket: Ticket,
    /// The right to the tenant's database; goes with the store.
    pub lease: Lease,
    /// What the operator has set for the function.
    pub variables: Arc<dyn Variables>,
    /// What happens to the guest when the client goes away before the whole response is sent.
    pub on_disconnect: OnDisconnect,
}

/// The engine and all that is made once from it.
pub struct Sandbox {
    engine: Engine,
    linker: Linker<Guest>,
    ticker: Ticker,
}

impl Sandbox {
    /// An engine whose pool holds `concurrency_max` guests of at most these limits.
    ///
    /// # Errors
    /// When the pool's address space cannot be had, or the ticker's thread.
    pub fn new(limits: GuestLimits, concurrency_max: u32) -> anyhow::Result<Self> {
        let engine = engine::runner(limits, concurrency_max)?;
        let linker = guest::linker(&engine)?;
        let ticker = Ticker::start(&engine)?;
        Ok(Self { engine, linker, ticker })
    }

    /// What the compiled form of a component depends on: wasmtime's version and the engine's settings.
    #[must_use]
    pub fn compatibility(&self) -> u64 {
        engine::compatibility(&self.engine)
    }

    /// Maps a compiled component from disk and links it.
    ///
    /// # Errors
    /// When it does not fit this engine, or imports what the node does not offer.
    #[expect(unsafe_code, reason = "wasmtime trusts the bytes of a compiled component")]
    pub fn link(&self, path: &std::path::Path) -> Result<Compiled, LinkError> {
        // SAFETY: the catalog has checked the file's keyed MAC, and keeps it in a folder that is the server's alone.
        let component = unsafe { Component::deserialize_file(&self.engine, path) }
            .map_err(|error| LinkError::Unreadable(format!("{error:#}")))?;
        let linked = self.linker.instantiate_pre(&component).map_err(unsupported)?;
        ProxyPre::new(linked).map(Compiled).map_err(|_| {
            LinkError::Unsupported(
                "the component exports no wasi:http/incoming-handler@0.2; \
                 build it with the dormouse SDK or another wasi:http 0.2 toolkit"
                    .to_owned(),
            )
        })
    }

    /// Runs a guest until its response's head is there; what it still does then runs beside the body.
    ///
    /// The guest is polled by the caller until then: most have finished with the head, and need no task of their
    /// own. Dropping this future cancels the guest.
    ///
    /// # Errors
    /// When the guest fails before the head.
    pub async fn run(
        self: &Arc<Self>,
        compiled: Arc<Compiled>,
        run: Run,
    ) -> Result<http::Response<GuestBody>, GuestFailure> {
        let (head, mut response) = oneshot::channel();
        let ended = Ended::default();
        let on_disconnect = run.on_disconnect;
        let mut guest = Box::pin(self.clone().drive(compiled, run, head, ended.clone()));
        let (outcome, response) = tokio::select! {
            biased;
            outcome = guest.as_mut() => (Some(outcome), response.try_recv().ok()),
            response = &mut response => (None, response.ok()),
        };
        let (response, rest) = match (outcome, response) {
            // Nothing has been sent yet, so that a guest that fails behind its head can still be told of.
            (Some(Err(failure)), _) => return Err(failure),
            (_, None) => return Err(GuestFailure::NoResponse),
            (_, Some(Err(code))) => return Err(GuestFailure::ErrorCode(format!("{code:?}"))),
            (Some(Ok(())), Some(Ok(response))) => (response, None),
            (None, Some(Ok(response))) => {
                (response, Some(body::Rest::new(tokio::spawn(in_current_request(guest)))))
            }
        };
        Ok(response.map(|inner| GuestBody::new(inner, ended, rest, on_disconnect)))
    }

    async fn drive(
        self: Arc<Self>,
        compiled: Arc<Compiled>,
        run: Run,
        head: oneshot::Sender<Result<http::Response<HyperOutgoingBody>, ErrorCode>>,
        ended: Ended,
    ) -> Result<(), GuestFailure> {
        let (deadline, limits) = (run.deadline, run.limits);
        let mut store = self.store(Guest::new(run.ticket, run.lease, run.variables, limits));
        // Declared after the store, so that it speaks before the store closes the body.
        let mut verdict = ended.verdict();
        let _ticking = self.ticker.tick();
        let metered = Metered::new(limits.cpu_time_max);
        let call = metered.run(call(&mut store, &compiled, run.request, head));
        let outcome = match tokio::time::timeout_at(deadline.into(), call).await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(error))) => Err(classify(&error, store.data(), limits)),
            Ok(Err(meter::Exceeded)) => Err(GuestFailure::CpuTime(limits.cpu_time_max)),
            Err(_) => Err(GuestFailure::WallTime(limits.wall_time_max)),
        };
        match &outcome {
            Ok(()) => verdict.completed(),
            Err(failure) => tracing::info!(%failure, "guest failed"),
        }
        outcome
    }

    fn store(&self, guest: Guest) -> Store<Guest> {
        let mut store = Store::new(&self.engine, guest);
        store.limiter(|guest| &mut guest.limiter);
        store.set_epoch_deadline(1);
        store.epoch_deadline_async_yield_and_update(1);
        store.set_hostcall_fuel(limits::HOSTCALL_BYTES_MAX);
        store
    }

    /// Bytes that the pool keeps resident in slots no guest uses, and guests that run now.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let metrics = self.engine.pooling_allocator_metrics();
        let resident = metrics.as_ref().map_or(0, |metrics| {
            metrics.unused_memory_bytes_resident()
                + metrics.unused_table_bytes_resident()
                + metrics.unused_stack_bytes_resident().unwrap_or(0)
        });
        let instances = metrics.as_ref().map_or(0, wasmtime::PoolingAllocatorMetrics::component_instances);
        Figures { instances, pool_unused_resident_bytes: resident as u64 }
    }
}

/// What the sandbox holds now.
#[derive(Debug, Clone, Copy)]
pub struct Figures {
    /// Live instances.
    pub instances: u64,
    /// Resident bytes of slots that no guest uses.
    pub pool_unused_resident_bytes: u64,
}

async fn call(
    store: &mut Store<Guest>,
    compiled: &Compiled,
    request: http::Request<RequestBody>,
    head: oneshot::Sender<Result<http::Response<HyperOutgoingBody>, ErrorCode>>,
) -> wasmtime::Result<()> {
    let is_https = request.uri().scheme() == Some(&http::uri::Scheme::HTTPS);
    let scheme = if is_https { Scheme::Https } else { Scheme::Http };
    let request = store.data_mut().http().new_incoming_request(scheme, request)?;
    let outparam = store.data_mut().http().new_response_outparam(head)?;
    let proxy = compiled.0.instantiate_async(&mut *store).await?;
    proxy.wasi_http_incoming_handler().call_handle(store, request, outparam).await
}

fn classify(error: &wasmtime::Error, guest: &Guest, limits: GuestLimits) -> GuestFailure {
    if error.is::<wasmtime::PoolConcurrencyLimitError>() {
        GuestFailure::PoolExhausted(format!("{error:#}"))
    } else if guest.limiter.memory_was_refused {
        GuestFailure::Memory(limits.memory_bytes_max)
    } else if let Some(trap) = error.downcast_ref::<Trap>() {
        GuestFailure::Trap(format!("{trap}"))
    } else {
        GuestFailure::Trap(format!("{error:#}"))
    }
}

fn unsupported(error: wasmtime::Error) -> LinkError {
    LinkError::Unsupported(format!("{error:#}"))
}
