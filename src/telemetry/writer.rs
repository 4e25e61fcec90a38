//! The writer thread: records to lines, lines to the file, to observers and to a short memory.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hashbrown::HashMap;

use super::{Config, Telemetry};
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

/// The event file, rotated by size.
pub struct EventFile {
    open: Option<Open>,
    rotate_bytes: u64,
    keep: u32,
    failing: bool,
}

struct Open {
    path: PathBuf,
    file: File,
    size: u64,
}

impl EventFile {
    /// Opens or creates the configured file for appending.
    pub fn open(config: &Config) -> io::Result<Self> {
        let open = match &config.file {
            Some(path) => Some(Open::append(path)?),
            None => None,
        };
        Ok(Self { open, rotate_bytes: config.rotate_bytes.max(1 << 16), keep: config.keep, failing: false })
    }

    fn write(&mut self, lines: &[u8]) {
        let Some(open) = &mut self.open else { return };
        let mut result = open.file.write_all(lines);
        open.size += lines.len() as u64;
        if result.is_ok() && open.size >= self.rotate_bytes {
            result = rotate(&open.path, self.keep).and_then(|()| {
                *open = Open::append(&open.path.clone())?;
                Ok(())
            });
        }
        // Decisions go on without their record; the operator is told once when it begins and once when it ends.
        match (result, self.failing) {
            (Err(error), false) => {
                tracing::error!(%error, file = %open.path.display(), "events cannot be written");
                self.failing = true;
            }
            (Ok(()), true) => {
                tracing::warn!(file = %open.path.display(), "events are written again");
                self.failing = false;
            }
            _ => {}
        }
    }
}

impl Open {
    fn append(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::OpenOptionsExt;
        let file = OpenOptions::new().create(true).append(true).mode(0o640).open(path)?;
        let size = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, size })
    }
}

fn rotate(path: &Path, keep: u32) -> io::Result<()> {
    let numbered = |n: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{n}"));
        PathBuf::from(name)
    };
    for n in (1..keep).rev() {
        match std::fs::rename(numbered(n), numbered(n + 1)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    if keep == 0 { std::fs::remove_file(path) } else { std::fs::rename(path, numbered(1)) }
}

/// Drains the ring until told to stop.
pub fn run(telemetry: &Telemetry, mut file: EventFile) {
    let mut batch = Vec::with_capacity(64 * 1024);
    loop {
        let stopping = telemetry.stop.load(Ordering::Acquire);
        batch.clear();
        while batch.len() < 48 * 1024
            && let Some(record) = telemetry.ring.pop()
        {
            let event = record.to_event();
            let at = batch.len();
            // Writing JSON into memory fails only for map keys that are not strings; an event has none.
            if serde_json::to_writer(&mut batch, &event).is_err() {
                batch.truncate(at);
                continue;
            }
            let line: Arc<str> = String::from_utf8_lossy(&batch[at..]).into();
            batch.push(b'\n');
            telemetry.recent.lock().push(&line, event.case);
            // An error means that nobody listens.
            let _ = telemetry.tap.send(line);
        }
        if !batch.is_empty() {
            file.write(&batch);
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
    fn the_file_is_rotated_and_old_ones_go() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("events.jsonl");
        let config = Config { file: Some(path.clone()), queue: 64, rotate_bytes: 1 << 16, keep: 2 };
        let mut file = EventFile::open(&config).expect("opens");
        let line = [b'x'; 40_000];
        for _ in 0..8 {
            file.write(&line);
        }
        let names: Vec<_> = {
            let mut names: Vec<_> =
                std::fs::read_dir(dir.path()).expect("lists").map(|e| e.expect("entry").file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(names, ["events.jsonl", "events.jsonl.1", "events.jsonl.2"]);
        assert!(std::fs::metadata(&path).expect("file").len() < 1 << 16);
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
