//! A REST API over one table.
//!
//! | request | answer |
//! |---|---|
//! | `GET /tasks?done=` | the tasks, all or those that are done or not |
//! | `POST /tasks` | 201 and the new task |
//! | `GET /tasks/{id}` | the task |
//! | `PUT /tasks/{id}` | the task as it is now |
//! | `DELETE /tasks/{id}` | 204 |

use dormouse_sdk::{
    Database, DatabaseError, Error, IntoResponse, Json, Request, RequestExt, Response, Result,
    Router, StatusCode, function, header, named,
};
use serde::{Deserialize, Serialize};

#[function]
fn tasks(request: Request) -> Response {
    Router::new()
        .get("/tasks", list)
        .post("/tasks", create)
        .get("/tasks/{id}", read)
        .put("/tasks/{id}", replace)
        .delete("/tasks/{id}", remove)
        .handle(request)
}

#[derive(Serialize, Deserialize)]
struct Task {
    id: i64,
    title: String,
    done: bool,
}

/// What a caller sends.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Draft {
    title: String,
    #[serde(default)]
    done: bool,
}

#[derive(Deserialize)]
struct Filter {
    done: Option<bool>,
}

fn list(request: Request) -> Result<Json<Vec<Task>>> {
    let Filter { done } = request.query()?;
    let sql = "SELECT * FROM tasks WHERE :done IS NULL OR done = :done ORDER BY id LIMIT 1000";
    let tasks = with_table(|db| db.query_as(sql, named! { done: done }))?;
    Ok(Json(tasks))
}

fn create(request: Request) -> Result<Response> {
    let link = request.link("/tasks");
    let Draft { title, done } = draft(request)?;
    let sql = "INSERT INTO tasks (title, done) VALUES (?, ?) RETURNING *";
    let task: Task = with_table(|db| db.query_one(sql, (&title, done)))?;
    let location = format!("{link}/{}", task.id);
    Ok((StatusCode::CREATED, Json(task)).with_header(header::LOCATION, location))
}

fn read(request: Request) -> Result<Json<Task>> {
    let id: i64 = request.param("id")?;
    let task = with_table(|db| db.query_optional("SELECT * FROM tasks WHERE id = ?", [id]))?;
    task.map(Json).ok_or_else(missing)
}

fn replace(request: Request) -> Result<Json<Task>> {
    let id: i64 = request.param("id")?;
    let Draft { title, done } = draft(request)?;
    let sql = "UPDATE tasks SET title = ?, done = ? WHERE id = ? RETURNING *";
    let task = with_table(|db| db.query_optional(sql, (&title, done, id)))?;
    task.map(Json).ok_or_else(missing)
}

fn remove(request: Request) -> Result<()> {
    let id: i64 = request.param("id")?;
    match with_table(|db| db.execute("DELETE FROM tasks WHERE id = ?", [id]))? {
        0 => Err(missing()),
        _ => Ok(()),
    }
}

fn draft(request: Request) -> Result<Draft> {
    let draft: Draft = request.into_body().json()?;
    if draft.title.trim().is_empty() {
        let told = "A task needs a title.";
        return Err(Error::status(StatusCode::UNPROCESSABLE_ENTITY, told));
    }
    Ok(draft)
}

fn missing() -> Error {
    Error::status(StatusCode::NOT_FOUND, "There is no such task.")
}

/// Does some work; if this is the first time ever, makes the table and does it again.
fn with_table<T>(work: impl Fn(&Database) -> Result<T, DatabaseError>) -> Result<T, DatabaseError> {
    let db = Database::open()?;
    match work(&db) {
        Err(DatabaseError::NoSuchTable(_)) => {
            db.execute(
                "CREATE TABLE IF NOT EXISTS tasks (
                     id    INTEGER PRIMARY KEY,
                     title TEXT NOT NULL,
                     done  INTEGER NOT NULL
                 )",
                (),
            )?;
            work(&db)
        }
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::tasks;
    use dormouse_sdk::testing::{Tenant, TestRequest};
    use serde_json::{Value, json};

    #[test]
    fn a_task_is_made_read_changed_and_removed() {
        let tenant = Tenant::new();
        let made = tenant.call(
            tasks,
            TestRequest::post("/tasks").json(&json!({ "title": "Tea" })),
        );
        assert_eq!(made.status(), 201);
        assert_eq!(made.header("location"), Some("/t/test/fn/tasks/1"));
        let task = json!({ "id": 1, "title": "Tea", "done": false });
        assert_eq!(made.json::<Value>(), task);
        let read = tenant.call(tasks, TestRequest::get("/tasks/1"));
        assert_eq!(read.json::<Value>(), task);

        let done = json!({ "title": "Tea", "done": true });
        let changed = tenant.call(tasks, TestRequest::put("/tasks/1").json(&done));
        assert_eq!(changed.json::<Value>()["done"], true);
        let left = tenant.call(tasks, TestRequest::get("/tasks?done=false"));
        assert_eq!(left.text(), "[]");

        let removed = tenant.call(tasks, TestRequest::delete("/tasks/1"));
        assert_eq!(removed.status(), 204);
        let gone = tenant.call(tasks, TestRequest::get("/tasks/1"));
        assert_eq!(gone.status(), 404);
    }

    #[test]
    fn what_is_no_task_is_a_problem() {
        let tenant = Tenant::new();
        let post = |body| tenant.call(tasks, TestRequest::post("/tasks").json(&body));
        let refused = post(json!({ "title": " " }));
        assert_eq!(refused.status(), 422);
        let problem: Value = refused.json();
        assert_eq!(problem["detail"], "A task needs a title.");
        assert_eq!(post(json!({ "name": "Tea" })).status(), 400);
        let odd = tenant.call(tasks, TestRequest::get("/tasks/one"));
        assert_eq!(odd.status(), 400);
    }
}
