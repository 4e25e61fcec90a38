use super::pin::LIVE;
use super::*;
use crate::pin::{PinPolicy, plan};
use crate::ports::Port;
use proptest::prelude::*;
use staunch_scoring::NameBuf;
use std::net::Ipv4Addr;
use std::time::Duration;

fn address(n: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from(0xc612_0000 + n))
}

fn name(text: &str) -> NameBuf {
    NameBuf::from_text(text).expect("name")
}

fn asked<'a>(name: &'a NameBuf, ports: &'a Ports) -> Asked<'a> {
    Asked { name: name.as_ref(), ports, volume: None, most: 10_000, by: None }
}

const NONE: [IpAddr; 0] = [];

/// Orders one address, which is acknowledged at once; what made room.
fn note_now(pins: &mut SessionPins, asked: &Asked<'_>, address: IpAddr, end: u64, now: u64) -> Vec<IpAddr> {
    let (epoch, evicted) = (pins.epoch(), pins.order(asked, &[address], end, now));
    assert!(pins.acknowledge(epoch, asked, &[address], end));
    evicted
}

/// Nothing is the operator's own word.
fn no_word(_: Word, _: NameRef<'_>, _: IpAddr) -> Option<(Ports, Option<u64>)> {
    None
}

#[test]
fn the_least_recently_answered_makes_room_and_is_told() {
    let (www, web) = (name("www.example"), Ports::web());
    let asked = asked(&www, &web);
    let mut pins = SessionPins::new();
    for n in 0..SESSION_PINS_MAX as u32 {
        assert_eq!(note_now(&mut pins, &asked, address(n), 1_000, 0), NONE);
    }
    assert!(pins.cover_all(&asked, &[address(0)], 1_000), "0 is in use again");
    pins.seen(address(1), 1);
    assert_eq!(note_now(&mut pins, &asked, address(9_999), 1_000, 1), [address(2)], "1 has an open flow");
    assert_eq!(pins.len(), SESSION_PINS_MAX);
    assert!(pins.covers(&asked, address(0), 1_000) && !pins.covers(&asked, address(2), 1));
    assert_eq!(note_now(&mut pins, &asked, address(10_000), 2_000, 1_000), NONE, "ended ones make room first");
    assert_eq!(pins.len(), 2, "and the one with a flow stays");
    assert_eq!(pins.expire(LIVE + 2), 2);
    assert!(pins.is_empty() && pins.names.is_empty());
}

#[test]
fn one_name_holds_so_many_addresses_and_no_more() {
    let (stores, www, web) = (name("objects.example"), name("www.example"), Ports::web());
    let few = Asked { most: 3, ..asked(&stores, &web) };
    let mut pins = SessionPins::new();
    for n in 0..3 {
        assert_eq!(note_now(&mut pins, &few, address(n), 1_000, 0), NONE);
    }
    // Another name leads to the oldest as well: it is that name's too.
    assert_eq!(note_now(&mut pins, &asked(&www, &web), address(0), 1_000, 0), NONE);
    pins.seen(address(1), 1);
    assert_eq!(note_now(&mut pins, &few, address(3), 1_000, 0), [address(2)]);
    assert_eq!(note_now(&mut pins, &few, address(3), 2_000, 0), NONE, "known by now");
    assert_eq!(pins.len(), 3);
    assert_eq!(pins.names_of(address(0)), ["objects.example", "www.example"]);
}

#[test]
fn an_acknowledgement_after_a_revoke_counts_for_nothing() {
    let (www, web) = (name("www.example"), Ports::web());
    let asked = asked(&www, &web);
    let mut pins = SessionPins::new();
    let before = pins.epoch();
    assert_eq!(pins.order(&asked, &[address(1)], 1_000, 0), NONE);
    assert!(!pins.covers(&asked, address(1), 1), "ordered is not open");
    pins.revoke();
    assert!(!pins.acknowledge(before, &asked, &[address(1)], 1_000));
    assert!(pins.is_empty());
    assert_eq!(note_now(&mut pins, &asked, address(1), 1_000, 0), NONE);
    assert!(pins.covers(&asked, address(1), 1_000));
}

#[test]
fn a_lease_covers_its_ports_its_name_and_no_wider_volume() {
    let (www, api, web) = (name("www.example"), name("api.example"), Ports::web());
    let ssh = Ports::these([Port::tcp(22)]).expect("ports");
    let https = Ports::these([Port::tcp(443)]).expect("ports");
    let mut pins = SessionPins::new();
    let limited = Asked { volume: Some(100), ..asked(&www, &web) };
    assert_eq!(note_now(&mut pins, &limited, address(1), 1_000, 0), NONE);
    assert!(pins.covers(&limited, address(1), 1_000));
    assert!(pins.covers(&Asked { ports: &https, ..limited }, address(1), 1_000), "as much is open already");
    assert!(!pins.covers(&Asked { ports: &ssh, ..limited }, address(1), 1_000));
    assert!(!pins.covers(&Asked { name: api.as_ref(), ..limited }, address(1), 1_000), "not by this name");
    assert!(!pins.covers(&Asked { volume: None, ..limited }, address(1), 1_000), "more may go out");
    assert!(pins.covers(&Asked { volume: Some(50), ..limited }, address(1), 1_000));
}

#[test]
fn what_no_name_opens_any_more_is_closed() {
    let (www, api, web) = (name("www.example"), name("api.example"), Ports::web());
    let https = Ports::these([Port::tcp(443)]).expect("ports");
    let mut pins = SessionPins::new();
    let epoch = pins.epoch();
    for (name, n) in [(&www, 1), (&api, 1), (&api, 2)] {
        assert_eq!(note_now(&mut pins, &asked(name, &web), address(n), 1_000, 0), NONE);
    }
    let all = |_: NameRef<'_>| Some((Ports::web(), None));
    let same = pins.tighten(all, |_, _| true, no_word);
    assert!(!same.lost && same.keep.len() == 2 && pins.epoch() == epoch);
    let www_alone = |name: NameRef<'_>| (name == www.as_ref()).then(|| (Ports::web(), Some(5)));
    let tightened = pins.tighten(www_alone, |_, _| true, no_word);
    assert_eq!(tightened.keep, [(address(1), vec![Ports::web()], Some(5))]);
    assert!(tightened.lost && pins.len() == 1 && pins.epoch() != epoch);
    assert!(!pins.acknowledge(epoch, &asked(&api, &web), &[address(2)], 1_000));
    assert_eq!(pins.len(), 1, "an answer that was under way finds the door closed");
    let fewer = pins.tighten(|_| Some((https.clone(), Some(5))), |_, _| true, no_word);
    assert!(fewer.lost && fewer.keep == [(address(1), vec![https.clone()], Some(5))]);
    let part = Asked { volume: Some(5), ..asked(&www, &https) };
    assert!(!pins.covers(&part, address(1), 1_000), "a part of a page's lease is another one");
    assert_eq!(note_now(&mut pins, &part, address(1), 1_000, 0), NONE);
    assert!(pins.covers(&part, address(1), 1_000));
    let less = pins.tighten(|_| Some((https.clone(), Some(4))), |_, _| true, no_word);
    assert!(less.lost, "less may go out than before");
    assert!(!pins.tighten(|_| Some((https.clone(), None)), |_, _| true, no_word).lost, "more may");
}

#[test]
fn what_is_ordered_is_judged_before_it_is_acknowledged() {
    let (www, web) = (name("www.example"), Ports::web());
    let asked = asked(&www, &web);
    let mut pins = SessionPins::new();
    let epoch = pins.epoch();
    assert_eq!(pins.order(&asked, &[address(1)], 1_000, 0), NONE);
    let kept = pins.tighten(|_| Some((Ports::web(), None)), |_, _| true, no_word);
    assert!(!kept.lost && kept.keep == [(address(1), vec![Ports::web()], None)], "{kept:?}");
    assert!(pins.acknowledge(epoch, &asked, &[address(1)], 1_000), "nothing is closed, so it counts");
    // Under way again, and denied meanwhile.
    let epoch = pins.epoch();
    assert_eq!(pins.order(&asked, &[address(2)], 2_000, 0), NONE);
    let denied = pins.tighten(|_| None, |_, _| true, no_word);
    assert!(denied.lost && denied.keep.is_empty());
    assert!(!pins.acknowledge(epoch, &asked, &[address(2)], 2_000));
    assert!(pins.is_empty() && pins.names.is_empty());
}

#[test]
fn a_name_that_is_denied_is_not_acknowledged_though_another_keeps_the_address_open() {
    let (www, api, web) = (name("www.example"), name("api.example"), Ports::web());
    let mut pins = SessionPins::new();
    for name in [&www, &api] {
        assert_eq!(note_now(&mut pins, &asked(name, &web), address(1), 1_000, 0), NONE);
    }
    // Its lease is on its way to be renewed.
    let epoch = pins.epoch();
    assert_eq!(pins.order(&asked(&www, &web), &[address(1)], 2_000, 0), NONE);
    let kept = pins.tighten(|name| (name == api.as_ref()).then(|| (Ports::web(), None)), |_, _| true, no_word);
    assert!(!kept.lost, "the other opens it");
    assert!(!pins.acknowledge(epoch, &asked(&www, &web), &[address(1)], 2_000));
}

#[test]
fn what_the_operators_word_leads_to_is_not_judged_by_policy() {
    let (own, www, web) = (name("own.example"), name("www.example"), Ports::web());
    let mut pins = SessionPins::new();
    let by_word = Asked { by: Some(Word::Page), ..asked(&own, &web) };
    for (asked, n) in [(&by_word, 1), (&asked(&www, &web), 2)] {
        assert_eq!(note_now(&mut pins, asked, address(n), 1_000, 0), NONE);
    }
    let word =
        |word, name: NameRef<'_>, _: IpAddr| (word == Word::Page && name == own.as_ref()).then(|| (Ports::web(), None));
    let kept = pins.tighten(|_| None, |_, _| false, word);
    assert_eq!(kept.keep, [(address(1), vec![Ports::web()], None)]);
    assert!(pins.covers(&by_word, address(1), 1_000) && pins.tighten(|_| None, |_, _| true, no_word).lost);
}

#[test]
fn a_lease_is_known_for_as_long_as_it_is_acknowledged() {
    let (www, api, web) = (name("www.example"), name("api.example"), Ports::web());
    let (www, api) = (asked(&www, &web), asked(&api, &web));
    let mut pins = SessionPins::new();
    assert_eq!(note_now(&mut pins, &www, address(1), 1_000, 0), NONE);
    let epoch = pins.epoch();
    for (asked, end) in [(&www, 4_000), (&api, 5_000)] {
        assert_eq!(pins.order(asked, &[address(1)], end, 0), NONE);
    }
    assert!(pins.refused(&www, &[address(1)]).is_empty());
    assert!(pins.acknowledge(epoch, &api, &[address(1)], 5_000));
    assert_eq!((pins.expire(2_000), pins.details(0)[0].leases[0].1), (0, 5_000));
}

#[test]
fn an_address_that_a_name_may_not_have_any_more_is_closed() {
    let (www, api, web) = (name("www.example"), name("api.example"), Ports::web());
    let mut pins = SessionPins::new();
    for (name, n) in [(&www, 1), (&www, 2), (&api, 2)] {
        assert_eq!(note_now(&mut pins, &asked(name, &web), address(n), 1_000, 0), NONE);
    }
    let tightened = pins.tighten(|_| Some((Ports::web(), None)), |name, _| name == api.as_ref(), no_word);
    assert!(tightened.lost && tightened.keep == [(address(2), vec![Ports::web()], None)], "{tightened:?}");
    assert_eq!((pins.names_of(address(2)), pins.names.len()), (vec!["api.example".to_owned()], 1));
}

#[test]
fn an_answer_never_makes_room_for_itself_at_its_own_cost() {
    let (pool, web) = (name("pool.example"), Ports::web());
    let two = Asked { most: 2, ..asked(&pool, &web) };
    let mut pins = SessionPins::new();
    let five: Vec<IpAddr> = (0..5).map(address).collect();
    for _ in 0..2 {
        let epoch = pins.epoch();
        assert_eq!(pins.order(&two, &five, 1_000, 0), NONE);
        assert!(pins.acknowledge(epoch, &two, &five, 1_000));
        assert!(pins.cover_all(&two, &five, 1_000), "all that is shown is open");
    }
    let epoch = pins.epoch();
    let other = [address(4), address(7)];
    assert_eq!(pins.order(&two, &other, 1_000, 0).len(), 1);
    assert!(pins.acknowledge(epoch, &two, &other, 1_000) && pins.cover_all(&two, &other, 1_000));
    assert_eq!(note_now(&mut pins, &two, address(9), 3_000, 2_000), NONE, "ended ones make room first");
}

#[test]
fn a_gained_address_uncovers_and_closes_nothing() {
    let (www, web) = (name("www.example"), Ports::web());
    let asked = asked(&www, &web);
    let mut pins = SessionPins::new();
    assert_eq!(note_now(&mut pins, &asked, address(1), 1_000, 0), NONE);
    let before = pins.epoch();
    assert_eq!(pins.order(&asked, &[address(1)], 2_000, 0), NONE);
    pins.uncover();
    assert!(!pins.covers(&asked, address(1), 1) && !pins.acknowledge(before, &asked, &[address(1)], 2_000));
    let shown = &pins.details(0)[0];
    assert_eq!(shown.leases, [(Ports::web(), 2_000)], "it is open, and said to be");
    assert!(!shown.confirmed, "but not for every address");
    let denied = pins.tighten(|_| None, |_, _| true, no_word);
    assert!(denied.lost, "and a deny closes it");
}

#[test]
fn many_names_of_one_address_are_acknowledged_whatever_their_number() {
    let web = Ports::web();
    let names: Vec<NameBuf> = (0..3 * NAMES_OF_ADDRESS).map(|n| name(&format!("n{n}.example"))).collect();
    let mut pins = SessionPins::new();
    let epoch = pins.epoch();
    for name in &names {
        assert_eq!(pins.order(&asked(name, &web), &[address(1)], 1_000, 0), NONE);
    }
    for name in &names {
        assert!(pins.acknowledge(epoch, &asked(name, &web), &[address(1)], 1_000));
    }
    // One of them is denied while others keep the address open: its own acknowledgement is no leave.
    let last = names.last().expect("some");
    let epoch = pins.epoch();
    let late = name("late.example");
    assert_eq!(pins.order(&asked(&late, &web), &[address(1)], 1_000, 0), NONE);
    let kept = pins.tighten(|name| (name == last.as_ref()).then(|| (Ports::web(), None)), |_, _| true, no_word);
    assert!(!kept.lost && pins.epoch() != epoch);
    assert!(!pins.acknowledge(epoch, &asked(&late, &web), &[address(1)], 1_000));
}

#[test]
fn what_was_refused_is_forgotten_and_what_was_held_before_is_not() {
    let (www, web) = (name("www.example"), Ports::web());
    let asked = asked(&www, &web);
    let mut pins = SessionPins::new();
    assert_eq!(note_now(&mut pins, &asked, address(1), 1_000, 0), NONE);
    assert_eq!(pins.order(&asked, &[address(1), address(2)], 5_000, 0), NONE);
    assert_eq!(pins.refused(&asked, &[address(1), address(2)]), [address(2)]);
    assert!(pins.covers(&asked, address(1), 1_000) && pins.len() == 1);
    // By another name, which was never acknowledged, the same is not covered.
    let api = name("api.example");
    let other = Asked { name: api.as_ref(), ..asked };
    assert_eq!(pins.order(&other, &[address(1)], 5_000, 0), NONE);
    assert!(!pins.covers(&other, address(1), 1_000));
    assert!(pins.refused(&other, &[address(1)]).is_empty() && pins.names_of(address(1)) == ["www.example"]);
    assert_eq!(pins.expire(1_001), 1);
}

#[test]
fn a_volume_is_told_once_at_its_mark_and_once_at_its_limit() {
    let (free, ruled, web) = (name("free.example"), name("ruled.example"), Ports::web());
    let mut pins = SessionPins::new();
    let (limited, endless) = (Asked { volume: Some(100), ..asked(&free, &web) }, asked(&free, &web));
    let zone = Asked { by: Some(Word::Zone), ..endless };
    for (n, asked) in [(1, &limited), (2, &endless), (2, &asked(&ruled, &web)), (4, &endless), (5, &zone)] {
        assert_eq!(note_now(&mut pins, asked, address(n), 1_000, 0), NONE);
    }
    let listed = |named: NameRef<'_>| named == ruled.as_ref();
    let mut used = |n, octets, limit| pins.used(address(n), octets, limit, Some(10), listed);
    assert_eq!(used(1, 9, Some(100)), None);
    assert_eq!((used(1, 10, Some(100)), used(1, 11, Some(100))), (Some(Passed::Mark), None));
    assert_eq!((used(1, 100, Some(100)), used(1, 100, Some(100))), (Some(Passed::Limit), None));
    assert_eq!(used(2, 1_000_000, None), None, "a rule names one of two names");
    assert_eq!(used(3, 1_000_000, None), None, "not known");
    assert_eq!((used(4, 9, None), used(4, 10, None)), (None, Some(Passed::Mark)), "without a limit too");
    assert_eq!((used(4, 1_000_000, None), used(5, 1_000_000, None)), (None, None), "once; a zone of ours is a word");
    assert_eq!(pins.details(0).iter().find(|pin| pin.address == address(1)).map(|pin| pin.octets_out), Some(100));
}

/// What the packet filter would hold, told everything the session table is told.
#[derive(Debug, Clone)]
enum Step {
    Answer { addresses: Vec<u32>, ttl: u32, name: u8 },
    Pass { ms: u64 },
    Revoke,
    Tighten { names: u8 },
    LateAcknowledgement { address: u32 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (proptest::collection::vec(0u32..40, 1..5), 0u32..8_000, 0u8..4)
            .prop_map(|(addresses, ttl, name)| Step::Answer { addresses, ttl, name }),
        3 => (0u64..4_000_000).prop_map(|ms| Step::Pass { ms }),
        1 => Just(Step::Revoke),
        1 => any::<u8>().prop_map(|names| Step::Tighten { names }),
        1 => (0u32..40).prop_map(|address| Step::LateAcknowledgement { address }),
    ];
    proptest::collection::vec(step, 0..60)
}

proptest! {
    #[test]
    fn refresh_never_shortens_and_no_pin_survives_a_revoke(steps in steps()) {
        let seconds = Duration::from_secs;
        let policy = PinPolicy::new(seconds(60), seconds(3600), seconds(30)).expect("valid");
        let names: Vec<NameBuf> = (0..4).map(|n| name(&format!("n{n}.example"))).collect();
        let web = Ports::web();
        let mut pins = SessionPins::new();
        // By address: the end, and the names that opened it, as bits.
        let mut model: std::collections::HashMap<u32, (u64, u8)> = std::collections::HashMap::new();
        let (mut now, mut stale) = (0, pins.epoch());
        for step in steps {
            match step {
                Step::Answer { addresses, ttl, name } => {
                    let end = now + plan(&policy, ttl).lifetime.as_millis() as u64;
                    for n in addresses {
                        let asked = asked(&names[usize::from(name)], &web);
                        prop_assert_eq!(note_now(&mut pins, &asked, address(n), end, now), NONE);
                        let held = model.entry(n).or_default();
                        *held = (end.max(held.0), held.1 | 1 << name);
                    }
                }
                Step::Pass { ms } => {
                    now += ms;
                    pins.expire(now);
                    model.retain(|_, (end, _)| *end > now);
                }
                Step::Revoke => {
                    stale = pins.epoch();
                    pins.revoke();
                    model.clear();
                    prop_assert!(pins.is_empty());
                }
                Step::Tighten { names: allowed } => {
                    let number = |name: NameRef<'_>| names.iter().position(|known| known.as_ref() == name);
                    let before = pins.epoch();
                    let tightened = pins.tighten(|name| {
                        (allowed & 1 << number(name).unwrap_or(7) != 0).then(|| (Ports::web(), None))
                    }, |_, _| true, no_word);
                    let lost = model.values().any(|(_, names)| names & allowed == 0);
                    prop_assert_eq!(tightened.lost, lost);
                    model.retain(|_, (_, names)| { *names &= allowed; *names != 0 });
                    if lost {
                        stale = before;
                    }
                    prop_assert_eq!(tightened.keep.len(), model.len());
                }
                Step::LateAcknowledgement { address: n } => {
                    if stale != pins.epoch() {
                        prop_assert!(!pins.acknowledge(stale, &asked(&names[0], &web), &[address(n)], u64::MAX));
                    }
                }
            }
            for n in 0..40 {
                let (end, by) = model.get(&n).copied().unwrap_or((0, 0));
                let name = &names[by.trailing_zeros().min(3) as usize];
                prop_assert_eq!(pins.covers(&asked(name, &web), address(n), end.max(now + 1)), end > now);
                prop_assert!(!pins.covers(&asked(name, &web), address(n), end.max(now) + 1));
            }
            let named: usize = pins.names.values().sum();
            prop_assert_eq!(named, pins.pins.values().map(|pin| pin.names.len()).sum::<usize>());
        }
    }
}

#[test]
fn what_is_open_is_known_though_a_pin_for_it_is_refused() {
    let (www, api) = (name("www.example"), name("api.example"));
    let (web, https) = (Ports::web(), Ports::these([Port::tcp(443)]).expect("ports"));
    let ssh = Ports::these([Port::tcp(22)]).expect("ports");
    let mut pins = SessionPins::new();
    assert_eq!(note_now(&mut pins, &asked(&www, &web), address(1), 1_000, 0), NONE);
    assert_eq!(note_now(&mut pins, &asked(&api, &ssh), address(1), 1_000, 0), NONE);
    // One port of the page's stays, which the packet filter holds by another element now.
    let fewer = |name: NameRef<'_>| Some((if name == www.as_ref() { https.clone() } else { ssh.clone() }, None));
    assert!(pins.tighten(fewer, |_, _| true, no_word).lost);
    let asked = asked(&www, &https);
    assert_eq!(pins.order(&asked, &[address(1)], 5_000, 0), NONE);
    assert!(pins.refused(&asked, &[address(1)]).is_empty(), "it may be open");
    let denied = pins.tighten(|name| (name == api.as_ref()).then(|| (ssh.clone(), None)), |_, _| true, no_word);
    assert!(denied.lost, "so a deny closes it");
}
