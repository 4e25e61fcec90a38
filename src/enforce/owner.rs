//! The owner: one thread, one bounded ordered queue, one acknowledgement for each command.
//!
//! A thread and not a task, because netlink blocks (for microseconds) and because its place in a network namespace is
//! the thread's. Under load it takes everything that waits and hands it to the backend at once.

use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{Active, Backend, BackendKind, Command, Config, Counts, DryRun, Error, Health, Nft, Off, View};

/// How often the owner looks whether the table still stands. A deleted table must be back within a second (P11).
const CHECK_EVERY: Duration = Duration::from_millis(100);
/// Most commands handed to the backend at once: bounds the wait of a revoke behind pins to about 2 ms.
const BATCH_MAX: usize = 256;

/// Handle to the owner thread; clones share it. When the last is dropped the thread ends and the table stays.
#[derive(Debug, Clone)]
pub struct Enforcer {
    shared: Arc<Shared>,
    queue: SyncSender<Job>,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

/// The promise of an acknowledgement. Dropping it does not take the command back.
#[derive(Debug)]
#[must_use = "only the acknowledgement says that the packet filter holds it"]
pub struct Ticket<T = ()> {
    reply: oneshot::Receiver<Result<T, Error>>,
}

/// How enforcement stands, for readiness and metrics.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Status {
    /// Which backend.
    pub backend: BackendKind,
    /// Whether the table stood when it was last looked at, at most 100 ms ago, and the owner lives.
    pub healthy: bool,
    /// The last error, with its causes; kept after recovery.
    pub last_error: Option<String>,
    /// Sizes and counters of the backend, at most 100 ms old.
    pub counts: Counts,
    /// Commands taken into the queue.
    pub submitted: u64,
    /// Commands acknowledged by the kernel.
    pub applied: u64,
    /// Commands that failed.
    pub failed: u64,
    /// Commands refused because the queue was full.
    pub queue_full: u64,
    /// Longest time from submission to result, microseconds.
    pub ack_latency_max_us: u64,
    /// Sum of the times from submission to result, microseconds, over `applied + failed` commands.
    pub ack_latency_sum_us: u64,
}

#[derive(Debug)]
struct Shared {
    kind: BackendKind,
    healthy: AtomicBool,
    submitted: AtomicU64,
    applied: AtomicU64,
    failed: AtomicU64,
    queue_full: AtomicU64,
    latency_max_us: AtomicU64,
    latency_sum_us: AtomicU64,
    /// What changes rarely or is read whole.
    slow: Mutex<(Option<String>, Counts)>,
}

#[derive(Debug)]
enum Job {
    Command { command: Command, at: Instant, reply: oneshot::Sender<Result<(), Error>> },
    Reconcile { active: Vec<Active>, reply: oneshot::Sender<Result<(), Error>> },
    View { session: IpAddr, reply: oneshot::Sender<Result<View, Error>> },
    Stop { remove_table: bool, reply: oneshot::Sender<Result<(), Error>> },
}

impl Enforcer {
    /// Sets the configured backend up, in the calling thread's network namespace, and starts its owner.
    ///
    /// # Errors
    ///
    /// Where the settings cannot work or enforcement cannot be had (no privilege, no nf_tables, another owner).
    pub fn start(config: Config) -> Result<Self, Error> {
        let backend: Box<dyn Backend> = match config.backend {
            BackendKind::Nft => Box::new(Nft::new(&config)?),
            BackendKind::DryRun => Box::new(DryRun::new(config.capacity)),
            BackendKind::Off => Box::new(Off),
        };
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
            healthy: AtomicBool::new(true),
            submitted: AtomicU64::new(0),
            applied: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            queue_full: AtomicU64::new(0),
            latency_max_us: AtomicU64::new(0),
            latency_sum_us: AtomicU64::new(0),
            slow: Mutex::new((None, backend.counts())),
        });
        let (sender, receiver) = sync_channel(queue.max(1));
        let owner = Owner { backend, shared: Arc::clone(&shared), checked: Instant::now() };
        let thread = std::thread::Builder::new()
            .name("enforce".into())
            .spawn(move || owner.run(receiver))
            .map_err(|source| Error::Io { doing: "start the packet filter's owner", source })?;
        Ok(Self { shared, queue: sender, thread: Arc::new(Mutex::new(Some(thread))) })
    }

    /// Puts a command into the queue. Never blocks, so it may be called under a session's lock: commands take effect
    /// in the order in which these calls were made.
    ///
    /// # Errors
    ///
    /// [`Error::QueueFull`] and [`Error::Stopped`]: the command was not taken.
    pub fn submit(&self, command: Command) -> Result<Ticket, Error> {
        let (reply, ticket) = oneshot::channel();
        self.put(Job::Command { command, at: Instant::now(), reply })?;
        self.shared.submitted.fetch_add(1, Relaxed);
        Ok(Ticket { reply: ticket })
    }

    /// Makes guards and quarantines exactly those of `active` and removes pins of every other session. To be awaited
    /// before serving, with every session the store knows.
    ///
    /// # Errors
    ///
    /// As [`Enforcer::submit`].
    pub fn reconcile(&self, active: Vec<Active>) -> Result<Ticket, Error> {
        let (reply, ticket) = oneshot::channel();
        self.put(Job::Reconcile { active, reply })?;
        Ok(Ticket { reply: ticket })
    }

    /// Asks what is wanted for one session address, in order with the commands before it.
    ///
    /// # Errors
    ///
    /// As [`Enforcer::submit`].
    pub fn view(&self, session: IpAddr) -> Result<Ticket<View>, Error> {
        let (reply, ticket) = oneshot::channel();
        self.put(Job::View { session, reply })?;
        Ok(Ticket { reply: ticket })
    }

    /// How enforcement stands.
    pub fn status(&self) -> Status {
        let shared = &*self.shared;
        let (last_error, counts) = shared.slow.lock().clone();
        Status {
            backend: shared.kind,
            healthy: shared.healthy.load(Relaxed),
            last_error,
            counts,
            submitted: shared.submitted.load(Relaxed),
            applied: shared.applied.load(Relaxed),
            failed: shared.failed.load(Relaxed),
            queue_full: shared.queue_full.load(Relaxed),
            ack_latency_max_us: shared.latency_max_us.load(Relaxed),
            ack_latency_sum_us: shared.latency_sum_us.load(Relaxed),
        }
    }

    /// Whether the table stands: one load, for the query path (P11).
    pub fn healthy(&self) -> bool {
        self.shared.healthy.load(Relaxed)
    }

    /// Carries out what is queued, then ends the owner. Without `remove_table` the table stays and goes on refusing.
    /// Blocks until the owner has ended.
    ///
    /// # Errors
    ///
    /// Where the table could not be removed; the owner has ended all the same.
    pub fn shutdown(&self, remove_table: bool) -> Result<(), Error> {
        let (reply, mut ticket) = oneshot::channel();
        self.queue.send(Job::Stop { remove_table, reply }).map_err(|_| Error::Stopped)?;
        if let Some(thread) = self.thread.lock().take() {
            // A panic of the owner was logged by the panic hook and shows as a missing reply below.
            let _ = thread.join();
        }
        ticket.try_recv().unwrap_or(Err(Error::Stopped))
    }

    fn put(&self, job: Job) -> Result<(), Error> {
        self.queue.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => {
                self.shared.queue_full.fetch_add(1, Relaxed);
                Error::QueueFull
            }
            TrySendError::Disconnected(_) => Error::Stopped,
        })
    }
}

impl<T> Ticket<T> {
    /// Waits for the result, at most `deadline`. To be called within a tokio runtime that has time enabled.
    ///
    /// # Errors
    ///
    /// The command's error, or [`Error::Deadline`], or [`Error::Stopped`] where the owner ended before it.
    pub async fn wait(self, deadline: Duration) -> Result<T, Error> {
        match tokio::time::timeout(deadline, self.reply).await {
            Ok(reply) => reply.unwrap_or(Err(Error::Stopped)),
            Err(_) => Err(Error::Deadline(deadline)),
        }
    }

    /// As [`Ticket::wait`], for a thread outside of any runtime.
    pub fn wait_blocking(self, deadline: Duration) -> Result<T, Error> {
        struct Unpark(Thread);
        impl Wake for Unpark {
            fn wake(self: Arc<Self>) {
                self.0.unpark();
            }
        }
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let mut context = Context::from_waker(&waker);
        let mut reply = pin!(self.reply);
        let end = Instant::now() + deadline;
        loop {
            if let Poll::Ready(reply) = reply.as_mut().poll(&mut context) {
                return reply.unwrap_or(Err(Error::Stopped));
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::Deadline(deadline));
            }
            std::thread::park_timeout(left);
        }
    }
}

/// The thread's own part.
struct Owner {
    backend: Box<dyn Backend>,
    shared: Arc<Shared>,
    checked: Instant,
}

/// A command's submission time and the way back to who waits.
type Waiting = (Instant, oneshot::Sender<Result<(), Error>>);

impl Owner {
    fn run(mut self, queue: Receiver<Job>) {
        let mut commands: Vec<Command> = Vec::with_capacity(BATCH_MAX);
        let mut waiting: Vec<Waiting> = Vec::with_capacity(BATCH_MAX);
        loop {
            let patience = CHECK_EVERY.saturating_sub(self.checked.elapsed());
            let mut next = match queue.recv_timeout(patience) {
                Ok(job) => Some(job),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            while let Some(job) = next {
                match job {
                    Job::Command { command, at, reply } => {
                        commands.push(command);
                        waiting.push((at, reply));
                    }
                    other => {
                        self.apply(&mut commands, &mut waiting);
                        if self.other(other) {
                            return;
                        }
                    }
                }
                if commands.len() >= BATCH_MAX {
                    break;
                }
                next = queue.try_recv().ok();
            }
            self.apply(&mut commands, &mut waiting);
            if self.checked.elapsed() >= CHECK_EVERY {
                self.check();
            }
        }
    }

    fn apply(&mut self, commands: &mut Vec<Command>, waiting: &mut Vec<Waiting>) {
        if commands.is_empty() {
            return;
        }
        let mut results = self.backend.apply(commands).into_iter();
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
                    shared.failed.fetch_add(1, Relaxed)
                }
            };
            // Nobody waits any more where the deadline has passed.
            let _ = reply.send(result);
        }
    }

    /// Everything that is not a command; whether to end.
    fn other(&mut self, job: Job) -> bool {
        match job {
            Job::Command { .. } => false,
            Job::Reconcile { active, reply } => {
                let result = self.backend.reconcile(&active);
                let mut slow = self.shared.slow.lock();
                slow.1 = self.backend.counts();
                if let Err(error) = &result {
                    tracing::warn!(%error, "the packet filter does not follow the sessions");
                    slow.0 = Some(error.to_string());
                }
                drop(slow);
                let _ = reply.send(result);
                false
            }
            Job::View { session, reply } => {
                let _ = reply.send(Ok(self.backend.view(session)));
                false
            }
            Job::Stop { remove_table, reply } => {
                let _ = reply.send(self.backend.teardown(remove_table));
                true
            }
        }
    }

    fn check(&mut self) {
        let result = self.backend.healthy();
        self.checked = Instant::now();
        let was = self.shared.healthy.swap(result.is_ok(), Relaxed);
        match result {
            Ok(Health::Intact) => {
                if !was {
                    tracing::warn!("packet filter stands again");
                }
            }
            Ok(Health::Restored) => tracing::warn!("packet filter had been changed by somebody else; put back"),
            Err(error) => {
                if was {
                    tracing::warn!(%error, "packet filter is not in place: no addresses are answered in enforce mode");
                }
                self.shared.slow.lock().0 = Some(error.to_string());
            }
        }
        self.shared.slow.lock().1 = self.backend.counts();
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // Also reached when a backend panics: readiness must not outlive the owner.
        self.shared.healthy.store(false, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const SECOND: Duration = Duration::from_secs(1);

    fn session(n: u8) -> IpAddr {
        IpAddr::from([10, 77, 1, n])
    }

    fn pin(n: u8, to: u32) -> Command {
        let destinations = vec![Ipv4Addr::from(0xc000_0200 + to).into()];
        Command::Pin { session: session(n), destinations, lifetime: 60 * SECOND }
    }

    /// Does nothing before it is let go.
    struct Held(DryRun, Arc<Mutex<()>>);

    impl Backend for Held {
        fn kind(&self) -> BackendKind {
            BackendKind::DryRun
        }
        fn setup(&mut self) -> Result<(), Error> {
            Ok(())
        }
        fn apply(&mut self, commands: &[Command]) -> Vec<Result<(), Error>> {
            drop(self.1.lock());
            self.0.apply(commands)
        }
        fn reconcile(&mut self, active: &[Active]) -> Result<(), Error> {
            self.0.reconcile(active)
        }
        fn healthy(&mut self) -> Result<Health, Error> {
            Err(Error::Unhealthy("as the test wants it".into()))
        }
        fn teardown(&mut self, _: bool) -> Result<(), Error> {
            Ok(())
        }
        fn view(&self, session: IpAddr) -> View {
            self.0.view(session)
        }
        fn counts(&self) -> Counts {
            self.0.counts()
        }
    }

    #[test]
    fn a_revoke_submitted_after_a_pin_closes_the_door_behind_it() {
        let enforcer = Enforcer::start_with(Box::new(DryRun::new(100)), 64).expect("starts");
        let tickets = [
            enforcer.submit(pin(1, 1)),
            enforcer.submit(Command::Quarantine { session: session(1) }),
            enforcer.submit(pin(1, 2)),
            enforcer.submit(Command::Release { session: session(1) }),
            enforcer.submit(pin(1, 3)),
        ];
        let results: Vec<_> = tickets.map(|t| t.expect("taken").wait_blocking(SECOND)).into_iter().collect();
        assert!(matches!(results.as_slice(), [Ok(()), Ok(()), Err(Error::Quarantined { .. }), Ok(()), Ok(())]));
        let view = enforcer.view(session(1)).expect("taken").wait_blocking(SECOND).expect("answered");
        assert_eq!(view.pins.iter().map(|(to, _)| *to).collect::<Vec<_>>(), [IpAddr::from([192, 0, 2, 3])]);
        enforcer.shutdown(true).expect("stops");
        assert!(matches!(enforcer.submit(pin(1, 4)), Err(Error::Stopped)));
        assert!(!enforcer.healthy(), "readiness does not outlive the owner");
    }

    #[test]
    fn a_full_queue_refuses_at_once_and_a_late_acknowledgement_is_a_deadline() {
        let gate = Arc::new(Mutex::new(()));
        let closed = gate.lock();
        let backend = DryRun::new(100);
        let log = backend.log();
        let enforcer = Enforcer::start_with(Box::new(Held(backend, Arc::clone(&gate))), 4).expect("starts");
        let first = enforcer.submit(pin(1, 0)).expect("taken");
        assert!(matches!(first.wait_blocking(Duration::from_millis(20)), Err(Error::Deadline(_))));
        // The owner holds the first; four more wait.
        let waiting: Vec<_> = (1..=4).map(|n| enforcer.submit(pin(1, n)).expect("room")).collect();
        let before = Instant::now();
        assert!(matches!(enforcer.submit(pin(1, 5)), Err(Error::QueueFull)));
        assert!(before.elapsed() < SECOND);
        drop(closed);
        for ticket in waiting {
            ticket.wait_blocking(SECOND).expect("applied");
        }
        let status = enforcer.status();
        assert_eq!((status.submitted, status.applied, status.queue_full), (5, 5, 1));
        let expected: Vec<_> = (0..=4).map(|n| pin(1, n)).collect();
        assert_eq!(log.commands(), expected, "in order, the late one too");
        std::thread::sleep(3 * CHECK_EVERY);
        assert!(!enforcer.healthy());
        assert!(enforcer.status().last_error.is_some_and(|error| error.contains("as the test wants it")));
    }

    #[tokio::test]
    async fn acknowledgements_can_be_awaited() {
        let enforcer = Enforcer::start_with(Box::new(DryRun::new(1)), 16).expect("starts");
        let first = enforcer.submit(pin(1, 1)).expect("taken");
        let second = enforcer.submit(pin(1, 2)).expect("taken");
        first.wait(SECOND).await.expect("pinned");
        assert!(matches!(second.wait(SECOND).await, Err(Error::Full { limit: 1 })));
        let off = Enforcer::start_with(Box::new(Off), 16).expect("starts");
        off.submit(pin(1, 1)).expect("taken").wait(SECOND).await.expect("nothing to do");
    }
}
