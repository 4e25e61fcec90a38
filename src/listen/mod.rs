//! Listening: datagrams and connections in, replies out. Knows the packet and who sent it, nothing of policy.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use crate::model::{Now, Transport};

/// Settings of this stage.
#[derive(Debug, Clone)]
pub struct Config {
    /// Addresses to serve, UDP and TCP alike.
    pub addresses: Vec<SocketAddr>,
    /// UDP worker threads for each address; 0 means one a core.
    pub workers: usize,
    /// Queries that may wait for the slow path; when full they are answered SERVFAIL at once.
    pub queue: usize,
    /// Queries in the slow path at once.
    pub in_flight: usize,
    /// TCP connections at once, all sources.
    pub tcp_connections: usize,
    /// TCP connections at once from one source.
    pub tcp_per_source: usize,
    /// A connection that says nothing for this long is closed.
    pub tcp_idle: Duration,
}

/// What a listener needs from the rest: [`crate::pipeline`] implements it.
pub trait Service: Send + Sync + 'static {
    /// A query that could not be answered on the spot.
    type Deferred: Send + 'static;

    /// Judges one packet without waiting for anything. Writes the reply, if there is one, into `out` (cleared by the
    /// caller, at least 65,535 octets of room for TCP and 1,232 for UDP).
    fn fast(
        &self,
        packet: &[u8],
        from: SocketAddr,
        transport: Transport,
        now: Now,
        out: &mut Vec<u8>,
    ) -> Fast<Self::Deferred>;

    /// Finishes a deferred query; `None` means that nothing is to be sent.
    fn finish(&self, deferred: Self::Deferred) -> impl Future<Output = Option<Vec<u8>>> + Send;

    /// Writes the reply for a query that found the queue full: SERVFAIL with a reason.
    fn overloaded(&self, deferred: Self::Deferred, out: &mut Vec<u8>);
}

/// Outcome of [`Service::fast`].
#[derive(Debug)]
pub enum Fast<D> {
    /// The reply is in the buffer.
    Reply,
    /// Nothing is sent.
    Drop,
    /// To be finished by [`Service::finish`].
    Deferred(D),
}
