//! Ledgers of sessions and groups on their way between the walk, the store and operators.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use staunch_scoring::{Bits, GroupFacts, GroupSnapshot, NameRef, StateSnapshot};

use super::Pipeline;
use crate::clock;
use crate::model::Now;
use crate::session::{Context, Group, Inner, Session};
use crate::sparing::Sparing;
use crate::store;

/// Groups named in the service's status, those that have spent most.
const SHOWN: usize = 10;

/// The owner whose sessions are one group; nobody else has one.
fn owner(context: &Context) -> Option<&str> {
    context.announcement.owner.as_deref()
}

/// Tells that the store did not take something. Where it does not, it does not for very many sessions at once.
pub(super) fn not_taken(told: &Sparing, error: &store::Error, what: &str) {
    if let Some(kept_back) = told.turn(clock::now().mono) {
        tracing::warn!(%error, kept_back, "{what}");
    }
}

impl Pipeline {
    /// Books what a session has been charged; once it is enough, the journal is told.
    pub(super) fn ledger_step(&self, session: &Session, inner: &mut Inner, charged: Bits) {
        /// How much may be spent between two steps in the journal, but for what the next second's round tells it.
        const STEP: Bits = Bits::whole(64);
        inner.charged = inner.charged.plus(charged);
        inner.unstored = inner.unstored.plus(charged);
        if inner.unstored >= STEP {
            self.journal_ledger(session, inner);
        }
    }

    /// The next step of the ledger for the journal; from here on it counts as told.
    pub(super) fn step(&self, inner: &mut Inner) -> StateSnapshot {
        inner.unstored = Bits::ZERO;
        inner.dirty = false;
        inner.score.step()
    }

    /// Tells the journal what has changed of a ledger, without waiting for it. Under the session's lock, since steps have to
    /// come in their order, and before the session's end: what is said of it behind that would be charged to the next one
    /// with its name.
    pub(super) fn journal_ledger(&self, session: &Session, inner: &mut Inner) {
        if inner.ended {
            return;
        }
        let state = self.step(inner);
        let record = store::Record::Ledger { session: session.id().clone(), state };
        if let Err(error) = self.store.note(record) {
            static TOLD: Sparing = Sparing::new();
            not_taken(&TOLD, &error, "a ledger was not journalled");
            // All of it in the next round.
            inner.score.retell();
            inner.dirty = true;
        }
    }

    /// Tells the journal what it has not heard of any ledger: once a second, and at the end of the process. The index gets
    /// a copy of those that have gone on, a minute after they have. Sleeps now and then, so that a round over very many
    /// sessions leaves room in the store's queue.
    pub fn save_ledgers(&self, now: Now) {
        /// Ledgers between two pauses: an eighth of the queue.
        const BURST: usize = 512;
        /// About what that many lines take to be written.
        const PAUSE: Duration = Duration::from_millis(5);
        /// Copies in one round; others wait for the next.
        const COPIES: usize = 256;
        let (mut told, mut copies) = (0, 0);
        for session in self.sessions.all() {
            let mut held = session.inner.lock();
            // No verdict rests on what the store was told.
            let inner = held.quietly();
            if inner.ended {
                continue;
            }
            self.journal_again(&session, inner, now);
            if inner.unstored > Bits::ZERO || inner.dirty {
                self.journal_ledger(&session, inner);
                told += 1;
            }
            let steps = inner.score.steps();
            if copies >= COPIES || !inner.copied.is_due(steps, now.mono) {
                drop(held);
                if told >= BURST {
                    told = 0;
                    std::thread::sleep(PAUSE);
                }
                continue;
            }
            copies += 1;
            // Under the lock, as above.
            let copied = self.store.put_ledger(session.id().clone(), inner.score.snapshot());
            drop(held);
            if let Err(error) = copied {
                static TOLD: Sparing = Sparing::new();
                not_taken(&TOLD, &error, "a ledger was not copied to the index");
            }
        }
    }

    /// The group that a session's questions are booked to.
    pub(super) fn group_of(&self, context: &Context, wall: u64) -> Option<Arc<Group>> {
        let owner = owner(context)?;
        Some(self.groups.join(owner, wall, || self.hash((owner, wall))))
    }

    /// What the group of a session knows of a name. Makes no group.
    pub(super) fn group_facts(&self, context: &Context, name: NameRef<'_>, wall: u64) -> Option<GroupFacts> {
        let group = self.groups.find(owner(context)?);
        Some(group.map_or_else(GroupFacts::default, |group| group.ledger.lock().facts(name, wall)))
    }

    /// Tells the journal what a group has spent, without waiting for it.
    pub(super) fn journal_group(&self, group: &Group, state: GroupSnapshot, wall: u64) {
        let record = store::Record::Group { group: group.owner().to_owned(), at: wall, state };
        if let Err(error) = self.store.note(record) {
            static TOLD: Sparing = Sparing::new();
            not_taken(&TOLD, &error, "a group's ledger was not journalled");
        }
    }

    /// Hands what has changed of every group to the store; all of it where this is the `last` time.
    pub fn save_groups(&self, now: Now, last: bool) {
        for group in self.groups.all() {
            let unsaved = group.ledger.lock().unsaved(now.wall.steady, last);
            if let Some(state) = unsaved
                && let Err(error) = self.store.put_group(group.owner(), now.wall.steady, state)
            {
                static TOLD: Sparing = Sparing::new();
                not_taken(&TOLD, &error, "a group's ledger was not handed to the store");
            }
        }
    }

    /// A session's group, as an operator sees it.
    pub(super) fn show_group(&self, context: &Context, now: Now) -> Option<Value> {
        let owner = owner(context)?;
        let Some(group) = self.groups.find(owner) else {
            return Some(json!({ "owner": owner, "spent_bits": 0.0, "names": 0, "shared": false }));
        };
        let ledger = group.ledger.lock();
        Some(json!({
            "owner": owner,
            "spent_bits": ledger.spent(now.wall.steady),
            "names": ledger.names(),
            // Judged together with others, since the table of groups is full.
            "shared": group.owner().is_empty(),
        }))
    }

    /// All groups in short.
    pub(super) fn show_groups(&self, now: Now) -> Value {
        let mut spending: Vec<_> = self
            .groups
            .all()
            .iter()
            .map(|group| (group.ledger.lock().spent(now.wall.steady), group.owner().to_owned()))
            .filter(|(spent, owner)| !owner.is_empty() && *spent > Bits::ZERO)
            .collect();
        spending.sort_unstable_by(|a, b| b.cmp(a));
        let shown: Vec<_> =
            spending.iter().take(SHOWN).map(|(spent, owner)| json!({ "owner": owner, "spent_bits": spent })).collect();
        json!({
            "known": self.groups.len(),
            "shared_bits": self.groups.shared().ledger.lock().spent(now.wall.steady),
            "spending_most": shown,
        })
    }
}
