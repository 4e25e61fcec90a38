//! Which questions are worth a decoy, and the permits for it.
//!
//! A decoy is judged and charged like any other query before it leaves: what it tells is that a name below this parent
//! was asked, by this type, now. The ledger books that under one fixed name below the parent ([`crate::decoy::stand_in`]);
//! which random label stood there is not the session's choice and tells nothing.

use staunch_scoring::model::Model;
use staunch_scoring::{Band, Bits, Charge, Facts, GroupFacts, Listing, NameRef, QName, Split};

use super::{Decision, Permit, Policy};
use crate::decoy::{self, RANDOM, TYPES};
use crate::event::Verdict;
use crate::model::{Mode, Now, Qtype};
use crate::session::{Context, Inner};

/// Most labels between the tenant and a sibling. Chosen without a source: real wildcards stand at the tenant or one
/// label below it, and the search for the parent stays short.
const MAX_LABELS: u8 = 4;

/// A question for which a sibling may stand in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Suspect<'a> {
    /// The siblings' parent.
    pub parent: NameRef<'a>,
    /// Whether the name is worth asking siblings for. One that is not is still answered where they are known to be
    /// answered alike.
    pub asks: bool,
}

/// Leave to ask two siblings below one parent, already charged.
#[derive(Debug)]
pub struct Decoys {
    /// One for each sibling. The second is only worth asking where the first was answered.
    pub permits: [Permit; 2],
    /// The name that both were booked under.
    pub booked_as: QName,
    /// What was booked.
    pub charge: Charge,
}

impl Decoys {
    /// What was booked, as the widest account of the session counts it.
    pub fn charged(&self) -> Bits {
        self.charge.session.max(self.charge.name)
    }
}

impl Policy {
    /// Whether a sibling may stand in for a question that would be forwarded now, and below which name: as close above it
    /// as can be told cheaply, at most the tenant. `None` where the question is no candidate.
    ///
    /// Candidates are unlisted names of ordinary form that are watched, or score, or are worth siblings where some were asked
    /// before; their first time only, since a name that was sent before is known outside.
    pub fn suspect<'a>(&self, inner: &Inner, decision: &Decision<'a>) -> Option<Suspect<'a>> {
        let (facts, assessment) = (&decision.facts, &decision.assessment);
        let answered = decision.applied == Verdict::Answer && decision.would == Verdict::Answer;
        let new = facts.listing == Listing::Unlisted && !facts.cached && !assessment.charge.repeat;
        // A client that validates (DO, CD) needs the proof that belongs to its own name.
        if !self.decoy.enabled || decision.mode != Mode::Enforce || !answered || !new || facts.flags != 0 {
            return None;
        }
        let watched = assessment.band >= Band::Watch;
        let suspicious = watched || assessment.score >= self.decoy.score;
        if !TYPES.iter().any(|qtype| qtype.0 == facts.qtype) || !is_ordinary(facts.qname, facts.split) {
            return None;
        }
        // What siblings are made of is no evidence, so a name that was held back once may not score any more when it comes again.
        let tenant_at = usize::from(facts.split.tenant_at);
        let is_asked = || (1..=tenant_at).any(|at| self.is_asked_below(inner, facts.qname.strip_left(at)));
        if !suspicious && !is_asked() {
            return None;
        }
        let parent = self.parent(inner, facts)?;
        let hides = Model::shipped().cost(facts.qname.payload_part(parent)) >= self.decoy.bits;
        // A host that is written beside a wildcard is not to get the wildcard's answer.
        let comes_again = || hides && self.is_asked_below(inner, parent);
        if !suspicious && !comes_again() {
            return None;
        }
        // Under a watched tenant more names will follow, for which the siblings of the first one hold.
        Some(Suspect { parent, asks: watched || hides })
    }

    /// The longest ancestor whose labels below the tenant are worth little or are known outside already.
    fn parent<'a>(&self, inner: &Inner, facts: &Facts<'a>) -> Option<NameRef<'a>> {
        let tenant_at = facts.split.tenant_at;
        let tenant = facts.qname.strip_left(usize::from(tenant_at));
        let mut best = (tenant_at > 0).then_some(tenant)?;
        for at in (1..tenant_at).rev().take(usize::from(MAX_LABELS)) {
            let ancestor = facts.qname.strip_left(usize::from(at));
            // Labels that begin with a digit number something (addresses in block lists): cheap, and payload all the same.
            let worded =
                ancestor.labels().next().is_some_and(|label| label.first().is_some_and(u8::is_ascii_alphabetic));
            let cheap = || Model::shipped().cost(ancestor.payload_part(tenant)) <= self.decoy.parent_bits;
            if (worded && cheap()) || self.is_sent(inner, ancestor) {
                best = ancestor;
            } else {
                break;
            }
        }
        Some(best)
    }

    /// Whether the session has sent `name`, or asked siblings below it.
    fn is_sent(&self, inner: &Inner, name: NameRef<'_>) -> bool {
        self.scorer.was_sent(&inner.score, name) || self.is_asked_below(inner, name)
    }

    /// Whether the session has asked siblings below `parent`.
    fn is_asked_below(&self, inner: &Inner, parent: NameRef<'_>) -> bool {
        decoy::stand_in(parent).is_some_and(|stand_in| self.scorer.was_sent(&inner.score, stand_in.as_ref()))
    }

    /// Charges and permits two siblings of a name that [`Policy::suspect`] finds worth it, judged on this same state.
    /// `None`, and nothing booked, where it does not, the ledger or the score would not have it, or a rule or list names a
    /// sibling.
    pub fn permit_decoys(
        &self,
        context: &Context,
        inner: &mut Inner,
        decision: &Decision<'_>,
        qtype: Qtype,
        now: Now,
        random: &[[u8; RANDOM]; 2],
    ) -> Option<Decoys> {
        let parent = self.suspect(inner, decision).filter(|suspect| suspect.asks)?.parent;
        let profile = self.profiles.of(context.kind(), context.phase());
        if !profile.answers(qtype) {
            return None;
        }
        let siblings = [decoy::sibling(parent, &random[0])?, decoy::sibling(parent, &random[1])?];
        let listed = |name: &QName| {
            let found = self.look_up(context, name.as_ref(), now.wall);
            found.rules.in_force.is_some() || found.rules.on_trial.is_some() || found.deny.is_some()
        };
        if siblings.iter().any(listed) {
            return None;
        }
        let stand_in = decoy::stand_in(parent)?;
        let facts = Facts {
            now: now.mono,
            qname: stand_in.as_ref(),
            split: Split::of(stand_in.as_ref()),
            qtype: qtype.0,
            // What the group knows was asked of the session's own name.
            group: decision.facts.group.map(|group| GroupFacts { known: false, ..group }),
            ..decision.facts
        };
        let assessment = self.scorer.assess(&inner.score, &facts);
        if assessment.overdraw.is_some() || assessment.band >= Band::Hold {
            return None;
        }
        self.scorer.commit_beside(&mut inner.score, &facts, &assessment);
        Some(Decoys {
            permits: siblings.map(|sibling| Permit::decoy(sibling.as_ref(), qtype)),
            booked_as: stand_in,
            charge: assessment.charge,
        })
    }
}

/// Whether a wildcard would answer for a name as for any other: no label of RFC 8552 left of the tenant, which wildcards
/// are not meant for, and not a reverse name (RFC 1035 section 3.5), which has a fixed form.
fn is_ordinary(name: NameRef<'_>, split: Split) -> bool {
    let reverse = name.as_wire().ends_with(b"\x04arpa\x00");
    !reverse && name.labels().take(usize::from(split.tenant_at)).all(|label| label.first() != Some(&b'_'))
}
