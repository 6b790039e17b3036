//! What a tenant's own program could cost at best: hyper and libsql in one process, every tenant's database open for
//! good, every insert on disk before the answer. There is no sandbox, and what is a tenant's is anybody's.

use std::{
    collections::HashMap,
    convert::Infallible,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, Result, bail};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Method, Request, Response, StatusCode, body::Bytes, body::Incoming, server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use libsql::{Builder, Connection, Row, params};
use serde_json::{Value, json};
use tokio::{net::TcpListener, runtime::Handle, task::spawn_blocking};

const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS entries (id INTEGER PRIMARY KEY, name TEXT NOT NULL, \
                      message TEXT NOT NULL, signed_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ')))";

/// The databases, each of them open from its first request on.
#[derive(Clone)]
struct Server {
    folder: Arc<Path>,
    open: Arc<Mutex<HashMap<String, Arc<Mutex<Connection>>>>>,
}

/// Serves until the process is killed; says where, as one JSON line on stderr.
pub(crate) async fn serve(folder: PathBuf) -> Result<()> {
    let server = Server { folder: folder.into(), open: Arc::default() };
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    eprintln!(r#"{{"message":"listening","public":"{}"}}"#, listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let server = server.clone();
        let service = service_fn(move |request| server.clone().answer(request));
        let connection =
            http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
        // A client that goes away in the middle is the client's affair.
        tokio::spawn(async move { connection.await.unwrap_or_default() });
    }
}

impl Server {
    async fn answer(self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let (status, body) = match self.entries(request).await {
            Ok(answer) => answer,
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, json!({ "error": format!("{error:#}") })),
        };
        let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
        *response.status_mut() = status;
        let json = hyper::header::HeaderValue::from_static("application/json");
        response.headers_mut().insert(hyper::header::CONTENT_TYPE, json);
        Ok(response)
    }

    async fn entries(self, request: Request<Incoming>) -> Result<(StatusCode, Value)> {
        let path = request.uri().path();
        let tenant = path.strip_prefix("/t/").and_then(|rest| rest.strip_suffix("/fn"));
        let tenant = tenant.with_context(|| format!("no tenant: {path}"))?.to_owned();
        let method = request.method().clone();
        let body = request.into_body().collect().await?.to_bytes();
        let handle = Handle::current();
        // libsql's local calls block their thread.
        spawn_blocking(move || {
            let connection = self.connection(&tenant, &handle)?;
            let connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            match method {
                Method::POST => Ok((StatusCode::CREATED, handle.block_on(sign(&connection, &body))?)),
                Method::GET => Ok((StatusCode::OK, handle.block_on(latest(&connection))?)),
                method => bail!("no {method}"),
            }
        })
        .await?
    }

    fn connection(&self, tenant: &str, handle: &Handle) -> Result<Arc<Mutex<Connection>>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(connection) = open.get(tenant) {
            return Ok(connection.clone());
        }
        let path = self.folder.join(format!("{tenant}.db"));
        let connection = handle.block_on(async {
            let connection = Builder::new_local(path).build().await?.connect()?;
            connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL").await?;
            connection.execute(SCHEMA, ()).await?;
            anyhow::Ok(connection)
        })?;
        Ok(open.entry(tenant.to_owned()).or_insert(Arc::new(Mutex::new(connection))).clone())
    }
}

async fn sign(connection: &Connection, body: &[u8]) -> Result<Value> {
    let greeting: Value = serde_json::from_slice(body)?;
    let text = |name: &str| {
        greeting.get(name).and_then(Value::as_str).map(str::to_owned).context("a text is missing")
    };
    let insert = "INSERT INTO entries (name, message) VALUES (?, ?)";
    connection.execute(insert, params![text("name")?, text("message")?]).await?;
    let select = "SELECT id, name, message, signed_at FROM entries WHERE id = ?";
    let mut rows = connection.query(select, [connection.last_insert_rowid()]).await?;
    entry(&rows.next().await?.context("the row is gone")?)
}

async fn latest(connection: &Connection) -> Result<Value> {
    let select = "SELECT id, name, message, signed_at FROM entries ORDER BY id DESC LIMIT 100";
    let mut rows = connection.query(select, ()).await?;
    let mut entries = Vec::new();
    while let Some(row) = rows.next().await? {
        entries.push(entry(&row)?);
    }
    Ok(Value::Array(entries))
}

fn entry(row: &Row) -> Result<Value> {
    Ok(json!({
        "id": row.get::<i64>(0)?,
        "name": row.get::<String>(1)?,
        "message": row.get::<String>(2)?,
        "signed_at": row.get::<String>(3)?,
    }))
}
