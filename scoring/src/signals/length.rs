//! Name length: octets of the payload part.

use std::sync::LazyLock;

use super::density::{Ratio, log_normal};
use super::{Reading, Signal};

/// Location of the logarithm of benign payload lengths (presentation form, dots between labels): distinct names of
/// the benign sequences that have a payload part.
pub const BENIGN_LOCATION: f64 = 1.94;
/// Scale of the same.
pub const BENIGN_SCALE: f64 = 0.78;
/// A name has at most 253 octets in presentation form (RFC 1035 section 2.3.4).
const LIMIT: f64 = 253.0;

static RATIO: LazyLock<Ratio> = LazyLock::new(|| {
    let (density, mode) = log_normal(BENIGN_LOCATION, BENIGN_SCALE);
    Ratio::of(&density, mode, LIMIT, 1.0)
});

/// Reading of a payload part (wire labels, no root label). A name without one has length 0; a name of a fixed form has
/// none that means anything.
pub fn read(payload: Option<&[u8]>) -> Reading {
    let Some(payload) = payload else {
        return Signal::NameLength.reading(None, 0.0);
    };
    // Wire form has a length octet for every label, presentation form a dot between two.
    let length = payload.len().saturating_sub(1) as f32;
    Signal::NameLength.reading(Some(length), RATIO.at(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_parts_speak_for_an_attack_and_short_ones_against() {
        let www = read(Some(b"\x03www"));
        assert!(www.contribution < -1.0);
        assert_eq!(www.value, Some(3.0));
        assert!(read(Some(&[b'a'; 64])).contribution > 1.0);
        assert_eq!(read(Some(b"")).value, Some(0.0));
        assert_eq!(read(None).contribution, 0.0);
    }
}
