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

    /// Whether `ports` are open until `until`.
    fn covers(&self, ports: &Ports, until: u64) -> bool {
        self.leases.iter().any(|(open, end)| *end >= until && open.covers(ports))
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

    /// Whether what `asked` opens of `address` is open until `until` (mono milliseconds) at least. Allocates nothing.
    pub fn covers(&self, asked: &Asked<'_>, address: IpAddr, until: u64) -> bool {
        self.pins
            .get(&address)
            .is_some_and(|pin| pin.covers(asked.ports, until) && pin.is_as_wide(asked.volume) && pin.knows(asked.name))
    }

    /// Whether what `asked` opens of each of `addresses` is open until `until` at least; marks them as answered now, so that
    /// what is in use is evicted last. Allocates nothing.
    pub fn cover_all(&mut self, asked: &Asked<'_>, addresses: &[IpAddr], until: u64) -> bool {
        if !addresses.iter().all(|address| self.covers(asked, *address, until)) {
            return false;
        }
        self.answered += 1;
        for address in addresses {
            if let Some(pin) = self.pins.get_mut(address) {
                pin.answered = self.answered;
            }
        }
        true
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
mod tests {
    use super::*;
    use crate::pin::{PinPolicy, plan};
    use crate::ports::Port;
    use proptest::prelude::*;
    use staunch_scoring::NameBuf;
    use std::net::Ipv4Addr;
    use std::time::Duration;

    fn address(n: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from(0xc612_0000 + n))
    }

    fn name(text: &str) -> NameBuf {
        NameBuf::from_text(text).expect("name")
    }

    fn asked<'a>(name: &'a NameBuf, ports: &'a Ports) -> Asked<'a> {
        Asked { name: name.as_ref(), ports, volume: None, most: 10_000 }
    }

    const NONE: [Option<IpAddr>; 2] = [None; 2];

    #[test]
    fn the_least_recently_answered_makes_room_and_is_told() {
        let (www, web) = (name("www.example"), Ports::web());
        let asked = asked(&www, &web);
        let mut pins = SessionPins::new();
        let epoch = pins.epoch();
        for n in 0..SESSION_PINS_MAX as u32 {
            assert_eq!(pins.note(epoch, &asked, address(n), 1_000, 0), NONE);
        }
        assert!(pins.cover_all(&asked, &[address(0)], 1_000), "0 is in use again");
        pins.seen(address(1), 1);
        assert_eq!(pins.note(epoch, &asked, address(9_999), 1_000, 1), [Some(address(2)), None], "1 has an open flow");
        assert_eq!(pins.len(), SESSION_PINS_MAX);
        assert!(pins.covers(&asked, address(0), 1_000) && !pins.covers(&asked, address(2), 1));
        assert_eq!(pins.note(epoch, &asked, address(10_000), 2_000, 1_000), NONE, "ended ones make room first");
        assert_eq!(pins.len(), 2, "and the one with a flow stays");
        assert_eq!(pins.expire(LIVE + 2), 2);
        assert!(pins.is_empty() && pins.names.is_empty());
    }

    #[test]
    fn one_name_holds_so_many_addresses_and_no_more() {
        let (stores, www, web) = (name("objects.example"), name("www.example"), Ports::web());
        let few = Asked { most: 3, ..asked(&stores, &web) };
        let mut pins = SessionPins::new();
        let epoch = pins.epoch();
        for n in 0..3 {
            assert_eq!(pins.note(epoch, &few, address(n), 1_000, 0), NONE);
        }
        // Another name leads to the oldest as well: it is that name's too.
        assert_eq!(pins.note(epoch, &asked(&www, &web), address(0), 1_000, 0), NONE);
        pins.seen(address(1), 1);
        assert_eq!(pins.note(epoch, &few, address(3), 1_000, 0), [None, Some(address(2))]);
        assert_eq!(pins.note(epoch, &few, address(3), 2_000, 0), NONE, "known by now");
        assert_eq!(pins.len(), 3);
        assert_eq!(pins.names_of(address(0)), ["objects.example", "www.example"]);
    }

    #[test]
    fn an_acknowledgement_after_a_revoke_counts_for_nothing() {
        let (www, web) = (name("www.example"), Ports::web());
        let asked = asked(&www, &web);
        let mut pins = SessionPins::new();
        let before = pins.epoch();
        pins.revoke();
        assert_eq!(pins.note(before, &asked, address(1), 1_000, 0), NONE);
        assert!(pins.is_empty());
        assert_eq!(pins.note(pins.epoch(), &asked, address(1), 1_000, 0), NONE);
        assert!(pins.covers(&asked, address(1), 1_000));
    }

    #[test]
    fn a_lease_covers_its_ports_its_name_and_no_wider_volume() {
        let (www, api, web) = (name("www.example"), name("api.example"), Ports::web());
        let ssh = Ports::these([Port::tcp(22)]).expect("ports");
        let https = Ports::these([Port::tcp(443)]).expect("ports");
        let mut pins = SessionPins::new();
        let limited = Asked { volume: Some(100), ..asked(&www, &web) };
        assert_eq!(pins.note(pins.epoch(), &limited, address(1), 1_000, 0), NONE);
        assert!(pins.covers(&limited, address(1), 1_000));
        assert!(pins.covers(&Asked { ports: &https, ..limited }, address(1), 1_000), "as much is open already");
        assert!(!pins.covers(&Asked { ports: &ssh, ..limited }, address(1), 1_000));
        assert!(!pins.covers(&Asked { name: api.as_ref(), ..limited }, address(1), 1_000), "not by this name");
        assert!(!pins.covers(&Asked { volume: None, ..limited }, address(1), 1_000), "more may go out");
        assert!(pins.covers(&Asked { volume: Some(50), ..limited }, address(1), 1_000));
    }

    #[test]
    fn what_no_name_opens_any_more_is_closed() {
        let (www, api, web) = (name("www.example"), name("api.example"), Ports::web());
        let https = Ports::these([Port::tcp(443)]).expect("ports");
        let mut pins = SessionPins::new();
        let epoch = pins.epoch();
        for (name, n) in [(&www, 1), (&api, 1), (&api, 2)] {
            assert_eq!(pins.note(epoch, &asked(name, &web), address(n), 1_000, 0), NONE);
        }
        let all = |_: NameRef<'_>| Some((Ports::web(), None));
        let same = pins.tighten(all);
        assert!(!same.lost && same.keep.len() == 2 && pins.epoch() == epoch);
        let www_alone = |name: NameRef<'_>| (name == www.as_ref()).then(|| (Ports::web(), Some(5)));
        let tightened = pins.tighten(www_alone);
        assert_eq!(tightened.keep, [(address(1), vec![Ports::web()], Some(5))]);
        assert!(tightened.lost && pins.len() == 1 && pins.epoch() != epoch);
        assert_eq!(pins.note(epoch, &asked(&api, &web), address(2), 1_000, 0), NONE);
        assert_eq!(pins.len(), 1, "an answer that was under way finds the door closed");
        let fewer = pins.tighten(|_| Some((https.clone(), Some(5))));
        assert!(fewer.lost && fewer.keep == [(address(1), vec![https.clone()], Some(5))]);
        assert!(pins.covers(&Asked { volume: Some(5), ..asked(&www, &https) }, address(1), 1_000));
        let less = pins.tighten(|_| Some((https.clone(), Some(4))));
        assert!(less.lost, "less may go out than before");
        assert!(!pins.tighten(|_| Some((https.clone(), None))).lost, "more may");
    }

    #[test]
    fn a_volume_is_told_once_at_its_mark_and_once_at_its_limit() {
        let (www, web) = (name("www.example"), Ports::web());
        let mut pins = SessionPins::new();
        let limited = Asked { volume: Some(100), ..asked(&www, &web) };
        assert_eq!(pins.note(pins.epoch(), &limited, address(1), 1_000, 0), NONE);
        assert_eq!(pins.note(pins.epoch(), &asked(&www, &web), address(2), 1_000, 0), NONE);
        let mut used = |n, octets, limit| pins.used(address(n), octets, limit, Some(10));
        assert_eq!(used(1, 9, Some(100)), None);
        assert_eq!((used(1, 10, Some(100)), used(1, 11, Some(100))), (Some(Passed::Mark), None));
        assert_eq!((used(1, 100, Some(100)), used(1, 100, Some(100))), (Some(Passed::Limit), None));
        assert_eq!(used(2, 1_000_000, None), None, "a rule names it");
        assert_eq!(used(3, 1_000_000, None), None, "not known");
        assert_eq!(pins.details(0)[1].octets_out, 100);
    }

    /// What the packet filter would hold, told everything the session table is told.
    #[derive(Debug, Clone)]
    enum Step {
        Answer { addresses: Vec<u32>, ttl: u32, name: u8 },
        Pass { ms: u64 },
        Revoke,
        Tighten { names: u8 },
        LateAcknowledgement { address: u32 },
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (proptest::collection::vec(0u32..40, 1..5), 0u32..8_000, 0u8..4)
                .prop_map(|(addresses, ttl, name)| Step::Answer { addresses, ttl, name }),
            3 => (0u64..4_000_000).prop_map(|ms| Step::Pass { ms }),
            1 => Just(Step::Revoke),
            1 => any::<u8>().prop_map(|names| Step::Tighten { names }),
            1 => (0u32..40).prop_map(|address| Step::LateAcknowledgement { address }),
        ];
        proptest::collection::vec(step, 0..60)
    }

    proptest! {
        #[test]
        fn refresh_never_shortens_and_no_pin_survives_a_revoke(steps in steps()) {
            let seconds = Duration::from_secs;
            let policy = PinPolicy::new(seconds(60), seconds(3600), seconds(30)).expect("valid");
            let names: Vec<NameBuf> = (0..4).map(|n| name(&format!("n{n}.example"))).collect();
            let web = Ports::web();
            let mut pins = SessionPins::new();
            // By address: the end, and the names that opened it, as bits.
            let mut model: std::collections::HashMap<u32, (u64, u8)> = std::collections::HashMap::new();
            let (mut now, mut stale) = (0, pins.epoch());
            for step in steps {
                match step {
                    Step::Answer { addresses, ttl, name } => {
                        let end = now + plan(&policy, ttl).lifetime.as_millis() as u64;
                        for n in addresses {
                            let asked = asked(&names[usize::from(name)], &web);
                            prop_assert_eq!(pins.note(pins.epoch(), &asked, address(n), end, now), NONE);
                            let held = model.entry(n).or_default();
                            *held = (end.max(held.0), held.1 | 1 << name);
                        }
                    }
                    Step::Pass { ms } => {
                        now += ms;
                        pins.expire(now);
                        model.retain(|_, (end, _)| *end > now);
                    }
                    Step::Revoke => {
                        stale = pins.epoch();
                        pins.revoke();
                        model.clear();
                        prop_assert!(pins.is_empty());
                    }
                    Step::Tighten { names: allowed } => {
                        let number = |name: NameRef<'_>| names.iter().position(|known| known.as_ref() == name);
                        let before = pins.epoch();
                        let tightened = pins.tighten(|name| {
                            (allowed & 1 << number(name).unwrap_or(7) != 0).then(|| (Ports::web(), None))
                        });
                        let lost = model.values().any(|(_, names)| names & allowed == 0);
                        prop_assert_eq!(tightened.lost, lost);
                        model.retain(|_, (_, names)| { *names &= allowed; *names != 0 });
                        if lost {
                            stale = before;
                        }
                        prop_assert_eq!(tightened.keep.len(), model.len());
                    }
                    Step::LateAcknowledgement { address: n } => {
                        if stale != pins.epoch() {
                            prop_assert_eq!(pins.note(stale, &asked(&names[0], &web), address(n), u64::MAX, now), NONE);
                        }
                    }
                }
                for n in 0..40 {
                    let (end, by) = model.get(&n).copied().unwrap_or((0, 0));
                    let name = &names[by.trailing_zeros().min(3) as usize];
                    prop_assert_eq!(pins.covers(&asked(name, &web), address(n), end.max(now + 1)), end > now);
                    prop_assert!(!pins.covers(&asked(name, &web), address(n), end.max(now) + 1));
                }
                let named: usize = pins.names.values().sum();
                prop_assert_eq!(named, pins.pins.values().map(|pin| pin.names.len()).sum::<usize>());
            }
        }
    }
}
