//! One hostile session against a daemon that serves an honest one: outstanding misses, floods, connections, descriptors.
//!
//! The honest session's times are measured meanwhile and printed; what is asserted is that it is served, by bounds that a
//! busy machine does not break, since attacker, resolver and upstream share its cores here.

mod world;

#[path = "faults_hostile/flood.rs"]
mod flood;
#[path = "faults_hostile/honest.rs"]
mod honest;
#[path = "faults_hostile/replay.rs"]
mod replay;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use flood::{flood, holds};
use honest::{Honest, Told};
use replay::{closed_loop, replayed};
use world::cgroup::Cgroup;
use world::dns::{Data, Message, Query, rcode, rtype};
use world::staunch::{Config, Staunch};
use world::upstream::Seen;
use world::{Agent, WEB, World};

/// Nobody serves this address: questions for names that are delegated to it stay open.
const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 99)), 5399);
/// What an honest answer may take longer than without hostility, on a machine that is busy with the attack as well.
const MORE: f64 = 1500.0;

/// What connections that are slow or not read may cost an honest answer.
const FELT: f64 = 50.0;

/// Agent 1 is hostile, agent 2 honest, and agent 3 is somebody whom nobody announced.
fn sessions(world: &World) -> String {
    let session = |agent: &Agent, owner: &str| {
        let (id, address) = (agent.address.octets()[2], agent.address);
        format!(
            "[[session]]\nid = \"agent-{id}\"\naddresses = [\"{address}\"]\ntype = \"interactive\"\nowner = \"{owner}\"\n\n"
        )
    };
    session(&world.agents[0], "hostile") + &session(&world.agents[1], "honest")
}

fn monitor(world: &World) -> Config {
    Config { sessions: sessions(world), ..Config::monitor() }
}

fn world() -> Option<World> {
    let world = World::create(3)?;
    world.upstream.add_site("*.fresh.example", WEB.into());
    world.upstream.delegate("stuck.example", NOWHERE);
    Some(world)
}

/// The metrics page's value of a series, as it is written there.
fn metric(world: &World, series: &str) -> f64 {
    let page = world.gw.blocking(|| {
        let mut stream = TcpStream::connect("127.0.0.1:9153").expect("the metrics page");
        stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n").expect("asked");
        let mut page = String::new();
        stream.read_to_string(&mut page).expect("the page");
        page
    });
    let named = |line: &&str| line.rsplit_once(' ').is_some_and(|(name, _)| name.trim_end_matches("{}") == series);
    let line = page.lines().find(named);
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_else(|| panic!("no {series} in {page}"))
}

/// How the honest session fares while `attack` goes on, which begins when the honest session is there: until then the other would
/// be alone, and might take what somebody alone may.
fn under<T: Send>(world: &World, tag: &str, attack: impl FnOnce() -> T + Send) -> (Told, T) {
    let honest = Honest::start(&world.agents[1], tag);
    let fresh = |query: &Seen| query.name.starts_with(tag) && query.name.ends_with(".fresh.example");
    let there = world::wait_for(Duration::from_secs(5), || world.upstream.seen().iter().any(fresh).then_some(()));
    assert!(there.is_some(), "the honest session's questions leave");
    let outcome = attack();
    (honest.stop(), outcome)
}

fn quiet(world: &World) -> Told {
    let (told, ()) = under(world, "q", || std::thread::sleep(Duration::from_secs(2)));
    println!("FIGURE: hostile none: honest {}", told.line());
    told
}

/// How many other names reached the upstream between an honest question's leaving and its arrival there, in the median.
fn ahead(world: &World, told: &Told) -> usize {
    let seen = world.upstream.seen();
    let between = |(name, left): &(String, Instant)| {
        let at = seen.iter().find(|query| query.name == *name)?.at;
        Some(seen.iter().filter(|query| query.at > *left && query.at < at).count())
    };
    let mut ahead: Vec<usize> = told.left.iter().filter_map(between).collect();
    ahead.sort_unstable();
    ahead.get(ahead.len() / 2).copied().expect("honest names arrived")
}

/// `amiss`: how many of a hundred may go wrong on a machine that has processors for it. Where answers are slow without any
/// attack it has not, and questions are lost for that: one of a hundred more for each 10 ms, and never half of them.
fn assert_served(what: &str, told: &Told, before: &Told, amiss: f64) {
    let amiss = (amiss + before.p99() / 10.0).min(50.0);
    assert!(told.amiss() <= amiss, "{what}: {}", told.line());
    assert!(told.p99() <= before.p99() + MORE, "{what}: {} before {}", told.line(), before.line());
}

#[test]
fn outstanding_misses_and_floods_of_one_session_leave_room_for_another() {
    let Some(world) = world() else { return };
    let staunch = Staunch::start(&world, &monitor(&world));
    let hostile = &world.agents[0];
    let before = quiet(&world);
    let (memory, _) = holds(&staunch);

    // 60,000 questions that nobody answers, and for longer than one is waited for: what it takes before the first of the other's
    // questions comes, when it is alone, is over by then.
    let (told, ((sent, codes), waiting)) = under(&world, "m", || {
        let next = AtomicU64::new(0);
        let mut all = (0, [0; 16]);
        let begun = Instant::now();
        while (next.load(Relaxed) < 60_000 && begun.elapsed() < Duration::from_secs(8))
            || begun.elapsed() < Duration::from_secs(4)
        {
            let name = |_| format!("s{}.stuck.example", next.fetch_add(1, Relaxed));
            let (sent, codes) = flood(hostile, Duration::from_millis(10), name);
            all.0 += sent;
            all.1.iter_mut().zip(codes).for_each(|(all, code)| *all += code);
        }
        let waiting = metric(&world, "staunch_questions_waiting");
        std::thread::sleep(Duration::from_millis(1500));
        (all, waiting)
    });
    let past = metric(&world, "staunch_past_share_total{share=\"session\"}");
    println!(
        "FIGURE: hostile {sent} misses that stay open: {waiting} wait, {past} past the share; honest {}",
        told.line()
    );
    assert_eq!(codes[0], 0, "nobody answers these");
    // A 24th of all places beside another, and what the honest session has waiting itself, which is as much at most.
    assert!(past > 1000.0 && (100.0..300.0).contains(&waiting), "{past} {waiting}");
    assert_served("misses", &told, &before, 2.0);
    let told_share = staunch.events().iter().filter(|event| event["reason"] == "share").count();
    assert!((1..40).contains(&told_share), "one event a second: {told_share}");
    let refused = hostile.ask_edns("once-more.fresh.example", rtype::A).expect("an answer of some kind");
    assert!([rcode::NOERROR, rcode::SERVFAIL].contains(&refused.rcode()));

    // What was open is over; then the hostile session is served like any other.
    let free =
        world::wait_for(Duration::from_secs(8), || (metric(&world, "staunch_questions_waiting") < 8.0).then_some(()));
    assert!(free.is_some(), "places come back: {}", metric(&world, "staunch_questions_waiting"));
    assert_eq!(hostile.ask("again.fresh.example", rtype::A).expect("an answer").rcode(), rcode::NOERROR);

    // Datagrams for a name at hand, far more than can be judged.
    let peak = closed_loop(hostile, Duration::from_secs(1));
    let (told, (sent, codes)) =
        under(&world, "f", || flood(hostile, Duration::from_secs(4), |_| "www.site.example".into()));
    let shed = metric(&world, "staunch_shed_total");
    let answered: usize = codes.iter().sum();
    println!(
        "FIGURE: hostile flood {}/s ({answered} of {sent} answered, {shed} shed; {peak}/s answered without one): honest {}",
        sent / 4,
        told.line()
    );
    assert_served("flood", &told, &before, 25.0);

    // New names as fast as they are answered: tables fill.
    let (told, (sent, codes)) =
        under(&world, "n", || flood(hostile, Duration::from_secs(4), |n| format!("u{n}.d{}.fresh.example", n % 4096)));
    let (after, descriptors) = holds(&staunch);
    println!(
        "FIGURE: hostile {sent} distinct names ({} answered): honest {}; memory {memory:.0} to {after:.0} MiB, {descriptors} descriptors",
        codes[0],
        told.line()
    );
    assert_served("names", &told, &before, 25.0);
    let ahead = ahead(&world, &told);
    println!("FIGURE: hostile names that reach the upstream before an honest one asked earlier: {ahead} in the median");
    // It has 123 waiting, of which 32 are with the upstream at once; some leave while the honest question is on its way.
    assert!(ahead < 80, "{ahead}");
    // Tables are full by now: another flood adds nothing.
    flood(hostile, Duration::from_secs(3), |n| format!("w{n}.d{}.fresh.example", n % 4096));
    let (again, _) = holds(&staunch);
    println!("FIGURE: hostile distinct names again: memory {after:.0} to {again:.0} MiB");
    assert!(after < memory + 250.0 && again < after + 60.0, "{memory} {after} {again}");
}

/// More questions for a name at hand than the daemon can answer, many times over, to the very address and port that an honest
/// session asks: with all processors, and with a fifth of one.
#[test]
fn a_flood_of_many_times_what_can_be_answered_keeps_nobody_else_out() {
    let Some(world) = world() else { return };
    let (agent, before, time) = (&world.agents[0], Duration::from_secs(2), Duration::from_secs(5));
    // Behind the same address of the resolver as the flood, and so in the same queues.
    let beside = Ipv4Addr::new(10, 77, 1, 9);
    agent.ns.ip(&["addr add 10.77.1.9/24 dev eth0"]);
    let sessions = format!(
        "{}[[session]]\nid = \"beside\"\naddresses = [\"{beside}\"]\ntype = \"interactive\"\nowner = \"honest\"\n\n",
        sessions(&world)
    );
    let config = Config { sessions, ..Config::monitor() };
    for part in [100, 20] {
        let group = match part {
            100 => None,
            _ => match Cgroup::cpu(part) {
                Ok(group) => Some(group),
                // Whether a machine lets somebody make one is not a matter of installing something.
                Err(why) => return world::skip::skipped(why),
            },
        };
        let staunch = match &group {
            None => Staunch::start(&world, &config),
            Some(group) => Staunch::start_grouped(&world, &config, group.joined_by()),
        };
        assert!(closed_loop(agent, Duration::from_millis(500)) > 0, "at hand from here on");
        let (memory, _) = holds(&staunch);
        let during = |tag: &str, attack: &dyn Fn() -> (usize, usize)| {
            let honest = Honest::start_from(agent, beside, &format!("{tag}{part}"));
            let outcome = attack();
            (honest.stop(), outcome)
        };
        let (quiet, (peak, _)) = during("q", &|| (closed_loop(agent, before), 0));
        let (told, (sent, answered)) = during("x", &|| replayed(agent, time));
        let (seconds, peak) = (time.as_secs() as usize, peak / before.as_secs() as usize);
        println!(
            "FIGURE: hostile flood {}/s where {}/s can be answered, {part} % of a processor or more: {}/s answered, {} shed, {} times barred; honest at \
             the same address {}, before {}; memory {memory:.0} to {:.0} MiB",
            sent / seconds,
            peak,
            answered / seconds,
            metric(&world, "staunch_shed_total"),
            metric(&world, "staunch_barred_total"),
            told.line(),
            quiet.line(),
            holds(&staunch).0,
        );
        // Answers within their time, at least seven of ten of what is answered without a flood; fewer where that is slow already.
        let part = 0.7 - (quiet.p99() / 1000.0).min(0.3);
        let answered_of = |told: &Told| told.cached.len() as f64 / (told.asked() / 2).max(1) as f64;
        assert!(answered_of(&told) >= part * answered_of(&quiet), "{} before {}", told.line(), quiet.line());
        assert!(told.amiss() < 100.0 * (1.0 - part), "{} before {}", told.line(), quiet.line());
        if group.is_some() {
            // Here what is sent is far more than can be answered, and sender and resolver do not share what limits answers.
            assert!(sent > 4 * peak * seconds, "a flood: {sent} {peak}");
            let (shed, barred) = (metric(&world, "staunch_shed_total"), metric(&world, "staunch_barred_total"));
            assert!(barred > 0.0, "dropped by the kernel");
            // Of what the kernel lets through most is answered, and the flood's session gets what the others leave.
            assert!(shed < 6.0 * answered as f64, "{shed} shed, {answered} answered");
            assert!(answered > peak * seconds / 4, "{answered} in {seconds} s, {peak}/s without a flood");
        }
        assert!(holds(&staunch).0 < memory + 24.0, "{memory}");
    }
}

#[test]
fn connections_of_one_session_do_not_keep_another_out() {
    let Some(world) = world() else { return };
    world.upstream.add("long.site.example", 300, Data::Txt("x".repeat(15_000)));
    let staunch = Staunch::start(&world, &monitor(&world));
    let before = quiet(&world);
    let (memory, _) = holds(&staunch);
    let (hostile, honest) = (&world.agents[0], &world.agents[1]);
    let server = SocketAddr::from((hostile.gateway, 53));

    let stop = Arc::new(AtomicBool::new(false));
    let opened = Arc::new(AtomicU64::new(0));
    let attackers: Vec<_> = (0..2)
        .map(|kind| {
            let (stop, opened) = (stop.clone(), opened.clone());
            hostile.ns.thread(move || {
                let mut held = std::collections::VecDeque::new();
                while !stop.load(Relaxed) && opened.load(Relaxed) < 30_000 {
                    let Ok(mut stream) = TcpStream::connect(server) else { continue };
                    opened.fetch_add(1, Relaxed);
                    let query = Query::new("long.site.example", rtype::TXT).edns(1232).encode();
                    let framed = [&(query.len() as u16).to_be_bytes(), &query[..]].concat();
                    // One octet and no more, or many questions whose answers nobody reads.
                    let _ = match kind {
                        0 => stream.write_all(&framed[..1]),
                        _ => stream.set_nonblocking(true).and_then(|()| stream.write_all(&framed.repeat(40))),
                    };
                    held.push_back(stream);
                    if held.len() > 300 {
                        held.pop_front();
                    }
                }
            })
        })
        .collect();
    let mut tcp = Vec::new();
    let parts: Vec<Told> = (0..3)
        .map(|part| {
            let (told, ()) = under(&world, &format!("t{part}x"), || {
                for _ in 0..8 {
                    let begun = Instant::now();
                    let answer = honest.ask_tcp(Query::new("www.site.example", rtype::A).encode());
                    tcp.push(begun.elapsed().as_secs_f64() * 1e3);
                    assert_eq!(answer.expect("an answer over TCP").rcode(), rcode::NOERROR);
                    std::thread::sleep(Duration::from_millis(150));
                }
            });
            told
        })
        .collect();
    tcp.sort_by(f64::total_cmp);
    // What the resolver makes of it shows where the machine did least besides.
    let told = parts.iter().min_by(|one, other| one.p99().total_cmp(&other.p99())).expect("three parts");
    let (during, descriptors) = holds(&staunch);
    stop.store(true, Relaxed);
    attackers.into_iter().for_each(|attacker| attacker.join().expect("the attacker did not panic"));
    println!(
        "FIGURE: hostile {} connections, silent or not read: honest {}; over TCP p50 {:.1} worst {:.1} ms; memory {memory:.0} to \
         {during:.0} MiB, {descriptors} descriptors",
        opened.load(Relaxed),
        told.line(),
        honest::quantile(&tcp, 50),
        honest::quantile(&tcp, 100),
    );
    assert!(opened.load(Relaxed) > 1000);
    // Twenty connections of one session; and the honest one's exchanges of a hundred names a second, some of them asked twice.
    let exchanges = parts.iter().map(|told| 2.0 * told.p99() / 10.0).fold(0.0, f64::max);
    assert!((descriptors as f64) < 120.0 + exchanges, "{descriptors}; {}", told.line());
    assert!(during < memory + 100.0, "{memory} {during}");
    parts.iter().for_each(|told| assert_served("connections", told, &before, 2.0));
    // Where answers are slow without any attack, what the attackers' own threads take of the processors shows that much more.
    assert!(told.p99() <= 3.0 * before.p99() + FELT, "{} before {}", told.line(), before.line());
}

#[test]
fn few_descriptors_are_shared_out() {
    let Some(world) = world() else { return };
    let staunch = Staunch::start_limited(&world, &monitor(&world), 128);
    let (_, idle) = holds(&staunch);
    let before = quiet(&world);
    let hostile = &world.agents[0];
    let server = SocketAddr::from((hostile.gateway, 53));
    let said = staunch.log().iter().find(|line| line.contains("few files may be open")).cloned();
    assert!(said.is_some(), "{}", staunch.tail());
    let held: Vec<TcpStream> =
        hostile.ns.blocking(|| (0..300).filter_map(|_| TcpStream::connect(server).ok()).collect());
    let mut most = 0;
    let (told, status) = under(&world, "d", || {
        for round in 0..30 {
            flood(hostile, Duration::from_millis(20), |n| format!("r{round}x{n}.stuck.example"));
            std::thread::sleep(Duration::from_millis(60));
            most = most.max(holds(&staunch).1);
        }
        staunch.run(&["status"])
    });
    println!(
        "FIGURE: hostile with 128 descriptors: {idle} idle, {most} at most, {} connections tried; honest {}",
        held.len(),
        told.line()
    );
    assert!(status.status.success(), "the admin socket is served: {status:?}");
    assert!(most < 128, "{most}");
    assert_served("descriptors", &told, &before, 2.0);
    assert!(!staunch.log().iter().any(|line| line.contains("accept failed")), "{}", staunch.tail());
}

#[test]
fn an_unproven_source_gets_little_and_a_cookie_proves_it() {
    let Some(world) = world() else { return };
    world.upstream.add("long.site.example", 300, Data::Txt("x".repeat(1000)));
    let staunch = Staunch::start(&world, &monitor(&world));
    let query = || Query::new("long.site.example", rtype::TXT).edns(1232);
    let is_whole = |reply: &Message| !reply.truncated() && reply.answers.len() == 1;

    let announced = world.agents[1].ask_raw(query().encode()).expect("an answer");
    assert!(is_whole(&announced), "an announced session gets it whole: {announced:?}");
    let stranger = &world.agents[2];
    let cut = stranger.ask_raw(query().encode()).expect("an answer");
    assert!(cut.truncated() && cut.answers.is_empty(), "{cut:?}");
    assert!(is_whole(&stranger.ask_tcp(query().encode()).expect("an answer")), "over TCP it is there");

    let first = stranger.ask_raw(query().option(10, b"clientck").encode()).expect("an answer");
    let cookie = first.option(10).expect("a cookie");
    assert!(!is_whole(&first) && cookie.len() == 24 && cookie.starts_with(b"clientck"), "{first:?}");
    let proven = stranger.ask_raw(query().option(10, &cookie).encode()).expect("an answer");
    assert!(is_whole(&proven), "{proven:?}");
    assert_eq!(proven.option(10).as_ref(), Some(&cookie), "the same again");
    let elsewhere = Query::new("f.fresh.example", rtype::A).option(10, &cookie).encode();
    let missed = world.agents[0].ask_raw(elsewhere).expect("an answer");
    assert!(missed.option(10).is_some_and(|other| other != cookie), "another address gets another");
    let bent = stranger.ask_raw(query().option(10, b"short").encode()).expect("an answer");
    assert_eq!(bent.rcode(), rcode::FORMERR);
    drop(staunch);

    // Where strangers are refused they are answered at a pace.
    let staunch =
        Staunch::start(&world, &Config { sessions: sessions(&world), backend: "dry-run", ..Config::enforce() });
    let honest = quiet(&world);
    let (sent, codes) = flood(stranger, Duration::from_secs(2), |n| format!("x{n}.fresh.example"));
    let unanswered = metric(&world, "staunch_strangers_unanswered_total");
    println!(
        "FIGURE: stranger's {sent} datagrams in 2 s: {} refused, {unanswered} not answered; honest before {}",
        codes[3],
        honest.line()
    );
    assert!(codes[3] > 0 && codes[3] < 1200, "{codes:?}");
    assert!(unanswered > 0.0);
    drop(staunch);
}
