//! Split privilege: a resolver without any capability, an enforcer that reads nothing of the network, either of them killed.

#[path = "split/loops.rs"]
mod loops;
#[path = "split/owed.rs"]
mod owed;
mod world;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use world::dns::{Data, rcode, rtype};
use world::enforcer::{self, Enforcer, USER, frame, talk};
use world::staunch::{Config, Staunch};
use world::{Agent, Chance, WEB, World, wait_for};

/// An address that no name leads to.
const NEVER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 99);
/// EDE Not Ready (RFC 8914).
const NOT_READY: u16 = 14;
const CAP_NET_ADMIN: u64 = 1 << 12;

/// Names that nobody has asked yet, each with an address of its own.
struct Fresh(u32);

/// So many have an address that no other has.
const UNIQUE: u32 = 250;

impl Fresh {
    fn name(&mut self, world: &World) -> (String, IpAddr) {
        self.0 += 1;
        let last = ((self.0 - 1) % UNIQUE + 1) as u8;
        let (name, address) = (format!("n{}.site.example", self.0), IpAddr::from([198, 51, 100, last]));
        world.upstream.add_site(&name, address);
        (name, address)
    }
}

fn asked(agent: &Agent, name: &str) -> Vec<IpAddr> {
    agent.ask(name, rtype::A).map(|reply| reply.addresses()).unwrap_or_default()
}

/// Asks until there is an address: a busy host may fail to pin one in time, and says so.
fn answered(agent: &Agent, name: &str) -> Vec<IpAddr> {
    let answer = wait_for(Duration::from_secs(10), || {
        let addresses = asked(agent, name);
        (!addresses.is_empty()).then_some(addresses)
    });
    answer.unwrap_or_default()
}

/// Asks one fresh name after the other until one is answered and can be dialled; how long that took.
fn until_pinned(world: &World, agent: &Agent, fresh: &mut Fresh, staunch: &Staunch) -> Duration {
    let begun = Instant::now();
    let pinned = wait_for(Duration::from_secs(10), || {
        let (name, address) = fresh.name(world);
        (asked(agent, &name) == [address]).then_some(address)
    });
    let took = begun.elapsed();
    let address = pinned.unwrap_or_else(|| panic!("nothing is answered any more\n{}", staunch.tail()));
    assert!(agent.dial(address, 80).0.is_ok(), "what was answered connects");
    took
}

/// A download that only reads, so that it meets no refusal of its own; tells of every piece that arrives.
fn download(agent: &Agent) -> std::sync::mpsc::Receiver<Instant> {
    let (tell, told) = std::sync::mpsc::channel();
    agent.ns.spawn(async move {
        let Ok(mut stream) = tokio::net::TcpStream::connect(SocketAddr::from((WEB, 80))).await else { return };
        let _ = stream.write_all(b"GET /endless HTTP/1.1\r\nHost: www.site.example\r\n\r\n").await;
        let mut buffer = [0; 4096];
        while let Ok(1..) = stream.read(&mut buffer).await {
            if tell.send(Instant::now()).is_err() {
                return;
            }
        }
    });
    told
}

/// Whether more of a download arrives: one that was cut has ended for good, however long is waited.
fn runs_on(told: &std::sync::mpsc::Receiver<Instant>) -> bool {
    told.try_iter().for_each(drop);
    told.recv_timeout(Duration::from_secs(20)).is_ok()
}

fn closed(agent: &Agent, to: IpAddr, what: &str) {
    assert!(agent.dial(to, 80).0.is_err(), "{what}: {to} was reached");
}

/// A field of every thread of a process, as proc(5) has it.
fn of_threads(pid: u32, field: &str) -> Vec<u64> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the process runs");
    let status = threads.flatten().filter_map(|thread| std::fs::read_to_string(thread.path().join("status")).ok());
    let value = |status: String| {
        let line = status.lines().find_map(|line| line.strip_prefix(field).map(str::trim).map(String::from));
        let word = line.expect("the field").split_whitespace().next().expect("a value").to_owned();
        if field.starts_with("Cap") { u64::from_str_radix(&word, 16) } else { word.parse() }.expect("a number")
    };
    status.map(value).collect()
}

/// More names than any ledger would let through.
fn config() -> Config {
    Config::enforce().rule("all", "allow", "\"*.site.example\"", "budget_bits = 8388607\n")
}

fn started(world: &World, config: Config) -> (Enforcer, Staunch) {
    let (enforcer, mut staunch) = enforcer::start(world, config);
    staunch.restart(world);
    (enforcer, staunch)
}

#[test]
fn the_resolver_has_no_capability_and_the_enforcer_one() {
    let Some(world) = World::create(2) else { return };
    let mut config = config();
    config.enforce = "max_pin_seconds = 600".into();
    let (mut enforcer, staunch) = started(&world, config);
    let pid = staunch.pid().expect("it runs");
    for field in ["CapEff:", "CapPrm:", "CapInh:", "CapBnd:", "CapAmb:"] {
        assert!(of_threads(pid, field).iter().all(|caps| *caps == 0), "{field} of the resolver");
    }
    assert!(of_threads(pid, "Uid:").iter().all(|user| *user == u64::from(USER)));
    for field in ["CapEff:", "CapPrm:", "CapBnd:"] {
        let caps = of_threads(enforcer.pid(), field);
        assert!(caps.iter().all(|caps| *caps == CAP_NET_ADMIN), "{field} of the enforcer: {caps:x?}");
    }
    assert!(of_threads(enforcer.pid(), "NoNewPrivs:").iter().all(|set| *set == 1));

    let [one, two] = &world.agents[..] else { unreachable!("two sandboxes were made") };
    closed(one, WEB.into(), "an address never answered");
    assert_eq!(asked(one, "www.site.example"), [IpAddr::from(WEB)], "{}", staunch.tail());
    assert!(one.dial(WEB.into(), 80).0.is_ok(), "the answered address connects\n{}", enforcer.log());
    closed(two, WEB.into(), "another session's pin");

    // What the kernel counts travels too.
    let body = vec![b'x'; 300_000];
    let sent = one.ns.run(async move {
        let mut stream = tokio::net::TcpStream::connect(SocketAddr::from((WEB, 80))).await?;
        let head = format!("POST / HTTP/1.1\r\nHost: www.site.example\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(&body).await?;
        stream.flush().await
    });
    println!("sent: {sent:?}");
    let told = wait_for(Duration::from_secs(15), || {
        let shown = staunch.json(&["session", "show", "agent-1"]);
        (shown["pins"][0]["octets_out"].as_u64() >= Some(300_000)).then_some(())
    });
    assert!(told.is_some(), "volumes are not told: {}", staunch.json(&["session", "show", "agent-1"]));
    let status = staunch.json(&["status"]);
    assert_eq!(status["enforcement"]["backend"], "nft", "{status}");
    assert!(status["enforcement"]["counts"]["pins4"].as_u64() >= Some(1), "{status}");

    enforcer.end();
    assert!(enforcer.log().contains("stopping; the table stays"), "{}", enforcer.log());
    assert!(!enforcer::socket(&world).exists(), "its socket goes with it");
    closed(two, WEB.into(), "behind an enforcer that was ended");
}

#[test]
fn a_killed_enforcer_is_a_denial_at_once_and_when_it_is_back_all_works() {
    let Some(world) = World::create(1) else { return };
    let (mut enforcer, staunch) = started(&world, config());
    let agent = &world.agents[0];
    let mut fresh = Fresh(0);
    until_pinned(&world, agent, &mut fresh, &staunch);
    assert_eq!(asked(agent, "www.site.example"), [IpAddr::from(WEB)]);
    assert!(agent.dial(WEB.into(), 80).0.is_ok());
    let told = download(agent);
    let mut back = Vec::new();
    for round in 0..5u8 {
        enforcer.kill();
        let killed = Instant::now();
        // A name that is pinned and cached is denied as well as a fresh one.
        let mut last = Duration::ZERO;
        while killed.elapsed() < Duration::from_millis(600) {
            let begun = killed.elapsed();
            let (name, _) = fresh.name(&world);
            if !asked(agent, &name).is_empty() || !asked(agent, "www.site.example").is_empty() {
                last = begun;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        println!("FIGURE: round {round}: last address asked for {:.0} ms after the kill", last.as_secs_f32() * 1000.0);
        assert!(last <= Duration::from_millis(300), "answered {last:?} after the kill\n{}", staunch.tail());
        let (name, address) = (format!("alone{round}.site.example"), IpAddr::from([203, 0, 113, 150 + round]));
        world.upstream.add_site(&name, address);
        let reply = agent.ask_edns(&name, rtype::A).expect("a reply");
        assert_eq!((reply.rcode(), reply.answers.len()), (rcode::SERVFAIL, 0));
        assert!(reply.errors().iter().any(|(code, _)| *code == NOT_READY), "{:?}", reply.errors());
        closed(agent, address, "what was not answered");
        closed(agent, NEVER.into(), "what no name leads to");
        assert!(agent.dial(WEB.into(), 80).0.is_ok(), "a lease that is alive goes on, for the kernel holds it");
        let ready = enforcer.restart(&world);
        let pinned = until_pinned(&world, agent, &mut fresh, &staunch);
        println!("FIGURE: enforcer ready after {:.0} ms, pins after {:.0} ms more", ms(ready), ms(pinned));
        back.push(ready + pinned);
        assert!(agent.dial(WEB.into(), 80).0.is_ok(), "and it lives on");
    }
    // The quicker ones: how long a start takes is this machine's matter too.
    back.sort();
    assert!(back[1] < Duration::from_secs(2) && back[4] < Duration::from_secs(10), "back after {back:?}");
    assert!(runs_on(&told), "a connection that was open all the time was cut");
}

#[test]
fn a_quarantine_while_the_enforcer_is_away_holds_before_the_next_pin() {
    let Some(world) = World::create(2) else { return };
    let (mut enforcer, staunch) = started(&world, config());
    let [one, two] = &world.agents[..] else { unreachable!("two sandboxes were made") };
    for agent in [one, two] {
        assert_eq!(asked(agent, "www.site.example"), [IpAddr::from(WEB)]);
        assert!(agent.dial(WEB.into(), 80).0.is_ok());
    }
    let told = download(one);
    assert!(runs_on(&told), "the download runs");
    enforcer.kill();
    let closing = staunch.run(&["session", "quarantine", "agent-1", "--reason", "a test"]);
    let said = String::from_utf8_lossy(&closing.stderr).into_owned();
    assert_eq!(closing.status.code(), Some(14), "it is on record, and nothing is closed yet: {said}");
    assert!(said.contains("the packet filter does not hold this yet"), "{said}");
    assert_eq!(staunch.session_state("agent-1"), "quarantined");
    let announced = ["session", "announce", "agent-9", "--address", "10.77.2.9", "--type", "batch"];
    staunch.run_ok(&announced);
    for verb in [&announced[..], &["session", "end", "agent-9"]] {
        let output = staunch.run(verb);
        assert_eq!(output.status.code(), Some(14), "{verb:?}: {output:?}");
    }
    // One that was lifted again has ended the flows of before all the same.
    staunch.run(&["session", "quarantine", "agent-2", "--reason", "a test"]);
    staunch.run(&["session", "release", "agent-2", "--by", "tester", "--reason", "a test"]);
    assert!(runs_on(&told), "the control: the download ran, and nobody was there to end it");

    enforcer.restart(&world);
    let back = Instant::now();
    let answered =
        wait_for(Duration::from_secs(10), || (!asked(two, "www.site.example").is_empty()).then(Instant::now));
    let answered = answered.unwrap_or_else(|| panic!("nothing is answered any more\n{}", staunch.tail()));
    println!("FIGURE: first pin {:.0} ms after the enforcer was ready", ms(answered - back));
    closed(one, WEB.into(), "quarantined while the enforcer was away");
    let table = world.gw.sh("nft list set inet staunch quarantined4");
    assert!(String::from_utf8_lossy(&table.stdout).contains("10.77.1.2"), "{table:?}");
    let pins = String::from_utf8_lossy(&world.gw.sh("nft list set inet staunch web4").stdout).into_owned();
    assert!(!pins.contains("10.77.1.2 ") && pins.contains("10.77.2.2 "), "{pins}");
    std::thread::sleep(Duration::from_millis(1200));
    let last = told.try_iter().last().map_or(Duration::ZERO, |at| at.saturating_duration_since(answered));
    assert!(last < Duration::from_secs(1), "the download went on {last:?}");
    assert!(asked(one, "www.site.example").is_empty());
    assert!(two.dial(WEB.into(), 80).0.is_ok(), "released and asked again");
}

#[test]
fn a_killed_resolver_opens_nothing_and_its_leases_end_by_themselves() {
    let Some(world) = World::create(1) else { return };
    let mut config = config();
    config.enforce = "min_pin_seconds = 4\npin_grace_seconds = 1\nmax_pin_seconds = 600".into();
    let short = Ipv4Addr::new(203, 0, 113, 77);
    world.upstream.add("short.site.example", 1, Data::A(short));
    world.upstream.add("long.site.example", 300, Data::A(WEB));
    let (enforcer, mut staunch) = started(&world, config);
    let agent = &world.agents[0];
    assert_eq!(answered(agent, "long.site.example"), [IpAddr::from(WEB)], "{}", staunch.tail());
    assert_eq!(answered(agent, "short.site.example"), [IpAddr::from(short)], "{}", staunch.tail());
    assert!(agent.dial(short.into(), 80).0.is_ok());
    let told = download(agent);
    staunch.kill();
    assert!(asked(agent, "other.site.example").is_empty());
    closed(agent, NEVER.into(), "what no name leads to");
    let ended = wait_for(Duration::from_secs(15), || agent.dial(short.into(), 80).0.is_err().then_some(()));
    assert!(ended.is_some(), "the lease never ended");
    assert!(agent.dial(WEB.into(), 80).0.is_ok(), "a lease that is alive is not cut");
    let ready = staunch.restart(&world);
    println!("FIGURE: the resolver was ready {:.0} ms after its start", ms(ready));
    let (end, took) = agent.dial(WEB.into(), 80);
    let table = world.gw.sh("nft list ruleset").stdout;
    let table = String::from_utf8_lossy(&table);
    assert!(
        end.is_ok(),
        "taken over without a gap: {end:?} after {took:?}\n{}\n{table}\n{}",
        enforcer.log(),
        staunch.tail()
    );
    closed(agent, short.into(), "a lease that has ended");
    assert!(runs_on(&told), "a connection that was open all the time was cut");
    let mut fresh = Fresh(0);
    let pinned = until_pinned(&world, agent, &mut fresh, &staunch);
    assert!(ready + pinned < Duration::from_secs(10), "back after {:?}", ready + pinned);
}

#[test]
fn a_resolver_killed_as_soon_as_it_has_answered_closes_nothing_when_it_is_back() {
    let Some(world) = World::create(1) else { return };
    let mut config = config();
    config.enforce = "max_pin_seconds = 600".into();
    let (_enforcer, mut staunch) = started(&world, config);
    let agent = &world.agents[0];
    // Each round without a state, so that of the policy nothing is known but what this very start has written.
    for round in 1..=6u8 {
        staunch.kill();
        for entry in std::fs::read_dir(&staunch.state).expect("the state directory").flatten() {
            let path = entry.path();
            let removed = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            removed.expect("removed");
        }
        let (name, to) = (format!("k{round}.site.example"), Ipv4Addr::new(203, 0, 113, 100 + round));
        world.upstream.add(&name, 300, Data::A(to));
        let address = IpAddr::from(to);
        staunch.restart(&world);
        let journal = std::fs::read_dir(&staunch.state).expect("the state directory").flatten();
        let journal = journal.filter(|entry| entry.file_name().to_string_lossy().starts_with("journal-"));
        let mut journal = journal.filter_map(|entry| std::fs::read_to_string(entry.path()).ok());
        assert!(
            journal.any(|text| text.contains(r#""kind":"policy""#)),
            "round {round}: ready, and the policy is not on disk"
        );
        assert_eq!(answered(agent, &name), [address], "{}", staunch.tail());
        staunch.kill();
        assert!(agent.dial(address, 80).0.is_ok(), "round {round}: the lease is the kernel's");
        staunch.restart(&world);
        let (end, took) = agent.dial(address, 80);
        assert!(end.is_ok(), "round {round}: closed by the start: {end:?} after {took:?}\n{}", staunch.tail());
    }
}

#[test]
fn only_the_resolver_is_heard_and_only_one() {
    let Some(world) = World::create(1) else { return };
    let (enforcer, mut staunch) = enforcer::start(&world, config());
    let socket = enforcer::socket(&world);
    let said = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    let second = Duration::from_secs(1);

    // Root is not the user that was named, nor is anybody else.
    for user in [0, USER + 1] {
        let (heard, over) = talk(&socket, user, &frame(r#"{"op":"health"}"#), 3 * second);
        assert!(over && said(&heard).contains("may not give orders"), "user {user}: {over} {}", said(&heard));
    }
    // Garbage of the right user.
    let garbage: Vec<Vec<u8>> = vec![
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        u32::MAX.to_be_bytes().to_vec(),
        frame("{}"),
        frame("[[[[[[[["),
        frame(r#"{"op":"apply","commands":[{"order":"pin"}]}"#),
        vec![0; 64],
        (0..2000u32).flat_map(u32::to_le_bytes).collect(),
    ];
    for octets in &garbage {
        let (_, over) = talk(&socket, USER, octets, 5 * second);
        assert!(over, "{octets:?} is still listened to");
    }
    // Orders before a greeting, and greetings that do not fit.
    let pin = r#"{"op":"apply","commands":[{"order":"unguard","session":"10.77.1.2"}]}"#;
    let (heard, over) = talk(&socket, USER, &frame(pin), 5 * second);
    assert!(over && said(&heard).contains("comes first"), "{}", said(&heard));
    for (hello, why) in [
        (r#"{"op":"hello","version":99,"product":"x","table":"staunch"}"#, "is not spoken"),
        (r#"{"op":"hello","version":2,"product":"x","table":"other"}"#, "not `other`"),
        (r#"{"op":"hello","version":2,"product":"x","table":"staunch"}"#, "the same file"),
    ] {
        let (heard, over) = talk(&socket, USER, &frame(hello), 5 * second);
        assert!(over && said(&heard).contains(why), "{hello}: {}", said(&heard));
    }
    // Somebody silent does not keep the place.
    let (_, over) = talk(&socket, USER, b"", 5 * second);
    assert!(over, "silence is listened to for ever");

    staunch.restart(&world);
    let agent = &world.agents[0];
    let mut fresh = Fresh(0);
    until_pinned(&world, agent, &mut fresh, &staunch);
    for octets in garbage.iter().chain([&frame(pin)]) {
        let (heard, over) = talk(&socket, USER, octets, 5 * second);
        assert!(over && said(&heard).contains("one resolver at a time"), "{}", said(&heard));
        let (name, address) = fresh.name(&world);
        assert_eq!(asked(agent, &name), [address], "the resolver is served meanwhile\n{}", staunch.tail());
    }
    closed(agent, NEVER.into(), "what no name leads to");
    let mode = std::os::unix::fs::MetadataExt::mode(&socket.metadata().expect("the socket"));
    assert_eq!(mode & 0o777, 0o660);
    assert!(enforcer.log().contains("is refused"), "{}", enforcer.log());
}

#[test]
fn an_enforcer_that_hangs_is_a_denial_and_is_found_again() {
    let Some(world) = World::create(1) else { return };
    let (enforcer, staunch) = started(&world, config());
    let agent = &world.agents[0];
    let mut fresh = Fresh(0);
    until_pinned(&world, agent, &mut fresh, &staunch);
    let signal = |signal| {
        // SAFETY: a plain system call; the process is ours and not reaped.
        assert_eq!(unsafe { libc::kill(enforcer.pid() as i32, signal) }, 0);
    };
    signal(libc::SIGSTOP);
    let stopped = Instant::now();
    while stopped.elapsed() < Duration::from_secs(3) {
        let begun = stopped.elapsed();
        let (name, _) = fresh.name(&world);
        let reply = asked(agent, &name);
        assert!(reply.is_empty() || begun < Duration::from_millis(300), "answered {begun:?} after it hung");
        std::thread::sleep(Duration::from_millis(10));
    }
    signal(libc::SIGCONT);
    let back = until_pinned(&world, agent, &mut fresh, &staunch);
    println!("FIGURE: pins {:.0} ms after the enforcer went on", ms(back));
    closed(agent, NEVER.into(), "what no name leads to");
}

#[test]
fn either_one_killed_at_any_moment_leaves_no_stray_permission() {
    let Some(world) = World::create(2) else { return };
    let (mut enforcer, mut staunch) = started(&world, config());
    let [one, two] = &world.agents[..] else { unreachable!("two sandboxes were made") };
    let seed = std::env::var("STAUNCH_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_261_128);
    println!("seed {seed}");
    let (mut chance, mut fresh) = (Chance(seed), Fresh(0));
    let begun = Instant::now();
    let (mut kills, mut answers, mut denials) = (0, 0, 0);
    let mut quarantined = false;
    while begun.elapsed() < Duration::from_secs(20) && fresh.0 < UNIQUE - 20 {
        match chance.below(12) {
            0 => {
                enforcer.kill();
                // Sometimes it stays away for a while.
                std::thread::sleep(Duration::from_millis(chance.below(4) * 60));
                enforcer.restart(&world);
                kills += 1;
            }
            1 => {
                staunch.kill();
                std::thread::sleep(Duration::from_millis(chance.below(4) * 60));
                staunch.restart(&world);
                kills += 1;
            }
            2 => {
                enforcer.kill();
                staunch.kill();
                enforcer.restart(&world);
                staunch.restart(&world);
                kills += 1;
            }
            3 if !quarantined && begun.elapsed() > Duration::from_secs(5) => {
                enforcer.kill();
                let closing = staunch.run(&["session", "quarantine", "agent-2", "--reason", "a test"]);
                // The enforcer may be away at this moment.
                assert!(matches!(closing.status.code(), Some(0 | 14)), "{closing:?}");
                quarantined = true;
                enforcer.restart(&world);
                // It holds as soon as anything is pinned again.
                until_pinned(&world, one, &mut fresh, &staunch);
                kills += 1;
            }
            _ => {
                let (name, address) = fresh.name(&world);
                let reply = asked(one, &name);
                if reply == [address] {
                    answers += 1;
                    assert!(
                        one.dial(address, 80).0.is_ok(),
                        "{name} was answered and does not connect\n{}",
                        staunch.tail()
                    );
                } else {
                    denials += 1;
                    closed(one, address, "what was not answered");
                }
                closed(two, address, "what another session was told");
            }
        }
        closed(one, NEVER.into(), "what no name leads to");
        if quarantined {
            assert!(asked(two, "www.site.example").is_empty(), "a quarantined session is answered");
            closed(two, WEB.into(), "a quarantined session");
        } else if asked(two, "www.site.example") == [IpAddr::from(WEB)] {
            assert!(two.dial(WEB.into(), 80).0.is_ok(), "answered and does not connect");
        }
    }
    println!("FIGURE: {kills} kills, {answers} answers that connect, {denials} denials, no stray permission");
    assert!(kills > 3 && answers > 10, "{kills} kills, {answers} answers");
    until_pinned(&world, one, &mut fresh, &staunch);
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
