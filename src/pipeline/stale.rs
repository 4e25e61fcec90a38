//! Answers that have expired, where no upstream answers in time (RFC 8767), and answers that come too late for whom asked.
//!
//! Off unless configured. The name was judged before, as for any question, and its aliases are judged and its addresses
//! pinned by what is in force now; an entry never outlives a change of rules, which clears the cache. It is shown for 30 s
//! with EDE 3 (Stale Answer), or 19 where the name did not exist.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use staunch_scoring::{Answered, NameRef};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::finish::{answered, fail, is_emptied, key_asked};
use super::pins::CHANGED;
use super::{Leave, Live, Pipeline, Walk};
use crate::answer::{self, Asked, Kind};
use crate::cache::{Entry, Failure, Key};
use crate::clock;
use crate::event::Source;
use crate::forward::{Flight, ForwardError, Landed, Response};
use crate::model::{Ede, Now, Qtype};
use crate::policy::Permit;
use crate::wire::Query;

/// How long a client waits before it is shown an expired answer (RFC 8767 section 5, client response timer).
const CLIENT_TIMER: Duration = Duration::from_millis(1800);
/// Exchanges that go on when nobody waits for them any more. At the limit an answer is lost and asked for again.
const LATE: usize = 256;

/// An exchange whose client was shown an expired answer, or had no time left for where its aliases lead.
type Late = (Permit, Flight);

/// Exchanges that go on.
pub(super) struct Latecomers {
    hand: mpsc::Sender<Late>,
    take: Mutex<Option<mpsc::Receiver<Late>>>,
}

impl Default for Latecomers {
    fn default() -> Self {
        let (hand, take) = mpsc::channel(LATE);
        Self { hand, take: Mutex::new(Some(take)) }
    }
}

impl Pipeline {
    /// The expired answer that may be shown where there is no other.
    pub(super) fn last_known(&self, live: &Live, key: Key<'_>, now: u64) -> Option<Arc<Entry>> {
        let most = live.repeats.serve_stale.as_millis() as u64;
        if most == 0 { None } else { self.cache.get_stale(key, now, most) }
    }

    /// What is said of `name` where nobody can be asked for it.
    pub(super) fn down_for(&self, name: NameRef<'_>, qtype: Qtype, now: Now) -> Option<Arc<Failure>> {
        let (ede, text) = self.forwarder.down_for_question(name, qtype)?.ede();
        Some(Arc::new(Failure::passing(ede, &text, now.mono)))
    }

    /// Asks an upstream, until `until`, or, where there is an expired answer to show, no longer than a client should wait.
    /// What comes later is kept. Whoever came along hears of it, but not that one had less time; who came along has heard it.
    pub(super) async fn ask_upstream(
        &self,
        walk: &Walk,
        leave: &Leave,
        until: Instant,
        has_stale: bool,
    ) -> Result<Landed, ForwardError> {
        if let Some(heard) = &leave.heard {
            return heard.clone().map(Landed::from);
        }
        if walk.led.is_over() {
            return Err(ForwardError::Late(Vec::new()));
        }
        let outcome = self.ask_for(&leave.permit, until, has_stale, walk).await;
        let is_hurried = matches!(outcome, Err(ForwardError::Late(_))) && walk.led.until().is_some();
        if let Some(fare) = leave.fare.as_ref().filter(|_| !is_hurried) {
            fare.tell(&outcome);
        }
        outcome
    }

    async fn ask_for(
        &self,
        permit: &Permit,
        until: Instant,
        has_stale: bool,
        walk: &Walk,
    ) -> Result<Landed, ForwardError> {
        if !has_stale && walk.led.until().is_none() {
            return self.forwarder.resolve_until(permit, until).await;
        }
        let timer = Instant::from_std(walk.lasts.from) + CLIENT_TIMER;
        let until = if has_stale { until.min(timer) } else { until };
        let (outcome, flight) = Box::pin(self.forwarder.resolve_or_leave(permit, until)).await;
        if let Some(flight) = flight {
            let _ = self.late.hand.try_send((*permit, flight));
        }
        outcome
    }

    /// Keeps answers that come late. Never returns; a second call does, at once.
    pub async fn keep_late_answers(self: Arc<Self>) {
        let Some(mut late) = self.late.take.lock().take() else { return };
        let mut landing = JoinSet::new();
        while let Some((permit, flight)) = late.recv().await {
            let pipeline = self.clone();
            landing.spawn(async move {
                if let Ok(response) = flight.landed().await {
                    pipeline.keep(&permit, &response).await;
                }
            });
            while landing.try_join_next().is_some() {}
        }
    }

    /// Keeps an answer that nobody waits for; what the score is told of it. `None`, and nothing kept, where it says nothing,
    /// is not as it was signed, or denies what an answer within its TTL says: whoever is asked before that ends may be one who
    /// lies, and the publisher has promised it for as long.
    pub(super) async fn keep(&self, permit: &Permit, response: &Response) -> Option<Answered> {
        let live = self.live.load_full();
        let vetting = live.vetting();
        let mut vetted = answer::vet(&response.wire, Asked::from(permit), &live.answers).ok()?;
        if vetted.kind == Kind::Failure {
            return None;
        }
        let told = answered(&vetted);
        if !is_emptied(&vetted) {
            let until = Instant::now() + self.forwarder.total_timeout();
            self.validate(&live, permit, response, &mut vetted, until).await.ok()?;
        }
        let (now, floor) = (clock::now(), live.repeats.floor.as_millis() as u64);
        let key = super::finish::key_of(permit);
        let is_living = |entry: Arc<Entry>| entry.is_positive() && !entry.is_expired(now.mono);
        if vetted.kind != Kind::Positive && self.cache.get(key, now.mono).is_some_and(is_living) {
            tracing::debug!("an answer within its time is denied; it stays");
            return None;
        }
        let took = u32::try_from(response.took.as_millis()).unwrap_or(u32::MAX);
        if is_emptied(&vetted) {
            self.cache.put_inside(
                key,
                vetting,
                vetted.answer,
                vetted.rebinding.into_boxed_slice(),
                now.mono,
                floor,
                took,
            );
        } else {
            self.cache.put(key, vetting, vetted.answer, vetted.names.into_boxed_slice(), now.mono, floor, took);
        }
        Some(told)
    }

    /// Shows an expired answer, by the present rules. An entry of before a change of rules is none any more.
    pub(super) async fn release_stale(&self, walk: &mut Walk, query: &Query<'_>, stale: Arc<Entry>, out: &mut Vec<u8>) {
        let partition = self.live.load().sharing_of(&walk.session.context()).partition;
        let key = key_asked(query, partition);
        let (live, now) = (self.live.load_full(), clock::now());
        match self.last_known(&live, key, now.mono).filter(|entry| entry.id == stale.id) {
            Some(entry) => {
                walk.record.source = Source::Cache;
                self.release(walk, query, entry, out).await;
            }
            None => fail(walk, query, Ede::Other, CHANGED, out),
        }
    }
}
