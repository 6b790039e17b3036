//! Write Dormouse functions in Rust.
//!
//! A function is a WebAssembly component that answers HTTP requests. With this crate it is a Rust function:
//!
//! ```
//! use dormouse_sdk::{Database, Json, Request, Result, function};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Deserialize)]
//! struct Order { item: String, quantity: u32 }
//!
//! #[derive(Serialize)]
//! struct Receipt { id: i64, open_orders: u64 }
//!
//! #[function]
//! fn handle(request: Request) -> Result<Json<Receipt>> {
//!     let order: Order = request.into_body().json()?;
//!     let db = Database::open()?;
//!     db.transaction(|db| {
//!         db.execute("INSERT INTO orders (item, quantity) VALUES (?, ?)", (order.item, order.quantity))?;
//!         let id = db.last_insert_rowid();
//!         let open_orders = db.query_scalar("SELECT count(*) FROM orders WHERE shipped = 0", ())?;
//!         Ok(Json(Receipt { id, open_orders }))
//!     })
//! }
//!
//! # use dormouse_sdk::testing::{Tenant, TestRequest};
//! # let tenant = Tenant::new();
//! # let table = "CREATE TABLE orders (id INTEGER PRIMARY KEY, item, quantity, shipped DEFAULT 0)";
//! # tenant.database().execute(table, ())?;
//! # let order = serde_json::json!({ "item": "cheese", "quantity": 2 });
//! # let response = tenant.call(handle, TestRequest::post("/").json(&order));
//! # assert_eq!(response.text(), r#"{"id":1,"open_orders":1}"#);
//! # Ok::<(), dormouse_sdk::DatabaseError>(())
//! ```
//!
//! Build it with `cargo build --release --target wasm32-wasip2` as a `cdylib`. The component speaks only standard
//! interfaces, `wasi:http`, `spin:sqlite` and `fermyon:spin/variables`, and asks its host only for those that it uses.
//! So it runs under Dormouse, under Spin, and (without a database) under `wasmtime serve`.
//!
//! - [`function`] names the handler. It returns anything that is [`IntoResponse`].
//! - [`Request`] and [`Response`] are those of the [`http`] crate, with a [`Body`] that is read as it arrives.
//!   [`RequestExt`] reads queries, path parameters, cookies and forms; [`Router`] chooses between handlers.
//! - [`Html`], [`Json`], [`Redirect`] and texts are responses; [`IntoResponse`] adds a status, headers and cookies.
//! - [`Error`] takes any error with `?`. The caller learns nothing of it but a status; the log learns everything.
//! - [`Database`] is the tenant's own SQLite database.
//! - [`variable`] and [`secret`] give what the operator set, [`fetch`] sends a request elsewhere.
//! - [`log`] writes structured events. What a function prints otherwise goes to the same log, as plain lines.
//! - `asynchronous`, with the feature `async`, is for handlers that are `async fn`s: several things at once, bodies that
//!   are written while they are sent, and work after the response.
//! - [`testing`] runs a handler in a plain `cargo test`, without a server.

#[cfg(feature = "async")]
pub mod asynchronous;
mod body;
mod database;
mod error;
mod fetch;
mod form;
mod html;
pub mod log;
mod request;
mod response;
mod router;
#[cfg(not(target_family = "wasm"))]
pub mod testing;
mod variables;
#[cfg(target_family = "wasm")]
mod wasi;
#[cfg(all(feature = "async", target_family = "wasm"))]
mod wasi3;

pub use body::{Body, BodyError};
pub use cookie;
pub use database::{
    ColumnIndex, Constraint, Database, DatabaseError, Named, Params, Row, RowError, Rows, Value,
};
pub use dormouse_sdk_macro::function;
pub use error::{Error, Result};
pub use fetch::{FetchError, fetch};
pub use form::{Field, Multipart};
pub use html::Escaped;
pub use http::{self, HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
pub use request::{RequestError, RequestExt};
pub use response::{Html, IntoResponse, Json, Redirect};
pub use router::{Handler, Router};
pub use variables::{Secret, VariableError, secret, variable};

/// What answers the SDK's calls: the host of a component, or what stands in its place in a test.
mod host {
    #[cfg(not(target_family = "wasm"))]
    pub(crate) use crate::testing::{Connection, Found, Incoming, log, send, variable};
    #[cfg(target_family = "wasm")]
    pub(crate) use crate::wasi::{Connection, Found, Incoming, log, send, variable};

    /// The same for async handlers.
    #[cfg(feature = "async")]
    pub(crate) mod asynchronous {
        #[cfg(not(target_family = "wasm"))]
        pub(crate) use crate::testing::asynchronous::{Connection, Found, Incoming, send, spawn};
        #[cfg(target_family = "wasm")]
        pub(crate) use crate::wasi3::{Connection, Found, Incoming, send, spawn};
    }
}

/// An incoming request.
///
/// ```
/// use dormouse_sdk::{Request, RequestExt};
///
/// fn handle(request: Request) -> String {
///     format!("{} {} ({})", request.method(), request.uri().path(), request.id())
/// }
/// ```
pub type Request = http::Request<Body>;

/// An outgoing response.
///
/// ```
/// use dormouse_sdk::{Body, Response};
///
/// fn handle() -> Response {
///     Response::new(Body::from("raw"))
/// }
/// ```
pub type Response = http::Response<Body>;

/// The code in the repository's guides, as tests.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
#[doc = include_str!("../../docs/functions.md")]
struct Guides;

/// What the expansion of [`function`] needs. Not part of the interface.
#[doc(hidden)]
pub mod __private {
    #[cfg(target_family = "wasm")]
    pub use crate::wasi::{respond, serve};
    #[cfg(target_family = "wasm")]
    pub use wasip2;
    #[cfg(target_family = "wasm")]
    pub use wasip2::exports::http::incoming_handler::Guest;
    #[cfg(target_family = "wasm")]
    pub use wasip2::http::proxy::export;
    #[cfg(target_family = "wasm")]
    pub use wasip2::http::types::{IncomingRequest, ResponseOutparam};

    /// Without a host nothing calls a handler, but what it takes and returns is checked all the same.
    #[cfg(not(target_family = "wasm"))]
    pub const fn check_handler<T: crate::IntoResponse>(_: fn(crate::Request) -> T) {}

    /// The same for a handler that takes nothing.
    #[cfg(not(target_family = "wasm"))]
    pub const fn check_simple_handler<T: crate::IntoResponse>(_: fn() -> T) {}

    /// The same for async handlers.
    #[cfg(feature = "async")]
    pub mod asynchronous {
        #[cfg(target_family = "wasm")]
        pub use wasip3;
        #[cfg(target_family = "wasm")]
        pub use wasip3::exports::http::handler::Guest;
        #[cfg(target_family = "wasm")]
        pub use wasip3::http::service::export;
        #[cfg(target_family = "wasm")]
        pub use wasip3::http::types::{ErrorCode, Request, Response};

        #[cfg(target_family = "wasm")]
        pub use crate::wasi3::{respond, serve};

        /// Checks a handler.
        #[cfg(not(target_family = "wasm"))]
        pub const fn check_handler<F, T>(_: fn(crate::asynchronous::Request) -> F)
        where
            F: Future<Output = T>,
            T: crate::IntoResponse,
        {
        }

        /// Checks a handler that takes nothing.
        #[cfg(not(target_family = "wasm"))]
        pub const fn check_simple_handler<F: Future<Output = T>, T: crate::IntoResponse>(_: fn() -> F) {}
    }
}
