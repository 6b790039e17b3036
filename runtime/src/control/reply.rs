//! The status table of the admin door.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{HeaderValue, WWW_AUTHENTICATE};

use super::store::StoreError;
use super::tokens::LabelError;
use super::upload::UploadError;
use super::values::ParameterError;
use super::variables::VariableError;
use crate::catalog::CatalogError;
use crate::database::DatabaseError;
use crate::memory::NODE_MEMORY;
use crate::name::{FunctionName, NameError, VariableName, VariableNameError};
use crate::problem::ProblemType;
use crate::telemetry::RequestContext;

/// Why an admin request failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    #[error(
        "send the token of <data>/keys/admin.token, or one made with `dormouse token create` that still holds, as \
         `Authorization: Bearer <token>`"
    )]
    Unauthorized,
    #[error("too many wrong tokens came from this address; a right one is let in at any time")]
    TooManyWrongTokens { seconds: u32 },
    #[error("the request could not be put on record, and what it asked for may have been done: {0}")]
    Unrecorded(StoreError),
    #[error("this needs {needs}")]
    Forbidden { needs: String },
    #[error("there is no such token")]
    NoToken,
    #[error("the token cannot be made: {0}")]
    BadToken(&'static str),
    #[error(transparent)]
    Label(#[from] LabelError),
    #[error("{0}")]
    BadRequest(String),
    #[error(transparent)]
    Name(#[from] NameError),
    #[error(transparent)]
    VariableName(#[from] VariableNameError),
    #[error(transparent)]
    Variable(#[from] VariableError),
    #[error("the manifest: {0}")]
    BadManifest(String),
    #[error("{function} requires {}", commands(tenant, missing))]
    MissingVariables { tenant: String, function: FunctionName, missing: Vec<VariableName> },
    #[error(transparent)]
    Upload(#[from] UploadError),
    #[error(transparent)]
    Parameter(#[from] ParameterError),
    #[error(
        "the database is larger than the {0} bytes that database_bytes_max leaves to a file beside its log"
    )]
    DatabaseTooLarge(u64),
    #[error("the tenant has no database to go back to: only an import leaves one")]
    NoPreviousDatabase,
    #[error("the disk has less than disk_free_bytes_min left; delete what is not needed, or make it larger")]
    DiskFull,
    #[error("there is nothing at this address; the API is described in docs/admin-api.md")]
    NotFound,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error(transparent)]
    Sql(#[from] DatabaseError),
    #[error("{0}")]
    Internal(String),
}

/// The variables, each with the command that sets it.
fn commands(tenant: &str, missing: &[VariableName]) -> String {
    let command = |name| {
        format!(
            "the variable {name}: set it with `dormouse variable set {tenant} {name} <value>`, or a secret with `--secret < file`"
        )
    };
    missing.iter().map(command).collect::<Vec<_>>().join("; ")
}

const UNAUTHORIZED: ProblemType =
    ProblemType::new(StatusCode::UNAUTHORIZED, "unauthorized", "Missing or wrong token");
const TOO_MANY_WRONG_TOKENS: ProblemType = ProblemType::new(
    StatusCode::TOO_MANY_REQUESTS,
    "too-many-wrong-tokens",
    "Too many wrong tokens came from this address",
);
const FORBIDDEN: ProblemType =
    ProblemType::new(StatusCode::FORBIDDEN, "forbidden", "The token does not reach that far");
const NO_TOKEN: ProblemType = ProblemType::new(StatusCode::NOT_FOUND, "unknown-token", "No such token");
const BAD_TOKEN: ProblemType =
    ProblemType::new(StatusCode::UNPROCESSABLE_ENTITY, "bad-token", "The token cannot be made");
const BAD_REQUEST: ProblemType =
    ProblemType::new(StatusCode::BAD_REQUEST, "bad-request", "Malformed request");
const BAD_NAME: ProblemType =
    ProblemType::new(StatusCode::UNPROCESSABLE_ENTITY, "bad-name", "Malformed name");
const BAD_VARIABLE: ProblemType =
    ProblemType::new(StatusCode::UNPROCESSABLE_ENTITY, "bad-variable", "The variable cannot be kept");
const NO_VARIABLE: ProblemType =
    ProblemType::new(StatusCode::NOT_FOUND, "unknown-variable", "No such variable");
const BAD_MANIFEST: ProblemType =
    ProblemType::new(StatusCode::UNPROCESSABLE_ENTITY, "bad-manifest", "The manifest has mistakes");
const MISSING_VARIABLES: ProblemType =
    ProblemType::new(StatusCode::UNPROCESSABLE_ENTITY, "missing-variables", "Required variables are not set");
const BAD_COMPONENT: ProblemType =
    ProblemType::new(StatusCode::UNPROCESSABLE_ENTITY, "bad-component", "The component cannot run here");
const BAD_SQL: ProblemType =
    ProblemType::new(StatusCode::UNPROCESSABLE_ENTITY, "bad-sql", "The statement failed");
const QUARANTINED: ProblemType = ProblemType::new(
    StatusCode::SERVICE_UNAVAILABLE,
    "database-quarantined",
    "The tenant's database is in quarantine",
);
const SUSPENDED: ProblemType = ProblemType::new(
    StatusCode::SERVICE_UNAVAILABLE,
    "database-suspended",
    "The tenant's database is suspended",
)
.retry_after(10);
const DATABASE_ENDED: ProblemType =
    ProblemType::new(StatusCode::SERVICE_UNAVAILABLE, "database-ended", "The database's process ended")
        .retry_after(1);
const DATABASE_BUSY: ProblemType =
    ProblemType::new(StatusCode::SERVICE_UNAVAILABLE, "database-busy", "The tenant's database is in use")
        .retry_after(5);
const BAD_DATABASE: ProblemType =
    ProblemType::new(StatusCode::UNPROCESSABLE_ENTITY, "bad-database", "The file cannot be taken over");
const DATABASE_TOO_LARGE: ProblemType =
    ProblemType::new(StatusCode::PAYLOAD_TOO_LARGE, "database-too-large", "Database too large");
const NO_PREVIOUS_DATABASE: ProblemType =
    ProblemType::new(StatusCode::CONFLICT, "no-previous-database", "There is no database to go back to");
const TOO_LARGE: ProblemType =
    ProblemType::new(StatusCode::PAYLOAD_TOO_LARGE, "component-too-large", "Component too large");
const DISK_FULL: ProblemType =
    ProblemType::new(StatusCode::INSUFFICIENT_STORAGE, "node-disk-full", "The node's disk is nearly full");
const NOT_FOUND: ProblemType = ProblemType::new(StatusCode::NOT_FOUND, "not-found", "Nothing here");
const NO_TENANT: ProblemType = ProblemType::new(StatusCode::NOT_FOUND, "unknown-tenant", "No such tenant");
const TENANT_EXISTS: ProblemType =
    ProblemType::new(StatusCode::CONFLICT, "tenant-exists", "The tenant exists");
const INTERNAL: ProblemType =
    ProblemType::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "The node failed");

impl ApiError {
    pub(super) fn problem(&self) -> ProblemType {
        match self {
            Self::Unauthorized => UNAUTHORIZED,
            Self::TooManyWrongTokens { seconds } => TOO_MANY_WRONG_TOKENS.retry_after(*seconds),
            Self::Forbidden { .. } => FORBIDDEN,
            Self::NoToken => NO_TOKEN,
            Self::BadToken(_) | Self::Label(_) => BAD_TOKEN,
            Self::BadRequest(_) | Self::Parameter(_) | Self::Upload(UploadError::Malformed(_)) => BAD_REQUEST,
            Self::Name(_) | Self::VariableName(_) => BAD_NAME,
            Self::BadManifest(_) | Self::Upload(UploadError::BadManifest(_)) => BAD_MANIFEST,
            Self::MissingVariables { .. } => MISSING_VARIABLES,
            Self::Variable(
                VariableError::TooLarge | VariableError::TooMany | VariableError::TooLargeTogether,
            ) => BAD_VARIABLE,
            Self::Variable(VariableError::NotSet(_)) => NO_VARIABLE,
            Self::Upload(UploadError::TooLarge(_)) => TOO_LARGE,
            Self::DiskFull => DISK_FULL,
            Self::NotFound => NOT_FOUND,
            Self::Store(StoreError::NoTenant(_)) | Self::Sql(DatabaseError::Gone) => NO_TENANT,
            Self::Store(StoreError::TenantExists(_)) => TENANT_EXISTS,
            Self::Catalog(CatalogError::Unsupported(_) | CatalogError::TooCostly(_)) => BAD_COMPONENT,
            Self::Sql(
                DatabaseError::Statement(_)
                | DatabaseError::Full(_)
                | DatabaseError::TimedOut(_)
                | DatabaseError::Cancelled,
            ) => BAD_SQL,
            Self::Sql(DatabaseError::Quarantined(_)) => QUARANTINED,
            Self::Sql(DatabaseError::Stuck | DatabaseError::Suspended(_)) => SUSPENDED,
            Self::Sql(DatabaseError::Ended) => DATABASE_ENDED,
            Self::Upload(UploadError::NodeMemory(_))
            | Self::Catalog(CatalogError::NodeMemory(_))
            | Self::Sql(DatabaseError::NodeMemory) => NODE_MEMORY,
            Self::Sql(DatabaseError::Busy(_)) | Self::Store(StoreError::Database(DatabaseError::Busy(_))) => {
                DATABASE_BUSY
            }
            Self::Sql(DatabaseError::Rejected(_)) => BAD_DATABASE,
            Self::DatabaseTooLarge(_) => DATABASE_TOO_LARGE,
            Self::NoPreviousDatabase => NO_PREVIOUS_DATABASE,
            Self::Store(StoreError::TooNew { .. } | StoreError::Database(_) | StoreError::Unexpected(_))
            | Self::Variable(
                VariableError::Store(_) | VariableError::Seal(_) | VariableError::Unreadable(_),
            )
            | Self::Catalog(CatalogError::Storage(_))
            | Self::Sql(DatabaseError::Storage(_) | DatabaseError::Closed)
            | Self::Unrecorded(_)
            | Self::Internal(_) => INTERNAL,
        }
    }

    /// Whether the node is at fault, and not the request.
    pub(super) fn is_internal(&self) -> bool {
        self.problem() == INTERNAL
    }

    fn response_for(&self, request_id: &str) -> Response {
        let problem = self.problem();
        if self.is_internal() {
            tracing::error!(error = %self, "an admin request failed");
        }
        // Whoever holds a token may know the cause.
        let mut response = problem.response(Some(&self.to_string()), request_id).map(Body::from);
        response.extensions_mut().insert(problem);
        if problem == UNAUTHORIZED {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let context = RequestContext::current();
        self.response_for(context.as_ref().map_or("unknown", |context| &context.request_id))
    }
}
