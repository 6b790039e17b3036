//! The engines' settings: one set for the server and for the compiler, so that what one makes the other can run.
//!
//! Each world has an engine. Concurrent calls into one instance make every call dearer, and 0.2 has none of them, so
//! it does not pay for them.

use std::hash::{Hash as _, Hasher as _};

use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use super::{GuestLimits, PoolSize, World};
use crate::limits;

/// The pool keeps whole pages.
const PAGE_BYTES: u64 = 4_096;

/// Settings that the compiled code depends on. Threads, garbage-collected types and exceptions are not even compiled
/// into this wasmtime.
fn common(world: World) -> Config {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        .concurrency_support(world == World::P3)
        .epoch_interruption(true)
        .async_stack_zeroing(true)
        .async_stack_size(limits::STACK_BYTES)
        .max_wasm_stack(limits::STACK_BYTES / 2)
        .wasm_memory64(false)
        .shared_memory(false)
        .wasm_backtrace_max_frames(std::num::NonZeroUsize::new(16));
    config
}

/// The server's engine for a world: it compiles nothing and keeps a pool of slots.
pub(super) fn runner(world: World, guest: GuestLimits, size: PoolSize) -> anyhow::Result<Engine> {
    let guests_max = size.guests_max;
    let stacks_per_guest = match world {
        World::P2 => 1,
        World::P3 => limits::STACKS_PER_CONCURRENT_GUEST,
    };
    let kept = Kept::of_guest(size.idle_bytes_per_guest(), stacks_per_guest);
    // Enough for as many guests as may run, whatever their components are made of: none can use up another's.
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(guests_max)
        .total_core_instances(guests_max.saturating_mul(limits::CORE_INSTANCES_PER_COMPONENT))
        .total_memories(guests_max.saturating_mul(limits::MEMORIES_PER_COMPONENT))
        .total_tables(guests_max.saturating_mul(limits::TABLES_PER_COMPONENT))
        .total_stacks(guests_max.saturating_mul(stacks_per_guest))
        .max_core_instances_per_component(limits::CORE_INSTANCES_PER_COMPONENT)
        .max_memories_per_component(limits::MEMORIES_PER_COMPONENT)
        .max_tables_per_component(limits::TABLES_PER_COMPONENT)
        .max_memory_size(usize::try_from(guest.memory_bytes_max)?)
        .table_elements(usize::try_from(guest.table_elements_max)?)
        .max_unused_warm_slots(limits::WARM_SLOTS_MAX)
        .linear_memory_keep_resident(kept.memory)
        .table_keep_resident(kept.table)
        .async_stack_keep_resident(kept.stack)
        .pagemap_scan(Enabled::Auto);
    let mut config = common(world);
    config.enable_compiler(false).allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    Ok(Engine::new(&config)?)
}

/// Bytes that each freed slot keeps for its next guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kept {
    memory: usize,
    table: usize,
    stack: usize,
}

impl Kept {
    /// Shares out `bytes` among all slots that a guest can have.
    fn of_guest(bytes: u64, stacks: u32) -> Self {
        let part = |bytes: u64, slots: u32, most: usize| {
            let whole_pages = (bytes / u64::from(slots)) & !(PAGE_BYTES - 1);
            usize::try_from(whole_pages).map_or(most, |bytes| bytes.min(most))
        };
        let stack = part(bytes / 4, stacks, limits::STACK_KEPT_BYTES);
        let table = part(bytes / 16, limits::TABLES_PER_COMPONENT, limits::TABLE_KEPT_BYTES);
        let taken = stack as u64 * u64::from(stacks) + table as u64 * u64::from(limits::TABLES_PER_COMPONENT);
        let memory = part(bytes - taken, limits::MEMORIES_PER_COMPONENT, limits::MEMORY_KEPT_BYTES);
        Self { memory, table, stack }
    }
}

/// A component as the engine of its world runs it.
pub struct Code {
    /// Which engine that is.
    pub world: World,
    /// What that engine maps.
    pub bytes: Vec<u8>,
}

/// Compiles a component for its world, with an engine that runs nothing. The inner error is the component's fault.
///
/// # Errors
/// When the engine's settings contradict each other.
pub fn compile(component: &[u8]) -> anyhow::Result<Result<Code, String>> {
    if !component.starts_with(b"\0asm") {
        return Ok(Err("the file is no WebAssembly component: it does not start with \\0asm".to_owned()));
    }
    let world = match World::of(component) {
        Ok(world) => world,
        Err(reason) => return Ok(Err(reason)),
    };
    let compiled = Engine::new(&common(world))?.precompile_component(component);
    let code = compiled.map(|bytes| Code { world, bytes });
    Ok(code.map_err(|error| format!("the file is no valid WebAssembly component: {error:#}")))
}

/// A number that is the same for engines that can exchange compiled components.
pub(super) fn compatibility(engine: &Engine) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_never_more_than_there_is() {
        for bytes in [0, 1, 65_536, 262_144, 1 << 20, 1 << 30] {
            for stacks in [1, limits::STACKS_PER_CONCURRENT_GUEST] {
                let kept = Kept::of_guest(bytes, stacks);
                let all = kept.memory as u64 * u64::from(limits::MEMORIES_PER_COMPONENT)
                    + kept.table as u64 * u64::from(limits::TABLES_PER_COMPONENT)
                    + kept.stack as u64 * u64::from(stacks);
                assert!(all <= bytes, "{kept:?} of {bytes} bytes");
                assert_eq!(kept.memory > 0, bytes >= 65_536, "{kept:?} of {bytes} bytes");
            }
        }
    }
}
