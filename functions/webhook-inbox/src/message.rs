//! A message as it arrives, as it is kept and as it is shown. Pure: requests in, texts out.

use dormouse_sdk::{HeaderMap, Request, RequestExt, Result};
use serde::{Deserialize, Serialize};

/// Largest body that is kept, in bytes. A row of the database holds 1 MiB.
const BODY_BYTES_MAX: u64 = 512 * 1024;

/// Most messages of a page.
const PAGE_MAX: u32 = 100;

/// Names and values in the order in which they came.
type Headers = Vec<(String, String)>;

/// A message as it is kept.
#[derive(Debug, Deserialize)]
pub(crate) struct Message {
    #[serde(default)]
    pub(crate) id: i64,
    #[serde(default)]
    pub(crate) received_at: String,
    /// What the address has below `/in/`.
    pub(crate) source: String,
    pub(crate) method: String,
    pub(crate) query: String,
    /// As JSON: pairs of names and values.
    pub(crate) headers: String,
    pub(crate) body: Vec<u8>,
}

/// A message in a list.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Summary {
    pub(crate) id: i64,
    received_at: String,
    source: String,
    method: String,
    bytes: i64,
    /// How its body begins.
    #[serde(deserialize_with = "text")]
    preview: String,
}

/// A message with everything.
#[derive(Debug, Serialize)]
pub(crate) struct Shown {
    id: i64,
    received_at: String,
    source: String,
    method: String,
    query: String,
    headers: Headers,
    bytes: usize,
    /// The body, if it is text.
    text: Option<String>,
}

/// Which messages to list.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Search {
    /// A text in the body, the headers or the query; upper and lower case of ASCII are the same.
    #[serde(default)]
    pub(crate) q: String,
    /// Only those of this source.
    pub(crate) source: Option<String>,
    /// Only those with a smaller id.
    pub(crate) before: Option<i64>,
    limit: Option<u32>,
}

impl Search {
    pub(crate) fn limit(&self) -> usize {
        self.limit.unwrap_or(20).clamp(1, PAGE_MAX) as usize
    }
}

impl Message {
    /// Reads a request to the end of its body.
    pub(crate) fn receive(request: Request) -> Result<Self> {
        Ok(Self {
            id: 0,
            received_at: String::new(),
            source: request.param("source")?,
            method: request.method().to_string(),
            query: request.uri().query().unwrap_or_default().to_owned(),
            headers: serde_json::to_string(&sent(request.headers()))?,
            body: request.into_body().limit(BODY_BYTES_MAX).bytes()?,
        })
    }
}

impl From<Message> for Shown {
    fn from(message: Message) -> Self {
        let Message { id, received_at, source, method, query, headers, body } = message;
        let headers = serde_json::from_str(&headers).unwrap_or_default();
        let bytes = body.len();
        Self { id, received_at, source, method, query, headers, bytes, text: String::from_utf8(body).ok() }
    }
}

/// The headers of the sender, without those that the host adds.
fn sent(headers: &HeaderMap) -> Headers {
    let of_sender = headers.iter().filter(|(name, _)| !name.as_str().starts_with("spin-"));
    of_sender
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect()
}

/// Reads bytes, which may end within a character, as text.
fn text<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let bytes = Vec::<u8>::deserialize(deserializer)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
