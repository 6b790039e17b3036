//! A node under test: the real binary as a child process, on ports of its own, over a folder of its own.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::{Connection, Headers, Response};
use crate::group::MemoryGroup;
use crate::logs::{Line, Logs};
use crate::{Tenant, binary, eventually, guest};

/// What every node is started with, before the flags of its test.
const FLAGS: &[&str] = &[
    "--public-listen",
    "127.0.0.1:0",
    "--admin-listen",
    "127.0.0.1:0",
    "--log-format",
    "json",
    // A test that leaves a request running has made a mistake; it should not wait half a minute for it.
    "--drain-deadline-ms",
    "5000",
];

/// How a node is made.
#[derive(Debug, Default)]
pub struct Builder {
    flags: Vec<String>,
    environment: Vec<(String, String)>,
    config: Option<String>,
    prelude: Vec<String>,
}

impl Builder {
    /// Adds a flag with its value. Given later, it wins over the harness's own.
    #[must_use]
    pub fn flag(mut self, name: &str, value: impl ToString) -> Self {
        // A flag may be given once, so one of the harness's own makes room.
        self.flags.extend([name.to_owned(), value.to_string()]);
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl ToString) -> Self {
        self.environment.push((name.to_owned(), value.to_string()));
        self
    }

    /// Writes `node.toml` and names it with `--config`.
    #[must_use]
    pub fn config(mut self, toml: &str) -> Self {
        self.config = Some(toml.to_owned());
        self
    }

    /// Lets the process open so many files at most, soft and hard.
    #[must_use]
    pub fn descriptors_max(mut self, number: u32) -> Self {
        self.prelude.push(format!("ulimit -n {number}"));
        self
    }

    /// Starts the process with a file open that it does not know of: `/dev/zero`.
    #[must_use]
    pub fn inheriting_a_file(mut self) -> Self {
        self.prelude.push("exec 9</dev/zero".to_owned());
        self
    }

    /// Runs the process, and whatever it starts, in a control group.
    #[must_use]
    pub fn in_group(mut self, group: &MemoryGroup) -> Self {
        self.prelude.push(format!("echo $$ > '{}'", group.members().display()));
        self
    }

    /// The command that starts it over a data folder.
    ///
    /// # Errors
    /// When the binary cannot be built.
    pub fn command(&self, data: &Path) -> Result<Command> {
        let mut command = if self.prelude.is_empty() {
            Command::new(binary()?)
        } else {
            let mut shell = Command::new("sh");
            shell
                .args(["-c", &format!("{} && exec \"$0\" \"$@\"", self.prelude.join(" && "))])
                .arg(binary()?);
            shell
        };
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("DORMOUSE_")) {
                command.env_remove(name);
            }
        }
        command.env_remove("RUST_LOG").env_remove("RUST_BACKTRACE");
        command.arg("serve").arg("--data").arg(data);
        if let Some(config) = &self.config {
            let path = data.with_extension("node.toml");
            fs::write(&path, config)?;
            command.arg("--config").arg(path);
        }
        for pair in FLAGS.chunks(2) {
            if !self.flags.iter().any(|flag| pair.first().is_some_and(|name| name == flag)) {
                command.args(pair);
            }
        }
        if let Some(number) = database_processes()
            && !self.flags.iter().any(|flag| flag == "--database-processes")
        {
            command.args(["--database-processes", &number]);
        }
        command.args(&self.flags);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null());
        Ok(command)
    }

    /// Starts a node over a new data folder.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(self) -> Result<TestNode> {
        let folder = tempfile::Builder::new().prefix("dormouse-test-").tempdir()?;
        let mut node = self.start_in(folder.path())?;
        node.own_folder = Some(folder);
        Ok(node)
    }

    /// Starts a node over the folder `data` in a folder.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start_in(self, folder: &Path) -> Result<TestNode> {
        let (folder, logs) = (folder.to_owned(), Logs::default());
        // The tests run as whoever runs them, on whatever kernel there is.
        logs.expect("the node runs as root");
        logs.expect("process sandbox: a part of it is missing");
        let running = Running::start(&self, &folder, &logs)?;
        Ok(TestNode { builder: self, folder, own_folder: None, logs, running: Some(running) })
    }

    /// Runs a server that is expected to end by itself, and gives how, and what it wrote to its standard error.
    ///
    /// # Errors
    /// When it cannot be started or does not end.
    pub fn run_to_its_end(&self, data: &Path) -> Result<(ExitStatus, String)> {
        let mut child = self.command(data)?.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let logs = Logs::default();
        let reader = logs.follow(child.stderr.take().context("no stderr")?);
        let ended = eventually("the server ends by itself", || Ok(child.try_wait()?));
        if ended.is_err() {
            child.kill()?;
            child.wait()?;
        }
        let _ = reader.join();
        Ok((ended.with_context(|| logs.to_string())?, logs.to_string()))
    }
}

/// How many database processes the nodes of this run have whose tests do not say:
/// `DORMOUSE_TEST_DATABASE_PROCESSES=2 cargo test …` runs the tests with processes instead of threads.
fn database_processes() -> Option<String> {
    std::env::var("DORMOUSE_TEST_DATABASE_PROCESSES").ok()
}

/// How a node is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// SIGKILL: nothing can be put in order.
    Kill,
    /// SIGTERM: a drain.
    Terminate,
}

/// A running node. Dropping it stops it, and fails the test if it logged a warning or an error undeclared.
#[derive(Debug)]
pub struct TestNode {
    builder: Builder,
    folder: PathBuf,
    /// Removed with the node.
    own_folder: Option<TempDir>,
    logs: Logs,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    log_reader: JoinHandle<()>,
    watcher: Watcher,
    public: SocketAddr,
    admin: SocketAddr,
    token: String,
}

impl Running {
    fn start(builder: &Builder, folder: &Path, logs: &Logs) -> Result<Self> {
        let data = folder.join("data");
        let before = logs.lines().len();
        let mut command = builder.command(&data)?;
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let watcher = Watcher::over(&child, folder)?;
        let log_reader = logs.follow(child.stderr.take().context("no stderr")?);
        let is_up = |line: &&Line| line.message() == "listening";
        let up = eventually("the node listens", || {
            let up = logs.lines().iter().skip(before).find(is_up).cloned();
            match child.try_wait()? {
                Some(status) if up.is_none() => bail!("the node ended with {status}"),
                _ => Ok(up),
            }
        });
        let up = match up {
            Ok(up) => up,
            Err(error) => {
                child.kill()?;
                child.wait()?;
                let _ = log_reader.join();
                return Err(error.context(format!("it said:\n{logs}")));
            }
        };
        let address = |field| -> Result<SocketAddr> {
            Ok(up.get(field).with_context(|| format!("no {field} in {up}"))?.parse()?)
        };
        let token = fs::read_to_string(data.join("keys/admin.token")).context("no token")?;
        let (public, admin) = (address("public")?, address("admin")?);
        Ok(Self { child, log_reader, watcher, public, admin, token: token.trim().to_owned() })
    }

    fn stop(mut self, how: Stop) -> Result<ExitStatus> {
        if self.child.try_wait()?.is_none() {
            let pid = Pid::from_child(&self.child);
            kill_process(pid, if how == Stop::Kill { Signal::KILL } else { Signal::TERM })?;
        }
        let ended = eventually("the node ends", || Ok(self.child.try_wait()?));
        if ended.is_err() {
            self.child.kill()?;
            self.child.wait()?;
        }
        self.watcher.dismiss();
        let _ = self.log_reader.join();
        ended
    }
}

/// Ends the node when the test process is gone: killed, or ended with a node that all its tests share.
#[derive(Debug)]
struct Watcher {
    shell: Child,
    hand: Option<ChildStdin>,
}

impl Watcher {
    /// Reads from a pipe that the kernel closes with the test process. A line says that there is nothing to do.
    const SCRIPT: &str = r#"
        read -r dismissed && exit
        kill -TERM "$0"
        for _ in 1 2 3 4 5 6 7 8 9 10; do kill -0 "$0" 2>/dev/null || break; sleep 0.2; done
        kill -KILL "$0" 2>/dev/null
        rm -rf "$1"
    "#;

    fn over(child: &Child, folder: &Path) -> Result<Self> {
        let mut shell = Command::new("sh");
        shell.args(["-c", Self::SCRIPT]).arg(child.id().to_string()).arg(folder);
        let mut shell = shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let hand = shell.stdin.take();
        Ok(Self { shell, hand })
    }

    fn dismiss(mut self) {
        if let Some(mut hand) = self.hand.take() {
            let _ = std::io::Write::write_all(&mut hand, b"dismissed\n");
        }
        let _ = self.shell.wait();
    }
}

impl TestNode {
    /// A node with the shipped defaults.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start() -> Result<Self> {
        Self::builder().start()
    }

    /// A node with flags of its own.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    fn running(&self) -> Result<&Running> {
        self.running.as_ref().context("the node is stopped")
    }

    /// Where its public listener is.
    ///
    /// # Errors
    /// When it is stopped.
    pub fn public_address(&self) -> Result<SocketAddr> {
        Ok(self.running()?.public)
    }

    /// Where its admin listener is.
    ///
    /// # Errors
    /// When it is stopped.
    pub fn admin_address(&self) -> Result<SocketAddr> {
        Ok(self.running()?.admin)
    }

    /// Its data folder.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Its admin token.
    ///
    /// # Errors
    /// When it is stopped.
    pub fn token(&self) -> Result<&str> {
        Ok(&self.running()?.token)
    }

    /// Its process.
    ///
    /// # Errors
    /// When it is stopped.
    pub fn pid(&self) -> Result<Pid> {
        Ok(Pid::from_child(&self.running()?.child))
    }

    /// What it logged, all its lives together.
    #[must_use]
    pub fn logs(&self) -> &Logs {
        &self.logs
    }

    /// Declares that warnings and errors with this text are what the test is about.
    pub fn expect_log(&self, text: &str) {
        self.logs.expect(text);
    }

    /// A connection to its public listener.
    ///
    /// # Errors
    /// When nobody listens.
    pub fn connect(&self) -> Result<Connection> {
        Connection::open(self.public_address()?)
    }

    /// One request to its public listener, on a connection of its own.
    ///
    /// # Errors
    /// When no whole response comes.
    pub fn request(&self, method: &str, path: &str, headers: Headers<'_>, body: &[u8]) -> Result<Response> {
        let mut connection = self.connect()?;
        connection.request(method, path, headers, body)?;
        connection.response(method)
    }

    /// One request to its admin listener, on a connection of its own.
    ///
    /// # Errors
    /// When no whole response comes.
    pub fn admin_request(
        &self,
        method: &str,
        path: &str,
        headers: Headers<'_>,
        body: &[u8],
    ) -> Result<Response> {
        let mut connection = Connection::open(self.admin_address()?)?;
        connection.request(method, path, headers, body)?;
        connection.response(method)
    }

    /// The same with the admin token.
    ///
    /// # Errors
    /// When no whole response comes.
    pub fn admin(&self, method: &str, path: &str, body: &[u8]) -> Result<Response> {
        let bearer = format!("Bearer {}", self.token()?);
        self.admin_request(
            method,
            path,
            &[("authorization", &bearer), ("content-type", "application/json")],
            body,
        )
    }

    /// Makes a tenant.
    ///
    /// # Errors
    /// When the node refuses.
    pub fn create_tenant(&self, name: &str) -> Result<()> {
        self.admin("POST", "/v1/tenants", json!({ "name": name }).to_string().as_bytes())?.expect(201)?;
        Ok(())
    }

    /// Uploads a component.
    ///
    /// # Errors
    /// When no answer comes; a refusal is one.
    pub fn upload(&self, tenant: &str, function: &str, component: &[u8]) -> Result<Response> {
        let bearer = format!("Bearer {}", self.token()?);
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/wasm")];
        self.admin_request("PUT", &format!("/v1/tenants/{tenant}/functions/{function}"), &headers, component)
    }

    /// Uploads parts as `multipart/form-data`, each with its name.
    ///
    /// # Errors
    /// When no answer comes; a refusal is one.
    pub fn upload_parts(&self, tenant: &str, function: &str, parts: &[(&str, &[u8])]) -> Result<Response> {
        let bearer = format!("Bearer {}", self.token()?);
        let headers = [
            ("authorization", bearer.as_str()),
            ("content-type", "multipart/form-data; boundary=between-the-parts"),
        ];
        let mut body = Vec::new();
        for (name, bytes) in parts {
            let head =
                format!("--between-the-parts\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n");
            body.extend_from_slice(head.as_bytes());
            body.extend_from_slice(bytes);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(b"--between-the-parts--\r\n");
        self.admin_request("PUT", &format!("/v1/tenants/{tenant}/functions/{function}"), &headers, &body)
    }

    /// Deploys a component from a file.
    ///
    /// # Errors
    /// When the node refuses.
    pub fn deploy(&self, tenant: &str, function: &str, component: &Path) -> Result<Value> {
        self.upload(tenant, function, &fs::read(component)?)?.expect(200)?.json()
    }

    /// Makes a tenant of a name that no other has, with a guest as its function `fn`.
    ///
    /// # Errors
    /// When the node refuses.
    pub fn tenant(&self, guest_name: &str) -> Result<Tenant<'_>> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("{guest_name}-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        self.create_tenant(&name)?;
        self.deploy(&name, "fn", &guest(guest_name)?)?;
        Ok(Tenant::new(self, name))
    }

    /// A tenant that is there already, with its function `fn`.
    #[must_use]
    pub fn tenant_named(&self, name: String) -> Tenant<'_> {
        Tenant::new(self, name)
    }

    /// Its metrics, each under its name and labels as they are written.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn metrics(&self) -> Result<BTreeMap<String, f64>> {
        let text = self.admin_request("GET", "/metrics", &[], b"")?.expect(200)?.text();
        let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        lines
            .map(|line| {
                let (name, value) = line.rsplit_once(' ').with_context(|| format!("no metric: {line}"))?;
                Ok((name.to_owned(), value.parse().with_context(|| format!("no metric: {line}"))?))
            })
            .collect()
    }

    /// One metric.
    ///
    /// # Errors
    /// When it is not there.
    pub fn metric(&self, name: &str) -> Result<f64> {
        let metrics = self.metrics()?;
        metrics.get(name).copied().with_context(|| format!("no {name} among {:?}", metrics.keys()))
    }

    /// Waits until a metric has a value.
    ///
    /// # Errors
    /// When it never has.
    pub fn wait_for_metric(&self, name: &str, value: f64) -> Result<()> {
        let mut last = f64::NAN;
        eventually(&format!("{name} becomes {value}"), || {
            last = self.metric(name)?;
            Ok((last.total_cmp(&value).is_eq()).then_some(()))
        })
        .with_context(|| format!("it is {last}"))
    }

    /// The files that its process has open.
    ///
    /// # Errors
    /// When it is stopped.
    pub fn open_files(&self) -> Result<Vec<PathBuf>> {
        let folder = format!("/proc/{}/fd", self.pid()?.as_raw_nonzero());
        let entries = fs::read_dir(folder)?.flatten();
        // One may close while we look.
        Ok(entries.filter_map(|entry| fs::read_link(entry.path()).ok()).collect())
    }

    /// Stops it and starts it again over the same folder.
    ///
    /// # Errors
    /// When it does not stop, or does not come up.
    pub fn restart(&mut self, how: Stop) -> Result<()> {
        self.stop(how)?;
        self.restart_after_stop()
    }

    /// Starts it again over the same folder, after a stop.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn restart_after_stop(&mut self) -> Result<()> {
        self.running = Some(Running::start(&self.builder, &self.folder, &self.logs)?);
        Ok(())
    }

    /// Stops it.
    ///
    /// # Errors
    /// When it does not stop.
    pub fn stop(&mut self, how: Stop) -> Result<ExitStatus> {
        self.running.take().context("the node is stopped")?.stop(how)
    }

    /// Asks it to drain and does not wait.
    ///
    /// # Errors
    /// When it is stopped.
    pub fn terminate(&self) -> Result<()> {
        Ok(kill_process(self.pid()?, Signal::TERM)?)
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    /// When it does not.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        let running = self.running.as_mut().context("the node is stopped")?;
        eventually("the node ends", || Ok(running.child.try_wait()?))?;
        self.stop(Stop::Terminate)
    }

    fn finish(&mut self) -> Result<()> {
        if let Some(running) = self.running.take() {
            let status = running.stop(Stop::Terminate)?;
            if !status.success() {
                bail!("the node ended with {status}:\n{}", self.logs);
            }
        }
        self.logs.check()
    }
}

impl Drop for TestNode {
    fn drop(&mut self) {
        let finished = self.finish();
        report(finished);
    }
}

#[expect(clippy::panic, reason = "nothing else fails a test from a drop")]
fn report(finished: Result<()>) {
    match finished {
        Err(error) if thread::panicking() => eprintln!("{error:#}"),
        Err(error) => panic!("{error:#}"),
        Ok(()) => {}
    }
}

/// A node that many tests use, started for the first of them and stopped with the process.
#[derive(Debug)]
pub struct Shared {
    flags: &'static [(&'static str, &'static str)],
    node: OnceLock<Result<TestNode, String>>,
}

impl Shared {
    /// A node with these flags.
    #[must_use]
    pub const fn new(flags: &'static [(&'static str, &'static str)]) -> Self {
        Self { flags, node: OnceLock::new() }
    }

    /// The node, for one test.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn node(&'static self) -> Result<SharedNode> {
        let started = self.node.get_or_init(|| {
            let builder = TestNode::builder();
            let builder = self.flags.iter().fold(builder, |builder, (name, value)| builder.flag(name, value));
            builder.start().map_err(|error| format!("{error:#}"))
        });
        started.as_ref().map(SharedNode).map_err(|error| anyhow!(error.clone()))
    }
}

/// A test's use of a shared node. When it ends, the log since the last such end must hold nothing undeclared.
#[derive(Debug)]
pub struct SharedNode(&'static TestNode);

impl Deref for SharedNode {
    type Target = TestNode;
    fn deref(&self) -> &TestNode {
        self.0
    }
}

impl Drop for SharedNode {
    fn drop(&mut self) {
        report(self.0.logs.check());
    }
}
