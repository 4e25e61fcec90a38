//! Files of lines that only grow, rotated by size: records for people and their tools, not the journal that decisions rest on.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use crate::clock;
use crate::sparing::Sparing;

/// Where lines go and how much of them stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The file; older ones stand beside it as `.1`, `.2` and so on.
    pub file: PathBuf,
    /// The file is rotated at this size, in octets; at least 65,536.
    pub rotate_bytes: u64,
    /// Rotated files kept.
    pub keep: u32,
}

/// How long, in milliseconds, a pipe or a terminal may take to make room for more.
const ROOM: libc::c_int = 250;
/// How often, in milliseconds, is looked whether somebody else has moved or removed the file.
const LOOK: u64 = 1000;
/// How much a file that cannot be rotated grows before that is tried again, octets.
const AGAIN: u64 = 1 << 20;

/// A file of lines, rotated by size. A pipe, a terminal or `/dev/null` will do as well: it is never rotated, and one that
/// nobody reads fails like a full disk.
#[derive(Debug)]
pub struct LineFile {
    path: PathBuf,
    what: &'static str,
    /// `None` while it could not be opened again after a rotation; tried anew at each write.
    open: Option<Open>,
    rotate_bytes: u64,
    keep: u32,
    failing: bool,
    /// When it was last told that it fails, that it does not any more, and that it is not rotated.
    told: [Sparing; 3],
}

#[derive(Debug)]
struct Open {
    file: File,
    size: u64,
    /// At which size it is rotated.
    most: u64,
    /// Which file it is: device and number.
    identity: (u64, u64),
    /// When it is looked next whether it is still there, monotonic milliseconds.
    look: u64,
    /// A file on a disk, which can be rotated.
    regular: bool,
    /// The file does not end with a newline: its last line was cut short, by a full disk or by a crash.
    torn: bool,
}

impl LineFile {
    /// Opens or creates the file for appending. `what` it holds is told where it cannot be written: `events`.
    ///
    /// # Errors
    ///
    /// Where it cannot be opened.
    pub fn open(config: &Config, what: &'static str) -> io::Result<Self> {
        let rotate_bytes = config.rotate_bytes.max(1 << 16);
        let open = Some(Open::append(&config.file, rotate_bytes)?);
        Ok(Self {
            path: config.file.clone(),
            what,
            open,
            rotate_bytes,
            keep: config.keep,
            failing: false,
            told: Default::default(),
        })
    }

    /// Writes whole lines, the last with its newline. What they record goes on without its record where that fails: the
    /// operator is told when it begins and when it ends, once a minute at most. Returns how many octets of them the file
    /// holds now; where that ends within a line, the next write begins on a new one.
    pub fn write(&mut self, lines: &[u8]) -> usize {
        let mut written = 0;
        let result = self.try_write(lines, &mut written);
        let changed = result.is_err() != self.failing;
        self.failing = result.is_err();
        if changed {
            let (file, now) = (self.path.display(), clock::now().mono);
            let [failing, again, _] = &self.told;
            match (result, failing, again) {
                (Err(error), told, _) if let Some(kept_back) = told.turn(now) => {
                    tracing::error!(%error, %file, kept_back, "{} cannot be written", self.what);
                }
                (Ok(()), _, told) if let Some(kept_back) = told.turn(now) => {
                    tracing::warn!(%file, kept_back, "{} are written again", self.what);
                }
                _ => {}
            }
        }
        written
    }

    /// Whether the last write failed.
    pub fn is_failing(&self) -> bool {
        self.failing
    }

    fn try_write(&mut self, lines: &[u8], written: &mut usize) -> io::Result<()> {
        let now = clock::now().mono;
        if self.open.as_mut().is_some_and(|open| open.is_gone(&self.path, now)) {
            self.open = None;
        }
        let open = match &mut self.open {
            Some(open) => open,
            None => self.open.insert(Open::append(&self.path, self.rotate_bytes)?),
        };
        let result = append_lines(&mut Patient(&open.file), &mut open.torn, lines, written);
        open.size += *written as u64;
        result?;
        if open.regular && open.size >= open.most {
            if let Err(error) = rotate(&self.path, self.keep) {
                // All of it is written, so this is no failure of the lines: the file goes on growing.
                open.most = open.size.saturating_add(AGAIN);
                let (file, [.., told]) = (self.path.display(), &self.told);
                if let Some(kept_back) = told.turn(now) {
                    tracing::error!(%error, %file, kept_back, "{} cannot be rotated, and the file grows", self.what);
                }
                return Ok(());
            }
            // What is open now is the rotated file, whatever becomes of the new one.
            self.open = None;
            self.open = Some(Open::append(&self.path, self.rotate_bytes)?);
        }
        Ok(())
    }
}

impl Open {
    fn append(path: &Path, most: u64) -> io::Result<Self> {
        use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
        // Of files on a disk this changes nothing.
        let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
        let file =
            OpenOptions::new().read(true).create(true).append(true).mode(0o640).custom_flags(flags).open(path)?;
        let metadata = file.metadata()?;
        let (size, regular) = (metadata.len(), metadata.is_file());
        let mut last = *b"\n";
        if let Some(at) = size.checked_sub(1) {
            // Of what cannot be read, such as a pipe, nothing is known to be torn.
            let _ = file.read_at(&mut last, at);
        }
        let identity = (metadata.dev(), metadata.ino());
        Ok(Self { file, size, most, identity, look: 0, regular, torn: last != *b"\n" })
    }

    /// Whether the path leads to another file by now, or to none: what is written would be where nobody looks for it, or
    /// nowhere.
    fn is_gone(&mut self, path: &Path, now: u64) -> bool {
        use std::os::unix::fs::MetadataExt;
        if !self.regular || now < self.look {
            return false;
        }
        self.look = now + LOOK;
        match std::fs::metadata(path) {
            Ok(there) => (there.dev(), there.ino()) != self.identity,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        }
    }
}

/// Waits a moment where there is no room.
struct Patient<'a>(&'a File);

impl Write for Patient<'_> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        let result = self.0.write(octets);
        if !result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            return result;
        }
        let mut descriptor = libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
        // SAFETY: one descriptor, valid for the call.
        match unsafe { libc::poll(&raw mut descriptor, 1, ROOM) } {
            0 => Err(io::Error::new(io::ErrorKind::TimedOut, "nobody reads what is written to it")),
            -1 => Err(io::Error::last_os_error()),
            _ => self.0.write(octets),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes whole lines behind what is there, on a new line if that is `torn`, and counts how much of them it has `written`;
/// after an error `torn` says whether a part of a line was left behind.
fn append_lines(out: &mut impl Write, torn: &mut bool, lines: &[u8], written: &mut usize) -> io::Result<()> {
    for (piece, counts) in [(if *torn { b"\n".as_slice() } else { b"" }, 0), (lines, 1)] {
        let mut rest = piece;
        while !rest.is_empty() {
            let taken = match out.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(taken) => taken,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let Some((done, left)) = rest.split_at_checked(taken) else {
                return Err(io::Error::other("more was written than was given"));
            };
            *torn = !done.ends_with(b"\n");
            rest = left;
            *written += counts * taken;
        }
    }
    Ok(())
}

/// Moves the file out of the way, older ones with it; those that are beyond `keep` go. Nothing to move is no error: somebody else has moved it.
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
    absent_is_fine(if keep == 0 { std::fs::remove_file(path) } else { std::fs::rename(path, numbered(1)) })?;
    // From a time when more were kept. What cannot be removed is left, with those behind it.
    let mut beyond = (keep.saturating_add(1)..).map(numbered);
    while beyond.next().is_some_and(|old| std::fs::remove_file(old).is_ok()) {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_rotated_and_old_ones_go() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("events.jsonl");
        let config = Config { file: path.clone(), rotate_bytes: 1 << 16, keep: 2 };
        let mut file = LineFile::open(&config, "lines").expect("opens");
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
    fn where_fewer_are_kept_than_before_the_others_go() {
        for (keep, left) in [(0, vec!["lines"]), (1, vec!["lines", "lines.1"])] {
            let dir = tempfile::tempdir().expect("directory");
            let path = dir.path().join("lines");
            for n in 1..=5 {
                std::fs::write(dir.path().join(format!("lines.{n}")), "older\n").expect("written");
            }
            let config = Config { file: path, rotate_bytes: 1 << 16, keep };
            LineFile::open(&config, "lines").expect("opens").write(&[b'x'; 70_000]);
            let there = std::fs::read_dir(dir.path()).expect("lists").map(|entry| entry.expect("entry").file_name());
            let mut there: Vec<_> = there.collect();
            there.sort();
            assert_eq!(there, left);
        }
    }

    #[test]
    fn a_file_that_could_not_be_opened_after_a_rotation_is_opened_later() {
        let dir = tempfile::tempdir().expect("directory");
        let (logs, away) = (dir.path().join("logs"), dir.path().join("away"));
        std::fs::create_dir(&logs).expect("directory");
        let path = logs.join("events.jsonl");
        let config = Config { file: path.clone(), rotate_bytes: 1 << 16, keep: 2 };
        let mut file = LineFile::open(&config, "lines").expect("opens");
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

    #[test]
    fn a_file_that_cannot_be_rotated_takes_lines_all_the_same() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("events.jsonl");
        // Nothing can be moved there; root is kept from nothing by a mode.
        std::fs::create_dir_all(dir.path().join("events.jsonl.1/taken")).expect("directory");
        let config = Config { file: path.clone(), rotate_bytes: 1 << 16, keep: 1 };
        let mut file = LineFile::open(&config, "lines").expect("opens");
        let lines = [&[b'x'; 70_000][..], b"\n"].concat();
        for n in 1..=2 {
            assert_eq!(file.write(&lines), lines.len());
            assert!(!file.is_failing(), "they are written");
            assert_eq!(std::fs::metadata(&path).expect("file").len(), n * lines.len() as u64);
        }
        std::fs::remove_dir_all(dir.path().join("events.jsonl.1")).expect("removed");
        for _ in 0..AGAIN / 70_000 + 1 {
            file.write(&lines);
        }
        assert!(dir.path().join("events.jsonl.1").is_file(), "tried again");
    }

    #[test]
    fn a_file_that_somebody_else_has_moved_or_removed_is_begun_anew() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("events.jsonl");
        let config = Config { file: path.clone(), rotate_bytes: 1 << 16, keep: 2 };
        let mut file = LineFile::open(&config, "lines").expect("opens");
        let later = |file: &mut LineFile| file.open.as_mut().expect("open").look = 0;
        file.write(b"one\n");
        std::fs::rename(&path, dir.path().join("away")).expect("moved");
        later(&mut file);
        file.write(b"two\n");
        assert_eq!(std::fs::read(&path).expect("file"), b"two\n");
        std::fs::remove_file(&path).expect("removed");
        later(&mut file);
        file.write(b"three\n");
        later(&mut file);
        file.write(b"four\n");
        assert_eq!(std::fs::read(&path).expect("file"), b"three\nfour\n");
        assert_eq!(std::fs::read(dir.path().join("away")).expect("file"), b"one\n");
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
            let (mut torn, mut written) = (false, 0);
            let first = append_lines(&mut disk, &mut torn, b"one\ntwo\n", &mut written);
            assert_eq!(first.is_ok(), room >= 8, "room {room}");
            assert_eq!(written, room.min(8));
            // Still full: a second failure does not forget the first.
            disk.room = 0;
            assert!(append_lines(&mut disk, &mut torn, b"three\n", &mut written).is_err());
            disk.room = usize::MAX;
            append_lines(&mut disk, &mut torn, b"four\n", &mut written).expect("there is room");
            let text = String::from_utf8(disk.written).expect("text");
            assert_eq!(text.lines().last(), Some("four"), "room {room}: {text:?}");
            assert!(!text.contains("\n\n") && !text.starts_with('\n'), "no empty line: {text:?}");
        }
    }

    #[test]
    fn a_pipe_that_nobody_reads_fails_and_holds_nobody_up() {
        use std::io::Read as _;
        use std::os::unix::fs::OpenOptionsExt as _;
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("events.pipe");
        let name = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).expect("a path");
        // SAFETY: the pointer is to a NUL-terminated string.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        let config = Config { file: path.clone(), rotate_bytes: 1 << 16, keep: 2 };
        let mut file = LineFile::open(&config, "lines").expect("opens");
        let lines = [&[b'x'; 1023][..], b"\n"].concat().repeat(256);
        let written = file.write(&lines);
        assert!(file.failing && written < lines.len(), "{written}");
        // What is in it is read, and there is room again.
        let mut reader = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&path).expect("opens");
        let mut read = vec![0; lines.len()];
        assert_eq!(reader.read(&mut read).expect("octets"), written);
        file.write(b"again\n");
        assert!(!file.failing);
        let names = std::fs::read_dir(dir.path()).expect("lists").count();
        assert_eq!(names, 1, "it was not rotated");
    }

    #[test]
    fn a_line_torn_by_a_crash_is_ended_at_the_next_start() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("events.jsonl");
        let config = Config { file: path.clone(), rotate_bytes: 1 << 16, keep: 2 };
        std::fs::write(&path, "{\"a\":1}\n{\"b").expect("written");
        LineFile::open(&config, "lines").expect("opens").write(b"{\"c\":1}\n");
        LineFile::open(&config, "lines").expect("opens").write(b"{\"d\":1}\n");
        let text = std::fs::read_to_string(&path).expect("text");
        assert_eq!(text, "{\"a\":1}\n{\"b\n{\"c\":1}\n{\"d\":1}\n");
    }
}
