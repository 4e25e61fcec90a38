//! Upstreams that are silent, slow, lossy or wrong, on real sockets; and zones with upstreams of their own.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use staunch_scoring::NameBuf;

use super::tests::{config, forwarder, last, permit, timed};
use super::upstream_for_test::{Act, Fake, answer, bare, good, silent};
use super::*;
use crate::model::{Ede, Qtype, Transport};

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn count(counter: &std::sync::atomic::AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// Waits until upstream `index` stands so.
async fn stands(forwarder: &Forwarder, index: usize, wanted: Standing, within: Duration) -> Duration {
    let begun = Instant::now();
    while forwarder.upstreams()[index].standing != wanted {
        assert!(begun.elapsed() < within, "{:?} after {within:?}, not {wanted:?}", forwarder.upstreams()[index]);
        tokio::time::sleep(ms(5)).await;
    }
    begun.elapsed()
}

#[tokio::test]
async fn a_silent_upstream_costs_a_hedge_and_then_nothing() {
    let (dead, well) = (Fake::start(silent).await, Fake::start(good(5)).await);
    let forwarder = forwarder(&[&dead, &well]);
    let (found, took) = timed(forwarder.resolve(&permit("n.example"))).await;
    assert_eq!(last(&found), Some(5));
    assert!(took < ms(200), "took {took:?}");
    assert_eq!(count(&forwarder.counters().hedged), 1);
    stands(&forwarder, 0, Standing::Suspect, ms(400)).await;
    for i in 0..20 {
        let (found, took) = timed(forwarder.resolve(&permit(&format!("n{i}.example")))).await;
        assert_eq!(last(&found), Some(5));
        assert!(took < ms(90), "query {i} took {took:?}");
    }
    assert_eq!(dead.queries().len(), 1, "a suspect is not asked first");
    stands(&forwarder, 0, Standing::Down, ms(600)).await;
    // It comes back; that is found out without a question, and preference is restored.
    dead.becomes(good(6));
    stands(&forwarder, 0, Standing::Up, ms(1500)).await;
    assert_eq!(last(&forwarder.resolve(&permit("o.example")).await), Some(6));
    assert_eq!(dead.queries().len(), 2);
}

#[tokio::test]
async fn what_is_no_answer_is_asked_of_the_next() {
    // BADVERS stands in the OPT record alone; a referral looks like an empty answer.
    let badvers = |query: &[u8]| {
        let mut out = bare(query, 0x8180);
        out[11] = 1;
        out.extend([0, 0, 41, 4, 208, 1, 0, 0, 0, 0, 0]);
        out
    };
    let referral = |query: &[u8]| {
        let mut out = bare(query, 0x8100);
        out[9] = 1;
        out.extend([0xc0, 12, 0, 2, 0, 1, 0, 0, 1, 44, 0, 2, 0xc0, 12]);
        out
    };
    // YXDOMAIN is an answer only with the DNAME that says why.
    let baseless = |query: &[u8]| bare(query, 0x8186);
    type Odd = fn(&[u8]) -> Vec<u8>;
    let rows = [(badvers as Odd, FailKind::BadRcode), (referral, FailKind::Referral), (baseless, FailKind::BadRcode)];
    for (odd, kind) in rows {
        let (first, well) = (Fake::start(move |q, _| Act::Send(vec![odd(q)])).await, Fake::start(good(5)).await);
        let forwarder = forwarder(&[&first, &well]);
        let (found, took) = timed(forwarder.resolve(&permit("n.example"))).await;
        assert_eq!(last(&found), Some(5), "{kind:?}");
        assert!(took < ms(90), "{kind:?} took {took:?}");
        assert_eq!(count(&forwarder.counters().failures[kind as usize]), 1);
    }
    let with_dname = |query: &[u8]| {
        let mut out = bare(query, 0x8186);
        out[7] = 1;
        out.extend([0xc0, 14, 0, 39, 0, 1, 0, 0, 1, 44, 0, 3, 1, b'x', 0]);
        out
    };
    let (first, well) = (Fake::start(move |q, _| Act::Send(vec![with_dname(q)])).await, Fake::start(good(5)).await);
    let found = forwarder(&[&first, &well]).resolve(&permit("n.example")).await.expect("an answer");
    assert_eq!((found.wire[3] & 0xf, well.queries().len()), (6, 0));
}

/// Of what an upstream says beside a failure the code is passed on, where it says why a name could not be resolved; the text is
/// ours, and whose policy refuses a name is our own word alone.
#[tokio::test]
async fn the_reason_of_an_upstream_that_fails_is_passed_on() {
    for (rcode, option, expected) in [
        (2, None, Ede::Other),
        (2, Some(6), Ede::DnssecBogus),
        (2, Some(22), Ede::NoReachableAuthority),
        (2, Some(24), Ede::InvalidData),
        (2, Some(17), Ede::Other),
        (2, Some(3), Ede::Other),
        (2, Some(64_000), Ede::Other),
        (5, Some(23), Ede::NetworkError),
        (5, None, Ede::Other),
        (4, Some(6), Ede::Other),
    ] {
        let up = Fake::start(move |query, _| {
            let mut out = bare(query, 0x8180 | rcode);
            if let Some(code) = option {
                out[11] = 1;
                out.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 10, 0, 15, 0, 6]);
                out.extend(u16::to_be_bytes(code));
                out.extend(b"told");
            }
            Act::Send(vec![out])
        })
        .await;
        let (code, text) = forwarder(&[&up]).resolve(&permit("n.example")).await.expect_err("none").ede();
        assert_eq!(code, expected, "{rcode} {option:?}");
        assert!(text.contains(&up.addr.to_string()) && !text.contains("told"), "{text}");
    }
    // The first that has a reason.
    let dead = Fake::start(silent).await;
    let mute = Fake::start(|query, _| Act::Send(vec![bare(query, 0x8182)])).await;
    let (code, text) = forwarder(&[&dead, &mute]).resolve(&permit("n.example")).await.expect_err("none").ede();
    assert_eq!(code, Ede::Other, "one of them was reached: {text}");
}

#[tokio::test]
async fn who_has_no_tcp_for_a_long_answer_is_no_suspect() {
    let (first, well) = (Fake::start(good(4)).await, Fake::start(good(5)).await);
    first.closes_tcp().await;
    first.becomes(|query, _| match query[13] {
        b'l' => Act::Send(vec![bare(query, 0x8380)]),
        _ => Act::Send(vec![answer(query, 4)]),
    });
    let forwarder = forwarder(&[&first, &well]);
    assert_eq!(last(&forwarder.resolve(&permit("long.example")).await), Some(5));
    assert_eq!(forwarder.upstreams()[0].standing, Standing::Up);
    assert_eq!(last(&forwarder.resolve(&permit("short.example")).await), Some(4));
}

#[tokio::test]
async fn with_all_upstreams_dead_nobody_waits_once_that_is_known() {
    let (a, b) = (Fake::start(silent).await, Fake::start(silent).await);
    let forwarder = forwarder(&[&a, &b]);
    let (found, took) = timed(forwarder.resolve(&permit("n.example"))).await;
    let error = found.expect_err("both are dead");
    assert!(took <= ms(900), "took {took:?}");
    let (code, text) = error.ede();
    assert_eq!(code, Ede::NoReachableAuthority);
    for up in [&a, &b] {
        assert!(text.contains(&format!("{} timeout", up.addr)), "{text}");
    }
    for index in [0, 1] {
        stands(&forwarder, index, Standing::Down, ms(600)).await;
    }
    let sent = a.queries().len() + b.queries().len();
    // For longer than the time between probes: no question is anybody's probe.
    let (begun, mut asked) = (Instant::now(), 0);
    while begun.elapsed() < ms(1600) {
        let (found, took) = timed(forwarder.resolve(&permit(&format!("n{asked}.example")))).await;
        assert!(matches!(found, Err(ForwardError::AllDown(_))), "{found:?}");
        assert!(took < ms(100), "query {asked} took {took:?}");
        let known = forwarder.down_for(&permit("m.example")).expect("known");
        assert_eq!(known.ede().0, Ede::NoReachableAuthority);
        asked += 1;
        tokio::time::sleep(ms(10)).await;
    }
    assert_eq!(a.queries().len() + b.queries().len(), sent, "no name leaves for a dead upstream");

    b.becomes(good(4));
    let healed = Instant::now();
    loop {
        let found = forwarder.resolve(&permit("m.example")).await;
        if last(&found) == Some(4) {
            break;
        }
        assert!(healed.elapsed() < ms(1000), "not back: {found:?}");
        tokio::time::sleep(ms(20)).await;
    }
    assert!(forwarder.down_for(&permit("m.example")).is_none());
    assert_eq!(count(&forwarder.counters().breakers_closed), 1);
}

#[tokio::test]
async fn a_dead_upstream_is_probed_twice_a_second_with_or_without_questions() {
    let up = Fake::start(silent).await;
    let forwarder = forwarder(&[&up]);
    let _ = forwarder.resolve(&permit("n.example")).await;
    stands(&forwarder, 0, Standing::Down, ms(600)).await;
    let before = up.probes();
    tokio::time::sleep(ms(1100)).await;
    let quiet = up.probes() - before;
    let before = up.probes();
    for i in 0..100 {
        let _ = forwarder.resolve(&permit(&format!("n{i}.example"))).await;
        tokio::time::sleep(ms(10)).await;
    }
    let busy = up.probes() - before;
    assert!((1..=3).contains(&quiet) && (1..=4).contains(&busy), "{quiet} and {busy} datagrams a second");
    // A forwarder that is gone asks nothing more.
    drop(forwarder);
    tokio::time::sleep(ms(700)).await;
    let before = up.probes();
    tokio::time::sleep(ms(1100)).await;
    assert_eq!(up.probes(), before);
}

#[tokio::test]
async fn the_first_good_answer_wins_and_the_first_upstream_stays_in_the_race() {
    // Both are late; the one that was asked first is good before the one that was asked second.
    let first = Fake::start(|q, _| Act::Late(ms(160), answer(q, 1))).await;
    let second = Fake::start(|q, _| Act::Late(ms(400), answer(q, 2))).await;
    let forwarder = forwarder(&[&first, &second]);
    let (found, took) = timed(forwarder.resolve(&permit("n.example"))).await;
    assert_eq!(last(&found), Some(1));
    assert!(took < ms(300), "took {took:?}");
    assert_eq!((first.queries().len(), second.queries().len()), (1, 1));
    // An error is no good answer.
    second.becomes(|q, _| Act::Send(vec![bare(q, 0x8182)]));
    let found = forwarder.resolve(&permit("m.example")).await;
    assert_eq!(last(&found), Some(1));
    assert_eq!(forwarder.upstreams()[0].standing, Standing::Up, "slow is not silent");
}

#[tokio::test]
async fn an_upstream_that_is_usually_slow_is_given_its_time() {
    let slow = Fake::start(|q, _| Act::Late(ms(90), answer(q, 1))).await;
    let spare = Fake::start(good(2)).await;
    let forwarder = forwarder(&[&slow, &spare]);
    for i in 0..20 {
        forwarder.resolve(&permit(&format!("n{i}.example"))).await.expect("an answer");
    }
    let before = spare.queries().len();
    slow.becomes(|q, _| Act::Late(ms(130), answer(q, 1)));
    assert_eq!(last(&forwarder.resolve(&permit("m.example")).await), Some(1));
    assert_eq!(spare.queries().len(), before, "130 ms are below twice what 95 of 100 take");
}

#[tokio::test]
async fn hedges_are_few_when_an_upstream_is_slow_for_long() {
    // Its probes are answered, so it is no suspect: it is slow, not dead.
    let slow = |q: &[u8], _| if q[12] == 0 { Act::Send(vec![answer(q, 1)]) } else { Act::Late(ms(250), answer(q, 1)) };
    let (slow, spare) = (Fake::start(slow).await, Fake::start(|q, _| Act::Late(ms(500), answer(q, 2))).await);
    let times = Config { try_timeout: ms(2000), total_timeout: ms(4000), ..config(&[&slow, &spare]) };
    let forwarder = Forwarder::new(times);
    let mut tasks = tokio::task::JoinSet::new();
    for i in 0..400 {
        let forwarder = forwarder.clone();
        tasks.spawn(async move { last(&forwarder.resolve(&permit(&format!("n{i}.example"))).await) });
        if i % 20 == 19 {
            // Room in the sockets' buffers.
            tokio::time::sleep(ms(1)).await;
        }
    }
    let outcomes = tasks.join_all().await;
    assert!(outcomes.iter().all(Option::is_some));
    let (hedged, denied) = (count(&forwarder.counters().hedged), count(&forwarder.counters().hedges_denied));
    assert!(hedged <= 105 + 20, "{hedged} of 400");
    assert!(denied >= 100, "{denied}");
    assert_eq!(spare.queries().len() as u64, hedged);
}

#[tokio::test]
async fn one_that_flaps_costs_no_failure_and_two_queries_at_most() {
    let up = Arc::new(AtomicBool::new(true));
    let state = up.clone();
    let flapping =
        Fake::start(
            move |q, _| {
                if state.load(Ordering::Relaxed) { Act::Send(vec![answer(q, 1)]) } else { Act::Silence }
            },
        )
        .await;
    let well = Fake::start(good(2)).await;
    let forwarder = forwarder(&[&flapping, &well]);
    let begun = Instant::now();
    let mut asked = 0;
    let mut worst = Duration::ZERO;
    while begun.elapsed() < ms(5000) {
        up.store((begun.elapsed().as_millis() / 500).is_multiple_of(2), Ordering::Relaxed);
        let name = format!("n{asked}.example");
        let (found, took) = timed(forwarder.resolve(&permit(&name))).await;
        assert!(last(&found).is_some(), "{found:?}");
        worst = worst.max(took);
        let sent = [&flapping, &well].map(|u| {
            let wire = NameBuf::from_text(&name).expect("a name");
            u.queries().iter().filter(|(_, q)| q[12..].starts_with(wire.as_ref().as_wire())).count()
        });
        assert!(sent.iter().sum::<usize>() <= 2, "{name}: {sent:?}");
        asked += 1;
        tokio::time::sleep(ms(10)).await;
    }
    assert!(worst < ms(300), "{worst:?}");
    // Three and more stumbles within a minute: it has to show more than half a second now.
    up.store(true, Ordering::Relaxed);
    let before = flapping.queries().len();
    for i in 0..20 {
        forwarder.resolve(&permit(&format!("m{i}.example"))).await.expect("an answer");
        tokio::time::sleep(ms(20)).await;
    }
    assert_eq!(flapping.queries().len(), before, "not asked first again at once");
}

#[tokio::test]
async fn one_that_fails_what_the_other_answers_is_asked_after_it() {
    let bad = Fake::start(|q, _| Act::Send(vec![bare(q, 0x8182)])).await;
    let well = Fake::start(good(2)).await;
    let forwarder = forwarder(&[&bad, &well]);
    for i in 0..40 {
        assert_eq!(last(&forwarder.resolve(&permit(&format!("n{i}.example"))).await), Some(2));
    }
    assert_eq!(forwarder.upstreams()[0].standing, Standing::Behind);
    assert_eq!(bad.queries().len(), 20);
    assert_eq!(count(&forwarder.counters().put_behind), 1);
    // It is still there for what the other one fails.
    well.becomes(|q, _| Act::Send(vec![bare(q, 0x8185)]));
    bad.becomes(good(1));
    assert_eq!(last(&forwarder.resolve(&permit("m.example")).await), Some(1));
}

#[tokio::test]
async fn names_that_fail_everywhere_put_nobody_behind() {
    let [a, b] = [Fake::start(|q, _| Act::Send(vec![bare(q, 0x8182)])).await, Fake::start(silent).await];
    b.becomes(|q, _| Act::Send(vec![bare(q, 0x8182)]));
    let forwarder = forwarder(&[&a, &b]);
    for i in 0..60 {
        assert!(forwarder.resolve(&permit(&format!("n{i}.broken.example"))).await.is_err());
    }
    assert!(forwarder.upstreams().iter().all(|up| up.standing == Standing::Up));
}

#[tokio::test]
async fn a_flood_is_remembered_and_tcp_that_is_not_there_is_not() {
    let flood = |q: &[u8], transport| match transport {
        Transport::Udp => Act::Send((1..=25u8).map(|i| [&[q[0], q[1] ^ i], &answer(q, 66)[2..]].concat()).collect()),
        Transport::Tcp => Act::Send(vec![answer(q, 7)]),
    };
    let up = Fake::start(flood).await;
    let forwarder = forwarder(&[&up]);
    assert_eq!(last(&forwarder.resolve(&permit("n.example")).await), Some(7));
    for i in 0..5 {
        let found = forwarder.resolve(&permit(&format!("n{i}.example"))).await;
        assert!(found.is_ok_and(|response| response.tcp));
    }
    let datagrams = up.queries().iter().filter(|(transport, _)| *transport == Transport::Udp).count();
    assert_eq!(datagrams, 1, "the flooded one alone");
    assert_eq!(count(&forwarder.counters().flood_tcp), 5);

    // The same flood where connections break off: the next question goes over UDP again.
    up.becomes(move |q, transport| match transport {
        Transport::Udp => Act::Send(vec![answer(q, 8)]),
        Transport::Tcp => Act::Close,
    });
    assert!(forwarder.resolve(&permit("m.example")).await.is_err());
    assert_eq!(last(&forwarder.resolve(&permit("o.example")).await), Some(8));
}

/// A name that takes longer than a try is answered over TCP too, while there is time: with one upstream nobody else is asked.
#[tokio::test]
async fn what_turns_to_tcp_has_the_time_of_its_exchange() {
    let slow = |turns: fn(&[u8]) -> Vec<Vec<u8>>| {
        move |q: &[u8], transport| match transport {
            Transport::Udp => Act::Send(turns(q)),
            Transport::Tcp => Act::Late(ms(500), answer(q, 7)),
        }
    };
    let cut = Fake::start(slow(|q| vec![bare(q, 0x8380)])).await;
    let flooded =
        Fake::start(slow(|q| (1..=25u8).map(|i| [&[q[0], q[1] ^ i], &answer(q, 66)[2..]].concat()).collect())).await;
    for up in [cut, flooded] {
        let forwarder = forwarder(&[&up]);
        for name in ["a.example", "b.example"] {
            let (found, took) = timed(forwarder.resolve(&permit(name))).await;
            assert_eq!(last(&found), Some(7), "{name}: {found:?}");
            assert!(took < ms(800), "{took:?}");
        }
    }
}

#[tokio::test]
async fn two_lossy_upstreams_are_asked_again() {
    // Three of eight questions are lost, by their random ids.
    let lossy = |q: &[u8], _| if q[1] & 7 < 3 { Act::Silence } else { Act::Send(vec![answer(q, 1)]) };
    let (a, b) = (Fake::start(lossy).await, Fake::start(lossy).await);
    let forwarder = forwarder(&[&a, &b]);
    let mut answered = 0;
    for i in 0..24 {
        answered += u32::from(forwarder.resolve(&permit(&format!("n{i}.example"))).await.is_ok());
    }
    assert!(answered >= 18, "{answered} of 24");
}

#[tokio::test]
async fn who_cannot_wait_is_told_who_was_slow() {
    let up = Fake::start(|q, _| Act::Late(ms(250), answer(q, 1))).await;
    let forwarder = forwarder(&[&up]);
    let until = Instant::now() + ms(80);
    let patient = forwarder.clone();
    let other = tokio::spawn(async move { patient.resolve(&permit("n.example")).await });
    let (found, took) = timed(forwarder.resolve_until(&permit("n.example"), until)).await;
    assert_eq!(found.as_ref().map(drop), Err(&ForwardError::Late(vec![up.addr])));
    assert!(took < ms(200), "{took:?}");
    let (code, text) = found.expect_err("late").ede();
    assert_eq!(code, Ede::NoReachableAuthority);
    assert!(text.contains(&up.addr.to_string()), "{text}");
    assert_eq!(last(&other.await.expect("a task")), Some(1), "the exchange went on");
}

#[tokio::test]
async fn a_zones_names_go_to_its_upstreams_and_nowhere_else_even_when_they_are_dead() {
    let (general, corp, deep) = (Fake::start(good(1)).await, Fake::start(good(2)).await, Fake::start(good(3)).await);
    let zone = |text: &str, up: &Fake| ZoneServers {
        zone: NameBuf::from_text(text).expect("a zone"),
        upstreams: vec![Upstream::udp(up.addr)],
    };
    let zones = vec![zone("corp.example", &corp), zone("lab.corp.example", &deep)];
    let forwarder = Forwarder::new(Config { zones, ..config(&[&general]) });
    for (name, expected) in [
        ("www.example", 1),
        ("notcorp.example", 1),
        ("corp.example", 2),
        ("wiki.corp.example", 2),
        ("lab.corp.example", 3),
        ("a.b.LAB.corp.example", 3),
    ] {
        assert_eq!(last(&forwarder.resolve(&permit(name)).await), Some(expected), "{name}");
    }
    corp.becomes(silent);
    deep.becomes(|q, _| Act::Send(vec![bare(q, 0x8185)]));
    let before = (general.queries().len(), corp.queries().len());
    let refused = forwarder.resolve(&permit("x.lab.corp.example")).await.expect_err("refused");
    assert_eq!(
        refused,
        ForwardError::Failed(vec![Failed { upstream: deep.addr, kind: FailKind::Refused, said: None }])
    );
    assert!(forwarder.resolve(&permit("x.corp.example")).await.is_err());
    stands(&forwarder, 1, Standing::Down, ms(800)).await;
    let (found, took) = timed(forwarder.resolve(&permit("y.corp.example"))).await;
    assert_eq!(
        found.map(drop),
        Err(ForwardError::AllDown(vec![Failed { upstream: corp.addr, kind: FailKind::Down, said: None }]))
    );
    assert!(took < ms(100), "{took:?}");
    assert!(forwarder.down_for(&permit("y.corp.example")).is_some());
    assert!(forwarder.down_for(&permit("y.example")).is_none());
    assert_eq!(last(&forwarder.resolve(&permit("www2.example")).await), Some(1), "others go on");
    assert_eq!(general.queries().len(), before.0 + 1);
    let inside = |(_, q): &(Transport, Vec<u8>)| q.windows(13).any(|w| w == b"\x04corp\x07example");
    assert!(!general.queries().iter().any(inside));
    // What vouches for a zone is its parent's (RFC 4035 section 3.1.4.1).
    let vouches = Permit::for_test("corp.example", Qtype::DS);
    assert_eq!(last(&forwarder.resolve(&vouches).await), Some(1), "whoever is asked about its own zone is down");
}

#[tokio::test]
async fn hosts_of_the_configuration_go_by_the_same_map() {
    let address = |last| {
        move |q: &[u8], _| {
            // AAAA gets nothing.
            let is_a = q.windows(4).any(|w| w == [0, 1, 0, 1]);
            Act::Send(vec![if is_a { answer(q, last) } else { bare(q, 0x8180) }])
        }
    };
    let (general, corp) = (Fake::start(address(1)).await, Fake::start(address(2)).await);
    let zone = NameBuf::from_text("corp.example").expect("a zone");
    let zones = vec![ZoneServers { zone, upstreams: vec![Upstream::udp(corp.addr)] }];
    let forwarder = Forwarder::new(Config { zones, ..config(&[&general]) });
    let lookup = helper::HostLookup::new(forwarder).expect("a resolver");
    for (host, last) in [("soc.example.net", 1), ("SOC.corp.example", 2), ("corp.example.", 2)] {
        let found = lookup.lookup(host).await.expect("an address");
        assert_eq!(found, [std::net::IpAddr::from([203, 0, 113, last])], "{host}");
    }
    corp.becomes(|q, _| Act::Send(vec![bare(q, 0x8185)]));
    let before = general.queries().len();
    assert!(lookup.lookup("other.corp.example").await.is_err());
    assert_eq!(general.queries().len(), before, "nobody else is asked");
}

#[tokio::test]
async fn who_comes_shortly_before_all_are_known_to_be_down_does_not_wait_for_long() {
    let (a, b) = (Fake::start(silent).await, Fake::start(silent).await);
    let forwarder = Forwarder::new(Config { total_timeout: ms(1500), ..config(&[&a, &b]) });
    let mut asked = tokio::task::JoinSet::new();
    let begun = Instant::now();
    for i in 0..20 {
        let forwarder = forwarder.clone();
        asked.spawn(async move { forwarder.resolve(&permit(&format!("n{i}.example"))).await });
        tokio::time::sleep(ms(60)).await;
    }
    for found in asked.join_all().await {
        assert_eq!(found.expect_err("dead").ede().0, Ede::NoReachableAuthority);
    }
    assert!(begun.elapsed() < ms(1900), "{:?}: the last of them began after {:?}", begun.elapsed(), ms(1140));
}
