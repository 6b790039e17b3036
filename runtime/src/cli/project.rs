//! `dormouse build` and `dormouse deploy`: from a function project to an address that answers.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::Value;

use super::address::{own_host, public_base};
use super::client::{Client, ClientOptions};
use super::{output, text};
use crate::name::{FunctionName, TenantName};
use crate::toolchain;

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  dormouse build functions/guestbook\n\n\
                        The last line of the output is the component's path.")]
pub(super) struct BuildArgs {
    /// The project's folder: a Rust package, a cdylib
    #[arg(default_value = ".")]
    path: PathBuf,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
                        dormouse deploy acme functions/guestbook\n  \
                        dormouse deploy acme hello.wasm --function hello\n\n\
                        The last line of the output is the address to call.")]
pub(super) struct DeployArgs {
    /// The tenant that gets the function
    tenant: TenantName,
    /// A component (a .wasm file), or a project's folder, which is built first
    #[arg(default_value = ".")]
    path: PathBuf,
    /// The function's name, the last part of its address
    #[arg(long, value_name = "NAME", default_value = "fn")]
    function: FunctionName,
    #[command(flatten)]
    client: ClientOptions,
}

pub(super) fn run_build(args: &BuildArgs) -> anyhow::Result<()> {
    let component = build(&args.path, &mut output::note)?;
    output::lines(&component.display().to_string())
}

pub(super) fn run_deploy(args: &DeployArgs) -> anyhow::Result<()> {
    // A missing token should not wait for the compiler.
    let client = args.client.client()?;
    let path = &args.path;
    let component = if path.is_file() { path.clone() } else { build(path, &mut output::note)? };
    let deployed = deploy(&client, &args.tenant, &args.function, &component)?;
    let bytes = deployed.get("bytes").and_then(Value::as_u64).unwrap_or_default();
    output::note(&format!("deployed {} to {}: {}", component.display(), args.tenant, text::size(bytes)));
    if args.function == FunctionName::main()
        && let Some(host) = own_host(client.node(), &client.get("/v1/node")?, &args.tenant)
    {
        output::note(&format!("its pages have an origin of their own at {host}"));
    }
    output::lines(&address(&client, &args.tenant, &args.function)?)
}

/// Compiles the project in `folder`, with whatever must be set up first, and gives the component's path.
pub(super) fn build(folder: &Path, progress: toolchain::Progress<'_>) -> anyhow::Result<PathBuf> {
    if !folder.exists() {
        bail!("there is neither a component nor a project at {}", folder.display());
    }
    if !folder.is_dir() {
        bail!("{} is not the folder of a project; `dormouse deploy` takes components", folder.display());
    }
    let target = toolchain::ensure_wasm_target(folder, progress)?;
    Ok(toolchain::build(folder, &target, progress)?.component)
}

/// Uploads a component.
pub(super) fn deploy(
    client: &Client,
    tenant: &TenantName,
    function: &FunctionName,
    component: &Path,
) -> anyhow::Result<Value> {
    let bytes = std::fs::read(component).with_context(|| format!("cannot read {}", component.display()))?;
    client
        .put_component(&format!("/v1/tenants/{tenant}/functions/{function}"), &bytes)
        .with_context(|| format!("cannot deploy {} to {tenant}", component.display()))
}

/// The address that calls the function.
pub(super) fn address(
    client: &Client,
    tenant: &TenantName,
    function: &FunctionName,
) -> anyhow::Result<String> {
    let answer = client.get("/v1/node")?;
    let base = public_base(client.node(), &answer)
        .context("the node does not tell its public address; is this program older than the node?")?;
    Ok(format!("{base}/t/{tenant}/{function}"))
}
