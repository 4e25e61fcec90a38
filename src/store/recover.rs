//! Recovery: reading a journal back, whatever a crash or a bad disk made of it.
//!
//! Starts at the newest segment whose snapshot is whole, reads every line that proves itself, and says what could not
//! be read. A torn end (the usual trace of a crash) is copied aside and cut off; damage further in is left where it is
//! as evidence, and writing goes on in a new segment. Nothing here panics on any content.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::fold::Fold;
use super::journal::{Head, OldSegment, Resume};
use super::line::{self, Body, Mark};
use super::segment::{self, Loc, Piece, Stretches};
use super::{Error, Record, SCHEMA};

/// What was found wrong when the store was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Damage {
    /// The journal's end was torn: what was written last before a crash and never acknowledged, or a damaged end.
    pub torn: Option<Torn>,
    /// Octets inside the journal that are no lines; the first [`Damage::LISTED`] places.
    pub unreadable: Vec<Place>,
    /// How many such places there are.
    pub unreadable_total: u64,
    /// Where the chain does not hold: lines are missing or were changed; the first [`Damage::LISTED`] places.
    pub breaks: Vec<Break>,
    /// How many such places there are.
    pub breaks_total: u64,
    /// Lines whose checksum holds and whose content this version does not know.
    pub unknown: u64,
    /// The last call of `append` in the journal is there in part. It was never acknowledged.
    pub partial_call: bool,
    /// Newest segments whose snapshot could not be used.
    pub snapshots_skipped: u32,
    /// The index was put aside and built anew.
    pub index: Option<IndexDamage>,
    /// The index has seen more of the journal than is left of it.
    pub journal_short: bool,
    /// Quarantines that only the index still knew.
    pub adopted: u64,
}

impl Damage {
    /// Most places listed of each kind.
    pub const LISTED: usize = 100;

    /// Nothing was wrong.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Lines that were acknowledged may be gone from the journal, of whatever kind.
    pub fn lacks_records(&self) -> bool {
        self.journal_short || self.unreadable_total + self.breaks_total + self.unknown > 0
    }

    /// More than a crash explains: acknowledged records may be gone, or the index was lost.
    pub fn is_serious(&self) -> bool {
        let crash_only = Self { torn: self.torn.clone(), partial_call: self.partial_call, ..Self::default() };
        *self != crash_only
    }
}

/// A torn end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Torn {
    /// Where.
    pub place: Place,
    /// Copy of the octets cut off, in the state directory; `None` if it could not be written.
    pub aside: Option<String>,
}

/// A stretch of a segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Place {
    /// File name.
    pub segment: String,
    /// First octet.
    pub offset: u64,
    /// Octets.
    pub octets: u64,
}

/// A place where the chain does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Break {
    /// File name.
    pub segment: String,
    /// First octet of the line found.
    pub offset: u64,
    /// Sequence that should have come.
    pub expected: u64,
    /// Sequence that came. Equal to `expected` where the line before was changed and not removed.
    pub found: u64,
}

/// What became of an index that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IndexDamage {
    /// Directory it was renamed to.
    pub aside: Option<String>,
    /// What went wrong.
    pub cause: String,
}

/// A live fact while the journal is read.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Live {
    /// Sequence under which it was first written.
    pub(super) seq: u64,
    pub(super) loc: Loc,
    pub(super) time: String,
    /// Behind a pointer: what holds these grows and is copied, whole, as more are read.
    pub(super) record: Arc<Record>,
}

/// How writing goes on.
pub(super) enum Next {
    /// In the last segment.
    Resume(Resume),
    /// In a new one.
    Start { number: u32, head: Head, older: Vec<OldSegment> },
}

/// A journal read back.
pub(super) struct Replay {
    pub(super) fold: Fold<Live>,
    pub(super) head: Head,
    pub(super) next: Next,
    pub(super) damage: Damage,
    /// When its last line was written, Unix milliseconds; 0 where there is none.
    pub(super) written: u64,
}

/// Checks the chain from line to line.
#[derive(Default)]
pub(super) struct Chain {
    last: Option<Head>,
}

impl Chain {
    /// Takes the next line; `Some(expected)` where it does not follow from the one before.
    pub(super) fn follow(&mut self, line: &line::Line) -> Option<u64> {
        let expected = self.last.filter(|last| line.seq != last.seq + 1 || line.prev != last.hash).map(|l| l.seq + 1);
        self.last = Some(Head { seq: line.seq, hash: line.hash });
        expected
    }

    /// Lets any line follow.
    pub(super) fn forget(&mut self) {
        self.last = None;
    }

    /// The line taken last.
    pub(super) fn last(&self) -> Option<Head> {
        self.last
    }
}

/// Reads the journal in `dir`. `now` names files put aside.
pub(super) fn replay(dir: &Path, now: u64) -> Result<Replay, Error> {
    let fail = |source| Error::io("read the journal", dir, source);
    let numbers = segment::list(dir).map_err(fail)?;
    let mut older = Vec::with_capacity(numbers.len());
    for number in &numbers {
        older.push(old_segment(dir, *number).map_err(fail)?);
    }
    let read = |reader: &mut Reader, at: usize| match numbers.get(at) {
        Some(number) => reader.segment(dir, *number, at + 1 == numbers.len()).map(Some),
        None => Ok(None),
    };
    let mut skipped = 0;
    let mut reader = Reader::new();
    let mut last = None;
    let mut next = 0;
    for at in (0..numbers.len()).rev() {
        reader = Reader::new();
        last = read(&mut reader, at).map_err(fail)?;
        if let Some(found) = reader.newer {
            return Err(Error::NewerSchema { what: "journal", found, known: SCHEMA });
        }
        next = at + 1;
        if last.as_ref().is_some_and(|tail| tail.snapshot == Snapshot::Whole) {
            break;
        }
        // Read again, after the one before it. The oldest has been read into an empty fold, which is all there is.
        skipped += 1;
    }
    while let Some(tail) = read(&mut reader, next).map_err(fail)? {
        last = Some(tail);
        next += 1;
    }
    reader.damage.snapshots_skipped = skipped;
    let Reader { fold, head, mut damage, more, schema, time, .. } = reader;
    damage.partial_call = more;
    let next = match (last, numbers.last()) {
        (Some(tail), Some(number)) => {
            if let Some((offset, octets)) = tail.torn {
                let aside = put_aside(dir, *number, offset, octets, now);
                if let Err(error) = &aside {
                    tracing::error!(%error, "the journal's torn end could not be copied aside");
                }
                let place = Place { segment: segment::file_name(*number), offset, octets };
                damage.torn = Some(Torn { place, aside: aside.ok() });
            }
            // An earlier version must not take what is written from here on for damage in its own segment.
            if tail.lines == 0 || damage.is_serious() || schema < SCHEMA {
                Next::Start { number: number.saturating_add(1), head, older }
            } else {
                let first = older.pop().map_or(head.seq + 1, |s| s.first);
                let Tail { len, snapshot_end, unterminated, .. } = tail;
                Next::Resume(Resume { number: *number, len, snapshot: snapshot_end, head, first, unterminated, older })
            }
        }
        _ => Next::Start { number: 1, head, older },
    };
    Ok(Replay { fold, head, next, damage, written: super::unix_ms(&time) })
}

struct Reader {
    fold: Fold<Live>,
    chain: Chain,
    head: Head,
    damage: Damage,
    more: bool,
    /// Of the last line, RFC 3339.
    time: String,
    /// Of the newest segment that says it.
    schema: u32,
    /// A schema we do not know.
    newer: Option<u32>,
}

/// The snapshot that a segment begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Snapshot {
    /// Nothing has been read.
    #[default]
    Due,
    /// It has begun; so many items so far.
    Open(u64),
    /// Complete, and every line of it sound.
    Whole,
    /// Not complete.
    Broken,
}

/// What the end of a segment looks like.
#[derive(Default)]
struct Tail {
    /// Octets up to the end of the last good line, its newline included if it has one.
    len: u64,
    snapshot: Snapshot,
    /// First octet after the snapshot.
    snapshot_end: u64,
    unterminated: bool,
    lines: u64,
    /// Offset and octets behind the last good line.
    torn: Option<(u64, u64)>,
}

impl Reader {
    fn new() -> Self {
        Self {
            fold: Fold::new(),
            chain: Chain::default(),
            head: Head::GENESIS,
            damage: Damage::default(),
            more: false,
            time: String::new(),
            schema: SCHEMA,
            newer: None,
        }
    }

    fn segment(&mut self, dir: &Path, number: u32, is_last: bool) -> io::Result<Tail> {
        let mut tail = Tail::default();
        let mut bad: Vec<(u64, u64)> = Vec::new();
        segment::walk(dir, number, &mut |piece| {
            match piece {
                Piece::Bad { offset, len } => {
                    tail.snapshot.spoil();
                    // Bounded: only the first places are listed, and neighbours are joined.
                    match bad.last_mut() {
                        Some((at, octets)) if *at + *octets + 1 >= offset => *octets = offset + len - *at,
                        _ => bad.push((offset, len)),
                    }
                    return true;
                }
                Piece::Unknown { offset, len } => {
                    self.damage.unknown += 1;
                    tail.snapshot.spoil();
                    self.chain.forget();
                    tail.len = offset + len;
                }
                Piece::Line(loc, line) => {
                    self.line(loc, *line, &mut tail);
                    tail.len = loc.offset + u64::from(loc.len);
                }
            }
            tail.lines += 1;
            for (offset, octets) in bad.drain(..) {
                self.unreadable(number, offset, octets);
            }
            true
        })?;
        let file = File::open(segment::path(dir, number))?;
        let total = file.metadata()?.len();
        if tail.lines > 0 {
            let mut newline = [0];
            tail.unterminated = file.read_at(&mut newline, tail.len)? == 0 || newline != *b"\n";
            tail.len += u64::from(!tail.unterminated);
        }
        if is_last {
            tail.torn = (total > tail.len).then_some((tail.len, total - tail.len));
        } else {
            for (offset, octets) in bad {
                self.unreadable(number, offset, octets);
            }
        }
        Ok(tail)
    }

    fn line(&mut self, loc: Loc, line: line::Line, tail: &mut Tail) {
        if let Some(expected) = self.chain.follow(&line) {
            // Between two segments: that says nothing about this one's snapshot.
            if tail.lines > 0 {
                tail.snapshot.spoil();
            }
            self.damage.breaks_total += 1;
            if self.damage.breaks.len() < Damage::LISTED {
                let segment = segment::file_name(loc.segment);
                self.damage.breaks.push(Break { segment, offset: loc.offset, expected, found: line.seq });
            }
        }
        // Sequences must not be given twice, whatever order damage has left them in.
        if line.seq >= self.head.seq {
            self.head = Head { seq: line.seq, hash: line.hash };
        }
        self.more = line.more;
        self.time.clone_from(&line.time);
        tail.snapshot.follow(&line.body);
        match line.body {
            Body::Mark(mark) => {
                match mark {
                    Mark::Begin { schema, .. } if schema > SCHEMA => self.newer = Some(schema),
                    Mark::Begin { schema, .. } => self.schema = schema,
                    Mark::End { .. } => tail.snapshot_end = loc.offset + u64::from(loc.len) + 1,
                    _ => {}
                }
                self.fold.mark(&mark);
            }
            Body::Record(record) => {
                let (record, time) = (Arc::<Record>::from(record), line.time);
                self.fold.record(
                    &record,
                    || super::unix_ms(&time),
                    || Live { seq: line.origin, loc, time: time.clone(), record: record.clone() },
                );
            }
        }
    }

    fn unreadable(&mut self, number: u32, offset: u64, octets: u64) {
        self.damage.unreadable_total += 1;
        if self.damage.unreadable.len() < Damage::LISTED {
            self.damage.unreadable.push(Place { segment: segment::file_name(number), offset, octets });
        }
    }
}

impl Snapshot {
    /// The next sound line.
    fn follow(&mut self, body: &Body) {
        *self = match (*self, body) {
            (Self::Due, Body::Mark(Mark::Begin { .. })) => Self::Open(0),
            (Self::Open(items), Body::Mark(Mark::End { items: claimed })) if items == *claimed => Self::Whole,
            (Self::Open(items), Body::Record(_) | Body::Mark(Mark::Sink { .. })) => Self::Open(items + 1),
            (Self::Whole, _) => Self::Whole,
            _ => Self::Broken,
        };
    }

    /// Something that is no sound line.
    fn spoil(&mut self) {
        if *self != Self::Whole {
            *self = Self::Broken;
        }
    }
}

fn old_segment(dir: &Path, number: u32) -> io::Result<OldSegment> {
    let path = segment::path(dir, number);
    let octets = fs::metadata(&path)?.len();
    let first = Stretches::open(&path, 0)?.next(true)?.and_then(|s| line::claimed_seq(&s.octets)).unwrap_or(0);
    Ok(OldSegment { number, first, octets })
}

/// Copies the octets of a torn end to a file beside the segment.
fn put_aside(dir: &Path, number: u32, offset: u64, octets: u64, now: u64) -> io::Result<String> {
    let name = format!("{}.damaged-{now}-{offset}", segment::file_name(number));
    let mut from = File::open(segment::path(dir, number))?;
    from.seek(io::SeekFrom::Start(offset))?;
    let to: PathBuf = dir.join(&name);
    let mut to = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(to)?;
    io::copy(&mut from.take(octets), &mut to)?;
    to.sync_all()?;
    Ok(name)
}
