//! The lockdown of sandboxes that share a bridge, in a real kernel: neighbours on one link.
//!
//! Everything that is refused is tried before, without the lockdown, and works.

mod world;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use world::capture::Capture;
use world::dns::{Query, rtype};
use world::lockdown::{json, nft, ok, ruleset, stand_in};
use world::upstream::Upstream;
use world::{Agent, OUTSIDE_INTERFACE, WEB, WEB6, World, client, echo, raw, wait_for};

const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 77, 9, 1);
const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0xfd77, 9, 0, 0, 0, 0, 0, 1);
const OURS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 200);
const NAME: &str = "who.answers.example";
const SECOND: Duration = Duration::from_secs(1);

/// Two sandboxes with everything said of them; a third port of the bridge leads elsewhere.
const BOUND: [&str; 6] = [
    "--bridge",
    "br0=ag1,ag2",
    "--bind",
    "ag1=10.77.9.11,fd77:9::11,02:00:00:00:00:01",
    "--bind",
    "ag2=10.77.9.12,fd77:9::12,02:00:00:00:00:02",
];

fn mac(n: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, n]
}

fn v4(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 9, 10 + n)
}

fn v6(n: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd77, 9, 0, 0, 0, 0, 0, 0x10 + u16::from(n))
}

/// Three sandboxes on one bridge of the gateway, which has the resolver.
fn create() -> Option<World> {
    let world = World::create(3)?;
    world.gw.ip(&[
        "link add br0 type bridge forward_delay 0",
        "link set br0 up",
        "addr add 10.77.9.1/24 dev br0",
        "-6 addr add fd77:9::1/64 dev br0 nodad",
    ]);
    for (agent, n) in world.agents.iter().zip(1..) {
        world
            .gw
            .ip(&[&format!("addr flush dev {}", agent.interface), &format!("link set {} master br0", agent.interface)]);
        // Down and up, so that it makes itself a link-local address of its new hardware address.
        agent.ns.ip(&[
            "addr flush dev eth0",
            "link set eth0 down",
            &format!("link set eth0 address 02:00:00:00:00:0{n}"),
            "link set eth0 up",
            &format!("addr add {}/24 dev eth0", v4(n)),
            &format!("-6 addr add {}/64 dev eth0 nodad", v6(n)),
            &format!("route replace default via {GATEWAY}"),
            &format!("-6 route replace default via {GATEWAY6}"),
        ]);
    }
    for key in
        ["ipv4/conf/all/rp_filter", "ipv4/conf/br0/rp_filter", "ipv4/neigh/br0/locktime", "ipv6/neigh/br0/locktime"]
    {
        world.gw.sysctl(&format!("net/{key}"), "0");
    }
    world.net.sysctl("net/ipv6/ip_nonlocal_bind", "1");
    for address in [IpAddr::from(GATEWAY), GATEWAY6.into()] {
        Upstream::start(&world.gw, (address, 53).into()).add_site(NAME, OURS.into());
    }
    for address in [IpAddr::from(WEB), WEB6.into()] {
        echo::start(&world.net, (address, 9000).into());
    }
    for (agent, n) in world.agents.iter().zip(1..) {
        for address in [IpAddr::from(v4(n)), v6(n).into()] {
            echo::start(&agent.ns, (address, 9000).into());
        }
    }
    Some(world)
}

fn forget_neighbours(world: &World) {
    for ns in [&world.gw, &world.agents[0].ns, &world.agents[1].ns, &world.agents[2].ns] {
        ns.ip(&["neigh flush all", "-6 neigh flush all"]);
    }
}

/// Asks our resolver, whatever was said of neighbours before.
#[track_caller]
fn asks(agent: &Agent, what: &str) {
    for server in [SocketAddr::from((GATEWAY, 53)), (GATEWAY6, 53).into(), (WEB, 53).into(), (WEB6, 53).into()] {
        let query = Query::new(NAME, rtype::A).encode();
        let reply = agent.ns.run(async move { client::udp(None, server, &query, 4 * SECOND).await });
        let reply = reply.unwrap_or_else(|error| panic!("{what}: {server}: {error}"));
        assert_eq!(reply.addresses(), [OURS], "{what}: {server}");
    }
}

/// Whether a dial of TCP and UDP gets through.
fn dials(agent: &Agent, to: SocketAddr) -> bool {
    let [tcp, udp] = [echo::tcp(&agent.ns, to), echo::udp(&agent.ns, to)].map(|(end, _)| end.is_ok());
    assert_eq!(tcp, udp, "{to}");
    tcp
}

/// Where the gateway believes an address to be.
fn neighbour(world: &World, address: IpAddr) -> String {
    let shown = world.gw.sh(&format!("ip neigh show {address} dev br0"));
    String::from_utf8_lossy(&shown.stdout).into_owned()
}

/// Whether the gateway comes to believe that an address is at a hardware address, once `frame` was sent.
fn believes(world: &World, liar: &Agent, frame: &[u8], address: IpAddr, mac: [u8; 6]) -> bool {
    // It must know the truth, so that there is something to override.
    let victim = SocketAddr::new(address, 9000);
    let truth = wait_for(5 * SECOND, || echo::tcp(&world.gw, victim).0.ok());
    assert!(truth.is_some(), "the gateway reaches {victim}");
    let mac = mac.map(|octet| format!("{octet:02x}")).join(":");
    assert!(!neighbour(world, address).contains(&mac), "before: {}", neighbour(world, address));
    for _ in 0..3 {
        raw::send_frame(&liar.ns, "eth0", frame).expect("sent");
    }
    let fooled = wait_for(SECOND / 2, || neighbour(world, address).contains(&mac).then_some(())).is_some();
    world.gw.ip(&["neigh flush all", "-6 neigh flush all"]);
    fooled
}

#[test]
fn honest_neighbours_are_served_and_do_not_hear_each_other() {
    let Some(world) = create() else { return };
    let [one, two, three] = &world.agents[..] else { unreachable!("three sandboxes were made") };
    let others = [SocketAddr::from((v4(2), 9000)), (v6(2), 9000).into()];
    for to in others {
        assert!(dials(one, to), "without the lockdown, {to}");
    }
    stand_in(&world.gw, "");
    for words in [&BOUND[..], &["--bridge", "br0=ag1,ag2"], &["--bridge", "br0=ag*"]] {
        ok(&world.gw, &[&["apply"], words].concat());
        forget_neighbours(&world);
        for agent in [one, two] {
            asks(agent, "a sandbox");
            for to in [SocketAddr::from((WEB, 9000)), (WEB6, 9000).into()] {
                assert!(dials(agent, to), "{words:?}: permitted: {to}");
            }
        }
        // One dial waits for address resolution to give up; below, frames do not.
        if words == BOUND {
            assert!(others.iter().all(|to| !dials(one, *to)), "{words:?}");
        }
        // A sandbox that knows its neighbour's hardware address by heart, and frames to all.
        let heard = Capture::start(&two.ns, "eth0");
        let (from, to) = (SocketAddr::from((v4(1), 4000)), SocketAddr::from((v4(2), 9000)));
        let packet = raw::packet(from.ip(), to.ip(), 17, &[], &raw::udp(from, to, b"psst, neighbour"));
        let whispers = [raw::frame(mac(2), mac(1), &packet), raw::frame([0xff; 6], mac(1), &packet)];
        let whispered = |from: &Agent| {
            heard.forget();
            whispers.iter().for_each(|frame| raw::send_frame(&from.ns, "eth0", frame).expect("sent"));
            heard.ip_packets().iter().filter(|frame| frame.ends_with(b"psst, neighbour")).count()
        };
        assert_eq!(whispered(one), 0, "{words:?}");
        nft(&world.gw, "delete table bridge staunch_lockdown");
        assert_eq!(whispered(one), 2, "without the table of the bridge");
    }
    // The port that leads elsewhere is not a sandbox's: it still reaches the gateway, and no sandbox.
    ok(&world.gw, &[&["apply"], &BOUND[..]].concat());
    asks(three, "another port");
    assert!(!dials(three, others[0]) && !dials(one, (v4(3), 9000).into()), "from and to another port");
    // Nor a frame one way, which needs no answer.
    let (from, to) = (SocketAddr::from((v4(1), 4000)), SocketAddr::from((v4(3), 9000)));
    let packet = raw::packet(from.ip(), to.ip(), 17, &[], &raw::udp(from, to, b"and never back"));
    let heard = Capture::start(&three.ns, "eth0");
    let arrives = || {
        heard.forget();
        raw::send_frame(&one.ns, "eth0", &raw::frame(mac(3), mac(1), &packet)).expect("sent");
        heard.ip_packets().iter().any(|frame| frame.ends_with(b"and never back"))
    };
    assert!(!arrives(), "a frame to another port");
    ok(&world.gw, &["remove"]);
    assert!(arrives(), "and without the lockdown");
}

#[test]
fn nobody_speaks_for_a_neighbour() {
    let Some(world) = create() else { return };
    let [one, two, three] = &world.agents[..] else { unreachable!("three sandboxes were made") };
    let outside = Capture::start(&world.gw, OUTSIDE_INTERFACE);
    stand_in(&world.gw, "");
    let own_link = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0xff, 0xfe00, 1);
    /// What is said, by whom, in which frame; of which address, and where it would be.
    type Lie<'a> = (&'a str, &'a Agent, Vec<u8>, IpAddr, [u8; 6]);
    let lies: Vec<Lie<'_>> = vec![
        ("an ARP request", one, raw::arp(mac(1), 1, mac(1), v4(2), GATEWAY), v4(2).into(), mac(1)),
        ("an ARP reply", one, raw::arp(mac(1), 2, mac(1), v4(2), GATEWAY), v4(2).into(), mac(1)),
        ("an advertisement", one, raw::advertisement(mac(1), v6(1), v6(2)), v6(2).into(), mac(1)),
        ("a link-local one's", one, raw::advertisement(mac(1), own_link, v6(2)), v6(2).into(), mac(1)),
        ("an ARP reply by the other port", three, raw::arp(mac(3), 2, mac(3), v4(2), GATEWAY), v4(2).into(), mac(3)),
        ("an advertisement by it", three, raw::advertisement(mac(3), v6(3), v6(2)), v6(2).into(), mac(3)),
    ];
    let forged = |from: IpAddr, to: IpAddr| {
        let (from, to) = (SocketAddr::new(from, 4000), SocketAddr::new(to, 9000));
        let packet = raw::packet(from.ip(), to.ip(), 17, &[], &raw::udp(from, to, b"not from me"));
        outside.forget();
        raw::send(&one.ns, &packet).expect("sent");
        outside.ip_packets().iter().any(|frame| frame.ends_with(b"not from me"))
    };
    let sources = [(IpAddr::from(v4(2)), IpAddr::from(WEB)), (v6(2).into(), WEB6.into())];
    let honest = [(IpAddr::from(v4(1)), IpAddr::from(WEB)), (v6(1).into(), WEB6.into())];
    // Whose port the bridge takes a hardware address to be behind.
    let port_of = |n: u8| {
        let shown = world.gw.sh("bridge fdb show br br0");
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        let wanted = format!("02:00:00:00:00:0{n} ");
        let line = shown.lines().find(|line| line.starts_with(&wanted)).unwrap_or_default().to_owned();
        line.split_whitespace().nth(2).unwrap_or_default().to_owned()
    };
    let steals = || {
        assert!(echo::tcp(&world.gw, (v4(2), 9000).into()).0.is_ok(), "the victim is there");
        assert_eq!(port_of(2), "ag2");
        let (from, to) = (SocketAddr::from((v4(1), 4000)), SocketAddr::from((GATEWAY, 9)));
        let packet = raw::packet(from.ip(), to.ip(), 17, &[], &raw::udp(from, to, b"x"));
        raw::send_frame(&one.ns, "eth0", &raw::frame([0xff; 6], mac(2), &packet)).expect("sent");
        let stolen = wait_for(SECOND / 2, || (port_of(2) == "ag1").then_some(())).is_some();
        // The victim speaks, and the bridge learns the truth again.
        let _ = echo::udp(&two.ns, (GATEWAY, 53).into());
        stolen
    };
    for (what, liar, frame, address, mac) in &lies {
        assert!(believes(&world, liar, frame, *address, *mac), "without the lockdown, {what} is believed");
    }
    for (from, to) in sources.iter().chain(&honest) {
        assert!(forged(*from, *to), "without the lockdown, {from} passes");
    }
    assert!(steals(), "without the lockdown, a hardware address is taken over");
    ok(&world.gw, &[&["apply"], &BOUND[..]].concat());
    for (what, liar, frame, address, mac) in &lies {
        assert!(!believes(&world, liar, frame, *address, *mac), "{what} was believed");
    }
    for (from, to) in sources {
        assert!(!forged(from, to), "{from} passes");
    }
    for (from, to) in honest {
        assert!(forged(from, to), "its own {from}");
    }
    assert!(!steals(), "a hardware address was taken over");
    asks(two, "the victim, after all");
    // Its own addresses a sandbox may announce, on another gateway interface's loss of memory for example.
    world.gw.ip(&["neigh flush all", "-6 neigh flush all"]);
    for frame in [raw::arp(mac(1), 1, mac(1), v4(1), GATEWAY), raw::advertisement(mac(1), v6(1), v6(1))] {
        raw::send_frame(&one.ns, "eth0", &frame).expect("sent");
    }
    let known = wait_for(SECOND, || neighbour(&world, v4(1).into()).contains("02:00:00:00:00:01").then_some(()));
    assert!(known.is_some(), "an ARP request of its own address");
}

#[test]
fn frames_that_are_no_packets_stay_on_their_port() {
    let Some(world) = create() else { return };
    let [one, two, _] = &world.agents[..] else { unreachable!("three sandboxes were made") };
    let heard = Capture::start(&two.ns, "eth0");
    // What comes up to the host, where a tag would lead to a virtual network of its own.
    let host = Capture::start(&world.gw, "br0");
    // A namespace of a test takes no part in spanning trees, so what would reach the bridge's own is counted.
    nft(
        &world.gw,
        "table bridge watch { chain c { type filter hook input priority 100; ether daddr 01:80:c2:00:00:00 counter; }; }",
    );
    let counted = || {
        let listed = String::from_utf8_lossy(&world.gw.sh("nft list table bridge watch").stdout).into_owned();
        let packets = listed.split("packets ").nth(1).and_then(|rest| rest.split(' ').next()).expect("a counter");
        packets.parse::<u32>().expect("a number")
    };
    // A spanning tree message (IEEE 802.1D section 9.3.1) of a bridge that would be root of everything.
    let usurper = {
        let mut frame = vec![0x01, 0x80, 0xc2, 0, 0, 0];
        frame.extend(mac(1));
        frame.extend([0, 38, 0x42, 0x42, 3, 0, 0, 0, 0, 0]);
        frame.extend([0, 0, 2, 0, 0, 0, 0, 9]);
        frame.extend([0, 0, 0, 0]);
        frame.extend([0, 0, 2, 0, 0, 0, 0, 9]);
        frame.extend([0x80, 1, 0, 0, 20, 0, 2, 0, 15, 0]);
        frame.resize(60, 0);
        frame
    };
    let arrives = || {
        let before = counted();
        raw::send_frame(&one.ns, "eth0", &usurper).expect("sent");
        wait_for(SECOND / 4, || (counted() != before).then_some(())).is_some()
    };
    // Ethertypes of no protocol we know: a VLAN tag around a packet, an experiment (RFC 5342).
    let (from, to) = (SocketAddr::from((v4(1), 4000)), SocketAddr::from((v4(2), 9000)));
    let packet = raw::packet(from.ip(), to.ip(), 17, &[], &raw::udp(from, to, b"under the table"));
    let mut tagged = raw::frame([0xff; 6], mac(1), &packet);
    tagged.splice(12..12, [0x81, 0, 0, 5]);
    let mut odd = raw::frame([0xff; 6], mac(1), &packet);
    odd[12..14].copy_from_slice(&[0x88, 0xb5]);
    let arrive = || {
        heard.forget();
        for frame in [&tagged, &odd] {
            raw::send_frame(&one.ns, "eth0", frame).expect("sent");
        }
        heard.frames().iter().filter(|frame| frame.ends_with(b"under the table")).count()
    };
    let enters = || host.frames().iter().any(|frame| frame.ends_with(b"under the table"));
    assert!(arrives(), "without the lockdown, a sandbox takes part in the spanning tree");
    assert_eq!(arrive(), 2, "without the lockdown");
    assert!(enters(), "without the lockdown, tagged frames come to the host");
    for words in [&BOUND[..], &["--bridge", "br0=ag*"]] {
        ok(&world.gw, &[&["apply"], words].concat());
        host.forget();
        assert!(!arrives(), "{words:?}: a sandbox takes part in the spanning tree");
        assert_eq!(arrive(), 0, "{words:?}");
        assert!(!enters(), "{words:?}: a tagged frame");
    }
}

#[test]
fn what_is_left_open_is_said() {
    let Some(world) = create() else { return };
    let (told, _) = json(&world.gw, &["apply", "--bridge", "br0=ag1,ag2", "--bind", "ag1=10.77.9.11"]);
    let open = told["leaves_open"].to_string();
    assert!(
        open.contains("ag2 may send as its neighbours") && open.contains("ag1 may send from its neighbour"),
        "{open}"
    );
    let (told, code) = json(&world.gw, &["status", "--bridge", "br0=ag1,ag2", "--bind", "ag1=10.77.9.11"]);
    assert_eq!(code, 0, "{told}");
    let rows: Vec<_> = told["interfaces"].as_array().expect("rows").iter().map(|row| row["kind"].to_string()).collect();
    assert_eq!(rows, ["\"bridge\"", "\"port\"", "\"port\""]);
    for (change, wanted) in [
        ("flush chain bridge staunch_lockdown between", "between has 0 rules"),
        ("delete table bridge staunch_lockdown", "table bridge staunch_lockdown is missing"),
    ] {
        nft(&world.gw, change);
        for words in [&["status"][..], &["status", "--bridge", "br0=ag1,ag2", "--bind", "ag1=10.77.9.11"]] {
            let (told, code) = json(&world.gw, words);
            let problems = told["standing"]["problems"].to_string();
            assert!(code == 1 && (words.len() == 1 || problems.contains(wanted)), "{change}: {problems}");
        }
        ok(&world.gw, &["apply", "--bridge", "br0=ag1,ag2", "--bind", "ag1=10.77.9.11"]);
    }
    let (told, _) = json(&world.gw, &[&["apply"], &BOUND[..]].concat());
    assert_eq!(told["leaves_open"].to_string(), "[]");
    ok(&world.gw, &["remove"]);
    assert_eq!(ruleset(&world.gw), "");
}
