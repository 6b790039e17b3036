//! One keep-alive HTTP connection, for setting up, checking and timing single requests. The load is made by
//! others.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, StatusCode,
    body::Bytes,
    client::conn::http1::{SendRequest, handshake},
    header::{AUTHORIZATION, CONTENT_TYPE, HOST},
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// A connection to one server.
#[derive(Debug)]
pub(crate) struct Client {
    address: SocketAddr,
    token: Option<String>,
    sender: SendRequest<Full<Bytes>>,
}

impl Client {
    /// Connects; `token` is sent as bearer token with every request.
    pub(crate) async fn connect(address: SocketAddr, token: Option<String>) -> Result<Self> {
        let stream = TcpStream::connect(address).await.with_context(|| format!("connect to {address}"))?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        // How the connection ends is seen by the request that fails.
        tokio::spawn(async move { connection.await.unwrap_or_default() });
        Ok(Self { address, token, sender })
    }

    /// Sends a GET.
    pub(crate) async fn get(&mut self, path: &str) -> Result<(StatusCode, Bytes)> {
        self.send(Method::GET, path, "", Bytes::new()).await
    }

    /// Sends a request with a body and reads the whole response.
    pub(crate) async fn send(
        &mut self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes)> {
        let mut request = Request::builder().method(method).uri(path).header(HOST, self.address.to_string());
        if !content_type.is_empty() {
            request = request.header(CONTENT_TYPE, content_type);
        }
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        self.sender.ready().await?;
        let response = self.sender.send_request(request.body(Full::new(body))?).await?;
        let status = response.status();
        Ok((status, response.into_body().collect().await?.to_bytes()))
    }

    /// A gauge of Dormouse's metrics; 0 when it is not there.
    pub(crate) async fn gauge(&mut self, name: &str) -> Result<u64> {
        let (_, text) = self.get("/metrics").await?;
        let text = String::from_utf8_lossy(&text);
        let value =
            text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse::<f64>().ok());
        Ok(value.map_or(0, |value| value as u64))
    }

    /// Posts a JSON document and insists on an answer in 2xx.
    pub(crate) async fn post_json(&mut self, path: &str, body: &str) -> Result<Bytes> {
        let body = Bytes::copy_from_slice(body.as_bytes());
        let (status, answer) = self.send(Method::POST, path, "application/json", body).await?;
        expect_success(path, status, &answer)?;
        Ok(answer)
    }
}

/// An error that shows the answer unless the status is in 2xx.
pub(crate) fn expect_success(what: &str, status: StatusCode, answer: &Bytes) -> Result<()> {
    if !status.is_success() {
        bail!("{what}: {status}: {}", String::from_utf8_lossy(answer));
    }
    Ok(())
}
