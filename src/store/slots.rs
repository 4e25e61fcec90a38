//! A table of fixed size from keyed hashes to times, which the hot path reads without a lock, a system call or an
//! allocation: buckets of sixteen slots, two neighbouring cache lines each. A slot holds 40 bits of the hash (with the
//! bucket's number 57 bits are compared, so in a full table one question in about 10^11 meets a stranger) and a time in
//! minutes.
//!
//! Beneath [`super::FirstSeen`] and [`super::GroupSeen`]; knows neither what is hashed nor what an age means. A full
//! bucket gives up its youngest slot: old age is never granted by overflow.

use std::hash::Hasher as _;
#[allow(deprecated)]
// Deprecated in favour of a hasher that cannot be given a key; the key must survive a restart.
use std::hash::SipHasher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Slots in a bucket.
pub(super) const WAYS: usize = 16;

/// Times are minutes since 2020-01-01T00:00:00Z, at least 1; 24 bits last until 2051.
pub(super) const EPOCH_MS: u64 = 1_577_836_800_000;
const MINUTE_MS: u64 = 60_000;
const TIME_BITS: u32 = 24;
pub(super) const TIME_MASK: u64 = (1 << TIME_BITS) - 1;

/// Key of the hash: random for each deployment, so nobody outside can aim at a bucket.
#[derive(Clone, Copy)]
pub(super) struct HashKey(u64, u64);

impl HashKey {
    pub(super) fn new(key: [u8; 16]) -> Self {
        let number = u128::from_be_bytes(key);
        Self((number >> 64) as u64, number as u64)
    }

    #[allow(deprecated)] // As above.
    pub(super) fn hash(self, octets: &[u8]) -> u64 {
        self.hash_pair(octets, &[])
    }

    /// Hash of two strings; the second must say itself where it begins or be a wire name, so that no other pair runs
    /// into the same octets.
    #[allow(deprecated)] // As above.
    pub(super) fn hash_pair(self, first: &[u8], second: &[u8]) -> u64 {
        let mut hasher = SipHasher::new_with_keys(self.0, self.1);
        hasher.write(first);
        if !second.is_empty() {
            hasher.write(&(first.len() as u64).to_le_bytes());
            hasher.write(second);
        }
        hasher.finish()
    }
}

/// See the module. Shared by every thread.
pub(super) struct Slots {
    /// 0 is empty; else the tag in the upper 40 bits and the time in the lower 24.
    slots: Box<[AtomicU64]>,
    bucket_mask: u64,
    known: AtomicU64,
    evicted: AtomicU64,
}

/// What became of an entry.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Placed {
    /// It found room.
    Free,
    /// It took the place of the entry with this key, which is forgotten.
    Instead(u64),
    /// Another new one was quicker; this one stays unknown, which is no trust.
    Lost,
}

impl Slots {
    /// `buckets` must be a power of two.
    pub(super) fn new(buckets: usize) -> Self {
        Self {
            slots: std::iter::repeat_with(AtomicU64::default).take(buckets * WAYS).collect(),
            bucket_mask: buckets as u64 - 1,
            known: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
        }
    }

    /// The bits of a hash that a slot and its place keep: tag and bucket number. Enough to load it again.
    pub(super) fn persistent(&self, hash: u64) -> u64 {
        hash & !TIME_MASK | hash & self.bucket_mask
    }

    fn bucket(&self, hash: u64) -> &[AtomicU64] {
        let start = (hash & self.bucket_mask) as usize * WAYS;
        self.slots.get(start..start + WAYS).unwrap_or_default()
    }

    /// The earliest time noted for a hash: two threads may have noted it at once.
    pub(super) fn find(&self, hash: u64) -> Option<u64> {
        let tag = hash & !TIME_MASK;
        self.bucket(hash)
            .iter()
            .map(|slot| slot.load(Ordering::Relaxed))
            .filter(|slot| *slot != 0 && slot & !TIME_MASK == tag)
            .map(|slot| slot & TIME_MASK)
            .min()
    }

    /// Stores a time (1..=[`TIME_MASK`]).
    pub(super) fn insert(&self, hash: u64, minutes: u64) -> Placed {
        let entry = hash & !TIME_MASK | minutes;
        let bucket = self.bucket(hash);
        for slot in bucket {
            if slot.compare_exchange(0, entry, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                self.known.fetch_add(1, Ordering::Relaxed);
                return Placed::Free;
            }
        }
        let youngest =
            bucket.iter().map(|slot| (slot, slot.load(Ordering::Relaxed))).max_by_key(|(_, entry)| entry & TIME_MASK);
        let Some((slot, old)) = youngest else { return Placed::Lost };
        if slot.compare_exchange(old, entry, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return Placed::Lost;
        }
        self.evicted.fetch_add(1, Ordering::Relaxed);
        Placed::Instead(old & !TIME_MASK | hash & self.bucket_mask)
    }

    /// Entries held.
    pub(super) fn known(&self) -> u64 {
        self.known.load(Ordering::Relaxed)
    }

    /// Entries forgotten because their bucket was full, since start.
    pub(super) fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }
}

/// Unix milliseconds as a slot keeps them.
pub(super) fn minutes(now: u64) -> u64 {
    (now.saturating_sub(EPOCH_MS) / MINUTE_MS).clamp(1, TIME_MASK)
}

/// How long ago `minutes` was at `now` (Unix milliseconds); zero if it lies ahead.
pub(super) fn age(minutes: u64, now: u64) -> Duration {
    Duration::from_millis(now.saturating_sub(EPOCH_MS + minutes * MINUTE_MS))
}
