//! The packet filter in the hands of a command: what it is told, and what becomes of answers when it fails.
//!
//! The command is a real one, in Python with nothing but its standard library; the resolver is the real service on loopback.

mod daemon;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use daemon::{BINARY, Daemon, ENFORCE};
use serde_json::Value;

const SERVFAIL: u8 = 2;

/// Keeps what it holds, writes down what it reads, and does as the file `mode` says.
const SCRIPT: &str = r#"
import json, os, sys, time, subprocess

place = sys.argv[1]
log = open(os.path.join(place, "log"), "a")
held = {}

def mode():
    try:
        return open(os.path.join(place, "mode")).read().strip()
    except FileNotFoundError:
        return ""

def order(command):
    session = held.setdefault(command["session"], {"leases": set(), "quarantined": False})
    kind = command["order"]
    if kind == "pin":
        if session["quarantined"]:
            return {"fault": "quarantined", "session": command["session"]}
        if mode() == "full":
            return {"fault": "full", "limit": 1, "message": "no room"}
        session["leases"].update(command["destinations"])
    elif kind == "unpin":
        session["leases"].difference_update(command["destinations"])
    elif kind == "quarantine":
        session.update(leases=set(), quarantined=True)
    elif kind == "release":
        session["quarantined"] = False
    elif kind == "remove":
        del held[command["session"]]
    return None

log.write(json.dumps({"start": os.getpid()}) + "\n")
log.flush()
for line in sys.stdin:
    log.write(line)
    log.flush()
    request = json.loads(line)
    op = request["op"]
    if mode() == "hang" and op != "hello":
        time.sleep(60)
    while mode() == "gate" and op == "apply":
        time.sleep(0.01)
    if mode() == "die":
        left = subprocess.Popen(["sleep", "300"])
        log.write(json.dumps({"left": left.pid}) + "\n")
        log.flush()
        sys.exit(3)
    if mode() == "garbage" and op == "apply":
        print("certainly", flush=True)
        continue
    if op == "hello":
        reply = {"reply": "welcome", "version": 2}
    elif op == "apply":
        reply = {"reply": "results", "results": [order(command) for command in request["commands"]]}
    elif op == "hold":
        held.clear()
        for one in request["held"]:
            held[one["session"]] = {
                "leases": {lease["to"] for lease in one.get("leases", [])},
                "quarantined": one.get("quarantined", False),
            }
        reply = {"reply": "done"}
    elif op == "ranges":
        reply = {"reply": "done"}
    elif op == "health":
        reply = {"reply": "health"}
        if mode() == "sick":
            reply["fault"] = {"fault": "unhealthy", "message": "the firewall is on fire"}
    else:
        reply = {"reply": "refused", "why": "what is " + op}
    print(json.dumps(reply), flush=True)
"#;

struct Hook {
    daemon: Daemon,
    place: PathBuf,
    _dir: tempfile::TempDir,
}

fn python() -> String {
    let output = std::process::Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output();
    let output = output.expect("python3 runs; scripts/setup.sh installs it");
    String::from_utf8(output.stdout).expect("a path").trim().to_owned()
}

fn settings(place: &Path, more: &str) -> String {
    let script = place.join("hook.py");
    std::fs::write(&script, SCRIPT).expect("the script written");
    // An answer waits for a script as long as a busy machine may need for it.
    let deadline = if more.starts_with("deadline_ms") { "" } else { "deadline_ms = 2000\n" };
    let hook = format!("backend = \"hook\"\nhook = [{:?}, {script:?}, {place:?}]\n{deadline}{more}", python());
    ENFORCE.replace("backend = \"dry-run\"", &hook)
        + "\n[[rule]]\nid = \"all\"\naction = \"allow\"\nnames = [\"*.site.example\"]\nbudget_bits = 8388607\nowner = \"o\"\n\
           reason = \"r\"\nreview_by = \"2099-01-01\"\n"
}

impl Hook {
    fn start(more: &str) -> Self {
        let dir = tempfile::tempdir().expect("directory");
        let place = dir.path().to_owned();
        Self { daemon: Daemon::start(&settings(&place, more)), place, _dir: dir }
    }

    fn mode(&self, mode: &str) {
        std::fs::write(self.place.join("mode"), mode).expect("written");
    }

    /// What it has read so far.
    fn log(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.place.join("log")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    fn starts(&self) -> Vec<i64> {
        self.log().iter().filter_map(|line| line["start"].as_i64()).collect()
    }

    fn answered(&self, name: &str) -> bool {
        let (code, count, _) = self.daemon.ask(name, 1);
        assert!(code == 0 || code == SERVFAIL, "{name}: {code}");
        code == 0 && count == 1
    }

    fn until(&self, what: &str, mut wanted: impl FnMut(&Self) -> bool) -> Duration {
        let begun = Instant::now();
        while !wanted(self) {
            assert!(begun.elapsed() < Duration::from_secs(30), "never {what}: {:#?}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        begun.elapsed()
    }
}

fn orders<'a>(log: &'a [Value], kind: &str) -> Vec<&'a Value> {
    let all = log.iter().filter_map(|line| line["commands"].as_array()).flatten();
    all.filter(|command| command["order"] == kind).collect()
}

#[test]
fn a_hook_is_told_everything_before_the_answer_is_released() {
    let hook = Hook::start("");
    assert!(hook.answered("www.site.example"));
    let log = hook.log();
    assert_eq!((log[1]["op"].as_str(), log[1]["version"].as_u64()), (Some("hello"), Some(2)));
    assert_eq!(log[1]["table"], "staunch");
    let told = log.iter().find(|line| line["op"] == "hold").expect("what is wanted at start");
    assert_eq!(told["held"][0]["session"], "127.0.0.1");
    assert!(told["held"][0]["guard"].is_number(), "{told}");
    let pins = orders(&log, "pin");
    assert_eq!(pins.len(), 1, "{log:#?}");
    assert_eq!(
        (pins[0]["session"].as_str(), pins[0]["destinations"][0].as_str()),
        (Some("127.0.0.1"), Some("203.0.113.5"))
    );
    assert!(
        pins[0]["lifetime_ms"].as_u64() >= Some(60_000) && pins[0]["ports"].as_array().is_some_and(|p| p.len() == 3)
    );
    // It is one process all the time.
    assert!(hook.answered("www2.site.example"));
    hook.until("asked for its health", |hook| hook.log().iter().any(|line| line["op"] == "health"));
    assert_eq!(hook.starts().len(), 1);

    hook.daemon.run(&["session", "quarantine", "s1", "--reason", "a test"]);
    hook.until("told of the quarantine", |hook| orders(&hook.log(), "quarantine").len() == 1);
    hook.daemon.run(&["session", "release", "s1", "--by", "tester", "--reason", "a test"]);
    hook.until("told of the release", |hook| orders(&hook.log(), "release").len() == 1);
    assert!(hook.answered("www3.site.example"));
}

#[test]
fn a_hook_that_fails_is_a_denial_and_the_next_one_is_told_all_that_is_wanted() {
    let hook = Hook::start("hook_deadline_ms = 1000");
    assert!(hook.answered("www.site.example"));
    for (mode, round) in [("die", 1), ("hang", 2), ("garbage", 3)] {
        hook.mode(mode);
        hook.until("denied", |hook| !hook.answered(&format!("{mode}.site.example")));
        let denied = Instant::now();
        while denied.elapsed() < Duration::from_millis(700) {
            assert!(!hook.answered(&format!("{mode}2.site.example")), "answered without a hook that holds it ({mode})");
            std::thread::sleep(Duration::from_millis(30));
        }
        if mode == "hang" {
            // Closed while nobody hears of it.
            hook.daemon.run(&["session", "quarantine", "s1", "--reason", "a test"]);
            hook.daemon.run(&["session", "release", "s1", "--by", "tester", "--reason", "a test"]);
        }
        let before = hook.log().len();
        hook.mode("");
        let back = hook.until("back", |hook| hook.answered(&format!("back{round}.site.example")));
        println!("FIGURE: answered {:.0} ms after the hook was well again ({mode})", back.as_secs_f32() * 1000.0);
        let log = hook.log();
        let since = &log[before..];
        let start = since.iter().rposition(|line| line["start"].is_number()).unwrap_or(0);
        let ops: Vec<&str> = since[start..].iter().filter_map(|line| line["op"].as_str()).collect();
        let hold = ops.iter().position(|op| *op == "hold").unwrap_or_else(|| panic!("{mode}: not told all: {ops:?}"));
        let first_pin = since[start..]
            .iter()
            .filter(|line| line["op"].is_string())
            .position(|line| line["commands"].to_string().contains("\"pin\""))
            .expect("a pin at last");
        assert!(ops[0] == "hello" && hold < first_pin, "{ops:?}");
        if mode == "hang" {
            assert_eq!(orders(since, "quarantine").len(), 1, "{since:#?}");
            assert_eq!(orders(since, "release").len(), 1);
        } else {
            let held = since[start..].iter().find(|line| line["op"] == "hold").expect("it")["held"].to_string();
            assert!(held.contains("203.0.113.5"), "the lease is told: {held}");
        }
    }
    let starts = hook.starts();
    assert!((4..20).contains(&starts.len()), "started {} times", starts.len());
    for old in &starts[..starts.len() - 1] {
        assert!(!Path::new(&format!("/proc/{old}")).exists(), "process {old} is left behind");
    }
    let log = hook.log();
    let left: Vec<_> = log.iter().filter_map(|line| line["left"].as_u64()).collect();
    assert!(!left.is_empty());
    for left in left {
        let runs = std::fs::read_to_string(format!("/proc/{left}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
        assert!(!runs, "process {left}, which a hook that ended had started, is left behind");
    }
}

#[test]
fn a_hook_says_no_and_says_that_it_is_sick() {
    let hook = Hook::start("");
    hook.mode("full");
    assert!(!hook.answered("full.site.example"));
    hook.mode("");
    assert!(hook.answered("room.site.example"), "one refusal is no illness");
    hook.mode("sick");
    hook.until("denied", |hook| !hook.answered("sick.site.example"));
    let denied = Instant::now();
    while denied.elapsed() < Duration::from_millis(1500) {
        assert!(!hook.answered("sick2.site.example"), "it has not said that it is well");
        std::thread::sleep(Duration::from_millis(20));
    }
    let status = hook.daemon.json(&["status"]).to_string();
    assert!(status.contains("on fire"), "{status}");
    hook.mode("");
    hook.until("well again", |hook| hook.answered("well.site.example"));
    assert_eq!(hook.starts().len(), 1, "a hook that says so need not be started anew");
}

#[test]
fn a_name_that_is_denied_while_its_pin_is_under_way_is_refused_and_closed() {
    let hook = Hook::start("deadline_ms = 5000\nhook_deadline_ms = 60000\n");
    let pins = |hook: &Hook| {
        let shown = hook.daemon.json(&["session", "show", "s1"]);
        shown["session"]["pins"].as_array().or(shown["pins"].as_array()).map(Vec::len)
    };
    assert!(hook.answered("kept.site.example"));
    hook.mode("gate");
    let config = hook.daemon.dir.path().join("staunch.toml");
    let text = std::fs::read_to_string(&config).expect("read");
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| hook.daemon.ask("www.site.example", 1));
        hook.until("ordered", |hook| orders(&hook.log(), "pin").len() == 2);
        assert_eq!(pins(&hook), Some(1), "the same address, by two names");
        let deny = "\n[[rule]]\nid = \"no\"\naction = \"deny\"\nnames = [\"www.site.example\"]\nowner = \"o\"\nreason = \"r\"\n\
                    review_by = \"2099-01-01\"\n";
        std::fs::write(&config, text + deny).expect("written");
        let digest = hook.daemon.json(&["status"])["digest"].clone();
        let reload = scope.spawn(|| hook.daemon.run(&["reload"]));
        hook.until("in force", |hook| hook.daemon.json(&["status"])["digest"] != digest);
        hook.until("judged", |hook| !hook.daemon.json(&["session", "show", "s1"]).to_string().contains("www.site"));
        hook.mode("");
        let (code, count, reply) = asked.join().expect("asked");
        assert_eq!((code, count), (3, 0), "{reply}");
        assert!(reload.join().expect("reloaded").status.success());
    });
    assert!(hook.answered("kept.site.example"));
}

#[test]
fn what_an_unannounced_source_has_open_ends_when_it_is_announced() {
    let dir = tempfile::tempdir().expect("directory");
    let text = settings(dir.path(), "").replace("\"enforce\"\n", "\"enforce\"\nunknown_source = \"profile\"\n");
    let hook = Hook { daemon: Daemon::start(&text), place: dir.path().to_owned(), _dir: dir };
    hook.daemon.run(&["session", "end", "s1"]);
    assert!(hook.answered("www.site.example"), "a source nobody announced");
    assert_eq!(orders(&hook.log(), "pin").len(), 1);
    let removed = orders(&hook.log(), "remove").len();
    hook.daemon.run(&["session", "announce", "s2", "--address", "127.0.0.1", "--type", "batch"]);
    hook.until("told that it is gone", |hook| orders(&hook.log(), "remove").len() == removed + 1);
    let log = hook.log();
    let told: Vec<&str> = log
        .iter()
        .filter_map(|line| line["commands"].as_array())
        .flatten()
        .filter_map(|command| command["order"].as_str())
        .collect();
    let last = |order: &str| told.iter().rposition(|told| *told == order);
    assert!(last("guard") > last("remove"), "{told:?}");
    assert!(
        hook.answered("www.site.example") && orders(&hook.log(), "pin").len() == 2,
        "opened anew, as the new one's"
    );
}

#[test]
fn an_address_that_may_not_be_had_any_more_is_closed_by_the_reload() {
    let allow = "[[answer.allow_range]]\nname = \"*.site.example\"\nranges = [\"10.0.0.0/8\"]\nowner = \"o\"\n\
                 reason = \"r\"\nreview_by = \"2099-01-01\"\n";
    let dir = tempfile::tempdir().expect("directory");
    let daemon = Daemon::start(&(settings(dir.path(), "") + allow));
    let hook = Hook { daemon, place: dir.path().to_owned(), _dir: dir };
    assert!(hook.answered("inside.site.example") && hook.answered("www.site.example"));
    let config = hook.daemon.dir.path().join("staunch.toml");
    let text = std::fs::read_to_string(&config).expect("read");
    std::fs::write(&config, text.replace(allow, "")).expect("written");
    assert!(hook.daemon.run(&["reload"]).status.success());
    let shown = hook.daemon.json(&["session", "show", "s1"]).to_string();
    assert!(shown.contains("203.0.113.5") && !shown.contains("10.0.0.1"), "{shown}");
    hook.until("told to close it", |hook| {
        let log = hook.log();
        orders(&log, "renew").last().is_some_and(|renew| {
            let kept = renew["keep"].to_string();
            kept.contains("203.0.113.5") && !kept.contains("10.0.0.1")
        })
    });
}

#[test]
fn a_hook_that_is_not_there_stops_the_start_and_one_ends_with_the_service() {
    let dir = tempfile::tempdir().expect("directory");
    let text = format!(
        "version = 1\n[server]\nlisten = [\"127.0.0.1:0\"]\nmetrics = \"off\"\n[upstream]\nservers = [\"127.0.0.1:9\"]\n\
         [policy]\nmode = \"enforce\"\n[enforce]\nbackend = \"hook\"\nhook = [{:?}]\n",
        dir.path().join("none")
    );
    let file = dir.path().join("staunch.toml");
    std::fs::write(&file, text).expect("written");
    let output = std::process::Command::new(BINARY)
        .args(["serve", "--config"])
        .arg(&file)
        .arg("--state-dir")
        .arg(dir.path().join("state"))
        .output()
        .expect("runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("hook") && said.contains("No such file"), "{said}");

    let mut hook = Hook::start("");
    assert!(hook.answered("www.site.example"));
    let pid = hook.starts()[0];
    // As a power cut would: the pipe is closed, and nobody is left to end it.
    hook.daemon.child.kill().expect("killed");
    hook.daemon.child.wait().expect("ended");
    hook.until("ended", |_| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z ")
    });
}

#[test]
fn what_an_operator_orders_of_a_packet_filter_that_hangs_is_said_to_be_behind() {
    let hook = Hook::start("");
    let json = |words: &[&str]| {
        let output = hook.daemon.run(&[words, &["--json"]].concat());
        let told: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        (daemon::code(&output), told["packet_filter"].as_str() == Some("behind"), output)
    };
    let allow = |ports: &str| {
        json(&[
            "allow",
            "=a.dump.example",
            "--for",
            "5m",
            "--reason",
            "look",
            "--owner",
            "jane",
            "--session",
            "s1",
            "--ports",
            ports,
        ])
    };
    let (exit, behind, _) = allow("tcp/443,tcp/22");
    assert!(exit == 0 && !behind);
    assert!(hook.answered("a.dump.example"));
    hook.mode("gate");
    let (exit, behind, narrowed) = allow("tcp/443");
    assert!(exit == 14 && behind, "tcp/22 may be open yet: {narrowed:?}");
    hook.mode("");
    hook.until("in step", |hook| hook.answered("a.dump.example"));
    let grants = hook.daemon.json(&["grant", "list"]);
    let id = grants["grants"][0]["id"].as_str().expect("an id").to_owned();
    hook.mode("gate");
    let (exit, behind, withdrawn) = json(&["grant", "withdraw", &id, "--reason", "done"]);
    assert!(exit == 14 && behind, "what it has opened may be open yet: {withdrawn:?}");
    assert!(String::from_utf8_lossy(&withdrawn.stderr).contains("does not hold this yet"), "{withdrawn:?}");
    hook.mode("");
    hook.until("in step", |hook| hook.answered("www.site.example"));
    assert_eq!(hook.daemon.ask("a.dump.example", 1).0, 3, "the control: it was withdrawn");
    let (exit, behind, _) = json(&["session", "quarantine", "s1", "--reason", "test"]);
    assert!(exit == 0 && !behind, "the control: in step");
    hook.mode("gate");
    let (exit, behind, released) = json(&["session", "release", "s1", "--by", "jane", "--reason", "reviewed"]);
    assert!(exit == 14 && behind, "it may be closed yet: {released:?}");
    hook.mode("");
    hook.until("open", |hook| hook.answered("www.site.example"));
}

#[test]
fn a_hook_that_fails_again_and_again_is_one_alert() {
    let hook = Hook::start("[[alert]]\nname = \"own\"\nkind = \"file\"\npath = \"alerts.jsonl\"");
    assert!(hook.answered("www.site.example"), "the control");
    hook.mode("garbage");
    let mut names = 0;
    // With every address that is to be pinned, as often as somebody asks for one.
    hook.until("started anew five times", |hook| {
        names += 1;
        assert!(!hook.answered(&format!("n{names}.site.example")));
        hook.starts().len() > 5
    });
    let alerts = || std::fs::read_to_string(hook.daemon.dir.path().join("state/alerts.jsonl")).unwrap_or_default();
    let told = || alerts().lines().filter(|line| line.contains("what was ordered")).count();
    hook.until("it is told", |_| told() > 0);
    // What would have been told since is written by then.
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(told(), 1, "{}", alerts());
}
