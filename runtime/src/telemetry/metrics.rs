//! Metrics in the OpenMetrics text that Prometheus reads. No metric names a tenant: idle ones must leave no trace.

use std::fmt;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::exceeded::Exceeded;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Which {
    limit: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Refusal {
    problem: &'static str,
}

/// What is read off the rooms when somebody asks.
#[derive(Debug, Clone, Copy)]
pub struct Gauges {
    /// Requests that run.
    pub requests_in_flight: u64,
    /// Requests that wait for a turn.
    pub requests_waiting: u64,
    /// Tenants that admission counts requests of.
    pub tenants_counted: u64,
    /// Open connections of the public listener.
    pub connections: u64,
    /// Client addresses that have connections or requests, counted for each.
    pub clients_present: u64,
    /// Live guest instances.
    pub instances: u64,
    /// Guests that compute and wait for their turn on the processor.
    pub guests_in_line: u64,
    /// Resident bytes of pool slots that no guest uses.
    pub pool_unused_resident_bytes: u64,
    /// Mapped components.
    pub components_mapped: u64,
    /// Bytes of their compiled forms.
    pub components_mapped_bytes: u64,
    /// Open database sessions of tenants.
    pub database_sessions: u64,
    /// Of these, parked ones.
    pub database_sessions_parked: u64,
    /// Memory of the parked ones.
    pub database_parked_bytes: u64,
    /// Commands that database threads carry out.
    pub database_commands_running: u64,
    /// Commands that wait for a database thread.
    pub database_commands_waiting: u64,
    /// Tenants that are not idle.
    pub tenants_present: u64,
    /// Databases in quarantine.
    pub databases_quarantined: u64,
    /// Databases that are suspended.
    pub databases_suspended: u64,
    /// Remembered routes.
    pub routes_remembered: u64,
    /// What requests may share of the node's memory, beyond what is each one's own.
    pub memory_shared_bytes_max: u64,
    /// What of it is charged now.
    pub memory_shared_bytes: u64,
    /// How often more was asked for than was there.
    pub memory_refusals: u64,
    /// Resident memory of the process, and of its database processes.
    pub resident_bytes: u64,
    /// Free bytes of the disk.
    pub disk_free_bytes: u64,
    /// Whether writes are turned away because of that, as 0 or 1.
    pub disk_is_low: u64,
    /// Database processes that run.
    pub database_processes: u64,
    /// How often one has ended before the node.
    pub database_process_deaths: u64,
    /// What was written to the commit log.
    pub commit_log_records: u64,
    /// How often it was flushed for that.
    pub commit_log_flushes: u64,
}

/// How a gauge is read off.
type Read = fn(&Gauges) -> u64;

/// All metrics of the node.
pub struct Metrics {
    registry: Registry,
    requests: Family<Outcome, Counter>,
    outbound_requests: Family<Outcome, Counter>,
    admin_refusals: Family<Refusal, Counter>,
    seconds: Histogram,
    exceeded: Family<Which, Counter>,
    components_refused: Family<Reason, Counter>,
    connections_cut: Family<Reason, Counter>,
    gauges: Vec<(Gauge, Read)>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("dormouse");
        let requests = Family::default();
        registry.register("requests", "Requests answered, by outcome", requests.clone());
        let outbound_requests = Family::default();
        registry.register(
            "outbound_requests",
            "Requests that guests wanted to send, by outcome",
            outbound_requests.clone(),
        );
        let admin_refusals = Family::default();
        let help = "Requests to the admin API that were refused for their token, by problem";
        registry.register("admin_refusals", help, admin_refusals.clone());
        let seconds = Histogram::new([0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 30.0]);
        registry.register("request_seconds", "Time to the head of the response", seconds.clone());
        let exceeded = Family::default();
        registry.register(
            "limits_exceeded",
            "How often somebody ran into a limit, by limit",
            exceeded.clone(),
        );
        let components_refused = Family::default();
        registry.register("components_refused", "Components that were not taken", components_refused.clone());
        let connections_cut = Family::default();
        registry.register(
            "connections_cut",
            "Connections that the node has ended, by reason",
            connections_cut.clone(),
        );
        let mut gauges = Vec::new();
        let mut add = |name: &str, help: &str, read: Read| {
            let gauge = Gauge::default();
            registry.register(name, help, gauge.clone());
            gauges.push((gauge, read));
        };
        add("requests_in_flight", "Requests that run", |g| g.requests_in_flight);
        add("requests_waiting", "Requests that wait for a turn", |g| g.requests_waiting);
        add("tenants_counted", "Tenants with requests, or with tokens missing of their rate", |g| {
            g.tenants_counted
        });
        add("connections", "Open connections of the public listener", |g| g.connections);
        add("clients_present", "Client addresses with connections or requests, counted for each", |g| {
            g.clients_present
        });
        add("instances", "Live guest instances", |g| g.instances);
        add("guests_in_line", "Guests that compute and wait for their turn on the processor", |g| {
            g.guests_in_line
        });
        add("pool_unused_resident_bytes", "Resident bytes of pool slots that no guest uses", |g| {
            g.pool_unused_resident_bytes
        });
        add("components_mapped", "Mapped components", |g| g.components_mapped);
        add("components_mapped_bytes", "Bytes of the compiled forms of mapped components", |g| {
            g.components_mapped_bytes
        });
        add("database_sessions", "Open database sessions of tenants", |g| g.database_sessions);
        add("database_sessions_parked", "Parked database sessions", |g| g.database_sessions_parked);
        add("database_parked_bytes", "Memory of parked database sessions", |g| g.database_parked_bytes);
        add("database_commands_running", "Commands that database threads carry out", |g| {
            g.database_commands_running
        });
        add("database_commands_waiting", "Commands that wait for a database thread", |g| {
            g.database_commands_waiting
        });
        add("tenants_present", "Tenants that are not idle", |g| g.tenants_present);
        add("databases_quarantined", "Databases of tenants whose storage has failed", |g| {
            g.databases_quarantined
        });
        add("databases_suspended", "Databases of tenants with a statement that did not come back", |g| {
            g.databases_suspended
        });
        add("routes_remembered", "Routes remembered from the control data", |g| g.routes_remembered);
        add("memory_shared_bytes_max", "Memory that requests share beyond what is each one's own", |g| {
            g.memory_shared_bytes_max
        });
        add("memory_shared_bytes", "What of the shared memory is taken", |g| g.memory_shared_bytes);
        add("memory_refusals", "How often more memory was asked for than was there", |g| g.memory_refusals);
        add("disk_free_bytes", "Free bytes of the disk of all data", |g| g.disk_free_bytes);
        add("disk_is_low", "Whether the disk is so full that writes are turned away", |g| g.disk_is_low);
        add("resident_bytes", "Resident memory of the process and its database processes", |g| {
            g.resident_bytes
        });
        add("database_processes", "Database processes that run", |g| g.database_processes);
        add("database_process_deaths", "How often a database process has ended before the node", |g| {
            g.database_process_deaths
        });
        add("commit_log_records", "Commits and other records that were written to the commit log", |g| {
            g.commit_log_records
        });
        add("commit_log_flushes", "How often the commit log was flushed for them", |g| g.commit_log_flushes);
        Self {
            registry,
            requests,
            outbound_requests,
            admin_refusals,
            seconds,
            exceeded,
            components_refused,
            connections_cut,
            gauges,
        }
    }
}

impl Metrics {
    /// Counts an answered request. `outcome` is `ok` or the slug of a problem type.
    pub fn answered(&self, outcome: &'static str, seconds: f64) {
        self.requests.get_or_create(&Outcome { outcome }).inc();
        self.seconds.observe(seconds);
    }

    /// Counts a limit that was exceeded, and tells of it in the log of the current request.
    pub fn exceeded(&self, exceeded: Exceeded) {
        let Exceeded { limit, used, allowed } = exceeded;
        self.exceeded.get_or_create(&Which { limit: limit.name() }).inc();
        tracing::info!(limit = limit.name(), used, allowed, "a limit was exceeded");
    }

    /// Counts a component that was not taken as it is: `unsupported`, `too_costly` to compile, or compiled code that is
    /// `not_ours`.
    pub fn component_refused(&self, reason: &'static str) {
        self.components_refused.get_or_create(&Reason { reason }).inc();
    }

    /// Counts a request that a guest wanted to send.
    pub fn sent(&self, outcome: &'static str) {
        self.outbound_requests.get_or_create(&Outcome { outcome }).inc();
    }

    /// Counts a connection that the node has ended before its client did.
    pub fn connection_cut(&self, reason: &'static str) {
        self.connections_cut.get_or_create(&Reason { reason }).inc();
    }

    /// Counts a request to the admin API that was refused for its token.
    pub fn admin_refused(&self, problem: &'static str) {
        self.admin_refusals.get_or_create(&Refusal { problem }).inc();
    }

    /// The text that a scraper reads.
    ///
    /// # Errors
    /// Never in practice: writing to a text does not fail.
    pub fn text(&self, gauges: &Gauges) -> Result<String, fmt::Error> {
        for (gauge, read) in &self.gauges {
            gauge.set(i64::try_from(read(gauges)).unwrap_or(i64::MAX));
        }
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// Resident memory of a process in bytes, of this one if none is named, as the kernel counts it; 0 where it does not say.
#[must_use]
pub fn resident_bytes(pid: Option<i32>) -> u64 {
    let page = rustix::param::page_size() as u64;
    let process = pid.map_or_else(|| "self".to_owned(), |pid| pid.to_string());
    let pages = std::fs::read_to_string(format!("/proc/{process}/statm"))
        .ok()
        .and_then(|text| text.split_ascii_whitespace().nth(1)?.parse::<u64>().ok());
    pages.unwrap_or(0) * page
}
