//! Keys of trust points as their owners roll them (RFC 5011): which were added and have stood for the hold-down time, and
//! which were revoked.
//!
//! Beside [`super::anchors`], which has what was configured, and never in its place: a key that is configured needs nothing
//! here, a learned one is trusted beside it, and a revoked one is trusted no more whoever names it. Pure: what a zone says
//! of its keys goes in with the time, and text for a file comes out ([`Rollover::read`], [`Display`](std::fmt::Display)).
//!
//! Where this departs from RFC 5011: a key that goes missing stays trusted and is not told apart (section 4.2 has it
//! trusted too), a revoked one is forgotten only behind [`MAX_REVOKED`] later ones and if it is not configured, and a trust point whose keys are all revoked is not given up (section 5):
//! nothing below it is proved until somebody configures it anew.

mod text;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use staunch_scoring::{NameBuf, NameRef};

pub use text::RolloverError;

use super::anchors::Anchors;
use super::chain::{Halt, seconds};
use super::keys::{Ds, Key};
use super::set::{DNSKEY, Set};
use super::work::Work;
use super::{InForce, Limits, Validator};
use crate::answer::Message;
use crate::model::Now;
use crate::partition::Partition;

/// How long a new key must stand before it is trusted (RFC 5011 section 2.4.1), milliseconds. The longer time for sets with
/// longer TTLs is of no use here: none is kept for a day.
pub const HOLD_DOWN: u64 = 30 * 86_400_000;
/// Most keys that are known of one zone, revoked ones not counted; further ones are as if they were not there, which is
/// told. They take a signature by a key that is trusted already, so nobody else can fill it.
const MAX_KEYS: usize = 16;
/// Most revoked keys that are known of one zone beside those that are configured. A further one takes the place of that
/// which was revoked first: it would have to stand for [`HOLD_DOWN`] again, vouched for by a key that is trusted by then.
const MAX_REVOKED: usize = 16;
/// Shortest and longest time between two looks (RFC 5011 section 2.3).
const LOOK_MIN: Duration = Duration::from_secs(3600);
const LOOK_MAX: Duration = Duration::from_secs(15 * 86_400);

/// What is known of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyState {
    /// It has been seen since some time, less than [`HOLD_DOWN`].
    Pending,
    /// It has stood long enough, and is an anchor.
    Trusted,
    /// Its owner has revoked it, for ever.
    Revoked,
}

impl KeyState {
    /// Every state.
    pub const ALL: [Self; 3] = [Self::Pending, Self::Trusted, Self::Revoked];

    /// As in the file, in the log and on the metrics page.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Trusted => "trusted",
            Self::Revoked => "revoked",
        }
    }
}

/// A key that is not simply configured.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    zone: NameBuf,
    /// DNSKEY data without the mark of revocation.
    data: Box<[u8]>,
    state: KeyState,
    /// Since when, milliseconds since 1970.
    since: u64,
}

/// What has changed for a key of a zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The zone.
    pub zone: NameBuf,
    /// The key's tag (RFC 4034 appendix B), as it is without the mark of revocation.
    pub tag: u16,
    /// What is known of it from now on; `None` where it has gone again before it was trusted.
    pub state: Option<KeyState>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.state {
            Some(KeyState::Pending) => "is new, and will be trusted in 30 days",
            Some(KeyState::Trusted) => "is trusted from now on",
            Some(KeyState::Revoked) => "was revoked by its owner, and is trusted no more",
            None => "has gone again before it was trusted",
        };
        write!(f, "key {} of {} {what}", self.tag, self.zone)
    }
}

/// All that is known. At most [`MAX_KEYS`] keys and [`MAX_REVOKED`] revoked ones for each zone that has an anchor.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rollover {
    keys: Vec<Known>,
}

impl Rollover {
    /// Keys in this state.
    pub fn count(&self, state: KeyState) -> usize {
        self.keys.iter().filter(|key| key.state == state).count()
    }

    fn of<'r>(&'r self, zone: NameRef<'r>, state: KeyState) -> impl Iterator<Item = &'r Known> {
        self.keys.iter().filter(move |key| key.zone.as_ref() == zone && key.state == state)
    }

    /// What vouches for a zone's keys: what is configured and not revoked, and what was learned.
    pub(super) fn vouching(&self, zone: NameRef<'_>, configured: &[Ds]) -> Vec<Ds> {
        let revoked: Vec<Key> = self.of(zone, KeyState::Revoked).filter_map(|key| Key::read(&key.data)).collect();
        let is_revoked = |ds: &Ds| revoked.iter().any(|key| ds.is_of(zone, key));
        let mut all: Vec<Ds> = configured.iter().filter(|ds| !is_revoked(ds)).cloned().collect();
        all.extend(self.of(zone, KeyState::Trusted).filter_map(|key| Ds::of_key(zone, &key.data)));
        all
    }

    /// `None` where it is no key, or there is no room for another one.
    fn put(&mut self, zone: NameRef<'_>, data: &[u8], state: KeyState, since: u64) -> Option<Change> {
        let key = Key::read(data)?;
        let known = self.keys.iter_mut().find(|known| known.zone.as_ref() == zone && *known.data == *data);
        match known {
            Some(known) => (known.state, known.since) = (state, since),
            None => {
                let is_standing = |known: &&Known| known.zone.as_ref() == zone && known.state != KeyState::Revoked;
                if state != KeyState::Revoked && self.keys.iter().filter(is_standing).count() >= MAX_KEYS {
                    return None;
                }
                self.keys.push(Known { zone: zone.to_owned(), data: data.into(), state, since });
            }
        }
        Some(Change { zone: zone.to_owned(), tag: key.tag, state: Some(state) })
    }

    /// Forgets the keys of a zone that were revoked first, of which there are too many and which nobody has configured.
    fn forget_revoked(&mut self, zone: NameRef<'_>, configured: &[Ds]) {
        let learned = |known: &Known| {
            known.zone.as_ref() == zone
                && known.state == KeyState::Revoked
                && !Key::read(&known.data).is_some_and(|key| configured.iter().any(|ds| ds.is_of(zone, &key)))
        };
        let over = self.keys.iter().filter(|known| learned(known)).count().saturating_sub(MAX_REVOKED);
        for _ in 0..over {
            let first = self.keys.iter().enumerate().filter(|(_, known)| learned(known)).min_by_key(|(_, k)| k.since);
            if let Some((at, _)) = first {
                self.keys.remove(at);
            }
        }
    }
}

/// What a look at a zone's keys has come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// What has changed.
    pub changes: Vec<Change>,
    /// Tags of keys that would be learned if there were room for more.
    pub crowded: Vec<u16>,
    /// Until the next look.
    pub next: Duration,
}

impl Validator {
    /// Takes in what `reply` says of the keys of `zone`, which has an anchor. `now`: its wall clock as nobody has set it
    /// counts, and signatures go by what it shows.
    ///
    /// A set that no trusted key has signed teaches nothing but a revocation, which the revoked key signs itself (RFC 5011
    /// section 2.1).
    pub fn look(&self, rollover: &mut Rollover, zone: NameRef<'_>, reply: &[u8], now: Now) -> Look {
        let mut look = Look { changes: Vec::new(), crowded: Vec::new(), next: LOOK_MIN };
        let Some(configured) = self.configured.at(zone) else { return look };
        let Ok(message) = Message::read(reply) else { return look };
        if message.qname() != zone.as_wire() || message.qtype != DNSKEY || message.truncated || message.rcode != 0 {
            return look;
        }
        let set = Set::in_answer(&message, zone, DNSKEY);
        // Each signer is asked of on its own.
        let signed_by = |keys: &[Key]| -> Result<u32, Halt> {
            set.verify(zone, keys, seconds(now), &mut Work::new(Limits::default(), Partition::ALL)).map(|good| good.ttl)
        };
        let time = now.wall.steady;
        for (unmarked, key) in set.data().filter_map(Key::read_revoked).take(MAX_KEYS) {
            let is_new = !rollover.of(zone, KeyState::Revoked).any(|known| *known.data == *unmarked);
            let is_ours = Key::read(&unmarked).is_some_and(|key| configured.iter().any(|ds| ds.is_of(zone, &key)))
                || rollover.keys.iter().any(|known| known.zone.as_ref() == zone && known.data == unmarked);
            if is_new && is_ours && signed_by(&[key]).is_ok() {
                look.changes.extend(rollover.put(zone, &unmarked, KeyState::Revoked, time));
            }
        }
        rollover.forget_revoked(zone, configured);
        let vouching = rollover.vouching(zone, configured);
        let standing: Vec<(&[u8], Key)> =
            set.data().filter_map(|data| Some((data, Key::read(data)?))).take(super::keys::MAX_KEYS).collect();
        let trusted = |key: &Key| vouching.iter().any(|ds| ds.is_of(zone, key));
        let entry: Vec<Key> = standing.iter().map(|(_, key)| key).filter(|key| trusted(key)).cloned().collect();
        let Ok(ttl) = signed_by(&entry) else { return look };
        look.next = Duration::from_secs(u64::from(ttl) / 2).clamp(LOOK_MIN, LOOK_MAX);
        for (data, key) in standing.iter().filter(|(data, key)| Key::is_entry_point(data) && !trusted(key)) {
            let known = rollover.keys.iter().find(|known| known.zone.as_ref() == zone && *known.data == **data);
            let put = match known.map(|known| (known.state, known.since)) {
                None => {
                    let put = rollover.put(zone, data, KeyState::Pending, time);
                    if put.is_none() {
                        look.crowded.push(key.tag);
                    }
                    put
                }
                Some((KeyState::Pending, since)) if time.saturating_sub(since) >= HOLD_DOWN => {
                    rollover.put(zone, data, KeyState::Trusted, time)
                }
                Some(_) => None,
            };
            look.changes.extend(put.map(|change| Change { tag: key.tag, ..change }));
        }
        let is_there = |known: &Known| standing.iter().any(|(data, _)| **data == *known.data);
        rollover.keys.retain(|known| {
            let stays = known.zone.as_ref() != zone || known.state != KeyState::Pending || is_there(known);
            if !stays && let Some(key) = Key::read(&known.data) {
                look.changes.push(Change { zone: zone.to_owned(), tag: key.tag, state: None });
            }
            stays
        });
        look
    }

    /// Trusts by what is configured and by `rollover` from now on. What was proved by other keys is forgotten, and so is what
    /// is under way by them. Whether other keys are trusted than before: then no verdict of before counts any more. For one
    /// thread at a time.
    pub fn follow(&self, rollover: Rollover) -> bool {
        let anchors = self.configured.followed(&rollover);
        self.rollover.store(Arc::new(rollover));
        let before = self.anchors.load();
        let is_other = before.anchors != anchors;
        if is_other {
            self.anchors.store(Arc::new(InForce { number: before.number + 1, anchors }));
            self.zones.clear();
        }
        is_other
    }

    /// Takes over what `before` has learned of keys, where both follow them. Whether it trusts the same.
    pub fn succeeds(&self, before: &Self) -> bool {
        if self.follows && before.follows {
            self.follow(Rollover::clone(&before.rollover()));
        }
        self.anchors.load().anchors == before.anchors.load().anchors
    }

    /// What is known of keys that are not simply configured.
    pub fn rollover(&self) -> Arc<Rollover> {
        self.rollover.load_full()
    }

    /// Whether keys are followed as their owners roll them.
    pub fn follows(&self) -> bool {
        self.follows
    }

    /// Zones whose keys are to be looked at: those with an anchor, where keys are followed.
    pub fn trust_points(&self) -> Vec<NameBuf> {
        self.configured.zones().filter(|_| self.follows).cloned().collect()
    }
}

impl Anchors {
    /// With what is known of their keys.
    fn followed(&self, rollover: &Rollover) -> Self {
        self.map(|zone, configured| rollover.vouching(zone, configured))
    }
}
