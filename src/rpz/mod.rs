//! Response policy zones (RPZ): what zones of policy records say of questions, clients and answers.
//!
//! Beside [`crate::lists`]; asked by [`crate::policy`] before the score and by the pipeline when an answer is at hand. Pure:
//! octets in, tables out. A zone's [`Rules`] are built once and never change; a [`Snapshot`] holds all zones in their order, and
//! a query is judged by one snapshot from its beginning to its end. Knows no file, no clock and no verdict.
//!
//! Triggers: client address (`rpz-client-ip`), name (exact, and `*.` by the rules of RFC 4592: the wildcard at the closest
//! encloser alone), address in the answer (`rpz-ip`). A forwarder sees no delegation, so `rpz-nsdname` and `rpz-nsip` could
//! never match here: they are mistakes, not records that are passed over. Within a zone a client address goes before a name,
//! a name before an address, a longer prefix before a shorter one; the first zone that says anything decides. Names and client
//! addresses are asked in all zones before anything leaves, so a name that a zone refuses is never forwarded to see whether an
//! earlier zone has something against its address (`qname-wait-recurse no`, as BIND calls it).

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

mod build;
mod find;
mod local;
mod prefix;
mod rdata;
mod text;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use staunch_scoring::{NameBuf, NameRef};

use crate::event::RuleRef;
use crate::lists::HashKey;
use crate::model::Ede;

pub use build::{Builder, Errors, Problem};
pub use find::{AnswerHit, Chain, Exempt, Hit, Named};
pub use local::{RecordOf, Target};
pub use rdata::soa as soa_of;
pub use text::{MAX_RECORDS, parse, records};

use prefix::Prefixes;

/// Most zones. BIND has the same limit.
pub const MAX_ZONES: usize = 64;

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// `CNAME .`: the name does not exist.
    Nxdomain,
    /// `CNAME *.`: the name has no such record.
    Nodata,
    /// `CNAME rpz-passthru.`: no later zone is asked.
    Passthru,
    /// `CNAME rpz-drop.`: no reply at all.
    Drop,
    /// `CNAME rpz-tcp-only.`: over UDP an empty reply that asks for TCP.
    TcpOnly,
    /// Any other records: they are the answer. A CNAME leads on to its target.
    #[serde(rename = "local-data")]
    Local,
}

impl Action {
    /// Every action, for counters that exist from the start.
    pub const ALL: [Self; 6] = [Self::Nxdomain, Self::Nodata, Self::Passthru, Self::Drop, Self::TcpOnly, Self::Local];

    /// As in records and labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nxdomain => "nxdomain",
            Self::Nodata => "nodata",
            Self::Passthru => "passthru",
            Self::Drop => "drop",
            Self::TcpOnly => "tcp-only",
            Self::Local => "local-data",
        }
    }

    /// Whether the question goes on its way as if no rule had been found.
    pub fn lets_pass(self, tcp: bool) -> bool {
        self == Self::Passthru || (self == Self::TcpOnly && tcp)
    }
}

/// What made a rule match.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trigger {
    /// The address that asked.
    ClientIp,
    /// The name asked for, or one that an alias leads to.
    Qname,
    /// An address in the answer.
    #[serde(rename = "response-ip")]
    Ip,
}

impl Trigger {
    /// As in records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClientIp => "client-ip",
            Self::Qname => "qname",
            Self::Ip => "response-ip",
        }
    }
}

/// What a zone's rules do, whatever their records say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Override {
    /// What each record says.
    #[default]
    Given,
    /// Nothing: matches are recorded, and later zones are asked.
    Disabled,
    /// [`Action::Nxdomain`].
    Nxdomain,
    /// [`Action::Nodata`].
    Nodata,
    /// [`Action::Passthru`].
    Passthru,
    /// [`Action::Drop`].
    Drop,
    /// [`Action::TcpOnly`].
    TcpOnly,
    /// [`Action::Local`] with a CNAME to this name, `*.x` putting the name asked for in the place of the asterisk.
    Cname(NameBuf),
}

impl Override {
    /// The action in place of a record's, where there is one.
    fn action(&self) -> Option<Action> {
        match self {
            Self::Given | Self::Disabled => None,
            Self::Nxdomain => Some(Action::Nxdomain),
            Self::Nodata => Some(Action::Nodata),
            Self::Passthru => Some(Action::Passthru),
            Self::Drop => Some(Action::Drop),
            Self::TcpOnly => Some(Action::TcpOnly),
            Self::Cname(_) => Some(Action::Local),
        }
    }
}

/// What is written of a zone beside its records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Its name, as records and labels have it: the origin without the last dot.
    pub id: Arc<str>,
    /// What its rules do.
    pub policy: Override,
    /// Whether matches are written into events.
    pub log: bool,
    /// Whether a name that it lets pass skips the score (never the ledger).
    pub trusted: bool,
    /// Longest TTL that its records are shown with, seconds.
    pub max_ttl: u32,
    /// Info code of its refusals: [`Ede::Blocked`] or [`Ede::Filtered`].
    pub ede: Ede,
}

/// The SOA of a zone (RFC 1035 section 3.3.13), in seconds but for the serial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Soa {
    /// Serial number (RFC 1982).
    pub serial: u32,
    /// How often the primary is asked.
    pub refresh: u32,
    /// How soon again after a failure.
    pub retry: u32,
    /// How long the zone counts as fresh without an answer of the primary.
    pub expire: u32,
    /// Negative TTL.
    pub minimum: u32,
}

/// Marks a place where there is no rule.
const NONE: u32 = u32::MAX;

/// A name in the tree of triggers. Every ancestor of a trigger is one, so that a wildcard stops where a longer name exists.
#[derive(Debug, Clone, Copy)]
struct Node {
    /// Rule of the name itself.
    exact: u32,
    /// Rule of `*.` below it.
    wild: u32,
}

/// One rule: 8 octets beside its trigger.
#[derive(Debug, Clone, Copy)]
struct Rule {
    /// Where it is written.
    line: u32,
    /// The action in the upper 3 bits; where its records begin in [`Rules::data`] in the others.
    packed: u32,
}

const DATA_BITS: u32 = 29;
const DATA_MASK: u32 = (1 << DATA_BITS) - 1;

impl Rule {
    fn new(line: u32, action: Action, data: u32) -> Self {
        let kind = match action {
            Action::Nxdomain => 0,
            Action::Nodata => 1,
            Action::Passthru => 2,
            Action::Drop => 3,
            Action::TcpOnly => 4,
            Action::Local => 5,
        };
        Self { line, packed: kind << DATA_BITS | data & DATA_MASK }
    }

    fn action(self) -> Action {
        match self.packed >> DATA_BITS {
            0 => Action::Nxdomain,
            1 => Action::Nodata,
            2 => Action::Passthru,
            3 => Action::Drop,
            4 => Action::TcpOnly,
            _ => Action::Local,
        }
    }
}

/// The records of one zone, ready to be asked. Look-ups do not allocate.
pub struct Rules {
    origin: NameBuf,
    file: Arc<str>,
    soa: Soa,
    key: HashKey,
    names: crate::lists::Flat<u32>,
    nodes: Box<[Node]>,
    clients: Prefixes,
    addresses: Prefixes,
    rules: Box<[Rule]>,
    /// Local data: for each rule that has some a count of records, then for each type, TTL, length and data.
    data: Box<[u8]>,
    left_out: u32,
}

impl Rules {
    /// A zone of which nothing is there yet: it matches nothing.
    pub fn empty(origin: NameRef<'_>, key: HashKey) -> Self {
        Self {
            origin: origin.to_owned(),
            file: "".into(),
            soa: Soa::default(),
            key,
            names: crate::lists::Flat::default(),
            nodes: Box::new([Node { exact: NONE, wild: NONE }]),
            clients: Prefixes::default(),
            addresses: Prefixes::default(),
            rules: Box::default(),
            data: Box::default(),
            left_out: 0,
        }
    }

    /// The zone's name.
    pub fn origin(&self) -> NameRef<'_> {
        self.origin.as_ref()
    }

    /// Its SOA.
    pub fn soa(&self) -> Soa {
        self.soa
    }

    /// Triggers.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Records that were left out because their trigger or action has no meaning here.
    pub fn left_out(&self) -> u32 {
        self.left_out
    }

    /// Octets held.
    pub fn octets(&self) -> usize {
        self.names.size()
            + size_of_val(&*self.nodes)
            + size_of_val(&*self.rules)
            + self.clients.octets()
            + self.addresses.octets()
            + self.data.len()
    }
}

impl std::fmt::Debug for Rules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rules").field("origin", &self.origin).field("rules", &self.len()).finish()
    }
}

/// How often a zone's rules have matched, by what they did.
#[derive(Debug, Default)]
pub struct Counters {
    matches: [AtomicU64; Action::ALL.len()],
    /// Matches of a zone that is disabled, or in a session that is only watched.
    logged: AtomicU64,
}

impl Counters {
    /// Counts a match that was applied.
    pub fn count(&self, action: Action) {
        if let Some((_, count)) = Action::ALL.iter().zip(&self.matches).find(|(a, _)| **a == action) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts a match that was recorded only.
    pub fn count_logged(&self) {
        self.logged.fetch_add(1, Ordering::Relaxed);
    }

    /// Matches by action, and those only recorded under `logged`.
    pub fn read(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let applied = Action::ALL.iter().zip(&self.matches).map(|(a, n)| (a.as_str(), n.load(Ordering::Relaxed)));
        applied.chain([("logged", self.logged.load(Ordering::Relaxed))])
    }
}

/// A zone in its place.
#[derive(Debug, Clone)]
pub struct Zone {
    /// What is written of it.
    pub settings: Settings,
    /// Its records.
    pub rules: Arc<Rules>,
    /// What it did; outlives reloads.
    pub counters: Arc<Counters>,
    /// Whether enforced sessions are answered nothing until its first copy is there.
    pub awaited: bool,
}

/// All zones, in their order, as one query sees them.
#[derive(Debug, Default)]
pub struct Snapshot {
    zones: Box<[Arc<Zone>]>,
    version: u64,
}

impl Snapshot {
    /// In this order; zones beyond [`MAX_ZONES`] are for the configuration to refuse.
    pub fn new(zones: impl IntoIterator<Item = Zone>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self { zones: zones.into_iter().map(Arc::new).collect(), version: NEXT.fetch_add(1, Ordering::Relaxed) }
    }

    /// Never the same for two snapshots of one process but the default, which has no zones.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The zones, in their order.
    pub fn zones(&self) -> &[Arc<Zone>] {
        &self.zones
    }

    /// Whether there is no zone.
    pub fn is_empty(&self) -> bool {
        self.zones.is_empty()
    }

    /// Whether the zone of `hit`, found in another snapshot, says the same here: it is there, and what it says is of the same
    /// version (its serial; RFC 1982) or the very same.
    pub fn says_as(&self, hit: &Hit<'_>) -> bool {
        let is_same = |rules: &Arc<Rules>| {
            Arc::ptr_eq(rules, &hit.zone.rules)
                || (rules.soa() == hit.zone.rules.soa() && rules.len() == hit.zone.rules.len())
        };
        let same_place = |zone: &&Arc<Zone>| zone.settings.id == hit.zone.settings.id;
        self.zones
            .iter()
            .find(same_place)
            .is_some_and(|zone| zone.settings.policy == hit.zone.settings.policy && is_same(&zone.rules))
    }

    /// The first zone whose copy has to be there before anything is answered, and is not.
    pub fn awaited(&self) -> Option<&Zone> {
        self.zones.iter().find(|zone| zone.awaited).map(|zone| &**zone)
    }
}

/// The key under which all zones of this process are built: zones outlive reloads, and one walk over a name serves them all.
pub fn process_key() -> &'static HashKey {
    static KEY: OnceLock<HashKey> = OnceLock::new();
    KEY.get_or_init(|| {
        // The standard library's hasher is keyed by the system's randomness.
        let hasher = std::hash::RandomState::new();
        let mut octets = [0; 24];
        for (i, word) in octets.chunks_exact_mut(8).enumerate() {
            word.copy_from_slice(&std::hash::BuildHasher::hash_one(&hasher, i).to_le_bytes());
        }
        HashKey::from_random(octets)
    })
}

impl Hit<'_> {
    /// For records.
    pub fn reference(&self) -> RuleRef {
        let line = self.zone.rules.rules.get(self.rule as usize).map_or(0, |rule| rule.line);
        RuleRef { id: self.zone.settings.id.clone(), file: self.zone.rules.file.clone(), line }
    }
}
