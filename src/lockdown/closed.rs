//! What a lockdown closes by number, in one place.

/// Ports of other ways to ask: DNS, NetBIOS names and datagrams, DNS over TLS and over QUIC, mDNS, LLMNR.
pub(super) const OTHER_WAYS: [u16; 6] = [53, 137, 138, 853, 5353, 5355];

/// UDP port of Teredo servers (RFC 4380 section 2.7).
pub(super) const TEREDO: u16 = 3544;

/// Addresses at which clouds hand out credentials and settings to whoever asks, IPv4, sorted: Alibaba's, Azure's wire
/// server, every link-local one (most clouds, and what container services put beside it), Oracle's.
pub(super) const METADATA4: [&str; 4] = ["100.100.100.200", "168.63.129.16", "169.254.0.0/16", "192.0.0.192"];

/// The same over IPv6: Amazon's, Google's, and the link-local one of OpenStack.
pub(super) const METADATA6: [&str; 3] = ["fd00:ec2::254", "fd20:ce::254", "fe80::a9fe:a9fe"];

/// ICMP errors (RFC 792): never echoes, redirects or timestamps.
pub(super) const ICMP4_ERRORS: [&str; 3] = ["destination-unreachable", "time-exceeded", "parameter-problem"];

/// ICMPv6 errors (RFC 4443); without packet-too-big there is no path MTU.
pub(super) const ICMP6_ERRORS: [&str; 4] =
    ["destination-unreachable", "packet-too-big", "time-exceeded", "parameter-problem"];

/// Neighbour discovery that a host takes part in (RFC 4861). No router advertisement and no redirect comes from a
/// sandbox.
pub(super) const NEIGHBOURS: [&str; 3] = ["nd-router-solicit", "nd-neighbor-solicit", "nd-neighbor-advert"];

/// Reports of multicast listeners (RFC 2710, RFC 3810).
pub(super) const MULTICAST_REPORTS: [&str; 3] =
    ["mld-listener-report", "mld-listener-reduction", "mld2-listener-report"];
