//! First seen: since when this deployment knows a registrable domain. One half of the signal "domain age".
//!
//! Somebody who floods the table with new domains pushes out his own, and the worst he gains is that a young domain
//! looks new again (see [`super::slots`]).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use staunch_scoring::NameRef;

use super::index::Tree;
use super::index::sights::Sight;
use super::index::thread::Message;
use super::slots::{self, HashKey, Placed, Slots, TIME_MASK};

/// Buckets of sixteen: room for 2,097,152 domains in 16 MiB; among a million, fewer than one in a thousand finds its
/// bucket full.
const BUCKETS: usize = 1 << 17;

/// What a sight says besides its key: minutes.
pub(super) const WIDTH: usize = 4;

/// See the module. Shared by every thread.
pub struct FirstSeen {
    slots: Slots,
    key: HashKey,
    /// Unix milliseconds from which on ages are told.
    warm_from: u64,
    loaded: AtomicBool,
    saved: SyncSender<Message>,
    unsaved: AtomicU64,
}

impl FirstSeen {
    /// Ages are told `warm_up` after `created` (Unix milliseconds), once [`FirstSeen::load`] has ended.
    pub(super) fn new(key: [u8; 16], created: u64, warm_up: Duration, saved: SyncSender<Message>) -> Self {
        Self::with_buckets(BUCKETS, key, created, warm_up, saved)
    }

    fn with_buckets(
        buckets: usize,
        key: [u8; 16],
        created: u64,
        warm_up: Duration,
        saved: SyncSender<Message>,
    ) -> Self {
        let warm_up = u64::try_from(warm_up.as_millis()).unwrap_or(u64::MAX);
        Self {
            slots: Slots::new(buckets),
            key: HashKey::new(key),
            warm_from: created.saturating_add(warm_up),
            loaded: AtomicBool::new(false),
            saved,
            unsaved: AtomicU64::new(0),
        }
    }

    /// How long this deployment has known `domain` (registrable, canonical), to the minute. Zero for a domain it does
    /// not know; `None` while it has not run for its warm-up, when everything would look new. `now` is Unix
    /// milliseconds.
    pub fn first_seen(&self, domain: NameRef<'_>, now: u64) -> Option<Duration> {
        if now < self.warm_from || !self.loaded.load(Ordering::Acquire) {
            return None;
        }
        let seen = self.slots.find(self.hash(domain));
        Some(seen.map_or(Duration::ZERO, |minutes| slots::age(minutes, now)))
    }

    /// Notes that `domain` was used now, if it is new. To be called for domains that were answered, not for whatever
    /// is asked: a refused look-up must not age a name.
    pub fn saw(&self, domain: NameRef<'_>, now: u64) {
        let hash = self.hash(domain);
        // Before loading ends an old domain would be taken for a new one.
        if !self.loaded.load(Ordering::Acquire) || self.slots.find(hash).is_some() {
            return;
        }
        let minutes = slots::minutes(now);
        if self.slots.insert(hash, minutes) == Placed::Lost {
            return;
        }
        let sight = Sight::new(self.slots.persistent(hash), &(minutes as u32).to_be_bytes());
        // Not saved: the domain will look new after a restart, which errs on the safe side.
        if self.saved.try_send(Message::Saw(Tree::FirstSeen, sight)).is_err() {
            self.unsaved.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Domains known.
    pub fn known(&self) -> u64 {
        self.slots.known()
    }

    /// Domains forgotten because their bucket was full, since start.
    pub fn evicted(&self) -> u64 {
        self.slots.evicted()
    }

    /// Domains that could not be queued for saving, since start.
    pub fn unsaved(&self) -> u64 {
        self.unsaved.load(Ordering::Relaxed)
    }

    /// Takes one sight of the index; [`FirstSeen::loaded`] ends this.
    pub(super) fn load(&self, sight: &Sight) {
        if let Some(minutes) = minutes_of(sight) {
            self.slots.insert(sight.key(), minutes);
        }
    }

    /// Whether a sight of the index is held.
    pub(super) fn holds(&self, sight: &Sight) -> bool {
        minutes_of(sight).is_some_and(|minutes| self.slots.find(sight.key()) == Some(minutes))
    }

    /// Everything the index had is here.
    pub(super) fn loaded(&self) {
        self.loaded.store(true, Ordering::Release);
    }

    fn hash(&self, domain: NameRef<'_>) -> u64 {
        self.key.hash(domain.as_wire())
    }
}

impl std::fmt::Debug for FirstSeen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FirstSeen").field("known", &self.known()).finish_non_exhaustive()
    }
}

fn minutes_of(sight: &Sight) -> Option<u64> {
    let minutes = <[u8; WIDTH]>::try_from(sight.rest()).ok()?;
    Some(u64::from(u32::from_be_bytes(minutes)).clamp(1, TIME_MASK))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, sync_channel};

    use staunch_scoring::NameBuf;

    use super::*;
    use crate::store::slots::EPOCH_MS;

    const DAY: u64 = 86_400_000;
    const START: u64 = EPOCH_MS + 2_000 * DAY;

    fn table(buckets: usize, warm_days: u64, queue: usize) -> (FirstSeen, Receiver<Message>) {
        let (sender, receiver) = sync_channel(queue);
        let warm_up = Duration::from_millis(warm_days * DAY);
        (FirstSeen::with_buckets(buckets, [7; 16], START, warm_up, sender), receiver)
    }

    fn domain(text: &str) -> NameBuf {
        NameBuf::from_text(text).unwrap()
    }

    fn days(n: u64) -> Option<Duration> {
        Some(Duration::from_millis(n * DAY))
    }

    #[test]
    fn ages_are_told_after_the_warm_up_and_new_is_zero() {
        let (seen, _receiver) = table(64, 7, 100);
        let old = domain("old.example");
        assert_eq!(seen.first_seen(old.as_ref(), START + 30 * DAY), None, "not loaded yet");
        seen.loaded();
        seen.saw(old.as_ref(), START);
        assert_eq!(seen.first_seen(old.as_ref(), START + 7 * DAY - 1), None, "warming up");
        assert_eq!(seen.first_seen(old.as_ref(), START + 8 * DAY), days(8));
        assert_eq!(seen.first_seen(domain("new.example").as_ref(), START + 8 * DAY), days(0));
        seen.saw(old.as_ref(), START + 5 * DAY);
        assert_eq!(seen.first_seen(old.as_ref(), START + 8 * DAY), days(8), "seen again changes nothing");
        assert_eq!(seen.first_seen(old.as_ref(), START + 7 * DAY), days(7));
        assert_eq!(seen.first_seen(old.as_ref(), START.saturating_sub(DAY)), None, "clock set back");
    }

    #[test]
    fn what_is_saved_loads_again() {
        let (seen, receiver) = table(64, 0, 1_000);
        seen.loaded();
        for n in 0..400 {
            seen.saw(domain(&format!("d{n}.example")).as_ref(), START + n * DAY);
        }
        assert_eq!((seen.known(), seen.evicted(), seen.unsaved()), (400, 0, 0), "400 of 1,024 slots, no bucket full");
        let (again, _receiver) = table(64, 0, 1);
        while let Ok(Message::Saw(Tree::FirstSeen, sight)) = receiver.try_recv() {
            again.load(&sight);
            assert!(again.holds(&sight));
        }
        again.loaded();
        for n in 0..400 {
            let age = again.first_seen(domain(&format!("d{n}.example")).as_ref(), START + 500 * DAY);
            assert_eq!(age, days(500 - n), "d{n}");
        }
        for garbage in [&b""[..], b"abc", b"abcde"] {
            again.load(&Sight::new(1, garbage));
            assert!(!again.holds(&Sight::new(1, garbage)));
        }
        assert_eq!(again.known(), 400, "only a sight of the right form is taken");
    }

    #[test]
    fn a_flood_of_new_domains_pushes_out_young_ones_and_no_old_one() {
        let (seen, receiver) = table(8, 0, 100_000);
        seen.loaded();
        // At most half the slots, so that no bucket is full of old ones.
        let old: Vec<_> = (0..24).map(|n| domain(&format!("old{n}.example"))).collect();
        old.iter().for_each(|name| seen.saw(name.as_ref(), START));
        for n in 0..10_000 {
            seen.saw(domain(&format!("flood{n}.example")).as_ref(), START + DAY);
        }
        for name in &old {
            assert_eq!(seen.first_seen(name.as_ref(), START + 2 * DAY), days(2), "{name:?}");
        }
        assert_eq!(seen.known(), 128, "full");
        let sights: Vec<Sight> = receiver
            .try_iter()
            .filter_map(|message| if let Message::Saw(_, sight) = message { Some(sight) } else { None })
            .collect();
        let held = sights.iter().filter(|sight| seen.holds(sight)).count();
        assert_eq!(held, 128, "the index can tell what the table has forgotten");
        assert_eq!(sights.len() as u64, seen.known() + seen.evicted());
    }

    #[test]
    fn a_million_domains_fit() {
        let (seen, _receiver) = table(BUCKETS, 0, 1);
        for n in 0..1_000_000u64 {
            // The tags and places of a good hash are as good as random.
            let hash = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            seen.slots.insert((hash ^ hash >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9), 1);
        }
        assert!(seen.evicted() < 1_000, "{} lost their slot", seen.evicted());
    }

    #[test]
    fn a_full_queue_costs_only_the_saving() {
        let (seen, _receiver) = table(64, 0, 1);
        seen.loaded();
        for name in ["a.example", "b.example"] {
            seen.saw(domain(name).as_ref(), START);
            assert_eq!(seen.first_seen(domain(name).as_ref(), START + DAY), days(1));
        }
        assert_eq!(seen.unsaved(), 1);
    }
}
