//! Which addresses are shown and pinned.

use hickory_proto::rr::RecordType;
use staunch_scoring::NameBuf;

use super::*;
use crate::lists::{Reach, RuleForm};
use crate::range::IpRange;

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

/// RFC 6052: an address behind a NAT64 is what it leads to, by the well-known prefix and by a network's own.
#[test]
fn an_address_behind_a_nat64_is_judged_by_where_it_leads() {
    let own_prefix = ["2001:db8:64::/96", "64:ff9b:1:fffe::/64"].map(|text| Nat64::parse(text).expect("prefix"));
    let rules = |nat64: &[Nat64]| AnswerRules {
        nat64: nat64.to_vec(),
        own: vec![ip("203.0.113.53")],
        allow_ranges: vec![AllowRange {
            names: RuleForm { name: NameBuf::from_text("wiki.example.com").expect("name"), reach: Reach::Exact },
            ranges: vec![IpRange::parse("10.20.0.0/16").expect("range")],
        }],
        ..AnswerRules::default()
    };
    let pinned = |name: &str, addr: &str, nat64: &[Nat64]| {
        let (_, build) = address_response(name, ip(addr));
        let vetted = build.vet(&rules(nat64));
        assert_eq!(vetted.rebinding.is_empty(), vetted.answer.answers == 1, "{addr}");
        assert!(vetted.answer.pins.is_empty() || *vetted.answer.pins == [ip(addr)], "{addr}");
        !vetted.answer.pins.is_empty()
    };
    // Name, address, whether pinned: without the network's prefixes and with them.
    for (name, addr, without, with) in [
        ("www.example.com", "64:ff9b::203.0.113.7", true, true),
        ("www.example.com", "64:ff9b::10.20.0.1", false, false),
        ("www.example.com", "64:ff9b::203.0.113.53", false, false),
        ("wiki.example.com", "64:ff9b::10.20.0.1", true, true),
        ("wiki.example.com", "64:ff9b::10.21.0.1", false, false),
        ("www.example.com", "2001:db8:64::203.0.113.7", true, true),
        ("www.example.com", "2001:db8:64::10.20.0.1", true, false),
        ("www.example.com", "2001:db8:64::169.254.169.254", true, false),
        ("www.example.com", "2001:db8:64::203.0.113.53", true, false),
        ("wiki.example.com", "2001:db8:64::10.20.0.1", true, true),
        ("www.example.com", "64:ff9b:1:fffe:cb:71:700::", false, true),
        ("www.example.com", "64:ff9b:1:fffe:a:1400:100::", false, false),
    ] {
        assert_eq!(pinned(name, addr, &[]), without, "{name} {addr} without the prefix");
        assert_eq!(pinned(name, addr, &own_prefix), with, "{name} {addr} with the prefix");
    }
    // What says which prefix there is is shown, and opens nothing (RFC 7050).
    for (name, addr, shown) in [
        ("ipv4only.arpa", "64:ff9b::192.0.0.170", true),
        ("ipv4only.arpa", "192.0.0.171", true),
        ("ipv4only.arpa", "64:ff9b::192.0.0.172", false),
        ("www.example.com", "64:ff9b::192.0.0.170", false),
    ] {
        let vetted = address_response(name, ip(addr)).1.vet(&rules(&[]));
        assert_eq!((vetted.answer.answers == 1, vetted.answer.pins.len()), (shown, 0), "{name} {addr}");
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

#[test]
fn a_range_is_all_public_where_none_of_its_addresses_is_withheld() {
    for (range, public) in [
        ("198.51.100.0/24", true),
        ("8.0.0.0/7", true),
        ("10.20.0.0/16", false),
        ("10.20.3.4", false),
        ("0.0.0.0/1", false),
        ("192.0.0.0/8", false),
        ("168.63.129.0/24", false),
        ("2001:db8::/32", true),
        ("2001:db8::1", true),
        ("fd00::/8", false),
        ("2000::/3", false),
        ("::/2", false),
        ("2001::/16", false),
        ("2002:a00::/24", false),
        ("64:ff9b::/96", false),
    ] {
        let range = IpRange::parse(range).expect("a range");
        assert_eq!(crate::answer::is_all_public(&range), public, "{range}");
        assert!(!public || [range.first(), range.last()].iter().all(|ip| crate::answer::is_public(*ip)), "{range}");
    }
}
