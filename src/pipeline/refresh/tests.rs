//! Held names over ticks, against an upstream on loopback whose answers tell how often it was asked. The walk is handed
//! times of its own, far ahead of the clock, so that no tick ends by itself.

use std::net::IpAddr;
use std::ops::Deref;
use std::sync::atomic::AtomicBool;

use super::super::world_for_test::{self, Says, block_on, outcome, packet};
use super::*;
use crate::model::Qtype;

/// A tick that is far enough from the clock's own, and not so far that answers are too old to be shown.
const TICK: u64 = 50;
const FROM: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

struct World {
    world: world_for_test::World,
    failing: Arc<AtomicBool>,
}

impl Deref for World {
    type Target = world_for_test::World;

    fn deref(&self) -> &Self::Target {
        &self.world
    }
}

impl World {
    /// The upstream answers with 203.0.113.n to the nth question, with a TTL of 0.
    async fn new(answer: &str) -> Self {
        let failing = Arc::<AtomicBool>::default();
        let tables = format!(
            "[answer]\nfloor_seconds = 0\njitter_ms = 0\n{answer}\n\
             [profile.batch.budgets]\necho = 4\necho_hour = 1\n\
             [[session]]\nid = \"a\"\naddresses = [\"127.0.0.1\"]\ntype = \"batch\"\n",
        );
        let fails = failing.clone();
        let says = move |nth: usize| match fails.load(Ordering::SeqCst) {
            true => Says::Code(2),
            false => Says::Address { ttl: 0, last: nth as u8 },
        };
        Self { world: world_for_test::World::new(&tables, says).await, failing }
    }

    /// How often the upstream was asked, as it stands in its answers.
    fn asked(&self) -> u8 {
        self.world.asked() as u8
    }

    fn session(&self) -> Arc<Session> {
        self.pipeline.sessions.by_address(FROM).expect("configured")
    }

    fn spent(&self) -> Bits {
        self.session().inner.lock().score.spent_session()
    }

    fn counted(&self, counter: fn(&Counters) -> &AtomicU64) -> u64 {
        counter(&self.pipeline.held.counters).load(Ordering::Relaxed)
    }

    /// Asks for an address at the beginning of a tick; the last octet of the answer, if there is one.
    async fn ask(&self, name: &str, tick: u64) -> Option<u8> {
        let packet = packet(name, Qtype::A);
        let now = Now { mono: tick * TICK_MS + 5_000, wall: clock::now().wall };
        let reply = self.world.ask(FROM, &packet, now).await;
        // Behind header, question and what comes ahead of the address.
        (outcome(&reply).1 == 1).then(|| reply[packet.len() - 11 + 15])
    }

    /// Asks until nothing leaves any more; the last octet of what is shown then.
    async fn until_held(&self, name: &str, tick: u64) -> Option<u8> {
        for _ in 0..200 {
            let before = self.asked();
            let shown = self.ask(name, tick).await;
            if self.asked() == before {
                return shown;
            }
        }
        panic!("{name} left every time");
    }

    /// What happens when a tick has just begun.
    async fn begin(&self, tick: u64) {
        self.pipeline.refresh_held(tick * TICK_MS, Duration::ZERO).await;
    }
}

#[test]
fn a_held_name_is_fresh_a_tick_later_without_a_query() {
    block_on(async {
        let world = World::new("").await;
        let shown = world.until_held("www.site.example", TICK).await;
        let left = world.asked();
        assert_eq!(shown, Some(left), "the last that was heard");
        assert_eq!((world.pipeline.held.len(), world.session().inner.lock().counts.forwarded), (1, u64::from(left)));
        world.begin(TICK).await;
        assert_eq!(world.asked(), left, "the tick is not over");

        world.begin(TICK + 1).await;
        assert_eq!(world.asked(), left + 1, "nobody has asked for it");
        assert_eq!(world.session().inner.lock().counts.forwarded, u64::from(left));
        assert_eq!(world.ask("www.site.example", TICK + 1).await, Some(left + 1));
        world.begin(TICK + 1).await;
        assert_eq!(world.asked(), left + 1, "once a tick");

        world.begin(TICK + 2).await;
        world.begin(TICK + 3).await;
        assert_eq!(world.asked(), left + 2, "not where it was out of use");
        world.begin(TICK + 12).await;
        assert_eq!(world.pipeline.held.len(), 0, "in the end it is forgotten");
    });
}

#[test]
fn a_tick_is_booked_once_and_a_name_enters_once() {
    block_on(async {
        let world = World::new("").await;
        let (one, two) = ("www.site.example", "api.site.example");
        // Both have left before either is held.
        world.ask(one, TICK).await;
        world.ask(two, TICK).await;
        let mut before = world.spent();
        let left = loop {
            let asked = world.asked();
            world.ask(one, TICK).await;
            if world.asked() == asked {
                break asked;
            }
            before = world.spent();
        };
        let (first, entering) = (world.spent().minus(before), world.pipeline.held.len());
        assert_eq!(entering, 1);
        assert!(first > Bits::whole(15), "a first tick and an entry: {first}");
        for _ in 0..20 {
            world.ask(one, TICK).await;
        }
        assert_eq!(world.spent().minus(before), first, "the tick is paid for, and the name is among them");

        world.ask(two, TICK).await;
        let second = world.spent().minus(before).minus(first);
        assert!(second > Bits::ZERO && second < first, "an entry alone: {second}");
        let shown = world.pipeline.show(&world.session(), clock::now());
        assert_eq!((world.pipeline.held.len(), shown["names_refreshed"].as_u64()), (2, Some(2)));
        let charged = world.session().inner.lock().charged;
        assert!(charged >= world.spent(), "what the session is shown to have told: {charged}");

        world.begin(TICK + 1).await;
        assert_eq!(world.asked(), left + 2, "both");
        let before = world.spent();
        for _ in 0..3 {
            world.ask(one, TICK + 1).await;
            world.ask(two, TICK + 1).await;
        }
        let next = world.spent().minus(before);
        assert!(next > Bits::ZERO && next < Bits::whole(4), "the next tick, and nobody enters: {next}");
        assert_eq!(world.pipeline.held.len(), 2);
    });
}

#[test]
fn what_is_closed_or_refused_meanwhile_is_not_asked() {
    block_on(async {
        let world = World::new("").await;
        world.until_held("www.site.example", TICK).await;
        let left = world.asked();
        // Taken already when the session is closed.
        let due = world.pipeline.held.table.take(TICK + 1);
        assert_eq!(due.len(), 1);
        world.ask("www.site.example", TICK + 1).await;
        world.pipeline.quarantine_by(&world.session(), "ops", "test", clock::now());
        assert_eq!(world.pipeline.held.len(), 0);
        world.pipeline.refresh(&due[0].0, &due[0].1).await;
        world.begin(TICK + 2).await;
        assert_eq!((world.asked(), world.counted(|c| &c.skipped)), (left, 1), "a closed session");

        let released = world.pipeline.release_by(&world.session(), "ops", "test", 500, clock::now()).await;
        assert!(released.expect("recorded"));
        world.begin(TICK + 2).await;
        assert_eq!(world.asked(), left, "what was held before is forgotten");
        world.pipeline.refresh(&due[0].0, &due[0].1).await;
        assert_eq!(world.asked(), left + 1, "the same session, open again");

        world.until_held("www.site.example", TICK + 3).await;
        let left = world.asked();
        let rule = "[[rule]]\nid = \"no\"\naction = \"deny\"\nnames = [\"site.example\"]\nowner = \"sec\"\n\
                    reason = \"test\"\nreview_by = \"2099-01-01\"\n";
        world.reload(&format!("{}{rule}", world.text)).await;
        assert_eq!(world.pipeline.held.len(), 0, "a reload clears the table");
        world.pipeline.refresh(&due[0].0, &due[0].1).await;
        assert_eq!((world.asked(), world.counted(|c| &c.skipped)), (left, 2), "policy refuses it by now");
    });
}

#[test]
fn a_failure_leaves_the_old_answer() {
    block_on(async {
        let world = World::new("").await;
        let shown = world.until_held("www.site.example", TICK).await;
        world.failing.store(true, Ordering::SeqCst);
        world.begin(TICK + 1).await;
        assert_eq!((world.counted(|c| &c.asked), world.counted(|c| &c.failed)), (1, 1));
        assert_eq!(world.ask("www.site.example", TICK + 1).await, shown, "and no failure stands in its way");
        world.failing.store(false, Ordering::SeqCst);
        world.begin(TICK + 2).await;
        assert_eq!(world.ask("www.site.example", TICK + 2).await, Some(world.asked()));
    });
}

#[test]
fn what_has_nothing_at_hand_is_asked_for_and_not_held() {
    block_on(async {
        let world = World::new("").await;
        world.until_held("www.site.example", TICK).await;
        world.pipeline.cache.clear();
        let (refused, asked) = (world.session().inner.lock().counts.refused, world.asked());
        assert_eq!(world.ask("www.site.example", TICK).await, Some(asked + 1));
        assert_eq!(world.session().inner.lock().counts.refused, refused);
    });
}

#[test]
fn an_answer_that_is_new_is_not_asked_for() {
    block_on(async {
        let world = World::new("").await;
        world.until_held("www.site.example", TICK).await;
        let mut due = world.pipeline.held.table.take(TICK + 1);
        let (question, sessions) = due.pop().expect("one");
        let left = world.asked();
        let entry = world.pipeline.cache.get_stale(question.key(), clock::now().mono, u64::MAX).expect("an answer");
        // The same answer as another path would have put it a moment ago, under a floor.
        let (answer, hops) = (entry.answer.clone(), entry.hops.clone());
        world.pipeline.cache.put(
            question.key(),
            world.pipeline.live.load().vetting(),
            answer,
            hops,
            clock::now().mono,
            2 * TICK_MS,
            0,
        );
        world.pipeline.refresh(&question, &sessions).await;
        assert_eq!((world.asked(), world.counted(|c| &c.skipped)), (left, 1));
    });
}

#[test]
fn switched_off_it_asks_and_books_nothing() {
    block_on(async {
        let world = World::new("refresh_held = false").await;
        let shown = world.until_held("www.site.example", TICK).await;
        let (left, spent) = (world.asked(), world.spent());
        assert_eq!(world.ask("www.site.example", TICK).await, shown);
        world.begin(TICK + 1).await;
        assert_eq!((world.asked(), world.spent(), world.pipeline.held.len()), (left, spent, 0));
    });
}

#[test]
fn the_order_and_the_moments_are_random() {
    let due = |n: usize| (0..n).map(|n| (question(n), Vec::new())).collect::<Vec<_>>();
    let all = at_random(due(2_000), SPREAD).expect("randomness");
    assert!(all.is_sorted_by_key(|(at, _)| *at) && all.iter().all(|(at, _)| *at <= SPREAD));
    for quarter in 0..4 {
        let from = SPREAD * quarter / 4;
        let share = all.iter().filter(|(at, _)| (from..from + SPREAD / 4).contains(at)).count();
        assert!((400..600).contains(&share), "{share} of 2000 in quarter {quarter}");
    }
    let first_half = all[..1_000].iter().filter(|(_, (q, _))| (0..1_000).any(|n| *q == question(n))).count();
    assert!((400..600).contains(&first_half), "{first_half} of the first come first");
}

fn question(n: usize) -> Question {
    let qname = staunch_scoring::NameBuf::from_text(&format!("n{n}.example")).expect("name");
    Question {
        qname,
        qtype: crate::model::Qtype::A,
        dnssec_ok: false,
        checking_disabled: false,
        partition: crate::partition::Partition::ALL,
    }
}
