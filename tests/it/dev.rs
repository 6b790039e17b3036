//! `dormouse dev`, as a developer meets it: edit, save, call.

use std::fs;
use std::io::{BufRead as _, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use dormouse_tests::client::{Connection, Response};
use dormouse_tests::{binary, guest};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::templates::{Project, compiled};

/// How long a line may be waited for: a first compilation, while other tests compile as well.
const PATIENCE: Duration = Duration::from_secs(300);

/// A running `dormouse dev`.
struct Dev {
    child: Child,
    lines: Receiver<String>,
    said: Vec<String>,
}

impl Dev {
    fn start(project: &Path, flags: &[&str]) -> Result<Self> {
        let mut command = Command::new(binary()?);
        command.arg("dev").arg(project).args(["--public-listen", "127.0.0.1:0"]).args(flags);
        command.env("CARGO_TARGET_DIR", compiled()?);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let (sender, lines) = channel();
        follow(child.stdout.take().context("no stdout")?, sender.clone());
        follow(child.stderr.take().context("no stderr")?, sender);
        Ok(Self { child, lines, said: Vec::new() })
    }

    /// Waits for the next line with this text.
    fn line(&mut self, part: &str) -> Result<String> {
        loop {
            let line = self.lines.recv_timeout(PATIENCE);
            let line = line.with_context(|| format!("{part:?} was not said:\n{}", self.said.join("\n")))?;
            self.said.push(line.clone());
            if line.contains(part) {
                return Ok(line);
            }
        }
    }

    /// Waits until a function is live, and gives where.
    fn live(&mut self, function: &str) -> Result<SocketAddr> {
        let line = self.line(&format!("/t/dev/{function} is live"))?;
        let address = line.strip_prefix("http://").and_then(|line| line.split_once('/'));
        Ok(address.context("no address")?.0.parse()?)
    }

    /// Ctrl-C.
    fn interrupt(mut self) -> Result<ExitStatus> {
        kill_process(Pid::from_child(&self.child), Signal::INT)?;
        Ok(self.child.wait()?)
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends on each line that is written.
fn follow(stream: impl Read + Send + 'static, lines: Sender<String>) {
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let _ = lines.send(line);
        }
    });
}

fn request(node: SocketAddr, method: &str, path: &str, body: &[u8]) -> Result<Response> {
    let mut connection = Connection::open(node)?;
    connection.request(method, path, &[], body)?;
    connection.response(method)
}

/// Posts an event to the webhook and gives the id under which it is kept.
fn post(node: SocketAddr) -> Result<Value> {
    let kept = request(node, "POST", "/t/dev/fn", b"{}")?.expect(201)?.json()?;
    kept.get("id").cloned().context("no id")
}

#[test]
fn a_change_is_swapped_in_and_the_database_stays() -> Result<()> {
    let project = Project::new("new-dev", "webhook")?.folder;
    let source = project.join("src/lib.rs");
    let original = fs::read_to_string(&source)?;

    let mut dev = Dev::start(&project, &[])?;
    let node = dev.live("fn")?;
    assert_eq!(post(node)?, 1);
    let answered = dev.line("POST /t/dev/fn 201 ")?;
    ensure!(answered.ends_with("ms") || answered.ends_with("µs"), "{answered}");

    fs::write(&source, original.replace("kept an event", "stored it"))?;
    dev.live("fn")?;
    assert_eq!(post(node)?, 2);
    dev.line("  fn | stored it id=2")?;

    fs::write(&source, format!("{original}\nfn broken() -> u8 {{ \"text\" }}\n"))?;
    dev.line("error[E0308]: mismatched types")?;
    dev.line("--> src/lib.rs:")?;
    dev.line("expected `u8`, found `&str`")?;
    dev.line("the old version keeps serving")?;
    assert_eq!(post(node)?, 3);
    dev.line("  fn | stored it id=3")?;

    fs::write(&source, &original)?;
    dev.live("fn")?;
    assert_eq!(post(node)?, 4);
    dev.line("  fn | kept an event id=4")?;
    assert_eq!(dev.interrupt()?.code(), Some(0));

    for (flags, id) in [(&[] as &[&str], 5), (&["--fresh"], 1)] {
        let mut dev = Dev::start(&project, flags)?;
        let node = dev.live("fn")?;
        assert_eq!(post(node)?, id);
        assert_eq!(dev.interrupt()?.code(), Some(0));
    }
    Ok(())
}

#[test]
fn a_manifest_may_be_edited_too() -> Result<()> {
    let project = tempfile::tempdir()?;
    let manifest = project.path().join("dormouse.toml");
    fs::copy(guest("hello")?, project.path().join("hello.wasm"))?;
    let hello = "[functions.hello]\ncomponent = \"hello.wasm\"\n";
    fs::write(&manifest, hello)?;
    let mut dev = Dev::start(project.path(), &[])?;
    let node = dev.live("hello")?;
    assert_eq!(request(node, "GET", "/t/dev/hello", b"")?.expect(200)?.text(), "Hello from Dormouse\n");

    fs::write(&manifest, format!("{hello}[functions.other]\ncomponnet = \"other.wasm\"\n"))?;
    dev.line("dormouse.toml:4: there is no key functions.other.componnet; did you mean component?")?;
    fs::write(&manifest, format!("{hello}[functions.other]\ncomponent = \"other.wasm\"\n"))?;
    dev.line("there is no component at")?;
    dev.line("it waits for a change")?;
    fs::copy(guest("guestbook")?, project.path().join("other.wasm"))?;
    dev.live("other")?;
    assert_eq!(request(node, "GET", "/t/dev/other", b"")?.expect(200)?.json()?, json!([]));
    assert_eq!(dev.interrupt()?.code(), Some(0));
    Ok(())
}

#[test]
fn what_is_no_project_is_refused_at_once() -> Result<()> {
    let place = tempfile::tempdir()?;
    let mut dev = Dev::start(&place.path().join("nowhere"), &[])?;
    dev.line("there is neither a component nor a project at")?;
    assert_eq!(dev.child.wait()?.code(), Some(1));
    Ok(())
}
