//! The tour: what a user of the node would do, step by step, with the time that each thing takes.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use ureq::http::{Response, StatusCode};
use ureq::{Agent, Body};

use super::{Steps, resident_bytes};
use crate::cli::client::Client;
use crate::cli::local::{Doors, Folder, shown_from_here};
use crate::cli::{deploy, output, sql, tenant, text};
use crate::name::{FunctionName, TenantName};

/// How many requests the warm times are the median of.
const WARM_REQUESTS: usize = 50;

/// How long one call of the function may take; the node's own limit is 30 seconds.
const CALL_TIME_MAX: Duration = Duration::from_secs(40);

const WEBHOOK: &str = r#"{"name":"Ada","message":"Hello from a webhook"}"#;
const WARM_WEBHOOK: &str = r#"{"name":"Ada","message":"Hello again"}"#;
const NEWEST_ROW: &str = "SELECT * FROM entries ORDER BY id DESC LIMIT 1";

/// What the tour goes through.
pub(super) struct Tour {
    pub(super) doors: Doors,
    pub(super) component: PathBuf,
    pub(super) folder: Folder,
    /// The node's process id.
    pub(super) process: u32,
}

impl Tour {
    /// Gives the tour. Blocks.
    pub(super) fn give(&self, steps: &mut Steps, exit: bool) -> anyhow::Result<()> {
        let client = Client::from_token_file(self.admin().parse()?, &self.folder.token_file())?;
        let (tenant, function): (TenantName, FunctionName) = ("demo".parse()?, "fn".parse()?);
        self.deploy(steps, &client, &tenant, &function)?;
        let address = deploy::address(&client, &tenant, &function)?;
        let caller = Caller::new(address);
        steps.begin("Send it a webhook")?;
        let first = send_webhook(steps, &caller)?;
        steps.begin("Read the row from the tenant's own database")?;
        steps.tell(&format!("dormouse sql {tenant} '{NEWEST_ROW}'"))?;
        for line in sql::shown(&sql::execute(&client, &tenant, NEWEST_ROW, &[])?) {
            steps.tell(&format!("  {line}"))?;
        }
        self.measure(steps, &caller, first)?;
        if exit { output::lines("\nThat was the demo; it all worked.") } else { self.invite(&caller.address) }
    }

    fn deploy(
        &self,
        steps: &mut Steps,
        client: &Client,
        tenant: &TenantName,
        function: &FunctionName,
    ) -> anyhow::Result<()> {
        steps.begin("Create a tenant and deploy the guestbook to it")?;
        // A folder of the user's may hold an earlier demo.
        match tenant::ensure(client, tenant)? {
            tenant::Ensured::Created => steps.tell(&format!("created the tenant {tenant}"))?,
            tenant::Ensured::WasThere => steps.tell(&format!("the tenant {tenant} is there already"))?,
        }
        let begun = Instant::now();
        deploy::upload(client, tenant, function, &self.component, None)?;
        steps.tell(&format!("compiled to machine code and deployed in {}", text::span(begun.elapsed())))
    }

    fn measure(&self, steps: &mut Steps, caller: &Caller, first: Duration) -> anyhow::Result<()> {
        steps.begin("Measure")?;
        let reads = median(WARM_REQUESTS, || caller.get())?;
        let writes = median(WARM_REQUESTS, || caller.post(WARM_WEBHOOK))?;
        let median_of = format!("(median of {WARM_REQUESTS} on one connection)");
        steps
            .tell(&format!("first answer   {:>7}  (cold: the tenant's first request)", text::span(first)))?;
        steps.tell(&format!("warm, reading  {:>7}  {median_of}", text::span(reads)))?;
        steps.tell(&format!(
            "warm, writing  {:>7}  {median_of}; each is on disk when it is answered",
            text::span(writes)
        ))?;
        let memory = text::size(resident_bytes(self.process)?);
        steps.tell(&format!("memory         {memory:>7}  (the whole server, resident)"))
    }

    fn invite(&self, address: &str) -> anyhow::Result<()> {
        let program = std::env::current_exe().context("cannot tell where this program is")?;
        let (program, token) = (shown_from_here(&program), shown_from_here(&self.folder.token_file()));
        let lines = [
            String::new(),
            "The node serves until Ctrl-C. In another terminal, or a browser:".to_owned(),
            String::new(),
            format!("  function  {address}"),
            format!("  admin     {}", self.admin()),
            format!("  log       {}", shown_from_here(&self.folder.log())),
            String::new(),
            format!("  curl -d '{}' {address}", r#"{"name":"Grace","message":"Hi"}"#),
            format!("  curl {address}"),
            format!(
                "  {program} sql demo 'SELECT * FROM entries' --node {} --token-file {token}",
                self.admin()
            ),
        ];
        output::lines(&lines.join("\n"))
    }

    fn admin(&self) -> String {
        format!("http://{}", self.doors.admin)
    }
}

fn send_webhook(steps: &Steps, caller: &Caller) -> anyhow::Result<Duration> {
    steps.tell(&format!("POST {}", caller.address))?;
    steps.tell(&format!("  {WEBHOOK}"))?;
    let answer = caller.post(WEBHOOK)?;
    steps.tell(&format!("{} in {}", answer.status, text::span(answer.time)))?;
    // Escaped as one line: this is the function's own text.
    steps.tell(&format!("  {}", text::escaped(&answer.body)))?;
    Ok(answer.time)
}

/// What the function answered, and how long it took from before the request to the last byte.
struct Answer {
    status: StatusCode,
    body: String,
    time: Duration,
}

/// A caller of the function, who keeps one connection open.
struct Caller {
    agent: Agent,
    address: String,
}

impl Caller {
    fn new(address: String) -> Self {
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .timeout_global(Some(CALL_TIME_MAX))
            .build()
            .new_agent();
        Self { agent, address }
    }

    fn get(&self) -> anyhow::Result<Answer> {
        self.call(|| self.agent.get(&self.address).call())
    }

    fn post(&self, body: &str) -> anyhow::Result<Answer> {
        self.call(|| self.agent.post(&self.address).content_type("application/json").send(body))
    }

    fn call(&self, send: impl FnOnce() -> Result<Response<Body>, ureq::Error>) -> anyhow::Result<Answer> {
        let begun = Instant::now();
        let mut response = send().with_context(|| format!("cannot call {}", self.address))?;
        let body =
            response.body_mut().read_to_string().with_context(|| format!("{} broke off", self.address))?;
        let answer = Answer { status: response.status(), body, time: begun.elapsed() };
        ensure!(answer.status.is_success(), "{} answered {}: {}", self.address, answer.status, answer.body);
        Ok(answer)
    }
}

/// The median time of some calls, one after the other.
fn median(calls: usize, call: impl Fn() -> anyhow::Result<Answer>) -> anyhow::Result<Duration> {
    let mut times = (0..calls).map(|_| Ok(call()?.time)).collect::<anyhow::Result<Vec<Duration>>>()?;
    times.sort_unstable();
    times.get(times.len() / 2).copied().context("no call was made")
}
