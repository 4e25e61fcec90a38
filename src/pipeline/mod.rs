//! The walk of a query: session, local answers, lists, score, policy, cache, forward, pin, reply; then one event.
//!
//! [`Pipeline::fast`] is the synchronous half and runs on a listener's thread: it judges, and answers all that needs no
//! waiting. [`finish`](Pipeline::finish) is the other half. Neither decides anything itself: [`crate::policy`] judges,
//! [`crate::answer`] vets, [`crate::enforce`] holds the door.

mod age;
mod decoy;
mod delays;
mod drift;
mod explain;
mod finish;
mod learning;
mod ledgers;
mod live;
mod observed;
mod pins;
mod prove;
mod quarantine;
mod ranges;
mod refresh;
mod refusals;
mod show;
mod tighten;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Instant;

use foldhash::quality::RandomState;
use hashbrown::HashMap;
use parking_lot::Mutex;
use staunch_scoring::{Bits, Listing, Outcome, Split, StateSnapshot};

use crate::cache::{Cache, Entry, Key};
use crate::enforce::{Class, Enforcer};
use crate::event::{Source, Verdict};
use crate::forward::Forwarder;
use crate::learn::Book;
use crate::listen::{Fast, Service};
use crate::lists::Scope;
use crate::local::token::Token;
use crate::model::{CaseId, Ede, Mode, Now, Qtype, Reason, SessionId, Transport};
use crate::policy::{Ask, Permit, UnknownSource};
use crate::readiness::Gate;
use crate::reply;
use crate::session::{Context, Groups, Inner, MAX_GROUPS, Quarantine, Session, Sessions};
use crate::store::{Durable, Store};
use crate::telemetry::{Record, Telemetry};
use crate::wire::{self, Parsed, Query};
use crate::{alert::Delivery, local};

pub(crate) use age::Known;
pub use age::{AgeSources, Ages, RegisteredBy};
pub use explain::{Explanation, explain_fresh};
pub(crate) use explain::{Knowledge, Walked, walk};
pub use live::{Learning, Live, Repeats, Sinkhole};
pub use refresh::{Counters as HeldCounters, Held};
pub(crate) use tighten::Cause;

use delays::Delays;
use show::{show, shown};

/// Everything a query can meet.
pub struct Pipeline {
    /// What a reload replaces.
    pub live: arc_swap::ArcSwap<Live>,
    /// All sessions.
    pub sessions: Sessions,
    /// What the sessions of each owner have told together.
    pub groups: Groups,
    /// Answers at hand.
    pub cache: Cache,
    /// Names that are held and asked again on our own clock.
    pub held: Held,
    /// What random siblings were found to get.
    pub decoys: crate::decoy::Table,
    /// Upstreams.
    pub forwarder: Forwarder,
    /// The packet filter.
    pub enforcer: Enforcer,
    /// Durable state.
    pub store: Store,
    /// How old domains are.
    pub ages: Ages,
    /// What sessions in monitor mode have taught.
    pub book: Book,
    /// Alerts on their way.
    pub delivery: Mutex<Option<Delivery>>,
    /// Events and counters.
    pub telemetry: Arc<Telemetry>,
    /// Sources that found no room in the table, in monitor mode.
    strangers: Arc<Session>,
    /// Which names share addresses.
    pub exposure: crate::exposure::Exposure,
    /// When ended grants and rules were last looked for, milliseconds since the Unix epoch.
    checked: AtomicU64,
    /// Whether the ways out are closed, as was last found.
    pub gate: Gate,
    /// What answers for this node's token.
    token: Option<Token>,
    /// What was told of names that lead elsewhere and of ranges that are not used.
    drift: drift::Drift,
    /// Written ranges as the packet filter has them.
    opened: ranges::Opened,
    /// What was recorded of sessions that nobody has announced since the start.
    unplaced: Mutex<HashMap<SessionId, Unplaced>>,
    /// Whether anybody tells what is connected to.
    connections_told: AtomicBool,
    /// Questions that wait before they leave.
    delays: Delays,
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
    /// The age of its domain; then it is judged.
    Age,
    /// What random siblings get, before the name goes on its way.
    Decoy(decoy::Candidate),
    /// An upstream.
    Forward(Box<Leave>),
    /// Pins for an answer that is at hand.
    Pin(Arc<Entry>),
    /// An authoritative zone.
    Zone,
    /// Pins for the block page's addresses.
    Page,
    /// The journal, before a quarantine is announced.
    Announce(Option<Arc<Durable>>),
}

/// How a question leaves.
struct Leave {
    permit: Permit,
    /// Whether it waits a random moment first.
    slow: bool,
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
        book: Book,
    ) -> Self {
        let strangers = Arc::new(Session::shared(live.stranger.clone()));
        let hasher = RandomState::default();
        Self {
            strangers,
            exposure: crate::exposure::Exposure::default(),
            checked: AtomicU64::new(crate::clock::now().wall),
            gate: Gate::default(),
            token: None,
            drift: drift::Drift::default(),
            opened: ranges::Opened::default(),
            groups: Groups::new(MAX_GROUPS, std::hash::BuildHasher::hash_one(&hasher, "shared")),
            delays: Delays::default(),
            connections_told: AtomicBool::new(false),
            unplaced: Mutex::default(),
            live: arc_swap::ArcSwap::from_pointee(live),
            sessions,
            cache,
            held: Held::default(),
            decoys: crate::decoy::Table::default(),
            forwarder,
            enforcer,
            ages: Ages::new(&store),
            store,
            book,
            delivery: Mutex::new(Some(delivery)),
            telemetry,
            hasher,
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

    /// A case id that nobody outside can foretell and that one session meets again for the same key.
    fn fresh_case(&self, key: u64, wall: u64) -> CaseId {
        CaseId::from_random(self.hash((key, wall)))
    }

    /// Whose query this is. A source nobody announced is adopted, or refused where the policy is enforced and says so.
    /// In monitor mode a source that finds no room shares one session with all others that find none.
    fn identify(&self, live: &Live, from: IpAddr, now: Now) -> Option<Arc<Session>> {
        let refuse = live.policy.mode == Mode::Enforce && live.policy.unknown_source == UnknownSource::Refuse;
        if let Some(session) = self.sessions.by_address(from) {
            return (!refuse || session.context().announced).then_some(session);
        }
        if refuse {
            return None;
        }
        match self.sessions.adopt(from, self.hash(from)) {
            Ok((session, changed)) => {
                self.joined(live, &session, &changed, now);
                Some(session)
            }
            Err(_) if live.policy.mode == Mode::Monitor => Some(self.strangers.clone()),
            Err(_) => None,
        }
    }

    /// The synchronous half of the walk. `waited`: since when, for a query that has waited for its domain's age. `again`:
    /// what became of a first walk that asked siblings.
    #[allow(clippy::too_many_arguments)]
    fn walk(
        &self,
        query: &Query<'_>,
        packet: &[u8],
        from: IpAddr,
        transport: Transport,
        now: Now,
        waited: Option<Instant>,
        out: &mut Vec<u8>,
        again: Option<decoy::Again>,
    ) -> Fast<Deferred> {
        let started = waited.unwrap_or_else(Instant::now);
        let live = self.live.load();
        let Some(session) = self.identify(&live, from, now) else {
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
            split: Split::NONE,
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
            shared: Vec::new(),
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
        // Held from here until the charge is booked: a session's own questions are judged one behind the other.
        let mut inner = session.inner.lock();
        // What never leaves is neither scored nor charged; a closed session gets not even that.
        if !inner.is_closed() {
            if live.zones.covers(qname) && !unreachable {
                record.source = Source::Zone;
                return deferred(record, Step::Zone);
            }
            if let Some(answer) = local::special(qname, query.qtype, &context.announcement.search)
                && !live.policy.allows(&context, &grants, qname, now.wall)
            {
                drop(inner);
                record.rcode = u16::from(answer.rcode);
                reply::local(out, query, &answer);
                return self.done(record, started);
            }
            if query.qtype == Qtype::ANY {
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
                reply::servfail(out, query, Ede::NotReady, NOT_WHOLE);
                return self.done(record, started);
            }
        }

        let dnssec_ok = query.edns.is_some_and(|edns| edns.dnssec_ok);
        let key = Key { qname, qtype: query.qtype, dnssec_ok, checking_disabled: query.checking_disabled };
        let stood_in = again.as_ref().and_then(|again| again.entry.clone()).filter(|_| !unreachable);
        let source = if stood_in.is_some() { Source::Decoy } else { Source::Cache };
        let mut entry = if unreachable { None } else { stood_in.or_else(|| self.cache.get(key, now.mono)) };
        let failure = if unreachable || entry.is_some() { None } else { self.cache.failure(key, now.mono) };
        let cached = entry.is_some() || failure.is_some() || unreachable;
        let old = live.repeats.hold_stale.as_millis() as u64;
        let stale = if cached { None } else { self.cache.get_stale(key, now.mono, old) };
        let split = Split::of(qname);
        let known = self.ages.known(&context, split.icann(qname), now.wall);
        // Behind the session's lock, and until the charge is booked too: two sessions cannot both spend what is left.
        let group = if cached { None } else { self.group_of(&context, now.wall) };
        let mut ledger = group.as_ref().map(|group| group.ledger.lock());
        let ask = Ask {
            query,
            now,
            split,
            cached,
            at_hand: stale.is_some(),
            registered_days: known.registered_days(now.wall),
            first_seen_days: known.first_seen_days,
            group_seen_days: known.group_seen_days,
            group: ledger.as_ref().map(|ledger| ledger.facts(qname, now.wall)),
            grants: &grants,
            name_hash: if query.qtype.is_tunnel_only() { self.hash(qname) } else { 0 },
        };
        let mut decision = live.policy.decide(&context, &inner, &ask);
        record.split = decision.split;
        record.mode = decision.mode;
        record.verdict = decision.applied;
        record.would = decision.would;
        record.reason = decision.reason;
        if waited.is_none() && self.ages.worth_waiting(&decision, now) {
            // Nothing is written down yet: it is judged, once, when the age is there or the time is up.
            drop(ledger);
            drop(inner);
            return deferred(record, Step::Age);
        }
        if again.is_none()
            && decision.applied == Verdict::Answer
            && let Some(candidate) = self.decoy_candidate(&live, &inner, &decision, &mut record)
        {
            // Nothing is written down yet either: it is walked anew when its siblings have been heard.
            drop(ledger);
            drop(inner);
            return deferred(record, Step::Decoy(candidate));
        }
        record.rule = decision.rule.take();
        if decision.would != Verdict::Answer {
            let (reason, case) = self.case(&mut inner, &decision, tenant_key(&decision.split), now);
            record.reason = Some(reason);
            record.case = Some(case);
        }
        if decision.applied == Verdict::Hold && entry.is_none() {
            entry = stale;
        }
        let outcome = match decision.applied {
            Verdict::Answer if cached => Outcome::Cached,
            Verdict::Answer => Outcome::Forwarded,
            Verdict::Hold if cached => Outcome::Cached,
            Verdict::Hold => self.hold(&live, &session, &decision, key, now),
            Verdict::Sinkhole | Verdict::Quarantine => Outcome::Refused,
        };
        let is_held = matches!(outcome, Outcome::Held { .. });
        let empty = is_held && entry.is_none();
        let marks = inner.score.tenants_sinkholed();
        live.policy.commit(&mut inner, &decision, outcome);
        inner.counts.refused += u64::from(empty);
        let mut step = None;
        if let Some(ledger) = &mut ledger
            && outcome == Outcome::Forwarded
            && decision.facts.listing == Listing::Unlisted
        {
            step = ledger.book(qname, decision.assessment.charge.group, now.wall);
        }
        drop(ledger);
        let charged = decision.booked(outcome);
        let snapshot = if is_held && charged > Bits::ZERO { self.ledger_step(&mut inner, charged) } else { None };
        if let Some(state) = snapshot {
            self.journal_ledger(&session, state);
        }
        let (permit, slow, nodata) = (decision.take_permit(), decision.is_slow(), decision.nodata);
        let opens = decision.opens;
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
                if guarded && !live.sinkhole.page_for(query.qtype, nodata, record.reason).is_empty() {
                    return deferred(record, Step::Page);
                }
                self.refuse(&live, query, nodata, &mut record, out);
                self.done(record, started)
            }
            (_, Outcome::Refused | Outcome::Cached | Outcome::Held { .. }) => {
                self.mark_monitored(&mut inner, &session, &context, &record, now);
                if unreachable {
                    drop(inner);
                    reply::no_data(out, query, split.icann(qname), live.sinkhole.negative_ttl);
                    return self.done(record, started);
                }
                record.source = source;
                let Some(entry) = entry else {
                    drop(inner);
                    record.rcode = 2;
                    let (ede, text) = failure.as_ref().map_or((Ede::Other, ""), |failed| (failed.ede, &*failed.text));
                    reply::servfail(out, query, ede, text);
                    return self.done(record, started);
                };
                self.ages.note_cached(&record, &known, entry.answer.rcode, now);
                let denied = live.policy.denied_hop(&context, &grants, qname, &entry.hops, now.wall).is_some();
                let held = !denied && entry.inside.is_none() && (!guarded || self.enforcer.healthy());
                let shown =
                    if held { shown(&live, &context, &mut inner, &record, (&entry, &opens), now) } else { None };
                drop(inner);
                match shown {
                    Some(ttl) => {
                        show(out, query, &mut record, &entry, ttl, now);
                        self.done(record, started)
                    }
                    None => deferred(record, Step::Pin(entry)),
                }
            }
            (_, Outcome::Forwarded) => {
                self.mark_monitored(&mut inner, &session, &context, &record, now);
                let snapshot = self.ledger_step(&mut inner, charged);
                drop(inner);
                if let Some(state) = snapshot {
                    self.journal_ledger(&session, state);
                }
                if let (Some(group), Some(state)) = (&group, step) {
                    self.journal_group(group, state, now.wall);
                }
                record.source = Source::Upstream;
                match permit {
                    Some(permit) => deferred(record, Step::Forward(Box::new(Leave { permit, slow }))),
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
    fn mark_monitored(&self, inner: &mut Inner, session: &Arc<Session>, context: &Context, record: &Record, now: Now) {
        if record.would == Verdict::Quarantine {
            self.would_quarantine(inner, session, context, record, now);
        }
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
            Parsed::Query(query) if self.prove(&query, out) => Fast::Reply,
            Parsed::Query(query) => {
                self.walk(&query, packet, from.ip().to_canonical(), transport, now, None, out, None)
            }
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

/// What an enforced session hears while the lockdown it must have does not stand.
const NOT_WHOLE: &str = "the sandbox's other ways out are not closed; nothing is answered until they are";

/// The class of a session, by which written ranges are open to it.
pub(crate) fn class_of(context: &Context) -> Class {
    // Sixteen scopes fit.
    Class(Scope::of(context.kind(), context.phase()).index() as u8 + 1)
}

/// Whether a session's connections pass the packet filter only by pins.
pub(crate) fn is_guarded(live: &Live, context: &Context) -> bool {
    live.enforcing && live.policy.mode_of(context) == Mode::Enforce
}
