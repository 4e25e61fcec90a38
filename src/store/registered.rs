//! Registration dates that were looked up: what a registry said of a registrable domain, and when.
//!
//! Filled by [`crate::rdap`], read by the walk of a query; the index keeps it over restarts. Knows no protocol and
//! decides nothing: when a domain is to be asked for again is handed in.
//!
//! Bounded to [`CAPACITY`] domains. A full shard gives up what says least: a domain of unknown date first, else the one
//! registered earliest. A young domain's date is therefore never pushed out by old ones; who floods the table with
//! young domains must have registered them.

use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::SyncSender;

use foldhash::quality::RandomState;
use hashbrown::HashMap;
use parking_lot::RwLock;
use staunch_scoring::NameRef;

use super::index::thread::Message;
use super::index::{Op, Tree, VALUE_VERSION};

/// Most domains. About 8 MiB when full.
pub const CAPACITY: usize = 65_536;

/// Locks, so that a look-up that ends never makes many readers wait.
const SHARDS: usize = 64;

/// How long an answer is believed that could not be renewed, milliseconds: 90 days. Chosen without a source; three
/// times the longest pause between look-ups.
const BELIEVED_MS: u64 = 90 * 86_400_000;

/// What is known of a domain. Times are Unix milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registration {
    /// When it was last registered; `None` where the registry did not say, or could not be asked.
    pub registered: Option<u64>,
    /// When the registry was last asked.
    pub checked: u64,
    /// From when on it is to be asked again.
    pub due: u64,
}

type Shard = RwLock<HashMap<Box<[u8]>, Registration, RandomState>>;

/// See the module. Shared by every thread; reading takes one shard's lock for the length of a hash look-up.
pub struct Registered {
    shards: Box<[Shard]>,
    hasher: RandomState,
    shard_capacity: usize,
    known: AtomicUsize,
    evicted: AtomicU64,
    unsaved: AtomicU64,
    saved: SyncSender<Message>,
}

impl Registered {
    pub(super) fn new(saved: SyncSender<Message>) -> Self {
        Self::with_capacity(CAPACITY, saved)
    }

    fn with_capacity(capacity: usize, saved: SyncSender<Message>) -> Self {
        Self {
            shards: std::iter::repeat_with(RwLock::default).take(SHARDS).collect(),
            hasher: RandomState::default(),
            shard_capacity: capacity.div_ceil(SHARDS),
            known: AtomicUsize::new(0),
            evicted: AtomicU64::new(0),
            unsaved: AtomicU64::new(0),
            saved,
        }
    }

    /// What is known of `domain` (registrable, canonical) at `now`.
    pub fn get(&self, domain: NameRef<'_>, now: u64) -> Option<Registration> {
        // Where nothing was ever looked up, the walk pays one load.
        if self.known.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let found = *self.shard(domain.as_wire())?.read().get(domain.as_wire())?;
        (now < found.checked.saturating_add(BELIEVED_MS)).then_some(found)
    }

    /// Notes what a registry said, and saves it. Of two dates the later one stays: a domain that was registered again
    /// is a new one, and an answer without the later event does not make it old again.
    pub fn put(&self, domain: NameRef<'_>, said: Registration) {
        let (kept, evicted) = self.merge(domain.as_wire(), said);
        let mut ops: Vec<Op> = evicted.into_iter().map(|name| Op::Delete(Tree::Registered, name.into_vec())).collect();
        ops.push(Op::Put(Tree::Registered, domain.as_wire().to_vec(), encode(kept)));
        // Not saved: asked again after a restart.
        if self.saved.try_send(Message::Apply { ops, applied: None }).is_err() {
            self.unsaved.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Notes that nothing could be learned and that `domain` is not to be asked for before `due`. Not saved.
    pub fn postpone(&self, domain: NameRef<'_>, now: u64, due: u64) {
        let Some(shard) = self.shard(domain.as_wire()) else { return };
        {
            let mut shard = shard.write();
            if let Some(known) = shard.get_mut(domain.as_wire()) {
                known.due = known.due.max(due);
                return;
            }
        }
        let (_, evicted) = self.merge(domain.as_wire(), Registration { registered: None, checked: now, due });
        let ops: Vec<Op> = evicted.into_iter().map(|name| Op::Delete(Tree::Registered, name.into_vec())).collect();
        if !ops.is_empty() && self.saved.try_send(Message::Apply { ops, applied: None }).is_err() {
            self.unsaved.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Domains held, those of unknown date included.
    pub fn known(&self) -> u64 {
        self.known.load(Ordering::Relaxed) as u64
    }

    /// Domains forgotten because the table was full, since start.
    pub fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }

    /// Answers that could not be queued for saving, since start.
    pub fn unsaved(&self) -> u64 {
        self.unsaved.load(Ordering::Relaxed)
    }

    /// Takes one entry of the index. False where it is of no use any more and may be deleted.
    pub(super) fn load(&self, key: &[u8], value: &[u8], now: u64) -> bool {
        let (Ok(name), Some(mut said)) = (NameRef::from_wire(key), decode(value)) else { return false };
        if said.checked > now {
            // Of a clock that was ahead: it is believed no longer for it, and asked for again.
            (said.checked, said.due) = (now, said.due.min(now));
        }
        if now >= said.checked.saturating_add(BELIEVED_MS) {
            return false;
        }
        self.merge(name.as_wire(), said);
        true
    }

    fn shard(&self, name: &[u8]) -> Option<&Shard> {
        self.shards.get(self.hasher.hash_one(name) as usize % SHARDS)
    }

    /// What is kept, and the name that had to go.
    fn merge(&self, name: &[u8], said: Registration) -> (Registration, Option<Box<[u8]>>) {
        let Some(shard) = self.shard(name) else { return (said, None) };
        let mut shard = shard.write();
        if let Some(known) = shard.get_mut(name) {
            let newer = if said.checked >= known.checked { said } else { *known };
            *known = Registration { registered: known.registered.max(said.registered), ..newer };
            return (*known, None);
        }
        let mut evicted = None;
        if shard.len() >= self.shard_capacity {
            // `None` is before every date. Among equals the one asked for longest ago.
            let least = shard.iter().min_by_key(|(_, r)| (r.registered, r.checked)).map(|(name, _)| name.clone());
            if let Some(least) = least {
                shard.remove(&least);
                self.evicted.fetch_add(1, Ordering::Relaxed);
                evicted = Some(least);
            }
        } else {
            self.known.fetch_add(1, Ordering::Relaxed);
        }
        shard.insert(name.into(), said);
        (said, evicted)
    }
}

impl std::fmt::Debug for Registered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registered").field("known", &self.known()).finish_non_exhaustive()
    }
}

/// Version, date (all ones where unknown), time asked, time due; big-endian milliseconds.
fn encode(said: Registration) -> Vec<u8> {
    let mut value = vec![VALUE_VERSION];
    for number in [said.registered.unwrap_or(u64::MAX), said.checked, said.due] {
        value.extend_from_slice(&number.to_be_bytes());
    }
    value
}

fn decode(value: &[u8]) -> Option<Registration> {
    let (&VALUE_VERSION, numbers) = value.split_first()? else { return None };
    let numbers: &[u8; 24] = numbers.try_into().ok()?;
    let number = |at: usize| numbers.get(at..at + 8).and_then(|n| n.try_into().ok()).map(u64::from_be_bytes);
    let registered = number(0)?;
    Some(Registration {
        registered: (registered != u64::MAX).then_some(registered),
        checked: number(8)?,
        due: number(16)?,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, sync_channel};

    use staunch_scoring::NameBuf;

    use super::*;

    const DAY: u64 = 86_400_000;

    fn table(capacity: usize) -> (Registered, Receiver<Message>) {
        let (sender, receiver) = sync_channel(100_000);
        (Registered::with_capacity(capacity, sender), receiver)
    }

    fn domain(text: &str) -> NameBuf {
        NameBuf::from_text(text).unwrap()
    }

    fn said(registered: Option<u64>, checked: u64) -> Registration {
        Registration { registered, checked, due: checked + DAY }
    }

    #[test]
    fn a_later_registration_replaces_an_earlier_one_and_never_the_other_way() {
        let (table, _receiver) = table(1_000);
        let name = domain("a.example");
        assert_eq!(table.get(name.as_ref(), 0), None);
        table.put(name.as_ref(), said(Some(10 * DAY), 100 * DAY));
        table.put(name.as_ref(), said(Some(150 * DAY), 151 * DAY));
        assert_eq!(table.get(name.as_ref(), 152 * DAY).unwrap().registered, Some(150 * DAY), "registered again");
        table.put(name.as_ref(), said(Some(10 * DAY), 160 * DAY));
        let known = table.get(name.as_ref(), 161 * DAY).unwrap();
        assert_eq!(known, Registration { registered: Some(150 * DAY), checked: 160 * DAY, due: 161 * DAY });
        table.put(name.as_ref(), said(None, 170 * DAY));
        assert_eq!(table.get(name.as_ref(), 170 * DAY).unwrap().registered, Some(150 * DAY), "silence unsays nothing");
        table.postpone(name.as_ref(), 171 * DAY, 180 * DAY);
        let known = table.get(name.as_ref(), 171 * DAY).unwrap();
        assert_eq!((known.checked, known.due), (170 * DAY, 180 * DAY), "a failure only puts off");
        assert_eq!(table.get(name.as_ref(), 170 * DAY + BELIEVED_MS), None, "not believed for ever");
    }

    #[test]
    fn what_is_saved_loads_again_and_what_is_stale_does_not() {
        let (first, receiver) = table(1_000);
        first.put(domain("a.example").as_ref(), said(Some(5), 100 * DAY));
        first.put(domain("b.example").as_ref(), said(None, 100 * DAY));
        first.postpone(domain("c.example").as_ref(), 100 * DAY, 101 * DAY);
        let (again, _receiver) = table(1_000);
        let (stale, _receiver) = table(1_000);
        for message in receiver.try_iter() {
            let Message::Apply { ops, .. } = message else { panic!("unexpected {message:?}") };
            for op in ops {
                let Op::Put(Tree::Registered, key, value) = op else { panic!("unexpected {op:?}") };
                assert!(again.load(&key, &value, 101 * DAY));
                assert!(!stale.load(&key, &value, 100 * DAY + BELIEVED_MS));
            }
        }
        assert_eq!((again.known(), stale.known()), (2, 0), "a failure is not saved");
        assert_eq!(again.get(domain("a.example").as_ref(), 101 * DAY), Some(said(Some(5), 100 * DAY)));
        assert_eq!(again.get(domain("b.example").as_ref(), 101 * DAY), Some(said(None, 100 * DAY)));
        // From a clock that was years ahead.
        let (ahead, _receiver) = table(1_000);
        let value = encode(said(Some(5), 4_000 * DAY));
        assert!(ahead.load(domain("a.example").as_ref().as_wire(), &value, 100 * DAY));
        let known = Registration { registered: Some(5), checked: 100 * DAY, due: 100 * DAY };
        assert_eq!(ahead.get(domain("a.example").as_ref(), 100 * DAY), Some(known), "asked for again");
        assert_eq!(ahead.get(domain("a.example").as_ref(), 100 * DAY + BELIEVED_MS), None);
        for (key, value) in [(&b"\x01a\x00"[..], &b""[..]), (b"\x01a\x00", &[2; 25]), (b"no name", &[1; 25])] {
            assert!(!again.load(key, value, 0));
        }
    }

    #[test]
    fn a_full_table_keeps_the_young_and_forgets_the_unknown_and_the_old() {
        let (table, receiver) = table(SHARDS * 8);
        let young: Vec<_> = (0..64).map(|n| domain(&format!("young{n}.example"))).collect();
        young.iter().for_each(|name| table.put(name.as_ref(), said(Some(99 * DAY), 100 * DAY)));
        for n in 0..5_000 {
            table.put(domain(&format!("old{n}.example")).as_ref(), said(Some(n), 100 * DAY));
            table.postpone(domain(&format!("unknown{n}.example")).as_ref(), 100 * DAY, 101 * DAY);
        }
        assert!(table.known() <= (SHARDS * 8) as u64);
        assert_eq!(table.evicted(), 64 + 10_000 - table.known());
        let kept = young.iter().filter(|name| table.get(name.as_ref(), 100 * DAY).is_some()).count();
        assert_eq!(kept, 64, "64 names over 64 shards of eight: none lost to older ones");
        let deleted = receiver.try_iter().flat_map(|m| match m {
            Message::Apply { ops, .. } => ops,
            _ => Vec::new(),
        });
        let deleted = deleted.filter(|op| matches!(op, Op::Delete(..))).count();
        assert_eq!(deleted as u64, table.evicted(), "the index forgets what the table forgets");
    }
}
