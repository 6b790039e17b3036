//! Restoring: a data folder made of a backup, checked as a whole before a server can use it.
//!
//! The folder is marked while it is not whole: a server refuses a folder with the mark. Components are compiled here, so
//! that no request waits for it.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};

use super::{UNFINISHED_RESTORE, lock_data, make_private_folder};
use crate::backup::{Checker, DatabaseEntry, FileEntry, Folder, LOST_AND_FOUND, Manifest};
use crate::catalog::{self, Artifacts, Catalog, Compiler, CompilerLimits, Digest};
use crate::control::{self, Keys};
use crate::database::Database;
use crate::limits;
use crate::memory::Budget;
use crate::process_sandbox::Insistence;
use crate::sandbox::{GuestLimits, PoolSize, Sandbox};
use crate::tenant;

/// A whole data folder.
pub struct Restored {
    /// What it was made of.
    pub manifest: Manifest,
    /// Components that cannot run here, with the reason.
    pub refused: Vec<String>,
    /// Databases that are there as the backup has them and have not passed the check, with the reason.
    pub unsound: Vec<String>,
}

/// A restore under way.
struct Restore<'a> {
    folder: &'a Folder,
    manifest: &'a Manifest,
    data: &'a Path,
    progress: &'a mut dyn FnMut(&str),
}

/// Makes a data folder of a backup. `progress` hears what is being done.
///
/// # Errors
/// When the backup is not good, or `data` is in use, not empty or cannot be written.
pub async fn restore(backup: &Path, data: &Path, progress: &mut dyn FnMut(&str)) -> Result<Restored> {
    let folder = Folder::open(backup)?;
    let manifest = folder.manifest()?.context("the backup is gone")?;
    refuse_used(data)?;
    let lock = lock_data(data)?;
    let mark = data.join(UNFINISHED_RESTORE);
    File::create_new(&mark)
        .and_then(|file| file.sync_all())
        .with_context(|| format!("{} cannot be written", mark.display()))?;
    let mut restore = Restore { folder: &folder, manifest: &manifest, data, progress };
    restore.copy()?;
    let unsound = restore.check().await?;
    let refused = restore.compile().await?;
    rustix::fs::syncfs(&lock).context("the data folder cannot be synced")?;
    std::fs::remove_file(&mark).context("the mark of an unfinished restore cannot be removed")?;
    File::open(data)?.sync_all()?;
    Ok(Restored { manifest, refused, unsound })
}

fn refuse_used(data: &Path) -> Result<()> {
    let Ok(mut entries) = std::fs::read_dir(data) else { return Ok(()) };
    match entries.find(|entry| !entry.as_ref().is_ok_and(|entry| entry.file_name() == LOST_AND_FOUND)) {
        None => Ok(()),
        Some(_) => bail!(
            "{} is not empty: a backup is restored to a new folder; stop the server, and move the old folder away",
            data.display()
        ),
    }
}

impl Restore<'_> {
    fn copy(&mut self) -> Result<()> {
        let manifest = self.manifest;
        self.copy_file(&manifest.control, self.data.join("control.db"), 0o600)?;
        for entry in &manifest.databases {
            (self.progress)(&format!("copying {}", entry.tenant));
            self.copy_file(&entry.copy, self.database(entry)?, 0o600)?;
        }
        for entry in &manifest.components {
            (self.progress)(&format!("copying {}", entry.file));
            let digest = Digest::parse(&entry.sha256).context("a component without a digest")?;
            self.copy_file(entry, catalog::component_file(&self.data.join("artifacts"), &digest), 0o644)?;
        }
        for key in &manifest.keys {
            self.copy_file(&key.copy, self.data.join("keys").join(&key.name), 0o600)?;
        }
        Ok(())
    }

    fn database(&self, entry: &DatabaseEntry) -> Result<PathBuf> {
        let key = entry.key().context("a database without ids")?;
        Ok(tenant::database_file(&self.data.join("tenants"), &key))
    }

    fn copy_file(&self, entry: &FileEntry, path: PathBuf, mode: u32) -> Result<()> {
        let folder = path.parent().context("a file without a folder")?;
        if !folder.is_dir() {
            make_private_folder(folder)?;
        }
        let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path);
        let mut file = file.with_context(|| format!("{} cannot be written", path.display()))?;
        Ok(self.folder.read(entry, &mut file)?)
    }

    /// Checks what was written, not what it was copied from. Gives the databases that have not passed: one tenant's
    /// keeps no other from coming back.
    async fn check(&mut self) -> Result<Vec<String>> {
        let mut unsound = Vec::new();
        let checker = Checker::start()?;
        for entry in &self.manifest.databases {
            (self.progress)(&format!("checking {}", entry.tenant));
            if let Err(error) = checker.check(&self.database(entry)?).await {
                unsound.push(format!("{}: {error}", entry.tenant));
            }
        }
        let control = self.data.join("control.db");
        self.manifest.matches(&checker.inventory(&control).await?)?;
        let database = Database::start(1, 1, &Arc::new(Budget::unlimited()))?;
        control::settle_restored(database, &control).await?;
        Ok(unsound)
    }

    /// Gives what cannot be compiled by this program: that keeps no other function from coming back.
    async fn compile(&mut self) -> Result<Vec<String>> {
        let mut refused = Vec::new();
        let keys = Keys::load_or_make(&self.data.join("keys"))?;
        let guest = GuestLimits::default();
        let memory = Arc::new(Budget::unlimited());
        let pool = PoolSize { guests_max: 1, idle_bytes_max: 0 };
        let sandbox = Arc::new(Sandbox::new(guest, pool, memory.clone(), Arc::default())?);
        let compiler_limits = CompilerLimits {
            bytes_max: limits::COMPILE_BYTES_MAX,
            bytes_charged: 0,
            cpu_time_max: limits::COMPILE_CPU_TIME_MAX,
            sandbox: Insistence::BestEffort,
        };
        let compiler = Compiler::new(std::env::current_exe()?, compiler_limits, memory);
        let artifacts = Artifacts::new(self.data.join("artifacts"), keys.artifacts);
        let catalog = Arc::new(Catalog::new(artifacts, sandbox, compiler, 1, Arc::default()));
        for entry in &self.manifest.components {
            (self.progress)(&format!("compiling {}", entry.sha256));
            let digest = Digest::parse(&entry.sha256).context("a component without a digest")?;
            if let Err(error) = catalog.load(&digest).await {
                refused.push(format!("the component {digest} cannot run here: {error}"));
            }
        }
        Ok(refused)
    }
}
