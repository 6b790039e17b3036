//! The 0.2 world: what its components may import, and the one call that is a request.

use wasmtime::component::{InstancePre, Linker};
use wasmtime::{Engine, Store};
use wasmtime_wasi_http::WasiHttpView as _;
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;

use super::RequestBody;
use super::body::Head;
use super::guest::Guest;
use super::outgoing;
use super::sqlite::{self, HasDatabase};
use super::variables::{self, HasVariables};

/// A component of this world, one step from an instance.
pub(super) struct Linked(ProxyPre<Guest>);

/// Everything a component of this world may import.
pub(super) fn linker(engine: &Engine) -> anyhow::Result<Linker<Guest>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    outgoing::name_body_errors(&mut linker)?;
    sqlite::v3_0::add_to_linker::<Guest, HasDatabase>(&mut linker, Guest::database)?;
    sqlite::v2::add_to_linker::<Guest, HasDatabase>(&mut linker, Guest::database)?;
    variables::add_to_linker::<Guest, HasVariables>(&mut linker, Guest::variables)?;
    Ok(linker)
}

impl Linked {
    /// Nothing when the component exports no handler of this world.
    pub(super) fn new(linked: InstancePre<Guest>) -> Option<Self> {
        ProxyPre::new(linked).map(Self).ok()
    }

    /// Runs a guest to its end.
    pub(super) async fn call(
        &self,
        store: &mut Store<Guest>,
        request: http::Request<RequestBody>,
        head: Head,
    ) -> wasmtime::Result<()> {
        let is_https = request.uri().scheme() == Some(&http::uri::Scheme::HTTPS);
        let scheme = if is_https { Scheme::Https } else { Scheme::Http };
        let mut http = store.data_mut().http();
        let request = http.new_incoming_request(scheme, request)?;
        let response = http.new_response_outparam_from_callback(move |answer| head.send(answer))?;
        let proxy = self.0.instantiate_async(&mut *store).await?;
        proxy.wasi_http_incoming_handler().call_handle(store, request, response).await
    }
}
