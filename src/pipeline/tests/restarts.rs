//! What a restart may not open, whatever the configuration says by then.

use super::*;
use crate::event::AlertKind;
use crate::model::Phase;

/// Sources that nobody announced.
fn source(n: u8) -> IpAddr {
    IpAddr::from([127, 0, 1, n])
}

fn id(name: &str) -> SessionId {
    SessionId::new(name).expect("id")
}

impl World {
    async fn profiled(tables: &str) -> Self {
        Self(
            world_for_test::World::new(&format!("unknown_source = \"profile\"\n{tables}"), |_| Says::Address {
                ttl: 300,
                last: 5,
            })
            .await,
        )
    }

    /// The same state by another configuration.
    async fn again(self, change: impl FnOnce(String) -> String) -> Self {
        let world_for_test::World { pipeline, dir, text, .. } = self.0;
        pipeline.save_ledgers(clock::now());
        pipeline.store.close();
        drop(pipeline);
        Self(world_for_test::World::again(dir, change(text)).await)
    }

    fn close(&self, address: IpAddr) {
        let session = self.pipeline.sessions.by_address(address).expect("known");
        self.pipeline.quarantine_by(&session, "ops", "test", clock::now()).expect("closed");
    }

    fn end(&self, name: &str) {
        drop(self.pipeline.end(&id(name), Ending::Word, clock::now()).expect("known").expect("room"));
    }

    /// Whose an address is, and whether that is closed.
    fn at(&self, address: IpAddr) -> Option<(String, bool)> {
        let session = self.pipeline.sessions.by_address(address)?;
        let closed = session.inner.lock().is_closed();
        Some((session.id().to_string(), closed))
    }

    async fn is_shut(&self, address: IpAddr) -> bool {
        let view = self.pipeline.enforcer.view(address).expect("taken").wait(Duration::from_secs(5)).await;
        view.expect("seen").quarantined
    }
}

fn limit(sessions: u32) -> String {
    format!("[limits]\nsessions = {sessions}\n")
}

#[test]
fn no_lower_limit_and_no_ledger_of_another_opens_a_closed_source() {
    block_on(async {
        let world = World::profiled(&limit(16)).await;
        for n in 1..=6 {
            assert!(world.has(source(n), &format!("n{n}.site.example")).await);
        }
        world.close(source(3));
        let spent = |world: &World, n| {
            world.pipeline.sessions.by_address(source(n)).map(|session| session.inner.lock().charged)
        };
        let before: Vec<_> = (1..=6).map(|n| spent(&world, n)).collect();
        // Room for one that nobody announced.
        let world = world.again(|text| text.replace(&limit(16), &limit(2))).await;
        let closed = format!("unannounced:{}", source(3));
        assert_eq!((world.at(source(3)), world.is_shut(source(3)).await), (Some((closed.clone(), true)), true));
        assert!(!world.has(source(3), "m.site.example").await && !world.has(source(1), "m.site.example").await);
        // What others have spent waits for them.
        world.end(&closed);
        assert!(world.pipeline.sessions.is_empty());
        world.has(source(5), "n5.site.example").await;
        assert!(spent(&world, 5) >= before[4] && before[4] > Some(Bits::ZERO), "{before:?} {:?}", spent(&world, 5));
    });
}

#[test]
fn a_source_that_was_announced_takes_no_room_behind_a_restart() {
    block_on(async {
        let world = World::profiled("").await;
        assert!(world.has(source(1), "n1.site.example").await);
        world.pipeline.save_ledgers(clock::now());
        world.announce("run", source(1));
        world.end("run");
        let recovered = world.journalled();
        assert!(recovered.ledgers.is_empty() && recovered.sessions.is_empty(), "{:?}", recovered.ledgers);
    });
}

#[test]
fn a_configuration_that_names_a_closed_address_does_not_open_it_at_a_restart() {
    block_on(async {
        let world = World::profiled("").await;
        assert!(world.has(source(1), "n1.site.example").await);
        world.announce("run", source(2));
        world.close(source(1));
        world.close(source(2));
        let tables = "[[session]]\nid = \"new\"\naddresses = [\"127.0.1.1\", \"127.0.1.9\"]\ntype = \"batch\"\n\
                      [[session]]\nid = \"other\"\naddresses = [\"127.0.1.2\"]\ntype = \"batch\"\n";
        let world = world.again(|text| text + tables).await;
        assert_eq!(world.at(source(1)), Some(("unannounced:127.0.1.1".into(), true)));
        assert_eq!(world.at(source(2)), Some(("run".into(), true)));
        assert_eq!(world.at(source(9)), Some(("new".into(), false)), "what is nobody else's it has");
        for (n, shut) in [(1, true), (2, true), (9, false)] {
            assert_eq!(world.is_shut(source(n)).await, shut, "{n}");
        }
        let told: Vec<_> = world.alerts(AlertKind::Degraded).into_iter().map(|alert| alert.summary).collect();
        for (one, address) in [("new", "127.0.1.1"), ("other", "127.0.1.2")] {
            let of = |text: &&String| text.contains(&format!("session {one} ")) && text.contains(address);
            assert_eq!(told.iter().filter(of).count(), 1, "{told:?}");
        }
        // As a reload leaves it.
        let text = world.text.clone();
        world.reload(&text).await;
        assert_eq!(world.at(source(1)), Some(("unannounced:127.0.1.1".into(), true)));
    });
}

#[test]
fn a_quarantine_whose_session_the_configuration_calls_otherwise_is_told_of_and_kept() {
    block_on(async {
        let named = |id: &str| format!("[[session]]\nid = \"{id}\"\naddresses = [\"127.0.1.1\"]\ntype = \"batch\"\n");
        let world = World::profiled(&named("agent")).await;
        world.close(source(1));
        let session = world.pipeline.sessions.by_address(source(1)).expect("known");
        let case = session.inner.lock().quarantine.as_ref().expect("closed").case;
        drop(session);
        let world = world.again(|text| text.replace(&named("agent"), &named("renamed"))).await;
        assert_eq!(world.at(source(1)), Some(("renamed".into(), false)));
        let [told] = &world.alerts(AlertKind::Release)[..] else { panic!("one alert") };
        assert_eq!((told.session.as_str(), told.case), ("agent", case));
        assert!(told.summary.contains("not been released") && told.summary.contains("ops"), "{}", told.summary);
        // It is closed where it is back, and whoever is announced by that name too.
        let world = world.again(|text| text.replace(&named("renamed"), &named("agent"))).await;
        assert_eq!(world.at(source(1)), Some(("agent".into(), true)));
        assert_eq!(world.alerts(AlertKind::Release).len(), 1);
        let world = world.again(|text| text.replace(&named("agent"), "")).await;
        world.announce("agent", source(2));
        assert_eq!((world.at(source(2)), world.is_shut(source(2)).await), (Some(("agent".into(), true)), true));
        // Until it is ended, there or not.
        let world = world.again(|text| text).await;
        assert_eq!(world.at(source(2)), Some(("agent".into(), true)), "it was announced");
        world.end("agent");
        let world = world.again(|text| text + &named("agent")).await;
        assert_eq!(world.at(source(1)), Some(("agent".into(), false)));
        world.close(source(1));
        let world = world.again(|text| text.replace(&named("agent"), "")).await;
        world.end("agent");
        assert!(world.pipeline.end(&id("agent"), Ending::Word, clock::now()).is_none());
        let world = world.again(|text| text + &named("agent")).await;
        assert_eq!(world.at(source(1)), Some(("agent".into(), false)));
    });
}

#[test]
fn what_was_announced_of_a_configured_session_besides_is_closed_with_it() {
    block_on(async {
        let agent = "[[session]]\nid = \"agent\"\naddresses = [\"127.0.1.1\"]\ntype = \"batch\"\n";
        let world = World::profiled(agent).await;
        let wide =
            Announcement { addresses: vec![source(1), source(2), source(3)], ..announcement("agent", source(1)) };
        drop(world.pipeline.announce_recorded(wide).expect("announced"));
        world.close(source(1));
        let other = "[[session]]\nid = \"other\"\naddresses = [\"127.0.1.3\"]\ntype = \"batch\"\n";
        let world = world.again(|text| text + other).await;
        for n in [1, 2] {
            assert_eq!(world.at(source(n)), Some(("agent".into(), true)), "{n}");
            assert!(world.is_shut(source(n)).await, "{n}");
        }
        assert_eq!(world.at(source(3)), Some(("other".into(), false)), "the configuration says whose it is");
    });
}

#[test]
fn a_session_that_is_ended_while_it_is_not_there_leaves_no_grant() {
    block_on(async {
        let world =
            World::profiled("[[session]]\nid = \"agent\"\naddresses = [\"127.0.1.1\"]\ntype = \"batch\"\n").await;
        let (session, now) = (Some(id("agent")), clock::now());
        let grant = world.grant_for("opened.example", session, 600, now);
        drop(world.pipeline.store.append(vec![store::Record::Grant { grant }]).expect("room"));
        world.close(source(1));
        let world = world.again(|text| text.split("[[session]]").next().expect("a part").to_owned()).await;
        assert_eq!(world.pipeline.grants_in_force(clock::now()).len(), 1, "it may come back");
        world.end("agent");
        assert!(world.pipeline.grants_in_force(clock::now()).is_empty());
        let recovered = world.journalled();
        assert!(recovered.grants.iter().all(|grant| grant.withdrawn.is_some()), "{:?}", recovered.grants);
    });
}

#[test]
fn an_address_that_had_left_a_configured_session_is_not_closed_with_it() {
    block_on(async {
        let agent = "[[session]]\nid = \"agent\"\naddresses = [\"127.0.1.1\"]\ntype = \"batch\"\n";
        let world = World::profiled(agent).await;
        let wide = Announcement { addresses: vec![source(1), source(2)], ..announcement("agent", source(1)) };
        drop(world.pipeline.announce_recorded(wide).expect("announced"));
        // Not closed, so a start goes by another entry.
        let world = world.again(|text| text.replace("\"batch\"", "\"interactive\"")).await;
        assert_eq!((world.at(source(1)), world.at(source(2))), (Some(("agent".into(), false)), None));
        world.close(source(1));
        let world = world.again(|text| text).await;
        assert_eq!((world.at(source(1)), world.at(source(2))), (Some(("agent".into(), true)), None));
    });
}

#[test]
fn what_was_announced_of_a_configured_session_holds_until_its_entry_is_another() {
    block_on(async {
        let agent = "[[session]]\nid = \"agent\"\naddresses = [\"127.0.1.1\"]\ntype = \"batch\"\nphase = \"build\"\n";
        let phase =
            |world: &World| world.pipeline.sessions.by_id(&id("agent")).expect("known").context().announcement.phase;
        let runs = |address| Announcement { phase: Some(Phase::Run), ..announcement("agent", address) };
        let world = World::profiled(agent).await;
        assert_eq!(phase(&world), Some(Phase::Build));
        drop(world.pipeline.announce_recorded(runs(source(2))).expect("announced"));
        // Another entry by the same reload, of another session.
        let other = "[[session]]\nid = \"other\"\naddresses = [\"127.0.1.9\"]\ntype = \"batch\"\n";
        let world = world.again(|text| text + other).await;
        assert_eq!((phase(&world), world.at(source(1))), (Some(Phase::Run), None));
        assert_eq!(world.at(source(2)), Some(("agent".into(), false)));
        // An address that a new entry names is that one's, and what is left of the announcement holds.
        drop(world.pipeline.announce_recorded(runs(source(1))).expect("announced"));
        let wide = Announcement { addresses: vec![source(1), source(3)], ..runs(source(1)) };
        drop(world.pipeline.announce_recorded(wide).expect("announced"));
        let third = "[[session]]\nid = \"third\"\naddresses = [\"127.0.1.3\"]\ntype = \"batch\"\n";
        let world = world.again(|text| text + third).await;
        assert_eq!((phase(&world), world.at(source(3))), (Some(Phase::Run), Some(("third".into(), false))));
        let world = world.again(|text| text.replace(third, "")).await;
        assert_eq!((phase(&world), world.at(source(3))), (Some(Phase::Run), None), "it is not its own again");
        // Another entry is the newer word, at a restart as at a reload.
        let world = world.again(|text| text.replace("\"build\"", "\"fetch\"")).await;
        assert_eq!((phase(&world), world.at(source(1))), (Some(Phase::Fetch), Some(("agent".into(), false))));
        drop(world.pipeline.announce_recorded(runs(source(1))).expect("announced"));
        let again = world.text.replace("\"fetch\"", "\"build\"");
        world.reload(&again).await;
        assert_eq!(phase(&world), Some(Phase::Build));
        let world = world.again(|_| again).await;
        assert_eq!(phase(&world), Some(Phase::Build));
        // What has ended comes back as it is written.
        drop(world.pipeline.announce_recorded(runs(source(1))).expect("announced"));
        world.end("agent");
        let world = world.again(|text| text).await;
        assert_eq!(phase(&world), Some(Phase::Build));
    });
}

#[test]
fn an_address_that_a_reload_took_from_a_configured_session_is_not_closed_with_it_behind_a_restart() {
    block_on(async {
        let agent = "[[session]]\nid = \"agent\"\naddresses = [\"127.0.1.1\"]\ntype = \"batch\"\n";
        let world = World::profiled(agent).await;
        let wide = Announcement { addresses: vec![source(1), source(2)], ..announcement("agent", source(1)) };
        drop(world.pipeline.announce_recorded(wide).expect("announced"));
        let again = world.text.replace("\"batch\"", "\"interactive\"");
        world.reload(&again).await;
        assert_eq!(world.at(source(2)), None);
        world.close(source(1));
        let world = world.again(|_| again).await;
        assert_eq!((world.at(source(1)), world.at(source(2))), (Some(("agent".into(), true)), None));
    });
}

#[test]
fn a_session_whose_entry_goes_while_the_service_is_stopped_has_ended_as_at_a_reload() {
    block_on(async {
        let agent = "[[session]]\nid = \"agent\"\naddresses = [\"127.0.1.1\"]\ntype = \"batch\"\n";
        let world = World::profiled("").await;
        let with = world.text.clone() + agent;
        world.reload(&with).await;
        world.announce("run", source(2));
        let grant = world.grant_for("opened.example", Some(id("agent")), 600, clock::now());
        drop(world.pipeline.store.append(vec![store::Record::Grant { grant }]).expect("room"));
        assert_eq!(world.at(source(1)), Some(("agent".into(), false)));
        let world = world.again(|text| text + agent).await;
        assert_eq!(world.pipeline.grants_in_force(clock::now()).len(), 1);
        let world = world.again(|text| text.replace(agent, "")).await;
        assert_eq!(world.at(source(1)), None);
        assert!(world.pipeline.grants_in_force(clock::now()).is_empty());
        // Of one that was there from a start on nothing is recorded but what was given to it.
        let world = world.again(|text| text + agent).await;
        let grant = world.grant_for("again.example", Some(id("agent")), 600, clock::now());
        drop(world.pipeline.store.append(vec![store::Record::Grant { grant }]).expect("room"));
        let world = world.again(|text| text.replace(agent, "")).await;
        assert!(world.pipeline.grants_in_force(clock::now()).is_empty());
        let world = world.again(|text| text).await;
        assert!(world.pipeline.grants_in_force(clock::now()).is_empty());
        assert_eq!(world.at(source(2)), Some(("run".into(), false)), "no entry has ever said anything of that one");
        // Nor does it come back with what was recorded of it; one that is closed stays closed.
        world.reload(&with).await;
        world.close(source(1));
        let world = world.again(|text| text).await;
        assert_eq!(world.at(source(1)), Some(("agent".into(), true)));
    });
}
