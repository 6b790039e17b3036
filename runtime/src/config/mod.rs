//! Configuration: `node.toml`, `DORMOUSE_*` variables and flags, in rising precedence, become one validated type.
//!
//! Raw values stop here. Every mistake is reported, all together, each with the source it came from; nothing is
//! bound, locked or written before there is none.

mod memory;
mod sources;

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use memory::MemoryPlan;
use memory::{Bytes, Spoken};
use sources::Reader;
pub use sources::{ConfigError, Flags};

use crate::admission::{Policy, Rate};
use crate::control::AuditPolicy;
use crate::limits;
use crate::listener::{ClientIpHeader, TrustedProxies};
use crate::network::Networks;
use crate::outbound;
use crate::process_sandbox::Insistence;
use crate::routing::BaseDomain;
use crate::sandbox::{GuestLimits, LeastRate, PoolSize};
use crate::telemetry::LogFormat;
use crate::tenant::TenantPolicy;

/// A valid configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Folder of all data.
    pub data: PathBuf,
    /// Where tenants' requests come in.
    pub public_listen: SocketAddr,
    /// Where the admin API, health checks and metrics are.
    pub admin_listen: SocketAddr,
    /// The address that callers use, when it is not the one listened on.
    pub public_url: Option<String>,
    /// The domain below which each tenant has a host of its own.
    pub base_domain: Option<BaseDomain>,
    /// Whose word about a client is believed.
    pub proxies: Option<Arc<TrustedProxies>>,
    /// What the node's memory is used for.
    pub memory: MemoryPlan,
    /// How much the process insists on its own sandbox.
    pub process_sandbox: Insistence,
    /// How log lines are written.
    pub log_format: LogFormat,
    /// Which log events are written: a filter of `tracing-subscriber`.
    pub log_level: String,
    /// Open connections on the public listener.
    pub connections_max: u32,
    /// What clients may have of it, and how they speak.
    pub ingress: Ingress,
    /// Largest request body.
    pub body_bytes_max: u64,
    /// What one guest may take.
    pub guest: GuestLimits,
    /// Requests that run at the same time.
    pub concurrency_max: u32,
    /// What the pools of instances may keep in slots that no guest uses, in bytes.
    pub pool_idle_bytes_max: u64,
    /// Requests of one tenant that run at the same time.
    pub tenant_concurrency_max: u32,
    /// How often a tenant may have a request; nothing is no limit.
    pub tenant_rate: Option<Rate>,
    /// How long a request waits for its turn.
    pub turn_wait_max: Duration,
    /// Largest component.
    pub component_bytes_max: u64,
    /// CPU time that compiling it may take.
    pub compile_cpu_time_max: Duration,
    /// How long a component stays mapped after its last request.
    pub component_park_time_max: Duration,
    /// Threads that run SQL.
    pub database_threads: u32,
    /// What stays free of the disk.
    pub disk_free_bytes_min: u64,
    /// Processes that these threads are in; without any they are in the node's own.
    pub database_processes: u32,
    /// Size of the commit log that tenants share; 0: none.
    pub commit_log_bytes: u64,
    /// How long a statement may go on behind its time limit.
    pub statement_grace: Duration,
    /// What holds for tenants' databases.
    pub tenants: TenantPolicy,
    /// What holds for the requests that guests send.
    pub outbound: outbound::Policy,
    /// How much of the audit log is kept.
    pub audit: AuditPolicy,
    /// How long a drain waits for requests in flight.
    pub drain_deadline: Duration,
}

/// What holds for clients of the public listener.
#[derive(Debug, Clone, Copy)]
pub struct Ingress {
    /// Open connections of one client.
    pub client_connections_max: u32,
    /// Requests of one client that run or wait at the same time.
    pub client_requests_max: u32,
    /// Whether HTTP/2 without TLS is spoken too.
    pub h2c: bool,
}

/// What a process may open at most, as the operating system says.
#[derive(Debug, Clone, Copy)]
pub struct DescriptorLimit(pub u64);

impl Config {
    /// Reads all sources and checks them against each other and against the process's limits.
    ///
    /// # Errors
    /// All mistakes of all sources.
    pub fn load(flags: &Flags, descriptors: DescriptorLimit) -> Result<Self, ConfigError> {
        let mut reader = Reader::gather(flags);
        let config = Self::read(&mut reader);
        if let Some(config) = &config {
            config.check(&mut reader, descriptors);
        }
        reader.finish(config)
    }

    fn read(r: &mut Reader) -> Option<Self> {
        let data = r.path("data", "data");
        let public_listen = r.value("public_listen", SocketAddr::from(([0, 0, 0, 0], 8080)));
        let admin_listen = r.value("admin_listen", SocketAddr::from(([127, 0, 0, 1], 9090)));
        let public_url = r.text("public_url");
        let base_domain = r.optional("base_domain");
        let proxies = Self::read_proxies(r);
        let process_sandbox = r.value("process_sandbox", Insistence::BestEffort);
        let log_format = r.value("log_format", LogFormat::Auto);
        let log_level = r.text("log_level").unwrap_or_else(|| "info".to_owned());
        let memory = Self::read_memory(r);
        let (spoken, plan) = memory.unzip();
        let shared = plan.map_or(u64::MAX, |plan| plan.shared_bytes);
        let concurrency_max = spoken.map_or(limits::CONCURRENCY_MAX, |spoken| spoken.concurrency_max);
        let threads = plan.map_or(1, |plan| plan.database_threads);
        let ingress = Self::read_ingress(r, spoken);
        let body_bytes_max = r.at_least("body_bytes_max", 0, limits::BODY_BYTES_MAX);
        let response_bytes_max = r.at_least("response_bytes_max", 0, limits::RESPONSE_BYTES_MAX);
        let body_wait_max = r.milliseconds("body_wait_max_ms", 1, limits::BODY_WAIT_MAX);
        let bytes_per_second = r.at_least("body_bytes_per_second_min", 0, limits::BODY_BYTES_PER_SECOND_MIN);
        let wall_time_max = r.milliseconds("wall_time_max_ms", 1, limits::WALL_TIME_MAX);
        let memory_bytes_max = r.at_least("memory_bytes_max", 1 << 20, memory::guest_bytes_max(shared));
        let cpu_time_max = r.milliseconds("cpu_time_max_ms", 1, limits::CPU_TIME_MAX);
        let pool_idle = plan.map_or(limits::POOL_IDLE_BYTES_MAX, |plan| plan.pool_idle_bytes_max);
        let pool_idle_bytes_max = r.at_least("pool_idle_bytes_max", 0, pool_idle);
        let tenant_concurrency_max =
            r.at_least("tenant_concurrency_max", 1, memory::tenant_concurrency_max(concurrency_max));
        let tenant_rate = Self::read_tenant_rate(r);
        let turn_wait_max = r.milliseconds("turn_wait_max_ms", 0, limits::TURN_WAIT_MAX);
        let component_bytes_max = r.at_least("component_bytes_max", 1, memory::component_bytes_max(shared));
        let compile_cpu_time_max =
            r.milliseconds("compile_cpu_time_max_ms", 1_000, limits::COMPILE_CPU_TIME_MAX);
        let component_park_time_max =
            r.milliseconds("component_park_time_max_ms", 0, limits::COMPONENT_PARK_TIME_MAX);
        let database_threads = r.at_least("database_threads", 1, threads);
        let disk_free_bytes_min = r.at_least("disk_free_bytes_min", 0, limits::DISK_FREE_BYTES_MIN);
        let commit_log_bytes = r.at_least("commit_log_bytes", 0, limits::COMMIT_LOG_BYTES);
        let statement_grace = r.milliseconds("statement_grace_ms", 100, limits::STATEMENT_GRACE);
        let tenants = Self::read_tenants(r, spoken.map_or(0, |spoken| spoken.park_memory_bytes_max));
        let outbound = Self::read_outbound(r);
        let audit_entries_max = r.at_least("audit_entries_max", 1, limits::AUDIT_ENTRIES_MAX);
        let audit_days_max = r.at_least("audit_days_max", 1, limits::AUDIT_DAYS_MAX);
        let drain_deadline = r.milliseconds("drain_deadline_ms", 0, limits::DRAIN_DEADLINE);
        Some(Self {
            data: data?,
            public_listen: public_listen?,
            admin_listen: admin_listen?,
            public_url,
            base_domain: base_domain?,
            proxies: proxies?.map(Arc::new),
            memory: plan?,
            process_sandbox: process_sandbox?,
            log_format: log_format?,
            log_level,
            connections_max: spoken?.connections_max,
            ingress: ingress?,
            body_bytes_max: body_bytes_max?,
            guest: GuestLimits {
                memory_bytes_max: memory_bytes_max?,
                cpu_time_max: cpu_time_max?,
                wall_time_max: wall_time_max?,
                response_bytes_max: response_bytes_max?,
                least_rate: LeastRate { wait_max: body_wait_max?, bytes_per_second: bytes_per_second? },
                ..GuestLimits::default()
            },
            concurrency_max,
            pool_idle_bytes_max: pool_idle_bytes_max?,
            tenant_concurrency_max: tenant_concurrency_max?,
            tenant_rate: tenant_rate?,
            turn_wait_max: turn_wait_max?,
            component_bytes_max: component_bytes_max?,
            compile_cpu_time_max: compile_cpu_time_max?,
            component_park_time_max: component_park_time_max?,
            database_threads: database_threads?,
            disk_free_bytes_min: disk_free_bytes_min?,
            commit_log_bytes: commit_log_bytes?,
            database_processes: spoken?.database_processes,
            statement_grace: statement_grace?,
            tenants: tenants?,
            outbound: outbound?,
            audit: AuditPolicy { entries_max: audit_entries_max?, days_max: audit_days_max? },
            drain_deadline: drain_deadline?,
        })
    }

    /// How much memory there is, and what follows from it.
    fn read_memory(r: &mut Reader) -> Option<(Spoken, MemoryPlan)> {
        let bytes = r.optional::<Bytes>("memory")?.map_or_else(memory::of_this_machine, |given| given.0);
        let node = memory::Node::new(bytes);
        let connections_max = r.at_least("connections_max", 1, node.connections_max());
        let park_memory_bytes_max = r.at_least("park_memory_bytes_max", 0, node.park_memory_bytes_max());
        let database_processes = r.at_least("database_processes", 0, limits::DATABASE_PROCESSES)?;
        let (connections_max, park_memory_bytes_max) = (connections_max?, park_memory_bytes_max?);
        let concurrency_max =
            node.concurrency_max(connections_max, park_memory_bytes_max, database_processes);
        let concurrency_max = r.at_least("concurrency_max", 1, concurrency_max)?;
        let spoken = Spoken { connections_max, concurrency_max, park_memory_bytes_max, database_processes };
        let shared = node.shared_bytes(spoken).unwrap_or_else(|figures| {
            r.mistake("memory", figures);
            memory::SHARED_BYTES_MIN
        });
        Some((spoken, node.plan(spoken, shared)))
    }

    fn read_ingress(r: &mut Reader, spoken: Option<Spoken>) -> Option<Ingress> {
        let part = |whole: u32, part: u32| (whole / part).max(limits::CLIENT_SHARE_MIN);
        let connections = spoken.map_or(limits::CONNECTIONS_MAX, |spoken| spoken.connections_max);
        let requests = spoken.map_or(limits::CONCURRENCY_MAX, |spoken| spoken.concurrency_max);
        let client_connections_max =
            r.at_least("client_connections_max", 1, part(connections, limits::CLIENT_CONNECTIONS_PART));
        let client_requests_max =
            r.at_least("client_requests_max", 1, part(requests, limits::CLIENT_REQUESTS_PART));
        let h2c = r.value("h2c", false);
        Some(Ingress {
            client_connections_max: client_connections_max?,
            client_requests_max: client_requests_max?,
            h2c: h2c?,
        })
    }

    fn read_tenants(r: &mut Reader, park_memory_bytes_max: u64) -> Option<TenantPolicy> {
        let park_time_max = r.milliseconds("park_time_max_ms", 0, limits::PARK_TIME_MAX);
        let sessions_per_tenant = r.at_least("sessions_per_tenant", 1, limits::SESSIONS_PER_TENANT);
        let sessions_max = r.at_least("sessions_max", 1, limits::SESSIONS_MAX);
        let statement_time_max = r.milliseconds("statement_time_max_ms", 1, limits::STATEMENT_TIME_MAX);
        let transaction_held_max = r.milliseconds("transaction_held_max_ms", 1, limits::TRANSACTION_HELD_MAX);
        let database_bytes_max = r.at_least("database_bytes_max", 1 << 16, limits::DATABASE_BYTES_MAX);
        Some(TenantPolicy {
            park_time_max: park_time_max?,
            park_memory_bytes_max,
            sessions_per_tenant: sessions_per_tenant?,
            sessions_max: sessions_max?,
            statement_time_max: statement_time_max?,
            transaction_held_max: transaction_held_max?,
            database_bytes_max: database_bytes_max?,
        })
    }

    fn read_outbound(r: &mut Reader) -> Option<outbound::Policy> {
        let networks_allowed = r.value("outbound_networks_allowed", Networks::default());
        let resolver = r.optional("resolver");
        let authorities = r.value("outbound_ca_file", outbound::Authorities::default());
        let concurrency_max = r.at_least("outbound_concurrency_max", 1, limits::OUTBOUND_CONCURRENCY_MAX);
        let requests_max = r.at_least("outbound_requests_max", 0, limits::OUTBOUND_REQUESTS_MAX);
        let request_bytes = r.at_least("outbound_request_bytes_max", 0, limits::OUTBOUND_REQUEST_BYTES_MAX);
        let response_bytes =
            r.at_least("outbound_response_bytes_max", 0, limits::OUTBOUND_RESPONSE_BYTES_MAX);
        let connect = r.milliseconds("outbound_connect_time_max_ms", 1, limits::OUTBOUND_CONNECT_TIME_MAX);
        let first_byte =
            r.milliseconds("outbound_first_byte_time_max_ms", 1, limits::OUTBOUND_FIRST_BYTE_TIME_MAX);
        let between_bytes =
            r.milliseconds("outbound_between_bytes_time_max_ms", 1, limits::OUTBOUND_BETWEEN_BYTES_TIME_MAX);
        Some(outbound::Policy {
            networks_allowed: networks_allowed?,
            resolver: resolver?,
            authorities: authorities?,
            concurrency_max: concurrency_max?,
            requests_max: requests_max?,
            request_bytes_max: request_bytes?,
            response_bytes_max: response_bytes?,
            times: outbound::Times {
                connect: connect?,
                first_byte: first_byte?,
                between_bytes: between_bytes?,
            },
        })
    }

    /// The outer `None` is a mistake, the inner one no limit.
    fn read_tenant_rate(r: &mut Reader) -> Option<Option<Rate>> {
        let per_second = r.value("tenant_requests_per_second_max", 0_u32);
        let burst: Option<Option<NonZeroU32>> = r.optional("tenant_requests_burst_max");
        let (per_second, burst) = (NonZeroU32::new(per_second?), burst?);
        if per_second.is_none() && burst.is_some() {
            r.mistake("tenant_requests_burst_max", "set tenant_requests_per_second_max as well".to_owned());
            return None;
        }
        Some(per_second.map(|per_second| Rate { per_second, burst: burst.unwrap_or(per_second) }))
    }

    /// Both settings or neither: the outer `None` is a mistake, the inner one a node without proxies.
    fn read_proxies(r: &mut Reader) -> Option<Option<TrustedProxies>> {
        let networks = r.value("trusted_proxies", Networks::default());
        let header: Option<Option<ClientIpHeader>> = r.optional("client_ip_header");
        match (networks?, header?) {
            (networks, None) if networks.is_empty() => Some(None),
            (networks, Some(_)) if networks.is_empty() => {
                r.mistake(
                    "client_ip_header",
                    "nobody may say it; name your proxies in trusted_proxies".to_owned(),
                );
                None
            }
            (_, None) => {
                r.mistake(
                    "trusted_proxies",
                    "say where they name their client: set client_ip_header".to_owned(),
                );
                None
            }
            (networks, Some(header)) => Some(Some(TrustedProxies::new(networks, header))),
        }
    }

    fn check(&self, reader: &mut Reader, descriptors: DescriptorLimit) {
        if self.tenant_concurrency_max > self.concurrency_max {
            reader.mistake(
                "tenant_concurrency_max",
                format!(
                    "one tenant may have {} requests at a time and the node only {}; lower it, or raise concurrency_max",
                    self.tenant_concurrency_max, self.concurrency_max
                ),
            );
        }
        if (1..limits::COMMIT_LOG_BYTES_MIN).contains(&self.commit_log_bytes) {
            reader.mistake(
                "commit_log_bytes",
                format!(
                    "{} bytes are too few; give {} or more, or 0 for no commit log",
                    self.commit_log_bytes,
                    limits::COMMIT_LOG_BYTES_MIN
                ),
            );
        }
        if self.database_processes > 0 && self.data.to_str().is_none() {
            reader.mistake("data", "database processes take only a path in UTF-8".to_owned());
        }
        let pool = self.pool();
        let least = limits::POOL_IDLE_BYTES_PER_GUEST_MIN;
        if pool.idle_bytes_max > 0 && pool.idle_bytes_per_guest() < least {
            reader.mistake(
                "pool_idle_bytes_max",
                format!(
                    "it is shared out among {} guests of each world, and less than {least} bytes for each keep \
                     nothing that helps; raise it, lower concurrency_max, or set 0 to keep nothing",
                    pool.guests_max
                ),
            );
        }
        let most = self.memory.shared_bytes + limits::MEMORY_INCLUDED_BYTES;
        if self.guest.memory_bytes_max > most {
            reader.mistake(
                "memory_bytes_max",
                format!(
                    "one guest may have {} bytes and all of them together only {most} of this node's {}; lower it, \
                     or give the node more memory",
                    self.guest.memory_bytes_max, self.memory.bytes
                ),
            );
        }
        let needed = self.descriptors_needed();
        if needed > descriptors.0 {
            reader.mistake(
                "sessions_max",
                format!(
                    "{} connections and {} database sessions need {needed} file descriptors and this process may \
                     have {}; lower connections_max or sessions_max, or raise the limit (ulimit -Hn, LimitNOFILE=)",
                    self.connections_max, self.tenants.sessions_max, descriptors.0
                ),
            );
        }
        if tracing_subscriber::EnvFilter::try_new(&self.log_level).is_err() {
            reader.mistake(
                "log_level",
                format!("{:?} is no filter; use for example info or debug", self.log_level),
            );
        }
    }

    /// How many requests are let in.
    #[must_use]
    pub fn admission(&self) -> Policy {
        Policy {
            turns_max: self.concurrency_max,
            tenant_turns_max: self.tenant_concurrency_max,
            wait_max: self.turn_wait_max,
            tenant_rate: self.tenant_rate,
        }
    }

    /// The size of the pools of instances.
    #[must_use]
    pub fn pool(&self) -> PoolSize {
        PoolSize { guests_max: self.concurrency_max, idle_bytes_max: self.pool_idle_bytes_max }
    }

    /// Descriptors that the permits of this configuration can come to need: three for each database session (file,
    /// WAL, folder while it syncs), one for each connection, those that guests open included.
    fn descriptors_needed(&self) -> u64 {
        u64::from(self.tenants.sessions_max) * 3
            + u64::from(self.connections_max)
            + u64::from(self.concurrency_max)
                .saturating_mul(u64::from(self.outbound.concurrency_max))
                .min(u64::from(limits::OUTBOUND_CONNECTIONS_MAX))
            + u64::from(limits::ADMIN_CONNECTIONS_MAX)
            + limits::DESCRIPTORS_RESERVED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENOUGH: DescriptorLimit = DescriptorLimit(20_000);

    #[test]
    fn the_defaults_are_valid() -> Result<(), ConfigError> {
        let flags =
            Flags { config: Some("/dev/null".into()), memory: Some("4GB".to_owned()), ..Flags::default() };
        let config = Config::load(&flags, ENOUGH)?;
        assert_eq!(config.guest.memory_bytes_max, 128 << 20);
        assert_eq!(config.public_listen.port(), 8080);
        Ok(())
    }

    #[test]
    fn all_mistakes_are_told_with_their_source() -> std::io::Result<()> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("node.toml");
        std::fs::write(&file, "public_listen = \"nowhere\"\nbody_bytes_max = -1\npubic_url = \"x\"\n")?;
        let flags =
            Flags { config: Some(file), cpu_time_max_ms: Some("soon".to_owned()), ..Flags::default() };
        let told = Config::load(&flags, ENOUGH).err().map(|error| error.to_string()).unwrap_or_default();
        for part in
            ["node.toml", "public_listen", "body_bytes_max", "pubic_url", "public_url", "--cpu-time-max-ms"]
        {
            assert!(told.contains(part), "{part} is missing in:\n{told}");
        }
        Ok(())
    }

    #[test]
    fn permits_need_descriptors() {
        let flags = Flags { config: Some("/dev/null".into()), ..Flags::default() };
        let told = Config::load(&flags, DescriptorLimit(1_024)).err().map(|error| error.to_string());
        assert!(told.is_some_and(|told| told.contains("file descriptors")));
    }
}
