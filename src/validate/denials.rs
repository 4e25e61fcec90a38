//! What the NSEC and NSEC3 records of a message prove not to be there (RFC 4035 section 5.4, RFC 5155 section 8, RFC 6840
//! section 4).

use staunch_scoring::NameRef;

use super::chain::{Halt, Zone};
use super::set::{CNAME, DNAME, DS, NSEC, NSEC3, SOA, Set};
use super::work::Work;
use super::{Limits, Unchecked, Unknown};
use crate::answer::{CLASS_IN, HASH, Message, Nsec, Nsec3, Record, has_type, wildcard_below};

const NS: u16 = 2;
/// Most NSEC and NSEC3 records of one message; with more, none is looked at. A denial takes three, a wildcard on the way to
/// it one more.
const MAX_DENIALS: usize = 16;

/// What was proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Denied {
    /// It is not there.
    Yes,
    /// It is not there, or it is unsigned: the span may leave out delegations without keys, or its hashes are too many.
    Unsigned(Option<Unchecked>),
    /// Nothing.
    No,
}

/// What was proved of a name that may begin a zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// None begins there.
    None,
    /// One that has no key, or that of which nothing can be checked.
    Unsigned(Option<Unchecked>),
    /// Nothing was proved.
    Unproved,
}

/// The records of one zone that deny, all of them as they were signed.
pub(super) struct Denials<'m> {
    zone: NameRef<'m>,
    nsecs: Vec<Nsec<'m>>,
    nsec3s: Vec<Nsec3<'m>>,
    /// How long they may be kept, seconds.
    pub(super) ttl: u32,
}

impl<'m> Denials<'m> {
    /// Those of `zone` in the authority section of `message`.
    ///
    /// # Errors
    /// One of them is not as it was signed.
    pub(super) fn of(message: &'m Message<'m>, zone: &Zone<'m>, now: u32, work: &mut Work) -> Result<Self, Halt> {
        let mut all = Self { zone: zone.name, nsecs: Vec::new(), nsec3s: Vec::new(), ttl: u32::MAX };
        let mut seen: Vec<(&[u8], u16)> = Vec::new();
        for record in denying(message)? {
            let owner = message.owner(record);
            if seen.contains(&(owner, record.rtype)) {
                continue;
            }
            let Ok(name) = NameRef::from_wire(owner) else { continue };
            let set = Set::in_authority(message, name, record.rtype);
            if !set.signers().contains(&zone.name) {
                continue;
            }
            seen.push((owner, record.rtype));
            let good = set.verify(zone.name, &zone.keys, now, work)?;
            // Two of one owner and type prove nothing (RFC 4034 section 4: one for each name).
            let Some(record) = set.single() else { continue };
            all.ttl = all.ttl.min(good.ttl);
            all.nsecs.extend(Nsec::read(message, record).filter(|nsec| nsec.is_in(zone.name)));
            // RFC 5155 section 8.2: others are ignored.
            let usable = |nsec3: &Nsec3<'_>| nsec3.zone == zone.name && nsec3.flags <= 1;
            all.nsec3s.extend(Nsec3::read(message, record).filter(usable));
        }
        Ok(all)
    }

    /// Whether it is proved that `name` has no `rtype`.
    pub(super) fn no_type(
        &self,
        name: NameRef<'_>,
        rtype: u16,
        limits: Limits,
        work: &mut Work,
    ) -> Result<Denied, Halt> {
        if self.nsec_no_type(name, rtype) {
            return Ok(Denied::Yes);
        }
        let Some(hashes) = self.hashes(limits) else { return Ok(Denied::No) };
        if hashes.too_many {
            return Ok(Denied::Unsigned(Some(Unchecked::Iterations)));
        }
        if let Some(own) = hashes.matching(name, work)? {
            return Ok(if lacks(name, own.types, rtype) { Denied::Yes } else { Denied::No });
        }
        let Some((encloser, next)) = hashes.encloser(name, self.zone, work)? else { return Ok(Denied::No) };
        let Some(covering) = hashes.covering(next, work)? else { return Ok(Denied::No) };
        if covering.opts_out() {
            // RFC 5155 sections 8.6 and 9.2; an empty name above delegations without keys has no record of its own either.
            return Ok(Denied::Unsigned(None));
        }
        let wildcard = wildcard_below(encloser);
        let own = match wildcard.as_ref().and_then(|wildcard| wildcard.as_name()) {
            Some(wildcard) => hashes.matching(wildcard, work)?,
            None => None,
        };
        Ok(if own.is_some_and(|own| lacks(name, own.types, rtype)) { Denied::Yes } else { Denied::No })
    }

    /// Whether it is proved that `name` does not exist.
    pub(super) fn no_name(&self, name: NameRef<'_>, limits: Limits, work: &mut Work) -> Result<Denied, Halt> {
        if self.nsec_no_name(name) {
            return Ok(Denied::Yes);
        }
        let Some(hashes) = self.hashes(limits) else { return Ok(Denied::No) };
        if hashes.too_many {
            return Ok(Denied::Unsigned(Some(Unchecked::Iterations)));
        }
        let Some((encloser, next)) = hashes.encloser(name, self.zone, work)? else { return Ok(Denied::No) };
        let Some(covering) = hashes.covering(next, work)? else { return Ok(Denied::No) };
        let wildcard = wildcard_below(encloser);
        let is_covered = match wildcard.as_ref().and_then(|wildcard| wildcard.as_name()) {
            Some(wildcard) => hashes.covering(wildcard, work)?.is_some(),
            // Too long to exist.
            None => true,
        };
        Ok(match (is_covered, covering.opts_out()) {
            (false, _) => Denied::No,
            (true, true) => Denied::Unsigned(None),
            (true, false) => Denied::Yes,
        })
    }

    /// Whether it is proved that nothing stands closer to `name` than the wildcard whose encloser has `labels` labels
    /// (RFC 4035 section 5.3.4, RFC 5155 section 8.8).
    pub(super) fn no_closer(
        &self,
        name: NameRef<'_>,
        labels: usize,
        limits: Limits,
        work: &mut Work,
    ) -> Result<Denied, Halt> {
        let fits = |nsec: &Nsec<'_>| nsec.encloser(name).is_some_and(|encloser| encloser.label_count() == labels);
        if self.nsec_covering(name).is_some_and(fits) {
            return Ok(Denied::Yes);
        }
        let Some(hashes) = self.hashes(limits) else { return Ok(Denied::No) };
        if hashes.too_many {
            return Ok(Denied::Unsigned(Some(Unchecked::Iterations)));
        }
        let next = name.strip_left(name.label_count().saturating_sub(labels + 1));
        Ok(match hashes.covering(next, work)? {
            Some(covering) if covering.opts_out() => Denied::Unsigned(None),
            Some(_) => Denied::Yes,
            None => Denied::No,
        })
    }

    /// What is proved of the delegation that may stand at `name`, which is below the zone.
    pub(super) fn cut(&self, name: NameRef<'_>, limits: Limits, work: &mut Work) -> Result<Cut, Halt> {
        let of = |types: &[u8]| match (has_type(types, DS) || has_type(types, SOA), has_type(types, NS)) {
            // There are keys after all, or the child speaks in its parent's place.
            (true, _) => Cut::Unproved,
            (false, true) => Cut::Unsigned(None),
            (false, false) => Cut::None,
        };
        if let Some(own) = self.nsecs.iter().find(|nsec| nsec.owner == name) {
            return Ok(of(own.types));
        }
        if self.nsec_covering(name).is_some() {
            return Ok(Cut::None);
        }
        let Some(hashes) = self.hashes(limits) else { return Ok(Cut::Unproved) };
        if hashes.too_many {
            return Ok(Cut::Unsigned(Some(Unchecked::Iterations)));
        }
        if let Some(own) = hashes.matching(name, work)? {
            return Ok(of(own.types));
        }
        let Some((_, next)) = hashes.encloser(name, self.zone, work)? else { return Ok(Cut::Unproved) };
        Ok(match hashes.covering(next, work)? {
            Some(covering) if covering.opts_out() => Cut::Unsigned(None),
            Some(_) => Cut::None,
            None => Cut::Unproved,
        })
    }

    fn nsec_no_type(&self, name: NameRef<'_>, rtype: u16) -> bool {
        if let Some(own) = self.nsecs.iter().find(|nsec| nsec.owner == name) {
            return lacks(name, own.types, rtype);
        }
        let Some(covering) = self.nsec_covering(name) else { return false };
        let Some(encloser) = covering.encloser(name) else { return false };
        // Others stand below it: it exists and has no type at all.
        if encloser == name {
            return true;
        }
        let wildcard = wildcard_below(encloser);
        let wildcard = wildcard.as_ref().and_then(|wildcard| wildcard.as_name());
        self.nsecs.iter().any(|nsec| Some(nsec.owner) == wildcard && lacks(nsec.owner, nsec.types, rtype))
    }

    fn nsec_no_name(&self, name: NameRef<'_>) -> bool {
        let Some(encloser) = self.nsec_covering(name).and_then(|nsec| nsec.encloser(name)) else { return false };
        let wildcard = wildcard_below(encloser);
        // One that is too long does not exist.
        let is_covered = wildcard
            .is_none_or(|wildcard| wildcard.as_name().is_some_and(|wildcard| self.nsec_covering(wildcard).is_some()));
        encloser != name && is_covered
    }

    /// The record that covers `name` and may speak of it: not the one of a delegation or DNAME above it (RFC 6840 section
    /// 4.1).
    fn nsec_covering(&self, name: NameRef<'_>) -> Option<&Nsec<'m>> {
        self.nsecs.iter().find(|nsec| nsec.covers(name) && !(name.is_below(nsec.owner) && leads_away(nsec.types)))
    }

    /// The NSEC3 records, where there are some.
    fn hashes(&self, limits: Limits) -> Option<Hashes<'_, 'm>> {
        let first = self.nsec3s.first()?;
        // RFC 5155 section 8.2: all of one answer have the same parameters.
        let too_many = first.iterations > limits.iterations;
        Some(Hashes { all: &self.nsec3s, salt: first.salt, iterations: first.iterations, too_many })
    }
}

/// The records in the authority section that deny.
///
/// # Errors
/// There are too many.
pub(super) fn denying<'m>(message: &'m Message<'_>) -> Result<Vec<&'m Record>, Halt> {
    let denies = |r: &&Record| r.class == CLASS_IN && matches!(r.rtype, NSEC | NSEC3);
    let all: Vec<&Record> = message.authorities().iter().filter(denies).take(MAX_DENIALS + 1).collect();
    if all.len() > MAX_DENIALS { Err(Halt::Unknown(Unknown::Work)) } else { Ok(all) }
}

/// Whether `name`, which exists with `types`, as this zone sees it, has no `rtype`: neither itself nor by an alias. A
/// delegation speaks of its DS set alone, and what stands in the zone below never speaks of it (RFC 6840 section 4.4), but
/// for the root, above which there is nobody.
fn lacks(name: NameRef<'_>, types: &[u8], rtype: u16) -> bool {
    let (is_apex, is_cut) = (has_type(types, SOA), has_type(types, NS));
    let may_speak = if rtype == DS { !is_apex || name.is_root() } else { is_apex || !is_cut };
    may_speak && !has_type(types, rtype) && !has_type(types, CNAME)
}

/// Whether what stands below such a name is not of this zone.
fn leads_away(types: &[u8]) -> bool {
    has_type(types, DNAME) || has_type(types, NS) && !has_type(types, SOA)
}

/// NSEC3 records of one zone.
struct Hashes<'d, 'm> {
    all: &'d [Nsec3<'m>],
    salt: &'m [u8],
    iterations: u16,
    /// Nobody is to compute them (RFC 9276 section 3.2).
    too_many: bool,
}

impl<'d, 'm> Hashes<'d, 'm> {
    fn hash(&self, name: NameRef<'_>, work: &mut Work) -> Result<[u8; HASH], Halt> {
        work.hash(self.salt, self.iterations, name)
    }

    fn usable(&self) -> impl Iterator<Item = &'d Nsec3<'m>> {
        self.all.iter().filter(|nsec3| nsec3.salt == self.salt && nsec3.iterations == self.iterations)
    }

    /// The record of `name` itself.
    fn matching(&self, name: NameRef<'_>, work: &mut Work) -> Result<Option<&'d Nsec3<'m>>, Halt> {
        let hash = self.hash(name, work)?;
        Ok(self.usable().find(|nsec3| nsec3.owner == hash))
    }

    /// The record in whose span `name` would be.
    fn covering(&self, name: NameRef<'_>, work: &mut Work) -> Result<Option<&'d Nsec3<'m>>, Halt> {
        let hash = self.hash(name, work)?;
        Ok(self.usable().find(|nsec3| nsec3.covers(&hash)))
    }

    /// The closest ancestor of `name` that has a record, and the next closer name (RFC 5155 section 8.3).
    fn encloser<'n>(
        &self,
        name: NameRef<'n>,
        zone: NameRef<'_>,
        work: &mut Work,
    ) -> Result<Option<(NameRef<'n>, NameRef<'n>)>, Halt> {
        let mut next = name;
        for encloser in name.ancestors().skip(1).take_while(|ancestor| ancestor.is_at_or_below(zone)) {
            if let Some(own) = self.matching(encloser, work)? {
                return Ok((!leads_away(own.types)).then_some((encloser, next)));
            }
            next = encloser;
        }
        Ok(None)
    }
}
