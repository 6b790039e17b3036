//! New projects: each template passes its own tests as it is, and what it is built to answers as it should.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};
use dormouse::toolchain::ensure_wasm_target;
use dormouse_tests::{SharedNode, Tenant, binary, root};
use serde_json::{Value, json};

use crate::SHIPPED;
use crate::cli::{command, fails, run};

/// A project that `dormouse new` made.
pub(crate) struct Project {
    pub(crate) folder: PathBuf,
}

/// Where the tests' projects are, the same in each run: cargo knows packages by their paths.
pub(crate) fn projects() -> Result<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("projects");
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// One folder for what all of them are compiled to, so that they share their dependencies.
pub(crate) fn compiled() -> Result<PathBuf> {
    Ok(projects()?.join("target"))
}

impl Project {
    pub(crate) fn new(name: &str, template: &str) -> Result<Self> {
        let folder = projects()?.join(name);
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        let made = new(&projects()?, &[name, "--template", template])?;
        ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Ok(Self { folder })
    }

    /// Runs cargo in it, as someone who knows nothing of this repository's settings.
    fn cargo(&self, arguments: &[&str]) -> Result<()> {
        let mut cargo = ensure_wasm_target(&self.folder, &mut |_| ())?.cargo(&self.folder);
        cargo.args(arguments).env("CARGO_TARGET_DIR", compiled()?).env_remove("LIBSQLITE3_FLAGS");
        let ended = cargo.output()?;
        let said = [ended.stdout, ended.stderr].concat();
        ensure!(ended.status.success(), "cargo {arguments:?}: {}", String::from_utf8_lossy(&said));
        Ok(())
    }

    /// Runs its own tests, builds it, and deploys it as a tenant of the project's name.
    fn check<'n>(&self, node: &'n SharedNode, name: &str) -> Result<Tenant<'n>> {
        // By rustfmt's defaults, not by those of the repository around it.
        self.cargo(&["fmt", "--", "--check", "--config", "max_width=100,use_small_heuristics=Default"])?;
        self.cargo(&["test"])?;
        let folder = self.folder.display().to_string();
        let build = command(node, &["build", &folder])?.env("CARGO_TARGET_DIR", compiled()?).output()?;
        let component = String::from_utf8(build.stdout)?;
        ensure!(component.ends_with(&format!("/{}.wasm\n", name.replace('-', "_"))), "{component}");
        run(node, &["tenant", "create", name])?;
        let mut deploy = command(node, &["deploy", name, &folder])?;
        let deployed = deploy.env("CARGO_TARGET_DIR", compiled()?).output()?;
        let said = String::from_utf8(deployed.stdout)?;
        ensure!(said.ends_with(&format!("/t/{name}/fn\n")), "{said}");
        Ok(Tenant { node, name: name.to_owned() })
    }
}

/// Runs `dormouse new` in a folder.
fn new(folder: &Path, arguments: &[&str]) -> Result<Output> {
    Ok(Command::new(binary()?).arg("new").args(arguments).current_dir(folder).output()?)
}

#[test]
fn a_webhook_keeps_events_of_whoever_knows_the_token() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = Project::new("new-webhook", "webhook")?.check(&node, "new-webhook")?;
    let event = json!({ "order": 7 });
    assert_eq!(tenant.post("/", &event)?.expect(201)?.json()?, json!({ "id": 1 }));
    run(&node, &["variable", "set", &tenant.name, "webhook_token", "s3cret"])?;
    assert_eq!(tenant.post("/", &event)?.status, 401);
    let headers = [("authorization", "Bearer s3cret")];
    tenant.request("POST", "/", &headers, event.to_string().as_bytes())?.expect(201)?;
    assert_eq!(
        tenant.sql("SELECT id, event FROM events")?,
        json!([[1, r#"{"order":7}"#], [2, r#"{"order":7}"#]])
    );
    Ok(())
}

#[test]
fn a_rest_api_makes_reads_changes_and_removes() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = Project::new("new-rest", "rest")?.check(&node, "new-rest")?;
    assert_eq!(tenant.json("/tasks")?, json!([]));
    let made = tenant.post("/tasks", &json!({ "title": "Tea" }))?.expect(201)?;
    assert_eq!(made.header("location"), Some(tenant.path("/tasks/1").as_str()));
    let done = json!({ "id": 1, "title": "Tea", "done": true });
    let change = br#"{"title":"Tea","done":true}"#;
    assert_eq!(tenant.request("PUT", "/tasks/1", &[], change)?.expect(200)?.json()?, done);
    assert_eq!(tenant.json("/tasks?done=true")?, json!([done]));
    assert_eq!(tenant.json("/tasks/1")?, done);
    tenant.request("DELETE", "/tasks/1", &[], b"")?.expect(204)?;
    let gone = tenant.get("/tasks/1")?.expect(404)?;
    assert_eq!(gone.header("content-type"), Some("application/problem+json"));
    assert_eq!(gone.json()?.get("detail"), Some(&Value::from("There is no such task.")));
    Ok(())
}

#[test]
fn a_page_shows_what_its_form_sent() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = Project::new("new-page", "html")?.check(&node, "new-page")?;
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let sent = tenant.request("POST", "/", &form, b"text=1+%3C+2")?.expect(303)?;
    assert_eq!(sent.header("location"), Some(tenant.path("/").as_str()));
    let page = tenant.get("/")?.expect(200)?;
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    ensure!(page.text().contains("<li>1 &lt; 2\n"), "{}", page.text());
    Ok(())
}

#[test]
fn what_is_there_is_never_overwritten() -> Result<()> {
    let place = tempfile::tempdir()?;
    fs::create_dir(place.path().join("full"))?;
    fs::write(place.path().join("full/note"), "mine")?;
    fs::write(place.path().join("file"), "mine")?;
    std::os::unix::fs::symlink("full", place.path().join("link"))?;
    for name in ["full", "file", "link"] {
        let said = fails(&new(place.path(), &[name])?)?;
        ensure!(said.contains(&format!("./{name} is there already")), "{said}");
    }
    // An empty folder is one to fill.
    fs::create_dir(place.path().join("empty"))?;
    ensure!(new(place.path(), &["empty"])?.status.success());
    ensure!(place.path().join("empty/vendor/dormouse-sdk/src/lib.rs").is_file());

    let mut left = Vec::new();
    for entry in fs::read_dir(place.path())? {
        left.push(entry?.file_name().into_string().ok().context("an odd name")?);
    }
    left.sort();
    assert_eq!(left, ["empty", "file", "full", "link"]);
    assert_eq!(fs::read_to_string(place.path().join("full/note"))?, "mine");
    assert_eq!(fs::read_to_string(place.path().join("file"))?, "mine");
    Ok(())
}

#[test]
fn a_name_or_template_that_cannot_be_is_refused() -> Result<()> {
    let place = tempfile::tempdir()?;
    for (arguments, part) in [
        (&["Shop"] as &[&str], "lowercase letters"),
        (&["../shop"], "lowercase letters"),
        (&["2nd"], "starting with a letter"),
        (&["match"], "choose another one"),
        (&["dormouse-sdk"], "choose another one"),
        (&["shop", "--template", "htlm"], "webhook, rest, html"),
        (&[], "<NAME>"),
    ] {
        let said = fails(&new(place.path(), arguments)?)?;
        ensure!(said.contains(part), "{arguments:?}: {said}");
    }
    assert_eq!(fs::read_dir(place.path())?.count(), 0);
    Ok(())
}

/// The source in the README is the one that a new project has.
#[test]
fn the_readme_shows_the_webhook() -> Result<()> {
    let readme = fs::read_to_string(root().join("README.md"))?;
    let shown = readme.split_once("```rust\n").and_then(|(_, after)| after.split_once("```"));
    let (shown, _) = shown.context("no Rust in README.md")?;
    let source = fs::read_to_string(root().join("runtime/templates/webhook/src/lib.rs"))?;
    ensure!(source.contains(shown), "another source:\n{shown}");
    Ok(())
}
