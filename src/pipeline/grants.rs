//! Allowances as operators give, see and take them back.
//!
//! Between [`crate::admin`] and the table ([`crate::lists::Grants`]). What an allowance has opened is closed by
//! [`Pipeline::close_ended`], whether it ends by itself or is taken back.

use std::sync::Arc;

use super::Pipeline;
use crate::lists::{Allowance, Given, RuleForm};
use crate::model::{Now, SessionId};
use crate::ports::Ports;
use crate::store::{self, Commit, Grant, Withdrawn};

impl Pipeline {
    /// Puts an allowance in force for what is left of its time, in place of one with its id: never longer than it was given for,
    /// whatever the clock was set to since.
    pub fn grant(&self, grant: Grant, now: Now) -> Result<(), String> {
        let live = self.live.load();
        let form = RuleForm::parse(&grant.name).map_err(|error| error.to_string())?;
        let ports = match &grant.ports[..] {
            [] => None,
            written => Some(Ports::read(written).map_err(|error| format!("{error}: {}", error.remedy()))?),
        };
        let left = grant.until.saturating_sub(now.wall.shown).min(grant.until.saturating_sub(grant.from));
        let until = now.wall.steady.saturating_add(left);
        let given = Given { owner: grant.owner, reason: grant.reason, from: grant.from, until: grant.until };
        let (id, session, given) = (Arc::from(grant.id), grant.session, Arc::new(given));
        let allowance = Allowance { id, form, session, ports, until, given };
        let mut result = Ok(());
        let before = live.grants.rcu(|grants| {
            let mut next = (**grants).clone();
            // What has ended stays until `close_ended` has closed what it opened.
            result = next.insert(allowance.clone()).map_err(|error| error.to_string());
            next
        });
        // The same names for the same sessions, but maybe fewer of their ports.
        if let Some(old) = before.by_id(&allowance.id, now.wall.steady).filter(|old| old.ports != allowance.ports) {
            self.close_beyond(old, now);
        }
        result
    }

    /// Closes what is open by a grant and not by what has taken its place.
    fn close_beyond(&self, old: &Allowance, now: Now) {
        let cause = self.cause_of(&[old]);
        match &old.session {
            None => self.tighten_all(cause, now),
            Some(id) => {
                if let Some(session) = self.sessions.by_id(id) {
                    self.guard(&session, cause, now);
                }
            }
        }
    }

    /// All grants in force, the one that ends first first.
    pub fn grants_in_force(&self, now: Now) -> Vec<Grant> {
        let grants = self.live.load().grants.load_full();
        let mut all: Vec<&Allowance> = grants.iter().filter(|grant| grant.until > now.wall.steady).collect();
        all.sort_by_key(|grant| (grant.until, grant.id.clone()));
        all.into_iter().map(as_recorded).collect()
    }

    /// The grant of this id, if it is in force.
    pub fn grant_by_id(&self, id: &str, now: Now) -> Option<Grant> {
        self.live.load().grants.load().by_id(id, now.wall.steady).map(as_recorded)
    }

    /// The grant in force that names the same for the same sessions.
    pub fn grant_before(&self, name: &RuleForm, session: Option<&SessionId>, now: Now) -> Option<Grant> {
        self.live.load().grants.load().same(name, session, now.wall.steady).map(as_recorded)
    }

    /// Takes a grant back: nothing is allowed by it from here on, and [`Pipeline::close_ended`] closes what it has opened. What it
    /// was, and what is to be awaited before that is said to be done.
    pub fn withdraw(
        &self,
        id: &str,
        by: &str,
        reason: &str,
        now: Now,
    ) -> Option<(Grant, Result<Commit, store::Error>)> {
        let mut found = None;
        self.live.load().grants.rcu(|grants| {
            let mut next = (**grants).clone();
            found = next.by_id(id, now.wall.steady).cloned();
            if let Some(ended) = found.clone() {
                // In the place of one that was there, so there is room.
                let _ = next.insert(Allowance { until: now.wall.steady, ..ended });
            }
            next
        });
        let grant = as_recorded(&found?);
        tracing::info!(grant = grant.id, by, "a grant was withdrawn");
        let commit = self.store.append(vec![withdrawn(grant.clone(), by, reason, now)]);
        Some((grant, commit))
    }

    /// Takes out a session's own grants, which end with it: the next session of its name has none of them. Nothing of the
    /// session is open any more by then.
    pub(super) fn drop_grants_of(&self, session: &SessionId, now: Now) -> Vec<store::Record> {
        let grants = self.live.load().grants.clone();
        let of = |grant: &&Allowance| grant.session.as_ref() == Some(session);
        if !grants.load().iter().any(|grant| of(&grant)) {
            return Vec::new();
        }
        let before = grants.rcu(|grants| {
            let mut next = (**grants).clone();
            next.remove_of(session);
            next
        });
        let own = before.iter().filter(of).map(as_recorded);
        own.map(|grant| withdrawn(grant, "staunch", "its session has ended", now)).collect()
    }
}

/// A grant as it was given.
fn as_recorded(grant: &Allowance) -> Grant {
    Grant {
        id: grant.id.to_string(),
        name: grant.form.to_string(),
        session: grant.session.clone(),
        ports: grant.ports.iter().flat_map(Ports::written).collect(),
        owner: grant.given.owner.clone(),
        reason: grant.given.reason.clone(),
        from: grant.given.from,
        until: grant.given.until,
        withdrawn: None,
    }
}

fn withdrawn(grant: Grant, by: &str, reason: &str, now: Now) -> store::Record {
    let withdrawn = Some(Withdrawn { by: by.to_owned(), reason: reason.to_owned() });
    store::Record::Grant { grant: Grant { until: now.wall.shown, withdrawn, ..grant } }
}
