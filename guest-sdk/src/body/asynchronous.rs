//! Bodies that are read, and written, without keeping the rest of the function waiting.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt::{self, Debug, Formatter};
use std::future::poll_fn;
use std::mem;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Poll, Waker};

use http::HeaderMap;
use http::header::{CONTENT_TYPE, HeaderValue};
use serde::de::DeserializeOwned;

use super::{RESERVE_BYTES_MAX, Terms};
use crate::host::asynchronous::Incoming;
use crate::{BodyError, Error, Multipart, Result, form, log};

/// The body of a request, or of a fetched response, in an async handler.
///
/// It is read with `.await`, and it is sent like any other body: it is a response itself, or part of one.
///
/// ```
/// use dormouse_sdk::asynchronous::{Body, Request};
/// use dormouse_sdk::{Result, function};
///
/// #[function]
/// async fn handle(request: Request) -> Result<String> {
///     Ok(request.into_body().text().await?.to_uppercase())
/// }
///
/// # use dormouse_sdk::testing::{Tenant, TestRequest};
/// let response = Tenant::new().call_async(handle, TestRequest::post("/").chunks(["one ", "two"]));
/// assert_eq!(response.text(), "ONE TWO");
/// ```
pub struct Body {
    pub(crate) content: Content,
    terms: Terms,
    content_type: Option<HeaderValue>,
}

/// Where the bytes of a body are.
pub(crate) enum Content {
    Here(Cow<'static, [u8]>),
    Incoming(Incoming),
    Written(Written),
}

impl Body {
    /// A body without bytes.
    ///
    /// ```
    /// let response = http::Response::new(dormouse_sdk::asynchronous::Body::empty());
    /// ```
    pub const fn empty() -> Self {
        Self::new(Content::Here(Cow::Borrowed(&[])))
    }

    pub(crate) const fn new(content: Content) -> Self {
        Self { content, terms: Terms::FREE, content_type: None }
    }

    /// A body that is written while it is sent: `write` goes on as fast as the caller reads, after the handler has
    /// returned. It stops at an `await` when the caller goes. If it fails, the log gets the reason, and the caller sees
    /// that the body is not complete.
    ///
    /// ```
    /// use dormouse_sdk::asynchronous::{Body, Database};
    /// use dormouse_sdk::{Result, function};
    ///
    /// #[function]
    /// async fn export() -> Result<Body> {
    ///     let db = Database::open().await?;
    ///     let mut rows = db.query("SELECT 'Ada' AS name UNION SELECT 'Bob'", ()).await?;
    ///     Ok(Body::stream(async move |out| {
    ///         while let Some(row) = rows.next().await? {
    ///             out.write(row.get::<String>("name")? + "\n").await;
    ///         }
    ///         Ok(())
    ///     }))
    /// }
    ///
    /// # use dormouse_sdk::testing::{Tenant, TestRequest};
    /// assert_eq!(Tenant::new().call_async(export, TestRequest::get("/")).text(), "Ada\nBob\n");
    /// ```
    pub fn stream(write: impl AsyncFnOnce(&mut Writer) -> Result<()> + 'static) -> Self {
        let slot = Rc::<RefCell<Slot>>::default();
        let mut writer = Writer(Rc::clone(&slot));
        let writing = Box::pin(async move { write(&mut writer).await });
        Self::new(Content::Written(Written { slot, writing: Some(writing), failed: None }))
    }

    /// What a body is to an async handler.
    pub(crate) fn of(body: impl Into<crate::Body>) -> Self {
        match body.into().content {
            super::Content::Here(bytes) => Self::new(Content::Here(bytes)),
            super::Content::Asynchronous(body) => {
                body.downcast().map_or_else(|_| Self::empty(), |body| *body)
            }
            super::Content::Incoming(incoming) => Incoming::of(incoming)
                .map_or_else(Self::empty, |incoming| Self::new(Content::Incoming(incoming))),
        }
    }

    /// Says which headers came with it.
    pub(crate) fn with_head(mut self, headers: &HeaderMap) -> Self {
        self.content_type = headers.get(CONTENT_TYPE).cloned();
        self
    }

    /// Says that this is no caller's body but that of a response, so that its faults are not blamed on the caller.
    pub(crate) fn of_fetched(mut self) -> Self {
        self.terms.fetched = true;
        self
    }

    /// Refuses to read more than `bytes_max` bytes: a longer body is an error, [`BodyError::TooLarge`].
    ///
    /// ```
    /// use dormouse_sdk::asynchronous::Body;
    ///
    /// # dormouse_sdk::testing::Tenant::new().enter_async(async {
    /// assert_eq!(Body::from("short").limit(5).text().await?, "short");
    /// assert_eq!(Body::from("too long").limit(5).text().await.unwrap_err().status(), 413);
    /// # Ok::<(), dormouse_sdk::BodyError>(()) })?;
    /// # Ok::<(), dormouse_sdk::BodyError>(())
    /// ```
    #[must_use]
    pub fn limit(mut self, bytes_max: u64) -> Self {
        self.terms.limit(bytes_max);
        self
    }

    /// The next piece of the body, as soon as there is one; `None` at its end.
    ///
    /// ```
    /// # dormouse_sdk::testing::Tenant::new().enter_async(async {
    /// let mut body = dormouse_sdk::asynchronous::Body::from("whole");
    /// assert_eq!(body.read_chunk().await?.as_deref(), Some(&b"whole"[..]));
    /// assert_eq!(body.read_chunk().await?, None);
    /// # Ok::<(), dormouse_sdk::BodyError>(()) })?;
    /// # Ok::<(), dormouse_sdk::BodyError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If the body is incomplete or too large, or if an earlier read of an incoming body was given up: what it had
    /// read is lost.
    pub async fn read_chunk(&mut self) -> Result<Option<Vec<u8>>, BodyError> {
        let chunk = self.next_chunk().await;
        if chunk.is_err() {
            // What comes after the fault is not read.
            self.content = Content::Here(Cow::Borrowed(&[]));
        }
        chunk.map_err(|error| self.terms.blame(error))
    }

    async fn next_chunk(&mut self) -> Result<Option<Vec<u8>>, BodyError> {
        let chunk = match &mut self.content {
            Content::Here(bytes) => Some(mem::take(bytes).into_owned()).filter(|bytes| !bytes.is_empty()),
            Content::Incoming(incoming) => {
                self.terms.admit(incoming.remaining())?;
                incoming.read().await?
            }
            Content::Written(written) => written.read().await?,
        };
        self.terms.count(chunk.as_ref())?;
        Ok(chunk)
    }

    /// The whole body.
    ///
    /// ```
    /// # dormouse_sdk::testing::Tenant::new().enter_async(async {
    /// assert_eq!(dormouse_sdk::asynchronous::Body::from("raw").bytes().await?, b"raw");
    /// # Ok::<(), dormouse_sdk::BodyError>(()) })?;
    /// # Ok::<(), dormouse_sdk::BodyError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If the body is incomplete or too large.
    pub async fn bytes(mut self) -> Result<Vec<u8>, BodyError> {
        self.read_all().await
    }

    async fn read_all(&mut self) -> Result<Vec<u8>, BodyError> {
        let mut bytes = self.read_chunk().await?.unwrap_or_default();
        if let Content::Incoming(incoming) = &self.content {
            bytes.reserve_exact(incoming.remaining().unwrap_or(0).min(RESERVE_BYTES_MAX) as usize);
        }
        while let Some(chunk) = self.read_chunk().await? {
            bytes.extend(chunk);
        }
        Ok(bytes)
    }

    /// The whole body as text.
    ///
    /// ```
    /// # dormouse_sdk::testing::Tenant::new().enter_async(async {
    /// assert_eq!(dormouse_sdk::asynchronous::Body::from("text").text().await?, "text");
    /// # Ok::<(), dormouse_sdk::BodyError>(()) })?;
    /// # Ok::<(), dormouse_sdk::BodyError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If the body is incomplete, too large, or not UTF-8.
    pub async fn text(mut self) -> Result<String, BodyError> {
        let bytes = self.read_all().await?;
        self.terms.text(bytes)
    }

    /// The whole body, read as JSON.
    ///
    /// ```
    /// # dormouse_sdk::testing::Tenant::new().enter_async(async {
    /// let numbers: Vec<u8> = dormouse_sdk::asynchronous::Body::from("[1, 2]").json().await?;
    /// assert_eq!(numbers, [1, 2]);
    /// # Ok::<(), dormouse_sdk::BodyError>(()) })?;
    /// # Ok::<(), dormouse_sdk::BodyError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If the body is incomplete, too large, or not the JSON of a `T`.
    pub async fn json<T: DeserializeOwned>(mut self) -> Result<T, BodyError> {
        let bytes = self.read_all().await?;
        self.terms.json(&bytes)
    }

    /// The body as a form (`application/x-www-form-urlencoded`), of at most 1 MiB.
    ///
    /// ```
    /// use dormouse_sdk::Result;
    /// use dormouse_sdk::asynchronous::Request;
    ///
    /// #[derive(serde::Deserialize)]
    /// struct Greeting { name: String }
    ///
    /// async fn greet(request: Request) -> Result<String> {
    ///     let greeting: Greeting = request.into_body().form().await?;
    ///     Ok(format!("Hello, {}", greeting.name))
    /// }
    ///
    /// # use dormouse_sdk::testing::{Tenant, TestRequest};
    /// let form = TestRequest::post("/").form(&[("name", "Ada & Bob")]);
    /// assert_eq!(Tenant::new().call_async(greet, form).text(), "Hello, Ada & Bob");
    /// ```
    ///
    /// # Errors
    ///
    /// If it is no form or not the form of a `T`, is too large, or does not arrive.
    pub async fn form<T: DeserializeOwned>(self) -> Result<T, BodyError> {
        form::check_type(self.content_type(), form::URLENCODED)?;
        let bytes = self.limit(form::FORM_BYTES_MAX).bytes().await?;
        form::read(&bytes).map_err(BodyError::NotForm)
    }

    /// The body as a form with files (`multipart/form-data`). It is read as a whole.
    ///
    /// ```
    /// use dormouse_sdk::Result;
    /// use dormouse_sdk::asynchronous::Request;
    ///
    /// async fn upload(request: Request) -> Result<String> {
    ///     let form = request.into_body().limit(100_000).multipart().await?;
    ///     Ok(format!("{} bytes", form.field("portrait")?.bytes().len()))
    /// }
    ///
    /// # use dormouse_sdk::testing::{Tenant, TestRequest};
    /// let body = "--x\r\nContent-Disposition: form-data; name=\"portrait\"\r\n\r\nPNG\r\n--x--";
    /// let form = TestRequest::post("/").header("content-type", "multipart/form-data; boundary=x").body(body);
    /// assert_eq!(Tenant::new().call_async(upload, form).text(), "3 bytes");
    /// ```
    ///
    /// # Errors
    ///
    /// If it is no such form, is too large, or does not arrive.
    pub async fn multipart(mut self) -> Result<Multipart, BodyError> {
        form::check_type(self.content_type(), form::MULTIPART)?;
        let bytes = self.read_all().await?;
        Multipart::parse(self.content_type().unwrap_or_default(), bytes)
    }

    fn content_type(&self) -> Option<&str> {
        self.content_type.as_ref()?.to_str().ok()
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
            Content::Written(_) => f.write_str("Body(written)"),
        }
    }
}

macro_rules! body_from {
    ($($from:ty),*) => {$(
        impl From<$from> for Body {
            fn from(bytes: $from) -> Self {
                Self::of(bytes)
            }
        }
    )*};
}

body_from!(&'static str, &'static [u8], String, Vec<u8>, ());

/// To be sent by an async handler.
impl From<Body> for crate::Body {
    fn from(body: Body) -> Self {
        match body.content {
            Content::Here(bytes) => Self { content: super::Content::Here(bytes), terms: body.terms },
            _ => Self::new(super::Content::Asynchronous(Box::new(body))),
        }
    }
}

/// Says why a response is not sent to its end.
pub(crate) fn log_broken(error: &BodyError) {
    match error {
        BodyError::Incomplete(reason) => log::error!("a body breaks off: {reason}"),
        error => log::error!("a body breaks off: {error}"),
    }
}

/// What is between the writer of a body and its reader.
#[derive(Default)]
struct Slot {
    /// The piece that is written and not yet read.
    piece: Option<Vec<u8>>,
    /// Wakes the writer when the piece has been read.
    writer: Option<Waker>,
}

/// A body being written.
pub(crate) struct Written {
    slot: Rc<RefCell<Slot>>,
    writing: Option<Pin<Box<dyn Future<Output = Result<()>>>>>,
    /// Why the writing failed, until it is told after the last piece.
    failed: Option<Error>,
}

impl Written {
    /// Lets the body be written until there is a piece of it.
    async fn read(&mut self) -> Result<Option<Vec<u8>>, BodyError> {
        poll_fn(|context| {
            if let Some(writing) = &mut self.writing
                && let Poll::Ready(ended) = writing.as_mut().poll(context)
            {
                self.writing = None;
                self.failed = ended.err();
            }
            let Slot { piece, writer } = self.slot.take();
            if let Some(writer) = writer {
                writer.wake();
            }
            if piece.is_some() {
                return Poll::Ready(Ok(piece));
            }
            match (self.failed.take(), &self.writing) {
                (Some(error), _) => Poll::Ready(Err(BodyError::Incomplete(error.to_string()))),
                (None, None) => Poll::Ready(Ok(None)),
                (None, Some(_)) => Poll::Pending,
            }
        })
        .await
    }
}

/// What a [streamed](Body::stream) body is written to.
///
/// ```
/// use dormouse_sdk::Result;
/// use dormouse_sdk::asynchronous::{Body, Writer};
///
/// async fn count(out: &mut Writer) -> Result<()> {
///     for number in 1..=3 {
///         out.write(format!("{number} ")).await;
///     }
///     Ok(())
/// }
///
/// # use dormouse_sdk::testing::{Tenant, TestRequest};
/// let response = Tenant::new().call_async(async || Body::stream(count), TestRequest::get("/"));
/// assert_eq!(response.text(), "1 2 3 ");
/// ```
pub struct Writer(Rc<RefCell<Slot>>);

impl Writer {
    /// Writes a piece of the body and waits until there is room for the next. [`Writer`] has an example.
    pub async fn write(&mut self, bytes: impl Into<Vec<u8>>) {
        let bytes = bytes.into();
        if bytes.is_empty() {
            return;
        }
        // A write that was given up may have left a piece.
        self.all_read().await;
        self.0.borrow_mut().piece = Some(bytes);
        self.all_read().await;
    }

    async fn all_read(&self) {
        poll_fn(|context| {
            let mut slot = self.0.borrow_mut();
            if slot.piece.is_none() {
                return Poll::Ready(());
            }
            slot.writer = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

impl Debug for Writer {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("Writer")
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::future::pending;
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::{Context, Wake};

    use super::*;
    use crate::testing::Tenant;

    /// Writes, and does not wait for the piece to be read.
    fn give_up_writing(out: &mut Writer, bytes: &str, waker: &Waker) {
        assert!(pin!(out.write(bytes)).poll(&mut Context::from_waker(waker)).is_pending());
    }

    #[test]
    fn a_failure_right_after_a_piece_is_told_after_it() {
        Tenant::new().enter_async(async {
            let mut body = Body::stream(async |out| {
                give_up_writing(out, "the beginning", Waker::noop());
                Err(Error::internal("the ink is empty"))
            });
            assert_eq!(body.read_chunk().await.unwrap().unwrap(), b"the beginning");
            assert!(matches!(body.read_chunk().await, Err(BodyError::Incomplete(_))));
        });
    }

    #[test]
    fn a_piece_whose_write_is_given_up_is_not_lost() {
        Tenant::new().enter_async(async {
            let body = Body::stream(async |out| {
                give_up_writing(out, "one ", Waker::noop());
                out.write("two").await;
                Ok(())
            });
            assert_eq!(body.text().await.unwrap(), "one two");
        });
    }

    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[test]
    fn whoever_waits_in_a_write_is_woken_when_the_piece_is_read() {
        Tenant::new().enter_async(async {
            let woken = Arc::new(Woken(AtomicBool::new(false)));
            let waker = Waker::from(Arc::clone(&woken));
            let mut body = Body::stream(async move |out| {
                give_up_writing(out, "piece", &waker);
                pending().await
            });
            assert_eq!(body.read_chunk().await.unwrap().unwrap(), b"piece");
            assert!(woken.0.load(Ordering::Relaxed));
        });
    }
}
