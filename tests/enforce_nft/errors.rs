//! What a session writes by hand: ICMP errors about flows, fragments, extension headers, other protocols.

use std::io::Read;
use std::net::{Ipv6Addr, TcpStream};

use super::*;
use crate::world::capture::Capture;
use crate::world::{Agent, OUTSIDE_INTERFACE, UPSTREAM, WEB, WEB6, World as Net, raw};

/// What nothing may carry away.
const BODY: &[u8] = b"carried away";

fn started(net: &Net) -> staunch::enforce::Enforcer {
    net.gw.blocking(|| {
        let config = Config { interfaces: vec!["ag1".into(), "ag2".into()], ..config() };
        let backend = Nft::new(&config).expect("backend");
        staunch::enforce::Enforcer::start_with(Box::new(backend), config.queue).expect("enforcement")
    })
}

fn both(agent: &Agent) -> [IpAddr; 2] {
    [agent.address.into(), agent.address6.into()]
}

fn guarded(session: IpAddr) -> Command {
    Command::Guard { session, class: Class(1) }
}

/// Whether what `send` sends is seen there.
fn passes(there: &Capture, from: &crate::world::ns::Ns, packets: &[Vec<u8>]) -> bool {
    there.forget();
    for packet in packets {
        raw::send(from, packet).expect("sent");
    }
    there.ip_packets().iter().any(|frame| frame.windows(BODY.len()).any(|window| window == BODY))
}

/// An error from `from`: a packet from `to` to `quoted` did not arrive there, or was too big.
fn error(from: IpAddr, (to, port): (IpAddr, u16), quoted: SocketAddr, too_big: bool) -> Vec<u8> {
    let ports = [port.to_be_bytes(), quoted.port().to_be_bytes()].concat();
    let inner = raw::packet(to, quoted.ip(), 6, &[], &[&ports, &[0; 16][..], BODY].concat());
    let (protocol, kind, code) = match (from.is_ipv4(), too_big) {
        (true, false) => (1, 3, 1),
        (true, true) => (1, 3, 4),
        (false, false) => (58, 1, 3),
        (false, true) => (58, 2, 0),
    };
    raw::packet(from, to, protocol, &[], &raw::icmp(from, to, kind, code, [0, 0, 5, 0], &inner))
}

#[test]
fn an_error_about_anothers_flow_passes_nothing_and_one_about_the_own_does() {
    let Some(net) = Net::create(2) else { return };
    let [one, two] = &net.agents[..] else { unreachable!("two sandboxes were made") };
    let (outside, neighbour) = (Capture::start(&net.gw, OUTSIDE_INTERFACE), Capture::start(&net.gw, &two.interface));
    let enforcer = started(&net);
    let routers: [IpAddr; 2] = [UPSTREAM.into(), Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x53).into()];
    let servers: [IpAddr; 2] = [WEB.into(), WEB6.into()];
    for family in 0..2 {
        let (first, second, server, router) = (both(one)[family], both(two)[family], servers[family], routers[family]);
        for session in [first, second] {
            apply(&enforcer, guarded(session));
        }
        apply(&enforcer, pin_ports(second, vec![server], Port::tcp(80), 60 * SECOND));
        let mut stream = two.ns.blocking(|| TcpStream::connect((server, 80))).expect("pinned");
        let flow = stream.local_addr().expect("bound");
        for too_big in [false, true] {
            let of = |who: &Agent, from| passes(&outside, &who.ns, &[error(from, (server, 80), flow, too_big)]);
            assert!(of(two, second), "about its own flow: {second} too_big={too_big}");
            assert!(!of(one, first), "about another's flow: {first} too_big={too_big}");
            let back = error(router, (second, flow.port()), (server, 80).into(), too_big);
            assert!(passes(&neighbour, &net.net, &[back]), "a router's, about its flow: {second} too_big={too_big}");
        }
        // What a monitored session says of a flow does not make it a monitored session's.
        apply(&enforcer, Command::Unpin { session: second, destinations: vec![server] });
        apply(&enforcer, Command::Unguard { session: first });
        assert!(passes(&outside, &one.ns, &[error(first, (server, 80), flow, false)]), "a monitored session's");
        stream.set_read_timeout(Some(5 * SECOND)).expect("timeout");
        stream.write_all(b"GET / HTTP/1.1\r\nHost: www.site.example\r\n\r\n").expect("the flow goes on");
        assert!(stream.read(&mut [0; 16]).expect("it is answered") > 0);
    }
}

/// A packet in two fragments of IPv4, the body in the second.
fn fragments(from: IpAddr, to: IpAddr, protocol: u8, payload: &[u8]) -> Vec<Vec<u8>> {
    let cut = |part: &[u8], place: u16| {
        let mut packet = raw::packet(from, to, protocol, &[], part);
        packet[6..8].copy_from_slice(&place.to_be_bytes());
        packet
    };
    let (first, second) = payload.split_at(8);
    vec![cut(first, 0x2000), cut(second, 1)]
}

#[test]
fn what_is_written_by_hand_passes_without_a_lease_as_little_as_all_else() {
    let Some(net) = Net::create(1) else { return };
    let agent = &net.agents[0];
    let outside = Capture::start(&net.gw, OUTSIDE_INTERFACE);
    let enforcer = started(&net);
    let [v4, v6] = both(agent);
    let udp = |from: IpAddr, to: IpAddr| raw::udp((from, 4000).into(), (to, 80).into(), BODY);
    // Behind an extension header of 8 octets: the next one is UDP.
    let behind = |to: IpAddr, header: u8, rest: [u8; 7]| {
        vec![raw::packet(v6, to, header, &[], &[&[17][..], &rest, &udp(v6, to)].concat())]
    };
    let plain = |to: IpAddr, protocol: u8| {
        let from = if to.is_ipv4() { v4 } else { v6 };
        vec![raw::packet(from, to, protocol, &[], &[&[15, 160, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0][..], BODY].concat())]
    };
    let probes = |to4: IpAddr, to6: IpAddr| {
        let mut probes = vec![
            ("fragments".to_owned(), fragments(v4, to4, 17, &udp(v4, to4))),
            ("fragments of another protocol".to_owned(), fragments(v4, to4, 253, &[&[0; 8][..], BODY].concat())),
            ("a fragment that is whole".to_owned(), behind(to6, 44, [0, 0, 0, 0, 0, 0, 7])),
            ("hop-by-hop options".to_owned(), behind(to6, 0, [0, 1, 4, 0, 0, 0, 0])),
            ("destination options".to_owned(), behind(to6, 60, [0, 1, 4, 0, 0, 0, 0])),
            ("a routing header".to_owned(), behind(to6, 43, [0; 7])),
        ];
        for protocol in [41, 47, 50, 132, 136, 253] {
            probes.push((format!("protocol {protocol}"), plain(to4, protocol)));
            probes.push((format!("protocol {protocol} over IPv6"), plain(to6, protocol)));
        }
        probes
    };
    let nowhere = probes(WEB.into(), WEB6.into());
    for (what, packets) in &nowhere {
        assert!(passes(&outside, &agent.ns, packets), "before it is guarded, {what} passes");
    }
    for (session, server) in [(v4, IpAddr::from(UPSTREAM)), (v6, Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 9).into())]
    {
        apply(&enforcer, guarded(session));
        let ports = Ports::these([Port::tcp(80)]).expect("ports");
        let (destinations, lifetime) = (vec![server], 60 * SECOND);
        apply(&enforcer, Command::Pin { session, destinations, ports, volume: None, lifetime });
    }
    for (what, packets) in &nowhere {
        assert!(!passes(&outside, &agent.ns, packets), "{what} passed without a lease");
    }
    // A lease is of TCP and UDP.
    for (what, packets) in probes(UPSTREAM.into(), Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 9).into()) {
        assert!(!passes(&outside, &agent.ns, &packets), "{what} passed by a lease of TCP");
    }
}
