//! The engine's settings: one set for the server and for the compiler, so that what one makes the other can run.

use std::hash::{Hash as _, Hasher as _};

use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use super::GuestLimits;
use crate::limits;

/// Settings that the compiled code depends on. Threads, garbage-collected types and exceptions are not even compiled
/// into this wasmtime.
fn common() -> Config {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        // The 0.2 world needs no concurrent calls into one instance; without them a call costs less.
        .concurrency_support(false)
        .epoch_interruption(true)
        .async_stack_zeroing(true)
        .async_stack_size(limits::STACK_BYTES)
        .max_wasm_stack(limits::STACK_BYTES / 2)
        .wasm_memory64(false)
        .shared_memory(false)
        .wasm_backtrace_max_frames(std::num::NonZeroUsize::new(16));
    config
}

/// The server's engine: it compiles nothing and keeps a pool of slots.
pub(super) fn runner(guest: GuestLimits, concurrency_max: u32) -> anyhow::Result<Engine> {
    // Enough for as many guests as may run, whatever their components are made of: none can use up another's.
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(concurrency_max)
        .total_core_instances(concurrency_max.saturating_mul(limits::CORE_INSTANCES_PER_COMPONENT))
        .total_memories(concurrency_max.saturating_mul(limits::MEMORIES_PER_COMPONENT))
        .total_tables(concurrency_max.saturating_mul(limits::TABLES_PER_COMPONENT))
        .total_stacks(concurrency_max)
        .max_core_instances_per_component(limits::CORE_INSTANCES_PER_COMPONENT)
        .max_memories_per_component(limits::MEMORIES_PER_COMPONENT)
        .max_tables_per_component(limits::TABLES_PER_COMPONENT)
        .max_memory_size(usize::try_from(guest.memory_bytes_max)?)
        .table_elements(limits::TABLE_ELEMENTS_MAX)
        .max_unused_warm_slots(limits::WARM_SLOTS_MAX)
        .linear_memory_keep_resident(limits::MEMORY_KEPT_BYTES)
        .table_keep_resident(limits::TABLE_KEPT_BYTES)
        .async_stack_keep_resident(limits::STACK_KEPT_BYTES)
        .pagemap_scan(Enabled::Auto);
    let mut config = common();
    config.enable_compiler(false).allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    Ok(Engine::new(&config)?)
}

/// Compiles a component with an engine that runs nothing. The inner error is the component's fault.
///
/// # Errors
/// When the engine's settings contradict each other.
pub fn compile(component: &[u8]) -> anyhow::Result<Result<Vec<u8>, String>> {
    let engine = Engine::new(&common())?;
    if !component.starts_with(b"\0asm") {
        return Ok(Err("the file is no WebAssembly component: it does not start with \\0asm".to_owned()));
    }
    let compiled = engine.precompile_component(component);
    Ok(compiled.map_err(|error| format!("the file is no valid WebAssembly component: {error:#}")))
}

/// A number that is the same for engines that can exchange compiled components.
pub(super) fn compatibility(engine: &Engine) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    hasher.finish()
}
