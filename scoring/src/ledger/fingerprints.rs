//! Bounded sets of name fingerprints.
//!
//! Open addressing with linear probing; grows to a fixed number of slots and then takes no more. A name that found no
//! room is new each time, and a new name is charged in full: filling the set costs the session, never gains it.

/// Distinct refused names of one session that are remembered, so that a retry counts once. A session is in quarantine
/// long before: a refused name adds to `attempted`.
pub const MAX_REFUSED_NAMES: usize = 450;

/// A set of 64-bit fingerprints in at most `MAX` entries, ten slots for nine entries.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fingerprints<const MAX: usize> {
    /// Zero is an empty slot.
    slots: Box<[u64]>,
    len: usize,
}

impl<const MAX: usize> Fingerprints<MAX> {
    const FIRST: usize = 16;

    pub fn contains(&self, fingerprint: u64) -> bool {
        self.find(fingerprint).is_ok()
    }

    /// Adds a fingerprint; `false` where it was there or there is no room.
    pub fn insert(&mut self, fingerprint: u64) -> bool {
        if self.len >= Self::room(self.slots.len()) && !self.contains(fingerprint) {
            self.grow();
        }
        match self.find(fingerprint) {
            Err(Some(slot)) if self.len < MAX => {
                self.slots[slot] = key(fingerprint);
                self.len += 1;
                true
            }
            _ => false,
        }
    }

    /// Entries.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Whether a further name would find no room.
    pub fn is_full(&self) -> bool {
        self.len >= MAX
    }

    pub fn iter(&self) -> impl Iterator<Item = u64> {
        self.slots.iter().copied().filter(|&slot| slot != 0)
    }

    /// Octets on the heap.
    pub fn heap_size(&self) -> usize {
        size_of_val(&*self.slots)
    }

    /// Entries that `slots` slots hold.
    const fn room(slots: usize) -> usize {
        slots / 10 * 9
    }

    fn grow(&mut self) {
        let most = MAX.div_ceil(9) * 10;
        let slots = (self.slots.len() * 2).clamp(Self::FIRST.min(most), most);
        if slots <= self.slots.len() {
            return;
        }
        let old = std::mem::replace(&mut self.slots, vec![0; slots].into());
        for fingerprint in old.into_iter().filter(|&slot| slot != 0) {
            if let Err(Some(slot)) = self.find(fingerprint) {
                self.slots[slot] = fingerprint;
            }
        }
    }

    /// The slot that holds it, or the empty slot where it would go, if there are slots.
    fn find(&self, fingerprint: u64) -> Result<usize, Option<usize>> {
        let fingerprint = key(fingerprint);
        let count = self.slots.len();
        // The high half of the product maps the fingerprint evenly on any number of slots.
        let start = ((u128::from(fingerprint) * count as u128) >> 64) as usize;
        for slot in (start..count).chain(0..start) {
            match self.slots[slot] {
                0 => return Err(Some(slot)),
                held if held == fingerprint => return Ok(slot),
                _ => {}
            }
        }
        Err(None)
    }
}

impl<const MAX: usize> FromIterator<u64> for Fingerprints<MAX> {
    fn from_iter<I: IntoIterator<Item = u64>>(fingerprints: I) -> Self {
        let mut set = Self::default();
        for fingerprint in fingerprints {
            set.insert(fingerprint);
        }
        set
    }
}

/// Zero marks an empty slot, so the one fingerprint that is zero is moved.
const fn key(fingerprint: u64) -> u64 {
    if fingerprint == 0 { 1 } else { fingerprint }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    #[test]
    fn a_full_set_takes_no_more_and_keeps_what_it_has() {
        let mut set = Fingerprints::<2_250>::default();
        let mix = |i: u64| i.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for i in 0..2_250 {
            assert!(set.insert(mix(i)), "{i}");
        }
        assert!(set.is_full());
        assert!(!set.insert(mix(1_000_000)));
        assert!(!set.contains(mix(1_000_000)));
        assert!((0..2_250).all(|i| set.contains(mix(i))));
        assert!(set.heap_size() <= 20 * 1024, "{}", set.heap_size());
    }

    proptest! {
        #[test]
        fn it_is_a_set(values in proptest::collection::vec(0u64..200, 0..400)) {
            let mut set = Fingerprints::<100>::default();
            let mut model = HashSet::new();
            for value in values {
                let value = if value == 1 { 2 } else { value };
                let fits = model.len() < 100;
                prop_assert_eq!(set.insert(value), fits && model.insert(value));
            }
            prop_assert!((2..200).all(|value| set.contains(value) == model.contains(&value)));
            prop_assert_eq!(set.iter().count(), model.len());
        }
    }
}
