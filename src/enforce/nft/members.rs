//! What the sets of sessions hold of one session, and how they get from one state to another.
//!
//! Pure.

use std::net::IpAddr;

use super::super::Class;
use super::super::state::Entry;
use super::Change;
use super::sets::{Element, Kind, Set};

/// The small sets' part of one session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Members(Vec<(Kind, Option<u32>)>);

impl Members {
    /// Of a session as it is wanted; `classes` are those that have written ranges.
    pub(super) fn of(entry: &Entry, classes: &[Class]) -> Self {
        let mut members = Vec::with_capacity(6);
        if entry.quarantined {
            members.push((Kind::Quarantined, None));
        }
        if entry.guarded {
            members.push((Kind::Generations, Some(entry.generation)));
            members.push((Kind::Current, Some(entry.generation)));
            members.extend(entry.retiring.iter().map(|generation| (Kind::Current, Some(*generation))));
            if classes.contains(&entry.class) {
                members.push((Kind::Classes, Some(entry.class.0.into())));
            }
            members.push((Kind::Guarded, None));
        }
        if entry.monitored {
            members.push((Kind::Monitored, None));
        }
        Self(members)
    }

    /// Whether its packets need a pin.
    pub(super) fn is_guarded(&self) -> bool {
        self.0.contains(&(Kind::Guarded, None))
    }

    /// Each set with its element.
    pub(super) fn elements(&self, session: IpAddr) -> impl Iterator<Item = (Set, Element)> {
        self.0.iter().map(move |member| element(session, *member))
    }

    /// What leads from here to `after`. What shuts comes before what opens: a quarantine first, then guards; what monitors or
    /// is no longer wanted goes behind.
    pub(super) fn changes(&self, session: IpAddr, after: &Self) -> Vec<Change> {
        let mut changes = Vec::new();
        for member in &after.0 {
            if self.0.contains(member) {
                continue;
            }
            let (set, element) = element(session, *member);
            // A key of a map that leads elsewhere is taken out first; the batch takes effect as one.
            if set.kind.is_map() && self.0.iter().any(|(kind, _)| *kind == set.kind) {
                changes.push(Change::Delete(set, Element::keyed(element.key)));
            }
            changes.push(Change::Add(set, vec![element]));
        }
        for member in self.0.iter().filter(|member| !after.0.contains(member)) {
            let (set, element) = element(session, *member);
            if set.kind.is_map() && after.0.iter().any(|(kind, _)| *kind == set.kind) {
                continue;
            }
            changes.push(Change::Delete(set, Element::keyed(element.key)));
        }
        changes
    }
}

fn element(session: IpAddr, (kind, mark): (Kind, Option<u32>)) -> (Set, Element) {
    let element = match (kind, mark) {
        (Kind::Current, Some(mark)) => Element::marked(session, mark),
        (_, Some(mark)) => Element::leads(session, mark),
        (_, None) => Element::session(session),
    };
    (Set::of(kind, session), element)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(generation: u32, retiring: &[u32]) -> Entry {
        Entry { guarded: true, generation, retiring: retiring.to_vec(), class: Class(3), ..Entry::default() }
    }

    fn told(before: &Entry, after: &Entry) -> Vec<String> {
        let session = IpAddr::from([10, 77, 1, 2]);
        let tell = |change: Change| match change {
            Change::Add(set, elements) => format!("+{}", elements.iter().map(|_| set.name()).collect::<String>()),
            Change::Delete(set, _) => format!("-{}", set.name()),
        };
        Members::of(before, &[Class(3)])
            .changes(session, &Members::of(after, &[Class(3)]))
            .into_iter()
            .map(tell)
            .collect()
    }

    #[test]
    fn only_what_differs_changes_and_what_shuts_comes_first() {
        let nothing = Entry::default();
        let first = entry(20, &[]);
        assert_eq!(told(&nothing, &first), ["+generations4", "+current4", "+classes4", "+guarded4"]);
        assert_eq!(told(&first, &first), Vec::<String>::new());
        let renewed = entry(21, &[20]);
        assert_eq!(told(&first, &renewed), ["-generations4", "+generations4", "+current4"], "both are current");
        assert_eq!(told(&renewed, &entry(21, &[])), ["-current4"]);
        let closed = Entry { quarantined: true, ..entry(22, &[]) };
        let changes = told(&first, &closed);
        assert_eq!(changes[0], "+quarantined4");
        assert_eq!(changes[1..], ["-generations4", "+generations4", "+current4", "-current4"]);
        let monitored = Entry { monitored: true, ..Entry::default() };
        let opened = told(&first, &monitored);
        assert_eq!(opened, ["+monitored4", "-generations4", "-current4", "-classes4", "-guarded4"]);
    }
}
