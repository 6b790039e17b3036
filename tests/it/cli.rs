//! The command line, as a user meets it.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use dormouse_tests::{TestNode, binary, guest, root};
use serde_json::Value;

use crate::SHIPPED;

/// A command that speaks to a node.
pub(crate) fn command(node: &TestNode, arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(binary()?);
    command
        .args(arguments)
        .env("DORMOUSE_NODE", format!("http://{}", node.admin_address()?))
        .env("DORMOUSE_TOKEN_FILE", node.data().join("keys/admin.token"))
        .env_remove("DORMOUSE_TOKEN")
        .stdin(Stdio::null());
    Ok(command)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What a command wrote.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// What a command wrote, once it has succeeded.
pub(crate) fn run(node: &TestNode, arguments: &[&str]) -> Result<Said> {
    let ended = command(node, arguments)?.output()?;
    ensure!(ended.status.success(), "{arguments:?}: {}: {}", ended.status, text(&ended.stderr));
    Ok(Said { stdout: text(&ended.stdout), stderr: text(&ended.stderr) })
}

/// What a command wrote to its standard output, once it has succeeded.
fn succeeds(node: &TestNode, arguments: &[&str]) -> Result<String> {
    Ok(run(node, arguments)?.stdout)
}

/// What a command wrote to its standard error, once it has failed.
pub(crate) fn fails(ended: &Output) -> Result<String> {
    let said = text(&ended.stderr);
    ensure!(!ended.status.success(), "it succeeded: {}{said}", text(&ended.stdout));
    ensure!(!said.contains("panicked") && !said.trim().is_empty(), "{said:?}");
    Ok(said)
}

#[test]
fn every_command_shows_an_example() -> Result<()> {
    for arguments in [
        &[] as &[&str],
        &["serve"],
        &["demo"],
        &["new"],
        &["build"],
        &["deploy"],
        &["dev"],
        &["completions"],
        &["backup"],
        &["restore"],
        &["sql"],
        &["tenant"],
        &["tenant", "create"],
        &["tenant", "list"],
        &["tenant", "show"],
        &["tenant", "recover"],
        &["tenant", "export-db"],
        &["tenant", "import-db"],
        &["tenant", "revert-db"],
        &["tenant", "delete"],
        &["audit"],
        &["token"],
        &["token", "create"],
        &["token", "list"],
        &["token", "revoke"],
        &["variable"],
        &["variable", "set"],
        &["variable", "list"],
        &["variable", "unset"],
    ] {
        let shown = Command::new(binary()?).args(arguments).arg("--help").output()?;
        ensure!(shown.status.success(), "{arguments:?}: {}", text(&shown.stderr));
        let help = text(&shown.stdout);
        let example = format!("dormouse {}", arguments.join(" "));
        let after = help.split_once("Example").map(|(_, after)| after).unwrap_or_default();
        ensure!(after.contains(example.trim()), "{arguments:?} shows no example of itself:\n{help}");
    }
    Ok(())
}

#[test]
fn shells_complete_every_command() -> Result<()> {
    for shell in ["bash", "zsh", "fish"] {
        let ended = Command::new(binary()?).args(["completions", shell]).output()?;
        ensure!(ended.status.success(), "{}", text(&ended.stderr));
        let script = text(&ended.stdout);
        for word in ["tenant", "deploy", "webhook", "public-listen"] {
            ensure!(script.contains(word), "{shell} does not know {word}");
        }
        // The shell itself, where there is one, can read it.
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), &ended.stdout)?;
        if let Ok(read) = Command::new(shell).arg("-n").arg(file.path()).output() {
            ensure!(read.status.success(), "{shell}: {}", text(&read.stderr));
        }
    }
    Ok(())
}

#[test]
fn a_tenant_is_made_listed_shown_and_deleted() -> Result<()> {
    let node = SHIPPED.node()?;
    succeeds(&node, &["tenant", "create", "by-hand"])?;
    ensure!(succeeds(&node, &["tenant", "list"])?.contains("by-hand"));
    let shown = succeeds(&node, &["tenant", "show", "by-hand"])?;
    ensure!(shown.contains("by-hand") && shown.contains("unused"), "{shown}");
    let shown: Value = serde_json::from_str(&succeeds(&node, &["tenant", "show", "by-hand", "--json"])?)?;
    assert_eq!(shown.get("name"), Some(&Value::from("by-hand")));
    // Nobody is there to say yes.
    let refused = fails(&command(&node, &["tenant", "delete", "by-hand"])?.output()?)?;
    ensure!(refused.contains("--yes"), "{refused}");
    succeeds(&node, &["tenant", "delete", "by-hand", "--yes"])?;
    let gone = fails(&command(&node, &["tenant", "show", "by-hand"])?.output()?)?;
    ensure!(gone.contains("No such tenant") || gone.contains("by-hand"), "{gone}");
    Ok(())
}

#[test]
fn a_component_is_deployed_and_its_rows_are_read() -> Result<()> {
    let node = SHIPPED.node()?;
    succeeds(&node, &["tenant", "create", "by-cli"])?;
    let component = guest("guestbook")?.display().to_string();
    let said = succeeds(&node, &["deploy", "by-cli", &component])?;
    ensure!(said.contains("/t/by-cli/fn"), "{said}");
    let body = br#"{"name":"Ada","message":"Hello"}"#;
    node.request("POST", "/t/by-cli/fn", &[], body)?.expect(201)?;

    let table =
        succeeds(&node, &["sql", "by-cli", "SELECT name, message FROM entries WHERE name = ?", "-p", "Ada"])?;
    ensure!(table.contains("Ada") && table.contains("Hello"), "{table}");
    let json = succeeds(&node, &["sql", "by-cli", "--json", "SELECT name FROM entries"])?;
    assert_eq!(serde_json::from_str::<Value>(&json)?.pointer("/rows/0/0"), Some(&Value::from("Ada")));

    let mut piped =
        command(&node, &["sql", "by-cli"])?.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    piped
        .stdin
        .take()
        .context("no stdin")?
        .write_all(b"DELETE FROM entries; SELECT count(*) AS left_over FROM entries;")?;
    let piped = piped.wait_with_output()?;
    ensure!(piped.status.success() && text(&piped.stdout).contains("left_over"), "{}", text(&piped.stdout));
    Ok(())
}

#[test]
fn a_project_is_deployed_from_its_folder() -> Result<()> {
    let node = SHIPPED.node()?;
    succeeds(&node, &["tenant", "create", "by-folder"])?;
    guest("hello")?;
    let folder = root().join("functions/hello").display().to_string();
    succeeds(&node, &["deploy", "by-folder", &folder])?;
    assert_eq!(
        node.request("GET", "/t/by-folder/fn", &[], b"")?.expect(200)?.text(),
        "Hello from Dormouse\n"
    );
    Ok(())
}

#[test]
fn what_goes_wrong_is_explained() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant("hello")?;
    let said = fails(&command(&node, &["sql", &tenant.name, "SELEKT 1"])?.output()?)?;
    ensure!(said.contains("syntax error"), "{said}");
    let said = fails(&command(&node, &["tenant", "create", "Not A Name"])?.output()?)?;
    ensure!(said.contains("Not A Name"), "{said}");
    let said = fails(&command(&node, &["tenant", "create", &tenant.name])?.output()?)?;
    ensure!(said.contains("exists"), "{said}");
    let said = fails(&command(&node, &["deploy", &tenant.name, "/no/such/thing"])?.output()?)?;
    ensure!(said.contains("/no/such/thing"), "{said}");
    let manifest = root().join("Cargo.toml").display().to_string();
    let said = fails(&command(&node, &["deploy", &tenant.name, &manifest])?.output()?)?;
    ensure!(said.contains("component"), "{said}");
    let said =
        fails(&command(&node, &["tenant", "list"])?.env("DORMOUSE_NODE", "http://127.0.0.1:1").output()?)?;
    ensure!(said.contains("127.0.0.1:1"), "{said}");
    let said = fails(&command(&node, &["tenant", "list"])?.env("DORMOUSE_TOKEN", "wrong").output()?)?;
    ensure!(said.to_lowercase().contains("token"), "{said}");
    assert_eq!(tenant.get("")?.expect(200)?.text(), "Hello from Dormouse\n");
    Ok(())
}

#[test]
fn the_demo_runs_to_its_end() -> Result<()> {
    guest("guestbook")?;
    let mut demo = Command::new(binary()?);
    demo.args(["demo", "--exit"]).current_dir(root()).stdin(Stdio::null());
    for name in ["DORMOUSE_NODE", "DORMOUSE_TOKEN", "DORMOUSE_TOKEN_FILE", "DORMOUSE_DATA"] {
        demo.env_remove(name);
    }
    let ended = demo.output()?;
    let said = format!("{}{}", text(&ended.stdout), text(&ended.stderr));
    ensure!(ended.status.success(), "{}: {said}", ended.status);
    for part in ["/t/", "201", "entries", "ms", "MB"] {
        ensure!(said.contains(part), "{part} is missing in:\n{said}");
    }
    Ok(())
}
