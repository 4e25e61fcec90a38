use super::*;

/// The lines of one chain or set, trimmed, comments left out.
fn block(script: &str, head: &str) -> Vec<String> {
    let mut lines = script.lines().skip_while(|line| line.trim() != format!("{head} {{"));
    assert!(lines.next().is_some(), "no {head} in\n{script}");
    lines
        .map(str::trim)
        .take_while(|line| *line != "}")
        .filter(|line| !line.starts_with('#') && !line.starts_with("type "))
        .map(str::to_owned)
        .collect()
}

fn text(settings: Settings) -> String {
    script(&planned(settings)).text
}

#[test]
fn the_shipped_example_is_what_plan_prints() {
    let mut example = settings(&["veth-agent"]);
    example.binds = vec![bind("veth-agent=10.77.1.2,fd77:1::2")];
    example.refused = resolvers::read("shipped", resolvers::SHIPPED).expect("the shipped list");
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/lockdown.nft");
    let shipped = std::fs::read_to_string(file).expect("deploy/lockdown.nft");
    let remedy =
        "staunch lockdown plan --interfaces veth-agent --bind veth-agent=10.77.1.2,fd77:1::2 > deploy/lockdown.nft";
    assert!(shipped == script(&planned(example)).text, "write it anew: {remedy}");
}

#[test]
fn sources_are_bound_or_routed_and_nobody_else_has_them() {
    let mut mixed = settings(&["veth-a", "veth-b"]);
    mixed.binds = vec![bind("veth-a=10.0.0.2,10.0.0.3,fd00::2")];
    mixed.sources = vec!["10.0.9.9".parse().expect("an address")];
    let mixed = text(mixed);
    assert_eq!(
        block(&mixed, "chain sources"),
        [
            "iifname \"veth-a\" goto sources_1 comment \"sandbox veth-a\"",
            "ip saddr { 10.0.0.2, 10.0.0.3 } counter drop",
            "ip6 saddr fd00::2 counter drop",
            "iifname \"veth-b\" goto sources_routed comment \"sandbox veth-b\"",
            "iifname != \"lo\" ip saddr 10.0.9.9 counter drop",
        ]
    );
    assert_eq!(
        block(&mixed, "chain sources_1"),
        [
            "ip6 saddr :: ip6 nexthdr { 0, icmpv6 } accept",
            "ip6 saddr fe80::/10 accept",
            "ip saddr { 10.0.0.2, 10.0.0.3 } accept",
            "ip6 saddr fd00::2 accept",
            "counter drop",
        ]
    );
    assert_eq!(
        block(&mixed, "chain sources_routed"),
        [
            "ip6 saddr :: ip6 nexthdr { 0, icmpv6 } accept",
            "ip6 saddr fe80::/10 accept",
            "fib saddr . iif oif exists accept",
            "counter drop",
        ]
    );
    // Its own link-local address shuts out all others.
    let mut links = settings(&["veth-a"]);
    links.binds = vec![bind("veth-a=fe80::2")];
    assert!(!block(&text(links), "chain sources_1").iter().any(|line| line.contains("fe80::/10")));
}

#[test]
fn questions_are_led_and_let_in_by_the_same_words() {
    let by_port = text(settings(&["veth-a"]));
    assert_eq!(block(&by_port, "chain lead"), ["meta l4proto { tcp, udp } th dport 53 redirect to :53"]);
    assert!(block(&by_port, "chain sandbox_to_host").contains(&"meta l4proto { tcp, udp } th dport 53 accept".into()));
    assert!(!block(&by_port, "chain from_sandbox").iter().any(|line| line.contains("th dport 53")));

    let mut to = settings(&["veth-a"]);
    to.resolvers = ["10.0.0.1:53", "10.0.1.1:5300", "[fd00::1]:53"].map(resolver).to_vec();
    let to = text(to);
    assert_eq!(
        block(&to, "chain lead"),
        [
            "ip daddr 10.0.1.1 meta l4proto { tcp, udp } th dport 53 dnat ip to 10.0.1.1:5300",
            "meta nfproto ipv4 meta l4proto { tcp, udp } th dport 53 dnat ip to 10.0.0.1:53",
            "meta nfproto ipv6 meta l4proto { tcp, udp } th dport 53 dnat ip6 to [fd00::1]:53",
        ]
    );
    for chain in ["chain sandbox_to_host", "chain from_sandbox"] {
        let block = block(&to, chain);
        for accept in ["ip daddr 10.0.0.1", "ip daddr 10.0.1.1", "ip6 daddr fd00::1"] {
            assert_eq!(block.iter().filter(|line| line.starts_with(accept)).count(), 1, "{chain}: {accept}: {block:?}");
        }
        assert!(
            !block.iter().any(|line| line.starts_with("meta l4proto { tcp, udp } th dport 53 accept")),
            "{block:?}"
        );
    }

    let mut mixed = settings(&["veth-a"]);
    mixed.resolvers = ["5300", "10.0.0.1:53"].map(resolver).to_vec();
    let mixed = text(mixed);
    assert!(
        block(&mixed, "chain lead")[1].starts_with("meta nfproto ipv6"),
        "a port for the family without an address"
    );
    let forwarded = block(&mixed, "chain from_sandbox");
    assert!(!forwarded.iter().any(|line| line.contains("5300")), "a port is this host's: {forwarded:?}");
}

#[test]
fn refusal_is_what_every_chain_of_a_sandbox_ends_in() {
    let mut all = settings(&["veth-a"]);
    all.refused = vec![range("192.0.2.1"), range("2001:db8::/64")];
    all.dhcp = true;
    let all = text(all);
    let last = |chain: &str| block(&all, chain).last().cloned().expect("a rule");
    assert_eq!(last("chain sandbox_to_host"), "goto refuse");
    assert_eq!(last("chain from_sandbox"), "goto permitted");
    assert_eq!(last("chain to_sandbox"), "goto permitted");
    assert_eq!(last("chain permitted"), "counter goto refuse");
    assert_eq!(last("chain refuse"), "reject with icmpx admin-prohibited");
    let permitted = block(&all, "chain permitted");
    assert!(permitted.iter().filter(|rule| rule.ends_with("accept")).all(|rule| rule.contains("ct mark != 0")));
    let other = block(&all, "chain other_ways");
    assert_eq!(other[0], "meta l4proto { tcp, udp } th dport { 53, 137, 138, 853, 5353, 5355 } counter goto refuse");
    assert_eq!(other[1..], ["ip daddr @resolvers4 counter goto refuse", "ip6 daddr @resolvers6 counter goto refuse"]);
    assert!(block(&all, "chain sandbox_to_host").iter().any(|rule| rule.contains("udp dport 67")));
    assert!(!text(settings(&["veth-a"])).contains("dport 67"), "only if asked for");
    assert!(!text(settings(&["veth-a"])).contains("@resolvers"), "no rule for a set that is not there");
}

#[test]
fn errors_are_about_the_flows_of_the_sandbox_that_sends_them() {
    let mut mixed = settings(&["veth-a", "veth-b", "tap*"]);
    mixed.bridges = vec![bridge("br0=p1,p2"), bridge("br1=q1,q2")];
    mixed.binds = ["veth-a=10.0.0.2,fd00::2", "p1=10.0.1.2", "p2=10.0.1.3", "q1=10.0.2.2"].map(bind).to_vec();
    let mixed = text(mixed);
    let own = "\"br0\" . 10.0.1.2, \"br0\" . 10.0.1.3, \"veth-a\" . 10.0.0.2";
    let mut lines = block(&mixed, "chain errors");
    for end in ["saddr", "daddr"] {
        let line = lines.iter().position(|line| line.starts_with(&format!("iifname . ct original ip {end} ")));
        let line = lines.remove(line.expect("a rule"));
        let mut pairs: Vec<_> =
            line.split_once("{ ").expect("a set").1.split(" } ").next().expect("it").split(", ").collect();
        pairs.sort_unstable();
        assert_eq!(pairs.join(", "), own, "of br1 one port is not bound");
    }
    assert_eq!(
        lines[..2],
        ["saddr", "daddr"].map(|end| format!("iifname . ct original ip6 {end} {{ \"veth-a\" . fd00::2 }} accept"))
    );
    let mut refused = lines[2..4].to_vec();
    refused.sort_unstable();
    assert_eq!(refused, ["br0", "veth-a"].map(|name| format!("iifname \"{name}\" goto refuse")));
    assert_eq!(lines[4..], ["ct direction original accept", "goto refuse"]);
    for chain in ["chain sandbox_to_host", "chain from_sandbox"] {
        let related: Vec<_> =
            block(&mixed, chain).into_iter().filter(|line| line.contains("ct state related")).collect();
        assert!(related.len() == 2 && related.iter().all(|line| line.ends_with("goto errors")), "{chain}: {related:?}");
    }
    // Where every source is known nothing else is asked.
    let mut bound = settings(&["veth-a"]);
    bound.binds = vec![bind("veth-a=10.0.0.2")];
    assert_eq!(block(&text(bound), "chain errors").len(), 3);
}

#[test]
fn a_monitored_lockdown_leads_and_refuses_other_ways_alone() {
    let mut monitor = settings(&["veth-a"]);
    monitor.mode = Mode::Monitor;
    monitor.bridges = vec![bridge("br0=p*")];
    let monitor = text(monitor);
    assert_eq!(block(&monitor, "chain from_sandbox"), ["jump other_ways"]);
    for absent in ["chain permitted", "chain sources", "chain to_sandbox", "table bridge", "metadata4", "drop"] {
        assert!(!monitor.contains(absent), "{absent}");
    }
    assert!(monitor.contains("comment \"staunch lockdown v1 monitor "));
}

#[test]
fn ports_of_a_bridge_say_only_what_is_theirs() {
    let mut bridged = settings(&[]);
    bridged.bridges = vec![bridge("br0=p1,p2")];
    bridged.binds = vec![bind("p1=10.0.0.2,fd00::2,02:00:00:00:00:01")];
    let bridged = text(bridged);
    assert_eq!(
        block(&bridged, "chain from_ports"),
        [
            "iifname \"p1\" goto port_1 comment \"sandbox p1\"",
            "ether saddr 02:00:00:00:00:01 counter drop",
            "arp saddr ip 10.0.0.2 counter drop",
            "ip saddr 10.0.0.2 counter drop",
            "ip6 saddr fd00::2 counter drop",
            "icmpv6 type nd-neighbor-advert @th,64,128 0xfd000000000000000000000000000002 counter drop",
            "iifname \"p2\" goto port_any comment \"sandbox p2\"",
        ]
    );
    let arp = "arp htype 1 arp ptype ip arp hlen 6 arp plen 4 arp operation { request, reply } arp saddr ether \
               02:00:00:00:00:01";
    assert_eq!(
        block(&bridged, "chain port_1"),
        [
            "ether saddr != 02:00:00:00:00:01 counter drop".to_owned(),
            format!("{arp} arp saddr ip 10.0.0.2 accept"),
            format!("{arp} arp saddr ip 0.0.0.0 arp daddr ip 10.0.0.2 accept"),
            "ip saddr 10.0.0.2 accept".into(),
            "ip6 saddr { fd00::2, fe80::/10 } ip6 nexthdr icmpv6 icmpv6 type nd-neighbor-advert @th,64,128 \
             0xfd000000000000000000000000000002 accept"
                .into(),
            "ip6 saddr { fd00::2, fe80::/10 } ip6 nexthdr icmpv6 icmpv6 type nd-neighbor-advert @th,64,10 0x3fa accept"
                .into(),
            "ip6 saddr :: ip6 nexthdr icmpv6 icmpv6 type nd-neighbor-solicit @th,64,128 \
             0xfd000000000000000000000000000002 accept"
                .into(),
            "ip6 saddr :: ip6 nexthdr icmpv6 icmpv6 type nd-neighbor-solicit @th,64,10 0x3fa accept".into(),
            "icmpv6 type { nd-neighbor-advert, nd-router-advert, nd-redirect } counter drop".into(),
            "ip6 saddr :: ip6 nexthdr 0 icmpv6 type { mld-listener-report, mld-listener-reduction, mld2-listener-report } \
             accept"
                .into(),
            "ip6 saddr :: ip6 nexthdr icmpv6 icmpv6 type nd-router-solicit accept".into(),
            "ip6 saddr { fd00::2, fe80::/10 } accept".into(),
            "counter drop".into(),
        ]
    );
    let between = block(&bridged, "chain between");
    assert_eq!(between.len(), 4, "both directions of both ports");
    // In the other table the bridge is the interface, before the addresses of its ports are anybody's.
    let sources = block(&bridged, "chain sources");
    assert_eq!(sources[0], "iifname \"br0\" goto sources_routed comment \"sandbox br0\"");
    assert_eq!(sources[1], "ip saddr 10.0.0.2 counter drop");
}

#[test]
fn the_digest_follows_the_rules_and_not_the_words() {
    let digest = |settings: Settings| script(&planned(settings)).digest;
    let one = digest(settings(&["veth-a"]));
    assert_eq!(one, digest(settings(&["veth-a"])));
    assert_ne!(one, digest(settings(&["veth-b"])));
    let mut dhcp = settings(&["veth-a"]);
    dhcp.dhcp = true;
    assert_ne!(one, digest(dhcp));
    let script = script(&planned(settings(&["veth-a"])));
    assert!(script.comment.len() <= 128, "the tool takes no longer comment");
    assert_eq!(script.text.matches(&script.comment).count(), 1);
    assert!(script.text.lines().all(|line| line.len() <= 140), "a script is read");
}
