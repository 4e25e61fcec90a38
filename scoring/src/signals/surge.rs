//! Surge: a run of rich names under one tenant, however many poor ones went before.
//!
//! A cumulative sum (Page 1954) over the tenant's distinct names: each adds what its richest label says for a payload,
//! less a drift that ordinary names do not reach, and the sum never falls below zero. What was asked long ago does not
//! thin it, as it thins an average.

use super::entropy;
use super::{CAP, Reading, Signal};
use crate::bits::Bits;
use crate::model::Information;

/// Steps of a nat in the sum as kept.
const STEPS: f32 = 256.0;
/// What a name has to say before the sum grows, nats: above the mean over benign names.
pub const DRIFT: f32 = 0.75;

/// Bits an operator has to accept for a nat of the sum: what a rich name tells for each nat it adds.
pub(super) const BITS_A_NAT: f32 = 64.0;

/// The sum with one more distinct name.
pub(crate) fn with(sum: u16, name: Information) -> u16 {
    let step = entropy::nats(name.richest, name.richest_symbols) - DRIFT;
    // `as` saturates at both ends.
    (f32::from(sum) + step * STEPS) as u16
}

/// Reading of the sum, less what an operator accepted beforehand.
pub(crate) fn read(sum: u16, allowance: Bits) -> Reading {
    let nats = (f32::from(sum) / STEPS - allowance.as_f64() as f32 / BITS_A_NAT).max(0.0);
    if nats == 0.0 {
        // No run is no evidence either way.
        return Signal::Surge.unknown();
    }
    Signal::Surge.reading(Some(nats), nats.min(CAP))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Model;

    #[test]
    fn poor_names_do_not_thin_a_run_of_rich_ones() {
        let worth = |payload: &[u8]| Model::shipped().read(payload);
        let (www, rich) = (worth(b"\x03www\x04mail"), worth(b"\x14mzxw6ytboi4dknbzgq2q"));
        let mut sum = 0;
        for _ in 0..1_000 {
            sum = with(sum, www);
        }
        assert_eq!(sum, 0);
        for _ in 0..3 {
            sum = with(sum, rich);
        }
        assert!(read(sum, Bits::ZERO).contribution > 2.0, "{:?}", read(sum, Bits::ZERO));
        for _ in 0..1_000 {
            sum = with(sum, rich);
        }
        assert_eq!(read(sum, Bits::ZERO).contribution, CAP);
    }
}
