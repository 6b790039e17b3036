//! What an async handler uses: the same as any other, with `.await` where something is read, sent or asked for.
//!
//! A handler that is an `async fn` is a component of the 0.3 world of WASI (`wasi:http/handler@0.3` and
//! `spin:sqlite@3.1.0`). It can do several things at once, write a body while it is sent, and go on after the response.
//! It needs the feature `async`. Everything that neither reads, sends nor asks is the same as elsewhere: responses,
//! errors, parameters and rows, headers, variables, the log.
//!
//! ```
//! use dormouse_sdk::asynchronous::{Database, Request, spawn};
//! use dormouse_sdk::{Json, Result, function, log};
//!
//! #[derive(serde::Deserialize)]
//! struct Order { item: String }
//!
//! #[function]
//! async fn handle(request: Request) -> Result<Json<i64>> {
//!     let order: Order = request.into_body().json().await?;
//!     let db = Database::open().await?;
//!     let id = db
//!         .transaction(async |db| {
//!             db.execute("INSERT INTO orders (item) VALUES (?)", [order.item]).await?;
//!             Ok(db.last_insert_rowid().await)
//!         })
//!         .await?;
//!     spawn(async move {
//!         let packed = db.execute("UPDATE orders SET packed = 1 WHERE id = ?", [id]).await;
//!         log::info!(id = id, packed = packed.is_ok(); "after the response");
//!     });
//!     Ok(Json(id))
//! }
//!
//! # use dormouse_sdk::testing::{Tenant, TestRequest};
//! # let tenant = Tenant::new();
//! # tenant.database().execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, item, packed DEFAULT 0)", ())?;
//! # let order = TestRequest::post("/").json(&serde_json::json!({ "item": "cheese" }));
//! # assert_eq!(tenant.call_async(handle, order).text(), "1");
//! # assert_eq!(tenant.database().query_scalar::<i64>("SELECT packed FROM orders", ())?, 1);
//! # Ok::<(), dormouse_sdk::DatabaseError>(())
//! ```
//!
//! A handler may return [`Response`](crate::Response) or any other [`IntoResponse`](crate::IntoResponse); a [`Body`] is
//! one, and can be a part of one.

pub use crate::body::asynchronous::{Body, Writer};
pub use crate::database::asynchronous::{Database, Rows};
pub use crate::fetch::asynchronous::fetch;
use crate::host;
pub use crate::router::asynchronous::{Handler, Router};

/// An incoming request. [`RequestExt`](crate::RequestExt) reads its head.
///
/// ```
/// use dormouse_sdk::RequestExt;
/// use dormouse_sdk::asynchronous::Request;
///
/// async fn handle(request: Request) -> String {
///     format!("{} {} ({})", request.method(), request.uri().path(), request.id())
/// }
/// ```
pub type Request = http::Request<Body>;

/// Starts a task that runs beside the handler and may outlive it: the caller gets the response, and the task goes on
/// until it ends or the time of the request is over.
///
/// Its statements share the session of the request, so a transaction that is open includes them.
///
/// ```
/// use dormouse_sdk::asynchronous::{Database, spawn};
/// use dormouse_sdk::function;
///
/// #[function]
/// async fn handle() -> &'static str {
///     spawn(async {
///         if let Ok(db) = Database::open().await {
///             let _ = db.execute("INSERT INTO visits VALUES (1)", ()).await;
///         }
///     });
///     "Thank you"
/// }
///
/// # use dormouse_sdk::testing::{Tenant, TestRequest};
/// # let tenant = Tenant::new();
/// # tenant.database().execute("CREATE TABLE visits (n)", ())?;
/// assert_eq!(tenant.call_async(handle, TestRequest::get("/")).text(), "Thank you");
/// assert_eq!(tenant.database().query_scalar::<i64>("SELECT count(*) FROM visits", ())?, 1);
/// # Ok::<(), dormouse_sdk::DatabaseError>(())
/// ```
pub fn spawn(task: impl Future<Output = ()> + 'static) {
    host::asynchronous::spawn(task);
}
