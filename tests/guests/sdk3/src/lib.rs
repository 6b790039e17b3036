//! A guest that uses, on request, what of the asynchronous SDK reaches the host.

use std::future::{pending, poll_fn};
use std::pin::pin;
use std::task::Poll;

use dormouse_sdk::asynchronous::{Body, Database, Request, Router, fetch, spawn};
use dormouse_sdk::{Error, Json, Response, Result, StatusCode, function, http, named, variable};
use serde::{Deserialize, Serialize};

const CREATE: &str = "CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY, item TEXT NOT NULL)";

#[derive(Deserialize, Serialize)]
struct Order {
    #[serde(default)]
    id: i64,
    item: String,
}

#[function]
async fn handle(request: Request) -> Response {
    Router::new()
        .post("/orders", order)
        .post("/form", async |request: Request| request.into_body().form::<Order>().await.map(Json))
        .get("/orders", orders)
        .get("/variable", async || variable("greeting").unwrap_or_else(|error| error.to_string()))
        .get("/fail", async || Err::<(), _>(Error::internal("the till is empty")))
        .get("/mistake", async || {
            Ok::<_, Error>(Database::open().await?.execute("SELEKT", ()).await?.to_string())
        })
        .get("/rolled-back", rolled_back)
        .get("/given-up", given_up)
        .get("/given-up-at-once", given_up_at_once)
        .get("/after", after)
        .get("/breaks-off", breaks_off)
        .get("/fetch", outgoing)
        .post("/echo", async |request: Request| request.into_body())
        .post("/upper", upper)
        .post("/given-up-read", given_up_read)
        .handle(request)
        .await
}

async fn open() -> Result<Database> {
    let db = Database::open().await?;
    db.execute(CREATE, ()).await?;
    Ok(db)
}

async fn order(request: Request) -> Result<(StatusCode, Json<Order>)> {
    let Order { item, .. } = request.into_body().json().await?;
    let db = open().await?;
    let order = db
        .transaction(async |db| {
            db.execute("INSERT INTO orders (item) VALUES (:item)", named! { item: item }).await?;
            let id = db.last_insert_rowid().await;
            Ok(db.query_one("SELECT * FROM orders WHERE id = ?", [id]).await?)
        })
        .await?;
    Ok((StatusCode::CREATED, Json(order)))
}

/// A line for each row, each sent when it is read.
async fn orders() -> Result<Body> {
    let mut rows = open().await?.query("SELECT id, item FROM orders ORDER BY id", ()).await?;
    Ok(Body::stream(async move |out| {
        while let Some((id, item)) = rows.next_as::<(i64, String)>().await? {
            out.write(format!("{id} {item}\n")).await;
        }
        Ok(())
    }))
}

async fn count(db: &Database) -> Result<Json<i64>> {
    Ok(Json(db.query_scalar("SELECT count(*) FROM orders", ()).await?))
}

async fn insert(db: &Database, item: &str) -> Result<()> {
    db.execute("INSERT INTO orders (item) VALUES (?)", [item]).await?;
    Ok(())
}

async fn rolled_back() -> Result<Json<i64>> {
    let db = open().await?;
    let failed = db.transaction(async |db| {
        insert(db, "rolled back").await?;
        Err::<(), _>(Error::status(StatusCode::CONFLICT, "no"))
    });
    failed.await.err().ok_or_else(|| Error::internal("the work did not fail"))?;
    count(&db).await
}

/// A transaction of which only the beginning is awaited.
async fn given_up() -> Result<Json<i64>> {
    let db = open().await?;
    let inserted = std::cell::Cell::new(false);
    {
        let mut working = pin!(db.transaction(async |db| {
            insert(db, "given up").await?;
            inserted.set(true);
            pending::<Result<()>>().await
        }));
        poll_fn(|context| {
            let polled = working.as_mut().poll(context);
            if inserted.get() || polled.is_ready() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
    count(&db).await
}

/// Polls a future once, then drops it.
async fn give_up(future: impl Future) {
    let mut future = pin!(future);
    poll_fn(|context| {
        let _ = future.as_mut().poll(context);
        Poll::Ready(())
    })
    .await;
}

/// A transaction that is given up while it begins, and a statement that is none of it.
async fn given_up_at_once() -> Result<()> {
    let db = open().await?;
    give_up(db.transaction(async |_| pending::<Result<()>>().await)).await;
    insert(&db, "kept").await
}

async fn after() -> &'static str {
    spawn(async {
        if let Ok(db) = open().await {
            let _ = insert(&db, "after the response").await;
        }
    });
    "answered"
}

async fn breaks_off() -> Body {
    Body::stream(async |out| {
        out.write("the beginning").await;
        Err(Error::internal("the ink is empty"))
    })
}

/// Sends a body to the address that the query is.
async fn outgoing(request: Request) -> Result<String> {
    let to = request.uri().query().unwrap_or("http://example.com/hook");
    match fetch(http::Request::post(to).body("a body")?).await {
        Ok(response) => Ok(response.into_body().text().await?),
        Err(error) => Ok(error.to_string()),
    }
}

/// Sends every piece back in capitals, as soon as it arrives.
async fn upper(request: Request) -> Body {
    let mut body = request.into_body();
    Body::stream(async move |out| {
        while let Some(chunk) = body.read_chunk().await? {
            out.write(chunk.to_ascii_uppercase()).await;
        }
        Ok(())
    })
}

/// Reads on after a read that was given up.
async fn given_up_read(request: Request) -> Result<()> {
    let mut body = request.into_body();
    give_up(body.read_chunk()).await;
    body.read_chunk().await?;
    Ok(())
}
