//! The patterns of routes, and what they match. Pure: paths in, parameters out.

use std::cmp::Ordering;

use percent_encoding::percent_decode_str;

/// What a path has in the places of a pattern's parameters, as it stands in the path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PathParams(Vec<(&'static str, String)>);

impl PathParams {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A parameter, decoded; bytes that are not UTF-8 become U+FFFD.
    pub(crate) fn get(&self, name: &str) -> Option<String> {
        let (_, raw) = self.0.iter().find(|(found, _)| *found == name)?;
        Some(percent_decode_str(raw).decode_utf8_lossy().into_owned())
    }

    /// All of them as an encoded form, which serde reads. In a path, `+` is a plus.
    pub(crate) fn to_form(&self) -> String {
        let pair =
            |(name, raw): &(&str, String)| format!("{name}={}", raw.replace('+', "%2B").replace('&', "%26"));
        self.0.iter().map(pair).collect::<Vec<_>>().join("&")
    }
}

/// A piece of a pattern between slashes. The order is that of preference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Piece<'a> {
    Literal(&'a str),
    /// `{name}`
    One(&'a str),
    /// `{*name}`: what is left, which may hold slashes and may be nothing.
    Rest(&'a str),
}

fn pieces(pattern: &str) -> impl Iterator<Item = Piece<'_>> {
    pattern.split('/').map(|piece| {
        let inner = piece.strip_prefix('{').and_then(|piece| piece.strip_suffix('}'));
        match inner.map(|name| (name, name.strip_prefix('*'))) {
            None => Piece::Literal(piece),
            Some((name, None)) => Piece::One(name),
            Some((_, Some(name))) => Piece::Rest(name),
        }
    })
}

/// What a path has in the places of a pattern's parameters; `None` if it does not match.
pub(crate) fn matches(pattern: &'static str, path: &str) -> Option<PathParams> {
    let mut params = PathParams::default();
    let mut left = Some(path);
    for piece in pieces(pattern) {
        let (segment, after) = match left?.split_once('/') {
            Some((segment, after)) => (segment, Some(after)),
            None => (left?, None),
        };
        match piece {
            Piece::Rest(name) => {
                params.0.push((name, left?.to_owned()));
                return Some(params);
            }
            Piece::One(name) if !segment.is_empty() => params.0.push((name, segment.to_owned())),
            Piece::Literal(text) if text == segment || is_encoded(segment, text) => {}
            Piece::One(_) | Piece::Literal(_) => return None,
        }
        left = after;
    }
    left.is_none().then_some(params)
}

/// Whether a segment is this text with some characters percent-encoded, which makes no difference.
fn is_encoded(segment: &str, text: &str) -> bool {
    segment.contains('%') && percent_decode_str(segment).eq(text.bytes())
}

/// Of two patterns that match the same path, the more exact one is less: the first in which, piece by piece, a literal
/// stands where the other has a parameter.
pub(crate) fn compare(one: &str, other: &str) -> Ordering {
    let kind = |piece| match piece {
        Piece::Literal(_) => 0,
        Piece::One(_) => 1,
        Piece::Rest(_) => 2,
    };
    pieces(one).map(kind).cmp(pieces(other).map(kind))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    fn params(pattern: &'static str, path: &str) -> Option<String> {
        matches(pattern, path).map(|params| params.to_form())
    }

    #[test]
    fn literals_match_themselves() {
        assert!(matches("/", "/").is_some());
        assert!(matches("/a/b", "/a/b").is_some());
        assert!(matches("/a b", "/a%20b").is_some());
        for path in ["/", "/a", "/a/", "/a/b/", "/a/b/c", "//a/b", "a/b", ""] {
            assert!(matches("/a/b", path).is_none(), "{path}");
        }
    }

    #[test]
    fn parameters_take_one_segment() {
        assert_eq!(params("/cards/{id}", "/cards/7").unwrap(), "id=7");
        assert_eq!(params("/{a}/x/{b}", "/1/x/2+3&c=d").unwrap(), "a=1&b=2%2B3%26c=d");
        for path in ["/cards", "/cards/", "/cards/7/", "/cards/7/8"] {
            assert_eq!(params("/cards/{id}", path), None, "{path}");
        }
    }

    #[test]
    fn the_rest_takes_all_that_is_left() {
        assert_eq!(params("/files/{*path}", "/files/a/b").unwrap(), "path=a/b");
        assert_eq!(params("/files/{*path}", "/files/").unwrap(), "path=");
        assert_eq!(params("/{*path}", "/").unwrap(), "path=");
        assert_eq!(params("/files/{*path}", "/files"), None);
    }

    #[test]
    fn parameters_are_decoded_one_by_one() {
        let found = matches("/{a}/{b}", "/x%2Fy/%C3%BC+%FF").unwrap();
        assert_eq!(found.get("a").unwrap(), "x/y");
        assert_eq!(found.get("b").unwrap(), "ü+\u{fffd}");
        assert_eq!(found.get("c"), None);
    }

    #[test]
    fn the_more_exact_pattern_comes_first() {
        assert_eq!(compare("/cards/new", "/cards/{id}"), Ordering::Less);
        assert_eq!(compare("/{*path}", "/cards/{id}"), Ordering::Greater);
        assert_eq!(compare("/cards/{*path}", "/{a}/new"), Ordering::Less);
        assert_eq!(compare("/cards/{id}", "/cards/{slug}"), Ordering::Equal);
    }
}
