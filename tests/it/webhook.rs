//! The main job: a function answers a webhook, and its row is in its tenant's database.

use anyhow::Result;
use dormouse_tests::guest;
use serde_json::json;

use crate::SHIPPED;

#[test]
fn a_webhook_becomes_a_row_of_its_tenant() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant("guestbook")?;
    let answer = tenant.post("", &json!({ "name": "Ada", "message": "Hello" }))?.expect(201)?;
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let entry = answer.json()?;
    assert_eq!(entry.get("id"), Some(&json!(1)));
    assert_eq!(entry.get("message"), Some(&json!("Hello")));
    assert_eq!(tenant.sql("SELECT id, name, message FROM entries")?, json!([[1, "Ada", "Hello"]]));
    Ok(())
}

#[test]
fn rows_come_back_as_json_or_as_a_page() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant("guestbook")?;
    for name in ["Ada", "<b>Bob</b>"] {
        tenant.post("", &json!({ "name": name, "message": "Hello" }))?.expect(201)?;
    }
    let list = tenant.get("")?.expect(200)?;
    assert_eq!(list.header("content-type"), Some("application/json"));
    let list = list.json()?;
    let names: Vec<_> = list.as_array().into_iter().flatten().filter_map(|entry| entry.get("name")).collect();
    assert_eq!(names, ["<b>Bob</b>", "Ada"]);

    let page = tenant.request("GET", "", &[("accept", "text/html,*/*;q=0.8")], b"")?.expect(200)?;
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert!(page.text().contains("&lt;b&gt;Bob&lt;/b&gt;"), "{}", page.text());
    Ok(())
}

#[test]
fn what_the_function_refuses_reaches_the_caller() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant("guestbook")?;
    assert_eq!(tenant.request("DELETE", "", &[], b"")?.expect(405)?.header("allow"), Some("GET, POST"));
    tenant.request("POST", "", &[], b"no JSON")?.expect(400)?;
    tenant.post("", &json!({ "name": " ", "message": "" }))?.expect(422)?;
    assert_eq!(tenant.get("")?.expect(200)?.json()?, json!([]));
    Ok(())
}

#[test]
fn tenants_do_not_see_each_other() -> Result<()> {
    let node = SHIPPED.node()?;
    let (one, other) = (node.tenant("guestbook")?, node.tenant("guestbook")?);
    one.post("", &json!({ "name": "Ada", "message": "for one only" }))?.expect(201)?;
    assert_eq!(one.json("")?.as_array().map(Vec::len), Some(1));
    assert_eq!(other.json("")?, json!([]));
    Ok(())
}

#[test]
fn a_tenant_has_several_functions_and_one_database() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant("guestbook")?;
    node.deploy(&tenant.name, "greet", &guest("hello")?)?;
    node.deploy(&tenant.name, "second-book", &guest("guestbook")?)?;
    tenant.post("", &json!({ "name": "Ada", "message": "Hello" }))?.expect(201)?;

    let get = |function: &str| node.request("GET", &format!("/t/{}/{function}", tenant.name), &[], b"");
    assert_eq!(get("greet")?.expect(200)?.text(), "Hello from Dormouse\n");
    assert_eq!(get("second-book")?.expect(200)?.json()?.pointer("/0/name"), Some(&json!("Ada")));
    Ok(())
}

#[test]
fn a_deploy_replaces_the_code_and_keeps_the_data() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant("guestbook")?;
    tenant.post("", &json!({ "name": "Ada", "message": "Hello" }))?.expect(201)?;
    node.deploy(&tenant.name, "fn", &guest("hello")?)?;
    assert_eq!(tenant.get("")?.expect(200)?.text(), "Hello from Dormouse\n");
    node.deploy(&tenant.name, "fn", &guest("guestbook")?)?;
    assert_eq!(tenant.json("")?.pointer("/0/name"), Some(&json!("Ada")));
    Ok(())
}

#[test]
fn a_request_in_flight_finishes_on_the_old_code() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant("misbehave")?;
    let (mut old, mut incoming) = tenant.start("/drip?chunks=3&ms=200")?;
    node.deploy(&tenant.name, "fn", &guest("hello")?)?;
    assert_eq!(tenant.get("")?.expect(200)?.text(), "Hello from Dormouse\n");
    assert_eq!(old.rest(&mut incoming)?, b"drip\ndrip\ndrip\n");
    Ok(())
}
