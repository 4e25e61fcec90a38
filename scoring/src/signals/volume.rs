//! Answer volume: octets of record data that came back under a tenant; beyond three answers for each of its names what is longer
//! than answers of hosts are.
//!
//! What a tunnel brings in stands in answers. Addresses are small: hundreds of names make a few kilobytes. There is no
//! trace with answers to fit on; the density is chosen so that a tenant of ordinary names never speaks (median 256 octets,
//! one in a thousand past 10 KiB).

use std::sync::LazyLock;

use super::density::{Ratio, log_normal};
use super::{Reading, Signal};

/// Location of the logarithm of octets; chosen.
pub const BENIGN_LOCATION: f64 = 5.5;
/// Scale of the same; chosen.
pub const BENIGN_SCALE: f64 = 1.2;
/// Where the flat attack density ends, octets.
const LIMIT: f64 = 65_536.0;

static RATIO: LazyLock<Ratio> = LazyLock::new(|| {
    let (density, mode) = log_normal(BENIGN_LOCATION, BENIGN_SCALE);
    Ratio::of(&density, mode, LIMIT, 1.0 / 64.0)
});

/// Reading of octets; unknown before the first answer.
pub fn read(octets: Option<u32>) -> Reading {
    let Some(octets) = octets else { return Signal::AnswerVolume.unknown() };
    Signal::AnswerVolume.reading(Some(octets as f32), RATIO.at(octets as f32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_never_speaks_less_and_addresses_do_not_speak() {
        let at = |octets| read(Some(octets)).contribution;
        assert!((0..1_000).all(|i| at(i * 64) <= at(i * 64 + 64)));
        assert!(at(4_096) < 1.5, "{}", at(4_096));
        assert!(at(60_000) > 1.5);
    }
}
