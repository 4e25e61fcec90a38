//! Leases in a real kernel: ports, generations, volumes and written ranges.
//!
//! Every refusal has its positive control in the same set-up.

mod gateway;
#[path = "enforce_leases/others.rs"]
mod others;
#[path = "enforce_leases/page.rs"]
mod page;

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gateway::*;
use staunch::enforce::{Active, Class, Command, Enforcer, Kept, Observed, Range};
use staunch::ports::{Port, Ports};

const BATCH: Class = Class(5);
const BUILD: Class = Class(7);

fn tcp80() -> Ports {
    Ports::these([Port::tcp(80)]).expect("ports")
}

fn kept(to: &str, ports: Ports) -> Kept {
    Kept { destination: ip(to), ports: vec![ports], volume: None }
}

fn renew(session: &str, class: Class, keep: Vec<Kept>) -> Command {
    Command::Renew { session: ip(session), class, keep }
}

/// What the enforcer tells of flows, volumes and ranges.
fn told(enforcer: &Enforcer) -> Arc<Mutex<Vec<Observed>>> {
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = told.clone();
    enforcer.on_observed(move |observed| tell.lock().expect("lock").push(observed.clone()));
    told
}

#[test]
fn a_lease_opens_its_ports_and_no_others() {
    if skip() {
        return;
    }
    let world = World::new();
    let enforcer = world.start(as_is);
    for (agent, server) in [(AGENT, SERVER), (AGENT_6, SERVER_6)] {
        apply(&enforcer, guard(agent));
        apply(&enforcer, lease(agent, server, Ports::these([Port::tcp(81), Port::udp(80)]).expect("ports"), None));
        world.refused(agent, server);
        apply(&enforcer, lease(agent, server, tcp80(), None));
        world.connects(agent, server);
        apply(&enforcer, Command::Unpin { session: ip(agent), destinations: vec![ip(server)] });
        world.refused(agent, server);
        apply(&enforcer, lease(agent, server, Ports::Any, None));
        world.connects(agent, server);
    }
    // Every port is every TCP and UDP port: what has none stays closed.
    let ping = |to: &str| run(&["ip", "netns", "exec", &world.ns("a"), "busybox", "ping", "-c1", "-W1", to]);
    assert!(ping(SERVER).is_err(), "an echo carries whatever it likes");
    apply(&enforcer, Command::Unguard { session: ip(AGENT) });
    ping(SERVER).expect("and goes through where nothing is held back");
}

#[test]
fn a_flow_outlives_its_lease_a_restart_and_the_loss_of_the_table() {
    if skip() {
        return;
    }
    let world = World::new();
    let first = world.start(|nft| nft.with_ownership(false));
    apply(&first, guard(AGENT));
    apply(&first, pin(AGENT, SERVER, 2 * SECOND));
    let mut flow = world.connects(AGENT, SERVER);
    std::thread::sleep(Duration::from_millis(2300));
    world.refused(AGENT, SERVER);
    still_flows(&mut flow);
    // The table goes and comes back: the flow's mark says that it was permitted.
    let before = first.status().counts.restored;
    world.nft(&["delete", "table", "inet", "staunch"]).expect("deleted");
    assert!(within(5 * SECOND, || first.status().counts.restored > before).is_some());
    std::thread::sleep(Duration::from_millis(300));
    still_flows(&mut flow);
    world.refused(AGENT, SERVER);
    // The process goes and comes back.
    first.shutdown(false).expect("stops");
    still_flows(&mut flow);
    let second = world.start(|nft| nft.with_ownership(false));
    let active = vec![Active { session: ip(AGENT), guard: Some(Class(1)), quarantined: false }];
    second.reconcile(active).expect("taken").wait_blocking(5 * SECOND).expect("reconciled");
    still_flows(&mut flow);
    world.refused(AGENT, SERVER);
    // Another run of a sandbox under the same address has nothing to do with it.
    apply(&second, Command::Remove { session: ip(AGENT) });
    apply(&second, guard(AGENT));
    ends(flow);
    apply(&second, pin(AGENT, SERVER, 60 * SECOND));
    world.connects(AGENT, SERVER);
}

#[test]
fn a_new_generation_ends_what_is_not_kept_within_a_second_and_nothing_else() {
    if skip() {
        return;
    }
    let world = World::new();
    let enforcer = world.start(as_is);
    for (agent, kept_server, lost_server) in [(AGENT, SERVER, SERVER_2), (AGENT_6, SERVER_6, SERVER_6_2)] {
        // Neighbours are found while nothing is in a hurry.
        for server in [kept_server, lost_server] {
            world.connects(agent, server);
        }
        apply(&enforcer, guard(agent));
        // A lease that has ended by then, one that lives, and one that goes.
        apply(&enforcer, pin(agent, kept_server, 2 * SECOND));
        let mut old = world.connects(agent, kept_server);
        apply(&enforcer, pin(agent, lost_server, 60 * SECOND));
        let doomed = world.connects(agent, lost_server);
        std::thread::sleep(Duration::from_millis(2200));
        let start = Instant::now();
        let reader = std::thread::spawn(move || ends(doomed));
        apply(&enforcer, renew(agent, BATCH, vec![kept(kept_server, tcp80())]));
        let ended = reader.join().expect("reader").saturating_duration_since(start);
        println!("{agent}: what may not go on ended {ended:?} after the order");
        assert!(ended < SECOND, "{ended:?}");
        still_flows(&mut old);
        world.refused(agent, lost_server);
        world.refused(agent, kept_server);
        let view = enforcer.view(ip(agent)).expect("taken").wait_blocking(5 * SECOND).expect("answered");
        assert!(view.pins.is_empty(), "{view:?}");
        // The generation before is over: only what was taken over lives.
        let current = if agent.contains(':') { "current6" } else { "current4" };
        let elements =
            || world.nft(&["list", "set", "inet", "staunch", current]).expect("set").matches(" . 0x").count();
        assert!(within(5 * SECOND, || elements() == 1).is_some(), "{} generations are current", elements());
        still_flows(&mut old);
        // New leases are of the new generation.
        apply(&enforcer, pin(agent, lost_server, 60 * SECOND));
        still_flows(&mut world.connects(agent, lost_server));
        // The same address by another port is another thing.
        apply(&enforcer, renew(agent, BATCH, vec![kept(kept_server, Ports::these([Port::tcp(443)]).expect("ports"))]));
        ends(old);
    }
}

#[test]
fn udp_flows_end_with_their_generation_too() {
    if skip() {
        return;
    }
    let world = World::new();
    let enforcer = world.start(as_is);
    apply(&enforcer, guard(AGENT));
    let dns = Ports::these([Port::udp(53)]).expect("ports");
    for to in [SERVER, SERVER_2] {
        apply(&enforcer, lease(AGENT, to, dns.clone(), None));
    }
    let socket = |to: &'static str| {
        world.inside("a", move || {
            let socket = UdpSocket::bind((ip(AGENT), 0)).expect("socket");
            socket.connect((ip(to), 53)).expect("address");
            socket.set_read_timeout(Some(SECOND)).expect("timeout");
            socket
        })
    };
    let (lives, ends) = (socket(SERVER), socket(SERVER_2));
    let echoes = |socket: &UdpSocket| socket.send(b"?").and_then(|_| socket.recv(&mut [0; 8]));
    for socket in [&lives, &ends] {
        assert_eq!(echoes(socket).expect("an echo"), 1);
        assert_eq!(echoes(socket).expect("an echo of an established flow"), 1);
    }
    apply(&enforcer, renew(AGENT, BATCH, vec![kept(SERVER, dns)]));
    assert!(within(SECOND, || echoes(&ends).is_err()).is_some(), "ends within a second");
    std::thread::sleep(Duration::from_millis(900));
    assert!(echoes(&ends).is_err());
    assert_eq!(echoes(&lives).expect("goes on"), 1);
}

#[test]
fn a_volume_is_counted_in_the_kernel_told_and_cut() {
    if skip() {
        return;
    }
    let world = World::new();
    let enforcer = world.start(|nft| nft.with_ownership(false));
    let observed = told(&enforcer);
    const LIMIT: u64 = 1 << 20;
    for (agent, server) in [(AGENT, SERVER), (AGENT_6, SERVER_6)] {
        apply(&enforcer, guard(agent));
        apply(&enforcer, lease(agent, server, tcp80(), Some(LIMIT)));
        let sent = upload(world.connects(agent, server), 8 << 20);
        println!("{agent}: {sent} octets were taken before the cut at {LIMIT}");
        assert!(sent < 8 << 20, "an upload beyond the limit ends");
        world.refused(agent, server);
        // A new lease does not begin at nothing, nor does one that ended.
        apply(&enforcer, lease(agent, server, tcp80(), Some(LIMIT)));
        world.refused(agent, server);
        let spent = |o: &Observed| o.volumes.iter().any(|used| used.session == ip(agent) && used.is_spent());
        assert!(
            within(Duration::from_secs(60), || observed.lock().expect("lock").iter().any(spent)).is_some(),
            "somebody is told"
        );
        let octets = |o: &Observed| o.volumes.iter().filter(|u| u.session == ip(agent)).map(|u| u.octets).max();
        let most = observed.lock().expect("lock").iter().filter_map(octets).max().expect("a reading");
        assert!((LIMIT..LIMIT + (1 << 20)).contains(&most), "{most}");
    }
    // A name of a rule leads there as well: the wider limit counts, and what has gone out stays counted.
    apply(&enforcer, lease(AGENT, SERVER, tcp80(), None));
    world.connects(AGENT, SERVER);
    let view = enforcer.view(ip(AGENT)).expect("taken").wait_blocking(5 * SECOND).expect("answered");
    assert!(view.volumes[0].octets >= LIMIT && view.volumes[0].limit.is_none(), "{:?}", view.volumes);
    // Policy changes: the limit is back, and what was counted before is spent already.
    let limited = Kept { volume: Some(LIMIT), ..kept(SERVER, tcp80()) };
    apply(&enforcer, renew(AGENT, BATCH, vec![limited]));
    world.refused(AGENT, SERVER);
    // A table that has to be built anew goes on counting.
    let before = enforcer.status().counts.restored;
    world.nft(&["delete", "table", "inet", "staunch"]).expect("deleted");
    assert!(within(5 * SECOND, || enforcer.status().counts.restored > before).is_some());
    world.refused(AGENT_6, SERVER_6);
    apply(&enforcer, lease(AGENT_6, SERVER_6, tcp80(), Some(64 << 20)));
    assert!(upload(world.connects(AGENT_6, SERVER_6), 1 << 20) >= 1 << 20, "the control: more may go out now");
}

/// Of the addresses of an answer most never see a packet, so the kernel itself begins to count where nothing is limited.
#[test]
fn a_count_without_a_limit_begins_with_the_first_packet_that_passes() {
    if skip() {
        return;
    }
    let world = World::new();
    let enforcer = world.start(as_is);
    let dns = Ports::these([Port::udp(53)]).expect("ports");
    for (agent, server, other, set) in
        [(AGENT, SERVER, SERVER_2, "counts4"), (AGENT_6, SERVER_6, SERVER_6_2, "counts6")]
    {
        // Neighbours are found while nothing is in a hurry.
        world.connects(agent, server);
        apply(&enforcer, guard(agent));
        for to in [server, other] {
            apply(&enforcer, lease(agent, to, dns.clone(), None));
        }
        let counted = || world.nft(&["list", "set", "inet", "staunch", set]).expect("set");
        let elements = || counted().matches(&format!("{agent} . ")).count();
        assert_eq!(elements(), 0, "{}", counted());
        // What is refused counts nowhere.
        world.refused(agent, other);
        assert_eq!(elements(), 0, "{}", counted());
        let echo = |octets: &'static [u8]| {
            world.inside("a", move || {
                let socket = UdpSocket::bind((ip(agent), 0)).expect("socket");
                socket.set_read_timeout(Some(SECOND)).expect("timeout");
                socket
                    .send_to(octets, (ip(server), 53))
                    .and_then(|_| socket.recv(&mut [0; 64]))
                    .unwrap_or_else(|error| panic!("an echo for {agent}: {error}"))
            })
        };
        // One datagram is counted once, with its headers: by the flow that begins the count, and by one that finds it there.
        let header = if agent.contains(':') { 40 } else { 20 } + 8;
        echo(b"first");
        assert!(counted().contains(&format!("{agent} . {server} quota over")), "{}", counted());
        assert!(counted().contains(&format!(" used {} bytes", header + 5)), "{}", counted());
        echo(b"second");
        assert!(counted().contains(&format!(" used {} bytes", 2 * header + 11)), "{}", counted());
        assert_eq!(elements(), 1, "{}", counted());
    }
    // A count that has begun, and one that has not, give way to a limit at once; the table that is found after a restart says of
    // both that they had none.
    enforcer.shutdown(false).expect("stops");
    let enforcer = world.start(as_is);
    let view = enforcer.view(ip(AGENT)).expect("taken").wait_blocking(5 * SECOND).expect("answered");
    let limits: Vec<_> = view.volumes.iter().map(|volume| (volume.destination, volume.limit)).collect();
    assert!(limits.len() == 2 && limits.iter().all(|(_, limit)| limit.is_none()), "{limits:?}");
    let limited = |to| Kept { volume: Some(1 << 20), ..kept(to, tcp80()) };
    for to in [SERVER, SERVER_2] {
        apply(&enforcer, lease(AGENT, to, tcp80(), Some(1 << 20)));
    }
    apply(&enforcer, renew(AGENT, BATCH, vec![limited(SERVER), limited(SERVER_2)]));
    for to in [SERVER, SERVER_2] {
        apply(&enforcer, lease(AGENT, to, tcp80(), Some(1 << 20)));
        let sent = upload(world.connects(AGENT, to), 8 << 20);
        println!("{to}: {sent} octets were taken before the cut");
        assert!(sent < 8 << 20, "an upload beyond the limit ends");
    }
    enforcer.shutdown(false).expect("stops");
    let enforcer = world.start(as_is);
    let active = |agent| Active { session: ip(agent), guard: Some(BATCH), quarantined: false };
    let reconciled = enforcer.reconcile(vec![active(AGENT), active(AGENT_6)]).expect("taken");
    reconciled.wait_blocking(5 * SECOND).expect("reconciled");
    for to in [SERVER, SERVER_2] {
        apply(&enforcer, lease(AGENT, to, tcp80(), Some(1 << 20)));
        world.refused(AGENT, to);
    }
    let elements = |set| world.nft(&["list", "set", "inet", "staunch", set]).expect("set").matches(" . 20").count();
    assert_eq!((elements("volumes4"), elements("counts4"), elements("counts6")), (2, 0, 1));
    // Nothing of a session stays behind, whether or not it was read.
    for agent in [AGENT, AGENT_6] {
        apply(&enforcer, Command::Remove { session: ip(agent) });
    }
    assert_eq!((elements("volumes4"), elements("counts4"), elements("counts6")), (0, 0, 0));
}

#[test]
fn written_ranges_open_for_their_class_alone() {
    if skip() {
        return;
    }
    let world = World::new();
    let enforcer = world.start(|nft| nft.with_ownership(false));
    let observed = told(&enforcer);
    let class = |agent, class| Command::Guard { session: ip(agent), class };
    apply(&enforcer, class(AGENT, BUILD));
    apply(&enforcer, class(OTHER, BATCH));
    apply(&enforcer, class(AGENT_6, BUILD));
    world.refused(AGENT, SERVER);
    let range = |id, first: &str, last: &str, ports| Range {
        id,
        classes: 1 << BUILD.0,
        first: ip(first),
        last: ip(last),
        ports,
    };
    let all = vec![
        range(4, "203.0.113.8", "203.0.113.15", tcp80()),
        // Lies within the first, and asks for more: written so, it is no mistake.
        range(5, SERVER, SERVER, Ports::Any),
        range(6, "2001:db8:2::", "2001:db8:2::ffff", tcp80()),
    ];
    let open = |ranges: Vec<Range>| {
        enforcer.ranges(ranges).expect("taken").wait_blocking(5 * SECOND).unwrap_or_else(|error| panic!("{error}"));
    };
    open(all.clone());
    world.connects(AGENT, SERVER);
    world.connects(AGENT, SERVER_2);
    let mut flow6 = world.connects(AGENT_6, SERVER_6);
    world.refused(OTHER, SERVER);
    assert!(
        within(Duration::from_secs(60), || {
            let told = observed.lock().expect("lock");
            [4, 6].iter().all(|id| told.iter().any(|o| o.ranges.contains(id)))
        })
        .is_some(),
        "use is told: {:?}",
        observed.lock().expect("lock").iter().map(|o| o.ranges.clone()).collect::<Vec<_>>()
    );
    // Moved to another phase, a session has what that phase has; its flows into a range end with it.
    let mut flow = world.connects(AGENT, SERVER);
    apply(&enforcer, renew(AGENT, BATCH, Vec::new()));
    world.refused(AGENT, SERVER);
    assert!(within(SECOND, || flow_is_over(&mut flow)).is_some());
    apply(&enforcer, renew(AGENT_6, BUILD, Vec::new()));
    std::thread::sleep(Duration::from_millis(900));
    still_flows(&mut flow6);
    apply(&enforcer, renew(AGENT, BUILD, Vec::new()));
    world.connects(AGENT, SERVER);
    // What is no longer written is closed, what others destroy comes back.
    world.nft(&["flush", "set", "inet", "staunch", "ranges4_7"]).expect("flushed");
    assert!(within(5 * SECOND, || world.dial(AGENT, SERVER).0.is_ok()).is_some());
    open(vec![all[2].clone()]);
    world.refused(AGENT, SERVER);
    world.connects(AGENT_6, SERVER_6);
    open(Vec::new());
    world.refused(AGENT_6, SERVER_6);
    let mut many = all;
    many.resize_with(20_000, || range(9, SERVER, SERVER, tcp80()));
    let error = enforcer.ranges(many).expect("taken").wait_blocking(5 * SECOND).expect_err("too many");
    assert!(error.to_string().contains("full"), "{error}");
}

#[test]
fn an_interface_that_goes_and_comes_back_opens_nothing() {
    if skip() {
        return;
    }
    let world = World::new();
    let enforcer =
        world.try_start(staunch::enforce::Config { guard_unknown: true, ..config() }, as_is).expect("starts");
    apply(&enforcer, guard(AGENT));
    apply(&enforcer, pin(AGENT, SERVER, 60 * SECOND));
    world.connects(AGENT, SERVER);
    let (a, g) = (world.ns("a"), world.ns("g"));
    ok(&["ip", "-n", &g, "link", "del", "veth-agent"]);
    ok(&["ip", "-n", &g, "link", "add", "veth-agent", "type", "veth", "peer", "name", "eth0", "netns", &a]);
    ok(&["ip", "-n", &g, "link", "set", "veth-agent", "up"]);
    ok(&["ip", "-n", &a, "link", "set", "eth0", "up"]);
    ok(&["ip", "-n", &g, "addr", "add", "10.77.1.1/24", "dev", "veth-agent"]);
    for address in ["10.77.1.2/24", "10.77.1.3/24"] {
        ok(&["ip", "-n", &a, "addr", "add", address, "dev", "eth0"]);
    }
    ok(&["ip", "-n", &a, "route", "add", "default", "via", "10.77.1.1"]);
    world.refused(AGENT, SERVER_2);
    world.refused(OTHER, SERVER);
    world.connects(AGENT, SERVER);
    assert!(enforcer.healthy());
}

/// Reads what the server sends for a while.
fn still_flows(flow: &mut TcpStream) {
    // What had come before is no sign of life.
    flow.set_nonblocking(true).expect("mode");
    while flow.read(&mut [0; 64 << 10]).is_ok() {}
    flow.set_nonblocking(false).expect("mode");
    flow.set_read_timeout(Some(2 * SECOND)).expect("timeout");
    flow.read_exact(&mut vec![0; 64 << 10]).unwrap_or_else(|error| panic!("the flow must go on: {error}"));
}

/// Reads until the flow ends, which it must by a reset; when.
#[track_caller]
fn ends(flow: TcpStream) -> Instant {
    let (_, how, when) = read_to_end(flow);
    assert_eq!(how, Some(ErrorKind::ConnectionReset), "a flow that may not go on is reset");
    when
}

fn flow_is_over(flow: &mut TcpStream) -> bool {
    flow.set_read_timeout(Some(Duration::from_millis(100))).expect("timeout");
    matches!(flow.read(&mut [0; 64 << 10]), Err(error) if error.kind() == ErrorKind::ConnectionReset)
}

/// Sends until it ends or `most` octets are taken, reading what comes; how many were.
fn upload(mut flow: TcpStream, most: usize) -> usize {
    let mut reader = flow.try_clone().expect("clone");
    let drain = std::thread::spawn(move || while reader.read(&mut [0; 64 << 10]).is_ok_and(|n| n > 0) {});
    flow.set_write_timeout(Some(2 * SECOND)).expect("timeout");
    let mut sent = 0;
    while sent < most {
        match flow.write(&[7; 16 << 10]) {
            Ok(n) => sent += n,
            Err(_) => break,
        }
    }
    let _ = flow.shutdown(std::net::Shutdown::Both);
    let _ = drain.join();
    sent
}

#[test]
fn the_helpers_addresses_are_of_their_families() {
    assert!([AGENT, OTHER, SERVER, SERVER_2].iter().all(|text| ip(text).is_ipv4()));
    assert!([AGENT_6, SERVER_6, SERVER_6_2].iter().all(|text: &&str| matches!(ip(text), IpAddr::V6(_))));
}
