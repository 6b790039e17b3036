//! What a database process does: it runs the commands that arrive at each of its threads, and ends with its node.
//!
//! It knows the node only by the sockets that it is handed at its start, and holds nothing that is not on the disk: it
//! can be killed at any moment, as the node can.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, mpsc};

use rustix::process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit};
use rustix::thread::gettid;
use tokio::signal::unix::{SignalKind, signal};

use super::frame::{self, Incoming};
use super::memory::{give_back_unused, grant_from, start_allocator_thread};
use super::message::{Command, SessionId};
use super::worker::{self, Answer, IDLE_AFTER, Slots};
use crate::limits;
use crate::memory::Budget;
use crate::process_sandbox::{self, Insistence, Profile};

/// How much sooner than its node the kernel ends it when memory is out, of 1,000.
const OOM_SCORE: i32 = 500;

/// What a database process is told at its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessSize {
    /// Threads that run SQL.
    pub threads: u32,
    /// Memory that its sessions share beyond what is each one's own, in bytes.
    pub memory_bytes: u64,
    /// Address space that it may take, in bytes.
    pub address_bytes: u64,
}

/// What a database process does from its start to its end.
#[must_use]
pub fn serve_in_this_process(size: ProcessSize, folder: &Path, sandbox: Insistence) -> ExitCode {
    match serve(size, folder, sandbox) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("a database process fails: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(size: ProcessSize, folder: &Path, sandbox: Insistence) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    outlive_signals()?;
    end_before_the_node()?;
    bound(Resource::Core, 0)?;
    bound(Resource::As, size.address_bytes)?;
    process_sandbox::apply(Profile::Database { folder }, sandbox).map_err(io::Error::other)?;
    start_allocator_thread();
    let mut control = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    // While this process lives, no other node may start on the folder.
    let _lock = frame::receive_descriptor(&control)?;
    let sockets: Vec<UnixStream> = (0..size.threads)
        .map(|_| frame::receive_descriptor(&control).map(UnixStream::from))
        .collect::<io::Result<_>>()?;
    super::start().map_err(io::Error::other)?;
    let memory = Arc::new(Budget::new(size.memory_bytes, u64::MAX));
    let slots = Arc::new(Slots::default());
    let (started, thread_ids) = mpsc::sync_channel(sockets.len());
    for (number, socket) in sockets.into_iter().enumerate() {
        let (slots, memory, started) = (slots.clone(), memory.clone(), started.clone());
        std::thread::Builder::new()
            .name(format!("database-{number}"))
            .stack_size(limits::DATABASE_STACK_BYTES)
            .spawn(move || {
                grant_from(memory);
                let _ = started.send((number, gettid().as_raw_pid()));
                // Without its socket the thread is of no use; the node sees that it is closed, and ends the process.
                let _ = work(socket, &slots);
            })?;
    }
    drop(started);
    let mut ready: Vec<(usize, i32)> = thread_ids.iter().take(size.threads as usize).collect();
    ready.sort_unstable();
    for (_, id) in ready {
        control.write_all(&id.to_le_bytes())?;
    }
    let mut number = [0; size_of::<u64>()];
    while control.read_exact(&mut number).is_ok() {
        slots.cancel(u64::from_le_bytes(number));
    }
    // The node is gone, or has closed every session.
    Ok(())
}

/// A signal for the whole process group or service is for the node, which ends this process when it has drained.
fn outlive_signals() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        for kind in [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()] {
            // The handler stays when the stream is dropped.
            drop(signal(kind)?);
        }
        Ok(())
    })
}

/// The node can do without this process, and not the other way round.
fn end_before_the_node() -> io::Result<()> {
    const FILE: &str = "/proc/self/oom_score_adj";
    let own: i32 = std::fs::read_to_string(FILE)?.trim().parse().map_err(io::Error::other)?;
    match std::fs::write(FILE, (own + OOM_SCORE).min(1_000).to_string()) {
        // The sandbox of a node that runs as root: much of what lies there is the whole machine's.
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(()),
        written => written,
    }
}

fn bound(resource: Resource, limit: u64) -> io::Result<()> {
    Ok(setrlimit(resource, Rlimit { current: Some(limit), maximum: Some(limit) })?)
}

/// Runs what arrives, one command after the other.
fn work(socket: UnixStream, slots: &Slots) -> io::Result<()> {
    let mut line = Line { socket, incoming: Incoming::default(), gives_up_waiting: false };
    let mut frame = Vec::new();
    loop {
        let (session, command) = line.receive()?;
        if command.begins_session() {
            slots.begin(session);
        }
        let answer: Answer = worker::carry_out(slots, session, command).answer;
        frame::encode(&answer, &mut frame)?;
        line.socket.write_all(&frame)?;
    }
}

/// A thread's end of its socket.
struct Line {
    socket: UnixStream,
    incoming: Incoming,
    /// Whether a read ends after [`IDLE_AFTER`].
    gives_up_waiting: bool,
}

impl Line {
    /// Waits for a command. A thread that has none for a moment gives its cached memory back before it waits on.
    fn receive(&mut self) -> io::Result<(SessionId, Command)> {
        self.give_up_waiting(true)?;
        loop {
            match self.socket.read(self.incoming.room()) {
                Ok(bytes) => {
                    if let Some(message) = self.incoming.filled(bytes)? {
                        return Ok(message);
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    give_back_unused();
                    self.give_up_waiting(false)?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn give_up_waiting(&mut self, gives_up: bool) -> io::Result<()> {
        if self.gives_up_waiting != gives_up {
            self.socket.set_read_timeout(gives_up.then_some(IDLE_AFTER))?;
            self.gives_up_waiting = gives_up;
        }
        Ok(())
    }
}
