//! The admin API's part about the audit log.

use axum::Json;
use axum::extract::{Query, State};
use serde::Deserialize;
use serde_json::{Value, json};

use super::api::{Answer, Shared, page_limit};
use super::extract::{Checked, QueryOf};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Part {
    after: Option<i64>,
    limit: Option<u32>,
}

pub(super) async fn list(State(state): Shared, Checked(Query(part)): QueryOf<Part>) -> Answer<Json<Value>> {
    let limit = page_limit(part.limit);
    let entries = state.audit.entries(part.after, limit).await?;
    let next = entries.last().filter(|_| part.after.is_some() && entries.len() == limit as usize);
    Ok(Json(json!({ "next": next.map(|entry| entry.id), "entries": entries })))
}
