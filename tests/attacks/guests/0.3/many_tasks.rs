//! Begins to wait for a day again and again, all at once.
//! expect: handle-limit
//! limit: handles_max

use std::future::poll_fn;
use std::task::Poll;

use crate::wire::{Answer, reply, sleep};

pub(crate) async fn attack() -> Answer {
    let mut waits: Vec<_> = (0..100_000).map(|_| Box::pin(sleep(24 * 60 * 60 * 1_000))).collect();
    poll_fn(|context| {
        for wait in &mut waits {
            let _ = wait.as_mut().poll(context);
        }
        Poll::Ready(())
    })
    .await;
    reply(200, "text/plain", b"waiting")
}
