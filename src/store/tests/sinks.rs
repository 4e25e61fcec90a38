//! Alerts that wait for receivers.

use super::*;

#[test]
fn a_sink_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let sinks = |names: &[&str]| Options {
        sinks: names.iter().map(|n| (*n).to_owned()).collect(),
        segment_octets: 4_000,
        keep_segments: 2,
        ..options()
    };
    let next = |spool: &mut Spool| spool.next(Duration::ZERO).unwrap().map(|s| s.alert.id);
    let undelivered = |r: &Recovered| r.undelivered.iter().map(|b| b.alerts).collect::<Vec<_>>();
    let id = |n: u32| Some(format!("alert-{n}"));

    let (store, _) = open(dir.path(), sinks(&["soc", "siem"]));
    for n in 0..100 {
        write(&store, &[ledger(n % 5), alert_record(n), quarantine(n % 5)]);
    }
    let mut soc = store.spool("soc").unwrap();
    for n in 0..60 {
        assert_eq!(next(&mut soc), id(n));
        assert_eq!(next(&mut soc), id(n), "the same one until it is taken");
        soc.taken();
    }
    assert_eq!(soc.progress().depth(&store), 40);
    assert!(store.spool("unknown").is_none());
    drop(soc);
    store.close();

    let (store, renamed) = open(dir.path(), Options { keep_segments: 1_000, ..sinks(&["SOC"]) });
    let unclaimed: Vec<_> = renamed.unclaimed.iter().map(|b| (b.sink.as_str(), b.alerts)).collect();
    assert_eq!((undelivered(&renamed), unclaimed), (vec![0], vec![("siem", 100), ("soc", 40)]));
    store.close();
    let (store, again) = open(dir.path(), sinks(&["soc", "siem", "late"]));
    assert_eq!((undelivered(&again), again.unclaimed.len()), (vec![40, 100, 0], 0));
    write(&store, &[alert_record(100)]);
    let mut late = store.spool("late").unwrap();
    assert_eq!(next(&mut late), id(100), "a new sink gets what comes from now on");
    late.taken();
    assert_eq!(next(&mut late), None);
    let (mut soc, mut siem) = (store.spool("soc").unwrap(), store.spool("siem").unwrap());
    for n in 60..=100 {
        assert_eq!(next(&mut soc), id(n));
        soc.taken();
    }
    for n in 0..=100 {
        assert_eq!(next(&mut siem), id(n), "its segments were kept for it");
        siem.taken();
    }
    assert_eq!((next(&mut soc), next(&mut siem), siem.progress().depth(&store)), (None, None, 0));
    // Nobody needs the old segments any more.
    for n in 0..60 {
        write(&store, &[quarantine(n % 5), ledger(n % 5)]);
    }
    drop((soc, siem, late));
    store.close();
    assert_eq!(segment::list(dir.path()).unwrap().len(), 2);
    let (store, last) = open(dir.path(), sinks(&["soc", "siem", "late"]));
    assert_eq!(undelivered(&last), [0, 0, 0]);
    store.close();
}

#[test]
fn what_is_kept_for_a_sink_is_bounded_and_what_it_loses_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let bounded = Options {
        sinks: vec!["soc".into()],
        segment_octets: 4_000,
        keep_segments: 2,
        held_octets: 40_000,
        ..options()
    };
    let (store, _) = open(dir.path(), bounded.clone());
    let mut warned_of = None;
    for n in 0..200 {
        write(&store, &[ledger(n % 5), alert_record(n), quarantine(n % 5)]);
        let status = store.status();
        if status.held_much && warned_of.is_none() {
            warned_of = Some(status.lost);
        }
    }
    assert_eq!(warned_of, Some(0), "it is told before anything is given up");
    let status = store.status();
    assert!(status.held_much && status.held_octets <= 40_000 && status.lost > 0, "{status:?}");
    assert!(status.journal_octets < 3 * 40_000, "{status:?}");
    let mut soc = store.spool("soc").unwrap();
    for n in status.lost..200 {
        assert_eq!(soc.next(Duration::ZERO).unwrap().map(|s| s.alert.id), Some(format!("alert-{n}")));
        soc.taken();
    }
    assert_eq!((soc.next(Duration::ZERO).unwrap(), soc.progress().depth(&store)), (None, 0));
    // Behind what was noted of the delivery: nothing is kept for it any more, be there a new segment or not.
    write(&store, &[quarantine(1)]);
    drop(soc);
    store.close();
    let after = store.status();
    assert_eq!((after.held_octets, after.held_much), (0, false));
    assert_eq!(segment::list(dir.path()).unwrap().len(), 2);
}

#[test]
fn a_waiting_spool_hears_of_an_alert_and_of_a_wake() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path(), Options { sinks: vec!["soc".into()], ..options() });
    let mut spool = store.spool("soc").unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| spool.next(Duration::from_secs(60)).unwrap().map(|s| s.alert.id));
        write(&store, &[alert_record(5)]);
        assert_eq!(waiting.join().unwrap().as_deref(), Some("alert-5"));
    });
    spool.taken();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| spool.next(Duration::from_secs(60)).unwrap().is_none());
        while !waiting.is_finished() {
            store.wake();
            std::thread::yield_now();
        }
        assert!(waiting.join().unwrap());
    });
    drop(spool);
    store.close();
}
