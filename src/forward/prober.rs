//! Looks after an upstream that is silent, beside all questions: no client ever waits for it.
//!
//! Begun when a question is overdue and nothing came from the upstream since; asks `. NS`, which every resolver has at
//! hand, and stays until the upstream is well again. An upstream is found down when nothing came for about the time of a
//! whole exchange, several probes long, so that a lossy or slow path is not taken for a dead server: until then it is a
//! suspect, which costs nobody anything where another one is up. After that it asks every [`EVERY`] for as long as it takes, questions
//! or none, so that the first question after an outage finds the upstream in use again.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout_at};

use super::exchange::Try;
use super::query::Ask;
use super::{Config, Counters, Inner};
use crate::mishap;
use crate::sparing::Sparing;

/// Time between two probes of an upstream that is down or must show that it stays. Two good ones in a row are then
/// heard within a second of its return.
const EVERY: Duration = Duration::from_millis(500);
/// Probes within the time of one try, before an upstream is found down or not.
const FIRST: u32 = 4;
/// Least time between two of them.
const LEAST: Duration = Duration::from_millis(50);
/// Longest wait for a probe's answer. What is slower is of no use to a stub.
const PATIENCE: Duration = Duration::from_secs(4);
/// A probe that took longer was answered late, whatever is usual there: it would hold up everybody who asks it first. Far
/// beyond the way to any place on earth and back. Chosen without a source.
const LATE: Duration = Duration::from_millis(250);
/// Probes under way at once: as many as fit in [`PATIENCE`].
const MOST: usize = 8;

/// How long each took to be answered, if it was.
type Probes = JoinSet<Option<Duration>>;

/// Has upstream `index` watched until it is well, or the forwarder is gone.
pub(super) fn begin(inner: Arc<Inner>, index: usize) {
    tokio::spawn(to_its_end(EVERY, move || {
        let inner = inner.clone();
        async move {
            // Who holds it may be gone by the time that a watch begins anew.
            if inner.handles.strong_count() > 0 {
                watch(inner, index).await;
            }
        }
    }));
}

/// A watch, anew where it panicked: nobody else looks after an upstream that is being watched, and one that is down would stay so.
async fn to_its_end<W: Future<Output = ()> + Send + 'static>(pause: Duration, mut watch: impl FnMut() -> W) {
    static TOLD: Sparing = Sparing::new();
    while tokio::spawn(watch()).await.is_err_and(|error| error.is_panic()) {
        mishap::note("watching an upstream", &TOLD);
        tokio::time::sleep(pause).await;
    }
}

async fn watch(inner: Arc<Inner>, index: usize) {
    let mut probes = Probes::new();
    let server = &inner.servers[index];
    // Two turns at least.
    let span = span(&inner, index).max(2 * EVERY);
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
                if let Some(took) = heard(done) {
                    answered = true;
                    if alive(&inner, index, took) {
                        return;
                    }
                }
            }
        }
    }
}

/// How long a probe took, if it was answered; one that panicked is told.
fn heard(done: Result<Option<Duration>, JoinError>) -> Option<Duration> {
    static TOLD: Sparing = Sparing::new();
    match done {
        Ok(took) => took,
        Err(error) => {
            if error.is_panic() {
                mishap::note("probing an upstream", &TOLD);
            }
            None
        }
    }
}

/// How long an upstream must be silent to be found down: the first question that met its silence, or its neighbour's, is
/// given up at about that time, so that no further one waits.
fn span(inner: &Inner, index: usize) -> Duration {
    let Config { try_timeout, total_timeout, .. } = &inner.config;
    total_timeout.saturating_sub(2 * inner.hedge_after(index)).max(*try_timeout)
}

/// Is it dead or was a question unlucky? `None` if the watch is over.
async fn examine(inner: &Arc<Inner>, index: usize, probes: &mut Probes) -> Option<()> {
    let (begun, span) = (Instant::now(), span(inner, index));
    let health = &inner.servers[index].health;
    let pause = (inner.config.try_timeout / FIRST).max(LEAST);
    let (mut next, mut noticed) = (begun, false);
    let notice = begun + inner.hedge_after(index);
    loop {
        tokio::select! {
            Some(done) = probes.join_next() => {
                if let Some(took) = heard(done) {
                    return if alive(inner, index, took) { None } else { Some(()) };
                }
            }
            () = sleep_until(next), if probes.len() < MOST => {
                ask(probes, inner, index);
                next += pause;
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
        let begun = Instant::now();
        let end = begun + inner.config.total_timeout.min(PATIENCE);
        let one = Try {
            server: &inner.servers[index],
            payload: inner.config.udp_payload,
            time: inner.config.try_timeout,
            end,
            ports: &inner.ports,
            sockets: &inner.sockets,
            counters: &inner.counters,
            doubts: &inner.doubts,
        };
        let is_answered = match timeout_at(end, one.run(&Ask::PROBE, &AtomicBool::new(false))).await {
            Ok(Ok(_)) => true,
            Ok(Err(fault)) => fault.kind.answered(),
            Err(_) => false,
        };
        is_answered.then(|| begun.elapsed())
    });
}

/// Books the answer of a probe that took so long; whether the watch is over.
fn alive(inner: &Inner, index: usize, took: Duration) -> bool {
    let server = &inner.servers[index];
    if server.health.p95().is_none() {
        // One that is far is answered for by another from the first question on, and nothing else would tell its usual time.
        server.health.took(took);
    }
    if server.health.probed(took <= inner.hedge_after(index).min(LATE), Instant::now()) {
        Counters::add(&inner.counters.breakers_closed);
        tracing::warn!(upstream = %server.upstream, "upstream answers again");
        // It may be another one by now.
        inner.doubts.notify_one();
    }
    server.health.is_settled()
}

fn fell(inner: &Inner, index: usize) {
    inner.fell.notify_waiters();
    Counters::add(&inner.counters.breakers_opened);
    let server = &inner.servers[index];
    let why = inner.down(index).kind.as_str();
    tracing::warn!(upstream = %server.upstream, why, "upstream is down");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_watch_that_panics_begins_anew() {
        let (mut begun, before) = (0, mishap::count());
        to_its_end(Duration::ZERO, || {
            begun += 1;
            let begun = begun;
            async move { assert!(begun > 2, "what a mistake in our own code does") }
        })
        .await;
        assert_eq!(begun, 3);
        assert!(mishap::count() >= before + 2);
    }
}
