//! Between `wasi:http` and the handler.
//!
//! Every call across the component's border costs about as much as a page of Rust, so the usual small response goes
//! out in as few as there can be: its bytes are written and its end is marked before its head is released. The host
//! then finds a complete response and can send it in one piece.

use http::header::CONTENT_LENGTH;
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use wasip2::http::types as wasi;
use wasip2::http::types::{Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam};
use wasip2::io::streams::{OutputStream, StreamError};

use crate::body::{Content, Incoming};
use crate::{Body, Error, IntoResponse, Request, Result};

/// Runs a handler for a request and sends its answer.
pub fn serve<T: IntoResponse>(
    request: IncomingRequest,
    response_out: ResponseOutparam,
    handler: impl FnOnce(Request) -> T,
) {
    match read(request) {
        Ok(request) => respond(response_out, handler(request)),
        Err(error) => respond(response_out, error),
    }
}

/// Sends an answer.
pub fn respond(response_out: ResponseOutparam, answer: impl IntoResponse) {
    let (mut head, body) = answer.into_response().into_parts();
    if let Content::Here(bytes) = &body.0
        && !bytes.is_empty()
    {
        head.headers.entry(CONTENT_LENGTH).or_insert_with(|| bytes.len().into());
    }
    let response = OutgoingResponse::new(fields(&head.headers));
    if head.status != StatusCode::OK {
        // Only a status outside 100 to 999 is refused, and http::StatusCode has none.
        let _ = response.set_status_code(head.status.as_u16());
    }
    let sent = match body.0 {
        // A response whose body is never asked for has none.
        Content::Here(bytes) if bytes.is_empty() => {
            ResponseOutparam::set(response_out, Ok(response));
            Ok(())
        }
        Content::Here(bytes) => send_bytes(response_out, response, &bytes),
        Content::Incoming(incoming) => pass_on(response_out, response, incoming),
    };
    match sent {
        // Closed: the caller has gone, which is no failure of this function.
        Ok(()) | Err(StreamError::Closed) => {}
        Err(StreamError::LastOperationFailed(error)) => {
            eprintln!("error: the response could not be sent: {}", error.to_debug_string());
        }
    }
}

/// Reads the head of a request. The body stays with the host.
fn read(incoming: IncomingRequest) -> Result<Request> {
    let mut request = Request::new(Body::empty());
    *request.method_mut() = method(incoming.method())?;
    *request.uri_mut() = uri(&incoming)?;
    let entries = incoming.headers().entries();
    request.headers_mut().try_reserve(entries.len())?;
    for (name, value) in entries {
        request.headers_mut().try_append(HeaderName::try_from(name)?, HeaderValue::try_from(value)?)?;
    }
    let length = request.headers().get(CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
    *request.body_mut() = Body::incoming(incoming, length);
    Ok(request)
}

fn method(method: wasi::Method) -> Result<Method> {
    Ok(match method {
        wasi::Method::Get => Method::GET,
        wasi::Method::Head => Method::HEAD,
        wasi::Method::Post => Method::POST,
        wasi::Method::Put => Method::PUT,
        wasi::Method::Delete => Method::DELETE,
        wasi::Method::Connect => Method::CONNECT,
        wasi::Method::Options => Method::OPTIONS,
        wasi::Method::Trace => Method::TRACE,
        wasi::Method::Patch => Method::PATCH,
        wasi::Method::Other(name) => Method::from_bytes(name.as_bytes())?,
    })
}

/// The address as the caller wrote it: absolute if the host knows under which name it was reached.
fn uri(request: &IncomingRequest) -> Result<Uri> {
    let mut parts = http::uri::Parts::default();
    let path = request.path_with_query().filter(|path| !path.is_empty()).unwrap_or_else(|| "/".into());
    parts.path_and_query = Some(PathAndQuery::from_maybe_shared(path)?);
    if let (Some(scheme), Some(authority)) = (request.scheme(), request.authority()) {
        parts.scheme = Some(match scheme {
            wasi::Scheme::Http => Scheme::HTTP,
            wasi::Scheme::Https => Scheme::HTTPS,
            wasi::Scheme::Other(name) => name.parse()?,
        });
        parts.authority = Some(Authority::from_maybe_shared(authority)?);
    }
    Uri::from_parts(parts)
        .map_err(|_| Error::status(StatusCode::BAD_REQUEST, "The address is not a valid URI."))
}

/// The headers as the host wants them, without those that it refuses.
fn fields(headers: &HeaderMap) -> Fields {
    let entry = |(name, value): (&HeaderName, &HeaderValue)| (name.to_string(), value.as_bytes().to_vec());
    let entries: Vec<_> = headers.iter().map(entry).collect();
    Fields::from_list(&entries).unwrap_or_else(|_| {
        let fields = Fields::new();
        for (name, value) in &entries {
            if let Err(error) = fields.append(name, value) {
                eprintln!("error: the response header {name} is left out: {error}");
            }
        }
        fields
    })
}

/// Sends a response whose bytes are all here.
fn send_bytes(
    response_out: ResponseOutparam,
    response: OutgoingResponse,
    bytes: &[u8],
) -> Result<(), StreamError> {
    let Some((body, stream)) = open(&response) else {
        refuse(response_out);
        return Ok(());
    };
    let rest = write_now(&stream, bytes)?;
    if rest.is_empty() {
        // The host took everything without waiting, so there is nothing to flush, and it sees all at once.
        finish(body, stream);
        ResponseOutparam::set(response_out, Ok(response));
    } else {
        ResponseOutparam::set(response_out, Ok(response));
        write(&stream, rest)?;
        stream.blocking_flush()?;
        finish(body, stream);
    }
    Ok(())
}

/// Sends a response whose body is that of the request, chunk by chunk as it arrives.
fn pass_on(
    response_out: ResponseOutparam,
    response: OutgoingResponse,
    mut incoming: Incoming,
) -> Result<(), StreamError> {
    let Some((body, stream)) = open(&response) else {
        refuse(response_out);
        return Ok(());
    };
    ResponseOutparam::set(response_out, Ok(response));
    loop {
        match incoming.read() {
            Ok(Some(chunk)) => write(&stream, &chunk)?,
            Ok(None) => break,
            Err(error) => {
                // Without `finish` the host breaks the response off, so that the caller sees that it is incomplete.
                eprintln!("error: {error}: {error:?}");
                return Ok(());
            }
        }
        stream.blocking_flush()?;
    }
    finish(body, stream);
    Ok(())
}

/// The body of a response and the stream into it.
fn open(response: &OutgoingResponse) -> Option<(OutgoingBody, OutputStream)> {
    let body = response.body().ok()?;
    let stream = body.write().ok()?;
    Some((body, stream))
}

/// The host gives no body for a response whose Content-Length it cannot read.
fn refuse(response_out: ResponseOutparam) {
    let message = "the response has an invalid Content-Length".to_owned();
    ResponseOutparam::set(response_out, Err(wasi::ErrorCode::InternalError(Some(message))));
}

/// Writes as much as the host takes without waiting, and returns the rest.
fn write_now<'a>(stream: &OutputStream, mut bytes: &'a [u8]) -> Result<&'a [u8], StreamError> {
    while !bytes.is_empty() {
        let permit = usize::try_from(stream.check_write()?).unwrap_or(usize::MAX);
        let Some((now, later)) = bytes.split_at_checked(permit.min(bytes.len())) else { break };
        if now.is_empty() {
            break;
        }
        stream.write(now)?;
        bytes = later;
    }
    Ok(bytes)
}

/// Writes all bytes, waiting whenever the host has no room.
fn write(stream: &OutputStream, mut bytes: &[u8]) -> Result<(), StreamError> {
    loop {
        bytes = write_now(stream, bytes)?;
        if bytes.is_empty() {
            return Ok(());
        }
        stream.subscribe().block();
    }
}

/// Marks the end of a body. The stream is its child and has to go first.
fn finish(body: OutgoingBody, stream: OutputStream) {
    drop(stream);
    if let Err(error) = OutgoingBody::finish(body, None) {
        eprintln!("error: the response is not complete: {error}");
    }
}
