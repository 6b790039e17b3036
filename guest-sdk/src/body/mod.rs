//! Bodies, incoming and outgoing.
//!
//! An incoming body stays with the host until it is read, chunk by chunk, and only as far as it is read. An outgoing
//! body is bytes, or an incoming body that is passed on as it arrives.

#[cfg(feature = "async")]
pub(crate) mod asynchronous;

use std::borrow::Cow;
use std::fmt::{self, Debug, Formatter};
use std::str::Utf8Error;
use std::{iter, mem};

use serde::de::DeserializeOwned;

use crate::StatusCode;
use crate::host::Incoming;

/// How much memory a claimed Content-Length alone may reserve, in bytes.
const RESERVE_BYTES_MAX: u64 = 1024 * 1024;

/// Why a handler that is not async cannot use a body of [`crate::asynchronous`].
#[cfg(feature = "async")]
pub(crate) const ASYNCHRONOUS: &str = "it takes an async handler to read or send this body";

/// Why a body could not be read. With `?` it becomes a response that says so: a 4xx if the body is the caller's, a
/// 502 if it is that of a response that the function [fetched](crate::fetch).
///
/// ```
/// use dormouse_sdk::{Body, BodyError, StatusCode};
///
/// let error = Body::from("seven").json::<u8>().unwrap_err();
/// assert!(matches!(error, BodyError::NotJson(_)));
/// assert_eq!(error.status(), StatusCode::BAD_REQUEST);
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BodyError {
    /// The body ended before it was complete; the host's reason is for the log, not for the caller.
    #[error("the body is incomplete")]
    Incomplete(String),
    /// The body is larger than this server, or this function, accepts.
    #[error("the body is too large")]
    TooLarge,
    /// The body is not UTF-8.
    #[error("the body is not UTF-8: {0}")]
    NotUtf8(#[from] Utf8Error),
    /// The body is not JSON, or not the JSON that was asked for.
    #[error("the body is not the expected JSON: {0}")]
    NotJson(#[from] serde_json::Error),
    /// The body is not of the media type that was asked for.
    #[error("the body is not {expected}: its Content-Type says otherwise")]
    WrongType {
        /// The media type that was asked for.
        expected: &'static str,
    },
    /// The body is not the form that was asked for.
    #[error("the body is not the expected form: {0}")]
    NotForm(String),
    /// The body of a fetched response could not be read.
    #[error("a fetched response cannot be used: {0}")]
    Fetched(Box<Self>),
}

impl BodyError {
    /// The status that tells the caller so.
    ///
    /// ```
    /// assert_eq!(dormouse_sdk::BodyError::TooLarge.status(), 413);
    /// ```
    pub fn status(&self) -> StatusCode {
        match self {
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::WrongType { .. } => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Incomplete(_) | Self::NotUtf8(_) | Self::NotJson(_) | Self::NotForm(_) => {
                StatusCode::BAD_REQUEST
            }
            Self::Fetched(_) => StatusCode::BAD_GATEWAY,
        }
    }
}

/// The body of a request or a response.
///
/// ```
/// use dormouse_sdk::Body;
///
/// assert_eq!(Body::from("text").text()?, "text");
/// assert_eq!(Body::from(vec![1, 2]).bytes()?, [1, 2]);
/// assert_eq!(Body::from("[1, 2]").json::<Vec<u8>>()?, [1, 2]);
/// # Ok::<(), dormouse_sdk::BodyError>(())
/// ```
pub struct Body {
    pub(crate) content: Content,
    terms: Terms,
}

/// Where the bytes of a body are.
pub(crate) enum Content {
    Here(Cow<'static, [u8]>),
    Incoming(Incoming),
    /// An [`asynchronous::Body`], which only an async handler can send. Its type is hidden so that other functions do
    /// not import what dropping it takes.
    #[cfg(feature = "async")]
    Asynchronous(Box<dyn std::any::Any>),
}

/// How much of a body may be read, and whose fault it is if it cannot be.
#[derive(Clone, Copy)]
struct Terms {
    bytes_max: u64,
    fetched: bool,
}

impl Terms {
    const FREE: Self = Self { bytes_max: u64::MAX, fetched: false };

    fn limit(&mut self, bytes_max: u64) {
        self.bytes_max = self.bytes_max.min(bytes_max);
    }

    /// Refuses a body whose sender says that it is too large.
    fn admit(&self, remaining: Option<u64>) -> Result<(), BodyError> {
        if remaining.unwrap_or(0) > self.bytes_max { Err(BodyError::TooLarge) } else { Ok(()) }
    }

    fn count(&mut self, chunk: Option<&Vec<u8>>) -> Result<(), BodyError> {
        let bytes = chunk.map_or(0, Vec::len) as u64;
        self.bytes_max = self.bytes_max.checked_sub(bytes).ok_or(BodyError::TooLarge)?;
        Ok(())
    }

    fn blame(&self, error: BodyError) -> BodyError {
        if self.fetched { BodyError::Fetched(Box::new(error)) } else { error }
    }

    fn text(&self, bytes: Vec<u8>) -> Result<String, BodyError> {
        String::from_utf8(bytes).map_err(|error| self.blame(error.utf8_error().into()))
    }

    fn json<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, BodyError> {
        serde_json::from_slice(bytes).map_err(|error| self.blame(error.into()))
    }
}

impl Body {
    /// A body without bytes.
    ///
    /// ```
    /// assert!(dormouse_sdk::Body::empty().bytes()?.is_empty());
    /// # Ok::<(), dormouse_sdk::BodyError>(())
    /// ```
    pub const fn empty() -> Self {
        Self::new(Content::Here(Cow::Borrowed(&[])))
    }

    pub(crate) const fn new(content: Content) -> Self {
        Self { content, terms: Terms::FREE }
    }

    /// Says that this is no caller's body but that of a response, so that its faults are not blamed on the caller.
    pub(crate) fn of_fetched(mut self) -> Self {
        self.terms.fetched = true;
        self
    }

    /// Refuses to read more than `bytes_max` bytes: a longer body is an error, [`BodyError::TooLarge`].
    ///
    /// The server has a limit of its own, 10 MiB unless its operator chose another.
    ///
    /// ```
    /// use dormouse_sdk::{Body, BodyError};
    ///
    /// assert_eq!(Body::from("short").limit(5).text()?, "short");
    /// assert!(matches!(Body::from("too long").limit(5).text(), Err(BodyError::TooLarge)));
    /// # Ok::<(), BodyError>(())
    /// ```
    #[must_use]
    pub fn limit(mut self, bytes_max: u64) -> Self {
        self.terms.limit(bytes_max);
        self
    }

    /// The next piece of the body, as soon as there is one; `None` at its end.
    ///
    /// ```
    /// let mut body = dormouse_sdk::Body::from("whole");
    /// assert_eq!(body.read_chunk()?.as_deref(), Some(&b"whole"[..]));
    /// assert_eq!(body.read_chunk()?, None);
    /// # Ok::<(), dormouse_sdk::BodyError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If the body is incomplete or too large.
    pub fn read_chunk(&mut self) -> Result<Option<Vec<u8>>, BodyError> {
        let chunk = self.next_chunk();
        if chunk.is_err() {
            // What comes after the fault is not read.
            self.content = Content::Here(Cow::Borrowed(&[]));
        }
        chunk.map_err(|error| self.terms.blame(error))
    }

    fn next_chunk(&mut self) -> Result<Option<Vec<u8>>, BodyError> {
        let chunk = match &mut self.content {
            Content::Here(bytes) => Some(mem::take(bytes).into_owned()).filter(|bytes| !bytes.is_empty()),
            Content::Incoming(incoming) => {
                self.terms.admit(incoming.remaining())?;
                incoming.read()?
            }
            #[cfg(feature = "async")]
            Content::Asynchronous(_) => return Err(BodyError::Incomplete(ASYNCHRONOUS.to_owned())),
        };
        self.terms.count(chunk.as_ref())?;
        Ok(chunk)
    }

    /// The pieces of the body as they arrive.
    ///
    /// ```
    /// let mut bytes = 0;
    /// for chunk in dormouse_sdk::Body::from("counted").chunks() {
    ///     bytes += chunk?.len();
    /// }
    /// assert_eq!(bytes, 7);
    /// # Ok::<(), dormouse_sdk::BodyError>(())
    /// ```
    pub fn chunks(mut self) -> impl Iterator<Item = Result<Vec<u8>, BodyError>> {
        iter::from_fn(move || self.read_chunk().transpose())
    }

    /// The whole body.
    ///
    /// ```
    /// assert_eq!(dormouse_sdk::Body::from("raw").bytes()?, b"raw");
    /// # Ok::<(), dormouse_sdk::BodyError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If the body is incomplete or too large.
    pub fn bytes(mut self) -> Result<Vec<u8>, BodyError> {
        self.read_all()
    }

    fn read_all(&mut self) -> Result<Vec<u8>, BodyError> {
        let mut bytes = self.read_chunk()?.unwrap_or_default();
        if let Content::Incoming(incoming) = &self.content {
            bytes.reserve_exact(incoming.remaining().unwrap_or(0).min(RESERVE_BYTES_MAX) as usize);
            while let Some(chunk) = self.read_chunk()? {
                bytes.extend(chunk);
            }
        }
        Ok(bytes)
    }

    /// The whole body as text.
    ///
    /// ```
    /// assert_eq!(dormouse_sdk::Body::from("text").text()?, "text");
    /// # Ok::<(), dormouse_sdk::BodyError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If the body is incomplete, too large, or not UTF-8.
    pub fn text(mut self) -> Result<String, BodyError> {
        let bytes = self.read_all()?;
        self.terms.text(bytes)
    }

    /// The whole body, read as JSON.
    ///
    /// ```
    /// use dormouse_sdk::Body;
    ///
    /// #[derive(serde::Deserialize)]
    /// struct Order { item: String }
    ///
    /// let order: Order = Body::from(r#"{"item": "cheese"}"#).json()?;
    /// assert_eq!(order.item, "cheese");
    /// # Ok::<(), dormouse_sdk::BodyError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If the body is incomplete, too large, or not the JSON of a `T`.
    pub fn json<T: DeserializeOwned>(mut self) -> Result<T, BodyError> {
        let bytes = self.read_all()?;
        self.terms.json(&bytes)
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::empty()
    }
}

impl Debug for Body {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.content {
            Content::Here(bytes) => write!(f, "Body({} bytes)", bytes.len()),
            Content::Incoming(_) => f.write_str("Body(incoming)"),
            #[cfg(feature = "async")]
            Content::Asynchronous(_) => f.write_str("Body(asynchronous)"),
        }
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Self::new(Content::Here(Cow::Borrowed(text.as_bytes())))
    }
}

impl From<&'static [u8]> for Body {
    fn from(bytes: &'static [u8]) -> Self {
        Self::new(Content::Here(Cow::Borrowed(bytes)))
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        text.into_bytes().into()
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Self::new(Content::Here(Cow::Owned(bytes)))
    }
}

impl From<()> for Body {
    fn from((): ()) -> Self {
        Self::empty()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;
    use crate::Request;
    use crate::testing::TestRequest;

    #[test]
    fn bodies_are_made_of_what_is_at_hand() {
        assert!(Body::empty().bytes().unwrap().is_empty());
        assert_eq!(Body::from("static").text().unwrap(), "static");
        assert_eq!(Body::from(String::from("owned")).bytes().unwrap(), b"owned");
        assert_eq!(Body::from(vec![b'7']).json::<u8>().unwrap(), 7);
    }

    #[test]
    fn chunks_end() {
        let chunks: Vec<_> = Body::from("one").chunks().map(Result::unwrap).collect();
        assert_eq!(chunks, [b"one"]);
        assert_eq!(Body::empty().chunks().count(), 0);
    }

    #[test]
    fn mistakes_say_what_was_wrong() {
        let not_utf8 = Body::from(vec![0xff]).text().unwrap_err();
        assert_eq!(not_utf8.status(), 400);
        let message = "the body is not UTF-8: invalid utf-8 sequence of 1 bytes from index 0";
        assert_eq!(not_utf8.to_string(), message);
        let not_json = Body::from("{").json::<u8>().unwrap_err();
        assert!(not_json.to_string().starts_with("the body is not the expected JSON: "));
        assert_eq!(BodyError::TooLarge.status(), 413);
    }

    #[test]
    fn a_limit_holds_and_the_smaller_one_wins() {
        let read = |bytes_max| Body::from("12345").limit(bytes_max).limit(100).bytes();
        assert_eq!(read(5).unwrap(), b"12345");
        assert_eq!(read(4).unwrap_err().status(), 413);
        assert_eq!(Body::from("12345").limit(4).chunks().filter(Result::is_err).count(), 1);
        let chunked = |bytes_max| {
            let request: Request = TestRequest::post("/").chunks(["123", "", "45"]).into();
            request.into_body().limit(bytes_max).text()
        };
        assert_eq!(chunked(5).unwrap(), "12345");
        assert_eq!(chunked(4).unwrap_err().status(), 413);
    }

    #[test]
    fn what_was_fetched_is_not_the_callers_fault() {
        let error = Body::from("{").of_fetched().json::<u8>().unwrap_err();
        assert_eq!(error.status(), 502);
        assert!(error.to_string().starts_with("a fetched response cannot be used: the body is not"));
        assert_eq!(Body::from("12345").of_fetched().limit(4).bytes().unwrap_err().status(), 502);
    }
}
