//! `dormouse deploy`: from a component or a project to addresses that answer.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use serde_json::Value;

use super::address::{own_host, public_base};
use super::client::{Client, ClientOptions};
use super::project::{Project, function_or_main};
use super::{output, text};
use crate::manifest::FunctionManifest;
use crate::name::{FunctionName, TenantName};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
                        dormouse deploy acme\n  \
                        dormouse deploy acme functions/guestbook\n  \
                        dormouse deploy acme hello.wasm --function hello\n\n\
                        The last lines of the output are the addresses to call, one for each function.")]
pub(super) struct DeployArgs {
    /// The tenant that gets the functions
    tenant: TenantName,
    /// A project's folder, whose functions are built first, or a component (a .wasm file)
    #[arg(default_value = ".")]
    path: PathBuf,
    /// Deploy only this function of the manifest; without a manifest, the function's name, the last part of its
    /// address [default: fn]
    #[arg(long, value_name = "NAME")]
    function: Option<FunctionName>,
    #[command(flatten)]
    client: ClientOptions,
}

/// A component that is ready to be uploaded.
struct Ready {
    function: FunctionName,
    component: PathBuf,
    manifest: Option<FunctionManifest>,
}

pub(super) fn run(args: &DeployArgs) -> anyhow::Result<()> {
    // A missing token should not wait for the compiler.
    let client = args.client.client()?;
    // Everything is built before anything is deployed.
    for Ready { function, component, manifest } in ready(args)? {
        let deployed = upload(&client, &args.tenant, &function, &component, manifest.as_ref())?;
        let size = text::size(deployed.get("bytes").and_then(Value::as_u64).unwrap_or_default());
        output::note(&format!("deployed {} to {} as {function}: {size}", component.display(), args.tenant));
        if function == FunctionName::main()
            && let Some(host) = own_host(client.node(), &client.get("/v1/node")?, &args.tenant)
        {
            output::note(&format!("its pages have an origin of their own at {host}"));
        }
        output::lines(&address(&client, &args.tenant, &function)?)?;
    }
    Ok(())
}

fn ready(args: &DeployArgs) -> anyhow::Result<Vec<Ready>> {
    if args.path.is_file() {
        let function = function_or_main(args.function.as_ref());
        return Ok(vec![Ready { function, component: args.path.clone(), manifest: None }]);
    }
    let project = Project::load(&args.path, args.function.as_ref())?;
    let build = |function: super::project::Function| {
        let component = function.build(&mut output::note)?;
        Ok(Ready { function: function.name, component, manifest: function.manifest })
    };
    project.functions.into_iter().map(build).collect()
}

/// Uploads a component, with the section of the manifest that it was built by.
pub(super) fn upload(
    client: &Client,
    tenant: &TenantName,
    function: &FunctionName,
    component: &Path,
    manifest: Option<&FunctionManifest>,
) -> anyhow::Result<Value> {
    let bytes = std::fs::read(component).with_context(|| format!("cannot read {}", component.display()))?;
    client
        .put_component(&format!("/v1/tenants/{tenant}/functions/{function}"), &bytes, manifest)
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
