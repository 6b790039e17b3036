//! Attacks by programs that others have written: `slowhttptest` and `h2load`, of Debian's packages.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use dormouse_tests::{TestNode, tools};

use super::bystander::attacked;

/// Connections of an attack: fewer than one client may have, so that each is the attack's.
const CONNECTIONS: &str = "300";

/// Runs a program to its end and gives what it said.
fn run(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{command:?} ended with {}: {said}", output.status);
    Ok(said)
}

/// An attack of slowhttptest's on a deed of `misbehave`, while somebody else is answered.
fn slow(deed: &str, mode: &[&str]) -> Result<()> {
    let Some(program) = tools::program("slowhttptest", "slowhttptest")? else { return Ok(()) };
    let node = TestNode::builder().flag("--wall-time-max-ms", 5_000).start()?;
    // Who sends so much at once may be told so.
    node.expect_log("a client has too many requests");
    let tenant = node.tenant("misbehave")?;
    let url = format!("http://{}{}", node.public_address()?, tenant.path(deed));
    attacked(&node, || {
        let mut command = Command::new(program);
        command.args(mode).args(["-c", CONNECTIONS, "-r", "150", "-l", "15", "-u", &url]);
        let said = run(&mut command)?;
        ensure!(said.contains("Exit status"), "it said nothing: {said}");
        Ok(())
    })
}

#[test]
fn slow_heads() -> Result<()> {
    slow("/ok", &["-H", "-i", "1", "-x", "24", "-p", "3"])
}

#[test]
fn slow_bodies() -> Result<()> {
    slow("/echo", &["-B", "-i", "1", "-s", "8192", "-x", "10", "-p", "3", "-t", "POST"])
}

#[test]
fn slow_readers() -> Result<()> {
    slow(
        "/big?bytes=1000000",
        &["-X", "-w", "512", "-y", "1024", "-n", "5", "-z", "32", "-k", "3", "-p", "3"],
    )
}

#[test]
fn many_ranges() -> Result<()> {
    slow("/ok", &["-R", "-a", "10", "-b", "3000", "-t", "HEAD", "-p", "3"])
}

/// What h2load counted: requests that were answered with 2xx, and those that were with 4xx.
fn h2load(node: &TestNode, path: &str, options: &[&str]) -> Result<Option<(u64, u64)>> {
    let Some(program) = tools::program("h2load", "nghttp2-client")? else { return Ok(None) };
    let url = format!("http://{}{path}", node.public_address()?);
    let said = run(Command::new(program).args(["-p", "h2c"]).args(options).arg(url))?;
    let counted = said.lines().find_map(|line| line.strip_prefix("status codes: ")).context("no counts")?;
    let of = |class: &str| -> Result<u64> {
        let part = counted.split(", ").find(|part| part.contains(class));
        Ok(part.and_then(|part| part.split(' ').next()).context("no count")?.parse()?)
    };
    Ok(Some((of("2xx")?, of("4xx")?)))
}

#[test]
fn a_load_of_http2() -> Result<()> {
    let node = TestNode::builder().flag("--h2c", true).start()?;
    node.expect_log("a client has too many requests");
    let tenant = node.tenant("hello")?;
    // As many streams as a client may have requests, and all of them are answered.
    let load = || h2load(&node, &tenant.path(""), &["-n", "10000", "-c", "2", "-m", "100"]);
    if let Some((good, _)) = attacked(&node, load)? {
        assert_eq!(good, 10_000);
        // Eight times as many, which take their time: the client is told so, and others are answered.
        let slow = node.tenant("misbehave")?;
        let load = || h2load(&node, &slow.path("/slow?ms=100"), &["-n", "4000", "-c", "20", "-m", "100"]);
        let counted = attacked(&node, load)?;
        ensure!(counted.is_some_and(|(good, busy)| good > 0 && busy > 0), "{counted:?}");
    }
    Ok(())
}
