//! What operators do is on record: who, why, and how much.

use super::*;
use crate::event::{Alert, AlertKind};
use crate::pipeline::MOST_EXTENDED;
use crate::store::Record;

impl World {
    /// Every record of the journal so far, as it is written.
    fn lines(&self) -> Vec<Record> {
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

    fn alerts(&self, kind: AlertKind) -> Vec<Alert> {
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
        let actions = crate::pipeline::quarantine::actions(kind, &id, case);
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
