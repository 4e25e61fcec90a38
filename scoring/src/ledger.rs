//! The leak ledger: what a session has told the outside by its choice of names, in bits.

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
}

/// What forwarding this query would cost in each account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Charge {
    /// To the tenant and ICANN accounts: the payload part, or log2 of the session's distinct names for a repeat, plus
    /// the type's choice.
    pub name: Bits,
    /// To the session account: `name` plus the choice of the domain itself.
    pub session: Bits,
    /// Whether the session has already paid for this name.
    pub repeat: bool,
}

/// The three accounts at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct LedgerView {
    /// Spent under this tenant.
    pub tenant: Bits,
    /// Spent under this ICANN-level domain.
    pub icann: Bits,
    /// Spent over all unlisted domains.
    pub session: Bits,
}
