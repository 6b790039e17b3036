//! Whether what was copied can be had back: SQLite reads every page of every database, and the control data names what
//! is there.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use super::BackupError;
use super::manifest::Manifest;
use crate::control::Inventory;
use crate::database::{self, Command, Database, DatabaseError, Owner};
use crate::limits;
use crate::memory::Budget;

/// Database threads that check.
const THREADS: u32 = 2;

/// Checks files that nobody uses.
pub struct Checker {
    database: Database,
}

impl Checker {
    /// Starts its threads.
    ///
    /// # Errors
    /// When the system gives none.
    pub fn start() -> Result<Self, BackupError> {
        database::start().map_err(DatabaseError::Storage)?;
        let database = Database::start(THREADS, THREADS, &Arc::new(Budget::unlimited()));
        let database = database.map_err(|error| DatabaseError::Storage(error.to_string()))?;
        Ok(Self { database })
    }

    /// Has SQLite check all pages of a database.
    ///
    /// # Errors
    /// When it finds something, or does not come to an end.
    pub async fn check(&self, path: &Path) -> Result<(), BackupError> {
        let command = Command::Verify {
            path: path.to_owned(),
            queries: Vec::new(),
            time_max: limits::IMPORT_CHECK_TIME_MAX,
        };
        let session = self.database.new_session(Owner::NODE);
        let answer = self.database.call(session, command).await;
        let _ = self.database.call(session, Command::Close).await;
        let damaged = |error: DatabaseError| BackupError::Damaged {
            path: path.to_owned(),
            reason: format!("it has not passed SQLite's check: {error}"),
        };
        answer.map(|_| ()).map_err(damaged)
    }

    /// Checks control data, and reads what it names.
    ///
    /// # Errors
    /// When it is damaged, or of a newer program.
    pub async fn inventory(&self, path: &Path) -> Result<Inventory, BackupError> {
        Ok(Inventory::read(&self.database, path).await?)
    }
}

impl Manifest {
    /// Whether this is what control data names: each database in the generation that is in use, nothing else, and each
    /// component that a function runs.
    ///
    /// # Errors
    /// When it is not.
    pub fn matches(&self, inventory: &Inventory) -> Result<(), BackupError> {
        let mismatch = |text: String| Err(BackupError::Mismatch(text));
        let copied: HashMap<_, _> =
            self.databases.iter().filter_map(|entry| Some((entry.key()?, entry))).collect();
        for named in &inventory.databases {
            if !copied.contains_key(&named.key) {
                let (tenant, generation) = (&named.tenant, named.key.generation);
                return mismatch(format!("there is no copy of generation {generation} of {tenant}"));
            }
        }
        if copied.len() != inventory.databases.len() || copied.len() != self.databases.len() {
            return mismatch("there are databases that it does not name".to_owned());
        }
        for named in inventory.components.iter().filter(|named| named.is_active) {
            if !self.components.iter().any(|entry| entry.sha256 == named.digest.as_str()) {
                return mismatch(format!("there is no copy of the component {}", named.digest));
            }
        }
        Ok(())
    }
}
