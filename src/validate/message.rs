//! The verdict on a whole answer: each alias on the question's chain, what stands at its end, or the proof that nothing
//! does (RFC 4035 section 5).

use staunch_scoring::{NameBuf, NameRef};

use super::chain::{Aim, Halt, Holder, seconds};
use super::denials::{Denials, Denied, denying};
use super::lack::{Lack, Need};
use super::set::{DNAME, DS, RRSIG, SOA, Set};
use super::work::Work;
use super::{Bogus, Unchecked, Validator, Verdict};
use crate::answer::{AnswerRules, Asked, Chain, Message};
use crate::model::{Now, Qtype};
use crate::partition::Partition;

/// Most zones that are tried for one set: the owner's own, and one above it that has signed for it.
const MAX_SIGNERS: usize = 3;
/// Most types of one name that are looked at where all are asked for.
const MAX_TYPES: usize = 32;

/// How validation goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// It is over.
    Done(Verdict),
    /// Something has to be looked up and learned ([`Validator::learn`]); then the same is asked again.
    Ask(Lack),
}

/// What is proved of a part of an answer.
#[derive(Debug, Clone, Copy)]
struct Proved {
    is_secure: bool,
    /// Why it is not, where it was signed.
    why: Option<Unchecked>,
    ttl: u32,
}

impl Proved {
    const ALL: Self = Self { is_secure: true, why: None, ttl: u32::MAX };

    fn secure(ttl: u32) -> Self {
        Self { ttl, ..Self::ALL }
    }

    fn insecure(why: Option<Unchecked>) -> Self {
        Self { is_secure: false, why, ..Self::ALL }
    }

    fn and(self, other: Self) -> Self {
        Self { is_secure: self.is_secure && other.is_secure, why: self.why.or(other.why), ttl: self.ttl.min(other.ttl) }
    }
}

/// What has to be proved, one after the other.
#[derive(Debug, Clone, Copy)]
enum Part<'m> {
    /// A set of the answer section.
    Set(NameRef<'m>, u16),
    /// That there is none.
    Denial(NameRef<'m>, u16),
    /// Nobody can: signatures, which nobody signs, and what is cut short and not shown.
    Unsigned,
}

/// A message, and when it is looked at.
struct Case<'c, 'm> {
    validator: &'c Validator,
    message: &'m Message<'m>,
    /// Whose question it is.
    partition: Partition,
    now: Now,
}

impl Validator {
    /// Whether `response`, which [`crate::answer::vet`] has found usable by the same `rules`, is what was signed.
    pub fn judge(&self, response: &[u8], asked: Asked<'_>, rules: &AnswerRules, now: Now, work: &mut Work) -> Step {
        // Neither is an answer, and nothing of it would be shown.
        let Ok(message) = Message::read(response) else { return Step::Done(Verdict::Bogus(Bogus::NoSignature)) };
        let Some(chain) = Chain::follow(&message, asked, rules) else {
            return Step::Done(Verdict::Bogus(Bogus::NoSignature));
        };
        work.by(self.anchors.load().number);
        let case = Case { validator: self, message: &message, partition: work.partition(), now };
        match case.whole(&chain, asked, work) {
            Ok(Proved { is_secure: true, ttl, .. }) => Step::Done(Verdict::Secure { ttl }),
            Ok(Proved { why, .. }) => Step::Done(Verdict::Insecure(why)),
            Err(Halt::Lack(lack)) => Step::Ask(lack),
            Err(Halt::Bogus(why)) => Step::Done(Verdict::Bogus(why)),
            Err(Halt::Unknown(why)) => Step::Done(Verdict::Indeterminate(why)),
        }
    }
}

impl<'m> Case<'_, 'm> {
    fn whole(&self, chain: &'m Chain, asked: Asked<'_>, work: &mut Work) -> Result<Proved, Halt> {
        let parts = self.parts(chain, asked)?;
        let mut all = Proved::ALL;
        for (i, part) in parts.iter().enumerate() {
            let proved = match *part {
                Part::Set(owner, rtype) => self.positive(owner, rtype, work),
                Part::Denial(name, rtype) => self.negative(name, rtype, work),
                Part::Unsigned => Ok(Proved::insecure(None)),
            };
            all = all.and(match proved {
                // Of what comes behind, the zones are as certain to be needed as here.
                Err(Halt::Lack(lack)) => {
                    let behind = parts.get(i + 1..).unwrap_or_default();
                    let needs = behind.iter().flat_map(|part| self.needs(*part));
                    return Err(Halt::Lack(lack.beside(needs)));
                }
                other => other?,
            });
        }
        Ok(all)
    }

    /// What of the answer has to be proved.
    fn parts(&self, chain: &'m Chain, asked: Asked<'_>) -> Result<Vec<Part<'m>>, Halt> {
        let (mut parts, qtype) = (Vec::new(), asked.qtype);
        let mut is_made = false;
        for step in &chain.steps {
            // What a DNAME makes of a name has no signature of its own, and was compared with the DNAME.
            if std::mem::take(&mut is_made) {
                continue;
            }
            is_made = step.rtype == DNAME;
            let owner = step.owner.as_name().ok_or(Halt::Bogus(Bogus::NoSignature))?;
            parts.push(Part::Set(owner, step.rtype));
        }
        // A DNAME that leads nowhere is all there is to prove.
        if chain.too_long {
            return Ok(parts);
        }
        // Cut short: nothing is shown, or nothing of what is behind.
        if chain.internal || chain.beyond {
            parts.push(Part::Unsigned);
            return Ok(parts);
        }
        let end = chain.end.as_name().ok_or(Halt::Bogus(Bogus::NoSignature))?;
        let mut types: Vec<u16> = Vec::new();
        for record in chain.at_end(self.message).filter(|_| self.message.rcode == 0) {
            let wanted = record.rtype == qtype.0 || qtype == Qtype::ANY && record.rtype != RRSIG;
            if wanted && !types.contains(&record.rtype) && types.len() < MAX_TYPES {
                types.push(record.rtype);
            }
        }
        let part = |rtype: &u16| if *rtype == RRSIG { Part::Unsigned } else { Part::Set(end, *rtype) };
        parts.extend(types.iter().map(part));
        // What a DNAME makes is the answer where aliases are asked for (RFC 6672 section 3.1), unless it is said of its target
        // that there is nothing.
        let is_answered = asked.is_for_aliases() && !chain.steps.is_empty() && !self.denies();
        if types.is_empty() && !is_answered {
            parts.push(Part::Denial(end, qtype.0));
        }
        Ok(parts)
    }

    /// Whether the message says that something is not there.
    fn denies(&self) -> bool {
        self.message.rcode == 3 || self.message.authorities().iter().any(|record| record.rtype == SOA)
    }

    /// The look-ups of keys that a part will take, as far as they show before any is done. Checks no signature.
    fn needs(&self, part: Part<'m>) -> Vec<Need> {
        let signer = match part {
            Part::Set(owner, rtype) => {
                let set = Set::in_answer(self.message, owner, rtype);
                set.signers().first().map(|signer| NameRef::to_owned(*signer))
            }
            Part::Denial(name, rtype) => self.deniers(name, rtype).ok().and_then(|(all, _)| all.first().cloned()),
            Part::Unsigned => None,
        };
        let Some(signer) = signer else { return Vec::new() };
        match self.validator.zone_of(signer.as_ref(), Aim::Signer, self.partition, self.now) {
            Err(Halt::Lack(lack)) => lack.into_needs().collect(),
            _ => Vec::new(),
        }
    }

    /// The set of this owner and type in the answer section.
    fn positive(&self, owner: NameRef<'m>, rtype: u16, work: &mut Work) -> Result<Proved, Halt> {
        let set = Set::in_answer(self.message, owner, rtype);
        let mut why = Bogus::NoSignature;
        for signer in set.signers().into_iter().take(MAX_SIGNERS) {
            let proved = self.signed(&set, signer, work);
            match proved {
                Err(Halt::Bogus(reason)) => why = reason,
                other => return other,
            }
        }
        self.unsigned(owner, rtype, why)
    }

    /// `set`, as `signer` has signed it.
    fn signed(&self, set: &Set<'m>, signer: NameRef<'_>, work: &mut Work) -> Result<Proved, Halt> {
        let zone = match self.zone(set.owner, signer)? {
            Holder::Zone(zone) => zone,
            Holder::Insecure(why) => return Ok(Proved::insecure(why)),
        };
        let good = set.verify(zone.name, &zone.keys, seconds(self.now), work)?;
        let Some(labels) = good.wildcard.filter(|labels| !set.proves_itself(*labels)) else {
            return Ok(Proved::secure(good.ttl));
        };
        let denials = Denials::of(self.message, &zone, seconds(self.now), work)?;
        let denied = denials.no_closer(set.owner, labels, self.validator.limits, work)?;
        denials.proved(denied).map(|proved| proved.and(Proved::secure(good.ttl)))
    }

    /// That `name` does not exist, or has no `rtype`.
    fn negative(&self, name: NameRef<'m>, rtype: u16, work: &mut Work) -> Result<Proved, Halt> {
        let (signers, is_bare) = self.deniers(name, rtype)?;
        let mut why = if is_bare { Bogus::NoProof } else { Bogus::NoSignature };
        for signer in &signers {
            match self.denied(name, rtype, signer.as_ref(), work) {
                Err(Halt::Bogus(reason)) => why = reason,
                other => return other,
            }
        }
        self.unsigned(name, rtype, why)
    }

    /// The zones that may deny `name` its `rtype` and have signed something that denies, the deepest first; and whether there
    /// is nothing that denies.
    fn deniers(&self, name: NameRef<'m>, rtype: u16) -> Result<(Vec<NameBuf>, bool), Halt> {
        let (mut signers, denying) = (Vec::new(), denying(self.message)?);
        for record in &denying {
            let Ok(owner) = NameRef::from_wire(self.message.owner(record)) else { continue };
            for signer in Set::in_authority(self.message, owner, record.rtype).signers() {
                // A delegation is its parent's, and the root has none.
                let is_parents = rtype == DS && !name.is_root();
                let may = if is_parents { name.is_below(signer) } else { name.is_at_or_below(signer) };
                if may && signers.len() < MAX_SIGNERS && !signers.iter().any(|known| *known == signer.to_owned()) {
                    signers.push(signer.to_owned());
                }
            }
        }
        signers.sort_by_key(|signer| std::cmp::Reverse(signer.as_ref().label_count()));
        Ok((signers, denying.is_empty()))
    }

    /// The same, as `signer` says.
    fn denied(&self, name: NameRef<'m>, rtype: u16, signer: NameRef<'_>, work: &mut Work) -> Result<Proved, Halt> {
        let zone = match self.zone(name, signer)? {
            Holder::Zone(zone) => zone,
            Holder::Insecure(why) => return Ok(Proved::insecure(why)),
        };
        let denials = Denials::of(self.message, &zone, seconds(self.now), work)?;
        let denied = if self.message.rcode == 3 {
            denials.no_name(name, self.validator.limits, work)?
        } else {
            denials.no_type(name, rtype, self.validator.limits, work)?
        };
        let proved = denials.proved(denied)?;
        // What is shown is the closest one, so it must be this zone's.
        let owners = self.message.authorities().iter().filter(|record| record.rtype == SOA);
        let owners = owners.filter_map(|record| NameRef::from_wire(self.message.owner(record)).ok());
        let closest = owners.filter(|owner| name.is_at_or_below(*owner)).max_by_key(|owner| owner.label_count());
        if closest.is_some_and(|closest| closest != zone.name) {
            return Err(Halt::Bogus(Bogus::NoSignature));
        }
        let soa = Set::in_authority(self.message, zone.name, SOA);
        if soa.is_empty() {
            return Ok(proved);
        }
        let good = soa.verify(zone.name, &zone.keys, seconds(self.now), work)?;
        Ok(proved.and(Proved::secure(good.ttl)))
    }

    /// The zone `signer`, which holds `name`.
    fn zone(&self, name: NameRef<'m>, signer: NameRef<'_>) -> Result<Holder<'m>, Halt> {
        let signer = name.strip_left(name.label_count().saturating_sub(signer.label_count()));
        match self.validator.zone_of(signer, Aim::Signer, self.partition, self.now)? {
            // No zone begins there, so none has keys.
            Holder::Zone(zone) if zone.name != signer => Err(Halt::Bogus(Bogus::NoKey)),
            holder => Ok(holder),
        }
    }

    /// What `name` is where nothing about it is as it was signed: insecure if its zone is, else bogus.
    fn unsigned(&self, name: NameRef<'_>, rtype: u16, why: Bogus) -> Result<Proved, Halt> {
        // A delegation is its parent's.
        let holder = if rtype == DS { name.parent().unwrap_or(name) } else { name };
        match self.validator.zone_of(holder, Aim::Holder, self.partition, self.now)? {
            Holder::Insecure(why) => Ok(Proved::insecure(why)),
            Holder::Zone(_) => Err(Halt::Bogus(why)),
        }
    }
}

impl Denials<'_> {
    fn proved(&self, denied: Denied) -> Result<Proved, Halt> {
        match denied {
            Denied::Yes => Ok(Proved::secure(self.ttl)),
            Denied::Unsigned(why) => Ok(Proved { ttl: self.ttl, ..Proved::insecure(why) }),
            Denied::No => Err(Halt::Bogus(Bogus::NoProof)),
        }
    }
}
