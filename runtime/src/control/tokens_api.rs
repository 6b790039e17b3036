//! The admin API's part about tokens. A token is shown in the answer that makes it, and nowhere else.

use axum::Json;
use axum::extract::{Path, Query, Request, State};
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::access::now;
use super::api::{Answer, Page, Shared, find, json_body};
use super::audit::about;
use super::extract::{Checked, PathOf, QueryOf};
use super::reply::ApiError;
use super::tokens::{NewToken, Token, TokenRow, check_label};
use crate::name::Id;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenRequest {
    label: String,
    tenant: Option<String>,
    #[serde(default)]
    read_only: bool,
    expires_at: Option<i64>,
}

fn view(row: &TokenRow) -> Value {
    json!({
        "id": row.id.as_str(), "label": row.label, "tenant": row.tenant_name, "read_only": row.read_only,
        "created_at": row.created_at, "expires_at": row.expires_at,
    })
}

pub(super) async fn create(State(state): Shared, request: Request) -> Answer<Response> {
    let TokenRequest { label, tenant, read_only, expires_at } = json_body(request).await?;
    check_label(&label)?;
    if expires_at.is_some_and(|expiry| expiry <= now()) {
        return Err(ApiError::BadToken("it would have expired already"));
    }
    let tenant = match tenant {
        Some(name) => Some(find(&state, &name).await?),
        None => None,
    };
    let token = Token::random().map_err(|error| ApiError::Internal(error.to_string()))?;
    let new = NewToken {
        label: &label,
        tenant: tenant.as_ref().map(|tenant| &tenant.row.id),
        read_only,
        expires_at,
    };
    about(|| format!("token {}", token.id().as_str()));
    let row = state.store.add_token(&token, new).await?;
    let row = row.ok_or(ApiError::BadToken("there are as many as there may be; revoke one"))?;
    let mut view = view(&row);
    if let Some(view) = view.as_object_mut() {
        view.insert("token".to_owned(), token.to_string().into());
    }
    Ok((StatusCode::CREATED, Json(view)).into_response())
}

pub(super) async fn list(State(state): Shared, Checked(Query(page)): QueryOf<Page>) -> Answer<Json<Value>> {
    let limit = page.limit();
    let rows = state.store.tokens(&page.after, limit).await?;
    let next = rows.last().filter(|_| rows.len() == limit as usize).map(|row| row.id.as_str());
    Ok(Json(json!({ "tokens": rows.iter().map(view).collect::<Vec<_>>(), "next": next })))
}

pub(super) async fn revoke(State(state): Shared, Checked(Path(token)): PathOf<String>) -> Answer<StatusCode> {
    let id = Id::parse(&token).ok_or(ApiError::NoToken)?;
    if !state.store.revoke_token(&id).await? {
        return Err(ApiError::NoToken);
    }
    Ok(StatusCode::NO_CONTENT)
}
