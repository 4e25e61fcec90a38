//! A receiver behind something that refuses what it takes for an attack.

use super::*;

/// Reads a request and returns the alert in it.
fn read(reader: &mut BufReader<TcpStream>) -> Option<Alert> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().expect("a number");
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let event: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
    Some(serde_json::from_value(event["data"].clone()).expect("an alert"))
}

/// Answers each alert with what `judge` says of it, and takes it where that is 200, until `last` is taken.
fn receive(listener: &TcpListener, last: &str, mut judge: impl FnMut(&Alert) -> u16) -> Vec<Alert> {
    let mut taken = Vec::new();
    loop {
        let (stream, _) = listener.accept().expect("a connection");
        let mut reader = BufReader::new(stream);
        while let Some(alert) = read(&mut reader) {
            let status = judge(&alert);
            let is_last = status == 200 && alert.id == last;
            if status == 200 {
                taken.push(alert);
            }
            write!(reader.get_mut(), "HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n").expect("answered");
            if is_last {
                return taken;
            }
        }
    }
}

#[test]
fn a_name_that_a_receiver_refuses_keeps_no_later_alert_from_it() {
    let whole = Duration::from_millis(300);
    let poison = |alert: &Alert| alert.samples.iter().any(|name| name.starts_with("etc-passwd"));
    for status in [403, 500] {
        let dir = tempfile::tempdir().expect("a directory");
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let url = format!("http://{}/", listener.local_addr().expect("bound"));
        let kind = SinkKind::Webhook { url, secret: None, roots: None, timeout: Duration::from_secs(5) };
        let mut config = config("soc", kind);
        config.retry.whole = whole;
        let store = open(dir.path(), &config);
        let delivery = Delivery::start(config, &store, None).expect("starts");
        for n in 0..5 {
            let mut raised = alert(n);
            if (1..4).contains(&n) {
                raised.samples.push("etc-passwd.attacker.example".into());
            }
            let commit = store.append(vec![Record::Alert { alert: Box::new(raised) }]).expect("room");
            commit.wait_blocking().expect("durable");
        }
        let (mut begun, mut kept) = (None, Duration::ZERO);
        let taken = receive(&listener, "alert-4", |alert| {
            if poison(alert) {
                let since = begun.get_or_insert_with(Instant::now).elapsed();
                if alert.id == "alert-1" {
                    kept = since;
                }
                return status;
            }
            200
        });
        delivery.shutdown(Duration::from_secs(5));
        store.close();
        assert_in_order(&taken.iter().map(|alert| alert.id.clone()).collect::<Vec<_>>(), 5);
        for n in [0, 4] {
            assert!(taken.iter().any(|taken| *taken == alert(n)), "the others are whole");
        }
        for n in 1..4 {
            let (bare, asked) = (taken.iter().find(|taken| taken.id == format!("alert-{n}")).expect("taken"), alert(n));
            assert_eq!((bare.case, &bare.session, bare.reason), (asked.case, &asked.session, asked.reason));
            assert!(bare.samples.is_empty() && bare.tenant.is_empty(), "{bare:?}");
            assert!(bare.summary.contains(&status.to_string()), "{bare:?}");
        }
        assert!(kept >= whole / 2, "it was sent as it is for long enough: {kept:?}");
    }
}

#[test]
fn who_refuses_everything_for_a_while_gets_all_of_it_then() {
    let dir = tempfile::tempdir().expect("a directory");
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let url = format!("http://{}/", listener.local_addr().expect("bound"));
    let config = config("soc", SinkKind::Webhook { url, secret: None, roots: None, timeout: Duration::from_secs(5) });
    let store = open(dir.path(), &config);
    let delivery = Delivery::start(config, &store, None).expect("starts");
    raise(&store, 0..2);
    let mut refused = 0;
    let taken = receive(&listener, "alert-1", |_| {
        refused += 1;
        if refused <= 20 { 401 } else { 200 }
    });
    delivery.shutdown(Duration::from_secs(5));
    store.close();
    assert_eq!(taken, [alert(0), alert(1)]);
}
