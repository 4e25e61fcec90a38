//! What a case stands for, and how refusals are told and explained.

use crate::daemon::{Daemon, ENFORCE, chunk, code};

#[test]
fn why_names_every_name_that_a_case_stands_for() {
    let daemon = Daemon::start(ENFORCE);
    let case_of = |name: &str| {
        let (_, _, reply) = daemon.ask(name, 1);
        reply.split("Case ").nth(1).and_then(|rest| rest.split('.').next()).expect("a case").to_owned()
    };
    let case = case_of("a.dump.example");
    assert_eq!(case_of("b.dump.example"), case, "by domain and reason");
    assert_eq!(case_of("a.dump.example"), case);
    daemon.event(|e| e["qname"] == "b.dump.example");
    let why = daemon.json(&["why", &case]);
    assert_eq!(why["event"]["qname"], "a.dump.example", "the newest: {why:#}");
    assert_eq!(why["names"], serde_json::json!(["b.dump.example", "a.dump.example"]), "{why:#}");
    let words = String::from_utf8(daemon.run(&["why", &case]).stdout).expect("UTF-8");
    assert!(words.contains("\n  also      b.dump.example") && !words.contains("also      a.dump"), "{words}");

    (0..12).for_each(|n| drop(daemon.ask(&format!("n{n}.dump.example"), 1)));
    daemon.event(|e| e["qname"] == "n11.dump.example");
    let why = daemon.json(&["why", &case]);
    let names: Vec<_> = why["names"].as_array().expect("names").iter().filter_map(|name| name.as_str()).collect();
    assert_eq!((names.len(), names.first(), names.last()), (10, Some(&"n2.dump.example"), Some(&"n11.dump.example")));
}

#[test]
fn why_answers_from_the_journal_when_no_event_is_left() {
    let mut daemon = Daemon::start(ENFORCE);
    let closed = daemon.json(&["session", "quarantine", "s1", "--reason", "looked odd", "--by", "jane"]);
    let case = closed["case"].as_str().expect("a case").to_owned();
    let events = daemon.dir.path().join("state/events.jsonl");
    daemon.restart();
    std::fs::remove_file(&events).expect("the event file");
    let why = daemon.json(&["why", &case]);
    assert_eq!((why["schema"].as_u64(), why["session"].as_str()), (Some(1), Some("s1")), "{why:#}");
    assert_eq!(
        (why["quarantine"]["by"].as_str(), why["quarantine"]["note"].as_str()),
        (Some("jane"), Some("looked odd"))
    );

    // Once released, no session remembers the case: only the journal does.
    daemon.json(&["session", "release", "s1", "--by", "joe", "--reason", "reviewed"]);
    daemon.restart();
    std::fs::remove_file(&events).expect("the event file");
    let why = daemon.json(&["why", &case]);
    assert_eq!(why["quarantine"]["by"], "jane", "{why:#}");
    assert_eq!((why["release"]["by"].as_str(), why["release"]["note"].as_str()), (Some("joe"), Some("reviewed")));
    assert_eq!((why["alert"]["case"].as_str(), why["alert"]["kind"].as_str()), (Some(&*case), Some("quarantine")));
    let words = daemon.run(&["why", &case]);
    assert_eq!(code(&words), 0);
    let words = String::from_utf8(words.stdout).expect("UTF-8");
    for part in ["session s1 was closed", "by jane: looked odd", "by joe: reviewed", "alert quarantine"] {
        assert!(words.contains(part), "{part} in {words}");
    }
    let unknown = daemon.run(&["why", "c000000000000"]);
    assert_eq!(code(&unknown), 1, "{unknown:?}");
}

#[test]
fn why_tells_of_the_quarantine_beside_its_event_once_the_session_is_open_again() {
    let daemon = Daemon::start(ENFORCE);
    for i in 0..20 {
        daemon.ask(&format!("{}.evil.example", chunk(i)), 1);
    }
    let case = daemon.json(&["session", "show", "s1"])["quarantine"]["case"].as_str().expect("closed").to_owned();
    daemon.json(&["session", "release", "s1", "--by", "joe", "--reason", "reviewed", "--extend", "64"]);
    let why = daemon.json(&["why", &case]);
    assert_eq!(why["event"]["case"], *case, "{why:#}");
    assert_eq!((why["session"].as_str(), why["quarantine"]["by"].as_str()), (Some("s1"), Some("staunch")), "{why:#}");
    assert_eq!((why["release"]["by"].as_str(), why["release"]["extended_bits"].as_u64()), (Some("joe"), Some(64)));
    let words = String::from_utf8(daemon.run(&["why", &case]).stdout).expect("UTF-8");
    for part in ["session s1 was closed", "by joe: reviewed", "raised by 64 bits", "evil.example"] {
        assert!(words.contains(part), "{part} in {words}");
    }
}

#[test]
fn an_exit_code_of_explain_says_what_becomes_of_the_name_now() {
    let monitor = Daemon::start(&ENFORCE.replace("mode = \"enforce\"", "mode = \"monitor\""));
    let explain = ["explain", "a.dump.example", "--session", "s1", "--exit-code"];
    let explained = monitor.run(&explain);
    assert_eq!(code(&explained), 0, "monitor mode answers it: {explained:?}");
    assert!(String::from_utf8_lossy(&explained.stdout).contains("in enforce mode: sinkhole"), "{explained:?}");
    let enforced = [&explain[..4], &["--exit-code=enforced"]].concat();
    assert_eq!(code(&monitor.run(&enforced)), 10, "as whoever tries a policy wants to know");
    // Payload under a type that only tunnels use would close the session.
    monitor.ask(&format!("{}.evil.example", chunk(1)), 10);
    assert_eq!(monitor.json(&["session", "show", "s1"])["quarantine"]["applied"], false);
    assert_eq!(code(&monitor.run(&explain)), 0, "and what would be closed is not");
    monitor.json(&["session", "quarantine", "s1", "--reason", "test"]);
    assert_eq!(code(&monitor.run(&explain)), 11, "what an operator has closed is");
}
