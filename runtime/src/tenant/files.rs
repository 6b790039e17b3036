//! Where databases lie: `<folder>/<2 hex>/<tenant id>/<environment id>/<generation>.db`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{DatabaseKey, Size};
use crate::name::Id;

fn tenant_folder(folder: &Path, tenant: &Id) -> PathBuf {
    let shard = tenant.as_str().get(..2).unwrap_or_default();
    folder.join(shard).join(tenant.as_str())
}

/// The file of a database below the folder of all. For files that no node uses.
#[must_use]
pub fn database_file(folder: &Path, key: &DatabaseKey) -> PathBuf {
    path(folder, key)
}

pub(super) fn path(folder: &Path, key: &DatabaseKey) -> PathBuf {
    tenant_folder(folder, &key.tenant).join(key.environment.as_str()).join(format!("{}.db", key.generation))
}

fn key_of_wal(path: &Path) -> Option<DatabaseKey> {
    let generation = path.file_name()?.to_str()?.strip_suffix(".db-wal")?.parse().ok()?;
    let mut folders = path.ancestors().skip(1).filter_map(|folder| folder.file_name()?.to_str());
    let environment = Id::parse(folders.next()?)?;
    let tenant = Id::parse(folders.next()?)?;
    Some(DatabaseKey { tenant, environment, generation })
}

/// The databases under `folder` whose WAL holds bytes.
pub(super) fn leftover_wals(folder: &Path) -> impl Iterator<Item = DatabaseKey> {
    let children = |path: &Path| std::fs::read_dir(path).into_iter().flatten().flatten();
    children(folder)
        .flat_map(move |shard| children(&shard.path()))
        .flat_map(move |tenant| children(&tenant.path()))
        .flat_map(move |environment| children(&environment.path()))
        .filter_map(|file| Some((key_of_wal(&file.path())?, file)))
        .filter(|(_, file)| file.metadata().is_ok_and(|metadata| metadata.len() > 0))
        .map(|(key, _)| key)
}

/// Size of a database's files; a file that is not there has none. Nothing is opened.
pub(super) async fn size(database: &Path) -> Size {
    let bytes = async |path: &Path| tokio::fs::metadata(path).await.map_or(0, |metadata| metadata.len());
    Size { bytes: bytes(database).await, wal_bytes: bytes(&database.with_extension("db-wal")).await }
}

/// What a database's file holds, told by its size and the time of its last change, while its WAL is empty: the next
/// commit makes the WAL longer, and the checkpoint behind it changes the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revision {
    bytes: u64,
    changed: SystemTime,
}

/// The kernel takes the time of a change from a clock that ticks every 10 ms at most.
const CLOCK_TICK: Duration = Duration::from_millis(20);

impl Revision {
    /// Waits until a change would have another time.
    pub(super) async fn grow_old(&self) {
        let age = self.changed.elapsed().unwrap_or_default();
        tokio::time::sleep(CLOCK_TICK.saturating_sub(age)).await;
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let changed = self.changed.duration_since(UNIX_EPOCH).unwrap_or_default();
        write!(f, "{}-{}", self.bytes, changed.as_nanos())
    }
}

/// The revision of a database. Nothing is opened.
pub(super) async fn revision(database: &Path) -> Option<Revision> {
    if size(database).await.wal_bytes > 0 {
        return None;
    }
    let metadata = tokio::fs::metadata(database).await.ok()?;
    let changed = metadata.modified().ok()?;
    // Where the file system counts whole seconds, two changes can have the same time.
    let is_exact = changed.duration_since(UNIX_EPOCH).is_ok_and(|since| since.subsec_nanos() != 0);
    is_exact.then_some(Revision { bytes: metadata.len(), changed })
}

/// Whether a database is gone because its tenant is.
pub(super) fn are_removed(folder: &Path, key: &DatabaseKey) -> bool {
    let is_there = |path: &Path| path.try_exists().unwrap_or(true);
    is_there(folder) && !is_there(&tenant_folder(folder, &key.tenant))
}

/// Where an upload lies that is to become a database.
pub(super) fn upload(folder: &Path, key: &DatabaseKey) -> PathBuf {
    path(folder, key).with_extension("upload")
}

pub(super) async fn make_upload(folder: &Path, key: &DatabaseKey) -> std::io::Result<tokio::fs::File> {
    let path = upload(folder, key);
    if let Some(environment) = path.parent() {
        tokio::fs::DirBuilder::new().recursive(true).mode(0o700).create(environment).await?;
    }
    let mut options = tokio::fs::OpenOptions::new();
    options.write(true).create_new(true).mode(0o600).open(path).await
}

/// Removes an upload that is of no more use. One that stays is found at the next start.
pub(super) async fn remove_upload(folder: &Path, key: &DatabaseKey) {
    let path = upload(folder, key);
    if let Err(error) = tokio::fs::remove_file(&path).await
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "an upload stays behind");
    }
}

/// Removes whatever there is of a generation: `<generation>.db`, its log, and what has not become it. They are gone
/// from the disk when this returns.
pub(super) async fn remove_generation(folder: &Path, key: &DatabaseKey) -> std::io::Result<()> {
    let path = path(folder, key);
    let Some(environment) = path.parent() else { return Ok(()) };
    let folder = match tokio::fs::File::open(environment).await {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        folder => folder?,
    };
    let mut entries = tokio::fs::read_dir(environment).await?;
    let start = format!("{}.", key.generation);
    while let Some(entry) = entries.next_entry().await? {
        if entry.file_name().to_string_lossy().starts_with(&start) {
            tokio::fs::remove_file(entry.path()).await?;
        }
    }
    folder.sync_all().await
}

/// Removes all files of a tenant; none left is fine.
pub(super) async fn remove_tenant(folder: &Path, tenant: &Id) -> std::io::Result<()> {
    match tokio::fs::remove_dir_all(tenant_folder(folder, tenant)).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wal_names_its_database() -> std::io::Result<()> {
        let key = DatabaseKey { tenant: Id::random()?, environment: Id::random()?, generation: 7 };
        let mut wal = path(Path::new("/data/tenants"), &key).into_os_string();
        wal.push("-wal");
        assert_eq!(key_of_wal(Path::new(&wal)), Some(key));
        assert_eq!(key_of_wal(Path::new("/data/tenants/ab/x/y/1.db-wal")), None);
        Ok(())
    }
}
