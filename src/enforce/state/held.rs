//! The wanted state as a list, for somebody who is to want the same.

use std::net::IpAddr;

use super::{Entry, State, Target, Volume, family};
use crate::enforce::mark::FIRST_GENERATION;
use crate::enforce::wire::{Held, HeldLease, HeldVolume};
use crate::enforce::{Error, SESSION_LEASES_MAX, SESSION_VOLUMES_MAX, SESSIONS_MAX, VOLUMES_A_LEASE};

impl State {
    /// What is wanted of one session address.
    fn held_of(session: IpAddr, entry: &Entry, now: u64) -> Held {
        let lease = |(target, end): (&Target, &u64)| {
            let left_ms = end.checked_sub(now).filter(|left| *left > 0)?;
            Some(HeldLease { to: target.address, open: target.open, left_ms })
        };
        let volume = |(to, volume): (&IpAddr, &Volume)| HeldVolume { to: *to, limit: volume.limit, used: volume.used };
        Held {
            session,
            guard: entry.guarded.then_some(entry.class),
            monitored: entry.monitored,
            quarantined: entry.quarantined,
            leases: entry.leases.iter().filter_map(lease).collect(),
            volumes: entry.volumes.iter().map(volume).collect(),
        }
    }

    /// Everything that is wanted, by address, ascending, above `after` where one is given and at most about `octets` of it as
    /// a document, one address at least; and whether there is more.
    pub(in crate::enforce) fn held(&self, after: Option<IpAddr>, octets: usize, now: u64) -> (Vec<Held>, bool) {
        let mut sessions: Vec<IpAddr> =
            self.sessions.keys().copied().filter(|session| after.is_none_or(|after| *session > after)).collect();
        sessions.sort_unstable();
        let mut all = Vec::new();
        let mut length = 0;
        for session in sessions {
            let Some(entry) = self.sessions.get(&session) else { continue };
            if length >= octets {
                return (all, true);
            }
            let held = Self::held_of(session, entry, now);
            length += held.length();
            all.push(held);
        }
        (all, false)
    }

    /// Exactly `held` is wanted from now on. A session that stays as it is keeps its generation, so that its flows live on, and
    /// the larger of what is known of each volume; with an error everything stays as it was.
    pub(in crate::enforce) fn hold(&mut self, held: &[Held], now: u64) -> Result<(), Error> {
        if held.len() > SESSIONS_MAX {
            return Err(Error::Full { limit: SESSIONS_MAX });
        }
        let mut counts = [[0usize; 2]; 2];
        for one in held {
            let session = one.session.to_canonical();
            if one.leases.len() > SESSION_LEASES_MAX || one.volumes.len() > SESSION_VOLUMES_MAX {
                return Err(Error::SessionFull { session });
            }
            let mut all = one.leases.iter().map(|lease| lease.to).chain(one.volumes.iter().map(|volume| volume.to));
            if let Some(destination) = all.find(|to| to.to_canonical().is_ipv4() != session.is_ipv4()) {
                return Err(Error::Family { session, destination });
            }
            counts[0][family(session)] += one.leases.len();
            counts[1][family(session)] += one.volumes.len();
        }
        let [leases, volumes] = counts.map(|count| count.into_iter().max().unwrap_or(0));
        if leases > self.capacity || volumes > self.capacity * VOLUMES_A_LEASE as usize {
            return Err(Error::Full { limit: self.capacity });
        }
        self.counted.set(None);
        let mut old = std::mem::take(&mut self.sessions);
        for one in held {
            let session = one.session.to_canonical();
            let mut entry = old.remove(&session).unwrap_or_default();
            let goes_on = entry.guarded && entry.quarantined == one.quarantined && entry.generation >= FIRST_GENERATION;
            match one.guard {
                None => {
                    entry.generation = 0;
                    entry.retiring.clear();
                }
                Some(_) if goes_on => {}
                Some(_) => {
                    entry.generation = self.generation();
                    entry.retiring.clear();
                }
            }
            (entry.guarded, entry.monitored) = (one.guard.is_some(), one.monitored && one.guard.is_none());
            (entry.quarantined, entry.class) = (one.quarantined, one.guard.unwrap_or_default());
            let lease = |lease: &HeldLease| {
                let target = Target { address: lease.to.to_canonical(), open: lease.open };
                let left = super::millis(std::time::Duration::from_millis(lease.left_ms));
                (left > 0).then(|| (target, now.saturating_add(left)))
            };
            entry.leases =
                if one.quarantined { Default::default() } else { one.leases.iter().filter_map(lease).collect() };
            let before = std::mem::take(&mut entry.volumes);
            let volume = |told: &HeldVolume| {
                let to = told.to.to_canonical();
                let used = before.get(&to).map_or(0, |known| known.used).max(told.used);
                (to, Volume { limit: told.limit, used })
            };
            entry.volumes = one.volumes.iter().map(volume).collect();
            if !entry.is_empty() {
                self.sessions.insert(session, entry);
            }
        }
        // An address may have been told twice.
        (self.pins, self.volumes) = ([0; 2], [0; 2]);
        for (session, entry) in &self.sessions {
            self.pins[family(*session)] += entry.leases.len();
            self.volumes[family(*session)] += entry.volumes.len();
        }
        Ok(())
    }
}
