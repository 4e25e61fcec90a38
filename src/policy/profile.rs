//! Profiles: what a kind of session may do, by type and phase.

use hashbrown::HashMap;
use staunch_scoring::{Bits, Budgets, Params};

use crate::model::{Phase, Qtype, SessionType};

/// What happens to names that no rule covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unlisted {
    /// They are scored and answered within the ledger.
    Score,
    /// They are refused.
    Refuse,
}

/// Limits of one kind of session.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// `<type>` or `<type>.<phase>`.
    pub name: String,
    /// Names that no rule covers.
    pub unlisted: Unlisted,
    /// Types answered, sorted.
    pub qtypes: Vec<Qtype>,
    /// Ledger limits.
    pub budgets: Budgets,
    /// Score thresholds.
    pub params: Params,
}

impl Profile {
    /// Types that ordinary programs ask for. NULL, KEY, private-use types and transfers are never among them.
    pub const ORDINARY_TYPES: [Qtype; 17] = [
        Qtype::A,
        Qtype::NS,
        Qtype::CNAME,
        Qtype::SOA,
        Qtype::PTR,
        Qtype::MX,
        Qtype::TXT,
        Qtype::AAAA,
        Qtype::SRV,
        Qtype::NAPTR,
        Qtype::DS,
        Qtype::SSHFP,
        Qtype::DNSKEY,
        Qtype::TLSA,
        Qtype::SVCB,
        Qtype::HTTPS,
        Qtype::CAA,
    ];

    /// The profile of a type that the configuration does not mention.
    pub fn built_in(kind: SessionType) -> Self {
        let mut budgets = Budgets::default();
        let mut qtypes = Self::ORDINARY_TYPES.to_vec();
        if kind == SessionType::Unannounced {
            // Nobody answers for it: addresses only, and half the leak.
            qtypes = vec![Qtype::A, Qtype::PTR, Qtype::AAAA, Qtype::SRV, Qtype::SVCB, Qtype::HTTPS];
            for budget in [&mut budgets.tenant_soft, &mut budgets.tenant, &mut budgets.icann, &mut budgets.session] {
                *budget = Bits::from_steps(budget.steps() / 2);
            }
        }
        qtypes.sort();
        Self { name: kind.as_str().to_owned(), unlisted: Unlisted::Score, qtypes, budgets, params: Params::default() }
    }
}

/// All profiles.
#[derive(Debug, Clone)]
pub struct Profiles {
    all: Vec<Profile>,
    by: HashMap<(SessionType, Option<Phase>), u16>,
}

const TYPES: [SessionType; 4] =
    [SessionType::Interactive, SessionType::Batch, SessionType::Scheduled, SessionType::Unannounced];
const PHASES: [Phase; 3] = [Phase::Fetch, Phase::Build, Phase::Run];

impl Profiles {
    /// From the configured ones; a type and phase takes `<type>.<phase>`, else `<type>`, else the built-in.
    pub fn new(configured: Vec<Profile>) -> Self {
        let mut all = configured;
        let mut by = HashMap::new();
        for kind in TYPES {
            let base = match all.iter().position(|p| p.name == kind.as_str()) {
                Some(at) => at,
                None => {
                    all.push(Profile::built_in(kind));
                    all.len() - 1
                }
            };
            by.insert((kind, None), base as u16);
            for phase in PHASES {
                let name = format!("{}.{}", kind.as_str(), phase.as_str());
                let at = all.iter().position(|p| p.name == name).unwrap_or(base);
                by.insert((kind, Some(phase)), at as u16);
            }
        }
        Self { all, by }
    }

    /// The profile of a type and phase.
    pub fn of(&self, kind: SessionType, phase: Option<Phase>) -> &Profile {
        // Every combination was entered by `new`; the first profile exists since each type has one.
        let at = self.by.get(&(kind, phase)).copied().unwrap_or_default();
        &self.all[at as usize]
    }

    /// All, configured ones first.
    pub fn iter(&self) -> impl Iterator<Item = &Profile> {
        self.all.iter()
    }
}

impl Default for Profiles {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}
