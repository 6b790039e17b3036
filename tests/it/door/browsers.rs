//! The browser-origin rules, in a browser: headless Chromium with pages of two tenants, of whom one attacks the other.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use dormouse_tests::{TestNode, guest, tools};
use serde_json::Value;
use tempfile::TempDir;

/// A browser that keeps what it is told from one page to the next.
struct Browser {
    program: PathBuf,
    profile: TempDir,
    node_port: u16,
}

impl Browser {
    fn start(node: &TestNode) -> Result<Option<Self>> {
        let Some(program) = tools::program("chromium", "chromium")? else { return Ok(None) };
        let profile = tempfile::Builder::new().prefix("dormouse-browser-").tempdir()?;
        Ok(Some(Self { program, profile, node_port: node.public_address()?.port() }))
    }

    /// The document at an address once it is loaded.
    fn visit(&self, url: &str) -> Result<String> {
        let browser = self.command();
        let mut command = Command::new("timeout");
        command.arg("60").arg(browser.get_program()).args(browser.get_args()).args(["--dump-dom", url]);
        let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output()?;
        ensure!(output.status.success(), "{url}: {}", output.status);
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
            ])
            .arg("--host-resolver-rules=MAP *.example.test 127.0.0.1")
            .arg(format!(
                "--unsafely-treat-insecure-origin-as-secure={}",
                ["victim", "attacker"].map(|name| self.host(name)).join(",")
            ))
            .arg(format!("--user-data-dir={}", self.profile.path().display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    /// The origin of a tenant's host.
    fn host(&self, tenant: &str) -> String {
        format!("http://{tenant}.example.test:{}", self.node_port)
    }

    /// The address of all tenants' origin.
    fn shared(&self) -> String {
        format!("http://127.0.0.1:{}", self.node_port)
    }

    /// What the scripts of a page have found out, which they log as a line with this name.
    fn findings(&self, node: &TestNode, name: &str, url: &str) -> Result<Value> {
        let mut browser = self.command().args(["--remote-debugging-port=0", url]).spawn()?;
        let line = node
            .logs()
            .wait_for("the findings", |line| line.is_of_guest() && line.message().starts_with(name));
        browser.kill()?;
        browser.wait()?;
        let line = line?;
        let text = line.message().strip_prefix(name).context("no findings")?.trim();
        serde_json::from_str(text).with_context(|| format!("no JSON: {text}"))
    }
}

/// The address of a page with a body, and other parameters of the guest's deed `/page`.
fn page(base: &str, kind: &str, body: &str, more: &str) -> String {
    let encoded = |text: &str| text.bytes().map(|byte| format!("%{byte:02x}")).collect::<String>();
    format!("{base}/page?type={}&{more}&body={}", encoded(kind), encoded(body))
}

fn node() -> Result<TestNode> {
    let node = TestNode::builder().flag("--base-domain", "example.test").start()?;
    for name in ["victim", "attacker"] {
        node.create_tenant(name)?;
        node.deploy(name, "fn", &guest("misbehave")?)?;
    }
    Ok(node)
}

/// What `/headers` of a tenant says that the browser has sent.
fn cookies_sent(browser: &Browser, base: &str) -> Result<String> {
    let document = browser.visit(&format!("{base}/headers"))?;
    ensure!(document.contains("user-agent"), "no headers: {document}");
    let cookies = document.split("[\"cookie\",\"").nth(1).and_then(|rest| rest.split("\"]").next());
    Ok(cookies.unwrap_or_default().to_owned())
}

/// Keeps a secret in every place that a page has.
const KEEP: &str = r#"<script>
    document.cookie = "script=secret; Max-Age=600; Path=/";
    localStorage.setItem("kept", "secret");
    document.write("<pre>" + document.cookie + " " + localStorage.getItem("kept") + "</pre>");
</script>"#;

/// Tries to get at it from another page. `VICTIM` stands for the address of whom it attacks, `NAME` for what it logs.
const STEAL: &str = r#"<script>
    const tried = async (deed) => { try { return String(await deed()) } catch (error) { return "refused: " + error.name } };
    const frame = () => new Promise((done, fail) => {
        const frame = document.createElement("iframe");
        frame.src = "VICTIM/headers";
        frame.onload = () => { try { done(frame.contentDocument.body.innerText) } catch (error) { fail(error) } };
        document.body.append(frame);
    });
    addEventListener("load", async () => {
        const found = {
            cookie: await tried(() => document.cookie),
            storage: await tried(() => localStorage.getItem("kept")),
            frame: await tried(frame),
            fetched: await tried(async () => (await fetch("VICTIM/headers", { credentials: "include" })).text()),
            foreign_worker: await tried(() => navigator.serviceWorker.register("VICTIM/page?type=text%2fjavascript")),
            foreign_scope: await tried(() =>
                navigator.serviceWorker.register("/page?type=text%2fjavascript", { scope: "VICTIM/" })),
            own_worker: await tried(() => navigator.serviceWorker.register("/page?type=text%2fjavascript")),
        };
        fetch("/log?line=" + encodeURIComponent("NAME " + JSON.stringify(found)));
    });
</script><body></body>"#;

/// Whether nothing of the secret is in what was found.
fn found_nothing(found: &Value) -> Result<()> {
    ensure!(!found.to_string().contains("secret"), "{found}");
    for deed in ["frame", "fetched", "foreign_worker", "foreign_scope"] {
        let outcome = found.get(deed).and_then(Value::as_str).unwrap_or_default();
        ensure!(outcome.starts_with("refused: ") || outcome == "null", "{deed}: {found}");
    }
    Ok(())
}

#[test]
fn a_tenants_host_is_its_own() -> Result<()> {
    let node = node()?;
    let Some(browser) = Browser::start(&node)? else { return Ok(()) };
    let (victim, attacker) = (browser.host("victim"), browser.host("attacker"));
    let keep =
        page(&victim, "text/html", KEEP, "cookie=header%3dsecret%3b+Max-Age%3d600%3b+Domain%3dexample.test");
    let kept = browser.visit(&keep)?;
    ensure!(kept.contains("header=secret; script=secret secret"), "the browser keeps nothing: {kept}");
    let steal = |name: &str, whom: &str| -> Result<Value> {
        let source = STEAL.replace("VICTIM", whom).replace("NAME", name);
        browser.findings(&node, name, &page(&attacker, "text/html", &source, ""))
    };
    let found = steal("from-host", &victim)?;
    found_nothing(&found)?;
    // On its own host it may have a worker, or this test shows nothing of workers.
    ensure!(found.get("own_worker").is_some_and(|own| !own.to_string().contains("refused")), "{found}");
    let sent = cookies_sent(&browser, &victim)?;
    ensure!(sent.contains("header=secret") && sent.contains("script=secret"), "the victim lost them: {sent}");
    assert_eq!(cookies_sent(&browser, &attacker)?, "");
    // From its own host it reaches nobody on the shared origin either.
    found_nothing(&steal("from-path", &format!("{}/t/victim/fn", browser.shared()))?)
}

/// Types of pages, and of what is no page, each with a source that would run a script if it were one.
const PAGES: &[(&str, &str)] = &[
    ("text/html", "<p>untouched</p><script>document.body.append('it ' + 'ran')</script>"),
    (
        "application/xhtml+xml",
        "<html xmlns='http://www.w3.org/1999/xhtml'><body><p>untouched</p><script>document.querySelector('p')\
         .textContent += 'it ' + 'ran'</script></body></html>",
    ),
    (
        "image/svg+xml",
        "<svg xmlns='http://www.w3.org/2000/svg'><text>untouched</text><script>document.querySelector('text')\
         .textContent += 'it ' + 'ran'</script></svg>",
    ),
    ("text/plain", "<p>untouched</p><script>document.body.append('it ' + 'ran')</script>"),
    ("application/json", "<p>untouched</p><script>document.body.append('it ' + 'ran')</script>"),
];

#[test]
fn tenants_that_share_an_origin_are_kept_apart() -> Result<()> {
    let node = node()?;
    let Some(browser) = Browser::start(&node)? else { return Ok(()) };
    let of = |tenant: &str| format!("{}/t/{tenant}/fn", browser.shared());
    let (victim, attacker) = (of("victim"), of("attacker"));
    browser.visit(&page(
        &victim,
        "text/html",
        "",
        "cookie=header%3dsecret%3b+Max-Age%3d600%3b+Path%3d%2f",
    ))?;
    assert_eq!(cookies_sent(&browser, &victim)?, "header=secret");
    assert_eq!(cookies_sent(&browser, &attacker)?, "");
    // The other one's cookie for the whole origin does not get there, and takes no other's place.
    browser.visit(&page(
        &attacker,
        "text/html",
        "",
        "cookie=header%3dforged%3b+Max-Age%3d600%3b+Path%3d%2f",
    ))?;
    browser.visit(&page(
        &attacker,
        "text/html",
        "",
        "cookie=header%3dforged%3b+Max-Age%3d600%3b+Path%3d%2ft%2fvictim%2f",
    ))?;
    assert_eq!(cookies_sent(&browser, &victim)?, "header=secret");
    // No page of a tenant's runs a script there, whatever it says: no storage, no worker, nothing to read others with.
    let policy = "policy=sandbox+allow-scripts+allow-same-origin";
    for (kind, source) in PAGES {
        for more in ["", policy] {
            let document = browser.visit(&page(&attacker, kind, source, more))?;
            ensure!(
                document.contains("untouched") && !document.contains("it ran"),
                "{kind} {more}: {document}"
            );
        }
    }
    // The same pages run their scripts on the tenant's own host, or this test shows nothing.
    for (kind, source) in PAGES.iter().take(3) {
        let document = browser.visit(&page(&browser.host("attacker"), kind, source, ""))?;
        ensure!(document.contains("it ran"), "{kind}: no script runs at all: {document}");
    }
    Ok(())
}
