//! ICMP errors: a sandbox's about its own flows are heard, and about nobody else's.

use std::net::{TcpStream, UdpSocket};

use super::*;

/// The other end of a question that is not answered.
const SILENT: u16 = 7007;

/// An ICMP error from `from` to `at`: a datagram from there to `quoted` was refused.
fn refusal(from: IpAddr, at: SocketAddr, quoted: SocketAddr) -> Vec<u8> {
    let inner = raw::packet(at.ip(), quoted.ip(), 17, &[], &raw::udp(at, quoted, b"quoted"));
    let (protocol, kind, code) = if from.is_ipv4() { (1, 3, 3) } else { (58, 1, 4) };
    raw::packet(from, at.ip(), protocol, &[], &raw::icmp(from, at.ip(), kind, code, [0; 4], &inner))
}

fn bound(at: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind(at).expect("a port");
    socket.set_read_timeout(Some(SECOND / 2)).expect("a timeout");
    socket
}

/// Whether a socket hears that nobody is there.
fn hears(socket: &UdpSocket) -> bool {
    socket.recv(&mut [0; 64]).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

#[test]
fn a_sandbox_ends_no_question_of_the_host_and_no_flow_of_another() {
    let Some(world) = create(2) else { return };
    hear_all(&world);
    let [one, two] = &world.agents[..] else { unreachable!("two sandboxes were made") };
    let outside = Capture::start(&world.gw, OUTSIDE_INTERFACE);
    stand_in(&world.gw, "");
    let silent = SocketAddr::from((UPSTREAM, SILENT));
    let _silent = world.net.blocking(|| bound(silent));
    // A question of this host, which the sandbox says was refused; and an answer to the sandbox that it did refuse.
    let foreign = || {
        let socket = world.gw.blocking(|| bound(([0, 0, 0, 0], 0).into()));
        socket.connect(silent).and_then(|()| socket.send(b"question")).expect("sent");
        let packet = refusal(one.address.into(), socket.local_addr().expect("bound"), silent);
        raw::send(&one.ns, &packet).expect("sent");
        hears(&socket)
    };
    let own = || {
        let resolver = world.gw.blocking(|| bound((one.gateway, 53).into()));
        let stub = one.ns.blocking(|| bound((one.address, 0).into()));
        stub.send_to(b"question", (one.gateway, 53)).expect("sent");
        let (_, from) = resolver.recv_from(&mut [0; 64]).expect("asked");
        drop(stub);
        resolver.connect(from).and_then(|()| resolver.send(b"answer")).expect("sent");
        hears(&resolver)
    };
    let begun_here = || {
        let socket = world.gw.blocking(|| bound((one.gateway, 0).into()));
        socket.connect((one.address, SILENT)).and_then(|()| socket.send(b"question")).expect("sent");
        hears(&socket)
    };
    let stream = two.ns.blocking(|| TcpStream::connect((WEB, 80))).expect("a connection");
    let flow = stream.local_addr().expect("bound");
    let says = |agent: &Agent| {
        let inner = [&[0, 80][..], &flow.port().to_be_bytes(), &[0; 16], b"carried away"].concat();
        let inner = raw::packet(WEB.into(), flow.ip(), 6, &[], &inner);
        let error = raw::icmp(agent.address.into(), WEB.into(), 3, 1, [0; 4], &inner);
        let packet = raw::packet(agent.address.into(), WEB.into(), 1, &[], &error);
        seen(&outside, |p| p.ends_with(b"carried away"), || raw::send(&agent.ns, &packet).expect("sent"))
    };
    assert!(foreign() && own() && begun_here() && says(one) && says(two), "without the lockdown");
    apply(&world, &BOUND);
    assert!(!foreign(), "bound: a question of this host is ended by a sandbox");
    assert!(own() && begun_here(), "bound: errors about its own flows are heard");
    assert!(says(two) && !says(one), "bound: errors about a forwarded flow are its ends' alone");
    // Without addresses no rule can tell one sandbox's flow from another's: the service's own chain does.
    apply(&world, &ROUTED);
    assert!(!foreign(), "routed: a question of this host is ended by a sandbox");
    assert!(own() && says(two), "routed: errors about its own flows are heard");
}
