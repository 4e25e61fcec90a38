//! Ledgers of groups: what all sessions of one owner have told the outside together.
//!
//! Beside [`super::Sessions`]. A session belongs to the group of the owner it was announced with; one without an owner
//! belongs to none. Knows no policy and no clock.
//!
//! A group's ledger stands behind a mutex of its own, always taken behind its session's and never the other way round,
//! for one decision: from the facts to the booking, so that two sessions that ask in the same moment cannot both spend
//! what is left. It is not taken for questions that do not leave.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::quality::RandomState;
use hashbrown::HashMap;
use parking_lot::{Mutex, RwLock};
use staunch_scoring::{Bits, GroupFacts, GroupSnapshot, GroupState, NameRef};

/// Most groups with a ledger of their own. One takes 1 KiB, and 150 KiB once it has sent 16,200 names. Only the runtime
/// that announces sessions can make more.
pub const MAX_GROUPS: usize = 4096;

/// Between two searches of a full table for groups that can be forgotten, milliseconds.
const SWEEP_MS: u64 = 60_000;

/// How much may be spent between two notes in the journal: what a crash could hand back to a group or a session.
const STEP: Bits = Bits::whole(64);

/// The step of one that has spent so much in all: a 256th where that is more. Limits are far below the sum at which it
/// matters; in monitor mode, where nothing is withheld, a flood would otherwise write a ledger for every name.
fn journal_step(spent: Bits) -> Bits {
    STEP.max(Bits::from_steps(spent.steps() / 256))
}

/// How old the store's knowledge of a group's names may be, milliseconds. A name it does not know costs again.
const NAMES_MS: u64 = 60_000;

/// One group.
#[derive(Debug)]
pub struct Group {
    owner: Arc<str>,
    /// When it was last asked for, milliseconds since the Unix epoch.
    used: AtomicU64,
    /// Its ledger.
    pub ledger: Mutex<GroupLedger>,
}

/// What a group has spent, and what the store knows of it.
#[derive(Debug)]
pub struct GroupLedger {
    state: GroupState,
    /// Spent since the journal was last told.
    unstored: Bits,
    /// Whether anything was booked since the index was last told.
    changed: bool,
    /// Whether names were added since the index was last told names, and when that was.
    names_changed: bool,
    names_told: u64,
}

impl Group {
    fn new(owner: Arc<str>, state: GroupState) -> Self {
        let ledger = GroupLedger { state, unstored: Bits::ZERO, changed: false, names_changed: false, names_told: 0 };
        Self { owner, used: AtomicU64::new(0), ledger: Mutex::new(ledger) }
    }

    /// Whose sessions it holds; empty for the one that groups share which found no room.
    pub fn owner(&self) -> &str {
        &self.owner
    }
}

impl GroupLedger {
    /// What the scorer is told of a name.
    pub fn facts(&self, name: NameRef<'_>, wall: u64) -> GroupFacts {
        self.state.facts(name, wall)
    }

    /// Spent within 24 hours before `wall`.
    pub fn spent(&self, wall: u64) -> Bits {
        self.state.spent(wall)
    }

    /// Distinct names that were sent.
    pub fn names(&self) -> usize {
        self.state.names()
    }

    /// Books a name that was forwarded. Gives what the journal is to be told, where enough was spent since it was.
    #[must_use = "the journal is to be told"]
    pub fn book(&mut self, name: NameRef<'_>, charge: Bits, wall: u64) -> Option<GroupSnapshot> {
        let names = self.state.names();
        self.state.book(name, charge, wall);
        self.names_changed |= self.state.names() != names;
        self.changed |= charge > Bits::ZERO;
        self.unstored = self.unstored.plus(charge);
        (self.unstored >= journal_step(self.state.spent(wall))).then(|| {
            self.unstored = Bits::ZERO;
            self.state.spending()
        })
    }

    /// What the index is to be told: spending whenever it has changed, names too once they have waited long enough or
    /// where this is the `last` time.
    pub fn unsaved(&mut self, wall: u64, last: bool) -> Option<GroupSnapshot> {
        if self.names_changed && (last || wall.saturating_sub(self.names_told) >= NAMES_MS) {
            (self.changed, self.names_changed, self.names_told) = (false, false, wall);
            return Some(self.state.snapshot());
        }
        std::mem::take(&mut self.changed).then(|| self.state.spending())
    }
}

/// All groups, by owner.
///
/// Capacity: `limit`. At the limit those that have spent nothing within 24 hours are forgotten, the least recently used
/// first; where there is none, further groups share one ledger. Nobody gets spending back that way: what is forgotten
/// had all its budget, and what is shared has less.
#[derive(Debug)]
pub struct Groups {
    table: RwLock<HashMap<Arc<str>, Arc<Group>, RandomState>>,
    shared: Arc<Group>,
    limit: usize,
    swept: AtomicU64,
    crowded: AtomicU64,
}

impl Groups {
    /// An empty table for `limit` groups. `seed` keys the hashes of the shared one.
    pub fn new(limit: usize, seed: u64) -> Self {
        Self {
            table: RwLock::default(),
            shared: Arc::new(Group::new("".into(), GroupState::new(seed))),
            limit,
            swept: AtomicU64::new(0),
            crowded: AtomicU64::new(0),
        }
    }

    /// The group of an owner, made where it is not known; `seed` keys its hashes.
    pub fn join(&self, owner: &str, wall: u64, seed: impl FnOnce() -> u64) -> Arc<Group> {
        if let Some(group) = self.table.read().get(owner) {
            group.used.fetch_max(wall, Ordering::Relaxed);
            return group.clone();
        }
        let mut table = self.table.write();
        if !table.contains_key(owner) && table.len() >= self.limit {
            self.sweep(&mut table, wall);
            if table.len() >= self.limit {
                self.crowded.fetch_add(1, Ordering::Relaxed);
                return self.shared.clone();
            }
        }
        let owner: Arc<str> = owner.into();
        let new = || Arc::new(Group::new(owner.clone(), GroupState::new(seed())));
        let group = table.entry(owner.clone()).or_insert_with(new).clone();
        group.used.fetch_max(wall, Ordering::Relaxed);
        group
    }

    /// The group that an owner's questions are booked to now; `None` where the first one would make it.
    pub fn find(&self, owner: &str) -> Option<Arc<Group>> {
        let table = self.table.read();
        match table.get(owner) {
            Some(group) => Some(group.clone()),
            None => (table.len() >= self.limit).then(|| self.shared.clone()),
        }
    }

    /// Makes room for an eighth of the table, at most once a minute: it looks at every group.
    fn sweep(&self, table: &mut HashMap<Arc<str>, Arc<Group>, RandomState>, wall: u64) {
        let swept = self.swept.load(Ordering::Relaxed);
        if swept != 0 && wall < swept.saturating_add(SWEEP_MS) {
            return;
        }
        self.swept.store(wall.max(1), Ordering::Relaxed);
        // A group somebody holds is about to be booked to; one that spent nothing loses nothing.
        let idle = |group: &Arc<Group>| Arc::strong_count(group) == 1 && group.ledger.lock().spent(wall) == Bits::ZERO;
        let mut free: Vec<(u64, Arc<str>)> = table
            .iter()
            .filter(|(_, group)| idle(group))
            .map(|(owner, group)| (group.used.load(Ordering::Relaxed), owner.clone()))
            .collect();
        free.sort_unstable();
        for (_, owner) in free.iter().take(self.limit.div_ceil(8)) {
            table.remove(owner);
        }
    }

    /// Gives a group back what it had spent when the process ended. One that has spent anything is taken beyond the limit.
    pub fn restore(&self, owner: &str, snapshot: &GroupSnapshot, wall: u64) {
        let state = GroupState::restore(snapshot);
        if owner.is_empty() {
            self.shared.ledger.lock().state = state;
            return;
        }
        let mut table = self.table.write();
        if table.len() < self.limit || state.spent(wall) > Bits::ZERO {
            let owner: Arc<str> = owner.into();
            table.insert(owner.clone(), Arc::new(Group::new(owner, state)));
        }
    }

    /// All of them, the shared one last.
    pub fn all(&self) -> Vec<Arc<Group>> {
        let mut all: Vec<_> = self.table.read().values().cloned().collect();
        all.push(self.shared.clone());
        all
    }

    /// Groups with a ledger of their own.
    pub fn len(&self) -> usize {
        self.table.read().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Questions that were judged by the shared ledger for want of room.
    pub fn crowded(&self) -> u64 {
        self.crowded.load(Ordering::Relaxed)
    }

    /// The ledger that groups share which found no room.
    pub fn shared(&self) -> &Group {
        &self.shared
    }
}

#[cfg(test)]
mod tests {
    use staunch_scoring::NameBuf;

    use super::*;

    const HOUR: u64 = 3_600_000;

    fn name(i: usize) -> NameBuf {
        NameBuf::from_text(&format!("n{i}.example")).expect("name")
    }

    fn book(group: &Group, i: usize, bits: u32, wall: u64) -> Option<GroupSnapshot> {
        group.ledger.lock().book(name(i).as_ref(), Bits::whole(bits), wall)
    }

    #[test]
    fn sessions_of_one_owner_share_a_ledger() {
        let groups = Groups::new(8, 1);
        assert!(groups.find("a").is_none(), "looking makes nothing");
        drop(book(&groups.join("a", 0, || 1), 1, 10, 0));
        drop(book(&groups.join("a", 0, || 2), 2, 10, 0));
        assert_eq!(groups.find("a").expect("known").ledger.lock().spent(0), Bits::whole(20));
        assert_eq!(groups.join("b", 0, || 3).ledger.lock().spent(0), Bits::ZERO);
        assert_eq!(groups.len(), 2);
    }

    #[test]
    fn at_the_limit_those_that_spent_nothing_make_room_and_else_a_ledger_is_shared() {
        let groups = Groups::new(2, 1);
        drop(book(&groups.join("a", 0, || 1), 1, 10, 0));
        groups.join("idle", 5, || 1);
        // The idle one goes, the spender stays.
        drop(book(&groups.join("b", 10, || 1), 1, 10, 10));
        assert_eq!((groups.len(), groups.crowded()), (2, 0));
        for owner in ["c", "d"] {
            drop(book(&groups.join(owner, 20, || 1), 2, 30, 20));
        }
        assert_eq!(groups.shared().ledger.lock().spent(20), Bits::whole(60), "both are booked to one");
        assert_eq!(groups.find("e").expect("shared").owner(), "");
        assert_eq!((groups.len(), groups.crowded()), (2, 2));
        // A day later they have their budget back and may be forgotten.
        assert_eq!(groups.join("f", 25 * HOUR, || 1).owner(), "f");
        assert_eq!(groups.len(), 2);
        assert_eq!(groups.find("a").map(|g| g.owner().to_owned()), Some(String::new()), "a was used longest ago");
    }

    #[test]
    fn the_journal_hears_of_every_step_and_the_index_of_the_rest() {
        let groups = Groups::new(2, 1);
        let group = groups.join("a", 0, || 1);
        assert!(book(&group, 1, 63, 0).is_none());
        let step = book(&group, 2, 1, 0).expect("a step");
        assert!(!step.has_names(), "a journal line stays small");
        assert!(book(&group, 3, 10, NAMES_MS).is_none());
        let mut ledger = group.ledger.lock();
        let full = ledger.unsaved(NAMES_MS, false).expect("changed");
        assert!(full.has_names());
        assert!(ledger.unsaved(NAMES_MS, false).is_none() && ledger.unsaved(NAMES_MS, true).is_none());
        drop(ledger.book(name(4).as_ref(), Bits::whole(2), NAMES_MS + 1));
        let rest = ledger.unsaved(NAMES_MS + 1, false).expect("changed");
        assert!(!rest.has_names(), "names wait");
        assert!(ledger.unsaved(NAMES_MS + 1, true).expect("the last time").has_names());
        drop(ledger);

        let again = Groups::new(2, 9);
        again.restore("a", &full.merge(step).merge(rest), 0);
        let group = again.find("a").expect("restored");
        assert_eq!(group.ledger.lock().spent(0), Bits::whole(76));
        assert!(group.ledger.lock().facts(name(3).as_ref(), 0).known);
    }

    #[test]
    fn a_restore_forgets_no_spending() {
        let mut state = GroupState::new(3);
        state.book(name(1).as_ref(), Bits::whole(5), 0);
        let groups = Groups::new(1, 1);
        for owner in ["a", "b", ""] {
            groups.restore(owner, &state.snapshot(), 0);
        }
        groups.restore("idle", &GroupState::new(4).snapshot(), 0);
        assert_eq!(groups.len(), 2, "beyond the limit, where anything was spent");
        assert_eq!(groups.shared().ledger.lock().spent(0), Bits::whole(5));
    }
}
