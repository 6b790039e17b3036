//! Compiling: in a process of its own, with limits on its memory and time, because a component can be made to
//! compile for ever.

use std::path::Path;
use std::process::{ExitCode, Stdio};

use rustix::process::{Resource, Rlimit, setrlimit};
use tokio::process::Command;

use super::CatalogError;
use crate::limits;
use crate::sandbox::{self, World};

/// The subcommand of this program that [`compile_in_this_process`] is behind.
const SUBCOMMAND: &str = "compile-component";

/// Exit code for input that is no valid component; `EX_DATAERR` of sysexits.h.
const BAD_COMPONENT: u8 = 65;

/// Compiles `component` to `output` with the program `compiler`, which tells the world that it compiled it for.
pub(super) async fn compile(compiler: &Path, component: &Path, output: &Path) -> Result<World, CatalogError> {
    let process = Command::new(compiler)
        .arg(SUBCOMMAND)
        .arg(component)
        .arg(output)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let wall_time_max = limits::COMPILE_CPU_TIME_MAX * 2;
    let Ok(done) = tokio::time::timeout(wall_time_max, process.wait_with_output()).await else {
        return Err(too_costly());
    };
    let done = done?;
    let said = String::from_utf8_lossy(&done.stderr).trim().to_owned();
    match done.status.code() {
        Some(0) => World::parse(String::from_utf8_lossy(&done.stdout).trim())
            .ok_or_else(|| CatalogError::Storage("the compiler named no world".to_owned())),
        Some(code) if code == i32::from(BAD_COMPONENT) => Err(CatalogError::Unsupported(said)),
        Some(code) => Err(CatalogError::Storage(format!("the compiler exited with {code}: {said}"))),
        None => Err(too_costly()),
    }
}

fn too_costly() -> CatalogError {
    CatalogError::TooCostly(format!(
        "compiling the component took more than {} s of CPU time or {} MiB of memory",
        limits::COMPILE_CPU_TIME_MAX.as_secs(),
        limits::COMPILE_BYTES_MAX >> 20
    ))
}

/// What the compiler's process does: limits itself, compiles `component`, writes `output` and prints the world.
#[must_use]
pub fn compile_in_this_process(component: &Path, output: &Path) -> ExitCode {
    let bound = |resource, limit| {
        setrlimit(resource, Rlimit { current: Some(limit), maximum: Some(limit) })
            .map_err(std::io::Error::from)
    };
    let work = || -> anyhow::Result<Result<World, String>> {
        bound(Resource::As, limits::COMPILE_BYTES_MAX)?;
        bound(Resource::Cpu, limits::COMPILE_CPU_TIME_MAX.as_secs())?;
        bound(Resource::Core, 0)?;
        let component = std::fs::read(component)?;
        match sandbox::compile(&component)? {
            Ok(code) => {
                std::fs::write(output, code.bytes)?;
                Ok(Ok(code.world))
            }
            Err(reason) => Ok(Err(reason)),
        }
    };
    match work() {
        Ok(Ok(world)) => {
            println!("{world}");
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
