//! A flat open-addressing table from fingerprints to 32-bit values.
//!
//! Two plain arrays and no pointers: 20 octets a name at the load chosen, and the same bytes can later be written to a
//! file and mapped. Filled once, then only read.

/// Share of the slots that is used, in percent: at 60 a missing name costs 3.6 probes, which lie in one cache line.
const LOAD_PERCENT: usize = 60;

/// See the module.
#[derive(Default)]
pub(crate) struct Flat {
    keys: Box<[u64]>,
    values: Box<[u32]>,
    len: usize,
}

impl Flat {
    /// An empty table with room for `count` entries.
    pub(crate) fn with_room_for(count: usize) -> Self {
        // One slot more than the load asks for, so that a probe always meets an empty one.
        let slots = if count == 0 { 0 } else { count * 100 / LOAD_PERCENT + 1 };
        Self { keys: vec![0; slots].into(), values: vec![0; slots].into(), len: 0 }
    }

    /// Adds an entry; where the fingerprint is there already, `merge(old, new)` says what stays.
    pub(crate) fn insert(&mut self, fingerprint: u64, value: u32, merge: impl FnOnce(u32, u32) -> u32) {
        let key = fingerprint.max(1);
        let Some(mut slot) = self.home(key) else { return };
        for _ in 0..self.keys.len() {
            if self.keys[slot] == 0 {
                self.keys[slot] = key;
                self.values[slot] = value;
                self.len += 1;
                return;
            }
            if self.keys[slot] == key {
                self.values[slot] = merge(self.values[slot], value);
                return;
            }
            slot = self.after(slot);
        }
    }

    /// The value of a fingerprint.
    #[inline]
    pub(crate) fn find(&self, fingerprint: u64) -> Option<u32> {
        let key = fingerprint.max(1);
        let mut slot = self.home(key)?;
        // Bounded by the number of slots even if the table were full.
        for _ in 0..self.keys.len() {
            let found = *self.keys.get(slot)?;
            if found == key {
                return self.values.get(slot).copied();
            }
            if found == 0 {
                return None;
            }
            slot = self.after(slot);
        }
        None
    }

    /// Distinct fingerprints.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Octets held.
    pub(crate) fn octets(&self) -> usize {
        self.keys.len() * (size_of::<u64>() + size_of::<u32>())
    }

    fn home(&self, key: u64) -> Option<usize> {
        // Multiply and shift spreads the keys over any number of slots, so the size need not be a power of two.
        (!self.keys.is_empty()).then(|| ((u128::from(key) * self.keys.len() as u128) >> 64) as usize)
    }

    fn after(&self, slot: usize) -> usize {
        if slot + 1 == self.keys.len() { 0 } else { slot + 1 }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_empty_table_finds_nothing() {
        assert_eq!(Flat::default().find(7), None);
        assert_eq!(Flat::with_room_for(0).find(0), None);
        assert_eq!(Flat::with_room_for(1).find(7), None);
    }

    proptest! {
        #[test]
        fn behaves_like_a_map(keys in proptest::collection::vec(
            // Few distinct values, among them the extremes, so that probes run into each other and wrap around.
            prop_oneof![0u64..4, (u64::MAX - 3)..=u64::MAX, any::<u64>()], 0..200))
        {
            let mut flat = Flat::with_room_for(keys.len());
            let mut map: HashMap<u64, u32> = HashMap::new();
            for (i, &key) in keys.iter().enumerate() {
                flat.insert(key, i as u32, |old, _| old);
                map.entry(key.max(1)).or_insert(i as u32);
            }
            prop_assert_eq!(flat.len(), map.len());
            for key in keys.iter().copied().chain([5, 1 << 40]) {
                prop_assert_eq!(flat.find(key), map.get(&key.max(1)).copied());
            }
        }
    }
}
