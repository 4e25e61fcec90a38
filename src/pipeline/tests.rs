//! Sessions as they come and go, against an upstream on loopback that answers every name with one address.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use staunch_scoring::Bits;

use super::world_for_test::{self, Says, block_on, outcome, packet};
use super::{Ending, NotReleased, Pipeline};
use crate::clock;
use crate::model::{Announcement, Now, Qtype, SessionId, SessionType, Wall};
use crate::session::Session;
use crate::store::{self, IndexKind, Options, Recovered, Store};

mod operators;
mod refusals;
mod restarts;
mod shares;

/// Address of a session.
const A: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 1));

struct World(world_for_test::World);

impl Deref for World {
    type Target = world_for_test::World;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl World {
    /// Batch sessions ask what is allowed and nothing else; with further tables of the configuration.
    async fn new(tables: &str) -> Self {
        Self::of("", tables).await
    }

    /// With further settings of the policy.
    async fn of(policy: &str, tables: &str) -> Self {
        let tables = format!("{policy}[profile.batch]\nunlisted = \"refuse\"\n{tables}");
        Self(world_for_test::World::new(&tables, |_| Says::Address { ttl: 300, last: 5 }).await)
    }

    fn announce(&self, id: &str, address: IpAddr) -> Arc<Session> {
        self.pipeline.announce_recorded(announcement(id, address)).expect("announced").0
    }

    /// Asks for an address; whether there was one.
    async fn has(&self, from: IpAddr, name: &str) -> bool {
        outcome(&self.ask(from, &packet(name, Qtype::A), clock::now()).await) == (0, 1)
    }

    fn grant(&self, name: &str, seconds: u64, now: Now) {
        self.grant_for(name, None, seconds, now);
    }

    fn grant_for(&self, name: &str, session: Option<SessionId>, seconds: u64, now: Now) -> store::Grant {
        let grant = store::Grant {
            id: format!("g-{name}"),
            name: format!("={name}"),
            session,
            ports: Vec::new(),
            owner: "o".into(),
            reason: "r".into(),
            from: now.wall.shown,
            until: now.wall.shown + seconds * 1000,
            withdrawn: None,
        };
        self.pipeline.grant(grant.clone(), now).expect("granted");
        grant
    }

    /// What the journal says once all is written.
    fn journalled(self) -> Recovered {
        let world_for_test::World { pipeline, dir, .. } = self.0;
        pipeline.store.close();
        let options = Options { index: IndexKind::Memory, ..Options::default() };
        let (again, recovered) = Store::open(&dir.path().join("state"), options).expect("opened");
        again.close();
        recovered
    }
}

fn announcement(id: &str, address: IpAddr) -> Announcement {
    Announcement {
        id: SessionId::new(id).expect("id"),
        addresses: vec![address],
        kind: SessionType::Batch,
        phase: None,
        owner: None,
        search: Vec::new(),
    }
}

fn later(seconds: u64) -> Now {
    let now = clock::now();
    Now { mono: now.mono + seconds * 1000, wall: Wall::at(now.wall.shown + seconds * 1000) }
}

#[test]
fn the_end_of_a_grant_is_not_missed_where_another_is_given_at_that_moment() {
    block_on(async {
        let world = World::new("").await;
        let session = world.announce("a", A);
        world.grant("www.site.example", 30, clock::now());
        assert!(world.has(A, "www.site.example").await);
        assert_eq!(session.inner.lock().pins.len(), 1);
        world.grant("www.other.example", 60, later(31));
        world.pipeline.close_ended(later(31));
        assert_eq!(session.inner.lock().pins.len(), 0, "what it opened is closed with it");
        assert_eq!(world.pipeline.live.load().grants.load().len(), 1, "and it is out of the table");
    });
}

#[test]
fn of_what_is_announced_and_ended_at_once_the_journal_says_what_holds() {
    block_on(async {
        let world = World::new("").await;
        let ids: Vec<_> = (0..500).map(|n| format!("s{n}")).collect();
        let pipeline = &world.pipeline;
        std::thread::scope(|scope| {
            // Each is ended by somebody else as soon as it is there.
            scope.spawn(|| {
                for id in &ids {
                    let id = SessionId::new(id).expect("id");
                    let commit = loop {
                        if let Some(commit) = pipeline.end(&id, Ending::Word, clock::now()) {
                            break commit;
                        }
                        std::thread::yield_now();
                    };
                    commit.expect("room").wait_blocking().expect("written");
                }
            });
            for id in &ids {
                let announced = loop {
                    if let Ok((_, commit)) = pipeline.announce_recorded(announcement(id, A)) {
                        break commit;
                    }
                    std::thread::yield_now();
                };
                announced.expect("room").wait_blocking().expect("written");
            }
        });
        assert_eq!((pipeline.sessions.len(), world.journalled().sessions), (0, Vec::new()));
    });
}

#[test]
fn nothing_of_a_session_is_recorded_behind_its_end() {
    block_on(async {
        let world = World::new("").await;
        world.grant("www.site.example", 60, clock::now());
        let session = world.announce("a", A);
        assert!(world.has(A, "www.site.example").await);
        session.inner.lock().dirty = true;
        // The table was read before the session ended.
        assert!(world.pipeline.end(session.id(), Ending::Word, clock::now()).expect("known").is_ok());
        let note = |pipeline: &Pipeline| {
            let mut inner = session.inner.lock();
            inner.score.retell();
            pipeline.journal_ledger(&session, &mut inner);
        };
        note(&world.pipeline);
        assert_eq!(world.pipeline.quarantine_by(&session, "ops", "late", clock::now()), None);
        let released = world.pipeline.release_by(&session, "ops", "late", 8, clock::now()).await;
        assert!(matches!(released, Err(NotReleased::Ended)));
        let recovered = world.journalled();
        assert!(recovered.ledgers.is_empty() && recovered.quarantined.is_empty(), "{recovered:?}");
    });
}

#[test]
fn a_release_that_cannot_be_recorded_opens_nothing() {
    block_on(async {
        let world = World::new("").await;
        let session = world.announce("a", A);
        world.pipeline.quarantine_by(&session, "ops", "test", clock::now()).expect("closed");
        let before = session.inner.lock().score.allowance();
        world.pipeline.store.close();
        let released = world.pipeline.release_by(&session, "ops", "test", 100, clock::now()).await;
        assert!(matches!(released, Err(NotReleased::Store(_))), "{released:?}");
        let inner = session.inner.lock();
        assert!(inner.is_closed() && inner.score.allowance() == before);
    });
}

#[test]
fn a_release_is_on_disk_when_it_is_done_and_what_it_extends_too() {
    block_on(async {
        let world = World::new("").await;
        let session = world.announce("a", A);
        world.pipeline.quarantine_by(&session, "ops", "test", clock::now()).expect("closed");
        let release = |bits| world.pipeline.release_by(&session, "ops", "test", bits, clock::now());
        assert!(release(100).await.expect("recorded"), "it was closed");
        assert!(!session.inner.lock().is_closed());
        assert!(!release(50).await.expect("recorded"), "and is open by now");
        let allowance = session.inner.lock().score.allowance();
        assert_eq!(allowance, Bits::whole(150));
        let recovered = world.journalled();
        assert!(recovered.quarantined.is_empty());
        let [(_, ledger)] = &recovered.ledgers[..] else { panic!("{:?}", recovered.ledgers) };
        assert_eq!(staunch_scoring::SessionState::restore(ledger).allowance(), allowance);
    });
}

#[test]
fn of_two_that_claim_an_address_the_later_one_has_it_and_what_is_left_of_the_other_stays_closed() {
    block_on(async {
        let world = World::new("").await;
        let world_for_test::World { pipeline, dir, text, .. } = world.0;
        pipeline.store.close();
        let (store, _) = Store::open(&dir.path().join("state"), Options::default()).expect("opened");
        let other = IpAddr::from([127, 0, 0, 2]);
        let mut first = announcement("first", A);
        first.addresses.push(other);
        let id = first.id.clone();
        let closed = store::Record::Quarantine {
            session: id.clone(),
            case: crate::model::CaseId::from_random(1),
            reason: crate::model::Reason::Quarantined,
            by: "ops".into(),
            note: String::new(),
            since: None,
            addresses: Vec::new(),
        };
        // That the first one has ended at that address was never written.
        let announce = |announcement| store::Record::Announce { announcement, entry: None };
        let records = vec![announce(first), closed, announce(announcement("second", A))];
        store.append(records).expect("room").wait_blocking().expect("written");
        store.close();
        let world = World(world_for_test::World::again(dir, text).await);
        let owner = |address| world.pipeline.sessions.by_address(address).expect("restored");
        assert_eq!((owner(A).id().as_str(), owner(other).id()), ("second", &id));
        assert!(owner(other).inner.lock().is_closed() && !owner(A).inner.lock().is_closed());
    });
}

#[test]
fn an_address_that_comes_while_its_source_is_released_closes_nothing_behind_a_restart() {
    block_on(async {
        let world = World::of("unknown_source = \"profile\"\n", "").await;
        let mut awaited = 0;
        for network in 1..=10 {
            let host = |n: u16| IpAddr::from([0x2001, 0xdb8, 0, network, 0, 0, 0, n]);
            world.has(host(0x11), "www.site.example").await;
            let session = world.pipeline.sessions.by_address(host(0x11)).expect("adopted");
            world.pipeline.quarantine_by(&session, "ops", "test", clock::now()).expect("closed");
            let mut release = Box::pin(world.pipeline.release_by(&session, "ops", "test", 0, clock::now()));
            // It is recorded, and awaited unless the disk was very quick.
            let begun = std::future::poll_fn(|cx| std::task::Poll::Ready(release.as_mut().poll(cx))).await;
            let std::task::Poll::Pending = begun else { continue };
            awaited += 1;
            world.has(host(0x12), "www.site.example").await;
            assert!(release.await.expect("recorded"));
        }
        assert!(awaited > 0 && world.journalled().quarantined.is_empty());
    });
}

#[test]
fn all_addresses_of_a_closed_source_that_nobody_announced_stay_closed_behind_a_restart() {
    block_on(async {
        let world = World::of("unknown_source = \"profile\"\n", "").await;
        let host = |n: u16| IpAddr::from([0x2001, 0xdb8, 0, 7, 0, 0, 0, n]);
        let (first, later, other) = (host(0x11), host(0x12), IpAddr::from([192, 0, 2, 9]));
        let id = {
            world.has(first, "www.site.example").await;
            world.has(other, "www.site.example").await;
            let session = world.pipeline.sessions.by_address(first).expect("adopted");
            world.pipeline.quarantine_by(&session, "ops", "test", clock::now()).expect("closed");
            // The host may use any address of its network, now too.
            world.has(later, "www.site.example").await;
            session.id().clone()
        };
        let since = |world: &World| {
            let session = world.pipeline.sessions.by_id(&id).expect("known");
            session.inner.lock().quarantine.as_ref().map(|quarantine| (quarantine.case, quarantine.since / 10_000))
        };
        let before = since(&world);
        let world_for_test::World { pipeline, dir, text, .. } = world.0;
        pipeline.store.close();
        drop(pipeline);
        let world = World(world_for_test::World::again(dir, text).await);
        assert_eq!(since(&world), before);
        for (address, closed) in [(first, true), (later, true), (other, false)] {
            let view = world.pipeline.enforcer.view(address).expect("taken").wait(Duration::from_secs(5)).await;
            assert_eq!(view.expect("seen").quarantined, closed, "{address}");
        }
        let session = world.pipeline.sessions.by_id(&id).expect("known");
        assert!(session.context().announcement.addresses.contains(&later));
    });
}

#[test]
fn nobody_else_looks_into_the_state_directory_or_the_index() {
    use std::os::unix::fs::PermissionsExt;
    block_on(async {
        let world = World::new("").await;
        let state = world.dir.path().join("state");
        for path in [state.join("index"), state] {
            let mode = path.metadata().expect("made").permissions().mode() & 0o777;
            assert_eq!(mode, 0o700, "{}", path.display());
        }
    });
}

/// What could not be pinned for a session is not shown to it, and nothing is opened for what is not shown; others share the same
/// answer in the cache.
#[test]
fn hints_that_a_session_cannot_reach_are_left_out_for_it() {
    block_on(async {
        let tables = "[answer]\nstrip_hints = false\n\
                      [[session]]\nid = \"four\"\naddresses = [\"127.0.0.1\"]\ntype = \"batch\"\n\
                      [[session]]\nid = \"both\"\naddresses = [\"127.0.0.2\", \"::1\"]\ntype = \"batch\"\n";
        let world = world_for_test::World::new(tables, |_| Says::Service).await;
        let both = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
        let question = packet("www.site.example", Qtype::HTTPS);
        let holds = |reply: &[u8], hint: &[u8]| reply.windows(hint.len()).any(|w| w == hint);
        let pins = |from| world.pipeline.sessions.by_address(from).expect("configured").inner.lock().pins.len();
        // From the upstream, and from the cache; the other session before and behind.
        for (from, hints) in [(A, false), (A, false), (both, true), (A, false), (both, true)] {
            let reply = world.ask(from, &question, clock::now()).await;
            assert_eq!(outcome(&reply), (0, 1), "{from}: {reply:?}");
            let shown = (holds(&reply, &[203, 0, 113, 5]), holds(&reply, &[32, 1, 13, 184]));
            assert_eq!((shown, pins(from)), ((hints, hints), if hints { 2 } else { 0 }), "{from}");
        }
        assert_eq!(world.asked(), 1);
    });
}
