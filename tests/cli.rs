//! The command line and the daemon together, on loopback, without privileges: every verb, its JSON and its exit code.

#[path = "cli/alerts.rs"]
mod alerts;
#[path = "cli/cases.rs"]
mod cases;
mod daemon;
#[path = "cli/lists.rs"]
mod lists;
#[path = "cli/log.rs"]
mod log;
#[path = "cli/metrics.rs"]
mod metrics;
#[path = "cli/observers.rs"]
mod observers;
#[path = "cli/operators.rs"]
mod operators;

use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use daemon::{BINARY, Daemon, ENFORCE, chunk, code, run};
use serde_json::{Value, json};

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
    assert_eq!((closed["already"].is_null(), again["already"]["by"].as_str()), (true, Some("jane")), "{again}");
    let words = daemon.run(&["session", "quarantine", "s1", "--reason", "test again"]);
    let words = String::from_utf8_lossy(&words.stdout).into_owned();
    assert!(words.contains("closed already") && words.contains("by jane: test (case"), "{words}");
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
    let local = daemon.json(&["explain", "printer.local", "--session", "s1"]);
    assert_eq!((&local["local"]["rcode"], &local["local"]["rule"]), (&json!(3), &json!("RFC 6762 multicast DNS")));
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

#[test]
fn a_reload_names_what_is_in_force_as_a_word() {
    let daemon = Daemon::start(ENFORCE);
    let output = daemon.run(&["reload"]);
    let digest = daemon.json(&["status"])["digest"].as_str().expect("a digest").to_owned();
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("configuration {digest} in force\n"));
}

#[test]
fn an_allowance_for_no_time_at_all_is_told_the_range() {
    let words = ["allow", "=a.example", "--reason", "r", "--owner", "o", "--for", "0s"];
    let output = Command::new(BINARY).args(words).output().expect("runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(code(&output) == 2 && said.contains("an allowance lasts from 1s to 7d"), "{said}");
}

#[test]
fn lists_without_a_line_to_pass_over_are_json_too() {
    let dir = tempfile::tempdir().expect("directory");
    let path = |name: &str| dir.path().join(name).to_str().expect("UTF-8").to_owned();
    std::fs::write(path("own.txt"), "bad.example\nworse.example\n").expect("written");
    let text = "version = 1\n[[list]]\nid = \"own\"\npath = \"own.txt\"\nformat = \"domains\"\n";
    std::fs::write(path("staunch.toml"), text).expect("written");
    let skipped = || {
        let words = ["--json", "lists", "skipped", &path("staunch.toml")];
        let output = Command::new(BINARY).args(words).output().expect("runs");
        assert_eq!(code(&output), 0, "{output:?}");
        let lines = String::from_utf8(output.stdout).expect("UTF-8");
        lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect::<Vec<Value>>()
    };
    assert_eq!(skipped(), [serde_json::json!({ "schema": 1, "lines": [] })]);
    std::fs::write(path("own.txt"), "bad.example\n||worse.example^\na.example\nb.example\nc.example\n")
        .expect("written");
    let lines = skipped();
    assert_eq!(
        (lines.len(), lines[0]["schema"].as_u64(), lines[0]["line"].as_u64()),
        (1, Some(1), Some(2)),
        "{lines:?}"
    );
}

#[test]
fn a_check_warns_of_credentials_that_only_the_unit_has() {
    let dir = tempfile::tempdir().expect("directory");
    let file = dir.path().join("staunch.toml");
    let text = "version = 1\n[upstream]\nservers = [\"192.0.2.53\"]\n[[alert]]\nname = \"soc\"\nkind = \"webhook\"\n\
                url = \"https://soc.example/\"\nsecret_file = \"/run/credentials/no-such-unit.service/hmac.key\"\n";
    std::fs::write(&file, text).expect("written");
    let check = |strict: &[&str]| {
        let output = Command::new(BINARY).arg("check").arg(&file).args(strict).output().expect("runs");
        (code(&output), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (exit, said) = check(&[]);
    assert!(exit == 0 && said.contains(":8: alert[0].secret_file: ") && said.contains("LoadCredential="), "{said}");
    assert_eq!(check(&["--strict"]).0, 3);
    let served = Command::new(BINARY).args(["serve", "--config"]).arg(&file).output().expect("runs");
    assert_eq!(code(&served), 3, "whoever runs by it needs them");
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
fn what_is_not_told_is_a_failure_unless_the_reader_went_away() {
    let verb = |out: std::os::fd::OwnedFd| {
        let mut command = Command::new(BINARY);
        command.args(["capacity", "--json"]).stdout(out).output().expect("it runs")
    };
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("opens");
    let untold = verb(full.into());
    assert_eq!(code(&untold), 1, "{untold:?}");
    assert!(String::from_utf8_lossy(&untold.stderr).contains("could not be written: No space left"), "{untold:?}");
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("a pair");
    drop(ours);
    let left = verb(theirs.into());
    assert_eq!((code(&left), left.stderr.len()), (0, 0), "{left:?}");
}
