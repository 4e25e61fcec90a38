//! Signals: each turns one fact into a reading with a capped contribution. (Becomes `signals/` with a file a signal.)

/// A kind of evidence. The closed set is also the set of metric labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Signal {
    /// Disorder of the payload part's characters.
    LabelEntropy,
    /// Length of the name's payload part.
    NameLength,
    /// Time since the registrable domain was registered or first seen.
    DomainAge,
    /// Distinct names this session has asked under one tenant.
    SubdomainFanOut,
}

/// Signals of one family speak of the same thing; only the largest of a family counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// What the name is made of.
    Content,
    /// How much is asked.
    Volume,
    /// How new the destination is.
    Novelty,
    /// How the session acts.
    Behaviour,
}

/// One signal's value for one query and what it adds to the score.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Reading {
    /// Which evidence.
    pub signal: Signal,
    /// Its family.
    pub family: Family,
    /// The value in the signal's own unit (bits a character, octets, days, names); `None` where unknown.
    pub value: Option<f32>,
    /// Log-likelihood ratio in nats, capped to -3..=3; 0 where unknown.
    pub contribution: f32,
}
