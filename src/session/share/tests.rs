use super::*;
use crate::model::{Announcement, SessionId, SessionType};

const ROOM: usize = 4096;
const NOW: u64 = 10_000;

fn session(n: u32, owner: Option<&str>, announced: bool) -> (Arc<Session>, Arc<Context>, IpAddr) {
    let address = IpAddr::from((0x0a00_0000 + n).to_be_bytes());
    let announcement = Announcement {
        id: SessionId::new(&format!("s{n}")).expect("an id"),
        addresses: vec![address],
        kind: SessionType::Interactive,
        phase: None,
        owner: owner.map(Into::into),
        search: Vec::new(),
    };
    let context = Arc::new(Context::new(announcement, announced));
    (Arc::new(Session::shared(context.clone())), context, address)
}

/// Takes as much as it gets, at most `most`.
fn fill(
    shares: &Arc<Shares>,
    (session, context, from): &(Arc<Session>, Arc<Context>, IpAddr),
    most: usize,
) -> Vec<Place> {
    (0..most).map_while(|_| shares.take(session, context, *from, NOW).ok()).collect()
}

#[test]
fn one_session_gets_a_quarter_and_leaves_the_rest() {
    let shares = Shares::new(ROOM);
    let hostile = session(1, None, true);
    let held = fill(&shares, &hostile, 60_000);
    assert!((1_000..=1_040).contains(&held.len()), "{}", held.len());
    assert_eq!(shares.take(&hostile.0, &hostile.1, hostile.2, NOW).err(), Some(Past::Session));
    assert_eq!(shares.refused(Past::Session), 2);
    let honest = session(2, None, true);
    let beside = fill(&shares, &honest, 400);
    assert!((75..=90).contains(&beside.len()), "{}", beside.len());
    // The hostile one has more than it would get beside others, and gets nothing until it has less.
    drop(held);
    let held = fill(&shares, &hostile, 60_000);
    assert!((100..=130).contains(&held.len()), "{}", held.len());
    drop((held, beside));
    let later = (0..400).map_while(|_| shares.take(&honest.0, &honest.1, honest.2, NOW + BESIDE_MS).ok());
    assert!(later.collect::<Vec<_>>().len() > 300, "alone again");
}

#[test]
fn who_has_used_up_its_part_is_beside_others_for_as_long_as_it_asks() {
    let shares = Shares::new(ROOM);
    let (hostile, honest) = (session(1, None, true), session(2, None, true));
    let first = fill(&shares, &honest, 1);
    let held = fill(&shares, &hostile, 60_000);
    assert!((100..=130).contains(&held.len()), "{}", held.len());
    drop(first);
    // Three seconds in which the one has no room and the other asks now and then.
    for now in (NOW..NOW + 3 * BESIDE_MS).step_by(10) {
        assert!(shares.has_room(&hostile.0, &hostile.1, hostile.2, now).is_err(), "{now}");
        drop(shares.take(&honest.0, &honest.1, honest.2, now).expect("room"));
    }
}

#[test]
fn everybody_gets_in_whatever_others_hold() {
    // Hostile sessions, of as many owners, and what an honest one gets behind them at least.
    for (hostile, least) in [(1, 75), (16, 40), (60, 16), (120, 4), (180, 4), (5_000, 0)] {
        let shares = Shares::new(ROOM);
        let held: Vec<_> =
            (0..hostile).flat_map(|n| fill(&shares, &session(n, Some(&format!("o{n}")), true), 60_000)).collect();
        assert!(held.len() <= ROOM);
        let got = fill(&shares, &session(9_999, None, true), 60_000);
        assert!(got.len() >= least, "{hostile} hostile sessions: {}", got.len());
        assert_eq!(shares.taken(), held.len() + got.len());
    }
}

#[test]
fn sessions_of_one_owner_are_one_tenant() {
    let shares = Shares::new(ROOM);
    let held: Vec<_> = (0..1000).flat_map(|n| fill(&shares, &session(n, Some("one"), true), 60_000)).collect();
    assert!(held.len() <= ROOM * 2 / 3 + 64, "{}", held.len());
    let late = session(5_000, Some("one"), true);
    assert_eq!(shares.has_room(&late.0, &late.1, late.2, NOW), Err(Past::Crowd));
    assert!(fill(&shares, &session(5_001, Some("two"), true), 200).len() >= 16);
}

#[test]
fn strangers_get_half_at_most_and_a_network_of_them_a_third() {
    let shares = Shares::new(ROOM);
    let near: Vec<_> = (0..250).flat_map(|n| fill(&shares, &session(n, None, false), 60_000)).collect();
    assert!(near.len() <= ROOM / 3 + 64, "{}", near.len());
    let far: Vec<_> = (1..250).flat_map(|n| fill(&shares, &session(n << 8, None, false), 60_000)).collect();
    assert!(near.len() + far.len() <= ROOM / 2 + 64, "{}", near.len() + far.len());
    assert!(shares.refused(Past::Crowd) > 0 && shares.refused(Past::Strangers) > 0);
    assert!(fill(&shares, &session(99_999, None, true), 60_000).len() > 30, "an announced session");
}

#[test]
fn what_is_given_back_can_be_taken_again() {
    let shares = Shares::new(64);
    let one = session(1, Some("o"), false);
    for _ in 0..3 {
        let held = fill(&shares, &one, 100);
        assert_eq!(held.len(), 16, "half of what is free where there is little room");
        drop(held);
        assert_eq!((shares.taken(), one.0.waiting.load(Relaxed), shares.strangers.load(Relaxed)), (0, 0, 0));
        assert!(shares.crowds.iter().all(|crowd| crowd.load(Relaxed) == 0));
    }
}

#[test]
fn two_at_a_limit_never_both_get_in() {
    let shares = Shares::new(ROOM);
    let one = session(1, None, true);
    let held: Vec<_> = std::thread::scope(|scope| {
        let takers: Vec<_> = (0..4).map(|_| scope.spawn(|| fill(&shares, &one, 60_000))).collect();
        takers.into_iter().flat_map(|taker| taker.join().expect("ends")).collect()
    });
    assert!(held.len() <= ROOM / 4 + 8, "{}", held.len());
    drop(held);
    assert_eq!(shares.taken(), 0);
}

#[test]
fn turns_are_kept_to_where_others_ask_now_and_then() {
    let shares = Shares::new(ROOM);
    let (one, other) = (session(1, None, true), session(2, None, true));
    let held = fill(&shares, &one, 100);
    assert!(!shares.has_turns(NOW), "alone");
    assert_eq!(fill(&shares, &other, 1).len(), 1);
    assert!(shares.has_turns(NOW) && shares.has_turns(NOW + TURNS_MS - 1) && !shares.has_turns(NOW + TURNS_MS));
    let turns: Vec<_> = std::iter::from_fn(|| one.0.turns.try_acquire().ok()).collect();
    assert_eq!((turns.len(), other.0.turns.available_permits()), (TURNS, TURNS), "each its own");
    drop((turns, held));
    assert_eq!(one.0.turns.available_permits(), TURNS);
}

#[test]
fn a_used_up_share_is_told_once_a_second() {
    let (session, ..) = session(1, None, true);
    let told = [5, 6, 1004, 1005, 1006, 2005].map(|now| session.may_tell(now));
    assert_eq!(told, [true, false, false, true, false, true]);
}

#[test]
fn a_session_that_several_workers_serve_is_alone_all_the_same() {
    let shares = Shares::new(ROOM);
    let alone = session(1, None, true);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..2_000 {
                    drop(fill(&shares, &alone, 3));
                }
            });
        }
    });
    assert!(!shares.has_turns(NOW), "nobody else asked");
    let other = session(2, None, true);
    let held = fill(&shares, &alone, 1);
    drop(fill(&shares, &other, 1));
    assert!(shares.has_turns(NOW), "the control");
    drop(held);
}
