//! Refusals: the cases of the synchronous half's, and what is written of all of them.

use std::net::IpAddr;
use std::time::Instant;

use staunch_scoring::Split;

use super::{Deferred, Live, Pipeline, Walk};
use crate::event::{RuleRef, Source, Verdict};
use crate::listen::Fast;
use crate::model::{CaseId, Mode, Now, Qtype, Reason, Transport};
use crate::policy::{Decision, RefusalText, ede_of};
use crate::reply::{self, Refusal};
use crate::session::Inner;
use crate::telemetry::Record;
use crate::wire::Query;

impl Pipeline {
    /// The case of a refusal: one for each tenant of a session and what all of its names have in common, so that every refusal
    /// of a name, of whatever type, tells the same story; a closed session's is that of its quarantine.
    pub(super) fn case(&self, inner: &mut Inner, decision: &Decision<'_>, key: u64, now: Now) -> (Reason, CaseId) {
        let reason = decision.reason.unwrap_or(Reason::Score);
        if let (Reason::Quarantined, Some(quarantine)) = (reason, &inner.quarantine) {
            return (reason, quarantine.case);
        }
        let tenant_wide = |reason| matches!(reason, Reason::Score | Reason::LedgerTenant | Reason::LedgerIcann);
        // TXT is where a stub without EDNS reads why a name was refused, whether or not the type is answered otherwise.
        let asks_why = reason == Reason::TypeNotAllowed && decision.facts.qtype == Qtype::TXT.0;
        // What a rule or list says of one name, on trial or not, is no reason to refuse another.
        if (tenant_wide(reason) || asks_why)
            && let Some(known) = inner.known_case(key, |known| asks_why || tenant_wide(known))
        {
            return known;
        }
        let key = if reason == Reason::TypeNotAllowed { self.hash((key, "type")) } else { key };
        (reason, inner.case_for(key, reason, self.fresh_case(key, now.wall)))
    }

    /// Notes that policy refuses a question that was judged otherwise before it left, or in monitor mode would; gives the case.
    pub(super) fn note_refusal(
        &self,
        walk: &mut Walk,
        query: &Query<'_>,
        reason: Reason,
        rule: Option<RuleRef>,
        now: Now,
    ) -> CaseId {
        {
            let mut inner = walk.session.inner.lock();
            inner.counts.refused += 1;
            inner.watched = true;
            inner.sample(query.qname.as_ref());
        }
        self.note_reason(walk, query, reason, rule, now)
    }

    /// Notes for the record alone what would refuse a question; gives the case.
    pub(super) fn note_reason(
        &self,
        walk: &mut Walk,
        query: &Query<'_>,
        reason: Reason,
        rule: Option<RuleRef>,
        now: Now,
    ) -> CaseId {
        let key = self.hash((walk.session.id(), walk.record.split.tenant(query.qname.as_ref())));
        let case = walk.session.inner.lock().case_for(key, reason, self.fresh_case(key, now.wall));
        walk.record.would = Verdict::Sinkhole;
        walk.record.reason = Some(reason);
        walk.record.rule = rule;
        walk.record.case = Some(case);
        case
    }

    /// Writes the refusal that a decision asks for, which is NODATA where `nodata` says so.
    pub(super) fn refuse(&self, live: &Live, query: &Query<'_>, nodata: bool, record: &mut Record, out: &mut Vec<u8>) {
        let reason = record.reason.unwrap_or(Reason::Score);
        let case = record.case.unwrap_or_else(|| self.fresh_case(0, record.wall));
        let text = RefusalText::new(reason, case, live.sinkhole.contact.as_deref());
        let page = live.sinkhole.page_for(query.qtype, nodata, Some(reason));
        if !page.is_empty() {
            record.rcode = 0;
            reply::sinkhole_address(out, query, page, live.sinkhole.negative_ttl, ede_of(reason), text.as_str());
            return;
        }
        let refusal = Refusal {
            rcode: if nodata || live.sinkhole.has_page(reason) { 0 } else { 3 },
            soa_owner: record.split.icann(query.qname.as_ref()),
            negative_ttl: live.sinkhole.negative_ttl,
            ede: ede_of(reason),
            text: text.as_str(),
            txt: reason != Reason::TypeNotAllowed,
        };
        record.rcode = u16::from(refusal.rcode);
        reply::refusal(out, query, &refusal);
    }

    #[allow(clippy::too_many_arguments)]
    pub(super) fn refuse_stranger(
        &self,
        live: &Live,
        query: &Query<'_>,
        from: IpAddr,
        transport: Transport,
        now: Now,
        started: Instant,
        out: &mut Vec<u8>,
    ) -> Fast<Deferred> {
        if transport == Transport::Udp && !self.pace.answers(from, now.mono) {
            return Fast::Drop;
        }
        let qname = query.qname.as_ref();
        let split = Split::of(qname);
        let case = CaseId::from_random(self.hash(("stranger", from)));
        let text = RefusalText::new(Reason::UnknownSource, case, live.sinkhole.contact.as_deref());
        let refusal = Refusal {
            rcode: 3,
            soa_owner: split.icann(qname),
            negative_ttl: live.sinkhole.negative_ttl,
            ede: ede_of(Reason::UnknownSource),
            text: text.as_str(),
            txt: true,
        };
        reply::refusal(out, query, &refusal);
        let record = Record {
            wall: now.wall.shown,
            context: live.stranger.clone(),
            address: from,
            transport,
            over: transport,
            qname: query.qname,
            qtype: query.qtype,
            split,
            mode: Mode::Enforce,
            verdict: Verdict::Sinkhole,
            would: Verdict::Sinkhole,
            reason: Some(Reason::UnknownSource),
            case: Some(case),
            rule: None,
            rpz: None,
            source: Source::Policy,
            decoy: None,
            rcode: 3,
            scored: None,
            pins: Vec::new(),
            shared: Vec::new(),
            withheld: Vec::new(),
            duration_us: 0,
            count: 1,
        };
        self.done(record, started)
    }
}

/// Refuses what [`Pipeline::note_refusal`] has noted: with NODATA where it is of this type alone (`of_type`), since stubs keep
/// NXDOMAIN for all types of a name, or where a name below is allowed (RFC 8020).
pub(super) fn refuse_by_policy(
    live: &Live,
    walk: &mut Walk,
    query: &Query<'_>,
    (reason, case, of_type): (Reason, CaseId, bool),
    now: Now,
    out: &mut Vec<u8>,
) {
    walk.record.verdict = Verdict::Sinkhole;
    walk.record.source = Source::Policy;
    let nodata = of_type || live.policy.allows_below(&live.grants.load(), query.qname.as_ref(), now.wall);
    refuse_with(live, walk, query, (reason, case, nodata), out);
}

/// Refuses a question of a session that is closed or has ended.
pub(super) fn refuse_as(live: &Live, inner: &Inner, walk: &mut Walk, query: &Query<'_>, out: &mut Vec<u8>) {
    if inner.ended {
        let case = walk.record.case.unwrap_or(CaseId::from_random(walk.wall));
        walk.record.reason = Some(Reason::UnknownSource);
        walk.record.case = Some(case);
        return refuse_with(live, walk, query, (Reason::UnknownSource, case, false), out);
    }
    let case = match &inner.quarantine {
        Some(quarantine) => quarantine.case,
        // Released in the same instant: the event's own case still explains it.
        None => walk.record.case.unwrap_or(CaseId::from_random(walk.wall)),
    };
    walk.record.case = Some(case);
    refuse_with(live, walk, query, (Reason::Quarantined, case, false), out);
}

/// Writes a refusal, with NODATA or NXDOMAIN.
pub(super) fn refuse_with(
    live: &Live,
    walk: &mut Walk,
    query: &Query<'_>,
    (reason, case, nodata): (Reason, CaseId, bool),
    out: &mut Vec<u8>,
) {
    let text = RefusalText::new(reason, case, live.sinkhole.contact.as_deref());
    let refusal = Refusal {
        rcode: if nodata { 0 } else { 3 },
        soa_owner: walk.record.split.icann(query.qname.as_ref()),
        negative_ttl: live.sinkhole.negative_ttl,
        ede: ede_of(reason),
        text: text.as_str(),
        txt: true,
    };
    walk.record.rcode = u16::from(refusal.rcode);
    walk.record.pins = Vec::new();
    reply::refusal(out, query, &refusal);
}
