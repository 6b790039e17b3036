//! One line on a terminal that says how far long work has come. Nowhere else is anything shown.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// Work that is over sooner shows no line.
const FIRST_AFTER: Duration = Duration::from_millis(500);

/// How often the line changes.
const INTERVAL: Duration = Duration::from_millis(100);

/// A line that is there while the work is.
pub(super) struct Progress {
    next: Option<Instant>,
    is_shown: bool,
}

impl Progress {
    /// No line yet.
    pub(super) fn new() -> Self {
        let next = io::stderr().is_terminal().then(|| Instant::now() + FIRST_AFTER);
        Self { next, is_shown: false }
    }

    /// Shows a text, if it is time to. The text holds nothing that a terminal must not see.
    pub(super) fn show(&mut self, text: impl FnOnce() -> String) {
        let now = Instant::now();
        if self.next.is_some_and(|next| next <= now) {
            self.next = Some(now + INTERVAL);
            self.is_shown = true;
            // A line that cannot be shown is not missed.
            let _ = write!(io::stderr().lock(), "\r\x1b[K{}", text());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.is_shown {
            let _ = write!(io::stderr().lock(), "\r\x1b[K");
        }
    }
}
