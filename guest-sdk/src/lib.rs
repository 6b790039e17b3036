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
//!         let open_orders = db.query_one("SELECT count(*) FROM orders WHERE shipped = 0", ())?;
//!         Ok(Json(Receipt { id, open_orders }))
//!     })
//! }
//! ```
//!
//! Build it with `cargo build --release --target wasm32-wasip2` as a `cdylib`. The component speaks only standard
//! interfaces, `wasi:http` and `spin:sqlite`, so it runs under Dormouse, under Spin, and (without a database) under
//! `wasmtime serve`.
//!
//! - [`function`] names the handler. It returns anything that is [`IntoResponse`].
//! - [`Request`] and [`Response`] are those of the [`http`] crate, with a [`Body`] that is read as it arrives.
//! - [`Error`] takes any error with `?`. The caller learns nothing of it but a status; the log learns everything.
//! - [`Database`] is the tenant's own SQLite database.
//!
//! What a function prints on its standard output and error goes to its log.

mod bindings;
mod body;
mod database;
mod error;
mod params;
mod response;
mod row;
mod serve;

pub use body::{Body, BodyError};
pub use database::{Database, DatabaseError};
pub use dormouse_sdk_macro::function;
pub use error::{Error, Result};
pub use http::{self, HeaderValue, Method, StatusCode, header};
pub use params::{Params, Value};
pub use response::{Html, IntoResponse, Json};
pub use row::{ColumnIndex, Row, RowError};

/// An incoming request.
pub type Request = http::Request<Body>;

/// An outgoing response.
pub type Response = http::Response<Body>;

/// What the expansion of [`function`] needs. Not part of the interface.
#[doc(hidden)]
pub mod __private {
    pub use crate::serve::{respond, serve};
    pub use wasip2;
    pub use wasip2::exports::http::incoming_handler::Guest;
    pub use wasip2::http::proxy::export;
    pub use wasip2::http::types::{IncomingRequest, ResponseOutparam};
}
