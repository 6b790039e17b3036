//! The compiler's process: what it may take and reach, and that nobody waits for it.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use dormouse_tests::client::{Connection, Response};
use dormouse_tests::{Stop, TestNode, eventually, problem_of};

/// A component of 10 KB that a compiler chokes on: each of many nested loops hands on each of many locals.
fn bomb() -> Result<Vec<u8>> {
    const LOOPS: usize = 2_000;
    const LOCALS: usize = 2_000;
    let locals = "(local i32)".repeat(LOCALS);
    let loops = "loop ".repeat(LOOPS);
    let body: String = (0..LOCALS)
        .map(|n| format!("local.get {n} local.get {} i32.add local.set {n} ", (n * 7 + 1) % LOCALS))
        .collect();
    let ends = "local.get 0 br_if 0 end ".repeat(LOOPS);
    Ok(wat::parse_str(format!("(component (core module (func {locals} {loops} {body} {ends})))"))?)
}

/// The process that compiles for a node.
fn compiler_of(node: &TestNode) -> Result<Option<PathBuf>> {
    let parent = format!("PPid:\t{}", node.pid()?.as_raw_nonzero());
    for entry in fs::read_dir("/proc")? {
        let process = entry?.path();
        // One may end while we look.
        let read = |name: &str| fs::read_to_string(process.join(name)).unwrap_or_default();
        if read("status").lines().any(|line| line == parent) && read("cmdline").contains("compile-component")
        {
            return Ok(Some(process));
        }
    }
    Ok(None)
}

fn wait_for_compiler(node: &TestNode) -> Result<PathBuf> {
    eventually("the compiler runs", || compiler_of(node))
}

#[test]
fn a_bomb_is_refused_and_nobody_waits_for_it() -> Result<()> {
    let node = TestNode::builder().flag("--compile-cpu-time-max-ms", 3_000).start()?;
    let tenant = node.tenant("hello")?;
    let bomb = bomb()?;
    ensure!(bomb.len() < 64 << 10, "{} bytes are no bomb", bomb.len());
    std::thread::scope(|scope| -> Result<()> {
        let upload = scope.spawn(|| node.upload(&tenant.name, "bomb", &bomb));
        wait_for_compiler(&node)?;
        let mut answered = 0;
        while compiler_of(&node)?.is_some() {
            tenant.get("")?.expect(200)?;
            node.admin("GET", "/v1/tenants", b"")?.expect(200)?;
            answered += 1;
        }
        ensure!(answered > 0, "nothing was answered meanwhile");
        let refused: Response = upload.join().ok().context("a thread failed")??.expect(422)?;
        assert_eq!(problem_of(&refused)?, "bad-component");
        ensure!(refused.text().contains("CPU time"), "{}", refused.text());
        Ok(())
    })?;
    let refused = node.metric("dormouse_components_refused_total{reason=\"too_costly\"}")?;
    assert_eq!(refused.total_cmp(&1.0), std::cmp::Ordering::Equal);
    let left = fs::read_dir(node.data().join("artifacts"))?.count();
    assert_eq!(left, 3, "the refused component has left something");
    Ok(())
}

#[test]
fn the_compiler_has_its_pipes_and_its_limits_and_ends_with_its_node() -> Result<()> {
    let mut node = TestNode::builder().inheriting_a_file().start()?;
    node.create_tenant("t")?;
    let bearer = format!("Bearer {}", node.token()?);
    let mut connection = Connection::open(node.admin_address()?)?;
    connection.request("PUT", "/v1/tenants/t/functions/fn", &[("authorization", &bearer)], &bomb()?)?;
    let process = wait_for_compiler(&node)?;
    eventually("it has closed what it does not need", || {
        let open: Vec<_> = fs::read_dir(process.join("fd"))?.filter_map(Result::ok).collect();
        let others =
            open.iter().filter(|file| !["0", "1", "2"].iter().any(|own| file.file_name() == **own)).count();
        let inherited = open
            .iter()
            .filter_map(|file| fs::read_link(file.path()).ok())
            .any(|target| target.as_os_str() == "/dev/zero");
        // Copies of its own standard streams are no others.
        Ok((others <= 2 && !inherited).then_some(()))
    })?;
    let environment = fs::read_to_string(process.join("environ"))?;
    let names: Vec<_> = environment.split('\0').filter_map(|pair| pair.split('=').next()).collect();
    assert_eq!(names, ["RAYON_NUM_THREADS", ""]);
    eventually("it has its limits", || {
        let limits = fs::read_to_string(process.join("limits"))?;
        let holds = |name: &str, most: &str| {
            limits.lines().any(|line| {
                line.strip_prefix(name).is_some_and(|rest| rest.split_whitespace().next() == Some(most))
            })
        };
        let all = [("Max cpu time", "120"), ("Max file size", "536870912"), ("Max core file size", "0")];
        Ok(all.iter().all(|(name, most)| holds(name, most)).then_some(()))
    })?;
    node.stop(Stop::Kill)?;
    eventually("the compiler is gone", || Ok((!process.join("exe").exists()).then_some(())))
}
