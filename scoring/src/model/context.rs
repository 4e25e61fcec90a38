//! Contexts of a symbol: what of the four symbols before it counts.
//!
//! Between [`super::table`], which holds frequencies by [`Key`], and [`super::Model`], which prices by cell. A *cell* is
//! the last two symbols and a *row*, which says the third symbol, or, where the third or fourth is a digit, only what
//! sort both are. Among letters the chain from general to particular is: nothing, the last symbol, the last two, the
//! cell. Where a digit is near, the sorts of the symbols take the place of the symbols: nobody can learn which hex digit
//! follows which.

use super::table::{LABEL_END, SYMBOLS};

/// Symbols that can stand before another: every symbol, or the start.
pub const BEFORE: usize = SYMBOLS + 1;
/// What stands before the first symbol.
pub const START: usize = SYMBOLS;
/// Rows of cells.
pub const ROWS: usize = 38;
/// Rows that say the third symbol.
const PLAIN_ROWS: usize = 31;

/// Octet for the level, then three for what it looks at, zero where it looks at less.
pub type Key = u32;

/// The context that looks at nothing.
pub const ROOT: Key = 0;
const LAST: u8 = 1;
const PAIR: u8 = 2;
const CELL: u8 = 3;
const SORT: u8 = 4;
const SORTS: u8 = 5;
const GROUP: u8 = 6;

/// Sorts of symbols.
const HEX: usize = 0;
const LETTER: usize = 1;
const DIGIT: usize = 2;
const OTHER: usize = 3;

const fn sort(symbol: usize) -> usize {
    match symbol {
        0..6 => HEX,
        6..26 => LETTER,
        26..36 => DIGIT,
        _ => OTHER,
    }
}

/// The row for the fourth and the third symbol before.
pub const fn row(fourth: usize, third: usize) -> usize {
    match (sort(fourth), sort(third)) {
        (of_fourth, DIGIT) => PLAIN_ROWS + of_fourth,
        (DIGIT, HEX) => PLAIN_ROWS + 4,
        (DIGIT, LETTER) => PLAIN_ROWS + 5,
        (DIGIT, _) => PLAIN_ROWS + 6,
        (_, OTHER) => third - 10,
        _ => third,
    }
}

/// What a row comes to where only sorts count.
const fn group(row: usize) -> usize {
    match row {
        0..26 => sort(row),
        26..PLAIN_ROWS => OTHER,
        _ => row - PLAIN_ROWS + 4,
    }
}

const fn key(level: u8, a: usize, b: usize, c: usize) -> Key {
    Key::from_be_bytes([level, a as u8, b as u8, c as u8])
}

/// The contexts of a cell, from general to particular.
pub fn chain(row: usize, second: usize, last: usize) -> [Key; 4] {
    let cell = key(CELL, row, second, last);
    if row >= PLAIN_ROWS || sort(second) == DIGIT || sort(last) == DIGIT {
        let sorts = key(SORTS, sort(second), sort(last), 0);
        let by_group = key(GROUP, group(row), sort(second), sort(last));
        // One level more than among letters: the sort of the last symbol alone, above the sorts of two.
        [key(SORT, sort(last), 0, 0), sorts, by_group, cell]
    } else {
        [ROOT, key(LAST, last, 0, 0), key(PAIR, second, last, 0), cell]
    }
}

/// The context whose frequencies fill in what one has not seen; `None` for [`ROOT`].
pub fn shorter(of: Key, chain: &[Key; 4]) -> Option<Key> {
    let at = chain.iter().position(|&key| key == of)?;
    match at {
        0 => (of != ROOT).then_some(ROOT),
        _ => Some(chain[at - 1]),
    }
}

/// Whether a key is one of those that [`chain`] gives.
pub fn is_key(of: Key) -> bool {
    let [level, a, b, c] = of.to_be_bytes().map(usize::from);
    let sorts = OTHER + 1;
    match level as u8 {
        0 => of == ROOT,
        LAST => a < BEFORE && b + c == 0,
        PAIR => a < BEFORE && b < BEFORE && c == 0,
        CELL => a < ROWS && b < BEFORE && c < BEFORE,
        SORT => a < sorts && b + c == 0,
        SORTS => a < sorts && b < sorts && c == 0,
        GROUP => a < ROWS - PLAIN_ROWS + 4 && b < sorts && c < sorts,
        _ => false,
    }
}

/// Whether a key is a cell's own.
pub fn is_cell(of: Key) -> bool {
    of.to_be_bytes()[0] == CELL
}

/// The four symbols before.
#[derive(Debug, Clone, Copy)]
pub struct History([usize; 4]);

impl History {
    /// Before the first symbol.
    pub const fn new() -> Self {
        Self([START; 4])
    }

    /// The contexts of the next symbol.
    pub fn chain(&self) -> [Key; 4] {
        let [fourth, third, second, last] = self.0;
        chain(row(fourth, third), second, last)
    }

    /// Adds a symbol.
    pub fn push(&mut self, symbol: usize) {
        let [_, third, second, last] = self.0;
        self.0 = [third, second, last, symbol];
    }
}

impl Default for History {
    fn default() -> Self {
        Self::new()
    }
}

/// Symbols of a label, its end included.
pub fn symbols(label: &[u8]) -> impl Iterator<Item = usize> {
    label.iter().map(|&octet| usize::from(super::SYMBOL_OF[usize::from(octet)])).chain([LABEL_END])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cell_has_a_chain_of_keys_from_the_root() {
        let mut rows = std::collections::BTreeSet::new();
        for fourth in 0..BEFORE {
            for third in 0..BEFORE {
                rows.insert(row(fourth, third));
            }
        }
        assert_eq!(rows.into_iter().collect::<Vec<_>>(), (0..ROWS).collect::<Vec<_>>());
        for row in 0..ROWS {
            for second in 0..BEFORE {
                for last in 0..BEFORE {
                    let chain = chain(row, second, last);
                    assert!(chain.iter().all(|&key| is_key(key)));
                    assert!(is_cell(chain[3]));
                    let mut key = chain[3];
                    let mut steps = 0;
                    while let Some(next) = shorter(key, &chain) {
                        (key, steps) = (next, steps + 1);
                    }
                    assert!(key == ROOT && (3..=4).contains(&steps));
                }
            }
        }
    }

    #[test]
    fn digits_make_what_is_near_them_a_sort() {
        let chain_of = |text: &[u8]| {
            let mut history = History::new();
            symbols(text).take(text.len()).for_each(|symbol| history.push(symbol));
            history.chain()
        };
        assert_eq!(chain_of(b"1a2b")[2], chain_of(b"3f7c")[2]);
        assert_eq!(chain_of(b"1a2b")[1], chain_of(b"xx7c")[1]);
        assert_ne!(chain_of(b"1a2b")[2], chain_of(b"1a2z")[2]);
        assert_eq!(chain_of(b"xyz"), chain_of(b"wxyz"), "the fourth letter is not looked at");
        assert_ne!(chain_of(b"abcd")[2], chain_of(b"abce")[2]);
    }
}
