//! The guestbook as a page. Everything that a guest wrote is escaped.

use dormouse_sdk::Escaped;

use crate::Entry;

/// A page of entries.
pub(crate) fn render(entries: &[Entry]) -> String {
    let mut page = String::from(concat!(
        "<!doctype html>\n",
        "<html lang=\"en\">\n",
        "<meta charset=\"utf-8\">\n",
        "<meta name=\"viewport\" content=\"width=device-width\">\n",
        "<title>Guestbook</title>\n",
        "<style>body { font: 1rem/1.5 system-ui; max-width: 40rem; margin: 2rem auto; padding: 0 1rem }</style>\n",
        "<h1>Guestbook</h1>\n",
    ));
    if entries.is_empty() {
        page.push_str("<p>Nobody has signed yet.\n");
    }
    for entry in entries {
        let Entry { name, message, signed_at, .. } = entry;
        let (name, message) = (Escaped(name), Escaped(message));
        page += &format!("<p>{message}<br>\n<small>{name}, <time>{signed_at}</time></small>\n");
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_guests_wrote_is_escaped() {
        let entry = Entry {
            id: 1,
            name: "<script>".into(),
            message: "\"1 & 2\" 'said' > she".into(),
            signed_at: "2025-01-01T00:00:00Z".into(),
        };
        let page = render(&[entry]);
        assert!(page.contains("&lt;script&gt;"));
        assert!(page.contains("&quot;1 &amp; 2&quot; &#39;said&#39; &gt; she"));
    }
}
