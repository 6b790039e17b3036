//! A function project: what its manifest says, and `dormouse build`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;

use super::output;
use crate::manifest::{self, FunctionManifest, Manifest};
use crate::name::FunctionName;
use crate::toolchain::{Progress, Recipe};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
                        dormouse build\n  \
                        dormouse build functions/guestbook\n  \
                        dormouse build --function page\n\n\
                        The last lines of the output are the components' paths, one for each function.")]
pub(super) struct BuildArgs {
    /// The project's folder: one with a dormouse.toml, or a Rust package that is a cdylib
    #[arg(default_value = ".")]
    path: PathBuf,
    /// Build only this function of the manifest
    #[arg(long, value_name = "NAME")]
    function: Option<FunctionName>,
}

pub(super) fn run_build(args: &BuildArgs) -> anyhow::Result<()> {
    let project = Project::load(&args.path, args.function.as_ref())?;
    for function in &project.functions {
        let component = function.build(&mut output::note)?;
        output::lines(&component.display().to_string())?;
    }
    Ok(())
}

/// A project's functions, by name.
#[derive(Debug)]
pub(super) struct Project {
    pub(super) functions: Vec<Function>,
}

/// A function of a project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Function {
    pub(super) name: FunctionName,
    /// The manifest's folder, which its paths are relative to.
    project: PathBuf,
    /// Its section; `None` where the project has no manifest.
    pub(super) manifest: Option<FunctionManifest>,
}

impl Project {
    /// Reads the project in a folder. One without a manifest is one Rust package, and its function has the name that
    /// was asked for.
    pub(super) fn load(folder: &Path, only: Option<&FunctionName>) -> anyhow::Result<Self> {
        if !folder.exists() {
            bail!("there is neither a component nor a project at {}", folder.display());
        }
        if !folder.is_dir() {
            bail!("{} is not the folder of a project; `dormouse deploy` takes components", folder.display());
        }
        let file = folder.join(manifest::FILE_NAME);
        if !file.exists() {
            let name = function_or_main(only);
            let function = Function { name, project: folder.to_owned(), manifest: None };
            return Ok(Self { functions: vec![function] });
        }
        let text =
            std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let manifest = Manifest::parse(&text).with_context(|| format!("{}", file.display()))?;
        let functions = manifest.functions.into_iter().map(|(name, section)| Function {
            name,
            project: folder.to_owned(),
            manifest: Some(section),
        });
        Self { functions: functions.collect() }.limited_to(only, &file)
    }

    fn limited_to(mut self, only: Option<&FunctionName>, file: &Path) -> anyhow::Result<Self> {
        let Some(only) = only else { return Ok(self) };
        let names: Vec<String> = self.functions.iter().map(|function| function.name.to_string()).collect();
        self.functions.retain(|function| function.name == *only);
        if self.functions.is_empty() {
            bail!("{} has no function {only}; it has {}", file.display(), names.join(", "));
        }
        Ok(self)
    }
}

impl Function {
    /// How it becomes a component, with whatever must be set up first.
    pub(super) fn recipe(&self, progress: Progress<'_>) -> anyhow::Result<Recipe> {
        let folder = self.folder();
        if !folder.is_dir() {
            bail!(
                "the function {} has no folder {}, where the manifest says it is",
                self.name,
                folder.display()
            );
        }
        Ok(match (self.build_command(), self.component()) {
            (Some(command), Some(component)) => {
                Recipe::Shell { folder, command: command.to_owned(), component }
            }
            (None, Some(component)) => Recipe::Finished { component },
            (_, None) => Recipe::cargo(folder, progress)?,
        })
    }

    /// Builds it and gives the component's path.
    pub(super) fn build(&self, progress: Progress<'_>) -> anyhow::Result<PathBuf> {
        Ok(self.recipe(progress)?.follow(progress)?)
    }

    /// The folder that it is built in.
    pub(super) fn folder(&self) -> PathBuf {
        match self.manifest.as_ref().and_then(|manifest| manifest.path.as_deref()) {
            Some(path) => self.project.join(path),
            None => self.project.clone(),
        }
    }

    /// What is to be watched for a change of it.
    pub(super) fn watched(&self) -> Vec<PathBuf> {
        let named = self.manifest.as_ref().map(|manifest| manifest.watch.as_slice()).unwrap_or_default();
        match (named, self.build_command(), self.component()) {
            ([], None, Some(component)) => vec![component],
            ([], _, _) => vec![self.folder()],
            (named, _, _) => named.iter().map(|path| self.project.join(path)).collect(),
        }
    }

    /// The component, where the manifest says which file it is.
    pub(super) fn component(&self) -> Option<PathBuf> {
        let component = self.manifest.as_ref()?.component.as_deref()?;
        Some(self.project.join(component))
    }

    fn build_command(&self) -> Option<&str> {
        self.manifest.as_ref()?.build.as_deref()
    }
}

/// The name that was asked for, or the one that every function has who is alone.
pub(super) fn function_or_main(asked: Option<&FunctionName>) -> FunctionName {
    asked.cloned().unwrap_or_else(FunctionName::main)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project(manifest: Option<&str>) -> anyhow::Result<tempfile::TempDir> {
        let folder = tempfile::tempdir()?;
        if let Some(text) = manifest {
            std::fs::write(folder.path().join(manifest::FILE_NAME), text)?;
        }
        Ok(folder)
    }

    #[test]
    fn a_folder_without_a_manifest_is_one_function() -> anyhow::Result<()> {
        let folder = project(None)?;
        let names = |only: Option<&FunctionName>| -> anyhow::Result<Vec<String>> {
            Ok(Project::load(folder.path(), only)?.functions.iter().map(|f| f.name.to_string()).collect())
        };
        assert_eq!(names(None)?, ["fn"]);
        assert_eq!(names(Some(&"page".parse()?))?, ["page"]);
        Ok(())
    }

    #[test]
    fn one_function_of_a_manifest_can_be_chosen() -> anyhow::Result<()> {
        let folder = project(Some("[functions.fn]\n[functions.page]\npath = \"page\"\n"))?;
        let page = Project::load(folder.path(), Some(&"page".parse()?))?;
        assert_eq!(page.functions.len(), 1);
        let page = page.functions.first().context("no page")?;
        assert_eq!(page.folder(), folder.path().join("page"));
        let told = Project::load(folder.path(), Some(&"pages".parse()?)).err().map(|error| error.to_string());
        assert!(told.is_some_and(|told| told.ends_with("has no function pages; it has fn, page")));
        Ok(())
    }

    #[test]
    fn a_recipe_is_what_the_manifest_says() -> anyhow::Result<()> {
        let text = "[functions.made]\nbuild = \"make\"\ncomponent = \"a.wasm\"\n[functions.there]\n\
                    component = \"b.wasm\"\n[functions.rust]\n[functions.lost]\npath = \"nowhere\"\n";
        let folder = project(Some(text))?;
        let recipe = |name: &str| -> anyhow::Result<Recipe> {
            let project = Project::load(folder.path(), Some(&name.parse()?))?;
            project.functions.first().context("none")?.recipe(&mut |_| ())
        };
        let component = folder.path().join("a.wasm");
        let made = Recipe::Shell { folder: folder.path().to_owned(), command: "make".to_owned(), component };
        assert_eq!(recipe("made")?, made);
        assert_eq!(recipe("there")?, Recipe::Finished { component: folder.path().join("b.wasm") });
        for (name, part) in [("rust", "not a function project"), ("lost", "nowhere")] {
            let told = recipe(name).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(told.contains(part), "{name}: {told}");
        }
        Ok(())
    }

    #[test]
    fn what_is_watched_can_be_chosen() -> anyhow::Result<()> {
        let text = "[functions.all]\npath = \"all\"\n[functions.some]\nwatch = [\"src\", \"../shared\"]\n\
                    [functions.there]\ncomponent = \"b.wasm\"\n";
        let folder = project(Some(text))?;
        let watched = |name: &str| -> anyhow::Result<Vec<PathBuf>> {
            let project = Project::load(folder.path(), Some(&name.parse()?))?;
            Ok(project.functions.first().context("none")?.watched())
        };
        let below = |name: &str| folder.path().join(name);
        assert_eq!(watched("all")?, [below("all")]);
        assert_eq!(watched("some")?, [below("src"), below("../shared")]);
        assert_eq!(watched("there")?, [below("b.wasm")]);
        Ok(())
    }
}
