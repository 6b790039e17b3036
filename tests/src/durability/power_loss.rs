//! Power loss: a node's files as they could be after the power was cut, and whatever it acknowledged must be there.
//!
//! A node runs under load while `tests/preload/trace.c` writes down every change of its files and every sync. From one
//! such trace many cuts are made: at a random change the power goes, and [`super::disk`] says what is left. A node is
//! started over it, and the oracle looks for what had been acknowledged by then.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::disk::Disk;
use super::load::{self, Seen, Tally};
use super::oracle::Oracle;
use super::trace::{self, Record};
use crate::{Stop, root};

/// Cuts that are made of one trace.
const CUTS_PER_TRACE: u32 = 50;
/// Of so many traces one is of a node without a commit log.
const PLAIN_EVERY: u32 = 3;
const LOAD_TIME: Duration = Duration::from_millis(150);
/// What has been parked is checkpointed and closed in it.
const REST_TIME: Duration = Duration::from_millis(100);

/// What is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// How often the power is cut.
    pub cuts: u32,
    /// What the cuts are drawn from. The load is not: another run of a seed is another load.
    pub seed: u64,
    /// Whether the disk does what a sync asks for. One that does not must be found to lose writes.
    pub heeds_syncs: bool,
}

/// What a run has seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// How often the power was cut.
    pub cuts: u32,
    /// What was tried before each cut, and what became of it.
    pub tally: Tally,
    /// How long it took.
    pub time: Duration,
}

/// Cuts the power. `progress` hears of each cut.
///
/// # Errors
/// When something that was acknowledged is missing, something is half there, or the node does not come up. The files of
/// such a cut are kept, and the error says where.
pub fn run(plan: Plan, progress: &mut dyn FnMut(&Report)) -> Result<Report> {
    let started = Instant::now();
    let mut random = fastrand::Rng::with_seed(plan.seed);
    let tracer = Tracer::build()?;
    let mut report = Report::default();
    while report.cuts < plan.cuts {
        let traced = tracer.trace(report.cuts)?;
        for _ in 0..CUTS_PER_TRACE.min(plan.cuts - report.cuts) {
            report.cuts += 1;
            report.tally += traced
                .cut(&mut random, plan.heeds_syncs)
                .with_context(|| format!("cut {} of seed {}", report.cuts, plan.seed))?;
            report.time = started.elapsed();
            progress(&report);
        }
    }
    Ok(report)
}

/// The traced life of a node.
struct Traced {
    before: Disk,
    records: Vec<Record>,
    oracle: Oracle,
    seen: Seen,
}

impl Traced {
    fn cut(&self, random: &mut fastrand::Rng, heeds_syncs: bool) -> Result<Tally> {
        let changes = random.usize(0..=self.records.len());
        let end = self.records.get(changes).map_or(load::END, |record| record.time);
        let mut disk = self.before.clone();
        for record in self.records.iter().take(changes) {
            disk.make(&record.change, heeds_syncs)?;
        }
        let folder = tempfile::Builder::new().prefix("dormouse-power-").tempdir()?;
        disk.after_power_loss(random).write_to(&folder.path().join("data"))?;
        let checked = self.check(folder.path(), end, heeds_syncs);
        checked.with_context(|| {
            let changes = format!("after {changes} of {} changes", self.records.len());
            // Of a disk that lies there is nothing to learn.
            if heeds_syncs { format!("{changes}; see {}", folder.keep().display()) } else { changes }
        })
    }

    fn check(&self, folder: &Path, end: load::Moment, heeds_syncs: bool) -> Result<Tally> {
        let node = load::node(true).start_in(folder)?;
        if !heeds_syncs {
            // Whatever the node complains of, it is right.
            node.expect_log("");
        }
        let checked = self.oracle.clone().check(&node, &self.seen, end);
        if checked.is_err() {
            // What was lost says more than what the node makes of it.
            node.expect_log("");
        }
        checked
    }
}

struct Tracer {
    _folder: TempDir,
    library: PathBuf,
}

impl Tracer {
    fn build() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let library = folder.path().join("trace.so");
        let source = root().join("tests/preload/trace.c");
        let built =
            Command::new("cc").args(["-O2", "-shared", "-fPIC", "-o"]).arg(&library).arg(source).status()?;
        ensure!(built.success(), "cc: {built}");
        Ok(Self { _folder: folder, library })
    }

    /// Runs a node under load until it is killed.
    fn trace(&self, round: u32) -> Result<Traced> {
        let node = || load::node(!(round / CUTS_PER_TRACE).is_multiple_of(PLAIN_EVERY));
        let folder = tempfile::Builder::new().prefix("dormouse-power-").tempdir()?;
        let (data, file) = (folder.path().join("data"), folder.path().join("trace"));
        let mut first = node().start_in(folder.path())?;
        let oracle = Oracle::set_up(&first)?;
        first.stop(Stop::Terminate)?;
        let before = Disk::holding(&data)?;
        let traced = node()
            .env("LD_PRELOAD", self.library.display())
            .env("TRACE_FOLDER", data.display())
            .env("TRACE_FILE", file.display());
        let mut node = traced.start_in(folder.path())?;
        let seen = load::until_killed(&node, &oracle, round, LOAD_TIME, Some(REST_TIME))?;
        node.stop(Stop::Kill)?;
        let records = trace::read(&file)?;
        let mut whole = before.clone();
        records.iter().try_for_each(|record| whole.make(&record.change, true))?;
        whole.as_seen().ensure_same(&data).context("the trace tells not all that was done")?;
        Ok(Traced { before, records, oracle, seen })
    }
}
