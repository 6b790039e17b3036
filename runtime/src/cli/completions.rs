//! `dormouse completions`: what makes a shell complete this program's commands and flags.

use clap::{Args, Command};
use clap_complete::{Shell, generate};

use super::output;

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    dormouse completions bash > ~/.local/share/bash-completion/completions/dormouse\n  \
    dormouse completions zsh > ~/.zfunc/_dormouse\n  \
    dormouse completions fish > ~/.config/fish/completions/dormouse.fish\n\n\
    For zsh, ~/.zshrc needs `fpath+=~/.zfunc` before its `compinit`.")]
pub(super) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

pub(super) fn run(args: &CompletionsArgs, mut program: Command) -> anyhow::Result<()> {
    let name = program.get_name().to_owned();
    // In memory first: the generator panics when a write fails, as it does for `| head`.
    let mut script = Vec::new();
    generate(args.shell, &mut program, name, &mut script);
    output::lines(&String::from_utf8(script)?)
}
