//! The raw requests of `tests/attacks/http`: what each is answered with, what becomes of its connection, and that no
//! second request is ever taken out of one.
//!
//! A file is a head and, below a line `----`, the bytes to send. In the head a line that begins with `#` is a comment, and:
//!
//! - `status: 200 400|501` names the answers in their order, `status: none` that there is none;
//! - `connection: closes`, `stays` or `either` says what becomes of it then: a body that nobody reads is read to its end
//!   only if all of it is there;
//! - `sees: …` is a text that the answers hold, `hides: …` one that they do not. The function of the tenant `acme` answers
//!   at `/t/acme/fn/mirror` with what it saw of a request;
//! - `omits: …` is a field that no answer has.
//!
//! Of the bytes, the ends of lines do not count: `\r`, `\n`, `\t`, `\0`, `\\` and `\x7f` are written out, and `{100*a}` is a
//! text repeated. A request that must never be run asks for `/t/acme/fn/log?line=smuggled`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use dormouse_tests::client::{Connection, Cut, Response};
use dormouse_tests::{TestNode, guest, root};

/// A request that no file sends. What is answered before it was in the file's bytes.
const LAST: &str = "/the-last-request";

/// The largest exchange that is also sent byte by byte.
const BYTEWISE_MAX: usize = 2_048;

/// What becomes of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    Closes,
    Stays,
    Either,
}

/// One file.
#[derive(Debug)]
struct Case {
    statuses: Vec<Vec<u16>>,
    after: After,
    sees: Vec<String>,
    hides: Vec<String>,
    omits: Vec<String>,
    bytes: Vec<u8>,
}

impl Case {
    fn read(file: &Path) -> Result<Self> {
        let text = fs::read_to_string(file)?;
        let (head, body) = text.split_once("\n----\n").context("no line ----")?;
        let (mut statuses, mut after) = (None, None);
        let (mut sees, mut hides, mut omits) = (Vec::new(), Vec::new(), Vec::new());
        for line in head.lines().filter(|line| !line.starts_with('#')) {
            let (name, value) = line.split_once(": ").with_context(|| format!("no setting: {line}"))?;
            match (name, value) {
                ("status", "none") => statuses = Some(Vec::new()),
                ("status", list) => {
                    statuses = Some(list.split(' ').map(alternatives).collect::<Result<_>>()?)
                }
                ("connection", "closes") => after = Some(After::Closes),
                ("connection", "stays") => after = Some(After::Stays),
                ("connection", "either") => after = Some(After::Either),
                ("sees", text) => sees.push(text.to_owned()),
                ("hides", text) => hides.push(text.to_owned()),
                ("omits", name) => omits.push(name.to_owned()),
                _ => bail!("no setting: {line}"),
            }
        }
        let statuses = statuses.context("no status")?;
        let after = after.context("no word of the connection")?;
        Ok(Self { statuses, after, sees, hides, omits, bytes: unescaped(&body.replace('\n', ""))? })
    }

    /// Sends the bytes, so many at once, and checks everything that comes back.
    fn run(&self, node: &TestNode, at_once: usize) -> Result<()> {
        let mut connection = node.connect()?;
        // Who is refused early may be cut off while it still sends, and what it was told can be lost with that.
        let sent = self.bytes.chunks(at_once).try_for_each(|bytes| connection.send(bytes));
        ensure!(sent.is_ok() || self.after != After::Stays, "the connection closed");
        let (answers, after) = answers(&mut connection, self.statuses.len())?;
        let told: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
        let texts: String = answers.iter().map(Response::text).collect();
        let is_expected = |(status, expected): (&u16, &Vec<u16>)| expected.contains(status);
        ensure!(
            told.iter().zip(&self.statuses).all(is_expected) && told.len() <= self.statuses.len(),
            "answered with {told:?}: {texts}"
        );
        ensure!(
            after == self.after || self.after == After::Either,
            "the connection {after:?}, after {told:?}: {texts}"
        );
        if told.len() < self.statuses.len() {
            ensure!(at_once < self.bytes.len() && sent.is_err(), "answered with {told:?} only");
            return Ok(());
        }
        for text in &self.sees {
            ensure!(texts.contains(text), "{text:?} is not in {texts}");
        }
        for text in &self.hides {
            ensure!(!texts.contains(text), "{text:?} is in {texts}");
        }
        for name in &self.omits {
            ensure!(answers.iter().all(|answer| answer.header(name).is_none()), "an answer has {name}");
        }
        Ok(())
    }
}

fn alternatives(text: &str) -> Result<Vec<u16>> {
    Ok(text.split('|').map(str::parse).collect::<Result<_, _>>()?)
}

/// Reads `expected` answers and then all that come before the one to a last request, or before the end.
fn answers(connection: &mut Connection, expected: usize) -> Result<(Vec<Response>, After)> {
    let mut answers = Vec::new();
    let mut has_asked = false;
    loop {
        if !has_asked && answers.len() == expected {
            // The node may have closed, which the next read tells.
            let _ = connection.request("GET", &format!("/t/acme/fn{LAST}"), &[], b"");
            has_asked = true;
        }
        match connection.response("GET") {
            Ok(answer) if answer.text().contains(LAST) => return Ok((answers, After::Stays)),
            Ok(answer) => answers.push(answer),
            Err(error) if error.is::<Cut>() => return Ok((answers, After::Closes)),
            Err(error) => return Err(error),
        }
    }
}

/// The bytes that a text with escapes stands for.
fn unescaped(text: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        rest = rest.get(first.len_utf8()..).unwrap_or_default();
        match first {
            '\\' => {
                let (byte, length) = match rest.get(..1).context("a \\ at the end")? {
                    "r" => (b'\r', 1),
                    "n" => (b'\n', 1),
                    "t" => (b'\t', 1),
                    "0" => (0, 1),
                    "\\" => (b'\\', 1),
                    "x" => (u8::from_str_radix(rest.get(1..3).context("\\x is cut off")?, 16)?, 3),
                    other => bail!("no escape: \\{other}"),
                };
                bytes.push(byte);
                rest = rest.get(length..).unwrap_or_default();
            }
            '{' => {
                let (inside, after) = rest.split_once('}').context("a { without its }")?;
                let (number, text) = inside.split_once('*').context("{ is written as \\x7b")?;
                bytes.extend(unescaped(text)?.repeat(number.parse()?));
                rest = after;
            }
            other => bytes.extend(other.to_string().as_bytes()),
        }
    }
    Ok(bytes)
}

fn files() -> Result<Vec<PathBuf>> {
    let folder = fs::read_dir(root().join("tests/attacks/http"))?;
    let mut files: Vec<_> = folder.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.sort();
    Ok(files)
}

#[test]
fn no_request_is_taken_out_of_another() -> Result<()> {
    let node = TestNode::start()?;
    node.create_tenant("acme")?;
    node.deploy("acme", "fn", &guest("misbehave")?)?;
    let files = files()?;
    ensure!(files.len() > 50, "only {} files", files.len());
    let mut wrong = Vec::new();
    for file in &files {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let case = Case::read(file).with_context(|| name.to_string())?;
        let ways = [Some(case.bytes.len()), (case.bytes.len() <= BYTEWISE_MAX).then_some(1)];
        for at_once in ways.into_iter().flatten() {
            let outcome = case.run(&node, at_once);
            wrong.extend(outcome.err().map(|error| format!("{name}, {at_once} bytes at once: {error:#}")));
        }
    }
    node.request("GET", "/t/acme/fn/log?line=the-end", &[], b"")?.expect(200)?;
    node.logs().wait_for("the last line", |line| line.is_of_guest() && line.text.contains("the-end"))?;
    let smuggled = node.logs().matching(|line| line.is_of_guest() && line.text.contains("smuggled"));
    wrong.extend(smuggled.iter().map(|line| format!("a smuggled request ran: {line}")));
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    node.wait_for_metric("dormouse_connections", 0.0)
}
