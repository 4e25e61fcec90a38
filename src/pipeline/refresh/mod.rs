//! Held names are asked again on the resolver's clock.
//!
//! Between the walk, which notes what is held ([`Pipeline::hold`]), and the forwarder. When a tick of [`TICK_MS`] is over,
//! the questions of the tenants that were in use in it are asked, in random order and at random moments; the answers go
//! into the cache and to nobody. What an upstream can see of a session is in which ticks a tenant was in use, and which
//! questions stand in the table: both are booked, by the walk. Each question is judged once more before it leaves.

mod table;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use staunch_scoring::{Bits, Outcome, QName, Split, TICK_MS};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

pub(super) use self::table::Question;
use self::table::{Due, Table};
use super::{Live, Pipeline};
use crate::cache::Key;
use crate::clock;
use crate::model::Now;
use crate::partition::Sharing;
use crate::policy::{Ask, AskZones, Decision, Permit, Policy};
use crate::session::{Context, Inner, Session};
use crate::wire::{Edns, Query};

/// The time over which the questions of a tick are spread.
const SPREAD: Duration = Duration::from_secs(10);
/// Questions that are asked at once: few of the exchanges there are, so that what a session waits for goes before.
const AT_ONCE: usize = 256;
/// What has not left by then is left out, so that a slow upstream never meets the next tick's questions too.
const LATEST: Duration = Duration::from_millis(TICK_MS / 2);

/// Names that are asked again.
#[derive(Debug, Default)]
pub struct Held {
    table: Table,
    /// What happened.
    pub counters: Counters,
}

/// What happened, since start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Questions asked again.
    pub asked: AtomicU64,
    /// Of these, without a usable answer; the old one stays.
    pub failed: AtomicU64,
    /// Due questions that were not asked because the answer was new, or policy refuses them now.
    pub skipped: AtomicU64,
    /// Due questions left out because upstreams were too slow.
    pub late: AtomicU64,
    /// Held queries whose question could not enter, for want of room or of a tick of its own.
    pub full: AtomicU64,
}

impl Counters {
    fn add(counter: &AtomicU64, count: usize) {
        counter.fetch_add(count as u64, Ordering::Relaxed);
    }
}

impl Held {
    /// Questions that are asked again as long as their tenants are in use.
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

    /// Forgets a session that was closed or has ended.
    pub(super) fn forget(&self, session: &Session) {
        self.table.forget(session);
    }

    /// Distinct names of a session.
    pub(super) fn names_of(&self, session: &Session) -> usize {
        self.table.names_of(session)
    }
}

impl Pipeline {
    /// Has the tenant of a held question asked again when this tick is over, where its price fits the ledger; what is
    /// to be booked. Called under the session's lock, on the state that was judged.
    pub(super) fn hold(
        &self,
        live: &Live,
        session: &Arc<Session>,
        decision: &Decision<'_>,
        key: Key<'_>,
        now: Now,
    ) -> Outcome {
        const NOT: Outcome = Outcome::Held { refreshed: false, entered: false };
        let Some(price) = decision.assessment.refresh.filter(|_| live.repeats.refresh) else { return NOT };
        let tenant = self.tenant_of(session, decision.facts.split, key);
        match self.held.table.note(tenant, session, key, now.mono / TICK_MS, price == Bits::ZERO) {
            Some(entered) => Outcome::Held { refreshed: true, entered },
            None => {
                Counters::add(&self.held.counters.full, 1);
                NOT
            }
        }
    }

    /// Whether a question would enter if it were held now; `None` where it would not be asked again.
    pub(super) fn would_enter(&self, live: &Live, session: &Session, key: Key<'_>) -> Option<bool> {
        let tenant = self.tenant_of(session, Split::of(key.qname), key);
        self.held.table.look(tenant, session, key).filter(|_| live.repeats.refresh)
    }

    fn tenant_of(&self, session: &Session, split: Split, key: Key<'_>) -> u64 {
        self.hash((session.id(), split.tenant(key.qname), "held"))
    }

    /// Asks held names again, tick after tick. Never returns; dropping it ends what is under way.
    pub async fn keep_held_fresh(self: Arc<Self>) {
        loop {
            let left = TICK_MS - clock::now().mono % TICK_MS;
            tokio::time::sleep(Duration::from_millis(left)).await;
            self.refresh_held(clock::now().mono, SPREAD).await;
        }
    }

    /// Asks again what was held in the ticks that are over at `mono`, monotonic milliseconds, at random moments within
    /// `spread`. Returns when all of it is answered or has failed.
    pub async fn refresh_held(self: &Arc<Self>, mono: u64, spread: Duration) {
        let due = self.held.table.take(mono / TICK_MS);
        if due.is_empty() {
            return;
        }
        let count = due.len();
        let Some(due) = at_random(due, spread) else {
            tracing::error!("no randomness: held names are not asked again");
            Counters::add(&self.held.counters.late, count);
            return;
        };
        let begun = Instant::now();
        let places = Arc::new(Semaphore::new(AT_ONCE));
        let mut under_way = JoinSet::new();
        for (left, (at, (question, sessions))) in (1..=count).rev().zip(due) {
            tokio::time::sleep_until(begun + at).await;
            // Nobody closes it.
            let Ok(place) = places.clone().acquire_owned().await else { break };
            if begun.elapsed() > LATEST.max(spread) {
                Counters::add(&self.held.counters.late, left);
                break;
            }
            let pipeline = self.clone();
            under_way.spawn(async move {
                pipeline.refresh(&question, &sessions).await;
                drop(place);
            });
            while under_way.try_join_next().is_some() {}
        }
        while under_way.join_next().await.is_some() {}
    }

    /// Asks one question again for those of `sessions` that may still ask it.
    async fn refresh(&self, question: &Question, sessions: &[Arc<Session>]) {
        let (key, counters) = (question.key(), &self.held.counters);
        let live = self.live.load_full();
        let now = clock::now();
        let floor = live.repeats.floor.as_millis() as u64;
        let is_fresh = self.cache.get(key, now.mono).is_some_and(|entry| {
            now.mono < entry.stored.saturating_add(floor) || entry.usable > now.mono.saturating_add(TICK_MS)
        });
        let mut permit = None;
        let mut asking = Vec::new();
        if !is_fresh && live.repeats.refresh {
            for session in sessions {
                let leave = self.judge_again(&live, session, question, now, |policy, context, inner, ask| {
                    policy.permit_refresh(context, inner, ask)
                });
                if let Some(leave) = leave {
                    permit = Some(leave);
                    asking.push(session);
                }
            }
        }
        let Some(permit) = permit else { return Counters::add(&counters.skipped, 1) };
        Counters::add(&counters.asked, 1);
        let response = match self.forwarder.resolve(&permit).await {
            Ok(response) => response,
            Err(error) => {
                tracing::debug!(%error, "no upstream answered for a held name");
                return Counters::add(&counters.failed, 1);
            }
        };
        // Without a usable one the old answer stays, and nothing stands in its way: it is tried again in a tick.
        let Some(told) = self.keep(&permit, &response).await else { return Counters::add(&counters.failed, 1) };
        let tenant = Split::of(key.qname).tenant(key.qname);
        for session in asking {
            session.inner.lock().score.observe(tenant, told);
        }
    }

    /// Leave to ask a question again on our own clock, judged as if the session asked it now.
    pub(super) fn judge_again(
        &self,
        live: &Live,
        session: &Session,
        question: &Question,
        now: Now,
        leave: impl FnOnce(&Policy, &Context, &Inner, &Ask<'_>) -> Option<Permit>,
    ) -> Option<Permit> {
        let query = Query {
            id: 0,
            recursion_desired: true,
            checking_disabled: question.checking_disabled,
            authentic_data: false,
            qname: QName::copy_of(question.qname.as_ref()),
            qtype: question.qtype,
            question: &[],
            // Only the flag is looked at.
            edns: question.dnssec_ok.then_some(Edns { udp_payload: 512, dnssec_ok: true }),
            options: Default::default(),
        };
        let qname = query.qname.as_ref();
        let context = session.context();
        let grants = live.grants.load();
        let split = Split::of(qname);
        let known = self.ages.known(&context, split.icann(qname), now.wall.steady);
        let inner = session.inner.lock();
        let zones = live.rpz.load();
        let client = context.announcement.addresses.first().copied();
        let ask = Ask {
            query: &query,
            now,
            split,
            cached: false,
            at_hand: true,
            registered_days: known.registered_days(now.wall.steady),
            first_seen_days: known.first_seen_days,
            group_seen_days: known.group_seen_days,
            group: self.group_facts(&context, qname, now.wall.steady),
            grants: &grants,
            // No reply is waited for, so what only asks for TCP holds nothing back.
            rpz: client.map(|client| AskZones { zones: &zones, client, tcp: true }),
            name_hash: 0,
        };
        // For the part of the cache that it was asked for; nobody waits for it.
        let sharing = Sharing { partition: question.partition, private: false };
        leave(&live.policy, &context, &inner, &ask).map(|permit| permit.shared(sharing))
    }
}

/// Each at a random moment within `spread`, soonest first; `None` where there is no randomness.
pub(super) fn at_random(due: Vec<Due>, spread: Duration) -> Option<Vec<(Duration, Due)>> {
    let mut octets = vec![0; due.len() * size_of::<u64>()];
    // From the system's generator: what an agent could compute, it could subtract.
    getrandom::fill(&mut octets).ok()?;
    let micros = u64::try_from(spread.as_micros()).unwrap_or(u64::MAX - 1) + 1;
    let (draws, _) = octets.as_chunks();
    let at = |draw: &[u8; 8]| Duration::from_micros(u64::from_ne_bytes(*draw) % micros);
    let mut all: Vec<_> = draws.iter().map(at).zip(due).collect();
    all.sort_by_key(|(at, _)| *at);
    Some(all)
}

#[cfg(test)]
mod tests;
