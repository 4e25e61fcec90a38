//! Learned thresholds through the daemon: monitor traffic, too small a sample, enough of it, restarts, a reset.

mod daemon;

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use daemon::{BINARY, Daemon, chunk, code};
use serde_json::Value;

const MONITOR: &str = r#"
[policy]
mode = "monitor"
unknown_source = "profile"
[enforce]
backend = "dry-run"
[learn]
min_sessions = 3
min_pairs = 20
thresholds = "learned"
[[session]]
id = "job-1"
addresses = ["127.0.0.11"]
type = "batch"
phase = "build"
"#;

/// Asks for a name from an address of the loopback network; whether it was answered.
fn ask(daemon: &Daemon, from: &str, name: &str) -> bool {
    let socket = UdpSocket::bind(SocketAddr::new(from.parse::<IpAddr>().expect("address"), 0)).expect("socket");
    socket.set_read_timeout(Some(Duration::from_secs(20))).expect("time limit");
    let mut query = vec![7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(label.len() as u8);
        query.extend_from_slice(label.as_bytes());
    }
    query.extend_from_slice(&[0, 0, 1, 0, 1]);
    socket.send_to(&query, daemon.address).expect("sent");
    let mut buffer = [0; 1500];
    socket.recv(&mut buffer).expect("a reply");
    buffer[3] & 0xf == 0
}

fn config(daemon: &Daemon) -> String {
    std::fs::read_to_string(daemon.dir.path().join("staunch.toml")).expect("read")
}

fn write(daemon: &Daemon, text: &str) {
    std::fs::write(daemon.dir.path().join("staunch.toml"), text).expect("written");
}

fn enforce(daemon: &Daemon) {
    write(daemon, &config(daemon).replace("mode = \"monitor\"", "mode = \"enforce\""));
}

fn profile<'v>(all: &'v Value, name: &str) -> &'v Value {
    all.as_array().expect("profiles").iter().find(|p| p["profile"] == name).expect("the profile")
}

/// An orderly stop: what was learned is on disk.
fn stop(daemon: &mut Daemon) {
    let pid = daemon.child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("runs").success());
    daemon.child.wait().expect("ended");
}

fn start(daemon: &mut Daemon) {
    let file = daemon.dir.path().join("staunch.toml");
    (daemon.child, daemon.address) = Daemon::spawn(daemon.dir.path(), Some(&file));
}

/// A session that asks for ten ordinary domains.
fn ordinary(daemon: &Daemon, id: &str, address: &str) {
    daemon.json(&["session", "announce", id, "--address", address, "--type", "batch", "--phase", "build"]);
    for n in 0..10 {
        assert!(ask(daemon, address, &format!("www.site{n}.example")));
    }
}

#[test]
fn too_small_a_sample_is_refused_and_a_large_enough_one_is_enforced() {
    let mut daemon = Daemon::start(MONITOR);
    for n in 0..5 {
        assert!(ask(&daemon, "127.0.0.11", &format!("www.site{n}.example")));
        assert!(ask(&daemon, "127.0.0.11", &format!("www.site{n}.example")), "a second time adds no pair");
    }
    let shown = daemon.json(&["learn", "show"]);
    let build = profile(&shown["profiles"], "batch.build");
    assert_eq!((build["sessions"].as_u64(), build["pairs"].as_u64()), (Some(1), Some(5)), "{shown:#}");
    assert!(build["since"].as_str().is_some_and(|since| since.starts_with("20")), "{build}");
    assert_eq!(build["next"]["from"], "shipped");

    enforce(&daemon);
    let output = daemon.run(&["reload"]);
    assert_eq!(code(&output), 3, "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let line = 1 + config(&daemon).lines().position(|line| line.starts_with("thresholds")).expect("written");
    for part in [
        &format!("staunch.toml:{line}: learn.thresholds: type `batch` has been seen in 1 sessions and 5 pairs"),
        "3 sessions and 20 pairs",
        "leave batch out of learn.types",
        "thresholds = \"off\"",
    ] {
        assert!(said.contains(part), "{part} not in {said}");
    }
    assert_eq!(daemon.json(&["status"])["mode"], "monitor", "nothing was put in force");
    // Nor does it start that way.
    stop(&mut daemon);
    let (status, stderr) = serve(&daemon);
    assert_eq!(status, 3, "{stderr}");
    assert!(stderr.contains("type `batch` has been seen in 1 sessions and 5 pairs"), "{stderr}");

    // On in monitor mode: what was learned before is still there.
    write(&daemon, &config(&daemon).replace("mode = \"enforce\"", "mode = \"monitor\""));
    start(&mut daemon);
    ordinary(&daemon, "job-2", "127.0.0.12");
    ordinary(&daemon, "job-3", "127.0.0.13");
    let shown = daemon.json(&["learn", "show"]);
    let build = profile(&shown["profiles"], "batch.build");
    assert_eq!((build["sessions"].as_u64(), build["pairs"].as_u64()), (Some(3), Some(25)), "{shown:#}");
    // A tunnel in monitor mode: would be closed, so it teaches nothing.
    daemon.json(&["session", "announce", "job-4", "--address", "127.0.0.14", "--type", "batch", "--phase", "build"]);
    for n in 0..40 {
        ask(&daemon, "127.0.0.14", &format!("{}.evil{}.example", chunk(n), n % 2));
    }
    let shown = daemon.json(&["learn", "show"]);
    let build = profile(&shown["profiles"], "batch.build");
    assert_eq!((build["sessions"].as_u64(), build["pairs"].as_u64()), (Some(3), Some(25)), "{shown:#}");
    assert_eq!(build["left_out"]["sessions"], 1);

    enforce(&daemon);
    assert_eq!(code(&daemon.run(&["reload"])), 0);
    let in_force = |daemon: &Daemon| {
        let status = daemon.json(&["status"]);
        assert_eq!(status["mode"], "enforce");
        let batch = profile(&status["thresholds"]["profiles"], "batch.build").clone();
        let other = profile(&status["thresholds"]["profiles"], "interactive").clone();
        (batch["from"].as_str().expect("origin").to_owned(), batch["sinkhole"].as_f64(), other)
    };
    let (from, sinkhole, other) = in_force(&daemon);
    assert_eq!((from.as_str(), sinkhole), ("learned", Some(4.0)), "25 pairs move nothing");
    assert_eq!(other["from"], "shipped");
    assert!(other["why"].as_str().expect("words").contains("no traffic of this type"), "{other}");
    let words = daemon.run(&["status"]);
    assert!(String::from_utf8_lossy(&words.stdout).contains("no traffic of this type"), "{words:?}");
    // Enforced sessions teach nothing.
    ordinary(&daemon, "job-5", "127.0.0.15");
    let shown = daemon.json(&["learn", "show"]);
    assert_eq!(profile(&shown["profiles"], "batch.build")["sessions"], 3, "{shown:#}");
    let words = String::from_utf8_lossy(&daemon.run(&["learn", "show"]).stdout).into_owned();
    assert!(words.contains("batch.build: 3 sessions, 25 pairs"), "{words}");

    // A restart keeps it; so does the loss of the index, by the journal.
    stop(&mut daemon);
    start(&mut daemon);
    assert_eq!(in_force(&daemon).0, "learned");
    stop(&mut daemon);
    std::fs::remove_dir_all(daemon.dir.path().join("state/index")).expect("the index is removed");
    start(&mut daemon);
    let (from, sinkhole, _) = in_force(&daemon);
    assert_eq!((from.as_str(), sinkhole), ("kept", Some(4.0)));

    assert_eq!(code(&daemon.run(&["learn", "reset", "--reason", "new image", "--by", "jane"])), 0);
    assert_eq!(code(&daemon.run(&["reload"])), 0);
    assert_eq!(in_force(&daemon).0, "shipped", "nothing is left that was learned");
    daemon.restart();
    assert_eq!(in_force(&daemon).0, "shipped", "after a restart neither");
}

#[test]
fn a_deployment_that_is_enforced_starts_again_whatever_was_learned_since() {
    let canary = MONITOR.replace("mode = \"monitor\"", "mode = \"canary\"\ncanary_percent = 1");
    // Nothing was seen yet, so nothing is too little.
    let mut daemon = Daemon::start(&canary);
    ordinary(&daemon, "job-2", "127.0.0.12");
    ordinary(&daemon, "job-3", "127.0.0.13");
    let shown = daemon.json(&["learn", "show"]);
    let pairs = profile(&shown["profiles"], "batch.build")["pairs"].as_u64().expect("a count");
    assert!((1..=20).contains(&pairs), "a handful of queries: {shown:#}");
    assert_eq!(code(&daemon.run(&["reload"])), 0);
    stop(&mut daemon);
    start(&mut daemon);
    let status = daemon.json(&["status"]);
    assert_eq!(status["mode"], "canary");
    let batch = profile(&status["thresholds"]["profiles"], "batch.build");
    assert_eq!((batch["from"].as_str(), batch["sinkhole"].as_f64()), (Some("shipped"), Some(4.0)), "{batch}");
    assert!(batch["why"].as_str().expect("words").contains("enforced before"), "{batch}");

    // By monitor mode in between it is a first time again.
    let enforced = config(&daemon);
    write(&daemon, &enforced.replace("mode = \"canary\"\ncanary_percent = 1", "mode = \"monitor\""));
    assert_eq!(code(&daemon.run(&["reload"])), 0);
    write(&daemon, &enforced);
    assert_eq!(code(&daemon.run(&["reload"])), 3);
    stop(&mut daemon);
    let (status, stderr) = serve(&daemon);
    assert!(status == 3 && stderr.contains("too few to enforce by"), "{status}: {stderr}");
}

/// Serves until the process ends by itself; its exit code and what it said.
fn serve(daemon: &Daemon) -> (i32, String) {
    let mut child = Command::new(BINARY)
        .args(["serve", "--state-dir"])
        .arg(daemon.dir.path().join("state"))
        .arg("--config")
        .arg(daemon.dir.path().join("staunch.toml"))
        .stderr(Stdio::piped())
        .spawn()
        .expect("runs");
    let until = Instant::now() + Duration::from_secs(20);
    while child.try_wait().expect("waited").is_none() {
        if Instant::now() > until {
            child.kill().expect("killed");
            panic!("it serves");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let output = child.wait_with_output().expect("output");
    (code(&output), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn an_agent_that_feeds_odd_names_in_monitor_mode_teaches_64_pairs_at_most() {
    let daemon = Daemon::start(MONITOR);
    for n in 0..200 {
        ask(&daemon, "127.0.0.11", &format!("{}.d{n}.example", &chunk(n)[..6]));
    }
    let shown = daemon.json(&["learn", "show"]);
    let build = profile(&shown["profiles"], "batch.build");
    assert!(build["pairs"].as_u64().expect("a count") <= 64, "{shown:#}");
    assert!(build["left_out"]["pairs"].as_u64().expect("a count") >= 136 || build["left_out"]["sessions"] == 1);
    let (least, most) = (shown["bounds"]["sinkhole_min"].as_f64(), shown["bounds"]["sinkhole_max"].as_f64());
    assert!((least..=most).contains(&build["next"]["sinkhole"].as_f64()), "{build:#}");
}

#[test]
fn settings_out_of_range_are_told_by_line() {
    let dir = tempfile::tempdir().expect("directory");
    let file = dir.path().join("staunch.toml");
    let check = |learn: &str| {
        std::fs::write(&file, format!("version = 1\n[upstream]\nservers = [\"192.0.2.1\"]\n[learn]\n{learn}"))
            .expect("written");
        let output = Command::new(BINARY).arg("check").arg(&file).output().expect("runs");
        (code(&output), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    for (written, said) in [
        ("sinkhole_max = 9.0", ":5: learn.sinkhole_max: 9 is out of range; use 4 to 8"),
        ("sinkhole_min = 1.0", ":5: learn.sinkhole_min: 1 is out of range; use 2 to 4"),
        ("min_pairs = 0", ":5: learn.min_pairs: 0 is out of range"),
        ("types = []", ":5: learn.types: no type is named"),
        ("thresholds = \"guessed\"", ":5: learn.thresholds: unknown word `guessed`"),
        ("pairs_per_alarm = 3", ":5: learn.pairs_per_alarm: 3 is out of range"),
    ] {
        let (exit, told) = check(written);
        assert!(exit == 3 && told.contains(said), "{written}: {exit} {told}");
    }
    let (exit, told) = check("thresholds = \"learned\"\nmin_pairs = 10");
    assert!(exit == 0 && told.contains(":6: learn.min_pairs: thresholds are learned from as little as 10"), "{told}");
}

#[test]
fn what_the_configuration_writes_goes_before_what_is_learned() {
    let daemon = Daemon::start(&format!("{MONITOR}[profile.batch.params]\nsinkhole = 5.0\n"));
    ask(&daemon, "127.0.0.11", "www.site.example");
    enforce(&daemon);
    assert_eq!(code(&daemon.run(&["reload"])), 0, "nothing has to be learned for it");
    let status = daemon.json(&["status"]);
    let batch = profile(&status["thresholds"]["profiles"], "batch.build");
    assert_eq!((batch["from"].as_str(), batch["sinkhole"].as_f64()), (Some("written"), Some(5.0)), "{batch}");
}
