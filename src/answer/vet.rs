//! The scrubber: follows the question's chain through a response and writes down only what stands on it.

mod nothing;

use std::net::IpAddr;

use staunch_scoring::NameRef;

use self::nothing::failure;
use super::chain::{Chain, Source, Step};
use super::denial::{self, Absent};
use super::emit::Writer;
use super::guard::{Showing, is_internal_name};
use super::message::{Message, Record, Spelled};
use super::rdata::{self, Signature, Svcb};
use super::{
    Alias, AnswerRules, Asked, BARE_NEGATIVE_TTL, Kind, MAX_ADDRESSES, MAX_HOPS, MAX_RECORDS, VetError, Vetted,
    WireAnswer,
};
use crate::model::Qtype;

pub(super) const CNAME: u16 = Qtype::CNAME.0;
pub(super) const DNAME: u16 = Qtype::DNAME.0;
pub(super) const RRSIG: u16 = Qtype::RRSIG.0;
pub(super) const SOA: u16 = Qtype::SOA.0;
/// A DNAME makes a name that is too long.
pub(super) const YXDOMAIN: u16 = 6;
pub(crate) const CLASS_IN: u16 = 1;
/// Octets of data in the authority section that are not held to tell a session anything: a SOA and three NSEC3 records,
/// each signed once by an RSA key of 2048 bits, take 1,500. A client that validates cannot do without, and must not look
/// like a tunnel for it.
const HONEST_PROOF: usize = 2048;

/// Takes from `response` what may be shown to a session that asked `asked`.
///
/// An error means that nothing of it can be used and the client gets SERVFAIL. A response code other than NOERROR and
/// NXDOMAIN, a chain that loops or is longer than [`super::MAX_HOPS`], records of which none can be read, and a referral come
/// back as [`Kind::Failure`]. YXDOMAIN is an answer where it shows the DNAME that makes too long a name (RFC 6672 section
/// 2.2), and nowhere else.
pub fn vet(response: &[u8], asked: Asked<'_>, rules: &AnswerRules) -> Result<Vetted, VetError> {
    vet_message(&Message::read(response)?, asked, rules)
}

/// As [`vet`], the message already walked.
pub(super) fn vet_message(message: &Message<'_>, asked: Asked<'_>, rules: &AnswerRules) -> Result<Vetted, VetError> {
    vet_message_behind(message, &[], asked, rules)
}

/// As [`vet_message`], with `aliases` in front of what is shown.
pub(super) fn vet_message_behind(
    message: &Message<'_>,
    aliases: &[Alias<'_>],
    asked: Asked<'_>,
    rules: &AnswerRules,
) -> Result<Vetted, VetError> {
    if message.qname() != asked.qname.as_wire() || message.qtype != asked.qtype.0 || message.qclass != CLASS_IN {
        return Err(VetError::WrongQuestion);
    }
    if message.truncated {
        return Err(VetError::Truncated);
    }
    if !matches!(message.rcode, 0 | 3 | YXDOMAIN) {
        return Ok(failure());
    }
    let Some(chain) = Chain::follow(message, asked, rules) else { return Ok(failure()) };
    if chain.too_long != (message.rcode == YXDOMAIN) {
        return Ok(failure());
    }
    let mut vetting = Vetting::new(message, aliases, asked, rules);
    vetting.front()?;
    vetting.aliases(&chain)?;
    vetting.finals(&chain)?;
    vetting.conclude(&chain)
}

/// The name that the client has asked for.
fn first<'a>(front: &[Alias<'a>], asked: Asked<'a>) -> NameRef<'a> {
    front.first().map_or(asked.qname, |alias| alias.owner)
}

/// The answer under construction.
struct Vetting<'v, 'm> {
    message: &'v Message<'m>,
    /// Aliases of our own that lead to the name asked for.
    front: &'v [Alias<'v>],
    asked: Asked<'v>,
    rules: &'v AnswerRules,
    to: Writer,
    /// Records written.
    written: usize,
    /// Records of the response's answer section that are shown, signatures not counted.
    shown: usize,
    /// Final records there were, shown or not.
    found: usize,
    /// Final records shown.
    finals: usize,
    /// Whether the guard has left out one of them.
    guarded: bool,
    addresses: usize,
    edited: bool,
    ttl: u32,
    pins: Vec<IpAddr>,
    rebinding: Vec<IpAddr>,
    targets: Vec<Spelled>,
    /// Data of the SVCB and HTTPS records that are shown.
    services: Vec<Vec<u8>>,
    /// What a client that validates wants proved; empty for others.
    absent: Vec<Absent>,
    /// Octets of data written.
    data_octets: usize,
}

impl<'v, 'm> Vetting<'v, 'm> {
    fn new(message: &'v Message<'m>, front: &'v [Alias<'v>], asked: Asked<'v>, rules: &'v AnswerRules) -> Self {
        Self {
            message,
            front,
            asked,
            rules,
            to: Writer::behind(first(front, asked).as_wire()),
            written: 0,
            shown: 0,
            found: 0,
            finals: 0,
            guarded: false,
            addresses: 0,
            edited: false,
            ttl: rules.max_ttl,
            pins: Vec::new(),
            rebinding: Vec::new(),
            targets: Vec::new(),
            services: Vec::new(),
            absent: Vec::new(),
            data_octets: 0,
        }
    }

    /// Writes one record; `false`, and nothing written, if `data` finds it bad.
    fn record(
        &mut self,
        owner: &[u8],
        rtype: u16,
        ttl: u32,
        data: impl FnOnce(&mut Self) -> Result<(), rdata::Bad>,
    ) -> Result<bool, VetError> {
        let mark = self.to.mark();
        let ttl = ttl.min(self.rules.max_ttl);
        let length_at = self.to.begin(owner, rtype, ttl);
        if data(self).is_err() {
            self.to.undo(&mark);
            return Ok(false);
        }
        self.data_octets += self.to.end(length_at)?;
        self.ttl = self.ttl.min(ttl);
        self.written += 1;
        if self.written > MAX_RECORDS { Err(VetError::TooLarge) } else { Ok(true) }
    }

    /// As [`Self::record`], data copied from the response.
    fn copied(&mut self, owner: &[u8], record: &Record) -> Result<bool, VetError> {
        self.record(owner, record.rtype, record.ttl, |v| rdata::copy(v.message, record, &mut v.to))
    }

    /// Writes the signatures over `covered` at `owner`, if they were asked for.
    fn signatures(&mut self, owner: &[u8], covered: u16) -> Result<(), VetError> {
        if !self.asked.dnssec_ok || covered == RRSIG {
            return Ok(());
        }
        let message = self.message;
        for record in message.answers() {
            if record.rtype != RRSIG || record.class != CLASS_IN || message.owner(record) != owner {
                continue;
            }
            let Some(signature) = Signature::read(message, record).filter(|s| s.covered == covered) else { continue };
            if self.copied(owner, record)? {
                self.note_wildcard(owner, &signature);
            }
        }
        Ok(())
    }

    /// A signed alias that leads into a zone without keys is proved to do so by the zone that has signed it. Some clients look
    /// for that where they find any proof at all, and take the answer for forged without it.
    fn note_unsigned(&mut self, chain: &Chain) {
        let message = self.message;
        let is_signed =
            |name: &Spelled| message.answers().iter().any(|r| r.rtype == RRSIG && message.owner(r) == name.as_wire());
        let mut signers: Vec<Spelled> = Vec::new();
        for record in message.answers().iter().filter(|r| r.rtype == RRSIG && r.class == CLASS_IN) {
            let on_chain = chain.steps.iter().any(|step| step.owner.as_wire() == message.owner(record));
            let Some(zone) = Signature::read(message, record).map(|s| s.signer.folded()).filter(|_| on_chain) else {
                continue;
            };
            if !signers.iter().any(|known| known.as_wire() == zone.as_wire()) && signers.len() <= MAX_HOPS {
                signers.push(zone);
            }
        }
        for zone in signers {
            let below = |hop: &&Spelled| match (hop.as_name(), zone.as_name()) {
                (Some(hop), Some(zone)) => hop.is_below(zone),
                _ => false,
            };
            let first = chain.hops.iter().filter(below).find(|hop| !is_signed(hop));
            if let Some(hop) = first.filter(|_| !self.absent.iter().any(|absent| absent.is_denied_by(&zone))) {
                self.absent.push(Absent::unsigned(*hop, zone));
            }
        }
    }

    /// A wildcard's records are proved only together with the absence of the name itself (RFC 4035 section 5.3.4).
    fn note_wildcard(&mut self, owner: &[u8], signature: &Signature) {
        let Ok(name) = NameRef::from_wire(owner) else { return };
        let zone = signature.signer.folded();
        let within = zone.as_name().is_some_and(|zone| name.is_at_or_below(zone));
        // One for each name on the chain.
        if within && signature.is_of_wildcard(name) && self.absent.last().is_none_or(|last| !last.is_of(name)) {
            self.absent.push(Absent::expanded(Spelled::of(name), zone, signature.labels.into()));
        }
    }

    /// Writes our own aliases.
    fn front(&mut self) -> Result<(), VetError> {
        let front = self.front;
        for (i, alias) in front.iter().enumerate() {
            let target = front.get(i + 1).map_or(self.asked.qname, |next| next.owner);
            self.record(alias.owner.as_wire(), CNAME, alias.ttl, |v| {
                v.to.data_name(target.as_wire(), false);
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Writes the aliases.
    fn aliases(&mut self, chain: &Chain) -> Result<(), VetError> {
        for (i, step) in chain.steps.iter().enumerate() {
            let owner = step.owner.as_wire();
            let is_there = |before: &Step| before.rtype == DNAME && before.owner.as_wire() == owner;
            match &step.source {
                // What it makes may be below it again: it is one record, however often it is used.
                Source::Record(_) if step.rtype == DNAME && chain.steps.iter().take(i).any(is_there) => {}
                Source::Record(record) => {
                    self.shown += usize::from(self.copied(owner, record)?);
                    self.signatures(owner, step.rtype)?;
                }
                Source::Made { target, came } => {
                    let written = self.record(owner, step.rtype, step.ttl, |v| {
                        v.to.data_name(target.as_wire(), false);
                        Ok(())
                    })?;
                    self.shown += usize::from(written && *came);
                }
            }
        }
        Ok(())
    }

    /// Writes the records of the asked type at the chain's end.
    fn finals(&mut self, chain: &Chain) -> Result<(), VetError> {
        if self.message.rcode != 0 || chain.internal || chain.beyond {
            return Ok(());
        }
        let asked = self.asked.qtype.0;
        let end = chain.end.as_wire();
        for record in chain.at_end(self.message) {
            // OPT, and the types that only questions or transactions have (RFC 6895 section 3.1).
            let meta = matches!(record.rtype, 0 | 41 | 128..=255);
            let wanted = if self.asked.qtype == Qtype::ANY {
                record.rtype != RRSIG || self.asked.dnssec_ok
            } else {
                record.rtype == asked
            };
            if !wanted || meta {
                continue;
            }
            self.found += 1;
            let written = match Qtype(record.rtype) {
                Qtype::A | Qtype::AAAA => self.address(end, record)?,
                Qtype::SVCB | Qtype::HTTPS => self.service(end, record)?,
                _ => self.copied(end, record)?,
            };
            self.finals += usize::from(written);
            self.shown += usize::from(written && record.rtype != RRSIG);
        }
        // A set that is not as it was signed cannot be shown with its signature.
        if self.finals == self.found && !self.edited && asked != Qtype::ANY.0 && self.finals > 0 {
            self.signatures(end, asked)?;
        }
        Ok(())
    }

    /// Judges one address; `true` if it may be shown.
    fn admit(&mut self, addr: IpAddr) -> bool {
        match self.rules.showing(self.asked.qname, addr) {
            Showing::Hide => {
                self.guarded = true;
                self.hidden(addr);
                false
            }
            _ if self.addresses >= MAX_ADDRESSES => false,
            showing => {
                self.addresses += 1;
                if showing == Showing::Pin && !self.pins.contains(&addr) {
                    self.pins.push(addr);
                }
                true
            }
        }
    }

    fn hidden(&mut self, addr: IpAddr) {
        if self.rebinding.len() < MAX_ADDRESSES && !self.rebinding.contains(&addr) {
            self.rebinding.push(addr);
        }
    }

    fn address(&mut self, owner: &[u8], record: &Record) -> Result<bool, VetError> {
        match rdata::address(record.rtype, self.message.rdata(record)) {
            Some(addr) if self.admit(addr) => self.copied(owner, record),
            _ => Ok(false),
        }
    }

    fn service(&mut self, owner: &[u8], record: &Record) -> Result<bool, VetError> {
        let Ok(svcb) = Svcb::read(self.message, record) else { return Ok(false) };
        let target = svcb.target();
        let Some(name) = target.as_name() else { return Ok(false) };
        if !name.is_root() {
            if is_internal_name(name) && !self.rules.names_inside(self.asked.qname) {
                self.guarded = true;
                return Ok(false);
            }
            self.targets.push(target);
        }
        let mut shown: Vec<IpAddr> = Vec::new();
        for hint in svcb.hints().take(MAX_ADDRESSES) {
            if !self.rules.strip_hints {
                if self.admit(hint) {
                    shown.push(hint);
                }
            } else if self.rules.showing(self.asked.qname, hint) == Showing::Hide {
                // Not shown either way; an inside address among them is evidence all the same.
                self.hidden(hint);
            }
        }
        let (data, edited) = svcb.with(self.rules.strip_ech, |hint| shown.contains(&hint));
        self.edited |= edited;
        // Those that differed in what was taken out of them are one (RFC 2181 section 5).
        if self.services.contains(&data) {
            return Ok(false);
        }
        let written = self.record(owner, record.rtype, record.ttl, |v| {
            v.to.octets(&data);
            Ok(())
        })?;
        self.services.push(data);
        Ok(written)
    }

    /// Adds the authority section and says what kind of answer it is.
    fn conclude(mut self, chain: &Chain) -> Result<Vetted, VetError> {
        let none_left = self.found > 0 && self.finals == 0;
        if chain.internal || (none_left && self.guarded) {
            return Ok(self.emptied(chain));
        }
        if none_left {
            // There are records, and none can be read: that says nothing of whether there are any.
            return Ok(failure());
        }
        // Of what is beyond it says nothing.
        let nx = self.message.rcode == 3 && !chain.beyond;
        let (answers, answers_octets) = (self.written, self.data_octets);
        let mut bare = false;
        let kind = if self.finals > 0 || chain.beyond || chain.too_long {
            Kind::Positive
        } else {
            let soa = self.soa(chain)?;
            // An alias that was asked for is an answer, whether or not the upstream looked further.
            bare = !soa && (chain.steps.is_empty() || !self.asked.is_for_aliases());
            if bare {
                self.ttl = self.ttl.min(BARE_NEGATIVE_TTL);
            }
            match (nx, soa, chain.steps.is_empty()) {
                (true, ..) => Kind::NxDomain,
                (false, false, true) if self.message.is_referral() => return Ok(failure()),
                (false, false, false) => Kind::Positive,
                _ => Kind::NoData,
            }
        };
        let proved = self.proof(chain)?;
        let dropped = self.dropped();
        let whole = dropped == 0 && !self.edited && !bare && proved;
        let authorities = (self.written - answers) as u16;
        let beyond_proof = (self.data_octets - answers_octets).saturating_sub(HONEST_PROOF);
        let names = self.names(chain);
        let (body, ttl_at) = self.to.finish();
        Ok(Vetted {
            answer: WireAnswer {
                rcode: match (nx, chain.too_long) {
                    (true, _) => 3,
                    (_, true) => YXDOMAIN as u8,
                    _ => 0,
                },
                authentic_data: self.message.authentic_data && whole,
                ede: None,
                answers: answers as u16,
                authorities,
                body,
                ttl_at,
                ttl: self.ttl,
                pins: self.pins.into_boxed_slice(),
                // Where it leads was not asked.
                beyond: chain.beyond && !self.asked.is_for_aliases(),
            },
            kind,
            cacheable: self.ttl > 0,
            rebinding: self.rebinding,
            internal_alias: false,
            names,
            dropped,
            whole,
            data_octets: (answers_octets + beyond_proof) as u32,
        })
    }

    /// Writes the SOA of a negative answer, its TTL as RFC 2308 section 5 wants, with its signatures if they were asked
    /// for; `false` if none fits.
    fn soa(&mut self, chain: &Chain) -> Result<bool, VetError> {
        let message = self.message;
        let Some(end) = chain.end.as_name() else { return Ok(false) };
        let fits = |r: &&Record| {
            r.rtype == SOA
                && r.class == CLASS_IN
                && NameRef::from_wire(message.owner(r)).is_ok_and(|zone| end.is_at_or_below(zone))
        };
        // The closest zone is whose word it is.
        let closest = message.authorities().iter().filter(fits).max_by_key(|r| message.owner(r).len());
        let Some(soa) = closest else { return Ok(false) };
        let Some(minimum) = message.rdata(soa).last_chunk::<4>() else { return Ok(false) };
        let ttl = soa.ttl.min(u32::from_be_bytes(*minimum));
        let written = self.authority(soa, ttl)?;
        if written && self.asked.dnssec_ok {
            let owner = message.owner(soa);
            match denial::signatures(message, soa, owner) {
                Some(signatures) => {
                    for signature in signatures {
                        self.authority(&signature, ttl)?;
                    }
                }
                // More of them than belong there: shown without, which is no longer what came.
                None => self.edited = true,
            }
            if let Ok(zone) = NameRef::from_wire(owner) {
                self.absent.push(Absent::denied(chain.end, Spelled::of(zone), ttl));
            }
        }
        Ok(written)
    }

    /// Writes what proves that something is not there; `false` if anything of it was left out.
    fn proof(&mut self, chain: &Chain) -> Result<bool, VetError> {
        if !self.asked.dnssec_ok {
            return Ok(true);
        }
        self.note_unsigned(chain);
        let mut proof = denial::proof(self.message, &self.absent);
        for set in &proof.sets {
            for record in std::iter::once(&set.record).chain(&set.signatures) {
                proof.whole &= self.authority(record, set.ttl)?;
            }
        }
        Ok(proof.whole)
    }

    /// Copies a record of the authority section, to live for `ttl` seconds at most.
    fn authority(&mut self, record: &Record, ttl: u32) -> Result<bool, VetError> {
        let message = self.message;
        self.record(message.owner(record), record.rtype, record.ttl.min(ttl), |v| {
            rdata::copy(message, record, &mut v.to)
        })
    }

    fn dropped(&self) -> u16 {
        let there = self.message.answers().iter().filter(|r| r.rtype != RRSIG).count();
        there.saturating_sub(self.shown).min(usize::from(u16::MAX)) as u16
    }

    fn names(&self, chain: &Chain) -> Vec<staunch_scoring::NameBuf> {
        let all = chain.hops.iter().chain(&self.targets);
        all.filter_map(|name| name.as_name().map(NameRef::to_owned)).take(MAX_RECORDS).collect()
    }
}
