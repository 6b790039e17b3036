//! Who may do what: the token of a request, and what a route needs of one.
//!
//! A request passes two gates: [`authenticate`] finds out whose token it carries, [`authorize`] whether that is enough
//! for its route. A token is bound to a tenant by id, so that another tenant of the same name is not reached with it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use axum::extract::{FromRequestParts, RawPathParams, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{Extensions, HeaderMap};

use super::api::{AdminState, Answer, Shared, find};
use super::extract::Checked;
use super::failures::Verdict;
use super::reply::ApiError;
use super::store::{StoreError, TenantRow};
use super::tokens::Token;
use crate::listener::Peer;
use crate::name::{Id, TenantName};

/// What a token may do with what it reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Access {
    /// Look.
    Read,
    /// Look and change.
    Full,
}

/// What a route needs of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Needs {
    /// That it is valid.
    Token,
    /// That it reaches the whole node.
    Node(Access),
    /// That it reaches the tenant in the path.
    Tenant(Access),
}

impl fmt::Display for Needs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scope, access) = match self {
            Self::Token => return f.write_str("a token"),
            Self::Node(access) => ("the scope node", access),
            Self::Tenant(access) => ("the scope node or of this tenant", access),
        };
        match access {
            Access::Read => write!(f, "a token with {scope}"),
            Access::Full => write!(f, "a token with {scope} that is not read-only"),
        }
    }
}

/// Whose token a request carries.
#[derive(Debug)]
pub(super) struct Caller {
    /// Its token; none when it is the one in the operator's file.
    pub token: Option<Id>,
    /// What its token is called.
    pub label: String,
    /// The only tenant that it reaches.
    pub tenant: Option<Id>,
    access: Access,
}

impl Caller {
    fn operator() -> Self {
        Self { token: None, label: "admin.token".to_owned(), tenant: None, access: Access::Full }
    }

    /// It goes to the log alone: what is refused must not fill the control data.
    fn log_refusal(&self, request: &Request, needs: &str) {
        let (token, label) = (self.token.as_ref().map(Id::as_str), &self.label);
        let (method, path) = (request.method(), request.uri().path());
        let address = address(request).map(tracing::field::display);
        tracing::info!(target: "audit", token, label, address, %method, path, "forbidden: this needs {needs}");
    }

    /// Whoever is let in by [`authenticate`].
    pub(super) fn of(extensions: &Extensions) -> Answer<Arc<Self>> {
        extensions.get().cloned().ok_or_else(|| ApiError::Internal("a request without a caller".to_owned()))
    }
}

/// The tenant in the path, which the caller's token reaches.
#[derive(Debug, Clone)]
pub(super) struct OfTenant {
    pub name: TenantName,
    pub row: TenantRow,
}

impl<S: Send + Sync> FromRequestParts<S> for OfTenant {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let tenant = parts.extensions.get().cloned();
        tenant.ok_or_else(|| ApiError::Internal("a route of a tenant without one".to_owned()))
    }
}

/// Lets in whoever carries a token that holds. One answer for all others: it does not say what is wrong with theirs.
pub(super) async fn authenticate(State(state): Shared, mut request: Request, next: Next) -> Response {
    let caller = match bearer(request.headers()) {
        Some(token) => caller(&state, token).await,
        None => Ok(None),
    };
    match caller {
        Ok(Some(caller)) => {
            request.extensions_mut().insert(Arc::new(caller));
            next.run(request).await
        }
        Ok(None) => refuse(&state, &request).into_response(),
        Err(error) => ApiError::from(error).into_response(),
    }
}

/// What is refused goes to the log alone, and no more of that than is good for it.
fn refuse(state: &AdminState, request: &Request) -> ApiError {
    let address = address(request);
    let verdict = state.failures.note(address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), Instant::now());
    let log = |more: &str| {
        let (method, path) = (request.method(), request.uri().path());
        let address = address.map(tracing::field::display);
        tracing::info!(target: "audit", address, %method, path, "unauthorized{more}");
    };
    let error = match verdict {
        Verdict::Told => {
            log("");
            ApiError::Unauthorized
        }
        Verdict::LastTold => {
            log("; more from this address are not logged for a while");
            ApiError::Unauthorized
        }
        Verdict::TooMany(wait) => {
            let seconds = u32::try_from(wait.as_secs_f64().ceil() as u64).unwrap_or(u32::MAX).max(1);
            ApiError::TooManyWrongTokens { seconds }
        }
    };
    (state.refused)(error.problem().slug);
    error
}

/// Where a request came from.
pub(super) fn address(request: &Request) -> Option<IpAddr> {
    Some(request.extensions().get::<Peer>()?.address.ip())
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}

/// Whose token it is. It is read at each request, so that one that was revoked is worth nothing from then on.
async fn caller(state: &AdminState, token: &str) -> Result<Option<Caller>, StoreError> {
    if state.keys.is_admin(token) {
        return Ok(Some(Caller::operator()));
    }
    let Some(token) = Token::parse(token) else { return Ok(None) };
    let Some(known) = state.store.token(token.id()).await? else { return Ok(None) };
    let holds = known.expires_at.is_none_or(|expiry| now() < expiry);
    Ok((token.is(&known.sha256) && holds).then_some(Caller {
        token: Some(known.id),
        label: known.label,
        tenant: known.tenant,
        access: if known.read_only { Access::Read } else { Access::Full },
    }))
}

/// Unix seconds.
pub(super) fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

/// Lets a caller through to a route whose needs its token meets.
pub(super) async fn authorize(
    State((state, needs)): State<(Arc<AdminState>, Needs)>,
    Checked(path): Checked<RawPathParams>,
    mut request: Request,
    next: Next,
) -> Response {
    let allowed = match Caller::of(request.extensions()) {
        Ok(caller) => allow(&state, &caller, needs, &path).await,
        Err(error) => Err(error),
    };
    match allowed {
        Ok(Some(tenant)) => {
            request.extensions_mut().insert(tenant);
            next.run(request).await
        }
        Ok(None) => next.run(request).await,
        Err(error) => {
            if let (Ok(caller), ApiError::Forbidden { needs }) = (Caller::of(request.extensions()), &error) {
                caller.log_refusal(&request, needs);
                (state.refused)(error.problem().slug);
            }
            error.into_response()
        }
    }
}

async fn allow(
    state: &AdminState,
    caller: &Caller,
    needs: Needs,
    path: &RawPathParams,
) -> Answer<Option<OfTenant>> {
    let forbidden = || ApiError::Forbidden { needs: needs.to_string() };
    let name = path.iter().find(|(key, _)| *key == "tenant").map(|(_, name)| name);
    match needs {
        Needs::Token => Ok(None),
        Needs::Node(access) if caller.tenant.is_none() && caller.access >= access => match name {
            Some(name) => find(state, name).await.map(Some),
            None => Ok(None),
        },
        Needs::Tenant(access) if caller.access >= access => {
            let found = find(state, name.unwrap_or_default()).await;
            match (&caller.tenant, found) {
                (None, found) => found.map(Some),
                (Some(own), Ok(tenant)) if tenant.row.id == *own => Ok(Some(tenant)),
                (Some(_), Err(error)) if error.is_internal() => Err(error),
                // The same whether there is another tenant of that name or not.
                (Some(_), _) => Err(forbidden()),
            }
        }
        Needs::Node(_) | Needs::Tenant(_) => Err(forbidden()),
    }
}
