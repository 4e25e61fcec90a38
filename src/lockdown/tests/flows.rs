use std::net::{IpAddr, SocketAddr};

use super::*;
use crate::enforce::{Place, Tracked};
use crate::lockdown::flows::must_end;

/// This host is 10.0.0.1; 10.0.0.0/24 lies behind veth-a, all else behind up0.
fn place(address: IpAddr) -> Place {
    match address.to_string().as_str() {
        "10.0.0.1" | "203.0.113.1" => Place::Here,
        "192.0.2.254" => Place::Nowhere,
        text if text.starts_with("10.0.0.") => Place::Behind("veth-a".into()),
        _ => Place::Behind("up0".into()),
    }
}

fn at(text: &str) -> SocketAddr {
    text.parse().expect(text)
}

const TCP: u8 = 6;
const UDP: u8 = 17;

fn flow(protocol: u8, from: &str, to: &str, answers: &str, mark: u32) -> Tracked {
    Tracked { protocol, mark, from: at(from), to: at(to), answers: at(answers) }
}

#[test]
fn flows_end_that_no_rule_would_permit() {
    let mut enforce = settings(&["veth-*"]);
    enforce.refused = vec![range("198.51.100.53")];
    enforce.sources = ["192.0.2.254", "203.0.113.1"].map(|address| address.parse().expect("an address")).into();
    let mut monitor = enforce.clone();
    monitor.mode = Mode::Monitor;
    let (enforce, monitor) = (planned(enforce), planned(monitor));
    let (sandbox, web) = ("10.0.0.2:4000", "198.51.100.1:443");
    for (what, flow, in_enforce, in_monitor) in [
        ("forwarded without a mark", flow(TCP, sandbox, web, web, 0), true, false),
        ("with a monitored session's mark", flow(TCP, sandbox, web, web, 1), false, false),
        ("with a generation", flow(UDP, sandbox, web, web, 16), false, false),
        ("of another protocol with a mark", flow(47, sandbox, web, web, 16), true, false),
        ("a question elsewhere", flow(UDP, sandbox, "198.51.100.9:53", "198.51.100.9:53", 16), true, true),
        ("one that another translation led elsewhere", flow(UDP, sandbox, web, "198.51.100.9:53", 16), true, true),
        ("one that was led to us", flow(UDP, sandbox, "198.51.100.9:53", "10.0.0.1:53", 0), false, false),
        ("DNS over TLS", flow(TCP, sandbox, "198.51.100.9:853", "198.51.100.9:853", 16), true, true),
        ("a known resolver", flow(TCP, sandbox, "198.51.100.53:443", "198.51.100.53:443", 16), true, true),
        ("a service of this host", flow(TCP, sandbox, "10.0.0.1:8080", "10.0.0.1:8080", 0), true, false),
        ("multicast DNS of this host", flow(UDP, sandbox, "10.0.0.1:5353", "10.0.0.1:5353", 0), true, true),
        ("a ping of this host", flow(1, "10.0.0.2:0", "10.0.0.1:0", "10.0.0.1:0", 0), false, false),
        ("what this host began", flow(TCP, "10.0.0.1:4000", "10.0.0.2:22", "10.0.0.2:22", 0), false, false),
        ("from outside to a sandbox", flow(TCP, "198.51.100.9:4000", "10.0.0.2:22", "10.0.0.2:22", 0), true, false),
        ("the same with a mark", flow(TCP, "198.51.100.9:4000", "10.0.0.2:22", "10.0.0.2:22", 16), false, false),
        ("by a published port", flow(TCP, "198.51.100.9:4000", "203.0.113.1:80", "10.0.0.2:80", 0), true, false),
        ("a session's address with no route", flow(TCP, "192.0.2.254:4000", web, web, 0), true, false),
        ("of a session that is this host", flow(TCP, "203.0.113.1:4000", web, web, 0), false, false),
        ("to such a one", flow(TCP, "198.51.100.9:4000", "203.0.113.1:22", "203.0.113.1:22", 0), false, false),
        ("somebody else's", flow(TCP, "198.51.100.9:4000", web, web, 0), false, false),
        (
            "somebody else's question",
            flow(UDP, "198.51.100.9:4000", "198.51.100.9:53", "198.51.100.9:53", 0),
            false,
            false,
        ),
    ] {
        assert_eq!(must_end(&enforce, &flow, &place), in_enforce, "enforce: {what}");
        assert_eq!(must_end(&monitor, &flow, &place), in_monitor, "monitor: {what}");
    }
}

#[test]
fn a_resolver_on_another_host_keeps_its_flows() {
    let mut elsewhere = settings(&["veth-a"]);
    elsewhere.resolvers = vec![resolver("198.51.100.9:53")];
    let elsewhere = planned(elsewhere);
    let ours = flow(UDP, "10.0.0.2:4000", "203.0.113.9:53", "198.51.100.9:53", 0);
    let others = flow(UDP, "10.0.0.2:4000", "203.0.113.9:53", "203.0.113.9:53", 0);
    assert!(!must_end(&elsewhere, &ours, &place) && must_end(&elsewhere, &others, &place));
    let here = flow(UDP, "10.0.0.2:4000", "10.0.0.1:53", "10.0.0.1:53", 0);
    assert!(must_end(&elsewhere, &here, &place), "what else answers on this host");
}
