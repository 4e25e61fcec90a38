//! Tables: what is shown, hidden, pinned and cut, case by case.

use std::net::IpAddr;

use hickory_proto::op::Message as Parsed;
use hickory_proto::rr::RecordType;
use staunch_scoring::{NameBuf, QName};

use super::*;

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

fn parsed(vetted: &Vetted, qname: &str, qtype: Qtype) -> Parsed {
    let name = QName::from_text(qname).expect("name");
    Parsed::from_vec(&whole(&vetted.answer, name.as_ref().as_wire(), qtype.0)).expect("an emitted reply parses")
}

/// Answer section as text: owner in lower case, type, data.
fn shown(vetted: &Vetted, qname: &str, qtype: Qtype) -> Vec<String> {
    let text =
        |r: &hickory_proto::rr::Record| format!("{} {} {}", r.name.to_string().to_lowercase(), r.record_type(), r.data);
    parsed(vetted, qname, qtype).answers.iter().map(text).collect()
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("address")
}

fn address_response(qname: &str, addr: IpAddr) -> (Qtype, Build) {
    match addr {
        IpAddr::V4(v4) => (Qtype::A, Build::new(qname, Qtype::A).a(qname, v4.octets())),
        IpAddr::V6(v6) => (Qtype::AAAA, Build::new(qname, Qtype::AAAA).an(qname, Qtype::AAAA, 300, &v6.octets())),
    }
}

#[test]
fn inside_addresses_are_neither_shown_nor_pinned() {
    let rules = AnswerRules { own: vec![ip("203.0.113.53"), ip("2001:db8::53")], ..AnswerRules::default() };
    let inside = [
        "127.0.0.1",
        "127.255.255.254",
        "0.0.0.0",
        "0.1.2.3",
        "169.254.169.254",
        "10.0.0.1",
        "10.255.255.255",
        "100.64.0.1",
        "100.100.100.200",
        "100.127.255.255",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "192.0.0.192",
        "192.0.0.1",
        "198.18.0.1",
        "198.19.255.255",
        "224.0.0.1",
        "239.1.1.1",
        "240.0.0.1",
        "255.255.255.255",
        "168.63.129.16",
        "192.88.99.1",
        "203.0.113.53",
        "::",
        "::1",
        "fe80::1",
        "fec0::1",
        "fc00::1",
        "fd00:ec2::254",
        "ff02::1",
        "::ffff:10.0.0.1",
        "::ffff:203.0.113.1",
        "::ffff:0:10.0.0.1",
        "::10.0.0.1",
        "::203.0.113.1",
        "64:ff9b::a00:1",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b::cb00:7135",
        "64:ff9b:1::1",
        "64:ff9b:1::cb00:7101",
        "2002:a00:1::",
        "2002:7f00:1::1",
        "2002:cb00:7135::1",
        "2001:0:a00:1::",
        "2001:0:cb00:7101::f5ff:fffe",
        "2001:2::1",
        "2001:10::1",
        "2001:20::1",
        "100::1",
        "4000::1",
        "5f00::1",
        "2001:db8::53",
    ];
    for addr in inside.map(ip) {
        let (qtype, build) = address_response("a.example.com", addr);
        let vetted = build.vet(&rules);
        assert_eq!(vetted.rebinding, [addr], "{addr} is evidence");
        assert!(vetted.answer.pins.is_empty(), "{addr} pinned");
        assert_eq!((vetted.kind, vetted.answer.rcode), (Kind::NoData, 0), "{addr}");
        let reply = parsed(&vetted, "a.example.com", qtype);
        assert!(reply.answers.is_empty(), "{addr} shown");
        assert_eq!(reply.authorities[0].record_type(), RecordType::SOA);
    }
}

#[test]
fn public_addresses_are_shown_and_pinned() {
    let public = [
        "203.0.113.7",
        "198.51.100.1",
        "192.0.2.1",
        "1.1.1.1",
        "100.63.255.255",
        "100.128.0.1",
        "172.15.0.1",
        "172.32.0.1",
        "198.17.255.255",
        "198.20.0.1",
        "223.255.255.255",
        "192.0.1.1",
        "11.0.0.1",
        "2001:db8::1",
        "2606:4700::1111",
        "3fff::1",
        "64:ff9b::cb00:7101",
        "2002:cb00:7101::1",
        "2001:4860:4860::8888",
    ];
    for addr in public.map(ip) {
        let (qtype, build) = address_response("a.example.com", addr);
        let vetted = build.vet(&AnswerRules::default());
        assert_eq!(*vetted.answer.pins, [addr], "{addr}");
        assert!(vetted.rebinding.is_empty() && vetted.cacheable, "{addr}");
        assert_eq!(shown(&vetted, "a.example.com", qtype).len(), 1, "{addr}");
    }
}

#[test]
fn a_public_address_beside_an_inside_one_stays() {
    let build = Build::new("a.example.com", Qtype::A)
        .flags(0x81a0)
        .a("a.example.com", [10, 0, 0, 1])
        .a("a.example.com", [203, 0, 113, 9]);
    let vetted = build.vet(&AnswerRules::default());
    assert_eq!(shown(&vetted, "a.example.com", Qtype::A), ["a.example.com. A 203.0.113.9"]);
    assert_eq!(*vetted.answer.pins, [ip("203.0.113.9")]);
    assert_eq!(vetted.rebinding, [ip("10.0.0.1")]);
    assert!(!vetted.answer.authentic_data, "something was taken out");
}

#[test]
fn a_rule_must_name_both_the_name_and_the_range() {
    let allow = |names: &str, range: &str| AnswerRules {
        allow_ranges: vec![AllowRange {
            names: crate::lists::RuleForm::parse(names).expect("rule form"),
            ranges: vec![crate::range::IpRange::parse(range).expect("range")],
        }],
        ..AnswerRules::default()
    };
    for (names, range, qname, addr, pinned) in [
        ("*.corp.example", "10.20.0.0/16", "wiki.corp.example", "10.20.1.1", true),
        ("*.corp.example", "10.20.0.0/16", "corp.example", "10.20.1.1", false),
        ("*.corp.example", "10.20.0.0/16", "wiki.corp.example", "10.21.1.1", false),
        ("*.corp.example", "10.20.0.0/16", "wiki.corp.example.net", "10.20.1.1", false),
        ("=corp.example", "10.20.0.0/16", "corp.example", "10.20.255.255", true),
        ("=corp.example", "10.20.0.0/16", "x.corp.example", "10.20.1.1", false),
        ("corp.example", "fd00::/8", "x.corp.example", "fd12::1", true),
        ("bench.example", "198.18.0.0/15", "bench.example", "198.18.3.4", true),
        ("all.example", "127.0.0.0/8", "all.example", "127.0.0.1", true),
    ] {
        let (_, build) = address_response(qname, ip(addr));
        let vetted = build.vet(&allow(names, range));
        assert_eq!(vetted.answer.pins.contains(&ip(addr)), pinned, "{names} {range} {qname} {addr}");
        assert_eq!(vetted.answer.answers == 1, pinned);
    }
    // Somebody else's alias does not borrow the rule.
    let vetted = Build::new("evil.example.net", Qtype::A)
        .cname("evil.example.net", "wiki.corp.example")
        .a("wiki.corp.example", [10, 20, 1, 1])
        .vet(&allow("*.corp.example", "10.20.0.0/16"));
    assert!(vetted.answer.pins.is_empty() && vetted.answer.answers == 0);
}

#[test]
fn block_list_zones_show_loopback_and_never_pin_it() {
    let rules =
        AnswerRules { show_loopback: vec![NameBuf::from_text("dnsbl.example").expect("name")], ..Default::default() };
    let (_, build) = address_response("2.0.0.127.dnsbl.example", ip("127.0.0.2"));
    let vetted = build.vet(&rules);
    assert_eq!((vetted.answer.answers, vetted.answer.pins.len()), (1, 0));
    for (qname, addr) in [("x.dnsbl.example.net", "127.0.0.2"), ("x.dnsbl.example", "10.0.0.1")] {
        let vetted = address_response(qname, ip(addr)).1.vet(&rules);
        assert_eq!((vetted.answer.answers, vetted.answer.pins.len()), (0, 0), "{qname} {addr}");
    }
}

/// Every row adds something to a good answer that does not belong to it; none may be shown or pinned.
#[test]
fn injected_records_are_left_out() {
    let q = "www.example.com";
    let good = || Build::new(q, Qtype::A).cname(q, "cdn.example.net").a("cdn.example.net", [203, 0, 113, 1]);
    let evil = [203, 0, 113, 66];
    let rows: Vec<(&str, Build)> = vec![
        ("unrelated A behind", good().a("bank.example.org", evil)),
        (
            "unrelated A in front",
            Build::new(q, Qtype::A)
                .a("bank.example.org", evil)
                .cname(q, "cdn.example.net")
                .a("cdn.example.net", [203, 0, 113, 1]),
        ),
        ("parent's A", good().a("example.com", evil)),
        ("A below the name", good().a("x.www.example.com", evil)),
        ("sibling's A", good().a("mail.example.com", evil)),
        ("second alias at the same name", good().cname(q, "evil.example.org").a("evil.example.org", evil)),
        ("alias off the chain", good().cname("bank.example.org", "evil.example.org").a("evil.example.org", evil)),
        ("address at the root", good().a(".", evil)),
        ("DNAME that covers another name", good().an("example.org", Qtype::DNAME, 300, &wire("evil.example"))),
        (
            "NS and glue in authority",
            good().rr(1, "com", Qtype::NS, 300, &wire("ns.evil")).rr(1, "ns.evil", Qtype::A, 300, &evil),
        ),
        ("A of the asked name in authority", good().rr(1, "cdn.example.net", Qtype::A, 300, &evil)),
        ("glue in additional", good().rr(2, "cdn.example.net", Qtype::A, 300, &evil)),
        ("A of the asked name in additional", good().rr(2, q, Qtype::A, 300, &evil)),
        ("other type at the chain's end", good().an("cdn.example.net", Qtype::TXT, 300, b"\x04evil")),
        ("SOA of a positive answer", good().rr(1, "example.net", Qtype::SOA, 300, &soa(60))),
        ("signature nobody asked for", good().an("cdn.example.net", Qtype::RRSIG, 300, &[0; 30])),
        ("address behind the alias' owner", good().an(q, Qtype::NS, 300, &wire("evil.example"))),
        ("short A", good().an("cdn.example.net", Qtype::A, 300, &evil[..3])),
    ];
    for (what, build) in rows {
        let vetted = build.vet(&AnswerRules::default());
        assert_eq!(
            shown(&vetted, q, Qtype::A),
            ["www.example.com. CNAME cdn.example.net.", "cdn.example.net. A 203.0.113.1"],
            "{what}"
        );
        assert_eq!(*vetted.answer.pins, [ip("203.0.113.1")], "{what}");
        assert_eq!(vetted.answer.authorities, 0, "{what}");
    }
}

#[test]
fn another_class_is_off_the_chain() {
    let build = Build::new("a.example", Qtype::A).a("a.example", [203, 0, 113, 1]);
    let mut octets = build.octets();
    // Class of the record: behind the question and the record's name and type.
    let at = 12 + 11 + 4 + 11 + 2;
    octets[at..at + 2].copy_from_slice(&3u16.to_be_bytes());
    let name = NameBuf::from_text("a.example").expect("name");
    let asked = Asked { qname: name.as_ref(), qtype: Qtype::A, dnssec_ok: false };
    let vetted = vet(&octets, asked, &AnswerRules::default()).expect("well-formed");
    assert_eq!((vetted.answer.answers, vetted.answer.pins.len(), vetted.kind), (0, 0, Kind::NoData));
}

#[test]
fn other_questions_are_refused() {
    let octets = Build::new("a.example", Qtype::A).a("a.example", [203, 0, 113, 1]).octets();
    let refused = |qname: &str, qtype, octets: &[u8]| {
        let name = NameBuf::from_text(qname).expect("name");
        vet(octets, Asked { qname: name.as_ref(), qtype, dnssec_ok: false }, &AnswerRules::default()).err()
    };
    assert_eq!(refused("a.example", Qtype::A, &octets), None);
    assert_eq!(refused("b.example", Qtype::A, &octets), Some(VetError::WrongQuestion));
    assert_eq!(refused("a.example", Qtype::AAAA, &octets), Some(VetError::WrongQuestion));
    for (at, value, error) in [
        (2, 0x01, VetError::WrongQuestion), // QR=0
        (2, 0xa9, VetError::WrongQuestion), // opcode 5
        (5, 2, VetError::WrongQuestion),    // two questions
        (2, 0x83, VetError::Truncated),
        (7, 9, VetError::Malformed), // more records claimed than there are
    ] {
        let mut bent = octets.clone();
        bent[at] = value;
        assert_eq!(refused("a.example", Qtype::A, &bent), Some(error), "octet {at}");
    }
}

#[test]
fn chains_are_followed_and_bounded() {
    let chain = |hops: usize| {
        let mut build = Build::new("h0.example", Qtype::A);
        // Backwards, since order in the section means nothing.
        for i in (0..hops).rev() {
            build = build.cname(&format!("h{i}.example"), &format!("h{}.example", i + 1));
        }
        build.a(&format!("h{hops}.example"), [203, 0, 113, 1]).vet(&AnswerRules::default())
    };
    for hops in [0, 1, MAX_HOPS] {
        let vetted = chain(hops);
        assert_eq!((vetted.kind, usize::from(vetted.answer.answers)), (Kind::Positive, hops + 1));
        assert_eq!(vetted.names.len(), hops, "every hop is reported");
        assert_eq!(parsed(&vetted, "h0.example", Qtype::A).answers.len(), hops + 1);
    }
    for hops in [MAX_HOPS + 1, 50] {
        let vetted = chain(hops);
        assert_eq!((vetted.kind, vetted.answer.rcode, vetted.answer.pins.len()), (Kind::Failure, 2, 0));
    }
    let itself = Build::new("a.example", Qtype::A).cname("a.example", "a.example").vet(&AnswerRules::default());
    assert_eq!(itself.kind, Kind::Failure);
    let ring = Build::new("a.example", Qtype::A).cname("a.example", "b.example").cname("b.example", "A.Example");
    assert_eq!(ring.vet(&AnswerRules::default()).kind, Kind::Failure);
}

#[test]
fn dname_is_followed_with_or_without_its_cname() {
    let base = || {
        Build::new("w.old.example", Qtype::A)
            .an("old.example", Qtype::DNAME, 300, &wire("new.example"))
            .a("w.new.example", [203, 0, 113, 1])
    };
    let expected =
        ["old.example. DNAME new.example.", "w.old.example. CNAME w.new.example.", "w.new.example. A 203.0.113.1"];
    let rules = AnswerRules::default();
    let rows = [
        ("made by us", base()),
        ("made by the upstream", base().cname("w.old.example", "w.new.example")),
        ("made to lie", base().cname("w.old.example", "evil.example").a("evil.example", [203, 0, 113, 66])),
    ];
    for (what, build) in rows {
        let vetted = build.vet(&rules);
        let mut shown = shown(&vetted, "w.old.example", Qtype::A);
        shown[0] = shown[0].replace("ANAME", "DNAME");
        assert_eq!(shown[1..], expected[1..], "{what}");
        assert!(shown[0].starts_with("old.example. "), "{what}: {}", shown[0]);
        assert_eq!(*vetted.answer.pins, [ip("203.0.113.1")], "{what}");
    }
    // Two cover the name: the order they come in must not decide where it leads.
    let (high, low) = (("example", "up.example.net"), ("old.example", "new.example"));
    for pair in [[high, low], [low, high]] {
        let build = pair.iter().fold(Build::new("w.old.example", Qtype::A), |build, (owner, target)| {
            build.an(owner, Qtype::DNAME, 300, &wire(target))
        });
        let vetted = build.a("w.old.up.example.net", [203, 0, 113, 2]).vet(&rules);
        assert_eq!(*vetted.answer.pins, [ip("203.0.113.2")]);
    }
    let long = format!("{}.{}", ["a"; 100].join("."), "old.example");
    let target = ["b"; 100].join(".");
    let vetted = Build::new(&long, Qtype::A).an("old.example", Qtype::DNAME, 1, &wire(&target)).vet(&rules);
    assert_eq!(vetted.kind, Kind::Failure, "the substituted name does not fit");
}

#[test]
fn an_alias_to_an_inside_name_leads_nowhere() {
    for target in [
        "localhost",
        "db.localhost",
        "printer.local",
        "metadata.internal",
        "gateway",
        "router.home.arpa",
        "1.0.0.10.in-addr.arpa",
        "168.192.in-addr.arpa",
        "1.0.0.127.in-addr.arpa",
        "8.e.f.ip6.arpa",
    ] {
        let vetted = Build::new("a.example.com", Qtype::A)
            .cname("a.example.com", "b.example.com")
            .cname("b.example.com", target)
            .a(target, [203, 0, 113, 1])
            .vet(&AnswerRules::default());
        assert!(vetted.internal_alias, "{target}");
        assert_eq!((vetted.answer.answers, vetted.answer.pins.len()), (0, 0), "{target}");
        assert_eq!(vetted.kind, Kind::NoData);
        assert!(!String::from_utf8_lossy(&vetted.answer.body).contains(target.split('.').next().expect("label")));
    }
    for target in ["internal.example.com", "local.example", "1.113.0.203.in-addr.arpa", "0-25.2.0.192.in-addr.arpa"] {
        let vetted = Build::new("a.example.com", Qtype::A)
            .cname("a.example.com", target)
            .a(target, [203, 0, 113, 1])
            .vet(&AnswerRules::default());
        assert_eq!((vetted.internal_alias, vetted.answer.answers), (false, 2), "{target}");
    }
}

#[test]
fn negative_answers_keep_one_fitting_soa() {
    let q = "x.sub.example.com";
    let rules = AnswerRules { max_ttl: 600, ..AnswerRules::default() };
    let nx = |owner: &str, ttl, minimum| {
        Build::new(q, Qtype::A).flags(0x8183).rr(1, owner, Qtype::SOA, ttl, &soa(minimum)).vet(&rules)
    };
    for (owner, ttl, minimum, expected) in [
        ("example.com", 300, 60, 60),
        ("example.com", 30, 60, 30),
        ("com", 9000, 9000, 600),
        (q, 5, 5, 5),
        (".", 7, 9, 7),
    ] {
        let vetted = nx(owner, ttl, minimum);
        assert_eq!((vetted.kind, vetted.answer.rcode, vetted.answer.ttl), (Kind::NxDomain, 3, expected));
        let reply = parsed(&vetted, q, Qtype::A);
        assert_eq!(reply.authorities[0].ttl, expected, "the SOA's own TTL is the negative one");
    }
    for owner in ["example.org", "a.x.sub.example.com", "mexample.com"] {
        let vetted = nx(owner, 300, 300);
        assert_eq!((vetted.answer.authorities, vetted.answer.ttl), (0, BARE_NEGATIVE_TTL), "{owner}");
    }
    let alias = Build::new(q, Qtype::A)
        .flags(0x8183)
        .cname(q, "gone.example.net")
        .a("gone.example.net", [203, 0, 113, 66])
        .rr(1, "example.net", Qtype::SOA, 50, &soa(50))
        .vet(&rules);
    assert_eq!((alias.kind, alias.answer.answers, alias.answer.authorities), (Kind::NxDomain, 1, 1));
    assert!(alias.answer.pins.is_empty(), "a name that does not exist has no address");
}

#[test]
fn failures_and_referrals_are_not_cached() {
    for rcode in [1, 2, 4, 5, 6, 9] {
        let vetted = Build::new("a.example", Qtype::A).flags(0x8180 | rcode).vet(&AnswerRules::default());
        assert_eq!((vetted.kind, vetted.answer.rcode, vetted.cacheable), (Kind::Failure, 2, false));
        assert_eq!(vetted.answer.ttl, FAILURE_TTL);
    }
    // BADVERS (16) has 0 in the header and 1 in the OPT record.
    let mut octets = Build::new("a.example", Qtype::A).octets();
    octets[11] = 1;
    octets.extend([0, 0, 41, 4, 208, 1, 0, 0, 0, 0, 0]);
    let name = NameBuf::from_text("a.example").expect("name");
    let asked = Asked { qname: name.as_ref(), qtype: Qtype::A, dnssec_ok: false };
    assert_eq!(vet(&octets, asked, &AnswerRules::default()).expect("whole").kind, Kind::Failure);
    let referral = Build::new("a.example", Qtype::A).flags(0x8100).rr(1, "example", Qtype::NS, 9, &wire("ns.example"));
    assert_eq!(referral.vet(&AnswerRules::default()).kind, Kind::Failure);
}

/// What tunnels send back passes untouched: policy decides about tunnels, not the scrubber.
#[test]
fn odd_but_on_chain_data_is_kept_octet_by_octet() {
    let q = "t.example.com";
    let octets: Vec<u8> = (0..=255).collect();
    let mut mx = vec![0, 10];
    mx.extend(wire("hGpQ5-xX_.yZ.Example.COM"));
    let mut srv = vec![0, 1, 0, 2, 0, 53];
    srv.extend(wire("AbC.dEf.gh"));
    let mut txt = vec![255];
    txt.extend(&octets[..255]);
    let rows: [(Qtype, &[u8]); 7] = [
        (Qtype::NULL, &octets),
        (Qtype::TXT, &txt),
        (Qtype::KEY, &octets),
        (Qtype(65399), &octets),
        (Qtype(65399), &[]),
        (Qtype::MX, &mx),
        (Qtype::SRV, &srv),
    ];
    for (qtype, data) in rows {
        let vetted = Build::new(q, qtype).an(q, qtype, 0, data).vet(&AnswerRules::default());
        assert_eq!((vetted.kind, vetted.answer.answers, vetted.answer.ttl), (Kind::Positive, 1, 0), "{qtype}");
        assert!(!vetted.cacheable, "TTL 0 is not kept");
        assert!(vetted.answer.body.ends_with(data), "{qtype} data changed");
    }
    let vetted = Build::new(q, Qtype::A).an(q, Qtype::CNAME, 0, &wire("hXyZ0aB.Qq")).vet(&AnswerRules::default());
    assert_eq!(vetted.answer.answers, 1, "an alias alone answers an A question");
    assert!(vetted.answer.body.ends_with(&wire("hXyZ0aB.Qq")));
}

#[test]
fn many_names_are_compressed_without_touching_their_spelling() {
    let q = "example.com";
    let mut build = Build::new(q, Qtype::MX);
    for i in 0..10u8 {
        let mut data = vec![0, i];
        data.extend(wire(&format!("Mx{i}.Mail.Example.com")));
        build = build.an(q, Qtype::MX, 60, &data);
    }
    let vetted = build.vet(&AnswerRules::default());
    let reply = parsed(&vetted, q, Qtype::MX);
    for (i, record) in reply.answers.iter().enumerate() {
        assert_eq!(record.data.to_string(), format!("{i} Mx{i}.Mail.Example.com."));
    }
    assert!(vetted.answer.body.len() < 10 * 24 + 24, "{} octets", vetted.answer.body.len());
    for at in &vetted.answer.ttl_at {
        let at = usize::from(*at);
        assert_eq!(vetted.answer.body[at..at + 4], 60u32.to_be_bytes());
    }
}

#[test]
fn service_records_lose_ech_and_hints() {
    let q = "s.example.com";
    let param = |key: u16, value: &[u8]| [&key.to_be_bytes()[..], &(value.len() as u16).to_be_bytes(), value].concat();
    let record = |priority: u16, target: &str, params: &[Vec<u8>]| {
        [&priority.to_be_bytes()[..], &wire(target), &params.concat()].concat()
    };
    let full = record(
        1,
        ".",
        &[
            param(0, &[0, 1, 0, 4, 0, 5]),
            param(1, b"\x02h2"),
            param(4, &[203, 0, 113, 5, 10, 0, 0, 1]),
            param(5, b"echconfig"),
            param(6, &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
        ],
    );
    let stripped = record(1, ".", &[param(0, &[0, 1]), param(1, b"\x02h2")]);
    let answer = |rules: &AnswerRules, data: &[u8]| {
        Build::new(q, Qtype::HTTPS)
            .flags(0x81a0)
            .an(q, Qtype::HTTPS, 300, data)
            .an(q, Qtype::RRSIG, 300, &[&65u16.to_be_bytes()[..], &[0; 17], &[1, 2]].concat())
            .vet_do(rules, true)
    };
    let vetted = answer(&AnswerRules::default(), &full);
    assert!(vetted.answer.body.ends_with(&stripped));
    assert_eq!((vetted.answer.answers, vetted.answer.authentic_data), (1, false), "an edited set keeps no signature");
    assert_eq!(vetted.answer.pins.len(), 0);
    assert_eq!(vetted.rebinding, [ip("10.0.0.1")], "an inside hint is evidence");

    let kept = AnswerRules { strip_hints: false, ..AnswerRules::default() };
    let vetted = answer(&kept, &full);
    assert_eq!(*vetted.answer.pins, [ip("203.0.113.5"), ip("2001:db8::1")]);
    let guarded = record(
        1,
        ".",
        &[
            param(0, &[0, 1, 0, 4]),
            param(1, b"\x02h2"),
            param(4, &[203, 0, 113, 5]),
            param(6, &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
        ],
    );
    assert!(vetted.answer.body.ends_with(&guarded));

    let plain = record(1, "svc.example.net", &[param(1, b"\x02h2"), param(3, &[1, 187])]);
    let vetted = answer(&AnswerRules::default(), &plain);
    assert_eq!((vetted.answer.answers, vetted.answer.authentic_data), (2, true), "unedited: signature and AD stay");
    assert_eq!(vetted.names, [NameBuf::from_text("svc.example.net").expect("name")]);

    let alias = answer(&AnswerRules::default(), &record(0, "svc.example.net", &[]));
    assert!(alias.answer.body.windows(wire("svc.example.net").len()).any(|w| w == wire("svc.example.net")));
    let smuggled = answer(&AnswerRules::default(), &record(0, "svc.example.net", &[param(65400, b"data")]));
    assert!(smuggled.answer.body.ends_with(&wire("svc.example.net")), "an alias has no parameters");

    for bad in [record(1, "x.internal", &[]), record(1, ".", &[param(4, &[1]), param(1, b"")]), vec![0], vec![]] {
        let vetted = answer(&AnswerRules::default(), &bad);
        assert_eq!((vetted.answer.answers, vetted.kind), (0, Kind::NoData));
    }
}

#[test]
fn signatures_come_only_when_asked_and_only_over_what_is_shown() {
    let q = "a.example.com";
    let sig = |covered: Qtype| [&covered.0.to_be_bytes()[..], &[0; 16], &[0], b"signature"].concat();
    let build = Build::new(q, Qtype::A)
        .flags(0x81a0)
        .cname(q, "b.example.com")
        .an(q, Qtype::RRSIG, 300, &sig(Qtype::CNAME))
        .a("b.example.com", [203, 0, 113, 1])
        .an("b.example.com", Qtype::RRSIG, 300, &sig(Qtype::A))
        .an("b.example.com", Qtype::RRSIG, 300, &sig(Qtype::TXT))
        .an("c.example.com", Qtype::RRSIG, 300, &sig(Qtype::A));
    let with = build.vet_do(&AnswerRules::default(), true);
    assert_eq!((with.answer.answers, with.answer.authentic_data), (4, true));
    let without = build.vet(&AnswerRules::default());
    assert_eq!((without.answer.answers, without.answer.authentic_data), (2, true));
    let hidden = build.a("b.example.com", [10, 0, 0, 1]).vet_do(&AnswerRules::default(), true);
    assert_eq!((hidden.answer.answers, hidden.answer.authentic_data), (3, false), "the A set is no longer as signed");
}

#[test]
fn any_shows_what_stands_at_the_name() {
    let q = "a.example.com";
    let build = Build::new(q, Qtype::ANY)
        .a(q, [203, 0, 113, 1])
        .a(q, [10, 0, 0, 1])
        .an(q, Qtype::TXT, 60, b"\x01x")
        .an(q, Qtype(250), 60, b"tsig")
        .a("b.example.com", [203, 0, 113, 66]);
    let vetted = build.vet(&AnswerRules::default());
    assert_eq!(shown(&vetted, q, Qtype::ANY).len(), 2);
    assert_eq!(*vetted.answer.pins, [ip("203.0.113.1")]);
    assert_eq!(vetted.answer.ttl, 60);
}

#[test]
fn ttls_are_capped_and_the_smallest_counts() {
    let q = "a.example.com";
    let rules = AnswerRules { max_ttl: 100, ..AnswerRules::default() };
    for (ttls, expected) in [([300, 200], 100), ([300, 50], 50), ([0x8000_0001, 300], 0)] {
        let build = Build::new(q, Qtype::A).an(q, Qtype::A, ttls[0], &[203, 0, 113, 1]).an(
            q,
            Qtype::A,
            ttls[1],
            &[203, 0, 113, 2],
        );
        let vetted = build.vet(&rules);
        assert_eq!(vetted.answer.ttl, expected);
        assert!(parsed(&vetted, q, Qtype::A).answers.iter().all(|r| r.ttl <= 100));
    }
}

#[test]
fn large_answers_are_bounded() {
    let q = "a.example.com";
    let mut build = Build::new(q, Qtype::A);
    for i in 0..200u8 {
        build = build.a(q, [203, 0, 113, i]);
    }
    let vetted = build.vet(&AnswerRules::default());
    assert_eq!(usize::from(vetted.answer.answers), MAX_ADDRESSES);
    assert_eq!(vetted.answer.pins.len(), MAX_ADDRESSES);

    let mut build = Build::new(q, Qtype::TXT);
    for _ in 0..=MAX_RECORDS {
        build = build.an(q, Qtype::TXT, 1, b"\x01x");
    }
    let asked = Asked { qname: build.qname.as_ref(), qtype: Qtype::TXT, dnssec_ok: false };
    assert_eq!(vet(&build.octets(), asked, &AnswerRules::default()).err(), Some(VetError::TooLarge));
}

#[test]
fn compressed_responses_read_the_same() {
    // As an upstream sends it: pointers everywhere, also inside data.
    let mut octets = vec![0, 1, 0x81, 0x80, 0, 1, 0, 2, 0, 0, 0, 0];
    octets.extend(wire("www.Example.com"));
    octets.extend([0, 1, 0, 1]);
    octets.extend([0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 60, 0, 6, 3]);
    octets.extend(b"cdn");
    octets.extend([0xc0, 16]);
    let target = octets.len() - 6;
    octets.extend([0xc0, target as u8, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 203, 0, 113, 1]);
    let name = NameBuf::from_text("www.example.com").expect("name");
    let asked = Asked { qname: name.as_ref(), qtype: Qtype::A, dnssec_ok: false };
    let vetted = vet(&octets, asked, &AnswerRules::default()).expect("whole");
    assert_eq!(
        shown(&vetted, "www.example.com", Qtype::A),
        ["www.example.com. CNAME cdn.Example.com.", "cdn.example.com. A 203.0.113.1"]
    );
    // A pointer at itself, and two that point at each other.
    for pointer in [target as u8, target as u8 + 4] {
        let mut bent = octets.clone();
        bent[target + 4..target + 6].copy_from_slice(&[0xc0, pointer]);
        assert!(
            matches!(vet(&bent, asked, &AnswerRules::default()), Ok(v) if v.answer.pins.is_empty()) || {
                vet(&bent, asked, &AnswerRules::default()).is_err()
            }
        );
    }
}
