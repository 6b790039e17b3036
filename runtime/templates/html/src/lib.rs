//! A page with a form and a list of what was sent by it.

use dormouse_sdk::{
    Database, DatabaseError, Error, Escaped, Html, Redirect, Request, RequestExt, Response, Result,
    Router, StatusCode, function,
};
use serde::Deserialize;

#[function]
fn app(request: Request) -> Response {
    Router::new().get("/", show).post("/", add).handle(request)
}

#[derive(Deserialize)]
struct Note {
    text: String,
}

fn show(request: Request) -> Result<Html<String>> {
    let sql = "SELECT text FROM notes ORDER BY id DESC LIMIT 100";
    let notes = with_table(|db| db.query_as(sql, ()))?;
    Ok(Html(page(&request.link("/"), &notes)))
}

fn add(request: Request) -> Result<Redirect> {
    if request.is_cross_origin() {
        let told = "This form belongs to another page.";
        return Err(Error::status(StatusCode::FORBIDDEN, told));
    }
    let home = request.link("/");
    let Note { text } = request.form()?;
    if !text.trim().is_empty() {
        with_table(|db| db.execute("INSERT INTO notes (text) VALUES (?)", [&text]))?;
    }
    Ok(Redirect::to(home))
}

/// Everything that a visitor wrote is escaped.
fn page(action: &str, notes: &[Note]) -> String {
    let items: String = notes
        .iter()
        .map(|note| format!("<li>{}\n", Escaped(&note.text)))
        .collect();
    format!(
        r#"<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Notes</title>
<style>body {{ font: 1rem/1.5 system-ui; max-width: 40rem; margin: 2rem auto; padding: 0 1rem }}</style>
<h1>Notes</h1>
<form method="post" action="{action}">
<input name="text" aria-label="Note" required autofocus> <button>Add</button>
</form>
<ul>
{items}</ul>
"#,
        action = Escaped(action)
    )
}

/// Does some work; if this is the first time ever, makes the table and does it again.
fn with_table<T>(work: impl Fn(&Database) -> Result<T, DatabaseError>) -> Result<T, DatabaseError> {
    let db = Database::open()?;
    match work(&db) {
        Err(DatabaseError::NoSuchTable(_)) => {
            db.execute(
                "CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL)",
                (),
            )?;
            work(&db)
        }
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::app;
    use dormouse_sdk::testing::{Tenant, TestRequest};

    fn note(text: &str) -> TestRequest {
        TestRequest::post("/").form(&[("text", text)])
    }

    #[test]
    fn what_was_sent_is_on_the_page_and_escaped() {
        let tenant = Tenant::new();
        let added = tenant.call(app, note("1 < 2"));
        assert_eq!(added.status(), 303);
        assert_eq!(added.header("location"), Some("/t/test/fn/"));
        let page = tenant.call(app, TestRequest::get("/"));
        assert!(page.text().contains("<li>1 &lt; 2\n"), "{}", page.text());
    }

    #[test]
    fn nothing_is_added_for_nothing_or_for_other_sites() {
        let tenant = Tenant::new();
        assert_eq!(tenant.call(app, note(" ")).status(), 303);
        let foreign = note("Buy!").header("origin", "https://evil.example");
        assert_eq!(tenant.call(app, foreign).status(), 403);
        let page = tenant.call(app, TestRequest::get("/"));
        assert!(!page.text().contains("<li>"), "{}", page.text());
    }
}
