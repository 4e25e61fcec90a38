//! The half of the walk that waits: an upstream, the packet filter's acknowledgement, the journal.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::Guard;
use staunch_scoring::Answered;
use tokio::time::Instant;

use super::pins::{CHANGED, Judged, Ordered, PIN_TRIES, asked, not_pinned, within_reach};
use super::private::is_whole;
use super::refusals::{refuse_by_policy, refuse_with};
use super::show::{show, ttl_of};
use super::{Deferred, Leave, Live, Pipeline, Step, Walk, beyond};
use crate::answer::{self, Asked, Kind, Vetted};
use crate::cache::{Entry, Key};
use crate::clock;
use crate::event::{Source, Verdict};
use crate::listen::Fast;
use crate::model::{CaseId, Ede, Mode, Now, Qtype, Reason, Transport};
use crate::partition::Partition;
use crate::pin::{self, Word};
use crate::policy::{Permit, RefusalText, Shut, ede_of};
use crate::ports::Ports;
use crate::reply;
use crate::session::Context;
use crate::wire::{self, Parsed, Query};

/// What is said of an answer that says nothing.
const UNUSABLE: &str = "the upstream's answer was not usable";

pub(super) fn key_of(permit: &Permit) -> Key<'_> {
    Key {
        qname: permit.qname(),
        qtype: permit.qtype(),
        dnssec_ok: permit.dnssec_ok(),
        checking_disabled: permit.checking_disabled(),
        partition: permit.sharing().partition,
    }
}

/// Under which a question as it was asked is kept.
pub(super) fn key_asked<'q>(query: &'q Query<'_>, partition: Partition) -> Key<'q> {
    Key {
        qname: query.qname.as_ref(),
        qtype: query.qtype,
        dnssec_ok: query.edns.is_some_and(|edns| edns.dnssec_ok),
        checking_disabled: query.checking_disabled,
        partition,
    }
}

/// What the score is told of an answer.
pub(super) fn answered(vetted: &Vetted) -> Answered {
    Answered { rcode: u16::from(vetted.answer.rcode), octets: vetted.data_octets }
}

/// Whether the guard has taken everything out of an answer.
pub(super) fn is_emptied(vetted: &Vetted) -> bool {
    vetted.kind == Kind::NoData && (!vetted.rebinding.is_empty() || vetted.internal_alias)
}

impl Pipeline {
    /// Finishes a deferred query; `None` only if the packet is no query, which `fast` has ruled out.
    pub(super) async fn complete(&self, deferred: Deferred) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(512);
        // What is rare has its room on the heap, for every query in the slow path holds room for all of what follows.
        let Deferred { mut walk, step } = match deferred.step {
            Step::Age => match Box::pin(self.with_age(deferred, &mut out)).await {
                Fast::Deferred(deferred) => deferred,
                Fast::Reply => return Some(out),
                Fast::Drop => return None,
            },
            Step::Forward(_) => {
                self.ask_age(&deferred.walk, clock::now());
                deferred
            }
            _ => deferred,
        };
        let packet = std::mem::take(&mut walk.packet);
        let Parsed::Query(query) = wire::parse(&packet) else { return None };
        match step {
            // `with_age` has settled it.
            Step::Age => return None,
            Step::Decoy(candidate) => return Box::pin(self.decoy(walk, &query, &packet, candidate)).await,
            Step::Forward(leave) => self.forward(&mut walk, &query, leave, &mut out).await,
            Step::Pin(entry) => self.release(&mut walk, &query, entry, &mut out).await,
            Step::Along(along) => return self.come_along(walk, &query, &packet, along).await,
            Step::Zone => Box::pin(self.zone(&mut walk, &query, &mut out)).await,
            Step::Page => Box::pin(self.page(&mut walk, &query, &mut out)).await,
            Step::Rewrite(rewrite) => Box::pin(self.rewrite_question(&mut walk, &query, &rewrite, &mut out)).await,
            Step::Announce(pending) => Box::pin(self.announce_refusal(&mut walk, &query, pending, &mut out)).await,
        }
        let Walk { record, started, .. } = *walk;
        self.done(record, started);
        // Silence, where a policy zone wants it.
        (!out.is_empty()).then_some(out)
    }

    async fn forward(&self, walk: &mut Walk, query: &Query<'_>, leave: Box<Leave>, out: &mut Vec<u8>) {
        let live = self.live.load_full();
        let permit = &leave.permit;
        let key = key_of(permit);
        if leave.slow {
            // Where nobody can be asked, the wait would hide nothing.
            if let Some(error) = self.forwarder.down_for(permit) {
                let (ede, text) = error.ede();
                return fail(walk, query, ede, &text, out);
            }
            Box::pin(walk.led.within(self.delays.wait(self.hash(key), live.repeats.jitter))).await;
        }
        // Held until the upstream has answered.
        let session = walk.session.clone();
        let turn = self.turn(&session, clock::now()).await;
        // Judged some time ago: what was closed meanwhile sends nothing any more.
        if session.inner.lock().is_closed() {
            return Box::pin(self.refuse_closed(walk, query, out)).await;
        }
        if let Some((live, Shut { reason, rule })) = self.shut_since(&leave, walk, query, clock::now()) {
            let case = self.note_refusal(walk, query, reason, rule, clock::now());
            let has_page = live.sinkhole.has_page(reason);
            return refuse_by_policy(&live, walk, query, (reason, case, has_page), clock::now(), out);
        }
        let live = self.live.load_full();
        // The same question may have been answered since this one was judged.
        let (now, begun) = (clock::now(), Instant::now());
        let private = permit.sharing().private;
        if let Some(entry) = self.cache.get(key, now.mono).filter(|entry| !private || is_whole(&live, entry, now)) {
            drop(turn);
            if private {
                Box::pin(self.as_if_asked(&live, walk, key, begun, entry.took)).await;
            }
            walk.record.source = Source::Cache;
            return self.release(walk, query, entry, out).await;
        }
        let stale = self.last_known(&live, key, now.mono).filter(|_| self.view(walk, private, key, now).is_ever());
        if let Some(failure) = self.cache.failure(key, now.mono).filter(|_| !private) {
            if let Some(stale) = stale {
                return Box::pin(self.release_stale(walk, query, stale, out)).await;
            }
            return fail(walk, query, failure.ede, &failure.text, out);
        }
        let until = self.patience(walk);
        let response = self.ask_upstream(walk, &leave, until, stale.is_some()).await;
        drop(turn);
        let response = match response {
            Ok(response) => response,
            Err(error) => {
                tracing::debug!(%error, "no upstream answered");
                let (ede, text) = error.ede();
                if error.has_left() && !walk.led.is_over() {
                    self.note_failure(&live, walk, key, ede, &text);
                }
                if let Some(stale) = stale {
                    return Box::pin(self.release_stale(walk, query, stale, out)).await;
                }
                return fail(walk, query, ede, &text, out);
            }
        };
        let live = self.live.load_full();
        let vetting = live.vetting();
        // Who has waited for another's exchange to be over once more finds its answer kept.
        // Not one of before: that was passed over above, and its age would tell when others asked.
        let kept = self.cache.get(key, clock::now().mono).filter(|entry| private && entry.stored >= now.mono);
        if let Some(entry) = kept {
            response.kept();
            Box::pin(self.as_if_asked(&live, walk, key, begun, entry.took)).await;
            return self.release(walk, query, entry, out).await;
        }
        let mut vetted = match answer::vet(&response.wire, Asked::from(permit), &live.answers) {
            Ok(vetted) if vetted.kind != Kind::Failure => vetted,
            unusable => {
                tracing::debug!(error = ?unusable.err(), "an answer was not usable");
                self.note_failure(&live, walk, key, Ede::Other, UNUSABLE);
                if let Some(stale) = stale {
                    return Box::pin(self.release_stale(walk, query, stale, out)).await;
                }
                return fail(walk, query, Ede::Other, UNUSABLE, out);
            }
        };
        // Ahead of all that is learned from an answer.
        if live.validator.is_some()
            && let Err(unproved) = Box::pin(self.validate(&live, permit, &response, &mut vetted, until)).await
        {
            if unproved.bogus || !walk.led.is_over() {
                self.note_failure(&live, walk, key, unproved.ede, unproved.text);
            }
            response.kept();
            // It was checked when it was kept.
            if let Some(stale) = stale {
                return Box::pin(self.release_stale(walk, query, stale, out)).await;
            }
            return fail(walk, query, unproved.ede, unproved.text, out);
        }
        let now = clock::now();
        self.ages.note_answer(walk, vetted.kind, permit.qname(), now);
        let emptied = is_emptied(&vetted);
        // Of those who came along nothing was asked.
        if leave.heard.is_none() {
            walk.session.inner.lock().score.observe(walk.record.split.tenant(permit.qname()), answered(&vetted));
        }
        walk.record.withheld = std::mem::take(&mut vetted.rebinding);
        let floor = live.repeats.floor.as_millis() as u64;
        // Who is not to notice what others ask waits for the keys of the zone too, though they are known by then.
        let took = if private { response.took.max(begun.elapsed()) } else { response.took };
        let took = u32::try_from(took.as_millis()).unwrap_or(u32::MAX);
        if emptied {
            let withheld = walk.record.withheld.clone().into_boxed_slice();
            self.cache.put_inside(key, vetting, vetted.answer, withheld, now.mono, floor, took);
            response.kept();
            if private {
                Box::pin(self.as_if_asked(&live, walk, key, begun, took)).await;
            }
            return self.refuse_inside(&live, walk, query, now, out);
        }
        let hops = vetted.names.into_boxed_slice();
        let kind = vetted.kind;
        let entry = self.cache.put(key, vetting, vetted.answer, hops, now.mono, floor, took);
        response.kept();
        if kind == Kind::Positive && leave.heard.is_none() {
            self.note_popular(&live, &walk.session, key, entry.usable - entry.stored, now);
        }
        if private {
            Box::pin(self.as_if_asked(&live, walk, key, begun, took)).await;
        }
        self.release(walk, query, entry, out).await;
    }

    /// Why a question that was judged some time ago may not leave any more, if policy, the grants or what the session is have
    /// changed since: the name itself may be what was to be kept in.
    fn shut_since(&self, leave: &Leave, walk: &Walk, query: &Query<'_>, now: Now) -> Option<(Arc<Live>, Shut)> {
        let (live, context) = (self.live.load(), walk.session.context());
        let (grants, zones) = (live.grants.load(), live.rpz.load());
        if (live.version, grants.version(), zones.version()) == leave.judged && context.is_as(&walk.record.context) {
            return None;
        }
        let (name, tcp) = (query.qname.as_ref(), walk.transport == Transport::Tcp);
        let shut = match live.policy.opens(&context, &grants, name, now.wall) {
            Err(shut) => shut,
            Ok(_) => {
                let asked = live.policy.mode_of(&context) == Mode::Enforce
                    && !walk.led.aliased
                    && !live.policy.is_written(&context, &grants, name, now.wall, true);
                let hit = asked.then(|| zones.question(name, walk.from).hit).flatten()?;
                let rule = Some(hit.reference());
                (!hit.action.lets_pass(tcp)).then_some(Shut { reason: Reason::Rpz, rule })?
            }
        };
        Some((Guard::into_inner(live), shut))
    }

    fn note_failure(&self, live: &Live, walk: &Walk, key: Key<'_>, ede: Ede, text: &str) {
        // How long it stands would tell a session that has its own view how often others were told so.
        let (first, doubles) = (live.repeats.failure.as_millis() as u64, !live.sharing.private);
        let stands = self.cache.put_failure(key, ede, text, clock::now().mono, first, doubles);
        self.note_view(live, walk, key, Duration::from_millis(stands));
    }

    /// Pin before answer: the state check and the orders to the packet filter happen under one lock, only the
    /// acknowledgement is awaited, and the state is checked again before the answer goes out.
    pub(super) async fn release(&self, walk: &mut Walk, query: &Query<'_>, entry: Arc<Entry>, out: &mut Vec<u8>) {
        for _ in 0..PIN_TRIES {
            // As policy has it now: it may have changed while the answer was under way, and again while it was pinned.
            let live = self.live.load_full();
            if entry.vetting != live.vetting() {
                return fail(walk, query, Ede::Other, CHANGED, out);
            }
            let now = clock::now();
            if self.refuse_hop(&live, walk, query, &entry, now, out) {
                return;
            }
            if let Some(withheld) = &entry.inside {
                walk.record.withheld = withheld.to_vec();
                return self.refuse_inside(&live, walk, query, now, out);
            }
            if self.rewrite_answer(&live, walk, query, &entry, now, out).await {
                return;
            }
            let context = walk.session.context();
            let grants = live.grants.load_full();
            let opens = match live.policy.opens(&context, &grants, query.qname.as_ref(), now.wall) {
                Ok(opens) => opens,
                Err(Shut { reason, rule }) => {
                    let case = self.note_refusal(walk, query, reason, rule, now);
                    let has_page = live.sinkhole.has_page(reason);
                    return refuse_by_policy(&live, walk, query, (reason, case, has_page), now, out);
                }
            };
            if beyond::leads(query, &entry) {
                return Box::pin(self.lead_beyond(&live, walk, query, &entry, now, out)).await;
            }
            let less = within_reach(&live, &context, query, &entry.answer);
            let entry = less.map_or_else(|| entry.clone(), |answer| Arc::new(entry.shown_as(answer)));
            let ttl = ttl_of(&walk.record, &entry, now).min(self.cap(&live, walk, query, now));
            let plan = pin::plan(&live.pins, ttl);
            let asked = asked(&live, query.qname.as_ref(), opens.ports, opens.volume);
            let judged = Judged { live: &live, grants: grants.version(), context: &context };
            match self.pin_once(judged, walk, query, &asked, &entry.answer.pins, plan.ttl, out).await {
                Ordered::Changed => continue,
                Ordered::Told => return,
                Ordered::Held => {}
            }
            self.note_exposed(walk, &entry.answer.pins);
            self.note_drift(&live, walk, opens.rule, &entry.answer.pins, now);
            self.note_resolved(walk, &entry.answer.pins);
            // Only pins make an answer live shorter than it does.
            let shown = if live.enforcing && !entry.answer.pins.is_empty() { plan.ttl } else { ttl };
            return show(out, query, &mut walk.record, &entry, shown, now);
        }
        not_pinned(walk, query, out);
    }

    /// The guard has taken everything out of an answer: NODATA that says so. It is applied in every mode. An approval is a
    /// change of rules, which clears the cache, so it takes effect at once.
    pub(super) fn refuse_inside(&self, live: &Live, walk: &mut Walk, query: &Query<'_>, now: Now, out: &mut Vec<u8>) {
        let reason = Reason::NotPublic;
        let key = self.hash((walk.session.id(), query.qname.as_ref(), "inside"));
        let case = {
            let mut inner = walk.session.inner.lock();
            inner.counts.refused += 1;
            inner.case_for(key, reason, self.fresh_case(key, now.wall))
        };
        walk.record.verdict = Verdict::Sinkhole;
        walk.record.would = Verdict::Sinkhole;
        walk.record.reason = Some(reason);
        walk.record.case = Some(case);
        refuse_with(live, walk, query, (reason, case, true), out);
    }

    /// Every hop of an answer's chain is judged by lists; the name itself was judged before it left. Whether the answer
    /// is refused, and the refusal written.
    fn refuse_hop(
        &self,
        live: &Live,
        walk: &mut Walk,
        query: &Query<'_>,
        entry: &Entry,
        now: Now,
        out: &mut Vec<u8>,
    ) -> bool {
        let context = walk.session.context();
        let grants = live.grants.load();
        let qname = query.qname.as_ref();
        let denied = |hops| live.policy.denied_hop(&context, &grants, qname, hops, now.wall);
        let Some((reason, rule, mode)) = denied(&entry.hops) else { return false };
        if mode != Mode::Enforce && walk.record.would == Verdict::Sinkhole {
            // Noted when it was judged before.
            return false;
        }
        // A rule on trial is nothing against a session that is enforced.
        let on_trial = mode != Mode::Enforce && live.policy.mode_of(&context) == Mode::Enforce;
        let case = match on_trial {
            true => self.note_reason(walk, query, reason, Some(rule), now),
            false => self.note_refusal(walk, query, reason, Some(rule), now),
        };
        if mode != Mode::Enforce {
            return false;
        }
        // Behind the aliases stand targets of service records: the name's other types lead elsewhere.
        let aliases = entry.hops.get(..entry.answer.alias_ttls().count()).unwrap_or_default();
        let of_service = denied(aliases).is_none_or(|(.., mode)| mode != Mode::Enforce);
        refuse_by_policy(live, walk, query, (reason, case, of_service), now, out);
        true
    }

    /// A refusal that is an address: the block page must be reachable.
    async fn page(&self, walk: &mut Walk, query: &Query<'_>, out: &mut Vec<u8>) {
        let live = self.live.load_full();
        let wanted = |address: &&IpAddr| address.is_ipv4() == (query.qtype == Qtype::A);
        let page: Vec<IpAddr> = live.sinkhole.addresses.iter().filter(wanted).copied().collect();
        let opens = |live: &Live, _: &Context| {
            let stands = page.iter().all(|address| live.sinkhole.addresses.contains(address));
            stands.then(|| (Ports::web(), None))
        };
        if !self.pin_by_word(walk, query, (Word::Page, opens), &page, live.sinkhole.negative_ttl, out).await {
            return;
        }
        let reason = walk.record.reason.unwrap_or(Reason::Score);
        let case = walk.record.case.unwrap_or(CaseId::from_random(walk.wall));
        let text = RefusalText::new(reason, case, live.sinkhole.contact.as_deref());
        walk.record.rcode = 0;
        reply::sinkhole_address(out, query, &page, live.sinkhole.negative_ttl, ede_of(reason), text.as_str());
    }
}

pub(super) fn fail(walk: &mut Walk, query: &Query<'_>, ede: Ede, text: &str, out: &mut Vec<u8>) {
    walk.record.source = Source::Failed;
    walk.record.rcode = 2;
    walk.record.pins = Vec::new();
    walk.record.shared = Vec::new();
    reply::servfail(out, query, ede, text);
}
