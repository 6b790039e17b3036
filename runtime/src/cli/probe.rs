//! `dormouse probe-sandbox`: enters the sandbox of a process, tries what an attacker would, and tells what was refused.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::{Args, ValueEnum};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, chroot, getpid, pidfd_getfd, pidfd_open};

use super::output;
use crate::process_sandbox::{self, Insistence, Profile};

#[derive(Debug, Args)]
pub(super) struct ProbeArgs {
    /// Whose sandbox
    profile: ProfileName,
    /// The data folder, with a file `there`
    data: PathBuf,
    /// A file outside of it
    #[arg(long)]
    elsewhere: PathBuf,
    /// Where the process may listen
    #[arg(long)]
    listen: SocketAddr,
    /// Where somebody else listens
    #[arg(long)]
    server: SocketAddr,
    /// How much the process insists on its sandbox
    #[arg(long, default_value = "required")]
    process_sandbox: Insistence,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ProfileName {
    Node,
    Compiler,
    Database,
}

pub(super) fn run(args: &ProbeArgs) -> anyhow::Result<()> {
    let ports = [args.listen.port()];
    let profile = match args.profile {
        ProfileName::Node => Profile::Node { data: &args.data, ports: &ports },
        ProfileName::Compiler => Profile::Compiler,
        ProfileName::Database => Profile::Database { folder: &args.data },
    };
    let program = std::env::current_exe()?;
    process_sandbox::apply(profile, args.process_sandbox)?;
    for (action, outcome) in attempts(args, &program) {
        let told = outcome.map_or_else(|error| format!("refused: {error}"), |()| "done".to_owned());
        output::lines(&format!("{action}: {told}"))?;
    }
    Ok(())
}

fn attempts(args: &ProbeArgs, program: &Path) -> Vec<(&'static str, io::Result<()>)> {
    let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
    vec![
        ("read its data", std::fs::read(args.data.join("there")).map(drop)),
        ("write its data", std::fs::write(args.data.join("new"), "new")),
        ("link in its data", symlink("there", args.data.join("link"))),
        ("read elsewhere", std::fs::read(&args.elsewhere).map(drop)),
        ("write elsewhere", std::fs::OpenOptions::new().append(true).open(&args.elsewhere).map(drop)),
        ("start itself", start(Command::new(program).arg("--version"))),
        ("start a shell", start(Command::new("/bin/sh").args(["-c", "true"]))),
        ("start a thread", std::thread::Builder::new().spawn(|| ()).map(drop)),
        ("listen where it may", TcpListener::bind(args.listen).map(drop)),
        ("listen elsewhere", TcpListener::bind(any_port).map(drop)),
        ("connect", TcpStream::connect(args.server).map(drop)),
        ("take a descriptor", take_descriptor()),
        ("change its root", chroot("/").map_err(io::Error::from)),
    ]
}

fn start(command: &mut Command) -> io::Result<()> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().map(drop)
}

/// As a debugger would, of this very process.
fn take_descriptor() -> io::Result<()> {
    let own = pidfd_open(getpid(), PidfdFlags::empty())?;
    pidfd_getfd(own, 0, PidfdGetfdFlags::empty())?;
    Ok(())
}
