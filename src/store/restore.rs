//! What stood when the store was last used, put together from journal and index.
//!
//! Pure. Between [`super::recover`] and [`super::index`], which read, and [`super::Store::open`]. The journal goes first; the
//! index is believed where it can only be on the safe side.

use std::collections::HashMap;

use staunch_scoring::{GroupSnapshot, StateSnapshot};

use super::fold::Fold;
use super::handle::{Backlog, Options, Quarantined, Recovered, Said};
use super::index::Op;
use super::index::entry::Entry;
use super::index::thread::Held;
use super::recover::{Damage, Live};
use super::{Record, rfc3339, unix_ms};
use crate::model::SessionId;

/// Where acknowledged records may be gone from the journal, quarantines that the index still knows are taken over:
/// the safe side. A release may be among what was lost; then an operator releases again.
pub(super) fn adopt(fold: &Fold<Live>, held: &Held, head: u64, damage: &mut Damage) -> Vec<Record> {
    damage.journal_short = held.applied > head;
    if !damage.lacks_records() {
        return Vec::new();
    }
    let adopted: Vec<Record> = held
        .quarantines
        .iter()
        .filter(|entry| match &entry.record {
            Record::Quarantine { session, .. } => {
                fold.sessions.get(session).is_none_or(|known| known.quarantine.is_none())
            }
            _ => false,
        })
        .map(|entry| entry.record.clone())
        .collect();
    damage.adopted = adopted.len() as u64;
    adopted
}

/// What stood, as the rest of the daemon is told of it.
pub(super) fn recovered(
    fold: &Fold<Live>,
    held: &Held,
    ledgers: &[Told],
    adopted: &[Record],
    options: &Options,
    now: u64,
    damage: Damage,
) -> Recovered {
    let mut sessions: Vec<(u64, Said)> = Vec::new();
    let mut out = Recovered { damage, learned: held.learned.clone(), ..Recovered::default() };
    let kept = fold.sessions.values().flat_map(|s| [&s.announce, &s.quarantine]).flatten();
    for live in kept.chain(fold.grants.values().map(|(_, live)| live)).chain(&fold.policy) {
        match &*live.record {
            Record::Announce { announcement, entry } => {
                sessions.push((live.seq, Said { announcement: announcement.clone(), entry: *entry }));
            }
            // One that was taken back has not come again where the clock was set back since.
            Record::Grant { grant } if grant.withdrawn.is_some() => {}
            Record::Grant { grant } => out.grants.push(grant.clone()),
            Record::Policy { digest, learned, enforced, ranges } => {
                out.ranges = ranges.clone();
                out.policy = Some(digest.clone());
                out.enforced = *enforced;
                out.in_force = learned.clone();
            }
            quarantine => out.quarantined.extend(quarantined(quarantine, &live.time)),
        }
    }
    sessions.sort_unstable_by_key(|(seq, _)| std::cmp::Reverse(*seq));
    out.sessions = sessions.into_iter().map(|(_, said)| said).collect();
    for record in adopted {
        out.quarantined.extend(quarantined(record, &rfc3339(now)));
    }
    out.groups = groups(fold, held, options, now);
    out.ledgers = ledgers.iter().map(|told| (told.session.clone(), told.state.clone())).collect();
    let alerts = fold.alerts;
    let behind = |sink: &String| fold.sinks.get(sink).map_or(0, |cursor| alerts.saturating_sub(cursor.nth));
    let backlog = |sink: &String| Backlog { sink: sink.clone(), alerts: behind(sink) };
    out.undelivered = options.sinks.iter().map(backlog).collect();
    out.unclaimed = fold.sinks.keys().filter(|sink| !options.sinks.contains(sink)).map(backlog).collect();
    out.unclaimed.retain(|backlog| backlog.alerts > 0);
    out.unclaimed.sort_by(|a, b| a.sink.cmp(&b.sink));
    out
}

/// A session's ledger as journal and index know it together.
pub(super) struct Told {
    pub(super) session: SessionId,
    /// Journal sequence up to which it is known.
    pub(super) seq: u64,
    /// RFC 3339.
    pub(super) time: String,
    pub(super) state: StateSnapshot,
}

impl Told {
    /// What the index keeps of it.
    pub(super) fn entry(self) -> Entry {
        let Self { session, seq, time, state } = self;
        Entry { seq, time, record: Record::Ledger { session, state } }
    }
}

/// Every session's ledger: the steps of the journal put on one another, or the copy in the index where that knows more.
pub(super) fn ledgers(fold: &Fold<Live>, held: &Held, options: &Options, now: u64) -> Vec<Told> {
    let mut copies: HashMap<&SessionId, (&Entry, &StateSnapshot)> = HashMap::new();
    for entry in held.ledgers.iter().filter(|entry| is_wanted(entry, fold, options, now)) {
        if let Record::Ledger { session, state } = &entry.record {
            copies.insert(session, (entry, state));
        }
    }
    let mut all = Vec::new();
    for (session, ledger) in fold.sessions.iter().filter_map(|(id, session)| Some((id, session.ledger.as_ref()?))) {
        let copy = copies.remove(session);
        let Some(last) = ledger.steps.last() else { continue };
        let state = together(&ledger.steps, copy.map(|(entry, state)| (entry.seq, state)));
        if !state.is_complete() {
            tracing::warn!(%session, "steps of a ledger are missing; what they may have charged is charged to every domain");
        }
        let seq = copy.map_or(0, |(entry, _)| entry.seq).max(last.seq);
        all.push(Told { session: session.clone(), seq, time: last.time.clone(), state });
    }
    all.extend(copies.into_iter().map(|(session, (entry, state))| Told {
        session: session.clone(),
        seq: entry.seq,
        time: entry.time.clone(),
        state: state.clone(),
    }));
    all
}

/// The steps of a journal and a copy made at a sequence, as one.
fn together(steps: &[Live], copy: Option<(u64, &StateSnapshot)>) -> StateSnapshot {
    let states = || {
        steps.iter().filter_map(|live| match &*live.record {
            Record::Ledger { state, .. } => Some(state),
            _ => None,
        })
    };
    let journal = states().cloned().reduce(StateSnapshot::then).unwrap_or_default().alone();
    let Some((at, copy)) = copy else { return journal };
    let (first, last) = (steps.first().map_or(0, |live| live.seq), steps.last().map_or(0, |live| live.seq));
    if !copy.is_of(&journal) || copy.step() == 0 && journal.step() == 0 {
        // Of another life, or of a version that did not count: the later one.
        return if at >= last { copy.clone() } else { journal };
    }
    if journal.is_complete() && (at < first || copy.step() < journal.step()) {
        return journal;
    }
    states().filter(|state| state.step() > copy.step()).cloned().fold(copy.clone(), StateSnapshot::then)
}

/// Groups as journal and index know them together: the journal every step of their spending, the index the rest of it
/// and the names.
fn groups(fold: &Fold<Live>, held: &Held, options: &Options, now: u64) -> Vec<(String, GroupSnapshot)> {
    let mut groups: HashMap<&str, GroupSnapshot> = HashMap::new();
    let journalled = fold.groups.values().map(|(_, live)| &*live.record);
    let indexed = held.groups.iter().filter(|entry| is_wanted(entry, fold, options, now)).map(|entry| &entry.record);
    for record in journalled.chain(indexed) {
        if let Record::Group { group, state, .. } = record {
            let known = groups.remove(group.as_str());
            groups.insert(group, known.map_or_else(|| state.clone(), |known| known.merge(state.clone())));
        }
    }
    groups.into_iter().map(|(group, state)| (group.to_owned(), state)).collect()
}

/// A quarantine record with the time of its line.
pub(super) fn quarantined(record: &Record, time: &str) -> Option<Quarantined> {
    let Record::Quarantine { session, case, reason, by, note, since, addresses } = record else { return None };
    Some(Quarantined {
        session: session.clone(),
        case: *case,
        reason: *reason,
        by: by.clone(),
        note: note.clone(),
        since: since.unwrap_or_else(|| unix_ms(time)),
        addresses: addresses.clone(),
    })
}

/// Whether a ledger in the index is still of use: its session is known, or it is recent. A group's names are of use
/// after its spending has ended.
fn is_wanted(entry: &Entry, fold: &Fold<Live>, options: &Options, now: u64) -> bool {
    match &entry.record {
        Record::Ledger { session, .. } if fold.sessions.contains_key(session) => return true,
        Record::Ledger { .. } | Record::Group { .. } => {}
        _ => return false,
    }
    // One from the future was noted before the clock was set back.
    u128::from(now.saturating_sub(unix_ms(&entry.time))) <= options.keep_ledgers.as_millis()
}

/// Removes ledgers from the index that are of no use any more.
pub(super) fn stale_ledgers(fold: &Fold<Live>, held: &Held, options: &Options, now: u64) -> Vec<Op> {
    let stale = held.ledgers.iter().chain(&held.groups).filter(|entry| !is_wanted(entry, fold, options, now));
    stale.filter_map(|entry| Entry::place(&entry.record)).map(|(tree, key)| Op::Delete(tree, key)).collect()
}
