//! An upstream as configured: where it is and how it is asked.

use std::fmt;
use std::net::SocketAddr;

use super::tls::Tls;

/// An upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// Its address.
    pub address: SocketAddr,
    /// How it is asked, and in no other way.
    pub way: Way,
}

/// How an upstream is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// By datagrams, and over TCP where an answer is cut off (RFC 7766) or somebody forges.
    Udp {
        /// Whether letter case is drawn for questions, where the upstream is found to keep it.
        mix_case: bool,
    },
    /// Over TCP alone.
    Tcp,
    /// Over TLS alone (RFC 7858), the server authenticated by name (RFC 8310, strict profile).
    Tls(Tls),
}

impl Way {
    /// Port where none is written.
    pub fn port(&self) -> u16 {
        if matches!(self, Self::Tls(_)) { 853 } else { 53 }
    }
}

impl Upstream {
    /// One that is asked by datagrams, as a bare address in the configuration is.
    pub fn udp(address: SocketAddr) -> Self {
        Self { address, way: Way::Udp { mix_case: true } }
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.way {
            Way::Udp { .. } => write!(f, "{}", self.address),
            Way::Tcp => write!(f, "tcp://{}", self.address),
            Way::Tls(tls) => write!(f, "tls://{}#{}", self.address, tls.name()),
        }
    }
}
