//! Requests of the guest's own, and what became of them.

use serde_json::{Value as Json, json};
use wasip2::http::outgoing_handler::handle;
use wasip2::http::types::{
    ErrorCode, Fields, FutureIncomingResponse, IncomingRequest, IncomingResponse, Method, OutgoingBody,
    OutgoingRequest, RequestOptions, ResponseOutparam, Scheme, http_error_code,
};
use wasip2::io::streams::StreamError;

use crate::url::Url;
use crate::wire::{Reading, Sending, reply_json};

/// Sends one request, with as large a body as the caller wants, and tells of its response.
pub(crate) fn one(url: &Url) -> Json {
    match send(url).and_then(|answer| wait(&answer)) {
        Ok(response) => told(&response),
        Err(code) => failure(&code),
    }
}

/// Sends the same request again and again.
pub(crate) fn many(url: &Url) -> Json {
    (0..url.number("n")).map(|_| one(url)).collect()
}

/// Sends the same request several times before it waits for any response, and reads none before all are there.
pub(crate) fn at_once(url: &Url) -> Json {
    let sent: Vec<_> = (0..url.number("n")).map(|_| send(url)).collect();
    let answers: Vec<_> = sent.into_iter().map(|answer| wait(&answer?)).collect();
    answers.iter().map(|answer| answer.as_ref().map_or_else(failure, told)).collect()
}

/// Sends a request and does not wait for its response.
pub(crate) fn give_up(url: &Url) -> Json {
    drop(send(url));
    json!("given up")
}

/// Sends the body of its request on, and the response back, both as they arrive.
pub(crate) fn proxy(url: &Url, request: &IncomingRequest, out: ResponseOutparam) {
    match pass_on(url, request) {
        Ok(response) => pass_back(&response, out),
        Err(code) => reply_json(out, &failure(&code)),
    }
}

fn pass_on(url: &Url, request: &IncomingRequest) -> Result<IncomingResponse, ErrorCode> {
    let outgoing = prepare(url)?;
    let body = outgoing.body().map_err(|()| internal("no body"))?;
    let answer = handle(outgoing, options(url))?;
    let stream = body.write().map_err(|()| internal("no stream"))?;
    if let Some(reading) = Reading::new(request) {
        while let Some(chunk) = reading.next() {
            if stream.blocking_write_and_flush(&chunk).is_err() {
                break;
            }
        }
    }
    drop(stream);
    // The other side may have answered without having read everything.
    let _ = OutgoingBody::finish(body, None);
    wait(&answer)
}

fn pass_back(response: &IncomingResponse, out: ResponseOutparam) {
    let Some(sending) = Sending::head(out, response.status(), "application/octet-stream") else { return };
    let Ok(body) = response.consume() else { return };
    let Ok(stream) = body.stream() else { return };
    while let Ok(chunk) = stream.blocking_read(4096) {
        if !sending.write(&chunk) {
            return;
        }
    }
    sending.finish();
}

fn internal(what: &str) -> ErrorCode {
    ErrorCode::InternalError(Some(what.to_owned()))
}

fn prepare(url: &Url) -> Result<OutgoingRequest, ErrorCode> {
    let refused = |()| ErrorCode::HttpRequestUriInvalid;
    let target = url.text("url");
    let (scheme, rest) = target.split_once("://").ok_or(ErrorCode::HttpRequestUriInvalid)?;
    let (authority, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    let scheme = match scheme {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        other => Scheme::Other(other.to_owned()),
    };
    let request = OutgoingRequest::new(Fields::new());
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

fn send(url: &Url) -> Result<FutureIncomingResponse, ErrorCode> {
    let request = prepare(url)?;
    let body = request.body().map_err(|()| internal("no body"))?;
    let answer = handle(request, options(url))?;
    let mut missing = url.number("bytes");
    if missing > 0 {
        let stream = body.write().map_err(|()| internal("no stream"))?;
        while missing > 0 && stream.blocking_write_and_flush(&[b'x'; 4096]).is_ok() {
            missing = missing.saturating_sub(4096);
        }
    }
    let _ = OutgoingBody::finish(body, None);
    Ok(answer)
}

fn wait(answer: &FutureIncomingResponse) -> Result<IncomingResponse, ErrorCode> {
    loop {
        match answer.get() {
            Some(Ok(outcome)) => return outcome,
            Some(Err(())) => return Err(internal("taken twice")),
            None => answer.subscribe().block(),
        }
    }
}

fn told(response: &IncomingResponse) -> Json {
    let location = response.headers().get("location").into_iter().next();
    let (bytes, error) = read(response);
    json!({
        "status": response.status(),
        "location": location.map(|value| String::from_utf8_lossy(&value).into_owned()),
        "bytes": bytes.len(),
        "body": String::from_utf8_lossy(bytes.get(..bytes.len().min(2_000)).unwrap_or_default()),
        "body_error": error,
    })
}

fn read(response: &IncomingResponse) -> (Vec<u8>, Option<String>) {
    let mut bytes = Vec::new();
    let Ok(body) = response.consume() else { return (bytes, Some("consumed before".to_owned())) };
    let Ok(stream) = body.stream() else { return (bytes, Some("no stream".to_owned())) };
    loop {
        match stream.blocking_read(64 * 1024) {
            Ok(chunk) => bytes.extend(chunk),
            Err(StreamError::Closed) => return (bytes, None),
            Err(StreamError::LastOperationFailed(error)) => {
                let code = http_error_code(&error).map(|code| format!("{code:?}"));
                return (bytes, Some(code.unwrap_or_else(|| error.to_debug_string())));
            }
        }
    }
}

fn failure(code: &ErrorCode) -> Json {
    json!({ "error": format!("{code:?}") })
}

/// Writes, keeps the connection open, and sends a request.
pub(crate) fn after_write(url: &Url) -> Json {
    let _open = crate::sql::write();
    one(url)
}
