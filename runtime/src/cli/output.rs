//! The two streams: results go to stdout, everything about the work goes to stderr.
//!
//! Whatever the text holds, what reaches a terminal is printable (see [`super::text`]).

use std::io::{self, ErrorKind, Write as _};

use anyhow::Context as _;

use super::text;

/// The reader of stdout has gone, as `head` does. Not a failure of the command.
#[derive(Debug, thiserror::Error)]
#[error("the output was closed")]
pub(super) struct OutputClosed;

/// Writes lines of a result to stdout.
pub(super) fn lines(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    let written = writeln!(stdout, "{}", text::escaped_lines(text)).and_then(|()| stdout.flush());
    match written {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(OutputClosed.into()),
        written => written.context("cannot write to stdout"),
    }
}

/// Writes lines about the work to stderr.
pub(super) fn note(text: &str) {
    // When stderr cannot be written there is nowhere to say so.
    let _ = writeln!(io::stderr().lock(), "{}", text::escaped_lines(text));
}
