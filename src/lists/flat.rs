//! A flat open-addressing table from fingerprints to small values.
//!
//! Two runs of octets and no pointers, so a table can be built in memory, written to a file and mapped as it is. Filled
//! once, then only read. Numbers are little-endian in either place.

use std::marker::PhantomData;

use super::octets::Octets;

/// Share of the slots that is used, in percent: at 60 a missing name costs 3.6 probes, which lie in one cache line.
const LOAD_PERCENT: usize = 60;

/// Octets of a fingerprint.
const KEY: usize = size_of::<u64>();

/// What a table can hold beside a fingerprint.
pub(crate) trait Value: Copy {
    /// Octets of one.
    const OCTETS: usize;
    /// From [`Self::OCTETS`] octets; `None` from another number of them.
    fn read(octets: &[u8]) -> Option<Self>;
    /// Into [`Self::OCTETS`] octets.
    fn write(self, into: &mut [u8]);
}

macro_rules! value {
    ($type:ty) => {
        impl Value for $type {
            const OCTETS: usize = size_of::<$type>();

            fn read(octets: &[u8]) -> Option<Self> {
                octets.try_into().ok().map(Self::from_le_bytes)
            }

            fn write(self, into: &mut [u8]) {
                if let Some(place) = into.first_chunk_mut() {
                    *place = self.to_le_bytes();
                }
            }
        }
    };
}

value!(u32);
value!(u64);

/// See the module.
pub(crate) struct Flat<V> {
    octets: Octets,
    /// Where in them the table begins.
    at: usize,
    slots: usize,
    len: usize,
    value: PhantomData<V>,
}

impl<V: Value> Default for Flat<V> {
    fn default() -> Self {
        Self::with_room_for(0)
    }
}

/// Octets of a table with so many slots; `None` where that is more than can be counted.
pub(super) fn octets_of<V: Value>(slots: usize) -> Option<usize> {
    slots.checked_mul(KEY + V::OCTETS)
}

impl<V: Value> Flat<V> {
    /// An empty table with room for `count` entries.
    pub(crate) fn with_room_for(count: usize) -> Self {
        // One slot more than the load asks for, so that a probe always meets an empty one.
        let slots = if count == 0 { 0 } else { count * 100 / LOAD_PERCENT + 1 };
        let octets = Octets::Owned(vec![0; slots * (KEY + V::OCTETS)]);
        Self { octets, at: 0, slots, len: 0, value: PhantomData }
    }

    /// A table of `slots` slots, `len` of them used, that was written before and stands at `at`; `None` where the octets
    /// do not reach that far or a table cannot be so.
    pub(super) fn written(octets: Octets, at: usize, slots: usize, len: usize) -> Option<Self> {
        let end = at.checked_add(octets_of::<V>(slots)?)?;
        (end <= octets.len() && (len < slots || slots == 0 && len == 0)).then_some(Self {
            octets,
            at,
            slots,
            len,
            value: PhantomData,
        })
    }

    /// Adds an entry; where the fingerprint is there already, `merge(old, new)` says what stays. False where the table
    /// is full or is not our own to change.
    pub(crate) fn insert(&mut self, fingerprint: u64, value: V, merge: impl FnOnce(V, V) -> V) -> bool {
        let key = fingerprint.max(1);
        let (slots, keys_end) = (self.slots, self.slots * KEY);
        let Some(mut slot) = home(key, slots) else { return false };
        let Octets::Owned(octets) = &mut self.octets else { return false };
        let Some((keys, values)) = octets.split_at_mut_checked(keys_end) else { return false };
        let (keys, _) = keys.as_chunks_mut::<KEY>();
        for _ in 0..slots {
            let Some(place) = keys.get_mut(slot) else { return false };
            let Some(kept) = values.get_mut(slot * V::OCTETS..(slot + 1) * V::OCTETS) else { return false };
            match u64::from_le_bytes(*place) {
                0 if self.len + 1 >= slots => return false,
                0 => {
                    *place = key.to_le_bytes();
                    value.write(kept);
                    self.len += 1;
                    return true;
                }
                there if there == key => {
                    let Some(old) = V::read(kept) else { return false };
                    merge(old, value).write(kept);
                    return true;
                }
                _ => slot = after(slot, slots),
            }
        }
        false
    }

    /// The value of a fingerprint.
    #[inline]
    pub(crate) fn find(&self, fingerprint: u64) -> Option<V> {
        let key = fingerprint.max(1);
        let mut slot = home(key, self.slots)?;
        let table = self.octets.get(self.at..)?;
        let (keys, _) = table.get(..self.slots * KEY)?.as_chunks::<KEY>();
        // Bounded by the number of slots even if the table were full.
        for _ in 0..self.slots {
            let found = u64::from_le_bytes(*keys.get(slot)?);
            if found == key {
                let at = self.slots * KEY + slot * V::OCTETS;
                return V::read(table.get(at..at + V::OCTETS)?);
            }
            if found == 0 {
                return None;
            }
            slot = after(slot, self.slots);
        }
        None
    }

    /// Every entry, in the order of its place.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, V)> {
        let table = self.octets.get(self.at..).unwrap_or_default();
        let (keys, values) = table.split_at_checked(self.slots * KEY).unwrap_or_default();
        let keys = keys.as_chunks::<KEY>().0.iter().map(|key| u64::from_le_bytes(*key));
        keys.zip(values.chunks_exact(V::OCTETS))
            .filter(|(key, _)| *key != 0)
            .filter_map(|(key, v)| Some((key, V::read(v)?)))
    }

    /// Changes every value, in the order of places. Nothing where the table is not our own to change.
    pub(super) fn update(&mut self, change: impl Fn(u64, V) -> V) {
        let Octets::Owned(octets) = &mut self.octets else { return };
        let Some((keys, values)) = octets.split_at_mut_checked(self.slots * KEY) else { return };
        for (key, kept) in keys.as_chunks::<KEY>().0.iter().zip(values.chunks_exact_mut(V::OCTETS)) {
            let key = u64::from_le_bytes(*key);
            if let Some(value) = V::read(kept).filter(|_| key != 0) {
                change(key, value).write(kept);
            }
        }
    }

    /// The same entries in a table of the size that they need, where this one is larger by a quarter.
    pub(super) fn compact(self) -> Self {
        let needed = self.len * 100 / LOAD_PERCENT + 1;
        if self.slots <= needed + needed / 4 {
            return self;
        }
        let mut smaller = Self::with_room_for(self.len);
        for (key, value) in self.iter() {
            smaller.insert(key, value, |old, _| old);
        }
        smaller
    }

    /// Distinct fingerprints.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Slots, used or not.
    pub(super) fn slots(&self) -> usize {
        self.slots
    }

    /// Octets held.
    pub(crate) fn size(&self) -> usize {
        self.slots * (KEY + V::OCTETS)
    }

    /// The table as it is written.
    pub(super) fn as_octets(&self) -> &[u8] {
        self.octets.get(self.at..self.at + self.size()).unwrap_or_default()
    }
}

fn home(key: u64, slots: usize) -> Option<usize> {
    // Multiply and shift spreads the keys over any number of slots, so the size need not be a power of two.
    (slots != 0).then(|| ((u128::from(key) * slots as u128) >> 64) as usize)
}

fn after(slot: usize, slots: usize) -> usize {
    if slot + 1 == slots { 0 } else { slot + 1 }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_empty_table_finds_nothing() {
        assert_eq!(Flat::<u32>::default().find(7), None);
        assert_eq!(Flat::<u64>::with_room_for(0).find(0), None);
        assert_eq!(Flat::<u32>::with_room_for(1).find(7), None);
        assert!(!Flat::<u32>::default().insert(7, 1, |old, _| old));
    }

    #[test]
    fn a_full_table_says_so_and_still_ends_its_probes() {
        let mut flat = Flat::<u32>::with_room_for(1);
        assert!(flat.insert(5, 1, |old, _| old));
        assert!(!flat.insert(6, 1, |old, _| old), "the last slot stays empty");
        assert!(flat.insert(5, 2, |_, new| new), "what is there can be changed");
        assert_eq!((flat.find(5), flat.find(6), flat.len()), (Some(2), None, 1));
    }

    #[test]
    fn octets_that_are_no_table_are_refused() {
        let octets = || Octets::Owned(vec![0; 100]);
        for (at, slots, len) in [(0, 9, 1), (90, 1, 0), (usize::MAX, 1, 0), (0, usize::MAX, 0), (0, 2, 2), (0, 0, 1)] {
            assert!(Flat::<u32>::written(octets(), at, slots, len).is_none(), "{at} {slots} {len}");
        }
        assert!(Flat::<u32>::written(octets(), 4, 8, 7).is_some());
    }

    proptest! {
        #[test]
        fn behaves_like_a_map(keys in proptest::collection::vec(
            // Few distinct values, among them the extremes, so that probes run into each other and wrap around.
            prop_oneof![0u64..4, (u64::MAX - 3)..=u64::MAX, any::<u64>()], 0..200))
        {
            let mut flat = Flat::<u32>::with_room_for(keys.len());
            let mut map: HashMap<u64, u32> = HashMap::new();
            for (i, &key) in keys.iter().enumerate() {
                prop_assert!(flat.insert(key, i as u32, |old, _| old));
                map.entry(key.max(1)).or_insert(i as u32);
            }
            prop_assert_eq!(flat.len(), map.len());
            let written = Flat::<u32>::written(Octets::Owned(flat.as_octets().to_vec()), 0, flat.slots(), flat.len());
            let written = written.expect("a table");
            let found: HashMap<u64, u32> = written.iter().collect();
            prop_assert_eq!(&found, &map);
            let compact = flat.compact();
            for key in keys.iter().copied().chain([5, 1 << 40]) {
                prop_assert_eq!(written.find(key), map.get(&key.max(1)).copied());
                prop_assert_eq!(compact.find(key), map.get(&key.max(1)).copied());
            }
            prop_assert!(compact.slots() <= map.len() * 100 / LOAD_PERCENT * 5 / 4 + 3);
        }
    }
}
