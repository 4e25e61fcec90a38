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
        if n <= 1 { Self::ZERO } else { Self::ceil_from((n as f64).log2()) }
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
