//! Sessions: whose address this is, and what has become of it.
//!
//! Between [`crate::listen`] (an address) and [`crate::policy`] (a judgement). Knows no policy, no packet filter and no
//! clock. A session's changing part stands behind one short mutex; the pipeline submits orders to the packet filter
//! while holding it, so that a quarantine closes the door behind every pin submitted before it.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use foldhash::quality::RandomState;
use hashbrown::HashMap;
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use staunch_scoring::{NameBuf, NameRef, SessionState, StateSnapshot};

use crate::model::{Announcement, CaseId, Phase, Reason, SessionId, SessionType};
use crate::pin::SessionPins;

/// Cases kept for a session, newest last; an older one is forgotten, so its name gets a new case id when asked again.
const CASES: usize = 64;
/// Refused names kept as samples for an alert.
const SAMPLES: usize = 10;
/// Distinct names under tunnel-only types that are remembered; policy closes the session at this many.
pub const TUNNEL_TYPE_NAMES: usize = 3;
const SHARDS: usize = 64;

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

/// The changing part of a session.
#[derive(Debug)]
pub struct Inner {
    /// Score and ledger.
    pub score: SessionState,
    /// Leases.
    pub pins: SessionPins,
    /// Set while closed.
    pub quarantine: Option<Quarantine>,
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
    cases: VecDeque<KnownCase>,
    tunnel_names: [u64; TUNNEL_TYPE_NAMES],
}

impl Inner {
    /// A session that has asked nothing yet.
    pub fn new(seed: u64) -> Self {
        Self {
            score: SessionState::new(seed),
            pins: SessionPins::default(),
            quarantine: None,
            watched: false,
            counts: Counts::default(),
            samples: VecDeque::new(),
            charged: staunch_scoring::Bits::ZERO,
            unstored: staunch_scoring::Bits::ZERO,
            cases: VecDeque::new(),
            tunnel_names: [0; TUNNEL_TYPE_NAMES],
        }
    }

    /// Takes over what was recorded before the process ended.
    pub fn restore(&mut self, snapshot: &StateSnapshot) {
        self.score = SessionState::restore(snapshot);
        self.charged = self.score.spent_session().plus(self.score.spent_listed());
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
        self.quarantine.as_ref().is_some_and(|q| q.applied)
    }

    /// The case of an earlier refusal under the same key (a tenant's hash), if it is still known.
    pub fn known_case(&self, key: u64) -> Option<(Reason, CaseId)> {
        self.cases.iter().rev().find(|c| c.key == key).map(|c| (c.reason, c.case))
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
}

impl Context {
    /// From an announcement; `announced` is false for one that was made up.
    pub fn new(announcement: Announcement, announced: bool) -> Self {
        let cohort = cohort(announcement.id.as_str());
        Self { announcement, announced, cohort }
    }

    /// Kind of work.
    pub fn kind(&self) -> SessionType {
        self.announcement.kind
    }

    /// Phase, if told.
    pub fn phase(&self) -> Option<Phase> {
        self.announcement.phase
    }

    /// Whether the session has an IPv6 address at all.
    pub fn has_ipv6(&self) -> bool {
        self.announcement.addresses.iter().any(IpAddr::is_ipv6)
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
    pub inner: Mutex<Inner>,
}

impl Session {
    fn new(context: Context, seed: u64) -> Self {
        Self {
            id: context.announcement.id.clone(),
            context: RwLock::new(Arc::new(context)),
            inner: Mutex::new(Inner::new(seed)),
        }
    }

    /// Its name.
    pub fn id(&self) -> &SessionId {
        &self.id
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

/// Why a session could not be added.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddError {
    /// An address belongs to another session.
    #[error("address {address} belongs to session {owner}; end that session first")]
    AddressTaken {
        /// The address.
        address: IpAddr,
        /// Whose it is.
        owner: SessionId,
    },
    /// No address was given.
    #[error("a session needs at least one address")]
    NoAddress,
    /// The table is full.
    #[error("{0} sessions are known, no more fit; end some or raise limits.sessions")]
    Full(usize),
}

/// All sessions, by address and by name.
///
/// Capacity: `limit` sessions. At the limit new ones are refused rather than old ones forgotten: forgetting one would
/// refill its ledger.
#[derive(Debug)]
pub struct Sessions {
    hasher: RandomState,
    by_address: [RwLock<HashMap<IpAddr, Arc<Session>, RandomState>>; SHARDS],
    by_id: RwLock<HashMap<SessionId, Arc<Session>, RandomState>>,
    count: AtomicUsize,
    limit: usize,
}

impl Sessions {
    /// An empty table for `limit` sessions.
    pub fn new(limit: usize) -> Self {
        Self {
            hasher: RandomState::default(),
            by_address: std::array::from_fn(|_| RwLock::default()),
            by_id: RwLock::default(),
            count: AtomicUsize::new(0),
            limit,
        }
    }

    fn shard(&self, address: &IpAddr) -> &RwLock<HashMap<IpAddr, Arc<Session>, RandomState>> {
        use std::hash::BuildHasher;
        &self.by_address[self.hasher.hash_one(address) as usize % SHARDS]
    }

    /// The session an address belongs to.
    pub fn by_address(&self, address: IpAddr) -> Option<Arc<Session>> {
        let address = address.to_canonical();
        self.shard(&address).read().get(&address).cloned()
    }

    /// The session of a name.
    pub fn by_id(&self, id: &SessionId) -> Option<Arc<Session>> {
        self.by_id.read().get(id).cloned()
    }

    /// How many are known.
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of them, by name.
    pub fn all(&self) -> Vec<Arc<Session>> {
        let mut all: Vec<_> = self.by_id.read().values().cloned().collect();
        all.sort_by(|a, b| a.id.cmp(&b.id));
        all
    }

    /// Adds a session, or gives a known one its new context (addresses may come and go; score and ledger stay).
    /// Returns the session and the addresses it has lost.
    pub fn announce(
        &self,
        announcement: Announcement,
        announced: bool,
        seed: u64,
    ) -> Result<(Arc<Session>, Vec<IpAddr>), AddError> {
        let mut announcement = announcement;
        for address in &mut announcement.addresses {
            *address = address.to_canonical();
        }
        announcement.addresses.sort();
        announcement.addresses.dedup();
        if announcement.addresses.is_empty() {
            return Err(AddError::NoAddress);
        }
        // One writer at a time: the id table's lock covers changes of both tables.
        let mut by_id = self.by_id.write();
        for address in &announcement.addresses {
            if let Some(owner) = self.by_address(*address)
                && owner.id != announcement.id
            {
                // A source that spoke before it was announced becomes the announced session: what it has spent is
                // dropped with its made-up identity only if it is unannounced.
                if owner.context().announced || !announced {
                    return Err(AddError::AddressTaken { address: *address, owner: owner.id.clone() });
                }
                self.detach(&mut by_id, &owner);
            }
        }
        let mut lost = Vec::new();
        let session = match by_id.get(&announcement.id) {
            Some(session) => {
                let session = session.clone();
                let before = session.context();
                for address in &before.announcement.addresses {
                    if !announcement.addresses.contains(address) {
                        self.shard(address).write().remove(address);
                        lost.push(*address);
                    }
                }
                *session.context.write() = Arc::new(Context::new(announcement.clone(), announced));
                session
            }
            None => {
                if self.len() >= self.limit {
                    return Err(AddError::Full(self.limit));
                }
                let session = Arc::new(Session::new(Context::new(announcement.clone(), announced), seed));
                by_id.insert(session.id.clone(), session.clone());
                self.count.fetch_add(1, Ordering::Relaxed);
                session
            }
        };
        for address in announcement.addresses {
            self.shard(&address).write().insert(address, session.clone());
        }
        Ok((session, lost))
    }

    /// A session for a source nobody announced. All addresses of one IPv6 /64 share a session, since one host can use
    /// any of them.
    pub fn adopt(&self, address: IpAddr, seed: u64) -> Result<Arc<Session>, AddError> {
        let address = address.to_canonical();
        let home = match address {
            IpAddr::V4(_) => address,
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        };
        let id = SessionId::unannounced(home);
        let mut addresses = match self.by_id(&id) {
            Some(session) => session.context().announcement.addresses.clone(),
            None => Vec::new(),
        };
        // Sixteen addresses of one /64 get pins; more than a host needs, fewer than it could make up.
        if addresses.len() >= 16 {
            return self.by_id(&id).ok_or(AddError::Full(self.limit));
        }
        addresses.push(address);
        let announcement = Announcement {
            id,
            addresses,
            kind: SessionType::Unannounced,
            phase: None,
            owner: None,
            search: Vec::new(),
        };
        self.announce(announcement, false, seed).map(|(session, _)| session)
    }

    /// Forgets a session. Returns it, so that its pins can be removed.
    pub fn end(&self, id: &SessionId) -> Option<Arc<Session>> {
        let mut by_id = self.by_id.write();
        let session = by_id.get(id)?.clone();
        self.detach(&mut by_id, &session);
        Some(session)
    }

    fn detach(&self, by_id: &mut HashMap<SessionId, Arc<Session>, RandomState>, session: &Arc<Session>) {
        for address in &session.context().announcement.addresses {
            self.shard(address).write().remove(address);
        }
        if by_id.remove(&session.id).is_some() {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announcement(id: &str, addresses: &[&str]) -> Announcement {
        Announcement {
            id: SessionId::new(id).expect("id"),
            addresses: addresses.iter().map(|a| a.parse().expect("address")).collect(),
            kind: SessionType::Interactive,
            phase: None,
            owner: None,
            search: Vec::new(),
        }
    }

    #[test]
    fn an_update_moves_addresses_and_keeps_the_ledger() {
        let sessions = Sessions::new(8);
        let (first, _) = sessions.announce(announcement("a", &["10.0.0.1", "10.0.0.2"]), true, 1).expect("new");
        first.inner.lock().counts.queries = 7;
        let (again, lost) = sessions.announce(announcement("a", &["10.0.0.2", "10.0.0.3"]), true, 2).expect("update");
        assert!(Arc::ptr_eq(&first, &again));
        assert_eq!(again.inner.lock().counts.queries, 7);
        assert_eq!(lost, ["10.0.0.1".parse::<IpAddr>().expect("address")]);
        assert!(sessions.by_address("10.0.0.1".parse().expect("address")).is_none());
        assert!(
            sessions.by_address("::ffff:10.0.0.3".parse().expect("address")).is_some(),
            "mapped is the same source"
        );
    }

    #[test]
    fn an_address_has_one_owner() {
        let sessions = Sessions::new(8);
        sessions.announce(announcement("a", &["10.0.0.1"]), true, 1).expect("new");
        let taken = sessions.announce(announcement("b", &["10.0.0.1"]), true, 1);
        assert!(matches!(taken, Err(AddError::AddressTaken { .. })), "{taken:?}");
        sessions.end(&SessionId::new("a").expect("id"));
        sessions.announce(announcement("b", &["10.0.0.1"]), true, 1).expect("free again");
    }

    #[test]
    fn an_announcement_takes_over_an_unannounced_source() {
        let sessions = Sessions::new(8);
        let address = "10.0.0.9".parse().expect("address");
        sessions.adopt(address, 1).expect("adopted");
        sessions.announce(announcement("a", &["10.0.0.9"]), true, 1).expect("announced");
        assert_eq!(sessions.by_address(address).expect("known").id().as_str(), "a");
        assert_eq!(sessions.len(), 1);
    }

    #[test]
    fn the_table_refuses_rather_than_forgets() {
        let sessions = Sessions::new(2);
        for n in 1..=2u8 {
            sessions.adopt(IpAddr::from([10, 0, 0, n]), 1).expect("fits");
        }
        assert_eq!(sessions.adopt(IpAddr::from([10, 0, 0, 3]), 1).expect_err("full"), AddError::Full(2));
        assert!(sessions.by_address(IpAddr::from([10, 0, 0, 1])).is_some());
    }

    #[test]
    fn one_ipv6_host_is_one_session() {
        let sessions = Sessions::new(8);
        for n in 0..100u128 {
            sessions.adopt(IpAddr::V6(Ipv6Addr::from_bits(0x2001_0db8_u128 << 96 | n)), 1).expect("adopted");
        }
        assert_eq!(sessions.len(), 1);
    }

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
    fn cohorts_are_spread_evenly() {
        let mut shares = [0u32; 100];
        for n in 0..100_000 {
            shares[cohort(&format!("session-{n}")) as usize] += 1;
        }
        assert!(shares.iter().all(|s| (700..1300).contains(s)), "{shares:?}");
    }
}
