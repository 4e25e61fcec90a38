//! The port of one datagram to an upstream: fresh, drawn by Linux among the ephemeral ones, and of a socket that is connected,
//! so that only the upstream's address and port get through.
//!
//! A port is for one query, the socket behind it is not: once the answer has come, the socket is disconnected, which gives
//! the port up, and waits for the next query, which has another port drawn for it. To make and end a socket, and to have it
//! watched, costs as much as all else about a query to the kernel. A socket that has heard anything but its answer is closed.
//!
//! A new socket is watched only once the datagram has left: what it is ready for at first, to send, nobody waits for.

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
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
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

/// Sockets without a port, by address family, that wait for a query.
#[derive(Default)]
pub(super) struct Ports {
    /// At most.
    most: usize,
    v4: Mutex<Vec<AsyncFd<UdpSocket>>>,
    v6: Mutex<Vec<AsyncFd<UdpSocket>>>,
}

/// A port that nothing was sent from.
pub(super) struct Port(Made);

enum Made {
    Now(UdpSocket),
    Before(AsyncFd<UdpSocket>),
}

/// A port that a query has left from.
pub(super) struct Sent(AsyncFd<UdpSocket>);

impl Ports {
    /// Keeps at most `most` sockets.
    pub(super) fn keeping(most: usize) -> Self {
        // Half for each family.
        Self { most: most / 2, ..Self::default() }
    }

    fn of(&self, upstream: SocketAddr) -> &Mutex<Vec<AsyncFd<UdpSocket>>> {
        if upstream.is_ipv4() { &self.v4 } else { &self.v6 }
    }

    /// A fresh port, connected to `upstream`.
    pub(super) fn open(&self, upstream: SocketAddr) -> Result<Port, FailKind> {
        let kept = self.of(upstream).lock().pop();
        // Connecting a socket without a port draws one.
        if let Some(socket) = kept {
            socket.get_ref().connect(upstream).map_err(|error| kind_of(&error))?;
            return Ok(Port(Made::Before(socket)));
        }
        let kind = Type::DGRAM.nonblocking().cloexec();
        let socket =
            Socket::new(Domain::for_address(upstream), kind, Some(Protocol::UDP)).map_err(|_| FailKind::Local)?;
        socket.connect(&upstream.into()).map_err(|error| kind_of(&error))?;
        Ok(Port(Made::Now(socket.into())))
    }

    /// Takes the socket back of a port whose query was answered, and nothing else has come there. The port is given up.
    pub(super) fn close(&self, sent: Sent, upstream: SocketAddr) {
        // Else it is closed, and the port with it.
        if disconnect(sent.0.get_ref()).is_ok() && is_silent(&sent.0) {
            let mut kept = self.of(upstream).lock();
            if kept.len() < self.most {
                kept.push(sent.0);
            }
        }
    }
}

/// Gives up peer and port (connect(2): a peer of the family AF_UNSPEC): nothing gets to the socket any more.
fn disconnect(socket: &UdpSocket) -> io::Result<()> {
    let nobody = libc::sockaddr { sa_family: libc::AF_UNSPEC as libc::sa_family_t, sa_data: [0; 14] };
    let length = size_of_val(&nobody) as libc::socklen_t;
    // SAFETY: the descriptor is open as long as `socket` is borrowed, and `nobody` is an address of that length.
    let done = unsafe { libc::connect(socket.as_raw_fd(), &raw const nobody, length) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whether nothing waits in a socket that nothing gets to. Then it is watched for what comes from now on.
fn is_silent(socket: &AsyncFd<UdpSocket>) -> bool {
    let take = |socket: &AsyncFd<UdpSocket>| socket.get_ref().recv(&mut [0]);
    match socket.poll_read_ready(&mut Context::from_waker(Waker::noop())) {
        // What it was ready for has been read; this is what takes the notice back.
        Poll::Ready(Ok(mut ready)) => ready.try_io(take).is_err(),
        Poll::Ready(Err(_)) => false,
        Poll::Pending => take(socket).is_err_and(|error| error.kind() == ErrorKind::WouldBlock),
    }
}

impl Port {
    fn socket(&self) -> &UdpSocket {
        match &self.0 {
            Made::Now(socket) => socket,
            Made::Before(socket) => socket.get_ref(),
        }
    }

    /// Our address as the upstream sees it from here.
    pub(super) fn local(&self) -> io::Result<IpAddr> {
        Ok(self.socket().local_addr()?.ip())
    }

    /// Sends the query. Must run inside a tokio runtime with I/O.
    pub(super) fn send(self, query: &[u8]) -> Result<Sent, FailKind> {
        self.socket().send(query).map_err(|error| kind_of(&error))?;
        match self.0 {
            Made::Before(watched) => Ok(Sent(watched)),
            Made::Now(socket) => {
                // SAFETY: the socket is ours alone, and its descriptor stays the same open one until it is dropped.
                let watched = unsafe { AsyncFd::register_with_interest(socket, HEARD) };
                watched.map(Sent).map_err(|_| FailKind::Local)
            }
        }
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
        for kept in [0, 8] {
            let all = Ports::keeping(kept);
            let mut ports = HashSet::new();
            for turn in 0..100u8 {
                let port = all.open(to).expect("a socket");
                assert_eq!(matches!(port.0, Made::Before(_)), kept > 0 && turn > 0);
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
                all.close(sent, to);
                // Nobody is there any more.
                upstream.send_to(b"late", from).expect("sent");
            }
            // A hundred draws from some 28,000 ports hold few equal ones.
            assert!(ports.len() > 95, "{} ports", ports.len());
        }
    }

    #[tokio::test]
    async fn a_socket_in_which_something_waits_is_not_used_again() {
        let upstream = UdpSocket::bind("127.0.0.1:0").expect("loopback");
        let to = upstream.local_addr().expect("address");
        let all = Ports::keeping(8);
        for answers in [1, 2] {
            let sent = all.open(to).and_then(|port| port.send(b"query")).expect("sent");
            let (_, from) = upstream.recv_from(&mut [0; 16]).expect("it comes");
            for _ in 0..answers {
                upstream.send_to(b"answer", from).expect("sent");
            }
            assert_eq!(sent.receive().await, Ok(b"answer".to_vec()));
            all.close(sent, to);
            assert_eq!(all.v4.lock().len(), usize::from(answers == 1));
        }
        // No more than are to be kept.
        let sent: Vec<_> = (0..8).map(|_| all.open(to).and_then(|port| port.send(b"query")).expect("sent")).collect();
        for sent in sent {
            let (_, from) = upstream.recv_from(&mut [0; 16]).expect("it comes");
            upstream.send_to(b"answer", from).expect("sent");
            assert_eq!(sent.receive().await, Ok(b"answer".to_vec()));
            all.close(sent, to);
        }
        assert_eq!(all.v4.lock().len(), 4);
    }

    #[tokio::test]
    async fn a_closed_port_is_heard() {
        let gone = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("an address");
        let all = Ports::keeping(8);
        for _ in 0..2 {
            let sent = all.open(gone).expect("a socket").send(b"query").expect("sent");
            assert_eq!(sent.receive().await, Err(FailKind::Unreachable));
        }
        // As it is on a socket that was used before.
        let upstream = UdpSocket::bind("127.0.0.1:0").expect("loopback");
        let to = upstream.local_addr().expect("address");
        let sent = all.open(to).and_then(|port| port.send(b"query")).expect("sent");
        let (_, from) = upstream.recv_from(&mut [0; 16]).expect("it comes");
        upstream.send_to(b"answer", from).expect("sent");
        assert_eq!(sent.receive().await, Ok(b"answer".to_vec()));
        all.close(sent, to);
        let sent = all.open(gone).expect("a socket").send(b"query").expect("sent");
        assert_eq!(sent.receive().await, Err(FailKind::Unreachable));
    }
}
