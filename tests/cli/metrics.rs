//! The metrics page: its form, its limits, and that nothing from outside stands on it.

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::daemon::port::free_port;
use crate::daemon::{Daemon, ENFORCE};

#[test]
fn the_metrics_page_has_limits_of_its_own() {
    use std::io::{Read, Write};
    let port = free_port();
    let daemon = Daemon::start_at(([192, 0, 2, 53], 53).into(), &format!("127.0.0.1:{port}"), ENFORCE);
    let open = || {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("connected");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("time limit");
        stream
    };
    let get = |request: &str| {
        let mut stream = open();
        stream.write_all(request.as_bytes()).expect("sent");
        let mut reply = String::new();
        let read = stream.read_to_string(&mut reply);
        read.map(|_| reply)
    };
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", daemon.child.id())).expect("/proc").count();
    let before = descriptors();
    // Two hundred that begin a request and never end it: an honest one is answered all the same.
    let slow: Vec<TcpStream> = (0..200)
        .map(|_| {
            let mut stream = open();
            stream.write_all(b"GET /metr").expect("sent");
            stream
        })
        .collect();
    let page = get("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").expect("a page");
    assert!(page.starts_with("HTTP/1.1 200") && page.contains("application/openmetrics-text"), "{page}");
    let until = Instant::now() + Duration::from_secs(10);
    while descriptors() > before + 20 && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(descriptors() <= before + 20, "{} beside {before}", descriptors());
    let closed = |page: &str| {
        let line = page.lines().find(|line| line.starts_with("staunch_page_closed_total")).expect("a counter");
        line.rsplit(' ').next().and_then(|n| n.parse::<f64>().ok()).expect("a number")
    };
    assert!(closed(&page) >= 180.0, "{}", closed(&page));
    // The last of them end by the time they may take.
    let begun = Instant::now();
    let mut last = slow.into_iter().next_back().expect("one");
    let mut rest = Vec::new();
    let _ = last.read_to_end(&mut rest);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());

    let long = format!("GET /metrics HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "a".repeat(64 << 10));
    assert!(get(&long).map_or(true, |reply| reply.starts_with("HTTP/1.1 431")), "a long head");
    let many = format!("GET /metrics HTTP/1.1\r\n{}\r\n", "X: a\r\n".repeat(200));
    assert!(get(&many).map_or(true, |reply| reply.starts_with("HTTP/1.1 431")), "many fields");
    for (request, status) in [
        ("POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", "405"),
        ("GET /other HTTP/1.1\r\nHost: x\r\n\r\n", "404"),
        ("GET /livez HTTP/1.1\r\nHost: x\r\n\r\n", "200"),
        ("nonsense\r\n\r\n", "400"),
    ] {
        let reply = get(request).expect("a reply");
        assert!(reply.starts_with(&format!("HTTP/1.1 {status}")), "{request}: {reply}");
    }
}

/// One sample of an OpenMetrics page: name, labels, value.
type Sample = (String, Vec<(String, String)>, f64);

/// Reads a page of the OpenMetrics 1.0 text format, strictly: every line is one of the four kinds there are, every
/// sample belongs to the family announced above it, no series comes twice, and the page ends with its end.
fn open_metrics(page: &str) -> Vec<Sample> {
    let is_name = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    let body = page.strip_suffix("# EOF\n").expect("the page ends with its end");
    assert!(body.is_empty() || body.ends_with('\n'), "the end stands alone");
    let mut samples: Vec<Sample> = Vec::new();
    let mut family: Option<(String, String)> = None;
    let mut families = std::collections::HashSet::new();
    for line in body.lines() {
        assert!(line.bytes().all(|b| (0x20..0x7f).contains(&b)), "control or other octets in {line:?}");
        if let Some(meta) = line.strip_prefix("# ") {
            let mut words = meta.splitn(3, ' ');
            let (word, name) = (words.next().expect("a word"), words.next().expect("a name"));
            assert!(is_name(name), "{line}");
            match (word, words.next()) {
                ("HELP", Some(_)) => assert!(families.insert(name.to_owned()), "{name} comes twice"),
                ("TYPE", Some(kind @ ("counter" | "gauge" | "histogram"))) => {
                    assert!(families.contains(name), "help goes first: {line}");
                    family = Some((name.to_owned(), kind.to_owned()));
                }
                ("UNIT", Some(unit)) => assert!(name.ends_with(unit), "{line}"),
                _ => panic!("not a line of the format: {line}"),
            }
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line}"));
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("not a number: {line}"));
        assert!(value.is_finite() && value >= 0.0, "{line}");
        let (name, labels) = match series.split_once('{') {
            Some((name, rest)) => (name, rest.strip_suffix('}').unwrap_or_else(|| panic!("open braces: {line}"))),
            None => (series, ""),
        };
        assert!(is_name(name), "{line}");
        let (base, kind) = family.as_ref().unwrap_or_else(|| panic!("no family: {line}"));
        let suffix = name.strip_prefix(base.as_str()).unwrap_or_else(|| panic!("{line} is not of {base}"));
        let fits = match kind.as_str() {
            "counter" => suffix == "_total",
            "gauge" => suffix.is_empty(),
            _ => ["_bucket", "_sum", "_count"].contains(&suffix),
        };
        assert!(fits, "{line} is not of the {kind} {base}");
        let labels: Vec<(String, String)> = labels
            .split(',')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (key, value) = pair.split_once('=').unwrap_or_else(|| panic!("no label: {line}"));
                let value = value.strip_prefix('"').and_then(|v| v.strip_suffix('"'));
                let value = value.unwrap_or_else(|| panic!("no quotes: {line}"));
                // Values from closed sets need no escapes; anything else comes from outside.
                assert!(is_name(key) && !value.contains(['"', '\\']), "{line}");
                (key.to_owned(), value.to_owned())
            })
            .collect();
        assert!(!samples.iter().any(|(n, l, _)| n == name && *l == labels), "twice: {line}");
        samples.push((name.to_owned(), labels, value));
    }
    samples
}

#[test]
fn the_check_of_a_metrics_page_is_strict() {
    let good = "# HELP a Some.\n# TYPE a counter\na_total{x=\"y\",z=\"w\"} 1\na_total{x=\"v\",z=\"w\"} 2.5\n# EOF\n";
    assert_eq!(open_metrics(good).len(), 2);
    for (part, instead) in [
        ("# EOF\n", ""),
        ("# EOF\n", "# EOF\nmore 1\n"),
        ("\"y\"", "\"y\n# EOF\n\""),
        ("\"y\"", "\"y\\\"\""),
        ("\"y\"", "\"\u{1b}\""),
        ("\"v\"", "\"y\""),
        ("# TYPE a counter\n", ""),
        ("# HELP a", "# SAY a"),
        ("a_total{x=\"v\"", "a{x=\"v\""),
        ("a_total{x=\"v\"", "b_total{x=\"v\""),
        (" 2.5", " two"),
        (" 2.5", " NaN"),
    ] {
        let bad = good.replacen(part, instead, 1);
        assert!(std::panic::catch_unwind(|| open_metrics(&bad)).is_err(), "taken: {bad}");
    }
}

fn metrics_page(address: SocketAddr) -> String {
    use std::io::{Read, Write};
    let mut stream = TcpStream::connect(address).expect("the metrics page");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("time limit");
    write!(stream, "GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").expect("sent");
    let mut reply = String::new();
    stream.read_to_string(&mut reply).expect("a page in UTF-8");
    let (head, body) = reply.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let head = head.to_ascii_lowercase();
    assert!(head.contains("application/openmetrics-text; version=1.0.0") && !head.contains("chunked"), "{head}");
    body.to_owned()
}

#[test]
fn hostile_names_never_reach_the_metrics_page() {
    let free = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let sinks = "[[alert]]\nname = \"marked-sink\"\nkind = \"file\"\npath = \"alerts.jsonl\"\n";
    let config = format!("{ENFORCE}{sinks}").replace("\"s1\"", "\"marked-session\"");
    let daemon = Daemon::start_with_metrics(&free.to_string(), &config);
    let long = [b'm'; 63];
    let every: Vec<u8> = (0..=255).collect();
    let mut names: Vec<Vec<&[u8]>> = vec![
        vec![b"\n# EOF\n", b"marked", b"example"],
        vec![b"x\"} 1\nstaunch_marked_total", b"example"],
        vec![b"\"quoted\\\"", b"a\\", b"marked", b"example"],
        vec![b"a.b\0c", b"\r\n\r\n", b"marked", b"example"],
        vec![b"\x1b[31m", b"{marked=\"1\"}", b"example"],
        vec![&long, &long, b"marked", b"example"],
        vec![b"\"\n", b"dump", b"example"],
        vec![b"marked"],
    ];
    names.extend(every.chunks(32).map(|octets| vec![octets, b"marked".as_slice(), b"example"]));
    for labels in &names {
        for qtype in [1, 16, 28] {
            daemon.ask_labels(labels, qtype);
        }
    }
    daemon.json(&["session", "quarantine", "marked-session", "--reason", "marked", "--by", "marked"]);

    let sum_of = |samples: &[Sample], name: &str| -> f64 {
        samples.iter().filter(|(n, ..)| n == name).map(|(.., value)| value).sum()
    };
    let queries = 3.0 * names.len() as f64;
    let until = Instant::now() + Duration::from_secs(20);
    let (page, samples) = loop {
        let page = metrics_page(free);
        let samples = open_metrics(&page);
        // The last one is counted about when its reply goes out.
        if sum_of(&samples, "staunch_verdicts_total") >= queries || Instant::now() > until {
            break (page, samples);
        }
    };
    let sum = |name: &str| sum_of(&samples, name);
    assert_eq!(sum("staunch_verdicts_total"), queries, "every query was counted: {page}");
    assert_eq!(sum("staunch_sessions"), 1.0);
    assert_eq!((sum("staunch_journal_failing"), sum("staunch_journal_lost_total")), (0.0, 0.0));
    assert!(sum("staunch_journal_lines_total") > 0.0 && sum("staunch_journal_bytes") > 0.0);
    assert_eq!((sum("staunch_alert_sinks"), sum("staunch_alert_sinks_failing")), (1.0, 0.0));
    for outside in ["marked", "example", "127.0.0", "203.0.113", "mmmm", "dump", "quoted", "jane", "team-a"] {
        assert!(!page.contains(outside), "{outside} is on the page: {page}");
    }
}
