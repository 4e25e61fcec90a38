//! Ages of domains through the whole daemon: registries on loopback, day files, restarts and reloads.

mod daemon;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use daemon::{Daemon, ENFORCE, chunk, code};
use serde_json::{Value, json};

/// A registry that knows every domain, registered on one day, and answers after a while.
struct Registry {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Registry {
    fn start(day: &str, delay: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let address = listener.local_addr().expect("address");
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (seen, day) = (requests.clone(), day.to_owned());
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (seen, day) = (seen.clone(), day.clone());
                std::thread::spawn(move || serve(stream, &seen, &day, delay));
            }
        });
        Self { address, requests }
    }

    /// Paths asked for, sorted.
    fn asked(&self) -> Vec<String> {
        let mut all = self.requests.lock().expect("not poisoned").clone();
        all.sort();
        all
    }

    /// Waits until so many requests came.
    fn await_requests(&self, count: usize) -> Vec<String> {
        let end = Instant::now() + Duration::from_secs(20);
        while self.asked().len() < count {
            assert!(Instant::now() < end, "{:?}", self.asked());
            std::thread::sleep(Duration::from_millis(5));
        }
        self.asked()
    }

    /// A configuration that asks it, in a directory of its own beside the daemon's.
    fn config(&self, settings: &str) -> (tempfile::TempDir, String) {
        let dir = tempfile::tempdir().expect("directory");
        let file = dir.path().join("dns.json");
        let text = format!(r#"{{"version":"1.0","services":[[["example"],["http://{}/rdap/"]]]}}"#, self.address);
        std::fs::write(&file, text).expect("written");
        let config = format!("{ENFORCE}[age]\nrdap = \"on\"\nbootstrap = \"{}\"\n{settings}\n", file.display());
        (dir, config)
    }
}

fn serve(mut stream: TcpStream, seen: &Mutex<Vec<String>>, day: &str, delay: Duration) {
    let mut head = Vec::new();
    let mut octet = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut octet).is_ok_and(|n| n == 1) {
        head.push(octet[0]);
    }
    let head = String::from_utf8(head).expect("ASCII");
    let Some(path) = head.split(' ').nth(1) else { return };
    seen.lock().expect("not poisoned").push(path.to_owned());
    std::thread::sleep(delay);
    let body = format!(
        r#"{{"objectClassName":"domain","events":[{{"eventAction":"registration","eventDate":"{day}T00:00:00Z"}}]}}"#
    );
    let _ = write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: application/rdap+json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
}

fn day(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%d").to_string()
}

fn today() -> String {
    day(jiff::Timestamp::now())
}

/// The age reading of a score; null in an event where the signal has nothing to say.
fn age_reading(score: &Value) -> &Value {
    let readings = score["readings"].as_array().expect("readings");
    readings.iter().find(|reading| reading["signal"] == "domain-age").unwrap_or(&Value::Null)
}

#[test]
fn the_first_query_waits_for_its_domains_age_and_is_judged_by_it_once() {
    let registry = Registry::start(&today(), Duration::from_millis(50));
    let (_dir, config) = registry.config("hold_ms = 2000");
    let mut daemon = Daemon::start(&config);
    assert_eq!(daemon.ask("www.site.example", 1).0, 0);
    let event = daemon.event(|e| e["qname"] == "www.site.example");
    assert_eq!(age_reading(&event["score"])["contribution"], 2.5, "judged with the age: {event:#}");
    let shown = daemon.json(&["session", "show", "s1"]);
    assert_eq!((&shown["session"]["queries"], &shown["session"]["forwarded"]), (&1.into(), &1.into()), "{shown:#}");
    assert_eq!(registry.asked(), ["/rdap/domain/site.example"]);

    let explained = daemon.json(&["explain", "mail.site.example", "--session", "s1"]);
    assert_eq!(explained["age"]["registered"]["from"], "rdap", "{explained:#}");
    assert_eq!(explained["age"]["registered"]["day"], today());
    let looked_up = explained["age"]["looked_up"].clone();
    assert!(looked_up.as_str().is_some_and(|at| at.starts_with("20")), "{explained:#}");
    let said =
        String::from_utf8(daemon.run(&["explain", "mail.site.example", "--session", "s1"]).stdout).expect("UTF-8");
    assert!(said.contains("by its registry (registry asked 20"), "{said}");

    // The index is flushed within a second or two; the kill comes after that.
    std::thread::sleep(Duration::from_millis(2_500));
    daemon.restart();
    let explained = daemon.json(&["explain", "mail.site.example", "--session", "s1"]);
    assert_eq!(explained["age"]["looked_up"], looked_up, "kept over a restart: {explained:#}");
    assert_eq!(age_reading(&explained["score"])["contribution"], 2.5);
    daemon.ask("more.site.example", 1);
    assert_eq!(registry.asked().len(), 1, "not asked again");
}

#[test]
fn a_slow_registry_holds_nobody_longer_than_the_hold() {
    let registry = Registry::start(&today(), Duration::from_secs(5));
    let (_dir, config) = registry.config("hold_ms = 1500");
    let daemon = Daemon::start(&config);
    let timed = |name: &str| {
        let started = Instant::now();
        assert_eq!(daemon.ask(name, 1).0, 0, "{name}");
        started.elapsed()
    };
    // While one query waits, its listener answers others.
    let first = std::thread::scope(|scope| {
        let first = scope.spawn(|| timed("www.site.example"));
        registry.await_requests(1);
        daemon.ask("printer.local", 1);
        assert!(!first.is_finished(), "answered beside it, not behind it");
        first.join().expect("answered")
    });
    assert!(first >= Duration::from_millis(1_495) && first < Duration::from_millis(4_500), "{first:?}");
    let second = timed("mail.site.example");
    assert!(second < Duration::from_millis(1_200), "the hold counts from the domain's first query: {second:?}");
    let event = daemon.event(|e| e["qname"] == "www.site.example");
    assert!(event["score"].is_object() && age_reading(&event["score"]).is_null(), "{event:#}");
    assert!(event["duration_us"].as_u64().is_some_and(|us| us >= 1_495_000), "the wait is told: {event:#}");
}

#[test]
fn nothing_but_registrable_domains_of_answered_unlisted_names_is_asked_for() {
    let registry = Registry::start("2001-02-03", Duration::ZERO);
    let (_dir, config) = registry.config("per_session_hour = 8");
    let rule = "[[rule]]\nid = \"known\"\naction = \"allow\"\nnames = [\"known.example\"]\nowner = \"o\"\nreason = \"r\"\n\
                review_by = \"2099-01-01\"\n";
    let daemon = Daemon::start(&format!("{config}{rule}"));
    daemon.ask("a.dump.example", 1); // denied
    daemon.ask("www.known.example", 1); // allowed by a rule
    daemon.ask("printer.local", 1); // answered locally
    daemon.ask("host.elsewhere", 1); // no registry
    daemon.ask("www.site.example", 1);
    assert_eq!(registry.await_requests(1), ["/rdap/domain/site.example"]);
    for i in 0..10 {
        daemon.ask(&format!("{}.evil.example", chunk(i)), 1);
    }
    assert_eq!(registry.await_requests(2), ["/rdap/domain/evil.example", "/rdap/domain/site.example"]);
    let before = daemon.json(&["session", "show", "s1"]);
    assert_ne!(before["session"]["refused"], 0, "the tunnel was refused: {before:#}");
    for i in 0..20 {
        daemon.ask(&format!("www.shop{i}.example"), 1);
    }
    std::thread::sleep(Duration::from_millis(300));
    let asked = registry.asked();
    assert!(asked.len() <= 16, "eight an hour, and the hour may turn: {asked:?}");
    assert!(
        asked.iter().all(|path| path.split('/').next_back().is_some_and(|d| d.split('.').count() == 2)),
        "{asked:?}"
    );
}

#[test]
fn day_files_are_a_ring_and_a_garbled_one_keeps_the_last_good() {
    let daemon = Daemon::start(ENFORCE);
    let directory = daemon.dir.path().join("nrd");
    std::fs::create_dir(&directory).expect("created");
    let write = |name: &str, text: &str| std::fs::write(directory.join(name), text).expect("written");
    let explain = |name: &str| daemon.json(&["explain", name, "--session", "s1"])["age"].clone();
    // Three days ago, the day before yesterday, yesterday, today.
    let days: Vec<String> =
        (0..4).rev().map(|ago| day(jiff::Timestamp::now() - jiff::SignedDuration::from_hours(24 * ago))).collect();
    let file = |at: usize| format!("{}.txt", days[at]);
    write(&file(0), "gone.example\n");
    write(&file(1), "old.example\n");
    write(&file(2), "# two\nnew.example\nold.example\n");
    write("notes.md", "not a day\n");
    let config = daemon.dir.path().join("staunch.toml");
    let text = std::fs::read_to_string(&config).expect("read");
    std::fs::write(&config, format!("{text}[age]\nnrd_dir = \"nrd\"\nnrd_days = 2\n")).expect("written");
    assert_eq!(code(&daemon.run(&["reload"])), 0);
    let new = explain("www.new.example");
    assert_eq!(new["registered"]["from"], "list", "{new:#}");
    assert_eq!(
        (&new["registered"]["day"], &new["registered"]["list"]),
        (&json!(days[2]), &json!(format!("nrd-{}", days[2])))
    );
    assert_eq!(new["registered"]["file"], format!("nrd/{}", file(2)));
    assert_eq!(explain("old.example")["registered"]["day"], days[2], "registered again");
    assert!(explain("gone.example")["registered"].is_null(), "older than the ring");

    // A damaged day must not hold up a rule.
    write(&file(3), "fresh.example\n<html>\n<body>\n</html>\n");
    let text = std::fs::read_to_string(&config).expect("read");
    let rule =
        "[[rule]]\nid = \"urgent\"\naction = \"deny\"\nnames = [\"=urgent.example\"]\nowner = \"o\"\nreason = \"r\"\n";
    std::fs::write(&config, format!("{text}{rule}")).expect("written");
    assert_eq!(daemon.json(&["explain", "urgent.example", "--session", "s1"])["verdict"], "answer");
    let output = daemon.run(&["reload"]);
    assert_eq!(code(&output), 0, "{}", String::from_utf8_lossy(&output.stderr));
    let urgent = daemon.json(&["explain", "urgent.example", "--session", "s1"]);
    assert_eq!(urgent["verdict"], "sinkhole", "{urgent:#}");
    assert_eq!(explain("www.new.example")["registered"]["day"], days[2], "the last good ring");
    assert!(explain("fresh.example")["registered"].is_null(), "nothing of the damaged one");
    let digest = daemon.json(&["status"])["digest"].clone();

    write(&file(3), "fresh.example\n");
    assert_eq!(code(&daemon.run(&["reload"])), 0);
    assert_eq!(explain("fresh.example")["registered"]["day"], days[3], "a new day");
    assert_eq!(explain("old.example")["registered"]["day"], days[2]);
    assert_ne!(daemon.json(&["status"])["digest"], digest);
}

#[test]
fn answers_age_a_domain_for_the_group_and_refusals_do_not() {
    let free = SocketAddr::from(([127, 0, 0, 1], daemon::port::free_port()));
    let registry = Registry::start("2001-02-03", Duration::ZERO);
    let (_dir, config) = registry.config("");
    let second = "[[session]]\nid = \"s2\"\naddresses = [\"127.0.0.2\"]\ntype = \"batch\"\nowner = \"team-b\"\n";
    let daemon = Daemon::start_with_metrics(&free.to_string(), &format!("{config}{second}"));
    let metric = |name: &str| {
        let mut stream = TcpStream::connect(free).expect("metrics");
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("sent");
        let mut page = String::new();
        stream.read_to_string(&mut page).expect("page");
        let line = page.lines().find_map(|line| line.strip_prefix(&format!("staunch_{name}{{}} ")).map(str::to_owned));
        line.unwrap_or_else(|| panic!("no {name} in {page}")).parse::<f64>().expect("number")
    };
    daemon.ask("a.dump.example", 1);
    daemon.ask("printer.local", 1);
    assert_eq!((metric("first_seen_domains"), metric("group_seen_groups")), (0.0, 0.0), "nothing was answered");
    daemon.ask("www.site.example", 1);
    daemon.ask("mail.site.example", 1);
    assert_eq!(metric("first_seen_domains"), 1.0);
    assert_eq!((metric("group_seen_groups"), metric("group_seen_entries")), (1.0, 2.0), "a domain and its group");
    // The other group gets the same answer from the cache: it has used the domain too.
    let socket = std::net::UdpSocket::bind("127.0.0.2:0").expect("a second source");
    socket.set_read_timeout(Some(Duration::from_secs(20))).expect("time limit");
    let query = b"\x07\x07\x01\x00\x00\x01\x00\x00\x00\x00\x00\x01\x03www\x04site\x07example\x00\x00\x01\x00\x01\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x00";
    socket.send_to(query, daemon.address).expect("sent");
    socket.recv(&mut [0; 512]).expect("a reply");
    let event = daemon.event(|e| e["session"] == "s2");
    assert_eq!(event["source"], "cache", "{event:#}");
    assert_eq!((metric("group_seen_groups"), metric("group_seen_entries")), (2.0, 4.0));
    assert_eq!(metric("first_seen_domains"), 1.0);
    registry.await_requests(1);
    // What it has answered may still be on its way.
    let until = Instant::now() + Duration::from_secs(10);
    while metric("registered_domains") < 1.0 && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!((metric("rdap_requests_total"), metric("registered_domains")), (1.0, 1.0));
}
