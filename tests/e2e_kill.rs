//! kill -9 at random points of a busy run: what was acknowledged stands, every alert arrives, service is back at once.
//!
//! Each round announces a session, lets it run a tunnel's queries, closes, opens and allows things by hand, and is cut
//! off somewhere in between, while the SOC's receiver is down half the time. `STAUNCH_KILLS` sets the number of rounds.

mod world;

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use world::dns::{rcode, rtype};
use world::staunch::{Config, Staunch};
use world::web::{Health, Soc};
use world::{Agent, Chance, SOC, World};

/// From the start of the process to its first answer, half of the times, beyond twice what a start takes on this machine that has
/// nothing to read; the slowest may have met a busy disk or processor.
const BACK_WITHIN: Duration = Duration::from_secs(1);
const BACK_AT_LAST: Duration = Duration::from_secs(10);

/// What somebody has seen done, and therefore must find done ever after.
#[derive(Default)]
struct Acknowledged {
    /// Session to the case of its quarantine; `None`: released again.
    sessions: HashMap<String, Option<String>>,
    /// Kind of alert and case, in the order acknowledged.
    alerts: Vec<(&'static str, String)>,
    /// Name granted, and the address of the session it was granted to.
    grants: Vec<(String, Ipv4Addr)>,
    /// Sessions announced.
    announced: Vec<String>,
    /// Addresses handed out.
    addresses: u16,
}

impl Acknowledged {
    fn fresh_address(&mut self) -> Ipv4Addr {
        self.addresses += 1;
        let [high, low] = self.addresses.to_be_bytes();
        Ipv4Addr::new(10, 78, high, low)
    }
}

#[test]
fn two_hundred_kills_lose_nothing_acknowledged() {
    let kills: u64 = std::env::var("STAUNCH_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(200);
    let Some(world) = World::create(1) else { return };
    let agent = &world.agents[0];
    // A /16 of its own, so that no session ever needs the address of an earlier one.
    agent.ns.ip(&["route add local 10.78.0.0/16 dev lo"]);
    world.gw.ip(&["route add 10.78.0.0/16 via 10.77.1.2"]);
    world.upstream.add_site("*.partner.example", world::WEB.into());

    let soc = Soc::start(&world.gw, SocketAddr::from((SOC, 8080)));
    let mut config = Config::enforce().allow_exact("yes", ["www.site.example"]).tables(&format!(
        "[profile.batch]\nunlisted = \"refuse\"\n\
         [[alert]]\nname = \"soc\"\nkind = \"webhook\"\nurl = \"{}\"\ntimeout_ms = 1000\n",
        soc.url
    ));
    config.sessions = "[[session]]\nid = \"probe\"\naddresses = [\"10.77.1.2\"]\ntype = \"interactive\"\n".into();
    let mut staunch = Staunch::start(&world, &config);

    let back_again = |staunch: &mut Staunch| {
        staunch.kill();
        let start = Instant::now();
        staunch.restart(&world);
        let reply = agent.ask("www.site.example", rtype::A).expect("an answer");
        assert_eq!(reply.addresses(), [world::WEB]);
        start.elapsed()
    };
    let mut plain = [(); 5].map(|()| back_again(&mut staunch));
    plain.sort();
    let plain = plain[2];
    let seed = std::env::var("STAUNCH_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(u64::from(std::process::id()));
    println!("seed {seed} (STAUNCH_SEED repeats the run)");
    let mut chance = Chance(seed);
    let mut known = Acknowledged::default();
    let mut back = Vec::new();
    let mut down_for = Duration::ZERO;
    let run = Instant::now();
    for round in 0..kills {
        let health = [Health::Up, Health::Down, Health::Up, Health::Busy][chance.below(4) as usize];
        soc.set(health);
        let began = Instant::now();
        let cut = AtomicBool::new(false);
        let delay = Duration::from_millis(chance.below(250));
        let pid = staunch.pid().expect("it runs") as i32;
        let mut work = Chance(chance.bits());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(delay);
                cut.store(true, Ordering::SeqCst);
                // SAFETY: a plain system call; the process is our child and is reaped only after this scope.
                unsafe { libc::kill(pid, libc::SIGKILL) };
            });
            // Ends by itself at the first step that fails, which the kill brings about.
            let steps = busy(&staunch, agent, round, &mut work, &mut known, &cut);
            assert!(steps.is_none() || cut.load(Ordering::SeqCst), "step failed before the kill: {steps:?}");
        });
        back.push(back_again(&mut staunch));
        if health != Health::Up {
            down_for += began.elapsed();
        }
        check(&staunch, agent, &known, round, false);
    }
    check(&staunch, agent, &known, kills, true);

    soc.set(Health::Up);
    let total = run.elapsed();
    let missing = || -> Vec<(&str, String)> {
        let arrived = soc.alerts();
        let has = |kind: &str, case: &str| arrived.iter().any(|a| a["kind"] == *kind && a["case"] == *case);
        known.alerts.iter().filter(|(kind, case)| !has(kind, case)).cloned().collect()
    };
    let drained = Instant::now();
    world::wait_for(Duration::from_secs(60), || missing().is_empty().then_some(()));
    let drained = drained.elapsed();
    let lost = missing();

    // A start reads the journal of all rounds before it, which takes a debug build several times as long.
    if cfg!(debug_assertions) {
        back.truncate(200);
    }
    back.sort();
    let at = |share: usize| back[(back.len() * share / 100).min(back.len() - 1)].as_millis();
    let closed = known.sessions.values().filter(|c| c.is_some()).count();
    println!(
        "FIGURE: {kills} kills in {:.0} s: {} sessions announced, {closed} closed, {} grants, {} alerts acknowledged; \
         {} lost; receiver down {:.0} % of the time, drained in {:.1} s; back in p50 {} ms, p95 {} ms, max {} ms",
        total.as_secs_f32(),
        known.announced.len(),
        known.grants.len(),
        known.alerts.len(),
        lost.len(),
        100.0 * down_for.as_secs_f32() / total.as_secs_f32(),
        drained.as_secs_f32(),
        at(50),
        at(95),
        at(100)
    );
    assert!(lost.is_empty(), "alerts lost: {lost:?}\n{}", staunch.tail());
    assert!(kills < 50 || known.alerts.len() as u64 > kills / 4, "the rounds were too short to mean anything");
    let within = (BACK_WITHIN + 2 * plain).as_millis();
    assert!(at(50) < within, "back after {} ms, {plain:?} with nothing to read", at(50));
    assert!(at(90) < 3 * within, "back after {} ms, {plain:?} with nothing to read", at(90));
    assert!(at(100) < BACK_AT_LAST.as_millis(), "back after {} ms", at(100));
    in_order_and_stable(&soc.alerts());
}

/// One round's work until the kill: a tunnel, then the operator. Gives the step that failed, if one did.
fn busy(
    staunch: &Staunch,
    agent: &Agent,
    round: u64,
    chance: &mut Chance,
    known: &mut Acknowledged,
    cut: &AtomicBool,
) -> Option<&'static str> {
    tunnel(staunch, agent, round, chance, known).err().or_else(|| {
        (0..)
            .take_while(|_| !cut.load(Ordering::SeqCst))
            .find_map(|turn| operator(staunch, &format!("o{round}-{turn}"), chance, known).err())
    })
}

/// A session that asks a tunnel's names until it is closed.
fn tunnel(
    staunch: &Staunch,
    agent: &Agent,
    round: u64,
    chance: &mut Chance,
    known: &mut Acknowledged,
) -> Result<(), &'static str> {
    let (id, address) = announce(staunch, &format!("t{round}"), "interactive", known)?;
    for n in 0..40 {
        let name = format!("{}.{}.evil{round}-{n}.example", chance.label(40), chance.label(40));
        let reply = agent.ask_from(address, &name, rtype::A).map_err(|_| "a tunnel's query")?;
        if !reply.errors().iter().any(|(code, _)| [15, 17, 18].contains(code)) {
            continue;
        }
        // What the agent has read must hold: a session that is refused what an exact rule allows is closed.
        let probe = agent.ask_from(address, "www.site.example", rtype::A).map_err(|_| "the probe")?;
        if let (rcode::NXDOMAIN, Some(case)) = (probe.rcode(), probe.case()) {
            known.sessions.insert(id, Some(case.clone()));
            known.alerts.push(("quarantine", case));
            return Ok(());
        }
    }
    Err("closing the tunnel's session")
}

/// One act of the operator on a session of its own.
fn operator(staunch: &Staunch, id: &str, chance: &mut Chance, known: &mut Acknowledged) -> Result<(), &'static str> {
    let (id, address) = announce(staunch, id, "batch", known)?;
    if chance.below(2) == 0 {
        let name = format!("{id}.partner.example");
        let form = format!("={name}");
        let args = ["allow", &form, "--for", "2h", "--reason", "r", "--owner", "o", "--session", &id];
        answer(staunch, &args).ok_or("allow")?;
        known.grants.push((name, address));
        return Ok(());
    }
    let closed = answer(staunch, &["session", "quarantine", &id, "--reason", "r"]).ok_or("quarantine")?;
    let case = closed["case"].as_str().expect("a quarantine has a case").to_owned();
    known.alerts.push(("quarantine", case.clone()));
    if chance.below(2) == 0 {
        known.sessions.insert(id, Some(case));
        return Ok(());
    }
    // Until the release is acknowledged either state is right, so nothing is noted before.
    answer(staunch, &["session", "release", &id, "--by", "op", "--reason", "r"]).ok_or("release")?;
    known.sessions.insert(id, None);
    known.alerts.push(("release", case));
    Ok(())
}

fn announce(
    staunch: &Staunch,
    id: &str,
    kind: &str,
    known: &mut Acknowledged,
) -> Result<(String, Ipv4Addr), &'static str> {
    let address = known.fresh_address();
    let args = ["session", "announce", id, "--address", &address.to_string(), "--type", kind];
    answer(staunch, &args).ok_or("announce")?;
    known.announced.push(id.to_owned());
    Ok((id.to_owned(), address))
}

/// Runs a verb with `--json`; `None` where it failed.
fn answer(staunch: &Staunch, args: &[&str]) -> Option<Value> {
    let args: Vec<&str> = args.iter().copied().chain(["--json"]).collect();
    let output = staunch.run(&args);
    if !output.status.success() {
        return None;
    }
    serde_json::from_slice(&output.stdout).ok()
}

/// Compares what stands with what was acknowledged.
fn check(staunch: &Staunch, agent: &Agent, known: &Acknowledged, round: u64, all_grants: bool) {
    let list = staunch.json(&["session", "list"]);
    let found: HashMap<&str, &Value> = list["sessions"]
        .as_array()
        .expect("a list of sessions")
        .iter()
        .filter_map(|s| Some((s["id"].as_str()?, s)))
        .collect();
    let lost: Vec<&String> = known.announced.iter().filter(|id| !found.contains_key(id.as_str())).collect();
    assert!(lost.is_empty(), "round {round}: sessions lost: {lost:?}\n{}", staunch.tail());
    for (id, case) in &known.sessions {
        let session = found.get(id.as_str()).unwrap_or_else(|| panic!("round {round}: {id} is lost"));
        let closed = session["state"] == "quarantined";
        assert_eq!(closed, case.is_some(), "round {round}: {id} is {}\n{}", session["state"], staunch.tail());
        if let Some(case) = case {
            assert_eq!(session["case"], **case, "round {round}: {id} changed its case");
        }
    }
    let newest = if all_grants { known.grants.len() } else { 2 };
    for (name, from) in known.grants.iter().rev().take(newest) {
        // SERVFAIL says that a busy machine acknowledged the pin too late; a grant that is lost is a refusal.
        let answered = world::wait_for(Duration::from_secs(10), || {
            let rcode = agent.ask_from(*from, name, rtype::A).ok()?.rcode();
            (rcode != rcode::SERVFAIL).then_some(rcode)
        });
        let granted = answered == Some(rcode::NOERROR);
        assert!(granted, "round {round}: {from} lost its grant of {name}: {answered:?}\n{}", staunch.tail());
        if let (true, Some((_, other))) = (all_grants, known.grants.iter().find(|(_, other)| other != from)) {
            let rcode = agent.ask_from(*other, name, rtype::A).map(|reply| reply.rcode());
            assert_eq!(rcode.ok(), Some(rcode::NXDOMAIN), "the grant of {name} is not {other}'s");
        }
    }
}

/// Deliveries may repeat, with the same id for the same fact; the first ones of a session come in order.
fn in_order_and_stable(alerts: &[Value]) {
    let mut first_seen: HashMap<String, Vec<&Value>> = HashMap::new();
    for alert in alerts {
        let of_session = first_seen.entry(alert["session"].to_string()).or_default();
        if !of_session.iter().any(|a| a["id"] == alert["id"]) {
            let fact = |a: &Value| (a["kind"].clone(), a["case"].clone());
            assert!(!of_session.iter().any(|a| fact(a) == fact(alert)), "one fact, two ids: {alert}");
            of_session.push(alert);
        }
    }
    for of_session in first_seen.values() {
        let times: Vec<&str> = of_session.iter().filter_map(|a| a["time"].as_str()).collect();
        assert!(times.is_sorted(), "out of order: {times:?}");
    }
    println!("FIGURE: {} deliveries of {} sessions' alerts, in order", alerts.len(), first_seen.len());
}
