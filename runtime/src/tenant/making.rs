//! Making databases: each at its first use, once.
//!
//! ```text
//!            file written, renamed, synced            mark committed
//!  Not made ───────────────────────────────▶ Unmarked ──────────────▶ Made
//! ```
//!
//! Only a database that is marked as made is opened. So a process that ends in between leaves a file that nobody has
//! written to, which the next use takes as it is; and a marked database whose file is missing has lost it.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::generations::replaced;
use super::{DatabaseKey, Tenant, park};
use crate::database::{Command, DatabaseError};
use crate::telemetry::in_current_request;

/// Where it is kept which databases have been made.
pub trait Register: Send + Sync + 'static {
    /// Whether a database has been made.
    fn is_made<'a>(&'a self, key: &'a DatabaseKey) -> Asking<'a, bool>;

    /// Keeps that it has been. That is on disk when this returns.
    fn mark_made<'a>(&'a self, key: &'a DatabaseKey) -> Asking<'a, ()>;
}

/// An answer of the register on its way.
pub type Asking<'a, T> = Pin<Box<dyn Future<Output = Result<T, RegisterError>> + Send + 'a>>;

/// Why the register gives no answer.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// There is no such database any more.
    #[error("the tenant was deleted")]
    Gone,
    /// Another generation of it is in use.
    #[error("the database was replaced")]
    Replaced,
    /// The register cannot be read or written.
    #[error("{0}")]
    Failed(String),
}

/// Whether a database is known to have been made. Clones share what one of them has learned.
#[derive(Debug, Clone)]
pub struct Made(Arc<AtomicBool>);

impl Made {
    /// What the register says, or `false` when it was not asked.
    #[must_use]
    pub fn new(is_made: bool) -> Self {
        Self(Arc::new(AtomicBool::new(is_made)))
    }

    pub(super) fn is_known(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    fn learn(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Makes a database unless it has been made. What has begun is carried out to its end, whether the request waits for
/// it or not: nobody else may write the file meanwhile.
pub(super) async fn make_once(tenant: &Arc<Tenant>, made: &Made) -> Result<(), DatabaseError> {
    let alone = tenant.making.clone().lock_owned().await;
    if made.is_known() {
        return Ok(());
    }
    let tenant = tenant.clone();
    let making = tokio::spawn(in_current_request(async move {
        let _alone = alone;
        make(&tenant).await
    }));
    making.await.unwrap_or(Err(DatabaseError::Closed))?;
    made.learn();
    Ok(())
}

async fn make(tenant: &Tenant) -> Result<(), DatabaseError> {
    let register = &tenant.shared.register;
    let refused = |error| refused(tenant, error);
    if register.is_made(&tenant.key).await.map_err(refused)? {
        return Ok(());
    }
    create(tenant).await.inspect_err(|error| {
        if !error.session_is_usable() {
            tracing::error!(database = ?tenant.key, %error, "a tenant's database cannot be made");
        }
    })?;
    register.mark_made(&tenant.key).await.map_err(refused)
}

async fn create(tenant: &Tenant) -> Result<(), DatabaseError> {
    let (shared, database) = (&tenant.shared, &tenant.shared.database);
    let _handle = park::take_handle(shared).await?;
    let session = database.new_session(tenant.key.owner());
    let answer = database.call(session, Command::Create { path: shared.path(&tenant.key) }).await;
    // Closing a session that made a file frees its number, nothing else.
    let _ = database.call(session, Command::Close).await;
    answer.map(|_| ())
}

fn refused(tenant: &Tenant, error: RegisterError) -> DatabaseError {
    match error {
        RegisterError::Gone => {
            tracing::info!(database = ?tenant.key, "a request had to do without the database of a deleted tenant");
            DatabaseError::Gone
        }
        RegisterError::Replaced => replaced(),
        RegisterError::Failed(_) => {
            tracing::error!(database = ?tenant.key, %error, "a tenant's database cannot be marked as made");
            DatabaseError::Storage(error.to_string())
        }
    }
}
