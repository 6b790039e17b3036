//! The 0.3 world: what its components may import, and a request as a call that runs beside the guest's other tasks.

use std::future::poll_fn;

use tokio::sync::oneshot;
use wasmtime::component::{Accessor, InstancePre, Linker};
use wasmtime::{Engine, Store};
use wasmtime_wasi_http::p3::Request;
use wasmtime_wasi_http::p3::bindings::{Service, ServicePre};
use wasmtime_wasi_http::{Error as HttpError, FieldMap, WasiHttpView as _};

use super::RequestBody;
use super::body::Head;
use super::guest::Guest;
use super::outgoing;
use super::sqlite::{self, HasDatabase};
use super::variables::{self, HasVariables};

/// A component of this world, one step from an instance.
pub(super) struct Linked(ServicePre<Guest>);

/// Everything a component of this world may import: 0.2 as well, because std uses that.
pub(super) fn linker(engine: &Engine) -> anyhow::Result<Linker<Guest>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    outgoing::name_body_errors(&mut linker)?;
    wasmtime_wasi::p3::add_to_linker(&mut linker)?;
    wasmtime_wasi_http::p3::add_to_linker(&mut linker)?;
    sqlite::v3_1::add_to_linker::<Guest, HasDatabase>(&mut linker, Guest::database)?;
    sqlite::v2::add_to_linker::<Guest, HasDatabase>(&mut linker, Guest::database)?;
    variables::add_to_linker::<Guest, HasVariables>(&mut linker, Guest::variables)?;
    Ok(linker)
}

impl Linked {
    /// Nothing when the component exports no handler of this world.
    pub(super) fn new(linked: InstancePre<Guest>) -> Option<Self> {
        ServicePre::new(linked).map(Self).ok()
    }

    /// Runs a guest until its last task has ended: the call, what writes the body, work after the response.
    pub(super) async fn call(
        &self,
        store: &mut Store<Guest>,
        request: http::Request<RequestBody>,
        head: Head,
    ) -> wasmtime::Result<()> {
        let request = incoming(store.data_mut(), request);
        let service = self.0.instantiate_async(&mut *store).await?;
        store
            .run_concurrent(async |accessor| {
                answer(accessor, &service, request, head).await?;
                poll_fn(|context| accessor.poll_no_interesting_tasks(context)).await;
                Ok(())
            })
            .await?
    }
}

async fn answer(
    accessor: &Accessor<Guest>,
    service: &Service,
    request: Request,
    mut head: Head,
) -> wasmtime::Result<()> {
    match service.handle(accessor, request).await? {
        Err(code) => head.send(Err::<_, _>(code)),
        Ok(response) => {
            let delivered = head.delivered();
            let response =
                accessor.with(|mut access| response.into_http(&mut access, transmission(delivered)))?;
            head.send(Ok::<_, HttpError>(response));
        }
    }
    Ok(())
}

/// What a guest is told that asks how the transmission of its response went.
async fn transmission(delivered: oneshot::Receiver<()>) -> Result<(), HttpError> {
    delivered.await.map_err(|_| HttpError::ConnectionTerminated)
}

fn incoming(guest: &mut Guest, request: http::Request<RequestBody>) -> Request {
    let (parts, body) = request.into_parts();
    let uri = parts.uri.into_parts();
    let headers = FieldMap::new_immutable(guest.http().hooks, parts.headers);
    // Whether the guest read the whole body is its own affair.
    let (request, _read) =
        Request::new(parts.method, uri.scheme, uri.authority, uri.path_and_query, headers, None, body);
    request
}
