//! The walk of a query: session, local answers, lists, score, policy, cache, forward, pin, reply; then one event.
//!
//! [`Pipeline::fast`] is the synchronous half and runs on a listener's thread: it judges, and answers all that needs no
//! waiting. [`finish`](Pipeline::finish) is the other half. Neither decides anything itself: [`crate::policy`] judges,
//! [`crate::answer`] vets, [`crate::enforce`] holds the door.

mod age;
mod alerts;
mod announced;
mod beyond;
mod decoy;
mod delays;
mod drift;
mod explain;
mod fast;
mod finish;
mod grants;
mod learning;
mod led;
mod ledgers;
mod listing;
mod live;
mod observed;
mod pace;
mod pins;
mod prefetch;
mod private;
mod prove;
mod quarantine;
mod ranges;
mod refresh;
mod refusals;
mod restore;
mod rewrite;
mod rides;
mod show;
mod stale;
mod standing;
mod status;
mod tighten;
mod upstreams;
mod validated;
mod waiting;
mod zone;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Instant;

use foldhash::quality::RandomState;
use parking_lot::Mutex;

use crate::alert::{Delivery, SinkStatus};
use crate::cache::{Cache, Entry};
use crate::cookie::Cookies;
use crate::enforce::{Class, Enforcer};
use crate::forward::Forwarder;
use crate::learn::Book;
use crate::listen::{Fast, Home, Service};
use crate::lists::Scope;
use crate::local::token::Token;
use crate::model::{CaseId, Mode, Now, Transport, Wall};
use crate::policy::{Permit, UnknownSource};
use crate::readiness::Gate;
use crate::session::{Context, Groups, MAX_GROUPS, Past, Session, Sessions, Shares};
use crate::store::{Durable, Store};
use crate::telemetry::{Record, Telemetry};
use crate::transfer::Keeper;
use crate::wire::{self, Parsed};

pub(crate) use age::Known;
pub use age::{AgeSources, Ages, RegisteredBy};
pub use explain::{AnsweredLocally, Explanation, explain_fresh};
pub(crate) use explain::{Knowledge, Walked, walk};
pub use listing::{ListSums, Listed};
pub use live::{Learning, Live, Repeats, Sinkhole};
pub use prefetch::{Counters as PrefetchCounters, Prefetch};
pub use quarantine::{Ending, MOST_EXTENDED, NotReleased};
pub use refresh::{Counters as HeldCounters, Held};
pub(crate) use tighten::Cause;
pub use waiting::Waiting;

use delays::Delays;
use led::Led;

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
    /// Popular names that are asked before their answers end.
    pub prefetch: Prefetch,
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
    /// Policy zones that are transferred.
    pub transfers: Keeper,
    /// Lists that are fetched, once the service runs.
    pub feeds: std::sync::OnceLock<crate::feed::Feeds>,
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
    /// When ended grants and rules were last looked for.
    checked: Mutex<Wall>,
    /// The policy that the journal names.
    recorded: Mutex<learning::Recorded>,
    /// Grants by which leases of before this process may have been made.
    older_grants: std::sync::OnceLock<std::collections::HashSet<Arc<str>>>,
    /// Whether the ways out are closed, as was last found.
    pub gate: Gate,
    /// What answers for this node's token.
    token: Option<Token>,
    /// What was told of names that lead elsewhere and of ranges that are not used.
    drift: drift::Drift,
    /// Written ranges as the packet filter has them.
    opened: ranges::Opened,
    /// What was recorded of sessions that are not in the table yet.
    unplaced: restore::Unplaced,
    /// Held while sessions come, change their addresses or go, until the packet filter has been told: so it hears of an
    /// address in the order in which it belonged to one and then to another.
    membership: Mutex<()>,
    /// Held while an operator gives or takes back an allowance, until it is on disk and in force.
    pub granting: tokio::sync::Mutex<()>,
    /// Held while a session is released, until that is on disk and in force: the next one finds it open, and tells nobody.
    /// Many, by the session: releases of a thousand sessions are written together.
    releasing: [tokio::sync::Mutex<()>; 64],
    /// Held while a configuration, or other trusted keys, are put in force: one after the other.
    in_force: Mutex<()>,
    /// Whether anybody tells what is connected to.
    connections_told: AtomicBool,
    /// Verdicts that stand for the same question.
    standing: standing::Standing,
    /// Questions that wait before they leave.
    delays: Delays,
    /// Questions on their way, for whoever asks the same.
    rides: Arc<rides::Rides>,
    /// Who may have how many questions waiting.
    shares: Arc<Shares>,
    /// Cookies of clients; none are answered without.
    cookies: Option<Cookies>,
    /// How often strangers are answered.
    pace: pace::Pace,
    /// Replies cut down because they were much longer than the query of an unproven source.
    curtailed: AtomicU64,
    /// Exchanges that go on when nobody waits for them any more.
    late: stale::Latecomers,
    /// What was found of answers that were checked against their signatures.
    pub validated: crate::validate::Counters,
    hasher: RandomState,
}

/// What of a judged query is needed once its answer is there.
pub struct Walk {
    packet: Box<[u8]>,
    from: IpAddr,
    transport: Transport,
    wall: u64,
    started: Instant,
    /// With all that it leads to.
    lasts: led::Lasts,
    session: Arc<Session>,
    led: Led,
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
    /// The same question of somebody else, which is on its way.
    Along(Box<rides::Along>),
    /// Pins for an answer that is at hand.
    Pin(Arc<Entry>),
    /// An authoritative zone.
    Zone,
    /// Pins for the block page's addresses.
    Page,
    /// What a policy zone answers in place of an upstream.
    Rewrite(rewrite::Rewrite),
    /// The journal, before a quarantine is announced.
    Announce(Option<Arc<Durable>>),
}

/// How a question leaves.
struct Leave {
    permit: Permit,
    /// The versions of the configuration, of the grants and of the policy zones that gave it.
    judged: (u64, u64, u64),
    /// Whether it waits a random moment first.
    slow: bool,
    /// Held until it is answered, by who was the first to ask.
    fare: Option<rides::Fare>,
    /// What was heard by somebody else who asked the same: then nothing leaves, and nothing was paid.
    heard: Option<rides::Heard>,
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
        cache.vetted_by(live.vetting());
        let hasher = RandomState::default();
        Self {
            strangers,
            exposure: crate::exposure::Exposure::default(),
            checked: Mutex::new(crate::clock::now().wall),
            recorded: Mutex::default(),
            older_grants: std::sync::OnceLock::new(),
            gate: Gate::default(),
            token: None,
            drift: drift::Drift::default(),
            opened: ranges::Opened::default(),
            groups: Groups::new(MAX_GROUPS, std::hash::BuildHasher::hash_one(&hasher, "shared")),
            delays: Delays::default(),
            rides: Arc::default(),
            shares: Shares::new(crate::forward::EXCHANGES),
            cookies: None,
            pace: pace::Pace::default(),
            curtailed: AtomicU64::new(0),
            standing: standing::Standing::default(),
            late: stale::Latecomers::default(),
            validated: crate::validate::Counters::default(),
            in_force: Mutex::default(),
            granting: tokio::sync::Mutex::default(),
            releasing: std::array::from_fn(|_| tokio::sync::Mutex::default()),
            connections_told: AtomicBool::new(false),
            unplaced: restore::Unplaced::default(),
            membership: Mutex::default(),
            live: arc_swap::ArcSwap::from_pointee(live),
            sessions,
            cache,
            held: Held::default(),
            prefetch: Prefetch::default(),
            decoys: crate::decoy::Table::default(),
            forwarder,
            enforcer,
            ages: Ages::new(&store),
            transfers: Keeper::new(std::path::Path::new("")),
            feeds: std::sync::OnceLock::new(),
            store,
            book,
            delivery: Mutex::new(Some(delivery)),
            telemetry,
            hasher,
        }
    }

    /// With the keeper of policy zones that are transferred.
    pub fn with_transfers(self, transfers: Keeper) -> Self {
        Self { transfers, ..self }
    }

    /// Begins to ask for policy zones; what comes is put in force for the queries that follow.
    pub fn keep_zones(self: &Arc<Self>) {
        let (publish, alarm) = (Arc::downgrade(self), Arc::downgrade(self));
        self.transfers.tell(
            Box::new(move |zones| {
                if let Some(pipeline) = publish.upgrade() {
                    pipeline.live.load().rpz.store(Arc::new(zones));
                }
            }),
            Box::new(move |text| {
                if let Some(pipeline) = alarm.upgrade() {
                    pipeline.degraded(text, crate::clock::now());
                }
            }),
        );
        self.transfers.start();
    }

    /// Alerts that the sink furthest behind has yet to take.
    pub fn alerts_waiting(&self) -> u64 {
        self.delivery.lock().as_ref().map_or(0, Delivery::depth)
    }

    /// How each receiver of alerts fares.
    pub(super) fn alert_receivers(&self) -> Vec<SinkStatus> {
        self.delivery.lock().as_ref().map(Delivery::status).unwrap_or_default()
    }

    /// Questions that wait now.
    pub fn waiting(&self) -> usize {
        self.shares.taken()
    }

    /// Questions refused because this part of the slow path was used up.
    pub fn past_share(&self, past: Past) -> u64 {
        self.shares.refused(past)
    }

    /// Strangers' datagrams that were not answered because their network had many answers already, and replies cut down
    /// because their source may be forged.
    pub fn unproven(&self) -> (u64, u64) {
        (self.pace.silent(), self.curtailed.load(std::sync::atomic::Ordering::Relaxed))
    }

    pub(crate) fn hash(&self, value: impl std::hash::Hash) -> u64 {
        use std::hash::BuildHasher;
        self.hasher.hash_one(value)
    }

    /// A case id that nobody outside can foretell and that one session meets again for the same key.
    fn fresh_case(&self, key: u64, wall: impl std::hash::Hash) -> CaseId {
        CaseId::from_random(self.hash((key, wall)))
    }

    /// Whose query this is. A source nobody announced is adopted, or refused where the policy is enforced and says so.
    /// In monitor mode a source that finds no room shares one session with all others that find none.
    fn identify(&self, live: &Live, from: IpAddr, now: Now) -> Option<Arc<Session>> {
        let refuse = refuses_strangers(live);
        if let Some(session) = self.sessions.by_address(from) {
            return (!refuse || session.context().announced).then_some(session);
        }
        if refuse {
            return None;
        }
        let turn = self.membership.lock();
        // Announced while its turn was awaited.
        if let Some(session) = self.sessions.by_address(from) {
            return Some(session);
        }
        match self.sessions.adopt(from, self.hash(from)) {
            Ok((session, changed)) => {
                self.give_back(&session);
                self.joined(&session, &changed, now);
                drop(turn);
                Some(session)
            }
            Err(_) if live.policy.mode == Mode::Monitor => Some(self.strangers.clone()),
            Err(_) => None,
        }
    }
}

/// Whether sources are refused that nobody announced.
fn refuses_strangers(live: &Live) -> bool {
    live.policy.mode == Mode::Enforce && live.policy.unknown_source == UnknownSource::Refuse
}

impl Service for Pipeline {
    type Deferred = Waiting;

    fn fast(
        &self,
        packet: &[u8],
        from: SocketAddr,
        transport: Transport,
        now: Now,
        out: &mut Vec<u8>,
    ) -> Fast<Waiting> {
        match wire::parse(packet) {
            Parsed::Query(query) => {
                let ending = self.ending(&query, packet, from, transport, now);
                let from = from.ip().to_canonical();
                let walked = if self.prove(&query, out) || self.stands(&query, from, transport, now, out) {
                    Fast::Reply
                } else {
                    self.walk(&query, packet, from, transport, now, None, out, None, Led::default(), rides::Ride::FIRST)
                };
                match walked {
                    Fast::Reply => {
                        self.end_reply(out, &ending);
                        Fast::Reply
                    }
                    Fast::Drop => Fast::Drop,
                    Fast::Deferred(deferred) => self.seat(deferred, &query, ending, now, out),
                }
            }
            Parsed::Reject(reject) => {
                self.reject(&reject, from, now, out);
                Fast::Reply
            }
            Parsed::Drop => Fast::Drop,
        }
    }

    async fn finish(&self, waiting: Waiting) -> Option<Vec<u8>> {
        self.finish_waiting(waiting).await
    }

    fn overloaded(&self, waiting: Waiting, out: &mut Vec<u8>) {
        self.refuse_waiting(waiting, crate::clock::now(), out);
    }

    fn home(&self, from: IpAddr) -> Home {
        self.home_of(from)
    }
}

/// What an enforced session hears while a policy zone that it must have was never transferred.
const NO_COPY: &str = "a policy zone has no copy yet; nothing is answered until it has";

/// The class of a session, by which written ranges are open to it.
pub(crate) fn class_of(context: &Context) -> Class {
    // Sixteen scopes fit.
    Class(Scope::of(context.kind(), context.phase()).index() as u8 + 1)
}

/// Whether a session's connections pass the packet filter only by pins.
pub(crate) fn is_guarded(live: &Live, context: &Context) -> bool {
    live.enforcing && live.policy.mode_of(context) == Mode::Enforce
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_changes;
#[cfg(test)]
mod world_for_test;
