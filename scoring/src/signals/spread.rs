//! Spread: rich names over all unlisted domains of a session.
//!
//! A leak over many domains, or over tenants of platforms, shows little to any one account; the session sees all of it.
//! The same cumulative sum as [`super::surge`], over the session's distinct unlisted names, each by the richest label of
//! its part under the ICANN-level domain, so that a tenant's own label counts. Ordinary sessions meet rich names
//! too (shards, distributions, buckets), but among many poor ones, which take the sum back.

use super::entropy;
use super::surge::BITS_A_NAT;
use super::{CAP, Reading, Signal};
use crate::bits::Bits;
use crate::model::Information;

const STEPS: f32 = 256.0;
/// What a name has to say before the sum grows, nats: above the mean over benign names.
pub const DRIFT: f32 = 0.75;
/// Below this the sum says nothing: ordinary sessions reach it.
pub const FROM: f32 = 6.0;
/// Nats of the sum for one nat of contribution beyond.
pub const SLOPE: f32 = 1.0;

/// The sum with one more distinct name.
pub(crate) fn with(sum: u32, name: Information) -> u32 {
    let step = entropy::nats(name.richest, name.richest_symbols) - DRIFT;
    // `as` saturates at both ends.
    (sum as f32 + step * STEPS) as u32
}

/// Reading of the sum, less what an operator accepted beforehand.
pub(crate) fn read(sum: u32, allowance: Bits) -> Reading {
    let nats = (sum as f32 / STEPS - allowance.as_f64() as f32 / BITS_A_NAT).max(0.0);
    if nats <= FROM {
        // No run is no evidence either way.
        return Signal::Spread.unknown();
    }
    Signal::Spread.reading(Some(nats), ((nats - FROM) / SLOPE).clamp(0.0, CAP))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Model;

    #[test]
    fn rich_names_add_up_and_poor_ones_take_back() {
        let worth = |payload: &[u8]| Model::shipped().read(payload);
        let (www, rich) = (worth(b"\x03www"), worth(b"\x18ah7il7xohydbf7zi5dl5bgmh"));
        let mut sum = 0;
        let names = (1..100).find(|_| {
            sum = with(sum, rich);
            read(sum, Bits::ZERO).contribution == CAP
        });
        assert!(names.is_some_and(|names| names <= 12), "{names:?}");
        for _ in 0..100 {
            sum = with(sum, www);
        }
        assert_eq!(read(sum, Bits::ZERO).contribution, 0.0);
    }
}
