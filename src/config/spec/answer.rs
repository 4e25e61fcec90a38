//! What of an answer is shown, kept and shared, as written.

use serde::{Deserialize, Serialize};

use crate::partition::SharedBy;

/// `[answer]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Answer {
    /// Take `ech` out of SVCB and HTTPS records.
    pub strip_ech: bool,
    /// Take address hints out of SVCB and HTTPS records.
    pub strip_hints: bool,
    /// Answers kept.
    pub cache_entries: usize,
    /// Longest time to live shown.
    pub max_ttl_seconds: u32,
    /// The same question is forwarded at most once in this time, whatever the answer's time to live.
    pub floor_seconds: u32,
    /// The same after a failure.
    pub failure_seconds: u32,
    /// How long after its end an answer may serve a question that is held.
    pub hold_stale_seconds: u32,
    /// Longest random wait of a question whose time could tell something.
    pub jitter_ms: u32,
    /// Ask held names again every four minutes, at times that the sessions do not choose.
    pub refresh_held: bool,
    /// How long after its end an answer may be shown where no upstream answers in time; 0 is never.
    pub serve_stale_seconds: u32,
    /// Ask names that sessions of several owners asked for again before their answers end.
    pub prefetch: bool,
    /// Which sessions may be answered from each other's answers.
    pub cache_shared_by: SharedBy,
    /// Whether a session that is answered from another's answer must not notice it.
    pub private_timing: bool,
    /// Prefixes by which a DNS64 upstream leads to IPv4, beside the well-known one.
    pub nat64_prefixes: Vec<String>,
    /// Names that may resolve to private addresses.
    pub allow_range: Vec<AllowRange>,
    /// Zones whose 127/8 answers are shown.
    pub show_loopback: Vec<ShowLoopback>,
}

impl Default for Answer {
    fn default() -> Self {
        Self {
            strip_ech: true,
            strip_hints: true,
            cache_entries: 65_536,
            max_ttl_seconds: 3600,
            floor_seconds: 60,
            failure_seconds: 2,
            hold_stale_seconds: 21_600,
            jitter_ms: 250,
            refresh_held: true,
            serve_stale_seconds: 0,
            prefetch: false,
            cache_shared_by: SharedBy::All,
            private_timing: false,
            nat64_prefixes: Vec::new(),
            allow_range: Vec::new(),
            show_loopback: Vec::new(),
        }
    }
}

/// `[[answer.allow_range]]`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AllowRange {
    /// A form: `=x`, `x`, `*.x`.
    pub name: String,
    /// Ranges in CIDR form.
    pub ranges: Vec<String>,
    /// Who answers for it.
    pub owner: String,
    /// Why.
    pub reason: String,
    /// When somebody must look at it again.
    pub review_by: Option<String>,
}

/// `[[answer.show_loopback]]`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ShowLoopback {
    /// The zone.
    pub zone: String,
    /// Who answers for it.
    pub owner: String,
    /// Why.
    pub reason: String,
    /// When somebody must look at it again.
    pub review_by: Option<String>,
}
