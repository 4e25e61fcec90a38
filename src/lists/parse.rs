//! Reading lists: octets in, entries out, every line that is passed over counted and explained.
//!
//! Total on any octets, in one pass, with memory that does not grow with the input: a line is read into a buffer of
//! fixed size, and of the lines passed over the first few are kept. Nothing here knows what becomes of an entry.

use std::collections::BTreeMap;
use std::io::Read;

use serde::{Deserialize, Serialize};
use staunch_scoring::NameRef;

use super::compile::MAX_NAMES;
use super::day::Day;
use super::form::Reach;
use super::formats::{self, Format};
use super::mark::Bearing;
use super::skip::{SkipKind, SkipReason, Skipped};
use super::text::{Lines, MAX_TEXT_LINE, Stop};

/// Longest line read; longer ones are passed over. Names have at most 255 octets, the rest is comment.
pub const MAX_LINE: usize = 1024;
/// Entries of one file; a file with more is refused.
pub const MAX_ENTRIES: u32 = 20_000_000;
/// Passed-over lines that a report holds one by one; the others are only counted.
pub const SHOWN_SKIPS: usize = 20;
/// A file is refused when more than one in this many of its lines (blank ones and comments aside) cannot be read: it
/// is then of another format, or no list at all (an error page, half a download). Lines that a filter list may have and
/// a list of names cannot express are no sign of that.
pub const GARBAGE_SHARE: u32 = 4;

/// One name of a list.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'e> {
    /// Where it stands, from 1.
    pub line: u32,
    /// The name.
    pub name: NameRef<'e>,
    /// How far it reaches.
    pub reach: Reach,
    /// Whether the list takes the name out of what it denies.
    pub exception: bool,
    /// Whether the list's plain exceptions do not apply, or for an exception, whether it applies to such entries too.
    pub important: bool,
    /// How it and the exceptions of its list bear on each other.
    pub bearing: Bearing,
    /// Day of registration ([`Format::Nrd`] only).
    pub day: Option<Day>,
    /// What the line says of it beside.
    pub comment: &'e str,
}

/// What a file held.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// How it is written.
    pub format: Format,
    /// Lines of any kind.
    pub lines: u32,
    /// Entries, exceptions among them.
    pub entries: u32,
    /// Of them, exceptions.
    #[serde(default)]
    pub exceptions: u32,
    /// Of the entries, names written with letters outside ASCII and converted (UTS 46).
    #[serde(default)]
    pub converted: u32,
    /// Lines passed over. A line with several names counts once for all that are bad.
    pub skipped: u32,
    /// The same by kind of reason.
    #[serde(default)]
    pub reasons: BTreeMap<SkipKind, u32>,
    /// The first [`SHOWN_SKIPS`] of them.
    pub first_skipped: Vec<Skipped>,
}

/// Why a file is refused as a whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(String),
    /// It has NUL octets.
    #[error("not a text file: NUL octet in line {line}")]
    Binary {
        /// The first such line.
        line: u32,
    },
    /// It begins as text in another encoding than UTF-8 does.
    #[error("text in {charset}; lists are UTF-8")]
    Charset {
        /// Which.
        charset: &'static str,
    },
    /// A line that no list has.
    #[error("not a list: line {line} is longer than {MAX_TEXT_LINE} octets")]
    Endless {
        /// Which.
        line: u32,
    },
    /// Too many lines cannot be read, see [`GARBAGE_SHARE`].
    #[error("{bad} of {content} lines cannot be read; the first is line {line}: {reason}")]
    Garbage {
        /// Lines that cannot be read.
        bad: u32,
        /// Lines that are neither blank nor comment.
        content: u32,
        /// The first bad one.
        line: u32,
        /// What is wrong with it.
        reason: SkipReason,
    },
    /// More than [`MAX_ENTRIES`], or with the others more than [`MAX_NAMES`], or more lines in all lists than can be numbered.
    #[error("more entries than fit ({MAX_ENTRIES} a file; {MAX_NAMES} in all lists, in five hundred million lines)")]
    TooLarge,
    /// A copy in another format than the one that is needed.
    #[error("it is written as {}", .0.as_str())]
    Format(Format),
    /// It was another file when it was read the second time.
    #[error("changed while it was read")]
    Changed,
}

impl ListError {
    /// The line that shows it, from 1; 0 where none does.
    pub fn line(&self) -> u32 {
        match self {
            Self::Binary { line } | Self::Endless { line } | Self::Garbage { line, .. } => *line,
            Self::Unreadable(_) | Self::Charset { .. } | Self::TooLarge | Self::Format(_) | Self::Changed => 0,
        }
    }
}

impl From<Stop> for ListError {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Read(error) => Self::Unreadable(error.to_string()),
            Stop::Endless(line) => Self::Endless { line },
            Stop::TooMany => Self::TooLarge,
        }
    }
}

/// Reads a whole list and hands each entry to `sink`. `day` is for [`Format::Nrd`] lists that have none.
///
/// # Errors
/// [`ListError`] where the list is refused; entries already handed out are then to be dropped.
pub fn parse(
    from: impl Read,
    format: Format,
    day: Option<Day>,
    sink: impl FnMut(Entry<'_>) -> Result<(), SkipReason>,
) -> Result<Report, ListError> {
    parse_telling(from, format, day, sink, |_| {})
}

/// As [`parse`], with every line that is passed over handed to `told`.
///
/// # Errors
/// As [`parse`].
pub fn parse_telling(
    from: impl Read,
    format: Format,
    day: Option<Day>,
    mut sink: impl FnMut(Entry<'_>) -> Result<(), SkipReason>,
    mut told: impl FnMut(&Skipped),
) -> Result<Report, ListError> {
    let mut report = Report { format, ..Report::default() };
    let (mut content, mut bad) = (0u32, 0u32);
    let mut first_bad = None;
    let (mut conditions, mut twins) = (formats::Conditions::default(), formats::Twins::default());
    let mut lines = Lines::of(from);
    while let Some((number, octets)) = lines.next()? {
        report.lines = number;
        let octets = if number == 1 { start_of_text(octets)? } else { octets };
        if octets.contains(&0) {
            return Err(ListError::Binary { line: number });
        }
        let octets = octets.trim_ascii();
        if formats::is_comment(octets, format) {
            continue;
        }
        content += 1;
        let (mut entries, mut exceptions, mut converted) = (0u32, 0u32, 0u32);
        let conditional = if format == Format::Adblock { conditions.take(octets) } else { None };
        if format == Format::Adblock && conditional.is_none() && twins.is_one(octets) {
            continue;
        }
        let outcome = conditional.map_or(Ok(()), Err);
        let outcome = outcome.and_then(|()| {
            formats::read_line(octets, format, day, |found| {
                let formats::Found { name, reach, exception, important, bearing, day, comment, was_unicode } = found;
                sink(Entry { line: number, name, reach, exception, important, bearing, day, comment })?;
                entries += 1;
                exceptions += u32::from(exception);
                converted += u32::from(was_unicode);
                Ok(())
            })
        });
        report.entries += entries;
        report.exceptions += exceptions;
        report.converted += converted;
        if report.entries > MAX_ENTRIES {
            return Err(ListError::TooLarge);
        }
        let Err(reason) = outcome else { continue };
        report.skipped += 1;
        *report.reasons.entry(reason.kind()).or_default() += 1;
        if !reason.is_understood(format) {
            bad += 1;
            first_bad.get_or_insert((number, reason));
        }
        let skipped = Skipped::new(number, reason, octets);
        told(&skipped);
        if report.first_skipped.len() < SHOWN_SKIPS {
            report.first_skipped.push(skipped);
        }
    }
    match first_bad {
        Some((line, reason)) if bad > content / GARBAGE_SHARE => Err(ListError::Garbage { bad, content, line, reason }),
        _ => Ok(report),
    }
}

/// The first line without the mark of UTF-8; other marks say that the file is no list.
pub(super) fn start_of_text(line: &[u8]) -> Result<&[u8], ListError> {
    match line {
        [0xef, 0xbb, 0xbf, rest @ ..] => Ok(rest),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Err(ListError::Charset { charset: "UTF-16" }),
        [0, 0, 0xfe, 0xff, ..] => Err(ListError::Charset { charset: "UTF-32" }),
        _ => Ok(line),
    }
}

#[cfg(test)]
mod tests;
