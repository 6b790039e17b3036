//! The edge: the corridor that every request walks down. [`Edge::walk`] names the rooms in order.
//!
//! It owns the request's id, its span, its deadline and its reply. What can be wrong with a request stands in
//! [`intake`], what of its header a guest sees in [`hygiene`], what can be answered in [`reply`], what a guest may say to
//! a browser in [`origin`].

mod client;
mod cookie;
mod function_limits;
mod hygiene;
mod intake;
mod origin;
mod reply;
mod request_body;
mod variables;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use http::uri::Authority;
use http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use crate::admission::{Admission, InFlight};
use crate::catalog::Catalog;
use crate::control::Directory;
use crate::listener::{Clients, Door, Held, Peer, TrustedProxies};
use crate::memory::{Budget, Exhausted};
use crate::outbound::{Caller, Outbound};
use crate::request_id::RequestId;
use crate::routing::{self, BaseDomain, Route};
use crate::sandbox::{GuestFailure, GuestLimits, OnDisconnect, Run, Sandbox};
use crate::telemetry::{Metrics, RequestContext};
use crate::tenant::Tenants;
use client::Client;
pub use function_limits::as_manifest;
use reply::Failure;
pub use reply::ReplyBody;
use request_body::{BoundedBody, Bounds, Broken};
use variables::VariablesOf;

/// The rooms behind the corridor, and what holds for every request.
pub struct Edge {
    /// What addresses stand for.
    pub directory: Arc<Directory>,
    /// Turns.
    pub admission: Arc<Admission>,
    /// Components.
    pub catalog: Arc<Catalog>,
    /// Databases.
    pub tenants: Tenants,
    /// Guests.
    pub sandbox: Arc<Sandbox>,
    /// Requests of guests.
    pub outbound: Arc<Outbound>,
    /// What requests may take of the node's memory.
    pub memory: Arc<Budget>,
    /// Which clients have requests in flight.
    pub clients: Arc<Clients>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Below which tenants have hosts of their own.
    pub base_domain: Option<BaseDomain>,
    /// Whose word about a client is believed.
    pub proxies: Option<Arc<TrustedProxies>>,
    /// Largest request body.
    pub body_bytes_max: u64,
    /// What a request may take at most; a function can ask for less.
    pub limits: GuestLimits,
    /// Whether the node is shutting down.
    pub draining: Arc<AtomicBool>,
}

impl Door for Edge {
    type Body = Held<ReplyBody>;

    async fn answer(&self, request: Request<Incoming>, peer: Peer) -> Response<Held<ReplyBody>> {
        let arrived = Instant::now();
        let id = RequestId::of(request.headers());
        let client = Client::of(peer, request.headers(), self.proxies.as_deref());
        let share = self.clients.enter(client.address.ip());
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let authority = intake::authority(request.uri(), request.headers());
        let host = authority.as_ref().map_or("", Authority::host);
        let route = intake::check_form(&request)
            .and_then(|()| Ok(routing::route(host, &path, self.base_domain.as_ref())?));
        let address = route.as_ref().ok().map(|route| &route.address);
        let context = RequestContext {
            request_id: id.shared(),
            client: Some(client.address.ip()),
            tenant: address.map(|address| address.tenant.clone()),
            function: address.map(|address| address.function.clone()),
        };
        let answered = async {
            let answered = match route {
                _ if share.is_none() => Err(Failure::ClientBusy),
                Ok(route) => self.walk(request, route, &client, arrived, &id).await,
                Err(failure) => Err(failure),
            };
            let outcome = answered.as_ref().map_or_else(|failure| failure.problem().slug, |_| "ok");
            self.metrics.answered(outcome, arrived.elapsed().as_secs_f64());
            let response = match answered {
                Ok(response) => response,
                Err(failure) => {
                    if failure.is_internal() {
                        tracing::error!(%failure, "the node failed a request");
                    } else {
                        tracing::debug!(%failure, "the request failed");
                    }
                    failure.into_response(&id)
                }
            };
            // A target of its own, so that it can be had without the rest of the debug level.
            tracing::debug!(
                target: "request",
                %method,
                path,
                status = response.status().as_u16(),
                outcome,
                microseconds = u64::try_from(arrived.elapsed().as_micros()).unwrap_or(u64::MAX),
                "answered"
            );
            response.map(|body| Held::new(body, share))
        };
        context.scope(answered).await
    }
}

impl Edge {
    /// The corridor.
    async fn walk(
        &self,
        request: Request<Incoming>,
        route: Route<'_>,
        client: &Client,
        arrived: Instant,
        id: &RequestId,
    ) -> Result<Response<ReplyBody>, Failure> {
        if self.draining.load(Ordering::Relaxed) {
            return Err(Failure::Draining);
        }
        if self.memory.is_tight() {
            return Err(Exhausted.into());
        }
        intake::check(&request, self.body_bytes_max, &self.metrics)?;
        origin::check(&request, &route)?;
        let (mut parts, body) = request.into_parts();
        let target = self.directory.resolve(&route.address).await?;
        let address = route.address.to_string().into();
        let in_flight = InFlight { request_id: id.shared(), address, since: arrived };
        let ticket = self.admission.enter(&target.database.tenant, in_flight).await?;
        let limits = function_limits::of(&target.limits, self.limits);
        let deadline = arrived + limits.wall_time_max;
        let compiled = tokio::time::timeout_at(deadline.into(), self.catalog.load(&target.component))
            .await
            .map_err(|_| self.out_of_time(limits, deadline))??;
        let lease = self.tenants.lease(target.database.clone(), target.made.clone());
        intake::rewrite(&mut parts, &route, client, id)?;
        let on_disconnect = on_disconnect(&parts.method);
        let broken = Broken::default();
        let bounds = Bounds { bytes_max: self.body_bytes_max, least_rate: limits.least_rate };
        let body = BoundedBody::new(body, bounds, broken.clone(), self.metrics.clone());
        let request = Request::from_parts(parts, body.boxed_unsync());
        let caller = Caller::new(self.outbound.clone(), target.outbound_hosts.clone(), deadline);
        let variables = Arc::new(VariablesOf { directory: self.directory.clone(), target });
        let run = Run { request, deadline, limits, ticket, lease, variables, caller, on_disconnect };
        let outcome = self.sandbox.run(compiled, run).await;
        if let Some(exceeded) = broken.by() {
            return Err(Failure::Body(exceeded));
        }
        let mut response = reply::from_guest(outcome?, id)?;
        origin::confine(response.headers_mut(), &route, &client.scheme);
        Ok(response)
    }

    fn out_of_time(&self, limits: GuestLimits, deadline: Instant) -> GuestFailure {
        let exceeded = limits.out_of_time(deadline.elapsed());
        self.metrics.exceeded(exceeded);
        exceeded.into()
    }
}

/// A response to HEAD has no body that a client could miss.
fn on_disconnect(method: &Method) -> OnDisconnect {
    if *method == Method::HEAD { OnDisconnect::Finish } else { OnDisconnect::Cancel }
}
