//! Who follows events for ever, and who goes away without a word.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::daemon::{Daemon, ENFORCE, code};

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
