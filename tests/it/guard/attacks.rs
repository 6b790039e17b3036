//! The attacks of `tests/attacks/sql`, run by one tenant's function while another tenant is served.
//!
//! A file is a list of statements, one on a line. A line `-- error: <text> | <text>` says that those after it must fail
//! with one of the texts in their message, `-- ok` that they must not fail; any other comment is a comment.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use dormouse_tests::{Tenant, TestNode, root};
use serde_json::{Value, json};

/// What a statement must come to.
#[derive(Debug, Clone)]
enum Expected {
    Success,
    /// An error with one of these texts in its message.
    Error(Vec<String>),
}

/// The statements of a file, each with what it must come to.
fn cases(file: &Path) -> Result<Vec<(String, Expected)>> {
    let mut expected = None;
    let mut cases = Vec::new();
    for line in fs::read_to_string(file)?.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if let Some(texts) = line.strip_prefix("-- error:") {
            expected = Some(Expected::Error(texts.split('|').map(|text| text.trim().to_owned()).collect()));
        } else if line == "-- ok" {
            expected = Some(Expected::Success);
        } else if !line.starts_with("--") {
            let expected =
                expected.clone().context("the first statement comes before what it must come to")?;
            cases.push((line.to_owned(), expected));
        }
    }
    ensure!(!cases.is_empty(), "no statements");
    Ok(cases)
}

fn check(answer: &Value, expected: &Expected) -> Result<()> {
    let error = answer.pointer("/error/message").and_then(Value::as_str);
    match (expected, error) {
        (Expected::Success, None) => Ok(()),
        (Expected::Error(texts), Some(message)) => {
            ensure!(!message.contains("/data/"), "it tells a path: {message}");
            ensure!(texts.iter().any(|text| message.contains(text)), "another error: {message}");
            Ok(())
        }
        (Expected::Success, Some(message)) => anyhow::bail!("it failed: {message}"),
        (Expected::Error(_), None) => anyhow::bail!("it was allowed"),
    }
}

/// The files below a folder, but for those whose path has `except` in it.
fn files(folder: &Path, except: &str) -> Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.to_string_lossy().contains(except) {
            continue;
        }
        if path.is_dir() {
            found.extend(files(&path, except)?);
        } else {
            found.insert(path);
        }
    }
    Ok(found)
}

fn is_served(tenant: &Tenant<'_>) -> Result<()> {
    assert_eq!(tenant.guest_sql("SELECT a FROM t")?.get("rows"), Some(&json!([[1]])));
    Ok(())
}

#[test]
fn attacks_reach_nothing_and_nobody() -> Result<()> {
    let node = TestNode::start()?;
    let neighbour = node.tenant("misbehave")?;
    neighbour.sql("CREATE TABLE t(a)")?;
    neighbour.sql("INSERT INTO t VALUES (1)")?;
    let mut attacks: Vec<_> = fs::read_dir(root().join("tests/attacks/sql"))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    attacks.sort();
    let mut succeeded = Vec::new();
    for file in attacks {
        let tenant = node.tenant("misbehave")?;
        tenant.sql("CREATE TABLE t(a, b)")?;
        tenant.sql("INSERT INTO t VALUES (1, 'one')")?;
        let own = tenant.id()?;
        let before = files(&node.data(), &own)?;
        for (sql, expected) in cases(&file).with_context(|| file.display().to_string())? {
            let attack = || format!("{}: {sql}", file.display());
            let outcome = check(&tenant.guest_sql(&sql).with_context(attack)?, &expected);
            succeeded.extend(outcome.with_context(attack).err().map(|error| format!("{error:#}")));
            is_served(&neighbour).with_context(attack)?;
        }
        assert_eq!(tenant.sql("SELECT * FROM t")?, json!([[1, "one"]]), "{}", file.display());
        assert_eq!(tenant.sql("PRAGMA quick_check")?, json!([["ok"]]), "{}", file.display());
        assert_eq!(files(&node.data(), &own)?, before, "{}", file.display());
        for name in ["/tmp/dormouse-stolen.db", "dormouse-stolen.db"] {
            ensure!(!Path::new(name).exists(), "{name} was made");
        }
    }
    ensure!(succeeded.is_empty(), "{}", succeeded.join("\n"));
    Ok(())
}
