//! A hundred thousand sessions: what they take of memory while they are idle, and how long a start takes that has to know them.

mod daemon;

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use daemon::{Daemon, ENFORCE, code};
use staunch::admin::client;
use staunch::admin::protocol::Request;
use staunch::model::{Announcement, SessionId, SessionType};
use staunch::store::{Options, Record, Store};

const SESSIONS: u32 = 100_000;
/// Each of them, octets.
const IDLE: u64 = 3 << 10;
/// The whole process, octets.
const ALL: u64 = 300 << 20;
/// Ready so long after a start that has all of them to read; without optimisation it takes several times as long. On a machine
/// whose start without them takes long, `BACK_AT_LAST` times that.
const BACK: Duration = if cfg!(debug_assertions) { Duration::from_secs(30) } else { Duration::from_millis(1500) };
const BACK_AT_LAST: u32 = 60;
/// So many are announced and ended in a second, at the least; without optimisation, and beside whatever else a machine does, a small
/// part of what it can do.
const RATE: f64 = if cfg!(debug_assertions) { 20.0 } else { 2000.0 };
/// What a question may wait meanwhile, half of all: longer than any lock that all of them share is held.
const HELD_UP: Duration = Duration::from_millis(2);

fn address(n: u32) -> std::net::Ipv4Addr {
    std::net::Ipv4Addr::from(0x0a00_0000 + n)
}

fn id(n: u32) -> SessionId {
    SessionId::new(&format!("n{n}")).expect("an id")
}

fn announcement(n: u32) -> Announcement {
    Announcement {
        id: id(n),
        addresses: vec![address(n).into()],
        kind: SessionType::Batch,
        phase: None,
        owner: Some(format!("team-{}", n % 1000)),
        search: Vec::new(),
    }
}

/// What the process holds, octets.
fn resident(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.child.id())).expect("its status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
    1024 * line.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).expect("a number")
}

#[test]
fn a_hundred_thousand_idle_sessions_take_three_kib_each_at_most() {
    let few = Daemon::start(ENFORCE);
    let sessions: String = (0..SESSIONS)
        .map(|n| {
            format!(
                "[[session]]\nid = \"n{n}\"\naddresses = [\"{}\"]\ntype = \"batch\"\nowner = \"team-{}\"\n",
                address(n),
                n % 1000
            )
        })
        .collect();
    let begun = Instant::now();
    let many = Daemon::start(&format!("{ENFORCE}{sessions}"));
    let took = begun.elapsed();
    assert_eq!(many.ask("www.site.example", 1).0, 0);
    let (with, without) = (resident(&many), resident(&few));
    let each = with.saturating_sub(without) / u64::from(SESSIONS);
    println!(
        "FIGURE: {SESSIONS} sessions of a configuration: {} MiB, {each} octets each; ready after {:.1} s",
        with >> 20,
        took.as_secs_f64()
    );
    assert!(each <= IDLE && with <= ALL, "{each} octets each, {with} in all");
    assert_eq!(code(&many.run(&["session", "show", "n99999"])), 0);
}

#[test]
fn a_hundred_thousand_announced_sessions_are_back_soon_after_a_kill() {
    let mut daemon = Daemon::start(ENFORCE);
    let plain = {
        let begun = Instant::now();
        daemon.restart();
        begun.elapsed()
    };
    daemon.child.kill().expect("killed");
    daemon.child.wait().expect("ended");
    let (store, _) = Store::open(&daemon.dir.path().join("state"), Options::default()).expect("opens");
    let all: Vec<u32> = (0..SESSIONS).collect();
    for some in all.chunks(1000) {
        let records = some.iter().map(|n| Record::Announce { announcement: announcement(*n), entry: None });
        store.append(records.collect()).expect("room").wait_blocking().expect("durable");
    }
    store.close();
    let begun = Instant::now();
    daemon.restart();
    let took = begun.elapsed();
    for n in [0, 5_000, 99_999] {
        assert_eq!(code(&daemon.run(&["session", "show", id(n).as_str()])), 0);
    }
    println!(
        "FIGURE: {SESSIONS} announced sessions: ready {:.1} s after a start, {:.1} s without them",
        took.as_secs_f64(),
        plain.as_secs_f64()
    );
    assert!(took.saturating_sub(plain) <= BACK.max(BACK_AT_LAST * plain), "{took:?}, {plain:?} without them");
}

#[test]
fn thousands_of_sessions_come_and_go_in_a_second() {
    const EACH: u32 = 250;
    let daemon = Daemon::start(ENFORCE);
    let socket = daemon.socket();
    let ask = |request: &Request| {
        client::ask(&socket, request, Duration::from_secs(10)).unwrap_or_else(|error| panic!("{request:?}: {error}"));
    };
    let half = |mut times: Vec<Duration>| {
        times.sort_unstable();
        times[times.len() / 2]
    };
    let question = || {
        let begun = Instant::now();
        assert_eq!(daemon.ask("www.site.example", 1).0, 0);
        begun.elapsed()
    };
    let before = half((0..200).map(|_| question()).collect());
    let (begun, busy) = (Instant::now(), AtomicUsize::new(8));
    let during = std::thread::scope(|scope| {
        for part in 0..8 {
            let (busy, ask) = (&busy, &ask);
            scope.spawn(move || {
                for n in part * EACH..(part + 1) * EACH {
                    ask(&Request::Announce { announcement: announcement(n) });
                    ask(&Request::End { session: id(n) });
                }
                busy.fetch_sub(1, Relaxed);
            });
        }
        let mut times = vec![question()];
        while busy.load(Relaxed) > 0 {
            times.push(question());
            std::thread::sleep(Duration::from_millis(2));
        }
        // The best third of the time: what a lock costs it costs all the time, what this machine does besides it does not.
        times.chunks(times.len() / 3 + 1).map(|part| half(part.to_vec())).min().expect("some")
    });
    let rate = f64::from(8 * EACH) / begun.elapsed().as_secs_f64();
    println!(
        "FIGURE: {rate:.0} sessions a second are announced and ended, each word acknowledged; half of the questions meanwhile take \
         {:.2} ms, {:.2} before",
        during.as_secs_f64() * 1e3,
        before.as_secs_f64() * 1e3
    );
    assert!(rate >= RATE, "{rate}");
    assert!(during <= before + HELD_UP, "{during:?}, {before:?} before");
}
