//! What the doctor found: rows, a table, JSON.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

/// The version of the JSON form.
pub const SCHEMA: u32 = 1;
/// Most rows of a report; longest text in one, characters.
pub const ROWS: usize = 512;
const TEXT: usize = 512;
/// Most octets of a report as JSON. What the admin socket takes and what a receipt holds follow from it.
pub const OCTETS: usize = 240 * 1024;
/// Most addresses, interfaces or resolvers.
const LIST: usize = 64;
/// Octets kept for the row that says how many have no room.
const MORE: usize = 1024;

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
    /// Each, the worst first.
    const ALL: [Self; 5] = [Self::Open, Self::Inconclusive, Self::NotTried, Self::Absent, Self::Closed];

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

    /// Makes it one that [`Self::is_sane`]. Where there is no room for every row, the open ones stay before all others, and a
    /// last row says how the rest ended; its outcome is the worst of theirs, so that none is told too well.
    pub(super) fn fit(&mut self) {
        for text in [&mut self.sandbox, &mut self.from].into_iter().chain(&mut self.node) {
            clip(text);
        }
        for list in [&mut self.addresses, &mut self.interfaces, &mut self.resolver] {
            list.truncate(LIST);
            list.iter_mut().for_each(clip);
        }
        for row in &mut self.rows {
            [&mut row.probe, &mut row.tries, &mut row.to, &mut row.why, &mut row.control].into_iter().for_each(clip);
        }
        if self.rows.len() <= ROWS && octets(self) <= OCTETS {
            return;
        }
        let mut rows = std::mem::take(&mut self.rows);
        rows.sort_by_key(|row| row.outcome);
        let mut room = OCTETS.saturating_sub(octets(self) + MORE);
        let mut keep = 0;
        for row in rows.iter().take(ROWS - 1) {
            // And a comma.
            let Some(left) = room.checked_sub(octets(row) + 1) else { break };
            (room, keep) = (left, keep + 1);
        }
        let more = rows.split_off(keep);
        self.rows = rows;
        self.rows.extend(more.first().map(|worst| {
            let of = |outcome: Outcome| more.iter().filter(|row| row.outcome == outcome).count();
            let each = Outcome::ALL.into_iter().filter(|outcome| of(*outcome) > 0);
            let each: Vec<_> = each.map(|outcome| format!("{} {}", of(outcome), outcome.as_str())).collect();
            Row {
                probe: "more".into(),
                tries: "ways for which this report has no room".into(),
                to: "-".into(),
                outcome: worst.outcome,
                why: each.join(", "),
                control: "each its own".into(),
            }
        }));
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
            && lists.iter().all(|list| list.len() <= LIST && list.iter().all(short))
            && short(&self.sandbox)
            && short(&self.from)
            && self.node.iter().all(short)
            && octets(self) <= OCTETS
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

/// Octets of the JSON form.
fn octets(of: &impl Serialize) -> usize {
    serde_json::to_vec(of).map_or(usize::MAX, |json| json.len())
}

/// Cuts a text to what a report holds of one.
pub(crate) fn clip(text: &mut String) {
    if let Some((at, _)) = text.char_indices().nth(TEXT) {
        text.truncate(at);
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

    #[test]
    fn what_has_no_room_is_never_an_open_way() {
        let mut outcomes = vec![Outcome::Closed; 2 * ROWS];
        outcomes.extend([Outcome::Absent, Outcome::Inconclusive, Outcome::Open]);
        let mut many = report(&outcomes);
        many.fit();
        assert!(many.is_sane() && many.rows.len() == ROWS, "{}", many.rows.len());
        let first: Vec<Outcome> = many.rows.iter().take(4).map(|row| row.outcome).collect();
        assert_eq!(first, [Outcome::Open, Outcome::Inconclusive, Outcome::Absent, Outcome::Closed]);
        let last = many.rows.last().expect("rows");
        assert_eq!((&*last.probe, last.outcome, &*last.why), ("more", Outcome::Closed, "516 closed"));
        // Long texts, each octet of which JSON writes as six, and the worst of what is left off.
        let mut long = report(&[Outcome::Closed; ROWS]);
        long.rows[ROWS - 1].outcome = Outcome::Open;
        for row in &mut long.rows {
            (row.why, row.control) = ("\u{1}".repeat(2 * TEXT), "\u{1f600}".repeat(2 * TEXT));
        }
        long.sandbox = "x".repeat(2 * TEXT);
        long.addresses = vec!["y".repeat(2 * TEXT); 2 * LIST];
        long.fit();
        assert!(long.is_sane() && long.rows.len() > 20, "{}", long.rows.len());
        assert_eq!((long.rows[0].outcome, long.count(Outcome::Open)), (Outcome::Open, 1));
        let mut open = report(&[Outcome::Open; ROWS + 9]);
        open.fit();
        let last = open.rows.last().expect("rows");
        assert!(open.is_sane() && last.outcome == Outcome::Open && last.why == "10 open", "{last:?}");
        let whole = report(&[Outcome::Closed, Outcome::Open]);
        let mut same = whole.clone();
        same.fit();
        assert_eq!(same, whole, "what has room stays as it is");
    }
}
