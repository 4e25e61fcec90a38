//! Enforcement: the packet filter holds what [`crate::pin`] planned, and says so before an answer is released.
//!
//! One owner thread, one ordered queue: what is submitted first takes effect first, so a revoke submitted under the
//! session's lock closes the door behind every pin submitted before it (promise P7). A full queue refuses pins and
//! nothing else, so a revoke cannot be lost. The stages before this one call
//! [`Enforcer::submit`] and await the [`Ticket`]; they must not know which [`Backend`] is at work. This stage knows
//! addresses and lifetimes, and nothing of names, policies or sessions' contexts.
//!
//! Limits of what is enforced: packets that the host *forwards*. A process on the host itself (its own `OUTPUT`), and
//! what a sandbox sends to the host's own addresses (where the resolver listens), pass other hooks, which the lockdown
//! rules cover. Whoever shares a sandbox's source address shares its pins.

mod addresses;
mod backends;
mod hook;
mod journal;
pub mod mark;
mod mirror;
mod names;
mod netlink;
mod nft;
mod observed;
mod owing;
mod owner;
mod queue;
pub mod remote;
mod state;
mod status;
mod step;
#[cfg(test)]
mod tests;
mod ticket;
pub mod wire;

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::ports::{Opening, Port, Ports};

pub use addresses::{
    has_interface, host_addresses, interface_addresses, interface_name, interface_number, is_link_local,
};
pub use backends::{Counts, DryRun, DryRunLog, Health, Off, Open, View, range_elements};
pub use journal::Journalled;
pub use names::{interface_covers, is_interface, is_table};
pub use nft::{Chain, Family, Image, Images, Nft, Place, Refresh, Ruleset, Tracked, end_flows};
pub use observed::{Observed, Tell, Used};
pub use owner::Enforcer;
pub use status::Status;
pub use ticket::Ticket;

/// The service's nftables table where nobody names another.
pub const DEFAULT_TABLE: &str = "staunch";

/// Most destinations in one [`Command::Pin`] or [`Command::Unpin`]. An answer keeps far fewer addresses; 400 elements
/// are what one netlink attribute can hold.
pub const DESTINATIONS_MAX: usize = 256;

/// Most leases of one session address, each of one [`Opening`] of one destination, whatever is asked for. Several times what
/// [`crate::pin::SessionPins`] keeps with the default ports, so that it is met only if that stage's evictions do not arrive
/// or many ports are written; the gain of filling it is to be refused.
pub const SESSION_LEASES_MAX: usize = 6 * crate::pin::SESSION_PINS_MAX;

/// Most destinations of one session address whose volumes are counted. At it the one without a lease to which the least has
/// gone is forgotten; a session gains that it may send that little again.
pub const SESSION_VOLUMES_MAX: usize = 2 * crate::pin::SESSION_PINS_MAX;

/// So many volumes are counted for each lease there may be, since they stay for a session's life.
pub const VOLUMES_A_LEASE: u32 = 4;

/// Most elements of written ranges, each family: every range stands there for each class and port.
pub const RANGES_MAX: usize = 8192;

/// Most session addresses that are guarded, monitored or quarantined at once: twice the most sessions configurable.
pub const SESSIONS_MAX: usize = 262_144;

/// Which backend applies commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BackendKind {
    /// nftables over netlink.
    Nft,
    /// Keeps a table in memory and records what it would have done.
    DryRun,
    /// A command of the operator's that is told what to open.
    Hook,
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
    /// Interfaces on which sandboxes are attached (a trailing `*` stands for any rest); with `guard_unknown`, packets
    /// forwarded from them need a guarded or monitored source.
    pub interfaces: Vec<String>,
    /// Refuse what sources nobody announced send through `interfaces`. Without it only guarded sessions need a pin.
    pub guard_unknown: bool,
    /// Most time an acknowledgement may take before the caller gives up.
    pub deadline: Duration,
    /// Capacity of the queue to the owner thread. Beyond it pins are refused; other orders are not
    /// ([`Enforcer::submit`]).
    pub queue: usize,
    /// Most leases in the kernel, each family: one [`Opening`] of one destination for one session address each.
    pub capacity: u32,
    /// Whether every other process is forbidden to change the table, where the kernel can (Linux 6.9). Without it, changes
    /// are noticed and undone within a second.
    pub own_table: bool,
    /// Where every lease that is opened or closed is written down; nowhere without it.
    pub journal: Option<crate::lines::Config>,
    /// What works outside of this process.
    pub outside: Outside,
}

/// Other processes that have the packet filter in their hands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outside {
    /// Socket of the enforcer that changes the packet filter, with [`BackendKind::Nft`]; without one this process does.
    pub enforcer: Option<PathBuf>,
    /// The command and its arguments, with [`BackendKind::Hook`].
    pub hook: Vec<String>,
    /// Most time that the command may take for one answer; behind it, it is ended and started anew.
    pub hook_deadline: Duration,
}

impl Default for Outside {
    fn default() -> Self {
        Self { enforcer: None, hook: Vec::new(), hook_deadline: Duration::from_secs(1) }
    }
}

/// Which written ranges are open to a session: those of its class. The caller numbers classes; 0 has none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Class(pub u8);

/// A written range of addresses that sessions of some classes may reach without having resolved a name.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Range {
    /// Names it in [`Observed`].
    pub id: u32,
    /// Whose: bit n stands for [`Class`] n.
    pub classes: u32,
    /// First address.
    pub first: IpAddr,
    /// Last address, of the same family.
    pub last: IpAddr,
    /// What is open there.
    pub ports: Ports,
}

/// A destination that stays open in a new generation of a session.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// Destination.
    pub destination: IpAddr,
    /// What is open there, by each name that leads to it.
    pub ports: Vec<Ports>,
    /// Octets that may go out to it in all; no end without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<u64>,
}

impl Kept {
    /// Whether all of `opening` is open there, be it by several names.
    pub fn opens(&self, opening: Opening) -> bool {
        let one = |port: Port| self.ports.iter().any(|ports| ports.contains(port));
        match opening {
            Opening::Any => self.ports.contains(&Ports::Any),
            Opening::Web => Opening::WEB.into_iter().all(one),
            Opening::One(port) => one(port),
        }
    }
}

/// One order to the packet filter. As JSON (see [`wire`]): `{"order": "pin", "session": "10.77.1.2", ...}`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "order", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// Let `session` reach `ports` of each of `destinations` for `lifetime` from now; refresh never shortens.
    Pin {
        /// Source address of the sandbox.
        session: IpAddr,
        /// Addresses of the same family as `session`, at most [`DESTINATIONS_MAX`].
        destinations: Vec<IpAddr>,
        /// What is opened there.
        ports: Ports,
        /// Octets that may go out to each of them over the session's whole life, IP headers included; no end without one.
        /// Of two limits for one destination the wider one counts. What has gone out stays counted when the lease ends.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        volume: Option<u64>,
        /// From now.
        #[serde(rename = "lifetime_ms", with = "wire::millis")]
        lifetime: Duration,
    },
    /// Take pins away before their time (evicted by [`crate::pin::SessionPins`]), all ports of them. Open flows stay.
    Unpin {
        /// Source address of the sandbox.
        session: IpAddr,
        /// Addresses of the same family as `session`, at most [`DESTINATIONS_MAX`].
        destinations: Vec<IpAddr>,
    },
    /// Forwarded packets from `session` need a pin from now on (enforced sessions). Flows that were open before and
    /// have no pin are ended.
    Guard {
        /// Source address of the sandbox.
        session: IpAddr,
        /// Which written ranges are open to it.
        class: Class,
    },
    /// What `session` may do has changed: leases that `keep` does not name go, and so do flows, within a second; flows to
    /// what it names live on, also where their lease has ended. Volumes of what it names have its limits from now on.
    Renew {
        /// Source address of the sandbox.
        session: IpAddr,
        /// Which written ranges are open to it.
        class: Class,
        /// Addresses of the same family as `session`.
        keep: Vec<Kept>,
    },
    /// Forwarded packets from `session` pass without a pin (monitored sessions).
    Unguard {
        /// Source address of the sandbox.
        session: IpAddr,
    },
    /// Remove all pins of `session`, refuse all its packets, and end its open flows. What has gone out stays counted.
    Quarantine {
        /// Source address of the sandbox.
        session: IpAddr,
    },
    /// Undo [`Command::Quarantine`]; pins stay gone.
    Release {
        /// Source address of the sandbox.
        session: IpAddr,
    },
    /// Forget `session` altogether: pins, guard, quarantine, flows, and what has gone out.
    Remove {
        /// Source address of the sandbox.
        session: IpAddr,
    },
}

impl Command {
    /// Whether something ends by it that a session may not reach any more. What any other order says of a session,
    /// [`Enforcer::reconcile`] says as well; a pin is taken away for room alone.
    pub fn closes(&self) -> bool {
        matches!(self, Self::Renew { .. } | Self::Quarantine { .. } | Self::Remove { .. })
    }

    /// The source address it is about.
    pub fn session(&self) -> IpAddr {
        match self {
            Self::Pin { session, .. }
            | Self::Unpin { session, .. }
            | Self::Guard { session, .. }
            | Self::Renew { session, .. }
            | Self::Unguard { session }
            | Self::Quarantine { session }
            | Self::Release { session }
            | Self::Remove { session } => *session,
        }
    }
}

/// What a live session address must be like after [`Enforcer::reconcile`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Active {
    /// Source address of the sandbox.
    pub session: IpAddr,
    /// The class of a session whose forwarded packets need a pin; nothing for one that is monitored.
    pub guard: Option<Class>,
    /// Whether it is quarantined. Its pins are removed.
    pub quarantined: bool,
}

/// What applies commands: one owner thread calls it, one call at a time.
///
/// A backend keeps the wanted state itself, so that it can put it back when somebody else destroys what it built. A
/// pin that fails must leave nothing behind. Any other order that the packet filter did not take for a reason that may
/// pass must be wanted all the same, and be brought to it by the next [`Backend::healthy`] that succeeds: nobody gives
/// such an order a second time.
pub trait Backend: Send {
    /// Which kind.
    fn kind(&self) -> BackendKind;

    /// Builds what is needed and takes over what an earlier run left: its pins with their remaining lifetimes, guards
    /// and quarantines.
    ///
    /// # Errors
    ///
    /// Where enforcement cannot be had. The service must then not start in enforce mode.
    fn setup(&mut self) -> Result<(), Error>;

    /// Applies commands in order; one result each, in the same order.
    fn apply(&mut self, commands: &[Command]) -> Vec<Result<(), Error>>;

    /// Makes guards and quarantines exactly those of `active` and removes pins of every other session.
    ///
    /// # Errors
    ///
    /// Where the packet filter did not take it; the wanted state is `active` all the same.
    fn reconcile(&mut self, active: &[Active]) -> Result<(), Error>;

    /// Makes the written ranges exactly these.
    ///
    /// # Errors
    ///
    /// Where the packet filter did not take them; they are wanted all the same. [`Error::Full`] for more than
    /// [`RANGES_MAX`] elements: those before stay.
    fn ranges(&mut self, ranges: &[Range]) -> Result<(), Error>;

    /// Has what is seen of flows and volumes told from now on, every few seconds, from a thread of its own. Called once,
    /// behind [`Backend::setup`]. Backends that see nothing never tell.
    fn observe(&mut self, _tell: Tell) {}

    /// Looks whether what was built still stands, and puts it back if not. Called at least every 100 ms.
    ///
    /// # Errors
    ///
    /// Where it does not stand and could not be put back.
    fn healthy(&mut self) -> Result<Health, Error>;

    /// Times the table was put back since the start; asked behind every call.
    fn restored(&self) -> u64 {
        0
    }

    /// The tables of this name as the kernel holds them, whoever built them, the chain `apart` left out of their digests;
    /// nothing where no kernel is asked. A process without the privilege asks its backend, the kernel tells it nothing.
    ///
    /// # Errors
    ///
    /// Where the kernel does not tell.
    fn images(&mut self, _table: &str, _apart: &str) -> Result<Images, Error> {
        Ok(Images::new())
    }

    /// Everything that is wanted, by session address, ascending and above `after` where one is given, some of it at a time;
    /// and whether there is more. Nothing where a backend keeps nothing.
    fn held(&self, _after: Option<IpAddr>) -> (Vec<wire::Held>, bool) {
        (Vec::new(), false)
    }

    /// Exactly `held` is wanted from now on: what another process wants that gives its orders to this backend. Sessions that
    /// stay as they are keep their flows.
    ///
    /// # Errors
    ///
    /// [`Error::Full`], [`Error::SessionFull`] and [`Error::Family`] for what can never be held: everything stays as it was.
    /// Otherwise as [`Backend::reconcile`].
    fn hold(&mut self, _held: Vec<wire::Held>) -> Result<(), Error> {
        Err(Error::Config("this backend keeps nothing for another process".into()))
    }

    /// Leaves. With `remove_table` everything built goes, and sandboxes are no longer held back.
    ///
    /// # Errors
    ///
    /// Where the table could not be removed.
    fn teardown(&mut self, remove_table: bool) -> Result<(), Error>;

    /// What is wanted for one session address.
    fn view(&self, session: IpAddr) -> View;

    /// Sizes and counters.
    fn counts(&self) -> Counts;
}

/// Why a command was not carried out. In enforce mode the answer that waits for it becomes SERVFAIL (promise P4).
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The queue to the owner thread is full: the command was not taken.
    #[error("the queue to the packet filter is full")]
    QueueFull,
    /// While the queue was full a later order for the same address made this one idle; the later one's acknowledgement
    /// is for both.
    #[error("a later order for the same address has taken its place")]
    Superseded,
    /// The owner thread has ended.
    #[error("the packet filter's owner has stopped")]
    Stopped,
    /// No acknowledgement in time. The command may still take effect.
    #[error("no acknowledgement from the packet filter within {0:?}")]
    Deadline(Duration),
    /// The pin set holds as many elements as it may, or there are too many sessions.
    #[error("the packet filter's set is full ({limit} elements)")]
    Full {
        /// Its capacity.
        limit: usize,
    },
    /// One session holds as many pins as it may.
    #[error("{session} holds {SESSION_LEASES_MAX} pins")]
    SessionFull {
        /// Source address of the sandbox.
        session: IpAddr,
    },
    /// The session is quarantined: nothing is pinned for it.
    #[error("{session} is quarantined")]
    Quarantined {
        /// Source address of the sandbox.
        session: IpAddr,
    },
    /// Session and destination are not of one family.
    #[error("{session} cannot be pinned to {destination}: another address family")]
    Family {
        /// Source address of the sandbox.
        session: IpAddr,
        /// The address that does not fit.
        destination: IpAddr,
    },
    /// More destinations than [`DESTINATIONS_MAX`].
    #[error("{0} destinations in one command, at most {DESTINATIONS_MAX}")]
    TooMany(usize),
    /// The table is missing or damaged and could not be put back yet.
    #[error("the packet filter is not in place: {0}")]
    Unhealthy(String),
    /// A setting that cannot work.
    #[error("enforce: {0}")]
    Config(String),
    /// The kernel refused.
    #[error("{doing}: {source}{words}")]
    Kernel {
        /// What was tried.
        doing: &'static str,
        /// The errno.
        source: io::Error,
        /// The kernel's own words, with a separator, or nothing.
        words: String,
    },
    /// The netlink socket failed, or the owner thread could not be started.
    #[error("{doing}: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// Why.
        source: io::Error,
    },
}
