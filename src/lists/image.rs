//! A deny table as a file: written once, mapped read-only, checked whole before it is used.
//!
//! A header of one page, the names with the filter before them, the exceptions, then what is known of the lists (JSON). All numbers are little-endian. The
//! header holds the SHA-256 of all of it, so a file that was cut short or damaged is an error and never a wrong
//! answer; every length in it is held against the file's before anything is read.

use std::fs::File;
use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::day::Day;
use super::deny::{DenyTable, ListEntry};
use super::filter::Filter;
use super::flat::Flat;
use super::hash::HashKey;
use super::mark::{Member, Sets};
use super::octets::Octets;
use super::parse::Report;
use super::source::{EntryNote, ListInfo};

/// Begins every file; the last octet is the version of the layout.
const MAGIC: [u8; 8] = *b"STNDENY\x01";
/// The header is one page, so that the tables begin on another.
const HEADER: usize = 4096;
/// Where in the header what stands; all are eight octets but those named last.
const TOTAL_AT: usize = 8;
const SLOTS_AT: usize = 16;
const NAMES_AT: usize = 24;
const EXCEPTION_SLOTS_AT: usize = 32;
const EXCEPTIONS_AT: usize = 40;
const MIN_LABELS_AT: usize = 48;
/// 24 octets.
const KEY_AT: usize = 56;
/// 32 octets: of the lists that the table is made of.
const INPUTS_AT: usize = 80;
/// 32 octets: of the file, these taken for zero.
const CHECK_AT: usize = 112;
/// Eight octets.
const FILTER_AT: usize = 144;

/// Why a file is no table that can be used.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    /// It is none, or of another version.
    #[error("not a table of this version")]
    Other,
    /// It is one, and it is damaged: which part shows it.
    #[error("damaged: {0}")]
    Damaged(&'static str),
}

#[derive(Serialize, Deserialize)]
struct Known {
    lists: Vec<KnownList>,
    sets: Vec<Box<[Member]>>,
}

#[derive(Serialize, Deserialize)]
struct KnownList {
    id: String,
    file: String,
    source: Option<String>,
    category: Option<String>,
    reviewed: Option<u16>,
    digest: [u8; 32],
    base: u32,
    /// Line, what, source, day.
    notes: Vec<(u32, String, String, u16)>,
    report: Report,
}

impl DenyTable {
    /// Writes the table. `inputs` says what it was made of.
    ///
    /// # Errors
    /// As `out`.
    pub fn write(&self, inputs: &[u8; 32], out: &mut impl Write) -> io::Result<()> {
        let known = serde_json::to_vec(&self.known()).map_err(io::Error::other)?;
        let parts = [self.names.as_octets(), self.filter.as_octets(), self.exceptions.as_octets(), &known];
        let total = HEADER + parts.iter().map(|part| part.len()).sum::<usize>();
        let mut header = [0; HEADER];
        put(&mut header, 0, &MAGIC);
        for (at, value) in [
            (TOTAL_AT, total),
            (SLOTS_AT, self.names.slots()),
            (NAMES_AT, self.names.len()),
            (EXCEPTION_SLOTS_AT, self.exceptions.slots()),
            (EXCEPTIONS_AT, self.exceptions.len()),
            (MIN_LABELS_AT, usize::from(self.min_labels)),
            (FILTER_AT, self.filter.words()),
        ] {
            put(&mut header, at, &(value as u64).to_le_bytes());
        }
        put(&mut header, KEY_AT, &self.key.to_octets());
        put(&mut header, INPUTS_AT, inputs);
        let mut digest = Sha256::new();
        digest.update(header);
        parts.iter().for_each(|part| digest.update(part));
        put(&mut header, CHECK_AT, &digest.finalize());
        out.write_all(&header)?;
        parts.iter().try_for_each(|part| out.write_all(part))
    }

    /// Takes a written table and looks it over whole. It is mapped where `mapped`, which needs a file that nobody else can
    /// change or cut short; else its octets are copied. Also what it was made of.
    ///
    /// # Errors
    /// [`ImageError`].
    pub fn open(mut file: File, mapped: bool) -> Result<(Self, [u8; 32]), ImageError> {
        if !file.metadata()?.is_file() {
            return Err(ImageError::Other);
        }
        let octets = if mapped {
            Octets::map(&file)?
        } else {
            let mut octets = Vec::new();
            file.read_to_end(&mut octets)?;
            Octets::Owned(octets)
        };
        Self::read(octets)
    }

    fn read(octets: Octets) -> Result<(Self, [u8; 32]), ImageError> {
        let header: &[u8; HEADER] = octets.first_chunk().ok_or(ImageError::Other)?;
        if header.first_chunk() != Some(&MAGIC) {
            return Err(ImageError::Other);
        }
        let number = |at: usize| take::<8>(header, at).map(u64::from_le_bytes).and_then(|n| usize::try_from(n).ok());
        let number = |at: usize| number(at).ok_or(ImageError::Damaged("a number of the header"));
        if number(TOTAL_AT)? != octets.len() {
            return Err(ImageError::Damaged("its length"));
        }
        let mut unchecked = *header;
        put(&mut unchecked, CHECK_AT, &[0; 32]);
        let body = octets.get(HEADER..).unwrap_or_default();
        let digest = Sha256::new().chain_update(unchecked).chain_update(body).finalize();
        if take::<32>(header, CHECK_AT).is_none_or(|written| written != *digest) {
            return Err(ImageError::Damaged("its checksum"));
        }
        let key = take(header, KEY_AT).map(HashKey::from_random).ok_or(ImageError::Other)?;
        let inputs = take(header, INPUTS_AT).ok_or(ImageError::Other)?;
        let min_labels = u8::try_from(number(MIN_LABELS_AT)?).map_err(|_| ImageError::Damaged("its labels"))?;
        let no_table = ImageError::Damaged("its tables");
        let (slots, len) = (number(SLOTS_AT)?, number(NAMES_AT)?);
        let names = Flat::written(octets.clone(), HEADER, slots, len).ok_or(no_table)?;
        let at = HEADER + names.size();
        let no_filter = ImageError::Damaged("its filter");
        let filter = Filter::written(octets.clone(), at, number(FILTER_AT)?).ok_or(no_filter)?;
        let at = at + filter.size();
        let (slots, len) = (number(EXCEPTION_SLOTS_AT)?, number(EXCEPTIONS_AT)?);
        let no_table = ImageError::Damaged("its exceptions");
        let exceptions = Flat::written(octets.clone(), at, slots, len).ok_or(no_table)?;
        let known = octets.get(at + exceptions.size()..).unwrap_or_default();
        let known: Known = serde_json::from_slice(known).map_err(|_| ImageError::Damaged("what it says of lists"))?;
        let lists = known.lists.into_iter().map(ListEntry::from).collect();
        let sets = Sets::numbered(known.sets);
        Ok((Self { key, names, filter, exceptions, lists, sets, min_labels }, inputs))
    }

    fn known(&self) -> Known {
        let list = |list: &ListEntry| KnownList {
            id: list.info.id.to_string(),
            file: list.info.file.to_string(),
            source: list.info.source.clone(),
            category: list.info.category.clone(),
            reviewed: list.info.reviewed.map(|day| day.0),
            digest: list.digest,
            base: list.base,
            notes: list
                .notes
                .iter()
                .map(|(line, note)| (*line, note.what.to_string(), note.source.to_string(), note.reviewed.0))
                .collect(),
            report: list.report.clone(),
        };
        Known { lists: self.lists.iter().map(list).collect(), sets: self.sets.all().to_vec() }
    }
}

impl From<KnownList> for ListEntry {
    fn from(list: KnownList) -> Self {
        let note = |(line, what, source, day): (u32, String, String, u16)| {
            (line, EntryNote { what: what.into(), source: source.into(), reviewed: Day(day) })
        };
        Self {
            info: ListInfo {
                id: list.id.into(),
                file: list.file.into(),
                source: list.source,
                category: list.category,
                reviewed: list.reviewed.map(Day),
            },
            digest: list.digest,
            base: list.base,
            notes: list.notes.into_iter().map(note).collect(),
            report: list.report,
        }
    }
}

fn put(header: &mut [u8; HEADER], at: usize, octets: &[u8]) {
    if let Some(place) = header.get_mut(at..at + octets.len()) {
        place.copy_from_slice(octets);
    }
}

fn take<const N: usize>(header: &[u8; HEADER], at: usize) -> Option<[u8; N]> {
    header.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use staunch_scoring::NameBuf;

    use super::*;
    use crate::lists::hash::test_key;
    use crate::lists::{Format, compile_texts};

    fn table() -> DenyTable {
        let info = |id: &str| ListInfo {
            id: id.into(),
            file: format!("{id}.txt").into(),
            source: Some("https://lists.example".into()),
            category: Some("tunnels".into()),
            reviewed: Some(Day(20_000)),
        };
        let noted = "plain.example\nnoted.example # tunnel; source: https://noted.example; reviewed: 2026-11-20\nx.y.example\nz.y.example\nbad name\n";
        let filters = "||wide.example^\n@@||good.wide.example^\n||plain.example^\n";
        let texts =
            [(info("noted"), noted.as_bytes(), Some(Format::Domains)), (info("filters"), filters.as_bytes(), None)];
        compile_texts(test_key(), Day(20_500), &texts).expect("compiles")
    }

    fn written(table: &DenyTable) -> Vec<u8> {
        let mut octets = Vec::new();
        table.write(&[7; 32], &mut octets).expect("written");
        octets
    }

    #[test]
    fn a_table_comes_back_as_it_was_mapped_or_copied() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("a.table");
        let first = table();
        std::fs::write(&path, written(&first)).expect("written");
        for mapped in [true, false] {
            let (back, inputs) = DenyTable::open(File::open(&path).expect("opens"), mapped).expect("a table");
            assert_eq!(inputs, [7; 32]);
            assert_eq!((back.lists.clone(), back.len(), back.min_labels), (first.lists.clone(), first.len(), 2));
            assert!(back.key() == first.key());
            for name in ["plain.example", "a.noted.example", "wide.example", "good.wide.example", "x.example"] {
                let name = NameBuf::from_text(name).expect("name");
                let told = |table: &DenyTable| {
                    let found = table.look_up(name.as_ref())?;
                    let lists: Vec<_> = table.named_by(&found).map(|list| list.id.to_string()).collect();
                    Some((found.reference(), found.since, found.note.cloned(), lists))
                };
                assert_eq!(told(&back), told(&first), "{name}");
            }
        }
    }

    #[test]
    fn a_file_that_is_damaged_anywhere_is_an_error() {
        let good = written(&table());
        let refused = |octets: &[u8]| DenyTable::read(Octets::Owned(octets.to_vec())).is_err();
        assert!(!refused(&good), "the control");
        for at in (0..good.len()).step_by(if good.len() > 20_000 { 97 } else { 1 }).chain(0..160) {
            let mut bad = good.clone();
            bad[at] ^= 0x20;
            assert!(refused(&bad), "octet {at}");
        }
        for length in (0..good.len()).step_by(61) {
            assert!(refused(&good[..length]), "{length} octets");
        }
        assert!(refused(&[&good[..], b"x"].concat()));
        assert!(matches!(DenyTable::read(Octets::Owned(b"hello".to_vec())), Err(ImageError::Other)));
    }

    #[test]
    fn lengths_that_do_not_fit_are_refused_even_under_a_right_checksum() {
        let good = written(&table());
        for (at, value) in [
            (SLOTS_AT, u64::MAX),
            (SLOTS_AT, 1 << 40),
            (NAMES_AT, 1 << 40),
            (EXCEPTION_SLOTS_AT, 1 << 61),
            (EXCEPTIONS_AT, u64::MAX),
            (MIN_LABELS_AT, 300),
            (FILTER_AT, 1 << 60),
            (SLOTS_AT, 0),
        ] {
            let mut bad = good.clone();
            bad[at..at + 8].copy_from_slice(&value.to_le_bytes());
            bad[CHECK_AT..CHECK_AT + 32].fill(0);
            let digest = Sha256::digest(&bad);
            bad[CHECK_AT..CHECK_AT + 32].copy_from_slice(&digest);
            assert!(DenyTable::read(Octets::Owned(bad)).is_err(), "{value} at {at}");
        }
    }
}
