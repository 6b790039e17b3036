//! `wasi:http/client`.

use http::header::{CONTENT_LENGTH, HOST};
use http::{StatusCode, Uri, request};
use wasip3::http::client;
use wasip3::http::types::{ErrorCode, Request, Response};

use super::head;
use super::incoming::{Incoming, Message};
use crate::asynchronous::Body;
use crate::body::asynchronous::Content;
use crate::{FetchError, Result};

/// Sends a request whose address is absolute and waits for the head of its response.
pub(crate) async fn send(request: http::Request<Body>) -> Result<http::Response<Body>, FetchError> {
    let (mut head, body) = request.into_parts();
    // The host takes it from the address, and refuses to be told.
    head.headers.remove(HOST);
    if let Content::Here(bytes) = &body.content
        && !bytes.is_empty()
    {
        head.headers.entry(CONTENT_LENGTH).or_insert_with(|| bytes.len().into());
    }
    let (contents, ended) = super::send::send(body);
    let (outgoing, _transmitted) = Request::new(head::fields(&head.headers), contents, ended, None);
    set_target(&outgoing, &head).map_err(|()| invalid())?;
    let answer = client::send(outgoing).await.map_err(|code| explain(&head.uri, &code))?;
    receive(answer)
}

fn invalid() -> FetchError {
    FetchError::InvalidRequest("its address or method cannot be sent".to_owned())
}

fn set_target(request: &Request, head: &request::Parts) -> Result<(), ()> {
    request.set_method(&(&head.method).into())?;
    request.set_scheme(head.uri.scheme().map(Into::into).as_ref())?;
    request.set_authority(head.uri.authority().map(http::uri::Authority::as_str))?;
    request.set_path_with_query(head.uri.path_and_query().map(http::uri::PathAndQuery::as_str))
}

fn receive(incoming: Response) -> Result<http::Response<Body>, FetchError> {
    let malformed = || FetchError::Failed("the head of the response is malformed".to_owned());
    let mut response = http::Response::new(Body::empty());
    *response.status_mut() = StatusCode::from_u16(incoming.get_status_code()).map_err(|_| malformed())?;
    head::read_fields(&incoming.get_headers(), response.headers_mut()).map_err(|_| malformed())?;
    let length = head::content_length(response.headers());
    let incoming = Incoming::new(Message::Response(incoming), length);
    let body = Body::new(Content::Incoming(incoming)).with_head(response.headers()).of_fetched();
    *response.body_mut() = body;
    Ok(response)
}

fn explain(uri: &Uri, code: &ErrorCode) -> FetchError {
    match code {
        ErrorCode::HttpRequestDenied | ErrorCode::DestinationIpProhibited => {
            FetchError::Denied(uri.authority().map_or_else(String::new, |authority| authority.to_string()))
        }
        ErrorCode::ConnectionTimeout
        | ErrorCode::ConnectionReadTimeout
        | ErrorCode::ConnectionWriteTimeout
        | ErrorCode::DnsTimeout
        | ErrorCode::HttpResponseTimeout => FetchError::TimedOut,
        ErrorCode::ConnectionLimitReached => FetchError::LimitReached("too many requests"),
        ErrorCode::HttpRequestBodySize(Some(_)) => FetchError::LimitReached("the body is too large"),
        ErrorCode::HttpResponseBodySize(Some(_)) => {
            FetchError::LimitReached("the body of the response is too large")
        }
        code => FetchError::Failed(format!("{code:?}")),
    }
}
