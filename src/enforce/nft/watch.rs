//! Keeping watch: what was there at start, whether the table still stands, and putting it back.
//!
//! nf_tables counts its commits. As long as the count moves by our own alone, nobody else has changed anything; when
//! it does not, handles of table and rules are compared at once, and elements as often as the time it takes allows.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::super::netlink::{DUMP_TRIES, NetlinkError};
use super::pace::{Due, Work};
use super::sets::{self, Element, Held, Key, Kind, MSG_GETSETELEM, MSG_NEWSETELEM, Set, lease_kind, volume_kind};
use super::table::{self, PROBE};
use super::{Change, MESSAGE_ELEMENTS, NLM_F_CREATE, Nft, Refresh, intervals, kernel};
use crate::enforce::state::Volume;
use crate::enforce::{Error, Health};

pub(super) const SUBSYS: u16 = 10 << 8;
pub(super) const INET: u8 = 1;

/// Table and rules are compared this often even if nobody seems to have changed anything: cheap, and our own count
/// of commits may be off by one that changed nothing.
const STRUCTURE_EVERY: Duration = Duration::from_secs(1);
/// Ended leases are forgotten this often, milliseconds.
const SWEEP_EVERY: u64 = 10_000;
/// Comparing the pins may take this share of the owner's processor time (one part in so many). The kernel needs half a second
/// for 100,000.
const PIN_CHECK_SHARE: u32 = 50;
/// The same for guards and quarantines, which are few and matter more.
const MEMBER_CHECK_SHARE: u32 = 5;
/// A kernel lease may end this much before the wanted one (its clock ticks coarsely, and time passes while it is
/// read), milliseconds.
pub(super) const SLACK: u64 = 1_000;

/// What the table looked like when it was last known to be good.
#[derive(Debug, Default)]
pub(super) struct Standing {
    table: u64,
    rules: Vec<u64>,
    generation: u32,
    structure_due: Option<Instant>,
    members: Due,
    pins: Due,
    swept: u64,
}

impl Standing {
    /// A commit of ours succeeded. The kernel's count never is zero.
    pub(super) fn changed_by_us(&mut self) {
        self.generation = self.generation.wrapping_add(1).max(1);
    }
}

impl Nft {
    /// The first installation: settles ownership, and rebuilds a table whose sets have another shape.
    pub(super) fn install_first(&mut self) -> Result<(), Error> {
        let reshaped = !self.same_size().map_err(|error| kernel(&error, "look at the sets"))?;
        let mut rebuild = reshaped;
        loop {
            match self.install(rebuild) {
                Ok(()) => break,
                // Whether a table has an owner is settled when it is made; one that was made otherwise is made anew.
                Err(NetlinkError::Refused(refusal))
                    if refusal.errno == libc::EOPNOTSUPP
                        && !rebuild
                        && self.table_handle().is_ok_and(|table| table.is_some()) =>
                {
                    rebuild = true;
                }
                Err(NetlinkError::Refused(refusal)) if refusal.errno == libc::EOPNOTSUPP && self.layout.owned => {
                    rebuild = reshaped;
                    tracing::info!("the kernel cannot keep others from changing the table; it is watched instead");
                    self.layout.owned = false;
                }
                Err(NetlinkError::Refused(refusal))
                    if [libc::EEXIST, libc::EBUSY, libc::EINVAL].contains(&refusal.errno) && !rebuild =>
                {
                    rebuild = true;
                }
                Err(error) if error.errno() == Some(libc::EPERM) => {
                    return Err(Error::Kernel {
                        doing: "build the table",
                        source: std::io::Error::from_raw_os_error(libc::EPERM),
                        words: " (CAP_NET_ADMIN is missing, or another process owns the table)".into(),
                    });
                }
                Err(error) => return Err(kernel(&error, "build the table")),
            }
        }
        self.anew |= rebuild;
        // What was taken over is what stands there, read a moment ago.
        if self.dirty || rebuild { self.resync() } else { self.resync_small() }.map(drop)
    }

    /// Creates what is missing and refills the rules, with guards and quarantines in the same batch: at no moment do
    /// rules stand without them.
    pub(super) fn install(&mut self, rebuild: bool) -> Result<(), NetlinkError> {
        let mut batch = self.netlink.batch();
        if rebuild && self.table_handle()?.is_some() {
            self.layout.remove(&mut batch);
        }
        let rules = self.layout.install(&mut batch);
        for set in self.layout.sets().filter(|set| !set.kind.is_large()).collect::<Vec<_>>() {
            let wanted = self.wanted(set);
            for elements in wanted.chunks(MESSAGE_ELEMENTS) {
                self.push(&mut batch, MSG_NEWSETELEM, set, elements);
            }
        }
        if let Some((_, refusal)) = self.commit(batch)?.into_iter().next() {
            return Err(NetlinkError::Refused(refusal));
        }
        self.standing.generation = self.generation()?;
        self.standing.table = self.table_handle()?.map_or(0, |(handle, _)| handle);
        // They were made in one transaction a moment ago.
        self.standing.rules = self.rule_handles(|handles| handles.len() == rules)?;
        if self.standing.rules.len() != rules {
            return Err(NetlinkError::Interrupted);
        }
        // What happened between the commit and these looks is found by the next comparison.
        self.suspect_elements();
        Ok(())
    }

    /// Puts everything back: table, rules, elements. Flows of guarded sessions that have no pin were opened while
    /// nothing held them back, or cannot be told from those, and are ended.
    pub(super) fn restore(&mut self) -> Result<(), Error> {
        self.lost = None;
        let before = self.standing.table;
        let restored = match self.install(false) {
            Err(error)
                if [libc::EEXIST, libc::EBUSY, libc::EINVAL, libc::EOPNOTSUPP].map(Some).contains(&error.errno()) =>
            {
                self.install(true)
            }
            other => other,
        };
        self.anew |= self.standing.table != before;
        let restored = restored.map_err(|error| kernel(&error, "put the table back")).and_then(|()| self.resync());
        if let Err(error) = restored {
            self.lost = Some(error.to_string());
            return Err(error);
        }
        self.restored += 1;
        let entries = self.state.entries().filter(|(_, entry)| entry.guarded || entry.quarantined);
        self.cutter.cut(entries.map(|(session, _)| session).collect());
        Ok(())
    }

    /// Looks whether all stands, and puts it back if not.
    pub(super) fn look(&mut self) -> Result<Health, Error> {
        let result = self.try_look();
        if let Err(error) = &result {
            self.lost.get_or_insert_with(|| error.to_string());
        }
        result
    }

    fn try_look(&mut self) -> Result<Health, Error> {
        if self.lost.is_some() {
            self.restore()?;
            return Ok(Health::Restored);
        }
        let now = self.now();
        if now >= self.standing.swept + SWEEP_EVERY {
            self.standing.swept = now;
            self.state.sweep(now);
        }
        let doing = "look at the table";
        let generation = self.generation().map_err(|error| kernel(&error, doing))?;
        let foreign = generation != self.standing.generation;
        if foreign || self.standing.structure_due.is_none_or(|at| Instant::now() >= at) {
            self.standing.structure_due = Some(Instant::now() + STRUCTURE_EVERY);
            if !self.stands().map_err(|error| kernel(&error, doing))? {
                self.restore()?;
                return Ok(Health::Restored);
            }
        }
        if foreign {
            self.standing.generation = generation;
            self.suspect_elements();
        }
        let mut repaired = 0;
        if self.dirty {
            repaired += self.resync()?;
        }
        let work = Work::begin();
        if self.standing.members.now() {
            for set in self.layout.sets().filter(|set| !set.kind.is_large()).collect::<Vec<_>>() {
                repaired += self.compare(set)?;
            }
            self.standing.members.done(&work, MEMBER_CHECK_SHARE);
        }
        let work = Work::begin();
        if self.standing.pins.now() {
            for set in Set::fixed().filter(|set| set.kind.is_large()) {
                repaired += self.compare(set)?;
            }
            self.standing.pins.done(&work, PIN_CHECK_SHARE);
        }
        if repaired == 0 {
            return Ok(Health::Intact);
        }
        self.restored += 1;
        Ok(Health::Restored)
    }

    /// Somebody else has changed something. Of a table that we own it was nothing: the kernel refuses it. There a comparison
    /// would only hold pins up, for half a second where there are 100,000.
    fn suspect_elements(&mut self) {
        let theirs = !self.layout.owned;
        self.standing.members.wanted |= theirs;
        self.standing.pins.wanted |= theirs;
    }

    /// Makes the elements of every set exactly what is wanted; gives how many were not.
    pub(super) fn resync(&mut self) -> Result<usize, Error> {
        let mut repaired = 0;
        // Limits stand before the leases that they are of, and go behind them.
        for v6 in [false, true] {
            let set = Set::family(Kind::Volumes, v6);
            if self.wanted(set).is_empty() {
                continue;
            }
            let asked = self.now();
            let (held, whole) = self.read_elements(set).map_err(|error| kernel(&error, "look for limits"))?;
            let (_, missing) = self.differences(set, held, asked);
            repaired += if whole { missing.len() } else { 0 };
            let missing = missing.chunks(MESSAGE_ELEMENTS).map(|chunk| Change::Add(set, chunk.to_vec())).collect();
            match self.commit_changes(missing) {
                // There is room when what is there in excess has gone.
                Err(NetlinkError::Refused(refusal)) if refusal.errno == libc::ENFILE => {}
                result => result.map_err(|error| kernel(&error, "put limits back"))?,
            }
        }
        for set in self.layout.sets().collect::<Vec<_>>() {
            repaired += self.compare(set)?;
        }
        (self.dirty, self.anew) = (false, false);
        self.cutter.cut(self.owed.drain().collect());
        Ok(repaired)
    }

    /// As [`Nft::resync`], of everything but leases and volumes, where these are known to be as wanted.
    pub(super) fn resync_small(&mut self) -> Result<usize, Error> {
        let mut repaired = 0;
        for set in self.layout.sets().filter(|set| !set.kind.is_large()).collect::<Vec<_>>() {
            match self.compare(set) {
                Ok(more) => repaired += more,
                Err(error) => {
                    self.dirty = true;
                    return Err(error);
                }
            }
        }
        Ok(repaired)
    }

    /// Makes the elements of one set exactly what is wanted; gives how many were not.
    ///
    /// Whoever changes whatever table interrupts whoever reads one, and may do so without end. A reading that was
    /// interrupted and shows what is wanted is as good as any; of one that does not, at last, all is brought about again
    /// that it lacks, which changes nothing where it was there.
    pub(super) fn compare(&mut self, set: Set) -> Result<usize, Error> {
        let doing = "compare a set";
        for attempt in 1.. {
            let asked = self.now();
            let (held, whole) = self.read_elements(set).map_err(|error| kernel(&error, doing))?;
            let (mut changes, missing) = self.differences(set, held, asked);
            if !whole && !missing.is_empty() && attempt < DUMP_TRIES {
                continue;
            }
            let repaired = changes.len() + if whole { missing.len() } else { 0 };
            changes.extend(missing.chunks(MESSAGE_ELEMENTS).map(|chunk| Change::Add(set, chunk.to_vec())));
            self.commit_changes(changes).map_err(|error| kernel(&error, doing))?;
            if repaired > 0 {
                tracing::debug!(set = set.name(), repaired, at = asked, "elements put right");
            }
            return Ok(repaired);
        }
        Ok(0)
    }

    /// What is to be taken away or replaced of elements that were read from `asked` on, and what is missing.
    fn differences(&mut self, set: Set, held: Vec<Held>, asked: u64) -> (Vec<Change>, Vec<Element>) {
        // When in this time a lifetime was read is not known; for very many it is a second and more.
        let spread = self.now() - asked;
        let mut held: HashMap<Key, Held> = held.into_iter().map(|held| (held.key, held)).collect();
        let mut changes = Vec::new();
        let mut missing = Vec::new();
        for element in self.wanted(set) {
            let Some(there) = held.remove(&element.key) else {
                // The kernel's clock may be ahead of ours by a tick.
                if element.lifetime.is_none_or(|wanted| wanted > SLACK)
                    && (self.anew || element.volume.is_none_or(Volume::is_held))
                {
                    missing.push(element);
                }
                continue;
            };
            if let (Some(counted), Some((session, destination))) = (there.volume, pair(set, element.key)) {
                // What it has counted meanwhile is known best to the kernel.
                self.state.note_used(session, destination, counted.used);
            }
            if !is_as_wanted(&element, &there, spread) {
                // Replaced, which works on every kernel and in every set.
                changes.push(Change::Delete(set, Element::keyed(element.key)));
                changes.push(Change::Add(set, vec![element]));
            }
        }
        // What ends within the slack may have ended here already.
        let extra = held.into_values().filter(|held| held.left.is_none_or(|left| left > SLACK + spread));
        changes.extend(extra.map(|held| Change::Delete(set, Element::keyed(held.key))));
        (changes, missing)
    }

    /// The elements a set must hold now.
    fn wanted(&self, set: Set) -> Vec<Element> {
        let now = self.now();
        let mut wanted = Vec::new();
        if set.kind == Kind::Ranges {
            return intervals::elements(&self.ranges, set).into_iter().map(|(_, element)| element).collect();
        }
        for (session, entry) in self.state.entries().filter(|(session, _)| session.is_ipv6() == set.v6) {
            match set.kind {
                kind if kind.has_timeout() => {
                    let live =
                        entry.leases.iter().filter(|(target, end)| **end > now && lease_kind(**target) == set.kind);
                    wanted.extend(live.map(|(target, end)| Element::lease(session, *target).lasting(end - now)));
                }
                Kind::Volumes | Kind::Counts => {
                    let of_kind = entry.volumes.iter().filter(|(_, volume)| volume_kind(**volume) == set.kind);
                    wanted.extend(of_kind.map(|(to, volume)| Element::volume(session, *to, *volume)));
                }
                _ => {
                    let members = self.members(entry);
                    wanted.extend(members.elements(session).filter(|(of, _)| *of == set).map(|(_, element)| element));
                }
            }
        }
        wanted
    }

    /// Whether a new expiration reaches an element that exists: add it for 60 s, then for 120 s, read it back.
    pub(super) fn probe(&mut self) -> Result<Refresh, Error> {
        let doing = "try out how lifetimes change";
        let session = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
        let mut left = None;
        let mut tried = Ok(());
        for lifetime in [60_000, 120_000] {
            let mut batch = self.netlink.batch();
            if lifetime == 60_000 {
                self.layout.probe_set(&mut batch);
            }
            let element = Element::pair(session, session).lasting(lifetime);
            batch.push(MSG_NEWSETELEM, NLM_F_CREATE, |w| {
                sets::write_elements(w, &self.layout.table, (Set::family(Kind::Open, false), PROBE), [&element]);
            });
            tried = match self.commit(batch) {
                Ok(refusals) => match refusals.into_iter().next() {
                    Some((_, refusal)) => Err(NetlinkError::Refused(refusal)),
                    None => tried,
                },
                Err(error) => Err(error),
            };
        }
        if tried.is_ok() {
            let table = self.layout.table.clone();
            tried = self.netlink.dump(
                SUBSYS | MSG_GETSETELEM,
                INET,
                |w| sets::write_name(w, &table, PROBE),
                |attributes| sets::read_elements(attributes, |held| left = held.left),
            );
        }
        let mut batch = self.netlink.batch();
        self.layout.remove_probe_set(&mut batch);
        self.commit(batch).map_err(|error| kernel(&error, doing))?;
        match (tried, left) {
            (Ok(()), Some(left)) if left > 90_000 => Ok(Refresh::InPlace),
            (Err(NetlinkError::Io(error)), _) => Err(kernel(&NetlinkError::Io(error), doing)),
            // Refused, unchanged or not to be read back: take the way that works everywhere.
            _ => Ok(Refresh::Replace),
        }
    }

    /// Whether table, chains and rules are those we made, and switched on.
    fn stands(&mut self) -> Result<bool, NetlinkError> {
        match self.table_handle()? {
            Some((handle, flags)) if handle == self.standing.table && flags & table::TABLE_DORMANT == 0 => {}
            _ => return Ok(false),
        }
        let wanted = std::mem::take(&mut self.standing.rules);
        let found = self.rule_handles(|handles| handles == wanted);
        self.standing.rules = wanted;
        Ok(found? == self.standing.rules && self.chains_accept()?)
    }
}

/// Whether an element that was there within the last `spread` milliseconds needs no change.
fn is_as_wanted(wanted: &Element, there: &Held, spread: u64) -> bool {
    let lives = match (wanted.lifetime, there.left) {
        (Some(wanted), Some(left)) => left + SLACK >= wanted && left <= wanted + SLACK + spread,
        (wanted, left) => wanted.is_none() && left.is_none(),
    };
    lives && wanted.mark == there.mark && wanted.volume.map(|v| v.limit) == there.volume.map(|v| v.limit)
}

/// Session and destination of a key of such pairs.
fn pair(set: Set, key: Key) -> Option<(IpAddr, IpAddr)> {
    let parts = key.parts(set)?;
    parts.first.zip(parts.second)
}
