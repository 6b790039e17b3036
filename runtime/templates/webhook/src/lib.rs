//! Keeps every JSON event that is posted. Once the secret `webhook_token` is set, the sender must know it.

use dormouse_sdk::header::WWW_AUTHENTICATE;
use dormouse_sdk::{
    Database, Error, HeaderValue, Json, Request, RequestExt, Response, Result, Router, StatusCode,
    VariableError, function, log, secret,
};
use serde::Serialize;
use serde_json::Value;

#[derive(Serialize)]
struct Kept {
    id: i64,
}

#[function]
fn webhook(request: Request) -> Response {
    Router::new().post("/", keep).handle(request)
}

fn keep(request: Request) -> Result<(StatusCode, Json<Kept>)> {
    check_sender(&request)?;
    let event: Value = request.into_body().json()?;
    let id = Database::open()?.transaction(|db| {
        db.execute(
            "CREATE TABLE IF NOT EXISTS events (
                 id          INTEGER PRIMARY KEY,
                 received_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ')),
                 event       TEXT NOT NULL
             )",
            (),
        )?;
        db.execute("INSERT INTO events (event) VALUES (?)", [event.to_string()])?;
        Ok(db.last_insert_rowid())
    })?;
    log::info!(id = id; "kept an event");
    Ok((StatusCode::CREATED, Json(Kept { id })))
}

fn check_sender(request: &Request) -> Result<()> {
    let token = match secret("webhook_token") {
        Err(VariableError::Undefined(_)) => return Ok(()),
        token => token?,
    };
    match request.bearer_token() {
        Some(sent) if token.matches(sent) => Ok(()),
        _ => {
            let error = Error::status(StatusCode::UNAUTHORIZED, "Send the bearer token.");
            Err(error.with_header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::webhook;
    use dormouse_sdk::testing::{Tenant, TestRequest};
    use serde_json::json;

    #[test]
    fn an_event_is_kept() {
        let tenant = Tenant::new();
        let event = json!({ "order": 7 });
        let answer = tenant.call(webhook, TestRequest::post("/").json(&event));
        assert_eq!((answer.status(), answer.text()), (201, r#"{"id":1}"#));
        let kept: String = tenant
            .database()
            .query_scalar("SELECT event FROM events", ())
            .unwrap();
        assert_eq!(kept, event.to_string());
    }

    #[test]
    fn what_is_no_event_is_refused() {
        let tenant = Tenant::new();
        let garbled = TestRequest::post("/").body("no JSON");
        assert_eq!(tenant.call(webhook, garbled).status(), 400);
        assert_eq!(tenant.call(webhook, TestRequest::get("/")).status(), 405);
    }

    #[test]
    fn a_sender_must_know_the_token_once_there_is_one() {
        let tenant = Tenant::new().with_variable("webhook_token", "s3cret");
        let event = || TestRequest::post("/").json(&json!({}));
        let with = |token| event().header("authorization", token);
        assert_eq!(tenant.call(webhook, event()).status(), 401);
        assert_eq!(tenant.call(webhook, with("Bearer other")).status(), 401);
        assert_eq!(tenant.call(webhook, with("Bearer s3cret")).status(), 201);
    }
}
