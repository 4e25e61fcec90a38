//! Response policy zones that come by transfer: AXFR (RFC 5936) and IXFR (RFC 1995) from configured primaries, over TLS where
//! that is written (RFC 9103), signed where a key is written (RFC 8945), at the times that the SOA says and when a primary says so (RFC 1996).
//!
//! Between the primaries and [`crate::rpz`]. A zone is put in force whole, or not at all: whatever fails keeps the last good copy
//! in force, which is on disk too (`rpz/` in the state directory) and is there at the next start before any primary is asked.
//! Off the query path: a transfer ends in a new [`Snapshot`] that later queries see.
//!
//! Knows no session and no verdict. What it has to tell goes out by two functions that the daemon hands in.

// Octets from outside are read here: nothing may panic on them.
#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::indexing_slicing,
        clippy::string_slice
    )
)]

mod client;
mod connection;
mod keeper;
mod message;
mod notify;
mod records;
mod schedule;
mod stream;
mod task;
mod tsig;
#[cfg(test)]
mod zone_for_test;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use staunch_scoring::NameBuf;

use crate::forward::tls::Tls;
use crate::rpz::{Rules, Settings, Snapshot, Zone, process_key};

pub use keeper::{Keeper, ZoneStatus};
pub use tsig::{Algorithm, TsigError, TsigKey, Verifier};

/// A zone as the configuration has it.
#[derive(Debug, Clone)]
pub struct ZoneConfig {
    /// Its name.
    pub name: NameBuf,
    /// What is written beside its records.
    pub settings: Settings,
    /// Where its records come from.
    pub source: Source,
}

/// Where a zone's records come from.
#[derive(Debug, Clone)]
pub enum Source {
    /// A file, read with the configuration.
    File(Arc<Rules>),
    /// Primaries.
    Primaries(Primaries),
}

impl Source {
    /// Whether it is transferred in the same way as from `other`.
    fn asks_as(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Primaries(these), Self::Primaries(others)) => these == others,
            (Self::File(_) | Self::Primaries(_), _) => false,
        }
    }
}

/// A server that a zone is transferred from, over TCP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Primary {
    /// Where.
    pub address: SocketAddr,
    /// Whom it must be shown to be (RFC 9103); nothing where the connection is not encrypted.
    pub tls: Option<Tls>,
}

impl fmt::Display for Primary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.tls {
            None => self.address.fmt(f),
            Some(tls) => write!(f, "tls://{}#{}", self.address, tls.name()),
        }
    }
}

/// Whom a zone is transferred from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Primaries {
    /// In order of preference; at least one.
    pub servers: Vec<Primary>,
    /// The key that all messages are signed by.
    pub tsig: Option<TsigKey>,
    /// Whether enforced sessions are answered nothing before the first copy is there.
    pub required: bool,
    /// Whether the zone stays in force when it has expired.
    pub keep_expired: bool,
    /// Whether triggers and actions without a meaning here are left out instead of refusing the zone.
    pub lenient: bool,
    /// Most octets of a transfer, and of a copy.
    pub max_octets: u64,
}

/// The zones as a configuration alone has them: those from files, and the others without any record.
pub fn without_transfers(zones: &[ZoneConfig]) -> Snapshot {
    Snapshot::new(zones.iter().map(|zone| Zone {
        settings: zone.settings.clone(),
        rules: match &zone.source {
            Source::File(rules) => rules.clone(),
            Source::Primaries(_) => Arc::new(Rules::empty(zone.name.as_ref(), *process_key())),
        },
        counters: Arc::default(),
        awaited: false,
    }))
}
