//! Bodies that are slow, endless, large, or the caller's own.

use serde_json::Value as Json;
use serde_json::json;
use wasip2::http::types::{Fields, IncomingRequest, Method, ResponseOutparam, Scheme};

use crate::url::Url;
use crate::wire::{Reading, Sending, read_all, read_to_the_end, reply_json, sleep};

/// Writes a drop, waits, writes a drop.
pub(crate) fn drip(out: ResponseOutparam, chunks: u64, ms: u64) {
    let Some(sending) = Sending::head(out, 200, "text/plain") else { return };
    for chunk in 0..chunks {
        if chunk > 0 {
            sleep(ms);
        }
        if !sending.write(b"drip\n") {
            return;
        }
    }
    sending.finish();
}

/// Sends every chunk of the request back as soon as it arrives.
pub(crate) fn echo(request: &IncomingRequest, out: ResponseOutparam) {
    let Some(sending) = Sending::head(out, 200, "application/octet-stream") else { return };
    if let Some(reading) = Reading::new(request) {
        while let Some(chunk) = reading.next() {
            if !sending.write(&chunk) {
                return;
            }
        }
    }
    sending.finish();
}

/// Writes many bytes, as fast as the host takes them.
pub(crate) fn big(out: ResponseOutparam, bytes: u64) {
    let Some(sending) = Sending::head(out, 200, "application/octet-stream") else { return };
    let piece = [b'x'; 64 * 1024];
    let mut missing = bytes;
    while missing > 0 {
        let Ok(permit) = sending.stream.check_write() else { return };
        let len = permit.min(missing).min(piece.len() as u64);
        match piece.get(..len as usize) {
            Some(now) if len > 0 && sending.stream.write(now).is_err() => return,
            Some(_) if len > 0 => missing -= len,
            _ => sending.stream.subscribe().block(),
        }
    }
    sending.finish();
}

/// Answers with a status and the header fields of the request's body: `[[name, value], …]`.
pub(crate) fn respond(request: &IncomingRequest, out: ResponseOutparam, status: u16) {
    let fields: Json = serde_json::from_slice(&read_all(request)).unwrap_or_default();
    let text = |field: &Json, index: usize| field.get(index).and_then(Json::as_str).map(str::to_owned);
    let field = |field: &Json| Some((text(field, 0)?, text(field, 1)?.into_bytes()));
    let fields: Vec<_> = fields.as_array().into_iter().flatten().filter_map(field).collect();
    if let Some(sending) = Sending::head_of(out, status, &fields) {
        sending.finish();
    }
}

/// A page as its tenant wants it: with a body, a type, a cookie and a policy of its own.
pub(crate) fn page(out: ResponseOutparam, url: &Url) {
    let mut fields = vec![(String::from("service-worker-allowed"), b"/".to_vec())];
    for (name, parameter) in
        [("content-type", "type"), ("set-cookie", "cookie"), ("content-security-policy", "policy")]
    {
        let value = url.text(parameter);
        if !value.is_empty() {
            fields.push((name.to_owned(), value.into_bytes()));
        }
    }
    if let Some(sending) = Sending::head_of(out, 200, &fields)
        && sending.write(url.text("body").as_bytes())
    {
        sending.finish();
    }
}

/// Tells what arrived.
pub(crate) fn headers(request: &IncomingRequest, out: ResponseOutparam) {
    reply_json(out, &head(request));
}

/// Tells what arrived, with the body and what came behind it.
pub(crate) fn mirror(request: &IncomingRequest, out: ResponseOutparam) {
    let mut seen = head(request);
    let (body, trailers) = read_to_the_end(request);
    if let Some(seen) = seen.as_object_mut() {
        seen.insert("body".to_owned(), String::from_utf8_lossy(&body).into());
        seen.insert("trailers".to_owned(), trailers.map_or(Json::Null, |trailers| fields(&trailers)));
    }
    reply_json(out, &seen);
}

fn head(request: &IncomingRequest) -> Json {
    json!({
        "method": method(request.method()),
        "path_with_query": request.path_with_query(),
        "scheme": request.scheme().map(scheme),
        "authority": request.authority(),
        "headers": fields(&request.headers()),
    })
}

fn fields(fields: &Fields) -> Json {
    let lossy = |value: Vec<u8>| String::from_utf8_lossy(&value).into_owned();
    fields.entries().into_iter().map(|(name, value)| json!([name, lossy(value)])).collect()
}

fn method(method: Method) -> String {
    match method {
        Method::Get => "GET",
        Method::Head => "HEAD",
        Method::Post => "POST",
        Method::Put => "PUT",
        Method::Delete => "DELETE",
        Method::Connect => "CONNECT",
        Method::Options => "OPTIONS",
        Method::Trace => "TRACE",
        Method::Patch => "PATCH",
        Method::Other(name) => return name,
    }
    .to_owned()
}

fn scheme(scheme: Scheme) -> String {
    match scheme {
        Scheme::Http => "http".to_owned(),
        Scheme::Https => "https".to_owned(),
        Scheme::Other(name) => name,
    }
}
