//! kill -9 at random moments, and a full disk: whatever the store acknowledged is there afterwards.
//!
//! The test runs itself as a child that appends from several threads and prints what was acknowledged; the parent kills
//! it, opens the same directory, and compares with everything acknowledged since the first round. One of the threads spends a
//! session's ledger in steps that nobody waits for; what stands before an acknowledged record stands as well.

#[path = "world/skip.rs"]
mod skip;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use staunch::event::{Alert, AlertKind};
use staunch::model::{CaseId, Mode, Reason, SessionId, SessionType};
use staunch::store::{Error, Grant, IndexKind, Options, Record, Store, verify};
use staunch_scoring::{Budgets, Facts, Listing, NameBuf, Outcome, Params, Scorer, SessionState, Split};

const CHILD: &str = "STAUNCH_STORE_KILL_DIR";
const FROM: &str = "STAUNCH_STORE_KILL_FROM";
/// Kills, and how many of them meet one directory: what is held grows with each, and every start reads it.
const KILLS: u32 = 200;
const EACH: u32 = 20;
const THREADS: u64 = 4;
const FAR: u64 = 4_000_000_000_000;

fn options() -> Options {
    // Small segments, so that many kills hit a rotation.
    Options { sinks: vec!["soc".into()], segment_octets: 64 << 10, keep_segments: 2, ..Options::default() }
}

fn session(n: u64) -> SessionId {
    SessionId::new(&format!("s{n}")).expect("the alphabet of ids")
}

fn quarantine(n: u64) -> Record {
    Record::Quarantine {
        session: session(n),
        case: CaseId::from_random(n),
        reason: Reason::LedgerTenant,
        by: "staunch".into(),
        note: String::new(),
        since: None,
        addresses: Vec::new(),
    }
}

fn alert(id: String, n: u64) -> Record {
    let alert = Alert {
        schema: 1,
        id,
        kind: AlertKind::Quarantine,
        time: "2026-01-02T03:04:05.678Z".into(),
        case: CaseId::from_random(n),
        session: session(n),
        session_type: SessionType::Batch,
        owner: None,
        addresses: Vec::new(),
        mode: Mode::Enforce,
        reason: Some(Reason::LedgerTenant),
        summary: "closed".into(),
        signals: Vec::new(),
        tenant: "attacker.example".into(),
        leaked_bits_at_most: staunch_scoring::Bits::ZERO,
        names_forwarded: 0,
        samples: Vec::new(),
        actions: Vec::new(),
        log: None,
    };
    Record::Alert { alert: Box::new(alert) }
}

fn grant(n: u64) -> Record {
    let grant = Grant {
        id: format!("g{n}"),
        name: "x.example".into(),
        ports: Vec::new(),
        session: None,
        owner: "op".into(),
        reason: "r".into(),
        from: 0,
        until: FAR,
        withdrawn: None,
    };
    Record::Grant { grant }
}

fn say(words: std::fmt::Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    // The parent may be gone.
    let _ = writeln!(out, "{words}").and_then(|()| out.flush());
}

/// The child's work; as a test of its own it does nothing.
#[test]
fn child() {
    let (Ok(dir), Ok(from)) = (std::env::var(CHILD), std::env::var(FROM)) else { return };
    let from: u64 = from.parse().expect("a number");
    let (store, recovered) = Store::open(Path::new(&dir), options()).expect("opens");
    say(format_args!("\nready"));
    let ledger = recovered.ledgers.iter().find(|(id, _)| *id == spender());
    let ledger = ledger.map_or_else(|| SessionState::new(9), |(_, state)| SessionState::restore(state));
    std::thread::scope(|scope| {
        scope.spawn(|| spend(&store, ledger));
        for thread in 0..THREADS {
            let store = store.clone();
            scope.spawn(move || work(&store, thread, from));
        }
        scope.spawn(|| {
            let mut spool = store.spool("soc").expect("configured");
            loop {
                if let Some(spooled) = spool.next(Duration::from_secs(1)).expect("readable") {
                    say(format_args!("took {}", spooled.alert.id));
                    spool.taken();
                    // Slower than they come, so that some are always left.
                    std::thread::sleep(Duration::from_millis(3));
                }
            }
        });
    });
}

fn work(store: &Store, thread: u64, from: u64) {
    let mut n = from + thread;
    loop {
        let id = format!("a{thread}-{n}");
        let calls: [(&str, Vec<Record>); 3] = [
            ("quarantine", vec![quarantine(n), alert(id.clone(), n)]),
            ("grant", vec![grant(n)]),
            ("release", vec![Record::Release { session: session(n), by: "op".into(), note: String::new(), extend: 0 }]),
        ];
        for (word, records) in calls {
            if word == "release" && !n.is_multiple_of(3) {
                continue;
            }
            if word == "release" {
                // Neither outcome is wrong until it is acknowledged.
                say(format_args!("may-release {n}"));
            }
            store.append(records).expect("room").wait_blocking().expect("durable");
            say(format_args!("{word} {n}"));
            if word == "quarantine" {
                say(format_args!("alert {id}"));
            }
        }
        n += THREADS;
    }
}

fn spender() -> SessionId {
    SessionId::new("spender").expect("the alphabet of ids")
}

/// Asks names of many domains, one step of the ledger for each, and now and then waits for what comes behind them.
fn spend(store: &Store, mut ledger: SessionState) {
    let (scorer, budgets, params) = (Scorer::new(), Budgets::default(), Params::default());
    for n in ledger.names_sent().. {
        let name = NameBuf::from_text(&format!("host-{n}.site-{}.example", n % 60)).expect("a name");
        let facts = Facts {
            now: 0,
            qname: name.as_ref(),
            split: Split::of(name.as_ref()),
            qtype: 1,
            flags: 0,
            qtypes_allowed: 3,
            listing: Listing::Unlisted,
            registered_days: None,
            first_seen_days: None,
            group_seen_days: None,
            group: None,
            cached: false,
            at_hand: false,
            budgets: &budgets,
            params: &params,
        };
        let assessment = scorer.assess(&ledger, &facts);
        scorer.commit(&mut ledger, &facts, &assessment, Outcome::Forwarded);
        store.note(Record::Ledger { session: spender(), state: ledger.step() }).expect("room");
        if n % 7 == 0 {
            let digest = format!("{n}");
            let mark = Record::Policy { digest, learned: Vec::new(), enforced: true, ranges: Vec::new() };
            store.append(vec![mark]).expect("room").wait_blocking().expect("durable");
            say(format_args!("spent {}", ledger.spent_session().steps()));
        } else if n % 7 == 3 {
            std::thread::sleep(Duration::from_millis(3));
        }
    }
}

#[derive(Default)]
struct Model {
    /// 1/256 bits.
    spent: u32,
    quarantined: BTreeSet<u64>,
    may_be_released: BTreeSet<u64>,
    grants: BTreeSet<u64>,
    alerts: BTreeSet<String>,
    /// In the order they were handed out.
    took: Vec<String>,
    highest: u64,
}

impl Model {
    fn hear(&mut self, line: &str) {
        let Some((word, rest)) = line.split_once(' ') else { return };
        let n = rest.parse::<u64>().ok();
        if word == "spent" {
            self.spent = self.spent.max(rest.parse().expect("a number"));
            return;
        }
        self.highest = self.highest.max(n.unwrap_or(0));
        match (word, n) {
            ("quarantine", Some(n)) => _ = self.quarantined.insert(n),
            ("may-release", Some(n)) => _ = self.may_be_released.insert(n),
            ("release", Some(n)) => {
                self.quarantined.remove(&n);
                self.may_be_released.remove(&n);
            }
            ("grant", Some(n)) => _ = self.grants.insert(n),
            ("alert", None) => _ = self.alerts.insert(rest.to_owned()),
            ("took", None) => self.took.push(rest.to_owned()),
            _ => {}
        }
    }
}

/// `STAUNCH_STORE_KILLS` says how many.
#[test]
fn nothing_acknowledged_is_lost_by_kill_9() {
    let kills = std::env::var("STAUNCH_STORE_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(KILLS);
    let mut all = Survived::default();
    for from in (0..kills).step_by(EACH as usize) {
        all.add(&survives(from..kills.min(from + EACH)));
    }
    all.openings.sort();
    let at = |share: usize| all.openings[(all.openings.len() * share / 100).min(all.openings.len() - 1)];
    let (most, slowest) = (at(90), at(100));
    println!(
        "FIGURE: {kills} kills: {} quarantines, {} grants, {} alerts acknowledged, 0 lost; {} alerts came twice; {} bits spent in \
         steps; {} torn ends; slowest opening {} ms",
        all.quarantines,
        all.grants,
        all.alerts,
        all.repeated,
        all.spent / 256,
        all.torn,
        slowest.as_millis()
    );
    // What else the machine does while some of them go on is none of it.
    assert!(
        most < Duration::from_secs(1) && slowest < Duration::from_secs(10),
        "opening took {most:?}, {slowest:?} at most"
    );
    assert!(all.spent > 0 && all.alerts > 2 * kills as usize, "the children did too little to prove anything");
}

/// What was there after the kills of one directory.
#[derive(Default)]
struct Survived {
    quarantines: usize,
    grants: usize,
    alerts: usize,
    repeated: u32,
    /// 1/256 bits.
    spent: u32,
    torn: u32,
    /// How long each opening took.
    openings: Vec<Duration>,
}

impl Survived {
    fn add(&mut self, other: &Self) {
        self.quarantines += other.quarantines;
        self.grants += other.grants;
        self.alerts += other.alerts;
        self.repeated += other.repeated;
        self.spent += other.spent;
        self.torn += other.torn;
        self.openings.extend(&other.openings);
    }
}

fn survives(rounds: std::ops::Range<u32>) -> Survived {
    let dir = tempfile::tempdir().expect("a directory");
    let exe = std::env::current_exe().expect("this test");
    let mut model = Model::default();
    let mut openings = Vec::new();
    let mut torn = 0;
    for round in rounds {
        let mut child = Command::new(&exe)
            .args(["--exact", "child", "--nocapture", "--test-threads=1"])
            .env(CHILD, dir.path())
            .env(FROM, (model.highest + 10).to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("starts");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let (sender, heard) = mpsc::channel();
        let reader = std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| _ = sender.send(line)));
        loop {
            let line = heard.recv_timeout(Duration::from_secs(60)).expect("the child opens the store");
            if line == "ready" {
                break;
            }
        }
        let mut random = [0; 4];
        getrandom::fill(&mut random).expect("random");
        std::thread::sleep(Duration::from_micros(u64::from(u32::from_ne_bytes(random) % 80_000)));
        child.kill().expect("kill -9");
        child.wait().expect("gone");
        reader.join().expect("read to the end");
        heard.try_iter().for_each(|line| model.hear(&line));

        let started = Instant::now();
        let (store, recovered) = Store::open(dir.path(), options()).expect("opens again");
        openings.push(started.elapsed());
        assert!(!recovered.damage.is_serious(), "round {round}: {:?}", recovered.damage);
        torn += u32::from(recovered.damage.torn.is_some());
        let held: BTreeSet<String> = recovered.quarantined.iter().map(|q| q.session.to_string()).collect();
        for n in &model.quarantined {
            let there = held.contains(&format!("s{n}"));
            assert!(there || model.may_be_released.contains(n), "round {round}: quarantine of s{n} is lost");
        }
        for q in &recovered.quarantined {
            let n: u64 = q.session.as_str()[1..].parse().expect("our ids");
            let released = n.is_multiple_of(3) && n <= model.highest && !model.quarantined.contains(&n);
            // A quarantine that was written and not acknowledged may stand; a release that was acknowledged must.
            assert!(!released || !model.grants.contains(&n) || model.may_be_released.contains(&n), "s{n} is back");
        }
        if model.spent > 0 {
            let ledger = recovered.ledgers.iter().find(|(id, _)| *id == spender());
            let (_, ledger) = ledger.unwrap_or_else(|| panic!("round {round}: the ledger is lost"));
            assert!(ledger.is_complete(), "round {round}: a step is missing behind one that is there");
            let spent = SessionState::restore(ledger).spent_session().steps();
            assert!(spent >= model.spent, "round {round}: {spent} of {} spent are left", model.spent);
            model.spent = spent;
        }
        let grants: BTreeSet<String> = recovered.grants.iter().map(|g| g.id.clone()).collect();
        for n in &model.grants {
            assert!(grants.contains(&format!("g{n}")), "round {round}: grant g{n} is lost");
        }
        // What stands now stands for good: the next rounds compare with it.
        model.may_be_released.retain(|n| {
            if !held.contains(&format!("s{n}")) {
                model.quarantined.remove(n);
            }
            false
        });
        let mut spool = store.spool("soc").expect("configured");
        for _ in 0..20 {
            if let Some(spooled) = spool.next(Duration::ZERO).expect("readable") {
                model.took.push(spooled.alert.id);
                spool.taken();
            }
        }
        drop(spool);
        store.close();
        assert!(verify(dir.path()).expect("readable").is_sound(), "round {round}");
    }
    // Whatever is left comes out now.
    let (store, _) = Store::open(dir.path(), options()).expect("opens");
    let mut spool = store.spool("soc").expect("configured");
    while let Some(spooled) = spool.next(Duration::ZERO).expect("readable") {
        model.took.push(spooled.alert.id);
        spool.taken();
    }
    drop(spool);
    store.close();
    let mut repeated = 0;
    let mut last: BTreeMap<char, u64> = BTreeMap::new();
    for id in &model.took {
        let thread = id.chars().nth(1).expect("a thread");
        let n: u64 = id.split_once('-').expect("a number").1.parse().expect("a number");
        let before = last.insert(thread, n);
        assert!(before.is_none_or(|before| before <= n || is_repeat(&model.took, id)), "{id} out of order");
        repeated += u32::from(before == Some(n));
    }
    let came: BTreeSet<&String> = model.took.iter().collect();
    let lost: Vec<_> = model.alerts.iter().filter(|id| !came.contains(id)).collect();
    assert!(lost.is_empty(), "alerts lost: {lost:?}");
    let (quarantines, grants, alerts) = (model.quarantined.len(), model.grants.len(), model.alerts.len());
    Survived { quarantines, grants, alerts, repeated, spent: model.spent, torn, openings }
}

/// After a crash the last few alerts may come again, in order.
fn is_repeat(took: &[String], id: &String) -> bool {
    took.iter().filter(|other| *other == id).count() > 1
}

const FULL: &str = "STAUNCH_FULL_DISK_DIR";

/// Runs `disk_full_child` in a mount namespace of its own, on a file system of one mebibyte.
#[test]
fn a_full_disk_is_an_error_and_heals() {
    let dir = tempfile::tempdir().expect("a directory");
    let exe = std::env::current_exe().expect("this test");
    let script = "mount -t tmpfs -o size=1m none \"$1\" || exit 77; exec \"$2\" --exact disk_full_child --nocapture";
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", script, "sh"])
        .arg(dir.path())
        .arg(&exe)
        .env(FULL, dir.path())
        .output();
    let ran = output
        .as_ref()
        .is_ok_and(|o| o.status.code() != Some(77) && !String::from_utf8_lossy(&o.stderr).starts_with("unshare:"));
    if !ran {
        return skip::lacking(format!("a file system of its own to fill: {output:?}"));
    }
    let output = output.expect("ran");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("full disk:"), "{text}");
    print!("{text}");
}

/// The work of the test above; as a test of its own it does nothing.
#[test]
fn disk_full_child() {
    let Ok(dir) = std::env::var(FULL) else { return };
    for index in [IndexKind::Memory, IndexKind::Sled] {
        let state = Path::new(&dir).join(format!("{index:?}"));
        full_disk(&state, &Path::new(&dir).join("ballast"), index);
        std::fs::remove_dir_all(state).expect("removed");
    }
}

fn full_disk(state: &Path, ballast: &Path, index: IndexKind) {
    let options = Options { index, segment_octets: 20_000, keep_segments: 2, ..Options::default() };
    let (store, _) = Store::open(state, options.clone()).expect("opens");
    let mut held = BTreeSet::new();
    for n in 0..20 {
        store.append(vec![quarantine(n)]).expect("room").wait_blocking().expect("durable");
        held.insert(session(n).to_string());
    }
    // As much as there is.
    let mut file = std::fs::File::create(ballast).expect("created");
    while file.write_all(&[1; 512]).is_ok() {}
    drop(file);

    let (mut refused, mut n) = (0, 20);
    while refused < 50 {
        match store.append(vec![quarantine(n)]).expect("room in the queue").wait_blocking() {
            Ok(_) => {}
            Err(Error::NotDurable { kept: true, .. }) => refused += 1,
            Err(error) => panic!("{error}"),
        }
        held.insert(session(n).to_string());
        n += 1;
    }
    let loosening = store.append(vec![grant(1)]).expect("room in the queue").wait_blocking();
    assert!(matches!(loosening, Err(Error::NotDurable { kept: false, .. })), "{loosening:?}");
    let status = store.status();
    assert!(status.failing && status.write_errors > 0, "{status:?}");
    assert_eq!((status.backlog, status.lost), (50, 0));
    assert!(verify(state).expect("readable").is_sound(), "no torn line is left on the full disk");

    std::fs::remove_file(ballast).expect("removed");
    let deadline = Instant::now() + Duration::from_secs(60);
    while store.status().failing || store.status().backlog > 0 {
        assert!(Instant::now() < deadline, "the journal does not heal");
        std::thread::sleep(Duration::from_millis(5));
    }
    store.append(vec![quarantine(n)]).expect("room").wait_blocking().expect("durable again");
    held.insert(session(n).to_string());
    store.close();
    assert!(verify(state).expect("readable").is_sound());
    let (store, recovered) = Store::open(state, options).expect("opens");
    assert!(recovered.damage.is_empty() || recovered.damage.index.is_some(), "{:?}", recovered.damage);
    let there: BTreeSet<String> = recovered.quarantined.iter().map(|q| q.session.to_string()).collect();
    assert_eq!(there, held, "what was acknowledged, and what was kept");
    assert!(recovered.grants.is_empty(), "what loosens and was refused stays refused");
    store.close();
    println!("full disk: {} quarantines held, {} failed tries, {index:?} index", held.len(), status.write_errors);
}
