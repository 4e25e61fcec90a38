//! The writer thread: records to lines, lines to the file, to observers and to a short memory.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use hashbrown::HashMap;

use super::spill::{self, Spill};
use super::{Item, SpillStatus, Telemetry};
use crate::clock;
use crate::event::Verdict;
use crate::lines::LineFile;
use crate::model::CaseId;

/// Lines kept in memory for `observe --last`.
pub const HELD: usize = 1024;
/// Cases kept in memory for `why`; older ones are looked up in the event file.
const CASES: usize = 4096;
/// Most octets of one write, and of events between two.
const BATCH: usize = 48 * 1024;
/// Pause after a failed write.
const RETRY: Duration = Duration::from_millis(250);
/// How long the writer sleeps when there is nothing to do: the age of an event when an observer sees it.
const NAP: Duration = Duration::from_millis(10);

/// Milliseconds since the Unix epoch as RFC 3339, UTC, with milliseconds.
pub fn rfc3339(wall: u64) -> String {
    match i64::try_from(wall).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok()) {
        Some(time) => format!("{time:.3}"),
        None => "9999-12-31T23:59:59.999Z".to_owned(),
    }
}

/// The newest lines and cases.
#[derive(Debug, Default)]
pub struct Recent {
    lines: VecDeque<Arc<str>>,
    cases: HashMap<CaseId, Arc<str>>,
    order: VecDeque<CaseId>,
}

impl Recent {
    fn push(&mut self, line: &Arc<str>, case: Option<CaseId>) {
        if self.lines.len() == HELD {
            self.lines.pop_front();
        }
        self.lines.push_back(line.clone());
        let Some(case) = case else { return };
        if self.cases.insert(case, line.clone()).is_none() {
            self.order.push_back(case);
            if self.order.len() > CASES
                && let Some(oldest) = self.order.pop_front()
            {
                self.cases.remove(&oldest);
            }
        }
    }

    /// The newest lines, oldest first.
    pub fn lines(&self) -> Vec<Arc<str>> {
        self.lines.iter().cloned().collect()
    }

    /// The newest line of a case.
    pub fn case(&self, case: CaseId) -> Option<Arc<str>> {
        self.cases.get(&case).cloned()
    }
}

/// Drains the ring until told to stop.
pub fn run(telemetry: &Telemetry, file: Option<LineFile>) {
    let mut out = file.map(Out::new);
    let (mut lines, mut scratch) = (Vec::new(), Vec::new());
    loop {
        let stopping = telemetry.stop.load(Ordering::Acquire);
        let mut octets = 0;
        while octets < BATCH
            && let Some(item) = telemetry.ring.pop()
        {
            let item = match item {
                Item::Mark(mark) => {
                    // Who waited may have gone away.
                    let _ = mark.send(());
                    continue;
                }
                item => item,
            };
            let Some((line, case, answer)) = written(&item, &mut scratch) else { continue };
            octets += line.len() + 1;
            tell(telemetry, &line, case);
            lines.push((line, answer));
        }
        let idle = lines.is_empty();
        if let Some(out) = &mut out {
            telemetry.writing.begin(clock::now().mono);
            let status = out.write(&mut lines, Instant::now());
            telemetry.writing.end();
            telemetry.failing.store(status.failing, Ordering::Relaxed);
            telemetry.spilled.store(status.waiting, Ordering::Relaxed);
            telemetry.shed.store(status.shed, Ordering::Relaxed);
        }
        lines.clear();
        if idle && stopping {
            if let Some(out) = &mut out {
                out.end();
            }
            return;
        } else if idle {
            std::thread::sleep(NAP);
        }
    }
}

/// Remembers a line and hands it to observers, in one: who begins to follow has it from the one or from the other.
fn tell(telemetry: &Telemetry, line: &Arc<str>, case: Option<CaseId>) {
    let mut recent = telemetry.recent.lock();
    recent.push(line, case);
    if telemetry.tap.receiver_count() > 0 {
        // An error means that the last one has gone meanwhile.
        let _ = telemetry.tap.send(line.clone());
    }
}

/// An event's line, its case, and whether it tells of an answer.
fn written(item: &Item, scratch: &mut Vec<u8>) -> Option<(Arc<str>, Option<CaseId>, bool)> {
    scratch.clear();
    let (result, case, answer) = match item {
        Item::Decision(record) => {
            let event = record.to_event();
            let answer = event.verdict == Verdict::Answer && event.would == Verdict::Answer;
            (serde_json::to_writer(&mut *scratch, &event), event.case, answer)
        }
        Item::Notice(notice) => (serde_json::to_writer(&mut *scratch, notice), None, false),
        // It says nothing.
        Item::Mark(_) => return None,
    };
    // Writing JSON into memory fails only for map keys that are not strings; an event has none.
    result.ok()?;
    Some((std::str::from_utf8(scratch).ok()?.into(), case, answer))
}

/// The file, and what waits for it.
struct Out {
    file: LineFile,
    spill: Spill,
    batch: Vec<u8>,
    /// Not before this; while the disk fails.
    retry: Option<Instant>,
}

impl Out {
    fn new(file: LineFile) -> Self {
        Self { file, spill: Spill::new(spill::CAPACITY), batch: Vec::with_capacity(BATCH + 4096), retry: None }
    }

    /// Tries once more to write what waits, pause or none; what is lost now is told.
    fn end(&mut self) {
        self.retry = None;
        let SpillStatus { waiting, .. } = self.write(&mut Vec::new(), Instant::now());
        if waiting > 0 {
            tracing::warn!(waiting, "events are lost with this process, since the disk did not take them");
        }
    }

    /// Writes these lines behind what waits; what the disk does not take waits.
    fn write(&mut self, lines: &mut Vec<(Arc<str>, bool)>, now: Instant) -> SpillStatus {
        for (line, answer) in lines.drain(..) {
            self.spill.push(line, answer);
        }
        while !self.spill.is_empty() && self.retry.is_none_or(|at| now >= at) {
            self.batch.clear();
            let mut all = self.spill.lines();
            while self.batch.len() < BATCH
                && let Some(line) = all.next()
            {
                self.batch.extend_from_slice(line.as_bytes());
                self.batch.push(b'\n');
            }
            drop(all);
            let mut taken = self.file.write(&self.batch);
            // A line that was cut short is written again, whole.
            while let Some(line) = self.spill.first()
                && taken > line.len()
            {
                taken -= line.len() + 1;
                self.spill.pop();
            }
            self.retry = self.file.is_failing().then(|| now + RETRY);
        }
        let waiting = self.spill.len() as u64;
        SpillStatus { failing: self.file.is_failing(), waiting, shed: self.spill.shed() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc3339_in_utc() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(1_767_225_600_123), "2026-01-01T00:00:00.123Z");
        assert_eq!(rfc3339(u64::MAX), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn cases_are_kept_up_to_a_cap() {
        let mut recent = Recent::default();
        for n in 0..(CASES as u64 + 10) {
            recent.push(&n.to_string().into(), Some(CaseId::from_random(n)));
        }
        assert_eq!(recent.cases.len(), CASES);
        assert!(recent.case(CaseId::from_random(3)).is_none());
        assert_eq!(recent.case(CaseId::from_random(CASES as u64)).as_deref(), Some(CASES.to_string().as_str()));
        assert_eq!(
            (recent.lines().len(), recent.lines().last().map(|line| line.to_string())),
            (HELD, Some("4105".into()))
        );
    }
}
