//! Denial: which records of the authority section can prove what is not there (RFC 4035 section 5.4, RFC 5155 section 8).
//!
//! For clients that validate. Shown is what such a client needs for this one question, and nothing else that a server may
//! have put beside it: an NSEC record has to match or cover the name that is denied, or the wildcard that could have
//! answered for it, or be that of a delegation without keys on the chain; an NSEC3 record has to belong to the zone that
//! denies. Each must come with a signature of that zone. Whether signatures and hashes are right is for the client to say:
//! hashing for a hostile zone is work of an attacker's choice (CVE-2023-50868), so there are instead no more NSEC3 records
//! than a proof can take. Only where more came are those that belong told by a few hashes ([`hashed`]).
//!
//! The names in these records go nowhere else: they are not pinned, not judged and not looked up, and no answer to another
//! question is made from them (RFC 8198 is not used).

mod hashed;
mod wanted;

use std::cmp::Ordering;

use staunch_scoring::NameRef;
use staunch_scoring::name::LabelOffsets;

pub(crate) use self::hashed::hash;
use self::wanted::{Wanted, choose};
use super::message::{Message, Record, Spelled, read_name};
use super::rdata::Signature;
use super::vet::{CLASS_IN, RRSIG, SOA};

const NS: u16 = 2;
const NSEC: u16 = 47;
const NSEC3: u16 = 50;

/// Most NSEC and NSEC3 records looked at. A denial takes three at most, each wildcard on the way to it one more. With more,
/// none is shown.
const MAX_DENIALS: usize = 16;
/// Most signatures of one set in the authority section: two algorithms, each with two keys. With more, none is shown.
const MAX_SIGNATURES: usize = 4;
/// Most octets of a whole proof, names expanded; with more, none of it is shown. Three NSEC3 records, each signed twice by
/// RSA keys of 4096 bits, take some 6,000.
const MAX_OCTETS: usize = 8192;
/// Octets of a hash (RFC 5155 section 11; SHA-1 is the only algorithm there is).
pub(crate) const HASH: usize = 20;
/// The same in Base32 (RFC 5155 section 3.3).
const HASH_LABEL: usize = 32;

/// What of a name is not there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    /// It, or its type.
    Denied,
    /// Only the name: the records shown are those of a wildcard, whose encloser has so many labels.
    Expanded(usize),
    /// The keys of the zone that it is in.
    Keys,
}

/// Something that is not there, as one zone says.
pub(super) struct Absent {
    name: Spelled,
    zone: Spelled,
    what: What,
    /// No record that denies lives longer (RFC 9077 section 3), seconds.
    ttl: u32,
}

impl Absent {
    /// `name`, or its type, does not exist in `zone`, whose negative answers live `ttl` seconds. Both names canonical.
    pub(super) fn denied(name: Spelled, zone: Spelled, ttl: u32) -> Self {
        Self { name, zone, what: What::Denied, ttl }
    }

    /// What is shown under `name` are the records of a wildcard of `zone`, below a name of `labels` labels. Both names
    /// canonical.
    pub(super) fn expanded(name: Spelled, zone: Spelled, labels: usize) -> Self {
        Self { name, zone, what: What::Expanded(labels), ttl: u32::MAX }
    }

    /// Between `zone` and `name`, to which one of its aliases leads, is a delegation without keys. Both names canonical.
    pub(super) fn unsigned(name: Spelled, zone: Spelled) -> Self {
        Self { name, zone, what: What::Keys, ttl: u32::MAX }
    }

    /// Whether `zone` says that it does not exist.
    pub(super) fn is_denied_by(&self, zone: &Spelled) -> bool {
        self.what == What::Denied && self.zone.as_wire() == zone.as_wire()
    }

    /// Whether it is about `name`.
    pub(super) fn is_of(&self, name: NameRef<'_>) -> bool {
        self.name.as_wire() == name.as_wire()
    }
}

/// One record that denies, and the signatures over it.
pub(super) struct Set {
    pub(super) record: Record,
    /// Of `record` and its signatures, seconds.
    pub(super) ttl: u32,
    pub(super) signatures: Vec<Record>,
}

/// What is shown as proof.
pub(super) struct Proof {
    /// In the order they came.
    pub(super) sets: Vec<Set>,
    /// Nothing was left out that may have been part of it.
    pub(super) whole: bool,
}

impl Proof {
    const NOTHING: Self = Self { sets: Vec::new(), whole: false };
}

/// Takes from `message` the records that can prove that each of `absent` is not there.
pub(super) fn proof(message: &Message<'_>, absent: &[Absent]) -> Proof {
    if absent.is_empty() {
        return Proof { sets: Vec::new(), whole: true };
    }
    let denies = |r: &&Record| r.class == CLASS_IN && matches!(r.rtype, NSEC | NSEC3);
    let found: Vec<&Record> = message.authorities().iter().filter(denies).take(MAX_DENIALS + 1).collect();
    if found.len() > MAX_DENIALS {
        return Proof::NOTHING;
    }
    let nsecs: Vec<Nsec<'_>> = found.iter().filter_map(|r| Nsec::read(message, r)).collect();
    let nsec3s: Vec<Nsec3<'_>> = found.iter().filter_map(|r| Nsec3::read(message, r)).collect();
    let mut wanted: Vec<Wanted<'_>> = absent.iter().map(|absent| Wanted::of(absent, &nsecs)).collect();
    choose(&mut wanted, &nsec3s);

    let mut proof = Proof { sets: Vec::new(), whole: true };
    let (mut octets, mut is_any_left) = (0, false);
    for record in found {
        let (nsec, nsec3) = (Nsec::read(message, record), Nsec3::read(message, record));
        let serves = |wanted: &mut Wanted<'_>| match (&nsec, &nsec3) {
            (Some(nsec), _) => nsec.serves(wanted.absent, wanted.wildcard.as_ref()),
            (_, Some(nsec3)) => wanted.takes(nsec3),
            _ => false,
        };
        let at = wanted.iter_mut().find_map(|wanted| serves(wanted).then_some(wanted.absent));
        let Some(absent) = at else {
            // What nothing here asks for takes nothing away: unbound shows what it has met on its way. What cannot be read, or
            // told from what belongs, may have been part of a proof, and so may all where there is none.
            let is_beside_it = match (&nsec, &nsec3) {
                (Some(_), _) => true,
                (_, Some(nsec3)) => !wanted.iter().any(|wanted| wanted.may_lack(nsec3)),
                _ => false,
            };
            proof.whole &= is_beside_it;
            is_any_left = true;
            continue;
        };
        let again = |set: &Set| set.record.rtype == record.rtype && message.owner(&set.record) == message.owner(record);
        if proof.sets.iter().any(again) {
            proof.whole = false;
            continue;
        }
        let signatures = signatures(message, record, absent.zone.as_wire()).filter(|s| !s.is_empty());
        let Some(signatures) = signatures else {
            proof.whole = false;
            continue;
        };
        octets += std::iter::once(record).chain(&signatures).map(|r| size(message, r)).sum::<usize>();
        if octets > MAX_OCTETS {
            return Proof::NOTHING;
        }
        proof.sets.push(Set { record: *record, ttl: absent.ttl, signatures });
        for wanted in &mut wanted {
            wanted.has_some |= match (&nsec, &nsec3) {
                (Some(nsec), _) => nsec.serves(wanted.absent, wanted.wildcard.as_ref()),
                (_, Some(nsec3)) => wanted.may_take(nsec3),
                _ => false,
            };
        }
    }
    proof.whole &= !is_any_left || wanted.iter().all(|wanted| wanted.has_some);
    proof
}

/// Signatures of `zone` over `record` in the authority section; `None` if there are more than belong there.
pub(super) fn signatures(message: &Message<'_>, record: &Record, zone: &[u8]) -> Option<Vec<Record>> {
    let over = |r: &&Record| {
        r.rtype == RRSIG
            && r.class == CLASS_IN
            && message.owner(r) == message.owner(record)
            && Signature::read(message, r)
                .is_some_and(|s| s.covered == record.rtype && s.signer.folded().as_wire() == zone)
    };
    let found: Vec<Record> = message.authorities().iter().filter(over).take(MAX_SIGNATURES + 1).copied().collect();
    let octets: usize = found.iter().map(|r| size(message, r)).sum();
    (found.len() <= MAX_SIGNATURES && octets <= MAX_OCTETS).then_some(found)
}

/// Octets a record takes at most: the name in its data may be compressed.
fn size(message: &Message<'_>, record: &Record) -> usize {
    message.owner(record).len() + 10 + 255 + message.rdata(record).len()
}

/// An NSEC record (RFC 4034 section 4).
pub(crate) struct Nsec<'m> {
    pub(crate) owner: NameRef<'m>,
    pub(crate) next: Spelled,
    /// Types that `owner` has.
    pub(crate) types: &'m [u8],
}

impl<'m> Nsec<'m> {
    /// `None` where the record is none, or not well formed.
    pub(crate) fn read(message: &'m Message<'_>, record: &Record) -> Option<Self> {
        let (next, at) = read_name(message.octets, record.from).ok().filter(|_| record.rtype == NSEC)?;
        let types = message.octets.get(at..record.to).filter(|types| !types.is_empty())?;
        let owner = NameRef::from_wire(message.owner(record)).ok()?;
        is_bitmap(types).then_some(Self { owner, next: next.folded(), types })
    }

    /// Whether both its names are of `zone`.
    pub(crate) fn is_in(&self, zone: NameRef<'_>) -> bool {
        self.owner.is_at_or_below(zone) && self.next.as_name().is_some_and(|next| next.is_at_or_below(zone))
    }

    /// Whether `name` lies between its two names; behind the last name of a zone comes its first.
    pub(crate) fn covers(&self, name: NameRef<'_>) -> bool {
        let Some(next) = self.next.as_name() else { return false };
        let (behind, before) = (order(self.owner, name).is_lt(), order(name, next).is_lt());
        if order(self.owner, next).is_lt() { behind && before } else { behind || before && name != self.owner }
    }

    /// The closest ancestor of `name` that exists as far as this record, which covers `name`, tells; `name` itself where
    /// others stand below it.
    pub(crate) fn encloser<'n>(&self, name: NameRef<'n>) -> Option<NameRef<'n>> {
        let next = self.next.as_name()?;
        name.ancestors().find(|a| self.owner.is_at_or_below(*a) || next.is_at_or_below(*a))
    }

    /// Whether it can be part of the proof that `absent` is not there.
    fn serves(&self, absent: &Absent, wildcard: Option<&Spelled>) -> bool {
        let (Some(name), Some(zone)) = (absent.name.as_name(), absent.zone.as_name()) else { return false };
        if !self.is_in(zone) {
            return false;
        }
        let either = |name: NameRef<'_>| self.owner == name || self.covers(name);
        match absent.what {
            What::Denied => either(name) || wildcard.and_then(Spelled::as_name).is_some_and(either),
            What::Expanded(_) => self.covers(name),
            What::Keys => self.owner.is_below(zone) && name.is_at_or_below(self.owner) && is_cut(self.types),
        }
    }
}

/// The wildcard that would have answered for `absent` (RFC 4592 section 3.3.1): below the closest name that exists, which
/// the first record that covers the name tells.
fn wildcard(absent: &Absent, nsecs: &[Nsec<'_>]) -> Option<Spelled> {
    let (name, zone) = (absent.name.as_name()?, absent.zone.as_name()?);
    let nsec =
        nsecs.iter().find(|nsec| nsec.is_in(zone) && nsec.covers(name)).filter(|_| absent.what == What::Denied)?;
    let encloser = nsec.encloser(name)?;
    // The name itself where others stand below it: it exists, and no wildcard answers for it.
    if encloser == name { None } else { wildcard_below(encloser) }
}

/// Whether a name with these types is a delegation, as its parent sees it.
fn is_cut(types: &[u8]) -> bool {
    has_type(types, NS) && !has_type(types, SOA)
}

/// `*.encloser`; `None` where that is too long for a name.
pub(crate) fn wildcard_below(encloser: NameRef<'_>) -> Option<Spelled> {
    let mut wire = vec![1, b'*'];
    wire.extend_from_slice(encloser.as_wire());
    read_name(&wire, 0).ok().map(|(wildcard, _)| wildcard)
}

/// Whether `types`, a list that is well formed, holds `rtype`.
pub(crate) fn has_type(mut types: &[u8], rtype: u16) -> bool {
    let [window, low] = rtype.to_be_bytes();
    while let [of, len, rest @ ..] = types {
        let (bits, rest) = rest.split_at_checked(usize::from(*len)).unwrap_or((rest, &[]));
        if *of == window {
            return bits.get(usize::from(low / 8)).is_some_and(|octet| octet & (0x80 >> (low % 8)) != 0);
        }
        types = rest;
    }
    false
}

/// An NSEC3 record (RFC 5155 section 3).
pub(crate) struct Nsec3<'m> {
    /// The zone that it is of.
    pub(crate) zone: NameRef<'m>,
    /// Hash of its owner.
    pub(crate) owner: [u8; HASH],
    /// The hash that comes behind it.
    pub(crate) next: [u8; HASH],
    /// Flags (RFC 5155 section 3.1.2); 1 is opt-out.
    pub(crate) flags: u8,
    /// How often a hash is hashed again.
    pub(crate) iterations: u16,
    pub(crate) salt: &'m [u8],
    /// Types that its owner has.
    pub(crate) types: &'m [u8],
}

impl<'m> Nsec3<'m> {
    /// `None` where the record is none, not well formed, or of a hash or a kind that is not known.
    pub(crate) fn read(message: &'m Message<'_>, record: &Record) -> Option<Self> {
        let name = NameRef::from_wire(message.owner(record)).ok().filter(|_| record.rtype == NSEC3)?;
        let [1, flags, high, low, salt, rest @ ..] = message.rdata(record) else { return None };
        let (salt, rest) = rest.split_at_checked(usize::from(*salt))?;
        let [20, rest @ ..] = rest else { return None };
        let (next, types) = rest.split_first_chunk()?;
        is_bitmap(types).then_some(Self {
            zone: name.parent()?,
            owner: hash_of(name.labels().next()?)?,
            next: *next,
            flags: *flags,
            iterations: u16::from_be_bytes([*high, *low]),
            salt,
            types,
        })
    }

    /// Whether delegations without keys may lie between its two hashes (RFC 5155 section 6).
    pub(crate) fn opts_out(&self) -> bool {
        self.flags & 1 != 0
    }

    /// Whether `hash` lies between its two hashes; behind the last one of a zone comes the first.
    pub(crate) fn covers(&self, hash: &[u8; HASH]) -> bool {
        let (behind, before) = (self.owner < *hash, *hash < self.next);
        if self.owner < self.next { behind && before } else { behind || before && *hash != self.owner }
    }
}

/// The hash that a label spells in Base32 with the extended hexadecimal alphabet (RFC 4648 section 7), lower case.
fn hash_of(label: &[u8]) -> Option<[u8; HASH]> {
    let mut hash = [0; HASH];
    if label.len() != HASH_LABEL {
        return None;
    }
    let (groups, _) = label.as_chunks::<8>();
    let (places, _) = hash.as_chunks_mut::<5>();
    for (group, place) in groups.iter().zip(places) {
        let mut bits = 0u64;
        for c in group {
            let digit = match c {
                b'0'..=b'9' => c - b'0',
                b'a'..=b'v' => c - b'a' + 10,
                _ => return None,
            };
            bits = bits << 5 | u64::from(digit);
        }
        let [_, _, _, octets @ ..] = bits.to_be_bytes();
        *place = octets;
    }
    Some(hash)
}

/// Whether these octets are a list of types (RFC 4034 section 4.1.2), which may be empty.
fn is_bitmap(mut octets: &[u8]) -> bool {
    let mut least = 0;
    while let [window, len @ 1..=32, rest @ ..] = octets {
        let Some(rest) = rest.get(usize::from(*len)..).filter(|_| u16::from(*window) >= least) else { return false };
        least = u16::from(*window) + 1;
        octets = rest;
    }
    octets.is_empty()
}

/// Canonical order of names (RFC 4034 section 6.1).
fn order(a: NameRef<'_>, b: NameRef<'_>) -> Ordering {
    LabelOffsets::of(a).rev_labels(a).cmp(LabelOffsets::of(b).rev_labels(b))
}

#[cfg(test)]
mod tests {
    use staunch_scoring::NameBuf;

    use super::*;

    fn name(text: &str) -> NameBuf {
        NameBuf::from_text(text).expect("name")
    }

    /// The example of RFC 4034 section 6.1.
    #[test]
    fn names_are_in_canonical_order() {
        let sorted = [
            "example",
            "a.example",
            "yljkjljk.a.example",
            "Z.a.example",
            "zABC.a.EXAMPLE",
            "z.example",
            "\\001.z.example",
            "*.z.example",
            "\\200.z.example",
        ];
        for (i, a) in sorted.iter().enumerate() {
            for (k, b) in sorted.iter().enumerate() {
                assert_eq!(order(name(a).as_ref(), name(b).as_ref()), i.cmp(&k), "{a} {b}");
            }
        }
    }

    #[test]
    fn a_record_covers_what_lies_between_its_names() {
        for (owner, next, asked, covered) in [
            ("a.example", "c.example", "b.example", true),
            ("a.example", "c.example", "x.a.example", true),
            ("a.example", "c.example", "a.example", false),
            ("a.example", "c.example", "c.example", false),
            ("a.example", "c.example", "d.example", false),
            ("a.example", "x.b.example", "b.example", true), // an empty non-terminal
            ("m.example", "example", "z.example", true),     // the last of the zone
            ("m.example", "example", "b.example", false),
            ("m.example", "example", "m.example", false),
            ("example", "example", "b.example", true), // the only one
            ("example", "example", "example", false),
            ("b.example", "\\000.b.example", "b.example", false),
            ("b.example", "\\000.b.example", "\\000.\\000.b.example", false),
        ] {
            let (owner, next, asked) = (name(owner), name(next), name(asked));
            let nsec = Nsec { owner: owner.as_ref(), next: Spelled::of(next.as_ref()), types: &[] };
            assert_eq!(nsec.covers(asked.as_ref()), covered, "{owner} {asked} {next}");
        }
    }

    #[test]
    fn the_wildcard_stands_below_the_closest_encloser() {
        for (owner, next, asked, expected) in [
            ("a.example", "d.example", "b.example", Some("*.example")),
            ("x.a.example", "d.example", "z.y.a.example", Some("*.a.example")),
            ("a.example", "x.b.example", "w.b.example", Some("*.b.example")),
            ("a.example", "d.example", "e.example", None),
            ("a.example", "x.b.example", "b.example", None),
            ("a.other", "d.other", "b.example", None),
        ] {
            let (owner, next) = (name(owner), name(next));
            let nsecs = [Nsec { owner: owner.as_ref(), next: Spelled::of(next.as_ref()), types: &[] }];
            let spelled = |text: &str| Spelled::of(name(text).as_ref());
            let found = wildcard(&Absent::denied(spelled(asked), spelled("example"), 1), &nsecs);
            let found = found.and_then(|found| found.as_name().map(|name| name.to_string()));
            assert_eq!(found.as_deref(), expected, "{asked}");
        }
    }

    /// RFC 4034 section 4.3: A, MX, RRSIG, NSEC and TYPE1234.
    #[test]
    fn a_list_of_types_holds_those_whose_bits_are_set() {
        let mut types = vec![0, 6, 0x40, 1, 0, 0, 0, 3, 4, 27];
        types.extend([0; 26]);
        types.push(0x20);
        assert!(is_bitmap(&types));
        let held: Vec<u16> = (0..=2000).filter(|rtype| has_type(&types, *rtype)).collect();
        assert_eq!(held, [1, 15, 46, 47, 1234]);
        assert!(!has_type(&[], 1) && !has_type(&types, 0x7f01));
    }

    /// RFC 5155 appendix A: `example` hashes to `0p9mhaveqvm6t7vbl5lop2u3t2rp3tom`.
    #[test]
    fn a_hash_is_read_from_its_label() {
        let hash = hash_of(b"0p9mhaveqvm6t7vbl5lop2u3t2rp3tom").expect("a hash");
        let text: String = hash.iter().map(|octet| format!("{octet:02x}")).collect();
        assert_eq!(text, "065368abeed7ec6e9feba96b8c8bc3e8b791f716");
        for bad in [&b"0p9mhaveqvm6t7vbl5lop2u3t2rp3to"[..], b"0p9mhaveqvm6t7vbl5lop2u3t2rp3tow", b""] {
            assert_eq!(hash_of(bad), None);
        }
    }

    #[test]
    fn lists_of_types_are_read_strictly() {
        for (octets, good) in [
            (&[][..], true),
            (&[0, 1, 0x40], true),
            (&[0, 6, 0x40, 1, 0, 0, 0, 3, 4, 1, 1], true),
            (&[0, 0], false),
            (&[0, 33], false),
            (&[0, 2, 1], false),
            (&[0, 1, 1, 0, 1, 1], false),
            (&[1, 1, 1, 0, 1, 1], false),
            (&[0], false),
            (&[255, 1, 1], true),
        ] {
            assert_eq!(is_bitmap(octets), good, "{octets:?}");
        }
    }
}
