//! The path and the query of a request.

/// A path and its decoded query parameters.
pub(crate) struct Url {
    pub(crate) path: String,
    query: Vec<(String, String)>,
}

impl Url {
    /// Splits `/path?name=value&…`.
    pub(crate) fn parse(path_with_query: &str) -> Self {
        let (path, query) = path_with_query.split_once('?').unwrap_or((path_with_query, ""));
        let pair = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        };
        Self { path: path.to_owned(), query: query.split('&').map(pair).collect() }
    }

    /// A parameter, or nothing.
    pub(crate) fn text(&self, name: &str) -> String {
        let found = self.query.iter().find(|(candidate, _)| candidate == name);
        found.map(|(_, value)| value.clone()).unwrap_or_default()
    }

    /// A parameter that is a number, or 0.
    pub(crate) fn number(&self, name: &str) -> u64 {
        self.text(name).parse().unwrap_or(0)
    }
}

/// Undoes percent encoding and `+`.
fn decode(text: &str) -> String {
    let mut decoded = Vec::new();
    let mut rest = text.as_bytes();
    loop {
        (decoded, rest) = match rest {
            [] => return String::from_utf8_lossy(&decoded).into_owned(),
            [b'%', high, low, rest @ ..] => (push(decoded, hex(*high) * 16 + hex(*low)), rest),
            [b'+', rest @ ..] => (push(decoded, b' '), rest),
            [byte, rest @ ..] => (push(decoded, *byte), rest),
        }
    }
}

fn push(mut bytes: Vec<u8>, byte: u8) -> Vec<u8> {
    bytes.push(byte);
    bytes
}

fn hex(digit: u8) -> u8 {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok()).unwrap_or(0)
}
