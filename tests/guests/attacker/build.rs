//! Makes a module of each file of `tests/attacks/guests/<world>`, and a table of them by their names. The attackers of both
//! worlds are built with it.

use std::path::Path;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let world = if env!("CARGO_PKG_NAME") == "attacker3" { "0.3" } else { "0.2" };
    let folder = Path::new("../../attacks/guests").join(world);
    println!("cargo::rerun-if-changed={}", folder.display());
    let folder = folder.canonicalize()?;
    let (mut modules, mut arms) = (String::new(), String::new());
    for entry in fs::read_dir(&folder)? {
        let file = entry?.path();
        let (Some(name), Some("rs")) = (
            file.file_stem().and_then(|name| name.to_str()),
            file.extension().and_then(|name| name.to_str()),
        ) else {
            continue;
        };
        modules.push_str(&format!("#[path = {file:?}]\nmod {name};\n"));
        arms.push_str(&format!("        \"/{name}\" => $call!({name}),\n"));
    }
    let table = format!(
        "{modules}macro_rules! attacks {{\n    ($path:expr, $call:ident, $none:expr) => {{ match $path {{\n{arms}        \
         _ => $none,\n    }} }};\n}}\n"
    );
    let out = env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("no OUT_DIR"))?;
    fs::write(Path::new(&out).join("attacks.rs"), table)
}
