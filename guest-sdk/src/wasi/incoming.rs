//! A body that is still with the host.

use wasip2::http::types::{ErrorCode, IncomingBody, IncomingRequest, IncomingResponse, http_error_code};
use wasip2::io::streams::{InputStream, StreamError};

use crate::BodyError;

/// The most that one read asks for, in bytes: so many that the call into the host costs little beside the copy.
const CHUNK_BYTES_MAX: u64 = 64 * 1024;

/// A body that is still with the host.
pub(crate) struct Incoming {
    state: State,
    /// How many bytes are to come, if the sender said so; it spares asking the host for the end.
    remaining: Option<u64>,
}

enum State {
    /// Nobody has asked for it yet. The message is kept because the body comes out of it.
    Unopened(Message),
    /// The stream is a child of the body and declared first, because it must be dropped first.
    Open { stream: InputStream, _body: IncomingBody },
    /// Read to its end, or failed.
    Ended,
}

/// What a body belongs to.
pub(super) enum Message {
    Request(IncomingRequest),
    Response(IncomingResponse),
}

impl Message {
    /// Its body; it can be had once.
    fn consume(&self) -> Option<IncomingBody> {
        match self {
            Self::Request(request) => request.consume().ok(),
            Self::Response(response) => response.consume().ok(),
        }
    }
}

impl Incoming {
    pub(super) fn new(message: Message, content_length: Option<u64>) -> Self {
        Self { state: State::Unopened(message), remaining: content_length }
    }

    /// How many bytes are to come, if the sender said so.
    pub(crate) fn remaining(&self) -> Option<u64> {
        self.remaining
    }

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
        if let State::Unopened(message) = &self.state {
            self.state = match open(message) {
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

fn open(message: &Message) -> Option<(IncomingBody, InputStream)> {
    let body = message.consume()?;
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
