//! What a lockdown closes by number, in one place.

/// Ports of other ways to ask: DNS, NetBIOS names and datagrams, DNS over TLS and over QUIC, mDNS, LLMNR.
pub(crate) const OTHER_WAYS: [u16; 6] = [53, 137, 138, 853, 5353, 5355];

/// UDP port of Teredo servers (RFC 4380 section 2.7).
pub(crate) const TEREDO: u16 = 3544;

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
