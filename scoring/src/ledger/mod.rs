//! The leak ledger: what a session has told the outside by its choice of names, in bits.
//!
//! `price` says what an event costs, `accounts` keeps what was spent, `fingerprints` which names were paid for.
//! [`crate::assess`] puts them together. Knows no rule and no verdict.
//!
//! Nothing here refills, nothing is evicted: an account that could be forgotten would be a refund.

pub(crate) mod accounts;
pub(crate) mod fingerprints;
pub(crate) mod price;
pub(crate) mod sent;
pub(crate) mod times;
pub(crate) mod types;

use crate::bits::Bits;

/// Which account a charge is booked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LedgerScope {
    /// This session under one tenant.
    Tenant,
    /// This session under one ICANN-level registrable domain.
    Icann,
    /// This session over all unlisted domains.
    Session,
    /// All sessions of the session's group within 24 hours.
    Group,
}

/// What forwarding this query would cost in each account.
///
/// Every account pays for what its own reader could tell apart: the event (a new name, the last name again, an older
/// name again) by an adaptive code over the events so far, the name itself, and the type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Charge {
    /// To the tenant account: the payload part under the tenant, or log2 of the older names for a repeat of one, plus
    /// the event's and the type's choice. For a name of an exact rule: log2 of the names on such rules plus the
    /// type's choice, booked to [`LedgerView::listed`] instead.
    pub name: Bits,
    /// To the ICANN account: the same with the payload part under the ICANN-level domain, so that the choice of a
    /// tenant of a platform is paid for. Zero for listed names.
    pub icann: Bits,
    /// To the session account: the same over all unlisted names, plus the choice of the ICANN-level domain itself:
    /// 12 bits the first time, log2 of the session's domains for a new name under a known one. Zero for listed names.
    pub session: Bits,
    /// To the group: what it costs the session account, for a name that is new to the group; zero for any other.
    pub group: Bits,
    /// Whether the session has already paid for this name.
    pub repeat: bool,
}

/// The accounts at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct LedgerView {
    /// Spent under this tenant: by names below a rule where one covers the name, else by unlisted names.
    pub tenant: Bits,
    /// Spent by unlisted names under this ICANN-level domain.
    pub icann: Bits,
    /// Spent over all unlisted domains.
    pub session: Bits,
    /// Spent by choosing among names of exact rules: recorded, without a limit of its own.
    pub listed: Bits,
    /// Spent by all sessions of the group within 24 hours.
    pub group: Bits,
}

pub use accounts::MAX_ACCOUNTS;
pub use fingerprints::MAX_REFUSED_NAMES;
pub use sent::MAX_SENT_NAMES;
pub use times::{SLOT_MS, TICK_MS};
