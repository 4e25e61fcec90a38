//! The list of ways out that are tried, made from what is known of a sandbox's place.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use super::canary;
use super::judge::Aim;
use super::packet::{Data, Raw};
use crate::lockdown::{OTHER_WAYS, TEREDO};
use crate::metadata;

/// A server that nobody has, where no `--canary` is named (RFC 5737, RFC 3849). What is sent there names no host of anybody.
pub const NOWHERE: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(198, 51, 100, 53)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x53))];
/// A source that is no sandbox's.
const STRANGER: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(203, 0, 113, 77)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0x77))];
/// Resolvers that a runtime or a system puts into sandboxes: Docker's, systemd's, whoever listens on loopback.
const EMBEDDED: [Ipv4Addr; 3] =
    [Ipv4Addr::new(127, 0, 0, 11), Ipv4Addr::new(127, 0, 0, 53), Ipv4Addr::new(127, 0, 0, 1)];
/// A group of the link that is asked for names.
#[derive(Debug, Clone, Copy)]
pub struct Group {
    /// The way.
    way: &'static str,
    /// What it tries, in words.
    tries: &'static str,
    /// What is sent.
    data: Data,
    /// The port.
    pub port: u16,
    /// The group over IPv4.
    pub v4: Ipv4Addr,
    /// The group over IPv6.
    pub v6: Ipv6Addr,
}

/// mDNS (RFC 6762) and LLMNR (RFC 4795).
pub const GROUPS: [Group; 2] = [
    Group {
        way: "mdns",
        tries: "asks the link by multicast DNS",
        data: Data::Mdns,
        port: 5353,
        v4: Ipv4Addr::new(224, 0, 0, 251),
        v6: Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb),
    },
    Group {
        way: "llmnr",
        tries: "asks the link by LLMNR",
        data: Data::Llmnr,
        port: 5355,
        v4: Ipv4Addr::new(224, 0, 0, 252),
        v6: Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 3),
    },
];
/// Most addresses of each kind that are tried, in each family.
const EACH: usize = 3;
/// Most services of the host that are tried.
pub const SERVICES: usize = 48;

/// How a probe is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Send {
    /// A question for the token, over UDP or TCP.
    Question {
        /// Over TCP.
        tcp: bool,
    },
    /// A datagram.
    Datagram(Data),
    /// A connection.
    Dial(Data),
    /// An echo request by way of a socket that needs no privilege, where the system allows it.
    Ping,
    /// Packets of its own making, from this source.
    Raw(Raw, IpAddr),
}

/// One probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// The way, with transport and family.
    pub id: String,
    /// What it tries, in words.
    pub tries: &'static str,
    /// Where to.
    pub to: SocketAddr,
    /// How.
    pub send: Send,
    /// What it is about.
    pub aim: Aim,
    /// Whether the canary is there to answer it.
    pub canary: bool,
}

/// What is known of a sandbox's place.
#[derive(Debug, Clone, Default)]
pub struct Place {
    /// The sandbox's own addresses that are no link-local ones.
    pub own: Vec<IpAddr>,
    /// The host's addresses on the sandbox's link.
    pub gateways: Vec<IpAddr>,
    /// The host's link-local address there, with the sandbox's interface.
    pub link_local: Option<(Ipv6Addr, u32)>,
    /// The number of the sandbox's interface.
    pub interface: Option<u32>,
    /// Hosts outside that answer (`--canary`).
    pub canaries: Vec<IpAddr>,
    /// Public resolvers, known by address.
    pub listed: Vec<IpAddr>,
    /// Addresses of other sandboxes.
    pub neighbours: Vec<IpAddr>,
    /// What the sandbox's resolv.conf names.
    pub nameservers: Vec<SocketAddr>,
    /// Whether somebody watches the wire.
    pub watched: bool,
    /// A port of this host on which the doctor itself listens, TCP and UDP.
    pub bait: Option<u16>,
    /// Where this host listens for TCP connections that can come from the sandbox's link, [`SERVICES`] at most.
    pub services: Vec<SocketAddr>,
}

impl Place {
    /// Where probes to somewhere are sent, one of each family: a canary where there is one.
    fn targets(&self) -> Vec<(IpAddr, bool)> {
        let pick = |nowhere: &IpAddr| {
            let canary = self.canaries.iter().find(|canary| canary.is_ipv4() == nowhere.is_ipv4());
            (*canary.unwrap_or(nowhere), canary.is_some())
        };
        NOWHERE.iter().map(pick).collect()
    }

    fn own_like(&self, other: IpAddr) -> Option<IpAddr> {
        self.own.iter().copied().find(|own| own.is_ipv4() == other.is_ipv4())
    }
}

fn family(address: IpAddr) -> char {
    if address.is_ipv4() { '4' } else { '6' }
}

fn each(list: &[IpAddr]) -> impl Iterator<Item = IpAddr> + '_ {
    let some = |v4: bool| list.iter().copied().filter(move |address| address.is_ipv4() == v4).take(EACH);
    some(true).chain(some(false))
}

struct List(Vec<Probe>);

impl List {
    fn add(&mut self, way: &str, tries: &'static str, to: SocketAddr, send: Send, aim: Aim, canary: bool) {
        let over = match send {
            Send::Question { tcp: true } | Send::Dial(_) => "tcp",
            Send::Question { tcp: false } | Send::Datagram(_) => "udp",
            Send::Ping => "ping",
            Send::Raw(..) => "raw",
        };
        let id = format!("{way}-{over}{}", family(to.ip()));
        self.0.push(Probe { id, tries, to, send, aim, canary });
    }

    fn questions(&mut self, way: &str, tries: &'static str, to: SocketAddr, aim: Aim, canary: bool) {
        for tcp in [false, true] {
            self.add(way, tries, to, Send::Question { tcp }, aim, canary);
        }
    }

    fn both(&mut self, way: &str, tries: &'static str, to: SocketAddr, data: Data, canary: bool) {
        self.add(way, tries, to, Send::Datagram(data), Aim::Away, canary);
        self.add(way, tries, to, Send::Dial(data), Aim::Away, canary);
    }
}

/// All probes but those that need a pin.
pub fn all(place: &Place) -> Vec<Probe> {
    let mut list = List(Vec::new());
    for (to, canary) in place.targets() {
        asked(&mut list, to, canary);
        raw(&mut list, place, to);
    }
    known(&mut list, place);
    link(&mut list, place);
    within(&mut list, place);
    list.0
}

/// Other ways to ask, and to say anything at all.
fn asked(list: &mut List, to: IpAddr, canary: bool) {
    let at = |port| SocketAddr::new(to, port);
    for port in OTHER_WAYS {
        by_number(list, at(port), canary);
    }
    list.both("https", "an address that was never resolved, port 443", at(443), Data::Hello("h2"), canary);
    list.add("http3", "the same over QUIC", at(443), Send::Datagram(Data::Quic), Aim::Away, canary);
    list.both("any-port", "an address that was never resolved, any other port", at(canary::ANY), Data::Plain, canary);
    list.add("icmp-payload", "data in an echo request", at(0), Send::Ping, Aim::Away, canary);
}

/// What a lockdown closes by its port, whoever is asked.
fn by_number(list: &mut List, to: SocketAddr, canary: bool) {
    match to.port() {
        53 => list.questions("foreign-dns", "asks another resolver by its address", to, Aim::Resolver, canary),
        853 => {
            list.both("dot", "DNS over TLS (RFC 7858), and DTLS on its port", to, Data::Hello("dot"), canary);
            list.add("doq", "DNS over QUIC (RFC 9250)", to, Send::Datagram(Data::Quic), Aim::Away, canary);
        }
        5353 => list.both("mdns-unicast", "asks an address by multicast DNS's port", to, Data::Mdns, canary),
        5355 => list.both("llmnr-unicast", "asks an address by LLMNR's port", to, Data::Llmnr, canary),
        137 | 138 => list.both("netbios", "asks an address by NetBIOS's ports", to, Data::Plain, canary),
        _ => list.both("other-way", "another port that lockdowns close by number", to, Data::Plain, canary),
    }
}

/// Packets that no socket writes, and sources that are not the sandbox's.
fn raw(list: &mut List, place: &Place, to: IpAddr) {
    let Some(own) = place.own_like(to) else { return };
    let at = |port| SocketAddr::new(to, port);
    let mut add = |way: &str, tries, port, kind, from| {
        list.add(way, tries, at(port), Send::Raw(kind, from), Aim::Away, false);
    };
    add("icmp-payload", "data in an echo request", 0, Raw::Echo, own);
    add("raw-udp", "a datagram written by hand", canary::ANY, Raw::Datagram(canary::ANY), own);
    add("raw-syn", "a connection's first packet written by hand", 443, Raw::Syn(443), own);
    add("fragments", "a datagram in fragments", canary::ANY, Raw::Fragments(canary::ANY), own);
    add("options", "IPv4 options, IPv6 extension headers", canary::ANY, Raw::Options(canary::ANY), own);
    add("gre", "a tunnel (GRE)", 0, Raw::Protocol(47), own);
    add("sctp", "SCTP", 0, Raw::Protocol(132), own);
    add("ip-in-ip", "a tunnel (IPv6 or IPv4 within)", 0, Raw::Protocol(41), own);
    add("ip-protocol", "a protocol for experiments (253)", 0, Raw::Protocol(253), own);
    if own.is_ipv4() {
        add("teredo", "IPv6 within UDP (Teredo)", TEREDO, Raw::Datagram(TEREDO), own);
    }
    for stranger in STRANGER.into_iter().filter(|source| source.is_ipv4() == to.is_ipv4()) {
        add(
            "spoofed-stranger",
            "the source of a host that is no sandbox",
            canary::ANY,
            Raw::Datagram(canary::ANY),
            stranger,
        );
    }
    let neighbours: Vec<IpAddr> = place.neighbours.iter().copied().filter(|n| n.is_ipv4() == to.is_ipv4()).collect();
    for neighbour in neighbours.iter().copied().take(EACH) {
        add("spoofed-neighbour", "the source of another sandbox", canary::ANY, Raw::Datagram(canary::ANY), neighbour);
        add("spoofed-neighbour-syn", "the same, a connection", 443, Raw::Syn(443), neighbour);
    }
    for neighbour in each(&neighbours).chain(STRANGER.into_iter().filter(|s| s.is_ipv4() == to.is_ipv4())) {
        for gateway in place.gateways.iter().copied().filter(|gateway| gateway.is_ipv4() == to.is_ipv4()) {
            let tries = "a question to the resolver in another's name";
            let port = SocketAddr::new(gateway, 53);
            list.add("spoofed-question", tries, port, Send::Raw(Raw::Question, neighbour), Aim::Away, false);
        }
    }
}

/// Addresses that a sandbox may know by heart.
fn known(list: &mut List, place: &Place) {
    for listed in each(&place.listed) {
        let at = |port| SocketAddr::new(listed, port);
        let rewritten = "what a stub does whose resolv.conf was rewritten to a public resolver";
        list.questions("rewritten-resolv-conf", rewritten, at(53), Aim::Resolver, false);
        list.both("doh", "DNS over HTTPS at a public resolver's address", at(443), Data::Hello("h2"), false);
        list.both("listed-dot", "DNS over TLS at a public resolver's address", at(853), Data::Hello("dot"), false);
    }
    for service in metadata::samples() {
        let to = match service {
            // On the sandbox's own link alone. From within, whether anybody there has it cannot be told from a silence.
            IpAddr::V6(v6) if v6.is_unicast_link_local() => match place.interface.filter(|_| place.watched) {
                Some(interface) => SocketAddrV6::new(v6, 80, 0, interface).into(),
                None => continue,
            },
            _ => SocketAddr::new(service, 80),
        };
        list.add("metadata", "a cloud's metadata service", to, Send::Dial(Data::Plain), Aim::Away, false);
    }
    // From within, a neighbour's own refusal looks like the host's.
    for neighbour in each(&place.neighbours).filter(|_| place.watched) {
        list.both(
            "neighbour",
            "another sandbox's address",
            SocketAddr::new(neighbour, canary::ANY),
            Data::Plain,
            false,
        );
    }
}

/// The link and the host at its end.
fn link(list: &mut List, place: &Place) {
    for Group { way, tries, data, port, v4, v6 } in GROUPS {
        list.add(way, tries, (v4, port).into(), Send::Datagram(data), Aim::Link, false);
        if let Some(interface) = place.interface {
            let to = SocketAddrV6::new(v6, port, 0, interface).into();
            list.add(way, tries, to, Send::Datagram(data), Aim::Link, false);
        }
    }
    if let Some((address, interface)) = place.link_local {
        let at = |port| SocketAddrV6::new(address, port, 0, interface).into();
        let tries = "the host's IPv6 link-local address";
        list.questions("link-local-dns", tries, at(53), Aim::Resolver, false);
        if let Some(bait) = place.bait {
            list.both("link-local-host", tries, at(bait), Data::Plain, false);
        }
    }
    if let Some(bait) = place.bait {
        for gateway in each(&place.gateways) {
            list.both("host", "a service of the host", SocketAddr::new(gateway, bait), Data::Plain, false);
        }
    }
    // Asked as a resolver is: where ours listens, it says so.
    for service in place.services.iter().take(SERVICES) {
        list.add("host", "a service of the host", *service, Send::Question { tcp: true }, Aim::Resolver, false);
    }
}

/// The sandbox itself.
fn within(list: &mut List, place: &Place) {
    for embedded in EMBEDDED {
        list.questions("embedded-resolver", "a resolver within the sandbox", (embedded, 53).into(), Aim::Within, false);
    }
    let named = |v4: bool| place.nameservers.iter().copied().filter(move |at| at.is_ipv4() == v4).take(EACH);
    for nameserver in named(true).chain(named(false)) {
        let aim = if nameserver.ip().is_loopback() { Aim::Within } else { Aim::Resolver };
        list.questions("resolv-conf", "what resolv.conf names", nameserver, aim, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_of_the_list_is_tried_in_both_families() {
        let place = Place {
            own: vec!["10.77.1.2".parse().expect("v4"), "fd77:1::2".parse().expect("v6")],
            gateways: vec!["10.77.1.1".parse().expect("v4")],
            link_local: Some(("fe80::1".parse().expect("v6"), 2)),
            interface: Some(2),
            canaries: vec!["203.0.113.9".parse().expect("v4")],
            listed: vec!["8.8.8.8".parse().expect("v4"); 9],
            neighbours: vec!["10.77.2.2".parse().expect("v4"), "fd77:2::2".parse().expect("v6")],
            nameservers: ["10.77.1.1:53", "127.0.0.53:53", "[fe80::1%2]:53"].map(|at| at.parse().expect(at)).into(),
            watched: true,
            bait: Some(7),
            services: vec!["10.77.1.1:22".parse().expect("v4")],
        };
        let all = all(&place);
        let count = |id: &str| all.iter().filter(|probe| probe.id == id).count();
        for way in [
            "foreign-dns-udp",
            "foreign-dns-tcp",
            "dot-tcp",
            "doq-udp",
            "https-tcp",
            "http3-udp",
            "any-port-udp",
            "mdns-udp",
            "llmnr-udp",
            "icmp-payload-raw",
            "icmp-payload-ping",
            "fragments-raw",
            "options-raw",
            "gre-raw",
            "sctp-raw",
            "spoofed-neighbour-raw",
            "spoofed-stranger-raw",
            "neighbour-tcp",
            "metadata-tcp",
        ] {
            assert!(count(&format!("{way}4")) > 0 && count(&format!("{way}6")) > 0, "{way}");
        }
        for (id, times) in [
            ("doh-tcp4", EACH),
            ("rewritten-resolv-conf-udp4", EACH),
            ("embedded-resolver-udp4", 3),
            ("resolv-conf-tcp4", 2),
            ("resolv-conf-tcp6", 1),
            ("link-local-dns-udp6", 1),
            ("link-local-host-tcp6", 1),
            ("host-udp4", 1),
            ("host-tcp4", 2),
            ("netbios-udp4", 2),
            ("metadata-tcp4", metadata::V4.len()),
            ("metadata-tcp6", metadata::V6.len()),
            ("spoofed-question-raw4", 2),
        ] {
            assert_eq!(count(id), times, "{id}");
        }
        // Whatever a lockdown closes by number is tried by number, over both transports.
        for port in OTHER_WAYS {
            for over in ["udp4", "udp6", "tcp4", "tcp6"] {
                let tried = |probe: &Probe| {
                    probe.to.port() == port && probe.id.ends_with(over) && probe.tries != "a service of the host"
                };
                assert!(all.iter().any(tried), "{port} {over}");
            }
        }
        let unnamed = all.iter().find(|probe| probe.id.starts_with("other-way"));
        assert_eq!(unnamed, None, "a port without a name of its own");
        // A canary is asked where there is one, nobody elsewhere.
        let canary = |probe: &&Probe| probe.id == "dot-tcp4" && probe.canary && probe.to.ip() == place.canaries[0];
        assert!(all.iter().any(|probe| canary(&probe)));
        assert!(all.iter().any(|probe| probe.id == "dot-tcp6" && !probe.canary && probe.to.ip() == NOWHERE[1]));
        assert!(all.len() < super::super::report::ROWS / 2, "{}", all.len());
        assert!(super::all(&Place::default()).len() > 30, "without anything known, much is tried all the same");
    }
}
