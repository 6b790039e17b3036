//! What a tenant's requests take of the processor: a running mean over its latest, kept while it has any.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::name::Id;

/// How much one more request counts: an eighth.
const WEIGHT: u32 = 8;

/// The CPU time of a tenant's typical request.
#[derive(Debug)]
pub struct Load {
    tenant: Id,
    microseconds: AtomicU32,
}

impl Load {
    /// That of a tenant of which nothing is known yet.
    #[must_use]
    pub fn new(tenant: Id) -> Self {
        Self { tenant, microseconds: AtomicU32::new(0) }
    }

    /// Whose it is.
    #[must_use]
    pub fn tenant(&self) -> &Id {
        &self.tenant
    }

    /// Takes note of what a request took. Of two at the same moment one may be lost.
    pub fn note(&self, used: Duration) {
        let used = u32::try_from(used.as_micros()).unwrap_or(u32::MAX);
        let before = self.microseconds.load(Ordering::Relaxed);
        let after = (before - before / WEIGHT).saturating_add(used / WEIGHT);
        self.microseconds.store(after, Ordering::Relaxed);
    }

    /// What a request takes, by what the latest have taken.
    #[must_use]
    pub fn typical(&self) -> Duration {
        Duration::from_micros(self.microseconds.load(Ordering::Relaxed).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_what_requests_take() -> std::io::Result<()> {
        let load = Load::new(Id::random()?);
        assert_eq!(load.typical(), Duration::ZERO);
        load.note(Duration::from_secs(1));
        assert_eq!(load.typical(), Duration::from_millis(125), "one is enough to be noticed");
        (0..100).for_each(|_| load.note(Duration::from_micros(200)));
        assert!(load.typical() < Duration::from_micros(300), "{:?}", load.typical());
        load.note(Duration::MAX);
        load.note(Duration::MAX);
        assert!(load.typical() > Duration::from_secs(600));
        Ok(())
    }
}
