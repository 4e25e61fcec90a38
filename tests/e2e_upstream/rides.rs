//! Who asks what is on its way comes along: one question leaves, and one is paid for.

use std::collections::HashMap;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::daemon::Daemon;
use crate::daemon::port::free_port;
use crate::fake::{A, Answer, Fake, Reply, query};
use crate::server::metric;

const TRUE: [u8; 4] = [203, 0, 113, 5];
const SESSIONS: [(&str, &str); 2] = [("one", "127.0.0.2"), ("two", "127.0.0.3")];
/// Questions of each session.
const EACH: u16 = 50;

/// An upstream that says nothing before the gate is open: then names that begin with `fail` fail, all others have an address,
/// with a TTL of 0 where they begin with `zero`.
fn gated() -> (Fake, Arc<AtomicBool>) {
    let open = Arc::new(AtomicBool::new(false));
    let gate = open.clone();
    let upstream = Fake::start(move |query| {
        let until = Instant::now() + Duration::from_secs(30);
        while !gate.load(Ordering::SeqCst) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        let mut reply = Reply::to(query);
        if query.name.starts_with("fail") {
            return vec![reply.rcode(2).done()];
        }
        reply = reply.answer(&query.name, A, &TRUE);
        let mut octets = reply.done();
        if query.name.starts_with("zero") {
            // Its TTL stands before the length and the address.
            let at = octets.len() - 10;
            octets[at..at + 4].fill(0);
        }
        vec![octets]
    });
    (upstream, open)
}

/// Has both sessions ask for `name` at once, opens the gate when all of them wait, and says how often each code came back and
/// how many questions of each session were forwarded.
fn ask_all(name: &str, answer: &str) -> (HashMap<u8, usize>, [u64; 2], usize) {
    let (upstream, open) = gated();
    let servers = format!("servers = [\"{}\"]\ntry_timeout_ms = 10000\ntotal_timeout_ms = 20000", upstream.address);
    let sessions = SESSIONS.map(|(id, address)| {
        format!("[[session]]\nid = \"{id}\"\naddresses = [\"{address}\"]\ntype = \"batch\"\nowner = \"{id}\"\n")
    });
    let config = format!(
        "[policy]\nmode = \"enforce\"\n[enforce]\nbackend = \"dry-run\"\n[answer]\n{answer}\n{}",
        sessions.concat()
    );
    let page = free_port();
    let daemon = Daemon::start_by(&servers, &format!("127.0.0.1:{page}"), &config);
    let sockets = SESSIONS.map(|(_, from)| {
        let socket = UdpSocket::bind((from, 0)).expect("socket");
        socket.set_read_timeout(Some(Duration::from_secs(40))).expect("time limit");
        for id in 0..EACH {
            socket.send_to(&query(id, name, A), daemon.address).expect("sent");
        }
        socket
    });
    let wanted = f64::from(EACH * 2 - 1);
    let until = Instant::now() + Duration::from_secs(20);
    while metric(page, "upstream_coalesced_total") < wanted && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(metric(page, "upstream_coalesced_total"), wanted, "all but one wait for that one");
    assert!(upstream.asked(name) <= 1);
    open.store(true, Ordering::SeqCst);
    let mut codes = HashMap::new();
    let mut buffer = [0; 4096];
    for socket in &sockets {
        for _ in 0..EACH {
            let length = socket.recv(&mut buffer).expect("a reply");
            let reply = Answer::read(&buffer[..length]);
            assert!(reply.rcode != 0 || reply.addresses() == [std::net::IpAddr::from(TRUE)], "{reply:?}");
            *codes.entry(reply.rcode).or_default() += 1;
        }
    }
    let forwarded = SESSIONS.map(|(id, _)| {
        let shown = daemon.json(&["session", "show", id]);
        assert_eq!(shown["session"]["queries"], EACH, "{shown:#}");
        shown["session"]["forwarded"].as_u64().expect("a count")
    });
    (codes, forwarded, upstream.asked(name))
}

fn all(code: u8) -> HashMap<u8, usize> {
    HashMap::from([(code, usize::from(EACH) * 2)])
}

#[test]
fn of_questions_at_one_time_one_is_paid() {
    let (codes, forwarded, asked) = ask_all("same.site.example", "");
    assert_eq!((codes, forwarded.iter().sum::<u64>(), asked), (all(0), 1, 1));
}

#[test]
fn a_failure_is_that_of_all_who_came_along() {
    let (codes, forwarded, asked) = ask_all("fail.site.example", "");
    assert_eq!((codes, forwarded.iter().sum::<u64>()), (all(2), 1));
    assert!((1..=2).contains(&asked), "a failure is asked again before it is one: {asked}");
}

#[test]
fn what_cannot_be_kept_is_for_who_came_along_all_the_same() {
    for answer in ["floor_seconds = 0", "floor_seconds = 0\ncache_entries = 0"] {
        let (codes, forwarded, asked) = ask_all("zero.site.example", answer);
        assert_eq!((codes, forwarded.iter().sum::<u64>(), asked), (all(0), 1, 1), "{answer}");
    }
    let (codes, forwarded, _) = ask_all("fail.site.example", "floor_seconds = 0\ncache_entries = 0");
    assert_eq!((codes, forwarded.iter().sum::<u64>()), (all(2), 1));
}

#[test]
fn a_private_session_comes_along_with_itself_alone() {
    for (name, code) in [("same.site.example", 0), ("fail.site.example", 2)] {
        let (codes, forwarded, _) = ask_all(name, "private_timing = true");
        assert_eq!((codes, forwarded), (all(code), [1, 1]), "{name}");
    }
}
