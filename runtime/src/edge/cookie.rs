//! Cookies that a guest sets, confined to where its tenant is. Pure.
//!
//! A `Set-Cookie` value is taken apart as browsers do (RFC 6265, 5.2): at every semicolon, attribute names in any case,
//! of several attributes with one name the last counts. What is not about reach goes through as it is.

/// How far a cookie may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach<'a> {
    /// Its host, and no host above or below it.
    Host,
    /// Some of the paths of its host.
    Path {
        /// How they start. It ends in a slash, so that `/t/acme/` is no part of `/t/acme2/` or `/t/acme@staging/` for
        /// any reader.
        start: &'a str,
        /// Whether the client came over TLS. Then the cookie must not go to the same paths without.
        over_tls: bool,
    },
}

/// A `Set-Cookie` value whose cookie reaches no further than it may; nothing when there is no such cookie.
pub(super) fn confined(cookie: &[u8], reach: Reach<'_>) -> Option<Vec<u8>> {
    let mut parts = cookie.split(|byte| *byte == b';');
    let pair = parts.next().unwrap_or_default();
    let mut confined = pair.to_vec();
    let (mut path, mut is_secure) = (None, false);
    for attribute in parts {
        let (name, value) = halves(attribute);
        match reach {
            _ if name.eq_ignore_ascii_case(b"domain") => continue,
            Reach::Path { .. } if name.eq_ignore_ascii_case(b"path") => path = Some(value),
            Reach::Host | Reach::Path { .. } => {
                is_secure |= name.eq_ignore_ascii_case(b"secure");
                confined.push(b';');
                confined.extend(attribute);
            }
        }
    }
    if let Reach::Path { start, over_tls } = reach {
        if !may_have_path(pair) {
            return None;
        }
        let narrower = path.filter(|path| path.starts_with(start.as_bytes()));
        confined.extend(b"; Path=");
        confined.extend(narrower.unwrap_or(start.as_bytes()));
        if over_tls && !is_secure {
            confined.extend(b"; Secure");
        }
    }
    Some(confined)
}

/// Whether a cookie can have a path other than `/`. One whose name starts with `__Host-` cannot; one without a name
/// could be taken for it, because it is sent back as its value alone.
fn may_have_path(pair: &[u8]) -> bool {
    const WHOLE_HOST: &[u8] = b"__host-";
    let (name, _) = halves(pair);
    let prefix = name.get(..WHOLE_HOST.len()).unwrap_or_default();
    pair.contains(&b'=') && !name.is_empty() && !prefix.eq_ignore_ascii_case(WHOLE_HOST)
}

/// What stands before and after the first `=`, without the white space around it.
fn halves(text: &[u8]) -> (&[u8], &[u8]) {
    let equals = text.iter().position(|byte| *byte == b'=').unwrap_or(text.len());
    let (name, value) = text.split_at_checked(equals).unwrap_or((text, b""));
    (name.trim_ascii(), value.strip_prefix(b"=").unwrap_or(value).trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on_path(cookie: &str) -> Option<String> {
        on_path_over(cookie, false)
    }

    fn on_path_over(cookie: &str, over_tls: bool) -> Option<String> {
        let confined = confined(cookie.as_bytes(), Reach::Path { start: "/t/acme/", over_tls })?;
        Some(String::from_utf8_lossy(&confined).into_owned())
    }

    #[test]
    fn a_cookie_that_came_over_tls_stays_there() {
        for (given, confined) in
            [("a=b", "a=b; Path=/t/acme/; Secure"), ("a=b; SECURE", "a=b; SECURE; Path=/t/acme/")]
        {
            assert_eq!(on_path_over(given, true).as_deref(), Some(confined));
        }
    }

    #[test]
    fn a_cookie_stays_on_its_path() {
        for (given, confined) in [
            ("a=b", "a=b; Path=/t/acme/"),
            ("a=b; Path=/", "a=b; Path=/t/acme/"),
            ("a=b;path = /; Secure", "a=b; Secure; Path=/t/acme/"),
            ("a=b; PATH=/t/acme/fn", "a=b; Path=/t/acme/fn"),
            ("a=b; Path=/t/acme/fn; Path=/", "a=b; Path=/t/acme/"),
            ("a=b; Path=/; Path=/t/acme/fn", "a=b; Path=/t/acme/fn"),
            ("a=b; Path=/t/acme", "a=b; Path=/t/acme/"),
            ("a=b; Path=/t/acme2/", "a=b; Path=/t/acme/"),
            ("a=b; Path=/t/acme@staging/", "a=b; Path=/t/acme/"),
            ("a=b; Path=\"/\"", "a=b; Path=/t/acme/"),
            ("a=b; Path", "a=b; Path=/t/acme/"),
            ("a=b; Path=", "a=b; Path=/t/acme/"),
            ("a=b;\tPath\t=\t/", "a=b; Path=/t/acme/"),
            ("a=\"x; Path=/\"", "a=\"x; Path=/t/acme/"),
            ("a=b; Domain=example.com; HttpOnly", "a=b; HttpOnly; Path=/t/acme/"),
            ("a=b; dOMAIN", "a=b; Path=/t/acme/"),
            ("a==c; SameSite=Lax", "a==c; SameSite=Lax; Path=/t/acme/"),
            (
                "a=b; Expires=Wed, 21 Oct 2026 07:28:00 GMT; x=Path=/",
                "a=b; Expires=Wed, 21 Oct 2026 07:28:00 GMT; x=Path=/; Path=/t/acme/",
            ),
            ("__Secure-a=b; Secure; Path=/", "__Secure-a=b; Secure; Path=/t/acme/"),
        ] {
            assert_eq!(on_path(given).as_deref(), Some(confined), "{given}");
        }
    }

    #[test]
    fn a_cookie_that_cannot_stay_there_is_dropped() {
        for given in [
            "__Host-a=b; Secure; Path=/",
            " __hOST-a=b",
            "__Host-=b",
            "=b",
            "",
            "b",
            "; Path=/",
            "=__Host-a=b",
        ] {
            assert_eq!(on_path(given), None, "{given}");
        }
    }

    #[test]
    fn a_cookie_stays_on_its_host() {
        for (given, confined) in [
            ("a=b; Path=/; Domain=example.com", "a=b; Path=/"),
            ("a=b;DOMAIN =.example.com;Secure", "a=b;Secure"),
            ("__Host-a=b; Path=/; Secure", "__Host-a=b; Path=/; Secure"),
            ("b", "b"),
        ] {
            let bytes = super::confined(given.as_bytes(), Reach::Host).unwrap_or_default();
            assert_eq!(String::from_utf8_lossy(&bytes), confined, "{given}");
        }
    }
}
