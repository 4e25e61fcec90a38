//! Readiness: whether what the service promises to sandboxes holds now, and what is withheld from them while it does not.
//!
//! [`judge`] is pure: facts in, one line a check out. [`Gate`] keeps the last report and is asked on the query path.
//! [`ask`] puts a question to our own listening sockets. The daemon gathers the facts, every few seconds, by way of
//! [`crate::enforce::Enforcer`] alone, so that it works wherever the packet filter is held. It knows no session.

pub mod ask;
mod judge;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

pub use judge::{Facts, Listeners, Records, judge};

/// How often the facts are gathered. Chosen so that a lockdown that is gone is noticed "within seconds", at the price of
/// reading its tables (a few milliseconds of the packet filter's owner) as often.
pub const EVERY: Duration = Duration::from_secs(5);

/// How long a good report counts. Whoever gathers facts and hangs must not leave the gate open for ever; three rounds are
/// what a busy machine may lose.
pub const COUNTS: Duration = Duration::from_secs(16);

/// Checks of the packet filter itself.
const PACKET_FILTER: &str = "packet-filter";
const RANGES: &str = "ranges";

/// What the service wants of the lockdown ([`crate::lockdown`]), which an operator applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Need {
    /// Not ready without it, and enforced sessions get nothing that is not at hand here.
    Require,
    /// Ready without it, with a warning.
    Warn,
    /// Not looked at.
    Off,
}

/// Settings of this stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lockdown {
    /// How much it matters.
    pub need: Need,
    /// Its nftables table.
    pub table: String,
    /// Interfaces it must cover, as they are written in `[enforce]`.
    pub interfaces: Vec<String>,
}

/// How one check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It holds.
    Ok,
    /// It does not, and the service is not ready.
    Failed,
    /// It does not, and the configuration says to go on.
    Warned,
    /// Nobody looked.
    NotChecked,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// `packet-filter`, `ranges`, `lockdown`, `listeners`, `records`; `round` where the last round is too long ago to count.
    pub id: String,
    /// How it ended.
    pub state: State,
    /// What was found, in words.
    pub text: String,
}

/// All checks of one round.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Whether the service should get new sandboxes.
    pub ready: bool,
    /// Whether every way out was found closed as far as the service can tell: the lockdown stands and covers every interface.
    pub whole: bool,
    /// The checks.
    pub checks: Vec<Check>,
}

impl Report {
    /// Whether a check did not find what is wanted.
    fn lacks(&self, id: &str) -> bool {
        self.checks.iter().any(|check| check.id == id && matches!(check.state, State::Failed | State::Warned))
    }

    /// What is missing, in one line; `None` where nothing is.
    pub fn missing(&self) -> Option<String> {
        let failed: Vec<_> =
            self.checks.iter().filter(|check| check.state == State::Failed).map(|check| &*check.text).collect();
        match (failed.is_empty(), self.ready) {
            (true, true) => None,
            (true, false) => Some("nothing was checked yet".into()),
            (false, _) => Some(failed.join("; ")),
        }
    }
}

/// The last report.
#[derive(Debug, Default)]
pub struct Gate {
    report: Mutex<Report>,
    /// Until when the last report counts at all, on the monotonic clock; 0: there was none.
    counts_until: AtomicU64,
    /// Until when the last report says that all is whole, on the monotonic clock; 0: it does not.
    whole_until: AtomicU64,
    /// Whether the packet filter itself was found to lack something.
    filter_lacks: AtomicBool,
    /// Whether a supervisor was told that the service is ready.
    announced: AtomicBool,
    nudge: tokio::sync::Notify,
}

impl Gate {
    /// Takes a round's report, made at `mono` milliseconds on the monotonic clock.
    pub fn put(&self, report: Report, mono: u64) {
        let until = mono.saturating_add(COUNTS.as_millis() as u64);
        let mut last = self.report.lock();
        self.whole_until.store(if report.whole { until } else { 0 }, Relaxed);
        self.filter_lacks.store(report.lacks(PACKET_FILTER) || report.lacks(RANGES), Relaxed);
        self.counts_until.store(until, Relaxed);
        *last = report;
    }

    /// Whether all was found whole not long ago: one load, for the query path.
    pub fn is_whole(&self, mono: u64) -> bool {
        mono < self.whole_until.load(Relaxed)
    }

    /// What a session is told while not all is whole. Without the packet filter the lockdown may stand, and cannot be looked at.
    pub fn withheld(&self) -> &'static str {
        match self.filter_lacks.load(Relaxed) {
            true => "the packet filter does not hold what was ordered; nothing is answered until it does",
            false => "the sandbox's other ways out are not closed; nothing is answered until they are",
        }
    }

    /// The last report, as good as it is at `mono`: behind [`COUNTS`] it says neither that the service is ready nor that all
    /// is whole, whatever was found.
    pub fn report(&self, mono: u64) -> Report {
        let last = self.report.lock();
        let mut report = last.clone();
        let until = self.counts_until.load(Relaxed);
        if until > 0 && mono >= until {
            let text = format!("nothing was checked for {} s", COUNTS.as_secs());
            (report.ready, report.whole) = (false, false);
            report.checks.push(Check { id: "round".into(), state: State::Failed, text });
        }
        report
    }

    /// Notes that a supervisor was told that the service is ready.
    pub fn announce(&self) {
        self.announced.store(true, Relaxed);
    }

    /// Whether one was. Before that no reload may look like the end of the start.
    pub fn is_announced(&self) -> bool {
        self.announced.load(Relaxed)
    }

    /// Has the next round begin at once. Never blocks.
    pub fn nudge(&self) {
        self.nudge.notify_one();
    }

    /// Waits until the next round is due, or somebody [nudges](Self::nudge).
    pub async fn due(&self) {
        let _ = tokio::time::timeout(EVERY, self.nudge.notified()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_good_report_counts_for_a_while_and_a_bad_one_not_at_all() {
        let gate = Gate::default();
        assert!(!gate.is_whole(0) && gate.report(0).missing().is_some(), "nothing was checked");
        let good = Report { ready: true, whole: true, checks: Vec::new() };
        gate.put(good, 1000);
        assert!(gate.is_whole(1000) && gate.is_whole(16_999) && !gate.is_whole(17_000));
        let check = Check { id: "lockdown".into(), state: State::Failed, text: "it is missing".into() };
        gate.put(Report { ready: false, whole: false, checks: vec![check] }, 2000);
        assert!(!gate.is_whole(2000));
        assert_eq!(gate.report(2000).missing().as_deref(), Some("it is missing"));
    }

    #[test]
    fn what_a_session_is_told_is_what_is_missing() {
        let gate = Gate::default();
        for (lacks, word) in [("lockdown", "ways out"), ("packet-filter", "packet filter"), ("ranges", "packet filter")]
        {
            let check = |id: &str, state| Check { id: id.into(), state, text: String::new() };
            // An enforcer that is gone has nobody left to look at the lockdown.
            let unread = check("lockdown", State::Failed);
            let checks = vec![check("packet-filter", State::Ok), check(lacks, State::Failed), unread];
            gate.put(Report { ready: false, whole: false, checks }, 1000);
            assert!(gate.withheld().contains(word), "{lacks}: {}", gate.withheld());
        }
    }

    #[test]
    fn a_report_that_is_too_old_is_ready_no_longer_and_says_so() {
        let gate = Gate::default();
        assert_eq!(gate.report(u64::MAX).missing().as_deref(), Some("nothing was checked yet"));
        gate.put(Report { ready: true, whole: true, checks: Vec::new() }, 1000);
        let report = gate.report(16_999);
        assert!(report.ready && report.whole && report.missing().is_none(), "{report:?}");
        let report = gate.report(17_000);
        assert!(!report.ready && !report.whole, "{report:?}");
        assert_eq!(report.missing().as_deref(), Some("nothing was checked for 16 s"));
        gate.put(Report { ready: true, whole: false, checks: Vec::new() }, 20_000);
        assert!(gate.report(20_000).ready && gate.report(20_000).missing().is_none(), "the next round counts");
        assert!(!gate.report(36_000).ready, "and no longer than any other, though it was not whole");
    }
}
