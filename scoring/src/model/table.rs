//! The model's table and its file form.
//!
//! Header of 32 octets, then four sections. Frequencies are held as classes of one octet, sixteen to the octave
//! ([`frequency`]); in a distribution that must sum to 2^[`TOTAL_BITS`] the first of the largest classes stands for
//! what the others leave, so that every sum is exact and a table needs one octet a symbol.
//!
//! | octets | meaning |
//! |---|---|
//! | 0..8 | magic `STAUNCHM` |
//! | 8..10 | version, 2 |
//! | 10..12 | symbols after a context |
//! | 12..14 | contexts |
//! | 14..16 | words |
//! | 16..20 | names it was fitted on |
//! | 20..24 | zero |
//! | 24..32 | FNV-1a 64 of everything behind the header |
//! | then | for each context, ascending: its key (big-endian 32 bit, [`super::context`]), a class for each symbol |
//! | then | for each place before a label: a class for each of the [`STEPS`] |
//! | then | a class for each number of digits, 1 to [`DIGITS_MOST`] |
//! | then | for each word, ascending: its length, its octets, its three classes ([`Word`]) |

use std::fmt;

use super::context::{Key, ROOT, is_key};

/// Symbols after a context: `a-z`, `0-9`, `-`, `_`, end of the label, escape.
pub const SYMBOLS: usize = 40;
/// Symbol after the last octet of a label.
pub const LABEL_END: usize = 38;
/// Symbol before an octet that has none of its own.
pub const ESCAPE: usize = 39;
/// The frequencies of a distribution sum to two to this power.
pub const TOTAL_BITS: u32 = 16;
/// Ways to go on before a label: end of the payload part, then the codes of a label (`Code`) in order.
pub const STEPS: usize = 7;
/// Places before a label that have frequencies of their own: the start, then kind of the last label by labels so far.
pub const PLACES: usize = 13;
/// Digits a numbered word can have.
pub const DIGITS_MOST: usize = 8;
/// Octets a word can have.
pub const WORD_MOST: usize = 16;
/// Words a table can have.
pub const WORDS_MOST: usize = 1024;

const MAGIC: &[u8; 8] = b"STAUNCHM";
const VERSION: u16 = 2;
const HEADER: usize = 32;
const TOTAL: u32 = 1 << TOTAL_BITS;

/// 2^(16 + i/16) for i of 0..16, rounded down.
const ROOTS: [u32; 16] = [
    65536, 68437, 71467, 74631, 77935, 81386, 84989, 88752, 92681, 96785, 101070, 105545, 110217, 115097, 120193,
    125514,
];

/// Frequency of a class: 2^(class/16), rounded down. At least one.
pub fn frequency(class: u8) -> u32 {
    ROOTS[usize::from(class % 16)] >> (16 - class / 16)
}

/// The class of the largest frequency not above `target`; 0 where that is below one.
pub fn class_below(target: f64) -> u8 {
    (0..=u8::MAX).rev().find(|&class| f64::from(frequency(class)) <= target).unwrap_or(0)
}

/// Frequencies of a distribution in classes: the first of the largest takes what the others leave. `None` where that
/// would be nothing.
pub fn frequencies<const N: usize>(classes: &[u8; N]) -> Option<[u32; N]> {
    let mut frequencies = classes.map(frequency);
    let largest = (0..N).rev().max_by_key(|&at| classes[at])?;
    let others = frequencies.iter().sum::<u32>() - frequencies[largest];
    frequencies[largest] = TOTAL.checked_sub(others).filter(|&rest| rest > 0)?;
    Some(frequencies)
}

/// Why octets are not a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableError {
    /// Wrong length, magic, version or dimensions.
    Form,
    /// The octets are not those the header's hash was made of.
    Hash,
    /// The context of this number has no valid key, is out of order, or its frequencies are not a code.
    Context(usize),
    /// The frequencies before a label, or those of the number of digits, are not a code.
    Steps,
    /// The word of this number is too long, out of order, or the weights up to it are more than a code has.
    Word(usize),
}

impl fmt::Display for TableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Form => f.write_str("not a model table of this version"),
            Self::Hash => f.write_str("the model table's octets do not match its hash"),
            Self::Context(context) => write!(f, "the frequencies after context {context} are not a code"),
            Self::Steps => f.write_str("the frequencies before a label are not a code"),
            Self::Word(word) => write!(f, "word {word} is not one, or the words' weights are not a code"),
        }
    }
}

impl std::error::Error for TableError {}

/// A label that stands under many domains, and how often it does.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Word {
    /// Lower-case octets, at most [`WORD_MOST`]; none for a label that is a number alone.
    pub octets: Box<[u8]>,
    /// Classes of its weight in 2^[`TOTAL_BITS`]: as the first label, as a later label, before digits.
    pub classes: [u8; 3],
}

/// Frequencies of every symbol after a context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    /// Which context.
    pub key: Key,
    /// Class of each symbol.
    pub classes: [u8; SYMBOLS],
}

/// A fitted table, checked to be a code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    contexts: Vec<Context>,
    steps: [[u8; STEPS]; PLACES],
    digits: [u8; DIGITS_MOST],
    words: Vec<Word>,
    trained_on: u32,
}

impl Table {
    /// A table of these classes; contexts and words in ascending order.
    ///
    /// # Errors
    /// See [`TableError`].
    pub fn new(
        contexts: Vec<Context>,
        steps: [[u8; STEPS]; PLACES],
        digits: [u8; DIGITS_MOST],
        words: Vec<Word>,
        trained_on: u32,
    ) -> Result<Self, TableError> {
        if contexts.first().is_none_or(|first| first.key != ROOT) || contexts.len() > usize::from(u16::MAX) {
            return Err(TableError::Form);
        }
        for (at, context) in contexts.iter().enumerate() {
            let ordered = at == 0 || contexts[at - 1].key < context.key;
            if !ordered || !is_key(context.key) || frequencies(&context.classes).is_none() {
                return Err(TableError::Context(at));
            }
        }
        if steps.iter().any(|place| frequencies(place).is_none()) || frequencies(&digits).is_none() {
            return Err(TableError::Steps);
        }
        if words.len() > WORDS_MOST {
            return Err(TableError::Form);
        }
        let mut sums = [0; 3];
        for (at, word) in words.iter().enumerate() {
            let ordered = at == 0 || words[at - 1].octets < word.octets;
            sums.iter_mut().zip(word.classes).for_each(|(sum, class)| *sum += frequency(class));
            if !ordered || word.octets.len() > WORD_MOST || sums.iter().any(|&sum| sum > TOTAL) {
                return Err(TableError::Word(at));
            }
        }
        Ok(Self { contexts, steps, digits, words, trained_on })
    }

    /// Reads the file form.
    ///
    /// # Errors
    /// See [`TableError`].
    pub fn from_bytes(octets: &[u8]) -> Result<Self, TableError> {
        let (header, body) = octets.split_at_checked(HEADER).ok_or(TableError::Form)?;
        let short = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
        let trained_on = u32::from(short(16)) | u32::from(short(18)) << 16;
        let (contexts, words) = (short(12), short(14));
        if header[..24] != Self::header_front(contexts, words, trained_on) {
            return Err(TableError::Form);
        }
        if header[24..] != fnv1a(body).to_le_bytes() {
            return Err(TableError::Hash);
        }
        let mut rest = Reader(body);
        let contexts = (0..contexts)
            .map(|_| Some(Context { key: Key::from_be_bytes(rest.array()?), classes: rest.array()? }))
            .collect::<Option<_>>()
            .ok_or(TableError::Form)?;
        let mut steps = [[0; STEPS]; PLACES];
        for place in &mut steps {
            *place = rest.array().ok_or(TableError::Form)?;
        }
        let digits = rest.array().ok_or(TableError::Form)?;
        let words = (0..words)
            .map(|_| {
                let [len] = rest.array()?;
                Some(Word { octets: rest.take(usize::from(len))?.into(), classes: rest.array()? })
            })
            .collect::<Option<_>>()
            .ok_or(TableError::Form)?;
        if !rest.0.is_empty() {
            return Err(TableError::Form);
        }
        Self::new(contexts, steps, digits, words, trained_on)
    }

    /// The file form. The same table always gives the same octets.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut body = Vec::new();
        for context in &self.contexts {
            body.extend(context.key.to_be_bytes());
            body.extend(context.classes);
        }
        body.extend(self.steps.as_flattened());
        body.extend(self.digits);
        for word in &self.words {
            body.push(word.octets.len() as u8);
            body.extend(&word.octets);
            body.extend(word.classes);
        }
        let mut octets = Vec::with_capacity(HEADER + body.len());
        octets.extend(Self::header_front(self.contexts.len() as u16, self.words.len() as u16, self.trained_on));
        octets.extend(fnv1a(&body).to_le_bytes());
        octets.extend(body);
        octets
    }

    /// The contexts, ascending.
    pub fn contexts(&self) -> &[Context] {
        &self.contexts
    }

    /// Classes of the ways to go on, by place.
    pub fn steps(&self) -> &[[u8; STEPS]; PLACES] {
        &self.steps
    }

    /// Classes of the number of digits, from one digit up.
    pub fn digits(&self) -> &[u8; DIGITS_MOST] {
        &self.digits
    }

    /// The words, ascending.
    pub fn words(&self) -> &[Word] {
        &self.words
    }

    /// Names it was fitted on.
    pub fn trained_on(&self) -> u32 {
        self.trained_on
    }

    fn header_front(contexts: u16, words: u16, trained_on: u32) -> [u8; 24] {
        let mut front = [0; 24];
        front[..8].copy_from_slice(MAGIC);
        for (at, value) in [(8, VERSION), (10, SYMBOLS as u16), (12, contexts), (14, words)] {
            front[at..at + 2].copy_from_slice(&value.to_le_bytes());
        }
        front[16..20].copy_from_slice(&trained_on.to_le_bytes());
        front
    }
}

/// What is left of the octets.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }
}

/// FNV-1a, 64 bit: finds damage, not forgery; the table is compiled in.
fn fnv1a(octets: &[u8]) -> u64 {
    octets.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &octet| (hash ^ u64::from(octet)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn even() -> Table {
        let context = Context { key: ROOT, classes: [170; SYMBOLS] };
        let word = |text: &str| Word { octets: text.as_bytes().into(), classes: [200; 3] };
        Table::new(vec![context], [[200; STEPS]; PLACES], [200; DIGITS_MOST], vec![word(""), word("www")], 7)
            .expect("a code")
    }

    #[test]
    fn classes_are_sixteen_to_the_octave() {
        assert_eq!([0, 16, 32, 240].map(frequency), [1, 2, 4, 32768]);
        assert!((0..u8::MAX).all(|class| frequency(class) <= frequency(class + 1)));
        for target in [1.0, 2.0, 700.5, 65535.0] {
            let below = f64::from(frequency(class_below(target)));
            assert!(below <= target && below > target / 1.05, "{below} for {target}");
        }
        for (i, root) in ROOTS.iter().enumerate() {
            assert_eq!(*root, (16.0 + i as f64 / 16.0).exp2() as u32);
        }
    }

    #[test]
    fn the_largest_takes_what_is_left() {
        let all = frequencies(&[240, 16, 0]).expect("a code");
        assert_eq!(all, [65533, 2, 1]);
        assert_eq!(frequencies(&[100, 100]).expect("a code")[0], TOTAL - frequency(100), "the first of equals");
        assert!(frequencies(&[255, 255, 255]).is_none());
    }

    #[test]
    fn the_file_form_round_trips_and_notices_damage() {
        let table = even();
        let octets = table.to_bytes();
        assert_eq!(Table::from_bytes(&octets).as_ref(), Ok(&table));
        for at in HEADER..octets.len() {
            let mut flipped = octets.clone();
            flipped[at] ^= 1;
            assert_eq!(Table::from_bytes(&flipped).err(), Some(TableError::Hash));
        }
        let mut other = octets.clone();
        other[8] = 1;
        assert_eq!(Table::from_bytes(&other).err(), Some(TableError::Form), "another version");
        for len in 0..octets.len() {
            assert!(Table::from_bytes(&octets[..len]).is_err(), "cut at {len}");
        }
    }

    #[test]
    fn what_is_no_code_is_refused() {
        let table = even();
        let again = |contexts: &[Context], words: &[Word]| {
            Table::new(contexts.to_vec(), table.steps, table.digits, words.to_vec(), 0).err()
        };
        let context = table.contexts[0];
        assert_eq!(again(&[], &[]), Some(TableError::Form));
        assert_eq!(again(&[context, context], &[]), Some(TableError::Context(1)), "twice the same");
        assert_eq!(again(&[Context { classes: [255; SYMBOLS], ..context }], &[]), Some(TableError::Context(0)));
        assert_eq!(again(&[context, Context { key: Key::MAX, ..context }], &[]), Some(TableError::Context(1)));
        let word = |text: &str, class| Word { octets: text.as_bytes().into(), classes: [0, class, 0] };
        assert_eq!(again(&[context], &[word("b", 0), word("a", 0)]), Some(TableError::Word(1)), "out of order");
        assert_eq!(again(&[context], &[word("a", 240), word("b", 241)]), Some(TableError::Word(1)), "too much weight");
        assert_eq!(again(&[context], &[word("a", 240), word("b", 240)]), None);
        assert_eq!(again(&[context], &[word(&"a".repeat(17), 0)]), Some(TableError::Word(0)));
        let steps = Table::new(vec![context], [[255; STEPS]; PLACES], table.digits, vec![], 0);
        assert_eq!(steps.err(), Some(TableError::Steps));
    }
}
