//! The one thread that writes the journal.
//!
//! Group commit: whatever has queued up (at most [`GROUP`] calls) becomes durable with one write and one sync, then
//! every caller is told. Calls that nobody waits for may linger a moment so that they share a sync.
//!
//! When the disk is full or fails, callers get the error at once; what tightens (quarantines, alerts, ledgers, context)
//! is kept in bounded memory and written in order as soon as the disk allows, while what loosens (releases, grants, the
//! end of a session) is not: an operator who was told "not recorded" must be able to rely on it.

use std::collections::{HashSet, VecDeque};
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::fold::{Caps, Fold};
use super::index::Op;
use super::index::thread::{Entry, Message};
use super::journal::{Item, Journal};
use super::line::{Json, Mark};
use super::segment::Loc;
use super::{Error, Record, Shared, wall_ms};

/// Most calls that share one sync.
const GROUP: usize = 64;
/// How long calls nobody waits for may linger, and how long a group is gathered at most.
const LINGER: Duration = Duration::from_millis(2);
/// Pause after a failure before the disk is tried again; callers in between get the same error.
const RETRY: Duration = Duration::from_millis(250);
/// Pause after a failed rotation.
const ROTATE_RETRY: Duration = Duration::from_secs(10);
/// Most memory for calls kept while the disk fails. About ten thousand alerts.
const BACKLOG_OCTETS: usize = 16 << 20;

/// An order to the thread.
pub(super) enum Command {
    /// Write these together.
    Append(Group),
    /// Note a session's or a group's ledger in the index; not in the journal.
    Ledger(Box<Record>),
    /// Change the index alone.
    Index(Vec<Op>),
    /// Write what is queued, and end.
    Shutdown,
}

/// The records of one call.
pub(super) struct Group {
    pub(super) records: Vec<Record>,
    pub(super) items: Vec<Item>,
    /// Octets held, roughly.
    pub(super) octets: usize,
    /// `None` once answered.
    pub(super) reply: Option<oneshot::Sender<Result<u64, Error>>>,
}

impl Group {
    fn awaited(&self) -> bool {
        self.reply.as_ref().is_some_and(|reply| !reply.is_closed())
    }

    fn answer(&mut self, result: Result<u64, Error>) {
        if let Some(reply) = self.reply.take() {
            // The caller may have stopped waiting.
            let _ = reply.send(result);
        }
    }

    /// Whether it is kept for later when it cannot be written now.
    fn tightens(&self) -> bool {
        !self.records.iter().any(|r| matches!(r, Record::Release { .. } | Record::Grant { .. } | Record::End { .. }))
    }

    /// What a later call of the same key makes superfluous.
    fn key(&self) -> Option<(u8, String)> {
        match self.records.as_slice() {
            [Record::Ledger { session, .. }] => Some((0, session.as_str().to_owned())),
            [Record::Delivered { sink, .. }] => Some((1, sink.clone())),
            [Record::Group { group, .. }] => Some((2, group.clone())),
            _ => None,
        }
    }
}

/// Everything the thread owns.
pub(super) struct Writer {
    pub(super) journal: Journal,
    pub(super) fold: Fold<Loc>,
    pub(super) caps: Caps,
    pub(super) shared: Arc<Shared>,
    pub(super) commands: Receiver<Command>,
    pub(super) index: SyncSender<Message>,
    pub(super) index_thread: Option<JoinHandle<()>>,
    /// Configured sinks: alerts they have not taken are not removed.
    pub(super) sinks: Vec<String>,
    pub(super) segment_octets: u64,
    pub(super) keep_segments: usize,
    /// Released when the thread ends.
    pub(super) lock: File,
    pub(super) queue: VecDeque<Group>,
    pub(super) failure: Option<(Instant, Arc<io::Error>)>,
    pub(super) rotate_after: Option<Instant>,
    /// The index has missed something: its sequence stays where it is until the next start.
    pub(super) index_behind: bool,
}

impl Writer {
    pub(super) fn run(mut self) {
        self.publish();
        self.retire();
        while self.gather() {
            self.drain();
        }
        self.drain();
        // Told last, so that it has everything.
        let _ = self.index.send(Message::Shutdown);
        if let Some(thread) = self.index_thread.take() {
            let _ = thread.join();
        }
        self.shared.close();
        let _ = self.lock.unlock();
    }

    /// Takes what has queued up; false when the thread is to end.
    fn gather(&mut self) -> bool {
        let first = if self.queue.is_empty() {
            self.commands.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            self.commands.recv_timeout(RETRY)
        };
        let started = Instant::now();
        let mut awaited = false;
        let mut next = first;
        let mut calls = 0;
        loop {
            match next {
                Ok(Command::Append(group)) => {
                    awaited |= group.awaited();
                    calls += 1;
                    self.queue.push_back(group);
                }
                Ok(Command::Ledger(record)) => self.note_ledger(&record),
                Ok(Command::Index(ops)) => self.note(ops),
                Ok(Command::Shutdown) | Err(RecvTimeoutError::Disconnected) => return false,
                Err(RecvTimeoutError::Timeout) => return true,
            }
            let left = LINGER.saturating_sub(started.elapsed());
            if calls >= GROUP || left.is_zero() {
                return true;
            }
            next = match (awaited, self.commands.try_recv()) {
                (_, Ok(command)) => Ok(command),
                (true, Err(_)) => return true,
                (false, Err(_)) if calls == 0 => return true,
                (false, Err(_)) => self.commands.recv_timeout(left),
            };
        }
    }

    /// Writes the queue as far as the disk allows.
    fn drain(&mut self) {
        while !self.queue.is_empty() {
            self.refuse_excess();
            let result = match &self.failure {
                Some((at, error)) if at.elapsed() < RETRY => Err(error.clone()),
                _ => self.write_group().map_err(Arc::new),
            };
            match result {
                Ok(()) => {
                    if self.failure.take().is_some() {
                        tracing::info!("the journal can be written again");
                    }
                }
                Err(error) => {
                    self.fail(error);
                    break;
                }
            }
        }
        self.shared.counters.backlog(self.queue.iter().map(|g| g.records.len()).sum());
        self.rotate_if_full();
    }

    /// Answers calls for which the fold has no room.
    fn refuse_excess(&mut self) {
        let (fold, caps) = (&self.fold, self.caps);
        self.queue.retain_mut(|group| match fold.admits(&group.records, caps) {
            Ok(()) => true,
            Err(error) => {
                group.answer(Err(error));
                false
            }
        });
    }

    fn write_group(&mut self) -> io::Result<()> {
        if self.journal.is_suspect() {
            self.rotate()?;
        }
        let calls = self.queue.len().min(GROUP);
        let started = Instant::now();
        let locs = self.journal.append(self.queue.iter().take(calls).flat_map(|g| &g.items))?;
        self.shared.counters.committed(locs.len(), started.elapsed());
        let first = (self.journal.head().seq + 1).saturating_sub(locs.len() as u64);
        let mut placed = (first..).zip(locs);
        let mut ops = Vec::new();
        let mut done: Vec<(Group, u64)> = Vec::with_capacity(calls);
        for group in self.queue.drain(..calls) {
            let mut last = 0;
            for ((record, item), (seq, loc)) in group.records.iter().zip(&group.items).zip(&mut placed) {
                self.fold.record(record, || loc);
                ops.extend(Entry::ops(seq, &item.time, record));
                last = seq;
            }
            done.push((group, last));
        }
        self.publish();
        for (mut group, seq) in done {
            group.answer(Ok(seq));
        }
        self.tell_index(ops);
        Ok(())
    }

    /// Tells every caller, and keeps what must not be lost.
    fn fail(&mut self, error: Arc<io::Error>) {
        if self.failure.is_none() {
            tracing::error!(%error, "the journal cannot be written");
        }
        if self.failure.as_ref().is_none_or(|(at, _)| at.elapsed() >= RETRY) {
            self.failure = Some((Instant::now(), error.clone()));
            self.shared.counters.write_failed();
        }
        let mut later = HashSet::new();
        let mut superseded: Vec<bool> =
            self.queue.iter().rev().map(|group| group.key().is_some_and(|key| !later.insert(key))).collect();
        superseded.reverse();
        let mut superseded = superseded.into_iter();
        let mut octets = 0;
        let mut lost = 0;
        self.queue.retain_mut(|group| {
            let superseded = superseded.next().unwrap_or(false);
            let room = octets + group.octets <= BACKLOG_OCTETS;
            let kept = group.tightens() && room;
            group.answer(Err(Error::NotDurable { kept, source: error.clone() }));
            if group.tightens() && !room && !superseded {
                lost += group.records.len();
            }
            let stays = kept && !superseded;
            octets += if stays { group.octets } else { 0 };
            stays
        });
        if lost > 0 {
            tracing::error!(records = lost, "records are lost: the journal has failed for too long");
            self.shared.counters.lost(lost);
        }
    }

    fn note_ledger(&mut self, record: &Record) {
        // Everything queued so far is older than this.
        let queued: usize = self.queue.iter().map(|g| g.items.len()).sum();
        let seq = self.journal.head().seq + queued as u64;
        self.note(Entry::ops(seq, &super::rfc3339(wall_ms()), record));
    }

    /// Changes the index beside the journal: not part of the sequence that it has applied.
    fn note(&mut self, ops: Vec<Op>) {
        if self.index.try_send(Message::Apply { ops, applied: None }).is_err() {
            self.shared.counters.index_skipped();
        }
    }

    /// Hands changes to the index without waiting for it.
    fn tell_index(&mut self, ops: Vec<Op>) {
        let applied = (!self.index_behind).then(|| self.journal.head().seq);
        match self.index.try_send(Message::Apply { ops, applied }) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.index_behind = true;
                self.shared.counters.index_skipped();
            }
        }
    }

    fn rotate_if_full(&mut self) {
        if !self.journal.is_full(self.segment_octets) || self.rotate_after.is_some_and(|at| Instant::now() < at) {
            return;
        }
        if let Err(error) = self.rotate() {
            // The old segment goes on growing; nothing is lost.
            tracing::warn!(%error, "no new journal segment could be started");
            self.rotate_after = Some(Instant::now() + ROTATE_RETRY);
        }
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.fold.prune(wall_ms(), &self.sinks);
        let lost = self.journal.rotate(&mut self.fold, wall_ms())?;
        self.rotate_after = None;
        if lost > 0 {
            self.shared.counters.lost(lost as usize);
        }
        self.publish();
        self.retire();
        Ok(())
    }

    /// Removes segments nobody needs: neither the replay nor a sink that has alerts to take.
    fn retire(&mut self) {
        let alerts = self.fold.alerts;
        let held = self
            .sinks
            .iter()
            .filter_map(|sink| self.fold.sinks.get(sink))
            .filter(|cursor| cursor.nth < alerts)
            .map(|cursor| cursor.seq)
            .min()
            .unwrap_or(u64::MAX);
        if let Err(error) = self.journal.retire(self.keep_segments, held) {
            tracing::warn!(%error, "an old journal segment could not be removed");
        }
        self.publish();
    }

    fn publish(&self) {
        let (segment, offset) = self.journal.end();
        self.shared.publish(segment, offset, self.fold.alerts);
        let (octets, segments) = self.journal.size();
        self.shared.counters.journal(octets, segments, self.journal.head().seq);
    }
}

/// Writes marks at start, before anybody waits.
pub(super) fn write_marks(journal: &mut Journal, fold: &mut Fold<Loc>, marks: &[Mark], now: u64) -> io::Result<()> {
    if marks.is_empty() {
        return Ok(());
    }
    let time = super::rfc3339(now);
    let items: Vec<Item> = marks
        .iter()
        .map(|mark| Ok(Item { time: time.clone(), json: Json::mark(mark)?, more: false }))
        .collect::<serde_json::Result<_>>()
        .map_err(io::Error::other)?;
    journal.append(items.iter())?;
    marks.iter().for_each(|mark| fold.mark(mark));
    Ok(())
}
