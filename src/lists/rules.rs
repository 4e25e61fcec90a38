//! Rules that people wrote: compiled once, looked up by exact strings.
//!
//! Precedence: the rule with the longest name wins; on one name `=x` beats `x` and `*.x`; at equal reach deny beats
//! allow, then the rule written first. A rule whose day of expiry has come, or that is meant for other profiles, is
//! passed over; so is one on trial, but what it would decide is told beside.

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

/// Which rules are on trial for a session: judged as if they were not written, and what they would refuse is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trials(u8);

impl Trials {
    /// No rule.
    pub const NONE: Self = Self(0);

    /// Those of a mode too.
    #[must_use]
    pub fn with(self, mode: Mode) -> Self {
        Self(self.0 | 1 << mode as u8)
    }

    fn contains(self, mode: Option<Mode>) -> bool {
        mode.is_some_and(|mode| self.0 & 1 << mode as u8 != 0)
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

/// What the rules say of a name.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ruled<'r> {
    /// The rule that decides.
    pub in_force: Option<RuleMatch<'r>>,
    /// The rule that would decide, were those on trial in force; nothing where that is the same one.
    pub on_trial: Option<RuleMatch<'r>>,
}

impl Ruled<'_> {
    /// With what a longer suffix of the name says, which goes before.
    pub(super) fn then(self, longer: Self) -> Self {
        if longer.in_force.is_some() { longer } else { Self { on_trial: longer.on_trial.or(self.on_trial), ..self } }
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

    /// The rule that decides about `name` for a session of `scope` at `wall`, for which those of `trials` are on trial.
    pub fn look_up(&self, name: NameRef<'_>, scope: Scope, wall: Wall, trials: Trials) -> Ruled<'_> {
        let walk = Suffixes::of(name, &self.key).filter_map(|suffix| self.at(&suffix, scope, wall, trials));
        walk.reduce(Ruled::then).unwrap_or_default()
    }

    /// The decision of the forms on one suffix of a walk under this set's key.
    #[inline]
    pub(super) fn at(&self, suffix: &Suffix<'_>, scope: Scope, wall: Wall, trials: Trials) -> Option<Ruled<'_>> {
        let index = *self.by_name.find(suffix.hash, |&i| self.is_name(i, suffix.wire))?;
        let node = self.nodes.get(index as usize)?;
        let mut matches = node.forms.iter().filter_map(|candidate| {
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
        });
        let mut ruled = Ruled::default();
        ruled.in_force = matches.find(|found| {
            let on_trial = trials.contains(found.rule.mode);
            if on_trial && ruled.on_trial.is_none() {
                ruled.on_trial = Some(*found);
            }
            !on_trial
        });
        Some(ruled)
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
mod tests;
