//! Between `wasi:http` 0.3 and the handler.

use http::StatusCode;
use http::header::CONTENT_LENGTH;
use http::uri::{Authority, PathAndQuery, Uri};
use wasip3::http::types as wasi;
use wasip3::http::types::ErrorCode;

use super::head;
use super::incoming::{Incoming, Message};
use super::send::send;
use crate::asynchronous::{Body, Request};
use crate::body::asynchronous::Content;
use crate::{Error, IntoResponse, Result};

/// Runs a handler for a request and gives its answer to the host.
pub async fn serve<T: IntoResponse>(
    request: wasi::Request,
    handler: impl AsyncFnOnce(Request) -> T,
) -> Result<wasi::Response, ErrorCode> {
    match read(request) {
        Ok(request) => respond(handler(request).await),
        Err(error) => respond(error),
    }
}

/// Gives an answer to the host. Its body is sent when the handler has returned.
pub fn respond(answer: impl IntoResponse) -> Result<wasi::Response, ErrorCode> {
    let (mut head, body) = answer.into_response().into_parts();
    let body = Body::of(body);
    if let Content::Here(bytes) = &body.content
        && !bytes.is_empty()
    {
        head.headers.entry(CONTENT_LENGTH).or_insert_with(|| bytes.len().into());
    }
    let (contents, ended) = send(body);
    let (response, _transmitted) = wasi::Response::new(head::fields(&head.headers), contents, ended);
    if head.status != StatusCode::OK {
        // Only a status outside 100 to 999 is refused, and http::StatusCode has none.
        let _ = response.set_status_code(head.status.as_u16());
    }
    Ok(response)
}

/// Reads the head of a request. The body stays with the host.
fn read(incoming: wasi::Request) -> Result<Request> {
    let mut request = Request::new(Body::empty());
    *request.method_mut() = incoming.get_method().try_into()?;
    *request.uri_mut() = uri(&incoming)?;
    head::read_fields(&incoming.get_headers(), request.headers_mut())?;
    let length = head::content_length(request.headers());
    let incoming = Incoming::new(Message::Request(incoming), length);
    *request.body_mut() = Body::new(Content::Incoming(incoming)).with_head(request.headers());
    Ok(request)
}

/// The address as the caller wrote it: absolute if the host knows under which name it was reached.
fn uri(request: &wasi::Request) -> Result<Uri> {
    let mut parts = http::uri::Parts::default();
    let path = request.get_path_with_query().filter(|path| !path.is_empty()).unwrap_or_else(|| "/".into());
    parts.path_and_query = Some(PathAndQuery::from_maybe_shared(path)?);
    if let (Some(scheme), Some(authority)) = (request.get_scheme(), request.get_authority()) {
        parts.scheme = Some(scheme.try_into()?);
        parts.authority = Some(Authority::from_maybe_shared(authority)?);
    }
    Uri::from_parts(parts)
        .map_err(|_| Error::status(StatusCode::BAD_REQUEST, "The address is not a valid URI."))
}
