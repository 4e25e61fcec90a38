//! Segments: the files a journal is cut into, their names, and reading them piece by piece.
//!
//! Below [`super::recover`], [`super::spool`] and [`super::verify`]. Knows lines, not what they mean.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::line::{self, Body, Fault, Line, MAX_LINE, Mark};

/// Where a line stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Loc {
    /// Segment.
    pub(super) segment: u32,
    /// Octets without the newline.
    pub(super) len: u32,
    /// First octet.
    pub(super) offset: u64,
}

/// `journal-000001.jsonl`.
pub(super) fn file_name(number: u32) -> String {
    format!("journal-{number:06}.jsonl")
}

/// Path of a segment.
pub(super) fn path(dir: &Path, number: u32) -> PathBuf {
    dir.join(file_name(number))
}

/// Numbers of the segments present, ascending.
pub(super) fn list(dir: &Path) -> io::Result<Vec<u32>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let number = name
            .to_str()
            .and_then(|name| name.strip_prefix("journal-")?.strip_suffix(".jsonl"))
            .filter(|digits| digits.len() >= 6 && digits.bytes().all(|b| b.is_ascii_digit()))
            .and_then(|digits| digits.parse::<u32>().ok());
        numbers.extend(number);
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Makes names created, renamed or removed in `dir` durable.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Alerts recorded before a segment began, as its first line says; 0 where that cannot be read.
pub(super) fn alerts_before(dir: &Path, number: u32) -> u64 {
    let first = Stretches::open(&path(dir, number), 0).and_then(|mut stretches| stretches.next(false));
    match first.ok().flatten().map(|stretch| line::decode(&stretch.octets)) {
        Some(Ok(Line { body: Body::Mark(Mark::Begin { alerts, .. }), .. })) => alerts,
        _ => 0,
    }
}

/// Reads a file as newline-separated stretches in bounded memory.
pub(super) struct Stretches {
    file: File,
    /// Unread octets are `buffer[start..]`.
    buffer: Vec<u8>,
    start: usize,
    /// Offset in the file of `buffer[start]`.
    offset: u64,
    /// Octets of the file beyond this are not read.
    limit: u64,
}

/// One stretch between newlines.
pub(super) struct Stretch {
    /// Offset of its first octet.
    pub(super) offset: u64,
    /// Its octets, without the newline; never more than [`Stretches::MOST`].
    pub(super) octets: Vec<u8>,
    /// Whether a newline stood behind it.
    pub(super) ended: bool,
}

impl Stretches {
    /// Longest stretch handed out; a longer one comes in parts, none of which can be a line.
    const MOST: usize = MAX_LINE + 1;
    const READ: usize = 64 * 1024;

    /// Starts at `offset`.
    pub(super) fn open(path: &Path, offset: u64) -> io::Result<Self> {
        use std::io::Seek as _;
        let mut file = File::open(path)?;
        file.seek(io::SeekFrom::Start(offset))?;
        Ok(Self { file, buffer: Vec::new(), start: 0, offset, limit: u64::MAX })
    }

    /// Reads no octet of the file from `limit` on: of a segment being written, only what is durable.
    pub(super) fn limit(&mut self, limit: u64) {
        self.limit = limit;
    }

    /// The next stretch; `None` at the end of the file, after which it may be asked again once the file has grown.
    /// With `partial` false an unterminated rest is kept for later.
    pub(super) fn next(&mut self, partial: bool) -> io::Result<Option<Stretch>> {
        let mut searched = self.start;
        loop {
            let unread = self.buffer.get(searched..).unwrap_or_default();
            let newline = unread.iter().position(|b| *b == b'\n').map(|at| searched + at);
            searched = newline.unwrap_or(self.buffer.len());
            if let Some(end) = newline.filter(|end| end - self.start <= Self::MOST) {
                return Ok(Some(self.take(end, true)));
            }
            if searched - self.start >= Self::MOST {
                return Ok(Some(self.take(self.start + Self::MOST, false)));
            }
            if self.start > Self::READ {
                self.buffer.drain(..self.start);
                searched -= self.start;
                self.start = 0;
            }
            let filled = self.buffer.len();
            let left = self.limit.saturating_sub(self.offset + (filled - self.start) as u64);
            let want = usize::try_from(left).unwrap_or(Self::READ).min(Self::READ);
            self.buffer.resize(filled + want, 0);
            let got = self.file.read(self.buffer.get_mut(filled..).unwrap_or_default());
            self.buffer.truncate(filled + got.as_ref().ok().copied().unwrap_or(0));
            if got? == 0 {
                let rest = self.buffer.len() - self.start;
                return Ok((partial && rest > 0).then(|| self.take(self.buffer.len(), false)));
            }
        }
    }

    fn take(&mut self, end: usize, ended: bool) -> Stretch {
        let octets = self.buffer.get(self.start..end).unwrap_or_default().to_vec();
        let stretch = Stretch { offset: self.offset, octets, ended };
        let used = end - self.start + usize::from(ended);
        self.offset += used as u64;
        self.start += used;
        stretch
    }
}

/// What a segment is made of.
#[derive(Debug)]
pub(super) enum Piece {
    /// A line that proved itself.
    Line(Loc, Box<Line>),
    /// A line whose checksum holds and whose content this version does not know.
    Unknown {
        /// Its first octet.
        offset: u64,
        /// Octets.
        len: u64,
    },
    /// Octets that are no line.
    Bad {
        /// First of them.
        offset: u64,
        /// How many.
        len: u64,
    },
}

/// Reads a segment from its start to its end and hands each piece to `visit`, until that says to stop. Returns whether
/// the last octet read was a newline (or nothing was read).
pub(super) fn walk(dir: &Path, number: u32, visit: &mut dyn FnMut(Piece) -> bool) -> io::Result<bool> {
    let mut stretches = Stretches::open(&path(dir, number), 0)?;
    let mut ended = true;
    while let Some(stretch) = stretches.next(true)? {
        ended = stretch.ended;
        if !pieces(number, &stretch, visit) {
            break;
        }
    }
    Ok(ended)
}

fn pieces(segment: u32, stretch: &Stretch, visit: &mut dyn FnMut(Piece) -> bool) -> bool {
    let good = |at: usize, octets: &[u8]| -> Option<Piece> {
        let offset = stretch.offset + at as u64;
        match line::decode(octets) {
            // A line is never longer than MAX_LINE.
            Ok(line) => Some(Piece::Line(Loc { segment, offset, len: octets.len() as u32 }, Box::new(line))),
            Err(Fault::Unknown) => Some(Piece::Unknown { offset, len: octets.len() as u64 }),
            Err(Fault::Damaged) => None,
        }
    };
    if let Some(piece) = good(0, &stretch.octets) {
        return visit(piece);
    }
    let mut done = 0;
    for (at, len) in line::candidates(&stretch.octets) {
        // Another end of a line that was found.
        if at < done {
            continue;
        }
        let Some(piece) = stretch.octets.get(at..at + len).and_then(|octets| good(at, octets)) else { continue };
        if at > done && !visit(Piece::Bad { offset: stretch.offset + done as u64, len: (at - done) as u64 }) {
            return false;
        }
        done = at + len;
        if !visit(piece) {
            return false;
        }
    }
    let rest = stretch.octets.len() - done;
    // An empty line is damage as well: no writer leaves one.
    if rest > 0 || stretch.octets.is_empty() {
        let len = (rest as u64).max(1);
        return visit(Piece::Bad { offset: stretch.offset + done as u64, len });
    }
    true
}

/// Reads the line at `loc`, checked.
pub(super) fn read_at(file: &File, loc: Loc) -> io::Result<Line> {
    use std::os::unix::fs::FileExt as _;
    let mut octets = vec![0; loc.len as usize];
    file.read_exact_at(&mut octets, loc.offset)?;
    line::decode(&octets).map_err(|fault| io::Error::new(io::ErrorKind::InvalidData, format!("{fault:?} line")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_by_number_and_strangers_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["journal-000010.jsonl", "journal-000002.jsonl", "journal-1000000.jsonl"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        for name in ["journal-2.jsonl", "journal-00000x.jsonl", "journal-000003.jsonl.new", "events.jsonl"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        assert_eq!(list(dir.path()).unwrap(), [2, 10, 1_000_000]);
    }

    #[test]
    fn stretches_are_bounded_and_keep_their_offsets() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x");
        let long = vec![b'x'; 2 * Stretches::MOST + 5];
        fs::write(&file, [&b"one\n\n"[..], &long, b"\ntail"].concat()).unwrap();
        let mut stretches = Stretches::open(&file, 0).unwrap();
        let mut seen = Vec::new();
        while let Some(s) = stretches.next(true).unwrap() {
            seen.push((s.offset, s.octets.len(), s.ended));
        }
        let most = Stretches::MOST;
        let end = 5 + long.len() as u64 + 1;
        let expected = [
            (0, 3, true),
            (4, 0, true),
            (5, most, false),
            (5 + most as u64, most, false),
            (5 + 2 * most as u64, 5, true),
            (end, 4, false),
        ];
        assert_eq!(seen, expected);
    }
}
