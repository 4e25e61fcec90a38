//! Ages of domains: the registries to ask, and the ring of day files.

use std::path::Path as FilePath;
use std::time::Duration;

use super::Context;
use super::lists::{MAX_LIST_OCTETS, read_limited};
use crate::config::document::Path;
use crate::config::loaded::{Age, ListReport};
use crate::config::problem::Warning;
use crate::config::spec::Switch;
use crate::lists::{AgeBuilder, Day, ListError, ListInfo};
use crate::rdap::{self, Bootstrap, MAX_BOOTSTRAP_OCTETS};

/// Files looked at in the directory of day files.
const MAX_FILES: usize = 10_000;

/// Files without a day for a name that are told one by one.
const SHOWN_STRANGERS: usize = 20;

impl Context<'_, '_> {
    pub(super) fn age(&mut self, ring_damage: Option<String>) -> Age {
        let section = Path::of("age");
        let age = self.spec.age.clone();
        let hold = self.within(&section, "hold_ms", age.hold_ms, 0, 2000);
        let per_minute = self.within(&section, "per_minute", age.per_minute, 1, 6000);
        let per_session_hour = self.within(&section, "per_session_hour", age.per_session_hour, 1, 100_000);
        let timeout = self.within(&section, "timeout_ms", age.timeout_ms, 100, 30_000);
        let bootstrap = match age.bootstrap.as_deref() {
            Some(file) => self.bootstrap(&section.key("bootstrap"), file),
            None if age.rdap == Switch::On => self.problems.fail(
                &section.key("rdap"),
                "nobody is named to ask",
                "set age.bootstrap to your copy of the registry of RDAP servers (dns.json, RFC 9224)",
            ),
            None => None,
        };
        if age.rdap == Switch::Off {
            if age.hold_ms > 0 {
                self.problems.warn(&section.key("hold_ms"), "nothing to wait for", "set age.rdap = \"on\", or remove it");
            }
            return Age { rdap: None, ring_damage };
        }
        let rdap = bootstrap.map(|bootstrap| rdap::Config {
            bootstrap,
            hold: Duration::from_millis(hold),
            per_minute,
            per_session_hour,
            timeout: Duration::from_millis(timeout),
        });
        Age { rdap, ring_damage }
    }

    fn bootstrap(&mut self, path: &Path, written: &str) -> Option<Bootstrap> {
        let octets = match read_limited(&self.beside(written), MAX_BOOTSTRAP_OCTETS) {
            Ok(octets) => octets,
            Err(error) => {
                return self.problems.fail(
                    path,
                    format!("`{}` cannot be read: {error}", written.escape_debug()),
                    "paths are relative to the file that names them; check name and permissions",
                );
            }
        };
        self.digest_part("bootstrap", &octets);
        match Bootstrap::parse(&octets) {
            Ok(bootstrap) => {
                if bootstrap.insecure() > 0 {
                    let problem = format!("{} services have no https server", bootstrap.insecure());
                    self.problems.warn(path, problem, "what they say can be changed on the way; leave them out or accept it");
                }
                Some(bootstrap)
            }
            Err(error) => self.problems.fail(
                path,
                format!("`{}` is refused: {error}", written.escape_debug()),
                "fetch the registry's dns.json anew, or correct the file; see deploy/rdap-bootstrap.example.json",
            ),
        }
    }

    /// Adds the newest day files to `age`. A file that does not read is left out and told; what is told first is
    /// returned, and a reload then keeps the days that are in force.
    pub(super) fn ring(&mut self, age: &mut AgeBuilder, reports: &mut Vec<ListReport>) -> Option<String> {
        let section = Path::of("age");
        let keep = self.within(&section, "nrd_days", self.spec.age.nrd_days, 1, 400);
        let written = self.spec.age.nrd_dir.clone()?;
        let path = section.key("nrd_dir");
        let directory = self.beside(&written);
        let names = match file_names(&directory) {
            Ok(names) => names,
            Err(error) => {
                return self.problems.fail(
                    &path,
                    format!("`{}` cannot be read: {error}", written.escape_debug()),
                    "name a directory of day files, YYYY-MM-DD.txt; paths are relative to the file that names them",
                );
            }
        };
        let mut damage = None;
        let mut days = Vec::new();
        let mut strangers = 0;
        let tomorrow = Day(self.today().0.saturating_add(1));
        for name in names.iter().filter(|name| !name.starts_with('.')) {
            let file = format!("{}/{name}", written.trim_end_matches('/'));
            match name.strip_suffix(".txt").and_then(Day::parse) {
                // A day's zones are closed at different hours, so tomorrow's file may be there today.
                Some(day) if day <= tomorrow => days.push((day, name.as_str())),
                Some(_) => self.day_file(&mut damage, &file, 0, "its day has not come".into()),
                None => {
                    strangers += 1;
                    if strangers <= SHOWN_STRANGERS {
                        let problem = "not a day file, so it is passed over";
                        self.warn_file(&file, 0, problem.into(), "name day files YYYY-MM-DD.txt");
                    }
                }
            }
        }
        days.sort_by(|a, b| b.cmp(a));
        days.truncate(usize::from(keep));
        if days.is_empty() {
            self.problems.warn(&path, "there are no day files", "put files YYYY-MM-DD.txt there, one domain a line");
        }
        for (day, name) in days {
            let file = format!("{}/{name}", written.trim_end_matches('/'));
            let octets = match read_limited(&directory.join(name), MAX_LIST_OCTETS) {
                Ok(octets) => octets,
                Err(error) => {
                    self.day_file(&mut damage, &file, 0, format!("cannot be read: {error}"));
                    continue;
                }
            };
            let id = format!("nrd-{day}");
            let info = ListInfo { id: id.as_str().into(), file: file.as_str().into(), source: None, reviewed: None };
            match age.add(info, &octets, Some(day)) {
                Ok(report) => {
                    self.digest_part(&id, &octets);
                    self.tell_skips(&file, &report);
                    reports.push(ListReport { id, file, report });
                }
                Err(error) => {
                    let line = match &error {
                        ListError::Binary { line } | ListError::Garbage { line, .. } => *line,
                        ListError::TooLarge => 0,
                    };
                    self.day_file(&mut damage, &file, line, format!("the file is refused: {error}"));
                }
            }
        }
        damage
    }

    /// A day file that is left out.
    fn day_file(&mut self, damage: &mut Option<String>, file: &str, line: u32, problem: String) {
        let at = if line > 0 { format!("{file}:{line}") } else { file.to_owned() };
        damage.get_or_insert(format!("{at}: {problem}"));
        self.warn_file(file, line, problem, "fetch it anew or remove it; a reload keeps the days in force until then");
    }

    fn warn_file(&mut self, file: &str, line: u32, problem: String, remedy: &str) {
        let (file, field, remedy) = (file.to_owned(), "age.nrd_dir".to_owned(), remedy.to_owned());
        self.problems.warn_elsewhere(Warning { file, line, field, problem, remedy });
    }
}

/// Names in a directory, in order, as far as they are text.
fn file_names(directory: &FilePath) -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        if names.len() >= MAX_FILES {
            return Err(std::io::Error::other(format!("more than {MAX_FILES} files")));
        }
        names.extend(entry?.file_name().into_string().ok());
    }
    names.sort();
    Ok(names)
}
