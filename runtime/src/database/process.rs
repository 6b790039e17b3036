//! Database processes as the node sees them: killable children that run tenants' SQL.
//!
//! ```text
//!              started, ready              killed, crashed
//!  Down ─────────────────────▶ Up (life n) ───────────────▶ Down (life n + 1)
//!    ▲                                                         │ at once; later and later when it keeps ending
//!    └─────────────────────────────────────────────────────────┘
//! ```
//!
//! A session belongs to one life of one process. When that life is over, whatever was under way is answered with
//! [`DatabaseError::Ended`], but not before the kernel has let go of the process's files. Each thread of the child has a
//! socket of its own, and a task here that writes a command and waits for its answer, so that a command costs one write
//! and one read at either end. A thread of the node starts the child and waits for its end: the child is killed when
//! that thread ends, as it does with the node.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Child, Command as Program, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::child::ProcessSize;
use super::frame::{self, Incoming};
use super::message::{Command, DatabaseError, Home, Owner, SessionId};
use super::overdue::Due;
use super::queue::{self, Receiver, Sender};
use super::worker::{Answer, COMMANDS_PER_SESSION, Job, lock};
use crate::process_sandbox::Insistence;

/// The subcommand of this program that [`super::serve_in_this_process`] is behind.
const SUBCOMMAND: &str = "database-process";

/// How long a process may take to start, and how long commands wait for one that is down.
const START_TIME_MAX: Duration = Duration::from_secs(10);

/// A process that lived for this long is started anew at once.
const LONG_LIFE: Duration = Duration::from_secs(30);

/// The pause before a process that did not live long is started anew, for the second time in a row.
const PAUSE_MIN: Duration = Duration::from_millis(50);

/// The longest pause before a process that keeps ending is started anew.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// How the processes of a node are started.
#[derive(Debug)]
pub struct Recipe {
    /// This program.
    pub program: PathBuf,
    /// Where all databases lie.
    pub folder: PathBuf,
    /// How much each process insists on its sandbox.
    pub sandbox: Insistence,
    /// How many.
    pub processes: u32,
    /// What each may take.
    pub size: ProcessSize,
    /// Sessions that all of them together can have.
    pub sessions_max: u32,
    /// The lock of the data folder. Whoever has it open keeps another node off.
    pub lock: File,
}

/// One database process, through all its lives.
pub(super) struct Process {
    index: usize,
    queue: Sender<Job>,
    state: Arc<State>,
}

/// What is shared by a process's handle, its tasks and its thread.
struct State {
    stand: watch::Sender<Stand>,
    connection: Mutex<Option<Connection>>,
    /// What each thread of the process does.
    running: Vec<Mutex<Option<Running>>>,
    deaths: AtomicU64,
    is_closing: AtomicBool,
}

/// Which life of the process sessions that begin now belong to, and whether it has begun.
#[derive(Debug, Clone, Copy)]
struct Stand {
    life: u64,
    is_up: bool,
}

/// What connects the node with one life of a process.
struct Connection {
    life: u64,
    pid: Pid,
    pidfd: OwnedFd,
    control: UnixStream,
    /// The socket of each thread, until its task takes it.
    lines: Vec<Option<UnixStream>>,
    threads: Vec<Pid>,
}

/// A command that a thread of the process works on.
#[derive(Debug, Clone, Copy)]
struct Running {
    owner: Owner,
    due: Due,
    is_stuck: bool,
}

impl Process {
    /// Starts a process, and keeps it alive from then on.
    pub(super) fn start(index: usize, recipe: &Arc<Recipe>) -> io::Result<Self> {
        let jobs_max = recipe.sessions_max as usize * COMMANDS_PER_SESSION;
        let (queue, jobs) = queue::queue(jobs_max, 0);
        let threads = 0..recipe.size.threads as usize;
        let state = Arc::new(State {
            stand: watch::Sender::new(Stand { life: 0, is_up: false }),
            connection: Mutex::default(),
            running: threads.clone().map(|_| Mutex::default()).collect(),
            deaths: AtomicU64::new(0),
            is_closing: AtomicBool::new(false),
        });
        let (started, is_started) = mpsc::sync_channel(1);
        let keeper = Keeper { index, recipe: recipe.clone(), state: state.clone() };
        std::thread::Builder::new()
            .name(format!("process-{index}"))
            .spawn(move || keeper.keep_alive(started))?;
        is_started.recv().map_err(io::Error::other)??;
        for number in threads {
            let lane = Lane { state: state.clone(), number, line: None };
            Handle::current().spawn(lane.run(jobs.another()));
        }
        Ok(Self { index, queue, state })
    }

    /// Where a session lives that begins now.
    pub(super) fn home(&self) -> Home {
        Home::Process { index: self.index, life: self.state.stand.borrow().life }
    }

    /// Whether sessions of a life can be used.
    pub(super) fn is_alive(&self, life: u64) -> bool {
        self.state.stand.borrow().life == life
    }

    pub(super) fn send(&self, job: Job) {
        self.queue.send(job.session.owner, job);
    }

    /// Tells the process to stop the command of a session. A process that takes no word is for the watchdog.
    pub(super) fn cancel(&self, session: SessionId) {
        if let Some(connection) = &*lock(&self.state.connection) {
            let _ = io::Write::write(&mut &connection.control, &session.number.to_le_bytes());
        }
    }

    /// Kills the process when a command [is stuck](Due::is_stuck).
    pub(super) fn watch(&self, now: Instant, grace: Duration) {
        let mut is_stuck = false;
        for (number, running) in self.state.running.iter().enumerate() {
            if let Some(running) = lock(running).as_mut()
                && let Some((process, thread)) = self.state.thread(number)
                && running.due.is_stuck(now, grace, process, thread)
            {
                running.is_stuck = true;
                is_stuck = true;
            }
        }
        if is_stuck {
            self.state.kill(self.state.stand.borrow().life);
        }
    }

    /// Commands that run in it.
    pub(super) fn running(&self) -> u64 {
        self.state.running.iter().filter(|running| lock(running).is_some()).count() as u64
    }

    /// Commands that wait for one of its threads.
    pub(super) fn waiting(&self) -> u64 {
        self.queue.len() as u64
    }

    /// How often it has ended.
    pub(super) fn deaths(&self) -> u64 {
        self.state.deaths.load(Ordering::Relaxed)
    }

    pub(super) fn pid(&self) -> Option<i32> {
        lock(&self.state.connection).as_ref().map(|connection| connection.pid.as_raw_pid())
    }

    /// Ends the process, whose sessions are closed, and waits until it has.
    pub(super) async fn close(&self) {
        self.state.is_closing.store(true, Ordering::Release);
        let life = self.state.stand.borrow().life;
        let was_up = lock(&self.state.connection).take().is_some();
        if was_up {
            self.state.has_ended(life).await;
        }
    }
}

impl State {
    /// Kills one life of the process. One that is over is not there to be killed.
    fn kill(&self, life: u64) {
        let connection = lock(&self.connection);
        if let Some(connection) = connection.as_ref().filter(|connection| connection.life == life) {
            let _ = pidfd_send_signal(&connection.pidfd, Signal::KILL);
        }
    }

    /// The process, and one of its threads.
    fn thread(&self, number: usize) -> Option<(Pid, Pid)> {
        let connection = lock(&self.connection);
        let connection = connection.as_ref()?;
        Some((connection.pid, *connection.threads.get(number)?))
    }

    fn take_line(&self, life: u64, number: usize) -> Option<UnixStream> {
        let mut connection = lock(&self.connection);
        let connection = connection.as_mut().filter(|connection| connection.life == life)?;
        connection.lines.get_mut(number)?.take()
    }

    /// Waits until a life is over, and the kernel has let go of its files.
    async fn has_ended(&self, life: u64) {
        // The sender is in the same value.
        let _ = self.stand.subscribe().wait_for(|stand| stand.life > life).await;
    }
}

/// The task that speaks for one thread of the process.
struct Lane {
    state: Arc<State>,
    number: usize,
    line: Option<Line>,
}

/// A socket to one thread in one life of its process.
struct Line {
    life: u64,
    socket: tokio::net::UnixStream,
    incoming: Incoming,
    frame: Vec<u8>,
}

impl Lane {
    async fn run(mut self, jobs: Receiver<Job>) {
        while let Some(Job { session, command, asker }) = jobs.next().await {
            asker.tell(self.carry_out(session, &command).await);
        }
    }

    async fn carry_out(&mut self, session: SessionId, command: &Command) -> Answer {
        let Home::Process { life, .. } = session.home else { return Err(DatabaseError::Closed) };
        let state = self.state.clone();
        let Some(running) = state.running.get(self.number) else { return Err(DatabaseError::Closed) };
        let Some(line) = self.line_of(life).await else { return Err(DatabaseError::Ended) };
        let due = Due::at(Instant::now() + command.time_max());
        *lock(running) = Some(Running { owner: session.owner, due, is_stuck: false });
        let exchanged = line.exchange(session, command).await;
        if let Ok(answer) = exchanged {
            *lock(running) = None;
            return answer;
        }
        self.line = None;
        state.kill(life);
        state.has_ended(life).await;
        let is_stuck = lock(running).take().is_some_and(|running| running.is_stuck);
        Err(if is_stuck { DatabaseError::Stuck } else { DatabaseError::Ended })
    }

    /// The socket for a life, once it has begun; none when it is over.
    async fn line_of(&mut self, life: u64) -> Option<&mut Line> {
        let stand = *self.state.stand.borrow();
        if stand.life != life {
            return None;
        }
        if self.line.as_ref().is_none_or(|line| line.life != life) {
            self.line = None;
            let mut changes = self.state.stand.subscribe();
            let begun = changes.wait_for(|stand| stand.is_up || stand.life != life);
            tokio::time::timeout(START_TIME_MAX, begun).await.ok()?.ok()?;
            let socket = self.state.take_line(life, self.number)?;
            let socket = tokio::net::UnixStream::from_std(socket).ok()?;
            self.line = Some(Line { life, socket, incoming: Incoming::default(), frame: Vec::new() });
        }
        self.line.as_mut()
    }
}

impl Line {
    async fn exchange(&mut self, session: SessionId, command: &Command) -> io::Result<Answer> {
        frame::encode(&(session, command), &mut self.frame)?;
        self.socket.write_all(&self.frame).await?;
        loop {
            let bytes = self.socket.read(self.incoming.room()).await?;
            if let Some(answer) = self.incoming.filled(bytes)? {
                return Ok(answer);
            }
        }
    }
}

/// The thread that starts a process and waits for its end, again and again.
struct Keeper {
    index: usize,
    recipe: Arc<Recipe>,
    state: Arc<State>,
}

impl Keeper {
    /// Tells whether the first start went well.
    fn keep_alive(&self, started: mpsc::SyncSender<io::Result<()>>) {
        let mut started = Some(started);
        let mut pause = Duration::ZERO;
        while !self.state.is_closing.load(Ordering::Acquire) {
            let since = Instant::now();
            let begun = self.begin_life();
            match (started.take(), begun) {
                (Some(started), Err(error)) => {
                    let _ = started.send(Err(error));
                    return;
                }
                (None, Err(error)) => {
                    tracing::error!(process = self.index, %error, "a database process cannot be started; it is tried again, and its tenants' requests fail until then");
                }
                (started, Ok(mut child)) => {
                    let _ = started.map(|started| started.send(Ok(())));
                    self.end_life(child.wait());
                }
            }
            pause = if since.elapsed() > LONG_LIFE { Duration::ZERO } else { pause };
            std::thread::sleep(pause);
            pause = (pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
        }
    }

    /// Starts the child, hands it its sockets, and waits until it is ready.
    fn begin_life(&self) -> io::Result<Child> {
        let (control, theirs) = UnixStream::pair()?;
        let size = self.recipe.size;
        let mut child = Program::new(&self.recipe.program)
            .arg(SUBCOMMAND)
            .args(["--threads", &size.threads.to_string()])
            .args(["--memory-bytes", &size.memory_bytes.to_string()])
            .args(["--address-bytes", &size.address_bytes.to_string()])
            .args(["--process-sandbox", self.recipe.sandbox.as_str()])
            .arg("--folder")
            .arg(&self.recipe.folder)
            .process_group(0)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()?;
        let life = self.state.stand.borrow().life;
        let ready = connect(&child, life, control, &self.recipe);
        match ready {
            Ok(connection) => *lock(&self.state.connection) = Some(connection),
            Err(error) => {
                let _ = child.kill();
                let status = child.wait()?;
                return Err(io::Error::new(error.kind(), format!("{error} ({status})")));
            }
        }
        self.state.stand.send_modify(|stand| stand.is_up = true);
        Ok(child)
    }

    fn end_life(&self, status: io::Result<ExitStatus>) {
        *lock(&self.state.connection) = None;
        if !self.state.is_closing.load(Ordering::Acquire) {
            self.state.deaths.fetch_add(1, Ordering::Relaxed);
            self.tell_of_end(status);
        }
        self.state.stand.send_modify(|stand| *stand = Stand { life: stand.life + 1, is_up: false });
    }

    fn tell_of_end(&self, status: io::Result<ExitStatus>) {
        let running: Vec<Running> = self.state.running.iter().filter_map(|running| *lock(running)).collect();
        let owners = |is_stuck: bool| -> String {
            let owners = running.iter().filter(|running| running.is_stuck == is_stuck);
            owners.map(|running| running.owner.to_string()).collect::<Vec<_>>().join(" ")
        };
        let ended = match status {
            Ok(status) => {
                status.signal().map_or_else(|| status.to_string(), |signal| format!("signal {signal}"))
            }
            Err(error) => error.to_string(),
        };
        tracing::error!(
            process = self.index,
            ended,
            tenants = owners(false),
            stuck_tenants = owners(true),
            "a database process has ended, with what its tenants had under way; it is started anew"
        );
    }
}

/// Gives a process what it needs, and waits until it has taken it.
fn connect(child: &Child, life: u64, control: UnixStream, recipe: &Recipe) -> io::Result<Connection> {
    let pid = Pid::from_child(child);
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    frame::send_descriptor(&control, recipe.lock.as_fd())?;
    let mut lines = Vec::new();
    for _ in 0..recipe.size.threads {
        let (ours, theirs) = UnixStream::pair()?;
        frame::send_descriptor(&control, theirs.as_fd())?;
        ours.set_nonblocking(true)?;
        lines.push(Some(ours));
    }
    control.set_read_timeout(Some(START_TIME_MAX))?;
    let threads = (0..recipe.size.threads)
        .map(|_| {
            let mut id = [0; size_of::<i32>()];
            io::Read::read_exact(&mut &control, &mut id)?;
            Pid::from_raw(i32::from_le_bytes(id)).ok_or_else(|| io::Error::other("a thread has no number"))
        })
        .collect::<io::Result<_>>()?;
    control.set_nonblocking(true)?;
    Ok(Connection { life, pid, pidfd, control, lines, threads })
}
