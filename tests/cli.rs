//! The command line and the daemon together, on loopback, without privileges: every verb, its JSON and its exit code.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_staunch");

/// Answers A questions with 203.0.113.5 and everything else with an empty answer.
fn upstream() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("socket");
    let address = socket.local_addr().expect("address");
    std::thread::spawn(move || {
        let mut buffer = [0; 1500];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let packet = &buffer[..length];
            let end = 12 + packet[12..].iter().position(|b| *b == 0).expect("a name") + 5;
            let is_a = packet[end - 4..end - 2] == [0, 1];
            let mut reply = packet[..end].to_vec();
            reply[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
            if is_a {
                reply.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 44, 0, 4, 203, 0, 113, 5]);
            }
            let _ = socket.send_to(&reply, from);
        }
    });
    address
}

struct Daemon {
    child: Child,
    dir: tempfile::TempDir,
    address: SocketAddr,
}

impl Daemon {
    fn start(extra: &str) -> Self {
        let dir = tempfile::tempdir().expect("directory");
        let text = format!(
            "version = 1\n[server]\nlisten = [\"127.0.0.1:0\"]\nmetrics = \"off\"\n[upstream]\nservers = [\"{}\"]\n{extra}",
            upstream()
        );
        std::fs::write(dir.path().join("staunch.toml"), text).expect("configuration");
        let (child, address) = Self::spawn(dir.path(), Some(&dir.path().join("staunch.toml")));
        Self { child, dir, address }
    }

    fn spawn(dir: &Path, config: Option<&Path>) -> (Child, SocketAddr) {
        let mut command = Command::new(BINARY);
        command.arg("serve").arg("--state-dir").arg(dir.join("state")).env("NO_COLOR", "1");
        if let Some(config) = config {
            command.arg("--config").arg(config);
        }
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the daemon starts");
        let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        let mut said = String::new();
        let address = loop {
            let Some(Ok(line)) = lines.next() else { panic!("not ready:\n{said}") };
            said += &line;
            said += "\n";
            if let Some(rest) = line.split("ready addresses=\"").nth(1) {
                break rest.split(['"', ',']).next().expect("an address").parse().expect("an address");
            }
        };
        std::thread::spawn(move || lines.for_each(drop));
        (child, address)
    }

    fn restart(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("ended");
        let config = self.dir.path().join("staunch.toml");
        (self.child, self.address) = Self::spawn(self.dir.path(), Some(&config));
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("state/admin.sock")
    }

    fn run(&self, args: &[&str]) -> Output {
        run(&self.socket(), args)
    }

    fn json(&self, args: &[&str]) -> Value {
        let output = self.run(&[args, &["--json"]].concat());
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{args:?}: {e}: {output:?}"))
    }

    /// Response code, the answers' count, and the whole reply as text for searching.
    fn ask(&self, name: &str, qtype: u8) -> (u8, u16, String) {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("socket");
        socket.set_read_timeout(Some(Duration::from_secs(5))).expect("time limit");
        let mut query = vec![7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
        for label in name.split('.') {
            query.push(label.len() as u8);
            query.extend_from_slice(label.as_bytes());
        }
        query.extend_from_slice(&[0, 0, qtype, 0, 1, 0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
        socket.send_to(&query, self.address).expect("sent");
        let mut buffer = [0; 4096];
        let length = socket.recv(&mut buffer).expect("a reply");
        let reply = &buffer[..length];
        (reply[3] & 0xf, u16::from_be_bytes([reply[6], reply[7]]), String::from_utf8_lossy(reply).into_owned())
    }

    /// The newest event that `wanted` accepts.
    fn event(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let until = Instant::now() + Duration::from_secs(5);
        loop {
            let output = self.run(&["observe", "--last", "200", "--json"]);
            let events = String::from_utf8(output.stdout).expect("UTF-8");
            let found = events.lines().filter_map(|line| serde_json::from_str(line).ok()).filter(&wanted).last();
            match found {
                Some(event) => return event,
                None if Instant::now() > until => panic!("no such event in {events}"),
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run(socket: &Path, args: &[&str]) -> Output {
    Command::new(BINARY).arg("--socket").arg(socket).args(args).output().expect("runs")
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("an exit code")
}

/// A piece of a secret as a tunnel would write it: 24 characters of base 32.
fn chunk(n: u64) -> String {
    let mut state = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let letter = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b"abcdefghijklmnopqrstuvwxyz234567"[(state >> 59) as usize])
    };
    (0..24).map(letter).collect()
}

const ENFORCE: &str = r#"
[policy]
mode = "enforce"
[enforce]
backend = "dry-run"
[sinkhole]
contact = "security@example.com"
[[session]]
id = "s1"
addresses = ["127.0.0.1"]
type = "interactive"
owner = "team-a"
[[rule]]
id = "no-dumps"
action = "deny"
names = ["dump.example"]
owner = "sec"
reason = "dumps"
review_by = "2099-01-01"
"#;

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

#[test]
fn explain_is_the_live_path_bit_for_bit() {
    let daemon = Daemon::start(ENFORCE);
    for i in 0..20 {
        let name = format!("{}.evil.example", chunk(i));
        let before = daemon.json(&["explain", &name, "--session", "s1"]);
        daemon.ask(&name, 1);
        let event = daemon.event(|e| e["qname"] == *name);
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
    std::fs::write(&bad, "version = 1\n[policy]\nmode = \"enforce\"\n[enforce]\nbackend = \"off\"\n").expect("written");
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
