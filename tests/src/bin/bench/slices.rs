//! The measurement: short slices of load, the servers in turn, so that all of them meet the machine's moods
//! alike.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use dormouse::limits::{COMPONENT_PARK_TIME_MAX, PARK_TIME_MAX};
use tokio::process::Command;

use crate::{
    client::Client,
    fleet::{Fleet, Server},
    load::{Ask, Generator, Sample},
    options::Options,
    recipe::Recipe,
};

/// A server has come to rest when it uses less than this in [`QUIET_TIME`].
const QUIET_CPU: Duration = Duration::from_millis(10);
const QUIET_TIME: Duration = Duration::from_millis(200);
/// A server that never rests is not waited for any longer.
const SETTLE_TIME_MAX: Duration = Duration::from_secs(8);
const MEMORY_INTERVAL: Duration = Duration::from_millis(100);

/// What the servers are asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Workload {
    /// A constant text.
    Hello,
    /// One insert and one select in the database of a random tenant.
    Webhook,
    /// The newest 100 rows of a random tenant.
    Read,
    /// The same of one tenant, always.
    HotRead,
    /// The webhook of one tenant, always.
    HotWebhook,
}

impl Workload {
    /// Its name in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Hello => "hello",
            Self::Webhook => "webhook",
            Self::Read => "read",
            Self::HotRead => "read, one tenant",
            Self::HotWebhook => "webhook, one tenant",
        }
    }

    /// All of them, in the order in which they are measured.
    pub(crate) const ALL: [Self; 5] =
        [Self::Hello, Self::Webhook, Self::Read, Self::HotRead, Self::HotWebhook];

    /// Whether each of its requests leaves a row.
    pub(crate) fn inserts(self) -> bool {
        matches!(self, Self::Webhook | Self::HotWebhook)
    }

    fn ask(self, server: &Server, options: &Options, seed: u64) -> Ask<'static> {
        let all = options.tenants;
        match self {
            Self::Hello => Ask::Get(server.spec.hello.unwrap_or_default()),
            Self::Webhook => Ask::Webhook { tenants: all, seed },
            Self::Read => Ask::Read { tenants: all, seed },
            Self::HotRead => Ask::Read { tenants: 1, seed },
            Self::HotWebhook => Ask::Webhook { tenants: 1, seed },
        }
    }

    fn includes(self, server: &Server) -> bool {
        match self {
            Self::Hello => server.spec.hello.is_some(),
            Self::Webhook => server.spec.webhook,
            Self::Read | Self::HotRead | Self::HotWebhook => {
                server.spec.webhook && server.spec.key != "dormouse-unparked"
            }
        }
    }
}

/// One slice of one server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    /// What was asked.
    pub(crate) workload: Workload,
    /// Who was asked.
    pub(crate) server: &'static str,
    /// Which slice, counted from 1.
    pub(crate) slice: u64,
    /// What the load generator saw.
    pub(crate) sample: Sample,
    /// Requests that the server carried out after the generator had stopped listening: with many
    /// connections and few requests per second they are several percent. Known when the rows have been
    /// counted, an average.
    pub(crate) unanswered: f64,
    /// Databases that Dormouse had open, at most.
    pub(crate) open_max: u64,
    /// CPU time of the server from the slice's start until it came to rest.
    pub(crate) cpu: Duration,
}

impl Row {
    /// Microseconds of CPU time per request that was carried out.
    pub(crate) fn cpu_us(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / (self.sample.requests as f64 + self.unanswered)
    }

    /// Requests per second.
    pub(crate) fn rate(&self) -> f64 {
        self.sample.requests as f64 / self.sample.seconds
    }
}

/// Runs all slices of all workloads and gives the rows in the order in which they were measured, slice 0 of
/// each server being its warm-up.
pub(crate) async fn run(
    options: &Options,
    generator: &Generator,
    fleet: &mut Fleet,
    scratch: &Path,
) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for workload in Workload::ALL {
        let mut turn: Vec<&mut Server> =
            fleet.servers.iter_mut().filter(|server| workload.includes(server)).collect();
        for slice in 0..=options.slices {
            for server in &mut turn {
                let ask = workload.ask(server, options, slice);
                let command = generator.command(options, server.listening.public, ask, scratch)?;
                let row = measure(generator, command, server, workload).await?;
                let row = Row { slice, ..row };
                print(&row);
                rows.push(row);
            }
            let step = turn.len().min(1);
            turn.rotate_left(step);
        }
    }
    Ok(rows)
}

async fn measure(
    generator: &Generator,
    mut command: Command,
    server: &mut Server,
    workload: Workload,
) -> Result<Row> {
    let mut admin = match server.listening.admin {
        Some(admin) => Some(Client::connect(admin, None).await?),
        None => None,
    };
    let mut open_max = 0;
    let before = server.process.cpu()?;
    let output = command.output();
    tokio::pin!(output);
    let mut interval = tokio::time::interval(MEMORY_INTERVAL);
    let output = loop {
        tokio::select! {
            output = &mut output => break output?,
            _ = interval.tick() => {
                let resident = server.process.resident_bytes();
                server.memory.load_max = server.memory.load_max.max(resident);
                if let Some(admin) = &mut admin {
                    open_max = open_max.max(admin.gauge("dormouse_database_sessions").await?);
                }
            }
        }
    };
    settle(server, workload).await?;
    let cpu = server.process.cpu()?.saturating_sub(before);
    let sample = generator.parse(&String::from_utf8_lossy(&output.stdout))?;
    if sample.status_errors > 0 || sample.requests == 0 {
        let (name, log) = (server.spec.name, server.process.log_tail());
        bail!("{name}: {} answers, {} of them no success\n{log}", sample.requests, sample.status_errors);
    }
    Ok(Row { workload, server: server.spec.name, slice: 0, sample, unanswered: 0.0, open_max, cpu })
}

/// Waits until the server has done what it put off.
async fn settle(server: &Server, workload: Workload) -> Result<()> {
    let started = Instant::now();
    let wait_min = if workload == Workload::Hello { Duration::ZERO } else { server.spec.settle_min };
    let mut last = server.process.cpu().context("the server is gone")?;
    while started.elapsed() < SETTLE_TIME_MAX {
        tokio::time::sleep(QUIET_TIME).await;
        let now = server.process.cpu().context("the server is gone")?;
        if started.elapsed() >= wait_min && now.saturating_sub(last) < QUIET_CPU {
            return Ok(());
        }
        last = now;
    }
    Ok(())
}

fn print(row: &Row) {
    let kind = if row.slice == 0 { "warm-up".to_owned() } else { format!("slice {}", row.slice) };
    let (workload, server, sample) = (row.workload.name(), row.server, row.sample);
    eprintln!(
        "{workload:19} {server:24} {kind:9} {:9.0} req/s  {:8.1} µs CPU  p50 {:8.0} µs  p99 {:8.0} µs  \
         {} socket errors",
        row.rate(),
        row.cpu_us(),
        sample.p50_us,
        sample.p99_us,
        sample.socket_errors,
    );
}

/// Notes what the servers still occupy when all that parks has been closed.
pub(crate) async fn memory_at_rest(fleet: &mut Fleet) -> Result<()> {
    let parks = fleet.servers.iter().any(|server| matches!(server.spec.recipe, Recipe::Dormouse { .. }));
    let parked = if parks { PARK_TIME_MAX.max(COMPONENT_PARK_TIME_MAX) } else { Duration::ZERO };
    let wait = parked + Duration::from_secs(1);
    eprintln!("waiting {wait:.0?} until all that parks has been closed");
    tokio::time::sleep(wait).await;
    for server in &mut fleet.servers {
        server.memory.after = server.process.resident_bytes();
    }
    Ok(())
}
