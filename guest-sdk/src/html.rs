//! HTML with what users wrote escaped.
//!
//! [`Escaped`] is for small pages made with `format!`. For larger ones use [maud](https://maud.lambda.xyz): its `html!`
//! escapes by itself, checks that tags are closed, and compiles to pushes onto one string, so it adds less to a
//! component than a template engine that parses at run time. It is behind the feature `maud`, with which a page is a
//! response by itself; the function names maud in its own `Cargo.toml` too, because the macro's expansion does.

use std::fmt::{self, Display, Formatter, Write};

/// Shows what it holds as text that is safe between tags and in quoted attributes.
///
/// ```
/// use dormouse_sdk::{Escaped, Html};
///
/// let name = "<script>alert('Ada & Bob')</script>";
/// let page = Html(format!("<p>Hello, {}", Escaped(name)));
/// assert_eq!(page.0, "<p>Hello, &lt;script&gt;alert(&#39;Ada &amp; Bob&#39;)&lt;/script&gt;");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Escaped<T>(pub T);

impl<T: Display> Display for Escaped<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(Escaping(f), "{}", self.0)
    }
}

/// Escapes what is written to it.
struct Escaping<'a, 'b>(&'a mut Formatter<'b>);

impl Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for piece in text.split_inclusive(['&', '<', '>', '"', '\'']) {
            let (plain, entity) = match piece.as_bytes().last() {
                Some(b'&') => (piece.strip_suffix('&'), "&amp;"),
                Some(b'<') => (piece.strip_suffix('<'), "&lt;"),
                Some(b'>') => (piece.strip_suffix('>'), "&gt;"),
                Some(b'"') => (piece.strip_suffix('"'), "&quot;"),
                Some(b'\'') => (piece.strip_suffix('\''), "&#39;"),
                _ => (Some(piece), ""),
            };
            self.0.write_str(plain.unwrap_or_default())?;
            self.0.write_str(entity)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_a_meaning_is_escaped_and_nothing_else() {
        let escaped = |text: &str| Escaped(text).to_string();
        assert_eq!(escaped(""), "");
        assert_eq!(escaped("grüße"), "grüße");
        assert_eq!(escaped("<<&&>>"), "&lt;&lt;&amp;&amp;&gt;&gt;");
        assert_eq!(escaped("\"1 & 2\" 'said' > she"), "&quot;1 &amp; 2&quot; &#39;said&#39; &gt; she");
        assert_eq!(Escaped(format_args!("{}<{}", 1, 2)).to_string(), "1&lt;2");
    }
}
