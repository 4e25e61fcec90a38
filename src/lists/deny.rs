//! Deny lists: up to many million names in one flat table of fingerprints.
//!
//! An entry's value numbers its line among the lines of all lists, so the list and line that speak in an explanation
//! cost no memory of their own; only short notes of entries that carry them are kept beside. 20 octets a name.

use std::sync::Arc;

use staunch_scoring::NameRef;

use super::day::Day;
use super::flat::Flat;
use super::hash::{HashKey, Suffix, Suffixes, fingerprint};
use super::parse::{Format, ListError, Report, parse};
use crate::event::RuleRef;

/// Notes kept for one list; a list with more of them has the list's own words alone for the others.
pub const MAX_NOTES: usize = 10_000;

/// Marks entries that mean one name alone. Line numbers stay below.
const EXACT: u32 = 1 << 31;

/// Where a list comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListInfo {
    /// Unique id.
    pub id: Arc<str>,
    /// File, as given.
    pub file: Arc<str>,
    /// Who publishes it.
    pub source: Option<String>,
    /// When a person last looked at it.
    pub reviewed: Option<Day>,
}

/// What the comment on an entry's line says: `# <what>; source: <where>; reviewed: YYYY-MM-DD`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryNote {
    /// What it is.
    pub what: Box<str>,
    /// Where that is known from.
    pub source: Box<str>,
    /// When a person last checked.
    pub reviewed: Day,
}

impl EntryNote {
    /// Reads a comment; `None` if it lacks source or day.
    pub fn parse(comment: &str) -> Option<Self> {
        let (mut what, mut source, mut reviewed) = ("", None, None);
        for field in comment.split(';').map(str::trim) {
            if let Some(value) = field.strip_prefix("source:") {
                source = Some(value.trim());
            } else if let Some(value) = field.strip_prefix("reviewed:") {
                reviewed = Day::parse(value.trim());
            } else if what.is_empty() {
                what = field;
            }
        }
        let source = source.filter(|s| !s.is_empty())?;
        Some(Self { what: what.into(), source: source.into(), reviewed: reviewed? })
    }
}

struct ListEntry {
    info: ListInfo,
    /// Number of the line before its first, among the lines of all lists.
    base: u32,
    /// By line, ascending.
    notes: Vec<(u32, EntryNote)>,
}

/// Collects lists; [`DenyBuilder::build`] makes the table.
pub struct DenyBuilder {
    key: HashKey,
    lists: Vec<ListEntry>,
    fingerprints: Vec<u64>,
    ids: Vec<u32>,
    lines: u32,
    min_labels: u8,
}

impl DenyBuilder {
    /// No lists yet.
    pub fn new(key: HashKey) -> Self {
        Self { key, lists: Vec::new(), fingerprints: Vec::new(), ids: Vec::new(), lines: 0, min_labels: u8::MAX }
    }

    /// Reads a list. `day` as for [`parse`].
    ///
    /// # Errors
    /// [`ListError`]; the builder is then as it was before.
    pub fn add(
        &mut self,
        info: ListInfo,
        octets: &[u8],
        format: Format,
        day: Option<Day>,
    ) -> Result<Report, ListError> {
        let before = (self.fingerprints.len(), self.min_labels);
        let base = self.lines;
        let mut notes: Vec<(u32, EntryNote)> = Vec::new();
        let outcome = parse(octets, format, day, |entry| {
            let id = base.saturating_add(entry.line).min(EXACT - 1);
            self.fingerprints.push(fingerprint(entry.name, &self.key));
            self.ids.push(if entry.exact { id | EXACT } else { id });
            self.min_labels = self.min_labels.min(entry.name.label_count() as u8);
            if notes.len() < MAX_NOTES && notes.last().is_none_or(|(line, _)| *line != entry.line) {
                notes.extend(EntryNote::parse(entry.comment).map(|note| (entry.line, note)));
            }
        });
        let outcome = outcome.and_then(|report| {
            self.lines = base.checked_add(report.lines).filter(|l| *l < EXACT).ok_or(ListError::TooLarge)?;
            Ok(report)
        });
        match &outcome {
            Ok(_) => self.lists.push(ListEntry { info, base, notes }),
            Err(_) => {
                self.fingerprints.truncate(before.0);
                self.ids.truncate(before.0);
                self.min_labels = before.1;
            }
        }
        outcome
    }

    /// Makes the table.
    pub fn build(self) -> DenyTable {
        let mut table = Flat::with_room_for(self.fingerprints.len());
        for (fingerprint, id) in self.fingerprints.into_iter().zip(self.ids) {
            // Of two entries for one name the wider stays, else the first.
            table.insert(fingerprint, id, |old, new| if old & EXACT != 0 && new & EXACT == 0 { new } else { old });
        }
        DenyTable { key: self.key, table, lists: self.lists, min_labels: self.min_labels }
    }
}

/// All deny lists, ready to be asked. Lookups do not allocate.
pub struct DenyTable {
    key: HashKey,
    table: Flat,
    lists: Vec<ListEntry>,
    /// No entry has fewer labels: wider suffixes need no probe.
    min_labels: u8,
}

/// The entry that denies a name.
#[derive(Debug, Clone, Copy)]
pub struct DenyMatch<'t> {
    /// The list.
    pub list: &'t ListInfo,
    /// Line of the entry, from 1.
    pub line: u32,
    /// Whether the entry means this name alone.
    pub exact: bool,
    /// Labels of the entry's name.
    pub labels: u8,
    /// What its line says of it.
    pub note: Option<&'t EntryNote>,
}

impl DenyMatch<'_> {
    /// For records.
    pub fn reference(&self) -> RuleRef {
        RuleRef { id: self.list.id.clone(), file: self.list.file.clone(), line: self.line }
    }
}

impl DenyTable {
    /// The widest entry that covers `name`.
    pub fn look_up(&self, name: NameRef<'_>) -> Option<DenyMatch<'_>> {
        Suffixes::of(name, &self.key).find_map(|suffix| self.at(&suffix))
    }

    /// The entry for one suffix of a walk under this table's key.
    #[inline]
    pub(super) fn at(&self, suffix: &Suffix<'_>) -> Option<DenyMatch<'_>> {
        if suffix.labels < self.min_labels {
            return None;
        }
        let id = self.table.find(suffix.hash)?;
        if id & EXACT != 0 && !suffix.is_whole {
            return None;
        }
        self.explain(id, suffix.labels)
    }

    /// The key of the fingerprints.
    pub fn key(&self) -> &HashKey {
        &self.key
    }

    /// Distinct names.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether no name is denied.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Octets of the table.
    pub fn octets(&self) -> usize {
        self.table.octets()
    }

    /// The lists in it.
    pub fn lists(&self) -> impl Iterator<Item = &ListInfo> {
        self.lists.iter().map(|list| &list.info)
    }

    #[cold]
    fn explain(&self, id: u32, labels: u8) -> Option<DenyMatch<'_>> {
        let number = id & !EXACT;
        let after = self.lists.partition_point(|list| list.base < number);
        let list = self.lists.get(after.checked_sub(1)?)?;
        let line = number - list.base;
        let note = list.notes.binary_search_by_key(&line, |(line, _)| *line).ok();
        let note = note.and_then(|at| list.notes.get(at)).map(|(_, note)| note);
        Some(DenyMatch { list: &list.info, line, exact: id & EXACT != 0, labels, note })
    }
}

impl std::fmt::Debug for DenyTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DenyTable").field("names", &self.len()).field("lists", &self.lists.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use staunch_scoring::NameBuf;

    use super::*;
    use crate::lists::hash::test_key;

    fn info(id: &str) -> ListInfo {
        ListInfo { id: id.into(), file: format!("{id}.txt").into(), source: None, reviewed: None }
    }

    fn table(lists: &[(&str, &str, Format)]) -> DenyTable {
        let mut builder = DenyBuilder::new(test_key());
        for (id, text, format) in lists {
            builder.add(info(id), text.as_bytes(), *format, None).expect(id);
        }
        builder.build()
    }

    fn decide(table: &DenyTable, name: &str) -> Option<(String, u32)> {
        let name = NameBuf::from_text(name).expect("name");
        table.look_up(name.as_ref()).map(|m| (m.list.id.to_string(), m.line))
    }

    #[test]
    fn entries_deny_as_their_format_means_and_name_their_line() {
        let table = table(&[
            ("empty", "", Format::Domains),
            ("domains", "# head\nbad.example\n=one.example\n", Format::Domains),
            ("hosts", "0.0.0.0 host.example other.example\n0.0.0.0 bad.example\n", Format::Hosts),
        ]);
        for (name, expected) in [
            ("bad.example", Some(("domains", 2))),
            ("a.b.BAD.example", Some(("domains", 2))),
            ("notbad.example", None),
            ("one.example", Some(("domains", 3))),
            ("a.one.example", None),
            ("host.example", Some(("hosts", 1))),
            ("other.example", Some(("hosts", 1))),
            ("a.host.example", None),
            ("example", None),
            (".", None),
        ] {
            assert_eq!(decide(&table, name), expected.map(|(id, line)| (id.to_owned(), line)), "{name}");
        }
        assert_eq!(table.len(), 4, "bad.example stands in two lists");
    }

    #[test]
    fn of_two_entries_for_a_name_the_wider_stays() {
        let table = table(&[("narrow", "=x.example\n", Format::Domains), ("wide", "x.example\n", Format::Domains)]);
        assert_eq!(decide(&table, "a.x.example"), Some(("wide".into(), 1)));
        assert_eq!(decide(&table, "x.example"), Some(("wide".into(), 1)));
    }

    #[test]
    fn notes_speak_in_the_match() {
        let table = table(&[(
            "noted",
            "plain.example\nnoted.example # tunnel; source: https://noted.example/docs; reviewed: 2026-11-20\n\
             half.example # source: somewhere\n",
            Format::Domains,
        )]);
        let note =
            |name: &str| table.look_up(NameBuf::from_text(name).expect("name").as_ref()).expect("denied").note.cloned();
        assert_eq!(
            note("a.noted.example"),
            Some(EntryNote {
                what: "tunnel".into(),
                source: "https://noted.example/docs".into(),
                reviewed: Day::parse("2026-11-20").expect("day"),
            })
        );
        assert_eq!((note("plain.example"), note("half.example")), (None, None));
    }

    #[test]
    fn a_refused_list_leaves_nothing_behind() {
        let mut builder = DenyBuilder::new(test_key());
        builder.add(info("good"), b"good.example\n", Format::Domains, None).expect("good");
        builder.add(info("bad"), b"zz\nlost.example\n<html>\n<p>\n<p>\n", Format::Domains, None).expect_err("garbage");
        builder.add(info("more"), b"more.example\n", Format::Domains, None).expect("more");
        let table = builder.build();
        assert_eq!(decide(&table, "lost.example"), None);
        assert_eq!(decide(&table, "more.example"), Some(("more".into(), 1)));
        assert_eq!((table.len(), table.lists().count()), (2, 2));
    }

    #[test]
    fn stays_within_its_memory() {
        let text: String = (0..50_000).map(|i| format!("host{i}.zone{}.example\n", i % 977)).collect();
        let table = table(&[("many", &text, Format::Domains)]);
        assert_eq!(table.len(), 50_000);
        assert!(table.octets() <= 25 * table.len(), "{} octets a name", table.octets() / table.len());
    }

    proptest! {
        #[test]
        fn agrees_with_the_plain_reading(
            listed in proptest::collection::vec((any::<bool>(), proptest::collection::vec(0u8..3, 1..4)), 0..20),
            asked in proptest::collection::vec(0u8..3, 1..5),
        ) {
            let text = |labels: &[u8]| labels.iter().map(|l| ["a", "b", "c-c"][*l as usize]).collect::<Vec<_>>().join(".");
            let file: String =
                listed.iter().map(|(exact, l)| format!("{}{}\n", if *exact { "=" } else { "" }, text(l))).collect();
            let table = table(&[("l", &file, Format::Domains)]);
            let name: NameBuf = text(&asked).parse().expect("name");
            let plain = listed.iter().any(|(exact, l)| {
                let entry: NameBuf = text(l).parse().expect("name");
                if *exact { name == entry } else { name.as_ref().is_at_or_below(entry.as_ref()) }
            });
            prop_assert_eq!(table.look_up(name.as_ref()).is_some(), plain, "{} in {:?}", name, file);
        }
    }
}
