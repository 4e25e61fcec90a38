//! The lockdown in a real kernel: what a sandbox tries, with and without it.
//!
//! Everything that is refused is tried before, without the lockdown, and works.

#[path = "lockdown/errors.rs"]
mod errors;
#[path = "lockdown/host.rs"]
mod host;
#[path = "lockdown/standing.rs"]
mod standing;
mod world;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use world::capture::Capture;
use world::dns::{Query, rtype};
use world::lockdown::{json, nft, ok, ruleset, run, stand_in};
use world::upstream::Upstream;
use world::{Agent, GATEWAY_OUTSIDE, OUTSIDE_INTERFACE, UPSTREAM, WEB, WEB6, World, client, echo, raw};

/// Which addresses and resolvers the sandboxes of a world of two have.
const BOUND: [&str; 10] = [
    "--interfaces",
    "ag1,ag2",
    "--bind",
    "ag1=10.77.1.2,fd77:1::2",
    "--bind",
    "ag2=10.77.2.2,fd77:2::2",
    "--resolver",
    "53",
    "--mode",
    "enforce",
];
/// The same without addresses.
const ROUTED: [&str; 2] = ["--interfaces", "ag*"];

/// A resolver somewhere else, known to an image by heart.
const FOREIGN: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 53);
const FOREIGN6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x53);
/// What ours and theirs answer for the same name.
const OURS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 200);
const THEIRS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 99);
const NAME: &str = "who.answers.example";

const SECOND: Duration = Duration::from_secs(1);

fn with<'a>(command: &'a str, words: &[&'a str]) -> Vec<&'a str> {
    std::iter::once(command).chain(words.iter().copied()).collect()
}

fn apply(world: &World, words: &[&str]) -> String {
    ok(&world.gw, &with("apply", words))
}

fn create(agents: u8) -> Option<World> {
    let world = World::create(agents)?;
    // A forged source must be stopped by the lockdown and not by the kernel's own filter.
    for interface in ["all", "default", "up0", "ag1", "ag2"].iter().take(3 + usize::from(agents)) {
        world.gw.sysctl(&format!("net/ipv4/conf/{interface}/rp_filter"), "0");
        world.gw.sysctl(&format!("net/ipv4/conf/{interface}/accept_source_route"), "1");
    }
    // Outside, every address of a range is served, and IPv6 binds only to those it was given one by one.
    world.net.sysctl("net/ipv6/ip_nonlocal_bind", "1");
    Some(world)
}

/// No limit on the ICMP errors of the gateway: a test refuses more in a second than a client would hear.
fn hear_all(world: &World) {
    world.gw.sysctl("net/ipv4/icmp_ratelimit", "0");
    world.gw.sysctl("net/ipv4/icmp_msgs_per_sec", "100000");
    world.gw.sysctl("net/ipv6/icmp/ratelimit", "0");
}

/// Our resolver in the gateway and a foreign one outside.
fn resolvers(world: &World) -> Upstream {
    let foreign = Upstream::start(&world.net, (FOREIGN, 53).into());
    let foreign6 = Upstream::start(&world.net, (FOREIGN6, 53).into());
    for server in [&foreign, &foreign6] {
        server.add_site(NAME, THEIRS.into());
    }
    let mut ours = None;
    for agent in &world.agents {
        let n = agent.address.octets()[2];
        let own6 = Ipv6Addr::new(0xfd77, n.into(), 0, 0, 0, 0, 0, 1);
        for address in [SocketAddr::from((agent.gateway, 53)), SocketAddr::from((own6, 53))] {
            let server = Upstream::start(&world.gw, address);
            server.add_site(NAME, OURS.into());
            ours.get_or_insert(server);
        }
    }
    ours.expect("a sandbox")
}

/// Who answers a question for [`NAME`] sent to `server`.
fn asked(agent: &Agent, server: IpAddr, tcp: bool) -> io::Result<Vec<IpAddr>> {
    let query = Query::new(NAME, rtype::A).encode();
    let server = SocketAddr::new(server, 53);
    let reply = agent.ns.run(async move {
        match tcp {
            true => client::tcp(server, &query, 4 * SECOND).await,
            false => client::udp(None, server, &query, 4 * SECOND).await,
        }
    });
    reply.map(|reply| reply.addresses())
}

#[track_caller]
fn reached(agent: &Agent, to: impl Into<SocketAddr>, tcp: bool, what: &str) {
    let to = to.into();
    let (end, took) = if tcp { echo::tcp(&agent.ns, to) } else { echo::udp(&agent.ns, to) };
    let end = end.unwrap_or_else(|error| panic!("{what}: {to} tcp={tcp}: {error} after {took:?}"));
    assert_eq!(end, echo::GREETING, "{what}: {to}");
}

#[track_caller]
fn refused(agent: &Agent, to: impl Into<SocketAddr>, tcp: bool, what: &str) {
    let to = to.into();
    let (end, took) = if tcp { echo::tcp(&agent.ns, to) } else { echo::udp(&agent.ns, to) };
    let error = end.expect_err(&format!("{what}: {to} tcp={tcp} was reached"));
    println!("FIGURE: {what}: {to} tcp={tcp} refused after {:.1} ms: {error}", took.as_secs_f32() * 1000.0);
    assert!(error.kind() != io::ErrorKind::TimedOut && took < SECOND, "{what}: {to} tcp={tcp}: {error} after {took:?}");
}

#[test]
fn questions_to_anybody_are_answered_by_us() {
    let Some(world) = create(2) else { return };
    resolvers(&world);
    for agent in &world.agents {
        for server in [FOREIGN.into(), FOREIGN6.into()] {
            for tcp in [false, true] {
                assert_eq!(asked(agent, server, tcp).ok(), Some(vec![THEIRS.into()]), "without the lockdown: {server}");
            }
        }
    }
    let own6: IpAddr = "fd77:1::1".parse().expect("an address");
    for (words, what) in [
        (&BOUND[..], "bound"),
        (&ROUTED, "routed"),
        (&["--interfaces", "ag1,ag2", "--mode", "monitor"], "monitor"),
        (
            &[
                "--interfaces",
                "ag*",
                "--resolver",
                "10.77.1.1:53",
                "--resolver",
                "10.77.2.1:53",
                "--resolver",
                "[fd77:1::1]:53",
            ],
            "by address",
        ),
    ] {
        apply(&world, words);
        for agent in &world.agents {
            for server in [FOREIGN.into(), FOREIGN6.into(), agent.gateway.into(), own6] {
                for tcp in [false, true] {
                    let said = asked(agent, server, tcp);
                    let said = said.unwrap_or_else(|error| panic!("{what}: {server} tcp={tcp}: {error}"));
                    assert_eq!(said, [OURS], "{what}: {server} tcp={tcp}");
                }
            }
        }
    }
    // Where we do not answer over IPv6, nobody does, and that is heard.
    apply(&world, &["--interfaces", "ag*", "--resolver", "10.77.1.1:53"]);
    assert_eq!(asked(&world.agents[0], FOREIGN.into(), false).ok(), Some(vec![OURS.into()]));
    for tcp in [false, true] {
        refused(&world.agents[0], (FOREIGN6, 53), tcp, "IPv6 without a resolver of ours");
        refused(&world.agents[0], (own6, 53), tcp, "IPv6 without a resolver of ours, at this host");
    }
    // A resolver on another host, here the foreign one itself: questions to anybody reach it, and nothing else does.
    let at = [format!("{FOREIGN}:53"), format!("[{FOREIGN6}]:53")];
    apply(&world, &["--interfaces", "ag*", "--resolver", &at[0], "--resolver", &at[1]]);
    for server in [UPSTREAM.into(), WEB6.into(), world.agents[0].gateway.into()] {
        for tcp in [false, true] {
            let said =
                asked(&world.agents[0], server, tcp).unwrap_or_else(|error| panic!("{server} tcp={tcp}: {error}"));
            assert_eq!(said, [THEIRS], "{server} tcp={tcp}");
        }
    }
    refused(&world.agents[0], (FOREIGN, 80), true, "another port of that resolver");
    ok(&world.gw, &["remove"]);
    assert_eq!(asked(&world.agents[0], FOREIGN.into(), false).ok(), Some(vec![THEIRS.into()]), "removed");
}

#[test]
fn a_question_in_fragments_is_led_like_any_other() {
    let Some(world) = create(1) else { return };
    let ours = resolvers(&world);
    let agent = &world.agents[0];
    apply(&world, &ROUTED_ONE);
    // EDNS padding (RFC 7830) makes it longer than one packet.
    let query = Query::new(NAME, rtype::A).option(12, &[0; 2000]).encode();
    let sent = query.len();
    let to = SocketAddr::from((FOREIGN, 53));
    let reply = agent.ns.run(async move { client::udp(None, to, &query, 4 * SECOND).await });
    assert_eq!(reply.expect("an answer").addresses(), [OURS]);
    assert_eq!(ours.seen().last().expect("it came").raw.len(), sent);
}

const ROUTED_ONE: [&str; 2] = ["--interfaces", "ag1"];

#[test]
fn other_ways_to_ask_are_refused_and_that_is_heard() {
    let Some(world) = create(1) else { return };
    hear_all(&world);
    let agent = &world.agents[0];
    let own = agent.gateway;
    let ports = [137, 138, 853, 5353, 5355];
    // Every address outside that a sandbox might know by heart is on the documentation ranges here; ours are in a file.
    let known = world.path("known.txt");
    std::fs::write(&known, "203.0.113.200 # a resolver; source: tests\n2001:db8:1:200::/64\n").expect("written");
    let (doh, doh6) = (Ipv4Addr::new(203, 0, 113, 200), Ipv6Addr::new(0x2001, 0xdb8, 1, 0x200, 0, 0, 0, 7));
    for port in ports {
        for address in [IpAddr::from(WEB), WEB6.into()] {
            echo::start(&world.net, (address, port).into());
        }
        echo::start(&world.gw, (own, port).into());
    }
    for address in [IpAddr::from(doh), doh6.into(), Ipv4Addr::new(203, 0, 113, 201).into()] {
        echo::start(&world.net, (address, 443).into());
    }
    let all = |probe: &dyn Fn(SocketAddr, bool)| {
        for tcp in [false, true] {
            for port in ports {
                for address in [IpAddr::from(WEB), WEB6.into(), own.into()] {
                    probe((address, port).into(), tcp);
                }
            }
            for address in [IpAddr::from(doh), doh6.into()] {
                probe((address, 443).into(), tcp);
            }
        }
    };
    all(&|to, tcp| reached(agent, to, tcp, "without the lockdown"));
    // Whatever the service says: it permits everything here.
    stand_in(&world.gw, "");
    let known = known.to_str().expect("UTF-8");
    apply(&world, &["--interfaces", "ag1", "--doh", known]);
    all(&|to, tcp| refused(agent, to, tcp, "enforced"));
    for tcp in [false, true] {
        reached(agent, (Ipv4Addr::new(203, 0, 113, 201), 443), tcp, "an address beside a resolver's");
    }
    nft(&world.gw, "delete table inet staunch");
    apply(&world, &["--interfaces", "ag1", "--doh", known, "--mode", "monitor"]);
    all(&|to, tcp| refused(agent, to, tcp, "monitored"));
    for tcp in [false, true] {
        reached(agent, (Ipv4Addr::new(203, 0, 113, 201), 443), tcp, "monitored, all else");
    }
    ok(&world.gw, &["remove"]);
    reached(agent, (WEB, 853), true, "removed");
}

#[test]
fn nothing_is_forwarded_without_the_service_s_word() {
    let Some(world) = create(2) else { return };
    hear_all(&world);
    let [one, two] = &world.agents[..] else { unreachable!("two sandboxes were made") };
    let other = Ipv4Addr::new(203, 0, 113, 11);
    for address in [IpAddr::from(WEB), WEB6.into(), other.into()] {
        echo::start(&world.net, (address, 9000).into());
    }
    echo::start(&two.ns, (two.address, 9000).into());
    let targets = [IpAddr::from(WEB), WEB6.into(), other.into(), two.address.into()];
    for to in targets {
        for tcp in [false, true] {
            reached(one, (to, 9000), tcp, "without the lockdown");
        }
    }
    for words in [&BOUND[..], &ROUTED] {
        apply(&world, words);
        for to in targets {
            for tcp in [false, true] {
                refused(one, (to, 9000), tcp, "no mark");
            }
        }
        // What the service permits passes, and nothing beside it.
        for (rule, to, not) in [
            ("ip daddr 203.0.113.10", IpAddr::from(WEB), IpAddr::from(WEB6)),
            ("ip6 daddr 2001:db8:1::10", WEB6.into(), WEB.into()),
            ("ip daddr 10.77.2.2", two.address.into(), other.into()),
        ] {
            stand_in(&world.gw, rule);
            for tcp in [false, true] {
                reached(one, (to, 9000), tcp, "permitted");
                refused(one, (not, 9000), tcp, "beside what is permitted");
            }
        }
        nft(&world.gw, "delete table inet staunch");
        refused(one, (two.address, 9000), true, "the service's table is gone");
    }
    // Towards a sandbox the same: not even the first packet comes in.
    let inside = Capture::start(&world.gw, &two.interface);
    let comes_in = || {
        inside.forget();
        let (end, _) = echo::udp(&world.net, (two.address, 9000).into());
        let arrived = inside.ip_packets().iter().any(|frame| frame.ends_with(b"anybody there?"));
        assert_eq!(end.is_ok(), arrived);
        arrived
    };
    assert!(!comes_in(), "a datagram from outside");
    ok(&world.gw, &["remove"]);
    assert!(comes_in(), "and without the lockdown");
}

#[test]
fn a_permitted_connection_is_whole_and_its_errors_come_through() {
    let Some(world) = create(1) else { return };
    let agent = &world.agents[0];
    stand_in(&world.gw, "ip daddr 203.0.113.10");
    apply(&world, &ROUTED_ONE);
    let page = agent.ns.run(async move { world::web::fetch((WEB, 80).into(), "www.site.example", "/").await });
    assert!(page.expect("a page").contains("a page from"), "a marked flow carries data both ways");
    // A closed port outside answers a datagram with an ICMP error, which belongs to the permitted flow.
    let (end, took) = echo::udp(&agent.ns, (WEB, 9999).into());
    assert_eq!(end.expect_err("closed").kind(), io::ErrorKind::ConnectionRefused, "after {took:?}");
    let (end, took) = echo::udp(&agent.ns, (Ipv4Addr::new(203, 0, 113, 11), 9999).into());
    assert_ne!(end.expect_err("refused").kind(), io::ErrorKind::ConnectionRefused, "after {took:?}");
}

/// Whether packets that `sent` puts on the wire are seen by the capture.
fn seen(capture: &Capture, wanted: impl Fn(&[u8]) -> bool, send: impl FnOnce()) -> bool {
    capture.forget();
    send();
    capture.ip_packets().iter().any(|frame| wanted(&frame[14..]))
}

#[test]
fn a_forged_source_goes_nowhere() {
    let Some(world) = create(2) else { return };
    let [one, two] = &world.agents[..] else { unreachable!("two sandboxes were made") };
    let outside = Capture::start(&world.gw, OUTSIDE_INTERFACE);
    let neighbour = Capture::start(&world.gw, &two.interface);
    // The service permits all: only the guard can stop these.
    stand_in(&world.gw, "");
    let send = |from: IpAddr, to: IpAddr| {
        let (from, to) = (SocketAddr::new(from, 4000), SocketAddr::new(to, 9000));
        raw::packet(from.ip(), to.ip(), 17, &[], &raw::udp(from, to, b"forged"))
    };
    let passes = |from: IpAddr, to: IpAddr| {
        let packet = send(from, to);
        seen(&outside, |p| p.ends_with(b"forged"), || raw::send(&one.ns, &packet).expect("sent"))
    };
    let own = [(IpAddr::from(one.address), IpAddr::from(WEB)), (one.address6.into(), WEB6.into())];
    let forged: [(IpAddr, IpAddr); 6] = [
        (two.address.into(), WEB.into()),
        (two.address6.into(), WEB6.into()),
        (Ipv4Addr::new(203, 0, 113, 77).into(), WEB.into()),
        (Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x77).into(), WEB6.into()),
        (one.gateway.into(), WEB.into()),
        (GATEWAY_OUTSIDE.into(), WEB.into()),
    ];
    // The host's own addresses the kernel knows by itself.
    for (from, to) in own.iter().chain(&forged[..4]) {
        assert!(passes(*from, *to), "without the lockdown, {from} passes");
    }
    for (words, what) in [(&BOUND[..], "bound"), (&ROUTED, "routed")] {
        apply(&world, words);
        for (from, to) in own {
            assert!(passes(from, to), "{what}: its own {from}");
        }
        for (from, to) in forged {
            assert!(!passes(from, to), "{what}: forged {from}");
        }
    }
    // An address of its own link that is not bound to it: routing alone cannot tell.
    let spare: IpAddr = Ipv4Addr::new(10, 77, 1, 9).into();
    assert!(passes(spare, WEB.into()), "routed: {spare}");
    apply(&world, &BOUND);
    assert!(!passes(spare, WEB.into()), "bound: {spare}");
    // Nobody else's interface may send as a sandbox.
    let packet = send(one.address.into(), two.address.into());
    let arrives = || seen(&neighbour, |p| p.ends_with(b"forged"), || raw::send(&world.net, &packet).expect("sent"));
    assert!(!arrives(), "a sandbox's address from outside");
    let honest = send(WEB.into(), two.address.into());
    let comes = seen(&neighbour, |p| p.ends_with(b"forged"), || raw::send(&world.net, &honest).expect("sent"));
    assert!(comes, "another's address from outside");
    ok(&world.gw, &["remove"]);
    assert!(arrives(), "and without the lockdown");
}

#[test]
fn nothing_but_tcp_udp_and_errors_passes_even_with_a_mark() {
    let Some(world) = create(1) else { return };
    let agent = &world.agents[0];
    let outside = Capture::start(&world.gw, OUTSIDE_INTERFACE);
    stand_in(&world.gw, "");
    let (v4, v6) = (IpAddr::from(agent.address), IpAddr::from(agent.address6));
    let (to4, to6) = (IpAddr::from(WEB), IpAddr::from(WEB6));
    let datagram = |from: IpAddr, to: IpAddr, port| {
        raw::udp(SocketAddr::new(from, 4000), SocketAddr::new(to, port), b"carried away")
    };
    let body = b"carried away";
    let inner = raw::packet(v6, to6, 17, &[], &datagram(v6, to6, 9000));
    // Record route with room for one address (RFC 791 section 3.1), and a source route by way of the outside.
    let record = [7, 7, 4, 0, 0, 0, 0, 1];
    let mut source = vec![131, 7, 4];
    source.extend(WEB.octets());
    source.push(1);
    // Destination options (RFC 8200 section 4.6) with padding, then UDP; and the same cut in the middle.
    let mut options = vec![17, 0, 1, 4, 0, 0, 0, 0];
    options.extend(datagram(v6, to6, 9000));
    let unreadable = [17, 9, 1, 4].iter().chain(body).copied().collect::<Vec<u8>>();
    // A routing header of type 0 with no segment left.
    let mut routing = vec![17, 0, 0, 0, 0, 0, 0, 0];
    routing.extend(datagram(v6, to6, 9000));
    let echo4 = raw::icmp(v4, to4, 8, 0, [0, 7, 0, 1], body);
    let echo6 = raw::icmp(v6, to6, 128, 0, [0, 7, 0, 1], body);
    // An error that belongs to no flow.
    let mut quoted = raw::packet(to4, v4, 17, &[], &datagram(to4, v4, 9000));
    quoted.extend(body);
    let stray = raw::icmp(v4, to4, 3, 3, [0; 4], &quoted);
    let probes: Vec<(&str, Vec<u8>)> = vec![
        ("an echo", raw::packet(v4, to4, 1, &[], &echo4)),
        ("an IPv6 echo", raw::packet(v6, to6, 58, &[], &echo6)),
        ("a timestamp request", raw::packet(v4, to4, 1, &[], &raw::icmp(v4, to4, 13, 0, [0, 7, 0, 1], body))),
        ("a stray error", raw::packet(v4, to4, 1, &[], &stray)),
        ("GRE", raw::packet(v4, to4, 47, &[], &[&[0, 0, 8, 0][..], body].concat())),
        ("GRE over IPv6", raw::packet(v6, to6, 47, &[], &[&[0, 0, 8, 0][..], body].concat())),
        ("SCTP", raw::packet(v4, to4, 132, &[], &[&[15, 160, 35, 40, 0, 0, 0, 0, 0, 0, 0, 0][..], body].concat())),
        ("6in4", raw::packet(v4, to4, 41, &[], &inner)),
        ("IPv4 in IPv4", raw::packet(v4, to4, 4, &[], &raw::packet(v4, to4, 17, &[], &datagram(v4, to4, 9000)))),
        ("ESP", raw::packet(v4, to4, 50, &[], body)),
        ("AH", raw::packet(v4, to4, 51, &[], &[&[17, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1][..], body].concat())),
        ("UDP-Lite", raw::packet(v4, to4, 136, &[], &[&[15, 160, 35, 40, 0, 0, 0, 0][..], body].concat())),
        ("a protocol for experiments", raw::packet(v4, to4, 253, &[], body)),
        ("a protocol for experiments over IPv6", raw::packet(v6, to6, 253, &[], body)),
        ("a recorded route", raw::packet(v4, to4, 17, &record, &datagram(v4, to4, 9000))),
        ("a source route", raw::packet(v4, GATEWAY_OUTSIDE.into(), 17, &source, &datagram(v4, to4, 9000))),
        ("destination options", raw::packet(v6, to6, 60, &[], &options)),
        ("options that cannot be read", raw::packet(v6, to6, 60, &[], &unreadable)),
        ("a routing header", raw::packet(v6, to6, 43, &[], &routing)),
        ("Teredo", raw::packet(v4, to4, 17, &[], &datagram(v4, to4, 3544))),
    ];
    let passes = |packet: &[u8]| {
        let carried = |p: &[u8]| p.windows(body.len()).any(|window| window == body);
        seen(&outside, carried, || raw::send(&agent.ns, packet).expect("sent"))
    };
    let plain4 = raw::packet(v4, to4, 17, &[], &datagram(v4, to4, 9000));
    let plain6 = raw::packet(v6, to6, 17, &[], &datagram(v6, to6, 9000));
    for (what, packet) in &probes {
        assert!(passes(packet), "without the lockdown, {what} passes");
    }
    for words in [&["--interfaces", "ag1", "--bind", "ag1=10.77.1.2,fd77:1::2"][..], &ROUTED_ONE] {
        apply(&world, words);
        assert!(passes(&plain4) && passes(&plain6), "a marked datagram passes");
        for (what, packet) in &probes {
            assert!(!passes(packet), "{what} passed");
        }
        assert!(passes(&plain4) && passes(&plain6), "a marked datagram still passes");
    }
}
