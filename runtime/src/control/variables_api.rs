//! The admin API's part about variables. What a caller sends is never said again, not even in an error.

use axum::Json;
use axum::extract::{Path, Query, Request, State};
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;

use super::access::OfTenant;
use super::api::{Answer, Shared, production, small_body};
use super::audit::about;
use super::extract::{Checked, PathOf, QueryOf};
use super::reply::ApiError;
use super::variables::{Scope, VariableRow};
use crate::name::{FunctionName, VariableName};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewVariable {
    value: String,
    #[serde(default)]
    secret: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct For {
    function: Option<String>,
}

impl For {
    fn function(self) -> Answer<Option<FunctionName>> {
        Ok(self.function.map(|name| name.parse()).transpose()?)
    }
}

pub(super) async fn list(
    State(state): Shared,
    OfTenant { row, .. }: OfTenant,
) -> Answer<Json<serde_json::Value>> {
    let variable = |row: VariableRow| {
        json!({
            "name": row.name, "function": row.function, "secret": row.value.is_none(), "value": row.value,
            "changed_at": row.changed_at,
        })
    };
    let rows = state.variables.list(&production(&state, &row).await?).await?;
    Ok(Json(json!({ "variables": rows.into_iter().map(variable).collect::<Vec<_>>() })))
}

pub(super) async fn set(
    State(state): Shared,
    OfTenant { name: tenant, row }: OfTenant,
    Checked(Path((_, name))): PathOf<(String, String)>,
    Checked(Query(what)): QueryOf<For>,
    request: Request,
) -> Answer<StatusCode> {
    let (name, function): (VariableName, _) = (name.parse()?, what.function()?);
    // The reader's own error would quote what it has read.
    let malformed = || {
        ApiError::BadRequest("the body must be {\"value\": <text>, \"secret\": <true or false>}".to_owned())
    };
    let body = small_body(request).await?;
    let NewVariable { value, secret } = serde_json::from_slice(&body).map_err(|_| malformed())?;
    let scope = Scope { environment: &production(&state, &row).await?, function: function.as_ref() };
    about_function(function.as_ref());
    state.variables.set(scope, &name, &value, secret).await?;
    state.directory.forget(&tenant);
    tracing::info!(%tenant, function = function.as_ref().map(tracing::field::display), %name, "variable set");
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn unset(
    State(state): Shared,
    OfTenant { name: tenant, row }: OfTenant,
    Checked(Path((_, name))): PathOf<(String, String)>,
    Checked(Query(what)): QueryOf<For>,
) -> Answer<StatusCode> {
    let (name, function): (VariableName, _) = (name.parse()?, what.function()?);
    let scope = Scope { environment: &production(&state, &row).await?, function: function.as_ref() };
    about_function(function.as_ref());
    state.variables.unset(scope, &name).await?;
    state.directory.forget(&tenant);
    tracing::info!(%tenant, function = function.as_ref().map(tracing::field::display), %name, "variable unset");
    Ok(StatusCode::NO_CONTENT)
}

fn about_function(function: Option<&FunctionName>) {
    if let Some(function) = function {
        about(|| format!("function {function}"));
    }
}
