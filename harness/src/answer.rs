//! The scrubber of responses: what is shown stands on the question's chain and was in the response, and what is pinned is
//! shown. [`crate::tree`] comes here too, with messages that are well formed for the most part.

use std::net::{IpAddr, Ipv4Addr};

use staunch::answer::{
    AllowRange, AnswerRules, Asked, Form, Kind, MAX_ADDRESSES, MAX_RECORDS, VetError, Vetted, WireAnswer, form_of,
    is_public, says_the_same, vet, vet_sibling,
};
use staunch::lists::{Reach, RuleForm};
use staunch::model::{Qtype, Transport};
use staunch::nat64::Nat64;
use staunch::range::IpRange;
use staunch::reply;
use staunch::wire::{self, Parsed};
use staunch_scoring::{NameBuf, NameRef, QName};

use crate::dns::{self, Message, Record};

const CNAME: u16 = 5;
const SOA: u16 = 6;
const DNAME: u16 = 39;
const RRSIG: u16 = 46;
const NSEC: u16 = 47;
const NSEC3: u16 = 50;

/// Takes an octet of settings and a response; the question is the response's own.
pub fn run(octets: &[u8]) {
    let Some((settings, response)) = octets.split_first() else { return };
    let question = response.get(wire::HEADER..).and_then(|rest| Some((QName::read(rest).ok()?, rest)));
    let Some(((name, length), rest)) = question else {
        // Compressed or cut. An exchange takes no such question for its own; the scrubber expands it.
        let qname = NameBuf::from_text("q.example").expect("a name");
        return check(response, qname.as_ref(), Qtype::A, Settings(*settings));
    };
    let qtype = rest.get(length..length + 2).map_or(1, |pair| u16::from_be_bytes([pair[0], pair[1]]));
    check(response, name.as_ref(), Qtype(qtype), Settings(*settings));
}

/// Settings in one octet.
#[derive(Debug, Clone, Copy)]
pub struct Settings(pub u8);

impl Settings {
    fn dnssec_ok(self) -> bool {
        self.0 & 1 != 0
    }

    fn rules(self, qname: NameRef<'_>) -> AnswerRules {
        let inside = IpRange::parse("10.0.0.0/8").expect("a range");
        let names = RuleForm { name: qname.to_owned(), reach: Reach::Exact };
        AnswerRules {
            max_ttl: if self.0 & 2 == 0 { 3600 } else { 0 },
            strip_ech: self.0 & 4 == 0,
            strip_hints: self.0 & 8 == 0,
            allow_ranges: if self.0 & 16 == 0 { Vec::new() } else { vec![AllowRange { names, ranges: vec![inside] }] },
            show_loopback: if self.0 & 32 == 0 { Vec::new() } else { vec![qname.to_owned()] },
            nat64: if self.0 & 128 == 0 {
                Vec::new()
            } else {
                vec![Nat64::parse("2001:db8:64::/96").expect("a prefix")]
            },
            own: if self.0 & 64 == 0 { Vec::new() } else { vec![[203, 0, 113, 1].into()] },
            apart: Vec::new(),
        }
    }

    /// Whether an address may be shown, and whether it may be pinned.
    fn admits(self, addr: IpAddr) -> (bool, bool) {
        // Judged by where it leads.
        let end = match addr {
            IpAddr::V6(v6) => {
                let (network, v4) = (v6.to_bits() >> 32, v6.to_bits() as u32);
                let ours = self.0 & 128 != 0 && network == 0x2001_0db8_0064_u128 << 48;
                let translated = ours || network == 0x0064_ff9b_u128 << 64;
                if translated { IpAddr::V4(Ipv4Addr::from_bits(v4)) } else { addr }
            }
            IpAddr::V4(_) => addr,
        };
        let own = self.0 & 64 != 0 && end == IpAddr::from([203, 0, 113, 1]);
        let ten = matches!(end, IpAddr::V4(v4) if v4.octets()[0] == 10) && self.0 & 16 != 0;
        let loopback = matches!(addr, IpAddr::V4(v4) if v4.is_loopback()) && self.0 & 32 != 0;
        let pinned = is_public(end) && !own || ten;
        (pinned || loopback, pinned)
    }
}

/// Vets a response to a question and looks at all that comes of it.
pub fn check(response: &[u8], qname: NameRef<'_>, qtype: Qtype, settings: Settings) {
    let rules = settings.rules(qname);
    let asked = Asked { qname, qtype, dnssec_ok: settings.dnssec_ok() };
    let vetted = match vet(response, asked, &rules) {
        Ok(vetted) => vetted,
        Err(error) => {
            assert!(form_of(response) != Form::Mangled || error != VetError::Truncated, "TC of what cannot be read");
            return;
        }
    };
    assert!(form_of(response) != Form::Mangled, "vetted, and yet not well formed");
    let came = dns::read(response).unwrap_or_else(|| panic!("a second reader does not find its way: {response:?}"));
    let reply = whole(&vetted.answer, asked);
    let shown = dns::read(&reply).unwrap_or_else(|| panic!("our own answer cannot be read: {vetted:?}"));
    assert_eq!(shown.rest, 0);
    counts(&vetted, &shown, &rules);
    if vetted.kind == Kind::Failure {
        assert!(shown.records.is_empty() && vetted.answer.pins.is_empty() && !vetted.cacheable);
        return;
    }
    let chain = chain(&shown, asked);
    answers(&came, &shown, asked, settings);
    authorities(&came, &shown, asked, &vetted, &chain);
    addresses(&vetted, &shown, settings);
    if vetted.kind == Kind::Positive {
        twice(&vetted, &reply, asked, &rules);
    }
    as_reply(&vetted, asked);
    as_siblings(response, asked, &rules);
}

/// The answer behind a header and a question spelled in capitals.
fn whole(answer: &WireAnswer, asked: Asked<'_>) -> Vec<u8> {
    let mut out = vec![0, 1, 0x81, 0x80 | answer.rcode, 0, 1];
    out.extend(answer.answers.to_be_bytes());
    out.extend(answer.authorities.to_be_bytes());
    out.extend([0, 0]);
    out.extend(asked.qname.as_wire().to_ascii_uppercase());
    out.extend(asked.qtype.0.to_be_bytes());
    out.extend([0, 1]);
    out.extend_from_slice(&answer.body);
    out
}

fn counts(vetted: &Vetted, shown: &Message, rules: &AnswerRules) {
    let answer = &vetted.answer;
    assert!(shown.records.len() <= MAX_RECORDS);
    assert_eq!(answer.ttl_at.len(), shown.records.len());
    for (at, record) in answer.ttl_at.iter().zip(&shown.records) {
        let at = usize::from(*at);
        let field = answer.body.get(at..at + 4).expect("a TTL within the body");
        assert_eq!(field, record.ttl.to_be_bytes(), "{record:?}");
        assert!(record.ttl >= answer.ttl && record.ttl <= rules.max_ttl, "{record:?}");
    }
    assert!(matches!(answer.rcode, 0 | 2 | 3));
    assert_eq!(answer.rcode == 2, vetted.kind == Kind::Failure);
    assert_eq!(answer.rcode == 3, vetted.kind == Kind::NxDomain);
    assert_eq!(vetted.cacheable, answer.ttl > 0 && vetted.kind != Kind::Failure);
    assert!(!answer.authentic_data || vetted.dropped == 0 && vetted.rebinding.is_empty() && !vetted.internal_alias);
    assert!(vetted.names.len() <= MAX_RECORDS && vetted.rebinding.len() <= MAX_ADDRESSES);
    assert!(answer.pins.len() <= MAX_ADDRESSES);
}

/// The question's name and all that aliases of the shown answer lead to; what stands off it is not shown.
fn chain(shown: &Message, asked: Asked<'_>) -> Vec<Vec<u8>> {
    let mut chain = vec![asked.qname.as_wire().to_vec()];
    for record in shown.of(1) {
        let above = record.rtype == DNAME && chain.iter().any(|name| dns::is_at_or_below(name, &record.owner));
        let signs = record.rtype == RRSIG && chain.iter().any(|name| dns::is_at_or_below(name, &record.owner));
        assert!(above || signs || chain.contains(&record.owner), "off the chain: {record:?}");
        if let (CNAME, Some(target)) = (record.rtype, &record.data) {
            chain.push(target.to_ascii_lowercase());
        }
    }
    chain
}

fn answers(came: &Message, shown: &Message, asked: Asked<'_>, settings: Settings) {
    for record in shown.of(1) {
        assert_eq!(record.class, 1);
        let kind = record.rtype;
        assert!(!matches!(kind, 0 | 41 | 128..=255), "a type of questions and transactions: {record:?}");
        assert!(asked.dnssec_ok || kind != RRSIG || asked.qtype.0 == RRSIG, "signatures that nobody asked for");
        let wanted = asked.qtype == Qtype::ANY || kind == asked.qtype.0 || matches!(kind, CNAME | DNAME | RRSIG);
        assert!(wanted, "not asked for: {record:?}");
        let data = record.data.as_ref().unwrap_or_else(|| panic!("the data cannot be read: {record:?}"));
        let same = |other: &&Record| {
            other.rtype == kind && other.class == 1 && other.owner == record.owner && other.ttl >= record.ttl
        };
        let made = kind == CNAME && is_made(came, record);
        let found = match kind {
            // Parameters may have been taken out; none may have come in.
            64 | 65 => came.of(1).filter(same).any(|other| is_part(data, other.data.as_deref(), settings)),
            _ => came.of(1).filter(same).any(|other| other.data.as_ref() == Some(data)),
        };
        assert!(found || made, "not of the response: {record:?}");
    }
}

/// Whether a DNAME of the response makes this CNAME (RFC 6672 section 3.1).
fn is_made(came: &Message, cname: &Record) -> bool {
    came.of(1).filter(|record| record.rtype == DNAME && record.class == 1).any(|dname| {
        let Some(target) = &dname.data else { return false };
        let below = cname.owner != dname.owner && dns::is_at_or_below(&cname.owner, &dname.owner);
        let front = cname.owner.len().saturating_sub(dname.owner.len());
        let made = [&cname.owner[..front], target].concat();
        below && cname.data.as_ref().is_some_and(|data| data.eq_ignore_ascii_case(&made))
    })
}

/// Whether SVCB data are other data with less in it.
fn is_part(data: &[u8], other: Option<&[u8]>, settings: Settings) -> bool {
    let Some((params, other, whole)) =
        other.and_then(|other| Some((dns::params(data)?, dns::params(other)?, dns::service(other)?)))
    else {
        return false;
    };
    let stripped = settings.0 & 8 == 0;
    let fits = |(key, value): &(u16, &[u8])| {
        let Some((_, from)) = other.iter().find(|(other, _)| other == key) else { return false };
        match key {
            0 => value.chunks(2).all(|key| from.chunks(2).any(|other| other == key)),
            4 => !stripped && value.chunks(4).all(|addr| from.chunks(4).any(|other| other == addr)),
            5 => settings.0 & 4 != 0 && value == from,
            6 => !stripped && value.chunks(16).all(|addr| from.chunks(16).any(|other| other == addr)),
            _ => value == from,
        }
    };
    dns::service(data) == Some(whole) && params.iter().all(fits)
}

fn authorities(came: &Message, shown: &Message, asked: Asked<'_>, vetted: &Vetted, chain: &[Vec<u8>]) {
    // All that was asked for was held back: a SOA of our own stands alone.
    let emptied = vetted.kind == Kind::NoData && vetted.answer.pins.is_empty() && shown.records.len() == 1;
    assert!(shown.of(2).filter(|record| record.rtype == SOA).count() <= 1);
    for record in shown.of(2) {
        match record.rtype {
            SOA | RRSIG | NSEC | NSEC3 => {}
            _ => panic!("not of a denial: {record:?}"),
        }
        assert!(asked.dnssec_ok || record.rtype == SOA, "{record:?}");
        let above = |record: &Record| chain.iter().any(|name| dns::is_at_or_below(name, &record.owner));
        assert!(record.rtype != SOA || above(record), "a SOA of elsewhere: {record:?}");
        let same =
            |other: &Record| (other.rtype, &other.owner, &other.data) == (record.rtype, &record.owner, &record.data);
        let found = came.of(2).any(|other| same(other) && other.class == 1 && other.ttl >= record.ttl);
        let ours =
            record.data.as_ref().is_some_and(|data| data.starts_with(b"\x0frebinding-guard\x07staunch\x07invalid\0"));
        assert!(found || ours && emptied, "not of the response: {record:?}");
    }
}

fn addresses(vetted: &Vetted, shown: &Message, settings: Settings) {
    let all: Vec<IpAddr> = shown.of(1).flat_map(dns::addresses).collect();
    assert!(all.len() <= MAX_ADDRESSES);
    for addr in &all {
        assert!(settings.admits(*addr).0, "{addr} is shown");
        assert!(!vetted.rebinding.contains(addr), "{addr} is shown, and told as held back");
    }
    for addr in &vetted.answer.pins {
        assert!(all.contains(addr), "{addr} is pinned, and not shown");
        assert!(settings.admits(*addr).1, "{addr} is pinned");
    }
}

/// What was vetted once is vetted.
fn twice(vetted: &Vetted, reply: &[u8], asked: Asked<'_>, rules: &AnswerRules) {
    let again = vet(reply, asked, rules).unwrap_or_else(|error| panic!("our own answer is refused: {error}"));
    assert_eq!(again.kind, Kind::Positive);
    assert_eq!((again.dropped, &again.rebinding), (0, &Vec::new()), "{again:?}");
    assert_eq!(again.answer.pins, vetted.answer.pins);
    assert_eq!((again.answer.answers, again.answer.authorities), (vetted.answer.answers, vetted.answer.authorities));
    let records = |answer| dns::read(&whole(answer, asked)).expect("a whole message").records;
    assert_eq!(records(&again.answer), records(&vetted.answer));
    assert!(says_the_same(&again.answer, &vetted.answer, asked));
}

/// As a client gets it, over either transport.
fn as_reply(vetted: &Vetted, asked: Asked<'_>) {
    for payload in [None, Some(0u16), Some(1232), Some(65535)] {
        let mut packet = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(payload.is_some())];
        packet.extend(asked.qname.as_wire());
        packet.extend(asked.qtype.0.to_be_bytes());
        packet.extend([0, 1]);
        if let Some(payload) = payload {
            packet.extend([0, 0, 41]);
            packet.extend(payload.to_be_bytes());
            packet.extend([0, 0, u8::from(asked.dnssec_ok) << 7, 0, 0, 0]);
        }
        let Parsed::Query(query) = wire::parse(&packet) else { return };
        let mut out = Vec::new();
        for transport in [Transport::Udp, Transport::Tcp] {
            reply::from_answer(&mut out, &query, &vetted.answer, transport, 3, 60);
            assert!(out.len() <= reply::limit(&query, transport));
            let read = dns::read(&out).expect("a whole message");
            assert!(read.records.iter().all(|record| record.rtype == 41 || record.ttl <= 60));
            assert!(transport == Transport::Udp || read.flags & 0x0200 == 0, "TC on a stream");
            reply::stale(&mut out, &query, &vetted.answer, transport, 30, "held");
            let read = dns::read(&out).expect("a whole message");
            assert!(read.flags & 0x0020 == 0, "AD of what is past its time");
        }
    }
}

/// As a wildcard's answer to a name beside it.
fn as_siblings(response: &[u8], asked: Asked<'_>, rules: &AnswerRules) {
    let Some(parent) = asked.qname.parent() else { return };
    let mut wire = b"\x0erandom1random2".to_vec();
    wire.extend(parent.as_wire());
    let Ok(sibling) = NameRef::from_wire(&wire) else { return };
    let beside = Asked { qname: sibling, ..asked };
    let Ok(vetted) = vet_sibling(response, asked.qname, beside, rules) else { return };
    assert!(!vetted.answer.authentic_data);
    let shown = dns::read(&whole(&vetted.answer, beside)).expect("a whole message");
    chain(&shown, beside);
    assert!(says_the_same(&vetted.answer, &vetted.answer, beside));
}
