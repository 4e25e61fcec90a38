//! The owner: one thread, one ordered queue, one acknowledgement for each command.
//!
//! A thread and not a task, because netlink blocks (for microseconds) and because its place in a network namespace is
//! the thread's. Under load it takes everything that waits and hands it to the backend at once. What may wait, and how
//! much of it, [`super::queue`] says.

use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::hook::HookLink;
use super::mirror::Mirror;
use super::owing::{Owing, alarming};
use super::queue::{Farewell, Job, Order, Queue};
use super::remote::RemoteLink;
use super::state::check_destinations;
use super::{
    Active, Backend, BackendKind, Command, Config, Counts, DryRun, Error, Health, Images, Journalled, Nft, Observed,
    Off, Range, Status, Tell, Ticket,
};

/// How often the owner looks whether the table still stands. [`Enforcer::healthy`] must say so within 100 ms, and a
/// deleted table must be back within a second (P11). One look costs a question of some microseconds.
pub(super) const CHECK_EVERY: Duration = Duration::from_millis(50);
/// Most commands handed to the backend at once: bounds the wait of a revoke behind pins to about 2 ms.
const BATCH_MAX: usize = 256;

/// The configured backend with nobody between it and the packet filter; a hook is its own.
pub(super) fn in_process(config: &Config) -> Result<Box<dyn Backend>, Error> {
    Ok(match config.backend {
        BackendKind::Nft => Box::new(Nft::new(config)?),
        BackendKind::DryRun => Box::new(DryRun::new(config.capacity)),
        BackendKind::Hook => Box::new(Mirror::new(HookLink::new(config)?, config.capacity)),
        BackendKind::Off => Box::new(Off),
    })
}

/// Handle to the owner thread; clones share it. When the last is dropped the thread carries out what waits and ends,
/// and the table stays.
#[derive(Debug, Clone)]
pub struct Enforcer {
    shared: Arc<Shared>,
    handle: Arc<Handle>,
}

/// See [`Enforcer::on_health`].
type Watcher = Box<dyn Fn(bool) + Send>;

/// See [`Enforcer::on_observed`].
type Observer = Box<dyn Fn(&Observed) + Send>;

struct Shared {
    kind: BackendKind,
    queue: Queue,
    healthy: AtomicBool,
    submitted: AtomicU64,
    applied: AtomicU64,
    failed: AtomicU64,
    queue_full: AtomicU64,
    refused_unhealthy: AtomicU64,
    latency_max_us: AtomicU64,
    latency_sum_us: AtomicU64,
    /// What changes rarely or is read whole.
    slow: Mutex<(Option<String>, Counts)>,
    watchers: Mutex<Vec<Watcher>>,
    observers: Mutex<Vec<Observer>>,
    owing: Owing,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("kind", &self.kind).field("healthy", &self.healthy).finish_non_exhaustive()
    }
}

/// What ends when the last [`Enforcer`] goes.
#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        // An owner that was stopped before needs no telling.
        let _ = self.shared.queue.close(None);
    }
}

impl Enforcer {
    /// Sets the configured backend up, in the calling thread's network namespace, and starts its owner.
    ///
    /// # Errors
    ///
    /// Where the settings cannot work or enforcement cannot be had (no privilege, no nf_tables, another owner).
    pub fn start(config: Config) -> Result<Self, Error> {
        let mut backend: Box<dyn Backend> = match (config.backend, &config.outside.enforcer) {
            (BackendKind::Nft, Some(socket)) => {
                Box::new(Mirror::new(RemoteLink::new(socket.clone(), &config), config.capacity))
            }
            _ => in_process(&config)?,
        };
        if let Some(journal) = &config.journal {
            let journalled = Journalled::new(backend, journal);
            backend = Box::new(journalled.map_err(|source| Error::Io { doing: "open the lease journal", source })?);
        }
        Self::start_with(backend, config.queue)
    }

    /// Sets a backend up and starts its owner with a queue of `queue` commands.
    ///
    /// # Errors
    ///
    /// As [`Enforcer::start`].
    pub fn start_with(mut backend: Box<dyn Backend>, queue: usize) -> Result<Self, Error> {
        backend.setup()?;
        let shared = Arc::new(Shared {
            kind: backend.kind(),
            queue: Queue::new(queue),
            healthy: AtomicBool::new(true),
            submitted: AtomicU64::new(0),
            applied: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            queue_full: AtomicU64::new(0),
            refused_unhealthy: AtomicU64::new(0),
            latency_max_us: AtomicU64::new(0),
            latency_sum_us: AtomicU64::new(0),
            slow: Mutex::new((None, backend.counts())),
            watchers: Mutex::new(Vec::new()),
            observers: Mutex::new(Vec::new()),
            owing: Owing::default(),
        });
        let observers = Arc::downgrade(&shared);
        let nudged = observers.clone();
        let observed = move |observed| {
            if let Some(shared) = observers.upgrade() {
                shared.tell(&observed);
            }
        };
        let changed = move || {
            if let Some(shared) = nudged.upgrade() {
                shared.queue.nudge();
            }
        };
        backend.observe(Tell::new(observed, changed));
        let owner = Owner { backend, shared: Arc::clone(&shared), checked: Instant::now(), orderly: false };
        let thread = std::thread::Builder::new()
            .name("enforce".into())
            .spawn(move || owner.run())
            .map_err(|source| Error::Io { doing: "start the packet filter's owner", source })?;
        let handle = Handle { shared: Arc::clone(&shared), thread: Mutex::new(Some(thread)) };
        Ok(Self { shared, handle: Arc::new(handle) })
    }

    /// Puts a command into the queue. Never blocks, so it may be called under a session's lock: commands take effect
    /// in the order in which these calls were made.
    ///
    /// Only a [`Command::Pin`] is refused for want of room in the queue. Everything else is taken, beyond the queue's
    /// capacity with one order of a kind for each session address: there a later order makes earlier ones idle, whose
    /// tickets give [`Error::Superseded`]. This is bounded by [`super::SESSIONS_MAX`] addresses with at most five
    /// orders each and 262,144 destinations to unpin, together.
    ///
    /// While the table is not in place pins are refused at once; all other orders are taken. Their tickets give an
    /// error, and they take effect when the table stands again.
    ///
    /// # Errors
    ///
    /// The command was not taken: [`Error::QueueFull`] (a pin, or beyond the bounds above), [`Error::Unhealthy`]
    /// (a pin), [`Error::TooMany`] and [`Error::Family`] (destinations that cannot be), [`Error::Stopped`].
    pub fn submit(&self, command: Command) -> Result<Ticket, Error> {
        let shared = &*self.shared;
        if let Command::Pin { session, destinations, .. } | Command::Unpin { session, destinations } = &command {
            check_destinations(*session, destinations)?;
        }
        if matches!(command, Command::Pin { .. }) && !self.healthy() && !shared.queue.is_closed() {
            shared.refused_unhealthy.fetch_add(1, Relaxed);
            return Err(Error::Unhealthy("found so at the last look".into()));
        }
        if command.closes() && !self.healthy() {
            // Ahead of whatever the caller does on the strength of it.
            shared.owing.note(true);
        }
        let (reply, ticket) = oneshot::channel();
        self.put(Job::Order(Order { command, at: Instant::now(), reply }))?;
        shared.submitted.fetch_add(1, Relaxed);
        Ok(Ticket { reply: ticket })
    }

    /// Makes guards and quarantines exactly those of `active` and removes pins of every other session. To be awaited
    /// before serving, with every session the store knows.
    ///
    /// # Errors
    ///
    /// [`Error::QueueFull`] and [`Error::Stopped`]: it was not taken.
    pub fn reconcile(&self, active: Vec<Active>) -> Result<Ticket, Error> {
        let (reply, ticket) = oneshot::channel();
        self.put(Job::Reconcile { active, reply })?;
        Ok(Ticket { reply: ticket })
    }

    /// Makes the written ranges that sessions may reach without a pin exactly these.
    ///
    /// # Errors
    ///
    /// As [`Enforcer::reconcile`]. The ticket gives [`Error::Full`] for more than [`super::RANGES_MAX`] elements.
    pub fn ranges(&self, ranges: Vec<Range>) -> Result<Ticket, Error> {
        let (reply, ticket) = oneshot::channel();
        self.put(Job::Ranges { ranges, reply })?;
        Ok(Ticket { reply: ticket })
    }

    /// Asks what is wanted for one session address, in order with the commands before it.
    ///
    /// # Errors
    ///
    /// As [`Enforcer::reconcile`].
    pub fn view(&self, session: IpAddr) -> Result<Ticket<super::View>, Error> {
        let (reply, ticket) = oneshot::channel();
        self.put(Job::View { session, reply })?;
        Ok(Ticket { reply: ticket })
    }

    /// Asks for the tables of this name as the kernel holds them ([`Backend::images`]).
    ///
    /// # Errors
    ///
    /// As [`Enforcer::reconcile`].
    pub fn images(&self, table: &str, apart: &'static str) -> Result<Ticket<Images>, Error> {
        let (reply, ticket) = oneshot::channel();
        self.put(Job::Images { table: table.to_owned(), apart, reply })?;
        Ok(Ticket { reply: ticket })
    }

    /// How enforcement stands.
    pub fn status(&self) -> Status {
        let shared = &*self.shared;
        let (last_error, counts) = shared.slow.lock().clone();
        let (waiting, superseded) = shared.queue.counts();
        Status {
            backend: shared.kind,
            healthy: self.healthy(),
            last_error,
            counts,
            waiting,
            submitted: shared.submitted.load(Relaxed),
            applied: shared.applied.load(Relaxed),
            failed: shared.failed.load(Relaxed),
            superseded,
            queue_full: shared.queue_full.load(Relaxed),
            refused_unhealthy: shared.refused_unhealthy.load(Relaxed),
            ack_latency_max_us: shared.latency_max_us.load(Relaxed),
            ack_latency_sum_us: shared.latency_sum_us.load(Relaxed),
        }
    }

    /// Whether the table stands, at most 100 ms old: one load, for the query path (P11).
    pub fn healthy(&self) -> bool {
        self.shared.healthy.load(Relaxed)
    }

    /// Has `watcher` called with the new value whenever [`Enforcer::healthy`] changes; not with the present one. It is
    /// not called for an orderly end. A table that was gone and stood again at the same look changes nothing here; it
    /// counts in [`Counts::restored`].
    ///
    /// Called from the owner's thread, which must not be held up: it may neither block nor call this method.
    pub fn on_health(&self, watcher: impl Fn(bool) + Send + 'static) {
        self.shared.watchers.lock().push(Box::new(watcher));
    }

    /// Has `watcher` called with `true` when an order that closes something ([`Command::closes`]) cannot be carried out for
    /// now, and with `false` once all is in place. An order that is given while the packet filter is known not to be in place
    /// is owed before [`Enforcer::submit`] returns.
    ///
    /// Called from the owner's thread or that of whoever orders or waits, as [`Enforcer::on_health`]; it may give no orders.
    pub fn on_owed(&self, watcher: impl Fn(bool) + Send + 'static) {
        self.shared.owing.watch(Box::new(watcher));
    }

    pub(super) fn owing(&self) -> &Owing {
        &self.shared.owing
    }

    /// Has `observer` called every few seconds with what is seen of flows and volumes; never where the backend sees nothing.
    ///
    /// Called from a thread of its own, which may be held up for moments; the method may not be called from there.
    pub fn on_observed(&self, observer: impl Fn(&Observed) + Send + 'static) {
        self.shared.observers.lock().push(Box::new(observer));
    }

    /// Carries out what is queued, then ends the owner. Without `remove_table` the table stays and goes on refusing.
    /// Blocks until the owner has ended.
    ///
    /// # Errors
    ///
    /// Where the table could not be removed; the owner has ended all the same.
    pub fn shutdown(&self, remove_table: bool) -> Result<(), Error> {
        let (reply, mut ticket) = oneshot::channel();
        self.shared.queue.close(Some(Farewell { remove_table, reply }))?;
        if let Some(thread) = self.handle.thread.lock().take() {
            // A panic of the owner was logged by the panic hook and shows as a missing reply below.
            let _ = thread.join();
        }
        ticket.try_recv().unwrap_or(Err(Error::Stopped))
    }

    fn put(&self, job: Job) -> Result<(), Error> {
        self.shared.queue.push(job).inspect_err(|error| {
            if matches!(error, Error::QueueFull) {
                self.shared.queue_full.fetch_add(1, Relaxed);
            }
        })
    }
}

impl Shared {
    fn tell(&self, observed: &Observed) {
        for observer in &*self.observers.lock() {
            if catch_unwind(AssertUnwindSafe(|| observer(observed))).is_err() {
                tracing::error!("who is told of flows panicked");
            }
        }
    }

    /// Whether it was healthy before.
    fn set_healthy(&self, healthy: bool) -> bool {
        let was = self.healthy.swap(healthy, Relaxed);
        if was != healthy {
            for watcher in &*self.watchers.lock() {
                // Enforcement must not end because somebody who watches it fails.
                if catch_unwind(AssertUnwindSafe(|| watcher(healthy))).is_err() {
                    tracing::error!("a watcher of the packet filter's health panicked");
                }
            }
        }
        was
    }
}

/// The thread's own part.
struct Owner {
    backend: Box<dyn Backend>,
    shared: Arc<Shared>,
    checked: Instant,
    /// Whether it was told to end.
    orderly: bool,
}

impl Owner {
    fn run(mut self) {
        let mut jobs: Vec<Job> = Vec::with_capacity(BATCH_MAX);
        let mut commands: Vec<Command> = Vec::with_capacity(BATCH_MAX);
        let mut waiting: Vec<(Instant, super::queue::Reply)> = Vec::with_capacity(BATCH_MAX);
        loop {
            let patience = CHECK_EVERY.saturating_sub(self.checked.elapsed());
            let Some(nudged) = self.shared.queue.take(&mut jobs, BATCH_MAX, patience) else { break };
            for job in jobs.drain(..) {
                match job {
                    Job::Order(Order { command, at, reply }) => {
                        commands.push(command);
                        waiting.push((at, reply));
                    }
                    Job::Reconcile { active, reply } => {
                        self.apply(&mut commands, &mut waiting);
                        let _ = reply.send(self.reconcile(&active));
                    }
                    Job::Ranges { ranges, reply } => {
                        self.apply(&mut commands, &mut waiting);
                        let _ = reply.send(self.ranges(&ranges));
                    }
                    Job::Images { table, apart, reply } => {
                        self.apply(&mut commands, &mut waiting);
                        let _ = reply.send(self.backend.images(&table, apart));
                    }
                    Job::View { session, reply } => {
                        self.apply(&mut commands, &mut waiting);
                        let _ = reply.send(Ok(self.backend.view(session)));
                    }
                }
            }
            self.apply(&mut commands, &mut waiting);
            if nudged || self.checked.elapsed() >= CHECK_EVERY {
                self.check();
            }
        }
        self.orderly = true;
        if let Some(Farewell { remove_table, reply }) = self.shared.queue.farewell() {
            let _ = reply.send(self.backend.teardown(remove_table));
        }
    }

    fn apply(&mut self, commands: &mut Vec<Command>, waiting: &mut Vec<(Instant, super::queue::Reply)>) {
        if commands.is_empty() {
            return;
        }
        let (mut results, mut alarmed) = (self.backend.apply(commands).into_iter(), false);
        let shared = &*self.shared;
        for (command, (at, reply)) in commands.drain(..).zip(waiting.drain(..)) {
            // A backend that gives fewer results than commands has not said that the rest took effect.
            let result = results.next().unwrap_or(Err(Error::Stopped));
            let took = at.elapsed().as_micros() as u64;
            shared.latency_max_us.fetch_max(took, Relaxed);
            shared.latency_sum_us.fetch_add(took, Relaxed);
            match &result {
                Ok(()) => shared.applied.fetch_add(1, Relaxed),
                Err(error) => {
                    tracing::debug!(session = %command.session(), %error, "packet filter command failed");
                    shared.slow.lock().0 = Some(error.to_string());
                    if alarming(&command, error) {
                        if command.closes() {
                            shared.owing.note(true);
                        }
                        if shared.set_healthy(false) {
                            alarmed = true;
                            tracing::warn!(%error, "packet filter lacks what was ordered: no addresses are answered");
                        }
                    }
                    shared.failed.fetch_add(1, Relaxed)
                }
            };
            // Nobody waits any more where the deadline has passed.
            let _ = reply.send(result);
        }
        if alarmed {
            // A word of the kernel that was lost is found out now and not a turn later: until then nothing is answered.
            self.check();
        }
    }

    fn reconcile(&mut self, active: &[Active]) -> Result<(), Error> {
        let result = self.backend.reconcile(active);
        self.settled(result)
    }

    fn ranges(&mut self, ranges: &[Range]) -> Result<(), Error> {
        let result = self.backend.ranges(ranges);
        self.settled(result)
    }

    /// The result of a change that is about all sessions.
    fn settled(&self, result: Result<(), Error>) -> Result<(), Error> {
        let mut slow = self.shared.slow.lock();
        slow.1 = self.backend.counts();
        if let Err(error) = &result {
            tracing::warn!(%error, "the packet filter does not follow the policy");
            slow.0 = Some(error.to_string());
            drop(slow);
            if !matches!(error, Error::Full { .. }) {
                self.shared.set_healthy(false);
            }
        }
        result
    }

    fn check(&mut self) {
        let result = self.backend.healthy();
        self.checked = Instant::now();
        {
            let mut slow = self.shared.slow.lock();
            slow.1 = self.backend.counts();
            if let Err(error) = &result {
                slow.0 = Some(error.to_string());
            }
        }
        let was = self.shared.set_healthy(result.is_ok());
        if result.is_ok() {
            self.shared.owing.settle(|| self.shared.queue.closes());
        }
        match result {
            Ok(Health::Restored) => tracing::warn!("packet filter was not as ordered; put back"),
            Ok(Health::Intact) if !was => tracing::warn!("packet filter stands again"),
            Err(error) if was => {
                tracing::warn!(%error, "packet filter is not in place: no addresses are answered in enforce mode");
            }
            Ok(Health::Intact) | Err(_) => {}
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // Also reached when a backend panics: readiness must not outlive the owner.
        if self.orderly {
            self.shared.healthy.store(false, Relaxed);
        } else {
            self.shared.set_healthy(false);
            // Whatever waited is carried out by nobody.
            self.shared.owing.note(true);
        }
        self.shared.queue.abandon();
    }
}
