//! The admin API's part about whole databases: a tenant's as a file, out and in, and the node's own.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use http::header::{CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH};
use http::{HeaderMap, HeaderName, StatusCode};
use http_body::Body as _;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Bytes;
use serde_json::json;
use tokio::sync::MutexGuard;

use super::access::OfTenant;
use super::api::{AdminState, Answer, Shared, production};
use super::audit::about;
use super::generations;
use super::reply::ApiError;
use super::store::StoreError;
use crate::database::{DatabaseError, FileStream};
use crate::limits;
use crate::name::TenantName;
use crate::tenant::{DatabaseKey, Incoming, Revision};

/// Which database an answer is about: `<tenant id>/<environment id>/<generation>`.
const DATABASE: HeaderName = HeaderName::from_static("dormouse-database");

/// The type of a database file, as registered with IANA.
const SQLITE: HeaderValue = HeaderValue::from_static("application/vnd.sqlite3");

/// A tenant's database, or that it is still what the caller has.
pub(super) async fn export(
    State(state): Shared,
    OfTenant { row, .. }: OfTenant,
    request: Request,
) -> Answer<Response> {
    let key = production(&state, &row).await?;
    if let Some(revision) = state.tenants.revision(&key).await
        && is_known(request.headers(), &tag(&key, &revision))
    {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return name_database(response, &key, Some(&revision));
    }
    let (file, revision) = state.tenants.snapshot(&key).await?;
    name_database(streamed(file), &key, revision.as_ref())
}

/// The node's control data.
pub(super) async fn export_control(State(state): Shared) -> Answer<Response> {
    Ok(streamed(state.store.snapshot().await?))
}

/// Takes in a database in the place of a tenant's, which stays as the way back.
pub(super) async fn import(
    State(state): Shared,
    OfTenant { name: tenant, row }: OfTenant,
    request: Request,
) -> Answer<Json<serde_json::Value>> {
    let key = announce(&state, production(&state, &row).await?).await?;
    let taken = tokio::time::timeout(limits::IMPORT_TIME_MAX, receive(&state, &key, request.into_body()))
        .await
        .unwrap_or_else(|_| Err(ApiError::BadRequest("the upload took too long".to_owned())));
    let outcome = match taken {
        Ok(incoming) => finish(&state, &tenant, incoming, &key).await,
        Err(error) => Err(error),
    };
    if outcome.is_err() {
        give_up(&state, &key).await?;
    }
    outcome?;
    tracing::info!(%tenant, generation = key.generation, "database imported");
    let previous = state.store.generations(&key).await?.and_then(|known| known.previous);
    Ok(Json(json!({
        "tenant": tenant.as_str(), "generation": key.generation, "previous_generation": previous,
        "bytes": state.tenants.size(&key).await.bytes,
    })))
}

/// Goes back to the database that the latest switch took out of use. Going back again undoes it.
pub(super) async fn revert(
    State(state): Shared,
    OfTenant { name: tenant, row }: OfTenant,
) -> Answer<Json<serde_json::Value>> {
    let switching = state.store.switching.lock().await;
    let current = production(&state, &row).await?;
    let known =
        state.store.generations(&current).await?.ok_or_else(|| StoreError::NoTenant(tenant.clone()))?;
    let generation = known.previous.ok_or(ApiError::NoPreviousDatabase)?;
    let previous = DatabaseKey { generation, ..current };
    state.tenants.can_open(&previous).await?;
    switch(&state, &tenant, &previous, switching).await?;
    tracing::info!(%tenant, generation, "database reverted");
    Ok(Json(json!({"tenant": tenant.as_str(), "generation": generation})))
}

/// A generation that never was, noted so that whatever there will be of it is not forgotten.
async fn announce(state: &AdminState, current: DatabaseKey) -> Answer<DatabaseKey> {
    let _switching = state.store.switching.lock().await;
    let known = state.store.generations(&current).await?.ok_or(StoreError::Unexpected("environment"))?;
    let key = DatabaseKey { generation: known.next, ..current };
    state.store.add_unnamed(&key).await?;
    Ok(key)
}

/// Removes what there is of a database that was not taken in, unless the control data names it all the same.
async fn give_up(state: &AdminState, key: &DatabaseKey) -> Answer<()> {
    let _switching = state.store.switching.lock().await;
    let known = state.store.generations(key).await?;
    if known.is_none_or(|known| known.current != key.generation && known.previous != Some(key.generation)) {
        generations::remove(&state.store, &state.tenants, key).await?;
    }
    Ok(())
}

async fn receive(state: &AdminState, key: &DatabaseKey, mut body: Body) -> Answer<Incoming> {
    let bytes_max = state.tenants.database_bytes_max();
    if body.size_hint().lower() > bytes_max {
        return Err(ApiError::DatabaseTooLarge(bytes_max));
    }
    let unwritten =
        |error: std::io::Error| ApiError::Internal(format!("the upload cannot be written: {error}"));
    let mut incoming = state.tenants.receive(key.clone()).await.map_err(unwritten)?;
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| ApiError::BadRequest(format!("the upload broke off: {error}")))?;
        let Ok(part) = frame.into_data() else { continue };
        bytes += part.len() as u64;
        if bytes > bytes_max {
            return Err(ApiError::DatabaseTooLarge(bytes_max));
        }
        incoming.write(&part).await.map_err(unwritten)?;
    }
    Ok(incoming)
}

async fn finish(
    state: &AdminState,
    tenant: &TenantName,
    incoming: Incoming,
    key: &DatabaseKey,
) -> Answer<()> {
    incoming.finish().await?;
    switch(state, tenant, key, state.store.switching.lock().await).await
}

/// Makes a generation whose file is there the one in use, and removes the one that is pushed out.
///
/// A commit that failed may be on disk or not. What is read after it comes from the disk, so that it is what the next
/// process will read too; the failure is told in either case, and nothing is removed. When nothing can be read, the
/// old generation takes no more writes until the next switch or start: the new one is in use once it is read.
async fn switch(
    state: &AdminState,
    tenant: &TenantName,
    to: &DatabaseKey,
    _switching: MutexGuard<'_, ()>,
) -> Answer<()> {
    about(|| format!("generation {}", to.generation));
    let gone = || StoreError::NoTenant(tenant.clone());
    let before = state.store.generations(to).await?.ok_or_else(gone)?;
    let from = DatabaseKey { generation: before.current, ..to.clone() };
    let switch = state.tenants.switch(&from, to.generation).await?;
    let named = state.store.name_generation(to).await;
    let after = state.store.generations(to).await;
    state.directory.forget(tenant);
    let is_named = after.ok().map(|after| after.is_some_and(|after| after.current == to.generation));
    if is_named == Some(false) {
        switch.is_undone();
        named?;
        return Err(gone().into());
    }
    drop(switch);
    named?;
    let pushed_out = before.previous.filter(|generation| *generation != to.generation);
    if let Some(generation) = pushed_out {
        let old = DatabaseKey { generation, ..to.clone() };
        generations::remove(&state.store, &state.tenants, &old).await?;
    }
    Ok(())
}

/// The entity tag of a revision: as long as it is the same, so are the bytes of the database.
fn tag(key: &DatabaseKey, revision: &Revision) -> String {
    format!("\"{}-{}-{revision}\"", key.environment.as_str(), key.generation)
}

fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    headers.get_all(IF_NONE_MATCH).iter().any(|known| known.as_bytes() == tag.as_bytes())
}

fn name_database(mut response: Response, key: &DatabaseKey, revision: Option<&Revision>) -> Answer<Response> {
    let value =
        |text: String| HeaderValue::try_from(text).map_err(|error| ApiError::Internal(error.to_string()));
    let name = format!("{}/{}/{}", key.tenant.as_str(), key.environment.as_str(), key.generation);
    response.headers_mut().insert(DATABASE, value(name)?);
    if let Some(revision) = revision {
        response.headers_mut().insert(ETAG, value(tag(key, revision))?);
    }
    Ok(response)
}

fn streamed(file: FileStream) -> Response {
    let mut response = Response::new(Body::new(FileBody { left: file.bytes, file }));
    response.headers_mut().insert(CONTENT_TYPE, SQLITE);
    response
}

/// A database file as the body of a response.
struct FileBody {
    file: FileStream,
    left: u64,
}

impl http_body::Body for FileBody {
    type Data = Bytes;
    type Error = DatabaseError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, DatabaseError>>> {
        let part = ready!(self.file.parts.poll_recv(context));
        if let Some(Ok(bytes)) = &part {
            self.left = self.left.saturating_sub(bytes.len() as u64);
        }
        Poll::Ready(part.map(|part| part.map(|bytes| Frame::data(bytes.into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
