//! The command line: what is run, how long, and where the result goes.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Measures Dormouse beside a bare hyper server, wasmtime serve and Bun.
#[derive(Debug, Clone, Parser)]
#[command(name = "bench")]
pub(crate) struct Options {
    /// Slices per server and workload; a figure is the median over them
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub(crate) slices: u64,
    /// Length of a slice in seconds
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub(crate) seconds: u64,
    /// Connections that the load generator keeps open
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(2..=1000))]
    pub(crate) connections: u64,
    /// Tenants that the webhook is spread over
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub(crate) tenants: u64,
    /// Where the result goes: <OUT>.md and <OUT>/raw.csv [default: docs/benchmarks; target/bench-quick if
    /// --quick]
    #[arg(long)]
    out: Option<PathBuf>,
    /// A first impression: 3 slices of 1 s over 100 tenants
    #[arg(long, conflicts_with_all = ["slices", "seconds", "tenants"])]
    quick: bool,
    /// Only these servers: hyper, native, dormouse, dormouse-unparked, dormouse-p3, wasmtime, wasmtime-tuned, bun
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// The bun program [default: the one on PATH]
    #[arg(long, env = "BUN")]
    pub(crate) bun: Option<PathBuf>,
    /// The wasmtime program [default: the one on PATH]
    #[arg(long, env = "WASMTIME")]
    pub(crate) wasmtime: Option<PathBuf>,
    /// Use this component for hello instead of building functions/hello
    #[arg(long)]
    pub(crate) hello: Option<PathBuf>,
    /// Use this component for the webhook instead of building functions/guestbook
    #[arg(long)]
    pub(crate) guestbook: Option<PathBuf>,
    /// Only this: one node, filled to each of these numbers of tenants [default: 1000,10000,100000]
    #[arg(long, num_args = 0..=1, require_equals = true, value_delimiter = ',', value_name = "TENANTS")]
    #[arg(default_missing_value = "1000,10000,100000", conflicts_with_all = ["quick", "slices", "seconds", "tenants"])]
    pub(crate) tenants_curve: Option<Vec<u64>>,
    /// Only this: what a request in flight takes, 2,000 of them held open
    #[arg(long, conflicts_with_all = ["tenants_curve", "quick", "slices", "seconds", "tenants", "only"])]
    pub(crate) memory: bool,
    /// Only this: the load of the capacity model, 1,500 of 5,000 tenants over 2,000 connections
    #[arg(long, conflicts_with_all = ["memory", "tenants_curve", "quick", "slices", "seconds", "tenants", "only"])]
    pub(crate) capacity: bool,
    /// Only this: what a quiet tenant feels of one that attacks the node
    #[arg(long, conflicts_with_all = ["capacity", "memory", "tenants_curve", "quick", "tenants", "only"])]
    pub(crate) neighbours: bool,
    /// Length of the load of `--capacity`
    #[arg(long, default_value_t = 10, requires = "capacity", value_parser = clap::value_parser!(u64).range(1..=60))]
    pub(crate) minutes: u64,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// What the benchmark runs itself as, beside the benchmark.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Command {
    /// The bare hyper server that others are compared with
    #[command(hide = true)]
    HyperServer,
    /// The hyper server with every tenant's database open
    #[command(hide = true)]
    NativeServer {
        /// Where the tenants' files lie
        folder: PathBuf,
    },
}

impl Options {
    /// The options with what `--quick` stands for written out.
    pub(crate) fn settled(mut self) -> Self {
        if self.quick {
            (self.slices, self.seconds, self.tenants) = (3, 1, 100);
        }
        self
    }

    /// Where the result goes, without the extension of the page. A quick run never replaces the kept figures.
    pub(crate) fn out(&self) -> PathBuf {
        let default = if self.quick { "target/bench-quick" } else { "docs/benchmarks" };
        self.out.clone().unwrap_or_else(|| crate::programs::repository().join(default))
    }

    /// Whether the server with this key takes part.
    pub(crate) fn wants(&self, key: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == key)
    }

    /// Tenants that nobody calls before the cold measurement does.
    pub(crate) fn cold_tenants(&self) -> u64 {
        if self.quick { 20 } else { 50 }
    }
}
