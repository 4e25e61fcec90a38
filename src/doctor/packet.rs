//! Octets of probes. Every one carries its nonce where a name, a token or plain text may stand, so that a packet is known by
//! its octets wherever it is seen.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::{checksum, probe};

/// UDP (RFC 768).
pub const UDP: u8 = 17;
/// Port that raw probes are sent from.
pub const PORT: u16 = 40_000;

/// What a datagram or a connection carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Data {
    /// Text.
    Plain,
    /// A TLS 1.3 ClientHello (RFC 8446) that asks for this protocol (RFC 7301).
    Hello(&'static str),
    /// What a QUIC client sends first (RFC 9000 section 17.2.2), as far as a filter can tell.
    Quic,
    /// A question for a name below `local` (RFC 6762).
    Mdns,
    /// A question for a single label (RFC 4795).
    Llmnr,
}

/// What a packet of its own making is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Raw {
    /// A datagram to a port, from a source of any choice.
    Datagram(u16),
    /// A question for the token.
    Question,
    /// A datagram in two fragments.
    Fragments(u16),
    /// The same behind IPv4 options (a recorded route), or behind IPv6 destination options.
    Options(u16),
    /// The first packet of a connection.
    Syn(u16),
    /// An echo request that carries data.
    Echo,
    /// Another protocol: its number.
    Protocol(u8),
}

/// The octets of a datagram or of what is said first on a connection.
pub fn data(data: Data, nonce: &str) -> Vec<u8> {
    match data {
        Data::Plain => plain(nonce),
        Data::Hello(protocol) => hello(nonce, protocol),
        Data::Quic => quic(nonce),
        Data::Mdns => lookup(&[nonce, "local"]),
        Data::Llmnr => lookup(&[nonce]),
    }
}

fn plain(nonce: &str) -> Vec<u8> {
    format!("staunch doctor {nonce}").into_bytes()
}

/// A query for addresses.
fn lookup(labels: &[&str]) -> Vec<u8> {
    let mut query = vec![0x53, 0x44, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in labels {
        query.push(label.len() as u8); // nonces have 24 characters
        query.extend(label.as_bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    query
}

fn with_length(octets: Vec<u8>) -> Vec<u8> {
    let mut all = (octets.len() as u16).to_be_bytes().to_vec();
    all.extend(octets);
    all
}

fn hello(nonce: &str, protocol: &str) -> Vec<u8> {
    let extension = |kind: u16, body: Vec<u8>| [kind.to_be_bytes().to_vec(), with_length(body)].concat();
    let name = format!("{nonce}.invalid").into_bytes();
    let server_name = with_length([vec![0], with_length(name)].concat());
    let alpn = with_length([vec![protocol.len() as u8], protocol.as_bytes().to_vec()].concat());
    let share = with_length([vec![0, 0x1d], with_length(vec![9; 32])].concat());
    let extensions = [
        extension(0, server_name),
        extension(10, vec![0, 2, 0, 0x1d]),
        extension(13, vec![0, 2, 8, 7]),
        extension(16, alpn),
        extension(43, vec![2, 3, 4]),
        extension(51, share),
    ]
    .concat();
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0x13, 1, 1, 0]);
    body.extend(with_length(extensions));
    let message = [vec![1, 0], with_length(body)].concat();
    [vec![0x16, 3, 1], with_length(message)].concat()
}

fn quic(nonce: &str) -> Vec<u8> {
    // Long header, Initial, version 1, connection ids of eight octets, the nonce as the token.
    let mut packet = vec![0xc3, 0, 0, 0, 1, 8, 1, 2, 3, 4, 5, 6, 7, 8, 8, 8, 7, 6, 5, 4, 3, 2, 1];
    packet.push(nonce.len() as u8);
    packet.extend(nonce.as_bytes());
    let rest = 1200 - packet.len() - 2;
    packet.extend((0x4000 | rest as u16).to_be_bytes());
    packet.resize(1200, 0);
    packet
}

/// The packets of a raw probe, IP headers included; none where the family has no such thing. `syn` is the sequence number.
pub fn raw(raw: Raw, from: IpAddr, to: IpAddr, nonce: &str, syn: u32) -> Vec<Vec<u8>> {
    let (source, v4) = (SocketAddr::new(from, PORT), from.is_ipv4());
    let datagram = |port| udp(source, SocketAddr::new(to, port), &plain(nonce));
    let one = |protocol, payload: &[u8]| ip(from, to, protocol, &[], 0, payload).into_iter().collect();
    match raw {
        Raw::Question => one(UDP, &udp(source, SocketAddr::new(to, 53), &probe::question(nonce))),
        Raw::Datagram(port) => one(UDP, &datagram(port)),
        Raw::Syn(port) => one(6, &tcp_syn(source, SocketAddr::new(to, port), syn)),
        Raw::Echo => one(if v4 { 1 } else { 58 }, &echo(from, to, &plain(nonce))),
        Raw::Protocol(protocol) => one(protocol, &[&[0, 0, 8, 0][..], &plain(nonce)].concat()),
        Raw::Options(port) if v4 => {
            // Record route with room for one address (RFC 791 section 3.1).
            ip(from, to, UDP, &[7, 7, 4, 0, 0, 0, 0, 1], 0, &datagram(port)).into_iter().collect()
        }
        Raw::Options(port) => {
            // Destination options with padding alone (RFC 8200 section 4.6).
            one(60, &[&[UDP, 0, 1, 4, 0, 0, 0, 0][..], &datagram(port)].concat())
        }
        Raw::Fragments(port) => {
            fragments(from, to, &udp(source, SocketAddr::new(to, port), &[plain(nonce), plain(nonce)].concat()))
        }
    }
}

/// Two fragments of one datagram: both carry the nonce.
fn fragments(from: IpAddr, to: IpAddr, datagram: &[u8]) -> Vec<Vec<u8>> {
    let cut = datagram.len() / 2 / 8 * 8 + 8;
    let (first, second) = datagram.split_at(cut.min(datagram.len()));
    let behind = (cut / 8) as u16;
    if from.is_ipv4() {
        let both = [(0x2000, first), (behind, second)];
        return both.into_iter().filter_map(|(field, part)| ip(from, to, UDP, &[], field, part)).collect();
    }
    let header = |field: u16| [&[UDP, 0][..], &field.to_be_bytes(), &[0x53, 0x44, 0x52, 1]].concat();
    let both = [(1, first), (behind << 3, second)];
    both.into_iter()
        .filter_map(|(field, part)| ip(from, to, 44, &[], 0, &[&header(field)[..], part].concat()))
        .collect()
}

/// A packet; `None` for two families. `options` fill whole words; `fragment` is the IPv4 field of flags and offset.
fn ip(from: IpAddr, to: IpAddr, protocol: u8, options: &[u8], fragment: u16, payload: &[u8]) -> Option<Vec<u8>> {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let words = 5 + options.len() / 4;
            let mut packet = vec![0x40 | words as u8, 0];
            packet.extend(((words * 4 + payload.len()) as u16).to_be_bytes());
            packet.extend([0x53, 0x44]);
            packet.extend(fragment.to_be_bytes());
            packet.extend([64, protocol, 0, 0]);
            packet.extend(from.octets());
            packet.extend(to.octets());
            packet.extend(options);
            let sum = checksum::internet(&packet).to_be_bytes();
            packet[10..12].copy_from_slice(&sum);
            packet.extend(payload);
            Some(packet)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let mut packet = vec![0x60, 0, 0, 0];
            packet.extend((payload.len() as u16).to_be_bytes());
            packet.extend([protocol, 64]);
            packet.extend(from.octets());
            packet.extend(to.octets());
            packet.extend(payload);
            Some(packet)
        }
        _ => None,
    }
}

fn udp(from: SocketAddr, to: SocketAddr, data: &[u8]) -> Vec<u8> {
    let mut datagram = from.port().to_be_bytes().to_vec();
    datagram.extend(to.port().to_be_bytes());
    datagram.extend(((8 + data.len()) as u16).to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(data);
    let sum = pseudo(from.ip(), to.ip(), UDP, &datagram).to_be_bytes();
    datagram[6..8].copy_from_slice(&sum);
    datagram
}

fn tcp_syn(from: SocketAddr, to: SocketAddr, sequence: u32) -> Vec<u8> {
    let mut segment = from.port().to_be_bytes().to_vec();
    segment.extend(to.port().to_be_bytes());
    segment.extend(sequence.to_be_bytes());
    // No acknowledgement; five words; SYN; a window.
    segment.extend([0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]);
    let sum = pseudo(from.ip(), to.ip(), 6, &segment).to_be_bytes();
    segment[16..18].copy_from_slice(&sum);
    segment
}

fn echo(from: IpAddr, to: IpAddr, data: &[u8]) -> Vec<u8> {
    let v4 = from.is_ipv4();
    let mut message = vec![if v4 { 8 } else { 128 }, 0, 0, 0, 0x53, 0x44, 0, 1];
    message.extend(data);
    let sum = if v4 { checksum::internet(&message) } else { pseudo(from, to, 58, &message) };
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

fn pseudo(from: IpAddr, to: IpAddr, protocol: u8, payload: &[u8]) -> u16 {
    let octets = |address| match address {
        IpAddr::V4(v4) => std::net::Ipv4Addr::octets(&v4).to_vec(),
        IpAddr::V6(v6) => Ipv6Addr::octets(&v6).to_vec(),
    };
    let mut whole = [octets(from), octets(to)].concat();
    whole.extend([0, protocol]);
    whole.extend((payload.len() as u16).to_be_bytes());
    whole.extend(payload);
    checksum::internet(&whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: &str = "sdrabcdefghijklmnopqrstu";

    #[test]
    fn every_probe_carries_its_nonce() {
        let carried = |octets: &[u8]| octets.windows(NONCE.len()).filter(|window| *window == NONCE.as_bytes()).count();
        for kind in [Data::Plain, Data::Hello("dot"), Data::Quic, Data::Mdns, Data::Llmnr] {
            assert_eq!(carried(&data(kind, NONCE)), 1, "{kind:?}");
        }
        let (v4, v6): (IpAddr, IpAddr) = ([10, 0, 0, 1].into(), Ipv6Addr::LOCALHOST.into());
        for kind in [Raw::Datagram(9), Raw::Question, Raw::Options(9), Raw::Echo, Raw::Protocol(47), Raw::Fragments(9)]
        {
            for address in [v4, v6] {
                let packets = raw(kind, address, address, NONCE, 7);
                assert_eq!(packets.len(), if matches!(kind, Raw::Fragments(_)) { 2 } else { 1 }, "{kind:?}");
                for packet in packets {
                    assert!(carried(&packet) >= 1, "{kind:?}: {packet:?}");
                }
            }
            assert!(raw(kind, v4, v6, NONCE, 7).is_empty(), "{kind:?} of two families");
        }
        assert_eq!(data(Data::Quic, NONCE).len(), 1200, "RFC 9000 section 14.1");
    }

    #[test]
    fn a_syn_is_known_by_its_number() {
        let to = SocketAddr::from(([10, 0, 0, 2], 443));
        let packets = raw(Raw::Syn(443), [10, 0, 0, 1].into(), to.ip(), NONCE, 0xdead_beef);
        let glimpse = super::super::sight::read(&packets[0]).expect("an IP packet");
        assert_eq!(glimpse.syn, Some(0xdead_beef));
        assert_eq!((glimpse.from, glimpse.to), (SocketAddr::from(([10, 0, 0, 1], PORT)), to));
    }

    #[test]
    fn lengths_of_a_hello_fit() {
        let hello = data(Data::Hello("h2"), NONCE);
        let word = |at: usize| usize::from(u16::from_be_bytes([hello[at], hello[at + 1]]));
        assert_eq!(word(3), hello.len() - 5, "record");
        assert_eq!((hello[5], word(7)), (1, hello.len() - 9), "handshake");
    }
}
