//! The tour in README.md is true: the commands of its console blocks run in their order, and each prints what stands
//! below it, where `…` stands for anything.
//!
//! Only the node's ports are others than in the text, because those may be taken.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use dormouse_tests::{TestNode, binary, root};

use crate::templates::{compiled, projects};

/// Where a node takes requests by default.
const PUBLIC: &str = "127.0.0.1:8080";

/// A command of the tour and what it should print.
#[derive(Debug, PartialEq, Eq)]
struct Step {
    command: String,
    output: String,
}

/// What stands behind the prompts of all console blocks.
fn steps(text: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let blocks = text.split("```console\n").skip(1).filter_map(|after| after.split("```").next());
    for line in blocks.flat_map(str::lines) {
        if let Some(command) = line.strip_prefix("$ ") {
            steps.push(Step { command: command.to_owned(), output: String::new() });
        } else if let Some(step) = steps.last_mut() {
            step.output += line;
            step.output.push('\n');
        }
    }
    steps
}

/// Whether a text is what was promised.
fn fits(promised: &str, said: &str) -> bool {
    let mut parts = promised.trim_end().split('…');
    let Some(mut rest) = said.trim_end().strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let mut parts = parts.peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    rest.is_empty()
}

/// A terminal in which a node's folder is the current one at first.
struct Terminal<'n> {
    node: &'n TestNode,
    home: PathBuf,
    folder: PathBuf,
}

impl<'n> Terminal<'n> {
    fn open(node: &'n TestNode, home: &Path) -> Result<Self> {
        if home.exists() {
            fs::remove_dir_all(home)?;
        }
        fs::create_dir(home)?;
        symlink(node.data(), home.join("data"))?;
        // What curl does by itself where its output is a terminal.
        fs::write(home.join(".curlrc"), "no-progress-meter\n")?;
        Ok(Self { node, home: home.to_owned(), folder: home.to_owned() })
    }

    /// What a command prints. Where it leaves the shell, the next one begins.
    fn run(&mut self, command: &str) -> Result<String> {
        let public = self.node.public_address()?.to_string();
        let binary = binary()?;
        let programs = binary.parent().context("no folder")?.display();
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(format!("exec 2>&1\n{}\npwd >\"$PLACE\"", command.replace(PUBLIC, &public)));
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("DORMOUSE_")) {
                shell.env_remove(name);
            }
        }
        let place = self.home.join(".place");
        shell
            .env("PATH", format!("{programs}:{}", std::env::var("PATH")?))
            .env("DORMOUSE_NODE", format!("http://{}", self.node.admin_address()?))
            .env("CARGO_TARGET_DIR", compiled()?)
            .env("CURL_HOME", &self.home)
            .env("PLACE", &place)
            .env_remove("LIBSQLITE3_FLAGS")
            .current_dir(&self.folder)
            .stdin(Stdio::null());
        let said = String::from_utf8(shell.output()?.stdout)?;
        self.folder = PathBuf::from(fs::read_to_string(place)?.trim_end());
        Ok(said.replace(&public, PUBLIC))
    }
}

#[test]
fn the_tour_prints_what_it_says() -> Result<()> {
    let steps = steps(&fs::read_to_string(root().join("README.md"))?);
    let (serve, steps) = steps.split_first().context("no tour")?;
    // It stays in a terminal of its own; the harness has started it.
    assert_eq!(serve.command, "dormouse serve");
    ensure!(steps.len() > 10, "only {} steps were found", steps.len());
    let node = TestNode::start()?;
    let mut terminal = Terminal::open(&node, &projects()?.join("tour"))?;
    for Step { command, output } in steps {
        let said = terminal.run(command)?;
        ensure!(fits(output, &said), "$ {command}\n{said}\nREADME.md promises:\n{output}");
    }
    Ok(())
}

#[test]
fn an_ellipsis_stands_for_anything() {
    assert!(fits("a …\nc\n", "a b\nb\nc\n") && fits("…", "") && fits("a…b…c", "a1b2bc"));
    assert!(!fits("a…c", "a b") && !fits("a", "a b") && !fits("a…b…c", "acb") && !fits("", "a"));
}
