//! What the host gives a function, without a host.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::{self, Debug, Formatter};
use std::rc::Rc;

use super::session::{Connection, Session};
use super::{TestRequest, TestResponse};
use crate::{Database, DatabaseError, FetchError, Handler, IntoResponse, Request, Response, VariableError};

/// What answers outgoing requests.
type Upstream = Box<dyn Fn(Request) -> Response>;

/// A tenant of its own for a test: an empty in-memory database, variables, a log, and what answers outgoing requests.
///
/// ```
/// use dormouse_sdk::testing::{Tenant, TestRequest};
/// use dormouse_sdk::{Result, variable};
///
/// fn greet() -> Result<String> {
///     Ok(variable("greeting")?)
/// }
///
/// let tenant = Tenant::new().with_variable("greeting", "Moin");
/// assert_eq!(tenant.call(greet, TestRequest::get("/")).text(), "Moin");
/// ```
#[derive(Debug, Clone)]
pub struct Tenant(Rc<World>);

struct World {
    session: Rc<Session>,
    variables: RefCell<BTreeMap<String, String>>,
    upstream: RefCell<Option<Upstream>>,
    log: RefCell<Vec<String>>,
}

impl Debug for World {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").field("variables", &self.variables).field("log", &self.log).finish()
    }
}

thread_local! {
    /// The tenants whose functions run on this thread, the innermost one last.
    static CURRENT: RefCell<Vec<Rc<World>>> = const { RefCell::new(Vec::new()) };
}

fn current() -> Option<Rc<World>> {
    CURRENT.with_borrow(|worlds| worlds.last().cloned())
}

impl Default for Tenant {
    fn default() -> Self {
        Self::new()
    }
}

impl Tenant {
    /// A tenant with an empty database and no variables, on a node that denies outgoing requests.
    ///
    /// # Panics
    ///
    /// If SQLite cannot start.
    ///
    /// ```
    /// let tenant = dormouse_sdk::testing::Tenant::new();
    /// assert_eq!(tenant.database().query_scalar::<i64>("SELECT count(*) FROM sqlite_schema", ())?, 0);
    /// # Ok::<(), dormouse_sdk::DatabaseError>(())
    /// ```
    #[must_use]
    #[expect(clippy::panic, reason = "a test without a database ends")]
    pub fn new() -> Self {
        let session = Session::open().unwrap_or_else(|error| panic!("no database for the test: {error}"));
        Self(Rc::new(World {
            session: Rc::new(session),
            variables: RefCell::default(),
            upstream: RefCell::default(),
            log: RefCell::default(),
        }))
    }

    /// Sets a variable or a secret.
    ///
    /// ```
    /// let tenant = dormouse_sdk::testing::Tenant::new().with_variable("token", "s3cret");
    /// assert!(tenant.enter(|| dormouse_sdk::secret("token").unwrap().matches("s3cret")));
    /// ```
    #[must_use]
    pub fn with_variable(self, name: &str, value: &str) -> Self {
        self.0.variables.borrow_mut().insert(name.to_owned(), value.to_owned());
        self
    }

    /// Answers outgoing requests. Without it they are denied.
    ///
    /// ```
    /// use dormouse_sdk::testing::Tenant;
    /// use dormouse_sdk::{fetch, http};
    ///
    /// let tenant = Tenant::new().with_upstream(|_request| "42");
    /// let answer = tenant.enter(|| fetch(http::Request::get("https://example.com/").body(()).unwrap()))?;
    /// assert_eq!(answer.into_body().text().unwrap(), "42");
    /// # Ok::<(), dormouse_sdk::FetchError>(())
    /// ```
    #[must_use]
    pub fn with_upstream<T: IntoResponse>(self, answer: impl Fn(Request) -> T + 'static) -> Self {
        *self.0.upstream.borrow_mut() = Some(Box::new(move |request| answer(request).into_response()));
        self
    }

    /// Runs a handler for a request, as the host does: what its transaction leaves open is rolled back at its end.
    ///
    /// ```
    /// use dormouse_sdk::Request;
    /// use dormouse_sdk::testing::{Tenant, TestRequest};
    ///
    /// fn handle(request: Request) -> String {
    ///     format!("You asked for {}", request.uri().path())
    /// }
    ///
    /// let response = Tenant::new().call(handle, TestRequest::get("/cards"));
    /// assert_eq!(response.text(), "You asked for /cards");
    /// ```
    pub fn call<A>(&self, handler: impl Handler<A>, request: TestRequest) -> TestResponse {
        let response = self.enter(|| handler.call(request.into()));
        self.0.session.end_request();
        TestResponse::new(response)
    }

    /// Runs an async handler for a request, the tasks that it [starts](crate::asynchronous::spawn) and what writes its
    /// response, all to their end.
    ///
    /// ```
    /// use dormouse_sdk::Result;
    /// use dormouse_sdk::asynchronous::Request;
    /// use dormouse_sdk::testing::{Tenant, TestRequest};
    ///
    /// async fn handle(request: Request) -> Result<String> {
    ///     Ok(format!("You sent {}", request.into_body().text().await?))
    /// }
    ///
    /// let response = Tenant::new().call_async(handle, TestRequest::post("/cards").body("a card"));
    /// assert_eq!(response.text(), "You sent a card");
    /// ```
    #[cfg(feature = "async")]
    pub fn call_async<A>(
        &self,
        handler: impl crate::asynchronous::Handler<A>,
        request: TestRequest,
    ) -> TestResponse {
        let response =
            self.enter_async(async { TestResponse::read(handler.call(request.into()).await).await });
        self.0.session.end_request();
        response
    }

    /// Runs any async code that uses the SDK as this tenant, and the tasks that it starts.
    ///
    /// ```
    /// use dormouse_sdk::asynchronous::Database;
    ///
    /// let one = dormouse_sdk::testing::Tenant::new().enter_async(async {
    ///     Database::open().await?.query_scalar::<i64>("SELECT 1", ()).await
    /// });
    /// assert_eq!(one, Ok(1));
    /// ```
    #[cfg(feature = "async")]
    pub fn enter_async<T>(&self, work: impl Future<Output = T>) -> T {
        self.enter(|| super::asynchronous::run(work))
    }

    /// Runs any code that uses the SDK as this tenant.
    ///
    /// ```
    /// use dormouse_sdk::Database;
    ///
    /// let one = dormouse_sdk::testing::Tenant::new().enter(|| {
    ///     Database::open()?.query_scalar::<i64>("SELECT 1", ())
    /// });
    /// assert_eq!(one, Ok(1));
    /// ```
    pub fn enter<T>(&self, work: impl FnOnce() -> T) -> T {
        /// Leaves the tenant also when the test panics.
        struct Leave;

        impl Drop for Leave {
            fn drop(&mut self) {
                CURRENT.with_borrow_mut(Vec::pop);
            }
        }

        CURRENT.with_borrow_mut(|worlds| worlds.push(Rc::clone(&self.0)));
        let _leave = Leave;
        work()
    }

    /// The tenant's database, to fill it before a call and to look at it after one.
    ///
    /// ```
    /// let db = dormouse_sdk::testing::Tenant::new().database();
    /// db.execute("CREATE TABLE cards (id INTEGER PRIMARY KEY)", ())?;
    /// # Ok::<(), dormouse_sdk::DatabaseError>(())
    /// ```
    #[must_use]
    pub fn database(&self) -> Database {
        Database::on(Connection::of(&self.0.session))
    }

    /// What was logged so far with [`log`](crate::log), one JSON object for each line.
    ///
    /// ```
    /// let tenant = dormouse_sdk::testing::Tenant::new();
    /// tenant.enter(|| dormouse_sdk::log::warn!(left = 3; "soon sold out"));
    /// assert_eq!(tenant.logs()[0]["left"], 3);
    /// ```
    #[must_use]
    pub fn logs(&self) -> Vec<serde_json::Value> {
        self.0.log.borrow().iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}

impl Connection {
    /// The database of the tenant that runs.
    pub(crate) fn open() -> Result<Self, DatabaseError> {
        let outside =
            "there is no database outside of a tenant: use `dormouse_sdk::testing::Tenant::call` or `enter`";
        let world = current().ok_or_else(|| DatabaseError::Statement(outside.to_owned()))?;
        Ok(Self::of(&world.session))
    }
}

/// A variable of the tenant that runs.
pub(crate) fn variable(name: &str) -> Result<String, VariableError> {
    let value = current().and_then(|world| world.variables.borrow().get(name).cloned());
    value.ok_or_else(|| VariableError::Undefined(name.to_owned()))
}

/// Lets the tenant's upstream answer.
pub(crate) fn send(request: Request) -> Result<Response, FetchError> {
    let authority = request.uri().authority().map_or_else(String::new, ToString::to_string);
    let world = current().ok_or_else(|| FetchError::Denied(authority.clone()))?;
    match &*world.upstream.borrow() {
        Some(answer) => Ok(answer(request).map(crate::Body::of_fetched)),
        None => Err(FetchError::Denied(authority)),
    }
}

/// Keeps a line for the test, and shows it if the test fails.
pub(crate) fn log(line: &str) {
    eprint!("{line}");
    if let Some(world) = current() {
        world.log.borrow_mut().push(line.to_owned());
    }
}
