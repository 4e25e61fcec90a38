//! Sends a probe from the calling thread's network namespace and says what was heard.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use super::judge::{Aim, Heard};
use super::packet;
use super::sight::Dial;
use super::ways::{Probe, Send};
use crate::probe;

/// How a probe ended for its sender.
#[derive(Debug, Clone)]
pub struct Sent {
    /// What was heard.
    pub heard: Heard,
    /// How its connection is known on the wire.
    pub dial: Option<Dial>,
}

impl From<Heard> for Sent {
    fn from(heard: Heard) -> Self {
        Self { heard, dial: None }
    }
}

/// What a probe carries and how long it waits.
#[derive(Debug, Clone, Copy)]
pub struct Terms<'a> {
    /// Its nonce.
    pub nonce: &'a str,
    /// A number of chance, for packets that have no room for a nonce.
    pub number: u32,
    /// The text that proves an answer to be this node's.
    pub proof: Option<&'a str>,
    /// How long is waited for a word.
    pub patience: Duration,
    /// How many routers a connection's packets may pass; any number without one.
    pub hops: Option<u32>,
}

/// Sends it.
pub fn send(probe: &Probe, terms: &Terms<'_>) -> Sent {
    match probe.send {
        Send::Question { tcp: false } => question(probe.to, terms).into(),
        Send::Question { tcp: true } => dial(probe.to, &probe::framed(&probe::question(terms.nonce)), terms, true),
        Send::Datagram(data) => datagram(probe.to, &packet::data(data, terms.nonce), terms, probe.aim).into(),
        Send::Dial(data) => dial(probe.to, &packet::data(data, terms.nonce), terms, false),
        Send::Ping => ping(probe.to, terms).into(),
        Send::Raw(kind, from) => {
            let packets = packet::raw(kind, from, probe.to.ip(), terms.nonce, terms.number);
            let dial = matches!(kind, packet::Raw::Syn(_)).then_some(Dial::Number(terms.number));
            Sent { heard: raw(probe.to.ip(), &packets), dial }
        }
    }
}

/// The system's words, without its number.
fn words(error: &io::Error) -> String {
    let text = error.to_string();
    text.split_once(" (os error").map_or(text.clone(), |(words, _)| words.to_lowercase())
}

fn any(to: SocketAddr) -> SocketAddr {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    SocketAddr::new(any, 0)
}

/// Before a packet is on its way.
fn unsent(error: &io::Error) -> Heard {
    let why = words(error);
    match error.raw_os_error() {
        Some(libc::ENETUNREACH | libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL | libc::ENODEV | libc::EINVAL) => {
            Heard::NoRoute(why)
        }
        Some(libc::EACCES) => Heard::NotAllowed(why),
        // What has come back of an earlier packet.
        Some(libc::ECONNREFUSED | libc::EHOSTUNREACH) => Heard::Refused(why),
        _ => Heard::Unsent(why),
    }
}

/// A word of ICMP that a port is closed, which its own host gives: what it answers has arrived there.
pub fn is_from_the_end(heard: &Heard) -> bool {
    let refused = words(&io::Error::from_raw_os_error(libc::ECONNREFUSED));
    matches!(heard, Heard::Refused(why) if *why == refused)
}

/// Behind it.
fn heard(error: &io::Error) -> Heard {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Heard::Silent,
        _ => Heard::Refused(words(error)),
    }
}

fn question(to: SocketAddr, terms: &Terms<'_>) -> Heard {
    let query = probe::question(terms.nonce);
    exchange(to, &query, terms).map_or_else(|heard| heard, |reply| answered(&reply, &query, terms))
}

fn answered(reply: &[u8], query: &[u8], terms: &Terms<'_>) -> Heard {
    let said = probe::text_of(reply, query);
    Heard::Answered { by_us: said.is_some() && said.as_deref() == terms.proof }
}

/// One datagram, and whatever comes back for it.
fn exchange(to: SocketAddr, octets: &[u8], terms: &Terms<'_>) -> Result<Vec<u8>, Heard> {
    let socket = UdpSocket::bind(any(to)).map_err(|error| unsent(&error))?;
    limit(&socket2::SockRef::from(&socket), to, terms.hops).map_err(|error| unsent(&error))?;
    socket.connect(to).and_then(|()| socket.send(octets)).map_err(|error| unsent(&error))?;
    receive(&socket, terms.patience)
}

/// Lets packets pass so many routers and no more.
fn limit(socket: &Socket, to: SocketAddr, hops: Option<u32>) -> io::Result<()> {
    match (hops, to) {
        (Some(hops), SocketAddr::V4(_)) => socket.set_ttl_v4(hops),
        (Some(hops), SocketAddr::V6(_)) => socket.set_unicast_hops_v6(hops),
        (None, _) => Ok(()),
    }
}

fn receive(socket: &UdpSocket, patience: Duration) -> Result<Vec<u8>, Heard> {
    let mut buffer = vec![0; 4096];
    socket.set_read_timeout(Some(patience)).map_err(|error| unsent(&error))?;
    let (length, _) = socket.recv_from(&mut buffer).map_err(|error| heard(&error))?;
    buffer.truncate(length);
    Ok(buffer)
}

fn datagram(to: SocketAddr, octets: &[u8], terms: &Terms<'_>, aim: Aim) -> Heard {
    let reply = match aim {
        // Members of a group answer from addresses of their own.
        Aim::Link => UdpSocket::bind(any(to))
            .and_then(|socket| socket.send_to(octets, to).map(|_| socket))
            .map_or_else(|error| Err(unsent(&error)), |socket| receive(&socket, terms.patience)),
        _ => exchange(to, octets, terms),
    };
    reply.map_or_else(|heard| heard, |_| Heard::Taken)
}

/// The text of the token as a resolver gives it, over UDP, else over TCP.
pub fn token(to: SocketAddr, nonce: &str, patience: Duration) -> Option<String> {
    let terms = Terms { nonce, number: 0, proof: None, patience, hops: None };
    let query = probe::question(nonce);
    let over_udp = exchange(to, &query, &terms).ok().and_then(|reply| probe::text_of(&reply, &query));
    over_udp.or_else(|| {
        let mut stream = TcpStream::connect_timeout(&to, patience).ok()?;
        probe::text_of(&framed_reply(&mut stream, &query, patience).ok()?, &query)
    })
}

/// A reply to any question, over UDP.
pub fn ask(to: SocketAddr, query: &[u8], patience: Duration) -> Option<Vec<u8>> {
    let terms = Terms { nonce: "", number: 0, proof: None, patience, hops: None };
    exchange(to, query, &terms).ok().filter(|reply| probe::answers(reply, query))
}

fn framed_reply(stream: &mut TcpStream, query: &[u8], patience: Duration) -> io::Result<Vec<u8>> {
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    stream.write_all(&probe::framed(query))?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut reply = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut reply)?;
    Ok(reply)
}

fn dial(to: SocketAddr, first: &[u8], terms: &Terms<'_>, is_question: bool) -> Sent {
    let (socket, own) = match opened(to, terms) {
        Ok(opened) => opened,
        Err(error) => return unsent(&error).into(),
    };
    let dial = Some(Dial::Ports(own, to.port()));
    let started = Instant::now();
    if let Err(error) = socket.connect_timeout(&to.into(), terms.patience) {
        let heard = match error.raw_os_error() {
            Some(libc::ENETUNREACH | libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT | libc::EINVAL) => {
                Heard::NoRoute(words(&error))
            }
            Some(libc::EPERM) => Heard::Unsent(words(&error)),
            // Its time to live may have ended on the way: no refusal.
            Some(libc::EHOSTUNREACH) if terms.hops.is_some() => Heard::Silent,
            _ => heard(&error),
        };
        return Sent { heard, dial };
    }
    let mut stream = TcpStream::from(socket);
    let left = terms.patience.saturating_sub(started.elapsed()).max(Duration::from_millis(50));
    let heard = match is_question {
        true => {
            let query = probe::question(terms.nonce);
            let reply = framed_reply(&mut stream, &query, terms.patience.max(Duration::from_secs(1)));
            reply.map_or(Heard::Taken, |reply| answered(&reply, &query, terms))
        }
        false => {
            // Said, so that whoever took the connection is seen to carry it on; not waited for.
            let _ = stream.set_write_timeout(Some(left)).and_then(|()| stream.write_all(first));
            Heard::Taken
        }
    };
    Sent { heard, dial }
}

/// A socket with a port of its own, not yet connected.
fn opened(to: SocketAddr, terms: &Terms<'_>) -> io::Result<(Socket, u16)> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM.cloexec(), Some(Protocol::TCP))?;
    limit(&socket, to, terms.hops)?;
    socket.bind(&any(to).into())?;
    let own = socket.local_addr()?.as_socket().map_or(0, |address| address.port());
    Ok((socket, own))
}

/// An echo request that needs no privilege where `net.ipv4.ping_group_range` allows it.
fn ping(to: SocketAddr, terms: &Terms<'_>) -> Heard {
    let (protocol, kind) = if to.is_ipv4() { (Protocol::ICMPV4, 8) } else { (Protocol::ICMPV6, 128) };
    let socket = match Socket::new(Domain::for_address(to), Type::DGRAM.cloexec(), Some(protocol)) {
        Ok(socket) => socket,
        Err(error) => return Heard::NotAllowed(words(&error)),
    };
    if let Err(error) = limit(&socket, to, terms.hops) {
        return unsent(&error);
    }
    let mut message = vec![kind, 0, 0, 0, 0, 1, 0, 1];
    message.extend(packet::data(packet::Data::Plain, terms.nonce));
    if let Err(error) = socket.connect(&to.into()).and_then(|()| socket.send(&message)) {
        return unsent(&error);
    }
    if let Err(error) = socket.set_read_timeout(Some(terms.patience)) {
        return Heard::Unsent(words(&error));
    }
    match (&socket).read(&mut [0; 2048]) {
        Ok(1..) => Heard::Taken,
        Ok(_) => Heard::Silent,
        Err(error) => heard(&error),
    }
}

/// A datagram to a group by one interface, by name and number; errors are no concern of the caller's.
pub fn by_interface(name: &str, number: u32, nonce: &str) {
    let octets = packet::data(packet::Data::Plain, nonce);
    let v6 = std::net::SocketAddrV6::new(ALL_NODES6, 9, 0, number);
    let _ = UdpSocket::bind(any(v6.into())).and_then(|socket| socket.send_to(&octets, v6));
    let v4 = Socket::new(Domain::IPV4, Type::DGRAM.cloexec(), Some(Protocol::UDP));
    let bound = v4.and_then(|socket| socket.bind_device(Some(name.as_bytes())).map(|()| socket));
    let _ = bound.and_then(|socket| socket.send_to(&octets, &SocketAddr::from((ALL_NODES4, 9)).into()));
}

/// Every node of a link.
pub const ALL_NODES4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 1);
/// The same in IPv6.
pub const ALL_NODES6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// Packets of our own making. Nothing is heard of them: a forged one's answer goes to somebody else. What the kernel finds
/// wrong with one says nothing of the way.
fn raw(to: IpAddr, packets: &[Vec<u8>]) -> Heard {
    let domain = if to.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = match Socket::new(domain, Type::RAW.cloexec(), Some(Protocol::from(libc::IPPROTO_RAW))) {
        Ok(socket) => socket,
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => return Heard::NotAllowed(words(&error)),
        Err(error) => return unsent(&error),
    };
    for packet in packets {
        match socket.send_to(packet, &SocketAddr::new(to, 0).into()) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return Heard::Unsent(words(&error)),
            Err(error) => return unsent(&error),
            Ok(_) => {}
        }
    }
    Heard::Silent
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_that_the_kernel_finds_wrong_was_not_sent() {
        // As root alone; without the right nothing else is heard either.
        let broken = vec![0x4f; 8];
        let heard = raw(Ipv4Addr::LOCALHOST.into(), &[broken]);
        assert!(matches!(heard, Heard::Unsent(_) | Heard::NotAllowed(_)), "{heard:?}");
        let whole =
            packet::raw(packet::Raw::Datagram(9), Ipv4Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into(), "x", 0);
        let heard = raw(Ipv4Addr::LOCALHOST.into(), &whole);
        assert!(matches!(heard, Heard::Silent | Heard::NotAllowed(_)), "{heard:?}");
    }
}
