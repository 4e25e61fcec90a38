//! The rebinding guard: which addresses may be shown and pinned, and which names only mean something inside.
//!
//! Address blocks follow the IANA special-purpose registries (RFC 6890): what they call not globally reachable is not
//! public. Two deliberate readings: the documentation blocks (RFC 5737, RFC 3849, RFC 9637) count as public, since no
//! host of an operator's network lives in them and a pin to one opens nothing; the benchmarking block 198.18.0.0/15
//! (RFC 2544) does not, since laboratories route it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use staunch_scoring::{NameBuf, NameRef};

use super::AnswerRules;
use crate::lists::RuleForm;
use crate::nat64::{self, Nat64};
use crate::range::IpRange;

/// Leave to show and pin addresses that are not public: names both the names and the ranges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowRange {
    /// Names asked for; where an alias leads is not what counts, or anybody's alias could borrow the rule.
    pub names: RuleForm,
    /// Ranges they may answer with.
    pub ranges: Vec<IpRange>,
}

/// What may happen with an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Showing {
    /// Shown and pinned.
    Pin,
    /// Shown, never pinned.
    Show,
    /// Neither.
    Hide,
}

impl AnswerRules {
    /// What may happen with `addr` in an answer to `qname`. One that leads to an IPv4 address by a NAT64 is judged as that
    /// address, whichever prefix it stands behind.
    pub(super) fn showing(&self, qname: NameRef<'_>, addr: IpAddr) -> Showing {
        let end = self.behind_nat64(addr);
        // They say which prefix there is and lead nowhere (RFC 7050 section 3).
        let tells_prefix = matches!(end.unwrap_or(addr), IpAddr::V4(v4) if nat64::WELL_KNOWN.contains(&v4));
        if tells_prefix && qname.as_wire() == nat64::IPV4ONLY {
            return Showing::Show;
        }
        if is_public(end.unwrap_or(addr)) && !self.is_own(addr) {
            return Showing::Pin;
        }
        let within = |range: &IpRange| range.contains(addr) || end.is_some_and(|end| range.contains(end));
        let allowed = self.allow_ranges.iter().any(|a| a.names.covers(qname) && a.ranges.iter().any(within));
        if allowed {
            return Showing::Pin;
        }
        let loopback = matches!(addr, IpAddr::V4(v4) if v4.is_loopback());
        if loopback && self.show_loopback.iter().any(|zone| qname.is_at_or_below(zone.as_ref())) {
            return Showing::Show;
        }
        Showing::Hide
    }

    /// Whether `addr` may be reached by `qname`, shown or not.
    pub fn pins(&self, qname: NameRef<'_>, addr: IpAddr) -> bool {
        self.showing(qname, addr) == Showing::Pin
    }

    /// Whether `addr` may be shown in an answer to `qname`.
    pub fn may_show(&self, qname: NameRef<'_>, addr: IpAddr) -> bool {
        self.showing(qname, addr) != Showing::Hide
    }

    /// Whether `name` is of a zone with upstreams of its own, which those who are asked about `qname` are not.
    pub(super) fn is_beyond(&self, qname: NameRef<'_>, name: NameRef<'_>) -> bool {
        let zone = self.zone_apart(name);
        zone.is_some() && zone != self.zone_apart(qname)
    }

    /// Whether `qname` is of such a zone and `name` is not.
    pub(super) fn leads_out(&self, qname: NameRef<'_>, name: NameRef<'_>) -> bool {
        let zone = self.zone_apart(qname);
        zone.is_some() && zone != self.zone_apart(name)
    }

    /// The zone with upstreams of its own that holds `name`.
    fn zone_apart(&self, name: NameRef<'_>) -> Option<&NameBuf> {
        let holding = self.apart.iter().filter(|zone| name.is_at_or_below(zone.as_ref()));
        holding.max_by_key(|zone| zone.as_ref().label_count())
    }

    /// Whether a rule lets `qname` answer with anything that is not public.
    pub(super) fn names_inside(&self, qname: NameRef<'_>) -> bool {
        self.allow_ranges.iter().any(|a| a.names.covers(qname))
    }

    /// The IPv4 address that `addr` leads to by a NAT64.
    pub fn behind_nat64(&self, addr: IpAddr) -> Option<IpAddr> {
        let IpAddr::V6(v6) = addr else { return None };
        let mut prefixes = self.nat64.iter().chain([&Nat64::WELL_KNOWN]);
        prefixes.find_map(|prefix| prefix.embedded(v6)).map(IpAddr::V4)
    }

    fn is_own(&self, addr: IpAddr) -> bool {
        if self.own.is_empty() {
            return false;
        }
        let wrapped = match addr {
            IpAddr::V6(v6) => wrapped_v4(v6),
            IpAddr::V4(_) => [None; 2],
        };
        let translated = self.behind_nat64(addr);
        let ends = wrapped.into_iter().flatten().map(IpAddr::V4).chain(translated).chain([addr]);
        self.own.iter().any(|own| ends.clone().any(|end| end == *own))
    }
}

fn v4_in(addr: Ipv4Addr, base: Ipv4Addr, prefix: u8) -> bool {
    (addr.to_bits() ^ base.to_bits()).checked_shr(32 - u32::from(prefix)).unwrap_or(0) == 0
}

fn v6_in(addr: Ipv6Addr, base: Ipv6Addr, prefix: u8) -> bool {
    (addr.to_bits() ^ base.to_bits()).checked_shr(128 - u32::from(prefix)).unwrap_or(0) == 0
}

/// IPv4 blocks that are not public.
const INSIDE_V4: [([u8; 4], u8); 14] = [
    ([0, 0, 0, 0], 8),          // this network (RFC 791); 0.0.0.0 reaches the host itself
    ([10, 0, 0, 0], 8),         // private (RFC 1918)
    ([100, 64, 0, 0], 10),      // shared by carriers (RFC 6598); holds one cloud's metadata service
    ([127, 0, 0, 0], 8),        // loopback
    ([168, 63, 129, 16], 32),   // a cloud's in-host service behind an address that looks public
    ([169, 254, 0, 0], 16),     // link local (RFC 3927); holds most clouds' metadata services
    ([172, 16, 0, 0], 12),      // private (RFC 1918)
    ([192, 0, 0, 0], 24),       // protocol assignments (RFC 6890); holds one cloud's metadata service
    ([192, 88, 99, 0], 24),     // 6to4 relays, given up (RFC 7526)
    ([192, 168, 0, 0], 16),     // private (RFC 1918)
    ([198, 18, 0, 0], 15),      // benchmarking (RFC 2544)
    ([224, 0, 0, 0], 4),        // multicast
    ([240, 0, 0, 0], 4),        // reserved (RFC 1112)
    ([255, 255, 255, 255], 32), // broadcast
];

/// IPv6 blocks inside 2000::/3 that are not public.
const INSIDE_V6: [([u16; 8], u8); 3] = [
    ([0x2001, 0x2, 0, 0, 0, 0, 0, 0], 48),  // benchmarking (RFC 5180)
    ([0x2001, 0x10, 0, 0, 0, 0, 0, 0], 28), // ORCHID (RFC 4843)
    ([0x2001, 0x20, 0, 0, 0, 0, 0, 0], 28), // ORCHIDv2 (RFC 7343): no locators
];

/// Whether every address of `range` is public, and leads to no other: leave to show them says nothing.
pub fn is_all_public(range: &IpRange) -> bool {
    // NAT64, 6to4 and Teredo addresses lead to IPv4 addresses, whatever these are.
    const WRAPPING: [([u16; 8], u8); 3] = [
        ([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96),
        ([0x2002, 0, 0, 0, 0, 0, 0, 0], 16),
        ([0x2001, 0, 0, 0, 0, 0, 0, 0], 32),
    ];
    let meets = |base: IpAddr, prefix: u8| range.overlaps(&IpRange::of(base, prefix));
    match range.first() {
        IpAddr::V4(_) => !INSIDE_V4.iter().any(|(base, prefix)| meets(Ipv4Addr::from(*base).into(), *prefix)),
        IpAddr::V6(first) => {
            let global = range.prefix() >= 3 && v6_in(first, Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);
            let mut not_so = INSIDE_V6.iter().chain(&WRAPPING);
            global && !not_so.any(|(base, prefix)| meets(Ipv6Addr::from(*base).into(), *prefix))
        }
    }
}

/// Whether `addr` is a unicast address of the public network, and wraps no IPv4 address that is not.
pub fn is_public(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(v4) => !INSIDE_V4.iter().any(|(base, prefix)| v4_in(v4, Ipv4Addr::from(*base), *prefix)),
        IpAddr::V6(v6) => {
            let global = v6_in(v6, Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);
            // All else below 2000::/3 and above 3fff:: is local, mapped, multicast, or assigned to nobody.
            (global || Nat64::WELL_KNOWN.embedded(v6).is_some())
                && !INSIDE_V6.iter().any(|(base, prefix)| v6_in(v6, Ipv6Addr::from(*base), *prefix))
                && wrapped_v4(v6).iter().flatten().all(|v4| is_public(IpAddr::V4(*v4)))
        }
    }
}

/// IPv4 addresses that a packet to `v6` may end at: NAT64 by the well-known prefix, 6to4 (RFC 3056), Teredo (RFC 4380: server and client).
fn wrapped_v4(v6: Ipv6Addr) -> [Option<Ipv4Addr>; 2] {
    let bits = v6.to_bits();
    let at = |shift: u32| Ipv4Addr::from_bits((bits >> shift) as u32);
    if let Some(v4) = Nat64::WELL_KNOWN.embedded(v6) {
        [Some(v4), None]
    } else if v6_in(v6, Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16) {
        [Some(at(80)), None]
    } else if v6_in(v6, Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 32) {
        [Some(at(64)), Some(Ipv4Addr::from_bits(!(bits as u32)))]
    } else {
        [None, None]
    }
}

/// Whether `name` means something only inside a host or site: one label, `localhost`, `local` (RFC 6762), `internal`,
/// `home.arpa` (RFC 8375), or the reverse of an address that is not public (RFC 6303).
pub fn is_internal_name(name: NameRef<'_>) -> bool {
    let mut labels: Vec<&[u8]> = name.labels().collect();
    labels.reverse();
    match labels.as_slice() {
        [] | [_] => true,
        [b"localhost" | b"local" | b"internal", ..] => true,
        [b"arpa", b"home", ..] => true,
        [b"arpa", b"in-addr", octets @ ..] => reverse_v4(octets).is_some_and(|v4| !is_public(v4.into())),
        [b"arpa", b"ip6", nibbles @ ..] => reverse_v6(nibbles).is_some_and(|v6| !is_public(v6.into())),
        _ => false,
    }
}

/// Last address of the block a reverse name stands for, labels from the right: a block that is only partly local has a
/// public end. `None` for the bare zone.
fn reverse_v4(labels: &[&[u8]]) -> Option<Ipv4Addr> {
    let mut octets = [255u8; 4];
    let mut known = false;
    for (slot, label) in octets.iter_mut().zip(labels) {
        // Classless delegations (RFC 2317) put other labels behind the octets.
        let Some(octet) = std::str::from_utf8(label).ok().and_then(|text| text.parse().ok()) else { break };
        *slot = octet;
        known = true;
    }
    known.then(|| Ipv4Addr::from(octets))
}

/// As [`reverse_v4`], by nibbles.
fn reverse_v6(labels: &[&[u8]]) -> Option<Ipv6Addr> {
    let mut bits = u128::MAX;
    let mut known = false;
    for (i, label) in labels.iter().take(32).enumerate() {
        let [digit] = label else { break };
        let Some(nibble) = char::from(*digit).to_digit(16) else { break };
        let shift = 124 - 4 * i;
        bits = bits & !(0xf << shift) | u128::from(nibble) << shift;
        known = true;
    }
    known.then(|| Ipv6Addr::from_bits(bits))
}
