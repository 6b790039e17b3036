//! A tenant of a node under test, with the requests that tests send again and again.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::client::{Connection, Headers, Incoming, Response};
use crate::{TestNode, eventually};

/// A tenant with a guest as its function `fn`.
#[derive(Debug, Clone)]
pub struct Tenant<'a> {
    /// Where it is.
    pub node: &'a TestNode,
    /// Its name.
    pub name: String,
}

impl<'a> Tenant<'a> {
    pub(crate) fn new(node: &'a TestNode, name: String) -> Self {
        Self { node, name }
    }

    /// The address of what follows its function's name.
    #[must_use]
    pub fn path(&self, rest: &str) -> String {
        format!("/t/{}/fn{rest}", self.name)
    }

    /// One request to its function.
    ///
    /// # Errors
    /// When no whole response comes.
    pub fn request(&self, method: &str, rest: &str, headers: Headers<'_>, body: &[u8]) -> Result<Response> {
        self.node.request(method, &self.path(rest), headers, body)
    }

    /// A GET to its function.
    ///
    /// # Errors
    /// When no whole response comes.
    pub fn get(&self, rest: &str) -> Result<Response> {
        self.request("GET", rest, &[], b"")
    }

    /// A GET that is answered with 200 and JSON.
    ///
    /// # Errors
    /// When it is answered otherwise.
    pub fn json(&self, rest: &str) -> Result<Value> {
        self.get(rest)?.expect(200)?.json()
    }

    /// Posts JSON to its function.
    ///
    /// # Errors
    /// When no whole response comes.
    pub fn post(&self, rest: &str, body: &Value) -> Result<Response> {
        self.request("POST", rest, &[("content-type", "application/json")], body.to_string().as_bytes())
    }

    /// Sends a GET and reads no more of the answer than its head.
    ///
    /// # Errors
    /// When no head comes.
    pub fn start(&self, rest: &str) -> Result<(Connection, Incoming)> {
        let mut connection = self.send(rest)?;
        let incoming = connection.head("GET")?;
        Ok((connection, incoming))
    }

    /// Sends a GET and reads nothing.
    ///
    /// # Errors
    /// When it cannot be sent.
    pub fn send(&self, rest: &str) -> Result<Connection> {
        let mut connection = self.node.connect()?;
        connection.request("GET", &self.path(rest), &[], b"")?;
        Ok(connection)
    }

    /// Lets the guest `misbehave` run one statement.
    ///
    /// # Errors
    /// When the guest does not answer; an error of the statement is an answer.
    pub fn guest_sql(&self, sql: &str) -> Result<Value> {
        self.post("/sql", &json!({ "sql": sql }))?.expect(200)?.json()
    }

    /// Lets the guest `misbehave` run several statements on one connection.
    ///
    /// # Errors
    /// When the guest does not answer; an error of a statement is an answer.
    pub fn guest_statements(&self, statements: &[&str]) -> Result<Vec<Value>> {
        let statements: Vec<Value> = statements.iter().map(|sql| json!({ "sql": sql })).collect();
        let answers = self.post("/sql", &json!({ "statements": statements }))?.expect(200)?.json()?;
        answers.as_array().cloned().with_context(|| format!("no list: {answers}"))
    }

    /// The answer of the admin API to one statement on its database.
    ///
    /// # Errors
    /// When no answer comes.
    pub fn try_sql(&self, sql: &str, parameters: &Value) -> Result<Response> {
        let body = json!({ "sql": sql, "parameters": parameters });
        self.node.admin("POST", &format!("/v1/tenants/{}/sql", self.name), body.to_string().as_bytes())
    }

    /// The rows of one statement on its database, run by the operator.
    ///
    /// # Errors
    /// When the statement fails.
    pub fn sql(&self, sql: &str) -> Result<Value> {
        let answer = self.try_sql(sql, &json!([]))?.expect(200)?.json()?;
        answer.get("rows").cloned().with_context(|| format!("no rows: {answer}"))
    }

    /// The number in the first row of one statement, run by the operator.
    ///
    /// # Errors
    /// When there is none.
    pub fn number(&self, sql: &str) -> Result<i64> {
        let rows = self.sql(sql)?;
        rows.pointer("/0/0").and_then(Value::as_i64).with_context(|| format!("no number: {rows}"))
    }

    /// Sets a variable, or a secret, for its functions.
    ///
    /// # Errors
    /// When the node refuses it.
    pub fn set_variable(&self, name: &str, body: &Value) -> Result<()> {
        let path = format!("/v1/tenants/{}/variables/{name}", self.name);
        self.node.admin("PUT", &path, body.to_string().as_bytes())?.expect(204)?;
        Ok(())
    }

    /// What the admin API tells of it.
    ///
    /// # Errors
    /// When it tells nothing.
    pub fn shown(&self) -> Result<Value> {
        self.node.admin("GET", &format!("/v1/tenants/{}", self.name), b"")?.expect(200)?.json()
    }

    /// The id under which its files lie.
    ///
    /// # Errors
    /// When the API does not tell.
    pub fn id(&self) -> Result<String> {
        Ok(self.shown()?.get("id").and_then(Value::as_str).context("no id")?.to_owned())
    }

    /// Waits until its database is in a state, such as `closed`, `leased` or `parked`.
    ///
    /// # Errors
    /// When it never is.
    pub fn wait_for_state(&self, state: &str) -> Result<Value> {
        eventually(&format!("the database of {} is {state}", self.name), || {
            let shown = self.shown()?;
            Ok((shown.pointer("/database/state").and_then(Value::as_str) == Some(state)).then_some(shown))
        })
    }
}

/// The slug of a problem, once everything that every problem must have is checked.
///
/// # Errors
/// When the response is no problem of Dormouse's.
pub fn problem_of(response: &Response) -> Result<String> {
    let content_type = response.header("content-type");
    ensure!(
        content_type == Some("application/problem+json"),
        "{} is no problem but {content_type:?}: {}",
        response.status,
        response.text()
    );
    let problem = response.json()?;
    let text = |field: &str| problem.get(field).and_then(Value::as_str);
    let slug = text("type").and_then(|urn| urn.strip_prefix("urn:problem-type:dormouse:"));
    let slug = slug.with_context(|| format!("an unknown type: {problem}"))?;
    ensure!(
        problem.get("status").and_then(Value::as_u64) == Some(response.status.into()),
        "another status than {}: {problem}",
        response.status
    );
    ensure!(text("title").is_some_and(|title| !title.is_empty()), "no title: {problem}");
    let request_id = text("request_id");
    ensure!(
        request_id.is_some() && request_id == response.header("x-request-id"),
        "its request id is not that of {:?}: {problem}",
        response.header("x-request-id")
    );
    Ok(slug.to_owned())
}
