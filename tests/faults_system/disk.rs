//! A disk that fails, and one that is full: questions go on, decisions hold, and nothing that was decided is lost once the disk
//! is well.

use std::ffi::CString;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::inject::{Inject, can_inject};
use crate::world::dns::{rcode, rtype};
use crate::world::staunch::{Config, Staunch};
use crate::world::web::Soc;
use crate::world::{Agent, Chance, SOC, WEB, World, wait_for};
use crate::{logged, metric, page, without};

/// Longer than readiness takes to look twice.
pub const ROUNDS: Duration = Duration::from_secs(15);

pub fn config(soc: &Soc) -> Config {
    Config::enforce()
        .allow_exact("site", ["www.site.example"])
        .rule("fresh", "allow", "\"fresh.example\"", "")
        .tables(&format!("[[alert]]\nname = \"soc\"\nkind = \"webhook\"\nurl = \"{}\"\ntimeout_ms = 1000\n", soc.url))
}

/// Asks names of a tunnel until the session is closed; how many it took.
fn leak(agent: &Agent, staunch: &Staunch, id: &str) -> usize {
    for n in 0..400 {
        let name = format!("{}.leak.example", Chance(n).label(40));
        let reply = agent.ask_edns(&name, rtype::A).expect("an answer, whatever the disk does");
        assert!([rcode::NXDOMAIN, rcode::NOERROR].contains(&reply.rcode()), "{reply:?}");
        if staunch.session_state(id) == "quarantined" {
            return n as usize;
        }
    }
    panic!("a tunnel was not closed\n{}", staunch.tail());
}

/// The slowest of `count` fresh names and as many that are at hand, all of which must be answered.
pub fn served(agent: &Agent, tag: &str, count: usize) -> Duration {
    let slowest = (0..count).map(|n| {
        let begun = Instant::now();
        for name in [format!("{tag}{n}.fresh.example"), "www.site.example".into()] {
            let reply = agent.ask(&name, rtype::A).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(reply.addresses(), [IpAddr::from(WEB)], "{name}");
        }
        begun.elapsed()
    });
    slowest.max().unwrap_or_default()
}

/// Lines that warn of what the disk does not take. Of each kind there is one a minute at most.
fn warnings(staunch: &Staunch) -> Vec<String> {
    let is_one = |line: &String| {
        (line.contains(" WARN ") || line.contains("ERROR"))
            && ["journal", "events", "index", "ledger", "quarantine", "disk"].iter().any(|word| line.contains(word))
    };
    staunch.log().into_iter().filter(is_one).collect()
}

pub fn is_told(soc: &Soc, kind: &str, case: &str) -> bool {
    soc.alerts().iter().any(|alert| alert["kind"] == *kind && alert["case"] == *case)
}

pub fn recovers(world: &World, staunch: &Staunch) {
    let well = || {
        (metric(world, "staunch_journal_failing") == 0.0 && metric(world, "staunch_journal_backlog") == 0.0)
            .then_some(())
    };
    assert!(wait_for(Duration::from_secs(10), well).is_some(), "{}", staunch.tail());
    let ready = || page(world, "/readyz").0.contains("200").then_some(());
    assert!(wait_for(ROUNDS, ready).is_some(), "ready again: {}\n{}", page(world, "/readyz").1, staunch.tail());
}

/// The service, both of whose sandboxes have had answers, and the first a connection.
pub fn at_work(world: &World) -> (Soc, Staunch) {
    world.upstream.add_site("*.fresh.example", WEB.into());
    let soc = Soc::start(&world.gw, SocketAddr::from((SOC, 8080)));
    let staunch = Staunch::start(world, &config(&soc));
    let [first, second] = &world.agents[..] else { unreachable!("two sandboxes were made") };
    served(second, "warm", 5);
    assert_eq!(first.ask("www.site.example", rtype::A).expect("an answer").addresses(), [IpAddr::from(WEB)]);
    assert!(first.dial(WEB.into(), 80).0.is_ok());
    (soc, staunch)
}

#[test]
fn a_disk_that_fails_stops_no_question_and_no_quarantine() {
    let Some(world) = World::create(2) else { return };
    if !can_inject() {
        return without("strace");
    }
    let (soc, mut staunch) = at_work(&world);
    let [hostile, honest] = &world.agents[..] else { unreachable!("two sandboxes were made") };

    // Each of the two ways in which a disk says that it did not take something.
    let mut cases = Vec::new();
    for (round, faults) in [&["pwrite64:error=EIO"][..], &["fdatasync:error=EIO", "fsync:error=EIO"]].iter().enumerate()
    {
        let before = warnings(&staunch).len();
        let disk = Inject::on(&world, &staunch, "journal", faults);
        let (id, agent) = [("agent-1", hostile), ("agent-2", honest)][round];
        let asked = leak(agent, &staunch, id);
        assert!(agent.dial(WEB.into(), 80).0.is_err(), "the door is closed, whatever the disk does");
        assert_eq!(agent.ask("www.site.example", rtype::A).expect("a refusal").rcode(), rcode::NXDOMAIN);
        cases.push(staunch.session_case(id));
        let slowest = if round == 0 { served(honest, "failing", 60) } else { Duration::ZERO };
        let unready = || page(&world, "/readyz").0.contains("503").then(|| page(&world, "/readyz").1);
        let why = wait_for(ROUNDS, unready).unwrap_or_else(|| panic!("ready on a disk that fails\n{}", staunch.tail()));
        assert!(why.contains("decisions (the journal)"), "{why}");
        assert_eq!(metric(&world, "staunch_journal_failing"), 1.0);
        assert!(metric(&world, "staunch_journal_backlog") > 0.0);
        // What loosens is refused aloud.
        let released = staunch.run(&["session", "release", id, "--by", "tests", "--reason", "a test"]);
        assert!(!released.status.success(), "a release that cannot be recorded is none: {released:?}");
        assert_eq!(staunch.session_state(id), "quarantined");
        assert!(!is_told(&soc, "quarantine", &cases[round]), "an alert is delivered once it is on disk");
        let failed = disk.stop();
        let said = warnings(&staunch).split_off(before);
        println!(
            "FIGURE: {faults:?}: {failed} calls failed, session closed after {asked} names, slowest of 60 pairs {} ms, {} lines",
            slowest.as_millis(),
            said.len()
        );
        assert!(failed > 3, "the disk failed");
        assert!(said.len() <= 6, "{said:#?}");
        recovers(&world, &staunch);
        let told = wait_for(ROUNDS, || is_told(&soc, "quarantine", &cases[round]).then_some(()));
        assert!(told.is_some(), "{:#?}", soc.alerts());
        if round == 0 {
            // The other session's turn: the record of this one must outlive a kill by now.
            staunch.kill();
            staunch.restart(&world);
            assert_eq!(
                (staunch.session_state("agent-1"), staunch.session_case("agent-1")),
                ("quarantined".into(), cases[0].clone())
            );
            assert_eq!(staunch.session_state("agent-2"), "active");
        }
    }
    assert_eq!(logged(&staunch, "panicked"), 0, "{}", staunch.tail());
    staunch.kill();
    staunch.restart(&world);
    assert_eq!(["agent-1", "agent-2"].map(|id| staunch.session_case(id)).to_vec(), cases);
}

/// A small file system, for as long as this lives.
struct Small(PathBuf);

impl Small {
    fn mount(at: &Path, octets: usize) -> Self {
        let (kind, path) = (c"tmpfs", CString::new(at.as_os_str().as_encoded_bytes()).expect("a path"));
        let options = CString::new(format!("size={octets},mode=0700")).expect("options");
        // SAFETY: all pointers are to NUL-terminated strings that live until the call is over.
        let done = unsafe { libc::mount(kind.as_ptr(), path.as_ptr(), kind.as_ptr(), 0, options.as_ptr().cast()) };
        assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
        Self(at.to_owned())
    }

    /// Fills it to the last octet.
    fn fill(&self) -> PathBuf {
        use std::io::Write;
        let path = self.0.join("filler");
        let mut filler = std::fs::File::create(&path).expect("a file");
        for block in [&[0; 65_536][..], &[0; 512], &[0; 1]] {
            while filler.write_all(block).is_ok() {}
        }
        path
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let path = CString::new(self.0.as_os_str().as_encoded_bytes()).expect("a path");
        // SAFETY: the pointer is to a NUL-terminated string.
        unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
    }
}

#[test]
fn a_full_disk_costs_no_decision_and_what_waited_is_written_when_there_is_room() {
    let Some(world) = World::create(2) else { return };
    world.upstream.add_site("*.fresh.example", WEB.into());
    let soc = Soc::start(&world.gw, SocketAddr::from((SOC, 8080)));
    let state = world.path("state");
    std::fs::create_dir_all(&state).expect("the state directory");
    let disk = Small::mount(&state, 16 << 20);
    let mut staunch = Staunch::start(&world, &config(&soc));
    let [hostile, honest] = &world.agents[..] else { unreachable!("two sandboxes were made") };
    served(honest, "warm", 5);
    let before = warnings(&staunch).len();

    let filler = disk.fill();
    let slowest = served(honest, "full", 150);
    let asked = leak(hostile, &staunch, "agent-1");
    let case = staunch.session_case("agent-1");
    assert!(hostile.dial(WEB.into(), 80).0.is_err());
    let failing = ["staunch_journal_failing", "staunch_events_failing"];
    let full = wait_for(ROUNDS, || failing.iter().all(|series| metric(&world, series) == 1.0).then_some(()));
    assert!(full.is_some(), "{}", staunch.tail());
    let why = wait_for(ROUNDS, || page(&world, "/readyz").0.contains("503").then(|| page(&world, "/readyz").1));
    assert!(why.is_some_and(|why| why.contains("decisions (the journal)") && why.contains("events")));
    let (waiting, backlog) = (metric(&world, "staunch_events_spilled"), metric(&world, "staunch_journal_backlog"));
    assert!(waiting > 0.0 && backlog > 0.0, "{waiting} {backlog}");
    let said = warnings(&staunch).split_off(before);
    println!(
        "FIGURE: disk full: session closed after {asked} names, slowest of 150 pairs {} ms, {waiting} events and {backlog} \
         records wait, {} lines",
        slowest.as_millis(),
        said.len()
    );
    assert!(said.len() <= 8, "{said:#?}");

    std::fs::remove_file(filler).expect("removed");
    recovers(&world, &staunch);
    assert!(wait_for(ROUNDS, || is_told(&soc, "quarantine", &case).then_some(())).is_some(), "{:#?}", soc.alerts());
    let written = wait_for(ROUNDS, || (metric(&world, "staunch_events_spilled") == 0.0).then_some(()));
    assert!(written.is_some(), "{}", staunch.tail());
    assert_eq!(metric(&world, "staunch_events_shed_total") + metric(&world, "staunch_events_dropped_total"), 0.0);
    let events = staunch.events();
    for n in 0..150 {
        let name = format!("full{n}.fresh.example");
        assert_eq!(events.iter().filter(|event| event["qname"] == name).count(), 1, "the event of {name}");
    }
    assert_eq!(logged(&staunch, "panicked"), 0, "{}", staunch.tail());
    staunch.kill();
    staunch.restart(&world);
    assert_eq!((staunch.session_state("agent-1"), staunch.session_case("agent-1")), ("quarantined".into(), case));
    assert_eq!(honest.ask("www.site.example", rtype::A).expect("an answer").addresses(), [IpAddr::from(WEB)]);
}

#[test]
fn what_an_operator_says_on_a_full_disk_is_not_done_or_written_later() {
    let Some(world) = World::create(1) else { return };
    let soc = Soc::start(&world.gw, SocketAddr::from((SOC, 8080)));
    let state = world.path("state");
    std::fs::create_dir_all(&state).expect("the state directory");
    let disk = Small::mount(&state, 16 << 20);
    let mut staunch = Staunch::start(&world, &config(&soc));
    let agent = &world.agents[0];
    let run = |staunch: &Staunch, line: &str| {
        let output = staunch.run(&line.split(' ').collect::<Vec<_>>());
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for line in [
        "session announce passing --address 198.51.100.77 --type batch",
        "session quarantine agent-1 --by tests --reason test",
    ] {
        assert!(run(&staunch, line).0, "{line}");
    }

    let filler = disk.fill();
    // The first that the disk does not take, since it is more than the journal's last page has room for: nobody knew beforehand.
    let long = "x".repeat(5_000);
    let (done, why) = run(&staunch, &format!("session release agent-1 --by tests --reason {long}"));
    assert!(!done && why.contains("not released, since"), "{why}");
    assert_eq!(staunch.session_state("agent-1"), "quarantined");
    assert_eq!(agent.ask("www.site.example", rtype::A).expect("a refusal").rcode(), rcode::NXDOMAIN);
    // Behind one that has found no room nothing finds any.
    let announced =
        |n: usize| run(&staunch, &format!("session announce more-{n} --address 198.51.100.{n} --type batch")).0;
    assert!((1..60).any(|n| !announced(n)), "the disk is full");
    let (done, why) = run(&staunch, "allow =www.other.example --for 60s --owner tests --reason test");
    assert!(!done && why.contains("nothing was allowed"), "{why}");
    let (done, why) = run(&staunch, "session end passing");
    assert!(!done && why.contains("written when the disk allows"), "{why}");
    // Its address is another's by now.
    let (done, why) = run(&staunch, "session announce next --address 198.51.100.77 --type batch");
    assert!(!done && why.contains("written when the disk allows"), "{why}");

    std::fs::remove_file(filler).expect("removed");
    recovers(&world, &staunch);
    staunch.kill();
    staunch.restart(&world);
    let listed = staunch.json(&["session", "list"]);
    let listed = listed["sessions"].as_array().expect("sessions").iter().map(|session| session["id"].clone());
    let listed: Vec<_> = listed.filter(|id| *id == "passing" || *id == "next").collect();
    assert_eq!(listed, ["next"]);
    assert_eq!(staunch.session_state("agent-1"), "quarantined");
    assert!(run(&staunch, "session release agent-1 --by tests --reason test").0);
}

#[test]
fn a_start_on_a_full_disk_serves_and_takes_nothing_for_damaged() {
    let Some(world) = World::create(2) else { return };
    world.upstream.add_site("*.fresh.example", WEB.into());
    let soc = Soc::start(&world.gw, SocketAddr::from((SOC, 8080)));
    let state = world.path("state");
    std::fs::create_dir_all(&state).expect("the state directory");
    let disk = Small::mount(&state, 16 << 20);
    let mut staunch = Staunch::start(&world, &config(&soc));
    let [hostile, honest] = &world.agents[..] else { unreachable!("two sandboxes were made") };
    served(honest, "warm", 5);
    leak(hostile, &staunch, "agent-1");
    let case = staunch.session_case("agent-1");
    recovers(&world, &staunch);
    // They are loaded beside all else.
    let has_first_sights =
        || wait_for(ROUNDS, || (metric(&world, "staunch_first_seen_domains") > 0.0).then_some(())).is_some();
    assert!(has_first_sights());
    // The index is written every so often, and what a kill finds unwritten is lost.
    std::thread::sleep(Duration::from_secs(4));

    staunch.kill();
    let filler = disk.fill();
    let is_refused = |staunch: &Staunch| logged(staunch, "the journal cannot be written; what stood is in force") > 0;
    // The file's last block takes the record of a few starts.
    for start in 0..20 {
        staunch.restart_unready(&world);
        let serves = wait_for(ROUNDS, || staunch.run(&["status"]).status.success().then_some(()));
        assert!(serves.is_some(), "{start}: {}", staunch.tail());
        assert_eq!(staunch.session_case("agent-1"), case);
        served(honest, &format!("start{start}-"), 2);
        assert!(hostile.dial(WEB.into(), 80).0.is_err());
        let names = std::fs::read_dir(&state).expect("lists").map(|e| e.expect("entry").file_name());
        let names: Vec<_> = names.map(|name| name.to_string_lossy().into_owned()).collect();
        assert!(!names.iter().any(|name| name.contains("damaged")), "{names:?}\n{}", staunch.tail());
        if start >= 4 && is_refused(&staunch) {
            break;
        }
        staunch.kill();
    }
    assert!(is_refused(&staunch) && logged(&staunch, "the index cannot be used") > 0, "{}", staunch.tail());
    let told = || page(&world, "/readyz").1.contains("decisions (the journal), the index").then_some(());
    assert!(wait_for(ROUNDS, told).is_some(), "{}", page(&world, "/readyz").1);

    std::fs::remove_file(filler).expect("removed");
    recovers(&world, &staunch);
    staunch.kill();
    staunch.restart(&world);
    assert_eq!((staunch.session_state("agent-1"), staunch.session_case("agent-1")), ("quarantined".into(), case));
    assert_eq!(metric(&world, "staunch_index_failed"), 0.0, "{}", staunch.tail());
    assert!(has_first_sights(), "{}", staunch.tail());
    assert_eq!(logged(&staunch, "panicked") + logged(&staunch, "was damaged"), 0, "{}", staunch.tail());
}
