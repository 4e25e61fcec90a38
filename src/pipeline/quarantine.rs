//! Closing and opening a session: in memory, in the packet filter, in the journal, to the SOC.

use std::net::IpAddr;
use std::sync::Arc;

use staunch_scoring::{Bits, SessionState};

use super::{Cause, Pipeline};
use crate::clock;
use crate::enforce::Command;
use crate::event::{Alert, AlertKind};
use crate::model::{CaseId, Now, Reason, SessionId};
use crate::session::{Announced, Context, Inner, Quarantine, Session};
use crate::sparing::Sparing;
use crate::store::{self, Commit, Durable};
use crate::telemetry::Record;

/// Most bits that a session may be given beyond its limits, all together: where configured budgets end.
pub const MOST_EXTENDED: u32 = 8_388_607;

/// What has ended a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// A runtime or an operator, over the admin socket.
    Word,
    /// A configuration that does not name it any more.
    Configuration,
}

impl Ending {
    fn as_str(self) -> &'static str {
        match self {
            Self::Word => "`staunch session end` was called for it",
            Self::Configuration => "a reload's configuration does not name it any more",
        }
    }
}

/// Why a session was not released.
#[derive(Debug, Clone, thiserror::Error)]
pub enum NotReleased {
    /// It ended meanwhile.
    #[error("the session has ended")]
    Ended,
    /// It was closed anew meanwhile, under another case.
    #[error("the session was closed anew, case {0}")]
    ClosedAnew(CaseId),
    /// It may tell so many bits beyond its limits already that these are too many.
    #[error(
        "a session may be given {MOST_EXTENDED} bits beyond its limits at most, and this one was given {given} already; \
         its profile's budgets are the place for more"
    )]
    TooMuch {
        /// Bits that it was given before.
        given: u32,
    },
    /// The journal did not take it.
    #[error("not released, since it could not be recorded: {0}")]
    Store(#[from] store::Error),
}

impl Pipeline {
    /// Closes the session that made this query. Takes effect in memory and in the order of packet-filter commands now;
    /// the returned commit completes once it is on disk.
    pub(super) fn quarantine(
        &self,
        inner: &mut Inner,
        session: &Arc<Session>,
        record: &Record,
        now: Now,
    ) -> Option<Arc<Durable>> {
        let context = session.context();
        let reason = record.reason.unwrap_or(Reason::Score);
        let case = record.case.unwrap_or_else(|| self.fresh_case(0, now.wall));
        let alert = self.alert(AlertKind::Quarantine, inner, &context, Some(record), reason, case, now);
        self.close(inner, session, &context, reason, case, "staunch", &alert.summary.clone(), alert, now);
        inner.pending()
    }

    /// Records that enforce mode would have closed the session; raises the alert once.
    pub(super) fn would_quarantine(
        &self,
        inner: &mut Inner,
        session: &Arc<Session>,
        context: &Context,
        record: &Record,
        now: Now,
    ) {
        let reason = record.reason.unwrap_or(Reason::Score);
        let case = record.case.unwrap_or_else(|| self.fresh_case(0, now.wall));
        let alert = self.alert(AlertKind::WouldQuarantine, inner, context, Some(record), reason, case, now);
        let note = alert.summary.clone();
        // Where there is no room for the alert the mark is made, and the alert raised, by the next such question.
        if self.spool(vec![store::Record::Alert { alert: Box::new(alert) }]).is_none() {
            return;
        }
        let (by, since) = ("staunch".to_owned(), now.wall.shown);
        inner.quarantine = Some(Quarantine { case, reason, by, note, since, applied: false, recorded: false });
        tracing::info!(session = %session.id(), %case, reason = reason.as_str(), "session would be quarantined");
    }

    /// Closes a session on an operator's word, and says under which case; to be awaited with [`Pipeline::settle`].
    /// Idempotent: a closed session keeps its case. Nothing where the session has ended: what is recorded of it from then on
    /// would be of the next one with its name.
    pub fn quarantine_by(&self, session: &Arc<Session>, by: &str, note: &str, now: Now) -> Option<CaseId> {
        let mut inner = session.inner.lock();
        if inner.ended {
            return None;
        }
        let context = session.context();
        if let Some(quarantine) = &inner.quarantine
            && quarantine.applied
        {
            return Some(quarantine.case);
        }
        let case = self.fresh_case(self.hash(session.id()), now.wall);
        let mut alert = self.alert(AlertKind::Quarantine, &inner, &context, None, Reason::Quarantined, case, now);
        alert.summary += &format!(" Closed by {by}: {note}");
        self.close(&mut inner, session, &context, Reason::Quarantined, case, by, note, alert, now);
        Some(case)
    }

    #[allow(clippy::too_many_arguments)]
    fn close(
        &self,
        inner: &mut Inner,
        session: &Arc<Session>,
        context: &Context,
        reason: Reason,
        case: CaseId,
        by: &str,
        note: &str,
        alert: Alert,
        now: Now,
    ) {
        inner.quarantine = Some(Quarantine {
            case,
            reason,
            by: by.to_owned(),
            note: note.to_owned(),
            since: now.wall.shown,
            applied: true,
            recorded: false,
        });
        inner.pins.revoke();
        self.held.forget(session);
        for address in held_by(context, inner) {
            // Ordered behind every pin of this session, since pins are ordered under the same lock.
            if let Err(error) = self.enforcer.submit(Command::Quarantine { session: *address }) {
                tracing::error!(%error, session = %session.id(), "the packet filter did not take a quarantine");
            }
        }
        let records = self.records_of(inner, session, context, alert, None);
        let commit = self.spool(records);
        await_records(inner, commit);
        // Behind what is to last.
        tracing::info!(session = %session.id(), %case, reason = reason.as_str(), by, "session quarantined");
    }

    /// What the journal is to have of a quarantine that was just made, or, with `since`, some time ago.
    fn records_of(
        &self,
        inner: &mut Inner,
        session: &Session,
        context: &Context,
        alert: Alert,
        since: Option<u64>,
    ) -> Vec<store::Record> {
        let Some(Quarantine { case, reason, by, note, .. }) = inner.quarantine.clone() else { return Vec::new() };
        let (id, addresses) = (session.id().clone(), unsaid(context));
        vec![
            store::Record::Quarantine { session: id.clone(), case, reason, by, note, since, addresses },
            store::Record::Alert { alert: Box::new(alert) },
            store::Record::Ledger { session: id, state: self.step(inner) },
        ]
    }

    /// Hands a quarantine to the journal that had no room for it when it was made, and its alert: it would end with the process,
    /// and nobody would have heard of it. Called every second for each session, under its lock.
    pub(super) fn journal_again(&self, session: &Session, inner: &mut Inner, now: Now) {
        let records = self.unjournalled(session, inner, now);
        if !records.is_empty() {
            let commit = self.store.append(records).ok();
            await_records(inner, commit);
        }
    }

    /// What the journal did not take of a session's quarantine when it was made.
    fn unjournalled(&self, session: &Session, inner: &mut Inner, now: Now) -> Vec<store::Record> {
        if inner.ended || inner.pending.is_some() {
            return Vec::new();
        }
        let Some(quarantine) = inner.quarantine.as_ref().filter(|it| it.applied && !it.recorded) else {
            return Vec::new();
        };
        let (context, Quarantine { case, reason, by, note, since, .. }) = (session.context(), quarantine.clone());
        let mut alert = self.alert(AlertKind::Quarantine, inner, &context, None, reason, case, now);
        match &*by {
            "staunch" => alert.summary = note,
            by => alert.summary += &format!(" Closed by {by}: {note}"),
        }
        alert.set_time(since);
        self.records_of(inner, session, &context, alert, Some(since))
    }

    /// Opens a session on an operator's word, once that is on disk: what nobody could know of after a crash is not done at
    /// all. `false` if it was not closed; of one that would have been, what is held against it is forgotten.
    ///
    /// `extend`, in bits, is added to each of its limits; it may be given to an open session too.
    ///
    /// # Errors
    /// Where nothing was changed.
    pub async fn release_by(
        &self,
        session: &Session,
        by: &str,
        note: &str,
        extend: u32,
        now: Now,
    ) -> Result<bool, NotReleased> {
        let _turn = self.turn_of(session).lock().await;
        let (commit, released) = self.record_release(session, by, note, extend, now)?;
        let case = released.as_ref().map(|quarantine| quarantine.case);
        if let Some(commit) = commit
            && let Err(error) = commit.await
        {
            if let Some(quarantine) = &mut session.inner.lock().quarantine
                && Some(quarantine.case) == case
            {
                quarantine.recorded &= released.is_some_and(|before| before.recorded);
            }
            return Err(error.into());
        }
        let mut inner = session.inner.lock();
        match &inner.quarantine {
            _ if inner.ended => return Err(NotReleased::Ended),
            // Released by somebody else meanwhile, and closed since.
            Some(quarantine) if quarantine.applied && Some(quarantine.case) != case => {
                return Err(NotReleased::ClosedAnew(quarantine.case));
            }
            _ => {}
        }
        let context = session.context();
        // Sent for an open session too: whatever the packet filter believes, it is open from here on.
        for address in held_by(&context, &inner) {
            if let Err(error) = self.enforcer.submit(Command::Release { session: *address }) {
                tracing::error!(%error, session = %session.id(), "the packet filter did not take a release");
            }
        }
        inner.score.extend(Bits::whole(extend));
        if let Some(case) = case {
            inner.release();
            if !unsaid(&context).is_empty() {
                // An address that came while this was awaited was journalled as a closed session's, behind the release.
                let (session, by, note) = (session.id().clone(), by.to_owned(), note.to_owned());
                drop(self.spool(vec![store::Record::Release { session, by, note, extend: 0 }]));
            }
            tracing::info!(session = %session.id(), %case, by, extended_bits = extend, "session released");
        } else if extend > 0 {
            tracing::info!(session = %session.id(), by, extended_bits = extend, "an open session may tell more");
        }
        if case.is_some() || extend > 0 {
            // Whatever was noted since it was recorded knew nothing of it.
            inner.score.retell();
            inner.dirty = true;
        }
        self.guard_locked(&context, &mut inner, Cause::Session, now);
        Ok(released.is_some_and(|quarantine| quarantine.applied))
    }

    /// What a release of this session holds; some others' do too.
    fn turn_of(&self, session: &Session) -> &tokio::sync::Mutex<()> {
        let mixed =
            session.id().as_str().bytes().fold(0, |sum: usize, octet| sum.wrapping_mul(31).wrapping_add(octet.into()));
        &self.releasing[mixed % self.releasing.len()]
    }

    /// Journals a release, or that an open session may spend more: what to await, and what is released.
    fn record_release(
        &self,
        session: &Session,
        by: &str,
        note: &str,
        extend: u32,
        now: Now,
    ) -> Result<(Option<Commit>, Option<Quarantine>), NotReleased> {
        let mut inner = session.inner.lock();
        if inner.ended {
            return Err(NotReleased::Ended);
        }
        let given = inner.score.allowance().steps() / Bits::STEPS;
        if extend > 0 && given.saturating_add(extend) > MOST_EXTENDED {
            return Err(NotReleased::TooMuch { given });
        }
        let mut score = inner.score.clone();
        score.extend(Bits::whole(extend));
        let ledger =
            |score: &SessionState| store::Record::Ledger { session: session.id().clone(), state: score.snapshot() };
        let (by, note) = (by.to_owned(), note.to_owned());
        let record = store::Record::Release { session: session.id().clone(), by, note, extend };
        let Some(quarantine) = inner.quarantine.clone() else {
            // Who let it tell more, and why, is on record with how much.
            let commit = (extend > 0).then(|| self.store.append(vec![record, ledger(&score)])).transpose()?;
            return Ok((commit, None));
        };
        score.release();
        let Quarantine { case, reason, applied, .. } = quarantine;
        let mut alert = self.alert(AlertKind::Release, &inner, &session.context(), None, reason, case, now);
        if !applied {
            alert.summary = format!(
                "Session {} was not closed, since it is only watched; what was held against it is forgotten. At most {} octets \
                 left in DNS names.",
                session.id(),
                inner.charged.octets(),
            );
        }
        if extend > 0 {
            alert.summary += &format!(" Each of its limits was raised by {extend} bits.");
        }
        if let store::Record::Release { by, note, .. } = &record {
            alert.summary += &format!(" Released by {by}: {note}");
        }
        // What is released is on record too, and not handed over again behind its release.
        let mut records = self.unjournalled(session, &mut inner, now);
        let is_new = !records.is_empty();
        records.extend([record, ledger(&score), store::Record::Alert { alert: Box::new(alert) }]);
        let commit = self.store.append(records);
        if is_new {
            // A step went along, which the journal may not have taken.
            inner.score.retell();
            if let Some(quarantine) = inner.quarantine.as_mut().filter(|_| commit.is_ok()) {
                quarantine.recorded = true;
            }
        }
        Ok((Some(commit?), Some(quarantine)))
    }

    /// Ends a session by its name, if there is one: nothing more is answered or pinned for it, an answer under way included.
    /// Its end is journalled in the same turn, behind all else of it; what is handed back is awaited before it is said to be
    /// done. A quarantine that goes with it is told of: whoever waits for its release would look for it in vain.
    pub fn end(&self, id: &SessionId, ending: Ending, now: Now) -> Option<Result<Commit, store::Error>> {
        let _turn = self.membership.lock();
        let Some(ended) = self.sessions.end(id) else { return self.end_unplaced(id, ending, now) };
        self.fold_session(&ended, now);
        let mut records: Vec<_> = self.lost_quarantine(&ended, ending, now).into_iter().collect();
        self.forget(&ended);
        records.extend(self.drop_grants_of(id, now));
        records.push(store::Record::End { session: id.clone() });
        Some(self.store.append(records))
    }

    /// The alert of a quarantine that ends with its session.
    pub(super) fn lost_quarantine(&self, ended: &Session, ending: Ending, now: Now) -> Option<store::Record> {
        let inner = ended.inner.lock();
        let quarantine = inner.quarantine.as_ref().filter(|quarantine| quarantine.applied)?;
        let (id, case, how) = (ended.id(), quarantine.case, ending.as_str());
        tracing::warn!(session = %id, %case, "a quarantine has ended with its session: {how}");
        let mut alert = self.alert(AlertKind::Release, &inner, &ended.context(), None, quarantine.reason, case, now);
        alert.summary = format!(
            "Session {id} was closed and has ended, not been released: {how}; at most {} octets left in DNS names. Closed by \
             {}: {}",
            inner.charged.octets(),
            quarantine.by,
            quarantine.note,
        );
        // The session is no more, so there is nothing to show of it.
        alert.actions.truncate(1);
        Some(store::Record::Alert { alert: Box::new(alert) })
    }

    /// Has the packet filter forget a session that is in the table no more.
    fn forget(&self, session: &Session) {
        let mut inner = session.inner.lock();
        let context = session.context();
        inner.ended = true;
        inner.pins.revoke();
        self.held.forget(session);
        for address in &context.announcement.addresses {
            if let Err(error) = self.enforcer.submit(Command::Remove { session: *address }) {
                tracing::error!(%error, session = %session.id(), "the packet filter did not forget an address");
            }
        }
    }

    /// Tells the packet filter what an announcement has changed; to be called in the same turn of `membership`.
    pub(super) fn joined(&self, session: &Session, changed: &Announced, now: Now) {
        for displaced in &changed.displaced {
            self.forget(displaced);
            let mut records = self.drop_grants_of(displaced.id(), now);
            // Behind its last step: a start would find room for what is no more, which others may need.
            records.push(store::Record::End { session: displaced.id().clone() });
            drop(self.spool(records));
        }
        let mut inner = session.inner.lock();
        // Behind what was ordered for these by whoever knew the session with them.
        for address in &changed.lost {
            if let Err(error) = self.enforcer.submit(Command::Remove { session: *address }) {
                tracing::error!(%error, session = %session.id(), "the packet filter did not forget an address");
            }
        }
        if changed.gained {
            // Pins are held for every address of a session; a new one has none yet.
            inner.pins.uncover();
        }
        let context = session.context();
        self.guard_locked(&context, &mut inner, Cause::Session, now);
        if changed.gained && !inner.ended {
            self.record_addresses(&context, &inner);
        }
    }

    /// Journals the addresses of a closed source that nobody announced: its name says one, and a restart must not open the
    /// others in the packet filter. A session adopts few.
    fn record_addresses(&self, context: &Context, inner: &Inner) {
        let (Some(quarantine), addresses) = (inner.quarantine.as_ref().filter(|q| q.applied), unsaid(context)) else {
            return;
        };
        if !addresses.is_empty() {
            drop(self.spool(vec![store::Record::Quarantine {
                session: context.announcement.id.clone(),
                case: quarantine.case,
                reason: quarantine.reason,
                by: quarantine.by.clone(),
                note: quarantine.note.clone(),
                since: Some(quarantine.since),
                addresses,
            }]));
        }
    }

    /// Whether the session account is so far spent that a released session would soon be closed again.
    pub fn ledger_spent(&self, session: &Session) -> bool {
        let live = self.live.load();
        let context = session.context();
        let limit = live.policy.profiles.of(context.kind(), context.phase()).budgets.session;
        let inner = session.inner.lock();
        inner.score.spent_session() >= limit.plus(inner.score.allowance()).minus(Bits::whole(64))
    }

    /// Journals records; an alert among them is delivered from the journal once it is durable there.
    pub(super) fn spool(&self, records: Vec<store::Record>) -> Option<Commit> {
        match self.store.append(records) {
            Ok(commit) => Some(commit),
            Err(error) => {
                static TOLD: Sparing = Sparing::new();
                if let Some(kept_back) = TOLD.turn(clock::now().mono) {
                    tracing::error!(%error, kept_back, "the journal did not take a decision; it holds in memory");
                }
                self.telemetry.metrics.not_durable();
                None
            }
        }
    }

    /// Tells the SOC that the service itself is weaker than it should be.
    pub fn degraded(&self, what: &str, now: Now) {
        let live = self.live.load();
        let case = self.fresh_case(self.hash(what), now.wall);
        let inner = Inner::new(0);
        let mut alert = self.alert(AlertKind::Degraded, &inner, &live.stranger, None, None, case, now);
        alert.summary = what.to_owned();
        drop(self.spool(vec![store::Record::Alert { alert: Box::new(alert) }]));
    }
}

/// Has whoever tells of a quarantine wait for its records, where the journal took them.
fn await_records(inner: &mut Inner, commit: Option<Commit>) {
    inner.pending = commit.map(|commit| Arc::new(Durable::new(commit)));
    if inner.pending.is_none() {
        // Its step is missing.
        inner.score.retell();
    }
}

/// Addresses of a source that nobody announced beside the one that its name says: that of its network (IPv6).
fn unsaid(context: &Context) -> Vec<IpAddr> {
    let Some(said) = context.announcement.id.unannounced_source() else { return Vec::new() };
    context.announcement.addresses.iter().copied().filter(|address| *address != said).collect()
}

/// The addresses of which the packet filter is told for a session: none once it has ended, for they may be another's by then.
fn held_by<'c>(context: &'c Context, inner: &Inner) -> &'c [IpAddr] {
    if inner.ended { &[] } else { &context.announcement.addresses }
}
