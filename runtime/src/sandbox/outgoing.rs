//! Outgoing requests in the words of wasi:http: what [`crate::outbound`] does, for both worlds.

use std::sync::{Arc, LazyLock};

use http_body_util::BodyExt as _;
use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource};
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, IoError};
use wasmtime_wasi_http::{
    DEFAULT_FORBIDDEN_HEADERS, Error as HttpError, ForbiddenHeaderFilter, RequestOptions, WasiBody,
    WasiHttpHooks, WasiHttpView as _,
};

use super::guest::Guest;
use crate::limits;
use crate::outbound::{Caller, Failure};

/// What wasi:http leaves to its host.
pub(super) struct Hooks(Caller);

impl Hooks {
    pub(super) fn new(caller: Caller) -> Self {
        Self(caller)
    }
}

static FORBIDDEN_HEADERS: LazyLock<ForbiddenHeaderFilter> =
    LazyLock::new(|| Arc::new(|name| DEFAULT_FORBIDDEN_HEADERS.contains(name)));

type Io = Box<dyn Future<Output = Result<(), HttpError>> + Send>;

type Sent = Result<(http::Response<WasiBody>, Io), HttpError>;

impl WasiHttpHooks for Hooks {
    fn is_forbidden_header(&mut self, name: &http::HeaderName) -> bool {
        DEFAULT_FORBIDDEN_HEADERS.contains(name)
    }

    fn forbidden_header_filter(&mut self) -> ForbiddenHeaderFilter {
        FORBIDDEN_HEADERS.clone()
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        limits::RESPONSE_CHUNK_BYTES_MAX
    }

    fn p3_outgoing_body_chunk_size(&mut self) -> usize {
        limits::RESPONSE_CHUNK_BYTES_MAX
    }

    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _errors: Io,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        let asked = options.unwrap_or_default();
        let times = self.0.times().lowered_to(
            asked.connect_timeout,
            asked.first_byte_timeout,
            asked.between_bytes_timeout,
        );
        let sending = self.0.send(request, times);
        Box::new(async move {
            let answer = sending.await.map_err(code)?;
            let response = answer.response.map(|body| body.map_err(code).boxed_unsync());
            let io: Io = Box::new(async move { answer.io.await.map_err(code) });
            Ok((response, io))
        })
    }
}

/// Lets a guest of the 0.2 world ask why the body of a response broke off: wasmtime's own `http-error-code` does not
/// know the errors that wasmtime's own bodies end in.
pub(super) fn name_body_errors(linker: &mut Linker<Guest>) -> anyhow::Result<()> {
    linker.allow_shadowing(true);
    linker.instance("wasi:http/types@0.2.12")?.func_wrap(
        "http-error-code",
        |mut store: StoreContextMut<'_, Guest>, (error,): (Resource<IoError>,)| {
            let error = store.data_mut().http().table.get(&error)?;
            Ok((error.downcast_ref::<HttpError>().and_then(body_error),))
        },
    )?;
    linker.allow_shadowing(false);
    Ok(())
}

fn body_error(error: &HttpError) -> Option<ErrorCode> {
    Some(match error {
        HttpError::HttpRequestBodySize(most) => ErrorCode::HttpRequestBodySize(*most),
        HttpError::HttpResponseBodySize(most) => ErrorCode::HttpResponseBodySize(*most),
        HttpError::HttpResponseHeaderSectionSize(most) => ErrorCode::HttpResponseHeaderSectionSize(*most),
        HttpError::ConnectionReadTimeout => ErrorCode::ConnectionReadTimeout,
        HttpError::HttpResponseTimeout => ErrorCode::HttpResponseTimeout,
        HttpError::HttpResponseIncomplete => ErrorCode::HttpResponseIncomplete,
        HttpError::HttpProtocolError => ErrorCode::HttpProtocolError,
        _ => return None,
    })
}

/// What a guest is told.
fn code(failure: Failure) -> HttpError {
    match failure {
        Failure::Denied => HttpError::HttpRequestDenied,
        Failure::Prohibited { .. } => HttpError::DestinationIpProhibited,
        Failure::Destination(_) => HttpError::HttpRequestUriInvalid,
        Failure::Method => HttpError::HttpRequestMethodInvalid,
        Failure::TooMany(_) | Failure::TooManyAtOnce(_) | Failure::NodeBusy(_) | Failure::NodeMemory(_) => {
            HttpError::ConnectionLimitReached
        }
        Failure::RequestBytes(most) => HttpError::HttpRequestBodySize(Some(most)),
        Failure::ResponseBytes(most) => HttpError::HttpResponseBodySize(Some(most)),
        Failure::ResponseHead => HttpError::HttpResponseHeaderSectionSize(None),
        Failure::NoSuchName => HttpError::DestinationNotFound,
        Failure::Unresolved(reason) => HttpError::DnsError { rcode: Some(reason), info_code: None },
        Failure::ResolveTime => HttpError::DnsTimeout,
        Failure::Refused => HttpError::ConnectionRefused,
        Failure::Unreachable(_) => HttpError::DestinationUnavailable,
        Failure::ConnectTime => HttpError::ConnectionTimeout,
        Failure::FirstByteTime | Failure::BetweenBytesTime => HttpError::ConnectionReadTimeout,
        Failure::WallTime => HttpError::HttpResponseTimeout,
        Failure::Certificate(_) => HttpError::TlsCertificateError,
        Failure::TlsAlert { id, message } => {
            HttpError::TlsAlertReceived { alert_id: Some(id), alert_message: Some(message) }
        }
        Failure::Tls(_) => HttpError::TlsProtocolError,
        // The guest's own error comes back to it.
        Failure::RequestBody(error) => match error.downcast::<HttpError>() {
            Ok(own) => *own,
            Err(error) => HttpError::InternalError(Some(error.to_string())),
        },
        Failure::Incomplete(_) => HttpError::HttpResponseIncomplete,
        Failure::Protocol(_) => HttpError::HttpProtocolError,
    }
}
