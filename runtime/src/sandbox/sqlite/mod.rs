//! The database as a guest sees it: Spin's SQLite interfaces over one lease.
//!
//! Every `open` joins the lease's one session, so that two connections of a request see the same transaction.
//! What blocks the guest stands here; what it can wait for beside other things stands in [`streamed`].

mod calls;
mod streamed;

use wasmtime::component::{HasData, Resource, ResourceTable};

pub(super) use self::calls::Calls;
use crate::database::{DatabaseError, Rows, Value};
use crate::limits;
use crate::memory::Exhausted;

/// A guest's handle on its database. It holds nothing: the lease does.
#[expect(unreachable_pub, reason = "generated code exports it again")]
pub struct Connection;

/// What the host functions work on.
pub(super) struct View<'a> {
    pub calls: &'a mut Calls,
    pub table: &'a mut ResourceTable,
    pub opens: &'a mut u32,
}

pub(super) struct HasDatabase;

impl HasData for HasDatabase {
    type Data<'a> = View<'a>;
}

/// Why a guest's call failed, before it is put in the words of an interface.
enum Refused {
    NoSuchDatabase,
    AccessDenied,
    Full,
    Io(String),
}

/// What a guest is told. A node without memory tells it nothing: the error ends it.
fn refused(error: DatabaseError) -> Result<Refused, Exhausted> {
    Ok(match error {
        DatabaseError::Full(_) => Refused::Full,
        DatabaseError::Statement(message)
        | DatabaseError::TimedOut(message)
        | DatabaseError::Busy(message)
        | DatabaseError::Rejected(message) => Refused::Io(message),
        DatabaseError::Cancelled => {
            Refused::Io("the transaction was open for too long and was rolled back".to_owned())
        }
        DatabaseError::NodeMemory => return Err(Exhausted),
        error @ (DatabaseError::Ended | DatabaseError::Stuck | DatabaseError::Suspended(_)) => {
            Refused::Io(error.to_string())
        }
        // The cause is the operator's to know; it is in the log.
        DatabaseError::Storage(_)
        | DatabaseError::Quarantined(_)
        | DatabaseError::Gone
        | DatabaseError::Closed => Refused::Io("the database's storage failed".to_owned()),
    })
}

impl View<'_> {
    /// Counts one more `open` of a database, if the guest may have it.
    fn may_open(&mut self, name: &str) -> Result<(), Refused> {
        if name != "default" {
            return Err(Refused::NoSuchDatabase);
        }
        if *self.opens >= limits::OPENS_PER_GUEST {
            return Err(Refused::AccessDenied);
        }
        *self.opens += 1;
        Ok(())
    }

    fn push(&mut self) -> wasmtime::Result<Resource<Connection>> {
        Ok(self.table.push(Connection)?)
    }

    async fn open(&mut self, name: &str) -> wasmtime::Result<Result<Resource<Connection>, Refused>> {
        if let Err(refused) = self.may_open(name) {
            return Ok(Err(refused));
        }
        let opened = self.calls.lease().await.open().await;
        match opened {
            Ok(()) => Ok(Ok(self.push()?)),
            Err(error) => Ok(Err(refused(error)?)),
        }
    }

    async fn execute(
        &mut self,
        connection: &Resource<Connection>,
        statement: String,
        parameters: Vec<Value>,
    ) -> wasmtime::Result<Result<Rows, Refused>> {
        self.table.get(connection)?;
        let bytes = statement.len() + Value::row_bytes(&parameters);
        let _waiting = self.calls.charge(bytes)?;
        match self.calls.lease().await.execute(statement, parameters).await {
            Ok(rows) => Ok(Ok(rows)),
            Err(error) => Ok(Err(refused(error)?)),
        }
    }
}

/// All versions of the interface have the same shape; only their generated types differ.
macro_rules! interface {
    ($module:ident, $wit:literal, $resource:literal, $($path:ident)::+ { $($more:tt)* }) => {
        pub(super) mod $module {
            use super::{Connection, Refused, Resource, Rows, Value, View};

            mod generated {
                wasmtime::component::bindgen!({
                    path: $wit,
                    world: "host",
                    imports: { default: async | trappable },
                    with: { $resource: crate::sandbox::sqlite::Connection },
                });
            }

            pub(super) use generated::$($path)::+ as wit;
            pub(in crate::sandbox) use wit::add_to_linker;

            impl From<Refused> for wit::Error {
                fn from(refused: Refused) -> Self {
                    match refused {
                        Refused::NoSuchDatabase => Self::NoSuchDatabase,
                        Refused::AccessDenied => Self::AccessDenied,
                        Refused::Full => Self::DatabaseFull,
                        Refused::Io(message) => Self::Io(message),
                    }
                }
            }

            impl From<wit::Value> for Value {
                fn from(value: wit::Value) -> Self {
                    match value {
                        wit::Value::Integer(number) => Self::Integer(number),
                        wit::Value::Real(number) => Self::Real(number),
                        wit::Value::Text(text) => Self::Text(text),
                        wit::Value::Blob(bytes) => Self::Blob(bytes),
                        wit::Value::Null => Self::Null,
                    }
                }
            }

            impl From<Value> for wit::Value {
                fn from(value: Value) -> Self {
                    match value {
                        Value::Integer(number) => Self::Integer(number),
                        Value::Real(number) => Self::Real(number),
                        Value::Text(text) => Self::Text(text),
                        Value::Blob(bytes) => Self::Blob(bytes),
                        Value::Null => Self::Null,
                    }
                }
            }

            impl From<Rows> for wit::QueryResult {
                fn from(rows: Rows) -> Self {
                    let row = |row: Vec<Value>| wit::RowResult { values: row.into_iter().map(Into::into).collect() };
                    Self { columns: rows.columns, rows: rows.rows.into_iter().map(row).collect() }
                }
            }

            impl wit::Host for View<'_> {}

            impl wit::HostConnection for View<'_> {
                async fn open(&mut self, name: String) -> wasmtime::Result<Result<Resource<Connection>, wit::Error>> {
                    Ok(View::open(self, &name).await?.map_err(Into::into))
                }

                async fn execute(
                    &mut self,
                    connection: Resource<Connection>,
                    statement: String,
                    parameters: Vec<wit::Value>,
                ) -> wasmtime::Result<Result<wit::QueryResult, wit::Error>> {
                    let parameters = parameters.into_iter().map(Into::into).collect();
                    let rows = View::execute(self, &connection, statement, parameters).await?;
                    Ok(rows.map(Into::into).map_err(Into::into))
                }

                async fn drop(&mut self, connection: Resource<Connection>) -> wasmtime::Result<()> {
                    self.table.delete(connection)?;
                    Ok(())
                }

                $($more)*
            }
        }
    };
}

interface!(v2, "wit/fermyon-spin.wit", "fermyon:spin/sqlite.connection", fermyon::spin::sqlite {});

macro_rules! interface_3 {
    ($module:ident, $wit:literal) => {
        interface!($module, $wit, "spin:sqlite/sqlite.connection", spin::sqlite::sqlite {
            async fn last_insert_rowid(&mut self, _: Resource<Connection>) -> wasmtime::Result<i64> {
                Ok(self.calls.lease().await.last_insert_rowid())
            }

            async fn changes(&mut self, _: Resource<Connection>) -> wasmtime::Result<u64> {
                Ok(self.calls.lease().await.changes())
            }
        });
    };
}

// An import of 3.1 that calls nothing asynchronous is served by 3.0, and an import of 3.0 by 3.1: 0.2 has the one,
// 0.3 the other.
interface_3!(v3_0, "wit/spin-sqlite.wit");
interface_3!(v3_1, "wit/spin-sqlite-3.1.wit");
