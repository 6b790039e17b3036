//! What a process did to its files: the records of `tests/preload/trace.c`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::load::Moment;

/// One change of the file system, or a sync. Paths are relative to the traced folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    Create(PathBuf),
    Cut(PathBuf, u64),
    Write(PathBuf, u64, Vec<u8>),
    Rename(PathBuf, PathBuf),
    Unlink(PathBuf),
    MakeFolder(PathBuf),
    RemoveFolder(PathBuf),
    /// What was done to it before the record of this number is on disk.
    Sync(PathBuf, usize),
    /// The same of everything.
    SyncAll(usize),
}

/// A change and when it had been made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub time: Moment,
    pub change: Change,
}

/// Reads a trace. A record that the process did not live to finish is left out, as its change may be.
pub(super) fn read(path: &Path) -> Result<Vec<Record>> {
    let bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    let mut rest = bytes.as_slice();
    let mut records = Vec::new();
    while let Some((record, after)) = next(rest)? {
        records.push(record);
        rest = after;
    }
    Ok(records)
}

fn next(bytes: &[u8]) -> Result<Option<(Record, &[u8])>> {
    let Some((head, mut rest)) = bytes.split_first_chunk::<48>() else { return Ok(None) };
    let mut numbers = head.chunks_exact(8).filter_map(|chunk| chunk.try_into().ok().map(u64::from_le_bytes));
    let mut number = || numbers.next().context("a record has no head");
    let (kind, time, argument) = (number()?, number()?, number()?);
    let mut parts = Vec::new();
    for _ in 0..3 {
        let length = usize::try_from(number()?)?;
        let Some((part, after)) = rest.split_at_checked(length) else { return Ok(None) };
        parts.push(part);
        rest = after;
    }
    let [path, second, data] = parts.as_slice() else { bail!("a record has three parts") };
    let path = PathBuf::from(str::from_utf8(path)?);
    let change = match u8::try_from(kind)? {
        b'C' => Change::Create(path),
        b'O' => Change::Cut(path, argument),
        b'W' => Change::Write(path, argument, data.to_vec()),
        b'R' => Change::Rename(path, PathBuf::from(str::from_utf8(second)?)),
        b'U' => Change::Unlink(path),
        b'M' => Change::MakeFolder(path),
        b'D' => Change::RemoveFolder(path),
        b'S' => Change::Sync(path, usize::try_from(argument)?),
        b'A' => Change::SyncAll(usize::try_from(argument)?),
        kind => bail!("a record is of the unknown kind {kind}"),
    };
    Ok(Some((Record { time, change }, rest)))
}
