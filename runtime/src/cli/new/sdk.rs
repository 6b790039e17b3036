//! The SDK as a part of a project: its sources, and the build settings that it has in Dormouse's workspace.

use anyhow::Context as _;
use toml::{Table, Value};

use super::embedded;

/// The workspace that the SDK's manifests inherit from.
const WORKSPACE: &str = include_str!("../../../../Cargo.toml");

/// Where the SDK lies in that workspace.
const FOLDER: &str = "guest-sdk/";

/// Settings of cargo there, of which the SDK's tests need those of SQLite.
const CARGO_CONFIG: &str = include_str!("../../../../.cargo/config.toml");
const SQLITE_FLAGS: &str = "LIBSQLITE3_FLAGS";

const LICENSE: &str = include_str!("../../../../LICENSE");

/// The SDK's files, by their paths in its folder.
pub(super) fn files() -> anyhow::Result<Vec<(&'static str, String)>> {
    let workspace: Table = WORKSPACE.parse()?;
    let workspace = workspace.get("workspace").and_then(Value::as_table).context("no workspace")?;
    let file = |(path, content): &(&'static str, &str)| {
        let content = if path.ends_with("Cargo.toml") {
            let mut manifest = content.parse()?;
            stand_alone(&mut manifest, workspace);
            toml::to_string(&manifest)?
        } else {
            (*content).to_owned()
        };
        Ok((*path, content))
    };
    embedded::SDK.iter().map(file).chain([Ok(("LICENSE", LICENSE.to_owned()))]).collect()
}

/// The project's `.cargo/config.toml`, with which the SQLite of its tests is the server's.
pub(super) fn cargo_config() -> anyhow::Result<String> {
    let config: Table = CARGO_CONFIG.parse()?;
    let flags = config.get("env").and_then(|env| env.get(SQLITE_FLAGS)).context("no flags for SQLite")?;
    let env = toml::to_string(&Table::from_iter([(SQLITE_FLAGS.to_owned(), flags.clone())]))?;
    Ok(format!("# The SQLite that the tests run on is compiled as that of the server.\n[env]\n{env}"))
}

/// Writes into a manifest what it inherits from a workspace, and leaves out what only its own development needs.
fn stand_alone(manifest: &mut Table, workspace: &Table) {
    manifest.retain(|key, _| key != "lints" && key != "dev-dependencies");
    for (key, value) in manifest.iter_mut() {
        let Value::Table(table) = value else { continue };
        match workspace.get(key).and_then(Value::as_table) {
            Some(inherited) => inherit(table, inherited),
            None => stand_alone(table, workspace),
        }
    }
}

/// Puts what a table of a workspace says in the place of each `{ workspace = true }`.
fn inherit(table: &mut Table, workspace: &Table) {
    for (key, value) in table.iter_mut() {
        let Value::Table(own) = value else { continue };
        let (Some(_), Some(inherited)) = (own.remove("workspace"), workspace.get(key)) else { continue };
        let own = std::mem::take(own);
        *value = match inherited.clone() {
            inherited if own.is_empty() => inherited,
            Value::Table(inherited) => Value::Table(joined(inherited, own)),
            version => Value::Table(joined(Table::from_iter([("version".to_owned(), version)]), own)),
        };
        if let Some(Value::String(path)) = value.get_mut("path") {
            *path = path.replace(FOLDER, "");
        }
    }
}

/// What a dependency inherits and what it says itself. Features add up.
fn joined(mut inherited: Table, own: Table) -> Table {
    for (key, value) in own {
        match (inherited.get_mut(&key), value) {
            (Some(Value::Array(features)), Value::Array(more)) => features.extend(more),
            (_, value) => drop(inherited.insert(key, value)),
        }
    }
    inherited
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_inherits_nothing_any_more() -> anyhow::Result<()> {
        let workspace: Table = "[package]\nversion = \"1.0.0\"\n[dependencies]\nserde = \"1\"\n\
            sdk-macro = { path = \"guest-sdk/macro\" }\nhttp = { version = \"1\", features = [\"std\"] }\n"
            .parse()?;
        let mut manifest: Table = "[package]\nname = \"sdk\"\nversion.workspace = true\n[lints]\nworkspace = true\n\
            [dependencies]\nsdk-macro.workspace = true\nserde = { workspace = true, optional = true }\n\
            [dev-dependencies]\nsdk.workspace = true\n[target.wasm.dependencies]\nhttp = { workspace = true, features = [\"more\"] }\nserde.workspace = true\n"
            .parse()?;
        stand_alone(&mut manifest, &workspace);
        let expected: Table = "[package]\nname = \"sdk\"\nversion = \"1.0.0\"\n[dependencies]\n\
            sdk-macro = { path = \"macro\" }\nserde = { version = \"1\", optional = true }\n\
            [target.wasm.dependencies]\nhttp = { version = \"1\", features = [\"std\", \"more\"] }\nserde = \"1\"\n"
            .parse()?;
        assert_eq!(manifest, expected);
        Ok(())
    }

    #[test]
    fn the_sdk_is_whole_and_stands_alone() -> anyhow::Result<()> {
        let files = files()?;
        for needed in ["Cargo.toml", "src/lib.rs", "macro/Cargo.toml", "macro/src/lib.rs", "wit/world.wit"] {
            assert!(files.iter().any(|(path, _)| *path == needed), "{needed} is missing");
        }
        let inherits =
            |(path, content): &&(&str, String)| path.ends_with("Cargo.toml") && content.contains("workspace");
        assert_eq!(files.iter().find(inherits), None);
        assert!(cargo_config()?.contains("-DSQLITE_DQS=0"));
        Ok(())
    }
}
