//! The wall clock is set ten days on and ten days back while the daemon runs; the monotonic one goes on. And the other way round:
//! time goes on, and the daemon does not.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::world::dns::{Data, Message, rcode, rtype};
use crate::world::staunch::{Config, Staunch};
use crate::world::web::Soc;
use crate::world::{Agent, Chance, SOC, WEB, World, wait_for};
use crate::{logged, metric, without};

const DAY: i64 = 86_400;

/// Debian's library that stands before the clock, where it is installed.
fn library() -> Option<PathBuf> {
    let known = ["x86_64-linux-gnu", "aarch64-linux-gnu"];
    known.iter().map(|kind| PathBuf::from(format!("/usr/lib/{kind}/faketime/libfaketimeMT.so.1"))).find(|p| p.exists())
}

/// Sets the clock, by so many seconds from the true time.
fn set(file: &Path, seconds: i64) {
    let fresh = file.with_extension("new");
    std::fs::write(&fresh, format!("{seconds:+}\n")).expect("written");
    std::fs::rename(&fresh, file).expect("in its place");
}

/// A day so many days from today, as configurations have it.
fn day(from_today: i64) -> String {
    let at = jiff::Timestamp::now().as_second() + from_today * DAY;
    jiff::Timestamp::from_second(at).expect("a time").strftime("%Y-%m-%d").to_string()
}

fn ask(agent: &Agent, name: &str) -> Message {
    agent.ask_edns(name, rtype::A).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn is_shown(agent: &Agent, name: &str) -> bool {
    ask(agent, name).addresses() == [IpAddr::from(WEB)]
}

#[test]
fn a_wall_clock_that_is_set_changes_no_lifetime_and_is_told() {
    let Some(world) = World::create(3) else { return };
    let Some(library) = library() else { return without("faketime") };
    let [one, batch, closed] = &world.agents[..] else { unreachable!("three sandboxes were made") };
    for name in [
        "*.granted.example",
        "s0.briefly.example",
        "s1.briefly.example",
        "*.open.example",
        "soon.rule.example",
        "late.rule.example",
    ] {
        world.upstream.add_site(name, WEB.into());
    }
    let soc = Soc::start(&world.gw, SocketAddr::from((SOC, 8080)));
    let mut config = Config::enforce().allow_exact("site", ["www.site.example"]).tables(&format!(
        "[profile.batch]\nunlisted = \"refuse\"\n\
         [[alert]]\nname = \"soc\"\nkind = \"webhook\"\nurl = \"{}\"\ntimeout_ms = 1000\n",
        soc.url
    ));
    for (id, action, name, expires) in [
        ("soon", "allow", "=soon.rule.example", day(5)),
        ("late", "allow", "=late.rule.example", day(20)),
        ("denied", "deny", "denied.rule.example", day(5)),
    ] {
        config = config.tables(&format!(
            "[[rule]]\nid = \"{id}\"\naction = \"{action}\"\nnames = [\"{name}\"]\nowner = \"tests\"\n\
             reason = \"a test needs it\"\nexpires = \"{expires}\"\n"
        ));
    }
    for (agent, id, kind) in [(one, "one", "interactive"), (batch, "batch", "batch"), (closed, "closed", "interactive")]
    {
        config.sessions += &format!(
            "[[session]]\nid = \"{id}\"\naddresses = [\"{}\"]\ntype = \"{kind}\"\nowner = \"{id}\"\n\n",
            agent.address
        );
    }
    let clock = world.path("clock");
    set(&clock, 0);
    let env = vec![
        ("LD_PRELOAD", library.display().to_string()),
        ("FAKETIME_TIMESTAMP_FILE", clock.display().to_string()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
        ("FAKETIME_CACHE_DURATION", "1".into()),
        ("NO_FAKE_STAT", "1".into()),
    ];
    let mut staunch = Staunch::start_in(&world, &config, env);

    // What is in force by then.
    assert!(is_shown(one, "www.site.example"), "{}", staunch.tail());
    assert!(is_shown(batch, "soon.rule.example") && is_shown(batch, "late.rule.example"));
    staunch.run_ok(&["session", "quarantine", "closed", "--reason", "a test"]);
    let grant = |name: &str, time: &str| {
        staunch.run_ok(&["allow", name, "--for", time, "--session", "batch", "--owner", "tests", "--reason", "a test"]);
    };
    grant("granted.example", "1h");
    assert!(is_shown(batch, "a.granted.example"));
    // Something spent, by the session and by its group.
    for turn in 0..3 {
        ask(one, &format!("{}.open.example", Chance(turn).label(9)));
    }
    let spent = || staunch.json(&["session", "show", "one"])["group"]["spent_bits"].clone();
    let before = spent();
    assert!(before.as_f64().is_some_and(|bits| bits > 0.0), "{}", staunch.json(&["session", "show", "one"]));
    let asked = || world.upstream.seen().iter().filter(|seen| seen.name == "www.site.example").count();
    assert_eq!(asked(), 1);

    for (turn, (seconds, word)) in [(10 * DAY, "forward"), (-10 * DAY, "back")].into_iter().enumerate() {
        // One whose end is near, to see that it comes.
        grant(&format!("s{turn}.briefly.example"), "8s");
        let given = Instant::now();
        set(&clock, seconds);
        let said = format!("the wall clock was set {word} by");
        assert!(wait_for(Duration::from_secs(10), || (logged(&staunch, &said) > 0).then_some(())).is_some(), "{word}");
        let told =
            || soc.alerts().into_iter().find(|alert| alert["summary"].as_str().is_some_and(|s| s.contains(&said)));
        let alert = wait_for(Duration::from_secs(10), told).unwrap_or_else(|| panic!("no alert: {}", staunch.tail()));
        assert_eq!(alert["kind"], "degraded");
        let shown = metric(&world, "staunch_wall_clock_set_seconds");
        assert!((shown - seconds as f64).abs() < 30.0, "{shown}");

        assert!(is_shown(one, "www.site.example"), "{word}: {}", staunch.tail());
        assert_eq!(asked(), 1, "{word}: the cached answer is as old as it was");
        assert!(one.dial(WEB.into(), 80).0.is_ok(), "{word}: its pin stands");
        assert!(
            is_shown(batch, &format!("n{turn}.granted.example")),
            "{word}: a grant lasts as long as it was given for"
        );
        assert_eq!(staunch.session_state("closed"), "quarantined", "{word}");
        assert_eq!(ask(closed, "www.site.example").rcode(), rcode::NXDOMAIN, "{word}");
        assert!(closed.dial(WEB.into(), 80).0.is_err(), "{word}");
        assert_eq!(spent(), before, "{word}: what was spent stays spent");
        // Both clocks have to agree before more is open; one is enough to close.
        assert_eq!(is_shown(batch, "soon.rule.example"), seconds < 0, "{word}: a rule of five days");
        assert!(is_shown(batch, "late.rule.example"), "{word}: a rule of twenty days");
        assert_eq!(ask(one, "x.denied.rule.example").rcode(), rcode::NXDOMAIN, "{word}: what is denied for five days");
        // Neither ended by the jump nor made longer by it.
        let brief = || is_shown(batch, &format!("s{turn}.briefly.example"));
        let in_time = brief();
        assert!(in_time || given.elapsed() > Duration::from_secs(7), "{word}: {:?}", given.elapsed());
        let ended = wait_for(Duration::from_secs(20), || (!brief()).then(|| given.elapsed()));
        let ended = ended.unwrap_or_else(|| panic!("{word}: a grant of 8 s still stands after {:?}", given.elapsed()));
        println!(
            "FIGURE: clock set {word} by ten days: a grant of 8 s ended {:.1} s after it was given",
            ended.as_secs_f32()
        );
        assert!(ended >= Duration::from_secs(7), "{word}: {ended:?}");
    }
    assert_eq!(logged(&staunch, "the wall clock was set"), 2, "each time once");
    assert!(logged(&staunch, "panicked") == 0, "{}", staunch.tail());

    // Set right, and started anew: what was written while it was wrong is read well.
    set(&clock, 0);
    staunch.kill();
    staunch.restart(&world);
    assert_eq!(staunch.session_state("closed"), "quarantined");
    assert!(is_shown(batch, "after.granted.example") && is_shown(batch, "soon.rule.example"), "{}", staunch.tail());
    assert!(metric(&world, "staunch_wall_clock_set_seconds").abs() < 30.0);
}

/// A machine that sleeps takes its kernel's timers along, which the wall clock shows like one that is set; one whose process alone
/// stands still, as a host that is short of everything makes it, goes on under a packet filter that has gone on without it.
#[test]
fn a_service_that_stood_still_for_a_while_goes_on_and_shows_nothing_that_has_ended_meanwhile() {
    let Some(world) = World::create(2) else { return };
    let [one, closed] = &world.agents[..] else { unreachable!("two sandboxes were made") };
    let short = Ipv4Addr::new(203, 0, 113, 77);
    world.upstream.add("short.site.example", 1, Data::A(short));
    let mut config = Config::enforce().allow_exact("site", ["www.site.example", "short.site.example"]);
    config.enforce = "min_pin_seconds = 3\npin_grace_seconds = 1\nmax_pin_seconds = 600".into();
    let staunch = Staunch::start(&world, &config);
    assert!(is_shown(one, "www.site.example") && is_shown(closed, "www.site.example"), "{}", staunch.tail());
    assert_eq!(ask(one, "short.site.example").addresses(), [IpAddr::from(short)]);
    assert!(one.dial(short.into(), 80).0.is_ok());
    staunch.run_ok(&["session", "quarantine", "agent-2", "--reason", "a test"]);
    let signal = |signal| {
        // SAFETY: a plain system call; the process is our child and not yet reaped.
        assert_eq!(unsafe { libc::kill(staunch.pid().expect("it runs") as i32, signal) }, 0);
    };
    signal(libc::SIGSTOP);
    let ended = wait_for(Duration::from_secs(15), || one.dial(short.into(), 80).0.is_err().then_some(()));
    assert!(ended.is_some(), "a lease ends without the service");
    std::thread::sleep(Duration::from_secs(3));
    assert!(one.dial(WEB.into(), 80).0.is_ok(), "one that is alive goes on");
    signal(libc::SIGCONT);
    let begun = Instant::now();
    assert!(is_shown(one, "www.site.example"), "{}", staunch.tail());
    let took = begun.elapsed();
    println!("FIGURE: a service that stood still for seconds answers {} ms after it goes on", took.as_millis());
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert!(one.dial(short.into(), 80).0.is_err(), "what has ended is not opened by itself");
    assert_eq!(ask(one, "short.site.example").addresses(), [IpAddr::from(short)]);
    assert!(one.dial(short.into(), 80).0.is_ok(), "asked again it is open again");
    assert_eq!(ask(closed, "www.site.example").rcode(), rcode::NXDOMAIN);
    assert!(closed.dial(WEB.into(), 80).0.is_err());
    assert_eq!(logged(&staunch, "the wall clock was set") + logged(&staunch, "panicked"), 0, "{}", staunch.tail());
}
