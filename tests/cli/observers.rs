//! Who follows events for ever, and who goes away without a word.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::daemon::{BINARY, Daemon, ENFORCE, code};

/// Follows the events of a session that sees none; whether there was a place.
fn follow(daemon: &Daemon) -> (UnixStream, bool) {
    let mut stream = UnixStream::connect(daemon.socket()).expect("connected");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
    let request = br#"{"op":"observe","last":0,"follow":true,"session":"nobody-asks"}"#;
    stream.write_all(request).expect("sent");
    stream.write_all(b"\n").expect("sent");
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line).expect("an answer");
    let has_place = !line.contains("observers are there already");
    assert!(line.contains("ok") || !has_place, "{line}");
    (stream, has_place)
}

#[test]
fn observers_close_the_socket_to_nobody_and_leave_their_places() {
    let daemon = Daemon::start(ENFORCE);
    let all: Vec<_> = (0..80).map(|_| follow(&daemon)).collect();
    assert_eq!(all.iter().filter(|(_, has_place)| *has_place).count(), 32);
    assert_eq!(code(&daemon.run(&["status"])), 0, "others are served");
    drop(all);
    let until = Instant::now() + Duration::from_secs(10);
    while !follow(&daemon).1 {
        assert!(Instant::now() < until, "places are not given back");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn who_follows_a_daemon_that_goes_away_hears_of_it() {
    let mut daemon = Daemon::start(ENFORCE);
    let mut command = Command::new(BINARY);
    command.arg("--socket").arg(daemon.socket()).args(["observe", "--follow", "--json"]);
    let mut follower = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("runs");
    let mut lines = BufReader::new(follower.stdout.take().expect("a pipe")).lines();
    daemon.ask("a.dump.example", 1);
    assert!(lines.next().expect("an event").expect("text").contains("a.dump.example"));
    daemon.child.kill().expect("killed");
    daemon.child.wait().expect("ended");
    let rest: Vec<String> = lines.map(|line| line.expect("text")).collect();
    assert_eq!(code(&follower.wait_with_output().expect("ends")), 4, "what comes from now on is not seen");
    assert!(rest.last().is_some_and(|line| line.contains("error")), "{rest:?}");
}

#[test]
fn who_asks_for_more_events_than_are_held_hears_where_they_are() {
    let daemon = Daemon::start(ENFORCE);
    let observe = |last: &str, more: &[&str]| {
        let output = daemon.run(&[&["observe", "--last", last], more].concat());
        assert_eq!(code(&output), 0, "{output:?}");
        let (lines, said) = (String::from_utf8_lossy(&output.stdout).lines().count(), output.stderr);
        (lines, String::from_utf8_lossy(&said).into_owned())
    };
    daemon.ask("a.dump.example", 1);
    assert_eq!(observe("10", &[]), (1, String::new()), "there are no others");
    (0..1100).for_each(|n| drop(daemon.ask(&format!("n{n}.dump.example"), 1)));
    assert_eq!(observe("1000", &[]), (1000, String::new()));
    let (lines, said) = observe("1100", &[]);
    assert!(lines == 1024 && said.contains("1024 events") && said.contains("events.jsonl"), "{lines}: {said}");
    let (lines, said) = observe("3", &["--session", "nobody-asks"]);
    assert!(lines == 0 && said.contains("0 of them match"), "{lines}: {said}");
}

#[test]
fn a_request_that_is_too_long_is_told_so() {
    let daemon = Daemon::start(ENFORCE);
    let mut stream = UnixStream::connect(daemon.socket()).expect("connected");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
    // What is not read any more may be refused.
    let _ = stream.write_all(&vec![b' '; 8 << 20]);
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line).expect("an answer");
    assert!(line.contains("bad-request") && line.contains("one line of less than"), "{line}");
}
