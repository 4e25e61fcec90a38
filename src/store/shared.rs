//! What the writer tells everybody else: how far the journal is durable, and counters.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::at_work::AtWork;
use crate::clock;

/// The durable end of the journal.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct End {
    pub(super) segment: u32,
    pub(super) offset: u64,
    /// Alerts recorded since the journal began.
    pub(super) alerts: u64,
}

#[derive(Debug, Default)]
struct State {
    end: End,
    wakes: u64,
    closed: bool,
}

/// Shared by the writer, the handles and the spools.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) dir: PathBuf,
    pub(super) counters: Arc<Counters>,
    state: Mutex<State>,
    changed: Condvar,
    /// Commands in the writer's queue.
    queued: AtomicUsize,
}

impl Shared {
    pub(super) fn new(dir: PathBuf, counters: Arc<Counters>) -> Self {
        Self { dir, counters, state: Mutex::default(), changed: Condvar::new(), queued: AtomicUsize::new(0) }
    }

    /// Counts one into the writer's queue; `false`, and nothing is counted, where `limit` are in it.
    pub(super) fn enters(&self, limit: usize) -> bool {
        let counted = self.queued.fetch_add(1, Ordering::Relaxed) < limit;
        if !counted {
            self.taken();
        }
        counted
    }

    /// The writer has taken one out of its queue, or one did not enter it.
    pub(super) fn taken(&self) {
        self.queued.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn publish(&self, segment: u32, offset: u64, alerts: u64) {
        let mut state = self.state.lock();
        let more = alerts != state.end.alerts;
        state.end = End { segment, offset, alerts };
        drop(state);
        if more {
            self.changed.notify_all();
        }
    }

    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_all();
    }

    pub(super) fn wake(&self) {
        self.state.lock().wakes += 1;
        self.changed.notify_all();
    }

    pub(super) fn wakes(&self) -> u64 {
        self.state.lock().wakes
    }

    pub(super) fn end(&self) -> End {
        self.state.lock().end
    }

    /// Waits until there are more alerts than at `end`. False at the deadline, when woken since `wakes`, or when the
    /// store is closed.
    pub(super) fn wait_for_more(&self, end: &End, wakes: u64, deadline: Instant) -> bool {
        let mut state = self.state.lock();
        loop {
            if state.end.alerts != end.alerts {
                return true;
            }
            if state.closed || state.wakes != wakes || self.changed.wait_until(&mut state, deadline).timed_out() {
                return state.end.alerts != end.alerts;
            }
        }
    }
}

/// Counters of the store.
#[derive(Debug, Default)]
pub(super) struct Counters {
    lines: AtomicU64,
    syncs: AtomicU64,
    sync_micros: AtomicU64,
    write_errors: AtomicU64,
    failing: AtomicBool,
    /// What the writer does with the disk.
    pub(super) writing: AtWork,
    backlog: AtomicU64,
    lost: AtomicU64,
    journal_octets: AtomicU64,
    segments: AtomicU64,
    seq: AtomicU64,
    held_octets: AtomicU64,
    held_much: AtomicBool,
    index_octets: AtomicU64,
    index_skipped: AtomicU64,
    index_failed: AtomicBool,
}

impl Counters {
    pub(super) fn committed(&self, lines: usize, took: Duration) {
        self.lines.fetch_add(lines as u64, Ordering::Relaxed);
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.sync_micros.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.failing.store(false, Ordering::Relaxed);
    }

    pub(super) fn write_failed(&self) {
        self.write_errors.fetch_add(1, Ordering::Relaxed);
        self.failing.store(true, Ordering::Relaxed);
    }

    pub(super) fn backlog(&self, records: usize) {
        self.backlog.store(records as u64, Ordering::Relaxed);
    }

    pub(super) fn lost(&self, records: usize) {
        self.lost.fetch_add(records as u64, Ordering::Relaxed);
    }

    pub(super) fn journal(&self, octets: u64, segments: usize, seq: u64) {
        self.journal_octets.store(octets, Ordering::Relaxed);
        self.segments.store(segments as u64, Ordering::Relaxed);
        self.seq.store(seq, Ordering::Relaxed);
    }

    pub(super) fn held(&self, octets: u64, much: bool) {
        self.held_octets.store(octets, Ordering::Relaxed);
        self.held_much.store(much, Ordering::Relaxed);
    }

    pub(super) fn index_octets(&self, octets: u64) {
        self.index_octets.store(octets, Ordering::Relaxed);
    }

    pub(super) fn index_skipped(&self) {
        self.index_skipped.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn index_failed(&self) {
        self.index_failed.store(true, Ordering::Relaxed);
    }

    pub(super) fn status(&self) -> Status {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Status {
            lines: get(&self.lines),
            syncs: get(&self.syncs),
            sync_time: Duration::from_micros(get(&self.sync_micros)),
            write_errors: get(&self.write_errors),
            failing: self.failing.load(Ordering::Relaxed) || self.writing.hangs(clock::now().mono),
            backlog: get(&self.backlog),
            lost: get(&self.lost),
            journal_octets: get(&self.journal_octets),
            segments: get(&self.segments),
            seq: get(&self.seq),
            held_octets: get(&self.held_octets),
            held_much: self.held_much.load(Ordering::Relaxed),
            index_octets: get(&self.index_octets),
            index_skipped: get(&self.index_skipped),
            index_failed: self.index_failed.load(Ordering::Relaxed),
        }
    }
}

/// Figures for metrics and readiness.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// Lines written since start.
    pub lines: u64,
    /// Writes that became durable since start; `lines / syncs` is the mean size of a group.
    pub syncs: u64,
    /// Time spent in them.
    pub sync_time: Duration,
    /// Failed tries since start.
    pub write_errors: u64,
    /// The last try failed, or does not end: not ready to promise anything durable.
    pub failing: bool,
    /// Records kept in memory because they could not be written.
    pub backlog: u64,
    /// Records that had to be given up since start.
    pub lost: u64,
    /// Octets in all segments.
    pub journal_octets: u64,
    /// Segments.
    pub segments: u64,
    /// Sequence of the last line.
    pub seq: u64,
    /// Octets of segments that are kept only for a sink that has not taken their alerts.
    pub held_octets: u64,
    /// That is more than half of what may be; beyond all of it the oldest alerts are given up.
    pub held_much: bool,
    /// Octets of the index.
    pub index_octets: u64,
    /// Changes the index did not get because it was too slow, since start; it catches up at the next start.
    pub index_skipped: u64,
    /// The index failed and is not used any more by this process.
    pub index_failed: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_the_queue_is_left_to_those_who_may_use_all_of_it() {
        let shared = Shared::new(PathBuf::new(), Arc::default());
        let notes = (0..10).filter(|_| shared.enters(6)).count();
        let decisions = (0..10).filter(|_| shared.enters(8)).count();
        assert_eq!((notes, decisions), (6, 2));
        shared.taken();
        assert!(!shared.enters(6) && shared.enters(8), "what is refused is not counted");
    }
}
