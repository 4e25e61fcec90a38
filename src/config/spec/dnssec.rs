//! `[dnssec]`

use serde::{Deserialize, Serialize};

use crate::validate::Limits;

/// `[dnssec]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dnssec {
    /// Check answers here. Takes effect at a restart.
    pub validate: bool,
    /// Leave the checking to clients that ask for it (CD).
    pub allow_cd: bool,
    /// File of DS and DNSKEY records to trust. Default: the root's keys, built in.
    pub trust_anchors: Option<String>,
    /// Trust new keys of zones that have an anchor once they have stood for 30 days, and revoked ones no more (RFC 5011).
    pub follow_rollover: bool,
    /// Signatures of one question that may fail.
    pub max_failures: u32,
    /// Iterations of NSEC3 above which a zone is treated as insecure.
    pub max_nsec3_iterations: u16,
    /// NSEC3 hashes of one question.
    pub max_nsec3_hashes: u32,
    /// Look-ups of keys for one question.
    pub max_lookups: u32,
    /// For all of them together.
    pub timeout_ms: u64,
    /// Zones that are not validated for a while.
    pub negative_trust_anchor: Vec<NegativeTrustAnchor>,
}

impl Default for Dnssec {
    fn default() -> Self {
        let limits = Limits::default();
        Self {
            validate: false,
            allow_cd: true,
            trust_anchors: None,
            follow_rollover: true,
            max_failures: limits.failures,
            max_nsec3_iterations: limits.iterations,
            max_nsec3_hashes: limits.hashes,
            max_lookups: limits.lookups,
            timeout_ms: limits.time.as_millis() as u64,
            negative_trust_anchor: Vec::new(),
        }
    }
}

/// `[[dnssec.negative_trust_anchor]]`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NegativeTrustAnchor {
    /// The zone and all below it.
    pub zone: String,
    /// Who answers for it.
    pub owner: String,
    /// Why.
    pub reason: String,
    /// When somebody must look at it again.
    pub review_by: Option<String>,
}
