//! Files that the service writes, where two of them would be one, and what stands at a place that is meant for something else.

use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path as FilePath, PathBuf};

use super::Context;
use crate::config::document::Path;
use crate::config::loaded::{Admin, AlertSink, AlertSinkKind, Events};
use crate::lines;

/// What lies in the state directory by a name of the service's own choice.
const OWN: [&str; 10] = [
    "node.key",
    "node.key.new",
    "node.pub",
    "node.pub.new",
    "lock",
    "index",
    "lists",
    "rpz",
    "trust-anchors",
    "admin.sock",
];
/// How names of the journal's segments and of an index that was put aside begin.
const OWN_PREFIXES: [&str; 2] = ["journal-", "index.damaged-"];

/// A file that the configuration has written.
struct Written {
    field: Path,
    shown: String,
    place: PathBuf,
    /// Rotated: older ones stand beside it with a number.
    rotated: bool,
}

impl Written {
    /// Whether both write one file, rotated ones among them.
    fn is_in_the_way_of(&self, other: &Self) -> bool {
        let rotates_into = |one: &Self, other: &Self| {
            let (Some(name), Some(stem)) = (other.place.file_name(), one.place.file_name()) else { return false };
            let number =
                name.to_str().zip(stem.to_str()).and_then(|(name, stem)| name.strip_prefix(stem)?.strip_prefix('.'));
            let is_number = number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
            one.rotated && is_number && one.place.parent() == other.place.parent()
        };
        self.place == other.place || rotates_into(self, other) || rotates_into(other, self)
    }
}

impl Context<'_, '_> {
    /// Tells of files that cannot all be written where they are to be.
    pub(super) fn places(
        &mut self,
        state_dir: &FilePath,
        admin: &Admin,
        events: &Events,
        journal: Option<&lines::Config>,
        alerts: &[AlertSink],
    ) {
        let (server, events_file) = (Path::of("server"), Path::of("events").key("file"));
        // As a file in it is found, links followed.
        let within_own = place(&state_dir.join("any"));
        let own_directory = within_own.parent().unwrap_or(state_dir);
        let socket = place(&admin.socket);
        let mut written = vec![Written {
            field: server.key("admin_socket"),
            shown: "the operators' socket (server.admin_socket)".into(),
            place: socket.clone(),
            rotated: false,
        }];
        let lines = events.file.as_deref().map(|file| (events_file, "events.file".to_owned(), file, true));
        let journal = journal.map(|journal| {
            (Path::of("enforce").key("lease_journal"), "enforce.lease_journal".to_owned(), journal.file.as_path(), true)
        });
        // By its name, since a sink with a mistake is none.
        let sinks = alerts.iter().filter_map(|sink| {
            let AlertSinkKind::File { path } = &sink.kind else { return None };
            let at = self.spec.alert.iter().position(|written| written.name == sink.name)?;
            Some((Path::of("alert").at(at).key("path"), format!("alert[{at}].path"), path.as_path(), false))
        });
        for (field, shown, file, rotated) in lines.into_iter().chain(journal).chain(sinks).collect::<Vec<_>>() {
            // A terminal, a pipe or nothing at all: nobody's file.
            if has_nul(state_dir) || file.starts_with("/dev") || file.starts_with("/proc") {
                continue;
            }
            let why = if file.is_dir() { "is a directory" } else { "has a NUL in it" };
            if file.is_dir() || has_nul(file) {
                let problem = format!("`{}` {why}", file.display().to_string().escape_debug());
                self.problems.error(&field, problem, "name a file, which is made where there is none");
                continue;
            }
            let file = Written { field, shown, place: place(file), rotated };
            let within = file.place.strip_prefix(own_directory).ok().and_then(|rest| rest.iter().next()?.to_str());
            let own = |name: &str| OWN.contains(&name) || OWN_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
            if let Some(name) = within.filter(|name| own(name) && file.place != socket) {
                let problem = format!("`{}` in the state directory is the service's own", name.escape_debug());
                self.problems.error(&file.field, problem, "name another file");
            } else if let Some(first) = written.iter().find(|first| first.is_in_the_way_of(&file)) {
                let problem = match first.place == file.place {
                    true => format!("the file of {}, too", first.shown),
                    false => format!("in the way of {}: older files have the name and a number", first.shown),
                };
                self.problems.error(&file.field, problem, "name another file: each of them is written by itself");
            }
            written.push(file);
        }
        let why = if admin.socket.is_dir() { "is a directory" } else { "has a NUL in it" };
        if admin.socket.is_dir() || (has_nul(&admin.socket) && !has_nul(state_dir)) {
            let problem = format!("`{}` {why}", admin.socket.display().to_string().escape_debug());
            let remedy = "name the socket itself, for example /run/staunch/admin.sock";
            self.problems.error(&server.key("admin_socket"), problem, remedy);
        }
        let why = if state_dir.is_file() { "is a file" } else { "has a NUL in it" };
        if state_dir.is_file() || has_nul(state_dir) {
            let problem = format!("`{}` {why}", state_dir.display().to_string().escape_debug());
            self.problems.error(
                &server.key("state_dir"),
                problem,
                "name a directory, which is made where there is none",
            );
        }
    }

    /// Warns where a hook cannot be run on this machine.
    pub(super) fn runnable(&mut self, field: &Path, program: &str) {
        let why = match std::fs::metadata(program) {
            Ok(found) if !found.is_file() => "is no file".to_owned(),
            Ok(found) if found.permissions().mode() & 0o111 == 0 => "may not be executed".to_owned(),
            Ok(_) => return,
            Err(error) => error.to_string(),
        };
        let problem = format!("`{}`: {why}: the service would not start here", program.escape_debug());
        self.problems.warn(field, problem, "put the command there, executable by the service's user, or name another");
    }
}

fn has_nul(path: &FilePath) -> bool {
    path.as_os_str().as_bytes().contains(&0)
}

/// Where a path leads, as far as that can be known before anything is made there. The file itself may be a link that is
/// replaced: only what it lies in is followed.
fn place(path: &FilePath) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in std::path::absolute(path).unwrap_or_else(|_| path.into()).components() {
        match part {
            Component::ParentDir => {
                plain.pop();
            }
            Component::CurDir => {}
            part => plain.push(part),
        }
    }
    let parents = plain.parent().into_iter().flat_map(FilePath::ancestors);
    let followed =
        parents.filter_map(|above| Some((std::fs::canonicalize(above).ok()?, plain.strip_prefix(above).ok()?)));
    let followed = followed.map(|(above, rest)| above.join(rest)).next();
    followed.unwrap_or(plain)
}
