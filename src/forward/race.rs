//! One exchange: upstreams in order of preference until one answers well or the time is over.
//!
//! The next one is begun when a try fails; when one sees a datagram that does not fit, so that whoever floods us gains
//! neither a wrong answer nor a delay; and when the first is overdue (a hedge). Nobody who was asked is given up while
//! there is time: the first good answer wins. A question is put to two upstreams at most while nobody has failed; only
//! where both stay silent for a whole try is each asked once more, because a datagram may simply have been lost. When the
//! last upstream is found down, nobody waits any longer.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::Duration;

use staunch_scoring::{NameRef, Split};
use tokio::sync::futures::Notified;
use tokio::time::{Instant, Sleep, sleep_until};

use super::error::Fault;
use super::exchange::Try;
use super::query::Ask;
use super::{Counters, FailKind, Failed, ForwardError, Inner, Response, Standing, prober};

/// A further try is only begun with at least this much time left. Chosen without a source: above most round trips.
const LEAST_TRY: Duration = Duration::from_millis(100);

/// Asks. `noise` is set at the first datagram that does not fit.
pub(super) async fn run(inner: &Arc<Inner>, ask: &Ask, noise: &AtomicBool) -> Result<Response, ForwardError> {
    let members = inner.members(ask);
    let now = Instant::now();
    let mut waiting = inner.living(members, now);
    waiting.retain(|index| ask.is_for(inner.servers[*index].upstream.address));
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
        tries: Vec::new(),
        paid: None,
        noise,
    };
    race.run().await
}

struct Race<'i> {
    inner: &'i Arc<Inner>,
    ask: &'i Ask,
    end: Instant,
    /// Not yet asked, best first.
    waiting: VecDeque<usize>,
    /// In order; twice where it was asked twice.
    asked: Vec<usize>,
    failures: Vec<(usize, Fault)>,
    tries: Vec<Running<'i>>,
    /// Whose query the budget has paid for.
    paid: Option<usize>,
    noise: &'i AtomicBool,
}

/// A try under way. All of them are run by the exchange's own task, so that one that goes well costs no other.
struct Running<'i> {
    index: usize,
    begun: Instant,
    /// When its upstream is overdue, until that was told.
    overdue: Option<Instant>,
    outcome: Pin<Box<dyn Future<Output = Result<Response, Fault>> + Send + 'i>>,
}

/// What an exchange goes on with.
enum Event {
    Done(usize, Result<Response, Fault>),
    /// A datagram that does not fit came, and there is somebody else to ask.
    Noise,
    /// An upstream was found down.
    Fell,
    Time,
}

impl Race<'_> {
    async fn run(mut self) -> Result<Response, ForwardError> {
        // With nobody else to ask, a second query would gain little: the same server is at work on the first one.
        let mut hedge = self.begin_next().filter(|_| !self.waiting.is_empty()).map(Hedge::of);
        let mut repeat = Instant::now() + self.inner.config.try_timeout;
        let mut denied = false;
        let inner = self.inner;
        let mut fell = pin!(inner.fell.notified());
        let mut timer = pin!(sleep_until(self.due(hedge.as_ref(), repeat)));
        // From here on none is missed.
        fell.as_mut().enable();
        let mut is_served = inner.is_served(inner.members(self.ask), Instant::now());
        while !self.tries.is_empty() {
            if !is_served {
                self.give_up();
                break;
            }
            let due = self.due(hedge.as_ref(), repeat);
            if timer.deadline() != due {
                timer.as_mut().reset(due);
            }
            match std::future::poll_fn(|cx| self.poll(cx, fell.as_mut(), timer.as_mut())).await {
                Event::Done(index, Ok(response)) => {
                    let first = self.asked.first().copied().unwrap_or(index);
                    let usual = inner.hedge_after(index).min(inner.hedge_after(first));
                    if self.paid == Some(index) && response.rtt <= usual {
                        inner.budget.repay();
                    }
                    self.compare(index);
                    return Ok(response);
                }
                Event::Done(index, Err(fault)) => {
                    if !self.failures.contains(&(index, fault)) {
                        self.failures.push((index, fault));
                    }
                    if self.begin_next().is_some() {
                        hedge = None;
                        repeat = Instant::now() + inner.config.try_timeout;
                    }
                }
                Event::Noise => {
                    self.begin_next();
                    hedge = None;
                    repeat = Instant::now() + inner.config.try_timeout;
                }
                Event::Fell => {
                    fell.set(inner.fell.notified());
                    fell.as_mut().enable();
                    is_served = inner.is_served(inner.members(self.ask), Instant::now());
                }
                Event::Time => {
                    let now = Instant::now();
                    self.tell_overdue(now);
                    if now >= self.end {
                        self.give_up();
                        break;
                    }
                    match &mut hedge {
                        Some(waits) if now < waits.at => {}
                        Some(waits) => match self.leave(waits, now) {
                            None => {
                                if !std::mem::replace(&mut denied, true) {
                                    Counters::add(&inner.counters.hedges_denied);
                                }
                                waits.at = (now + waits.after).min(waits.patience).max(now + LEAST_TRY / 4);
                            }
                            Some(leave) => {
                                hedge = None;
                                if self.begin_next().is_some() {
                                    Counters::add(&inner.counters.hedged);
                                    self.paid = self.asked.last().copied().filter(|_| leave == Leave::Paid);
                                }
                                repeat = now + inner.config.try_timeout;
                            }
                        },
                        None if now < repeat => {}
                        None => {
                            let begun = if self.begin_next().is_some() {
                                Some(inner.config.try_timeout)
                            } else {
                                self.begin_again().then_some(LEAST_TRY)
                            };
                            if begun.is_some() {
                                Counters::add(&inner.counters.repeated);
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
        let members = self.inner.members(self.ask);
        let down = members.iter().filter(|index| !self.asked.contains(index)).map(|index| self.inner.down(*index));
        let failed = |(index, fault): &(usize, Fault)| {
            let upstream = servers[*index].upstream.address;
            Failed { upstream, kind: fault.kind, said: fault.said }
        };
        Err(ForwardError::Failed(self.failures.iter().map(failed).chain(down).collect()))
    }

    /// When there is something to do at the latest.
    fn due(&self, hedge: Option<&Hedge>, repeat: Instant) -> Instant {
        let overdue = self.tries.iter().filter_map(|running| running.overdue);
        overdue.chain([hedge.map_or(repeat, |hedge| hedge.at)]).fold(self.end, Instant::min)
    }

    fn poll(&mut self, cx: &mut Context<'_>, fell: Pin<&mut Notified<'_>>, timer: Pin<&mut Sleep>) -> Poll<Event> {
        let mut done = None;
        for (place, running) in self.tries.iter_mut().enumerate() {
            if let Poll::Ready(outcome) = running.outcome.as_mut().poll(cx) {
                done = Some((place, outcome));
                break;
            }
        }
        if let Some((place, outcome)) = done {
            let index = self.tries.remove(place).index;
            note(self.inner, index, &outcome);
            return Poll::Ready(Event::Done(index, outcome));
        }
        // What is set while nobody else is to be asked is of no use any more.
        if self.noise.swap(false, Relaxed) && !self.waiting.is_empty() {
            return Poll::Ready(Event::Noise);
        }
        if fell.poll(cx).is_ready() {
            return Poll::Ready(Event::Fell);
        }
        timer.poll(cx).map(|()| Event::Time)
    }

    /// Has those looked after that should have answered by now.
    fn tell_overdue(&mut self, now: Instant) {
        for running in &mut self.tries {
            if running.overdue.take_if(|overdue| *overdue <= now).is_some()
                && self.inner.servers[running.index].health.overdue(running.begun)
            {
                prober::begin(self.inner.clone(), running.index);
            }
        }
    }

    /// Writes down the silence of those that were asked and said nothing.
    fn give_up(&mut self) {
        for index in &self.asked {
            if !self.failures.iter().any(|(failed, _)| failed == index) {
                self.failures.push((*index, FailKind::Timeout.into()));
                Counters::add(&self.inner.counters.failures[FailKind::Timeout as usize]);
            }
        }
    }

    /// Whether a second query may leave now: the first upstream is under suspicion, or has had half a try's time, or the
    /// budget pays for it.
    fn leave(&self, hedge: &Hedge, now: Instant) -> Option<Leave> {
        let first = self.asked.first().map(|first| self.inner.servers[*first].health.standing(now));
        if first.is_some_and(|standing| standing >= Standing::Suspect) || now >= hedge.patience {
            return Some(Leave::Free);
        }
        self.inner.budget.spend().then_some(Leave::Paid)
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
        let (inner, ask, noise, end) = (self.inner, self.ask, self.noise, self.end);
        let outcome = Box::pin(async move {
            let Some(_socket) = inner.sockets.take(further) else { return Err(FailKind::Local.into()) };
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
            one.run(ask, noise).await
        });
        self.tries.push(Running { index, begun, overdue: Some(begun + due.after), outcome });
        due
    }

    /// Upstream `winner` answered well what others failed.
    fn compare(&self, winner: usize) {
        let failed = self.failures.iter().filter(|(index, fault)| fault.kind.answered() && *index != winner);
        compare(self.inner, self.ask.name(), winner, failed.map(|(index, _)| *index));
    }
}

/// Upstream `winner` answered well about `name` what others failed.
pub(super) fn compare(inner: &Inner, name: NameRef<'_>, winner: usize, failed: impl Iterator<Item = usize>) {
    let now = Instant::now();
    inner.servers[winner].health.compared(None, now);
    // All names of a zone with upstreams of its own may be of one domain.
    let domain = if inner.map.is_apart(name) { name } else { Split::of(name).icann(name) };
    let domain = inner.hasher.hash_one(domain.as_wire());
    for index in failed {
        let server = &inner.servers[index];
        if server.health.compared(Some(domain), now) {
            Counters::add(&inner.counters.put_behind);
            tracing::warn!(upstream = %server.upstream, "upstream fails what others answer; it is asked after them");
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

/// Why a second query may leave.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Leave {
    /// Nothing better can be hoped of the first.
    Free,
    /// It was paid for.
    Paid,
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
fn note(inner: &Arc<Inner>, index: usize, outcome: &Result<Response, Fault>) {
    let server = &inner.servers[index];
    match outcome {
        Ok(response) => server.health.took(response.rtt),
        Err(Fault { kind, .. }) => {
            Counters::add(&inner.counters.failures[*kind as usize]);
            tracing::debug!(upstream = %server.upstream, kind = kind.as_str(), "upstream try failed");
            if (*kind == FailKind::Unreachable || kind.is_tls()) && server.health.unreachable(Instant::now()) {
                prober::begin(inner.clone(), index);
            }
        }
    }
}
