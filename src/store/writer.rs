//! The one thread that writes the journal.
//!
//! Group commit: whatever has queued up (at most [`GROUP`] calls) becomes durable with one write and one sync, then
//! every caller is told. Calls that nobody waits for linger a moment so that they share a sync: for [`LINGER`] the thread
//! sleeps whatever is sent, unless somebody waits for it and wakes it.
//!
//! When the disk is full or fails, callers get the error at once; what tightens or has happened (quarantines, alerts,
//! ledgers, context, the end of a session) is kept in bounded memory and written in order as soon as the disk allows, while
//! what loosens (releases, grants) is not: an operator who was told "not recorded" must be able to rely on it.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, TrySendError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::fold::{Caps, Fold};
use super::index::Op;
use super::index::entry::Entry;
use super::index::thread::Message;
use super::journal::{Item, Journal, Retired};
use super::line::{Json, Mark};
use super::queue::{Group, coalesce};
use super::segment::Loc;
use super::{CLOSED_WITHIN, Error, Record, Shared, wall_ms};
use crate::clock;
use crate::sparing::Sparing;

/// Most calls that share one sync. Their lines are made and written in a few milliseconds, which whoever waits pays.
const GROUP: usize = 1024;
/// How long calls nobody waits for may linger.
const LINGER: Duration = Duration::from_millis(20);
/// How long a group is gathered at most once somebody waits.
const AWAITED: Duration = Duration::from_millis(2);
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
    /// Copy a session's or a group's ledger to the index; not to the journal.
    Ledger(Box<Record>),
    /// Change the index alone.
    Index(Vec<Op>),
    /// Write what is queued, and end.
    Shutdown,
}

/// Warnings that a disk which fails, or fails now and then, would repeat.
#[derive(Debug, Default)]
pub(super) struct Told {
    failing: Sparing,
    again: Sparing,
    notes: Sparing,
    lost: Sparing,
    held: Sparing,
    gone: Sparing,
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
    pub(super) held_octets: u64,
    pub(super) keep_ledgers: Duration,
    /// Released when the thread ends.
    pub(super) lock: File,
    pub(super) queue: VecDeque<Group>,
    pub(super) failure: Option<(Instant, Arc<io::Error>)>,
    pub(super) rotate_after: Option<Instant>,
    /// The index has missed something: its sequence stays where it is until the next start.
    pub(super) index_behind: bool,
    /// When it was last told what.
    pub(super) told: Told,
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
            thread.thread().unpark();
            let _ = thread.join();
        }
        self.shared.close();
        let _ = self.lock.unlock();
    }

    /// Takes what has queued up; false when the thread is to end.
    fn gather(&mut self) -> bool {
        let mut next = if self.queue.is_empty() {
            self.commands.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            self.commands.recv_timeout(RETRY)
        };
        let started = Instant::now();
        let (mut awaited, mut calls) = (false, 0);
        loop {
            match next {
                Ok(Command::Append(group)) => {
                    self.shared.taken();
                    awaited |= group.awaited();
                    calls += 1;
                    self.queue.push_back(group);
                }
                Ok(Command::Ledger(record)) => {
                    self.shared.taken();
                    self.copy_ledger(*record);
                }
                Ok(Command::Index(ops)) => {
                    self.shared.taken();
                    self.note(ops);
                }
                Ok(Command::Shutdown) | Err(RecvTimeoutError::Disconnected) => return false,
                Err(RecvTimeoutError::Timeout) => {}
            }
            let waits = if awaited { AWAITED } else { LINGER };
            if calls >= GROUP || started.elapsed() >= waits {
                return true;
            }
            next = match self.commands.try_recv() {
                Ok(command) => Ok(command),
                Err(TryRecvError::Disconnected) => Err(RecvTimeoutError::Disconnected),
                Err(TryRecvError::Empty) if awaited || self.queue.is_empty() => return true,
                Err(TryRecvError::Empty) => {
                    // Woken by whoever waits; others are found when it is over.
                    thread::park_timeout(LINGER.saturating_sub(started.elapsed()));
                    Err(RecvTimeoutError::Timeout)
                }
            };
        }
    }

    /// Writes the queue as far as the disk allows.
    fn drain(&mut self) {
        self.shared.counters.writing.begin(clock::now().mono);
        self.write_queue();
        self.shared.counters.writing.end();
    }

    fn write_queue(&mut self) {
        while !self.queue.is_empty() {
            self.refuse_excess();
            coalesce(&mut self.queue, self.failure.is_some());
            self.write_out();
            let result = match &self.failure {
                Some((at, error)) if at.elapsed() < RETRY => Err(error.clone()),
                _ => self.write_group().map_err(Arc::new),
            };
            match result {
                Ok(()) => {
                    if self.failure.take().is_some()
                        && let Some(kept_back) = self.told.again.turn(clock::now().mono)
                    {
                        tracing::info!(kept_back, "the journal can be written again");
                    }
                }
                Err(error) => {
                    self.fail(error);
                    break;
                }
            }
        }
        self.shared.counters.backlog(self.queue.iter().map(|g| g.records.len()).sum());
        if self.journal.size().1 > self.keep_segments {
            // A receiver may have taken what they were kept for.
            self.retire();
        }
        self.rotate_if_full();
    }

    /// Answers calls for which the fold has no room.
    fn refuse_excess(&mut self) {
        let (fold, caps) = (&self.fold, self.caps);
        let given_up = give_up(&mut self.queue, |group| fold.admits(&group.records, caps));
        self.told(given_up);
    }

    /// Makes the lines of notes.
    fn write_out(&mut self) {
        let given_up = give_up(&mut self.queue, Group::write_out);
        self.told(given_up);
    }

    /// Counts records that were given up without anybody hearing of it, and tells it now and then.
    fn told(&mut self, (records, error): (usize, Option<Error>)) {
        let Some(error) = error else { return };
        self.shared.counters.lost(records);
        if let Some(kept_back) = self.told.notes.turn(clock::now().mono) {
            tracing::warn!(%error, records, kept_back, "records were not journalled");
        }
    }

    fn write_group(&mut self) -> io::Result<()> {
        if self.journal.is_suspect() {
            self.rotate()?;
        }
        let calls = self.queue.len().min(GROUP);
        let started = Instant::now();
        let locs = self.journal.append(self.queue.iter().take(calls).flat_map(Group::items))?;
        self.shared.counters.committed(locs.len(), started.elapsed());
        let first = (self.journal.head().seq + 1).saturating_sub(locs.len() as u64);
        let mut placed = (first..).zip(locs);
        let mut ops = Vec::new();
        let mut done: Vec<(Group, u64)> = Vec::with_capacity(calls);
        for group in self.queue.drain(..calls) {
            let mut last = 0;
            for ((record, item), (seq, loc)) in group.records.iter().zip(group.items()).zip(&mut placed) {
                self.fold.record(record, || group.at, || loc);
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
        if let Some(kept_back) = self.told.failing.turn(clock::now().mono) {
            tracing::error!(%error, kept_back, "the journal cannot be written; decisions hold in memory");
        }
        if self.failure.as_ref().is_none_or(|(at, _)| at.elapsed() >= RETRY) {
            self.failure = Some((Instant::now(), error.clone()));
            self.shared.counters.write_failed();
        }
        let kept = keep(&self.queue);
        let (mut lost, mut kept) = (0, kept.into_iter());
        self.queue.retain_mut(|group| {
            let kept = kept.next().unwrap_or(false);
            group.answer(Err(Error::NotDurable { kept, source: error.clone() }));
            lost += if group.tightens() && !kept { group.records.len() } else { 0 };
            kept
        });
        if lost > 0 {
            self.shared.counters.lost(lost);
            if let Some(kept_back) = self.told.lost.turn(clock::now().mono) {
                tracing::error!(records = lost, kept_back, "records are lost: the journal has failed for too long");
            }
        }
    }

    fn copy_ledger(&mut self, record: Record) {
        // Everything queued so far is older than this.
        let queued: usize = self.queue.iter().map(|g| g.records.len()).sum();
        let seq = self.journal.head().seq + queued as u64;
        let entry = Entry { seq, time: super::rfc3339(wall_ms()), record };
        self.note(entry.put().into_iter().collect());
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
        // A clock that was set forward must not let a ledger be forgotten, and with it what was spent.
        let now = clock::now().wall.earliest().saturating_sub(CLOSED_WITHIN);
        self.fold.prune(now, &self.sinks, self.keep_ledgers);
        let lost = self.journal.rotate(&mut self.fold, wall_ms())?;
        self.rotate_after = None;
        if lost > 0 {
            self.shared.counters.lost(lost as usize);
        }
        self.publish();
        self.retire();
        Ok(())
    }

    /// Removes segments nobody needs: neither the replay nor a sink that has alerts to take. What a sink that takes none would
    /// have us keep is bounded, since an agent decides how fast the journal grows.
    fn retire(&mut self) {
        let alerts = self.fold.alerts;
        let behind = self.sinks.iter().filter_map(|sink| Some((sink, *self.fold.sinks.get(sink)?)));
        let last = behind.filter(|(_, cursor)| cursor.nth < alerts).min_by_key(|(_, cursor)| cursor.seq);
        match self.journal.retire(self.keep_segments, last.map(|(_, cursor)| cursor), self.held_octets) {
            Ok(Retired { held: octets, gone, past }) => {
                let sink = last.map_or("", |(sink, _)| sink.as_str());
                let much = octets > self.held_octets / 2;
                self.shared.counters.held(octets, much);
                self.shared.counters.lost(usize::try_from(gone).unwrap_or(usize::MAX));
                if let Some(past) = past {
                    self.sinks.iter().for_each(|sink| self.fold.advance(sink, past));
                }
                let now = clock::now().mono;
                if gone > 0
                    && let Some(kept_back) = self.told.gone.turn(now)
                {
                    tracing::error!(
                        sink,
                        alerts = gone,
                        kept_back,
                        "alerts were given up: a receiver has not taken them for too long"
                    );
                } else if much && let Some(kept_back) = self.told.held.turn(now) {
                    tracing::warn!(
                        sink,
                        octets,
                        kept_back,
                        "a receiver of alerts takes none, and the journal is kept for it"
                    );
                }
            }
            Err(error) => tracing::warn!(%error, "an old journal segment could not be removed"),
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

/// Which calls are kept while the disk fails: what tightens, as far as there is room, and alerts and quarantines before all
/// else, however much of anything has come before them.
fn keep(queue: &VecDeque<Group>) -> Vec<bool> {
    let mut kept = vec![false; queue.len()];
    let mut octets = 0;
    for decisions in [true, false] {
        for (kept, group) in kept.iter_mut().zip(queue) {
            let wanted = group.tightens() && group.decides() == decisions;
            if wanted && octets + group.octets <= BACKLOG_OCTETS {
                octets += group.octets;
                *kept = true;
            }
        }
    }
    kept
}

/// Takes calls out of the queue that cannot be written, and answers them; how many records nobody heard of, and why.
fn give_up(
    queue: &mut VecDeque<Group>,
    mut check: impl FnMut(&mut Group) -> Result<(), Error>,
) -> (usize, Option<Error>) {
    let (mut records, mut last) = (0, None);
    queue.retain_mut(|group| {
        let Err(error) = check(group) else { return true };
        if !group.awaited() {
            records += group.records.len();
            last = Some(error.clone());
        }
        group.answer(Err(error));
        false
    });
    (records, last)
}

/// Writes marks at start, before anybody waits. They hold also where that fails.
pub(super) fn write_marks(journal: &mut Journal, fold: &mut Fold<Loc>, marks: &[Mark], now: u64) -> io::Result<()> {
    if marks.is_empty() {
        return Ok(());
    }
    marks.iter().for_each(|mark| fold.mark(mark));
    let time = super::rfc3339(now);
    let items: Vec<Item> = marks
        .iter()
        .map(|mark| Ok(Item { time: time.clone(), json: Json::mark(mark)?, more: false }))
        .collect::<serde_json::Result<_>>()
        .map_err(io::Error::other)?;
    journal.append(items.iter()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::{Asks, announce, quarantine, session};

    #[test]
    fn while_the_disk_fails_decisions_are_kept_before_what_is_said_anew() {
        let ledger = |n| Record::Ledger { session: session(n), state: Asks::default().state.step() };
        let release = Record::Release { session: session(1), by: "ops".into(), note: "seen".into(), extend: 0 };
        let end = Record::End { session: session(4) };
        let records = [ledger(1), release, ledger(2), quarantine(3), announce(4), quarantine(5), end];
        let mut queue: VecDeque<_> = records.into_iter().map(|record| Group::note(record, 7)).collect();
        let kept = |queue: &VecDeque<Group>| keep(queue).iter().map(|kept| u8::from(*kept)).collect::<Vec<_>>();
        assert_eq!(kept(&queue), [1, 0, 1, 1, 1, 1, 1], "a release is never kept, an end is");
        // Each takes half of the room.
        queue.iter_mut().for_each(|group| group.octets = BACKLOG_OCTETS / 2);
        assert_eq!(kept(&queue), [0, 0, 0, 1, 0, 1, 0], "both quarantines, though others were first");
        queue.truncate(4);
        assert_eq!(kept(&queue), [1, 0, 0, 1], "what is left goes to the oldest");
    }
}
