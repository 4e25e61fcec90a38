//! From what is written to what is in force: every check that needs more than one field, and every file it names.
//!
//! Each part reads its sections, tells what is wrong, and goes on with a default, so that one run shows all mistakes.

mod age;
mod decoy;
mod denied;
mod dnssec;
mod enforce;
mod evidence;
mod feeds;
mod filter;
mod learn;
mod lists;
mod network;
mod outside;
mod packs;
mod places;
mod rpz;
mod rules;
mod sessions;
mod sockets;
mod upstream;

use std::fmt::Display;
use std::path::{Path as FilePath, PathBuf};

use sha2::{Digest, Sha256};

pub use self::lists::{OpenList, OpenLists};
use super::Environment;
use super::document::Path;
use super::loaded::{Loaded, LockdownBasis};
use super::problem::Problems;
use super::spec::V1;
use crate::lists::{Day, HashKey};

/// Days before a review or an expiry at which a warning starts.
const NOTICE_DAYS: u16 = 14;

/// Most octets of an id, name or word that is shown to people.
const MAX_WORD: usize = 64;

/// What the parts share.
struct Context<'c, 'd> {
    spec: &'c V1,
    environment: &'c Environment,
    /// Directory of the file: other files are relative to it.
    directory: &'c FilePath,
    problems: &'c mut Problems<'d>,
    assumptions: Vec<String>,
    digest: Sha256,
    /// Of all fingerprints.
    key: HashKey,
}

/// Resolves `spec`; `None` if a mistake was found, which `problems` then holds.
pub(super) fn resolve(
    spec: &V1,
    file: Option<&FilePath>,
    environment: &Environment,
    problems: &mut Problems<'_>,
) -> Option<Loaded> {
    let directory = file.and_then(FilePath::parent).unwrap_or(FilePath::new(""));
    let mut context = Context::new(spec, environment, directory, problems);
    context.version(file.is_some());
    // Field order of the structs is fixed and the only map is ordered, so equal specs have equal text.
    let written = serde_json::to_vec(spec).unwrap_or_default();
    context.digest_part("spec", &written);

    let state_dir = context.state_dir();
    let tables = context.tables(&state_dir);
    let listen = context.listen();
    let admin = context.admin(&state_dir);
    let metrics = context.metrics();
    let policy = context.policy(file.is_some());
    let upstream = context.upstream(&listen.addresses);
    let answer = context.answer();
    let dnssec = context.dnssec(&upstream);
    let events = context.events(&state_dir);
    let journal = context.lease_journal(&state_dir, &events);
    let enforce = crate::enforce::Config { journal, ..context.enforce(policy.mode, policy.unknown_source) };
    let lockdown = context.lockdown(&enforce, policy.mode);
    let pins = context.pins();
    let sinkhole = context.sinkhole();
    let decoy = context.decoy();
    let max_sessions = context.max_sessions();
    let sessions = context.sessions();
    let profiles = context.profiles();
    let learn = context.learn();
    let rules = context.rules();
    let ranges = context.written_ranges();
    let (packs, pack_reports) = context.packs();
    let (lists, list_reports, feeds, ring_damage) = context.lists(rules, packs, &state_dir, tables.as_ref());
    let rpz = context.rpz();
    let notify_listen = context.notify_listen(&rpz);
    context.sockets();
    let age = context.age(ring_damage);
    let zones = context.zones();
    let alerts = context.alerts(&state_dir);
    context.places(&state_dir, &admin, &events, enforce.journal.as_ref(), &alerts);
    let Context { assumptions, digest, .. } = context;
    let digest = digest.finalize().iter().map(|b| format!("{b:02x}")).collect();
    let loaded = Loaded {
        file: file.map(PathBuf::from),
        text: None,
        assumptions,
        digest,
        listen,
        state_dir,
        admin,
        metrics,
        policy,
        upstream,
        answer,
        dnssec,
        enforce,
        lockdown,
        pins,
        sinkhole,
        decoy,
        max_sessions,
        sessions,
        profiles,
        learn,
        ranges,
        lists,
        list_reports,
        pack_reports,
        rpz,
        notify_listen,
        feeds,
        age,
        zones,
        events,
        alerts,
    };
    (!problems.any_error()).then_some(loaded)
}

/// What the enforcer runs by: its own section and what that needs. Lists and zones are not read, since that process is to
/// read as little as can be.
pub(super) fn enforcer(
    spec: &V1,
    file: &FilePath,
    socket: Option<PathBuf>,
    environment: &Environment,
    problems: &mut Problems<'_>,
) -> crate::enforce::remote::Settings {
    let directory = file.parent().unwrap_or(FilePath::new(""));
    let mut context = Context::new(spec, environment, directory, problems);
    context.version(true);
    let policy = context.policy(true);
    let enforce = context.enforce(policy.mode, policy.unknown_source);
    context.enforcer(enforce, socket)
}

/// What the lockdown is made from. No file is read for it.
pub(super) fn lockdown(
    spec: &V1,
    file: &FilePath,
    environment: &Environment,
    problems: &mut Problems<'_>,
) -> LockdownBasis {
    let directory = file.parent().unwrap_or(FilePath::new(""));
    let mut context = Context::new(spec, environment, directory, problems);
    context.version(true);
    let policy = context.policy(true);
    let enforce = context.enforce(policy.mode, policy.unknown_source);
    LockdownBasis {
        table: context.lockdown(&enforce, policy.mode).table,
        service_table: enforce.table,
        interfaces: enforce.interfaces,
        listen: context.listen().addresses,
        sources: context.sessions().into_iter().flat_map(|session| session.addresses).collect(),
    }
}

/// The ids of all lists, and those that can be opened.
pub(super) fn open_lists(
    spec: &V1,
    file: &FilePath,
    environment: &Environment,
    problems: &mut Problems<'_>,
) -> (Vec<String>, Vec<OpenList>) {
    let directory = file.parent().unwrap_or(FilePath::new(""));
    let mut context = Context::new(spec, environment, directory, problems);
    let state_dir = context.state_dir();
    context.open_lists(&state_dir)
}

impl<'c, 'd> Context<'c, 'd> {
    fn new(
        spec: &'c V1,
        environment: &'c Environment,
        directory: &'c FilePath,
        problems: &'c mut Problems<'d>,
    ) -> Self {
        let key = HashKey::from_random(environment.entropy);
        Self { spec, environment, directory, problems, assumptions: Vec::new(), digest: Sha256::new(), key }
    }
}

impl Context<'_, '_> {
    fn version(&mut self, written: bool) {
        let path = Path::of("version");
        match self.spec.version {
            Some(1) => {}
            Some(other) => {
                self.problems.error(&path, format!("version {other} is not known"), "this release reads `version = 1`")
            }
            None if written => {
                self.problems.improve(&path, |_| "this release reads `version = 1`".into());
                self.problems.error(&path, "no version", "start the file with `version = 1`");
            }
            None => {}
        }
    }

    /// Adds one input to the digest; lengths keep parts from running into each other.
    fn digest_part(&mut self, label: &str, octets: &[u8]) {
        for part in [label.as_bytes(), octets] {
            self.digest.update((part.len() as u64).to_be_bytes());
            self.digest.update(part);
        }
    }

    /// A path that the file names.
    fn beside(&self, path: &str) -> PathBuf {
        self.directory.join(path)
    }

    /// Today (UTC).
    fn today(&self) -> Day {
        Day::of_wall(self.environment.wall)
    }

    /// A number within its limits, or the nearest limit and a mistake.
    fn within<T: Copy + PartialOrd + Display>(&mut self, section: &Path, field: &str, value: T, min: T, max: T) -> T {
        let path = section.key(field);
        self.ranged(&path, min, max);
        if value >= min && value <= max {
            return value;
        }
        let problem = format!("{value} is out of range");
        self.problems.error(&path, problem, format!("use {min} to {max}"));
        if value < min { min } else { max }
    }

    /// As [`Context::within`], where it may be left out.
    fn within_if<T>(&mut self, section: &Path, field: &str, value: Option<T>, min: T, max: T) -> Option<T>
    where
        T: Copy + PartialOrd + Display,
    {
        if value.is_none() {
            self.ranged(&section.key(field), min, max);
        }
        value.map(|value| self.within(section, field, value, min, max))
    }

    /// Puts the limits to a number that did not decode.
    fn ranged<T: Display>(&mut self, path: &Path, min: T, max: T) {
        self.problems.improve(path, |remedy| {
            let kind = remedy.split(',').next().unwrap_or_default();
            format!("{kind}, {min} to {max}")
        });
    }

    /// An id or name: 1 to 64 of letters, digits, `.`, `_`, `-`.
    fn word(&mut self, path: &Path, text: &str, what: &str) {
        let good = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        if text.is_empty() {
            self.problems.error(path, format!("{what} is missing"), "give it one: 1 to 64 of A-Z a-z 0-9 . _ -");
        } else if text.len() > MAX_WORD || !text.bytes().all(good) {
            let problem = format!("`{}` is no good as {what}", text.escape_debug());
            self.problems.error(path, problem, "use 1 to 64 of A-Z a-z 0-9 . _ -");
        }
    }

    /// Somebody who answers for it, and why it exists.
    fn owned(&mut self, section: &Path, owner: &str, reason: &str) {
        if owner.trim().is_empty() {
            self.problems.error(&section.key("owner"), "owner is missing", "name who answers for it");
        }
        if reason.trim().is_empty() {
            self.problems.error(&section.key("reason"), "reason is missing", "say in a few words why it exists");
        }
    }

    /// A day, where one is written.
    fn day(&mut self, path: &Path, text: Option<&str>) -> Option<Day> {
        let text = text?;
        match Day::parse(text) {
            Some(day) => Some(day),
            None if Day::is_later(text) => {
                self.problems.fail(path, format!("`{text}` is later than {}", Day::LAST), "write an earlier day")
            }
            None => {
                let problem = format!("`{}` is not a day", text.escape_debug());
                self.problems.fail(path, problem, "write YYYY-MM-DD, for example \"2027-06-01\"")
            }
        }
    }

    /// A day of review: warns when it is near or past.
    fn review(&mut self, path: &Path, text: Option<&str>) -> Option<Day> {
        let day = self.day(path, text)?;
        let today = self.today();
        if day < today {
            self.problems.warn(
                path,
                format!("review was due on {day}"),
                "check that it is still needed, then set a new day",
            );
        } else if day.0 - today.0 <= NOTICE_DAYS {
            self.problems.warn(
                path,
                format!("review is due on {day}"),
                "check that it is still needed, then set a new day",
            );
        }
        Some(day)
    }
}
