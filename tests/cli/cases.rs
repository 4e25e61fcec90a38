//! What a case stands for, and how refusals are told.

use crate::daemon::{Daemon, ENFORCE};

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
