//! The smallest function, in the 0.3 world.

use wasip3::exports::http::handler::Guest;
use wasip3::http::types::{ErrorCode, Fields, Request, Response};
use wasip3::wit_bindgen::spawn_local;
use wasip3::{wit_future, wit_stream};

const GREETING: &[u8] = b"Hello from Dormouse\n";

struct Hello;

wasip3::http::service::export!(Hello);

impl Guest for Hello {
    async fn handle(_: Request) -> Result<Response, ErrorCode> {
        let headers = [
            ("content-type".to_owned(), b"text/plain; charset=utf-8".to_vec()),
            ("content-length".to_owned(), GREETING.len().to_string().into_bytes()),
        ];
        let headers =
            Fields::from_list(&headers).map_err(|error| ErrorCode::InternalError(Some(error.to_string())))?;
        let (mut stream, contents) = wit_stream::new();
        let (trailers, no_trailers) = wit_future::new(|| Ok(None));
        let (response, _transmitted) = Response::new(headers, Some(contents), no_trailers);
        spawn_local(async move {
            // Whoever does not listen any more misses nothing.
            let _ = stream.write_all(GREETING.to_vec()).await;
            drop(stream);
            // A writer that is dropped writes the same by a waker of its own, which costs more.
            let _ = trailers.write(Ok(None)).await;
        });
        Ok(response)
    }
}
