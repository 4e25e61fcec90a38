//! What the wire has seen of a probe.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::probe::{MARK, NONCE};

/// What is kept of one packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glimpse {
    /// Source; port 0 where it has none that can be read.
    pub from: SocketAddr,
    /// Destination.
    pub to: SocketAddr,
    /// The nonce it carries.
    pub nonce: Option<[u8; NONCE]>,
    /// The sequence number of a connection's first packet.
    pub syn: Option<u32>,
    /// Whom it seeks among its neighbours (a neighbour solicitation, RFC 4861 section 4.3).
    pub seeks: Option<Ipv6Addr>,
}

impl Glimpse {
    /// Whether it may be a probe's.
    pub fn is_of_use(&self) -> bool {
        self.nonce.is_some() || self.syn.is_some() || self.seeks.is_some()
    }
}

/// One packet on one interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The interface's number.
    pub interface: u32,
    /// Whether it went out by it.
    pub outgoing: bool,
    /// The packet.
    pub glimpse: Glimpse,
}

/// What became of one probe.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sight {
    /// Interfaces by which it came in.
    pub arrived: BTreeSet<u32>,
    /// Interfaces by which it went out, other than those.
    pub left: BTreeSet<u32>,
    /// Whether the link was asked who has its address: all that is sent where nobody has it.
    pub sought: bool,
    /// Whether packets were lost unseen.
    pub lossy: bool,
}

/// What of an IP packet is worth keeping; `None` for one that cannot be read. What is no probe has neither nonce nor number.
pub fn read(packet: &[u8]) -> Option<Glimpse> {
    let word = |at: usize| Some(u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?]));
    let (from, to, protocol, at): (IpAddr, IpAddr, u8, usize) = match packet.first()? >> 4 {
        4 => {
            let address = |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?));
            let later = word(6)? & 0x1fff != 0;
            let protocol = if later { 255 } else { *packet.get(9)? };
            (address(12)?.into(), address(16)?.into(), protocol, usize::from(packet[0] & 15) * 4)
        }
        6 => {
            let address = |at: usize| Some(Ipv6Addr::from(<[u8; 16]>::try_from(packet.get(at..at + 16)?).ok()?));
            (address(8)?.into(), address(24)?.into(), *packet.get(6)?, 40)
        }
        _ => return None,
    };
    let ports = matches!(protocol, 6 | 17).then(|| Some((word(at)?, word(at + 2)?))).flatten().unwrap_or((0, 0));
    let syn = (protocol == 6 && packet.get(at + 13).is_some_and(|flags| flags & 0x12 == 2))
        .then(|| Some(u32::from_be_bytes(packet.get(at + 4..at + 8)?.try_into().ok()?)))
        .flatten();
    let solicits = protocol == 58 && packet.get(at) == Some(&135);
    let target = || Some(Ipv6Addr::from(<[u8; 16]>::try_from(packet.get(at + 8..at + 24)?).ok()?));
    Some(Glimpse {
        from: SocketAddr::new(from, ports.0),
        to: SocketAddr::new(to, ports.1),
        nonce: nonce(packet.get(20..)?),
        syn,
        seeks: solicits.then(target).flatten(),
    })
}

/// The first nonce among these octets.
pub(super) fn nonce(octets: &[u8]) -> Option<[u8; NONCE]> {
    let good = |found: &[u8]| found.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let starts = octets.windows(MARK.len()).enumerate().filter(|(_, window)| *window == MARK.as_bytes());
    starts.filter_map(|(at, _)| octets.get(at..at + NONCE)).find(|found| good(found))?.try_into().ok()
}

/// How one probe is known among packets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// By these octets.
    pub nonce: String,
    /// Where it was sent; what a packet's arrival must name.
    pub to: IpAddr,
    /// A connection's own end, or the number that its first packet was given.
    pub dial: Option<Dial>,
    /// For a question in the sandbox's own name: where resolvers answer that have proved to be this node. What goes there has
    /// not left, by whatever interface.
    pub resolvers: Vec<SocketAddr>,
}

/// How the first packet of a connection is known, which carries no octets of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dial {
    /// From this port, to this one.
    Ports(u16, u16),
    /// By its sequence number.
    Number(u32),
}

/// Interfaces that are no way out.
#[derive(Debug, Clone, Default)]
pub struct Inner {
    /// Loopback.
    pub loopback: BTreeSet<u32>,
    /// Those by which the sandbox's packets come in; what goes out there goes to the sandbox.
    pub home: BTreeSet<u32>,
}

/// What these packets, in the order in which they were seen, say of one probe.
pub fn of(mark: &Mark, packets: &[Seen], inner: &Inner, lossy: bool) -> Sight {
    let packets = || packets.iter().filter(|seen| !inner.loopback.contains(&seen.interface));
    let named = |glimpse: &Glimpse| glimpse.nonce.is_some_and(|nonce| nonce == *mark.nonce.as_bytes());
    // A router keeps a segment's number, whatever it makes of addresses and ports.
    let numbers: BTreeSet<u32> = match mark.dial {
        None => BTreeSet::new(),
        Some(Dial::Number(number)) => BTreeSet::from([number]),
        Some(Dial::Ports(from, to)) => packets()
            .filter(|seen| !seen.outgoing && seen.glimpse.from.port() == from)
            .filter(|seen| seen.glimpse.to.ip() == mark.to && seen.glimpse.to.port() == to)
            .filter_map(|seen| seen.glimpse.syn)
            .collect(),
    };
    let ours = |glimpse: &Glimpse| named(glimpse) || glimpse.syn.is_some_and(|number| numbers.contains(&number));
    let sought = packets().any(|seen| !seen.outgoing && seen.glimpse.seeks.is_some_and(|whom| mark.to == whom));
    let mut sight = Sight { sought, lossy, ..Sight::default() };
    for Seen { interface, outgoing, glimpse } in packets().filter(|seen| ours(&seen.glimpse)) {
        match outgoing {
            // What comes in again behind its leaving (a loop of routes, an error that quotes it) has not arrived there.
            false if sight.left.is_empty() && glimpse.to.ip() == mark.to => drop(sight.arrived.insert(*interface)),
            true if mark.resolvers.contains(&glimpse.to) => {}
            true if !sight.arrived.contains(interface) && !inner.home.contains(interface) => {
                sight.left.insert(*interface);
            }
            _ => {}
        }
    }
    sight
}

#[cfg(test)]
mod tests {
    use super::super::packet::{self, Raw};
    use super::*;

    const A: &str = "sdraaaaaaaaaaaaaaaaaaaaa";
    const B: &str = "sdrbbbbbbbbbbbbbbbbbbbbb";

    fn seen(interface: u32, outgoing: bool, raw: Raw, nonce: &str, number: u32) -> Seen {
        let packets = packet::raw(raw, [10, 0, 0, 1].into(), [192, 0, 2, 1].into(), nonce, number);
        Seen { interface, outgoing, glimpse: read(&packets[0]).expect("a packet") }
    }

    fn mark(dial: Option<Dial>) -> Mark {
        Mark { nonce: A.into(), to: [192, 0, 2, 1].into(), dial, resolvers: Vec::new() }
    }

    #[test]
    fn a_datagram_is_followed_by_its_nonce() {
        let udp = Raw::Datagram(53);
        let inner = Inner { loopback: [1].into(), home: BTreeSet::new() };
        let packets = [
            seen(2, false, udp, A, 0),
            seen(2, true, udp, A, 0), // an error quotes it back to where it came from
            seen(1, true, udp, A, 0), // loopback leads nowhere
            seen(3, true, udp, B, 0), // another probe
        ];
        assert_eq!(of(&mark(None), &packets, &inner, false), Sight { arrived: [2].into(), ..Sight::default() });
        let more = [&packets[..], &[seen(3, true, udp, A, 0)]].concat();
        assert_eq!(
            of(&mark(None), &more, &inner, true),
            Sight { arrived: [2].into(), left: [3].into(), sought: false, lossy: true }
        );
        assert_eq!(of(&mark(None), &packets[3..], &inner, false), Sight::default());
        // Sent back by a router outside, it has left all the same; what goes to the sandbox's interface has not.
        let looped =
            [seen(2, false, udp, A, 0), seen(3, true, udp, A, 0), seen(3, false, udp, A, 0), seen(3, true, udp, A, 0)];
        assert_eq!(of(&mark(None), &looped, &inner, false).left, [3].into());
        let home = Inner { home: [3].into(), ..inner };
        assert_eq!(of(&mark(None), &looped, &home, false).left, BTreeSet::new());
    }

    #[test]
    fn what_is_led_to_a_resolver_elsewhere_has_not_left() {
        let inner = Inner::default();
        let resolver = SocketAddr::from(([10, 9, 9, 9], 53));
        let sent = |interface, outgoing, to: [u8; 4], raw| {
            let packets = packet::raw(raw, [10, 0, 0, 1].into(), to.into(), A, 77);
            Seen { interface, outgoing, glimpse: read(&packets[0]).expect("a packet") }
        };
        let home = [192, 0, 2, 1];
        for (raw, dial) in [(Raw::Question, None), (Raw::Syn(53), Some(Dial::Number(77)))] {
            let led = [sent(2, false, home, raw), sent(3, true, [10, 9, 9, 9], raw)];
            let known = Mark { resolvers: vec![resolver], ..mark(dial) };
            assert_eq!(of(&known, &led, &inner, false), Sight { arrived: [2].into(), ..Sight::default() });
            assert_eq!(of(&mark(dial), &led, &inner, false).left, [3].into(), "nobody proved anything");
            let past = [&led[..], &[sent(3, true, home, raw)]].concat();
            assert_eq!(of(&known, &past, &inner, false).left, [3].into(), "a copy that goes elsewhere");
        }
        let other = Raw::Datagram(5353);
        let past = [sent(2, false, home, other), sent(3, true, [10, 9, 9, 9], other)];
        let known = Mark { resolvers: vec![resolver], ..mark(None) };
        assert_eq!(of(&known, &past, &inner, false).left, [3].into(), "another port of that host");
    }

    #[test]
    fn a_connection_is_followed_by_the_number_of_its_first_packet() {
        let syn = Raw::Syn(443);
        let dial = Some(Dial::Ports(packet::PORT, 443));
        let packets = [seen(2, false, syn, A, 77), seen(3, true, syn, B, 78)];
        assert_eq!(
            of(&mark(dial), &packets, &Inner::default(), false),
            Sight { arrived: [2].into(), ..Sight::default() }
        );
        let packets = [seen(2, false, syn, A, 77), seen(3, true, syn, B, 77)];
        assert_eq!(of(&mark(dial), &packets, &Inner::default(), false).left, [3].into());
        let number = Some(Dial::Number(77));
        assert_eq!(of(&mark(number), &packets, &Inner::default(), false).left, [3].into());
        let elsewhere = Some(Dial::Ports(packet::PORT, 444));
        assert_eq!(of(&mark(elsewhere), &packets, &Inner::default(), false), Sight::default());
    }

    #[test]
    fn an_address_that_nobody_has_is_sought_on_the_link() {
        let (own, to) =
            ("fe80::2".parse::<Ipv6Addr>().expect("v6"), "fe80::a9fe:a9fe".parse::<Ipv6Addr>().expect("v6"));
        // RFC 4861 section 4.3: type, code, checksum, reserved, target; behind an IPv6 header.
        let mut packet = vec![0x60, 0, 0, 0, 0, 24, 58, 255];
        packet.extend(own.octets());
        packet.extend("ff02::1:fffe:a9fe".parse::<Ipv6Addr>().expect("v6").octets());
        packet.extend([135, 0, 0, 0, 0, 0, 0, 0]);
        packet.extend(to.octets());
        let glimpse = read(&packet).expect("a packet");
        assert!(glimpse.is_of_use() && glimpse.seeks == Some(to));
        let seen = |outgoing| Seen { interface: 2, outgoing, glimpse: glimpse.clone() };
        let sought = |to: IpAddr, outgoing| of(&Mark { to, ..mark(None) }, &[seen(outgoing)], &Inner::default(), false);
        assert_eq!(sought(to.into(), false), Sight { sought: true, ..Sight::default() });
        assert_eq!(sought(to.into(), true), Sight::default(), "this host seeks it");
        assert_eq!(sought(own.into(), false), Sight::default(), "another is sought");
        packet[40] = 136;
        assert_eq!(read(&packet).expect("a packet").seeks, None, "an advertisement");
    }

    #[test]
    fn any_octets_are_read_without_harm() {
        let good = packet::raw(Raw::Syn(1), [10, 0, 0, 1].into(), [10, 0, 0, 2].into(), A, 1).remove(0);
        for cut in 0..good.len() {
            let _ = read(&good[..cut]);
        }
        for first in 0..=255u8 {
            for length in [1, 20, 40, 60] {
                let _ = read(&vec![first; length]);
            }
        }
        assert_eq!(
            nonce(b"sdrsdraaaaaaaaaaaaaaaaaaaaa rest").as_ref().map(|n| &n[..]),
            Some(&b"sdrsdraaaaaaaaaaaaaaaaaa"[..])
        );
        assert_eq!(nonce(b"sdr-sdraaaaaaaaaaaaaaaaaaaaa").as_ref().map(|n| &n[..]), Some(A.as_bytes()));
    }
}
