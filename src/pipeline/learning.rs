//! What sessions in monitor mode teach: folded into the book now and then, kept in the store, told to operators.
//!
//! Never on the query path: a session is folded by the daemon's timer, when it ends, and before anybody asks.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::Pipeline;
use crate::model::Now;
use crate::session::Session;
use crate::store::{self, Commit, Durable};
use crate::{learn, telemetry};

/// The policy that the journal is to name.
#[derive(Debug, Default)]
pub(super) struct Recorded {
    /// Empty while one takes the place of another.
    digest: String,
    enforced: bool,
    /// Whether the packet filter owes what was to be closed: then the journal names none.
    owed: bool,
    /// Whether the store has not taken that yet.
    unsaid: bool,
    /// What says so, on its way to the disk.
    told: Option<Arc<Durable>>,
}

impl Recorded {
    fn named(&self, digest: &str) -> String {
        if self.owed { String::new() } else { digest.to_owned() }
    }
}

impl Pipeline {
    /// Takes over what one session has reached, before it is forgotten.
    pub fn fold_session(&self, session: &Session, now: Now) {
        let mut inner = session.inner.lock();
        let closed = inner.quarantine.is_some();
        self.book.fold(&mut inner.maxima, closed, now.wall.shown);
    }

    /// Takes over what all sessions have reached, and hands what has changed to the store.
    pub fn fold_sessions(&self, now: Now) {
        for session in self.sessions.all() {
            self.fold_session(&session, now);
        }
        let changes = self.book.take_changes();
        if !changes.is_empty()
            && let Err(error) = self.store.put_learned(changes)
        {
            // The next fold that changes a profile hands on all of it.
            tracing::warn!(%error, "what was learned was not kept");
        }
    }

    /// What was learned, and the thresholds that would follow.
    pub fn learned(&self, now: Now) -> Value {
        self.fold_sessions(now);
        let live = self.live.load();
        learn::report(&self.book, &live.learn.config, &live.learn.bases, telemetry::rfc3339)
    }

    /// Forgets what was learned, durably; the thresholds in force stay until the next reload or start.
    ///
    /// # Errors
    /// Where the store did not take it: it is forgotten in memory alone.
    pub fn forget_learned(&self, by: &str, reason: &str, now: Now) -> Result<(Value, Commit), store::Error> {
        // First, so that sessions under way know that they were folded.
        self.fold_sessions(now);
        let (pairs, changes) = self.book.reset();
        tracing::info!(by, reason, pairs, "what was learned was reset");
        self.store.put_learned(changes)?;
        // While a policy comes in force, or where the packet filter does not follow it, the journal names none.
        let recorded = self.recorded.lock();
        let digest = recorded.named(&recorded.digest);
        let commit = self.append_policy(digest, recorded.enforced, Vec::new(), now)?;
        Ok((json!({ "schema": 1, "pairs": pairs }), commit))
    }

    /// Has the journal name the policy that leases are made by, `digest`, empty for none; none in any case while the packet
    /// filter owes what was to be closed.
    ///
    /// # Errors
    /// Where the store does not take it.
    pub fn record_policy(&self, digest: String, enforced: bool) -> Result<Commit, store::Error> {
        let mut recorded = self.recorded.lock();
        let named = recorded.named(&digest);
        let commit = self.append_policy(named, enforced, self.book.kept(), crate::clock::now())?;
        (recorded.digest, recorded.enforced) = (digest, enforced);
        Ok(commit)
    }

    /// Has the journal name no policy while the packet filter owes what was to be closed (`owed`): a start before it is in step
    /// closes all leases, for this process alone knows whose they are not any more. Called before the journal hears what was
    /// to close them: an end, an announcement.
    pub fn owe(&self, owed: bool) {
        let mut recorded = self.recorded.lock();
        if std::mem::replace(&mut recorded.owed, owed) != owed {
            self.say(&mut recorded);
        }
    }

    fn say(&self, recorded: &mut Recorded) {
        if recorded.digest.is_empty() {
            return;
        }
        let digest = recorded.named(&recorded.digest);
        match self.append_policy(digest, recorded.enforced, self.book.kept(), crate::clock::now()) {
            // Not dropped, so that the journal does not let it wait.
            Ok(commit) => {
                recorded.told = Some(Arc::new(Durable::new(commit)));
                recorded.unsaid = false;
            }
            Err(error) => {
                recorded.unsaid = true;
                tracing::warn!(%error, "what the packet filter owes is not on disk");
            }
        }
    }

    /// Waits until the packet filter has carried out what was ordered so far, or owes it and that is on disk. To be awaited
    /// before anybody is told that something has ended: one that has just broken is found out by the order itself, and one that
    /// hangs by not being done with it. Whether it has carried them out.
    pub async fn followed(&self) -> bool {
        const PATIENCE: Duration = Duration::from_secs(1);
        let is_in_time = self.enforcer.caught_up_or_owed(PATIENCE).await;
        let told = {
            let mut recorded = self.recorded.lock();
            // What the store did not take, once more.
            if recorded.unsaid {
                self.say(&mut recorded);
            }
            recorded.told.clone()
        };
        if let Some(told) = told
            && let Err(error) = told.wait().await
        {
            tracing::warn!(%error, "what the packet filter owes is not on disk yet");
        }
        is_in_time && self.enforcer.healthy()
    }

    fn append_policy(
        &self,
        digest: String,
        enforced: bool,
        learned: Vec<learn::InForce>,
        now: Now,
    ) -> Result<Commit, store::Error> {
        let ranges = self.used_ranges(&self.live.load(), now);
        self.store.append(vec![store::Record::Policy { digest, learned, enforced, ranges }])
    }

    /// Learned thresholds for the status: where they come from, by profile.
    pub(super) fn thresholds(&self) -> Value {
        let live = self.live.load();
        json!({ "from": live.learn.config.thresholds, "profiles": self.book.in_force() })
    }
}
