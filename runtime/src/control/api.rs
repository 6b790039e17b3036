//! The admin door: a versioned JSON API behind a bearer token, and the three pages that need none.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Bytes, Incoming};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tower::ServiceExt as _;

use super::access::{Access, Needs, OfTenant};
use super::audit::{Audit, about};
use super::audit_api;
use super::database_api;
use super::directory::Directory;
use super::extract::{Checked, PathOf, QueryOf};
use super::failures::Failures;
use super::keys::Keys;
use super::reply::ApiError;
use super::routes::Routes;
use super::store::{FunctionRow, Store, StoreError, TenantRow};
use super::tokens_api;
use super::upload::{self, Upload};
use super::values;
use super::variables::{Scope, Variables};
use super::variables_api;
use crate::catalog::Catalog;
use crate::database::Value;
use crate::disk::Disk;
use crate::listener::{Door, Peer};
use crate::manifest::Limits;
use crate::memory::Budget;
use crate::name::{FunctionName, Id, TenantName, VariableName};
use crate::request_id::{self, RequestId};
use crate::routing::BaseDomain;
use crate::telemetry::RequestContext;
use crate::tenant::{DatabaseKey, Made, Quarantine, Recovery, State as TenantState, Suspension, Tenants};

/// How long a JSON body may take to arrive.
const JSON_TIME_MAX: Duration = Duration::from_secs(10);

/// JSON bodies are names and SQL.
const JSON_BYTES_MAX: usize = 1 << 20;

/// What the admin door works with.
pub struct AdminState {
    /// Checks the operator's token.
    pub keys: Keys,
    /// Who changed what.
    pub audit: Audit,
    /// The control data.
    pub store: Arc<Store>,
    /// Forgets what changes.
    pub directory: Arc<Directory>,
    /// Takes in components.
    pub catalog: Arc<Catalog>,
    /// What the operator sets for functions.
    pub variables: Arc<Variables>,
    /// The tenants' databases.
    pub tenants: Tenants,
    /// Largest component.
    pub component_bytes_max: u64,
    /// What uploads may take of the node's memory.
    pub memory: Arc<Budget>,
    /// The disk of all data.
    pub disk: Arc<Disk>,
    /// The most that a function may ask for.
    pub limits: Limits,
    /// The address of the public listener, as bound.
    pub public_listen: String,
    /// The address that callers use, when the operator has given one.
    pub public_url: Option<String>,
    /// The domain below which each tenant has a host of its own.
    pub base_domain: Option<BaseDomain>,
    /// Whether the node takes requests.
    pub is_ready: Box<dyn Fn() -> bool + Send + Sync>,
    /// Wrong tokens.
    pub failures: Failures,
    /// Counts a request that was refused, by the name of its problem.
    pub refused: Box<dyn Fn(&'static str) + Send + Sync>,
    /// The metrics as text.
    pub metrics: Box<dyn Fn() -> String + Send + Sync>,
}

pub(super) type Shared = State<Arc<AdminState>>;
pub(super) type Answer<T> = Result<T, ApiError>;

/// The admin door.
pub struct AdminDoor(Router);

impl AdminDoor {
    /// A door over the rooms.
    #[must_use]
    pub fn new(state: Arc<AdminState>) -> Self {
        Self(router(state))
    }
}

impl Door for AdminDoor {
    type Body = Body;

    async fn answer(&self, mut request: http::Request<Incoming>, peer: Peer) -> Response {
        request.extensions_mut().insert(peer);
        let Ok(response) = self.0.clone().oneshot(request.map(Body::new)).await;
        response
    }
}

fn router(state: Arc<AdminState>) -> Router {
    use Access::{Full, Read};
    use Needs::{Node, Tenant, Token};
    Routes::new(state)
        .open("/healthz", || async { "ok\n" })
        .open("/readyz", ready)
        .open("/metrics", metrics)
        .get("/v1/node", Token, node)
        .get("/v1/node/database", Node(Read), database_api::export_control)
        .get("/v1/audit", Node(Read), audit_api::list)
        .get("/v1/tokens", Node(Read), tokens_api::list)
        .post("/v1/tokens", Node(Full), tokens_api::create)
        .delete("/v1/tokens/{token}", Node(Full), tokens_api::revoke)
        .get("/v1/tenants", Node(Read), list)
        .post("/v1/tenants", Node(Full), create)
        .get("/v1/tenants/{tenant}", Tenant(Read), show)
        .delete("/v1/tenants/{tenant}", Node(Full), delete)
        .put("/v1/tenants/{tenant}/functions/{function}", Tenant(Full), deploy)
        .get("/v1/tenants/{tenant}/database", Tenant(Read), database_api::export)
        .put("/v1/tenants/{tenant}/database", Tenant(Full), database_api::import)
        .post("/v1/tenants/{tenant}/database/revert", Tenant(Full), database_api::revert)
        .post("/v1/tenants/{tenant}/sql", Tenant(Full), sql)
        .post("/v1/tenants/{tenant}/recover", Node(Full), recover)
        .get("/v1/tenants/{tenant}/variables", Tenant(Read), variables_api::list)
        .put("/v1/tenants/{tenant}/variables/{variable}", Tenant(Full), variables_api::set)
        .delete("/v1/tenants/{tenant}/variables/{variable}", Tenant(Full), variables_api::unset)
        .into_router()
        .layer(axum::middleware::from_fn(identify))
}

/// While the disk is nearly full, only what reads or frees is done. Statements are looked at by themselves.
pub(super) async fn keep_room(State(state): Shared, request: Request, next: Next) -> Response {
    // `/v1/tenants/<name>/sql` and `/recover`: a function, or a variable, may have either name.
    let of_tenant = request.uri().path().split('/').nth(4);
    let is_allowed = request.method().is_safe()
        || request.method() == http::Method::DELETE
        || matches!(of_tenant, Some("sql" | "recover"));
    if state.disk.is_low() && !is_allowed {
        return ApiError::DiskFull.into_response();
    }
    next.run(request).await
}

/// Gives each request an id, which its response and its log lines carry.
async fn identify(request: Request, next: Next) -> Response {
    let id = RequestId::of(request.headers());
    let context = RequestContext { request_id: id.shared(), client: None, tenant: None, function: None };
    let mut response = context.scope(next.run(request)).await;
    response.headers_mut().insert(request_id::HEADER, id.header_value());
    response
}

async fn ready(State(state): Shared) -> (StatusCode, &'static str) {
    if (state.is_ready)() {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "draining\n")
    }
}

async fn metrics(State(state): Shared) -> impl IntoResponse {
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(CONTENT_TYPE, content_type)], (state.metrics)())
}

async fn node(State(state): Shared) -> Json<serde_json::Value> {
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "public_listen": state.public_listen,
        "public_url": state.public_url,
        "base_domain": state.base_domain.as_ref().map(ToString::to_string),
        "limits": state.limits,
    }))
}

#[derive(Deserialize)]
struct NewTenant {
    name: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    #[serde(default)]
    pub after: String,
    limit: Option<u32>,
}

impl Page {
    pub(super) fn limit(&self) -> u32 {
        page_limit(self.limit)
    }
}

/// How many entries a page has.
pub(super) fn page_limit(asked: Option<u32>) -> u32 {
    asked.unwrap_or(100).clamp(1, 1_000)
}

#[derive(Serialize)]
struct TenantView {
    name: String,
    id: String,
    created_at: i64,
    quarantined: bool,
}

impl TenantView {
    fn of(row: TenantRow, quarantined: &HashSet<Id>) -> Self {
        let quarantined = quarantined.contains(&row.id);
        Self { name: row.name, id: row.id.as_str().to_owned(), created_at: row.created_at, quarantined }
    }
}

async fn create(State(state): Shared, request: Request) -> Answer<Response> {
    let NewTenant { name } = json_body(request).await?;
    let name: TenantName = name.parse()?;
    let new_id = || Id::random().map_err(|error| ApiError::Internal(error.to_string()));
    let key = DatabaseKey { tenant: new_id()?, environment: new_id()?, generation: 1 };
    about(|| format!("tenant {name} {}", key.tenant.as_str()));
    let row = state.store.create_tenant(&name, &key).await?;
    tracing::info!(tenant = %name, "tenant created");
    let view =
        json!({"name": row.name, "id": row.id.as_str(), "created_at": row.created_at, "functions": []});
    Ok((StatusCode::CREATED, Json(view)).into_response())
}

async fn list(State(state): Shared, Checked(Query(page)): QueryOf<Page>) -> Answer<Json<serde_json::Value>> {
    let limit = page.limit();
    let rows = state.store.tenants(&page.after, limit).await?;
    let next = rows.last().filter(|_| rows.len() == limit as usize).map(|row| row.name.clone());
    let quarantined = state.tenants.quarantined();
    let tenants: Vec<_> = rows.into_iter().map(|row| TenantView::of(row, &quarantined)).collect();
    Ok(Json(json!({"tenants": tenants, "next": next})))
}

pub(super) async fn find(state: &AdminState, name: &str) -> Answer<OfTenant> {
    let name: TenantName = name.parse()?;
    let row = state.store.tenant(&name).await?.ok_or_else(|| StoreError::NoTenant(name.clone()))?;
    Ok(OfTenant { name, row })
}

pub(super) async fn production(state: &AdminState, row: &TenantRow) -> Answer<DatabaseKey> {
    let keys = state.store.databases(&row.id).await?;
    keys.into_iter().next().ok_or_else(|| StoreError::Unexpected("tenant without a database").into())
}

async fn show(State(state): Shared, OfTenant { row, .. }: OfTenant) -> Answer<Json<serde_json::Value>> {
    let key = production(&state, &row).await?;
    let function = |row: FunctionRow| {
        json!({
            "name": row.name, "component": row.component, "bytes": row.bytes, "deployed_at": row.deployed_at,
            "manifest": row.manifest,
        })
    };
    let functions: Vec<_> = state.store.functions(&row.id).await?.into_iter().map(function).collect();
    let size = state.tenants.size(&key).await;
    let database_state = match state.tenants.state(&key) {
        TenantState::Closed if state.store.made(&key).await? == Some(false) => "unused",
        TenantState::Closed => "closed",
        TenantState::Leased => "leased",
        TenantState::Parked => "parked",
        TenantState::CheckpointPending => "checkpoint-pending",
        TenantState::Quarantined => "quarantined",
        TenantState::Suspended => "suspended",
    };
    let quarantine = state.tenants.quarantine(&key).map(QuarantineView::from);
    let previous = state.store.generations(&key).await?.and_then(|known| known.previous);
    Ok(Json(json!({
        "name": row.name, "id": row.id.as_str(), "created_at": row.created_at, "functions": functions,
        "database": {
            "state": database_state, "bytes": size.bytes, "wal_bytes": size.wal_bytes, "quarantine": quarantine,
            "suspension": state.tenants.suspension(&key).map(SuspensionView::from),
            "generation": key.generation, "previous_generation": previous,
        },
    })))
}

#[derive(Serialize)]
struct QuarantineView {
    reason: String,
    since: u64,
}

impl From<Quarantine> for QuarantineView {
    fn from(Quarantine { reason, since }: Quarantine) -> Self {
        Self { reason, since }
    }
}

#[derive(Serialize)]
struct SuspensionView {
    since: u64,
    seconds: u64,
}

impl From<Suspension> for SuspensionView {
    fn from(Suspension { since, seconds }: Suspension) -> Self {
        Self { since, seconds }
    }
}

/// Takes the tenant's databases out of quarantine and ends suspensions; tells what the first of them was.
async fn recover(State(state): Shared, OfTenant { row, .. }: OfTenant) -> Answer<Json<serde_json::Value>> {
    let (mut was_in, mut was_suspended) = (None, None);
    for key in with_ways_back(&state, &row).await? {
        if let Some(suspension) = state.tenants.resume(&key) {
            was_suspended.get_or_insert(SuspensionView::from(suspension));
        }
        if let Recovery::Recovered(quarantine) = state.tenants.recover(&key).await? {
            was_in.get_or_insert(QuarantineView::from(quarantine));
        }
    }
    let recovered = was_in.is_some() || was_suspended.is_some();
    Ok(Json(json!({"recovered": recovered, "quarantine": was_in, "suspension": was_suspended})))
}

/// The databases of a tenant that are in use, and behind them those that are kept as the way back.
async fn with_ways_back(state: &AdminState, row: &TenantRow) -> Answer<Vec<DatabaseKey>> {
    let mut keys = state.store.databases(&row.id).await?;
    for key in keys.clone() {
        let previous = state.store.generations(&key).await?.and_then(|known| known.previous);
        keys.extend(previous.map(|generation| DatabaseKey { generation, ..key }));
    }
    Ok(keys)
}

async fn delete(State(state): Shared, OfTenant { name, row }: OfTenant) -> Answer<StatusCode> {
    let _switching = state.store.switching.lock().await;
    about(|| format!("tenant {name} {}", row.id.as_str()));
    let keys = with_ways_back(&state, &row).await?;
    state.store.delete_tenant(&row.id).await?;
    state.directory.forget(&name);
    if let Err(error) = state.tenants.remove(&keys).await {
        tracing::error!(tenant = %name, %error, "files of a deleted tenant stay behind");
    }
    tracing::info!(tenant = %name, "tenant deleted");
    Ok(StatusCode::NO_CONTENT)
}

async fn deploy(
    State(state): Shared,
    OfTenant { name: tenant, row }: OfTenant,
    Checked(Path((_, function))): PathOf<(String, String)>,
    request: Request,
) -> Answer<Json<serde_json::Value>> {
    let function: FunctionName = function.parse()?;
    let Upload { manifest, component, charge } =
        upload::receive(request, state.component_bytes_max, &state.memory).await?;
    if let Some(beyond) = manifest.as_ref().map(|own| own.limits.beyond(&state.limits))
        && !beyond.is_empty()
    {
        return Err(ApiError::BadManifest(beyond.join("; ")));
    }
    if let Some(manifest) = &manifest {
        require(&state, &row, &function, &manifest.variables).await?;
    }
    let bytes = component.len() as u64;
    let digest = state.catalog.admit(component).await?;
    drop(charge);
    about(|| format!("component {digest}"));
    state.store.deploy(&row.id, &function, &digest, bytes, manifest.as_ref()).await?;
    state.directory.forget(&tenant);
    tracing::info!(%tenant, %function, component = %digest, "deployed");
    Ok(Json(json!({
        "tenant": tenant.as_str(), "function": function.as_str(), "component": digest.as_str(), "bytes": bytes,
    })))
}

/// Refuses a function that cannot do without variables which are not set.
async fn require(
    state: &AdminState,
    row: &TenantRow,
    function: &FunctionName,
    required: &[VariableName],
) -> Answer<()> {
    if required.is_empty() {
        return Ok(());
    }
    let environment = production(state, row).await?;
    let set = state.variables.names(Scope { environment: &environment, function: Some(function) }).await?;
    let missing: Vec<_> = required.iter().filter(|name| !set.contains(name.as_str())).cloned().collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(ApiError::MissingVariables { tenant: row.name.clone(), function: function.clone(), missing })
}

#[derive(Deserialize)]
struct SqlRequest {
    sql: String,
    #[serde(default)]
    parameters: Vec<serde_json::Value>,
}

async fn sql(
    State(state): Shared,
    OfTenant { row, .. }: OfTenant,
    request: Request,
) -> Answer<Json<serde_json::Value>> {
    let SqlRequest { sql, parameters } = json_body(request).await?;
    let parameters = parameters.into_iter().map(values::from_json).collect::<Result<Vec<_>, _>>()?;
    let mut lease = state.tenants.lease(production(&state, &row).await?, Made::new(false));
    let rows = lease.execute(sql, parameters).await?;
    let cells = |row: Vec<Value>| row.into_iter().map(values::to_json).collect::<Vec<_>>();
    Ok(Json(json!({
        "columns": rows.columns,
        "rows": rows.rows.into_iter().map(cells).collect::<Vec<_>>(),
        "changes": lease.changes(),
        "last_insert_rowid": lease.last_insert_rowid(),
    })))
}

pub(super) async fn json_body<T: for<'de> Deserialize<'de>>(request: Request) -> Answer<T> {
    serde_json::from_slice(&small_body(request).await?)
        .map_err(|error| ApiError::BadRequest(format!("the body is not the JSON that is asked for: {error}")))
}

/// A body that is no upload.
pub(super) async fn small_body(request: Request) -> Answer<Bytes> {
    let body = Limited::new(request.into_body(), JSON_BYTES_MAX).collect();
    let body = tokio::time::timeout(JSON_TIME_MAX, body)
        .await
        .map_err(|_| ApiError::BadRequest("the body took too long to arrive".to_owned()))?;
    let body = body.map_err(|error| ApiError::BadRequest(format!("the body cannot be read: {error}")))?;
    Ok(body.to_bytes())
}
