//! A tenant's open sessions that no request uses, and the requests that wait for one.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use super::{Session, Tenant, lock, park};
use crate::limits;

#[derive(Default)]
pub(super) struct Idle {
    sessions: Vec<Session>,
    /// Those who wait, in their order. A sender that is dropped says that no session comes.
    waiting: VecDeque<oneshot::Sender<Session>>,
}

impl Idle {
    /// Gives a session to who has waited for longest; gives it back when nobody waits.
    fn hand_over(&mut self, mut session: Session) -> Option<Session> {
        while let Some(waiting) = self.waiting.pop_front() {
            match waiting.send(session) {
                Ok(()) => return None,
                Err(back) => session = back,
            }
        }
        Some(session)
    }
}

impl Tenant {
    /// Gives a session to who has waited for longest; gives it back when nobody waits.
    pub(super) fn hand_over(&self, session: Session) -> Option<Session> {
        lock(&self.idle).hand_over(session)
    }

    /// Keeps a session that has entered the lot. It leaves it again when somebody has begun to wait for one.
    pub(super) fn keep(&self, session: Session) {
        let mut idle = lock(&self.idle);
        let bytes = session.memory_bytes;
        match idle.hand_over(session) {
            Some(session) => idle.sessions.push(session),
            None => self.shared.lot.leave(bytes),
        }
    }

    pub(super) fn has_idle(&self) -> bool {
        !lock(&self.idle).sessions.is_empty()
    }

    /// When a parked session was used last.
    pub(super) fn last_use(&self) -> Option<Instant> {
        lock(&self.idle).sessions.iter().map(|session| session.used).max()
    }

    /// A parked session.
    pub(super) fn take_idle(&self) -> Option<Session> {
        self.take_from(&mut lock(&self.idle))
    }

    /// All parked sessions.
    pub(super) fn take_all_idle(&self) -> Vec<Session> {
        let mut idle = lock(&self.idle);
        std::iter::from_fn(|| self.take_from(&mut idle)).collect()
    }

    /// A session whose process has ended is not there any more.
    fn take_from(&self, idle: &mut Idle) -> Option<Session> {
        while let Some(session) = idle.sessions.pop() {
            self.shared.lot.leave(session.memory_bytes);
            if self.shared.database.is_alive(session.id) {
                return Some(session);
            }
        }
        None
    }

    /// A session that is open already. While another request has the tenant's, one waits a moment for it: opening one
    /// more costs more than most requests need theirs for. Who finds somebody waiting opens another, so that a busy
    /// tenant's requests run beside each other.
    pub(super) async fn open_session(self: &Arc<Self>) -> Option<Session> {
        let waiter = {
            let mut idle = lock(&self.idle);
            let session = self.take_from(&mut idle);
            idle.waiting.retain(|waiting| !waiting.is_closed());
            if session.is_some() || !self.has_sessions() || !idle.waiting.is_empty() {
                return session;
            }
            let (sender, receiver) = oneshot::channel();
            idle.waiting.push_back(sender);
            Waiter { tenant: self.clone(), receiver }
        };
        waiter.session().await
    }

    /// Ends a session that is closed. Whoever waits for it opens another.
    pub(super) fn end(&self, session: Session) {
        drop(session);
        let mut idle = lock(&self.idle);
        while idle.waiting.pop_front().is_some_and(|waiting| waiting.is_closed()) {}
    }
}

/// A request that waits for a session of its tenant.
struct Waiter {
    tenant: Arc<Tenant>,
    receiver: oneshot::Receiver<Session>,
}

impl Waiter {
    async fn session(mut self) -> Option<Session> {
        let session = match tokio::time::timeout(limits::SESSION_WAIT, &mut self.receiver).await {
            Ok(session) => session.ok(),
            Err(_) => self.last_moment(),
        };
        session.filter(|session| self.tenant.shared.database.is_alive(session.id))
    }

    /// Waits no longer; a session may have come just now.
    fn last_moment(&mut self) -> Option<Session> {
        self.receiver.close();
        self.receiver.try_recv().ok()
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if let Some(session) = self.last_moment() {
            park::park(&self.tenant, session);
        }
    }
}
