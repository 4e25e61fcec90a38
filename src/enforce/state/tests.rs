//! The wanted state on paper.

use super::*;
use crate::enforce::SESSION_LEASES_MAX;
use crate::ports::{Port, Ports};
use proptest::prelude::*;
use std::time::Duration;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("test address")
}

fn session(n: u8) -> IpAddr {
    IpAddr::from([10, 77, 1, n])
}

fn to(n: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, n])
}

/// One port, so that an address is a lease.
fn https() -> Ports {
    Ports::these([Port::tcp(443)]).expect("ports")
}

fn target(n: u8) -> Target {
    Target { address: to(n), open: Opening::One(Port::tcp(443)) }
}

fn pin_to(session: IpAddr, destinations: Vec<IpAddr>, lifetime: u64) -> Command {
    let lifetime = Duration::from_millis(lifetime);
    Command::Pin { session, destinations, ports: https(), volume: None, lifetime }
}

fn pin(n: u8, destinations: &[u8], lifetime: u64) -> Command {
    pin_to(session(n), destinations.iter().copied().map(to).collect(), lifetime)
}

fn new(capacity: u32) -> State {
    State::new(capacity, FIRST_GENERATION)
}

#[test]
fn the_later_end_counts_and_only_changes_are_told() {
    let mut state = new(10);
    let mut journal = Vec::new();
    let ports = https();
    let mut pin = |state: &mut State, destinations: &[IpAddr], lifetime, now| {
        state.pin(session(1), destinations, (&ports, None), lifetime, now, &mut journal).expect("room").leases
    };
    let first = pin(&mut state, &[to(1)], 60_000, 0);
    assert_eq!(first, [Lease { target: target(1), remaining: 60_000, refreshed: false }]);
    assert_eq!(pin(&mut state, &[to(1)], 10_000, 1_000), []);
    let later = pin(&mut state, &[to(1), to(2)], 60_000, 1_000);
    assert_eq!(later.iter().map(|lease| lease.refreshed).collect::<Vec<_>>(), [true, false]);
    assert_eq!(state.entry(session(1)).expect("held").leases[&target(1)], 61_000);
    state.undo(journal);
    assert!(state.entry(session(1)).is_none(), "taken back to the first");
    assert_eq!(state.pins(), [0, 0]);
}

#[test]
fn a_full_set_is_an_error_until_something_ended() {
    let mut state = new(2);
    state.apply(&pin(1, &[1, 2], 5_000), 0).expect("room");
    assert!(matches!(state.apply(&pin(2, &[1], 5_000), 1_000), Err(Error::Full { limit: 2 })));
    state.apply(&pin(1, &[2], 9_000), 2_000).expect("a refresh needs no room");
    state.apply(&pin(2, &[1], 5_000), 6_000).expect("the first has ended");
    assert_eq!(state.pins(), [2, 0]);
}

#[test]
fn one_session_cannot_hold_everything() {
    let mut state = new(1 << 20);
    let mut result = Ok(());
    for block in 0..=SESSION_LEASES_MAX / DESTINATIONS_MAX {
        let destinations = (0..DESTINATIONS_MAX).map(|n| IpAddr::from([198, 18, block as u8, n as u8])).collect();
        result = state.apply(&pin_to(session(1), destinations, 60_000), 0);
    }
    assert!(matches!(result, Err(Error::SessionFull { .. })));
    assert_eq!(state.pins(), [SESSION_LEASES_MAX, 0]);
    state.apply(&pin(2, &[1], 1_000), 0).expect("others have room");
}

#[test]
fn families_do_not_mix_and_mapped_addresses_are_ipv4() {
    let mut state = new(10);
    let mixed = pin_to(session(1), vec![ip("2001:db8::1")], 60_000);
    assert!(matches!(state.apply(&mixed, 0), Err(Error::Family { .. })));
    let mapped = pin_to(ip("::ffff:10.77.1.1"), vec![ip("::ffff:192.0.2.1")], 60_000);
    state.apply(&mapped, 0).expect("one family");
    assert!(state.entry(session(1)).expect("held").leases.contains_key(&target(1)));
    let long = pin_to(session(1), vec![to(1); DESTINATIONS_MAX + 1], 60_000);
    assert!(matches!(state.apply(&long, 0), Err(Error::TooMany(_))));
}

/// A guard under a class of its own.
fn guard(n: u8) -> Command {
    Command::Guard { session: session(n), class: Class(n) }
}

fn renew(n: u8, keep: &[u8]) -> Command {
    let kept = |n: &u8| Kept { destination: to(*n), ports: vec![https()], volume: None };
    Command::Renew { session: session(n), class: Class(n), keep: keep.iter().map(kept).collect() }
}

#[test]
fn a_new_generation_keeps_what_is_named_and_the_old_one_goes_when_its_flows_are_taken_over() {
    let mut state = new(100);
    state.apply(&guard(1), 0).expect("room");
    state.apply(&pin(1, &[1, 2, 3], 60_000), 0).expect("room");
    let entry = |state: &State| state.entry(session(1)).expect("known").clone();
    let first = entry(&state).generation;
    assert!(first >= FIRST_GENERATION);
    state.apply(&guard(1), 0).expect("room");
    assert_eq!(entry(&state).generation, first, "guarded already");
    let keep = |n| vec![Kept { destination: to(n), ports: vec![https()], volume: None }];
    let changed = state.renew(session(1), Class(5), &keep(2), 0).expect("room");
    assert_eq!((changed.gone.len(), changed.narrowed), (2, vec![]));
    let renewed = entry(&state);
    assert_eq!((renewed.retiring.as_slice(), renewed.class), (&[first][..], Class(5)));
    assert!(renewed.generation > first && renewed.leases.contains_key(&target(2)));
    // A second one while the first is under way: what the first takes over is of the first's generation.
    state.renew(session(1), Class(5), &[], 0).expect("room");
    assert_eq!(entry(&state).retiring, [first, renewed.generation]);
    assert!(state.retire(session(1), renewed.generation), "the first is done");
    assert_eq!(entry(&state).retiring, [renewed.generation], "its flows are judged by the second");
    assert!(state.retire(session(1), entry(&state).generation) && entry(&state).retiring.is_empty());
    assert!(!state.retire(session(1), entry(&state).generation) && entry(&state).leases.is_empty());
    // Other ports than those that are kept are closed.
    state.apply(&pin(1, &[1], 60_000), 0).expect("room");
    let ssh = Ports::these([Port::tcp(22)]).expect("ports");
    let kept = Kept { destination: to(1), ports: vec![ssh], volume: None };
    assert_eq!(state.renew(session(1), Class(5), &[kept], 0).expect("room").gone, [target(1)]);
}

#[test]
fn what_stays_open_of_a_page_is_open_as_long_as_the_page_was() {
    let lease = |state: &mut State, n: u8| {
        let pinned = state.pin(session(1), &[to(n)], (&Ports::web(), None), 60_000, 0, &mut Vec::new());
        assert_eq!(pinned.expect("room").leases.len(), 1);
    };
    let held = |state: &State| {
        let mut held: Vec<_> =
            state.entry(session(1)).expect("known").leases.iter().map(|(t, end)| (*t, *end)).collect();
        held.sort_unstable();
        held
    };
    let [http, https_, quic] = Opening::WEB;
    let some = |ports: &[Port]| Ports::these(ports.iter().copied()).expect("ports");
    let kept = |n, ports| Kept { destination: to(n), ports, volume: None };
    let mut state = new(4);
    lease(&mut state, 1);
    lease(&mut state, 2);
    // One name opens all but one, and another that one: nothing changes for this address.
    let keep = [kept(1, vec![some(&[http, https_])]), kept(2, vec![some(&[http]), some(&[https_, quic])])];
    let changed = state.renew(session(1), Class(1), &keep, 10_000).expect("room");
    let target = |n, open| Target { address: to(n), open };
    assert_eq!(changed.gone, [target(1, Opening::Web)]);
    let narrowed = |port| Lease { target: target(1, Opening::One(port)), remaining: 50_000, refreshed: false };
    assert_eq!(changed.narrowed, [narrowed(http), narrowed(https_)]);
    let one = |n, port| (target(n, Opening::One(port)), 60_000);
    let all = [one(1, http), one(1, https_), (target(2, Opening::Web), 60_000)];
    assert_eq!(held(&state), sorted(&all));
    assert_eq!(state.pins(), [3, 0]);
    // Where there is no room for the parts they close, and nothing is open that was not.
    lease(&mut state, 3);
    let keep = [kept(1, vec![Ports::web()]), kept(2, vec![Ports::web()]), kept(3, vec![some(&[http, https_])])];
    let changed = state.renew(session(1), Class(1), &keep, 10_000).expect("room");
    assert_eq!((changed.gone, changed.narrowed.len()), (vec![target(3, Opening::Web)], 1));
    assert_eq!(state.pins(), [4, 0]);
    // One that is open for itself already stays the longer of the two.
    let mut state = new(9);
    lease(&mut state, 1);
    let only = some(&[https_]);
    state.pin(session(1), &[to(1)], (&only, None), 20_000, 0, &mut Vec::new()).expect("room");
    let changed = state.renew(session(1), Class(1), &[kept(1, vec![only])], 10_000).expect("room");
    let longer = Lease { target: target(1, Opening::One(https_)), remaining: 50_000, refreshed: true };
    assert_eq!((changed.narrowed, state.pins()), (vec![longer], [1, 0]));
    // What has ended is not opened again.
    lease(&mut state, 2);
    assert_eq!(state.renew(session(1), Class(1), &[kept(2, vec![some(&[http])])], 70_000).expect("room").narrowed, []);
}

fn sorted<T: Ord + Copy>(all: &[T]) -> Vec<T> {
    let mut all = all.to_vec();
    all.sort_unstable();
    all
}

#[test]
fn generations_part_runs_modes_and_quarantines() {
    let mut state = new(100);
    let generation = |state: &State| state.entry(session(1)).map_or(0, |entry| entry.generation);
    let mut seen = vec![];
    for command in [
        guard(1),
        Command::Quarantine { session: session(1) },
        Command::Release { session: session(1) },
        Command::Unguard { session: session(1) },
        guard(1),
        Command::Remove { session: session(1) },
        guard(1),
    ] {
        state.apply(&command, 0).expect("room");
        seen.push(generation(&state));
    }
    let [first, closed, released, monitored, again, gone, next] = seen[..] else { panic!("{seen:?}") };
    assert!(closed > first && released == closed, "flows from before a quarantine are over for good");
    assert_eq!((monitored, gone), (0, 0));
    assert!(again > closed && next > again, "another run under this address has other marks");
    let active = |quarantined| Active { session: session(1), guard: Some(Class(1)), quarantined };
    state.reconcile(&[active(false)]).expect("room");
    assert_eq!(generation(&state), next, "flows live through a restart");
    state.reconcile(&[active(true)]).expect("room");
    assert!(generation(&state) > next);
}

#[test]
fn volumes_outlive_leases_and_take_the_wider_limit() {
    let mut state = new(100);
    let mut journal = Vec::new();
    let ports = https();
    let mut pin = |state: &mut State, n: u8, volume, now| {
        state.pin(session(1), &[to(n)], (&ports, volume), 1_000, now, &mut journal).expect("room").volumes
    };
    let metered = |n, limit, used, replaced| Metered { destination: to(n), volume: Volume { limit, used }, replaced };
    assert_eq!(pin(&mut state, 1, Some(100), 0), [metered(1, Some(100), 0, false)]);
    assert_eq!(pin(&mut state, 1, Some(50), 0), [], "the wider one is in force");
    state.note_used(session(1), to(1), 80);
    state.sweep(5_000);
    assert_eq!(pin(&mut state, 1, Some(100), 6_000), [], "a new lease does not begin at nothing");
    assert_eq!(pin(&mut state, 1, None, 6_000), [metered(1, None, 80, true)], "a rule names it");
    assert_eq!(pin(&mut state, 1, Some(10), 6_000), [], "and still does");
    let kept = Kept { destination: to(1), ports: vec![https()], volume: Some(90) };
    let changed = state.renew(session(1), Class(1), &[kept], 6_000).expect("room");
    assert_eq!(changed.volumes, [metered(1, Some(90), 80, false)], "until policy changes");
    assert!(state.note_used(session(1), to(1), 7) && !state.note_used(session(1), to(2), 7));
    assert_eq!(state.entry(session(1)).expect("known").volumes[&to(1)].used, 80, "never less");
    state.apply(&Command::Quarantine { session: session(1) }, 0).expect("taken");
    assert_eq!(state.entry(session(1)).expect("known").volumes.len(), 1);
    state.apply(&Command::Remove { session: session(1) }, 0).expect("taken");
    assert!(state.entry(session(1)).is_none() && state.volumes == [0, 0]);
}

#[test]
fn what_gives_way_is_told_with_what_it_was() {
    let mut state = new(1 << 20);
    let to = |n: u32| IpAddr::from(std::net::Ipv4Addr::from(0xc612_0000 + n));
    let pin = |state: &mut State, n: u32, now| {
        state.pin(session(1), &[to(n)], (&https(), None), 1, now, &mut Vec::new()).expect("room").forgotten
    };
    for n in 0..crate::enforce::SESSION_VOLUMES_MAX as u32 {
        assert_eq!(pin(&mut state, n, 0), []);
        state.note_used(session(1), to(n), if n == 77 { 5 } else { 6 });
    }
    state.sweep(10);
    assert_eq!(pin(&mut state, 9_000, 10), [(to(77), Volume { limit: None, used: 5 })]);
    assert!(state.note_used(session(1), to(9_000), 1) && !state.note_used(session(1), to(77), 1));
}

#[test]
fn a_lease_that_is_found_without_a_count_had_no_limit() {
    let mut state = new(100);
    let target = |n, open| Target { address: to(n), open };
    for target in [target(1, Opening::One(Port::tcp(22))), target(1, Opening::Web), target(2, Opening::Any)] {
        state.adopt_lease(session(1), target, 1_000, 0);
    }
    state.adopt_volume(session(1), to(2), Volume { limit: Some(10), used: 5 });
    state.adopt_volume(session(1), to(2), Volume { limit: None, used: 9 });
    state.adopt_uncounted();
    let volumes = state.entry(session(1)).expect("known").volumes.clone();
    assert_eq!(state.volumes, [2, 0]);
    assert!(!volumes[&to(1)].is_held() && volumes[&to(2)] == Volume { limit: Some(10), used: 5 });
    let pinned = state.pin(session(1), &[to(3)], (&https(), None), 1_000, 0, &mut Vec::new()).expect("room");
    assert!(pinned.volumes.is_empty(), "the first packet begins its count");
}

#[test]
fn every_port_is_a_lease_but_those_of_a_page_are_one() {
    let mut state = new(100);
    let mut journal = Vec::new();
    let ports = Ports::these(Opening::WEB.into_iter().chain([Port::tcp(22), Port::tcp(25)])).expect("ports");
    let pinned = state.pin(session(1), &[to(1)], (&ports, None), 1_000, 0, &mut journal).expect("room");
    assert_eq!(pinned.leases.len(), 3);
    let any = state.pin(session(1), &[to(1)], (&Ports::Any, None), 1_000, 0, &mut journal).expect("room");
    assert_eq!(any.leases.iter().map(|lease| lease.target.open).collect::<Vec<_>>(), [Opening::Any]);
    assert_eq!(state.unpin(session(1), &[to(1), to(2)]).expect("taken").len(), 4);
    assert_eq!(state.pins(), [0, 0]);
}

#[test]
fn reconcile_keeps_the_leases_of_live_sessions_only() {
    let mut state = new(10);
    for n in 1..=3 {
        state.apply(&pin(n, &[1, 2], 60_000), 0).expect("room");
        state.apply(&guard(n), 0).expect("room");
    }
    let active =
        |n, guard: bool, quarantined| Active { session: session(n), guard: guard.then_some(Class(9)), quarantined };
    state.reconcile(&[active(1, false, false), active(2, true, true), active(4, true, false)]).expect("room");
    let entry = |n| state.entry(session(n)).map(|e| (e.guarded, e.monitored, e.quarantined, e.leases.len()));
    assert_eq!(entry(1), Some((false, true, false, 2)));
    assert_eq!(entry(2), Some((true, false, true, 0)));
    assert_eq!(entry(3), None);
    assert_eq!(entry(4), Some((true, false, false, 0)));
    assert_eq!(state.pins(), [2, 0]);
}

fn commands() -> impl Strategy<Value = Vec<(Command, u64)>> {
    let sessions = 1u8..4;
    let command = prop_oneof![
        6 => (sessions.clone(), proptest::collection::vec(0u8..12, 0..6), 0u64..90_000)
            .prop_map(|(n, to, lifetime)| pin(n, &to, lifetime)),
        1 => (sessions.clone(), proptest::collection::vec(0u8..12, 0..6)).prop_map(|(n, destinations)| {
            Command::Unpin { session: session(n), destinations: destinations.into_iter().map(to).collect() }
        }),
        1 => sessions.clone().prop_map(guard),
        1 => (sessions.clone(), proptest::collection::vec(0u8..12, 0..6)).prop_map(|(n, keep)| renew(n, &keep)),
        1 => sessions.clone().prop_map(|n| Command::Unguard { session: session(n) }),
        1 => sessions.clone().prop_map(|n| Command::Quarantine { session: session(n) }),
        1 => sessions.clone().prop_map(|n| Command::Release { session: session(n) }),
        1 => sessions.prop_map(|n| Command::Remove { session: session(n) }),
    ];
    proptest::collection::vec((command, 0u64..40_000), 0..80)
}

proptest! {
    #[test]
    fn no_pin_survives_a_revoke_and_counts_stay_true(commands in commands()) {
        let mut state = new(20);
        let mut now = 0;
        for (command, pause) in commands {
            now += pause;
            let who = command.session();
            let before = state.entry(who).cloned().unwrap_or_default();
            let result = state.apply(&command, now);
            let after = state.entry(who).cloned().unwrap_or_default();
            match &command {
                Command::Pin { .. } => {
                    prop_assert!(!before.quarantined || result.is_err() || after.leases.is_empty());
                    for (destination, end) in before.leases.iter().filter(|(_, end)| **end > now) {
                        prop_assert!(after.leases.get(destination).is_some_and(|later| later >= end));
                    }
                }
                Command::Quarantine { .. } => prop_assert!(after.quarantined && after.leases.is_empty()),
                Command::Remove { .. } => prop_assert_eq!(after.clone(), Entry::default()),
                Command::Renew { keep, .. } => {
                    let kept = |target: &Target| keep.iter().any(|kept| kept.destination == target.address);
                    prop_assert!(after.leases.keys().all(kept) && after.guarded);
                    prop_assert!(after.generation > before.generation);
                }
                _ => {}
            }
            prop_assert!(!after.quarantined || after.leases.is_empty());
            let held: usize = state.entries().map(|(_, entry)| entry.leases.len()).sum();
            prop_assert_eq!(state.pins(), [held, 0]);
            prop_assert!(held <= 20);
            prop_assert!(state.entries().all(|(_, entry)| !entry.is_empty()), "no empty entries are kept");
        }
    }

    #[test]
    fn what_is_taken_back_was_never_there(
        first in proptest::collection::vec((0u8..8, 1u64..90_000), 0..8),
        second in proptest::collection::vec((0u8..8, 1u64..90_000), 0..8),
    ) {
        let mut state = new(100);
        for (n, lifetime) in first {
            state.apply(&pin(1, &[n], lifetime), 0).expect("room");
        }
        let before = state.entry(session(1)).cloned();
        let pins = state.pins();
        let mut journal = Vec::new();
        for (n, lifetime) in second {
            state.pin(session(1), &[to(n)], (&https(), Some(n.into())), lifetime, 5, &mut journal).expect("room");
        }
        state.undo(journal);
        prop_assert_eq!(state.entry(session(1)).cloned(), before);
        prop_assert_eq!(state.pins(), pins);
    }
}

#[test]
fn the_ports_of_a_page_from_an_earlier_version_are_one_lease() {
    let mut state = new(100);
    let one = |n, port| Target { address: to(n), open: Opening::One(port) };
    for (port, left) in Opening::WEB.into_iter().zip([9_000, 5_000, 7_000]) {
        state.adopt_lease(session(1), one(1, port), left, 0);
    }
    state.adopt_lease(session(1), one(1, Port::tcp(22)), 8_000, 0);
    // Not all of a page's.
    state.adopt_lease(session(1), one(2, Opening::WEB[0]), 8_000, 0);
    assert!(state.adopt_pages() && !state.adopt_pages());
    let leases = state.entry(session(1)).expect("known").leases.clone();
    assert_eq!((leases.len(), state.pins()), (3, [3, 0]));
    assert_eq!(leases[&Target { address: to(1), open: Opening::Web }], 5_000, "the earliest of their ends");
}
