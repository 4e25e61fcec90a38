//! Keyed fingerprints of a name and all its ancestors, made in one pass from the right.
//!
//! The pass is shared by every table of this stage. The key is random for each build of the tables, so nobody outside
//! can aim at a collision: with ten million names and five suffixes a query a false match is a 3 in 10^12 event.

use staunch_scoring::NameRef;
use staunch_scoring::name::LabelOffsets;

/// Secret behind all fingerprints of one build of the tables.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HashKey {
    seed: u64,
    left: u64,
    right: u64,
}

impl HashKey {
    /// From 24 random octets.
    pub fn from_random(octets: [u8; 24]) -> Self {
        let word = |i: usize| u64::from_le_bytes(std::array::from_fn(|at| octets[i * 8 + at]));
        // Odd multiplicands keep every bit of the other factor in play.
        Self { seed: word(0), left: word(1) | 1, right: word(2) | 1 }
    }

    /// The octets it can be made of again: the multiplicands' lowest bits are set by then.
    pub(super) fn to_octets(self) -> [u8; 24] {
        let mut octets = [0; 24];
        for (place, word) in octets.as_chunks_mut::<8>().0.iter_mut().zip([self.seed, self.left, self.right]) {
            *place = word.to_le_bytes();
        }
        octets
    }

    fn absorb(&self, state: u64, label: &[u8]) -> u64 {
        let mut state = state;
        let mut rest = label;
        // `label` starts with its length octet, so two different labels never feed the same words.
        while let Some((head, tail)) = rest.split_first_chunk::<16>() {
            let (a, b) = head.split_at(8);
            state = fold(word(a) ^ state, word(b) ^ self.left);
            rest = tail;
        }
        if !rest.is_empty() {
            let (a, b) = if rest.len() >= 8 {
                (word(&rest[..8]), word(&rest[rest.len() - 8..]))
            } else if rest.len() >= 4 {
                (half(&rest[..4]), half(&rest[rest.len() - 4..]))
            } else {
                (u64::from(rest[0]), u64::from(rest[rest.len() / 2]) << 8 | u64::from(rest[rest.len() - 1]))
            };
            state = fold(a ^ state, b ^ self.right);
        }
        state
    }
}

impl std::fmt::Debug for HashKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HashKey(..)")
    }
}

fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

fn word(octets: &[u8]) -> u64 {
    octets.first_chunk().map_or(0, |chunk| u64::from_le_bytes(*chunk))
}

fn half(octets: &[u8]) -> u64 {
    octets.first_chunk().map_or(0, |chunk| u64::from(u32::from_le_bytes(*chunk)))
}

/// A name or one of its ancestors, with its fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Suffix<'n> {
    /// Number of labels, root not counted; the walk starts at 1 (the top-level domain).
    pub labels: u8,
    /// Fingerprint under the key of the walk.
    pub hash: u64,
    /// Canonical wire octets, root label included.
    pub wire: &'n [u8],
    /// Whether this is the name itself.
    pub is_whole: bool,
}

/// The ancestors of a name, widest first, then the name itself. The root name is not part of the walk.
pub struct Suffixes<'n> {
    wire: &'n [u8],
    offsets: LabelOffsets,
    next: usize,
    end: usize,
    hash: u64,
    key: HashKey,
}

impl<'n> Suffixes<'n> {
    /// Starts a walk over `name`.
    pub fn of(name: NameRef<'n>, key: &HashKey) -> Self {
        let offsets = LabelOffsets::of(name);
        let next = offsets.count();
        Self { wire: name.as_wire(), end: offsets.offset(next), offsets, next, hash: key.seed, key: *key }
    }
}

impl<'n> Iterator for Suffixes<'n> {
    type Item = Suffix<'n>;

    #[inline]
    fn next(&mut self) -> Option<Suffix<'n>> {
        self.next = self.next.checked_sub(1)?;
        let start = self.offsets.offset(self.next);
        let label = self.wire.get(start..self.end)?;
        self.hash = self.key.absorb(self.hash, label);
        self.end = start;
        Some(Suffix {
            labels: (self.offsets.count() - self.next) as u8,
            hash: self.hash,
            wire: self.wire.get(start..)?,
            is_whole: self.next == 0,
        })
    }
}

/// Fingerprint of a whole name; the root gives the key's seed.
pub fn fingerprint(name: NameRef<'_>, key: &HashKey) -> u64 {
    Suffixes::of(name, key).last().map_or(key.seed, |suffix| suffix.hash)
}

#[cfg(test)]
pub(crate) fn test_key() -> HashKey {
    HashKey::from_random(std::array::from_fn(|i| (i as u8).wrapping_mul(37).wrapping_add(11)))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;
    use staunch_scoring::{NameBuf, QName};

    use super::*;

    #[test]
    fn suffixes_come_widest_first_with_the_fingerprint_of_the_ancestor() {
        let name = NameBuf::from_text("a.bc.example.org").expect("name");
        let seen: Vec<_> = Suffixes::of(name.as_ref(), &test_key()).collect();
        let texts = ["org", "example.org", "bc.example.org", "a.bc.example.org"];
        assert_eq!(seen.len(), texts.len());
        for (i, (suffix, text)) in seen.iter().zip(texts).enumerate() {
            let alone = NameBuf::from_text(text).expect("name");
            assert_eq!(suffix.wire, alone.as_ref().as_wire());
            assert_eq!(suffix.hash, fingerprint(alone.as_ref(), &test_key()), "{text}");
            assert_eq!(suffix.labels as usize, i + 1);
            assert_eq!(suffix.is_whole, i == 3);
        }
        assert_eq!(Suffixes::of(NameRef::ROOT, &test_key()).count(), 0);
    }

    #[test]
    fn another_key_gives_other_fingerprints() {
        let name = NameBuf::from_text("example.org").expect("name");
        assert_ne!(fingerprint(name.as_ref(), &test_key()), fingerprint(name.as_ref(), &HashKey::from_random([9; 24])));
    }

    #[test]
    fn no_collision_among_short_and_similar_names() {
        // Every one- and two-character label at two depths, plus label borders moved about: 64-bit fingerprints of
        // a few thousand names must all differ.
        let letters = b"abcdefghijklmnopqrstuvwxyz0123456789-";
        let mut seen: HashMap<u64, NameBuf> = HashMap::new();
        let mut check = |text: String| {
            let name = NameBuf::from_text(&text).expect("name");
            if let Some(other) = seen.insert(fingerprint(name.as_ref(), &test_key()), name.clone()) {
                assert_eq!(other, name);
            }
        };
        for &a in letters {
            check(format!("{}", a as char));
            for &b in letters {
                check(format!("{}{}", a as char, b as char));
                check(format!("{}.{}", a as char, b as char));
                check(format!("x{}.{}x", a as char, b as char));
                check(format!("{0}{0}{0}{0}{0}{0}{0}{0}{0}{1}", a as char, b as char));
                check(format!("{0}{0}{0}{0}{0}{0}{0}{0}{0}{0}{0}{0}{0}{0}{0}{0}{0}{1}.{0}", a as char, b as char));
            }
        }
    }

    proptest! {
        #[test]
        fn the_walk_is_total_and_agrees_with_the_ancestors(octets in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok((name, _)) = QName::read(&octets) {
                let mut walked: Vec<_> = Suffixes::of(name.as_ref(), &test_key()).map(|s| s.wire.to_vec()).collect();
                walked.reverse();
                let mut direct: Vec<_> = name.as_ref().ancestors().map(|n| n.as_wire().to_vec()).collect();
                direct.pop();
                prop_assert_eq!(walked, direct);
            }
        }
    }
}
