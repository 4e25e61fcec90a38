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
mod fast;
mod finish;
mod learning;
mod ledgers;
mod listing;
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
use staunch_scoring::StateSnapshot;

use crate::alert::Delivery;
use crate::cache::{Cache, Entry};
use crate::enforce::{Class, Enforcer};
use crate::event::Source;
use crate::forward::Forwarder;
use crate::learn::Book;
use crate::listen::{Fast, Service};
use crate::lists::Scope;
use crate::local::token::Token;
use crate::model::{CaseId, Ede, Mode, Now, SessionId, Transport};
use crate::policy::{Permit, UnknownSource};
use crate::readiness::Gate;
use crate::reply;
use crate::session::{Context, Groups, MAX_GROUPS, Quarantine, Session, Sessions};
use crate::store::{Durable, Store};
use crate::telemetry::{Record, Telemetry};
use crate::wire::{self, Parsed};

pub(crate) use age::Known;
pub use age::{AgeSources, Ages, RegisteredBy};
pub use explain::{Explanation, explain_fresh};
pub(crate) use explain::{Knowledge, Walked, walk};
pub use listing::{ListSums, Listed};
pub use live::{Learning, Live, Repeats, Sinkhole};
pub use refresh::{Counters as HeldCounters, Held};
pub(crate) use tighten::Cause;

use delays::Delays;

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
            feeds: std::sync::OnceLock::new(),
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
