//! Lists: looked over, and compiled unless a table of them is kept already.

use std::collections::HashSet;
use std::path::Path as FilePath;

use sha2::{Digest, Sha256};

use super::Context;
use crate::config::document::Path;
use crate::config::loaded::ListReport;
use crate::config::problem::Warning;
use crate::config::spec::{self, ListAction};
use crate::feed::{self, Tables};
use crate::lists::{
    AgeBuilder, BUILTIN, BUILTIN_PREFIX, Day, DenyTable, Format, HashKey, Input, ListError, ListInfo, Lists, Reopen,
    Report, RuleSet, Survey, builtin, compile, survey,
};
use crate::regular;

/// Largest list file, octets: room for the most entries a list may have.
pub(super) const MAX_LIST_OCTETS: u64 = 1 << 30;

/// Lists at most: what is kept of a name has two octets for them, and nobody writes as many.
const MAX_LISTS: usize = 1000;

/// A list whose names are denied, before it is compiled.
struct Denied {
    path: Path,
    file: String,
    input: Input<'static>,
    detected: bool,
}

/// A list that can be read.
pub struct OpenList {
    /// Its id.
    pub id: String,
    /// Its file or URL, as given.
    pub file: String,
    /// How it is written.
    pub format: Format,
    /// Day of registration for lines that have none.
    pub day: Option<Day>,
    /// Its octets.
    pub octets: Box<dyn Reopen>,
}

/// What to read, and what it was found to be.
pub(super) type Surveyed = (Box<dyn Reopen>, Survey);

impl Context<'_, '_> {
    /// Where compiled tables are kept, if they are to be. The key of those there becomes that of all fingerprints.
    pub(super) fn tables(&mut self, state_dir: &FilePath) -> Option<Tables> {
        if !self.environment.keep_tables {
            return None;
        }
        let opened = Tables::open(state_dir).and_then(|tables| Ok((tables.key(self.environment.entropy)?, tables)));
        match opened {
            Ok((key, tables)) => {
                self.key = HashKey::from_random(key);
                Some(tables)
            }
            Err(error) => {
                let problem = format!("compiled tables of lists cannot be kept: {error}");
                let remedy = "make the state directory writable; until then every start reads all lists";
                self.problems.warn(&Path::of("server").key("state_dir"), problem, remedy);
                None
            }
        }
    }

    /// The tables, what was read from each list, what is fetched, and what is wrong with the ring of day files.
    pub(super) fn lists(
        &mut self,
        rules: RuleSet,
        packs: RuleSet,
        state_dir: &FilePath,
        tables: Option<&Tables>,
    ) -> (Lists, Vec<ListReport>, feed::Config, Option<String>) {
        let mut age = AgeBuilder::new(self.key);
        let mut reports = Vec::new();
        let mut denied = Vec::new();
        let mut feeds = feed::Config { state_dir: state_dir.to_owned(), sources: Vec::new() };
        let written = self.written_lists();
        let mut ids: HashSet<String> = self.spec.rule.iter().map(|rule| rule.id.clone()).collect();
        for (i, list) in written.iter().enumerate() {
            let path = Path::of("list").at(i);
            self.word(&path.key("id"), &list.id, "id");
            if !list.id.is_empty() && !ids.insert(list.id.clone()) {
                let problem = format!("`{}` is the id of another list or rule", list.id.escape_debug());
                self.problems.error(&path.key("id"), problem, "give each its own id: records name it");
            }
            self.list(&path, list, &mut feeds, &mut denied, &mut age, &mut reports);
        }
        let deny = self.denied(denied, tables, &mut reports);
        reports.sort_by_key(|report| written.iter().position(|list| list.id == report.id));
        let damage = self.ring(&mut age, &mut reports);
        (Lists { rules, deny, age: age.build().into(), packs }, reports, feeds, damage)
    }

    /// Every list, opened and looked over.
    pub(super) fn open_lists(&mut self, state_dir: &FilePath) -> Vec<OpenList> {
        let mut feeds = feed::Config { state_dir: state_dir.to_owned(), sources: Vec::new() };
        let mut open = Vec::new();
        for (i, written) in self.written_lists().into_iter().enumerate() {
            let path = Path::of("list").at(i);
            let day = self.day(&path.key("date"), written.date.as_deref());
            let found = self.surveyed(&path, &written, day, &mut feeds);
            let file = written.url.as_deref().map_or(written.path.as_str(), feed::shown_url).to_owned();
            open.extend(found.map(|(octets, survey)| OpenList {
                id: written.id,
                file,
                format: survey.format,
                day,
                octets,
            }));
        }
        open
    }

    fn surveyed(
        &mut self,
        path: &Path,
        written: &spec::List,
        day: Option<Day>,
        feeds: &mut feed::Config,
    ) -> Option<Surveyed> {
        match &written.url {
            Some(url) => self.fetched(path, written, url, day, feeds),
            None => self.list_file(path, written),
        }
    }

    /// The lists that are written, or those that ship where none is.
    fn written_lists(&mut self) -> Vec<spec::List> {
        match &self.spec.list {
            Some(lists) if lists.len() > MAX_LISTS => {
                let problem = format!("{} lists", lists.len());
                self.problems.error(&Path::of("list"), problem, format!("write at most {MAX_LISTS}"));
                Vec::new()
            }
            Some(lists) => {
                self.warn_of_missing(lists);
                lists.clone()
            }
            None => {
                let names: Vec<_> = BUILTIN.iter().map(|list| list.name).collect();
                self.assumptions.push(format!("Shipped deny lists in force: {}.", names.join(", ")));
                let shipped = BUILTIN.iter().map(|list| spec::List {
                    id: list.name.into(),
                    path: format!("{BUILTIN_PREFIX}{}", list.name),
                    ..spec::List::default()
                });
                shipped.collect()
            }
        }
    }

    fn list(
        &mut self,
        path: &Path,
        written: &spec::List,
        feeds: &mut feed::Config,
        denied: &mut Vec<Denied>,
        age: &mut AgeBuilder,
        reports: &mut Vec<ListReport>,
    ) {
        let nrd = written.format == Some(Format::Nrd);
        let action = written.action.unwrap_or(if nrd { ListAction::Age } else { ListAction::Deny });
        if action == ListAction::Age && !nrd {
            self.problems.error(
                &path.key("action"),
                "only lists of newly registered domains tell an age",
                "set format = \"nrd\", or action = \"deny\"",
            );
        }
        if written.date.is_some() && !nrd {
            self.problems.error(
                &path.key("date"),
                "a day of registration for a list that has none",
                "set format = \"nrd\", or remove it",
            );
        }
        let date = self.day(&path.key("date"), written.date.as_deref());
        let reviewed = self.day(&path.key("reviewed"), written.reviewed.as_deref());
        if let Some(category) = &written.category {
            self.word(&path.key("category"), category, "category");
        }
        let file = written.url.as_deref().map_or(written.path.as_str(), feed::shown_url).to_owned();
        let Some((mut octets, survey)) = self.surveyed(path, written, date, feeds) else { return };
        self.digest_part(&format!("list {}", written.id), &survey.digest);
        let info = ListInfo {
            id: written.id.as_str().into(),
            file: file.as_str().into(),
            source: written.source.clone(),
            category: written.category.clone(),
            reviewed,
        };
        let detected = written.format.is_none() && !file.starts_with(BUILTIN_PREFIX);
        if detected && survey.format != Format::Domains {
            self.assumptions.push(format!(
                "List {} is read as {}, which its first lines look like; `format` says otherwise.",
                written.id,
                survey.format.as_str(),
            ));
        }
        if action == ListAction::Age && nrd {
            let outcome = match octets.reopen() {
                Ok(from) => age.add(info, from, date),
                Err(error) => Err(ListError::Unreadable(error.to_string())),
            };
            match outcome {
                Ok(report) => self.read(path, ListReport { id: written.id.clone(), file, detected, report }, reports),
                Err(error) => self.refused_list(path, &file, &error),
            }
        } else {
            let input = Input { info, day: date, survey, octets };
            denied.push(Denied { path: path.clone(), file, input, detected });
        }
    }

    /// The table of all deny lists: the one that is kept for them, or a new one.
    fn denied(&mut self, denied: Vec<Denied>, tables: Option<&Tables>, reports: &mut Vec<ListReport>) -> DenyTable {
        let inputs = digest_of(&denied);
        let kept = tables.and_then(|tables| tables.find(&inputs, &self.key)).and_then(|found| match found {
            Ok(table) => Some(table),
            Err(error) => {
                tracing::warn!(%error, "a kept table of lists is not used; it is made anew");
                None
            }
        });
        let (places, mut read): (Vec<_>, Vec<_>) =
            denied.into_iter().map(|list| ((list.path, list.file, list.detected), list.input)).unzip();
        let table = match kept {
            Some(table) => table,
            None => {
                let before = tables.and_then(Tables::newest);
                match compile(std::mem::take(&mut read), self.key, before.as_ref(), self.today()) {
                    Ok(table) => self.kept(table, &inputs, tables),
                    Err(errors) => {
                        for (at, error) in errors {
                            if let Some((path, file, _)) = places.get(at) {
                                self.refused_list(path, file, &error);
                            }
                        }
                        return DenyTable::empty(self.key);
                    }
                }
            }
        };
        let told: Vec<_> =
            table.lists().zip(table.reports()).map(|(info, report)| (info.id.to_string(), report.clone())).collect();
        for ((path, file, detected), (id, report)) in places.into_iter().zip(told) {
            self.read(&path, ListReport { id, file, detected, report }, reports);
        }
        table
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

    /// A list that was read.
    fn read(&mut self, path: &Path, list: ListReport, reports: &mut Vec<ListReport>) {
        if list.report.entries == 0 {
            self.problems.warn(&path.key("path"), "the list has no entries", "check where it comes from");
        }
        self.tell_skips(&list.file, &list.report);
        reports.push(list);
    }

    pub(super) fn refused_list(&mut self, path: &Path, file: &str, error: &ListError) {
        self.problems.error(
            &path.key("path"),
            format!("`{}` is refused: {error}", file.escape_debug()),
            "check the list's format and where it comes from; the whole list is left out until it reads",
        );
    }

    /// A list that lies here.
    fn list_file(&mut self, path: &Path, list: &spec::List) -> Option<Surveyed> {
        let written = &list.path;
        let path = path.key("path");
        if written.is_empty() {
            let remedy = "name the file, a shipped list as builtin:<name>, or a url";
            return self.problems.fail(&path, "path is missing", remedy);
        }
        let (octets, found): (Box<dyn Reopen>, _) = if written.starts_with(BUILTIN_PREFIX) {
            let Some(shipped) = builtin(written) else {
                let names: Vec<_> = BUILTIN.iter().map(|b| format!("{BUILTIN_PREFIX}{}", b.name)).collect();
                let problem = format!("no shipped list `{}`", written.escape_debug());
                return self.problems.fail(&path, problem, format!("there are {}", names.join(", ")));
            };
            let text = shipped.text.as_bytes();
            (Box::new(text), survey(text, Some(list.format.unwrap_or_default())))
        } else {
            match regular::open(&self.beside(written), MAX_LIST_OCTETS) {
                Ok(mut file) => {
                    let found = survey(&mut file, list.format);
                    (Box::new(file), found)
                }
                Err(error) => {
                    return self.problems.fail(
                        &path,
                        format!("`{}` cannot be read: {error}", written.escape_debug()),
                        "paths are relative to the file that names them; check name and permissions",
                    );
                }
            }
        };
        match found {
            Ok(found) => Some((octets, found)),
            Err(error) => {
                let problem = format!("`{}` is refused: {error}", written.escape_debug());
                let remedy =
                    "check the list's format and where it comes from; the whole list is left out until it reads";
                self.problems.fail(&path, problem, remedy)
            }
        }
    }

    /// Own lists replace the shipped ones: who leaves one out is told, once, how to say so on purpose.
    fn warn_of_missing(&mut self, lists: &[spec::List]) {
        for shipped in BUILTIN {
            let path = format!("{BUILTIN_PREFIX}{}", shipped.name);
            if lists.iter().all(|list| list.path != path && list.id != shipped.name) {
                self.problems.warn(
                    &Path::of("list"),
                    format!("the shipped list `{}` is not in force", shipped.name),
                    format!("add a [[list]] with path = \"{path}\", or your own list with id = \"{}\"", shipped.name),
                );
            }
        }
    }

    pub(super) fn tell_skips(&mut self, file: &str, report: &Report) {
        let told = |line: u32, problem: String| Warning {
            file: file.to_owned(),
            line,
            field: String::new(),
            problem,
            remedy: "correct or remove the line; the rest of the list is in force".into(),
        };
        for skipped in &report.first_skipped {
            self.problems.warn_elsewhere(told(skipped.line, format!("line passed over: {}", skipped.reason)));
        }
        let silent = report.skipped as usize - report.first_skipped.len();
        if silent > 0 {
            self.problems.warn_elsewhere(told(0, format!("{silent} more lines passed over")));
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
    for Denied { file, input: Input { info, day, survey, .. }, .. } in denied {
        part(info.id.as_bytes());
        part(file.as_bytes());
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
