//! Runs of sessions, put into figures.
//!
//! [`super::replay`] says what became of each session; here it is counted by tool, by pair and by session. Plain
//! arithmetic: knows no policy and reads no file. Counts are exact, other numbers have four digits.

use std::collections::BTreeMap;

use serde::Serialize;
use staunch_scoring::Bits;

use super::corpus::{Corpus, Label, Session};
use super::rates::{Rate, rounded};
use super::replay::{AttackRun, Counts, Left, PairRun, SessionRun, Stop};
use super::true_bits::TrueBits;
use crate::event::Verdict;
use crate::model::{Qtype, Reason};

const HOUR_MS: u64 = 3_600_000;

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
    fn of(values: impl IntoIterator<Item = Option<u64>>) -> Self {
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
    /// Benign pairs refused.
    pub pairs_refused: Rate,
    /// Benign sessions closed.
    pub sessions_quarantined: u64,
}

/// Runs beside the sessions they are of, in the same order.
#[derive(Clone, Copy)]
pub struct Runs<'r> {
    /// What was read.
    pub corpus: &'r Corpus,
    /// What became of it.
    pub runs: &'r [SessionRun],
    /// What the schemes carry.
    pub true_bits: &'r TrueBits,
}

impl<'r> Runs<'r> {
    fn each(self) -> impl Iterator<Item = (&'r Session, &'r SessionRun)> {
        self.corpus.sessions.iter().zip(self.runs)
    }

    fn attacks(self, label: Option<Label>) -> impl Iterator<Item = (&'r Session, &'r AttackRun)> {
        self.each()
            .flat_map(|(session, run)| run.attacks.iter().map(move |attack| (session, attack)))
            .filter(move |(_, attack)| label.is_none_or(|label| attack.label == label))
    }

    fn pairs(self, label: Label) -> impl Iterator<Item = (&'r Session, &'r PairRun)> {
        self.each()
            .flat_map(|(session, run)| run.pairs.iter().map(move |pair| (session, pair)))
            .filter(move |(_, pair)| pair.label == label)
    }

    /// Sessions with rows of this label and without an attack.
    fn peaceful(self, label: Label) -> impl Iterator<Item = (&'r Session, &'r SessionRun)> {
        self.each()
            .filter(move |(session, run)| !session.has_attack() && run.pairs.iter().any(|pair| pair.label == label))
    }

    fn tool(self, tool: u16) -> &'r str {
        self.corpus.tools.get(usize::from(tool)).map_or("-", |tool| tool)
    }

    fn octets(self, attack: &AttackRun, left: Left) -> u64 {
        octets(left.bits(self.true_bits.of(self.tool(attack.tool))))
    }

    fn before_action(self, attack: &AttackRun) -> u64 {
        self.octets(attack, attack.first_action.map_or(attack.left, |stop| stop.left))
    }

    /// By tool and label, in order of label and name.
    pub fn tools(self) -> Vec<ToolFigures> {
        let mut tools: BTreeMap<(Label, &str), Vec<&AttackRun>> = BTreeMap::new();
        for (_, attack) in self.attacks(None) {
            tools.entry((attack.label, self.tool(attack.tool))).or_default().push(attack);
        }
        let figures = tools.into_iter().map(|((label, tool), all)| ToolFigures {
            tool: tool.into(),
            label,
            sessions: all.len() as u64,
            true_bits: self.true_bits.of(tool),
            first_action: Spread::of(all.iter().map(|attack| query(attack.first_action))),
            quarantine: Spread::of(all.iter().map(|attack| query(attack.quarantine))),
            bytes_before_action: Spread::of(all.iter().map(|attack| Some(self.before_action(attack)))),
            bytes_before_stop: Spread::of(all.iter().map(|attack| Some(self.octets(attack, attack.left)))),
        });
        figures.collect()
    }

    /// Every attack, in order of session.
    pub fn attack_figures(self) -> Vec<AttackFigures> {
        let figures = self.attacks(None).map(|(session, attack)| AttackFigures {
            session: session.id.to_string(),
            tool: self.tool(attack.tool).into(),
            label: attack.label,
            timed: session.timed,
            queries: attack.queries,
            forwarded: attack.left.queries,
            ticks: attack.left.ticks,
            first_action: query(attack.first_action),
            first_reason: attack.first_action.map(|stop| stop.reason),
            quarantine: query(attack.quarantine),
            quarantine_reason: attack.quarantine.map(|stop| stop.reason),
            bytes_before_action: self.before_action(attack),
            bytes_out: self.octets(attack, attack.left),
            charged_bits: rounded(attack.charged.as_f64()),
            residual: (attack.quarantine.is_none() && session.timed).then(|| self.residual(attack)),
        });
        figures.collect()
    }

    fn residual(self, attack: &AttackRun) -> Residual {
        let per_query = self.true_bits.of(self.tool(attack.tool));
        let (first, last) = attack.span;
        let sent = &attack.forwarded;
        let hours = (last - first) as f64 / HOUR_MS as f64;
        let since = last.saturating_sub(HOUR_MS);
        let mut last_hour = Left::default();
        sent.iter().filter(|one| one.at >= since).for_each(|one| last_hour.add(*one));
        // The fullest hour begins with a forwarded query.
        let mut worst = 0.0_f64;
        let mut end = 0;
        let mut within = Left::default();
        for begin in sent {
            while let Some(next) = sent.get(end).filter(|next| next.at < begin.at + HOUR_MS) {
                within.add(*next);
                end += 1;
            }
            worst = worst.max(within.bits(per_query));
            within.take(*begin);
        }
        Residual {
            hours: rounded(hours),
            bits_per_hour: rounded(attack.left.bits(per_query) / hours.max(1.0)),
            last_hour_bits: (last - first >= HOUR_MS).then_some(rounded(last_hour.bits(per_query))),
            worst_hour_bits: rounded(worst),
        }
    }

    /// Rates by label, for labels that occur.
    pub fn rates(self) -> Rates {
        let occurs = |label: &Label| self.pairs(*label).next().is_some();
        let (attack, benign): (Vec<_>, Vec<_>) =
            Label::ALL.into_iter().filter(occurs).partition(|label| label.is_attack());
        Rates {
            benign: benign.into_iter().map(|label| self.benign_rates(label)).collect(),
            attack: attack.into_iter().map(|label| self.attack_rates(label)).collect(),
        }
    }

    fn benign_rates(self, label: Label) -> BenignRates {
        let pairs: Vec<_> = self.pairs(label).map(|(_, pair)| pair).collect();
        let mut by_reason = BTreeMap::new();
        for alarm in pairs.iter().filter_map(|pair| pair.refused.as_ref()) {
            *by_reason.entry(alarm.reason.as_str()).or_default() += 1;
        }
        let sessions: Vec<_> = self.peaceful(label).map(|(_, run)| run).collect();
        let refused = |run: &&&SessionRun| run.pairs.iter().any(|pair| pair.refused.is_some());
        let counts = sessions.iter().fold(Counts::default(), |sum, run| Counts {
            judged: sum.judged + run.benign.judged,
            held: sum.held + run.benign.held,
            held_empty: sum.held_empty + run.benign.held_empty,
            ..sum
        });
        let of = sessions.len() as u64;
        let judged =
            pairs.iter().filter_map(|pair| pair.refused.as_ref()).filter(|alarm| is_judged(alarm.reason)).count();
        BenignRates {
            label,
            pairs_judged: Rate::new(judged as u64, pairs.len() as u64),
            pairs_refused: Rate::new(by_reason.values().sum(), pairs.len() as u64),
            by_reason,
            pairs_collateral: pairs.iter().filter(|pair| pair.refused.is_none() && pair.closed > 0).count() as u64,
            sessions_refused: Rate::new(sessions.iter().filter(refused).count() as u64, of),
            sessions_quarantined: Rate::new(closed(&sessions), of),
            queries_held: Rate::new(counts.held, counts.judged),
            queries_held_empty: counts.held_empty,
        }
    }

    fn attack_rates(self, label: Label) -> AttackRates {
        let attacks: Vec<_> = self.attacks(Some(label)).map(|(_, attack)| attack).collect();
        let of = attacks.len() as u64;
        let missed = attacks.iter().filter(|attack| attack.first_action.is_none()).count() as u64;
        let open = attacks.iter().filter(|attack| attack.quarantine.is_none()).count() as u64;
        let pairs: Vec<_> = self.pairs(label).map(|(_, pair)| pair).collect();
        let through = pairs.iter().filter(|pair| pair.refused.is_none() && pair.closed == 0).count() as u64;
        AttackRates {
            label,
            detected: Rate::new(of - missed, of),
            missed: Rate::new(missed, of),
            not_quarantined: Rate::new(open, of),
            pairs_missed: Rate::new(through, pairs.len() as u64),
        }
    }

    /// Every pair that was refused and should not have been, in order of session and query.
    pub fn false_alarms(self) -> Vec<FalseAlarm> {
        let mut alarms: Vec<_> = [Label::Benign, Label::BenignOdd]
            .into_iter()
            .flat_map(|label| self.pairs(label))
            .filter_map(|(session, pair)| self.false_alarm(session, pair))
            .collect();
        alarms.sort_by(|a, b| (a.label, &a.session, a.query).cmp(&(b.label, &b.session, b.query)));
        alarms
    }

    fn false_alarm(self, session: &Session, pair: &PairRun) -> Option<FalseAlarm> {
        let alarm = pair.refused.as_ref()?;
        let assessment = &alarm.assessment;
        let spoke = assessment.readings.iter().filter(|reading| reading.contribution != 0.0);
        let bits = |bits: Bits| rounded(bits.as_f64());
        Some(FalseAlarm {
            session: session.id.to_string(),
            tenant: pair.tenant.to_string(),
            label: pair.label,
            tool: self.tool(pair.tool).into(),
            query: alarm.query,
            qtype: alarm.qtype,
            verdict: alarm.verdict,
            reason: alarm.reason,
            rule: alarm.rule.as_ref().map(|rule| rule.id.to_string()),
            score: rounded(f64::from(assessment.score)),
            agreeing: assessment.agreeing,
            readings: spoke
                .map(|reading| {
                    let value = reading.value.map(|value| rounded(f64::from(value)));
                    (reading.signal.as_str(), (value, rounded(f64::from(reading.contribution))))
                })
                .collect(),
            information_bits: bits(assessment.information),
            tenant_bits: bits(assessment.before.tenant),
            icann_bits: bits(assessment.before.icann),
            session_bits: bits(assessment.before.session),
        })
    }

    /// Look-alikes by tool.
    pub fn odd(self) -> Vec<OddFigures> {
        let mut tools: BTreeMap<&str, Vec<&SessionRun>> = BTreeMap::new();
        for (_, run) in self.peaceful(Label::BenignOdd) {
            let tool = run.pairs.first().map_or("-", |pair| self.tool(pair.tool));
            tools.entry(tool).or_default().push(run);
        }
        let figures = tools.into_iter().map(|(tool, runs)| {
            let alarms = runs.iter().flat_map(|run| &run.pairs).filter_map(|pair| pair.refused.as_ref());
            let first = alarms.min_by_key(|alarm| alarm.query);
            OddFigures {
                tool: tool.into(),
                sessions: runs.len() as u64,
                quarantined: closed(&runs),
                judged: runs.iter().map(|run| run.benign.judged).sum(),
                refused: runs.iter().map(|run| run.benign.refused + run.benign.held_empty + run.benign.closed).sum(),
                first_refusal: first.map(|alarm| alarm.query),
                reason: first.map(|alarm| alarm.reason),
            }
        });
        figures.collect()
    }

    /// What benign sessions spend, against a session limit.
    pub fn ledger(self, limit: Bits) -> LedgerUse {
        let runs: Vec<_> = self.peaceful(Label::Benign).map(|(_, run)| run).collect();
        LedgerUse {
            sessions: runs.len() as u64,
            limit_bits: rounded(limit.as_f64()),
            spent_bits: Quantiles::of(runs.iter().map(|run| run.spent)),
            listed_bits: Quantiles::of(runs.iter().map(|run| run.spent_listed)),
        }
    }

    /// The few numbers that variants are compared by.
    pub fn headline(self) -> Headline {
        let first = |label| Spread::of(self.attacks(Some(label)).map(|(_, attack)| query(attack.first_action))).median;
        let worst =
            |label| self.attacks(Some(label)).map(|(_, attack)| self.octets(attack, attack.left)).max().unwrap_or(0);
        let benign = self.benign_rates(Label::Benign);
        Headline {
            tunnel_first_action: first(Label::Tunnel),
            tunnel_worst_bytes: worst(Label::Tunnel),
            lowslow_first_action: first(Label::LowSlow),
            lowslow_worst_bytes: worst(Label::LowSlow),
            lowslow_open: self.attack_rates(Label::LowSlow).not_quarantined.events,
            pairs_refused: benign.pairs_refused,
            sessions_quarantined: benign.sessions_quarantined.events,
        }
    }

    /// Counts over all sessions: of rows to be let through, of rows to be stopped, answered locally, rejected unjudged.
    pub fn counts(self) -> (Counts, Counts, u64, u64) {
        self.runs.iter().fold((Counts::default(), Counts::default(), 0, 0), |(benign, attack, local, rejected), run| {
            (benign.plus(run.benign), attack.plus(run.attack), local + run.local, rejected + run.rejected)
        })
    }
}

impl Quantiles {
    fn of(values: impl Iterator<Item = Bits>) -> Self {
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

impl Counts {
    fn plus(self, other: Self) -> Self {
        Self {
            judged: self.judged + other.judged,
            forwarded: self.forwarded + other.forwarded,
            cached: self.cached + other.cached,
            held: self.held + other.held,
            held_empty: self.held_empty + other.held_empty,
            refused: self.refused + other.refused,
            closed: self.closed + other.closed,
        }
    }
}

/// Whether score or ledger refused, and nothing that was written down about the name.
fn is_judged(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::Score | Reason::LedgerTenant | Reason::LedgerIcann | Reason::LedgerSession | Reason::LedgerGroup
    )
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

fn query(stop: Option<Stop>) -> Option<u64> {
    stop.map(|stop| stop.query)
}

fn closed(runs: &[&SessionRun]) -> u64 {
    runs.iter().filter(|run| run.quarantined.is_some()).count() as u64
}

fn octets(bits: f64) -> u64 {
    (bits / 8.0).ceil() as u64
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
