//! The ticker: pre-empts running guests by advancing the engines' epochs, and sleeps when none runs.
//!
//! ```text
//!            a guest starts                       no guest for IDLE_TICKS
//!  Parked ───────────────────▶ Ticking ──────────────────────────────────▶ Parked
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::Thread;

use wasmtime::{Engine, EngineWeak};

use crate::limits;

/// Ticks without a guest before the thread parks: waking it for each request would cost more than ticking on.
const IDLE_TICKS: u32 = 100;

#[derive(Default)]
struct Running {
    guests: AtomicU32,
    parked: AtomicBool,
}

pub(super) struct Ticker {
    running: Arc<Running>,
    thread: Thread,
}

impl Ticker {
    pub(super) fn start(engines: &[&Engine]) -> std::io::Result<Self> {
        let running = Arc::new(Running::default());
        let engines: Vec<EngineWeak> = engines.iter().map(|engine| engine.weak()).collect();
        let shared = running.clone();
        let thread = std::thread::Builder::new()
            .name("epoch-ticker".to_owned())
            .spawn(move || run(&engines, &shared))?;
        Ok(Self { running, thread: thread.thread().clone() })
    }

    /// Ticks for as long as the returned value lives.
    pub(super) fn tick(&self) -> Ticking {
        self.running.guests.fetch_add(1, Ordering::SeqCst);
        if self.running.parked.load(Ordering::SeqCst) {
            self.thread.unpark();
        }
        Ticking(self.running.clone())
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        // The thread sees that an engine is gone and ends.
        self.thread.unpark();
    }
}

/// One running guest.
pub(super) struct Ticking(Arc<Running>);

impl Drop for Ticking {
    fn drop(&mut self) {
        self.0.guests.fetch_sub(1, Ordering::SeqCst);
    }
}

fn run(engines: &[EngineWeak], running: &Running) {
    let mut idle_ticks = 0;
    loop {
        for engine in engines {
            match engine.upgrade() {
                Some(engine) => engine.increment_epoch(),
                None => return,
            }
        }
        std::thread::sleep(limits::EPOCH_TICK);
        idle_ticks = if running.guests.load(Ordering::SeqCst) == 0 { idle_ticks + 1 } else { 0 };
        if idle_ticks >= IDLE_TICKS {
            running.parked.store(true, Ordering::SeqCst);
            // A guest that came before the flag was up has not unparked this thread: look again.
            if running.guests.load(Ordering::SeqCst) == 0 {
                std::thread::park();
            }
            running.parked.store(false, Ordering::SeqCst);
            idle_ticks = 0;
        }
    }
}
