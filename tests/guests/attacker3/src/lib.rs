//! The attacks of `tests/attacks/guests/0.3`, each at the path of its file's name.
//!
//! A file has `pub(crate) async fn attack() -> Answer`; the build script finds it.

#[path = "../../misbehave3/src/wire.rs"]
#[expect(dead_code, reason = "the attacks use a part of it")]
mod wire;

use wasip3::exports::http::handler::Guest;
use wasip3::http::types::{ErrorCode, Request, Response};

include!(concat!(env!("OUT_DIR"), "/attacks.rs"));

struct Attacker;

wasip3::http::service::export!(Attacker);

impl Guest for Attacker {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        macro_rules! call {
            ($attack:ident) => {
                $attack::attack().await
            };
        }
        let path = request.get_path_with_query().unwrap_or_default();
        attacks!(path.as_str(), call, wire::reply(404, "text/plain", b"no such attack"))
    }
}
