//! Writing a body to the host.

use wasip2::http::types::OutgoingBody;
use wasip2::io::streams::{OutputStream, StreamError};

use super::incoming::Incoming;
use crate::log;

/// The stream into a body.
pub(super) fn open(body: Result<OutgoingBody, ()>) -> Option<(OutgoingBody, OutputStream)> {
    let body = body.ok()?;
    let stream = body.write().ok()?;
    Some((body, stream))
}

/// Writes as much as the host takes without waiting, and returns the rest.
pub(super) fn write_now<'a>(stream: &OutputStream, mut bytes: &'a [u8]) -> Result<&'a [u8], StreamError> {
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
pub(super) fn write(stream: &OutputStream, mut bytes: &[u8]) -> Result<(), StreamError> {
    loop {
        bytes = write_now(stream, bytes)?;
        if bytes.is_empty() {
            return Ok(());
        }
        stream.subscribe().block();
    }
}

/// Passes a body on, chunk by chunk as it arrives. Whether it came to its end.
pub(super) fn pass_on(stream: &OutputStream, incoming: &mut Incoming) -> Result<bool, StreamError> {
    loop {
        match incoming.read() {
            Ok(Some(chunk)) => write(stream, &chunk)?,
            Ok(None) => return Ok(true),
            Err(error) => {
                log::error!("a body could not be passed on: {error}: {error:?}");
                return Ok(false);
            }
        }
        stream.blocking_flush()?;
    }
}

/// Marks the end of a body. The stream is its child and has to go first.
pub(super) fn finish(body: OutgoingBody, stream: OutputStream) {
    drop(stream);
    if let Err(error) = OutgoingBody::finish(body, None) {
        log::error!("what was sent is not complete: {error}");
    }
}
