//! What is known of parents: found once, kept for a time, shared by all sessions of a partition.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::{Equivalent, HashMap};
use parking_lot::Mutex;
use staunch_scoring::{NameRef, QName};
use tokio::sync::OnceCell;

use super::{Kind, TYPES};
use crate::model::Qtype;
use crate::partition::Partition;

/// A sibling's answer that holds for every name below the same parent.
#[derive(Debug, Clone)]
pub struct Proof {
    /// The sibling.
    pub name: QName,
    /// The upstream's response to it, not vetted: every name it is used for is vetted on its own.
    pub response: Arc<[u8]>,
    /// When it came, monotonic milliseconds.
    pub stored: u64,
}

/// What was found, and until when it holds.
#[derive(Debug, Clone)]
pub struct Finding {
    /// What.
    pub kind: Kind,
    /// Monotonic milliseconds; the TTL of the answers for a wildcard.
    pub until: u64,
    /// The answer to give, where `kind` is [`Kind::Wildcard`].
    pub proof: Option<Proof>,
}

/// One parent and type: empty while siblings are being asked, so that whoever needs the same waits for it.
pub type Cell = OnceCell<Finding>;

/// What happened, since start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Siblings asked.
    pub asked: AtomicU64,
    /// Questions answered without the session's name.
    pub answered: AtomicU64,
    /// Suspicious names for which no sibling could be asked: the session's number or its ledger was spent.
    pub denied: AtomicU64,
    /// Parents forgotten to make room.
    pub evicted: AtomicU64,
    /// Findings, by [`Kind`] in the order of [`Kind::ALL`].
    pub found: [AtomicU64; Kind::ALL.len()],
}

impl Counters {
    /// Adds one.
    pub fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a finding.
    pub fn found(&self, kind: Kind) {
        Self::add(&self.found[kind as usize]);
    }
}

/// A parent as kept, for the sessions of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Parent {
    partition: Partition,
    /// Wire octets.
    name: Arc<[u8]>,
}

/// The same, borrowed.
struct Sought<'n>(Partition, NameRef<'n>);

impl Hash for Parent {
    fn hash<H: Hasher>(&self, to: &mut H) {
        (self.partition, &self.name[..]).hash(to);
    }
}

impl Hash for Sought<'_> {
    fn hash<H: Hasher>(&self, to: &mut H) {
        (self.0, self.1.as_wire()).hash(to);
    }
}

impl Equivalent<Parent> for Sought<'_> {
    fn equivalent(&self, parent: &Parent) -> bool {
        self.0 == parent.partition && self.1.as_wire() == &parent.name[..]
    }
}

#[derive(Debug, Default)]
struct Rows {
    by_parent: HashMap<Parent, [Option<Arc<Cell>>; TYPES.len()], foldhash::quality::RandomState>,
    /// In the order in which they came.
    order: VecDeque<Parent>,
}

/// Findings of all parents.
///
/// Capacity: [`Table::CAPACITY`] parents of four types, each with one response of at most [`Table::MAX_RESPONSE`]
/// octets. The parent that came first is forgotten first. Filling it takes many sessions, since each may have few
/// parents tried in an hour; all it gains is that siblings of the forgotten ones are asked again.
#[derive(Debug)]
pub struct Table {
    rows: Mutex<Rows>,
    capacity: usize,
    /// What happened.
    pub counters: Counters,
}

impl Table {
    /// Parents kept.
    pub const CAPACITY: usize = 2048;
    /// Longest response kept, octets. Above what answers of host names take.
    pub const MAX_RESPONSE: usize = 2048;

    /// Forgets all findings (after a change of what an answer may hold).
    pub fn clear(&self) {
        let mut rows = self.rows.lock();
        rows.by_parent.clear();
        rows.order.clear();
    }

    /// An empty table with room for `capacity` parents, at least one.
    pub fn new(capacity: usize) -> Self {
        Self { rows: Mutex::default(), capacity: capacity.max(1), counters: Counters::default() }
    }

    /// What is known and holds at `now`; `None` where siblings are to be asked or waited for. Allocates nothing.
    pub fn standing(&self, partition: Partition, parent: NameRef<'_>, qtype: Qtype, now: u64) -> Option<Kind> {
        let at = TYPES.iter().position(|t| *t == qtype)?;
        let rows = self.rows.lock();
        let finding = rows.by_parent.get(&Sought(partition, parent))?.get(at)?.as_ref()?.get()?;
        (now < finding.until).then_some(finding.kind)
    }

    /// The place of a finding: one that holds at `now` or is being made, else a new one. `None` for a type that no
    /// sibling stands in for.
    pub fn cell(&self, partition: Partition, parent: NameRef<'_>, qtype: Qtype, now: u64) -> Option<Arc<Cell>> {
        let at = TYPES.iter().position(|t| *t == qtype)?;
        let mut rows = self.rows.lock();
        if let Some(row) = rows.by_parent.get_mut(&Sought(partition, parent)) {
            let kept = row[at].as_ref().filter(|cell| cell.get().is_none_or(|finding| now < finding.until));
            if let Some(kept) = kept {
                return Some(kept.clone());
            }
            let fresh = Arc::<Cell>::default();
            row[at] = Some(fresh.clone());
            return Some(fresh);
        }
        if rows.order.len() >= self.capacity
            && let Some(oldest) = rows.order.pop_front()
        {
            rows.by_parent.remove(&oldest);
            Counters::add(&self.counters.evicted);
        }
        let fresh = Arc::<Cell>::default();
        let mut row = [const { None }; TYPES.len()];
        row[at] = Some(fresh.clone());
        let parent = Parent { partition, name: parent.as_wire().into() };
        rows.order.push_back(parent.clone());
        rows.by_parent.insert(parent, row);
        Some(fresh)
    }

    /// Parents held.
    pub fn len(&self) -> usize {
        self.rows.lock().order.len()
    }

    /// Whether none is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Default for Table {
    fn default() -> Self {
        Self::new(Self::CAPACITY)
    }
}

#[cfg(test)]
mod tests {
    use staunch_scoring::NameBuf;

    use super::*;

    fn finding(kind: Kind, until: u64) -> Finding {
        Finding { kind, until, proof: None }
    }

    fn name(text: &str) -> NameBuf {
        NameBuf::from_text(text).expect("name")
    }

    #[test]
    fn a_finding_holds_for_its_time_and_its_type() {
        let table = Table::default();
        let parent = name("x.example");
        assert_eq!(table.standing(Partition::ALL, parent.as_ref(), Qtype::A, 0), None);
        let cell = table.cell(Partition::ALL, parent.as_ref(), Qtype::A, 0).expect("a type with siblings");
        let same = table.cell(Partition::ALL, parent.as_ref(), Qtype::A, 0).expect("the same");
        assert!(Arc::ptr_eq(&cell, &same), "who comes meanwhile waits for the same finding");
        assert_eq!(table.standing(Partition::ALL, parent.as_ref(), Qtype::A, 0), None, "nothing found yet");
        cell.set(finding(Kind::Plain, 500)).expect("empty");
        for (now, known) in [(0, Some(Kind::Plain)), (499, Some(Kind::Plain)), (500, None)] {
            assert_eq!(table.standing(Partition::ALL, parent.as_ref(), Qtype::A, now), known, "at {now}");
        }
        assert_eq!(table.standing(Partition::ALL, parent.as_ref(), Qtype::AAAA, 0), None);
        assert_eq!(table.standing(Partition::ALL, name("y.example").as_ref(), Qtype::A, 0), None);
        let later = table.cell(Partition::ALL, parent.as_ref(), Qtype::A, 500).expect("a new one");
        assert!(!Arc::ptr_eq(&cell, &later) && later.get().is_none());
        assert!(table.cell(Partition::ALL, parent.as_ref(), Qtype::MX, 0).is_none());
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn the_oldest_parent_makes_room_and_is_counted() {
        let table = Table::new(8);
        for i in 0..100 {
            let parent = name(&format!("p{i}.example"));
            for qtype in TYPES {
                let cell = table.cell(Partition::ALL, parent.as_ref(), qtype, 0).expect("a cell");
                cell.set(finding(Kind::Differs, 1000)).expect("empty");
            }
            assert!(table.len() <= 8);
        }
        assert_eq!(table.counters.evicted.load(Ordering::Relaxed), 92);
        assert_eq!(table.standing(Partition::ALL, name("p99.example").as_ref(), Qtype::HTTPS, 0), Some(Kind::Differs));
        assert_eq!(table.standing(Partition::ALL, name("p91.example").as_ref(), Qtype::A, 0), None);
    }
}
