//! The fuzz targets on stable Rust: each over its corpus, and over a fixed number of variations of it.
//!
//! `tests/fuzz` runs the same targets for as long as one likes, led by coverage. What it finds becomes a file of the
//! corpus, and so a case here.

#[path = "../fuzz/src/targets/mod.rs"]
pub mod targets;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

type Target = fn(&[u8]) -> Result<()>;

/// Runs a target over its corpus, and over `variations` made of two files of it and words of its dictionary.
fn drive(name: &str, target: Target, variations: usize) -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let mut files: Vec<_> = fs::read_dir(folder.join("corpus").join(name))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    files.sort();
    let mut corpus = Vec::new();
    for file in files {
        let data = fs::read(&file)?;
        target(&data).with_context(|| file.display().to_string())?;
        corpus.push(data);
    }
    ensure!(!corpus.is_empty(), "{name} has no corpus");
    let words = dictionary(&folder.join(format!("{name}.dict")))?;
    for seed in 0..variations {
        let data = vary(&mut fastrand::Rng::with_seed(seed as u64), &corpus, &words);
        target(&data)
            .with_context(|| format!("variation {seed} of {name}: {:?}", String::from_utf8_lossy(&data)))?;
    }
    Ok(())
}

/// The words of a dictionary in libFuzzer's form, a quoted word on each line; none when there is no file.
fn dictionary(file: &Path) -> Result<Vec<Vec<u8>>> {
    if !file.exists() {
        return Ok(Vec::new());
    }
    let text = fs::read_to_string(file)?;
    let word = |line: &str| {
        Some(
            line.strip_prefix('"')?
                .strip_suffix('"')?
                .replace("\\\"", "\"")
                .replace("\\x0a", "\n")
                .into_bytes(),
        )
    };
    Ok(text.lines().filter_map(word).collect())
}

/// One of the corpus, changed in a few places.
fn vary(random: &mut fastrand::Rng, corpus: &[Vec<u8>], words: &[Vec<u8>]) -> Vec<u8> {
    let mut data = random.choice(corpus).cloned().unwrap_or_default();
    for _ in 0..random.usize(1..6) {
        let from = random.usize(0..=data.len());
        let to = (from + random.usize(0..16)).min(data.len());
        let piece = match random.u8(0..4) {
            0 => Vec::new(),
            1 => vec![random.u8(..); random.usize(0..4)],
            2 => random.choice(words).cloned().unwrap_or_default(),
            _ => {
                let other = random.choice(corpus).map(Vec::as_slice).unwrap_or_default();
                let start = random.usize(0..=other.len());
                other.iter().skip(start).take(random.usize(0..64)).copied().collect()
            }
        };
        data.splice(from..to, piece);
    }
    data
}

#[test]
fn sql_reaches_nothing_but_its_tenants_tables() -> Result<()> {
    drive("sql_guard", targets::sql_guard::run, 1_500)
}

#[test]
fn values_come_back_as_they_were_given() -> Result<()> {
    drive("values", targets::values::run, 5_000)
}

#[test]
fn uploads_are_taken_whole_or_refused() -> Result<()> {
    drive("upload", targets::upload::run, 20_000)
}

#[test]
fn routes_are_safe_to_build_paths_from() -> Result<()> {
    drive("routing", targets::routing::run, 100_000)
}

#[test]
fn no_entry_allows_more_than_it_says_and_no_special_address_passes() -> Result<()> {
    drive("outbound", targets::outbound::run, 100_000)
}
