//! A guest that uses, on request, what of the SDK reaches the host. The rest is tested beside the SDK itself.

use dormouse_sdk::{
    Database, DatabaseError, Error, Json, Request, RequestExt, Response, Result, Router, StatusCode, fetch,
    function, http, log, named, secret, variable,
};
use serde_json::{Value, json};

#[function]
fn handle(request: Request) -> Response {
    Router::new()
        .get("/told/{*rest}", told)
        .get("/log", write_log)
        .get("/variable/{name}", read_variable)
        .get("/fetch", |request| outgoing(request).unwrap_or_else(|error| error.to_string()))
        .get("/fetch-and-fail", outgoing)
        .get("/fail", || Err::<(), _>(Error::internal("the till is empty")))
        .get("/errors", errors)
        .get("/rolled-back", rolled_back)
        .post("/multipart", multipart)
        .post("/count", count)
        .post("/echo", Request::into_body)
        .handle(request)
}

/// What the host says of the request.
fn told(request: Request) -> Json<Value> {
    Json(json!({ "id": request.id(), "link": request.link("/a"), "url": request.url("/a") }))
}

/// A variable, as a text and as a secret that only what the caller offers is compared with.
fn read_variable(request: Request) -> Result<Json<Value>> {
    let name: String = request.param("name")?;
    let offered = request.bearer_token().unwrap_or_default();
    let is_offered = secret(&name)?.matches(offered);
    log::info!(secret:? = secret(&name)?; "read a variable");
    Ok(Json(json!({ "value": variable(&name)?, "is_offered": is_offered })))
}

fn write_log(request: Request) {
    log::info!(path = request.uri().path(), answer = 42; "noted");
    log::warn!("odd");
}

/// Sends a body to the address that the query is.
fn outgoing(request: Request) -> Result<String> {
    let to = request.uri().query().unwrap_or("http://example.com/hook");
    Ok(fetch(http::Request::post(to).body("a body")?)?.into_body().text()?)
}

/// Mistakes of every kind that the SDK tells apart, in the words of its types.
fn errors() -> Result<Json<Vec<String>>> {
    let db = Database::open()?;
    db.execute("CREATE TABLE kinds (a INTEGER PRIMARY KEY, b INTEGER NOT NULL CHECK (b > 0)) STRICT", ())?;
    db.execute("INSERT INTO kinds VALUES (1, 1)", ())?;
    let kind = |sql: &str| match db.execute(sql, ()) {
        Ok(_) => "no error".to_owned(),
        Err(DatabaseError::Constraint(constraint, what)) => format!("{constraint}: {what}"),
        Err(error) => format!("{error:?}"),
    };
    let statements = [
        "INSERT INTO kinds VALUES (1, 1)",
        "INSERT INTO kinds VALUES (2, NULL)",
        "INSERT INTO kinds VALUES (2, 0)",
        "INSERT INTO kinds VALUES (2, 'text')",
        "SELECT * FROM nowhere",
        "ATTACH 'x' AS y",
        "SELECT zeroblob(2000000)",
        "COMMIT",
        "SELEKT",
        "SELECT c FROM kinds",
        "SELECT CAST(x'ff' AS TEXT) AS t",
    ];
    Ok(Json(statements.map(kind).into()))
}

fn rolled_back() -> Result<Json<i64>> {
    let db = Database::open()?;
    db.execute("CREATE TABLE IF NOT EXISTS numbers (n INTEGER)", ())?;
    let failed = db.transaction(|db| {
        db.execute("INSERT INTO numbers VALUES (:n)", named! { n: 7 })?;
        Err::<(), _>(Error::status(StatusCode::CONFLICT, "no"))
    });
    log::debug!(failed = failed.is_err(); "tried");
    Ok(Json(db.query_scalar("SELECT count(*) FROM numbers", ())?))
}

fn multipart(request: Request) -> Result<Json<Value>> {
    let form = request.multipart()?;
    let fields = form.fields().map(|field| json!([field.name(), field.file_name(), field.bytes().len()]));
    Ok(Json(fields.collect()))
}

/// Reads a body piece by piece and keeps none.
fn count(request: Request) -> Result<String> {
    let pieces = request.into_body().chunks();
    let bytes = pieces.map(|piece| piece.map(|piece| piece.len())).sum::<Result<usize, _>>()?;
    Ok(bytes.to_string())
}
