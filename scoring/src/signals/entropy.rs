//! Label entropy: disorder of the characters, as information a symbol under the model of benign names.
//!
//! Shannon's measure of a label's own letter counts cannot part `safebrowsing` from `k3x9q0vz71bd`: both are twelve
//! nearly different letters. Cross-entropy against the model can. It is read off the label of each name that carries
//! most, so that padding with ordinary labels hides nothing and position does not matter, and averaged over the distinct
//! names this session has sent under the tenant: one odd label is common, a series of them is not.

use std::f64::consts::PI;
use std::sync::LazyLock;

use super::{CAP, Reading, Signal};
use crate::bits::Bits;

/// Mean rate of benign pairs of session and tenant, in bits a symbol, under a model that was not fitted on their names.
pub const BENIGN_MEAN: f64 = 4.1;
/// Variance of the same between tenants with many symbols.
pub const BENIGN_VARIANCE: f64 = 0.3;
/// Variance that a single symbol adds; n symbols add an n-th of it.
pub const SYMBOL_VARIANCE: f64 = 5.0;
/// What a symbol of a host name is worth at most: one of 38, the end mark, and what the code itself costs. The attack
/// density is flat from the benign mean to here; below the mean a payload pays with length instead.
const LIMIT: f64 = 6.0;
/// Fewer symbols say nothing: the end mark and the turn to a flat run outweigh the letters.
pub const FEWEST_SYMBOLS: u32 = 6;

/// More symbols than this make no difference to the variance.
const MOST_SYMBOLS: usize = 256;

/// By number of symbols: what the ratio is at the mean, and what it gains with the squared distance from there. This is
/// a normal density's logarithm taken apart, so that a query needs no logarithm.
static BY_SYMBOLS: LazyLock<[(f32, f32); MOST_SYMBOLS + 1]> = LazyLock::new(|| {
    std::array::from_fn(|symbols| {
        let variance = BENIGN_VARIANCE + SYMBOL_VARIANCE / symbols.max(1) as f64;
        let at_mean = (2.0 * PI * variance).sqrt().ln() - (LIMIT - BENIGN_MEAN).ln();
        (at_mean as f32, (0.5 / variance) as f32)
    })
});

/// Reading of the richest labels under a tenant: their information and number of symbols (see
/// [`crate::model::Information`]); of `own`, the same for a platform's tenant with its own label, where that says more.
/// Unknown for few symbols and for names of a fixed form.
pub fn read(richest: Option<(Bits, u32)>, own: (Bits, u32)) -> Reading {
    let richer = richest
        .map(|told| if own.1 >= FEWEST_SYMBOLS && nats(own.0, own.1) > nats(told.0, told.1) { own } else { told });
    let Some((bits, symbols)) = richer.filter(|(_, symbols)| *symbols >= FEWEST_SYMBOLS) else {
        return Signal::LabelEntropy.unknown();
    };
    let rate = bits.as_f64() as f32 / symbols as f32;
    Signal::LabelEntropy.reading(Some(rate), nats(bits, symbols))
}

/// What a label of so many symbols worth so many bits says for a payload; 0 for few symbols.
pub(super) fn nats(bits: Bits, symbols: u32) -> f32 {
    if symbols < FEWEST_SYMBOLS {
        return 0.0;
    }
    let rate = bits.as_f64() as f32 / symbols as f32;
    let (at_mean, gain) = BY_SYMBOLS[(symbols as usize).min(MOST_SYMBOLS)];
    let above = (rate - BENIGN_MEAN as f32).max(0.0);
    (at_mean + gain * above * above).clamp(-CAP, CAP)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Model;
    use statrs::distribution::{Continuous, Normal};

    fn reading(payload: &[u8]) -> Reading {
        let information = Model::shipped().read(payload);
        read(Some((information.richest, information.richest_symbols)), (Bits::ZERO, 0))
    }

    #[test]
    fn words_and_ids_are_told_apart() {
        let words = reading(b"\x0csafebrowsing");
        let id = reading(b"\x0ck3x9q0vz71bd");
        assert!(words.contribution < 0.3, "{words:?}");
        assert!(id.contribution > 1.0, "{id:?}");
        let padded = reading(b"\x03www\x03cdn\x0ck3x9q0vz71bd\x03api");
        assert!((padded.contribution - id.contribution).abs() < 0.5, "{padded:?} {id:?}");
    }

    #[test]
    fn few_symbols_are_unknown() {
        assert_eq!(reading(b"\x03www").value, None);
        assert_eq!(reading(b"").contribution, 0.0);
        assert!(reading(b"\x05login").value.is_some());
    }

    #[test]
    fn the_ratio_is_that_of_the_densities() {
        for symbols in [6u32, 20, 100] {
            let variance = BENIGN_VARIANCE + SYMBOL_VARIANCE / f64::from(symbols);
            let benign = Normal::new(BENIGN_MEAN, variance.sqrt()).expect("finite");
            for rate in [4.2, 4.8, 5.4] {
                let ratio = (1.0 / (LIMIT - BENIGN_MEAN)).ln() - benign.ln_pdf(rate);
                let got =
                    read(Some((Bits::ceil_from(rate * f64::from(symbols)), symbols)), (Bits::ZERO, 0)).contribution;
                assert!((f64::from(got) - ratio.min(3.0)).abs() < 0.02, "{symbols} {rate}: {got} {ratio}");
            }
        }
    }

    #[test]
    fn a_higher_rate_never_speaks_less() {
        for symbols in [6u32, 30, 300, 100_000] {
            let at =
                |tenth: u32| read(Some((Bits::whole(tenth * symbols / 10), symbols)), (Bits::ZERO, 0)).contribution;
            assert!((0..200).all(|tenth| at(tenth) <= at(tenth + 1)));
        }
    }
}
