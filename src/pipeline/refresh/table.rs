//! Which questions are asked again on the resolver's clock, and for which sessions.
//!
//! Knows no clock and no upstream: ticks are numbers, and what is due is taken out by the caller.
//!
//! Which questions stand here is part of what an upstream sees, so it may depend on nothing but what is paid for: a
//! question stays as long as its tenant is in use, whether or not it is asked itself, and none is put out to make room
//! for another.

use std::sync::{Arc, Weak};

use foldhash::quality::RandomState;
use hashbrown::{HashMap, HashSet};
use parking_lot::Mutex;
use staunch_scoring::NameBuf;

use crate::cache::Key;
use crate::model::Qtype;
use crate::partition::Partition;
use crate::session::Session;

/// Most questions of one session under one tenant. Chosen without a source: a tick's answers stay few.
const OF_TENANT: usize = 64;
/// Most questions of all sessions together: what an upstream can be made to answer every tick, 137 a second at most on
/// average. Filling it up keeps other sessions' held names at their age; each place in it costs the one who fills it.
const ALL: usize = 16_384;
/// Ticks without use after which a tenant's questions are forgotten; they pay for entering again.
const IDLE: u64 = 10;

/// A question that was held, with all that may leave of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::pipeline) struct Question {
    pub qname: NameBuf,
    pub qtype: Qtype,
    pub dnssec_ok: bool,
    pub checking_disabled: bool,
    pub partition: Partition,
}

impl Question {
    pub fn key(&self) -> Key<'_> {
        Key {
            qname: self.qname.as_ref(),
            qtype: self.qtype,
            dnssec_ok: self.dnssec_ok,
            checking_disabled: self.checking_disabled,
            partition: self.partition,
        }
    }

    pub fn of(key: Key<'_>) -> Self {
        Self {
            qname: key.qname.to_owned(),
            qtype: key.qtype,
            dnssec_ok: key.dnssec_ok,
            checking_disabled: key.checking_disabled,
            partition: key.partition,
        }
    }

    fn is(&self, key: Key<'_>) -> bool {
        let flags = (self.dnssec_ok, self.checking_disabled) == (key.dnssec_ok, key.checking_disabled);
        flags && (self.qtype, self.partition) == (key.qtype, key.partition) && self.qname.as_ref() == key.qname
    }
}

/// A question to ask, and the sessions it is asked for.
pub(super) type Due = (Question, Vec<Arc<Session>>);

/// Questions of one session under one tenant.
#[derive(Debug)]
struct Set {
    session: Weak<Session>,
    questions: Vec<Question>,
    /// The last tick it was in use.
    active: u64,
    /// The first tick in use that was not yet followed by an asking.
    due: Option<u64>,
}

impl Set {
    fn is_of(&self, session: &Session) -> bool {
        std::ptr::eq(self.session.as_ptr(), session)
    }
}

#[derive(Debug, Default)]
struct Sets {
    by_tenant: HashMap<u64, Set, RandomState>,
    /// Over all sets.
    questions: usize,
}

impl Sets {
    fn retain(&mut self, keep: impl FnMut(&u64, &mut Set) -> bool) {
        self.by_tenant.retain(keep);
        self.questions = self.by_tenant.values().map(|set| set.questions.len()).sum();
    }
}

/// All questions that are asked again. Its lock is taken behind a session's, never the other way round.
#[derive(Debug, Default)]
pub(super) struct Table {
    sets: Mutex<Sets>,
}

impl Table {
    /// Whether a question would enter; `None` where there is no room for it. `tenant` is a hash of session and tenant.
    pub fn look(&self, tenant: u64, session: &Session, key: Key<'_>) -> Option<bool> {
        let sets = self.sets.lock();
        let (known, of_tenant) = match sets.by_tenant.get(&tenant).filter(|set| set.is_of(session)) {
            Some(set) => (set.questions.iter().any(|question| question.is(key)), set.questions.len()),
            None => (false, 0),
        };
        let room = of_tenant < OF_TENANT && sets.questions < ALL;
        (known || room).then_some(!known)
    }

    /// Has the tenant's questions asked again after `tick`, this one among them from now on. Whether it is new among
    /// them; `None`, and nothing changed, where there is no room for it, or the tick was `paid` for by another tenant
    /// alone: domains beyond the scorer's table share an account, and an upstream tells them apart.
    pub fn note(&self, tenant: u64, session: &Arc<Session>, key: Key<'_>, tick: u64, paid: bool) -> Option<bool> {
        let mut sets = self.sets.lock();
        // An earlier session of the same name, which has gone without a word.
        if sets.by_tenant.get(&tenant).is_some_and(|set| !set.is_of(session)) {
            sets.retain(|other, _| *other != tenant);
        }
        let all = sets.questions;
        let known = sets.by_tenant.get_mut(&tenant);
        if paid && known.as_ref().is_none_or(|set| set.active < tick) {
            return None;
        }
        let entered = known.as_ref().is_none_or(|set| !set.questions.iter().any(|question| question.is(key)));
        if entered && (all >= ALL || known.as_ref().is_some_and(|set| set.questions.len() >= OF_TENANT)) {
            return None;
        }
        let set = match known {
            Some(set) => set,
            None => sets.by_tenant.entry(tenant).or_insert_with(|| Set {
                session: Arc::downgrade(session),
                questions: Vec::new(),
                active: tick,
                due: None,
            }),
        };
        if entered {
            set.questions.push(Question::of(key));
        }
        set.active = set.active.max(tick);
        set.due.get_or_insert(tick);
        if entered {
            sets.questions += 1;
        }
        Some(entered)
    }

    /// What is to be asked now that `tick` has begun, each question once; what is out of use is forgotten.
    pub fn take(&self, tick: u64) -> Vec<Due> {
        let mut due: HashMap<Question, Vec<Arc<Session>>, RandomState> = HashMap::default();
        self.sets.lock().retain(|_, set| {
            let Some(session) = set.session.upgrade() else { return false };
            if tick.saturating_sub(set.active) > IDLE {
                return false;
            }
            if set.due.is_some_and(|first| first < tick) {
                // Used in this tick already: that is for the end of this one.
                set.due = (set.active >= tick).then_some(set.active);
                for question in &set.questions {
                    due.entry(question.clone()).or_default().push(session.clone());
                }
            }
            true
        });
        due.into_iter().collect()
    }

    /// Forgets a session that was closed or has ended.
    pub fn forget(&self, session: &Session) {
        self.sets.lock().retain(|_, set| !set.is_of(session));
    }

    /// Forgets every question (after a change of rules); which ticks are paid for is still known.
    pub fn clear(&self) {
        self.sets.lock().retain(|_, set| {
            set.questions = Vec::new();
            true
        });
    }

    /// Questions of all sessions.
    pub fn len(&self) -> usize {
        self.sets.lock().questions
    }

    /// Distinct names of one session.
    pub fn names_of(&self, session: &Session) -> usize {
        let sets = self.sets.lock();
        let of_session = sets.by_tenant.values().filter(|set| set.is_of(session));
        of_session.flat_map(|set| &set.questions).map(|question| &question.qname).collect::<HashSet<_>>().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Announcement, SessionId, SessionType};
    use crate::session::Context;

    fn session(id: &str) -> Arc<Session> {
        let announcement = Announcement {
            id: SessionId::new(id).expect("id"),
            addresses: Vec::new(),
            kind: SessionType::Batch,
            phase: None,
            owner: None,
            search: Vec::new(),
        };
        Arc::new(Session::shared(Arc::new(Context::new(announcement, true))))
    }

    fn name(text: &str) -> NameBuf {
        NameBuf::from_text(text).expect("name")
    }

    fn key(name: &NameBuf) -> Key<'_> {
        Key {
            qname: name.as_ref(),
            qtype: Qtype::A,
            dnssec_ok: false,
            checking_disabled: false,
            partition: Partition::ALL,
        }
    }

    #[test]
    fn a_question_enters_once_and_is_asked_in_each_tick_of_use() {
        let (table, session, www) = (Table::default(), session("a"), name("www.site.example"));
        assert_eq!((table.look(1, &session, key(&www)), table.len()), (Some(true), 0));
        assert_eq!(table.note(1, &session, key(&www), 5, false), Some(true));
        assert_eq!(table.note(1, &session, key(&www), 5, false), Some(false));
        assert_eq!(table.look(1, &session, key(&www)), Some(false));
        assert_eq!(
            table.note(1, &session, Key { qtype: Qtype::AAAA, ..key(&www) }, 5, false),
            Some(true),
            "by its whole key"
        );
        assert_eq!((table.len(), table.names_of(&session)), (2, 1));
        assert!(table.take(5).is_empty(), "the tick is not over");
        assert_eq!(table.take(6).len(), 2);
        assert!(table.take(6).is_empty() && table.take(7).is_empty(), "out of use, it is not asked");
        assert_eq!(table.note(1, &session, key(&www), 8, false), Some(false), "and is still known");
        assert_eq!(table.take(9).len(), 2, "all of the tenant's, whichever was asked");
    }

    #[test]
    fn use_in_two_ticks_is_two_askings_however_late_the_first_is() {
        let (table, session, www) = (Table::default(), session("a"), name("www.site.example"));
        table.note(1, &session, key(&www), 5, false);
        table.note(1, &session, key(&www), 6, false);
        assert_eq!((table.take(6).len(), table.take(6).len(), table.take(7).len()), (1, 0, 1));
        assert!(table.take(8).is_empty());
    }

    #[test]
    fn what_several_sessions_hold_is_asked_once() {
        let (table, www) = (Table::default(), name("www.site.example"));
        let (a, b) = (session("a"), session("b"));
        table.note(1, &a, key(&www), 5, false);
        table.note(2, &b, key(&www), 5, false);
        let due = table.take(6);
        assert_eq!((due.len(), due[0].1.len()), (1, 2));
    }

    #[test]
    fn idle_tenants_and_sessions_that_are_gone_are_forgotten() {
        let (table, www) = (Table::default(), name("www.site.example"));
        let (a, b, c) = (session("a"), session("b"), session("c"));
        for (tenant, session) in [(1, &a), (2, &b), (3, &c)] {
            table.note(tenant, session, key(&www), 5, false);
        }
        table.forget(&b);
        drop(c);
        assert_eq!(table.len(), 2);
        let due = table.take(6);
        assert!(due[0].1.len() == 1 && Arc::ptr_eq(&due[0].1[0], &a), "{due:?}");
        table.take(15);
        assert_eq!(table.len(), 1, "ten ticks");
        table.take(16);
        assert_eq!(table.len(), 0);
        assert_eq!(table.note(1, &a, key(&www), 16, false), Some(true), "it enters anew");
        table.clear();
        assert_eq!((table.len(), table.take(17).len()), (0, 0));
    }

    #[test]
    fn a_later_session_of_the_same_name_enters_anew() {
        let (table, www) = (Table::default(), name("www.site.example"));
        let (first, second) = (session("a"), session("a"));
        table.note(1, &first, key(&www), 5, false);
        assert_eq!(table.look(1, &second, key(&www)), Some(true));
        assert_eq!(table.note(1, &second, key(&www), 5, false), Some(true));
        let due = table.take(6);
        assert!(table.len() == 1 && due.len() == 1 && Arc::ptr_eq(&due[0].1[0], &second), "{due:?}");
    }

    #[test]
    fn a_tick_is_paid_for_by_the_tenant_that_uses_it() {
        let (table, a, www) = (Table::default(), session("a"), name("www.site.example"));
        assert_eq!(table.note(1, &a, key(&www), 5, true), None, "another one's");
        assert_eq!(table.note(1, &a, key(&www), 5, false), Some(true));
        assert_eq!(table.note(1, &a, key(&www), 5, true), Some(false));
        assert_eq!(table.note(1, &a, key(&www), 6, true), None);
        table.clear();
        assert_eq!((table.note(1, &a, key(&www), 5, true), table.len()), (Some(true), 1), "paid for before the reload");
    }

    #[test]
    fn a_full_table_takes_nothing_and_forgets_nothing() {
        let (table, a) = (Table::default(), session("a"));
        let nth = |n: usize| name(&format!("n{n}.site.example"));
        for n in 0..OF_TENANT {
            assert_eq!(table.note(0, &a, key(&nth(n)), 5, false), Some(true));
        }
        assert_eq!((table.look(0, &a, key(&nth(99))), table.note(0, &a, key(&nth(99)), 6, false)), (None, None));
        assert!(table.take(6).len() == OF_TENANT && table.take(7).is_empty(), "it has not used the tick either");
        assert_eq!(table.note(0, &a, key(&nth(0)), 7, false), Some(false), "what is in stays in");
        for n in OF_TENANT..ALL {
            assert_eq!(table.note((n / OF_TENANT) as u64, &a, key(&nth(n)), 7, false), Some(true));
        }
        assert_eq!(table.note(u64::MAX, &a, key(&nth(0)), 7, false), None);
        assert_eq!(table.note(0, &a, key(&nth(0)), 7, false), Some(false));
        assert_eq!(table.len(), ALL);
    }
}
