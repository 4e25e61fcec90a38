//! What happened, counted.

use std::sync::atomic::{AtomicU64, Ordering};

use super::FailKind;

/// What happened, since start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Questions handed to [`Forwarder::resolve`](super::Forwarder::resolve), and those that waited for one of them.
    pub questions: AtomicU64,
    /// Of these, how many joined an exchange that was already under way.
    pub coalesced: AtomicU64,
    /// Of these, how many found every exchange taken.
    pub busy: AtomicU64,
    /// Of these, how many failed at once because every upstream was down.
    pub all_down: AtomicU64,
    /// Of these, how many failed at every upstream.
    pub failed: AtomicU64,
    /// Datagrams sent.
    pub udp_queries: AtomicU64,
    /// Queries over TCP.
    pub tcp_queries: AtomicU64,
    /// Queries over TLS.
    pub tls_queries: AtomicU64,
    /// Connections opened, TCP and TLS.
    pub connections: AtomicU64,
    /// Of these, TLS handshakes in full.
    pub tls_handshakes: AtomicU64,
    /// Of these, TLS sessions resumed.
    pub tls_resumed: AtomicU64,
    /// Queries sent once more because the server closed a connection, or did not take it.
    pub reconnected: AtomicU64,
    /// Queries of our own that try how an upstream treats datagrams.
    pub trials: AtomicU64,
    /// Datagrams that fitted but for the letter case or the cookie; their questions went over TCP.
    pub doubted: AtomicU64,
    /// Datagrams that did not fit the question they came for.
    pub mismatches: AtomicU64,
    /// Turns to TCP because of too many such datagrams.
    pub mismatch_floods: AtomicU64,
    /// Tries over TCP from the start, because of such a flood before.
    pub flood_tcp: AtomicU64,
    /// Turns to TCP because of truncation.
    pub truncated: AtomicU64,
    /// Repeats without EDNS.
    pub without_edns: AtomicU64,
    /// Second queries sent before the first one had failed.
    pub hedged: AtomicU64,
    /// Exchanges that waited longer for a second query because too many others had one.
    pub hedges_denied: AtomicU64,
    /// Queries repeated after a whole try's silence everywhere.
    pub repeated: AtomicU64,
    /// `. NS` probes.
    pub probes: AtomicU64,
    /// Times an upstream was found to be down.
    pub breakers_opened: AtomicU64,
    /// Times an upstream answered again after being down.
    pub breakers_closed: AtomicU64,
    /// Times an upstream was put behind the others because it failed what they answered.
    pub put_behind: AtomicU64,
    /// Failed tries, by [`FailKind`] in the order of [`FailKind::ALL`].
    pub failures: [AtomicU64; FailKind::ALL.len()],
}

impl Counters {
    pub(super) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// A question waits for another one that is the same.
    pub fn joined(&self) {
        Self::add(&self.questions);
        Self::add(&self.coalesced);
    }

    /// Failed tries of one kind.
    pub fn failures_of(&self, kind: FailKind) -> u64 {
        self.failures[kind as usize].load(Ordering::Relaxed)
    }
}
