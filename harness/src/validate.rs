//! The validator: whatever comes, it ends within its limits, and nothing is secure but what the owners of a small tree have
//! signed. Their keys are fixed; a fuzzer that signs by them would have to find them.

use std::sync::LazyLock;

use base64::Engine;
use ed25519_dalek::{Signer, SigningKey};
use sha2::{Digest, Sha256};
use staunch::answer::{AnswerRules, Asked, vet};
use staunch::model::{Now, Qtype, Wall};
use staunch::partition::Partition;
use staunch::validate::{Anchors, Limits, Step, Validator, Verdict, Work};
use staunch::wire::HEADER;
use staunch_scoring::{NameRef, QName};

use crate::dns;

const A: u16 = 1;
const CNAME: u16 = 5;
const SOA: u16 = 6;
const DS: u16 = 43;
const RRSIG: u16 = 46;
const NSEC: u16 = 47;
const DNSKEY: u16 = 48;
/// 2026-01-01.
const SECONDS: u32 = 1_767_225_600;
/// The only address that anybody has signed.
const ADDRESS: [u8; 4] = [192, 0, 2, 1];
/// Names that exist below `example`, and below a wildcard of it.
const THERE: [&str; 2] = ["www.example", "alias.example"];
const WILD: &str = "wild.example";

/// Owner, type, data.
type Bare = (&'static str, u16, Vec<u8>);

fn name(text: &str) -> Vec<u8> {
    let labels = text.split('.').filter(|label| !label.is_empty());
    labels.flat_map(|label| [&[label.len() as u8][..], label.as_bytes()].concat()).chain([0]).collect()
}

/// The same, the owner in wire form.
type Wired = (Vec<u8>, u16, Vec<u8>);

/// A zone that signs.
struct Zone(&'static str, SigningKey);

impl Zone {
    fn key(&self) -> Vec<u8> {
        [&[1, 1, 3, 15][..], self.1.verifying_key().as_bytes()].concat()
    }

    fn tag(&self) -> u16 {
        let sum =
            self.key().chunks(2).map(|two| u32::from(two[0]) << 8 | u32::from(*two.get(1).unwrap_or(&0))).sum::<u32>();
        (sum + (sum >> 16)) as u16
    }

    /// One record and its signature, for so many labels of the owner.
    fn signed(&self, (owner, rtype, data): Bare, labels: u8) -> Vec<Wired> {
        let mut fields = rtype.to_be_bytes().to_vec();
        fields.extend([15, labels]);
        for value in [300, SECONDS + 86_400, SECONDS - 86_400] {
            fields.extend(value.to_be_bytes());
        }
        fields.extend(self.tag().to_be_bytes());
        fields.extend(name(self.0));
        let count = owner.split('.').filter(|label| !label.is_empty()).count();
        let skipped = count.saturating_sub(usize::from(labels));
        let signed_owner = match skipped {
            0 => name(owner),
            _ => {
                let rest: Vec<&str> = owner.split('.').skip(skipped).collect();
                name(&format!("*.{}", rest.join(".")))
            }
        };
        let mut text = [fields.clone(), signed_owner].concat();
        text.extend(rtype.to_be_bytes());
        text.extend([0, 1, 0, 0, 1, 44]);
        text.extend((data.len() as u16).to_be_bytes());
        text.extend(&data);
        let signature = [fields, self.1.sign(&text).to_vec()].concat();
        vec![(name(owner), rtype, data), (name(owner), RRSIG, signature)]
    }
}

/// Both zones: the root and `example`.
static ZONES: LazyLock<[Zone; 2]> =
    LazyLock::new(|| [(".", 7u8), ("example", 8)].map(|(name, seed)| Zone(name, SigningKey::from_bytes(&[seed; 32]))));

fn nsec(owner: &'static str, next: &str, types: &[u8]) -> Bare {
    (owner, NSEC, [name(next), types.to_vec()].concat())
}

/// A reply: its question, response code, records of the answer and of the authority section.
fn reply(qname: &[u8], qtype: u16, rcode: u8, sections: [Vec<Wired>; 2]) -> Vec<u8> {
    let mut out = vec![0, 7, 0x81, 0x90 | rcode, 0, 1];
    for section in &sections {
        out.extend((section.len() as u16).to_be_bytes());
    }
    out.extend([0, 0]);
    out.extend(qname);
    out.extend(qtype.to_be_bytes());
    out.extend([0, 1]);
    for (owner, rtype, data) in sections.iter().flatten() {
        out.extend(owner);
        out.extend(rtype.to_be_bytes());
        out.extend([0, 1, 0, 0, 1, 44]);
        out.extend((data.len() as u16).to_be_bytes());
        out.extend(data);
    }
    out
}

/// What the tree says of keys.
fn honest(qname: &[u8], qtype: u16) -> Vec<u8> {
    let [root, example] = &*ZONES;
    let zone = if qname.ends_with(&name("example")) && qname.len() > name("example").len() { example } else { root };
    let labels = u8::from(zone.0 == "example");
    let sections = match qtype {
        DNSKEY if qname == [0] => [root.signed((".", DNSKEY, root.key()), 0), Vec::new()],
        DNSKEY if qname == name("example") => [example.signed(("example", DNSKEY, example.key()), 1), Vec::new()],
        DS if qname == name("example") => {
            let digest = Sha256::digest([name("example"), example.key()].concat());
            let data = [&example.tag().to_be_bytes()[..], &[15, 2], &digest].concat();
            [root.signed(("example", DS, data), 1), Vec::new()]
        }
        // NS; NS and SOA: a span over the whole zone.
        DS if qname == name("plain.example") => {
            [Vec::new(), example.signed(nsec("plain.example", "q.example", b"\0\x01\x20"), 2)]
        }
        DS => [Vec::new(), zone.signed(nsec(zone.0, zone.0, b"\0\x01\x22"), labels)],
        _ => [Vec::new(), Vec::new()],
    };
    reply(qname, qtype, 0, sections)
}

/// Seeds: answers that are secure, insecure and bogus, each behind its settings and length.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let [_, example] = &*ZONES;
    let none = Vec::new;
    let www = || ("www.example", A, ADDRESS.to_vec());
    let soa = [name("ns.example"), name("a.example"), [0, 0, 0, 1].repeat(5)].concat();
    let denial =
        [example.signed(("example", SOA, soa), 1), example.signed(nsec("example", "alias.example", b"\0\x01\x22"), 1)];
    let wild = [("one.wild.example", A, ADDRESS.to_vec())].map(|record| example.signed(record, 2)).concat();
    let closer = example.signed(nsec("*.wild.example", "www.example", b"\0\x01\x40"), 2);
    let alias = [example.signed(("alias.example", CNAME, name("www.example")), 2), example.signed(www(), 2)].concat();
    let bare = vec![(name("www.example"), A, ADDRESS.to_vec())];
    let plain = vec![(name("a.plain.example"), A, ADDRESS.to_vec())];
    let all = [
        ("secure", "www.example", A, 0, [example.signed(www(), 2), none()]),
        ("alias", "alias.example", A, 0, [alias, none()]),
        ("wildcard", "one.wild.example", A, 0, [wild, closer]),
        ("denied", "aaa.example", A, 3, [none(), denial.concat()]),
        ("unsigned", "www.example", A, 0, [bare, none()]),
        ("insecure", "a.plain.example", A, 0, [plain, none()]),
    ];
    let whole = |(seed, qname, qtype, rcode, sections): (&'static str, &str, u16, u8, _)| {
        let response = reply(&name(qname), qtype, rcode, sections);
        (seed, [&[0][..], &(response.len() as u16).to_be_bytes(), &response].concat())
    };
    all.into_iter().map(whole).collect()
}

/// Takes an octet of settings, then messages with their lengths in front: a response, and, where the first bit is set, the
/// replies about keys in the order in which they are asked for; else the tree gives those.
pub fn run(octets: &[u8]) {
    verdict(octets);
}

/// The same, and what it came to; `None` where there is no question.
fn verdict(octets: &[u8]) -> Option<Verdict> {
    let (settings, rest) = octets.split_first()?;
    let mut messages = Messages(rest);
    let response = messages.next()?;
    let rest = response.get(HEADER..)?;
    let (qname, length) = QName::read(rest).ok()?;
    let qtype = Qtype(rest.get(length..length + 2).map_or(1, |pair| u16::from_be_bytes([pair[0], pair[1]])));
    let asked = Asked { qname: qname.as_ref(), qtype, dnssec_ok: true };
    let (rules, limits) = (AnswerRules::default(), Limits::default());
    let key = base64::engine::general_purpose::STANDARD.encode(&ZONES[0].key()[4..]);
    let anchors = Anchors::read(&format!(". IN DNSKEY 257 3 15 {key}")).expect("an anchor");
    let validator = Validator::new(anchors, limits);
    let now = Now { mono: 1000, wall: Wall::at(u64::from(SECONDS) * 1000) };
    let mut work = Work::new(limits, Partition::ALL);
    let verdict = loop {
        let lack = match validator.judge(response, asked, &rules, now, &mut work) {
            Step::Done(verdict) => break verdict,
            Step::Ask(lack) => lack,
        };
        let need = lack.need();
        assert!(lack.ahead().iter().chain([need]).all(|need| matches!(need.qtype().0, DS | DNSKEY)));
        assert!(lack.ahead().len() <= 12 && !lack.ahead().contains(need));
        if let Err(verdict) = work.look_up() {
            break verdict;
        }
        let own;
        let reply = match (settings & 1 != 0).then(|| messages.next()) {
            Some(given) => given.unwrap_or_default(),
            None => {
                own = honest(need.name().as_wire(), need.qtype().0);
                &own
            }
        };
        if let Err(verdict) = validator.learn(&lack, reply, now, &mut work) {
            break verdict;
        }
    };
    assert!(work.lookups() <= limits.lookups && work.hashes() <= limits.hashes as usize);
    assert!(work.signatures() <= limits.failures * 4);
    if let Verdict::Secure { ttl } = verdict {
        assert!(ttl <= 300, "longer than it was signed for");
        secure(response, asked, &rules);
    }
    Some(verdict)
}

/// What is secure says nothing that the tree does not.
fn secure(response: &[u8], asked: Asked<'_>, rules: &AnswerRules) {
    let Ok(vetted) = vet(response, asked, rules) else { return };
    let came = dns::read(response).expect("judged, so it can be read");
    let qname = asked.qname.as_wire();
    for record in came.of(1).filter(|r| r.rtype == A && r.class == 1 && r.owner == qname && asked.qtype == Qtype::A) {
        assert_eq!(record.data.as_deref(), Some(&ADDRESS[..]), "an address that nobody has signed: {record:?}");
    }
    let exists = |text: &str| name(text) == qname;
    let is_wild = NameRef::from_wire(qname).is_ok_and(|own| {
        let wild = name(WILD);
        NameRef::from_wire(&wild).is_ok_and(|wild| own.is_below(wild))
    });
    let is_there = THERE.into_iter().any(exists) || is_wild;
    assert!(vetted.answer.rcode != 3 || !is_there, "a name that exists is denied");
    assert!(vetted.answer.pins.iter().all(|pin| *pin == std::net::IpAddr::from(ADDRESS)), "{:?}", vetted.answer.pins);
}

/// Messages with their lengths in front.
struct Messages<'o>(&'o [u8]);

impl<'o> Messages<'o> {
    fn next(&mut self) -> Option<&'o [u8]> {
        let (length, rest) = self.0.split_first_chunk::<2>()?;
        let length = usize::from(u16::from_be_bytes(*length)).min(rest.len());
        let (message, rest) = rest.split_at(length);
        self.0 = rest;
        Some(message)
    }
}

#[cfg(test)]
mod tests {
    use staunch::validate::Bogus;

    use super::*;

    #[test]
    fn seeds_are_what_their_names_say() {
        for (seed, octets) in seeds() {
            let expected = match seed {
                "unsigned" => Verdict::Bogus(Bogus::NoSignature),
                "insecure" => Verdict::Insecure(None),
                _ => Verdict::Secure { ttl: 300 },
            };
            assert_eq!(verdict(&octets), Some(expected), "{seed}");
        }
    }
}
