//! What control data names: the databases and the components that a backup needs beside it.

use std::path::Path;

use super::schema::SCHEMA_VERSION;
use super::store::{Row, Store, StoreError, id, integer, key, text};
use crate::catalog::Digest;
use crate::database::{Command, Database, Owner, Reply};
use crate::limits;
use crate::name::{EnvironmentName, TenantName};
use crate::tenant::DatabaseKey;

/// A database that control data names.
#[derive(Debug, Clone)]
pub struct NamedDatabase {
    /// The tenant's name.
    pub tenant: TenantName,
    /// The environment's name.
    pub environment: EnvironmentName,
    /// Which database.
    pub key: DatabaseKey,
}

/// A component that control data names.
#[derive(Debug, Clone)]
pub struct NamedComponent {
    /// Its digest.
    pub digest: Digest,
    /// Whether a function runs it now.
    pub is_active: bool,
}

/// All that control data names.
#[derive(Debug, Clone)]
pub struct Inventory {
    /// One for each environment that has used its database.
    pub databases: Vec<NamedDatabase>,
    /// Everything that ever was deployed.
    pub components: Vec<NamedComponent>,
}

/// Read in this order.
const QUERIES: [&str; 3] = [
    "PRAGMA user_version",
    "SELECT t.name, e.name, t.id, e.id, e.generation FROM environments e JOIN tenants t ON t.id = e.tenant_id
     WHERE e.made ORDER BY t.name, e.name",
    "SELECT v.component, max(a.version_id IS NOT NULL) FROM versions v
     LEFT JOIN active_versions a ON a.version_id = v.id GROUP BY v.component",
];

impl Inventory {
    /// Checks control data that nobody uses, and reads what it names. Nothing is written.
    ///
    /// # Errors
    /// When it is damaged, or newer than this program.
    pub async fn read(database: &Database, path: &Path) -> Result<Self, StoreError> {
        let queries = QUERIES.map(str::to_owned).into();
        let time_max = limits::IMPORT_CHECK_TIME_MAX;
        let session = database.new_session(Owner::NODE);
        let answer =
            database.call(session, Command::Verify { path: path.to_owned(), queries, time_max }).await;
        let _ = database.call(session, Command::Close).await;
        let Reply::Verified(rows) = answer? else { return Err(StoreError::Unexpected("answer")) };
        let [version, databases, components] =
            <[Vec<Row>; 3]>::try_from(rows).map_err(|_| StoreError::Unexpected("answer"))?;
        let found = version.first().map_or(Ok(0), |row| integer(row, 0))?;
        if usize::try_from(found).is_err() || found > SCHEMA_VERSION {
            return Err(StoreError::TooNew { found });
        }
        Ok(Self {
            databases: databases.iter().map(named_database).collect::<Result<_, _>>()?,
            components: components.iter().map(named_component).collect::<Result<_, _>>()?,
        })
    }
}

fn named_database(row: &Row) -> Result<NamedDatabase, StoreError> {
    Ok(NamedDatabase {
        tenant: text(row, 0)?.parse().map_err(|_| StoreError::Unexpected("name"))?,
        environment: text(row, 1)?.parse().map_err(|_| StoreError::Unexpected("name"))?,
        key: key(id(row, 2)?, id(row, 3)?, integer(row, 4)?)?,
    })
}

fn named_component(row: &Row) -> Result<NamedComponent, StoreError> {
    let digest = Digest::parse(text(row, 0)?).ok_or(StoreError::Unexpected("component"))?;
    Ok(NamedComponent { digest, is_active: integer(row, 1)? != 0 })
}

/// Makes control data that was restored fit what lies beside it: the generation in use of each database, and no other.
///
/// # Errors
/// When it cannot be read or changed.
pub async fn settle_restored(database: Database, path: &Path) -> Result<(), StoreError> {
    let store = Store::open(database, path).await?;
    let settled = store.forget_other_generations().await;
    store.close().await;
    settled
}
