//! A report in words: tables for a terminal.
//!
//! Knows nothing but [`Report`].

use std::fmt::Write;

use staunch_scoring::Signal;

use super::Report;
use super::figures::{BenignRates, FalseAlarm, Headline, OddFigures, Quantiles, Rates, Spread};
use super::rates::Rate;
use crate::words;

/// Most false alarms in a table; JSON has all of them.
const SHOWN_ALARMS: usize = 60;

/// The whole report.
pub fn report(report: &Report) -> String {
    let mut out = String::new();
    let (policy, corpus) = (&report.policy, &report.corpus);
    let _ = writeln!(
        out,
        "policy {}, profile {}, sinkhole at {} nats, answers at hand for {} s",
        policy.config.as_deref().unwrap_or("built in"),
        policy.profile,
        policy.sinkhole,
        policy.floor_seconds,
    );
    let _ = writeln!(
        out,
        "{} sessions, {} with an attack; {} benign and {} attack queries judged, {} answered locally, {} rejected; {} \
         names without a client",
        corpus.sessions,
        corpus.with_attack,
        corpus.benign.judged,
        corpus.attack.judged,
        corpus.local,
        corpus.rejected,
        corpus.listed,
    );
    tools(&mut out, report);
    attacks(&mut out, report);
    rates(&mut out, "Rates, with 95 % upper limits", &report.rates);
    false_alarms(&mut out, "False alarms", &report.false_alarms);
    odd(&mut out, "Look-alikes", &report.odd);
    for other in &report.compared {
        rates(&mut out, &format!("Rates under {}", other.policy), &other.rates);
        false_alarms(&mut out, &format!("False alarms under {}", other.policy), &other.false_alarms);
        odd(&mut out, &format!("Look-alikes under {}", other.policy), &other.odd);
    }
    ledger(&mut out, report);
    first_look(&mut out, report);
    ablation(&mut out, report);
    sweep(&mut out, report);
    out.truncate(out.trim_end().len());
    out
}

/// Columns under a heading; the first is set left, the others right.
struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    fn new<const N: usize>(head: [&str; N]) -> Self {
        Self { rows: vec![head.map(str::to_owned).to_vec()] }
    }

    /// Names of sessions and tools are a log's own, which may be anybody's.
    fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.iter().map(|cell| words::shown(cell)).collect());
    }

    fn write(self, out: &mut String, title: &str) {
        let columns = self.rows.first().map_or(0, Vec::len);
        let width = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let _ = writeln!(out, "\n{title}");
        for row in &self.rows {
            let mut line = String::from(" ");
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let _ = match column {
                    0 => write!(line, " {cell:<width$}"),
                    _ => write!(line, "  {cell:>width$}"),
                };
            }
            let _ = writeln!(out, "{}", line.trim_end());
        }
    }
}

fn tools(out: &mut String, report: &Report) {
    let mut table = Table::new([
        "tool",
        "label",
        "sessions",
        "first action",
        "(max)",
        "quarantine",
        "(max)",
        "bytes before action",
        "(max)",
        "bytes before stop",
        "(max)",
    ]);
    for tool in &report.tools {
        table.row([
            tool.tool.clone(),
            tool.label.as_str().into(),
            tool.sessions.to_string(),
            query(tool.first_action.median),
            worst(tool.first_action),
            query(tool.quarantine.median),
            worst(tool.quarantine),
            query(tool.bytes_before_action.median),
            query(tool.bytes_before_action.max),
            query(tool.bytes_before_stop.median),
            query(tool.bytes_before_stop.max),
        ]);
    }
    if !report.tools.is_empty() {
        table.write(out, "Attacks by tool: queries and payload bytes, median and (largest) over sessions");
    }
}

fn attacks(out: &mut String, report: &Report) {
    let mut table = Table::new([
        "session",
        "tool",
        "queries",
        "first action",
        "reason",
        "quarantine",
        "reason",
        "forwarded",
        "ticks",
        "bytes out",
        "bits charged",
        "bits/h",
        "worst hour",
        "last hour",
    ]);
    for attack in &report.attacks {
        let residual = attack.residual;
        table.row([
            attack.session.clone(),
            attack.tool.clone(),
            attack.queries.to_string(),
            query(attack.first_action),
            attack.first_reason.map_or_else(String::new, |reason| reason.as_str().into()),
            query(attack.quarantine),
            attack.quarantine_reason.map_or_else(String::new, |reason| reason.as_str().into()),
            attack.forwarded.to_string(),
            attack.ticks.to_string(),
            attack.bytes_out.to_string(),
            attack.charged_bits.to_string(),
            residual.map_or_else(String::new, |residual| residual.bits_per_hour.to_string()),
            residual.map_or_else(String::new, |residual| residual.worst_hour_bits.to_string()),
            residual.and_then(|residual| residual.last_hour_bits).map_or_else(String::new, |bits| bits.to_string()),
        ]);
    }
    if !report.attacks.is_empty() {
        table.write(out, "Attacks by session; bits an hour where the session was never closed");
    }
}

fn rates(out: &mut String, title: &str, rates: &Rates) {
    let mut table = Table::new(["what", "label", "events", "of", "rate", "upper 95 %"]);
    let mut add = |what: &str, label: &str, rate: Rate| {
        table.row([
            what.into(),
            label.into(),
            rate.events.to_string(),
            rate.of.to_string(),
            share(rate.rate),
            share(rate.upper_95),
        ]);
    };
    for one in &rates.attack {
        let label = one.label.as_str();
        add("attacks detected", label, one.detected);
        add("attacks missed", label, one.missed);
        add("attacks whose session stays open", label, one.not_quarantined);
        add("attack pairs answered throughout", label, one.pairs_missed);
    }
    for one in &rates.benign {
        let label = one.label.as_str();
        add("pairs refused", label, one.pairs_refused);
        add("pairs refused by score or ledger", label, one.pairs_judged);
        add("sessions with a refusal", label, one.sessions_refused);
        add("sessions quarantined", label, one.sessions_quarantined);
        add("queries held", label, one.queries_held);
    }
    table.write(out, title);
    rates.benign.iter().for_each(|one| reasons(out, one));
}

fn reasons(out: &mut String, rates: &BenignRates) {
    if !rates.by_reason.is_empty() {
        let by_reason: Vec<_> = rates.by_reason.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
        let _ = writeln!(out, "  {} pairs refused by reason: {}", rates.label.as_str(), by_reason.join(", "));
    }
    if rates.pairs_collateral > 0 {
        let (label, pairs) = (rates.label.as_str(), rates.pairs_collateral);
        let _ = writeln!(out, "  {label} pairs that lost queries to a closed session only: {pairs}");
    }
    if rates.queries_held_empty > 0 {
        let (label, queries) = (rates.label.as_str(), rates.queries_held_empty);
        let _ = writeln!(out, "  {label} queries held with nothing to answer: {queries}");
    }
}

fn false_alarms(out: &mut String, title: &str, alarms: &[FalseAlarm]) {
    let mut table = Table::new([
        "session", "tenant", "query", "type", "verdict", "reason", "score", "agree", "name", "tenant", "session",
        "readings",
    ]);
    for alarm in alarms.iter().take(SHOWN_ALARMS) {
        let readings: Vec<_> = alarm
            .readings
            .iter()
            .map(|(signal, (value, nats))| match value {
                Some(value) => format!("{signal} {value} ({nats:+})"),
                None => format!("{signal} ({nats:+})"),
            })
            .collect();
        let reason = match &alarm.rule {
            Some(rule) => format!("{} {rule}", alarm.reason.as_str()),
            None => alarm.reason.as_str().into(),
        };
        table.row([
            alarm.session.clone(),
            alarm.tenant.clone(),
            alarm.query.to_string(),
            alarm.qtype.to_string(),
            alarm.verdict.as_str().into(),
            reason,
            alarm.score.to_string(),
            alarm.agreeing.to_string(),
            alarm.information_bits.to_string(),
            alarm.tenant_bits.to_string(),
            alarm.session_bits.to_string(),
            readings.join(", "),
        ]);
    }
    let title = format!("{title}: first refusal of each pair; bits in the name, spent by tenant and session before");
    if !alarms.is_empty() {
        table.write(out, &title);
    }
    if alarms.len() > SHOWN_ALARMS {
        let _ = writeln!(out, "  and {} more: see --json", alarms.len() - SHOWN_ALARMS);
    }
}

fn odd(out: &mut String, title: &str, figures: &[OddFigures]) {
    let mut table = Table::new(["tool", "sessions", "quarantined", "queries", "refused", "first refusal", "reason"]);
    for odd in figures {
        table.row([
            odd.tool.clone(),
            odd.sessions.to_string(),
            odd.quarantined.to_string(),
            odd.judged.to_string(),
            odd.refused.to_string(),
            query(odd.first_refusal),
            odd.reason.map_or_else(String::new, |reason| reason.as_str().into()),
        ]);
    }
    if !figures.is_empty() {
        table.write(out, title);
    }
}

fn ledger(out: &mut String, report: &Report) {
    let ledger = &report.ledger;
    if ledger.sessions == 0 {
        return;
    }
    let mut table = Table::new(["bits spent", "50 %", "90 %", "95 %", "99 %", "most"]);
    let mut add = |what: &str, q: Quantiles| {
        table.row([
            what.into(),
            q.q50.to_string(),
            q.q90.to_string(),
            q.q95.to_string(),
            q.q99.to_string(),
            q.max.to_string(),
        ]);
    };
    add("over unlisted domains", ledger.spent_bits);
    add("on exact names and below rules", ledger.listed_bits);
    let (sessions, limit) = (ledger.sessions, ledger.limit_bits);
    table.write(out, &format!("Ledger use of {sessions} benign sessions; the session's limit is {limit} bits"));
}

fn first_look(out: &mut String, report: &Report) {
    let mut table = Table::new(["tool", "label", "names", "local", "by band", "refused"]);
    for look in &report.first_look {
        let listed = |counts: &std::collections::BTreeMap<&str, u64>| {
            counts.iter().map(|(what, count)| format!("{what} {count}")).collect::<Vec<_>>().join(", ")
        };
        table.row([
            look.tool.clone(),
            look.label.as_str().into(),
            look.names.to_string(),
            look.local.to_string(),
            listed(&look.bands),
            listed(&look.refused),
        ]);
    }
    if !report.first_look.is_empty() {
        table.write(out, "Names without a client, each the first query of a new session");
    }
}

const HEADLINE: [&str; 8] = [
    "tunnel action",
    "worst bytes",
    "lowslow action",
    "worst bytes",
    "open",
    "pairs refused",
    "upper 95 %",
    "quarantined",
];

fn headline(first: String, figures: &Headline) -> [String; 9] {
    [
        first,
        query(figures.tunnel_first_action),
        figures.tunnel_worst_bytes.to_string(),
        query(figures.lowslow_first_action),
        figures.lowslow_worst_bytes.to_string(),
        figures.lowslow_open.to_string(),
        figures.pairs_judged.events.to_string(),
        share(figures.pairs_judged.upper_95),
        figures.sessions_quarantined.to_string(),
    ]
}

fn compared(first: &str) -> Table {
    let mut head = vec![first.to_owned()];
    head.extend(HEADLINE.map(str::to_owned));
    Table { rows: vec![head] }
}

fn ablation(out: &mut String, report: &Report) {
    let mut table = compared("without");
    for row in &report.ablation {
        table.row(headline(row.without.map_or("-", Signal::as_str).into(), &row.figures));
    }
    if !report.ablation.is_empty() {
        table.write(out, "Without each signal: median query at first action, worst payload bytes out, benign refusals");
    }
}

fn sweep(out: &mut String, report: &Report) {
    let mut table = compared("sinkhole at");
    for point in &report.sweep {
        let mark = if point.in_force { " *" } else { "" };
        table.row(headline(format!("{}{mark}", point.threshold), &point.figures));
    }
    if !report.sweep.is_empty() {
        table.write(out, "Over thresholds of the sinkhole, nats (* in force)");
    }
}

fn query(value: Option<u64>) -> String {
    value.map_or_else(|| "never".into(), |value| value.to_string())
}

fn worst(spread: Spread) -> String {
    match (spread.max, spread.never) {
        (None, never) if never > 0 => format!("never in {never}"),
        (max, _) => query(max),
    }
}

/// A share in a thousand.
fn share(share: Option<f64>) -> String {
    share.map_or_else(|| "-".into(), |share| format!("{:.2} ‰", share * 1000.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_log_calls_its_sessions_does_not_act_on_a_terminal() {
        let mut table = Table::new(["session", "queries"]);
        table.row(["a\u{1b}[2J\nb".into(), "7".into()]);
        let mut out = String::new();
        table.write(&mut out, "Attacks");
        assert_eq!(out, "\nAttacks\n  session        queries\n  a\\u{1b}[2J\\nb        7\n");
    }
}
