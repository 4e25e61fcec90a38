//! Ranges of addresses that people wrote, for what has no useful name.

use super::ScopeSet;
use crate::event::RuleRef;
use crate::model::Wall;
use crate::ports::Ports;
use crate::range::IpRange;

/// Addresses that sessions may reach without having resolved a name. The ledger does not see them and no volume is counted
/// against a limit: somebody answers for them.
#[derive(Debug, Clone, PartialEq)]
pub struct WrittenRange {
    /// Its id, and where it is written.
    pub reference: RuleRef,
    /// The addresses.
    pub ranges: Vec<IpRange>,
    /// What is open there.
    pub ports: Ports,
    /// Whose sessions it is for.
    pub scopes: ScopeSet,
    /// Who answers for it.
    pub owner: String,
    /// Why no name will do.
    pub reason: String,
    /// No longer open from this time on, milliseconds since the Unix epoch; [`super::Rule::NEVER`] for no end.
    pub expires: u64,
}

impl WrittenRange {
    /// Whether it has ended, as soon as either clock says so.
    pub fn is_over(&self, wall: Wall) -> bool {
        self.expires <= wall.latest()
    }
}
