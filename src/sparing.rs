//! Warnings that would repeat for as long as a fault lasts: one a minute, which says how many were kept back.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Between two warnings of one kind, milliseconds.
const EVERY: u64 = 60_000;

/// One kind of warning. Shared by whoever may give it, without a lock.
#[derive(Debug, Default)]
pub struct Sparing {
    /// Not before this, monotonic milliseconds.
    next: AtomicU64,
    kept: AtomicU64,
}

impl Sparing {
    /// Nothing was told yet.
    pub const fn new() -> Self {
        Self { next: AtomicU64::new(0), kept: AtomicU64::new(0) }
    }

    /// Whether to warn at `mono` (monotonic milliseconds): how many like it were kept back since the last one that was told.
    /// Otherwise this one is counted as kept back.
    pub fn turn(&self, mono: u64) -> Option<u64> {
        let next = self.next.load(Relaxed);
        if mono >= next && self.next.compare_exchange(next, mono.saturating_add(EVERY), Relaxed, Relaxed).is_ok() {
            return Some(self.kept.swap(0, Relaxed));
        }
        self.kept.fetch_add(1, Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_a_minute_is_told_with_the_number_of_those_that_were_not() {
        let sparing = Sparing::new();
        let told: Vec<_> = (0..150).filter_map(|second| Some((second, sparing.turn(1000 + second * 1000)?))).collect();
        assert_eq!(told, [(0, 0), (60, 59), (120, 59)]);
        assert_eq!(sparing.turn(u64::MAX), Some(29));
        assert_eq!(sparing.turn(u64::MAX), Some(0), "at the end of time nothing overflows");
    }
}
