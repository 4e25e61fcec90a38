//! The thread that owns the index, and opening it so that damaged files cannot take the process down.

use std::collections::HashSet;
use std::fs::{self, Permissions};
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::entry::Entry;
use super::pending::Pending;
use super::seen::{Seen, Tables};
use super::sights::Sight;
use super::{IndexError, MemoryStore, Op, SledStore, StateStore, Tree, VALUE_VERSION};
use crate::private_dir;
use crate::store::recover::IndexDamage;
use crate::store::{Counters, Error, IndexKind, SCHEMA};

/// Directory of the index in the state directory.
const DIRECTORY: &str = "index";
/// Left behind when the index failed while running, so that the next start does not trust it.
const FAILED: &str = "index.failed";
/// Damaged indexes kept for whoever wants to know why.
const KEEP_ASIDE: usize = 3;
/// Octets of page cache. Real use is several times that, so it stays small.
const CACHE: u64 = 16 << 20;
/// How long a change waits at most until it is applied and made durable, all that wait together.
const FLUSH: Duration = Duration::from_secs(1);
/// How often what has come in is looked for while anything waits. Who sends wakes nobody: a wake-up for each change
/// costs more than the change.
const TICK: Duration = Duration::from_millis(50);

/// Most values of [`Tree::Learned`] that are read: several times what is ever written.
const MAX_LEARNED: usize = 128;

/// An order to the thread.
#[derive(Debug)]
pub(in crate::store) enum Message {
    /// Changes, and the journal sequence they reach.
    Apply { ops: Vec<Op>, applied: Option<u64> },
    /// A first sight, of [`Tree::FirstSeen`] or [`Tree::GroupSeen`].
    Saw(Tree, Sight),
    /// The trees that mirror the journal are to hold exactly this; a ledger that the index has newer stays.
    Reconcile { live: Vec<Entry>, applied: u64 },
    /// Flush and end.
    Shutdown,
}

/// An index ready for use, and what it held.
pub(in crate::store) struct Opened {
    pub(in crate::store) store: Box<dyn StateStore>,
    pub(in crate::store) held: Held,
    pub(in crate::store) damage: Option<IndexDamage>,
    /// The disk keeps none for this run: what is here is in memory and ends with the process.
    pub(in crate::store) failed: bool,
}

/// What the index held when it was opened.
#[derive(Debug)]
pub(in crate::store) struct Held {
    /// It was empty: new, or its contents were lost.
    pub(in crate::store) fresh: bool,
    /// Unix milliseconds.
    pub(in crate::store) created: u64,
    /// Key of the first-seen table's hash.
    pub(in crate::store) hash_key: [u8; 16],
    /// Journal sequence applied.
    pub(in crate::store) applied: u64,
    pub(in crate::store) quarantines: Vec<Entry>,
    pub(in crate::store) ledgers: Vec<Entry>,
    /// Profiles and what was learned of them.
    pub(in crate::store) learned: Vec<(String, Vec<u8>)>,
    pub(in crate::store) groups: Vec<Entry>,
}

/// Opens the index in `dir`, or puts a damaged one aside and starts anew. One that the disk does not give or take now is
/// left as it is, for the next start. `now` is Unix milliseconds.
pub(in crate::store) fn open(dir: &Path, kind: IndexKind, now: u64) -> Result<Opened, Error> {
    if kind == IndexKind::Memory {
        return in_memory(now, None, false);
    }
    let path = dir.join(DIRECTORY);
    open_with(dir, now, move || {
        // Its files are made with whatever mode the umask leaves.
        private_dir::make(&path).map_err(|error| IndexError::Io(Arc::new(error)))?;
        // One of an earlier version.
        let _ = fs::set_permissions(&path, Permissions::from_mode(0o700));
        Ok(Box::new(SledStore::open(&path, CACHE)?) as Box<dyn StateStore>)
    })
}

fn open_with<F>(dir: &Path, now: u64, open: F) -> Result<Opened, Error>
where
    F: FnOnce() -> Result<Box<dyn StateStore>, IndexError> + Clone + Send + 'static,
{
    let marker = dir.join(FAILED);
    let first = match fs::read_to_string(&marker) {
        Ok(cause) => Err(IndexError::Damaged(cause)),
        Err(_) => contained(open.clone(), now),
    };
    let cause = match first {
        Ok((store, held)) => return Ok(Opened { store, held, damage: None, failed: false }),
        Err(IndexError::Newer { found, known }) => return Err(Error::NewerSchema { what: "index", found, known }),
        Err(error) if error.is_of_the_disk() => return without(now, &error, None),
        Err(error) => error.to_string(),
    };
    let aside = put_aside(dir, &dir.join(DIRECTORY), now);
    if let Err(error) = &aside {
        tracing::error!(%error, "the damaged index could not be put aside");
    }
    // A marker that stays only costs the next start another new index.
    let _ = fs::remove_file(&marker);
    let damage = Some(IndexDamage { aside: aside.ok().flatten(), cause });
    match contained(open, now) {
        Ok((store, held)) => Ok(Opened { store, held, damage, failed: false }),
        Err(error) => without(now, &error, damage),
    }
}

/// Goes on without one on disk.
fn without(now: u64, error: &IndexError, damage: Option<IndexDamage>) -> Result<Opened, Error> {
    tracing::error!(%error, "the index cannot be used; it is left as it is, and this run goes on without");
    in_memory(now, damage, true)
}

fn in_memory(now: u64, damage: Option<IndexDamage>, failed: bool) -> Result<Opened, Error> {
    let (store, held) = contained(|| Ok(Box::new(MemoryStore::new()) as Box<dyn StateStore>), now)?;
    Ok(Opened { store, held, damage, failed })
}

type OpenResult = Result<(Box<dyn StateStore>, Held), IndexError>;

/// Opens and reads on a thread of its own, so that a panic stays there.
fn contained(open: impl FnOnce() -> Result<Box<dyn StateStore>, IndexError> + Send + 'static, now: u64) -> OpenResult {
    let work = move || {
        let mut store = open()?;
        let held = read(&mut *store, now)?;
        Ok((store, held))
    };
    let thread = thread::Builder::new()
        .name("index-open".into())
        .spawn(work)
        .map_err(|error| IndexError::Io(Arc::new(error)))?;
    thread.join().unwrap_or_else(|panic| Err(panicked(&*panic)))
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> IndexError {
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    IndexError::Panicked(text.unwrap_or("no message").to_owned())
}

const META_SCHEMA: &[u8] = b"schema";
const META_WRITER: &[u8] = b"writer";
const META_CREATED: &[u8] = b"created";
const META_APPLIED: &[u8] = b"applied";
const META_HASH_KEY: &[u8] = b"hash_key";

fn read(store: &mut dyn StateStore, now: u64) -> Result<Held, IndexError> {
    let number = |store: &dyn StateStore, key| -> Result<Option<u64>, IndexError> {
        let Some(value) = store.get(Tree::Meta, key)? else { return Ok(None) };
        let octets = <[u8; 8]>::try_from(value.as_slice());
        octets.map(|octets| Some(u64::from_be_bytes(octets))).map_err(|_| IndexError::Damaged("meta".into()))
    };
    let meta = |key: &[u8], value: &[u8]| Op::Put(Tree::Meta, key.to_vec(), value.to_vec());
    let schema = number(store, META_SCHEMA)?;
    match schema.map(|n| u32::try_from(n).unwrap_or(u32::MAX)) {
        Some(found) if found > SCHEMA => return Err(IndexError::Newer { found, known: SCHEMA }),
        // Values of earlier ones are read as they are; what is written from here on they could not read.
        Some(found) if found < SCHEMA => store.apply(vec![meta(META_SCHEMA, &u64::from(SCHEMA).to_be_bytes())])?,
        Some(_) => {}
        None => {
            let mut hash_key = [0; 16];
            getrandom::fill(&mut hash_key).map_err(|error| IndexError::Io(Arc::new(io::Error::other(error))))?;
            store.apply(vec![
                meta(META_CREATED, &now.to_be_bytes()),
                meta(META_HASH_KEY, &hash_key),
                meta(META_WRITER, env!("CARGO_PKG_VERSION").as_bytes()),
                meta(META_SCHEMA, &u64::from(SCHEMA).to_be_bytes()),
            ])?;
            store.flush()?;
        }
    }
    let hash_key = store.get(Tree::Meta, META_HASH_KEY)?.and_then(|key| key.try_into().ok());
    let mut held = Held {
        fresh: schema.is_none(),
        created: number(store, META_CREATED)?.unwrap_or(now),
        hash_key: hash_key.ok_or_else(|| IndexError::Damaged("no hash key".into()))?,
        applied: number(store, META_APPLIED)?.unwrap_or(0),
        quarantines: Vec::new(),
        ledgers: Vec::new(),
        learned: Vec::new(),
        groups: Vec::new(),
    };
    for tree in [Tree::Quarantine, Tree::Ledger, Tree::Group, Tree::GroupNames] {
        let list = match tree {
            Tree::Quarantine => &mut held.quarantines,
            Tree::Ledger => &mut held.ledgers,
            _ => &mut held.groups,
        };
        let mut failed = None;
        store.scan(tree, b"", &mut |_, value| match Entry::read(value) {
            Ok(entry) => {
                list.push(entry);
                ControlFlow::Continue(())
            }
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        })?;
        failed.map_or(Ok(()), Err)?;
    }
    store.scan(Tree::Learned, b"", &mut |key, value| {
        // Of a form that is not known here: left where it is, for the version that knows it.
        if let (Ok(key), Some((&VALUE_VERSION, value))) = (std::str::from_utf8(key), value.split_first()) {
            held.learned.push((key.to_owned(), value.to_vec()));
        }
        if held.learned.len() < MAX_LEARNED { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    Ok(held)
}

/// Renames the directory, and removes the oldest of many such.
fn put_aside(dir: &Path, path: &Path, now: u64) -> io::Result<Option<String>> {
    if !path.exists() {
        return Ok(None);
    }
    let prefix = format!("{DIRECTORY}.damaged-");
    let name = format!("{prefix}{now}");
    fs::rename(path, dir.join(&name))?;
    let mut kept: Vec<PathBuf> = fs::read_dir(dir)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix)))
        .collect();
    kept.sort();
    for old in kept.iter().rev().skip(KEEP_ASIDE) {
        fs::remove_dir_all(old)?;
    }
    Ok(Some(name))
}

/// Runs the index until it is told to end or nobody can tell it anything any more.
pub(in crate::store) fn spawn(
    store: Box<dyn StateStore>,
    messages: Receiver<Message>,
    tables: Tables,
    counters: Arc<Counters>,
    dir: &Path,
) -> io::Result<JoinHandle<()>> {
    let marker = dir.join(FAILED);
    thread::Builder::new().name("index".into()).spawn(move || {
        let (dirty, pending, mut seen) = (false, Pending::default(), Seen::of(&tables));
        let mut run = Run { store: Some(store), dirty, applied: None, pending, seen: None, counters, marker };
        run.attempt(|store, _| tables.load(store, &mut seen));
        run.seen = Some(seen);
        // Also when that failed: a table that begins empty errs on the side of "new".
        tables.first_seen.loaded();
        tables.group_seen.loaded();
        drop(tables);
        run.until_shutdown(&messages);
    })
}

struct Run {
    /// `None` once it has failed.
    store: Option<Box<dyn StateStore>>,
    dirty: bool,
    applied: Option<u64>,
    pending: Pending,
    /// Nothing before the tables are loaded.
    seen: Option<Seen>,
    counters: Arc<Counters>,
    marker: PathBuf,
}

impl Run {
    /// Gathers changes for [`FLUSH`] from the first one on, then applies and flushes them in one go. [`Message::Shutdown`]
    /// is to be followed by an unpark; nothing else needs one.
    fn until_shutdown(&mut self, messages: &Receiver<Message>) {
        let mut on = true;
        while on {
            // Nothing waits: sleep until something comes.
            on = messages.recv().is_ok_and(|message| self.take(message));
            let due = Instant::now() + FLUSH;
            while on && Instant::now() < due {
                on = match messages.try_recv() {
                    Ok(message) => self.take(message),
                    Err(TryRecvError::Disconnected) => false,
                    Err(TryRecvError::Empty) => {
                        thread::park_timeout(TICK.min(due.saturating_duration_since(Instant::now())));
                        true
                    }
                };
            }
            self.flush();
        }
    }

    /// False where it is the last.
    fn take(&mut self, message: Message) -> bool {
        match message {
            Message::Apply { ops, applied } => {
                self.dirty |= applied.is_some_and(|applied| self.applied != Some(applied));
                self.applied = applied.or(self.applied);
                self.pending.take(ops);
                if self.pending.is_full() {
                    self.apply();
                }
            }
            Message::Saw(tree, sight) => {
                let op = self.seen.as_mut().and_then(|seen| seen.take(tree, &sight));
                // Durable with the next flush.
                self.pending.take(op.into_iter().collect());
                if self.pending.is_full() {
                    self.apply();
                }
            }
            Message::Reconcile { live, applied } => {
                self.apply();
                self.applied = Some(applied);
                self.attempt(|store, _| reconcile(store, &live));
            }
            Message::Shutdown => return false,
        }
        true
    }

    fn apply(&mut self) {
        let ops = self.pending.drain();
        if !ops.is_empty() {
            self.attempt(|store, _| store.apply(ops));
        }
    }

    fn flush(&mut self) {
        let mut seen = self.seen.take();
        if let Some(seen) = &mut seen {
            self.pending.take(seen.put());
        }
        self.apply();
        if let Some(seen) = &mut seen
            && seen.is_due()
        {
            self.attempt(|store, _| seen.tidy(store));
        }
        self.seen = seen;
        if !std::mem::take(&mut self.dirty) {
            return;
        }
        self.attempt(|store, applied| {
            if let Some(applied) = applied {
                // Behind what it says was applied.
                store.apply(vec![Op::Put(Tree::Meta, META_APPLIED.to_vec(), applied.to_be_bytes().to_vec())])?;
            }
            store.flush()
        });
        self.dirty = false;
        if let Some(store) = &self.store {
            self.counters.index_octets(store.size_on_disk());
        }
    }

    /// Does something with the index. If that fails or panics the index is not used again by this process. The next start
    /// opens it as behind a crash where the disk was at fault, and builds a new one from the journal where it was not.
    fn attempt(&mut self, work: impl FnOnce(&mut dyn StateStore, Option<u64>) -> Result<(), IndexError>) {
        let Some(mut store) = self.store.take() else { return };
        self.dirty = true;
        let applied = self.applied;
        let outcome = catch_unwind(AssertUnwindSafe(|| work(&mut *store, applied)))
            .unwrap_or_else(|panic| Err(panicked(&*panic)));
        match outcome {
            Ok(()) => self.store = Some(store),
            Err(error) => {
                self.counters.index_failed();
                if error.is_of_the_disk() {
                    tracing::error!(%error, "the index failed; the next start goes on with what of it is on disk");
                } else {
                    tracing::error!(%error, "the index failed; it will be built anew at the next start");
                    if let Err(error) = fs::write(&self.marker, error.to_string()) {
                        tracing::error!(%error, "could not note that the index failed");
                    }
                }
                // What panicked once may panic again while it is put away.
                let _ = catch_unwind(AssertUnwindSafe(|| drop(store)));
            }
        }
    }
}

/// Changes applied at once while reconciling.
const BATCH: usize = 1_000;

/// Makes the trees that mirror the journal hold exactly what is live.
fn reconcile(store: &mut dyn StateStore, live: &[Entry]) -> Result<(), IndexError> {
    let wanted: HashSet<(Tree, Vec<u8>)> = live.iter().filter_map(|entry| Entry::place(&entry.record)).collect();
    let mut ops = Vec::new();
    for tree in [Tree::Session, Tree::Quarantine, Tree::Grant] {
        store.scan(tree, b"", &mut |key, _| {
            if !wanted.contains(&(tree, key.to_vec())) {
                ops.push(Op::Delete(tree, key.to_vec()));
            }
            ControlFlow::Continue(())
        })?;
    }
    for entry in live {
        let newer = match Entry::place(&entry.record) {
            Some((tree @ (Tree::Ledger | Tree::Group), key)) => {
                store.get(tree, &key)?.is_some_and(|value| Entry::read(&value).is_ok_and(|e| e.seq > entry.seq))
            }
            _ => false,
        };
        if !newer {
            ops.extend(entry.put());
        }
        if ops.len() >= BATCH {
            store.apply(std::mem::take(&mut ops))?;
        }
    }
    store.apply(ops)
}

#[cfg(test)]
mod tests;
