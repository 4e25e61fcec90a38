//! The model's table and its file form.
//!
//! Header of 32 octets, then the frequencies, little-endian 16 bit each, context after context. A context is the pair
//! of symbols before; the frequencies after each sum to 2^[`TOTAL_BITS`] exactly.
//!
//! | octets | meaning |
//! |---|---|
//! | 0..8 | magic `STAUNCHM` |
//! | 8..10 | version, 1 |
//! | 10..12 | symbols after a context |
//! | 12..14 | context classes |
//! | 14..16 | log2 of the sum |
//! | 16..20 | distinct payload parts it was fitted on, each as often as it stood under another domain |
//! | 20..24 | zero |
//! | 24..32 | FNV-1a 64 of everything behind the header |

use std::fmt;

/// Symbols after a context: `a-z`, `0-9`, `-`, `_`, label separator, escape, end.
pub const SYMBOLS: usize = 41;
/// Classes a symbol before can have: every symbol but the end mark, or the start.
pub const CLASSES: usize = 41;
/// Symbol between two labels.
pub const DOT: usize = 38;
/// Symbol before an octet that has none of its own.
pub const ESCAPE: usize = 39;
/// Symbol after the last label.
pub const END: usize = 40;
/// Class of what stands before the first symbol. Takes the end mark's place, which nothing follows.
pub const START: usize = 40;
/// The frequencies after every context sum to two to this power.
pub const TOTAL_BITS: u32 = 16;

const MAGIC: &[u8; 8] = b"STAUNCHM";
const VERSION: u16 = 1;
const HEADER: usize = 32;
const ENTRIES: usize = CLASSES * CLASSES * SYMBOLS;

/// Why octets are not a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableError {
    /// Wrong length, magic, version or dimensions.
    Form,
    /// The octets are not those the header's hash was made of.
    Hash,
    /// The frequencies after this context hold a zero or do not sum to the power of two.
    Sum(usize),
}

impl fmt::Display for TableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Form => f.write_str("not a model table of this version"),
            Self::Hash => f.write_str("the model table's octets do not match its hash"),
            Self::Sum(context) => write!(f, "the frequencies after context {context} are not a code"),
        }
    }
}

impl std::error::Error for TableError {}

/// Frequencies of every symbol after every context, checked to be a code.
pub struct Table {
    frequencies: Box<[u16]>,
    trained_on: u32,
}

impl Table {
    /// A table of these frequencies, context after context.
    ///
    /// # Errors
    /// [`TableError::Form`] for a wrong number of entries, [`TableError::Sum`] where they are not a code.
    pub fn new(frequencies: Box<[u16]>, trained_on: u32) -> Result<Self, TableError> {
        if frequencies.len() != ENTRIES {
            return Err(TableError::Form);
        }
        for (context, after) in frequencies.chunks_exact(SYMBOLS).enumerate() {
            let sum: u32 = after.iter().map(|&f| u32::from(f)).sum();
            if sum != 1 << TOTAL_BITS || after.contains(&0) {
                return Err(TableError::Sum(context));
            }
        }
        Ok(Self { frequencies, trained_on })
    }

    /// Reads the file form.
    ///
    /// # Errors
    /// See [`TableError`].
    pub fn from_bytes(octets: &[u8]) -> Result<Self, TableError> {
        let (header, body) = octets.split_at_checked(HEADER).ok_or(TableError::Form)?;
        if body.len() != ENTRIES * 2 {
            return Err(TableError::Form);
        }
        let word = |at: usize| header.get(at..at + 4).and_then(|w| w.try_into().ok()).map_or(0, u32::from_le_bytes);
        let trained_on = word(16);
        if header[..24] != Self::header_front(trained_on) {
            return Err(TableError::Form);
        }
        if header[24..] != fnv1a(body).to_le_bytes() {
            return Err(TableError::Hash);
        }
        let frequencies = body.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
        Self::new(frequencies, trained_on)
    }

    /// The file form. The same table always gives the same octets.
    pub fn to_bytes(&self) -> Vec<u8> {
        let body: Vec<u8> = self.frequencies.iter().flat_map(|f| f.to_le_bytes()).collect();
        let mut octets = Vec::with_capacity(HEADER + body.len());
        octets.extend(Self::header_front(self.trained_on));
        octets.extend(fnv1a(&body).to_le_bytes());
        octets.extend(body);
        octets
    }

    /// Frequencies after each context; context `before * CLASSES + last`.
    pub fn contexts(&self) -> impl Iterator<Item = &[u16]> {
        self.frequencies.chunks_exact(SYMBOLS)
    }

    /// Payload parts it was fitted on.
    pub fn trained_on(&self) -> u32 {
        self.trained_on
    }

    fn header_front(trained_on: u32) -> [u8; 24] {
        let mut front = [0; 24];
        front[..8].copy_from_slice(MAGIC);
        for (at, value) in [(8, VERSION), (10, SYMBOLS as u16), (12, CLASSES as u16), (14, TOTAL_BITS as u16)] {
            front[at..at + 2].copy_from_slice(&value.to_le_bytes());
        }
        front[16..20].copy_from_slice(&trained_on.to_le_bytes());
        front
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
        let mut after = [(65536 / SYMBOLS) as u16; SYMBOLS];
        after[0] += (65536 % SYMBOLS) as u16;
        Table::new(after.repeat(CLASSES * CLASSES).into(), 7).expect("sums")
    }

    #[test]
    fn the_file_form_round_trips_and_notices_damage() {
        let table = even();
        let octets = table.to_bytes();
        let again = Table::from_bytes(&octets).expect("own form");
        assert_eq!(again.frequencies, table.frequencies);
        assert_eq!(again.trained_on(), 7);
        let mut flipped = octets.clone();
        flipped[HEADER + 99] ^= 1;
        assert_eq!(Table::from_bytes(&flipped).err(), Some(TableError::Hash));
        let mut other = octets.clone();
        other[8] = 2;
        assert_eq!(Table::from_bytes(&other).err(), Some(TableError::Form));
        for len in [0, 31, 32, octets.len() - 1] {
            assert_eq!(Table::from_bytes(&octets[..len]).err(), Some(TableError::Form));
        }
    }

    #[test]
    fn frequencies_that_are_no_code_are_refused() {
        let mut frequencies = even().frequencies;
        frequencies[SYMBOLS * 5 + 1] -= 1;
        assert_eq!(Table::new(frequencies.clone(), 0).err(), Some(TableError::Sum(5)));
        frequencies[SYMBOLS * 5 + 2] += 1;
        assert!(Table::new(frequencies.clone(), 0).is_ok());
        let all = frequencies[SYMBOLS * 5 + 3];
        frequencies[SYMBOLS * 5 + 3] = 0;
        frequencies[SYMBOLS * 5 + 4] += all;
        assert_eq!(Table::new(frequencies, 0).err(), Some(TableError::Sum(5)), "a symbol that cannot be coded");
    }
}
