//! Structured logging.
//!
//! ```
//! use dormouse_sdk::log;
//! use dormouse_sdk::testing::Tenant;
//!
//! let tenant = Tenant::new();
//! tenant.enter(|| {
//!     let slug = "menu";
//!     log::info!("created {slug}");
//!     log::warn!(slug = slug, scans = 1_000; "many scans");
//! });
//! assert_eq!(tenant.logs()[0]["message"], "created menu");
//! assert_eq!(tenant.logs()[1]["level"], "warn");
//! assert_eq!(tenant.logs()[1]["scans"], 1_000);
//! ```
//!
//! A line becomes one event of the request in the node's log: with this level, this message and these fields, and with
//! the tenant, the function and the request's id, which the node adds. On the wire it is one JSON object on the
//! function's standard error, so it reads well under other hosts too.
//!
//! The macros are called as those of the crate [`log`](https://docs.rs/log) with its key-values. They are not that
//! crate's because a global logger would be linked into every function, also one that logs nothing. What libraries log
//! through that crate is passed on after [`capture`].

use std::fmt::{Arguments, Write as _};

use serde::Serialize;

use crate::host;

pub use crate::{
    __log_debug as debug, __log_error as error, __log_info as info, __log_trace as trace, __log_warn as warn,
};

/// The longest line, in bytes. Dormouse breaks lines of 8 KiB, and a broken one is no event.
const LINE_BYTES_MAX: usize = 8_000;

/// The longest message, in bytes; the rest of the line is for fields.
const MESSAGE_BYTES_MAX: usize = 4_000;

/// How serious an event is. The node's `log` setting says from which level on it keeps them.
///
/// ```
/// assert!(dormouse_sdk::log::Level::Error < dormouse_sdk::log::Level::Info);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Something is broken.
    Error,
    /// Something is odd.
    Warn,
    /// Something worth knowing happened.
    Info,
    /// For whoever looks for a fault.
    Debug,
    /// For whoever looks for it long.
    Trace,
}

impl Level {
    const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// A line in the making. The macros use it.
#[doc(hidden)]
#[derive(Debug)]
pub struct Line(String);

impl Line {
    pub fn new(level: Level, message: Arguments<'_>) -> Self {
        let mut text = String::new();
        let written = match message.as_str() {
            Some(literal) => text.write_str(literal),
            None => text.write_fmt(message),
        };
        // Only a Display of the caller's can fail; what it wrote before still says something.
        let _ = written;
        cut(&mut text, MESSAGE_BYTES_MAX);
        let mut line = Self(String::with_capacity(text.len() + 64));
        line.0.push_str("{\"level\":\"");
        line.0.push_str(level.name());
        line.0.push_str("\",\"message\":");
        line.push_json(&text);
        line
    }

    /// Adds a field, if there is room for it. What cannot be JSON becomes a text that says so.
    #[must_use]
    pub fn field<T: Serialize + ?Sized>(mut self, name: &str, value: &T) -> Self {
        let before = self.0.len();
        self.0.push(',');
        self.push_json(name);
        self.0.push(':');
        self.push_json(value);
        if self.0.len() > LINE_BYTES_MAX {
            self.0.truncate(before);
        }
        self
    }

    /// Sends it.
    pub fn send(mut self) {
        self.0.push_str("}\n");
        host::log(&self.0);
    }

    fn push_json<T: Serialize + ?Sized>(&mut self, value: &T) {
        match serde_json::to_string(value) {
            Ok(json) => self.0.push_str(&json),
            Err(_) => self.0.push_str("\"(no JSON)\""),
        }
    }
}

/// Shortens a text to a number of bytes, at a border of characters.
fn cut(text: &mut String, bytes_max: usize) {
    if text.len() > bytes_max {
        text.truncate(text.floor_char_boundary(bytes_max));
        text.push('…');
    }
}

/// Passes on, from now on, what libraries log through the crate [`log`](https://docs.rs/log), down to a level.
///
/// ```
/// use dormouse_sdk::{log, Request};
///
/// fn handle(request: Request) -> &'static str {
///     log::capture(log::Level::Info);
///     "every library that uses the crate `log` is heard now"
/// }
/// ```
pub fn capture(level: Level) {
    struct Facade;

    impl ::log::Log for Facade {
        fn enabled(&self, _: &::log::Metadata<'_>) -> bool {
            true
        }

        fn log(&self, record: &::log::Record<'_>) {
            let level = match record.level() {
                ::log::Level::Error => Level::Error,
                ::log::Level::Warn => Level::Warn,
                ::log::Level::Info => Level::Info,
                ::log::Level::Debug => Level::Debug,
                ::log::Level::Trace => Level::Trace,
            };
            Line::new(level, *record.args()).field("module", record.target()).send();
        }

        fn flush(&self) {}
    }

    // Another logger that was there first keeps its place.
    let _ = ::log::set_logger(&Facade);
    ::log::set_max_level(match level {
        Level::Error => ::log::LevelFilter::Error,
        Level::Warn => ::log::LevelFilter::Warn,
        Level::Info => ::log::LevelFilter::Info,
        Level::Debug => ::log::LevelFilter::Debug,
        Level::Trace => ::log::LevelFilter::Trace,
    });
}

/// `__log_line!(Level; key = value, …; "message {}", …)`, the fields being optional.
///
/// `key = value` takes what serde serializes, `key:% = value` what `Display` shows, `key:? = value` what `Debug` shows.
#[doc(hidden)]
#[macro_export]
macro_rules! __log_line {
    ($level:ident; $($key:ident $(:$how:tt)? = $value:expr),+ $(,)?; $($message:tt)+) => {
        $crate::log::Line::new($crate::log::Level::$level, ::core::format_args!($($message)+))
            $(.field(::core::stringify!($key), $crate::__log_value!($($how)? $value)))+
            .send()
    };
    ($level:ident; $($message:tt)+) => {
        $crate::log::Line::new($crate::log::Level::$level, ::core::format_args!($($message)+)).send()
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __log_value {
    (% $value:expr) => {
        &::std::format!("{}", $value)
    };
    (? $value:expr) => {
        &::std::format!("{:?}", $value)
    };
    ($value:expr) => {
        &$value
    };
}

/// Logs an event: something is broken. See [the module](crate::log).
///
/// ```
/// dormouse_sdk::log::error!(slug = "menu"; "card {}", 7);
/// ```
#[macro_export]
#[doc(hidden)]
macro_rules! __log_error {
    ($($line:tt)+) => { $crate::__log_line!(Error; $($line)+) };
}

/// Logs an event: something is odd. See [the module](crate::log).
///
/// ```
/// dormouse_sdk::log::warn!(slug = "menu"; "card {}", 7);
/// ```
#[macro_export]
#[doc(hidden)]
macro_rules! __log_warn {
    ($($line:tt)+) => { $crate::__log_line!(Warn; $($line)+) };
}

/// Logs an event: something worth knowing happened. See [the module](crate::log).
///
/// ```
/// dormouse_sdk::log::info!(slug = "menu"; "card {}", 7);
/// ```
#[macro_export]
#[doc(hidden)]
macro_rules! __log_info {
    ($($line:tt)+) => { $crate::__log_line!(Info; $($line)+) };
}

/// Logs an event: for whoever looks for a fault. See [the module](crate::log).
///
/// ```
/// dormouse_sdk::log::debug!(slug = "menu"; "card {}", 7);
/// ```
#[macro_export]
#[doc(hidden)]
macro_rules! __log_debug {
    ($($line:tt)+) => { $crate::__log_line!(Debug; $($line)+) };
}

/// Logs an event: for whoever looks for it long. See [the module](crate::log).
///
/// ```
/// dormouse_sdk::log::trace!(slug = "menu"; "card {}", 7);
/// ```
#[macro_export]
#[doc(hidden)]
macro_rules! __log_trace {
    ($($line:tt)+) => { $crate::__log_line!(Trace; $($line)+) };
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a line that is not there fails the test")]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Value, json};

    use crate::log;
    use crate::testing::Tenant;

    fn logged(work: impl FnOnce()) -> Vec<Value> {
        let tenant = Tenant::new();
        tenant.enter(work);
        tenant.logs()
    }

    #[test]
    fn a_line_has_its_level_message_and_fields() {
        let slug = String::from("a \"b\"\n");
        let lines = logged(|| {
            log::error!("plain");
            log::debug!(slug = slug, n = 7, shown:% = 1.5, debugged:? = Some(1); "with {}", "fields");
        });
        assert_eq!(lines[0], json!({ "level": "error", "message": "plain" }));
        let fields = json!({
            "level": "debug", "message": "with fields",
            "slug": "a \"b\"\n", "n": 7, "shown": "1.5", "debugged": "Some(1)",
        });
        assert_eq!(lines[1], fields);
    }

    #[test]
    fn a_line_stays_short_enough_to_be_an_event() {
        let long = "ü".repeat(10_000);
        let lines = logged(|| log::info!(first = 1, long = long, last = 2; "{long}"));
        assert_eq!(lines[0]["first"], 1);
        assert_eq!(lines[0].get("long"), None);
        assert_eq!(lines[0]["last"], 2);
        assert!(lines[0].to_string().len() < 8_192);
    }

    #[test]
    fn what_is_no_json_says_so() {
        let no_json = BTreeMap::from([((1, 2), 3)]);
        assert_eq!(logged(|| log::trace!(map = no_json; "m"))[0]["map"], "(no JSON)");
    }

    #[test]
    fn libraries_are_heard_after_capture() {
        let lines = logged(|| {
            log::capture(log::Level::Warn);
            ::log::warn!(target: "library", "from {}", "afar");
            ::log::info!("not this");
        });
        assert_eq!(lines, [json!({ "level": "warn", "message": "from afar", "module": "library" })]);
    }
}
