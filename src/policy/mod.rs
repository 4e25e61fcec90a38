//! Policy: turns facts into one verdict. The only place that can build a [`Permit`].
//!
//! Between what is known of a query ([`crate::lists`], [`staunch_scoring`], [`crate::session`]) and what is done with
//! it ([`crate::pipeline`]). Pure: [`Policy::decide`] changes nothing, so `explain` and the live path are the same
//! code; [`Policy::commit`] writes down what was done. Monitor, canary share and enforce part in [`Decision::new`]
//! and nowhere else.

mod commit;
mod decision;
mod decoy;
mod opens;
mod packs;
mod permit;
mod refusal;

use staunch_scoring::{
    Assessment, Band, Bits, Facts, GroupFacts, LedgerScope, Listing, NameBuf, NameRef, Scorer, Split,
};

use crate::event::{RuleRef, Verdict};
use crate::lists::{Action, Allowance, DenyMatch, Found, Grants, Lists, Reach, RuleMatch, Ruled, Scope, Trials};
use crate::model::{Mode, Now, Qtype, Reason, Wall};
use crate::rpz;
use crate::session::{Context, Inner, TUNNEL_TYPE_NAMES};
use crate::wire::Query;

use decision::Judgement;
pub use decision::{AskZones, Decision};
pub use decoy::{Decoys, Suspect};
pub use opens::{Opens, Shut};
pub use permit::Permit;
pub use profile::{Profile, Profiles, Unlisted, Volume};
pub use refusal::{RefusalText, ede_of};

mod profile;
#[cfg(test)]
mod tests;

/// Under a tunnel-only type, a payload part worth at least this much closes the session at once; a shorter one on its
/// third distinct name.
///
/// Chosen without a source: above the median of benign names (35 bits), so that a slip of the finger (`dig NULL
/// example.com`) is refused and nothing more.
const TUNNEL_PAYLOAD: Bits = Bits::whole(64);

/// What sources get that nobody announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnknownSource {
    /// A refusal with EDE 18.
    Refuse,
    /// The `unannounced` profile.
    Profile,
}

/// One policy in force: immutable, swapped as a whole.
pub struct Policy {
    /// Rules, deny lists and registration days.
    pub lists: Lists,
    /// Profiles by type and phase.
    pub profiles: Profiles,
    /// How far verdicts are applied.
    pub mode: Mode,
    /// Share of sessions enforced in canary mode, 1..=99.
    pub canary_percent: u8,
    /// What unknown sources get.
    pub unknown_source: UnknownSource,
    /// The scorer.
    pub scorer: Scorer,
    /// When a random sibling is asked in place of a name.
    pub decoy: crate::decoy::Config,
}

/// One question put to policy.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// The parsed query.
    pub query: &'a Query<'a>,
    /// Both clocks.
    pub now: Now,
    /// The name's owners.
    pub split: Split,
    /// Whether the answer is at hand, so that nothing would leave.
    pub cached: bool,
    /// Whether an expired answer is at hand, for a query that is held.
    pub at_hand: bool,
    /// Days since the registrable domain was registered, as its registry says; `None` where that is not known. Lists
    /// are asked by policy itself.
    pub registered_days: Option<f32>,
    /// Days since this deployment first saw the registrable domain; `None` while warming up.
    pub first_seen_days: Option<f32>,
    /// Days since the session's group first asked for the registrable domain; `None` without a group.
    pub group_seen_days: Option<f32>,
    /// What the session's group knows and has spent; `None` without a group.
    pub group: Option<GroupFacts>,
    /// Runtime allowances.
    pub grants: &'a Grants,
    /// Response policy zones; `None` where none is to be asked.
    pub rpz: Option<AskZones<'a>>,
    /// Keyed hash of the full name.
    pub name_hash: u64,
}

impl Policy {
    /// The mode a session is under: monitor or enforce, canary resolved by its cohort.
    pub fn mode_of(&self, context: &Context) -> Mode {
        self.resolve(self.mode, context)
    }

    fn resolve(&self, mode: Mode, context: &Context) -> Mode {
        match mode {
            Mode::Canary if context.cohort < self.canary_percent => Mode::Enforce,
            Mode::Canary => Mode::Monitor,
            other => other,
        }
    }

    /// The rules that decide nothing for an enforced session: it is judged as if they were not written, and what they would
    /// refuse is only recorded.
    fn trials(&self, context: &Context) -> Trials {
        if self.mode_of(context) != Mode::Enforce {
            return Trials::NONE;
        }
        let on_trial = |mode: &Mode| self.resolve(*mode, context) == Mode::Monitor;
        [Mode::Monitor, Mode::Canary].into_iter().filter(on_trial).fold(Trials::NONE, Trials::with)
    }

    /// What rules and lists say of a name to a session.
    fn look_up(&self, context: &Context, name: NameRef<'_>, wall: Wall) -> Found<'_> {
        let scope = Scope::of(context.kind(), context.phase());
        self.lists.look_up(name, scope, wall, self.trials(context))
    }

    /// What rules alone say of a name to a session.
    fn rules_of(&self, context: &Context, name: NameRef<'_>, wall: Wall) -> Ruled<'_> {
        let scope = Scope::of(context.kind(), context.phase());
        self.lists.rules.look_up(name, scope, wall, self.trials(context))
    }

    /// Judges one query of a session. Changes nothing.
    pub fn decide<'a>(&'a self, context: &Context, inner: &Inner, ask: &Ask<'a>) -> Decision<'a> {
        let qname = ask.query.qname.as_ref();
        let split = ask.split;
        let profile = self.profiles.of(context.kind(), context.phase());
        let session_mode = self.mode_of(context);
        let scope = Scope::of(context.kind(), context.phase());
        let found = self.look_up(context, qname, ask.now.wall);
        let Ruled { in_force, on_trial } = found.rules;
        let grant = ask.grants.look_up(qname, &context.announcement.id, ask.now.wall.steady);
        // A pack speaks only of what would be scored: it opens nothing that is closed.
        let scored = grant.is_none() && in_force.is_none() && found.deny.is_none();
        let packed = scored && profile.has_packs();
        let pack = found.pack.filter(|hit| packed && packs::knows(hit.rule, ask.query.qtype) && is_host_name(qname));
        // What a person wrote for this place, or allowed just now, goes before what zones say of a name.
        let named = ask.rpz.filter(|_| grant.is_none() && in_force.is_none());
        let tcp = named.is_some_and(|rpz| rpz.tcp);
        let named = named.map_or_else(rpz::Named::default, |rpz| rpz.zones.question(qname, rpz.client));
        let passed = named.hit.filter(|hit| hit.action.lets_pass(tcp));
        let rewritten = named.hit.filter(|_| passed.is_none());
        let vouched = passed.filter(|hit| hit.zone.settings.trusted && hit.action == rpz::Action::Passthru);
        // Of two dates the later one counts, and what was seen under an earlier registration says nothing of this one.
        let listed_days = self.lists.age.days(split.icann(qname), ask.now.wall.steady);
        let registered_days = younger(listed_days, ask.registered_days);
        let facts = Facts {
            now: ask.now.mono,
            qname,
            // Under a pack's name a platform is always one owner.
            split: match pack.is_some() || packs::covers_tenants(qname, split, grant, in_force) {
                true => split.whole(),
                false => split,
            },
            qtype: ask.query.qtype.0,
            flags: u8::from(ask.query.edns.is_some_and(|edns| edns.dnssec_ok))
                | u8::from(ask.query.checking_disabled) << 1,
            qtypes_allowed: profile.qtypes.len().min(255) as u8,
            listing: match vouched {
                Some(_) if scored && profile.unlisted == Unlisted::Score => {
                    Listing::Below { budget: profile.budgets.tenant }
                }
                _ => self.listing(profile, ask, grant, in_force, pack),
            },
            registered_days,
            first_seen_days: ask.first_seen_days.and_then(|days| younger(Some(days), registered_days)),
            group_seen_days: ask.group_seen_days.and_then(|days| younger(Some(days), registered_days)),
            group: ask.group,
            cached: ask.cached,
            at_hand: ask.at_hand,
            budgets: &profile.budgets,
            params: &profile.params,
        };
        let assessment = self.scorer.assess(&inner.score, &facts);
        let granted = grant.map(Allowance::reference);
        let mut judgement = self.judge(
            context,
            inner,
            ask,
            profile,
            granted,
            in_force,
            found.deny,
            pack,
            (rewritten, vouched),
            &facts,
            &assessment,
        );
        // A rule that is enforced ahead of a monitored session applies to the refusals it makes itself.
        let mode = match in_force.and_then(|hit| hit.rule.mode) {
            Some(mode) if judgement.by_rule => self.resolve(mode, context),
            _ => session_mode,
        };
        let applied = judgement.would;
        if judgement.would == Verdict::Answer
            && let Some(hit) = on_trial.filter(|hit| hit.rule.action == Action::Deny && grant.is_none())
        {
            judgement = Judgement::refuse(Reason::DenyRule, Some(hit.reference()));
        }
        let opens = opens::of(profile, grant, in_force.filter(|hit| hit.rule.action == Action::Allow), pack.is_some());
        let rpz = if judgement.reason == Some(Reason::Rpz) { rewritten } else { passed };
        let closed = inner.is_closed();
        let mut decision =
            Decision::new(judgement, applied, mode, closed, split, assessment, facts, opens, ask.query, scope);
        (decision.rpz, decision.rpz_logged) = (rpz, named.logged);
        decision
    }

    /// What the scorer is told of rules and grants.
    fn listing(
        &self,
        profile: &Profile,
        ask: &Ask<'_>,
        grant: Option<&Allowance>,
        hit: Option<RuleMatch<'_>>,
        pack: Option<RuleMatch<'_>>,
    ) -> Listing {
        // The choice of a name from a fixed list costs log2 of the list, whatever the name.
        let exact = Listing::Exact { of: self.lists.rules.exact_allowed().saturating_add(ask.grants.len() as u32) };
        match (grant, hit) {
            (Some(grant), _) if grant.form.reach == Reach::Exact => exact,
            (Some(_), _) => Listing::Below { budget: profile.budgets.tenant },
            (None, Some(hit)) if hit.rule.action == Action::Deny => Listing::Unlisted,
            (None, Some(hit)) if hit.reach == Reach::Exact => exact,
            (None, Some(hit)) => Listing::Below { budget: hit.rule.budget },
            // Exact names of a pack too: they are charged against its budget, not as a choice among our own names.
            (None, None) => pack.map_or(Listing::Unlisted, |hit| Listing::Below { budget: hit.rule.budget }),
        }
    }

    /// The order of judgement, cheapest and firmest first.
    #[allow(clippy::too_many_arguments)]
    fn judge(
        &self,
        context: &Context,
        inner: &Inner,
        ask: &Ask<'_>,
        profile: &Profile,
        granted: Option<RuleRef>,
        hit: Option<RuleMatch<'_>>,
        denied: Option<DenyMatch<'_>>,
        pack: Option<RuleMatch<'_>>,
        (rewritten, vouched): (Option<rpz::Hit<'_>>, Option<rpz::Hit<'_>>),
        facts: &Facts<'_>,
        assessment: &Assessment,
    ) -> Judgement {
        let (qname, qtype) = (facts.qname, ask.query.qtype);
        // A mark that was made in monitor mode means nothing to a session that is enforced now.
        let monitored = self.mode_of(context) == Mode::Monitor;
        if inner.is_closed() || (monitored && inner.quarantine.is_some()) {
            return Judgement::refuse(Reason::Quarantined, None);
        }
        if !context.announced && self.unknown_source == UnknownSource::Refuse {
            return Judgement::refuse(Reason::UnknownSource, None);
        }
        let allowed = match (granted, hit) {
            (Some(rule), _) => Some((rule, &[][..])),
            (None, Some(hit)) if hit.rule.action == Action::Deny => {
                let mut refusal = Judgement::refuse(Reason::DenyRule, Some(hit.reference()));
                refusal.nodata = self.allows_below(ask.grants, qname, ask.now.wall);
                refusal.by_rule = true;
                return refusal;
            }
            (None, Some(hit)) => Some((hit.reference(), &hit.rule.qtypes[..])),
            (None, None) => None,
        };
        if qtype.is_tunnel_only() {
            let known = inner.tunnel_names_with(ask.name_hash);
            let mut judgement = if known >= TUNNEL_TYPE_NAMES || assessment.information >= TUNNEL_PAYLOAD {
                Judgement::quarantine(Reason::TypeNotAllowed, None)
            } else {
                Judgement::refuse(Reason::TypeNotAllowed, None)
            };
            judgement.nodata = judgement.would == Verdict::Sinkhole;
            judgement.tunnel_name = Some(ask.name_hash);
            return judgement;
        }
        let type_allowed = profile.qtypes.binary_search(&qtype).is_ok()
            || allowed.as_ref().is_some_and(|(_, qtypes)| qtypes.contains(&qtype));
        if let Some((rule, _)) = allowed {
            if !type_allowed {
                let mut refusal = Judgement::refuse(Reason::TypeNotAllowed, Some(rule));
                refusal.nodata = true;
                return refusal;
            }
            if assessment.band == Band::Hold {
                return Judgement { by_rule: true, ..Judgement::hold(Some(rule)) };
            }
            // A rule goes before the score, never before the ledger.
            return match assessment.overdraw {
                Some(scope) => Judgement { by_rule: true, ..Judgement::refuse(overdrawn(scope), Some(rule)) },
                None => Judgement::answer(Some(rule)),
            };
        }
        // A profile that answers only what rules allow is not widened by a zone's own answers.
        if let Some(hit) = rewritten
            && (hit.action != rpz::Action::Local || profile.unlisted == Unlisted::Score)
        {
            let mut refusal = Judgement::refuse(Reason::Rpz, Some(hit.reference()));
            refusal.nodata = hit.action == rpz::Action::Nodata
                || (hit.action == rpz::Action::Nxdomain && self.allows_below(ask.grants, qname, ask.now.wall));
            return refusal;
        }
        if let Some(entry) = denied {
            let mut refusal = Judgement::refuse(Reason::DenyList, Some(entry.reference()));
            refusal.nodata = self.allows_below(ask.grants, qname, ask.now.wall);
            return refusal;
        }
        if profile.unlisted == Unlisted::Refuse {
            let mut refusal = Judgement::refuse(Reason::NotAllowed, None);
            refusal.nodata = self.allows_below(ask.grants, qname, ask.now.wall);
            return refusal;
        }
        if let Some(hit) = vouched {
            let rule = Some(hit.reference());
            if !type_allowed {
                return Judgement { nodata: true, ..Judgement::refuse(Reason::TypeNotAllowed, rule) };
            }
            if assessment.band == Band::Hold {
                return Judgement::hold(rule);
            }
            // As with a rule: before the score, never before the ledger.
            return match assessment.overdraw {
                Some(scope) => Judgement::refuse(overdrawn(scope), rule),
                None => Judgement::answer(rule),
            };
        }
        let known = pack.map(|hit| hit.reference());
        // Packs share one limit, so that many entries tell no more than one.
        let spent = pack.is_some() && packs::overdraws(profile, inner, assessment);
        let reason = match assessment.overdraw {
            Some(scope) => overdrawn(scope),
            None if spent => Reason::LedgerSession,
            None => Reason::Score,
        };
        if assessment.band == Band::Quarantine {
            return Judgement::quarantine(reason, known);
        }
        // With the packs' limit spent, a name that was told before tells nothing by being answered from memory.
        let held = assessment.band == Band::Hold
            || (spent && assessment.charge.repeat && assessment.overdraw.is_none() && assessment.band < Band::Sinkhole);
        if !held && (assessment.band == Band::Sinkhole || assessment.overdraw.is_some() || spent) {
            let mut refusal = Judgement::refuse(reason, known);
            refusal.nodata = self.allows_below(ask.grants, qname, ask.now.wall);
            return refusal;
        }
        if !type_allowed {
            let mut refusal = Judgement::refuse(Reason::TypeNotAllowed, None);
            refusal.nodata = true;
            return refusal;
        }
        if (qtype.is_host_type() && !is_host_name(qname)) || crate::decoy::is_stand_in(qname) {
            return Judgement::refuse(Reason::BadHostName, None);
        }
        // Last: what policy refuses is not shown from memory either.
        if held { Judgement::hold(known) } else { Judgement::answer(known) }
    }

    /// Whether a rule or a grant allows some name strictly below `name`.
    pub fn allows_below(&self, grants: &Grants, name: NameRef<'_>, wall: Wall) -> bool {
        self.lists.rules.allows_below(name) || grants.allows_below(name, wall.steady)
    }

    /// What refuses an answer for an alias on its chain: a list entry or deny rule that names a hop. `None` too where
    /// a grant names the question or the hop, or an allow rule the hop. The mode is the one to apply: of all that names a hop
    /// the first that is enforced, else the first.
    pub fn denied_hop(
        &self,
        context: &Context,
        grants: &Grants,
        qname: NameRef<'_>,
        hops: &[NameBuf],
        wall: Wall,
    ) -> Option<(Reason, RuleRef, Mode)> {
        let session = &context.announcement.id;
        if hops.is_empty() || grants.look_up(qname, session, wall.steady).is_some() {
            return None;
        }
        let mode = self.mode_of(context);
        let by_rule = |hit: RuleMatch<'_>| {
            let mode = hit.rule.mode.map_or(mode, |m| self.resolve(m, context));
            (hit.rule.action == Action::Deny).then(|| (Reason::DenyRule, hit.reference(), mode))
        };
        let denials = hops.iter().map(NameBuf::as_ref).filter_map(|hop| {
            if grants.look_up(hop, session, wall.steady).is_some() {
                return None;
            }
            let found = self.look_up(context, hop, wall);
            let in_force = match (found.rules.in_force, found.deny) {
                (Some(hit), _) => by_rule(hit),
                (None, Some(entry)) => Some((Reason::DenyList, entry.reference(), mode)),
                (None, None) => None,
            };
            in_force.or_else(|| found.rules.on_trial.and_then(by_rule))
        });
        let mut recorded = None;
        for denial in denials {
            if denial.2 == Mode::Enforce {
                return Some(denial);
            }
            recorded.get_or_insert(denial);
        }
        recorded
    }

    /// Whether a rule in force or a grant allows a name that would otherwise be answered locally.
    pub fn allows(&self, context: &Context, grants: &Grants, qname: NameRef<'_>, wall: Wall) -> bool {
        self.is_written(context, grants, qname, wall, false)
    }

    /// Leave to ask a question of a session again that was held, on the resolver's own clock and for nobody's waiting.
    /// None where policy would refuse it by now, or holds nothing back from the session any more.
    pub fn permit_refresh<'a>(&'a self, context: &Context, inner: &Inner, ask: &Ask<'a>) -> Option<Permit> {
        let decision = self.decide(context, inner, ask);
        let dnssec_ok = ask.query.edns.is_some_and(|edns| edns.dnssec_ok);
        let is_shown = matches!(decision.applied, Verdict::Answer | Verdict::Hold);
        (is_shown && decision.mode == Mode::Enforce)
            .then(|| Permit::new(decision.facts.qname, ask.query.qtype, dnssec_ok, ask.query.checking_disabled))
    }

    /// Leave to ask a question again before its answer ends, on the resolver's own clock. Only of a name that a rule, a
    /// grant or a pack names, and where policy would answer the session without a word.
    pub fn permit_prefetch<'a>(&'a self, context: &Context, inner: &Inner, ask: &Ask<'a>) -> Option<Permit> {
        let mut decision = self.decide(context, inner, ask);
        let is_plain = decision.applied == Verdict::Answer && decision.would == Verdict::Answer;
        if is_plain && decision.facts.listing != Listing::Unlisted { decision.take_permit() } else { None }
    }
}

fn overdrawn(scope: LedgerScope) -> Reason {
    match scope {
        LedgerScope::Tenant => Reason::LedgerTenant,
        LedgerScope::Icann => Reason::LedgerIcann,
        LedgerScope::Session => Reason::LedgerSession,
        LedgerScope::Group => Reason::LedgerGroup,
    }
}

/// The smaller of two ages in days, as far as they are known.
fn younger(a: Option<f32>, b: Option<f32>) -> Option<f32> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (known, None) | (None, known) => known,
    }
}

/// Letters, digits, hyphen and underscore in every label (RFC 952, RFC 1123 section 2.1, RFC 8552), with `*` alone as
/// the leftmost label left to zone owners, not to stubs.
fn is_host_name(name: NameRef<'_>) -> bool {
    name.labels().all(|label| label.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')))
}

impl Qtype {
    /// Types that no honest stub asks for and tunnels like: NULL (RFC 1035 section 3.3.10), KEY (RFC 3445 limits it to
    /// DNSSEC's past) and the private-use range (RFC 6895 section 3.1).
    pub fn is_tunnel_only(self) -> bool {
        matches!(self.0, 10 | 25 | 65280..=65534)
    }

    /// Types whose owner must be a host name.
    pub fn is_host_type(self) -> bool {
        matches!(self, Self::A | Self::AAAA)
    }
}
