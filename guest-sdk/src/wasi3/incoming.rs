//! A body that is still with the host.

use wasip3::http::types::{ErrorCode, Request, Response, Trailers};
use wasip3::wit_bindgen::{FutureReader, StreamReader, StreamResult};
use wasip3::wit_future;

use crate::BodyError;

/// The most that one read asks for, in bytes: so many that the call into the host costs little beside the copy.
const CHUNK_BYTES_MAX: usize = 64 * 1024;

/// How a body ended.
pub(super) type Ended = FutureReader<Result<Option<Trailers>, ErrorCode>>;

/// A body that is still with the host.
pub(crate) struct Incoming {
    state: State,
    /// How many bytes are to come, if the sender said so.
    remaining: Option<u64>,
}

enum State {
    /// Nobody has asked for it yet. The message is kept because the body comes out of it.
    Unopened(Message),
    Open {
        stream: StreamReader<u8>,
        ended: Ended,
    },
    /// Being read. Whoever finds it so comes after a read that was given up, whose bytes are lost.
    Reading,
    /// Read to its end, or failed.
    Ended,
}

/// What a body belongs to.
pub(super) enum Message {
    Request(Request),
    Response(Response),
}

impl Message {
    fn consume(self) -> (StreamReader<u8>, Ended) {
        // What was made of the body is nobody else's affair.
        let (_, read) = wit_future::new(|| Ok(()));
        match self {
            Self::Request(request) => Request::consume_body(request, read),
            Self::Response(response) => Response::consume_body(response, read),
        }
    }
}

impl Incoming {
    pub(super) fn new(message: Message, content_length: Option<u64>) -> Self {
        Self { state: State::Unopened(message), remaining: content_length }
    }

    /// A body of the 0.2 world. No async handler is given one, so none has one to send.
    pub(crate) fn of(_: crate::wasi::Incoming) -> Option<Self> {
        None
    }

    /// How many bytes are to come, if the sender said so.
    pub(crate) fn remaining(&self) -> Option<u64> {
        self.remaining
    }

    /// The next bytes, at least one; `None` at the end.
    pub(crate) async fn read(&mut self) -> Result<Option<Vec<u8>>, BodyError> {
        let (mut stream, ended) = match std::mem::replace(&mut self.state, State::Reading) {
            State::Unopened(message) => message.consume(),
            State::Open { stream, ended } => (stream, ended),
            State::Reading => return Err(BodyError::Incomplete("a read of it was given up".to_owned())),
            State::Ended => {
                self.state = State::Ended;
                return Ok(None);
            }
        };
        loop {
            let (result, chunk) = stream.read(Vec::with_capacity(CHUNK_BYTES_MAX)).await;
            if !chunk.is_empty() {
                self.remaining = self.remaining.map(|bytes| bytes.saturating_sub(chunk.len() as u64));
                self.state = State::Open { stream, ended };
                return Ok(Some(chunk));
            }
            if !matches!(result, StreamResult::Complete(_)) {
                let ended = ended.await;
                self.state = State::Ended;
                return ended.map(|_trailers| None).map_err(explain);
            }
        }
    }
}

/// What the host says about a failed read.
fn explain(code: ErrorCode) -> BodyError {
    match code {
        ErrorCode::HttpRequestBodySize(_) => BodyError::TooLarge,
        code => BodyError::Incomplete(format!("{code:?}")),
    }
}
