//! Several calls at once on one database, and results that are read late, in part, or never.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use serde_json::{Value as Json, json};

use crate::bindings::spin::sqlite::sqlite::{Connection, Error};
use crate::sql::{self, BEGIN, CREATE, count, describe, failure, open_default, run, to_json};
use crate::wire::Sending;

/// Rows of some 1 KB each.
const LARGE: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT ?)
    SELECT i, hex(zeroblob(500)) FROM n";

async fn prepared() -> Result<Connection, Json> {
    let connection = open_default().await.map_err(|error| failure(&error))?;
    run(&connection, CREATE).await;
    Ok(connection)
}

/// Waits for all of them at once.
pub(crate) async fn all<F: Future>(calls: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut calls: Vec<_> = calls.map(|call| (Box::pin(call), None)).collect();
    poll_fn(|context| {
        for (call, output) in &mut calls {
            if output.is_none()
                && let Poll::Ready(ready) = call.as_mut().poll(context)
            {
                *output = Some(ready);
            }
        }
        if calls.iter().all(|(_, output)| output.is_some()) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    calls.into_iter().filter_map(|(_, output)| output).collect()
}

/// Starts a call and does not wait for it.
pub(crate) async fn start<F: Future>(call: Pin<&mut F>) {
    let mut call = Some(call);
    poll_fn(|context| {
        if let Some(call) = call.take() {
            let _ = call.poll(context);
        }
        Poll::Ready(())
    })
    .await;
}

/// Many inserts at once, inside of one transaction that is begun and committed among them.
pub(crate) async fn many(calls: u64) -> Json {
    let connection = match prepared().await {
        Ok(connection) => connection,
        Err(error) => return error,
    };
    let insert = |number: u64| format!("INSERT INTO log(note) VALUES ('{number}')");
    let statements = std::iter::once(BEGIN.to_owned())
        .chain((1..=calls).map(insert))
        .chain(["COMMIT".to_owned()])
        .collect::<Vec<_>>();
    all(statements.iter().map(|sql| run(&connection, sql))).await.into()
}

/// A call that blocks while others of this guest are under way.
pub(crate) async fn blocking_beside() -> Json {
    let connection = match prepared().await {
        Ok(connection) => connection,
        Err(error) => return error,
    };
    let mut first = Box::pin(run(&connection, "INSERT INTO log(note) VALUES ('first'), ('second')"));
    start(first.as_mut()).await;
    let mut asked = Box::pin(connection.changes_async());
    start(asked.as_mut()).await;
    let seen = connection.execute("SELECT count(*) FROM log", &[]);
    let seen =
        seen.map(|result| result.rows.iter().flat_map(|row| &row.values).map(to_json).collect::<Json>());
    let (rowid, changes) = (connection.last_insert_rowid(), connection.changes());
    json!({
        "seen": seen.unwrap_or_else(|error| failure(&error)),
        "rowid": rowid,
        "changes": changes,
        "asked": asked.await,
        "first": first.await,
    })
}

/// Calls that are given up while they wait and while they run.
pub(crate) async fn give_up() -> Json {
    let connection = match prepared().await {
        Ok(connection) => connection,
        Err(error) => return error,
    };
    let begin = run(&connection, BEGIN).await;
    for _ in 0..10 {
        let mut insert = Box::pin(run(&connection, "INSERT INTO log(note) VALUES ('given up')"));
        start(insert.as_mut()).await;
        let mut again = Box::pin(run(&connection, "INSERT INTO log(note) VALUES ('given up')"));
        start(again.as_mut()).await;
    }
    let inside = count(&connection).await;
    let rollback = run(&connection, "ROLLBACK").await;
    json!({ "begin": begin, "inside": inside, "rollback": rollback, "after": count(&connection).await })
}

/// What a statement that cannot be prepared looks like.
pub(crate) async fn prepare_error() -> Json {
    let connection = match prepared().await {
        Ok(connection) => connection,
        Err(error) => return error,
    };
    match connection.execute_async("SELEKT".to_owned(), Vec::new()).await {
        Err(error) => json!({ "at once": describe(&error) }),
        Ok((columns, rows, ended)) => {
            let rows = rows.collect().await.len();
            let ended = ended.await.err();
            json!({ "columns": columns, "rows": rows, "ended": ended.as_ref().map(describe) })
        }
    }
}

/// Sends rows on as they come.
pub(crate) async fn rows(mut sending: Sending, wanted: u64) -> Result<(), Error> {
    let connection = open_default().await?;
    let (columns, mut rows, ended) =
        connection.execute_async(LARGE.to_owned(), vec![sql::number(wanted)]).await?;
    sending.write(format!("{}\n", columns.join(" ")).as_bytes()).await;
    while let Some(row) = rows.next().await {
        let line: Vec<String> = row.values.iter().map(|value| to_json(value).to_string()).collect();
        sending.write(format!("{}\n", line.join(" ")).as_bytes()).await;
    }
    ended.await?;
    sending.write(b"end\n").await;
    Ok(())
}

/// Large results of which one row is read, or none; each is dropped before the next is asked for.
pub(crate) async fn drop_rows(times: u64) -> Json {
    let connection = match prepared().await {
        Ok(connection) => connection,
        Err(error) => return error,
    };
    let mut read = 0;
    for time in 0..times {
        match connection.execute_async(LARGE.to_owned(), vec![sql::number(8_000)]).await {
            Err(error) => return failure(&error),
            Ok((_, mut rows, ended)) => {
                if time % 2 == 0 {
                    read += usize::from(rows.next().await.is_some());
                }
                if time % 3 == 0 {
                    drop(rows);
                    if let Err(error) = ended.await {
                        return failure(&error);
                    }
                }
            }
        }
    }
    json!({ "read": read })
}

/// Large results that all wait to be read.
pub(crate) async fn hoard_rows() -> Json {
    let connection = match prepared().await {
        Ok(connection) => connection,
        Err(error) => return error,
    };
    let ask = || connection.execute_async(LARGE.to_owned(), vec![sql::number(10_000)]);
    let first = match ask().await {
        Ok((_, rows, _)) => rows,
        Err(error) => return failure(&error),
    };
    let second = match ask().await {
        Ok((_, _, ended)) => ended.await.err(),
        Err(error) => return failure(&error),
    };
    drop(first);
    let third = match ask().await {
        Ok((_, rows, _)) => rows.collect().await.len(),
        Err(error) => return failure(&error),
    };
    json!({ "second": second.as_ref().map(describe), "third": third })
}

/// A result whose ends are never closed.
pub(crate) async fn forget_rows() -> Json {
    let connection = match prepared().await {
        Ok(connection) => connection,
        Err(error) => return error,
    };
    for _ in 0..20 {
        let asked = connection.execute_async("SELECT 1 UNION ALL SELECT 2".to_owned(), Vec::new()).await;
        std::mem::forget(asked);
    }
    json!("forgotten")
}

/// More text than may wait at once.
pub(crate) async fn flood(calls: u64) -> Json {
    let connection = match prepared().await {
        Ok(connection) => connection,
        Err(error) => return error,
    };
    // Its first call keeps the others waiting.
    let slow =
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 200000) SELECT max(i) FROM n";
    let text = format!("SELECT length('{}')", "x".repeat(90_000));
    let statements =
        std::iter::once(slow.to_owned()).chain((0..calls).map(|_| text.clone())).collect::<Vec<_>>();
    all(statements.iter().map(|sql| run(&connection, sql))).await.into()
}
