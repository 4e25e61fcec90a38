//! The packet filter as it is written.

use serde::{Deserialize, Serialize};

use crate::enforce::BackendKind;
use crate::readiness::Need;

/// `[enforce]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Enforce {
    /// Default: dry-run in monitor mode; must be written otherwise.
    pub backend: Option<BackendKind>,
    /// nftables table.
    pub table: String,
    /// Interfaces of sandboxes.
    pub interfaces: Vec<String>,
    /// For one acknowledgement.
    pub deadline_ms: u64,
    /// Shortest pin.
    pub min_pin_seconds: u64,
    /// Longest pin.
    pub max_pin_seconds: u64,
    /// How much longer than the time to live shown.
    pub pin_grace_seconds: u64,
    /// Most leases, each family: the ports of a web page, one other port, or all of one address for one session address each.
    pub capacity: u32,
    /// Most addresses that one name may hold open for one session.
    pub pins_per_name: usize,
    /// Whether others are forbidden to change the table.
    pub own_table: bool,
    /// Every lease that is opened or closed, as JSON lines; relative to the state directory, or `off`.
    pub lease_journal: String,
    /// Socket of an enforcer that changes the packet filter in this process's place.
    pub enforcer_socket: Option<String>,
    /// Group of that socket.
    pub enforcer_group: Option<String>,
    /// Whose orders the enforcer takes. Default: root's and its own user's.
    pub resolver_user: Option<String>,
    /// Command of backend `hook`, and its arguments.
    pub hook: Vec<String>,
    /// For one answer of it.
    pub hook_deadline_ms: u64,
    /// Whether the lockdown must stand. Default where nftables guards interfaces: require in enforce mode,
    /// else warn; off where it guards none.
    pub lockdown: Option<Need>,
    /// Its nftables table. Default: the table's name with `_lockdown`.
    pub lockdown_table: Option<String>,
}

impl Default for Enforce {
    fn default() -> Self {
        Self {
            backend: None,
            table: crate::enforce::DEFAULT_TABLE.into(),
            interfaces: Vec::new(),
            deadline_ms: 50,
            min_pin_seconds: 60,
            max_pin_seconds: 3600,
            pin_grace_seconds: 30,
            capacity: 262_144,
            pins_per_name: 256,
            own_table: true,
            lease_journal: "off".into(),
            enforcer_socket: None,
            enforcer_group: None,
            resolver_user: None,
            hook: Vec::new(),
            hook_deadline_ms: 1000,
            lockdown: None,
            lockdown_table: None,
        }
    }
}
