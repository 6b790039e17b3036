//! `dormouse demo`: the whole of Dormouse at work, in one command, on this machine.
//!
//! It builds the guestbook of this checkout, starts a node as a child process, and then is nothing but a client of
//! it: the tour. Three parts, in this order:
//!
//! ```text
//! prepare (this thread)  →  node (child process) + tour (thread)  →  serving, until Ctrl-C or the node ends
//! ```
//!
//! However it ends, the node is told to drain and is waited for. The node's folder is the demo's own and is wiped
//! at the start, unless the user names one with `--data`.

mod tour;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, bail};
use clap::Args;

use super::local::{Contents, Folder, PUBLIC_PREFERRED, Server, Stop, free_or_any};
use super::{output, text};
use crate::toolchain::Recipe;
use tour::Tour;

/// The function that is shown, from the root of the checkout.
const GUESTBOOK: &str = "functions/guestbook";

/// Where the demo keeps its node, from the root of the checkout.
const FOLDER: &str = ".dormouse/demo";

#[derive(Debug, Args)]
#[command(after_help = "Example, from a checkout of Dormouse:\n  dormouse demo\n  dormouse demo --exit")]
pub(super) struct DemoArgs {
    /// End after the tour instead of serving until Ctrl-C
    #[arg(long)]
    exit: bool,
    /// Keep the node's data in DIR, which is not wiped [default: .dormouse/demo in the checkout, wiped]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

pub(super) fn run(args: &DemoArgs) -> anyhow::Result<()> {
    let mut steps = Steps::default();
    let here = std::env::current_dir().context("the current directory cannot be read")?;
    let checkout = checkout_above(&here)?;
    let component = build(&mut steps, checkout)?;
    let folder = match &args.data {
        Some(named) => Folder::prepare(named, Contents::Keep)?,
        None => Folder::prepare(&checkout.join(FOLDER), Contents::Wipe)?,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(show(steps, folder, component, args.exit));
    // A tour that Ctrl-C cut short may still wait for an answer that will not come.
    runtime.shutdown_background();
    ended
}

/// The nearest folder, from `here` upwards, that holds the guestbook.
fn checkout_above(here: &Path) -> anyhow::Result<&Path> {
    let found = here.ancestors().find(|folder| folder.join(GUESTBOOK).join("Cargo.toml").is_file());
    found.with_context(|| {
        format!(
            "neither {} nor a folder above it holds {GUESTBOOK}: run the demo inside a checkout of Dormouse",
            here.display()
        )
    })
}

fn build(steps: &mut Steps, checkout: &Path) -> anyhow::Result<PathBuf> {
    steps.begin("Build the guestbook, a function written in Rust")?;
    let begun = Instant::now();
    let mut progress = |line: &str| output::note(&format!("   {line}"));
    let component = Recipe::cargo(checkout.join(GUESTBOOK), &mut progress)?.follow(&mut progress)?;
    let bytes =
        std::fs::metadata(&component).with_context(|| format!("cannot read {}", component.display()))?.len();
    steps.tell(&format!(
        "a WebAssembly component of {} in {}",
        text::size(bytes),
        text::span(begun.elapsed())
    ))?;
    Ok(component)
}

async fn show(mut steps: Steps, folder: Folder, component: PathBuf, exit: bool) -> anyhow::Result<()> {
    let mut stop = Stop::listen()?;
    steps.begin("Start a node")?;
    let mut server = Server::start(&folder, free_or_any(PUBLIC_PREFERRED), "info")?;
    let shown = tokio::select! {
        shown = present(&mut server, &folder, steps, component, exit) => shown,
        () = stop.asked() => {
            // Behind the terminal's `^C`.
            output::note("");
            Err(Interrupted.into())
        }
    };
    let outcome = match shown {
        Ok(()) if !exit => tokio::select! {
            ended = server.ended() => Err(ended),
            () = stop.asked() => {
                output::note("\nStopping the node.");
                Ok(())
            }
        },
        shown => shown,
    };
    let stopped = server.stop(&mut stop).await;
    match outcome {
        Err(error) if !error.is::<Interrupted>() && !error.is::<output::OutputClosed>() => {
            Err(error.context(format!("the demo failed; {}", folder.last_log_lines())))
        }
        outcome => outcome.and(stopped),
    }
}

#[derive(Debug, thiserror::Error)]
#[error("interrupted before the demo was over")]
struct Interrupted;

/// Waits for the node, then gives the tour on a thread of its own, because its HTTP client blocks.
async fn present(
    server: &mut Server,
    folder: &Folder,
    mut steps: Steps,
    component: PathBuf,
    exit: bool,
) -> anyhow::Result<()> {
    let begun = Instant::now();
    let doors = server.listening(folder).await?;
    steps.tell(&format!("ready after {}, its data in {}", text::span(begun.elapsed()), folder.shown()))?;
    let tour = Tour { doors, component, folder: folder.clone(), process: server.process()? };
    let given = tokio::task::spawn_blocking(move || tour.give(&mut steps, exit));
    tokio::select! {
        given = given => given?,
        ended = server.ended() => Err(ended),
    }
}

/// The numbered steps on stdout.
#[derive(Debug, Default)]
struct Steps {
    begun: u32,
}

impl Steps {
    fn begin(&mut self, title: &str) -> anyhow::Result<()> {
        self.begun += 1;
        output::lines(&format!("{}. {title}", self.begun))
    }

    fn tell(&self, line: &str) -> anyhow::Result<()> {
        output::lines(&format!("   {line}"))
    }
}

/// Ends with an error when there is no such thing as the file of a process: another kind of system.
fn resident_bytes(process: u32) -> anyhow::Result<u64> {
    let path = format!("/proc/{process}/status");
    let status = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    match parse_resident(&status) {
        Some(bytes) => Ok(bytes),
        None => bail!("{path} does not tell VmRSS"),
    }
}

/// The `VmRSS` of a `/proc/<pid>/status`, in bytes (`man 5 proc_pid_status`).
fn parse_resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_read_from_the_kernels_words() {
        assert_eq!(
            parse_resident("Name:\tdormouse\nVmRSS:\t   12345 kB\nRssAnon:\t1 kB\n"),
            Some(12_345 << 10)
        );
        assert_eq!(parse_resident("Name:\tzombie\n"), None);
    }

    #[test]
    fn the_checkout_is_found_from_below_and_missed_elsewhere() -> std::io::Result<()> {
        let root = tempfile::tempdir()?;
        let below = root.path().join(GUESTBOOK).join("src");
        std::fs::create_dir_all(&below)?;
        let told = checkout_above(&below).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(told.contains("run the demo inside a checkout"), "{told}");
        std::fs::write(root.path().join(GUESTBOOK).join("Cargo.toml"), "")?;
        assert_eq!(checkout_above(&below).ok(), Some(root.path()));
        Ok(())
    }
}
