//! The walk of a query as far as it goes without waiting: judged, refused, answered from memory, or handed on.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use staunch_scoring::{Bits, Listing, Outcome, Split};

use super::finish::key_asked;
use super::rides::Ride;
use super::show::{show, shown};
use super::standing::{Basis, Said};
use super::{Deferred, Leave, Led, NO_COPY, Pipeline, Step, Walk, beyond, decoy, is_guarded, rewrite};
use crate::event::{Source, Verdict};
use crate::listen::Fast;
use crate::model::{Ede, Mode, Now, Qtype, Reason, Transport};
use crate::policy::{Ask, AskZones};
use crate::reply;
use crate::session::{Context, Held, Session};
use crate::telemetry::Record;
use crate::wire::Query;

impl Pipeline {
    /// The synchronous half of the walk. `waited`: since when, for a query that has waited for its domain's age. `again`:
    /// what became of a first walk that asked siblings. `led`: what has led here. `ride`: whether it may come along with the
    /// same question on its way, or has.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn walk(
        &self,
        query: &Query<'_>,
        packet: &[u8],
        from: IpAddr,
        transport: Transport,
        now: Now,
        waited: Option<Instant>,
        out: &mut Vec<u8>,
        again: Option<decoy::Again>,
        led: Led,
        ride: Ride,
    ) -> Fast<Deferred> {
        let aliased = led.aliased;
        let started = waited.unwrap_or_else(Instant::now);
        let live = self.live.load();
        let Some(session) = self.identify(&live, from, now) else {
            return self.refuse_stranger(&live, query, from, transport, now, started, out);
        };
        // Held from here until the charge is booked: a session's own questions are judged one behind the other, and what the
        // session is changes for the packet filter under it too.
        let mut inner = session.inner.lock();
        let context = session.context();
        let qname = query.qname.as_ref();
        let tenant_key = |split: &Split| self.hash((session.id(), split.tenant(qname)));
        let mut record = Record {
            wall: now.wall.shown,
            context: context.clone(),
            address: from,
            transport,
            over: led.over.unwrap_or(transport),
            qname: query.qname,
            qtype: query.qtype,
            split: Split::NONE,
            mode: live.policy.mode_of(&context),
            verdict: Verdict::Answer,
            would: Verdict::Answer,
            reason: None,
            case: None,
            rule: None,
            rpz: None,
            source: Source::Local,
            decoy: again.as_ref().and_then(|again| again.kind),
            rcode: 0,
            scored: None,
            pins: Vec::new(),
            shared: Vec::new(),
            withheld: Vec::new(),
            duration_us: 0,
            count: 1,
        };
        let deferred = |record, step| {
            let walk = Walk {
                packet: packet.into(),
                from,
                transport,
                wall: now.wall.shown,
                started,
                lasts: self.lasts(led, started),
                session: session.clone(),
                led,
                record,
            };
            Fast::Deferred(Deferred { walk: Box::new(walk), step })
        };

        let guarded = is_guarded(&live, &context);
        // An address that no pin could open is not asked for and not shown: nothing leaves, nothing is charged.
        let unreachable = guarded && context.cannot_reach(query.qtype);
        let grants = live.grants.load();
        let zones = live.rpz.load();
        // What never leaves is neither scored nor charged; a closed session gets not even that.
        if !inner.is_closed() {
            if live.zones.covers(qname) {
                record.source = Source::Zone;
                return deferred(record, Step::Zone);
            }
            if let Some(answer) = live.special(&grants, &context, &inner, query, now.wall) {
                drop(inner);
                record.rcode = u16::from(answer.rcode);
                reply::local(out, query, &answer.behind(&live.answers.nat64, qname, query.qtype));
                return self.done(record, started);
            }
            let tcp = transport == Transport::Tcp;
            if query.qtype == Qtype::ANY
                && (aliased || !rewrite::answers_any(&live, &zones, &context, &grants, qname, from, tcp, now))
            {
                drop(inner);
                reply::any_hinfo(out, query);
                return self.done(record, started);
            }
            // What could not be shown is not asked for: nothing leaves, nothing is charged.
            if guarded && !self.holds(&live, now) {
                drop(inner);
                record.source = Source::Failed;
                record.rcode = 2;
                record.reason = Some(Reason::NotPinned);
                reply::servfail(out, query, Ede::NotReady, self.gate.withheld());
                return self.done(record, started);
            }
            if record.mode == Mode::Enforce && zones.awaited().is_some() {
                drop(inner);
                record.source = Source::Failed;
                record.rcode = 2;
                reply::servfail(out, query, Ede::NotReady, NO_COPY);
                return self.done(record, started);
            }
        }

        let sharing = live.sharing_of(&context);
        let key = key_asked(query, sharing.partition);
        // Where nobody is to notice what others ask, an answer that this session has not waited for is not at hand.
        let view = self.view_in(&inner, sharing.private, key, now);
        let stood_in = again.as_ref().and_then(|again| again.entry.clone()).filter(|_| !unreachable);
        let source = if stood_in.is_some() { Source::Decoy } else { Source::Cache };
        let mut entry = if unreachable { None } else { stood_in.or_else(|| self.at_hand(key, view, now)) };
        let failure =
            if unreachable || entry.is_some() || !view.is_now() { None } else { self.cache.failure(key, now.mono) };
        // Where nobody can be asked nothing leaves, so nothing is charged, and there is nothing to hide.
        let is_asked = entry.is_none() && failure.is_none() && !unreachable;
        let down = if is_asked { self.down_for(qname, query.qtype, now) } else { None };
        let is_down = down.is_some();
        let failure = failure.or(down);
        if failure.is_some() {
            entry = self.last_known(&live, key, now.mono).filter(|_| view.is_ever());
        }
        let cached = entry.is_some() || failure.is_some() || unreachable;
        let old = live.repeats.hold_stale.as_millis() as u64;
        let stale =
            if cached && !is_down { None } else { self.cache.get_stale(key, now.mono, old).filter(|_| view.is_ever()) };
        // Past its share nothing leaves, so nothing is judged or booked. Who has waited already has its place, and a closed
        // session hears that it is closed.
        let asks = !cached && stale.is_none() && waited.is_none() && !inner.is_closed();
        if asks && self.shares.has_room(&session, &context, from, now.mono).is_err() {
            drop(inner);
            return self.refuse_share(&session, record, query, started, now, out);
        }
        // Where the same question is on its way and its answer would be shared, nothing leaves for this one.
        let question = if cached { 0 } else { self.hash((key, live.findings_of(&context))) };
        let tries = ride.tries();
        let (heard, along) = if cached { (None, None) } else { ride.with(&self.rides, question) };
        let told = cached || heard.is_some() || along.is_some();
        let split = Split::of(qname);
        let known = self.ages.known(&context, split.icann(qname), now.wall.steady);
        // Behind the session's lock, and until the charge is booked too: two sessions cannot both spend what is left.
        let group = if told { None } else { self.group_of(&context, now.wall.steady) };
        let mut ledger = group.as_ref().map(|group| group.ledger.lock());
        let ask = Ask {
            query,
            now,
            split,
            // In an outage a repeat past its allowance is still answered from memory, as a held one.
            cached: told && !(is_down && stale.is_some()),
            at_hand: stale.is_some(),
            registered_days: known.registered_days(now.wall.steady),
            first_seen_days: known.first_seen_days,
            group_seen_days: known.group_seen_days,
            group: ledger.as_ref().map(|ledger| ledger.facts(qname, now.wall.steady)),
            grants: &grants,
            rpz: (!aliased && !zones.is_empty()).then(|| AskZones {
                zones: &zones,
                client: from,
                tcp: transport == Transport::Tcp,
            }),
            name_hash: if query.qtype.is_tunnel_only() { self.hash(qname) } else { 0 },
        };
        let mut decision = live.policy.decide(&context, &inner, &ask);
        // Nothing leaves for ANY, whatever policy would have made of it.
        if query.qtype == Qtype::ANY && matches!(decision.applied, Verdict::Answer | Verdict::Hold) {
            drop(ledger);
            drop(inner);
            reply::any_hinfo(out, query);
            return self.done(record, started);
        }
        // One that has an answer of before is judged first, since it may be held; where it would leave it is as any other.
        let leaves = !told && decision.applied == Verdict::Answer;
        if leaves
            && stale.is_some()
            && waited.is_none()
            && self.shares.has_room(&session, &context, from, now.mono).is_err()
        {
            drop(ledger);
            drop(inner);
            return self.refuse_share(&session, record, query, started, now, out);
        }
        record.split = decision.split;
        record.mode = decision.mode;
        record.verdict = decision.applied;
        record.would = decision.would;
        record.reason = decision.reason;
        if let Some(along) = along
            && matches!(decision.applied, Verdict::Answer | Verdict::Hold)
        {
            // Nothing is written down yet: it is walked anew when it is known what became of the other one.
            drop(ledger);
            drop(inner);
            return deferred(record, Step::Along(along.after(again)));
        }
        if waited.is_none() && !is_down && self.ages.worth_waiting(&decision, now) {
            // Nothing is written down yet: it is judged, once, when the age is there or the time is up.
            drop(ledger);
            drop(inner);
            return deferred(record, Step::Age);
        }
        if again.is_none()
            && heard.is_none()
            && !is_down
            && decision.applied == Verdict::Answer
            && let Some(candidate) = self.decoy_candidate(&live, &inner, &decision, &mut record)
        {
            // Nothing is written down yet either: it is walked anew when its siblings have been heard.
            drop(ledger);
            drop(inner);
            return deferred(record, Step::Decoy(candidate));
        }
        // What somebody has to check before it is kept is over for nobody before that: it costs signatures.
        let whole = sharing.private || live.validator.is_some();
        let mut fare = None;
        if leaves {
            match self.rides.begin_or_join(question, whole, tries) {
                Ok(begun) => fare = begun,
                Err(along) => {
                    // Another worker has begun it since it was looked for, and nothing is written down yet.
                    drop(ledger);
                    drop(inner);
                    return deferred(record, Step::Along(along.after(again)));
                }
            }
        }
        record.rule = decision.rule.take();
        rewrite::note_question(&mut record, &decision);
        // What changes nothing that a verdict rests on is booked quietly, and may stand for the same question.
        let standing = waited.is_none() && again.is_none() && !aliased && decision.may_stand(cached);
        if decision.would != Verdict::Answer {
            let inner = if standing { inner.quietly() } else { &mut inner };
            let (reason, case) = self.case(inner, &decision, tenant_key(&decision.split), now);
            record.reason = Some(reason);
            record.case = Some(case);
        }
        if decision.applied == Verdict::Hold && entry.is_none() {
            entry = stale;
        }
        let outcome = match decision.applied {
            Verdict::Answer if told => Outcome::Cached,
            Verdict::Answer => Outcome::Forwarded,
            Verdict::Hold if cached => Outcome::Cached,
            Verdict::Hold => self.hold(&live, &session, &decision, key, now),
            Verdict::Sinkhole | Verdict::Quarantine => Outcome::Refused,
        };
        let is_held = matches!(outcome, Outcome::Held { .. });
        let empty = is_held && entry.is_none();
        let marks = inner.score.tenants_sinkholed();
        live.policy.commit(if standing { inner.quietly() } else { &mut inner }, &decision, outcome);
        inner.quietly().counts.refused += u64::from(empty);
        let mut step = None;
        if let Some(ledger) = &mut ledger
            && outcome == Outcome::Forwarded
            && decision.facts.listing == Listing::Unlisted
        {
            step = ledger.book(qname, decision.assessment.charge.group, now.wall.steady);
        }
        drop(ledger);
        let charged = decision.booked(outcome);
        if is_held && charged > Bits::ZERO {
            self.ledger_step(&session, &mut inner, charged);
        }
        let (permit, slow, nodata) = (decision.take_permit(), decision.is_slow(), decision.nodata);
        let opens = decision.opens;
        let rewritten = decision.rpz.filter(|_| record.reason == Some(Reason::Rpz));
        let for_siblings = again.as_ref().map_or(Bits::ZERO, |again| again.charged);
        record.scored = Some((decision.assessment, charged.plus(for_siblings)));

        match (record.verdict, outcome) {
            (Verdict::Quarantine, _) => {
                let pending = self.quarantine(&mut inner, &session, &record, now);
                drop(inner);
                record.source = Source::Policy;
                deferred(record, Step::Announce(pending))
            }
            (_, outcome) if outcome == Outcome::Refused || empty => {
                // A mark counts towards quarantine, so a restart must not take it back.
                if inner.score.tenants_sinkholed() != marks {
                    self.journal_ledger(&session, &mut inner);
                }
                let pending = if record.reason == Some(Reason::Quarantined) { inner.pending() } else { None };
                let basis = standing.then(|| Basis::new(inner.version(), &live, grants.version(), zones.version()));
                drop(inner);
                // Nothing to show, and what was heard last was a failure: no word on whether the name is there.
                if let Some(failed) = self.cache.last_failure(key).filter(|_| empty && view.is_ever()) {
                    record.source = Source::Failed;
                    record.rcode = 2;
                    reply::servfail(out, query, failed.ede, &failed.text);
                    return self.done(record, started);
                }
                record.source = Source::Policy;
                if let Some(pending) = pending {
                    return deferred(record, Step::Announce(Some(pending)));
                }
                if let Some(hit) = rewritten {
                    return match rewrite::at_once(&live, query, &hit, nodata, &mut record, out) {
                        Some(Fast::Drop) => {
                            self.done(record, started);
                            Fast::Drop
                        }
                        Some(_) => self.done(record, started),
                        None => deferred(record, Step::Rewrite(rewrite::Rewrite::of(&hit))),
                    };
                }
                if guarded && !live.sinkhole.page_for(query.qtype, nodata, record.reason).is_empty() {
                    return deferred(record, Step::Page);
                }
                self.refuse(&live, query, nodata, &mut record, out);
                record.duration_us = micros(started);
                let said = Said::Refusal(nodata);
                self.handed_over(query, &session, basis.map(|basis| (basis, said)), record, now)
            }
            (_, Outcome::Refused | Outcome::Cached | Outcome::Held { .. }) => {
                self.mark_monitored(&mut inner, &session, &context, &record, now);
                if unreachable {
                    drop(inner);
                    reply::no_data(out, query, split.icann(qname), live.sinkhole.negative_ttl);
                    return self.done(record, started);
                }
                if let (None, Some(_), Some(permit)) = (&entry, &heard, permit) {
                    drop(inner);
                    record.source = Source::Upstream;
                    let judged = (live.version, grants.version(), zones.version());
                    let leave = Leave { permit: permit.shared(sharing), judged, slow: false, fare: None, heard };
                    return deferred(record, Step::Forward(Box::new(leave)));
                }
                record.source = source;
                let Some(entry) = entry else {
                    drop(inner);
                    if is_down {
                        record.source = Source::Failed;
                    }
                    record.rcode = 2;
                    let (ede, text) = failure.as_ref().map_or((Ede::Other, ""), |failed| (failed.ede, &*failed.text));
                    reply::servfail(out, query, ede, text);
                    return self.done(record, started);
                };
                self.ages.note_cached(&record, &known, entry.answer.rcode, now);
                let denied = live.policy.denied_hop(&context, &grants, qname, &entry.hops, now.wall).is_some();
                let zones = zones.as_ref();
                let denied = denied
                    || (!aliased
                        && rewrite::says_anything(
                            &live, zones, &context, &grants, qname, from, transport, &entry, now,
                        ));
                let ends = entry.inside.is_none() && !beyond::leads(query, &entry);
                let held = !denied && ends && (!guarded || self.enforcer.healthy());
                let shown = held
                    .then(|| shown(&live, &context, inner.quietly(), &record, (&entry, &opens), view, now))
                    .flatten();
                // An answer past its time, or from a sibling, is judged each time.
                let stays = standing && source == Source::Cache && !entry.is_expired(now.mono);
                let basis = stays.then(|| Basis::new(inner.version(), &live, grants.version(), zones.version()));
                drop(inner);
                match shown {
                    Some(ttl) => {
                        show(out, query, &mut record, &entry, ttl, now);
                        record.duration_us = micros(started);
                        let said = basis.map(|basis| (basis, Said::Answer(entry, ttl)));
                        self.handed_over(query, &session, said, record, now)
                    }
                    None => deferred(record, Step::Pin(entry)),
                }
            }
            (_, Outcome::Forwarded) => {
                // Ahead of an alert, which says how much has left: with this question too.
                self.ledger_step(&session, &mut inner, charged);
                self.mark_monitored(&mut inner, &session, &context, &record, now);
                let fare = fare.or_else(|| self.rides.begin(question, whole));
                drop(inner);
                if let (Some(group), Some(state)) = (&group, step) {
                    self.journal_group(group, state, now.wall.steady);
                }
                record.source = Source::Upstream;
                match permit {
                    Some(permit) => {
                        let permit = permit.shared(sharing);
                        let judged = (live.version, grants.version(), zones.version());
                        deferred(record, Step::Forward(Box::new(Leave { permit, judged, slow, fare, heard: None })))
                    }
                    // An applied answer always carries its permit; were it otherwise, nobody is left without a word.
                    None => {
                        record.source = Source::Failed;
                        record.rcode = 2;
                        reply::servfail(out, query, Ede::Other, "no leave to ask; nothing was answered");
                        self.done(record, started)
                    }
                }
            }
        }
    }

    /// Writes down that enforce mode would have closed a session that is answered.
    pub(super) fn mark_monitored(
        &self,
        inner: &mut Held<'_>,
        session: &Arc<Session>,
        context: &Context,
        record: &Record,
        now: Now,
    ) {
        if record.would == Verdict::Quarantine {
            self.would_quarantine(inner, session, context, record, now);
        }
    }

    /// Closes the walk with its one event.
    pub(super) fn done(&self, mut record: Record, started: Instant) -> Fast<Deferred> {
        record.duration_us = micros(started);
        self.telemetry.record(record);
        Fast::Reply
    }

    /// The same for what may stand for the same question.
    fn handed_over(
        &self,
        query: &Query<'_>,
        session: &Arc<Session>,
        said: Option<(Basis, Said)>,
        record: Record,
        now: Now,
    ) -> Fast<Deferred> {
        match said {
            Some((basis, said)) => self.keep_standing(query, session, basis, said, record, now),
            None => self.telemetry.record(record),
        }
        Fast::Reply
    }
}

fn micros(since: Instant) -> u32 {
    u32::try_from(since.elapsed().as_micros()).unwrap_or(u32::MAX)
}
