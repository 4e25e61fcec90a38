//! List files: read, measured, put into tables.

use std::collections::HashSet;
use std::io::Read;
use std::path::Path as FilePath;

use super::Context;
use crate::config::document::Path;
use crate::config::loaded::ListReport;
use crate::config::problem::Warning;
use crate::config::spec::{self, ListAction};
use crate::lists::{
    AgeBuilder, BUILTIN, BUILTIN_PREFIX, DenyBuilder, Format, ListInfo, Lists, Report, RuleSet, builtin,
};

/// Largest list file, octets: room for the most entries a list may have.
pub(super) const MAX_LIST_OCTETS: u64 = 1 << 30;

impl Context<'_, '_> {
    /// The tables, what was read from each file, and what is wrong with the ring of day files.
    pub(super) fn lists(&mut self, rules: RuleSet, packs: RuleSet) -> (Lists, Vec<ListReport>, Option<String>) {
        let mut deny = DenyBuilder::new(*rules.key());
        let mut age = AgeBuilder::new(*rules.key());
        let mut reports = Vec::new();
        let shipped: Vec<spec::List> = BUILTIN
            .iter()
            .map(|list| spec::List {
                id: list.name.into(),
                path: format!("{BUILTIN_PREFIX}{}", list.name),
                ..spec::List::default()
            })
            .collect();
        let written = match &self.spec.list {
            Some(lists) => {
                self.warn_of_missing(lists);
                lists.clone()
            }
            None => {
                let names: Vec<_> = BUILTIN.iter().map(|list| list.name).collect();
                self.assumptions.push(format!("Shipped deny lists in force: {}.", names.join(", ")));
                shipped
            }
        };
        let mut ids: HashSet<String> = self.spec.rule.iter().map(|rule| rule.id.clone()).collect();
        for (i, list) in written.iter().enumerate() {
            let path = Path::of("list").at(i);
            self.word(&path.key("id"), &list.id, "id");
            if !list.id.is_empty() && !ids.insert(list.id.clone()) {
                let problem = format!("`{}` is the id of another list or rule", list.id.escape_debug());
                self.problems.error(&path.key("id"), problem, "give each its own id: records name it");
            }
            if let Some(report) = self.list(&path, list, &mut deny, &mut age) {
                self.tell_skips(&list.path, &report);
                reports.push(ListReport { id: list.id.clone(), file: list.path.clone(), report });
            }
        }
        let damage = self.ring(&mut age, &mut reports);
        (Lists { rules, deny: deny.build(), age: age.build().into(), packs }, reports, damage)
    }

    fn list(
        &mut self,
        path: &Path,
        written: &spec::List,
        deny: &mut DenyBuilder,
        age: &mut AgeBuilder,
    ) -> Option<Report> {
        let format = written.format.unwrap_or(Format::Domains);
        let nrd = format == Format::Nrd;
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
        let octets = self.list_octets(&path.key("path"), &written.path)?;
        self.digest_part(&format!("list {}", written.id), &octets);
        let info = ListInfo {
            id: written.id.as_str().into(),
            file: written.path.as_str().into(),
            source: written.source.clone(),
            reviewed,
        };
        let outcome = match action {
            ListAction::Age if nrd => age.add(info, &octets, date),
            ListAction::Age | ListAction::Deny => deny.add(info, &octets, format, date),
        };
        match outcome {
            Ok(report) => {
                if report.entries == 0 {
                    self.problems.warn(&path.key("path"), "the list has no entries", "check where it comes from");
                }
                Some(report)
            }
            Err(error) => self.problems.fail(
                &path.key("path"),
                format!("`{}` is refused: {error}", written.path.escape_debug()),
                "check the list's format and where it comes from; the whole list is left out until it reads",
            ),
        }
    }

    fn list_octets(&mut self, path: &Path, written: &str) -> Option<Vec<u8>> {
        if written.is_empty() {
            return self.problems.fail(path, "path is missing", "name the file, or a shipped list as builtin:<name>");
        }
        if written.starts_with(BUILTIN_PREFIX) {
            return match builtin(written) {
                Some(list) => Some(list.text.as_bytes().to_vec()),
                None => {
                    let names: Vec<_> = BUILTIN.iter().map(|b| format!("{BUILTIN_PREFIX}{}", b.name)).collect();
                    let problem = format!("no shipped list `{}`", written.escape_debug());
                    self.problems.fail(path, problem, format!("there are {}", names.join(", ")))
                }
            };
        }
        match read_limited(&self.beside(written), MAX_LIST_OCTETS) {
            Ok(octets) => Some(octets),
            Err(error) => self.problems.fail(
                path,
                format!("`{}` cannot be read: {error}", written.escape_debug()),
                "paths are relative to the file that names them; check name and permissions",
            ),
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

/// Reads a regular file of at most `most` octets.
pub(in crate::config) fn read_limited(path: &FilePath, most: u64) -> std::io::Result<Vec<u8>> {
    let file = std::fs::File::open(path)?;
    let metadata = file.metadata()?;
    // A device or pipe could give octets for ever, or none and block.
    if !metadata.is_file() {
        return Err(std::io::Error::other("not a regular file"));
    }
    let mut octets = Vec::with_capacity(metadata.len().min(most) as usize);
    file.take(most + 1).read_to_end(&mut octets)?;
    if octets.len() as u64 > most {
        return Err(std::io::Error::other(format!("larger than {most} octets")));
    }
    Ok(octets)
}
