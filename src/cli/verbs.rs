//! What each verb does.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::args::{Args, ExitBy, LearnVerb, SessionVerb, Verb};
use super::{Exit, default_socket, human, other_sockets};
use crate::admin::client::{self, Exchange};
use crate::admin::protocol::{ErrorCode, Request};
use crate::config::{self, PackReport};
use crate::daemon;
use crate::model::Announcement;

/// Time for one exchange with the daemon: it waits for one fsync at most.
const PATIENCE: Duration = Duration::from_secs(15);
/// The same for a reload, which may have to read lists of many million names.
const RELOAD_PATIENCE: Duration = Duration::from_secs(180);

/// The first error that output has met.
static UNWRITTEN: Mutex<Option<std::io::Error>> = Mutex::new(None);

/// Runs a verb. What was to be told and is not is a failure, unless the reader went away.
pub fn run(args: Args) -> Exit {
    let exit = carry_out(args);
    let Some(error) = UNWRITTEN.lock().take().filter(|error| error.kind() != std::io::ErrorKind::BrokenPipe) else {
        return exit;
    };
    complain(&format!("staunch: the output could not be written: {error}"));
    // Any other says already that something is not as it should be.
    if exit == Exit::Ok { Exit::Failed } else { exit }
}

fn carry_out(args: Args) -> Exit {
    let socket = args.socket.clone().unwrap_or_else(default_socket);
    let json = args.json;
    match args.verb {
        Verb::Serve { config, state_dir } => serve(config, state_dir, args.socket, json),
        Verb::Enforcer { config } => enforcer(&config, args.socket, json),
        Verb::Check { file, strict } => check(&file, strict, json),
        Verb::Capacity { policy, floor_seconds, jitter_ms } => {
            super::capacity::run(policy.as_deref(), floor_seconds, jitter_ms, json)
        }
        Verb::Session { verb } => session(&socket, verb, json),
        Verb::Allow { name, time, reason, owner, session, ports } => {
            let request = Request::Allow { name, seconds: time.as_secs(), reason, owner, session, ports };
            ask(&socket, &request, json, super::grants::allowed)
        }
        Verb::Grant { verb } => super::grants::run(verb, &socket, json),
        Verb::Observe { follow, last, session, refused } => {
            observe(&socket, &Request::Observe { last, follow, session, refused }, (last, follow), json)
        }
        Verb::Explain { name, qtype, session, config, as_type, exit_code } => {
            let answer = match (session, config) {
                (Some(session), _) => client::ask(&socket, &Request::Explain { name, qtype, session }, PATIENCE)
                    .map_err(|error| refused(&error, json)),
                (None, Some(file)) => match daemon::explain_offline(&file, &name, qtype, as_type) {
                    Ok(value) => Ok(value),
                    Err(daemon::OfflineError::Config(errors)) => Err(config_errors(&errors, json)),
                    Err(daemon::OfflineError::Other(error)) => Err(fail(&error, json)),
                },
                // clap asks for one of the two.
                (None, None) => return Exit::Usage,
            };
            match answer {
                Ok(value) => {
                    print(&value, json, human::explanation);
                    verdict_exit(&value, exit_code)
                }
                Err(exit) => exit,
            }
        }
        Verb::Evaluate(words) => match super::evaluate::run(words) {
            Ok(report) if json => match serde_json::to_string_pretty(&report) {
                Ok(text) => {
                    say(&text);
                    Exit::Ok
                }
                Err(error) => fail(&error.to_string(), json),
            },
            Ok(report) => {
                say(&crate::evaluate::text::report(&report));
                Exit::Ok
            }
            Err(super::evaluate::Failure::Config(errors)) => config_errors(&errors, json),
            Err(super::evaluate::Failure::Other(error)) => fail(&daemon::in_words(&error), json),
        },
        Verb::Why { case } => ask(&socket, &Request::Why { case }, json, human::why),
        Verb::Learn { verb: LearnVerb::Show } => ask(&socket, &Request::Learned, json, human::learned),
        Verb::Learn { verb: LearnVerb::Reset { reason, by } } => {
            let request = Request::ForgetLearned { by: who(by), reason };
            ask(&socket, &request, json, |v| format!("{} pairs forgotten", v["pairs"]))
        }
        Verb::Doctor(words) => {
            let named = args.socket.is_some() || std::env::var_os("STAUNCH_SOCKET").is_some();
            super::doctor::run(words, &socket, named, json)
        }
        Verb::Lockdown { verb } => super::lockdown::run(verb, json),
        Verb::Status => ask(&socket, &Request::Status, json, human::status),
        Verb::Healthcheck(words) => super::healthcheck::run(&words, args.socket.as_deref(), json),
        Verb::Lists { verb } => super::lists::run(verb, &socket, json),
        Verb::Reload => ask_for(&socket, &Request::Reload, RELOAD_PATIENCE, json, human::reloaded),
    }
}

fn session(socket: &Path, verb: SessionVerb, json: bool) -> Exit {
    match verb {
        SessionVerb::Announce { id, address, kind, phase, owner, search } => {
            let announcement = Announcement { id, addresses: address, kind, phase, owner, search };
            ask(socket, &Request::Announce { announcement }, json, |v| human::session_line(&v["session"]))
        }
        SessionVerb::End { id } => {
            ask(socket, &Request::End { session: id }, json, |v| format!("{} ended", human::text(&v["ended"])))
        }
        SessionVerb::List => ask(socket, &Request::List, json, human::sessions),
        SessionVerb::Show { id, exit_code } => match client::ask(socket, &Request::Show { session: id }, PATIENCE) {
            Ok(value) => {
                print(&value, json, human::session);
                if exit_code && value["session"]["state"] == "quarantined" { Exit::Quarantined } else { Exit::Ok }
            }
            Err(error) => refused(&error, json),
        },
        SessionVerb::Quarantine { id, reason, by } => {
            ask(socket, &Request::Quarantine { session: id, by: who(by), reason }, json, human::quarantined)
        }
        SessionVerb::Release { id, by, reason, extend } => {
            let request = Request::Release { session: id, by, reason, extend };
            ask(socket, &request, json, |v| human::released(v, extend))
        }
    }
}

/// Who acts, where it is not said.
pub(super) fn who(by: Option<String>) -> String {
    let user = || std::env::var("USER").ok().filter(|user| !user.trim().is_empty());
    by.or_else(user).unwrap_or_else(|| "operator".into())
}

fn serve(config: Option<PathBuf>, state_dir: Option<PathBuf>, socket: Option<PathBuf>, json: bool) -> Exit {
    match daemon::run(daemon::Start { config, state_dir, socket }) {
        Ok(()) => Exit::Ok,
        Err(daemon::StartError::Config(errors)) => config_errors(&errors, json),
        Err(daemon::StartError::Other(error)) => fail(&daemon::in_words(&error), json),
    }
}

fn enforcer(config: &Path, socket: Option<PathBuf>, json: bool) -> Exit {
    match daemon::run_enforcer(config, socket) {
        Ok(()) => Exit::Ok,
        Err(daemon::StartError::Config(errors)) => config_errors(&errors, json),
        Err(daemon::StartError::Other(error)) => fail(&daemon::in_words(&error), json),
    }
}

fn check(file: &Path, strict: bool, json: bool) -> Exit {
    match config::look_at(file) {
        Ok((loaded, warnings)) => {
            if json {
                let packs: Vec<_> = loaded.pack_reports.iter().map(pack).collect();
                let report = json!({
                    "schema": 1, "valid": true, "digest": loaded.digest(), "warnings": warnings, "packs": packs,
                    "lists": loaded.list_reports,
                });
                say(&report.to_string());
            } else {
                for warning in &warnings {
                    say(&format!("warning: {warning}"));
                }
                for report in &loaded.list_reports {
                    say(&super::lists::line(&json!(report)));
                }
                for report in &loaded.pack_reports {
                    say(&pack_line(report));
                }
                say(&format!("{}: loads; `staunch capacity --policy` tells what it permits", file.display()));
            }
            if strict && !warnings.is_empty() { Exit::Invalid } else { Exit::Ok }
        }
        Err(errors) => config_errors(&errors, json),
    }
}

/// A pack in full.
fn pack(report: &PackReport) -> Value {
    let entries: Vec<_> = report
        .entries
        .iter()
        .map(|entry| {
            let names: Vec<_> = entry.names.iter().map(|(form, _)| form.to_string()).collect();
            json!({
                "id": entry.id, "class": entry.class, "line": entry.line, "names": names, "budget_bits": entry.budget,
                "qtypes": entry.qtypes, "owner": entry.owner, "reason": entry.reason, "review_by": entry.review_by,
            })
        })
        .collect();
    json!({ "id": report.id, "file": report.file, "entries": entries })
}

/// A pack in one line: entries by class.
fn pack_line(report: &PackReport) -> String {
    let mut classes: BTreeMap<&str, usize> = BTreeMap::new();
    for entry in &report.entries {
        *classes.entry(entry.class.as_str()).or_default() += 1;
    }
    let classes: Vec<_> = classes.iter().map(|(class, count)| format!("{class} {count}")).collect();
    format!("pack {} ({}): {} entries: {}", report.id, report.file, report.entries.len(), classes.join(", "))
}

pub(super) fn config_errors(errors: &[config::ConfigError], json: bool) -> Exit {
    if json {
        say(&json!({ "schema": 1, "valid": false, "errors": errors }).to_string());
    } else {
        for error in errors {
            complain(&error.to_string());
        }
    }
    Exit::Invalid
}

fn observe(socket: &Path, request: &Request, (last, follow): (usize, bool), json: bool) -> Exit {
    let timeout = (!follow).then_some(PATIENCE);
    let mut exchange = match Exchange::open(socket, request, timeout) {
        Ok(exchange) => exchange,
        Err(error) => return refused(&error, json),
    };
    match exchange.response() {
        Ok(told) => {
            let matching = told["matching"].as_u64().unwrap_or(0);
            if told["all"] == false && usize::try_from(matching).is_ok_and(|matching| matching < last) {
                let log = told["log"].as_str().map(|file| format!("; older ones are in {file}")).unwrap_or_default();
                complain(&format!(
                    "staunch: the newest {} events are held, {matching} of them match{log}",
                    told["held"]
                ));
            }
        }
        Err(error) => return refused(&error, json),
    }
    loop {
        match exchange.line() {
            Ok(Some(line)) => {
                let Ok(event) = serde_json::from_str::<Value>(&line) else { continue };
                let text = if json { line.trim_end().to_owned() } else { human::event(&event) };
                if !is_said(&text) {
                    return Exit::Ok; // most likely the reader went away
                }
            }
            Ok(None) if follow => {
                fail("the daemon has gone away; what happens from now on is not seen here", json);
                return Exit::Unreachable;
            }
            Ok(None) => return Exit::Ok,
            Err(error) => return refused(&error, json),
        }
    }
}

/// A name that is held is refused where there is nothing to show for it.
fn verdict_exit(value: &Value, by: Option<ExitBy>) -> Exit {
    let verdict = match by {
        None => return Exit::Ok,
        Some(ExitBy::Now) => &value["verdict"],
        Some(ExitBy::Enforced) => &value["would"],
    };
    match (verdict.as_str(), value["reason"].as_str(), value["source"].as_str()) {
        (Some("sinkhole"), Some("quarantined"), _) => Exit::Quarantined,
        (Some("sinkhole" | "quarantine"), ..) | (Some("hold"), _, Some("policy")) => Exit::Denied,
        _ => Exit::Ok,
    }
}

pub(super) fn ask(socket: &Path, request: &Request, json: bool, words: impl Fn(&Value) -> String) -> Exit {
    ask_for(socket, request, PATIENCE, json, words)
}

fn ask_for(socket: &Path, request: &Request, patience: Duration, json: bool, words: impl Fn(&Value) -> String) -> Exit {
    match client::ask(socket, request, patience) {
        Ok(value) => {
            print(&value, json, words);
            match value["packet_filter"] == "behind" {
                true => {
                    complain(BEHIND);
                    Exit::Behind
                }
                false => Exit::Ok,
            }
        }
        Err(error) => refused(&error, json),
    }
}

/// What is said beside the answer where the packet filter is behind.
const BEHIND: &str = "staunch: the packet filter does not hold this yet: what it should close may be open, and what it should \
                      open closed, until it does; `staunch status` tells when";

fn print(value: &Value, json: bool, words: impl Fn(&Value) -> String) {
    say(&if json { value.to_string() } else { words(value) });
}

/// Writes a line. A closed pipe ends the output, not the program with a panic.
pub(super) fn say(text: &str) {
    is_said(text);
}

fn is_said(text: &str) -> bool {
    let written = writeln!(std::io::stdout(), "{text}");
    if let Err(error) = written {
        UNWRITTEN.lock().get_or_insert(error);
        return false;
    }
    true
}

/// Writes a line for people; one that cannot be written ends nothing.
fn complain(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

pub(super) fn refused(error: &client::Error, json: bool) -> Exit {
    match error {
        client::Error::Unreachable { .. } => fail(&format!("{error} {}", other_sockets()), json),
        _ => fail(&error.to_string(), json),
    };
    match error {
        client::Error::Unreachable { .. } => Exit::Unreachable,
        client::Error::Refused { code: ErrorCode::Invalid, .. } => Exit::Invalid,
        client::Error::Refused { code: ErrorCode::BadRequest, .. } => Exit::Usage,
        _ => Exit::Failed,
    }
}

pub(super) fn fail(message: &str, json: bool) -> Exit {
    if json {
        say(&json!({ "schema": 1, "error": message }).to_string());
    } else {
        complain(&format!("staunch: {message}"));
    }
    Exit::Failed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_code_follows_what_becomes_of_a_name() {
        for (verdict, reason, source, now, enforced) in [
            ("answer", "", "upstream", Exit::Ok, Exit::Ok),
            ("answer", "score", "upstream", Exit::Ok, Exit::Denied),
            ("answer", "quarantined", "upstream", Exit::Ok, Exit::Quarantined),
            ("sinkhole", "score", "policy", Exit::Denied, Exit::Denied),
            ("quarantine", "score", "policy", Exit::Denied, Exit::Denied),
            ("hold", "held", "cache", Exit::Ok, Exit::Ok),
            ("hold", "held", "policy", Exit::Denied, Exit::Denied),
            ("sinkhole", "quarantined", "policy", Exit::Quarantined, Exit::Quarantined),
        ] {
            let would = if verdict == "answer" && !reason.is_empty() { "sinkhole" } else { verdict };
            let value = json!({ "verdict": verdict, "would": would, "reason": reason, "source": source });
            let exits = [None, Some(ExitBy::Now), Some(ExitBy::Enforced)].map(|by| verdict_exit(&value, by));
            assert_eq!(exits, [Exit::Ok, now, enforced], "{value}");
        }
    }

    #[test]
    fn a_daemon_that_does_not_answer_is_a_failure_and_not_an_absence() {
        let path = PathBuf::from("/run/staunch/admin.sock");
        let silent = client::Error::Silent { path: path.clone(), patience: PATIENCE };
        assert_eq!(refused(&silent, false), Exit::Failed);
        let absent = client::Error::Unreachable { path, source: std::io::ErrorKind::NotFound.into() };
        assert_eq!(refused(&absent, false), Exit::Unreachable);
    }
}
