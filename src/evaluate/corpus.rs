//! Labelled logs, read: files and directories in, sessions in order of time and plain lists of names out.
//!
//! The only part of [`super`] that reads files. One JSON object a line, plain or gzip:
//! `{"t","session","qname","qtype","label","tool"}`, other fields are passed over. Knows no policy.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use staunch_scoring::{NameBuf, NameRef};

use crate::model::Qtype;

/// Longest line, octets: the longest name with every octet escaped takes a thousand.
const MAX_LINE: u64 = 64 * 1024;

/// Most lines of all files together, so that a mistaken path ends in a message and not in an empty memory.
const MAX_ROWS: usize = 20_000_000;

/// Longest time between two rows of one session, milliseconds: ten years. More is a mistake of units, and a replay that
/// walks through it takes as long as one that has something to show.
const MAX_SPAN_MS: u64 = 10 * 365 * 86_400_000;

/// Latest time of a row, seconds since the Unix epoch: the end of the year 9999.
const MAX_TIME: f64 = 253_402_300_799.0;

/// Time between two rows of a session that was recorded without times, milliseconds. Chosen without a source.
const NOMINAL_GAP_MS: u64 = 1000;

/// Endings of files that a directory is searched for.
const ENDINGS: [&str; 4] = [".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz"];

/// What a row is known to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Label {
    /// Ordinary work.
    Benign,
    /// Legitimate, and looks like a leak.
    BenignOdd,
    /// A tunnel at its own pace.
    Tunnel,
    /// A leak that is slow, spread, shaped, or not in names.
    #[serde(rename = "lowslow")]
    LowSlow,
}

impl Label {
    /// Every label.
    pub const ALL: [Self; 4] = [Self::Benign, Self::BenignOdd, Self::Tunnel, Self::LowSlow];

    /// As in the logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Benign => "benign",
            Self::BenignOdd => "benign-odd",
            Self::Tunnel => "tunnel",
            Self::LowSlow => "lowslow",
        }
    }

    /// Whether it is to be stopped.
    pub const fn is_attack(self) -> bool {
        matches!(self, Self::Tunnel | Self::LowSlow)
    }
}

/// One query of a session.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Milliseconds since the session's first row.
    pub at: u64,
    /// The name.
    pub name: NameBuf,
    /// The type; where the log has none, see [`Corpus::read`].
    pub qtype: Qtype,
    /// What it is known to be.
    pub label: Label,
    /// What made it: an index of [`Corpus::tools`].
    pub tool: u16,
}

/// One client's queries in order of time.
#[derive(Debug, Clone)]
pub struct Session {
    /// As in the logs.
    pub id: Arc<str>,
    /// Time of its first row, milliseconds since the Unix epoch; 0 where the log has no times.
    pub start: u64,
    /// Whether the log has times.
    pub timed: bool,
    /// Its queries.
    pub rows: Vec<Asked>,
}

impl Session {
    /// Whether some row of it is to be stopped.
    pub fn has_attack(&self) -> bool {
        self.rows.iter().any(|row| row.label.is_attack())
    }
}

/// A name that was recorded without a client.
#[derive(Debug, Clone)]
pub struct Listed {
    /// The name.
    pub name: NameBuf,
    /// The type.
    pub qtype: Qtype,
    /// What it is known to be.
    pub label: Label,
    /// An index of [`Corpus::tools`].
    pub tool: u16,
}

/// All that was read.
#[derive(Debug, Clone, Default)]
pub struct Corpus {
    /// What made the rows, in the order of first sight.
    pub tools: Vec<Arc<str>>,
    /// Sessions by name.
    pub sessions: Vec<Session>,
    /// Names without a client, in the order of the files.
    pub listed: Vec<Listed>,
}

/// Why logs could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or directory.
    #[error("{}: cannot be read", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A directory without logs.
    #[error("{}: no log in this directory; a log's name ends in .jsonl, .ndjson or either with .gz", path.display())]
    Empty {
        /// Which.
        path: PathBuf,
    },
    /// A row.
    #[error("{}:{line}: {problem}", path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// What is wrong and what is right.
        problem: String,
    },
}

/// A row as written.
#[derive(Deserialize)]
struct Written<'a> {
    #[serde(default)]
    t: Option<f64>,
    #[serde(borrow, default)]
    session: Option<std::borrow::Cow<'a, str>>,
    #[serde(borrow)]
    qname: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    qtype: std::borrow::Cow<'a, str>,
    label: Label,
    #[serde(borrow)]
    tool: std::borrow::Cow<'a, str>,
}

/// Rows of one client before they are in order.
#[derive(Default)]
struct Gathered {
    timed: Option<bool>,
    /// Earliest and latest time.
    span: Option<(u64, u64)>,
    rows: Vec<(u64, Asked)>,
}

struct Reader {
    tools: Vec<Arc<str>>,
    by_tool: HashMap<Arc<str>, u16>,
    sessions: BTreeMap<Arc<str>, Gathered>,
    listed: Vec<Listed>,
    lines: usize,
    /// How many lines are read.
    most: usize,
}

impl Corpus {
    /// Reads files and directories (their logs, not those of directories below). The same file named twice is read
    /// once; sessions of one name are one session, whichever files they stand in, so that a leak can be laid over
    /// ordinary work.
    ///
    /// A row without a type counts as one for A, or for TXT where its name is no host name, since no stub asks for the
    /// address of such a name. A session without times keeps its order, a second between two rows; a row without a
    /// session goes to [`Corpus::listed`].
    ///
    /// # Errors
    /// The first file that cannot be read or row that makes no sense, with its line.
    pub fn read(paths: &[PathBuf]) -> Result<Self, Error> {
        let mut reader = Reader::new(MAX_ROWS);
        let mut seen = BTreeSet::new();
        for path in paths {
            for file in files(path)? {
                let canonical = file.canonicalize().map_err(|source| Error::Io { path: file.clone(), source })?;
                if seen.insert(canonical) {
                    reader.file(&file)?;
                }
            }
        }
        Ok(reader.finish())
    }

    /// Whether nothing was read.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty() && self.listed.is_empty()
    }
}

/// The logs that `path` stands for.
fn files(path: &Path) -> Result<Vec<PathBuf>, Error> {
    let io = |source| Error::Io { path: path.into(), source };
    if !std::fs::metadata(path).map_err(io)?.is_dir() {
        return Ok(vec![path.into()]);
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).map_err(io)? {
        let file = entry.map_err(io)?.path();
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if ENDINGS.iter().any(|ending| name.ends_with(ending)) && file.is_file() {
            found.push(file);
        }
    }
    if found.is_empty() {
        return Err(Error::Empty { path: path.into() });
    }
    found.sort();
    Ok(found)
}

impl Reader {
    fn new(most: usize) -> Self {
        let (tools, by_tool, sessions) = (Vec::new(), HashMap::new(), BTreeMap::new());
        Self { tools, by_tool, sessions, listed: Vec::new(), lines: 0, most }
    }

    fn file(&mut self, path: &Path) -> Result<(), Error> {
        let io = |source| Error::Io { path: path.into(), source };
        let mut raw = BufReader::new(File::open(path).map_err(io)?);
        // The first octets of gzip (RFC 1952 section 2.3.1) start no JSON text.
        let packed = raw.fill_buf().map_err(io)?.starts_with(&[0x1f, 0x8b]);
        let mut text: Box<dyn BufRead> = match packed {
            true => Box::new(BufReader::new(flate2::bufread::MultiGzDecoder::new(raw))),
            false => Box::new(raw),
        };
        let mut octets = Vec::new();
        for line in 1.. {
            octets.clear();
            if text.by_ref().take(MAX_LINE + 1).read_until(b'\n', &mut octets).map_err(io)? == 0 {
                return Ok(());
            }
            let bad = |problem: String| Error::Row { path: path.into(), line, problem };
            if octets.len() as u64 > MAX_LINE {
                return Err(bad(format!("longer than {MAX_LINE} octets; give one JSON object a line")));
            }
            // Blank lines too: a small packed file can hold more of them than anybody waits for.
            self.lines += 1;
            if self.lines > self.most {
                return Err(bad(format!("more than {} lines in all; give fewer files", self.most)));
            }
            if octets.trim_ascii().is_empty() {
                continue;
            }
            self.row(&octets).map_err(bad)?;
        }
        Ok(())
    }

    fn row(&mut self, octets: &[u8]) -> Result<(), String> {
        let row: Written<'_> = serde_json::from_slice(octets).map_err(|error| error.to_string())?;
        let name =
            NameBuf::from_text(&row.qname).map_err(|error| format!("qname `{}`: {error}", row.qname.escape_debug()))?;
        let qtype = qtype(&row.qtype, name.as_ref())?;
        let label = row.label;
        let tool = self.tool(&row.tool)?;
        let Some(session) = row.session else {
            self.listed.push(Listed { name, qtype, label, tool });
            return Ok(());
        };
        let at = row.t.map(milliseconds).transpose()?;
        let gathered = match self.sessions.get_mut(&*session) {
            Some(gathered) => gathered,
            None => self.sessions.entry(session.as_ref().into()).or_default(),
        };
        if *gathered.timed.get_or_insert(at.is_some()) != at.is_some() {
            return Err(format!(
                "session `{}` has rows with and rows without a time; give all of them one, or none",
                session.escape_debug()
            ));
        }
        let at = at.unwrap_or(gathered.rows.len() as u64 * NOMINAL_GAP_MS);
        let (first, last) = gathered.span.unwrap_or((at, at));
        let (first, last) = (first.min(at), last.max(at));
        if last - first > MAX_SPAN_MS {
            return Err(format!(
                "session `{}` lasts longer than ten years; give t in seconds since the Unix epoch, and each run a session",
                session.escape_debug()
            ));
        }
        gathered.span = Some((first, last));
        gathered.rows.push((at, Asked { at: 0, name, qtype, label, tool }));
        Ok(())
    }

    fn tool(&mut self, tool: &str) -> Result<u16, String> {
        if let Some(known) = self.by_tool.get(tool) {
            return Ok(*known);
        }
        let number = u16::try_from(self.tools.len()).map_err(|_| "more than 65,536 tools; are these tools?")?;
        let tool: Arc<str> = tool.into();
        self.tools.push(tool.clone());
        self.by_tool.insert(tool, number);
        Ok(number)
    }

    fn finish(self) -> Corpus {
        let sessions = self.sessions.into_iter().map(|(id, gathered)| {
            let Gathered { timed, mut rows, .. } = gathered;
            // Rows of one instant keep the order of the file.
            rows.sort_by_key(|(at, _)| *at);
            let start = rows.first().map_or(0, |(at, _)| *at);
            let rows = rows.into_iter().map(|(at, row)| Asked { at: at - start, ..row }).collect();
            Session { id, start, timed: timed.unwrap_or(false), rows }
        });
        Corpus { sessions: sessions.collect(), tools: self.tools, listed: self.listed }
    }
}

fn milliseconds(seconds: f64) -> Result<u64, String> {
    if (0.0..=MAX_TIME).contains(&seconds) {
        return Ok((seconds * 1000.0).round() as u64);
    }
    Err(format!("t is {seconds}; give seconds since the Unix epoch, or null"))
}

fn qtype(text: &str, name: NameRef<'_>) -> Result<Qtype, String> {
    if text == "-" {
        let good = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        let host = name.labels().all(|label| label.iter().all(good));
        return Ok(if host { Qtype::A } else { Qtype::TXT });
    }
    Qtype::from_text(text)
        .ok_or_else(|| format!("unknown qtype `{}`; use a mnemonic, TYPEn, or - for none", text.escape_debug()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn row(t: &str, session: &str, qname: &str, label: &str) -> String {
        format!(
            r#"{{"t":{t},"session":{session},"qname":"{qname}","qtype":"A","label":"{label}","tool":"x","source":"y"}}"#
        )
    }

    #[test]
    fn rows_are_put_in_order_and_lists_kept_apart() {
        let dir = tempfile::tempdir().expect("directory");
        let plain = [
            row("12.5", "\"s\"", "b.example", "benign"),
            row("10", "\"s\"", "a.example", "tunnel"),
            String::new(),
            row("null", "null", "list.example", "benign-odd"),
        ];
        std::fs::write(dir.path().join("a.jsonl"), plain.join("\n")).expect("file");
        let mut packed = flate2::write::GzEncoder::new(
            File::create(dir.path().join("b.jsonl.gz")).expect("file"),
            Default::default(),
        );
        packed.write_all(row("11", "\"s\"", "c.example", "lowslow").as_bytes()).expect("written");
        packed.finish().expect("finished");
        std::fs::write(dir.path().join("README.md"), "not a log").expect("file");

        let twice = [dir.path().to_owned(), dir.path().join("a.jsonl")];
        let corpus = Corpus::read(&twice).expect("reads");
        assert_eq!(corpus.listed.len(), 1);
        let [session] = &corpus.sessions[..] else { panic!("one session") };
        let asked: Vec<_> = session.rows.iter().map(|row| (row.at, row.name.to_string(), row.label)).collect();
        assert_eq!(
            asked,
            [
                (0, "a.example".into(), Label::Tunnel),
                (1000, "c.example".into(), Label::LowSlow),
                (2500, "b.example".into(), Label::Benign)
            ]
        );
        assert_eq!((session.start, session.timed), (10_000, true));
    }

    #[test]
    fn a_bad_row_is_told_with_its_line() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("log.jsonl");
        let good = row("1", "\"s\"", "a.example", "benign");
        for (bad, told) in [
            (row("1", "\"s\"", "a..example", "benign"), "qname"),
            (row("1", "\"s\"", "a.example", "strange"), "strange"),
            (row("-1", "\"s\"", "a.example", "benign"), "t is -1"),
            (row("null", "\"s\"", "a.example", "benign"), "with and rows without"),
            (good.replace("\"A\"", "\"WHAT\""), "qtype"),
            ("{".into(), "EOF"),
            ("x".repeat(100_000), "longer"),
        ] {
            std::fs::write(&path, format!("{good}\n{bad}\n")).expect("file");
            let error = Corpus::read(std::slice::from_ref(&path)).expect_err(&bad).to_string();
            assert!(error.contains("log.jsonl:2: ") && error.contains(told), "{error}");
        }
        assert!(matches!(Corpus::read(&[dir.path().join("absent")]), Err(Error::Io { .. })));
        std::fs::remove_file(&path).expect("removed");
        assert!(matches!(Corpus::read(&[dir.path().to_owned()]), Err(Error::Empty { .. })));
    }

    #[test]
    fn blank_lines_count_and_a_session_has_an_end() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("a.jsonl");
        let read = |lines: &[String], most: usize| {
            std::fs::write(&path, lines.join("\n")).expect("file");
            Reader::new(most).file(&path).map_err(|error| error.to_string())
        };
        let blank = [row("1", "\"s\"", "a.example", "benign"), String::new(), String::new(), "x".into()];
        let said = read(&blank, 2).expect_err("too many lines");
        assert!(said.contains("a.jsonl:3: more than 2 lines in all"), "{said}");
        // Ten years and ten years and a second; times stand in any order.
        let span = |last: &str| [row(last, "\"s\"", "b.example", "benign"), row("0", "\"s\"", "a.example", "benign")];
        assert_eq!(read(&span("315360000"), 9), Ok(()));
        let said = read(&span("315360001"), 9).expect_err("too long");
        assert!(said.contains("a.jsonl:2: session `s` lasts longer than ten years"), "{said}");
    }

    #[test]
    fn a_missing_type_is_guessed_from_the_name() {
        let name = |text: &str| NameBuf::from_text(text).expect("name");
        assert_eq!(qtype("-", name("a_b-1.example").as_ref()), Ok(Qtype::A));
        assert_eq!(qtype("-", name("a+b.example").as_ref()), Ok(Qtype::TXT));
        assert_eq!(qtype("TYPE65", name("a.example").as_ref()), Ok(Qtype::HTTPS));
    }
}
