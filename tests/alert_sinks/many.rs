//! Ten thousand alerts that have waited for a sink.

use staunch::store::Error;

use super::*;

/// Raises them without waiting for each to be on disk.
fn raise_many(store: &Store, numbers: std::ops::Range<u32>) {
    let mut last = None;
    for n in numbers {
        loop {
            match store.append(vec![Record::Alert { alert: Box::new(alert(n)) }]) {
                Ok(commit) => break last = Some(commit),
                Err(Error::QueueFull) => std::thread::sleep(Duration::from_millis(1)),
                Err(error) => panic!("{error}"),
            }
        }
    }
    last.expect("some").wait_blocking().expect("durable");
}

#[test]
fn ten_thousand_alerts_drain_within_a_minute_and_a_slow_sink_does_not_hold_up_another() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("alerts.jsonl");
    let blackhole = SinkKind::Syslog { target: SyslogTarget::Unix { path: dir.path().join("nobody") } };
    let mut config = config("file", SinkKind::File { path: path.clone() });
    config.sinks.push(SinkConfig { name: "dead".into(), kind: blackhole });
    let store = open(&dir.path().join("state"), &config);
    raise_many(&store, 0..10_000);
    let started = Instant::now();
    let delivery = Delivery::start(config, &store, None).expect("starts");
    let depth = |name: &str| delivery.status().iter().find(|s| s.name == name).expect("there").depth;
    until("the drain", || depth("file") == 0);
    println!("file: 10,000 alerts drained in {:?}", started.elapsed());
    assert_eq!(depth("dead"), 10_000);
    delivery.shutdown(Duration::from_secs(5));
    store.close();
    let text = std::fs::read_to_string(&path).expect("there");
    let ids: Vec<String> = text.lines().map(|line| serde_json::from_str::<Alert>(line).expect("an alert").id).collect();
    assert_in_order(&ids, 10_000);
    assert!(text.bytes().all(|b| b == b'\n' || (b' '..=b'~').contains(&b)));
}

/// Takes alerts until `last` is among them; what was taken, and when the first and the last were.
fn take_all(listener: TcpListener, last: String) -> (Vec<String>, Instant, Instant) {
    let (mut taken, mut first) = (Vec::new(), None);
    loop {
        let (stream, _) = listener.accept().expect("a connection");
        stream.set_nodelay(true).expect("set");
        let mut reader = BufReader::new(stream);
        while let Some(id) = request(&mut reader) {
            first.get_or_insert_with(Instant::now);
            taken.push(id);
            reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").expect("answered");
            if taken.last() == Some(&last) {
                return (taken, first.expect("the first"), Instant::now());
            }
        }
    }
}

/// The pause between two tries is half a minute at most, so the other half is what ten thousand may take.
#[test]
fn a_webhook_that_was_away_while_the_service_was_started_twice_is_told_all_within_half_a_minute() {
    let dir = tempfile::tempdir().expect("a directory");
    let address = address();
    let config = config(
        "soc",
        SinkKind::Webhook {
            url: format!("http://{address}/alerts?x=1"),
            secret: Some(SECRET.to_vec()),
            roots: None,
            timeout: Duration::from_secs(5),
        },
    );
    for n in 0..2 {
        let store = open(dir.path(), &config);
        let delivery = Delivery::start(config.clone(), &store, None).expect("starts");
        raise_many(&store, n * 5_000..(n + 1) * 5_000);
        until("failures", || delivery.status()[0].failing);
        assert_eq!(delivery.depth(), u64::from(n + 1) * 5_000);
        delivery.shutdown(Duration::from_secs(5));
        store.close();
    }
    let store = open(dir.path(), &config);
    let delivery = Delivery::start(config, &store, None).expect("starts");
    let listener = TcpListener::bind(address).expect("binds again");
    let back = Instant::now();
    let (taken, first, last) = take_all(listener, "alert-9999".into());
    until("the position", || delivery.depth() == 0);
    println!(
        "FIGURE: webhook: 10,000 alerts that waited are told within {:.1} s of the first, which came {} ms behind its return",
        (last - first).as_secs_f64(),
        (first - back).as_millis()
    );
    delivery.shutdown(Duration::from_secs(5));
    store.close();
    assert_in_order(&taken, 10_000);
    assert!(last - first < Duration::from_secs(30), "{:?}", last - first);
}
