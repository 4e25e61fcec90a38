//! Popular names against an upstream on loopback that counts what it is asked. The look is handed times of its own, far
//! ahead of the clock, so that answers end without waiting.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::Deref;
use std::sync::atomic::AtomicBool;

use super::super::world_for_test::{self, Says, block_on, outcome, packet};
use super::*;
use crate::model::Wall;

/// Addresses of sessions: `a` and `b` are of one owner, `c` of another, `d` of nobody.
const A: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 1));
const B: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const C: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3));
const D: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 4));

/// Milliseconds until the upstream's answers are about to end: they live for 300 s.
const ENDING: u64 = 295_000;

struct World {
    world: world_for_test::World,
    /// Whether the upstream denies every name.
    denies: Arc<AtomicBool>,
}

impl Deref for World {
    type Target = world_for_test::World;

    fn deref(&self) -> &Self::Target {
        &self.world
    }
}

impl World {
    async fn new(answer: &str) -> Self {
        let denies = Arc::<AtomicBool>::default();
        let session = |id: &str, address: IpAddr, owner: &str| {
            format!("[[session]]\nid = \"{id}\"\naddresses = [\"{address}\"]\ntype = \"batch\"\n{owner}\n")
        };
        let tables = format!(
            "[answer]\n{answer}\n\
             [[rule]]\nid = \"site\"\naction = \"allow\"\nnames = [\"=www.site.example\"]\nowner = \"o\"\nreason = \"r\"\n\
             review_by = \"2099-01-01\"\n{}{}{}{}",
            session("a", A, "owner = \"team-a\""),
            session("b", B, "owner = \"team-a\""),
            session("c", C, "owner = \"team-c\""),
            session("d", D, ""),
        );
        let denied = denies.clone();
        let says = move |_| match denied.load(Ordering::SeqCst) {
            true => Says::Code(3),
            false => Says::Address { ttl: 300, last: 5 },
        };
        Self { world: world_for_test::World::new(&tables, says).await, denies }
    }

    /// Asks for an address, which there is; whether it left.
    async fn leaves(&self, from: IpAddr, name: &str) -> bool {
        let before = self.asked();
        let reply = self.ask(from, &packet(name, Qtype::A), clock::now()).await;
        assert_eq!(outcome(&reply), (0, 1), "an answer with one address");
        self.asked() > before
    }

    /// Has the question leave for this session, as if its answer had ended.
    async fn pay(&self, from: IpAddr, name: &str) {
        self.pipeline.cache.clear();
        assert!(self.leaves(from, name).await);
    }

    /// What is asked so long after now.
    async fn look(&self, later: u64) -> usize {
        let before = self.asked();
        let now = clock::now();
        self.pipeline
            .prefetch(Now { mono: now.mono + later, wall: Wall::at(now.wall.shown + later) }, Duration::ZERO)
            .await;
        self.asked() - before
    }

    fn spent(&self, from: IpAddr) -> staunch_scoring::Bits {
        let session = self.pipeline.sessions.by_address(from).expect("configured");
        session.inner.lock().score.spent_session()
    }
}

const NAME: &str = "www.site.example";

#[test]
fn a_name_that_two_owners_paid_for_is_asked_before_its_answer_ends_and_nobody_is_charged() {
    block_on(async {
        let world = World::new("prefetch = true").await;
        world.pay(A, NAME).await;
        world.pay(B, NAME).await;
        assert_eq!((world.pipeline.prefetch.len(), world.look(ENDING).await), (0, 0), "both are of one owner");
        world.pay(C, NAME).await;
        assert_eq!(world.pipeline.prefetch.len(), 1);
        assert_eq!(world.look(100_000).await, 0, "its answer is good for long");
        let spent = [A, B, C, D].map(|from| world.spent(from));
        assert_eq!(world.look(ENDING).await, 1, "asked for nobody");
        assert!(!world.leaves(D, NAME).await, "and answered from memory");
        assert_eq!([A, B, C, D].map(|from| world.spent(from)), spent, "nobody is charged");
        assert_eq!(world.look(3_600_000 + 1_000).await, 0, "an hour later it has to be earned anew");
        assert_eq!(world.pipeline.prefetch.len(), 0);
    });
}

#[test]
fn a_denial_does_not_take_the_place_of_an_answer_within_its_time() {
    block_on(async {
        let world = World::new("prefetch = true").await;
        world.pay(A, NAME).await;
        world.pay(C, NAME).await;
        world.denies.store(true, Ordering::SeqCst);
        assert_eq!(world.look(ENDING).await, 1, "asked ahead, and denied");
        assert_eq!(world.pipeline.prefetch.counters.failed.load(Ordering::Relaxed), 1);
        assert!(!world.leaves(D, NAME).await, "the answer of before is at hand until it ends");
        assert_eq!(world.look(ENDING + 5_000).await, 0, "and the question rests");
        // Where there is nothing to believe instead, a denial is kept like any answer.
        world.pipeline.cache.clear();
        assert_eq!(world.look(ENDING + 60_000).await, 1);
        assert_eq!(world.pipeline.prefetch.counters.failed.load(Ordering::Relaxed), 1, "a new answer");
        assert_eq!(world.pipeline.cache.len(), 1);
    });
}

#[test]
fn answers_from_memory_make_nothing_popular() {
    block_on(async {
        let world = World::new("prefetch = true").await;
        world.pay(A, NAME).await;
        for from in [C, D, C, D] {
            assert!(!world.leaves(from, NAME).await);
        }
        assert_eq!((world.pipeline.prefetch.len(), world.look(ENDING).await), (0, 0));
    });
}

#[test]
fn only_names_that_policy_names_and_still_answers_are_asked() {
    block_on(async {
        let world = World::new("prefetch = true").await;
        for from in [A, C] {
            world.pay(from, "www.unlisted.example").await;
            world.pay(from, NAME).await;
        }
        assert_eq!(world.pipeline.prefetch.len(), 2);
        assert_eq!(world.look(ENDING).await, 1, "the listed one alone");
        let refused = || world.pipeline.prefetch.counters.refused.load(Ordering::Relaxed);
        assert_eq!(refused(), 1);
        // Both sessions that asked it are closed: for whom should it be asked?
        for from in [A, C] {
            let session = world.pipeline.sessions.by_address(from).expect("configured");
            session.inner.lock().ended = true;
        }
        assert_eq!(world.look(ENDING).await, 0);
        assert_eq!(refused(), 2);
    });
}

#[test]
fn off_unless_wanted_and_forgotten_at_a_reload() {
    block_on(async {
        let off = World::new("").await;
        off.pay(A, NAME).await;
        off.pay(C, NAME).await;
        assert_eq!(off.pipeline.prefetch.len(), 0);

        let on = World::new("prefetch = true").await;
        on.pay(A, NAME).await;
        on.pay(C, NAME).await;
        assert_eq!(on.pipeline.prefetch.len(), 1);
        assert!(!on.leaves(A, NAME).await);
        on.reload(&on.text).await;
        assert!(on.pipeline.prefetch.len() == 1 && !on.leaves(A, NAME).await, "nothing has changed");
        on.reload(&on.text.replace("prefetch = true", "prefetch = true\njitter_ms = 1")).await;
        assert!(on.pipeline.prefetch.is_empty());
    });
}
