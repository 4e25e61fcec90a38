//! Enforcement: the packet filter holds what [`crate::pin`] planned, and says so before an answer is released.
//!
//! One owner thread, one ordered queue: what is submitted first takes effect first, so a revoke submitted under the
//! session's lock closes the door behind every pin submitted before it (promise P7).

use std::net::IpAddr;
use std::time::Duration;

/// Which backend applies commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BackendKind {
    /// nftables over netlink.
    Nft,
    /// Keeps a table in memory and records what it would have done.
    DryRun,
    /// Nothing is pinned; only with monitor mode.
    Off,
}

/// Settings of this stage.
#[derive(Debug, Clone)]
pub struct Config {
    /// Backend.
    pub backend: BackendKind,
    /// nftables table name.
    pub table: String,
    /// Interfaces on which sandboxes are attached; forwarded packets from them need a pin.
    pub interfaces: Vec<String>,
    /// Most time an acknowledgement may take before the caller gives up.
    pub deadline: Duration,
    /// Capacity of the queue to the owner thread.
    pub queue: usize,
    /// Most pins in the kernel, each family.
    pub capacity: u32,
}

/// One order to the packet filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Let `session` reach each of `destinations` for `lifetime` from now; refresh never shortens.
    Pin {
        /// Source address of the sandbox.
        session: IpAddr,
        /// Addresses of the same family as `session`.
        destinations: Vec<IpAddr>,
        /// From now.
        lifetime: Duration,
    },
    /// Forwarded packets from `session` need a pin from now on (enforced sessions).
    Guard {
        /// Source address of the sandbox.
        session: IpAddr,
    },
    /// Forwarded packets from `session` pass without a pin (monitored sessions).
    Unguard {
        /// Source address of the sandbox.
        session: IpAddr,
    },
    /// Remove all pins of `session`, refuse all its packets, and end its open flows.
    Quarantine {
        /// Source address of the sandbox.
        session: IpAddr,
    },
    /// Undo [`Command::Quarantine`]; pins stay gone.
    Release {
        /// Source address of the sandbox.
        session: IpAddr,
    },
    /// Forget `session` altogether: pins, guard, quarantine, flows.
    Remove {
        /// Source address of the sandbox.
        session: IpAddr,
    },
}
