//! Rules that people wrote: compiled once, looked up by exact strings.
//!
//! Precedence: the rule with the longest name wins; on one name `=x` beats `x` and `*.x`; at equal reach deny beats
//! allow, then the rule written first. A rule whose day of expiry has come, or that is meant for other profiles, is
//! passed over.

use std::sync::Arc;

use hashbrown::HashTable;
use staunch_scoring::name::LabelOffsets;
use staunch_scoring::{Bits, NameBuf, NameRef};

use super::hash::{HashKey, Suffix, Suffixes};
use super::{Reach, RuleForm};
use crate::event::RuleRef;
use crate::model::{Mode, Phase, Qtype, SessionType, Wall};
use crate::ports::Ports;
use crate::range::IpRange;

/// What a rule says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Refused. Stands first: it wins at equal reach.
    Deny,
    /// Answered without a score; the ledger still counts.
    Allow,
}

/// One kind of session: its type and phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Scope(u8);

impl Scope {
    /// Number of scopes; [`Scope::index`] is below.
    pub const COUNT: usize = 16;

    /// Of a session.
    pub fn of(kind: SessionType, phase: Option<Phase>) -> Self {
        let kind = match kind {
            SessionType::Interactive => 0,
            SessionType::Batch => 1,
            SessionType::Scheduled => 2,
            SessionType::Unannounced => 3,
        };
        let phase = match phase {
            None => 0,
            Some(Phase::Fetch) => 1,
            Some(Phase::Build) => 2,
            Some(Phase::Run) => 3,
        };
        Self(kind * 4 + phase)
    }

    /// Its place in a table of all scopes.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A set of scopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScopeSet(u16);

impl ScopeSet {
    /// Every session.
    pub const ALL: Self = Self(u16::MAX);
    /// None.
    pub const NONE: Self = Self(0);

    /// All sessions of a type, or those in one phase of it.
    #[must_use]
    pub fn with(self, kind: SessionType, phase: Option<Phase>) -> Self {
        let bits = match phase {
            None => 0b1111 << Scope::of(kind, None).0,
            Some(_) => 1 << Scope::of(kind, phase).0,
        };
        Self(self.0 | bits)
    }

    /// The scopes as bits, by [`Scope::index`].
    pub fn bits(self) -> u16 {
        self.0
    }

    /// Whether `scope` is in it.
    pub fn contains(self, scope: Scope) -> bool {
        self.0 & 1 << scope.0 != 0
    }
}

/// A rule with everything start-up could settle.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Unique id.
    pub id: Arc<str>,
    /// File it is written in, as given.
    pub file: Arc<str>,
    /// Allow or deny.
    pub action: Action,
    /// The names, each with the line it stands on, from 1.
    pub names: Vec<(RuleForm, u32)>,
    /// Whose sessions it is for.
    pub scopes: ScopeSet,
    /// Types answered for these names beside the profile's, ascending.
    pub qtypes: Vec<Qtype>,
    /// What a session may spend under one tenant that this rule covers (forms that are not exact).
    pub budget: Bits,
    /// What is opened of these names' addresses, instead of the profile's ports.
    pub ports: Option<Ports>,
    /// Where these names are known to live; nothing where that is not written.
    pub expected: Vec<IpRange>,
    /// Applied instead of the policy's mode.
    pub mode: Option<Mode>,
    /// Stops matching at this time, milliseconds since the Unix epoch; [`Rule::NEVER`] for no end. Where somebody has set the
    /// clock, the reading that leaves less open counts ([`Rule::is_over`]).
    pub expires: u64,
    /// Who answers for it.
    pub owner: String,
    /// Why it exists.
    pub reason: String,
}

impl Rule {
    /// No expiry.
    pub const NEVER: u64 = u64::MAX;

    /// Whether it has ended: what allows as soon as either clock says so, what denies when both do.
    pub fn is_over(&self, wall: Wall) -> bool {
        let at = if self.action == Action::Allow { wall.latest() } else { wall.earliest() };
        self.expires <= at
    }
}

/// The rule that decides about a name.
#[derive(Debug, Clone, Copy)]
pub struct RuleMatch<'r> {
    /// Place of the rule in the set.
    pub index: u32,
    /// The rule.
    pub rule: &'r Rule,
    /// How the matching form reaches.
    pub reach: Reach,
    /// Labels of the name in the matching form: how specific it is.
    pub labels: u8,
    /// Line of the matching form.
    pub line: u32,
}

impl RuleMatch<'_> {
    /// For records.
    pub fn reference(&self) -> RuleRef {
        RuleRef { id: self.rule.id.clone(), file: self.rule.file.clone(), line: self.line }
    }
}

/// All rules, ready to be asked. Lookups do not allocate.
pub struct RuleSet {
    key: HashKey,
    rules: Vec<Rule>,
    names: Vec<NameBuf>,
    nodes: Vec<Node>,
    /// Index into `nodes` (and `names`) by the name's fingerprint; equality is on the name itself.
    by_name: HashTable<u32>,
    /// Ancestors of allowed names: index into `names` and the offset of the ancestor in it.
    above_allowed: HashTable<(u32, u8)>,
    exact_allowed: u32,
}

/// All forms on one name, in order of precedence.
struct Node {
    forms: Vec<Candidate>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    // The order of fields is the precedence on one name. `x` and `*.x` reach equally far.
    wide: bool,
    action: Action,
    rule: u32,
    reach: Reach,
    line: u32,
}

impl RuleSet {
    /// Every rule, in the order written.
    pub fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter()
    }

    /// Compiles `rules`; their order breaks ties.
    pub fn compile(rules: Vec<Rule>, key: HashKey) -> Self {
        let mut set = Self {
            key,
            rules: Vec::new(),
            names: Vec::new(),
            nodes: Vec::new(),
            by_name: HashTable::new(),
            above_allowed: HashTable::new(),
            exact_allowed: 0,
        };
        for (index, rule) in rules.iter().enumerate() {
            for (form, line) in &rule.names {
                let node = set.node_of(form.name.as_ref());
                set.nodes[node].forms.push(Candidate {
                    wide: form.reach != Reach::Exact,
                    action: rule.action,
                    rule: index as u32,
                    reach: form.reach,
                    line: *line,
                });
                if rule.action == Action::Allow {
                    set.note_ancestors(node, form.reach);
                }
            }
        }
        for node in &mut set.nodes {
            node.forms.sort();
            let exact = node.forms.iter().any(|c| !c.wide && c.action == Action::Allow);
            set.exact_allowed += u32::from(exact);
        }
        set.rules = rules;
        set
    }

    /// The rule that decides about `name` for a session of `scope` at `wall`.
    pub fn look_up(&self, name: NameRef<'_>, scope: Scope, wall: Wall) -> Option<RuleMatch<'_>> {
        let mut best = None;
        for suffix in Suffixes::of(name, &self.key) {
            if let Some(found) = self.at(&suffix, scope, wall) {
                best = Some(found);
            }
        }
        best
    }

    /// The decision of the forms on one suffix of a walk under this set's key.
    #[inline]
    pub(super) fn at(&self, suffix: &Suffix<'_>, scope: Scope, wall: Wall) -> Option<RuleMatch<'_>> {
        let index = *self.by_name.find(suffix.hash, |&i| self.is_name(i, suffix.wire))?;
        let node = self.nodes.get(index as usize)?;
        node.forms.iter().find_map(|candidate| {
            let reached = match candidate.reach {
                Reach::Exact => suffix.is_whole,
                Reach::AtOrBelow => true,
                Reach::Below => !suffix.is_whole,
            };
            let rule = self.rules.get(candidate.rule as usize)?;
            (reached && rule.scopes.contains(scope) && !rule.is_over(wall)).then_some(RuleMatch {
                index: candidate.rule,
                rule,
                reach: candidate.reach,
                labels: suffix.labels,
                line: candidate.line,
            })
        })
    }

    /// Whether a rule allows some name strictly below `name`, for whatever session and time: then a refusal of `name`
    /// must not deny what lies below it (RFC 8020 section 2).
    pub fn allows_below(&self, name: NameRef<'_>) -> bool {
        let hash = super::hash::fingerprint(name, &self.key);
        self.above_allowed.find(hash, |entry| self.is_ancestor(entry, name.as_wire())).is_some()
    }

    /// Distinct names on exact allow rules: choosing one of them tells at most log2 of this many bits.
    pub fn exact_allowed(&self) -> u32 {
        self.exact_allowed
    }

    /// The rules, as given.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The key of the fingerprints.
    pub fn key(&self) -> &HashKey {
        &self.key
    }

    fn node_of(&mut self, name: NameRef<'_>) -> usize {
        let hash = super::hash::fingerprint(name, &self.key);
        if let Some(&index) = self.by_name.find(hash, |&i| self.is_name(i, name.as_wire())) {
            return index as usize;
        }
        let index = self.nodes.len();
        self.names.push(name.to_owned());
        self.nodes.push(Node { forms: Vec::new() });
        let (names, key) = (&self.names, &self.key);
        self.by_name.insert_unique(hash, index as u32, |&i| super::hash::fingerprint(names[i as usize].as_ref(), key));
        index
    }

    fn note_ancestors(&mut self, node: usize, reach: Reach) {
        let name = self.names[node].clone();
        let offsets = LabelOffsets::of(name.as_ref());
        for suffix in Suffixes::of(name.as_ref(), &self.key) {
            if suffix.is_whole && reach == Reach::Exact {
                continue;
            }
            let entry = (node as u32, offsets.offset(offsets.count() - suffix.labels as usize) as u8);
            if self.above_allowed.find(suffix.hash, |e| self.is_ancestor(e, suffix.wire)).is_none() {
                let (names, key) = (&self.names, &self.key);
                self.above_allowed.insert_unique(suffix.hash, entry, |&(node, at)| {
                    NameRef::from_wire(&names[node as usize].as_ref().as_wire()[at as usize..])
                        .map_or(0, |ancestor| super::hash::fingerprint(ancestor, key))
                });
            }
        }
    }

    fn is_name(&self, index: u32, wire: &[u8]) -> bool {
        self.names.get(index as usize).is_some_and(|name| name.as_ref().as_wire() == wire)
    }

    fn is_ancestor(&self, &(node, at): &(u32, u8), wire: &[u8]) -> bool {
        self.names.get(node as usize).is_some_and(|name| name.as_ref().as_wire().get(at as usize..) == Some(wire))
    }
}

impl std::fmt::Debug for RuleSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RuleSet").field("rules", &self.rules.len()).field("names", &self.names.len()).finish()
    }
}

#[cfg(test)]
mod tests {
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
        set.look_up(name.as_ref(), scope, Wall::at(0)).map(|m| (m.rule.id.to_string(), m.reach, m.labels))
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
        let at = |wall| set.look_up(name.as_ref(), Scope::of(SessionType::Batch, None), wall).map(|m| &*m.rule.id);
        assert_eq!(at(Wall::at(999)), Some("short"));
        assert_eq!(at(Wall::at(1000)), Some("long"));
        // Set forward or back across its end: the clock that leaves less open is believed.
        for wall in [Wall { shown: 1000, steady: 10 }, Wall { shown: 10, steady: 1000 }] {
            assert_eq!(at(wall), Some("long"), "{wall:?}");
        }
        let mut deny = rule("deny", Action::Deny, &["=a.example.org"]);
        deny.expires = 1000;
        let set = RuleSet::compile(vec![deny], test_key());
        let denied = |wall| set.look_up(name.as_ref(), Scope::of(SessionType::Batch, None), wall).is_some();
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
                set.look_up(name.as_ref(), Scope::of(kind, phase), Wall::at(0)).is_some(),
                expected,
                "{kind:?} {phase:?}"
            );
        }
    }

    #[test]
    fn matches_point_at_the_line_of_the_name() {
        let set = RuleSet::compile(vec![rule("r", Action::Allow, &["=a.example", "b.example"])], test_key());
        let name = NameBuf::from_text("x.b.example").expect("name");
        let found = set.look_up(name.as_ref(), Scope::of(SessionType::Batch, None), Wall::at(0)).expect("covered");
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

    proptest! {
        /// Against a plain reading of the rules: no tables, no hashes.
        #[test]
        fn agrees_with_the_plain_reading(
            forms in proptest::collection::vec((any::<bool>(), 0u8..3, proptest::collection::vec(0u8..3, 1..4)), 0..25),
            asked in proptest::collection::vec(0u8..3, 1..5),
        ) {
            let text = |labels: &[u8]| labels.iter().map(|l| ["a", "b", "c-c"][*l as usize]).collect::<Vec<_>>().join(".");
            let rules: Vec<_> = forms.iter().enumerate().map(|(i, (deny, reach, labels))| {
                let action = if *deny { Action::Deny } else { Action::Allow };
                let mut rule = rule(&i.to_string(), action, &[]);
                let reach = [Reach::Exact, Reach::AtOrBelow, Reach::Below][*reach as usize];
                rule.names = vec![(RuleForm { name: text(labels).parse().expect("name"), reach }, 1)];
                rule
            }).collect();
            let name: NameBuf = text(&asked).parse().expect("name");
            let plain = rules.iter().enumerate()
                .filter(|(_, rule)| rule.names[0].0.covers(name.as_ref()))
                .min_by_key(|(i, rule)| {
                    let form = &rule.names[0].0;
                    (usize::MAX - form.name.as_ref().label_count(), form.reach != Reach::Exact, rule.action, *i)
                })
                .map(|(i, _)| i as u32);
            let set = RuleSet::compile(rules, test_key());
            let found = set.look_up(name.as_ref(), Scope::of(SessionType::Batch, None), Wall::at(0)).map(|m| m.index);
            prop_assert_eq!(found, plain);
        }
    }
}
