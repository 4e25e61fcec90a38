//! Rules, written ranges, lists and packs as they are written.

use serde::{Deserialize, Serialize};

use crate::lists::{Action, Format};
use crate::model::Mode;

/// `[[rule]]`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rule {
    /// Unique among rules and lists.
    pub id: String,
    /// Must be written.
    pub action: Option<Action>,
    /// Forms: `=x`, `x`, `*.x`.
    pub names: Vec<String>,
    /// Profiles it is for; none means all.
    pub profiles: Vec<String>,
    /// Types answered beside the profile's.
    pub qtypes: Vec<String>,
    /// What a session may spend under a tenant it covers.
    pub budget_bits: Option<f64>,
    /// Who answers for it.
    pub owner: String,
    /// Why.
    pub reason: String,
    /// When somebody must look at it again.
    pub review_by: Option<String>,
    /// First day on which it no longer matches.
    pub expires: Option<String>,
    /// Instead of the policy's.
    pub mode: Option<Mode>,
    /// What is opened of the addresses of these names, instead of the profile's ports.
    pub ports: Vec<String>,
    /// Where these names are known to live; an answer that leads elsewhere is told.
    pub ranges: Vec<String>,
}

/// `[[range]]`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Range {
    /// Unique among rules, lists and ranges.
    pub id: String,
    /// In CIDR form.
    pub ranges: Vec<String>,
    /// What is open there; must be written.
    pub ports: Vec<String>,
    /// Profiles it is for; none means all.
    pub profiles: Vec<String>,
    /// Who answers for it.
    pub owner: String,
    /// Why no name will do.
    pub reason: String,
    /// When somebody must look at it again; must be written.
    pub review_by: Option<String>,
    /// First day on which it is no longer open.
    pub expires: Option<String>,
}

/// `[[list]]`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct List {
    /// Unique among rules and lists.
    pub id: String,
    /// Relative to the file that names it, or `builtin:<name>`.
    pub path: String,
    /// Instead of a path: where it is fetched from.
    pub url: Option<String>,
    /// How often its server is asked.
    pub refresh_hours: Option<u32>,
    /// For one fetch.
    pub timeout_seconds: Option<u32>,
    /// Largest size of what is fetched.
    pub max_mib: Option<u32>,
    /// Held for a word of the operator's where it has more than so many times the entries.
    pub max_growth: Option<f64>,
    /// Held where it has less than this share of the entries.
    pub min_share: Option<f64>,
    /// Default: as its first lines look.
    pub format: Option<Format>,
    /// Default: age for nrd, deny for the others.
    pub action: Option<ListAction>,
    /// Day of registration for nrd lines that have none.
    pub date: Option<String>,
    /// Who publishes it.
    pub source: Option<String>,
    /// What its names are, in a word.
    pub category: Option<String>,
    /// When a person last looked at it.
    pub reviewed: Option<String>,
}

impl List {
    /// Whether its names tell how old they are, and are not refused.
    pub fn is_age(&self) -> bool {
        self.format == Some(Format::Nrd) && self.action != Some(ListAction::Deny)
    }
}

/// What a list is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ListAction {
    /// Its names are refused.
    Deny,
    /// Its names tell how old they are.
    Age,
}

/// `[[pack]]`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pack {
    /// Unique among lists, packs and rules.
    pub id: String,
    /// The file, or `builtin:<name>`.
    pub path: String,
    /// Profiles it is for; empty for all.
    pub profiles: Vec<String>,
}
