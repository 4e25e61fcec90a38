//! The fold: what a journal, read from its start, amounts to.
//!
//! Pure. Generic over what is kept for each fact: while a journal is read that is the record itself (it becomes
//! [`super::Recovered`]), afterwards only the place of its line, so that the writer can copy live facts into a new
//! segment without holding them all in memory.

use std::collections::HashMap;

use super::line::Mark;
use super::{Error, Record};
use crate::model::SessionId;

/// How far a sink has come in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Cursor {
    /// Sequence of the last alert taken, or of the sink's registration.
    pub(super) seq: u64,
    /// Alerts up to `seq`.
    pub(super) nth: u64,
}

/// What is known of one session.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Session<T> {
    pub(super) announce: Option<T>,
    pub(super) quarantine: Option<T>,
    pub(super) ledger: Option<T>,
}

impl<T> Session<T> {
    const EMPTY: Self = Self { announce: None, quarantine: None, ledger: None };

    fn is_empty(&self) -> bool {
        self.announce.is_none() && self.quarantine.is_none() && self.ledger.is_none()
    }
}

/// Most sinks whose progress is remembered, configured or not. More than anyone configures.
const MAX_SINKS: usize = 64;

/// Most groups whose spending is kept: twice as many as have a ledger of their own, since one that was forgotten there
/// is kept here until its spending has ended. Reached by nothing else, so a record that finds no room is refused aloud.
const MAX_GROUPS: usize = 2 * crate::session::MAX_GROUPS;

/// How long a group's spending counts after it was noted: 24 hours, and the hour it was noted in.
const GROUP_MS: u64 = 25 * 3_600_000;

/// See the module.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Fold<T> {
    pub(super) sessions: HashMap<SessionId, Session<T>>,
    /// By id: when it ends (Unix milliseconds), and the grant.
    pub(super) grants: HashMap<String, (u64, T)>,
    /// By owner: when all it says has ended (Unix milliseconds), and the newest ledger.
    pub(super) groups: HashMap<String, (u64, T)>,
    pub(super) policy: Option<T>,
    pub(super) sinks: HashMap<String, Cursor>,
    /// Alerts recorded since the journal began.
    pub(super) alerts: u64,
}

impl<T> Fold<T> {
    pub(super) fn new() -> Self {
        Self {
            sessions: HashMap::new(),
            grants: HashMap::new(),
            groups: HashMap::new(),
            policy: None,
            sinks: HashMap::new(),
            alerts: 0,
        }
    }

    /// Adds what the journal says about itself.
    pub(super) fn mark(&mut self, mark: &Mark) {
        match mark {
            // A snapshot that starts the reading says everything; a later one repeats what is known.
            Mark::Begin { alerts, .. } => self.alerts = self.alerts.max(*alerts),
            Mark::Sink { sink, seq, nth } => self.advance(sink, Cursor { seq: *seq, nth: *nth }),
            Mark::End { .. } | Mark::Repaired { .. } => {}
        }
    }

    /// Adds a fact; `kept` is what to keep of it, if it is one to keep.
    pub(super) fn record(&mut self, record: &Record, kept: impl FnOnce() -> T) {
        match record {
            Record::Announce { announcement } => self.session(&announcement.id).announce = Some(kept()),
            Record::Quarantine { session, .. } => self.session(session).quarantine = Some(kept()),
            Record::Ledger { session, .. } => self.session(session).ledger = Some(kept()),
            Record::Release { session, .. } => {
                if let Some(entry) = self.sessions.get_mut(session) {
                    entry.quarantine = None;
                    if entry.is_empty() {
                        self.sessions.remove(session);
                    }
                }
            }
            Record::End { session } => {
                self.sessions.remove(session);
            }
            Record::Grant { grant } => {
                self.grants.insert(grant.id.clone(), (grant.until, kept()));
            }
            Record::Group { group, at, .. } => {
                if self.groups.len() >= MAX_GROUPS {
                    self.groups.retain(|_, (until, _)| *until > *at);
                }
                self.groups.insert(group.clone(), (at.saturating_add(GROUP_MS), kept()));
            }
            Record::Policy { .. } => self.policy = Some(kept()),
            Record::Alert { .. } => self.alerts += 1,
            Record::Delivered { sink, seq, nth, .. } => self.advance(sink, Cursor { seq: *seq, nth: *nth }),
        }
    }

    /// Alerts go out in order, so the furthest mark says it all.
    fn advance(&mut self, sink: &str, to: Cursor) {
        if let Some(cursor) = self.sinks.get_mut(sink) {
            if cursor.seq < to.seq {
                *cursor = to;
            }
        } else if self.sinks.len() < MAX_SINKS {
            self.sinks.insert(sink.to_owned(), to);
        }
    }

    fn session(&mut self, id: &SessionId) -> &mut Session<T> {
        self.sessions.entry(id.clone()).or_insert(Session::EMPTY)
    }

    /// Forgets grants and groups' spending that ended before `now` (Unix milliseconds), and sinks nobody configured any more when there are
    /// too many.
    pub(super) fn prune(&mut self, now: u64, configured: &[String]) {
        self.grants.retain(|_, (until, _)| *until > now);
        self.groups.retain(|_, (until, _)| *until > now);
        if self.sinks.len() >= MAX_SINKS {
            self.sinks.retain(|name, _| configured.contains(name));
        }
    }

    /// Whether there is room for what `records` would add. Sessions and grants are what a hostile session or a script
    /// could grow; what is known already is always admitted, so a full table refuses newcomers, aloud, and forgets
    /// nobody's quarantine.
    pub(super) fn admits(&self, records: &[Record], caps: Caps) -> Result<(), Error> {
        for record in records {
            match record {
                Record::Announce { announcement: crate::model::Announcement { id: session, .. } }
                | Record::Quarantine { session, .. }
                | Record::Ledger { session, .. }
                    if self.sessions.len() >= caps.sessions && !self.sessions.contains_key(session) =>
                {
                    return Err(Error::TooMany { what: "sessions", cap: caps.sessions });
                }
                Record::Grant { grant } if self.grants.len() >= caps.grants && !self.grants.contains_key(&grant.id) => {
                    return Err(Error::TooMany { what: "grants", cap: caps.grants });
                }
                Record::Group { group, at, .. }
                    if self.groups.len() >= MAX_GROUPS
                        && !self.groups.contains_key(group)
                        && self.groups.values().all(|(until, _)| until > at) =>
                {
                    return Err(Error::TooMany { what: "groups", cap: MAX_GROUPS });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Every kept fact, announcements before what hangs on them. The order is the same until the fold changes.
    pub(super) fn kept_mut(&mut self) -> impl Iterator<Item = (Kept<'_>, &mut T)> {
        let sessions = self.sessions.iter_mut().flat_map(|(id, entry)| {
            let Session { announce, quarantine, ledger } = entry;
            let announce = announce.as_mut().map(|t| (Kept::Other, t));
            let quarantine = quarantine.as_mut().map(|t| (Kept::Quarantine(id), t));
            let ledger = ledger.as_mut().map(|t| (Kept::Other, t));
            [announce, quarantine, ledger].into_iter().flatten()
        });
        let grants = self.grants.values_mut().map(|(_, t)| (Kept::Other, t));
        let groups = self.groups.values_mut().map(|(_, t)| (Kept::Other, t));
        sessions.chain(grants).chain(groups).chain(self.policy.as_mut().map(|t| (Kept::Other, t)))
    }

    /// The same fold with something else kept.
    pub(super) fn map<U>(self, mut f: impl FnMut(T) -> U) -> Fold<U> {
        let sessions = self.sessions.into_iter().map(|(id, s)| {
            let entry = Session {
                announce: s.announce.map(&mut f),
                quarantine: s.quarantine.map(&mut f),
                ledger: s.ledger.map(&mut f),
            };
            (id, entry)
        });
        let sessions = sessions.collect();
        let grants = self.grants.into_iter().map(|(id, (until, t))| (id, (until, f(t)))).collect();
        let groups = self.groups.into_iter().map(|(owner, (until, t))| (owner, (until, f(t)))).collect();
        Fold { sessions, grants, groups, policy: self.policy.map(f), sinks: self.sinks, alerts: self.alerts }
    }
}

/// What a kept fact is, as far as copying it must know.
pub(super) enum Kept<'a> {
    /// The quarantine of a session: never lost, even where its line has become unreadable.
    Quarantine(&'a SessionId),
    /// Anything else.
    Other,
}

/// Limits of the fold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Caps {
    /// Sessions with any fact.
    pub(super) sessions: usize,
    /// Grants that have not ended.
    pub(super) grants: usize,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::{announce, grant, ledger, quarantine, release, session};

    fn folded(records: &[Record]) -> Fold<u64> {
        let mut fold = Fold::new();
        for (seq, record) in (1..).zip(records) {
            fold.record(record, || seq);
        }
        fold
    }

    #[test]
    fn a_session_is_what_its_last_records_say() {
        let end = |n| Record::End { session: session(n) };
        // Each row: records, then which of them stand: announce, quarantine, ledger of session 1.
        type Row<'a> = (&'a [Record], Option<[Option<u64>; 3]>);
        let rows: [Row<'_>; 6] = [
            (&[announce(1), announce(1)], Some([Some(2), None, None])),
            (&[quarantine(1)], Some([None, Some(1), None])),
            (&[quarantine(1), release(1)], None),
            (&[announce(1), quarantine(1), ledger(1), release(1)], Some([Some(1), None, Some(3)])),
            (&[announce(1), quarantine(1), ledger(1), end(1)], None),
            (&[quarantine(1), release(1), quarantine(1), quarantine(2), release(2)], Some([None, Some(3), None])),
        ];
        for (records, expected) in rows {
            let fold = folded(records);
            let got = fold.sessions.get(&session(1)).map(|s| [s.announce, s.quarantine, s.ledger]);
            assert_eq!(got, expected, "{records:?}");
        }
    }

    #[test]
    fn grants_end() {
        let mut fold = folded(&[grant("a", 1_000), grant("b", 2_000), grant("a", 3_000)]);
        fold.prune(2_000, &[]);
        assert_eq!(fold.grants.keys().collect::<Vec<_>>(), ["a"], "b ended at 2000, a was extended");
        fold.prune(3_000, &[]);
        assert!(fold.grants.is_empty());
    }

    #[test]
    fn a_full_fold_refuses_newcomers_and_forgets_nobody() {
        let caps = Caps { sessions: 2, grants: 1 };
        let fold = folded(&[announce(1), quarantine(2), grant("a", 9)]);
        for known in [quarantine(1), ledger(2), release(3), grant("a", 10)] {
            assert!(fold.admits(&[known], caps).is_ok());
        }
        for new in [quarantine(3), announce(3), ledger(3), grant("b", 9)] {
            assert!(matches!(fold.admits(&[new], caps), Err(Error::TooMany { .. })));
        }
    }

    #[test]
    fn a_groups_spending_is_kept_for_a_day_and_makes_room() {
        let group = |n: usize, at| Record::Group { group: format!("g{n}"), at, state: Default::default() };
        let mut fold = folded(&[group(1, 0), group(2, 1_000), group(1, 2_000)]);
        assert_eq!(fold.groups["g1"].1, 3, "the newest");
        fold.prune(GROUP_MS + 1_500, &[]);
        assert_eq!(fold.groups.keys().collect::<Vec<_>>(), ["g1"]);
        let mut fold = folded(&(0..MAX_GROUPS).map(|n| group(n, 10)).collect::<Vec<_>>());
        let caps = Caps { sessions: 1, grants: 1 };
        assert!(matches!(fold.admits(&[group(MAX_GROUPS, 20)], caps), Err(Error::TooMany { .. })));
        assert!(fold.admits(&[group(0, 20)], caps).is_ok(), "what is known is admitted");
        let later = group(MAX_GROUPS, GROUP_MS + 10);
        assert!(fold.admits(std::slice::from_ref(&later), caps).is_ok());
        fold.record(&later, || 0);
        assert_eq!(fold.groups.len(), 1, "what has ended made room");
    }

    #[test]
    fn cursors_only_go_forward() {
        let delivered = |seq, nth| Record::Delivered { alert: "a".into(), sink: "soc".into(), seq, nth };
        let fold = folded(&[delivered(5, 2), delivered(3, 1)]);
        assert_eq!(fold.sinks["soc"], Cursor { seq: 5, nth: 2 });
    }
}
