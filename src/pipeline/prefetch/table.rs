//! Which questions are popular, and until when.
//!
//! Knows no clock and no upstream. What stands here is part of what an upstream sees, so it is decided by nothing but
//! questions that left and were charged: it is never told of an answer from the cache.

use std::sync::{Arc, Weak};

use foldhash::quality::RandomState;
use hashbrown::HashMap;
use parking_lot::Mutex;

use crate::cache::Key;
use crate::pipeline::refresh::Question;
use crate::session::Session;

/// How long a first asker is remembered, and how long a popular question is asked for nobody, milliseconds. Chosen without
/// a source: an hour of a working day.
const STAY: u64 = 3_600_000;
/// Popular questions at most: some twenty queries a second where all of them live for a minute.
const POPULAR: usize = 1024;
/// Questions that one asker has asked for.
const SEEN: usize = 4096;
/// Sessions of a question that are remembered: one of them must still be allowed to ask it.
const SESSIONS: usize = 4;

/// A question on its way to being popular, or popular.
#[derive(Debug)]
struct Asked {
    /// The first asker: an owner's sessions together, or one session without an owner.
    first: u64,
    sessions: Vec<Weak<Session>>,
    is_popular: bool,
    /// When it is forgotten.
    until: u64,
    /// Not to be asked before.
    not_before: u64,
}

#[derive(Debug, Default)]
struct All {
    asked: HashMap<Question, Asked, RandomState>,
    /// Before that nothing ends of what stands here since it was full last, and so there is nothing to look for.
    full_until: u64,
}

/// All of them. Its lock is taken behind no other.
#[derive(Debug, Default)]
pub(super) struct Table {
    all: Mutex<All>,
}

/// What became of a question that left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Noted {
    /// It is not popular, or was before.
    Same,
    /// It is popular from now on.
    Popular,
    /// There was no room for it.
    Full,
}

impl Table {
    /// A question of `session` left and was charged at `now`, milliseconds. `who` stands for the session's owner.
    pub fn note(&self, key: Key<'_>, who: u64, session: &Arc<Session>, now: u64) -> Noted {
        let mut all = self.all.lock();
        let All { asked, full_until } = &mut *all;
        let question = Question::of(key);
        if let Some(known) = asked.get_mut(&question).filter(|known| now < known.until) {
            if known.sessions.len() < SESSIONS
                && !known.sessions.iter().any(|had| std::ptr::eq(had.as_ptr(), &**session))
            {
                known.sessions.push(Arc::downgrade(session));
            }
            if known.is_popular || known.first == who {
                return Noted::Same;
            }
            // All are looked at for one that would be popular, and not for each question that leaves.
            if asked.values().filter(|asked| asked.is_popular && now < asked.until).count() >= POPULAR {
                return Noted::Full;
            }
            if let Some(known) = asked.get_mut(&question) {
                (known.is_popular, known.until) = (true, now.saturating_add(STAY));
            }
            return Noted::Popular;
        }
        if asked.len() >= SEEN + POPULAR && !asked.contains_key(&question) {
            if now < *full_until {
                return Noted::Full;
            }
            asked.retain(|_, known| now < known.until);
            if asked.len() >= SEEN + POPULAR {
                *full_until = asked.values().map(|known| known.until).min().unwrap_or(0);
                return Noted::Full;
            }
        }
        let first = Asked {
            first: who,
            sessions: vec![Arc::downgrade(session)],
            is_popular: false,
            until: now.saturating_add(STAY),
            not_before: 0,
        };
        asked.insert(question, first);
        Noted::Same
    }

    /// Popular questions that may be asked at `now`, and the sessions to judge them for.
    pub fn popular(&self, now: u64) -> Vec<(Question, Vec<Arc<Session>>)> {
        let asked = &mut self.all.lock().asked;
        asked.retain(|_, known| now < known.until);
        let due = asked.iter().filter(|(_, known)| known.is_popular && now >= known.not_before);
        let sessions = |known: &Asked| known.sessions.iter().filter_map(Weak::upgrade).collect();
        due.map(|(question, known)| (question.clone(), sessions(known))).collect()
    }

    /// Leaves a question alone until then.
    pub fn rest(&self, question: &Question, until: u64) {
        if let Some(known) = self.all.lock().asked.get_mut(question) {
            known.not_before = until;
        }
    }

    /// Forgets everything (after a change of rules).
    pub fn clear(&self) {
        *self.all.lock() = All::default();
    }

    /// Popular questions.
    pub fn len(&self) -> usize {
        self.all.lock().asked.values().filter(|known| known.is_popular).count()
    }
}

#[cfg(test)]
mod tests {
    use staunch_scoring::NameBuf;

    use super::*;
    use crate::model::{Announcement, Qtype, SessionId, SessionType};
    use crate::session::Context;

    fn session(id: &str) -> Arc<Session> {
        let id = SessionId::new(id).expect("id");
        let announcement = Announcement::without_sandbox(id, SessionType::Batch);
        Arc::new(Session::shared(Arc::new(Context::new(announcement, true))))
    }

    fn name(n: usize) -> NameBuf {
        NameBuf::from_text(&format!("n{n}.site.example")).expect("name")
    }

    fn key(name: &NameBuf) -> Key<'_> {
        Key {
            qname: name.as_ref(),
            qtype: Qtype::A,
            dnssec_ok: false,
            checking_disabled: false,
            partition: crate::partition::Partition::ALL,
        }
    }

    #[test]
    fn two_askers_make_it_popular_for_an_hour_whoever_asks_again() {
        let (table, a, b, www) = (Table::default(), session("a"), session("b"), name(1));
        for now in [0, 10, 20] {
            assert_eq!(table.note(key(&www), 7, &a, now), Noted::Same, "one alone, however often");
        }
        assert_eq!(table.note(key(&www), 8, &b, 1_000), Noted::Popular);
        assert_eq!(table.note(key(&www), 9, &b, 2_000), Noted::Same, "nothing is gained by asking more");
        assert_eq!(table.popular(1_000 + STAY - 1)[0].1.len(), 2);
        assert!(table.popular(1_000 + STAY).is_empty());
        assert_eq!((table.note(key(&www), 8, &b, 1_000 + STAY), table.len()), (Noted::Same, 0), "earned anew");
    }

    #[test]
    fn a_first_asker_is_forgotten_and_a_type_is_another_question() {
        let (table, a, b, www) = (Table::default(), session("a"), session("b"), name(1));
        table.note(key(&www), 7, &a, 0);
        assert_eq!(table.note(Key { qtype: Qtype::AAAA, ..key(&www) }, 8, &b, 1), Noted::Same);
        assert_eq!(table.note(key(&www), 8, &b, STAY), Noted::Same);
        assert_eq!(table.note(key(&www), 7, &a, STAY + 1), Noted::Popular);
    }

    #[test]
    fn rest_is_kept_and_sessions_that_are_gone_are_not_judged_for() {
        let (table, a, b, www) = (Table::default(), session("a"), session("b"), name(1));
        table.note(key(&www), 7, &a, 0);
        table.note(key(&www), 8, &b, 0);
        drop(a);
        let due = table.popular(5);
        assert!(due.len() == 1 && due[0].1.len() == 1 && Arc::ptr_eq(&due[0].1[0], &b));
        table.rest(&due[0].0, 100);
        assert_eq!((table.popular(99).len(), table.popular(100).len()), (0, 1));
        table.clear();
        assert!(table.popular(100).is_empty());
    }

    #[test]
    fn full_tables_take_nothing_until_something_ends() {
        let (table, a, b) = (Table::default(), session("a"), session("b"));
        for n in 0..=POPULAR {
            table.note(key(&name(n)), 7, &a, 0);
            let noted = table.note(key(&name(n)), 8, &b, 10);
            assert_eq!(noted, if n < POPULAR { Noted::Popular } else { Noted::Full }, "{n}");
        }
        let mut n = POPULAR + 1;
        while table.note(key(&name(n)), 7, &a, 20) == Noted::Same {
            n += 1;
        }
        assert_eq!(n, SEEN + POPULAR);
        assert_eq!(table.note(key(&name(n)), 7, &a, STAY + 10), Noted::Same, "room again");
    }
}
