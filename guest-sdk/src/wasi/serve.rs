//! Between `wasi:http` and the handler.
//!
//! Every call across the component's border costs about as much as a page of Rust, so the usual small response goes
//! out in as few as there can be: its bytes are written and its end is marked before its head is released. The host
//! then finds a complete response and can send it in one piece.

use http::StatusCode;
use http::header::CONTENT_LENGTH;
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use wasip2::http::types as wasi;
use wasip2::http::types::{IncomingRequest, OutgoingResponse, ResponseOutparam};
use wasip2::io::streams::StreamError;

use super::incoming::{Incoming, Message};
use super::{head, write};
use crate::body::Content;
use crate::{Body, Error, IntoResponse, Request, Result, log};

/// Why the host gives no body for a response.
const NO_BODY: &str = "the response has an invalid Content-Length";

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
    if let Content::Here(bytes) = &body.content
        && !bytes.is_empty()
    {
        head.headers.entry(CONTENT_LENGTH).or_insert_with(|| bytes.len().into());
    }
    let response = OutgoingResponse::new(head::fields(&head.headers));
    if head.status != StatusCode::OK {
        // Only a status outside 100 to 999 is refused, and http::StatusCode has none.
        let _ = response.set_status_code(head.status.as_u16());
    }
    let sent = match body.content {
        // A response whose body is never asked for has none.
        Content::Here(bytes) if bytes.is_empty() => {
            ResponseOutparam::set(response_out, Ok(response));
            Ok(())
        }
        Content::Here(bytes) => send_bytes(response_out, response, &bytes),
        Content::Incoming(incoming) => pass_on(response_out, response, incoming),
        #[cfg(feature = "async")]
        Content::Asynchronous(_) => {
            refuse(response_out, crate::body::ASYNCHRONOUS);
            Ok(())
        }
    };
    match sent {
        // Closed: the caller has gone, which is no failure of this function.
        Ok(()) | Err(StreamError::Closed) => {}
        Err(StreamError::LastOperationFailed(error)) => {
            log::error!("the response could not be sent: {}", error.to_debug_string());
        }
    }
}

/// Reads the head of a request. The body stays with the host.
fn read(incoming: IncomingRequest) -> Result<Request> {
    let mut request = Request::new(Body::empty());
    *request.method_mut() = head::method(incoming.method())?;
    *request.uri_mut() = uri(&incoming)?;
    head::read_fields(&incoming.headers(), request.headers_mut())?;
    let length = head::content_length(request.headers());
    let incoming = Incoming::new(Message::Request(incoming), length);
    *request.body_mut() = Body::new(Content::Incoming(incoming));
    Ok(request)
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

/// Sends a response whose bytes are all here.
fn send_bytes(
    response_out: ResponseOutparam,
    response: OutgoingResponse,
    bytes: &[u8],
) -> Result<(), StreamError> {
    let Some((body, stream)) = write::open(response.body()) else {
        refuse(response_out, NO_BODY);
        return Ok(());
    };
    let rest = write::write_now(&stream, bytes)?;
    if rest.is_empty() {
        // The host took everything without waiting, so there is nothing to flush, and it sees all at once.
        write::finish(body, stream);
        ResponseOutparam::set(response_out, Ok(response));
    } else {
        ResponseOutparam::set(response_out, Ok(response));
        write::write(&stream, rest)?;
        stream.blocking_flush()?;
        write::finish(body, stream);
    }
    Ok(())
}

/// Sends a response whose body is that of the request, chunk by chunk as it arrives.
fn pass_on(
    response_out: ResponseOutparam,
    response: OutgoingResponse,
    mut incoming: Incoming,
) -> Result<(), StreamError> {
    let Some((body, stream)) = write::open(response.body()) else {
        refuse(response_out, NO_BODY);
        return Ok(());
    };
    ResponseOutparam::set(response_out, Ok(response));
    // Without `finish` the host breaks the response off, so that the caller sees that it is incomplete.
    if write::pass_on(&stream, &mut incoming)? {
        write::finish(body, stream);
    }
    Ok(())
}

fn refuse(response_out: ResponseOutparam, reason: &str) {
    ResponseOutparam::set(response_out, Err(wasi::ErrorCode::InternalError(Some(reason.to_owned()))));
}
