//! Regularity: share of gaps between queries under a tenant that keep the rhythm of the gap before.
//!
//! Beacons keep time. So do honest pollers, which is why the signal is weak; it adds to others, and polling of one known
//! name tells nothing that would be refused.

use std::sync::LazyLock;

use super::share::Share;
use super::{Reading, Signal};

/// First parameter of the benign share's beta density over pairs of session and tenant (`fit --densities`).
pub const BENIGN_ALPHA: f64 = 0.36;
/// Second parameter.
pub const BENIGN_BETA: f64 = 1.1;
/// Fewer say nothing.
pub const FEWEST: u32 = 6;

static RATIO: LazyLock<Share> = LazyLock::new(|| Share::of(BENIGN_ALPHA, BENIGN_BETA));

/// Largest contribution, nats: every poller keeps time, so this adds to what others say and never agrees with them.
pub const MOST: f32 = 0.9;

/// Reading of `k` gaps in rhythm among `n`.
pub fn read(k: u32, n: u32) -> Reading {
    if n < FEWEST {
        return Signal::Regularity.unknown();
    }
    Signal::Regularity.reading(Some(k as f32 / n as f32), RATIO.at(k, n).clamp(0.0, MOST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_rhythm_speaks() {
        assert!(read(14, 15).contribution > 0.8);
        assert!(read(1, 15).contribution < 0.3);
        assert_eq!(read(5, 5).value, None);
    }
}
