//! A thousand sessions look names up and connect, while sessions are quarantined, change their phase, and somebody deletes the
//! packet filter's table; what came out is held against the lease journal.

#[path = "race/journal.rs"]
mod journal;
#[path = "race/wire.rs"]
mod wire;
mod world;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use journal::{Leases, Micros};
use staunch::admin::client;
use staunch::admin::protocol::Request;
use staunch::model::{Announcement, Phase, SessionId, SessionType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wire::Wire;
use world::client as stub;
use world::dns::{Query, rtype};
use world::staunch::{Config, Staunch};
use world::{Chance, World, lockdown};

const SESSIONS: usize = 1000;
/// Names that only sessions in phase `fetch` may ask for, and as many that all may.
const NAMES: usize = 90;
/// A SYN that left just before its lease ended is seen just behind it; nftables ends elements with the kernel's tick.
const SLACK: Micros = 20_000;
/// A connection that is no longer permitted is over within this (promise P7).
const CUT: Micros = 1_000_000;
/// A table with some ten thousand leases is back within this, on a machine that does all of this besides.
const GONE: Micros = 2_000_000;
/// Connections that are kept open at a time.
const OPEN: usize = 24;

fn now() -> Micros {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_micros() as Micros)
}

fn address(n: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 78, (n >> 8) as u8, (n & 255) as u8)
}

/// The name and where it leads.
fn name(n: usize) -> (String, Ipv4Addr) {
    if n < NAMES {
        (format!("f{n}.fetch.example"), Ipv4Addr::new(198, 51, 100, n as u8 + 1))
    } else {
        (format!("c{n}.site.example"), Ipv4Addr::new(203, 0, 113, n as u8 + 10))
    }
}

fn is_fetch(to: Ipv4Addr) -> bool {
    to.octets()[0] == 198
}

/// A connection that was tried right after the answer that named its destination.
#[derive(Debug, Clone, Copy)]
struct Dial {
    session: usize,
    to: Ipv4Addr,
    asked: Micros,
    ended: Micros,
    connected: bool,
}

/// What happened to a session: when it began to be done and had been done.
#[derive(Debug, Clone, Copy)]
enum Happened {
    /// Until it had been released again; never without.
    Quarantine {
        from: Micros,
        done: Micros,
        release: Micros,
        until: Micros,
    },
    Phase {
        from: Micros,
        until: Micros,
    },
}

/// What the sandboxes and the operator did.
#[derive(Default)]
struct Told {
    dials: Mutex<Vec<Dial>>,
    happened: Mutex<HashMap<usize, Vec<Happened>>>,
    unanswered: AtomicUsize,
    /// Dials of what nobody had just named, and those of them that were refused.
    strays: [AtomicUsize; 2],
    open: AtomicUsize,
    stop: AtomicBool,
}

impl Told {
    fn add(&self, session: usize, happened: Happened) {
        self.happened.lock().unwrap_or_else(PoisonError::into_inner).entry(session).or_default().push(happened);
    }
}

#[test]
fn nobody_connects_without_a_lease_and_nobody_with_one_is_refused() {
    let Some(world) = World::create(1) else { return };
    let seconds = std::env::var("STAUNCH_RACE_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(120);
    let seed = std::env::var("STAUNCH_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(4);
    println!("seed {seed}, {seconds} s (STAUNCH_SEED and STAUNCH_RACE_SECONDS say otherwise)");
    let agent = &world.agents[0];
    // All sessions live in one sandbox: what keeps them apart is their addresses alone.
    agent.ns.ip(&["route add local 10.78.0.0/16 dev lo"]);
    world.gw.ip(&["route add 10.78.0.0/16 via 10.77.1.2"]);
    world.net.ip(&["route add 10.78.0.0/16 via 192.0.2.1"]);
    for n in 0..2 * NAMES {
        let (name, to) = name(n);
        world.upstream.add(&name, 20, world::dns::Data::A(to));
    }
    lockdown::ok(&world.gw, &["apply", "--interfaces", "ag1"]);
    let staunch = Staunch::start(&world, &config());
    let wire = Wire::start(&world.net, "eth0");

    let told = Arc::new(Told::default());
    for n in 0..SESSIONS {
        agent.ns.spawn(session(n, agent.gateway, Chance(seed << 32 | n as u64), told.clone()));
    }
    let tables = disturb(&world, &staunch, &told, Chance(seed), Duration::from_secs(seconds));
    told.stop.store(true, Relaxed);
    // What is under way comes to its end.
    std::thread::sleep(Duration::from_secs(3));
    let packets = wire.end();
    drop(staunch);

    let leases = Leases::read(&world.path("state").join("leases.jsonl"));
    assert_eq!(leases.lost, 0, "lines of the journal");
    let happened = told.happened.lock().unwrap_or_else(PoisonError::into_inner);
    let dials = told.dials.lock().unwrap_or_else(PoisonError::into_inner);
    let connected = dials.iter().filter(|dial| dial.connected).count();
    let syns: Vec<_> = packets.iter().filter(|packet| packet.opens).collect();
    println!(
        "FIGURE: {SESSIONS} sessions, {seconds} s: {} answers dialled, {connected} connected, {} queries without an address, \
         {} stray dials refused and {} not; {} SYNs and {} other packets seen outside; journal {:?}, {} leases; {} tables deleted",
        dials.len(),
        told.unanswered.load(Relaxed),
        told.strays[1].load(Relaxed),
        told.strays[0].load(Relaxed),
        syns.len(),
        packets.len() - syns.len(),
        leases.lines,
        leases.count(),
        tables.len()
    );

    let has_lease = |p: &wire::Packet| leases.live(p.from.into(), p.to.into(), &format!("tcp/{}", p.port), p.at, SLACK);
    let stray: Vec<_> = syns.iter().filter(|p| !p.again && !has_lease(p)).collect();
    let near = |p: &wire::Packet| leases.nearest(p.from.into(), p.to.into(), &format!("tcp/{}", p.port), p.at);
    let near: Vec<String> = stray.iter().take(5).map(|p| near(p)).collect();
    assert!(stray.is_empty(), "{} connections without a lease: {:?} {near:#?}", stray.len(), &stray[..near.len()]);

    let after: Vec<_> = packets.iter().filter(|p| !p.cuts && is_after_quarantine(&happened, p)).collect();
    assert!(after.is_empty(), "{} packets of quarantined sessions: {:?}", after.len(), &after[..after.len().min(5)]);

    // From the deletion to the moment the journal says that it stands again.
    let windows: Vec<(Micros, Micros)> = tables
        .iter()
        .map(|from| {
            let back = leases.restored.iter().copied().filter(|at| at > from).min();
            (*from, back.unwrap_or_else(|| panic!("a deleted table did not come back: {:?}", leases.restored)))
        })
        .collect();
    let longest = windows.iter().map(|(from, to)| to - from).max().unwrap_or(0);
    let in_window = |dial: &Dial| windows.iter().any(|(from, to)| dial.asked <= to + SLACK && dial.ended >= *from);
    let failed: Vec<_> = dials.iter().filter(|dial| !dial.connected).collect();
    let excused = failed.iter().filter(|dial| in_window(dial)).count();
    let changed = failed.iter().filter(|dial| !in_window(dial) && is_changed(&happened, dial)).count();
    let wrong: Vec<_> = failed.iter().filter(|dial| !in_window(dial) && !is_changed(&happened, dial)).collect();
    println!(
        "FIGURE: {} SYNs without a lease ({} besides once more, behind one that had been answered), {} packets of quarantined \
         sessions; failed dials right after an answer: {} of active sessions, {changed} of sessions closed or changed \
         meanwhile, {excused} while the table was gone (longest {:.0} ms)",
        stray.len(),
        syns.iter().filter(|p| p.again && !has_lease(p)).count(),
        after.len(),
        wrong.len(),
        longest as f64 / 1000.0
    );
    assert!(wrong.is_empty(), "{} failed dials: {:?}", wrong.len(), &wrong[..wrong.len().min(5)]);
    assert!(longest <= GONE, "a table was gone for {longest} µs");

    // That there was something to see: a connection shows outside.
    assert!(
        syns.len() >= connected && packets.len() > 2 * syns.len(),
        "{} packets, {} SYNs",
        packets.len(),
        syns.len()
    );
    let count = |op: &str| leases.lines.get(op).copied().unwrap_or(0);
    let per_second = seconds as usize;
    assert!(connected > 50 * per_second, "{connected} connections");
    assert!(told.strays[1].load(Relaxed) > 5 * per_second, "stray dials were refused");
    assert!(count("quarantine") > per_second / 2 && count("renew") > per_second, "{:?}", leases.lines);
    assert!(!tables.is_empty());
}

fn config() -> Config {
    let sessions = (0..SESSIONS).map(|n| {
        format!(
            "[[session]]\nid = \"race-{n}\"\naddresses = [\"{}\"]\ntype = \"batch\"\nphase = \"fetch\"\nowner = \"team-a\"\n\n",
            address(n)
        )
    });
    let names = |range: std::ops::Range<usize>| {
        let names: Vec<String> = range.map(|n| format!("\"={}\"", name(n).0)).collect();
        names.join(", ")
    };
    Config {
        sessions: sessions.collect(),
        // Others may delete the table; leases end while the test runs.
        enforce: "lockdown = \"require\"\nown_table = false\nlease_journal = \"leases.jsonl\"\nmin_pin_seconds = 6\nmax_pin_seconds = 12\n\
                  pin_grace_seconds = 2\n"
            .into(),
        ..Config::enforce()
    }
    .rule("fetch", "allow", &names(0..NAMES), "profiles = [\"batch.fetch\"]\n")
    .rule("always", "allow", &names(NAMES..2 * NAMES), "")
    .tables("[profile.batch]\nunlisted = \"refuse\"\n")
}

/// One session's life: look up, connect; now and then dial what nobody has just named.
async fn session(n: usize, gateway: Ipv4Addr, mut chance: Chance, told: Arc<Told>) {
    let server = SocketAddr::from((gateway, 53));
    let source = address(n);
    tokio::time::sleep(Duration::from_millis(chance.below(4000))).await;
    while !told.stop.load(Relaxed) {
        tokio::time::sleep(Duration::from_millis(500 + chance.below(1500))).await;
        if chance.below(5) == 0 {
            // Of another session, or of this one some time ago: the journal says which was which.
            let (_, to) = name(chance.below(2 * NAMES as u64) as usize);
            let refused = dial(source, to).await.is_none();
            told.strays[usize::from(refused)].fetch_add(1, Relaxed);
            continue;
        }
        let (name, to) = name(chance.below(2 * NAMES as u64) as usize);
        let asked = now();
        let query = Query::new(&name, rtype::A).edns(1232).encode();
        let answer = stub::udp(Some(source.into()), server, &query, Duration::from_secs(3)).await;
        if !answer.is_ok_and(|answer| answer.addresses() == [IpAddr::from(to)]) {
            told.unanswered.fetch_add(1, Relaxed);
            continue;
        }
        let stream = dial(source, to).await;
        let dial = Dial { session: n, to, asked, ended: now(), connected: stream.is_some() };
        told.dials.lock().unwrap_or_else(PoisonError::into_inner).push(dial);
        if let Some(stream) = stream
            && chance.below(10) == 0
            && told.open.fetch_add(1, Relaxed) < OPEN
        {
            let _ = tokio::time::timeout(Duration::from_secs(5), download(stream)).await;
            told.open.fetch_sub(1, Relaxed);
        }
    }
}

async fn dial(from: Ipv4Addr, to: Ipv4Addr) -> Option<tokio::net::TcpStream> {
    let socket = tokio::net::TcpSocket::new_v4().ok()?;
    socket.bind((from, 0).into()).ok()?;
    let stream = tokio::time::timeout(Duration::from_secs(3), socket.connect((to, 80).into())).await;
    stream.ok()?.ok()
}

async fn download(mut stream: tokio::net::TcpStream) {
    let _ = stream.write_all(b"GET /endless HTTP/1.1\r\nHost: www.site.example\r\n\r\n").await;
    let mut buffer = [0; 4096];
    while let Ok(1..) = stream.read(&mut buffer).await {}
}

/// Quarantines, phase changes and deleted tables until the time is up. Gives when tables were deleted.
fn disturb(world: &World, staunch: &Staunch, told: &Arc<Told>, mut chance: Chance, time: Duration) -> Vec<Micros> {
    let socket = staunch.state.join("admin.sock");
    let end = now() + time.as_micros() as Micros;
    let mut tables = Vec::new();
    let mut next_table = now() + 5_000_000;
    let mut closed: Vec<(Micros, usize, (Micros, Micros))> = Vec::new();
    let mut phases = vec![Phase::Fetch; SESSIONS];
    while now() < end {
        std::thread::sleep(Duration::from_millis(50 + chance.below(150)));
        if now() > next_table {
            tables.push(now());
            lockdown::nft(&world.gw, "delete table inet staunch");
            next_table = now() + 4_000_000 + chance.below(8_000_000) as Micros;
        }
        let n = chance.below(SESSIONS as u64) as usize;
        if let Some(at) = closed.iter().position(|(until, ..)| *until < now()) {
            let (_, n, (from, done)) = closed.remove(at);
            let release = now();
            let words = ("tests".to_owned(), "a test".to_owned());
            ask(&socket, &Request::Release { session: id(n), by: words.0, reason: words.1, extend: 0 });
            told.add(n, Happened::Quarantine { from, done, release, until: now() });
        } else if closed.iter().any(|(_, closed, _)| *closed == n) {
        } else if chance.below(3) == 0 {
            let from = now();
            let words = ("tests".to_owned(), "a test".to_owned());
            ask(&socket, &Request::Quarantine { session: id(n), by: words.0, reason: words.1 });
            closed.push((now() + 1_500_000 + chance.below(4_000_000) as Micros, n, (from, now())));
        } else {
            let phase = if phases[n] == Phase::Fetch { Phase::Run } else { Phase::Fetch };
            phases[n] = phase;
            let from = now();
            let announcement = Announcement {
                id: id(n),
                addresses: vec![address(n).into()],
                kind: SessionType::Batch,
                phase: Some(phase),
                owner: Some("team-a".into()),
                search: Vec::new(),
            };
            ask(&socket, &Request::Announce { announcement });
            told.add(n, Happened::Phase { from, until: now() });
        }
    }
    for (_, n, (from, done)) in closed {
        told.add(n, Happened::Quarantine { from, done, release: Micros::MAX, until: Micros::MAX });
    }
    tables
}

fn id(n: usize) -> SessionId {
    SessionId::new(&format!("race-{n}")).expect("an id")
}

#[track_caller]
fn ask(socket: &Path, request: &Request) {
    let answer = client::ask(socket, request, Duration::from_secs(10));
    answer.unwrap_or_else(|error| panic!("{request:?}: {error}"));
}

/// Whether the session was closed between its question and the end of its dial, or lost the name.
fn is_changed(happened: &HashMap<usize, Vec<Happened>>, dial: &Dial) -> bool {
    happened.get(&dial.session).into_iter().flatten().any(|happened| match happened {
        Happened::Quarantine { from, until, .. } => dial.asked <= *until && dial.ended >= *from,
        Happened::Phase { from, until } => is_fetch(dial.to) && dial.asked <= *until && dial.ended >= *from,
    })
}

fn is_after_quarantine(happened: &HashMap<usize, Vec<Happened>>, packet: &wire::Packet) -> bool {
    let [_, _, high, low] = packet.from.octets();
    let session = usize::from(high) << 8 | usize::from(low);
    happened.get(&session).into_iter().flatten().any(|happened| {
        matches!(happened, Happened::Quarantine { done, release, .. }
            if packet.at > done.saturating_add(CUT) && packet.at < *release)
    })
}
