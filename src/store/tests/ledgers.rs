//! Ledgers in steps, and calls that nobody waits for.

use std::time::Instant;

use sha2::{Digest as _, Sha256};
use staunch_scoring::{SessionState, StateSnapshot};

use super::*;

/// The state of session `n` as it came back.
fn restored(recovered: &Recovered, n: u32) -> (StateSnapshot, Asks) {
    let found = recovered.ledgers.iter().find(|(id, _)| *id == session(n));
    let (_, state) = found.unwrap_or_else(|| panic!("session {n} has no ledger"));
    (state.clone(), Asks::of(SessionState::restore(state)))
}

/// Whatever is asked, the one costs what the other does once it is without the clock, which is not kept.
fn assert_same(got: &Asks, lived: &Asks) {
    let kept = serde_json::to_string(&lived.state.snapshot()).unwrap();
    let lived = Asks::of(SessionState::restore(&serde_json::from_str(&kept).unwrap()));
    for n in 0..200 {
        let (got, lived) = (got.assess(&Asks::name(n)), lived.assess(&Asks::name(n)));
        assert_eq!((got.before, got.charge, got.band), (lived.before, lived.charge, lived.band), "name {n}");
    }
}

fn note_step(store: &Store, n: u32, asks: &mut Asks) {
    store.note(Record::Ledger { session: session(n), state: asks.state.step() }).unwrap();
}

#[test]
fn steps_come_back_over_rotations_and_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let small = Options { segment_octets: 20_000, keep_segments: 2, ..options() };
    let mut sessions: Vec<Asks> = (0..3).map(|_| Asks::default()).collect();
    for round in 0..4 {
        let (store, recovered) = open(dir.path(), small.clone());
        assert!(recovered.damage.is_empty(), "{:?}", recovered.damage);
        for (n, asks) in (0..).zip(&mut sessions) {
            if round > 0 {
                let (state, again) = restored(&recovered, n);
                assert!(state.is_complete());
                assert_same(&again, asks);
                asks.state = again.state;
            }
        }
        for turn in 0..60 {
            for (n, asks) in (0..).zip(&mut sessions) {
                asks.ask(1 + n);
                note_step(&store, n, asks);
            }
            if turn % 3 == 0 {
                write(&store, &[quarantine(turn % 5)]);
            }
        }
        store.close();
    }
    let left = segment::list(dir.path()).unwrap();
    assert!(left.len() == 2 && left[0] > 3, "{left:?}");
    assert!(verify(dir.path()).unwrap().is_sound());
    let whole = lines(dir.path()).iter().filter(|line| is_ledger(line).is_some_and(StateSnapshot::is_whole)).count();
    let steps = lines(dir.path()).iter().filter(|line| is_ledger(line).is_some_and(|state| !state.is_whole())).count();
    assert!(steps > whole && whole > 0, "{steps} steps and {whole} whole states");
}

fn is_ledger(line: &Line) -> Option<&StateSnapshot> {
    match &line.body {
        Body::Record(record) => match &**record {
            Record::Ledger { state, .. } => Some(state),
            _ => None,
        },
        Body::Mark(_) => None,
    }
}

/// A journal in which session 1 has a whole state and some steps, each a line of its own, and a copy in the index after
/// the line `copied`.
fn journal_of_steps(dir: &Path, copied: Option<usize>) -> Asks {
    let (store, _) = open(dir, Options::default());
    let mut asks = Asks::default();
    asks.ask(150);
    for step in 0..8 {
        write(&store, &[Record::Ledger { session: session(1), state: asks.state.step() }]);
        if copied == Some(step) {
            store.put_ledger(session(1), asks.state.snapshot()).unwrap();
        }
        asks.ask(2);
    }
    write(&store, &[Record::Ledger { session: session(1), state: asks.state.step() }]);
    store.close();
    asks
}

/// Damages the `nth` line of a ledger.
fn damage_step(dir: &Path, nth: usize) {
    let path = segment::path(dir, 1);
    let mut octets = fs::read(&path).unwrap();
    let at = octets.windows(15).enumerate().filter(|(_, w)| *w == b"\"kind\":\"ledger\"").nth(nth).unwrap().0;
    octets[at] ^= 0x20;
    fs::write(&path, octets).unwrap();
}

#[test]
fn a_damaged_step_refunds_nothing_and_the_index_makes_up_for_it() {
    // Which line is damaged, after which the copy was made, and whether anything is missing then.
    let rows = [
        (0, None, true),
        (3, None, true),
        (7, None, true),
        (3, Some(2), true),
        (3, Some(3), false),
        (0, Some(5), false),
        (8, Some(5), false),
    ];
    for (damaged, copied, missing) in rows {
        let dir = tempfile::tempdir().unwrap();
        let lived = journal_of_steps(dir.path(), copied);
        damage_step(dir.path(), damaged);
        let (store, recovered) = open(dir.path(), Options::default());
        assert!(recovered.damage.is_serious(), "{damaged} {copied:?}");
        let (state, again) = restored(&recovered, 1);
        assert_eq!(!state.is_complete(), missing, "{damaged} {copied:?}");
        let last = damaged == 8;
        assert!(last || again.state.spent_session() == lived.state.spent_session());
        for n in 0..180 {
            let (got, old) = (again.assess(&Asks::name(n)).before, lived.assess(&Asks::name(n)).before);
            assert!(last || got.tenant >= old.tenant && got.icann >= old.icann, "{damaged} {copied:?}, name {n}");
        }
        // Written anew with the next step, so that the damage is over.
        let mut again = again;
        again.ask(1);
        write(&store, &[Record::Ledger { session: session(1), state: again.state.step() }]);
        store.close();
        let (store, recovered) = open(dir.path(), Options::default());
        assert!(restored(&recovered, 1).0.is_complete() && recovered.damage.is_empty());
        store.close();
    }
}

#[test]
fn what_is_cut_off_a_journal_costs_no_more_than_the_index_lags() {
    // How many lines of the ledger are left, after which one a copy was made, and the step that comes back.
    for (left, copied, step) in [(0, None, None), (3, None, Some(3)), (3, Some(5), Some(6)), (0, Some(5), Some(6))] {
        let dir = tempfile::tempdir().unwrap();
        let lived = journal_of_steps(dir.path(), copied);
        let path = segment::path(dir.path(), 1);
        let text = fs::read_to_string(&path).unwrap();
        let mut ledgers = 0;
        let kept = text.split_inclusive('\n').take_while(|line| {
            ledgers += usize::from(line.contains("\"kind\":\"ledger\""));
            ledgers <= left
        });
        fs::write(&path, kept.collect::<String>()).unwrap();
        let (store, recovered) = open(dir.path(), Options::default());
        assert!(recovered.damage.journal_short && recovered.damage.lacks_records(), "{left} {copied:?}");
        assert!(recovered.damage.to_string().contains("the last minute"), "{}", recovered.damage);
        let found = recovered.ledgers.iter().find(|(id, _)| *id == session(1)).map(|(_, state)| state.step());
        assert_eq!(found, step, "{left} {copied:?}");
        store.close();
        // Steps of the life after it count for more than the copy of before.
        let Some(_) = step else { continue };
        let mut again = restored(&recovered, 1).1;
        assert!(again.state.spent_session() < lived.state.spent_session());
        let (store, _) = open(dir.path(), Options::default());
        again.ask(2);
        write(&store, &[Record::Ledger { session: session(1), state: again.state.step() }]);
        store.close();
        let (store, recovered) = open(dir.path(), Options::default());
        assert!(recovered.damage.is_empty(), "{:?}", recovered.damage);
        assert_eq!(restored(&recovered, 1).1.state.spent_session(), again.state.spent_session());
        store.close();
    }
}

#[test]
fn a_journal_of_version_1_is_read_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let state = r#"{"version":2,"seed":7,"check":1,"session":{"spent":300.5},"accounts":[{"key":9,"spent":300.5}],"names":[[4,5]]}"#;
    let bodies = [
        r#""mark":{"kind":"begin","schema":1,"alerts":0}"#.to_owned(),
        r#""mark":{"kind":"end","items":0}"#.to_owned(),
        format!(r#""record":{{"kind":"ledger","session":"agent-1","state":{state}}}"#),
    ];
    let (mut text, mut prev) = (String::new(), "0".repeat(64));
    for (seq, body) in (1..).zip(bodies) {
        let line = format!(r#"{{"seq":{seq},"prev":"{prev}","time":"2026-01-02T03:04:05.678Z",{body}"#);
        prev = super::super::line::hex(&Sha256::digest(&line));
        text += &format!("{line},\"hash\":\"{prev}\"}}\n");
    }
    fs::write(segment::path(dir.path(), 1), &text).unwrap();
    let (store, recovered) = open(dir.path(), Options { keep_ledgers: Duration::MAX, ..options() });
    assert!(recovered.damage.is_empty(), "{:?}", recovered.damage);
    let (state, mut again) = restored(&recovered, 1);
    assert!(state.is_complete());
    assert_eq!(again.state.spent_session(), staunch_scoring::Bits::ceil_from(300.5));
    again.ask(1);
    note_step(&store, 1, &mut again);
    store.close();
    assert_eq!(fs::read_to_string(segment::path(dir.path(), 1)).unwrap(), text, "an earlier version can still read it");
    assert_eq!(segment::list(dir.path()).unwrap(), [1, 2]);
    assert!(verify(dir.path()).unwrap().is_sound());
    let (store, recovered) = open(dir.path(), options());
    assert_same(&restored(&recovered, 1).1, &again);
    store.close();
    assert_eq!(segment::list(dir.path()).unwrap(), [1, 2], "and a segment of this version is gone on with");
}

#[test]
fn notes_share_syncs_and_stand_before_what_is_appended_behind_them() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path(), options());
    let before = store.status();
    for n in 0..600 {
        store.note(quarantine(n)).unwrap();
    }
    let last = store.append(vec![quarantine(600)]).unwrap().wait_blocking().unwrap();
    let status = store.status();
    assert_eq!((status.lines - before.lines, last), (601, status.seq));
    assert!(status.syncs - before.syncs < 60, "{} syncs", status.syncs - before.syncs);
    // Nobody waits for this one, and it gets there all the same.
    store.note(quarantine(601)).unwrap();
    let begun = Instant::now();
    while store.status().seq == last {
        assert!(begun.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(1));
    }
    store.close();
    let (store, again) = open(dir.path(), options());
    assert_eq!(again.quarantined.len(), 602);
    store.close();
}

#[test]
fn closing_writes_what_lingers() {
    for _ in 0..10 {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = open(dir.path(), Options::default());
        let mut asks = Asks::default();
        asks.ask(20);
        note_step(&store, 1, &mut asks);
        asks.ask(1);
        note_step(&store, 1, &mut asks);
        store.put_ledger(session(2), asks.state.snapshot()).unwrap();
        store.put_learned(vec![("batch".into(), Some(b"one".to_vec()))]).unwrap();
        store.close();
        assert!(matches!(store.note(quarantine(1)), Err(Error::Closed)));
        let (store, again) = open(dir.path(), Options::default());
        assert_same(&restored(&again, 1).1, &asks);
        assert_same(&restored(&again, 2).1, &asks);
        assert_eq!(again.learned.len(), 1);
        store.close();
    }
}

#[test]
fn a_note_that_cannot_be_written_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path(), Options { max_sessions: 1, ..options() });
    write(&store, &[quarantine(1)]);
    store.note(ledger(1)).unwrap();
    store.note(ledger(2)).unwrap();
    let huge = Record::Policy { digest: "x".repeat(2 << 20), learned: Vec::new(), enforced: false, ranges: Vec::new() };
    store.note(huge).unwrap();
    store.note(quarantine(1)).unwrap();
    store.close();
    assert_eq!(store.status().lost, 2);
    let (store, again) = open(dir.path(), options());
    assert_eq!((again.ledgers.len(), again.policy, again.damage.is_empty()), (1, None, true));
    store.close();
}
