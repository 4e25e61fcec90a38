//! What is asked of the scorer and what it answers.
//!
//! Plain data between policy, which fills [`Facts`] and reads [`Assessment`], and [`crate::scorer`]. Knows no rule, no
//! clock and no mode.

use crate::bits::Bits;
use crate::group::GroupFacts;
use crate::ledger::{Charge, LedgerScope, LedgerView};
use crate::name::NameRef;
use crate::signals::{Reading, Signal};
use crate::suffix::Split;

pub use crate::scorer::Scorer;

/// What policy knows of the name before the score.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listing {
    /// No rule names it.
    Unlisted,
    /// A rule names exactly this name; `of` names are on such rules, so the choice costs log2 of that. Never sinkholed
    /// or refused here.
    Exact {
        /// Number of names on exact rules.
        of: u32,
    },
    /// A rule covers the domain: charged in full to the tenant account, against `budget`, not to the session account.
    /// Never sinkholed by the score: the names a rule has to cover are those that look like a tunnel.
    Below {
        /// The rule's own budget for a tenant.
        budget: Bits,
    },
}

/// Limits of one profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Budgets {
    /// Bits that a session's distinct names under one unlisted tenant may be worth before the score alone may sinkhole
    /// (soft): from there it no longer takes two families that agree.
    pub tenant_soft: Bits,
    /// Bits a session may spend under one unlisted tenant (hard).
    pub tenant: Bits,
    /// Bits under one ICANN-level domain, all its tenants together (hard).
    pub icann: Bits,
    /// Bits over all unlisted domains (hard).
    pub session: Bits,
    /// Bits that all sessions of one group may spend on names new to the group within 24 hours (hard).
    pub group: Bits,
    /// Bits a session may tell one tenant by asking again for names it has sent (which, when, by what type) before such
    /// repeats are held.
    pub echo: Bits,
    /// Bits an hour by which that allowance comes back. The one figure here that refills: the ledger pays for repeats
    /// all the same.
    pub echo_hour: Bits,
}

impl Default for Budgets {
    /// Start values from measurements on benign traces: see `scoring/README.md`.
    fn default() -> Self {
        Self {
            tenant_soft: Bits::whole(1024),
            tenant: Bits::whole(2048),
            icann: Bits::whole(4096),
            session: Bits::whole(8192),
            group: Bits::whole(65_536),
            echo: Bits::whole(32),
            echo_hour: Bits::whole(32),
        }
    }
}

/// Thresholds of the score, in nats.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Params {
    /// From here a query is answered and watched.
    pub watch: f32,
    /// From here, with two families agreeing, it is sinkholed.
    pub sinkhole: f32,
    /// Tenants sinkholed in one session before the session is quarantined.
    pub quarantine_tenants: u8,
    /// Signals left out of the score, by [`Signal::bit`]: 0 but in an evaluation of what each of them adds.
    pub without: u32,
}

impl Default for Params {
    fn default() -> Self {
        Self { watch: 2.0, sinkhole: 4.0, quarantine_tenants: 2, without: 0 }
    }
}

/// All the scorer is told about one query.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// Milliseconds on a clock that never goes back.
    pub now: u64,
    /// The name asked for.
    pub qname: NameRef<'a>,
    /// Its owners.
    pub split: Split,
    /// The type asked for (RFC 1035 section 3.2.2).
    pub qtype: u16,
    /// Flags of the query that leave with it: 1 for DNSSEC OK (RFC 3225), 2 for checking disabled (RFC 4035).
    pub flags: u8,
    /// Number of types the profile allows, for the price of choosing one.
    pub qtypes_allowed: u8,
    /// What policy knows of it.
    pub listing: Listing,
    /// Days since registration, where known from a list.
    pub registered_days: Option<f32>,
    /// Days since this deployment first saw the registrable domain; `None` while warming up, 0 when new now.
    pub first_seen_days: Option<f32>,
    /// Days since any session of this one's group first asked for the registrable domain; `None` without a group or
    /// while warming up, 0 when new now.
    pub group_seen_days: Option<f32>,
    /// What the session's group knows and has spent; `None` without a group.
    pub group: Option<GroupFacts>,
    /// Whether the answer is at hand, so that nothing would leave.
    pub cached: bool,
    /// Whether an answer to this name and type is at hand that has expired: what may be shown where the query is held.
    pub at_hand: bool,
    /// The profile's limits.
    pub budgets: &'a Budgets,
    /// The profile's thresholds.
    pub params: &'a Params,
}

/// What the score says should happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Band {
    /// Answer.
    Answer,
    /// Answer and keep an eye on the session.
    Watch,
    /// A name that was sent before, asked again too often: answer from what is at hand, however old; forward nothing.
    Hold,
    /// Refuse this name and, from now on, this tenant for this session.
    Sinkhole,
    /// Refuse, and close the session.
    Quarantine,
}

/// What was done with a query that was assessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was forwarded: the charge is booked.
    Forwarded,
    /// It was answered from the cache: counted, not charged.
    Cached,
    /// It was refused: nothing left. Counted as an attempt.
    Refused,
    /// It was held ([`Band::Hold`]) and answered from what was at hand.
    Held {
        /// Whether the tenant's names that are held are asked again at the end of this tick ([`crate::TICK_MS`]) for
        /// it: [`Assessment::refresh`] is
        /// booked where it is `Some`.
        refreshed: bool,
        /// Whether the name was not among them before: [`Assessment::enter`] is booked.
        entered: bool,
    },
}

/// A query's score, explained.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Assessment {
    /// Every signal's reading.
    pub readings: [Reading; Signal::COUNT],
    /// Sum over families of each one's largest contribution, in nats.
    pub score: f32,
    /// Families whose largest contribution reaches [`crate::signals::AGREES`].
    pub agreeing: u8,
    /// What the payload part is worth under the model, charged or not.
    pub information: Bits,
    /// What the tenant's distinct names are worth that this session has sent, this one included.
    pub told: Bits,
    /// What forwarding would cost.
    pub charge: Charge,
    /// The accounts before.
    pub before: LedgerView,
    /// The accounts after forwarding.
    pub after: LedgerView,
    /// The account that forwarding would overdraw: the query must not leave.
    pub overdraw: Option<LedgerScope>,
    /// Whether a quarter of the allowance for repeats under this tenant is used: what is forwarded is to wait a random moment
    /// first, so that its time tells less.
    pub slow: bool,
    /// What it costs to have the tenant's held names asked again at the end of this tick, on the resolver's clock: zero
    /// where that is paid for, `None` where the ledger has no room for it.
    pub refresh: Option<Bits>,
    /// What it costs to be one of these names from now on.
    pub enter: Bits,
    /// Whether this tenant was sinkholed before in this session. Stays until an operator releases the session or
    /// allows the tenant.
    pub sticky: bool,
    /// Distinct names of this session that were forwarded under the tenant before.
    pub names_sent: u32,
    /// What the distinct refused names under the tenant would have cost, this one included if it is refused.
    pub attempted: Bits,
    /// Tenants of this session sinkholed by score or ledger, this one included if the band says so.
    pub tenants_sinkholed: u32,
    /// The recommendation.
    pub band: Band,
    /// For the commit.
    #[serde(skip)]
    pub(crate) trail: crate::scorer::Trail,
}
