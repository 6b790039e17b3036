//! The attacks of `tests/attacks/guests/0.2`, each at the path of its file's name.
//!
//! A file has `pub(crate) fn attack(out: ResponseOutparam)`; the build script finds it.

mod bindings {
    //! The generated side of `spin:sqlite@3.0.0`.
    wit_bindgen::generate!({ path: "../misbehave/wit", world: "imports", generate_all });
}
#[path = "../../misbehave/src/wire.rs"]
#[expect(dead_code, reason = "the attacks use a part of it")]
mod wire;

use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{IncomingRequest, ResponseOutparam};

include!(concat!(env!("OUT_DIR"), "/attacks.rs"));

struct Attacker;

wasip2::http::proxy::export!(Attacker);

impl Guest for Attacker {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        macro_rules! call {
            ($attack:ident) => {
                $attack::attack(out)
            };
        }
        let path = request.path_with_query().unwrap_or_default();
        attacks!(path.as_str(), call, wire::reply(out, 404, "text/plain", b"no such attack"))
    }
}
