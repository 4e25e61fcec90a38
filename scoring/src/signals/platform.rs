//! Platform fan-out: what a session has told one ICANN-level domain over all tenants of a platform.
//!
//! Tenants of a platform are made for nothing, so a payload can stand in their names and leave each of them unsuspicious.
//! Read only where the public suffix list knows the domain as a platform; elsewhere the tenant is the whole.

use std::sync::LazyLock;

use super::density::{Ratio, log_normal};
use super::{Reading, Signal};
use crate::bits::Bits;

/// Location of the logarithm of (1 + bits) over benign pairs of session and platform (`fit --densities`).
pub const BENIGN_LOCATION: f64 = 4.8;
/// Scale of the same.
pub const BENIGN_SCALE: f64 = 1.3;
/// Where the flat attack density ends: the default hard budget of an ICANN-level domain, in bits.
const LIMIT: f64 = 4096.0;

static RATIO: LazyLock<Ratio> = LazyLock::new(|| {
    let (density, mode) = log_normal(BENIGN_LOCATION, BENIGN_SCALE);
    Ratio::of(&density, mode, LIMIT, 0.25)
});

/// Reading of what the ICANN account holds with this query; `None` where the domain is no platform.
pub fn read(told: Option<Bits>) -> Reading {
    let Some(told) = told else { return Signal::PlatformFanOut.unknown() };
    let bits = told.as_f64() as f32;
    Signal::PlatformFanOut.reading(Some(bits), RATIO.at(1.0 + bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_told_never_speaks_less() {
        let at = |bits| read(Some(Bits::whole(bits))).contribution;
        assert!((0..5_000).all(|bits| at(bits) <= at(bits + 1)));
        assert!(at(60) < 0.0 && at(3_500) > 2.0);
        assert_eq!(read(None).value, None);
    }
}
