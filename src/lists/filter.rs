//! A small filter before a large table: nearly every name that is not listed is told by one word of memory, where the
//! table would cost one or two that are far from any other.
//!
//! Twelve bits a name in words of 64, four of them set in one word: about two in a hundred missing names pass, and are then
//! looked for in the table. At ten million names the filter has 15 MB, of which much stays in a cache; the keys of the
//! table have 133 MB.

use super::octets::Octets;

/// Bits for each name.
const BITS: usize = 12;
/// Octets of a word.
const WORD: usize = size_of::<u64>();

/// See the module.
pub(super) struct Filter {
    octets: Octets,
    /// Where in them the filter begins.
    at: usize,
    words: usize,
}

impl Default for Filter {
    fn default() -> Self {
        Self { octets: Octets::Owned(Vec::new()), at: 0, words: 0 }
    }
}

impl Filter {
    /// Of all `fingerprints`, which are `count`.
    pub(super) fn of(fingerprints: impl Iterator<Item = u64>, count: usize) -> Self {
        let words = (count * BITS).div_ceil(64);
        let mut octets = vec![0; words * WORD];
        let (all, _) = octets.as_chunks_mut::<WORD>();
        for fingerprint in fingerprints {
            if let Some(word) = all.get_mut(place(fingerprint, words)) {
                *word = (u64::from_le_bytes(*word) | mask(fingerprint)).to_le_bytes();
            }
        }
        Self { octets: Octets::Owned(octets), at: 0, words }
    }

    /// One of `words` words that was written before and stands at `at`; `None` where the octets do not reach that far.
    pub(super) fn written(octets: Octets, at: usize, words: usize) -> Option<Self> {
        let end = at.checked_add(words.checked_mul(WORD)?)?;
        (end <= octets.len()).then_some(Self { octets, at, words })
    }

    /// False where the fingerprint is none of those in it.
    #[inline]
    pub(super) fn may_have(&self, fingerprint: u64) -> bool {
        let (all, _) = self.octets.get(self.at..).unwrap_or_default().as_chunks::<WORD>();
        let mask = mask(fingerprint);
        all.get(place(fingerprint, self.words)).is_some_and(|word| u64::from_le_bytes(*word) & mask == mask)
    }

    pub(super) fn words(&self) -> usize {
        self.words
    }

    /// Octets held.
    pub(super) fn size(&self) -> usize {
        self.words * WORD
    }

    /// The filter as it is written.
    pub(super) fn as_octets(&self) -> &[u8] {
        self.octets.get(self.at..self.at + self.size()).unwrap_or_default()
    }
}

/// By the lower half; the table's places go by the upper one.
fn place(fingerprint: u64, words: usize) -> usize {
    ((u128::from(fingerprint.rotate_left(32)) * words as u128) >> 64) as usize
}

fn mask(fingerprint: u64) -> u64 {
    // Bits that decide little of the word.
    let bit = |shift: u32| 1u64 << (fingerprint >> shift & 63);
    bit(32) | bit(38) | bit(44) | bit(50)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Spreads a number over a word.
    fn spread(n: u64) -> u64 {
        let x = (n ^ 0x1234_5678_9abc_def0).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (x ^ x >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9).rotate_left(17)
    }

    #[test]
    fn what_is_in_it_passes_and_nearly_nothing_else() {
        const COUNT: u64 = 100_000;
        let filter = Filter::of((0..COUNT).map(spread), COUNT as usize);
        assert!((0..COUNT).all(|n| filter.may_have(spread(n))));
        let passed = (COUNT..2 * COUNT).filter(|n| filter.may_have(spread(*n))).count();
        assert!(passed < 4_000, "{passed} of {COUNT}");
        let written = Filter::written(Octets::Owned(filter.as_octets().to_vec()), 0, filter.words()).expect("whole");
        assert!((0..2 * COUNT).all(|n| written.may_have(spread(n)) == filter.may_have(spread(n))));
    }

    #[test]
    fn an_empty_one_lets_nothing_pass_and_octets_that_are_none_are_refused() {
        assert!(!Filter::default().may_have(7));
        assert!(!Filter::of(std::iter::empty(), 0).may_have(0));
        for (at, words) in [(0, 2), (9, 1), (usize::MAX, 1), (0, usize::MAX)] {
            assert!(Filter::written(Octets::Owned(vec![0; 15]), at, words).is_none(), "{at} {words}");
        }
    }
}
