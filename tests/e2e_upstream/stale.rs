//! Answers that have expired, where no upstream answers in time (RFC 8767).

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use crate::daemon::{self, Daemon, ENFORCE};
use crate::fake::{A, CNAME, Fake, Reply, ask, wire};

const TRUE: [u8; 4] = [203, 0, 113, 5];
const NEW: [u8; 4] = [203, 0, 113, 6];

/// What the upstream does: answers, says nothing, fails, or answers late and with another address.
const ANSWERS: u8 = 0;
const SILENT: u8 = 1;
const FAILS: u8 = 2;
const LATE: u8 = 3;

/// An upstream whose answers live for a second.
fn upstream() -> (Fake, Arc<AtomicU8>) {
    let mood = Arc::new(AtomicU8::new(ANSWERS));
    let now = mood.clone();
    let fake = Fake::start(move |query| {
        let with = |address: &[u8; 4]| {
            let mut octets = Reply::to(query).answer(&query.name, A, address).done();
            // TTL: the last four octets in front of length and address.
            let at = octets.len() - 10;
            octets[at..at + 4].copy_from_slice(&[0, 0, 0, 1]);
            vec![octets]
        };
        match now.load(Ordering::SeqCst) {
            ANSWERS => with(&TRUE),
            SILENT => Vec::new(),
            FAILS => vec![Reply::to(query).rcode(2).done()],
            _ => {
                std::thread::sleep(Duration::from_millis(2600));
                with(&NEW)
            }
        }
    });
    (fake, mood)
}

fn config(answer: &str) -> String {
    format!("[answer]\nfloor_seconds = 0\nfailure_seconds = 1\n{answer}\n{ENFORCE}")
}

fn patient(upstream: &Fake) -> String {
    format!("servers = [\"{}\"]\ntry_timeout_ms = 3000\ntotal_timeout_ms = 6000", upstream.address)
}

const NAME: &str = "www.site.example";

#[test]
fn an_expired_answer_stands_in_and_says_so() {
    let (upstream, mood) = upstream();
    let daemon = Daemon::start_by(&patient(&upstream), "off", &config("serve_stale_seconds = 3600"));
    assert_eq!(ask(daemon.address, "127.0.0.1", NAME, A).addresses(), [IpAddr::from(TRUE)]);
    std::thread::sleep(Duration::from_millis(1200));

    // A failure is noticed at once.
    mood.store(FAILS, Ordering::SeqCst);
    for what in ["failed", "known to fail"] {
        let answer = ask(daemon.address, "127.0.0.1", NAME, A);
        assert_eq!((answer.rcode, answer.addresses()), (0, vec![IpAddr::from(TRUE)]), "{what}: {answer:?}");
        assert_eq!(answer.records[0].2, 30, "{what}: RFC 8767 section 4");
        assert_eq!(answer.errors.iter().map(|e| e.0).collect::<Vec<_>>(), [3], "{what}: Stale Answer");
    }
    let shown = daemon.json(&["session", "show", "s1"]);
    let pinned = |pin: &serde_json::Value| pin["address"] == "203.0.113.5" && pin["seconds_left"].as_u64() >= Some(30);
    assert!(shown["pins"].as_array().expect("pins").iter().any(pinned), "for the TTL shown, like any: {shown:#}");
    // Without an answer of before there is nothing to show.
    assert_eq!(ask(daemon.address, "127.0.0.1", "other.site.example", A).rcode, 2);

    // Silence is noticed after the time that a client waits, once the failure is forgotten.
    let before = upstream.asked(NAME);
    mood.store(LATE, Ordering::SeqCst);
    let until = Instant::now() + Duration::from_secs(20);
    let (answer, took) = loop {
        let begun = Instant::now();
        let answer = ask(daemon.address, "127.0.0.1", NAME, A);
        if upstream.asked(NAME) > before {
            break (answer, begun.elapsed());
        }
        assert!(Instant::now() < until, "the failure stands for ever: {answer:?}");
        std::thread::sleep(Duration::from_millis(100));
    };
    assert_eq!(answer.addresses(), [IpAddr::from(TRUE)], "{answer:?}");
    // The time that a client waits by RFC 8767, and not that of the exchange, which is six seconds here.
    assert!((1700..5000).contains(&took.as_millis()), "{took:?}");
    assert_eq!(answer.errors.iter().map(|e| e.0).collect::<Vec<_>>(), [3], "{answer:?}");
    // What came late is kept.
    let until = Instant::now() + Duration::from_secs(30);
    let mut shown = Vec::new();
    mood.store(SILENT, Ordering::SeqCst);
    while shown != [IpAddr::from(NEW)] && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(100));
        shown = ask(daemon.address, "127.0.0.1", NAME, A).addresses();
    }
    assert_eq!(shown, [IpAddr::from(NEW)], "the exchange went on");
}

/// The alias is of one upstream and where it leads of another: of each what is old says so and is shown for as long as any that is.
#[test]
fn an_alias_that_has_expired_stands_in_in_front_of_what_has_not() {
    let fails = Arc::new(AtomicU8::new(ANSWERS));
    let now = fails.clone();
    let general = Fake::start(move |query| match now.load(Ordering::SeqCst) {
        ANSWERS => {
            let mut octets = Reply::to(query).answer(&query.name, CNAME, &wire("host.corp.example")).done();
            let at = octets.len() - 6 - wire("host.corp.example").len();
            octets[at..at + 4].copy_from_slice(&[0, 0, 0, 1]);
            vec![octets]
        }
        _ => vec![Reply::to(query).rcode(2).done()],
    });
    let corp = Fake::start(|query| vec![Reply::to(query).answer(&query.name, A, &TRUE).done()]);
    let zone = format!(
        "[[forward]]\nzone = \"corp.example\"\nservers = [\"{}\"]\nowner = \"o\"\nreason = \"r\"\n\
         review_by = \"2099-01-01\"\n",
        corp.address
    );
    let daemon = Daemon::start_at(general.address, "off", &(config("serve_stale_seconds = 3600") + &zone));
    let shown = |what: &str| {
        let answer = ask(daemon.address, "127.0.0.1", NAME, A);
        assert_eq!((answer.rcode, answer.addresses()), (0, vec![IpAddr::from(TRUE)]), "{what}: {answer:?}");
        (answer.records[0].2, answer.errors.iter().map(|error| error.0).collect::<Vec<_>>())
    };
    assert_eq!(shown("fresh"), (1, Vec::new()));
    std::thread::sleep(Duration::from_millis(1200));
    fails.store(FAILS, Ordering::SeqCst);
    for what in ["failed", "known to fail"] {
        assert_eq!(shown(what), (30, vec![3]), "{what}: RFC 8767 section 4");
    }
    std::thread::sleep(Duration::from_millis(1100));
    fails.store(ANSWERS, Ordering::SeqCst);
    assert_eq!(shown("fresh again"), (1, Vec::new()));
}

#[test]
fn it_is_off_unless_wanted_and_never_outlives_a_change_of_rules() {
    let (upstream, mood) = upstream();
    let off = Daemon::start_at(upstream.address, "off", &config(""));
    let on = Daemon::start_at(upstream.address, "off", &config("serve_stale_seconds = 3600"));
    for daemon in [&off, &on] {
        assert_eq!(ask(daemon.address, "127.0.0.1", NAME, A).addresses(), [IpAddr::from(TRUE)]);
        assert_eq!(ask(daemon.address, "127.0.0.1", "denied.example", A).addresses(), [IpAddr::from(TRUE)]);
    }
    std::thread::sleep(Duration::from_millis(1200));
    mood.store(FAILS, Ordering::SeqCst);
    let answer = ask(off.address, "127.0.0.1", NAME, A);
    assert_eq!((answer.rcode, answer.addresses()), (2, vec![]), "off: {answer:?}");
    assert_eq!(ask(on.address, "127.0.0.1", NAME, A).addresses(), [IpAddr::from(TRUE)], "on, the control");

    // A rule that denies one name: that one is refused, and the other one's answer was vetted by rules that are gone.
    let file = on.dir.path().join("staunch.toml");
    let text = std::fs::read_to_string(&file).expect("configuration");
    std::fs::write(&file, text.replace("\"dump.example\"", "\"dump.example\", \"denied.example\"")).expect("written");
    assert_eq!(daemon::code(&on.run(&["reload"])), 0);
    let refused = ask(on.address, "127.0.0.1", "denied.example", A);
    assert_eq!((refused.rcode, refused.addresses()), (3, vec![]), "{refused:?}");
    std::thread::sleep(Duration::from_millis(1100));
    let answer = ask(on.address, "127.0.0.1", NAME, A);
    assert_eq!((answer.rcode, answer.addresses()), (2, vec![]), "{answer:?}");
}
