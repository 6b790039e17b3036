//! Uploads: a component alone, or as `multipart/form-data` beside the section of the manifest that it was built by.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use http::header::CONTENT_TYPE;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Body as _;
use multer::{Constraints, Multipart, SizeLimit};

use crate::manifest::FunctionManifest;
use crate::memory::{Budget, Charge, Exhausted};

/// How long an upload may take to arrive.
const TIME_MAX: Duration = Duration::from_secs(300);

/// Largest section of a manifest.
const MANIFEST_BYTES_MAX: u64 = 64 << 10;

/// What an upload has beside its parts: boundaries and their headers.
const FRAME_BYTES_MAX: u64 = 8 << 10;

/// What a deploy is made of.
#[derive(Debug)]
pub struct Upload {
    /// The section of the manifest.
    pub manifest: Option<FunctionManifest>,
    /// The component, whatever it is.
    pub component: Vec<u8>,
    /// For the memory that it takes.
    pub charge: Charge,
}

/// Why an upload was not taken.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// It is no form, or another one, or did not arrive whole.
    #[error("{0}")]
    Malformed(String),
    /// Its manifest is none.
    #[error("the manifest: {0}")]
    BadManifest(String),
    /// The component has more than these bytes.
    #[error("the component is larger than {0} bytes")]
    TooLarge(u64),
    /// The node has no memory for it.
    #[error(transparent)]
    NodeMemory(#[from] Exhausted),
}

/// Reads an upload with a component of at most `bytes_max`.
///
/// # Errors
/// When it is too large, of another form, or does not arrive, or the node's memory is taken.
pub async fn receive(request: Request, bytes_max: u64, memory: &Arc<Budget>) -> Result<Upload, UploadError> {
    let content_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let boundary = content_type.and_then(|value| multer::parse_boundary(value).ok());
    let body = request.into_body();
    // Pieces that arrive, and the whole that is made of them.
    let bytes = body.size_hint().upper().map_or(bytes_max, |upper| upper.min(bytes_max));
    let charge = memory.charge(bytes.saturating_mul(2))?;
    let received = async {
        match boundary {
            Some(boundary) => parts(body, boundary, bytes_max, charge).await,
            None => Ok(Upload { manifest: None, component: component(body, bytes_max).await?, charge }),
        }
    };
    tokio::time::timeout(TIME_MAX, received)
        .await
        .map_err(|_| UploadError::Malformed("the upload took too long".to_owned()))?
}

async fn component(body: Body, bytes_max: u64) -> Result<Vec<u8>, UploadError> {
    if body.size_hint().lower() > bytes_max {
        return Err(UploadError::TooLarge(bytes_max));
    }
    let limited = Limited::new(body, usize::try_from(bytes_max).unwrap_or(usize::MAX));
    match limited.collect().await {
        Ok(body) => Ok(body.to_bytes().into()),
        Err(error) if error.is::<LengthLimitError>() => Err(UploadError::TooLarge(bytes_max)),
        Err(error) => Err(broken_off(error)),
    }
}

async fn parts(body: Body, boundary: String, bytes_max: u64, charge: Charge) -> Result<Upload, UploadError> {
    let whole_max = bytes_max.saturating_add(MANIFEST_BYTES_MAX + FRAME_BYTES_MAX);
    if body.size_hint().lower() > whole_max {
        return Err(UploadError::TooLarge(bytes_max));
    }
    let sizes = SizeLimit::new()
        .whole_stream(whole_max)
        .for_field("component", bytes_max)
        .for_field("manifest", MANIFEST_BYTES_MAX);
    let constraints = Constraints::new().size_limit(sizes);
    let mut form = Multipart::with_constraints(body.into_data_stream(), boundary, constraints);
    let (mut manifest, mut component) = (None, None);
    let malformed = |error| malformed(error, bytes_max);
    while let Some(part) = form.next_field().await.map_err(malformed)? {
        match part.name() {
            Some("manifest") => manifest = Some(section(&part.bytes().await.map_err(malformed)?)?),
            Some("component") => component = Some(part.bytes().await.map_err(malformed)?),
            other => {
                let other = other.unwrap_or_default();
                return Err(UploadError::Malformed(format!(
                    "the upload has a part {other:?}; its parts are manifest and component"
                )));
            }
        }
    }
    match component {
        Some(component) => Ok(Upload { manifest, component: component.into(), charge }),
        None => Err(UploadError::Malformed("the upload has no part named component".to_owned())),
    }
}

fn section(json: &[u8]) -> Result<FunctionManifest, UploadError> {
    serde_json::from_slice(json).map_err(|error| UploadError::BadManifest(error.to_string()))
}

fn malformed(error: multer::Error, bytes_max: u64) -> UploadError {
    match error {
        multer::Error::FieldSizeExceeded { field_name: Some(name), .. } if name == "manifest" => {
            UploadError::BadManifest(format!("it is larger than {MANIFEST_BYTES_MAX} bytes"))
        }
        multer::Error::FieldSizeExceeded { .. } | multer::Error::StreamSizeExceeded { .. } => {
            UploadError::TooLarge(bytes_max)
        }
        other => broken_off(other),
    }
}

fn broken_off(error: impl std::fmt::Display) -> UploadError {
    UploadError::Malformed(format!("the upload broke off: {error}"))
}
