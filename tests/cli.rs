//! The command line and the daemon together, on loopback, without privileges: every verb, its JSON and its exit code.

mod daemon;

use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use daemon::{BINARY, Daemon, ENFORCE, chunk, code, run};
use serde_json::Value;

#[test]
fn a_refusal_tells_the_same_case_on_every_channel() {
    let daemon = Daemon::start(ENFORCE);
    assert_eq!(daemon.ask("www.site.example", 1).0, 0, "the control name is answered");
    let (rcode, answers, reply) = daemon.ask("a.dump.example", 1);
    assert_eq!((rcode, answers), (3, 0));
    let case = reply.split("Case ").nth(1).expect("a case in the EDE").split('.').next().expect("its end").to_owned();
    assert!(reply.contains("security@example.com"), "{reply:?}");
    let (rcode, answers, text) = daemon.ask("a.dump.example", 16);
    assert_eq!((rcode, answers), (0, 1), "TXT at the name is the reason");
    assert!(text.contains(&case), "{text:?}");

    let event = daemon.event(|e| e["case"] == *case && e["qtype"] == "A");
    assert_eq!((event["reason"].as_str(), event["verdict"].as_str()), (Some("deny-rule"), Some("sinkhole")));
    assert_eq!(event["rule"]["id"], "no-dumps");
    assert!(event["rule"]["file"].as_str().expect("a file").ends_with("staunch.toml"));
    let why = daemon.json(&["why", &case]);
    assert_eq!(why["event"]["case"], *case);
    let words = daemon.run(&["why", &case]);
    assert_eq!(code(&words), 0);
    assert!(String::from_utf8_lossy(&words.stdout).contains("no-dumps"));
}

/// An event leaves out the signals that have nothing to say.
fn as_event(mut explained: Value) -> Value {
    if let Some(readings) = explained["score"]["readings"].as_array_mut() {
        readings.retain(|reading| !reading["value"].is_null());
    }
    explained
}

#[test]
fn explain_is_the_live_path_bit_for_bit() {
    let daemon = Daemon::start(ENFORCE);
    for i in 0..20 {
        let name = format!("{}.evil.example", chunk(i));
        let before = daemon.json(&["explain", &name, "--session", "s1"]);
        daemon.ask(&name, 1);
        let event = daemon.event(|e| e["qname"] == *name);
        let before = as_event(before);
        for field in ["verdict", "would", "reason", "mode", "source", "score", "tenant"] {
            assert_eq!(before.get(field), event.get(field), "{field} of {name}");
        }
    }
    let closed = daemon.json(&["session", "show", "s1"]);
    assert_eq!(closed["session"]["state"], "quarantined", "twenty chunks are too many: {closed:#}");
    let output = daemon.run(&["explain", "www.site.example", "--session", "s1", "--exit-code"]);
    assert_eq!(code(&output), 11);
    let output = daemon.run(&["session", "show", "s1", "--exit-code"]);
    assert_eq!(code(&output), 11);
}

/// Events of a name and how many questions they stand for.
fn told(daemon: &Daemon, name: &str) -> (usize, u64) {
    let output = daemon.run(&["observe", "--last", "500", "--json"]);
    let lines = String::from_utf8(output.stdout).expect("UTF-8");
    let events = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let counts: Vec<u64> = events.filter(|e| e["qname"] == *name).map(|e| e["count"].as_u64().unwrap_or(1)).collect();
    (counts.len(), counts.iter().sum())
}

#[test]
fn a_verdict_that_stands_is_counted_and_falls_with_what_it_rests_on() {
    let daemon = Daemon::start(ENFORCE);
    let ask = |name: &str| daemon.ask(name, 1).0;
    let many = |name: &str, rcode: u8| (0..50).for_each(|_| assert_eq!(ask(name), rcode, "{name}"));
    // Each question is told of, most of them in few lines, and all are counted.
    many("www.site.example", 0);
    many("a.dump.example", 3);
    // Whoever looks sees what was asked until then, the last of it included.
    for name in ["www.site.example", "a.dump.example"] {
        let (lines, questions) = told(&daemon, name);
        assert!(questions == 50 && lines < 25, "{name}: {lines} lines for {questions} questions");
    }
    let shown = daemon.json(&["session", "show", "s1"]);
    let counts = &shown["session"];
    assert_eq!((counts["queries"].as_u64(), counts["refused"].as_u64()), (Some(100), Some(50)), "{shown:#}");
    // Each is asked often again right before something changes, and the next question is judged by what has changed.
    many("a.dump.example", 3);
    let grant = ["allow", "=a.dump.example", "--for", "5m", "--reason", "look", "--owner", "jane", "--session", "s1"];
    assert_eq!(code(&daemon.run(&grant)), 0);
    assert_eq!(ask("a.dump.example"), 0, "a grant");
    many("www.site.example", 0);
    // Payload under a type that only tunnels use closes the session, with no verb in between that settles anything.
    assert_ne!(daemon.ask(&format!("{}.evil.example", chunk(1)), 10).1, 1, "nothing is answered");
    assert_eq!(ask("www.site.example"), 3, "a quarantine");
    assert_eq!(code(&daemon.run(&["session", "release", "s1", "--by", "jane", "--reason", "reviewed"])), 0);
    many("www.site.example", 0);
    let file = daemon.dir.path().join("staunch.toml");
    let written = std::fs::read_to_string(&file).expect("the configuration");
    let rule = "\n[[rule]]\nid = \"site\"\naction = \"deny\"\nnames = [\"=www.site.example\"]\nowner = \"o\"\nreason = \"r\"\n";
    std::fs::write(&file, written + rule).expect("written");
    many("www.site.example", 0);
    let reloaded = daemon.run(&["reload"]);
    assert_eq!(code(&reloaded), 0, "{reloaded:?}");
    assert_eq!(ask("www.site.example"), 3, "a reload");
}

#[test]
fn the_metrics_page_has_limits_of_its_own() {
    use std::io::{Read, Write};
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
    let daemon = Daemon::start_at(([192, 0, 2, 53], 53).into(), &format!("127.0.0.1:{port}"), ENFORCE);
    let open = || {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("connected");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("time limit");
        stream
    };
    let get = |request: &str| {
        let mut stream = open();
        stream.write_all(request.as_bytes()).expect("sent");
        let mut reply = String::new();
        let read = stream.read_to_string(&mut reply);
        read.map(|_| reply)
    };
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", daemon.child.id())).expect("/proc").count();
    let before = descriptors();
    // Two hundred that begin a request and never end it: an honest one is answered all the same.
    let slow: Vec<TcpStream> = (0..200)
        .map(|_| {
            let mut stream = open();
            stream.write_all(b"GET /metr").expect("sent");
            stream
        })
        .collect();
    let page = get("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").expect("a page");
    assert!(page.starts_with("HTTP/1.1 200") && page.contains("application/openmetrics-text"), "{page}");
    assert!(descriptors() <= before + 20, "{} beside {before}", descriptors());
    let closed = |page: &str| {
        let line = page.lines().find(|line| line.starts_with("staunch_page_closed_total")).expect("a counter");
        line.rsplit(' ').next().and_then(|n| n.parse::<f64>().ok()).expect("a number")
    };
    assert!(closed(&page) >= 180.0, "{}", closed(&page));
    // The last of them end by the time they may take.
    let begun = Instant::now();
    let mut last = slow.into_iter().next_back().expect("one");
    let mut rest = Vec::new();
    let _ = last.read_to_end(&mut rest);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());

    let long = format!("GET /metrics HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "a".repeat(64 << 10));
    assert!(get(&long).map_or(true, |reply| reply.starts_with("HTTP/1.1 431")), "a long head");
    let many = format!("GET /metrics HTTP/1.1\r\n{}\r\n", "X: a\r\n".repeat(200));
    assert!(get(&many).map_or(true, |reply| reply.starts_with("HTTP/1.1 431")), "many fields");
    for (request, status) in [
        ("POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", "405"),
        ("GET /other HTTP/1.1\r\nHost: x\r\n\r\n", "404"),
        ("GET /livez HTTP/1.1\r\nHost: x\r\n\r\n", "200"),
        ("nonsense\r\n\r\n", "400"),
    ] {
        let reply = get(request).expect("a reply");
        assert!(reply.starts_with(&format!("HTTP/1.1 {status}")), "{request}: {reply}");
    }
}

#[test]
fn explain_knows_what_siblings_were_found_to_get() {
    let daemon = Daemon::start(&ENFORCE.replace("enabled = false", "enabled = true"));
    let names: Vec<String> = (0..3).map(|i| format!("{}{}.evil.example", chunk(i), chunk(i + 50))).collect();
    let first = daemon.json(&["explain", &names[0], "--session", "s1"]);
    assert_eq!((first["source"].as_str(), first["decoy_parent"].as_str()), (Some("upstream"), Some("evil.example")));
    for (i, name) in names.iter().enumerate() {
        let before = daemon.json(&["explain", name, "--session", "s1"]);
        daemon.ask(name, 1);
        let event = daemon.event(|e| e["qname"] == *name);
        assert_eq!((event["source"].as_str(), event["decoy"].as_str()), (Some("decoy"), Some("wildcard")));
        let before = as_event(before);
        // The first one pays for the siblings, which nobody can tell beforehand.
        for field in ["verdict", "would", "reason", "mode", "source", "score", "tenant"] {
            assert!(i == 0 || before.get(field) == event.get(field), "{field} of {name}: {before} {event}");
        }
    }
}

#[test]
fn monitor_mode_reaches_the_same_verdicts_and_answers() {
    let enforce = Daemon::start(ENFORCE);
    let monitor = Daemon::start(&ENFORCE.replace("mode = \"enforce\"", "mode = \"monitor\""));
    let names: Vec<String> = (0..20).map(|i| format!("{}.evil.example", chunk(i))).collect();
    for name in &names {
        enforce.ask(name, 1);
        assert_eq!(monitor.ask(name, 1).0, 0, "monitor mode answers {name}");
    }
    let last = names.last().expect("a name");
    enforce.event(|e| e["qname"] == **last);
    let event = monitor.event(|e| e["qname"] == **last);
    assert_eq!(event["verdict"], "answer");
    let would = |daemon: &Daemon| {
        let output = daemon.run(&["observe", "--last", "200", "--json"]);
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        let events: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        names
            .iter()
            .map(|name| events.iter().find(|e| e["qname"] == **name).expect("an event")["would"] != "answer")
            .collect::<Vec<_>>()
    };
    // What was answered in monitor mode counts as told, so it can reach the limit a name sooner, never later.
    let first = |refused: Vec<bool>| refused.iter().position(|r| *r).expect("refused at some point");
    let (e, m) = (first(would(&enforce)), first(would(&monitor)));
    assert_eq!(e, m, "the first refusal is the same");
    assert_eq!(monitor.json(&["session", "show", "s1"])["session"]["state"], "watched");
}

#[test]
fn operators_act_over_the_socket_and_it_survives_a_kill() {
    let mut daemon = Daemon::start(ENFORCE);
    let list = daemon.json(&["session", "list"]);
    assert_eq!(list["sessions"][0]["id"], "s1");
    let made = daemon.json(&[
        "session",
        "announce",
        "b2",
        "--address",
        "127.0.0.7",
        "--type",
        "batch",
        "--phase",
        "build",
        "--owner",
        "ci",
    ]);
    assert_eq!(made["session"]["state"], "active");
    let taken = daemon.run(&["session", "announce", "b3", "--address", "127.0.0.7", "--type", "batch"]);
    assert_eq!(code(&taken), 1, "an address has one owner");

    let closed = daemon.json(&["session", "quarantine", "s1", "--reason", "test", "--by", "jane"]);
    let case = closed["case"].as_str().expect("a case").to_owned();
    let again = daemon.json(&["session", "quarantine", "s1", "--reason", "test again"]);
    assert_eq!(again["case"], *case, "closing a closed session changes nothing");
    let (rcode, _, reply) = daemon.ask("www.site.example", 1);
    assert_eq!(rcode, 3);
    assert!(reply.contains(&case), "{reply:?}");

    daemon.restart();
    let (rcode, _, reply) = daemon.ask("www.site.example", 1);
    assert_eq!(rcode, 3, "still closed after kill -9");
    assert!(reply.contains(&case), "the same case: {reply:?}");
    let ids = daemon.json(&["session", "list"]);
    assert!(ids["sessions"].as_array().expect("sessions").iter().any(|s| s["id"] == "b2"), "announced before the kill");

    let open = daemon.json(&["session", "release", "s1", "--by", "jane", "--reason", "reviewed"]);
    assert_eq!(open["released"], true);
    assert_eq!(daemon.ask("www.site.example", 1).0, 0);

    assert_eq!(daemon.ask("a.dump.example", 1).0, 3);
    let short = daemon.run(&["allow", "=a.dump.example", "--for", "2s", "--reason", "look", "--owner", "jane"]);
    assert_eq!(code(&short), 0, "{short:?}");
    assert_eq!(daemon.ask("a.dump.example", 1).0, 0, "a grant goes before a deny rule");
    assert_eq!(daemon.ask("b.dump.example", 1).0, 3, "and covers its name alone");
    std::thread::sleep(Duration::from_millis(2100));
    let explained = daemon.json(&["explain", "a.dump.example", "--session", "s1"]);
    assert_eq!(explained["verdict"], "sinkhole", "a grant ends by itself: {explained}");
}

#[test]
fn exit_codes_and_errors_say_what_is_wrong() {
    let daemon = Daemon::start(ENFORCE);
    let nowhere = daemon.dir.path().join("nobody.sock");
    assert_eq!(code(&run(&nowhere, &["session", "list"])), 4);
    assert_eq!(code(&daemon.run(&["session", "show", "nobody"])), 1);
    assert_eq!(code(&daemon.run(&["session", "show", "not an id"])), 2);
    assert_eq!(code(&daemon.run(&["allow", "co.uk", "--for", "5m", "--reason", "r", "--owner", "o"])), 2);
    assert_eq!(code(&daemon.run(&["allow", "x.example", "--for", "30d", "--reason", "r", "--owner", "o"])), 2);
    assert_eq!(code(&daemon.run(&["explain", "a.dump.example", "--session", "s1", "--exit-code"])), 10);
    assert_eq!(code(&daemon.run(&["explain", "a.dump.example", "--session", "s1"])), 0);

    let bad = daemon.dir.path().join("bad.toml");
    std::fs::write(&bad, "version = 1\n[policy]\nmode = \"enforce\"\n[enforce]\nbackend = \"off\"\n[upstream]\nservers = [\"192.0.2.53\"]\n").expect("written");
    let output = daemon.run(&["check", bad.to_str().expect("UTF-8")]);
    assert_eq!(code(&output), 3);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("bad.toml:5") && said.contains("enforce.backend"), "{said}");
    let json = daemon.run(&["check", bad.to_str().expect("UTF-8"), "--json"]);
    let json: Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!((json["valid"].as_bool(), json["errors"][0]["line"].as_u64()), (Some(false), Some(5)));
    let served = Command::new(BINARY).args(["serve", "--config"]).arg(&bad).output().expect("runs");
    assert_eq!(code(&served), 3, "serve does not start on it either");

    let good = daemon.dir.path().join("staunch.toml");
    assert_eq!(code(&daemon.run(&["check", good.to_str().expect("UTF-8")])), 0);
    let offline = daemon.run(&["explain", "a.dump.example", "--config", good.to_str().expect("UTF-8"), "--json"]);
    let offline: Value = serde_json::from_slice(&offline.stdout).expect("JSON");
    assert_eq!(offline["reason"], "deny-rule");

    // A reload of a broken file keeps the old policy.
    let text = std::fs::read_to_string(&good).expect("read");
    std::fs::write(&good, format!("{text}\n[nonsense]\n")).expect("written");
    assert_eq!(code(&daemon.run(&["reload"])), 3);
    assert_eq!(daemon.ask("a.dump.example", 1).0, 3, "the old rule still holds");
    std::fs::write(&good, text.replace("names = [\"dump.example\"]", "names = [\"other.example\"]")).expect("written");
    assert_eq!(code(&daemon.run(&["reload"])), 0);
    assert_eq!(daemon.ask("a.dump.example", 1).0, 0, "the new one is in force");
    assert_eq!(daemon.ask("a.other.example", 1).0, 3);
}

#[test]
fn tcp_takes_the_same_walk() {
    use std::io::{Read, Write};
    let daemon = Daemon::start(ENFORCE);
    let mut stream = TcpStream::connect(daemon.address).expect("connected");
    stream.set_read_timeout(Some(Duration::from_secs(5))).expect("time limit");
    for (name, rcode) in [("www.site.example", 0), ("a.dump.example", 3)] {
        let mut query = vec![7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            query.push(label.len() as u8);
            query.extend_from_slice(label.as_bytes());
        }
        query.extend_from_slice(&[0, 0, 1, 0, 1]);
        stream.write_all(&(query.len() as u16).to_be_bytes()).expect("sent");
        stream.write_all(&query).expect("sent");
        let mut length = [0; 2];
        stream.read_exact(&mut length).expect("a length");
        let mut reply = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut reply).expect("a reply");
        assert_eq!(reply[3] & 0xf, rcode, "{name}");
    }
    daemon.event(|e| e["transport"] == "tcp" && e["qname"] == "a.dump.example");
}

#[test]
fn local_zones_are_answered_with_authority_and_never_leave() {
    let dir = tempfile::tempdir().expect("directory");
    let zone = dir.path().join("corp.zone");
    std::fs::write(
        &zone,
        "$ORIGIN corp.test.\n@ 300 IN SOA ns hostmaster 1 3600 600 86400 60\n@ 300 IN NS ns\nns 300 IN A 10.9.9.9\n\
         wiki 300 IN A 10.9.9.10\n",
    )
    .expect("zone file");
    let daemon = Daemon::start(&format!("{ENFORCE}\n[[zone]]\nname = \"corp.test\"\nfile = \"{}\"\n", zone.display()));
    let (rcode, answers, _) = daemon.ask("wiki.corp.test", 1);
    assert_eq!((rcode, answers), (0, 1));
    assert_eq!(daemon.ask("nothing.corp.test", 1).0, 3);
    let event = daemon.event(|e| e["qname"] == "wiki.corp.test");
    assert_eq!((event["source"].as_str(), event.get("score")), (Some("zone"), None));
    let shown = daemon.json(&["session", "show", "s1"]);
    assert!(shown["pins"].as_array().expect("pins").iter().any(|p| p["address"] == "10.9.9.10"), "{shown:#}");
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
fn serve_and_release_say_what_happened() {
    let daemon = Daemon::start(ENFORCE);
    let bad = daemon.dir.path().join("bad.toml");
    std::fs::write(&bad, "version = 1\n[nonsense]\n").expect("written");
    let served = Command::new(BINARY).args(["serve", "--json", "--config"]).arg(&bad).output().expect("runs");
    assert_eq!(code(&served), 3);
    let said: Value = serde_json::from_slice(&served.stdout).expect("JSON");
    assert_eq!((said["valid"].as_bool(), said["errors"][0]["line"].as_u64()), (Some(false), Some(2)), "{said}");

    let release = |extra: &[&str]| {
        let output =
            daemon.run(&[&["session", "release", "s1", "--by", "jane", "--reason", "more room"], extra].concat());
        assert_eq!(code(&output), 0, "{output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    assert_eq!(release(&[]), "s1 was not quarantined\n");
    assert_eq!(release(&["--extend", "64"]), "s1 was not quarantined; each of its limits was raised by 64 bits\n");
    daemon.json(&["session", "quarantine", "s1", "--reason", "test"]);
    assert_eq!(release(&["--extend", "8"]), "s1 released; each of its limits was raised by 8 bits\n");
}

/// One sample of an OpenMetrics page: name, labels, value.
type Sample = (String, Vec<(String, String)>, f64);

/// Reads a page of the OpenMetrics 1.0 text format, strictly: every line is one of the four kinds there are, every
/// sample belongs to the family announced above it, no series comes twice, and the page ends with its end.
fn open_metrics(page: &str) -> Vec<Sample> {
    let is_name = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    let body = page.strip_suffix("# EOF\n").expect("the page ends with its end");
    assert!(body.is_empty() || body.ends_with('\n'), "the end stands alone");
    let mut samples: Vec<Sample> = Vec::new();
    let mut family: Option<(String, String)> = None;
    let mut families = std::collections::HashSet::new();
    for line in body.lines() {
        assert!(line.bytes().all(|b| (0x20..0x7f).contains(&b)), "control or other octets in {line:?}");
        if let Some(meta) = line.strip_prefix("# ") {
            let mut words = meta.splitn(3, ' ');
            let (word, name) = (words.next().expect("a word"), words.next().expect("a name"));
            assert!(is_name(name), "{line}");
            match (word, words.next()) {
                ("HELP", Some(_)) => assert!(families.insert(name.to_owned()), "{name} comes twice"),
                ("TYPE", Some(kind @ ("counter" | "gauge" | "histogram"))) => {
                    assert!(families.contains(name), "help goes first: {line}");
                    family = Some((name.to_owned(), kind.to_owned()));
                }
                ("UNIT", Some(unit)) => assert!(name.ends_with(unit), "{line}"),
                _ => panic!("not a line of the format: {line}"),
            }
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line}"));
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("not a number: {line}"));
        assert!(value.is_finite() && value >= 0.0, "{line}");
        let (name, labels) = match series.split_once('{') {
            Some((name, rest)) => (name, rest.strip_suffix('}').unwrap_or_else(|| panic!("open braces: {line}"))),
            None => (series, ""),
        };
        assert!(is_name(name), "{line}");
        let (base, kind) = family.as_ref().unwrap_or_else(|| panic!("no family: {line}"));
        let suffix = name.strip_prefix(base.as_str()).unwrap_or_else(|| panic!("{line} is not of {base}"));
        let fits = match kind.as_str() {
            "counter" => suffix == "_total",
            "gauge" => suffix.is_empty(),
            _ => ["_bucket", "_sum", "_count"].contains(&suffix),
        };
        assert!(fits, "{line} is not of the {kind} {base}");
        let labels: Vec<(String, String)> = labels
            .split(',')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (key, value) = pair.split_once('=').unwrap_or_else(|| panic!("no label: {line}"));
                let value = value.strip_prefix('"').and_then(|v| v.strip_suffix('"'));
                let value = value.unwrap_or_else(|| panic!("no quotes: {line}"));
                // Values from closed sets need no escapes; anything else comes from outside.
                assert!(is_name(key) && !value.contains(['"', '\\']), "{line}");
                (key.to_owned(), value.to_owned())
            })
            .collect();
        assert!(!samples.iter().any(|(n, l, _)| n == name && *l == labels), "twice: {line}");
        samples.push((name.to_owned(), labels, value));
    }
    samples
}

#[test]
fn capacity_needs_no_daemon_and_follows_the_policy() {
    let run = |args: &[&str]| Command::new(BINARY).arg("capacity").args(args).output().expect("runs");
    let figures = |args: &[&str]| -> Value { serde_json::from_slice(&run(args).stdout).expect("JSON") };
    let built_in = figures(&["--json"]);
    assert_eq!(built_in["schema"], 1);
    assert_eq!(built_in["profiles"][1]["session"], "batch");
    let once = |figures: &Value| figures["profiles"][1]["once_bits"].as_f64().expect("a number");
    assert_eq!(once(&built_in), 8_192.0 + 73_728.0);

    let dir = tempfile::tempdir().expect("directory");
    let file = dir.path().join("policy.toml");
    let text = "version = 1\npack = []\n[upstream]\nservers = [\"192.0.2.53\"]\n[[rule]]\nid = \"cdn\"\naction = \"allow\"\n\
                names = [\"*.cdn.example.net\"]\nbudget_bits = 1000\nowner = \"o\"\nreason = \"r\"\nreview_by = \"2099-01-01\"\n";
    std::fs::write(&file, text).expect("written");
    let path = file.to_str().expect("UTF-8");
    assert_eq!(once(&figures(&["--policy", path, "--json"])), 8_192.0 + 1_000.0);
    let table = String::from_utf8(run(&["--policy", path]).stdout).expect("UTF-8");
    assert!(table.contains("rule cdn (") && table.contains("policy.toml:8)"), "{table}");
    let slow = figures(&["--policy", path, "--json", "--floor-seconds", "3600", "--jitter-ms", "1000"]);
    assert_eq!(slow["profiles"][1]["hourly_bits"], 0.0, "no exact name");
    // The file's own floor, unless one is given; none at all leaves an hour without a limit.
    assert_eq!(slow["assumptions"]["floor_seconds"], 3600.0);
    assert_eq!(built_in["assumptions"]["floor_seconds"], 60.0);
    let exact = text
        .replace("[upstream]", "[answer]\nfloor_seconds = 0\n[upstream]")
        .replace("\"*.cdn", "\"=x.example\", \"*.cdn");
    let floorless = dir.path().join("floorless.toml");
    std::fs::write(&floorless, exact).expect("written");
    let floorless = floorless.to_str().expect("UTF-8");
    let figures_of = figures(&["--policy", floorless, "--json"]);
    assert_eq!(figures_of["assumptions"]["floor_seconds"], 0.0);
    assert!(figures_of["profiles"][1]["hourly_bits"].is_null() && once(&figures_of) == 8_192.0 + 1_000.0);
    let words = String::from_utf8(run(&["--policy", floorless]).stdout).expect("UTF-8");
    assert!(words.contains("unbounded") && !words.contains("NaN") && !words.contains("inf"), "{words}");
    let with = figures(&["--policy", floorless, "--json", "--floor-seconds", "60"]);
    assert!(with["profiles"][1]["hourly_bits"].as_f64().is_some_and(|bits| bits > 0.0));

    std::fs::write(&file, text.replace("version = 1", "version = 9")).expect("written");
    assert_eq!(code(&run(&["--policy", path])), 3);
    assert_eq!(code(&run(&["--jitter-ms", "0"])), 2);
}

#[test]
fn the_check_of_a_metrics_page_is_strict() {
    let good = "# HELP a Some.\n# TYPE a counter\na_total{x=\"y\",z=\"w\"} 1\na_total{x=\"v\",z=\"w\"} 2.5\n# EOF\n";
    assert_eq!(open_metrics(good).len(), 2);
    for (part, instead) in [
        ("# EOF\n", ""),
        ("# EOF\n", "# EOF\nmore 1\n"),
        ("\"y\"", "\"y\n# EOF\n\""),
        ("\"y\"", "\"y\\\"\""),
        ("\"y\"", "\"\u{1b}\""),
        ("\"v\"", "\"y\""),
        ("# TYPE a counter\n", ""),
        ("# HELP a", "# SAY a"),
        ("a_total{x=\"v\"", "a{x=\"v\""),
        ("a_total{x=\"v\"", "b_total{x=\"v\""),
        (" 2.5", " two"),
        (" 2.5", " NaN"),
    ] {
        let bad = good.replacen(part, instead, 1);
        assert!(std::panic::catch_unwind(|| open_metrics(&bad)).is_err(), "taken: {bad}");
    }
}

fn metrics_page(address: SocketAddr) -> String {
    use std::io::{Read, Write};
    let mut stream = TcpStream::connect(address).expect("the metrics page");
    stream.set_read_timeout(Some(Duration::from_secs(5))).expect("time limit");
    write!(stream, "GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").expect("sent");
    let mut reply = String::new();
    stream.read_to_string(&mut reply).expect("a page in UTF-8");
    let (head, body) = reply.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let head = head.to_ascii_lowercase();
    assert!(head.contains("application/openmetrics-text; version=1.0.0") && !head.contains("chunked"), "{head}");
    body.to_owned()
}

#[test]
fn hostile_names_never_reach_the_metrics_page() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("address");
    let sinks = "[[alert]]\nname = \"marked-sink\"\nkind = \"file\"\npath = \"alerts.jsonl\"\n";
    let config = format!("{ENFORCE}{sinks}").replace("\"s1\"", "\"marked-session\"");
    let daemon = Daemon::start_with_metrics(&free.to_string(), &config);
    let long = [b'm'; 63];
    let every: Vec<u8> = (0..=255).collect();
    let mut names: Vec<Vec<&[u8]>> = vec![
        vec![b"\n# EOF\n", b"marked", b"example"],
        vec![b"x\"} 1\nstaunch_marked_total", b"example"],
        vec![b"\"quoted\\\"", b"a\\", b"marked", b"example"],
        vec![b"a.b\0c", b"\r\n\r\n", b"marked", b"example"],
        vec![b"\x1b[31m", b"{marked=\"1\"}", b"example"],
        vec![&long, &long, b"marked", b"example"],
        vec![b"\"\n", b"dump", b"example"],
        vec![b"marked"],
    ];
    names.extend(every.chunks(32).map(|octets| vec![octets, b"marked".as_slice(), b"example"]));
    for labels in &names {
        for qtype in [1, 16, 28] {
            daemon.ask_labels(labels, qtype);
        }
    }
    daemon.json(&["session", "quarantine", "marked-session", "--reason", "marked", "--by", "marked"]);

    let sum_of = |samples: &[Sample], name: &str| -> f64 {
        samples.iter().filter(|(n, ..)| n == name).map(|(.., value)| value).sum()
    };
    let queries = 3.0 * names.len() as f64;
    let until = Instant::now() + Duration::from_secs(5);
    let (page, samples) = loop {
        let page = metrics_page(free);
        let samples = open_metrics(&page);
        // The last one is counted about when its reply goes out.
        if sum_of(&samples, "staunch_verdicts_total") >= queries || Instant::now() > until {
            break (page, samples);
        }
    };
    let sum = |name: &str| sum_of(&samples, name);
    assert_eq!(sum("staunch_verdicts_total"), queries, "every query was counted: {page}");
    assert_eq!(sum("staunch_sessions"), 1.0);
    assert_eq!((sum("staunch_journal_failing"), sum("staunch_journal_lost_total")), (0.0, 0.0));
    assert!(sum("staunch_journal_lines_total") > 0.0 && sum("staunch_journal_bytes") > 0.0);
    assert_eq!((sum("staunch_alert_sinks"), sum("staunch_alert_sinks_failing")), (1.0, 0.0));
    for outside in ["marked", "example", "127.0.0", "203.0.113", "mmmm", "dump", "quoted", "jane", "team-a"] {
        assert!(!page.contains(outside), "{outside} is on the page: {page}");
    }
}
