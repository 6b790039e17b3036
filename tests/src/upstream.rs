//! Servers that functions send requests to, and the name server that says where they are. They do exactly what a test
//! says, wrong things included, and tell what they saw.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use anyhow::{Context as _, Result};
use hickory_proto::op::Message;
use hickory_proto::rr::{RData, Record, RecordType};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

trait Wire: Read + Write + Send {}

impl<T: Read + Write + Send> Wire for T {}

/// What a server has seen.
#[derive(Debug, Default)]
struct Seen {
    connections: AtomicUsize,
    open: AtomicUsize,
    /// Bytes of request bodies.
    bytes: AtomicUsize,
    gate: Mutex<bool>,
    opened: Condvar,
}

/// An HTTP/1.1 server. The path of a request chooses what it does.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// Where it listens.
    pub address: SocketAddr,
    seen: Arc<Seen>,
}

impl Upstream {
    /// A server on a port of 127.0.0.1.
    ///
    /// # Errors
    /// When there is none.
    pub fn start() -> Result<Self> {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// A server on an address.
    ///
    /// # Errors
    /// When it is taken.
    pub fn start_at(address: SocketAddr) -> Result<Self> {
        Self::serve(TcpListener::bind(address)?, |stream| Ok(Box::new(stream)))
    }

    /// A server that speaks TLS.
    ///
    /// # Errors
    /// When there is no port.
    pub fn start_with_tls(config: ServerConfig) -> Result<Self> {
        let config = Arc::new(config);
        Self::serve(TcpListener::bind("127.0.0.1:0")?, move |stream| {
            Ok(Box::new(StreamOwned::new(ServerConnection::new(config.clone())?, stream)))
        })
    }

    fn serve(
        listener: TcpListener,
        wire: impl Fn(TcpStream) -> Result<Box<dyn Wire>> + Send + Sync + 'static,
    ) -> Result<Self> {
        let upstream = Self { address: listener.local_addr()?, seen: Arc::default() };
        let (seen, wire) = (upstream.seen.clone(), Arc::new(wire));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (seen, wire) = (seen.clone(), wire.clone());
                seen.connections.fetch_add(1, Ordering::SeqCst);
                seen.open.fetch_add(1, Ordering::SeqCst);
                thread::spawn(move || {
                    // A client that goes away is what many tests are about.
                    let _ = wire(stream).map(|wire| Exchange::answer(BufReader::new(wire), &seen));
                    seen.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Ok(upstream)
    }

    /// The address of a path.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Connections so far.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    /// Connections that are open.
    #[must_use]
    pub fn open(&self) -> usize {
        self.seen.open.load(Ordering::SeqCst)
    }

    /// Bytes of request bodies so far.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.seen.bytes.load(Ordering::SeqCst)
    }

    /// Lets those responses go on that wait for it.
    pub fn open_gate(&self) {
        *self.seen.gate.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.seen.opened.notify_all();
    }
}

/// One request and its response.
struct Exchange<'s> {
    wire: BufReader<Box<dyn Wire>>,
    seen: &'s Seen,
    head: Vec<String>,
}

impl<'s> Exchange<'s> {
    fn answer(wire: BufReader<Box<dyn Wire>>, seen: &'s Seen) -> io::Result<()> {
        let mut exchange = Self { wire, seen, head: Vec::new() };
        exchange.head = exchange.read_head()?;
        let target = exchange.head.first().and_then(|line| line.split(' ').nth(1)).unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let (path, query) = (path.to_owned(), query.to_owned());
        let number = || query.parse().unwrap_or(0);
        match path.as_str() {
            "/told" => {
                let body = exchange.read_body()?;
                let told = format!("{}\nbody {body}\n", exchange.head.join("\n"));
                exchange.sized(&told)
            }
            "/redirect" => {
                let head = format!("HTTP/1.1 302 Found\r\nlocation: {query}\r\ncontent-length: 0\r\n\r\n");
                exchange.write(&head)
            }
            "/sized" => {
                exchange.write(&format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", number()))?;
                exchange.pieces(number(), |exchange, piece| exchange.write(piece))
            }
            "/big" => {
                exchange.chunked()?;
                exchange.pieces(number(), Self::chunk)?;
                exchange.write("0\r\n\r\n")
            }
            "/gated" => {
                exchange.chunked()?;
                exchange.chunk("one")?;
                exchange.wait_for_gate();
                exchange.chunk("two")?;
                exchange.write("0\r\n\r\n")
            }
            "/pauses" => {
                exchange.chunked()?;
                exchange.chunk("partial")?;
                exchange.until_closed()
            }
            "/cut" => exchange.write("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\npart"),
            "/large-head" => {
                let field = format!("x-large: {}\r\n", "x".repeat(1 << 17));
                exchange.write(&format!("HTTP/1.1 200 OK\r\n{field}content-length: 0\r\n\r\n"))
            }
            "/nonsense" => exchange.write("220 mail.example ESMTP\r\n"),
            "/unread" => {
                exchange.wait_for_gate();
                Ok(())
            }
            // "/never", and what no test asks for.
            _ => exchange.until_closed(),
        }
    }

    fn read_head(&mut self) -> io::Result<Vec<String>> {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if self.wire.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            match line.trim_end() {
                "" => return Ok(head),
                line => head.push(line.to_owned()),
            }
        }
    }

    fn field(&self, name: &str) -> Option<&str> {
        self.head.iter().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// Reads a body of either framing, and gives its length.
    fn read_body(&mut self) -> io::Result<usize> {
        if self.field("transfer-encoding").is_none() {
            let length = self.field("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
            return self.read(length);
        }
        let mut length = 0;
        loop {
            let mut line = String::new();
            self.wire.read_line(&mut line)?;
            let size = usize::from_str_radix(line.trim_end(), 16).map_err(io::Error::other)?;
            length += self.read(size)?;
            self.wire.read_line(&mut String::new())?;
            if size == 0 {
                return Ok(length);
            }
        }
    }

    fn read(&mut self, length: usize) -> io::Result<usize> {
        let mut left = length;
        while left > 0 {
            let bytes = self.wire.fill_buf()?.len().min(left);
            if bytes == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.wire.consume(bytes);
            self.seen.bytes.fetch_add(bytes, Ordering::SeqCst);
            left -= bytes;
        }
        Ok(length)
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        let wire = self.wire.get_mut();
        wire.write_all(text.as_bytes())?;
        wire.flush()
    }

    fn sized(&mut self, body: &str) -> io::Result<()> {
        self.write(&format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()))
    }

    fn chunked(&mut self) -> io::Result<()> {
        self.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    }

    fn chunk(&mut self, text: &str) -> io::Result<()> {
        self.write(&format!("{:x}\r\n{text}\r\n", text.len()))
    }

    /// Writes so many bytes, or without a number as many as the client takes.
    fn pieces(&mut self, bytes: usize, write: impl Fn(&mut Self, &str) -> io::Result<()>) -> io::Result<()> {
        let piece = "x".repeat(8_192);
        let mut left = if bytes == 0 { usize::MAX } else { bytes };
        while left > 0 {
            let now = left.min(piece.len());
            write(self, piece.get(..now).unwrap_or_default())?;
            left -= now;
        }
        Ok(())
    }

    fn wait_for_gate(&self) {
        let gate = self.seen.gate.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.seen.opened.wait_while(gate, |is_open| !*is_open));
    }

    fn until_closed(&mut self) -> io::Result<()> {
        io::copy(&mut self.wire, &mut io::sink()).map(drop)
    }
}

/// A name server over UDP that knows what a test says. Nothing is to be remembered.
#[derive(Debug, Clone)]
pub struct NameServer {
    /// Where it listens.
    pub address: SocketAddr,
    asked: Arc<AtomicUsize>,
}

impl NameServer {
    /// One that answers with what `addresses` gives for a name and the number of questions for its addresses of IPv4
    /// so far. Without any it does not answer at all.
    ///
    /// # Errors
    /// When there is no port.
    pub fn start(addresses: impl Fn(&str, usize) -> Option<Vec<IpAddr>> + Send + 'static) -> Result<Self> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        let server = Self { address: socket.local_addr()?, asked: Arc::default() };
        let asked = server.asked.clone();
        thread::spawn(move || {
            let mut buffer = [0; 4_096];
            while let Ok((length, client)) = socket.recv_from(&mut buffer) {
                let question = buffer.get(..length).unwrap_or_default();
                if let Ok(Some(answer)) = answer(question, &addresses, &asked) {
                    let _ = socket.send_to(&answer, client);
                }
            }
        });
        Ok(server)
    }

    /// Questions for addresses of IPv4 so far.
    #[must_use]
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn answer(
    question: &[u8],
    addresses: &impl Fn(&str, usize) -> Option<Vec<IpAddr>>,
    asked: &AtomicUsize,
) -> Result<Option<Vec<u8>>> {
    let question = Message::from_vec(question)?;
    let query = question.queries.first().context("no question")?.clone();
    let is_v4 = query.query_type == RecordType::A;
    let before = if is_v4 { asked.fetch_add(1, Ordering::SeqCst) } else { asked.load(Ordering::SeqCst) };
    let name = query.name.to_ascii().to_ascii_lowercase();
    let Some(addresses) = addresses(name.trim_end_matches('.'), before) else { return Ok(None) };
    let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
    answer.metadata.recursion_desired = true;
    answer.metadata.recursion_available = true;
    for address in addresses.into_iter().filter(|address| address.is_ipv4() == is_v4) {
        let data = match address {
            IpAddr::V4(address) => RData::A(address.into()),
            IpAddr::V6(address) => RData::AAAA(address.into()),
        };
        answer.add_answer(Record::from_rdata(query.name.clone(), 0, data));
    }
    answer.add_query(query);
    Ok(Some(answer.to_vec()?))
}
