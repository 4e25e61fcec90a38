//! Unique names: share of forwarded queries under a tenant that ask for a name not asked before.
//!
//! A sender never repeats itself; ordinary work comes back to the names it knows, and asks each by two types. The cache
//! hides some repeats, so the benign share is high too and the signal weak by itself.

use std::sync::LazyLock;

use super::share::Share;
use super::{Reading, Signal};

/// First parameter of the benign share's beta density over pairs of session and tenant (`fit --densities`).
pub const BENIGN_ALPHA: f64 = 1.4;
/// Second parameter.
pub const BENIGN_BETA: f64 = 2.2;
/// Fewer say nothing.
pub const FEWEST: u32 = 4;

static RATIO: LazyLock<Share> = LazyLock::new(|| Share::of(BENIGN_ALPHA, BENIGN_BETA));

/// Largest contribution, nats: pages with many shards and crawlers never repeat themselves either, so this adds to what
/// others say and never agrees with them.
pub const MOST: f32 = 0.9;

/// Reading of `k` new names among `n` forwarded queries.
pub fn read(k: u32, n: u32) -> Reading {
    if n < FEWEST {
        return Signal::UniqueNames.unknown();
    }
    Signal::UniqueNames.reading(Some(k as f32 / n as f32), RATIO.at(k, n).clamp(0.0, MOST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_that_never_repeats_speaks_up() {
        assert!(read(16, 16).contribution > read(8, 16).contribution);
        assert!(read(1, 16).contribution <= read(12, 16).contribution);
        assert_eq!(read(3, 3).value, None);
    }
}
