//! What the packet filter has acknowledged for one session.

use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::HashMap;
use staunch_scoring::NameRef;

use super::SESSION_PINS_MAX;
use crate::ports::Ports;

/// Names remembered for one address, the newest ones. An address that more names lead to is judged by these alone when
/// policy changes, so that it can only be closed too early.
const NAMES_OF_ADDRESS: usize = 8;

/// How long an address without a lease is remembered behind the last sign of an open flow to it, milliseconds: several looks
/// at the flows of a busy host.
const LIVE: u64 = 120_000;

/// Which revoke a pin was planned under. A pin acknowledged after a later one counts for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Epoch(u64);

/// What an answer opens.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The name that was asked for.
    pub name: NameRef<'a>,
    /// What is opened of each address.
    pub ports: &'a Ports,
    /// Octets that may go out to each address; no end without one.
    pub volume: Option<u64>,
    /// Addresses that one name may hold open; the least recently answered one gives way.
    pub most: usize,
}

/// What the packet filter has acknowledged for one session.
///
/// To be read and changed under the session's lock, in the order in which commands are submitted.
#[derive(Debug, Default)]
pub struct SessionPins {
    pins: HashMap<IpAddr, Pin, foldhash::fast::RandomState>,
    /// In wire form, with the number of addresses each leads to.
    names: HashMap<Arc<[u8]>, usize, foldhash::quality::RandomState>,
    epoch: u64,
    answered: u64,
}

#[derive(Debug, Default)]
struct Pin {
    /// Ports with the end of their lease, mono milliseconds.
    leases: Vec<(Ports, u64)>,
    /// Newest last.
    names: Vec<Arc<[u8]>>,
    /// The widest limit that a name gave; `Some(None)` for no end.
    volume: Option<Option<u64>>,
    /// Counts up with every answer.
    answered: u64,
    /// When a flow to it was last seen, mono milliseconds.
    live: u64,
    used: u64,
    warned: bool,
    spent: bool,
}

impl Pin {
    fn ends(&self) -> u64 {
        self.leases.iter().map(|(_, end)| *end).max().unwrap_or(0)
    }

    fn is_live(&self, now: u64) -> bool {
        self.live > 0 && now <= self.live + LIVE
    }

    /// Until when `ports` are open.
    fn open_until(&self, ports: &Ports) -> Option<u64> {
        self.leases.iter().filter(|(open, _)| open.covers(ports)).map(|(_, end)| *end).max()
    }

    fn is_as_wide(&self, volume: Option<u64>) -> bool {
        match (self.volume, volume) {
            (Some(None), _) => true,
            (Some(Some(held)), Some(wanted)) => held >= wanted,
            (Some(Some(_)), None) | (None, _) => false,
        }
    }

    fn knows(&self, name: NameRef<'_>) -> bool {
        self.names.iter().any(|known| **known == *name.as_wire())
    }
}

/// What a change of policy leaves open.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tightened {
    /// Each address with the ports that its names open now, and how much may go out to it.
    pub keep: Vec<(IpAddr, Vec<Ports>, Option<u64>)>,
    /// Whether anything is closed, or limited more than before.
    pub lost: bool,
}

/// One address, for people.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Details {
    /// The address.
    pub address: IpAddr,
    /// What is open, each with the end of its lease in mono milliseconds; past ones are those of open flows.
    pub leases: Vec<(Ports, u64)>,
    /// Names that lead there, escaped.
    pub names: Vec<String>,
    /// Whether a flow to it was seen lately.
    pub live: bool,
    /// Octets that have gone out, as last told.
    pub octets_out: u64,
    /// Octets that may go out; no end without one.
    pub octets_limit: Option<u64>,
}

/// What a reading of a volume has passed for the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passed {
    /// The mark at which somebody is told.
    Mark,
    /// The limit: nothing more goes out.
    Limit,
}

impl SessionPins {
    /// Nothing pinned.
    pub fn new() -> Self {
        Self::default()
    }

    /// To be read before a pin is submitted and given to [`SessionPins::note`] with its acknowledgement.
    pub fn epoch(&self) -> Epoch {
        Epoch(self.epoch)
    }

    /// Until when (mono milliseconds) what `asked` opens of `address` is open; `None` where some of it is not. Allocates nothing.
    fn open_until(&self, asked: &Asked<'_>, address: IpAddr) -> Option<u64> {
        let pin = self.pins.get(&address).filter(|pin| pin.is_as_wide(asked.volume) && pin.knows(asked.name))?;
        pin.open_until(asked.ports)
    }

    /// Whether what `asked` opens of `address` is open until `until` (mono milliseconds) at least. Allocates nothing.
    pub fn covers(&self, asked: &Asked<'_>, address: IpAddr, until: u64) -> bool {
        self.open_until(asked, address).is_some_and(|end| end >= until)
    }

    /// Whether what `asked` opens of each of `addresses` is open until `until` at least; marks them as answered now, so that
    /// what is in use is evicted last. Allocates nothing.
    pub fn cover_all(&mut self, asked: &Asked<'_>, addresses: &[IpAddr], until: u64) -> bool {
        self.all_open_until(asked, addresses, until).is_some()
    }

    /// Until when what `asked` opens of all `addresses` is open, where that is `least` (mono milliseconds) or later; marks them
    /// as answered now, so that what is in use is evicted last. Allocates nothing.
    pub fn all_open_until(&mut self, asked: &Asked<'_>, addresses: &[IpAddr], least: u64) -> Option<u64> {
        let mut end = u64::MAX;
        for address in addresses {
            end = end.min(self.open_until(asked, *address)?);
        }
        if end < least {
            return None;
        }
        self.answered += 1;
        for address in addresses {
            if let Some(pin) = self.pins.get_mut(address) {
                pin.answered = self.answered;
            }
        }
        Some(end)
    }

    /// Books an acknowledged pin that ends at `end` (mono milliseconds); the later end of old and new counts. `end`
    /// must be reckoned from before the pin was submitted, so that the kernel's is never earlier.
    ///
    /// Gives the addresses that had to make room, which the caller unpins: at most one for the name and one for the session.
    /// Does nothing where a revoke came after `epoch` was read.
    #[must_use = "an evicted address must be unpinned"]
    pub fn note(
        &mut self,
        epoch: Epoch,
        asked: &Asked<'_>,
        address: IpAddr,
        end: u64,
        now: u64,
    ) -> [Option<IpAddr>; 2] {
        if epoch.0 != self.epoch {
            return [None; 2];
        }
        self.answered += 1;
        let mut evicted = [None; 2];
        if !self.pins.contains_key(&address) {
            if self.pins.len() >= SESSION_PINS_MAX {
                self.expire(now);
            }
            if self.pins.len() >= SESSION_PINS_MAX {
                evicted[0] = self.evict(now, |_| true);
            }
        }
        if !self.pins.get(&address).is_some_and(|pin| pin.knows(asked.name)) {
            let held = self.names.get(asked.name.as_wire()).copied().unwrap_or(0);
            if held >= asked.most.max(1) {
                evicted[1] = self.evict(now, |pin| pin.names.len() == 1 && pin.knows(asked.name));
            }
            self.name(address, asked.name);
        }
        let pin = self.pins.entry(address).or_default();
        pin.answered = self.answered;
        pin.volume = Some(match pin.volume {
            None => asked.volume,
            Some(held) => held.zip(asked.volume).map(|(held, more)| held.max(more)),
        });
        pin.leases.retain(|(_, end)| *end > now);
        match pin.leases.iter_mut().find(|(ports, _)| ports == asked.ports) {
            Some((_, held)) => *held = end.max(*held),
            None => pin.leases.push((asked.ports.clone(), end)),
        }
        evicted
    }

    /// Notes that a flow to `address` is open.
    pub fn seen(&mut self, address: IpAddr, now: u64) {
        if let Some(pin) = self.pins.get_mut(&address) {
            pin.live = now;
        }
    }

    /// Notes what has gone out to `address`. What that has passed for the first time: `mark`, or the limit in force. A reading
    /// beyond both tells of the limit alone.
    pub fn used(&mut self, address: IpAddr, octets: u64, limit: Option<u64>, mark: Option<u64>) -> Option<Passed> {
        let pin = self.pins.get_mut(&address)?;
        pin.used = pin.used.max(octets);
        let limited = matches!(pin.volume, Some(Some(_)));
        if limit.is_some_and(|limit| pin.used >= limit) && !pin.spent {
            (pin.spent, pin.warned) = (true, true);
            return Some(Passed::Limit);
        }
        let marked = limited && mark.is_some_and(|mark| pin.used >= mark);
        if marked && !pin.warned {
            pin.warned = true;
            return Some(Passed::Mark);
        }
        None
    }

    /// Forgets pins that have ended and have no open flow, and gives memory back; how many.
    pub fn expire(&mut self, now: u64) -> usize {
        let over = |pin: &Pin| pin.ends() <= now && !pin.is_live(now);
        let ended: Vec<IpAddr> = self.pins.iter().filter(|(_, pin)| over(pin)).map(|(address, _)| *address).collect();
        for address in &ended {
            self.forget(*address);
        }
        if self.pins.len() * 4 < self.pins.capacity() {
            self.pins.shrink_to_fit();
            self.names.shrink_to_fit();
        }
        ended.len()
    }

    /// Nothing is covered any more, and no acknowledgement under way will change that. To be called in the same
    /// critical section in which the quarantine (or whatever revokes) is submitted.
    pub fn revoke(&mut self) {
        self.pins = HashMap::default();
        self.names = HashMap::default();
        self.epoch += 1;
    }

    /// Judges every name that holds something open anew: `opens` gives what it opens now and how much may go out, or
    /// nothing. What no name opens any more is forgotten, and no acknowledgement under way counts. To be called in the same
    /// critical section in which the packet filter is told.
    pub fn tighten(&mut self, mut opens: impl FnMut(NameRef<'_>) -> Option<(Ports, Option<u64>)>) -> Tightened {
        let judged: HashMap<Arc<[u8]>, (Ports, Option<u64>), foldhash::quality::RandomState> =
            self.names.keys().filter_map(|name| Some((name.clone(), opens(NameRef::from_wire(name).ok()?)?))).collect();
        let mut tightened = Tightened::default();
        for (address, pin) in &mut self.pins {
            let before = pin.names.len();
            pin.names.retain(|name| judged.contains_key(name));
            let mut ports: Vec<Ports> = Vec::new();
            let mut volume: Option<Option<u64>> = None;
            for (open, limit) in pin.names.iter().filter_map(|name| judged.get(name)) {
                if !ports.contains(open) {
                    ports.push(open.clone());
                }
                volume = Some(volume.map_or(*limit, |held| held.zip(*limit).map(|(a, b)| a.max(b))));
            }
            // A lease stays as far as a name opens it.
            let narrowed = |open: &Ports| ports.iter().filter_map(|now| now.intersection(open)).collect::<Vec<_>>();
            let mut leases: Vec<(Ports, u64)> = Vec::with_capacity(pin.leases.len());
            for (open, end) in &pin.leases {
                tightened.lost |= !ports.iter().any(|now| now.covers(open));
                leases.extend(narrowed(open).into_iter().map(|open| (open, *end)));
            }
            tightened.lost |= before > pin.names.len() && pin.names.is_empty();
            let limit = volume.unwrap_or_default();
            tightened.lost |= volume.is_some() && pin.volume.is_some_and(|held| is_less(limit, held));
            pin.leases = leases;
            pin.volume = volume;
            if !ports.is_empty() {
                tightened.keep.push((*address, ports, limit));
            }
        }
        self.names.retain(|name, _| judged.contains_key(name));
        self.pins.retain(|_, pin| !pin.names.is_empty());
        if tightened.lost {
            self.epoch += 1;
        }
        tightened
    }

    /// Names that lead to `address`, escaped, the newest last.
    pub fn names_of(&self, address: IpAddr) -> Vec<String> {
        let names = self.pins.get(&address).map_or(&[][..], |pin| &pin.names);
        names.iter().filter_map(|wire| NameRef::from_wire(wire).map(|name| name.to_string()).ok()).collect()
    }

    /// Every address, those in use first.
    pub fn details(&self, now: u64) -> Vec<Details> {
        let mut all: Vec<(u64, Details)> = self
            .pins
            .iter()
            .map(|(address, pin)| {
                let name = |wire: &Arc<[u8]>| NameRef::from_wire(wire).map(|name| name.to_string()).ok();
                let details = Details {
                    address: *address,
                    leases: pin.leases.clone(),
                    names: pin.names.iter().filter_map(name).collect(),
                    live: pin.is_live(now),
                    octets_out: pin.used,
                    octets_limit: pin.volume.flatten(),
                };
                (pin.answered, details)
            })
            .collect();
        all.sort_unstable_by_key(|(answered, details)| (std::cmp::Reverse(*answered), details.address));
        all.into_iter().map(|(_, details)| details).collect()
    }

    /// Addresses remembered.
    pub fn len(&self) -> usize {
        self.pins.len()
    }

    /// Whether none is remembered.
    pub fn is_empty(&self) -> bool {
        self.pins.is_empty()
    }

    fn name(&mut self, address: IpAddr, name: NameRef<'_>) {
        let shared = match self.names.get_key_value(name.as_wire()) {
            Some((shared, _)) => shared.clone(),
            None => Arc::from(name.as_wire()),
        };
        *self.names.entry(shared.clone()).or_default() += 1;
        let pin = self.pins.entry(address).or_default();
        pin.names.push(shared);
        if pin.names.len() > NAMES_OF_ADDRESS {
            let oldest = pin.names.remove(0);
            self.unname(&oldest);
        }
    }

    fn unname(&mut self, name: &Arc<[u8]>) {
        if let Some(count) = self.names.get_mut(name) {
            *count -= 1;
            if *count == 0 {
                self.names.remove(name);
            }
        }
    }

    fn forget(&mut self, address: IpAddr) {
        for name in self.pins.remove(&address).map(|pin| pin.names).unwrap_or_default() {
            self.unname(&name);
        }
    }

    /// Forgets the least recently answered of some, one without an open flow where there is one; which. A walk over all of
    /// them, some microseconds; only met beyond ordinary use.
    fn evict(&mut self, now: u64, which: impl Fn(&Pin) -> bool) -> Option<IpAddr> {
        let candidates = self.pins.iter().filter(|(_, pin)| which(pin));
        let oldest = candidates.min_by_key(|(_, pin)| (pin.is_live(now), pin.answered)).map(|(address, _)| *address)?;
        self.forget(oldest);
        Some(oldest)
    }
}

/// Whether a limit is less than another; no end is most.
fn is_less(limit: Option<u64>, than: Option<u64>) -> bool {
    limit.is_some_and(|limit| than.is_none_or(|than| limit < than))
}

#[cfg(test)]
mod tests;
