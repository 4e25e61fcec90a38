//! Ages, floors, failures and bounds of kept answers.

use staunch_scoring::NameBuf;

use super::*;

fn answer(ttl: u32, octets: usize) -> WireAnswer {
    WireAnswer {
        rcode: 0,
        authentic_data: false,
        ede: None,
        answers: 1,
        authorities: 0,
        body: vec![0; octets].into(),
        ttl_at: Box::new([6]),
        ttl,
        pins: Box::default(),
        beyond: false,
    }
}

fn key(name: &NameBuf) -> Key<'_> {
    Key { qname: name.as_ref(), qtype: Qtype::A, dnssec_ok: false, checking_disabled: false, partition: Partition::ALL }
}

fn name(text: &str) -> NameBuf {
    NameBuf::from_text(text).expect("name")
}

#[test]
fn an_entry_lives_for_its_ttl_and_no_longer() {
    let cache = Cache::new(Config::of_entries(16));
    let name = name("a.example");
    let put = cache.put(key(&name), 0, answer(10, 50), Box::default(), 5_000, 0, 0);
    for (now, left) in [(5_000, Some(10)), (5_001, Some(9)), (14_999, Some(0)), (15_000, None), (u64::MAX, None)] {
        let got = cache.get(key(&name), now);
        assert_eq!(got.as_ref().map(|e| e.ttl_left(now)), left, "at {now}");
        assert!(got.is_none_or(|e| e.id == put.id), "reading does not renew");
    }
}

#[test]
fn a_later_answer_is_another_entry() {
    let cache = Cache::new(Config::of_entries(16));
    let name = name("a.example");
    let first = cache.put(key(&name), 0, answer(10, 50), Box::default(), 0, 0, 0);
    let second = cache.put(key(&name), 0, answer(20, 50), Box::default(), 4_000, 0, 0);
    assert_ne!(first.id, second.id);
    assert_eq!((first.expires, second.expires), (10_000, 24_000), "the first keeps its own end");
    assert_eq!(cache.get(key(&name), 5_000).map(|e| e.id), Some(second.id));
    assert_eq!(cache.len(), 1);
}

fn others_partition() -> Partition {
    let id = crate::model::SessionId::new("other").expect("an id");
    let announcement = crate::model::Announcement::without_sandbox(id, crate::model::SessionType::Batch);
    crate::partition::Partitions::of(&announcement).alone()
}

#[test]
fn the_whole_question_is_the_key() {
    let cache = Cache::new(Config::of_entries(64));
    let (a, b) = (name("a.example"), name("b.example"));
    let base = key(&a);
    cache.put(base, 0, answer(10, 50), Box::default(), 0, 0, 0);
    let others = [
        key(&b),
        Key { qtype: Qtype::AAAA, ..base },
        Key { dnssec_ok: true, ..base },
        Key { checking_disabled: true, ..base },
        Key { dnssec_ok: true, checking_disabled: true, ..base },
        Key { partition: others_partition(), ..base },
    ];
    for other in others {
        assert!(cache.get(other, 1).is_none(), "{other:?}");
    }
    assert!(cache.get(base, 1).is_some());
}

#[test]
fn a_cache_of_none_keeps_nothing() {
    let name = name("a.example");
    let off = Cache::new(Config::of_entries(0));
    assert_eq!(
        off.put(key(&name), 0, answer(100, 50), Box::default(), 0, 60_000, 0).answer.ttl,
        100,
        "still served once"
    );
    off.put_failure(key(&name), Ede::Other, "x", 0, 5_000, true);
    assert!(off.is_empty() && off.failure(key(&name), 0).is_none());
}

#[test]
fn the_floor_makes_an_answer_usable_and_never_its_ttl_longer() {
    let cache = Cache::new(Config::of_entries(16));
    // TTL, floor in ms, then: until when it is usable, its TTL one second in.
    for (ttl, floor, usable, left) in
        [(0, 60_000, 60_000, 0), (5, 60_000, 60_000, 4), (300, 60_000, 300_000, 299), (0, 0, 0, 0), (7, 0, 7_000, 6)]
    {
        let name = name(&format!("t{ttl}f{floor}.example"));
        let put = cache.put(key(&name), 0, answer(ttl, 50), Box::default(), 0, floor, 0);
        assert_eq!((put.usable, put.expires), (usable, u64::from(ttl) * 1000));
        assert_eq!(put.ttl_left(1_000), left, "the TTL shown is the record's own");
        assert_eq!(cache.get(key(&name), usable.saturating_sub(1)).is_some(), usable > 0);
        assert!(cache.get(key(&name), usable).is_none(), "ttl {ttl} floor {floor}");
    }
}

#[test]
fn what_is_expired_is_there_for_who_is_held() {
    let cache = Cache::new(Config::of_entries(16));
    let name = name("a.example");
    cache.put(key(&name), 0, answer(10, 50), Box::default(), 0, 0, 0);
    for (now, max_stale, there) in
        [(9_999, 0, true), (10_000, 0, false), (10_000, 1, true), (70_000, 60_000, false), (69_999, 60_000, true)]
    {
        assert_eq!(cache.get_stale(key(&name), now, max_stale).is_some(), there, "at {now} of {max_stale}");
    }
    assert!(cache.get(key(&name), 10_000).is_none(), "it answers nobody else");
}

#[test]
fn a_failure_stands_for_its_time_and_takes_no_answers_place() {
    let cache = Cache::new(Config::of_entries(16));
    let (name, other) = (name("a.example"), name("b.example"));
    cache.put(key(&name), 0, answer(10, 50), Box::default(), 0, 0, 0);
    assert!(cache.failure(key(&name), 0).is_none());
    cache.put_failure(key(&name), Ede::NetworkError, "refused", 20_000, 2_000, true);
    assert_eq!(cache.failure(key(&name), 21_999).map(|f| f.ede), Some(Ede::NetworkError));
    assert!(cache.failure(key(&name), 22_000).is_none());
    assert!(cache.failure(key(&other), 21_999).is_none(), "of one question only");
    assert!(cache.get_stale(key(&name), 21_000, 60_000).is_some(), "the old answer is still there");
    for i in 0..3 * FAILURES {
        let name = NameBuf::from_text(&format!("n{i}.example")).expect("name");
        cache.put_failure(key(&name), Ede::Other, "", 48_000, 2_000, true);
    }
    assert!(cache.failures.len() <= FAILURES, "{}", cache.failures.len());
    cache.clear();
    assert_eq!(cache.failures.len(), 0);
}

#[test]
fn a_failure_that_comes_again_stands_twice_as_long_up_to_a_minute() {
    let cache = Cache::new(Config::of_entries(16));
    let (name, other) = (name("a.example"), name("b.example"));
    let fail = |name: &NameBuf, now, doubles| cache.put_failure(key(name), Ede::Other, "", now, 2_000, doubles);
    let (mut now, mut stood) = (0, Vec::new());
    for _ in 0..8 {
        let stands = fail(&name, now, true);
        assert!(
            cache.failure(key(&name), now + stands - 1).is_some() && cache.failure(key(&name), now + stands).is_none()
        );
        stood.push(stands);
        now += stands + 500;
    }
    assert_eq!(stood, [2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000, 60_000]);
    assert_eq!(fail(&other, now, true), 2_000, "of one question only");
    assert_eq!(fail(&name, now, false), 2_000);
    assert_eq!(fail(&name, now + 2_000, true), 4_000);
    assert_eq!(fail(&name, now + 66_000, true), 2_000, "a minute without a failure");
    assert_eq!(cache.put_failure(key(&other), Ede::Other, "", now + 2_500, 300_000, true), 300_000, "as configured");
    // An answer ends it.
    cache.put(key(&name), 0, answer(0, 50), Box::default(), now + 70_000, 0, 0);
    assert!(cache.last_failure(key(&name)).is_none());
    assert_eq!(fail(&name, now + 70_000, true), 2_000);
}

#[test]
fn with_less_room_what_is_used_stays_and_with_more_it_fills_again() {
    let cache = Cache::new(Config { entries: 1 << 16, octets: 8 << 20 });
    let put = |range: std::ops::Range<u32>| {
        for i in range {
            cache.put(key(&name(&format!("n{i}.example"))), 0, answer(100, 700), Box::default(), 0, 0, 0);
            for _ in 0..3 {
                cache.get(key(&name("n0.example")), 1);
            }
        }
    };
    let there = |i| cache.get(key(&name(&format!("n{i}.example"))), 1).is_some();
    put(0..20_000);
    let full = cache.weight();
    assert!(full > 6 << 20, "{full} octets");
    for (room, most) in [(5 << 20, 5 << 20), (1 << 20, 1 << 20), (0, 1024)] {
        cache.set_room(room);
        // Evenly among its parts, so an octet more for each.
        assert!(cache.weight() <= most + 1024 && cache.room() <= most + 1024, "{} octets of {room}", cache.weight());
        assert!(room == 0 || there(0), "asked all the time");
    }
    put(20_000..21_000);
    assert!(cache.weight() <= 2048, "{} octets", cache.weight());
    cache.set_room(8 << 20);
    put(21_000..41_000);
    assert!(cache.weight() > 6 << 20 && cache.weight() <= (8 << 20) + 1024, "{} octets", cache.weight());
    assert!(there(40_999));
}

#[test]
fn entries_and_octets_are_bounded() {
    for (config, size) in
        [(Config { entries: 512, octets: 1 << 20 }, 10), (Config { entries: 1 << 16, octets: 1 << 20 }, 4_000)]
    {
        let cache = Cache::new(config);
        for i in 0..20_000 {
            let name = name(&format!("n{i}.example"));
            cache.put(key(&name), 0, answer(100, size), Box::default(), 0, 0, 0);
        }
        assert!(cache.len() <= config.entries, "{} entries", cache.len());
        assert!(cache.weight() <= config.octets as u64, "{} octets", cache.weight());
        assert!(!cache.is_empty());
        cache.clear();
        assert_eq!((cache.len(), cache.weight()), (0, 0));
    }
}

#[test]
fn what_was_vetted_by_other_rules_is_not_found() {
    let cache = Cache::new(Config::of_entries(8));
    let name = name("www.example");
    cache.put(key(&name), 0, answer(10, 50), Box::default(), 0, 0, 0);
    assert!(cache.get(key(&name), 1).is_some());
    cache.vetted_by(7);
    assert!(cache.get(key(&name), 1).is_none() && cache.get_stale(key(&name), 1, 60_000).is_none());
    cache.clear();
    // By who was still at it when the rules changed.
    cache.put(key(&name), 0, answer(10, 50), Box::default(), 0, 0, 0);
    assert!(cache.get(key(&name), 1).is_none());
    cache.put(key(&name), 7, answer(10, 50), Box::default(), 0, 0, 0);
    assert!(cache.get(key(&name), 1).is_some());
}
