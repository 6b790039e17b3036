//! Embeds what `dormouse new` writes, the templates and the SDK, so that a project builds without this repository.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// Each constant, and the folder whose files it holds.
const EMBEDDED: [(&str, &str); 5] = [
    ("COMMON", "templates/common"),
    ("WEBHOOK", "templates/webhook"),
    ("REST", "templates/rest"),
    ("HTML", "templates/html"),
    ("SDK", "../guest-sdk"),
];

fn main() -> io::Result<()> {
    let mut code = String::new();
    for (name, folder) in EMBEDDED {
        println!("cargo::rerun-if-changed={folder}");
        code += &format!("pub(super) const {name}: &[(&str, &str)] = &[\n");
        let root = fs::canonicalize(folder)?;
        for file in files(&root)? {
            let path = file.strip_prefix(&root).map_err(io::Error::other)?;
            code += &format!("    ({path:?}, include_str!({file:?})),\n");
        }
        code += "];\n";
    }
    let out = env::var_os("OUT_DIR").ok_or(io::ErrorKind::NotFound)?;
    fs::write(Path::new(&out).join("embedded.rs"), code)
}

/// All sources below a folder, in an order that does not change. What editors and builds leave there is none.
fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    entries.sort();
    let below = entries.into_iter().map(|path| match path.symlink_metadata()?.is_dir() {
        true if path.ends_with("target") => Ok(Vec::new()),
        true => files(&path),
        false => Ok(Vec::from_iter(is_source(&path).then_some(path))),
    });
    Ok(below.collect::<io::Result<Vec<_>>>()?.concat())
}

fn is_source(path: &Path) -> bool {
    path.ends_with(".gitignore")
        || path.extension().is_some_and(|kind| ["rs", "wit", "toml", "md"].iter().any(|known| kind == *known))
}
