//! `staunch lists`: what a daemon has in force, and what can be done with lists without one.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Subcommand;
use serde_json::{Value, json};
use staunch_scoring::NameBuf;

use super::Exit;
use super::human::{number, text};
use super::verbs::{ask, config_errors, fail, say, who};
use crate::admin::protocol::Request;
use crate::config::{self, ConfigError, Environment, OpenList, OpenLists};
use crate::lists::{Entry, Reach, parse_telling};

/// What to do.
#[derive(Debug, Subcommand)]
pub enum ListsVerb {
    /// Every list in force: entries, lines passed over by reason, how fetching goes, what waits.
    Show,
    /// Fetch now: the list named, or all that have a URL.
    Fetch {
        /// Id of the list.
        #[arg(value_name = "LIST")]
        list: Option<String>,
    },
    /// Let in the version of a list that has grown or shrunk too much. On the record.
    Accept {
        /// Id of the list.
        #[arg(value_name = "LIST")]
        list: String,
        /// How the sha256 of the version begins that you looked at.
        #[arg(long, value_name = "HEX")]
        sha256: String,
        /// Why it is right.
        #[arg(long)]
        reason: String,
        /// Who says so [default: $USER, else `operator`].
        #[arg(long)]
        by: Option<String>,
    },
    /// Compile the lists of a configuration into the table that a daemon then maps at its start or reload. As its user.
    Build {
        /// The configuration.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Where state is kept; overrides the file.
        #[arg(long, value_name = "DIR")]
        state_dir: Option<PathBuf>,
    },
    /// Every line that is passed over, with its reason.
    Skipped {
        /// The configuration.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Only of this list.
        #[arg(long)]
        list: Option<String>,
    },
    /// Every line of every list that covers a name, exceptions too: read from the lists themselves and compared letter by
    /// letter.
    Find {
        /// The name.
        name: NameBuf,
        /// The configuration.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

pub(super) fn run(verb: ListsVerb, socket: &Path, json: bool) -> Exit {
    match verb {
        ListsVerb::Show => ask(socket, &Request::Lists, json, show),
        ListsVerb::Fetch { list } => ask(socket, &Request::FetchList { list }, json, |v| match v["ordered"].as_u64() {
            Some(0) => "nothing to fetch: no list in force has a `url`".to_owned(),
            _ => format!("{} lists are being fetched", v["ordered"]),
        }),
        ListsVerb::Accept { list, sha256, reason, by } => {
            ask(socket, &Request::AcceptList { list, sha256, by: who(by), reason }, json, |v| {
                format!("{}: {} entries are let in", text(&v["list"]), v["version"]["entries"])
            })
        }
        ListsVerb::Build { file, state_dir } => build(&file, state_dir, json),
        ListsVerb::Skipped { file, list } => skipped(&file, list.as_deref(), json),
        ListsVerb::Find { name, file } => find(&file, &name, json),
    }
}

fn build(file: &Path, state_dir: Option<PathBuf>, json: bool) -> Exit {
    let start = Instant::now();
    let state_dir = state_dir.map(std::path::absolute).transpose();
    let state_dir = match state_dir {
        Ok(state_dir) => state_dir,
        Err(error) => return fail(&format!("--state-dir: {error}"), json),
    };
    let environment = Environment { keep_tables: true, state_dir, ..Environment::system() };
    let (loaded, warnings) = match config::load_in(file, &environment) {
        Ok(loaded) => loaded,
        Err(errors) => return config_errors(&errors, json),
    };
    let deny = &loaded.lists.deny;
    let seconds = start.elapsed().as_secs_f64();
    if json {
        let report = json!({
            "schema": 1, "names": deny.len(), "octets": deny.octets(), "seconds": seconds, "digest": loaded.digest(),
            "lists": loaded.list_reports, "warnings": warnings,
        });
        say(&report.to_string());
    } else {
        for warning in &warnings {
            say(&format!("warning: {warning}"));
        }
        let each = deny.octets() as f64 / deny.len().max(1) as f64;
        say(&format!("{} names, {each:.1} octets each, in {seconds:.1} s", deny.len()));
    }
    Exit::Ok
}

/// The lists of a configuration; where there is none, its mistakes are told.
fn open(file: &Path, json: bool) -> Result<OpenLists, Exit> {
    config::open_lists(file, &Environment::system()).map_err(|errors| config_errors(&errors, json))
}

/// Reads a list through.
fn read(
    list: &mut OpenList,
    sink: impl FnMut(Entry<'_>),
    mut told: impl FnMut(&crate::lists::Skipped),
) -> Result<(), String> {
    let mut sink = sink;
    let (format, day) = (list.format, list.day);
    let from = list.octets.reopen().map_err(|error| error.to_string())?;
    let sink = |entry: Entry<'_>| {
        sink(entry);
        Ok(())
    };
    parse_telling(from, format, day, sink, &mut told).map(drop).map_err(|error| error.to_string())
}

fn skipped(file: &Path, only: Option<&str>, json: bool) -> Exit {
    let OpenLists { ids, open: lists, mut unread } = match open(file, json) {
        Ok(lists) => lists,
        Err(exit) => return exit,
    };
    if let Some(only) = only {
        let Some(at) = ids.iter().position(|id| id == only) else {
            return fail(&format!("no list `{only}` is written; there are {}", ids.join(", ")), json);
        };
        let own = format!("list[{at}].");
        unread.retain(|error| !error.field.starts_with("list[") || error.field.starts_with(&own));
    }
    let mut any = false;
    for mut list in lists.into_iter().filter(|list| only.is_none_or(|only| only == list.id)) {
        let (id, from) = (list.id.clone(), list.file.clone());
        let told = |skipped: &crate::lists::Skipped| {
            any = true;
            say(&if json {
                json!({
                    "schema": 1, "list": id, "file": from, "line": skipped.line, "kind": skipped.kind,
                    "reason": skipped.reason, "text": skipped.text,
                })
                .to_string()
            } else {
                format!("{from}:{}: {}: {}", skipped.line, skipped.reason, skipped.text)
            });
        };
        if let Err(error) = read(&mut list, |_| {}, told) {
            unread.push(broken(&list, &error));
        }
    }
    if !unread.is_empty() {
        return config_errors(&unread, json);
    }
    // Whoever reads JSON is told so, too: an object a line where there are lines, else this one.
    if json && !any {
        say(&json!({ "schema": 1, "lines": [] }).to_string());
    }
    Exit::Ok
}

/// A list that was opened and cannot be read to its end.
fn broken(list: &OpenList, problem: &str) -> ConfigError {
    ConfigError {
        file: list.file.clone(),
        line: 0,
        field: String::new(),
        problem: problem.to_owned(),
        remedy: "see that it is whole".into(),
    }
}

fn find(file: &Path, name: &NameBuf, json: bool) -> Exit {
    let OpenLists { open: lists, mut unread, .. } = match open(file, json) {
        Ok(lists) => lists,
        Err(exit) => return exit,
    };
    let mut found = Vec::new();
    for mut list in lists {
        let mut lines = Vec::new();
        let sink = |entry: Entry<'_>| {
            let below = name.as_ref().is_at_or_below(entry.name);
            let whole = name.as_ref() == entry.name;
            let covers = match entry.reach {
                Reach::Exact => whole,
                Reach::AtOrBelow => below,
                Reach::Below => below && !whole,
            };
            if covers {
                lines.push((entry.line, entry.name.to_string(), entry.reach, entry.exception));
            }
        };
        if let Err(error) = read(&mut list, sink, |_| {}) {
            unread.push(broken(&list, &error));
        }
        found.extend(lines.into_iter().map(|line| (list.id.clone(), list.file.clone(), line)));
    }
    if json {
        let lines: Vec<_> = found
            .iter()
            .map(|(id, file, (line, name, reach, exception))| {
                json!({ "list": id, "file": file, "line": line, "name": name, "reach": reach, "exception": exception })
            })
            .collect();
        say(&json!({ "schema": 1, "name": name.to_string(), "lines": lines, "unread": unread }).to_string());
        return if unread.is_empty() { Exit::Ok } else { Exit::Invalid };
    }
    for (id, file, (line, name, reach, exception)) in &found {
        let reach = match reach {
            Reach::Exact => "alone",
            Reach::AtOrBelow => "and below",
            Reach::Below => "below alone",
        };
        let what = if *exception { "excepts" } else { "denies" };
        say(&format!("{file}:{line}: {id} {what} {name} {reach}"));
    }
    if found.is_empty() {
        let which = if unread.is_empty() { "no list" } else { "no list that could be read" };
        say(&format!("{which} has {name} or a name above it"));
    }
    if unread.is_empty() { Exit::Ok } else { config_errors(&unread, json) }
}

/// One list in a line.
pub(super) fn line(list: &Value) -> String {
    let mut out = format!(
        "list {} ({}): {} entries, {}",
        text(&list["id"]),
        text(&list["file"]),
        list["entries"],
        text(&list["format"])
    );
    if list["detected"] == true {
        out += " by its first lines";
    }
    for (field, words) in [("exceptions", "exceptions"), ("converted", "names converted from other letters")] {
        if number(&list[field]) > 0.0 {
            let _ = write!(out, ", {} {words}", list[field]);
        }
    }
    if number(&list["skipped"]) > 0.0 {
        let _ = write!(out, ", {} lines passed over", list["skipped"]);
        let reasons = list["reasons"].as_object().into_iter().flatten();
        let reasons: Vec<_> = reasons.map(|(kind, count)| format!("{kind} {count}")).collect();
        let _ = write!(out, " ({})", reasons.join(", "));
    }
    out
}

/// What a daemon has in force.
fn show(v: &Value) -> String {
    let sums = &v["sums"];
    let mut out = format!("{} names denied, {} octets", sums["names"], sums["octets"]);
    for list in v["lists"].as_array().into_iter().flatten() {
        let _ = write!(out, "\n{}", line(list));
    }
    for list in v["fetched"].as_array().into_iter().flatten() {
        let version = |version: &Value| {
            let digest: String = text(&version["sha256"]).chars().take(16).collect();
            format!("{} entries, sha256 {digest}", version["entries"])
        };
        let good = if list["good"].is_object() { version(&list["good"]) } else { "NO COPY YET".into() };
        let _ = write!(out, "\nfetched {} from {}: {good}", text(&list["id"]), text(&list["url"]));
        if list["unused"].is_string() {
            let _ = write!(out, "\n  NOT USED  {}", text(&list["unused"]));
        }
        if number(&list["failures"]) > 0.0 {
            let _ = write!(out, "\n  FAILING   {} times: {}", list["failures"], text(&list["problem"]));
        }
        if list["held"].is_object() {
            let held = &list["held"];
            let _ = write!(out, "\n  WAITS     {}: {}", version(held), text(&held["held_for"]));
        }
    }
    out
}
