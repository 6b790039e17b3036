//! `dormouse new`: a project to start from, with its own tests and with the SDK that it builds with.

mod embedded;
mod sdk;

use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};

use super::output;
use crate::name::NAME_BYTES_MAX;

/// The versions that this program was tested with; cargo drops those that a project does not need.
const CARGO_LOCK: &str = include_str!("../../../../Cargo.lock");

/// Where the SDK lies in a project.
const SDK_FOLDER: &str = "vendor/dormouse-sdk";

/// What stands for the project's name in a template.
const NAME: &str = "{{name}}";

/// Names that cargo or rustc keep for themselves, or that a package of the project has.
const RESERVED: &str = "abstract alloc as async await become box break const continue core crate do dormouse-sdk \
    dormouse-sdk-macro dyn else enum extern false final fn for gen if impl in let loop macro match mod \
    move mut override priv proc-macro pub ref return self serde static std struct super test trait true \
    try type typeof unsized use virtual where while yield unsafe";

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
                        dormouse new shop\n  \
                        dormouse new shop --template rest\n\n\
                        The project builds on any machine that has Rust: it holds the SDK, in vendor/.")]
pub(super) struct NewArgs {
    /// The project's name and that of its folder: lowercase letters, digits and hyphens, a letter first
    #[arg(value_parser = project_name)]
    name: String,
    /// What to start from
    #[arg(long, default_value = "webhook")]
    template: Template,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Template {
    /// Keeps every JSON event that is posted
    Webhook,
    /// A REST API over a table
    Rest,
    /// A page with a form and a list
    Html,
}

impl Template {
    fn files(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Webhook => embedded::WEBHOOK,
            Self::Rest => embedded::REST,
            Self::Html => embedded::HTML,
        }
    }
}

pub(super) fn run(args: &NewArgs) -> anyhow::Result<()> {
    let name = &args.name;
    // It is made under another name, so that there is all of it or nothing.
    let draft = tempfile::Builder::new()
        .prefix(".dormouse-new-")
        .permissions(Permissions::from_mode(0o777))
        .tempdir_in(".")
        .context("cannot make a folder here")?;
    for (path, content) in files(name, args.template)? {
        write(&draft.path().join(&path), &content).with_context(|| format!("cannot write {name}/{path}"))?;
    }
    // An empty folder gives way, anything else does not.
    match fs::rename(draft.path(), name).map_err(|error| (error.kind(), error)) {
        Ok(()) => {}
        Err((ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists | ErrorKind::NotADirectory, _)) => {
            bail!(
                "./{name} is there already and is not an empty folder: choose another name, or move it away"
            )
        }
        Err((_, error)) => return Err(error).with_context(|| format!("cannot make ./{name}")),
    }
    output::lines(&format!(
        "made ./{name}\n\n  \
         cd {name}\n  \
         cargo test                  # its own tests, without a server\n  \
         dormouse dev                # serves it, and again after each change\n  \
         dormouse deploy <tenant>    # brings it to a node"
    ))
}

/// The project's files, by their paths in its folder.
fn files(name: &str, template: Template) -> anyhow::Result<Vec<(String, String)>> {
    let named = |(path, content): &(&str, &str)| ((*path).to_owned(), content.replace(NAME, name));
    let vendored = |(path, content)| (format!("{SDK_FOLDER}/{path}"), content);
    let mut files: Vec<_> = embedded::COMMON.iter().chain(template.files()).map(named).collect();
    files.extend(sdk::files()?.into_iter().map(vendored));
    files.push((".cargo/config.toml".to_owned(), sdk::cargo_config()?));
    files.push(("Cargo.lock".to_owned(), CARGO_LOCK.to_owned()));
    Ok(files)
}

fn write(path: &Path, content: &str) -> std::io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)?;
    fs::write(path, content)
}

/// A name that is good for a folder, a crate and a tenant.
fn project_name(text: &str) -> Result<String, String> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let well_formed = text.len() <= NAME_BYTES_MAX
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.bytes().all(allowed);
    if !well_formed {
        return Err(format!(
            "use 1 to {NAME_BYTES_MAX} lowercase letters, digits and hyphens, starting with a letter"
        ));
    }
    if RESERVED.split(' ').any(|reserved| reserved == text) {
        return Err("Rust or the project's own packages use this name: choose another one".to_owned());
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_good_for_a_crate_and_a_tenant() {
        for good in ["a", "shop", "web-shop-2", &"x".repeat(63)] {
            assert!(project_name(good).is_ok(), "{good}");
        }
        let long = "x".repeat(64);
        for bad in ["", "-a", "2a", "Shop", "a_b", "a/b", "..", "ä", &long, "fn", "test", "dormouse-sdk"] {
            assert!(project_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn no_placeholder_is_left() -> anyhow::Result<()> {
        for template in Template::value_variants() {
            for (path, content) in files("shop", *template)? {
                assert!(!content.contains(NAME), "{template:?}: {path}");
            }
        }
        Ok(())
    }
}
