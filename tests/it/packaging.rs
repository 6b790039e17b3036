//! The container image, the Fly machine and the unit file agree with each other and with the repository.
//!
//! No container engine is needed: the files are read, and what one says is looked up in the others.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use dormouse_tests::{Builder, TestNode, root};
use toml::Table;

fn text(path: &str) -> Result<String> {
    fs::read_to_string(root().join(path)).with_context(|| format!("cannot read {path}"))
}

fn table(path: &str) -> Result<Table> {
    text(path)?.parse().with_context(|| format!("{path} is no TOML"))
}

/// The value at a dotted path, such as `http_service.internal_port`. A list of tables stands for its first.
fn value<'a>(table: &'a Table, path: &str) -> Result<&'a toml::Value> {
    let mut keys = path.split('.');
    let first = keys.next().and_then(|key| table.get(key));
    let found = keys.fold(first, |at, key| match at? {
        toml::Value::Array(list) => list.first()?.get(key),
        other => other.get(key),
    });
    found.with_context(|| format!("no {path}"))
}

fn string<'a>(table: &'a Table, path: &str) -> Result<&'a str> {
    value(table, path)?.as_str().with_context(|| format!("{path} is no text"))
}

/// A Dockerfile's instructions: each one's name and the rest of its line, continued lines joined.
fn instructions() -> Result<Vec<(String, String)>> {
    let file = text("Dockerfile")?;
    let code: Vec<&str> = file.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
    let joined = code.join("\n").replace("\\\n", " ");
    let split = |line: &str| {
        line.trim().split_once(' ').map(|(name, rest)| (name.to_owned(), rest.trim().to_owned()))
    };
    Ok(joined.lines().filter_map(split).collect())
}

/// The one instruction of that name in the last stage, or in the only stage that has it.
fn instruction(name: &str) -> Result<String> {
    let found = instructions()?.into_iter().rev().find(|(found, _)| found == name);
    found.map(|(_, rest)| rest).with_context(|| format!("the Dockerfile has no {name}"))
}

/// What the build stage copies out of the repository.
fn copied() -> Result<BTreeSet<String>> {
    let mut sources = BTreeSet::new();
    for (name, rest) in instructions()? {
        if name == "COPY" && !rest.starts_with("--from=") {
            let words: Vec<&str> = rest.split_whitespace().collect();
            let Some((_, from)) = words.split_last() else { bail!("an empty COPY") };
            sources.extend(from.iter().map(|&word| word.to_owned()));
        }
    }
    Ok(sources)
}

/// The value that the container's command line gives a flag.
fn flag(name: &str) -> Result<String> {
    let words: Vec<String> = serde_json::from_str(&instruction("ENTRYPOINT")?)?;
    let found = words.iter().skip_while(|word| *word != name).nth(1).cloned();
    found.with_context(|| format!("the ENTRYPOINT has no {name}"))
}

fn port_of(address: &str) -> Result<i64> {
    let (_, port) = address.rsplit_once(':').with_context(|| format!("{address} has no port"))?;
    port.parse().with_context(|| format!("{address} has no port"))
}

/// Whether `.dockerignore` keeps a path from the builder: the last pattern that covers it decides.
fn is_ignored(path: &str) -> Result<bool> {
    let mut ignored = false;
    for line in text(".dockerignore")?.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (pattern, ignores) = line.strip_prefix('!').map_or((line, true), |pattern| (pattern, false));
        if covers(pattern, path)? {
            ignored = ignores;
        }
    }
    Ok(ignored)
}

/// Whether a pattern covers a path or a folder above it. Only the forms that `.dockerignore` uses are known.
fn covers(pattern: &str, path: &str) -> Result<bool> {
    if pattern == "*" {
        return Ok(true);
    }
    let (anywhere, name) = pattern.strip_prefix("**/").map_or((false, pattern), |name| (true, name));
    ensure!(!name.contains(['*', '?', '[']), "this test does not know the pattern {pattern}");
    Ok(if anywhere {
        Path::new(path).iter().any(|part| part == name)
    } else {
        Path::new(path).starts_with(name)
    })
}

#[test]
fn what_the_image_copies_is_there_and_not_ignored() -> Result<()> {
    for source in copied()? {
        ensure!(root().join(&source).exists(), "the Dockerfile copies {source}, which is not there");
        ensure!(!is_ignored(&source)?, "the Dockerfile copies {source}, which .dockerignore leaves out");
    }
    ensure!(
        is_ignored("target")? && is_ignored("runtime/target")?,
        "build output would be sent to the builder"
    );
    ensure!(
        is_ignored("data")? && is_ignored(".git")?,
        "private or large folders would be sent to the builder"
    );
    Ok(())
}

#[test]
fn what_ships_is_what_the_benchmark_measures() -> Result<()> {
    value(&table("Cargo.toml")?, "profile.dist.lto")?;
    let shipped = ["cargo build --profile dist --locked", "cp target/dist/dormouse "];
    for (file, commands) in [
        ("Dockerfile", &shipped[..]),
        ("README.md", &["cargo install --locked --profile dist "]),
        ("docs/benchmarks.md", &["cargo run --profile dist --bin bench\n"]),
    ] {
        for command in commands {
            ensure!(text(file)?.contains(command), "{file} does not say `{command}`");
        }
    }
    Ok(())
}

#[test]
fn the_image_gets_every_member_and_the_build_flags() -> Result<()> {
    let copied = copied()?;
    let manifest = table("Cargo.toml")?;
    let members = value(&manifest, "workspace.members")?.as_array().context("members are a list")?;
    for member in members.iter().filter_map(toml::Value::as_str) {
        let folder = member.trim_end_matches("/*");
        let has = copied.iter().any(|source| Path::new(folder).starts_with(source));
        ensure!(has, "the Dockerfile does not copy the workspace member {member}");
    }
    // The last is a part of what `dormouse new` writes.
    for file in [".cargo", "Cargo.toml", "Cargo.lock", "LICENSE"] {
        ensure!(copied.contains(file), "the Dockerfile does not copy {file}");
    }
    Ok(())
}

#[test]
fn one_public_port() -> Result<()> {
    let fly = table("fly.toml")?;
    let listen = flag("--public-listen")?;
    ensure!(listen.starts_with("0.0.0.0:"), "{listen} cannot be reached from outside the container");
    let port = port_of(&listen)?;
    assert_eq!(instruction("EXPOSE")?.parse::<i64>()?, port);
    assert_eq!(value(&fly, "http_service.internal_port")?.as_integer(), Some(port));
    assert_eq!(value(&fly, "checks.public.port")?.as_integer(), Some(port));
    Ok(())
}

#[test]
fn the_admin_door_stays_inside() -> Result<()> {
    let listen = flag("--admin-listen")?;
    ensure!(listen.starts_with("127.0.0.1:"), "{listen} would open the admin door to the network");
    assert_ne!(port_of(&listen)?, port_of(&flag("--public-listen")?)?);
    Ok(())
}

#[test]
fn data_is_on_the_volume() -> Result<()> {
    let data = flag("--data")?;
    assert_eq!(instruction("VOLUME")?, data);
    assert_eq!(string(&table("fly.toml")?, "mounts.destination")?, data);
    Ok(())
}

#[test]
fn the_server_is_not_root_and_owns_its_data() -> Result<()> {
    let user = instruction("USER")?;
    let id: u32 = user.split(':').next().unwrap_or(&user).parse().context("USER is not a number")?;
    ensure!(id > 0, "the server runs as root");
    let setup = instruction("RUN")?;
    ensure!(
        setup.contains(&format!("--owner={id} ")),
        "the folder for data belongs to another user than {id}"
    );
    Ok(())
}

#[test]
fn fly_sets_what_the_server_knows() -> Result<()> {
    let fly = table("fly.toml")?;
    let environment = value(&fly, "env")?.as_table().context("env is a table")?;
    ensure!(
        environment.contains_key("DORMOUSE_TRUSTED_PROXIES"),
        "clients would all have the proxy's address"
    );
    let text = |value: &toml::Value| value.as_str().map(str::to_owned).context("a variable is a text");
    let set =
        |node: Builder, (name, value): (&String, &toml::Value)| anyhow::Ok(node.env(name, text(value)?));
    environment.iter().try_fold(TestNode::builder(), set)?.start()?;
    Ok(())
}

#[test]
fn fly_waits_for_the_drain() -> Result<()> {
    let fly = table("fly.toml")?;
    assert_eq!(string(&fly, "kill_signal")?, "SIGTERM");
    assert_eq!(instruction("STOPSIGNAL")?, "SIGTERM");
    let seconds =
        string(&fly, "kill_timeout")?.strip_suffix('s').context("kill_timeout is not in seconds")?;
    let timeout = Duration::from_secs(seconds.parse()?);
    let drain = dormouse::limits::DRAIN_DEADLINE;
    // Databases are closed after the drain (`CLOSE_TIME_MAX` of node.rs).
    let stop = drain + Duration::from_secs(4);
    ensure!(timeout > stop, "Fly kills the machine after {timeout:?}, a stop may take {stop:?}");
    assert_eq!(value(&fly, "http_service.auto_stop_machines")?.as_str(), Some("off"));
    Ok(())
}

#[test]
fn the_image_is_built_by_the_toolchain_of_the_repository() -> Result<()> {
    let toolchain = table("rust-toolchain.toml")?;
    let channel = string(&toolchain, "toolchain.channel")?;
    let images: Vec<String> =
        instructions()?.into_iter().filter(|(name, _)| name == "FROM").map(|(_, rest)| rest).collect();
    let build = images.first().context("the Dockerfile has no FROM")?;
    ensure!(
        build.starts_with(&format!("rust:{channel}-")),
        "the image builds with {build}, the repository {channel}"
    );
    let debian =
        |image: &str| image.split([':', '-', ' ']).find(|part| *part == "bookworm").map(str::to_owned);
    let ran = images.last().and_then(|image| debian(image));
    ensure!(ran.is_some() && ran == debian(build), "the binary is built on one Debian and run on another");
    Ok(())
}

/// What the unit file sets, key by key; lines that have the same key are joined.
fn unit() -> Result<std::collections::BTreeMap<String, String>> {
    let mut settings = std::collections::BTreeMap::<String, String>::new();
    for line in text("docs/dormouse.service")?.lines().filter(|line| !line.starts_with('#')) {
        if let Some((key, value)) = line.split_once('=') {
            let joined = settings.entry(key.to_owned()).or_default();
            joined.push_str(if joined.is_empty() { "" } else { " " });
            joined.push_str(value);
        }
    }
    Ok(settings)
}

#[test]
fn the_unit_starts_a_server_that_is_not_root() -> Result<()> {
    let unit = unit()?;
    let setting = |key: &str| unit.get(key).map(String::as_str).with_context(|| format!("no {key}"));
    assert_eq!(setting("DynamicUser")?, "yes");
    assert_eq!(setting("NoNewPrivileges")?, "yes");
    assert_eq!(setting("ProtectSystem")?, "strict");
    assert_eq!(setting("CapabilityBoundingSet")?, "");
    ensure!(!unit.contains_key("MemoryDenyWriteExecute"), "compiled components could not be mapped");
    let data = format!("/var/lib/{}", setting("StateDirectory")?);
    assert_eq!(setting("ExecStart")?, format!("/usr/local/bin/dormouse serve --data {data}"));
    let seconds: u64 = setting("TimeoutStopSec")?.parse()?;
    ensure!(Duration::from_secs(seconds) > dormouse::limits::DRAIN_DEADLINE + Duration::from_secs(4));

    // The server knows its settings, and its limit of descriptors is enough for the shipped ones.
    let (name, value) = setting("Environment")?.split_once('=').context("no variable")?;
    let descriptors = setting("LimitNOFILE")?.parse()?;
    TestNode::builder().env(name, value).descriptors_max(descriptors).start()?;
    Ok(())
}

#[test]
fn the_unit_is_one_that_systemd_understands() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let program = dormouse_tests::binary()?.display().to_string();
    let unit = text("docs/dormouse.service")?.replace("/usr/local/bin/dormouse", &program);
    let file = folder.path().join("dormouse.service");
    fs::write(&file, unit)?;
    let Ok(checked) = std::process::Command::new("systemd-analyze").arg("verify").arg(&file).output() else {
        println!("skipped: there is no systemd-analyze");
        return Ok(());
    };
    let said = String::from_utf8_lossy(&checked.stderr);
    let about_it: Vec<_> = said.lines().filter(|line| line.contains("dormouse")).collect();
    ensure!(checked.status.success() && about_it.is_empty(), "{said}");
    Ok(())
}
