//! A survey of what a function is made of: the folders to watch, and a fingerprint of all that is in them.
//!
//! A function is built again when its fingerprint is another one, not when an event says so. So a build that writes
//! beside its sources does not set off the next one, and a change during a build is not lost.

use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use anyhow::Context as _;
use ignore::{DirEntry, WalkBuilder};
use sha2::{Digest as _, Sha256};

use crate::cli::project::Function;

/// Folders that no sources are in, whether the project ignores them or not.
const NEVER: &[&str] = &["node_modules", "target"];

/// Of a larger file only the length and the time of its last change are looked at.
const READ_BYTES_MAX: u64 = 1 << 20;

/// The state of a function's sources and of its section of the manifest.
pub(super) type Fingerprint = [u8; 32];

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Survey {
    pub(super) folders: Vec<PathBuf>,
    pub(super) fingerprint: Fingerprint,
}

impl Survey {
    /// Looks at everything that a function is made of, but for hidden files and what `.gitignore` leaves out.
    pub(super) fn of(function: &Function) -> anyhow::Result<Self> {
        let (mut folders, mut hash) = (Vec::new(), Sha256::new());
        hash.update(serde_json::to_vec(&function.manifest).context("cannot write the manifest as JSON")?);
        let made = function.component();
        for root in function.watched() {
            if !root.is_dir() {
                // A file is often replaced by another one, which only its folder tells of.
                folders.extend(root.parent().map(|parent| here_if_empty(parent).to_owned()));
            }
            let entries =
                walk(&root).filter(|entry| entry.path() == root || Some(entry.path()) != made.as_deref());
            for entry in entries {
                add(&mut hash, &entry);
                if entry.file_type().is_some_and(|kind| kind.is_dir()) {
                    folders.push(entry.into_path());
                }
            }
        }
        Ok(Self { folders, fingerprint: hash.finalize().into() })
    }
}

/// The parent of `file` is an empty path.
fn here_if_empty(path: &Path) -> &Path {
    if path.as_os_str().is_empty() { Path::new(".") } else { path }
}

/// Everything below a folder, in an order that does not change. What vanishes meanwhile is left out.
fn walk(root: &Path) -> impl Iterator<Item = DirEntry> {
    let mut walk = WalkBuilder::new(root);
    walk.require_git(false).parents(false).git_global(false).git_exclude(false).ignore(false);
    walk.filter_entry(|entry| {
        let name = entry.file_name().to_str();
        entry.depth() == 0 || !name.is_some_and(|name| NEVER.contains(&name))
    });
    walk.sort_by_file_name(Ord::cmp).build().filter_map(Result::ok)
}

/// Adds a file to the fingerprint. Lengths stand between the parts, so that two states never look the same.
fn add(hash: &mut Sha256, entry: &DirEntry) {
    let Ok(metadata) = fs::metadata(entry.path()) else { return };
    let path = entry.path().as_os_str().as_encoded_bytes();
    hash.update(path.len().to_le_bytes());
    hash.update(path);
    if !metadata.is_file() {
        return;
    }
    hash.update(metadata.len().to_le_bytes());
    let small = metadata.len() <= READ_BYTES_MAX;
    match small.then(|| fs::read(entry.path())) {
        Some(Ok(content)) => {
            hash.update(content.len().to_le_bytes());
            hash.update(content);
        }
        Some(Err(_)) | None => hash.update(changed_at(&metadata).to_le_bytes()),
    }
}

fn changed_at(metadata: &Metadata) -> u128 {
    let time = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    time.map_or(0, |time| time.as_nanos())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::project::Project;

    fn surveyed(project: &Path) -> anyhow::Result<Survey> {
        let project = Project::load(project, None)?;
        Survey::of(project.functions.first().context("no function")?)
    }

    fn write(folder: &Path, file: &str, content: &str) -> std::io::Result<()> {
        let path = folder.join(file);
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::write(path, content)
    }

    #[test]
    fn a_change_of_a_source_is_seen_and_one_beside_it_is_not() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let folder = folder.path();
        write(folder, "dormouse.toml", "[functions.fn]\nbuild = \"make\"\ncomponent = \"fn.wasm\"\n")?;
        write(folder, ".gitignore", "/dist\n")?;
        write(folder, "src/lib.rs", "one")?;
        let first = surveyed(folder)?;
        assert_eq!(first.folders, [folder.to_owned(), folder.join("src")]);

        for beside in ["dist/out.js", "target/x", "node_modules/a/b.js", ".dormouse/dev/log", "fn.wasm"] {
            write(folder, beside, "anything")?;
            assert_eq!(surveyed(folder)?, first, "{beside}");
        }
        // Written again with the same content, it is the same.
        write(folder, "src/lib.rs", "one")?;
        assert_eq!(surveyed(folder)?, first);
        write(folder, "src/lib.rs", "two")?;
        assert_ne!(surveyed(folder)?, first);
        write(folder, "src/lib.rs", "one")?;
        write(folder, "src/new.rs", "")?;
        assert_ne!(surveyed(folder)?, first);
        Ok(())
    }

    #[test]
    fn a_change_of_the_manifest_is_seen() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let folder = folder.path();
        write(folder, "src/lib.rs", "")?;
        write(folder, "dormouse.toml", "[functions.fn]\nwatch = [\"src\"]\n")?;
        let first = surveyed(folder)?;
        let limits = "[functions.fn]\nwatch = [\"src\"]\nlimits = { cpu_time_max_ms = 5 }\n";
        write(folder, "dormouse.toml", limits)?;
        assert_ne!(surveyed(folder)?.fingerprint, first.fingerprint);
        Ok(())
    }

    #[test]
    fn a_finished_component_is_watched_by_its_folder() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let folder = folder.path();
        write(folder, "dormouse.toml", "[functions.fn]\ncomponent = \"out/fn.wasm\"\n")?;
        let before = surveyed(folder)?;
        assert_eq!(before.folders, [folder.join("out")]);
        write(folder, "out/fn.wasm", "x")?;
        assert_ne!(surveyed(folder)?.fingerprint, before.fingerprint);
        Ok(())
    }
}
