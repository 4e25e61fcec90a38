//! Allowances given at run time, each with an end.
//!
//! A grant that covers a name beats deny rules, deny lists, `unlisted = "refuse"` and the score: a person looked at
//! this name and answers for it. It beats neither quarantine nor the ledger, and it adds no record types.
//!
//! The table is small and changes seldom: its owner keeps it behind an atomic pointer, copies it, changes the copy and
//! swaps.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::HashTable;
use staunch_scoring::NameRef;

use super::hash::{HashKey, Suffixes, fingerprint};
use super::{Reach, RuleForm};
use crate::event::RuleRef;
use crate::model::SessionId;
use crate::ports::Ports;

/// Most grants at once. They are typed by people; at this number something else is wrong.
pub const MAX_GRANTS: usize = 4096;

/// One allowance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowance {
    /// Its id.
    pub id: Arc<str>,
    /// Which names. Build it with [`RuleForm::parse`], which refuses public suffixes.
    pub form: RuleForm,
    /// For one session, or for all.
    pub session: Option<SessionId>,
    /// What is opened of these names' addresses, instead of the profile's ports.
    pub ports: Option<Ports>,
    /// When it ends, by [`crate::model::Wall::steady`]: it lasts as long as it was given for, whatever is done to the clock.
    pub until: u64,
    /// What is on record of it.
    pub given: Arc<Given>,
}

/// What is on record of an allowance, beside what it allows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Given {
    /// Who answers for it.
    pub owner: String,
    /// Why.
    pub reason: String,
    /// When it was given, milliseconds since the Unix epoch.
    pub from: u64,
    /// When it ends, milliseconds since the Unix epoch.
    pub until: u64,
}

impl Allowance {
    /// For records: a grant stands in no file.
    pub fn reference(&self) -> RuleRef {
        RuleRef { id: self.id.clone(), file: "grant".into(), line: 0 }
    }
}

/// No room for another grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{MAX_GRANTS} grants are in force: let some expire, or write a rule")]
pub struct TooManyGrants;

/// All grants in force.
#[derive(Clone)]
pub struct Grants {
    key: HashKey,
    by_name: HashTable<Vec<Allowance>>,
    len: usize,
    version: u64,
}

impl Grants {
    /// None yet.
    pub fn new(key: HashKey) -> Self {
        Self { key, by_name: HashTable::new(), len: 0, version: next_version() }
    }

    /// Adds a grant, in place of one with the same id.
    ///
    /// # Errors
    /// When [`MAX_GRANTS`] are there already.
    pub fn insert(&mut self, grant: Allowance) -> Result<(), TooManyGrants> {
        self.remove(&grant.id);
        if self.len >= MAX_GRANTS {
            return Err(TooManyGrants);
        }
        let hash = fingerprint(grant.form.name.as_ref(), &self.key);
        let wire = grant.form.name.as_ref().as_wire();
        match self.by_name.find_mut(hash, |held| is_for(held, wire)) {
            Some(held) => held.push(grant),
            None => {
                let key = self.key;
                self.by_name.insert_unique(hash, vec![grant], |held| {
                    held.first().map_or(0, |g| fingerprint(g.form.name.as_ref(), &key))
                });
            }
        }
        self.len += 1;
        self.version = next_version();
        Ok(())
    }

    /// Takes a grant out; whether it was there.
    pub fn remove(&mut self, id: &str) -> bool {
        self.retain(|grant| *grant.id != *id) != 0
    }

    /// Takes a session's own grants out.
    pub fn remove_of(&mut self, session: &SessionId) -> usize {
        self.retain(|grant| grant.session.as_ref() != Some(session))
    }

    /// Drops those of `ended` that have ended before or at `steady` (milliseconds since the Unix epoch); how many. A lookup
    /// passes over ended grants by itself: this only frees their room. One that has ended since `ended` was looked for
    /// stays, for whoever closes what it opened finds it here.
    pub fn drop_ended(&mut self, ended: &[&Allowance], steady: u64) -> usize {
        let ids: HashSet<&str> = ended.iter().map(|grant| &*grant.id).collect();
        self.retain(|grant| grant.until > steady || !ids.contains(&*grant.id))
    }

    /// The grant of this id that is in force at `steady`.
    pub fn by_id(&self, id: &str, steady: u64) -> Option<&Allowance> {
        self.iter().find(|grant| *grant.id == *id && grant.until > steady)
    }

    /// The grant in force at `steady` that names the same for the same sessions.
    pub fn same(&self, form: &RuleForm, session: Option<&SessionId>, steady: u64) -> Option<&Allowance> {
        self.iter().find(|grant| grant.form == *form && grant.session.as_ref() == session && grant.until > steady)
    }

    /// The grant that covers `name` for `session` at `steady`: the one with the longest name, an exact one first, then
    /// the one that ends last.
    pub fn look_up(&self, name: NameRef<'_>, session: &SessionId, steady: u64) -> Option<&Allowance> {
        if self.len == 0 {
            return None;
        }
        let mut best = None;
        for suffix in Suffixes::of(name, &self.key) {
            let Some(held) = self.by_name.find(suffix.hash, |held| is_for(held, suffix.wire)) else { continue };
            let here = held
                .iter()
                .filter(|grant| grant.until > steady && grant.session.as_ref().is_none_or(|s| s == session))
                .filter(|grant| match grant.form.reach {
                    Reach::Exact => suffix.is_whole,
                    Reach::AtOrBelow => true,
                    Reach::Below => !suffix.is_whole,
                })
                .max_by_key(|grant| (grant.form.reach == Reach::Exact, grant.until));
            best = here.or(best);
        }
        best
    }

    /// Whether a grant in force at `steady` allows some name strictly below `name`. Looks at every grant: for refusals.
    pub fn allows_below(&self, name: NameRef<'_>, steady: u64) -> bool {
        self.iter().any(|grant| {
            let granted = grant.form.name.as_ref();
            grant.until > steady && (granted.is_below(name) || (granted == name && grant.form.reach != Reach::Exact))
        })
    }

    /// All grants, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Allowance> {
        self.by_name.iter().flatten()
    }

    /// Never the same for two tables of one process that may differ.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Number of grants, ended ones not yet dropped included.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn retain(&mut self, keep: impl Fn(&Allowance) -> bool) -> usize {
        let before = self.len;
        let mut len = 0;
        self.by_name.retain(|held| {
            held.retain(&keep);
            len += held.len();
            !held.is_empty()
        });
        self.len = len;
        self.version = next_version();
        before - len
    }
}

impl std::fmt::Debug for Grants {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

fn next_version() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn is_for(held: &[Allowance], wire: &[u8]) -> bool {
    held.first().is_some_and(|grant| grant.form.name.as_ref().as_wire() == wire)
}

#[cfg(test)]
mod tests {
    use staunch_scoring::NameBuf;

    use super::*;
    use crate::lists::hash::test_key;

    fn grant(id: &str, form: &str, session: Option<&str>, until: u64) -> Allowance {
        Allowance {
            id: id.into(),
            form: RuleForm::parse(form).expect("form"),
            session: session.map(|s| SessionId::new(s).expect("id")),
            ports: None,
            until,
            given: Arc::default(),
        }
    }

    fn find(grants: &Grants, name: &str, session: &str, wall: u64) -> Option<String> {
        let name = NameBuf::from_text(name).expect("name");
        grants.look_up(name.as_ref(), &SessionId::new(session).expect("id"), wall).map(|g| g.id.to_string())
    }

    #[test]
    fn grants_hold_for_their_session_their_names_and_their_time() {
        let mut grants = Grants::new(test_key());
        for g in [
            grant("all", "example.org", None, 100),
            grant("one", "=www.example.org", Some("s1"), 200),
            grant("under", "*.example.net", Some("s1"), 200),
        ] {
            grants.insert(g).expect("room");
        }
        assert_eq!(find(&grants, "www.example.org", "s1", 50).as_deref(), Some("one"));
        assert_eq!(find(&grants, "www.example.org", "s2", 50).as_deref(), Some("all"));
        assert_eq!(find(&grants, "www.example.org", "s2", 100), None, "the end is not part of it");
        assert_eq!(find(&grants, "www.example.org", "s1", 150).as_deref(), Some("one"));
        assert_eq!(find(&grants, "example.net", "s1", 50), None);
        assert_eq!(find(&grants, "a.b.example.net", "s1", 50).as_deref(), Some("under"));
        let below = |name: &str| grants.allows_below(NameBuf::from_text(name).expect("name").as_ref(), 50);
        assert!(below("org") && below("example.net") && below("example.org"));
        assert!(!below("www.example.org") && !below("example.com"));
        let ended: Vec<Allowance> = grants.iter().filter(|grant| grant.until <= 100).cloned().collect();
        grants.insert(grant("withdrawn", "example.com", None, 90)).expect("room");
        assert_eq!(grants.drop_ended(&ended.iter().collect::<Vec<_>>(), 100), 1);
        assert_eq!(grants.len(), 3, "what has ended since is for who looks next");
        assert_eq!(grants.by_id("withdrawn", 100), None);
        let same = |form: &str, session: Option<&SessionId>| {
            grants.same(&RuleForm::parse(form).expect("form"), session, 50).map(|grant| grant.id.to_string())
        };
        let s1 = SessionId::new("s1").expect("id");
        assert_eq!(same("*.example.net", Some(&s1)).as_deref(), Some("under"));
        assert_eq!((same("example.net", Some(&s1)), same("*.example.net", None)), (None, None));
        assert!(grants.remove("one") && !grants.remove("one"));
        assert_eq!(grants.remove_of(&s1), 1);
        assert_eq!(grants.len(), 1);
    }

    #[test]
    fn the_table_is_bounded_and_replaces_by_id() {
        let mut grants = Grants::new(test_key());
        for i in 0..MAX_GRANTS {
            grants.insert(grant(&i.to_string(), &format!("n{i}.example"), None, 10)).expect("room");
        }
        assert_eq!(grants.insert(grant("more", "=x.example", None, 10)), Err(TooManyGrants));
        grants.insert(grant("7", "=y.example", None, 10)).expect("the old one makes room");
        assert_eq!(grants.len(), MAX_GRANTS);
        assert_eq!(grants.iter().count(), MAX_GRANTS);
    }
}
