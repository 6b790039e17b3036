//! A guest's store: what it may use, and what it holds while it runs.

use std::sync::Arc;

use wasmtime::ResourceLimiter;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use super::GuestLimits;
use super::logs::{Allowance, LogStream, Stream};
use super::outgoing::Hooks;
use super::sqlite::{self, Calls};
use super::variables::{self, Variables};
use crate::exceeded::{Exceeded, Limit};
use crate::limits::{FIELD_BYTES_MAX, MEMORY_INCLUDED_BYTES, RANDOM_BYTES_MAX};
use crate::memory::{Charge, Exhausted};
use crate::telemetry::Metrics;

/// What lives in the store of one guest, its lease included.
pub(super) struct Guest {
    wasi: WasiCtx,
    http: WasiHttpCtx,
    hooks: Hooks,
    table: ResourceTable,
    pub(super) limiter: Limiter,
    calls: Calls,
    opens: u32,
    variables: Arc<dyn Variables>,
}

impl Guest {
    pub(super) fn new(
        calls: Calls,
        variables: Arc<dyn Variables>,
        hooks: Hooks,
        limiter: Limiter,
        limits: GuestLimits,
        metrics: &Arc<Metrics>,
    ) -> Self {
        let allowance = Allowance::new(limits.log_bytes_max, metrics.clone());
        let wasi = WasiCtx::builder()
            .stdout(LogStream::new(Stream::Stdout, allowance.clone()))
            .stderr(LogStream::new(Stream::Stderr, allowance))
            .allow_tcp(false)
            .allow_udp(false)
            .max_random_size(RANDOM_BYTES_MAX)
            .build();
        let mut http = WasiHttpCtx::new();
        http.set_field_size_limit(FIELD_BYTES_MAX);
        let mut table = ResourceTable::new();
        table.set_max_capacity(usize::try_from(limits.handles_max).unwrap_or(usize::MAX));
        Self { wasi, http, hooks, table, limiter, calls, opens: 0, variables }
    }

    /// The lease and the table that its connections are kept in.
    pub(super) fn database(&mut self) -> sqlite::View<'_> {
        sqlite::View { calls: &mut self.calls, table: &mut self.table, opens: &mut self.opens }
    }

    /// What the operator has set for the function.
    pub(super) fn variables(&mut self) -> variables::View<'_> {
        variables::View(&*self.variables)
    }
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for Guest {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, table: &mut self.table, hooks: &mut self.hooks }
    }
}

/// Bounds of instances, memories and tables, and the charge for them.
pub(super) struct Limiter {
    limits: GuestLimits,
    memory_bytes: usize,
    table_bytes: usize,
    charge: Charge,
    /// What was refused last. The guest was told, and most trap then.
    pub(super) refused: Option<Exceeded>,
}

impl Limiter {
    pub(super) fn new(limits: GuestLimits, charge: Charge) -> Self {
        Self { limits, memory_bytes: 0, table_bytes: 0, charge, refused: None }
    }

    fn refuse(&mut self, limit: Limit, wanted: usize, allowed: u64) -> bool {
        let is_over = wanted as u64 > allowed;
        if is_over {
            self.refused = Some(Exceeded::new(limit, wanted as u64, allowed));
        }
        is_over
    }

    /// An error ends the guest, whatever it would make of a refusal.
    fn settle(&mut self) -> Result<(), Exhausted> {
        let bytes = self.memory_bytes.saturating_add(self.table_bytes) as u64;
        self.charge.resize(bytes.saturating_sub(MEMORY_INCLUDED_BYTES))
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let total = self.memory_bytes.saturating_sub(current).saturating_add(desired);
        if self.refuse(Limit::Memory, total, self.limits.memory_bytes_max) {
            return Ok(false);
        }
        self.memory_bytes = total;
        self.settle()?;
        Ok(true)
    }

    fn table_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        if self.refuse(Limit::TableElements, desired, self.limits.table_elements_max) {
            return Ok(false);
        }
        self.table_bytes += desired.saturating_sub(current) * size_of::<usize>();
        self.settle()?;
        Ok(true)
    }

    fn instances(&self) -> usize {
        usize::try_from(self.limits.core_instances_max).unwrap_or(usize::MAX)
    }
}
