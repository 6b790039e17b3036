//! The command line: reads the arguments, runs one command, tells how it went.
//!
//! `serve`, `restore`, `compile-component` and `database-process` hand over to the server's rooms. All other commands are clients: they
//! speak to a node through its admin API and touch neither its files nor its databases, so they work the same from
//! another machine; `backup` alone also reads the node's keys and components. Errors end here: one `error: …` on stderr
//! and exit code 1, or 2 for arguments that make no sense.

mod address;
mod audit;
mod backup;
mod client;
mod completions;
mod database;
mod demo;
mod deploy;
mod dev;
mod local;
mod new;
mod output;
mod probe;
mod progress;
mod project;
mod restore;
mod split;
mod sql;
mod table;
mod tenant;
mod text;
mod token;
mod variable;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, CommandFactory as _, Parser, Subcommand};
use rustix::process::Signal;

use crate::config::Flags;
use crate::database::ProcessSize;
use crate::limits;
use crate::process_sandbox::Insistence;
use output::OutputClosed;

/// A serverless function runtime for one box: a WebAssembly component and a database per tenant.
#[derive(Debug, Parser)]
#[command(
    name = "dormouse",
    version,
    after_help = "Example, from a checkout of Dormouse:\n  dormouse demo\n\n\
                  Example, on a server:\n  \
                  dormouse serve --data /var/lib/dormouse &\n  \
                  export DORMOUSE_TOKEN_FILE=/var/lib/dormouse/keys/admin.token\n  \
                  dormouse new shop\n  \
                  dormouse tenant create acme\n  \
                  dormouse deploy acme shop"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node: the server that holds tenants, their functions and their databases
    Serve(ServeArgs),
    /// Create, list, show, recover, export and delete tenants
    Tenant(tenant::TenantArgs),
    /// Set, list and unset variables and secrets that functions read
    Variable(variable::VariableArgs),
    /// Create, list and revoke tokens of the admin API
    Token(token::TokenArgs),
    /// Show who changed what through the admin API
    Audit(audit::AuditArgs),
    /// Make a project: a function, its tests and the SDK
    New(new::NewArgs),
    /// Compile the functions of a project to components
    Build(project::BuildArgs),
    /// Upload functions for a tenant and print the addresses that call them
    Deploy(deploy::DeployArgs),
    /// Build and serve a project, and keep it current while it is edited
    Dev(dev::DevArgs),
    /// Run SQL on a tenant's database
    Sql(sql::SqlArgs),
    /// Copy a running node into a folder, and check the copy
    Backup(backup::BackupArgs),
    /// Make a data folder of a backup
    Restore(restore::RestoreArgs),
    /// See the whole of it work: start a node, deploy the guestbook, send it a webhook
    Demo(demo::DemoArgs),
    /// Print a script that completes commands and flags in a shell
    Completions(completions::CompletionsArgs),
    /// Compile a component to machine code within limits (the server calls this)
    #[command(hide = true, after_help = "Example:\n  dormouse compile-component < in.wasm > out.cwasm")]
    CompileComponent {
        /// Address space that it may take, in bytes
        #[arg(long, default_value_t = limits::COMPILE_BYTES_MAX)]
        bytes_max: u64,
        /// CPU time that it may take, in seconds
        #[arg(long, default_value_t = limits::COMPILE_CPU_TIME_MAX.as_secs())]
        cpu_seconds_max: u64,
        /// How much it insists on its sandbox
        #[arg(long, default_value = "best-effort")]
        process_sandbox: Insistence,
    },
    /// Run tenants' SQL in a process of its own (the server calls this)
    #[command(hide = true, after_help = "Example:\n  dormouse serve --database-processes 2")]
    DatabaseProcess {
        /// Threads that run SQL
        #[arg(long)]
        threads: u32,
        /// Memory that its sessions share, in bytes
        #[arg(long)]
        memory_bytes: u64,
        /// Address space that it may take, in bytes
        #[arg(long)]
        address_bytes: u64,
        /// How much it insists on its sandbox
        #[arg(long)]
        process_sandbox: Insistence,
        /// Where all databases lie
        #[arg(long)]
        folder: PathBuf,
    },
    /// Enter the sandbox of a process and tell what can still be done in it (the tests call this)
    #[command(
        hide = true,
        after_help = "Example:\n  dormouse probe-sandbox compiler data --elsewhere /etc/passwd --listen 127.0.0.1:8001 --server 127.0.0.1:8002"
    )]
    ProbeSandbox(probe::ProbeArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
                        dormouse serve --data /var/lib/dormouse --public-listen 0.0.0.0:8080\n\n\
                        The first start writes the admin token to keys/admin.token in the data folder.")]
struct ServeArgs {
    #[command(flatten)]
    flags: Box<Flags>,
    /// Drain and end when the process that started this one ends
    #[arg(long, hide = true)]
    with_parent: bool,
}

/// Runs the command that the arguments of this process name.
#[must_use]
pub fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Serve(args) => return serve(args),
        Command::CompileComponent { bytes_max, cpu_seconds_max, process_sandbox } => {
            let cpu_time_max = Duration::from_secs(cpu_seconds_max);
            return crate::catalog::compile_in_this_process(bytes_max, cpu_time_max, process_sandbox);
        }
        Command::DatabaseProcess { threads, memory_bytes, address_bytes, process_sandbox, folder } => {
            let size = ProcessSize { threads, memory_bytes, address_bytes };
            return crate::database::serve_in_this_process(size, &folder, process_sandbox);
        }
        Command::ProbeSandbox(args) => probe::run(&args),
        Command::Tenant(args) => tenant::run(&args),
        Command::Variable(args) => variable::run(&args),
        Command::Token(args) => token::run(&args),
        Command::Audit(args) => audit::run(&args),
        Command::New(args) => new::run(&args),
        Command::Build(args) => project::run_build(&args),
        Command::Deploy(args) => deploy::run(&args),
        Command::Dev(args) => dev::run(&args),
        Command::Sql(args) => sql::run(&args),
        Command::Backup(args) => backup::run(&args),
        Command::Restore(args) => restore::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Completions(args) => completions::run(&args, Cli::command()),
    };
    outcome.map_or_else(|error| report(&error), |()| ExitCode::SUCCESS)
}

fn serve(args: ServeArgs) -> ExitCode {
    if args.with_parent {
        let bound = rustix::process::set_parent_process_death_signal(Some(Signal::TERM));
        if let Err(error) = bound.context("cannot ask to be told when the parent process ends") {
            return report(&error);
        }
    }
    crate::node::serve(*args.flags)
}

fn report(error: &anyhow::Error) -> ExitCode {
    // `dormouse tenant list | head` has what it wanted.
    if error.is::<OutputClosed>() {
        return ExitCode::SUCCESS;
    }
    output::note(&format!("error: {error:#}"));
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_an_example() {
        let mut left = vec![Cli::command()];
        while let Some(command) = left.pop() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Example"), "{} has no example", command.get_name());
            left.extend(command.get_subcommands().cloned());
        }
    }
}
