//! Name errors: share of answers under a tenant that deny the name (NXDOMAIN).
//!
//! A one-way leak needs no zone behind it, and generated names mostly do not exist. There is no trace with answers to fit
//! on: the density is chosen wide (mean one in six), so that only a clear majority speaks.

use std::sync::LazyLock;

use super::share::Share;
use super::{Reading, Signal};

/// First parameter of the benign share's beta density; chosen.
pub const BENIGN_ALPHA: f64 = 0.5;
/// Second parameter.
pub const BENIGN_BETA: f64 = 2.5;
/// Fewer say nothing.
pub const FEWEST: u32 = 4;

static RATIO: LazyLock<Share> = LazyLock::new(|| Share::of(BENIGN_ALPHA, BENIGN_BETA));

/// Reading of `k` such answers among `n`.
pub fn read(k: u32, n: u32) -> Reading {
    if n < FEWEST {
        return Signal::NameErrors.unknown();
    }
    Signal::NameErrors.reading(Some(k as f32 / n as f32), RATIO.at(k, n).max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clear_majority_speaks() {
        assert!(read(2, 8).contribution < 0.5);
        assert!(read(16, 16).contribution > 1.5);
        assert_eq!(read(3, 3).value, None);
    }
}
