//! Request ids: one for each request, taken from `x-request-id` when it is well-formed, made otherwise.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, HeaderValue};

/// The header that carries it, in both directions.
pub const HEADER: HeaderName = HeaderName::from_static("x-request-id");

const BYTES_MAX: usize = 128;

/// A request's id: 1 to 128 of `A-Z a-z 0-9 . _ -`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// The id that the client gave, or a new one: a UUID of version 7 (RFC 9562).
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        let given =
            headers.get(HEADER).and_then(|value| value.to_str().ok()).filter(|text| is_well_formed(text));
        match given {
            Some(text) => Self(text.into()),
            None => Self::random(),
        }
    }

    fn random() -> Self {
        // An id names a request and guards nothing: a fast generator will do.
        let mut bits = [0; 10];
        fastrand::fill(&mut bits);
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let milliseconds = u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX);
        let uuid = uuid::Builder::from_unix_timestamp_millis(milliseconds, &bits).into_uuid();
        Self(uuid.to_string().into())
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id as shared text.
    #[must_use]
    pub fn shared(&self) -> Arc<str> {
        self.0.clone()
    }

    /// The id as a header's value.
    #[must_use]
    pub fn header_value(&self) -> HeaderValue {
        // Every character of an id may stand in a header.
        HeaderValue::from_str(&self.0).unwrap_or(HeaderValue::from_static("unknown"))
    }
}

fn is_well_formed(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=BYTES_MAX).contains(&text.len()) && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_ids_are_taken() {
        for (given, taken) in
            [("abc-1._Z", true), ("", false), ("a b", false), ("a\"b", false), (&*"x".repeat(129), false)]
        {
            let mut headers = HeaderMap::new();
            if let Ok(value) = HeaderValue::from_str(given) {
                headers.insert(HEADER, value);
            }
            assert_eq!(RequestId::of(&headers).as_str() == given, taken, "{given}");
        }
        assert_ne!(RequestId::of(&HeaderMap::new()), RequestId::of(&HeaderMap::new()));
    }
}
