//! Verification: reads a whole journal and says whether every line and every link holds. Changes nothing.

use std::path::Path;

use serde::Serialize;

use super::line::hex;
use super::recover::{Break, Chain, Damage, Place};
use super::segment::{self, Piece};
use super::{Error, SCHEMA};

/// What [`verify`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Segments present.
    pub segments: u64,
    /// Lines that prove themselves.
    pub lines: u64,
    /// Sequence of the first line.
    pub first: Option<u64>,
    /// Sequence of the last line.
    pub last: Option<u64>,
    /// Hash of the last line, hex: kept elsewhere it shows later that nothing before it was changed.
    pub head: Option<String>,
    /// Octets that are no lines; the first [`Damage::LISTED`].
    pub unreadable: Vec<Place>,
    /// How many such places there are.
    pub unreadable_total: u64,
    /// Where the chain does not hold; the first [`Damage::LISTED`].
    pub breaks: Vec<Break>,
    /// How many such places there are.
    pub breaks_total: u64,
    /// Lines whose content this version does not know.
    pub unknown: u64,
}

impl Report {
    /// Every octet is part of a line and every line follows from the one before.
    pub fn is_sound(&self) -> bool {
        self.unreadable_total == 0 && self.breaks_total == 0 && self.unknown == 0
    }
}

/// Checks every segment in `dir`. What stood before the oldest one is not known, so its first line may follow anything.
/// Of a journal in use the last line may be seen half written.
pub fn verify(dir: &Path) -> Result<Report, Error> {
    let fail = |source| Error::io("read the journal", dir, source);
    let mut report = Report::default();
    let mut chain = Chain::default();
    for number in segment::list(dir).map_err(fail)? {
        report.segments += 1;
        segment::walk(dir, number, &mut |piece| {
            match piece {
                Piece::Line(loc, line) => {
                    report.lines += 1;
                    report.first.get_or_insert(line.seq);
                    if let Some(expected) = chain.follow(&line) {
                        report.breaks_total += 1;
                        if report.breaks.len() < Damage::LISTED {
                            let segment = segment::file_name(number);
                            report.breaks.push(Break { segment, offset: loc.offset, expected, found: line.seq });
                        }
                    }
                }
                Piece::Unknown { .. } => {
                    report.unknown += 1;
                    chain.forget();
                }
                Piece::Bad { offset, len } => {
                    report.unreadable_total += 1;
                    if report.unreadable.len() < Damage::LISTED {
                        let segment = segment::file_name(number);
                        report.unreadable.push(Place { segment, offset, octets: len });
                    }
                }
            }
            true
        })
        .map_err(fail)?;
    }
    let last = chain.last();
    report.last = last.map(|head| head.seq);
    report.head = last.map(|head| hex(&head.hash));
    tracing::debug!(schema = SCHEMA, lines = report.lines, sound = report.is_sound(), "journal verified");
    Ok(report)
}
