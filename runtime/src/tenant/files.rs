//! Where databases lie: `<folder>/<2 hex>/<tenant id>/<environment id>/<generation>.db`.

use std::fs::File;
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, fadvise};

use super::{DatabaseKey, Size};
use crate::name::Id;

fn tenant_folder(folder: &Path, tenant: &Id) -> PathBuf {
    let shard = tenant.as_str().get(..2).unwrap_or_default();
    folder.join(shard).join(tenant.as_str())
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

/// Whether a database is gone because its tenant is.
pub(super) fn are_removed(folder: &Path, key: &DatabaseKey) -> bool {
    let is_there = |path: &Path| path.try_exists().unwrap_or(true);
    is_there(folder) && !is_there(&tenant_folder(folder, &key.tenant))
}

/// Makes the kernel forget what it holds of a database's files, so that the next reader sees what the disk holds.
/// Nobody has them open: closing one here would take the locks of whoever has.
pub(super) async fn forget_cached(database: PathBuf) -> std::io::Result<()> {
    let forget = move || {
        let wal = forget_cached_file(&database.with_extension("db-wal"));
        forget_cached_file(&database).and(wal)
    };
    tokio::task::spawn_blocking(forget).await?
}

fn forget_cached_file(path: &Path) -> std::io::Result<()> {
    let file = match File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    // Only clean pages are forgotten. Those that cannot be flushed are called clean after the attempt.
    let synced = file.sync_all();
    fadvise(&file, 0, None, Advice::DontNeed)?;
    synced
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
