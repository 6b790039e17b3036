//! The handler, run against an in-memory database.

use dormouse_sdk::Method;
use dormouse_sdk::testing::{Tenant, TestRequest, TestResponse};
use serde_json::{Value, json};

use super::webhook_inbox;

const KEY: &str = "correct horse battery staple";

/// A tenant whose inbox has a reader.
struct Inbox(Tenant);

impl Inbox {
    fn new() -> Self {
        Self(Tenant::new().with_variable("reader_key", KEY))
    }

    fn send(&self, request: TestRequest) -> TestResponse {
        self.0.call(webhook_inbox, request)
    }

    fn read(&self, request: TestRequest) -> TestResponse {
        self.send(request.header("authorization", &format!("Bearer {KEY}")))
    }

    /// The ids of the messages that a search finds, and what to ask for next.
    fn find(&self, query: &str) -> (Vec<i64>, Option<i64>) {
        let page: Value = self.read(TestRequest::get(&format!("/messages{query}"))).json();
        let messages = page.pointer("/messages").and_then(Value::as_array);
        let ids = messages.into_iter().flatten().filter_map(|message| message.pointer("/id")?.as_i64());
        (ids.collect(), page.pointer("/next").and_then(Value::as_i64))
    }
}

#[test]
fn a_message_is_kept_with_its_headers_and_its_body() {
    let inbox = Inbox::new();
    let push =
        TestRequest::post("/in/git/hub?ref=main").header("x-github-event", "push").json(&json!({ "a": 1 }));
    let kept = inbox.send(push);
    assert_eq!((kept.status(), kept.json::<Value>()), (201, json!({ "id": 1 })));
    let message: Value = inbox.read(TestRequest::get("/messages/1")).json();
    for (field, expected) in
        [("/source", "git/hub"), ("/method", "POST"), ("/query", "ref=main"), ("/text", "{\"a\":1}")]
    {
        assert_eq!(message.pointer(field), Some(&json!(expected)));
    }
    let headers: Vec<(String, String)> = message
        .get("headers")
        .and_then(|headers| serde_json::from_value(headers.clone()).ok())
        .unwrap_or_default();
    assert!(headers.contains(&("x-github-event".into(), "push".into())), "{headers:?}");
    assert!(!headers.iter().any(|(name, _)| name.starts_with("spin-")), "{headers:?}");
}

#[test]
fn bytes_are_kept_as_they_are() {
    let inbox = Inbox::new();
    let bytes = [0, 159, 255, b'<'];
    inbox.send(TestRequest::put("/in/bytes").header("content-type", "text/html").body(bytes.to_vec()));
    let body = inbox.read(TestRequest::get("/messages/1/body"));
    assert_eq!(body.bytes(), bytes);
    assert_eq!(body.header("content-type"), Some("application/octet-stream"));
    assert_eq!(body.header("content-disposition"), Some("attachment"));
    let message: Value = inbox.read(TestRequest::get("/messages/1")).json();
    assert_eq!((message.get("text"), message.get("bytes")), (Some(&Value::Null), Some(&json!(4))));
}

#[test]
fn messages_are_found_by_text_source_and_page() {
    let inbox = Inbox::new();
    inbox.send(TestRequest::post("/in/shop").body("Order 7: cheese"));
    inbox.send(TestRequest::post("/in/shop").header("x-topic", "refund").body("Order 8"));
    inbox.send(TestRequest::new(Method::GET, "/in/bank?challenge=order"));
    assert_eq!(inbox.find(""), (vec![3, 2, 1], None));
    assert_eq!(inbox.find("?q=CHEESE").0, [1]);
    assert_eq!(inbox.find("?q=refund").0, [2]);
    assert_eq!(inbox.find("?q=order").0, [3, 2, 1]);
    assert_eq!(inbox.find("?q=order&source=shop").0, [2, 1]);
    assert_eq!(inbox.find("?q=%25").0, [0; 0]);
    assert_eq!(inbox.find("?limit=2"), (vec![3, 2], Some(2)));
    assert_eq!(inbox.find("?limit=2&before=2"), (vec![1], None));
    assert_eq!(inbox.read(TestRequest::get("/messages?limit=many")).status(), 400);
    let page: Value = inbox.read(TestRequest::get("/messages?q=cheese")).json();
    assert_eq!(page.pointer("/messages/0/preview"), Some(&json!("Order 7: cheese")));
}

#[test]
fn only_the_reader_reads() {
    let inbox = Inbox::new();
    inbox.send(TestRequest::post("/in/shop").body("private"));
    for request in [
        TestRequest::get("/messages"),
        TestRequest::get("/messages/1"),
        TestRequest::get("/messages/1/body"),
        TestRequest::delete("/messages/1"),
        TestRequest::get("/messages").header("authorization", "Bearer guessed"),
    ] {
        let refused = inbox.send(request);
        assert_eq!((refused.status(), refused.header("www-authenticate")), (401, Some("Bearer")));
    }
    let read = |tenant: Tenant, key: &str| {
        let authorization = format!("Bearer {key}");
        tenant
            .call(webhook_inbox, TestRequest::get("/messages").header("authorization", &authorization))
            .status()
    };
    assert_eq!(read(Tenant::new(), "guessed"), 500, "the operator forgot to set the key");
    assert_eq!(read(Tenant::new().with_variable("reader_key", ""), ""), 401);
}

#[test]
fn a_message_is_deleted_and_old_ones_are_forgotten() {
    let inbox = Inbox::new();
    for _ in 0..1_001 {
        inbox.send(TestRequest::post("/in/many"));
    }
    assert_eq!(inbox.read(TestRequest::get("/messages/1")).status(), 404);
    assert_eq!(inbox.read(TestRequest::get("/messages/2")).status(), 200);
    assert_eq!(inbox.read(TestRequest::delete("/messages/1001")).status(), 204);
    assert_eq!(inbox.read(TestRequest::delete("/messages/1001")).status(), 404);
    assert_eq!(inbox.send(TestRequest::post("/in/many")).json::<Value>(), json!({ "id": 1_002 }));
}

#[test]
fn a_body_that_is_too_large_is_refused() {
    let inbox = Inbox::new();
    let send = |bytes: usize| inbox.send(TestRequest::post("/in/large").body(vec![b'x'; bytes])).status();
    assert_eq!(send(512 * 1024), 201);
    assert_eq!(send(512 * 1024 + 1), 413);
    assert_eq!(inbox.find("?q=xxxx").0, [1]);
}
