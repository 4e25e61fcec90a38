//! Leases and volumes of the wanted state.

use std::net::IpAddr;

use super::{Entry, Lease, Metered, Pinned, SWEEP_EVERY, State, Target, Undo, Volume, check_destinations, family};
use crate::enforce::{Error, SESSION_LEASES_MAX, SESSION_VOLUMES_MAX, VOLUMES_A_LEASE};
use crate::ports::{Opening, Ports};

impl State {
    /// Books leases, each to the later of its old and its new end, and volumes, each to the wider of its old and its new limit;
    /// gives what the packet filter must be told of. Nothing is booked on an error. `journal` receives what [`State::undo`]
    /// needs.
    pub(in crate::enforce) fn pin(
        &mut self,
        session: IpAddr,
        destinations: &[IpAddr],
        (ports, volume): (&Ports, Option<u64>),
        lifetime: u64,
        now: u64,
        journal: &mut Vec<Undo>,
    ) -> Result<Pinned, Error> {
        check_destinations(session, destinations)?;
        let mut pinned = Pinned::default();
        if destinations.is_empty() {
            return Ok(pinned);
        }
        let session = session.to_canonical();
        if self.sessions.get(&session).is_some_and(|entry| entry.quarantined) {
            return Err(Error::Quarantined { session });
        }
        let family = family(session);
        let targets = || {
            let targets = |address: &IpAddr| {
                let address = address.to_canonical();
                ports.openings().map(move |open| Target { address, open })
            };
            destinations.iter().flat_map(targets)
        };
        let fresh = |state: &Self| {
            let held = state.sessions.get(&session);
            let new = targets().filter(|target| held.is_none_or(|held| !held.leases.contains_key(target))).count();
            let unknown = |d: &&IpAddr| held.is_none_or(|held| !held.volumes.contains_key(&d.to_canonical()));
            (new, held.map_or(0, |held| held.leases.len()), destinations.iter().filter(unknown).count())
        };
        let full = |state: &Self, (new, held, unknown): (usize, usize, usize)| {
            if state.pins[family] + new > state.capacity
                || state.volumes[family] + unknown > state.capacity * VOLUMES_A_LEASE as usize
            {
                Some(Error::Full { limit: state.capacity })
            } else if held + new > SESSION_LEASES_MAX {
                Some(Error::SessionFull { session })
            } else {
                None
            }
        };
        if full(self, fresh(self)).is_some() {
            if now >= self.swept.saturating_add(SWEEP_EVERY) {
                self.sweep(now);
            }
            if let Some(error) = full(self, fresh(self)) {
                return Err(error);
            }
        }
        // A timeout of nothing means "for ever" to the kernel.
        let end = now.saturating_add(lifetime.max(1));
        let entry = self.sessions.entry(session).or_default();
        for target in targets() {
            let before = entry.leases.get(&target).copied();
            if before.is_some_and(|before| before >= end) {
                continue;
            }
            entry.leases.insert(target, end);
            self.pins[family] += usize::from(before.is_none());
            journal.push(Undo::Lease { session, target, before });
            pinned.leases.push(Lease { target, remaining: end - now, refreshed: before.is_some() });
        }
        for destination in destinations {
            let destination = destination.to_canonical();
            let before = entry.volumes.get(&destination).copied();
            let wider = |held: Volume| Volume { limit: held.limit.zip(volume).map(|(a, b)| a.max(b)), ..held };
            let wanted = before.map_or(Volume { limit: volume, used: 0 }, wider);
            if before == Some(wanted) {
                continue;
            }
            if before.is_none()
                && entry.volumes.len() >= SESSION_VOLUMES_MAX
                && let Some((forgotten, was)) = least_used(entry)
            {
                entry.volumes.remove(&forgotten);
                self.volumes[family] -= 1;
                journal.push(Undo::Volume { session, destination: forgotten, before: Some(was) });
                pinned.forgotten.push((forgotten, was));
            }
            entry.volumes.insert(destination, wanted);
            self.volumes[family] += usize::from(before.is_none());
            journal.push(Undo::Volume { session, destination, before });
            let replaced = before.is_some_and(|before| before.limit.is_some());
            if replaced || wanted.limit.is_some() {
                pinned.volumes.push(Metered { destination, volume: wanted, replaced });
            }
        }
        Ok(pinned)
    }

    /// Takes bookings back, last first.
    pub(in crate::enforce) fn undo(&mut self, journal: Vec<Undo>) {
        for undo in journal.into_iter().rev() {
            match undo {
                Undo::Lease { session, target, before: Some(end) } => {
                    if let Some(entry) = self.sessions.get_mut(&session) {
                        entry.leases.insert(target, end);
                    }
                }
                Undo::Lease { session, target, before: None } => {
                    self.forget_lease(session, target);
                }
                Undo::Volume { session, destination, before } => {
                    let Some(entry) = self.sessions.get_mut(&session) else { continue };
                    let held = match before {
                        Some(before) => entry.volumes.insert(destination, before).is_some(),
                        None => entry.volumes.remove(&destination).is_some(),
                    };
                    let count = &mut self.volumes[family(session)];
                    *count = *count + usize::from(before.is_some()) - usize::from(held);
                    self.tidy(session);
                }
            }
        }
    }

    /// Forgets leases of all ports; gives those that were held.
    pub(in crate::enforce) fn unpin(&mut self, session: IpAddr, destinations: &[IpAddr]) -> Result<Vec<Target>, Error> {
        check_destinations(session, destinations)?;
        let session = session.to_canonical();
        let Some(entry) = self.sessions.get(&session) else { return Ok(Vec::new()) };
        let named = |target: &&Target| destinations.iter().any(|d| d.to_canonical() == target.address);
        let targets: Vec<Target> = entry.leases.keys().filter(named).copied().collect();
        for target in &targets {
            self.forget_lease(session, *target);
        }
        Ok(targets)
    }

    /// Forgets every lease of a session; gives them.
    pub(in crate::enforce) fn take_leases(&mut self, session: IpAddr) -> Vec<Target> {
        let session = session.to_canonical();
        let Some(entry) = self.sessions.get_mut(&session) else { return Vec::new() };
        let taken: Vec<Target> = std::mem::take(&mut entry.leases).into_keys().collect();
        self.pins[family(session)] -= taken.len();
        taken
    }

    /// Books what has gone out to a destination, as read from the packet filter; whether it is to be counted at all.
    pub(in crate::enforce) fn note_used(&mut self, session: IpAddr, destination: IpAddr, used: u64) -> bool {
        let volume = self.sessions.get_mut(&session).and_then(|entry| entry.volumes.get_mut(&destination));
        volume.map(|volume| volume.used = volume.used.max(used)).is_some()
    }

    /// Books a lease that the packet filter was found to hold.
    pub(in crate::enforce) fn adopt_lease(&mut self, session: IpAddr, target: Target, remaining: u64, now: u64) {
        let leases = &mut self.sessions.entry(session).or_default().leases;
        if leases.insert(target, now.saturating_add(remaining)).is_none() {
            self.pins[family(session)] += 1;
        }
    }

    /// Books a volume that the packet filter was found to hold; of two for one destination the one with a limit.
    pub(in crate::enforce) fn adopt_volume(&mut self, session: IpAddr, destination: IpAddr, volume: Volume) {
        let volumes = &mut self.sessions.entry(session).or_default().volumes;
        match volumes.get_mut(&destination) {
            Some(known) if known.limit.is_some() => {}
            Some(known) => *known = volume,
            None => {
                volumes.insert(destination, volume);
                self.volumes[family(session)] += 1;
            }
        }
    }

    /// Books a volume without a limit for every destination of a lease that has none: what the packet filter holds no count of
    /// had no limit.
    pub(in crate::enforce) fn adopt_uncounted(&mut self) {
        for (session, entry) in &mut self.sessions {
            let counted = entry.volumes.len();
            for target in entry.leases.keys() {
                entry.volumes.entry(target.address).or_default();
            }
            self.volumes[family(*session)] += entry.volumes.len() - counted;
        }
    }

    /// Puts one lease in the place of one for each port of a web page, to the earliest of their ends; whether there were any.
    pub(in crate::enforce) fn adopt_pages(&mut self) -> bool {
        let mut any = false;
        for (session, entry) in &mut self.sessions {
            let first = Opening::One(Opening::WEB[0]);
            let begun = entry.leases.keys().filter(|target| target.open == first).map(|target| target.address);
            for address in begun.collect::<Vec<_>>() {
                let each = Opening::WEB.map(|port| Target { address, open: Opening::One(port) });
                let Some(ends) =
                    each.iter().map(|target| entry.leases.get(target).copied()).collect::<Option<Vec<_>>>()
                else {
                    continue;
                };
                any = true;
                let before = entry.leases.len();
                for target in &each {
                    entry.leases.remove(target);
                }
                let end = ends.into_iter().min().unwrap_or(0);
                let page = entry.leases.entry(Target { address, open: Opening::Web }).or_insert(end);
                *page = end.max(*page);
                self.pins[family(*session)] -= before - entry.leases.len();
            }
        }
        any
    }

    /// As [`State::sweep`], not more often than every few seconds: it looks at every lease.
    pub(in crate::enforce) fn sweep_sometimes(&mut self, now: u64) {
        if now >= self.swept.saturating_add(10 * SWEEP_EVERY) {
            self.sweep(now);
        }
    }

    /// Forgets leases that have ended.
    pub(in crate::enforce) fn sweep(&mut self, now: u64) {
        self.swept = now;
        let mut pins = [0; 2];
        self.sessions.retain(|session, entry| {
            entry.leases.retain(|_, end| *end > now);
            pins[family(*session)] += entry.leases.len();
            !entry.is_empty()
        });
        self.pins = pins;
    }

    /// Forgets one lease; whether it was held.
    pub(in crate::enforce) fn forget_lease(&mut self, session: IpAddr, target: Target) -> bool {
        let Some(entry) = self.sessions.get_mut(&session) else { return false };
        let held = entry.leases.remove(&target).is_some();
        self.pins[family(session)] -= usize::from(held);
        self.tidy(session);
        held
    }
}

/// The destination without a lease to which the least has gone; nothing where all have leases. A walk over all of them, met
/// only by a session far beyond ordinary use.
fn least_used(entry: &Entry) -> Option<(IpAddr, Volume)> {
    let leased: std::collections::HashSet<IpAddr> = entry.leases.keys().map(|target| target.address).collect();
    let idle = entry.volumes.iter().filter(|(destination, _)| !leased.contains(destination));
    idle.min_by_key(|(_, volume)| volume.used).map(|(destination, volume)| (*destination, *volume))
}
