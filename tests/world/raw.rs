//! Packets and frames as a hostile sandbox writes them: every octet of its own choice.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;

use socket2::{Domain, Protocol, Socket, Type};

use super::capture;
use super::ns::Ns;

/// A packet with these octets behind the IP header; `options` of IPv4 must fill whole words.
pub fn packet(from: IpAddr, to: IpAddr, protocol: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            assert_eq!(options.len() % 4, 0, "whole words");
            let words = 5 + options.len() / 4;
            let length = (words * 4 + payload.len()) as u16;
            let mut packet = vec![0x40 | words as u8, 0];
            packet.extend(length.to_be_bytes());
            packet.extend([0x12, 0x34, 0, 0, 64, protocol, 0, 0]);
            packet.extend(from.octets());
            packet.extend(to.octets());
            packet.extend(options);
            let sum = checksum(&packet).to_be_bytes();
            packet[10..12].copy_from_slice(&sum);
            packet.extend(payload);
            packet
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            assert!(options.is_empty(), "IPv6 has extension headers");
            let mut packet = vec![0x60, 0, 0, 0];
            packet.extend((payload.len() as u16).to_be_bytes());
            packet.extend([protocol, 64]);
            packet.extend(from.octets());
            packet.extend(to.octets());
            packet.extend(payload);
            packet
        }
        _ => panic!("one family"),
    }
}

/// A UDP datagram with its checksum.
pub fn udp(from: SocketAddr, to: SocketAddr, data: &[u8]) -> Vec<u8> {
    let length = (8 + data.len()) as u16;
    let mut datagram = Vec::new();
    datagram.extend(from.port().to_be_bytes());
    datagram.extend(to.port().to_be_bytes());
    datagram.extend(length.to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(data);
    let sum = pseudo(from.ip(), to.ip(), 17, &datagram).to_be_bytes();
    datagram[6..8].copy_from_slice(&sum);
    datagram
}

/// An ICMP or ICMPv6 message: type, code, four octets, body; checksum filled in.
pub fn icmp(from: IpAddr, to: IpAddr, kind: u8, code: u8, rest: [u8; 4], body: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0];
    message.extend(rest);
    message.extend(body);
    let sum = if from.is_ipv4() { checksum(&message) } else { pseudo(from, to, 58, &message) };
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

/// An ARP message in a frame: `who` says of itself that it has `says`, to `of`.
pub fn arp(ether: [u8; 6], operation: u16, who: [u8; 6], says: Ipv4Addr, of: Ipv4Addr) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(ether);
    frame.extend([0x08, 0x06, 0, 1, 0x08, 0, 6, 4]);
    frame.extend(operation.to_be_bytes());
    frame.extend(who);
    frame.extend(says.octets());
    frame.extend([0; 6]);
    frame.extend(of.octets());
    frame.resize(60, 0);
    frame
}

/// An unsolicited neighbour advertisement to all nodes: `who` says that `target` is there.
pub fn advertisement(who: [u8; 6], from: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let all = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let mut body = target.octets().to_vec();
    body.extend([2, 1]);
    body.extend(who);
    // Override, so that it replaces what is known.
    let message = icmp(from.into(), all.into(), 136, 0, [0x20, 0, 0, 0], &body);
    let mut packet = packet(from.into(), all.into(), 58, &[], &message);
    packet[7] = 255;
    let mut frame = vec![0x33, 0x33, 0, 0, 0, 1];
    frame.extend(who);
    frame.extend([0x86, 0xdd]);
    frame.extend(packet);
    frame
}

/// An Ethernet frame around an IP packet.
pub fn frame(to: [u8; 6], from: [u8; 6], packet: &[u8]) -> Vec<u8> {
    let mut frame = to.to_vec();
    frame.extend(from);
    frame.extend(if packet[0] >> 4 == 4 { [0x08, 0x00] } else { [0x86, 0xdd] });
    frame.extend(packet);
    frame
}

/// Sends a whole packet, header included, by the namespace's routing.
pub fn send(ns: &Ns, packet: &[u8]) -> io::Result<()> {
    let (domain, to) = match packet[0] >> 4 {
        4 => (Domain::IPV4, IpAddr::from(<[u8; 4]>::try_from(&packet[16..20]).expect("an address"))),
        _ => (Domain::IPV6, IpAddr::from(<[u8; 16]>::try_from(&packet[24..40]).expect("an address"))),
    };
    ns.blocking(|| {
        let socket = Socket::new(domain, Type::RAW.cloexec(), Some(Protocol::from(libc::IPPROTO_RAW)))?;
        socket.send_to(packet, &SocketAddr::new(to, 0).into()).map(drop)
    })
}

/// Sends a frame out of an interface.
pub fn send_frame(ns: &Ns, interface: &str, frame: &[u8]) -> io::Result<()> {
    ns.blocking(|| {
        let socket = capture::open(interface)?;
        // SAFETY: the frame is as long as said and lives through the call.
        let sent = unsafe { libc::send(socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        if sent == frame.len() as isize { Ok(()) } else { Err(io::Error::last_os_error()) }
    })
}

fn pseudo(from: IpAddr, to: IpAddr, protocol: u8, payload: &[u8]) -> u16 {
    let mut whole = Vec::new();
    for address in [from, to] {
        match address {
            IpAddr::V4(v4) => whole.extend(v4.octets()),
            IpAddr::V6(v6) => whole.extend(v6.octets()),
        }
    }
    whole.extend([0, protocol]);
    whole.extend((payload.len() as u16).to_be_bytes());
    whole.extend(payload);
    checksum(&whole)
}

/// RFC 1071.
fn checksum(octets: &[u8]) -> u16 {
    let words = octets.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
