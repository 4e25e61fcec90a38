//! A client that validates sees behind the resolver what it would see behind the resolver's upstream: signed zones, real
//! validators of two makes, each question asked through the resolver and directly. Where the resolver validates by itself
//! (`local`), it comes to the verdicts that unbound comes to.

#[path = "e2e_dnssec/anchors.rs"]
mod anchors;
#[path = "e2e_dnssec/hostile.rs"]
mod hostile;
#[path = "e2e_dnssec/local.rs"]
mod local;
#[path = "e2e_dnssec/signed.rs"]
mod signed;
#[path = "e2e_dnssec/tamper.rs"]
mod tamper;
mod world;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::Ordering;
use std::time::Duration;

use signed::{Kind, RESOLVER, Signed, VALIDATOR_PORT};
use world::capture::Capture;
use world::dns::{Message, Query, Record, rcode, rtype};
use world::ns::Ns;
use world::staunch::{Config, Staunch};
use world::{OUTSIDE_INTERFACE, World, client};

const AD: u16 = 0x0020;
const CD: u16 = 0x0010;
const DNAME: u16 = 39;
const DS: u16 = 43;
const RRSIG: u16 = 46;
const NSEC: u16 = 47;
const DNSKEY: u16 = 48;
const NSEC3: u16 = 50;

/// What a validator has to make of a question.
#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Secure,
    Insecure,
    Bogus,
}
use State::{Bogus, Insecure, Secure};

/// Name, type, response code, state.
type Row = (&'static str, u16, u8, State);

const ROWS: [Row; 54] = [
    ("www.nsec.org", rtype::A, rcode::NOERROR, Secure),
    ("www.nsec3.net", rtype::A, rcode::NOERROR, Secure),
    ("www.nsec.org", rtype::AAAA, rcode::NOERROR, Secure),
    ("nsec.org", rtype::SOA, rcode::NOERROR, Secure),
    // The name does not exist.
    ("missing.nsec.org", rtype::A, rcode::NXDOMAIN, Secure),
    ("missing.nsec3.net", rtype::A, rcode::NXDOMAIN, Secure),
    ("more.missing.nsec.org", rtype::AAAA, rcode::NXDOMAIN, Secure),
    ("more.missing.nsec3.net", rtype::AAAA, rcode::NXDOMAIN, Secure),
    ("zz.nsec.org", rtype::A, rcode::NXDOMAIN, Secure),
    ("missing.org", rtype::A, rcode::NXDOMAIN, Secure),
    // The type does not exist; the name only has names below; the whole is a wildcard's.
    ("www.nsec.org", rtype::MX, rcode::NOERROR, Secure),
    ("www.nsec3.net", rtype::MX, rcode::NOERROR, Secure),
    ("ent.nsec.org", rtype::A, rcode::NOERROR, Secure),
    ("ent.nsec3.net", rtype::A, rcode::NOERROR, Secure),
    ("deep.ent.nsec.org", rtype::A, rcode::NOERROR, Secure),
    ("one.wild.nsec.org", rtype::MX, rcode::NOERROR, Secure),
    ("one.wild.nsec3.net", rtype::MX, rcode::NOERROR, Secure),
    // Records of a wildcard, at any depth, and through its aliases.
    ("one.wild.nsec.org", rtype::A, rcode::NOERROR, Secure),
    ("one.wild.nsec3.net", rtype::A, rcode::NOERROR, Secure),
    ("two.one.wild.nsec.org", rtype::A, rcode::NOERROR, Secure),
    ("two.one.wild.nsec3.net", rtype::A, rcode::NOERROR, Secure),
    ("one.alias.nsec.org", rtype::A, rcode::NOERROR, Secure),
    ("one.alias.nsec3.net", rtype::A, rcode::NOERROR, Secure),
    ("one.gone.nsec.org", rtype::A, rcode::NXDOMAIN, Secure),
    ("one.gone.nsec3.net", rtype::A, rcode::NXDOMAIN, Secure),
    ("one.alias.nsec.org", rtype::MX, rcode::NOERROR, Secure),
    // Chains over both zones.
    ("chain.nsec.org", rtype::A, rcode::NOERROR, Secure),
    ("chain.nsec3.net", rtype::A, rcode::NOERROR, Secure),
    ("chain.nsec.org", rtype::MX, rcode::NOERROR, Secure),
    ("last.nsec.org", rtype::A, rcode::NXDOMAIN, Secure),
    ("last.nsec3.net", rtype::A, rcode::NXDOMAIN, Secure),
    ("www.below.nsec.org", rtype::A, rcode::NOERROR, Secure),
    ("none.below.nsec3.net", rtype::A, rcode::NXDOMAIN, Secure),
    // Delegations without a key, under both kinds of denial, and aliases into them.
    ("www.plain.org", rtype::A, rcode::NOERROR, Insecure),
    ("www.plain.net", rtype::A, rcode::NOERROR, Insecure),
    ("missing.plain.org", rtype::A, rcode::NXDOMAIN, Insecure),
    ("www.plain.net", rtype::MX, rcode::NOERROR, Insecure),
    ("insecure.nsec.org", rtype::A, rcode::NOERROR, Insecure),
    ("insecure.nsec3.net", rtype::A, rcode::NOERROR, Insecure),
    // Vouched for by a digest, or keys of an algorithm, that no validator knows.
    ("www.digest.org", rtype::A, rcode::NOERROR, Insecure),
    ("www.algorithm.org", rtype::A, rcode::NOERROR, Insecure),
    // What a validator asks for itself.
    ("plain.org", DS, rcode::NOERROR, Secure),
    ("nsec.org", DS, rcode::NOERROR, Secure),
    ("nsec3.net", DNSKEY, rcode::NOERROR, Secure),
    ("org", DNSKEY, rcode::NOERROR, Secure),
    // Too large for a datagram.
    ("large.nsec.org", rtype::TXT, rcode::NOERROR, Secure),
    ("large.nsec3.net", rtype::TXT, rcode::NOERROR, Secure),
    // A service without anything that is taken out.
    ("svc.nsec.org", rtype::HTTPS, rcode::NOERROR, Secure),
    // Changed after it was signed; vouched for by nobody; out of date, and of a date to come.
    ("tampered.nsec.org", rtype::A, rcode::SERVFAIL, Bogus),
    ("tampered.nsec3.net", rtype::A, rcode::NOERROR, Secure),
    ("www.forged.org", rtype::A, rcode::SERVFAIL, Bogus),
    ("missing.forged.org", rtype::A, rcode::SERVFAIL, Bogus),
    ("www.expired.org", rtype::A, rcode::SERVFAIL, Bogus),
    ("www.early.org", rtype::A, rcode::SERVFAIL, Bogus),
];

/// Aliases that a DNAME makes, asked for by their type. Unbound's validator takes them for bogus wherever it asks, so they
/// are compared without it; BIND's does not.
const MADE: [&str; 3] = ["www.below.nsec.org", "www.below.nsec3.net", "none.below.nsec3.net"];

struct Net {
    // In the order of their end.
    staunch: Staunch,
    signed: Signed,
    world: World,
}

impl Net {
    fn start(kind: Kind, config: &Config) -> Option<Self> {
        let (world, signed) = Self::outside(kind)?;
        let staunch = Staunch::start(&world, config);
        Some(Self { world, signed, staunch })
    }

    /// All but the resolver under test.
    fn outside(kind: Kind) -> Option<(World, Signed)> {
        if !signed::tools_are_there() {
            return None;
        }
        let world = World::create(1)?;
        let signed = Signed::start(&world, kind);
        Some((world, signed))
    }

    /// Asks the resolver under test from the sandbox, by datagram and, where that is cut short, by stream.
    fn through(&self, query: &Query) -> Message {
        let agent = &self.world.agents[0];
        ask(&agent.ns, agent.gateway, 53, query)
    }

    /// Asks the upstream itself.
    fn directly(&self, query: &Query) -> Message {
        ask(&self.world.net, RESOLVER, 53, query)
    }
}

fn ask(ns: &Ns, server: Ipv4Addr, port: u16, query: &Query) -> Message {
    let (octets, server) = (query.encode(), SocketAddr::from((server, port)));
    let limit = Duration::from_secs(20);
    let over_udp = octets.clone();
    let reply = ns.run(async move { client::udp(None, server, &over_udp, limit).await });
    let reply = reply.unwrap_or_else(|e| panic!("{} {} at {server}: {e}", query.name, query.qtype));
    if !reply.truncated() {
        return reply;
    }
    let reply = ns.run(async move { client::tcp(server, &octets, limit).await });
    reply.unwrap_or_else(|e| panic!("{} {} at {server} over TCP: {e}", query.name, query.qtype))
}

fn query(name: &str, qtype: u16, dnssec_ok: bool, flags: u16) -> Query {
    let mut query = Query::new(name, qtype).edns(1232);
    query.dnssec_ok = dnssec_ok;
    query.flags |= flags;
    query
}

/// Owner, type, and data where no name in it can be compressed.
fn shape(records: &[Record]) -> Vec<(String, u16, Vec<u8>)> {
    let exact = |r: &Record| !matches!(r.rtype, rtype::CNAME | rtype::SOA | DNAME);
    let of = |r: &Record| {
        let data = if exact(r) { r.rdata.clone() } else { Vec::new() };
        (r.name.to_ascii_lowercase(), r.rtype, data)
    };
    // Name servers, and signatures over them, are no part of an answer.
    let server = |r: &&Record| r.rtype == 2 || r.rtype == RRSIG && r.rdata.starts_with(&[0, 2]);
    let mut all: Vec<_> = records.iter().filter(|r| !server(r)).map(of).collect();
    all.sort();
    all
}

fn compare(kind: Kind) {
    let Some(net) = Net::start(kind, &Config::enforce()) else { return };
    let agent = &net.world.agents[0];
    let behind = net.signed.validator(&agent.ns, "behind", agent.gateway);
    let control = net.signed.validator(&net.world.net, "control", RESOLVER);
    let said = |why: &str| format!("{why}\nbehind: {}\ncontrol: {}", behind.log(), control.log());
    let mut secure = 0;
    for (name, qtype, code, state) in ROWS {
        let query = query(name, qtype, true, AD);
        let [there, here] = [&net.world.net, &agent.ns].map(|ns| ask(ns, Ipv4Addr::LOCALHOST, VALIDATOR_PORT, &query));
        let row = format!("{kind:?}: {name} {qtype}");
        assert_eq!(there.rcode(), code, "{}", said(&format!("{row}, directly: {there:?}")));
        assert_eq!(there.flags & AD != 0, state == Secure, "{row}, directly: {there:?}");
        assert_eq!(here.rcode(), code, "{}", said(&format!("{row}: {here:?}")));
        assert_eq!(here.flags & AD != 0, state == Secure, "{}", said(&format!("{row}: {here:?}")));
        assert_eq!(shape(&here.answers), shape(&there.answers), "{row}");
        assert_eq!(shape(&here.authority), shape(&there.authority), "{row}");
        secure += usize::from(state == Secure);

        compare_bare(&net, name, qtype, &row);
    }
    for name in MADE {
        let row = format!("{kind:?}: {name} CNAME");
        let there = compare_bare(&net, name, rtype::CNAME, &row);
        assert!(there.answers.iter().any(|r| r.rtype == DNAME), "{row}, directly: {there:?}");
    }
    println!("FIGURE: {kind:?}: {} questions, {secure} secure, each the same through us and directly", ROWS.len());
    let refused: Vec<_> = net.staunch.events().into_iter().filter(|e| e["would"] != "answer").collect();
    assert!(refused.is_empty(), "a validator's questions are no evidence: {refused:?}");
}

/// Asks the resolver itself and its upstream, with nothing in between, whatever the flags; what the upstream says with all.
fn compare_bare(net: &Net, name: &str, qtype: u16, row: &str) -> Message {
    let mut last = None;
    for flags in [0, AD, CD, AD | CD] {
        for dnssec_ok in [false, true] {
            let query = query(name, qtype, dnssec_ok, flags);
            let (here, there) = (net.through(&query), net.directly(&query));
            let row = format!("{row} flags {flags:04x} DO {dnssec_ok}");
            assert_eq!(here.rcode(), there.rcode(), "{row}: {here:?}\n{there:?}");
            let wants_ad = dnssec_ok || flags & AD != 0;
            let ad = if wants_ad { there.flags & AD } else { 0 };
            // Unchecked data that the upstream has checked since then may still be in our cache: never the other way.
            let unchecked = flags & CD != 0 && here.flags & AD == 0;
            assert!(here.flags & AD == ad || unchecked, "{row}: {here:?}\n{there:?}");
            assert_eq!(here.flags & CD, there.flags & CD, "{row}");
            assert_eq!(shape(&here.answers), shape(&there.answers), "{row}");
            let signed = |r: &&Record| dnssec_ok || !matches!(r.rtype, RRSIG | NSEC | NSEC3);
            assert_eq!(shape(&here.authority), shape(&there.authority), "{row}: {here:?}\n{there:?}");
            assert!(here.answers.iter().chain(&here.authority).all(|r| signed(&r)), "{row}: {here:?}");
            last = Some(there);
        }
    }
    last.expect("eight answers")
}

#[test]
fn a_validator_sees_behind_us_what_it_sees_behind_unbound() {
    compare(Kind::Unbound);
}

#[test]
fn a_validator_sees_behind_us_what_it_sees_behind_bind() {
    compare(Kind::Bind);
}

#[test]
fn a_validator_of_another_make_agrees() {
    let rows = [
        ("www.nsec.org", "A", "; fully validated"),
        ("www.nsec3.net", "A", "; fully validated"),
        ("missing.nsec.org", "A", "; negative response, fully validated"),
        ("missing.nsec3.net", "A", "; negative response, fully validated"),
        ("www.nsec.org", "MX", "; negative response, fully validated"),
        ("www.nsec3.net", "MX", "; negative response, fully validated"),
        ("one.wild.nsec.org", "A", "; fully validated"),
        ("one.wild.nsec3.net", "A", "; fully validated"),
        ("chain.nsec.org", "A", "; fully validated"),
        ("www.plain.org", "A", "; unsigned answer"),
        ("www.plain.net", "A", "; unsigned answer"),
        ("tampered.nsec.org", "A", "resolution failed"),
        ("www.forged.org", "A", "resolution failed"),
    ];
    agrees(Kind::Unbound, &rows);
}

#[test]
fn a_validator_of_another_make_sees_what_a_dname_makes() {
    let rows =
        [("www.below.nsec.org", "CNAME", "; fully validated"), ("none.below.nsec3.net", "CNAME", "; fully validated")];
    agrees(Kind::Bind, &rows);
}

/// BIND's own validator, through us and directly: name, type, what it says.
fn agrees(kind: Kind, rows: &[(&str, &str, &str)]) {
    let Some(net) = Net::start(kind, &Config::enforce()) else { return };
    let agent = &net.world.agents[0];
    for (name, qtype, says) in rows {
        let here = net.signed.delv(&agent.ns, agent.gateway, name, qtype);
        let there = net.signed.delv(&net.world.net, RESOLVER, name, qtype);
        assert!(there.contains(*says), "{name} {qtype} directly: {there}");
        assert!(here.contains(*says), "{name} {qtype}: {here}");
        // Owners have no letter case of their own with us.
        let lines = |text: &str, server: Ipv4Addr| {
            let text = text.to_lowercase().replace(&server.to_string(), "-");
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        assert_eq!(lines(&here, agent.gateway), lines(&there, RESOLVER), "{name} {qtype}");
    }
}

/// What the guard takes out of a service is taken out for a client that validates too, whatever its flags: that record is
/// then shown without signature and without AD, and to a validator it is bogus. The names beside it are as before.
#[test]
fn an_edited_service_is_not_signed_and_not_authentic() {
    let Some(net) = Net::start(Kind::Unbound, &Config::enforce()) else { return };
    let agent = &net.world.agents[0];
    for flags in [AD, CD, AD | CD] {
        let query = query("ech.nsec.org", rtype::HTTPS, true, flags);
        let (here, there) = (net.through(&query), net.directly(&query));
        assert!(there.answers.iter().any(|r| r.rtype == RRSIG), "{there:?}");
        assert_eq!(service_keys(&there), [1, 4, 5]);
        assert_eq!(service_keys(&here), [1], "flags {flags:04x}");
        assert_eq!((here.answers.len(), here.flags & AD), (1, 0), "flags {flags:04x}: {here:?}");
    }
    let _behind = net.signed.validator(&agent.ns, "behind", agent.gateway);
    let ask = |name, qtype| ask(&agent.ns, Ipv4Addr::LOCALHOST, VALIDATOR_PORT, &query(name, qtype, true, AD));
    assert_eq!(ask("ech.nsec.org", rtype::HTTPS).rcode(), rcode::SERVFAIL);
    assert_eq!(ask("svc.nsec.org", rtype::HTTPS).flags & AD, AD);
    assert_eq!(ask("www.nsec.org", rtype::A).flags & AD, AD);
}

#[test]
fn a_service_that_may_stay_as_it_is_stays_signed() {
    let config = Config::enforce().tables("[answer]\nstrip_ech = false\nstrip_hints = false\n");
    let Some(net) = Net::start(Kind::Unbound, &config) else { return };
    let query = query("ech.nsec.org", rtype::HTTPS, true, AD);
    let (here, there) = (net.through(&query), net.directly(&query));
    assert_eq!((here.flags & AD, there.flags & AD), (AD, AD), "{here:?}\n{there:?}");
    assert_eq!(shape(&here.answers), shape(&there.answers));
}

fn service_keys(reply: &Message) -> Vec<u16> {
    let service = reply.answers.iter().find(|r| r.rtype == rtype::HTTPS).expect("a service");
    world::dns::service_keys(&service.rdata)
}

/// A proof is part of one answer: the names in it answer no other question, and no answer is longer or lives longer for it
/// than it may.
#[test]
fn a_proof_stays_with_its_question() {
    let Some(net) = Net::start(Kind::Unbound, &Config::enforce()) else { return };
    let capture = Capture::start(&net.world.gw, OUTSIDE_INTERFACE);
    let proofs = |name: &str| {
        let reply = net.through(&query(name, rtype::A, true, 0));
        assert_eq!(reply.rcode(), rcode::NXDOMAIN, "{reply:?}");
        assert!(reply.authority.iter().all(|r| r.ttl <= 300), "RFC 9077: {reply:?}");
        reply.authority.into_iter().filter(|r| r.rtype == NSEC).map(|r| (r.name, r.rdata)).collect::<Vec<_>>()
    };
    // The same records deny both names, and yet the second question leaves.
    let first = proofs("missing.nsec.org");
    assert!(!first.is_empty());
    capture.forget();
    assert_eq!(proofs("missinh.nsec.org"), first);
    assert!(capture.ip_packets().len() >= 2, "answered from the proof of another name");
    capture.forget();
    assert_eq!(proofs("missing.nsec.org"), first);
    assert_eq!(capture.ip_packets().len(), 0, "the same question is answered from memory");

    // Without DO the same name is another question, and shows nothing of it.
    let plain = net.through(&query("missing.nsec.org", rtype::A, false, AD));
    assert_eq!(plain.authority.iter().map(|r| r.rtype).collect::<Vec<_>>(), [rtype::SOA]);
    assert_eq!(plain.flags & AD, AD, "the upstream's word, without the proof");

    // A datagram of 512 octets does not hold three RSA signatures: cut short, and whole over TCP.
    let mut small = query("missing.nsec.org", rtype::A, true, 0);
    small.payload = Some(512);
    let cut = net.world.agents[0].ask_raw(small.encode()).expect("an answer");
    assert!(cut.truncated() && cut.authority.is_empty() && cut.flags & AD == 0, "{cut:?}");
    assert_eq!(net.through(&small).authority.iter().filter(|r| r.rtype == NSEC).count(), first.len());

    // Nothing that stands in a proof is opened.
    let opened = net.world.gw.sh("nft list ruleset");
    let opened = String::from_utf8_lossy(&opened.stdout).into_owned();
    assert!(opened.contains("table inet staunch") && !opened.contains("203.0.113.1"), "{opened}");
}

#[test]
fn options_of_the_upstream_do_not_reach_the_client() {
    let Some(world) = World::create(1) else { return };
    hostile::serve(&world, "options.example");
    let _staunch = Staunch::start(&world, &Config::enforce().allow_exact("work", ["www.options.example"]));
    let agent = &world.agents[0];
    let every = hostile::OPTIONS.iter().fold(query("www.options.example", rtype::A, true, AD), |query, code| {
        // Only what is well formed as a query, so that it is not the query that is refused.
        if [8, 10, 11, 12].contains(code) { query } else { query.option(*code, b"") }
    });
    let with_subnet = every.clone().option(8, &[0, 1, 24, 0, 203, 0, 113]).option(10, &[7; 8]).option(12, &[0; 9]);
    for (what, query) in [
        ("DO", query("www.options.example", rtype::A, true, AD)),
        ("no DO", query("www.options.example", rtype::A, false, AD | CD)),
        ("asked for", every),
        ("asked for with data", with_subnet),
    ] {
        for tcp in [false, true] {
            let reply = if tcp { agent.ask_tcp(query.encode()) } else { agent.ask_raw(query.encode()) };
            let reply = reply.expect("an answer");
            assert_eq!((reply.addresses(), reply.flags & AD), (vec![world::WEB.into()], AD), "{what}: {reply:?}");
            assert_eq!((reply.additional.len(), reply.trailing), (1, 0), "{what}");
            let opt = reply.opt().expect("our own OPT");
            assert_eq!((opt.class, opt.ttl & !0x8000), (1232, 0), "{what}: {opt:?}");
            // A cookie of ours for the client's own, and nothing else.
            let ours = query.options.iter().any(|(code, _)| *code == 10);
            let options = reply.options();
            assert_eq!(options.len(), usize::from(ours), "{what}: {opt:?}");
            assert!(
                options.iter().all(|(code, data)| *code == 10 && data.len() == 24 && data[..8] == [7; 8]),
                "{what}"
            );
        }
    }
    let mut plain = Query::new("www.options.example", rtype::A);
    plain.flags |= AD;
    let reply = agent.ask_raw(plain.encode()).expect("an answer");
    assert_eq!((reply.additional.len(), reply.flags & AD), (0, AD), "no EDNS to one who has none: {reply:?}");
    assert_eq!(agent.ask("www.options.example", rtype::A).expect("an answer").flags & AD, 0, "not asked for");
}

/// RFC 1035 section 2.3.4: 255 octets, by labels of 63 octets and by labels of one.
#[test]
fn the_longest_names_go_through_cache_and_event() {
    let Some(world) = World::create(1) else { return };
    let asked = hostile::serve(&world, "long.example");
    // 14 octets of zone with its root leave 241.
    let wide = format!("{}.{}.{}.{}.long.example", "a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(48));
    let deep = format!("{}bb.long.example", "a.".repeat(119));
    let names = [wide, deep];
    assert!(names.iter().all(|name| name.len() == 253), "{:?}", names.each_ref().map(String::len));
    let staunch = Staunch::start(&world, &Config::enforce().allow_exact("work", &names));
    let agent = &world.agents[0];
    for (i, name) in names.iter().enumerate() {
        for (turn, spelled) in [name.clone(), name.to_uppercase(), name.clone()].into_iter().enumerate() {
            let query = query(&spelled, rtype::A, true, AD);
            let reply = if turn == 2 { agent.ask_tcp(query.encode()) } else { agent.ask_raw(query.encode()) };
            let reply = reply.expect("an answer");
            assert_eq!(reply.name, spelled);
            assert_eq!(reply.addresses(), [world::WEB], "{spelled}: {reply:?}");
            assert_eq!(asked.load(Ordering::Relaxed), i + 1, "asked again instead of remembered");
        }
        let longer = agent.ask_raw(query(&format!("x.{name}"), rtype::A, false, 0).encode());
        assert!(longer.is_err() || longer.is_ok_and(|r| r.rcode() == rcode::FORMERR), "257 octets");
    }
    let seen: Vec<String> = world.upstream.seen_below("long.example").into_iter().map(|q| q.name).collect();
    assert_eq!(seen, names);
    world::wait_for(Duration::from_secs(10), || {
        let events = staunch.events();
        let of = |name: &String| events.iter().filter(|e| e["qname"] == name.as_str()).count();
        names.iter().all(|name| of(name) == 3).then_some(())
    })
    .unwrap_or_else(|| panic!("three events of each name: {:?}", staunch.events()));
}
