//! One question, however many ask it, and however somebody floods it.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::daemon::port::free_port;
use crate::daemon::{Daemon, ENFORCE};
use crate::fake::{A, Fake, Reply, ask, query, wire};
use crate::server::metric;

const TRUE: [u8; 4] = [203, 0, 113, 5];
/// Sessions, and how often each asks.
const SESSIONS: u8 = 40;
const EACH: u16 = 25;

/// Query `id` of a stub: with and without EDNS, of all sizes, with and without options that are its own business.
fn dressed(id: u16, name: &str) -> Vec<u8> {
    let mut packet = query(id, name, A);
    let opt = packet.len() - 11;
    match id % 5 {
        0 => {
            packet.truncate(opt);
            packet[11] = 0;
        }
        1 => packet[opt + 3..opt + 5].copy_from_slice(&(512 + id).to_be_bytes()),
        2 => {
            // Client subnet.
            packet[opt + 10] = 11;
            packet.extend([0, 8, 0, 7, 0, 1, 24, 0, 198, 51, id as u8]);
        }
        3 => {
            // A cookie.
            packet[opt + 10] = 12;
            packet.extend([0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, id as u8]);
        }
        _ => {}
    }
    // Letter case is the stub's own too.
    packet[13] ^= if id.is_multiple_of(2) { 0x20 } else { 0 };
    packet
}

/// Asks `EACH` times from one address, all at once; behind that again where a datagram is lost or a share was used up. What
/// was answered.
fn insist(server: SocketAddr, from: [u8; 4], all_sent: &AtomicBool) -> HashSet<u16> {
    let socket = UdpSocket::bind((IpAddr::from(from), 0)).expect("socket");
    socket.set_read_timeout(Some(Duration::from_millis(500))).expect("time limit");
    let mut answered = HashSet::new();
    let until = Instant::now() + Duration::from_secs(60);
    let mut buffer = [0; 2048];
    let mut first = true;
    while answered.len() < usize::from(EACH) && Instant::now() < until {
        if std::mem::take(&mut first) || all_sent.load(Ordering::SeqCst) {
            for id in (0..EACH).filter(|id| !answered.contains(id)).collect::<Vec<_>>() {
                socket.send_to(&dressed(id, "same.site.example"), server).expect("sent");
            }
        }
        while let Ok(length) = socket.recv(&mut buffer) {
            let reply = &buffer[..length];
            if reply.windows(4).any(|four| four == TRUE) {
                // While the question is on its way nobody is answered.
                assert!(all_sent.load(Ordering::SeqCst), "answered before the upstream has said anything");
                answered.insert(u16::from_be_bytes([reply[0], reply[1]]));
            }
        }
    }
    answered
}

#[test]
fn a_thousand_questions_of_forty_sessions_are_one_query() {
    let all_sent = Arc::new(AtomicBool::new(false));
    let gate = all_sent.clone();
    let upstream = Fake::start(move |query| {
        let until = Instant::now() + Duration::from_secs(30);
        while !gate.load(Ordering::SeqCst) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        vec![Reply::to(query).answer(&query.name, A, &TRUE).done()]
    });
    let sessions: String = (1..=SESSIONS)
        .map(|n| {
            format!(
                "[[session]]\nid = \"p{n}\"\naddresses = [\"127.0.2.{n}\"]\ntype = \"batch\"\nowner = \"team-{n}\"\n"
            )
        })
        .collect();
    // One try is longer than the test takes to send, so that silence is no reason to ask again.
    let servers = format!("servers = [\"{}\"]\ntry_timeout_ms = 10000\ntotal_timeout_ms = 20000", upstream.address);
    let page = free_port();
    let daemon = Daemon::start_by(&servers, &format!("127.0.0.1:{page}"), &format!("{ENFORCE}{sessions}"));
    let askers: Vec<_> = (1..=SESSIONS)
        .map(|n| {
            let (server, all_sent) = (daemon.address, all_sent.clone());
            std::thread::spawn(move || insist(server, [127, 0, 2, n], &all_sent))
        })
        .collect();
    // Until enough of them wait for it, or as long as it may be without an answer.
    let until = Instant::now() + Duration::from_secs(9);
    let mut joined = 0.0;
    while joined < 200.0 && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(100));
        joined = metric(page, "upstream_coalesced_total");
    }
    assert_eq!(upstream.asked("same.site.example"), 1, "while it is on its way");
    all_sent.store(true, Ordering::SeqCst);
    let answered: usize = askers.into_iter().map(|asker| asker.join().expect("no panic").len()).sum();
    assert_eq!(answered, usize::from(SESSIONS) * usize::from(EACH));
    assert_eq!(upstream.asked("same.site.example"), 1);
    let seen = upstream.seen();
    let sent = &seen[0].raw;
    assert_eq!(sent.len(), 12 + wire("same.site.example").len() + 4 + 11, "nothing of any stub's EDNS: {sent:02x?}");
    println!(
        "FIGURE: {answered} questions of {SESSIONS} sessions were one query, {joined} of them joined it under way"
    );
    assert!(joined >= 200.0, "{joined} were asked at once");
}

#[test]
fn a_flood_of_forgeries_is_never_believed_and_turns_to_tcp() {
    // An attacker who sees the question and the port but guesses ids, far more of them than are counted.
    let upstream = Fake::start(|query| {
        let good = Reply::to(query).answer(&query.name, A, &TRUE).done();
        if query.tcp {
            return vec![good];
        }
        let mut forged = Reply::to(query).answer(&query.name, A, &[198, 51, 100, 66]).done();
        let id = u16::from_be_bytes([forged[0], forged[1]]);
        let guess = |n: u16| {
            forged[..2].copy_from_slice(&id.wrapping_add(n).to_be_bytes());
            forged.clone()
        };
        (1..=200).map(guess).collect()
    });
    let daemon = Daemon::start_at(upstream.address, "127.0.0.1:0", ENFORCE);
    for n in 0..10 {
        let name = format!("n{n}.site.example");
        let answer = ask(daemon.address, "127.0.0.1", &name, A);
        assert_eq!(answer.addresses(), [IpAddr::from(TRUE)], "{answer:?}");
    }
    let (tcp, udp): (Vec<_>, Vec<_>) = upstream.seen().into_iter().partition(|query| query.tcp);
    assert_eq!((udp.len(), tcp.len()), (1, 10), "the flooded question, and from then on all of them, go over TCP");
}

#[test]
fn letter_case_of_a_client_never_leaves() {
    let upstream = Fake::start(|query| vec![Reply::to(query).answer(&query.name, A, &TRUE).done()]);
    let daemon = Daemon::start_at(upstream.address, "off", ENFORCE);
    // Two spellings that a client could tell a bit with; what leaves is drawn, and each letter of it has both cases.
    let (mut upper, count) = ([[0u32; 2]; 11], 80);
    for n in 0..count {
        let name = format!("n{n:02}.Site.eXample");
        let name = if n % 2 == 0 { name.to_uppercase() } else { name.to_lowercase() };
        assert_eq!(ask(daemon.address, "127.0.0.1", &name, A).addresses(), [IpAddr::from(TRUE)]);
        let seen = upstream.seen();
        let sent = &seen[seen.len() - 1].raw;
        let letters = sent[17..29].iter().filter(|octet| octet.is_ascii_alphabetic());
        for (tally, letter) in upper.iter_mut().zip(letters) {
            tally[n % 2] += u32::from(letter.is_ascii_uppercase());
        }
    }
    for (at, [shouted, whispered]) in upper.iter().enumerate() {
        // 40 fair draws each lie outside 6..=34 once in a million times.
        assert!((6..=34).contains(shouted) && (6..=34).contains(whispered), "letter {at}: {shouted} and {whispered}");
    }
}

#[test]
fn nothing_of_an_upstreams_options_reaches_a_client() {
    // NSID, client subnet, keepalive, EDE, report channel, and one that nobody knows; not the cookie, which would be ours.
    const CODES: [u16; 6] = [3, 8, 11, 15, 18, 65_001];
    let upstream = Fake::start(|query| vec![Reply::to(query).answer(&query.name, A, &TRUE).options(&CODES).done()]);
    let daemon = Daemon::start_at(upstream.address, "off", ENFORCE);
    for turn in ["from the upstream", "from the cache"] {
        let answer = ask(daemon.address, "127.0.0.1", "www.site.example", A);
        assert_eq!(answer.addresses(), [IpAddr::from(TRUE)]);
        assert!(answer.options.is_empty() && answer.errors.is_empty(), "{turn}: {answer:?}");
    }
    assert_eq!(upstream.asked("www.site.example"), 1);
}
