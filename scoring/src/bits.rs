//! Amounts of information.

use std::fmt;

/// An amount of information in bits, held as a whole number of 1/256 bit so that sums are exact and replays agree
/// bit for bit. Arithmetic saturates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Bits(u32);

impl Bits {
    /// No information.
    pub const ZERO: Self = Self(0);
    /// More than any ledger allows; sums that overflow end here.
    pub const MAX: Self = Self(u32::MAX);
    /// Steps of one bit.
    pub const STEPS: u32 = 256;

    /// From whole bits.
    pub const fn whole(bits: u32) -> Self {
        Self(bits.saturating_mul(Self::STEPS))
    }

    /// From 1/256 bit steps.
    pub const fn from_steps(steps: u32) -> Self {
        Self(steps)
    }

    /// In 1/256 bit steps.
    pub const fn steps(self) -> u32 {
        self.0
    }

    /// From a fractional amount, rounded up so that a charge is never below the information it pays for; negative and
    /// not-a-number give zero.
    pub fn ceil_from(bits: f64) -> Self {
        let steps = (bits * f64::from(Self::STEPS)).ceil();
        // `as` saturates and maps NaN to zero.
        Self(steps as u32)
    }

    /// log2 of `n`, rounded up to the next step; zero for 0 and 1.
    pub fn log2(n: u64) -> Self {
        Self::log2_ratio(n, 1)
    }

    /// log2 of `num / den`, rounded up to the next step; zero where the ratio is 1 or less, [`Bits::MAX`] for a zero
    /// `den`. Integers only, so that every machine books the same charge; exact powers of two are exact.
    pub fn log2_ratio(num: u64, den: u64) -> Self {
        if num <= den {
            return Self::ZERO;
        }
        // Weights of adaptive codes are small counts: two look-ups instead of a division and eight squarings.
        if den == 0 {
            return Self::MAX;
        }
        if let Some(&above) = FINE.get(num as usize) {
            // `den` is smaller. A logarithm that is not whole lies above its entry by up to a step, and by what the
            // entry's own rounding lost, which is less than another.
            let above = above + if num.is_power_of_two() { 0 } else { 2 };
            return Self((above - FINE[den as usize]).div_ceil(FINE_ONE / Self::STEPS));
        }
        // Mantissa of the ratio in [1, 2) with 31 binary places, always rounded up, so that its square fits.
        let scaled = match num {
            0..=0xffff_ffff => u128::from((num << 31).div_ceil(den)),
            _ => (u128::from(num) << 31).div_ceil(u128::from(den)),
        };
        let whole = 127 - scaled.leading_zeros() - 31;
        let mut mantissa = ((scaled >> whole) + u128::from(scaled & ((1 << whole) - 1) != 0)) as u64;
        let mut steps = whole;
        if mantissa == ONE << 1 {
            // Rounding up reached two, whose square would not fit: it is one, a whole bit further.
            (mantissa, steps) = (ONE, steps + 1);
        }
        for _ in 0..8 {
            mantissa = ceil_shift(mantissa * mantissa, 31);
            steps <<= 1;
            if mantissa >= ONE << 1 {
                mantissa = ceil_shift(mantissa, 1);
                steps += 1;
            }
        }
        Self(steps + u32::from(mantissa > ONE))
    }

    /// As a fractional number of bits.
    pub fn as_f64(self) -> f64 {
        f64::from(self.0) / f64::from(Self::STEPS)
    }

    /// Whole octets that fit, rounded up.
    pub const fn octets(self) -> u32 {
        self.0.div_ceil(Self::STEPS * 8)
    }

    /// Sum, saturating.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// Difference, saturating at zero.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

/// One bit in [`FINE`].
const FINE_ONE: u32 = 1 << 16;

/// log2 of small numbers, rounded down, in 1/65,536 bit; below the truth by less than two of these.
static FINE: [u32; 4096] = {
    let mut table = [0; 4096];
    let mut n = 1u64;
    while n < 4096 {
        let whole = 63 - n.leading_zeros();
        let mut mantissa = n << (31 - whole);
        let mut steps = whole;
        let mut place = 0;
        while place < 16 {
            mantissa = (mantissa * mantissa) >> 31;
            steps <<= 1;
            if mantissa >= ONE << 1 {
                mantissa >>= 1;
                steps += 1;
            }
            place += 1;
        }
        table[n as usize] = steps;
        n += 1;
    }
    table
};

/// A mantissa of one.
const ONE: u64 = 1 << 31;

/// `value / 2^by`, rounded up.
const fn ceil_shift(value: u64, by: u32) -> u64 {
    (value >> by) + ((value & ((1 << by) - 1) != 0) as u64)
}

impl fmt::Display for Bits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1}", self.as_f64())
    }
}

impl serde::Serialize for Bits {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_f64(self.as_f64())
    }
}

impl<'de> serde::Deserialize<'de> for Bits {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        f64::deserialize(d).map(Self::ceil_from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn powers_of_two_are_exact() {
        assert_eq!(Bits::log2(0), Bits::ZERO);
        assert_eq!(Bits::log2(1), Bits::ZERO);
        for bits in 1..64 {
            assert_eq!(Bits::log2(1 << bits), Bits::whole(bits), "2^{bits}");
        }
        assert_eq!(Bits::log2_ratio(8, 2), Bits::whole(2));
        assert_eq!(Bits::log2_ratio(2, 8), Bits::ZERO);
        assert_eq!(Bits::log2_ratio(1, 0), Bits::MAX);
    }

    proptest! {
        #[test]
        fn the_logarithm_is_never_below_the_truth(num in 1u64..1 << 40, den in 1u64..1 << 40) {
            let truth = (num as f64 / den as f64).log2().max(0.0);
            let got = Bits::log2_ratio(num, den).as_f64();
            prop_assert!(got >= truth - 1e-9, "{} < {}", got, truth);
            prop_assert!(got <= truth + 1.01 / 256.0, "{} is far above {}", got, truth);
        }

        #[test]
        fn any_ratio_has_a_logarithm(num in any::<u64>(), den in any::<u64>()) {
            prop_assert!(Bits::log2_ratio(num, den.max(1)) <= Bits::whole(64));
        }

        #[test]
        fn sums_saturate(a in any::<u32>(), b in any::<u32>()) {
            let (a, b) = (Bits::from_steps(a), Bits::from_steps(b));
            prop_assert!(a.plus(b) >= a && a.minus(b) <= a);
        }
    }
}
