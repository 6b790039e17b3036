//! Recipes: how one function becomes a component.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::{Progress, ToolchainError, WASM_TARGET, WasmTarget, build, ensure_wasm_target, process};

/// How a function becomes a component. It can be followed again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recipe {
    /// cargo compiles the package in a folder.
    Cargo {
        /// A package of its own, or a member of a workspace.
        folder: PathBuf,
        /// Proof that it can be compiled.
        target: WasmTarget,
    },
    /// A command of the project's own builds it.
    Shell {
        /// Where the command runs.
        folder: PathBuf,
        /// The command, for `sh -c`.
        command: String,
        /// The file that it makes.
        component: PathBuf,
    },
    /// Somebody else builds it.
    Finished {
        /// The file.
        component: PathBuf,
    },
}

impl Recipe {
    /// The recipe for a Rust package, with whatever must be set up first.
    ///
    /// # Errors
    /// When the folder has no `Cargo.toml`, or nothing can be compiled on this machine.
    pub fn cargo(folder: PathBuf, progress: Progress<'_>) -> Result<Self, ToolchainError> {
        if !folder.join("Cargo.toml").is_file() {
            return Err(ToolchainError::NoManifest(folder));
        }
        let target = ensure_wasm_target(&folder, progress)?;
        Ok(Self::Cargo { folder, target })
    }

    /// What following it means, for people.
    #[must_use]
    pub fn announcement(&self) -> Option<String> {
        match self {
            Self::Cargo { folder, .. } => Some(format!("compiling {} for {WASM_TARGET}", folder.display())),
            Self::Shell { folder, command, .. } => {
                Some(format!("running `{command}` in {}", folder.display()))
            }
            Self::Finished { .. } => None,
        }
    }

    /// The command to run, if there is one. Its standard output is piped, and for [`Self::component`]; what the
    /// compiler says goes to the terminal.
    #[must_use]
    pub fn command(&self) -> Option<Command> {
        match self {
            Self::Cargo { folder, target } => Some(build::command(target, folder)),
            Self::Shell { folder, command, .. } => {
                let mut shell = process::clean_command("sh", folder);
                // Of the results of a build only the component's path is for this program's standard output.
                shell.args(["-c", &format!("exec 1>&2; {command}")]);
                shell.stdout(Stdio::piped()).stderr(Stdio::inherit());
                Some(shell)
            }
            Self::Finished { .. } => None,
        }
    }

    /// The component, once the command has ended.
    ///
    /// # Errors
    /// When the command failed, or made no component.
    pub fn component(&self, ended: Option<&Output>) -> Result<PathBuf, ToolchainError> {
        let status = ended.map(|ended| ended.status);
        let failed = status.filter(|status| !status.success());
        match self {
            Self::Cargo { folder, target } => {
                if let Some(status) = failed {
                    let command = process::shown(&build::command(target, folder));
                    return Err(ToolchainError::Compile { command, status });
                }
                let messages = ended.map(|ended| String::from_utf8_lossy(&ended.stdout)).unwrap_or_default();
                build::component(folder, &messages)
            }
            Self::Shell { folder, command, component } => match failed {
                Some(status) => Err(ToolchainError::BuildCommand {
                    command: command.clone(),
                    folder: folder.clone(),
                    status,
                }),
                None => there(component),
            },
            Self::Finished { component } => there(component),
        }
    }

    /// Follows it to the end.
    ///
    /// # Errors
    /// As [`Self::component`].
    pub fn follow(&self, progress: Progress<'_>) -> Result<PathBuf, ToolchainError> {
        if let Some(announcement) = self.announcement() {
            progress(&announcement);
        }
        let ended = self.command().map(|mut command| process::capture(&mut command)).transpose()?;
        self.component(ended.as_ref())
    }
}

fn there(component: &Path) -> Result<PathBuf, ToolchainError> {
    let component = component.to_owned();
    if component.is_file() { Ok(component) } else { Err(ToolchainError::NoComponent(component)) }
}

#[cfg(test)]
mod tests {
    use super::super::error::words_of;
    use super::*;

    fn shell(folder: &Path, command: &str) -> Recipe {
        let component = folder.join("fn.wasm");
        Recipe::Shell { folder: folder.to_owned(), command: command.to_owned(), component }
    }

    #[test]
    fn a_command_makes_the_component() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let recipe = shell(folder.path(), "printf x > fn.wasm && echo done");
        let mut said = Vec::new();
        let component = recipe.follow(&mut |line| said.push(line.to_owned()))?;
        assert_eq!(std::fs::read(component)?, b"x");
        assert!(said.concat().contains("running `printf x"), "{said:?}");
        Ok(())
    }

    #[test]
    fn a_command_that_fails_or_makes_nothing_is_told() -> std::io::Result<()> {
        let folder = tempfile::tempdir()?;
        let failed = words_of(shell(folder.path(), "exit 3").follow(&mut |_| ()));
        assert!(failed.contains("`exit 3` failed") && failed.contains("exit status: 3"), "{failed}");
        let nothing = words_of(shell(folder.path(), "true").follow(&mut |_| ()));
        assert!(nothing.contains("no component at") && nothing.contains("fn.wasm"), "{nothing}");
        let finished = Recipe::Finished { component: folder.path().join("other.wasm") };
        assert!(words_of(finished.follow(&mut |_| ())).contains("other.wasm"));
        Ok(())
    }

    #[test]
    fn a_folder_without_a_package_is_refused_before_anything_runs() -> std::io::Result<()> {
        let folder = tempfile::tempdir()?;
        let error = words_of(Recipe::cargo(folder.path().to_owned(), &mut |_| ()));
        assert!(error.contains("is not a function project"), "{error}");
        Ok(())
    }
}
