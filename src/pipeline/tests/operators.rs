//! What operators do is on record: who, why, and how much.

use super::*;
use crate::event::{Alert, AlertKind};
use crate::pipeline::MOST_EXTENDED;
use crate::store::Record;

impl World {
    /// Every record of the journal so far, as it is written.
    pub(super) fn lines(&self) -> Vec<Record> {
        let mut records = Vec::new();
        for file in std::fs::read_dir(self.dir.path().join("state")).expect("there") {
            let path = file.expect("there").path();
            if path.extension().is_some_and(|end| end == "jsonl") {
                let text = std::fs::read_to_string(path).expect("read");
                let lines = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
                records.extend(lines.filter_map(|line| serde_json::from_value(line["record"].clone()).ok()));
            }
        }
        records
    }

    pub(super) fn alerts(&self, kind: AlertKind) -> Vec<Alert> {
        let alerts = self.lines().into_iter().filter_map(|record| match record {
            Record::Alert { alert } if alert.kind == kind => Some(*alert),
            _ => None,
        });
        alerts.collect()
    }
}

#[test]
fn what_a_session_may_tell_beyond_its_limits_is_on_record_and_has_an_end() {
    block_on(async {
        let world = World::new("").await;
        let session = world.announce("a", A);
        let release = |bits, why| world.pipeline.release_by(&session, "ops", why, bits, clock::now());
        assert!(!release(700, "more room").await.expect("recorded"), "it was open");
        world.pipeline.quarantine_by(&session, "ops", "test", clock::now()).expect("closed");
        assert!(release(40, "seen").await.expect("recorded"));
        let released: Vec<_> = world.lines().into_iter().filter(|r| matches!(r, Record::Release { .. })).collect();
        let record = |note: &str, extend| {
            let (session, by, note) = (session.id().clone(), "ops".to_owned(), note.to_owned());
            Record::Release { session, by, note, extend }
        };
        assert_eq!(released, [record("more room", 700), record("seen", 40)]);
        let [alert] = &world.alerts(AlertKind::Release)[..] else { panic!("one alert") };
        assert!(alert.summary.contains("raised by 40 bits"), "{}", alert.summary);
        assert!(!alert.actions.iter().any(|action| action.contains("session release")), "{:?}", alert.actions);
        let error = release(MOST_EXTENDED - 739, "too much").await.expect_err("beyond what a budget may be");
        assert!(matches!(error, NotReleased::TooMuch { given: 740 }), "{error}");
        assert!(!release(MOST_EXTENDED - 740, "all").await.expect("recorded"));
        assert!(!release(0, "nothing more").await.expect("recorded"));
    });
}

#[test]
fn two_releases_at_once_are_one_and_what_each_gives_counts() {
    block_on(async {
        let world = World::new("").await;
        let session = world.announce("a", A);
        world.pipeline.quarantine_by(&session, "ops", "test", clock::now()).expect("closed");
        let release = |by, bits| world.pipeline.release_by(&session, by, "seen", bits, clock::now());
        let (first, second, third) = tokio::join!(release("one", 10), release("two", 0), release("three", 30));
        assert!(first.expect("recorded"));
        assert!(!second.expect("nothing to do") && !third.expect("recorded"), "it was open by then");
        let [alert] = &world.alerts(AlertKind::Release)[..] else { panic!("one closing, one alert") };
        assert!(alert.summary.contains("Released by one"), "{}", alert.summary);
        let releases: Vec<_> = world.lines().into_iter().filter(|r| matches!(r, Record::Release { .. })).collect();
        assert_eq!(releases.len(), 2, "the second one changed nothing: {releases:?}");
        let steps = session.inner.lock().score.allowance().steps();
        assert_eq!(steps / staunch_scoring::Bits::STEPS, 40);
    });
}

#[test]
fn a_release_of_before_it_was_counted_is_read() {
    let old = r#"{"kind":"release","session":"a","by":"ops","note":"seen"}"#;
    let record: Record = serde_json::from_str(old).expect("read");
    assert!(matches!(record, Record::Release { extend: 0, .. }));
    assert_eq!(serde_json::to_string(&record).expect("written"), old, "and written as it was");
}

#[test]
fn an_alert_proposes_what_helps() {
    let (id, case) = (SessionId::new("a").expect("id"), crate::model::CaseId::from_random(1));
    for (kind, helps) in [
        (AlertKind::Quarantine, Some("staunch session release a ")),
        (AlertKind::WouldQuarantine, None),
        (AlertKind::Release, None),
        (AlertKind::VolumeSpent, Some("staunch allow NAME ")),
    ] {
        let actions = crate::pipeline::alerts::actions(kind, &id, case);
        let changes = actions.iter().find(|action| action.contains(" release ") || action.contains(" allow "));
        assert_eq!(changes.is_some(), helps.is_some(), "{kind:?}: {actions:?}");
        assert!(changes.is_none_or(|action| action.starts_with(helps.expect("one"))), "{kind:?}: {actions:?}");
    }
}

#[test]
fn a_quarantine_that_goes_with_its_session_is_told_of() {
    block_on(async {
        let world = World::new("").await;
        for (id, ending, told) in [("a", Ending::Word, "session end"), ("b", Ending::Configuration, "configuration")] {
            let session = world.announce(id, A);
            world.pipeline.quarantine_by(&session, "ops", "test", clock::now()).expect("closed");
            world
                .pipeline
                .end(session.id(), ending, clock::now())
                .expect("known")
                .expect("taken")
                .await
                .expect("on disk");
            let alerts = world.alerts(AlertKind::Release);
            let alert = alerts.last().expect("an alert");
            assert!(alert.session.as_str() == id && alert.summary.contains(told), "{}", alert.summary);
        }
        let session = world.announce("c", A);
        world
            .pipeline
            .end(session.id(), Ending::Word, clock::now())
            .expect("known")
            .expect("taken")
            .await
            .expect("on disk");
        assert_eq!(world.alerts(AlertKind::Release).len(), 2, "one that was open ends without a word");
    });
}

#[test]
fn a_grant_that_is_taken_back_opens_nothing_more_and_does_not_come_again() {
    block_on(async {
        let world = World::new("").await;
        let session = world.announce("a", A);
        world.grant("www.site.example", 60, clock::now());
        world.grant("www.other.example", 60, clock::now());
        assert!(world.has(A, "www.site.example").await && world.has(A, "www.other.example").await);
        let (id, pipeline) = ("g-www.site.example", &world.pipeline);
        let grant = pipeline.grant_by_id(id, clock::now()).expect("in force");
        drop(pipeline.store.append(vec![Record::Grant { grant: grant.clone() }]).expect("taken"));
        let (withdrawn, commit) = pipeline.withdraw(id, "ops", "done", clock::now()).expect("it was in force");
        commit.expect("taken").await.expect("on disk");
        assert_eq!(withdrawn, grant);
        assert!(!world.has(A, "www.site.example").await, "refused at once");
        pipeline.close_ended(clock::now());
        assert_eq!(session.inner.lock().pins.len(), 1, "and what it opened is closed, the other's is not");
        assert_eq!(pipeline.grants_in_force(clock::now()).len(), 1);
        assert!(pipeline.withdraw(id, "ops", "again", clock::now()).is_none());
        let said = world.lines().into_iter().rev().find_map(|record| match record {
            Record::Grant { grant } => grant.withdrawn,
            _ => None,
        });
        assert_eq!(said, Some(store::Withdrawn { by: "ops".into(), reason: "done".into() }));
        let recovered = world.journalled();
        assert!(recovered.grants.is_empty(), "{:?}", recovered.grants);
    });
}

#[test]
fn a_sessions_grants_go_with_it() {
    block_on(async {
        let world = World::new("").await;
        let session = world.announce("a", A);
        let now = clock::now();
        let (from, until) = (now.wall.shown, now.wall.shown + 60_000);
        let (owner, reason) = ("o".to_owned(), "r".to_owned());
        let (name, id) = ("=www.site.example".to_owned(), "g1".to_owned());
        let own = Some(session.id().clone());
        let ports = Vec::new();
        let grant = store::Grant { id, name, session: own, ports, owner, reason, from, until, withdrawn: None };
        drop(world.pipeline.store.append(vec![Record::Grant { grant: grant.clone() }]).expect("taken"));
        world.pipeline.grant(grant, now).expect("granted");
        assert!(world.has(A, "www.site.example").await);
        drop(world.pipeline.end(session.id(), Ending::Word, clock::now()).expect("known").expect("taken"));
        world.announce("a", A);
        assert!(!world.has(A, "www.site.example").await, "the next of its name has not what this one was given");
        assert!(world.journalled().grants.is_empty());
    });
}

#[test]
fn a_grant_given_again_with_fewer_ports_closes_the_rest() {
    block_on(async {
        let world = World::new("").await;
        let session = world.announce("a", A);
        world.grant("www.site.example", 60, clock::now());
        assert!(world.has(A, "www.site.example").await);
        let grant = world.pipeline.grant_by_id("g-www.site.example", clock::now()).expect("in force");
        world.pipeline.grant(grant.clone(), clock::now()).expect("granted");
        let leases =
            || session.inner.lock().pins.details(clock::now().mono).iter().map(|pin| pin.leases.len()).sum::<usize>();
        assert_eq!(leases(), 1, "the control: nothing has changed");
        let narrower = store::Grant { ports: vec!["tcp/22".into()], ..grant };
        world.pipeline.grant(narrower, clock::now()).expect("granted");
        assert_eq!(leases(), 0);
        assert_eq!(world.pipeline.grants_in_force(clock::now()).len(), 1);
    });
}

#[test]
fn what_a_rule_on_trial_would_refuse_is_nothing_against_an_enforced_session() {
    block_on(async {
        let rule = |id: &str, action: &str, mode: &str| {
            format!(
                "[[rule]]\nid = \"{id}\"\naction = \"{action}\"\nnames = [\"site.example\"]\nowner = \"o\"\nreason = \"r\"\n\
                 review_by = \"2099-01-01\"\n{mode}\n"
            )
        };
        let (allow, trial, deny) = (rule("own", "allow", ""), "mode = \"monitor\"", "mode = \"enforce\"");
        for (mode, refused) in [(trial, 0), (deny, 1)] {
            let world = World::new(&(rule("new", "deny", mode) + &allow)).await;
            let session = world.announce("a", A);
            assert_eq!(world.has(A, "www.site.example").await, refused == 0);
            let inner = session.inner.lock();
            assert_eq!((inner.counts.refused, inner.samples.len() as u64), (refused, refused), "{mode}");
            assert_eq!(inner.state() == crate::session::State::Watched, refused > 0, "{mode}");
        }
    });
}

/// Monitor mode, and a session that enforce mode would have closed: by payload under a type that only tunnels use.
async fn watched() -> (World, Arc<Session>) {
    let enforced = world_for_test::World::new("", |_| Says::Address { ttl: 300, last: 5 }).await;
    let text = enforced.text.replace("mode = \"enforce\"", "mode = \"monitor\"");
    let world = World(world_for_test::World::again(tempfile::tempdir().expect("directory"), text).await);
    let session = world.announce("a", A);
    let payload = "mzxw6ytboi3dsmrrgqzdgnjsgm3tenzt.evil.example";
    drop(world.ask(A, &packet(payload, Qtype(10)), clock::now()).await);
    (world, session)
}

#[test]
fn what_left_with_the_question_that_would_close_a_session_is_in_its_alert() {
    block_on(async {
        let (world, session) = watched().await;
        world.pipeline.store.append(Vec::new()).expect("room").await.expect("written behind the alert");
        let [alert] = &world.alerts(AlertKind::WouldQuarantine)[..] else { panic!("one alert") };
        let told = session.inner.lock().charged;
        assert!(told > Bits::whole(150), "{told:?}");
        assert_eq!(alert.leaked_bits_at_most, told, "it was let go: {}", alert.summary);
    });
}

#[test]
fn who_was_only_watched_is_not_said_to_be_released() {
    block_on(async {
        let (world, session) = watched().await;
        assert!(session.inner.lock().quarantine.as_ref().is_some_and(|quarantine| !quarantine.applied));
        let release = || world.pipeline.release_by(&session, "ops", "seen", 0, clock::now());
        assert!(!release().await.expect("recorded"), "it was open");
        assert!(session.inner.lock().quarantine.is_none(), "and is looked at anew");
        let [alert] = &world.alerts(AlertKind::Release)[..] else { panic!("one alert") };
        assert!(
            alert.summary.contains("was not closed") && alert.summary.contains("by ops: seen"),
            "{}",
            alert.summary
        );
        world.pipeline.quarantine_by(&session, "ops", "test", clock::now()).expect("closed");
        assert!(release().await.expect("recorded"));
        assert!(world.alerts(AlertKind::Release)[1].summary.contains("was released"));
    });
}

#[test]
fn a_quarantine_that_finds_the_queue_full_is_an_event_as_any() {
    block_on(async {
        let world = World::of("", "").await;
        let session = world.announce("a", A);
        // One line a second is told of questions past a share; this is the one.
        assert!(session.may_tell(clock::now().mono));
        let payload = packet("mzxw6ytboi3dsmrrgqzdgnjsgm3tenzt.evil.example", Qtype(10));
        let waiting = world.begin(A, &payload, clock::now()).expect("it waits for the journal");
        let mut reply = Vec::new();
        crate::listen::Service::overloaded(&*world.pipeline, waiting, &mut reply);
        assert_eq!(outcome(&reply), (2, 0));
        world.pipeline.telemetry.caught_up().await;
        let (told, _) = world.pipeline.telemetry.follow();
        let event: serde_json::Value = serde_json::from_str(told.last().expect("an event")).expect("JSON");
        let case = session.inner.lock().quarantine.as_ref().map(|quarantine| quarantine.case.to_string());
        assert_eq!(
            (event["verdict"].as_str(), event["case"].as_str()),
            (Some("quarantine"), case.as_deref()),
            "{event}"
        );
        assert_eq!((event["reason"].as_str(), event["rcode"].as_u64()), (Some("type-not-allowed"), Some(2)));
    });
}

#[test]
fn a_quarantine_that_the_journal_had_no_room_for_is_handed_over_again() {
    block_on(async {
        let world = World::new("").await;
        let session = world.announce("a", A);
        let case = world.pipeline.quarantine_by(&session, "ops", "test", clock::now()).expect("closed");
        world.pipeline.save_ledgers(clock::now());
        let quarantines =
            |world: &World| world.lines().into_iter().filter(|r| matches!(r, Record::Quarantine { .. })).count();
        let pending = session.inner.lock().pending.clone().expect("on its way");
        pending.wait().await.expect("on disk");
        assert_eq!((quarantines(&world), world.alerts(AlertKind::Quarantine).len()), (1, 1), "the control: once");
        // As if the queue had been full.
        session.inner.lock().pending = None;
        world.pipeline.save_ledgers(clock::now());
        let pending = session.inner.lock().pending.clone().expect("on its way again");
        pending.wait().await.expect("on disk");
        world.pipeline.save_ledgers(clock::now());
        assert_eq!(quarantines(&world), 2, "and no more");
        let [first, again] = &world.alerts(AlertKind::Quarantine)[..] else { panic!("two") };
        assert_eq!((&again.summary, &again.time, again.case), (&first.summary, &first.time, case));
        assert_eq!(again.id, first.id, "whoever has heard of it knows it again");
    });
}

#[test]
fn a_release_goes_behind_a_quarantine_that_the_journal_had_no_room_for() {
    block_on(async {
        let world = World::new("").await;
        let session = world.announce("a", A);
        world.pipeline.quarantine_by(&session, "ops", "test", clock::now()).expect("closed");
        session.inner.lock().pending.clone().expect("on its way").wait().await.expect("on disk");
        // As if the queue had been full.
        session.inner.lock().pending = None;
        let mut release = Box::pin(world.pipeline.release_by(&session, "ops", "test", 0, clock::now()));
        // It is recorded, and awaited unless the disk was very quick.
        let begun = std::future::poll_fn(|cx| std::task::Poll::Ready(release.as_mut().poll(cx))).await;
        world.pipeline.save_ledgers(clock::now());
        match begun {
            std::task::Poll::Ready(released) => assert!(released.expect("recorded")),
            std::task::Poll::Pending => assert!(release.as_mut().await.expect("recorded")),
        }
        drop(release);
        let kinds: Vec<_> = world
            .lines()
            .into_iter()
            .filter_map(|record| match record {
                Record::Quarantine { .. } => Some("quarantine"),
                Record::Release { .. } => Some("release"),
                _ => None,
            })
            .collect();
        assert_eq!(kinds, ["quarantine", "quarantine", "release"]);
        assert!(!session.inner.lock().is_closed() && world.journalled().quarantined.is_empty());
    });
}

#[test]
fn what_would_close_a_session_is_told_by_the_next_question_where_the_journal_has_no_room() {
    block_on(async {
        let (world, session) = watched().await;
        session.inner.lock().quarantine = None;
        world.pipeline.store.close();
        let payload = packet("gezdgnbvgy3tqojqgezdgnbvgy3tqojq.evil.example", Qtype(10));
        drop(world.ask(A, &payload, clock::now()).await);
        assert!(session.inner.lock().quarantine.is_none(), "no mark without its alert");
    });
}
