//! The house stays tidy: arrows between rooms, one place for each crate, module docs, and a map that is true.
//!
//! The source is read as text. What a test module or a comment says does not count.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use dormouse_tests::root;

/// The rooms from the outside in, and which others each may name.
const ARROWS: &[(&str, &[&str])] = &[
    ("main", &["cli"]),
    ("cli", &["backup", "catalog", "config", "database", "manifest", "node", "process_sandbox", "toolchain"]),
    (
        "node",
        &[
            "admission",
            "backup",
            "catalog",
            "config",
            "control",
            "database",
            "edge",
            "listener",
            "manifest",
            "outbound",
            "process_sandbox",
            "sandbox",
            "telemetry",
            "tenant",
        ],
    ),
    ("backup", &["catalog", "control", "database", "tenant"]),
    // Settings become the policies that these rooms define.
    (
        "config",
        &[
            "admission",
            "control",
            "listener",
            "outbound",
            "process_sandbox",
            "routing",
            "sandbox",
            "telemetry",
            "tenant",
        ],
    ),
    // In `edge`: a function's own limits become those of the sandbox.
    (
        "edge",
        &[
            "admission",
            "catalog",
            "control",
            "listener",
            "manifest",
            "outbound",
            "routing",
            "sandbox",
            "telemetry",
            "tenant",
        ],
    ),
    ("control", &["catalog", "database", "listener", "manifest", "routing", "telemetry", "tenant"]),
    ("catalog", &["process_sandbox", "sandbox", "telemetry"]),
    ("sandbox", &["admission", "database", "outbound", "telemetry", "tenant"]),
    ("outbound", &["manifest", "telemetry"]),
    ("tenant", &["database", "telemetry"]),
    ("database", &["process_sandbox"]),
    ("admission", &[]),
    ("routing", &[]),
    ("listener", &["telemetry"]),
    ("telemetry", &[]),
    ("process_sandbox", &[]),
    ("toolchain", &[]),
    ("manifest", &[]),
    ("disk", &[]),
    ("exceeded", &[]),
    ("fair", &[]),
    ("limits", &[]),
    ("memory", &[]),
    ("name", &[]),
    ("network", &[]),
    ("problem", &[]),
    ("request_id", &[]),
    ("spelling", &[]),
    ("thread", &[]),
];

/// What every room may name.
const VOCABULARY: &[&str] = &[
    "disk",
    "exceeded",
    "fair",
    "limits",
    "memory",
    "name",
    "network",
    "problem",
    "request_id",
    "spelling",
    "thread",
];

/// A word of the source, and the only places where it may stand.
const CONFINED: &[(&str, &[&str])] = &[
    ("libsql", &["database/"]),
    // In `edge`: the type of the error in which a request body ends, which wasi:http fixes.
    ("wasmtime", &["sandbox/", "edge/request_body.rs"]),
    ("wasmparser", &["sandbox/world.rs"]),
    ("wasmtime_wasi", &["sandbox/"]),
    ("wasmtime_wasi_http", &["sandbox/", "edge/request_body.rs"]),
    // In `sandbox` and `control`: the type of a body's bytes.
    (
        "hyper",
        &[
            "listener/",
            "edge/",
            "sandbox/",
            "outbound/",
            "control/api.rs",
            "control/database_api.rs",
            "control/upload.rs",
        ],
    ),
    ("hyper_util", &["listener/", "outbound/"]),
    ("h2", &["listener/"]),
    ("hickory_resolver", &["outbound/resolve.rs"]),
    ("rustls", &["outbound/"]),
    ("tokio_rustls", &["outbound/"]),
    ("webpki_roots", &["outbound/tls.rs"]),
    ("url", &["manifest/outbound.rs", "outbound/"]),
    ("tokio_io_timeout", &["listener/"]),
    ("proxy_header", &["listener/"]),
    ("ipnet", &["network.rs"]),
    ("axum", &["control/"]),
    ("aes_gcm", &["control/"]),
    ("multer", &["control/upload.rs"]),
    ("strsim", &["spelling.rs"]),
    ("clap", &["cli/", "config/sources.rs"]),
    ("ureq", &["cli/"]),
    ("ignore", &["cli/dev/"]),
    ("prometheus_client", &["telemetry/"]),
    // In `config`: a level is checked by who will read it.
    ("tracing_subscriber", &["telemetry/", "config/mod.rs"]),
    ("tikv_jemallocator", &["main.rs"]),
    ("landlock", &["process_sandbox/"]),
    (
        "libc",
        &[
            "catalog/bounds.rs",
            "database/commit_log/segment.rs",
            "database/memory.rs",
            "database/wal_index.rs",
            "process_sandbox/calls.rs",
            "thread.rs",
        ],
    ),
    ("seccompiler", &["process_sandbox/"]),
    ("hmac", &["catalog/"]),
    ("subtle", &["control/"]),
    // In `sandbox`: starting the engine, where wasmtime's own error has no other form. In `catalog`: the `main` of the
    // compiler's process.
    (
        "anyhow",
        &[
            "node.rs",
            "node/",
            "cli/",
            "sandbox/engine.rs",
            "sandbox/link.rs",
            "sandbox/mod.rs",
            "sandbox/outgoing.rs",
            "sandbox/p2.rs",
            "sandbox/p3.rs",
            "catalog/compile.rs",
        ],
    ),
];

/// Texts of the source, and the only places where each may stand.
const CONFINED_TEXTS: &[(&str, &[&str])] = &[
    ("env::var", &["config/sources.rs", "cli/", "toolchain/"]),
    ("env::set_var", &[]),
    (
        "unsafe ",
        &[
            "catalog/bounds.rs",
            "database/callbacks.rs",
            "database/commit_log/segment.rs",
            "database/file.rs",
            "database/memory.rs",
            "database/sqlite.rs",
            "database/statement.rs",
            "database/vfs.rs",
            "database/wal_index.rs",
            "sandbox/link.rs",
            "thread.rs",
        ],
    ),
    ("process::exit", &[]),
    ("Command::new", &["catalog/compile.rs", "cli/", "toolchain/"]),
    ("Program::new", &["database/process.rs"]),
    // A route of the admin door says what it needs of a token.
    (".route(", &["control/routes.rs"]),
    (".unwrap()", &[]),
    (".expect(", &[]),
    ("panic!(", &[]),
    ("unreachable!(", &[]),
    ("todo!(", &[]),
    ("unimplemented!(", &[]),
    ("dbg!(", &[]),
    ("#[allow(", &[]),
    ("#![allow(", &[]),
    ("unbounded_channel", &[]),
    ("mpsc::channel()", &[]),
    ("channel::unbounded", &[]),
];

/// A file of `runtime/src`.
struct Source {
    /// Its path below `runtime/src`.
    path: String,
    whole: String,
    /// Its lines of code: no comments, no test module.
    code: Vec<String>,
}

impl Source {
    fn read(folder: &Path, file: &Path) -> Result<Self> {
        let whole = fs::read_to_string(file)?;
        let path = file.strip_prefix(folder)?.display().to_string();
        let production = whole.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        let is_code = |line: &&str| !line.trim_start().starts_with("//");
        let code = production.lines().filter(is_code).map(str::to_owned).collect();
        Ok(Self { path, whole, code })
    }

    fn room(&self) -> &str {
        let first = self.path.split('/').next().unwrap_or_default();
        first.strip_suffix(".rs").unwrap_or(first)
    }

    fn is_in(&self, places: &[&str]) -> bool {
        places.iter().any(|place| self.path.starts_with(place))
    }
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(found)
}

fn sources() -> Result<Vec<Source>> {
    let folder = root().join("runtime/src");
    let sources: Vec<Source> =
        files(&folder)?.iter().map(|file| Source::read(&folder, file)).collect::<Result<_>>()?;
    ensure!(sources.len() > 20, "the source is not where this test looks");
    Ok(sources)
}

fn is_part_of_a_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// The names that follow `crate::` in a line, those of a group included.
fn named_rooms(line: &str) -> Vec<&str> {
    let mut names = Vec::new();
    for (_, after) in line.match_indices("crate::").map(|(at, text)| line.split_at(at + text.len())) {
        let list = after.strip_prefix('{').and_then(|group| group.split('}').next()).unwrap_or(after);
        let is_group = after.starts_with('{');
        let parts = list.split(if is_group { ',' } else { '\0' }).map(str::trim);
        names.extend(parts.filter_map(|part| part.split(|at: char| !is_part_of_a_word(at)).next()));
    }
    names
}

/// Whether a line names a crate: the word, followed by a path.
fn names_crate(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let (before, rest) = line.split_at(at);
        let after = rest.strip_prefix(word).unwrap_or_default();
        !before.ends_with(is_part_of_a_word) && !before.ends_with("::") && after.starts_with("::")
    })
}

/// Whether a text stands in a line, and not as the end of a longer word.
fn has_text(line: &str, text: &str) -> bool {
    let is_word = text.starts_with(is_part_of_a_word);
    line.match_indices(text).any(|(at, _)| !(is_word && line.split_at(at).0.ends_with(is_part_of_a_word)))
}

#[test]
fn arrows_between_rooms_are_those_of_the_list() -> Result<()> {
    let rooms: BTreeSet<&str> = ARROWS.iter().map(|(room, _)| *room).collect();
    let mut wrong = Vec::new();
    for source in sources()?.iter().filter(|source| source.path != "lib.rs") {
        let room = source.room();
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == room) else {
            bail!("{}: the room {room} is not on the list of this test", source.path)
        };
        for line in &source.code {
            let line = line.replace("dormouse::", "crate::");
            for named in named_rooms(&line).into_iter().filter(|named| rooms.contains(named)) {
                if named != room && !allowed.contains(&named) && !VOCABULARY.contains(&named) {
                    wrong.push(format!("{}: {room} → {named}: {}", source.path, line.trim()));
                }
            }
        }
    }
    ensure!(wrong.is_empty(), "arrows that nobody allowed:\n{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn allowed_arrows_go_inwards() -> Result<()> {
    let place = |wanted: &str| ARROWS.iter().position(|(room, _)| *room == wanted);
    for (room, allowed) in ARROWS {
        for other in *allowed {
            let goes_back =
                place(other).with_context(|| format!("no room {other}"))? < place(room).context("no room")?;
            ensure!(!goes_back, "{room} → {other} goes back");
        }
    }
    Ok(())
}

#[test]
fn crates_stay_in_their_rooms() -> Result<()> {
    let mut wrong = Vec::new();
    for source in sources()? {
        for (word, places) in CONFINED.iter().filter(|(_, places)| !source.is_in(places)) {
            let lines = source.code.iter().filter(|line| names_crate(line, word));
            wrong.extend(
                lines.map(|line| format!("{}: {word} belongs to {places:?}: {}", source.path, line.trim())),
            );
        }
    }
    ensure!(wrong.is_empty(), "crates outside of their rooms:\n{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn what_is_dangerous_stays_where_it_is_expected() -> Result<()> {
    let mut wrong = Vec::new();
    for source in sources()? {
        for (text, _) in CONFINED_TEXTS.iter().filter(|(_, places)| !source.is_in(places)) {
            let lines = source.code.iter().filter(|line| has_text(line, text));
            wrong.extend(lines.map(|line| format!("{}: {text:?}: {}", source.path, line.trim())));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn every_file_says_what_it_is_for() -> Result<()> {
    let bare: Vec<String> = sources()?
        .into_iter()
        .filter(|source| !source.whole.starts_with("//! "))
        .map(|source| source.path)
        .collect();
    ensure!(bare.is_empty(), "files without module docs: {bare:?}");
    Ok(())
}

#[test]
fn the_lints_that_keep_the_rest_are_on() -> Result<()> {
    let manifest: toml::Table = fs::read_to_string(root().join("Cargo.toml"))?.parse()?;
    let lint =
        |tool: &str, name: &str| manifest.get("workspace")?.get("lints")?.get(tool)?.get(name)?.as_str();
    for name in ["unwrap_used", "expect_used", "panic", "indexing_slicing", "undocumented_unsafe_blocks"] {
        ensure!(lint("clippy", name).is_some_and(|level| level != "allow"), "clippy::{name} is off");
    }
    ensure!(lint("rust", "missing_docs").is_some_and(|level| level != "allow"));
    assert_eq!(lint("rust", "unsafe_code"), Some("deny"));
    for member in ["runtime", "guest-sdk", "guest-sdk/macro", "tests"] {
        let manifest: toml::Table = fs::read_to_string(root().join(member).join("Cargo.toml"))?.parse()?;
        let inherits = manifest.get("lints").and_then(|lints| lints.get("workspace")?.as_bool());
        ensure!(inherits == Some(true), "{member} does not inherit the lints");
    }
    Ok(())
}

/// The rows of the map in ARCHITECTURE.md: each room and where it says the room lies.
fn map() -> Result<Vec<(String, String)>> {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md"))?;
    let map = text.split("\n## ").find(|section| section.starts_with("The map\n")).context("no map")?;
    let cell = |cell: &str| cell.trim().trim_matches('`').to_owned();
    let row = |line: &str| {
        let mut cells = line.strip_prefix("| ")?.split('|');
        Some((cell(cells.next()?), cell(cells.next()?)))
    };
    // The first row is the table's head; the line below it does not start as a row does.
    Ok(map.lines().filter_map(row).skip(1).collect())
}

#[test]
fn the_map_matches_the_code() -> Result<()> {
    let lib = fs::read_to_string(root().join("runtime/src/lib.rs"))?;
    let modules = lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    let modules: BTreeSet<&str> = modules.filter(|module| !VOCABULARY.contains(module)).collect();
    let map = map()?;
    let rooms: BTreeSet<&str> = map.iter().map(|(room, _)| room.as_str()).collect();
    assert_eq!(rooms, modules, "the map and lib.rs name different rooms");
    for (room, place) in &map {
        ensure!(root().join("runtime/src").join(place).exists(), "{room} is said to lie in {place}");
    }
    Ok(())
}

#[test]
fn every_problem_type_is_documented() -> Result<()> {
    let documented = fs::read_to_string(root().join("docs/problems.md")).context("docs/problems.md")?;
    let mut count = 0;
    for source in sources()? {
        let code = source.code.join(" ");
        for call in
            ["problem(S::", "problem(StatusCode::", "ProblemType::new(StatusCode::", "ProblemType::new(S::"]
        {
            for after in code.split(call).skip(1) {
                let slug = after.split('"').nth(1).with_context(|| format!("{}: no slug", source.path))?;
                ensure!(documented.contains(&format!("`{slug}`")), "docs/problems.md does not name `{slug}`");
                count += 1;
            }
        }
    }
    ensure!(count > 15, "only {count} problem types were found: this test looks for the wrong words");
    Ok(())
}
