//! Another wanted state for all sessions at once.

use std::collections::HashMap;
use std::net::IpAddr;

use super::super::state::State;
use super::sets::{Element, Set, lease_kind, volume_kind};
use super::watch::SLACK;
use super::{Change, Nft};
use crate::enforce::Error;

impl Nft {
    /// Changes what is wanted, and notes whose flows are to be looked at: those of sessions that are gone, or were
    /// quarantined, released or guarded by it.
    pub(super) fn settle_anew(&mut self, change: impl FnOnce(&mut State) -> Result<(), Error>) -> Result<(), Error> {
        let before: HashMap<IpAddr, (bool, bool)> =
            self.state.entries().map(|(session, entry)| (session, (entry.guarded, entry.quarantined))).collect();
        change(&mut self.state)?;
        let gone = before.keys().copied().filter(|session| self.state.entry(*session).is_none());
        let changed = self.state.entries().filter(|(session, entry)| {
            let (guarded, quarantined) = before.get(session).copied().unwrap_or_default();
            entry.quarantined != quarantined || (entry.guarded && !guarded)
        });
        let changed: Vec<IpAddr> = gone.chain(changed.map(|(session, _)| session)).collect();
        self.owed.extend(changed);
        self.readings.know_all(self.state.entries().map(|(session, _)| session));
        Ok(())
    }

    /// Brings the kernel from `old` to what is wanted now. Where it holds `old` for all that is known, leases and volumes are
    /// not read back, which takes a second where there are 100,000.
    pub(super) fn follow(&mut self, old: &State) -> Result<(), Error> {
        if self.dirty || self.lost.is_some() {
            self.dirty = true;
            return self.resync().map(drop);
        }
        // The door is shut before the leases behind it are cleared away.
        self.resync_small()?;
        let changes = differences(old, &self.state, self.now());
        self.carry_out(changes)?;
        self.cutter.cut(self.owed.drain().collect());
        Ok(())
    }
}

/// What of leases and volumes leads from one state to the other.
fn differences(old: &State, new: &State, now: u64) -> Vec<Change> {
    let mut changes = Vec::new();
    for (session, entry) in new.entries() {
        let before = old.entry(session);
        // Limits stand before what is limited is opened.
        for (to, volume) in &entry.volumes {
            let there = before.and_then(|before| before.volumes.get(to));
            match there {
                Some(there) if there.limit == volume.limit => {}
                Some(there) => changes.extend(Nft::remetered(session, *to, there.limit.is_some(), *volume)),
                None if volume.is_held() => {
                    let set = Set::of(volume_kind(*volume), session);
                    changes.push(Change::Add(set, vec![Element::volume(session, *to, *volume)]));
                }
                None => {}
            }
        }
        for (target, end) in entry.leases.iter().filter(|(_, end)| **end > now) {
            let there = before.and_then(|before| before.leases.get(target));
            if there.is_some_and(|there| there.abs_diff(*end) <= SLACK) {
                continue;
            }
            let set = Set::of(lease_kind(*target), session);
            changes.extend(there.map(|_| Change::Delete(set, Element::lease(session, *target))));
            changes.push(Change::Add(set, vec![Element::lease(session, *target).lasting(end - now)]));
        }
    }
    for (session, before) in old.entries() {
        let entry = new.entry(session);
        let gone = before.leases.keys().filter(|target| entry.is_none_or(|entry| !entry.leases.contains_key(*target)));
        changes.extend(
            gone.map(|target| Change::Delete(Set::of(lease_kind(*target), session), Element::lease(session, *target))),
        );
        let gone = |to: &IpAddr| entry.is_none_or(|entry| !entry.volumes.contains_key(to));
        let gone = before.volumes.iter().filter(|(to, _)| gone(to)).map(|(to, volume)| (*to, *volume));
        changes.extend(Nft::uncounted(session, &gone.collect::<Vec<_>>()));
    }
    changes
}
