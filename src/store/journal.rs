//! The segment being written: appending lines so that they are whole and durable or not there at all, and starting a
//! new segment with a snapshot.
//!
//! Used by the one writer thread in [`super::writer`]. After any failure the journal is as it was before the call.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::fold::{Cursor, Fold, Kept};
use super::line::{self, Body, Extra, GENESIS, Hash, Json, Mark};
use super::segment::{self, Loc, alerts_before};
use super::{Record, SCHEMA, rfc3339};
use crate::model::{CaseId, Reason};

/// One line to be written.
pub(super) struct Item {
    /// RFC 3339.
    pub(super) time: String,
    pub(super) json: Json,
    /// The next item belongs to the same call.
    pub(super) more: bool,
}

/// The end of the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// Sequence of the last line; 0 before the first.
    pub(super) seq: u64,
    /// Its hash.
    pub(super) hash: Hash,
}

impl Head {
    pub(super) const GENESIS: Self = Self { seq: 0, hash: GENESIS };
}

/// A segment on disk, as far as keeping or removing it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OldSegment {
    pub(super) number: u32,
    /// Sequence of its first line.
    pub(super) first: u64,
    pub(super) octets: u64,
}

/// See the module.
pub(super) struct Journal {
    dir: PathBuf,
    file: File,
    number: u32,
    /// Octets that are whole lines on disk. Whatever stands behind them is a failed write's rest.
    len: u64,
    /// Octets of the snapshot this segment begins with.
    snapshot: u64,
    head: Head,
    /// Sequence of this segment's first line.
    first: u64,
    /// A failed write may have left octets behind `len`.
    torn: bool,
    /// This file is not written again: a sync failed, and the kernel may have dropped pages it calls clean; or it stands only
    /// until a new segment can be started.
    suspect: bool,
    /// Older segments, ascending.
    older: Vec<OldSegment>,
}

impl Journal {
    /// Takes up an existing segment after recovery.
    pub(super) fn resume(dir: &Path, resume: Resume) -> io::Result<Self> {
        let Resume { number, len, snapshot, head, first, unterminated, older } = resume;
        let path = segment::path(dir, number);
        let file = OpenOptions::new().write(true).open(&path)?;
        let mut journal =
            Self { dir: dir.to_owned(), file, number, len, snapshot, head, first, torn: false, suspect: false, older };
        if unterminated {
            journal.file.write_all_at(b"\n", journal.len)?;
            journal.len += 1;
        }
        if journal.file.metadata()?.len() > journal.len {
            journal.file.set_len(journal.len)?;
        }
        journal.file.sync_all()?;
        Ok(journal)
    }

    /// Starts segment `number` with a snapshot of `fold`, as the first or after segments that are not to be written
    /// again.
    pub(super) fn start(
        dir: &Path,
        number: u32,
        head: Head,
        older: Vec<OldSegment>,
        fold: &mut Fold<Loc>,
        now: u64,
    ) -> io::Result<(Self, u64)> {
        let (fresh, lost) = write_snapshot(dir, number, head, fold, now)?;
        let Snapshot { file, len, head: last } = fresh;
        let journal = Self {
            dir: dir.to_owned(),
            file,
            number,
            len,
            snapshot: len,
            head: last,
            first: head.seq + 1,
            torn: false,
            suspect: false,
            older,
        };
        Ok((journal, lost))
    }

    /// Stands behind the last of `older` until there is room for a new segment, which the next write tries to start. `None`
    /// where there is none to stand behind.
    pub(super) fn waiting(dir: &Path, head: Head, mut older: Vec<OldSegment>) -> io::Result<Option<Self>> {
        let Some(OldSegment { number, first, .. }) = older.pop() else { return Ok(None) };
        let file = OpenOptions::new().write(true).open(segment::path(dir, number))?;
        let len = file.metadata()?.len();
        let (dir, torn) = (dir.to_owned(), false);
        Ok(Some(Self { dir, file, number, len, snapshot: len, head, first, torn, suspect: true, older }))
    }

    /// Has the next write start a new segment.
    pub(super) fn replace(&mut self) {
        self.suspect = true;
    }

    /// End of the chain.
    pub(super) fn head(&self) -> Head {
        self.head
    }

    /// Where the next line will begin: segment and offset.
    pub(super) fn end(&self) -> (u32, u64) {
        (self.number, self.len)
    }

    /// Octets in all segments, and how many segments there are.
    pub(super) fn size(&self) -> (u64, usize) {
        (self.older.iter().map(|s| s.octets).sum::<u64>() + self.len, self.older.len() + 1)
    }

    /// Whether the next write must go to a new segment.
    pub(super) fn is_suspect(&self) -> bool {
        self.suspect
    }

    /// Whether this segment has grown by `limit` since its snapshot, and by at least the snapshot's own size, so that
    /// snapshots are never more than half of what is written.
    pub(super) fn is_full(&self, limit: u64) -> bool {
        self.len - self.snapshot >= limit.max(self.snapshot)
    }

    /// Writes `items` with one write and one sync. On success they are durable and their places are returned.
    pub(super) fn append<'a>(&mut self, items: impl Iterator<Item = &'a Item>) -> io::Result<Vec<Loc>> {
        if self.suspect {
            return Err(io::Error::other("the segment is not written again and must be replaced"));
        }
        if self.torn {
            self.file.set_len(self.len)?;
            self.torn = false;
        }
        let mut octets = Vec::new();
        let mut head = self.head;
        let mut locs = Vec::new();
        for item in items {
            let start = octets.len();
            let extra = if item.more { Extra::More } else { Extra::None };
            head.hash = line::encode(&mut octets, head.seq + 1, &head.hash, &item.time, extra, &item.json);
            head.seq += 1;
            let len = octets.len() - start - 1;
            locs.push(Loc { segment: self.number, offset: self.len + start as u64, len: len as u32 });
        }
        if let Err(error) = self.file.write_all_at(&octets, self.len) {
            // Cut the rest off at once, so that a crash right now leaves no torn line either.
            self.torn = self.file.set_len(self.len).is_err();
            return Err(error);
        }
        if let Err(error) = self.file.sync_data() {
            self.suspect = true;
            // Best effort: what the file holds now is unknown, and a line that is there after all is harmless.
            let _ = self.file.set_len(self.len);
            return Err(error);
        }
        self.len += octets.len() as u64;
        self.head = head;
        Ok(locs)
    }

    /// Goes on in a new segment that begins with a snapshot of `fold`, whose places are brought up to date. Returns
    /// how many facts were lost because their line could no longer be read.
    pub(super) fn rotate(&mut self, fold: &mut Fold<Loc>, now: u64) -> io::Result<u64> {
        if self.torn || self.suspect {
            self.file.set_len(self.len)?;
        }
        let (fresh, lost) = write_snapshot(&self.dir, self.number + 1, self.head, fold, now)?;
        self.older.push(OldSegment { number: self.number, first: self.first, octets: self.len });
        self.first = self.head.seq + 1;
        let Snapshot { file, len, head } = fresh;
        self.file = file;
        self.number += 1;
        (self.len, self.snapshot, self.head) = (len, len, head);
        (self.torn, self.suspect) = (false, false);
        Ok(lost)
    }

    /// Removes segments so that `keep` are left with the current one, but none that holds a line after `held`, as long as
    /// those that are kept for it alone have no more than `most` octets.
    pub(super) fn retire(&mut self, keep: usize, held: Option<Cursor>, most: u64) -> io::Result<Retired> {
        let (mut removed, mut gone, mut past) = (false, 0, None);
        let beyond = |older: &[OldSegment]| -> u64 {
            let count = (older.len() + 1).saturating_sub(keep.max(2));
            older.iter().take(count).map(|segment| segment.octets).sum()
        };
        while self.older.len() + 1 > keep.max(2) {
            let (next, next_first) = self.older.get(1).map_or((self.number, self.first), |s| (s.number, s.first));
            let Some(oldest) = self.older.first() else { break };
            // The last line of `oldest` is just before the next segment's first.
            if let Some(held) = held.filter(|held| next_first > held.seq.saturating_add(1)) {
                if beyond(&self.older) <= most {
                    break;
                }
                let before = alerts_before(&self.dir, oldest.number).max(held.nth);
                let last = Cursor { seq: next_first - 1, nth: alerts_before(&self.dir, next).max(before) };
                gone += last.nth - before;
                past = Some(last);
            }
            match fs::remove_file(segment::path(&self.dir, oldest.number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            self.older.remove(0);
            removed = true;
        }
        if removed {
            segment::sync_dir(&self.dir)?;
        }
        Ok(Retired { held: beyond(&self.older), gone, past })
    }
}

/// What became of old segments.
pub(super) struct Retired {
    /// Octets that are kept for a sink alone.
    pub(super) held: u64,
    /// Alerts given up that it has not taken, and the place behind them.
    pub(super) gone: u64,
    pub(super) past: Option<Cursor>,
}

/// Where recovery left the last segment.
pub(super) struct Resume {
    pub(super) number: u32,
    /// Octets that are good.
    pub(super) len: u64,
    pub(super) snapshot: u64,
    pub(super) head: Head,
    pub(super) first: u64,
    /// The last good line has no newline yet.
    pub(super) unterminated: bool,
    pub(super) older: Vec<OldSegment>,
}

struct Snapshot {
    file: File,
    len: u64,
    head: Head,
}

/// Writes a segment that begins with a snapshot under a temporary name and gives it its own once it is durable: a crash
/// in between leaves the journal as it was.
fn write_snapshot(dir: &Path, number: u32, head: Head, fold: &mut Fold<Loc>, now: u64) -> io::Result<(Snapshot, u64)> {
    let path = segment::path(dir, number);
    let fresh = path.with_extension("jsonl.new");
    let Filled { snapshot, moved, lost } = fill(dir, &fresh, number, head, fold, now)
        .and_then(|filled| fs::rename(&fresh, &path).map(|()| filled))
        // Its room is what the segment that goes on needs.
        .inspect_err(|_| drop(fs::remove_file(&fresh)))?;
    // A start would go on in it.
    segment::sync_dir(dir).inspect_err(|_| drop(fs::remove_file(&path)))?;
    for ((_, loc), place) in fold.kept_mut().zip(moved) {
        *loc = place;
    }
    Ok((snapshot, lost))
}

/// A snapshot under its temporary name.
struct Filled {
    snapshot: Snapshot,
    /// Where each kept fact is by now.
    moved: Vec<Loc>,
    lost: u64,
}

fn fill(dir: &Path, fresh: &Path, number: u32, head: Head, fold: &mut Fold<Loc>, now: u64) -> io::Result<Filled> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(fresh)?;
    let mut out = Lines { out: BufWriter::with_capacity(1 << 18, file), octets: Vec::new(), len: 0, head, number };
    let time = rfc3339(now);
    out.mark(&time, Mark::Begin { schema: SCHEMA, alerts: fold.alerts })?;
    let mut files: HashMap<u32, File> = HashMap::new();
    let mut moved = Vec::new();
    let (mut items, mut lost) = (0, 0);
    for (kept, loc) in fold.kept_mut() {
        let (time, extra, body) = match read(dir, &mut files, *loc) {
            Ok(line) => (line.time, Extra::CopyOf(line.origin), line.body),
            Err(error) => {
                lost += 1;
                tracing::error!(segment = loc.segment, offset = loc.offset, %error, "a live record can no longer be read");
                // The fact stays in the fold at its old place; a quarantine is written anew, because it must hold.
                let Kept::Quarantine(session) = kept else {
                    moved.push(*loc);
                    continue;
                };
                let body = Body::Record(Box::new(Record::Quarantine {
                    session: session.clone(),
                    case: CaseId::from_random(0),
                    reason: Reason::Quarantined,
                    by: "staunch".into(),
                    note: "the original record became unreadable".into(),
                    since: None,
                    addresses: Vec::new(),
                }));
                (time.clone(), Extra::None, body)
            }
        };
        items += 1;
        moved.push(out.line(&time, extra, &body)?);
    }
    for (sink, cursor) in &fold.sinks {
        items += 1;
        out.mark(&time, Mark::Sink { sink: sink.clone(), seq: cursor.seq, nth: cursor.nth })?;
    }
    out.mark(&time, Mark::End { items })?;
    let Lines { out, len, head, .. } = out;
    let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    Ok(Filled { snapshot: Snapshot { file, len, head }, moved, lost })
}

fn read(dir: &Path, files: &mut HashMap<u32, File>, loc: Loc) -> io::Result<line::Line> {
    let file = match files.entry(loc.segment) {
        std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
        std::collections::hash_map::Entry::Vacant(entry) => entry.insert(File::open(segment::path(dir, loc.segment))?),
    };
    segment::read_at(file, loc)
}

struct Lines {
    out: BufWriter<File>,
    octets: Vec<u8>,
    len: u64,
    head: Head,
    number: u32,
}

impl Lines {
    fn mark(&mut self, time: &str, mark: Mark) -> io::Result<Loc> {
        self.line(time, Extra::None, &Body::Mark(mark))
    }

    fn line(&mut self, time: &str, extra: Extra, body: &Body) -> io::Result<Loc> {
        self.octets.clear();
        let json = Json::body(body).map_err(io::Error::other)?;
        self.head.hash = line::encode(&mut self.octets, self.head.seq + 1, &self.head.hash, time, extra, &json);
        self.head.seq += 1;
        self.out.write_all(&self.octets)?;
        let loc = Loc { segment: self.number, offset: self.len, len: (self.octets.len() - 1) as u32 };
        self.len += self.octets.len() as u64;
        Ok(loc)
    }
}
