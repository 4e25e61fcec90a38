//! Standard error that fails, or that nobody reads: the service goes on, and what it decides lasts.

use std::io::{BufRead, BufReader, PipeReader, Write};
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::daemon::{BINARY, ENFORCE, code, run, upstream};

/// Starts it with a pipe for its standard error, and waits until it is ready.
fn start(dir: &Path) -> (Child, BufReader<PipeReader>, std::io::PipeWriter) {
    let text = format!(
        "version = 1\n[server]\nlisten = [\"127.0.0.1:0\"]\nmetrics = \"off\"\n[upstream]\nservers = [\"{}\"]\n{ENFORCE}",
        upstream()
    );
    std::fs::write(dir.join("staunch.toml"), text).expect("configuration");
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let mut command = Command::new(BINARY);
    command.arg("serve").arg("--state-dir").arg(dir.join("state")).arg("--config").arg(dir.join("staunch.toml"));
    let child = command.stderr(writer.try_clone().expect("the same pipe")).spawn().expect("the daemon starts");
    let mut reader = BufReader::new(reader);
    let mut line = String::new();
    while !line.contains("ready addresses=") {
        line.clear();
        assert!(reader.read_line(&mut line).expect("read") > 0, "it ended");
    }
    (child, reader, writer)
}

/// Closes a session, reloads, and ends: what an operator does must be done whoever reads the log.
fn work(dir: &Path, child: &mut Child) {
    let socket = dir.join("state/admin.sock");
    let began = Instant::now();
    for round in 0..20 {
        let reloaded = run(&socket, &["reload"]);
        assert_eq!(code(&reloaded), 0, "{round}: {reloaded:?}");
    }
    let closed = run(&socket, &["session", "quarantine", "s1", "--by", "jane", "--reason", "looked odd"]);
    assert_eq!(code(&closed), 0, "{closed:?}");
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    // SAFETY: a signal to a child of ours that has not been waited for.
    assert_eq!(unsafe { libc::kill(child.id() as i32, libc::SIGTERM) }, 0);
    let until = Instant::now() + Duration::from_secs(30);
    let status = loop {
        match child.try_wait().expect("a child") {
            Some(status) => break status,
            None => assert!(Instant::now() < until, "it does not end"),
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(status.code(), Some(0), "{status}");
}

fn is_closed_after_a_restart(dir: &Path) {
    let (mut child, reader, _writer) = start(dir);
    let shown = run(&dir.join("state/admin.sock"), &["session", "show", "s1", "--json"]);
    let shown: Value = serde_json::from_slice(&shown.stdout).expect("JSON");
    assert_eq!(shown["session"]["state"], "quarantined", "{shown:#}");
    child.kill().expect("killed");
    child.wait().expect("ended");
    drop(reader);
}

#[test]
fn a_log_whose_reader_is_gone_costs_nothing_that_was_decided() {
    let dir = tempfile::tempdir().expect("directory");
    let (mut child, reader, _writer) = start(dir.path());
    drop(reader);
    work(dir.path(), &mut child);
    is_closed_after_a_restart(dir.path());
}

#[test]
fn a_log_that_nobody_reads_holds_up_nothing() {
    let dir = tempfile::tempdir().expect("directory");
    let (mut child, reader, mut writer) = start(dir.path());
    // Until nothing more fits; it ends with the pipe.
    let filler = std::thread::spawn(move || while writer.write_all(&[b'x'; 4096]).is_ok() {});
    std::thread::sleep(Duration::from_millis(300));
    work(dir.path(), &mut child);
    drop(reader);
    filler.join().expect("ended");
    is_closed_after_a_restart(dir.path());
}

#[test]
fn what_operators_do_over_the_socket_is_in_the_log() {
    let dir = tempfile::tempdir().expect("directory");
    let (mut child, mut reader, _writer) = start(dir.path());
    let socket = dir.path().join("state/admin.sock");
    let mut logs = |part: &str| {
        let mut line = String::new();
        while !line.contains(part) {
            line.clear();
            assert!(reader.read_line(&mut line).expect("read") > 0, "it ended without: {part}");
        }
        line
    };
    assert_eq!(code(&run(&socket, &["reload"])), 0);
    logs("configuration reloaded");
    let allow = ["allow", "=a.example", "--for", "5m", "--reason", "r", "--owner", "jane"];
    assert_eq!(code(&run(&socket, &allow)), 0);
    assert!(logs("a name is allowed").contains("jane"));
    let more = ["session", "release", "s1", "--by", "joe", "--reason", "r", "--extend", "64"];
    assert_eq!(code(&run(&socket, &more)), 0);
    let line = logs("may tell more");
    assert!(line.contains("joe") && line.contains("64"), "{line}");
    std::fs::write(dir.path().join("staunch.toml"), "version = 1\nnonsense = 1\n").expect("written");
    assert_eq!(code(&run(&socket, &["reload"])), 3);
    logs("the old configuration stays");
    child.kill().expect("killed");
    child.wait().expect("ended");
}

#[test]
fn paths_that_are_told_are_whole_ones_wherever_the_daemon_was_started() {
    let dir = tempfile::tempdir().expect("directory");
    let text = format!(
        "version = 1\n[server]\nlisten = [\"127.0.0.1:0\"]\nmetrics = \"off\"\nstate_dir = \"state\"\n\
         [upstream]\nservers = [\"{}\"]\n{ENFORCE}",
        upstream()
    );
    std::fs::write(dir.path().join("staunch.toml"), text).expect("configuration");
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let mut command = Command::new(BINARY);
    command.current_dir(dir.path()).env("NO_COLOR", "1").args(["serve", "--config", "staunch.toml"]);
    let mut child = command.stderr(writer).spawn().expect("the daemon starts");
    let mut lines = BufReader::new(reader).lines().map_while(Result::ok);
    let ready = lines.find(|line| line.contains("ready addresses=")).expect("it starts");
    let socket = dir.path().join("state/admin.sock");
    assert!(ready.contains(socket.to_str().expect("UTF-8")), "{ready}");
    let closed = run(&socket, &["session", "quarantine", "s1", "--reason", "test", "--json"]);
    let case: Value = serde_json::from_slice(&closed.stdout).expect("JSON");
    let why = run(&socket, &["why", case["case"].as_str().expect("a case"), "--json"]);
    let why: Value = serde_json::from_slice(&why.stdout).expect("JSON");
    let events = dir.path().join("state/events.jsonl");
    assert_eq!(why["alert"]["log"].as_str(), events.to_str(), "{why:#}");
    child.kill().expect("killed");
    child.wait().expect("ended");
}
