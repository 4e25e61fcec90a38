//! Alerts against sinks that fail: nothing is lost, order is kept, and what comes twice has the same id.

#[path = "alert_sinks/many.rs"]
mod many;
#[path = "daemon/port.rs"]
mod port;
#[path = "alert_sinks/refused.rs"]
mod refused;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use staunch::alert::{Config, Delivery, Retry, SinkConfig, SinkKind, SyslogTarget, sign};
use staunch::event::{Alert, AlertKind};
use staunch::model::{CaseId, Mode, Reason, SessionId, SessionType};
use staunch::outbound::HostResolver;
use staunch::store::{IndexKind, Options, Record, Store};

const SECRET: &[u8] = b"a key of the test";

fn alert(n: u32) -> Alert {
    Alert {
        schema: 1,
        id: format!("alert-{n}"),
        kind: AlertKind::Quarantine,
        time: "2026-01-02T03:04:05.678Z".into(),
        case: CaseId::from_random(n.into()),
        session: SessionId::new(&format!("s{}", n % 5)).expect("an id"),
        session_type: SessionType::Batch,
        owner: Some("team-a".into()),
        addresses: vec![Ipv4Addr::new(10, 0, 0, 1).into()],
        mode: Mode::Enforce,
        reason: Some(Reason::Score),
        summary: format!("closed, alert {n} \u{1b}[31m\n"),
        signals: Vec::new(),
        tenant: "attacker.example".into(),
        leaked_bits_at_most: staunch_scoring::Bits::whole(n),
        names_forwarded: n,
        samples: vec!["a.attacker.example".into()],
        actions: Vec::new(),
        log: None,
    }
}

fn raise(store: &Store, numbers: std::ops::Range<u32>) {
    for n in numbers {
        let commit = store.append(vec![Record::Alert { alert: Box::new(alert(n)) }]).expect("room");
        commit.wait_blocking().expect("durable");
    }
}

fn config(name: &str, kind: SinkKind) -> Config {
    Config {
        sinks: vec![SinkConfig { name: name.into(), kind }],
        hostname: "gw-1".into(),
        retry: Retry { first: Duration::from_millis(2), most: Duration::from_millis(20), ..Retry::default() },
        ..Config::default()
    }
}

fn open(dir: &Path, config: &Config) -> Store {
    let options = Options { sinks: config.sink_names(), index: IndexKind::Memory, ..Options::default() };
    Store::open(dir, options).expect("opens").0
}

/// One that stays free while nobody listens there.
fn address() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port::free_port()).into()
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < deadline, "{what} took too long");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Every id of `0..count` is there, in order; an id may come again only right behind itself.
fn assert_in_order(ids: &[String], count: u32) {
    let mut once = ids.to_vec();
    once.dedup();
    let expected: Vec<String> = (0..count).map(|n| format!("alert-{n}")).collect();
    assert_eq!(once, expected);
}

/// What the next requests meet.
#[derive(Clone, Copy, Debug)]
enum Mood {
    Good,
    CloseAtOnce,
    Status(u16),
    Hang,
    /// Takes the alert, and the connection breaks before the answer.
    TakeAndBreak,
    Redirect,
}

/// A collector that fails in every way before it takes each alert.
struct Collector {
    address: SocketAddr,
    taken: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    trapped: Arc<AtomicU32>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Collector {
    fn start(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).expect("binds");
        let address = listener.local_addr().expect("bound");
        let trap = TcpListener::bind("127.0.0.1:0").expect("binds");
        let trap_address = trap.local_addr().expect("bound");
        trap.set_nonblocking(true).expect("set");
        let collector =
            Self { address, taken: Arc::default(), stop: Arc::default(), trapped: Arc::default(), thread: None };
        let (taken, stop, trapped) = (collector.taken.clone(), collector.stop.clone(), collector.trapped.clone());
        let thread = std::thread::spawn(move || {
            let moods = [
                Mood::Good,
                Mood::Status(500),
                Mood::Good,
                Mood::CloseAtOnce,
                Mood::TakeAndBreak,
                Mood::Status(404),
                Mood::Good,
                Mood::Redirect,
                Mood::Status(429),
                Mood::Hang,
            ];
            let mut next = moods.iter().cycle();
            for stream in listener.incoming() {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let stream = stream.expect("accepted");
                stream.set_read_timeout(Some(Duration::from_secs(5))).expect("set");
                let mut reader = BufReader::new(stream);
                // A connection may carry several requests.
                for mood in next.by_ref() {
                    if matches!(mood, Mood::CloseAtOnce) {
                        break;
                    }
                    let Some(id) = request(&mut reader) else { break };
                    if !answer(reader.get_mut(), *mood, &id, &taken, trap_address) {
                        break;
                    }
                }
                trapped.fetch_add(u32::from(trap.accept().is_ok()), Ordering::Relaxed);
            }
        });
        Self { thread: Some(thread), ..collector }
    }

    /// Stops listening, and returns what was taken.
    fn end(mut self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
        self.thread.take().expect("once").join().expect("no failed check in the collector");
        assert_eq!(self.trapped.load(Ordering::Relaxed), 0, "a redirect was followed");
        let taken = self.taken.lock().expect("sound");
        taken.clone()
    }
}

/// Reads one request, checks everything about it, and returns the alert's id.
fn request(reader: &mut BufReader<TcpStream>) -> Option<String> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
    assert_eq!(line, "POST /alerts?x=1 HTTP/1.1\r\n");
    let mut headers = std::collections::HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(": ").expect("a header");
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let length = headers["content-length"].parse().expect("a number");
    assert!(length < 64 * 1024);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let timestamp: u64 = headers["x-staunch-timestamp"].parse().expect("seconds");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
    assert!(now.abs_diff(timestamp) < 60);
    assert_eq!(headers["x-staunch-signature"], sign(SECRET, timestamp, &body), "signed");
    assert!(headers["content-type"].starts_with("application/cloudevents+json"));
    let event: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
    let id = event["id"].as_str().expect("an id").to_owned();
    assert_eq!(headers["idempotency-key"], id);
    let data: Alert = serde_json::from_value(event["data"].clone()).expect("an alert");
    let n: u32 = id.strip_prefix("alert-").and_then(|n| n.parse().ok()).expect("our ids");
    assert_eq!(data, alert(n), "whole");
    Some(id)
}

/// Answers, and says whether the connection goes on.
fn answer(stream: &mut TcpStream, mood: Mood, id: &str, taken: &Mutex<Vec<String>>, trap: SocketAddr) -> bool {
    let take = || taken.lock().expect("sound").push(id.to_owned());
    let text = match mood {
        Mood::Good => {
            take();
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_owned()
        }
        Mood::TakeAndBreak => {
            take();
            return false;
        }
        Mood::Hang => {
            std::thread::sleep(Duration::from_millis(400));
            return false;
        }
        Mood::Redirect => format!("HTTP/1.1 307 X\r\nLocation: http://{trap}/\r\nContent-Length: 0\r\n\r\n"),
        Mood::Status(code) => format!("HTTP/1.1 {code} X\r\nContent-Length: 0\r\n\r\n"),
        Mood::CloseAtOnce => unreachable!("handled before the request is read"),
    };
    stream.write_all(text.as_bytes()).is_ok()
}

struct Names(Mutex<Vec<String>>);

impl HostResolver for Names {
    fn resolve(&self, host: &str, port: u16) -> std::io::Result<Vec<SocketAddr>> {
        self.0.lock().expect("sound").push(host.to_owned());
        Ok(vec![(Ipv4Addr::new(169, 254, 169, 254), port).into(), (Ipv4Addr::LOCALHOST, port).into()])
    }
}

#[test]
fn a_webhook_that_fails_half_the_time_loses_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let collector = Collector::start(address());
    let address = collector.address;
    let config = config(
        "soc",
        SinkKind::Webhook {
            url: format!("http://soc.test:{}/alerts?x=1", address.port()),
            secret: Some(SECRET.to_vec()),
            roots: None,
            timeout: Duration::from_millis(200),
        },
    );
    let names = Arc::new(Names(Mutex::default()));
    let store = open(dir.path(), &config);
    let delivery = Delivery::start(config.clone(), &store, Some(names.clone())).expect("starts");
    raise(&store, 0..40);
    until("the first alerts", || collector.taken.lock().expect("sound").len() > 20);

    // The collector goes away, then so do we, while more alerts come.
    let mut taken = collector.end();
    raise(&store, 40..60);
    until("failures", || delivery.status()[0].failing);
    assert!(delivery.depth() >= 20 && delivery.oldest().is_some());
    delivery.shutdown(Duration::from_secs(5));
    store.close();

    let store = open(dir.path(), &config);
    raise(&store, 60..80);
    let delivery = Delivery::start(config, &store, Some(names.clone())).expect("starts");
    std::thread::sleep(Duration::from_millis(50));
    let collector = Collector::start(address);
    raise(&store, 80..100);
    until("the rest", || delivery.depth() == 0);
    let status = delivery.status();
    delivery.shutdown(Duration::from_secs(5));
    store.close();
    taken.extend(collector.end());
    assert_in_order(&taken, 100);
    assert!(taken.len() > 100, "an alert whose answer was lost comes again");
    assert!(names.0.lock().expect("sound").iter().all(|name| name == "soc.test"));
    println!("webhook: 100 alerts, {} deliveries, {} failed tries since restart", taken.len(), status[0].failed);
}

fn id_of(message: &str) -> String {
    assert!(message.starts_with("<130>1 2026-01-02T03:04:05.678Z gw-1 staunch - quarantine [staunch@32473 id=\""));
    assert!(!message.chars().any(char::is_control), "{message:?}");
    let (_, rest) = message.split_once(" id=\"").expect("an id");
    rest.split('"').next().expect("closed").to_owned()
}

#[test]
fn syslog_over_udp_goes_on_when_the_receiver_returns() {
    let dir = tempfile::tempdir().expect("a directory");
    let address = address();
    let target = SyslogTarget::Udp { host: address.ip().to_string(), port: address.port() };
    let config = config("siem", SinkKind::Syslog { target });
    let store = open(dir.path(), &config);
    raise(&store, 0..20);
    let delivery = Delivery::start(config, &store, None).expect("starts");
    until("failures", || delivery.status()[0].failed > 3);
    let socket = UdpSocket::bind(address).expect("binds again");
    socket.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
    raise(&store, 20..40);
    let mut ids = Vec::new();
    let mut buffer = [0; 65_536];
    while ids.last().is_none_or(|id| id != "alert-39") {
        let octets = socket.recv(&mut buffer).expect("a message");
        ids.push(id_of(std::str::from_utf8(&buffer[..octets]).expect("UTF-8")));
    }
    assert_in_order(&ids, 40);
    delivery.shutdown(Duration::from_secs(5));
    store.close();
}

#[test]
fn syslog_over_tcp_survives_a_receiver_that_comes_and_goes() {
    let dir = tempfile::tempdir().expect("a directory");
    let address = address();
    let listener = TcpListener::bind(address).expect("binds");
    let target: SyslogTarget = format!("tcp://{address}").parse().expect("an address");
    let config = config("siem", SinkKind::Syslog { target });
    let store = open(dir.path(), &config);
    let delivery = Delivery::start(config, &store, None).expect("starts");
    let mut ids = Vec::new();
    let mut listener = Some(listener);
    // Each connection takes a few messages; between two of them nobody listens.
    for (round, last) in [9, 19, 29].into_iter().enumerate() {
        let from = round as u32 * 10;
        raise(&store, from..from + 10);
        let current = listener.take().unwrap_or_else(|| TcpListener::bind(address).expect("binds again"));
        let (stream, _) = current.accept().expect("a connection");
        let mut reader = BufReader::new(stream);
        while ids.last().is_none_or(|id| *id != format!("alert-{last}")) {
            let mut length = Vec::new();
            reader.read_until(b' ', &mut length).expect("a length");
            let length: usize = std::str::from_utf8(&length).expect("ASCII").trim().parse().expect("a number");
            let mut message = vec![0; length];
            reader.read_exact(&mut message).expect("a message");
            ids.push(id_of(std::str::from_utf8(&message).expect("UTF-8")));
        }
        until("the position", || delivery.depth() == 0);
    }
    assert_in_order(&ids, 30);
    delivery.shutdown(Duration::from_secs(5));
    store.close();
}

#[test]
fn a_connection_that_nobody_reads_or_acknowledges_takes_nothing_for_granted() {
    let dir = tempfile::tempdir().expect("a directory");
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let target: SyslogTarget = format!("tcp://{}", listener.local_addr().expect("bound")).parse().expect("an address");
    let config = config("siem", SinkKind::Syslog { target });
    let store = open(dir.path(), &config);
    raise(&store, 0..1);
    let delivery = Delivery::start(config, &store, None).expect("starts");
    // Reset: the receiver goes with the first message unread.
    let (stream, _) = listener.accept().expect("a connection");
    until("the message", || stream.peek(&mut [0]).is_ok_and(|n| n > 0));
    drop(stream);
    raise(&store, 1..2);
    let (stream, _) = listener.accept().expect("a new connection, for the old one was seen to be dead");
    let mut octets = [0; 200];
    (&stream).read_exact(&mut octets).expect("a message");
    assert!(String::from_utf8_lossy(&octets).contains("id=\"alert-"));
    delivery.shutdown(Duration::from_secs(10));
    store.close();
}

#[test]
fn syslog_over_a_unix_socket_waits_for_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("log");
    let config = config("local", SinkKind::Syslog { target: SyslogTarget::Unix { path: path.clone() } });
    let store = open(&dir.path().join("state"), &config);
    raise(&store, 0..10);
    let delivery = Delivery::start(config, &store, None).expect("starts");
    let mut ids = Vec::new();
    let mut buffer = [0; 65_536];
    for last in ["alert-9", "alert-19"] {
        until("failures", || delivery.status()[0].failing);
        let socket = UnixDatagram::bind(&path).expect("binds");
        socket.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
        while ids.last().is_none_or(|id| id != last) {
            let octets = socket.recv(&mut buffer).expect("a message");
            ids.push(id_of(std::str::from_utf8(&buffer[..octets]).expect("UTF-8")));
        }
        until("the position", || delivery.depth() == 0);
        drop(socket);
        std::fs::remove_file(&path).expect("removed");
        if last == "alert-9" {
            raise(&store, 10..20);
        }
    }
    assert_in_order(&ids, 20);
    delivery.shutdown(Duration::from_secs(5));
    store.close();
}

#[test]
fn alerts_that_cannot_be_read_from_the_journal_are_a_failure_of_their_delivery() {
    let dir = tempfile::tempdir().expect("a directory");
    let (state, away, file) = (dir.path().join("state"), dir.path().join("away"), dir.path().join("alerts.jsonl"));
    let config = config("own", SinkKind::File { path: file.clone() });
    let store = open(&state, &config);
    raise(&store, 0..3);
    std::fs::rename(&state, &away).expect("moved");
    let delivery = Delivery::start(config, &store, None).expect("starts");
    until("a failure", || delivery.status()[0].failing);
    assert_eq!((delivery.depth(), file.exists()), (3, false));
    std::fs::rename(&away, &state).expect("moved back");
    until("the position", || delivery.depth() == 0 && !delivery.status()[0].failing);
    let text = std::fs::read_to_string(&file).expect("the file");
    assert_eq!(text.lines().count(), 3);
    delivery.shutdown(Duration::from_secs(5));
    store.close();
}
