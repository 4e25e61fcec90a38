//! Which judgement a recommendation comes to.

use std::net::IpAddr;

use staunch_scoring::{Outcome, QName, SessionState};

use super::*;
use crate::config::{self, Environment};
use crate::lists::HashKey;
use crate::model::{Announcement, SessionId, SessionType};

const CONFIG: &str = r#"version = 1
[upstream]
servers = ["192.0.2.53"]
[policy]
mode = "enforce"
[enforce]
backend = "dry-run"
[profile.scheduled]
unlisted = "refuse"
[[rule]]
id = "work"
action = "allow"
names = ["*.work.example"]
owner = "o"
reason = "r"
review_by = "2099-01-01"
[[rule]]
id = "no"
action = "deny"
names = ["denied.example"]
owner = "o"
reason = "r"
review_by = "2099-01-01"
"#;

fn policy() -> Policy {
    let dir = tempfile::tempdir().expect("directory");
    let file = dir.path().join("staunch.toml");
    std::fs::write(&file, CONFIG).expect("written");
    let (loaded, _) = config::load_in(&file, &Environment::system()).expect("loads");
    Policy {
        lists: loaded.lists,
        profiles: loaded.profiles,
        mode: loaded.policy.mode,
        canary_percent: loaded.policy.canary_percent,
        unknown_source: loaded.policy.unknown_source,
        scorer: Scorer::new(),
        decoy: Default::default(),
    }
}

fn context(kind: SessionType) -> Context {
    let announcement = Announcement {
        id: SessionId::new("s1").expect("id"),
        addresses: vec![IpAddr::from([10, 0, 0, 1])],
        kind,
        phase: None,
        owner: None,
        search: Vec::new(),
    };
    Context::new(announcement, true)
}

/// The judgement of a question for which the scorer recommends `band`, on a session as `prepare` leaves it.
fn judged(
    kind: SessionType,
    name: &str,
    qtype: Qtype,
    recommend: (Band, Option<LedgerScope>),
    prepare: impl FnOnce(&mut Inner),
) -> (Verdict, Option<Reason>, bool) {
    let policy = policy();
    let context = context(kind);
    let mut inner = Inner::new(1);
    prepare(&mut inner);
    let query = Query {
        id: 0,
        recursion_desired: true,
        checking_disabled: false,
        authentic_data: false,
        qname: QName::from_text(name).expect("name"),
        qtype,
        question: &[],
        edns: None,
        options: Default::default(),
    };
    let grants = Grants::new(HashKey::from_random([1; 24]));
    let now = Now { mono: 1_000, wall: Wall::at(1_800_000_000_000) };
    let split = Split::of(query.qname.as_ref());
    let ask = Ask {
        query: &query,
        now,
        split,
        cached: false,
        at_hand: false,
        registered_days: None,
        first_seen_days: None,
        group_seen_days: None,
        group: None,
        grants: &grants,
        rpz: None,
        name_hash: 1,
    };
    let mut decision = policy.decide(&context, &inner, &ask);
    (decision.assessment.band, decision.assessment.overdraw) = recommend;
    let profile = policy.profiles.of(kind, None);
    let found = policy.look_up(&context, query.qname.as_ref(), now.wall);
    let (facts, assessment) = (&decision.facts, &decision.assessment);
    let judgement = policy.judge(
        &context,
        &inner,
        &ask,
        profile,
        None,
        found.rules.in_force,
        found.deny,
        found.pack,
        (None, None),
        facts,
        assessment,
    );
    (judgement.would, judgement.reason, judgement.nodata)
}

#[test]
fn what_is_refused_anyway_is_not_held() {
    use SessionType::{Batch, Scheduled, Unannounced};
    let hold = (Band::Hold, None);
    let held = (Verdict::Hold, Some(Reason::Held), true);
    let refused = |reason, nodata| (Verdict::Sinkhole, Some(reason), nodata);
    for (kind, name, qtype, recommend, expected, why) in [
        (Batch, "www.site.example", Qtype::A, hold, held, "a repeat"),
        (Batch, "www.site.example", Qtype::A, (Band::Hold, Some(LedgerScope::Tenant)), held, "by its ledger"),
        (Batch, "www.work.example", Qtype::A, hold, held, "below a rule too"),
        (Batch, "www.denied.example", Qtype::A, hold, refused(Reason::DenyRule, false), "denied"),
        (Scheduled, "www.site.example", Qtype::A, hold, refused(Reason::NotAllowed, false), "no rule allows it"),
        (Unannounced, "www.site.example", Qtype::TXT, hold, refused(Reason::TypeNotAllowed, true), "another's type"),
        (Batch, "a b.site.example", Qtype::A, hold, refused(Reason::BadHostName, false), "no host name"),
        (
            Batch,
            "www.site.example",
            Qtype::A,
            (Band::Sinkhole, Some(LedgerScope::Tenant)),
            refused(Reason::LedgerTenant, false),
            "a new name is refused",
        ),
        (Batch, "www.site.example", Qtype::A, (Band::Answer, None), (Verdict::Answer, None, false), "the control"),
    ] {
        assert_eq!(judged(kind, name, qtype, recommend, |_| {}), expected, "{why}");
    }
    let closed = judged(Batch, "www.site.example", Qtype::A, hold, |inner| inner.ended = true);
    assert_eq!(closed, refused(Reason::Quarantined, false), "a closed session");
}

#[test]
fn a_held_answer_is_no_refusal() {
    let policy = policy();
    let context = context(SessionType::Batch);
    let grants = Grants::new(HashKey::from_random([1; 24]));
    let query = Query {
        id: 0,
        recursion_desired: true,
        checking_disabled: false,
        authentic_data: false,
        qname: QName::from_text("www.site.example").expect("name"),
        qtype: Qtype::A,
        question: &[],
        edns: None,
        options: Default::default(),
    };
    for (outcome, refused, samples) in [(Outcome::Cached, 0, 0), (Outcome::Refused, 1, 1)] {
        let mut inner = Inner::new(1);
        inner.score = SessionState::new(1);
        let ask = Ask {
            query: &query,
            now: Now { mono: 1_000, wall: Wall::at(1_800_000_000_000) },
            split: Split::of(query.qname.as_ref()),
            cached: false,
            at_hand: false,
            registered_days: None,
            first_seen_days: None,
            group_seen_days: None,
            group: None,
            grants: &grants,
            rpz: None,
            name_hash: 1,
        };
        let mut decision = policy.decide(&context, &inner, &ask);
        (decision.applied, decision.would, decision.reason) = (Verdict::Hold, Verdict::Hold, Some(Reason::Held));
        decision.assessment.band = Band::Hold;
        policy.commit(&mut inner, &decision, outcome);
        assert_eq!(decision.booked(outcome), Bits::ZERO);
        assert_eq!((inner.counts.queries, inner.counts.forwarded, inner.counts.refused), (1, 0, refused));
        assert_eq!((inner.samples.len(), inner.watched), (samples, refused > 0));
        assert_eq!(inner.score.spent_session(), Bits::ZERO, "nothing left, nothing is booked");
    }
}

#[test]
fn the_later_of_two_dates_counts_and_unknown_takes_nothing_away() {
    for (a, b, expected) in [
        (None, None, None),
        (Some(3.0), None, Some(3.0)),
        (None, Some(4.0), Some(4.0)),
        (Some(900.0), Some(2.0), Some(2.0)),
        (Some(1.0), Some(2.0), Some(1.0)),
    ] {
        assert_eq!(super::younger(a, b), expected, "{a:?} {b:?}");
    }
}

#[test]
fn with_the_packs_limit_spent_a_repeat_is_held_and_a_new_name_refused() {
    let environment = Environment::system();
    let text = "version = 1\n[upstream]\nservers = [\"192.0.2.53\"]\n[policy]\nmode = \"enforce\"\n[enforce]\nbackend = \"dry-run\"\n\
                [profile.batch]\npack_session_bits = 700\n";
    let (loaded, _) = config::load_text(std::path::Path::new("p.toml"), text, &environment).expect("loads");
    let policy = Policy { lists: loaded.lists, profiles: loaded.profiles, ..policy() };
    let (context, grants) = (context(SessionType::Batch), Grants::new(HashKey::from_random([1; 24])));
    let mut inner = Inner::new(1);
    let mut ask = |n: u32, seconds: u64| {
        let hash = format!("{:08x}", n.wrapping_mul(0x9e37_79b9)).repeat(4);
        let qname = QName::from_text(&format!("{hash}.malware.hash.cymru.com")).expect("name");
        let query = Query {
            id: 0,
            recursion_desired: true,
            checking_disabled: false,
            authentic_data: false,
            qname,
            qtype: Qtype::A,
            question: &[],
            edns: None,
            options: Default::default(),
        };
        let ask = Ask {
            query: &query,
            now: Now { mono: seconds * 1000, wall: Wall::at(1_800_000_000_000 + seconds * 1000) },
            split: Split::of(query.qname.as_ref()),
            cached: false,
            at_hand: true,
            registered_days: None,
            first_seen_days: None,
            group_seen_days: None,
            group: None,
            grants: &grants,
            rpz: None,
            name_hash: 1,
        };
        let decision = policy.decide(&context, &inner, &ask);
        let outcome = if decision.applied == Verdict::Answer { Outcome::Forwarded } else { Outcome::Refused };
        policy.commit(&mut inner, &decision, outcome);
        (decision.applied, decision.reason)
    };
    let first = (1..50).take_while(|n| ask(*n, u64::from(*n)).0 == Verdict::Answer).count() as u32;
    assert!((1..20).contains(&first), "{first} names within the limit");
    assert_eq!(ask(first + 2, 60), (Verdict::Sinkhole, Some(Reason::LedgerSession)), "a new name");
    let repeats: Vec<_> = (0..60).map(|n| ask(1, 200 + n * 70)).collect();
    assert!(repeats.iter().all(|(verdict, _)| *verdict != Verdict::Sinkhole), "{repeats:?}");
    assert!(repeats.contains(&(Verdict::Hold, Some(Reason::Held))), "{repeats:?}");
}

const TRIALS: &str = r#"version = 1
[upstream]
servers = ["192.0.2.53"]
[policy]
mode = "enforce"
[enforce]
backend = "dry-run"
[profile.scheduled]
unlisted = "refuse"
[[list]]
id = "listed"
path = "listed.txt"
format = "domains"
"#;

/// Rules as `(id, action, names, on trial)`, beside a list that denies `listed.example`.
fn with_rules(rules: &[(&str, &str, &str, bool)]) -> Policy {
    let dir = tempfile::tempdir().expect("directory");
    std::fs::write(dir.path().join("listed.txt"), "listed.example\n").expect("written");
    let mut text = TRIALS.to_owned();
    for (id, action, name, on_trial) in rules {
        let mode = if *on_trial { "mode = \"monitor\"\n" } else { "" };
        text += &format!(
            "[[rule]]\nid = \"{id}\"\naction = \"{action}\"\nnames = [\"{name}\"]\n{mode}owner = \"o\"\n\
             reason = \"r\"\nreview_by = \"2099-01-01\"\n"
        );
    }
    let (loaded, _) = config::load_text(&dir.path().join("t.toml"), &text, &Environment::system()).expect("loads");
    Policy { lists: loaded.lists, profiles: loaded.profiles, ..policy() }
}

#[test]
fn a_rule_on_trial_hides_no_rule_that_is_enforced() {
    let policy = with_rules(&[
        ("deny", "deny", "bad.example", false),
        ("trial-deny", "deny", "sub.bad.example", true),
        ("trial-allow", "allow", "suba.bad.example", true),
        ("allow", "allow", "good.example", false),
        ("trial-hole", "deny", "sub.good.example", true),
        ("trial-alone", "deny", "alone.example", true),
        ("trial-test", "allow", "leak.test", true),
        ("real-test", "allow", "ours.test", false),
    ]);
    let (grants, wall) = (Grants::new(HashKey::from_random([1; 24])), Wall::at(1_800_000_000_000));
    let decided = |kind, name: &str| {
        let context = context(kind);
        let qname = QName::from_text(name).expect("name");
        let query = Query {
            id: 0,
            recursion_desired: true,
            checking_disabled: false,
            authentic_data: false,
            qname,
            qtype: Qtype::A,
            question: &[],
            edns: None,
            options: Default::default(),
        };
        let ask = Ask {
            query: &query,
            now: Now { mono: 1_000, wall },
            split: Split::of(query.qname.as_ref()),
            cached: false,
            at_hand: false,
            registered_days: None,
            first_seen_days: None,
            group_seen_days: None,
            group: None,
            grants: &grants,
            rpz: None,
            name_hash: 1,
        };
        let decision = policy.decide(&context, &Inner::new(1), &ask);
        let opens = policy.opens(&context, &grants, query.qname.as_ref(), wall).is_ok();
        assert_eq!(opens, decision.applied == Verdict::Answer, "{name}: what is answered is opened");
        (decision.applied, decision.would, decision.rule.map(|rule| rule.id.to_string()))
    };
    use SessionType::{Batch, Scheduled};
    for (kind, name, applied, would, rule) in [
        (Batch, "x.bad.example", Verdict::Sinkhole, Verdict::Sinkhole, Some("deny")),
        (Batch, "sub.bad.example", Verdict::Sinkhole, Verdict::Sinkhole, Some("deny")),
        (Batch, "x.suba.bad.example", Verdict::Sinkhole, Verdict::Sinkhole, Some("deny")),
        (Scheduled, "x.good.example", Verdict::Answer, Verdict::Answer, Some("allow")),
        (Scheduled, "sub.good.example", Verdict::Answer, Verdict::Sinkhole, Some("trial-hole")),
        (Batch, "alone.example", Verdict::Answer, Verdict::Sinkhole, Some("trial-alone")),
    ] {
        assert_eq!(decided(kind, name), (applied, would, rule.map(str::to_owned)), "{name}");
    }
    // Nor does it send to an upstream what is answered here.
    let allows = |name: &str| {
        let name = QName::from_text(name).expect("name");
        policy.allows(&context(Batch), &grants, name.as_ref(), wall)
    };
    assert_eq!((allows("a.leak.test"), allows("a.ours.test")), (false, true));
}

#[test]
fn the_first_hop_that_is_denied_in_earnest_refuses_the_chain() {
    let policy = with_rules(&[
        ("trial", "deny", "trial.example", true),
        ("deny", "deny", "bad.example", false),
        ("trial-listed", "deny", "sub.listed.example", true),
        ("trial-allow", "allow", "ok.listed.example", true),
        ("allow", "allow", "good.listed.example", false),
        ("trial-good", "deny", "sub.good.listed.example", true),
    ]);
    let grants = Grants::new(HashKey::from_random([1; 24]));
    let qname = QName::from_text("www.site.example").expect("name");
    let denied = |hops: &[&str]| {
        let hops: Vec<_> = hops.iter().map(|hop| hop.parse().expect("name")).collect();
        let wall = Wall::at(1_800_000_000_000);
        let denied = policy.denied_hop(&context(SessionType::Batch), &grants, qname.as_ref(), &hops, wall);
        denied.map(|(_, rule, mode)| (rule.id.to_string(), mode))
    };
    for (hops, expected) in [
        (&["trial.example"][..], Some(("trial", Mode::Monitor))),
        (&["trial.example", "fine.example", "bad.example"], Some(("deny", Mode::Enforce))),
        (&["trial.example", "x.listed.example"], Some(("listed", Mode::Enforce))),
        (&["sub.listed.example"], Some(("listed", Mode::Enforce))),
        (&["ok.listed.example"], Some(("listed", Mode::Enforce))),
        (&["good.listed.example"], None),
        (&["sub.good.listed.example"], Some(("trial-good", Mode::Monitor))),
        (&["fine.example"], None),
    ] {
        assert_eq!(denied(hops), expected.map(|(id, mode)| (id.to_owned(), mode)), "{hops:?}");
    }
}
