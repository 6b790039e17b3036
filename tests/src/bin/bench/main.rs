//! `cargo run --profile dist --bin bench`: what Dormouse costs, beside a bare hyper server and its peers.
//!
//! This file only wires. `options` says what to run, `fleet` starts the servers (one child process each,
//! over `process`), `seed` uploads the tenants, `slices` loads them in turn with `load`, `cold` and the
//! `Memory` of each server complete the picture, `report` writes it down. `curve`, `held`, `capacity` and
//! `neighbours` are runs of their own. docs/benchmarks.md explains the method.

mod capacity;
mod client;
mod clock;
mod cold;
mod curve;
mod fleet;
mod held;
mod hyper_server;
mod load;
mod machine;
mod mappings;
mod native_server;
mod neighbours;
mod options;
mod process;
mod programs;
mod recipe;
mod report;
mod seed;
mod slices;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use crate::options::{Command, Options};

fn main() -> ExitCode {
    match start() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start() -> Result<ExitCode> {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match &options.command {
        Some(Command::HyperServer) => runtime.block_on(hyper_server::serve()).map(|()| ExitCode::SUCCESS),
        Some(Command::NativeServer { folder }) => {
            runtime.block_on(native_server::serve(folder.clone())).map(|()| ExitCode::SUCCESS)
        }
        None => runtime.block_on(until_interrupted(options.settled())),
    }
}

/// Runs the benchmark, or stops it at the first Ctrl-C or SIGTERM: the servers die with the future that
/// owns them.
async fn until_interrupted(options: Options) -> Result<ExitCode> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        done = bench(&options) => done.map(|()| ExitCode::SUCCESS),
        _ = tokio::signal::ctrl_c() => Ok(ExitCode::from(130)),
        _ = terminate.recv() => Ok(ExitCode::from(143)),
    }
}

async fn bench(options: &Options) -> Result<()> {
    if let Some(sizes) = &options.tenants_curve {
        let scratch = programs::scratch_folder().context("make a scratch folder under target/")?;
        return curve::run(options, sizes, scratch.path()).await;
    }
    if options.memory || options.capacity {
        programs::raise_descriptor_limit();
        let scratch = programs::scratch_folder().context("make a scratch folder under target/")?;
        return if options.memory {
            held::run(options, scratch.path()).await
        } else {
            capacity::run(options, scratch.path()).await
        };
    }
    if options.neighbours {
        let scratch = programs::scratch_folder().context("make a scratch folder under target/")?;
        return neighbours::run(options, scratch.path()).await;
    }
    let generator = load::Generator::find()?;
    let scratch = programs::scratch_folder().context("make a scratch folder under target/")?;
    let machine = machine::describe(scratch.path()).await;
    let mut fleet = fleet::start(options, scratch.path()).await?;
    let mut rows = slices::run(options, &generator, &mut fleet, scratch.path()).await?;
    seed::count_rows(&fleet, options.tenants, &mut rows).await?;
    rows.retain(|row| row.slice > 0);
    slices::memory_at_rest(&mut fleet).await?;
    let cold = cold::measure(options, &mut fleet).await?;
    let report = report::Report { options, machine, generator, fleet: &fleet, rows, cold };
    println!("{}", report.table());
    report.write().await
}
