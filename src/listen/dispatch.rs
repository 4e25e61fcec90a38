//! The slow path: a bounded number of queries that wait or are under way, and a reply for each.
//!
//! Both transports hand what [`Service::fast`] deferred to [`Slow`], which has a task of the runtime finish it. What a stub
//! can grow here is the set of those tasks: how many there may be, and how many of them at work, is in [`super::Config`]; a
//! query that finds no room is answered SERVFAIL at once and counted, and filling it gains an attacker a resolver that
//! answers from its cache alone.

use std::net::{SocketAddr, UdpSocket};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::counters::{Counters, Tally};
use super::{Fast, Service, mmsg, tcp};
use crate::model::{Ede, Now, Transport};
use crate::reply;
use crate::wire::{self, Parsed};

/// How long queries in the slow path may go on after the listeners have closed.
pub(super) const DRAIN: Duration = Duration::from_secs(3);

/// A deferred query and where its reply goes.
pub(super) struct Job<D> {
    pub(super) deferred: D,
    pub(super) reply_to: ReplyTo,
    /// The client's octets, so that a query is answered even if its task dies.
    pub(super) packet: Box<[u8]>,
}

/// The way back to a stub.
pub(super) enum ReplyTo {
    /// From the socket and address the query came to.
    Udp { socket: Arc<UdpSocket>, to: SocketAddr, local: Option<mmsg::Local> },
    /// Over its connection; the turn is one of those the connection has at once.
    Tcp { way: Box<tcp::Way>, turn: OwnedSemaphorePermit },
}

impl ReplyTo {
    /// Hands a reply over; true if it was taken.
    fn send(self, octets: Vec<u8>) -> bool {
        match self {
            Self::Udp { socket, to, local } => mmsg::send(&socket, &mmsg::Reply { octets, to, local }).is_ok(),
            Self::Tcp { mut way, turn } => {
                let sent = way.send_owed(octets);
                // Only now: the connection reads on, and thereby writes, when a turn comes back.
                drop(turn);
                sent
            }
        }
    }
}

/// Judges one message; a panic becomes SERVFAIL.
pub(super) fn judge<S: Service>(
    service: &S,
    packet: &[u8],
    from: SocketAddr,
    transport: Transport,
    now: Now,
    out: &mut Vec<u8>,
    tally: &mut Tally,
) -> Fast<S::Deferred> {
    out.clear();
    tally.packets += 1;
    // The service's own invariants are its own to keep: it shares nothing with us but the buffer, which is rewritten.
    match catch_unwind(AssertUnwindSafe(|| service.fast(packet, from, transport, now, out))) {
        Ok(fast) => fast,
        Err(_) => {
            tally.panics += 1;
            failed(out, packet);
            Fast::Reply
        }
    }
}

/// Finishes queries that could not be answered on the spot.
pub(super) struct Slow<S> {
    service: Arc<S>,
    runtime: Handle,
    counters: Arc<Counters>,
    /// For those that wait and those at work.
    room: Arc<Semaphore>,
    capacity: u32,
    /// For those at work.
    turns: Arc<Semaphore>,
}

impl<S: Service> Slow<S> {
    /// With room for `queue` queries that wait beside `in_flight` at work.
    pub(super) fn new(
        service: Arc<S>,
        runtime: Handle,
        counters: Arc<Counters>,
        queue: usize,
        in_flight: usize,
    ) -> Self {
        let most = Semaphore::MAX_PERMITS.min(u32::MAX as usize);
        let in_flight = in_flight.clamp(1, most);
        let capacity = queue.saturating_add(in_flight).min(most);
        Self {
            service,
            runtime,
            counters,
            room: Arc::new(Semaphore::new(capacity)),
            // At most `most`.
            capacity: u32::try_from(capacity).unwrap_or(u32::MAX),
            turns: Arc::new(Semaphore::new(in_flight)),
        }
    }

    /// Takes a deferred query; where there is no room, writes the refusal into `out` and returns the way back.
    pub(super) fn defer(&self, job: Job<S::Deferred>, out: &mut Vec<u8>, tally: &mut Tally) -> Result<(), ReplyTo> {
        let Ok(place) = Arc::clone(&self.room).try_acquire_owned() else {
            tally.queue_full += 1;
            out.clear();
            if catch_unwind(AssertUnwindSafe(|| self.service.overloaded(job.deferred, out))).is_err() {
                tally.panics += 1;
                failed(out, &job.packet);
            }
            return Err(job.reply_to);
        };
        tally.deferred += 1;
        let (service, counters, turns) =
            (Arc::clone(&self.service), Arc::clone(&self.counters), Arc::clone(&self.turns));
        self.runtime.spawn(async move {
            let Job { deferred, reply_to, packet } = job;
            let mut debt = Debt { owed: Some(reply_to), packet, counters };
            // It is never closed.
            let _turn = turns.acquire().await;
            let reply = service.finish(deferred).await;
            debt.settle(reply.unwrap_or_default());
            drop(place);
        });
        Ok(())
    }

    /// Waits up to [`DRAIN`] until all are finished. Nothing is taken any more meanwhile.
    pub(super) async fn drained(&self) {
        if tokio::time::timeout(DRAIN, self.room.acquire_many(self.capacity)).await.is_err() {
            let unfinished = (self.capacity as usize).saturating_sub(self.room.available_permits());
            tracing::warn!(unfinished, "queries given up at shutdown");
        }
    }
}

/// Counts a reply about to be sent; false if there is none.
pub(super) fn count_reply(out: &[u8], tally: &mut Tally) -> bool {
    match out.get(3).map(|flags| flags & 0xf) {
        None => {
            tally.drops += 1;
            return false;
        }
        Some(1 | 4 | 5) => tally.rejects += 1,
        Some(_) => {}
    }
    tally.replies += 1;
    true
}

/// SERVFAIL for a query whose judgement died; nothing for what is not a query.
fn failed(out: &mut Vec<u8>, packet: &[u8]) {
    match wire::parse(packet) {
        Parsed::Query(query) => reply::servfail(out, &query, Ede::Other, "internal error"),
        _ => out.clear(),
    }
}

/// A reply that is owed: dropped unpaid, as a panic or a shutdown does, it is paid with SERVFAIL.
struct Debt {
    owed: Option<ReplyTo>,
    packet: Box<[u8]>,
    counters: Arc<Counters>,
}

impl Debt {
    fn settle(&mut self, reply: Vec<u8>) {
        let Some(reply_to) = self.owed.take() else { return };
        let mut tally = Tally::default();
        if count_reply(&reply, &mut tally) && !reply_to.send(reply) {
            tally.replies -= 1;
            tally.send_failures += 1;
        }
        tally.flush(&self.counters);
    }
}

impl Drop for Debt {
    fn drop(&mut self) {
        if self.owed.is_some() {
            if std::thread::panicking() {
                Counters::bump(&self.counters.panics);
            }
            let mut out = Vec::new();
            failed(&mut out, &self.packet);
            self.settle(out);
        }
    }
}
