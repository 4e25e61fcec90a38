use proptest::prelude::*;

use super::*;
use crate::lists::hash::test_key;

const INTERACTIVE: (SessionType, Option<Phase>) = (SessionType::Interactive, None);

fn rule(id: &str, action: Action, names: &[&str]) -> Rule {
    let form = |text: &&str| RuleForm::parse_deny(text).expect("form");
    Rule {
        id: id.into(),
        file: "policy.toml".into(),
        action,
        names: names.iter().zip(1..).map(|(text, line)| (form(text), line)).collect(),
        scopes: ScopeSet::ALL,
        qtypes: Vec::new(),
        budget: Bits::whole(100),
        ports: None,
        expected: Vec::new(),
        mode: None,
        expires: Rule::NEVER,
        owner: "team".into(),
        reason: "test".into(),
    }
}

fn decide(set: &RuleSet, name: &str) -> Option<(String, Reach, u8)> {
    let name = NameBuf::from_text(name).expect("name");
    let scope = Scope::of(INTERACTIVE.0, INTERACTIVE.1);
    set.look_up(name.as_ref(), scope, Wall::at(0), Trials::NONE)
        .in_force
        .map(|m| (m.rule.id.to_string(), m.reach, m.labels))
}

#[test]
fn most_specific_then_exact_then_deny() {
    let set = RuleSet::compile(
        vec![
            rule("wide", Action::Allow, &["example.org"]),
            rule("hole", Action::Deny, &["*.bad.example.org"]),
            rule("same", Action::Deny, &["twice.example.org"]),
            rule("same-allow", Action::Allow, &["*.twice.example.org", "twice.example.org"]),
            rule("exact", Action::Allow, &["=ok.bad.example.org", "=twice.example.org"]),
            rule("exact-deny", Action::Deny, &["=ok.bad.example.org"]),
        ],
        test_key(),
    );
    for (name, expected) in [
        ("example.org", Some(("wide", Reach::AtOrBelow, 2))),
        ("a.b.example.org", Some(("wide", Reach::AtOrBelow, 2))),
        ("bad.example.org", Some(("wide", Reach::AtOrBelow, 2))), // `*.x` does not mean x
        ("x.bad.example.org", Some(("hole", Reach::Below, 3))),
        ("ok.bad.example.org", Some(("exact-deny", Reach::Exact, 4))), // deny wins on one name
        ("y.ok.bad.example.org", Some(("hole", Reach::Below, 3))),
        ("twice.example.org", Some(("exact", Reach::Exact, 3))), // exact beats the wider deny
        ("z.twice.example.org", Some(("same", Reach::AtOrBelow, 3))), // `x` and `*.x` reach equally
        ("example.net", None),
        ("org", None),
        (".", None),
        ("badexample.org", None),
    ] {
        let expected = expected.map(|(id, reach, labels)| (id.to_owned(), reach, labels));
        assert_eq!(decide(&set, name), expected, "{name}");
    }
    assert_eq!(set.exact_allowed(), 2);
}

#[test]
fn a_rule_ends_on_its_day_and_uncovers_what_lies_behind() {
    let mut short = rule("short", Action::Allow, &["=a.example.org"]);
    short.expires = 1000;
    let set = RuleSet::compile(vec![short, rule("long", Action::Deny, &["example.org"])], test_key());
    let name = NameBuf::from_text("a.example.org").expect("name");
    let at = |wall| {
        set.look_up(name.as_ref(), Scope::of(SessionType::Batch, None), wall, Trials::NONE)
            .in_force
            .map(|m| &*m.rule.id)
    };
    assert_eq!(at(Wall::at(999)), Some("short"));
    assert_eq!(at(Wall::at(1000)), Some("long"));
    // Set forward or back across its end: the clock that leaves less open is believed.
    for wall in [Wall { shown: 1000, steady: 10 }, Wall { shown: 10, steady: 1000 }] {
        assert_eq!(at(wall), Some("long"), "{wall:?}");
    }
    let mut deny = rule("deny", Action::Deny, &["=a.example.org"]);
    deny.expires = 1000;
    let set = RuleSet::compile(vec![deny], test_key());
    let denied =
        |wall| set.look_up(name.as_ref(), Scope::of(SessionType::Batch, None), wall, Trials::NONE).in_force.is_some();
    assert!(denied(Wall { shown: 1000, steady: 10 }) && denied(Wall { shown: 10, steady: 1000 }));
    assert!(!denied(Wall::at(1000)), "both have reached its end");
}

#[test]
fn rules_keep_to_their_profiles() {
    let mut build = rule("build", Action::Allow, &["example.org"]);
    build.scopes = ScopeSet::NONE.with(SessionType::Batch, Some(Phase::Build)).with(SessionType::Scheduled, None);
    let set = RuleSet::compile(vec![build], test_key());
    let name = NameBuf::from_text("example.org").expect("name");
    for (kind, phase, expected) in [
        (SessionType::Batch, Some(Phase::Build), true),
        (SessionType::Batch, Some(Phase::Run), false),
        (SessionType::Batch, None, false),
        (SessionType::Scheduled, None, true),
        (SessionType::Scheduled, Some(Phase::Run), true),
        (SessionType::Unannounced, None, false),
    ] {
        assert_eq!(
            set.look_up(name.as_ref(), Scope::of(kind, phase), Wall::at(0), Trials::NONE).in_force.is_some(),
            expected,
            "{kind:?} {phase:?}"
        );
    }
}

#[test]
fn matches_point_at_the_line_of_the_name() {
    let set = RuleSet::compile(vec![rule("r", Action::Allow, &["=a.example", "b.example"])], test_key());
    let name = NameBuf::from_text("x.b.example").expect("name");
    let found = set
        .look_up(name.as_ref(), Scope::of(SessionType::Batch, None), Wall::at(0), Trials::NONE)
        .in_force
        .expect("covered");
    assert_eq!(found.reference(), RuleRef { id: "r".into(), file: "policy.toml".into(), line: 2 });
}

#[test]
fn knows_where_allowed_names_lie_below() {
    let set = RuleSet::compile(
        vec![
            rule("a", Action::Allow, &["=www.shop.example.org", "*.cdn.example.net", "deep.example.com"]),
            rule("d", Action::Deny, &["=x.denied.example"]),
        ],
        test_key(),
    );
    let below = |name: &str| set.allows_below(NameBuf::from_text(name).expect("name").as_ref());
    for name in ["org", "example.org", "shop.example.org", "cdn.example.net", "example.com", "deep.example.com"] {
        assert!(below(name), "{name}");
    }
    for name in ["www.shop.example.org", "a.cdn.example.net", "denied.example", "example", "other.example.org"] {
        assert!(!below(name), "{name}");
    }
}

/// The rule that decides, and the one that would were those on trial in force.
fn with_trials(set: &RuleSet, name: &str, trials: Trials) -> (Option<String>, Option<String>) {
    let name = NameBuf::from_text(name).expect("name");
    let found = set.look_up(name.as_ref(), Scope::of(INTERACTIVE.0, INTERACTIVE.1), Wall::at(0), trials);
    let id = |found: Option<RuleMatch<'_>>| found.map(|m| m.rule.id.to_string());
    (id(found.in_force), id(found.on_trial))
}

#[test]
fn a_rule_on_trial_hides_nothing() {
    let trial = |id: &str, action, names: &[&str]| Rule { mode: Some(Mode::Monitor), ..rule(id, action, names) };
    let set = RuleSet::compile(
        vec![
            trial("trial-deny", Action::Deny, &["sub.bad.example", "one.example", "wide.example", "sub.good.example"]),
            trial("trial-allow", Action::Allow, &["suba.bad.example"]),
            rule("deny", Action::Deny, &["bad.example"]),
            rule("allow", Action::Allow, &["good.example", "one.example", "ok.wide.example"]),
        ],
        test_key(),
    );
    let monitor = Trials::NONE.with(Mode::Monitor);
    for (name, in_force, on_trial) in [
        ("bad.example", Some("deny"), None),
        ("sub.bad.example", Some("deny"), Some("trial-deny")),
        ("x.suba.bad.example", Some("deny"), Some("trial-allow")),
        ("sub.good.example", Some("allow"), Some("trial-deny")),
        ("one.example", Some("allow"), Some("trial-deny")),
        ("a.wide.example", None, Some("trial-deny")),
        // What would not decide were it in force is not told.
        ("ok.wide.example", Some("allow"), None),
    ] {
        let expected = (in_force.map(str::to_owned), on_trial.map(str::to_owned));
        assert_eq!(with_trials(&set, name, monitor), expected, "{name}");
    }
    for trials in [Trials::NONE, Trials::NONE.with(Mode::Canary)] {
        assert_eq!(with_trials(&set, "sub.good.example", trials), (Some("trial-deny".into()), None), "{trials:?}");
    }
}

proptest! {
    /// Against a plain reading of the rules: no tables, no hashes.
    #[test]
    fn agrees_with_the_plain_reading(
        forms in proptest::collection::vec(
            (any::<bool>(), any::<bool>(), 0u8..3, proptest::collection::vec(0u8..3, 1..4)), 0..25
        ),
        asked in proptest::collection::vec(0u8..3, 1..5),
    ) {
        let text = |labels: &[u8]| labels.iter().map(|l| ["a", "b", "c-c"][*l as usize]).collect::<Vec<_>>().join(".");
        let rules: Vec<_> = forms.iter().enumerate().map(|(i, (deny, trial, reach, labels))| {
            let action = if *deny { Action::Deny } else { Action::Allow };
            let mut rule = rule(&i.to_string(), action, &[]);
            rule.mode = trial.then_some(Mode::Monitor);
            let reach = [Reach::Exact, Reach::AtOrBelow, Reach::Below][*reach as usize];
            rule.names = vec![(RuleForm { name: text(labels).parse().expect("name"), reach }, 1)];
            rule
        }).collect();
        let name: NameBuf = text(&asked).parse().expect("name");
        let plain = |with_trials: bool| {
            rules.iter().enumerate()
                .filter(|(_, rule)| rule.names[0].0.covers(name.as_ref()) && (with_trials || rule.mode.is_none()))
                .min_by_key(|(i, rule)| {
                    let form = &rule.names[0].0;
                    (usize::MAX - form.name.as_ref().label_count(), form.reach != Reach::Exact, rule.action, *i)
                })
                .map(|(i, _)| i as u32)
        };
        let (in_force, of_all) = (plain(false), plain(true));
        let set = RuleSet::compile(rules, test_key());
        let scope = Scope::of(SessionType::Batch, None);
        let found = |trials| {
            let found = set.look_up(name.as_ref(), scope, Wall::at(0), trials);
            (found.in_force.map(|m| m.index), found.on_trial.map(|m| m.index))
        };
        prop_assert_eq!(found(Trials::NONE), (of_all, None));
        let on_trial = of_all.filter(|_| of_all != in_force);
        prop_assert_eq!(found(Trials::NONE.with(Mode::Monitor)), (in_force, on_trial));
    }
}
