//! The database room as the targets use it: one thread, and files in a folder of their own.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use dormouse::database::{
    self, Command, Database, DatabaseError, Executed, Owner, Profile, Reply, Rows, SessionId, Value,
};
use dormouse::memory::Budget;
use tempfile::TempDir;

/// Largest database of a target.
pub(super) const BYTES_MAX: u64 = 1 << 20;

/// Memory of the node: as much as one session may take, and more.
const MEMORY_BYTES_MAX: u64 = 256 << 20;

/// Running time of a statement of a target.
pub(super) const TIME_MAX: Duration = Duration::from_millis(50);

/// The room, and a folder for its files.
pub(super) struct World {
    database: Database,
    folder: TempDir,
}

impl World {
    /// Starts the room.
    pub(super) fn start() -> Result<Self> {
        database::start().map_err(anyhow::Error::msg)?;
        // In memory where there is such a folder: a fuzzer makes thousands of files a minute.
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let folder = tempfile::Builder::new().prefix("dormouse-fuzz-").tempdir_in(parent)?;
        let memory = Arc::new(Budget::new(MEMORY_BYTES_MAX, MEMORY_BYTES_MAX));
        Ok(Self { database: Database::start(1, 4, &memory)?, folder })
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn file(&self) -> PathBuf {
        self.folder().join("tenant.db")
    }

    /// Makes a database, as the node does with a new tenant.
    pub(super) fn create(&self) -> Result<()> {
        let id = self.database.new_session(Owner::NODE);
        self.send(id, Command::Create { path: self.file() })?;
        self.close(id)
    }

    /// Opens the database.
    pub(super) fn open(&self, profile: Profile) -> Result<Session<'_>> {
        let id = self.database.new_session(Owner::NODE);
        self.send(id, Command::Open { path: self.file(), profile, bytes_max: BYTES_MAX })?;
        Ok(Session { world: self, id })
    }

    fn send(&self, id: SessionId, command: Command) -> Result<Reply> {
        Ok(self.database.send(id, command).blocking_recv().context("no answer")??)
    }

    fn close(&self, id: SessionId) -> Result<()> {
        self.send(id, Command::Close).map(drop)
    }

    /// The names of the files in its folder.
    pub(super) fn files(&self) -> Result<Vec<String>> {
        let entries = fs::read_dir(self.folder())?;
        let mut names: Vec<String> = entries
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<Result<_>>()?;
        names.sort();
        Ok(names)
    }
}

/// An open database.
pub(super) struct Session<'a> {
    world: &'a World,
    id: SessionId,
}

impl Session<'_> {
    /// Runs a statement. A failure of the statement is an answer; one of the session is an error.
    pub(super) fn run(&self, sql: &str, parameters: Vec<Value>) -> Result<Result<Rows, DatabaseError>> {
        let command = Command::Execute {
            sql: sql.to_owned(),
            parameters,
            result_bytes_max: 2 << 20,
            time_max: TIME_MAX,
            may_write: true,
            first_of_lease: false,
            in_transaction: false,
        };
        match self.world.send(self.id, command)? {
            Reply::Executed(Executed { outcome, .. }) => Ok(outcome),
            other => bail!("no outcome: {other:?}"),
        }
    }

    /// The rows of a statement that must not fail.
    pub(super) fn rows(&self, sql: &str) -> Result<Vec<Vec<Value>>> {
        let rows = self.run(sql, Vec::new())?.with_context(|| sql.to_owned())?;
        Ok(rows.rows)
    }

    /// Ends a lease, as the tenant room does.
    pub(super) fn reset(&self) -> Result<()> {
        self.world.send(self.id, Command::Rollback)?;
        self.world.send(self.id, Command::Reset).map(drop)
    }

    /// Copies the WAL into the database.
    pub(super) fn checkpoint(&self) -> Result<()> {
        self.world.send(self.id, Command::Checkpoint).map(drop)
    }

    /// Closes the database.
    pub(super) fn close(self) -> Result<()> {
        self.world.close(self.id)
    }
}
