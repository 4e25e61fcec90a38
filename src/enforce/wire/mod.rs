//! What of this stage is written as JSON, in one place: what the resolver and the enforcer say to each other, what a hook
//! command reads, and the forms of [`Command`], [`Range`] and [`Held`] for whoever keeps them.
//!
//! One document asks, one answers. Durations are whole milliseconds and end in `_ms`, addresses and ports are texts
//! (`192.0.2.1`, `tcp/443`), classes are numbers. Reading is total: what is not of these forms is an error, never a guess.
//! The numbers that limit everything are in [`super`].

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

mod fault;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{Command, Counts, Images, Kept, Observed, Range, Used};
use crate::ports::Opening;

pub use fault::{Fault, Kind};

/// Version of these forms. Another one is not talked to.
pub const VERSION: u32 = 2;

/// Longest document, octets.
pub const DOCUMENT_MAX: usize = 4 << 20;

/// About so many octets are put into one document where there are several; a single order may be longer.
pub(super) const DOCUMENT_USUAL: usize = 1 << 19;

/// Most orders in one document.
pub const ORDERS_MAX: usize = 1024;

/// Most flows and volumes told in one answer.
pub(super) const TOLD_MAX: usize = 8192;

/// Everything that is wanted for one session address, so that somebody else can want the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Held {
    /// Source address of the sandbox.
    pub session: IpAddr,
    /// Its class, where its forwarded packets need a lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard: Option<super::Class>,
    /// Its forwarded packets pass without a lease; never together with `guard`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub monitored: bool,
    /// Nothing of it passes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub quarantined: bool,
    /// What is open, at most [`super::SESSION_LEASES_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leases: Vec<HeldLease>,
    /// What is counted, at most [`super::SESSION_VOLUMES_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<HeldVolume>,
}

/// One lease of a [`Held`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeldLease {
    /// Destination.
    pub to: IpAddr,
    /// What is open there.
    pub open: Opening,
    /// What is left of its lifetime.
    pub left_ms: u64,
}

/// One volume of a [`Held`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeldVolume {
    /// Destination.
    pub to: IpAddr,
    /// Octets that may go out; no end without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// Octets that have gone out.
    pub used: u64,
}

/// What is asked. The answer is the [`Reply`] named with each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// The first of all: who asks. [`Reply::Welcome`].
    Hello {
        /// [`VERSION`].
        version: u32,
        /// Release of who asks.
        product: String,
        /// The table's name.
        table: String,
        /// Digest of the settings that both sides must have alike; empty for a hook.
        #[serde(default)]
        settings: String,
    },
    /// Orders, in this order. [`Reply::Results`], one for each.
    Apply {
        /// At most [`ORDERS_MAX`].
        commands: Vec<Command>,
    },
    /// What is wanted from now on is exactly this. [`Reply::Done`].
    Hold {
        /// Some of it.
        held: Vec<Held>,
        /// Whether more follows; nothing changes before all is there.
        #[serde(default)]
        more: bool,
    },
    /// The written ranges are exactly these from now on. [`Reply::Done`].
    Ranges {
        /// All of them.
        ranges: Vec<Range>,
    },
    /// Whether all stands. [`Reply::Health`].
    Health,
    /// What is wanted now, of addresses above `after`, ascending. [`Reply::Held`].
    Snapshot {
        /// The last address of the answer before.
        #[serde(default)]
        after: Option<IpAddr>,
    },
    /// What only the other side knows of one address. [`Reply::View`].
    View {
        /// Source address of the sandbox.
        session: IpAddr,
    },
    /// Tables as the kernel holds them. [`Reply::Images`].
    Images {
        /// Their name.
        table: String,
        /// The chain that is left out of digests.
        apart: String,
    },
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "kebab-case")]
pub enum Reply {
    /// The other side takes orders.
    Welcome {
        /// [`VERSION`].
        version: u32,
        /// Release of who answers.
        #[serde(default)]
        product: String,
    },
    /// One for each order: nothing where it was carried out.
    Results {
        /// In the order of orders.
        results: Vec<Option<Fault>>,
    },
    /// Carried out, or not.
    Done {
        /// Why not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fault: Option<Fault>,
    },
    /// How it stands.
    Health(HealthReply),
    /// Some of what is wanted.
    Held {
        /// By address, ascending.
        held: Vec<Held>,
        /// Whether there is more.
        more: bool,
    },
    /// What only the other side knows of the address.
    View {
        /// The mark of its flows; 0 where it is not guarded.
        generation: u32,
    },
    /// The tables, or why not.
    Images {
        /// By family.
        #[serde(default)]
        images: Images,
        /// Why not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fault: Option<Fault>,
    },
    /// Nothing more is answered on this connection.
    Refused {
        /// Why.
        why: String,
    },
}

/// How it stands, and what was seen meanwhile.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthReply {
    /// Why it does not stand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
    /// Somebody else had changed something since this was last asked, and it was put back.
    #[serde(default)]
    pub restored: bool,
    /// Sizes and counters, where the other side has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts: Option<Counts>,
    /// Some of what was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told: Option<Told>,
}

/// Some of one [`Observed`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// Session and destination of flows.
    #[serde(default)]
    pub flows: Vec<(IpAddr, IpAddr)>,
    /// Volumes that have changed.
    #[serde(default)]
    pub volumes: Vec<ToldVolume>,
    /// Written ranges that were used.
    #[serde(default)]
    pub ranges: Vec<u32>,
    /// Whether this look has more.
    #[serde(default)]
    pub more: bool,
}

/// One volume of a [`Told`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToldVolume {
    /// Source address of the sandbox.
    pub session: IpAddr,
    /// Destination.
    pub to: IpAddr,
    /// Octets that have gone out.
    pub octets: u64,
    /// Octets that may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}

impl From<ToldVolume> for Used {
    fn from(told: ToldVolume) -> Self {
        Self { session: told.session, destination: told.to, octets: told.octets, limit: told.limit }
    }
}

/// A look, cut into parts that fit into answers.
pub(super) fn parts(observed: Observed) -> std::collections::VecDeque<Told> {
    let Observed { flows, volumes, ranges } = observed;
    let flows: Vec<_> = flows.into_iter().collect();
    let volume = |used: &Used| {
        let Used { session, destination: to, octets, limit } = *used;
        ToldVolume { session, to, octets, limit }
    };
    let count = flows.len().max(volumes.len()).div_ceil(TOLD_MAX).max(1);
    let mut parts: std::collections::VecDeque<Told> =
        (0..count).map(|_| Told { more: true, ..Told::default() }).collect();
    for (part, flows) in parts.iter_mut().zip(flows.chunks(TOLD_MAX)) {
        part.flows = flows.to_vec();
    }
    for (part, volumes) in parts.iter_mut().zip(volumes.chunks(TOLD_MAX)) {
        part.volumes = volumes.iter().map(volume).collect();
    }
    if let Some(last) = parts.back_mut() {
        last.more = false;
        last.ranges = ranges;
    }
    parts
}

/// Whether an order may be handed to a packet filter at all: what the types allow and nobody means.
///
/// # Errors
///
/// [`Kind::Invalid`] says what is wrong with it.
pub(super) fn check(command: &Command) -> Result<(), Fault> {
    match command {
        Command::Guard { class, .. } | Command::Renew { class, .. } if class.0 >= CLASSES => {
            Err(Fault::invalid(format!("class {} is above {}", class.0, CLASSES - 1)))
        }
        Command::Renew { session, keep, .. } => {
            let family = session.to_canonical().is_ipv4();
            match keep.iter().find(|kept| kept.destination.to_canonical().is_ipv4() != family) {
                Some(kept) => Err(Fault::invalid(format!("{} is not of {session}'s family", kept.destination))),
                None if keep.len() > KEPT_MAX => {
                    Err(Fault::invalid(format!("{} kept, at most {KEPT_MAX}", keep.len())))
                }
                None => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

/// As [`check`], for written ranges.
pub(super) fn check_range(range: &Range) -> Result<(), Fault> {
    let (first, last) = (range.first.to_canonical(), range.last.to_canonical());
    if first.is_ipv4() != last.is_ipv4() || first > last {
        return Err(Fault::invalid(format!("{first} to {last} is no range")));
    }
    Ok(())
}

/// As [`check`], for what is held.
pub(super) fn check_held(held: &Held) -> Result<(), Fault> {
    if held.guard.is_some_and(|class| class.0 >= CLASSES) || (held.guard.is_some() && held.monitored) {
        return Err(Fault::invalid(format!("{} is guarded in no way there is", held.session)));
    }
    let family = held.session.to_canonical().is_ipv4();
    let mut all = held.leases.iter().map(|lease| lease.to).chain(held.volumes.iter().map(|volume| volume.to));
    match all.find(|to| to.to_canonical().is_ipv4() != family) {
        Some(to) => Err(Fault::invalid(format!("{to} is not of {}'s family", held.session))),
        None => Ok(()),
    }
}

/// Classes are bits of a number of 32.
const CLASSES: u8 = 32;
/// Most destinations that one renewal keeps: every one that may have a volume.
const KEPT_MAX: usize = super::SESSION_VOLUMES_MAX;

/// About how long an order is as a document, octets; never less than it is.
pub(super) fn length(command: &Command) -> usize {
    const ADDRESS: usize = 48;
    const PORT: usize = 12;
    let kept = |kept: &Kept| ADDRESS + 80 + kept.ports.iter().map(|ports| 8 + PORT * ports.named()).sum::<usize>();
    256 + match command {
        Command::Pin { destinations, ports, .. } => ADDRESS * destinations.len() + PORT * ports.named(),
        Command::Unpin { destinations, .. } => ADDRESS * destinations.len(),
        Command::Renew { keep, .. } => keep.iter().map(kept).sum(),
        _ => 0,
    }
}

impl Held {
    /// About how long it is as a document, octets; never less than it is.
    pub(super) fn length(&self) -> usize {
        256 + 112 * (self.leases.len() + self.volumes.len())
    }
}

/// Durations as whole milliseconds.
pub(super) mod millis {
    use serde::{Deserialize, Deserializer, Serializer};
    use std::time::Duration;

    pub(in crate::enforce) fn serialize<S: Serializer>(duration: &Duration, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }

    pub(in crate::enforce) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
        u64::deserialize(d).map(Duration::from_millis)
    }
}
