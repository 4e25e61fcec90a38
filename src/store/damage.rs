//! What was found wrong with a store, in words for whoever reads the log.

use std::fmt::{self, Display, Formatter};

use super::recover::Damage;

/// Places of one kind that are told in words; the sum is told in any case.
const TOLD: usize = 5;

impl Display for Damage {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if let Some(torn) = &self.torn {
            let place = &torn.place;
            let kept = match &torn.aside {
                Some(file) => format!("a copy lies in {file}"),
                None => "no copy could be made".into(),
            };
            parts.push(format!(
                "the end of {} was cut off at octet {}, {} octets that are no whole line ({kept})",
                place.segment, place.offset, place.octets
            ));
        }
        let unreadable = self.unreadable.iter().map(|place| {
            format!("{} octets at octet {} of {} are no lines", place.octets, place.offset, place.segment)
        });
        list(&mut parts, unreadable, self.unreadable_total, "unreadable places");
        let breaks = self.breaks.iter().map(|at| match at.found == at.expected {
            true => format!("the line before octet {} of {} was changed", at.offset, at.segment),
            false => format!(
                "line {} is missing before octet {} of {}, where line {} is",
                at.expected, at.offset, at.segment, at.found
            ),
        });
        list(&mut parts, breaks, self.breaks_total, "breaks of the chain");
        if self.unknown > 0 {
            parts.push(format!("{} lines are of a kind that this version does not know", self.unknown));
        }
        if self.partial_call {
            parts.push("what was written last is there in part, and nobody was told that it was done".into());
        }
        if self.snapshots_skipped > 0 {
            parts.push(format!("the newest {} files of the journal do not begin whole", self.snapshots_skipped));
        }
        if let Some(index) = &self.index {
            let aside = index.aside.as_ref().map_or_else(String::new, |name| format!(", the old one is {name}"));
            parts.push(format!("the index was built anew ({}{aside})", index.cause));
        }
        if self.journal_short {
            parts.push(
                "the index knows more of the journal than is left of it: sessions have what they spent in the last minute \
                 or so back"
                    .into(),
            );
        }
        if self.adopted > 0 {
            parts.push(format!("{} quarantines were taken over from the index", self.adopted));
        }
        f.write_str(&parts.join("; "))
    }
}

/// Adds the first of `told`, and how many of `total` are left out.
fn list(parts: &mut Vec<String>, told: impl Iterator<Item = String>, total: u64, what: &str) {
    let before = parts.len();
    parts.extend(told.take(TOLD));
    let left = total.saturating_sub((parts.len() - before) as u64);
    if left > 0 {
        parts.push(format!("{left} more {what}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Break, Place, Torn};

    #[test]
    fn damage_is_told_by_file_octet_and_copy() {
        let place = |segment: &str, offset, octets| Place { segment: segment.into(), offset, octets };
        let aside = Some("journal-000003.jsonl.damaged-7-120".to_owned());
        let at = |expected, found| Break { segment: "journal-000001.jsonl".into(), offset: 40, expected, found };
        let damage = Damage {
            torn: Some(Torn { place: place("journal-000003.jsonl", 120, 17), aside }),
            unreadable: (0..8).map(|n| place("journal-000002.jsonl", n * 100, 9)).collect(),
            unreadable_total: 8,
            breaks: vec![at(4, 4), at(5, 7)],
            breaks_total: 2,
            ..Damage::default()
        };
        let words = damage.to_string();
        for part in [
            "the end of journal-000003.jsonl was cut off at octet 120, 17 octets",
            "a copy lies in journal-000003.jsonl.damaged-7-120",
            "9 octets at octet 400 of journal-000002.jsonl are no lines; 3 more unreadable places",
            "the line before octet 40 of journal-000001.jsonl was changed; line 5 is missing before",
        ] {
            assert!(words.contains(part), "{part} in {words}");
        }
        assert!(!words.contains('{') && !words.contains("None"), "{words}");
    }
}
