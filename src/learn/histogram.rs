//! Counts in fixed bins: a quantile sketch whose error is the width of a bin, whatever was counted and in what order.
//!
//! Fixed bins can be added up and taken back exactly, which a sampling sketch cannot: two histograms merge by addition,
//! and a session that turns out to be no example is subtracted again.

use serde::{Deserialize, Serialize};
use staunch_scoring::Bits;

/// Largest count that is believed when it is read back: no deployment sees more, and sums of such never overflow.
const MAX_COUNT: u64 = 1 << 48;

/// What is counted, and so how wide the bins are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// Scores: bins of a sixteenth of a nat from 0 to 16; what is below or above is in the first or the last.
    Nats,
    /// Bits of a ledger: sixteen bins to a doubling from 1 bit to 2^24; what is below 1 bit is in the first.
    Bits,
}

/// Bins to a nat.
pub const PER_NAT: u16 = 16;
/// Bins to a doubling of bits.
const PER_DOUBLING: u16 = 16;

impl Scale {
    /// Number of bins.
    pub const fn bins(self) -> u16 {
        match self {
            Self::Nats => 16 * PER_NAT,
            Self::Bits => 1 + 24 * PER_DOUBLING,
        }
    }

    /// The smallest value of a bin.
    pub fn lower(self, bin: u16) -> f64 {
        match (self, bin) {
            (Self::Nats, bin) => f64::from(bin) / f64::from(PER_NAT),
            (Self::Bits, 0) => 0.0,
            (Self::Bits, bin) => (f64::from(bin - 1) / f64::from(PER_DOUBLING)).exp2(),
        }
    }

    /// Where the next bin begins.
    pub fn upper(self, bin: u16) -> f64 {
        self.lower(bin.saturating_add(1))
    }
}

/// The bin of a score. A threshold of whole sixteenths lies between two bins, so counts on either side are exact.
pub fn bin_of_nats(nats: f32) -> u16 {
    // A cast of a float saturates: below zero and not a number are 0.
    ((nats * f32::from(PER_NAT)) as u16).min(Scale::Nats.bins() - 1)
}

/// The bin of an amount of bits.
pub fn bin_of_bits(bits: Bits) -> u16 {
    let bits = bits.as_f64();
    if bits < 1.0 {
        return 0;
    }
    (1 + (bits.log2() * f64::from(PER_DOUBLING)) as u16).min(Scale::Bits.bins() - 1)
}

/// A quantile, as far as the bins tell.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Quantile {
    /// The value is at least this,
    pub at_least: f64,
    /// and less than this.
    pub below: f64,
}

/// See the module. At most 3 KiB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram {
    scale: Scale,
    counts: Box<[u64]>,
    total: u64,
}

impl Histogram {
    /// Nothing counted.
    pub fn new(scale: Scale) -> Self {
        Self { scale, counts: vec![0; usize::from(scale.bins())].into(), total: 0 }
    }

    /// Counts one value; a bin past the last is the last.
    pub fn add(&mut self, bin: u16) {
        let last = self.counts.len() - 1;
        self.counts[usize::from(bin).min(last)] += 1;
        self.total += 1;
    }

    /// Takes back one value that was counted. Nothing happens where there is none in that bin: the sketch was reset
    /// since.
    pub fn remove(&mut self, bin: u16) {
        let last = self.counts.len() - 1;
        let count = &mut self.counts[usize::from(bin).min(last)];
        if *count > 0 {
            *count -= 1;
            self.total -= 1;
        }
    }

    /// Adds what another of the same scale has counted.
    pub fn merge(&mut self, other: &Self) {
        debug_assert_eq!(self.scale, other.scale);
        for (into, from) in self.counts.iter_mut().zip(&other.counts) {
            *into += from;
        }
        self.total += other.total;
    }

    /// Values counted.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Values in this bin and those above.
    pub fn at_or_above(&self, bin: u16) -> u64 {
        self.counts.iter().skip(usize::from(bin)).sum()
    }

    /// The value that a share `q` of what was counted does not exceed, to the width of a bin. `None` where the sample
    /// does not carry it: with `n` values a share of less than `3 / n` above (the upper 95 % limit of none in `n`) is not
    /// told from nothing.
    pub fn quantile(&self, q: f64) -> Option<Quantile> {
        if self.total == 0 || (1.0 - q) * (self.total as f64) < 3.0 {
            return None;
        }
        let rank = ((q * self.total as f64).ceil() as u64).clamp(1, self.total);
        let mut below = 0;
        let bin = self.counts.iter().position(|count| {
            below += count;
            below >= rank
        })?;
        let bin = bin as u16;
        Some(Quantile { at_least: self.scale.lower(bin), below: self.scale.upper(bin) })
    }

    /// Bins that hold anything, with their counts.
    pub fn sparse(&self) -> Vec<(u16, u64)> {
        (0..).zip(&self.counts).filter(|(_, count)| **count > 0).map(|(bin, count)| (bin, *count)).collect()
    }

    /// From what [`Histogram::sparse`] gave; `None` for what no histogram of this scale gives.
    pub fn from_sparse(scale: Scale, sparse: &[(u16, u64)]) -> Option<Self> {
        let mut histogram = Self::new(scale);
        for (bin, count) in sparse {
            let slot = histogram.counts.get_mut(usize::from(*bin))?;
            if *count > MAX_COUNT || *slot != 0 {
                return None;
            }
            *slot = *count;
            histogram.total += count;
        }
        Some(histogram)
    }
}

/// A histogram as it is stored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sparse(pub Vec<(u16, u64)>);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bins_meet_and_thresholds_lie_between_them() {
        for scale in [Scale::Nats, Scale::Bits] {
            for bin in 0..scale.bins() {
                assert!(scale.lower(bin) < scale.upper(bin), "{scale:?} {bin}");
            }
        }
        for (nats, bin) in [(-3.0, 0), (0.0, 0), (3.999, 63), (4.0, 64), (4.0624, 64), (99.0, 255), (f32::NAN, 0)] {
            assert_eq!(bin_of_nats(nats), bin, "{nats}");
        }
        for (bits, bin) in [(0, 0), (1, 1), (2, 17), (1024, 161), (1 << 23, 369)] {
            assert_eq!(bin_of_bits(Bits::whole(bits)), bin, "{bits}");
            assert!(bits == 0 || (Scale::Bits.lower(bin) - f64::from(bits)).abs() < 1e-6, "{bits}");
        }
        assert!(bin_of_bits(Bits::MAX) < Scale::Bits.bins());
    }

    #[test]
    fn a_share_that_the_sample_does_not_carry_is_not_told() {
        let mut histogram = Histogram::new(Scale::Nats);
        (0..299).for_each(|_| histogram.add(10));
        assert_eq!(histogram.quantile(0.99), None, "3 in 299 is more than 1 in 100");
        histogram.add(10);
        assert!(histogram.quantile(0.99).is_some());
        assert_eq!(Histogram::new(Scale::Nats).quantile(0.5), None);
    }

    #[test]
    fn what_cannot_have_been_stored_is_not_read() {
        for bad in [&[(256, 1)][..], &[(1, 1), (1, 2)], &[(1, u64::MAX)]] {
            assert_eq!(Histogram::from_sparse(Scale::Nats, bad), None, "{bad:?}");
        }
    }

    proptest! {
        /// The stated error: the exact quantile lies in the bin that is told, so it is missed by a sixteenth of a nat or
        /// 4.5 % of the bits (one bit below one) at most.
        #[test]
        fn the_exact_quantile_lies_in_the_bin_that_is_told(
            values in proptest::collection::vec(0.0f32..15.9, 10..400),
            q in 0.01f64..0.95,
        ) {
            let mut exact = values.clone();
            exact.sort_by(f32::total_cmp);
            let rank = ((q * exact.len() as f64).ceil() as usize).clamp(1, exact.len());
            let (mut nats, mut bits) = (Histogram::new(Scale::Nats), Histogram::new(Scale::Bits));
            let as_bits = |value: f32| Bits::ceil_from(f64::from(value).exp2());
            for value in &values {
                nats.add(bin_of_nats(*value));
                bits.add(bin_of_bits(as_bits(*value)));
            }
            let wanted = exact[rank - 1];
            match nats.quantile(q) {
                Some(told) => {
                    prop_assert!(told.at_least <= f64::from(wanted) && f64::from(wanted) < told.below);
                    prop_assert!(told.below - told.at_least <= 1.0 / 16.0 + 1e-9);
                }
                None => prop_assert!((1.0 - q) * (values.len() as f64) < 3.0),
            }
            if let Some(told) = bits.quantile(q) {
                let wanted = as_bits(wanted).as_f64();
                prop_assert!(told.at_least <= wanted + 1e-9 && wanted < told.below + 1e-9, "{told:?} {wanted}");
                prop_assert!(told.below / told.at_least < 1.045);
            }
        }

        #[test]
        fn merging_is_counting_together_and_removing_undoes(
            one in proptest::collection::vec(0u16..256, 0..100),
            other in proptest::collection::vec(0u16..256, 0..100),
        ) {
            let counted = |bins: &mut dyn Iterator<Item = &u16>| {
                let mut histogram = Histogram::new(Scale::Nats);
                bins.for_each(|bin| histogram.add(*bin));
                histogram
            };
            let mut merged = counted(&mut one.iter());
            merged.merge(&counted(&mut other.iter()));
            prop_assert_eq!(&merged, &counted(&mut one.iter().chain(&other)));
            prop_assert_eq!(Histogram::from_sparse(Scale::Nats, &merged.sparse()), Some(merged.clone()));
            other.iter().for_each(|bin| merged.remove(*bin));
            prop_assert_eq!(&merged, &counted(&mut one.iter()));
            (0..256).for_each(|bin| (0..200).for_each(|_| merged.remove(bin)));
            prop_assert_eq!(merged.total(), 0);
        }
    }
}
