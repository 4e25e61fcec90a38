//! Against a registry on loopback that speaks RDAP over HTTP, with its faults.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Instant;

use staunch_scoring::NameBuf;

use super::*;
use crate::model::Wall;
use crate::store::{IndexKind, Options, Store};

/// What a registry answers.
struct Reply {
    status: u16,
    headers: String,
    body: Vec<u8>,
    delay: Duration,
}

impl Reply {
    fn new(status: u16, headers: &str, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: headers.into(), body: body.into(), delay: Duration::ZERO }
    }

    fn registered(domain: &str, day: &str) -> Self {
        Self::new(
            200,
            "Content-Type: application/rdap+json\r\n",
            format!(
                r#"{{"rdapConformance":["rdap_level_0"],"objectClassName":"domain","ldhName":"{domain}","status":["active"],
                "events":[{{"eventAction":"registration","eventDate":"{day}T00:00:00Z"}},
                {{"eventAction":"expiration","eventDate":"2030-01-01T00:00:00Z"}}]}}"#
            ),
        )
    }

    fn late(self, ms: u64) -> Self {
        Self { delay: Duration::from_millis(ms), ..self }
    }
}

/// A registry's server. Every request line and its time is kept.
struct Registry {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<(String, Instant)>>>,
}

impl Registry {
    /// `answer` is told the path and how many requests came before.
    fn start(answer: impl Fn(&str, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let address = listener.local_addr().expect("address");
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (seen, answer) = (requests.clone(), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (seen, answer) = (seen.clone(), answer.clone());
                thread::spawn(move || {
                    let head = read_head(&stream);
                    let Some(line) = head.lines().next() else { return };
                    let before = {
                        let mut seen = seen.lock();
                        seen.push((head.clone(), Instant::now()));
                        seen.len() - 1
                    };
                    let path = line.split(' ').nth(1).unwrap_or_default();
                    send(stream, answer(path, before));
                });
            }
        });
        Self { address, requests }
    }

    fn url(&self) -> String {
        format!("http://{}/rdap/", self.address)
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().iter().map(|(head, _)| head.lines().next().unwrap_or_default().to_owned()).collect()
    }
}

fn read_head(mut stream: &TcpStream) -> String {
    let mut head = Vec::new();
    let mut octet = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut octet).is_ok_and(|n| n == 1) {
        head.push(octet[0]);
    }
    String::from_utf8_lossy(&head).into_owned()
}

fn send(mut stream: TcpStream, reply: Reply) {
    thread::sleep(reply.delay);
    let Reply { status, headers, body, .. } = reply;
    let head = format!("HTTP/1.1 {status} X\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    // The client may have gone away, which is what some tests are about.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
}

/// A port of loopback that nobody listens on, and that the system gives to nobody by itself.
fn nobody() -> &'static str {
    "http://127.0.0.1:9/"
}

fn domain(text: &str) -> NameBuf {
    NameBuf::from_text(text).expect("name")
}

fn day(text: &str) -> u64 {
    crate::lists::Day::parse(text).expect("day").start()
}

fn bootstrap(urls: &[&str]) -> Bootstrap {
    let text = serde_json::json!({ "version": "1.0", "services": [[["example"], urls]] }).to_string();
    Bootstrap::parse(text.as_bytes()).expect("bootstrap")
}

fn config(urls: &[&str]) -> Config {
    Config {
        bootstrap: bootstrap(urls),
        hold: Duration::from_millis(200),
        per_minute: 6_000,
        per_session_hour: 100,
        timeout: Duration::from_secs(2),
    }
}

struct World {
    store: Store,
    rdap: Rdap,
    _dir: tempfile::TempDir,
}

impl World {
    fn start(config: Config) -> Self {
        Self::with(config, None)
    }

    fn with(config: Config, resolver: Option<Arc<dyn HostResolver>>) -> Self {
        let dir = tempfile::tempdir().expect("directory");
        let (store, _) =
            Store::open(dir.path(), Options { index: IndexKind::Memory, ..Options::default() }).expect("store");
        let rdap = Rdap::start(config, store.registered(), resolver).expect("threads");
        Self { store, rdap, _dir: dir }
    }

    fn known(&self, name: &str) -> Option<Registration> {
        self.store.registered().get(domain(name).as_ref(), clock::now().wall.steady)
    }

    fn ask(&self, name: &str, session: u64) -> Asked {
        self.rdap.ask(domain(name).as_ref(), session, clock::now())
    }

    /// What is known of a domain once its look-up has ended.
    fn learn(&self, name: &str) -> Option<Registration> {
        if let Asked::Waits(wait) = self.ask(name, 1) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("runtime");
            runtime.block_on(wait.ended(Duration::from_secs(20), clock::now().mono));
        }
        until(|| self.rdap.waiting() == 0);
        self.known(name)
    }

    fn counted(&self, of: impl Fn(&Counters) -> &AtomicU64) -> u64 {
        of(self.rdap.counters()).load(Ordering::Relaxed)
    }
}

fn until(mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < end, "not in time");
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn every_fault_of_a_server_has_its_outcome() {
    let neighbour = Registry::start(|_, _| Reply::registered("shop.example", "2001-02-03"));
    let inside = format!("Location: http://{}/x\r\n", neighbour.address);
    let registry = Registry::start(move |path, _| match path {
        "/dated" => Reply::registered("shop.example", "2001-02-03"),
        "/upper" => Reply::registered("SHOP.EXAMPLE", "2001-02-03"),
        "/other" => Reply::registered("else.example", "2001-02-03"),
        "/undated" => Reply::new(200, "", r#"{"objectClassName":"domain"}"#),
        "/garbage" => Reply::new(200, "", "<html>busy</html>"),
        "/empty" => Reply::new(200, "", ""),
        "/huge" => Reply::new(200, "", vec![b' '; 5 << 20]),
        "/absent" => Reply::new(404, "", r#"{"errorCode":404}"#),
        "/busy" => Reply::new(429, "Retry-After: 7\r\n", ""),
        "/down" => Reply::new(503, "", ""),
        "/broken" => Reply::new(500, "", ""),
        "/forbidden" => Reply::new(403, "", ""),
        "/slow" => Reply::registered("shop.example", "2001-02-03").late(3_000),
        "/moved" => Reply::new(302, "Location: /moved2\r\n", ""),
        "/moved2" => Reply::new(307, "Location: /moved3\r\n", ""),
        "/moved3" => Reply::new(301, "Location: /dated\r\n", ""),
        "/far" => Reply::new(302, "Location: /moved\r\n", ""),
        "/loop" => Reply::new(302, "Location: /loop\r\n", ""),
        "/lost" => Reply::new(302, "", ""),
        "/ftp" => Reply::new(302, "Location: ftp://x.example/\r\n", ""),
        // A neighbour of ours, whom a registry has no business to send us to.
        "/inside" => Reply::new(302, &inside, ""),
        "/headers" => Reply::new(200, &format!("X: {}\r\n", "x".repeat(64 << 10)), ""),
        _ => Reply::new(404, "", ""),
    });
    let client = Client::new(None);
    let name = domain("shop.example");
    let ask = |path: &str| {
        let url = format!("http://{}{path}", registry.address);
        client.look_up(&url, name.as_ref(), day("2026-11-21"), Duration::from_millis(1_000))
    };
    let dated = Outcome::Said(Some(day("2001-02-03")));
    for (path, expected) in [
        ("/dated", dated),
        ("/upper", dated),
        ("/other", Outcome::Garbage),
        ("/undated", Outcome::Said(None)),
        ("/garbage", Outcome::Garbage),
        ("/empty", Outcome::Garbage),
        ("/huge", Outcome::Garbage),
        ("/absent", Outcome::NotThere),
        ("/busy", Outcome::Busy(Some(7_000))),
        ("/down", Outcome::Busy(None)),
        ("/broken", Outcome::Unreachable),
        ("/forbidden", Outcome::Refused),
        ("/moved", dated),
        ("/far", Outcome::Garbage),
        ("/loop", Outcome::Garbage),
        ("/lost", Outcome::Garbage),
        ("/ftp", Outcome::Garbage),
        ("/inside", Outcome::Unreachable),
        ("/headers", Outcome::Garbage),
    ] {
        assert_eq!(ask(path), expected, "{path}");
    }
    assert!(neighbour.requests().is_empty(), "{:?}", neighbour.requests());
    let started = Instant::now();
    assert_eq!(ask("/slow"), Outcome::Unreachable);
    assert!(started.elapsed() < Duration::from_millis(2_000), "{:?}", started.elapsed());
    assert_eq!(client.look_up(nobody(), name.as_ref(), 0, Duration::from_secs(1)), Outcome::Unreachable);
    assert_eq!(
        client.look_up("http://named.example/", name.as_ref(), 0, Duration::from_secs(1)),
        Outcome::Unreachable,
        "without a resolver no host is looked up"
    );
}

/// Panics as it looks up a host, as a mistake in our own code does.
struct Fragile;

impl HostResolver for Fragile {
    fn resolve(&self, _host: &str, _port: u16) -> std::io::Result<Vec<SocketAddr>> {
        panic!("what a mistake in our own code does")
    }
}

#[test]
fn a_look_up_that_panics_ends_and_others_go_on() {
    let registry =
        Registry::start(|path, _| Reply::registered(path.rsplit('/').next().unwrap_or_default(), "2020-05-06"));
    let services = serde_json::json!([[["example"], ["http://named.example/"]], [["test"], [registry.url()]]]);
    let text = serde_json::json!({ "version": "1.0", "services": services }).to_string();
    let mut config = config(&[&registry.url()]);
    config.bootstrap = Bootstrap::parse(text.as_bytes()).expect("bootstrap");
    let world = World::with(config, Some(Arc::new(Fragile)));
    // More than there are threads.
    for n in 0..2 * THREADS {
        let known = world.learn(&format!("d{n}.example")).expect("postponed");
        assert_eq!((known.registered, known.due - known.checked >= AGAIN_REFUSED_MS - 60_000), (None, true));
    }
    assert_eq!(world.learn("shop.test").expect("known").registered, Some(day("2020-05-06")));
    assert_eq!((world.counted(|c| &c.panicked), world.counted(|c| &c.dated)), (2 * THREADS as u64, 1));
    assert!(!world.rdap.has_ended());
}

#[test]
fn a_domain_is_asked_for_once_and_nothing_but_its_own_name_leaves() {
    let registry = Registry::start(|_, _| Reply::registered("shop.example", "2020-05-06").late(100));
    let world = World::start(config(&[&registry.url()]));
    let waits: Vec<_> = (0..50).map(|session| world.ask("shop.example", session)).collect();
    assert!(waits.iter().all(|asked| matches!(asked, Asked::Waits(_))));
    until(|| world.rdap.waiting() == 0);
    let known = world.known("shop.example").expect("known");
    assert_eq!(known.registered, Some(day("2020-05-06")));
    assert_eq!(known.due - known.checked, AGAIN_OLD_MS, "an old domain is asked for again after a month");
    assert!(matches!(world.ask("shop.example", 1), Asked::No), "known");
    assert_eq!(registry.requests(), ["GET /rdap/domain/shop.example HTTP/1.1"]);
    let head = registry.requests.lock()[0].0.to_ascii_lowercase();
    assert!(head.contains("accept: application/rdap+json"), "{head}");
    let fields: Vec<&str> = head.lines().skip(1).filter_map(|line| line.split(':').next()).collect();
    for field in fields.iter().filter(|field| !field.is_empty()) {
        assert!(["host", "accept", "user-agent", "accept-encoding"].contains(field), "{field}");
    }
    for no in ["a_b.example", "example", ".", "x.elsewhere", "1.in-addr.arpa"] {
        assert!(matches!(world.ask(no, 1), Asked::No), "{no}");
    }
    assert_eq!(registry.requests().len(), 1);
    assert_eq!((world.counted(|c| &c.requests), world.counted(|c| &c.dated)), (1, 1));
}

#[test]
fn a_server_that_asks_for_a_pause_gets_it() {
    let registry = Registry::start(|_, before| match before {
        0 => Reply::new(429, "Retry-After: 1\r\n", ""),
        _ => Reply::registered("shop.example", "2020-05-06"),
    });
    let world = World::start(config(&[&registry.url()]));
    assert_eq!(world.learn("shop.example").expect("known").registered, Some(day("2020-05-06")));
    let times: Vec<Instant> = registry.requests.lock().iter().map(|(_, at)| *at).collect();
    assert_eq!(times.len(), 2);
    assert!(times[1] - times[0] >= Duration::from_millis(990), "{:?}", times[1] - times[0]);
    assert_eq!((world.counted(|c| &c.busy), world.counted(|c| &c.given_up)), (1, 0));
}

#[test]
fn nothing_waits_for_a_server_that_asks_to_be_left_alone_for_longer() {
    let registry = Registry::start(|path, _| match path {
        "/rdap/domain/short.example" => Reply::new(429, "Retry-After: 60\r\n", ""),
        _ => Reply::new(429, "Retry-After: 3600\r\n", ""),
    });
    let world = World::start(config(&[&registry.url()]));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("runtime");
    let waited = |asked| {
        let started = Instant::now();
        if let Asked::Waits(wait) = asked {
            runtime.block_on(wait.ended(Duration::from_secs(5), clock::now().mono));
        }
        started.elapsed()
    };
    world.ask("short.example", 1);
    until(|| world.counted(|c| &c.busy) == 1);
    let asked = world.ask("shop.example", 1);
    assert!(matches!(asked, Asked::Waits(_)), "it is looked up when the pause is over");
    let took = waited(asked);
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_eq!(world.rdap.waiting(), 2);

    let world = World::start(config(&[&registry.url()]));
    world.ask("long.example", 1);
    until(|| world.counted(|c| &c.busy) == 1);
    for n in 0..200 {
        assert!(matches!(world.ask(&format!("n{n}.example"), 1), Asked::No), "it would be given up before");
    }
    assert_eq!((world.rdap.waiting(), world.counted(|c| &c.given_up)), (1, 200));
    let known = world.known("n7.example").expect("noted");
    assert_eq!((known.registered, known.due - known.checked), (None, AGAIN_FAILED_MS));
    assert_eq!((registry.requests().len(), world.counted(|c| &c.over_share)), (2, 0));
}

#[test]
fn the_next_server_answers_where_the_first_does_not() {
    let registry = Registry::start(|_, _| Reply::registered("shop.example", "2020-05-06"));
    let world = World::start(config(&[nobody(), &registry.url()]));
    assert_eq!(world.learn("shop.example").expect("known").registered, Some(day("2020-05-06")));
    assert_eq!((world.counted(|c| &c.unreachable), world.counted(|c| &c.dated)), (1, 1));
}

#[test]
fn what_a_registry_does_not_tell_is_unknown_for_a_time() {
    let registry = Registry::start(|path, _| match path {
        "/rdap/domain/absent.example" => Reply::new(404, "", ""),
        "/rdap/domain/undated.example" => Reply::new(200, "", r#"{"objectClassName":"domain"}"#),
        "/rdap/domain/garbage.example" => Reply::new(200, "", "{"),
        "/rdap/domain/young.example" => Reply::registered("young.example", &today()),
        _ => Reply::new(403, "", ""),
    });
    let world = World::start(config(&[&registry.url()]));
    for (name, registered, again) in [
        ("absent.example", None, AGAIN_ABSENT_MS),
        ("undated.example", None, AGAIN_UNDATED_MS),
        ("garbage.example", None, AGAIN_REFUSED_MS),
        ("forbidden.example", None, AGAIN_REFUSED_MS),
        ("young.example", Some(day(&today())), AGAIN_YOUNG_MS),
    ] {
        let known = world.learn(name).expect(name);
        assert_eq!((known.registered, known.due - known.checked), (registered, again), "{name}");
        assert!(matches!(world.ask(name, 1), Asked::No), "{name} is not asked for again yet");
    }
    assert_eq!(registry.requests().len(), 5);
}

fn today() -> String {
    crate::lists::Day::of_wall(clock::now().wall.steady).to_string()
}

#[test]
fn a_registry_that_never_answers_is_given_up_and_left_alone() {
    let world = World::start(config(&[nobody(), nobody(), nobody()]));
    let known = world.learn("shop.example").expect("noted");
    assert_eq!(known.registered, None);
    assert!(matches!(world.ask("shop.example", 1), Asked::No));
    assert_eq!((world.counted(|c| &c.requests), world.counted(|c| &c.given_up)), (3, 1));
}

#[test]
fn a_session_cannot_drive_more_look_ups_than_its_share() {
    let registry = Registry::start(|_, _| Reply::new(404, "", ""));
    let world = World::start(Config { per_session_hour: 5, ..config(&[&registry.url()]) });
    // The hour may turn between two of these, once.
    for n in 0..40 {
        world.ask(&format!("n{n}.example"), 1);
    }
    until(|| world.rdap.waiting() == 0);
    assert!([5, 10].contains(&registry.requests().len()), "{}", registry.requests().len());
    assert!(world.counted(|c| &c.over_share) >= 30);
    assert!(matches!(world.ask("other.example", 2), Asked::Waits(_)), "another session has its own share");
}

#[test]
fn a_wait_never_exceeds_the_hold() {
    // Between the hold and the answer there is room for what a busy machine does besides.
    let registry = Registry::start(|_, _| Reply::registered("shop.example", "2020-05-06").late(3_500));
    let (hold, timeout) = (Duration::from_millis(1_000), Duration::from_secs(20));
    let world = World::start(Config { hold, timeout, ..config(&[&registry.url()]) });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("runtime");
    let waited = |asked| {
        let started = Instant::now();
        let Asked::Waits(wait) = asked else { panic!("{asked:?}") };
        runtime.block_on(wait.ended(hold, clock::now().mono));
        started.elapsed()
    };
    let first = waited(world.ask("shop.example", 1));
    assert!(first >= hold - Duration::from_millis(5) && first < 3 * hold, "{first:?}");
    let second = waited(world.ask("shop.example", 2));
    assert!(second < hold - Duration::from_millis(100), "the hold counts from the first query: {second:?}");
    until(|| world.rdap.waiting() == 0);
    assert!(world.known("shop.example").expect("learned after all").registered.is_some());
}

#[test]
fn a_wait_ends_when_the_answer_is_there() {
    let registry = Registry::start(|_, _| Reply::registered("shop.example", "2020-05-06"));
    let world = World::start(config(&[&registry.url()]));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("runtime");
    let started = Instant::now();
    let Asked::Waits(wait) = world.ask("shop.example", 1) else { panic!() };
    runtime.block_on(wait.ended(Duration::from_secs(20), clock::now().mono));
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    assert!(world.known("shop.example").expect("there when the wait ends").registered.is_some());
}

#[test]
fn dates_survive_a_restart_and_a_later_registration_replaces_them() {
    let registry = Registry::start(|path, before| match (path, before) {
        ("/rdap/domain/shop.example", 0) => Reply::registered("shop.example", "2001-02-03"),
        ("/rdap/domain/shop.example", _) => Reply::registered("shop.example", &today()),
        _ => Reply::new(404, "", ""),
    });
    let dir = tempfile::tempdir().expect("directory");
    let open = || Store::open(dir.path(), Options { index: IndexKind::Sled, ..Options::default() }).expect("store").0;
    let name = domain("shop.example");
    let later = |days: u64| {
        let now = clock::now();
        Now { mono: now.mono, wall: Wall::at(now.wall.shown + days * DAY_MS) }
    };
    let store = open();
    let rdap = Rdap::start(config(&[&registry.url()]), store.registered(), None).expect("threads");
    assert!(matches!(rdap.ask(name.as_ref(), 1, later(0)), Asked::Waits(_)));
    until(|| rdap.waiting() == 0);
    drop(rdap);
    store.close();
    drop(store);

    let store = open();
    let registered = store.registered();
    until(|| registered.known() == 1);
    assert_eq!(registered.get(name.as_ref(), later(0).wall.steady).expect("kept").registered, Some(day("2001-02-03")));
    let rdap = Rdap::start(config(&[&registry.url()]), registered.clone(), None).expect("threads");
    assert!(matches!(rdap.ask(name.as_ref(), 1, later(29)), Asked::No), "an old domain, asked less than a month ago");
    assert!(matches!(rdap.ask(name.as_ref(), 1, later(31)), Asked::Waits(_)));
    until(|| rdap.waiting() == 0);
    let known = registered.get(name.as_ref(), later(0).wall.steady).expect("known");
    assert_eq!(known.registered, Some(day(&today())), "registered again: new");
    assert_eq!(known.due - known.checked, AGAIN_YOUNG_MS, "and asked for daily");
    assert_eq!(registry.requests().len(), 2);
}

#[test]
fn other_settings_take_effect_while_it_runs() {
    let old = Registry::start(|_, _| Reply::new(404, "", ""));
    let new = Registry::start(|_, _| Reply::registered("shop.example", "2020-05-06"));
    let world = World::start(Config { hold: Duration::ZERO, ..config(&[&old.url()]) });
    assert_eq!(world.learn("absent.example").expect("noted").registered, None);
    world.rdap.configure(config(&[&new.url()]));
    assert_eq!(world.rdap.hold(), Duration::from_millis(200));
    assert_eq!(world.learn("shop.example").expect("known").registered, Some(day("2020-05-06")));
    assert_eq!((old.requests().len(), new.requests().len()), (1, 1));
}
