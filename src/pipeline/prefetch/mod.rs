//! Popular names are asked again before their answers end.
//!
//! What an upstream sees of it must tell nothing that a session did not pay for. So it is decided by questions that left
//! and were charged, of which it has seen every one, and never by answers from the cache, which cost nothing: a question is
//! popular when sessions of two owners have let it leave within an hour. From then on it is asked for an hour, whenever its
//! answer is about to end, whether anybody wants it or not; then two owners have to pay for it anew. Only names that a rule,
//! a grant or a pack names are asked in this way: of these a session could choose one at the price of the list's size, and
//! nobody it could want to tell something to sees them. Each is judged once more, for one of the sessions that asked it.

mod table;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use self::table::{Noted, Table};
use super::refresh::{Question, at_random};
use super::{Live, Pipeline};
use crate::cache::Key;
use crate::clock;
use crate::model::{Now, Qtype};
use crate::session::Session;

/// Time between two looks.
const TICK: Duration = Duration::from_secs(5);
/// An answer that ends within this time, milliseconds, is about to end: two ticks.
const SOON: u64 = 10_000;
/// Answers that are usable for less, milliseconds, are not worth it.
const LEAST: u64 = 60_000;
/// Pause behind a try that failed or was not allowed, milliseconds.
const PAUSE: u64 = 30_000;
/// Questions asked at once.
const AT_ONCE: usize = 64;

/// Names that are asked before their answers end.
#[derive(Debug, Default)]
pub struct Prefetch {
    table: Table,
    /// What happened.
    pub counters: Counters,
}

/// What happened, since start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Questions asked.
    pub asked: AtomicU64,
    /// Of these, without a usable answer; the old one stays.
    pub failed: AtomicU64,
    /// Questions that policy did not allow any more.
    pub refused: AtomicU64,
    /// Questions that were not noted for want of room.
    pub full: AtomicU64,
}

impl Prefetch {
    /// Popular questions.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets everything (after a change of rules).
    pub fn clear(&self) {
        self.table.clear();
    }
}

impl Pipeline {
    /// A question of `session` left, was charged, and has an answer that is usable for `usable` milliseconds.
    pub(super) fn note_popular(&self, live: &Live, session: &Arc<Session>, key: Key<'_>, usable: u64, now: Now) {
        let host = matches!(key.qtype, Qtype::A | Qtype::AAAA | Qtype::HTTPS);
        if !live.repeats.prefetch || !host || usable < LEAST {
            return;
        }
        let context = session.context();
        let who = match &context.announcement.owner {
            Some(owner) => self.hash((owner, "owner")),
            None => self.hash((session.id(), "session")),
        };
        if self.prefetch.table.note(key, who, session, now.mono) == Noted::Full {
            self.prefetch.counters.full.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Asks popular names before their answers end. Never returns; dropping it ends what is under way.
    pub async fn keep_popular_fresh(self: Arc<Self>) {
        loop {
            tokio::time::sleep(TICK).await;
            if self.live.load().repeats.prefetch {
                self.prefetch(clock::now(), TICK).await;
            }
        }
    }

    /// Asks what is due at `now`, at random moments within `spread`. Returns when all of it is answered or has failed.
    pub async fn prefetch(self: &Arc<Self>, now: Now, spread: Duration) {
        let ends_soon = |question: &Question| {
            let entry = self.cache.get(question.key(), now.mono);
            entry.is_none_or(|entry| entry.usable.saturating_sub(now.mono) <= SOON)
        };
        let mut due = self.prefetch.table.popular(now.mono);
        due.retain(|(question, _)| ends_soon(question));
        if due.is_empty() {
            return;
        }
        let Some(due) = at_random(due, spread) else {
            return tracing::error!("no randomness: popular names are not asked again");
        };
        let begun = tokio::time::Instant::now();
        let places = Arc::new(Semaphore::new(AT_ONCE));
        let mut under_way = JoinSet::new();
        for (at, (question, sessions)) in due {
            tokio::time::sleep_until(begun + at).await;
            // Nobody closes it.
            let Ok(place) = places.clone().acquire_owned().await else { break };
            let pipeline = self.clone();
            under_way.spawn(async move {
                if !pipeline.fetch(&question, &sessions, now).await {
                    pipeline.prefetch.table.rest(&question, now.mono.saturating_add(PAUSE));
                }
                drop(place);
            });
            while under_way.try_join_next().is_some() {}
        }
        while under_way.join_next().await.is_some() {}
    }

    /// Asks one question, if one of `sessions` still may. Whether there is a new answer.
    async fn fetch(&self, question: &Question, sessions: &[Arc<Session>], now: Now) -> bool {
        let live = self.live.load_full();
        let counters = &self.prefetch.counters;
        let leave = |session: &Arc<Session>| {
            self.judge_again(&live, session, question, now, |policy, context, inner, ask| {
                policy.permit_prefetch(context, inner, ask)
            })
        };
        let Some(permit) = sessions.iter().find_map(leave) else {
            counters.refused.fetch_add(1, Ordering::Relaxed);
            return false;
        };
        counters.asked.fetch_add(1, Ordering::Relaxed);
        let kept = match self.forwarder.resolve(&permit).await {
            Ok(response) => self.keep(&permit, &response).await.is_some(),
            Err(error) => {
                tracing::debug!(%error, "no upstream answered for a popular name");
                false
            }
        };
        if !kept {
            counters.failed.fetch_add(1, Ordering::Relaxed);
        }
        kept
    }
}

#[cfg(test)]
mod tests;
