//! `cargo run --release --bin crash-loop -- --kills 1000`: kills a node under load, again and again, and looks for
//! what it had acknowledged. docs/durability.md says what is promised.

use anyhow::Result;
use clap::Parser;
use dormouse_tests::durability::crash_loop;

/// Kills a Dormouse node under load, again and again, and checks that nothing it acknowledged is lost.
#[derive(Debug, Parser)]
#[command(after_help = "Example: crash-loop --kills 1000 --seed 7")]
struct Options {
    /// How often it is killed
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    kills: u32,
    /// What the moments are drawn from [default: a random one]
    #[arg(long)]
    seed: Option<u64>,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(..));
    println!("seed {seed}");
    let report = crash_loop::run(options.kills, seed, &mut |report| {
        if report.kills % 10 == 0 {
            eprintln!(
                "{} of {} kills, {} writes acknowledged and found",
                report.kills, options.kills, report.tally.acknowledged
            );
        }
    })?;
    println!(
        "{} kills ({} under load) in {:.0?}: {} writes and {} changes of the control data acknowledged, all found; \
         of {} writes without an answer {} were found whole, the others not at all",
        report.kills,
        report.under_load,
        report.time,
        report.tally.acknowledged,
        report.tally.control,
        report.tally.unanswered,
        report.tally.unanswered_found,
    );
    Ok(())
}
