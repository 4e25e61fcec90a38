//! Forwarding: spends a [`Permit`](crate::policy::Permit) on an upstream.
//!
//! Between [`crate::policy`], whose permit says what may be asked, and [`crate::answer`], which vets what came back. Owns
//! the upstream sockets, each upstream's health, and one flight per question. Knows no session, no client packet and no
//! cache, and never asks anybody but the configured upstreams.
//!
//! Invariants: a query is written from a permit's fields and our own settings alone (promise P2; see [`query`]), and an
//! upstream is asked in the way that is configured for it, in no other. Questions of our own exist beside: `. NS`, asked to
//! learn whether a silent upstream lives, `resolver.arpa SOA`, to learn how it treats datagrams ([`greet`]), look-ups
//! of hosts that the configuration names ([`helper`]); nothing in them is a session's choice. Where answers are validated,
//! keys are looked up too ([`Forwarder::look_up_keys`]): of names that upstreams have by then.

mod budget;
mod case;
mod counters;
pub mod edns;
mod error;
mod exchange;
mod flight;
mod greet;
mod health;
pub mod helper;
mod latency;
mod manner;
mod map;
mod port;
mod prober;
mod query;
mod race;
mod random;
mod sockets;
mod stream;
pub mod tls;
mod upstream;

#[cfg(test)]
pub(crate) mod certs_for_test;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_faults;
#[cfg(test)]
mod tests_manner;
#[cfg(test)]
mod tests_refused;
#[cfg(test)]
mod tests_slow;
#[cfg(test)]
mod upstream_for_test;

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use foldhash::quality::RandomState;
use staunch_scoring::NameRef;
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, timeout_at};

use self::budget::Budget;
pub use self::counters::Counters;
pub use self::error::{FailKind, Failed, ForwardError};
pub use self::flight::{Flight, Landed};
use self::flight::{Flights, Seat};
use self::health::Health;
pub use self::health::Standing;
use self::manner::Manner;
use self::map::Map;
pub use self::map::{ZoneServers, Zones};
use self::port::Ports;
use self::query::Ask;
use self::sockets::Sockets;
use self::stream::Pool;
pub use self::upstream::{Upstream, Way};
use crate::model::Qtype;
use crate::partition::Partition;
use crate::policy::Permit;
use crate::validate::Need;

/// Exchanges at once unless [`Forwarder::with_exchanges`] says otherwise; each holds at least one socket, and all together
/// at most twice as many.
///
/// Equal to the default number of queries in flight, so that a query that got in also gets out.
pub const EXCHANGES: usize = 4096;
/// A second upstream is asked no earlier than this (twice the first one's p95 where that is longer). Blocky and kresd
/// race or switch sooner; below it, ordinary recursion would be asked twice.
const LEAST_HEDGE: Duration = Duration::from_millis(100);

/// Settings of this stage.
#[derive(Debug, Clone)]
pub struct Config {
    /// Upstreams in order of preference.
    pub upstreams: Vec<Upstream>,
    /// Zones with upstreams of their own, each at most once.
    pub zones: Vec<ZoneServers>,
    /// Time in which an upstream that is well answers: for a turn to TCP, for finding one down, between repeats.
    pub try_timeout: Duration,
    /// Time for the whole exchange.
    pub total_timeout: Duration,
    /// Largest UDP payload we advertise (RFC 9715: 1232).
    pub udp_payload: u16,
}

/// What an upstream said: whole, well-formed, for exactly the question asked; NOERROR or NXDOMAIN by its header, or YXDOMAIN
/// with the DNAME that says why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The message. Not vetted.
    pub wire: Vec<u8>,
    /// Who said it.
    pub upstream: SocketAddr,
    /// From the first packet to this upstream to the whole response.
    pub rtt: Duration,
    /// From the start of the exchange to its end, whoever else was asked meanwhile.
    pub took: Duration,
    /// Whether it came over a connection, TCP or TLS.
    pub tcp: bool,
}

/// How an upstream stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamStatus {
    /// Where, and how it is asked.
    pub upstream: Upstream,
    /// Health.
    pub standing: Standing,
    /// Smoothed round trip (RFC 6298 section 2); `None` before the first response.
    pub rtt: Option<Duration>,
    /// Whether it keeps the letter case that was drawn for a question; `None` where that is not known or not wanted.
    pub keeps_case: Option<bool>,
    /// Whether its datagrams hold our cookie (RFC 7873); `None` as long as that is not known.
    pub has_cookies: Option<bool>,
    /// Connections to it.
    pub connections: usize,
    /// Why the last one could not be had, if that was so.
    pub unconnected: Option<FailKind>,
}

/// How much later than wanted an exchange may end.
const SLACK: Duration = Duration::from_millis(50);

/// Asks upstreams. Cheap to clone; all clones share sockets, health and flights.
#[derive(Clone)]
pub struct Forwarder {
    inner: Arc<Inner>,
    /// Whether every question asks for signatures, unchecked.
    proofs: bool,
    /// Lives as long as there is somebody who can ask.
    _handle: Arc<()>,
}

impl fmt::Debug for Forwarder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Forwarder").field("config", &self.inner.config).finish_non_exhaustive()
    }
}

/// An upstream.
struct Server {
    upstream: Upstream,
    health: Health,
    manner: Manner,
    pool: Pool,
}

impl Server {
    fn new(upstream: Upstream, counters: &Arc<Counters>) -> Self {
        let pool = Pool::new(upstream.clone(), counters.clone());
        Self { upstream, health: Health::default(), manner: Manner::default(), pool }
    }

    /// Whether letter case is drawn for its questions, where it keeps it.
    fn mixes_case(&self) -> bool {
        matches!(self.upstream.way, Way::Udp { mix_case: true })
    }
}

struct Inner {
    config: Config,
    /// Each address once, in the order of the configuration.
    servers: Vec<Server>,
    /// Places in `servers`, in order of preference.
    map: Map<Vec<usize>>,
    flights: Flights,
    exchanges: Arc<Semaphore>,
    sockets: Sockets,
    ports: Ports,
    budget: Budget,
    counters: Arc<Counters>,
    /// For domains, by which failures are told apart.
    hasher: RandomState,
    /// An upstream does not do what its trials have shown, or is back.
    doubts: Notify,
    /// An upstream was found down.
    fell: Notify,
    /// No strong ones: nobody can ask any more, and probers go home.
    handles: Weak<()>,
}

impl Forwarder {
    /// A forwarder with room for [`EXCHANGES`]. Sends nothing yet.
    pub fn new(config: Config) -> Self {
        Self::with_exchanges(config, EXCHANGES)
    }

    /// A forwarder that has at most `exchanges` under way at once, on at most twice as many sockets.
    pub fn with_exchanges(config: Config, exchanges: usize) -> Self {
        let exchanges = exchanges.min(Semaphore::MAX_PERMITS);
        let handle = Arc::new(());
        let counters = Arc::<Counters>::default();
        let mut servers = Vec::new();
        let default = places(&config.upstreams, &mut servers, &counters);
        let zones: Vec<_> = config
            .zones
            .iter()
            .map(|own| (own.zone.clone(), places(&own.upstreams, &mut servers, &counters)))
            .collect();
        Self {
            proofs: false,
            inner: Arc::new(Inner {
                servers,
                map: Map::new(default, zones),
                config,
                flights: Flights::default(),
                exchanges: Arc::new(Semaphore::new(exchanges)),
                ports: Ports::keeping(sockets::idle(exchanges.saturating_mul(2))),
                sockets: Sockets::new(exchanges.saturating_mul(2)),
                budget: Budget::default(),
                counters,
                hasher: RandomState::default(),
                doubts: Notify::new(),
                fell: Notify::new(),
                handles: Arc::downgrade(&handle),
            }),
            _handle: handle,
        }
    }

    /// With questions that all ask for signatures (DO), and that upstreams leave the checking to us (CD; RFC 6840 section
    /// 5.9), whatever the client's query said: an answer is then what the zones say, and the flags tell nothing of the client.
    pub fn asking_for_proofs(self, proofs: bool) -> Self {
        Self { proofs, ..self }
    }

    fn ask(&self, permit: &Permit) -> Ask {
        let ask = Ask::from(permit);
        if self.proofs { ask.with_proofs() } else { ask }
    }

    /// Asks the upstreams what `permit` allows. Must run inside a tokio runtime with I/O and time.
    ///
    /// The same question (name, type, DO, CD) asked again meanwhile, in the same partition, shares the exchange and its
    /// outcome; a private one hears of it as long after it asked as the first did. Takes at most the total timeout, and as
    /// long as that more for a private one; dropping the future does not end an exchange that others wait for.
    pub fn resolve(&self, permit: &Permit) -> impl Future<Output = Result<Landed, ForwardError>> + use<> {
        Counters::add(&self.inner.counters.questions);
        self.look_up(self.ask(permit))
    }

    /// The same for somebody who cannot wait beyond `until`; the exchange goes on for others.
    pub async fn resolve_until(&self, permit: &Permit, until: Instant) -> Result<Landed, ForwardError> {
        // An exchange that begins now ends by itself hardly later: no second clock for the many that nothing has held up.
        if until + SLACK >= Instant::now() + self.inner.config.total_timeout {
            return self.resolve(permit).await;
        }
        match Box::pin(timeout_at(until, self.resolve(permit))).await {
            Ok(outcome) => outcome,
            Err(_) => Err(ForwardError::Late(self.inner.addresses(self.inner.members(&self.ask(permit))))),
        }
    }

    /// Looks up keys, or what vouches for them, where the validator needs them: the types DS and DNSKEY, of a judged name's
    /// own ancestors and of those of names on its answer's chain. Shared within a partition, as the answer is that needs them.
    /// Ends at `until`; the exchange goes on for others.
    pub async fn look_up_keys(
        &self,
        need: &Need,
        partition: Partition,
        until: Instant,
    ) -> Result<Landed, ForwardError> {
        let ask = Ask::host(need.name(), need.qtype()).with_proofs().within(partition);
        match timeout_at(until, self.look_up(ask)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(ForwardError::Late(self.inner.addresses(self.inner.members(&ask)))),
        }
    }

    /// Asks what `permit` allows once more, of anybody but the upstream at `other`, whose answer was no good. `None` where
    /// there is nobody else who could answer by `until`.
    pub async fn resolve_besides(&self, permit: &Permit, other: SocketAddr, until: Instant) -> Option<Landed> {
        self.look_up_besides(self.ask(permit), other, until).await
    }

    /// The same for keys, as [`Self::look_up_keys`] looks them up.
    pub async fn look_up_keys_besides(
        &self,
        need: &Need,
        partition: Partition,
        other: SocketAddr,
        until: Instant,
    ) -> Option<Landed> {
        let ask = Ask::host(need.name(), need.qtype()).with_proofs().within(partition);
        self.look_up_besides(ask, other, until).await
    }

    async fn look_up_besides(&self, ask: Ask, other: SocketAddr, until: Instant) -> Option<Landed> {
        let living = self.inner.living(self.inner.members(&ask), Instant::now());
        if living.iter().all(|index| self.inner.servers[*index].upstream.address == other) {
            return None;
        }
        timeout_at(until, self.look_up(ask.besides(other))).await.ok()?.ok()
    }

    /// Notes that `winner` has answered well what `loser` has not, as a validator found.
    pub fn outdone(&self, permit: &Permit, loser: SocketAddr, winner: SocketAddr) {
        let members = self.inner.members(&self.ask(permit));
        let of = |address| members.iter().copied().find(|index| self.inner.servers[*index].upstream.address == address);
        if let (Some(loser), Some(winner)) = (of(loser), of(winner)) {
            race::compare(&self.inner, permit.qname(), winner, std::iter::once(loser));
        }
    }

    /// Looks up, also for ourselves, what the configuration names.
    fn look_up(&self, ask: Ask) -> impl Future<Output = Result<Landed, ForwardError>> + use<> {
        // Outside the future, so that it does not hold the name.
        let seat = self.inner.flights.board(&self.inner, ask);
        async {
            match seat? {
                Seat::Lead(lead) => lead.land().await,
                Seat::Follow(flight) => flight.landed().await.map(Landed::from),
            }
        }
    }

    /// Finds out how upstreams treat datagrams, again and again. Never returns. Until it has found out, questions leave in
    /// lower case and without cookies.
    pub async fn know_upstreams(&self) {
        greet::keep(&self.inner).await;
    }

    /// The same for somebody who goes on without it at `until`: then the exchange under way comes along, to be heard by
    /// somebody else.
    pub async fn resolve_or_leave(
        &self,
        permit: &Permit,
        until: Instant,
    ) -> (Result<Landed, ForwardError>, Option<Flight>) {
        let ask = self.ask(permit);
        Counters::add(&self.inner.counters.questions);
        let seat = match self.inner.flights.board(&self.inner, ask) {
            Ok(seat) => seat,
            Err(error) => return (Err(error), None),
        };
        let flight = seat.flight();
        let outcome = match seat {
            Seat::Lead(lead) => timeout_at(until, lead.land()).await,
            Seat::Follow(flight) => timeout_at(until, flight.landed()).await.map(|outcome| outcome.map(Landed::from)),
        };
        match outcome {
            Ok(outcome) => (outcome, None),
            Err(_) => (Err(ForwardError::Late(self.inner.addresses(self.inner.members(&ask)))), Some(flight)),
        }
    }

    /// Says at once that nobody can be asked what `permit` allows, where that is known.
    pub fn down_for(&self, permit: &Permit) -> Option<ForwardError> {
        self.down_for_question(permit.qname(), permit.qtype())
    }

    /// The same for a question that has no permit yet.
    pub fn down_for_question(&self, name: NameRef<'_>, qtype: Qtype) -> Option<ForwardError> {
        let members = self.inner.map.of_question(name, qtype);
        let down = !self.inner.is_served(members, Instant::now());
        down.then(|| {
            Counters::add(&self.inner.counters.questions);
            self.inner.all_down(members)
        })
    }

    /// Whether there is anybody to ask about `name`.
    pub fn has_upstreams(&self, name: NameRef<'_>) -> bool {
        !self.inner.map.of(name).is_empty()
    }

    /// Time for a whole exchange.
    pub fn total_timeout(&self) -> Duration {
        self.inner.config.total_timeout
    }

    /// What happened so far.
    pub fn counters(&self) -> &Counters {
        &self.inner.counters
    }

    /// Exchanges under way.
    pub fn in_flight(&self) -> usize {
        self.inner.flights.len()
    }

    /// How each upstream stands, in the order of the configuration, those of zones last.
    pub fn upstreams(&self) -> Vec<UpstreamStatus> {
        let now = Instant::now();
        let status = |server: &Server| UpstreamStatus {
            upstream: server.upstream.clone(),
            standing: server.health.standing(now),
            rtt: server.health.rtt(),
            keeps_case: server.manner.keeps_case(),
            has_cookies: server.manner.has_cookies(),
            connections: server.pool.len(),
            unconnected: server.pool.why_not(),
        };
        self.inner.servers.iter().map(status).collect()
    }
}

/// Places of `upstreams` among `servers`; those that are new are added. An upstream that stands in two groups has one
/// health.
fn places(upstreams: &[Upstream], servers: &mut Vec<Server>, counters: &Arc<Counters>) -> Vec<usize> {
    let mut places = Vec::new();
    for upstream in upstreams {
        let place = servers.iter().position(|server| server.upstream == *upstream).unwrap_or_else(|| {
            servers.push(Server::new(upstream.clone(), counters));
            servers.len() - 1
        });
        if !places.contains(&place) {
            places.push(place);
        }
    }
    places
}

impl Inner {
    /// Whom to ask: nobody else ever is.
    fn members(&self, ask: &Ask) -> &[usize] {
        self.map.of_question(ask.name(), ask.qtype())
    }

    /// Those of `members` that may be asked: by standing, then in order of preference.
    fn living(&self, members: &[usize], now: Instant) -> VecDeque<usize> {
        let standing = |index: &usize| self.servers[*index].health.standing(now);
        let living = members.iter().copied().filter(|index| standing(index) != Standing::Down);
        let mut living: VecDeque<usize> = living.collect();
        if living.len() > 1 {
            living.make_contiguous().sort_by_cached_key(standing);
        }
        living
    }

    /// Whether one of `members` may be asked.
    fn is_served(&self, members: &[usize], now: Instant) -> bool {
        members.iter().any(|index| self.servers[*index].health.standing(now) != Standing::Down)
    }

    fn all_down(&self, members: &[usize]) -> ForwardError {
        Counters::add(&self.counters.all_down);
        ForwardError::AllDown(members.iter().map(|index| self.down(*index)).collect())
    }

    /// That upstream `index` is not asked: it is down, or nobody we trust answers in its place.
    fn down(&self, index: usize) -> Failed {
        let server = &self.servers[index];
        let kind = server.pool.why_not().filter(|kind| kind.is_tls()).unwrap_or(FailKind::Down);
        Failed { upstream: server.upstream.address, kind, said: None }
    }

    fn addresses(&self, members: &[usize]) -> Vec<SocketAddr> {
        members.iter().map(|index| self.servers[*index].upstream.address).collect()
    }

    /// How long upstream `index` may take before it is overdue.
    fn hedge_after(&self, index: usize) -> Duration {
        let usual = self.servers[index].health.p95().map_or(LEAST_HEDGE, |p95| p95 * 2);
        usual.max(LEAST_HEDGE).min(self.config.try_timeout)
    }
}
