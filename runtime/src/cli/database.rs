//! `dormouse tenant export-db`, `import-db` and `revert-db`: a tenant's whole database as a file, out and in.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use serde_json::Value;
use tempfile::NamedTempFile;

use super::client::{Client, ClientOptions, Download};
use super::progress::Progress;
use super::{output, text};
use crate::name::TenantName;

#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// Its name
    name: TenantName,
    /// The file to write
    file: PathBuf,
    /// Replace the file if it is there
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    client: ClientOptions,
}

#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// Its name
    name: TenantName,
    /// The database file
    file: PathBuf,
    #[command(flatten)]
    client: ClientOptions,
}

#[derive(Debug, Args)]
pub(super) struct RevertArgs {
    /// Its name
    name: TenantName,
    #[command(flatten)]
    client: ClientOptions,
}

pub(super) fn import(args: &ImportArgs) -> anyhow::Result<()> {
    let (name, path) = (&args.name, &args.file);
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let bytes = file.metadata()?.len();
    let client = args.client.client()?;
    let answer =
        client.put_database(&format!("/v1/tenants/{name}/database"), Sent::new(file, bytes), bytes)?;
    let size = answer.get("bytes").and_then(Value::as_u64).unwrap_or_default();
    output::lines(&format!("imported {} into {name}, {}", path.display(), text::size(size)))?;
    if answer.get("previous_generation").is_some_and(Value::is_u64) {
        output::note(&format!(
            "the database before it is kept: dormouse tenant revert-db {name} goes back to it"
        ));
    }
    Ok(())
}

pub(super) fn revert(args: &RevertArgs) -> anyhow::Result<()> {
    let name = &args.name;
    args.client.client()?.post_and_wait(&format!("/v1/tenants/{name}/database/revert"))?;
    output::lines(&format!("{name} is back at the database before; the same command undoes this"))
}

/// A file that is being sent, with a line that says how far it is.
struct Sent {
    file: File,
    bytes: u64,
    done: u64,
    progress: Progress,
}

impl Sent {
    fn new(file: File, bytes: u64) -> Self {
        Self { file, bytes, done: 0, progress: Progress::new() }
    }
}

impl Read for Sent {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.done += read as u64;
        let (done, bytes) = (self.done, self.bytes);
        self.progress.show(|| format!("{} of {} sent", text::size(done), text::size(bytes)));
        Ok(read)
    }
}

pub(super) fn export(args: &ExportArgs) -> anyhow::Result<()> {
    let file = &args.file;
    if !args.force && file.exists() {
        bail!("{} is there already: give --force to replace it", file.display());
    }
    let client = args.client.client()?;
    let mut target = beside(file)?;
    let mut progress = Progress::new();
    let bytes = download(&client, &args.name, &mut target, &mut progress)?;
    drop(progress);
    keep(target, file, args.force).with_context(|| format!("cannot write {}", file.display()))?;
    output::lines(&format!("exported {} to {}, {}", args.name, file.display(), text::size(bytes)))
}

/// A new file in the folder of another, which vanishes unless it is kept.
fn beside(file: &Path) -> anyhow::Result<NamedTempFile> {
    let folder = folder_of(file);
    tempfile::Builder::new()
        .prefix(".unfinished-")
        .tempfile_in(folder)
        .with_context(|| format!("cannot write in {}", folder.display()))
}

fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn download(
    client: &Client,
    name: &TenantName,
    target: &mut NamedTempFile,
    progress: &mut Progress,
) -> anyhow::Result<u64> {
    let download = client.download(&format!("/v1/tenants/{name}/database"), None)?;
    let download = download.context("the node sent no database")?;
    let bytes = download.bytes;
    save(download, target, |done| {
        progress.show(|| format!("{name}: {} of {}", text::size(done), text::size(bytes)));
    })?;
    Ok(bytes)
}

/// Writes all of a download to `target`. `progress` hears how many bytes are there.
pub(super) fn save(
    mut download: Download,
    target: &mut impl Write,
    mut progress: impl FnMut(u64),
) -> anyhow::Result<()> {
    let mut buffer = vec![0; 256 << 10];
    let mut done = 0;
    loop {
        let read = download.reader.read(&mut buffer).context("the download broke off")?;
        let Some(part) = buffer.get(..read).filter(|part| !part.is_empty()) else { break };
        target.write_all(part).context("the download cannot be written")?;
        done += read as u64;
        progress(done);
    }
    ensure!(done == download.bytes, "the download broke off after {done} of {} bytes", download.bytes);
    Ok(())
}

/// Puts a file in its place: whole, on disk, and under its name at once.
fn keep(target: NamedTempFile, file: &Path, replace: bool) -> anyhow::Result<()> {
    target.as_file().sync_all()?;
    if replace {
        target.persist(file)?;
    } else {
        target.persist_noclobber(file)?;
    }
    Ok(File::open(folder_of(file))?.sync_all()?)
}
