//! Keys of the node: the operator's token, the key that compiled components are signed with, and the key that seals
//! variables.
//!
//! Each is 256 random bits in a file that only the server's user can read, made when it is missing.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::name::hex;

/// A key cannot be read or made.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub struct KeyError {
    path: PathBuf,
    source: io::Error,
}

/// The keys of the node.
pub struct Keys {
    /// Signs compiled components.
    pub artifacts: [u8; 32],
    /// Seals variables.
    pub variables: [u8; 32],
    admin_token_sha256: [u8; 32],
}

impl Keys {
    /// Reads the keys in `folder`, and makes what is missing.
    ///
    /// # Errors
    /// When a file cannot be read or written, or is not what this node writes.
    pub fn load_or_make(folder: &Path) -> Result<Self, KeyError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| KeyError { path, source }
        };
        if !folder.is_dir() {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(at(folder))?;
        }
        let digest = |file: &str, advice: &'static str| -> Result<[u8; 32], KeyError> {
            let path = folder.join(file);
            let digits = load_or_make(&path, advice).map_err(at(&path))?;
            Ok(Sha256::digest(digits.as_bytes()).into())
        };
        Ok(Self {
            admin_token_sha256: digest("admin.token", REMOVE)?,
            artifacts: digest("artifacts.key", REMOVE)?,
            variables: digest("variables.key", RESTORE)?,
        })
    }

    /// Whether `token` is the operator's; takes the same time whatever is wrong with it.
    #[must_use]
    pub fn is_admin(&self, token: &str) -> bool {
        let given: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        given.ct_eq(&self.admin_token_sha256).into()
    }
}

/// What to do about a key that can be replaced.
const REMOVE: &str = "remove it to get a new one";

/// What to do about a key that cannot.
const RESTORE: &str = "restore it from a backup; with a new one every variable must be set again";

fn load_or_make(path: &Path, advice: &str) -> io::Result<String> {
    match File::open(path) {
        Ok(mut file) => {
            let mut text = String::new();
            file.read_to_string(&mut text)?;
            let text = text.trim_end();
            let well_formed = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            well_formed.then(|| text.to_owned()).ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidData, format!("is not 64 hexadecimal digits; {advice}"))
            })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(path),
        Err(error) => Err(error),
    }
}

fn make(path: &Path) -> io::Result<String> {
    let mut bits = [0; 32];
    getrandom::fill(&mut bits).map_err(|error| io::Error::other(error.to_string()))?;
    let text = hex(&bits);
    let unfinished = path.with_extension("new");
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    writeln!(file, "{text}")?;
    file.sync_all()?;
    std::fs::rename(&unfinished, path)?;
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_made_once() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let first = Keys::load_or_make(folder.path())?;
        let second = Keys::load_or_make(folder.path())?;
        let token = std::fs::read_to_string(folder.path().join("admin.token"))?;
        assert!(first.is_admin(token.trim()) && second.is_admin(token.trim()));
        assert!(!first.is_admin("") && !first.is_admin(&token));
        std::fs::write(folder.path().join("admin.token"), "short")?;
        assert!(Keys::load_or_make(folder.path()).is_err());
        Ok(())
    }
}
