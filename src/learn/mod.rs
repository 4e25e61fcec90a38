//! Learned thresholds: what scores ordinary sessions reach in monitor mode, and the thresholds that follow.
//!
//! Beside the walk: [`crate::policy`] notes each session's largest scores in its [`Maxima`], [`crate::pipeline`] folds them
//! into the [`Book`] now and then, [`crate::daemon`] settles thresholds at start and at a reload. Pure: `now` is handed in,
//! nothing is read or written here; [`crate::store`] keeps what [`Book::take_changes`] gives it. Knows no name: a tenant is
//! a hash.
//!
//! What an agent in monitor mode can do to a threshold is bounded. It adds one value for each tenant and [`TENANTS`] of them
//! at most. A session that would be closed, or that has two tenants above the shipped threshold, is taken out whole. A
//! threshold rises only on what one session in [`settle::RAISING_SHARE`] shows, and stays inside the configured bounds
//! whatever was learned. No ledger ever follows what was learned.

mod book;
pub mod histogram;
pub mod limits;
mod maxima;
mod report;
pub mod settle;
pub mod shipped;
mod sketch;
#[cfg(test)]
mod tests;
mod version;

use std::fmt;

use serde::{Deserialize, Serialize};
use staunch_scoring::Params;

use crate::lists::ScopeSet;
use crate::model::{Phase, SessionType};

pub use book::{Aside, Book, Change};
pub use maxima::{Maxima, TENANTS, refusable};
pub use report::report;
pub use settle::{Base, Enforced, InForce, Origin, Sample, Settled, Shortfall};
pub use sketch::{Sketch, Stored};
pub use version::scoring;

/// Every kind of session, a type before its phases.
pub const SCOPES: [(SessionType, Option<Phase>); 16] = {
    const fn of(kind: SessionType) -> [(SessionType, Option<Phase>); 4] {
        [(kind, None), (kind, Some(Phase::Fetch)), (kind, Some(Phase::Build)), (kind, Some(Phase::Run))]
    }
    let [a, b, c, d] = [
        of(SessionType::Interactive),
        of(SessionType::Batch),
        of(SessionType::Scheduled),
        of(SessionType::Unannounced),
    ];
    [a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3], c[0], c[1], c[2], c[3], d[0], d[1], d[2], d[3]]
};

/// The name of a profile: `batch`, `batch.build`.
pub fn profile_name(kind: SessionType, phase: Option<Phase>) -> String {
    match phase {
        None => kind.as_str().to_owned(),
        Some(phase) => format!("{}.{}", kind.as_str(), phase.as_str()),
    }
}

/// Where thresholds come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The product, or the configuration where it writes one.
    #[default]
    Off,
    /// What was learned, where the sample is large enough.
    Learned,
}

/// Settings.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where thresholds come from. Learning itself goes on in monitor mode either way.
    pub thresholds: Source,
    /// Types that may have learned thresholds.
    pub types: Vec<SessionType>,
    /// Sessions of a type that learned thresholds take.
    pub min_sessions: u64,
    /// Pairs of session and tenant of a type that they take.
    pub min_pairs: u64,
    /// One refused pair in this many is accepted.
    pub pairs_per_alarm: u64,
    /// One watched pair in this many is accepted.
    pub pairs_per_watch: u64,
    /// Lowest sinkhole threshold, nats.
    pub sinkhole_min: f32,
    /// Highest sinkhole threshold, nats.
    pub sinkhole_max: f32,
    /// Profiles whose thresholds the configuration writes: nothing is learned over those.
    pub written: ScopeSet,
    /// Where `thresholds` is written.
    pub place: Place,
}

/// Where a setting is written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// The file, as given; empty without one.
    pub file: String,
    /// The line, from 1; 0 where there is none.
    pub line: u32,
}

/// How far from the shipped sinkhole threshold the bounds may be set, nats: below and above.
pub const WIDEST: (f32, f32) = (2.0, 4.0);

impl Default for Config {
    fn default() -> Self {
        let shipped = Params::default().sinkhole;
        Self {
            thresholds: Source::Off,
            types: vec![SessionType::Interactive, SessionType::Batch, SessionType::Scheduled, SessionType::Unannounced],
            min_sessions: 200,
            min_pairs: 3_000,
            pairs_per_alarm: 10_000,
            pairs_per_watch: 50,
            // A nat down is a false alarm e times as easily, two nats up let pass what is e^2 times as odd. Chosen
            // without a source.
            sinkhole_min: shipped - 1.0,
            sinkhole_max: shipped + 2.0,
            written: ScopeSet::NONE,
            place: Place::default(),
        }
    }
}

/// Why learned thresholds cannot be enforced, one for each type; each names the sample, the minimum and the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct NotLearned {
    /// Where `learn.thresholds` is written.
    pub place: Place,
    /// What is wrong, for each type.
    pub problems: Vec<String>,
    /// What to do about it.
    pub remedy: String,
}

impl NotLearned {
    /// From what [`Book::settle`] found.
    pub fn new(config: &Config, short: &[Shortfall]) -> Self {
        let problems = short.iter().map(|short| {
            format!(
                "type `{}` has been seen in {} sessions and {} pairs, too few to enforce by: learned thresholds take {} \
                 sessions and {} pairs",
                short.kind.as_str(),
                short.sample.sessions,
                short.sample.pairs,
                config.min_sessions,
                config.min_pairs
            )
        });
        let kinds: Vec<_> = short.iter().map(|short| short.kind.as_str()).collect();
        let remedy = format!(
            "go on in monitor mode until `staunch learn show` has enough, leave {} out of learn.types, or write thresholds \
             = \"off\"",
            kinds.join(" and ")
        );
        Self { place: config.place.clone(), problems: problems.collect(), remedy }
    }
}

impl fmt::Display for NotLearned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.problems.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            if !self.place.file.is_empty() {
                write!(f, "{}:{}: ", self.place.file, self.place.line)?;
            }
            write!(f, "learn.thresholds: {problem}; {}", self.remedy)?;
        }
        Ok(())
    }
}
