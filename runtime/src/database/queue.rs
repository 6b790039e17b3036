//! The queue of jobs of the database threads: bounded, served round the owners of the jobs, each one's first in, first
//! out.
//!
//! A job wakes the thread that went idle last: its stack and its allocation cache are still warm, and the others stay
//! asleep. A thread without a job sleeps at once instead of spinning for one, because on a small machine the cores
//! have other work. A task that speaks for a thread of another process takes jobs in the same way.
//!
//! Most jobs are done in less time than it takes to wake a thread. So a *reserve* of threads is woken only when the
//! others are held up: by a job that is known to wait for the disk ([`Receiver::step_aside`]), or by whatever it is that
//! lets a job wait for [`WAIT_MAX`].

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use super::message::Owner;
use crate::fair::Lines;

struct Inner<T> {
    jobs: Lines<Owner, T>,
    idle: Vec<Arc<Sleeper>>,
    /// Receivers whose job is known to wait for the disk.
    held_up: usize,
    /// When jobs wait: since when none of them has been taken.
    since: Option<Instant>,
    is_closed: bool,
}

/// When no job has been taken for so long, although some wait, a thread of the reserve is woken.
const WAIT_MAX: Duration = Duration::from_millis(1);

struct Sleeper {
    who: Sleeping,
    is_woken: AtomicBool,
}

enum Sleeping {
    Thread(Thread),
    Task(Waker),
}

/// What there is for whoever asks.
enum Taken<T> {
    Job(T),
    Nothing(Arc<Sleeper>),
    End,
}

struct Queue<T> {
    inner: Mutex<Inner<T>>,
    jobs_max: usize,
    reserve: usize,
}

impl<T> Inner<T> {
    /// Who is to be woken when jobs wait.
    fn next_sleeper(&mut self, reserve: usize) -> Option<Arc<Sleeper>> {
        let since = self.since?;
        if self.idle.len() + self.held_up > reserve {
            return self.idle.pop();
        }
        let now = Instant::now();
        if now.saturating_duration_since(since) < WAIT_MAX {
            return None;
        }
        self.since = Some(now);
        self.idle.pop()
    }
}

impl<T> Queue<T> {
    /// Wakes who is to take a job, if somebody is.
    fn wake_for(&self, mut inner: MutexGuard<'_, Inner<T>>) {
        let sleeper = inner.next_sleeper(self.reserve);
        drop(inner);
        if let Some(sleeper) = sleeper {
            sleeper.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The end that jobs are put in at. The receivers end when it is dropped.
pub(super) struct Sender<T>(Arc<Queue<T>>);

/// The end that a thread takes jobs from.
pub(super) struct Receiver<T>(Arc<Queue<T>>);

/// A queue of at most `jobs_max` jobs, with so many of its receivers in reserve.
pub(super) fn queue<T>(jobs_max: usize, reserve: usize) -> (Sender<T>, Receiver<T>) {
    let inner = Inner { jobs: Lines::default(), idle: Vec::new(), held_up: 0, since: None, is_closed: false };
    let queue = Arc::new(Queue { inner: Mutex::new(inner), jobs_max, reserve });
    let receiver = Receiver(queue.clone());
    (Sender(queue), receiver)
}

impl<T> Sender<T> {
    /// Puts a job in its owner's line. A full queue drops it.
    pub(super) fn send(&self, owner: Owner, job: T) {
        let mut inner = self.0.lock();
        if inner.jobs.len() >= self.0.jobs_max {
            return;
        }
        inner.jobs.push(owner, job);
        inner.since.get_or_insert_with(Instant::now);
        self.0.wake_for(inner);
    }

    /// How many jobs wait.
    pub(super) fn len(&self) -> usize {
        self.0.lock().jobs.len()
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut inner = self.0.lock();
        inner.is_closed = true;
        inner.idle.drain(..).for_each(|sleeper| sleeper.wake());
    }
}

impl<T> Receiver<T> {
    /// One more end, for one more thread.
    pub(super) fn another(&self) -> Self {
        Self(self.0.clone())
    }

    /// Wakes a thread of the reserve when jobs have waited for long. To be called every now and then.
    pub(super) fn look(&self) {
        self.0.wake_for(self.0.lock());
    }

    /// Says that this end's job waits for the disk: until what is returned is dropped, another takes its place.
    pub(super) fn step_aside(&self) -> HeldUp<'_, T> {
        let mut inner = self.0.lock();
        inner.held_up += 1;
        self.0.wake_for(inner);
        HeldUp(&self.0)
    }

    /// Waits for a job; `None` when there will be no more. `on_idle` runs when none has come for `idle_after`.
    pub(super) fn receive(&self, idle_after: Duration, on_idle: impl Fn()) -> Option<T> {
        loop {
            match self.take(|| Sleeping::Thread(thread::current())) {
                Taken::Job(job) => return Some(job),
                Taken::Nothing(sleeper) => sleeper.sleep(idle_after, &on_idle),
                Taken::End => return None,
            }
        }
    }

    /// Waits for a job in a task, which must not be given up: the job that it was woken for would wait on.
    pub(super) async fn next(&self) -> Option<T> {
        let mut waiting: Option<Arc<Sleeper>> = None;
        poll_fn(|context| {
            if waiting.as_ref().is_some_and(|sleeper| !sleeper.is_woken.load(Ordering::Acquire)) {
                return Poll::Pending;
            }
            match self.take(|| Sleeping::Task(context.waker().clone())) {
                Taken::Job(job) => Poll::Ready(Some(job)),
                Taken::Nothing(sleeper) => {
                    waiting = Some(sleeper);
                    Poll::Pending
                }
                Taken::End => Poll::Ready(None),
            }
        })
        .await
    }

    fn take(&self, who: impl FnOnce() -> Sleeping) -> Taken<T> {
        let mut inner = self.0.lock();
        if let Some((_, job)) = inner.jobs.pop() {
            inner.since = (!inner.jobs.is_empty()).then(Instant::now);
            return Taken::Job(job);
        }
        if inner.is_closed {
            return Taken::End;
        }
        let sleeper = Arc::new(Sleeper { who: who(), is_woken: AtomicBool::new(false) });
        inner.idle.push(sleeper.clone());
        Taken::Nothing(sleeper)
    }
}

/// One end whose job waits for the disk.
pub(super) struct HeldUp<'a, T>(&'a Queue<T>);

impl<T> Drop for HeldUp<'_, T> {
    fn drop(&mut self) {
        self.0.lock().held_up -= 1;
    }
}

impl Sleeper {
    fn wake(&self) {
        self.is_woken.store(true, Ordering::Release);
        match &self.who {
            Sleeping::Thread(thread) => thread.unpark(),
            Sleeping::Task(waker) => waker.wake_by_ref(),
        }
    }

    fn sleep(&self, idle_after: Duration, on_idle: impl Fn()) {
        thread::park_timeout(idle_after);
        if !self.is_woken.load(Ordering::Acquire) {
            on_idle();
        }
        while !self.is_woken.load(Ordering::Acquire) {
            thread::park();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    const NEVER: Duration = Duration::from_secs(3600);

    #[test]
    fn every_job_is_received_once_and_the_threads_end_with_the_sender() {
        let (sender, receiver) = queue(10_000, 0);
        let (done, seen) = mpsc::sync_channel(10_000);
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let (receiver, done) = (receiver.another(), done.clone());
                thread::spawn(move || {
                    while let Some(job) = receiver.receive(NEVER, || {}) {
                        done.send(job).ok();
                    }
                })
            })
            .collect();
        (0..5_000).for_each(|job: i32| sender.send(Owner((job % 7).unsigned_abs().into()), job));
        let mut jobs: Vec<i32> = seen.iter().take(5_000).collect();
        jobs.sort_unstable();
        assert_eq!(jobs, (0..5_000).collect::<Vec<_>>());
        drop(sender);
        assert!(threads.into_iter().all(|thread| thread.join().is_ok()));
    }

    #[test]
    fn owners_are_served_in_turn() {
        let (sender, receiver) = queue(10, 0);
        for (owner, job) in [(1, 11), (1, 12), (1, 13), (2, 21), (3, 31)] {
            sender.send(Owner(owner), job);
        }
        drop(sender);
        let received: Vec<_> = std::iter::from_fn(|| receiver.receive(NEVER, || {})).collect();
        assert_eq!(received, [11, 21, 31, 12, 13]);
    }

    #[test]
    fn the_reserve_is_woken_when_the_others_are_held_up() -> Result<(), Box<dyn std::error::Error>> {
        let (sender, receiver) = queue(100, 1);
        let (told, taken) = mpsc::sync_channel(8);
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let (receiver, told) = (receiver.another(), told.clone());
                thread::spawn(move || {
                    while let Some((job, lets_go)) = receiver.receive(NEVER, || {}) {
                        let lets_go: mpsc::Receiver<()> = lets_go;
                        told.send(job).ok();
                        lets_go.recv().ok();
                    }
                })
            })
            .collect();
        let idle = || sender.0.lock().idle.len();
        let until = |number| {
            while idle() != number {
                thread::yield_now();
            }
        };
        until(2);
        let (first, lets_go) = mpsc::channel();
        sender.send(Owner(1), (1, lets_go));
        assert_eq!(taken.recv()?, 1);
        let (second, lets_go) = mpsc::channel();
        sender.send(Owner(2), (2, lets_go));
        assert_eq!(idle(), 1, "the reserve was woken at once");
        // The first is done with its job, and takes the next.
        first.send(())?;
        assert_eq!(taken.recv()?, 2);
        assert_eq!(idle(), 1);
        let held_up = receiver.step_aside();
        let (third, lets_go) = mpsc::channel();
        sender.send(Owner(3), (3, lets_go));
        assert_eq!(taken.recv()?, 3);
        drop(held_up);
        [second, third].into_iter().for_each(drop);
        until(2);
        let (_fourth, lets_go) = mpsc::channel();
        sender.send(Owner(1), (4, lets_go));
        assert_eq!(taken.recv()?, 4);
        let (_fifth, lets_go) = mpsc::channel();
        sender.send(Owner(1), (5, lets_go));
        // Nobody says that the first is held up; the job has waited for long.
        while taken.try_recv().is_err() {
            receiver.look();
        }
        drop((_fourth, _fifth, sender));
        assert!(threads.into_iter().all(|thread| thread.join().is_ok()));
        Ok(())
    }

    #[test]
    fn a_full_queue_drops_the_job() {
        let (sender, receiver) = queue(1, 0);
        sender.send(Owner::NODE, 1);
        sender.send(Owner::NODE, 2);
        drop(sender);
        let received: Vec<_> = std::iter::from_fn(|| receiver.receive(NEVER, || {})).collect();
        assert_eq!(received, [1]);
    }

    #[test]
    fn an_idle_thread_is_told_so_once_for_each_wait() {
        let (sender, receiver) = queue(1, 0);
        let (told, idle) = mpsc::sync_channel(8);
        let thread =
            thread::spawn(move || receiver.receive(Duration::from_millis(1), || told.send(()).unwrap_or(())));
        assert!(idle.recv().is_ok());
        sender.send(Owner::NODE, 7);
        assert_eq!(thread.join().ok().flatten(), Some(7));
        assert!(idle.recv().is_err());
    }

    #[tokio::test]
    async fn tasks_receive_as_threads_do() {
        let (sender, receiver) = queue(100, 0);
        let tasks: Vec<_> = (0..4)
            .map(|_| {
                let receiver = receiver.another();
                tokio::spawn(async move {
                    let mut received = Vec::new();
                    while let Some(job) = receiver.next().await {
                        received.push(job);
                        tokio::task::yield_now().await;
                    }
                    received
                })
            })
            .collect();
        for job in 0..50 {
            sender.send(Owner::NODE, job);
            tokio::task::yield_now().await;
        }
        drop(sender);
        let mut jobs = Vec::new();
        for task in tasks {
            jobs.extend(task.await.unwrap_or_default());
        }
        jobs.sort_unstable();
        assert_eq!(jobs, (0..50).collect::<Vec<i32>>());
    }
}
