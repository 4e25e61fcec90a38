//! The wanted state: who is guarded, monitored, quarantined, and every lease with its end.
//!
//! Pure, `now` is handed in. The packet filter is made to follow it and is put back from it. Kernels differ in what
//! adding an existing element again does (nothing, shorten, extend), so the end that counts is computed here.

use std::collections::HashMap;
use std::net::IpAddr;

use super::{Active, Command, DESTINATIONS_MAX, Error, SESSION_LEASES_MAX, SESSIONS_MAX};

/// One session address.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Forwarded packets need a pin.
    pub guarded: bool,
    /// Forwarded packets pass without a pin, and the source is known.
    pub monitored: bool,
    /// Nothing passes.
    pub quarantined: bool,
    /// Destination and end, mono milliseconds.
    pub leases: HashMap<IpAddr, u64>,
}

impl Entry {
    /// Its packets need a pin from now on.
    pub(super) fn guard(&mut self) {
        self.guarded = true;
        self.monitored = false;
    }

    /// Its packets pass from now on.
    pub(super) fn monitor(&mut self) {
        self.guarded = false;
        self.monitored = true;
    }

    fn is_empty(&self) -> bool {
        !self.guarded && !self.monitored && !self.quarantined && self.leases.is_empty()
    }
}

/// A lease that the packet filter must now hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lease {
    /// Destination.
    pub destination: IpAddr,
    /// Milliseconds from now.
    pub remaining: u64,
    /// Whether an element may be there already.
    pub refreshed: bool,
}

/// How to take one change of a lease back.
#[derive(Debug)]
pub(super) struct Undo {
    session: IpAddr,
    destination: IpAddr,
    before: Option<u64>,
}

/// The wanted state.
#[derive(Debug, Clone)]
pub(super) struct State {
    sessions: HashMap<IpAddr, Entry>,
    capacity: usize,
    pins: [usize; 2],
    swept: u64,
}

/// Sweeping looks at every lease, so a set that stays full must not make every pin pay for it.
const SWEEP_EVERY: u64 = 1000;

fn family(address: IpAddr) -> usize {
    usize::from(address.is_ipv6())
}

impl State {
    /// Nothing wanted yet; at most `capacity` leases of each family.
    pub(super) fn new(capacity: u32) -> Self {
        Self { sessions: HashMap::new(), capacity: capacity as usize, pins: [0; 2], swept: 0 }
    }

    /// Leases, IPv4 and IPv6, expired ones not yet swept included.
    pub(super) fn pins(&self) -> [usize; 2] {
        self.pins
    }

    /// Every session address with its entry.
    pub(super) fn entries(&self) -> impl Iterator<Item = (IpAddr, &Entry)> {
        self.sessions.iter().map(|(session, entry)| (*session, entry))
    }

    /// One session address.
    pub(super) fn entry(&self, session: IpAddr) -> Option<&Entry> {
        self.sessions.get(&session.to_canonical())
    }

    /// Books leases, each to the later of its old and its new end, and gives those the packet filter must be told of.
    /// Nothing is booked on an error. `journal` receives what [`State::undo`] needs.
    pub(super) fn pin(
        &mut self,
        session: IpAddr,
        destinations: &[IpAddr],
        lifetime: u64,
        now: u64,
        journal: &mut Vec<Undo>,
    ) -> Result<Vec<Lease>, Error> {
        check_destinations(session, destinations)?;
        if destinations.is_empty() {
            return Ok(Vec::new());
        }
        let session = session.to_canonical();
        if self.sessions.get(&session).is_some_and(|entry| entry.quarantined) {
            return Err(Error::Quarantined { session });
        }
        let family = family(session);
        let fresh = |state: &Self| {
            let held = state.sessions.get(&session).map(|entry| &entry.leases);
            let fresh = destinations.iter().filter(|d| held.is_none_or(|held| !held.contains_key(&d.to_canonical())));
            (fresh.count(), held.map_or(0, HashMap::len))
        };
        let (mut new, mut held) = fresh(self);
        if self.pins[family] + new > self.capacity || held + new > SESSION_LEASES_MAX {
            if now >= self.swept.saturating_add(SWEEP_EVERY) {
                self.sweep(now);
            }
            (new, held) = fresh(self);
        }
        if self.pins[family] + new > self.capacity {
            return Err(Error::Full { limit: self.capacity });
        }
        if held + new > SESSION_LEASES_MAX {
            return Err(Error::SessionFull { session });
        }
        // A timeout of nothing means "for ever" to the kernel.
        let end = now.saturating_add(lifetime.max(1));
        let entry = self.sessions.entry(session).or_default();
        let mut leases = Vec::with_capacity(destinations.len());
        for destination in destinations {
            let destination = destination.to_canonical();
            let before = entry.leases.get(&destination).copied();
            if before.is_some_and(|before| before >= end) {
                continue;
            }
            entry.leases.insert(destination, end);
            self.pins[family] += usize::from(before.is_none());
            journal.push(Undo { session, destination, before });
            leases.push(Lease { destination, remaining: end - now, refreshed: before.is_some() });
        }
        Ok(leases)
    }

    /// Takes bookings back, last first.
    pub(super) fn undo(&mut self, journal: Vec<Undo>) {
        for Undo { session, destination, before } in journal.into_iter().rev() {
            match before {
                Some(end) => {
                    if let Some(entry) = self.sessions.get_mut(&session) {
                        entry.leases.insert(destination, end);
                    }
                }
                None => {
                    self.forget_lease(session, destination);
                }
            }
        }
    }

    /// Forgets leases; gives those that were held.
    pub(super) fn unpin(&mut self, session: IpAddr, destinations: &[IpAddr]) -> Result<Vec<IpAddr>, Error> {
        check_destinations(session, destinations)?;
        let session = session.to_canonical();
        let destinations = destinations.iter().map(IpAddr::to_canonical);
        Ok(destinations.filter(|destination| self.forget_lease(session, *destination)).collect())
    }

    /// Forgets every lease of a session; gives them.
    pub(super) fn take_leases(&mut self, session: IpAddr) -> Vec<IpAddr> {
        let session = session.to_canonical();
        let Some(entry) = self.sessions.get_mut(&session) else { return Vec::new() };
        let taken: Vec<IpAddr> = std::mem::take(&mut entry.leases).into_keys().collect();
        self.pins[family(session)] -= taken.len();
        taken
    }

    /// Whether a session may be guarded or monitored. A quarantine is never refused for want of room.
    pub(super) fn check_room(&self, session: IpAddr) -> Result<(), Error> {
        if self.sessions.len() >= SESSIONS_MAX && self.entry(session).is_none() {
            return Err(Error::Full { limit: SESSIONS_MAX });
        }
        Ok(())
    }

    /// Changes what a session is; an entry that says nothing any more is dropped.
    pub(super) fn mark(&mut self, session: IpAddr, change: impl FnOnce(&mut Entry)) {
        let session = session.to_canonical();
        change(self.sessions.entry(session).or_default());
        self.tidy(session);
    }

    /// Books a lease that the packet filter was found to hold.
    pub(super) fn adopt(&mut self, session: IpAddr, destination: IpAddr, remaining: u64, now: u64) {
        let leases = &mut self.sessions.entry(session).or_default().leases;
        if leases.insert(destination, now.saturating_add(remaining)).is_none() {
            self.pins[family(session)] += 1;
        }
    }

    /// Guards and quarantines become those of `active`; leases stay only with sessions that are there and not
    /// quarantined.
    pub(super) fn reconcile(&mut self, active: &[Active]) -> Result<(), Error> {
        if active.len() > SESSIONS_MAX {
            return Err(Error::Full { limit: SESSIONS_MAX });
        }
        let mut old = std::mem::take(&mut self.sessions);
        self.pins = [0; 2];
        for &Active { session, guard, quarantined } in active {
            let session = session.to_canonical();
            let leases = match old.remove(&session) {
                Some(entry) if !quarantined => entry.leases,
                _ => HashMap::new(),
            };
            self.pins[family(session)] += leases.len();
            self.sessions.insert(session, Entry { guarded: guard, monitored: !guard, quarantined, leases });
        }
        Ok(())
    }

    /// Forgets leases that have ended.
    pub(super) fn sweep(&mut self, now: u64) {
        self.swept = now;
        let mut pins = [0; 2];
        self.sessions.retain(|session, entry| {
            entry.leases.retain(|_, end| *end > now);
            pins[family(*session)] += entry.leases.len();
            !entry.is_empty()
        });
        self.pins = pins;
    }

    /// What a command does where there is no kernel to ask.
    pub(super) fn apply(&mut self, command: &Command, now: u64) -> Result<(), Error> {
        match command {
            Command::Pin { session, destinations, lifetime } => {
                self.pin(*session, destinations, millis(*lifetime), now, &mut Vec::new()).map(drop)
            }
            Command::Unpin { session, destinations } => self.unpin(*session, destinations).map(drop),
            Command::Guard { session } => {
                self.check_room(*session)?;
                self.mark(*session, Entry::guard);
                Ok(())
            }
            Command::Unguard { session } => {
                self.check_room(*session)?;
                self.mark(*session, Entry::monitor);
                Ok(())
            }
            Command::Quarantine { session } => {
                self.take_leases(*session);
                self.mark(*session, |entry| entry.quarantined = true);
                Ok(())
            }
            Command::Release { session } => {
                self.mark(*session, |entry| entry.quarantined = false);
                Ok(())
            }
            Command::Remove { session } => {
                self.take_leases(*session);
                self.mark(*session, |entry| *entry = Entry::default());
                Ok(())
            }
        }
    }

    fn forget_lease(&mut self, session: IpAddr, destination: IpAddr) -> bool {
        let Some(entry) = self.sessions.get_mut(&session) else { return false };
        let held = entry.leases.remove(&destination).is_some();
        self.pins[family(session)] -= usize::from(held);
        self.tidy(session);
        held
    }

    fn tidy(&mut self, session: IpAddr) {
        if self.sessions.get(&session).is_some_and(Entry::is_empty) {
            self.sessions.remove(&session);
        }
    }
}

/// A lifetime in the kernel's unit, at most a week: no lease of ours may look like "for ever".
pub(super) fn millis(lifetime: std::time::Duration) -> u64 {
    const WEEK: u64 = 7 * 24 * 3600 * 1000;
    u64::try_from(lifetime.as_millis()).unwrap_or(WEEK).min(WEEK)
}

/// Whether destinations can be pinned or unpinned at all.
pub(super) fn check_destinations(session: IpAddr, destinations: &[IpAddr]) -> Result<(), Error> {
    if destinations.len() > DESTINATIONS_MAX {
        return Err(Error::TooMany(destinations.len()));
    }
    let session = session.to_canonical();
    match destinations.iter().find(|d| d.to_canonical().is_ipv4() != session.is_ipv4()) {
        Some(&destination) => Err(Error::Family { session, destination }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("test address")
    }

    fn session(n: u8) -> IpAddr {
        IpAddr::from([10, 77, 1, n])
    }

    fn to(n: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, n])
    }

    fn pin(n: u8, destinations: &[u8], lifetime: u64) -> Command {
        let destinations = destinations.iter().copied().map(to).collect();
        Command::Pin { session: session(n), destinations, lifetime: Duration::from_millis(lifetime) }
    }

    #[test]
    fn the_later_end_counts_and_only_changes_are_told() {
        let mut state = State::new(10);
        let mut journal = Vec::new();
        let first = state.pin(session(1), &[to(1)], 60_000, 0, &mut journal).expect("room");
        assert_eq!(first, [Lease { destination: to(1), remaining: 60_000, refreshed: false }]);
        assert_eq!(state.pin(session(1), &[to(1)], 10_000, 1_000, &mut journal).expect("room"), []);
        let later = state.pin(session(1), &[to(1), to(2)], 60_000, 1_000, &mut journal).expect("room");
        assert_eq!(later.iter().map(|lease| lease.refreshed).collect::<Vec<_>>(), [true, false]);
        assert_eq!(state.entry(session(1)).expect("held").leases[&to(1)], 61_000);
        state.undo(journal);
        assert!(state.entry(session(1)).is_none(), "taken back to the first");
        assert_eq!(state.pins(), [0, 0]);
    }

    #[test]
    fn a_full_set_is_an_error_until_something_ended() {
        let mut state = State::new(2);
        state.apply(&pin(1, &[1, 2], 5_000), 0).expect("room");
        assert!(matches!(state.apply(&pin(2, &[1], 5_000), 1_000), Err(Error::Full { limit: 2 })));
        state.apply(&pin(1, &[2], 9_000), 2_000).expect("a refresh needs no room");
        state.apply(&pin(2, &[1], 5_000), 6_000).expect("the first has ended");
        assert_eq!(state.pins(), [2, 0]);
    }

    #[test]
    fn one_session_cannot_hold_everything() {
        let mut state = State::new(1 << 20);
        let mut result = Ok(());
        for block in 0..=SESSION_LEASES_MAX / DESTINATIONS_MAX {
            let destinations = (0..DESTINATIONS_MAX).map(|n| IpAddr::from([198, 18, block as u8, n as u8])).collect();
            let lifetime = Duration::from_secs(60);
            result = state.apply(&Command::Pin { session: session(1), destinations, lifetime }, 0);
        }
        assert!(matches!(result, Err(Error::SessionFull { .. })));
        assert_eq!(state.pins(), [SESSION_LEASES_MAX, 0]);
        state.apply(&pin(2, &[1], 1_000), 0).expect("others have room");
    }

    #[test]
    fn families_do_not_mix_and_mapped_addresses_are_ipv4() {
        let mut state = State::new(10);
        let lifetime = Duration::from_secs(60);
        let mixed = Command::Pin { session: session(1), destinations: vec![ip("2001:db8::1")], lifetime };
        assert!(matches!(state.apply(&mixed, 0), Err(Error::Family { .. })));
        let mapped =
            Command::Pin { session: ip("::ffff:10.77.1.1"), destinations: vec![ip("::ffff:192.0.2.1")], lifetime };
        state.apply(&mapped, 0).expect("one family");
        assert!(state.entry(session(1)).expect("held").leases.contains_key(&to(1)));
        let long = Command::Pin { session: session(1), destinations: vec![to(1); DESTINATIONS_MAX + 1], lifetime };
        assert!(matches!(state.apply(&long, 0), Err(Error::TooMany(_))));
    }

    #[test]
    fn reconcile_keeps_the_leases_of_live_sessions_only() {
        let mut state = State::new(10);
        for n in 1..=3 {
            state.apply(&pin(n, &[1, 2], 60_000), 0).expect("room");
            state.apply(&Command::Guard { session: session(n) }, 0).expect("room");
        }
        let active = |n, guard, quarantined| Active { session: session(n), guard, quarantined };
        state.reconcile(&[active(1, false, false), active(2, true, true), active(4, true, false)]).expect("room");
        let entry = |n| state.entry(session(n)).map(|e| (e.guarded, e.monitored, e.quarantined, e.leases.len()));
        assert_eq!(entry(1), Some((false, true, false, 2)));
        assert_eq!(entry(2), Some((true, false, true, 0)));
        assert_eq!(entry(3), None);
        assert_eq!(entry(4), Some((true, false, false, 0)));
        assert_eq!(state.pins(), [2, 0]);
    }

    fn commands() -> impl Strategy<Value = Vec<(Command, u64)>> {
        let sessions = 1u8..4;
        let command = prop_oneof![
            6 => (sessions.clone(), proptest::collection::vec(0u8..12, 0..6), 0u64..90_000)
                .prop_map(|(n, to, lifetime)| pin(n, &to, lifetime)),
            1 => (sessions.clone(), proptest::collection::vec(0u8..12, 0..6)).prop_map(|(n, destinations)| {
                Command::Unpin { session: session(n), destinations: destinations.into_iter().map(to).collect() }
            }),
            1 => sessions.clone().prop_map(|n| Command::Guard { session: session(n) }),
            1 => sessions.clone().prop_map(|n| Command::Unguard { session: session(n) }),
            1 => sessions.clone().prop_map(|n| Command::Quarantine { session: session(n) }),
            1 => sessions.clone().prop_map(|n| Command::Release { session: session(n) }),
            1 => sessions.prop_map(|n| Command::Remove { session: session(n) }),
        ];
        proptest::collection::vec((command, 0u64..40_000), 0..80)
    }

    proptest! {
        #[test]
        fn no_pin_survives_a_revoke_and_counts_stay_true(commands in commands()) {
            let mut state = State::new(20);
            let mut now = 0;
            for (command, pause) in commands {
                now += pause;
                let who = command.session();
                let before = state.entry(who).cloned().unwrap_or_default();
                let result = state.apply(&command, now);
                let after = state.entry(who).cloned().unwrap_or_default();
                match &command {
                    Command::Pin { .. } => {
                        prop_assert!(!before.quarantined || result.is_err() || after.leases.is_empty());
                        for (destination, end) in before.leases.iter().filter(|(_, end)| **end > now) {
                            prop_assert!(after.leases.get(destination).is_some_and(|later| later >= end));
                        }
                    }
                    Command::Quarantine { .. } => prop_assert!(after.quarantined && after.leases.is_empty()),
                    Command::Remove { .. } => prop_assert_eq!(after.clone(), Entry::default()),
                    _ => {}
                }
                prop_assert!(!after.quarantined || after.leases.is_empty());
                let held: usize = state.entries().map(|(_, entry)| entry.leases.len()).sum();
                prop_assert_eq!(state.pins(), [held, 0]);
                prop_assert!(held <= 20);
                prop_assert!(state.entries().all(|(_, entry)| !entry.is_empty()), "no empty entries are kept");
            }
        }

        #[test]
        fn what_is_taken_back_was_never_there(
            first in proptest::collection::vec((0u8..8, 1u64..90_000), 0..8),
            second in proptest::collection::vec((0u8..8, 1u64..90_000), 0..8),
        ) {
            let mut state = State::new(100);
            for (n, lifetime) in first {
                state.apply(&pin(1, &[n], lifetime), 0).expect("room");
            }
            let before = state.entry(session(1)).cloned();
            let pins = state.pins();
            let mut journal = Vec::new();
            for (n, lifetime) in second {
                state.pin(session(1), &[to(n)], lifetime, 5, &mut journal).expect("room");
            }
            state.undo(journal);
            prop_assert_eq!(state.entry(session(1)).cloned(), before);
            prop_assert_eq!(state.pins(), pins);
        }
    }
}
