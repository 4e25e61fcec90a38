//! Work that a disk may never end: no error says so, and what waits behind it says nothing either.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Work that goes on for longer does not end as far as anybody can tell, milliseconds. Chosen without a source; disks that are merely
/// busy take a second at most.
const HANGS: u64 = 5_000;

/// Since when a thread has been at work on one thing, on the monotonic clock, milliseconds; 0 where it is not.
#[derive(Debug, Default)]
pub struct AtWork(AtomicU64);

impl AtWork {
    /// It begins.
    pub fn begin(&self, mono: u64) {
        self.0.store(mono, Relaxed);
    }

    /// It is done, well or not.
    pub fn end(&self) {
        self.0.store(0, Relaxed);
    }

    /// Whether it has gone on for longer than any work that is well.
    pub fn hangs(&self, mono: u64) -> bool {
        let since = self.0.load(Relaxed);
        since > 0 && mono.saturating_sub(since) > HANGS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_end_hangs_and_what_is_done_does_not() {
        let work = AtWork::default();
        assert!(!work.hangs(u64::MAX), "nothing has begun");
        work.begin(1_000);
        assert!(!work.hangs(6_000) && work.hangs(6_001));
        work.end();
        assert!(!work.hangs(u64::MAX));
    }
}
