//! Character model of benign host names: a code length for any payload part.
//!
//! [`fit`] makes the table from names, [`table`] is its file form, [`context`] says what of the symbols before counts,
//! `words` looks labels up, this module prices. Knows no session and no suffix: it is handed wire labels and says what
//! they are worth.
//!
//! The price is the length of a real code, so it bounds what can be told whoever chooses the names and however
//! (Kraft). Before each label the code says how it goes on: the payload part ends, or the label follows in one of the
//! codes of `Code`. How it goes on has frequencies for each *place*: how many labels there were and of what `Kind`
//! the last one was, which whoever reads the code knows by then. A label is priced by the cheapest of its codes, each
//! step rounded up, never capped; 2 to the minus price, summed over all payload parts, is therefore at most one.

pub mod context;
pub mod fit;
pub(crate) mod fixed;
pub(crate) mod numbers;
pub mod table;
mod words;

use std::sync::LazyLock;

use crate::bits::Bits;
use context::{BEFORE, ROWS, START};
use table::{ESCAPE, LABEL_END, PLACES, STEPS, SYMBOLS, TOTAL_BITS, Table, TableError};
use words::{NEVER, WINDOW, Words};

/// Price of the octet behind an escape: 8 bits, a flat code over all octets.
const ESCAPED_OCTET: u32 = 8 * Bits::STEPS;

/// How a label is coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Code {
    /// One of the table's words.
    Word = 1,
    /// One of the table's words, none included, and up to [`table::DIGITS_MOST`] digits.
    Numbered,
    /// Symbol after symbol, by the table's contexts; past [`WINDOW`] labels an octet alone ([`SINGLE_WEIGHTS`]).
    Spelled,
    /// Symbol after symbol, whatever came before: ids that machines make.
    Flat,
    /// The same, mostly hex digits.
    Hex,
    /// The same, mostly decimal digits.
    Decimal,
}

impl Code {
    const ALL: [Self; STEPS - 1] = [Self::Word, Self::Numbered, Self::Spelled, Self::Flat, Self::Hex, Self::Decimal];
}

/// What a label is, whichever code it was given in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// None of the others.
    Other,
    /// One of the table's words.
    Word,
    /// Two digits or more, alone.
    Number,
    /// One octet.
    Single,
}

/// Number of the place behind `labels` labels, the last of this kind.
fn place(labels: usize, last: Kind) -> usize {
    match labels {
        0 => 0,
        _ => 1 + (labels - 1).min(2) * 4 + last as usize,
    }
}

/// Places past the window.
const OTHER_BEFORE: usize = 1 + 2 * 4 + Kind::Other as usize;
const SINGLE_BEFORE: usize = 1 + 2 * 4 + Kind::Single as usize;

/// Weights of [`Code::Flat`], [`Code::Hex`] and [`Code::Decimal`] over [`RUN_TOTAL`]. Machine-made ids (hashes, shards,
/// buckets) are in every benign trace; letters and digits at 5.3 bits, hex at 4.2 are what they are worth, and what a
/// payload in base32 and base16 is worth too.
const RUN_WEIGHTS: [[u32; SYMBOLS]; 3] = {
    let mut flat = [26; SYMBOLS];
    flat[36] = 14; // hyphen
    flat[37] = 6; // underscore
    flat[LABEL_END] = 60;
    flat[ESCAPE] = 8;
    let mut hex = [1; SYMBOLS];
    let mut decimal = [1; SYMBOLS];
    let mut symbol = 0;
    while symbol < 36 {
        if symbol < 6 || symbol >= 26 {
            hex[symbol] = 56;
        }
        if symbol >= 26 {
            decimal[symbol] = 82;
        }
        symbol += 1;
    }
    hex[36] = 12;
    hex[LABEL_END] = 87;
    hex[ESCAPE] = 8;
    decimal[36] = 20;
    decimal[LABEL_END] = 149;
    decimal[ESCAPE] = 8;
    [flat, hex, decimal]
};
/// Sum of each of [`RUN_WEIGHTS`].
const RUN_TOTAL: u32 = 1024;

/// Weights over [`RUN_TOTAL`] of an octet that is a label alone, past [`WINDOW`] labels: reverse names have one for each
/// hex digit of an address (RFC 3596 section 2.5). Spelling stands back there, so that a name of 127 labels costs no
/// more time than one of four.
const SINGLE_WEIGHTS: [u32; 256] = {
    let mut weights = [1; 256];
    let mut octet = 0;
    while octet < 256 {
        if matches!(octet as u8, b'0'..=b'9' | b'a'..=b'f') {
            weights[octet] = 49;
        }
        octet += 1;
    }
    weights
};

/// Bits of one sum among three in a word: 64 symbols of at most 10 bits and an escaped octet's 8 stay below. A label of
/// more octets is in no name; it has no price as a run.
const LANE: u32 = 19;
/// Where the symbol of an octet stands above its three prices; sums of it run out at the top.
const SYMBOL_AT: u32 = 3 * LANE;
/// Octets of a label (RFC 1035 section 2.3.4).
const LABEL_OCTETS: usize = 63;

static SHIPPED: LazyLock<Model> = LazyLock::new(|| {
    let table = Table::from_bytes(include_bytes!("benign.bin"))
        .expect("the table compiled in is whole: a test of this crate reads the same octets");
    Model::of(&table)
});

/// A code for host names; exactly normalised, so that a code length is a bound (Kraft).
pub struct Model {
    /// Number of the context of each cell: row, second last and last symbol.
    contexts: Box<[u16; CELLS]>,
    /// First cell of the row for the fourth and third symbol before.
    rows: Box<[u16; PAIRS]>,
    /// Price of a symbol after a context, in 1/256 bit, an escaped octet included.
    spelled: Box<[u16]>,
    /// An octet's symbol above its prices in the three runs, [`LANE`] bits each; last the same of the end of a label.
    runs: Box<[u64; 257]>,
    /// Price of an octet that is a label alone, past [`WINDOW`] labels, going on to it included: behind a longer label,
    /// behind another octet alone.
    single: Box<[[u32; 256]; 2]>,
    /// Price of going on, by place.
    steps: [[u32; STEPS]; PLACES],
    words: Words,
}

/// Room for pairs of symbols and for cells, rounded up to powers of two: no index needs to be checked.
const PAIRS: usize = (BEFORE * BEFORE).next_power_of_two();
const CELLS: usize = (ROWS * BEFORE * BEFORE).next_power_of_two();

/// The pair of symbols as one number.
const fn pair(second: usize, last: usize) -> usize {
    second * BEFORE + last
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
        let price = |frequency: u32| Bits::log2_ratio(1 << TOTAL_BITS, u64::from(frequency)).steps();
        let checked = "a table is checked to be a code";
        let mut spelled = Vec::with_capacity(table.contexts().len() * SYMBOLS);
        for context in table.contexts() {
            let mut prices = table::frequencies(&context.classes).expect(checked).map(price);
            prices[ESCAPE] += ESCAPED_OCTET;
            // At most 24 bits, 6,144 steps: the smallest frequency is 1 of 2^16.
            spelled.extend(prices.map(|steps| steps as u16));
        }
        let number = |key| table.contexts().binary_search_by_key(&key, |context| context.key).ok();
        let mut contexts = Box::new([0; CELLS]);
        for cell in 0..ROWS * BEFORE * BEFORE {
            let (row, second, last) = (cell / (BEFORE * BEFORE), cell / BEFORE % BEFORE, cell % BEFORE);
            let chain = context::chain(row, second, last);
            // The root, at zero, is in every table.
            contexts[cell] = chain.into_iter().rev().find_map(number).unwrap_or(0) as u16;
        }
        let mut rows = Box::new([0; PAIRS]);
        for at in 0..BEFORE * BEFORE {
            rows[at] = (context::row(at / BEFORE, at % BEFORE) * BEFORE * BEFORE) as u16;
        }
        let run = |symbol: usize| {
            let mut lanes = symbol as u64;
            for weights in RUN_WEIGHTS.iter().rev() {
                let cost = Bits::log2_ratio(u64::from(RUN_TOTAL), u64::from(weights[symbol])).steps();
                let octet = if symbol == ESCAPE { ESCAPED_OCTET } else { 0 };
                lanes = lanes << LANE | u64::from(cost + octet);
            }
            lanes
        };
        let runs = std::array::from_fn(|at| run(SYMBOL_OF.get(at).map_or(LABEL_END, |&symbol| usize::from(symbol))));
        let steps = table.steps().map(|place| table::frequencies(&place).expect(checked).map(price));
        let single = [OTHER_BEFORE, SINGLE_BEFORE].map(|at| {
            std::array::from_fn(|octet| {
                let weight = u64::from(SINGLE_WEIGHTS[octet]);
                steps[at][Code::Spelled as usize] + Bits::log2_ratio(u64::from(RUN_TOTAL), weight).steps()
            })
        });
        Self {
            contexts,
            rows,
            spelled: spelled.into(),
            runs: Box::new(runs),
            single: Box::new(single),
            steps,
            words: Words::of(table),
        }
    }

    /// Information of a payload part (wire labels, no root label), rounded up to 1/256 bit.
    ///
    /// Total: octets that are not well-formed labels are priced as far as they go.
    pub fn cost(&self, payload: &[u8]) -> Bits {
        self.read(payload).total
    }

    /// Information of a payload part and of the label that carries most of it.
    pub fn read(&self, payload: &[u8]) -> Information {
        self.examine(payload).0
    }

    /// The same, and how little its labels are like a host's, at no further cost.
    pub fn examine(&self, payload: &[u8]) -> (Information, Strangeness) {
        let mut at = place(0, Kind::Other);
        let (mut richest, mut richest_symbols, mut total) = (0, 0, 0u32);
        let (mut strangest, mut strangest_symbols) = (0, 0);
        let mut short = 0;
        let mut add = |price: u32, as_host: u32, label: &[u8]| {
            let symbols = label.len() as u32 + 1;
            richest_symbols = if price > richest { symbols } else { richest_symbols };
            richest = richest.max(price);
            short += fixed::is_short(label);
            if as_host > strangest && fixed::speaks(label, short) {
                (strangest, strangest_symbols) = (as_host, symbols);
            }
            total = total.saturating_add(price);
        };
        let mut rest = self.walk(payload, |number, label, codes, kind| {
            let steps = &self.steps[at];
            let price = |code: Code| steps[code as usize] + codes[code as usize];
            // Two by two, so that no price waits for all the others.
            let as_host = price(Code::Word).min(price(Code::Numbered)).min(price(Code::Spelled));
            let as_run = price(Code::Flat).min(price(Code::Hex).min(price(Code::Decimal)));
            add(as_host.min(as_run), as_host, label);
            at = place(number + 1, kind);
        });
        while let Some((&len, tail)) = rest.split_first() {
            let (label, next) = tail.split_at(usize::from(len).min(tail.len()));
            if let [octet] = label {
                let price = self.single[usize::from(at == SINGLE_BEFORE)][usize::from(*octet)];
                add(price, price, label);
                at = SINGLE_BEFORE;
            } else {
                let runs = label.iter().fold(self.runs[256], |sum, &o| sum.wrapping_add(self.runs[usize::from(o)]));
                let [flat, hex, decimal] = self.lanes(runs, label.len());
                let steps = &self.steps[at];
                let price = |code: Code, run: u32| steps[code as usize] + run;
                let flat = price(Code::Flat, flat);
                add(flat.min(price(Code::Hex, hex)).min(price(Code::Decimal, decimal)), flat, label);
                at = OTHER_BEFORE;
            }
            rest = next;
        }
        total = total.saturating_add(self.steps[at][0]);
        let information =
            Information { total: Bits::from_steps(total), richest: Bits::from_steps(richest), richest_symbols };
        (information, Strangeness { bits: Bits::from_steps(strangest), symbols: strangest_symbols })
    }

    /// Hands the number of each of the first [`WINDOW`] labels, its octets, its prices by [`Code`], and its kind to
    /// `each`; gives the labels behind them.
    #[inline]
    fn walk<'p>(&self, payload: &'p [u8], mut each: impl FnMut(usize, &[u8], [u32; STEPS], Kind)) -> &'p [u8] {
        let mut before = Before::START;
        let mut at = 0;
        let mut rest = payload;
        for number in 0..WINDOW {
            let Some((&len, tail)) = rest.split_first() else { break };
            let (label, next) = tail.split_at(usize::from(len).min(tail.len()));
            let (spelled, runs) = self.spell(&mut before, label);
            let found = self.words.find(payload, at + 1, label.len(), number == 0);
            let kind = match label.len() {
                1 => Kind::Single,
                _ if found.number => Kind::Number,
                _ if found.word < NEVER => Kind::Word,
                _ => Kind::Other,
            };
            let [flat, hex, decimal] = self.lanes(runs, label.len());
            // The end, at zero, is no code of a label.
            each(number, label, [NEVER, found.word, found.numbered, spelled, flat, hex, decimal], kind);
            at += 1 + label.len();
            rest = next;
        }
        rest
    }

    /// The three prices in a sum of [`Model::runs`].
    #[inline]
    fn lanes(&self, runs: u64, octets: usize) -> [u32; 3] {
        let never = if octets > LABEL_OCTETS { NEVER } else { 0 };
        [0, LANE, 2 * LANE].map(|at| (runs >> at) as u32 & ((1 << LANE) - 1) | never)
    }

    /// Prices of a label symbol after symbol, its end included: by contexts, and in the three runs.
    #[inline]
    fn spell(&self, before: &mut Before, label: &[u8]) -> (u32, u64) {
        let (mut spelled, mut runs) = (0u32, self.runs[256]);
        for &octet in label {
            let octet = self.runs[usize::from(octet)];
            spelled += self.after(before, (octet >> SYMBOL_AT) as usize);
            runs = runs.wrapping_add(octet);
        }
        (spelled + self.after(before, LABEL_END), runs)
    }

    /// Price of the next symbol.
    #[inline]
    fn after(&self, before: &mut Before, symbol: usize) -> u32 {
        let cell = usize::from(self.rows[before.older % PAIRS]) + before.young;
        let context = usize::from(self.contexts[cell % CELLS]);
        *before = Before { older: before.old, old: before.young, young: pair(before.last, symbol), last: symbol };
        u32::from(self.spelled[context * SYMBOLS + symbol])
    }
}

/// What stands before a symbol: pairs of the fourth and third, third and second, second and last, and the last alone.
#[derive(Clone, Copy)]
struct Before {
    older: usize,
    old: usize,
    young: usize,
    last: usize,
}

impl Before {
    const START: Self =
        Self { older: pair(START, START), old: pair(START, START), young: pair(START, START), last: START };
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

/// How little a payload part is like a host's name. Evidence, not a charge: it is no less for a label that some other
/// code makes cheap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strangeness {
    /// Price of the strangest label that is evidence, were there no codes for what machines make; past eight labels its price
    /// as letters and digits that are all as likely.
    pub bits: Bits,
    /// Symbols of that label, its end included; zero where no label is evidence.
    pub symbols: u32,
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
mod tests;
