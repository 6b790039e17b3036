//! The calls of one guest on its database: one after the other, in the order in which the guest makes them.
//!
//! A guest of the 0.3 world may make many at once, while its lease has one session and one transaction. Such a call
//! is carried out in a task of its own: a blocking call of the same guest stops everything else that runs in its
//! store, and would wait for ever for a call that runs there too. A call that its guest gives up is carried out all
//! the same, so that the next one finds the lease in order. When the guest's store drops, all of them are aborted.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tokio::sync::{Mutex, MutexGuard, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::JoinSet;

use crate::database::{DatabaseError, Rows, Value};
use crate::limits;
use crate::memory::{Budget, Charge, Exhausted};
use crate::telemetry::in_current_request;
use crate::tenant::Lease;

/// What waiting costs beside the statement itself.
const WAITING_CALL_BYTES: usize = 1 << 10;

/// The lease of a guest and the line before it.
pub(in crate::sandbox) struct Calls {
    lease: Arc<Mutex<Lease>>,
    tasks: JoinSet<()>,
    /// Bytes that statements in line may still take.
    waiting: Arc<Semaphore>,
    /// Bytes that rows may still take that the guest has not read.
    unread: Arc<Semaphore>,
    memory: Arc<Budget>,
}

/// Rows that a guest has not read, and the bytes of its allowance that they take.
pub(super) struct Unread {
    pub(super) rows: Rows,
    pub(super) allowance: OwnedSemaphorePermit,
    pub(super) charge: Charge,
}

impl Calls {
    pub(in crate::sandbox) fn new(lease: Lease, memory: Arc<Budget>) -> Self {
        Self {
            lease: Arc::new(Mutex::new(lease)),
            tasks: JoinSet::new(),
            waiting: Arc::new(Semaphore::new(limits::WAITING_STATEMENTS_BYTES_MAX)),
            unread: Arc::new(Semaphore::new(limits::RESULT_BYTES_MAX)),
            memory,
        }
    }

    /// Charges what waits for its turn, or for its guest, to the node.
    pub(super) fn charge(&self, bytes: usize) -> Result<Charge, Exhausted> {
        charge(&self.memory, bytes)
    }

    /// The lease, for a call that blocks its guest.
    pub(super) async fn lease(&self) -> MutexGuard<'_, Lease> {
        self.lease.lock().await
    }

    /// Takes a place in line now, and gives the lease when it is this call's turn.
    fn turn(&self) -> impl Future<Output = OwnedMutexGuard<Lease>> + Send + use<> {
        let mut line = Box::pin(self.lease.clone().lock_owned());
        let first = line.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        async move {
            match first {
                Poll::Ready(lease) => lease,
                Poll::Pending => line.await,
            }
        }
    }

    fn spawn<T: Send + 'static>(
        &mut self,
        call: impl Future<Output = T> + Send + 'static,
    ) -> oneshot::Receiver<T> {
        while self.tasks.try_join_next().is_some() {}
        let (reply, answer) = oneshot::channel();
        // A task is made on the guest's stack, and each of its layers holds what it wraps more than once.
        let call = Box::pin(call);
        self.tasks.spawn(in_current_request(async move {
            // The guest may have given the call up.
            let _ = reply.send(call.await);
        }));
        answer
    }

    /// Opens the database.
    pub(super) fn open(&mut self) -> oneshot::Receiver<Result<(), DatabaseError>> {
        let turn = self.turn();
        self.spawn(async move { turn.await.open().await })
    }

    /// Asks the lease for what it knows.
    pub(super) fn ask<T: Send + 'static>(
        &mut self,
        question: impl FnOnce(&Lease) -> T + Send + 'static,
    ) -> oneshot::Receiver<T> {
        let turn = self.turn();
        self.spawn(async move { question(&*turn.await) })
    }

    /// Runs the first statement of a text.
    ///
    /// # Errors
    /// When too much waits already.
    pub(super) fn execute(
        &mut self,
        statement: String,
        parameters: Vec<Value>,
    ) -> Result<oneshot::Receiver<Result<Unread, DatabaseError>>, DatabaseError> {
        let bytes = WAITING_CALL_BYTES + statement.len() + Value::row_bytes(&parameters);
        let place = take(&self.waiting, bytes).ok_or_else(too_much_waits)?;
        let waiting = self.charge(bytes)?;
        let (turn, unread, memory) = (self.turn(), self.unread.clone(), self.memory.clone());
        Ok(self.spawn(async move {
            let mut lease = turn.await;
            drop((place, waiting));
            let bytes_max = unread.available_permits();
            let rows = lease.execute_within(bytes_max, statement, parameters).await?;
            let bytes = rows.rows.iter().map(|row| Value::row_bytes(row)).sum();
            let allowance = take(&unread, bytes).ok_or(DatabaseError::Closed)?;
            let charge = charge(&memory, bytes)?;
            Ok(Unread { rows, allowance, charge })
        }))
    }
}

fn charge(memory: &Arc<Budget>, bytes: usize) -> Result<Charge, Exhausted> {
    memory.charge(bytes as u64)
}

fn take(bytes: &Arc<Semaphore>, number: usize) -> Option<OwnedSemaphorePermit> {
    bytes.clone().try_acquire_many_owned(u32::try_from(number).ok()?).ok()
}

fn too_much_waits() -> DatabaseError {
    DatabaseError::Statement(format!(
        "statements of more than {} MiB wait for this request's database; wait for some of them first",
        limits::WAITING_STATEMENTS_BYTES_MAX >> 20
    ))
}
