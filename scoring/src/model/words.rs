//! Words: labels that stand under many domains, looked up whole.
//!
//! Between [`super::table`], which lists them, and [`super::Model`]. A label is a word, or a word and up to
//! [`DIGITS_MOST`] digits; a label of digits alone is the empty word and its digits. Looks at no octet one by one
//! but at the ends of a payload part: a label is three loads, whoever chose it.

use super::table::{DIGITS_MOST, Table, WORD_MOST, frequency};
use crate::bits::Bits;

/// Labels of a payload part that are looked up. A host name's are few; what has more is spelled.
pub const WINDOW: usize = 8;
/// Octets a label to be looked up can have.
pub const LABEL_MOST: usize = WORD_MOST + DIGITS_MOST;
/// log2 of 10 in 1/256 bit, rounded up.
const DIGIT: u32 = 851;
/// Slots of the index; sparse, so that a multiplier without a collision is found.
const SLOT_BITS: u32 = 14;
/// Multipliers tried. A table for which none is free of collisions loses the words that collide, never its being a code.
const TRIES: u64 = 4_096;
/// Price of what cannot be coded this way; higher than any that can, low enough to be added to.
pub const NEVER: u32 = 1 << 28;

/// A word and the number of digits at the end that are no part of it.
pub fn cut(label: &[u8]) -> (&[u8], usize) {
    let digits = label.iter().rev().take(DIGITS_MOST).take_while(|octet| octet.is_ascii_digit()).count();
    (&label[..label.len() - digits], digits)
}

/// The words with their prices.
pub struct Words {
    /// Number of the word in each slot, counted from one; zero for none.
    slots: Box<[u16]>,
    multiplier: u64,
    words: Box<[Entry]>,
    digits: [u32; DIGITS_MOST + 1],
}

#[derive(Clone, Copy)]
struct Entry {
    key: u128,
    /// An octet of zero at the end of a label is not the end of a word.
    len: usize,
    /// As the first label, as a later label, before digits.
    prices: [u32; 3],
}

/// What a label is worth as a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Price as a word, [`NEVER`] if it is none.
    pub word: u32,
    /// Price as a word and digits, [`NEVER`] if it is none.
    pub numbered: u32,
    /// Whether it is digits alone, at most [`DIGITS_MOST`].
    pub number: bool,
}

impl Found {
    /// Neither.
    pub const NOTHING: Self = Self { word: NEVER, numbered: NEVER, number: false };
}

impl Words {
    /// Prices the words of a table.
    pub fn of(table: &Table) -> Self {
        let price = |class: u8| Bits::log2_ratio(1 << super::table::TOTAL_BITS, u64::from(frequency(class))).steps();
        let mut words = vec![Entry { key: 0, len: usize::MAX, prices: [NEVER; 3] }];
        words.extend(table.words().iter().map(|word| {
            let mut octets = [0; WORD_MOST];
            octets[..word.octets.len()].copy_from_slice(&word.octets);
            // The empty word is only ever a number's.
            let prices = word.classes.map(price);
            let prices = if word.octets.is_empty() { [NEVER, NEVER, prices[2]] } else { prices };
            Entry { key: u128::from_le_bytes(octets), len: word.octets.len(), prices }
        }));
        let (multiplier, slots) = index(&words);
        let lengths = super::table::frequencies(table.digits()).expect("a table is checked to be a code");
        let mut digits = [NEVER; DIGITS_MOST + 1];
        for (number, length) in (1u32..).zip(lengths) {
            digits[number as usize] =
                Bits::log2_ratio(1 << super::table::TOTAL_BITS, u64::from(length)).steps() + DIGIT * number;
        }
        Self { slots, multiplier, words: words.into(), digits }
    }

    /// Looks up the label of `len` octets at `at`; `first` if it is the leftmost.
    #[inline]
    pub fn find(&self, payload: &[u8], at: usize, len: usize, first: bool) -> Found {
        let Some((word, digits)) = split(payload, at, len) else { return Found::NOTHING };
        let slot = slot(word, self.multiplier);
        let number = usize::from(self.slots.get(slot).copied().unwrap_or(0));
        let entry = self
            .words
            .get(number)
            .filter(|entry| entry.key == word && entry.len == len - digits)
            .unwrap_or(&self.words[0]);
        let [as_first, as_later, before_digits] = entry.prices;
        let bare = if first { as_first } else { as_later };
        Found {
            word: if digits == 0 { bare } else { NEVER },
            numbered: before_digits + self.digits[digits],
            number: digits == len,
        }
    }
}

fn slot(word: u128, multiplier: u64) -> usize {
    let folded = (word as u64).wrapping_add(((word >> 64) as u64).rotate_left(29).wrapping_mul(multiplier ^ 0x5bd1));
    (folded.wrapping_mul(multiplier) >> (64 - SLOT_BITS)) as usize
}

fn index(words: &[Entry]) -> (u64, Box<[u16]>) {
    let mut multiplier = 0x9e37_79b9_7f4a_7c15u64;
    let mut slots = vec![0u16; 1 << SLOT_BITS];
    for _ in 0..TRIES {
        slots.fill(0);
        let mut free = true;
        for (number, word) in words.iter().enumerate().skip(1) {
            let slot = &mut slots[slot(word.key, multiplier)];
            free &= *slot == 0;
            *slot = number as u16;
        }
        if free {
            break;
        }
        multiplier = multiplier.wrapping_mul(0xd134_2543_de82_ef95).wrapping_add(2) | 1;
    }
    (multiplier, slots.into())
}

/// The word of the label at `at`, zero behind its end, and the number of digits behind it. `None` for a label too long
/// to be one.
#[inline]
fn split(payload: &[u8], at: usize, len: usize) -> Option<(u128, usize)> {
    if len > LABEL_MOST {
        return None;
    }
    let end = at + len;
    let tail = match end.checked_sub(8).and_then(|from| payload.get(from..end)?.try_into().ok()) {
        Some(octets) => u64::from_le_bytes(octets),
        // Near the front of the payload part there are fewer than eight.
        None => payload.get(..end)?.iter().fold(0, |tail, &octet| tail >> 8 | u64::from(octet) << 56),
    };
    // An octet less 0x30 is a digit if it is below ten; the highest bit of each octet then stays clear.
    let low = 0x7f7f_7f7f_7f7f_7f7f;
    let offset = tail ^ 0x3030_3030_3030_3030;
    let others = (((offset & low) + 0x7676_7676_7676_7676) | offset) & !low;
    let digits = ((others.leading_zeros() / 8) as usize).min(len);
    let word = len - digits;
    if word > WORD_MOST {
        return None;
    }
    let octets = match payload.get(at..at + WORD_MOST).and_then(|octets| octets.try_into().ok()) {
        Some(octets) => u128::from_le_bytes(octets),
        None => payload.get(at..end)?.iter().rev().fold(0, |octets, &octet| octets << 8 | u128::from(octet)),
    };
    let kept = if word == 0 { 0 } else { octets << (128 - 8 * word) >> (128 - 8 * word) };
    Some((kept, digits))
}

#[cfg(test)]
mod tests {
    use super::super::table::{Context, PLACES, STEPS, SYMBOLS, Word};
    use super::*;
    use proptest::prelude::*;

    fn words(list: &[&str]) -> Words {
        let words = list.iter().map(|text| Word { octets: text.as_bytes().into(), classes: [64, 80, 96] }).collect();
        let context = Context { key: super::super::context::ROOT, classes: [170; SYMBOLS] };
        let table = Table::new(vec![context], [[200; STEPS]; PLACES], [200; DIGITS_MOST], words, 0).expect("a code");
        Words::of(&table)
    }

    fn find(words: &Words, label: &str, first: bool) -> Found {
        let mut wire = vec![label.len() as u8];
        wire.extend(label.bytes());
        words.find(&wire, 1, label.len(), first)
    }

    #[test]
    fn words_and_numbered_words_are_found() {
        let words = words(&["", "a", "mail", "sixteen-octets-x", "www"]);
        let whole = Bits::STEPS;
        assert_eq!(find(&words, "www", true).word, 12 * whole);
        assert_eq!(find(&words, "www", false).word, 11 * whole);
        assert_eq!(find(&words, "sixteen-octets-x", true).word, 12 * whole);
        assert_eq!(find(&words, "a", true).word, 12 * whole);
        let numbered = find(&words, "mail12345678", true);
        assert_eq!(numbered.word, NEVER);
        assert!(numbered.numbered > 10 * whole + 8 * DIGIT && numbered.numbered < 15 * whole + 8 * DIGIT);
        assert!(find(&words, "42", true).number && find(&words, "42", true).numbered < NEVER);
        assert_eq!(find(&words, "sixteen-octets-x12345678", true).numbered, numbered.numbered);
        for none in ["ww", "wwww", "mai", "mail123456789", "b", "sixteen-octets-xy", "123456789", "4a"] {
            let found = find(&words, none, true);
            assert!(found.word >= NEVER && found.numbered >= NEVER && !found.number, "{none}");
        }
    }

    proptest! {
        #[test]
        fn a_split_is_what_cut_says(
            before in proptest::collection::vec(any::<u8>(), 0..20),
            label in proptest::collection::vec(prop_oneof![any::<u8>(), b'0'..=b'9'], 1..40),
        ) {
            let wire: Vec<u8> = before.iter().chain(&label).copied().chain([b'7', b'x']).collect();
            let split = split(&wire, before.len(), label.len());
            let (word, digits) = cut(&label);
            let mut octets = [0; WORD_MOST];
            if label.len() > LABEL_MOST || word.len() > WORD_MOST {
                prop_assert_eq!(split, None);
            } else {
                octets[..word.len()].copy_from_slice(word);
                prop_assert_eq!(split, Some((u128::from_le_bytes(octets), digits)));
            }
        }
    }
}
