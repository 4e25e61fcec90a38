//! The packet filter in a real kernel: agent -- gateway -- server in network namespaces made and removed here.
//!
//! Every refusal has its positive control: the same dial with a pin connects.

#[path = "enforce_nft/errors.rs"]
mod errors;
mod gateway;
#[path = "enforce_nft/load.rs"]
mod load;
#[path = "enforce_nft/table.rs"]
mod table;
mod world;

use std::io::{ErrorKind, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::process::{Command as Process, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gateway::*;
use staunch::enforce::{Active, Backend, Class, Command, Config, Error, Nft, Refresh};
use staunch::ports::{Port, Ports};

#[test]
fn only_a_live_pin_of_the_own_session_opens_the_way() {
    if skip() {
        return;
    }
    let world = World::new();
    let enforcer = world.start(as_is);
    world.connects(AGENT, SERVER);
    for session in [AGENT, OTHER, AGENT_6] {
        apply(&enforcer, guard(session));
    }
    for (from, to) in [(AGENT, SERVER), (OTHER, SERVER), (AGENT_6, SERVER_6)] {
        world.refused(from, to);
    }
    apply(&enforcer, pin(AGENT, SERVER, 60 * SECOND));
    world.connects(AGENT, SERVER);
    world.refused(AGENT, SERVER_2);
    world.refused(OTHER, SERVER);
    apply(&enforcer, pin(AGENT_6, SERVER_6, 60 * SECOND));
    world.connects(AGENT_6, SERVER_6);

    apply(&enforcer, pin(AGENT, SERVER_2, 2 * SECOND));
    let held = world.connects(AGENT, SERVER_2);
    std::thread::sleep(Duration::from_millis(2300));
    world.refused(AGENT, SERVER_2);
    reads(held).expect("a flow outlives the pin it was opened under");

    apply(&enforcer, Command::Unpin { session: ip(AGENT), destinations: vec![ip(SERVER), ip(SERVER_2)] });
    world.refused(AGENT, SERVER);
    apply(&enforcer, Command::Unguard { session: ip(AGENT) });
    world.connects(AGENT, SERVER);

    let refusals = || {
        let rules = world.nft(&["list", "chain", "inet", "staunch", "inward"]).expect("chain");
        let packets = rules.split_once("packets ").and_then(|(_, rest)| rest.split(' ').next()?.parse::<u64>().ok());
        packets.expect("a counter")
    };
    let before = refusals();
    let inward = world.inside("s", || dial(SocketAddr::new(ip(SERVER), 0), SocketAddr::new(ip(OTHER), 80)));
    assert!(inward.0.is_err_and(|e| e.kind() == ErrorKind::ConnectionRefused) && inward.1 < SECOND);
    assert!(refusals() > before, "it was the filter that refused");
    println!("{}", world.nft(&["-s", "list", "table", "inet", "staunch"]).expect("table"));
    enforcer.shutdown(true).expect("table removed");
    assert!(world.nft(&["list", "table", "inet", "staunch"]).is_err());
    world.connects(OTHER, SERVER);
}

#[test]
fn udp_is_refused_at_once_without_a_pin() {
    if skip() {
        return;
    }
    let world = World::new();
    let enforcer = world.start(as_is);
    apply(&enforcer, guard(AGENT));
    let ask = || {
        let socket = UdpSocket::bind((ip(AGENT), 0))?;
        socket.connect((ip(SERVER), 53))?;
        socket.set_read_timeout(Some(5 * SECOND))?;
        socket.send(b"?")?;
        socket.recv(&mut [0; 16])
    };
    let start = Instant::now();
    let error = world.inside("a", ask).expect_err("no pin");
    assert!(matches!(error.kind(), ErrorKind::HostUnreachable | ErrorKind::ConnectionRefused), "{error}");
    assert!(start.elapsed() < AT_ONCE);
    apply(&enforcer, pin(AGENT, SERVER, 60 * SECOND));
    assert!(world.inside("a", ask).is_err(), "another port of the same address");
    apply(&enforcer, pin_ports(ip(AGENT), vec![ip(SERVER)], Port::udp(53), 60 * SECOND));
    assert_eq!(world.inside("a", ask).expect("pinned"), 1);
}

#[test]
fn a_refresh_never_shortens_and_always_extends() {
    if skip() {
        return;
    }
    for refresh in [Refresh::Probe, Refresh::InPlace, Refresh::Replace] {
        let world = World::new();
        let enforcer = world.start(move |nft| nft.with_refresh(refresh));
        let element = format!("{AGENT} . {SERVER}");
        // Reckoned from before the order, so that it is the same however long a look takes.
        let lasts = |order: Command| {
            let given = Instant::now();
            apply(&enforcer, order);
            world.expires("pins4", &element).expect("pinned") + given.elapsed()
        };
        lasts(pin(AGENT, SERVER, 60 * SECOND));
        let lasted = lasts(pin(AGENT, SERVER, 10 * SECOND));
        assert!(lasted > 40 * SECOND, "{refresh:?}: shortened to {lasted:?}");
        std::thread::sleep(SECOND);
        let lasted = lasts(pin(AGENT, SERVER, 60 * SECOND));
        assert!(lasted > Duration::from_millis(59_500), "{refresh:?}: not refreshed, {lasted:?}");
        let lasted = lasts(pin(AGENT, SERVER, 300 * SECOND));
        assert!(lasted > Duration::from_millis(299_500), "{refresh:?}: not extended, {lasted:?}");
        // Many in one batch, with the same pair again and again: the longest counts.
        let tickets: Vec<_> = [5, 400, 20, 900, 60]
            .into_iter()
            .map(|seconds| enforcer.submit(pin(AGENT, SERVER, seconds * SECOND)).expect("taken"))
            .collect();
        for ticket in tickets {
            ticket.wait_blocking(5 * SECOND).expect("pinned");
        }
        let left = world.expires("pins4", &element).expect("pinned");
        assert!(left > 850 * SECOND, "{refresh:?}: {left:?}");
        // Elements that end in the kernel about when they are pinned again.
        for wait in [295, 299, 300, 301, 305] {
            apply(&enforcer, pin(AGENT, SERVER_2, Duration::from_millis(300)));
            std::thread::sleep(Duration::from_millis(wait));
            apply(&enforcer, pin(AGENT, SERVER_2, 60 * SECOND));
            let left = world.expires("pins4", &format!("{AGENT} . {SERVER_2}"));
            assert!(left.is_some_and(|left| left > 40 * SECOND), "{refresh:?} after {wait} ms: {left:?}");
            apply(&enforcer, Command::Unpin { session: ip(AGENT), destinations: vec![ip(SERVER_2)] });
        }
        assert!(!world.holds("probe", "192.0.2.1"), "the probe's set is gone");
        assert_eq!(enforcer.status().counts.restored, 0);
        println!("refresh {refresh:?}: never shorter, always extended");
    }
}

#[test]
fn quarantine_cuts_a_running_download_and_release_opens_only_for_new_pins() {
    if skip() {
        return;
    }
    let world = World::new();
    let enforcer = world.start(as_is);
    for (session, server) in [(AGENT, SERVER), (AGENT_6, SERVER_6), (OTHER, SERVER)] {
        apply(&enforcer, guard(session));
        apply(&enforcer, pin(session, server, 60 * SECOND));
    }
    let bystander = world.connects(OTHER, SERVER);
    for (session, server, set) in [(AGENT, SERVER, "pins4"), (AGENT_6, SERVER_6, "pins6")] {
        let stream = world.connects(session, server);
        // Nobody reads here, so no packet comes that the rules could answer with a reset.
        let idle = world.connects(session, server);
        let download = std::thread::spawn(move || read_to_end(stream));
        std::thread::sleep(Duration::from_millis(300));
        let start = Instant::now();
        apply(&enforcer, Command::Quarantine { session: ip(session) });
        let acknowledged = start.elapsed();
        let (total, end, ended) = download.join().expect("download");
        let took = ended.saturating_duration_since(start);
        println!("{session}: quarantine acknowledged in {acknowledged:?}, download ({total} octets) cut in {took:?}");
        assert!(total > 0, "the download ran");
        assert_eq!(end, Some(ErrorKind::ConnectionReset), "the agent hears a reset");
        assert!(took < SECOND, "cut after {took:?}");
        assert!(!world.holds(set, &format!("{session} .")), "pins are gone");
        world.refused(session, server);
        let result = enforcer.submit(pin(session, server, 60 * SECOND)).expect("taken").wait_blocking(5 * SECOND);
        assert!(matches!(result, Err(Error::Quarantined { .. })), "{result:?}");
        apply(&enforcer, Command::Release { session: ip(session) });
        world.refused(session, server);
        apply(&enforcer, pin(session, server, 60 * SECOND));
        world.connects(session, server);
        drop(idle);
    }
    reads(bystander).expect("other sessions' flows go on");
    std::thread::sleep(Duration::from_millis(200));
    // A download that its next packet has ended is not there to be cut any more; the idle flows are.
    let counts = enforcer.status().counts;
    assert!(counts.flow_errors == 0 && counts.flows_cut >= 2, "{counts:?}");
}

#[test]
fn flows_that_end_at_the_gateway_survive_the_quarantine() {
    if skip() {
        return;
    }
    let world = World::new();
    let chain = "{ type nat hook prerouting priority dstnat; }";
    world.nft(&["add", "table", "ip", "taps"]).expect("table");
    world.nft(&["add", "chain", "ip", "taps", "pre", chain]).expect("chain");
    world.nft(&["add", "rule", "ip", "taps", "pre", "udp", "dport", "53", "redirect", "to", ":5300"]).expect("rule");
    let enforcer = world.start(as_is);
    apply(&enforcer, guard(AGENT));
    // The resolver's own exchange: asked at a foreign address, redirected to this host, answered after the quarantine.
    let resolver = world.inside("g", || UdpSocket::bind("0.0.0.0:5300").expect("bind"));
    let stub = world.inside("a", || {
        let socket = UdpSocket::bind((ip(AGENT), 0)).expect("bind");
        socket.connect((ip(SERVER), 53)).expect("connect");
        socket.send(b"?").expect("send");
        socket
    });
    let mut buffer = [0; 16];
    resolver.set_read_timeout(Some(5 * SECOND)).expect("timeout");
    let (_, from) = resolver.recv_from(&mut buffer).expect("redirected");
    apply(&enforcer, Command::Quarantine { session: ip(AGENT) });
    resolver.send_to(b"refused", from).expect("reply");
    stub.set_read_timeout(Some(5 * SECOND)).expect("timeout");
    assert_eq!(stub.recv(&mut buffer).expect("the refusal is heard"), 7);
    world.refused(AGENT, SERVER);
}

#[test]
fn guarding_ends_flows_that_have_no_pin() {
    if skip() {
        return;
    }
    let world = World::new();
    let enforcer = world.start(as_is);
    apply(&enforcer, Command::Unguard { session: ip(AGENT) });
    let (unpinned, pinned) = (world.connects(AGENT, SERVER), world.connects(AGENT, SERVER_2));
    apply(&enforcer, pin(AGENT, SERVER_2, 60 * SECOND));
    apply(&enforcer, guard(AGENT));
    assert_eq!(read_to_end(unpinned).1, Some(ErrorKind::ConnectionReset));
    reads(pinned).expect("the pinned flow goes on");
}

#[test]
fn unknown_sources_are_refused_when_they_are_guarded() {
    if skip() {
        return;
    }
    let world = World::new();
    let enforcer = world.try_start(Config { guard_unknown: true, ..config() }, as_is).expect("starts");
    world.refused(AGENT, SERVER);
    world.refused(AGENT_6, SERVER_6);
    apply(&enforcer, Command::Unguard { session: ip(OTHER) });
    world.connects(OTHER, SERVER);
    world.refused(AGENT, SERVER);
    apply(&enforcer, guard(AGENT));
    apply(&enforcer, pin(AGENT, SERVER, 60 * SECOND));
    world.connects(AGENT, SERVER);
    apply(&enforcer, Command::Remove { session: ip(AGENT) });
    apply(&enforcer, Command::Remove { session: ip(OTHER) });
    world.refused(AGENT, SERVER);
    world.refused(OTHER, SERVER);
    enforcer.shutdown(false).expect("stops");
    // An interface may be named by its beginning.
    let prefix = Config { guard_unknown: true, interfaces: vec!["veth-ag*".into()], ..config() };
    let _enforcer = world.try_start(prefix, as_is).expect("starts again");
    world.refused(AGENT, SERVER);
}

#[test]
fn a_restart_keeps_pins_and_reconciles_before_serving() {
    if skip() {
        return;
    }
    for owned in [true, false] {
        let world = World::new();
        let enforcer = world.start(move |nft| nft.with_ownership(owned));
        for session in [AGENT, OTHER, AGENT_6] {
            apply(&enforcer, guard(session));
        }
        apply(&enforcer, pin(AGENT, SERVER, 300 * SECOND));
        apply(&enforcer, pin(OTHER, SERVER, 300 * SECOND));
        apply(&enforcer, pin(AGENT_6, SERVER_6, 300 * SECOND));
        let download = world.connects(OTHER, SERVER);
        enforcer.shutdown(false).expect("stops");
        world.connects(AGENT, SERVER);
        world.refused(AGENT, SERVER_2);

        let enforcer = world.start(move |nft| nft.with_ownership(owned));
        let view = enforcer.view(ip(AGENT)).expect("taken").wait_blocking(5 * SECOND).expect("answered");
        assert!(view.guarded && view.pins.len() == 1 && view.pins[0].left > 250 * SECOND, "{view:?}");
        apply(&enforcer, pin(AGENT, SERVER, 10 * SECOND));
        assert!(world.expires("pins4", &format!("{AGENT} . {SERVER}")).is_some_and(|left| left > 250 * SECOND));
        world.connects(AGENT_6, SERVER_6);

        let active = |session, quarantined| Active { session: ip(session), guard: Some(Class(1)), quarantined };
        let ticket = enforcer.reconcile(vec![active(AGENT, false), active(OTHER, true)]).expect("taken");
        ticket.wait_blocking(5 * SECOND).expect("reconciled");
        world.connects(AGENT, SERVER);
        world.refused(OTHER, SERVER);
        assert_eq!(read_to_end(download).1, Some(ErrorKind::ConnectionReset), "quarantined by now");
        assert!(!world.holds("pins6", SERVER_6) && !world.holds("guarded6", AGENT_6), "a session nobody knows is gone");
        assert!(!world.holds("pins4", OTHER) && world.holds("quarantined4", OTHER));

        // Another capacity is another set: it is rebuilt with what it held.
        enforcer.shutdown(false).expect("stops");
        let smaller = Config { capacity: 1000, ..config() };
        let enforcer = world.try_start(smaller, move |nft| nft.with_ownership(owned)).expect("rebuilt");
        assert!(world.expires("pins4", &format!("{AGENT} . {SERVER}")).is_some_and(|left| left > 250 * SECOND));
        assert!(world.nft(&["list", "set", "inet", "staunch", "pins4"]).is_ok_and(|text| text.contains("size 1256")));
        world.connects(AGENT, SERVER);
        world.refused(OTHER, SERVER);
        enforcer.shutdown(true).expect("removed");
    }
}

#[test]
fn settings_that_cannot_work_are_refused() {
    for (change, word) in [
        (Config { table: "a b".into(), ..config() }, "table"),
        (Config { table: String::new(), ..config() }, "table"),
        (Config { interfaces: vec!["*".into()], ..config() }, "device name"),
        (Config { interfaces: vec!["much-too-long-a-name".into()], ..config() }, "device name"),
        (Config { guard_unknown: true, interfaces: vec![], ..config() }, "guard_unknown"),
        (Config { capacity: 0, ..config() }, "capacity"),
    ] {
        let error = Nft::new(&change).expect_err("refused").to_string();
        assert!(error.contains(word), "{error}");
    }
}
