//! The attacks of `tests/attacks/guests`, each deployed and called by one tenant while another is served.
//!
//! A file is an attack: `*.wat` is a component, or a module that becomes one of the 0.2 world when it exports `handle`;
//! `0.2/*.rs` and `0.3/*.rs` are functions that `tests/guests/attacker` and `attacker3` call. The comment on top says
//! what must come of it:
//!
//! - `expect:` the slug of a problem, `answered` (200), `cut` (the head comes, and not the whole body), or `refused`
//!   (the upload gets `bad-component`); several with `|` between them;
//! - `limit:` the limit that a metric counts and a line of the log tells of, if any;
//! - `allowed:` how much that line says was allowed;
//! - `manifest:` the function's section of a manifest, as JSON;
//! - `says:` a text that the problem's detail holds.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use dormouse_tests::client::Cut;
use dormouse_tests::{Tenant, TestNode, guest, problem_of, root};
use serde_json::Value;

use super::{count, told};

/// Makes a component of the 0.2 world of a module that exports `handle`.
const SHELL: &str = r#"(component
  (import "wasi:http/types@0.2.0" (instance $types
    (export "incoming-request" (type (sub resource)))
    (export "response-outparam" (type (sub resource)))))
  (alias export $types "incoming-request" (type $request))
  (alias export $types "response-outparam" (type $out))
  (core module $m MODULE
  (core instance $i (instantiate $m))
  (func $handle (param "request" (own $request)) (param "response-out" (own $out))
    (canon lift (core func $i "handle")))
  (instance $handler (export "handle" (func $handle)))
  (export "wasi:http/incoming-handler@0.2.0" (instance $handler)))"#;

/// An attack, and what must come of it.
struct Attack {
    file: PathBuf,
    name: String,
    text: String,
    header: BTreeMap<String, String>,
}

impl Attack {
    fn read(file: PathBuf) -> Result<Self> {
        let text = fs::read_to_string(&file)?;
        let comment =
            |line: &str| ["//!", ";;"].iter().find_map(|mark| line.strip_prefix(mark)).map(str::to_owned);
        let pairs = text.lines().map_while(comment).filter_map(|line| {
            let (key, value) = line.split_once(':')?;
            Some((key.trim().to_owned(), value.trim().to_owned()))
        });
        let header: BTreeMap<_, _> = pairs.collect();
        ensure!(header.contains_key("expect"), "{}: it does not say what to expect", file.display());
        let name = file.file_stem().and_then(|name| name.to_str()).context("no name")?.to_owned();
        Ok(Self { file, name, text, header })
    }

    fn says(&self, key: &str) -> Option<&str> {
        self.header.get(key).map(String::as_str)
    }

    /// The component, and the path to call.
    fn component(&self) -> Result<(Vec<u8>, String)> {
        let path = format!("/{}", self.name);
        match self.file.parent().and_then(Path::file_name).and_then(|folder| folder.to_str()) {
            Some("0.2") => Ok((fs::read(guest("attacker")?)?, path)),
            Some("0.3") => Ok((fs::read(guest("attacker3")?)?, path)),
            _ => Ok((wat::parse_str(self.as_component())?, String::new())),
        }
    }

    fn as_component(&self) -> String {
        match self.text.split_once("(module") {
            Some((comment, body)) if !comment.contains("(component") => SHELL.replace("MODULE", body),
            _ => self.text.clone(),
        }
    }

    /// Deploys and calls it, and tells what came of it and with which detail.
    fn run(&self, tenant: &Tenant<'_>) -> Result<(String, String)> {
        let (component, path) = self.component()?;
        let mut parts = vec![("component", component.as_slice())];
        parts.extend(self.says("manifest").map(|manifest| ("manifest", manifest.as_bytes())));
        let deployed = tenant.node.upload_parts(&tenant.name, "fn", &parts)?;
        let detail =
            |problem: &Value| problem.get("detail").and_then(Value::as_str).unwrap_or_default().to_owned();
        if deployed.status != 200 {
            assert_eq!(problem_of(&deployed)?, "bad-component", "{}", deployed.text());
            return Ok(("refused".to_owned(), detail(&deployed.json()?)));
        }
        let answer = match tenant.get(&path) {
            Ok(answer) => answer,
            Err(error) if error.is::<Cut>() => return Ok(("cut".to_owned(), String::new())),
            Err(error) => return Err(error),
        };
        match answer.status {
            200 => Ok(("answered".to_owned(), String::new())),
            404 => bail!("the attack is not in its component: {}", answer.text()),
            _ => Ok((problem_of(&answer)?, detail(&answer.json()?))),
        }
    }

    /// Checks what comes of it.
    fn check(&self, tenant: &Tenant<'_>) -> Result<()> {
        let limit = self.says("limit");
        let before = limit.map(|limit| count(tenant.node, limit)).transpose()?;
        let (outcome, detail) = self.run(tenant)?;
        let expected = self.says("expect").unwrap_or_default();
        ensure!(
            expected.split('|').any(|one| one.trim() == outcome),
            "it was {outcome} and not {expected}: {detail}"
        );
        ensure!(detail.contains(self.says("says").unwrap_or_default()), "it says: {detail}");
        if let (Some(limit), Some(before)) = (limit, before) {
            let line = told(tenant, limit)?;
            let (used, allowed) = (line.number("used"), line.number("allowed"));
            ensure!(used >= allowed && allowed > Some(0), "{line}");
            let said = self.says("allowed").map(str::parse).transpose()?;
            ensure!(said.is_none() || said == allowed, "{line}");
            ensure!(
                count(tenant.node, limit)?.total_cmp(&(before + 1.0)) == Ordering::Equal,
                "it is not counted"
            );
        }
        Ok(())
    }
}

fn attacks() -> Result<Vec<Attack>> {
    let folder = root().join("tests/attacks/guests");
    let mut files = Vec::new();
    for folder in [folder.clone(), folder.join("0.2"), folder.join("0.3")] {
        for entry in fs::read_dir(folder)? {
            let file = entry?.path();
            if file.is_file() {
                files.push(file);
            }
        }
    }
    ensure!(files.len() > 30, "only {} attacks", files.len());
    files.sort();
    files.into_iter().map(Attack::read).collect()
}

#[test]
fn every_guest_that_breaks_a_limit_fails_alone() -> Result<()> {
    let node = TestNode::builder()
        .flag("--cpu-time-max-ms", 300)
        .flag("--wall-time-max-ms", 10_000)
        .flag("--memory-bytes-max", 48 << 20)
        .start()?;
    let neighbour = node.tenant("hello")?;
    let mut succeeded = Vec::new();
    for attack in attacks()? {
        let tenant = node.tenant("hello")?;
        let outcome = attack.check(&tenant).with_context(|| attack.file.display().to_string());
        succeeded.extend(outcome.err().map(|error| format!("{error:#}")));
        assert_eq!(neighbour.get("")?.expect(200)?.text(), "Hello from Dormouse\n", "after {}", attack.name);
    }
    ensure!(succeeded.is_empty(), "{}", succeeded.join("\n"));
    node.wait_for_metric("dormouse_instances", 0.0)
}
