//! The store as a whole, on a real directory.

mod damage;
mod ledgers;
mod sinks;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use super::index::thread as index;
use super::line::{Body, Line};
use super::segment::{self, Piece};
use super::testing::*;
use super::*;

fn options() -> Options {
    Options { index: IndexKind::Memory, ..Options::default() }
}

fn open(dir: &Path, options: Options) -> (Store, Recovered) {
    Store::open(dir, options).unwrap()
}

fn write(store: &Store, records: &[Record]) {
    store.append(records.to_vec()).unwrap().wait_blocking().unwrap();
}

/// Every line of a journal, in order.
fn lines(dir: &Path) -> Vec<Line> {
    let mut lines = Vec::new();
    for number in segment::list(dir).unwrap() {
        segment::walk(dir, number, &mut |piece| {
            match piece {
                Piece::Line(_, line) => lines.push(*line),
                other => panic!("{other:?}"),
            }
            true
        })
        .unwrap();
    }
    lines
}

/// What of a recovery does not depend on the order of maps.
fn summary(r: &Recovered) -> (BTreeSet<String>, BTreeSet<String>, BTreeSet<String>, BTreeSet<String>) {
    (
        r.sessions.iter().map(|said| said.announcement.id.to_string()).collect(),
        r.quarantined.iter().map(|q| format!("{q:?}")).collect(),
        r.grants.iter().map(|g| format!("{g:?}")).collect(),
        r.ledgers.iter().map(|(s, _)| s.to_string()).collect(),
    )
}

#[test]
fn a_groups_steps_and_names_come_back_together() {
    use staunch_scoring::{Bits, GroupState, NameBuf};
    let name = |i: u32| NameBuf::from_text(&format!("n{i}.example")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path(), Options::default());
    let now = wall_ms();
    let mut state = GroupState::new(5);
    state.book(name(1).as_ref(), Bits::whole(40), now);
    store.put_group("team-a", now, state.snapshot()).unwrap();
    state.book(name(2).as_ref(), Bits::whole(70), now);
    write(&store, &[Record::Group { group: "team-a".into(), at: now, state: state.spending() }]);
    state.book(name(3).as_ref(), Bits::whole(3), now);
    store.put_group("team-a", now, state.spending()).unwrap();
    store.close();
    let (store, again) = open(dir.path(), Options::default());
    let [(group, snapshot)] = &again.groups[..] else { panic!("{:?}", again.groups) };
    let restored = GroupState::restore(snapshot);
    assert_eq!((group.as_str(), restored.spent(now)), ("team-a", Bits::whole(113)));
    assert!(restored.facts(name(1).as_ref(), now).known, "the names of the last full note");
    assert!(!restored.facts(name(2).as_ref(), now).known, "a name that was lost costs again");
    store.close();
    // Without the index the journal still has every step.
    fs::remove_dir_all(dir.path().join("index")).unwrap();
    let (store, again) = open(dir.path(), Options::default());
    assert_eq!(GroupState::restore(&again.groups[0].1).spent(now), Bits::whole(110));
    store.close();
}

const FAR: u64 = 4_000_000_000_000;

#[test]
fn what_was_learned_is_in_the_index_and_what_is_in_force_in_the_journal() {
    let dir = tempfile::tempdir().unwrap();
    let on_disk = || open(dir.path(), Options::default());
    let sample = crate::learn::Sample { sessions: 200, pairs: 3_000, since: 5, until: 9 };
    let in_force = crate::learn::InForce {
        profile: "batch".into(),
        sinkhole: 4.25,
        watch: 2.0,
        sample,
        scoring: "s".into(),
        product: "p".into(),
    };
    let (store, _) = on_disk();
    write(
        &store,
        &[Record::Policy { digest: "d".into(), learned: vec![in_force.clone()], enforced: true, ranges: Vec::new() }],
    );
    let value = |text: &str| Some(text.as_bytes().to_vec());
    store.put_learned(vec![("batch".into(), value("one")), ("scheduled".into(), value("two"))]).unwrap();
    store.put_learned(vec![("scheduled".into(), None), ("batch".into(), value("three"))]).unwrap();
    store.close();
    assert!(matches!(store.put_learned(Vec::new()), Err(Error::Closed)));
    let (store, again) = on_disk();
    assert_eq!(again.learned, [("batch".to_owned(), b"three".to_vec())]);
    assert_eq!((again.in_force.as_slice(), again.enforced), (std::slice::from_ref(&in_force), true));
    store.close();
    fs::remove_dir_all(dir.path().join("index")).unwrap();
    let (store, lost) = on_disk();
    assert!(lost.learned.is_empty());
    assert_eq!(lost.in_force, [in_force]);
    // A line of a version that knew nothing of this.
    let old: Record = serde_json::from_str(r#"{"kind":"policy","digest":"d"}"#).unwrap();
    assert_eq!(old, Record::Policy { digest: "d".into(), learned: Vec::new(), enforced: false, ranges: Vec::new() });
    store.close();
}

#[test]
fn what_was_acknowledged_is_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let (store, empty) = open(dir.path(), Options { sinks: vec!["soc".into()], ..Options::default() });
    let nothing = Recovered { undelivered: vec![Backlog { sink: "soc".into(), alerts: 0 }], ..Recovered::default() };
    assert_eq!(empty, nothing);
    write(&store, &[announce(1), announce(2), announce(3)]);
    write(&store, &[quarantine(1), alert_record(1)]);
    write(&store, &[quarantine(9), quarantine(2), release(2), ledger(1)]);
    write(&store, &[grant("past", 1_000), grant("future", FAR), Record::End { session: session(3) }]);
    write(
        &store,
        &[
            Record::Policy { digest: "d1".into(), learned: Vec::new(), enforced: false, ranges: Vec::new() },
            Record::Policy { digest: "d2".into(), learned: Vec::new(), enforced: false, ranges: Vec::new() },
        ],
    );
    store.put_ledger(session(2), Default::default()).unwrap();
    assert!(!store.has_ended() && !store.status().failing);
    store.close();
    assert!(matches!(store.append(vec![announce(4)]), Err(Error::Closed)));
    assert!(store.has_ended() && store.status().failing, "nobody takes what is to be durable");

    let (store, again) = open(dir.path(), Options { sinks: vec!["soc".into()], ..Options::default() });
    let ids = |ids: &[u32]| ids.iter().map(|n| session(*n)).collect::<BTreeSet<_>>();
    assert_eq!(again.sessions.iter().map(|said| said.announcement.id.clone()).collect::<BTreeSet<_>>(), ids(&[1, 2]));
    assert_eq!(again.quarantined.iter().map(|q| q.session.clone()).collect::<BTreeSet<_>>(), ids(&[1, 9]));
    assert_eq!(again.ledgers.iter().map(|(s, _)| s.clone()).collect::<BTreeSet<_>>(), ids(&[1, 2]));
    assert_eq!(again.grants.iter().map(|g| g.id.as_str()).collect::<Vec<_>>(), ["future"]);
    assert_eq!(again.policy.as_deref(), Some("d2"));
    assert_eq!(again.undelivered, [Backlog { sink: "soc".into(), alerts: 1 }]);
    assert!(again.damage.is_empty(), "{:?}", again.damage);
    let q = again.quarantined.iter().find(|q| q.session == session(1)).unwrap();
    assert_eq!((q.reason, q.by.as_str(), q.case), (Reason::Score, "staunch", CaseId::from_random(1)));
    assert!(wall_ms() - q.since < 60_000);
    store.close();
    assert!(verify(dir.path()).unwrap().is_sound());
}

#[test]
fn a_directory_has_one_user() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path(), options());
    assert!(matches!(Store::open(dir.path(), options()), Err(Error::Locked(_))));
    store.close();
    open(dir.path(), options()).0.close();
}

#[test]
fn records_of_one_call_stand_together_and_calls_of_one_thread_in_order() {
    const THREADS: u32 = 8;
    const CALLS: u32 = 200;
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path(), options());
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let store = store.clone();
            scope.spawn(move || {
                let mut last = 0;
                for call in 0..CALLS {
                    let n = thread * CALLS + call;
                    let commit = store.append(vec![quarantine(n), alert_record(n), ledger(n)]).unwrap();
                    // Some wait, some do not.
                    if call % 3 == 0 {
                        let seq = commit.wait_blocking().unwrap();
                        assert!(seq > last);
                        last = seq;
                    }
                }
            });
        }
    });
    let status = store.status();
    store.close();
    let mut next = [0; THREADS as usize];
    let records: Vec<_> = lines(dir.path())
        .into_iter()
        .filter_map(|line| match line.body {
            Body::Record(record) => Some((*record, line.more)),
            Body::Mark(_) => None,
        })
        .collect();
    assert_eq!(records.len(), 3 * (THREADS * CALLS) as usize);
    for call in records.chunks(3) {
        let [(Record::Quarantine { case, .. }, true), (Record::Alert { alert }, true), (Record::Ledger { .. }, false)] =
            call
        else {
            panic!("torn apart: {call:?}");
        };
        assert_eq!(*case, alert.case);
        let n: u32 = alert.id.strip_prefix("alert-").unwrap().parse().unwrap();
        let slot = &mut next[(n / CALLS) as usize];
        assert_eq!(n % CALLS, *slot, "out of order");
        *slot += 1;
    }
    assert!(status.syncs < u64::from(THREADS * CALLS), "calls share syncs: {status:?}");
}

#[test]
fn a_full_queue_is_an_error_and_takes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path(), Options { queue: 1, ..options() });
    let mut taken = BTreeSet::new();
    let mut refused = 0;
    for n in 0..50_000 {
        match store.append(vec![quarantine(n)]) {
            Ok(_) => _ = taken.insert(session(n)),
            Err(Error::QueueFull) => refused += 1,
            Err(other) => panic!("{other}"),
        }
        if refused > 50 && taken.len() > 50 {
            break;
        }
    }
    assert!(refused > 0, "the queue never filled");
    store.close();
    let (store, again) = open(dir.path(), options());
    assert_eq!(again.quarantined.into_iter().map(|q| q.session).collect::<BTreeSet<_>>(), taken);
    store.close();
}

#[test]
fn too_much_is_refused_aloud() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path(), Options { max_sessions: 2, ..options() });
    write(&store, &[quarantine(1), announce(2)]);
    let refused = store.append(vec![quarantine(3)]).unwrap().wait_blocking();
    assert!(matches!(refused, Err(Error::TooMany { cap: 2, .. })));
    write(&store, &[quarantine(2)]);
    write(&store, &[Record::End { session: session(2) }]);
    write(&store, &[quarantine(3)]);
    let huge = Record::Policy { digest: "x".repeat(2 << 20), learned: Vec::new(), enforced: false, ranges: Vec::new() };
    assert!(matches!(store.append(vec![announce(1), huge]), Err(Error::TooLarge { .. })));
    store.close();
    let (store, again) = open(dir.path(), options());
    assert_eq!((again.quarantined.len(), again.sessions.len()), (2, 0));
    store.close();
}

#[tokio::test]
async fn a_commit_can_be_awaited() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path(), options());
    let first = store.append(vec![quarantine(1)]).unwrap().await.unwrap();
    let second = store.append(vec![quarantine(2), quarantine(3)]).unwrap().await.unwrap();
    assert_eq!(second, first + 2);
    let third = store.append(vec![quarantine(4)]).unwrap().wait_blocking();
    assert_eq!(third.unwrap(), second + 1, "blocking is no crime, only unwise here");
    tokio::task::spawn_blocking(move || store.close()).await.unwrap();
}

/// A cheap generator: the tests must give the same answer every time.
fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

fn random_record(state: &mut u64) -> Record {
    let n = (random(state) % 12) as u32;
    match random(state) % 10 {
        0 | 1 => announce(n),
        2 | 3 => quarantine(n),
        4 => release(n),
        5 => Record::End { session: session(n) },
        6 => grant(&format!("g{n}"), if random(state).is_multiple_of(3) { 1 } else { FAR + u64::from(n) }),
        7 => alert_record(n),
        8 => Record::Policy { digest: format!("d{n}"), learned: Vec::new(), enforced: false, ranges: Vec::new() },
        _ => ledger(n),
    }
}

#[test]
fn a_snapshot_says_what_everything_before_it_said() {
    let mut state = 0x5eed;
    for round in 0..8 {
        let plain = tempfile::tempdir().unwrap();
        let rotated = tempfile::tempdir().unwrap();
        let few = Options { segment_octets: 3_000, keep_segments: 2, ..options() };
        for _ in 0..3 {
            let (a, _) = open(plain.path(), options());
            let (b, _) = open(rotated.path(), few.clone());
            for _ in 0..60 {
                let record = random_record(&mut state);
                // The same moment in both, for `since`.
                let (x, y) = (a.append(vec![record.clone()]).unwrap(), b.append(vec![record]).unwrap());
                x.wait_blocking().unwrap();
                y.wait_blocking().unwrap();
            }
            a.close();
            b.close();
        }
        assert_eq!(segment::list(plain.path()).unwrap(), [1]);
        let left = segment::list(rotated.path()).unwrap();
        assert!(left.len() == 2 && left[0] > 3, "round {round}: {left:?}");
        assert!(verify(rotated.path()).unwrap().is_sound());
        let (a, full) = open(plain.path(), options());
        let (b, short) = open(rotated.path(), few.clone());
        assert_eq!((full.damage.is_empty(), short.damage.is_empty()), (true, true));
        let strip = |mut r: Recovered| {
            r.quarantined.iter_mut().for_each(|q| q.since = 0);
            r
        };
        let (full, short) = (strip(full), strip(short));
        assert_eq!(summary(&full), summary(&short), "round {round}");
        assert_eq!(full.policy, short.policy);
        assert_eq!(a.alerts(), b.alerts());
        a.close();
        b.close();
        // The newest snapshot spoilt: the one before says the same.
        let newest = segment::path(rotated.path(), *left.last().unwrap());
        let mut octets = fs::read(&newest).unwrap();
        octets[40] ^= 1;
        fs::write(&newest, octets).unwrap();
        let (b, fallback) = open(rotated.path(), few);
        assert_eq!(fallback.damage.snapshots_skipped, 1);
        assert_eq!(summary(&strip(fallback)), summary(&short), "round {round}, from the snapshot before");
        b.close();
    }
}

#[test]
fn first_seen_times_survive() {
    let dir = tempfile::tempdir().unwrap();
    let quick = Options { warm_up: Duration::ZERO, ..Options::default() };
    let name = staunch_scoring::NameBuf::from_text("example.org").unwrap();
    let start = wall_ms();
    for days in [0u64, 3] {
        let (store, _) = open(dir.path(), quick.clone());
        let seen = store.first_seen();
        let now = start + days * 86_400_000 + 60_000;
        // Loading happens beside; it ends soon.
        while seen.first_seen(name.as_ref(), now).is_none() {
            std::thread::yield_now();
        }
        let age = seen.first_seen(name.as_ref(), now).unwrap();
        assert_eq!(age.as_secs() / 86_400, days);
        seen.saw(name.as_ref(), now);
        store.close();
    }
}

#[test]
fn group_ages_and_registrations_survive() {
    let dir = tempfile::tempdir().unwrap();
    let quick = Options { warm_up: Duration::ZERO, ..Options::default() };
    let name = staunch_scoring::NameBuf::from_text("example.org").unwrap();
    let start = wall_ms();
    let said = Registration { registered: Some(7), checked: start, due: start + 9 };
    let (store, _) = open(dir.path(), quick.clone());
    let seen = store.group_seen();
    // Nothing is noted before loading has ended.
    while seen.groups() == 0 {
        seen.saw("team", name.as_ref(), start);
        std::thread::yield_now();
    }
    store.registered().put(name.as_ref(), said);
    store.close();
    let (store, _) = open(dir.path(), quick);
    let (seen, now) = (store.group_seen(), start + 3 * 86_400_000);
    while seen.first_seen("team", name.as_ref(), now).is_none() {
        std::thread::yield_now();
    }
    let days = |group| seen.first_seen(group, name.as_ref(), now).map(|age| (age.as_secs() + 60) / 86_400);
    assert_eq!((days("team"), days("other")), (Some(3), None));
    while store.registered().known() == 0 {
        std::thread::yield_now();
    }
    assert_eq!(store.registered().get(name.as_ref(), start), Some(said));
    store.close();
}

/// Reads the index of a closed store.
fn index_entries(dir: &Path) -> (u64, BTreeSet<String>) {
    let opened = index::open(dir, IndexKind::Sled, 0).unwrap();
    assert!(opened.damage.is_none());
    let sessions = opened.held.quarantines.iter().map(|entry| match &entry.record {
        Record::Quarantine { session, .. } => session.to_string(),
        other => panic!("{other:?}"),
    });
    (opened.held.applied, sessions.collect())
}

#[test]
fn the_index_follows_the_journal_and_is_rebuilt_from_it() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path(), Options::default());
    write(&store, &[quarantine(1), quarantine(2), quarantine(3), release(2)]);
    store.close();
    let both: BTreeSet<String> = ["agent-1".into(), "agent-3".into()].into();
    let (applied, sessions) = index_entries(dir.path());
    assert_eq!((applied, &sessions), (store.status().seq, &both));
    fs::remove_dir_all(dir.path().join("index")).unwrap();
    let (store, again) = open(dir.path(), Options::default());
    assert_eq!(again.quarantined.len(), 2);
    store.close();
    assert_eq!(index_entries(dir.path()).1, both);
}

#[test]
fn a_segment_that_cannot_be_made_leaves_nothing_behind_and_the_old_one_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path(), Options { segment_octets: 1, ..options() });
    // Where the next one is made, nothing can be written.
    let fresh = segment::path(dir.path(), 2).with_extension("jsonl.new");
    std::os::unix::fs::symlink("/dev/full", &fresh).unwrap();
    for n in 0..8 {
        write(&store, &[announce(n)]);
    }
    store.close();
    assert!(fs::symlink_metadata(&fresh).is_err(), "it takes no room");
    assert_eq!(segment::list(dir.path()).unwrap(), [1]);
    let (store, recovered) = open(dir.path(), options());
    assert_eq!(recovered.sessions.len(), 8);
    store.close();
}

#[test]
fn sessions_come_back_the_latest_first_and_what_has_ended_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let (store, first) = open(dir.path(), Options { segment_octets: 1, ..options() });
    assert_eq!((first.grants_ended, first.written), (None, 0));
    let order = [3, 9, 1, 7, 2, 8];
    for n in order.into_iter().chain([9]) {
        write(&store, &[announce(n)]);
    }
    let now = wall_ms();
    write(&store, &[grant("stands", FAR), grant("ended", now - 1_000), grant("before", now - 70_000)]);
    store.close();
    let (store, again) = open(dir.path(), options());
    let ids: Vec<_> = again.sessions.iter().map(|said| said.announcement.id.clone()).collect();
    assert_eq!(ids, [9, 8, 2, 7, 1, 3].map(session), "over segments, which copy them in any order");
    assert_eq!((again.grants.len(), again.grants_ended), (1, Some(now - 1_000)));
    assert!(again.written >= now && again.written <= wall_ms(), "{again:?}");
    store.close();
}
