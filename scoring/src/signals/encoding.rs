//! Label alphabet and decodability: how much better a plain code of octets explains the richest label than host names do.
//!
//! A payload is written in an alphabet: hexadecimal, base32, base36, base64 folded to lower case. In the smallest of
//! these that the label fits, every letter costs log2 of the alphabet; under the model of benign names a word costs less
//! than that and a payload more. The reading is the difference in bits a symbol. It sees hexadecimal, which by its
//! plain rate is as cheap as a long word.

use std::sync::LazyLock;

use statrs::distribution::{Continuous, Normal};

use super::{CAP, Reading, Signal};
use crate::bits::Bits;

/// Mean difference of benign labels of [`FEWEST_SYMBOLS`] and more, bits a symbol (`fit --densities`).
pub const BENIGN_MEAN: f64 = -1.2;
/// Its deviation.
pub const BENIGN_DEVIATION: f64 = 0.6;
/// Fewer symbols decode to nothing.
pub const FEWEST_SYMBOLS: u32 = 12;
/// Where the flat attack density lies: from the benign mean to the most a symbol can cost beyond its alphabet.
const LIMIT: f64 = 3.0;
/// Largest contribution, nats: hashes and identifiers are in every trace, so an encoded label alone is no family that
/// agrees; that there are many is another signal's to say.
pub const MOST: f32 = 1.4;
/// Steps of a bit in the table.
const STEPS: f32 = 16.0;

static RATIO: LazyLock<Box<[f32]>> = LazyLock::new(|| {
    let benign = Normal::new(BENIGN_MEAN, BENIGN_DEVIATION).expect("finite constants, positive deviation");
    let flat = -(LIMIT - BENIGN_MEAN).ln();
    let steps = ((LIMIT - BENIGN_MEAN) * f64::from(STEPS)) as usize + 1;
    (0..steps)
        .map(|step| {
            let value = BENIGN_MEAN + step as f64 / f64::from(STEPS);
            ((flat - benign.ln_pdf(value)) as f32).clamp(-CAP, CAP)
        })
        .collect()
});

/// Reading of the richest label of one name: its octets and what they are worth with the mark behind them.
pub fn read(label: Option<(&[u8], Bits)>) -> Reading {
    let Some((octets, bits)) = label.filter(|(octets, _)| octets.len() as u32 >= FEWEST_SYMBOLS) else {
        return Signal::Encoding.unknown();
    };
    let value = bits.as_f64() as f32 / octets.len() as f32 - alphabet(octets);
    let step = ((value - BENIGN_MEAN as f32).max(0.0) * STEPS) as usize;
    let contribution = RATIO.get(step.min(RATIO.len() - 1)).copied().unwrap_or(0.0);
    Signal::Encoding.reading(Some(value), contribution.min(MOST))
}

/// log2 of the smallest alphabet the label fits.
fn alphabet(octets: &[u8]) -> f32 {
    const HEX: u8 = 1;
    const BASE32: u8 = 2;
    const BASE36: u8 = 4;
    const BASE64: u8 = 8;
    static FITS: [u8; 256] = {
        let mut fits = [0; 256];
        let mut octet = 0;
        while octet < 256 {
            fits[octet] = match octet as u8 {
                b'a'..=b'f' => HEX | BASE32 | BASE36 | BASE64,
                b'g'..=b'z' => BASE32 | BASE36 | BASE64,
                b'2'..=b'7' => HEX | BASE32 | BASE36 | BASE64,
                b'0' | b'1' | b'8' | b'9' => HEX | BASE36 | BASE64,
                b'-' | b'_' => BASE64,
                _ => 0,
            };
            octet += 1;
        }
        fits
    };
    let fits = octets.iter().fold(0xff, |fits, octet| fits & FITS[usize::from(*octet)]);
    match fits {
        fits if fits & HEX != 0 => 4.0,
        fits if fits & BASE32 != 0 => 5.0,
        fits if fits & BASE36 != 0 => 5.17,
        fits if fits & BASE64 != 0 => 5.25,
        _ => 8.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Model;

    fn reading(label: &str) -> Reading {
        let mut payload = vec![label.len() as u8];
        payload.extend(label.bytes());
        read(Some((label.as_bytes(), Model::shipped().read(&payload).richest)))
    }

    #[test]
    fn payload_in_any_alphabet_stands_out_and_words_do_not() {
        for payload in ["3f9a0c7e1b52d84f60a7", "mzxw6ytboi4dknbzgq2q", "k3x9q0vz71bd8h2w5n0p"] {
            assert!(reading(payload).contribution > 1.0, "{payload}: {:?}", reading(payload));
        }
        for words in ["safebrowsing", "download-installer", "notifications"] {
            assert!(reading(words).contribution < 0.0, "{words}: {:?}", reading(words));
        }
    }

    #[test]
    fn short_labels_say_nothing() {
        assert_eq!(read(None).value, None);
        assert_eq!(reading("deadbeef").value, None);
    }
}
