//! Configuration: three sources, one precedence, and mistakes that are told all at once.

use std::net::TcpListener;

use anyhow::{Context, Result, ensure};
use dormouse_tests::{Builder, TestNode};

/// Runs a server with a bad configuration and gives what it said.
pub(crate) fn refused(builder: Builder) -> Result<String> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let (status, said) = builder.run_to_its_end(&data)?;
    ensure!(!status.success(), "it ended with {status}:\n{said}");
    ensure!(!said.contains("\"listening\""), "it listened:\n{said}");
    ensure!(!said.contains("panicked"), "{said}");
    ensure!(!data.exists(), "it made its data folder:\n{said}");
    Ok(said)
}

#[test]
fn every_mistake_is_told_at_once_with_its_source() -> Result<()> {
    let builder = TestNode::builder()
        .config(
            "body_bytes_max = \"large\"\nno_such_setting = 1\nconcurrency_max = [1]\ndatabase_threads = 0\n",
        )
        .env("DORMOUSE_CPU_TIME_MAX_MS", "-5")
        .env("DORMOUSE_PARK_TIME_MAXX_MS", "1")
        .flag("--wall-time-max-ms", "soon")
        .flag("--memory-bytes-max", "99999999999999999999")
        .flag("--log-format", "xml");
    let said = refused(builder)?;
    for (setting, source) in [
        ("body_bytes_max", "data.node.toml"),
        ("no_such_setting", "data.node.toml"),
        ("concurrency_max", "data.node.toml"),
        ("database_threads", "data.node.toml"),
        ("cpu_time_max_ms", "DORMOUSE_CPU_TIME_MAX_MS"),
        ("park_time_max_ms", "DORMOUSE_PARK_TIME_MAXX_MS"),
        ("wall_time_max_ms", "--wall-time-max-ms"),
        ("memory_bytes_max", "--memory-bytes-max"),
        ("log_format", "--log-format"),
    ] {
        let is_told = said.lines().any(|line| line.contains(setting) && line.contains(source));
        ensure!(is_told, "no line names {setting} and {source}:\n{said}");
    }
    Ok(())
}

#[test]
fn settings_that_contradict_each_other_are_told() -> Result<()> {
    let said = refused(TestNode::builder().flag("--concurrency-max", 2).flag("--tenant-concurrency-max", 3))?;
    ensure!(said.contains("tenant_concurrency_max") && said.contains("--tenant-concurrency-max"), "{said}");
    let said = refused(TestNode::builder().flag("--pool-idle-bytes-max", 1_000_000))?;
    ensure!(said.contains("pool_idle_bytes_max") && said.contains("--pool-idle-bytes-max"), "{said}");
    Ok(())
}

#[test]
fn what_does_not_fit_into_the_memory_is_told_with_the_figures() -> Result<()> {
    let said = refused(TestNode::builder().flag("--memory", "256MB").flag("--concurrency-max", 2_000))?;
    for part in ["flag --memory", "256 MB are too little", "2000 requests 800", "lower connections_max"] {
        ensure!(said.contains(part), "{part} is missing in:\n{said}");
    }
    let builder = TestNode::builder().flag("--memory", "256MB").flag("--memory-bytes-max", 1_000_000_000);
    let said = refused(builder)?;
    ensure!(said.contains("flag --memory-bytes-max") && said.contains("one guest may have"), "{said}");
    let said = refused(TestNode::builder().env("DORMOUSE_MEMORY", "a lot"))?;
    ensure!(said.contains("variable DORMOUSE_MEMORY") && said.contains("256MB"), "{said}");
    Ok(())
}

#[test]
fn a_file_that_is_named_must_be_there_and_be_toml() -> Result<()> {
    let said = refused(TestNode::builder().flag("--config", "/no/such/node.toml"))?;
    ensure!(said.contains("/no/such/node.toml"), "{said}");
    let said = refused(TestNode::builder().config("body_bytes_max = \n"))?;
    ensure!(said.contains("data.node.toml") && said.contains("line 1"), "{said}");
    Ok(())
}

#[test]
fn an_address_in_use_is_named() -> Result<()> {
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    for (flag, setting) in [("--public-listen", "public_listen"), ("--admin-listen", "admin_listen")] {
        let folder = tempfile::tempdir()?;
        let builder = TestNode::builder().flag(flag, &address);
        let (status, said) = builder.run_to_its_end(&folder.path().join("data"))?;
        ensure!(!status.success() && said.contains(&address) && said.contains(setting), "{status}:\n{said}");
    }
    Ok(())
}

#[test]
fn permits_that_need_too_many_descriptors_are_refused() -> Result<()> {
    let said = refused(TestNode::builder().flag("--connections-max", 4_000_000_000_u32))?;
    ensure!(said.contains("descriptors") && said.contains("connections_max"), "{said}");
    Ok(())
}

#[test]
fn a_commit_log_is_large_enough_or_none() -> Result<()> {
    let said = refused(TestNode::builder().flag("--commit-log-bytes", 1_000_000))?;
    ensure!(said.contains("commit_log_bytes") && said.contains("or 0"), "{said}");
    Ok(())
}

#[test]
fn the_hard_limit_of_descriptors_is_what_counts() -> Result<()> {
    // The shipped permits do not fit into 1,000 descriptors, whatever the soft limit is.
    let said = refused(TestNode::builder().descriptors_max(1_000))?;
    ensure!(said.contains("descriptors") && said.contains("1000"), "{said}");
    Ok(())
}

#[test]
fn the_limit_of_descriptors_is_raised() -> Result<()> {
    let node = TestNode::start()?;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", node.pid()?.as_raw_nonzero()))?;
    let line = limits.lines().find(|line| line.starts_with("Max open files")).context("no such line")?;
    let words: Vec<&str> = line.split_whitespace().collect();
    let [.., soft, hard, _] = words.as_slice() else { anyhow::bail!("{line}") };
    assert_eq!(soft, hard);
    Ok(())
}

#[test]
fn flags_win_over_variables_and_variables_over_the_file() -> Result<()> {
    // What the largest component is shows in how an upload of so many bytes is refused.
    let largest = |builder: Builder, bytes: usize| -> Result<()> {
        let node = builder.start()?;
        node.create_tenant("t")?;
        node.upload("t", "fn", &vec![b'x'; bytes])?.expect(422)?;
        node.upload("t", "fn", &vec![b'x'; bytes + 1])?.expect(413)?;
        Ok(())
    };
    let file = || TestNode::builder().config("component_bytes_max = 100\n");
    let variable = || file().env("DORMOUSE_COMPONENT_BYTES_MAX", 200);
    largest(file(), 100)?;
    largest(variable(), 200)?;
    largest(variable().flag("--component-bytes-max", 300), 300)
}

#[test]
fn a_second_server_on_the_same_data_is_refused() -> Result<()> {
    let node = TestNode::start()?;
    let tenant = node.tenant("hello")?;
    let (status, said) = TestNode::builder().run_to_its_end(&node.data())?;
    ensure!(!status.success(), "{status}");
    ensure!(said.contains("in use") && said.contains(&node.data().display().to_string()), "{said}");
    assert_eq!(tenant.get("")?.expect(200)?.text(), "Hello from Dormouse\n");
    Ok(())
}

#[test]
fn logs_can_be_text() -> Result<()> {
    // A data folder that is a file ends the server after logging has started.
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    std::fs::write(&data, "a file")?;
    for (format, is_json) in [("text", false), ("json", true), ("auto", true)] {
        let (status, said) = TestNode::builder().flag("--log-format", format).run_to_its_end(&data)?;
        ensure!(!status.success() && said.contains("data"), "{said}");
        let last = said.lines().last().unwrap_or_default();
        assert_eq!(serde_json::from_str::<serde_json::Value>(last).is_ok(), is_json, "{format}: {last}");
    }
    Ok(())
}

#[test]
fn guests_at_debug_level_are_still_told_apart() -> Result<()> {
    let node = TestNode::builder().flag("--log-level", "debug").start()?;
    let tenant = node.tenant("misbehave")?;
    let id = "debug-level-0001";
    tenant.request("GET", "/log?line=hello", &[("x-request-id", id)], b"")?.expect(200)?;
    let line = node.logs().wait_for("the guest's line", |line| line.message() == "hello")?;
    assert_eq!(line.request("request_id"), Some(id));
    node.logs().wait_for("the server's line", |line| {
        !line.is_of_guest() && line.request("request_id") == Some(id)
    })?;
    Ok(())
}
