//! The outbound room: sends a guest's HTTP requests, to where its function may send them and nowhere else.
//!
//! ```text
//! allow-list → caps → resolve → judge the address → connect to that very address → TLS with the name → HTTP/1.1
//! ```
//!
//! A redirect is a response like any other; following it is a new request of the guest, which walks the same way. Each
//! request has a connection of its own. The room knows nothing of wasmtime, and of tenants only what a log line says.
//!
//! A call lives no longer than its guest or the body of its response, whichever goes last, and never beyond the
//! deadline of the request that it belongs to.

pub mod address;
mod body;
mod connect;
pub mod destination;
mod exchange;
mod failure;
mod resolve;
mod tls;

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Method, Request, Response};
use hyper::body::{Body, Bytes};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::limits;
use crate::manifest::OutboundHosts;
use crate::memory::{Budget, Charge};
use crate::network::Networks;
use crate::telemetry::{Metrics, in_current_request};
pub use body::{BoxError, ResponseBody};
use destination::Destination;
pub use failure::Failure;
use failure::Tally;
use resolve::Resolver;
pub use resolve::{NameServer, NameServerError};
use tls::Tls;
pub use tls::{Authorities, AuthoritiesError};

/// What holds for the outgoing requests of every function.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Networks that may be reached although they are not of the public internet.
    pub networks_allowed: Networks,
    /// Who is asked for addresses, if it is not who the machine asks.
    pub resolver: Option<NameServer>,
    /// Who may sign servers' certificates besides the known authorities.
    pub authorities: Authorities,
    /// Open outgoing requests of one request.
    pub concurrency_max: u32,
    /// Outgoing requests of one request, one after the other.
    pub requests_max: u32,
    /// Body of an outgoing request.
    pub request_bytes_max: u64,
    /// Body of its response.
    pub response_bytes_max: u64,
    /// How long the steps may take.
    pub times: Times,
}

/// How long the steps of an outgoing request may take.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// To resolve the name, connect, and agree on TLS.
    pub connect: Duration,
    /// From then on until the head of the response is there.
    pub first_byte: Duration,
    /// Between two parts of its body.
    pub between_bytes: Duration,
}

impl Times {
    /// These times, each lowered to what a guest asks for.
    #[must_use]
    pub fn lowered_to(
        self,
        connect: Option<Duration>,
        first_byte: Option<Duration>,
        between_bytes: Option<Duration>,
    ) -> Self {
        let lowered = |own: Duration, asked: Option<Duration>| asked.map_or(own, |asked| asked.min(own));
        Self {
            connect: lowered(self.connect, connect),
            first_byte: lowered(self.first_byte, first_byte),
            between_bytes: lowered(self.between_bytes, between_bytes),
        }
    }
}

/// Why a node cannot send requests at all.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// TLS cannot be set up.
    #[error("TLS for outgoing requests cannot be set up: {0}")]
    Tls(String),
    /// Names cannot be resolved.
    #[error("the resolver cannot be set up: {0}")]
    Resolver(String),
}

/// What all outgoing requests of a node share.
pub struct Outbound {
    policy: Policy,
    resolver: Resolver,
    tls: Tls,
    open: Arc<Semaphore>,
    memory: Arc<Budget>,
    metrics: Arc<Metrics>,
}

impl Outbound {
    /// Reads which name servers the machine asks. What calls take for their buffers is charged to `memory`.
    ///
    /// # Errors
    /// When TLS or the resolver cannot be set up.
    pub fn new(policy: Policy, memory: Arc<Budget>, metrics: Arc<Metrics>) -> Result<Self, StartError> {
        let resolver = Resolver::new(policy.resolver)?;
        let tls = Tls::new(&policy.authorities)?;
        let open = Arc::new(Semaphore::new(limits::OUTBOUND_CONNECTIONS_MAX as usize));
        Ok(Self { policy, resolver, tls, open, memory, metrics })
    }
}

/// One request of a function, as the sender of its outgoing ones.
pub struct Caller {
    outbound: Arc<Outbound>,
    hosts: Arc<OutboundHosts>,
    deadline: Instant,
    sent: u32,
    /// Made for the first call: most requests make none.
    calls: Option<Calls>,
}

/// The calls of one request.
struct Calls {
    /// One permit for each that may be open.
    open: Arc<Semaphore>,
    /// They end when the last clone of it is gone.
    present: watch::Sender<()>,
}

/// A response whose head is there.
pub struct Answer {
    /// The response; its body arrives while [`Self::io`] runs.
    pub response: Response<ResponseBody>,
    /// What moves both bodies.
    pub io: Io,
}

/// Work beside the body of a response.
pub type Io = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>>;

/// A call that may be made.
struct Admitted {
    destination: Destination,
    /// Of its request, and of the node.
    _permits: [OwnedSemaphorePermit; 2],
    _charge: Charge,
}

impl Caller {
    /// A sender to `hosts` until `deadline`.
    #[must_use]
    pub fn new(outbound: Arc<Outbound>, hosts: Arc<OutboundHosts>, deadline: Instant) -> Self {
        Self { outbound, hosts, deadline, sent: 0, calls: None }
    }

    /// The times that a call may take at most.
    #[must_use]
    pub fn times(&self) -> Times {
        self.outbound.policy.times
    }

    /// Sends a request whose address is absolute, and waits for the head of its response.
    ///
    /// # Errors
    /// Of the future: when the request may not or cannot be sent, or no response comes.
    pub fn send<B>(
        &mut self,
        request: Request<B>,
        times: Times,
    ) -> impl Future<Output = Result<Answer, Failure>> + Send + use<B>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
    {
        self.sent = self.sent.saturating_add(1);
        let is_told = self.sent <= self.outbound.policy.requests_max.saturating_add(1);
        let concurrency_max = self.outbound.policy.concurrency_max as usize;
        let calls = self.calls.get_or_insert_with(|| Calls {
            open: Arc::new(Semaphore::new(concurrency_max)),
            present: watch::Sender::new(()),
        });
        let (open, present) = (calls.open.clone(), calls.present.clone());
        let admitted = self.admit(&request, open);
        let call = exchange::Call {
            outbound: self.outbound.clone(),
            times,
            deadline: self.deadline,
            present,
            tally: Tally::new(self.outbound.metrics.clone()),
        };
        in_current_request(async move {
            let mut call = call;
            let outcome = match admitted {
                Ok(admitted) => return call.exchange(admitted, request).await,
                Err(failure) => failure,
            };
            call.tally.failed(&outcome);
            if is_told {
                outcome.tell(Destination::of(request.uri()).ok().as_ref());
            }
            Err(outcome)
        })
    }

    fn admit<B: Body>(&self, request: &Request<B>, open: Arc<Semaphore>) -> Result<Admitted, Failure> {
        let policy = &self.outbound.policy;
        if self.sent > policy.requests_max {
            return Err(Failure::TooMany(policy.requests_max));
        }
        let destination = Destination::of(request.uri())?;
        if *request.method() == Method::CONNECT {
            return Err(Failure::Method);
        }
        if !self.hosts.allow(destination.scheme(), &destination.host, destination.port) {
            return Err(Failure::Denied);
        }
        if request.body().size_hint().lower() > policy.request_bytes_max {
            return Err(Failure::RequestBytes(policy.request_bytes_max));
        }
        let at_once = Failure::TooManyAtOnce(policy.concurrency_max);
        let own = open.try_acquire_owned().map_err(|_| at_once)?;
        let busy = Failure::NodeBusy(limits::OUTBOUND_CONNECTIONS_MAX);
        let of_node = self.outbound.open.clone().try_acquire_owned().map_err(|_| busy)?;
        let charge = self.outbound.memory.charge(limits::OUTBOUND_CALL_BYTES)?;
        Ok(Admitted { destination, _permits: [own, of_node], _charge: charge })
    }
}
