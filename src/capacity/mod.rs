//! What a policy permits at worst: bits that one session can tell the outside, by part and by rule.
//!
//! Reads a policy in force and multiplies out; asks no name and knows no session. Beside [`crate::config`], which makes
//! the policy, and the command line, which prints the figures. They hold under the [`Assumptions`] and for what the parts
//! name; no sender reaches all of them at once. Left out are moments finer than a second of names that no rule names
//! exactly (`scoring/PROOF.md`), and what other sessions add.
//!
//! Two columns. *Once* is what ledgers hold: it does not come back while the session lives, and may all go in its first
//! hour. *Hourly* is what comes again each hour: the choice among exact names and types and the moments at which they are
//! forwarded, neither of which a ledger stops. Allowances given at run time are not part of a file and are not counted.

mod exact;

use std::collections::BTreeMap;

use serde::Serialize;
use staunch_scoring::{Bits, NameBuf, Split};

use crate::lists::{Action, Lists, Reach, Rule, Scope};
use crate::model::{Phase, Qtype, SessionType, Wall};
use crate::policy::{Profile, Profiles, Unlisted};

pub use exact::bits_a_query;

/// Version of the printed document.
pub const SCHEMA: u32 = 1;

/// Combinations of flags that leave with a query: DNSSEC OK and checking disabled.
const FLAGS: u64 = 4;

/// What the figures rest on beside the policy.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Assumptions {
    /// A name, type and flags that were forwarded are answered from the cache for so long, seconds. 0: not at all, and
    /// then nothing limits an hour.
    pub floor_seconds: f64,
    /// How far the arrival of a query strays from when it was sent, as seen by its reader, milliseconds, above 0.
    pub jitter_ms: f64,
}

impl Default for Assumptions {
    /// The shipped `answer.floor_seconds`, and what a wide-area path adds (chosen without a source; one of the two in
    /// `scoring/PROOF.md`). The resolver's own random wait is not counted on: exact names do not wait.
    fn default() -> Self {
        Self { floor_seconds: 60.0, jitter_ms: 100.0 }
    }
}

impl Assumptions {
    /// How often an hour one name, type and flags can be forwarded; infinite without a floor.
    pub fn forwards_an_hour(&self) -> f64 {
        if self.floor_seconds > 0.0 { 3600.0 / self.floor_seconds } else { f64::INFINITY }
    }

    /// Bits that the moment of one forwarded query tells: in which slot of `jitter_ms` within its floor, or in none.
    /// Without a floor, within a second.
    pub fn timing_bits(&self) -> f64 {
        let within = if self.floor_seconds > 0.0 { self.floor_seconds } else { 1.0 };
        (1.0 + within * 1000.0 / self.jitter_ms.max(f64::MIN_POSITIVE)).log2()
    }
}

/// The whole answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Capacity {
    /// [`SCHEMA`].
    pub schema: u32,
    /// What the figures rest on.
    pub assumptions: Assumptions,
    /// Each kind of session that is permitted something else than its type.
    pub profiles: Vec<ProfileCapacity>,
}

/// What a session of one profile may tell. An hourly figure that nothing limits is infinite, in JSON `null`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ProfileCapacity {
    /// Kind of session: a type, or a type and phase of which the policy says something of its own.
    pub session: String,
    /// The profile.
    pub profile: String,
    /// What ledgers hold in all, bits.
    pub once_bits: f64,
    /// What comes again each hour in all, bits.
    pub hourly_bits: f64,
    /// The most that one reader of an unlisted tenant gets of that.
    pub unlisted_tenant_bits: f64,
    /// The most that one reader of an unlisted ICANN-level domain gets.
    pub unlisted_icann_bits: f64,
    /// Of what one tenant is told, by repeats: first, and again each hour.
    pub repeats: Repeats,
    /// What all sessions of one group may tell in 24 hours by names new to the group, bits.
    pub group_day_bits: f64,
    /// The parts that add up to the totals.
    pub parts: Vec<Part>,
    /// Rules that allow, those that reach below their names first, the largest first.
    pub rules: Vec<RuleCapacity>,
    /// What each type answered adds to the hourly figure.
    pub types: Vec<TypeCapacity>,
}

/// Allowance for asking again.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Repeats {
    /// Before repeats under a tenant are held, bits.
    pub tenant_bits: f64,
    /// What comes back of it in an hour, bits.
    pub tenant_hourly_bits: f64,
}

/// One part of the total.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Part {
    /// What it is.
    pub what: &'static str,
    /// What a ledger holds, bits.
    pub once_bits: f64,
    /// What comes again each hour, bits.
    pub hourly_bits: f64,
    /// How it was worked out.
    pub how: String,
}

/// What one rule permits.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RuleCapacity {
    /// The rule.
    pub id: String,
    /// Where it is written.
    pub file: String,
    /// Line of its first name.
    pub line: u32,
    /// Its names.
    pub forms: Vec<String>,
    /// Its budget under one owner, bits; zero where all names are exact.
    pub budget_bits: f64,
    /// Its budget times its owners, bits.
    pub once_bits: f64,
    /// What its exact names and their moments tell each hour if there were no other rule, bits.
    pub hourly_bits: f64,
    /// By how much the profile's total falls without it: less than its own figure where another rule covers the same.
    pub saves_once_bits: f64,
    /// The same for the hourly figure: more than its own, since fewer names make every choice smaller; nothing where the
    /// rest has no limit either.
    pub saves_hourly_bits: f64,
}

/// What one type adds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TypeCapacity {
    /// The type.
    pub qtype: Qtype,
    /// By how much the hourly figure falls without it, bits: by nothing where it stays without a limit.
    pub adds_hourly_bits: f64,
}

/// Works out what `profiles` and `lists` permit at `wall` (milliseconds since the Unix epoch).
pub fn of(profiles: &Profiles, lists: &Lists, wall: u64, assumptions: Assumptions) -> Capacity {
    let mut done: Vec<ProfileCapacity> = Vec::new();
    for kind in KINDS {
        let first = done.len();
        for phase in PHASES {
            let (scope, profile) = (Scope::of(kind, phase), profiles.of(kind, phase));
            let session = match phase {
                None => kind.as_str().to_owned(),
                Some(phase) => format!("{}.{}", kind.as_str(), phase.as_str()),
            };
            let worked = Worked { profile, lists, scope, wall, assumptions }.profile(session);
            // A phase of which nothing is said of its own permits what its type does.
            if !done[first..].iter().any(|known| known.permits_as(&worked)) {
                done.push(worked);
            }
        }
    }
    Capacity { schema: SCHEMA, assumptions, profiles: done }
}

const KINDS: [SessionType; 4] =
    [SessionType::Interactive, SessionType::Batch, SessionType::Scheduled, SessionType::Unannounced];
const PHASES: [Option<Phase>; 4] = [None, Some(Phase::Fetch), Some(Phase::Build), Some(Phase::Run)];

impl ProfileCapacity {
    fn permits_as(&self, other: &Self) -> bool {
        Self { session: other.session.clone(), profile: other.profile.clone(), ..self.clone() } == *other
    }
}

/// One profile being worked out.
struct Worked<'p> {
    profile: &'p Profile,
    lists: &'p Lists,
    scope: Scope,
    wall: u64,
    assumptions: Assumptions,
}

impl Worked<'_> {
    fn profile(&self, session: String) -> ProfileCapacity {
        let budgets = &self.profile.budgets;
        let rules: Vec<&Rule> = self.allowing().collect();
        let scored = self.profile.unlisted == Unlisted::Score;
        let unlisted = if scored { budgets.session.as_f64() } else { 0.0 };
        let (below, hourly) = (below_rules(&rules), self.exact_hourly(&rules, None));
        let packs = self.packs();
        let timing = self.assumptions.timing_bits();
        let timed = self.assumptions.forwards_an_hour();
        let often = if timed.is_finite() {
            format!("{timed:.0} times an hour")
        } else {
            "without a floor any number of times".into()
        };
        let keys = exact::keys(&rules, &self.profile.qtypes, None);
        let repeats = format!("repeats of what was sent: {} an hour for each owner in use", budgets.echo_hour);
        let parts = vec![
            Part {
                what: "unlisted names",
                once_bits: unlisted,
                hourly_bits: 0.0,
                how: match scored {
                    true => format!(
                        "session budget; repeats, types and flags are charged to it; {} a tenant, {} a domain",
                        budgets.tenant, budgets.icann
                    ),
                    false => "unlisted = \"refuse\"".into(),
                },
            },
            Part {
                what: "names below rules",
                once_bits: below,
                hourly_bits: 0.0,
                how: format!(
                    "each rule's budget for each owner it covers, the largest where several do; {repeats}, not in the sum"
                ),
            },
            Part {
                what: "names of packs",
                once_bits: packs,
                hourly_bits: 0.0,
                how: match self.profile.has_packs() {
                    true => format!(
                        "all entries, within pack_session_bits = {}; {repeats}, not in the sum",
                        self.profile.pack_session
                    ),
                    false => "no pack applies".into(),
                },
            },
            Part {
                what: "exact names",
                once_bits: 0.0,
                hourly_bits: exact::bits_an_hour(keys, bits_a_query(keys), timed),
                how: format!(
                    "{keys} combinations of name, type and flags, {:.1} bits each, {often}",
                    bits_a_query(keys)
                ),
            },
            Part {
                what: "time of exact names",
                once_bits: 0.0,
                hourly_bits: exact::bits_an_hour(keys, timing, timed),
                how: format!(
                    "the same combinations, {timing:.1} bits each; left out: all other names' moments below one second, \
                     which nothing prices (scoring/PROOF.md)"
                ),
            },
        ];
        let types: Vec<_> = self.profile.qtypes.iter().map(|&qtype| self.without_type(&rules, qtype, hourly)).collect();
        ProfileCapacity {
            session,
            profile: self.profile.name.clone(),
            once_bits: parts.iter().map(|part| part.once_bits).sum(),
            hourly_bits: parts.iter().map(|part| part.hourly_bits).sum(),
            unlisted_tenant_bits: if scored { budgets.tenant.as_f64() } else { 0.0 },
            unlisted_icann_bits: if scored { budgets.icann.as_f64() } else { 0.0 },
            repeats: Repeats { tenant_bits: budgets.echo.as_f64(), tenant_hourly_bits: budgets.echo_hour.as_f64() },
            group_day_bits: budgets.group.as_f64(),
            parts,
            rules: self.rules(&rules, below, hourly),
            types,
        }
    }

    /// Allow rules that are for this kind of session and have not ended.
    fn allowing(&self) -> impl Iterator<Item = &Rule> {
        self.lists.rules.rules().iter().filter(|rule| {
            rule.action == Action::Allow && rule.scopes.contains(self.scope) && !rule.is_over(Wall::at(self.wall))
        })
    }

    fn rules(&self, rules: &[&Rule], below: f64, hourly: f64) -> Vec<RuleCapacity> {
        let mut told: Vec<_> = rules
            .iter()
            .enumerate()
            .map(|(i, rule)| {
                let others: Vec<&Rule> =
                    rules.iter().enumerate().filter(|(j, _)| *j != i).map(|(_, other)| *other).collect();
                let wide = rule.names.iter().any(|(form, _)| form.reach != Reach::Exact);
                RuleCapacity {
                    id: rule.id.to_string(),
                    file: rule.file.to_string(),
                    line: rule.names.first().map_or(0, |(_, line)| *line),
                    forms: rule.names.iter().map(|(form, _)| form.to_string()).collect(),
                    budget_bits: if wide { rule.budget.as_f64() } else { 0.0 },
                    once_bits: below_rules(&[rule]),
                    hourly_bits: self.exact_hourly(&[rule], None),
                    saves_once_bits: below - below_rules(&others),
                    saves_hourly_bits: fall(hourly, self.exact_hourly(&others, None)),
                }
            })
            .collect();
        told.sort_by(|a, b| {
            b.once_bits.total_cmp(&a.once_bits).then(b.hourly_bits.total_cmp(&a.hourly_bits)).then(a.id.cmp(&b.id))
        });
        told
    }

    /// What the packs permit together.
    fn packs(&self) -> f64 {
        if !self.profile.has_packs() {
            return 0.0;
        }
        let entries: Vec<&Rule> =
            self.lists.packs.rules().iter().filter(|entry| entry.scopes.contains(self.scope)).collect();
        let mut owners: BTreeMap<NameBuf, Bits> = BTreeMap::new();
        for entry in entries {
            for (form, _) in &entry.names {
                let name = form.name.as_ref();
                let owner = owners.entry(Split::of(name).icann(name).to_owned()).or_default();
                *owner = (*owner).max(entry.budget);
            }
        }
        let all = owners.values().fold(0.0, |sum, bits| sum + bits.as_f64());
        all.min(self.profile.pack_session.as_f64())
    }

    /// What exact names of `rules` and their moments tell in an hour, with one type of the profile left out where one is
    /// named.
    fn exact_hourly(&self, rules: &[&Rule], without: Option<Qtype>) -> f64 {
        let keys = exact::keys(rules, &self.profile.qtypes, without);
        let bits = bits_a_query(keys) + self.assumptions.timing_bits();
        exact::bits_an_hour(keys, bits, self.assumptions.forwards_an_hour())
    }

    fn without_type(&self, rules: &[&Rule], qtype: Qtype, hourly: f64) -> TypeCapacity {
        TypeCapacity { qtype, adds_hourly_bits: fall(hourly, self.exact_hourly(rules, Some(qtype))) }
    }
}

/// By how much an hourly figure falls: by nothing where what is left has no limit either.
fn fall(from: f64, to: f64) -> f64 {
    if to.is_finite() { from - to } else { 0.0 }
}

/// What names below `rules` can be charged for: one account for each owner, against the largest budget there.
fn below_rules(rules: &[&Rule]) -> f64 {
    let mut owners: BTreeMap<NameBuf, Bits> = BTreeMap::new();
    for rule in rules {
        for (form, _) in rule.names.iter().filter(|(form, _)| form.reach != Reach::Exact) {
            let name = form.name.as_ref();
            let owner = owners.entry(Split::of(name).tenant(name).to_owned()).or_default();
            *owner = (*owner).max(rule.budget);
        }
    }
    owners.values().fold(0.0, |sum, bits| sum + bits.as_f64())
}

#[cfg(test)]
mod tests;
