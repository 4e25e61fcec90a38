//! The writer thread: records to lines, lines to the file, to observers and to a short memory.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hashbrown::HashMap;

use super::{Config, Item, Telemetry};
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
    path: Option<PathBuf>,
    /// `None` while it could not be opened again after a rotation; tried anew at each write.
    open: Option<Open>,
    rotate_bytes: u64,
    keep: u32,
    failing: bool,
}

struct Open {
    file: File,
    size: u64,
    /// The file does not end with a newline: its last line was cut short, by a full disk or by a crash.
    torn: bool,
}

impl EventFile {
    /// Opens or creates the configured file for appending.
    pub fn open(config: &Config) -> io::Result<Self> {
        let open = config.file.as_deref().map(Open::append).transpose()?;
        let rotate_bytes = config.rotate_bytes.max(1 << 16);
        Ok(Self { path: config.file.clone(), open, rotate_bytes, keep: config.keep, failing: false })
    }

    fn write(&mut self, lines: &[u8]) {
        let Some(path) = self.path.clone() else { return };
        // Decisions go on without their record; the operator is told once when it begins and once when it ends.
        match (self.try_write(&path, lines), self.failing) {
            (Err(error), false) => {
                tracing::error!(%error, file = %path.display(), "events cannot be written");
                self.failing = true;
            }
            (Ok(()), true) => {
                tracing::warn!(file = %path.display(), "events are written again");
                self.failing = false;
            }
            _ => {}
        }
    }

    fn try_write(&mut self, path: &Path, lines: &[u8]) -> io::Result<()> {
        let open = match &mut self.open {
            Some(open) => open,
            None => self.open.insert(Open::append(path)?),
        };
        open.size += append_lines(&mut open.file, &mut open.torn, lines)?;
        if open.size >= self.rotate_bytes {
            rotate(path, self.keep)?;
            // What is open now is the rotated file, whatever becomes of the new one.
            self.open = None;
            self.open = Some(Open::append(path)?);
        }
        Ok(())
    }
}

impl Open {
    fn append(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::{FileExt, OpenOptionsExt};
        let file = OpenOptions::new().read(true).create(true).append(true).mode(0o640).open(path)?;
        let size = file.metadata()?.len();
        let mut last = *b"\n";
        if let Some(at) = size.checked_sub(1) {
            // Of what cannot be read, such as a pipe, nothing is known to be torn.
            let _ = file.read_at(&mut last, at);
        }
        Ok(Self { file, size, torn: last != *b"\n" })
    }
}

/// Writes whole lines behind what is there, on a new line if that is `torn`. Returns the octets written; after an error
/// `torn` says whether a part of a line was left behind.
fn append_lines(out: &mut impl Write, torn: &mut bool, lines: &[u8]) -> io::Result<u64> {
    let mut total = 0;
    for piece in [if *torn { b"\n".as_slice() } else { b"" }, lines] {
        let mut rest = piece;
        while !rest.is_empty() {
            let written = match out.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let Some((done, left)) = rest.split_at_checked(written) else {
                return Err(io::Error::other("more was written than was given"));
            };
            *torn = !done.ends_with(b"\n");
            rest = left;
            total += written as u64;
        }
    }
    Ok(total)
}

/// Moves the file out of the way, older ones with it. Nothing to move is no error: somebody else has moved it.
fn rotate(path: &Path, keep: u32) -> io::Result<()> {
    let numbered = |n: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{n}"));
        PathBuf::from(name)
    };
    let absent_is_fine = |result: io::Result<()>| match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    for n in (1..keep).rev() {
        absent_is_fine(std::fs::rename(numbered(n), numbered(n + 1)))?;
    }
    absent_is_fine(if keep == 0 { std::fs::remove_file(path) } else { std::fs::rename(path, numbered(1)) })
}

/// Drains the ring until told to stop.
pub fn run(telemetry: &Telemetry, mut file: EventFile) {
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
            };
            // Writing JSON into memory fails only for map keys that are not strings; an event has none.
            if written.is_err() {
                batch.truncate(at);
                continue;
            }
            let line: Arc<str> = String::from_utf8_lossy(&batch[at..]).into();
            batch.push(b'\n');
            telemetry.recent.lock().push(&line, case);
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
    fn a_file_that_could_not_be_opened_after_a_rotation_is_opened_later() {
        let dir = tempfile::tempdir().expect("directory");
        let (logs, away) = (dir.path().join("logs"), dir.path().join("away"));
        std::fs::create_dir(&logs).expect("directory");
        let path = logs.join("events.jsonl");
        let config = Config { file: Some(path.clone()), queue: 64, rotate_bytes: 1 << 16, keep: 2 };
        let mut file = EventFile::open(&config).expect("opens");
        // Without its directory nothing is left to rename and nothing new can be created.
        std::fs::rename(&logs, &away).expect("moved");
        file.write(&[b'x'; 70_000]);
        assert!(file.failing && file.open.is_none());
        file.write(b"lost\n");
        assert!(file.failing, "still no directory");
        std::fs::create_dir(&logs).expect("directory");
        file.write(b"kept\n");
        assert!(!file.failing);
        assert_eq!(std::fs::read(&path).expect("file"), b"kept\n");
        for _ in 0..2 {
            file.write(&[&[b'y'; 70_000][..], b"\n"].concat());
        }
        assert!(logs.join("events.jsonl.2").exists(), "and rotation goes on");
    }

    /// Takes a number of octets and then reports a full disk.
    struct Full {
        written: Vec<u8>,
        room: usize,
    }

    impl Write for Full {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            if self.room == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let taken = octets.len().min(self.room);
            self.room -= taken;
            self.written.extend_from_slice(&octets[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_torn_line_never_joins_the_next() {
        for room in 0..=10 {
            let mut disk = Full { written: Vec::new(), room };
            let mut torn = false;
            let first = append_lines(&mut disk, &mut torn, b"one\ntwo\n");
            assert_eq!(first.is_ok(), room >= 8, "room {room}");
            // Still full: a second failure does not forget the first.
            disk.room = 0;
            assert!(append_lines(&mut disk, &mut torn, b"three\n").is_err());
            disk.room = usize::MAX;
            append_lines(&mut disk, &mut torn, b"four\n").expect("there is room");
            let text = String::from_utf8(disk.written).expect("text");
            assert_eq!(text.lines().last(), Some("four"), "room {room}: {text:?}");
            assert!(!text.contains("\n\n") && !text.starts_with('\n'), "no empty line: {text:?}");
        }
    }

    #[test]
    fn a_line_torn_by_a_crash_is_ended_at_the_next_start() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("events.jsonl");
        let config = Config { file: Some(path.clone()), queue: 64, rotate_bytes: 1 << 16, keep: 2 };
        std::fs::write(&path, "{\"a\":1}\n{\"b").expect("written");
        EventFile::open(&config).expect("opens").write(b"{\"c\":1}\n");
        EventFile::open(&config).expect("opens").write(b"{\"d\":1}\n");
        let text = std::fs::read_to_string(&path).expect("text");
        assert_eq!(text, "{\"a\":1}\n{\"b\n{\"c\":1}\n{\"d\":1}\n");
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
