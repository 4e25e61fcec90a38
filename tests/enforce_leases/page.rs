//! The ports of a web page, which are one element.

use std::net::{Ipv6Addr, SocketAddr, TcpListener, UdpSocket};

use super::gateway::*;
use super::{BATCH, ends, kept, renew};
use staunch::enforce::{Active, Class, Command, Open};
use staunch::ports::{Opening, Port, Ports};

/// Whether a port of `to` can be reached.
fn reaches(world: &World, from: &str, to: &str, port: Port) -> bool {
    let (from, to) = (SocketAddr::new(ip(from), 0), SocketAddr::new(ip(to), port.number));
    match port.protocol.as_str() {
        "tcp" => world.inside("a", move || dial(from, to)).0.is_ok(),
        _ => world.inside("a", move || {
            let socket = UdpSocket::bind(from).and_then(|socket| socket.connect(to).map(|()| socket)).expect("socket");
            socket.set_read_timeout(Some(SECOND)).expect("timeout");
            match socket.send(b"?").and_then(|_| socket.recv(&mut [0; 8])) {
                Ok(_) => true,
                // The table's word for what no protocol says itself, IPv4 and IPv6.
                Err(error) => {
                    let heard = [libc::ECONNREFUSED, libc::EHOSTUNREACH, libc::EACCES];
                    assert!(error.raw_os_error().is_some_and(|code| heard.contains(&code)), "{port}: {error}");
                    false
                }
            }
        }),
    }
}

/// Listens on more ports of the server, for as long as the test runs.
fn listen(world: &World) -> Vec<TcpListener> {
    // Bound to one address each, so that it answers from there.
    for server in [SERVER, SERVER_6] {
        let socket = world.inside("s", move || UdpSocket::bind((ip(server), 443)).expect("socket"));
        socket.set_read_timeout(Some(30 * SECOND)).expect("timeout");
        std::thread::spawn(move || {
            let mut octets = [0; 8];
            while let Ok((length, from)) = socket.recv_from(&mut octets) {
                let _ = socket.send_to(&octets[..length], from);
            }
        });
    }
    let listener = |port| TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).expect("a port");
    world.inside("s", move || [443, 8443].map(listener).into())
}

#[test]
fn the_ports_of_a_page_are_one_lease_and_open_nothing_else() {
    if skip() {
        return;
    }
    let world = World::new();
    let _listeners = listen(&world);
    let enforcer = world.start(as_is);
    let [http, https, quic] = Opening::WEB;
    for (agent, server, other, set) in [(AGENT, SERVER, SERVER_2, "web4"), (AGENT_6, SERVER_6, SERVER_6_2, "web6")] {
        let beyond = [Port::tcp(8443), Port::udp(53)];
        // Without the packet filter all of it answers.
        assert!(Opening::WEB.into_iter().chain(beyond).all(|port| reaches(&world, agent, server, port)));
        apply(&enforcer, guard(agent));
        apply(&enforcer, lease(agent, server, Ports::web(), None));
        assert!(world.holds(set, &format!("{agent} . {server}")));
        assert!(Opening::WEB.into_iter().all(|port| reaches(&world, agent, server, port)));
        assert!(!beyond.into_iter().any(|port| reaches(&world, agent, server, port)), "no page's");
        assert!(!reaches(&world, agent, other, https), "another address");
        // A port more is a lease beside it, and goes with the address.
        apply(&enforcer, lease(agent, server, Ports::these([Port::tcp(8443)]).expect("ports"), None));
        assert!(reaches(&world, agent, server, Port::tcp(8443)) && reaches(&world, agent, server, http));
        apply(&enforcer, Command::Unpin { session: ip(agent), destinations: vec![ip(server)] });
        assert!(![http, https, quic, Port::tcp(8443)].into_iter().any(|port| reaches(&world, agent, server, port)));
    }
}

#[test]
fn a_policy_that_leaves_one_port_of_a_page_ends_the_others_alone() {
    if skip() {
        return;
    }
    let world = World::new();
    let _listeners = listen(&world);
    let enforcer = world.start(as_is);
    let [http, https, quic] = Opening::WEB;
    for (agent, server) in [(AGENT, SERVER), (AGENT_6, SERVER_6)] {
        apply(&enforcer, guard(agent));
        apply(&enforcer, lease(agent, server, Ports::web(), None));
        let closed = world.connects(agent, server);
        let only = Ports::these([https]).expect("ports");
        apply(&enforcer, renew(agent, BATCH, vec![kept(server, only)]));
        assert!(reaches(&world, agent, server, https), "as long as it was open");
        assert!(!reaches(&world, agent, server, http) && !reaches(&world, agent, server, quic));
        ends(closed);
        // Opened anew it is a page again.
        apply(&enforcer, lease(agent, server, Ports::web(), None));
        assert!(Opening::WEB.into_iter().all(|port| reaches(&world, agent, server, port)));
    }
}

#[test]
fn a_page_is_found_again_by_the_next_process() {
    if skip() {
        return;
    }
    let world = World::new();
    let first = world.start(as_is);
    apply(&first, guard(AGENT));
    apply(&first, lease(AGENT, SERVER, Ports::web(), None));
    apply(&first, lease(AGENT, SERVER, Ports::these([Port::tcp(22)]).expect("ports"), None));
    apply(&first, lease(AGENT, SERVER_2, Ports::Any, None));
    first.shutdown(false).expect("stops");
    let second = world.start(as_is);
    let active = vec![Active { session: ip(AGENT), guard: Some(Class(1)), quarantined: false }];
    second.reconcile(active).expect("taken").wait_blocking(5 * SECOND).expect("reconciled");
    let view = second.view(ip(AGENT)).expect("taken").wait_blocking(5 * SECOND).expect("answered");
    let mut held: Vec<(_, Opening)> =
        view.pins.iter().map(|Open { destination, open, .. }| (*destination, *open)).collect();
    held.sort_unstable();
    let ssh = Opening::One(Port::tcp(22));
    let mut wanted = [(ip(SERVER), Opening::Web), (ip(SERVER), ssh), (ip(SERVER_2), Opening::Any)];
    wanted.sort_unstable();
    assert_eq!(held, wanted);
    world.connects(AGENT, SERVER);
}
