//! The fold: what a journal, read from its start, amounts to.
//!
//! Pure. Generic over what is kept for each fact: while a journal is read that is the record itself (it becomes
//! [`super::Recovered`]), afterwards only the place of its line, so that the writer can copy live facts into a new
//! segment without holding them all in memory.

use std::collections::HashMap;
use std::time::Duration;

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
    pub(super) ledger: Option<Ledger<T>>,
}

/// A session's ledger: a whole state and the steps behind it, in order; no more than
/// [`staunch_scoring::state::MOST_STEPS`], since whoever writes them begins anew by then.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ledger<T> {
    /// When the last one was written, milliseconds since the Unix epoch.
    pub(super) at: u64,
    pub(super) steps: Vec<T>,
}

impl<T> Session<T> {
    const EMPTY: Self = Self { announce: None, quarantine: None, ledger: None };

    fn is_empty(&self) -> bool {
        self.announce.is_none() && self.quarantine.is_none() && self.ledger.is_none()
    }
}

/// Most sinks whose progress is remembered, configured or not. More than anyone configures.
const MAX_SINKS: usize = 64;

/// So many grants are kept until a new segment begins, whether they have ended or not; beyond it ended ones make room. More
/// than are ever in force.
const MANY_GRANTS: usize = 4 * crate::lists::MAX_GRANTS;

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

    /// Adds a fact written `at` (Unix milliseconds); `kept` is what to keep of it, if it is one to keep.
    pub(super) fn record(&mut self, record: &Record, at: impl FnOnce() -> u64, kept: impl FnOnce() -> T) {
        match record {
            Record::Announce { announcement, .. } => self.session(&announcement.id).announce = Some(kept()),
            Record::Quarantine { session, .. } => self.session(session).quarantine = Some(kept()),
            Record::Ledger { session, state } => {
                let ledger = self.session(session).ledger.get_or_insert(Ledger { at: 0, steps: Vec::new() });
                if state.is_whole() {
                    ledger.steps.clear();
                }
                ledger.at = at();
                ledger.steps.push(kept());
            }
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
                if self.grants.len() >= MANY_GRANTS {
                    self.grants.retain(|_, (until, _)| *until > grant.from);
                }
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
    pub(super) fn advance(&mut self, sink: &str, to: Cursor) {
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

    /// Forgets grants and groups' spending that ended before `now` (Unix milliseconds), ledgers that are all that is known of
    /// a session and older than `keep_ledgers`, and sinks nobody configured any more when there are too many. Returns when the
    /// last of the forgotten grants ended.
    pub(super) fn prune(&mut self, now: u64, configured: &[String], keep_ledgers: Duration) -> Option<u64> {
        let keep = u64::try_from(keep_ledgers.as_millis()).unwrap_or(u64::MAX);
        self.sessions.retain(|_, session| match session {
            Session { announce: None, quarantine: None, ledger: Some(ledger) } => ledger.at.saturating_add(keep) > now,
            _ => true,
        });
        let mut ended = None;
        self.grants.retain(|_, (until, _)| {
            let stands = *until > now;
            ended = ended.max((!stands).then_some(*until));
            stands
        });
        self.groups.retain(|_, (until, _)| *until > now);
        if self.sinks.len() >= MAX_SINKS {
            self.sinks.retain(|name, _| configured.contains(name));
        }
        ended
    }

    /// Whether there is room for what `records` would add. Sessions and grants are what a hostile session or a script
    /// could grow; what is known already is always admitted, so a full table refuses newcomers, aloud, and forgets
    /// nobody's quarantine.
    pub(super) fn admits(&self, records: &[Record], caps: Caps) -> Result<(), Error> {
        for (at, record) in records.iter().enumerate() {
            match record {
                Record::Announce { announcement: crate::model::Announcement { id: session, .. }, .. }
                | Record::Quarantine { session, .. }
                    if self.sessions.len() >= caps.sessions && !self.sessions.contains_key(session) =>
                {
                    return Err(Error::TooMany { what: "sessions", cap: caps.sessions });
                }
                // Whoever can ask from many addresses makes as many ledgers; an eighth is left for what he cannot make, with the
                // ledger that comes along.
                Record::Ledger { session, .. }
                    if self.sessions.len() >= caps.sessions - caps.sessions / 8
                        && !self.sessions.contains_key(session)
                        && !records.iter().take(at).any(|before| brings(before, session)) =>
                {
                    return Err(Error::TooMany { what: "ledgers", cap: caps.sessions - caps.sessions / 8 });
                }
                // Those that have ended stay until a new segment begins; they are in nobody's way.
                Record::Grant { grant }
                    if self.grants.len() >= caps.grants
                        && !self.grants.contains_key(&grant.id)
                        && self.grants.values().filter(|(until, _)| *until > grant.from).count() >= caps.grants =>
                {
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
            let steps = ledger.iter_mut().flat_map(|ledger| &mut ledger.steps).map(|t| (Kept::Other, t));
            announce.into_iter().chain(quarantine).chain(steps)
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
                ledger: s.ledger.map(|l| Ledger { at: l.at, steps: l.steps.into_iter().map(&mut f).collect() }),
            };
            (id, entry)
        });
        let sessions = sessions.collect();
        let grants = self.grants.into_iter().map(|(id, (until, t))| (id, (until, f(t)))).collect();
        let groups = self.groups.into_iter().map(|(owner, (until, t))| (owner, (until, f(t)))).collect();
        Fold { sessions, grants, groups, policy: self.policy.map(f), sinks: self.sinks, alerts: self.alerts }
    }
}

/// Whether a record stands for a session, whatever is known of it.
fn brings(record: &Record, id: &SessionId) -> bool {
    match record {
        Record::Announce { announcement, .. } => announcement.id == *id,
        Record::Quarantine { session, .. } => session == id,
        _ => false,
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
    use crate::store::testing::{announce, grant, ledger, quarantine, release, session, step};

    const WEEK: Duration = Duration::from_secs(7 * 86_400);
    const FAR: u64 = 4_000_000_000_000;

    fn folded(records: &[Record]) -> Fold<u64> {
        let mut fold = Fold::new();
        for (seq, record) in (1..).zip(records) {
            fold.record(record, || seq, || seq);
        }
        fold
    }

    #[test]
    fn a_session_is_what_its_last_records_say() {
        let end = |n| Record::End { session: session(n) };
        // Each row: records, then which of them stand: announce, quarantine, ledger of session 1.
        type Row<'a> = (&'a [Record], Option<[Option<u64>; 3]>);
        let rows: [Row<'_>; 8] = [
            (&[announce(1), announce(1)], Some([Some(2), None, None])),
            (&[quarantine(1)], Some([None, Some(1), None])),
            (&[quarantine(1), release(1)], None),
            (&[announce(1), quarantine(1), ledger(1), release(1)], Some([Some(1), None, Some(3)])),
            (&[announce(1), quarantine(1), ledger(1), end(1)], None),
            (&[ledger(1), ledger(1)], Some([None, None, Some(2)])),
            (&[ledger(1), ledger(1), step(1), step(1)], Some([None, None, Some(2 + 3 + 4)])),
            (&[quarantine(1), release(1), quarantine(1), quarantine(2), release(2)], Some([None, Some(3), None])),
        ];
        for (records, expected) in rows {
            let fold = folded(records);
            let got = fold.sessions.get(&session(1)).map(|s| {
                let ledger = s.ledger.as_ref().map(|ledger| ledger.steps[..].iter().sum());
                [s.announce, s.quarantine, ledger]
            });
            assert_eq!(got, expected, "{records:?}");
        }
    }

    #[test]
    fn grants_end() {
        let mut fold = folded(&[grant("a", 1_000), grant("b", 2_000), grant("a", 3_000)]);
        assert_eq!(fold.prune(2_000, &[], WEEK), Some(2_000));
        assert_eq!(fold.grants.keys().collect::<Vec<_>>(), ["a"], "b ended at 2000, a was extended");
        assert_eq!((fold.prune(3_000, &[], WEEK), fold.prune(3_000, &[], WEEK)), (Some(3_000), None));
        assert!(fold.grants.is_empty());
    }

    #[test]
    fn grants_that_have_ended_keep_no_other_out_and_make_room() {
        let caps = Caps { sessions: 1, grants: 2 };
        let given = |id: &str, from, until| match grant(id, until) {
            Record::Grant { grant } => Record::Grant { grant: crate::store::Grant { from, ..grant } },
            other => other,
        };
        let fold = folded(&[given("a", 0, 10), given("b", 0, 20)]);
        assert!(matches!(fold.admits(&[given("c", 9, 30)], caps), Err(Error::TooMany { what: "grants", cap: 2 })));
        assert!(fold.admits(&[given("c", 10, 30)], caps).is_ok(), "a has ended");
        let many: Vec<_> = (0..MANY_GRANTS as u64).map(|n| given(&format!("g{n}"), n, n + 10)).collect();
        let mut fold = folded(&many);
        assert_eq!(fold.grants.len(), MANY_GRANTS);
        fold.record(&given("last", MANY_GRANTS as u64, FAR), || 0, || 0);
        assert_eq!(fold.grants.len(), 10, "nine of them and the last one stand");
    }

    #[test]
    fn a_ledger_alone_is_kept_for_a_while_and_leaves_room_for_what_closes() {
        let mut fold = folded(&[announce(1), ledger(1), quarantine(2), ledger(2), ledger(3), ledger(4)]);
        let week = u64::try_from(WEEK.as_millis()).unwrap();
        fold.prune(week + 5, &[], WEEK);
        let mut left: Vec<_> = fold.sessions.keys().map(ToString::to_string).collect();
        left.sort();
        assert_eq!(left, [1, 2, 4].map(|n| session(n).to_string()), "the third was noted at 5");
        let caps = Caps { sessions: 8, grants: 1 };
        let fold = folded(&(0..7).map(ledger).collect::<Vec<_>>());
        assert!(matches!(fold.admits(&[ledger(7)], caps), Err(Error::TooMany { what: "ledgers", cap: 7 })));
        assert!(fold.admits(&[quarantine(7)], caps).is_ok() && fold.admits(&[ledger(6)], caps).is_ok());
        // As a session is closed, and announced with what it has spent.
        assert!(fold.admits(&[quarantine(7), ledger(7)], caps).is_ok());
        assert!(fold.admits(&[announce(7), ledger(7)], caps).is_ok());
        for others in [[quarantine(8), ledger(7)], [release(7), ledger(7)], [ledger(7), quarantine(7)]] {
            assert!(matches!(fold.admits(&others, caps), Err(Error::TooMany { what: "ledgers", .. })), "{others:?}");
        }
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
        fold.prune(GROUP_MS + 1_500, &[], WEEK);
        assert_eq!(fold.groups.keys().collect::<Vec<_>>(), ["g1"]);
        let mut fold = folded(&(0..MAX_GROUPS).map(|n| group(n, 10)).collect::<Vec<_>>());
        let caps = Caps { sessions: 1, grants: 1 };
        assert!(matches!(fold.admits(&[group(MAX_GROUPS, 20)], caps), Err(Error::TooMany { .. })));
        assert!(fold.admits(&[group(0, 20)], caps).is_ok(), "what is known is admitted");
        let later = group(MAX_GROUPS, GROUP_MS + 10);
        assert!(fold.admits(std::slice::from_ref(&later), caps).is_ok());
        fold.record(&later, || 0, || 0);
        assert_eq!(fold.groups.len(), 1, "what has ended made room");
    }

    #[test]
    fn cursors_only_go_forward() {
        let delivered = |seq, nth| Record::Delivered { alert: "a".into(), sink: "soc".into(), seq, nth };
        let fold = folded(&[delivered(5, 2), delivered(3, 1)]);
        assert_eq!(fold.sinks["soc"], Cursor { seq: 5, nth: 2 });
    }
}
