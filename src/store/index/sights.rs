//! First sights in the index: many in one value.
//!
//! A busy deployment meets thousands of new domains a second for a while, and a key for each costs the index more than all
//! else that it holds. So what has gathered since the last flush is one value, in a key that says only in which order they
//! came; a table that is loaded takes all of them in that order. What a table has forgotten meanwhile stays until a tree
//! holds twice what its table does; then the tree is written anew.
//!
//! Values of earlier versions, one a key, are read and go the same way.

use std::ops::ControlFlow;

use super::{IndexError, Op, StateStore, Tree, VALUE_VERSION};

/// First octet of a key that holds many; behind it a number, big-endian. Single keys have eight octets.
const MANY: u8 = b'+';
/// Octets in one value at most: a page of the index, about.
const VALUE_MAX: usize = 8 << 10;
/// A tree is not written anew for less than so many that are forgotten.
const SLACK: u64 = 65_536;
/// Keys changed at once while a tree is written anew.
const BATCH: usize = 1_000;
/// Longest sight behind its key, octets.
const REST_MAX: usize = 13;

/// One sight: a slot's key, and what the table says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::store) struct Sight {
    key: u64,
    rest: [u8; REST_MAX],
    length: u8,
}

impl Sight {
    /// Of a slot's `key`; `rest` is at most [`REST_MAX`] octets, as many for all sights of a tree.
    pub(in crate::store) fn new(key: u64, rest: &[u8]) -> Self {
        debug_assert!(rest.len() <= REST_MAX);
        let mut sight = Self { key, rest: [0; REST_MAX], length: rest.len().min(REST_MAX) as u8 };
        for (to, from) in sight.rest.iter_mut().zip(rest) {
            *to = *from;
        }
        sight
    }

    /// The slot's key.
    pub(in crate::store) fn key(&self) -> u64 {
        self.key
    }

    /// What the table says of it.
    pub(in crate::store) fn rest(&self) -> &[u8] {
        self.rest.get(..usize::from(self.length)).unwrap_or_default()
    }
}

/// The sights of one tree.
#[derive(Debug)]
pub(in crate::store) struct Sights {
    tree: Tree,
    /// Octets of a sight behind its key.
    width: usize,
    /// In the form of a value.
    waiting: Vec<u8>,
    /// Number of the next key.
    next: u64,
    /// Sights in the tree and waiting, those that the table has forgotten included.
    held: u64,
    /// With more than this it is written anew.
    limit: u64,
}

impl Sights {
    pub(in crate::store) fn new(tree: Tree, width: usize) -> Self {
        Self { tree, width, waiting: Vec::new(), next: 0, held: 0, limit: SLACK }
    }

    /// Gives every sight in the tree, in the order in which they came.
    pub(in crate::store) fn load(
        &mut self,
        store: &dyn StateStore,
        mut each: impl FnMut(&Sight),
    ) -> Result<(), IndexError> {
        self.scan(store, |sights, _, sight| {
            sights.held += 1;
            each(sight);
        })
    }

    /// Says how many sights the table holds.
    pub(in crate::store) fn settle(&mut self, known: u64) {
        self.limit = known.saturating_mul(2).saturating_add(SLACK);
    }

    /// Takes one; what is to be changed now, if it is time.
    pub(in crate::store) fn take(&mut self, sight: &Sight) -> Option<Op> {
        if self.waiting.is_empty() {
            self.waiting.push(VALUE_VERSION);
        }
        self.waiting.extend_from_slice(&sight.key.to_be_bytes());
        self.waiting.extend_from_slice(sight.rest());
        self.held += 1;
        if self.waiting.len() >= VALUE_MAX { self.put() } else { None }
    }

    /// What waits, as one change.
    pub(in crate::store) fn put(&mut self) -> Option<Op> {
        if self.waiting.is_empty() {
            return None;
        }
        let op = Op::Put(self.tree, many(self.next), std::mem::take(&mut self.waiting));
        self.next += 1;
        Some(op)
    }

    /// Whether so much was forgotten, as far as can be told, that the tree is to be written anew.
    pub(in crate::store) fn is_due(&self) -> bool {
        self.held > self.limit
    }

    /// Writes the tree anew with what `holds` says that its table still has. Nothing may be waiting. What was there goes last,
    /// so that a crash leaves sights twice and none out.
    pub(in crate::store) fn rewrite(
        &mut self,
        store: &mut dyn StateStore,
        mut holds: impl FnMut(&Sight) -> bool,
    ) -> Result<(), IndexError> {
        let (mut kept, mut keys) = (Vec::new(), Vec::new());
        self.scan(store, |_, key, sight| {
            if holds(sight) {
                kept.push(*sight);
            }
            if keys.last().is_none_or(|last: &Vec<u8>| last != key) {
                keys.push(key.to_vec());
            }
        })?;
        kept.sort_unstable();
        kept.dedup();
        self.held = 0;
        let mut ops = Vec::new();
        for sight in &kept {
            ops.extend(self.take(sight));
            if ops.len() >= BATCH {
                store.apply(std::mem::take(&mut ops))?;
            }
        }
        ops.extend(self.put());
        store.apply(ops)?;
        for keys in keys.chunks(BATCH) {
            store.apply(keys.iter().map(|key| Op::Delete(self.tree, key.clone())).collect())?;
        }
        self.settle(self.held);
        Ok(())
    }

    /// Gives each sight with its key in the tree. What is of another form is left alone, for the version that knows it.
    fn scan(
        &mut self,
        store: &dyn StateStore,
        mut each: impl FnMut(&mut Self, &[u8], &Sight),
    ) -> Result<(), IndexError> {
        let (tree, width) = (self.tree, self.width);
        store.scan(tree, b"", &mut |key, value| {
            let Some((&VALUE_VERSION, value)) = value.split_first() else { return ControlFlow::Continue(()) };
            if let Ok(single) = <[u8; 8]>::try_from(key) {
                if value.len() == width {
                    each(self, key, &Sight::new(u64::from_be_bytes(single), value));
                }
            } else if let Some(number) = number(key) {
                self.next = self.next.max(number.saturating_add(1));
                for one in value.chunks_exact(8 + width) {
                    if let Some((first, rest)) = one.split_first_chunk::<8>() {
                        each(self, key, &Sight::new(u64::from_be_bytes(*first), rest));
                    }
                }
            }
            ControlFlow::Continue(())
        })
    }
}

fn many(number: u64) -> Vec<u8> {
    let mut key = vec![MANY];
    key.extend_from_slice(&number.to_be_bytes());
    key
}

fn number(key: &[u8]) -> Option<u64> {
    let (&MANY, number) = key.split_first()? else { return None };
    number.try_into().ok().map(u64::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::super::MemoryStore;
    use super::*;

    const TREE: Tree = Tree::FirstSeen;

    fn sight(n: u64) -> Sight {
        Sight::new(n.wrapping_mul(0x9e37_79b9_7f4a_7c15), &(n as u32).to_be_bytes())
    }

    fn loaded(store: &MemoryStore) -> (Sights, Vec<Sight>) {
        let (mut sights, mut all) = (Sights::new(TREE, 4), Vec::new());
        sights.load(store, |sight| all.push(*sight)).expect("memory");
        sights.settle(0);
        (sights, all)
    }

    fn keys(store: &MemoryStore) -> usize {
        let mut keys = 0;
        let mut count = |_: &[u8], _: &[u8]| {
            keys += 1;
            ControlFlow::Continue(())
        };
        store.scan(TREE, b"", &mut count).expect("memory");
        keys
    }

    /// Has `numbers` noted and flushed, a few at a time.
    fn note(sights: &mut Sights, store: &mut MemoryStore, numbers: std::ops::Range<u64>) {
        for n in numbers {
            let op = sights.take(&sight(n));
            store.apply(op.into_iter().collect()).expect("memory");
            if n % 1_000 == 999 {
                let op = sights.put();
                store.apply(op.into_iter().collect()).expect("memory");
            }
        }
        store.apply(sights.put().into_iter().collect()).expect("memory");
    }

    #[test]
    fn what_was_noted_is_loaded_in_its_order_from_few_keys() {
        let mut store = MemoryStore::new();
        // As an earlier version wrote them.
        for n in 0..3u64 {
            let value = [&[VALUE_VERSION][..], sight(n).rest()].concat();
            store.apply(vec![Op::Put(TREE, sight(n).key().to_be_bytes().to_vec(), value)]).expect("memory");
        }
        let (mut sights, before) = loaded(&store);
        assert_eq!(before.len(), 3);
        note(&mut sights, &mut store, 3..10_000);
        let (_, all) = loaded(&store);
        let numbers: Vec<u64> =
            all.iter().map(|sight| u64::from(u32::from_be_bytes(sight.rest().try_into().expect("four")))).collect();
        let mut late: Vec<u64> = numbers.iter().copied().filter(|n| *n >= 3).collect();
        assert!(late.is_sorted(), "in the order in which they came");
        late.extend(numbers.iter().filter(|n| **n < 3));
        late.sort_unstable();
        assert_eq!(late, (0..10_000).collect::<Vec<_>>());
        assert!(keys(&store) < 40, "{} keys", keys(&store));
        // A further run goes on behind.
        let (mut sights, _) = loaded(&store);
        note(&mut sights, &mut store, 10_000..10_001);
        assert_eq!(loaded(&store).1.len(), 10_001);
    }

    #[test]
    fn a_tree_of_what_is_forgotten_is_written_anew() {
        let mut store = MemoryStore::new();
        let (mut sights, _) = loaded(&store);
        note(&mut sights, &mut store, 0..SLACK + 1);
        assert!(sights.is_due());
        let even = |sight: &Sight| sight.rest().last().is_some_and(|last| last.is_multiple_of(2));
        sights.rewrite(&mut store, even).expect("memory");
        assert!(!sights.is_due());
        let (_, kept) = loaded(&store);
        assert_eq!(kept.len() as u64, SLACK / 2 + 1);
        assert!(kept.iter().all(even));
        // As a crash leaves it: some are there twice, and once after it is written anew.
        let (mut sights, _) = loaded(&store);
        note(&mut sights, &mut store, 0..1_000);
        sights.rewrite(&mut store, even).expect("memory");
        assert_eq!(loaded(&store).1, kept);
    }

    #[test]
    fn what_is_of_another_form_is_left_alone() {
        let mut store = MemoryStore::new();
        let odd: [(&[u8], &[u8]); 5] = [
            (b"12345678", b""),
            (b"12345678\0", b"\x01\0\0\0\0"),
            (b"+short", b"\x01\0\0\0\0\0\0\0\0\0\0\0\0"),
            (b"87654321", b"\x02\0\0\0\x01"),
            (b"+\xff\xff\xff\xff\xff\xff\xff\xff", b"\x01torn"),
        ];
        for (key, value) in odd {
            store.apply(vec![Op::Put(TREE, key.to_vec(), value.to_vec())]).expect("memory");
        }
        let (mut sights, all) = loaded(&store);
        assert!(all.is_empty());
        sights.rewrite(&mut store, |_| true).expect("memory");
        assert_eq!(keys(&store), odd.len());
    }
}
