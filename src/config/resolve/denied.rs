//! The table of all lists that deny: kept, or made anew, of what fits and reads.

use sha2::{Digest, Sha256};

use super::Context;
use super::feeds::Spare;
use super::lists::Surveyed;
use crate::config::document::Path;
use crate::config::loaded::ListReport;
use crate::feed::{self, Tables};
use crate::lists::{Day, DenyTable, Input, ListError, Room, compile};

/// A list whose names are denied, before it is compiled.
pub(super) struct Denied {
    /// Where it is written.
    pub(super) path: Path,
    pub(super) input: Input<'static>,
    /// See [`Surveyed`].
    pub(super) spare: Option<Spare>,
    pub(super) detected: bool,
}

impl Context<'_, '_> {
    /// The table of all deny lists: the one that is kept for them, or a new one. A file of the operator's that cannot be used
    /// is a mistake; a copy that was fetched is not theirs, so another stands in for it, or none.
    pub(super) fn denied(
        &mut self,
        mut lists: Vec<Denied>,
        feeds: &mut feed::Config,
        tables: Option<&Tables>,
        reports: &mut Vec<ListReport>,
    ) -> DenyTable {
        let table = loop {
            self.fit(&mut lists, feeds);
            let inputs = digest_of(&lists);
            let kept = tables.and_then(|tables| tables.find(&inputs, &self.key)).and_then(|found| match found {
                Ok(table) => Some(table),
                Err(error) => {
                    tracing::warn!(%error, "a kept table of lists is not used; it is made anew");
                    None
                }
            });
            if let Some(table) = kept {
                break table;
            }
            let before = tables.and_then(Tables::newest);
            let input = lists.iter_mut().map(|list| &mut list.input);
            let errors = match compile(input, self.key, before.as_ref(), self.today()) {
                Ok(table) => break self.kept(table, &inputs, tables),
                Err(errors) => errors,
            };
            let mut errors = errors.into_iter().peekable();
            let mut is_wrong = false;
            let mut left = Vec::with_capacity(lists.len());
            for (number, list) in lists.into_iter().enumerate() {
                match errors.next_if(|(at, _)| *at == number) {
                    Some((_, error)) if list.spare.is_none() => {
                        is_wrong = true;
                        self.refused_list(&list.path, &list.input.info.file, &error);
                    }
                    Some((_, error)) => left.extend(self.denied_before(list, &error, feeds)),
                    None => left.push(list),
                }
            }
            if is_wrong {
                return DenyTable::empty(self.key);
            }
            lists = left;
        };
        let told: Vec<_> =
            table.lists().zip(table.reports()).map(|(info, report)| (info.id.to_string(), report.clone())).collect();
        for (Denied { path, input, detected, .. }, (id, report)) in lists.into_iter().zip(told) {
            self.digest_part(&format!("list {id}"), &input.survey.digest);
            self.read(&path, ListReport { id, file: input.info.file.to_string(), detected, report }, reports);
        }
        table
    }

    /// Leaves of copies that were fetched those that find room beside the operator's own lists: what others publish pushes out
    /// nothing that stands here.
    fn fit(&mut self, lists: &mut Vec<Denied>, feeds: &mut feed::Config) {
        let mut room = Room::default();
        let mut take = |list: &Denied| room.take(list.input.survey.most, list.input.survey.lines);
        // Own ones that do not fit are told of when they are compiled.
        for list in lists.iter().filter(|list| list.spare.is_none()) {
            take(list);
        }
        let mut fitting = Vec::with_capacity(lists.len());
        for list in lists.drain(..) {
            let mut list = Some(list);
            while let Some(tried) = list.take_if(|list| list.spare.is_some() && !take(list)) {
                list = self.denied_before(tried, &ListError::TooLarge, feeds);
            }
            fitting.extend(list);
        }
        *lists = fitting;
        feeds.own = Room::default();
        for Denied { input, .. } in lists.iter().filter(|list| list.spare.is_none()) {
            feeds.own.take(input.survey.most, input.survey.lines);
        }
    }

    /// A list with the copy before the one that `error` is about, if there is one.
    fn denied_before(&mut self, list: Denied, error: &ListError, feeds: &mut feed::Config) -> Option<Denied> {
        let Denied { path, input: Input { mut info, day, .. }, spare, detected } = list;
        let Surveyed { octets, survey, file, spare } = self.step_back(&path, spare?, error, feeds)?;
        info.file = file.as_str().into();
        Some(Denied { path, input: Input { info, day, survey, octets }, spare, detected })
    }

    fn kept(&mut self, table: DenyTable, inputs: &[u8; 32], tables: Option<&Tables>) -> DenyTable {
        let Some(tables) = tables else { return table };
        if let Err(error) = tables.keep(&table, inputs) {
            tracing::warn!(%error, "the table of lists is not kept; it stays in memory");
            return table;
        }
        // Given back before the file's octets are taken, so that there are never three of a table in memory.
        drop(table);
        match tables.find(inputs, &self.key) {
            Some(Ok(kept)) => kept,
            other => {
                let why = other.and_then(Result::err).map_or("it is gone".to_owned(), |error| error.to_string());
                let problem = format!("the table of lists does not read as it was written: {why}");
                let remedy = "look after the disk that the state directory is on";
                self.problems.error(&Path::of("server").key("state_dir"), problem, remedy);
                DenyTable::empty(self.key)
            }
        }
    }
}

/// What a table is made of: equal digests, equal tables but for the days since which names are listed.
fn digest_of(denied: &[Denied]) -> [u8; 32] {
    let mut digest = Sha256::new();
    // Another release may read the same lines differently; the number is for what changes within one.
    let mut part = |octets: &[u8]| {
        digest.update((octets.len() as u64).to_be_bytes());
        digest.update(octets);
    };
    part(concat!("staunch ", env!("CARGO_PKG_VERSION"), " deny lists 2").as_bytes());
    for Denied { input: Input { info, day, survey, .. }, .. } in denied {
        part(info.id.as_bytes());
        part(info.file.as_bytes());
        part(survey.format.as_str().as_bytes());
        for word in [&info.source, &info.category] {
            part(word.as_deref().unwrap_or_default().as_bytes());
        }
        for day in [day, &info.reviewed] {
            part(&day.map_or(0, |Day(day)| day).to_be_bytes());
        }
        part(&survey.digest);
    }
    digest.finalize().into()
}
