//! The process's own sandbox: what is in force, what it refuses, and what a node does where the kernel has none.

use std::collections::BTreeSet;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use dormouse_tests::{Builder, Stop, TestNode, binary, guest, root};
use tempfile::TempDir;

/// A field of `/proc/<pid>/task/<id>/status` for each thread of a node.
fn of_threads(node: &TestNode, field: &str) -> Result<BTreeSet<String>> {
    let tasks = fs::read_dir(format!("/proc/{}/task", node.pid()?.as_raw_nonzero()))?;
    let mut values = BTreeSet::new();
    for task in tasks {
        // One may end while we look.
        let Ok(status) = fs::read_to_string(task?.path().join("status")) else { continue };
        let value = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        values.insert(value.with_context(|| format!("no {field}"))?.trim().to_owned());
    }
    Ok(values)
}

fn told(node: &TestNode) -> Result<dormouse_tests::logs::Line> {
    node.logs().wait_for("what is in force", |line| line.message().starts_with("process sandbox: "))
}

#[test]
fn every_thread_of_a_node_is_in_its_sandbox() -> Result<()> {
    let node = TestNode::builder().flag("--process-sandbox", "required").start()?;
    let line = told(&node)?;
    assert_eq!(line.message(), "process sandbox: in force");
    let part = |name| line.get(name).unwrap_or_default();
    ensure!(part("landlock").starts_with("ABI ") && part("landlock").contains("files"), "{line}");
    ensure!(part("seccomp").contains("system calls are refused"), "{line}");
    let tenant = node.tenant("guestbook")?;
    tenant.post("", &serde_json::json!({"name": "Ada", "message": "Hello"}))?.expect(201)?;
    assert_eq!(of_threads(&node, "Seccomp")?, BTreeSet::from(["2".to_owned()]), "a thread without a filter");
    assert_eq!(of_threads(&node, "NoNewPrivs")?, BTreeSet::from(["1".to_owned()]));

    let node = TestNode::builder().flag("--process-sandbox", "off").start()?;
    assert_eq!(told(&node)?.message(), "process sandbox: off");
    Ok(())
}

/// Moves a tenant's folder out of the data folder and leaves a link to it.
fn move_away(node: &TestNode, id: &str, to: &Path) -> Result<()> {
    for shard in fs::read_dir(node.data().join("tenants"))? {
        let folder = shard?.path().join(id);
        if folder.exists() {
            ensure!(Command::new("mv").arg(&folder).arg(to).status()?.success());
            std::os::unix::fs::symlink(to.join(id), folder)?;
            return Ok(());
        }
    }
    anyhow::bail!("the tenant has no folder")
}

#[test]
fn a_node_does_not_reach_out_of_its_data_folder() -> Result<()> {
    for (sandbox, status) in [("off", 200), ("best-effort", 500)] {
        let elsewhere = tempfile::tempdir()?;
        let mut node = TestNode::builder().flag("--process-sandbox", sandbox).start()?;
        let names = {
            let (moved, other) = (node.tenant("guestbook")?, node.tenant("guestbook")?);
            for tenant in [&moved, &other] {
                tenant.post("", &serde_json::json!({"name": "Ada", "message": "Hello"}))?.expect(201)?;
            }
            let id = moved.id()?;
            let names = (moved.name.clone(), other.name.clone());
            node.stop(Stop::Terminate)?;
            move_away(&node, &id, elsewhere.path())?;
            names
        };
        node.restart_after_stop()?;
        node.expect_log("ermission denied");
        node.expect_log("unable to open database file");
        let get = |name: &str| node.request("GET", &format!("/t/{name}/fn"), &[], b"");
        let answer = get(&names.0)?;
        ensure!(answer.status == status, "{sandbox}: {}: {}", answer.status, answer.text());
        get(&names.1)?.expect(200)?;
    }
    Ok(())
}

#[test]
fn a_folder_of_the_data_may_lie_on_another_disk() -> Result<()> {
    let elsewhere = tempfile::tempdir()?;
    let mut node = TestNode::start()?;
    let name = node.tenant("guestbook")?.name;
    node.stop(Stop::Terminate)?;
    for folder in ["tenants", "artifacts"] {
        let own = node.data().join(folder);
        if own.exists() {
            ensure!(Command::new("mv").arg(&own).arg(elsewhere.path()).status()?.success());
        } else {
            fs::create_dir(elsewhere.path().join(folder))?;
        }
        std::os::unix::fs::symlink(elsewhere.path().join(folder), own)?;
    }
    node.restart_after_stop()?;
    let post = node.request(
        "POST",
        &format!("/t/{name}/fn"),
        &[("content-type", "application/json")],
        br#"{"name":"Ada","message":"Hello"}"#,
    );
    post?.expect(201)?;
    node.deploy(&name, "again", &guest("hello")?)?;
    Ok(())
}

/// What was done and what refused, by action.
fn probe(profile: &str, sandbox: &str) -> Result<(BTreeSet<String>, BTreeSet<String>)> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    fs::create_dir(&data)?;
    fs::write(data.join("there"), "there")?;
    let elsewhere = folder.path().join("elsewhere");
    fs::write(&elsewhere, "elsewhere")?;
    let server = TcpListener::bind("127.0.0.1:0")?;
    let free: SocketAddr = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let mut command = Command::new(binary()?);
    command.args(["probe-sandbox", profile]).arg(&data).arg("--elsewhere").arg(&elsewhere);
    command.args(["--listen", &free.to_string(), "--server", &server.local_addr()?.to_string()]);
    let ended = command.args(["--process-sandbox", sandbox]).output()?;
    let said = String::from_utf8(ended.stdout)?;
    ensure!(ended.status.success(), "{said}{}", String::from_utf8_lossy(&ended.stderr));
    let (mut done, mut refused) = (BTreeSet::new(), BTreeSet::new());
    for line in said.lines() {
        let (action, outcome) = line.split_once(": ").context("no outcome")?;
        let kind = if outcome == "done" { &mut done } else { &mut refused };
        kind.insert(action.to_owned());
    }
    Ok((done, refused))
}

#[test]
fn each_process_can_do_what_it_is_for_and_no_more() -> Result<()> {
    let (everything, nothing) = probe("node", "off")?;
    ensure!(everything.len() >= 12, "{everything:?} {nothing:?}");
    for (profile, wanted) in [
        (
            "node",
            &[
                "connect",
                "listen where it may",
                "read its data",
                "start a thread",
                "start itself",
                "write its data",
            ] as &[&str],
        ),
        ("compiler", &["start a thread"]),
        ("database", &["read its data", "start a thread", "write its data"]),
    ] {
        let (done, refused) = probe(profile, "required")?;
        let wanted: BTreeSet<String> = wanted.iter().map(|action| (*action).to_owned()).collect();
        assert_eq!(done, wanted, "{profile}: refused: {refused:?}");
    }
    Ok(())
}

#[test]
fn the_compiler_works_in_its_sandbox() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let output = folder.path().join("out.cwasm");
    let mut command = Command::new(binary()?);
    command.args(["compile-component", "--process-sandbox", "required"]);
    command.stdin(fs::File::open(guest("hello")?)?).stdout(fs::File::create(&output)?);
    let ended = command.stderr(Stdio::piped()).output()?;
    ensure!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    ensure!(fs::metadata(output)?.len() > 10_000);
    Ok(())
}

/// A kernel without landlock and seccomp, as a library that is preloaded.
struct OldKernel(TempDir);

impl OldKernel {
    fn new() -> Result<Self> {
        let kernel = Self(tempfile::tempdir()?);
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-o"]).arg(kernel.library());
        ensure!(compiler.arg(root().join("tests/preload/old_kernel.c")).status()?.success());
        Ok(kernel)
    }

    fn library(&self) -> PathBuf {
        self.0.path().join("old_kernel.so")
    }

    fn node(&self, sandbox: &str) -> Builder {
        TestNode::builder().env("LD_PRELOAD", self.library().display()).flag("--process-sandbox", sandbox)
    }
}

#[test]
fn a_kernel_without_it_is_told_of_and_not_enough_where_it_is_required() -> Result<()> {
    let kernel = OldKernel::new()?;
    let node = kernel.node("best-effort").start()?;
    let line = told(&node)?;
    assert_eq!(line.get("level"), Some("WARN"));
    ensure!(line.text.contains("a part of it is missing") && line.text.contains("Linux 5.13"), "{line}");
    assert_eq!(node.tenant("hello")?.get("")?.expect(200)?.text(), "Hello from Dormouse\n");

    let folder = tempfile::tempdir()?;
    let (status, said) = kernel.node("required").run_to_its_end(&folder.path().join("data"))?;
    ensure!(!status.success() && !said.contains("\"listening\""), "{status}:\n{said}");
    ensure!(said.contains("landlock") && said.contains("process_sandbox"), "{said}");
    Ok(())
}
