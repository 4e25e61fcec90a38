//! First seen by group: since when the sessions of one owner have used a registrable domain.
//!
//! What is old to the deployment may be new to a group, and the first use by a group that has run for weeks says more
//! than the first use by anybody. A group is told nothing before its own warm-up is over, when everything would look
//! new to it.
//!
//! Bounded twice: [`MAX_GROUPS`] groups (owners are named by operators and runtimes, never by sessions; a group past
//! the limit has no ages, which is neutral, and is counted), and [`MAX_DOMAINS`] domains a group, so that one group's
//! sessions cannot push out another's domains; past it a further domain stays new to its group, which is no trust.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use hashbrown::HashMap;
use parking_lot::Mutex;
use staunch_scoring::NameRef;

use super::index::Tree;
use super::index::sights::Sight;
use super::index::thread::Message;
use super::slots::{self, HashKey, Placed, Slots, TIME_MASK};

/// Most groups. Chosen without a source: owners are teams and services.
const MAX_GROUPS: usize = 4096;

/// Most domains of one group: a sixteenth of the table.
const MAX_DOMAINS: u32 = 32_768;

/// Buckets of sixteen: 524,288 domains in 4 MiB, over all groups.
const BUCKETS: usize = 1 << 15;

/// What a sight says besides its key: what it is of, minutes, hash of the group.
pub(super) const WIDTH: usize = 13;

/// What a sight is of.
const DOMAIN: u8 = 0;
const BIRTH: u8 = 1;

/// See the module. Shared by every thread; reading takes no lock.
pub struct GroupSeen {
    slots: Slots,
    key: HashKey,
    warm_up: Duration,
    loaded: AtomicBool,
    /// Domains noted for each group, by its hash. Written when a domain is new to its group, never read on the hot path.
    groups: Mutex<HashMap<u64, u32>>,
    limits: (usize, u32),
    saved: SyncSender<Message>,
    refused: AtomicU64,
    unsaved: AtomicU64,
}

impl GroupSeen {
    /// Ages are told once a group has used its first domain `warm_up` ago.
    pub(super) fn new(key: [u8; 16], warm_up: Duration, saved: SyncSender<Message>) -> Self {
        Self::with_limits(BUCKETS, (MAX_GROUPS, MAX_DOMAINS), key, warm_up, saved)
    }

    fn with_limits(
        buckets: usize,
        limits: (usize, u32),
        key: [u8; 16],
        warm_up: Duration,
        saved: SyncSender<Message>,
    ) -> Self {
        Self {
            slots: Slots::new(buckets),
            key: HashKey::new(key),
            warm_up,
            loaded: AtomicBool::new(false),
            groups: Mutex::default(),
            limits,
            saved,
            refused: AtomicU64::new(0),
            unsaved: AtomicU64::new(0),
        }
    }

    /// How long `group` has used `domain` (registrable, canonical), to the minute. Zero for a domain new to it; `None`
    /// for a group that is not known or has not run for the warm-up. `now` is Unix milliseconds.
    pub fn first_seen(&self, group: &str, domain: NameRef<'_>, now: u64) -> Option<Duration> {
        if !self.loaded.load(Ordering::Acquire) {
            return None;
        }
        let birth = self.slots.find(self.hash(group, NameRef::ROOT))?;
        if slots::age(birth, now) < self.warm_up {
            return None;
        }
        let seen = self.slots.find(self.hash(group, domain));
        Some(seen.map_or(Duration::ZERO, |minutes| slots::age(minutes, now)))
    }

    /// Notes that a session of `group` was given an answer below `domain`, if that is new to the group. A refused
    /// look-up must not come here: it would age a name.
    pub fn saw(&self, group: &str, domain: NameRef<'_>, now: u64) {
        let hash = self.hash(group, domain);
        if !self.loaded.load(Ordering::Acquire) || domain.is_root() || self.slots.find(hash).is_some() {
            return;
        }
        let id = self.key.hash(group.as_bytes());
        let minutes = slots::minutes(now);
        let mut sights = [None, None];
        {
            let mut groups = self.groups.lock();
            if !groups.contains_key(&id) && groups.len() >= self.limits.0 {
                self.refused.fetch_add(1, Ordering::Relaxed);
                return;
            }
            let domains = groups.entry(id).or_insert(0);
            // Another thread may have been quicker, and a birth can have lost its slot: then the warm-up begins anew.
            if self.slots.find(self.hash(group, NameRef::ROOT)).is_none() {
                sights[0] = self.note(self.hash(group, NameRef::ROOT), id, minutes, BIRTH);
            }
            if self.slots.find(hash).is_none() {
                if *domains >= self.limits.1 {
                    self.refused.fetch_add(1, Ordering::Relaxed);
                } else {
                    *domains += 1;
                    sights[1] = self.note(hash, id, minutes, DOMAIN);
                }
            }
        }
        // Not saved: the domain will look new after a restart, which errs on the safe side.
        for sight in sights.into_iter().flatten() {
            if self.saved.try_send(Message::Saw(Tree::GroupSeen, sight)).is_err() {
                self.unsaved.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn note(&self, hash: u64, group: u64, minutes: u64, kind: u8) -> Option<Sight> {
        if self.slots.insert(hash, minutes) == Placed::Lost {
            return None;
        }
        let mut rest = [kind; WIDTH];
        let (minutes, group) = ((minutes as u32).to_be_bytes(), group.to_be_bytes());
        for (to, from) in rest.iter_mut().skip(1).zip(minutes.iter().chain(&group)) {
            *to = *from;
        }
        Some(Sight::new(self.slots.persistent(hash), &rest))
    }

    /// Groups known.
    pub fn groups(&self) -> u64 {
        self.groups.lock().len() as u64
    }

    /// Domains known, summed over all groups, and one more for each group.
    pub fn known(&self) -> u64 {
        self.slots.known()
    }

    /// Domains not noted because a group or the number of groups was at its limit, since start.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Domains that could not be queued for saving, since start.
    pub fn unsaved(&self) -> u64 {
        self.unsaved.load(Ordering::Relaxed)
    }

    /// Takes one sight of the index; [`GroupSeen::loaded`] ends this.
    pub(super) fn load(&self, sight: &Sight) {
        let Some((kind, minutes, group)) = parts(sight) else { return };
        let mut groups = self.groups.lock();
        if !groups.contains_key(&group) && groups.len() >= self.limits.0 {
            return;
        }
        let domains = groups.entry(group).or_insert(0);
        if kind == DOMAIN {
            *domains = domains.saturating_add(1);
        }
        self.slots.insert(sight.key(), minutes);
    }

    /// Whether a sight of the index is held.
    pub(super) fn holds(&self, sight: &Sight) -> bool {
        parts(sight).is_some_and(|(_, minutes, _)| self.slots.find(sight.key()) == Some(minutes))
    }

    /// Everything the index had is here.
    pub(super) fn loaded(&self) {
        self.loaded.store(true, Ordering::Release);
    }

    /// The root stands for the group itself: it is nobody's registrable domain.
    fn hash(&self, group: &str, domain: NameRef<'_>) -> u64 {
        self.key.hash_pair(group.as_bytes(), domain.as_wire())
    }
}

/// Kind, minutes, hash of the group.
fn parts(sight: &Sight) -> Option<(u8, u64, u64)> {
    let [kind, a, b, c, d, group @ ..] = <[u8; WIDTH]>::try_from(sight.rest()).ok()?;
    let minutes = u64::from(u32::from_be_bytes([a, b, c, d])).clamp(1, TIME_MASK);
    Some((kind, minutes, u64::from_be_bytes(group)))
}

impl std::fmt::Debug for GroupSeen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GroupSeen").field("groups", &self.groups()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, sync_channel};

    use staunch_scoring::NameBuf;

    use super::*;
    use crate::store::slots::EPOCH_MS;

    const DAY: u64 = 86_400_000;
    const START: u64 = EPOCH_MS + 2_000 * DAY;

    fn table(limits: (usize, u32)) -> (GroupSeen, Receiver<Message>) {
        let (sender, receiver) = sync_channel(10_000);
        (GroupSeen::with_limits(64, limits, [7; 16], Duration::from_millis(7 * DAY), sender), receiver)
    }

    fn domain(text: &str) -> NameBuf {
        NameBuf::from_text(text).unwrap()
    }

    fn days(n: u64) -> Option<Duration> {
        Some(Duration::from_millis(n * DAY))
    }

    #[test]
    fn each_group_warms_up_by_itself_and_ages_are_its_own() {
        let (seen, _receiver) = table((8, 100));
        let (a, b) = (domain("a.example"), domain("b.example"));
        seen.saw("team", a.as_ref(), START);
        assert_eq!(seen.known(), 0, "not loaded yet");
        seen.loaded();
        seen.saw("team", a.as_ref(), START);
        assert_eq!(seen.first_seen("team", a.as_ref(), START + 7 * DAY - 60_000), None, "warming up");
        assert_eq!(seen.first_seen("team", a.as_ref(), START + 8 * DAY), days(8));
        assert_eq!(seen.first_seen("team", b.as_ref(), START + 8 * DAY), days(0), "new to this group");
        assert_eq!(seen.first_seen("other", a.as_ref(), START + 8 * DAY), None, "a group that has used nothing");
        seen.saw("other", a.as_ref(), START + 6 * DAY);
        assert_eq!(seen.first_seen("other", a.as_ref(), START + 8 * DAY), None, "another group's time does not count");
        assert_eq!(seen.first_seen("other", a.as_ref(), START + 13 * DAY), days(7));
        seen.saw("team", a.as_ref(), START + 9 * DAY);
        assert_eq!(seen.first_seen("team", a.as_ref(), START + 10 * DAY), days(10), "seen again changes nothing");
    }

    #[test]
    fn what_is_saved_loads_again() {
        let (seen, receiver) = table((8, 100));
        seen.loaded();
        for group in ["x", "y"] {
            for n in 0..50 {
                seen.saw(group, domain(&format!("d{n}.example")).as_ref(), START + n * DAY);
            }
        }
        let (again, _receiver) = table((8, 60));
        while let Ok(Message::Saw(Tree::GroupSeen, sight)) = receiver.try_recv() {
            again.load(&sight);
            assert!(again.holds(&sight));
        }
        for garbage in [&b""[..], b"abc", &[1; 12]] {
            again.load(&Sight::new(1, garbage));
            assert!(!again.holds(&Sight::new(1, garbage)));
        }
        again.loaded();
        assert_eq!((again.groups(), again.known()), (2, 102), "50 domains and a birth for each");
        for n in 0..50 {
            let name = domain(&format!("d{n}.example"));
            assert_eq!(again.first_seen("y", name.as_ref(), START + 100 * DAY), days(100 - n), "d{n}");
        }
        // Counts came back too: ten more and the group is full.
        for n in 50..70 {
            again.saw("x", domain(&format!("d{n}.example")).as_ref(), START + 60 * DAY);
        }
        assert_eq!(again.refused(), 10);
    }

    #[test]
    fn a_flood_stays_in_its_group_and_further_groups_have_no_ages() {
        let (seen, _receiver) = table((2, 10));
        seen.loaded();
        seen.saw("calm", domain("old.example").as_ref(), START);
        for n in 0..5_000 {
            seen.saw("noisy", domain(&format!("n{n}.example")).as_ref(), START + DAY);
        }
        assert_eq!((seen.known(), seen.refused()), (13, 4_990), "two births, one domain, ten of the flood");
        assert_eq!(seen.first_seen("calm", domain("old.example").as_ref(), START + 9 * DAY), days(9));
        let past = domain("n4000.example");
        assert_eq!(seen.first_seen("noisy", past.as_ref(), START + 9 * DAY), days(0), "past the limit it stays new");
        seen.saw("third", domain("old.example").as_ref(), START);
        assert_eq!(seen.first_seen("third", domain("old.example").as_ref(), START + 9 * DAY), None);
        assert_eq!(seen.refused(), 4_991);
    }
}
