//! `wasi:http/outgoing-handler`.

use http::header::{CONTENT_LENGTH, HOST};
use http::{StatusCode, Uri};
use wasip2::http::outgoing_handler::handle;
use wasip2::http::types::{ErrorCode, FutureIncomingResponse, IncomingResponse, OutgoingRequest, Scheme};
use wasip2::io::streams::StreamError;

use super::incoming::{Incoming, Message};
use super::{head, write};
use crate::body::Content;
use crate::{Body, FetchError, Request, Response, Result};

/// Sends a request whose address is absolute and waits for the head of its response.
pub(crate) fn send(request: Request) -> Result<Response, FetchError> {
    let (mut head, body) = request.into_parts();
    // The host takes it from the address, and refuses to be told.
    head.headers.remove(HOST);
    if let Content::Here(bytes) = &body.content
        && !bytes.is_empty()
    {
        head.headers.entry(CONTENT_LENGTH).or_insert_with(|| bytes.len().into());
    }
    let outgoing = OutgoingRequest::new(head::fields(&head.headers));
    set_target(&outgoing, &head.method, &head.uri).map_err(|()| invalid())?;
    let body_of_request = outgoing.body();
    let answer = handle(outgoing, None).map_err(|code| explain(&head.uri, &code))?;
    if !matches!(&body.content, Content::Here(bytes) if bytes.is_empty()) {
        let (body_out, stream) = write::open(body_of_request).ok_or_else(invalid)?;
        let sent = match body.content {
            Content::Here(bytes) => {
                write::write(&stream, &bytes).and_then(|()| stream.blocking_flush()).map(|()| true)
            }
            Content::Incoming(mut incoming) => write::pass_on(&stream, &mut incoming),
            #[cfg(feature = "async")]
            Content::Asynchronous(_) => {
                return Err(FetchError::InvalidRequest(crate::body::ASYNCHRONOUS.to_owned()));
            }
        };
        match sent {
            Ok(true) => write::finish(body_out, stream),
            Ok(false) => return Err(FetchError::Failed("the body to send is incomplete".to_owned())),
            // The other side may answer without having read everything: its answer, or the reason, follows.
            Err(StreamError::Closed | StreamError::LastOperationFailed(_)) => {}
        }
    }
    receive(wait(&answer, &head.uri)?)
}

fn invalid() -> FetchError {
    FetchError::InvalidRequest("its address, method or Content-Length cannot be sent".to_owned())
}

fn set_target(request: &OutgoingRequest, method: &http::Method, uri: &Uri) -> Result<(), ()> {
    let scheme = match uri.scheme_str() {
        Some("http") => Scheme::Http,
        Some("https") => Scheme::Https,
        _ => return Err(()),
    };
    request.set_method(&head::wasi_method(method))?;
    request.set_scheme(Some(&scheme))?;
    request.set_authority(uri.authority().map(http::uri::Authority::as_str))?;
    request.set_path_with_query(uri.path_and_query().map(http::uri::PathAndQuery::as_str))
}

fn wait(answer: &FutureIncomingResponse, uri: &Uri) -> Result<IncomingResponse, FetchError> {
    loop {
        match answer.get() {
            Some(Ok(Ok(response))) => return Ok(response),
            Some(Ok(Err(code))) => return Err(explain(uri, &code)),
            Some(Err(())) => return Err(FetchError::Failed("the response was taken already".to_owned())),
            None => answer.subscribe().block(),
        }
    }
}

fn receive(incoming: IncomingResponse) -> Result<Response, FetchError> {
    let malformed = || FetchError::Failed("the head of the response is malformed".to_owned());
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::from_u16(incoming.status()).map_err(|_| malformed())?;
    head::read_fields(&incoming.headers(), response.headers_mut()).map_err(|_| malformed())?;
    let length = head::content_length(response.headers());
    let incoming = Incoming::new(Message::Response(incoming), length);
    *response.body_mut() = Body::new(Content::Incoming(incoming)).of_fetched();
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
