//! The control data: which tenants there are, and what each of their functions runs.
//!
//! It is a database of its own, with its schema's version in `user_version`. Each change is carried out whole or not at
//! all, and is on disk before it is answered. Changes that wait while another is written share the next transaction.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex, oneshot};

use crate::catalog::Digest;
use crate::database::{
    Change, Command, Database, DatabaseError, Extent, FilePart, FileStream, Hold, Holds, Owner, Profile,
    Reply, SessionId, Still, Value, forget_cached,
};
use crate::limits;
use crate::manifest::FunctionManifest;
use crate::name::{EnvironmentName, FunctionName, Id, TenantName};
use crate::routing::Address;
use crate::tenant::{DatabaseKey, Made};

use super::audit;
use super::directory::Target;
use super::schema::MIGRATIONS;
use super::variables::FunctionVariables;

/// The WAL of the control data is copied when it is larger than this.
const WAL_BYTES_MAX: u64 = 4 << 20;

/// Largest size of the control data: some ten million tenants.
const BYTES_MAX: u64 = 16 << 30;

/// Why the control data could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The name is taken.
    #[error("the tenant {0} exists")]
    TenantExists(TenantName),
    /// There is no such tenant.
    #[error("there is no tenant {0}")]
    NoTenant(TenantName),
    /// The data was written by a newer program.
    #[error(
        "the control data has schema version {found}, and this program knows {}; run a newer one", MIGRATIONS.len()
    )]
    TooNew {
        /// The version in the file.
        found: i64,
    },
    /// The control data itself failed.
    #[error("control data: {0}")]
    Database(#[from] DatabaseError),
    /// A row is not what this program writes.
    #[error("control data: unexpected {0}")]
    Unexpected(&'static str),
}

/// A tenant, as listed.
#[derive(Debug, Clone)]
pub(super) struct TenantRow {
    pub name: String,
    pub id: Id,
    pub created_at: i64,
}

/// A function of a tenant's production environment.
#[derive(Debug, Clone)]
pub(super) struct FunctionRow {
    pub name: String,
    pub component: String,
    pub bytes: i64,
    pub deployed_at: i64,
    pub manifest: Option<FunctionManifest>,
}

/// The control data.
pub struct Store {
    database: Database,
    path: PathBuf,
    session: Mutex<Option<SessionId>>,
    waiting: std::sync::Mutex<Vec<Waiting>>,
    holds: Holds,
    /// One switch of generations at a time, so that what is read before it still holds.
    pub(super) switching: Mutex<()>,
}

/// A change that has not been carried out, and who waits for it.
struct Waiting {
    change: Change,
    answer: oneshot::Sender<std::result::Result<(), DatabaseError>>,
}

/// The file of the control data, while no checkpoint changes it.
struct Snapshot {
    store: Arc<Store>,
    _hold: Hold,
}

impl Still for Snapshot {
    async fn read(&mut self, offset: u64, bytes_max: usize) -> std::result::Result<FilePart, DatabaseError> {
        self.store.call(Command::ReadFile { offset, bytes_max }).await?.into_file_part()
    }
}

pub(super) type Row = Vec<Value>;
pub(super) type Result<T> = std::result::Result<T, StoreError>;

pub(super) fn text(row: &Row, index: usize) -> Result<&str> {
    row.get(index).and_then(Value::as_text).ok_or(StoreError::Unexpected("text"))
}

/// A column that may be null.
pub(super) fn optional<'r, T>(
    row: &'r Row,
    index: usize,
    read: impl FnOnce(&'r Row, usize) -> Result<T>,
) -> Result<Option<T>> {
    if row.get(index) == Some(&Value::Null) { Ok(None) } else { read(row, index).map(Some) }
}

pub(super) fn integer(row: &Row, index: usize) -> Result<i64> {
    row.get(index).and_then(Value::as_integer).ok_or(StoreError::Unexpected("integer"))
}

pub(super) fn id(row: &Row, index: usize) -> Result<Id> {
    Id::parse(text(row, index)?).ok_or(StoreError::Unexpected("id"))
}

impl Store {
    /// Opens the control data, makes it when it is missing, and brings it to this program's schema.
    ///
    /// # Errors
    /// When it cannot be read, or is newer than this program.
    pub async fn open(database: Database, path: &Path) -> Result<Self> {
        if !path.exists() {
            let session = database.new_session(Owner::NODE);
            database.call(session, Command::Create { path: path.to_owned() }).await?;
            database.call(session, Command::Close).await?;
        }
        let store = Self {
            database,
            path: path.to_owned(),
            session: Mutex::new(None),
            waiting: std::sync::Mutex::default(),
            holds: Holds::default(),
            switching: Mutex::default(),
        };
        let version = store.query("PRAGMA user_version", Vec::new()).await?;
        let found = version.first().map_or(Ok(0), |row| integer(row, 0))?;
        let missing = usize::try_from(found).ok().and_then(|found| MIGRATIONS.get(found..));
        for step in missing.ok_or(StoreError::TooNew { found })? {
            store.change(step.iter().map(|sql| ((*sql).to_owned(), Vec::new())).collect()).await?;
        }
        Ok(store)
    }

    /// Copies the WAL and closes the data.
    pub async fn close(&self) {
        if let Some(session) = self.session.lock().await.take() {
            for command in [Command::Checkpoint, Command::Close] {
                if let Err(error) = self.database.call(session, command).await {
                    tracing::error!(%error, "the control data was not closed cleanly");
                }
            }
        }
    }

    /// Adds a tenant with a production environment, whose database is made when it is first used.
    pub(super) async fn create_tenant(&self, name: &TenantName, key: &DatabaseKey) -> Result<TenantRow> {
        let environment = EnvironmentName::production();
        let created_at = super::access::now();
        let change = vec![
            (
                "INSERT INTO tenants (id, name, created_at) VALUES (?, ?, ?)".to_owned(),
                vec![key.tenant.as_str().into(), name.as_str().into(), created_at.into()],
            ),
            (
                "INSERT INTO environments (id, tenant_id, name, generation, made) VALUES (?, ?, ?, ?, 0)"
                    .to_owned(),
                vec![
                    key.environment.as_str().into(),
                    key.tenant.as_str().into(),
                    environment.as_str().into(),
                    Value::from(key.generation),
                ],
            ),
        ];
        if let Err(error) = self.change_on_record(change).await {
            let taken = self.tenant(name).await?.is_some_and(|row| row.id != key.tenant);
            return Err(if taken { StoreError::TenantExists(name.clone()) } else { error });
        }
        Ok(TenantRow { name: name.as_str().to_owned(), id: key.tenant.clone(), created_at })
    }

    /// A tenant by its name.
    pub(super) async fn tenant(&self, name: &TenantName) -> Result<Option<TenantRow>> {
        let sql = "SELECT name, id, created_at FROM tenants WHERE name = ?";
        let rows = self.query(sql, vec![name.as_str().into()]).await?;
        rows.first().map(tenant_row).transpose()
    }

    /// Tenants by name, those after `after`.
    pub(super) async fn tenants(&self, after: &str, limit: u32) -> Result<Vec<TenantRow>> {
        let sql = "SELECT name, id, created_at FROM tenants WHERE name > ? ORDER BY name LIMIT ?";
        let rows = self.query(sql, vec![after.into(), Value::Integer(limit.into())]).await?;
        rows.iter().map(tenant_row).collect()
    }

    /// The functions of a tenant's production environment.
    pub(super) async fn functions(&self, tenant: &Id) -> Result<Vec<FunctionRow>> {
        let sql = "SELECT a.function, v.component, v.bytes, v.created_at, v.manifest
                   FROM environments e
                   JOIN active_versions a ON a.environment_id = e.id
                   JOIN versions v ON v.id = a.version_id
                   WHERE e.tenant_id = ? AND e.name = 'production' ORDER BY a.function";
        let rows = self.query(sql, vec![tenant.as_str().into()]).await?;
        let function = |row: &Row| {
            Ok(FunctionRow {
                name: text(row, 0)?.to_owned(),
                component: text(row, 1)?.to_owned(),
                bytes: integer(row, 2)?,
                deployed_at: integer(row, 3)?,
                manifest: manifest(row, 4)?,
            })
        };
        rows.iter().map(function).collect()
    }

    /// The databases of a tenant that are in use, production first.
    pub(super) async fn databases(&self, tenant: &Id) -> Result<Vec<DatabaseKey>> {
        let sql = "SELECT id, generation FROM environments WHERE tenant_id = ? ORDER BY name <> 'production'";
        let rows = self.query(sql, vec![tenant.as_str().into()]).await?;
        rows.iter().map(|row| key(tenant.clone(), id(row, 0)?, integer(row, 1)?)).collect()
    }

    /// Removes a tenant and all that is known of it.
    pub(super) async fn delete_tenant(&self, tenant: &Id) -> Result<()> {
        let of_tenant = |sql: &str| (sql.to_owned(), vec![tenant.as_str().into()]);
        self.change_on_record(vec![
            of_tenant(
                "DELETE FROM active_versions
                 WHERE environment_id IN (SELECT id FROM environments WHERE tenant_id = ?)",
            ),
            of_tenant("DELETE FROM tenants WHERE id = ?"),
        ])
        .await
    }

    /// Makes `component` what a function of a tenant's production environment runs.
    pub(super) async fn deploy(
        &self,
        tenant: &Id,
        function: &FunctionName,
        component: &Digest,
        bytes: u64,
        manifest: Option<&FunctionManifest>,
    ) -> Result<()> {
        let manifest = manifest.map(serde_json::to_string).transpose();
        let manifest = manifest.map_err(|_| StoreError::Unexpected("manifest"))?;
        self.change_on_record(vec![
            (
                "INSERT INTO versions (tenant_id, function, component, bytes, manifest) VALUES (?, ?, ?, ?, ?)"
                    .to_owned(),
                vec![
                    tenant.as_str().into(),
                    function.as_str().into(),
                    component.as_str().into(),
                    Value::from(bytes),
                    manifest.map_or(Value::Null, Value::Text),
                ],
            ),
            (
                "INSERT OR REPLACE INTO active_versions (environment_id, function, version_id)
                 SELECT id, ?, last_insert_rowid() FROM environments WHERE tenant_id = ? AND name = 'production'"
                    .to_owned(),
                vec![function.as_str().into(), tenant.as_str().into()],
            ),
        ])
        .await
    }

    /// What an address stands for. The outer `None`: no such tenant or environment; the inner one: no such function.
    pub(super) async fn resolve(&self, address: &Address) -> Result<Option<Option<Target>>> {
        let sql = "SELECT t.id, e.id, e.generation, v.component, v.manifest, e.made
                   FROM tenants t
                   JOIN environments e ON e.tenant_id = t.id AND e.name = ?2
                   LEFT JOIN active_versions a ON a.environment_id = e.id AND a.function = ?3
                   LEFT JOIN versions v ON v.id = a.version_id
                   WHERE t.name = ?1";
        let parameters = vec![
            address.tenant.as_str().into(),
            address.environment.as_str().into(),
            address.function.as_str().into(),
        ];
        let rows = self.query(sql, parameters).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        if row.get(3) == Some(&Value::Null) {
            return Ok(Some(None));
        }
        let database = key(id(row, 0)?, id(row, 1)?, integer(row, 2)?)?;
        let component = Digest::parse(text(row, 3)?).ok_or(StoreError::Unexpected("component"))?;
        let FunctionManifest { limits, allowed_outbound_hosts, .. } = manifest(row, 4)?.unwrap_or_default();
        let outbound_hosts = Arc::new(allowed_outbound_hosts);
        let variables = FunctionVariables::new(address.function.clone());
        let made = Made::new(integer(row, 5)? != 0);
        Ok(Some(Some(Target { database, made, component, limits, outbound_hosts, variables })))
    }

    pub(super) async fn query(&self, sql: &str, parameters: Vec<Value>) -> Result<Vec<Row>> {
        let command = Command::Execute {
            sql: sql.to_owned(),
            parameters,
            result_bytes_max: limits::RESULT_BYTES_MAX,
            time_max: Duration::from_secs(10),
            may_write: false,
            first_of_lease: false,
            in_transaction: false,
        };
        let answer = self.call(command).await?.into_executed();
        Ok(answer.map_err(|_| StoreError::Unexpected("answer"))?.outcome?.rows)
    }

    /// Carries out a change, which is on disk then. Whoever gets the session first carries out all that wait for it, so
    /// this must not be dropped in the middle: others would not hear of theirs.
    pub(super) async fn change(&self, change: Change) -> Result<()> {
        let (answer, answered) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(Waiting { change, answer });
        let mut session = self.session.lock().await;
        let waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        if !waiting.is_empty() {
            self.change_all(&mut session, waiting).await;
        }
        drop(session);
        Ok(answered.await.unwrap_or(Err(DatabaseError::Closed))?)
    }

    /// The same for what a caller of the admin API asked for: the entry of the audit log is a part of the change.
    /// There is one only where the last statement of the change has changed something.
    pub(super) async fn change_on_record(&self, mut change: Change) -> Result<()> {
        let Some(entry) = audit::current() else { return self.change(change).await };
        change.push(entry.of_change());
        self.change(change).await?;
        entry.note_on_record();
        Ok(())
    }

    async fn change_all(&self, session: &mut Option<SessionId>, waiting: Vec<Waiting>) {
        let number = waiting.len();
        let (changes, answers): (Vec<_>, Vec<_>) =
            waiting.into_iter().map(|waiting| (waiting.change, waiting.answer)).unzip();
        let outcomes = match self.call_on(session, Command::Batch { changes }).await {
            Ok(Reply::Batched { outcomes }) => outcomes,
            Ok(_) => vec![Err(DatabaseError::Closed); number],
            Err(error) => vec![Err(error); number],
        };
        for (answer, outcome) in answers.into_iter().zip(outcomes) {
            // Whoever asked may be gone.
            let _ = answer.send(outcome);
        }
        let wal = tokio::fs::metadata(self.path.with_extension("db-wal")).await;
        if wal.is_ok_and(|wal| wal.len() > WAL_BYTES_MAX)
            // A snapshot is read; a later change will copy more.
            && !self.holds.are_any()
            && let Err(error) = self.call_on(session, Command::Checkpoint).await
        {
            // The changes themselves are on disk.
            tracing::error!(%error, "the write-ahead log of the control data cannot be copied");
        }
    }

    async fn call(&self, command: Command) -> std::result::Result<Reply, DatabaseError> {
        self.call_on(&mut *self.session.lock().await, command).await
    }

    /// A consistent copy of the control data, while it goes on to be read and changed.
    pub(super) async fn snapshot(self: &Arc<Self>) -> Result<FileStream> {
        let hold = self.holds.hold().await?;
        let mut session = self.session.lock().await;
        let copied = self.call_on(&mut session, Command::Checkpoint).await?;
        if copied == (Reply::Checkpointed { extent: Extent::Partial }) {
            return Err(StoreError::Unexpected("reader of the control data"));
        }
        let snapshot = Snapshot { store: self.clone(), _hold: hold };
        drop(session);
        Ok(FileStream::start(snapshot, limits::SNAPSHOT_TIME_MAX).await?)
    }

    /// Sends a command on the one session, which is opened when it is not there. What it reads first is what is on disk,
    /// also when a flush of an earlier session or process failed.
    async fn call_on(
        &self,
        session: &mut Option<SessionId>,
        command: Command,
    ) -> std::result::Result<Reply, DatabaseError> {
        let id = match session {
            Some(id) => *id,
            None => {
                forget_cached(self.path.clone())
                    .await
                    .map_err(|error| DatabaseError::Storage(format!("{}: {error}", self.path.display())))?;
                let id = self.database.new_session(Owner::NODE);
                let open = Command::Open {
                    path: self.path.clone(),
                    profile: Profile::Control,
                    bytes_max: BYTES_MAX,
                };
                if let Err(error) = self.database.call(id, open).await {
                    let _ = self.database.call(id, Command::Close).await;
                    return Err(error);
                }
                *session = Some(id);
                id
            }
        };
        let answer = self.database.call(id, command).await;
        if let Err(error) = &answer
            && !error.session_is_usable()
        {
            *session = None;
            let _ = self.database.call(id, Command::Close).await;
        }
        answer
    }
}

fn tenant_row(row: &Row) -> Result<TenantRow> {
    Ok(TenantRow { name: text(row, 0)?.to_owned(), id: id(row, 1)?, created_at: integer(row, 2)? })
}

fn manifest(row: &Row, index: usize) -> Result<Option<FunctionManifest>> {
    let text = row.get(index).and_then(Value::as_text);
    let read = text.map(serde_json::from_str).transpose();
    read.map_err(|_| StoreError::Unexpected("manifest"))
}

pub(super) fn key(tenant: Id, environment: Id, generation: i64) -> Result<DatabaseKey> {
    let generation = u64::try_from(generation).map_err(|_| StoreError::Unexpected("generation"))?;
    Ok(DatabaseKey { tenant, environment, generation })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Budget;

    type Outcome = std::result::Result<(), Box<dyn std::error::Error>>;

    /// Control data as an earlier program left it, after so many steps.
    async fn left_by(database: &Database, path: &Path, steps: usize, then: &[&str]) -> Outcome {
        let session = database.new_session(Owner::NODE);
        database.call(session, Command::Create { path: path.to_owned() }).await?;
        let open = Command::Open { path: path.to_owned(), profile: Profile::Control, bytes_max: BYTES_MAX };
        database.call(session, open).await?;
        let sql = MIGRATIONS.iter().take(steps).copied().flatten().chain(then);
        let statements = sql.map(|sql| ((*sql).to_owned(), Vec::new())).collect();
        database.call(session, Command::Batch { changes: vec![statements] }).await?;
        database.call(session, Command::Close).await?;
        Ok(())
    }

    #[tokio::test]
    async fn what_an_earlier_program_left_is_brought_up_to_date() -> Outcome {
        crate::database::start()?;
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("control.db");
        let database = Database::start(1, 4, &Arc::new(Budget::unlimited()))?;
        let (tenant, environment, component) = ("0".repeat(32), "1".repeat(32), "2".repeat(64));
        let rows = [
            format!("INSERT INTO tenants (id, name) VALUES ('{tenant}', 'acme')"),
            format!("INSERT INTO environments VALUES ('{environment}', '{tenant}', 'production', 1)"),
            format!("INSERT INTO versions VALUES (7, '{tenant}', 'fn', '{component}', 5, 0)"),
            format!("INSERT INTO active_versions VALUES ('{environment}', 'fn', 7)"),
        ];
        left_by(&database, &path, 1, &rows.each_ref().map(String::as_str)).await?;

        for _ in 0..2 {
            let store = Store::open(database.clone(), &path).await?;
            let (tenant, environment) = (Id::parse(&tenant), Id::parse(&environment));
            let key = key(tenant.ok_or("id")?, environment.ok_or("id")?, 1)?;
            let functions = store.functions(&key.tenant).await?;
            assert_eq!(functions.len(), 1);
            assert_eq!(store.made(&key).await?, Some(true), "its database is there already");
            assert!(functions.iter().all(|function| function.manifest.is_none()));
            store.close().await;
        }
        Ok(())
    }

    #[tokio::test]
    async fn what_a_newer_program_left_is_refused() -> Outcome {
        crate::database::start()?;
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("control.db");
        let database = Database::start(1, 4, &Arc::new(Budget::unlimited()))?;
        left_by(&database, &path, MIGRATIONS.len(), &["PRAGMA user_version = 1000"]).await?;
        let refused = Store::open(database, &path).await.err().map(|error| error.to_string());
        assert!(refused.is_some_and(|refused| refused.contains("run a newer one")));
        Ok(())
    }
}
