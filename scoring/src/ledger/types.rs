//! Prices of record types and flags, as the lengths of an adaptive code.
//!
//! A stub asks in a rhythm (A, AAAA, HTTPS, and again), so what comes next says little; a sender that picks types to
//! tell something breaks the rhythm and pays. Four classes: the three types of address look-ups with both flags clear,
//! and all else, which also pays for which. The class is coded with the counts seen behind the last
//! class in this account, with weights that favour A before anything was seen; counts are halved at fifteen, which is a rule of the history alone, so the code stays a code.

use crate::bits::Bits;

/// DNSSEC OK and checking disabled: combinations of flags a query can carry.
const FLAGS: u64 = 4;
const CLASSES: usize = 4;
const MOST: u16 = 15;
/// Weights before anything was seen, by last class, in sixths of a count. A stub asks for A first, then for AAAA or for the next
/// name.
const PRIOR: [[u64; CLASSES]; CLASSES] = [[8, 8, 1, 1], [12, 1, 2, 1], [12, 2, 1, 1], [2, 1, 1, 4]];

/// What was asked under one tenant, by class behind class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub(crate) struct TypeHistory {
    /// A row for each last class; in it four bits for each next class.
    rows: [u16; CLASSES],
    last: u8,
}

fn class(qtype: u16, flags: u8) -> usize {
    match (qtype, flags) {
        (1, 0) => 0,
        (28, 0) => 1,
        (65, 0) => 2,
        _ => 3,
    }
}

/// Price of a type and flags without a history: one of four classes, and which of the last.
pub(crate) fn price_alone(qtype: u16, flags: u8, allowed: u8) -> Bits {
    let which = if class(qtype, flags) == 3 { Bits::log2(FLAGS * u64::from(allowed.max(1))) } else { Bits::ZERO };
    Bits::whole(2).plus(which)
}

impl TypeHistory {
    /// What is kept of it: the rows one after another, and the last class.
    pub fn words(&self) -> [u64; 2] {
        let rows = self.rows.iter().rev().fold(0, |all, row| all << 16 | u64::from(*row));
        [rows, self.last.into()]
    }

    /// What was kept. A class that does not exist is the first.
    pub fn of_words([rows, last]: [u64; 2]) -> Self {
        let row = |at: usize| (rows >> (16 * at)) as u16;
        let last = u8::try_from(last).ok().filter(|last| usize::from(*last) < CLASSES);
        Self { rows: std::array::from_fn(row), last: last.unwrap_or(0) }
    }

    fn count(&self, class: usize) -> u16 {
        self.rows.get(usize::from(self.last)).map_or(0, |row| row >> (4 * class) & MOST)
    }

    /// Price of asking `qtype` with `flags` next, where the profile answers `allowed` types.
    pub fn price(&self, qtype: u16, flags: u8, allowed: u8) -> Bits {
        let prior = PRIOR.get(usize::from(self.last)).unwrap_or(&PRIOR[0]);
        let weight = |class: usize| 6 * u64::from(self.count(class)) + prior[class];
        let all = (0..CLASSES).map(weight).sum();
        let class = class(qtype, flags);
        let which = if class == 3 { Bits::log2(FLAGS * u64::from(allowed.max(1))) } else { Bits::ZERO };
        Bits::log2_ratio(all, weight(class)).plus(which)
    }

    /// Writes a forwarded query down.
    pub fn book(&mut self, qtype: u16, flags: u8) {
        let class = class(qtype, flags);
        let full = self.count(class) == MOST;
        if let Some(row) = self.rows.get_mut(usize::from(self.last)) {
            if full {
                // Every count of the row by half: one shift, and the bits that crossed into a neighbour masked out.
                *row = *row >> 1 & 0x7777;
            }
            *row += 1 << (4 * class);
        }
        self.last = class as u8; // below CLASSES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rhythm_gets_cheap_and_breaking_it_does_not() {
        let mut history = TypeHistory::default();
        let mut spent = Bits::ZERO;
        for _ in 0..1_000 {
            for qtype in [1, 28, 65] {
                spent = spent.plus(history.price(qtype, 0, 17));
                history.book(qtype, 0);
            }
        }
        assert!(spent < Bits::whole(600), "{spent} bits for three thousand queries");
        assert!(history.price(28, 0, 17) > Bits::whole(4), "{}", history.price(28, 0, 17));
        assert!(history.price(16, 0, 17) > Bits::whole(9));
        assert!(history.price(1, 1, 17) > Bits::whole(9), "a flag is a choice too");
    }

    #[test]
    fn all_that_can_come_next_weighs_at_most_one() {
        let mut history = TypeHistory::default();
        let mut state = 7u32;
        for _ in 0..500 {
            let weigh = |qtype, flags| (-history.price(qtype, flags, 17).as_f64()).exp2();
            let plain: f64 = [1, 28, 65].map(|qtype| weigh(qtype, 0)).iter().sum();
            // 17 types with four combinations of flags, less the three above.
            let other = (17.0 * 4.0 - 3.0) * weigh(16, 0);
            assert!(plain + other <= 1.0 + 1e-9, "{}", plain + other);
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            history.book([1, 28, 65, 16][(state >> 24) as usize % 4], 0);
        }
    }
}
