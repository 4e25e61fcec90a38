//! Everything at once, for a while: mixed load, an upstream that comes and goes, reloads of good and broken files, sessions that
//! are closed, a receiver of alerts that is away half the time. Nothing may leak and nothing may be lost.
//!
//! `make soak SOAK_SECONDS=86400` runs it for longer.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::flood::{flood, holds};
use crate::honest::Honest;
use crate::world::dns::{Query, rcode, rtype};
use crate::world::staunch::{Config, Staunch};
use crate::world::upstream::{Fault, Upstream};
use crate::world::web::{Health, Soc};
use crate::world::{Agent, Chance, SOC, UPSTREAM, WEB, World, wait_for};
use crate::{logged, metric};

const SECOND: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 54);

/// What the process holds: resident MiB, descriptors, threads.
fn held(staunch: &Staunch) -> (f64, usize, usize) {
    let (memory, descriptors) = holds(staunch);
    let tasks = format!("/proc/{}/task", staunch.pid().expect("it runs"));
    (memory, descriptors, std::fs::read_dir(tasks).expect("its threads").count())
}

/// A session of its own, closed for asking a tunnel's names. Its case.
fn leak(staunch: &Staunch, agent: &Agent, turn: u32) -> String {
    let [_, _, high, low] = turn.to_be_bytes();
    let (id, address) = (format!("leak{turn}"), Ipv4Addr::new(10, 78, high, low));
    staunch.run_ok(&["session", "announce", &id, "--address", &address.to_string(), "--type", "interactive"]);
    for n in 0..200 {
        let name = format!("{}.leak{turn}.example", Chance(u64::from(turn) << 32 | n).label(44));
        // Under this load a reply may be SERVFAIL, and a datagram lost.
        let _ = agent.ask_from(address, &name, rtype::A);
        if n % 4 == 3 && staunch.session_state(&id) == "quarantined" {
            let case = staunch.session_case(&id);
            staunch.run_ok(&["session", "end", &id]);
            return case;
        }
    }
    panic!("{id} was not closed\n{}", staunch.tail());
}

/// What a hostile session does in a second: names, and connections that say nothing.
fn pester(agent: &Agent, turn: u64) {
    let server = SocketAddr::from((agent.gateway, 53));
    flood(agent, Duration::from_millis(100), |n| format!("h{turn}x{n}.d{}.fresh.example", n % 512));
    let silent: Vec<_> = agent.ns.blocking(|| (0..40).filter_map(|_| TcpStream::connect(server).ok()).collect());
    let _ = agent.ask_tcp(Query::new("www.site.example", rtype::A).encode());
    std::thread::sleep(Duration::from_millis(400));
    drop(silent);
}

#[test]
fn a_while_of_everything_leaks_and_loses_nothing() {
    let seconds = std::env::var("STAUNCH_SOAK_SECONDS").ok().and_then(|n| n.parse().ok()).unwrap_or(18);
    let whole = Duration::from_secs(seconds);
    let Some(world) = World::create(3) else { return };
    let [hostile, honest, many] = &world.agents[..] else { unreachable!("three sandboxes were made") };
    many.ns.ip(&["route add local 10.78.0.0/16 dev lo"]);
    world.gw.ip(&["route add 10.78.0.0/16 via 10.77.3.2"]);
    let second = Upstream::start(&world.net, SocketAddr::from((SECOND, 53)));
    for upstream in [&world.upstream, &second] {
        upstream.add_site("*.fresh.example", WEB.into());
        upstream.add_site("www.site.example", WEB.into());
    }
    let soc = Soc::start(&world.gw, SocketAddr::from((SOC, 8080)));
    let usual = |more: &str| {
        let mut config = Config::enforce()
            .rule("fresh", "allow", "\"fresh.example\", \"=www.site.example\"", "budget_bits = 8388607\n")
            .tables(&format!(
                "[[alert]]\nname = \"soc\"\nkind = \"webhook\"\nurl = \"{}\"\ntimeout_ms = 1000\n{more}",
                soc.url
            ));
        config.upstream = format!("servers = [\"{UPSTREAM}\", \"{SECOND}\"]");
        config
    };
    let rule = "[[rule]]\nid = \"more\"\naction = \"deny\"\nnames = [\"more.example\"]\nowner = \"o\"\nreason = \"r\"\nreview_by = \"2099-01-01\"\n";
    let files = [usual(""), usual("broken = ["), usual(rule), usual("[[rule]]\nid = 7\n")];
    let staunch = Staunch::start(&world, &files[0]);
    world.upstream.fails(Some(Fault::Flaps(Duration::from_secs(1))));

    let (stop, reloads, pestered) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let begun = Instant::now();
    let (mut cases, mut warm, mut told) = (Vec::new(), None, None);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for file in files.iter().cycle() {
                if stop.load(Relaxed) {
                    break;
                }
                staunch.reload(&world, file);
                reloads.fetch_add(1, Relaxed);
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        scope.spawn(|| {
            while !stop.load(Relaxed) {
                pester(hostile, pestered.fetch_add(1, Relaxed));
            }
        });
        let steady = Honest::start(honest, "h");
        for turn in 0.. {
            if begun.elapsed() >= whole {
                break;
            }
            soc.set([Health::Up, Health::Down, Health::Up, Health::Busy][turn as usize / 2 % 4]);
            cases.push(leak(&staunch, many, turn));
            if warm.is_none() && begun.elapsed() > whole / 3 {
                warm = Some(held(&staunch));
            }
            std::thread::sleep(Duration::from_millis(300));
        }
        stop.store(true, Relaxed);
        told = Some(steady.stop());
    });
    let (told, warm) = (told.expect("asked"), warm.expect("a third of the time had passed"));
    world.upstream.fails(None);
    soc.set(Health::Up);
    let missing = || -> Vec<_> {
        let arrived = soc.alerts();
        let has = |case: &&String| arrived.iter().any(|alert| alert["kind"] == "quarantine" && alert["case"] == **case);
        cases.iter().filter(|case| !has(case)).cloned().collect()
    };
    wait_for(Duration::from_secs(60), || missing().is_empty().then_some(()));
    let idle = || (metric(&world, "staunch_questions_waiting") == 0.0).then_some(());
    assert!(wait_for(Duration::from_secs(15), idle).is_some(), "questions wait for ever");
    // Connections of the hostile session have ended by then.
    wait_for(Duration::from_secs(15), || (held(&staunch).1 <= warm.1).then_some(()));
    let last = held(&staunch);
    let (good, bad) = (logged(&staunch, "configuration reloaded"), logged(&staunch, "the old configuration stays"));
    println!(
        "FIGURE: {} s of everything: {} reloads asked for ({good} taken, {bad} refused), {} sessions closed, {} hostile turns; \
         memory {:.0} to {:.0} MiB, descriptors {} to {}, threads {} to {}; honest {}",
        begun.elapsed().as_secs(),
        reloads.load(Relaxed),
        cases.len(),
        pestered.load(Relaxed),
        warm.0,
        last.0,
        warm.1,
        last.1,
        warm.2,
        last.2,
        told.line()
    );
    assert_eq!(missing(), Vec::<String>::new(), "alerts lost\n{}", staunch.tail());
    assert!(cases.len() > 2 && good > 2 && bad > 2, "{} {good} {bad}", cases.len());
    assert_eq!((logged(&staunch, "panicked"), metric(&world, "staunch_panics_total")), (0, 0.0), "{}", staunch.tail());
    // What is not yet as full as it may get may fill up in a short run.
    assert!(last.0 < warm.0 * 1.05 + if seconds < 600 { 32.0 } else { 8.0 }, "memory: {warm:?} {last:?}");
    assert!(last.1 <= warm.1 + 4 && last.2 <= warm.2 + 4, "descriptors, threads: {warm:?} {last:?}");
    // In hours the honest session spends all that a rule can give it.
    assert!(seconds > 3600 || told.amiss() < 10.0, "{}", told.line());
    let reply = honest.ask("www.site.example", rtype::A).expect("an answer");
    assert!(reply.rcode() == rcode::NOERROR && reply.addresses().contains(&WEB.into()), "{}", staunch.tail());
}
