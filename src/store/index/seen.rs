//! Tables that live in memory beside the index, and what of them is on its way into it.

use std::ops::ControlFlow;
use std::sync::{Arc, Weak};

use super::sights::{Sight, Sights};
use super::{IndexError, Op, StateStore, Tree};
use crate::store::{FirstSeen, GroupSeen, Registered, first_seen, group_seen, wall_ms};

/// Tables that live in memory and are loaded from the index.
#[derive(Clone)]
pub(in crate::store) struct Tables {
    pub(in crate::store) first_seen: Arc<FirstSeen>,
    pub(in crate::store) group_seen: Arc<GroupSeen>,
    pub(in crate::store) registered: Arc<Registered>,
}

impl Tables {
    /// Loads them. What is no longer of use goes.
    pub(super) fn load(&self, store: &mut dyn StateStore, sights: &mut Seen) -> Result<(), IndexError> {
        sights.domains.load(store, |sight| self.first_seen.load(sight))?;
        sights.domains.settle(self.first_seen.known());
        sights.groups.load(store, |sight| self.group_seen.load(sight))?;
        sights.groups.settle(self.group_seen.known());
        let (now, mut stale) = (wall_ms(), Vec::new());
        store.scan(Tree::Registered, b"", &mut |key, value| {
            if !self.registered.load(key, value, now) {
                stale.push(Op::Delete(Tree::Registered, key.to_vec()));
            }
            ControlFlow::Continue(())
        })?;
        store.apply(stale)
    }
}

/// First sights on their way, and the tables that know which of those in the index still count. Weak: the tables hold the way
/// to this thread, which ends when nobody does.
pub(super) struct Seen {
    domains: Sights,
    groups: Sights,
    tables: (Weak<FirstSeen>, Weak<GroupSeen>),
}

impl Seen {
    /// Nothing on its way.
    pub(super) fn of(tables: &Tables) -> Self {
        Self {
            domains: Sights::new(Tree::FirstSeen, first_seen::WIDTH),
            groups: Sights::new(Tree::GroupSeen, group_seen::WIDTH),
            tables: (Arc::downgrade(&tables.first_seen), Arc::downgrade(&tables.group_seen)),
        }
    }

    /// Takes one; what is to be changed now, if it is time.
    pub(super) fn take(&mut self, tree: Tree, sight: &Sight) -> Option<Op> {
        match tree {
            Tree::FirstSeen => self.domains.take(sight),
            Tree::GroupSeen => self.groups.take(sight),
            _ => None,
        }
    }

    /// What waits, as changes.
    pub(super) fn put(&mut self) -> Vec<Op> {
        self.domains.put().into_iter().chain(self.groups.put()).collect()
    }

    /// Whether [`Seen::tidy`] has something to do.
    pub(super) fn is_due(&self) -> bool {
        self.domains.is_due() || self.groups.is_due()
    }

    /// Writes trees anew that hold mostly what is forgotten. Nothing waits.
    pub(super) fn tidy(&mut self, store: &mut dyn StateStore) -> Result<(), IndexError> {
        if self.domains.is_due()
            && let Some(table) = self.tables.0.upgrade()
        {
            self.domains.rewrite(store, |sight| table.holds(sight))?;
        }
        if self.groups.is_due()
            && let Some(table) = self.tables.1.upgrade()
        {
            self.groups.rewrite(store, |sight| table.holds(sight))?;
        }
        Ok(())
    }
}
