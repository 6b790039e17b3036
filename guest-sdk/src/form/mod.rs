//! Forms: `application/x-www-form-urlencoded`, in bodies and in queries, and `multipart/form-data`.

mod multipart;

use serde::de::DeserializeOwned;

pub use multipart::{Field, Multipart};

use crate::BodyError;

pub(crate) const URLENCODED: &str = "application/x-www-form-urlencoded";
pub(crate) const MULTIPART: &str = "multipart/form-data";

/// Largest body of a form without files, in bytes: what people type is far smaller.
pub(crate) const FORM_BYTES_MAX: u64 = 1 << 20;

/// Reads pairs of names and values; in words for the caller if they do not fit.
pub(crate) fn read<T: DeserializeOwned>(form: &[u8]) -> Result<T, String> {
    serde_html_form::from_bytes(form).map_err(|error| error.to_string())
}

/// Refuses a body whose `Content-Type` is not the expected one, whatever its parameters.
pub(crate) fn check_type(content_type: Option<&str>, expected: &'static str) -> Result<(), BodyError> {
    let essence = content_type.and_then(|value| value.split(';').next()).unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case(expected) { Ok(()) } else { Err(BodyError::WrongType { expected }) }
}
