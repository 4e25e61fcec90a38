//! What a session hears that was closed: nothing of its quarantine before that is on disk.

use std::sync::Arc;
use std::time::Duration;

use super::finish::fail;
use super::refusals::refuse_as;
use super::{Live, Pipeline, Walk, refuses_strangers};
use crate::event::{Source, Verdict};
use crate::model::{Ede, Reason};
use crate::session::{Inner, Session};
use crate::store::Durable;
use crate::wire::Query;

/// How long a refusal waits for the disk: longer than for one that is merely busy, and well below what a stub waits. Chosen without
/// a source.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is said to a source whose session has ended and that has another.
const ANOTHERS: &str = "the source is of another session by now; ask again";

impl Pipeline {
    /// A quarantine is on disk before anybody is told of it. Of a disk that hangs nobody knows when that will be, so a stub hears
    /// that it is to ask again.
    pub(super) async fn announce_refusal(
        &self,
        walk: &mut Walk,
        query: &Query<'_>,
        pending: Option<Arc<Durable>>,
        out: &mut Vec<u8>,
    ) {
        let settled = tokio::time::timeout(PATIENCE, self.settle(&walk.session, pending)).await;
        let live = self.live.load_full();
        let session = walk.session.clone();
        let inner = session.inner.lock();
        if self.is_anothers(&live, walk, &inner) {
            return fail(walk, query, Ede::NotReady, ANOTHERS, out);
        }
        if settled.is_err() {
            return fail(
                walk,
                query,
                Ede::NotReady,
                "what was decided of the session is not on disk yet; ask again",
                out,
            );
        }
        refuse_as(&live, &inner, walk, query, out);
    }

    /// Whether the source of a session that has ended was announced, is another's by now, or will be one that nobody announced:
    /// what that one is told, the next question says.
    fn is_anothers(&self, live: &Live, walk: &Walk, inner: &Inner) -> bool {
        inner.ended && (self.sessions.by_address(walk.from).is_some() || !refuses_strangers(live))
    }

    /// Answers a query of a session that was closed while the query was on its way.
    pub(super) async fn refuse_closed(&self, walk: &mut Walk, query: &Query<'_>, out: &mut Vec<u8>) {
        let (live, session) = (self.live.load_full(), walk.session.clone());
        let (pending, anothers) = {
            let inner = session.inner.lock();
            (inner.pending(), self.is_anothers(&live, walk, &inner))
        };
        if anothers {
            // Nobody was closed, and nobody is to read in the events that somebody was.
            return fail(walk, query, Ede::NotReady, ANOTHERS, out);
        }
        walk.record.verdict = Verdict::Sinkhole;
        walk.record.would = Verdict::Sinkhole;
        walk.record.reason = Some(Reason::Quarantined);
        walk.record.source = Source::Policy;
        self.announce_refusal(walk, query, pending, out).await;
    }

    /// Waits until what is to be told of a session is on disk.
    pub async fn settle(&self, session: &Session, pending: Option<Arc<Durable>>) {
        if let Some(pending) = pending
            && let Err(error) = pending.wait().await
        {
            // The session stays closed in memory; the refusal still says nothing that is not true.
            tracing::error!(%error, session = %session.id(), "a quarantine could not be made durable");
            self.telemetry.metrics.not_durable();
        }
    }
}
