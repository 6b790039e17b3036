//! Work after the response.

use crate::bindings::spin::sqlite::sqlite::Value;
use crate::deeds;
use crate::sql::{self, CREATE, open_default, run};
use crate::wire::{Answer, Sending, head, reply, sleep};
use wasip3::wit_bindgen::spawn_local;

async fn note(text: &str) {
    if let Ok(connection) = open_default().await {
        run(&connection, CREATE).await;
        sql::execute(&connection, "INSERT INTO log(note) VALUES (?)", &[Value::Text(text.to_owned())]).await;
    }
}

/// Answers, and writes a row after a while.
pub(crate) fn later(status: u16, ms: u64) -> Answer {
    let answer = if status == 204 {
        head(204, "text/plain").map(|(head, ..)| head)
    } else {
        reply(status, "text/plain", b"answered")
    };
    spawn_local(async move {
        sleep(ms).await;
        note("after the response").await;
    });
    answer
}

/// Answers, and fails after a while.
pub(crate) fn trap(ms: u64) -> Answer {
    let answer = reply(200, "text/plain", b"answered");
    spawn_local(async move {
        sleep(ms).await;
        note("before the trap").await;
        deeds::trap();
    });
    answer
}

/// Answers, and never stops computing.
pub(crate) fn spin() -> Answer {
    let answer = reply(200, "text/plain", b"answered");
    spawn_local(async move {
        sleep(1).await;
        deeds::spin();
    });
    answer
}

/// Answers, waits until the client has the whole response, and writes down how that went.
pub(crate) fn delivered() -> Answer {
    let (response, mut sending, transmitted) = head(200, "text/plain")?;
    spawn_local(async move {
        sending.write(b"answered").await;
        drop::<Sending>(sending);
        match transmitted.await {
            Ok(()) => note("delivered").await,
            Err(code) => note(&format!("not delivered: {code:?}")).await,
        }
    });
    Ok(response)
}
