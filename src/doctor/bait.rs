//! What the host itself would take: sockets of the doctor's own are the services that a sandbox might reach.
//!
//! That a probe did not come to one of them says something only where it would have been heard: each family is tried from this
//! host itself, and [`Bait::hears`] is the control of every probe that is meant for one.

use std::collections::HashSet;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};

use super::packet::{self, Data};
use super::ways::Group;
use super::{sight, space};
use crate::probe;

/// Most probes noted; past it what has come is no longer known, and [`Bait::hears`] says so.
const KEPT: usize = 100_000;
/// Octets read of a datagram, or of what is said first on a connection.
const ROOM: usize = 2048;
/// How often a port is looked for that is free over both transports.
const TRIES: usize = 16;
/// For a datagram from this host to itself.
const PATIENCE: Duration = Duration::from_secs(2);

/// Sockets of the host that a sandbox might reach: a port of TCP and UDP, and the groups of the link.
pub struct Bait {
    /// The port, both transports.
    pub port: u16,
    /// What cannot be listened to, and why: an address, or a family's unspecified one for all of its addresses.
    deaf: Vec<(IpAddr, String)>,
    noted: Arc<Noted>,
    threads: Vec<JoinHandle<()>>,
}

/// Which probes have come.
#[derive(Default)]
struct Noted {
    nonces: Mutex<HashSet<String>>,
    /// Whether one came for which there was no room.
    full: AtomicBool,
    stop: AtomicBool,
}

impl Noted {
    fn note(&self, octets: &[u8], most: usize) {
        let Some(nonce) = sight::nonce(octets) else { return };
        let mut nonces = self.nonces.lock();
        match nonces.len() < most {
            true => drop(nonces.insert(String::from_utf8_lossy(&nonce).into_owned())),
            false => self.full.store(true, Relaxed),
        }
    }

    fn has(&self, nonce: &str) -> bool {
        self.nonces.lock().contains(nonce)
    }
}

impl Bait {
    /// Listens in the calling thread's namespace; joins these groups on these interfaces. Then sends a datagram to each family's
    /// loopback address: a family in which it does not come is deaf. Where nothing of IPv6 is taken from these interfaces there is
    /// nothing to hear.
    ///
    /// # Errors
    ///
    /// Where no port can be had.
    pub fn lay(groups: &[Group], interfaces: &[u32]) -> io::Result<Self> {
        let (listener, datagrams) = both()?;
        let noted = Arc::<Noted>::default();
        let mut bait = Self { port: listener.local_addr()?.port(), deaf: Vec::new(), noted, threads: Vec::new() };
        let mut sockets = vec![datagrams];
        let has_ipv6 = !space::is_without_ipv6(interfaces);
        for group in groups {
            sockets.extend(bait.hear(group.v4.into(), group4(group, interfaces)));
            for interface in interfaces.iter().filter(|_| has_ipv6) {
                sockets.extend(bait.hear(group.v6.into(), group6(group, *interface)));
            }
        }
        for socket in sockets {
            socket.set_read_timeout(Some(Duration::from_millis(50)))?;
            let noted = bait.noted.clone();
            bait.threads.push(std::thread::spawn(move || {
                let mut buffer = [0; ROOM];
                while !noted.stop.load(Relaxed) {
                    if let Ok((length, _)) = socket.recv_from(&mut buffer) {
                        noted.note(&buffer[..length], KEPT);
                    }
                }
            }));
        }
        listener.set_nonblocking(true)?;
        let noted = bait.noted.clone();
        bait.threads.push(std::thread::spawn(move || connections(&listener, &noted)));
        let homes = [Some(Ipv4Addr::LOCALHOST.into()), has_ipv6.then_some(Ipv6Addr::LOCALHOST.into())];
        for home in homes.into_iter().flatten() {
            if let Err(error) = bait.tried(home) {
                bait.deaf.push((any(home), error.to_string()));
            }
        }
        Ok(bait)
    }

    fn hear(&mut self, group: IpAddr, socket: io::Result<UdpSocket>) -> Option<UdpSocket> {
        socket.map_err(|error| self.deaf.push((group, error.to_string()))).ok()
    }

    /// Sends a datagram to itself.
    fn tried(&self, home: IpAddr) -> io::Result<()> {
        let nonce = probe::nonce().map_err(|error| io::Error::other(error.to_string()))?;
        let socket = UdpSocket::bind((any(home), 0))?;
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            socket.send_to(&packet::data(Data::Plain, &nonce), (home, self.port))?;
            std::thread::sleep(Duration::from_millis(20));
            if self.noted.has(&nonce) {
                return Ok(());
            }
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, format!("a datagram from this host to {home} does not come")))
    }

    /// Whether a probe that reaches this host at `to` is heard by it.
    ///
    /// # Errors
    ///
    /// Why not, in words.
    pub fn hears(&self, to: IpAddr) -> Result<(), String> {
        if self.noted.full.load(Relaxed) {
            return Err("too many probes came to this host for all to be noted; try again when there are fewer".into());
        }
        let deaf = self.deaf.iter().find(|(deaf, _)| *deaf == to || *deaf == any(to));
        deaf.map_or(Ok(()), |(_, why)| Err(format!("{to} cannot be listened to on this host ({why})")))
    }

    /// Whether a probe with this nonce has come.
    pub fn took(&self, nonce: &str) -> bool {
        self.noted.has(nonce)
    }
}

impl Drop for Bait {
    fn drop(&mut self) {
        self.noted.stop.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// What stands for every address of this one's family.
fn any(address: IpAddr) -> IpAddr {
    if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

fn connections(listener: &TcpListener, noted: &Noted) {
    while !noted.stop.load(Relaxed) {
        let Ok((mut stream, _)) = listener.accept() else {
            std::thread::sleep(Duration::from_millis(20));
            continue;
        };
        let mut buffer = [0; ROOM];
        let _ = stream.set_nonblocking(false).and_then(|()| stream.set_read_timeout(Some(Duration::from_millis(300))));
        if let Ok(length) = stream.read(&mut buffer) {
            noted.note(&buffer[..length], KEPT);
        }
    }
}

/// One port over both transports and in both families; where there is no IPv6, in the other alone.
fn both() -> io::Result<(TcpListener, UdpSocket)> {
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..TRIES {
        for home in [Ipv6Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into()] {
            match pair(home) {
                Ok(pair) => return Ok(pair),
                Err(error) => last = error,
            }
        }
    }
    Err(last)
}

fn pair(home: IpAddr) -> io::Result<(TcpListener, UdpSocket)> {
    let listener = bound(SocketAddr::new(home, 0), Type::STREAM, Protocol::TCP)?;
    listener.listen(128)?;
    let listener = TcpListener::from(listener);
    let datagrams = bound(listener.local_addr()?, Type::DGRAM, Protocol::UDP)?;
    Ok((listener, datagrams.into()))
}

/// Said, and not left to `net.ipv6.bindv6only`: an IPv6 socket hears IPv4 too.
fn bound(at: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(at), kind.cloexec(), Some(protocol))?;
    if at.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&at.into())?;
    Ok(socket)
}

/// Bound to the group and not to its port alone, so that nothing is taken from a service of the host that has the port.
fn group4(group: &Group, interfaces: &[u32]) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM.cloexec(), Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((group.v4, group.port)).into())?;
    for interface in interfaces {
        socket.join_multicast_v4_n(&group.v4, &InterfaceIndexOrAddress::Index(*interface))?;
    }
    Ok(socket.into())
}

fn group6(group: &Group, interface: u32) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV6, Type::DGRAM.cloexec(), Some(Protocol::UDP))?;
    socket.set_only_v6(true)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from(SocketAddrV6::new(group.v6, group.port, 0, interface)).into())?;
    socket.join_multicast_v6(&group.v6, interface)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::ways::GROUPS;

    #[test]
    fn bait_hears_both_families_over_both_transports() {
        let bait = Bait::lay(&[], &[]).expect("laid");
        for home in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
            // A machine without IPv6 says so.
            if let Err(why) = bait.hears(home) {
                assert!(home.is_ipv6() && UdpSocket::bind((home, 0)).is_err(), "{home}: {why}");
                continue;
            }
            let nonce = probe::nonce().expect("chance");
            assert!(!bait.took(&nonce));
            let mut stream = std::net::TcpStream::connect((home, bait.port)).expect("taken");
            io::Write::write_all(&mut stream, &packet::data(Data::Plain, &nonce)).expect("written");
            let begun = Instant::now();
            while !bait.took(&nonce) {
                assert!(begun.elapsed() < Duration::from_secs(30), "{home}: what was said does not come");
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }

    #[test]
    fn what_cannot_be_listened_to_is_told() {
        // No interface has this number.
        let bait = Bait::lay(&GROUPS, &[u32::MAX]).expect("laid");
        for group in &GROUPS {
            for to in [IpAddr::from(group.v4), group.v6.into()] {
                let why = bait.hears(to).expect_err("deaf");
                assert!(why.contains(&to.to_string()), "{why}");
            }
        }
        assert_eq!(bait.hears([10, 77, 1, 1].into()), Ok(()));
        let mut bait = Bait::lay(&[], &[]).expect("laid");
        bait.deaf = vec![(Ipv6Addr::UNSPECIFIED.into(), "none".into())];
        assert!(bait.hears("fd77:1::1".parse().expect("v6")).is_err() && bait.hears([10, 77, 1, 1].into()).is_ok());
    }

    #[test]
    fn past_its_room_nothing_is_said_to_be_closed() {
        let noted = Noted::default();
        let nonce = |n: u8| format!("sdr{}", char::from(b'a' + n).to_string().repeat(21));
        for n in 0..3 {
            noted.note(nonce(n).as_bytes(), 2);
        }
        noted.note(b"no nonce", 2);
        assert!(noted.has(&nonce(1)) && !noted.has(&nonce(2)) && noted.full.load(Relaxed));
        let bait = Bait { port: 0, deaf: Vec::new(), noted: Arc::new(noted), threads: Vec::new() };
        assert!(bait.hears([10, 77, 1, 1].into()).expect_err("full").contains("too many"));
    }
}
