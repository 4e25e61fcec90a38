//! What is fetched when, and what becomes of a fetch whose list is asked for elsewhere by the time it ends.

use super::*;

fn state(id: &str, due: u64, failures: u32) -> (String, State) {
    let source = Source {
        id: id.into(),
        url: format!("https://lists.example/{id}"),
        format: None,
        day: None,
        refresh: Duration::from_secs(3600),
        timeout: Duration::from_secs(60),
        max_octets: 1 << 20,
        max_growth: 4.0,
        min_share: 0.25,
        denies: true,
        problem: None,
    };
    (id.into(), State { source, due, next: 0, outcome: None, problem: None, failures })
}

fn next(inner: &Inner, now: u64) -> String {
    match inner.next(now) {
        Next::Stop => "stop".into(),
        Next::Put => "put".into(),
        Next::Fetch(source, _) => source.id,
        Next::Tell(_) => "tell".into(),
        Next::Wait(wait) => wait.map_or("wait".into(), |wait| format!("wait {wait}")),
    }
}

#[test]
fn a_server_that_hangs_holds_up_no_list_of_another() {
    let lists = [state("hangs", 10, 3), state("good", 20, 0), state("later", 90_000, 0)];
    let mut inner = Inner { lists: lists.into_iter().collect(), ..Inner::default() };
    assert_eq!(next(&inner, 5), "wait 5");
    assert_eq!(next(&inner, 30), "good", "what is fetched is fetched first");
    inner.lists.extend([state("good", 60_000, 0)]);
    inner.note_good("good", 1_000);
    assert_eq!(next(&inner, 1_000), "hangs", "those that are due may be put in force with it");
    assert_eq!(next(&inner, 1_000 + GATHER_MS), "put", "but not however long they take");
    inner.note_good("later", 8_000);
    assert_eq!(next(&inner, 1_000 + GATHER_MS), "put", "however many come meanwhile");
    // What could not be put in force is tried again, and lists are fetched until then.
    inner.unapplied = Some(Unapplied { since: 1_000, from: 50_000 });
    assert_eq!(next(&inner, 20_000), "hangs");
    inner.lists.extend([state("hangs", 70_000, 4)]);
    assert_eq!(next(&inner, 20_000), "wait 30000");
    assert_eq!(next(&inner, 50_000), "put");
    inner.unapplied = None;
    assert_eq!(next(&inner, 50_000), "wait 10000");
    inner.stopped = true;
    assert_eq!(next(&inner, 50_000), "stop");
}

/// A server that answers one request with a list, after `meanwhile`; its address.
fn server(meanwhile: impl FnOnce() + Send + 'static) -> String {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/list", listener.local_addr().expect("an address"));
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a request");
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut octet = [0];
            stream.read_exact(&mut octet).expect("a request");
            request.extend(octet);
        }
        meanwhile();
        let body = "bad.example\n";
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
        stream.write_all(format!("{head}{body}").as_bytes()).expect("sent");
    });
    url
}

struct Nobody;

impl Listener for Nobody {
    fn put_in_force(&self) -> Result<(), String> {
        Ok(())
    }

    fn tell(&self, _: Told) {}
}

#[test]
fn what_cannot_be_put_in_force_is_told_each_hour_and_so_is_its_end() {
    const MINUTE: u64 = 60_000;
    let mut inner = Inner::default();
    let [good, other] = ["good", "other"].map(|id| state(id, 0, 0).1.source);
    let mut told = |minute: u64, why: Option<&str>| {
        let now = minute * MINUTE;
        inner.note_good(&good.id, now);
        let before = inner.unused(&good);
        let taken = inner.take();
        assert_eq!(inner.unused(&good), before, "while it is tried nothing has changed");
        let told = inner.put(taken, why.map_or(Ok(()), |why| Err(why.into())), now);
        let again = inner.unapplied.map(|unapplied| unapplied.from);
        assert_eq!(again, why.map(|_| now + PUT_AGAIN_MS), "it is tried again");
        assert_eq!((inner.unused(&good).as_deref(), inner.unused(&other)), (why, None));
        told
    };
    let fails = |why: &str| Some(Told::NotInForce { why: why.into() });
    let (own, zone) = ("own.txt does not read", "zone.txt does not read");
    assert_eq!(told(1, None), None);
    assert_eq!(told(2, Some(own)), fails(own));
    let tried = (3..=180).filter_map(|minute| told(minute, Some(own)));
    assert_eq!(tried.collect::<Vec<_>>(), [fails(own), fails(own)].map(|told| told.expect("told")), "at 62 and at 122");
    assert_eq!(told(181, Some(zone)), fails(zone), "another reason");
    assert_eq!((told(182, Some(zone)), told(183, None), told(184, None)), (None, Some(Told::InForce), None));
    assert_eq!(told(185, Some(zone)), fails(zone), "and again");
}

#[test]
fn what_comes_from_where_a_list_is_not_fetched_from_any_more_is_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = |url: &str| {
        let source = Source { url: url.into(), ..state("list", 0, 0).1.source };
        Config { sources: vec![source], state_dir: dir.path().into(), ..Config::default() }
    };
    let shared = Arc::new(Shared {
        inner: Mutex::default(),
        changed: Condvar::new(),
        disk: Mutex::new(()),
        outcomes: Default::default(),
    });
    let other = config("http://127.0.0.1:9/other");
    let reload = {
        let (feeds, other) = (Feeds { shared: shared.clone(), thread: None }, other.clone());
        move || feeds.configure(other)
    };
    let url = server(reload);
    Feeds { shared: shared.clone(), thread: None }.configure(config(&url));
    let source = config(&url).sources.remove(0);
    let copies = Copies::of(dir.path(), "list");
    assert_eq!(fetch(&shared, &Client::new(None), &copies, &source), None);
    assert_eq!(copies.kept(), super::super::copies::Kept::default(), "nothing of it is kept");

    // Nor does it say anything of the other one.
    note(&shared, &Nobody, &source, (Outcome::Failed, Some("hung".into())));
    let standing = |due_by: u64| {
        let inner = shared.inner.lock();
        let state = &inner.lists["list"];
        (state.failures, state.outcome, state.due <= due_by)
    };
    assert_eq!(standing(clock::now().mono), (0, None, true), "it is due as ever");
    let url = server(|| ());
    Feeds { shared: shared.clone(), thread: None }.configure(config(&url));
    let source = config(&url).sources.remove(0);
    let ended = fetch(&shared, &Client::new(None), &copies, &source).expect("a fetch that counts");
    assert_eq!(ended, (Outcome::Fetched, None));
    note(&shared, &Nobody, &source, ended);
    assert_eq!(standing(u64::MAX), (0, Some(Outcome::Fetched), true));
    assert_eq!(copies.kept().good.map(|good| good.url), Some(url));
}

#[test]
fn what_would_not_fit_beside_the_other_lists_does_not_become_good() {
    let dir = tempfile::tempdir().expect("a directory");
    let url = server(|| ());
    let sources = ["list", "other"].map(|id| Source { url: url.clone(), ..state(id, 0, 0).1.source });
    let [source, other] = sources.clone();
    let config = Config { sources: sources.into(), state_dir: dir.path().into(), ..Config::default() };
    let shared = Arc::new(Shared {
        inner: Mutex::default(),
        changed: Condvar::new(),
        disk: Mutex::new(()),
        outcomes: Default::default(),
    });
    let copies = Copies::of(dir.path(), "list");
    Feeds { shared: shared.clone(), thread: None }
        .configure(Config { sources: vec![source.clone()], ..config.clone() });
    assert_eq!(fetch(&shared, &Client::new(None), &copies, &source), Some((Outcome::Fetched, None)));
    // The other list has all the room there is.
    let mut stamp = copies.kept().good.expect("a copy");
    let kept = super::super::copies::Kept::default();
    copies.keep(&kept).expect("kept");
    stamp.most = crate::lists::MAX_NAMES;
    let good = Some(stamp.clone());
    Copies::of(dir.path(), "other").keep(&super::super::copies::Kept { good, ..kept.clone() }).expect("kept");
    let url = server(|| ());
    let source = Source { url, ..source };
    let config = Config { sources: vec![source.clone(), other], ..config };
    Feeds { shared: shared.clone(), thread: None }.configure(config.clone());
    let ended = fetch(&shared, &Client::new(None), &copies, &source).expect("a fetch that counts");
    assert!(ended.0 == Outcome::Refused && ended.1.is_some_and(|why| why.contains("more than fits")));
    assert_eq!(copies.kept(), kept, "nothing of it is kept");
    // Nor by anybody's word.
    stamp.url = source.url.clone();
    stamp.most = 1;
    copies.keep(&super::super::copies::Kept { held: Some(stamp.clone()), ..kept.clone() }).expect("kept");
    let feeds = Feeds { shared, thread: None };
    assert_eq!(feeds.accept("list", &stamp.sha256, "me", "why"), Err(OrderError::NoRoom("list".into())));
    // Names that tell an age stand elsewhere.
    let mut config = config;
    config.sources.iter_mut().for_each(|source| source.denies = false);
    feeds.configure(config);
    assert!(feeds.accept("list", &stamp.sha256, "me", "why").is_ok());
}

#[test]
fn a_word_for_a_version_says_nothing_of_a_server_that_is_not_reached() {
    let dir = tempfile::tempdir().expect("a directory");
    let source = state("list", 0, 0).1.source;
    let feeds = Feeds {
        shared: Arc::new(Shared {
            inner: Mutex::default(),
            changed: Condvar::new(),
            disk: Mutex::new(()),
            outcomes: Default::default(),
        }),
        thread: None,
    };
    let config = Config { sources: vec![source.clone()], state_dir: dir.path().into(), ..Config::default() };
    feeds.configure(config.clone());
    let stamp = serde_json::json!({
        "url": source.url, "sha256": "ab", "octets": 1, "entries": 1, "format": "domains", "fetched": 1,
    });
    let held: super::super::copies::Stamp = serde_json::from_value(stamp).expect("of an earlier release");
    let kept = super::super::copies::Kept { held: Some(held), ..Default::default() };
    Copies::of(dir.path(), "list").keep(&kept).expect("kept");
    note(&feeds.shared, &Nobody, &source, (Outcome::Failed, Some("hung".into())));
    feeds.accept("list", "ab", "me", "why").expect("accepted");
    let standing = feeds.standing().remove(0);
    assert_eq!((standing.failures, standing.problem.as_deref()), (1, Some("hung")));

    // What the configuration says of the copy at hand is told once, and when it is over.
    let untold = |problem: Option<&str>| {
        let source = Source { problem: problem.map(Into::into), ..source.clone() };
        feeds.configure(Config { sources: vec![source], ..config.clone() });
        std::mem::take(&mut feeds.shared.inner.lock().untold)
    };
    assert_eq!(feeds.standing().remove(0).unused, None);
    let unused = Told::Unused { id: "list".into(), why: "damaged".into() };
    assert_eq!(untold(Some("damaged")), [unused]);
    assert_eq!(untold(Some("damaged")), []);
    assert_eq!(untold(None), [Told::Recovered { id: "list".into() }]);
}
