//! What all sessions of one group have told the outside by names new to the group.
//!
//! A leak that is spread over many sessions stays below each one's limits; together they are one sender. A name costs
//! the group once, whichever of its sessions sends it first: sessions of one image do the same work, and what the group
//! has told before is not told again. What a later session tells by choosing among the group's names is paid by that
//! session alone.
//!
//! Unlike a session, a group does not end, so its limit is one for 24 hours: the spending of the current hour and the 23
//! before it. Knows no clock: `wall` is handed in.

mod wire;

use std::hash::BuildHasher;

use foldhash::quality::FixedState;

use crate::bits::Bits;
use crate::ledger::fingerprints::Fingerprints;
use crate::name::NameRef;

/// Names a group is remembered to have sent, newest generation and the one before. When a generation is full the older one
/// is forgotten: a forgotten name costs again, so nothing is refunded, and a group never stays full.
pub const MAX_GROUP_NAMES: usize = 16_200;
const GENERATION: usize = MAX_GROUP_NAMES / 2;

/// Hours a group's spending counts.
const HOURS: usize = 24;
const HOUR_MS: u64 = 3_600_000;

/// What a group knows of one name, for [`crate::Facts`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct GroupFacts {
    /// Whether some session of the group has sent this name.
    pub known: bool,
    /// Spent within 24 hours.
    pub spent: Bits,
}

/// One group's ledger: at most 150 KiB, under 1 KiB before its first name.
#[derive(Debug, Clone)]
pub struct GroupState {
    seed: u64,
    names: Fingerprints<GENERATION>,
    /// Names of the generation before.
    older: Fingerprints<GENERATION>,
    /// Spent in each hour, by hour modulo [`HOURS`].
    hours: [Bits; HOURS],
    /// The hour that was booked last, since the Unix epoch.
    hour: u64,
}

impl GroupState {
    /// A group that has sent nothing. `seed` keys its hashes: random, and unknown to its sessions.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            names: Fingerprints::default(),
            older: Fingerprints::default(),
            hours: [Bits::ZERO; HOURS],
            hour: 0,
        }
    }

    /// What the group knows of `name` at `wall` (milliseconds since the Unix epoch).
    pub fn facts(&self, name: NameRef<'_>, wall: u64) -> GroupFacts {
        GroupFacts { known: self.knows(self.hash(name)), spent: self.spent(wall) }
    }

    /// Spent within 24 hours before `wall`, to the hour.
    pub fn spent(&self, wall: u64) -> Bits {
        let now = (wall / HOUR_MS).max(self.hour);
        let gone = usize::try_from(now - self.hour).unwrap_or(HOURS).min(HOURS);
        // Hours that have passed without a booking still hold what was booked a day earlier.
        let stale = |at: usize| (1..=gone).any(|after| (self.hour as usize + after) % HOURS == at);
        self.hours.iter().enumerate().filter(|(at, _)| !stale(*at)).fold(Bits::ZERO, |sum, (_, bits)| sum.plus(*bits))
    }

    /// Books a name that one of the group's sessions forwarded for `charge` ([`crate::Charge::group`]).
    pub fn book(&mut self, name: NameRef<'_>, charge: Bits, wall: u64) {
        // A clock that was set back books to the last hour it has shown.
        let now = (wall / HOUR_MS).max(self.hour);
        for after in 1..=(now - self.hour).min(HOURS as u64) {
            self.hours[(self.hour + after) as usize % HOURS] = Bits::ZERO;
        }
        self.hour = now;
        let slot = &mut self.hours[now as usize % HOURS];
        *slot = slot.plus(charge);
        self.remember(self.hash(name));
    }

    /// Distinct names the group has sent.
    pub fn names(&self) -> usize {
        self.names.len() + self.older.len()
    }

    /// Octets this state takes, heap included.
    pub fn size(&self) -> usize {
        size_of::<Self>() + self.names.heap_size() + self.older.heap_size()
    }

    /// Everything, in the form a store keeps.
    pub fn snapshot(&self) -> GroupSnapshot {
        GroupSnapshot {
            seed: self.seed,
            check: check(self.seed),
            hour: self.hour,
            hours: self.hours.to_vec(),
            names: self.older.iter().chain(self.names.iter()).collect(),
        }
    }

    /// What was spent, without the names: small, and enough to never hand a bit back. Restored alone, every name costs
    /// the group again.
    pub fn spending(&self) -> GroupSnapshot {
        GroupSnapshot {
            seed: self.seed,
            check: check(self.seed),
            hour: self.hour,
            hours: self.hours.to_vec(),
            names: Vec::new(),
        }
    }

    /// The state a snapshot was made of. If the hash has changed since, the names are forgotten, so each costs again.
    pub fn restore(snapshot: &GroupSnapshot) -> Self {
        let mut state = Self::new(snapshot.seed);
        state.hour = snapshot.hour;
        for (into, from) in state.hours.iter_mut().zip(&snapshot.hours) {
            *into = *from;
        }
        if snapshot.check == check(snapshot.seed) {
            snapshot.names.iter().for_each(|name| state.remember(*name));
        }
        state
    }

    fn knows(&self, name: u64) -> bool {
        self.names.contains(name) || self.older.contains(name)
    }

    fn remember(&mut self, name: u64) {
        if self.knows(name) {
            return;
        }
        if self.names.is_full() {
            self.older = std::mem::take(&mut self.names);
        }
        self.names.insert(name);
    }

    fn hash(&self, name: NameRef<'_>) -> u64 {
        FixedState::with_seed(self.seed).hash_one(name.as_wire())
    }
}

fn check(seed: u64) -> u64 {
    FixedState::with_seed(seed).hash_one(b"\x05group\x07example\x00".as_slice())
}

/// [`GroupState`] in the form a store keeps. Holds hashes, no names.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GroupSnapshot {
    seed: u64,
    check: u64,
    hour: u64,
    hours: Vec<Bits>,
    names: Vec<u64>,
}

impl GroupSnapshot {
    /// What two snapshots of one group say together: at least what either says was spent, and the names of both; where
    /// their hashes have different keys, of the one that knows more.
    pub fn merge(self, other: Self) -> Self {
        let (mut newer, mut older) = if self.hour >= other.hour { (self, other) } else { (other, self) };
        newer.hours.resize(HOURS, Bits::ZERO);
        for back in 0..HOURS as u64 {
            let Some(hour) = newer.hour.checked_sub(back) else { break };
            let told = older.spent_in(hour);
            if let Some(slot) = newer.hours.get_mut((hour % HOURS as u64) as usize) {
                *slot = (*slot).max(told);
            }
        }
        if (newer.seed, newer.check) == (older.seed, older.check) {
            newer.names.append(&mut older.names);
            newer.names.sort_unstable();
            newer.names.dedup();
        } else if older.names.len() > newer.names.len() {
            (newer.seed, newer.check, newer.names) = (older.seed, older.check, older.names);
        }
        newer
    }

    /// Whether it knows names, or spending alone.
    pub fn has_names(&self) -> bool {
        !self.names.is_empty()
    }

    fn spent_in(&self, hour: u64) -> Bits {
        match self.hour.checked_sub(hour) {
            Some(back) if back < HOURS as u64 => {
                self.hours.get((hour % HOURS as u64) as usize).copied().unwrap_or(Bits::ZERO)
            }
            _ => Bits::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::NameBuf;

    fn name(i: usize) -> NameBuf {
        NameBuf::from_text(&format!("n{i}.example")).expect("name")
    }

    #[test]
    fn spending_counts_for_a_day() {
        let mut group = GroupState::new(7);
        let start = 1_000_000 * HOUR_MS;
        for hour in 0..30 {
            group.book(name(hour).as_ref(), Bits::whole(10), start + hour as u64 * HOUR_MS);
        }
        let last = start + 29 * HOUR_MS;
        assert_eq!(group.spent(last), Bits::whole(240), "24 hours of ten bits");
        assert_eq!(group.spent(last + 10 * HOUR_MS), Bits::whole(140));
        assert_eq!(group.spent(last + 24 * HOUR_MS), Bits::ZERO);
        assert_eq!(group.spent(0), Bits::whole(240), "a clock that was set back refunds nothing");
        group.book(name(99).as_ref(), Bits::whole(1), last + 100 * HOUR_MS);
        assert_eq!(group.spent(last + 100 * HOUR_MS), Bits::whole(1));
    }

    #[test]
    fn a_name_is_known_to_all_and_over_a_restart() {
        let mut group = GroupState::new(7);
        assert!(!group.facts(name(1).as_ref(), 0).known);
        group.book(name(1).as_ref(), Bits::whole(50), 5 * HOUR_MS);
        let again = GroupState::restore(&group.snapshot());
        assert!(again.facts(name(1).as_ref(), 5 * HOUR_MS).known);
        assert_eq!(again.spent(6 * HOUR_MS), Bits::whole(50));
        let mut other = group.snapshot();
        other.check ^= 1;
        assert!(!GroupState::restore(&other).facts(name(1).as_ref(), 0).known);
        assert_eq!(GroupState::restore(&other).spent(6 * HOUR_MS), Bits::whole(50));
    }

    #[test]
    fn snapshots_are_merged_and_nothing_is_handed_back() {
        let mut group = GroupState::new(7);
        group.book(name(1).as_ref(), Bits::whole(50), 30 * HOUR_MS);
        let full = group.snapshot();
        group.book(name(2).as_ref(), Bits::whole(20), 30 * HOUR_MS);
        group.book(name(3).as_ref(), Bits::whole(5), 33 * HOUR_MS);
        let spending = group.spending();
        assert!(full.has_names() && !spending.has_names());
        for merged in [full.clone().merge(spending.clone()), spending.clone().merge(full.clone())] {
            let merged = GroupState::restore(&merged);
            assert_eq!(merged.spent(33 * HOUR_MS), Bits::whole(75));
            assert_eq!(merged.spent(54 * HOUR_MS), Bits::whole(5), "hours stay where they were");
            assert!(merged.facts(name(1).as_ref(), 0).known && !merged.facts(name(3).as_ref(), 0).known);
            assert_eq!(merged.names(), 1);
        }
        let mut other = GroupState::new(8);
        other.book(name(9).as_ref(), Bits::whole(1), 90 * HOUR_MS);
        let merged = GroupState::restore(&full.merge(other.spending()));
        assert!(merged.facts(name(1).as_ref(), 0).known, "the names of the one that knows some");
        assert_eq!(merged.spent(90 * HOUR_MS), Bits::whole(1), "what is older than a day has ended");
        let odd = GroupSnapshot { hour: u64::MAX, hours: vec![Bits::whole(1); 30], ..GroupSnapshot::default() };
        let merged = odd.merge(spending);
        assert_eq!(GroupState::restore(&merged).spent(0), Bits::whole(24), "whatever a file says");
    }

    #[test]
    fn a_group_is_bounded() {
        let mut group = GroupState::new(7);
        for i in 0..MAX_GROUP_NAMES + 500 {
            group.book(name(i).as_ref(), Bits::whole(1), 0);
        }
        assert!(group.names() > GENERATION && group.names() <= MAX_GROUP_NAMES, "{}", group.names());
        assert!(group.facts(name(MAX_GROUP_NAMES + 499).as_ref(), 0).known, "the newest are known");
        assert!(!group.facts(name(0).as_ref(), 0).known, "the oldest cost again");
        assert!(group.size() <= 150 * 1024, "{}", group.size());
    }
}
