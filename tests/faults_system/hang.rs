//! A disk that neither takes nor refuses what is written: its calls do not come back for a while.

use std::time::{Duration, Instant};

use crate::disk::{ROUNDS, at_work, is_told, recovers, served};
use crate::inject::{Inject, can_inject};
use crate::world::dns::{rcode, rtype};
use crate::world::{Chance, WEB, World, wait_for};
use crate::{logged, metric, page, without};

/// EDE Not Ready (RFC 8914).
const NOT_READY: u16 = 14;
/// What a stub waits before it asks again, at the least.
const STUB: Duration = Duration::from_secs(2);

#[test]
fn a_disk_that_hangs_stops_no_question_is_told_and_closes_what_it_closes() {
    let Some(world) = World::create(2) else { return };
    if !can_inject() {
        return without("strace");
    }
    let (soc, mut staunch) = at_work(&world);
    let [hostile, honest] = &world.agents[..] else { unreachable!("two sandboxes were made") };

    // Longer than the test looks, microseconds; it ends when strace lets go.
    let disk =
        Inject::on(&world, &staunch, "journal", &["fdatasync:delay_enter=60000000", "fsync:delay_enter=60000000"]);
    let hung = Instant::now();
    let closed = (0..400).find(|n| {
        let reply = hostile.ask_edns(&format!("{}.leak.example", Chance(*n).label(40)), rtype::A);
        let reply = reply.expect("a reply, whatever the disk does");
        assert!([rcode::NXDOMAIN, rcode::NOERROR, rcode::SERVFAIL].contains(&reply.rcode()), "{reply:?}");
        staunch.session_state("agent-1") == "quarantined"
    });
    assert!(closed.is_some(), "a tunnel was not closed\n{}", staunch.tail());
    assert!(hostile.dial(WEB.into(), 80).0.is_err(), "the door is closed, whatever the disk does");
    // Nothing is said of it that a crash would take back, and it is no silence.
    let begun = Instant::now();
    let reply = hostile.ask_edns("www.site.example", rtype::A).expect("a reply, not silence");
    let heard = begun.elapsed();
    assert_eq!((reply.rcode(), reply.addresses().len()), (rcode::SERVFAIL, 0), "{reply:?}");
    assert!(
        reply.errors().iter().any(|(code, _)| *code == NOT_READY) && heard < STUB,
        "{heard:?} {:?}",
        reply.errors()
    );
    let slowest = served(honest, "hangs", 60);
    assert!(slowest < STUB, "{slowest:?}");
    let unready = || page(&world, "/readyz").0.contains("503").then(|| page(&world, "/readyz").1);
    let why = wait_for(ROUNDS, unready).unwrap_or_else(|| panic!("ready on a disk that hangs\n{}", staunch.tail()));
    assert!(why.contains("decisions (the journal)"), "{why}");
    let told = hung.elapsed();
    assert_eq!(metric(&world, "staunch_journal_failing"), 1.0);
    let released = staunch.run(&["session", "release", "agent-1", "--by", "tests", "--reason", "a test"]);
    assert!(!released.status.success(), "a release that cannot be recorded is none: {released:?}");
    let shown = staunch.json(&["session", "list"])["sessions"].clone();
    let of =
        |id: &str| shown.as_array().expect("sessions").iter().find(|session| session["id"] == id).expect("it").clone();
    assert_eq!((&of("agent-1")["on_disk"], &of("agent-2")["on_disk"]), (&false.into(), &true.into()), "{shown}");
    let case = staunch.session_case("agent-1");
    assert!(!is_told(&soc, "quarantine", &case), "an alert is delivered once it is on disk");
    println!(
        "FIGURE: a disk that hangs: not ready after {:.1} s; slowest of 60 pairs {} ms; a closed session hears so after {} ms",
        told.as_secs_f64(),
        slowest.as_millis(),
        heard.as_millis()
    );

    disk.stop();
    recovers(&world, &staunch);
    assert!(wait_for(ROUNDS, || is_told(&soc, "quarantine", &case).then_some(())).is_some(), "{:#?}", soc.alerts());
    assert_eq!(hostile.ask("www.site.example", rtype::A).expect("a refusal").rcode(), rcode::NXDOMAIN);

    // So do events, which nobody waits for.
    let disk = Inject::on(&world, &staunch, "events", &["write:delay_enter=60000000"]);
    assert!(served(honest, "events", 60) < STUB);
    let failing = || metric(&world, "staunch_events_failing");
    assert!(wait_for(ROUNDS, || (failing() == 1.0).then_some(())).is_some(), "{}", staunch.tail());
    disk.stop();
    assert!(wait_for(ROUNDS, || (failing() == 0.0).then_some(())).is_some(), "{}", staunch.tail());
    let last = || staunch.events().iter().any(|event| event["qname"] == "events59.fresh.example").then_some(());
    assert!(wait_for(ROUNDS, last).is_some(), "what waited is written");
    assert_eq!(logged(&staunch, "panicked"), 0, "{}", staunch.tail());
    staunch.kill();
    staunch.restart(&world);
    assert_eq!((staunch.session_state("agent-1"), staunch.session_case("agent-1")), ("quarantined".into(), case));
}
