//! What fetching lists tells, and whom.

use serde::Serialize;

use super::copies::Stamp;

/// How a fetch ended, as in records and labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// A new version is the good one.
    Fetched,
    /// The server had nothing newer.
    Unchanged,
    /// A new version waits for somebody's word.
    Held,
    /// What came is no list.
    Refused,
    /// Nothing came.
    Failed,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Fetched, Self::Unchanged, Self::Held, Self::Refused, Self::Failed];

    /// As in records and labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fetched => "fetched",
            Self::Unchanged => "unchanged",
            Self::Held => "held",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// Where a list stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Standing {
    /// The list.
    pub id: String,
    /// Where it comes from, without what may be a secret.
    pub url: String,
    /// How the last fetch of this process ended.
    pub outcome: Option<Outcome>,
    /// What was wrong with it.
    pub problem: Option<String>,
    /// Fetches that failed or were refused since the last that did not.
    pub failures: u32,
    /// When the server last had an answer that could be used, milliseconds since the Unix epoch.
    pub checked: Option<u64>,
    /// The good copy.
    pub good: Option<Version>,
    /// Why that is not in force, where it cannot be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unused: Option<String>,
    /// The one that waits.
    pub held: Option<Version>,
    /// When it is fetched next, milliseconds since the Unix epoch.
    pub next: u64,
}

/// A version of a list, as it is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Version {
    /// Hex SHA-256.
    pub sha256: String,
    /// Entries.
    pub entries: u32,
    /// When it was fetched, milliseconds since the Unix epoch.
    pub fetched: u64,
    /// Why it waits or waited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_for: Option<String>,
    /// Who let it in, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accepted: Option<(String, String)>,
}

impl From<&Stamp> for Version {
    fn from(stamp: &Stamp) -> Self {
        Self {
            sha256: stamp.sha256.clone(),
            entries: stamp.entries,
            fetched: stamp.fetched,
            held_for: stamp.held_for.clone(),
            accepted: stamp.accepted.clone(),
        }
    }
}

/// Something that somebody should know of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// A list cannot be fetched, or what comes is none; the last good copy stays.
    Failing {
        /// Which.
        id: String,
        /// Why.
        why: String,
    },
    /// What was fetched of a list cannot be used any more; what is in force of it is older, or nothing.
    Unused {
        /// Which.
        id: String,
        /// Why.
        why: String,
    },
    /// It can again.
    Recovered {
        /// Which.
        id: String,
    },
    /// A new version waits.
    Held {
        /// Which.
        id: String,
        /// Why.
        why: String,
    },
    /// What is good could not be put in force.
    NotInForce {
        /// Why.
        why: String,
    },
    /// What could not be put in force is.
    InForce,
}

/// What the rest of the service does for this stage.
pub trait Listener: Send + Sync {
    /// Puts the good copies in force. Blocks until it is done.
    ///
    /// # Errors
    /// Why what was in force stays.
    fn put_in_force(&self) -> Result<(), String>;

    /// Tells people.
    fn tell(&self, told: Told);
}

/// Why an order of the operator's was not carried out.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// No list of that id is fetched.
    #[error("no list `{0}` is fetched; `staunch lists show` names all")]
    Unknown(String),
    /// Nothing of it waits.
    #[error("no version of `{0}` waits")]
    NothingHeld(String),
    /// It is not what was looked at any more.
    #[error("another version of `{0}` waits by now; look at it first")]
    Another(String),
    /// With it, lists are more than one table holds.
    #[error("with that version of `{0}` all lists are more than fits; leave one out first")]
    NoRoom(String),
    /// It could not be recorded.
    #[error("it could not be recorded: {0}")]
    Disk(String),
}
