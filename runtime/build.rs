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

/// All files below a folder, in an order that does not change.
fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    entries.sort();
    let below = entries.into_iter().map(|path| if path.is_dir() { files(&path) } else { Ok(vec![path]) });
    Ok(below.collect::<io::Result<Vec<_>>>()?.concat())
}
