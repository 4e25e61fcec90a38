//! The small internet itself, with a plain forwarder where the resolver will stand: what the other tests see refused
//! does work here, so a refusal there is the resolver's doing.

mod world;

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use world::dns::{Data, Message, Query, rcode, rtype};
use world::web::{self, Health, Soc};
use world::{SOC, WEB, WEB6, World, capture::Capture, relay, tunnel};

#[test]
fn every_tunnel_moves_the_file_through_a_plain_forwarder() {
    let Some(world) = World::create(tunnel::ALL.len() as u8) else { return };
    relay::start(&world);
    for outcome in tunnel::attempt(&world, &tunnel::ALL, Duration::from_secs(60)) {
        let (names, octets) = world.upstream.leaked(&outcome.domain);
        println!(
            "FIGURE: {:?} through a plain forwarder: {} of {} octets in {:.1} s, {names} names, {octets} payload octets",
            outcome.tool,
            outcome.arrived,
            tunnel::FILE,
            outcome.took.as_secs_f32()
        );
        assert!(
            outcome.whole,
            "{:?} does not work even unhindered:\n{}\n{}",
            outcome.tool, outcome.log, outcome.server_log
        );
    }
}

/// iodine falls back to an alphabet without case; dns2tcp has none, so one canonical form of names ends it by itself.
#[test]
fn lower_case_alone_ends_dns2tcp_but_not_iodine() {
    let Some(world) = World::create(tunnel::ALL.len() as u8) else { return };
    relay::start_lower_case(&world);
    for outcome in tunnel::attempt(&world, &tunnel::ALL, Duration::from_secs(20)) {
        println!("FIGURE: {:?} with names in lower case: {} octets arrived", outcome.tool, outcome.arrived);
        let expected = !tunnel::needs_case(outcome.tool);
        assert_eq!(outcome.whole, expected, "{:?}:\n{}", outcome.tool, outcome.log);
    }
}

#[test]
fn a_page_is_fetched_by_name_over_both_families() {
    let Some(world) = World::create(2) else { return };
    relay::start(&world);
    for agent in &world.agents {
        for (qtype, expected) in [(rtype::A, IpAddr::from(WEB)), (rtype::AAAA, IpAddr::from(WEB6))] {
            let reply = agent.ask("www.site.example", qtype).expect("an answer");
            assert_eq!(reply.addresses(), [expected]);
            let to = SocketAddr::new(expected, 80);
            let page = agent.ns.run(async move { web::fetch(to, "www.site.example", "/").await }).expect("a page");
            assert!(page.contains(&format!("a page from {expected}")), "{page}");
        }
    }
    assert_eq!(world.web.requests().len(), 4);
}

#[test]
fn the_upstream_answers_follows_aliases_denies_and_truncates() {
    let Some(world) = World::create(1) else { return };
    relay::start(&world);
    let (agent, upstream) = (&world.agents[0], &world.upstream);
    upstream.add("alias.site.example", 60, Data::Cname("www.site.example".into()));
    upstream.add("*.wild.example", 60, Data::Txt("any".into()));
    upstream.add("big.site.example", 60, Data::Txt("x".repeat(3000)));

    let reply = agent.ask("Alias.Site.Example", rtype::A).expect("an answer");
    assert_eq!(reply.name, "Alias.Site.Example", "the question comes back as asked");
    assert_eq!(reply.answers.len(), 2);
    assert_eq!(reply.answers[0].target.as_deref(), Some("www.site.example"));
    assert_eq!(reply.addresses(), [IpAddr::from(WEB)]);

    assert_eq!(agent.ask("a.b.wild.example", rtype::TXT).expect("an answer").texts(), ["any"]);
    let absent = agent.ask("absent.site.example", rtype::A).expect("an answer");
    assert_eq!((absent.rcode(), absent.authority[0].rtype), (rcode::NXDOMAIN, rtype::SOA));
    let nodata = agent.ask("www.site.example", rtype::MX).expect("an answer");
    assert_eq!((nodata.rcode(), nodata.answers.len(), nodata.authority.len()), (rcode::NOERROR, 0, 1));

    let big = Query::new("big.site.example", rtype::TXT);
    assert!(agent.ask_raw(big.encode()).expect("an answer").truncated());
    // Straight to the upstream over TCP: the forwarder asks it over UDP only.
    let whole = world.gw.run(async move {
        let to = SocketAddr::from((world::UPSTREAM, 53));
        world::client::tcp(to, &big.encode(), Duration::from_secs(2)).await
    });
    assert_eq!(whole.expect("an answer").texts(), ["x".repeat(3000)]);
}

#[test]
fn the_upstream_keeps_every_octet_and_delays_what_it_is_told_to() {
    let Some(world) = World::create(1) else { return };
    relay::start(&world);
    let agent = &world.agents[0];
    world.upstream.delay("www.site.example", Duration::from_millis(300));
    let query = Query::new("wWw.SITE.example", rtype::A).option(8, &[0, 1, 24, 0, 203, 0, 113]);
    let start = Instant::now();
    agent.ask_raw(query.encode()).expect("an answer");
    assert!(start.elapsed() >= Duration::from_millis(300));
    let seen = world.upstream.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].raw, query.encode());
    let read = Message::decode(&seen[0].raw).expect("a message");
    assert_eq!((read.name.as_str(), read.trailing), ("wWw.SITE.example", 0));
    assert_eq!(read.opt().map(|opt| opt.rdata.len()), Some(11), "client subnet came through the plain forwarder");
}

#[test]
fn the_capture_sees_packets_and_silence() {
    let Some(world) = World::create(1) else { return };
    relay::start(&world);
    let capture = Capture::start(&world.gw, world::OUTSIDE_INTERFACE);
    world.agents[0].ask("www.site.example", rtype::A).expect("an answer");
    assert_eq!(capture.ip_packets().len(), 2, "one query, one reply");
    capture.forget();
    let (refused, _) = world.agents[0].dial(world.agents[0].gateway.into(), 9);
    assert!(refused.is_err());
    assert_eq!(capture.ip_packets().len(), 0, "a dial to the gateway itself does not reach the outside");
}

#[test]
fn the_receiver_takes_alerts_only_while_it_is_up() {
    let Some(world) = World::create(0) else { return };
    let address = SocketAddr::from((SOC, 8080));
    let soc = Soc::start(&world.gw, address);
    let post = || {
        world.gw.run(async move {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            let mut stream = tokio::net::TcpStream::connect(address).await.ok()?;
            stream.write_all(b"POST /alerts HTTP/1.1\r\nX-Sig: 1\r\nContent-Length: 8\r\n\r\n{\"a\": 1}").await.ok()?;
            let mut reply = String::new();
            stream.read_to_string(&mut reply).await.ok()?;
            reply.split(' ').nth(1)?.parse::<u16>().ok()
        })
    };
    let settle = || std::thread::sleep(Duration::from_millis(500));
    assert_eq!(post(), Some(200));
    soc.set(Health::Busy);
    settle();
    assert_eq!(post(), Some(503));
    soc.set(Health::Down);
    settle();
    assert_eq!(post(), None);
    soc.set(Health::Up);
    settle();
    assert_eq!(post(), Some(200));
    assert_eq!(soc.alerts(), [serde_json::json!({"a": 1}), serde_json::json!({"a": 1})]);
    assert_eq!(soc.taken()[0].headers["x-sig"], "1");
}

#[test]
fn programs_in_a_sandbox_use_its_resolver() {
    let Some(world) = World::create(1) else { return };
    relay::start(&world);
    let output = world.agents[0].ns.sh("getent ahostsv4 www.site.example");
    assert!(String::from_utf8_lossy(&output.stdout).starts_with(&WEB.to_string()), "{output:?}");
    assert!(world.upstream.seen().iter().any(|q| q.name == "www.site.example"));
}

#[test]
fn nothing_is_left_when_a_world_ends() {
    let Some(world) = World::create(1) else { return };
    let names = [world.gw.name.clone(), world.net.name.clone(), world.agents[0].ns.name.clone()];
    let sleeper = world.net.command("sleep").arg("60").spawn().expect("sleep starts");
    let pid = sleeper.id();
    drop(world);
    let mut sleeper = sleeper;
    sleeper.wait().expect("the process was ended");
    for name in names {
        assert!(!std::path::Path::new(&format!("/run/netns/{name}")).exists(), "{name} is left");
    }
    println!("FIGURE: process {pid} ended with its world");
}
