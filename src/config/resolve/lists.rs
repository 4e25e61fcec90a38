//! Lists: looked over, and compiled unless a table of them is kept already.

use std::collections::HashSet;
use std::path::Path as FilePath;

use super::Context;
use super::denied::Denied;
use super::feeds::Spare;
use crate::config::document::Path;
use crate::config::loaded::ListReport;
use crate::config::problem::{ConfigError, Warning};
use crate::config::spec::{self, ListAction};
use crate::feed::{self, Tables};
use crate::lists::{
    AgeBuilder, BUILTIN, BUILTIN_PREFIX, Day, Format, HashKey, Input, ListError, ListInfo, Lists, Reopen, Report,
    RuleSet, Survey, builtin, survey,
};
use crate::regular;

/// Largest list file, octets: room for the most entries a list may have.
pub(super) const MAX_LIST_OCTETS: u64 = 1 << 30;

/// Lists at most: what is kept of a name has two octets for them, and nobody writes as many.
const MAX_LISTS: usize = 1000;

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

/// The lists of a configuration, to be read line by line.
pub struct OpenLists {
    /// The ids of all of them.
    pub ids: Vec<String>,
    /// Those that can be opened.
    pub open: Vec<OpenList>,
    /// What is wrong with the others.
    pub unread: Vec<ConfigError>,
}

/// What to read, and what it was found to be.
pub(super) struct Surveyed {
    pub(super) octets: Box<dyn Reopen>,
    pub(super) survey: Survey,
    /// Its file, or the URL that it came from, as it may be told.
    pub(super) file: String,
    /// Of a list that is fetched, the copies that may stand in for this one.
    pub(super) spare: Option<Spare>,
}

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
        let mut feeds = feed::Config { state_dir: state_dir.to_owned(), ..feed::Config::default() };
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
        let deny = self.denied(denied, &mut feeds, tables, &mut reports);
        reports.sort_by_key(|report| written.iter().position(|list| list.id == report.id));
        let damage = self.ring(&mut age, &mut reports);
        (Lists { rules, deny, age: age.build().into(), packs }, reports, feeds, damage)
    }

    /// The ids of all lists, and each that can be opened, looked over.
    pub(super) fn open_lists(&mut self, state_dir: &FilePath) -> (Vec<String>, Vec<OpenList>) {
        let mut feeds = feed::Config { state_dir: state_dir.to_owned(), ..feed::Config::default() };
        let (mut ids, mut open) = (Vec::new(), Vec::new());
        for (i, written) in self.written_lists().into_iter().enumerate() {
            ids.push(written.id.clone());
            let path = Path::of("list").at(i);
            let day = self.day(&path.key("date"), written.date.as_deref());
            let found = self.surveyed(&path, &written, day, &mut feeds);
            open.extend(found.map(|found| OpenList {
                id: written.id,
                file: found.file,
                format: found.survey.format,
                day,
                octets: found.octets,
            }));
        }
        (ids, open)
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
        let Some(mut found) = self.surveyed(path, written, date, feeds) else { return };
        let info = |file: &str| ListInfo {
            id: written.id.as_str().into(),
            file: file.into(),
            source: written.source.clone(),
            category: written.category.clone(),
            reviewed,
        };
        let detected = written.format.is_none() && !found.file.starts_with(BUILTIN_PREFIX);
        if detected && found.survey.format != Format::Domains {
            self.assumptions.push(format!(
                "List {} is read as {}, which its first lines look like; `format` says otherwise.",
                written.id,
                found.survey.format.as_str(),
            ));
        }
        let path = path.key(if written.url.is_some() { "url" } else { "path" });
        if !written.is_age() {
            let Surveyed { octets, survey, file, spare } = found;
            let input = Input { info: info(&file), day: date, survey, octets };
            denied.push(Denied { path, input, spare, detected });
            return;
        }
        loop {
            let outcome = match found.octets.reopen() {
                // A copy of what the list was before it was one of new domains.
                _ if found.survey.format != Format::Nrd => Err(ListError::Format(found.survey.format)),
                Ok(from) => age.add(info(&found.file), from, date),
                Err(error) => Err(ListError::Unreadable(error.to_string())),
            };
            let error = match outcome {
                Ok(report) => {
                    self.digest_part(&format!("list {}", written.id), &found.survey.digest);
                    let file = found.file;
                    return self.read(&path, ListReport { id: written.id.clone(), file, detected, report }, reports);
                }
                Err(error) => error,
            };
            let Some(spare) = found.spare else { return self.refused_list(&path, &found.file, &error) };
            let Some(other) = self.step_back(&path, spare, &error, feeds) else { return };
            found = other;
        }
    }

    /// A list that was read.
    pub(super) fn read(&mut self, path: &Path, list: ListReport, reports: &mut Vec<ListReport>) {
        if list.report.entries == 0 {
            self.problems.warn(path, "the list has no entries", "check where it comes from");
        }
        self.tell_skips(&list.file, &list.report);
        reports.push(list);
    }

    pub(super) fn refused_list(&mut self, path: &Path, file: &str, error: &ListError) {
        self.problems.error(
            path,
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
            Ok(survey) => Some(Surveyed { octets, survey, file: written.clone(), spare: None }),
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
