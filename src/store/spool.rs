//! The spool: alerts that a sink has not taken yet, read from the journal itself.
//!
//! A sink is a position in the journal. Nothing is held in memory but the line being delivered, so an outage of any
//! length costs disk alone; the writer keeps the segments a configured sink still needs.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::line::{self, Body};
use super::segment::{self, Stretches};
use super::{Error, Record, Shared, Store, fold::Cursor};
use crate::event::Alert;

/// How far a sink has come; shared with whoever shows it.
#[derive(Debug, Default)]
pub struct Progress {
    /// Alerts taken since the journal began.
    nth: AtomicU64,
    /// When the alert at hand was recorded, Unix milliseconds; 0 where there is none.
    oldest: AtomicU64,
}

/// An alert to be delivered.
#[derive(Debug, Clone, PartialEq)]
pub struct Spooled {
    /// The alert.
    pub alert: Alert,
    /// Its sequence in the journal.
    seq: u64,
    /// Its number among all alerts.
    nth: u64,
}

/// One sink's alerts, in the order they were recorded. There must be one reader for each sink.
pub struct Spool {
    store: Store,
    shared: Arc<Shared>,
    dir: PathBuf,
    sink: String,
    taken: Cursor,
    progress: Arc<Progress>,
    /// The alert handed out and not taken yet.
    at_hand: Option<Spooled>,
    /// Segment being read; 0 before the first.
    segment: u32,
    reading: Option<Stretches>,
    /// A delivery that could not be noted; noted with the next chance.
    unnoted: Option<Record>,
}

impl Spool {
    pub(super) fn new(store: Store, sink: &str, taken: Cursor) -> Self {
        let shared = store.shared();
        let progress = Arc::new(Progress { nth: AtomicU64::new(taken.nth), oldest: AtomicU64::new(0) });
        Self {
            dir: shared.dir.clone(),
            shared,
            store,
            sink: sink.to_owned(),
            taken,
            progress,
            at_hand: None,
            segment: 0,
            reading: None,
            unnoted: None,
        }
    }

    /// The sink's name.
    pub fn sink(&self) -> &str {
        &self.sink
    }

    /// Its progress, for display.
    pub fn progress(&self) -> Arc<Progress> {
        self.progress.clone()
    }

    /// The oldest alert not yet [`taken`](Self::taken): the same one until then. Waits up to `wait` for one to become
    /// durable; `None` when there is none by then, or when [`Store::wake`] was called.
    pub fn next(&mut self, wait: Duration) -> Result<Option<Spooled>, Error> {
        self.note();
        if let Some(at_hand) = &self.at_hand {
            return Ok(Some(at_hand.clone()));
        }
        let deadline = Instant::now() + wait;
        let woken = self.shared.wakes();
        loop {
            let end = self.shared.end();
            let found = self.read_to(end.segment, end.offset).map_err(|e| Error::io("read alerts", &self.dir, e))?;
            if let Some(spooled) = found {
                let time = spooled.alert.time.parse::<jiff::Timestamp>().map(|t| t.as_millisecond()).unwrap_or(0);
                self.progress.oldest.store(u64::try_from(time).unwrap_or(0), Ordering::Relaxed);
                self.at_hand = Some(spooled.clone());
                return Ok(Some(spooled));
            }
            // Whatever was counted and is not there any more (a line lost to damage) is not waited for.
            self.taken.nth = end.alerts;
            self.progress.nth.store(end.alerts, Ordering::Relaxed);
            self.progress.oldest.store(0, Ordering::Relaxed);
            if !self.shared.wait_for_more(&end, woken, deadline) {
                return Ok(None);
            }
        }
    }

    /// Notes that the sink has the alert at hand. Not durable at once: after a crash it may be handed out again, with
    /// the same id.
    pub fn taken(&mut self) {
        let Some(spooled) = self.at_hand.take() else { return };
        self.taken = Cursor { seq: spooled.seq, nth: spooled.nth };
        self.progress.nth.store(spooled.nth, Ordering::Relaxed);
        self.progress.oldest.store(0, Ordering::Relaxed);
        self.unnoted = Some(Record::Delivered {
            alert: spooled.alert.id,
            sink: self.sink.clone(),
            seq: spooled.seq,
            nth: spooled.nth,
        });
        self.note();
    }

    fn note(&mut self) {
        if let Some(record) = self.unnoted.take()
            && let Err(Error::QueueFull) = self.store.note(record.clone())
        {
            self.unnoted = Some(record);
        }
    }

    /// Reads on to the next alert before the end given.
    fn read_to(&mut self, end_segment: u32, end_offset: u64) -> io::Result<Option<Spooled>> {
        loop {
            if self.reading.is_none() && !self.open_next(end_segment)? {
                return Ok(None);
            }
            let Some(reading) = &mut self.reading else { return Ok(None) };
            // What is not durable yet may still be taken back.
            reading.limit(if self.segment == end_segment { end_offset } else { u64::MAX });
            let Some(stretch) = reading.next(self.segment < end_segment)? else {
                if self.segment < end_segment {
                    self.reading = None;
                    continue;
                }
                return Ok(None);
            };
            if !line::claims_alert(&stretch.octets)
                || line::claimed_seq(&stretch.octets).is_none_or(|seq| seq <= self.taken.seq)
            {
                continue;
            }
            if let Ok(line::Line { seq, body: Body::Record(record), .. }) = line::decode(&stretch.octets)
                && let Record::Alert { alert } = *record
            {
                return Ok(Some(Spooled { alert: *alert, seq, nth: self.taken.nth + 1 }));
            }
            let segment = segment::file_name(self.segment);
            tracing::error!(segment, offset = stretch.offset, "an alert can no longer be read");
            self.shared.counters.lost(1);
        }
    }

    /// Opens the segment to be read next: at first the one that holds the line after what was taken.
    fn open_next(&mut self, end_segment: u32) -> io::Result<bool> {
        let numbers = segment::list(&self.dir)?;
        let mut after = numbers.iter().copied().filter(|n| *n > self.segment && *n <= end_segment);
        let next = if self.segment == 0 {
            let mut chosen = after.next();
            for number in after {
                let first = Stretches::open(&segment::path(&self.dir, number), 0)?.next(true)?;
                match first.and_then(|s| line::claimed_seq(&s.octets)) {
                    Some(first) if first > self.taken.seq.saturating_add(1) => break,
                    _ => chosen = Some(number),
                }
            }
            chosen
        } else {
            after.next()
        };
        let Some(number) = next else { return Ok(false) };
        self.reading = Some(Stretches::open(&segment::path(&self.dir, number), 0)?);
        // Those in segments that are gone are counted all the same.
        self.taken.nth = self.taken.nth.max(segment::alerts_before(&self.dir, number));
        self.segment = number;
        Ok(true)
    }
}

impl Progress {
    /// Alerts not taken yet.
    pub fn depth(&self, store: &Store) -> u64 {
        store.alerts().saturating_sub(self.nth.load(Ordering::Relaxed))
    }

    /// When the alert at hand was recorded, Unix milliseconds.
    pub fn oldest(&self) -> Option<u64> {
        Some(self.oldest.load(Ordering::Relaxed)).filter(|ms| *ms != 0)
    }
}
