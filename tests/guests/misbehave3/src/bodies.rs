//! Bodies that are slow, endless, large, or the caller's own.

use serde_json::json;
use wasip3::http::types::{Method, Request, Scheme};

use crate::wire::{Answer, Reading, Sending, reply_json, sleep};

/// Writes a drop, waits, writes a drop.
pub(crate) async fn drip(mut sending: Sending, chunks: u64, ms: u64) {
    for chunk in 0..chunks {
        if chunk > 0 {
            sleep(ms).await;
        }
        if !sending.write(b"drip\n").await {
            return;
        }
    }
}

/// Sends every chunk of the request back as soon as it arrives.
pub(crate) async fn echo(request: Request, mut sending: Sending) {
    let mut reading = Reading::new(request);
    while let Some(chunk) = reading.next().await {
        if !sending.write(&chunk).await {
            return;
        }
    }
}

/// Writes many bytes, as fast as the host takes them.
pub(crate) async fn big(mut sending: Sending, bytes: u64) {
    let piece = [b'x'; 64 * 1024];
    let mut missing = bytes;
    while missing > 0 {
        let len = missing.min(piece.len() as u64);
        match piece.get(..len as usize) {
            Some(now) if sending.write(now).await => missing -= len,
            _ => return,
        }
    }
}

/// Tells what arrived.
pub(crate) fn headers(request: &Request) -> Answer {
    let lossy = |value: Vec<u8>| String::from_utf8_lossy(&value).into_owned();
    let entries = request.get_headers().copy_all();
    let headers: Vec<_> = entries.into_iter().map(|(name, value)| (name, lossy(value))).collect();
    reply_json(&json!({
        "method": method(request.get_method()),
        "path_with_query": request.get_path_with_query(),
        "scheme": request.get_scheme().map(scheme),
        "authority": request.get_authority(),
        "headers": headers,
    }))
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
