//! What crashes and bad disks leave behind.

use super::*;
use crate::store::journal::{Journal, OldSegment};
use crate::store::recover::{Next, Replay, replay};

/// A journal of `n` quarantines, each of its own session, and where each line ends (newline not counted).
fn journal(n: u32) -> (tempfile::TempDir, Vec<u8>, Vec<usize>) {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path(), options());
    for i in 0..n {
        write(&store, &[quarantine(i)]);
    }
    store.close();
    let octets = fs::read(segment::path(dir.path(), 1)).unwrap();
    let ends = octets.iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(at, _)| at).collect();
    (dir, octets, ends)
}

fn place(octets: &[u8]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(segment::path(dir.path(), 1), octets).unwrap();
    dir
}

/// Begin and end of the empty snapshot.
const HEAD: usize = 2;

#[test]
fn a_journal_cut_anywhere_keeps_every_line_before_the_cut() {
    let (_dir, octets, ends) = journal(6);
    for cut in 0..=octets.len() {
        let dir = place(&octets[..cut]);
        let whole = ends.iter().filter(|end| **end <= cut).count();
        let read = replay(dir.path(), 7).unwrap();
        assert_eq!(read.fold.sessions.len(), whole.saturating_sub(HEAD), "cut at {cut}");
        assert_eq!(read.head.seq, whole as u64, "cut at {cut}");
        let at_line_end = cut == 0 || ends.iter().any(|end| cut == *end || cut == end + 1);
        assert_eq!(read.damage.torn.is_none(), at_line_end, "cut at {cut}: {:?}", read.damage);
        if let Some(torn) = &read.damage.torn {
            let aside = fs::read(dir.path().join(torn.aside.as_ref().unwrap())).unwrap();
            let end = octets[..cut].iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
            assert_eq!(aside, &octets[end..cut], "the torn octets are kept");
        }
        if whole >= HEAD {
            assert!(!read.damage.is_serious() && matches!(read.next, Next::Resume(_)), "cut at {cut}");
        }
    }
}

#[test]
fn a_cut_journal_goes_on_without_a_scar() {
    let (_dir, octets, ends) = journal(4);
    for cut in (0..octets.len()).step_by(97).chain(ends.iter().flat_map(|end| [*end, end + 1])) {
        let dir = place(&octets[..cut]);
        let whole = ends.iter().filter(|end| **end <= cut).count();
        let kept = whole.saturating_sub(HEAD);
        let (store, read) = open(dir.path(), options());
        assert_eq!(read.quarantined.len(), kept, "cut at {cut}");
        write(&store, &[quarantine(100), quarantine(101)]);
        store.close();
        let report = verify(dir.path()).unwrap();
        // A journal without a whole snapshot is left as it was, and a new segment begins.
        assert!(report.is_sound() || whole < HEAD, "cut at {cut}: {report:?}");
        let (store, read) = open(dir.path(), options());
        assert_eq!(read.quarantined.len(), kept + 2, "cut at {cut}");
        assert!(read.damage.is_empty(), "cut at {cut}: {:?}", read.damage);
        store.close();
    }
}

#[test]
fn random_flips_never_panic_and_cost_only_the_lines_they_hit() {
    let (_dir, octets, ends) = journal(20);
    let starts: Vec<usize> = [0].into_iter().chain(ends.iter().map(|end| end + 1)).collect();
    let mut state = 0xf11b;
    let mut silent = 0;
    for round in 0..10_000 {
        let mut bad = octets.clone();
        let flips: Vec<usize> =
            (0..1 + random(&mut state) % 3).map(|_| random(&mut state) as usize % bad.len()).collect();
        for at in &flips {
            bad[*at] ^= 1 << (random(&mut state) % 8);
        }
        if bad == octets {
            continue;
        }
        let dir = place(&bad);
        let read = replay(dir.path(), 7).unwrap();
        for (line, (start, end)) in starts.iter().zip(&ends).enumerate().skip(HEAD) {
            let hit = flips.iter().any(|at| (*start..*end).contains(at));
            let n = (line - HEAD) as u32;
            let found = read.fold.sessions.contains_key(&session(n));
            assert_eq!(found, !hit, "round {round}: line {line}, flips at {flips:?}");
            silent += u32::from(hit && read.damage.is_empty());
        }
        assert!(!read.damage.is_empty(), "round {round}: flips at {flips:?} went unnoticed");
    }
    assert_eq!(silent, 0);
}

#[test]
fn random_garbage_is_survived() {
    let mut state = 0x6a5b;
    for round in 0..60 {
        let len = random(&mut state) % 5_000;
        let garbage: Vec<u8> = (0..len)
            .map(|_| match random(&mut state) % 4 {
                0 => b'\n',
                1 => b"{\"seq\":,hash"[random(&mut state) as usize % 12],
                _ => random(&mut state) as u8,
            })
            .collect();
        let dir = place(&garbage);
        let (store, read) = open(dir.path(), options());
        assert_eq!(read.damage.is_empty(), garbage.is_empty(), "round {round}");
        write(&store, &[quarantine(1)]);
        store.close();
        let (store, read) = open(dir.path(), options());
        assert_eq!((read.quarantined.len(), read.damage.is_empty()), (1, true), "round {round}");
        store.close();
    }
}

#[test]
fn damage_in_the_middle_is_reported_and_left_as_evidence() {
    let (_dir, mut octets, ends) = journal(10);
    octets[ends[5] - 100] ^= 0x40;
    let dir = place(&octets);
    let (store, read) = open(dir.path(), options());
    assert_eq!(read.quarantined.len(), 9);
    assert!(read.damage.is_serious());
    let place = Place { segment: "journal-000001.jsonl".into(), offset: ends[4] as u64 + 1, octets: 0 };
    let octets_bad = (ends[5] - ends[4] - 1) as u64;
    assert_eq!(read.damage.unreadable, [Place { octets: octets_bad, ..place }]);
    assert_eq!(read.damage.breaks.iter().map(|b| (b.expected, b.found)).collect::<Vec<_>>(), [(6, 7)]);
    store.close();
    assert_eq!(fs::read(segment::path(dir.path(), 1)).unwrap(), octets, "not touched");
    assert_eq!(segment::list(dir.path()).unwrap(), [1, 2]);
    assert!(!verify(dir.path()).unwrap().is_sound());
    let (store, read) = open(dir.path(), options());
    assert_eq!((read.quarantined.len(), read.damage.is_empty()), (9, true), "once reported, not again");
    store.close();
}

#[test]
fn a_removed_line_is_noticed() {
    let (_dir, octets, ends) = journal(5);
    let cut = [&octets[..=ends[3]], &octets[ends[4] + 1..]].concat();
    let dir = place(&cut);
    let report = verify(dir.path()).unwrap();
    assert_eq!((report.lines, report.breaks_total, report.unreadable_total), (6, 1, 0));
    assert_eq!(replay(dir.path(), 0).unwrap().damage.breaks_total, 1);
}

#[test]
fn a_later_version_is_not_opened_and_not_touched() {
    use crate::store::line::{Extra, GENESIS, Json, Mark, encode};
    let mut octets = Vec::new();
    let begin = Json::mark(&Mark::Begin { schema: SCHEMA + 1, alerts: 0 }).unwrap();
    encode(&mut octets, 1, &GENESIS, "2026-01-02T03:04:05.678Z", Extra::None, &begin);
    let dir = place(&octets);
    let error = Store::open(dir.path(), options()).unwrap_err();
    assert!(matches!(error, Error::NewerSchema { what: "journal", found: 3, known: 2 }), "{error}");
    assert_eq!(fs::read(segment::path(dir.path(), 1)).unwrap(), octets);

    let dir = tempfile::tempdir().unwrap();
    open(dir.path(), Options::default()).0.close();
    let mut index = SledStore::open(&dir.path().join("index"), 1 << 20).unwrap();
    let schema = u64::from(SCHEMA + 1).to_be_bytes().to_vec();
    index.apply(vec![Op::Put(Tree::Meta, b"schema".to_vec(), schema)]).unwrap();
    index.flush().unwrap();
    drop(index);
    let error = Store::open(dir.path(), Options::default()).unwrap_err();
    assert!(matches!(error, Error::NewerSchema { what: "index", found: 3, .. }), "{error}");
    assert!(dir.path().join("index").exists());
}

#[test]
fn a_journal_without_room_for_a_segment_goes_on_with_the_next_write_that_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path(), options());
    write(&store, &[quarantine(1), quarantine(2), release(1)]);
    store.close();
    let before = fs::read(segment::path(dir.path(), 1)).unwrap();
    let Replay { fold, head, .. } = replay(dir.path(), 0).unwrap();
    let mut fold = fold.map(|live| live.loc);
    assert!(Journal::waiting(dir.path(), head, Vec::new()).unwrap().is_none(), "nothing to stand behind");
    let older = vec![OldSegment { number: 1, first: 1, octets: before.len() as u64 }];
    let mut journal = Journal::waiting(dir.path(), head, older).unwrap().unwrap();
    assert_eq!((journal.is_suspect(), journal.end()), (true, (1, before.len() as u64)));
    assert!(journal.append(std::iter::empty()).is_err(), "the old segment is not written again");
    assert_eq!(fs::read(segment::path(dir.path(), 1)).unwrap(), before);
    journal.rotate(&mut fold, 0).unwrap();
    drop(journal);
    assert_eq!(segment::list(dir.path()).unwrap(), [1, 2]);
    let (store, again) = open(dir.path(), options());
    assert_eq!((again.quarantined.len(), again.damage.is_empty()), (1, true), "{:?}", again.damage);
    store.close();
}

#[test]
fn a_damaged_index_is_put_aside_and_nothing_is_lost() {
    let mut state = 0xbad;
    let mut put_aside = 0;
    for round in 0..12 {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = open(dir.path(), Options::default());
        for n in 0..50 {
            write(&store, &[quarantine(n), ledger(n)]);
        }
        store.close();
        let file = dir.path().join("index").join(["db", "db", "conf", "blobs"][round % 4]);
        if round % 4 == 3 {
            // Not what is expected there at all.
            fs::remove_dir(&file).unwrap();
        }
        let mut octets = fs::read(&file).unwrap_or_default();
        match round % 4 {
            0 => octets.truncate(octets.len() * 7 / 10),
            _ => octets.iter_mut().for_each(|octet| {
                *octet ^= if random(&mut state).is_multiple_of(50) { random(&mut state) as u8 } else { 0 };
            }),
        }
        fs::write(&file, octets).unwrap();
        let (store, read) = open(dir.path(), Options::default());
        assert_eq!(read.quarantined.len(), 50, "round {round}");
        assert_eq!(read.ledgers.len(), 50, "round {round}");
        if let Some(index) = &read.damage.index {
            put_aside += 1;
            assert!(index.aside.as_ref().is_none_or(|aside| dir.path().join(aside).exists()));
            assert!(read.damage.is_serious());
        }
        write(&store, &[quarantine(50)]);
        store.close();
        let (store, read) = open(dir.path(), Options::default());
        assert_eq!(read.quarantined.len(), 51, "round {round}");
        store.close();
    }
    assert!(put_aside > 0, "the damage never hit");
}

#[test]
fn quarantines_the_journal_lost_come_back_from_the_index() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path(), Options::default());
    for n in 0..10 {
        write(&store, &[quarantine(n)]);
    }
    write(&store, &[release(0)]);
    store.close();
    // The end of the journal is gone, acknowledged lines and all; it looks like a torn end.
    let path = segment::path(dir.path(), 1);
    let octets = fs::read(&path).unwrap();
    fs::write(&path, &octets[..octets.len() / 2]).unwrap();
    let (store, read) = open(dir.path(), Options::default());
    assert!(read.damage.journal_short && read.damage.is_serious(), "{:?}", read.damage);
    assert!(read.damage.adopted > 2);
    let held = |r: &Recovered| r.quarantined.iter().map(|q| q.session.clone()).collect::<BTreeSet<_>>();
    assert_eq!(held(&read), (0..10).map(session).collect(), "also the one released in the lost part: the safe side");
    store.close();
    let (store, read) = open(dir.path(), Options::default());
    assert_eq!((held(&read).len(), read.damage.is_empty()), (10, true));
    store.close();
}

#[test]
fn a_directory_that_is_gone_or_another_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    std::fs::create_dir(&state).unwrap();
    let (store, _) = Store::open(&state, options()).unwrap();
    assert!(!store.is_astray());
    std::fs::rename(&state, dir.path().join("moved")).unwrap();
    assert!(store.is_astray());
    std::fs::create_dir(&state).unwrap();
    assert!(store.is_astray(), "another directory of the same name");
    std::fs::remove_dir(&state).unwrap();
    std::fs::rename(dir.path().join("moved"), &state).unwrap();
    assert!(!store.is_astray());
}
