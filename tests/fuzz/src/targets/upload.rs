//! Uploads: a byte that says in how large pieces the body arrives, a line with the content type, and the body.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use anyhow::{Result, ensure};
use axum::body::{Body, Bytes};
use dormouse::control::upload::{Upload, receive};
use dormouse::manifest::FunctionManifest;
use dormouse::memory::Budget;
use http::Request;
use http::header::CONTENT_TYPE;
use hyper::body::Frame;

/// Largest component.
const BYTES_MAX: u64 = 1_024;

/// Memory of the node: more than an upload takes.
const MEMORY_BYTES_MAX: u64 = 4 * BYTES_MAX;

/// A body that arrives in pieces.
struct Pieces(Bytes, usize);

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let length = self.1.min(self.0.len());
        let piece = self.0.split_to(length);
        Poll::Ready((!piece.is_empty()).then(|| Ok(Frame::data(piece))))
    }
}

/// What is taken is within its bounds and was in the body; all else is refused.
///
/// # Errors
/// When it is not.
pub fn run(data: &[u8]) -> Result<()> {
    let Some((size, data)) = data.split_first() else { return Ok(()) };
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (content_type, body) = data.split_at(end);
    let body = Bytes::copy_from_slice(body.get(1..).unwrap_or_default());
    let pieces = Body::new(Pieces(body.clone(), usize::from(*size).max(1)));
    let Ok(request) = Request::builder().header(CONTENT_TYPE, content_type).body(pieces) else {
        return Ok(());
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let memory = Arc::new(Budget::new(MEMORY_BYTES_MAX, MEMORY_BYTES_MAX));
    let received = runtime.block_on(receive(request, BYTES_MAX, &memory));
    let Ok(Upload { manifest, component, charge }) = received else {
        ensure!(memory.figures().used == 0, "memory of a refused upload is taken");
        return Ok(());
    };
    drop(charge);
    ensure!(memory.figures().used == 0, "memory of an upload that is gone is taken");
    ensure!(component.len() as u64 <= BYTES_MAX, "a component of {} bytes", component.len());
    let is_there = component.is_empty() || body.windows(component.len()).any(|window| window == component);
    ensure!(is_there, "the component is not what was sent");
    if let Some(manifest) = manifest {
        let again: FunctionManifest = serde_json::from_slice(&serde_json::to_vec(&manifest)?)?;
        ensure!(again == manifest, "{manifest:?} is {again:?} when it is read again");
    }
    Ok(())
}
