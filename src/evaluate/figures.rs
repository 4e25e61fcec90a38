//! The figures of a report, as written.
//!
//! Data, and the two kinds of summary it is made of; [`super::count`] fills it. Counts are exact, other numbers have four
//! digits.

use std::collections::BTreeMap;

use serde::Serialize;
use staunch_scoring::Bits;

use super::corpus::Label;
use super::rates::{Rate, rounded};
use crate::event::Verdict;
use crate::model::{Qtype, Reason};

/// The middle and the worst of some sessions.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// The upper middle one; `None` where that is never.
    pub median: Option<u64>,
    /// The largest; `None` where some session's is never.
    pub max: Option<u64>,
    /// Sessions in which it never came to it.
    pub never: u64,
}

impl Spread {
    pub(super) fn of(values: impl IntoIterator<Item = Option<u64>>) -> Self {
        let mut values: Vec<u64> = values.into_iter().map(|value| value.unwrap_or(u64::MAX)).collect();
        values.sort_unstable();
        let shown = |value: Option<&u64>| value.copied().filter(|value| *value != u64::MAX);
        let never = values.iter().filter(|value| **value == u64::MAX).count() as u64;
        Self { median: shown(values.get(values.len() / 2)), max: shown(values.last()), never }
    }
}

/// One tool over all its sessions.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ToolFigures {
    /// Its name in the logs.
    pub tool: String,
    /// Its label.
    pub label: Label,
    /// Sessions.
    pub sessions: u64,
    /// True bits of a forwarded query, where the sidecar says so; else five bits a character were counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub true_bits: Option<f64>,
    /// Query at which something was not simply answered.
    pub first_action: Spread,
    /// Query that closed the session.
    pub quarantine: Spread,
    /// Payload octets that had left before the first action; all of them where there was none.
    pub bytes_before_action: Spread,
    /// Payload octets that had left before the session was closed; all of them where it was not.
    pub bytes_before_stop: Spread,
}

/// One tool in one session.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AttackFigures {
    /// The session.
    pub session: String,
    /// The tool.
    pub tool: String,
    /// Its label.
    pub label: Label,
    /// Whether the log has times; without, a second was taken between two queries.
    pub timed: bool,
    /// Queries judged.
    pub queries: u64,
    /// Queries forwarded.
    pub forwarded: u64,
    /// Ticks in which held names were asked again.
    #[serde(skip_serializing_if = "is_zero")]
    pub ticks: u64,
    /// The first query that was not simply answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_action: Option<u64>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_reason: Option<Reason>,
    /// The query that closed the session, or the first one after that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quarantine: Option<u64>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quarantine_reason: Option<Reason>,
    /// Payload octets that had left before the first action.
    pub bytes_before_action: u64,
    /// Payload octets that left in all.
    pub bytes_out: u64,
    /// Bits the ledger charged for what left.
    pub charged_bits: f64,
    /// What goes on leaving, where the session was never closed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub residual: Option<Residual>,
}

/// What a channel that is not stopped goes on to carry.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Residual {
    /// Hours recorded.
    pub hours: f64,
    /// Payload bits an hour over the whole recording; over one hour where it is shorter.
    pub bits_per_hour: f64,
    /// Payload bits in the last hour, where a whole one was recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_hour_bits: Option<f64>,
    /// Most payload bits in any hour.
    pub worst_hour_bits: f64,
}

/// Rates of one policy.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Rates {
    /// Rates of what is to be let through, by label.
    pub benign: Vec<BenignRates>,
    /// Rates of what is to be stopped, by label.
    pub attack: Vec<AttackRates>,
}

/// How much of what is to be let through is not.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BenignRates {
    /// The label.
    pub label: Label,
    /// Pairs of session and tenant with a name refused while the session was open.
    pub pairs_refused: Rate,
    /// Of them, those refused by the score or a ledger, and not by a rule, a list, the type or the form of the name.
    pub pairs_judged: Rate,
    /// All of them by reason of the first refusal.
    pub by_reason: BTreeMap<&'static str, u64>,
    /// Pairs that lost queries to a closed session and were not refused before.
    pub pairs_collateral: u64,
    /// Sessions without an attack in which something was refused.
    pub sessions_refused: Rate,
    /// Sessions without an attack that were closed.
    pub sessions_quarantined: Rate,
    /// Queries held, answered with what was stale.
    pub queries_held: Rate,
    /// Queries held with nothing to answer, refused.
    pub queries_held_empty: u64,
}

/// How much of what is to be stopped is not.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AttackRates {
    /// The label.
    pub label: Label,
    /// Attacks (session and tool) with at least one query not simply answered.
    pub detected: Rate,
    /// Attacks in which every query was simply answered.
    pub missed: Rate,
    /// Attacks whose session was not closed.
    pub not_quarantined: Rate,
    /// Pairs of session and tenant in which nothing was refused.
    pub pairs_missed: Rate,
}

/// A refusal of what is to be let through.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FalseAlarm {
    /// The session.
    pub session: String,
    /// The registrable domain.
    pub tenant: String,
    /// The label.
    pub label: Label,
    /// The tool.
    pub tool: String,
    /// Which query of the session, from 1.
    pub query: u64,
    /// Its type.
    pub qtype: Qtype,
    /// What was done.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// The rule or list that refused, by its id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The score, nats.
    pub score: f64,
    /// Families that agreed.
    pub agreeing: u8,
    /// Signals that spoke: value, and contribution in nats.
    pub readings: BTreeMap<&'static str, (Option<f64>, f64)>,
    /// Bits in the name.
    pub information_bits: f64,
    /// Bits spent under the tenant before.
    pub tenant_bits: f64,
    /// Bits spent under the ICANN-level domain before.
    pub icann_bits: f64,
    /// Bits spent by the session before.
    pub session_bits: f64,
}

/// One kind of look-alike.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OddFigures {
    /// The tool.
    pub tool: String,
    /// Sessions.
    pub sessions: u64,
    /// Sessions closed.
    pub quarantined: u64,
    /// Queries judged.
    pub judged: u64,
    /// Queries refused, those of a closed session included.
    pub refused: u64,
    /// The first refusal, as a query of its session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_refusal: Option<u64>,
    /// Its reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
}

/// How much of the ledger ordinary sessions use.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LedgerUse {
    /// Sessions counted: benign, without an attack.
    pub sessions: u64,
    /// Limit of the session account, bits.
    pub limit_bits: f64,
    /// Bits spent over unlisted domains: quantiles.
    pub spent_bits: Quantiles,
    /// Bits spent on exact names and below rules: quantiles.
    pub listed_bits: Quantiles,
}

/// Points of a distribution.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Quantiles {
    /// Half is below.
    pub q50: f64,
    /// Nine in ten.
    pub q90: f64,
    /// 95 in a hundred.
    pub q95: f64,
    /// 99 in a hundred.
    pub q99: f64,
    /// The largest.
    pub max: f64,
}

/// The few numbers that variants of a policy are compared by.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Headline {
    /// Query at first action, median over attacks with label tunnel.
    pub tunnel_first_action: Option<u64>,
    /// Most payload octets that left in an attack with label tunnel.
    pub tunnel_worst_bytes: u64,
    /// Query at first action, median over attacks with label lowslow.
    pub lowslow_first_action: Option<u64>,
    /// Most payload octets that left in an attack with label lowslow.
    pub lowslow_worst_bytes: u64,
    /// Attacks with label lowslow that were not closed.
    pub lowslow_open: u64,
    /// Benign pairs refused by the score or a ledger.
    pub pairs_judged: Rate,
    /// Benign sessions closed.
    pub sessions_quarantined: u64,
}

impl Quantiles {
    pub(super) fn of(values: impl Iterator<Item = Bits>) -> Self {
        let mut values: Vec<Bits> = values.collect();
        values.sort_unstable();
        let last = values.len().saturating_sub(1);
        let at = |share: f64| {
            let index = ((last as f64 * share).round() as usize).min(last);
            values.get(index).map_or(0.0, |bits| rounded(bits.as_f64()))
        };
        Self { q50: at(0.5), q90: at(0.9), q95: at(0.95), q99: at(0.99), max: at(1.0) }
    }
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_is_later_than_any_query() {
        let spread = Spread::of([Some(4), None, Some(2)]);
        assert_eq!(spread, Spread { median: Some(4), max: None, never: 1 });
        assert_eq!(Spread::of([Some(1), None]).median, None, "of two the later one");
        assert_eq!(Spread::of([]), Spread { median: None, max: None, never: 0 });
    }

    #[test]
    fn quantiles_of_few_and_none() {
        let all = Quantiles::of((1..=101).rev().map(Bits::whole));
        assert_eq!((all.q50, all.q90, all.q99, all.max), (51.0, 91.0, 100.0, 101.0));
        assert_eq!(Quantiles::of(std::iter::empty()).max, 0.0);
    }
}
