//! Written ranges and the world: names that lead elsewhere than is written, and ranges that nobody uses.
//!
//! Evidence for whoever answers for a rule; nothing is refused for it.

use std::net::IpAddr;

use hashbrown::HashMap;
use parking_lot::Mutex;

use super::{Live, Pipeline, Walk};
use crate::event::{Notice, NoticeKind, RuleRef};
use crate::lists::Rule;
use crate::model::Now;
use crate::range::IpRange;
use crate::store::RangeUse;
use crate::telemetry::rfc3339;

/// Milliseconds of a day.
const DAY: u64 = 86_400_000;
/// How long a range may go unused before it is told, and before it is told again, milliseconds. Chosen without a source: work
/// that comes once a month has passed by.
const UNUSED: u64 = 35 * DAY;
/// Pairs of rule and address told of within a day; further ones are not told until tomorrow.
const TOLD: usize = 4096;

/// What was told, and what is in use.
#[derive(Default)]
pub(super) struct Drift {
    told: Mutex<HashMap<(u64, IpAddr), u64, foldhash::quality::RandomState>>,
    used: Mutex<HashMap<String, RangeUse>>,
}

impl Pipeline {
    /// Notes where the name of a rule with written ranges leads.
    pub(super) fn note_drift(&self, live: &Live, walk: &Walk, rule: Option<&Rule>, addresses: &[IpAddr], now: Now) {
        let Some(rule) = rule.filter(|rule| !rule.expected.is_empty()) else { return };
        for address in addresses {
            let end = live.answers.behind_nat64(*address);
            let within = |range: &IpRange| range.contains(*address) || end.is_some_and(|end| range.contains(end));
            if rule.expected.iter().any(within) {
                self.note_used(&rule.id, now);
                continue;
            }
            if !self.drift.is_news(self.hash(&rule.id), *address, now.wall.steady) {
                continue;
            }
            let qname = walk.record.qname.as_ref().to_string();
            let ranges: Vec<_> = rule.expected.iter().map(ToString::to_string).collect();
            let text =
                format!("{qname} leads to {address}, outside the ranges of rule `{}`: {}", rule.id, ranges.join(", "));
            let context = &walk.record.context.announcement;
            self.telemetry.notice(Notice {
                session: Some(context.id.clone()),
                owner: Some(rule.owner.clone()),
                address: Some(*address),
                names: vec![qname],
                rule: walk.record.rule.clone(),
                ..Notice::new(NoticeKind::Drift, rfc3339(now.wall.shown), text)
            });
        }
    }

    /// Notes that a written range is in use.
    pub(super) fn note_used(&self, id: &str, now: Now) {
        let mut used = self.drift.used.lock();
        match used.get_mut(id) {
            // To the day is as exactly as it is kept.
            Some(known) if known.at + DAY > now.wall.steady => {}
            Some(known) => known.at = now.wall.steady,
            None => drop(used.insert(id.to_owned(), RangeUse { id: id.to_owned(), at: now.wall.steady, told: 0 })),
        }
    }

    /// Takes over what was known of written ranges when the process ended.
    pub(crate) fn restore_used(&self, used: Vec<RangeUse>) {
        *self.drift.used.lock() = used.into_iter().map(|known| (known.id.clone(), known)).collect();
    }

    /// When each written range of the configuration was last used, for the journal. One that is new counts as used now.
    pub(crate) fn used_ranges(&self, live: &Live, now: Now) -> Vec<RangeUse> {
        let mut used = self.drift.used.lock();
        let written: Vec<RuleRef> = written(live).map(|(reference, _)| reference).collect();
        used.retain(|id, _| written.iter().any(|reference| *reference.id == **id));
        for reference in written {
            let id = reference.id.to_string();
            used.entry(id.clone()).or_insert(RangeUse { id, at: now.wall.steady, told: 0 });
        }
        let mut used: Vec<RangeUse> = used.values().cloned().collect();
        used.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        used
    }

    /// Tells of written ranges that were not used for long, each once in a while. To be called once a day.
    pub(super) fn tell_unused(&self, live: &Live, now: Now) {
        self.used_ranges(live, now);
        for (reference, owner) in written(live) {
            let Some(days) = self.drift.unused_for(&reference.id, now.wall.steady) else { continue };
            let text =
                format!("nobody has used the ranges of `{}` for {days} days: are they still needed?", reference.id);
            let notice = Notice::new(NoticeKind::RangeUnused, rfc3339(now.wall.shown), text);
            self.telemetry.notice(Notice { owner: Some(owner), rule: Some(reference), ..notice });
        }
    }
}

/// Everything with written ranges: where it is written, and who answers for it.
fn written(live: &Live) -> impl Iterator<Item = (RuleRef, String)> {
    let ranges = live.ranges.iter().map(|range| (range.reference.clone(), range.owner.clone()));
    let rules = live.policy.lists.rules.iter().filter(|rule| !rule.expected.is_empty());
    ranges.chain(rules.map(|rule| {
        let line = rule.names.first().map_or(0, |(_, line)| *line);
        (RuleRef { id: rule.id.clone(), file: rule.file.clone(), line }, rule.owner.clone())
    }))
}

impl Drift {
    /// For how many days a range was not used, where that is due to be told. It then counts as told.
    fn unused_for(&self, id: &str, wall: u64) -> Option<u64> {
        let mut used = self.used.lock();
        let known = used.get_mut(id)?;
        if wall < known.at.max(known.told).saturating_add(UNUSED) {
            return None;
        }
        known.told = wall;
        Some((wall - known.at) / DAY)
    }

    /// Whether an address of a rule was not told of within a day.
    fn is_news(&self, rule: u64, address: IpAddr, wall: u64) -> bool {
        let mut told = self.told.lock();
        if told.get(&(rule, address)).is_some_and(|at| wall < at + DAY) {
            return false;
        }
        if told.len() >= TOLD {
            told.retain(|_, at| wall < *at + DAY);
        }
        told.len() < TOLD && told.insert((rule, address), wall).is_none_or(|at| wall >= at + DAY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_told_of_once_a_day_and_the_table_is_bounded() {
        let drift = Drift::default();
        let address = |n: u32| IpAddr::from(std::net::Ipv4Addr::from(n));
        assert!(drift.is_news(1, address(1), DAY));
        assert!(!drift.is_news(1, address(1), 2 * DAY - 1) && drift.is_news(2, address(1), DAY));
        assert!(drift.is_news(1, address(1), 2 * DAY), "a day later");
        let told = (0..10_000).filter(|n| drift.is_news(3, address(*n), 2 * DAY)).count();
        assert!(told < 4096 + 1 && drift.told.lock().len() <= TOLD);
        assert!(drift.is_news(3, address(9_999), 4 * DAY), "there is room tomorrow");
    }

    #[test]
    fn a_range_that_nobody_uses_is_told_of_every_thirty_five_days() {
        let drift = Drift::default();
        assert_eq!(drift.unused_for("unknown", 1000 * DAY), None);
        drift.used.lock().insert("r".into(), RangeUse { id: "r".into(), at: 10 * DAY, told: 0 });
        let told: Vec<_> = (10..120).filter_map(|day| Some((day, drift.unused_for("r", day * DAY)?))).collect();
        assert_eq!(told, [(45, 35), (80, 70), (115, 105)]);
        drift.used.lock().get_mut("r").expect("known").at = 119 * DAY;
        assert_eq!(drift.unused_for("r", 152 * DAY), None, "used again since");
        assert_eq!(drift.unused_for("r", 154 * DAY), Some(35));
    }
}
