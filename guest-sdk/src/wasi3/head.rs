//! Header fields, in the words of the `http` crate and in those of `wasi:http`.

use http::{HeaderMap, HeaderName, HeaderValue};
use wasip3::http::types::Fields;

pub(super) use crate::wasi::content_length;
use crate::{Result, log};

/// Reads header fields into a map.
pub(super) fn read_fields(fields: &Fields, headers: &mut HeaderMap) -> Result<()> {
    let entries = fields.copy_all();
    headers.try_reserve(entries.len())?;
    for (name, value) in entries {
        headers.try_append(HeaderName::try_from(name)?, HeaderValue::try_from(value)?)?;
    }
    Ok(())
}

/// The headers as the host wants them, without those that it refuses.
pub(super) fn fields(headers: &HeaderMap) -> Fields {
    let entry = |(name, value): (&HeaderName, &HeaderValue)| (name.to_string(), value.as_bytes().to_vec());
    let entries: Vec<_> = headers.iter().map(entry).collect();
    Fields::from_list(&entries).unwrap_or_else(|_| {
        let fields = Fields::new();
        for (name, value) in &entries {
            if let Err(error) = fields.append(name, value) {
                log::error!("the header {name} is left out: {error}");
            }
        }
        fields
    })
}
