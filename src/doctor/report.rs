//! What the doctor found: rows, a table, JSON.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

/// The version of the JSON form.
pub const SCHEMA: u32 = 1;
/// Most rows of a report; longest text in one, characters.
pub const ROWS: usize = 512;
const TEXT: usize = 512;

/// How one probe ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The way is open.
    Open,
    /// The probe's control failed, or nothing can be told: never to be read as closed.
    Inconclusive,
    /// It was not tried; why stands beside it.
    NotTried,
    /// There is no such way: the sandbox's kernel has no route, or does not let this user send such packets.
    Absent,
    /// The way is closed.
    Closed,
}

impl Outcome {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Inconclusive => "inconclusive",
            Self::NotTried => "not-tried",
            Self::Absent => "absent",
            Self::Closed => "closed",
        }
    }
}

/// One probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// Which: a way of [`super::ways`], with transport and family.
    pub probe: String,
    /// What it tried, in words.
    pub tries: String,
    /// Where it was sent.
    pub to: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Why, in words.
    pub why: String,
    /// What shows that the probe works.
    pub control: String,
}

/// Everything that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// `namespace` or `inside`.
    pub from: String,
    /// The sandbox, as it was named.
    pub sandbox: String,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// Interfaces of this host by which its packets come in.
    pub interfaces: Vec<String>,
    /// The resolver that answered it.
    pub resolver: Vec<String>,
    /// The node that answered, as it names itself.
    pub node: Option<String>,
    /// The probes.
    pub rows: Vec<Row>,
}

impl Report {
    /// How many rows ended so.
    pub fn count(&self, outcome: Outcome) -> usize {
        self.rows.iter().filter(|row| row.outcome == outcome).count()
    }

    /// Whether it is a report that we could have made: its version, its size. For what comes from elsewhere.
    pub fn is_sane(&self) -> bool {
        let short = |text: &String| text.chars().count() <= TEXT;
        let rows = self
            .rows
            .iter()
            .all(|row| [&row.probe, &row.tries, &row.to, &row.why, &row.control].into_iter().all(short));
        let lists = [&self.addresses, &self.interfaces, &self.resolver];
        self.schema == SCHEMA
            && !self.rows.is_empty()
            && self.rows.len() <= ROWS
            && rows
            && lists.iter().all(|list| list.len() <= 64 && list.iter().all(short))
            && short(&self.sandbox)
            && short(&self.from)
            && self.node.iter().all(short)
    }

    /// A table with one line a probe, open ways first, and a sentence.
    pub fn table(&self) -> String {
        let mut rows: Vec<&Row> = self.rows.iter().collect();
        rows.sort_by_key(|row| row.outcome);
        let mut out = String::new();
        for row in rows {
            let _ = writeln!(
                out,
                "{:<13} {:<26} {:<32} {}; {}",
                row.outcome.as_str().to_uppercase(),
                shown(&row.probe),
                shown(&row.to),
                shown(&row.why),
                shown(&row.control)
            );
        }
        out += &self.summary();
        out
    }

    /// The sentence.
    pub fn summary(&self) -> String {
        let count = |outcome| self.count(outcome);
        format!(
            "{} ways tried from {}: {} open, {} inconclusive, {} closed, {} absent; {} not tried",
            self.rows.len() - count(Outcome::NotTried),
            shown(&self.sandbox),
            count(Outcome::Open),
            count(Outcome::Inconclusive),
            count(Outcome::Closed),
            count(Outcome::Absent),
            count(Outcome::NotTried),
        )
    }
}

/// Text from elsewhere, for a terminal.
fn shown(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] }).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn report(outcomes: &[Outcome]) -> Report {
        let rows = outcomes.iter().enumerate().map(|(i, outcome)| Row {
            probe: format!("probe-{i}"),
            tries: "a way".into(),
            to: "192.0.2.1:53".into(),
            outcome: *outcome,
            why: "why".into(),
            control: "control".into(),
        });
        Report {
            schema: SCHEMA,
            from: "namespace".into(),
            sandbox: "box".into(),
            addresses: vec!["10.77.1.2".into()],
            interfaces: vec!["ag1".into()],
            resolver: vec!["10.77.1.1:53".into()],
            node: None,
            rows: rows.collect(),
        }
    }

    #[test]
    fn a_table_shows_what_is_open_first_and_no_control_characters() {
        let mut report = report(&[Outcome::Closed, Outcome::Open, Outcome::NotTried]);
        report.rows[0].why = "\u{1b}[2Jall is well".into();
        let table = report.table();
        assert!(table.starts_with("OPEN"), "{table}");
        assert!(!table.contains('\u{1b}'), "{table}");
        assert!(
            table.ends_with("2 ways tried from box: 1 open, 0 inconclusive, 1 closed, 0 absent; 1 not tried"),
            "{table}"
        );
    }

    #[test]
    fn a_report_that_is_too_much_is_not_sane() {
        let good = report(&[Outcome::Closed]);
        assert!(good.is_sane());
        assert!(!report(&[]).is_sane());
        assert!(!report(&[Outcome::Closed; ROWS + 1]).is_sane());
        assert!(!Report { schema: 2, ..good.clone() }.is_sane());
        assert!(!Report { sandbox: "x".repeat(TEXT + 1), ..good }.is_sane());
    }
}
