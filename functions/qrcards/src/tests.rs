//! The handler, run against an in-memory database.

use dormouse_sdk::Method;
use dormouse_sdk::testing::{Tenant, TestRequest, TestResponse};
use serde_json::{Value, json};

use super::qrcards;

const KEY: &str = "correct horse battery staple";

/// A tenant whose function has an owner.
struct Owned(Tenant);

impl Owned {
    fn new() -> Self {
        Self(Tenant::new().with_variable("owner_key", KEY))
    }

    /// As anybody.
    fn any(&self, request: TestRequest) -> TestResponse {
        self.0.call(qrcards, request)
    }

    /// As the owner, by the key.
    fn own(&self, request: TestRequest) -> TestResponse {
        self.any(request.header("authorization", &format!("Bearer {KEY}")))
    }

    /// As the owner's browser.
    fn browse(&self, request: TestRequest) -> TestResponse {
        self.any(request.header("cookie", &format!("owner={KEY}")))
    }

    fn create(&self, card: &Value) -> TestResponse {
        self.own(TestRequest::post("/cards").json(card))
    }
}

fn menu() -> Value {
    json!({ "id": "menu", "title": "The <menu>", "link": "https://example.com/menu?a=1&b=2" })
}

#[test]
fn a_card_is_made_scanned_and_counted() {
    let owned = Owned::new();
    let made = owned.create(&menu());
    assert_eq!((made.status(), made.header("location")), (201, Some("/t/test/fn/cards/menu")));
    let card: Value = made.json();
    assert_eq!(card.pointer("/short"), Some(&json!("http://localhost/t/test/fn/menu")));
    assert_eq!(card.pointer("/scans"), Some(&json!(0)));
    for _ in 0..3 {
        let scan = owned.any(TestRequest::get("/menu"));
        assert_eq!((scan.status(), scan.header("location")), (307, Some("https://example.com/menu?a=1&b=2")));
        assert_eq!(scan.header("cache-control"), Some("no-store"));
    }
    assert_eq!(owned.any(TestRequest::new(Method::HEAD, "/menu")).status(), 307);
    let statistics: Value = owned.own(TestRequest::get("/cards/menu")).json();
    assert_eq!(statistics.pointer("/scans"), Some(&json!(3)), "HEAD is no scan");
    assert_eq!(statistics.pointer("/days/0/count"), Some(&json!(3)));
    let cards: Value = owned.own(TestRequest::get("/cards")).json();
    assert_eq!(cards.pointer("/0/scans"), Some(&json!(3)));
}

#[test]
fn the_code_is_an_image_of_the_short_address() {
    let owned = Owned::new();
    owned.create(&menu());
    let image = owned.any(TestRequest::get("/cards/menu/qr.svg"));
    assert_eq!((image.status(), image.header("content-type")), (200, Some("image/svg+xml")));
    let expected = crate::svg::qr_code("http://localhost/t/test/fn/menu").unwrap_or_default();
    assert_eq!(image.text(), expected);
}

#[test]
fn a_printed_card_can_lead_elsewhere() {
    let owned = Owned::new();
    owned.create(&menu());
    let other = json!({ "title": "Winter", "link": "https://example.com/winter" });
    assert_eq!(owned.own(TestRequest::put("/cards/menu").json(&other)).status(), 200);
    let scan = owned.any(TestRequest::get("/menu"));
    assert_eq!(scan.header("location"), Some("https://example.com/winter"));
    assert_eq!(owned.own(TestRequest::delete("/cards/menu")).status(), 204);
    for gone in [TestRequest::get("/menu"), TestRequest::get("/cards/menu/qr.svg")] {
        assert_eq!(owned.any(gone).status(), 404);
    }
    assert_eq!(owned.own(TestRequest::delete("/cards/menu")).status(), 404);
    assert_eq!(owned.own(TestRequest::put("/cards/menu").json(&other)).status(), 404);
}

#[test]
fn what_is_no_card_is_refused() {
    let owned = Owned::new();
    let status = |card: Value| owned.create(&card).status();
    assert_eq!(status(json!({ "link": "javascript:alert(1)" })), 422);
    assert_eq!(status(json!({ "link": "https://example.com/", "id": "cards" })), 422);
    assert_eq!(status(json!({ "link": "https://example.com/", "title": "x".repeat(201) })), 422);
    assert_eq!(status(json!({ "title": "no link" })), 400);
    assert_eq!(status(menu()), 201);
    assert_eq!(status(menu()), 409);
    assert_eq!(status(json!({ "link": "https://example.com/" })), 201, "with an id at random");
}

#[test]
fn only_the_owner_sees_and_changes_cards() {
    let owned = Owned::new();
    owned.create(&menu());
    for request in [
        TestRequest::get("/cards"),
        TestRequest::post("/cards").json(&menu()),
        TestRequest::get("/cards/menu"),
        TestRequest::put("/cards/menu").json(&menu()),
        TestRequest::delete("/cards/menu"),
        TestRequest::get("/cards").header("authorization", "Bearer guessed"),
        TestRequest::get("/cards").header("cookie", "owner="),
    ] {
        let refused = owned.any(request);
        assert_eq!((refused.status(), refused.header("www-authenticate")), (401, Some("Bearer")));
    }
}

#[test]
fn without_a_key_nobody_is_the_owner() {
    let guess = || TestRequest::get("/cards").header("cookie", "owner=");
    assert_eq!(Tenant::new().call(qrcards, guess()).status(), 401);
    let guess_more = TestRequest::get("/cards").header("cookie", "owner=guessed");
    assert_eq!(Tenant::new().call(qrcards, guess_more).status(), 500, "the operator forgot to set it");
    let empty = Tenant::new().with_variable("owner_key", "");
    assert_eq!(empty.call(qrcards, guess()).status(), 401);
}

#[test]
fn the_page_shows_cards_to_the_owner_only() {
    let owned = Owned::new();
    owned.create(&menu());
    let page = owned.any(TestRequest::get("/"));
    assert!(page.text().contains("The owner's key") && !page.text().contains("menu"), "{}", page.text());
    let page = owned.browse(TestRequest::get("/"));
    assert!(page.text().contains("The &lt;menu&gt;"), "{}", page.text());
    assert!(page.text().contains("href=\"https://example.com/menu?a=1&amp;b=2\""), "{}", page.text());
    assert!(page.header("content-security-policy").is_some());
}

#[test]
fn the_owner_logs_in_makes_a_card_and_logs_out() {
    let owned = Owned::new();
    let login = |key: &str| owned.any(TestRequest::post("/login").form(&[("key", key)]));
    assert_eq!(login("guessed").status(), 403);
    let response = login(KEY);
    assert_eq!((response.status(), response.header("location")), (303, Some("/t/test/fn/")));
    let cookie = response.header("set-cookie").unwrap_or_default();
    for part in [KEY, "HttpOnly", "SameSite=Strict", "Path=/t/test/fn/", "Max-Age=2592000"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    let form = || {
        TestRequest::post("/cards").form(&[("title", "Menu"), ("link", "https://example.com/"), ("id", "")])
    };
    assert_eq!(owned.browse(form()).status(), 303);
    assert_eq!(owned.browse(form().header("sec-fetch-site", "same-site")).status(), 403);
    let cards: Value = owned.own(TestRequest::get("/cards")).json();
    assert_eq!(cards.as_array().map(Vec::len), Some(1));
    let out = owned.browse(TestRequest::post("/logout"));
    assert!(out.header("set-cookie").is_some_and(|cookie| cookie.contains("Max-Age=0")));
}
