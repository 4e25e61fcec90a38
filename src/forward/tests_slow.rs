//! Upstreams that are late or lossy beside one that is well, for longer than a burst: what questions pay in the end.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::JoinSet;

use super::tests::{config, forwarder, last, permit, timed};
use super::upstream_for_test::{Act, Fake, answer, good};
use super::*;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

#[tokio::test]
async fn who_answers_everything_late_holds_up_the_first_questions_alone() {
    let slow = Fake::start(|q, _| Act::Late(ms(400), answer(q, 1))).await;
    let well = Fake::start(good(2)).await;
    let forwarder = forwarder(&[&slow, &well]);
    let (begun, mut asked, mut met) = (Instant::now(), 0, 0);
    while begun.elapsed() < ms(3000) {
        assert_eq!(last(&forwarder.resolve(&permit(&format!("n{asked}.example"))).await), Some(2));
        asked += 1;
        if begun.elapsed() < ms(1000) {
            met = slow.queries().len();
        }
        tokio::time::sleep(ms(10)).await;
    }
    // Its probes were answered all the time, and late, so it is asked for what nobody else answers, and not before.
    // An answer that this machine holds up for 100 ms is asked for there.
    let more = slow.queries().len() - met;
    assert!(more <= asked / 25, "asked first again though it is as late as before: {more} of {asked}");
    assert!(met <= 6, "{met} of {asked}");
    assert_eq!(forwarder.upstreams()[0].standing, Standing::Suspect);
    assert_eq!(forwarder.counters().breakers_opened.load(Ordering::Relaxed), 0, "late is not dead");
    slow.becomes(good(1));
    let healed = Instant::now();
    while forwarder.upstreams()[0].standing != Standing::Up {
        assert!(healed.elapsed() < ms(2500), "{:?}", forwarder.upstreams()[0]);
        tokio::time::sleep(ms(10)).await;
    }
    let asked_again = async {
        let mut n = 0;
        while last(&forwarder.resolve(&permit(&format!("back{n}.example"))).await) != Some(1) {
            n += 1;
        }
    };
    tokio::time::timeout(ms(5000), asked_again).await.expect("it is asked first again");
}

#[tokio::test]
async fn who_is_far_is_asked_first_again_once_its_usual_time_is_known() {
    let far = Fake::start(|q, _| Act::Late(ms(150), answer(q, 1))).await;
    let near = Fake::start(good(2)).await;
    let forwarder = forwarder(&[&far, &near]);
    for n in 0..3 {
        assert!(last(&forwarder.resolve(&permit(&format!("n{n}.example"))).await).is_some());
    }
    let begun = Instant::now();
    while forwarder.upstreams()[0].standing != Standing::Up || forwarder.inner.servers[0].health.p95().is_none() {
        assert!(begun.elapsed() < ms(30_000), "{:?}", forwarder.upstreams()[0]);
        drop(forwarder.resolve(&permit(&format!("w{}.example", begun.elapsed().as_millis()))).await);
        tokio::time::sleep(ms(50)).await;
    }
    let mut n = 0;
    while last(&forwarder.resolve(&permit(&format!("back{n}.example"))).await) != Some(1) {
        n += 1;
        assert!(n < 50, "the order is the operator's");
    }
}

#[tokio::test]
async fn of_one_that_loses_a_third_no_question_waits_longer_than_for_the_next_one() {
    // By their random ids; its probes are answered, so it is no suspect.
    let lossy = |q: &[u8], _| if q[12] != 0 && q[1] & 7 < 3 { Act::Silence } else { Act::Send(vec![answer(q, 1)]) };
    let (lossy, well) = (Fake::start(lossy).await, Fake::start(good(2)).await);
    let times = Config { try_timeout: ms(2000), total_timeout: ms(4000), ..config(&[&lossy, &well]) };
    let forwarder = Forwarder::new(times);
    let mut asked = JoinSet::new();
    for i in 0..600 {
        let forwarder = forwarder.clone();
        asked.spawn(async move { timed(forwarder.resolve(&permit(&format!("n{i}.example")))).await });
        if i % 10 == 9 {
            tokio::time::sleep(ms(30)).await;
        }
    }
    let asked = asked.join_all().await;
    assert!(asked.iter().all(|(found, _)| last(found).is_some()));
    let (hedged, denied) = (&forwarder.counters().hedged, &forwarder.counters().hedges_denied);
    let (hedged, denied) = (hedged.load(Ordering::Relaxed), denied.load(Ordering::Relaxed));
    assert!(hedged > 150, "{hedged}: more than the budget holds and earns");
    // Half a try's time is what one waits that may not be asked twice.
    let late = asked.iter().filter(|(_, took)| *took > ms(900)).count();
    assert_eq!((denied, late), (0, 0), "{hedged} hedges");
}
