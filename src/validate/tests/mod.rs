//! A signed tree in memory: zones with keys of their own, replies signed by code that shares nothing with the validator.

mod answers;
mod chains;
mod hostile;
mod rollover;
mod vectors;

use std::collections::HashMap;
use std::rc::Rc;

use hickory_proto::dnssec::crypto::{Digest, Ed25519SigningKey};
use hickory_proto::dnssec::{DigestType, PublicKey, SigningKey, TBS};
use staunch_scoring::NameBuf;

use super::{Anchors, Limits, Need, Step, Validator, Verdict, Work};
use crate::answer::{AnswerRules, Asked};
use crate::model::{Now, Qtype, Wall};
use crate::partition::Partition;

pub(super) const A: u16 = 1;
pub(super) const NS: u16 = 2;
pub(super) const CNAME: u16 = 5;
pub(super) const SOA: u16 = 6;
pub(super) const MX: u16 = 15;
pub(super) const DNAME: u16 = 39;
pub(super) const DS: u16 = 43;
pub(super) const RRSIG: u16 = 46;
pub(super) const NSEC: u16 = 47;
pub(super) const DNSKEY: u16 = 48;
pub(super) const NSEC3: u16 = 50;

/// The moment of all tests: 2026-01-01, and a minute after the start.
pub(super) const NOW: Now = Now { mono: 60_000, wall: Wall::at(1_767_225_600_000) };
pub(super) const SECONDS: u32 = (NOW.wall.shown / 1000) as u32;

pub(super) fn name(text: &str) -> NameBuf {
    NameBuf::from_text(text).expect("name")
}

pub(super) fn wire(text: &str) -> Vec<u8> {
    name(text).as_ref().as_wire().to_vec()
}

/// Owner, type, TTL, data.
pub(super) type Rec = (String, u16, u32, Vec<u8>);

pub(super) fn rec(owner: &str, rtype: u16, data: Vec<u8>) -> Rec {
    (owner.into(), rtype, 300, data)
}

pub(super) fn a(owner: &str) -> Rec {
    rec(owner, A, vec![192, 0, 2, 1])
}

pub(super) fn soa(zone: &str) -> Rec {
    let mut data = [wire("ns.example"), wire("admin.example")].concat();
    for value in [1u32, 3600, 600, 86400, 300] {
        data.extend(value.to_be_bytes());
    }
    rec(zone, SOA, data)
}

/// A list of types (RFC 4034 section 4.1.2), all below 256.
pub(super) fn bitmap(types: &[u16]) -> Vec<u8> {
    let mut bits = [0u8; 32];
    for rtype in types {
        bits[usize::from(rtype / 8)] |= 0x80 >> (rtype % 8);
    }
    let len = bits.iter().rposition(|octet| *octet != 0).map_or(0, |last| last + 1);
    if len == 0 { Vec::new() } else { [&[0, len as u8], &bits[..len]].concat() }
}

pub(super) fn nsec(owner: &str, next: &str, types: &[u16]) -> Rec {
    rec(owner, NSEC, [wire(next), bitmap(&[types, &[RRSIG, NSEC]].concat())].concat())
}

/// The NSEC3 hash of a name, without salt.
pub(super) fn hash(text: &str, iterations: u16) -> [u8; 20] {
    let digest = Digest::iterated(&[], &wire(text), DigestType::SHA1, iterations).expect("a hash");
    digest.as_ref().try_into().expect("20 octets")
}

fn base32(octets: &[u8]) -> String {
    let bits: Vec<u8> = octets.iter().flat_map(|octet| (0..8).rev().map(move |bit| octet >> bit & 1)).collect();
    let digit = |chunk: &[u8]| chunk.iter().fold(0, |value, bit| value << 1 | bit);
    bits.chunks(5).map(|chunk| char::from(b"0123456789abcdefghijklmnopqrstuv"[usize::from(digit(chunk))])).collect()
}

/// An NSEC3 record from one hash to another.
pub(super) fn nsec3(zone: &str, from: [u8; 20], to: [u8; 20], flags: u8, iterations: u16, types: &[u16]) -> Rec {
    let [high, low] = iterations.to_be_bytes();
    let data = [&[1, flags, high, low, 0, 20][..], &to, &bitmap(types)].concat();
    rec(&format!("{}.{zone}", base32(&from)), NSEC3, data)
}

/// Of a name that exists: it spans nothing.
pub(super) fn nsec3_of(zone: &str, owner: &str, types: &[u16]) -> Rec {
    let own = hash(owner, 0);
    nsec3(zone, own, step(own, true), 0, 0, types)
}

/// In whose span a name lies.
pub(super) fn nsec3_over(zone: &str, covered: &str, flags: u8) -> Rec {
    let own = hash(covered, 0);
    nsec3(zone, step(own, false), step(own, true), flags, 0, &[A])
}

fn step(mut hash: [u8; 20], up: bool) -> [u8; 20] {
    hash[19] = if up { hash[19].saturating_add(1) } else { hash[19].saturating_sub(1) };
    hash
}

/// A zone that signs.
#[derive(Clone)]
pub(super) struct Zone {
    pub(super) name: String,
    key: Rc<Ed25519SigningKey>,
    pub(super) dnskey: Vec<u8>,
}

/// How a signature differs from what it should be.
#[derive(Clone, Copy)]
pub(super) struct How {
    pub(super) labels: Option<u8>,
    pub(super) inception: u32,
    pub(super) expiration: u32,
    pub(super) algorithm: u8,
    pub(super) ttl: u32,
}

impl Default for How {
    fn default() -> Self {
        Self { labels: None, inception: SECONDS - 3600, expiration: SECONDS + 86_400, algorithm: 15, ttl: 300 }
    }
}

pub(super) fn tag_of(dnskey: &[u8]) -> u16 {
    hickory_proto::dnssec::rdata::DNSKEY::calculate_key_tag_internal(dnskey)
}

impl Zone {
    pub(super) fn new(name: &str) -> Self {
        let der = Ed25519SigningKey::generate_pkcs8().expect("a key");
        let key = Ed25519SigningKey::from_pkcs8(&der).expect("a key");
        let public = key.to_public_key().expect("its public half");
        let dnskey = [&[1, 1, 3, 15][..], public.public_bytes()].concat();
        Self { name: name.into(), key: Rc::new(key), dnskey }
    }

    /// The signature over `records`, which are one set.
    pub(super) fn sign(&self, records: &[Rec], how: How) -> Rec {
        let (owner, rtype, ttl, _) = &records[0];
        let own = name(owner).as_ref().labels().filter(|label| *label != b"*").count() as u8;
        let labels = how.labels.unwrap_or(own);
        let mut fields = rtype.to_be_bytes().to_vec();
        fields.extend([how.algorithm, labels]);
        for value in [how.ttl, how.expiration, how.inception] {
            fields.extend(value.to_be_bytes());
        }
        fields.extend(tag_of(&self.dnskey).to_be_bytes());
        fields.extend(wire(&self.name));
        let signed_owner = match labels < own {
            true => {
                let encloser: Vec<&str> = owner.split('.').rev().take(usize::from(labels)).collect();
                let encloser: Vec<&str> = encloser.into_iter().rev().collect();
                wire(&format!("*.{}", encloser.join(".")))
            }
            false => wire(owner),
        };
        let mut data: Vec<&Vec<u8>> = records.iter().map(|(.., data)| data).collect();
        data.sort();
        let mut signed = fields.clone();
        for data in data {
            signed.extend(&signed_owner);
            signed.extend(rtype.to_be_bytes());
            signed.extend([0, 1]);
            signed.extend(how.ttl.to_be_bytes());
            signed.extend((data.len() as u16).to_be_bytes());
            signed.extend(data);
        }
        let signature = self.key.sign(&TBS::from(signed.as_slice())).expect("signed");
        (owner.clone(), RRSIG, *ttl, [fields, signature].concat())
    }

    /// `records`, then the signature over them.
    pub(super) fn signed(&self, records: &[Rec]) -> Vec<Rec> {
        [records, &[self.sign(records, How::default())]].concat()
    }

    /// Each of `records` with its own signature.
    pub(super) fn each(&self, records: &[Rec]) -> Vec<Rec> {
        records.iter().flat_map(|record| self.signed(std::slice::from_ref(record))).collect()
    }

    /// Its DS data, by a digest of this type.
    pub(super) fn ds(&self, algorithm: u8, digest: u8) -> Vec<u8> {
        let kind = match digest {
            1 => DigestType::SHA1,
            4 => DigestType::SHA384,
            _ => DigestType::SHA256,
        };
        let value = Digest::from_iter([wire(&self.name).as_slice(), &self.dnskey], kind).expect("a digest");
        [&tag_of(&self.dnskey).to_be_bytes()[..], &[algorithm, digest], value.as_ref()].concat()
    }

    pub(super) fn keys(&self) -> Rec {
        rec(&self.name, DNSKEY, self.dnskey.clone())
    }

    /// As an anchor.
    pub(super) fn anchor(&self) -> String {
        use base64::Engine;
        let key = base64::engine::general_purpose::STANDARD.encode(&self.dnskey[4..]);
        format!("{} IN DNSKEY 257 3 15 {key}\n", self.name)
    }
}

/// A reply.
#[derive(Clone, Default)]
pub(super) struct Reply {
    pub(super) rcode: u8,
    pub(super) answers: Vec<Rec>,
    pub(super) authority: Vec<Rec>,
}

impl Reply {
    pub(super) fn answer(answers: Vec<Rec>) -> Self {
        Self { answers, ..Self::default() }
    }

    pub(super) fn no_data(authority: Vec<Rec>) -> Self {
        Self { authority, ..Self::default() }
    }

    pub(super) fn no_name(authority: Vec<Rec>) -> Self {
        Self { rcode: 3, authority, ..Self::default() }
    }

    pub(super) fn encode(&self, qname: &str, qtype: u16) -> Vec<u8> {
        let mut out = vec![0, 7, 0x81, 0x90 | self.rcode, 0, 1];
        for section in [&self.answers, &self.authority] {
            out.extend((section.len() as u16).to_be_bytes());
        }
        out.extend([0, 0]);
        out.extend(wire(qname));
        out.extend(qtype.to_be_bytes());
        out.extend([0, 1]);
        for (owner, rtype, ttl, data) in self.answers.iter().chain(&self.authority) {
            out.extend(wire(owner));
            out.extend(rtype.to_be_bytes());
            out.extend([0, 1]);
            out.extend(ttl.to_be_bytes());
            out.extend((data.len() as u16).to_be_bytes());
            out.extend(data);
        }
        out
    }
}

/// An upstream that knows some replies, and a validator in front of it.
pub(super) struct Net {
    pub(super) replies: HashMap<(String, u16), Reply>,
    pub(super) validator: Validator,
    /// What was looked up, in order.
    pub(super) asked: Vec<(String, u16)>,
    /// How often the last verdict waited for what was not asked before it was lacking.
    pub(super) waits: usize,
    pub(super) zones: HashMap<&'static str, Zone>,
    /// Whose questions are judged.
    pub(super) partition: Partition,
    pub(super) now: Now,
}

/// Zones of the tree: each is signed and vouched for by its parent.
const ZONES: [&str; 4] = [".", "example", "zone.example", "test"];

impl Net {
    /// `.`, `example`, `zone.example` and `test` are signed; `plain.example` is delegated without a key.
    pub(super) fn new() -> Self {
        Self::with_limits(Limits::default())
    }

    pub(super) fn with_limits(limits: Limits) -> Self {
        let zones: HashMap<&'static str, Zone> = ZONES.into_iter().map(|zone| (zone, Zone::new(zone))).collect();
        let anchors = Anchors::read(&zones["."].anchor()).expect("an anchor");
        let validator = Validator::new(anchors, limits);
        let mut net = Self {
            replies: HashMap::new(),
            validator,
            asked: Vec::new(),
            waits: 0,
            zones,
            partition: Partition::ALL,
            now: NOW,
        };
        for zone in ZONES {
            net.publish(zone);
        }
        let unsigned = net.zones["example"].each(&[soa("example"), nsec("plain.example", "zone.example", &[NS])]);
        net.put("plain.example", DS, Reply::no_data(unsigned));
        net
    }

    fn publish(&mut self, zone: &'static str) {
        let keys = self.zones[zone].signed(&[self.zones[zone].keys()]);
        self.put(zone, DNSKEY, Reply::answer(keys));
        if zone != "." {
            let parent = zone.split_once('.').map_or(".", |(_, parent)| parent);
            let ds = self.zones[parent].signed(&[rec(zone, DS, self.zones[zone].ds(15, 2))]);
            self.put(zone, DS, Reply::answer(ds));
        }
    }

    /// The same with nothing known.
    pub(super) fn anew(&self) -> Self {
        Self {
            replies: self.replies.clone(),
            validator: Validator::new(self.validator.configured.clone(), self.validator.limits),
            asked: Vec::new(),
            waits: 0,
            zones: self.zones.clone(),
            partition: self.partition,
            now: NOW,
        }
    }

    pub(super) fn put(&mut self, name: &str, rtype: u16, reply: Reply) {
        self.replies.insert((name.into(), rtype), reply);
    }

    /// Says that no zone begins at `owner`, by `zone`, whose next name is `next`.
    pub(super) fn inside(&mut self, zone: &'static str, owner: &str, next: &str) {
        let proof = self.zones[zone].each(&[soa(zone), nsec(owner, next, &[A])]);
        self.put(owner, DS, Reply::no_data(proof));
    }

    /// The verdict on `reply`, and what it cost.
    pub(super) fn judge(&mut self, qname: &str, qtype: u16, reply: &Reply) -> (Verdict, Work) {
        self.judge_wire(qname, qtype, &reply.encode(qname, qtype))
    }

    pub(super) fn judge_wire(&mut self, qname: &str, qtype: u16, response: &[u8]) -> (Verdict, Work) {
        let (rules, mut work) = (AnswerRules::default(), Work::new(self.validator.limits(), self.partition));
        let owned = name(qname);
        let asked = Asked { qname: owned.as_ref(), qtype: Qtype(qtype), dnssec_ok: true };
        let mut ahead: Vec<Need> = Vec::new();
        self.waits = 0;
        loop {
            let lack = match self.validator.judge(response, asked, &rules, self.now, &mut work) {
                Step::Done(verdict) => return (verdict, work),
                Step::Ask(lack) => lack,
            };
            let of = |need: &Need| (need.name().to_string(), need.qtype().0);
            if !ahead.contains(lack.need()) {
                if let Err(verdict) = work.look_up() {
                    return (verdict, work);
                }
                self.waits += 1;
                self.asked.push(of(lack.need()));
            }
            for need in lack.ahead() {
                if !ahead.contains(need) && work.look_ahead() {
                    self.asked.push(of(need));
                    ahead.push(need.clone());
                }
            }
            let (text, rtype) = of(lack.need());
            let reply = self.replies.get(&(text.clone(), rtype)).cloned().unwrap_or_default();
            if let Err(verdict) = self.validator.learn(&lack, &reply.encode(&text, rtype), self.now, &mut work) {
                return (verdict, work);
            }
        }
    }

    pub(super) fn verdict(&mut self, qname: &str, qtype: u16, reply: &Reply) -> Verdict {
        self.judge(qname, qtype, reply).0
    }
}

pub(super) fn is_secure(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Secure { .. })
}
