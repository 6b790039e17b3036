//! `dormouse restore`: makes a data folder of a backup. No server runs over either.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::bail;
use clap::Args;

use super::progress::Progress;
use super::{output, text};
use crate::node;

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
                        dormouse restore /mnt/backup/dormouse --data /var/lib/dormouse\n  \
                        dormouse serve --data /var/lib/dormouse\n\n\
                        Every file is compared with the backup's list, every database is checked, and every component \
                        is compiled, before the folder can be served.")]
pub(super) struct RestoreArgs {
    /// The folder of the backup
    folder: PathBuf,
    /// The data folder to make; it must be empty or not there
    #[arg(long, value_name = "PATH")]
    data: PathBuf,
}

pub(super) fn run(args: &RestoreArgs) -> anyhow::Result<()> {
    let started = Instant::now();
    let mut progress = Progress::new();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let mut show = |text: &str| progress.show(|| text.to_owned());
    let restored = runtime.block_on(node::restore(&args.folder, &args.data, &mut show))?;
    drop(progress);
    let manifest = &restored.manifest;
    output::lines(&format!(
        "restored the backup of {} to {}: {}, {}, {}, checked, in {}",
        text::date(manifest.created_at),
        args.data.display(),
        text::count(manifest.databases.len() as u64, "database"),
        text::count(manifest.components.len() as u64, "component"),
        text::size(manifest.bytes()),
        text::span(started.elapsed()),
    ))?;
    restored.refused.iter().for_each(|refused| output::note(&format!("warning: {refused}")));
    output::note(&format!("start it: dormouse serve --data {}", args.data.display()));
    if restored.unsound.is_empty() {
        return Ok(());
    }
    bail!(
        "not all databases have passed the check; they are as the backup has them:\n{}",
        restored.unsound.join("\n")
    )
}
