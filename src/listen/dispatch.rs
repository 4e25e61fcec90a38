//! The slow path: a bounded queue, a bounded number of queries at once, and a reply for each.
//!
//! Both transports put what [`Service::fast`] deferred into one queue; one task takes it out and spawns
//! [`Service::finish`]. What a stub can grow here is the queue and the set of running queries: both have their
//! capacity in [`super::Config`], a query that finds the queue full is answered SERVFAIL at once and counted, and
//! filling it gains an attacker a resolver that answers from its cache alone.

use std::net::{SocketAddr, UdpSocket};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::{JoinError, JoinSet};

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
                let sent = way.send(octets);
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

/// Queues a deferred query; where that is impossible, writes the refusal into `out` and returns the way back.
pub(super) fn defer<S: Service>(
    service: &S,
    queue: &mpsc::Sender<Job<S::Deferred>>,
    job: Job<S::Deferred>,
    out: &mut Vec<u8>,
    tally: &mut Tally,
) -> Result<(), ReplyTo> {
    match queue.try_send(job) {
        Ok(()) => {
            tally.deferred += 1;
            Ok(())
        }
        // A closed queue means that the service ends: the same answer serves.
        Err(mpsc::error::TrySendError::Full(job) | mpsc::error::TrySendError::Closed(job)) => {
            tally.queue_full += 1;
            out.clear();
            if catch_unwind(AssertUnwindSafe(|| service.overloaded(job.deferred, out))).is_err() {
                tally.panics += 1;
                failed(out, &job.packet);
            }
            Err(job.reply_to)
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

/// Takes queries out of the queue until it is closed, then waits up to [`DRAIN`] for those still running.
pub(super) async fn run<S: Service>(
    service: Arc<S>,
    mut queue: mpsc::Receiver<Job<S::Deferred>>,
    in_flight: usize,
    counters: Arc<Counters>,
) {
    let mut running = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            Some(ended) = running.join_next(), if !running.is_empty() => note(&ended, &counters),
            job = queue.recv(), if running.len() < in_flight => match job {
                Some(job) => {
                    running.spawn(finish(Arc::clone(&service), job, Arc::clone(&counters)));
                }
                None => break,
            },
        }
    }
    let rest = async {
        while let Some(ended) = running.join_next().await {
            note(&ended, &counters);
        }
    };
    if tokio::time::timeout(DRAIN, rest).await.is_err() {
        tracing::warn!(unfinished = running.len(), "queries given up at shutdown");
    }
}

/// Counts a task that panicked; its query was answered when the task's debt was dropped.
fn note(ended: &Result<(), JoinError>, counters: &Counters) {
    if ended.as_ref().is_err_and(JoinError::is_panic) {
        Counters::bump(&counters.panics);
    }
}

/// Finishes one query.
async fn finish<S: Service>(service: Arc<S>, job: Job<S::Deferred>, counters: Arc<Counters>) {
    let mut debt = Debt { owed: Some(job.reply_to), packet: job.packet, counters };
    let reply = service.finish(job.deferred).await;
    debt.settle(reply.unwrap_or_default());
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
            let mut out = Vec::new();
            failed(&mut out, &self.packet);
            self.settle(out);
        }
    }
}
