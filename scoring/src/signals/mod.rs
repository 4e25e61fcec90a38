//! Signals: each turns one fact into a reading with a capped contribution, a file a signal.
//!
//! Between the facts of [`crate::assess`] and its score. A contribution is a log-likelihood ratio in nats: how much
//! likelier the value is under an attack than in benign work. Benign densities are fitted on benign names and sessions
//! (`cargo run --release -p staunch-scoring --example fit -- --densities` prints the parameters); the attack density
//! is flat up to what DNS can carry, so that no tool's shape is learned. Ratios never fall as the value grows, and
//! none exceeds [`CAP`], so no signal can decide alone. Knows no session, no ledger and no verdict.

pub mod age;
mod density;
pub mod encoding;
pub mod entropy;
pub mod errors;
pub mod fan_out;
pub mod group;
pub mod length;
pub mod platform;
pub mod regularity;
mod share;
pub mod spread;
pub mod surge;
pub mod types;
pub mod unconnected;
pub mod unique;
pub mod volume;

/// Largest contribution either way, in nats: a factor of 20. Below half of what a sinkhole needs twice over, so that two
/// families must speak. Chosen without a source.
pub const CAP: f32 = 3.0;

/// A kind of evidence. The closed set is also the set of metric labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Signal {
    /// Disorder of the payload part's characters.
    LabelEntropy,
    /// Length of the name's payload part.
    NameLength,
    /// Whether the labels read as an encoding of octets.
    Encoding,
    /// Sudden run of rich names under one tenant, however many poor ones went before.
    Surge,
    /// Distinct names this session has asked under one tenant.
    SubdomainFanOut,
    /// The same under one ICANN-level domain, over all tenants of a platform.
    PlatformFanOut,
    /// Rich names this session has asked over all its unlisted domains.
    Spread,
    /// Octets of answers under one tenant.
    AnswerVolume,
    /// Time since the registrable domain was registered or first seen.
    DomainAge,
    /// Time since the session's group first asked for the registrable domain.
    GroupNovelty,
    /// Share of queries under one tenant that ask for a name not asked before.
    UniqueNames,
    /// Share of names under one tenant asked by types that carry more than an address.
    TypeMix,
    /// Share of answers under one tenant that deny the name.
    NameErrors,
    /// Names of one tenant that were resolved and never connected to.
    Unconnected,
    /// Evenness of the time between queries under one tenant.
    Regularity,
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
    /// The value in the signal's own unit (entropy and encoding: bits a symbol; length and answer volume: octets; age and
    /// group novelty: days; fan-outs: bits; surge and spread: nats; the others: a share of 0 to 1); `None` where unknown.
    pub value: Option<f32>,
    /// Log-likelihood ratio in nats, capped to -3..=3; 0 where unknown.
    pub contribution: f32,
}

impl Signal {
    /// Every signal, in the order of [`crate::Assessment::readings`].
    pub const ALL: [Self; Self::COUNT] = [
        Self::LabelEntropy,
        Self::NameLength,
        Self::Encoding,
        Self::Surge,
        Self::SubdomainFanOut,
        Self::PlatformFanOut,
        Self::Spread,
        Self::AnswerVolume,
        Self::DomainAge,
        Self::GroupNovelty,
        Self::UniqueNames,
        Self::TypeMix,
        Self::NameErrors,
        Self::Unconnected,
        Self::Regularity,
    ];
    /// How many there are.
    pub const COUNT: usize = 15;

    /// What it speaks of.
    pub const fn family(self) -> Family {
        match self {
            Self::LabelEntropy | Self::NameLength | Self::Encoding | Self::Surge => Family::Content,
            Self::SubdomainFanOut | Self::PlatformFanOut | Self::Spread | Self::AnswerVolume => Family::Volume,
            Self::DomainAge | Self::GroupNovelty => Family::Novelty,
            Self::UniqueNames | Self::TypeMix | Self::NameErrors | Self::Unconnected | Self::Regularity => {
                Family::Behaviour
            }
        }
    }

    /// Its bit in a set of signals, such as [`crate::Params::without`]: the place in [`Signal::ALL`].
    pub const fn bit(self) -> u32 {
        1 << self as u32
    }

    /// As in records and labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LabelEntropy => "label-entropy",
            Self::NameLength => "name-length",
            Self::Encoding => "encoding",
            Self::Surge => "surge",
            Self::SubdomainFanOut => "subdomain-fan-out",
            Self::PlatformFanOut => "platform-fan-out",
            Self::Spread => "spread",
            Self::AnswerVolume => "answer-volume",
            Self::DomainAge => "domain-age",
            Self::GroupNovelty => "group-novelty",
            Self::UniqueNames => "unique-names",
            Self::TypeMix => "type-mix",
            Self::NameErrors => "name-errors",
            Self::Unconnected => "unconnected",
            Self::Regularity => "regularity",
        }
    }

    /// A reading of nothing.
    pub const fn unknown(self) -> Reading {
        Reading { signal: self, family: self.family(), value: None, contribution: 0.0 }
    }

    fn reading(self, value: Option<f32>, contribution: f32) -> Reading {
        Reading { signal: self, family: self.family(), value, contribution }
    }
}

/// A family must reach this, in nats, to count as agreeing: a factor of 4.5. Chosen so that one long label
/// (a verification token, a load balancer's id) is not two families, and that first sight of a domain never agrees.
pub const AGREES: f32 = 1.5;

/// Sum over families of each one's largest contribution, and how many families reach [`AGREES`]. What is unknown does not
/// count, not even as zero; neither do signals whose bit ([`Signal::bit`]) is set in `without`.
pub fn combine(readings: &[Reading], without: u32) -> (f32, u8) {
    let mut largest = [f32::NEG_INFINITY; 4];
    let counts = |reading: &&Reading| reading.value.is_some() && reading.signal.bit() & without == 0;
    for reading in readings.iter().filter(counts) {
        let most = &mut largest[reading.family as usize];
        *most = most.max(reading.contribution);
    }
    let known = largest.into_iter().filter(|nats| nats.is_finite());
    let (mut score, mut agreeing) = (0.0, 0);
    for nats in known {
        score += nats;
        agreeing += u8::from(nats >= AGREES);
    }
    (score, agreeing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_largest_of_a_family_counts() {
        let reading = |signal: Signal, contribution| signal.reading(Some(0.0), contribution);
        let readings = [
            reading(Signal::LabelEntropy, 2.0),
            reading(Signal::NameLength, 1.5),
            reading(Signal::DomainAge, -0.5),
            reading(Signal::SubdomainFanOut, 1.5),
        ];
        assert_eq!(combine(&readings, 0), (3.0, 2));
        assert_eq!(combine(&readings[..2], 0), (2.0, 1), "one family never agrees with itself");
        assert_eq!(combine(&[], 0), (0.0, 0));
        let without = Signal::LabelEntropy.bit() | Signal::SubdomainFanOut.bit();
        assert_eq!(combine(&readings, without), (1.0, 1), "the length speaks for the family that is left");
        assert!(Signal::ALL.iter().enumerate().all(|(at, signal)| signal.bit() == 1 << at));
    }
}
