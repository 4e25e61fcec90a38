//! Runs of sessions, counted by tool, by pair and by session.
//!
//! [`super::replay`] says what became of each session; here it becomes [`super::figures`]. Plain arithmetic: knows no
//! policy and reads no file.

use std::collections::BTreeMap;

use staunch_scoring::Bits;

use super::corpus::{Corpus, Label, Session};
use super::figures::{
    AttackFigures, AttackRates, BenignRates, FalseAlarm, Headline, LedgerUse, OddFigures, Quantiles, Rates, Residual,
    Spread, ToolFigures,
};
use super::outcome::{AttackRun, Counts, Left, PairRun, SessionRun, Stop};
use super::rates::{Rate, rounded};
use super::true_bits::TrueBits;
use crate::model::Reason;

const HOUR_MS: u64 = 3_600_000;

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
            pairs_judged: benign.pairs_judged,
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

fn query(stop: Option<Stop>) -> Option<u64> {
    stop.map(|stop| stop.query)
}

fn closed(runs: &[&SessionRun]) -> u64 {
    runs.iter().filter(|run| run.quarantined.is_some()).count() as u64
}

fn octets(bits: f64) -> u64 {
    (bits / 8.0).ceil() as u64
}
