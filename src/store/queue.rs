//! Calls that wait for the journal: what they hold, and which a later one makes superfluous.
//!
//! Between [`super::Store`], which fills the queue, and [`super::writer`], which empties it. Knows no file.

use std::collections::{HashMap, HashSet, VecDeque};
use std::mem;

use tokio::sync::oneshot;

use super::journal::Item;
use super::line::{Json, MAX_LINE};
use super::{Error, Record, rfc3339};

/// The records of one call.
pub(super) struct Group {
    pub(super) records: Vec<Record>,
    /// Their lines; empty until [`Group::write_out`].
    items: Vec<Item>,
    /// When it was called, Unix milliseconds.
    pub(super) at: u64,
    /// Octets held, roughly.
    pub(super) octets: usize,
    /// `None` once answered, and where nobody wants an answer.
    reply: Option<oneshot::Sender<Result<u64, Error>>>,
}

/// Octets that a note holds in memory before its line is made, roughly.
const NOTE_OCTETS: usize = 512;

impl Group {
    /// A call that wants an answer. Its lines are made here: what cannot be written is refused to the caller.
    pub(super) fn call(
        records: Vec<Record>,
        at: u64,
        reply: oneshot::Sender<Result<u64, Error>>,
    ) -> Result<Self, Error> {
        let mut group = Self { records, items: Vec::new(), at, octets: 0, reply: Some(reply) };
        group.write_out()?;
        Ok(group)
    }

    /// A fact of which nobody waits to hear. Its line is made when it is written.
    pub(super) fn note(record: Record, at: u64) -> Self {
        Self { records: vec![record], items: Vec::new(), at, octets: NOTE_OCTETS, reply: None }
    }

    /// Makes the lines, unless they are made.
    pub(super) fn write_out(&mut self) -> Result<(), Error> {
        if !self.items.is_empty() {
            return Ok(());
        }
        let count = self.records.len();
        let time = rfc3339(self.at);
        let (mut items, mut octets) = (Vec::with_capacity(count), 0);
        for (at, record) in self.records.iter().enumerate() {
            let json = Json::record(record).map_err(|error| Error::Encode(std::sync::Arc::new(error)))?;
            if json.line_len() > MAX_LINE {
                return Err(Error::TooLarge { octets: json.line_len() });
            }
            octets += 2 * json.line_len();
            items.push(Item { time: time.clone(), json, more: at + 1 < count });
        }
        (self.items, self.octets) = (items, octets);
        Ok(())
    }

    /// Its lines, once they are made.
    pub(super) fn items(&self) -> &[Item] {
        &self.items
    }

    pub(super) fn awaited(&self) -> bool {
        self.reply.as_ref().is_some_and(|reply| !reply.is_closed())
    }

    pub(super) fn answer(&mut self, result: Result<u64, Error>) {
        if let Some(reply) = self.reply.take() {
            // The caller may have stopped waiting.
            let _ = reply.send(result);
        }
    }

    /// Whether it is kept for later when it cannot be written now. The end of a session too: it is over in any case, and whoever
    /// has its addresses next is to have them behind a restart as well.
    pub(super) fn tightens(&self) -> bool {
        !self.records.iter().any(|record| match record {
            Record::Release { .. } => true,
            Record::Grant { grant } => grant.withdrawn.is_none(),
            _ => false,
        })
    }

    /// Whether it tells of a decision that nobody says anew: an alert or a quarantine.
    pub(super) fn decides(&self) -> bool {
        self.records.iter().any(|r| matches!(r, Record::Alert { .. } | Record::Quarantine { .. }))
    }

    /// Takes in what `older`, which waits before it and is of the same key, says and it does not; `false` where the two
    /// cannot be one.
    fn absorb(&mut self, older: &mut Self) -> bool {
        let ([newer], [old]) = (self.records.as_mut_slice(), older.records.as_mut_slice()) else { return false };
        match (newer, old) {
            (Record::Ledger { state, .. }, Record::Ledger { state: old, .. }) => {
                if !old.is_followed_by(state) {
                    return false;
                }
                if !state.is_whole() {
                    *state = mem::take(old).then(mem::take(state));
                    self.items.clear();
                }
            }
            // Noted by several sessions at once, so the later one need not say more.
            (Record::Group { state, .. }, Record::Group { state: old, .. }) => {
                *state = mem::take(old).merge(mem::take(state));
                self.items.clear();
            }
            // A cursor only goes forward.
            (Record::Delivered { .. }, Record::Delivered { .. }) => {}
            _ => return false,
        }
        true
    }

    /// What later calls say anew, alone in its call.
    fn key(&self) -> Option<Key> {
        match self.records.as_slice() {
            [Record::Ledger { session, .. }] => Some(Key::Ledger(session.as_str().to_owned())),
            [Record::Delivered { sink, .. }] => Some(Key::Delivered(sink.clone())),
            [Record::Group { group, .. }] => Some(Key::Group(group.clone())),
            _ => None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Ledger(String),
    Delivered(String),
    Group(String),
}

/// Removes calls that nobody waits for and that later ones of the same key say anew; a ledger's steps become one. What
/// stands between two calls stays between them: a call of several records, or of another kind, ends the search. Which alert
/// was taken when is evidence, so deliveries become one only where `failing` makes them pile up.
pub(super) fn coalesce(queue: &mut VecDeque<Group>, failing: bool) {
    let mut newest: HashMap<Key, usize> = HashMap::new();
    let mut gone: HashSet<usize> = HashSet::new();
    let queue_slice = queue.make_contiguous();
    for at in 0..queue_slice.len() {
        let (before, rest) = queue_slice.split_at_mut(at);
        let Some(group) = rest.first_mut() else { break };
        let key = match group.key() {
            Some(Key::Delivered(_)) if !failing => continue,
            Some(key) => key,
            None => {
                newest.clear();
                continue;
            }
        };
        if let Some(&older) = newest.get(&key)
            && let Some(older_group) = before.get_mut(older)
            && !older_group.awaited()
            && group.absorb(older_group)
        {
            gone.insert(older);
        }
        newest.insert(key, at);
    }
    if !gone.is_empty() {
        let mut at = 0;
        queue.retain(|_| {
            at += 1;
            !gone.contains(&(at - 1))
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::{Asks, announce, quarantine, session};

    fn ledger(n: u32, asks: &mut Asks) -> Record {
        asks.ask(3);
        Record::Ledger { session: session(n), state: asks.state.step() }
    }

    fn notes(records: Vec<Record>) -> VecDeque<Group> {
        records.into_iter().map(|record| Group::note(record, 7)).collect()
    }

    fn steps(queue: &VecDeque<Group>, n: u32) -> Vec<staunch_scoring::StateSnapshot> {
        let of = |record: &Record| match record {
            Record::Ledger { session: of, state } if *of == session(n) => Some(state.clone()),
            _ => None,
        };
        queue.iter().flat_map(|group| group.records.iter().filter_map(of)).collect()
    }

    #[test]
    fn steps_become_one_and_say_the_same() {
        let (mut one, mut two) = (Asks::default(), Asks::default());
        one.ask(100);
        let base = one.state.step();
        let records = vec![ledger(1, &mut one), ledger(2, &mut two), ledger(1, &mut one), ledger(1, &mut one)];
        let all = steps(&notes(records.clone()), 1);
        assert!(all.iter().all(|step| !step.is_whole()));
        let mut queue = notes(records);
        coalesce(&mut queue, false);
        assert_eq!(queue.len(), 2);
        let left = steps(&queue, 1);
        assert_eq!(left.len(), 1);
        let told = base.clone().then(left[0].clone());
        assert!(told.is_complete());
        assert_eq!(told, all.into_iter().fold(base, staunch_scoring::StateSnapshot::then));
    }

    #[test]
    fn a_whole_state_stands_for_what_waits_before_it() {
        let mut asks = Asks::default();
        asks.ask(100);
        drop(asks.state.step());
        let first = ledger(1, &mut asks);
        asks.state.retell();
        let mut queue = notes(vec![first, ledger(1, &mut asks)]);
        coalesce(&mut queue, false);
        assert!(matches!(&steps(&queue, 1)[..], [whole] if whole.is_whole()));
    }

    #[test]
    fn what_loses_something_is_left() {
        let mut asks = Asks::default();
        asks.ask(100);
        drop(asks.state.step());
        let [a, b, c] = [(); 3].map(|()| ledger(1, &mut asks));
        // The one in the middle is missing.
        let mut queue = notes(vec![a.clone(), c.clone()]);
        coalesce(&mut queue, false);
        assert_eq!(queue.len(), 2);
        // It is part of a call of several, which stays where it is.
        let (reply, _answer) = oneshot::channel();
        let mut queue = notes(vec![a.clone(), c.clone()]);
        queue.insert(1, Group::call(vec![quarantine(1), b.clone()], 7, reply).unwrap());
        coalesce(&mut queue, false);
        assert_eq!(queue.len(), 3);
        // Somebody waits for it.
        let (reply, _answer) = oneshot::channel();
        let mut queue = notes(vec![b]);
        queue.push_front(Group::call(vec![a], 7, reply).unwrap());
        coalesce(&mut queue, false);
        assert_eq!(queue.len(), 2);
        // Nothing is moved over the end of a session.
        let mut queue = notes(vec![c.clone(), Record::End { session: session(1) }, c, announce(1), announce(1)]);
        coalesce(&mut queue, false);
        assert_eq!(queue.len(), 5);
    }

    #[test]
    fn deliveries_become_one_only_while_the_disk_fails() {
        let delivered = |nth| Record::Delivered { alert: format!("a{nth}"), sink: "soc".into(), seq: nth, nth };
        let mut queue = notes(vec![delivered(1), delivered(2)]);
        coalesce(&mut queue, false);
        assert_eq!(queue.len(), 2);
        coalesce(&mut queue, true);
        let [left] = &queue.make_contiguous()[..] else { panic!("not one") };
        assert_eq!(left.records, [delivered(2)]);
    }

    #[test]
    fn a_groups_spending_is_that_of_the_note_that_says_most() {
        use staunch_scoring::{Bits, GroupSnapshot, GroupState};
        let mut state = GroupState::new(3);
        let mut spent = |bits: u32| {
            state.book(Asks::name(bits).as_ref(), Bits::whole(bits), 0);
            state.spending()
        };
        let (less, more) = (spent(64), spent(70));
        let record = |state: &GroupSnapshot| Record::Group { group: "a".into(), at: 1, state: state.clone() };
        let mut queue = notes(vec![record(&more), record(&less)]);
        coalesce(&mut queue, false);
        let [left] = &queue.make_contiguous()[..] else { panic!("not one") };
        assert_eq!(left.records, [record(&more)]);
    }

    #[test]
    fn a_note_is_written_out_once() {
        let mut group = Group::note(announce(1), 1_000);
        assert!(group.items().is_empty());
        group.write_out().unwrap();
        assert_eq!((group.items().len(), group.items()[0].time.as_str()), (1, "1970-01-01T00:00:01.000Z"));
        let huge =
            Record::Policy { digest: "x".repeat(2 << 20), learned: Vec::new(), enforced: false, ranges: Vec::new() };
        assert!(matches!(Group::note(huge, 1).write_out(), Err(Error::TooLarge { .. })));
    }
}
