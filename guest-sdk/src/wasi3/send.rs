//! Giving a body to the host, which reads it while the function goes on.

use wasip3::http::types::ErrorCode;
use wasip3::wit_bindgen::StreamReader;
use wasip3::{wit_future, wit_stream};

use super::incoming::Ended;
use crate::asynchronous::Body;
use crate::body::asynchronous::{Content, log_broken};

/// The host's end of a body. One without bytes has no stream.
pub(super) fn send(mut body: Body) -> (Option<StreamReader<u8>>, Ended) {
    if matches!(&body.content, Content::Here(bytes) if bytes.is_empty()) {
        let (_, ended) = wit_future::new(|| Ok(None));
        return (None, ended);
    }
    let (mut stream, contents) = wit_stream::new();
    let (end, ended) = wit_future::new(|| Ok(None));
    super::spawn(async move {
        loop {
            match body.read_chunk().await {
                Ok(None) => {
                    drop(stream);
                    // A writer that is dropped writes the same by a waker of its own, which costs more.
                    let _ = end.write(Ok(None)).await;
                    return;
                }
                Ok(Some(chunk)) => {
                    // Whoever does not read on misses nothing.
                    if !stream.write_all(chunk).await.is_empty() {
                        return;
                    }
                }
                Err(error) => {
                    log_broken(&error);
                    let broken = ErrorCode::InternalError(Some(error.to_string()));
                    drop(stream);
                    let _ = end.write(Err(broken)).await;
                    return;
                }
            }
        }
    });
    (Some(contents), ended)
}
