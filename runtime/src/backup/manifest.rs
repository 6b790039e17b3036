//! `backup.json`: what a backup is made of. Whatever it says is checked before it is believed.

use std::path::{Component, Path};

use serde::{Deserialize, Serialize};

use crate::catalog::Digest;
use crate::name::{EnvironmentName, Id, TenantName};
use crate::tenant::DatabaseKey;

/// The format that this program writes and reads.
const FORMAT: u32 = 1;

/// The names of the keys of a node.
const KEYS: &[&str] = &["admin.token", "artifacts.key", "variables.key"];

/// A file of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Its path below the folder.
    pub file: String,
    /// The SHA-256 of its content, in hexadecimal digits.
    pub sha256: String,
    /// Its size.
    pub bytes: u64,
}

/// A database of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseEntry {
    /// The tenant's name.
    pub tenant: TenantName,
    /// The environment's name.
    pub environment: EnvironmentName,
    /// The tenant's id.
    pub tenant_id: String,
    /// The environment's id.
    pub environment_id: String,
    /// Which file of the environment it was.
    pub generation: u64,
    /// The node's entity tag: while it is the same there, so is the database.
    pub tag: Option<String>,
    /// The file.
    #[serde(flatten)]
    pub copy: FileEntry,
}

impl DatabaseEntry {
    /// Which database it is; nothing when the ids are none.
    #[must_use]
    pub fn key(&self) -> Option<DatabaseKey> {
        let (tenant, environment) = (Id::parse(&self.tenant_id)?, Id::parse(&self.environment_id)?);
        Some(DatabaseKey { tenant, environment, generation: self.generation })
    }
}

/// A key of the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyEntry {
    /// Its name in the folder of keys.
    pub name: String,
    /// The file.
    #[serde(flatten)]
    pub copy: FileEntry,
}

/// What a backup is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    format: u32,
    /// The version of the program that wrote it.
    pub version: String,
    /// When it was begun, in Unix seconds.
    pub created_at: u64,
    /// The control data.
    pub control: FileEntry,
    /// One for each environment of each tenant.
    pub databases: Vec<DatabaseEntry>,
    /// Components as they were uploaded.
    pub components: Vec<FileEntry>,
    /// The node's keys.
    pub keys: Vec<KeyEntry>,
}

impl Manifest {
    /// The manifest of a backup that was begun at `created_at`.
    #[must_use]
    pub fn new(
        created_at: u64,
        control: FileEntry,
        databases: Vec<DatabaseEntry>,
        components: Vec<FileEntry>,
        keys: Vec<KeyEntry>,
    ) -> Self {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Self { format: FORMAT, version, created_at, control, databases, components, keys }
    }

    /// The names of a node's keys.
    #[must_use]
    pub fn key_names() -> &'static [&'static str] {
        KEYS
    }

    /// Reads a manifest; the error says what is wrong with it.
    pub(super) fn read(json: &[u8]) -> Result<Self, String> {
        let manifest: Self = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        if manifest.format != FORMAT {
            return Err(format!("it has format {}, and this program knows {FORMAT}", manifest.format));
        }
        if let Some(entry) = manifest.files().find(|entry| !is_inside(&entry.file)) {
            return Err(format!("{:?} is no file of the folder", entry.file));
        }
        if let Some(entry) = manifest.databases.iter().find(|entry| entry.key().is_none()) {
            return Err(format!("the ids of {} are none", entry.tenant));
        }
        if let Some(entry) = manifest.components.iter().find(|entry| Digest::parse(&entry.sha256).is_none()) {
            return Err(format!("{:?} is no component", entry.file));
        }
        if let Some(key) = manifest.keys.iter().find(|key| !KEYS.contains(&key.name.as_str())) {
            return Err(format!("{:?} is no key", key.name));
        }
        Ok(manifest)
    }

    /// All files.
    pub fn files(&self) -> impl Iterator<Item = &FileEntry> {
        let databases = self.databases.iter().map(|entry| &entry.copy);
        let keys = self.keys.iter().map(|entry| &entry.copy);
        std::iter::once(&self.control).chain(databases).chain(&self.components).chain(keys)
    }

    /// Bytes of all files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files().map(|entry| entry.bytes).sum()
    }
}

/// Whether a path stays in the folder that it is below.
fn is_inside(path: &str) -> bool {
    let mut parts = Path::new(path).components().peekable();
    parts.peek().is_some() && parts.all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_names_files_of_its_folder() {
        for inside in ["control.db", "databases/acme-0.db"] {
            assert!(is_inside(inside), "{inside}");
        }
        for outside in ["", "/etc/passwd", "../x", "databases/../../x", "./x"] {
            assert!(!is_inside(outside), "{outside}");
        }
    }
}
