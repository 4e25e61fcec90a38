//! Character model of benign host names: a code length for any payload part.
//!
//! [`fit`] makes the table from names, [`table`] is its file form, this module prices. Knows no session and no suffix:
//! it is handed wire labels and says what they are worth.
//!
//! The price is the length of a real code, so it bounds what can be told whoever chooses the names and however
//! (Kraft). The code reads symbols from the left, in one of two states. In the *table* state the integer frequencies
//! of what may follow the last two symbols, end mark included, sum exactly to a power of two; in a *flat run* one fixed
//! distribution does. Before each symbol the table state goes on with 31/32 or turns to a flat run with 1/32, and a
//! flat run ends with its label. The price is that of the cheapest way to code the labels, each step rounded up, never
//! capped; 2 to the minus price, summed over all payload parts, is therefore at most one.

pub mod fit;
pub(crate) mod numbers;
pub mod table;

use std::sync::LazyLock;

use crate::bits::Bits;
use table::{CLASSES, DOT, END, ESCAPE, START, SYMBOLS, Table, TableError};

/// Price of the octet behind an escape: 8 bits, a flat code over all octets.
const ESCAPED_OCTET: u32 = 8 * Bits::STEPS;

/// Price of going on with the table before a symbol: 31 of 32.
const STAY: u32 = 12;
/// Price of a flat run to the end of the label from here: 1 of 32.
const SWITCH: u32 = 5 * Bits::STEPS;

/// Weights of the flat code over [`FLAT_TOTAL`]. Machine-made ids (hashes, shards, buckets) are in every benign trace;
/// letters and digits at 5.3 bits are what they are worth, and what a payload in base32 is worth too.
const FLAT_WEIGHTS: [u32; SYMBOLS] = {
    let mut weights = [26; SYMBOLS];
    weights[36] = 14; // hyphen
    weights[37] = 6; // underscore
    weights[DOT] = 20;
    weights[ESCAPE] = 8;
    weights[END] = 40;
    weights
};
/// Sum of [`FLAT_WEIGHTS`].
const FLAT_TOTAL: u32 = 1024;

/// Room for one context's symbols, rounded up so that finding a context is a shift.
const STRIDE: usize = SYMBOLS.next_power_of_two();

static SHIPPED: LazyLock<Model> = LazyLock::new(|| {
    let table = Table::from_bytes(include_bytes!("benign.bin"))
        .expect("the table compiled in is whole: a test of this crate reads the same octets");
    Model::of(&table)
});

/// A code for host names; exactly normalised, so that a code length is a bound (Kraft).
pub struct Model {
    /// Price of a symbol after two others, in 1/256 bit.
    costs: Box<[u16]>,
    /// Price of a symbol in a flat run, in 1/256 bit.
    flat: [u32; SYMBOLS],
}

impl Model {
    /// The shipped table.
    pub fn shipped() -> &'static Model {
        &SHIPPED
    }

    /// A model over any table in file form, for tools that compare tables.
    ///
    /// # Errors
    /// Whatever [`Table::from_bytes`] finds wrong.
    pub fn from_bytes(octets: &[u8]) -> Result<Self, TableError> {
        Table::from_bytes(octets).map(|table| Self::of(&table))
    }

    fn of(table: &Table) -> Self {
        let mut costs = vec![0; CLASSES * CLASSES * STRIDE].into_boxed_slice();
        for (context, frequencies) in table.contexts().enumerate() {
            for (symbol, &frequency) in frequencies.iter().enumerate() {
                let cost = Bits::log2_ratio(1 << table::TOTAL_BITS, u64::from(frequency));
                // At most 16 bits, 4,096 steps: the smallest frequency is 1 of 2^16.
                costs[context * STRIDE + symbol] = cost.steps() as u16;
            }
        }
        let flat = FLAT_WEIGHTS.map(|weight| Bits::log2_ratio(u64::from(FLAT_TOTAL), u64::from(weight)).steps());
        Self { costs, flat }
    }

    /// Information of a payload part (wire labels, no root label), rounded up to 1/256 bit.
    ///
    /// Total: octets that are not well-formed labels are priced as far as they go.
    pub fn cost(&self, payload: &[u8]) -> Bits {
        self.read(payload).total
    }

    /// Information of a payload part and of the label that carries most of it.
    pub fn read(&self, payload: &[u8]) -> Information {
        // The cheapest way to code what was read so far, ending in the table (`tabled`) or in a flat run (`flat`).
        let (mut tabled, mut flat) = (0u32, u32::MAX);
        let (mut before, mut last) = (START, START);
        let mut price = |symbol: usize| {
            let after_table = tabled + STAY + u32::from(self.costs[(before * CLASSES + last) * STRIDE + symbol]);
            let after_flat = flat.min(tabled + SWITCH).saturating_add(self.flat[symbol]);
            (before, last) = (last, symbol);
            if symbol == DOT || symbol == END {
                // A flat run ends with its label.
                (tabled, flat) = (after_table.min(after_flat), u32::MAX);
            } else {
                (tabled, flat) = (after_table, after_flat);
            }
            if symbol == ESCAPE {
                tabled += ESCAPED_OCTET;
                flat = flat.saturating_add(ESCAPED_OCTET);
            }
            tabled
        };
        let (mut richest, mut richest_symbols, mut so_far) = (0, 0, 0);
        let mut rest = payload;
        while let Some((&len, tail)) = rest.split_first() {
            let (label, next) = tail.split_at(usize::from(len).min(tail.len()));
            for &octet in label {
                price(usize::from(SYMBOL_OF[usize::from(octet)]));
            }
            let end = price(if next.is_empty() { END } else { DOT });
            if end - so_far > richest {
                (richest, richest_symbols) = (end - so_far, label.len() as u32 + 1);
            }
            so_far = end;
            rest = next;
        }
        if payload.is_empty() {
            so_far = price(END);
        }
        Information { total: Bits::from_steps(so_far), richest: Bits::from_steps(richest), richest_symbols }
    }
}

/// What a payload part is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Information {
    /// All of it.
    pub total: Bits,
    /// Of the label that is worth most, the separator or end mark behind it included; zero where there is no label.
    pub richest: Bits,
    /// Symbols of that label, the separator or end mark behind it included.
    pub richest_symbols: u32,
}

/// Symbol of each octet inside a label; everything outside `a-z 0-9 - _` is escaped, a dot inside a label too.
static SYMBOL_OF: [u8; 256] = {
    let mut symbols = [ESCAPE as u8; 256];
    let mut octet = 0;
    while octet < 256 {
        symbols[octet] = match octet as u8 {
            letter @ b'a'..=b'z' => letter - b'a',
            digit @ b'0'..=b'9' => 26 + digit - b'0',
            b'-' => 36,
            b'_' => 37,
            _ => ESCAPE as u8,
        };
        octet += 1;
    }
    symbols
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::NameBuf;
    use proptest::prelude::*;

    fn cost(text: &str) -> f64 {
        let name = NameBuf::from_text(text).expect("test name");
        let wire = name.as_ref().as_wire();
        Model::shipped().cost(&wire[..wire.len() - 1]).as_f64()
    }

    #[test]
    fn the_shipped_table_is_whole_and_small() {
        let octets = include_bytes!("benign.bin");
        assert!(octets.len() <= 256 * 1024);
        let table = Table::from_bytes(octets).expect("shipped table");
        assert_eq!(table.to_bytes(), octets, "one form only");
    }

    #[test]
    fn probabilities_sum_to_one_after_every_context() {
        let table = Table::from_bytes(include_bytes!("benign.bin")).expect("shipped table");
        let model = Model::shipped();
        let mut contexts = 0;
        for (context, frequencies) in table.contexts().enumerate() {
            contexts += 1;
            let sum: u64 = frequencies.iter().map(|&f| u64::from(f)).sum();
            assert_eq!(sum, 1 << table::TOTAL_BITS, "context {context}");
            assert!(frequencies.iter().all(|&f| f > 0), "every symbol can be coded after context {context}");
            // And the prices, rounded up, are a code: their own sum of 2^-cost is at most one.
            let kraft: f64 = model.costs[context * STRIDE..][..SYMBOLS]
                .iter()
                .map(|&steps| (-f64::from(steps) / f64::from(Bits::STEPS)).exp2())
                .sum();
            assert!(kraft <= 1.0 + 1e-12, "context {context}: {kraft}");
        }
        assert_eq!(contexts, CLASSES * CLASSES);
        assert_eq!(FLAT_WEIGHTS.iter().sum::<u32>(), FLAT_TOTAL);
        let share = |steps: u32| (-f64::from(steps) / f64::from(Bits::STEPS)).exp2();
        assert!(share(STAY) <= 31.0 / 32.0 && share(SWITCH) <= 1.0 / 32.0);
    }

    #[test]
    fn ordinary_labels_are_cheap_and_payload_is_not() {
        assert!(cost("www") < 6.0, "{}", cost("www"));
        assert!(cost("mail") < 16.0, "{}", cost("mail"));
        assert!(cost("zq7xk2vw9pj4htn3") > 16.0 * 5.0, "{}", cost("zq7xk2vw9pj4htn3"));
        let raw = cost("\\200\\201\\202\\203");
        assert!(raw >= 4.0 * 9.0, "an octet outside the alphabet costs its 8 bits and the escape: {raw}");
        assert!(cost("a\\.b") > cost("a.b"), "a dot inside a label is not a label separator");
    }

    proptest! {
        #[test]
        fn any_octets_are_priced(octets in proptest::collection::vec(any::<u8>(), 0..600)) {
            let price = Model::shipped().cost(&octets);
            prop_assert!(price > Bits::ZERO);
        }

        /// The price of a payload part is never below -log2 of its probability, computed from the frequencies and
        /// summed over all ways to code it.
        #[test]
        fn a_price_is_never_below_the_information(text in "[a-z0-9_.\\x80-\\xff-]{0,60}") {
            let Ok(name) = NameBuf::from_text(&text) else { return Ok(()) };
            let table = Table::from_bytes(include_bytes!("benign.bin")).expect("shipped table");
            let contexts: Vec<_> = table.contexts().collect();
            let (mut before, mut last) = (START, START);
            let (mut modelled, mut flat) = (1.0f64, 0.0f64);
            let mut see = |symbol: usize| {
                let frequency = f64::from(contexts[before * CLASSES + last][symbol]);
                let p_table = frequency / f64::from(1 << table::TOTAL_BITS);
                let p_flat = f64::from(FLAT_WEIGHTS[symbol]) / f64::from(FLAT_TOTAL);
                let octet = if symbol == ESCAPE { 1.0 / 256.0 } else { 1.0 };
                flat = (flat + modelled / 32.0) * p_flat * octet;
                modelled *= 31.0 / 32.0 * p_table * octet;
                if symbol == DOT || symbol == END {
                    (modelled, flat) = (modelled + flat, 0.0);
                }
                (before, last) = (last, symbol);
                modelled
            };
            for (i, label) in name.as_ref().labels().enumerate() {
                if i > 0 {
                    see(DOT);
                }
                for &octet in label {
                    see(usize::from(SYMBOL_OF[usize::from(octet)]));
                }
            }
            let information = -see(END).log2();
            let wire = name.as_ref().as_wire();
            let price = Model::shipped().cost(&wire[..wire.len() - 1]).as_f64();
            prop_assert!(price >= information - 1e-9, "{} < {}", price, information);
            let cells = text.len() as f64 + 2.0;
            prop_assert!(price <= information + cells, "rounding and other ways are worth less than a bit a symbol");
        }
    }
}
