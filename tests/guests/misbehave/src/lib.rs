//! A guest that does, on request, everything that a guest should not do, and a few things that it may.
//!
//! It is made of raw `wasip2` bindings, not of the SDK, so it also shows that any `wasi:http` component will do.
//! The path chooses the deed; a test names the path and says what the host must make of it.

mod bindings;
mod bodies;
mod deeds;
mod fetch;
mod sql;
mod url;
mod wire;

use serde_json::json;
use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{IncomingRequest, ResponseOutparam};

use crate::url::Url;
use crate::wire::reply_json;

struct Misbehave;

wasip2::http::proxy::export!(Misbehave);

impl Guest for Misbehave {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let url = Url::parse(&request.path_with_query().unwrap_or_default());
        match url.path.as_str() {
            "/ok" => wire::reply(out, 200, "text/plain", b"ok"),
            "/count" => wire::reply(out, 200, "text/plain", deeds::count().as_bytes()),
            "/slow" => {
                wire::sleep(url.number("ms"));
                wire::reply(out, 200, "text/plain", b"slow");
            }

            "/trap" => deeds::trap(),
            "/spin" => deeds::spin(),
            "/spin-after-head" => {
                let _unfinished = wire::start(out);
                deeds::spin();
            }
            "/trap-after-head" => {
                let _unfinished = wire::start(out);
                deeds::trap();
            }
            "/allocate" => deeds::allocate(),
            "/take" => {
                let taken = deeds::take(url.number("bytes"));
                wire::sleep(url.number("ms"));
                wire::reply(out, 200, "text/plain", taken.len().to_string().as_bytes());
            }
            "/never" => wire::sleep(60 * 60 * 1000),

            "/drip" => bodies::drip(out, url.number("chunks"), url.number("ms")),
            "/echo" => bodies::echo(&request, out),
            "/headers" => bodies::headers(&request, out),
            "/mirror" => bodies::mirror(&request, out),
            "/respond" => bodies::respond(&request, out, url.text("status").parse().unwrap_or(200)),
            "/page" => bodies::page(out, &url),
            "/big" => bodies::big(out, url.number("bytes")),
            "/ignore-body" => wire::reply(out, 200, "text/plain", b"ignored"),
            "/log" => {
                println!("{}", url.text("line"));
                eprintln!("{}", url.text("line"));
                wire::reply(out, 200, "text/plain", b"logged");
            }
            "/log-and-wait" => {
                print!("begun\nunfinished");
                let _ = std::io::Write::flush(&mut std::io::stdout());
                wire::sleep(60 * 60 * 1000);
            }
            "/log-flood" => {
                (0..url.number("lines")).for_each(|line| println!("line {line} of a flood"));
                wire::reply(out, 200, "text/plain", b"flooded");
            }

            "/fetch" => reply_json(out, &fetch::one(&url)),
            "/fetch-many" => reply_json(out, &fetch::many(&url)),
            "/fetch-at-once" => reply_json(out, &fetch::at_once(&url)),
            "/fetch-and-forget" => reply_json(out, &fetch::give_up(&url)),
            "/write-and-fetch" => reply_json(out, &fetch::after_write(&url)),
            "/proxy" => fetch::proxy(&url, &request, out),

            "/sql" => reply_json(out, &sql::statements(&wire::read_all(&request))),
            "/write-and-hold" => {
                let _open = sql::write();
                let _unfinished = wire::start(out);
                wire::sleep(url.number("ms"));
            }
            "/session" => sql::session(&request, out),
            "/write-then-trap" => {
                sql::write();
                deeds::trap();
            }
            "/transaction-then-trap" => {
                let _open = sql::begin_and_write();
                deeds::trap();
            }
            "/leave-transaction" => {
                let (_open, steps) = sql::begin_and_write();
                reply_json(out, &steps);
            }
            "/hold-transaction" => reply_json(out, &sql::hold_transaction(url.number("ms"))),
            "/insert-and-rowid" => reply_json(out, &sql::insert_and_rowid(url.number("ms"))),
            "/two-connections" => reply_json(out, &sql::two_connections()),
            "/open-many" => reply_json(out, &sql::open_many(url.number("n"))),
            "/open" => reply_json(out, &sql::open(&url.text("name"))),

            path => wire::reply(
                out,
                404,
                "application/json",
                json!({ "no such deed": path }).to_string().as_bytes(),
            ),
        }
    }
}
