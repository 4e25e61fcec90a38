//! The writer thread: records to lines, lines to the file, to observers and to a short memory.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hashbrown::HashMap;

use super::{Item, Telemetry};
use crate::lines::LineFile;
use crate::model::CaseId;

/// Lines kept in memory for `observe --last`.
const LAST: usize = 1024;
/// Cases kept in memory for `why`; older ones are looked up in the event file.
const CASES: usize = 4096;
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
        if self.lines.len() == LAST {
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

    /// The newest `n` lines, oldest first.
    pub fn last(&self, n: usize) -> Vec<Arc<str>> {
        self.lines.iter().skip(self.lines.len().saturating_sub(n)).cloned().collect()
    }

    /// The newest line of a case.
    pub fn case(&self, case: CaseId) -> Option<Arc<str>> {
        self.cases.get(&case).cloned()
    }
}

/// Drains the ring until told to stop.
pub fn run(telemetry: &Telemetry, mut file: Option<LineFile>) {
    let mut batch = Vec::with_capacity(64 * 1024);
    loop {
        let stopping = telemetry.stop.load(Ordering::Acquire);
        batch.clear();
        while batch.len() < 48 * 1024
            && let Some(item) = telemetry.ring.pop()
        {
            let at = batch.len();
            let (written, case) = match item {
                Item::Decision(record) => {
                    let event = record.to_event();
                    (serde_json::to_writer(&mut batch, &event), event.case)
                }
                Item::Notice(notice) => (serde_json::to_writer(&mut batch, &notice), None),
                Item::Mark(mark) => {
                    // Who waited may have gone away.
                    let _ = mark.send(());
                    continue;
                }
            };
            // Writing JSON into memory fails only for map keys that are not strings; an event has none.
            if written.is_err() {
                batch.truncate(at);
                continue;
            }
            // JSON is UTF-8.
            let line: Arc<str> = std::str::from_utf8(&batch[at..]).unwrap_or_default().into();
            batch.push(b'\n');
            telemetry.recent.lock().push(&line, case);
            if telemetry.tap.receiver_count() > 0 {
                // An error means that the last one has gone meanwhile.
                let _ = telemetry.tap.send(line);
            }
        }
        if !batch.is_empty() {
            if let Some(file) = &mut file {
                file.write(&batch);
            }
        } else if stopping {
            return;
        } else {
            std::thread::sleep(NAP);
        }
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
        assert_eq!(recent.last(2).len(), 2);
    }
}
