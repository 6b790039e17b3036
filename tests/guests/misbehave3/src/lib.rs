//! The twin of `misbehave` in the 0.3 world: the same deeds at the same paths, and some that only this world has.
//!
//! It is made of raw `wasip3` bindings, not of an SDK. The path chooses the deed; a test names the path and says what
//! the host must make of it.

mod after;
mod bindings;
mod bodies;
mod concurrent;
#[path = "../../misbehave/src/deeds.rs"]
mod deeds;
mod fetch;
mod sql;
#[path = "../../misbehave/src/url.rs"]
mod url;
mod wire;

use serde_json::json;
use wasip3::exports::http::handler::Guest;
use wasip3::http::types::{ErrorCode, Request, Response};
use wasip3::wit_bindgen::spawn_local;

use crate::url::Url;
use crate::wire::{Answer, reply, reply_json, sleep, stream};

struct Misbehave;

wasip3::http::service::export!(Misbehave);

impl Guest for Misbehave {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let url = Url::parse(&request.get_path_with_query().unwrap_or_default());
        match url.path.as_str() {
            "/ok" => reply(200, "text/plain", b"ok"),
            "/count" => reply(200, "text/plain", deeds::count().as_bytes()),
            "/slow" => {
                sleep(url.number("ms")).await;
                reply(200, "text/plain", b"slow")
            }

            "/trap" => deeds::trap(),
            "/spin" => deeds::spin(),
            "/spin-after-head" => stream("text/plain", |mut sending| async move {
                sending.write(b"partial").await;
                deeds::spin();
            }),
            "/trap-after-head" => stream("text/plain", |mut sending| async move {
                sending.write(b"partial").await;
                deeds::trap();
            }),
            "/allocate" => deeds::allocate(),
            "/take" => {
                let taken = deeds::take(url.number("bytes"));
                sleep(url.number("ms")).await;
                reply(200, "text/plain", taken.len().to_string().as_bytes())
            }
            "/never" => {
                sleep(60 * 60 * 1000).await;
                reply(200, "text/plain", b"never")
            }
            "/error" => Err(ErrorCode::InternalError(Some("on purpose".to_owned()))),

            "/drip" => {
                let (chunks, ms) = (url.number("chunks"), url.number("ms"));
                stream("text/plain", move |sending| bodies::drip(sending, chunks, ms))
            }
            "/echo" => stream("application/octet-stream", |sending| bodies::echo(request, sending)),
            "/hand-on" => wire::hand_on(request),
            "/trailer" => stream("text/plain", |mut sending| async move {
                sending.write(b"body").await;
                sending.finish_with_trailer("x-trailer", "there").await;
            }),
            "/headers" => bodies::headers(&request),
            "/big" => {
                let bytes = url.number("bytes");
                stream("application/octet-stream", move |sending| bodies::big(sending, bytes))
            }
            "/ignore-body" => reply(200, "text/plain", b"ignored"),
            "/log" => {
                println!("{}", url.text("line"));
                eprintln!("{}", url.text("line"));
                reply(200, "text/plain", b"logged")
            }
            "/log-flood" => {
                (0..url.number("lines")).for_each(|line| println!("line {line} of a flood"));
                reply(200, "text/plain", b"flooded")
            }
            "/fetch" => reply_json(&fetch::one(&url).await),
            "/fetch-many" => reply_json(&fetch::many(&url).await),
            "/fetch-at-once" => reply_json(&fetch::at_once(&url).await),
            "/fetch-and-forget" => reply_json(&fetch::give_up(&url).await),
            "/write-and-fetch" => reply_json(&fetch::after_write(&url).await),
            "/proxy" => fetch::proxy(&url, request).await,

            path => database(path, &url, request).await,
        }
    }
}

async fn database(path: &str, url: &Url, request: Request) -> Answer {
    match path {
        "/sql" => reply_json(&sql::statements(&wire::read_all(request).await).await),
        "/write-and-hold" => {
            let (open, ms) = (sql::write().await, url.number("ms"));
            stream("text/plain", move |mut sending| async move {
                let _open = open;
                sending.write(b"partial").await;
                sleep(ms).await;
            })
        }
        "/session" => stream("application/x-ndjson", |sending| sql::session(request, sending)),
        "/write-then-trap" => {
            sql::write().await;
            deeds::trap();
        }
        "/transaction-then-trap" => {
            let _open = sql::begin_and_write().await;
            deeds::trap();
        }
        "/leave-transaction" => {
            let (_open, steps) = sql::begin_and_write().await;
            reply_json(&steps)
        }
        "/hold-transaction" => reply_json(&sql::hold_transaction(url.number("ms")).await),
        "/insert-and-rowid" => reply_json(&sql::insert_and_rowid(url.number("ms")).await),
        "/two-connections" => reply_json(&sql::two_connections().await),
        "/open-many" => reply_json(&sql::open_many(url.number("n")).await),
        "/open" => reply_json(&sql::open(&url.text("name")).await),

        "/many-calls" => reply_json(&concurrent::many(url.number("n")).await),
        "/blocking-beside" => reply_json(&concurrent::blocking_beside().await),
        "/give-up" => reply_json(&concurrent::give_up().await),
        "/prepare-error" => reply_json(&concurrent::prepare_error().await),
        "/rows" => {
            let wanted = url.number("n");
            stream("text/plain", move |sending| async move {
                if let Err(error) = concurrent::rows(sending, wanted).await {
                    eprintln!("rows: {error}");
                    deeds::trap();
                }
            })
        }
        "/drop-rows" => reply_json(&concurrent::drop_rows(url.number("n")).await),
        "/hoard-rows" => reply_json(&concurrent::hoard_rows().await),
        "/forget-rows" => reply_json(&concurrent::forget_rows().await),
        "/flood" => reply_json(&concurrent::flood(url.number("n")).await),

        "/after" => after::later(200, url.number("ms")),
        "/after-204" => after::later(204, url.number("ms")),
        "/after-trap" => after::trap(url.number("ms")),
        "/after-spin" => after::spin(),
        "/delivered" => after::delivered(),
        "/begin-and-leave-running" => {
            spawn_local(async {
                let _open = sql::begin_and_write().await;
                sleep(60 * 60 * 1000).await;
            });
            reply(200, "text/plain", b"answered")
        }

        path => reply(404, "application/json", json!({ "no such deed": path }).to_string().as_bytes()),
    }
}
