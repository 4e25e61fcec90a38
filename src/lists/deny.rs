//! Deny lists: up to many million names in one flat table of fingerprints.
//!
//! Beside a name's fingerprint stand eight octets ([`super::mark`]): which line of which list, how far the entry
//! reaches, which other lists have it, since when. With empty slots and a filter before it that is 28 octets a name; what is known of a list is
//! kept once, and so are short notes of entries that carry them.
//!
//! A list's exceptions take names out of what that list denies, and out of nothing else: nobody who publishes a list can
//! open what another one closes. How far they go is the format's matter ([`super::Bearing`]). They lie in a table of their own, asked only of names that were found.

use staunch_scoring::NameRef;

use super::day::Day;
use super::filter::Filter;
use super::flat::Flat;
use super::hash::{HashKey, Suffix, Suffixes};
use super::mark::{Mark, Member, Sets};
use super::parse::Report;
use super::source::{EntryNote, ListInfo};
use crate::event::RuleRef;

/// One list in a table.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ListEntry {
    pub(super) info: ListInfo,
    /// SHA-256 of its octets.
    pub(super) digest: [u8; 32],
    /// Number of the line before its first, among the lines of all lists.
    pub(super) base: u32,
    /// By line, ascending.
    pub(super) notes: Vec<(u32, EntryNote)>,
    pub(super) report: Report,
}

/// All deny lists, ready to be asked. Lookups do not allocate.
pub struct DenyTable {
    pub(super) key: HashKey,
    pub(super) names: Flat<Mark>,
    pub(super) filter: Filter,
    pub(super) exceptions: Flat<Mark>,
    pub(super) lists: Vec<ListEntry>,
    pub(super) sets: Sets,
    /// No entry has fewer labels: wider suffixes need no probe.
    pub(super) min_labels: u8,
}

/// The entry that denies a name.
#[derive(Debug, Clone, Copy)]
pub struct DenyMatch<'t> {
    /// The list.
    pub list: &'t ListInfo,
    /// Line of the entry, from 1; 0 where the line that was kept is another list's.
    pub line: u32,
    /// Whether the entry means this name alone.
    pub exact: bool,
    /// Labels of the entry's name.
    pub labels: u8,
    /// What its line says of it.
    pub note: Option<&'t EntryNote>,
    /// The first day on which the tables of this deployment had the entry's name.
    pub since: Day,
    set: u16,
    /// Whether it is the entry of the name itself and not of one above.
    whole: bool,
}

impl DenyMatch<'_> {
    /// For records.
    pub fn reference(&self) -> RuleRef {
        RuleRef { id: self.list.id.clone(), file: self.list.file.clone(), line: self.line }
    }
}

impl DenyTable {
    /// A table without names.
    pub fn empty(key: HashKey) -> Self {
        Self {
            key,
            names: Flat::default(),
            filter: Filter::default(),
            exceptions: Flat::default(),
            lists: Vec::new(),
            sets: Sets::default(),
            min_labels: u8::MAX,
        }
    }

    /// The widest entry that covers `name` and is not excepted.
    pub fn look_up(&self, name: NameRef<'_>) -> Option<DenyMatch<'_>> {
        let found = Suffixes::of(name, &self.key).find_map(|suffix| self.at(&suffix))?;
        self.unless_excepted(found, name)
    }

    /// The entry for one suffix of a walk under this table's key, exceptions left aside: the first one found is to be
    /// handed to [`Self::unless_excepted`].
    #[inline]
    pub(super) fn at(&self, suffix: &Suffix<'_>) -> Option<DenyMatch<'_>> {
        if suffix.labels < self.min_labels || !self.filter.may_have(suffix.hash) {
            return None;
        }
        let mark = self.names.find(suffix.hash)?;
        if mark.covers(suffix.is_whole) { self.explain(mark, suffix, |_| true) } else { None }
    }

    /// What is left of the widest entry that was found for `name`: itself, the next one that is not excepted, or none.
    #[inline]
    pub(super) fn unless_excepted<'t>(&'t self, found: DenyMatch<'t>, name: NameRef<'_>) -> Option<DenyMatch<'t>> {
        if self.exceptions.len() == 0 { Some(found) } else { self.weigh(name) }
    }

    #[cold]
    fn weigh(&self, name: NameRef<'_>) -> Option<DenyMatch<'_>> {
        let walk = || Suffixes::of(name, &self.key);
        let excepts = |denied: Member, labels: u8| {
            walk().any(|suffix| {
                let mark = self.exceptions.find(suffix.hash);
                let members = mark.and_then(|mark| self.sets.members(mark.set())).unwrap_or_default();
                let mut covering = members.iter().filter(|member| member.covers(suffix.is_whole));
                covering.any(|member| member.opens(suffix.labels, &denied, labels))
            })
        };
        walk().find_map(|suffix| {
            let mark = self.names.find(suffix.hash).filter(|mark| mark.covers(suffix.is_whole))?;
            self.explain(mark, &suffix, |member| !excepts(member, suffix.labels))
        })
    }

    /// Every list that has an entry which covers the name that was found, as wide as that one.
    pub fn named_by(&self, found: &DenyMatch<'_>) -> impl Iterator<Item = &ListInfo> {
        let members = self.sets.members(found.set).unwrap_or_default();
        let covering = members.iter().filter(|member| member.covers(found.whole));
        covering.filter_map(|member| self.lists.get(usize::from(member.list))).map(|list| &list.info)
    }

    /// Since when the table has the name of a fingerprint.
    pub(super) fn since(&self, fingerprint: u64) -> Option<Day> {
        self.names.find(fingerprint).map(Mark::since)
    }

    /// The key of the fingerprints.
    pub fn key(&self) -> &HashKey {
        &self.key
    }

    /// Distinct names.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether no name is denied.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Octets of the table.
    pub fn octets(&self) -> usize {
        self.names.size() + self.filter.size() + self.exceptions.size()
    }

    /// The lists in it.
    pub fn lists(&self) -> impl Iterator<Item = &ListInfo> {
        self.lists.iter().map(|list| &list.info)
    }

    /// What was read from each list, in order.
    pub fn reports(&self) -> impl Iterator<Item = &Report> {
        self.lists.iter().map(|list| &list.report)
    }

    /// The list that speaks: the one whose line is kept, if it covers the name and stands, else the first that does.
    #[cold]
    fn explain<'t>(
        &'t self,
        mark: Mark,
        suffix: &Suffix<'_>,
        stands: impl Fn(Member) -> bool,
    ) -> Option<DenyMatch<'t>> {
        let after = self.lists.partition_point(|list| list.base < mark.line());
        let kept = after.checked_sub(1)?;
        let told = |list: &'t ListEntry| {
            let line = mark.line() - list.base;
            let note = list.notes.binary_search_by_key(&line, |(line, _)| *line).ok();
            let note = note.and_then(|at| list.notes.get(at)).map(|(_, note)| note);
            DenyMatch {
                list: &list.info,
                line,
                exact: mark.is_exact(),
                labels: suffix.labels,
                note,
                since: mark.since(),
                set: mark.set(),
                whole: suffix.is_whole,
            }
        };
        let found = told(self.lists.get(kept)?);
        // Of a set without a number nobody knows who makes exceptions: the name stays denied.
        let Some(members) = self.sets.members(mark.set()) else { return Some(found) };
        let mut standing = members.iter().filter(|member| member.covers(suffix.is_whole) && stands(**member));
        let first = standing.next()?;
        if usize::from(first.list) == kept || standing.any(|member| usize::from(member.list) == kept) {
            return Some(found);
        }
        let list = self.lists.get(usize::from(first.list))?;
        Some(DenyMatch { list: &list.info, line: 0, note: None, ..found })
    }
}

impl std::fmt::Debug for DenyTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DenyTable").field("names", &self.len()).field("lists", &self.lists.len()).finish()
    }
}

#[cfg(test)]
mod tests;
