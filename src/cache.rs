//! The answer cache: vetted answers by question, in wire form.
//!
//! Between [`crate::answer`], whose answers it keeps, and [`crate::reply`], which puts a header in front of them. Pure:
//! `now` is handed in, as milliseconds of the monotonic clock.
//!
//! Invariants: an entry belongs to exactly one question and was vetted for it; it never changes after it was put, so no
//! later data can prolong it; it is not handed out once its TTL has run down.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quick_cache::sync::Cache as Inner;
use quick_cache::{Equivalent, Weighter};
use staunch_scoring::{NameBuf, NameRef};

use crate::answer::WireAnswer;
use crate::model::Qtype;

/// Octets one entry is reckoned to take beside its name and body: two `Arc`s, table slots, `ttl_at` and pins.
const ENTRY_OVERHEAD: usize = 256;

/// Settings of this stage.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// Most entries. 0 keeps nothing.
    pub entries: usize,
    /// Most octets over all entries, our overhead reckoned in.
    pub octets: usize,
}

impl Config {
    /// Room for `entries` of 1 KiB, which is above what answers of host names take.
    pub fn of_entries(entries: usize) -> Self {
        Self { entries, octets: entries.saturating_mul(1024) }
    }
}

/// What an answer is kept under, borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key<'q> {
    /// Canonical name.
    pub qname: NameRef<'q>,
    /// Type.
    pub qtype: Qtype,
    /// DNSSEC OK.
    pub dnssec_ok: bool,
    /// Checking disabled: an answer that was not checked must not serve one who wants it checked.
    pub checking_disabled: bool,
}

impl Key<'_> {
    fn flags(&self) -> u8 {
        u8::from(self.dnssec_ok) | u8::from(self.checking_disabled) << 1
    }
}

impl Hash for Key<'_> {
    fn hash<H: Hasher>(&self, to: &mut H) {
        hash(self.qname.as_wire(), self.qtype, self.flags(), to);
    }
}

/// One hash for the borrowed and the owned form.
fn hash<H: Hasher>(qname: &[u8], qtype: Qtype, flags: u8, to: &mut H) {
    to.write(qname);
    to.write_u32(u32::from(qtype.0) << 8 | u32::from(flags));
}

/// The key as kept.
#[derive(Debug, Clone, PartialEq, Eq)]
struct OwnedKey {
    qname: Box<[u8]>,
    qtype: Qtype,
    flags: u8,
}

impl Hash for OwnedKey {
    fn hash<H: Hasher>(&self, to: &mut H) {
        hash(&self.qname, self.qtype, self.flags, to);
    }
}

impl Equivalent<OwnedKey> for Key<'_> {
    fn equivalent(&self, key: &OwnedKey) -> bool {
        *self.qname.as_wire() == *key.qname && self.qtype == key.qtype && self.flags() == key.flags
    }
}

/// A kept answer.
#[derive(Debug)]
pub struct Entry {
    /// The answer.
    pub answer: WireAnswer,
    /// Names behind the first, for lists that judge every hop for each session.
    pub hops: Box<[NameBuf]>,
    /// When it was put, monotonic milliseconds.
    pub stored: u64,
    /// From when on it is dead, monotonic milliseconds.
    pub expires: u64,
    /// Never the same for two entries of one process: tells a pinned answer from a later one of the same name.
    pub id: u64,
}

impl Entry {
    /// An answer that is shown once and never kept.
    pub fn passing(answer: WireAnswer, hops: Box<[NameBuf]>, now: u64) -> Self {
        let expires = now.saturating_add(u64::from(answer.ttl) * 1000);
        Self { answer, hops, stored: now, expires, id: 0 }
    }

    /// Seconds since it was put.
    pub fn age(&self, now: u64) -> u32 {
        u32::try_from(now.saturating_sub(self.stored) / 1000).unwrap_or(u32::MAX)
    }

    /// Seconds it may still be shown, rounded down; 0 once dead.
    pub fn ttl_left(&self, now: u64) -> u32 {
        u32::try_from(self.expires.saturating_sub(now) / 1000).unwrap_or(u32::MAX)
    }
}

/// Octets an entry takes, but at least its share, so that the one bound on weight bounds the count too.
#[derive(Debug, Clone)]
struct Share {
    least: u64,
}

impl Weighter<OwnedKey, Arc<Entry>> for Share {
    fn weight(&self, key: &OwnedKey, entry: &Arc<Entry>) -> u64 {
        (octets(&key.qname, &entry.answer) + hops(&entry.hops)).max(self.least)
    }
}

fn hops(hops: &[NameBuf]) -> u64 {
    hops.iter().map(|hop| 16 + hop.as_ref().wire_len() as u64).sum()
}

fn octets(qname: &[u8], answer: &WireAnswer) -> u64 {
    let pins = answer.pins.len() * std::mem::size_of::<std::net::IpAddr>();
    (ENTRY_OVERHEAD + qname.len() + answer.body.len() + 2 * answer.ttl_at.len() + pins) as u64
}

/// The cache. Shared by every worker; a look-up takes one short shard lock and allocates nothing.
///
/// Capacity, from [`Config`]: entries and octets. What a session gains by filling it: other sessions' answers are asked
/// again upstream. The eviction (recently used twice stays, a scan passes through) keeps names in use.
#[derive(Debug)]
pub struct Cache {
    inner: Inner<OwnedKey, Arc<Entry>, Share, foldhash::quality::RandomState>,
    next_id: AtomicU64,
    enabled: bool,
}

impl Cache {
    /// An empty cache. Its hash is keyed anew for every process.
    pub fn new(config: Config) -> Self {
        let entries = config.entries.max(1);
        let octets = config.octets.max(1) as u64;
        let share = Share { least: (octets / entries as u64).max(1) };
        let inner = Inner::with(entries, octets, share, foldhash::quality::RandomState::default(), Default::default());
        Self { inner, next_id: AtomicU64::new(1), enabled: config.entries > 0 }
    }

    /// The living answer to this question.
    pub fn get(&self, key: Key<'_>, now: u64) -> Option<Arc<Entry>> {
        let entry = self.inner.get(&key)?;
        (now < entry.expires).then_some(entry)
    }

    /// Keeps `answer` for its TTL, in place of an older one. Returns the entry, kept or not, so that a caller can serve
    /// it either way: a TTL of 0 is never kept.
    pub fn put(&self, key: Key<'_>, answer: WireAnswer, hops: Box<[NameBuf]>, now: u64) -> Arc<Entry> {
        let expires = now.saturating_add(u64::from(answer.ttl) * 1000);
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let entry = Arc::new(Entry { answer, hops, stored: now, expires, id });
        if entry.answer.ttl > 0 && self.enabled {
            let key = OwnedKey { qname: key.qname.as_wire().into(), qtype: key.qtype, flags: key.flags() };
            self.inner.insert(key, entry.clone());
        }
        entry
    }

    /// Forgets everything (after a change of rules).
    pub fn clear(&self) {
        self.inner.clear();
    }

    /// Entries held, dead ones included.
    pub fn len(&self) -> usize {
        self.inner.len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.inner.is_empty()
    }

    /// Octets held, as reckoned; at least the share of each entry.
    pub fn weight(&self) -> u64 {
        self.inner.weight()
    }
}

#[cfg(test)]
mod tests {
    use staunch_scoring::NameBuf;

    use super::*;

    fn answer(ttl: u32, octets: usize) -> WireAnswer {
        WireAnswer {
            rcode: 0,
            authentic_data: false,
            answers: 1,
            authorities: 0,
            body: vec![0; octets].into(),
            ttl_at: Box::new([6]),
            ttl,
            pins: Box::default(),
        }
    }

    fn key(name: &NameBuf) -> Key<'_> {
        Key { qname: name.as_ref(), qtype: Qtype::A, dnssec_ok: false, checking_disabled: false }
    }

    fn name(text: &str) -> NameBuf {
        NameBuf::from_text(text).expect("name")
    }

    #[test]
    fn an_entry_lives_for_its_ttl_and_no_longer() {
        let cache = Cache::new(Config::of_entries(16));
        let name = name("a.example");
        let put = cache.put(key(&name), answer(10, 50), Box::default(), 5_000);
        for (now, left) in [(5_000, Some(10)), (5_001, Some(9)), (14_999, Some(0)), (15_000, None), (u64::MAX, None)] {
            let got = cache.get(key(&name), now);
            assert_eq!(got.as_ref().map(|e| e.ttl_left(now)), left, "at {now}");
            assert!(got.is_none_or(|e| e.id == put.id), "reading does not renew");
        }
    }

    #[test]
    fn a_later_answer_is_another_entry() {
        let cache = Cache::new(Config::of_entries(16));
        let name = name("a.example");
        let first = cache.put(key(&name), answer(10, 50), Box::default(), 0);
        let second = cache.put(key(&name), answer(20, 50), Box::default(), 4_000);
        assert_ne!(first.id, second.id);
        assert_eq!((first.expires, second.expires), (10_000, 24_000), "the first keeps its own end");
        assert_eq!(cache.get(key(&name), 5_000).map(|e| e.id), Some(second.id));
        assert_eq!(cache.len(), 1);
    }

    #[test]
    fn the_whole_question_is_the_key() {
        let cache = Cache::new(Config::of_entries(64));
        let (a, b) = (name("a.example"), name("b.example"));
        let base = key(&a);
        cache.put(base, answer(10, 50), Box::default(), 0);
        let others = [
            key(&b),
            Key { qtype: Qtype::AAAA, ..base },
            Key { dnssec_ok: true, ..base },
            Key { checking_disabled: true, ..base },
            Key { dnssec_ok: true, checking_disabled: true, ..base },
        ];
        for other in others {
            assert!(cache.get(other, 1).is_none(), "{other:?}");
        }
        assert!(cache.get(base, 1).is_some());
    }

    #[test]
    fn ttl_zero_and_a_cache_of_none_keep_nothing() {
        let name = name("a.example");
        let cache = Cache::new(Config::of_entries(16));
        assert_eq!(cache.put(key(&name), answer(0, 50), Box::default(), 0).answer.ttl, 0, "still served once");
        assert!(cache.get(key(&name), 0).is_none() && cache.is_empty());
        let off = Cache::new(Config::of_entries(0));
        off.put(key(&name), answer(100, 50), Box::default(), 0);
        assert!(off.is_empty());
    }

    #[test]
    fn entries_and_octets_are_bounded() {
        for (config, size) in
            [(Config { entries: 512, octets: 1 << 20 }, 10), (Config { entries: 1 << 16, octets: 1 << 20 }, 4_000)]
        {
            let cache = Cache::new(config);
            for i in 0..20_000 {
                let name = name(&format!("n{i}.example"));
                cache.put(key(&name), answer(100, size), Box::default(), 0);
            }
            assert!(cache.len() <= config.entries, "{} entries", cache.len());
            assert!(cache.weight() <= config.octets as u64, "{} octets", cache.weight());
            assert!(!cache.is_empty());
            cache.clear();
            assert_eq!((cache.len(), cache.weight()), (0, 0));
        }
    }
}
