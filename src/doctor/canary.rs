//! A host outside that answers probes: where one that works must arrive, and one that is answered has got out.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use super::sight;
use crate::lockdown::OTHER_WAYS;

/// Ports that probes go to: what a lockdown closes by number, the web's, and one of no meaning.
pub const PORTS: [u16; OTHER_WAYS.len() + 2] = {
    let mut ports = [443; OTHER_WAYS.len() + 2];
    let mut at = 0;
    while at < OTHER_WAYS.len() {
        ports[at] = OTHER_WAYS[at];
        at += 1;
    }
    ports[at] = ANY;
    ports
};
/// The port of no meaning.
pub(super) const ANY: u16 = 9000;
/// Connections answered at once; more are closed.
const CONNECTIONS: u32 = 64;
/// How long a connection may say nothing.
const PATIENCE: Duration = Duration::from_secs(5);
/// Octets of a datagram or connection that are answered with themselves. No answer is longer than what it answers, so that
/// nobody is flooded by it in another's name.
const ECHO: usize = 1500;

/// Serves these addresses on every port of [`PORTS`] that can be had, until the process ends. `tell` hears of each that cannot,
/// and once of how many are served.
///
/// # Errors
///
/// Where not a single port can be had.
pub fn serve(addresses: &[IpAddr], tell: impl Fn(&str)) -> io::Result<()> {
    let mut threads = Vec::new();
    let open = Arc::new(AtomicU32::new(0));
    for at in addresses.iter().flat_map(|ip| PORTS.map(|port| SocketAddr::new(*ip, port))) {
        match UdpSocket::bind(at) {
            Ok(socket) => threads.push(std::thread::spawn(move || datagrams(&socket))),
            Err(error) => tell(&format!("{at} over UDP: {error}")),
        }
        match TcpListener::bind(at) {
            Ok(listener) => {
                let open = open.clone();
                threads.push(std::thread::spawn(move || connections(&listener, &open)));
            }
            Err(error) => tell(&format!("{at} over TCP: {error}")),
        }
    }
    if threads.is_empty() {
        return Err(io::Error::new(io::ErrorKind::AddrNotAvailable, "not a single port could be had"));
    }
    tell(&format!("answering probes on {} sockets", threads.len()));
    for thread in threads {
        let _ = thread.join();
    }
    Ok(())
}

fn datagrams(socket: &UdpSocket) {
    let mut buffer = [0; ECHO];
    loop {
        match socket.recv_from(&mut buffer) {
            Ok((length, from)) if is_probe(from, &buffer[..length]) => drop(socket.send_to(&buffer[..length], from)),
            Ok(_) => {}
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// Whether a datagram is worth an answer. One that claims to come from a service (another canary, or this one) would be answered
/// by it, and that answer by us, without end; one that carries no nonce is nobody's probe.
fn is_probe(from: SocketAddr, octets: &[u8]) -> bool {
    from.port() >= 1024 && !PORTS.contains(&from.port()) && sight::nonce(octets).is_some()
}

fn connections(listener: &TcpListener, open: &Arc<AtomicU32>) {
    loop {
        let Ok((mut stream, _)) = listener.accept() else {
            std::thread::sleep(Duration::from_millis(10));
            continue;
        };
        if open.fetch_add(1, Relaxed) >= CONNECTIONS {
            open.fetch_sub(1, Relaxed);
            continue;
        }
        let open = open.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; ECHO];
            let echo = stream.set_read_timeout(Some(PATIENCE)).and_then(|()| stream.read(&mut buffer));
            if let Ok(length) = echo {
                let _ = stream.write_all(&buffer[..length]);
            }
            open.fetch_sub(1, Relaxed);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::packet::{self, Data};
    use super::*;
    use crate::probe;

    #[test]
    fn every_probe_is_answered_and_no_other_datagram() {
        let nonce = probe::nonce().expect("chance");
        let kinds = [Data::Plain, Data::Hello("dot"), Data::Quic, Data::Mdns, Data::Llmnr];
        let probes = kinds.map(|kind| packet::data(kind, &nonce)).into_iter().chain([probe::question(&nonce)]);
        for octets in probes {
            assert!(is_probe(([192, 0, 2, 1], 40_000).into(), &octets), "{octets:?}");
            for port in PORTS.into_iter().chain([0, 7, 1023]) {
                assert!(!is_probe(([192, 0, 2, 1], port).into(), &octets), "from port {port}");
            }
        }
        for other in [&b""[..], b"sdr", b"hello", &[0; 1400]] {
            assert!(!is_probe(([192, 0, 2, 1], 40_000).into(), other), "{other:?}");
        }
    }

    #[test]
    fn two_canaries_do_not_answer_each_other() {
        let nonce = probe::nonce().expect("chance");
        // One stands where a probe can come from, and one at a port of probes, which nobody is answered at.
        let [one, other] = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").expect("a port"));
        let service =
            PORTS.into_iter().filter(|port| *port >= 1024).find_map(|port| UdpSocket::bind(("127.0.0.1", port)).ok());
        let at = one.local_addr().expect("an address");
        std::thread::spawn(move || datagrams(&one));
        let ask = |socket: &UdpSocket| {
            socket.set_read_timeout(Some(Duration::from_millis(500))).expect("set");
            socket.send_to(nonce.as_bytes(), at).expect("sent");
            socket.recv_from(&mut [0; 100])
        };
        other.set_read_timeout(Some(Duration::from_secs(30))).expect("set");
        assert_eq!(ask(&other).expect("answered").0, nonce.len(), "the control");
        let service = service.expect("a port of probes is free");
        assert!(ask(&service).is_err(), "answered at {:?}", service.local_addr());
    }
}
