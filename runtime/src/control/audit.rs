//! The audit log: who changed what, when, from where, and how it went.
//!
//! There is an entry for each request that was let in and may change something. Where the change is one of the control
//! data, the entry is part of its transaction, so that neither is there without the other. Else it is written before the
//! request is answered; and where a change is followed by a failure, that has an entry of its own. What was not let in
//! goes to the program's log alone: it must not fill the control data. What a request holds in its body is in neither.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::access::{Caller, OfTenant, address, now};
use super::api::{Answer, Shared};
use super::reply::ApiError;
use super::store::{Result, Row, Store, integer, optional, text};
use crate::database::Value;
use crate::name::Id;
use crate::problem::ProblemType;
use crate::telemetry::RequestContext;

/// How a change went that was made.
const DONE: &str = "done";

/// Longest path that is kept: names make up all of the longest that exists.
const PATH_CHARS_MAX: usize = 256;

/// For each so many entries of the node's own tokens, those of one tenant's tokens keep one.
const NODE_ENTRIES_PER_TENANTS: u64 = 100;

tokio::task_local! {
    static CURRENT: Arc<Entry>;
}

/// How much of the audit log is kept.
#[derive(Debug, Clone, Copy)]
pub struct AuditPolicy {
    /// Entries of the operator and of the node's tokens. Each tenant's tokens have a hundredth of it for themselves, so
    /// that none can push out what others did.
    pub entries_max: u64,
    /// How old an entry may become.
    pub days_max: u64,
}

/// The audit log.
pub struct Audit {
    store: Arc<Store>,
    policy: AuditPolicy,
    written: AtomicU64,
}

/// A request that may change something.
pub(super) struct Entry {
    at: i64,
    token: Option<Id>,
    label: String,
    callers_tenant: Option<Id>,
    address: String,
    request_id: String,
    method: String,
    path: String,
    tenant: Option<Id>,
    object: OnceLock<String>,
    is_written: AtomicBool,
}

/// An entry, as listed.
#[derive(serde::Serialize)]
pub(super) struct EntryView {
    pub id: i64,
    at: i64,
    token: Option<String>,
    label: String,
    address: String,
    request_id: String,
    method: String,
    path: String,
    tenant: Option<String>,
    object: Option<String>,
    outcome: String,
}

/// Says what the current request is about, beyond what its path says.
pub(super) fn about(object: impl FnOnce() -> String) {
    // Nobody may have asked, as in a test.
    let _ = CURRENT.try_with(|entry| entry.object.set(object()));
}

/// The entry of the current request.
pub(super) fn current() -> Option<Arc<Entry>> {
    CURRENT.try_with(Arc::clone).ok()
}

impl Entry {
    fn of(request: &Request) -> Answer<Self> {
        let extensions = request.extensions();
        let caller = Caller::of(extensions)?;
        let request_id = RequestContext::current().map(|context| context.request_id.to_string());
        Ok(Self {
            at: now(),
            token: caller.token.clone(),
            label: caller.label.clone(),
            callers_tenant: caller.tenant.clone(),
            address: address(request).map(|address| address.to_string()).unwrap_or_default(),
            request_id: request_id.unwrap_or_default(),
            method: request.method().to_string(),
            path: request.uri().path().chars().take(PATH_CHARS_MAX).collect(),
            tenant: extensions.get::<OfTenant>().map(|tenant| tenant.row.id.clone()),
            object: OnceLock::new(),
            is_written: AtomicBool::new(false),
        })
    }

    fn statement(&self, outcome: &str, condition: &str) -> (String, Vec<Value>) {
        let id = |id: &Option<Id>| id.as_ref().map_or(Value::Null, |id| id.as_str().into());
        let sql = format!(
            "INSERT INTO audit (at, token_id, label, callers_tenant_id, address, request_id, method, path, tenant_id,
             object, outcome) SELECT ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?{condition}"
        );
        let parameters = vec![
            Value::Integer(self.at),
            id(&self.token),
            self.label.as_str().into(),
            id(&self.callers_tenant),
            self.address.as_str().into(),
            self.request_id.as_str().into(),
            self.method.as_str().into(),
            self.path.as_str().into(),
            id(&self.tenant),
            self.object.get().map_or(Value::Null, |object| object.as_str().into()),
            outcome.into(),
        ];
        (sql, parameters)
    }

    /// The statement that puts it on record, at the end of the change that it is about. It does nothing where the
    /// statement before it did nothing.
    pub(super) fn of_change(&self) -> (String, Vec<Value>) {
        self.statement(DONE, " WHERE changes() > 0")
    }

    /// Notes that the change, and so the entry, is on disk.
    pub(super) fn note_on_record(&self) {
        self.is_written.store(true, Ordering::Relaxed);
    }

    fn log(&self, outcome: &str) {
        tracing::info!(
            target: "audit",
            token = self.token.as_ref().map(Id::as_str),
            label = self.label,
            address = self.address,
            method = self.method,
            path = self.path,
            tenant = self.tenant.as_ref().map(Id::as_str),
            object = self.object.get(),
            outcome,
            "change"
        );
    }
}

impl Audit {
    /// The audit log in the control data.
    #[must_use]
    pub fn new(store: Arc<Store>, policy: AuditPolicy) -> Self {
        Self { store, policy, written: AtomicU64::new(0) }
    }

    /// Entries after one of them; without it, the latest.
    pub(super) async fn entries(&self, after: Option<i64>, limit: u32) -> Result<Vec<EntryView>> {
        let columns =
            "id, at, token_id, label, address, request_id, method, path, tenant_id, object, outcome";
        let limit = Value::Integer(limit.into());
        let rows = match after {
            Some(after) => {
                let sql = format!("SELECT {columns} FROM audit WHERE id > ? ORDER BY id LIMIT ?");
                self.store.query(&sql, vec![Value::Integer(after), limit]).await?
            }
            None => {
                let sql = format!("SELECT {columns} FROM audit ORDER BY id DESC LIMIT ?");
                let mut rows = self.store.query(&sql, vec![limit]).await?;
                rows.reverse();
                rows
            }
        };
        rows.iter().map(view).collect()
    }

    async fn write(&self, entry: &Entry, outcome: &str) -> Result<()> {
        self.store.change(vec![entry.statement(outcome, "")]).await
    }

    /// Drops what is too old or too much, each time that some hundredth of it may be new.
    async fn trim(&self) -> Result<()> {
        let most = self.policy.entries_max;
        let interval = (most / 100).clamp(1, 1_000);
        if !self.written.fetch_add(1, Ordering::Relaxed).is_multiple_of(interval) {
            return Ok(());
        }
        let oldest = now().saturating_sub(i64::try_from(self.policy.days_max * 86_400).unwrap_or(i64::MAX));
        let too_many = "DELETE FROM audit WHERE id IN (
            SELECT id FROM (
                SELECT id, callers_tenant_id IS NULL AS of_node,
                       row_number() OVER (PARTITION BY callers_tenant_id ORDER BY id DESC) AS place FROM audit
            ) WHERE place > iif(of_node, ?, ?))";
        let of_tenant = (most / NODE_ENTRIES_PER_TENANTS).max(1);
        self.store
            .change(vec![
                ("DELETE FROM audit WHERE at < ?".to_owned(), vec![Value::Integer(oldest)]),
                (too_many.to_owned(), vec![Value::from(most), Value::from(of_tenant)]),
            ])
            .await
    }
}

/// Runs a request that may change something, and sees to its entry.
pub(super) async fn record(State(state): Shared, request: Request, next: Next) -> Response {
    let entry = match Entry::of(&request) {
        Ok(entry) => Arc::new(entry),
        Err(error) => return error.into_response(),
    };
    let response = CURRENT.scope(entry.clone(), next.run(request)).await;
    let outcome = match response.extensions().get::<ProblemType>() {
        Some(problem) => problem.slug,
        None => DONE,
    };
    entry.log(outcome);
    let is_there = outcome == DONE && entry.is_written.load(Ordering::Relaxed);
    let written = if is_there { Ok(()) } else { state.audit.write(&entry, outcome).await };
    let trimmed = match written {
        Ok(()) => state.audit.trim().await,
        Err(error) => return ApiError::Unrecorded(error).into_response(),
    };
    if let Err(error) = trimmed {
        tracing::error!(%error, "the audit log cannot be trimmed");
    }
    response
}

fn view(row: &Row) -> Result<EntryView> {
    let owned = |index| text(row, index).map(str::to_owned);
    let optional = |index| optional(row, index, text).map(|text| text.map(str::to_owned));
    Ok(EntryView {
        id: integer(row, 0)?,
        at: integer(row, 1)?,
        token: optional(2)?,
        label: owned(3)?,
        address: owned(4)?,
        request_id: owned(5)?,
        method: owned(6)?,
        path: owned(7)?,
        tenant: optional(8)?,
        object: optional(9)?,
        outcome: owned(10)?,
    })
}
