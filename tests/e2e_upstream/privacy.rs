//! What a session can tell of what others have asked: nothing across partitions of the cache, and nothing by the time that an
//! answer takes or by its TTL where that is hidden.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::daemon::{self, Daemon};
use crate::fake::{A, Answer, Fake, Reply, ask};

const TRUE: [u8; 4] = [203, 0, 113, 5];
/// Two sessions of one owner, one of another, two of nobody.
const SESSIONS: [(&str, &str, &str); 5] = [
    ("a1", "127.0.0.2", "owner = \"team-a\""),
    ("a2", "127.0.0.3", "owner = \"team-a\""),
    ("b1", "127.0.0.4", "owner = \"team-b\""),
    ("n1", "127.0.0.5", ""),
    ("n2", "127.0.0.6", ""),
];
const A1: &str = SESSIONS[0].1;
const A2: &str = SESSIONS[1].1;
const B1: &str = SESSIONS[2].1;

/// Enforce mode, these sessions, and `answer` in `[answer]`. Names of the site are named by a rule, so that no score comes in.
fn config(answer: &str) -> String {
    let session = |(id, address, owner): (&str, &str, &str)| {
        format!("[[session]]\nid = \"{id}\"\naddresses = [\"{address}\"]\ntype = \"batch\"\n{owner}\n")
    };
    format!(
        "[policy]\nmode = \"enforce\"\n[enforce]\nbackend = \"dry-run\"\n[answer]\n{answer}\n{}\
         [[rule]]\nid = \"site\"\naction = \"allow\"\nnames = [\"*.site.example\"]\nowner = \"tests\"\nreason = \"tests\"\n\
         review_by = \"2099-01-01\"\n",
        SESSIONS.map(session).concat()
    )
}

fn good(query: &crate::fake::Query) -> Vec<Vec<u8>> {
    vec![Reply::to(query).answer(&query.name, A, &TRUE).done()]
}

#[test]
fn a_partition_has_its_own_answers_and_its_own_failures() {
    let upstream = Fake::start(|query| match () {
        () if query.name.starts_with("gone") => vec![Reply::to(query).rcode(3).done()],
        () if query.name.starts_with("fail") => vec![Reply::to(query).rcode(2).done()],
        () => good(query),
    });
    let count = |name: &str, daemon: &Daemon| {
        for (id, address, _) in SESSIONS {
            for turn in 0..2 {
                let answer = ask(daemon.address, address, name, A);
                let expected = if name.starts_with("gone") { 3 } else { 2 * u8::from(name.starts_with("fail")) };
                assert_eq!(answer.rcode, expected, "{name} for {id}, turn {turn}: {answer:?}");
            }
        }
        upstream.asked(name)
    };
    for (shared_by, partitions) in [("all", 1), ("group", 4), ("session", 5)] {
        let answer = format!("failure_seconds = 60\ncache_shared_by = \"{shared_by}\"");
        let daemon = Daemon::start_at(upstream.address, "off", &config(&answer));
        assert_eq!(count(&format!("good.{shared_by}.site.example"), &daemon), partitions, "{shared_by}");
        assert_eq!(count(&format!("gone.{shared_by}.site.example"), &daemon), partitions, "{shared_by}");
        // A failure is asked again before it is one.
        let failed = count(&format!("fail.{shared_by}.site.example"), &daemon);
        assert_eq!(failed % partitions, 0, "{shared_by}: {failed}");
        assert!((1..=2).contains(&(failed / partitions)), "{shared_by}: {failed}");
    }

    // A reload is a change of rules: nothing that was shared before is shared behind it.
    let daemon = Daemon::start_at(upstream.address, "off", &config(""));
    let name = "moved.site.example";
    let both = || [A1, A2, B1].map(|from| ask(daemon.address, from, name, A).rcode);
    assert_eq!((both(), upstream.asked(name)), ([0; 3], 1));
    let file = daemon.dir.path().join("staunch.toml");
    let text = std::fs::read_to_string(&file).expect("configuration");
    std::fs::write(&file, text.replace("[answer]\n", "[answer]\ncache_shared_by = \"group\"\n")).expect("written");
    assert_eq!(daemon::code(&daemon.run(&["reload"])), 0);
    assert_eq!((both(), upstream.asked(name)), ([0; 3], 3), "one for each owner");
}

#[test]
fn who_asks_at_the_same_time_shares_an_exchange_within_a_partition_alone() {
    let open = Arc::new(AtomicBool::new(false));
    let gate = open.clone();
    let upstream = Fake::start(move |query| {
        let until = Instant::now() + Duration::from_secs(30);
        while !gate.load(Ordering::SeqCst) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        good(query)
    });
    let servers = format!("servers = [\"{}\"]\ntry_timeout_ms = 10000\ntotal_timeout_ms = 20000", upstream.address);
    let daemon = Daemon::start_by(&servers, "off", &config("cache_shared_by = \"group\""));
    let name = "same.site.example";
    let askers: Vec<_> = SESSIONS
        .iter()
        .map(|(_, from, _)| {
            let server = daemon.address;
            std::thread::spawn(move || ask(server, from, name, A).rcode)
        })
        .collect();
    let until = Instant::now() + Duration::from_secs(15);
    while upstream.asked(name) < 4 && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(10));
    }
    std::thread::sleep(Duration::from_millis(200));
    let asked = upstream.asked(name);
    open.store(true, Ordering::SeqCst);
    for asker in askers {
        assert_eq!(asker.join().expect("no panic"), 0);
    }
    assert_eq!((asked, upstream.asked(name)), (4, 4), "team-a's two, team-b, and two who are alone");
}

/// An upstream that takes 20 to 45 ms, another time for each query.
fn slow_upstream() -> Fake {
    slowed_upstream(&Arc::new(AtomicU64::new(1)))
}

/// The same, so many times as slow.
fn slowed_upstream(times: &Arc<AtomicU64>) -> Fake {
    let (state, times) = (AtomicU64::new(1), times.clone());
    Fake::start(move |query| {
        let drawn = state.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 40;
        std::thread::sleep(Duration::from_micros((20_000 + drawn % 25_000) * times.load(Ordering::Relaxed)));
        good(query)
    })
}

fn timed(daemon: &Daemon, from: &str, name: &str) -> (Duration, Answer) {
    let begun = Instant::now();
    let answer = ask(daemon.address, from, name, A);
    (begun.elapsed(), answer)
}

/// Shares of names about which a session is right when it tells from its own first answer's time whether another session has
/// asked them. The threshold that it goes by is the best one for the first half of the names; the second half counts.
fn accuracy(answer: &str) -> f64 {
    const NAMES: usize = 160;
    let times = Arc::new(AtomicU64::new(1));
    let upstream = slowed_upstream(&times);
    let daemon = Daemon::start_at(upstream.address, "off", &config(answer));
    // What a busy machine adds to each time must be little beside the upstream's.
    let mut noise: Vec<_> = (0..60).map(|_| timed(&daemon, B1, "localhost").0).collect();
    noise.sort_unstable();
    times.store((noise[54].as_millis() as u64 / 7).clamp(1, 6), Ordering::Relaxed);
    let mut samples = Vec::new();
    for n in 0..NAMES {
        let name = format!("n{n}.site.example");
        let asked = n * 7 % 4 < 2;
        if asked {
            assert_eq!(timed(&daemon, A1, &name).1.rcode, 0);
        }
        let (took, answer) = timed(&daemon, B1, &name);
        assert_eq!(answer.rcode, 0, "{answer:?}");
        samples.push((took, asked));
    }
    let (learned, tried) = samples.split_at(NAMES / 2);
    let right = |of: &[(Duration, bool)], threshold: Duration, below: bool| {
        of.iter().filter(|(took, asked)| ((*took < threshold) == below) == *asked).count() as f64 / of.len() as f64
    };
    let candidates = learned.iter().flat_map(|(took, _)| [(*took, true), (*took, false)]);
    let best = candidates.max_by(|a, b| right(learned, a.0, a.1).total_cmp(&right(learned, b.0, b.1)));
    let (threshold, below) = best.expect("samples");
    right(tried, threshold, below)
}

#[test]
fn the_time_of_an_answer_does_not_tell_whether_others_have_asked() {
    let shown = std::thread::spawn(|| accuracy(""));
    let hidden = accuracy("private_timing = true");
    let shown = shown.join().expect("no panic");
    println!(
        "FIGURE: who asked before is told rightly of {:.0} % of names, {:.0} % otherwise",
        100.0 * hidden,
        100.0 * shown
    );
    assert!(shown > 0.85, "the control: {shown}");
    // Half of 80 names, and four standard deviations of guessing.
    assert!(hidden < 0.73, "{hidden}");
}

#[test]
fn a_private_session_is_judged_and_shown_everything_as_if_alone() {
    let upstream = slow_upstream();
    let private = Daemon::start_at(upstream.address, "off", &config("private_timing = true\nfloor_seconds = 20"));
    let open = Daemon::start_at(upstream.address, "off", &config("floor_seconds = 20"));
    let (shared, own) = ("shared.site.example", "own.site.example");
    let first = [&private, &open].map(|daemon| timed(daemon, A1, shared).1.records[0].2);
    assert!(first[0] == 20 && first[1] >= 299, "{first:?}");
    std::thread::sleep(Duration::from_millis(2100));
    let ttls = |daemon: &Daemon| [shared, own].map(|name| timed(daemon, B1, name).1.records[0].2);
    let [of_shared, of_own] = ttls(&private);
    assert_eq!((of_shared, of_own), (20, 20), "a TTL that says nothing of when it came");
    let [of_shared, of_own] = ttls(&open);
    assert!(of_shared <= 298 && of_own >= 299, "the control: {of_shared} {of_own}");
    assert_eq!(upstream.asked(shared), 2, "one for each daemon: it does not leave again");

    // The first question is charged and counted as one that leaves, the second is answered from what is the session's own.
    let forwarded =
        |daemon: &Daemon| daemon.json(&["session", "show", "b1"])["session"]["forwarded"].as_u64().expect("a count");
    assert_eq!((forwarded(&private), forwarded(&open)), (2, 1));
    for name in [shared, own] {
        let quickest = (0..5).map(|_| timed(&private, B1, name).0).min().expect("five");
        assert!(quickest < Duration::from_millis(20), "{name}: {quickest:?}");
    }
    assert_eq!(forwarded(&private), 2);
    let explained = |name: &str| private.json(&["explain", name, "--session", "a2"])["source"].clone();
    assert_eq!(explained(shared), "upstream", "told as it would be judged");
}

/// Where the floor is longer than answers live, each session has an answer of its own asked for: it is shown that one.
#[test]
fn an_answer_shorter_than_the_floor_says_nothing_of_when_others_had_it() {
    let upstream = slow_upstream();
    let daemon = Daemon::start_at(upstream.address, "off", &config("private_timing = true\nfloor_seconds = 600"));
    let (shared, own) = ("shared.site.example", "own.site.example");
    timed(&daemon, A1, shared);
    std::thread::sleep(Duration::from_millis(2100));
    let [of_shared, of_own] = [shared, own].map(|name| timed(&daemon, B1, name).1.records[0].2);
    assert!(of_own.abs_diff(of_shared) <= 1, "of the other's {of_shared}, of its own {of_own}");
    assert_eq!(upstream.asked(shared), 2, "it has left again");
}

/// Two who ask at the same moment: the second one waits as long as the first, though the exchange is half over.
#[test]
fn joining_an_exchange_that_is_under_way_takes_as_long_as_the_exchange() {
    let upstream = Fake::start(|query| {
        std::thread::sleep(Duration::from_millis(600));
        good(query)
    });
    let run = |answer: &str| {
        let daemon = Daemon::start_at(upstream.address, "off", &config(answer));
        let name = format!("j{}.site.example", answer.len());
        std::thread::scope(|scope| {
            let first = scope.spawn(|| timed(&daemon, A1, &name).0);
            let until = Instant::now() + Duration::from_secs(5);
            while upstream.asked(&name) == 0 && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(5));
            }
            std::thread::sleep(Duration::from_millis(400));
            let second = timed(&daemon, B1, &name).0;
            assert!(first.join().expect("no panic") >= Duration::from_millis(600));
            assert_eq!(upstream.asked(&name), 1, "one exchange");
            second
        })
    };
    let (hidden, shown) = (run("private_timing = true"), run(""));
    assert!(hidden >= Duration::from_millis(600), "{hidden:?}");
    assert!(shown < Duration::from_millis(550), "the control: {shown:?}");
}
