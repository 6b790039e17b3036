//! The files of components: content-addressed, written whole or not at all, and trusted only with their MAC.

use std::collections::HashMap;
use std::fmt;
use std::fs::{File, Metadata};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use hmac::{Hmac, Mac as _};
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use crate::limits;
use crate::name::hex;

/// The SHA-256 of a component, as 64 lowercase hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Digest(String);

impl Digest {
    /// The digest of a component's bytes.
    #[must_use]
    pub fn of(component: &[u8]) -> Self {
        Self(hex(&Sha256::digest(component)))
    }

    /// Reads a digest that [`Digest::of`] made.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        (text.len() == 64 && text.bytes().all(digit)).then(|| Self(text.to_owned()))
    }

    /// The digest as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Identifies one state of one file: it changes when anybody writes to it.
#[derive(PartialEq, Eq)]
struct Stamp {
    inode: u64,
    bytes: u64,
    changed: (i64, i64),
}

impl From<&Metadata> for Stamp {
    fn from(metadata: &Metadata) -> Self {
        let changed = (metadata.ctime(), metadata.ctime_nsec());
        Self { inode: metadata.ino(), bytes: metadata.len(), changed }
    }
}

/// The folder of components.
pub struct Artifacts {
    folder: PathBuf,
    key: [u8; 32],
    checked: Mutex<HashMap<PathBuf, Stamp>>,
}

/// Where a component lies in the folder of components.
#[must_use]
pub fn component_file(folder: &Path, digest: &Digest) -> PathBuf {
    folder.join(format!("{digest}.wasm"))
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

fn mac_of(key: &[u8; 32], file: &mut File) -> io::Result<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).map_err(io::Error::other)?;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(mac);
        }
        mac.update(buffer.get(..read).unwrap_or_default());
    }
}

impl Artifacts {
    /// The folder of components, whose compiled forms are signed with `key`.
    #[must_use]
    pub fn new(folder: PathBuf, key: [u8; 32]) -> Self {
        Self { folder, key, checked: Mutex::default() }
    }

    pub(super) fn component_path(&self, digest: &Digest) -> PathBuf {
        component_file(&self.folder, digest)
    }

    fn compiled_path(&self, digest: &Digest, compatibility: u64) -> PathBuf {
        self.folder.join(format!("{digest}-{compatibility:016x}.cwasm"))
    }

    pub(super) fn holds(&self, digest: &Digest) -> bool {
        self.component_path(digest).is_file()
    }

    pub(super) fn is_compiled(&self, digest: &Digest, compatibility: u64) -> bool {
        let path = self.compiled_path(digest, compatibility);
        path.is_file() && path.with_extension("mac").is_file()
    }

    /// An empty file of the folder that vanishes unless it is kept.
    pub(super) fn unfinished(&self) -> io::Result<NamedTempFile> {
        tempfile::Builder::new().prefix(".unfinished-").tempfile_in(&self.folder)
    }

    pub(super) async fn stage(&self, component: Vec<u8>) -> io::Result<NamedTempFile> {
        let mut file = self.unfinished()?;
        blocking(move || {
            file.write_all(&component)?;
            Ok(file)
        })
        .await
    }

    pub(super) async fn keep(&self, upload: NamedTempFile, digest: &Digest) -> io::Result<()> {
        let (path, folder) = (self.component_path(digest), self.folder.clone());
        blocking(move || {
            upload.as_file().sync_all()?;
            upload.persist(path)?;
            sync_folder(&folder)
        })
        .await
    }

    /// Signs a compiled component and puts it in its place; the MAC comes first, so that neither is found alone.
    pub(super) async fn keep_compiled(
        &self,
        output: NamedTempFile,
        digest: &Digest,
        compatibility: u64,
    ) -> io::Result<()> {
        let (path, key, folder) = (self.compiled_path(digest, compatibility), self.key, self.folder.clone());
        let mut mac_file = self.unfinished()?;
        blocking(move || {
            let mut compiled = File::open(output.path())?;
            compiled.sync_all()?;
            mac_file.write_all(&mac_of(&key, &mut compiled)?.finalize().into_bytes())?;
            mac_file.as_file().sync_all()?;
            mac_file.persist(path.with_extension("mac"))?;
            output.persist(path)?;
            sync_folder(&folder)
        })
        .await
    }

    pub(super) async fn remove_compiled(&self, digest: &Digest, compatibility: u64) {
        let path = self.compiled_path(digest, compatibility);
        for path in [path.with_extension("mac"), path] {
            if let Err(error) = tokio::fs::remove_file(&path).await {
                tracing::warn!(path = %path.display(), %error, "a file of a refused component stays behind");
            }
        }
    }

    /// The path of a compiled component whose MAC is right. Checked once for each state of the file.
    pub(super) async fn verified(&self, digest: &Digest, compatibility: u64) -> io::Result<PathBuf> {
        let path = self.compiled_path(digest, compatibility);
        let stamp = Stamp::from(&tokio::fs::metadata(&path).await?);
        let known = |checked: &HashMap<PathBuf, Stamp>| checked.get(&path) == Some(&stamp);
        if known(&self.checked.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(path);
        }
        let (file, key) = (path.clone(), self.key);
        blocking(move || {
            let expected = std::fs::read(file.with_extension("mac"))?;
            mac_of(&key, &mut File::open(&file)?)?.verify_slice(&expected).map_err(|_| {
                let name = file.display();
                io::Error::new(io::ErrorKind::InvalidData, format!("{name} is not what this node compiled"))
            })
        })
        .await?;
        let mut checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        if checked.len() >= limits::ROUTES_MAX {
            checked.clear();
        }
        checked.insert(path.clone(), stamp);
        Ok(path)
    }
}
