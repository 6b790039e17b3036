//! Compiling: in a process of its own, with limits on its memory and time, because a component can be made to
//! compile for ever.
//!
//! Its standard input is the component and its standard output the file for the machine code: it opens nothing, and its
//! sandbox lets it open nothing. What it says, it says on standard error: the world, or what is wrong.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::process::Command;

use super::{CatalogError, bounds};
use crate::limits;
use crate::memory::{Budget, Charge, Exhausted};
use crate::process_sandbox::{self, Insistence, Profile};
use crate::sandbox::{self as guests, World};

/// The subcommand of this program that [`compile_in_this_process`] is behind.
const SUBCOMMAND: &str = "compile-component";

/// Exit code for input that is no valid component; `EX_DATAERR` of sysexits.h.
const BAD_COMPONENT: u8 = 65;

/// The program that compiles, and what it may take.
pub struct Compiler {
    program: PathBuf,
    limits: CompilerLimits,
    memory: Arc<Budget>,
}

/// What one compilation may take.
#[derive(Debug, Clone, Copy)]
pub struct CompilerLimits {
    /// Address space, in bytes.
    pub bytes_max: u64,
    /// What of it is charged to the node's memory while it runs.
    pub bytes_charged: u64,
    /// CPU time, in whole seconds.
    pub cpu_time_max: Duration,
    /// How much it insists on its sandbox.
    pub sandbox: Insistence,
}

impl Compiler {
    /// `program` within limits, whose memory is charged to `memory`.
    #[must_use]
    pub fn new(program: PathBuf, limits: CompilerLimits, memory: Arc<Budget>) -> Self {
        Self { program, limits, memory }
    }

    pub(super) fn charge(&self) -> Result<Charge, Exhausted> {
        self.memory.charge(self.limits.bytes_charged)
    }

    /// Compiles `component` to `output`, and tells the world that it is for.
    pub(super) async fn compile(&self, component: &Path, output: &Path) -> Result<World, CatalogError> {
        let component = tokio::fs::File::open(component).await?.into_std().await;
        let output = tokio::fs::File::options().write(true).open(output).await?.into_std().await;
        let process = Command::new(&self.program)
            .arg(SUBCOMMAND)
            .arg("--bytes-max")
            .arg(self.limits.bytes_max.to_string())
            .arg("--cpu-seconds-max")
            .arg(self.limits.cpu_time_max.as_secs().to_string())
            .arg("--process-sandbox")
            .arg(self.limits.sandbox.as_str())
            .env_clear()
            .env("RAYON_NUM_THREADS", threads(self.limits.bytes_max).to_string())
            .stdin(component)
            .stdout(output)
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let wall_time_max = self.limits.cpu_time_max * 2;
        let Ok(done) = tokio::time::timeout(wall_time_max, process.wait_with_output()).await else {
            return Err(self.too_costly());
        };
        let done = done?;
        let said = String::from_utf8_lossy(&done.stderr).trim().to_owned();
        match done.status.code() {
            Some(0) => World::parse(&said)
                .ok_or_else(|| CatalogError::Storage("the compiler named no world".to_owned())),
            Some(code) if code == i32::from(BAD_COMPONENT) => Err(CatalogError::Unsupported(said)),
            Some(code) => Err(CatalogError::Storage(format!("the compiler exited with {code}: {said}"))),
            None => Err(self.too_costly()),
        }
    }

    fn too_costly(&self) -> CatalogError {
        CatalogError::TooCostly(format!(
            "compiling the component took more than {} s of CPU time (compile_cpu_time_max_ms), {} MiB of address space \
             (it follows from memory) or {} MiB of machine code; make it smaller, or give the node more",
            self.limits.cpu_time_max.as_secs(),
            self.limits.bytes_max >> 20,
            limits::COMPILED_BYTES_MAX >> 20
        ))
    }
}

/// As many threads as there are cores, if each has room for what it works on, its stack and what it allocates.
fn threads(bytes_max: u64) -> u64 {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    cores.min(bytes_max / limits::COMPILE_THREAD_BYTES).max(1)
}

/// What the compiler's process does: limits itself, and compiles what it is given.
#[must_use]
pub fn compile_in_this_process(bytes_max: u64, cpu_time_max: Duration, sandbox: Insistence) -> ExitCode {
    let work = || -> anyhow::Result<Result<World, String>> {
        bounds::bind(bytes_max, cpu_time_max)?;
        let (mut input, mut output) = (file_of(&std::io::stdin())?, file_of(&std::io::stdout())?);
        process_sandbox::apply(Profile::Compiler, sandbox)?;
        let mut component = Vec::new();
        input.read_to_end(&mut component)?;
        match guests::compile(&component)? {
            Ok(code) => {
                output.write_all(&code.bytes)?;
                Ok(Ok(code.world))
            }
            Err(reason) => Ok(Err(reason)),
        }
    };
    match work() {
        Ok(Ok(world)) => {
            eprintln!("{world}");
            ExitCode::SUCCESS
        }
        Ok(Err(reason)) => {
            eprintln!("{reason}");
            ExitCode::from(BAD_COMPONENT)
        }
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A standard stream without its buffer.
fn file_of(stream: &impl AsFd) -> std::io::Result<File> {
    Ok(File::from(stream.as_fd().try_clone_to_owned()?))
}
