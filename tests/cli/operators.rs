//! What operators say and are told: temporary allowances, their own words, addresses.

use super::*;

#[test]
fn a_grant_is_listed_and_withdrawn_and_stays_so() {
    let mut daemon = Daemon::start(ENFORCE);
    let said = |daemon: &Daemon, words: &[&str]| {
        let output = daemon.run(words);
        assert_eq!(code(&output), 0, "{output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    assert_eq!(said(&daemon, &["grant", "list"]), "no grants\n");
    let allow = |daemon: &Daemon, time: &str, reason: &str| {
        let words =
            ["allow", "=a.dump.example", "--for", time, "--reason", reason, "--owner", "jane", "--session", "s1"];
        said(daemon, &words)
    };
    assert!(!allow(&daemon, "2h", "a look").contains("in place of"));
    let first = daemon.json(&["grant", "list"])["grants"][0].clone();
    let again = allow(&daemon, "5m", "another look");
    assert!(again.contains("in place of") && again.contains("by jane: a look"), "{again}");
    let all = daemon.json(&["grant", "list"]);
    let [grant] = &all["grants"].as_array().expect("grants")[..] else { panic!("one: {all:#}") };
    assert_eq!((&grant["id"], &grant["until"]), (&first["id"], &first["until"]), "the later end stays");
    let words = said(&daemon, &["grant", "list"]);
    assert!(words.contains("=a.dump.example") && words.contains("session s1"), "{words}");
    assert!(words.contains("by jane: another look"), "{words}");
    assert_eq!(daemon.ask("a.dump.example", 1).0, 0);
    let explained = said(&daemon, &["explain", "a.dump.example", "--session", "s1"]);
    assert!(explained.contains("by jane: another look"), "{explained}");

    let id = grant["id"].as_str().expect("an id");
    let gone = daemon.json(&["grant", "withdraw", id, "--reason", "done", "--by", "joe"]);
    assert_eq!(gone["withdrawn"]["id"], *id);
    assert_eq!(daemon.ask("a.dump.example", 1).0, 3, "refused again");
    let twice = daemon.run(&["grant", "withdraw", id, "--reason", "done"]);
    assert!(code(&twice) == 1 && String::from_utf8_lossy(&twice.stderr).contains("grant list"), "{twice:?}");
    daemon.restart();
    assert_eq!(daemon.ask("a.dump.example", 1).0, 3, "after a kill too");
    assert_eq!(daemon.json(&["grant", "list"])["grants"], json!([]));
}

#[test]
fn words_that_could_forge_a_line_are_refused_with_what_is_wrong() {
    let daemon = Daemon::start(ENFORCE);
    let forged = "fine\ns2 active";
    let release = ["session", "release", "s1", "--by", "joe", "--reason", forged];
    let close = ["session", "quarantine", "s1", "--by", "\u{1b}[2Jjoe", "--reason", "test"];
    let allow = ["allow", "=a.example", "--for", "5m", "--reason", "r", "--owner", forged];
    let announce = ["session", "announce", "b2", "--address", "127.0.0.7", "--type", "batch", "--owner", forged];
    for words in [&release[..], &close, &allow, &announce] {
        let output = daemon.run(words);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(code(&output) == 2 && said.contains("a control character (U+00"), "{words:?}: {output:?}");
    }
    assert_eq!(daemon.json(&["session", "show", "s1"])["session"]["state"], "active");
}

#[test]
fn a_name_that_cannot_be_allowed_is_told_with_what_to_write() {
    let daemon = Daemon::start(ENFORCE);
    for (name, told) in [
        ("https://files.site.example/x?y=1", "write the host name alone: `files.site.example`"),
        ("b\u{fc}cher.example", "starts with `xn--`"),
        ("com", "such as `owner.com`"),
    ] {
        let output = daemon.run(&["allow", name, "--for", "5m", "--reason", "r", "--owner", "o"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(code(&output) == 2 && said.contains(told), "{output:?}");
    }
}

#[test]
fn an_address_that_nobody_asks_from_is_not_announced() {
    let daemon = Daemon::start(ENFORCE);
    for address in ["0.0.0.0", "::", "224.0.0.1", "ff02::1", "::ffff:0.0.0.0", "255.255.255.255"] {
        let output = daemon.run(&["session", "announce", "b2", "--address", address, "--type", "batch"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(code(&output) == 2 && said.contains("the sandbox's own address"), "{output:?}");
    }
    let output = daemon.run(&["session", "announce", "b2", "--address", "127.0.0.9", "--type", "batch"]);
    assert_eq!(code(&output), 0, "loopback is a sandbox's on a machine of one's own: {output:?}");
}

#[test]
fn explain_tells_of_a_search_list_that_nobody_announced() {
    let daemon = Daemon::start(ENFORCE);
    let name = |n: u64| format!("{}.site{n}.com.corp.acme-works.com", chunk(n));
    for n in 0..4 {
        daemon.ask(&name(n), 1);
    }
    let explained = daemon.json(&["explain", &name(9), "--session", "s1"]);
    assert_eq!((&explained["reason"], &explained["would"]), (&"score".into(), &"sinkhole".into()), "{explained}");
    assert_eq!(explained["search_suffix"], "corp.acme-works.com", "{explained}");
    let words = daemon.run(&["explain", &name(9), "--session", "s1"]);
    assert!(String::from_utf8_lossy(&words.stdout).contains("--search corp.acme-works.com"), "{words:?}");
    for fine in ["www.site9.org", "git.corp.acme-works.com"] {
        let explained = daemon.json(&["explain", fine, "--session", "s1"]);
        assert!(explained["search_suffix"].is_null(), "{explained}");
    }
}
