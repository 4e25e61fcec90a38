//! Tables: what is shown, hidden, pinned and cut, case by case.

use std::net::IpAddr;

use hickory_proto::op::Message as Parsed;
use staunch_scoring::{NameBuf, QName};

use super::*;

mod chain;
mod data;
mod denial;
mod inside;

/// A response under construction, names uncompressed.
pub(super) struct Build {
    qname: NameBuf,
    qtype: u16,
    flags: u16,
    sections: [Vec<u8>; 3],
    counts: [u16; 3],
}

pub(super) fn wire(text: &str) -> Vec<u8> {
    if text == "." {
        return vec![0];
    }
    let mut wire = Vec::new();
    for label in text.split('.') {
        wire.push(label.len() as u8);
        wire.extend_from_slice(label.as_bytes());
    }
    wire.push(0);
    wire
}

pub(super) fn soa(minimum: u32) -> Vec<u8> {
    let mut data = wire("ns.example");
    data.extend(wire("admin.example"));
    for value in [1u32, 2, 3, 4, minimum] {
        data.extend(value.to_be_bytes());
    }
    data
}

impl Build {
    pub(super) fn new(qname: &str, qtype: Qtype) -> Self {
        let qname = NameBuf::from_text(qname).expect("name");
        Self { qname, qtype: qtype.0, flags: 0x8180, sections: Default::default(), counts: [0; 3] }
    }

    pub(super) fn flags(mut self, flags: u16) -> Self {
        self.flags = flags;
        self
    }

    pub(super) fn rr(mut self, section: usize, owner: &str, rtype: Qtype, ttl: u32, data: &[u8]) -> Self {
        let to = &mut self.sections[section];
        to.extend(wire(owner));
        to.extend(rtype.0.to_be_bytes());
        to.extend(1u16.to_be_bytes());
        to.extend(ttl.to_be_bytes());
        to.extend((data.len() as u16).to_be_bytes());
        to.extend(data);
        self.counts[section] += 1;
        self
    }

    pub(super) fn an(self, owner: &str, rtype: Qtype, ttl: u32, data: &[u8]) -> Self {
        self.rr(0, owner, rtype, ttl, data)
    }

    pub(super) fn a(self, owner: &str, addr: [u8; 4]) -> Self {
        self.an(owner, Qtype::A, 300, &addr)
    }

    pub(super) fn cname(self, owner: &str, target: &str) -> Self {
        self.an(owner, Qtype::CNAME, 300, &wire(target))
    }

    pub(super) fn octets(&self) -> Vec<u8> {
        let mut out = vec![0, 1];
        out.extend(self.flags.to_be_bytes());
        out.extend(1u16.to_be_bytes());
        for count in self.counts {
            out.extend(count.to_be_bytes());
        }
        out.extend(self.qname.as_ref().as_wire());
        out.extend(self.qtype.to_be_bytes());
        out.extend(1u16.to_be_bytes());
        out.extend(self.sections.concat());
        out
    }

    pub(super) fn vet(&self, rules: &AnswerRules) -> Vetted {
        self.vet_do(rules, false)
    }

    pub(super) fn vet_do(&self, rules: &AnswerRules, dnssec_ok: bool) -> Vetted {
        let asked = Asked { qname: self.qname.as_ref(), qtype: Qtype(self.qtype), dnssec_ok };
        vet(&self.octets(), asked, rules).expect("well-formed")
    }
}

/// The whole reply, as a client gets it: the body behind a header and a question spelled in capitals.
pub(super) fn whole(answer: &WireAnswer, qname: &[u8], qtype: u16) -> Vec<u8> {
    let mut out = vec![0, 1, 0x81, 0x80 | answer.rcode, 0, 1];
    out.extend(answer.answers.to_be_bytes());
    out.extend(answer.authorities.to_be_bytes());
    out.extend([0, 0]);
    out.extend(qname.iter().map(u8::to_ascii_uppercase));
    out.extend(qtype.to_be_bytes());
    out.extend([0, 1]);
    out.extend_from_slice(&answer.body);
    out
}

pub(super) fn parsed(vetted: &Vetted, qname: &str, qtype: Qtype) -> Parsed {
    let name = QName::from_text(qname).expect("name");
    Parsed::from_vec(&whole(&vetted.answer, name.as_ref().as_wire(), qtype.0)).expect("an emitted reply parses")
}

/// Answer section as text: owner in lower case, type, data.
pub(super) fn shown(vetted: &Vetted, qname: &str, qtype: Qtype) -> Vec<String> {
    let text =
        |r: &hickory_proto::rr::Record| format!("{} {} {}", r.name.to_string().to_lowercase(), r.record_type(), r.data);
    parsed(vetted, qname, qtype).answers.iter().map(text).collect()
}

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().expect("address")
}

pub(super) fn address_response(qname: &str, addr: IpAddr) -> (Qtype, Build) {
    match addr {
        IpAddr::V4(v4) => (Qtype::A, Build::new(qname, Qtype::A).a(qname, v4.octets())),
        IpAddr::V6(v6) => (Qtype::AAAA, Build::new(qname, Qtype::AAAA).an(qname, Qtype::AAAA, 300, &v6.octets())),
    }
}
