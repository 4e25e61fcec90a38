//! Fits the table to payload parts of benign names.
//!
//! Counts of three, two and one symbols, mixed from the longest down (Witten and Bell's method C: the more different
//! symbols were seen after a context, the more is left to the shorter one), then quantised to integers whose sum is
//! exact. Only `+ - * /` on counts: the same names give the same octets on every machine.

use super::SYMBOL_OF;
use super::table::{CLASSES, DOT, END, START, SYMBOLS, TOTAL_BITS, Table};

/// Counts of symbols after their contexts.
pub struct Counts {
    after: Box<[u32]>,
    names: u32,
}

impl Counts {
    /// None yet.
    pub fn new() -> Self {
        Self { after: vec![0; CLASSES * CLASSES * SYMBOLS].into(), names: 0 }
    }

    /// Counts one payload part (wire labels, no root label).
    pub fn add(&mut self, payload: &[u8]) {
        let (mut before, mut last) = (START, START);
        let mut see = |symbol: usize| {
            let slot = &mut self.after[(before * CLASSES + last) * SYMBOLS + symbol];
            *slot = slot.saturating_add(1);
            (before, last) = (last, symbol);
        };
        let mut rest = payload;
        while let Some((&len, tail)) = rest.split_first() {
            if rest.len() != payload.len() {
                see(DOT);
            }
            let (label, next) = tail.split_at(usize::from(len).min(tail.len()));
            label.iter().for_each(|&octet| see(usize::from(SYMBOL_OF[usize::from(octet)])));
            rest = next;
        }
        see(END);
        self.names = self.names.saturating_add(1);
    }

    /// The fitted table.
    pub fn fit(&self) -> Table {
        let singles = blend(&self.sum(|_| 0, 1), |_| [1.0 / SYMBOLS as f64; SYMBOLS]);
        let pairs = blend(&self.sum(|context| context % CLASSES, CLASSES), |_| singles[0]);
        let triples = blend(&self.after, |context| pairs[context % CLASSES]);
        let frequencies = triples.iter().flat_map(quantise).collect();
        Table::new(frequencies, self.names).expect("quantise() makes every context sum to the power of two")
    }

    /// The counts with contexts merged by `class`.
    fn sum(&self, class: impl Fn(usize) -> usize, classes: usize) -> Vec<u32> {
        let mut merged = vec![0u32; classes * SYMBOLS];
        for (context, after) in self.after.chunks_exact(SYMBOLS).enumerate() {
            let into = &mut merged[class(context) * SYMBOLS..][..SYMBOLS];
            for (sum, count) in into.iter_mut().zip(after) {
                *sum = sum.saturating_add(*count);
            }
        }
        merged
    }
}

impl Default for Counts {
    fn default() -> Self {
        Self::new()
    }
}

/// Probabilities after each context, the unseen share taken from `shorter`.
fn blend(counts: &[u32], shorter: impl Fn(usize) -> [f64; SYMBOLS]) -> Vec<[f64; SYMBOLS]> {
    let mix = |(context, after): (usize, &[u32])| {
        let total: f64 = after.iter().map(|&c| f64::from(c)).sum();
        let kinds = after.iter().filter(|&&c| c > 0).count().max(1) as f64;
        let mut mixed = shorter(context);
        for (p, &count) in mixed.iter_mut().zip(after) {
            *p = (f64::from(count) + kinds * *p) / (total + kinds);
        }
        mixed
    };
    counts.chunks_exact(SYMBOLS).enumerate().map(mix).collect()
}

/// Integers of at least one that sum to 2^[`TOTAL_BITS`], nearest to `probabilities` from below; what rounding leaves
/// goes to the symbols that lost most, lower symbols first among equals.
fn quantise(probabilities: &[f64; SYMBOLS]) -> [u16; SYMBOLS] {
    let share = (1u32 << TOTAL_BITS) - SYMBOLS as u32;
    let exact = probabilities.map(|p| p * f64::from(share));
    let mut frequencies = exact.map(|e| 1 + e as u32);
    // Sums of the mixed probabilities may miss one by a rounding; take back from the largest what was given too much.
    let mut left = (1i64 << TOTAL_BITS) - frequencies.iter().map(|&f| i64::from(f)).sum::<i64>();
    let mut order: [usize; SYMBOLS] = std::array::from_fn(|symbol| symbol);
    order.sort_by(|&a, &b| exact[b].fract().total_cmp(&exact[a].fract()).then(a.cmp(&b)));
    for &symbol in order.iter().cycle() {
        match left {
            0 => break,
            1.. => {
                frequencies[symbol] += 1;
                left -= 1;
            }
            _ => {
                let largest = (0..SYMBOLS).max_by_key(|&s| frequencies[s]).unwrap_or(0);
                frequencies[largest] -= 1;
                left += 1;
            }
        }
    }
    frequencies.map(|f| f as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::table::ESCAPE;
    use proptest::prelude::*;

    #[test]
    fn what_was_seen_is_cheaper_than_what_was_not() {
        let mut counts = Counts::new();
        for _ in 0..100 {
            counts.add(b"\x03www");
        }
        let table = counts.fit();
        let first = table.contexts().nth(START * CLASSES + START).expect("start context");
        let w = usize::from(SYMBOL_OF[usize::from(b'w')]);
        assert!(first[w] > 60_000, "{}", first[w]);
        assert!(first[ESCAPE] >= 1);
        assert_eq!(table.trained_on(), 100);
    }

    #[test]
    fn no_names_at_all_still_give_a_code() {
        let table = Counts::new().fit();
        assert!(table.contexts().all(|after| after.iter().all(|&f| f > 1_000)));
    }

    proptest! {
        #[test]
        fn any_probabilities_become_a_code(weights in proptest::collection::vec(0.0f64..1.0, SYMBOLS)) {
            let sum: f64 = weights.iter().sum::<f64>().max(1e-9);
            let probabilities = std::array::from_fn(|i| weights[i] / sum);
            let frequencies = quantise(&probabilities);
            prop_assert_eq!(frequencies.iter().map(|&f| u32::from(f)).sum::<u32>(), 1 << TOTAL_BITS);
            prop_assert!(frequencies.iter().all(|&f| f > 0));
        }
    }
}
