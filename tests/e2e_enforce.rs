//! The packet filter holds exactly what was answered, for that session, for a while; a quarantine ends it at once.

mod world;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use world::dns::{Data, Query, rcode, rtype, service_keys};
use world::staunch::{Config, Staunch};
use world::{Agent, GATEWAY_OUTSIDE, WEB, WEB6, World, web};

/// A dial that is refused, and not dropped, ends before its first packet would have been sent once more, which is after a second.
const AT_ONCE: Duration = Duration::from_millis(900);

/// Whether the kernel holds a pin of this sandbox for this address.
fn pinned(world: &World, session: IpAddr, to: IpAddr) -> bool {
    let output = world.gw.sh("nft list ruleset");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("staunch"), "no table: {text}");
    let wanted = format!("{session} . {to} ");
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace(',', " ,").contains(&wanted)
}

fn refused_at_once(agent: &Agent, to: IpAddr, what: &str) {
    let (end, took) = agent.dial(to, 80);
    println!("FIGURE: {what}: dial of {to} ended after {:.1} ms: {end:?}", took.as_secs_f32() * 1000.0);
    assert!(end.is_err(), "{what}: {to} was reached");
    assert!(took < AT_ONCE, "{what}: took {took:?}");
}

fn resolve(agent: &Agent, name: &str, qtype: u16) -> Vec<IpAddr> {
    agent.ask(name, qtype).unwrap_or_else(|e| panic!("{name}: {e}")).addresses()
}

#[test]
fn only_an_answered_address_can_be_dialled_and_only_by_the_session_that_asked() {
    let Some(world) = World::create(2) else { return };
    let staunch = Staunch::start(&world, &Config::enforce());
    let [one, two] = &world.agents[..] else { unreachable!("two sandboxes were made") };
    for (qtype, to) in [(rtype::A, IpAddr::from(WEB)), (rtype::AAAA, IpAddr::from(WEB6))] {
        refused_at_once(one, to, "an address never answered");
        assert_eq!(resolve(one, "www.site.example", qtype), [to]);
        assert!(one.dial(to, 80).0.is_ok(), "the answered address connects\n{}", staunch.tail());
        refused_at_once(two, to, "another session's pin");
        assert_eq!(resolve(two, "www.site.example", qtype), [to]);
        assert!(two.dial(to, 80).0.is_ok(), "its own pin connects, from the cached answer too");
    }
    let session = IpAddr::from(one.address);
    assert!(pinned(&world, session, WEB.into()), "and the kernel shows the pin");
    assert!(!pinned(&world, session, Ipv4Addr::new(203, 0, 113, 11).into()));
}

#[test]
fn a_pin_outlives_the_answer_and_then_closes() {
    let Some(world) = World::create(1) else { return };
    let short = Ipv4Addr::new(203, 0, 113, 77);
    world.upstream.add("short.site.example", 1, Data::A(short));
    let mut config = Config::enforce();
    config.enforce = "min_pin_seconds = 2\npin_grace_seconds = 1\nmax_pin_seconds = 10".into();
    let staunch = Staunch::start(&world, &config);
    let agent = &world.agents[0];
    let asked = Instant::now();
    let reply = agent.ask("short.site.example", rtype::A).expect("an answer");
    assert_eq!(reply.addresses(), [short]);
    let shown = Duration::from_secs(reply.answers[0].ttl.into());
    // The last moment in which a stub that honours the TTL may dial.
    std::thread::sleep(shown.saturating_sub(asked.elapsed()));
    assert!(agent.dial(short.into(), 80).0.is_ok(), "good for as long as the answer said\n{}", staunch.tail());
    let closed = world::wait_for(Duration::from_secs(10), || agent.dial(short.into(), 80).0.is_err().then_some(()));
    assert!(closed.is_some(), "the pin never closed");
    println!("FIGURE: TTL shown {} s, closed {:.1} s after the answer", shown.as_secs(), asked.elapsed().as_secs_f32());
    refused_at_once(agent, short.into(), "an expired pin");
    assert_eq!(resolve(agent, "short.site.example", rtype::A), [short]);
    assert!(agent.dial(short.into(), 80).0.is_ok(), "asking again opens it again");
}

#[test]
fn rebinding_answers_are_neither_shown_nor_pinned() {
    let Some(world) = World::create(1) else { return };
    let agent = &world.agents[0];
    let own = [IpAddr::from(GATEWAY_OUTSIDE), agent.gateway.into(), "fd77:1::1".parse().expect("an address")];
    let addresses = [
        "127.0.0.1",
        "127.53.53.53",
        "0.0.0.0",
        "169.254.169.254",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.0.1",
        "100.64.0.1",
        "192.0.0.192",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "fc00::1",
        "fd00::1",
        "ff02::1",
        "::ffff:10.0.0.1",
        "::ffff:127.0.0.1",
        "::10.0.0.1",
        "64:ff9b::a00:1",
        "64:ff9b:1::1",
        "64:ff9b:1::a00:1",
        "2002:a00:1::1",
        "2001:db8:ffff::1",
    ];
    let cases: Vec<(String, IpAddr)> = addresses
        .iter()
        .map(|a| a.parse().expect("an address"))
        .chain(own)
        .enumerate()
        .map(|(i, address)| (format!("r{i}.rebind.example"), address))
        .collect();
    for (name, address) in &cases {
        world.upstream.add_site(name, *address);
    }
    let inside = Ipv4Addr::new(10, 20, 0, 5);
    let upstream = &world.upstream;
    upstream.add_site("both.rebind.example", WEB.into());
    upstream.add_site("both.rebind.example", inside.into());
    upstream.add("alias.rebind.example", 60, Data::Cname("db.corp.internal".into()));
    upstream.add_site("db.corp.internal", inside.into());
    upstream.add_site("wiki.corp.example", inside.into());
    let hints = vec![
        (1, b"\x02h2".to_vec()),
        (4, Ipv4Addr::new(10, 20, 0, 6).octets().to_vec()),
        (5, b"an ech config".to_vec()),
        (6, std::net::Ipv6Addr::LOCALHOST.octets().to_vec()),
    ];
    upstream.add("hints.rebind.example", 60, Data::Https(1, ".".into(), hints.clone()));
    let public_hint = vec![(1, b"\x02h2".to_vec()), (4, Ipv4Addr::new(203, 0, 113, 99).octets().to_vec())];
    upstream.add("hint2.rebind.example", 60, Data::Https(1, ".".into(), public_hint));

    let names = cases.iter().map(|(name, _)| name.as_str()).chain([
        "both.rebind.example",
        "alias.rebind.example",
        "hints.rebind.example",
        "hint2.rebind.example",
        "www.site.example",
        "wiki.corp.example",
    ]);
    let config = Config::enforce().allow_exact("all", names).tables(
        "[[answer.allow_range]]\nname = \"*.corp.example\"\nranges = [\"10.20.0.0/16\"]\nowner = \"tests\"\n\
         reason = \"internal wiki\"\nreview_by = \"2099-01-01\"\n",
    );
    let staunch = Staunch::start(&world, &config);

    let mut faults = Vec::new();
    for (name, address) in &cases {
        let qtype = if address.is_ipv4() { rtype::A } else { rtype::AAAA };
        let shown = resolve(agent, name, qtype);
        if shown.contains(address) {
            faults.push(format!("{address} is shown"));
        }
        let session = if address.is_ipv4() { agent.address.into() } else { IpAddr::from(agent.address6) };
        if pinned(&world, session, *address) {
            faults.push(format!("{address} is pinned"));
        }
    }
    assert!(faults.is_empty(), "{faults:#?}\n{}", staunch.tail());
    println!("FIGURE: {} rebinding answers, 0 shown, 0 pinned", cases.len());
    for to in ["10.0.0.1", "169.254.169.254", "100.64.0.1", "192.0.0.192"] {
        refused_at_once(agent, to.parse().expect("an address"), "a rebinding answer's address");
    }

    let session = IpAddr::from(agent.address);
    assert!(!resolve(agent, "both.rebind.example", rtype::A).contains(&inside.into()), "beside a public one");
    assert!(!resolve(agent, "alias.rebind.example", rtype::A).contains(&inside.into()), "behind an alias");
    assert!(!pinned(&world, session, inside.into()));
    refused_at_once(agent, inside.into(), "an internal address behind an alias");
    for name in ["hints.rebind.example", "hint2.rebind.example"] {
        let reply = agent.ask(name, rtype::HTTPS).expect("an answer");
        let records: Vec<_> = reply.answers.iter().filter(|r| r.rtype == rtype::HTTPS).collect();
        assert_eq!(records.len(), 1, "the record itself is kept: {reply:?}");
        assert_eq!(service_keys(&records[0].rdata), [1], "of its parameters the protocol list alone");
    }
    assert!(!pinned(&world, session, Ipv4Addr::new(10, 20, 0, 6).into()));
    assert!(!pinned(&world, session, Ipv4Addr::new(203, 0, 113, 99).into()), "hints are not answers");

    // Controls: a public answer, and an internal one that policy names together with its range.
    assert_eq!(resolve(agent, "www.site.example", rtype::A), [IpAddr::from(WEB)]);
    assert!(pinned(&world, session, WEB.into()));
    assert_eq!(resolve(agent, "wiki.corp.example", rtype::A), [IpAddr::from(inside)]);
    assert!(agent.dial(inside.into(), 80).0.is_ok(), "the named range connects");
}

#[test]
fn block_list_answers_are_shown_where_policy_names_the_zone_and_never_pinned() {
    let Some(world) = World::create(1) else { return };
    let listed = Ipv4Addr::new(127, 0, 0, 2);
    for zone in ["dnsbl.example", "other-dnsbl.example"] {
        world.upstream.add(&format!("*.{zone}"), 60, Data::A(listed));
    }
    let config =
        Config::enforce().rule("block-lists", "allow", "\"*.dnsbl.example\", \"*.other-dnsbl.example\"", "").tables(
            "[[answer.show_loopback]]\nzone = \"dnsbl.example\"\nowner = \"mail-team\"\n\
                 reason = \"block-list answers are 127/8\"\nreview_by = \"2099-01-01\"\n",
        );
    let _staunch = Staunch::start(&world, &config);
    let agent = &world.agents[0];
    assert_eq!(resolve(agent, "7.113.0.203.dnsbl.example", rtype::A), [IpAddr::from(listed)]);
    assert_eq!(resolve(agent, "7.113.0.203.other-dnsbl.example", rtype::A), [] as [IpAddr; 0], "not named by policy");
    assert!(!pinned(&world, agent.address.into(), listed.into()));
}

#[test]
fn a_quarantine_cuts_a_running_download_within_a_second() {
    let Some(world) = World::create(2) else { return };
    let staunch = Staunch::start(&world, &Config::enforce());
    let downloads: Vec<_> = world
        .agents
        .iter()
        .map(|agent| {
            assert_eq!(resolve(agent, "www.site.example", rtype::A), [IpAddr::from(WEB)]);
            let (tell, told) = std::sync::mpsc::channel();
            agent.ns.spawn(async move {
                let stream = tokio::net::TcpStream::connect(SocketAddr::from((WEB, 80))).await;
                let Ok(mut stream) = stream else { return };
                let _ = stream.write_all(b"GET /endless HTTP/1.1\r\nHost: www.site.example\r\n\r\n").await;
                let mut buffer = [0; 4096];
                while let Ok(n @ 1..) = stream.read(&mut buffer).await {
                    if tell.send((Instant::now(), n)).is_err() {
                        return;
                    }
                }
            });
            told
        })
        .collect();
    for told in &downloads {
        let mut pieces = 0;
        let runs = world::wait_for(Duration::from_secs(10), || {
            pieces += told.try_iter().count();
            (pieces > 5).then_some(())
        });
        assert!(runs.is_some(), "the download runs");
    }

    let before = Instant::now();
    staunch.run_ok(&["session", "quarantine", "agent-1", "--reason", "a test"]);
    let ordered = Instant::now();
    std::thread::sleep(Duration::from_millis(2500));
    let last = downloads[0].try_iter().map(|(at, _)| at).last();
    let after = last.map_or(Duration::ZERO, |at| at.saturating_duration_since(ordered));
    println!(
        "FIGURE: quarantine took {:.0} ms to order; last octet {:.0} ms behind it",
        (ordered - before).as_secs_f32() * 1000.0,
        after.as_secs_f32() * 1000.0
    );
    assert!(after < Duration::from_secs(1), "octets arrived {after:?} after the quarantine");
    downloads[1].try_iter().for_each(drop);
    let other = world::wait_for(Duration::from_secs(10), || downloads[1].try_iter().next());
    assert!(other.is_some(), "the other session's download runs on");

    assert_eq!(staunch.session_state("agent-1"), "quarantined");
    let reply = world.agents[0].ask_edns("www.site.example", rtype::A).expect("a refusal");
    assert_eq!((reply.rcode(), reply.answers.len()), (rcode::NXDOMAIN, 0));
    refused_at_once(&world.agents[0], WEB.into(), "a quarantined session");

    staunch.run_ok(&["session", "release", "agent-1", "--by", "tester", "--reason", "a test"]);
    refused_at_once(&world.agents[0], WEB.into(), "released, but pins stay gone");
    assert_eq!(resolve(&world.agents[0], "www.site.example", rtype::A), [IpAddr::from(WEB)]);
    let page = world.agents[0].ns.run(async { web::fetch((WEB, 80).into(), "www.site.example", "/").await });
    assert!(page.is_ok(), "released and asked again: it works");
}

#[test]
fn an_answer_in_flight_at_quarantine_is_not_released_and_not_pinned() {
    let Some(world) = World::create(2) else { return };
    let slow = Ipv4Addr::new(203, 0, 113, 88);
    world.upstream.add_site("slow.site.example", slow.into());
    // As long as the operator's word may take on a busy machine, and shorter than an exchange.
    world.upstream.delay("slow.site.example", Duration::from_millis(1800));
    let staunch = Staunch::start(&world, &Config::enforce());
    let [one, two] = &world.agents[..] else { unreachable!("two sandboxes were made") };

    let (reply, sent) = std::thread::scope(|scope| {
        let asking = scope.spawn(|| one.ask_raw(Query::new("slow.site.example", rtype::A).edns(1232).encode()));
        let sent = world::wait_for(Duration::from_secs(5), || {
            (!world.upstream.seen_below("slow.site.example").is_empty()).then(Instant::now)
        });
        staunch.run_ok(&["session", "quarantine", "agent-1", "--reason", "a test"]);
        (asking.join().expect("the query ends"), sent.expect("the query is at the upstream"))
    });
    println!(
        "FIGURE: quarantined while the answer was out; reply after {:.0} ms",
        sent.elapsed().as_secs_f32() * 1000.0
    );
    if let Ok(reply) = reply {
        assert_eq!(reply.addresses(), [] as [IpAddr; 0], "the answer was released");
        assert_eq!(reply.rcode(), rcode::NXDOMAIN, "{:?}", reply.errors());
    }
    std::thread::sleep(Duration::from_millis(2000).saturating_sub(sent.elapsed()));
    assert!(!pinned(&world, one.address.into(), slow.into()));
    refused_at_once(one, slow.into(), "an answer that came too late");

    assert_eq!(resolve(two, "slow.site.example", rtype::A), [IpAddr::from(slow)], "the control session gets it");
    assert!(pinned(&world, two.address.into(), slow.into()));
    assert!(two.dial(slow.into(), 80).0.is_ok());
}
