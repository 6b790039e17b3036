//! An HTTP/1.1 client that does exactly what a test says, wrong things included, and sees exactly what came back.
//!
//! No library: those mend what is malformed, hide when a body was cut, and buffer what a test wants to see arrive.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tokio::net::TcpSocket;

use crate::PATIENCE;

/// Header fields of a request.
pub type Headers<'a> = &'a [(&'a str, &'a str)];

/// Largest line of a head that is read.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// The connection ended before the message did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut;

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the connection was cut")
    }
}

impl std::error::Error for Cut {}

/// A whole response.
#[derive(Debug, Clone)]
pub struct Response {
    /// Its status.
    pub status: u16,
    /// Its header fields in order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: Vec<u8>,
}

impl Response {
    /// The first value of a header field.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// When it is none.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body)
            .with_context(|| format!("{}: no JSON: {}", self.status, self.text()))
    }

    /// The response, if it has this status.
    ///
    /// # Errors
    /// When it has another.
    pub fn expect(self, status: u16) -> Result<Self> {
        ensure!(self.status == status, "expected {status}, got {}: {}", self.status, self.text());
        Ok(self)
    }
}

fn find<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
}

/// How the end of a body is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Length(u64),
    Chunked,
    UntilClose,
    Ended,
}

/// A response whose head is here and whose body is arriving.
#[derive(Debug)]
pub struct Incoming {
    /// Its status.
    pub status: u16,
    /// Its header fields in order, names in lower case.
    pub headers: Vec<(String, String)>,
    framing: Framing,
}

impl Incoming {
    /// The first value of a header field.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    reader: BufReader<TcpStream>,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// When nobody listens.
    pub fn open(address: SocketAddr) -> Result<Self> {
        Self::over(TcpStream::connect(address).with_context(|| format!("connect to {address}"))?)
    }

    /// Connects from another address of this machine, such as 127.0.0.2: to the node it is another client.
    ///
    /// # Errors
    /// When nobody listens, or the machine does not have the address.
    pub fn open_from(source: IpAddr, address: SocketAddr) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let stream = runtime.block_on(async {
            let socket = TcpSocket::new_v4()?;
            socket.bind(SocketAddr::new(source, 0))?;
            socket.connect(address).await?.into_std()
        });
        let stream = stream.with_context(|| format!("connect to {address} from {source}"))?;
        stream.set_nonblocking(false)?;
        Self::over(stream)
    }

    fn over(stream: TcpStream) -> Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE * 2))?;
        stream.set_write_timeout(Some(PATIENCE * 2))?;
        Ok(Self { reader: BufReader::new(stream) })
    }

    /// The address of this end.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn local_address(&self) -> Result<SocketAddr> {
        Ok(self.reader.get_ref().local_addr()?)
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// When the other end has closed.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> Result<()> {
        Ok(self.reader.get_mut().write_all(bytes.as_ref())?)
    }

    /// Sends a request.
    ///
    /// # Errors
    /// When the other end has closed.
    pub fn request(&mut self, method: &str, path: &str, headers: Headers<'_>, body: &[u8]) -> Result<()> {
        let mut bytes = head(method, path, headers);
        if !body.is_empty() || matches!(method, "POST" | "PUT" | "PATCH") {
            bytes.extend(format!("content-length: {}\r\n", body.len()).as_bytes());
        }
        bytes.extend(b"\r\n");
        bytes.extend(body);
        self.send(bytes)
    }

    /// Sends the head of a request whose body follows in [`Self::chunk`]s.
    ///
    /// # Errors
    /// When the other end has closed.
    pub fn chunked_request(&mut self, method: &str, path: &str, headers: Headers<'_>) -> Result<()> {
        let mut bytes = head(method, path, headers);
        bytes.extend(b"transfer-encoding: chunked\r\n\r\n");
        self.send(bytes)
    }

    /// Sends one chunk of a body; an empty one ends it.
    ///
    /// # Errors
    /// When the other end has closed.
    pub fn chunk(&mut self, bytes: &[u8]) -> Result<()> {
        let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
        chunk.extend(bytes);
        chunk.extend(b"\r\n");
        self.send(chunk)
    }

    /// Says that no more bytes come; the other direction stays open.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn finish_sending(&mut self) -> Result<()> {
        Ok(self.reader.get_ref().shutdown(Shutdown::Write)?)
    }

    /// Reads the head of the response to a request of this method.
    ///
    /// # Errors
    /// [`Cut`] when the connection ends before, or when what comes is no HTTP.
    pub fn head(&mut self, method: &str) -> Result<Incoming> {
        let (status, headers) = self.any_head()?;
        if status == 100 {
            return self.head(method);
        }
        let framing = framing(method, status, &headers)?;
        Ok(Incoming { status, headers, framing })
    }

    /// Waits for the interim response that asks for the body: `100 Continue`.
    ///
    /// # Errors
    /// When another response comes, or none.
    pub fn wait_for_continue(&mut self) -> Result<()> {
        let (status, _) = self.any_head()?;
        ensure!(status == 100, "{status} instead of 100");
        Ok(())
    }

    fn any_head(&mut self) -> Result<(u16, Vec<(String, String)>)> {
        let status_line = self.line()?;
        let status =
            ["HTTP/1.1 ", "HTTP/1.0 "].iter().find_map(|version| status_line.strip_prefix(version)?.get(..3));
        let status: u16 = status.context("no status line")?.parse()?;
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').with_context(|| format!("no header field: {line}"))?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        Ok((status, headers))
    }

    /// The next bytes of a body as soon as there are some: one chunk of a chunked one; none at its end.
    ///
    /// # Errors
    /// [`Cut`] when the connection ends before the body does.
    pub fn next(&mut self, incoming: &mut Incoming) -> Result<Option<Vec<u8>>> {
        let bytes = match incoming.framing {
            Framing::Ended => return Ok(None),
            Framing::Length(length) => {
                let bytes = self.some(length)?;
                ensure!(!bytes.is_empty(), Cut);
                let left = length - bytes.len() as u64;
                incoming.framing = if left == 0 { Framing::Ended } else { Framing::Length(left) };
                bytes
            }
            Framing::Chunked => {
                let length = self.line()?;
                let length =
                    u64::from_str_radix(&length, 16).with_context(|| format!("no chunk: {length:?}"))?;
                let bytes = self.exactly(length)?;
                ensure!(self.line()?.is_empty(), "a chunk is longer than it said");
                bytes
            }
            Framing::UntilClose => self.some(64 << 10)?,
        };
        if bytes.is_empty() {
            incoming.framing = Framing::Ended;
            return Ok(None);
        }
        Ok(Some(bytes))
    }

    /// The rest of a body.
    ///
    /// # Errors
    /// [`Cut`] when the connection ends before the body does.
    pub fn rest(&mut self, incoming: &mut Incoming) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        while let Some(bytes) = self.next(incoming)? {
            body.extend(bytes);
        }
        Ok(body)
    }

    /// The whole response to a request of this method.
    ///
    /// # Errors
    /// [`Cut`] when the connection ends before, or when what comes is no HTTP.
    pub fn response(&mut self, method: &str) -> Result<Response> {
        let mut incoming = self.head(method)?;
        let body = self.rest(&mut incoming)?;
        Ok(Response { status: incoming.status, headers: incoming.headers, body })
    }

    /// Waits until the other end closes, and gives what it sent before.
    ///
    /// # Errors
    /// When it does not close.
    pub fn until_closed(&mut self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        match self.reader.read_to_end(&mut bytes) {
            Ok(_) => Ok(bytes),
            Err(error) if is_cut(&error) => Ok(bytes),
            Err(error) => Err(error).context("the other end does not close"),
        }
    }

    fn line(&mut self) -> Result<String> {
        let mut line = Vec::new();
        let read = (&mut self.reader).take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
        read.map_err(cut)?;
        ensure!(line.ends_with(b"\r\n"), Cut);
        line.truncate(line.len() - 2);
        Ok(String::from_utf8(line)?)
    }

    fn some(&mut self, max: u64) -> Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(max.min(64 << 10))?];
        let read = self.reader.read(&mut bytes).map_err(cut)?;
        bytes.truncate(read);
        Ok(bytes)
    }

    fn exactly(&mut self, length: u64) -> Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(length)?];
        self.reader.read_exact(&mut bytes).map_err(cut)?;
        Ok(bytes)
    }
}

fn head(method: &str, path: &str, headers: Headers<'_>) -> Vec<u8> {
    let mut head = format!("{method} {path} HTTP/1.1\r\n");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        head.push_str("host: dormouse.test\r\n");
    }
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.into_bytes()
}

fn framing(method: &str, status: u16, headers: &[(String, String)]) -> Result<Framing> {
    if method == "HEAD" || matches!(status, 204 | 304) {
        return Ok(Framing::Ended);
    }
    let length = find(headers, "content-length");
    match find(headers, "transfer-encoding") {
        Some("chunked") if length.is_none() => return Ok(Framing::Chunked),
        Some(other) => bail!("a response with transfer-encoding {other} and content-length {length:?}"),
        None => {}
    }
    Ok(match length {
        Some("0") => Framing::Ended,
        Some(length) => Framing::Length(length.parse()?),
        None => Framing::UntilClose,
    })
}

fn is_cut(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::UnexpectedEof
            | ErrorKind::ConnectionReset
            | ErrorKind::BrokenPipe
            | ErrorKind::ConnectionAborted
    )
}

fn cut(error: std::io::Error) -> anyhow::Error {
    if is_cut(&error) { Cut.into() } else { anyhow::Error::new(error).context("no answer") }
}
