//! The asynchronous calls of `spin:sqlite@3.1`: columns at once, rows as a stream, and how it went as a future.
//!
//! The rows of a statement are all here before its guest sees the first: a cursor that a slow guest, or its client,
//! could hold open would hold the tenant's database. The stream gives them on as the guest reads them.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::OwnedSemaphorePermit;
use wasmtime::StoreContextMut;
use wasmtime::component::{
    Accessor, Destination, FutureReader, Resource, StreamProducer, StreamReader, StreamResult, VecBuffer,
};

use super::calls::Unread;
use super::v3_1::wit;
use super::{Connection, HasDatabase, refused};
use crate::database::{DatabaseError, Rows, Value};
use crate::limits;
use crate::memory::Charge;

type Streamed = (Vec<String>, StreamReader<wit::RowResult>, FutureReader<Result<(), wit::Error>>);

impl<T: Send + 'static> wit::HostConnectionWithStore<T> for HasDatabase {
    async fn open_async(
        accessor: &Accessor<T, Self>,
        name: String,
    ) -> wasmtime::Result<Result<Resource<Connection>, wit::Error>> {
        let opening = accessor.with(|mut access| {
            let mut view = access.get();
            view.may_open(&name).map(|()| view.calls.open())
        });
        let opened = match opening {
            Err(refused) => Err(refused),
            Ok(opening) => match opening.await.unwrap_or(Err(DatabaseError::Closed)) {
                Ok(()) => Ok(()),
                Err(error) => Err(refused(error)?),
            },
        };
        accessor.with(|mut access| match opened {
            Ok(()) => Ok(Ok(access.get().push()?)),
            Err(refused) => Ok(Err(refused.into())),
        })
    }

    async fn execute_async(
        accessor: &Accessor<T, Self>,
        connection: Resource<Connection>,
        statement: String,
        parameters: Vec<wit::Value>,
    ) -> wasmtime::Result<Result<Streamed, wit::Error>> {
        let parameters = parameters.into_iter().map(Into::into).collect();
        let running = accessor.with(|mut access| {
            let view = access.get();
            view.table.get(&connection)?;
            wasmtime::error::Ok(view.calls.execute(statement, parameters))
        })?;
        let outcome = match running {
            Ok(running) => running.await.unwrap_or(Err(DatabaseError::Closed)),
            Err(refused) => Err(refused),
        };
        // What went wrong is told by the future, as Spin does.
        let (columns, rows, ended) = match outcome {
            Ok(Unread { rows: Rows { columns, rows }, allowance, charge }) => {
                (columns, Some(Unsent { rows: rows.into_iter(), allowance, _charge: charge }), Ok(()))
            }
            Err(error) => (Vec::new(), None, Err(refused(error)?.into())),
        };
        accessor.with(|mut access| {
            let rows = StreamReader::new(&mut access, RowStream(rows))?;
            let ended = FutureReader::new(&mut access, async move { wasmtime::error::Ok(ended) })?;
            Ok(Ok((columns, rows, ended)))
        })
    }

    async fn last_insert_rowid_async(
        accessor: &Accessor<T, Self>,
        _: Resource<Connection>,
    ) -> wasmtime::Result<i64> {
        Ok(accessor.with(|mut access| access.get().calls.ask(|lease| lease.last_insert_rowid())).await?)
    }

    async fn changes_async(accessor: &Accessor<T, Self>, _: Resource<Connection>) -> wasmtime::Result<u64> {
        Ok(accessor.with(|mut access| access.get().calls.ask(|lease| lease.changes())).await?)
    }
}

/// Rows on their way to a guest. When the guest drops its end they go, and with them what they took.
struct RowStream(Option<Unsent>);

struct Unsent {
    rows: std::vec::IntoIter<Vec<Value>>,
    allowance: OwnedSemaphorePermit,
    _charge: Charge,
}

impl Unsent {
    fn next(&mut self) -> Option<wit::RowResult> {
        let row = self.rows.next()?;
        // What the guest has read it may ask for again.
        drop(self.allowance.split(Value::row_bytes(&row)));
        Some(wit::RowResult { values: row.into_iter().map(Into::into).collect() })
    }
}

impl<D> StreamProducer<D> for RowStream {
    type Item = wit::RowResult;
    type Buffer = VecBuffer<wit::RowResult>;

    fn poll_produce<'a>(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        store: StoreContextMut<'a, D>,
        mut destination: Destination<'a, Self::Item, Self::Buffer>,
        _finish: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        let Some(unsent) = &mut self.0 else { return Poll::Ready(Ok(StreamResult::Dropped)) };
        let wanted = destination.remaining(store).unwrap_or(limits::ROWS_AT_ONCE_MAX);
        let rows: Vec<_> =
            std::iter::from_fn(|| unsent.next()).take(wanted.min(limits::ROWS_AT_ONCE_MAX)).collect();
        destination.set_buffer(rows.into());
        if unsent.rows.as_slice().is_empty() {
            self.0 = None;
            return Poll::Ready(Ok(StreamResult::Dropped));
        }
        Poll::Ready(Ok(StreamResult::Completed))
    }
}
