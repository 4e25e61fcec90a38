//! Durable state: an fsynced, hash-chained journal is the truth, sled is an index that can be rebuilt from it.
//!
//! Beside the stages: whoever decides something that must survive appends [`Record`]s and waits for the [`Commit`]
//! before he tells anybody. [`Store::append`] itself never waits, so the query path may call it; for what nobody waits for
//! there is [`Store::note`], which costs it least. The index is never on that path at all. [`crate::alert`] reads undelivered alerts back through a [`Spool`]. Knows no DNS and no verdicts.
//!
//! The state directory holds `lock`, the segments `journal-NNNNNN.jsonl`, `index/`, and whatever was put aside as
//! damaged. Only one process at a time may have it open.

mod case;
mod commit;
mod damage;
mod durable;
mod first_seen;
mod fold;
mod group_seen;
mod handle;
mod index;
mod journal;
mod line;
mod queue;
mod recover;
mod registered;
mod restore;
mod segment;
mod shared;
mod slots;
mod spool;
mod verify;
mod writer;

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::event::Alert;
use crate::learn::InForce;
use crate::model::{Announcement, CaseId, Reason, SessionId};

pub use case::{CaseRecord, Released};
pub use commit::Commit;
pub use durable::Durable;
pub use first_seen::FirstSeen;
pub use group_seen::GroupSeen;
pub use handle::{Backlog, IndexKind, Options, Quarantined, Recovered, Said, Store};
pub use index::{IndexError, MemoryStore, Op, SledStore, StateStore, Tree, Visit};
pub(crate) use line::hex;
pub use recover::{Break, Damage, IndexDamage, Place, Torn};
pub use registered::{Registered, Registration};
pub use shared::Status;
use shared::{Counters, Shared};
pub use spool::{Progress, Spool, Spooled};
pub use verify::{Report, verify};

/// Version of the journal's lines and of the index. A store with a higher one is not opened. Until version 1 every line of a
/// ledger was whole.
pub const SCHEMA: u32 = 2;

/// Within so many milliseconds of its end, what a grant has opened is closed by a service that runs. A grant is remembered that
/// long, so that a start behind a crash in that time knows of it.
pub const CLOSED_WITHIN: u64 = 60_000;

/// A fact that must survive.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Record {
    /// A session was announced, or its context updated.
    Announce {
        /// What was said.
        announcement: Announcement,
        /// Fingerprint of the configuration's entry for that session when it was said
        /// ([`crate::session::Configured::fingerprint_of`]); `None` where there was none. While the entry stays the same,
        /// this is the newer word.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        entry: Option<u64>,
    },
    /// A session ended; its ledger is forgotten.
    End {
        /// Which.
        session: SessionId,
    },
    /// A session was quarantined.
    Quarantine {
        /// Which.
        session: SessionId,
        /// Case the agent was told.
        case: CaseId,
        /// Why.
        reason: Reason,
        /// Who did it: `staunch` or an operator.
        by: String,
        /// Free words.
        note: String,
        /// Since when, Unix milliseconds; nothing where it is the time of the line.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        since: Option<u64>,
        /// Addresses of a source that nobody announced beside the one that its name says; as many as a session may adopt, at
        /// most.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        addresses: Vec<IpAddr>,
    },
    /// A session was released, or an open one may tell more than its limits allow.
    Release {
        /// Which.
        session: SessionId,
        /// Who.
        by: String,
        /// Why.
        note: String,
        /// Bits added to each of its limits.
        #[serde(default, skip_serializing_if = "is_none_added")]
        extend: u32,
    },
    /// A temporary allowance, or its end before its time: the later of one id stands.
    Grant {
        /// The allowance.
        grant: Grant,
    },
    /// An alert to be delivered.
    Alert {
        /// The alert.
        alert: Box<Alert>,
    },
    /// A sink took an alert.
    Delivered {
        /// The alert's id.
        alert: String,
        /// The sink's name.
        sink: String,
        /// The alert's sequence in the journal.
        seq: u64,
        /// Its number among all alerts.
        nth: u64,
    },
    /// A session's ledger crossed a step; on restart it is at least this.
    Ledger {
        /// Which.
        session: SessionId,
        /// Its state, or what has changed of it since the last one.
        state: staunch_scoring::StateSnapshot,
    },
    /// A group's ledger crossed a step; on restart it is at least this.
    Group {
        /// Owner of the group's sessions; empty for the ledger that groups share which found no room.
        group: String,
        /// When, milliseconds since the Unix epoch.
        at: u64,
        /// What was spent, in the journal without names.
        state: staunch_scoring::GroupSnapshot,
    },
    /// A policy took effect.
    Policy {
        /// Digest of the effective configuration, hex SHA-256.
        digest: String,
        /// Learned thresholds that are in force with it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        learned: Vec<InForce>,
        /// Whether it applied verdicts: to all sessions or to a canary's.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        enforced: bool,
        /// When written ranges of addresses were last used.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        ranges: Vec<RangeUse>,
    },
}

fn is_none_added(bits: &u32) -> bool {
    *bits == 0
}

/// When a written range was last used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeUse {
    /// Its id in the configuration.
    pub id: String,
    /// To the day, milliseconds since the Unix epoch.
    pub at: u64,
    /// When it was last told that nobody uses it; 0 for never.
    #[serde(default)]
    pub told: u64,
}

/// An allowance that ends by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Short id.
    pub id: String,
    /// The rule form: `=x`, `x` or `*.x`.
    pub name: String,
    /// For one session, or for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// What is opened of its addresses, as in configurations; the profile's ports where there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<String>,
    /// Who answers for it.
    pub owner: String,
    /// Why.
    pub reason: String,
    /// When given, milliseconds since the Unix epoch.
    pub from: u64,
    /// When it ends, milliseconds since the Unix epoch.
    pub until: u64,
    /// Set once it was taken back: then `until` is when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withdrawn: Option<Withdrawn>,
}

/// A grant was taken back before its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Withdrawn {
    /// Who did it: `staunch` or an operator.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// The store failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// A file could not be used.
    #[error("could not {what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// With which file or directory.
        path: PathBuf,
        /// The cause.
        source: Arc<io::Error>,
    },
    /// Another process has the state directory.
    #[error("state directory {0} is in use by another process")]
    Locked(PathBuf),
    /// A later version wrote it. It was not changed.
    #[error(
        "the {what} has schema {found}; this version knows up to {known}. Use the later version, or another state directory"
    )]
    NewerSchema {
        /// Journal or index.
        what: &'static str,
        /// Its schema.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// Too much waits to be written. Nothing of the call was taken.
    #[error("the journal's queue is full")]
    QueueFull,
    /// A record is too large to be written. Nothing of the call was taken.
    #[error("a record of {octets} octets is too large")]
    TooLarge {
        /// Its size.
        octets: usize,
    },
    /// A record cannot be written as JSON. Nothing of the call was taken.
    #[error("a record cannot be encoded: {0}")]
    Encode(Arc<serde_json::Error>),
    /// The disk would not take it.
    #[error("not durable: {source}{}", if *kept { "; kept in memory and written when the disk allows" } else { "" })]
    NotDurable {
        /// Whether it will be written once the disk works again, if the process lives that long. What loosens
        /// (releases, grants) is never kept.
        kept: bool,
        /// The cause.
        source: Arc<io::Error>,
    },
    /// There is no room for another.
    #[error("too many {what}: the limit is {cap}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The limit.
        cap: usize,
    },
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// The index failed in a way that a new one does not mend.
    #[error(transparent)]
    Index(#[from] IndexError),
}

impl Error {
    fn io(what: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { what, path: path.to_owned(), source: Arc::new(source) }
    }
}

/// Unix milliseconds.
fn wall_ms() -> u64 {
    crate::clock::now().wall.shown
}

/// Unix milliseconds of an RFC 3339 time. What is none is the epoch.
fn unix_ms(time: &str) -> u64 {
    let time = time.parse::<jiff::Timestamp>().unwrap_or_default();
    u64::try_from(time.as_millisecond()).unwrap_or(0)
}

/// RFC 3339, UTC, milliseconds. Out of range is the epoch.
fn rfc3339(ms: u64) -> String {
    let time = i64::try_from(ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok()).unwrap_or_default();
    time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
