//! The two worlds of `wasi:http`, and which one a component lives in: what it exports says so.

use std::fmt;

use wasmparser::{Encoding, Parser, Payload};

/// A world that the node can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum World {
    /// `wasi:http/incoming-handler@0.2.x`: one call, which blocks while it waits.
    P2,
    /// `wasi:http/handler@0.3.x`: asynchronous calls and streams.
    P3,
}

const HANDLER: &str = "wasi:http/handler@0.3.";
const RELEASE_CANDIDATE: &str = "@0.3.0-rc";

impl World {
    /// Every world.
    pub const ALL: [Self; 2] = [Self::P2, Self::P3];

    /// The world whose [`fmt::Display`] form this is.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|world| world.to_string() == text)
    }

    /// The world of a component. One that exports both handlers lives in the newer. One that exports neither counts
    /// to 0.2: linking it tells best what is wrong with it.
    ///
    /// # Errors
    /// When the node cannot run the component in any world; the reason is for its uploader.
    pub(super) fn of(component: &[u8]) -> Result<Self, String> {
        let outline = Outline::read(component)
            .map_err(|error| format!("the file is no valid WebAssembly component: {error}"))?;
        if outline.is_module {
            return Err("the file is a core WebAssembly module and no component".to_owned());
        }
        let is_new = |name: &&str| name.starts_with(HANDLER) && !name.contains(RELEASE_CANDIDATE);
        let runs_in_p3 = outline.exports.iter().any(is_new);
        let mut names = outline.exports.iter().chain(&outline.imports);
        if let Some(name) = names.find(|name| name.starts_with("wasi:") && name.contains(RELEASE_CANDIDATE)) {
            return Err(format!(
                "the component uses {name}, a release candidate of WASI 0.3; rebuild it with the final SDK"
            ));
        }
        if runs_in_p3 && outline.is_composed {
            return Err("the component is composed of others, and exports wasi:http/handler@0.3; \
                 this node runs composed components with wasi:http/incoming-handler@0.2 only"
                .to_owned());
        }
        Ok(if runs_in_p3 { Self::P3 } else { Self::P2 })
    }
}

impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::P2 => "0.2",
            Self::P3 => "0.3",
        })
    }
}

/// What a component says of itself.
#[derive(Default)]
struct Outline<'a> {
    exports: Vec<&'a str>,
    imports: Vec<&'a str>,
    is_module: bool,
    /// Whether a component inside of it has code of its own. Calls between such components are tasks, each with a
    /// stack of its own, and nothing bounds how many of the pool's one guest could take.
    is_composed: bool,
}

impl<'a> Outline<'a> {
    fn read(component: &'a [u8]) -> wasmparser::Result<Self> {
        let mut outline = Self::default();
        let mut depth = 0_u32;
        for payload in Parser::new(0).parse_all(component) {
            match payload? {
                Payload::Version { encoding: Encoding::Module, .. } if depth == 0 => outline.is_module = true,
                Payload::ComponentSection { .. } | Payload::ModuleSection { .. } => depth += 1,
                Payload::End(_) => depth = depth.saturating_sub(1),
                Payload::InstanceSection(_) if depth > 0 => outline.is_composed = true,
                Payload::ComponentExportSection(exports) if depth == 0 => {
                    for export in exports {
                        outline.exports.push(export?.name.name);
                    }
                }
                Payload::ComponentImportSection(imports) if depth == 0 => {
                    for import in imports {
                        outline.imports.push(import?.name.name);
                    }
                }
                _ => {}
            }
        }
        Ok(outline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A component that exports empty instances of these names; enough to tell its world.
    fn exporting(names: &[&str], inside: &str) -> Result<Vec<u8>, wat::Error> {
        let exports: String = names.iter().map(|name| format!("(export \"{name}\" (instance $i))")).collect();
        wat::parse_str(format!("(component {inside} (instance $i) {exports})"))
    }

    const OLD: &str = "wasi:http/incoming-handler@0.2.12";
    const NEW: &str = "wasi:http/handler@0.3.0";
    const CANDIDATE: &str = "wasi:http/handler@0.3.0-rc-2026-03-15";

    #[test]
    fn the_newer_world_is_preferred() -> Result<(), Box<dyn std::error::Error>> {
        assert_eq!(World::of(&exporting(&[OLD], "")?)?, World::P2);
        assert_eq!(World::of(&exporting(&[OLD, NEW], "")?)?, World::P3);
        assert_eq!(World::of(&exporting(&["wasi:http/handler@0.3.7"], "")?)?, World::P3);
        assert_eq!(World::of(&exporting(&[], "")?)?, World::P2);
        Ok(())
    }

    #[test]
    fn a_release_candidate_is_named() -> Result<(), Box<dyn std::error::Error>> {
        let reason = World::of(&exporting(&[CANDIDATE], "")?).err().unwrap_or_default();
        assert!(reason.contains(CANDIDATE) && reason.contains("final SDK"), "{reason}");
        Ok(())
    }

    #[test]
    fn code_in_inner_components_is_for_the_old_world_only() -> Result<(), Box<dyn std::error::Error>> {
        let inside = "(component $inner (core module $m) (core instance (instantiate $m)))
            (instance (instantiate $inner))";
        assert_eq!(World::of(&exporting(&[OLD], inside)?)?, World::P2);
        let reason = World::of(&exporting(&[NEW], inside)?).err().unwrap_or_default();
        assert!(reason.contains("composed"), "{reason}");
        let types_only = "(component $inner) (instance (instantiate $inner))";
        assert_eq!(World::of(&exporting(&[NEW], types_only)?)?, World::P3);
        Ok(())
    }
}
