//! The slow lane: threads of their own, at a lower priority, for guests that compute.
//!
//! ```text
//!              HEAVY_AFTER of CPU time
//!  Here ────────────────────────────────▶ There
//!  polled by its connection's task        polled in the slow lane, in turn
//! ```
//!
//! A guest that has computed for more than a moment goes on there, so that it does not stand before others in the queue
//! of a worker thread, and the kernel lets others pass it at any time. One whose tenant's requests typically compute
//! starts there. In the lane a turn is one tick; turns go round the tenants, and each tenant's guests in order.

use std::future::poll_fn;
use std::io;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use rustix::thread::gettid;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio::task::{JoinError, JoinHandle};

use super::GuestFailure;
use super::body::Course;
use crate::admission::Load;
use crate::fair::Lines;
use crate::limits;
use crate::name::Id;
use crate::telemetry::in_current_request;
use crate::thread::lower_priority;

/// How a guest ends.
pub(super) type Outcome = Result<(), GuestFailure>;

/// The threads, and the turns on them.
pub(super) struct Lane {
    threads: Option<Runtime>,
    turns: Arc<Turns>,
}

/// The turns, and who waits for one.
struct Turns(Mutex<Waiting>);

struct Waiting {
    free: usize,
    guests: Lines<Id, oneshot::Sender<Turn>>,
}

/// One turn. Dropping it gives it to the next guest.
struct Turn(Option<Arc<Turns>>);

impl Lane {
    /// A turn at a time for each core.
    ///
    /// # Errors
    /// When the system gives none.
    pub(super) fn start() -> io::Result<Self> {
        let cores = std::thread::available_parallelism()?.get();
        // One more than there are turns, so that whoever wants one stands in line and not in the queue of the threads.
        let runtime = Builder::new_multi_thread()
            .worker_threads(cores + 1)
            .thread_name("slow-lane")
            .on_thread_start(|| lower_priority(gettid(), limits::HEAVY_GUEST_SLICE))
            .enable_all()
            .build()?;
        Ok(Self { threads: Some(runtime), turns: Turns::new(cores) })
    }

    /// Polls a guest in turn, for the request that the current task works for.
    fn take<F>(&self, load: Arc<Load>, deadline: Instant, guest: Pin<Box<F>>) -> Option<JoinHandle<Outcome>>
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let guest = in_turn(self.turns.clone(), load, deadline, guest);
        Some(self.threads.as_ref()?.spawn(in_current_request(guest)))
    }

    /// Guests that wait for their turn.
    pub(super) fn waiting(&self) -> u64 {
        self.turns.waiting().guests.len() as u64
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        if let Some(threads) = self.threads.take() {
            threads.shutdown_background();
        }
    }
}

/// Polls a guest once in each turn. At its deadline it need not wait for one: it will find that its time is over.
async fn in_turn<F: Future>(
    turns: Arc<Turns>,
    load: Arc<Load>,
    deadline: Instant,
    mut guest: Pin<Box<F>>,
) -> F::Output {
    loop {
        let turn = tokio::time::timeout_at(deadline.into(), turns.enter(load.tenant())).await;
        let polled = poll_fn(|context| Poll::Ready(guest.as_mut().poll(context))).await;
        drop(turn);
        match polled {
            Poll::Ready(outcome) => return outcome,
            Poll::Pending => woken().await,
        }
    }
}

/// Waits until the current task is woken, by whatever it was polled for before.
async fn woken() {
    let mut is_first = true;
    poll_fn(|_| if std::mem::take(&mut is_first) { Poll::Pending } else { Poll::Ready(()) }).await;
}

impl Turns {
    fn new(number: usize) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Waiting { free: number, guests: Lines::default() })))
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn enter(self: &Arc<Self>, tenant: &Id) -> Turn {
        let told = {
            let mut waiting = self.waiting();
            if waiting.free > 0 {
                waiting.free -= 1;
                return Turn(Some(self.clone()));
            }
            let (tell, told) = oneshot::channel();
            waiting.guests.push(tenant.clone(), tell);
            told
        };
        // Every guest in line is told before the turns are gone.
        told.await.unwrap_or(Turn(None))
    }

    fn next(&self) -> Option<oneshot::Sender<Turn>> {
        let mut waiting = self.waiting();
        let next = waiting.guests.pop();
        if next.is_none() {
            waiting.free += 1;
        }
        next.map(|(_, guest)| guest)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(turns) = self.0.take() else { return };
        while let Some(guest) = turns.next() {
            match guest.send(Self(Some(turns.clone()))) {
                Ok(()) => return,
                // It has been cancelled; the turn is still this one.
                Err(mut unwanted) => unwanted.0 = None,
            }
        }
    }
}

/// A guest, wherever it is polled. Dropping it cancels the guest.
pub(super) struct Guided<F> {
    here: Option<Pin<Box<F>>>,
    there: Option<JoinHandle<Outcome>>,
    lane: Arc<Lane>,
    course: Course,
    load: Arc<Load>,
    deadline: Instant,
}

impl<F: Future<Output = Outcome> + Send + 'static> Guided<F> {
    /// A guest that starts here, or there when its course is known to be heavy.
    pub(super) fn new(
        lane: Arc<Lane>,
        course: Course,
        load: Arc<Load>,
        deadline: Instant,
        guest: Pin<Box<F>>,
    ) -> Self {
        let mut guided = Self { here: Some(guest), there: None, lane, course, load, deadline };
        if guided.course.is_heavy() {
            guided.move_over();
        }
        guided
    }

    fn move_over(&mut self) {
        if let Some(guest) = self.here.take() {
            self.there = self.lane.take(self.load.clone(), self.deadline, guest);
        }
    }
}

impl<F: Future<Output = Outcome> + Send + 'static> Future for Guided<F> {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        if let Some(guest) = &mut self.here {
            let polled = guest.as_mut().poll(context);
            if polled.is_ready() || !self.course.is_heavy() {
                return polled;
            }
            self.move_over();
        }
        match &mut self.there {
            Some(guest) => Pin::new(guest).poll(context).map(|ended| ended.unwrap_or_else(lost)),
            None => Poll::Ready(Err(GuestFailure::NoResponse)),
        }
    }
}

impl<F> Drop for Guided<F> {
    fn drop(&mut self) {
        if let Some(guest) = &self.there {
            guest.abort();
        }
    }
}

/// A task that ends without an outcome has panicked, or its thread was ended with the process.
fn lost(error: JoinError) -> Outcome {
    match error.try_into_panic() {
        Ok(panic) => resume_unwind(panic),
        Err(_) => Err(GuestFailure::NoResponse),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Tested = Result<(), Box<dyn std::error::Error>>;

    /// A guest in line, which says its name when it has its turn.
    async fn wait_in_line(
        turns: &Arc<Turns>,
        tenant: &Id,
        name: &'static str,
        served: &tokio::sync::mpsc::Sender<&'static str>,
    ) -> JoinHandle<()> {
        let before = turns.waiting().guests.len();
        let guest = tokio::spawn({
            let (turns, tenant, served) = (turns.clone(), tenant.clone(), served.clone());
            async move {
                let turn = turns.enter(&tenant).await;
                served.send(name).await.ok();
                drop(turn);
            }
        });
        while turns.waiting().guests.len() == before {
            tokio::task::yield_now().await;
        }
        guest
    }

    #[tokio::test]
    async fn turns_go_round_the_tenants() -> Tested {
        let turns = Turns::new(1);
        let (loud, quiet) = (Id::random()?, Id::random()?);
        let (served, mut order) = tokio::sync::mpsc::channel(8);
        let turn = turns.enter(&loud).await;
        let gone = wait_in_line(&turns, &loud, "gone", &served).await;
        for (tenant, name) in [(&loud, "l1"), (&loud, "l2"), (&quiet, "q1")] {
            wait_in_line(&turns, tenant, name, &served).await;
        }
        gone.abort();
        assert!(gone.await.is_err());
        drop((turn, served));
        let mut names = Vec::new();
        while let Some(name) = order.recv().await {
            names.push(name);
        }
        // The one that is gone has had its tenant's place, and nobody's turn.
        assert_eq!(names, ["q1", "l1", "l2"]);
        assert_eq!(turns.waiting().free, 1);
        Ok(())
    }

    #[tokio::test]
    async fn a_guest_that_becomes_heavy_goes_on_there() -> Tested {
        let lane = Arc::new(Lane::start()?);
        let course = Course::default();
        let thread = || std::thread::current().name().map(str::to_owned);
        let (tell, told) = oneshot::channel();
        let guest = Box::pin({
            let course = course.clone();
            async move {
                let before = thread();
                course.found_heavy();
                tokio::task::yield_now().await;
                tell.send((before, thread())).ok();
                Ok(())
            }
        });
        let load = Arc::new(Load::new(Id::random()?));
        let deadline = Instant::now() + std::time::Duration::from_secs(60);
        Guided::new(lane.clone(), course, load, deadline, guest).await?;
        let (before, after) = told.await?;
        assert_ne!(before.as_deref(), Some("slow-lane"));
        assert_eq!(after.as_deref(), Some("slow-lane"));
        assert_eq!(lane.waiting(), 0);
        Ok(())
    }
}
