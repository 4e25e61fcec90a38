//! What is known of names on the way down the tree: which begin zones, and by which keys those are signed.
//!
//! What a partition of the answer cache has learned serves that partition alone: a zone whose keys are at hand answers sooner, and
//! so tells that somebody has asked in it. The root is everybody's.

use std::sync::Arc;

use quick_cache::sync::Cache;
use quick_cache::{Equivalent, Weighter};
use staunch_scoring::NameRef;

use super::keys::{Ds, Key};
use super::{Bogus, Unchecked};
use crate::partition::Partition;

/// Most octets of all that is known. A zone of two keys takes some 300, a name that begins none some 100.
const OCTETS: u64 = 8 << 20;
/// Names that this is laid out for.
const NAMES: usize = 16_384;
/// Octets reckoned for a name beside its own and its keys.
const OVERHEAD: usize = 112;
/// No word is kept for less: a question must be able to use what it has just learned, whatever its TTL. Seconds.
const MIN_TTL: u32 = 10;
/// No word is kept for longer, seconds: a zone that loses its keys is not lost for days.
const MAX_TTL: u32 = 3600;
/// How long a failure is remembered, seconds (RFC 9520 section 3.2: one to 300).
const BOGUS_TTL: u32 = 5;

/// What is known of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// It begins a zone, which has these keys.
    Zone(Arc<[Key]>),
    /// It begins a zone, whose keys are vouched for by these records.
    Delegated(Arc<[Ds]>),
    /// It begins no zone.
    Inside,
    /// It begins a zone that nobody vouches for, or that cannot be checked here.
    Insecure(Option<Unchecked>),
    /// What was said of it is not what was signed.
    Bogus(Bogus),
}

#[derive(Debug, Clone)]
struct Known {
    state: State,
    /// Monotonic milliseconds.
    until: u64,
    /// By which anchors it was proved.
    anchors: u64,
}

/// What a state is kept under, borrowed. Hashed as [`Owned`] is.
#[derive(Debug, Clone, Copy, Hash)]
struct Of<'n> {
    partition: Partition,
    name: &'n [u8],
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Owned {
    partition: Partition,
    name: Box<[u8]>,
}

impl<'n> Of<'n> {
    fn new(partition: Partition, name: NameRef<'n>) -> Self {
        let partition = if name.is_root() { Partition::ALL } else { partition };
        Self { partition, name: name.as_wire() }
    }
}

impl Equivalent<Owned> for Of<'_> {
    fn equivalent(&self, key: &Owned) -> bool {
        (self.partition, self.name) == (key.partition, &*key.name)
    }
}

#[derive(Debug, Clone)]
struct Octets;

impl Weighter<Owned, Known> for Octets {
    fn weight(&self, of: &Owned, known: &Known) -> u64 {
        let own = match &known.state {
            State::Zone(keys) => keys.iter().map(Key::octets).sum(),
            State::Delegated(all) => all.iter().map(Ds::octets).sum(),
            State::Inside | State::Insecure(_) | State::Bogus(_) => 0,
        };
        (OVERHEAD + of.name.len() + own) as u64
    }
}

/// All that is known. At its capacity what was used least lately goes, and is looked up again when it is needed: a session
/// that fills it costs others look-ups and nothing else.
#[derive(Debug)]
pub(super) struct Zones {
    names: Cache<Owned, Known, Octets, foldhash::quality::RandomState>,
}

impl Default for Zones {
    fn default() -> Self {
        Self {
            names: Cache::with(NAMES, OCTETS, Octets, foldhash::quality::RandomState::default(), Default::default()),
        }
    }
}

impl Zones {
    /// What a partition knows of `name` at `now`, monotonic milliseconds, by the anchors of this number. What was proved by
    /// others is not known: a look-up that was under way when they changed puts its result behind the change.
    pub(super) fn get(&self, partition: Partition, name: NameRef<'_>, anchors: u64, now: u64) -> Option<State> {
        let stands = |known: &Known| known.anchors == anchors && now < known.until;
        self.names.get(&Of::new(partition, name)).filter(stands).map(|known| known.state)
    }

    /// Keeps what was found out for a partition by anchors of this number, for `ttl` seconds.
    pub(super) fn put(&self, partition: Partition, name: NameRef<'_>, state: State, ttl: u32, anchors: u64, now: u64) {
        let ttl = if matches!(state, State::Bogus(_)) { BOGUS_TTL } else { ttl.clamp(MIN_TTL, MAX_TTL) };
        let until = now.saturating_add(u64::from(ttl) * 1000);
        let Of { partition, name } = Of::new(partition, name);
        self.names.insert(Owned { partition, name: name.into() }, Known { state, until, anchors });
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        self.names.clear();
    }

    #[cfg(test)]
    pub(super) fn weight(&self) -> u64 {
        self.names.weight()
    }
}

#[cfg(test)]
mod tests {
    use staunch_scoring::NameBuf;

    use super::*;
    use crate::model::{Announcement, SessionId, SessionType};
    use crate::partition::Partitions;

    fn name(text: &str) -> NameBuf {
        NameBuf::from_text(text).expect("name")
    }

    #[test]
    fn a_word_is_kept_for_its_time_within_bounds() {
        let zones = Zones::default();
        for (state, ttl, kept) in [
            (State::Inside, 300, 300),
            (State::Inside, 0, 10),
            (State::Insecure(Some(Unchecked::Digests)), 86_400, 3600),
            (State::Bogus(Bogus::Expired), 300, 5),
        ] {
            let name = name("a.example");
            zones.put(Partition::ALL, name.as_ref(), state.clone(), ttl, 0, 1000);
            assert_eq!(zones.get(Partition::ALL, name.as_ref(), 0, kept * 1000 + 999), Some(state));
            assert_eq!(zones.get(Partition::ALL, name.as_ref(), 0, kept * 1000 + 1000), None);
        }
        assert_eq!(zones.get(Partition::ALL, name("b.example").as_ref(), 0, 1000), None);
    }

    #[test]
    fn what_a_partition_has_learned_is_its_own() {
        let zones = Zones::default();
        let [one, other] = ["one", "other"].map(|id| {
            let id = SessionId::new(id).expect("an id");
            Partitions::of(&Announcement::without_sandbox(id, SessionType::Batch)).alone()
        });
        let (zone, root) = (name("a.example"), NameRef::ROOT);
        zones.put(one, zone.as_ref(), State::Inside, 300, 0, 0);
        zones.put(one, root, State::Inside, 300, 0, 0);
        let known = |partition, name| zones.get(partition, name, 0, 1).is_some();
        assert!(known(one, zone.as_ref()) && !known(other, zone.as_ref()) && !known(Partition::ALL, zone.as_ref()));
        assert!(known(other, root), "the root is everybody's");
    }

    #[test]
    fn what_is_known_is_bounded() {
        let zones = Zones::default();
        let key = Key::read(&[&[1, 0, 3, 8, 3][..], &[7; 515]].concat()).expect("a key");
        let keys: Arc<[Key]> = vec![key; super::super::keys::MAX_KEYS].into();
        for i in 0..2000 {
            zones.put(Partition::ALL, name(&format!("z{i}.example")).as_ref(), State::Zone(keys.clone()), 300, 0, 0);
        }
        assert!(zones.weight() <= OCTETS, "{}", zones.weight());
        assert!(zones.get(Partition::ALL, name("z1999.example").as_ref(), 0, 1).is_some());
    }
}
