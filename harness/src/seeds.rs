//! Seeds that are made rather than written: what a hand cannot type. Text seeds are files that somebody wrote.
//!
//! `cargo run --package staunch-harness --example seeds` writes them; a test says when they are not as they should be.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use staunch::enforce::remote::encode;
use staunch::enforce::wire::{Held, HeldLease, Reply, Request, VERSION};
use staunch::enforce::{Class, Command, Range};
use staunch::ports::{Opening, Port, Ports};

use crate::mutate::Chance;

/// A seed: its target, its name, its octets.
pub type Seed = (&'static str, &'static str, Vec<u8>);

/// All of them.
pub fn made() -> Vec<Seed> {
    let signed = crate::validate::seeds().into_iter().map(|(name, octets)| ("validate", name, octets)).collect();
    [queries(), answers(), trees(), frames(), journals(), upstreams(), signed].concat()
}

fn name(text: &str) -> Vec<u8> {
    let labels = text.split('.').filter(|label| !label.is_empty());
    labels.flat_map(|label| [&[label.len() as u8][..], label.as_bytes()].concat()).chain([0]).collect()
}

fn query(text: &str, qtype: u16, opt: &[u8]) -> Vec<u8> {
    let mut out = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(!opt.is_empty())];
    out.extend(name(text));
    out.extend(qtype.to_be_bytes());
    out.extend([0, 1]);
    out.extend(opt);
    out
}

fn queries() -> Vec<Seed> {
    let long = format!("{}.{}", vec!["a".repeat(63); 3].join("."), "b".repeat(61));
    let plain = [0, 0, 41, 4, 0xd0, 0, 0, 0x80, 0, 0, 0];
    // A cookie, a client subnet and an unknown option.
    let options = [
        &[0, 0, 41, 16, 0, 0, 0, 0, 0, 0, 31][..],
        b"\0\x0a\0\x08cookie12",
        b"\0\x08\0\x07\0\x01\x18\0\xc0\0\x02",
        b"\xff\xfe\0\0",
    ];
    vec![
        ("query", "a", query("www.example.com", 1, &[])),
        ("query", "case-and-edns", query("WwW.ExAmPlE.cOm", 28, &plain)),
        ("query", "options", query("example", 65, &options.concat())),
        ("query", "longest-name", query(&long, 16, &plain)),
        ("query", "root", query("", 2, &plain)),
        ("query", "any", query("example.com", 255, &[])),
        ("query", "edns-version-1", query("example.com", 1, &[0, 0, 41, 4, 0xd0, 0, 1, 0, 0, 0, 0])),
        ("query", "signed", query("example.com", 1, &[0, 0, 250, 0, 255, 0, 0, 0, 0, 0, 0])),
    ]
}

/// A message with an address and these records behind it, `count` in each section.
fn upstream(counts: [u8; 3], records: &[&[u8]]) -> Vec<u8> {
    let mut out = vec![0, 1, 0x81, 0x80, 0, 1, 0, counts[0], 0, counts[1], 0, counts[2]];
    out.extend(name("www.example"));
    out.extend([0, 1, 0, 1]);
    out.extend(records.concat());
    out
}

/// What upstreams say in their OPT records.
fn upstreams() -> Vec<Seed> {
    let address = record(&[0xc0, 12], 1, 300, &[203, 0, 113, 1]);
    let opt = |rcode: u8, options: &[u8]| {
        let length = (options.len() as u16).to_be_bytes();
        [&[0, 0, 41, 4, 0xd0, rcode, 0, 0, 0], &length[..], options].concat()
    };
    let cookie = b"\0\x0a\0\x10clientcoservercx";
    let several =
        [&b"\0\x03\0\x04nsid"[..], b"\0\x08\0\x07\0\x01\x18\x10\xc0\0\x02", cookie, b"\0\x0b\0\x02\0\x64"].concat();
    vec![
        ("edns", "none", upstream([1, 0, 0], &[&address])),
        ("edns", "cookie", upstream([1, 0, 1], &[&address, &opt(0, cookie)])),
        ("edns", "several", upstream([1, 0, 1], &[&address, &opt(0, &several)])),
        ("edns", "badvers", upstream([0, 0, 1], &[&opt(1, &[])])),
        ("edns", "overrun", upstream([1, 0, 1], &[&address, &opt(0, b"\0\x0b\0\x02\0\x64\0\x0a\0\x09cookies!")])),
        ("edns", "two", upstream([0, 0, 2], &[&opt(0, cookie), &opt(2, b"\0\x0b\0\0")])),
        ("edns", "in-the-answer", upstream([1, 0, 1], &[&opt(0x80, cookie), &address])),
    ]
}

/// A record, its owner as octets.
fn record(owner: &[u8], rtype: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let (rtype, ttl) = (rtype.to_be_bytes(), ttl.to_be_bytes());
    [owner, &rtype, &[0, 1], &ttl, &(data.len() as u16).to_be_bytes(), data].concat()
}

fn response(settings: u8, flags: u16, qtype: u16, sections: [&[Vec<u8>]; 2]) -> Vec<u8> {
    let mut out = vec![settings, 0, 1];
    out.extend(flags.to_be_bytes());
    out.extend([0, 1, 0, sections[0].len() as u8, 0, sections[1].len() as u8, 0, 0]);
    out.extend(name("q.example"));
    out.extend(qtype.to_be_bytes());
    out.extend([0, 1]);
    out.extend(sections.concat().concat());
    out
}

/// The owner of the question.
const Q: &[u8] = &[0xc0, 12];
/// `example` in it.
const ZONE: &[u8] = &[0xc0, 14];

fn answers() -> Vec<Seed> {
    let zone = name("example");
    let sign =
        |covered: u16, labels: u8| [&covered.to_be_bytes()[..], &[13, labels], &[0; 14], &zone, b"signature"].concat();
    let soa =
        record(ZONE, 6, 300, &[name("ns.example"), name("admin.example"), vec![0; 16], vec![0, 0, 0, 60]].concat());
    let nsec = |owner: &str, next: &str| record(&name(owner), 47, 90, &[name(next), vec![0, 1, 0x40]].concat());
    let hash = name("0p9mhaveqvm6t7vbl5lop2u3t2rp3tom.example");
    let nsec3 = record(&hash, 50, 90, &[&[1, 0, 0, 0, 0, 20][..], &[7; 20], &[0, 1, 0x40]].concat());
    let service = [
        &[0, 1, 0][..],
        &[0, 0, 0, 2, 0, 4],
        b"\0\x01\0\x03\x02h2",
        &[0, 4, 0, 8, 192, 0, 2, 1, 10, 0, 0, 1],
        b"\0\x05\0\x03ech",
        &[0, 6, 0, 16],
        &[0x20; 16],
    ]
    .concat();
    vec![
        (
            "answer",
            "a",
            response(0, 0x8180, 1, [&[record(Q, 1, 300, &[192, 0, 2, 1]), record(Q, 1, 60, &[192, 0, 2, 2])], &[]]),
        ),
        (
            "answer",
            "alias",
            response(
                1,
                0x81a0,
                1,
                [
                    &[
                        record(Q, 5, 300, &name("Www.Other.Test")),
                        record(Q, 46, 300, &sign(5, 2)),
                        record(&name("www.other.test"), 1, 9, &[192, 0, 2, 3]),
                        record(&name("off.test"), 1, 9, &[192, 0, 2, 4]),
                    ],
                    &[],
                ],
            ),
        ),
        (
            "answer",
            "dname",
            response(
                0,
                0x8180,
                28,
                [&[record(ZONE, 39, 300, &name("test")), record(&name("q.test"), 28, 300, &[0x20; 16])], &[]],
            ),
        ),
        (
            "answer",
            "rebinding",
            response(0, 0x8180, 1, [&[record(Q, 1, 300, &[10, 0, 0, 1]), record(Q, 1, 300, &[192, 0, 2, 1])], &[]]),
        ),
        ("answer", "inside-allowed", response(16, 0x8180, 1, [&[record(Q, 1, 300, &[10, 0, 0, 1])], &[]])),
        ("answer", "inside-alias", response(0, 0x8180, 1, [&[record(Q, 5, 300, &name("db.internal"))], &[]])),
        ("answer", "https", response(0, 0x8180, 65, [&[record(Q, 65, 300, &service)], &[]])),
        ("answer", "https-hints", response(12, 0x8180, 65, [&[record(Q, 65, 300, &service)], &[]])),
        (
            "answer",
            "mail",
            response(0, 0x8180, 15, [&[record(Q, 15, 300, &[0, 10, 4, b'm', b'a', b'i', b'l', 0xc0, 12])], &[]]),
        ),
        ("answer", "text", response(0, 0x8180, 16, [&[record(Q, 16, 300, b"\x05hello\x00")], &[]])),
        (
            "answer",
            "any",
            response(
                1,
                0x8180,
                255,
                [&[record(Q, 1, 1, &[192, 0, 2, 1]), record(Q, 46, 1, &sign(1, 2)), record(Q, 65280, 1, b"?")], &[]],
            ),
        ),
        (
            "answer",
            "denial",
            response(
                1,
                0x81a3,
                1,
                [
                    &[],
                    &[
                        soa.clone(),
                        record(ZONE, 46, 300, &sign(6, 1)),
                        nsec("p.example", "z.example"),
                        record(&name("p.example"), 46, 90, &sign(47, 2)),
                        nsec("example", "b.example"),
                        record(ZONE, 46, 90, &sign(47, 1)),
                    ],
                ],
            ),
        ),
        (
            "answer",
            "denial-hashed",
            response(
                1,
                0x81a0,
                1,
                [&[], &[soa.clone(), record(ZONE, 46, 300, &sign(6, 1)), nsec3, record(&hash, 46, 90, &sign(50, 2))]],
            ),
        ),
        (
            "answer",
            "wildcard",
            response(
                1,
                0x81a0,
                1,
                [
                    &[record(Q, 1, 300, &[192, 0, 2, 1]), record(Q, 46, 300, &sign(1, 1))],
                    &[nsec("p.example", "z.example"), record(&name("p.example"), 46, 90, &sign(47, 2))],
                ],
            ),
        ),
        ("answer", "failure", response(0, 0x8182, 1, [&[], &[]])),
        ("answer", "cut", response(0, 0x8380, 1, [&[], &[]])),
    ]
}

/// Octets by chance, which a response is read from; a fuzzer finds better ones from there.
fn trees() -> Vec<Seed> {
    let mut chance = Chance::new(1);
    let mut some = |name, length: usize| ("tree", name, (0..length).map(|_| chance.below(256) as u8).collect());
    vec![
        some("one", 200),
        some("two", 400),
        some("three", 600),
        some("four", 900),
        some("five", 1400),
        some("six", 2000),
    ]
}

fn frames() -> Vec<Seed> {
    let session: IpAddr = Ipv4Addr::new(10, 77, 1, 2).into();
    let to: IpAddr = Ipv4Addr::new(192, 0, 2, 1).into();
    let ports = || Ports::these([Port::tcp(443), Port::udp(443)]).expect("two");
    let lifetime = Duration::from_secs(90);
    let pin = |destinations| Command::Pin { session, destinations, ports: ports(), volume: Some(4096), lifetime };
    let commands = vec![
        Command::Guard { session, class: Class(3) },
        pin(vec![to, Ipv4Addr::new(192, 0, 2, 2).into()]),
        Command::Unpin { session, destinations: vec![to] },
        Command::Renew { session, class: Class(1), keep: Vec::new() },
        Command::Quarantine { session },
        Command::Release { session },
        Command::Remove { session: "2001:db8::1".parse().expect("an address") },
    ];
    let lease = HeldLease { to, open: Opening::Web, left_ms: 9000 };
    let guard = Some(Class(2));
    let held = Held { session, guard, monitored: false, quarantined: true, leases: vec![lease], volumes: Vec::new() };
    let ranges =
        vec![Range { id: 7, classes: 9, first: to, last: Ipv4Addr::new(192, 0, 2, 99).into(), ports: ports() }];
    let hello =
        Request::Hello { version: VERSION, product: "0".into(), table: "staunch".into(), settings: String::new() };
    let stream = |cut: u8, documents: &[Request]| {
        let framed = documents.iter().flat_map(|document| encode(document).expect("it fits"));
        std::iter::once(cut).chain(framed).collect::<Vec<u8>>()
    };
    let reply = encode(&Reply::Held { held: vec![held.clone()], more: false }).expect("it fits");
    vec![
        ("frames", "orders", stream(7, &[Request::Apply { commands }, Request::Snapshot { after: Some(session) }])),
        ("frames", "hold", stream(255, &[Request::Hold { held: vec![held], more: false }, Request::Health])),
        ("frames", "ranges", stream(1, &[Request::Ranges { ranges }, Request::View { session }])),
        ("frames", "hello", stream(64, &[hello, Request::Images { table: "staunch".into(), apart: "seal".into() }])),
        ("frames", "reply", [vec![9], reply].concat()),
        ("frames", "too-long", vec![9, 0xff, 0xff, 0xff, 0xff, b'{']),
    ]
}

fn journals() -> Vec<Seed> {
    let damage = |pieces: &[[u8; 5]]| [&[0][..], &pieces.concat()].concat();
    vec![
        ("journal", "cut", damage(&[[0, 9, 0, 0, 0]])),
        ("journal", "flip", damage(&[[1, 6, 1, 0, 4]])),
        ("journal", "hole", damage(&[[2, 5, 0, 200, 0], [3, 9, 0, 64, 0]])),
        ("journal", "blocks", damage(&[[5, 8, 0, 255, 3], [6, 2, 0, 90, 0], [4, 7, 7, 3, b'\n']])),
        ("journal", "newline-and-next-beginning", damage(&[crate::journal::headless(4)])),
        ("journal", "text", b"\x01{\"seq\":1,\"prev\":\"\",\"time\":\"\",\"record\":{},\"hash\":\"\"}\n".to_vec()),
    ]
}
