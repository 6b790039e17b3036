//! What can become of an outgoing request, for its guest, the log and the metrics.

use std::net::IpAddr;
use std::sync::Arc;

use super::body::BoxError;
use super::destination::{Destination, DestinationError};
use crate::limits;
use crate::memory::Exhausted;
use crate::telemetry::Metrics;

/// Why an outgoing request got no whole response.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// No entry of the function's list allows its destination.
    #[error("its function may not send requests there")]
    Denied,
    /// Every address of its host is special, and none is in a network that the operator allows.
    #[error("{address} is {what}, and no address of the public internet")]
    Prohibited {
        /// The first of them.
        address: IpAddr,
        /// What it is.
        what: &'static str,
    },
    /// Its address cannot be sent to.
    #[error(transparent)]
    Destination(#[from] DestinationError),
    /// It would make a tunnel.
    #[error("the method CONNECT is not sent")]
    Method,
    /// The request that it belongs to has sent as many as it may.
    #[error("a request may send {0} (outbound_requests_max)")]
    TooMany(u32),
    /// The request that it belongs to has as many open as it may.
    #[error("a request may have {0} open at the same time (outbound_concurrency_max)")]
    TooManyAtOnce(u32),
    /// The node has as many open as it may.
    #[error("the node has {0} open already")]
    NodeBusy(u32),
    /// The node has no memory for it.
    #[error(transparent)]
    NodeMemory(#[from] Exhausted),
    /// Its body is too large.
    #[error("its body may have {0} bytes (outbound_request_bytes_max)")]
    RequestBytes(u64),
    /// The body of its response is too large.
    #[error("the body of its response may have {0} bytes (outbound_response_bytes_max)")]
    ResponseBytes(u64),
    /// The head of its response is too large.
    #[error("the head of its response is too large: at most {} bytes", limits::OUTBOUND_BUFFER_BYTES)]
    ResponseHead,
    /// Its host has no address.
    #[error("its host has no address")]
    NoSuchName,
    /// Nobody told the addresses of its host.
    #[error("the addresses of its host cannot be had: {0}")]
    Unresolved(String),
    /// Nobody told them in time.
    #[error(
        "the addresses of its host did not come in time (outbound_connect_time_max_ms, or what the guest asked for)"
    )]
    ResolveTime,
    /// Nobody listens there.
    #[error("the connection was refused")]
    Refused,
    /// There is no way there.
    #[error("its server cannot be reached: {0}")]
    Unreachable(String),
    /// No connection in time.
    #[error("there was no connection in time (outbound_connect_time_max_ms, or what the guest asked for)")]
    ConnectTime,
    /// No head of a response in time.
    #[error(
        "the response did not begin in time (outbound_first_byte_time_max_ms, or what the guest asked for)"
    )]
    FirstByteTime,
    /// The response paused for too long.
    #[error(
        "the response did not go on in time (outbound_between_bytes_time_max_ms, or what the guest asked for)"
    )]
    BetweenBytesTime,
    /// The request that it belongs to must be answered by now.
    #[error("the time of the request is over")]
    WallTime,
    /// The server's certificate is not valid for its host.
    #[error("the server's certificate is not valid: {0}")]
    Certificate(String),
    /// The server ended the handshake of TLS.
    #[error("the server ended the TLS handshake: {message}")]
    TlsAlert {
        /// The number of its alert.
        id: u8,
        /// The alert's name.
        message: String,
    },
    /// The handshake of TLS failed.
    #[error("TLS failed: {0}")]
    Tls(String),
    /// Its body ended in an error, which is the guest's.
    #[error("its body is incomplete: {0}")]
    RequestBody(BoxError),
    /// The server closed the connection before the response was whole.
    #[error("the connection ended before the response was whole: {0}")]
    Incomplete(String),
    /// The response is no HTTP.
    #[error("the response is not HTTP/1.1: {0}")]
    Protocol(String),
}

impl Failure {
    /// What the metrics call it.
    fn outcome(&self) -> &'static str {
        match self {
            Self::Denied => "denied-by-list",
            Self::Prohibited { .. } => "denied-by-address",
            Self::TooMany(_)
            | Self::TooManyAtOnce(_)
            | Self::NodeBusy(_)
            | Self::NodeMemory(_)
            | Self::RequestBytes(_)
            | Self::ResponseBytes(_)
            | Self::ResponseHead
            | Self::ResolveTime
            | Self::ConnectTime
            | Self::FirstByteTime
            | Self::BetweenBytesTime
            | Self::WallTime => "cap",
            Self::Destination(_)
            | Self::Method
            | Self::NoSuchName
            | Self::Unresolved(_)
            | Self::Refused
            | Self::Unreachable(_)
            | Self::Certificate(_)
            | Self::TlsAlert { .. }
            | Self::Tls(_)
            | Self::RequestBody(_)
            | Self::Incomplete(_)
            | Self::Protocol(_) => "failed",
        }
    }

    /// What would allow it.
    fn remedy(&self, destination: &Destination) -> String {
        match self {
            Self::Denied => format!(
                "; to allow it, deploy the function with allowed_outbound_hosts = [\"{destination}\"] in its dormouse.toml"
            ),
            Self::Prohibited { address, .. } => {
                format!("; to allow it, start the node with --outbound-networks-allowed {address}")
            }
            _ => String::new(),
        }
    }

    /// Writes the log line of the request that it belongs to.
    pub(super) fn tell(&self, destination: Option<&Destination>) {
        match destination {
            Some(destination) => tracing::info!(
                target: "guest",
                %destination,
                outcome = self.outcome(),
                "the request to {destination} was not sent or not answered: {self}{}",
                self.remedy(destination)
            ),
            None => {
                tracing::info!(target: "guest", outcome = self.outcome(), "a request was not sent: {self}")
            }
        }
    }
}

/// Counts an outgoing request, once, when it is over.
pub(super) struct Tally {
    metrics: Arc<Metrics>,
    outcome: &'static str,
}

impl Tally {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, outcome: "given-up" }
    }

    pub(super) fn answered(&mut self) {
        self.outcome = "allowed";
    }

    pub(super) fn failed(&mut self, failure: &Failure) {
        self.outcome = failure.outcome();
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.metrics.sent(self.outcome);
    }
}
