//! Sessions: whose address this is, and what has become of it.
//!
//! Between [`crate::listen`] (an address) and [`crate::policy`] (a judgement). Knows no policy, no packet filter and no
//! clock. A session's changing part stands behind one short mutex; the pipeline submits orders to the packet filter
//! while holding it, so that a quarantine closes the door behind every pin submitted before it.

mod configured;
mod groups;
mod resolved;
mod share;
mod state;
mod table;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use staunch_scoring::{NameBuf, NameRef, SessionState, StateSnapshot};
use tokio::sync::Semaphore;

use crate::enforce::Class;
use crate::learn::Maxima;
use crate::model::{Announcement, CaseId, Phase, Qtype, Reason, SessionId, SessionType};
use crate::partition::{Partitions, Views};
use crate::pin::SessionPins;
use crate::store::Durable;

pub use configured::{Configured, left_of};
pub use groups::{Group, GroupLedger, Groups, MAX_GROUPS};
pub use resolved::Resolved;
pub use share::{Past, Place, Shares};
pub use state::{Held, StateLock};
pub use table::{AddError, Announced, Sessions};

/// Cases kept for a session, newest last; an older one is forgotten, so its name gets a new case id when asked again.
const CASES: usize = 64;
/// Least time between two events of a session whose share is used up, milliseconds.
const TELL_MS: u64 = 1000;
/// Refused names kept as samples for an alert.
const SAMPLES: usize = 10;
/// Distinct names under tunnel-only types that are remembered; policy closes the session at this many.
pub const TUNNEL_TYPE_NAMES: usize = 3;

/// Where a session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Nothing against it.
    Active,
    /// Something was refused or near it.
    Watched,
    /// Closed until released.
    Quarantined,
}

impl State {
    /// Every state, for metrics.
    pub const ALL: [Self; 3] = [Self::Active, Self::Watched, Self::Quarantined];

    /// As in records and labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Watched => "watched",
            Self::Quarantined => "quarantined",
        }
    }
}

/// Why a session is closed, or in monitor mode would be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantine {
    /// The case the agent was told.
    pub case: CaseId,
    /// Why.
    pub reason: Reason,
    /// Who: `staunch` or an operator.
    pub by: String,
    /// Free words.
    pub note: String,
    /// Since when, milliseconds since the Unix epoch.
    pub since: u64,
    /// Whether it is applied; false records what enforce mode would have done.
    pub applied: bool,
    /// Whether it was on disk before this process started.
    #[serde(default)]
    pub recorded: bool,
}

/// A refusal that may be asked about again.
#[derive(Debug, Clone, Copy)]
struct KnownCase {
    key: u64,
    reason: Reason,
    case: CaseId,
}

/// Counts of a session's queries since it began or the process did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Judged.
    pub queries: u64,
    /// Of them, sent to an upstream.
    pub forwarded: u64,
    /// Of them, refused, or in monitor mode would have been.
    pub refused: u64,
}

/// What the packet filter was last told a guarded session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// Whose written ranges are open to it.
    pub class: Class,
    /// How often written ranges had been closed before.
    pub narrowed: u64,
}

/// Which copy of a session's ledger the index has.
#[derive(Debug, Default)]
pub struct Copied {
    /// Steps of the ledger it was made after.
    steps: u64,
    /// Since when the ledger is ahead of it, milliseconds; nothing where it is not.
    behind: Option<u64>,
}

impl Copied {
    /// How long the copy may lag behind. The journal has every step; the copy is for one that is damaged.
    const LAG_MS: u64 = 60_000;

    /// Whether a copy is to be made of a ledger of so many steps; it counts as made then.
    pub fn is_due(&mut self, steps: u64, now: u64) -> bool {
        if steps == self.steps {
            return false;
        }
        let behind = *self.behind.get_or_insert(now);
        let due = now.saturating_sub(behind) >= Self::LAG_MS;
        if due {
            *self = Self { steps, behind: None };
        }
        due
    }
}

/// The changing part of a session.
#[derive(Debug)]
pub struct Inner {
    /// Score and ledger.
    pub score: SessionState,
    /// Leases.
    pub pins: SessionPins,
    /// The class under which the packet filter guards it; nothing where it does not.
    pub told: Option<Told>,
    /// Whether the packet filter may hold leases that were made before this process, by names nobody knows any more.
    pub unknown_leases: bool,
    /// Names that wait to be connected to.
    pub resolved: Resolved,
    /// Set while closed.
    pub quarantine: Option<Quarantine>,
    /// Set while the quarantine is not yet known to be on disk: nobody is told of it before.
    pub pending: Option<Arc<Durable>>,
    /// The run is over; an answer still under way finds the session closed.
    pub ended: bool,
    /// Marks or attempts were added since the ledger was last handed to the store.
    pub dirty: bool,
    /// Whether something was refused or near it.
    pub watched: bool,
    /// Counts.
    pub counts: Counts,
    /// Refused names, oldest first.
    pub samples: VecDeque<NameBuf>,
    /// Bits charged in all: the upper limit of what this session's names can have told the outside.
    pub charged: staunch_scoring::Bits,
    /// Bits charged since the ledger was last handed to the store.
    pub unstored: staunch_scoring::Bits,
    /// What the index has of the ledger.
    pub copied: Copied,
    /// The largest scores it reached in monitor mode, for learned thresholds.
    pub maxima: Maxima,
    /// Tries at random siblings this hour.
    pub decoys: crate::decoy::Allowance,
    /// What it was answered, where it is to learn nothing of what others ask.
    pub views: Views,
    cases: VecDeque<KnownCase>,
    tunnel_names: [u64; TUNNEL_TYPE_NAMES],
}

impl Inner {
    /// A session that has asked nothing yet.
    pub fn new(seed: u64) -> Self {
        Self {
            score: SessionState::new(seed),
            pins: SessionPins::default(),
            told: None,
            unknown_leases: false,
            resolved: Resolved::default(),
            quarantine: None,
            pending: None,
            ended: false,
            dirty: false,
            watched: false,
            counts: Counts::default(),
            samples: VecDeque::new(),
            charged: staunch_scoring::Bits::ZERO,
            unstored: staunch_scoring::Bits::ZERO,
            copied: Copied::default(),
            maxima: Maxima::default(),
            decoys: crate::decoy::Allowance::default(),
            views: Views::default(),
            cases: VecDeque::new(),
            tunnel_names: [0; TUNNEL_TYPE_NAMES],
        }
    }

    /// Takes over what was recorded before the process ended.
    pub fn restore(&mut self, snapshot: &StateSnapshot) {
        self.score = SessionState::restore(snapshot);
        self.copied = Copied { steps: self.score.steps(), behind: None };
        self.charged = self.score.spent_session().plus(self.score.spent_listed()).plus(self.score.spent_below());
    }

    /// Where the session stands; a quarantine that is not applied counts as watched.
    pub fn state(&self) -> State {
        match &self.quarantine {
            Some(q) if q.applied => State::Quarantined,
            Some(_) => State::Watched,
            None if self.watched => State::Watched,
            None => State::Active,
        }
    }

    /// Whether refusals are final now.
    pub fn is_closed(&self) -> bool {
        self.ended || self.quarantine.as_ref().is_some_and(|q| q.applied)
    }

    /// What has to be awaited before the session's state is told to anybody.
    pub fn pending(&self) -> Option<Arc<Durable>> {
        self.pending.as_ref().filter(|pending| !pending.is_done()).cloned()
    }

    /// The case of an earlier refusal under the same key (a tenant's hash) for one of these reasons, if it is still known.
    pub fn known_case(&self, key: u64, of: impl Fn(Reason) -> bool) -> Option<(Reason, CaseId)> {
        self.cases.iter().rev().find(|c| c.key == key && of(c.reason)).map(|c| (c.reason, c.case))
    }

    /// The case for a refusal: the known one of the same key and reason, else `fresh`, remembered.
    pub fn case_for(&mut self, key: u64, reason: Reason, fresh: CaseId) -> CaseId {
        if let Some(known) = self.cases.iter().find(|c| c.key == key && c.reason == reason) {
            return known.case;
        }
        if self.cases.len() == CASES {
            self.cases.pop_front();
        }
        self.cases.push_back(KnownCase { key, reason, case: fresh });
        fresh
    }

    /// Keeps `name` as a sample unless it is there already.
    pub fn sample(&mut self, name: NameRef<'_>) {
        if self.samples.iter().any(|s| s.as_ref() == name) {
            return;
        }
        if self.samples.len() == SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back(name.to_owned());
    }

    /// How many distinct names were asked under tunnel-only types if `hash` is one more.
    pub fn tunnel_names_with(&self, hash: u64) -> usize {
        let known = self.tunnel_names.iter().filter(|h| **h != 0).count();
        if self.tunnel_names.contains(&(hash | 1)) { known } else { (known + 1).min(TUNNEL_TYPE_NAMES) }
    }

    /// Remembers a name asked under a tunnel-only type.
    pub fn note_tunnel_name(&mut self, hash: u64) {
        if !self.tunnel_names.contains(&(hash | 1))
            && let Some(slot) = self.tunnel_names.iter_mut().find(|h| **h == 0)
        {
            *slot = hash | 1;
        }
    }

    /// Opens the session again: marks and attempts are forgotten, what was spent stays spent.
    pub fn release(&mut self) {
        self.quarantine = None;
        self.pending = None;
        self.watched = false;
        self.tunnel_names = [0; TUNNEL_TYPE_NAMES];
        self.cases.clear();
        self.samples.clear();
        self.score.release();
    }
}

/// What is said of a session; replaced as a whole when its context is updated.
#[derive(Debug)]
pub struct Context {
    /// As announced; for an unannounced source made up from its address.
    pub announcement: Announcement,
    /// Whether somebody announced it.
    pub announced: bool,
    /// Share of the canary this session falls into, 0..=99, stable by its id.
    pub cohort: u8,
    /// With whom it can share answers.
    pub partitions: Partitions,
}

impl Context {
    /// From an announcement; `announced` is false for one that was made up. An owner without a name is nobody: sessions of
    /// which a script knew none have nothing in common.
    pub fn new(mut announcement: Announcement, announced: bool) -> Self {
        announcement.owner = announcement.owner.filter(|owner| !owner.trim().is_empty());
        let cohort = cohort(announcement.id.as_str());
        let partitions = Partitions::of(&announcement);
        Self { announcement, announced, cohort, partitions }
    }

    /// Whether nothing else is said of the session than `other` says.
    pub fn is_as(&self, other: &Self) -> bool {
        std::ptr::eq(self, other) || (self.announced == other.announced && self.announcement == other.announcement)
    }

    /// Kind of work.
    pub fn kind(&self) -> SessionType {
        self.announcement.kind
    }

    /// Phase, if told.
    pub fn phase(&self) -> Option<Phase> {
        self.announcement.phase
    }

    /// Whether the session has no address from which an answer of this type could be reached.
    pub fn cannot_reach(&self, qtype: Qtype) -> bool {
        match qtype {
            Qtype::A => !self.announcement.addresses.iter().any(IpAddr::is_ipv4),
            Qtype::AAAA => !self.announcement.addresses.iter().any(IpAddr::is_ipv6),
            _ => false,
        }
    }

    /// The session's IPv6 or IPv4 addresses, whichever `other` is.
    pub fn addresses_like(&self, other: IpAddr) -> impl Iterator<Item = IpAddr> {
        self.announcement.addresses.iter().copied().filter(move |a| a.is_ipv4() == other.is_ipv4())
    }
}

/// One sandbox run.
#[derive(Debug)]
pub struct Session {
    id: SessionId,
    context: RwLock<Arc<Context>>,
    /// Everything that changes with queries. Held for microseconds, never across an await. Orders to the packet filter
    /// are submitted under it, so their order is the order of decisions.
    pub inner: StateLock,
    /// Its questions in the slow path; counted by [`Shares`].
    waiting: AtomicU32,
    /// Its turns at the upstreams, where others ask too: whoever finds none waits a moment in a queue of the session's own.
    pub turns: Semaphore,
    /// When an event last told that its share was used up, milliseconds of [`crate::model::Now::mono`].
    told: AtomicU64,
}

impl Session {
    fn new(context: Context, seed: u64) -> Self {
        Self::of(Arc::new(context), seed)
    }

    fn of(context: Arc<Context>, seed: u64) -> Self {
        Self {
            id: context.announcement.id.clone(),
            context: RwLock::new(context),
            inner: StateLock::new(Inner::new(seed)),
            waiting: AtomicU32::new(0),
            turns: Semaphore::new(share::TURNS),
            told: AtomicU64::new(0),
        }
    }

    /// A session outside the table, shared by sources that found no room there.
    pub fn shared(context: Arc<Context>) -> Self {
        Self::of(context, 0)
    }

    /// Its name.
    pub fn id(&self) -> &SessionId {
        &self.id
    }

    /// Whether an event may tell now (milliseconds, monotonic) that its share of the slow path is used up: one a second,
    /// so that a flood does not push the events of others out of their queue.
    pub fn may_tell(&self, now: u64) -> bool {
        let last = self.told.load(Ordering::Relaxed);
        let due = last == 0 || now >= last.saturating_add(TELL_MS);
        due && self.told.compare_exchange(last, now.max(1), Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// What is said of it now.
    pub fn context(&self) -> Arc<Context> {
        self.context.read().clone()
    }
}

/// A stable share for an id: the same on every node and after every restart (FNV-1a, 64 bit, modulo 100).
pub fn cohort(id: &str) -> u8 {
    let hash = id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    // The low bits of FNV are weak for short inputs; fold the high half in.
    ((hash ^ (hash >> 32)) % 100) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_stable_and_bounded() {
        let mut inner = Inner::new(1);
        let first = inner.case_for(1, Reason::Score, CaseId::from_random(1));
        assert_eq!(inner.case_for(1, Reason::Score, CaseId::from_random(2)), first);
        assert_ne!(inner.case_for(1, Reason::DenyList, CaseId::from_random(3)), first);
        for key in 10..200 {
            inner.case_for(key, Reason::Score, CaseId::from_random(key));
        }
        assert_eq!(inner.cases.len(), CASES);
    }

    #[test]
    fn sessions_whose_owner_has_no_name_share_nothing() {
        let context = |id: &str, owner: &str| {
            let id = SessionId::new(id).expect("id");
            let announcement = Announcement::without_sandbox(id, SessionType::Batch);
            Context::new(Announcement { owner: Some(owner.into()), ..announcement }, true)
        };
        let rules = crate::partition::Rules { shared_by: crate::partition::SharedBy::Group, private: false };
        let partition = |context: &Context| context.partitions.sharing(rules).partition;
        for nobody in ["", " "] {
            let (a, b) = (context("a", nobody), context("b", nobody));
            assert_ne!(partition(&a), partition(&b));
            assert_eq!(a.announcement.owner, None);
        }
        assert_eq!(partition(&context("a", "team")), partition(&context("b", "team")));
    }

    #[test]
    fn cohorts_are_spread_evenly() {
        let mut shares = [0u32; 100];
        for n in 0..100_000 {
            shares[cohort(&format!("session-{n}")) as usize] += 1;
        }
        assert!(shares.iter().all(|s| (700..1300).contains(s)), "{shares:?}");
    }
}
