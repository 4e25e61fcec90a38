//! Looks after an upstream that is silent, beside all questions: no client ever waits for it.
//!
//! Begun when a question is overdue and nothing came from the upstream since; asks `. NS`, which every resolver has at
//! hand, and stays until the upstream is well again. For the time of one try it asks four times: one answer is enough,
//! so that a lossy path is not taken for a dead server. Then it asks every [`EVERY`] for as long as it takes, questions
//! or none, so that the first question after an outage finds the upstream in use again.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until};

use super::exchange::Try;
use super::query::Ask;
use super::{Counters, Inner};

/// Time between two probes of an upstream that is down or must show that it stays. Two good ones in a row are then
/// heard within a second of its return.
const EVERY: Duration = Duration::from_millis(500);
/// Probes within the time of one try, before an upstream is found down.
const FIRST: u32 = 4;
/// Longest wait for a probe's answer. What is slower is of no use to a stub.
const PATIENCE: Duration = Duration::from_secs(4);
/// Probes under way at once: as many as fit in [`PATIENCE`].
const MOST: usize = 8;

/// Whether the answer of a probe came.
type Probes = JoinSet<bool>;

/// Watches upstream `index` until it is well, or the forwarder is gone.
pub(super) async fn watch(inner: Arc<Inner>, index: usize) {
    let mut probes = Probes::new();
    let server = &inner.servers[index];
    // Two turns at least, however short a try is.
    let span = inner.config.try_timeout.max(2 * EVERY);
    if examine(&inner, index, &mut probes).await.is_none() {
        return;
    }
    let mut ticks = interval_at(Instant::now() + EVERY, EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Of the newest probe.
    let (mut sent, mut answered) = (None, true);
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                if inner.handles.strong_count() == 0 {
                    return;
                }
                if !answered {
                    server.health.missed_probe();
                }
                let now = Instant::now();
                if let Some(since) = now.checked_sub(span).filter(|_| sent.is_some())
                    && server.health.silent(since, now)
                {
                    fell(&inner, index);
                }
                if server.health.is_settled() {
                    return;
                }
                if probes.len() < MOST {
                    (sent, answered) = (Some(now), false);
                    ask(&mut probes, &inner, index);
                }
            }
            Some(done) = probes.join_next() => {
                if matches!(done, Ok(true)) {
                    answered = true;
                    if alive(&inner, index) {
                        return;
                    }
                }
            }
        }
    }
}

/// The first try's time: is it dead or was a question unlucky? `None` if the watch is over.
async fn examine(inner: &Arc<Inner>, index: usize, probes: &mut Probes) -> Option<()> {
    let (begun, span) = (Instant::now(), inner.config.try_timeout);
    let health = &inner.servers[index].health;
    let (mut next, mut asked, mut noticed) = (begun, 0, false);
    let notice = begun + inner.hedge_after(index);
    loop {
        tokio::select! {
            Some(done) = probes.join_next() => {
                if matches!(done, Ok(true)) {
                    return if alive(inner, index) { None } else { Some(()) };
                }
            }
            () = sleep_until(next), if asked < FIRST => {
                ask(probes, inner, index);
                asked += 1;
                next += span / FIRST;
            }
            () = sleep_until(notice), if !noticed => {
                health.unheard(begun, Instant::now());
                noticed = true;
            }
            () = sleep_until(begun + span) => {
                if health.silent(begun, Instant::now()) {
                    fell(inner, index);
                }
                return if health.is_settled() { None } else { Some(()) };
            }
        }
    }
}

fn ask(probes: &mut Probes, inner: &Arc<Inner>, index: usize) {
    let inner = inner.clone();
    probes.spawn(async move {
        Counters::add(&inner.counters.probes);
        let one = Try {
            server: &inner.servers[index],
            payload: inner.config.udp_payload,
            time: inner.config.try_timeout,
            end: Instant::now() + inner.config.total_timeout.min(PATIENCE),
            counters: &inner.counters,
        };
        match one.run(&Ask::PROBE, &Notify::new()).await {
            Ok(_) => true,
            Err(kind) => kind.answered(),
        }
    });
}

/// Books an answer; whether the watch is over.
fn alive(inner: &Inner, index: usize) -> bool {
    let server = &inner.servers[index];
    if server.health.probed(Instant::now()) {
        Counters::add(&inner.counters.breakers_closed);
        tracing::warn!(upstream = %server.addr, "upstream answers again");
    }
    server.health.is_settled()
}

fn fell(inner: &Inner, index: usize) {
    Counters::add(&inner.counters.breakers_opened);
    tracing::warn!(upstream = %inner.servers[index].addr, "upstream is down");
}
