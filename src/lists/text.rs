//! A list's octets as lines, in memory that does not depend on how long a line or the list is.

use std::io::{self, Read};

/// Octets read at once. Larger than [`super::parse::MAX_LINE`], so a line that may be read lies in it whole.
const BUFFER: usize = 256 * 1024;

/// Longest line of a file that is a list at all, octets. A longer one is no list's, and what follows is not read.
pub const MAX_TEXT_LINE: usize = 64 * 1024;

/// Lines of a reader.
pub(super) struct Lines<R> {
    from: R,
    buffer: Box<[u8]>,
    /// What of the buffer was read and not yet given out.
    start: usize,
    end: usize,
    /// Nothing more can be read.
    over: bool,
    /// The line behind the last newline was given out.
    done: bool,
    number: u32,
}

/// Why there are no more lines.
#[derive(Debug)]
pub(super) enum Stop {
    /// It could not be read.
    Read(io::Error),
    /// A line longer than [`MAX_TEXT_LINE`], by its number.
    Endless(u32),
    /// More lines than can be numbered.
    TooMany,
}

impl<R: Read> Lines<R> {
    pub(super) fn of(from: R) -> Self {
        Self { from, buffer: vec![0; BUFFER].into(), start: 0, end: 0, over: false, done: false, number: 0 }
    }

    /// The next line without its newline, and its number from 1. As when a text is split at newlines, what follows the
    /// last one is a line too, if only an empty one.
    pub(super) fn next(&mut self) -> Result<Option<(u32, &[u8])>, Stop> {
        let mut seen = 0;
        if self.done {
            return Ok(None);
        }
        loop {
            let unread = self.buffer.get(self.start..self.end).unwrap_or_default();
            let newline = unread.get(seen..).unwrap_or_default().iter().position(|b| *b == b'\n').map(|at| at + seen);
            let length = match newline {
                Some(at) => at,
                None if unread.len() > MAX_TEXT_LINE => unread.len(),
                None if self.over => unread.len(),
                None => {
                    seen = unread.len();
                    self.fill().map_err(Stop::Read)?;
                    continue;
                }
            };
            self.number = self.number.checked_add(1).ok_or(Stop::TooMany)?;
            if length > MAX_TEXT_LINE {
                return Err(Stop::Endless(self.number));
            }
            let from = self.start;
            self.done = newline.is_none();
            self.start = from + length + usize::from(!self.done);
            return Ok(self.buffer.get(from..from + length).map(|line| (self.number, line)));
        }
    }

    fn fill(&mut self) -> io::Result<()> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        let Some(room) = self.buffer.get_mut(self.end..) else { return Ok(()) };
        loop {
            match self.from.read(room) {
                Ok(0) => self.over = true,
                Ok(more) => self.end += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives out a few octets at a time.
    struct Slow<'t>(&'t [u8], usize);

    impl Read for Slow<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let length = self.1.min(into.len()).min(self.0.len());
            let (now, later) = self.0.split_at(length);
            into[..length].copy_from_slice(now);
            self.0 = later;
            Ok(length)
        }
    }

    fn all(text: &[u8], step: usize) -> Vec<Vec<u8>> {
        let mut lines = Lines::of(Slow(text, step));
        let mut seen = Vec::new();
        while let Some((number, line)) = lines.next().expect("reads") {
            seen.push(line.to_vec());
            assert_eq!(number as usize, seen.len());
        }
        seen
    }

    #[test]
    fn lines_are_those_of_a_split_whatever_a_read_gives() {
        let long = [b'x'; BUFFER / 5].as_slice();
        let many = [long, b"\nshort\n", long, b"\n\n", long, b"\n", long, b"\n", long, b"\n", long, b"end"].concat();
        for text in [b"".as_slice(), b"a", b"\n", b"a\nbc\n\nd", b"a\r\n", &many] {
            let expected: Vec<_> = text.split(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
            for step in [1, 7, 4096, usize::MAX] {
                if text.len() > 1000 && step < 4096 {
                    continue;
                }
                assert_eq!(all(text, step), expected, "{} octets, {step} at a time", text.len());
            }
        }
    }

    #[test]
    fn a_line_without_end_is_not_read_to_its_end() {
        let mut lines = Lines::of(b"first\n".chain(io::repeat(b'x')));
        assert_eq!(lines.next().expect("reads").map(|(n, line)| (n, line.to_vec())), Some((1, b"first".to_vec())));
        assert!(matches!(lines.next(), Err(Stop::Endless(2))));
    }
}
