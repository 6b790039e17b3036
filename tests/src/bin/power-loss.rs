//! `cargo run --release --bin power-loss -- --cuts 2000`: cuts the power of a node under load, in a model of its disk, and
//! looks for what it had acknowledged. docs/durability.md says what is promised.

use anyhow::Result;
use clap::Parser;
use dormouse_tests::durability::power_loss::{self, Plan};

/// Cuts the power of a Dormouse node under load, again and again, and checks that nothing it acknowledged is lost.
#[derive(Debug, Parser)]
#[command(after_help = "Example: power-loss --cuts 2000 --seed 7")]
struct Options {
    /// How often the power is cut
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    cuts: u32,
    /// What the cuts are drawn from [default: a random one]
    #[arg(long)]
    seed: Option<u64>,
    /// A disk that says it has synced and has not; it must be found out
    #[arg(long)]
    lying_disk: bool,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(..));
    println!("seed {seed}");
    let plan = Plan { cuts: options.cuts, seed, heeds_syncs: !options.lying_disk };
    let report = power_loss::run(plan, &mut |report| {
        if report.cuts % 50 == 0 {
            eprintln!("{} of {} cuts", report.cuts, options.cuts);
        }
    })?;
    println!(
        "{} cuts in {:.0?}: {} writes and {} changes of the control data acknowledged before them, all found; of {} \
         writes without an answer by then {} were found whole, the others not at all",
        report.cuts,
        report.time,
        report.tally.acknowledged,
        report.tally.control,
        report.tally.unanswered,
        report.tally.unanswered_found,
    );
    Ok(())
}
