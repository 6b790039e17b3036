//! The raw `wasi:http` calls that the deeds share.

use serde_json::Value as Json;
use wasip3::clocks::monotonic_clock::wait_for;
use wasip3::http::types::{ErrorCode, Fields, Request, Response, Trailers};
use wasip3::wit_bindgen::{
    FutureReader, FutureWriter, StreamReader, StreamResult, StreamWriter, spawn_local,
};
use wasip3::{wit_future, wit_stream};

/// How a deed ends.
pub(crate) type Answer = Result<Response, ErrorCode>;

/// Waits without using the processor.
pub(crate) async fn sleep(ms: u64) {
    wait_for(ms.saturating_mul(1_000_000)).await;
}

/// The body of a response while it is written.
pub(crate) struct Sending {
    pub(crate) stream: StreamWriter<u8>,
    trailers: FutureWriter<Result<Option<Trailers>, ErrorCode>>,
}

impl Sending {
    /// Writes bytes and waits until the host has taken them; false if nobody listens any more.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes.to_vec()).await.is_empty()
    }

    /// Ends the response with a trailer.
    pub(crate) async fn finish_with_trailer(self, name: &str, value: &str) {
        drop(self.stream);
        let trailers = Fields::from_list(&[(name.to_owned(), value.as_bytes().to_vec())]).ok();
        let _ = self.trailers.write(Ok(trailers)).await;
    }
}

pub(crate) fn fields(content_type: &str) -> Result<Fields, ErrorCode> {
    Fields::from_list(&[("content-type".to_owned(), content_type.as_bytes().to_vec())])
        .map_err(|error| ErrorCode::InternalError(Some(error.to_string())))
}

/// Resolves when the client has the whole response, or never will.
type Transmitted = FutureReader<Result<(), ErrorCode>>;

/// A response, what writes its body, and what tells how its transmission went.
pub(crate) fn head(status: u16, content_type: &str) -> Result<(Response, Sending, Transmitted), ErrorCode> {
    let (stream, contents) = wit_stream::new();
    let (trailers, trailers_end) = wit_future::new(|| Ok(None));
    let (response, transmitted) = Response::new(fields(content_type)?, Some(contents), trailers_end);
    let _ = response.set_status_code(status);
    Ok((response, Sending { stream, trailers }, transmitted))
}

/// A response whose body is written after the call has returned it.
pub(crate) fn stream<F: Future<Output = ()> + 'static>(
    content_type: &str,
    write: impl FnOnce(Sending) -> F,
) -> Answer {
    let (response, sending, _) = head(200, content_type)?;
    spawn_local(write(sending));
    Ok(response)
}

/// A whole response.
pub(crate) fn reply(status: u16, content_type: &str, bytes: &[u8]) -> Answer {
    let bytes = bytes.to_vec();
    let (response, mut sending, _) = head(status, content_type)?;
    spawn_local(async move {
        sending.write(&bytes).await;
    });
    Ok(response)
}

/// JSON.
pub(crate) fn reply_json(json: &Json) -> Answer {
    reply(200, "application/json", json.to_string().as_bytes())
}

/// A response that hands on the body of the request.
pub(crate) fn hand_on(request: Request) -> Answer {
    let (contents, trailers) = consume(request);
    let (response, _) = Response::new(fields("application/octet-stream")?, Some(contents), trailers);
    Ok(response)
}

pub(crate) fn consume(
    request: Request,
) -> (StreamReader<u8>, FutureReader<Result<Option<Trailers>, ErrorCode>>) {
    let (_, read) = wit_future::new(|| Ok(()));
    Request::consume_body(request, read)
}

/// A request body being read.
pub(crate) struct Reading {
    stream: StreamReader<u8>,
}

impl Reading {
    pub(crate) fn new(request: Request) -> Self {
        Self { stream: consume(request).0 }
    }

    /// The bytes that come next, at most 4096; none at the end.
    pub(crate) async fn next(&mut self) -> Option<Vec<u8>> {
        match self.stream.read(Vec::with_capacity(4096)).await {
            (StreamResult::Complete(_), bytes) => Some(bytes),
            (StreamResult::Dropped | StreamResult::Cancelled, _) => None,
        }
    }
}

/// A whole request body.
pub(crate) async fn read_all(request: Request) -> Vec<u8> {
    consume(request).0.collect().await
}
