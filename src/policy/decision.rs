//! One verdict and all that led to it; the one place where modes part.

use std::net::IpAddr;

use staunch_scoring::{Assessment, Bits, Facts, Outcome, Split};

use super::{Opens, Permit};
use crate::event::{RuleRef, Verdict};
use crate::lists::Scope;
use crate::model::{Mode, Reason};
use crate::rpz;
use crate::wire::Query;

/// Response policy zones and what they are asked by.
#[derive(Debug, Clone, Copy)]
pub struct AskZones<'a> {
    /// The zones.
    pub zones: &'a rpz::Snapshot,
    /// Where the question comes from.
    pub client: IpAddr,
    /// Whether it came over TCP.
    pub tcp: bool,
}

/// What is to be done with a query, and all that led to it.
#[derive(Debug)]
pub struct Decision<'a> {
    /// What is done.
    pub applied: Verdict,
    /// What enforce mode does.
    pub would: Verdict,
    /// Monitor or enforce, canary resolved.
    pub mode: Mode,
    /// Why, where `would` is not an answer.
    pub reason: Option<Reason>,
    /// The rule or list that decided or allowed.
    pub rule: Option<RuleRef>,
    /// Whether the refusal is NODATA, so that names below stay reachable (RFC 8020).
    pub nodata: bool,
    /// The name's owners.
    pub split: Split,
    /// The score.
    pub assessment: Assessment,
    /// What the scorer was told; kept for the commit.
    pub facts: Facts<'a>,
    /// What an answer opens.
    pub opens: Opens<'a>,
    /// What response policy zones say of the question: refused for it, or let pass.
    pub rpz: Option<rpz::Hit<'a>>,
    /// What a disabled zone says of it.
    pub rpz_logged: Option<rpz::Hit<'a>>,
    permit: Option<Permit>,
    pub(super) tunnel_name: Option<u64>,
    pub(super) scope: Scope,
}

/// The verdict of enforce mode before the mode is applied.
pub(super) struct Judgement {
    pub(super) would: Verdict,
    pub(super) reason: Option<Reason>,
    pub(super) rule: Option<RuleRef>,
    /// Whether a rule itself refuses, so that its own mode applies.
    pub(super) by_rule: bool,
    pub(super) nodata: bool,
    pub(super) tunnel_name: Option<u64>,
}

impl Judgement {
    pub(super) fn answer(rule: Option<RuleRef>) -> Self {
        Self { would: Verdict::Answer, reason: None, rule, by_rule: false, nodata: false, tunnel_name: None }
    }

    pub(super) fn refuse(reason: Reason, rule: Option<RuleRef>) -> Self {
        Self { would: Verdict::Sinkhole, reason: Some(reason), ..Self::answer(rule) }
    }

    pub(super) fn hold(rule: Option<RuleRef>) -> Self {
        Self { would: Verdict::Hold, nodata: true, ..Self::refuse(Reason::Held, rule) }
    }

    pub(super) fn quarantine(reason: Reason, rule: Option<RuleRef>) -> Self {
        Self { would: Verdict::Quarantine, ..Self::refuse(reason, rule) }
    }
}

impl<'a> Decision<'a> {
    /// The one place where monitor mode, the canary share and enforce mode part. `in_force`: the verdict of everything
    /// that is not on trial. `closed`: an applied quarantine, which is final in every mode.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn new(
        judgement: Judgement,
        in_force: Verdict,
        mode: Mode,
        closed: bool,
        split: Split,
        assessment: Assessment,
        facts: Facts<'a>,
        opens: Opens<'a>,
        query: &Query<'_>,
        scope: Scope,
    ) -> Self {
        let applied = if mode == Mode::Enforce || closed { in_force } else { Verdict::Answer };
        let dnssec_ok = query.edns.is_some_and(|edns| edns.dnssec_ok);
        let permit = (applied == Verdict::Answer)
            .then(|| Permit::new(facts.qname, query.qtype, dnssec_ok, query.checking_disabled));
        Self {
            applied,
            would: judgement.would,
            mode,
            reason: judgement.reason,
            rule: judgement.rule,
            nodata: judgement.nodata,
            split,
            assessment,
            facts,
            opens,
            rpz: None,
            rpz_logged: None,
            permit,
            tunnel_name: judgement.tunnel_name,
            scope,
        }
    }

    /// The leave to forward, where the applied verdict is an answer. Can be taken once.
    pub fn take_permit(&mut self) -> Option<Permit> {
        self.permit.take()
    }

    /// Whether it changes nothing that a verdict rests on, so that it stands for the same question as long as nothing else does:
    /// an answer that is at hand, or a refusal that policy makes of what is written alone.
    pub fn may_stand(&self, cached: bool) -> bool {
        let written = matches!(
            self.reason,
            Some(
                Reason::DenyRule | Reason::DenyList | Reason::NotAllowed | Reason::TypeNotAllowed | Reason::BadHostName
            )
        );
        let lasting = match self.would {
            Verdict::Answer => cached,
            Verdict::Sinkhole => written,
            Verdict::Hold | Verdict::Quarantine => false,
        };
        lasting && self.applied == self.would && self.tunnel_name.is_none()
    }

    /// Whether it tells against the session: it is refused, or in monitor mode would be. What a rule on trial would refuse of an
    /// enforced session is answered and recorded, and nothing more.
    pub fn tells_against(&self) -> bool {
        let on_trial = self.mode == Mode::Enforce && self.applied == Verdict::Answer;
        self.would != Verdict::Answer && !on_trial
    }

    /// Whether it is to wait a random moment before it leaves.
    pub fn is_slow(&self) -> bool {
        self.mode == Mode::Enforce && self.assessment.slow
    }

    /// What is booked with this outcome: nothing for what does not leave, and for a held name its part in what is asked
    /// again.
    pub fn booked(&self, outcome: Outcome) -> Bits {
        let assessment = &self.assessment;
        match (outcome, assessment.refresh) {
            (Outcome::Forwarded, _) => assessment.charge.session.max(assessment.charge.name),
            (Outcome::Held { refreshed: true, entered: true }, Some(refresh)) => refresh.plus(assessment.enter),
            (Outcome::Held { refreshed: true, entered: false }, Some(refresh)) => refresh,
            _ => Bits::ZERO,
        }
    }
}
