//! The socket of one datagram to an upstream: fresh, with a port that Linux draws among the ephemeral ones, and connected,
//! so that only the upstream's address and port get through.
//!
//! It is watched only once the datagram has left: what a new socket is ready for at first, to send, nobody waits for.

// Octets from outside are read here: nothing may panic on them.
#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::indexing_slicing,
        clippy::string_slice
    )
)]

use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::FailKind;
use super::exchange::kind_of;
use super::random;

/// Largest datagram taken, octets. Above anything we advertise, so that a longer one shows as mangled, not as cut.
const MAX_DATAGRAM: usize = 4096;

/// A datagram, or word that nobody is there.
const HEARD: Interest = Interest::READABLE.add(Interest::ERROR);

thread_local! {
    static ARRIVED: RefCell<[u8; MAX_DATAGRAM]> = const { RefCell::new([0; MAX_DATAGRAM]) };
}

/// A port that nothing was sent from.
pub(super) struct Port(UdpSocket);

/// A port that a query has left from.
pub(super) struct Sent(AsyncFd<UdpSocket>);

impl Port {
    /// Opens one, connected to `upstream`.
    pub(super) fn open(upstream: SocketAddr) -> Result<Self, FailKind> {
        let kind = Type::DGRAM.nonblocking().cloexec();
        let socket =
            Socket::new(Domain::for_address(upstream), kind, Some(Protocol::UDP)).map_err(|_| FailKind::Local)?;
        // Connecting a socket without a port draws one.
        socket.connect(&upstream.into()).map_err(|error| kind_of(&error))?;
        Ok(Self(socket.into()))
    }

    /// Our address as the upstream sees it from here.
    pub(super) fn local(&self) -> io::Result<IpAddr> {
        Ok(self.0.local_addr()?.ip())
    }

    /// Sends the query. Must run inside a tokio runtime with I/O.
    pub(super) fn send(self, query: &[u8]) -> Result<Sent, FailKind> {
        self.0.send(query).map_err(|error| kind_of(&error))?;
        // SAFETY: the socket is ours alone, and its descriptor stays the same open one until it is dropped.
        let watched = unsafe { AsyncFd::register_with_interest(self.0, HEARD) };
        watched.map(Sent).map_err(|_| FailKind::Local)
    }
}

impl Sent {
    /// The next datagram that the upstream's address sends here.
    pub(super) async fn receive(&self) -> Result<Vec<u8>, FailKind> {
        loop {
            let mut ready = self.0.ready(HEARD).await.map_err(|_| FailKind::Local)?;
            let arrived = ready.try_io(|socket| {
                ARRIVED.with_borrow_mut(|octets| {
                    let length = socket.get_ref().recv(octets)?;
                    Ok(octets.get(..length).unwrap_or_default().to_vec())
                })
            });
            // Else there was nothing in spite of the notice.
            if let Ok(arrived) = arrived {
                return arrived.map_err(|error| kind_of(&error));
            }
        }
    }
}

/// An id from the kernel's generator.
pub(super) fn random_id() -> Result<u16, FailKind> {
    let mut id = [0; 2];
    random::fill(&mut id).ok_or(FailKind::Local)?;
    Ok(u16::from_be_bytes(id))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[tokio::test]
    async fn each_datagram_has_a_port_of_its_own_and_only_the_upstream_gets_through() {
        let upstream = UdpSocket::bind("127.0.0.1:0").expect("loopback");
        let stranger = UdpSocket::bind("127.0.0.1:0").expect("loopback");
        let to = upstream.local_addr().expect("address");
        let mut ports = HashSet::new();
        for turn in 0..100u8 {
            let port = Port::open(to).expect("a socket");
            assert_eq!(port.local().expect("address"), to.ip());
            let sent = port.send(&[turn]).expect("sent");
            let mut octets = [0; 16];
            let (length, from) = upstream.recv_from(&mut octets).expect("it comes");
            assert_eq!(&octets[..length], [turn]);
            ports.insert(from.port());
            // Refused by the socket, which is connected to somebody else.
            stranger.send_to(b"stranger", from).expect("sent");
            upstream.send_to(b"", from).expect("sent");
            upstream.send_to(b"answer", from).expect("sent");
            assert_eq!(sent.receive().await, Ok(Vec::new()));
            assert_eq!(sent.receive().await, Ok(b"answer".to_vec()));
        }
        // A hundred draws from some 28,000 ports hold few equal ones.
        assert!(ports.len() > 95, "{} ports", ports.len());
    }

    #[tokio::test]
    async fn a_closed_port_is_heard() {
        let gone = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("an address");
        let sent = Port::open(gone).expect("a socket").send(b"query").expect("sent");
        assert_eq!(sent.receive().await, Err(FailKind::Unreachable));
    }
}
