//! `multipart/form-data` (RFC 7578): a form with files.
//!
//! The known parser, `multer`, is asynchronous and brings tables of legacy encodings that are larger than most functions.
//! Here the whole body is in memory, which is bounded, so parsing is a search for the boundary; `httparse` reads the
//! headers of a part. Texts are UTF-8, as browsers send them.

use std::ops::Range;

use memchr::memmem;

use crate::BodyError;

/// Most fields of a form.
const FIELDS_MAX: usize = 1_000;

/// Most headers of a field.
const HEADERS_MAX: usize = 8;

/// Longest boundary (RFC 2046, 5.1.1).
const BOUNDARY_BYTES_MAX: usize = 70;

/// A form with files.
///
/// ```
/// use dormouse_sdk::Multipart;
///
/// let body = "--x\r\nContent-Disposition: form-data; name=\"name\"\r\n\r\nAda\r\n\
///     --x\r\nContent-Disposition: form-data; name=\"portrait\"; filename=\"a.png\"\r\n\r\n\x01\x02\r\n--x--";
/// let form = Multipart::parse("multipart/form-data; boundary=x", body.into())?;
/// assert_eq!(form.field("name")?.text()?, "Ada");
/// assert_eq!(form.field("portrait")?.file_name(), Some("a.png"));
/// assert_eq!(form.fields().count(), 2);
/// # Ok::<(), dormouse_sdk::BodyError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Multipart {
    body: Vec<u8>,
    parts: Vec<Part>,
}

/// Where a field is in the body, and what its headers say.
#[derive(Debug, Clone)]
struct Part {
    content: Range<usize>,
    name: String,
    file_name: Option<String>,
    content_type: Option<String>,
}

/// A field of a form, or a file.
///
/// ```
/// # use dormouse_sdk::Multipart;
/// # let body = "--x\r\nContent-Disposition: form-data; name=\"name\"\r\n\r\nAda\r\n--x--";
/// # let form = Multipart::parse("multipart/form-data; boundary=x", body.into())?;
/// let field = form.field("name")?;
/// assert_eq!((field.name(), field.text()?, field.bytes()), ("name", "Ada", &b"Ada"[..]));
/// assert_eq!((field.file_name(), field.content_type()), (None, "text/plain"));
/// # Ok::<(), dormouse_sdk::BodyError>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Field<'a> {
    part: &'a Part,
    bytes: &'a [u8],
}

fn malformed(what: &str) -> BodyError {
    BodyError::NotForm(what.to_owned())
}

impl Multipart {
    /// Reads a body whose `Content-Type` header is given.
    ///
    /// ```
    /// use dormouse_sdk::Multipart;
    ///
    /// assert!(Multipart::parse("multipart/form-data", Vec::new()).is_err(), "no boundary");
    /// assert!(Multipart::parse("multipart/form-data; boundary=x", b"--x--".to_vec()).is_ok());
    /// ```
    ///
    /// # Errors
    ///
    /// If there is no boundary, or the body is not made of parts between it.
    pub fn parse(content_type: &str, body: Vec<u8>) -> Result<Self, BodyError> {
        let boundary = parameters(content_type)
            .find_map(|(name, value)| name.eq_ignore_ascii_case("boundary").then_some(value))
            .filter(|boundary| (1..=BOUNDARY_BYTES_MAX).contains(&boundary.len()))
            .ok_or_else(|| malformed("its Content-Type names no boundary of 1 to 70 characters"))?;
        let parts = parts(&body, &boundary)?;
        Ok(Self { body, parts })
    }

    /// The first field of a name.
    ///
    /// ```
    /// # use dormouse_sdk::Multipart;
    /// let form = Multipart::parse("multipart/form-data; boundary=x", b"--x--".to_vec())?;
    /// assert_eq!(form.field("name").unwrap_err().status(), 400);
    /// # Ok::<(), dormouse_sdk::BodyError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If there is none; the caller is told which.
    pub fn field(&self, name: &str) -> Result<Field<'_>, BodyError> {
        let found = self.fields().find(|field| field.name() == name);
        found.ok_or_else(|| malformed(&format!("there is no field `{name}`")))
    }

    /// The fields in the order in which they were sent.
    ///
    /// ```
    /// # use dormouse_sdk::Multipart;
    /// let form = Multipart::parse("multipart/form-data; boundary=x", b"--x--".to_vec())?;
    /// assert_eq!(form.fields().count(), 0);
    /// # Ok::<(), dormouse_sdk::BodyError>(())
    /// ```
    pub fn fields(&self) -> impl Iterator<Item = Field<'_>> {
        let field = |part| Some(Field { part, bytes: self.body.get(Part::content(part))? });
        self.parts.iter().filter_map(field)
    }
}

impl Part {
    fn content(&self) -> Range<usize> {
        self.content.clone()
    }
}

impl<'a> Field<'a> {
    /// Its name.
    ///
    /// See [`Field`] for an example of this and the other methods.
    pub fn name(&self) -> &'a str {
        &self.part.name
    }

    /// The name of the file on the caller's machine, if it is one. It is the caller's word: do not use it as a path.
    pub fn file_name(&self) -> Option<&'a str> {
        self.part.file_name.as_deref()
    }

    /// The media type that the caller says it has.
    pub fn content_type(&self) -> &'a str {
        self.part.content_type.as_deref().unwrap_or("text/plain")
    }

    /// Its content.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Its content as text.
    ///
    /// # Errors
    ///
    /// If it is not UTF-8.
    pub fn text(&self) -> Result<&'a str, BodyError> {
        Ok(std::str::from_utf8(self.bytes)?)
    }
}

/// Finds the parts between the boundaries.
fn parts(body: &[u8], boundary: &str) -> Result<Vec<Part>, BodyError> {
    let delimiter = format!("\r\n--{boundary}");
    let unfinished = || malformed("it ends before its last boundary");
    // The first boundary has no line break before it if nothing comes before it.
    let first = delimiter.trim_start();
    let mut at = if body.starts_with(first.as_bytes()) {
        first.len()
    } else {
        memmem::find(body, delimiter.as_bytes()).ok_or_else(unfinished)? + delimiter.len()
    };
    let finder = memmem::Finder::new(delimiter.as_bytes());
    let mut parts = Vec::new();
    loop {
        let rest = body.get(at..).unwrap_or_default();
        if rest.starts_with(b"--") {
            return Ok(parts);
        }
        if parts.len() == FIELDS_MAX {
            return Err(malformed("it has more than 1,000 fields"));
        }
        let start = at + line_end(rest).ok_or_else(unfinished)?;
        let length = finder.find(body.get(start..).unwrap_or_default()).ok_or_else(unfinished)?;
        parts.push(part(body, start..start + length)?);
        at = start + length + delimiter.len();
    }
}

/// The length of what may stand behind a boundary in its line: white space.
fn line_end(rest: &[u8]) -> Option<usize> {
    let length = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    rest.get(length..)?.starts_with(b"\r\n").then_some(length + 2)
}

/// Reads the headers of a part.
fn part(body: &[u8], at: Range<usize>) -> Result<Part, BodyError> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let text = body.get(at.clone()).unwrap_or_default();
    let (length, headers) = match httparse::parse_headers(text, &mut headers) {
        Ok(httparse::Status::Complete((length, headers))) => (length, headers),
        Ok(httparse::Status::Partial) | Err(_) => {
            return Err(malformed("the headers of a field are malformed"));
        }
    };
    let header = |name: &str| {
        let found = headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(found.value).ok()
    };
    let disposition = header("content-disposition").unwrap_or_default();
    let parameter = |wanted: &str| {
        parameters(disposition).find_map(|(name, value)| name.eq_ignore_ascii_case(wanted).then_some(value))
    };
    Ok(Part {
        content: at.start + length..at.end,
        name: parameter("name").ok_or_else(|| malformed("a field has no name"))?,
        file_name: parameter("filename"),
        content_type: header("content-type").map(str::to_owned),
    })
}

/// The parameters behind the first `;` of a header: `; name=value; name="value"`.
fn parameters(header: &str) -> impl Iterator<Item = (&str, String)> {
    let mut rest = header.find(';').and_then(|at| header.get(at + 1..)).unwrap_or_default();
    std::iter::from_fn(move || {
        let (name, after) = rest.split_once('=')?;
        let (value, left) = value(after);
        rest = left;
        Some((name.trim(), value))
    })
}

/// A value and what comes behind it and its `;`.
///
/// In a quoted one, `\` escapes a quote or itself, and browsers write `%22` for a quote.
fn value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let (value, rest) = text.split_once(';').unwrap_or((text, ""));
        return (value.trim().to_owned(), rest);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => {
                let rest = quoted.get(at + 1..).unwrap_or_default();
                return (value.replace("%22", "\""), rest.split_once(';').map_or("", |(_, rest)| rest));
            }
            '\\' => match quoted.get(at + 1..).and_then(|rest| rest.chars().next()) {
                Some(escaped @ ('"' | '\\')) => {
                    value.push(escaped);
                    characters.next();
                }
                _ => value.push('\\'),
            },
            _ => value.push(character),
        }
    }
    (value, "")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is a failed test")]
mod tests {
    use super::*;

    fn parse(body: &str) -> Result<Multipart, BodyError> {
        let body = body.replace('\n', "\r\n");
        Multipart::parse("multipart/form-data; charset=utf-8; boundary=\"b-1\"", body.into_bytes())
    }

    fn told(body: &str) -> String {
        parse(body).unwrap_err().to_string()
    }

    #[test]
    fn fields_and_files_are_found() {
        let form = parse(
            "a preamble\n--b-1 \nContent-Disposition: form-data; name=\"first\"\n\none\n\n--b\n--b-1\n\
             content-type: image/png\ncontent-disposition: form-data; filename=\"a\\\"%22;b.png\"; name=second\n\n\
             \n--b-1--\nan epilogue",
        )
        .unwrap();
        let fields: Vec<_> = form.fields().collect();
        assert_eq!(fields.len(), 2);
        assert_eq!((fields[0].name(), fields[0].text().unwrap()), ("first", "one\r\n\r\n--b"));
        assert_eq!((fields[1].name(), fields[1].bytes()), ("second", &b""[..]));
        assert_eq!(fields[1].file_name(), Some("a\"\";b.png"));
        assert_eq!(fields[1].content_type(), "image/png");
    }

    #[test]
    fn a_field_may_stand_several_times() {
        let part = |value| format!("--b-1\nContent-Disposition: form-data; name=\"tag\"\n\n{value}\n");
        let form = parse(&format!("{}{}--b-1--", part("a"), part("b"))).unwrap();
        let tags: Vec<_> = form.fields().map(|field| field.text().unwrap()).collect();
        assert_eq!(tags, ["a", "b"]);
        assert_eq!(form.field("tag").unwrap().text().unwrap(), "a");
    }

    #[test]
    fn what_is_malformed_is_said() {
        assert!(told("").ends_with("it ends before its last boundary"));
        assert!(told("--b-1").ends_with("it ends before its last boundary"));
        assert!(told("--b-1\nContent-Disposition: form-data; name=\"a\"\n\n1").contains("last boundary"));
        assert!(told("--b-1\nContent-Disposition: form-data\n\n1\n--b-1--").ends_with("a field has no name"));
        assert!(told("--b-1\nno header\n\n1\n--b-1--").ends_with("the headers of a field are malformed"));
        assert!(told("--b-1\nContent-Disposition: form-data; name=\"a\"\n--b-1--").contains("malformed"));
        let many = "--b-1\nContent-Disposition: form-data; name=a\n\n\n".repeat(FIELDS_MAX + 1);
        assert!(told(&many).ends_with("it has more than 1,000 fields"));
    }

    #[test]
    fn a_boundary_must_be_there_and_short() {
        for content_type in ["multipart/form-data", "multipart/form-data; boundary=", "; boundary", ""] {
            assert!(Multipart::parse(content_type, b"--x--".to_vec()).is_err(), "{content_type}");
        }
        let long = format!("multipart/form-data; boundary={}", "x".repeat(71));
        assert!(Multipart::parse(&long, Vec::new()).is_err());
    }

    /// Every prefix of a form, and every form with one byte changed, is parsed or refused and nothing else.
    #[test]
    fn broken_forms_are_survived() {
        let whole =
            b"--b\r\nContent-Disposition: form-data; name=\"a\\\"b\"; filename=x\r\n\r\n1\r\n--b--".to_vec();
        let parse = |body| Multipart::parse("multipart/form-data; boundary=b", body).is_ok();
        for end in 0..whole.len() {
            parse(whole[..end].to_vec());
            for byte in [0, b'"', b'\\', b'\r', b'\n', b'-', b';', 0xff] {
                let mut changed = whole.clone();
                changed[end] = byte;
                parse(changed);
            }
        }
        assert!(parse(whole));
    }
}
