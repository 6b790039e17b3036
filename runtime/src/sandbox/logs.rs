//! A guest's stdout and stderr: each line becomes a log event of its request, up to a bound.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use super::guest_event::GuestEvent;
use crate::exceeded::{Exceeded, Limit};
use crate::limits;
use crate::telemetry::Metrics;

/// Which stream a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

/// What a request may still log, stdout and stderr together.
#[derive(Clone)]
pub(super) struct Allowance(Arc<Left>);

struct Left {
    allowed: usize,
    bytes: AtomicUsize,
    is_told: AtomicBool,
    metrics: Arc<Metrics>,
}

impl Allowance {
    pub(super) fn new(bytes_max: u64, metrics: Arc<Metrics>) -> Self {
        let allowed = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        let bytes = AtomicUsize::new(allowed);
        Self(Arc::new(Left { allowed, bytes, is_told: AtomicBool::new(false), metrics }))
    }
}

/// One of a guest's two log streams. Clones write to the same line.
#[derive(Clone)]
pub(super) struct LogStream {
    stream: Stream,
    allowance: Allowance,
    line: Arc<Mutex<Vec<u8>>>,
}

impl LogStream {
    pub(super) fn new(stream: Stream, allowance: Allowance) -> Self {
        Self { stream, allowance, line: Arc::default() }
    }

    fn take_in(&self, bytes: &[u8]) {
        let allowed = self.allow(bytes.len());
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        for byte in bytes.iter().take(allowed) {
            if *byte == b'\n' {
                self.emit(&line);
                line.clear();
            } else {
                line.push(*byte);
                if line.len() >= limits::LOG_LINE_BYTES_MAX {
                    self.emit(&line);
                    line.clear();
                }
            }
        }
        // The rest is dropped, and this is said once.
        if allowed < bytes.len() && !self.allowance.0.is_told.swap(true, Ordering::Relaxed) {
            let of_request = self.allowance.0.allowed;
            let used = of_request.saturating_add(bytes.len() - allowed);
            self.allowance.0.metrics.exceeded(Exceeded::new(Limit::Log, used as u64, of_request as u64));
        }
    }

    /// How many of `wanted` bytes may still be logged. The byte that uses up the allowance is the last one told of.
    fn allow(&self, wanted: usize) -> usize {
        let left = self.allowance.0.bytes.load(Ordering::Relaxed);
        let allowed = wanted.min(left);
        self.allowance.0.bytes.fetch_sub(allowed, Ordering::Relaxed);
        allowed
    }

    fn emit(&self, line: &[u8]) {
        if self.stream == Stream::Stderr
            && let Some(event) = GuestEvent::read(line)
        {
            return event.emit();
        }
        let text = String::from_utf8_lossy(line);
        match self.stream {
            Stream::Stdout => tracing::info!(target: "guest", stream = "stdout", "{text}"),
            Stream::Stderr => tracing::info!(target: "guest", stream = "stderr", "{text}"),
        }
    }
}

impl Drop for LogStream {
    fn drop(&mut self) {
        if Arc::strong_count(&self.line) == 1 {
            let line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
            if !line.is_empty() {
                self.emit(&line);
            }
        }
    }
}

impl IsTerminal for LogStream {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for LogStream {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

impl AsyncWrite for LogStream {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.take_in(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl OutputStream for LogStream {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.take_in(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(limits::LOG_WRITE_BYTES_MAX)
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for LogStream {
    async fn ready(&mut self) {}
}
