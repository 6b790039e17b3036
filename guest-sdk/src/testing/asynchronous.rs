//! What an async handler runs on in a test: one thread, that polls its tasks until they have ended.

use std::cell::RefCell;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use crate::asynchronous::Body;
use crate::{BodyError, DatabaseError, FetchError, Response, Value};

type Task = Pin<Box<dyn Future<Output = ()>>>;

thread_local! {
    /// Tasks that are to start.
    static SPAWNED: RefCell<Vec<Task>> = const { RefCell::new(Vec::new()) };
}

pub(crate) fn spawn(task: impl Future<Output = ()> + 'static) {
    SPAWNED.with_borrow_mut(|tasks| tasks.push(Box::pin(task)));
}

/// Runs a future, and every task that it starts, to the end.
pub(super) fn run<T>(work: impl Future<Output = T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut work = pin!(work);
    let mut output = None;
    let mut tasks: Vec<Task> = Vec::new();
    loop {
        if output.is_none()
            && let Poll::Ready(value) = work.as_mut().poll(&mut context)
        {
            output = Some(value);
        }
        tasks.append(&mut SPAWNED.take());
        tasks.retain_mut(|task| task.as_mut().poll(&mut context).is_pending());
        if SPAWNED.with_borrow(|spawned| !spawned.is_empty()) {
            continue;
        }
        match output {
            Some(value) if tasks.is_empty() => return value,
            _ => thread::park(),
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// A body that arrives in pieces.
pub(crate) struct Incoming(super::Incoming);

impl Incoming {
    pub(crate) fn of(incoming: super::Incoming) -> Option<Self> {
        Some(Self(incoming))
    }

    pub(crate) fn remaining(&self) -> Option<u64> {
        self.0.remaining()
    }

    pub(crate) async fn read(&mut self) -> Result<Option<Vec<u8>>, BodyError> {
        self.0.read()
    }
}

/// Lets the tenant's upstream answer.
pub(crate) async fn send(request: http::Request<Body>) -> Result<http::Response<Body>, FetchError> {
    let response: Response = super::send(request.map(Into::into))?;
    let (head, body) = response.into_parts();
    let body = Body::of(body).with_head(&head.headers).of_fetched();
    Ok(http::Response::from_parts(head, body))
}

/// A connection to the tenant's database, whose calls end at once.
#[derive(Debug)]
pub(crate) struct Connection(super::Connection);

impl Connection {
    pub(crate) async fn open() -> Result<Self, DatabaseError> {
        super::Connection::open().map(Self)
    }

    pub(crate) async fn execute(&self, sql: &str, values: Vec<Value>) -> Result<Found, DatabaseError> {
        let mut found = self.0.execute(sql, values)?;
        Ok(Found { columns: std::mem::take(&mut found.columns), found })
    }

    pub(crate) fn roll_back(&self) {
        let _ = self.0.execute("ROLLBACK", Vec::new());
    }

    pub(crate) async fn changes(&self) -> u64 {
        self.0.changes()
    }

    pub(crate) async fn last_insert_rowid(&self) -> i64 {
        self.0.last_insert_rowid()
    }
}

/// What a statement returned.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) columns: Vec<String>,
    found: super::Found,
}

impl Found {
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<Value>>, DatabaseError> {
        Ok(self.found.next())
    }

    pub(crate) async fn finish(self) -> Result<(), DatabaseError> {
        Ok(())
    }
}
