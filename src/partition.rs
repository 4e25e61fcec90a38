//! Who may be answered from what others have asked: partitions of the cache, and sessions that are to learn nothing of
//! each other from it.
//!
//! Pure. A session's context holds the partitions it can be in ([`Partitions`]), the configuration says which of them is
//! meant ([`Rules`]), and what comes of it ([`Sharing`]) travels with the question: into the cache's key, the flights that
//! are shared, and what is found of siblings.

use std::collections::VecDeque;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use crate::model::Announcement;

/// Questions of one session whose views are remembered; the oldest gives way, and is then asked as if for the first time.
/// Which one that is, is decided by the session's own questions alone. 16 octets each.
const VIEWS: usize = 512;

/// A part of the cache. Two partitions never share an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Partition(u64);

impl Partition {
    /// The one that all share where nothing else is configured.
    pub const ALL: Self = Self(0);

    /// The partition of whoever is meant by `who`: a keyed hash, new for every process, so that there is no table to fill. That
    /// two of a hundred thousand meet has a probability of 3 in 10^10.
    fn of(who: impl Hash) -> Self {
        static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        Self(KEY.hash_one(who).max(1))
    }

    /// As part of a key.
    pub fn number(self) -> u64 {
        self.0
    }
}

/// Sessions that may be answered from each other's answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SharedBy {
    /// All.
    #[default]
    All,
    /// Those of one owner; one without an owner is alone.
    Group,
    /// None: each is alone.
    Session,
}

/// What is configured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rules {
    /// Who shares answers.
    pub shared_by: SharedBy,
    /// Whether a session that shares an answer must not notice it.
    pub private: bool,
}

/// With whom a question's answer is shared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Sharing {
    /// Where the answer is kept.
    pub partition: Partition,
    /// Whether who comes later waits as long as who came first.
    pub private: bool,
}

/// The partitions that a session can be in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partitions {
    group: Partition,
    session: Partition,
}

impl Partitions {
    /// Those of a session that is announced so.
    pub fn of(announcement: &Announcement) -> Self {
        let session = Partition::of(("session", announcement.id.as_str()));
        let group = announcement.owner.as_deref().map_or(session, |owner| Partition::of(("owner", owner)));
        Self { group, session }
    }

    /// How the session's questions are shared.
    pub fn sharing(&self, rules: Rules) -> Sharing {
        let partition = match rules.shared_by {
            SharedBy::All => Partition::ALL,
            SharedBy::Group => self.group,
            SharedBy::Session => self.session,
        };
        Sharing { partition, private: rules.private }
    }

    /// The session's own, whoever else shares its answers.
    pub fn alone(&self) -> Partition {
        self.session
    }
}

/// What a session may know of the answer to a question that is at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// Everything: nothing is hidden from anybody.
    Open,
    /// It was answered a moment ago, and may be again until then (monotonic milliseconds).
    Until(u64),
    /// It was answered once.
    Before,
    /// It has not asked, or not for long.
    Never,
}

impl View {
    /// Whether an answer at hand may be given at once.
    pub fn is_now(self) -> bool {
        matches!(self, Self::Open | Self::Until(_))
    }

    /// Whether an answer past its time may be given, where another cannot be had.
    pub fn is_ever(self) -> bool {
        self != Self::Never
    }

    /// Longest TTL that may be shown, seconds, so that it tells nothing of when others asked; `past` for an answer past its
    /// time, `first` for one that the session has just waited for.
    pub fn cap(self, now: u64, first: Option<u32>, past: u32) -> u32 {
        match self {
            Self::Open => u32::MAX,
            Self::Until(until) => u32::try_from(until.saturating_sub(now).div_ceil(1000)).unwrap_or(u32::MAX),
            Self::Before | Self::Never => first.unwrap_or(past),
        }
    }
}

/// What a session has been answered, by hashes of its questions, oldest first.
#[derive(Debug, Default)]
pub struct Views(VecDeque<(u64, u64)>);

impl Views {
    /// What is known of a question at `now` (monotonic milliseconds).
    pub fn of(&self, question: u64, now: u64) -> View {
        match self.0.iter().rev().find(|(known, _)| *known == question) {
            Some((_, until)) if now < *until => View::Until(*until),
            Some(_) => View::Before,
            None => View::Never,
        }
    }

    /// The session has waited for the answer to a question, which is its own until then.
    pub fn note(&mut self, question: u64, until: u64) {
        self.0.retain(|(known, _)| *known != question);
        if self.0.len() >= VIEWS {
            self.0.pop_front();
        }
        self.0.push_back((question, until));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{SessionId, SessionType};

    fn partitions(id: &str, owner: Option<&str>) -> Partitions {
        let id = SessionId::new(id).expect("an id");
        Partitions::of(&Announcement {
            owner: owner.map(Into::into),
            ..Announcement::without_sandbox(id, SessionType::Batch)
        })
    }

    #[test]
    fn partitions_are_those_of_owners_or_of_sessions() {
        let (a1, a2) = (partitions("a1", Some("team-a")), partitions("a2", Some("team-a")));
        let (b, lone, other) = (partitions("b", Some("team-b")), partitions("l", None), partitions("m", None));
        let by = |shared_by| move |p: Partitions| p.sharing(Rules { shared_by, private: false }).partition;
        let all = [a1, a2, b, lone, other];
        assert!(all.map(by(SharedBy::All)).iter().all(|partition| *partition == Partition::ALL));
        let [a1, a2, b, lone, other] = all.map(by(SharedBy::Group));
        assert_eq!(a1, a2);
        let mut distinct = [a1, b, lone, other].map(Partition::number).to_vec();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!((distinct.len(), distinct.contains(&0)), (4, false), "who has no owner is alone");
        let mut alone = all.map(by(SharedBy::Session)).map(Partition::number).to_vec();
        alone.sort_unstable();
        alone.dedup();
        assert_eq!(alone.len(), 5);
        // An owner who is called like a session is another.
        assert_ne!(by(SharedBy::Group)(partitions("x", Some("y"))), by(SharedBy::Group)(partitions("y", None)));
    }

    #[test]
    fn a_view_is_of_the_sessions_own_making() {
        let mut views = Views::default();
        assert_eq!(views.of(1, 0), View::Never);
        views.note(1, 60_000);
        assert_eq!((views.of(1, 59_999), views.of(1, 60_000)), (View::Until(60_000), View::Before));
        assert_eq!(View::Until(60_000).cap(1, None, 30), 60);
        assert_eq!((View::Before.cap(1, None, 30), View::Never.cap(1, Some(60), 30)), (30, 60));
        views.note(1, 90_000);
        for question in 2..=VIEWS as u64 {
            views.note(question, 90_000);
        }
        assert_eq!(views.of(1, 0), View::Until(90_000), "each once");
        views.note(u64::MAX, 90_000);
        assert_eq!((views.of(1, 0), views.of(2, 0)), (View::Never, View::Until(90_000)), "the oldest gives way");
        assert_eq!(views.0.len(), VIEWS);
    }
}
