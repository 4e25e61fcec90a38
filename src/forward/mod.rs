//! Forwarding: spends a [`Permit`](crate::policy::Permit) on an upstream.

use std::net::SocketAddr;
use std::time::Duration;

/// Settings of this stage.
#[derive(Debug, Clone)]
pub struct Config {
    /// Upstreams in order of preference.
    pub upstreams: Vec<SocketAddr>,
    /// Time for one try at one upstream.
    pub try_timeout: Duration,
    /// Time for the whole exchange.
    pub total_timeout: Duration,
    /// Largest UDP payload we advertise (RFC 9715: 1232).
    pub udp_payload: u16,
}
