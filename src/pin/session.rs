//! What the packet filter has acknowledged for one session.

mod pin;

use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::HashMap;
use staunch_scoring::NameRef;

use self::pin::{Lease, Named, Pin};
use super::SESSION_PINS_MAX;
use crate::ports::Ports;

/// Names remembered for one address, the newest ones. An address that more names lead to is judged by these alone when
/// policy changes, so that it can only be closed too early.
const NAMES_OF_ADDRESS: usize = 8;

/// Which revoke a pin was ordered under. A pin acknowledged after a later one counts for nothing.
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
    /// By which word of the operator's own the name leads there, whatever policy says of it.
    pub by: Option<Word>,
}

/// A word of the operator's own. What it has opened is closed by that word alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// An authoritative zone of ours.
    Zone,
    /// A response policy zone's own records.
    PolicyZone,
    /// The block page.
    Page,
}

/// What the packet filter was ordered to hold for one session, and what of it it has acknowledged.
///
/// To be read and changed under the session's lock, in the order in which commands are submitted. What is ordered is here from
/// then on, so that a change of policy judges it; what is acknowledged covers answers.
#[derive(Debug, Default)]
pub struct SessionPins {
    pins: HashMap<IpAddr, Pin, foldhash::fast::RandomState>,
    /// In wire form, with the number of addresses each leads to.
    names: HashMap<Arc<[u8]>, usize, foldhash::quality::RandomState>,
    epoch: u64,
    answered: u64,
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
    /// Whether the packet filter has acknowledged all of that for every address that the session has now.
    pub confirmed: bool,
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

    /// To be read when a pin is ordered and given to [`SessionPins::acknowledge`] with its acknowledgement.
    pub fn epoch(&self) -> Epoch {
        Epoch(self.epoch)
    }

    /// Until when (mono milliseconds) what `asked` opens of `address` is open; `None` where some of it is not. Allocates nothing.
    fn open_until(&self, asked: &Asked<'_>, address: IpAddr) -> Option<u64> {
        let pin = self.pins.get(&address).filter(|pin| pin.is_as_wide(asked.volume) && pin.holds(asked.name))?;
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

    /// Books that `asked` was ordered for `addresses`, those of one answer, until `end` (mono milliseconds), which must be
    /// reckoned from before the order, so that the kernel's is never earlier. It covers nothing yet.
    ///
    /// Gives the addresses that had to make room, which the caller unpins ahead of the order. None of the answer's own is among
    /// them: an answer that has more addresses than its name may hold open has all of them open.
    #[must_use = "an evicted address must be unpinned"]
    pub fn order(&mut self, asked: &Asked<'_>, addresses: &[IpAddr], end: u64, now: u64) -> Vec<IpAddr> {
        self.answered += 1;
        let mut evicted = Vec::new();
        for address in addresses {
            if !self.pins.contains_key(address) {
                if self.pins.len() >= SESSION_PINS_MAX {
                    self.expire(now);
                }
                if self.pins.len() >= SESSION_PINS_MAX {
                    evicted.extend(self.evict(now, |other, _| !addresses.contains(other)));
                }
            }
            if !self.pins.get(address).is_some_and(|pin| pin.knows(asked.name)) {
                let most = asked.most.max(addresses.len());
                if self.held_by(asked.name) >= most {
                    self.expire_some(now, |pin| pin.knows(asked.name));
                }
                if self.held_by(asked.name) >= most {
                    evicted.extend(self.evict(now, |other, pin| {
                        !addresses.contains(other) && pin.names.len() == 1 && pin.knows(asked.name)
                    }));
                }
                self.name(*address, asked.name);
            }
            let pin = self.pins.entry(*address).or_default();
            if let Some(named) = pin.find_mut(asked.name) {
                named.by = asked.by;
            }
            pin.answered = self.answered;
            pin.ordered = Some(widest(pin.ordered, asked.volume));
            pin.leases.retain(|lease| lease.ordered > now);
            match pin.leases.iter_mut().find(|lease| lease.ports == *asked.ports) {
                Some(lease) => lease.ordered = end.max(lease.ordered),
                None => pin.leases.push(Lease { ports: asked.ports.clone(), end: 0, held: 0, ordered: end }),
            }
        }
        evicted
    }

    /// Books that the packet filter has acknowledged what [`SessionPins::order`] was told; the later end of old and new counts.
    /// `false`, and nothing is covered, where a revoke came after `epoch` was read.
    #[must_use = "what was revoked must not be shown"]
    pub fn acknowledge(&mut self, epoch: Epoch, asked: &Asked<'_>, addresses: &[IpAddr], end: u64) -> bool {
        if epoch.0 != self.epoch {
            return false;
        }
        let mut held = true;
        for address in addresses {
            let pin = self.pins.get_mut(address);
            // Where it is gone, another answer has made room for itself meanwhile. The name alone may be gone: newer ones have
            // taken its place.
            let found = pin.is_some_and(|pin| {
                let lease = pin.leases.iter_mut().find(|lease| lease.ports == *asked.ports);
                let Some(lease) = lease else { return false };
                lease.end = end.max(lease.end);
                lease.held = lease.held.max(lease.end);
                // Another order for the same may have been taken back meanwhile.
                lease.ordered = lease.ordered.max(lease.end);
                if let Some(named) = pin.find_mut(asked.name) {
                    named.is_held = true;
                }
                pin.volume = Some(widest(pin.volume, asked.volume));
                pin.ordered = Some(widest(pin.ordered, asked.volume));
                true
            });
            held &= found;
        }
        held
    }

    /// Takes back an order that the packet filter has not taken, or not all of it. What was acknowledged before stays; gives the
    /// addresses of which nothing does.
    #[must_use = "some of them may be open and must be unpinned"]
    pub fn refused(&mut self, asked: &Asked<'_>, addresses: &[IpAddr]) -> Vec<IpAddr> {
        let mut forgotten = Vec::new();
        for address in addresses {
            let Some(pin) = self.pins.get_mut(address) else { continue };
            pin.leases.retain(|lease| lease.held > 0 || lease.ports != *asked.ports);
            for lease in pin.leases.iter_mut().filter(|lease| lease.ports == *asked.ports) {
                lease.ordered = lease.held;
            }
            pin.ordered = pin.volume;
            let is_other = |known: &Named| known.is_held || *known.name != *asked.name.as_wire();
            let gone = pin.names.iter().position(|known| !is_other(known)).map(|at| pin.names.remove(at).name);
            let is_over = pin.leases.is_empty() && pin.live == 0;
            if let Some(name) = gone {
                self.unname(&name);
            }
            if is_over {
                self.forget(*address);
                forgotten.push(*address);
            }
        }
        forgotten
    }

    /// What is acknowledged is so for some addresses of the session alone, since it has gained one: nothing covers an answer
    /// until it is acknowledged anew. What is open stays known, so that a change of policy closes it.
    pub fn uncover(&mut self) {
        for lease in self.pins.values_mut().flat_map(|pin| &mut pin.leases) {
            lease.end = 0;
        }
        self.epoch += 1;
    }

    /// Notes that a flow to `address` is open.
    pub fn seen(&mut self, address: IpAddr, now: u64) {
        if let Some(pin) = self.pins.get_mut(&address) {
            pin.live = now;
        }
    }

    /// Notes what has gone out to `address`. What that has passed for the first time: `mark`, where no name that leads there is
    /// `listed`, or the limit in force. A reading beyond both tells of the limit alone.
    pub fn used(
        &mut self,
        address: IpAddr,
        octets: u64,
        limit: Option<u64>,
        mark: Option<u64>,
        listed: impl Fn(NameRef<'_>) -> bool,
    ) -> Option<Passed> {
        let pin = self.pins.get_mut(&address)?;
        pin.used = pin.used.max(octets);
        if limit.is_some_and(|limit| pin.used >= limit) && !pin.spent {
            (pin.spent, pin.warned) = (true, true);
            return Some(Passed::Limit);
        }
        // By what policy says now, and not by the limit: a profile may be without one.
        if !pin.warned && mark.is_some_and(|mark| pin.used >= mark) && pin.is_unlisted(listed) {
            pin.warned = true;
            return Some(Passed::Mark);
        }
        None
    }

    /// Forgets pins that have ended and have no open flow, and gives memory back; how many.
    pub fn expire(&mut self, now: u64) -> usize {
        let ended = self.expire_some(now, |_| true);
        if self.pins.len() * 4 < self.pins.capacity() {
            self.pins.shrink_to_fit();
            self.names.shrink_to_fit();
        }
        ended
    }

    /// The same for some of them, and no memory is given back.
    fn expire_some(&mut self, now: u64, which: impl Fn(&Pin) -> bool) -> usize {
        let over = |pin: &Pin| pin.ends() <= now && !pin.is_live(now) && which(pin);
        let ended: Vec<IpAddr> = self.pins.iter().filter(|(_, pin)| over(pin)).map(|(address, _)| *address).collect();
        for address in &ended {
            self.forget(*address);
        }
        ended.len()
    }

    /// Addresses that `name` holds open.
    fn held_by(&self, name: NameRef<'_>) -> usize {
        self.names.get(name.as_wire()).copied().unwrap_or(0)
    }

    /// Nothing is covered any more, and no acknowledgement under way will change that. To be called in the same
    /// critical section in which the quarantine (or whatever revokes) is submitted.
    pub fn revoke(&mut self) {
        self.pins = HashMap::default();
        self.names = HashMap::default();
        self.epoch += 1;
    }

    /// Judges every name that holds something open, or was ordered to, anew: `opens` gives what it opens now and how much may
    /// go out, or nothing, and `shows` whether an address may be had by it. `word` gives the same of what a word of the
    /// operator's own leads to. What no name opens any more is forgotten, and then no acknowledgement under way counts. To be called in
    /// the same critical section in which the packet filter is told.
    pub fn tighten(
        &mut self,
        mut opens: impl FnMut(NameRef<'_>) -> Option<(Ports, Option<u64>)>,
        shows: impl Fn(NameRef<'_>, IpAddr) -> bool,
        word: impl Fn(Word, NameRef<'_>, IpAddr) -> Option<(Ports, Option<u64>)>,
    ) -> Tightened {
        let judged: HashMap<Arc<[u8]>, (Ports, Option<u64>), foldhash::quality::RandomState> =
            self.names.keys().filter_map(|name| Some((name.clone(), opens(NameRef::from_wire(name).ok()?)?))).collect();
        let (mut tightened, mut is_late) = (Tightened::default(), false);
        for (address, pin) in &mut self.pins {
            let before = pin.names.len();
            let mut ports: Vec<Ports> = Vec::new();
            let mut volume: Option<Option<u64>> = None;
            pin.names.retain(|Named { name, by, .. }| {
                let opens = NameRef::from_wire(name).ok().and_then(|named| match by {
                    Some(by) => word(*by, named, *address),
                    None => judged.get(name).filter(|_| shows(named, *address)).cloned(),
                });
                let Some((open, limit)) = opens else {
                    // Be it held or not: an answer by it may be under way once more.
                    is_late = true;
                    if let Some(count) = self.names.get_mut(name) {
                        *count -= 1;
                    }
                    return false;
                };
                if !ports.contains(&open) {
                    ports.push(open);
                }
                volume = Some(volume.map_or(limit, |held| held.zip(limit).map(|(a, b)| a.max(b))));
                true
            });
            // A lease stays as far as a name opens it.
            let narrowed = |open: &Ports| ports.iter().filter_map(|now| now.intersection(open)).collect::<Vec<_>>();
            let mut leases: Vec<Lease> = Vec::with_capacity(pin.leases.len());
            for Lease { ports: open, end, held, ordered } in &pin.leases {
                tightened.lost |= !ports.iter().any(|now| now.covers(open));
                let narrowed = narrowed(open).into_iter();
                // What is left of a lease may be another element by now, which may have found no room: it covers nothing before it
                // is acknowledged.
                let ends = |ports: &Ports| if ports.stands_in(open) { *end } else { 0 };
                leases.extend(narrowed.map(|ports| Lease { end: ends(&ports), ports, held: *held, ordered: *ordered }));
            }
            tightened.lost |= before > pin.names.len() && pin.names.is_empty();
            let limit = volume.unwrap_or_default();
            tightened.lost |= volume.is_some() && pin.ordered.is_some_and(|held| is_less(limit, held));
            pin.leases = leases;
            // What is wider than before is not so in the packet filter, as long as nobody orders it.
            pin.volume = pin.volume.zip(volume).map(|(held, now)| if is_less(held, now) { held } else { now });
            pin.ordered = volume;
            if !ports.is_empty() {
                tightened.keep.push((*address, ports, limit));
            }
        }
        self.names.retain(|_, count| *count > 0);
        self.pins.retain(|_, pin| !pin.names.is_empty());
        // Who awaits an acknowledgement by a name that is denied must not take it for a leave.
        if tightened.lost || is_late {
            self.epoch += 1;
        }
        tightened
    }

    /// Names that lead to `address`, escaped, the newest last.
    pub fn names_of(&self, address: IpAddr) -> Vec<String> {
        self.pins.get(&address).map_or(Vec::new(), |pin| pin.names.iter().filter_map(Named::shown).collect())
    }

    /// Every address, those in use first.
    pub fn details(&self, now: u64) -> Vec<Details> {
        let mut all: Vec<(u64, Details)> = self
            .pins
            .iter()
            .map(|(address, pin)| {
                let details = Details {
                    address: *address,
                    leases: pin.leases.iter().map(|lease| (lease.ports.clone(), lease.ordered)).collect(),
                    confirmed: pin
                        .leases
                        .iter()
                        .filter(|lease| lease.ordered > now)
                        .all(|lease| lease.end >= lease.ordered),
                    names: pin.names.iter().filter_map(Named::shown).collect(),
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
        pin.names.push(Named { name: shared, is_held: false, by: None });
        if pin.names.len() > NAMES_OF_ADDRESS {
            let oldest = pin.names.remove(0).name;
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
        for known in self.pins.remove(&address).map(|pin| pin.names).unwrap_or_default() {
            self.unname(&known.name);
        }
    }

    /// Forgets the least recently answered of some, one without an open flow where there is one; which. A walk over all of
    /// them, some microseconds; only met beyond ordinary use.
    fn evict(&mut self, now: u64, which: impl Fn(&IpAddr, &Pin) -> bool) -> Option<IpAddr> {
        let candidates = self.pins.iter().filter(|(address, pin)| which(address, pin));
        let oldest = candidates.min_by_key(|(_, pin)| (pin.is_live(now), pin.answered)).map(|(address, _)| *address)?;
        self.forget(oldest);
        Some(oldest)
    }
}

/// The wider of what is held, where anything is, and another limit; no end is widest.
fn widest(held: Option<Option<u64>>, limit: Option<u64>) -> Option<u64> {
    held.map_or(limit, |held| held.zip(limit).map(|(held, more)| held.max(more)))
}

/// Whether a limit is less than another; no end is most.
fn is_less(limit: Option<u64>, than: Option<u64>) -> bool {
    limit.is_some_and(|limit| than.is_none_or(|than| limit < than))
}

#[cfg(test)]
mod tests;
