//! The queue of jobs of the database threads: bounded, served round the owners of the jobs, each one's first in, first
//! out.
//!
//! A job wakes the thread that went idle last: its stack and its allocation cache are still warm, and the others stay
//! asleep. A thread without a job sleeps at once instead of spinning for one, because on a small machine the cores
//! have other work. A task that speaks for a thread of another process takes jobs in the same way.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use super::message::Owner;
use crate::fair::Lines;

struct Inner<T> {
    jobs: Lines<Owner, T>,
    idle: Vec<Arc<Sleeper>>,
    is_closed: bool,
}

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
}

impl<T> Queue<T> {
    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The end that jobs are put in at. The receivers end when it is dropped.
pub(super) struct Sender<T>(Arc<Queue<T>>);

/// The end that a thread takes jobs from.
pub(super) struct Receiver<T>(Arc<Queue<T>>);

/// A queue of at most `jobs_max` jobs.
pub(super) fn queue<T>(jobs_max: usize) -> (Sender<T>, Receiver<T>) {
    let inner = Inner { jobs: Lines::default(), idle: Vec::new(), is_closed: false };
    let queue = Arc::new(Queue { inner: Mutex::new(inner), jobs_max });
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
        let sleeper = inner.idle.pop();
        drop(inner);
        if let Some(sleeper) = sleeper {
            sleeper.wake();
        }
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
        let (sender, receiver) = queue(10_000);
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
        let (sender, receiver) = queue(10);
        for (owner, job) in [(1, 11), (1, 12), (1, 13), (2, 21), (3, 31)] {
            sender.send(Owner(owner), job);
        }
        drop(sender);
        let received: Vec<_> = std::iter::from_fn(|| receiver.receive(NEVER, || {})).collect();
        assert_eq!(received, [11, 21, 31, 12, 13]);
    }

    #[test]
    fn a_full_queue_drops_the_job() {
        let (sender, receiver) = queue(1);
        sender.send(Owner::NODE, 1);
        sender.send(Owner::NODE, 2);
        drop(sender);
        let received: Vec<_> = std::iter::from_fn(|| receiver.receive(NEVER, || {})).collect();
        assert_eq!(received, [1]);
    }

    #[test]
    fn an_idle_thread_is_told_so_once_for_each_wait() {
        let (sender, receiver) = queue(1);
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
        let (sender, receiver) = queue(100);
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
