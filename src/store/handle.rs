//! The handle that the rest of the daemon holds, and opening the store.

use std::collections::{HashMap, VecDeque};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle, Thread};
use std::time::Duration;

use parking_lot::Mutex;
use staunch_scoring::{GroupSnapshot, StateSnapshot};
use tokio::sync::oneshot;

use super::commit::Commit;
use super::fold::{Caps, Cursor, Fold};
use super::index::entry::Entry;
use super::index::seen::Tables;
use super::index::thread::{self as index, Message};
use super::index::{Op, Tree, VALUE_VERSION};
use super::journal::Journal;
use super::line::Mark;
use super::queue::Group;
use super::recover::{self, Damage, IndexDamage, Live, Next, Replay};
use super::restore;
use super::segment::Loc;
use super::shared::{Counters, Shared, Status};
use super::writer::{Command, Writer, write_marks};
use super::{Error, FirstSeen, Grant, GroupSeen, RangeUse, Record, Registered, Spool, wall_ms};
use crate::learn::InForce;
use crate::model::{Announcement, CaseId, Reason, SessionId};
use crate::private_dir;

/// Where the index lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IndexKind {
    /// In the state directory.
    Sled,
    /// In memory: nothing but the journal survives.
    Memory,
}

/// Settings of the store.
#[derive(Debug, Clone)]
pub struct Options {
    /// Names of the configured alert sinks. A new one gets the alerts recorded from now on; one that was configured
    /// before goes on where it was.
    pub sinks: Vec<String>,
    /// Calls that may wait to be written.
    pub queue: usize,
    /// A segment is followed by a new one when it has grown by this many octets.
    pub segment_octets: u64,
    /// Segments kept, the current one included; at least 2. One that a sink still needs is kept longer.
    pub keep_segments: usize,
    /// Most octets of segments that are kept only for a sink. Beyond it the oldest alerts are given up.
    pub held_octets: u64,
    /// Most sessions with any durable fact.
    pub max_sessions: usize,
    /// Most grants that have not ended.
    pub max_grants: usize,
    /// How long the deployment, and each group, must have run before first-seen ages are told.
    pub warm_up: Duration,
    /// How long the ledger of a session that is otherwise unknown is kept in the index.
    pub keep_ledgers: Duration,
    /// Where the index lives.
    pub index: IndexKind,
}

impl Default for Options {
    fn default() -> Self {
        const DAY: u64 = 24 * 3600;
        Self {
            sinks: Vec::new(),
            queue: 4096,
            // A start reads this much again, or as much as its snapshot, where that is larger.
            segment_octets: 16 << 20,
            keep_segments: 16,
            // Chosen without a source: eight times what is kept in any case, and small beside a disk.
            held_octets: 2 << 30,
            // Twice the default of `limits.sessions`.
            max_sessions: 262_144,
            max_grants: 10_000,
            // Chosen without a source: a week has every weekday's and weekend's jobs in it.
            warm_up: Duration::from_secs(7 * DAY),
            keep_ledgers: Duration::from_secs(7 * DAY),
            index: IndexKind::Sled,
        }
    }
}

/// What was announced of a session last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// What.
    pub announcement: Announcement,
    /// Fingerprint of the configuration's entry beside which it was said, if there was one.
    pub entry: Option<u64>,
}

/// A quarantine that stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Quarantined {
    /// Who.
    pub session: SessionId,
    /// Case the agent was told.
    pub case: CaseId,
    /// Why.
    pub reason: Reason,
    /// Who did it.
    pub by: String,
    /// Free words.
    pub note: String,
    /// Since when, Unix milliseconds.
    pub since: u64,
    /// Addresses of a source that nobody announced beside the one that its name says.
    pub addresses: Vec<IpAddr>,
}

/// Alerts a sink has not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backlog {
    /// The sink.
    pub sink: String,
    /// How many.
    pub alerts: u64,
}

/// What stood when the store was last used.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Recovered {
    /// Announced sessions, those first that were announced last: where two of them claim an address, the first has it.
    pub sessions: Vec<Said>,
    /// Quarantined sessions, announced or not.
    pub quarantined: Vec<Quarantined>,
    /// Grants that have not ended.
    pub grants: Vec<Grant>,
    /// When the last of those ended that were recorded and are no more, Unix milliseconds.
    pub grants_ended: Option<u64>,
    /// When the journal was last written to, Unix milliseconds; 0 for never.
    pub written: u64,
    /// What each configured sink has yet to take.
    pub undelivered: Vec<Backlog>,
    /// What sinks have yet to take that are not configured any more: removed, or under another name now.
    pub unclaimed: Vec<Backlog>,
    /// Newest ledger of each session.
    pub ledgers: Vec<(SessionId, StateSnapshot)>,
    /// What groups had spent, and the names they had sent.
    pub groups: Vec<(String, GroupSnapshot)>,
    /// Digest of the policy last in force.
    pub policy: Option<String>,
    /// Learned thresholds last in force.
    pub in_force: Vec<InForce>,
    /// Whether the policy last in force applied verdicts.
    pub enforced: bool,
    /// When written ranges were last used.
    pub ranges: Vec<RangeUse>,
    /// What was learned, by profile, as [`Store::put_learned`] was given it.
    pub learned: Vec<(String, Vec<u8>)>,
    /// What was found wrong.
    pub damage: Damage,
}

/// The store. Cloning is cheap; the last clone to go ends its threads.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    commands: SyncSender<Command>,
    /// How many it holds.
    queue: usize,
    shared: Arc<Shared>,
    tables: Tables,
    /// Progress of each configured sink when the store was opened.
    cursors: HashMap<String, Cursor>,
    /// The writer's, to wake it.
    thread: Thread,
    writer: Mutex<Option<JoinHandle<()>>>,
    /// Where it was opened, and the device and number of that directory.
    place: (PathBuf, Option<(u64, u64)>),
}

/// Which directory it is.
fn identity(dir: &Path) -> Option<(u64, u64)> {
    fs::metadata(dir).ok().map(|found| (found.dev(), found.ino()))
}

impl Store {
    /// Opens or creates the store in `dir`, reads back what stood, and starts its two threads. Blocks on the disk.
    pub fn open(dir: &Path, options: Options) -> Result<(Self, Recovered), Error> {
        let now = wall_ms();
        let lock = lock(dir)?;
        remove_unfinished(dir).map_err(|error| Error::io("tidy", dir, error))?;
        // Side by side, because each takes about as long; the index is not consulted before both are done.
        let (replay, opened) = thread::scope(|scope| {
            let index = scope.spawn(|| index::open(dir, options.index, now));
            let replay = recover::replay(dir, now);
            (replay, index.join())
        });
        let Replay { mut fold, head, next, mut damage, written } = replay?;
        let lost = |_| Error::Index(super::IndexError::Panicked("while it was opened".into()));
        let index::Opened { store: index_store, held, damage: index_damage, failed: no_index } =
            opened.map_err(lost)??;
        let grants_ended = fold.prune(now, &options.sinks, options.keep_ledgers);
        let had_journal = matches!(next, Next::Resume(_));
        damage.index = index_damage.or_else(|| {
            let lost = options.index == IndexKind::Sled && !no_index && held.fresh && had_journal;
            lost.then(|| IndexDamage { aside: None, cause: "it was missing or had lost its contents".into() })
        });
        let adopted = restore::adopt(&fold, &held, head.seq, &mut damage);
        let ledgers = restore::ledgers(&fold, &held, &options, now);
        let recovered = restore::recovered(&fold, &held, &ledgers, &adopted, &options, now, damage);
        let recovered = Recovered { grants_ended, written, ..recovered };
        for Backlog { sink, alerts } in &recovered.unclaimed {
            tracing::warn!(
                sink,
                alerts,
                "alerts wait for a receiver that is not configured any more; configure one of that name to have those delivered that \
                 the journal still keeps"
            );
        }
        let stale = restore::stale_ledgers(&fold, &held, &options, now);

        let head_seq = head.seq;
        let is_behind = held.fresh || held.applied != head_seq || !adopted.is_empty();
        let mut live = Vec::new();
        let mut fold = fold.map(|Live { seq, loc, time, record }| {
            // Of a ledger the index keeps what its steps amount to.
            if is_behind && !matches!(*record, Record::Ledger { .. }) {
                live.push(Entry { seq, time, record: Arc::unwrap_or_clone(record) });
            }
            loc
        });
        let start_failed = |error| Error::io("write the journal in", dir, error);
        let mut journal = match next {
            Next::Resume(resume) => Journal::resume(dir, resume).map_err(start_failed)?,
            Next::Start { number, head, older } => {
                match Journal::start(dir, number, head, older.clone(), &mut fold, now) {
                    Ok((journal, lost)) => {
                        tracing::info!(segment = number, lost, "a journal segment was started");
                        journal
                    }
                    Err(error) => {
                        let waiting = Journal::waiting(dir, head, older).map_err(start_failed)?;
                        let waiting = waiting.ok_or_else(|| start_failed(error))?;
                        tracing::error!(
                            segment = number,
                            "no journal segment can be started yet; what was read is in force"
                        );
                        waiting
                    }
                }
            }
        };
        let marks = start_marks(&fold, &options.sinks, journal.head().seq, &recovered.damage);
        if let Err(error) = write_marks(&mut journal, &mut fold, &marks, now) {
            // The next segment's snapshot says it, before anything that is recorded from here on.
            tracing::error!(%error, "the journal cannot be written; what stood is in force");
            journal.replace();
        }

        let counters = Arc::new(Counters::default());
        if no_index {
            counters.index_failed();
        }
        let shared = Arc::new(Shared::new(dir.to_owned(), counters.clone()));
        let (segment, offset) = journal.end();
        shared.publish(segment, offset, fold.alerts);
        let (index, messages) = sync_channel(4096);
        let tables = Tables {
            first_seen: Arc::new(FirstSeen::new(held.hash_key, held.created, options.warm_up, index.clone())),
            group_seen: Arc::new(GroupSeen::new(held.hash_key, options.warm_up, index.clone())),
            registered: Arc::new(Registered::new(index.clone())),
        };
        let failed = |error| Error::io("start a thread for", dir, error);
        let index_thread = index::spawn(index_store, messages, tables.clone(), counters, dir).map_err(failed)?;
        // The queue is empty, so neither can fail for want of room.
        if is_behind {
            live.extend(ledgers.into_iter().map(restore::Told::entry));
            let _ = index.try_send(Message::Reconcile { live, applied: journal.head().seq });
        }
        if !stale.is_empty() {
            let _ = index.try_send(Message::Apply { ops: stale, applied: None });
        }
        let queue = options.queue.max(1);
        let (commands, receiver) = sync_channel(queue);
        let cursors = fold.sinks.clone();
        let writer = Writer {
            journal,
            fold,
            caps: Caps { sessions: options.max_sessions, grants: options.max_grants },
            shared: shared.clone(),
            commands: receiver,
            index,
            index_thread: Some(index_thread),
            sinks: options.sinks,
            segment_octets: options.segment_octets,
            keep_segments: options.keep_segments,
            held_octets: options.held_octets,
            keep_ledgers: options.keep_ledgers,
            lock,
            queue: VecDeque::new(),
            failure: None,
            rotate_after: None,
            index_behind: false,
            told: super::writer::Told::default(),
        };
        let writer = thread::Builder::new().name("journal".into()).spawn(|| writer.run()).map_err(failed)?;
        let thread = writer.thread().clone();
        let place = (dir.to_owned(), identity(dir));
        let inner = Inner { commands, queue, shared, tables, cursors, thread, writer: Mutex::new(Some(writer)), place };
        let store = Self { inner: Arc::new(inner) };
        if !adopted.is_empty() {
            match store.append(adopted)?.wait_blocking() {
                // In force all the same, and still in the index.
                Ok(_) | Err(Error::NotDurable { kept: true, .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok((store, recovered))
    }

    /// Whether another directory, or none, is where the store was opened: what is written now is not found at the next start.
    /// Blocks on the disk.
    pub fn is_astray(&self) -> bool {
        let (dir, opened) = &self.inner.place;
        opened.is_some() && identity(dir) != *opened
    }

    /// Queues `records` to be written next to each other and to become durable together. Never waits: a full queue is
    /// an error, and then nothing of the call is written.
    pub fn append(&self, records: Vec<Record>) -> Result<Commit, Error> {
        let (reply, commit) = oneshot::channel();
        self.send(Command::Append(Group::call(records, wall_ms(), reply)?), true)?;
        // It may be lingering for calls that nobody waits for.
        self.inner.thread.unpark();
        Ok(Commit(commit))
    }

    /// Queues a fact that nobody waits for: durable within a moment if the disk is well, written before whatever is
    /// appended later. What is noted of one session, group or sink in the meantime may become one line. Its line is made
    /// on the journal's thread, and nobody is woken; one that cannot be written is counted and logged there. Never waits.
    ///
    /// # Errors
    /// Where the queue is full or the store closed; nothing is written then.
    pub fn note(&self, record: Record) -> Result<(), Error> {
        self.send(Command::Append(Group::note(record, wall_ms())), false)
    }

    /// Copies a session's ledger to the index, durable within seconds, for the case that the journal is damaged; the
    /// ledger itself is [`Record::Ledger`]s. Never waits.
    ///
    /// # Errors
    /// Where the queue is full or the store closed; nothing is kept then.
    pub fn put_ledger(&self, session: SessionId, state: StateSnapshot) -> Result<(), Error> {
        self.send(Command::Ledger(Box::new(Record::Ledger { session, state })), false)
    }

    /// Keeps what was learned of profiles in the index, durable within seconds, or forgets it. Never waits.
    ///
    /// # Errors
    /// Where the queue is full or the store closed; nothing is kept then.
    pub fn put_learned(&self, changes: Vec<(String, Option<Vec<u8>>)>) -> Result<(), Error> {
        let ops = changes.into_iter().map(|(key, value)| match value {
            Some(mut value) => {
                value.insert(0, VALUE_VERSION);
                Op::Put(Tree::Learned, key.into_bytes(), value)
            }
            None => Op::Delete(Tree::Learned, key.into_bytes()),
        });
        self.send(Command::Index(ops.collect()), false)
    }

    /// Notes a group's ledger in the index, durable within seconds; `at` is Unix milliseconds. For what must not be lost
    /// at all there is [`Record::Group`]. Never waits.
    pub fn put_group(&self, group: &str, at: u64, state: GroupSnapshot) -> Result<(), Error> {
        self.send(Command::Ledger(Box::new(Record::Group { group: group.to_owned(), at, state })), false)
    }

    /// Since when domains are known. Keep it: reading it takes no lock.
    pub fn first_seen(&self) -> Arc<FirstSeen> {
        self.inner.tables.first_seen.clone()
    }

    /// Since when domains are known to each group. Keep it: reading it takes no lock.
    pub fn group_seen(&self) -> Arc<GroupSeen> {
        self.inner.tables.group_seen.clone()
    }

    /// What registries said of domains. Keep it.
    pub fn registered(&self) -> Arc<Registered> {
        self.inner.tables.registered.clone()
    }

    /// Reader of the alerts that `sink` has not taken; `None` if it is not configured. One for each sink.
    pub fn spool(&self, sink: &str) -> Option<Spool> {
        self.inner.cursors.get(sink).map(|cursor| Spool::new(self.clone(), sink, *cursor))
    }

    /// Makes every [`Spool::next`] that waits return.
    pub fn wake(&self) {
        self.inner.shared.wake();
    }

    /// Alerts recorded since the journal began.
    pub fn alerts(&self) -> u64 {
        self.inner.shared.end().alerts
    }

    /// Whether the thread that writes the journal has ended, which it does not by itself before [`Store::close`].
    pub fn has_ended(&self) -> bool {
        self.inner.writer.lock().as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Figures for metrics and readiness. Where nobody writes the journal any more nothing is durable.
    pub fn status(&self) -> Status {
        let status = self.inner.shared.counters.status();
        Status { failing: status.failing || self.has_ended(), ..status }
    }

    /// Writes what is queued, flushes the index, and gives the directory back. Blocks; later appends are refused.
    pub fn close(&self) {
        let Some(thread) = self.inner.writer.lock().take() else { return };
        // Fails only if the thread has ended already.
        let _ = self.inner.commands.send(Command::Shutdown);
        self.inner.thread.unpark();
        let _ = thread.join();
    }

    /// Hands a command to the writer. A quarter of its queue is for what somebody has decided: a disk that hangs must not cost
    /// an alert its place because notes, which are said anew, came before it.
    fn send(&self, command: Command, decided: bool) -> Result<(), Error> {
        let limit = if decided { self.inner.queue } else { self.inner.queue - self.inner.queue / 4 };
        if !self.inner.shared.enters(limit) {
            return Err(Error::QueueFull);
        }
        self.inner.commands.try_send(command).map_err(|error| {
            self.inner.shared.taken();
            match error {
                TrySendError::Full(_) => Error::QueueFull,
                TrySendError::Disconnected(_) => Error::Closed,
            }
        })
    }

    pub(super) fn shared(&self) -> Arc<Shared> {
        self.inner.shared.clone()
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("dir", &self.inner.shared.dir).finish_non_exhaustive()
    }
}

/// Creates the directory and takes its lock, which lasts as long as the file is open.
fn lock(dir: &Path) -> Result<File, Error> {
    private_dir::make(dir).map_err(|error| Error::io("create the state directory", dir, error))?;
    let path = dir.join("lock");
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = file.map_err(|error| Error::io("open", &path, error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::Locked(dir.to_owned())),
        Err(TryLockError::Error(error)) => Err(Error::io("lock", &path, error)),
    }
}

/// Segments that were being made when the process ended: nothing refers to them.
fn remove_unfinished(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with("journal-") && name.ends_with(".jsonl.new") {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// What the journal is to say about itself before anything new: repairs, and sinks that are new.
fn start_marks(fold: &Fold<Loc>, sinks: &[String], seq: u64, damage: &Damage) -> Vec<Mark> {
    let mut marks = Vec::new();
    if !damage.is_empty() {
        let torn = damage.torn.as_ref();
        let octets =
            torn.map_or(0, |torn| torn.place.octets) + damage.unreadable.iter().map(|place| place.octets).sum::<u64>();
        marks.push(Mark::Repaired { octets, aside: torn.and_then(|torn| torn.aside.clone()) });
    }
    let new = sinks.iter().filter(|sink| !fold.sinks.contains_key(*sink));
    marks.extend(new.map(|sink| Mark::Sink { sink: sink.clone(), seq, nth: fold.alerts }));
    marks
}
