//! Requests of the guest's own, and what became of them.

use std::pin::pin;

use serde_json::{Value as Json, json};
use wasip3::http::client;
use wasip3::http::types::{ErrorCode, Fields, Method, Request, RequestOptions, Response, Scheme, Trailers};
use wasip3::wit_bindgen::{FutureReader, StreamReader, spawn_local};
use wasip3::{wit_future, wit_stream};

use crate::concurrent::{all, start};
use crate::url::Url;
use crate::wire::{self, Answer, reply_json};

/// Sends one request, with as large a body as the caller wants, and tells of its response.
pub(crate) async fn one(url: &Url) -> Json {
    match send(url).await {
        Ok(response) => told(response).await,
        Err(code) => failure(&code),
    }
}

/// Sends the same request again and again.
pub(crate) async fn many(url: &Url) -> Json {
    let mut answers = Vec::new();
    for _ in 0..url.number("n") {
        answers.push(one(url).await);
    }
    answers.into()
}

/// Sends the same request several times before it waits for any response, and reads none before all are there.
pub(crate) async fn at_once(url: &Url) -> Json {
    let answers = all((0..url.number("n")).map(|_| send(url))).await;
    let mut told_of = Vec::new();
    for answer in answers {
        told_of.push(match answer {
            Ok(response) => told(response).await,
            Err(code) => failure(&code),
        });
    }
    told_of.into()
}

/// Sends a request and does not wait for its response.
pub(crate) async fn give_up(url: &Url) -> Json {
    let mut sending = pin!(send(url));
    start(sending.as_mut()).await;
    json!("given up")
}

/// Writes, keeps the connection open, and sends a request.
pub(crate) async fn after_write(url: &Url) -> Json {
    let _open = crate::sql::write().await;
    one(url).await
}

/// Sends the body of its request on, and the response back, both as they arrive.
pub(crate) async fn proxy(url: &Url, request: Request) -> Answer {
    let (contents, trailers) = wire::consume(request);
    let sent = match prepare(url, Some(contents), trailers) {
        Ok(request) => client::send(request).await,
        Err(code) => Err(code),
    };
    match sent {
        Ok(response) => {
            let status = response.get_status_code();
            let (_, read) = wit_future::new(|| Ok(()));
            let (contents, trailers) = Response::consume_body(response, read);
            let (back, _) =
                Response::new(wire::fields("application/octet-stream")?, Some(contents), trailers);
            let _ = back.set_status_code(status);
            Ok(back)
        }
        Err(code) => reply_json(&failure(&code)),
    }
}

fn prepare(
    url: &Url,
    contents: Option<StreamReader<u8>>,
    trailers: FutureReader<Result<Option<Trailers>, ErrorCode>>,
) -> Result<Request, ErrorCode> {
    let refused = |()| ErrorCode::HttpRequestUriInvalid;
    let target = url.text("url");
    let (scheme, rest) = target.split_once("://").ok_or(ErrorCode::HttpRequestUriInvalid)?;
    let (authority, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    let scheme = match scheme {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        other => Scheme::Other(other.to_owned()),
    };
    let (request, _) = Request::new(Fields::new(), contents, trailers, options(url));
    let method = url.text("method");
    if !method.is_empty() {
        request.set_method(&Method::Other(method)).map_err(refused)?;
    }
    request.set_scheme(Some(&scheme)).map_err(refused)?;
    request.set_authority(Some(authority)).map_err(refused)?;
    request.set_path_with_query(Some(path)).map_err(refused)?;
    Ok(request)
}

fn options(url: &Url) -> Option<RequestOptions> {
    let options = RequestOptions::new();
    let time = |name| Some(url.number(name)).filter(|ms| *ms > 0).map(|ms| ms * 1_000_000);
    options.set_connect_timeout(time("connect")).ok()?;
    options.set_first_byte_timeout(time("first")).ok()?;
    options.set_between_bytes_timeout(time("between")).ok()?;
    Some(options)
}

async fn send(url: &Url) -> Result<Response, ErrorCode> {
    let (_, no_trailers) = wit_future::new(|| Ok(None));
    let mut missing = url.number("bytes");
    if missing == 0 {
        return client::send(prepare(url, None, no_trailers)?).await;
    }
    let (mut stream, contents) = wit_stream::new();
    let request = prepare(url, Some(contents), no_trailers)?;
    spawn_local(async move {
        while missing > 0 && stream.write_all(vec![b'x'; 4096]).await.is_empty() {
            missing = missing.saturating_sub(4096);
        }
    });
    client::send(request).await
}

async fn told(response: Response) -> Json {
    let status = response.get_status_code();
    let location = response.get_headers().get("location").into_iter().next();
    let (_, read) = wit_future::new(|| Ok(()));
    let (contents, trailers) = Response::consume_body(response, read);
    let bytes = contents.collect().await;
    let error = trailers.await.err().map(|code| format!("{code:?}"));
    json!({
        "status": status,
        "location": location.map(|value| String::from_utf8_lossy(&value).into_owned()),
        "bytes": bytes.len(),
        "body": String::from_utf8_lossy(bytes.get(..bytes.len().min(2_000)).unwrap_or_default()),
        "body_error": error,
    })
}

fn failure(code: &ErrorCode) -> Json {
    json!({ "error": format!("{code:?}") })
}
