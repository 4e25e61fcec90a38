//! What was recorded of sessions before this process, on its way back to them.
//!
//! Whoever is not in the table gets it with joining: a session when it is announced, a source that nobody announces when it
//! asks. A quarantine that waits like that is told of, since whoever looks for its session finds none.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use staunch_scoring::StateSnapshot;

use super::{Ending, Pipeline};
use crate::event::AlertKind;
use crate::model::{Announcement, Now, SessionId, SessionType};
use crate::session::{Context, Inner, Quarantine, Session};
use crate::store::{self, Commit, Quarantined};

/// What was recorded of one session.
#[derive(Debug, Default)]
struct Recorded {
    quarantine: Option<Quarantine>,
    ledger: Option<StateSnapshot>,
}

/// What was recorded of sessions that are not in the table. Bounded by the journal, of which it is a part.
#[derive(Debug, Default)]
pub(super) struct Unplaced(Mutex<HashMap<SessionId, Recorded>>);

impl Recorded {
    fn give(self, inner: &mut Inner) {
        if let Some(ledger) = &self.ledger {
            inner.restore(ledger);
        }
        if inner.quarantine.is_none() {
            inner.quarantine = self.quarantine;
        }
    }
}

impl Pipeline {
    /// Closes a session again that was closed when the process ended, known by `announcement` where it was announced: before
    /// others have its addresses, and whether or not the table has room. One that cannot be made known is closed when it is.
    pub fn restore_quarantine(&self, quarantined: Quarantined, announcement: Option<Announcement>) {
        let Quarantined { session: id, case, reason, by, note, since, addresses } = quarantined;
        let seed = self.hash(&id);
        let session = match (self.sessions.by_id(&id), announcement, id.unannounced_source()) {
            (Some(known), ..) => Some(known),
            (None, Some(announcement), _) => self.place_closed(announcement),
            (None, None, Some(source)) => self.sessions.place_source(source, seed).ok(),
            (None, None, None) => None,
        };
        if id.unannounced_source().is_some() {
            // Its name says one of them; those that are nobody else's by now are closed with it.
            for address in addresses {
                if self.sessions.by_address(address).is_none() {
                    drop(self.sessions.place_source(address, seed));
                }
            }
        }
        // Known by another of its addresses, where the one in its name is somebody else's.
        let session = session.or_else(|| self.sessions.by_id(&id));
        let quarantine = Quarantine { case, reason, by, note, since, applied: true, recorded: true };
        match session {
            Some(session) => session.inner.lock().quarantine = Some(quarantine),
            None => self.unplaced.0.lock().entry(id).or_default().quarantine = Some(quarantine),
        }
    }

    /// With those of its addresses that belong to nobody else who is closed.
    fn place_closed(&self, mut announcement: Announcement) -> Option<Arc<Session>> {
        announcement.addresses.retain(|address| self.sessions.by_address(*address).is_none());
        let seed = self.hash(&announcement.id);
        self.sessions.place(announcement, seed).ok()
    }

    /// Whether the session's quarantine was on disk when the process started.
    pub fn is_recorded(&self, session: &Session) -> bool {
        session.inner.lock().quarantine.as_ref().is_some_and(|q| q.recorded)
    }

    /// Gives a session back what it had spent when the process ended; one that is not there yet, when it is. A source nobody
    /// announced has its address in its name.
    pub fn restore_ledger(&self, id: SessionId, ledger: StateSnapshot) {
        let session = self.sessions.by_id(&id).or_else(|| {
            let source = id.unannounced_source()?;
            self.sessions.adopt(source, self.hash(&id)).ok().map(|(session, _)| session)
        });
        match session {
            Some(session) => session.inner.lock().restore(&ledger),
            None => self.unplaced.0.lock().entry(id).or_default().ledger = Some(ledger),
        }
    }

    /// Gives a session that has just joined the table what was recorded of it, before the packet filter is told of it.
    pub(super) fn give_back(&self, session: &Session) {
        if let Some(recorded) = self.unplaced.0.lock().remove(session.id()) {
            recorded.give(&mut session.inner.lock());
        }
    }

    /// Tells of quarantines whose sessions are not there: nothing is closed by them until they are.
    pub fn tell_unplaced(&self, now: Now) {
        let unplaced = self.unplaced.0.lock();
        for (id, recorded) in unplaced.iter() {
            let Some(Quarantine { case, reason, by, note, .. }) = &recorded.quarantine else { continue };
            tracing::warn!(session = %id, %case, "a quarantine's session is not there, and nothing is closed by it");
            let mut inner = Inner::new(0);
            if let Some(ledger) = &recorded.ledger {
                inner.restore(ledger);
            }
            let mut alert = self.alert(AlertKind::Release, &inner, &nobody(id), None, *reason, *case, now);
            alert.summary = format!(
                "Session {id} was closed and is not there since this start, not been released: neither the configuration nor \
                 a recorded announcement gives it an address of its own; it is closed again when it is announced, and \
                 `staunch session end {id}` ends that; at most {} octets left in DNS names. Closed by {by}: {note}",
                inner.charged.octets(),
            );
            // There is nothing to show of it.
            alert.actions.truncate(1);
            drop(self.spool(vec![store::Record::Alert { alert: Box::new(alert) }]));
        }
    }

    /// Ends a session that is closed and not there: its quarantine does not come back with the next of its name.
    pub(super) fn end_unplaced(
        &self,
        id: &SessionId,
        ending: Ending,
        now: Now,
    ) -> Option<Result<Commit, store::Error>> {
        let recorded = {
            let mut unplaced = self.unplaced.0.lock();
            unplaced.get(id)?.quarantine.as_ref()?;
            unplaced.remove(id)?
        };
        let session = Session::shared(Arc::new(nobody(id)));
        recorded.give(&mut session.inner.lock());
        let mut records: Vec<_> = self.lost_quarantine(&session, ending, now).into_iter().collect();
        records.extend(self.drop_grants_of(id, now));
        records.push(store::Record::End { session: id.clone() });
        Some(self.store.append(records))
    }
}

impl Pipeline {
    /// Has the journal say that recorded sessions have ended, and their grants with them.
    pub fn end_recorded(&self, sessions: &HashSet<SessionId>, now: Now) {
        let mut records = Vec::new();
        for id in sessions {
            tracing::info!(session = %id, "a session has ended: its entry has left the configuration");
            records.extend(self.drop_grants_of(id, now));
            records.push(store::Record::End { session: id.clone() });
        }
        if !records.is_empty() {
            drop(self.spool(records));
        }
    }
}

/// A session of which nothing is known but its name.
fn nobody(id: &SessionId) -> Context {
    let addresses: Vec<IpAddr> = Vec::new();
    let (id, kind) = (id.clone(), SessionType::Unannounced);
    Context::new(Announcement { id, addresses, kind, phase: None, owner: None, search: Vec::new() }, false)
}
