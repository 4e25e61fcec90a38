//! One exchange: upstreams in order of preference until one answers well or the time is over.
//!
//! The next one is begun when a try fails; when one sees a datagram that does not fit, so that whoever floods us gains
//! neither a wrong answer nor a delay; and when the first is overdue (a hedge). Nobody who was asked is given up while
//! there is time: the first good answer wins. A question is put to two upstreams at most while nobody has failed; only
//! where both stay silent for a whole try is each asked once more, because a datagram may simply have been lost. When the
//! last upstream is found down, nobody waits any longer.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::exchange::Try;
use super::query::Ask;
use super::{Counters, FailKind, Failed, ForwardError, Inner, Response, Standing, prober};

/// A further try is only begun with at least this much time left. Chosen without a source: above most round trips.
const LEAST_TRY: Duration = Duration::from_millis(100);

/// Asks.
pub(super) async fn run(inner: &Arc<Inner>, ask: Ask) -> Result<Response, ForwardError> {
    let members = inner.members(&ask);
    let now = Instant::now();
    let waiting = inner.living(members, now);
    if waiting.is_empty() {
        return Err(inner.all_down(members));
    }
    inner.budget.earn();
    let race = Race {
        inner,
        ask,
        end: now + inner.config.total_timeout,
        waiting,
        asked: Vec::new(),
        failures: Vec::new(),
        tries: JoinSet::new(),
        noise: Arc::default(),
    };
    race.run().await
}

struct Race<'i> {
    inner: &'i Arc<Inner>,
    ask: Ask,
    end: Instant,
    /// Not yet asked, best first.
    waiting: VecDeque<usize>,
    /// In order; twice where it was asked twice.
    asked: Vec<usize>,
    failures: Vec<(usize, FailKind)>,
    tries: JoinSet<(usize, Result<Response, FailKind>)>,
    noise: Arc<Notify>,
}

impl Race<'_> {
    async fn run(mut self) -> Result<Response, ForwardError> {
        // With nobody else to ask, a second query would gain little: the same server is at work on the first one.
        let mut hedge = self.begin_next().filter(|_| !self.waiting.is_empty()).map(Hedge::of);
        let mut repeat = Instant::now() + self.inner.config.try_timeout;
        let mut denied = false;
        while !self.tries.is_empty() {
            let (noise, fell) = (self.noise.clone(), self.inner.fell.notified());
            // Behind `notified`, so that none is missed.
            if self.inner.living(self.inner.members(&self.ask), Instant::now()).is_empty() {
                self.give_up();
                break;
            }
            let at = hedge.as_ref().map_or(repeat, |hedge| hedge.at);
            tokio::select! {
                Some(done) = self.tries.join_next() => {
                    let Ok((index, outcome)) = done else { return Err(ForwardError::Abandoned) };
                    match outcome {
                        Ok(response) => {
                            self.compare(index);
                            return Ok(response);
                        }
                        Err(kind) => {
                            if !self.failures.contains(&(index, kind)) {
                                self.failures.push((index, kind));
                            }
                            if self.begin_next().is_some() {
                                hedge = None;
                                repeat = Instant::now() + self.inner.config.try_timeout;
                            }
                        }
                    }
                }
                () = noise.notified(), if !self.waiting.is_empty() => {
                    self.begin_next();
                    hedge = None;
                    repeat = Instant::now() + self.inner.config.try_timeout;
                }
                () = fell => {}
                () = sleep_until(at), if at < self.end => {
                    let now = Instant::now();
                    match &mut hedge {
                        Some(waits) if !self.may_hedge(waits, now) => {
                            if !std::mem::replace(&mut denied, true) {
                                Counters::add(&self.inner.counters.hedges_denied);
                            }
                            waits.at = (now + waits.after).min(waits.patience).max(now + LEAST_TRY / 4);
                        }
                        Some(_) => {
                            hedge = None;
                            if self.begin_next().is_some() {
                                Counters::add(&self.inner.counters.hedged);
                            }
                            repeat = now + self.inner.config.try_timeout;
                        }
                        None => {
                            let begun = if self.begin_next().is_some() {
                                Some(self.inner.config.try_timeout)
                            } else {
                                self.begin_again().then_some(LEAST_TRY)
                            };
                            if begun.is_some() {
                                Counters::add(&self.inner.counters.repeated);
                            }
                            repeat = begun.map_or(self.end, |wait| now + wait);
                        }
                    }
                }
            }
        }
        Counters::add(&self.inner.counters.failed);
        let servers = &self.inner.servers;
        // Those that were known to be down are named too.
        let members = self.inner.members(&self.ask);
        let down = members.iter().filter(|index| !self.asked.contains(index)).map(|index| self.inner.down(*index));
        let failed =
            |(index, kind): &(usize, FailKind)| Failed { upstream: servers[*index].upstream.address, kind: *kind };
        Err(ForwardError::Failed(self.failures.iter().map(failed).chain(down).collect()))
    }

    /// Writes down the silence of those that were asked and said nothing.
    fn give_up(&mut self) {
        for index in &self.asked {
            if !self.failures.iter().any(|(failed, _)| failed == index) {
                self.failures.push((*index, FailKind::Timeout));
                Counters::add(&self.inner.counters.failures[FailKind::Timeout as usize]);
            }
        }
    }

    /// Whether a second query may leave now: the first upstream is under suspicion, or has had half a try's time, or the
    /// budget allows it.
    fn may_hedge(&self, hedge: &Hedge, now: Instant) -> bool {
        let first = self.asked.first().map(|first| self.inner.servers[*first].health.standing(now));
        first.is_some_and(|standing| standing >= Standing::Suspect)
            || now >= hedge.patience
            || self.inner.budget.spend()
    }

    /// Asks the next one that was not asked yet, if there is one and time for it. Gives when it is overdue.
    fn begin_next(&mut self) -> Option<Due> {
        if Instant::now() + LEAST_TRY > self.end && !self.failures.is_empty() {
            return None;
        }
        let next = self.waiting.pop_front()?;
        Some(self.begin(next))
    }

    /// Asks once more whoever was asked once, has not failed and is not down, first asked first.
    fn begin_again(&mut self) -> bool {
        let now = Instant::now();
        let is_due = |index: &usize| {
            self.asked.iter().filter(|asked| *asked == index).count() == 1
                && !self.failures.iter().any(|(failed, _)| failed == index)
                && self.inner.servers[*index].health.standing(now) != Standing::Down
        };
        let Some(next) = self.asked.iter().copied().find(is_due) else { return false };
        if now + LEAST_TRY > self.end {
            return false;
        }
        self.begin(next);
        true
    }

    fn begin(&mut self, index: usize) -> Due {
        let further = !self.asked.is_empty();
        self.asked.push(index);
        let begun = Instant::now();
        let due = Due { begun, after: self.inner.hedge_after(index), patience: self.inner.config.try_timeout / 2 };
        let (inner, ask, noise, end) = (self.inner.clone(), self.ask, self.noise.clone(), self.end);
        self.tries.spawn(async move {
            let Some(_socket) = inner.sockets.take(further) else {
                let outcome = Err(FailKind::Local);
                note(&inner, index, &outcome);
                return (index, outcome);
            };
            let server = &inner.servers[index];
            let one = Try {
                server,
                payload: inner.config.udp_payload,
                time: inner.config.try_timeout,
                end,
                counters: &inner.counters,
                doubts: &inner.doubts,
            };
            let mut asking = pin!(one.run(&ask, &noise));
            let outcome = match timeout(due.after, &mut asking).await {
                Ok(outcome) => outcome,
                Err(_) => {
                    if server.health.overdue(begun) {
                        tokio::spawn(prober::watch(inner.clone(), index));
                    }
                    asking.await
                }
            };
            note(&inner, index, &outcome);
            (index, outcome)
        });
        due
    }

    /// Upstream `winner` answered well what others failed.
    fn compare(&self, winner: usize) {
        let now = Instant::now();
        self.inner.servers[winner].health.compared(false, now);
        for (index, _) in self.failures.iter().filter(|(index, kind)| kind.answered() && *index != winner) {
            let server = &self.inner.servers[*index];
            if server.health.compared(true, now) {
                Counters::add(&self.inner.counters.put_behind);
                tracing::warn!(upstream = %server.upstream, "upstream fails what others answer; it is asked after them");
            }
        }
    }
}

/// When a try is overdue.
#[derive(Clone, Copy)]
struct Due {
    begun: Instant,
    after: Duration,
    patience: Duration,
}

/// A second query that may be sent.
struct Hedge {
    at: Instant,
    after: Duration,
    /// When it is sent whatever the budget.
    patience: Instant,
}

impl Hedge {
    fn of(due: Due) -> Self {
        let at = due.begun + due.after;
        Self { at, after: due.after, patience: at.max(due.begun + due.patience) }
    }
}

/// Books the outcome of a try.
fn note(inner: &Arc<Inner>, index: usize, outcome: &Result<Response, FailKind>) {
    let server = &inner.servers[index];
    match outcome {
        Ok(response) => server.health.took(response.rtt),
        Err(kind) => {
            Counters::add(&inner.counters.failures[*kind as usize]);
            tracing::debug!(upstream = %server.upstream, kind = kind.as_str(), "upstream try failed");
            if (*kind == FailKind::Unreachable || kind.is_tls()) && server.health.unreachable(Instant::now()) {
                tokio::spawn(prober::watch(inner.clone(), index));
            }
        }
    }
}
