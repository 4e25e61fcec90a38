//! Decoys on the wire: below a wildcard nothing of a suspicious name reaches the zone's server and the answer is the
//! wildcard's all the same, pinned; everywhere else names resolve as they would without decoys.

mod world;

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use world::dns::{Data, Message, Query, rcode, rtype};
use world::staunch::{Config, Staunch};
use world::upstream::Seen;
use world::{Chance, WEB, World, wait_for};

/// Octets in a sibling's label, as documented.
const SIBLING: usize = 14;

fn text(event: &serde_json::Value, field: &str) -> String {
    event[field].as_str().unwrap_or_default().to_owned()
}

/// What an event says of a name: verdict, source, finding.
fn told(staunch: &Staunch, name: &str, qtype: &str) -> (String, String, String) {
    let of = || {
        let events = staunch.events();
        events.iter().rev().find(|e| e["qname"] == *name && e["qtype"] == *qtype).cloned()
    };
    let event = wait_for(Duration::from_secs(10), of).unwrap_or_else(|| panic!("no event of {name} {qtype}"));
    (text(&event, "verdict"), text(&event, "source"), text(&event, "decoy"))
}

fn label_of(seen: &Seen) -> String {
    seen.name.split('.').next().unwrap_or_default().to_ascii_lowercase()
}

fn is_sibling(seen: &Seen, zone: &str) -> bool {
    seen.name.to_ascii_lowercase() == format!("{}.{zone}", label_of(seen)) && label_of(seen).len() == SIBLING
}

fn bits(staunch: &Staunch, session: &str) -> f64 {
    staunch.json(&["session", "show", session])["ledger"]["total_bits"].as_f64().expect("bits")
}

#[test]
fn below_a_wildcard_the_name_stays_inside() {
    let Some(world) = World::create(1) else { return };
    let zone = "wild.example";
    world.upstream.add("*.wild.example", 300, Data::A(WEB));
    let staunch = Staunch::start(&world, &Config::enforce());
    let agent = &world.agents[0];
    let mut chance = Chance(7);
    let payloads: Vec<String> = (0..10).map(|i| chance.label(36 + 2 * i)).collect();
    for (i, payload) in payloads.iter().enumerate() {
        let name = format!("{payload}.{zone}");
        let reply = agent.ask(&name, rtype::A).expect("an answer");
        assert_eq!(reply.addresses(), [WEB], "{reply:?}\n{}", staunch.tail());
        assert_eq!((reply.name.as_str(), reply.answers[0].name.as_str()), (name.as_str(), name.as_str()));
        assert!(reply.answers[0].ttl <= 300);
        if i == 0 {
            assert!(agent.dial(WEB.into(), 80).0.is_ok(), "the address is pinned");
        }
        // No address of that family below the wildcard: the same for every name, so nothing has to be asked again.
        let other = agent.ask(&name, rtype::AAAA).expect("an answer");
        assert_eq!((other.rcode(), other.answers.len()), (rcode::NOERROR, 0), "{other:?}");
        for qtype in ["A", "AAAA"] {
            let expected = ("answer".into(), "decoy".into(), "wildcard".into());
            assert_eq!(told(&staunch, &name, qtype), expected, "{qtype} {i}");
        }
    }
    let seen = world.upstream.seen_below(zone);
    let spent = bits(&staunch, "agent-1");
    println!("FIGURE: 10 names, 20 queries: {} at the authority, {spent:.0} bits charged", seen.len());
    assert!(seen.iter().all(|q| is_sibling(q, zone)), "{:?}", seen.iter().map(|q| &q.name).collect::<Vec<_>>());
    assert!(seen.iter().all(|q| !payloads.contains(&label_of(q))));
    let labels: HashSet<String> = seen.iter().map(label_of).collect();
    assert_eq!((seen.len(), labels.len()), (3, 3), "two siblings for A, one for AAAA, each random");
    assert!(spent < 100.0, "{spent} bits for what ten names of 36 characters and more would have told");
    assert_ne!(staunch.session_state("agent-1"), "quarantined");

    // The finding serves a name a second time.
    let again = agent.ask(&format!("{}.{zone}", payloads[0]), rtype::A).expect("an answer");
    assert_eq!(again.addresses(), [WEB]);
    assert_eq!(world.upstream.seen_below(zone).len(), 3);
    assert!(agent.dial(WEB.into(), 80).0.is_ok(), "the address is pinned");
}

#[test]
fn a_wildcard_alias_is_one_however_its_server_spells_it() {
    let Some(world) = World::create(1) else { return };
    let zone = "alias.example";
    let server = SocketAddr::from((Ipv4Addr::new(203, 0, 113, 80), 53));
    serve_alias(&world, server);
    world.upstream.delegate(zone, server);
    let staunch = Staunch::start(&world, &Config::enforce());
    let name = format!("{}.{zone}", Chance(41).label(40));
    let reply = world.agents[0].ask(&name, rtype::A).expect("an answer");
    assert_eq!(reply.addresses(), [WEB], "{reply:?}\n{}", staunch.tail());
    assert_eq!(told(&staunch, &name, "A"), ("answer".into(), "decoy".into(), "wildcard".into()));
    assert_eq!(reply.answers[1].name, "edge.alias.example", "no letter case of ours is shown");
    let seen = world.upstream.seen_below(zone);
    assert!(seen.iter().all(|q| is_sibling(q, zone)), "{seen:?}");
}

#[test]
fn what_siblings_get_is_no_answer_for_a_session_that_may_ask() {
    let Some(world) = World::create(2) else { return };
    let name = format!("{}.wild.example", Chance(29).label(40));
    let own = Ipv4Addr::new(203, 0, 113, 99);
    world.upstream.add("*.wild.example", 300, Data::A(WEB));
    world.upstream.add(&name, 300, Data::A(own));
    let staunch = Staunch::start(&world, &Config::enforce());
    let form = format!("={name}");
    let reason = ["--reason", "a test", "--owner", "jane", "--session", "agent-2"];
    staunch.json(&[&["allow", &form, "--for", "5m"][..], &reason].concat());
    assert_eq!(world.agents[0].ask(&name, rtype::A).expect("an answer").addresses(), [WEB], "{}", staunch.tail());
    assert_eq!(world.agents[1].ask(&name, rtype::A).expect("an answer").addresses(), [own], "{}", staunch.tail());
    assert_eq!(world.upstream.seen().iter().filter(|q| q.name.eq_ignore_ascii_case(&name)).count(), 1);
}

#[test]
fn where_there_is_no_wildcard_a_name_resolves_as_before() {
    let Some(world) = World::create(1) else { return };
    let zone = "plain.example";
    let mut chance = Chance(11);
    let name = format!("{}.{zone}", chance.label(40));
    world.upstream.add_site(&name, WEB.into());
    let staunch = Staunch::start(&world, &Config::enforce());
    let agent = &world.agents[0];
    assert_eq!(agent.ask(&name, rtype::A).expect("an answer").addresses(), [WEB], "{}", staunch.tail());
    assert_eq!(told(&staunch, &name, "A"), ("answer".into(), "upstream".into(), "plain".into()));
    assert!(bits(&staunch, "agent-1") > 150.0, "a name that left is charged in full");
    // It is known outside now, so its other types are not worth a sibling.
    agent.ask(&name, rtype::AAAA).expect("an answer");
    assert_eq!(told(&staunch, &name, "AAAA"), ("answer".into(), "upstream".into(), String::new()));
    let seen = world.upstream.seen_below(zone);
    let siblings = seen.iter().filter(|q| is_sibling(q, zone)).count();
    assert_eq!((siblings, seen.len()), (1, 3), "one sibling, then the name itself, twice");
}

#[test]
fn both_families_asked_at_once_stay_inside() {
    let Some(world) = World::create(1) else { return };
    let zone = "both.example";
    world.upstream.add("*.both.example", 300, Data::A(WEB));
    let staunch = Staunch::start(&world, &Config::enforce());
    let agent = &world.agents[0];
    let name = format!("{}.{zone}", Chance(23).label(40));
    std::thread::scope(|scope| {
        let other = scope.spawn(|| agent.ask(&name, rtype::AAAA).expect("an answer"));
        assert_eq!(agent.ask(&name, rtype::A).expect("an answer").addresses(), [WEB]);
        assert_eq!(other.join().expect("no panic").rcode(), rcode::NOERROR);
    });
    let seen = world.upstream.seen_below(zone);
    assert!(seen.iter().all(|q| is_sibling(q, zone)), "{:?}\n{}", seen, staunch.tail());
    assert_eq!(seen.len(), 3, "whoever came second waited for what the first one found");
}

#[test]
fn a_server_that_makes_answers_from_names_is_told_apart() {
    let Some(world) = World::create(1) else { return };
    let zone = "maker.example";
    let server = SocketAddr::from((Ipv4Addr::new(203, 0, 113, 77), 53));
    serve_made(&world, server);
    world.upstream.delegate(zone, server);
    let staunch = Staunch::start(&world, &Config::enforce());
    let name = format!("{}.{zone}", Chance(13).label(40));
    let reply = world.agents[0].ask(&name, rtype::A).expect("an answer");
    assert_eq!(reply.addresses(), [made(&name)], "{}", staunch.tail());
    assert_eq!(told(&staunch, &name, "A"), ("answer".into(), "upstream".into(), "differs".into()));
    let seen = world.upstream.seen_below(zone);
    assert_eq!(seen.iter().filter(|q| is_sibling(q, zone)).count(), 2);
    assert_eq!(seen.len(), 3, "two siblings, then the name itself");
}

#[test]
fn rules_dnssec_and_monitor_mode_know_no_decoys() {
    let Some(world) = World::create(1) else { return };
    world.upstream.add("*.wild.example", 300, Data::A(WEB));
    world.upstream.add("*.ruled.example", 300, Data::A(WEB));
    let mut chance = Chance(17);
    let exact = format!("{}.wild.example", chance.label(40));
    let agent = &world.agents[0];
    let config = || {
        Config::enforce().allow_exact("exact", [&exact]).rule(
            "below",
            "allow",
            "\"*.ruled.example\"",
            "budget_bits = 4096",
        )
    };
    {
        let _staunch = Staunch::start(&world, &config());
        let below = format!("{}.ruled.example", chance.label(40));
        let validated = format!("{}.wild.example", chance.label(40));
        for name in [&exact, &below] {
            assert_eq!(agent.ask(name, rtype::A).expect("an answer").addresses(), [WEB]);
        }
        let mut query = Query::new(&validated, rtype::A).edns(1232);
        query.dnssec_ok = true;
        assert_eq!(agent.ask_raw(query.encode()).expect("an answer").addresses(), [WEB]);
        let seen: Vec<String> = world.upstream.seen().into_iter().map(|q| q.name.to_ascii_lowercase()).collect();
        assert_eq!(seen, [exact.clone(), below, validated], "each itself and nothing else");
    }
    world.upstream.forget();
    let staunch = Staunch::start(&world, &Config::monitor());
    let name = format!("{}.wild.example", chance.label(40));
    assert_eq!(agent.ask(&name, rtype::A).expect("an answer").addresses(), [WEB]);
    assert_eq!(told(&staunch, &name, "A"), ("answer".into(), "upstream".into(), String::new()));
    assert_eq!(world.upstream.seen().len(), 1, "monitor mode changes nothing of what leaves");
}

#[test]
fn a_silent_zone_delays_a_name_once_and_loses_nothing() {
    let Some(world) = World::create(1) else { return };
    let zone = "slow.example";
    let name = format!("{}.{zone}", Chance(19).label(40));
    // Nobody is there: the siblings are not answered, nor is the name.
    world.upstream.delegate(zone, SocketAddr::from((Ipv4Addr::new(203, 0, 113, 78), 53)));
    let staunch = Staunch::start(&world, &Config::enforce());
    let query = Query::new(&name, rtype::A).edns(1232).encode();
    let reply = world.agents[0].ask_raw(query).expect("SERVFAIL in time");
    assert_eq!(reply.rcode(), rcode::SERVFAIL, "{reply:?}");
    assert_eq!(told(&staunch, &name, "A"), ("answer".into(), "failed".into(), "failed".into()));
}

#[test]
fn a_session_that_is_closed_meanwhile_sends_no_second_sibling() {
    let Some(world) = World::create(1) else { return };
    let zone = "late.example";
    let server = SocketAddr::from((Ipv4Addr::new(203, 0, 113, 79), 53));
    serve_late(&world, server, Duration::from_millis(800));
    world.upstream.delegate(zone, server);
    let staunch = Staunch::start(&world, &Config::enforce());
    let name = format!("{}.{zone}", Chance(31).label(40));
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| world.agents[0].ask(&name, rtype::A).expect("a refusal"));
        let first = wait_for(Duration::from_secs(5), || world.upstream.seen_below(zone).pop());
        assert!(first.is_some_and(|first| is_sibling(&first, zone)));
        staunch.json(&["session", "quarantine", "agent-1", "--reason", "test"]);
        assert_eq!(asking.join().expect("no panic").rcode(), rcode::NXDOMAIN);
    });
    assert_eq!(world.upstream.seen_below(zone).len(), 1, "{}", staunch.tail());
}

#[test]
fn a_slow_search_is_given_up_and_the_name_goes_its_way() {
    let Some(world) = World::create(1) else { return };
    let zone = "late.example";
    let server = SocketAddr::from((Ipv4Addr::new(203, 0, 113, 79), 53));
    // One sibling by AAAA and two by A: more than a name waits.
    serve_late(&world, server, Duration::from_millis(850));
    world.upstream.delegate(zone, server);
    let staunch = Staunch::start(&world, &Config::enforce());
    let name = format!("{}.{zone}", Chance(37).label(40));
    let query = Query::new(&name, rtype::AAAA).edns(1232).encode();
    assert_eq!(world.agents[0].ask_raw(query).expect("an answer").rcode(), rcode::NOERROR, "{}", staunch.tail());
    assert_eq!(told(&staunch, &name, "AAAA"), ("answer".into(), "upstream".into(), "failed".into()));
}

/// An address made from a name, as a server that talks in answers would.
fn made(name: &str) -> IpAddr {
    let sum = name.to_ascii_lowercase().bytes().fold(7u32, |sum, b| sum.wrapping_mul(31).wrapping_add(b.into()));
    Ipv4Addr::new(198, 51, 100, (sum % 250) as u8 + 1).into()
}

/// Serves one address for every name of type A and nothing for other types, each so much later.
fn serve_late(world: &World, address: SocketAddr, late: Duration) {
    let socket = world.net.run(async move { tokio::net::UdpSocket::bind(address).await.expect("a free port") });
    let socket = std::sync::Arc::new(socket);
    world.net.spawn(async move {
        let mut buffer = [0; 4096];
        while let Ok((n, from)) = socket.recv_from(&mut buffer).await {
            let Some((_, end)) = world::dns::read_name(&buffer[..n], 12) else { continue };
            let mut reply = buffer[..end + 4].to_vec();
            let has = reply[end + 1] == rtype::A as u8;
            reply[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, u8::from(has), 0, 0, 0, 0]);
            if has {
                reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 44, 0, 4]);
                reply.extend(WEB.octets());
            }
            let socket = socket.clone();
            tokio::spawn(async move {
                tokio::time::sleep(late).await;
                let _ = socket.send_to(&reply, from).await;
            });
        }
    });
}

/// Serves an alias to `edge` beside every name of type A, and its address, both names as pointers to the question's zone.
fn serve_alias(world: &World, address: SocketAddr) {
    let socket = world.net.run(async move { tokio::net::UdpSocket::bind(address).await.expect("a free port") });
    world.net.spawn(async move {
        let mut buffer = [0; 4096];
        while let Ok((n, from)) = socket.recv_from(&mut buffer).await {
            let Some((_, end)) = world::dns::read_name(&buffer[..n], 12) else { continue };
            let mut reply = buffer[..end + 4].to_vec();
            let has = reply[end + 1] == rtype::A as u8;
            reply[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 2 * u8::from(has), 0, 0, 0, 0]);
            if has {
                let zone = 13 + reply[12];
                for (owner, rtype, data) in [
                    (&[0xc0, 12][..], 5, &[4, b'e', b'd', b'g', b'e', 0xc0, zone][..]),
                    (&[4, b'e', b'd', b'g', b'e', 0xc0, zone], 1, &WEB.octets()),
                ] {
                    reply.extend(owner);
                    reply.extend([0, rtype, 0, 1, 0, 0, 1, 44, 0, data.len() as u8]);
                    reply.extend(data);
                }
            }
            let _ = socket.send_to(&reply, from).await;
        }
    });
}

/// Serves [`made`] for every name of type A.
fn serve_made(world: &World, address: SocketAddr) {
    let socket = world.net.run(async move { tokio::net::UdpSocket::bind(address).await.expect("a free port") });
    world.net.spawn(async move {
        let mut buffer = [0; 4096];
        while let Ok((n, from)) = socket.recv_from(&mut buffer).await {
            let Some(query) = Message::decode(&buffer[..n]) else { continue };
            let Some((_, end)) = world::dns::read_name(&buffer[..n], 12) else { continue };
            let mut reply = buffer[..end + 4].to_vec();
            reply[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
            reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
            reply.extend(Data::from(made(&query.name)).encode());
            let _ = socket.send_to(&reply, from).await;
        }
    });
}
