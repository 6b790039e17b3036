//! `functions/qrcards` through the real server: the life of a card, and who may do what.

use anyhow::{Result, ensure};
use dormouse_tests::Tenant;
use dormouse_tests::client::{Headers, Response};
use serde_json::{Value, json};

use crate::SHIPPED;

const KEY: &str = "correct-horse-battery-staple";

/// A tenant whose function has an owner.
struct Owned<'a> {
    tenant: Tenant<'a>,
    bearer: String,
    cookie: String,
}

impl<'a> Owned<'a> {
    fn new(tenant: Tenant<'a>) -> Result<Self> {
        tenant.set_variable("owner_key", &json!({ "value": KEY, "secret": true }))?;
        Ok(Self { tenant, bearer: format!("Bearer {KEY}"), cookie: format!("owner={KEY}") })
    }

    fn request(&self, method: &str, rest: &str, body: &Value) -> Result<Response> {
        let headers = [("authorization", self.bearer.as_str())];
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.tenant.request(method, rest, &headers, body.as_bytes())
    }

    /// A request of the owner's browser.
    fn browse(&self, method: &str, rest: &str, headers: Headers<'_>, body: &str) -> Result<Response> {
        let headers = [headers, &[("cookie", self.cookie.as_str())]].concat();
        self.tenant.request(method, rest, &headers, body.as_bytes())
    }
}

#[test]
fn a_card_is_made_scanned_counted_and_changed() -> Result<()> {
    let node = SHIPPED.node()?;
    let owned = Owned::new(node.tenant("qrcards")?)?;
    let card = json!({ "id": "menu", "title": "Menu", "link": "https://example.com/menu" });
    let made = owned.request("POST", "/cards", &card)?.expect(201)?;
    assert_eq!(made.header("location"), Some(owned.tenant.path("/cards/menu").as_str()));
    let short = format!("http://dormouse.test{}", owned.tenant.path("/menu"));
    assert_eq!(made.json()?.get("short"), Some(&json!(short)));

    let image = owned.tenant.get("/cards/menu/qr.svg")?.expect(200)?;
    assert_eq!(image.header("content-type"), Some("image/svg+xml"));
    ensure!(image.text().starts_with("<svg "), "{}", image.text());

    for _ in 0..3 {
        let scan = owned.tenant.get("/menu")?.expect(307)?;
        assert_eq!(scan.header("location"), Some("https://example.com/menu"));
    }
    let statistics = owned.request("GET", "/cards/menu", &Value::Null)?.expect(200)?.json()?;
    assert_eq!(statistics.get("scans"), Some(&json!(3)));
    assert_eq!(statistics.pointer("/days/0/count"), Some(&json!(3)));

    let other = json!({ "title": "Winter menu", "link": "https://example.com/winter" });
    owned.request("PUT", "/cards/menu", &other)?.expect(200)?;
    assert_eq!(owned.tenant.get("/menu")?.header("location"), Some("https://example.com/winter"));
    assert_eq!(owned.tenant.sql("SELECT card, count FROM scans")?, json!([["menu", 4]]));
    owned.request("DELETE", "/cards/menu", &Value::Null)?.expect(204)?;
    owned.tenant.get("/menu")?.expect(404)?;
    assert_eq!(owned.tenant.sql("SELECT count(*) FROM scans")?, json!([[0]]), "its scans go with it");
    Ok(())
}

#[test]
fn the_owner_works_in_a_browser() -> Result<()> {
    let node = SHIPPED.node()?;
    let owned = Owned::new(node.tenant("qrcards")?)?;
    let form = [("content-type", "application/x-www-form-urlencoded"), ("sec-fetch-site", "same-origin")];
    let login =
        owned.tenant.request("POST", "/login", &form, format!("key={KEY}").as_bytes())?.expect(303)?;
    ensure!(login.header("set-cookie").is_some_and(|cookie| cookie.contains(&owned.cookie)), "{login:?}");
    let card = "title=%3Cb%3E&link=https%3A%2F%2Fexample.com%2F%3Fa%3D1%26b%3D2&id=";
    owned.browse("POST", "/cards", &form, card)?.expect(303)?;
    let page = owned.browse("GET", "/", &[], "")?.expect(200)?;
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    let page = page.text();
    ensure!(page.contains("&lt;b&gt;") && page.contains("https://example.com/?a=1&amp;b=2"), "{page}");

    let elsewhere = [("content-type", "application/x-www-form-urlencoded"), ("sec-fetch-site", "same-site")];
    owned.browse("POST", "/cards", &elsewhere, card)?.expect(403)?;
    assert_eq!(owned.tenant.sql("SELECT count(*) FROM cards")?, json!([[1]]));
    Ok(())
}

#[test]
fn strangers_get_no_further_than_a_scan() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant("qrcards")?;
    tenant.get("/cards")?.expect(401)?;
    let owned = Owned::new(tenant)?;
    for (method, rest) in
        [("GET", "/cards"), ("POST", "/cards"), ("GET", "/cards/menu"), ("DELETE", "/cards/menu")]
    {
        owned.tenant.request(method, rest, &[("authorization", "Bearer guessed")], b"")?.expect(401)?;
    }
    let page = owned.tenant.get("/")?.expect(200)?.text();
    ensure!(page.contains("The owner's key"), "{page}");
    let no_link = json!({ "link": "javascript:alert(1)" });
    let problem = owned.request("POST", "/cards", &no_link)?.expect(422)?;
    assert_eq!(problem.header("content-type"), Some("application/problem+json"));
    Ok(())
}

#[test]
fn scans_at_the_same_time_are_all_counted() -> Result<()> {
    let node = SHIPPED.node()?;
    let owned = Owned::new(node.tenant("qrcards")?)?;
    let card = json!({ "id": "poster", "link": "https://example.com/" });
    owned.request("POST", "/cards", &card)?.expect(201)?;
    std::thread::scope(|scope| {
        let scans: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| (0..10).try_for_each(|_| owned.tenant.get("/poster")?.expect(307).map(drop)))
            })
            .collect();
        scans
            .into_iter()
            .try_for_each(|scan| scan.join().map_err(|_| anyhow::anyhow!("a scanner panicked"))?)
    })?;
    assert_eq!(owned.tenant.sql("SELECT sum(count) FROM scans")?, json!([[80]]));
    Ok(())
}
