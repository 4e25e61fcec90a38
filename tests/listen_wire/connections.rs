//! TCP connections: pipelines, limits, slow and silent ends.

use super::*;

#[test]
fn replies_overtake_each_other_on_a_connection() {
    let rig = Rig::local();
    let mut stream = rig.connect();
    let queries: Vec<u8> = [(1, "wait300.example"), (2, "wait100.example"), (3, "fast.example")]
        .iter()
        .flat_map(|(id, name)| framed(&query(*id, name)))
        .collect();
    stream.write_all(&queries).expect("send");
    let order: Vec<_> = (0..3).map(|_| id(&receive_framed(&mut stream).expect("reply"))).collect();
    assert_eq!(order, [3, 2, 1]);
}

#[test]
fn a_long_pipeline_is_served_a_window_at_a_time() {
    let rig = Rig::local();
    let mut stream = rig.connect();
    let queries: Vec<u8> = (0..100).flat_map(|i| framed(&query(i, "wait30.example"))).collect();
    let start = Instant::now();
    stream.write_all(&queries).expect("send");
    let mut ids: Vec<_> = (0..100).map(|_| id(&receive_framed(&mut stream).expect("reply"))).collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..100).collect::<Vec<_>>());
    // Sixteen at once: seven rounds of 30 ms, neither one after another (3 s) nor all at once.
    assert!(
        (Duration::from_millis(200)..Duration::from_millis(2900)).contains(&start.elapsed()),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn a_stub_that_closes_its_half_still_hears() {
    let rig = Rig::local();
    let mut stream = rig.connect();
    let queries = [framed(&query(1, "wait200.example")), framed(&query(2, "fast.example"))].concat();
    stream.write_all(&queries).expect("send");
    stream.shutdown(Shutdown::Write).expect("shutdown");
    let mut ids = vec![];
    while let Some(reply) = receive_framed(&mut stream) {
        ids.push(id(&reply));
    }
    assert_eq!(ids, [2, 1]);
}

#[test]
fn slow_senders_are_closed() {
    let rig = Rig::start(&Config { tcp_idle: Duration::from_millis(400), ..config("127.0.0.1:0") });
    let whole = framed(&query(1, "www.example.com"));
    // One octet now and then: the message never ends in time.
    let mut dripping = rig.connect();
    let start = Instant::now();
    let closed = whole.iter().any(|octet| {
        std::thread::sleep(Duration::from_millis(60));
        dripping.write_all(&[*octet]).is_err()
    });
    assert!(closed || receive_framed(&mut dripping).is_none());
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    // A whole one, then silence.
    let mut idle = rig.connect();
    idle.write_all(&whole).expect("send");
    assert!(receive_framed(&mut idle).is_some());
    let start = Instant::now();
    assert!(receive_framed(&mut idle).is_none());
    let waited = start.elapsed();
    // And not the two seconds of a first message, nor ten.
    assert!((Duration::from_millis(350)..Duration::from_millis(1900)).contains(&waited), "{waited:?}");
    // Silence is not held against a stub while we owe it a reply.
    let mut waiting = rig.connect();
    waiting.write_all(&framed(&query(2, "wait1000.example"))).expect("send");
    assert_eq!(id(&receive_framed(&mut waiting).expect("reply")), 2);
    rig.await_count(|c| c.tcp_expired.load(Relaxed), 2);
}

/// What is told of the time (RFC 7828) counts from when nothing is owed any more.
#[test]
fn silence_begins_when_the_last_reply_is_there() {
    let rig = Rig::start(&Config { tcp_idle: Duration::from_secs(3), ..config("127.0.0.1:0") });
    let mut stream = rig.connect();
    stream.write_all(&framed(&query(1, "wait2500.example"))).expect("send");
    assert_eq!(id(&receive_framed(&mut stream).expect("reply")), 1);
    std::thread::sleep(Duration::from_millis(1500));
    stream.write_all(&framed(&query(2, "fast.example"))).expect("send");
    assert_eq!(id(&receive_framed(&mut stream).expect("still open")), 2);
    let start = Instant::now();
    assert!(receive_framed(&mut stream).is_none());
    let waited = start.elapsed();
    assert!((Duration::from_millis(1500)..Duration::from_millis(4500)).contains(&waited), "{waited:?}");
}

/// A query that asks how long its connection may stay (RFC 7828).
fn asks_for_time(id: u16, name: &str) -> Vec<u8> {
    let mut packet = query(id, name);
    packet.truncate(packet.len() - 2);
    packet.extend([0, 4, 0, 11, 0, 0]);
    packet
}

/// What a reply says of it, tenths of a second.
fn told_time(reply: &[u8]) -> Option<u16> {
    let at = reply.windows(4).position(|octets| octets == [0, 11, 0, 2])?;
    Some(u16::from_be_bytes([reply[at + 4], reply[at + 5]]))
}

#[test]
fn who_asks_is_told_how_long_a_connection_may_stay() {
    let rig = Rig::start(&Config { tcp_connections: 8, ..config("127.0.0.1:0") });
    let mut stream = rig.connect();
    let mut ask = |packet: Vec<u8>| {
        stream.write_all(&framed(&packet)).expect("send");
        told_time(&receive_framed(&mut stream).expect("reply"))
    };
    assert_eq!(ask(asks_for_time(1, "fast.example")), Some(100));
    assert_eq!(ask(asks_for_time(2, "wait30.example")), Some(100), "by the slow path too");
    assert_eq!(ask(query(3, "fast.example")), None, "who does not ask is not told");
    let _others: Vec<_> = (0..6).map(|_| rig.connect()).collect();
    rig.await_count(|c| c.tcp_accepted.load(Relaxed), 7);
    assert_eq!(ask(asks_for_time(4, "fast.example")), Some(0), "places are scarce");
    let stub = rig.stub();
    stub.send(&asks_for_time(5, "fast.example")).expect("send");
    assert_eq!(told_time(&receive(&stub)), None, "means nothing over UDP");
}

#[test]
fn a_message_has_its_own_time_and_silence_another() {
    let rig = Rig::start(&Config { tcp_idle: Duration::from_secs(4), ..config("127.0.0.1:0") });
    let whole = framed(&query(1, "fast.example"));
    let (mut begun, mut dripping) = (rig.connect(), rig.connect());
    let start = Instant::now();
    begun.write_all(&whole[..9]).expect("send");
    // The first octet came in time, so the rest may come later than two seconds after.
    dripping.write_all(&whole[..1]).expect("send");
    std::thread::sleep(Duration::from_millis(2500));
    dripping.write_all(&whole[1..]).expect("still open");
    assert!(receive_framed(&mut dripping).is_some());
    assert!(receive_framed(&mut begun).is_none());
    let waited = start.elapsed();
    assert!((Duration::from_millis(3900)..Duration::from_secs(8)).contains(&waited), "{waited:?}");
}

#[test]
fn replies_that_nobody_reads_are_bounded_in_octets() {
    let rig = Rig::start(&Config { in_flight: 2000, queue: 2000, ..config("127.0.0.1:0") });
    let mut greedy = rig.connect();
    // Long replies from the slow path, and nobody reads them: the kernel takes the first few.
    let packet = framed(&query(1, "bigwait5.example"));
    greedy.set_write_timeout(Some(Duration::from_secs(20))).expect("option");
    let mut sent = 0;
    while sent < 2000 && greedy.write_all(&packet).is_ok() {
        sent += 1;
    }
    rig.await_count(|c| c.tcp_unread.load(Relaxed), 1);
    let mut other = rig.connect();
    other.write_all(&framed(&query(2, "bigwait5.example"))).expect("send");
    assert!(receive_framed(&mut other).is_some_and(|reply| reply.len() == 60_000), "who reads is served");
}

#[test]
fn the_first_message_has_two_seconds() {
    let rig = Rig::local();
    let mut silent = rig.connect();
    let start = Instant::now();
    assert!(receive_framed(&mut silent).is_none());
    let waited = start.elapsed();
    assert!((Duration::from_millis(1900)..Duration::from_secs(5)).contains(&waited), "{waited:?}");
}

#[test]
fn lengths_outside_the_limits_end_the_connection() {
    let rig = Rig::local();
    for length in [0u16, 11, 4097, 65_535] {
        let mut stream = rig.connect();
        stream.write_all(&framed(&query(1, "fast.example"))).expect("send");
        assert!(receive_framed(&mut stream).is_some());
        stream.write_all(&length.to_be_bytes()).expect("send");
        let start = Instant::now();
        assert!(receive_framed(&mut stream).is_none(), "{length}");
        assert!(start.elapsed() < Duration::from_secs(4), "{length}: at once, not by the time limit");
    }
}

#[test]
fn a_source_has_its_share_of_connections() {
    let rig = Rig::start(&Config { tcp_per_source: 3, ..config("127.0.0.1:0") });
    let ask = |stream: &mut TcpStream, name: &str| {
        stream.write_all(&framed(&query(1, name))).is_ok() && receive_framed(stream).is_some()
    };
    let mut first: Vec<_> = (0..3).map(|_| rig.connect()).collect();
    for stream in &mut first {
        assert!(ask(stream, "fast.example"));
        std::thread::sleep(Duration::from_millis(5));
    }
    // A fourth displaces the one idle longest.
    let mut fourth = rig.connect();
    assert!(ask(&mut fourth, "fast.example"));
    assert!(!ask(&mut first[0], "fast.example"), "gave way");
    // Busy ones stay, and a newcomer is closed.
    for stream in [1, 2] {
        first[stream].write_all(&framed(&query(9, "stuck.example"))).expect("send");
    }
    fourth.write_all(&framed(&query(9, "stuck.example"))).expect("send");
    rig.await_count(|c| c.deferred.load(Relaxed), 3);
    let mut fifth = rig.connect();
    assert!(!ask(&mut fifth, "fast.example"), "refused");
    let mut elsewhere = rig.connect_from(Ipv4Addr::new(127, 0, 0, 9));
    assert!(ask(&mut elsewhere, "fast.example"), "another source is not touched by it");
    rig.service.gate.add_permits(3);
    for stream in [&mut fourth, &mut first[1]] {
        assert_eq!(id(&receive_framed(stream).expect("reply")), 9);
    }
    let counters = rig.listener().counters();
    assert_eq!((counters.tcp_evicted.load(Relaxed), counters.tcp_refused.load(Relaxed)), (1, 1));
}

#[test]
fn a_stub_that_does_not_read_is_not_read_from() {
    let rig = Rig::start(&Config { tcp_idle: Duration::from_millis(700), ..config("127.0.0.1:0") });
    let mut greedy = rig.connect();
    greedy.set_write_timeout(Some(Duration::from_secs(20))).expect("option");
    let packet = framed(&query(1, "big.example"));
    let mut sent = 0;
    while sent < 50_000 && greedy.write_all(&packet).is_ok() {
        sent += 1;
    }
    rig.await_count(|c| c.tcp_expired.load(Relaxed), 1);
    // Replies of 60,000 octets fill the kernel's buffers after a few hundred; the rest was never judged.
    let seen = rig.service.seen.load(Relaxed);
    assert!(seen < 1000 && seen < sent, "{seen} of {sent} judged");
}

#[test]
fn shutdown_pays_what_is_owed_and_frees_the_port() {
    let mut rig = Rig::local();
    let address = rig.address();
    let taken = Listener::start(&config(&address.to_string()), Arc::clone(&rig.service), rig.runtime.handle());
    assert!(matches!(taken, Err(Error::Bind { transport: Transport::Tcp, .. })), "a second instance must fail");
    let stub = rig.stub();
    let mut stream = rig.connect();
    let _idle = rig.connect();
    stub.send(&query(1, "wait400.example")).expect("send");
    stream.write_all(&framed(&query(2, "wait400.example"))).expect("send");
    rig.await_count(|c| c.deferred.load(Relaxed), 2);
    let start = Instant::now();
    rig.stop();
    assert!(start.elapsed() < Duration::from_millis(2900), "{:?}", start.elapsed());
    assert_eq!(id(&receive(&stub)), 1);
    assert_eq!(id(&receive_framed(&mut stream).expect("reply")), 2);
    assert!(receive_framed(&mut stream).is_none());
    let again = Rig::start(&config(&address.to_string()));
    let stub = again.stub();
    let query = query(3, "fast.example");
    stub.send(&query).expect("send");
    assert_refusal(&receive(&stub), &query);
}

#[test]
fn an_idle_listener_ends_at_once() {
    let mut rig = Rig::local();
    let start = Instant::now();
    rig.stop();
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    let none = Listener::start(
        &Config { addresses: vec![], ..config("127.0.0.1:0") },
        rig.service.clone(),
        rig.runtime.handle(),
    );
    assert!(matches!(none, Err(Error::NoAddress)));
}
