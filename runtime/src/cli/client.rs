//! The client of the admin API: where the node is, who asks, one request at a time.
//!
//! It knows HTTP, tokens and problem details; what the answers mean is the commands' own business.

use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::Value;
use ureq::http::{Response, StatusCode};
use ureq::{Agent, Body, BodyReader, RequestBuilder, SendBody};

use super::address::NodeUrl;
use super::text;
use crate::manifest::FunctionManifest;
use crate::name::Id;

/// The admin token itself; it comes before the token file. Not an argument, because `ps` shows those.
const TOKEN_VARIABLE: &str = "DORMOUSE_TOKEN";

/// How long a connection may take to open.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);

/// How long a request may take; the node's own limits are shorter.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(60);

/// The same for what takes the node long: an upload waits for the compiler, two minutes of CPU time, perhaps behind
/// others; a recovery checks a whole database.
const LONG_TIME_MAX: Duration = Duration::from_secs(600);

/// The same for an import: the upload, and the check of a large database, as long as the node allows each.
const IMPORT_TIME_MAX: Duration = Duration::from_secs(1_200);

/// The largest answer: the 16 MiB of rows that a node buffers, when every byte of them needs a JSON escape.
const ANSWER_BYTES_MAX: u64 = 128 << 20;

/// Which node, and who asks. Shared by all commands that are clients.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Node")]
pub(super) struct ClientOptions {
    /// The address of the node's admin API
    #[arg(long, value_name = "URL", env = "DORMOUSE_NODE", default_value = "http://127.0.0.1:9090")]
    node: NodeUrl,
    /// The file with the admin token; the variable DORMOUSE_TOKEN, when set, is the token itself
    #[arg(long, value_name = "PATH", env = "DORMOUSE_TOKEN_FILE", default_value = "data/keys/admin.token")]
    token_file: PathBuf,
}

impl ClientOptions {
    /// A client for the node. Nothing is sent yet.
    pub(super) fn client(&self) -> anyhow::Result<Client> {
        let token = std::env::var(TOKEN_VARIABLE).ok().filter(|token| !token.trim().is_empty());
        match token {
            Some(token) => Client::new(self.node.clone(), &token, format!("in {TOKEN_VARIABLE}")),
            None => Client::from_token_file(self.node.clone(), &self.token_file),
        }
    }
}

/// The node said no.
#[derive(Debug, thiserror::Error)]
#[error("{reason} (HTTP {}{hint})", status.as_u16())]
pub(super) struct Refused {
    /// The status of its answer.
    pub(super) status: StatusCode,
    /// The name of its problem, as in `docs/problems.md`.
    pub(super) problem: Option<String>,
    reason: String,
    hint: String,
}

/// A file that is arriving.
pub(super) struct Download {
    /// Its size.
    pub(super) bytes: u64,
    /// Its entity tag: while that is the same, so is the file.
    pub(super) tag: Option<String>,
    /// Which database it is.
    pub(super) database: Option<String>,
    pub(super) reader: BodyReader<'static>,
}

/// A client of one node.
pub(super) struct Client {
    agent: Agent,
    node: NodeUrl,
    authorization: String,
    token_source: String,
}

impl Client {
    /// A client with the token that `file` holds.
    pub(super) fn from_token_file(node: NodeUrl, file: &Path) -> anyhow::Result<Self> {
        let token = std::fs::read_to_string(file).with_context(|| {
            format!(
                "there is no readable admin token at {}; `dormouse serve` writes one to keys/admin.token in its \
                 data folder when it first starts: name that file with --token-file or DORMOUSE_TOKEN_FILE, or \
                 put the token itself in {TOKEN_VARIABLE}",
                file.display()
            )
        })?;
        Self::new(node, &token, format!("in {}", file.display()))
    }

    fn new(node: NodeUrl, token: &str, token_source: String) -> anyhow::Result<Self> {
        let token = token.trim();
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            bail!("the admin token {token_source} is malformed: it must be one line of printable ASCII");
        }
        Ok(Self { agent: agent(), node, authorization: format!("Bearer {token}"), token_source })
    }

    /// The node that is spoken to.
    pub(super) fn node(&self) -> &NodeUrl {
        &self.node
    }

    /// `GET`s what is at a path such as `/v1/node`.
    pub(super) fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.answer(self.with_token(self.agent.get(self.url(path))).call())
    }

    /// All elements of the list `name`, page by page. `path` says how many are asked for at once.
    pub(super) fn all(&self, name: &str, path: &str) -> anyhow::Result<Vec<Value>> {
        let mut all = Vec::new();
        let mut after = String::new();
        loop {
            let mut page = self.get(&format!("{path}{after}"))?;
            let Some(Value::Array(mut found)) = page.get_mut(name).map(Value::take) else {
                bail!("the node's answer has no `{name}`; is this program older than the node?");
            };
            // An empty page ends the list whatever `next` says.
            let progress = !found.is_empty();
            all.append(&mut found);
            match page.get("next").and_then(Value::as_str) {
                Some(next) if progress && is_plain(next) => after = format!("&after={next}"),
                Some(next) if progress => bail!("the node names {next:?} as its next page"),
                _ => return Ok(all),
            }
        }
    }

    /// `POST`s JSON.
    pub(super) fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.answer(self.with_token(self.agent.post(self.url(path))).send_json(body))
    }

    /// `POST`s nothing to a path where the node has long to work.
    pub(super) fn post_and_wait(&self, path: &str) -> anyhow::Result<Value> {
        let request = self.agent.post(self.url(path)).config().timeout_global(Some(LONG_TIME_MAX)).build();
        self.answer(self.with_token(request).send_empty())
    }

    /// `PUT`s JSON.
    pub(super) fn put(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.answer(self.with_token(self.agent.put(self.url(path))).send_json(body))
    }

    /// `GET`s a file; nothing when it is still the one that has the entity tag `known`.
    pub(super) fn download(&self, path: &str, known: Option<&str>) -> anyhow::Result<Option<Download>> {
        let request = self.agent.get(self.url(path)).config().timeout_global(Some(LONG_TIME_MAX)).build();
        let mut request = self.with_token(request);
        if let Some(known) = known {
            request = request.header("if-none-match", known);
        }
        let response = match request.call() {
            Ok(response) if response.status() == StatusCode::NOT_MODIFIED => return Ok(None),
            Ok(response) if response.status().is_success() => response,
            refused => {
                self.answer(refused)?;
                bail!("the node at {} sent no file", self.node)
            }
        };
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        let bytes = header("content-length").and_then(|bytes| bytes.parse().ok());
        let bytes =
            bytes.with_context(|| format!("the node at {} does not tell the file's size", self.node))?;
        let (tag, database) =
            (header("etag").map(str::to_owned), header("dormouse-database").map(str::to_owned));
        Ok(Some(Download { bytes, tag, database, reader: response.into_body().into_reader() }))
    }

    /// `PUT`s a database file. The node may refuse it before it is sent.
    pub(super) fn put_database(
        &self,
        path: &str,
        file: impl Read + 'static,
        bytes: u64,
    ) -> anyhow::Result<Value> {
        let request = self.agent.put(self.url(path)).config().timeout_global(Some(IMPORT_TIME_MAX)).build();
        let request = self
            .with_token(request)
            .header("expect", "100-continue")
            .header("content-type", "application/vnd.sqlite3")
            .header("content-length", bytes);
        let sent = request.send(SendBody::from_owned_reader(file));
        self.answer(sent)
    }

    /// `DELETE`s what is at the path.
    pub(super) fn delete(&self, path: &str) -> anyhow::Result<Value> {
        self.answer(self.with_token(self.agent.delete(self.url(path))).call())
    }

    /// `PUT`s a component, beside its manifest where it has one. The node may refuse it before it is sent.
    pub(super) fn put_component(
        &self,
        path: &str,
        component: &[u8],
        manifest: Option<&FunctionManifest>,
    ) -> anyhow::Result<Value> {
        let request = self.agent.put(self.url(path)).config().timeout_global(Some(LONG_TIME_MAX)).build();
        let request = self.with_token(request).header("expect", "100-continue");
        let sent = match manifest {
            None => request.header("content-type", "application/wasm").send(component),
            Some(manifest) => {
                let form = Form::of(manifest, component)?;
                request.header("content-type", form.content_type).send(&form.body)
            }
        };
        if let Err(ureq::Error::Io(error)) = &sent
            && matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)
        {
            let size = text::size(component.len() as u64);
            bail!(
                "the node hung up in the middle of the upload: {size} may be more than its component_bytes_max"
            );
        }
        self.answer(sent)
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.node)
    }

    fn with_token<Any>(&self, request: RequestBuilder<Any>) -> RequestBuilder<Any> {
        request.header("authorization", &self.authorization)
    }

    fn answer(&self, sent: Result<Response<Body>, ureq::Error>) -> anyhow::Result<Value> {
        let mut response = sent.with_context(|| {
            format!(
                "cannot speak to the node at {}; is `dormouse serve` running there? \
                 --node or DORMOUSE_NODE names another",
                self.node
            )
        })?;
        let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
        let body = body.with_context(|| format!("the answer of the node at {} broke off", self.node))?;
        let status = response.status();
        if !status.is_success() {
            return Err(self.refusal(status, &body).into());
        }
        if body.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&body).with_context(|| {
            format!("{} did not answer with JSON; is it the admin address of a Dormouse node?", self.node)
        })
    }

    fn refusal(&self, status: StatusCode, body: &[u8]) -> Refused {
        let problem: Value = serde_json::from_slice(body).unwrap_or_default();
        let member = |name| problem.get(name).and_then(Value::as_str);
        let reason = member("detail").or_else(|| member("title")).map(|text| text.trim_end_matches('.'));
        let reason = match reason {
            Some(reason) => reason.to_owned(),
            None => format!("{} answered without a reason; is it the admin address of a node?", self.node),
        };
        let hint = match (status, member("request_id")) {
            (StatusCode::UNAUTHORIZED, _) => {
                format!("; the token {} is not one of this node's", self.token_source)
            }
            (_, Some(id)) => format!(", request {id}"),
            (_, None) => String::new(),
        };
        let name = member("type").and_then(|urn| urn.strip_prefix("urn:problem-type:dormouse:"));
        Refused { status, problem: name.map(str::to_owned), reason, hint }
    }
}

/// A manifest and a component as `multipart/form-data` (RFC 7578).
struct Form {
    content_type: String,
    body: Vec<u8>,
}

impl Form {
    fn of(manifest: &FunctionManifest, component: &[u8]) -> anyhow::Result<Self> {
        // 128 random bits, so that it is not found inside of a part.
        let boundary = Id::random().context("the system gives no random bits")?;
        let (boundary, manifest) = (boundary.as_str(), serde_json::to_string(manifest)?);
        let part = |name: &str, content_type: &str| {
            format!(
                "--{boundary}\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\
                 content-type: {content_type}\r\n\r\n"
            )
        };
        let before = format!(
            "{}{manifest}\r\n{}",
            part("manifest", "application/json"),
            part("component", "application/wasm")
        );
        let after = format!("\r\n--{boundary}--\r\n");
        let body = [before.as_bytes(), component, after.as_bytes()].concat();
        Ok(Self { content_type: format!("multipart/form-data; boundary={boundary}"), body })
    }
}

/// Whether a text can stand in an address as it is, as names and ids can.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// No redirects and no proxy: the token is for the node alone.
fn agent() -> Agent {
    Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .timeout_connect(Some(CONNECT_TIME_MAX))
        .timeout_global(Some(REQUEST_TIME_MAX))
        .user_agent(concat!("dormouse/", env!("CARGO_PKG_VERSION")))
        .build()
        .new_agent()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(token: &str) -> anyhow::Result<Client> {
        Client::new("http://box:1".parse()?, token, "in T".to_owned())
    }

    #[test]
    fn a_problem_is_told_with_its_request() -> anyhow::Result<()> {
        let body = br#"{"type":"urn:x","title":"Not found","status":404,"detail":"No tenant acme.","request_id":"r1"}"#;
        let told = client("t")?.refusal(StatusCode::NOT_FOUND, body).to_string();
        assert_eq!(told, "No tenant acme (HTTP 404, request r1)");
        Ok(())
    }

    #[test]
    fn a_wrong_token_is_told_with_its_place() -> anyhow::Result<()> {
        let told = client("t")?.refusal(StatusCode::UNAUTHORIZED, br#"{"title":"Unauthorized"}"#).to_string();
        assert_eq!(told, "Unauthorized (HTTP 401; the token in T is not one of this node's)");
        Ok(())
    }

    #[test]
    fn an_answer_that_is_no_problem_is_no_node() -> anyhow::Result<()> {
        let told = client("t")?.refusal(StatusCode::BAD_GATEWAY, b"<html>").to_string();
        assert!(told.starts_with("http://box:1 answered without a reason"), "{told}");
        Ok(())
    }

    #[test]
    fn tokens_are_one_line() -> anyhow::Result<()> {
        assert_eq!(client(" abc\n")?.authorization, "Bearer abc");
        for bad in ["", "\n", "a b", "a\nb", "ä"] {
            assert!(client(bad).is_err(), "{bad:?}");
        }
        Ok(())
    }

    #[test]
    fn a_missing_token_file_says_how_to_get_one() -> anyhow::Result<()> {
        let told = Client::from_token_file("http://box:1".parse()?, Path::new("/nowhere/token")).err();
        let told = told.map(|error| format!("{error:#}")).unwrap_or_default();
        assert!(told.contains("/nowhere/token") && told.contains("`dormouse serve` writes one"), "{told}");
        Ok(())
    }
}
