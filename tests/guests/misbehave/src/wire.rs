//! The raw `wasi:http` calls that the deeds share.

use serde_json::Value as Json;
use wasip2::clocks::monotonic_clock::subscribe_duration;
use wasip2::http::types::{
    Fields, IncomingBody, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam,
};
use wasip2::io::streams::{InputStream, OutputStream};

/// Waits without using the processor.
pub(crate) fn sleep(ms: u64) {
    subscribe_duration(ms.saturating_mul(1_000_000)).block();
}

/// A response on its way. The stream is a child of the body, so it is declared, and dropped, first.
pub(crate) struct Sending {
    pub(crate) stream: OutputStream,
    body: OutgoingBody,
}

impl Sending {
    /// Sends the head of a response.
    pub(crate) fn head(out: ResponseOutparam, status: u16, content_type: &str) -> Option<Self> {
        Self::head_of(out, status, &[(String::from("content-type"), content_type.as_bytes().to_vec())])
    }

    /// The same with header fields of the caller's choice.
    pub(crate) fn head_of(out: ResponseOutparam, status: u16, fields: &[(String, Vec<u8>)]) -> Option<Self> {
        let response = OutgoingResponse::new(Fields::from_list(fields).ok()?);
        response.set_status_code(status).ok()?;
        let body = response.body().ok()?;
        let stream = body.write().ok()?;
        ResponseOutparam::set(out, Ok(response));
        Some(Self { stream, body })
    }

    /// Writes bytes and waits until the host has taken them; false if nobody listens any more.
    pub(crate) fn write(&self, bytes: &[u8]) -> bool {
        bytes.chunks(4096).all(|chunk| self.stream.blocking_write_and_flush(chunk).is_ok())
    }

    /// Ends the response.
    pub(crate) fn finish(self) {
        drop(self.stream);
        if let Err(error) = OutgoingBody::finish(self.body, None) {
            eprintln!("finish: {error}");
        }
    }
}

/// Sends a whole response.
pub(crate) fn reply(out: ResponseOutparam, status: u16, content_type: &str, bytes: &[u8]) {
    if let Some(sending) = Sending::head(out, status, content_type)
        && sending.write(bytes)
    {
        sending.finish();
    }
}

/// Sends JSON.
pub(crate) fn reply_json(out: ResponseOutparam, json: &Json) {
    reply(out, 200, "application/json", json.to_string().as_bytes());
}

/// Sends the head and one flushed chunk of a response, and leaves it unfinished.
pub(crate) fn start(out: ResponseOutparam) -> Option<Sending> {
    let sending = Sending::head(out, 200, "text/plain")?;
    sending.write(b"partial");
    Some(sending)
}

/// A request body being read. The stream is a child of the body, so it is declared, and dropped, first.
pub(crate) struct Reading {
    stream: InputStream,
    body: IncomingBody,
}

impl Reading {
    pub(crate) fn new(request: &IncomingRequest) -> Option<Self> {
        let body = request.consume().ok()?;
        Some(Self { stream: body.stream().ok()?, body })
    }

    /// The bytes that come next, at most 4096; none at the end.
    pub(crate) fn next(&self) -> Option<Vec<u8>> {
        self.stream.blocking_read(4096).ok()
    }

    /// The fields that came behind the body; none when it was broken off.
    fn trailers(self) -> Option<Fields> {
        drop(self.stream);
        let trailers = IncomingBody::finish(self.body);
        trailers.subscribe().block();
        trailers.get()?.ok()?.ok()?
    }
}

/// A whole request body.
pub(crate) fn read_all(request: &IncomingRequest) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(reading) = Reading::new(request) {
        while let Some(chunk) = reading.next() {
            bytes.extend(chunk);
        }
    }
    bytes
}

/// A whole request body, and what came behind it.
pub(crate) fn read_to_the_end(request: &IncomingRequest) -> (Vec<u8>, Option<Fields>) {
    let mut bytes = Vec::new();
    let Some(reading) = Reading::new(request) else { return (bytes, None) };
    while let Some(chunk) = reading.next() {
        bytes.extend(chunk);
    }
    (bytes, reading.trailers())
}
