//! Sub-domain fan-out: distinct names this session has asked under one tenant, each weighted by its information.
//!
//! The bare count cannot part a page of forty shards from a tunnel of forty chunks; the sum of what the distinct names
//! are worth under the model of benign names can, and it does not care for chunk size, alphabet or pace. It has no
//! window: a sender that waits is the same sender.

use std::sync::LazyLock;

use super::density::{Ratio, log_normal};
use super::{Reading, Signal};
use crate::bits::Bits;

/// Location of the logarithm of (1 + bits) over benign pairs of session and tenant with a payload
/// part, under a model fitted on half of the names.
pub const BENIGN_LOCATION: f64 = 3.37;
/// Scale of the same.
pub const BENIGN_SCALE: f64 = 1.25;
/// Where the flat attack density ends: the default hard budget of a tenant, in bits.
const LIMIT: f64 = 2048.0;

static RATIO: LazyLock<Ratio> = LazyLock::new(|| {
    let (density, mode) = log_normal(BENIGN_LOCATION, BENIGN_SCALE);
    Ratio::of(&density, mode, LIMIT, 0.25)
});

/// Reading of the information in the distinct names under the tenant, this query's own included.
pub fn read(told: Bits) -> Reading {
    let bits = told.as_f64() as f32;
    Signal::SubdomainFanOut.reading(Some(bits), RATIO.at(1.0 + bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_told_never_speaks_less() {
        let at = |bits| read(Bits::whole(bits)).contribution;
        assert!((0..3_000).all(|bits| at(bits) <= at(bits + 1)));
        assert!(at(0) < 0.0);
        assert!(at(2_000) > 2.0);
    }
}
