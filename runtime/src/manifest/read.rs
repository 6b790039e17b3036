//! Reads a `dormouse.toml`, and tells everything that is wrong with it at once.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::{FILE_NAME, FunctionManifest, Limits, Manifest, OutboundHost, OutboundHosts};
use crate::name::FunctionName;
use crate::spelling;

/// Something wrong with a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Where, counted from 1; a mistake of the whole file has no line.
    pub line: Option<usize>,
    /// What it is.
    pub what: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{FILE_NAME}:{line}: {}", self.what),
            None => write!(f, "{FILE_NAME}: {}", self.what),
        }
    }
}

/// Everything that is wrong with a manifest, by line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the manifest has mistakes:{}", .0.iter().map(|mistake| format!("\n  {mistake}")).collect::<String>())]
pub struct ManifestError(pub Vec<Mistake>);

type Value<'i> = Spanned<DeValue<'i>>;

/// The text and the mistakes found so far.
struct Reader<'t> {
    text: &'t str,
    mistakes: Vec<Mistake>,
}

/// A table that is being read. What nobody has asked for in the end is unknown.
struct Section<'i> {
    name: String,
    table: DeTable<'i>,
    known: Vec<&'static str>,
}

pub(super) fn manifest(text: &str) -> Result<Manifest, ManifestError> {
    let (document, errors) = DeTable::parse_recoverable(text);
    let mut reader = Reader { text, mistakes: Vec::new() };
    if errors.is_empty() {
        let functions = reader.document(document.into_inner());
        if reader.mistakes.is_empty() {
            return Ok(Manifest { functions });
        }
    }
    // What a broken line means is anyone's guess, so that nothing else is said of it.
    for error in errors {
        reader.note(error.span(), error.message().trim_end().replace('\n', "; "));
    }
    reader.mistakes.sort_by_key(|mistake| mistake.line);
    Err(ManifestError(reader.mistakes))
}

impl Reader<'_> {
    fn note(&mut self, place: Option<Range<usize>>, what: String) {
        let before = place.and_then(|place| self.text.get(..place.start));
        let line = before.map(|before| before.matches('\n').count() + 1);
        self.mistakes.push(Mistake { line, what });
    }

    fn document(&mut self, table: DeTable<'_>) -> BTreeMap<FunctionName, FunctionManifest> {
        let mut document = Section { name: String::new(), table, known: Vec::new() };
        let functions = document.take("functions").and_then(|value| self.table("functions", value));
        document.finish(self);
        let functions = functions.unwrap_or_default();
        if functions.is_empty() && self.mistakes.is_empty() {
            self.note(None, "it names no function: write [functions.fn] for the one named fn".to_owned());
        }
        let mut read = BTreeMap::new();
        for (key, value) in functions {
            let place = key.span();
            let name = match key.get_ref().parse::<FunctionName>() {
                Ok(name) => name,
                Err(error) => {
                    self.note(Some(place), format!("functions: {error}"));
                    continue;
                }
            };
            let function = self.function(&format!("functions.{name}"), value);
            read.insert(name, function.unwrap_or_default());
        }
        read
    }

    fn function(&mut self, name: &str, value: Value<'_>) -> Option<FunctionManifest> {
        let place = value.span();
        let mut section = self.section(name, value)?;
        let function = FunctionManifest {
            path: section.value(self, "path"),
            build: section.value(self, "build"),
            component: section.value(self, "component"),
            watch: section.list(self, "watch"),
            limits: section.take("limits").and_then(|value| self.limits(name, value)).unwrap_or_default(),
            allowed_outbound_hosts: section.outbound_hosts(self, "allowed_outbound_hosts"),
            variables: section.list(self, "variables"),
        };
        section.finish(self);
        if function.build.is_some() && function.component.is_none() {
            let what = format!("{name}: it has a build command; component must name the file that it makes");
            self.note(Some(place), what);
        }
        Some(function)
    }

    fn limits(&mut self, function: &str, value: Value<'_>) -> Option<Limits> {
        let mut section = self.section(&format!("{function}.limits"), value)?;
        let limits = Limits {
            memory_bytes_max: section.value(self, "memory_bytes_max"),
            cpu_time_max_ms: section.value(self, "cpu_time_max_ms"),
            wall_time_max_ms: section.value(self, "wall_time_max_ms"),
            response_bytes_max: section.value(self, "response_bytes_max"),
            body_bytes_per_second_min: section.value(self, "body_bytes_per_second_min"),
            table_elements_max: section.value(self, "table_elements_max"),
            core_instances_max: section.value(self, "core_instances_max"),
            handles_max: section.value(self, "handles_max"),
            hostcall_bytes_max: section.value(self, "hostcall_bytes_max"),
            log_bytes_max: section.value(self, "log_bytes_max"),
        };
        section.finish(self);
        Some(limits)
    }

    fn section<'i>(&mut self, name: &str, value: Value<'i>) -> Option<Section<'i>> {
        let table = self.table(name, value)?;
        Some(Section { name: name.to_owned(), table, known: Vec::new() })
    }

    fn table<'i>(&mut self, name: &str, value: Value<'i>) -> Option<DeTable<'i>> {
        let place = value.span();
        match value.into_inner() {
            DeValue::Table(table) => Some(table),
            other => {
                self.note(Some(place), format!("{name} is a table, not {}", with_article(other.type_str())));
                None
            }
        }
    }

    fn read<T: DeserializeOwned>(&mut self, name: &str, value: Value<'_>) -> Option<T> {
        let place = value.span();
        match T::deserialize(ValueDeserializer::from(value)) {
            Ok(value) => Some(value),
            Err(error) => {
                self.note(Some(place), format!("{name}: {}", error.message().trim_end()));
                None
            }
        }
    }
}

impl<'i> Section<'i> {
    fn take(&mut self, key: &'static str) -> Option<Value<'i>> {
        self.known.push(key);
        self.table.remove(key)
    }

    fn full_name(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }

    fn value<T: DeserializeOwned>(&mut self, reader: &mut Reader<'_>, key: &'static str) -> Option<T> {
        let value = self.take(key)?;
        reader.read(&self.full_name(key), value)
    }

    fn outbound_hosts(&mut self, reader: &mut Reader<'_>, key: &'static str) -> OutboundHosts {
        let place = self.table.get(key).map(Spanned::span);
        self.list::<OutboundHost>(reader, key).try_into().unwrap_or_else(|error| {
            reader.note(place, format!("{}: {error}", self.full_name(key)));
            OutboundHosts::default()
        })
    }

    /// Reads each item for itself, so that each has its own mistake.
    fn list<T: DeserializeOwned>(&mut self, reader: &mut Reader<'_>, key: &'static str) -> Vec<T> {
        let Some(value) = self.take(key) else { return Vec::new() };
        let (name, place) = (self.full_name(key), value.span());
        match value.into_inner() {
            DeValue::Array(items) => items.into_iter().filter_map(|item| reader.read(&name, item)).collect(),
            other => {
                reader.note(Some(place), format!("{name} is a list, not {}", with_article(other.type_str())));
                Vec::new()
            }
        }
    }

    fn finish(self, reader: &mut Reader<'_>) {
        for (key, _) in &self.table {
            let hint = match spelling::nearest(key.get_ref(), &self.known) {
                Some(near) => format!("did you mean {near}?"),
                None => format!("the keys here are {}", self.known.join(", ")),
            };
            let what = format!("there is no key {}; {hint}", self.full_name(key.get_ref()));
            reader.note(Some(key.span()), what);
        }
    }
}

fn with_article(kind: &str) -> String {
    let article = if kind.starts_with(['a', 'i']) { "an" } else { "a" };
    format!("{article} {kind}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistakes(text: &str) -> Vec<String> {
        manifest(text)
            .err()
            .map(|error| error.0.iter().map(ToString::to_string).collect())
            .unwrap_or_default()
    }

    #[test]
    fn a_whole_manifest_is_read() -> Result<(), Box<dyn std::error::Error>> {
        let text = r#"
            [functions.fn]
            allowed_outbound_hosts = ["https://api.example.com"]
            variables = ["api_token"]

            [functions.page]
            path = "page"
            build = "npm run build"
            component = "dist/page.wasm"
            watch = ["page/src"]
            limits = { memory_bytes_max = 67_108_864, cpu_time_max_ms = 200, wall_time_max_ms = 5_000 }
        "#;
        let manifest = manifest(text)?;
        let names: Vec<_> = manifest.functions.keys().map(FunctionName::as_str).collect();
        assert_eq!(names, ["fn", "page"]);
        let page = manifest.functions.get(&"page".parse()?).ok_or("no page")?;
        assert_eq!(page.build.as_deref(), Some("npm run build"));
        assert_eq!(page.component.as_deref(), Some("dist/page.wasm"));
        assert_eq!(page.limits.memory_bytes_max.map(u64::from), Some(64 << 20));
        assert_eq!(page.watch, ["page/src"]);
        Ok(())
    }

    #[test]
    fn a_function_needs_nothing_but_its_name() -> Result<(), Box<dyn std::error::Error>> {
        let manifest = manifest("[functions.fn]\n")?;
        assert_eq!(manifest.functions.get(&"fn".parse()?), Some(&FunctionManifest::default()));
        Ok(())
    }

    #[test]
    fn all_mistakes_are_told_with_their_lines() {
        let text = "name = \"x\"\n\
                    [functions.fn]\n\
                    bild = \"make\"\n\
                    variables = [\"GOOD\", 7]\n\
                    watch = \"src\"\n\
                    [functions.fn.limits]\n\
                    cpu_time_max_ms = \"soon\"\n\
                    wall_time_max_ms = -1\n\
                    memory_bytes_max = 1\n\
                    [functions.Fn]\n\
                    [functions.page]\n\
                    build = \"make\"\n";
        let told = mistakes(text);
        for (line, part) in [
            (1, "no key name"),
            (3, "did you mean build?"),
            (4, "GOOD"),
            (4, "functions.fn.variables: invalid type"),
            (5, "functions.fn.watch is a list, not a string"),
            (7, "cpu_time_max_ms"),
            (8, "wall_time_max_ms"),
            (9, "memory_bytes_max"),
            (10, "\"Fn\" is not a name"),
            (11, "component must name"),
        ] {
            let start = format!("dormouse.toml:{line}: ");
            assert!(
                told.iter().any(|told| told.starts_with(&start) && told.contains(part)),
                "line {line}, {part:?} is missing in {told:#?}"
            );
        }
        assert_eq!(told.len(), 10, "{told:#?}");
    }

    #[test]
    fn broken_toml_is_told_with_its_lines_only() {
        let told = mistakes("[functions.fn]\nbuild = \nwat = [1\n");
        assert!(told.iter().any(|told| told.starts_with("dormouse.toml:2: ")), "{told:?}");
        assert!(told.iter().all(|told| !told.contains("no key")), "{told:?}");
    }

    #[test]
    fn a_manifest_without_functions_is_told_how_to_write_one() {
        for text in ["", "# nothing yet\n", "[functions]\n"] {
            let told = mistakes(text).join("\n");
            assert!(told.contains("[functions.fn]"), "{text:?}: {told}");
        }
        assert!(mistakes("functions = 1\n").join("\n").contains("functions is a table, not an integer"));
    }
}
