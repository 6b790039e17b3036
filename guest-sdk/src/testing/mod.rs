//! Testing a function without a server: its handler runs in the test's own process.
//!
//! A [`Tenant`] is what the host gives a function: an in-memory database, variables, the log, and whatever answers its
//! outgoing requests. A plain `cargo test` runs such tests.
//!
//! ```
//! use dormouse_sdk::testing::{Tenant, TestRequest};
//! use dormouse_sdk::{Database, Request, Result, function};
//!
//! #[function]
//! fn count(request: Request) -> Result<String> {
//!     let db = Database::open()?;
//!     db.execute("INSERT INTO visits (path) VALUES (?)", [request.uri().path()])?;
//!     Ok(format!("{} visits\n", db.query_scalar::<i64>("SELECT count(*) FROM visits", ())?))
//! }
//!
//! let tenant = Tenant::new();
//! tenant.database().execute("CREATE TABLE visits (path TEXT)", ())?;
//! assert_eq!(tenant.call(count, TestRequest::get("/a")).text(), "1 visits\n");
//! assert_eq!(tenant.call(count, TestRequest::get("/b")).text(), "2 visits\n");
//! # Ok::<(), dormouse_sdk::DatabaseError>(())
//! ```
//!
//! The database is the SQLite that the server uses, with its limits and error texts. What is not here: the server's list
//! of allowed statements and functions, its clocks, and other requests at the same time.
//!
//! Async handlers are run by `Tenant::call_async`, with the feature `async`.

#[cfg(feature = "async")]
pub(crate) mod asynchronous;
mod request;
mod response;
mod session;
mod sqlite;
mod tenant;

pub use self::request::TestRequest;
pub use self::response::TestResponse;
pub(crate) use self::session::{Connection, Found};
pub use self::tenant::Tenant;
pub(crate) use self::tenant::{log, send, variable};
use crate::BodyError;

/// A body that arrives in pieces.
pub(crate) struct Incoming(std::vec::IntoIter<Vec<u8>>);

impl Incoming {
    /// How many bytes are to come is not known, as with a chunked body.
    pub(crate) fn remaining(&self) -> Option<u64> {
        None
    }

    pub(crate) fn read(&mut self) -> Result<Option<Vec<u8>>, BodyError> {
        Ok(self.0.find(|chunk| !chunk.is_empty()))
    }
}
