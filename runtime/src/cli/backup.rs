//! `dormouse backup`: copies a running node into a folder, and checks the copy.
//!
//! The control data is copied first and says what there is. Then each database that has changed since the last backup
//! in that folder is copied. A tenant that was made, deleted or switched to another database meanwhile makes the control
//! data out of date: it is copied again, and what is missing after it. Components never change. The manifest is written
//! last, so that the backup before is there until this one is whole.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};

use super::address::NodeUrl;
use super::client::{Client, Download, Refused};
use super::progress::Progress;
use super::{database, output, text};
use crate::backup::{
    self, Checker, DatabaseEntry, DatabaseKey, FileEntry, Folder, Inventory, KeyEntry, Manifest,
    NamedDatabase, short,
};
use crate::catalog::{self, Digest};
use crate::name::TenantName;

/// How often the control data is copied again because tenants came, went or were switched.
const ROUNDS_MAX: usize = 10;

/// How often a database is asked for that is in use in a way that does not allow a copy.
const TRIES_MAX: usize = 4;

/// How long to wait before it is asked for again.
const RETRY: Duration = Duration::from_secs(2);

/// The node's reasons not to give a database now that end no backup which has an earlier copy of it.
const IN_THE_WAY: &[&str] =
    &["database-quarantined", "database-suspended", "database-ended", "database-busy"];

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
                        dormouse backup /mnt/backup/dormouse --data /var/lib/dormouse\n\n\
                        Run it again with the same folder, and only what has changed is copied.\n\
                        To have the node back: dormouse restore /mnt/backup/dormouse --data DIR")]
pub(super) struct BackupArgs {
    /// The folder of the backup; it holds the node's keys, so keep it as safe as the node
    folder: PathBuf,
    /// The node's data folder, for its keys and components
    #[arg(long, value_name = "PATH", env = "DORMOUSE_DATA", default_value = "data")]
    data: PathBuf,
    /// The address of the node's admin API
    #[arg(long, value_name = "URL", env = "DORMOUSE_NODE", default_value = "http://127.0.0.1:9090")]
    node: NodeUrl,
    /// What of the backup is checked at the end
    #[arg(long, value_name = "WHAT", default_value = "copied")]
    verify: Verify,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Verify {
    /// The databases that were copied now
    Copied,
    /// Every file, those of earlier backups too
    All,
}

pub(super) fn run(args: &BackupArgs) -> anyhow::Result<()> {
    let started = Instant::now();
    let token = args.data.join("keys/admin.token");
    let client = Client::from_token_file(args.node.clone(), &token)?;
    let folder = Folder::make(&args.folder)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let earlier = folder.manifest()?;
    // What an interrupted backup has left may not have come to the disk.
    folder.prune(earlier.as_ref())?;
    let mut run = Run {
        client,
        args,
        folder,
        earlier: earlier.into_iter().flat_map(|manifest| manifest.databases).filter_map(with_key).collect(),
        checker: Checker::start()?,
        runtime,
        progress: Progress::new(),
        databases: HashMap::new(),
        copied: HashSet::new(),
        failed: Vec::new(),
    };
    let mut manifest = run.copy()?;
    run.verify(&mut manifest)?;
    run.folder.commit(&manifest)?;
    run.folder.prune(Some(&manifest))?;
    let copied: Vec<_> = manifest.databases.iter().filter(|entry| run.is_copied(entry)).collect();
    drop(run.progress);
    let unchanged = manifest.databases.len() - copied.len();
    output::lines(&format!(
        "backed up to {}: {} copied ({}), {unchanged} unchanged, {}; {} in all, checked, in {}",
        args.folder.display(),
        text::count(copied.len() as u64, "database"),
        text::size(copied.iter().map(|entry| entry.copy.bytes).sum()),
        text::count(manifest.components.len() as u64, "component"),
        text::size(manifest.bytes()),
        text::span(started.elapsed()),
    ))?;
    if run.failed.is_empty() {
        return Ok(());
    }
    bail!("not all databases are backed up as they are now:\n{}", run.failed.join("\n"))
}

struct Run<'a> {
    client: Client,
    args: &'a BackupArgs,
    folder: Folder,
    earlier: HashMap<DatabaseKey, DatabaseEntry>,
    checker: Checker,
    runtime: tokio::runtime::Runtime,
    progress: Progress,
    /// What the folder has of the databases that were asked for.
    databases: HashMap<DatabaseKey, DatabaseEntry>,
    /// Those of them that were copied now.
    copied: HashSet<DatabaseKey>,
    /// Tenants without a sound copy of now, and why.
    failed: Vec<String>,
}

fn with_key(entry: DatabaseEntry) -> Option<(DatabaseKey, DatabaseEntry)> {
    Some((entry.key()?, entry))
}

/// The node's name for a database.
fn name_of(named: &NamedDatabase) -> String {
    let key = &named.key;
    format!("{}/{}/{}", key.tenant.as_str(), key.environment.as_str(), key.generation)
}

impl Run<'_> {
    fn copy(&mut self) -> anyhow::Result<Manifest> {
        let created_at = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        for _ in 0..ROUNDS_MAX {
            let control = self.copy_control()?;
            let inventory = self.runtime.block_on(self.checker.inventory(&self.folder.path_of(&control)))?;
            if self.copy_databases(&inventory)? {
                let databases = self.named(&inventory);
                let (components, keys) = (self.copy_components(&inventory)?, self.copy_keys()?);
                let manifest = Manifest::new(created_at, control, databases, components, keys);
                manifest.matches(&inventory)?;
                return Ok(manifest);
            }
        }
        bail!(
            "tenants came, went or were switched each of the {ROUNDS_MAX} times that all were copied: try again"
        )
    }

    fn copy_control(&mut self) -> anyhow::Result<FileEntry> {
        let download = self.client.download("/v1/node/database", None)?.context("the node sent nothing")?;
        self.save(download, "control data", |sha256| format!("control-{}.db", short(sha256)))
    }

    fn save(
        &mut self,
        download: Download,
        what: &str,
        name: impl FnOnce(&str) -> String,
    ) -> anyhow::Result<FileEntry> {
        let mut file = self.folder.begin()?;
        let bytes = download.bytes;
        let progress = &mut self.progress;
        database::save(download, &mut file, |done| {
            progress.show(|| format!("{what}: {} of {}", text::size(done), text::size(bytes)));
        })?;
        Ok(self.folder.keep(file, name)?)
    }

    /// Copies what has changed. `false` when the control data is out of date.
    fn copy_databases(&mut self, inventory: &Inventory) -> anyhow::Result<bool> {
        let mut is_whole = true;
        for (done, named) in inventory.databases.iter().enumerate() {
            if !named.environment.is_production() {
                bail!("{}@{}: this program cannot back up environments", named.tenant, named.environment);
            }
            self.progress.show(|| format!("database {} of {}", done + 1, inventory.databases.len()));
            if !self.databases.contains_key(&named.key) {
                is_whole &=
                    self.copy_database(named).with_context(|| format!("the database of {}", named.tenant))?;
            }
        }
        Ok(is_whole)
    }

    /// Copies a database, unless the folder has it. `false` when it is not there any more.
    fn copy_database(&mut self, named: &NamedDatabase) -> anyhow::Result<bool> {
        let known = self.kept(&named.key);
        let tag = known.as_ref().and_then(|entry| entry.tag.as_deref());
        let download = match self.ask(named, tag) {
            Ok(download) => download,
            Err(error) if is_refusal(&error, "unknown-tenant") => return Ok(false),
            Err(error) if known.is_some() && IN_THE_WAY.iter().any(|problem| is_refusal(&error, problem)) => {
                self.fail(&named.tenant, &error);
                None
            }
            Err(error) => return Err(error),
        };
        let Some(download) = download else {
            let entry = known.context("the node says that nothing has changed, and there is no copy")?;
            self.databases.insert(named.key.clone(), entry);
            return Ok(true);
        };
        if download.database.as_ref() != Some(&name_of(named)) {
            return Ok(false);
        }
        let (tag, tenant) = (download.tag.clone(), named.tenant.clone());
        let copy = self
            .save(download, tenant.as_str(), |sha256| format!("databases/{tenant}-{}.db", short(sha256)))?;
        let entry = DatabaseEntry {
            tenant: named.tenant.clone(),
            environment: named.environment.clone(),
            tenant_id: named.key.tenant.as_str().to_owned(),
            environment_id: named.key.environment.as_str().to_owned(),
            generation: named.key.generation,
            tag,
            copy,
        };
        self.copied.insert(named.key.clone());
        self.databases.insert(named.key.clone(), entry);
        Ok(true)
    }

    /// What the backup before has of a database.
    fn kept(&self, key: &DatabaseKey) -> Option<DatabaseEntry> {
        self.earlier.get(key).filter(|entry| self.folder.has(&entry.copy)).cloned()
    }

    fn is_copied(&self, entry: &DatabaseEntry) -> bool {
        entry.key().is_some_and(|key| self.copied.contains(&key))
    }

    /// Notes what keeps a tenant, and no other, from being backed up.
    fn fail(&mut self, tenant: &TenantName, reason: &impl std::fmt::Display) {
        self.failed.push(format!("{tenant}: {reason}"));
    }

    fn ask(&self, named: &NamedDatabase, tag: Option<&str>) -> anyhow::Result<Option<Download>> {
        let path = format!("/v1/tenants/{}/database", named.tenant);
        for _ in 1..TRIES_MAX {
            match self.client.download(&path, tag) {
                Err(error) if is_refusal(&error, "database-busy") => std::thread::sleep(RETRY),
                answered => return answered,
            }
        }
        self.client.download(&path, tag)
    }

    /// The databases that the control data names.
    fn named(&self, inventory: &Inventory) -> Vec<DatabaseEntry> {
        inventory.databases.iter().filter_map(|named| self.databases.get(&named.key).cloned()).collect()
    }

    /// Copies the components that the folder does not have.
    fn copy_components(&mut self, inventory: &Inventory) -> anyhow::Result<Vec<FileEntry>> {
        let mut entries = Vec::new();
        for named in &inventory.components {
            let (digest, artifacts) = (&named.digest, self.args.data.join("artifacts"));
            let path = catalog::component_file(&artifacts, digest);
            let bytes = match path.metadata() {
                // What nobody runs may have been removed.
                Err(error) if error.kind() == ErrorKind::NotFound && !named.is_active => continue,
                metadata => metadata.with_context(|| format!("cannot read {}", path.display()))?.len(),
            };
            let file = format!("components/{digest}.wasm");
            let entry = FileEntry { file: file.clone(), sha256: digest.as_str().to_owned(), bytes };
            if self.folder.has(&entry) {
                entries.push(entry);
                continue;
            }
            self.progress.show(|| format!("component {digest}"));
            let copied = self.copy_file(&path, |_| file)?;
            if Digest::parse(&copied.sha256).as_ref() != Some(digest) {
                bail!("{} is damaged: its SHA-256 is {}", path.display(), copied.sha256);
            }
            entries.push(copied);
        }
        Ok(entries)
    }

    fn copy_keys(&self) -> anyhow::Result<Vec<KeyEntry>> {
        let copied = |name: &&str| {
            let path = self.args.data.join("keys").join(name);
            let copy = self.copy_file(&path, |sha256| format!("keys/{name}-{}", short(sha256)))?;
            Ok(KeyEntry { name: (*name).to_owned(), copy })
        };
        Manifest::key_names().iter().map(copied).collect()
    }

    fn copy_file(
        &self,
        path: &std::path::Path,
        name: impl FnOnce(&str) -> String,
    ) -> anyhow::Result<FileEntry> {
        let unreadable = || format!("cannot copy {}", path.display());
        let mut source = File::open(path).with_context(unreadable)?;
        let mut target = self.folder.begin()?;
        backup::copy(&mut source, &mut target).with_context(unreadable)?;
        Ok(self.folder.keep(target, name)?)
    }

    /// Reopens what was copied. The control data has been read, and compared with what there is. The backup before has
    /// the better copy of what is not sound; without a tag it is copied again by the next backup.
    fn verify(&mut self, manifest: &mut Manifest) -> anyhow::Result<()> {
        let is_all = self.args.verify == Verify::All;
        if is_all {
            for (done, entry) in manifest.files().enumerate() {
                self.progress.show(|| format!("reading file {}", done + 1));
                self.folder.read(entry, &mut std::io::sink())?;
            }
        }
        for (done, entry) in manifest.databases.iter_mut().enumerate() {
            if !is_all && !self.is_copied(entry) {
                continue;
            }
            self.progress.show(|| format!("checking database {}", done + 1));
            let checked = self.runtime.block_on(self.checker.check(&self.folder.path_of(&entry.copy)));
            if let Err(error) = checked {
                self.fail(&entry.tenant, &error);
                if let Some(kept) = entry.key().and_then(|key| self.kept(&key)) {
                    *entry = kept;
                }
                entry.tag = None;
            }
        }
        Ok(())
    }
}

/// Whether the node has refused for a reason that `docs/problems.md` names.
fn is_refusal(error: &anyhow::Error, problem: &str) -> bool {
    error.downcast_ref::<Refused>().is_some_and(|refused| refused.problem.as_deref() == Some(problem))
}
