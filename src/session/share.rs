//! Shares of the slow path: how many questions of one session may wait at once, so that all others find room.
//!
//! Between [`crate::pipeline`], which takes a [`Place`] for each question that has to wait for something, and
//! [`crate::listen`], whose queue the room stands for. Counts without locks; knows no clock and no policy.
//!
//! A share is a part of what is free at the moment (the dynamic threshold of shared-memory switches): one session alone
//! gets a quarter of the room, and the more take theirs the less each gets, so nobody has to say beforehand how many
//! there will be. Where others have questions waiting too, or had within a second, a session gets a 33rd of the room: what one has
//! under way is what another's question stands behind at a busy upstream. Sessions of one owner, and strangers of one
//! network, share such a part together, so that many sessions of one tenant are one tenant.
//!
//! Of what a session has waiting beside others, [`TURNS`] questions are with an upstream at once while these are answered
//! quickly; the rest stand in a queue of the session's own, so that another's question stands behind few of them.
//!
//! At the cap: a quarter of the room is kept for sessions with few questions waiting, sixteen and, as it shrinks, fewer,
//! [`LAST`] in the end. To fill it, about two hundred sessions of many owners must take all they get within the time of one
//! exchange; whoever holds more than it would get then gets nothing until it is below.

use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};

use foldhash::quality::RandomState;

use super::{Context, Session};
use crate::range::prefix_of;

/// A session that nobody crowds may have this many questions waiting whatever others do. Chosen without a source: a
/// page of a browser or an installer's batch asks for about so many names at once.
const FLOOR: u32 = 16;
/// The floor is at most one part in so many of the room.
const FLOOR_PART: u32 = 8;
/// What a session may have in the last of the room.
const LAST: u32 = 4;
/// A session gets one part in so many of what is free and not kept, alone and beside others. Of the default room that is
/// 1,024 questions, an installer's thousand at once, and 123, above what a browser has under way (64 look-ups of two types).
const ALONE_PART: u32 = 2;
const SESSION_PART: u32 = 24;
/// How long a session counts as beside others after one of them had a question waiting, milliseconds.
const BESIDE_MS: u64 = 1000;
/// Exchanges that a session has under way at once, where others ask too, before its next one waits for a moment. Chosen without
/// a source: above what a page asks for at once, and at a round trip of 10 ms still 3,200 names a second.
pub(super) const TURNS: usize = 32;
/// How long a session keeps to its turns after another had a question waiting, milliseconds. Longer than [`BESIDE_MS`], for
/// somebody who asks now and then, since all that a turn costs is a moment.
const TURNS_MS: u64 = 10_000;
/// One part in so many of the room is kept for sessions with few questions waiting.
const KEPT_PART: u32 = 4;
/// Counters of owners and networks. Two that fall into one counter share a part.
const CROWDS: usize = 1024;
/// Leading bits that make a network of strangers one crowd, IPv4 and IPv6.
const STRANGERS: (u8, u8) = (24, 48);

/// Whose part was used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Past {
    /// The session's own.
    Session,
    /// That of all sessions of its owner, or of all strangers of its network.
    Crowd,
    /// That of all sources nobody announced.
    Strangers,
    /// There is no room at all.
    All,
}

impl Past {
    /// Every one.
    pub const ALL: [Self; 4] = [Self::Session, Self::Crowd, Self::Strangers, Self::All];

    /// As in labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Crowd => "crowd",
            Self::Strangers => "strangers",
            Self::All => "all",
        }
    }
}

/// The room of the slow path and who holds how much of it.
#[derive(Debug)]
pub struct Shares {
    capacity: u32,
    taken: AtomicU32,
    strangers: AtomicU32,
    crowds: Box<[AtomicU32]>,
    /// When a question last found another session's waiting, milliseconds of [`crate::model::Now::mono`].
    beside: AtomicU64,
    /// Whose question was the last one: an address, which tells sessions apart.
    last: AtomicUsize,
    hasher: RandomState,
    refused: [AtomicU64; Past::ALL.len()],
}

/// One question's room, given back when dropped.
#[derive(Debug)]
pub struct Place {
    shares: Arc<Shares>,
    session: Arc<Session>,
    crowd: Option<usize>,
    stranger: bool,
}

impl Drop for Place {
    fn drop(&mut self) {
        let counters = self.shares.counters(&self.session, self.crowd, self.stranger);
        counters.into_iter().flatten().for_each(|counter| _ = counter.fetch_sub(1, Relaxed));
    }
}

impl Shares {
    /// Room for `capacity` questions; 0 means 1.
    pub fn new(capacity: usize) -> Arc<Self> {
        Arc::new(Self {
            capacity: u32::try_from(capacity).unwrap_or(u32::MAX / 4).clamp(1, u32::MAX / 4),
            taken: AtomicU32::new(0),
            strangers: AtomicU32::new(0),
            crowds: (0..CROWDS).map(|_| AtomicU32::new(0)).collect(),
            beside: AtomicU64::new(0),
            last: AtomicUsize::new(0),
            hasher: RandomState::default(),
            refused: Default::default(),
        })
    }

    /// Questions that there is room for.
    pub fn capacity(&self) -> usize {
        self.capacity as usize
    }

    /// Room for one more question of this session, asked from `from` at `now` (milliseconds, monotonic); counts a refusal.
    ///
    /// # Errors
    /// Says whose part is used up.
    pub fn take(
        self: &Arc<Self>,
        session: &Arc<Session>,
        context: &Context,
        from: IpAddr,
        now: u64,
    ) -> Result<Place, Past> {
        let (crowd, stranger) = (self.crowd_of(context, from), !context.announced);
        let counters = self.counters(session, crowd, stranger);
        // Taken first and looked at behind: two that meet at a limit may both be sent away, but never both get in.
        let before = counters.map(|counter| counter.map_or(0, |counter| counter.fetch_add(1, Relaxed)));
        let place = Place { shares: self.clone(), session: session.clone(), crowd, stranger };
        // Two counters are never read at one moment, so what all have can look like more than the session has while several
        // workers take and give back for it alone: only behind another session's question is it compared.
        if self.is_behind_another(session) && before[0] > before[1] {
            self.beside.store(now, Relaxed);
        }
        match self.judge(before, crowd.is_some(), stranger, now) {
            Ok(()) => Ok(place),
            Err(past) => {
                self.refused[past as usize].fetch_add(1, Relaxed);
                Err(past)
            }
        }
    }

    /// Whether [`Self::take`] would find room now; takes none and counts a refusal.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub fn has_room(&self, session: &Session, context: &Context, from: IpAddr, now: u64) -> Result<(), Past> {
        let (crowd, stranger) = (self.crowd_of(context, from), !context.announced);
        let held = self.counters(session, crowd, stranger).map(|counter| counter.map_or(0, |held| held.load(Relaxed)));
        // Who has used up its part asks for all that, and must not pass for gone.
        self.is_behind_another(session);
        self.judge(held, crowd.is_some(), stranger, now)
            .inspect_err(|past| _ = self.refused[*past as usize].fetch_add(1, Relaxed))
    }

    /// Notes that this session asks. Whether the question before was another's.
    fn is_behind_another(&self, session: &Session) -> bool {
        let me = std::ptr::from_ref(session) as usize;
        let is_behind = self.last.load(Relaxed) != me;
        if is_behind {
            self.last.store(me, Relaxed);
        }
        is_behind
    }

    /// Whether others ask too, so that a session has to keep to its turns; `now` as in [`Self::take`].
    pub fn has_turns(&self, now: u64) -> bool {
        self.is_beside(now, TURNS_MS)
    }

    fn is_beside(&self, now: u64, within: u64) -> bool {
        now.saturating_sub(self.beside.load(Relaxed)) < within
    }

    /// Questions that were refused because this part was used up.
    pub fn refused(&self, past: Past) -> u64 {
        self.refused[past as usize].load(Relaxed)
    }

    /// Questions that wait now.
    pub fn taken(&self) -> usize {
        self.taken.load(Relaxed) as usize
    }

    /// All, the session, its crowd, strangers: what a place is counted in.
    fn counters<'a>(
        &'a self,
        session: &'a Session,
        crowd: Option<usize>,
        stranger: bool,
    ) -> [Option<&'a AtomicU32>; 4] {
        [
            Some(&self.taken),
            Some(&session.waiting),
            crowd.and_then(|at| self.crowds.get(at)),
            stranger.then_some(&self.strangers),
        ]
    }

    /// Whom a session shares a part with: those of its owner, or strangers of the same network.
    fn crowd_of(&self, context: &Context, from: IpAddr) -> Option<usize> {
        match (context.announced, &context.announcement.owner) {
            (true, Some(owner)) => Some(self.hasher.hash_one(owner) as usize % CROWDS),
            (true, None) => None,
            (false, _) => Some(self.hasher.hash_one(prefix_of(from, STRANGERS)) as usize % CROWDS),
        }
    }

    /// Judges what each counter held before, or holds.
    fn judge(
        &self,
        [taken, session, crowd, strangers]: [u32; 4],
        crowded: bool,
        stranger: bool,
        now: u64,
    ) -> Result<(), Past> {
        let part = if self.is_beside(now, BESIDE_MS) { SESSION_PART } else { ALONE_PART };
        let free = self.capacity.saturating_sub(taken);
        if free == 0 {
            return Err(Past::All);
        }
        let floor = FLOOR.min(self.capacity / FLOOR_PART).max(LAST);
        let kept = self.capacity / KEPT_PART;
        let own = match free.checked_sub(kept) {
            Some(open) => floor.max(open / part),
            None => (u64::from(floor) * u64::from(free) / u64::from(kept)) as u32,
        };
        let own = own.max(LAST);
        // Four floors: a crowd of four is not worse off than one.
        let least = 4 * floor;
        if session >= own {
            Err(Past::Session)
        } else if crowded && crowd >= least.max(if stranger { free / 2 } else { free.saturating_mul(2) }) {
            Err(Past::Crowd)
        } else if stranger && strangers >= least.max(free) {
            Err(Past::Strangers)
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests;
