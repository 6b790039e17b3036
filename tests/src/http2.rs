//! HTTP/2 in frames as a test writes them, wrong ones included (RFC 9113, RFC 7541).

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::PATIENCE;

/// How a connection begins.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Types of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of RFC 9113, 6")]
pub enum Kind {
    Data = 0,
    Headers = 1,
    Priority = 2,
    RstStream = 3,
    Settings = 4,
    Ping = 6,
    GoAway = 7,
    WindowUpdate = 8,
    Continuation = 9,
}

/// The flag of `DATA` and `HEADERS` that ends a stream, and of `SETTINGS` and `PING` that acknowledges.
pub const END_STREAM: u8 = 1;
/// The flag of `HEADERS` and `CONTINUATION` that ends the fields.
pub const END_HEADERS: u8 = 4;

/// A frame that arrived.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Its type.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// Its stream.
    pub stream: u32,
    /// What is in it.
    pub payload: Vec<u8>,
}

/// A frame as bytes.
#[must_use]
pub fn frame(kind: Kind, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    let mut bytes = length.iter().skip(1).copied().collect::<Vec<u8>>();
    bytes.extend([kind as u8, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// Header fields, each written out: neither indexed nor compressed.
#[must_use]
pub fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        for text in [name, value] {
            integer(&mut bytes, text.len());
            bytes.extend(text.as_bytes());
        }
    }
    bytes
}

/// A length in seven bits, or more (RFC 7541, 5.1).
fn integer(bytes: &mut Vec<u8>, mut number: usize) {
    if number < 127 {
        bytes.push(number as u8);
        return;
    }
    bytes.push(127);
    number -= 127;
    while number >= 128 {
        bytes.push((number % 128) as u8 | 128);
        number /= 128;
    }
    bytes.push(number as u8);
}

/// The fields of a request without a body.
#[must_use]
pub fn request(method: &str, path: &str) -> Vec<u8> {
    fields(&[(":method", method), (":scheme", "http"), (":authority", "dormouse.test"), (":path", path)])
}

/// A connection.
#[derive(Debug)]
pub struct Http2 {
    stream: TcpStream,
}

impl Http2 {
    /// Connects and sends the preface with settings of one's own.
    ///
    /// # Errors
    /// When nobody listens.
    pub fn open(address: SocketAddr, settings: &[u8]) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE * 2))?;
        // Who is not read from for so long is being pushed back.
        stream.set_write_timeout(Some(Duration::from_secs(2)))?;
        let mut connection = Self { stream };
        connection.send(&[PREFACE, &frame(Kind::Settings, 0, 0, settings)].concat())?;
        Ok(connection)
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// When the other end has closed, or reads nothing any more.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(bytes)?)
    }

    /// The next frame; none at the end.
    ///
    /// # Errors
    /// When none comes in time.
    pub fn next_frame(&mut self) -> Result<Option<Frame>> {
        let mut head = [0; 9];
        match self.stream.read_exact(&mut head) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => bail!("no frame comes"),
            Err(_) => return Ok(None),
        }
        let [a, b, c, kind, flags, s1, s2, s3, s4] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        if self.stream.read_exact(&mut payload).is_err() {
            return Ok(None);
        }
        Ok(Some(Frame { kind, flags, stream: u32::from_be_bytes([s1, s2, s3, s4]), payload }))
    }

    /// Reads to the end, and gives the error code of the `GOAWAY`, if there was one.
    ///
    /// # Errors
    /// When the other end does not close.
    pub fn until_closed(&mut self) -> Result<Option<u32>> {
        let mut code = None;
        while let Some(frame) = self.next_frame()? {
            if frame.kind == Kind::GoAway as u8 {
                let bytes = frame.payload.get(4..8).context("a short GOAWAY")?;
                code = Some(u32::from_be_bytes(bytes.try_into()?));
            }
        }
        Ok(code)
    }

    /// The status and the body of a stream's answer.
    ///
    /// # Errors
    /// When the stream or the connection ends before.
    pub fn answer(&mut self, stream: u32) -> Result<(u16, Vec<u8>)> {
        let (mut status, mut body) = (None, Vec::new());
        while let Some(frame) = self.next_frame()? {
            if frame.stream != stream {
                continue;
            }
            match frame.kind {
                kind if kind == Kind::Headers as u8 => status = status.or(status_of(&frame.payload)),
                kind if kind == Kind::Data as u8 => body.extend(&frame.payload),
                kind if kind == Kind::RstStream as u8 => bail!("the stream was reset: {:?}", frame.payload),
                _ => continue,
            }
            if frame.flags & END_STREAM != 0 {
                return Ok((status.context("a status that is not indexed")?, body));
            }
        }
        bail!("the connection was closed")
    }
}

/// The status that the first field is, where it is one of the static table (RFC 7541, A).
fn status_of(fields: &[u8]) -> Option<u16> {
    let index = fields.first()?.checked_sub(0x80 + 8)?;
    [200, 204, 206, 304, 400, 404, 500].get(usize::from(index)).copied()
}
