//! Ages of domains: the registries to ask, and the ring of day files.

use std::path::Path as FilePath;
use std::time::Duration;

use super::Context;
use super::lists::MAX_LIST_OCTETS;
use crate::config::document::Path;
use crate::config::loaded::{Age, ListReport};
use crate::config::problem::Warning;
use crate::config::spec::Switch;
use crate::lists::{AgeBuilder, Day, ListInfo};
use crate::rdap::{self, Bootstrap, MAX_BOOTSTRAP_OCTETS};
use crate::regular;

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
                self.problems.warn(
                    &section.key("hold_ms"),
                    "nothing to wait for",
                    "set age.rdap = \"on\", or remove it",
                );
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
        let octets = match regular::read(&self.beside(written), MAX_BOOTSTRAP_OCTETS) {
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
                    self.problems.warn(
                        path,
                        problem,
                        "what they say can be changed on the way; leave them out or accept it",
                    );
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
    /// returned, and a reload then keeps the registration days that are in force.
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
            let octets = match regular::read(&directory.join(name), MAX_LIST_OCTETS) {
                Ok(octets) => octets,
                Err(error) => {
                    self.day_file(&mut damage, &file, 0, format!("cannot be read: {error}"));
                    continue;
                }
            };
            let id = format!("nrd-{day}");
            let info = ListInfo {
                id: id.as_str().into(),
                file: file.as_str().into(),
                source: None,
                category: None,
                reviewed: None,
            };
            match age.add(info, &octets[..], Some(day)) {
                Ok(report) => {
                    self.digest_part(&id, &octets);
                    self.tell_skips(&file, &report);
                    reports.push(ListReport { id, file, detected: false, report });
                }
                Err(error) => {
                    let line = error.line();
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

#[cfg(test)]
mod tests {
    use std::path::Path as FilePath;

    use crate::config::{Environment, Loaded, Warning, load_text};
    use crate::lists::Day;
    use staunch_scoring::NameBuf;

    fn environment() -> Environment {
        Environment {
            resolv_conf: Some("nameserver 192.0.2.1\n".into()),
            state_home: "/var/lib".into(),
            state_dir: None,
            wall: Day::parse("2026-11-21").unwrap().start(),
            entropy: [7; 24],
            keep_tables: false,
            checking: false,
        }
    }

    fn read(dir: &FilePath, age: &str) -> Result<(Loaded, Vec<Warning>), Vec<String>> {
        load_text(&dir.join("policy.toml"), &format!("version = 1\n[age]\n{age}\n"), &environment()).map_err(|errors| {
            errors.iter().map(|e| format!("{}: {}: {}; {}", e.line, e.field, e.problem, e.remedy)).collect()
        })
    }

    #[test]
    fn mistakes_are_told_with_their_remedy() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("bad.json"), "{\"version\":\"1.0\",\n\"services\":[[[\"a\"],[\"ftp://x/\"]]]}")
            .unwrap();
        for (age, expected) in [
            ("rdap = \"on\"", "3: age.rdap: nobody is named to ask; set age.bootstrap"),
            ("rdap = \"yes\"", "3: age.rdap: unknown word `yes`; use `off` or `on`"),
            ("rdap = \"on\"\nbootstrap = \"none.json\"", "4: age.bootstrap: `none.json` cannot be read"),
            ("bootstrap = \"bad.json\"", "3: age.bootstrap: `bad.json` is refused: service 1: `ftp://x/`"),
            ("hold_ms = 2001", "3: age.hold_ms: 2001 is out of range; use 0 to 2000"),
            ("per_minute = 0", "3: age.per_minute: 0 is out of range; use 1 to 6000"),
            ("nrd_dir = \"none\"", "3: age.nrd_dir: `none` cannot be read"),
            ("nrd_days = 0", "3: age.nrd_days: 0 is out of range; use 1 to 400"),
            ("rdapp = \"on\"", "3: age.rdapp: unknown field `rdapp`; did you mean `rdap`?"),
        ] {
            let errors = read(dir.path(), age).err().unwrap_or_default();
            assert!(errors.len() == 1 && errors[0].starts_with(expected), "{age}: {errors:?}");
        }
    }

    #[test]
    fn the_shipped_bootstrap_example_reads() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("dns.json"), include_str!("../../../deploy/rdap-bootstrap.example.json"))
            .unwrap();
        let (loaded, warnings) = read(dir.path(), "rdap = \"on\"\nbootstrap = \"dns.json\"\nhold_ms = 250").unwrap();
        assert!(warnings.iter().all(|w| !w.field.starts_with("age")), "{warnings:?}");
        let rdap = loaded.age.rdap.expect("on");
        assert_eq!((rdap.bootstrap.len(), rdap.hold.as_millis(), rdap.per_session_hour), (3, 250, 60));
        let (loaded, warnings) = read(dir.path(), "hold_ms = 250").unwrap();
        assert!(loaded.age.rdap.is_none());
        assert!(warnings.iter().any(|w| w.field == "age.hold_ms"), "{warnings:?}");
    }

    #[test]
    fn the_newest_days_count_and_what_is_wrong_is_told_by_file_and_line() {
        let dir = tempfile::tempdir().unwrap();
        let nrd = dir.path().join("nrd");
        std::fs::create_dir(&nrd).unwrap();
        let write = |name: &str, text: &[u8]| std::fs::write(nrd.join(name), text).unwrap();
        write("2026-11-17.txt", b"gone.example\n");
        write("2026-11-19.txt", b"a.example\nb.example\nc.example\nd.example\nbad name\n");
        write("2026-11-20.txt", b"x.example\n\0");
        write("2026-11-22.txt", b"tomorrow.example\n");
        write("2026-11-23.txt", b"ahead.example\n");
        write("2026-13-01.txt", b"");
        write(".hidden", b"");
        let (loaded, warnings) = read(dir.path(), "nrd_dir = \"nrd/\"\nnrd_days = 3").unwrap();
        let told: Vec<String> = warnings
            .iter()
            .filter(|w| w.file.starts_with("nrd"))
            .map(|w| format!("{}:{}: {}", w.file, w.line, w.problem))
            .collect();
        assert_eq!(
            told,
            [
                "nrd/2026-11-19.txt:5: line passed over: more than one word (is this the hosts format?)",
                "nrd/2026-11-20.txt:2: the file is refused: not a text file: NUL octet in line 2",
                "nrd/2026-11-23.txt:0: its day has not come",
                "nrd/2026-13-01.txt:0: not a day file, so it is passed over",
            ]
        );
        let damage = loaded.age.ring_damage.expect("damaged");
        assert_eq!(damage, "nrd/2026-11-23.txt: its day has not come");
        let day = |name: &str| {
            let name = NameBuf::from_text(name).unwrap();
            loaded.lists.age.look_up(name.as_ref()).map(|found| found.registered.to_string())
        };
        assert_eq!(day("a.example").as_deref(), Some("2026-11-19"));
        assert_eq!(day("tomorrow.example").as_deref(), Some("2026-11-22"));
        assert_eq!((day("gone.example"), day("x.example"), day("ahead.example")), (None, None, None));
        assert_eq!(loaded.list_reports.iter().filter(|r| r.id.starts_with("nrd-")).count(), 2);
        let (_, warnings) = read(dir.path(), "nrd_dir = \".\"").unwrap();
        assert!(warnings.iter().any(|w| w.field == "age.nrd_dir" && w.problem == "there are no day files"));
    }
}
