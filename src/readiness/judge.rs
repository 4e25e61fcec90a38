//! From facts to a report.

use super::{Check, Lockdown, Need, PACKET_FILTER, RANGES, Report, State};
use crate::enforce::BackendKind;
use crate::lockdown::Standing;
use crate::model::Mode;

/// What was found in one round.
#[derive(Debug)]
pub struct Facts<'a> {
    /// How far verdicts are applied.
    pub mode: Mode,
    /// Which packet filter.
    pub backend: BackendKind,
    /// Whether it holds what was ordered.
    pub healthy: bool,
    /// Whether the written ranges are in it; or why not.
    pub ranges: Result<(), String>,
    /// What is wanted of the lockdown.
    pub lockdown: &'a Lockdown,
    /// How the lockdown stands; or why that is not known. `None`: nobody looked.
    pub standing: Option<Result<Standing, String>>,
    /// What our own sockets answered.
    pub listeners: Listeners,
    /// What cannot be written down.
    pub records: Records,
}

/// Which records the disk does not take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Records {
    /// Decisions: a crash would lose quarantines and alerts.
    pub journal: bool,
    /// The index, which is built anew at the next start.
    pub index: bool,
    /// Events, which wait in memory as far as there is room.
    pub events: bool,
    /// What waits in the journal for a receiver of alerts, which has taken none for long.
    pub held: bool,
    /// All of it goes to a directory that is no longer where it was opened.
    pub astray: bool,
}

/// What our own listening sockets answered in one round.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listeners {
    /// Addresses and transports that gave no answer, in words.
    pub silent: Vec<String>,
    /// How many were asked.
    pub all: usize,
    /// Whether a silence does not count yet: told all the same.
    pub excused: bool,
}

/// The report. Verdicts of monitor mode are not applied, so that nothing of the packet filter is needed for it.
pub fn judge(facts: &Facts<'_>) -> Report {
    let checks = vec![filter(facts), ranges(facts), lockdown(facts), listeners(facts), records(facts)];
    let failed = |id: &str| checks.iter().any(|check| check.id == id && check.state != State::Ok);
    Report {
        ready: checks.iter().all(|check| check.state != State::Failed),
        whole: !failed(PACKET_FILTER) && !failed(RANGES) && !failed("lockdown"),
        checks,
    }
}

fn check(id: &str, state: State, text: impl Into<String>) -> Check {
    Check { id: id.into(), state, text: text.into() }
}

/// A failure where verdicts are applied, else worth a word.
fn by_mode(mode: Mode) -> State {
    if mode == Mode::Monitor { State::Warned } else { State::Failed }
}

fn filter(facts: &Facts<'_>) -> Check {
    let id = PACKET_FILTER;
    match (facts.backend, facts.healthy) {
        (BackendKind::Off, _) => check(id, State::NotChecked, "no packet filter is used"),
        (BackendKind::DryRun, true) => check(id, State::NotChecked, "dry-run: nothing is enforced"),
        (BackendKind::Nft, true) => check(id, State::Ok, "the packet filter holds what was ordered"),
        (BackendKind::Hook, true) => check(id, State::Ok, "the hook command has taken what was ordered"),
        (_, false) => check(id, by_mode(facts.mode), "the packet filter does not hold what was ordered"),
    }
}

fn ranges(facts: &Facts<'_>) -> Check {
    let id = RANGES;
    match &facts.ranges {
        _ if matches!(facts.backend, BackendKind::DryRun | BackendKind::Off) => {
            check(id, State::NotChecked, "no packet filter is used")
        }
        Ok(()) => check(id, State::Ok, "written ranges are those of the configuration"),
        Err(why) => check(id, by_mode(facts.mode), format!("written ranges are not in place: {why}")),
    }
}

fn lockdown(facts: &Facts<'_>) -> Check {
    let (id, wanted) = ("lockdown", facts.lockdown);
    let weak = match (wanted.need, facts.mode) {
        (Need::Off, _) => return check(id, State::NotChecked, "lockdown = \"off\": nobody looks whether it stands"),
        (Need::Require, mode) => by_mode(mode),
        (Need::Warn, _) => State::Warned,
    };
    let standing = match &facts.standing {
        None => return check(id, State::NotChecked, "without nftables there is none to look at"),
        Some(Err(why)) => return check(id, weak, format!("whether the lockdown stands cannot be read: {why}")),
        Some(Ok(standing)) => standing,
    };
    let mut problems = standing.problems.clone();
    if standing.stands {
        // A lockdown that only watches lets everything pass, the flows of enforced sessions too.
        if standing.mode.as_deref() != Some("enforce") && facts.mode != Mode::Monitor {
            problems.push(format!("it was applied in {} mode", standing.mode.as_deref().unwrap_or("another")));
        }
        let port = |name: &String| standing.ports.contains(name);
        let open = wanted.interfaces.iter().filter(|name| !standing.covers(name) && !port(name));
        problems.extend(open.map(|name| format!("it does not cover {name}")));
    }
    if problems.is_empty() {
        return check(id, State::Ok, format!("the lockdown ({}) stands and covers every interface", wanted.table));
    }
    let what = problems.join(", ");
    check(id, weak, format!("the lockdown ({}) does not hold: {what}; run `staunch lockdown apply`", wanted.table))
}

fn listeners(facts: &Facts<'_>) -> Check {
    let (id, Listeners { silent, all, excused }) = ("listeners", &facts.listeners);
    if silent.is_empty() {
        return check(id, State::Ok, format!("{all} listening sockets answer"));
    }
    let state = if *excused { State::Ok } else { by_mode(facts.mode) };
    let yet = if *excused { ", which counts if it lasts" } else { "" };
    check(id, state, format!("no answer from our own {}{yet}", silent.join(", ")))
}

/// Questions are answered all the same, so this is no reason to show no address; but nobody should be sent to a service whose
/// quarantines would not outlive it.
fn records(facts: &Facts<'_>) -> Check {
    let Records { journal, index, events, held, astray } = facts.records;
    if astray {
        let text =
            "the state directory was removed or replaced: what is decided now is lost with this process; restart it";
        return check("records", by_mode(facts.mode), text);
    }
    if held && !journal {
        let text = "a receiver of alerts has taken none for long, and the journal is kept for it: the oldest alerts are given \
                    up if that goes on; `staunch status` says which";
        return check("records", by_mode(facts.mode), text);
    }
    let failing: Vec<_> = [(journal, "decisions (the journal)"), (index, "the index"), (events, "events")]
        .into_iter()
        .filter_map(|(fails, what)| fails.then_some(what))
        .collect();
    let state = match (journal, index || events) {
        (true, _) => by_mode(facts.mode),
        (false, true) => State::Warned,
        (false, false) => return check("records", State::Ok, "the disk takes what is recorded"),
    };
    check("records", state, format!("the disk does not take {}: look at its room and its health", failing.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing() -> Standing {
        Standing {
            stands: true,
            mode: Some("enforce".into()),
            digest: None,
            plan_digest: None,
            tables: Vec::new(),
            interfaces: vec!["ag*".into()],
            ports: vec!["veth1".into()],
            problems: Vec::new(),
        }
    }

    fn wanted(need: Need, interfaces: &[&str]) -> Lockdown {
        let interfaces = interfaces.iter().map(|name| (*name).to_owned()).collect();
        Lockdown { need, table: "staunch_lockdown".into(), interfaces }
    }

    fn facts(lockdown: &Lockdown, standing: Result<Standing, String>) -> Facts<'_> {
        Facts {
            mode: Mode::Enforce,
            backend: BackendKind::Nft,
            healthy: true,
            ranges: Ok(()),
            lockdown,
            standing: Some(standing),
            listeners: Listeners { all: 2, ..Listeners::default() },
            records: Records::default(),
        }
    }

    fn outcome(facts: &Facts<'_>, id: &str) -> (bool, bool, State) {
        let report = judge(facts);
        let check = report.checks.iter().find(|check| check.id == id).expect("the check");
        (report.ready, report.whole, check.state)
    }

    #[test]
    fn a_lockdown_that_stands_is_wanted_as_much_as_is_written() {
        let missing = || Standing { stands: false, problems: vec!["it is missing".into()], ..standing() };
        let monitored = || Standing { mode: Some("monitor".into()), ..standing() };
        for (need, interfaces, found, wanted_outcome, why) in [
            (Need::Require, &["ag1", "veth1"][..], Ok(standing()), (true, true, State::Ok), "stands and covers"),
            (Need::Require, &["ag1", "other0"], Ok(standing()), (false, false, State::Failed), "an interface is open"),
            (Need::Warn, &["ag1", "other0"], Ok(standing()), (true, false, State::Warned), "warned"),
            (Need::Require, &["ag1"], Ok(missing()), (false, false, State::Failed), "missing"),
            (Need::Warn, &["ag1"], Ok(missing()), (true, false, State::Warned), "missing, warned"),
            (Need::Off, &["ag1"], Ok(missing()), (true, false, State::NotChecked), "off"),
            (Need::Require, &["ag1"], Ok(monitored()), (false, false, State::Failed), "only watches"),
            (Need::Require, &["ag1"], Err("no".into()), (false, false, State::Failed), "unread"),
        ] {
            let wanted = wanted(need, interfaces);
            assert_eq!(outcome(&facts(&wanted, found), "lockdown"), wanted_outcome, "{why}");
        }
    }

    #[test]
    fn monitor_mode_is_ready_without_any_of_it() {
        let wanted = wanted(Need::Require, &["ag1"]);
        let mut facts = facts(&wanted, Err("no".into()));
        (facts.mode, facts.healthy, facts.listeners.silent) =
            (Mode::Monitor, false, vec!["127.0.0.1:53 over TCP".into()]);
        let report = judge(&facts);
        assert!(report.ready && !report.whole);
        assert!(report.checks.iter().filter(|check| check.state == State::Warned).count() >= 3, "{report:?}");
    }

    #[test]
    fn what_else_is_missing_is_told() {
        let wanted = wanted(Need::Require, &["ag1"]);
        let mut ill = facts(&wanted, Ok(standing()));
        ill.healthy = false;
        assert_eq!(outcome(&ill, "packet-filter"), (false, false, State::Failed));
        let mut late = facts(&wanted, Ok(standing()));
        late.ranges = Err("the queue is full".into());
        assert_eq!(outcome(&late, "ranges"), (false, false, State::Failed));
        let mut silent = facts(&wanted, Ok(standing()));
        silent.listeners.silent = vec!["10.0.0.1:53 over UDP".into()];
        let mut full = facts(&wanted, Ok(standing()));
        full.records = Records { events: true, ..Records::default() };
        assert_eq!(outcome(&full, "records"), (true, true, State::Warned));
        full.records.journal = true;
        assert_eq!(outcome(&full, "records"), (false, true, State::Failed), "addresses are shown all the same");
        assert!(judge(&full).missing().expect("told").contains("decisions (the journal), events"));
        full.records = Records { held: true, ..Records::default() };
        assert_eq!(outcome(&full, "records"), (false, true, State::Failed), "alerts are about to be given up");
        full.records = Records { astray: true, ..Records::default() };
        assert_eq!(outcome(&full, "records"), (false, true, State::Failed));
        // The way out is closed all the same: addresses may be shown to whoever can ask.
        assert_eq!(outcome(&silent, "listeners"), (false, true, State::Failed));
        assert!(judge(&silent).missing().expect("told").contains("10.0.0.1:53 over UDP"));
        // A sandbox may keep one busy for a moment: it does not count, and nobody says that all have answered.
        silent.listeners.excused = true;
        assert_eq!(outcome(&silent, "listeners"), (true, true, State::Ok));
        let report = judge(&silent);
        let text = &report.checks.iter().find(|check| check.id == "listeners").expect("the check").text;
        assert_eq!(text, "no answer from our own 10.0.0.1:53 over UDP, which counts if it lasts");
    }
}
