//! The walk of a query: session, local answers, lists, score, policy, cache, forward, pin, reply; then one event.
//!
//! [`Pipeline::fast`] is the synchronous half and runs on a listener's thread: it judges, and answers all that needs no
//! waiting. [`finish`](Pipeline::finish) is the other half. Neither decides anything itself: [`crate::policy`] judges,
//! [`crate::answer`] vets, [`crate::enforce`] holds the door.

mod decoy;
mod explain;
mod finish;
mod live;
mod quarantine;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use foldhash::quality::RandomState;
use hashbrown::HashMap;
use parking_lot::Mutex;
use staunch_scoring::{Bits, Outcome, Split, StateSnapshot};

use crate::cache::{Cache, Entry, Key};
use crate::enforce::Enforcer;
use crate::event::{Source, Verdict};
use crate::forward::Forwarder;
use crate::listen::{Fast, Service};
use crate::model::{CaseId, Ede, Mode, Now, Qtype, Reason, SessionId, Transport};
use crate::policy::{Ask, Decision, Permit, RefusalText, UnknownSource, ede_of};
use crate::reply::{self, Refusal};
use crate::session::{Context, Inner, Quarantine, Session, Sessions};
use crate::store::{Durable, FirstSeen, Store};
use crate::telemetry::{Record, Telemetry};
use crate::wire::{self, Parsed, Query};
use crate::{alert::Delivery, local, pin};

pub use explain::{Explanation, explain_fresh};
pub use live::{Live, Sinkhole};

/// Everything a query can meet.
pub struct Pipeline {
    /// What a reload replaces.
    pub live: arc_swap::ArcSwap<Live>,
    /// All sessions.
    pub sessions: Sessions,
    /// Answers at hand.
    pub cache: Cache,
    /// What random siblings were found to get.
    pub decoys: crate::decoy::Table,
    /// Upstreams.
    pub forwarder: Forwarder,
    /// The packet filter.
    pub enforcer: Enforcer,
    /// Durable state.
    pub store: Store,
    /// When this deployment first asked for a domain.
    pub first_seen: Arc<FirstSeen>,
    /// Alerts on their way.
    pub delivery: Mutex<Option<Delivery>>,
    /// Events and counters.
    pub telemetry: Arc<Telemetry>,
    /// Sources that found no room in the table, in monitor mode.
    strangers: Arc<Session>,
    /// What was recorded of sessions that nobody has announced since the start.
    unplaced: Mutex<HashMap<SessionId, Unplaced>>,
    hasher: RandomState,
}

/// What was recorded of a session before the process started.
#[derive(Default)]
struct Unplaced {
    quarantine: Option<Quarantine>,
    ledger: Option<StateSnapshot>,
}

/// What of a judged query is needed once its answer is there.
pub struct Walk {
    packet: Box<[u8]>,
    from: IpAddr,
    transport: Transport,
    wall: u64,
    started: Instant,
    session: Arc<Session>,
    record: Record,
}

/// A query that has to wait for something.
pub struct Deferred {
    walk: Box<Walk>,
    step: Step,
}

/// What it waits for.
enum Step {
    /// What random siblings get, before the name goes on its way.
    Decoy(decoy::Candidate),
    /// An upstream.
    Forward(Box<Permit>),
    /// Pins for an answer that is at hand.
    Pin(Arc<Entry>),
    /// An authoritative zone.
    Zone,
    /// Pins for the block page's addresses.
    Page,
    /// The journal, before a quarantine is announced.
    Announce(Option<Arc<Durable>>),
}

impl Pipeline {
    /// Joins the stages.
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        live: Live,
        sessions: Sessions,
        cache: Cache,
        forwarder: Forwarder,
        enforcer: Enforcer,
        store: Store,
        delivery: Delivery,
        telemetry: Arc<Telemetry>,
    ) -> Self {
        let strangers = Arc::new(Session::shared(live.stranger.clone()));
        Self {
            strangers,
            unplaced: Mutex::default(),
            live: arc_swap::ArcSwap::from_pointee(live),
            sessions,
            cache,
            decoys: crate::decoy::Table::default(),
            forwarder,
            enforcer,
            first_seen: store.first_seen(),
            store,
            delivery: Mutex::new(Some(delivery)),
            telemetry,
            hasher: RandomState::default(),
        }
    }

    /// Alerts that the sink furthest behind has yet to take.
    pub fn alerts_waiting(&self) -> u64 {
        self.delivery.lock().as_ref().map_or(0, Delivery::depth)
    }

    pub(crate) fn hash(&self, value: impl std::hash::Hash) -> u64 {
        use std::hash::BuildHasher;
        self.hasher.hash_one(value)
    }

    /// Days since this deployment first asked for a domain; 0 for one it has not met, `None` while warming up.
    fn first_seen_days(&self, domain: staunch_scoring::NameRef<'_>, wall: u64) -> Option<f32> {
        self.first_seen.first_seen(domain, wall).map(|age| age.as_secs_f32() / 86_400.0)
    }

    /// A case id that nobody outside can foretell and that one session meets again for the same key.
    fn fresh_case(&self, key: u64, wall: u64) -> CaseId {
        CaseId::from_random(self.hash((key, wall)))
    }

    /// Whose query this is. A source nobody announced is adopted, or refused where the policy is enforced and says so.
    /// In monitor mode a source that finds no room shares one session with all others that find none.
    fn identify(&self, live: &Live, from: IpAddr) -> Option<Arc<Session>> {
        let refuse = live.policy.mode == Mode::Enforce && live.policy.unknown_source == UnknownSource::Refuse;
        if let Some(session) = self.sessions.by_address(from) {
            return (!refuse || session.context().announced).then_some(session);
        }
        if refuse {
            return None;
        }
        match self.sessions.adopt(from, self.hash(from)) {
            Ok((session, changed)) => {
                self.joined(live, &session, &changed);
                Some(session)
            }
            Err(_) if live.policy.mode == Mode::Monitor => Some(self.strangers.clone()),
            Err(_) => None,
        }
    }

    /// The synchronous half of the walk. `again`: what became of a first walk that asked siblings.
    #[allow(clippy::too_many_arguments)]
    fn walk(
        &self,
        query: &Query<'_>,
        packet: &[u8],
        from: IpAddr,
        transport: Transport,
        now: Now,
        out: &mut Vec<u8>,
        again: Option<decoy::Again>,
    ) -> Fast<Deferred> {
        let started = again.as_ref().map_or_else(Instant::now, |again| again.started);
        let live = self.live.load();
        let Some(session) = self.identify(&live, from) else {
            return self.refuse_stranger(&live, query, from, transport, now, started, out);
        };
        let context = session.context();
        let qname = query.qname.as_ref();
        let tenant_key = |split: &Split| self.hash((session.id(), split.tenant(qname)));
        let mut record = Record {
            wall: now.wall,
            context: context.clone(),
            address: from,
            transport,
            qname: query.qname,
            qtype: query.qtype,
            split: Split { tenant_at: 0, icann_at: 0, multi_tenant: false },
            mode: live.policy.mode_of(&context),
            verdict: Verdict::Answer,
            would: Verdict::Answer,
            reason: None,
            case: None,
            rule: None,
            source: Source::Local,
            decoy: again.as_ref().and_then(|again| again.kind),
            rcode: 0,
            scored: None,
            pins: Vec::new(),
            withheld: Vec::new(),
            duration_us: 0,
        };
        let deferred = |record, step| {
            let walk = Walk {
                packet: packet.into(),
                from,
                transport,
                wall: now.wall,
                started,
                session: session.clone(),
                record,
            };
            Fast::Deferred(Deferred { walk: Box::new(walk), step })
        };

        let guarded = is_guarded(&live, &context);
        // An address that no pin could open is not asked for and not shown: nothing leaves, nothing is charged.
        let unreachable = guarded && context.cannot_reach(query.qtype);
        let grants = live.grants.load();
        // What never leaves is neither scored nor charged; a closed session gets not even that.
        if !session.inner.lock().is_closed() {
            if live.zones.covers(qname) && !unreachable {
                record.source = Source::Zone;
                return deferred(record, Step::Zone);
            }
            if let Some(answer) = local::special(qname, query.qtype, &context.announcement.search)
                && !live.policy.allows(&context, &grants, qname, now.wall)
            {
                record.rcode = u16::from(answer.rcode);
                reply::local(out, query, &answer);
                return self.done(record, started);
            }
            if query.qtype == Qtype::ANY {
                reply::any_hinfo(out, query);
                return self.done(record, started);
            }
        }

        let dnssec_ok = query.edns.is_some_and(|edns| edns.dnssec_ok);
        let key = Key { qname, qtype: query.qtype, dnssec_ok, checking_disabled: query.checking_disabled };
        let stood_in = again.as_ref().and_then(|again| again.entry.clone());
        let source = if stood_in.is_some() { Source::Decoy } else { Source::Cache };
        let entry = stood_in.or_else(|| self.cache.get(key, now.mono)).filter(|_| !unreachable);
        let split = Split::of(qname);
        let ask = Ask {
            query,
            now,
            split,
            cached: entry.is_some() || unreachable,
            first_seen_days: self.first_seen_days(split.icann(qname), now.wall),
            group_seen_days: None,
            group: None,
            grants: &grants,
            name_hash: self.hash(qname),
        };
        let mut inner = session.inner.lock();
        let mut decision = live.policy.decide(&context, &inner, &ask);
        record.split = decision.split;
        record.mode = decision.mode;
        record.verdict = decision.applied;
        record.would = decision.would;
        record.reason = decision.reason;
        record.rule = decision.rule.clone();
        let charged = decision.booked();
        let for_siblings = again.as_ref().map_or(Bits::ZERO, |again| again.charged);
        record.scored = Some((decision.assessment.clone(), charged.plus(for_siblings)));
        if decision.would != Verdict::Answer {
            let key = tenant_key(&decision.split);
            let (reason, case) = self.case(&mut inner, &decision, key, now);
            record.reason = Some(reason);
            record.case = Some(case);
        }
        match decision.applied {
            Verdict::Answer => {
                if again.is_none()
                    && let Some(candidate) = self.decoy_candidate(&live, &inner, &decision, &ask, &mut record)
                {
                    drop(inner);
                    return deferred(record, Step::Decoy(candidate));
                }
                let outcome = if ask.cached { Outcome::Cached } else { Outcome::Forwarded };
                live.policy.commit(&mut inner, &decision, outcome);
                if decision.would == Verdict::Quarantine {
                    self.would_quarantine(&mut inner, &session, &context, &record, now);
                }
                if unreachable {
                    drop(inner);
                    reply::no_data(out, query, split.icann(qname), live.sinkhole.negative_ttl);
                    return self.done(record, started);
                }
                if let Some(entry) = entry {
                    record.source = source;
                    let denied = live.policy.denied_hop(&context, &grants, qname, &entry.hops, now.wall).is_some();
                    let held = !denied && (!guarded || self.enforcer.healthy());
                    let shown = if held { shown(&live, &context, &mut inner, &entry, now) } else { None };
                    drop(inner);
                    return match shown {
                        Some(ttl) => {
                            record.rcode = u16::from(entry.answer.rcode);
                            reply::from_answer(out, query, &entry.answer, transport, entry.age(now.mono), ttl);
                            self.done(record, started)
                        }
                        None => deferred(record, Step::Pin(entry)),
                    };
                }
                let snapshot = self.ledger_step(&mut inner, charged);
                drop(inner);
                if let Some(state) = snapshot {
                    self.journal_ledger(&session, state);
                }
                record.source = Source::Upstream;
                match decision.take_permit() {
                    Some(permit) => deferred(record, Step::Forward(Box::new(permit))),
                    // An applied answer always carries its permit.
                    None => Fast::Drop,
                }
            }
            Verdict::Hold | Verdict::Sinkhole => {
                let marks = inner.score.tenants_sinkholed();
                live.policy.commit(&mut inner, &decision, Outcome::Refused);
                // A mark counts towards quarantine, so a restart must not take it back.
                let marked = (inner.score.tenants_sinkholed() != marks).then(|| self.snapshot(&mut inner));
                let pending = if record.reason == Some(Reason::Quarantined) { inner.pending() } else { None };
                drop(inner);
                if let Some(state) = marked {
                    self.journal_ledger(&session, state);
                }
                record.source = Source::Policy;
                if let Some(pending) = pending {
                    return deferred(record, Step::Announce(Some(pending)));
                }
                if guarded && !live.sinkhole.page_for(query.qtype, decision.nodata, record.reason).is_empty() {
                    return deferred(record, Step::Page);
                }
                self.refuse(&live, query, &decision, &mut record, out);
                self.done(record, started)
            }
            Verdict::Quarantine => {
                live.policy.commit(&mut inner, &decision, Outcome::Refused);
                let pending = self.quarantine(&mut inner, &session, &record, now);
                drop(inner);
                record.source = Source::Policy;
                deferred(record, Step::Announce(pending))
            }
        }
    }

    /// The case of a refusal: one for each tenant of a session, so that every refusal of a name, of whatever type, tells
    /// the same story; a closed session's is that of its quarantine.
    fn case(&self, inner: &mut Inner, decision: &Decision<'_>, key: u64, now: Now) -> (Reason, CaseId) {
        let reason = decision.reason.unwrap_or(Reason::Score);
        if let (Reason::Quarantined, Some(quarantine)) = (reason, &inner.quarantine) {
            return (reason, quarantine.case);
        }
        let tenant_wide = matches!(reason, Reason::Score | Reason::LedgerTenant | Reason::LedgerIcann);
        // TXT is where a stub without EDNS reads why a name was refused, whether or not the type is answered otherwise.
        let asks_why = reason == Reason::TypeNotAllowed && decision.facts.qtype == Qtype::TXT.0;
        if (tenant_wide || asks_why)
            && let Some(known) = inner.known_case(key)
        {
            return known;
        }
        let key = if reason == Reason::TypeNotAllowed { self.hash((key, "type")) } else { key };
        (reason, inner.case_for(key, reason, self.fresh_case(key, now.wall)))
    }

    /// Writes the refusal that a decision asks for.
    fn refuse(&self, live: &Live, query: &Query<'_>, decision: &Decision<'_>, record: &mut Record, out: &mut Vec<u8>) {
        let reason = record.reason.unwrap_or(Reason::Score);
        let case = record.case.unwrap_or_else(|| self.fresh_case(0, record.wall));
        let text = RefusalText::new(reason, case, live.sinkhole.contact.as_deref());
        let page = live.sinkhole.page_for(query.qtype, decision.nodata, Some(reason));
        if !page.is_empty() {
            record.rcode = 0;
            reply::sinkhole_address(out, query, page, live.sinkhole.negative_ttl, ede_of(reason), text.as_str());
            return;
        }
        let refusal = Refusal {
            rcode: if decision.nodata { 0 } else { 3 },
            soa_owner: decision.split.icann(query.qname.as_ref()),
            negative_ttl: live.sinkhole.negative_ttl,
            ede: ede_of(reason),
            text: text.as_str(),
            txt: reason != Reason::TypeNotAllowed,
        };
        record.rcode = u16::from(refusal.rcode);
        reply::refusal(out, query, &refusal);
    }

    #[allow(clippy::too_many_arguments)]
    fn refuse_stranger(
        &self,
        live: &Live,
        query: &Query<'_>,
        from: IpAddr,
        transport: Transport,
        now: Now,
        started: Instant,
        out: &mut Vec<u8>,
    ) -> Fast<Deferred> {
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
            wall: now.wall,
            context: live.stranger.clone(),
            address: from,
            transport,
            qname: query.qname,
            qtype: query.qtype,
            split,
            mode: Mode::Enforce,
            verdict: Verdict::Sinkhole,
            would: Verdict::Sinkhole,
            reason: Some(Reason::UnknownSource),
            case: Some(case),
            rule: None,
            source: Source::Policy,
            decoy: None,
            rcode: 3,
            scored: None,
            pins: Vec::new(),
            withheld: Vec::new(),
            duration_us: 0,
        };
        self.done(record, started)
    }

    /// Closes the walk with its one event.
    fn done(&self, mut record: Record, started: Instant) -> Fast<Deferred> {
        record.duration_us = u32::try_from(started.elapsed().as_micros()).unwrap_or(u32::MAX);
        self.telemetry.record(record);
        Fast::Reply
    }
}

impl Service for Pipeline {
    type Deferred = Deferred;

    fn fast(
        &self,
        packet: &[u8],
        from: SocketAddr,
        transport: Transport,
        now: Now,
        out: &mut Vec<u8>,
    ) -> Fast<Deferred> {
        match wire::parse(packet) {
            Parsed::Query(query) => self.walk(&query, packet, from.ip().to_canonical(), transport, now, out, None),
            Parsed::Reject(reject) => {
                reply::reject(out, &reject);
                Fast::Reply
            }
            Parsed::Drop => Fast::Drop,
        }
    }

    async fn finish(&self, deferred: Deferred) -> Option<Vec<u8>> {
        self.complete(deferred).await
    }

    fn overloaded(&self, deferred: Deferred, out: &mut Vec<u8>) {
        let Walk { packet, mut record, started, .. } = *deferred.walk;
        let Parsed::Query(query) = wire::parse(&packet) else { return };
        record.source = Source::Failed;
        record.rcode = 2;
        reply::servfail(out, &query, Ede::NotReady, "too many queries wait; try again");
        self.done(record, started);
    }
}

/// The TTL under which a cached answer may be shown without asking the packet filter again; `None` if a pin of this
/// session would not outlive it.
fn shown(live: &Live, context: &Context, inner: &mut Inner, entry: &Entry, now: Now) -> Option<u32> {
    let left = entry.ttl_left(now.mono);
    let Some(first) = entry.answer.pins.first().filter(|_| live.enforcing) else { return Some(left) };
    if context.addresses_like(*first).next().is_none() {
        return Some(left);
    }
    let plan = pin::plan(&live.pins, left);
    let until = now.mono + u64::from(plan.ttl) * 1000 + live.pins.grace().as_millis() as u64;
    inner.pins.cover_all(&entry.answer.pins, until).then_some(plan.ttl)
}

/// Whether a session's connections pass the packet filter only by pins.
pub(crate) fn is_guarded(live: &Live, context: &Context) -> bool {
    live.enforcing && live.policy.mode_of(context) == Mode::Enforce
}
