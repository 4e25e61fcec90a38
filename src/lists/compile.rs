//! From lists to a table, away from queries: looked over once to know what they are, then read into the table that will
//! hold them, so that nothing is kept beside it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek};

use sha2::{Digest, Sha256};

use super::day::Day;
use super::deny::{DenyTable, ListEntry};
use super::filter::Filter;
use super::flat::Flat;
use super::formats::{self, Format};
use super::hash::{HashKey, fingerprint};
use super::mark::{MAX_LINES, Mark, Sets};
use super::parse::{ListError, MAX_ENTRIES, MAX_LINE, Report, parse, start_of_text};
use super::skip::SkipReason;
use super::source::{EntryNote, ListInfo, MAX_NOTES};
use super::text::Lines;

/// Entries of all lists together.
pub const MAX_NAMES: u64 = 50_000_000;
/// Exceptions of all lists together; further ones are passed over, so that what they name stays denied.
pub const MAX_EXCEPTIONS: usize = 1_000_000;
/// Octets looked at to tell a list's format.
const DETECTION: u64 = 64 * 1024;

/// Octets that can be read more than once.
pub trait Reopen {
    /// From the start.
    ///
    /// # Errors
    /// As the system says.
    fn reopen(&mut self) -> io::Result<Box<dyn Read + '_>>;
}

impl Reopen for &[u8] {
    fn reopen(&mut self) -> io::Result<Box<dyn Read + '_>> {
        Ok(Box::new(*self))
    }
}

impl Reopen for File {
    fn reopen(&mut self) -> io::Result<Box<dyn Read + '_>> {
        self.rewind()?;
        Ok(Box::new(self))
    }
}

/// What a list is, before it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Survey {
    /// SHA-256 of its octets.
    pub digest: [u8; 32],
    /// How it is written.
    pub format: Format,
    /// No entry more than this is read of it.
    pub most: u64,
    /// Lines of any kind.
    pub lines: u64,
}

/// What there is room for in one table, and what lists have taken of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Room {
    entries: u64,
    lines: u64,
}

impl Room {
    /// Takes what a list needs, if it is there.
    pub fn take(&mut self, most: u64, lines: u64) -> bool {
        let taken = Self { entries: self.entries.saturating_add(most), lines: self.lines.saturating_add(lines) };
        let fits = taken.entries <= MAX_NAMES && taken.lines < u64::from(MAX_LINES);
        if fits {
            *self = taken;
        }
        fits
    }
}

/// Looks a list over. Where its `format` is not given it is told by the first lines.
///
/// # Errors
/// [`ListError`] where it is no text at all.
pub fn survey(from: impl Read, format: Option<Format>) -> Result<Survey, ListError> {
    let unreadable = |error: io::Error| ListError::Unreadable(error.to_string());
    let mut from = Digesting { from, digest: Sha256::new() };
    let mut start = Vec::new();
    let format = match format {
        Some(format) => format,
        None => {
            from.by_ref().take(DETECTION).read_to_end(&mut start).map_err(unreadable)?;
            formats::detect(&start)
        }
    };
    let (mut most, mut count) = (0u64, 0u64);
    let mut lines = Lines::of(start.chain(&mut from));
    while let Some((number, line)) = lines.next()? {
        count += 1;
        let line = if number == 1 { start_of_text(line)? } else { line };
        if line.contains(&0) {
            return Err(ListError::Binary { line: number });
        }
        most += formats::most_entries(line.trim_ascii(), format);
    }
    drop(lines);
    // Reading ends with the line that goes beyond.
    let most = most.min(u64::from(MAX_ENTRIES) + MAX_LINE as u64);
    Ok(Survey { digest: from.digest.finalize().into(), format, most, lines: count })
}

/// A list to be compiled.
pub struct Input<'i> {
    /// What is known of it.
    pub info: ListInfo,
    /// Day of registration for lines of [`Format::Nrd`] that have none.
    pub day: Option<Day>,
    /// What it was found to be.
    pub survey: Survey,
    /// Its octets.
    pub octets: Box<dyn Reopen + 'i>,
}

/// Makes one table of all lists under `key`. A name's day is that of `before`, where that has it under the same key, else
/// `today`.
///
/// # Errors
/// Each list that is refused, by its number: where not all fit, those that find no room behind the ones before them.
pub fn compile<'a, 'i: 'a>(
    inputs: impl IntoIterator<Item = &'a mut Input<'i>>,
    key: HashKey,
    before: Option<&DenyTable>,
    today: Day,
) -> Result<DenyTable, Vec<(usize, ListError)>> {
    let mut inputs: Vec<_> = inputs.into_iter().collect();
    let mut room = Room::default();
    let surveys = inputs.iter().map(|input| &input.survey).enumerate();
    let too_large = surveys.filter(|(_, survey)| !room.take(survey.most, survey.lines));
    let mut errors: Vec<_> = too_large.map(|(number, _)| (number, ListError::TooLarge)).collect();
    if !errors.is_empty() {
        return Err(errors);
    }
    let mut table = Building { key, names: Flat::with_room_for(room.entries as usize), ..Building::default() };
    let mut lists = Vec::new();
    for (number, input) in inputs.iter_mut().enumerate() {
        match table.read(input, number) {
            Ok(list) => lists.push(list),
            Err(error) => errors.push((number, error)),
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let Building { mut names, mut sets, exceptions: read, min_labels, .. } = table;
    names = names.compact();
    let since = |key: u64| before.filter(|before| *before.key() == table.key).and_then(|before| before.since(key));
    names.update(|key, mark| mark.with_since(since(key).unwrap_or(today)));
    let mut exceptions = Flat::with_room_for(read.len());
    for (fingerprint, mark) in read {
        exceptions.insert(fingerprint, mark, |old, new| Mark::merged(old, new, &mut sets));
    }
    let exceptions = exceptions.compact();
    let filter = Filter::of(names.iter().map(|(key, _)| key), names.len());
    Ok(DenyTable { key: table.key, names, filter, exceptions, lists, sets, min_labels })
}

struct Building {
    key: HashKey,
    names: Flat<Mark>,
    exceptions: Vec<(u64, Mark)>,
    sets: Sets,
    lines: u32,
    min_labels: u8,
}

impl Default for Building {
    fn default() -> Self {
        Self {
            key: HashKey::from_random([0; 24]),
            names: Flat::default(),
            exceptions: Vec::new(),
            sets: Sets::default(),
            lines: 0,
            min_labels: u8::MAX,
        }
    }
}

impl Building {
    fn read(&mut self, input: &mut Input<'_>, number: usize) -> Result<ListEntry, ListError> {
        let base = self.lines;
        let list = u16::try_from(number).map_err(|_| ListError::TooLarge)?;
        let mut notes: Vec<(u32, EntryNote)> = Vec::new();
        let mut singles = BTreeMap::new();
        let mut fits = true;
        let from = input.octets.reopen().map_err(|error| ListError::Unreadable(error.to_string()))?;
        let mut from = Digesting { from, digest: Sha256::new() };
        let report = parse(&mut from, input.survey.format, input.day, |entry| {
            let single = singles.entry((entry.reach, entry.important, entry.bearing));
            let set = *single.or_insert_with(|| self.sets.single(list, entry.reach, entry.important, entry.bearing));
            let mark = Mark::new(base.saturating_add(entry.line), entry.reach, set);
            let fingerprint = fingerprint(entry.name, &self.key);
            if entry.exception {
                if self.exceptions.len() >= MAX_EXCEPTIONS {
                    return Err(SkipReason::TooManyExceptions);
                }
                self.exceptions.push((fingerprint, mark));
                return Ok(());
            }
            let sets = &mut self.sets;
            fits &= self.names.insert(fingerprint, mark, |old, new| Mark::merged(old, new, sets));
            self.min_labels = self.min_labels.min(entry.name.label_count() as u8);
            if notes.len() < MAX_NOTES && notes.last().is_none_or(|(line, _)| *line != entry.line) {
                notes.extend(EntryNote::parse(entry.comment).map(|note| (entry.line, note)));
            }
            Ok(())
        })?;
        let digest: [u8; 32] = from.digest.finalize().into();
        if digest != input.survey.digest || !fits {
            return Err(ListError::Changed);
        }
        self.lines = base.checked_add(report.lines).filter(|lines| *lines < MAX_LINES).ok_or(ListError::TooLarge)?;
        Ok(ListEntry { info: input.info.clone(), digest, base, notes, report })
    }
}

/// Compiles lists that are in memory, for tests, benches and small tables.
///
/// # Errors
/// As [`compile`].
pub fn compile_texts(
    key: HashKey,
    today: Day,
    texts: &[(ListInfo, &[u8], Option<Format>)],
) -> Result<DenyTable, Vec<(usize, ListError)>> {
    let mut inputs = Vec::new();
    let mut errors = Vec::new();
    for (number, (info, text, format)) in texts.iter().enumerate() {
        match survey(*text, *format) {
            Ok(survey) => inputs.push(Input { info: info.clone(), day: Some(today), survey, octets: Box::new(*text) }),
            Err(error) => errors.push((number, error)),
        }
    }
    if errors.is_empty() { compile(&mut inputs, key, None, today) } else { Err(errors) }
}

/// Digests what is read through it.
struct Digesting<R> {
    from: R,
    digest: Sha256,
}

impl<R: Read> Read for Digesting<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let length = self.from.read(into)?;
        self.digest.update(into.get(..length).unwrap_or_default());
        Ok(length)
    }
}

/// The report of a list that is read for nothing else.
///
/// # Errors
/// As [`parse`].
pub fn inspect(from: impl Read, format: Format, day: Option<Day>) -> Result<Report, ListError> {
    parse(from, format, day, |_| Ok(()))
}
