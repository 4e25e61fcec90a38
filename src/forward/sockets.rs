//! How many sockets exchanges may hold, so that upstreams that are slow or dead do not take every descriptor there is.
//!
//! A few may wait for their next query ([`idle`]); what is left is counted. A try holds one. Second queries (hedges, repeats)
//! get one only while half of them are free: with at most half as many exchanges as sockets, an exchange's first try always
//! finds one.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many of `most` sockets may wait for their next query. Chosen without a source: what a busy service has under way.
pub(super) fn idle(most: usize) -> usize {
    (most / 16).min(512)
}

/// Sockets that may be open beside those that wait.
#[derive(Debug)]
pub(super) struct Sockets {
    free: Arc<Semaphore>,
    half: usize,
}

impl Sockets {
    /// At most `most` with those that wait.
    pub(super) fn new(most: usize) -> Self {
        let most = most.clamp(2, Semaphore::MAX_PERMITS);
        Self { free: Arc::new(Semaphore::new(most - idle(most))), half: most / 2 }
    }

    /// Leave to open one until it is dropped; `further`: the exchange has one already.
    pub(super) fn take(&self, further: bool) -> Option<OwnedSemaphorePermit> {
        if further && self.free.available_permits() <= self.half {
            return None;
        }
        self.free.clone().try_acquire_owned().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_tries_find_one_whatever_second_ones_hold() {
        let sockets = Sockets::new(16);
        let further: Vec<_> = (0..100).map_while(|_| sockets.take(true)).collect();
        assert_eq!(further.len(), 7, "one may wait");
        let first: Vec<_> = (0..100).map_while(|_| sockets.take(false)).collect();
        assert_eq!(first.len(), 8);
        assert!(sockets.take(true).is_none());
        drop(first);
        assert!(sockets.take(true).is_none() && sockets.take(false).is_some());
        drop(further);
        assert!(sockets.take(true).is_some());
    }
}
