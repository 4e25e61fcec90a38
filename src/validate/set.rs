//! A set of records and the signatures over it (RFC 4034 section 3, RFC 4035 section 5.3).

use staunch_scoring::NameRef;

use super::Bogus;
use super::chain::Halt;
use super::keys::{Key, is_known};
use super::work::Work;
use crate::answer::{CLASS_IN, Message, Nsec, Record, Spelled, canonical, read_name, wildcard_below};

pub(super) const CNAME: u16 = 5;
pub(super) const SOA: u16 = 6;
pub(super) const DNAME: u16 = 39;
pub(super) const DS: u16 = 43;
pub(super) const RRSIG: u16 = 46;
pub(super) const NSEC: u16 = 47;
pub(super) const DNSKEY: u16 = 48;
pub(super) const NSEC3: u16 = 50;

/// Most signatures over one set that are looked at; further ones are as if they were not there.
const MAX_SIGNATURES: usize = 16;
/// Most octets that one signature may cover, data in canonical form. Three times what fits into a message, since names
/// are expanded; bounds the hashing.
const MAX_SIGNED: usize = 192 * 1024;

/// How far a clock may be wrong, ours or the signer's: this part of the time for which a signature is made, within bounds,
/// seconds. As unbound has it (`val-sig-skew-min`, `val-sig-skew-max`).
const SKEW_SHARE: u32 = 10;
const SKEW_LEAST: u32 = 3600;
const SKEW_MOST: u32 = 24 * 3600;

/// A signature.
pub(super) struct Rrsig<'m> {
    algorithm: u8,
    labels: u8,
    original_ttl: u32,
    expiration: u32,
    inception: u32,
    tag: u16,
    /// The zone that signed, canonical.
    pub(super) signer: Spelled,
    /// All that stands in front of the signer.
    fields: &'m [u8],
    signature: &'m [u8],
    ttl: u32,
}

impl<'m> Rrsig<'m> {
    /// The signature in `record`, if it covers `rtype`.
    fn read(message: &'m Message<'_>, record: &Record, rtype: u16) -> Option<Self> {
        let fields = message.octets.get(record.from..record.from + 18)?;
        let [c0, c1, algorithm, labels, o0, o1, o2, o3, e0, e1, e2, e3, i0, i1, i2, i3, t0, t1] = fields else {
            return None;
        };
        let (signer, next) = read_name(message.octets, record.from + 18).ok()?;
        let signature = message.octets.get(next..record.to).filter(|signature| !signature.is_empty())?;
        ([*c0, *c1] == rtype.to_be_bytes()).then_some(Self {
            algorithm: *algorithm,
            labels: *labels,
            original_ttl: u32::from_be_bytes([*o0, *o1, *o2, *o3]),
            expiration: u32::from_be_bytes([*e0, *e1, *e2, *e3]),
            inception: u32::from_be_bytes([*i0, *i1, *i2, *i3]),
            tag: u16::from_be_bytes([*t0, *t1]),
            signer: signer.folded(),
            fields,
            signature,
            ttl: record.ttl,
        })
    }

    /// How long from `now` what it covers may be kept, seconds: until its time ends or, where a clock that is wrong may be why
    /// it is not the time for it, as long as that is borne with.
    ///
    /// # Errors
    /// It is not the time for it, by more than clocks differ.
    fn left(&self, now: u32) -> Result<u32, Bogus> {
        // Serial number arithmetic (RFC 4034 section 3.1.5).
        if is_before(self.expiration, self.inception) {
            return Err(Bogus::Signature);
        }
        let skew = (self.expiration.wrapping_sub(self.inception) / SKEW_SHARE).clamp(SKEW_LEAST, SKEW_MOST);
        if is_before(self.expiration.wrapping_add(skew), now) {
            Err(Bogus::Expired)
        } else if is_before(now.wrapping_add(skew), self.inception) {
            Err(Bogus::NotYetValid)
        } else if is_before(self.expiration, now) {
            Ok(self.expiration.wrapping_add(skew).wrapping_sub(now))
        } else {
            Ok(self.expiration.wrapping_sub(now))
        }
    }
}

/// What is known of a set that is as it was signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Good {
    /// How long it may be kept (RFC 4035 section 5.3.3), seconds.
    pub(super) ttl: u32,
    /// Labels of the encloser of the wildcard that it was made of, if it was (RFC 4035 section 5.3.4).
    pub(super) wildcard: Option<usize>,
}

/// Records of one owner and type.
pub(super) struct Set<'m> {
    pub(super) owner: NameRef<'m>,
    pub(super) rtype: u16,
    /// Whether it stands in the authority section.
    is_authority: bool,
    message: &'m Message<'m>,
    records: Vec<&'m Record>,
    signatures: Vec<Rrsig<'m>>,
}

impl<'m> Set<'m> {
    /// The records of `owner` and `rtype` in the answer section, and the signatures over them.
    pub(super) fn in_answer(message: &'m Message<'m>, owner: NameRef<'m>, rtype: u16) -> Self {
        Self::gather(message, false, owner, rtype)
    }

    /// The same in the authority section.
    pub(super) fn in_authority(message: &'m Message<'m>, owner: NameRef<'m>, rtype: u16) -> Self {
        Self::gather(message, true, owner, rtype)
    }

    fn gather(message: &'m Message<'m>, is_authority: bool, owner: NameRef<'m>, rtype: u16) -> Self {
        let section = if is_authority { message.authorities() } else { message.answers() };
        let own = || section.iter().filter(|r| r.class == CLASS_IN && message.owner(r) == owner.as_wire());
        let signatures = own().filter(|r| r.rtype == RRSIG).filter_map(|r| Rrsig::read(message, r, rtype));
        Self {
            owner,
            rtype,
            is_authority,
            message,
            records: own().filter(|r| r.rtype == rtype).collect(),
            signatures: signatures.take(MAX_SIGNATURES).collect(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The data of its records.
    pub(super) fn data(&self) -> impl Iterator<Item = &'m [u8]> + '_ {
        self.records.iter().map(|record| self.message.rdata(record))
    }

    /// The least of its records' TTLs, seconds.
    pub(super) fn ttl(&self) -> u32 {
        self.records.iter().map(|record| record.ttl).min().unwrap_or(0)
    }

    /// Its only record, where there is one and no other.
    pub(super) fn single(&self) -> Option<&'m Record> {
        if let [record] = *self.records { Some(record) } else { None }
    }

    /// Whether it is the NSEC record of the wildcard whose encloser has `labels` labels, and says by itself that nothing stands
    /// closer to the name that it is shown for (RFC 4035 section 5.3.4): knotd sends no other.
    pub(super) fn proves_itself(&self, labels: usize) -> bool {
        let Some(nsec) = self.single().and_then(|record| Nsec::read(self.message, record)) else { return false };
        let wildcard = wildcard_below(self.owner.strip_left(self.owner.label_count().saturating_sub(labels)));
        let Some(owner) = wildcard.as_ref().and_then(|wildcard| wildcard.as_name()) else { return false };
        let nsec = Nsec { owner, ..nsec };
        nsec.covers(self.owner) && nsec.encloser(self.owner).is_some_and(|encloser| encloser.label_count() == labels)
    }

    /// Zones that may have signed it, the deepest first: its owner's, and for a DS set one above (RFC 4035 section 2.4).
    pub(super) fn signers(&self) -> Vec<NameRef<'_>> {
        let mut signers: Vec<NameRef<'_>> = Vec::new();
        for signature in &self.signatures {
            let Some(signer) = signature.signer.as_name() else { continue };
            let may = if self.rtype == DS { self.owner.is_below(signer) } else { self.owner.is_at_or_below(signer) };
            if may && !signers.contains(&signer) {
                signers.push(signer);
            }
        }
        signers.sort_by_key(|signer| std::cmp::Reverse(signer.label_count()));
        signers
    }

    /// Whether one of `keys`, which `zone` has, signed it so that it counts at `now` (seconds since 1970, modulo 2^32).
    /// Asked again of the same message, the answer is at hand.
    pub(super) fn verify(&self, zone: NameRef<'_>, keys: &[Key], now: u32, work: &mut Work) -> Result<Good, Halt> {
        let key = (self.owner.as_wire().into(), self.rtype, zone.as_wire().into(), self.is_authority);
        if let Some(found) = work.sets.get(&key) {
            return found.map_err(Halt::Bogus);
        }
        let found = self.verify_anew(zone, keys, now, work);
        match &found {
            Ok(good) => drop(work.sets.insert(key, Ok(*good))),
            Err(Halt::Bogus(why)) => drop(work.sets.insert(key, Err(*why))),
            Err(_) => {}
        }
        found
    }

    fn verify_anew(&self, zone: NameRef<'_>, keys: &[Key], now: u32, work: &mut Work) -> Result<Good, Halt> {
        let mut why = None;
        let mut data = None;
        for signature in &self.signatures {
            if signature.signer.as_wire() != zone.as_wire() || !is_known(signature.algorithm) {
                continue;
            }
            // RFC 4035 section 5.3.1: an asterisk of the owner's own is not counted.
            let own = self.owner.label_count() - usize::from(self.owner.labels().next() == Some(b"*"));
            let labels = usize::from(signature.labels);
            if labels > own || labels < zone.label_count() {
                why = why.or(Some(Bogus::Signature));
                continue;
            }
            let left = match signature.left(now) {
                Ok(left) => left,
                Err(reason) => {
                    why = why.or(Some(reason));
                    continue;
                }
            };
            // What denies, and what keys rest on, is no wildcard's. One's own NSEC record answers who asks for that type.
            let wildcard = (labels < own).then_some(labels);
            let denies = self.rtype == NSEC && self.is_authority;
            if wildcard.is_some() && (denies || matches!(self.rtype, SOA | DS | DNSKEY | NSEC3)) {
                why = why.or(Some(Bogus::Signature));
                continue;
            }
            let mut fitting =
                keys.iter().filter(|key| key.tag == signature.tag && key.algorithm == signature.algorithm).peekable();
            if fitting.peek().is_none() {
                why = why.or(Some(Bogus::NoKey));
                continue;
            }
            if data.is_none() {
                data = Some(self.canonical().ok_or(Halt::Bogus(Bogus::Signature))?);
            }
            let signed = self.signed(signature, wildcard, data.as_deref().unwrap_or_default());
            let Some(signed) = signed else { return Err(Halt::Unknown(super::Unknown::Work)) };
            for key in fitting {
                if work.check(|| key.verifies(&signed, signature.signature))? {
                    let ttl = self.ttl().min(signature.ttl).min(signature.original_ttl).min(left);
                    return Ok(Good { ttl, wildcard });
                }
            }
            // Worse than a signature that is merely too old.
            why = Some(Bogus::Signature);
        }
        Err(Halt::Bogus(why.unwrap_or(Bogus::NoSignature)))
    }

    /// Data of all records in canonical form, in canonical order, each once (RFC 4034 section 6.3).
    fn canonical(&self) -> Option<Vec<Vec<u8>>> {
        let mut all: Vec<_> = self.records.iter().map(|r| canonical(self.message, r)).collect::<Option<_>>()?;
        all.sort();
        all.dedup();
        Some(all)
    }

    /// What `signature` signs (RFC 4034 section 3.1.8.1); `None` where that is too long.
    fn signed(&self, signature: &Rrsig<'_>, wildcard: Option<usize>, data: &[Vec<u8>]) -> Option<Vec<u8>> {
        let encloser = wildcard.map(|labels| self.owner.strip_left(self.owner.label_count() - labels));
        let wildcard = encloser.map(wildcard_below);
        let owner = match &wildcard {
            Some(wildcard) => wildcard.as_ref()?.as_wire(),
            None => self.owner.as_wire(),
        };
        let mut signed = Vec::with_capacity(512);
        signed.extend_from_slice(signature.fields);
        signed.extend_from_slice(signature.signer.as_wire());
        for data in data {
            signed.extend_from_slice(owner);
            signed.extend(self.rtype.to_be_bytes());
            signed.extend(CLASS_IN.to_be_bytes());
            signed.extend(signature.original_ttl.to_be_bytes());
            signed.extend(u16::try_from(data.len()).ok()?.to_be_bytes());
            signed.extend_from_slice(data);
            if signed.len() > MAX_SIGNED {
                return None;
            }
        }
        Some(signed)
    }
}

/// Whether one moment is before another (RFC 1982).
fn is_before(one: u32, other: u32) -> bool {
    one != other && other.wrapping_sub(one) < 1 << 31
}

#[cfg(test)]
mod tests {
    use super::is_before;

    #[test]
    fn moments_are_compared_around_the_end_of_their_numbers() {
        for (one, other, before) in [
            (1, 2, true),
            (2, 1, false),
            (7, 7, false),
            (u32::MAX, 3, true),
            (3, u32::MAX, false),
            (0, (1 << 31) - 1, true),
        ] {
            assert_eq!(is_before(one, other), before, "{one} {other}");
        }
    }
}
