//! The answer cache: vetted answers by question, in wire form.
//!
//! Between [`crate::answer`], whose answers it keeps, and [`crate::reply`], which puts a header in front of them. Pure:
//! `now` is handed in, as milliseconds of the monotonic clock.
//!
//! Three ages of an answer: *living* within its TTL; *usable* until the floor, so that one question leaves at most once
//! in that time however short its TTL is; *stale* until it is evicted, for whoever is answered without asking again
//! (RFC 8767). Failures stand apart, so that none of them takes the place of an answer.
//!
//! Invariants: an entry belongs to exactly one question and was vetted for it; it never changes after it was put, so no
//! later data can prolong it; [`Cache::get`] hands none out past the later of its TTL and the floor.

use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quick_cache::sync::Cache as Inner;
use quick_cache::{Equivalent, UnitWeighter, Weighter};
use staunch_scoring::{NameBuf, NameRef};

use crate::answer::WireAnswer;
use crate::model::{Ede, Qtype};
use crate::partition::Partition;

/// Most failures remembered. What a session gains by filling it: failed questions of others are tried again sooner than
/// [`Config`]'s owner wants, each of its own at the price of a charge.
const FAILURES: usize = 4096;

/// The longest that a failure stands which comes again and again, unless one alone does, milliseconds. Half of that time is
/// what a name may at most be late after a failure of that length; a minute is how often a question leaves at most anyway.
const LONGEST_FAILURE: u64 = 60_000;

/// Octets given back at a time when the cache gets less room: some hundred entries, so that no look-up waits for more.
const STEP: u64 = 256 << 10;

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
    /// Who else may be answered by it.
    pub partition: Partition,
}

impl Key<'_> {
    fn flags(&self) -> u8 {
        u8::from(self.dnssec_ok) | u8::from(self.checking_disabled) << 1
    }

    fn to_owned(self) -> OwnedKey {
        OwnedKey {
            qname: self.qname.as_wire().into(),
            qtype: self.qtype,
            flags: self.flags(),
            partition: self.partition,
        }
    }
}

impl Hash for Key<'_> {
    fn hash<H: Hasher>(&self, to: &mut H) {
        hash(self.qname.as_wire(), self.qtype, self.flags(), self.partition, to);
    }
}

/// One hash for the borrowed and the owned form.
fn hash<H: Hasher>(qname: &[u8], qtype: Qtype, flags: u8, partition: Partition, to: &mut H) {
    to.write(qname);
    to.write_u64((u64::from(qtype.0) << 8 | u64::from(flags)) ^ partition.number());
}

/// The key as kept.
#[derive(Debug, Clone, PartialEq, Eq)]
struct OwnedKey {
    qname: Box<[u8]>,
    qtype: Qtype,
    flags: u8,
    partition: Partition,
}

impl Hash for OwnedKey {
    fn hash<H: Hasher>(&self, to: &mut H) {
        hash(&self.qname, self.qtype, self.flags, self.partition, to);
    }
}

impl Equivalent<OwnedKey> for Key<'_> {
    fn equivalent(&self, key: &OwnedKey) -> bool {
        *self.qname.as_wire() == *key.qname
            && (self.qtype, self.flags(), self.partition) == (key.qtype, key.flags, key.partition)
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
    /// Until when it answers questions in place of an upstream, monotonic milliseconds: `expires`, or the floor where
    /// that is later.
    pub usable: u64,
    /// Set where the guard has taken everything out of the answer: the addresses it held. It is refused, each time.
    pub inside: Option<Box<[IpAddr]>>,
    /// How long it took to get, milliseconds.
    pub took: u32,
    /// By which rules it was vetted (`Live::vetting`).
    pub vetting: u64,
    /// Never the same for two entries of one process: tells a pinned answer from a later one of the same name.
    pub id: u64,
}

impl Entry {
    /// An answer that is shown once and never kept.
    pub fn passing(vetting: u64, answer: WireAnswer, hops: Box<[NameBuf]>, now: u64) -> Self {
        let expires = now.saturating_add(u64::from(answer.ttl) * 1000);
        Self { answer, hops, stored: now, expires, usable: expires, inside: None, took: 0, vetting, id: 0 }
    }

    /// The same entry, to be shown as `answer`.
    pub fn shown_as(&self, answer: WireAnswer) -> Self {
        Self { answer, hops: self.hops.clone(), inside: self.inside.clone(), ..*self }
    }

    /// Whether it has records to show, and none of them was withheld.
    pub fn is_positive(&self) -> bool {
        self.answer.rcode == 0 && self.answer.answers > 0 && self.inside.is_none()
    }

    /// Whether its TTL has run down.
    pub fn is_expired(&self, now: u64) -> bool {
        now >= self.expires
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

/// A question that no upstream could answer a moment ago.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    /// What the stub is told (RFC 8914).
    pub ede: Ede,
    /// In words.
    pub text: Box<str>,
    /// From when on it may be tried again, monotonic milliseconds.
    pub until: u64,
    /// How long it stands since it was heard, milliseconds.
    stands: u64,
}

impl Failure {
    /// One that is told once and never kept.
    pub fn passing(ede: Ede, text: &str, now: u64) -> Self {
        Self { ede, text: text.into(), until: now, stands: 0 }
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
    let pins = answer.pins.len() * std::mem::size_of::<IpAddr>();
    (ENTRY_OVERHEAD + qname.len() + answer.body.len() + 2 * answer.ttl_at.len() + pins) as u64
}

/// The cache. Shared by every worker; a look-up takes one short shard lock and allocates nothing.
///
/// Capacity, from [`Config`]: entries and octets. What a session gains by filling it: other sessions' answers are asked
/// again upstream. The eviction (recently used twice stays, a scan passes through) keeps names in use.
#[derive(Debug)]
pub struct Cache {
    inner: Inner<OwnedKey, Arc<Entry>, Share, foldhash::quality::RandomState>,
    failures: Inner<OwnedKey, Arc<Failure>, UnitWeighter, foldhash::quality::RandomState>,
    /// When the last failure ends: as long as nothing fails, nothing is looked up.
    failing_until: AtomicU64,
    next_id: AtomicU64,
    /// By which rules answers are vetted now.
    vetting: AtomicU64,
    enabled: bool,
}

impl Cache {
    /// An empty cache. Its hash is keyed anew for every process.
    pub fn new(config: Config) -> Self {
        let entries = config.entries.max(1);
        let octets = config.octets.max(1) as u64;
        let share = Share { least: (octets / entries as u64).max(1) };
        let inner = Inner::with(entries, octets, share, foldhash::quality::RandomState::default(), Default::default());
        Self {
            inner,
            failures: Inner::with(FAILURES, FAILURES as u64, UnitWeighter, Default::default(), Default::default()),
            failing_until: AtomicU64::new(0),
            next_id: AtomicU64::new(1),
            vetting: AtomicU64::new(0),
            enabled: config.entries > 0,
        }
    }

    /// The answer that stands in for an upstream: within its TTL, or within the floor.
    pub fn get(&self, key: Key<'_>, now: u64) -> Option<Arc<Entry>> {
        self.vetted(key).filter(|entry| now < entry.usable)
    }

    /// Any answer to this question that expired at most `max_stale` milliseconds ago.
    pub fn get_stale(&self, key: Key<'_>, now: u64, max_stale: u64) -> Option<Arc<Entry>> {
        self.vetted(key).filter(|entry| now < entry.usable.max(entry.expires.saturating_add(max_stale)))
    }

    /// What is kept, if it was vetted by the rules that are in force.
    fn vetted(&self, key: Key<'_>) -> Option<Arc<Entry>> {
        self.inner.get(&key).filter(|entry| entry.vetting == self.vetting.load(Ordering::Relaxed))
    }

    /// Keeps `answer` in place of an older one; it is usable for its TTL, and for `floor` milliseconds where the TTL is
    /// shorter. `vetting`: by which rules it was vetted; while others are in force it is not found. `took`: milliseconds it took
    /// to get. Returns the entry, kept or not, so that a caller can serve it either way.
    #[allow(clippy::too_many_arguments)]
    pub fn put(
        &self,
        key: Key<'_>,
        vetting: u64,
        answer: WireAnswer,
        hops: Box<[NameBuf]>,
        now: u64,
        floor: u64,
        took: u32,
    ) -> Arc<Entry> {
        self.keep(key, vetting, answer, hops, None, now, floor, took)
    }

    /// As [`Cache::put`], for an answer of which the guard has taken everything out: `withheld`, and what is shown of it.
    #[allow(clippy::too_many_arguments)]
    pub fn put_inside(
        &self,
        key: Key<'_>,
        vetting: u64,
        answer: WireAnswer,
        withheld: Box<[IpAddr]>,
        now: u64,
        floor: u64,
        took: u32,
    ) {
        self.keep(key, vetting, answer, Box::default(), Some(withheld), now, floor, took);
    }

    #[allow(clippy::too_many_arguments)]
    fn keep(
        &self,
        key: Key<'_>,
        vetting: u64,
        answer: WireAnswer,
        hops: Box<[NameBuf]>,
        inside: Option<Box<[IpAddr]>>,
        now: u64,
        floor: u64,
        took: u32,
    ) -> Arc<Entry> {
        let expires = now.saturating_add(u64::from(answer.ttl) * 1000);
        let usable = expires.max(now.saturating_add(floor));
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let entry = Arc::new(Entry { answer, hops, stored: now, expires, usable, inside, took, vetting, id });
        // One that is usable for no time serves nobody but those who are answered stale.
        // What was vetted by earlier rules takes no place of what was vetted since.
        if self.enabled && vetting == self.vetting.load(Ordering::Relaxed) {
            self.inner.insert(key.to_owned(), entry.clone());
            if self.failing_until.load(Ordering::Relaxed) > 0 {
                self.failures.remove(&key);
            }
        }
        entry
    }

    /// The failure that stands in for an upstream.
    pub fn failure(&self, key: Key<'_>, now: u64) -> Option<Arc<Failure>> {
        if now >= self.failing_until.load(Ordering::Relaxed) {
            return None;
        }
        self.failures.get(&key).filter(|failure| now < failure.until)
    }

    /// The failure that was heard last, over or not; `None` where an answer came after it.
    pub fn last_failure(&self, key: Key<'_>) -> Option<Arc<Failure>> {
        self.failures.get(&key)
    }

    /// Notes that a question could not be answered, beside any answer that there is. It stands for `first` milliseconds, and
    /// where `doubles` says so twice as long as the one before that ended within the last minute (RFC 9520 section 3.2).
    /// Returns for how long.
    pub fn put_failure(&self, key: Key<'_>, ede: Ede, text: &str, now: u64, first: u64, doubles: bool) -> u64 {
        let before = self.failures.get(&key).filter(|before| doubles && now < before.until + LONGEST_FAILURE);
        let stands = before.map_or(first, |before| {
            // Several may hear of one failure; it comes again where the last one is over.
            let again = if now < before.until { 1 } else { 2 };
            (again * before.stands).min(LONGEST_FAILURE).max(first)
        });
        let until = now.saturating_add(stands);
        if self.enabled {
            self.failing_until.fetch_max(until, Ordering::Relaxed);
            self.failures.insert(key.to_owned(), Arc::new(Failure { ede, text: text.into(), until, stands }));
        }
        stands
    }

    /// Finds only answers that were vetted by these rules from now on; to be called right ahead of what puts them in force,
    /// and followed by [`Cache::clear`].
    pub fn vetted_by(&self, vetting: u64) {
        self.vetting.store(vetting, Ordering::Relaxed);
    }

    /// Forgets everything (after a change of rules).
    pub fn clear(&self) {
        self.inner.clear();
        self.failures.clear();
    }

    /// Entries held, dead ones included.
    pub fn len(&self) -> usize {
        self.inner.len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.inner.is_empty()
    }

    /// Octets it may hold, as reckoned; a little more than was asked for, since it is shared out evenly.
    pub fn room(&self) -> u64 {
        self.inner.capacity()
    }

    /// Lets it hold `octets` from now on. What is above goes, least used first, a little at a time, so that nobody who looks
    /// something up waits for all of it; takes milliseconds for each hundred MiB, and is not for threads that answer.
    pub fn set_room(&self, octets: u64) {
        let mut held = self.weight().min(self.room());
        while held > octets.saturating_add(STEP) {
            held -= STEP;
            self.inner.set_capacity(held);
        }
        self.inner.set_capacity(octets);
    }

    /// Octets held, as reckoned; at least the share of each entry.
    pub fn weight(&self) -> u64 {
        self.inner.weight()
    }
}

#[cfg(test)]
mod tests;
