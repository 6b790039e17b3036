//! Bodies, incoming and outgoing.
//!
//! An incoming body stays with the host until it is read, chunk by chunk, and only as far as it is read. An outgoing
//! body is bytes, or an incoming body that is passed on as it arrives.

use std::borrow::Cow;
use std::fmt::{self, Debug, Formatter};
use std::str::Utf8Error;
use std::{iter, mem};

use serde::de::DeserializeOwned;
use wasip2::http::types::{ErrorCode, IncomingBody, IncomingRequest, http_error_code};
use wasip2::io::streams::{InputStream, StreamError};

use crate::StatusCode;

/// The most that one read asks for, in bytes: so many that the call into the host costs little beside the copy.
const CHUNK_BYTES_MAX: u64 = 64 * 1024;

/// How much memory a claimed Content-Length alone may reserve, in bytes.
const RESERVE_BYTES_MAX: u64 = 1024 * 1024;

/// Why a request body could not be read. With `?` it becomes a 4xx response that says so.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BodyError {
    /// The body ended before it was complete; the host's reason is for the log, not for the caller.
    #[error("the request body is incomplete")]
    Incomplete(String),
    /// The body is larger than this server accepts.
    #[error("the request body is too large")]
    TooLarge,
    /// The body is not UTF-8.
    #[error("the request body is not UTF-8: {0}")]
    NotUtf8(#[from] Utf8Error),
    /// The body is not JSON, or not the JSON that was asked for.
    #[error("the request body is not the expected JSON: {0}")]
    NotJson(#[from] serde_json::Error),
}

impl BodyError {
    /// The status that tells the caller so.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Incomplete(_) | Self::NotUtf8(_) | Self::NotJson(_) => StatusCode::BAD_REQUEST,
        }
    }
}

/// The body of a request or a response.
pub struct Body(pub(crate) Content);

/// Where the bytes of a body are.
pub(crate) enum Content {
    Here(Cow<'static, [u8]>),
    Incoming(Incoming),
}

impl Body {
    /// A body without bytes.
    pub const fn empty() -> Self {
        Self(Content::Here(Cow::Borrowed(&[])))
    }

    pub(crate) fn incoming(request: IncomingRequest, content_length: Option<u64>) -> Self {
        Self(Content::Incoming(Incoming { state: State::Unopened(request), remaining: content_length }))
    }

    /// The next piece of the body, as soon as there is one; `None` at its end.
    ///
    /// # Errors
    ///
    /// If the body is incomplete or too large.
    pub fn read_chunk(&mut self) -> Result<Option<Vec<u8>>, BodyError> {
        match &mut self.0 {
            Content::Here(bytes) => Ok(Some(mem::take(bytes).into_owned()).filter(|bytes| !bytes.is_empty())),
            Content::Incoming(incoming) => incoming.read(),
        }
    }

    /// The pieces of the body as they arrive.
    pub fn chunks(mut self) -> impl Iterator<Item = Result<Vec<u8>, BodyError>> {
        iter::from_fn(move || self.read_chunk().transpose())
    }

    /// The whole body.
    ///
    /// # Errors
    ///
    /// If the body is incomplete or too large.
    pub fn bytes(mut self) -> Result<Vec<u8>, BodyError> {
        let mut bytes = self.read_chunk()?.unwrap_or_default();
        if let Content::Incoming(incoming) = &mut self.0 {
            bytes.reserve_exact(incoming.remaining.unwrap_or(0).min(RESERVE_BYTES_MAX) as usize);
            while let Some(chunk) = incoming.read()? {
                bytes.extend(chunk);
            }
        }
        Ok(bytes)
    }

    /// The whole body as text.
    ///
    /// # Errors
    ///
    /// If the body is incomplete, too large, or not UTF-8.
    pub fn text(self) -> Result<String, BodyError> {
        String::from_utf8(self.bytes()?).map_err(|error| error.utf8_error().into())
    }

    /// The whole body, read as JSON.
    ///
    /// # Errors
    ///
    /// If the body is incomplete, too large, or not the JSON of a `T`.
    pub fn json<T: DeserializeOwned>(self) -> Result<T, BodyError> {
        Ok(serde_json::from_slice(&self.bytes()?)?)
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::empty()
    }
}

impl Debug for Body {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Content::Here(bytes) => write!(f, "Body({} bytes)", bytes.len()),
            Content::Incoming(_) => f.write_str("Body(incoming)"),
        }
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Self(Content::Here(Cow::Borrowed(text.as_bytes())))
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        text.into_bytes().into()
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Content::Here(Cow::Owned(bytes)))
    }
}

impl From<()> for Body {
    fn from((): ()) -> Self {
        Self::empty()
    }
}

/// A body that is still with the host.
pub(crate) struct Incoming {
    state: State,
    /// How many bytes are to come, if the caller said so; it spares asking the host for the end.
    remaining: Option<u64>,
}

enum State {
    /// Nobody has asked for it yet. The request is kept because the body comes out of it.
    Unopened(IncomingRequest),
    /// The stream is a child of the body and declared first, because it must be dropped first.
    Open { stream: InputStream, _body: IncomingBody },
    /// Read to its end, or failed.
    Ended,
}

impl Incoming {
    /// The next bytes, at least one; `None` at the end.
    pub(crate) fn read(&mut self) -> Result<Option<Vec<u8>>, BodyError> {
        if self.remaining == Some(0) {
            return Ok(None);
        }
        let outcome = loop {
            let Some(stream) = self.stream() else { return Ok(None) };
            match stream.blocking_read(CHUNK_BYTES_MAX) {
                Ok(chunk) if chunk.is_empty() => {}
                Ok(chunk) => break Ok(Some(chunk)),
                Err(StreamError::Closed) => break Ok(None),
                Err(StreamError::LastOperationFailed(error)) => break Err(explain(&error)),
            }
        };
        match (&outcome, &mut self.remaining) {
            (Ok(Some(chunk)), Some(remaining)) => *remaining = remaining.saturating_sub(chunk.len() as u64),
            (Ok(Some(_)), None) => {}
            (Ok(None) | Err(_), _) => self.state = State::Ended,
        }
        outcome
    }

    /// The stream of the body, opened when first asked for.
    fn stream(&mut self) -> Option<&InputStream> {
        if let State::Unopened(request) = &self.state {
            self.state = match open(request) {
                Some((body, stream)) => State::Open { stream, _body: body },
                None => State::Ended,
            };
        }
        match &self.state {
            State::Open { stream, .. } => Some(stream),
            State::Unopened(_) | State::Ended => None,
        }
    }
}

/// The body of a request; it can be had once.
fn open(request: &IncomingRequest) -> Option<(IncomingBody, InputStream)> {
    let body = request.consume().ok()?;
    let stream = body.stream().ok()?;
    Some((body, stream))
}

/// What the host says about a failed read.
fn explain(error: &wasip2::io::error::Error) -> BodyError {
    match http_error_code(error) {
        Some(ErrorCode::HttpRequestBodySize(_)) => BodyError::TooLarge,
        _ => BodyError::Incomplete(error.to_debug_string()),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_made_of_what_is_at_hand() {
        assert!(Body::empty().bytes().unwrap().is_empty());
        assert_eq!(Body::from("static").text().unwrap(), "static");
        assert_eq!(Body::from(String::from("owned")).bytes().unwrap(), b"owned");
        assert_eq!(Body::from(vec![b'7']).json::<u8>().unwrap(), 7);
    }

    #[test]
    fn chunks_end() {
        let chunks: Vec<_> = Body::from("one").chunks().map(Result::unwrap).collect();
        assert_eq!(chunks, [b"one"]);
        assert_eq!(Body::empty().chunks().count(), 0);
    }

    #[test]
    fn mistakes_say_what_was_wrong() {
        let not_utf8 = Body::from(vec![0xff]).text().unwrap_err();
        assert_eq!(not_utf8.status(), 400);
        let message = "the request body is not UTF-8: invalid utf-8 sequence of 1 bytes from index 0";
        assert_eq!(not_utf8.to_string(), message);
        let not_json = Body::from("{").json::<u8>().unwrap_err();
        assert!(not_json.to_string().starts_with("the request body is not the expected JSON: "));
        assert_eq!(BodyError::TooLarge.status(), 413);
    }
}
