//! The `inet` table: packets of IPv4 and IPv6.
//!
//! Pure. Permission is by listing: a chain accepts what it names and ends in a refusal of all else. A test that cannot be
//! made (of a transport header that cannot be read, of a flow that is not tracked) does not match, so what it leaves
//! undecided is refused.

use std::net::{IpAddr, SocketAddr};

use super::closed::{ICMP4_ERRORS, ICMP6_ERRORS, MULTICAST_REPORTS, NEIGHBOURS, OTHER_WAYS, TEREDO};
use super::name::InterfaceName;
use super::nft::{Chain, Set, Table, set};
use super::plan::{Lead, Plan, Sandbox};
use super::resolvers::shown;
use super::settings::Mode;
use crate::enforce::mark::UNMARKED;
use crate::enforce::{Family, is_link_local};
use crate::metadata;

/// Chain with one rule for each interface, in every mode; [`super::standing`] reads its comments.
pub(super) const LED: &str = "ask_us";

/// Both transports that questions and all else go by.
const TRANSPORT: &str = "meta l4proto { tcp, udp }";

/// The table of a plan.
pub(super) fn table(plan: &Plan) -> Table {
    let mut chains = Vec::new();
    if plan.mode == Mode::Enforce {
        chains.extend(guard(plan));
    }
    chains.extend(ask(plan));
    chains.extend(host(plan));
    chains.extend(forward(plan));
    Table { family: Family::Inet, name: plan.table.clone(), sets: sets(plan), chains }
}

/// The comment on a rule that leads packets of an interface to a chain.
pub(super) fn dispatch(direction: &str, interface: impl std::fmt::Display, chain: &str) -> String {
    format!("{direction} \"{interface}\" goto {chain} comment \"{}\"", sandbox_comment(&interface.to_string()))
}

/// What [`dispatch`] writes of an interface.
pub(super) fn sandbox_comment(interface: &str) -> String {
    format!("sandbox {interface}")
}

fn v4(addresses: &[IpAddr]) -> Vec<IpAddr> {
    addresses.iter().copied().filter(IpAddr::is_ipv4).collect()
}

fn v6(addresses: &[IpAddr]) -> Vec<IpAddr> {
    addresses.iter().copied().filter(IpAddr::is_ipv6).collect()
}

fn sets(plan: &Plan) -> Vec<Set> {
    let known = |v6: bool| plan.refused.iter().filter(|r| r.first().is_ipv6() == v6).map(shown).collect::<Vec<_>>();
    let words = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let why = "Known public resolvers: blocklists/resolver-addresses.txt says whose each is, and what --doh added.";
    let clouds = "Services of clouds that hand out credentials to whoever asks.";
    let mut sets = vec![
        Set { why, name: "resolvers4", datatype: "ipv4_addr", elements: known(false) },
        Set { why: "The same over IPv6.", name: "resolvers6", datatype: "ipv6_addr", elements: known(true) },
    ];
    if plan.mode == Mode::Enforce {
        sets.push(Set { why: clouds, name: "metadata4", datatype: "ipv4_addr", elements: words(&metadata::V4) });
        let why = "The same over IPv6.";
        sets.push(Set { why, name: "metadata6", datatype: "ipv6_addr", elements: words(&metadata::V6) });
    }
    sets.retain(|set| !set.elements.is_empty());
    sets
}

/// Source addresses: what an interface may send as, and who may not send as a sandbox.
fn guard(plan: &Plan) -> Vec<Chain> {
    let mut base = Chain::base(
        "sources",
        "type filter hook prerouting priority raw",
        "Who may send as whom. A forged source is dropped without a word: an answer would go to its victim. Behind the \
         reassembly of fragments and before connection tracking.",
    );
    let (bound, routed): (Vec<&Sandbox>, Vec<&Sandbox>) = plan.sandboxes.iter().partition(|s| !s.bound.is_empty());
    let mut chains = Vec::new();
    for (number, sandbox) in (1..).zip(&bound) {
        let name = format!("sources_{number}");
        base.rule(dispatch("iifname", &sandbox.name, &name));
        chains.push(bound_sources(plan, sandbox, name));
    }
    let (bridges, others): (Vec<&Sandbox>, Vec<&Sandbox>) = routed.iter().partition(|sandbox| sandbox.bridge);
    let lead = |sandbox: &&Sandbox| dispatch("iifname", &sandbox.name, "sources_routed");
    if !bridges.is_empty() {
        base.why("Which port of a bridge may send as whom, the table of the bridge says.");
        base.rules(bridges.iter().map(lead));
    }
    let owned = plan.owned();
    if !owned.is_empty() {
        base.why("From every other interface, sandboxes without an address of their own included.");
        base.rules(sources_in(&owned, "counter drop"));
    }
    base.rules(others.iter().map(lead));
    if !plan.sources.is_empty() {
        base.why(
            "Addresses of sessions: from sandbox interfaces alone, and from this host itself where it has one of them.",
        );
        base.rules(sources_in(&plan.sources, "counter drop").iter().map(|rule| format!("iifname != \"lo\" {rule}")));
    }
    chains.insert(0, base);
    if !routed.is_empty() {
        let mut chain = Chain::plain(
            "sources_routed",
            "Without bound addresses: the source must be routed back out of the interface it came from.",
        );
        nobody_yet(plan, &mut chain);
        chain.why("Link-local addresses are on every link; what they may say is said in sandbox_to_host.");
        chain.rule("ip6 saddr fe80::/10 accept");
        chain.rule("fib saddr . iif oif exists accept").rule("counter drop");
        chains.push(chain);
    }
    chains
}

fn bound_sources(plan: &Plan, sandbox: &Sandbox, name: String) -> Chain {
    let mut chain = Chain::plain(name, format!("What {} may send as.", sandbox.name));
    nobody_yet(plan, &mut chain);
    if !sandbox.bound.iter().any(|address| is_link_local(*address)) {
        chain.why("Link-local addresses are on every link; what they may say is said in sandbox_to_host.");
        chain.rule("ip6 saddr fe80::/10 accept");
    }
    chain.rules(sources_in(&sandbox.bound, "accept"));
    chain.rule("counter drop");
    chain
}

/// Packets from before an address is had: IPv6 looks whether its own is taken (RFC 4862 section 5.4), DHCP asks for one.
fn nobody_yet(plan: &Plan, chain: &mut Chain) {
    chain.rule("ip6 saddr :: ip6 nexthdr { 0, icmpv6 } accept");
    if plan.dhcp {
        chain.rule("ip saddr 0.0.0.0 udp sport 68 udp dport 67 accept");
    }
}

fn sources_in(addresses: &[IpAddr], verdict: &str) -> Vec<String> {
    [("ip", v4(addresses)), ("ip6", v6(addresses))]
        .into_iter()
        .filter(|(_, list)| !list.is_empty())
        .map(|(family, list)| format!("{family} saddr {} {verdict}", set(list)))
        .collect()
}

/// Questions are led to us.
fn ask(plan: &Plan) -> Vec<Chain> {
    let mut base = Chain::base(
        LED,
        "type nat hook prerouting priority dstnat - 5",
        "A resolver that is written into an image is answered by ours. UDP and TCP: the one without the other is a hole.",
    );
    for sandbox in &plan.sandboxes {
        base.rule(dispatch("iifname", &sandbox.name, "lead"));
    }
    let mut lead = Chain::plain("lead", "Questions of sandboxes.");
    match (&plan.lead4, &plan.lead6) {
        (Some(Lead::Port(port)), Some(Lead::Port(other))) if port == other => {
            lead.rule(format!("{TRANSPORT} th dport 53 redirect to :{port}"));
        }
        (lead4, lead6) => {
            for (to, protocol, family) in [(lead4, "ipv4", "ip"), (lead6, "ipv6", "ip6")] {
                match to {
                    Some(Lead::Port(port)) => {
                        lead.rule(format!("meta nfproto {protocol} {TRANSPORT} th dport 53 redirect to :{port}"));
                    }
                    Some(Lead::To(addresses)) => {
                        let own = addresses.iter().skip(1);
                        lead.rules(own.map(|to| {
                            format!("{family} daddr {} {TRANSPORT} th dport 53 dnat {family} to {to}", to.ip())
                        }));
                        lead.rules(addresses.first().map(|to| {
                            format!("meta nfproto {protocol} {TRANSPORT} th dport 53 dnat {family} to {to}")
                        }));
                    }
                    None => {
                        lead.why(format!("Nobody answers over {protocol}: such questions are refused below."));
                    }
                }
            }
        }
    }
    vec![base, lead]
}

/// Rules for questions to our resolver on this host, behind the translation, each with `end`.
fn to_resolver(plan: &Plan, end: &str) -> Vec<String> {
    let ports = match (&plan.lead4, &plan.lead6) {
        (Some(Lead::Port(port)), Some(Lead::Port(other))) if port == other => {
            vec![format!("{TRANSPORT} th dport {port} {end}")]
        }
        (lead4, lead6) => [(lead4, "ipv4"), (lead6, "ipv6")]
            .into_iter()
            .filter_map(|(lead, protocol)| match lead {
                Some(Lead::Port(port)) => Some(format!("meta nfproto {protocol} {TRANSPORT} th dport {port} {end}")),
                Some(Lead::To(_)) | None => None,
            })
            .collect(),
    };
    let addresses =
        resolvers(plan).map(|at| format!("{} daddr {} {TRANSPORT} th dport {} {end}", family(at), at.ip(), at.port()));
    ports.into_iter().chain(addresses).collect()
}

/// Addresses that questions are led to: one of them may be another host's.
fn resolvers(plan: &Plan) -> impl Iterator<Item = &SocketAddr> {
    [&plan.lead4, &plan.lead6].into_iter().flat_map(|lead| match lead {
        Some(Lead::To(addresses)) => addresses.as_slice(),
        _ => &[],
    })
}

fn family(address: &SocketAddr) -> &'static str {
    if address.is_ipv6() { "ip6" } else { "ip" }
}

/// What a packet must look like at all.
fn plain_packets(chain: &mut Chain) {
    chain.why("No IPv4 options (source routes, recorded routes), no IPv6 extension headers.");
    chain.rule("ip hdrlength != 5 goto refuse");
    chain.rule("ip6 nexthdr != { tcp, udp, icmpv6 } goto refuse");
}

/// What sandboxes may say to this host.
fn host(plan: &Plan) -> Vec<Chain> {
    let mut base = Chain::base(
        "to_host",
        "type filter hook input priority filter + 10",
        "Sandboxes talk to this host's resolver and to nothing else on it.",
    );
    for sandbox in &plan.sandboxes {
        base.rule(dispatch("iifname", &sandbox.name, "sandbox_to_host"));
    }
    let mut chain = Chain::plain("sandbox_to_host", "From a sandbox to this host.");
    if plan.mode == Mode::Monitor {
        chain.rules(to_resolver(plan, "accept"));
        chain.why("Other ways to ask.").rule(format!("{TRANSPORT} th dport {} goto refuse", set(OTHER_WAYS)));
        return vec![base, chain];
    }
    chain.why("What IPv6 needs of a neighbour (RFC 4861), and of a listener (RFC 3810): never forwarded.");
    chain.rule(format!("ip6 nexthdr icmpv6 ip6 hoplimit 255 icmpv6 type {} accept", set(NEIGHBOURS)));
    chain.rule(format!("ip6 nexthdr 0 ip6 hoplimit 1 icmpv6 type {} accept", set(MULTICAST_REPORTS)));
    if plan.dhcp {
        chain.why("Asks for an address.");
        chain.rule("meta nfproto ipv4 udp sport 68 udp dport 67 accept");
        chain.rule("ip6 saddr fe80::/10 ip6 nexthdr udp udp sport 546 udp dport 547 accept");
    }
    chain.why(
        "Link-local addresses say nothing else: no session can be told by them. The kernel routes a reset to one by chance \
         (its interface is not asked for); an ICMP error is heard by the dial's second try.",
    );
    chain.rule("ip6 saddr { ::, fe80::/10 } reject with icmpx admin-prohibited");
    plain_packets(&mut chain);
    chain.why("Questions.");
    chain.rules(to_resolver(plan, "accept"));
    chain.why("Answers to what this host itself began.");
    chain.rule("ct direction reply ct state established accept");
    chain.rules(errors("", "goto errors"));
    chain.why("A gateway may be pinged, seldom.");
    chain.rule("icmp type echo-request limit rate 10/second burst 20 packets accept");
    chain.rule("icmpv6 type echo-request limit rate 10/second burst 20 packets accept");
    chain.rule("goto refuse");
    vec![base, chain, own_errors(plan)]
}

/// ICMP errors about flows that match `which` besides.
fn errors(which: &str, verdict: &str) -> [String; 2] {
    [("icmp", set(ICMP4_ERRORS)), ("icmpv6", set(ICMP6_ERRORS))]
        .map(|(family, types)| format!("ct state related {which}{family} type {types} {verdict}"))
}

/// Errors that a sandbox sends.
fn own_errors(plan: &Plan) -> Chain {
    let mut chain = Chain::plain(
        "errors",
        "ICMP errors from a sandbox, about its own flows alone. The kernel asks only whether an error goes to an end of the \
         flow that it quotes, and not who sends it: one about another sandbox's flow, or about a question of this host, would \
         end it, and carry away what one likes.",
    );
    let known = sources_by_interface(plan);
    for (family, v6) in [("ip", false), ("ip6", true)] {
        let own = |(name, bound): &(&InterfaceName, Vec<IpAddr>)| {
            let own = bound.iter().filter(|address| address.is_ipv6() == v6);
            own.map(|address| format!("\"{name}\" . {address}")).collect::<Vec<_>>()
        };
        let own: Vec<String> = known.iter().flat_map(own).collect();
        if !own.is_empty() {
            let own = own.join(", ");
            let end = |end| format!("iifname . ct original {family} {end} {{ {own} }} accept");
            chain.rules([end("saddr"), end("daddr")]);
        }
    }
    if known.len() < plan.sandboxes.len() {
        chain.rules(known.iter().map(|(name, _)| format!("iifname \"{name}\" goto refuse")));
        chain.why("Without bound addresses: about flows that were begun from where the error comes from.");
        chain.rule("ct direction original accept");
    }
    chain.rule("goto refuse");
    chain
}

/// Interfaces of which all sources are known, with those: a bridge by its ports.
fn sources_by_interface(plan: &Plan) -> Vec<(&InterfaceName, Vec<IpAddr>)> {
    let bound = |sandbox: &Sandbox| match sandbox.bridge {
        false => sandbox.bound.clone(),
        true => {
            let mut ports = plan.ports.iter().filter(|port| port.bridges.contains(&sandbox.name));
            let of_ports: Vec<IpAddr> = ports.clone().flat_map(|port| port.bound.iter().copied()).collect();
            if ports.all(|port| !port.bound.is_empty()) { of_ports } else { Vec::new() }
        }
    };
    let known = plan.sandboxes.iter().map(|sandbox| (&sandbox.name, bound(sandbox)));
    known.filter(|(_, bound)| !bound.is_empty()).collect()
}

/// What is forwarded.
fn forward(plan: &Plan) -> Vec<Chain> {
    let enforce = plan.mode == Mode::Enforce;
    let mut base = Chain::base(
        "forwarded",
        "type filter hook forward priority filter + 10",
        match enforce {
            true => {
                "What passes this host. Behind the service's own chain (priority filter), which gives the flows that it \
                 permits a conntrack mark; where it does not stand, no flow gets one, and one that has it goes on."
            }
            false => "What passes this host.",
        },
    );
    for sandbox in &plan.sandboxes {
        base.rule(dispatch("iifname", &sandbox.name, "from_sandbox"));
    }
    let mut from = Chain::plain("from_sandbox", "From a sandbox to somewhere else.");
    if enforce {
        plain_packets(&mut from);
    }
    let elsewhere: Vec<_> = resolvers(plan).collect();
    if !elsewhere.is_empty() {
        from.why("Our resolver, where it runs on another host or in a namespace of its own.");
        from.rules(
            elsewhere
                .iter()
                .map(|at| format!("{} daddr {} {TRANSPORT} th dport {} accept", family(at), at.ip(), at.port())),
        );
    }
    from.rule("jump other_ways");
    let mut chains = Vec::new();
    let marked = format!("ct mark != {UNMARKED}");
    if enforce {
        from.why("Clouds' metadata.").rule("ip daddr @metadata4 goto refuse").rule("ip6 daddr @metadata6 goto refuse");
        from.why("Teredo (RFC 4380): IPv6 in UDP.").rule(format!("udp dport {TEREDO} goto refuse"));
        from.rules(errors(&format!("{marked} "), "goto errors"));
        from.rule("goto permitted");
        for sandbox in &plan.sandboxes {
            base.rule(dispatch("oifname", &sandbox.name, "to_sandbox"));
        }
        let mut to = Chain::plain("to_sandbox", "From somewhere else to a sandbox.");
        plain_packets(&mut to);
        to.rules(elsewhere.iter().map(|at| {
            format!("{} saddr {} {TRANSPORT} th sport {} ct direction reply accept", family(at), at.ip(), at.port())
        }));
        to.rule("goto permitted");
        let mut permitted = Chain::plain(
            "permitted",
            "Flows with a mark, over TCP and UDP, and the ICMP errors that belong to them. All else is refused: flows older \
             than this table, which have no mark; echoes, which carry what one likes; 6in4, GRE, ESP, AH, SCTP and whatever \
             else is no TCP and no UDP; what cannot be read.",
        );
        permitted
            .why("Not what a helper expects (related): the service has said nothing of it, though it inherits a mark.");
        permitted.rule(format!("{TRANSPORT} ct state new,established {marked} accept"));
        permitted.rules(errors(&format!("{marked} "), "accept"));
        permitted.rule("counter goto refuse");
        chains.extend([to, permitted]);
    }
    let mut other = Chain::plain(
        "other_ways",
        "Other ways to ask: DNS that was not led to us, DNS over TLS (RFC 7858) and QUIC (RFC 9250), mDNS (RFC 6762), LLMNR \
         (RFC 4795), NetBIOS names and datagrams (RFC 1002), resolvers known by address. Whatever the service says.",
    );
    other.rule(format!("{TRANSPORT} th dport {} counter goto refuse", set(OTHER_WAYS)));
    for (v6, rule) in [(false, "ip daddr @resolvers4"), (true, "ip6 daddr @resolvers6")] {
        if plan.refused.iter().any(|range| range.first().is_ipv6() == v6) {
            other.rule(format!("{rule} counter goto refuse"));
        }
    }
    let mut refuse = Chain::plain("refuse", "Heard at once: a client whose packets vanish waits for its timeout.");
    refuse.rule("meta l4proto tcp reject with tcp reset").rule("reject with icmpx admin-prohibited");
    [vec![base, from], chains, vec![other, refuse]].concat()
}
