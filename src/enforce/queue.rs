//! What waits for the owner: one ordered queue in which no order can be lost for want of room.
//!
//! Up to the limit everything waits one behind the other. Beyond it a pin is refused, since the answer that needs it
//! can be refused too; an order that says what a session *is* cannot, for nobody would give it again. Such orders wait
//! behind the full queue, for each session address only what still matters of them: the last word on guard, on what it may
//! do and on quarantine, a removal, and destinations to unpin. No pin is taken while any wait, so between the orders that are put
//! together there never is one, and the order in which everything takes effect is the order of submission.
//!
//! Bound, beyond `limit` jobs: [`SESSIONS_MAX`] addresses with at most five orders each, and [`UNPINS_MAX`]
//! destinations. One job holds at most [`DESTINATIONS_MAX`] destinations.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::{Active, Command, DESTINATIONS_MAX, Error, Images, Kept, Range, SESSIONS_MAX, View};

/// Most destinations that wait to be unpinned behind a full queue: as many leases as both families hold unless
/// configured otherwise. One beyond it is refused, and its pin ends by its own timeout.
pub(super) const UNPINS_MAX: usize = 262_144;

/// The way back to who waits for a result.
pub(super) type Reply<T = ()> = oneshot::Sender<Result<T, Error>>;

/// A command on its way.
#[derive(Debug)]
pub(super) struct Order {
    /// What to do.
    pub command: Command,
    /// When it was submitted.
    pub at: Instant,
    /// Who waits.
    pub reply: Reply,
}

/// What the owner is asked to do.
#[derive(Debug)]
pub(super) enum Job {
    /// To be handed to the backend together with its neighbours.
    Order(Order),
    /// See [`super::Enforcer::reconcile`].
    Reconcile { active: Vec<Active>, reply: Reply },
    /// See [`super::Enforcer::ranges`].
    Ranges { ranges: Vec<Range>, reply: Reply },
    /// See [`super::Enforcer::view`].
    View { session: IpAddr, reply: Reply<View> },
    /// See [`super::Backend::images`].
    Images { table: String, apart: &'static str, reply: Reply<Images> },
}

/// How the owner is to leave.
#[derive(Debug)]
pub(super) struct Farewell {
    /// Whether the table goes with it.
    pub remove_table: bool,
    /// Who waits.
    pub reply: Reply,
}

/// The queue. Its lock is held for moments only and never across a call of the backend.
#[derive(Debug)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    filled: Condvar,
}

#[derive(Debug)]
struct Waiting {
    limit: usize,
    jobs: VecDeque<Job>,
    /// Empty unless `jobs` is full.
    beyond: Beyond,
    /// The owner is to look after the table at once.
    nudged: bool,
    /// Takes nothing any more.
    closed: bool,
    farewell: Option<Farewell>,
}

/// Orders that wait without a pin between any of them, together for each session address.
#[derive(Debug, Default)]
pub(super) struct Beyond {
    addresses: HashMap<IpAddr, Vec<Order>>,
    /// The same addresses, those that have waited longest first.
    turns: VecDeque<IpAddr>,
    orders: usize,
    destinations: usize,
    superseded: u64,
}

impl Queue {
    /// With room for `limit` jobs, pins among them.
    pub(super) fn new(limit: usize) -> Self {
        let limit = limit.max(1);
        let waiting = Waiting {
            limit,
            jobs: VecDeque::new(),
            beyond: Beyond::default(),
            nudged: false,
            closed: false,
            farewell: None,
        };
        Self { waiting: Mutex::new(waiting), filled: Condvar::new() }
    }

    /// Puts a job behind all others.
    pub(super) fn push(&self, job: Job) -> Result<(), Error> {
        let mut waiting = self.waiting.lock();
        if waiting.closed {
            return Err(Error::Stopped);
        }
        if waiting.jobs.len() < waiting.limit {
            waiting.jobs.push_back(job);
            drop(waiting);
            self.filled.notify_one();
            return Ok(());
        }
        // The owner has enough to do and needs no waking.
        match job {
            Job::Order(order) if !matches!(order.command, Command::Pin { .. }) => waiting.beyond.put(order),
            _ => Err(Error::QueueFull),
        }
    }

    /// Has the owner look after the table as soon as it can, jobs or not.
    pub(super) fn nudge(&self) {
        self.waiting.lock().nudged = true;
        self.filled.notify_one();
    }

    /// Moves up to `most` jobs, in order, to the end of `jobs`; waits for the first at most `patience`. Whether it was nudged
    /// meanwhile; nothing when there are no jobs and never will be.
    pub(super) fn take(&self, jobs: &mut Vec<Job>, most: usize, patience: Duration) -> Option<bool> {
        let mut waiting = self.waiting.lock();
        if waiting.jobs.is_empty() && !waiting.closed && !waiting.nudged {
            // Woken for nothing, the owner merely looks after the table early.
            self.filled.wait_for(&mut waiting, patience);
        }
        let Waiting { limit, jobs: queued, beyond, nudged, closed, .. } = &mut *waiting;
        let nudged = std::mem::take(nudged);
        let taken = queued.len().min(most);
        jobs.extend(queued.drain(..taken));
        while queued.len() < *limit
            && let Some(orders) = beyond.next()
        {
            queued.extend(orders.into_iter().map(Job::Order));
        }
        (taken > 0 || !queued.is_empty() || !*closed).then_some(nudged)
    }

    /// Takes nothing any more; what waits is still to be carried out.
    pub(super) fn close(&self, farewell: Option<Farewell>) -> Result<(), Error> {
        let mut waiting = self.waiting.lock();
        if waiting.closed {
            return Err(Error::Stopped);
        }
        waiting.closed = true;
        waiting.farewell = farewell;
        drop(waiting);
        self.filled.notify_one();
        Ok(())
    }

    /// Takes nothing any more and forgets what waits: whoever waits learns that the owner has stopped.
    pub(super) fn abandon(&self) {
        let mut waiting = self.waiting.lock();
        waiting.closed = true;
        let jobs = std::mem::take(&mut waiting.jobs);
        let beyond = std::mem::take(&mut waiting.beyond.addresses);
        waiting.beyond = Beyond { superseded: waiting.beyond.superseded, ..Beyond::default() };
        let farewell = waiting.farewell.take();
        drop(waiting);
        drop((jobs, beyond, farewell));
    }

    /// How to leave, once everything is carried out; nothing where the last handle was merely dropped.
    pub(super) fn farewell(&self) -> Option<Farewell> {
        self.waiting.lock().farewell.take()
    }

    /// Whether nothing is taken any more.
    pub(super) fn is_closed(&self) -> bool {
        self.waiting.lock().closed
    }

    /// Jobs that wait, and how many orders a later one has taken the place of.
    pub(super) fn counts(&self) -> (usize, u64) {
        let waiting = self.waiting.lock();
        (waiting.jobs.len() + waiting.beyond.orders, waiting.beyond.superseded)
    }
}

impl Queue {
    /// Whether an order waits that closes something.
    pub(super) fn closes(&self) -> bool {
        let waiting = self.waiting.lock();
        let closes = |order: &Order| order.command.closes();
        waiting.jobs.iter().any(|job| matches!(job, Job::Order(order) if closes(order)))
            || waiting.beyond.addresses.values().flatten().any(closes)
    }
}

impl Beyond {
    /// Takes an order in that is not a pin; earlier ones of its address that it makes idle go.
    ///
    /// # Errors
    ///
    /// [`Error::QueueFull`]: it was not taken.
    pub(super) fn put(&mut self, order: Order) -> Result<(), Error> {
        let session = order.command.session().to_canonical();
        let more = unpins(&order.command);
        if self.destinations + more > UNPINS_MAX {
            return Err(Error::QueueFull);
        }
        let known = self.addresses.contains_key(&session);
        if !known && self.addresses.len() >= SESSIONS_MAX {
            return Err(Error::QueueFull);
        }
        if !known {
            self.turns.push_back(session);
        }
        let orders = self.addresses.entry(session).or_default();
        let before = (orders.len(), orders.iter().map(|order| unpins(&order.command)).sum::<usize>());
        let mut superseded = Vec::new();
        add(orders, order, &mut superseded);
        self.orders = self.orders + orders.len() - before.0;
        self.destinations =
            self.destinations + orders.iter().map(|order| unpins(&order.command)).sum::<usize>() - before.1;
        self.superseded += superseded.len() as u64;
        for reply in superseded {
            let _ = reply.send(Err(Error::Superseded));
        }
        Ok(())
    }

    /// Everything of the address that has waited longest.
    pub(super) fn next(&mut self) -> Option<Vec<Order>> {
        let orders = self.addresses.remove(&self.turns.pop_front()?)?;
        self.orders -= orders.len();
        self.destinations -= orders.iter().map(|order| unpins(&order.command)).sum::<usize>();
        Some(orders)
    }
}

/// Puts an order behind those of the same address, with no pin between any of them, so that all together do what they
/// would have done one after the other.
fn add(orders: &mut Vec<Order>, mut order: Order, superseded: &mut Vec<Reply>) {
    use Command::{Guard, Pin, Quarantine, Release, Remove, Renew, Unguard, Unpin};
    if let Unpin { destinations: more, .. } = &mut order.command {
        let fits = orders.iter_mut().find(|earlier| {
            matches!(&earlier.command, Unpin { destinations, .. } if destinations.len() + more.len() <= DESTINATIONS_MAX)
        });
        if let Some(earlier) = fits
            && let Unpin { destinations, .. } = &mut earlier.command
        {
            more.retain(|destination| !destinations.contains(destination));
            destinations.append(more);
            superseded.push(std::mem::replace(&mut earlier.reply, order.reply));
            return;
        }
    }
    if let Renew { keep: now, .. } = &mut order.command
        && let Some(Renew { keep: before, .. }) =
            orders.iter().map(|earlier| &earlier.command).find(|earlier| matches!(earlier, Renew { .. }))
    {
        // What the earlier one has closed does not open again.
        let both = std::mem::take(now).into_iter().filter_map(|kept| in_both(kept, before));
        *now = both.collect();
    }
    let idle = |earlier: &Command| match order.command {
        Pin { .. } | Unpin { .. } => false,
        Guard { .. } | Unguard { .. } => matches!(earlier, Guard { .. } | Unguard { .. }),
        // It guards.
        Renew { .. } => matches!(earlier, Guard { .. } | Unguard { .. } | Renew { .. }),
        // It clears all pins. A quarantine that is released stays, because it has cleared them, too.
        Quarantine { .. } => matches!(earlier, Quarantine { .. } | Release { .. } | Unpin { .. }),
        Release { .. } => matches!(earlier, Release { .. }),
        Remove { .. } => true,
    };
    for earlier in std::mem::take(orders) {
        if idle(&earlier.command) {
            superseded.push(earlier.reply);
        } else {
            orders.push(earlier);
        }
    }
    orders.push(order);
}

/// As much of what is kept as `before` keeps too.
fn in_both(mut kept: Kept, before: &[Kept]) -> Option<Kept> {
    let destination = kept.destination.to_canonical();
    let before = before.iter().find(|before| before.destination.to_canonical() == destination)?;
    let both = kept.ports.iter().flat_map(|now| before.ports.iter().filter_map(|then| now.intersection(then)));
    let mut ports: Vec<_> = both.collect();
    ports.dedup();
    kept.ports = ports;
    (!kept.ports.is_empty()).then_some(kept)
}

fn unpins(command: &Command) -> usize {
    if let Command::Unpin { destinations, .. } = command { destinations.len() } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::super::Class;
    use super::super::state::State;
    use super::*;
    use crate::ports::Ports;
    use proptest::prelude::*;

    fn session(n: u8) -> IpAddr {
        IpAddr::from([10, 77, 1, n])
    }

    fn to(n: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, n])
    }

    fn pin(n: u8, destinations: impl IntoIterator<Item = u8>) -> Command {
        let destinations = destinations.into_iter().map(to).collect();
        let (ports, lifetime) = (Ports::web(), Duration::from_secs(60));
        Command::Pin { session: session(n), destinations, ports, volume: None, lifetime }
    }

    fn guard(n: u8) -> Command {
        Command::Guard { session: session(n), class: Class(n) }
    }

    fn renew(n: u8, keep: impl IntoIterator<Item = u8>) -> Command {
        let kept = |n: u8| {
            let ports = if n.is_multiple_of(3) { Ports::Any } else { Ports::web() };
            Kept { destination: to(n), ports: vec![ports], volume: None }
        };
        Command::Renew { session: session(n), class: Class(n), keep: keep.into_iter().map(kept).collect() }
    }

    fn push(queue: &Queue, command: Command) -> Result<(), Error> {
        queue.push(Job::Order(Order { command, at: Instant::now(), reply: oneshot::channel().0 }))
    }

    fn take(queue: &Queue, most: usize) -> Vec<Command> {
        let mut jobs = Vec::new();
        queue.take(&mut jobs, most, Duration::ZERO);
        let command = |job| if let Job::Order(order) = job { Some(order.command) } else { None };
        jobs.into_iter().filter_map(command).collect()
    }

    #[test]
    fn beyond_the_limit_an_address_costs_one_order_of_a_kind() {
        let queue = Queue::new(2);
        push(&queue, pin(1, [1])).expect("room");
        push(&queue, pin(2, [1])).expect("room");
        for round in 0..1000 {
            for n in 1..=2 {
                push(&queue, Command::Quarantine { session: session(n) }).expect("never refused");
                push(&queue, Command::Release { session: session(n) }).expect("never refused");
                push(&queue, guard(n)).expect("never refused");
                let destinations = vec![to((round % 100) as u8)];
                push(&queue, Command::Unpin { session: session(n), destinations }).expect("room");
            }
            assert!(matches!(push(&queue, pin(1, [2])), Err(Error::QueueFull)));
            assert_eq!(queue.counts().0, 2 + 2 * 4);
        }
        assert_eq!(queue.counts().1, 999 * 8);
        let all = take(&queue, 2).into_iter().chain(take(&queue, 100)).chain(take(&queue, 100));
        let kinds: Vec<_> = all.filter(|command| command.session() == session(1)).collect();
        let last = Command::Unpin { session: session(1), destinations: vec![to(99)] };
        let (quarantine, release) =
            (Command::Quarantine { session: session(1) }, Command::Release { session: session(1) });
        assert_eq!(kinds, [pin(1, [1]), quarantine, release, guard(1), last]);
        push(&queue, pin(1, [2])).expect("room again");
    }

    #[test]
    fn the_bounds_hold() {
        let queue = Queue::new(1);
        push(&queue, pin(1, [1])).expect("room");
        let address = |n: u32| IpAddr::from((0x0a00_0000 + n).to_be_bytes());
        let mut left = UNPINS_MAX;
        for n in 0.. {
            let destinations: Vec<_> = (0..DESTINATIONS_MAX as u32).map(address).collect();
            let result = push(&queue, Command::Unpin { session: address(n), destinations });
            if left < DESTINATIONS_MAX {
                assert!(matches!(result, Err(Error::QueueFull)));
                break;
            }
            result.expect("room");
            left -= DESTINATIONS_MAX;
        }
        for n in 0..SESSIONS_MAX as u32 {
            push(&queue, Command::Quarantine { session: address(n) }).expect("room");
        }
        let stranger = address(SESSIONS_MAX as u32);
        assert!(matches!(push(&queue, Command::Quarantine { session: stranger }), Err(Error::QueueFull)));
        push(&queue, Command::Guard { session: address(7), class: Class(1) }).expect("known");
        assert_eq!(queue.counts().0, 1 + SESSIONS_MAX + 1, "the quarantines made the unpins idle");
        queue.abandon();
        assert_eq!(queue.counts().0, 0);
        assert!(matches!(push(&queue, Command::Guard { session: stranger, class: Class(1) }), Err(Error::Stopped)));
    }

    fn commands() -> impl Strategy<Value = Vec<(Command, bool)>> {
        let sessions = 1u8..4;
        let some = || proptest::collection::vec(0u8..12, 1..6);
        let command = prop_oneof![
            3 => (sessions.clone(), some()).prop_map(|(n, to)| pin(n, to)),
            2 => (sessions.clone(), some()).prop_map(|(n, destinations)| {
                Command::Unpin { session: session(n), destinations: destinations.into_iter().map(to).collect() }
            }),
            1 => sessions.clone().prop_map(guard),
            1 => (sessions.clone(), some()).prop_map(|(n, keep)| renew(n, keep)),
            1 => sessions.clone().prop_map(|n| Command::Unguard { session: session(n) }),
            2 => sessions.clone().prop_map(|n| Command::Quarantine { session: session(n) }),
            2 => sessions.clone().prop_map(|n| Command::Release { session: session(n) }),
            1 => sessions.prop_map(|n| Command::Remove { session: session(n) }),
        ];
        proptest::collection::vec((command, proptest::bool::weighted(0.1)), 0..120)
    }

    proptest! {
        /// What comes out has the effect of what was taken in, in that order; every pin meets the same verdict.
        #[test]
        fn putting_together_changes_nothing(commands in commands(), limit in 1usize..6) {
            let queue = Queue::new(limit);
            let (mut one_by_one, mut together) = (State::new(100, 16), State::new(100, 16));
            let (mut verdicts, mut seen) = (Vec::new(), Vec::new());
            let mut carry_out = |commands: Vec<Command>| {
                for command in commands {
                    let result = together.apply(&command, 0);
                    if matches!(command, Command::Pin { .. }) {
                        seen.push((command, result.is_ok()));
                    }
                }
            };
            for (command, drain) in commands {
                if push(&queue, command.clone()).is_ok() {
                    let result = one_by_one.apply(&command, 0);
                    if matches!(command, Command::Pin { .. }) {
                        verdicts.push((command, result.is_ok()));
                    }
                } else {
                    prop_assert!(matches!(command, Command::Pin { .. }), "only pins are refused");
                }
                if drain {
                    carry_out(take(&queue, 2));
                }
            }
            while queue.counts().0 > 0 {
                carry_out(take(&queue, 2));
            }
            prop_assert_eq!(verdicts, seen);
            for n in 1..4 {
                // But for the numbers of generations.
                let seen = |state: &State| {
                    let entry = state.entry(session(n)).cloned().unwrap_or_default();
                    (entry.guarded, entry.monitored, entry.quarantined, entry.class, entry.leases, entry.volumes)
                };
                prop_assert_eq!(seen(&one_by_one), seen(&together));
            }
        }
    }
}
