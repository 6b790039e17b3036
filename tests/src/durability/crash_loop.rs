//! The crash loop: a node under load is killed at random moments, and whatever it acknowledged must be there.
//!
//! The kill, SIGKILL, comes in the middle of the load or while the node closes what it has parked. The moments are drawn
//! from a seed; the scheduler's part in them is not.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::load::{self, Tally};
use super::oracle::Oracle;
use crate::Stop;

/// Longest load before a kill.
const LOAD_MS_MAX: u64 = 400;
/// Longest rest between load and kill: parked handles are checkpointed and closed in it.
const REST_MS_MAX: u64 = 120;

/// What a run has seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// How often the node was killed.
    pub kills: u32,
    /// Kills in the middle of the load; the others came while the node was at rest.
    pub under_load: u32,
    /// What was tried, and what became of it.
    pub tally: Tally,
    /// How long it took.
    pub time: Duration,
}

/// Kills a node `kills` times. `progress` hears of each round.
///
/// # Errors
/// When something that was acknowledged is missing, something is half there, or the node does not come up.
pub fn run(kills: u32, seed: u64, progress: &mut dyn FnMut(&Report)) -> Result<Report> {
    let started = Instant::now();
    let mut random = fastrand::Rng::with_seed(seed);
    let mut node = load::node(true).start()?;
    let mut oracle = Oracle::set_up(&node)?;
    let mut report = Report::default();
    for round in 1..=kills {
        let load_time = Duration::from_millis(random.u64(5..=LOAD_MS_MAX));
        let rest_time = random.bool().then(|| Duration::from_millis(random.u64(0..=REST_MS_MAX)));
        let seen = load::until_killed(&node, &oracle, round, load_time, rest_time)?;
        node.restart(Stop::Kill)?;
        report.kills = round;
        report.under_load += u32::from(rest_time.is_none());
        report.tally += oracle.check(&node, &seen, load::END).with_context(|| {
            format!("after kill {round} of seed {seed}, {load_time:?} of load, rest {rest_time:?}")
        })?;
        if random.bool() {
            oracle.empty(&node)?;
        }
        report.time = started.elapsed();
        progress(&report);
    }
    Ok(report)
}
