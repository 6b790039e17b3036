//! What a card may be called and where it may lead. Pure: texts in, texts or refusals out.

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

use dormouse_sdk::{Error, Result, StatusCode, Uri};

/// Largest draft of a card, in bytes: room for the longest link and title.
pub(crate) const DRAFT_BYTES_MAX: u64 = 16 * 1024;

const LINK_BYTES_MAX: usize = 2_000;
const TITLE_BYTES_MAX: usize = 200;
const SLUG_BYTES_MAX: usize = 40;

/// The other addresses of this function, which no card can have.
const RESERVED: [&str; 4] = ["cards", "login", "logout", "owner"];

/// The id of a card: what follows the slash of its short address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Slug(pub(crate) String);

/// Why a text is no id.
#[derive(Debug)]
pub(crate) struct NoSlug;

impl Display for NoSlug {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "an id has 1 to {SLUG_BYTES_MAX} letters a to z, digits and hyphens, and is none of {}",
            RESERVED.join(", ")
        )
    }
}

impl FromStr for Slug {
    type Err = NoSlug;

    fn from_str(text: &str) -> Result<Self, NoSlug> {
        let is_part = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let fits = (1..=SLUG_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_part);
        if fits && !RESERVED.contains(&text) { Ok(Self(text.to_owned())) } else { Err(NoSlug) }
    }
}

pub(crate) fn refuse(reason: impl Display) -> Error {
    Error::status(StatusCode::UNPROCESSABLE_ENTITY, format!("This cannot be a card: {reason}."))
}

/// A link as it was written, if people can be sent there: not to `javascript:` and the like.
pub(crate) fn check(link: &str) -> Result<String> {
    let link = link.trim();
    let is_web = link.parse::<Uri>().is_ok_and(|uri| {
        let has_host = uri.host().is_some_and(|host| !host.is_empty());
        has_host && matches!(uri.scheme_str(), Some("http" | "https"))
    });
    if is_web && link.len() <= LINK_BYTES_MAX {
        return Ok(link.to_owned());
    }
    Err(refuse(format!("its link is no http or https address of at most {LINK_BYTES_MAX} characters")))
}

pub(crate) fn title(title: &str) -> Result<String> {
    if title.len() <= TITLE_BYTES_MAX {
        return Ok(title.trim().to_owned());
    }
    Err(refuse(format!("its title is longer than {TITLE_BYTES_MAX} bytes")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_to_the_web() {
        for link in ["https://example.com", "http://example.com:8080/a?b=c", " HTTPS://example.com/%20 "] {
            assert!(check(link).is_ok(), "{link}");
        }
        let long = format!("https://example.com/{}", "x".repeat(2_000));
        for link in [
            "",
            "example.com",
            "/menu",
            "javascript:alert(1)",
            "ftp://example.com/",
            "https://",
            "http:///x",
            &long,
        ] {
            assert!(check(link).is_err(), "{link}");
        }
    }

    #[test]
    fn ids_are_short_and_plain() {
        assert!("menu-2".parse::<Slug>().is_ok());
        for text in ["", "Menu", "a/b", "a b", "ü", "cards", &"x".repeat(41)] {
            assert!(text.parse::<Slug>().is_err(), "{text}");
        }
    }
}
