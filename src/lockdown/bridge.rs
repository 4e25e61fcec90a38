//! The `bridge` table: frames between the ports of a bridge, and what a port may say of itself.
//!
//! Pure. Neighbours on a bridge share a link, so what the `inet` table sees of them is only the bridge's name: who is who
//! is decided here, port by port, before the bridge learns anything of a frame. Refusals are drops: a bridge has no
//! address to refuse from.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::closed::MULTICAST_REPORTS;
use super::inet::dispatch;
use super::name::Mac;
use super::nft::{Chain, Table, set};
use super::plan::{Plan, Port};
use super::settings::Mode;
use crate::enforce::Family;

/// Chain with one rule for each port; [`super::standing`] reads its comments.
pub(super) const PORTS: &str = "from_ports";

/// Frames that a sandbox may send at all.
const KNOWN: &str = "{ arp, ip, ip6 }";

/// Link-local addresses, as the first ten bits of a neighbour discovery target.
const LINK_LOCAL_TARGET: &str = "@th,64,10 0x3fa";

/// The table of a plan, where it has ports to guard.
pub(super) fn table(plan: &Plan) -> Option<Table> {
    if plan.mode == Mode::Monitor || plan.ports.is_empty() {
        return None;
    }
    let mut base = Chain::base(
        PORTS,
        "type filter hook prerouting priority filter",
        "Who may send as whom, before the bridge learns where an address lies.",
    );
    let (bound, open): (Vec<&Port>, Vec<&Port>) = plan.ports.iter().partition(|port| !port.bound.is_empty());
    let mut chains = Vec::new();
    for (number, port) in (1..).zip(&bound) {
        let name = format!("port_{number}");
        base.rule(dispatch("iifname", &port.name, &name));
        chains.push(bound_port(plan, port, name));
    }
    let owned: Vec<IpAddr> = bound.iter().flat_map(|port| port.bound.iter().copied()).collect();
    if !owned.is_empty() {
        base.why("From every other port, that of an uplink included.");
        elsewhere(&mut base, &owned, bound.iter().filter_map(|port| port.mac));
    }
    for port in &open {
        base.rule(dispatch("iifname", &port.name, "port_any"));
    }
    chains.insert(0, base);
    if !open.is_empty() {
        let mut any = Chain::plain("port_any", "A port without addresses: whatever belongs to no other.");
        any.rule(format!("ether type {KNOWN} accept")).rule("counter drop");
        chains.push(any);
    }
    let mut between = Chain::base(
        "between",
        "type filter hook forward priority filter",
        "Sandboxes do not talk to each other, nor past this host: no frame goes from one port to another.",
    );
    let mut local = Chain::base(
        "local",
        "type filter hook input priority filter",
        "No frames that would change the bridge itself (spanning tree), none with a tag (IEEE 802.1Q), which would come out on \
         another interface of this host, and none that the rules above do not know.",
    );
    for port in &plan.ports {
        between.rule(format!("iifname \"{}\" counter drop", port.name));
        between.rule(format!("oifname \"{}\" counter drop", port.name));
        local.rule(format!("iifname \"{}\" ether type != {KNOWN} counter drop", port.name));
    }
    chains.extend([between, local]);
    Some(Table { family: Family::Bridge, name: plan.table.clone(), sets: Vec::new(), chains })
}

/// What a port with addresses may send.
fn bound_port(plan: &Plan, port: &Port, name: String) -> Chain {
    let mut chain = Chain::plain(name, format!("What {} on {} may send.", port.name, port.place()));
    let (v4, v6) = families(&port.bound);
    let own_links: Vec<Ipv6Addr> = v6.iter().copied().filter(|v6| v6.is_unicast_link_local()).collect();
    let mut arp = "arp htype 1 arp ptype ip arp hlen 6 arp plen 4 arp operation { request, reply }".to_owned();
    if let Some(mac) = port.mac {
        chain.rule(format!("ether saddr != {mac} counter drop"));
        arp += &format!(" arp saddr ether {mac}");
    }
    if !v4.is_empty() {
        chain.why("ARP: only of itself (RFC 826), and asking whether it is alone with its address (RFC 5227).");
        chain.rule(format!("{arp} arp saddr ip {} accept", set(&v4)));
        chain.rule(format!("{arp} arp saddr ip 0.0.0.0 arp daddr ip {} accept", set(&v4)));
        chain.rule(format!("ip saddr {} accept", set(&v4)));
    }
    if plan.dhcp {
        chain.rule("ip saddr 0.0.0.0 udp sport 68 udp dport 67 accept");
    }
    if !v6.is_empty() {
        chain.why(
            "Neighbour discovery: only of itself (RFC 4861 section 7.2). Discovery in fragments or behind extension headers \
             is nobody's (RFC 6980).",
        );
        let own = sources(&v6, &own_links);
        // It says where it is, and from no address yet it asks whether somebody else is there.
        for (source, kind) in [(own.as_str(), "nd-neighbor-advert"), ("::", "nd-neighbor-solicit")] {
            let says = format!("ip6 saddr {source} ip6 nexthdr icmpv6 icmpv6 type {kind}");
            chain.rules(v6.iter().map(|address| format!("{says} {} accept", target(*address))));
            if own_links.is_empty() {
                chain.rule(format!("{says} {LINK_LOCAL_TARGET} accept"));
            }
        }
        chain.rule("icmpv6 type { nd-neighbor-advert, nd-router-advert, nd-redirect } counter drop");
        chain.rule(format!("ip6 saddr :: ip6 nexthdr 0 icmpv6 type {} accept", set(MULTICAST_REPORTS)));
        chain.rule("ip6 saddr :: ip6 nexthdr icmpv6 icmpv6 type nd-router-solicit accept");
        chain.rule(format!("ip6 saddr {own} accept"));
    }
    chain.rule("counter drop");
    chain
}

/// The address a neighbour discovery message is about, 8 octets into it (RFC 4861 section 4.3).
fn target(address: Ipv6Addr) -> String {
    format!("@th,64,128 0x{:032x}", address.to_bits())
}

/// Source addresses of a port: its own, and any link-local one where it has none of its own bound.
fn sources(v6: &[Ipv6Addr], own_links: &[Ipv6Addr]) -> String {
    let links = own_links.is_empty().then(|| "fe80::/10".to_owned());
    set(v6.iter().map(Ipv6Addr::to_string).chain(links))
}

/// Nobody else claims these.
fn elsewhere(chain: &mut Chain, owned: &[IpAddr], macs: impl Iterator<Item = Mac>) {
    let (v4, v6) = families(owned);
    let macs: Vec<_> = macs.collect();
    if !macs.is_empty() {
        chain.rule(format!("ether saddr {} counter drop", set(macs)));
    }
    if !v4.is_empty() {
        chain.rule(format!("arp saddr ip {} counter drop", set(&v4)));
        chain.rule(format!("ip saddr {} counter drop", set(&v4)));
    }
    if !v6.is_empty() {
        chain.rule(format!("ip6 saddr {} counter drop", set(&v6)));
        chain.rules(
            v6.iter().map(|address| format!("icmpv6 type nd-neighbor-advert {} counter drop", target(*address))),
        );
    }
}

fn families(addresses: &[IpAddr]) -> (Vec<Ipv4Addr>, Vec<Ipv6Addr>) {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for address in addresses {
        match address {
            IpAddr::V4(address) => v4.push(*address),
            IpAddr::V6(address) => v6.push(*address),
        }
    }
    (v4, v6)
}
