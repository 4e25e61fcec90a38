//! The wanted state: who is guarded, monitored, quarantined, in which generation, every lease with its end, and how much may
//! go where.
//!
//! Pure, `now` is handed in. The packet filter is made to follow it and is put back from it. Kernels differ in what
//! adding an existing element again does (nothing, shorten, extend), so the end that counts is computed here.

mod held;
mod leases;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::net::IpAddr;

#[cfg(doc)]
use super::VOLUMES_A_LEASE;
use super::mark::FIRST_GENERATION;
use super::{Active, Class, Command, DESTINATIONS_MAX, Error, Kept, SESSION_LEASES_MAX, SESSIONS_MAX};
use crate::ports::Opening;

/// Looked up several times for each pin; addresses are others' choice, so the hash has a key.
type Map<K, V> = hashbrown::HashMap<K, V, foldhash::quality::RandomState>;

/// What one lease opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::enforce) struct Target {
    /// Destination.
    pub address: IpAddr,
    /// What is open there.
    pub open: Opening,
}

/// How much may go to a destination, and how much has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::enforce) struct Volume {
    /// Octets that may go out; no end without one.
    pub limit: Option<u64>,
    /// Octets that have gone out as far as was last read: what is put back with the element.
    pub used: u64,
}

impl Volume {
    /// Whether the packet filter must hold it. A count without a limit begins there with the first packet that is permitted to
    /// its destination: of the addresses of an answer most never see one.
    pub(in crate::enforce) fn is_held(self) -> bool {
        self.limit.is_some() || self.used > 0
    }
}

/// One session address.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(in crate::enforce) struct Entry {
    /// Forwarded packets need a pin.
    pub guarded: bool,
    /// Forwarded packets pass without a pin, and the source is known.
    pub monitored: bool,
    /// Nothing passes.
    pub quarantined: bool,
    /// Which written ranges are open.
    pub class: Class,
    /// The mark of its flows; 0 while it is not guarded.
    pub generation: u32,
    /// Those before, oldest first, while flows that may live on are taken over.
    pub retiring: Vec<u32>,
    /// What is open and until when, mono milliseconds.
    pub leases: Map<Target, u64>,
    /// By destination; kept when the lease ends, so that a new one does not begin at nothing.
    pub volumes: Map<IpAddr, Volume>,
}

impl Entry {
    fn is_empty(&self) -> bool {
        !self.guarded && !self.monitored && !self.quarantined && self.leases.is_empty() && self.volumes.is_empty()
    }
}

/// A lease that the packet filter must now hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::enforce) struct Lease {
    /// What it opens.
    pub target: Target,
    /// Milliseconds from now.
    pub remaining: u64,
    /// Whether an element may be there already.
    pub refreshed: bool,
}

/// A volume that the packet filter must now hold in another way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::enforce) struct Metered {
    /// Destination.
    pub destination: IpAddr,
    /// How much.
    pub volume: Volume,
    /// Whether it had another limit.
    pub replaced: bool,
}

/// What a pin changes.
#[derive(Debug, Default)]
pub(in crate::enforce) struct Pinned {
    /// Leases that are new or end later.
    pub leases: Vec<Lease>,
    /// Limits that are new or others.
    pub volumes: Vec<Metered>,
    /// Destinations whose volume had to make room, and what it was.
    pub forgotten: Vec<(IpAddr, Volume)>,
}

/// What a new generation changes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::enforce) struct Renewed {
    /// Leases that go.
    pub gone: Vec<Target>,
    /// Leases in the place of what stays open of those.
    pub narrowed: Vec<Lease>,
    /// Limits that are others.
    pub volumes: Vec<Metered>,
}

/// How to take one change back.
#[derive(Debug)]
pub(in crate::enforce) enum Undo {
    /// Of a lease.
    Lease { session: IpAddr, target: Target, before: Option<u64> },
    /// Of a volume.
    Volume { session: IpAddr, destination: IpAddr, before: Option<Volume> },
}

/// The wanted state.
#[derive(Debug, Clone)]
pub(in crate::enforce) struct State {
    sessions: Map<IpAddr, Entry>,
    capacity: usize,
    pins: [usize; 2],
    volumes: [usize; 2],
    swept: u64,
    next_generation: u32,
    /// Guarded and quarantined addresses, as long as they were counted since either changed.
    counted: Cell<Option<(usize, usize)>>,
}

/// Most generations of one session whose flows are still being taken over; the oldest one's flows end at more.
const RETIRING_MAX: usize = 4;

/// Sweeping looks at every lease, so a set that stays full must not make every pin pay for it.
const SWEEP_EVERY: u64 = 1000;

fn family(address: IpAddr) -> usize {
    usize::from(address.is_ipv6())
}

impl State {
    /// Nothing wanted yet; at most `capacity` leases of each family, and [`VOLUMES_A_LEASE`] times as many volumes. Generations begin at `first`, which is
    /// to be above all that flows of this host carry.
    pub(in crate::enforce) fn new(capacity: u32, first: u32) -> Self {
        Self {
            sessions: Map::default(),
            capacity: capacity as usize,
            pins: [0; 2],
            volumes: [0; 2],
            swept: 0,
            next_generation: first.max(FIRST_GENERATION),
            counted: Cell::default(),
        }
    }

    /// Leases, IPv4 and IPv6, expired ones not yet swept included.
    pub(in crate::enforce) fn pins(&self) -> [usize; 2] {
        self.pins
    }

    /// Every session address with its entry.
    pub(in crate::enforce) fn entries(&self) -> impl Iterator<Item = (IpAddr, &Entry)> {
        self.sessions.iter().map(|(session, entry)| (*session, entry))
    }

    /// How many addresses are guarded, and how many quarantined. Asked several times a second, and the same most of the time.
    pub(in crate::enforce) fn closed(&self) -> (usize, usize) {
        let counted = self.counted.get().unwrap_or_else(|| {
            self.sessions.values().fold((0, 0), |(guarded, quarantined), entry| {
                (guarded + usize::from(entry.guarded), quarantined + usize::from(entry.quarantined))
            })
        });
        self.counted.set(Some(counted));
        counted
    }

    /// One session address.
    pub(in crate::enforce) fn entry(&self, session: IpAddr) -> Option<&Entry> {
        self.sessions.get(&session.to_canonical())
    }

    /// Whether a session may be guarded or monitored. A quarantine is never refused for want of room.
    pub(in crate::enforce) fn check_room(&self, session: IpAddr) -> Result<(), Error> {
        if self.sessions.len() >= SESSIONS_MAX && self.entry(session).is_none() {
            return Err(Error::Full { limit: SESSIONS_MAX });
        }
        Ok(())
    }

    /// Its packets need a pin from now on.
    pub(in crate::enforce) fn guard(&mut self, session: IpAddr, class: Class) -> Result<(), Error> {
        self.check_room(session)?;
        let session = session.to_canonical();
        let next = self.generation();
        let entry = self.sessions.entry(session).or_default();
        if !entry.guarded {
            self.counted.set(None);
            // Flows from before, monitored or of another run under this address, are not of it.
            entry.generation = next;
        }
        (entry.guarded, entry.monitored, entry.class) = (true, false, class);
        Ok(())
    }

    /// Its packets pass from now on.
    pub(in crate::enforce) fn monitor(&mut self, session: IpAddr) -> Result<(), Error> {
        self.check_room(session)?;
        self.counted.set(None);
        let entry = self.sessions.entry(session.to_canonical()).or_default();
        (entry.guarded, entry.monitored, entry.generation, entry.class) = (false, true, 0, Class::default());
        entry.retiring.clear();
        Ok(())
    }

    /// Nothing of it passes; leases go, and flows of before are of no generation any more.
    pub(in crate::enforce) fn quarantine(&mut self, session: IpAddr) -> Vec<Target> {
        self.counted.set(None);
        let leases = self.take_leases(session);
        let next = self.generation();
        let entry = self.sessions.entry(session.to_canonical()).or_default();
        entry.quarantined = true;
        entry.retiring.clear();
        if entry.guarded {
            entry.generation = next;
        }
        leases
    }

    /// Undoes a quarantine.
    pub(in crate::enforce) fn release(&mut self, session: IpAddr) {
        let session = session.to_canonical();
        self.counted.set(None);
        if let Some(entry) = self.sessions.get_mut(&session) {
            entry.quarantined = false;
        }
        self.tidy(session);
    }

    /// A new generation of a guarded session, in which only what `keep` names is open and may flow on.
    pub(in crate::enforce) fn renew(
        &mut self,
        session: IpAddr,
        class: Class,
        keep: &[Kept],
        now: u64,
    ) -> Result<Renewed, Error> {
        self.guard(session, class)?;
        let session = session.to_canonical();
        let next = self.generation();
        let Some(entry) = self.sessions.get_mut(&session) else { return Ok(Default::default()) };
        if entry.retiring.len() >= RETIRING_MAX {
            entry.retiring.remove(0);
        }
        entry.retiring.push(entry.generation);
        entry.generation = next;
        let keep: Map<IpAddr, &Kept> = keep.iter().map(|kept| (kept.destination.to_canonical(), kept)).collect();
        let gone =
            |(target, _): &(&Target, &u64)| !keep.get(&target.address).is_some_and(|kept| kept.opens(target.open));
        let gone: Vec<(Target, u64)> = entry.leases.iter().filter(gone).map(|(target, end)| (*target, *end)).collect();
        let mut volumes = Vec::new();
        for (destination, kept) in &keep {
            let Some(held) = entry.volumes.get_mut(destination).filter(|held| held.limit != kept.volume) else {
                continue;
            };
            let replaced = held.limit.is_some();
            held.limit = kept.volume;
            volumes.push(Metered { destination: *destination, volume: *held, replaced });
        }
        for (target, _) in &gone {
            self.forget_lease(session, *target);
        }
        // Of several ports in one lease some may stay open, as long as they were.
        if self.pins[family(session)] + Opening::WEB.len() * gone.len() > self.capacity {
            self.sweep(now);
        }
        let mut narrowed = Vec::new();
        for (Target { address, .. }, end) in
            gone.iter().filter(|(target, end)| target.open == Opening::Web && *end > now)
        {
            let Some(kept) = keep.get(address) else { continue };
            let ports = Opening::WEB.into_iter().map(Opening::One).filter(|one| kept.opens(*one));
            narrowed.extend(
                ports.filter_map(|one| self.narrow(session, Target { address: *address, open: one }, *end, now)),
            );
        }
        Ok(Renewed { gone: gone.into_iter().map(|(target, _)| target).collect(), narrowed, volumes })
    }

    /// Books a lease in the place of a part of a wider one; nothing where it is held as long already, or where there is no room,
    /// so that it closes early.
    fn narrow(&mut self, session: IpAddr, target: Target, end: u64, now: u64) -> Option<Lease> {
        let count = &mut self.pins[family(session)];
        let entry = self.sessions.entry(session).or_default();
        let before = entry.leases.get(&target).copied();
        let is_full = *count >= self.capacity || entry.leases.len() >= SESSION_LEASES_MAX;
        if before.map_or(is_full, |before| before >= end) {
            return None;
        }
        entry.leases.insert(target, end);
        *count += usize::from(before.is_none());
        Some(Lease { target, remaining: end - now, refreshed: before.is_some() })
    }

    /// Flows of `session` that may live on carry `generation` or a later one: older ones are over. Whether that changes
    /// anything.
    pub(in crate::enforce) fn retire(&mut self, session: IpAddr, generation: u32) -> bool {
        let Some(entry) = self.sessions.get_mut(&session.to_canonical()) else { return false };
        let before = entry.retiring.len();
        // They are few and ascend, but for the one time in 4,000 million when numbers begin anew.
        let over = entry.retiring.iter().position(|old| *old == generation).unwrap_or(before);
        entry.retiring.drain(..over);
        over > 0
    }

    /// Forgets a session altogether; gives its leases and volumes.
    pub(in crate::enforce) fn remove(&mut self, session: IpAddr) -> (Vec<Target>, Vec<(IpAddr, Volume)>) {
        self.counted.set(None);
        let leases = self.take_leases(session);
        let session = session.to_canonical();
        let volumes: Vec<(IpAddr, Volume)> =
            self.sessions.remove(&session).map(|entry| entry.volumes.into_iter().collect()).unwrap_or_default();
        self.volumes[family(session)] -= volumes.len();
        (leases, volumes)
    }

    /// Books what the packet filter was found to hold of a session itself. Later generations begin above.
    pub(in crate::enforce) fn adopt(&mut self, session: IpAddr, change: impl FnOnce(&mut Entry)) {
        self.counted.set(None);
        let entry = self.sessions.entry(session).or_default();
        change(entry);
        self.next_generation = self.next_generation.max(entry.generation.saturating_add(1));
    }

    /// Guards and quarantines become those of `active`; leases and volumes stay only with sessions that are there, leases only
    /// where they are not quarantined. A session that stays guarded keeps its generation, so that its flows live on.
    pub(in crate::enforce) fn reconcile(&mut self, active: &[Active]) -> Result<(), Error> {
        if active.len() > SESSIONS_MAX {
            return Err(Error::Full { limit: SESSIONS_MAX });
        }
        self.counted.set(None);
        let mut old = std::mem::take(&mut self.sessions);
        (self.pins, self.volumes) = ([0; 2], [0; 2]);
        for &Active { session, guard, quarantined } in active {
            let session = session.to_canonical();
            let mut entry = old.remove(&session).unwrap_or_default();
            let goes_on = entry.guarded && entry.quarantined == quarantined && entry.generation >= FIRST_GENERATION;
            entry.generation = match guard {
                None => 0,
                Some(_) if goes_on => entry.generation,
                Some(_) => self.generation(),
            };
            (entry.guarded, entry.monitored, entry.quarantined) = (guard.is_some(), guard.is_none(), quarantined);
            entry.class = guard.unwrap_or_default();
            entry.retiring.clear();
            if quarantined {
                entry.leases.clear();
            }
            self.pins[family(session)] += entry.leases.len();
            self.volumes[family(session)] += entry.volumes.len();
            self.sessions.insert(session, entry);
        }
        Ok(())
    }

    /// What a command does where there is no kernel to ask.
    pub(in crate::enforce) fn apply(&mut self, command: &Command, now: u64) -> Result<(), Error> {
        match command {
            Command::Pin { session, destinations, ports, volume, lifetime } => {
                self.pin(*session, destinations, (ports, *volume), millis(*lifetime), now, &mut Vec::new()).map(drop)
            }
            Command::Unpin { session, destinations } => self.unpin(*session, destinations).map(drop),
            Command::Guard { session, class } => self.guard(*session, *class),
            Command::Unguard { session } => self.monitor(*session),
            Command::Renew { session, class, keep } => {
                self.renew(*session, *class, keep, now)?;
                // There are no flows to be taken over.
                let generation = self.entry(*session).map_or(0, |entry| entry.generation);
                self.retire(*session, generation);
                Ok(())
            }
            Command::Quarantine { session } => {
                self.quarantine(*session);
                Ok(())
            }
            Command::Release { session } => {
                self.release(*session);
                Ok(())
            }
            Command::Remove { session } => {
                self.remove(*session);
                Ok(())
            }
        }
    }

    /// A generation that no session of this run has had.
    fn generation(&mut self) -> u32 {
        let generation = self.next_generation;
        self.next_generation = generation.checked_add(1).unwrap_or(FIRST_GENERATION);
        generation
    }

    fn tidy(&mut self, session: IpAddr) {
        if self.sessions.get(&session).is_some_and(Entry::is_empty) {
            self.sessions.remove(&session);
        }
    }
}

/// A lifetime in the kernel's unit, at most a week: no lease of ours may look like "for ever".
pub(in crate::enforce) fn millis(lifetime: std::time::Duration) -> u64 {
    const WEEK: u64 = 7 * 24 * 3600 * 1000;
    u64::try_from(lifetime.as_millis()).unwrap_or(WEEK).min(WEEK)
}

/// Whether destinations can be pinned or unpinned at all.
pub(in crate::enforce) fn check_destinations(session: IpAddr, destinations: &[IpAddr]) -> Result<(), Error> {
    if destinations.len() > DESTINATIONS_MAX {
        return Err(Error::TooMany(destinations.len()));
    }
    let session = session.to_canonical();
    match destinations.iter().find(|d| d.to_canonical().is_ipv4() != session.is_ipv4()) {
        Some(&destination) => Err(Error::Family { session, destination }),
        None => Ok(()),
    }
}
