//! Forwarding: spends a [`Permit`](crate::policy::Permit) on an upstream.
//!
//! Between [`crate::policy`], whose permit says what may be asked, and [`crate::answer`], which vets what came back. Owns
//! the upstream sockets, each upstream's health, and one flight per question. Knows no session, no client packet and no
//! cache, and never asks anybody but the configured upstreams.
//!
//! Invariants: a query is written from a permit's fields and our own settings alone (promise P2; see [`query`]). One
//! other question exists, `. NS`, asked to learn whether a silent upstream lives; nothing in it is a session's choice.

mod error;
mod exchange;
mod flight;
mod health;
pub mod helper;
mod query;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod upstream_for_test;

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio::time::Instant;

pub use self::error::{FailKind, Failed, ForwardError};
use self::exchange::Try;
use self::flight::Flights;
use self::health::Health;
pub use self::health::Standing;
use self::query::Ask;
use crate::policy::Permit;

/// Exchanges at once unless [`Forwarder::with_exchanges`] says otherwise; each holds at least one socket.
///
/// Equal to the default number of queries in flight, so that a query that got in also gets out.
pub const EXCHANGES: usize = 4096;
/// A further try is only begun with at least this much time left. Chosen without a source: above most round trips.
const LEAST_TRY: Duration = Duration::from_millis(100);

/// Settings of this stage.
#[derive(Debug, Clone)]
pub struct Config {
    /// Upstreams in order of preference.
    pub upstreams: Vec<SocketAddr>,
    /// Time for one try at one upstream.
    pub try_timeout: Duration,
    /// Time for the whole exchange.
    pub total_timeout: Duration,
    /// Largest UDP payload we advertise (RFC 9715: 1232).
    pub udp_payload: u16,
}

/// What an upstream said: whole, well-formed, for exactly the question asked, NOERROR or NXDOMAIN by its header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The message. Not vetted.
    pub wire: Vec<u8>,
    /// Who said it.
    pub upstream: SocketAddr,
    /// From the first packet to this upstream to the whole response.
    pub rtt: Duration,
    /// Whether it came over TCP.
    pub tcp: bool,
}

/// What happened, since start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Questions handed to [`Forwarder::resolve`].
    pub questions: AtomicU64,
    /// Of these, how many joined an exchange that was already under way.
    pub coalesced: AtomicU64,
    /// Of these, how many found every exchange taken.
    pub busy: AtomicU64,
    /// Of these, how many failed at once because every upstream was down.
    pub all_down: AtomicU64,
    /// Of these, how many failed at every upstream.
    pub failed: AtomicU64,
    /// Datagrams sent.
    pub udp_queries: AtomicU64,
    /// Queries over TCP.
    pub tcp_queries: AtomicU64,
    /// Datagrams that did not fit the question they came for.
    pub mismatches: AtomicU64,
    /// Turns to TCP because of too many such datagrams.
    pub mismatch_floods: AtomicU64,
    /// Turns to TCP because of truncation.
    pub truncated: AtomicU64,
    /// Repeats without EDNS.
    pub without_edns: AtomicU64,
    /// `. NS` probes.
    pub probes: AtomicU64,
    /// Times an upstream was found to be down.
    pub breakers_opened: AtomicU64,
    /// Failed tries, by [`FailKind`] in the order of [`FailKind::ALL`].
    pub failures: [AtomicU64; FailKind::ALL.len()],
}

impl Counters {
    fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Failed tries of one kind.
    pub fn failures_of(&self, kind: FailKind) -> u64 {
        self.failures[kind as usize].load(Ordering::Relaxed)
    }
}

/// How an upstream stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpstreamStatus {
    /// Where.
    pub upstream: SocketAddr,
    /// Health.
    pub standing: Standing,
    /// Smoothed round trip (RFC 6298 section 2); `None` before the first response.
    pub rtt: Option<Duration>,
}

/// Asks upstreams. Cheap to clone; all clones share sockets, health and flights.
#[derive(Clone)]
pub struct Forwarder {
    inner: Arc<Inner>,
}

impl fmt::Debug for Forwarder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Forwarder").field("config", &self.inner.config).finish_non_exhaustive()
    }
}

struct Inner {
    config: Config,
    health: Vec<Health>,
    flights: Flights,
    exchanges: Arc<Semaphore>,
    counters: Counters,
}

impl Forwarder {
    /// A forwarder with room for [`EXCHANGES`]. Sends nothing yet.
    pub fn new(config: Config) -> Self {
        Self::with_exchanges(config, EXCHANGES)
    }

    /// A forwarder that has at most `exchanges` under way at once.
    pub fn with_exchanges(config: Config, exchanges: usize) -> Self {
        let exchanges = exchanges.min(Semaphore::MAX_PERMITS);
        Self {
            inner: Arc::new(Inner {
                health: config.upstreams.iter().map(|_| Health::default()).collect(),
                config,
                flights: Flights::default(),
                exchanges: Arc::new(Semaphore::new(exchanges)),
                counters: Counters::default(),
            }),
        }
    }

    /// Asks the upstreams what `permit` allows. Must run inside a tokio runtime with I/O and time.
    ///
    /// The same question (name, type, DO, CD) asked again meanwhile shares the exchange and its outcome. Takes at most
    /// the total timeout; dropping the future does not end an exchange that others wait for.
    pub async fn resolve(&self, permit: Permit) -> Result<Arc<Response>, ForwardError> {
        let ask = Ask::from(&permit);
        let inner = &self.inner;
        Counters::add(&inner.counters.questions);
        inner.flights.join_or_start(inner, ask).await
    }

    /// What happened so far.
    pub fn counters(&self) -> &Counters {
        &self.inner.counters
    }

    /// Exchanges under way.
    pub fn in_flight(&self) -> usize {
        self.inner.flights.len()
    }

    /// How each upstream stands, in order of preference.
    pub fn upstreams(&self) -> Vec<UpstreamStatus> {
        let status = |(upstream, health): (&SocketAddr, &Health)| UpstreamStatus {
            upstream: *upstream,
            standing: health.standing(),
            rtt: health.rtt(),
        };
        self.inner.config.upstreams.iter().zip(&self.inner.health).map(status).collect()
    }
}

impl Inner {
    /// One exchange: upstreams in turn until one answers or the time is over.
    ///
    /// A try that sees a datagram that does not fit goes on waiting for one that does, but the next upstream is begun
    /// beside it: whoever floods us gains neither a wrong answer nor a delay.
    async fn exchange(self: &Arc<Self>, ask: Ask) -> Result<Response, ForwardError> {
        let end = Instant::now() + self.config.total_timeout;
        let mut waiting = self.in_turn().await?;
        let mut again = VecDeque::new();
        let mut failures = Vec::new();
        let mut tries = JoinSet::new();
        let noise = Arc::new(Notify::new());
        loop {
            if tries.is_empty() {
                // A datagram may simply have been lost: silence is asked again while there is time.
                let Some(next) = waiting.pop_front().or_else(|| self.pop_living(&mut again)) else { break };
                if Instant::now() + LEAST_TRY > end && !failures.is_empty() {
                    break;
                }
                self.begin(&mut tries, next, &waiting, &ask, &noise, end);
            }
            tokio::select! {
                Some(done) = tries.join_next() => {
                    let Ok((index, outcome)) = done else { return Err(ForwardError::Abandoned) };
                    match outcome {
                        Ok(response) => return Ok(response),
                        Err(kind) => {
                            if kind == FailKind::Timeout {
                                again.push_back(index);
                            }
                            let failed = Failed { upstream: self.config.upstreams[index], kind };
                            if !failures.contains(&failed) {
                                failures.push(failed);
                            }
                        }
                    }
                }
                () = noise.notified(), if !waiting.is_empty() => {
                    if let Some(next) = waiting.pop_front() {
                        self.begin(&mut tries, next, &waiting, &ask, &noise, end);
                    }
                }
            }
        }
        Counters::add(&self.counters.failed);
        Err(ForwardError::Failed(failures))
    }

    /// Starts a try at upstream `index`, with its share of the time that is left.
    fn begin(
        self: &Arc<Self>,
        tries: &mut JoinSet<(usize, Result<Response, FailKind>)>,
        index: usize,
        waiting: &VecDeque<usize>,
        ask: &Ask,
        noise: &Arc<Notify>,
        end: Instant,
    ) {
        let now = Instant::now();
        let share = end.saturating_duration_since(now) / (waiting.len() as u32 + 1);
        let time = share.max(LEAST_TRY).min(self.config.try_timeout);
        let (inner, ask, noise) = (self.clone(), *ask, noise.clone());
        tries.spawn(async move {
            let upstream = inner.config.upstreams[index];
            let payload = inner.config.udp_payload;
            let one = Try { upstream, payload, time, end: (now + time).min(end), last: end, counters: &inner.counters };
            let outcome = one.run(&ask, &noise).await;
            inner.note(index, &outcome);
            (index, outcome)
        });
    }

    /// Books the outcome of a try; a first silence starts a probe.
    fn note(self: &Arc<Self>, index: usize, outcome: &Result<Response, FailKind>) {
        let health = &self.health[index];
        match outcome {
            Ok(response) => health.answered(Some(response.rtt)),
            Err(kind) => {
                Counters::add(&self.counters.failures[*kind as usize]);
                tracing::debug!(upstream = %self.config.upstreams[index], kind = kind.as_str(), "upstream try failed");
                if kind.answered() {
                    health.answered(None);
                } else if *kind != FailKind::Local && health.silent() {
                    tokio::spawn(self.clone().probe(index));
                }
            }
        }
    }

    /// Upstreams to ask, best first. With all of them down, whoever is due to probe waits for the outcome; everybody
    /// else is told at once.
    async fn in_turn(self: &Arc<Self>) -> Result<VecDeque<usize>, ForwardError> {
        let now = Instant::now();
        let living = self.living();
        let mut probes = JoinSet::new();
        for (index, health) in self.health.iter().enumerate() {
            if health.probe_due(now) {
                probes.spawn(self.clone().probe(index));
            }
        }
        if !living.is_empty() {
            probes.detach_all();
            return Ok(living);
        }
        while let Some(found) = probes.join_next().await {
            if matches!(found, Ok(true)) {
                probes.detach_all();
                return Ok(self.living());
            }
        }
        Counters::add(&self.counters.all_down);
        Err(ForwardError::AllDown(self.config.upstreams.clone()))
    }

    /// Upstreams that are up, in order of preference, then those under suspicion.
    fn living(&self) -> VecDeque<usize> {
        let standing: Vec<Standing> = self.health.iter().map(Health::standing).collect();
        let of = |wanted| standing.iter().enumerate().filter(move |(_, s)| **s == wanted).map(|(i, _)| i);
        of(Standing::Up).chain(of(Standing::Suspect)).collect()
    }

    fn pop_living(&self, queue: &mut VecDeque<usize>) -> Option<usize> {
        while let Some(index) = queue.pop_front() {
            if self.health[index].standing() != Standing::Down {
                return Some(index);
            }
        }
        None
    }

    /// Asks upstream `index` a question of our own, twice at most; whatever fits it is a sign of life.
    ///
    /// Silence to a session's question proves nothing: an agent can ask for names whose servers never answer, and must
    /// not be able to shut an upstream for everybody.
    async fn probe(self: Arc<Self>, index: usize) -> bool {
        Counters::add(&self.counters.probes);
        let time = self.config.try_timeout / 2;
        let mut alive = false;
        for _ in 0..2 {
            let end = Instant::now() + time;
            let one = Try {
                upstream: self.config.upstreams[index],
                payload: self.config.udp_payload,
                time,
                end,
                last: end,
                counters: &self.counters,
            };
            match one.run(&Ask::PROBE, &Notify::new()).await {
                Ok(_) => alive = true,
                Err(kind) => alive = kind.answered(),
            }
            if alive {
                break;
            }
        }
        if self.health[index].probed(alive, Instant::now()) {
            Counters::add(&self.counters.breakers_opened);
            tracing::warn!(upstream = %self.config.upstreams[index], "upstream is down");
        }
        alive
    }
}
