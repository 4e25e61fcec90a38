//! Registration dates from the registries themselves: an RDAP client (RFC 9082, RFC 9083) off the query path.
//!
//! [`crate::pipeline`] says which domain's age it would like to know ([`Rdap::ask`], which never waits); two threads look
//! it up, one domain once, at a pace that each server can bear; the date goes into [`crate::store::Registered`], where
//! the walk of a query reads it without I/O. Who wants to wait holds a [`Wait`]; how long is his decision. Knows no
//! session, no verdict and no DNS packet.
//!
//! A look-up tells a registry that somebody here is interested in a domain, and a session chooses the domain by asking
//! for a name below it. So nothing is looked up but registrable domains of names that policy would answer, each once and
//! then not again for hours to a month by what was learned, and [`Config::per_session_hour`] at most on behalf of one
//! session; the name that was asked never leaves this way. These numbers bound what a session can tell a registry, and
//! every look-up is counted.

mod bootstrap;
mod client;
mod limit;
mod queue;
mod response;
#[cfg(test)]
mod tests;
mod url;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::{Condvar, Mutex};
use staunch_scoring::NameRef;
use tokio::sync::watch;

use self::client::Client;
use self::queue::{Job, Next, Offer, Queue, Report};
use crate::clock;
use crate::mishap;
use crate::model::Now;
use crate::outbound::HostResolver;
use crate::sparing::Sparing;
use crate::store::{Registered, Registration};

pub use self::bootstrap::{Bootstrap, BootstrapError, MAX_OCTETS as MAX_BOOTSTRAP_OCTETS};
pub use self::client::Outcome;
pub(crate) use self::limit::retry_after;
pub use self::response::{ResponseError, registered};
pub(crate) use self::url::authority_of;
pub use self::url::{BaseUrl, is_askable, redirect};

/// Threads. Two, so that one slow server does not hold up the others; more would only help against many slow ones.
const THREADS: usize = 2;

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;

/// Below this age a domain is asked for again each day: it is when names are handed back and registered anew, and when a
/// wrong date would matter.
const YOUNG_MS: u64 = 32 * DAY_MS;
/// Pause between look-ups of one domain, by what the last one said. Chosen without a source.
const AGAIN_YOUNG_MS: u64 = DAY_MS;
const AGAIN_OLD_MS: u64 = 30 * DAY_MS;
/// The registry has the domain and does not say since when.
const AGAIN_UNDATED_MS: u64 = 7 * DAY_MS;
/// The registry does not have the domain: it may be registered any moment, and then it is new.
const AGAIN_ABSENT_MS: u64 = 6 * HOUR_MS;
/// The server will not say, or made no sense, or we made a mistake.
const AGAIN_REFUSED_MS: u64 = DAY_MS;
/// No server answered.
const AGAIN_FAILED_MS: u64 = HOUR_MS / 4;

/// Settings of this stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Whom to ask.
    pub bootstrap: Bootstrap,
    /// How long a query for a domain of unknown age may wait for its first look-up; zero for not at all.
    pub hold: Duration,
    /// Look-ups a minute at one server, at least 1.
    pub per_minute: u32,
    /// Look-ups within an hour that one session can cause.
    pub per_session_hour: u32,
    /// For one look-up, redirects included.
    pub timeout: Duration,
}

/// Counts since start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Requests sent.
    pub requests: AtomicU64,
    /// Of them, answered with a registration date.
    pub dated: AtomicU64,
    /// Of them, answered without one.
    pub undated: AtomicU64,
    /// Of them, answered "no such domain".
    pub absent: AtomicU64,
    /// Of them, put off by the server.
    pub busy: AtomicU64,
    /// Of them, refused or answered with something that is no answer.
    pub refused: AtomicU64,
    /// Of them, without an answer.
    pub unreachable: AtomicU64,
    /// Of them, ended by a mistake of the service's own.
    pub panicked: AtomicU64,
    /// Domains given up after the last try, or without one where their servers are left alone for long.
    pub given_up: AtomicU64,
    /// Domains not looked up because too many waited.
    pub queue_full: AtomicU64,
    /// Domains not looked up because the session had used its share of the hour.
    pub over_share: AtomicU64,
}

/// What became of a wish to know an age.
#[derive(Debug)]
pub enum Asked {
    /// It is being looked up.
    Waits(Wait),
    /// It is not: known well enough, no registry for it, or a limit was reached.
    No,
}

/// A look-up under way.
#[derive(Debug)]
pub struct Wait {
    done: watch::Receiver<()>,
    since: u64,
    from: u64,
}

impl Wait {
    /// Waits until the look-up has ended, but no longer than until `hold` after it was first wanted: the queries that
    /// come while a server is slow are not held up one after the other. Where its servers are left alone for longer than that
    /// it is not waited for. `now` is monotonic milliseconds.
    pub async fn ended(mut self, hold: Duration, now: u64) {
        let left = hold.saturating_sub(Duration::from_millis(now.saturating_sub(self.since)));
        if Duration::from_millis(self.from.saturating_sub(now)) >= left {
            return;
        }
        // Nothing is ever sent: the channel closes, or the time is up.
        let _ = tokio::time::timeout(left, self.done.changed()).await;
    }
}

/// See the module. Dropping it stops its threads after the look-ups under way.
pub struct Rdap {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    config: ArcSwap<Config>,
    queue: Mutex<Queue>,
    changed: Condvar,
    stopped: AtomicBool,
    registered: Arc<Registered>,
    client: ArcSwap<Client>,
    resolver: Option<Arc<dyn HostResolver>>,
    counters: Counters,
}

impl Rdap {
    /// Starts the threads. `resolver` looks up the servers' hosts; without one only addresses are understood.
    ///
    /// # Errors
    /// Where a thread cannot be started.
    pub fn start(
        config: Config,
        registered: Arc<Registered>,
        resolver: Option<Arc<dyn HostResolver>>,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            config: ArcSwap::from_pointee(config),
            queue: Mutex::default(),
            changed: Condvar::new(),
            stopped: AtomicBool::new(false),
            registered,
            client: ArcSwap::from_pointee(Client::new(resolver.clone())),
            resolver,
            counters: Counters::default(),
        });
        // Made first, so that the first thread ends if the second cannot be started.
        let mut rdap = Self { shared: shared.clone(), threads: Vec::new() };
        for n in 0..THREADS {
            let shared = shared.clone();
            rdap.threads.push(thread::Builder::new().name(format!("rdap-{n}")).spawn(move || shared.run())?);
        }
        Ok(rdap)
    }

    /// Whether a thread has ended, which none does by itself.
    pub fn has_ended(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }

    /// Puts other settings in force. What waits is asked where it was to be asked; pauses of servers stay.
    pub fn configure(&self, config: Config) {
        self.shared.config.store(Arc::new(config));
        self.shared.changed.notify_all();
    }

    /// How long a query may wait, see [`Config::hold`].
    pub fn hold(&self) -> Duration {
        self.shared.config.load().hold
    }

    /// Whether `domain` (registrable, canonical) is one to be looked up now: a registry answers for it, and what is known
    /// of it is missing or due. Takes no lock but the table's.
    pub fn wants(&self, domain: NameRef<'_>, now: Now) -> bool {
        is_askable(domain)
            && self.shared.registered.get(domain, now.wall.steady).is_none_or(|known| now.wall.steady >= known.due)
            && self.shared.config.load().bootstrap.service(domain).is_some()
    }

    /// Has `domain` looked up on behalf of `session`, where [`Rdap::wants`] it and limits allow. Never waits.
    pub fn ask(&self, domain: NameRef<'_>, session: u64, now: Now) -> Asked {
        if !self.wants(domain, now) {
            return Asked::No;
        }
        let config = self.shared.config.load();
        let servers = config.bootstrap.service(domain).and_then(|at| config.bootstrap.services().get(at));
        let targets: Vec<(String, String)> = servers
            .into_iter()
            .flatten()
            .filter_map(|server| Some((server.authority().to_owned(), server.domain(domain)?)))
            .collect();
        if targets.is_empty() {
            return Asked::No;
        }
        let share = (session, config.per_session_hour);
        let offer = self.shared.queue.lock().offer(domain, targets, share, config.per_minute, now.mono);
        match offer {
            Offer::Waits { done, since, from } => {
                self.shared.changed.notify_one();
                Asked::Waits(Wait { done, since, from })
            }
            Offer::Paused => {
                self.shared.counters.given_up.fetch_add(1, Ordering::Relaxed);
                self.shared.postpone(domain, now);
                Asked::No
            }
            Offer::OverShare => {
                self.shared.counters.over_share.fetch_add(1, Ordering::Relaxed);
                Asked::No
            }
            Offer::Full => {
                self.shared.counters.queue_full.fetch_add(1, Ordering::Relaxed);
                Asked::No
            }
        }
    }

    /// Look-ups that wait or are under way.
    pub fn waiting(&self) -> usize {
        self.shared.queue.lock().len()
    }

    /// Counts since start.
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }
}

impl Drop for Rdap {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Release);
        // Under the lock, so that a thread that has just looked at the flag is already waiting.
        self.shared.queue.lock().clear();
        self.shared.changed.notify_all();
    }
}

impl std::fmt::Debug for Rdap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rdap").field("waiting", &self.waiting()).finish_non_exhaustive()
    }
}

impl Shared {
    fn run(&self) {
        loop {
            let config = self.config.load_full();
            let job = {
                let mut queue = self.queue.lock();
                if self.stopped.load(Ordering::Acquire) {
                    return;
                }
                let now = clock::now();
                for domain in queue.give_up(now.mono) {
                    self.counters.given_up.fetch_add(1, Ordering::Relaxed);
                    self.postpone(domain.as_ref(), now);
                }
                match queue.next(config.per_minute, now.mono) {
                    Next::Look(job) => job,
                    Next::Wait(pause) => {
                        self.changed.wait_for(&mut queue, Duration::from_millis(pause.clamp(1, 60_000)));
                        continue;
                    }
                    Next::Idle => {
                        self.changed.wait(&mut queue);
                        continue;
                    }
                }
            };
            let wall = clock::now().wall.shown;
            self.counters.requests.fetch_add(1, Ordering::Relaxed);
            let outcome = self.look_up(&job, wall, config.timeout);
            tracing::debug!(?outcome, "an age was looked up");
            self.count(outcome);
            let now = clock::now();
            let report = match outcome {
                Outcome::Busy(wait) => Report::Failed(wait),
                Outcome::Unreachable => Report::Failed(None),
                _ => Report::Answered,
            };
            // Before those who wait are told, so that they find it.
            self.note(job.domain.as_ref(), outcome, now.wall.steady);
            let domain = job.domain.clone();
            let ended = self.queue.lock().done(job, report, now.mono);
            if ended && report != Report::Answered {
                self.counters.given_up.fetch_add(1, Ordering::Relaxed);
                self.postpone(domain.as_ref(), now);
            } else if !ended {
                self.changed.notify_one();
            }
        }
    }

    /// One look-up. What it panics on costs its domain the answer, and nobody else.
    fn look_up(&self, job: &Job, wall: u64, timeout: Duration) -> Outcome {
        let client = self.client.load();
        static TOLD: Sparing = Sparing::new();
        let look_up = || client.look_up(job.url(), job.domain.as_ref(), wall, timeout);
        mishap::survived("asking a registry", &TOLD, look_up).unwrap_or_else(|| {
            // What it has half done goes with it.
            self.client.store(Arc::new(Client::new(self.resolver.clone())));
            Outcome::Panicked
        })
    }

    /// Does not ask for this domain again for a while.
    fn postpone(&self, domain: NameRef<'_>, now: Now) {
        self.registered.postpone(domain, now.wall.steady, now.wall.steady + AGAIN_FAILED_MS);
    }

    /// Keeps what a look-up said. `now` is Unix milliseconds.
    fn note(&self, domain: NameRef<'_>, outcome: Outcome, now: u64) {
        let keep = |registered: Option<u64>, again: u64| {
            self.registered.put(domain, Registration { registered, checked: now, due: now + again });
        };
        match outcome {
            Outcome::Said(Some(at)) => {
                let young = now.saturating_sub(at) < YOUNG_MS;
                keep(Some(at), if young { AGAIN_YOUNG_MS } else { AGAIN_OLD_MS });
            }
            Outcome::Said(None) => keep(None, AGAIN_UNDATED_MS),
            Outcome::NotThere => keep(None, AGAIN_ABSENT_MS),
            Outcome::Refused | Outcome::Garbage | Outcome::Panicked => {
                self.registered.postpone(domain, now, now + AGAIN_REFUSED_MS)
            }
            Outcome::Busy(_) | Outcome::Unreachable => {}
        }
    }

    fn count(&self, outcome: Outcome) {
        let counter = match outcome {
            Outcome::Said(Some(_)) => &self.counters.dated,
            Outcome::Said(None) => &self.counters.undated,
            Outcome::NotThere => &self.counters.absent,
            Outcome::Busy(_) => &self.counters.busy,
            Outcome::Refused | Outcome::Garbage => &self.counters.refused,
            Outcome::Unreachable => &self.counters.unreachable,
            Outcome::Panicked => &self.counters.panicked,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}
