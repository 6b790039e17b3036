//! Wakes a hundred tasks all the time, which never end.
//! expect: cpu-time-limit
//! limit: cpu_time_max_ms

use std::future::poll_fn;
use std::task::Poll;

use crate::wire::{Answer, reply, sleep};

pub(crate) async fn attack() -> Answer {
    let mut tasks: Vec<_> = (0..100)
        .map(|_| {
            Box::pin(async {
                loop {
                    sleep(0).await;
                }
            })
        })
        .collect();
    poll_fn(|context| {
        for task in &mut tasks {
            let _: Poll<()> = task.as_mut().poll(context);
        }
        Poll::<()>::Pending
    })
    .await;
    reply(200, "text/plain", b"never")
}
