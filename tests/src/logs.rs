//! What a node logged: every line of its standard error, kept and searchable.

use std::fmt;
use std::io::{BufRead, BufReader};
use std::process::ChildStderr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::eventually;

/// One line.
#[derive(Debug, Clone)]
pub struct Line {
    /// As it was written.
    pub text: String,
    json: Option<Value>,
}

impl Line {
    /// A field of the event.
    #[must_use]
    pub fn get(&self, field: &str) -> Option<&str> {
        self.json.as_ref()?.get(field)?.as_str()
    }

    /// A field of the event that is a number.
    #[must_use]
    pub fn number(&self, field: &str) -> Option<u64> {
        self.json.as_ref()?.get(field)?.as_u64()
    }

    /// A field of the request that the event belongs to.
    #[must_use]
    pub fn request(&self, field: &str) -> Option<&str> {
        self.json.as_ref()?.get("span")?.get(field)?.as_str()
    }

    /// The event's message, or nothing.
    #[must_use]
    pub fn message(&self) -> &str {
        self.get("message").unwrap_or_default()
    }

    /// Whether a guest wrote it to its stdout or stderr.
    #[must_use]
    pub fn is_of_guest(&self) -> bool {
        self.get("target") == Some("guest")
    }

    /// A field that a guest gave its event.
    #[must_use]
    pub fn of_guest(&self, field: &str) -> Option<&Value> {
        self.json.as_ref()?.get("fields")?.get(field)
    }

    /// Whether somebody should look at it. A line that is no event, such as a panic's, is such a line; what a guest
    /// says of itself is not.
    fn is_alarming(&self) -> bool {
        let is_serious = matches!(self.get("level"), Some("WARN" | "ERROR"));
        self.json.is_none() || (is_serious && !self.is_of_guest())
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The log of a node.
#[derive(Debug, Clone, Default)]
pub struct Logs(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    lines: Vec<Line>,
    expected: Vec<String>,
    /// How many lines have been looked over for alarming ones.
    checked: usize,
}

impl Logs {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads a process's standard error to its end, on a thread of its own.
    pub(crate) fn follow(&self, output: ChildStderr) -> JoinHandle<()> {
        let logs = self.clone();
        thread::spawn(move || {
            for text in BufReader::new(output).lines().map_while(Result::ok) {
                let json = serde_json::from_str(&text).ok().filter(Value::is_object);
                logs.kept().lines.push(Line { text, json });
            }
        })
    }

    /// Declares that lines with this text belong to the test.
    pub(crate) fn expect(&self, text: &str) {
        self.kept().expected.push(text.to_owned());
    }

    /// Every line so far.
    #[must_use]
    pub fn lines(&self) -> Vec<Line> {
        self.kept().lines.clone()
    }

    /// The lines so far that a question is true of.
    #[must_use]
    pub fn matching(&self, is_it: impl Fn(&Line) -> bool) -> Vec<Line> {
        self.kept().lines.iter().filter(|line| is_it(line)).cloned().collect()
    }

    /// The lines so far of one request.
    #[must_use]
    pub fn of_request(&self, request_id: &str) -> Vec<Line> {
        self.matching(|line| line.text.contains(request_id))
    }

    /// The first line that a question is true of, now or soon.
    ///
    /// # Errors
    /// When none comes.
    pub fn wait_for(&self, what: &str, is_it: impl Fn(&Line) -> bool) -> Result<Line> {
        eventually(what, || Ok(self.kept().lines.iter().find(|line| is_it(line)).cloned()))
            .with_context(|| format!("the log:\n{self}"))
    }

    /// Fails when a line since the last check is a warning or an error that no test declared.
    ///
    /// # Errors
    /// Such lines.
    pub fn check(&self) -> Result<()> {
        let mut kept = self.kept();
        let fresh = kept.lines.iter().skip(kept.checked);
        let declared = |line: &Line| kept.expected.iter().any(|expected| line.text.contains(expected));
        let alarming: Vec<String> =
            fresh.filter(|line| line.is_alarming() && !declared(line)).map(Line::to_string).collect();
        kept.checked = kept.lines.len();
        if !alarming.is_empty() {
            bail!("the node logged what no test declared:\n{}", alarming.join("\n"));
        }
        Ok(())
    }
}

impl fmt::Display for Logs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines().iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}
