//! The table of all sessions, by address and by name.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use foldhash::quality::RandomState;
use hashbrown::HashMap;
use parking_lot::RwLock;

use super::{Context, Session};
use crate::model::{Announcement, SessionId, SessionType};

/// Parts of the address table, so that workers seldom meet at one lock.
const SHARDS: usize = 64;

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
    /// Such an id stands for a source that nobody announced.
    #[error("session id `{0}` stands for a source that nobody announced; choose another")]
    Reserved(SessionId),
    /// No address was given.
    #[error("a session needs at least one address")]
    NoAddress,
    /// The table is full.
    #[error("{0} sessions are known, no more fit; end some or raise limits.sessions")]
    Full(usize),
}

/// What an announcement has changed.
#[derive(Debug, Clone, Default)]
pub struct Announced {
    /// Addresses that no longer belong to the session.
    pub lost: Vec<IpAddr>,
    /// Sessions that nobody announced, in whose place it is by now: they are in the table no more.
    pub displaced: Vec<Arc<Session>>,
    /// Whether the session has an address that it did not have.
    pub gained: bool,
}

/// Whether there has to be room for a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Room {
    Limited,
    /// It was kept for it: what the configuration names and the journal has closed are bounded themselves.
    Kept,
}

/// All sessions, by address and by name.
///
/// Capacity: `limit` sessions, and at a start those besides that are closed. At the limit new ones are refused rather than
/// old ones forgotten: forgetting one would refill its ledger.
#[derive(Debug)]
pub struct Sessions {
    hasher: RandomState,
    by_address: [RwLock<HashMap<IpAddr, Arc<Session>, RandomState>>; SHARDS],
    by_id: RwLock<HashMap<SessionId, Arc<Session>, RandomState>>,
    count: AtomicUsize,
    unannounced: AtomicUsize,
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
            unannounced: AtomicUsize::new(0),
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

    /// All of them, in no order.
    pub fn all(&self) -> Vec<Arc<Session>> {
        self.by_id.read().values().cloned().collect()
    }

    /// All of them, by name.
    pub fn by_name(&self) -> Vec<Arc<Session>> {
        let mut all = self.all();
        all.sort_by(|a, b| a.id.cmp(&b.id));
        all
    }

    /// Adds a session, or gives a known one its new context (addresses may come and go; score and ledger stay).
    /// Returns the session and what has changed.
    pub fn announce(
        &self,
        announcement: Announcement,
        announced: bool,
        seed: u64,
    ) -> Result<(Arc<Session>, Announced), AddError> {
        self.put(announcement, announced, seed, Room::Limited)
    }

    /// The same at a start, for what must be there whatever else is: a session that is configured or closed. So no lower limit
    /// opens one that was closed.
    pub fn place(&self, announcement: Announcement, seed: u64) -> Result<Arc<Session>, AddError> {
        self.put(announcement, true, seed, Room::Kept).map(|(session, _)| session)
    }

    fn put(
        &self,
        announcement: Announcement,
        announced: bool,
        seed: u64,
        room: Room,
    ) -> Result<(Arc<Session>, Announced), AddError> {
        if announced && announcement.id.is_reserved() {
            return Err(AddError::Reserved(announcement.id));
        }
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
        let mut displaced: Vec<Arc<Session>> = Vec::new();
        for address in &announcement.addresses {
            let Some(owner) = self.by_address(*address).filter(|owner| owner.id != announcement.id) else { continue };
            // A source that spoke before it was announced becomes the announced session, unless it was closed: that
            // ends by a release and by nothing else.
            let displaceable = announced
                && !owner.context().announced
                && owner.inner.lock().quarantine.as_ref().is_none_or(|it| !it.applied);
            if !displaceable {
                return Err(AddError::AddressTaken { address: *address, owner: owner.id.clone() });
            }
            displaced.push(owner);
        }
        let known = by_id.get(&announcement.id).cloned();
        if known.is_none() && displaced.is_empty() && room == Room::Limited && self.is_full(announced) {
            return Err(AddError::Full(self.limit));
        }
        let mut changed = Announced::default();
        for owner in &displaced {
            self.detach(&mut by_id, owner);
        }
        changed.displaced = displaced;
        let session = match known {
            Some(session) => {
                let before = session.context();
                for address in &before.announcement.addresses {
                    if !announcement.addresses.contains(address) {
                        self.shard(address).write().remove(address);
                        changed.lost.push(*address);
                    }
                }
                let is_new = |address: &&IpAddr| !before.announcement.addresses.contains(address);
                changed.gained = announcement.addresses.iter().find(is_new).is_some();
                *session.context.write() = Arc::new(Context::new(announcement.clone(), announced));
                session.inner.raise();
                session
            }
            None => {
                let session = Arc::new(Session::new(Context::new(announcement.clone(), announced), seed));
                by_id.insert(session.id.clone(), session.clone());
                self.count.fetch_add(1, Ordering::Relaxed);
                self.unannounced.fetch_add(usize::from(!announced), Ordering::Relaxed);
                changed.gained = true;
                session
            }
        };
        for address in announcement.addresses {
            self.shard(&address).write().insert(address, session.clone());
        }
        Ok((session, changed))
    }

    /// Whether one more would not fit. Sources nobody announced get half of the table at most, so that they cannot keep
    /// an announced session out.
    fn is_full(&self, announced: bool) -> bool {
        let unannounced = self.unannounced.load(Ordering::Relaxed);
        self.len() >= self.limit || (!announced && unannounced >= self.limit.div_ceil(2))
    }

    /// A session for a source nobody announced. All addresses of one IPv6 /64 share a session, since one host can use
    /// any of them; sixteen of them are served, more than a host needs, fewer than it could make up.
    pub fn adopt(&self, address: IpAddr, seed: u64) -> Result<(Arc<Session>, Announced), AddError> {
        self.adopt_into(address, seed, Room::Limited)
    }

    /// The same at a start, for a source that is closed, as [`Sessions::place`].
    pub fn place_source(&self, address: IpAddr, seed: u64) -> Result<Arc<Session>, AddError> {
        self.adopt_into(address, seed, Room::Kept).map(|(session, _)| session)
    }

    fn adopt_into(&self, address: IpAddr, seed: u64, room: Room) -> Result<(Arc<Session>, Announced), AddError> {
        const ADDRESSES: usize = 16;
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
        // The network's own, by which a restart knows it, takes nobody's place.
        if addresses.iter().filter(|known| **known != home).count() >= ADDRESSES {
            return Err(AddError::Full(ADDRESSES));
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
        self.put(announcement, false, seed, room)
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
            self.unannounced.fetch_sub(usize::from(!session.context().announced), Ordering::Relaxed);
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
        assert_eq!(lost.lost, ["10.0.0.1".parse::<IpAddr>().expect("address")]);
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
    fn no_announcement_uses_the_id_of_a_source_that_nobody_announced() {
        let sessions = Sessions::new(8);
        for id in ["unannounced:10.0.0.9", "unknown"] {
            let taken = sessions.announce(announcement(id, &["10.0.0.8"]), true, 1);
            assert!(matches!(taken, Err(AddError::Reserved(_))), "{taken:?}");
        }
        sessions.adopt("10.0.0.9".parse().expect("address"), 1).expect("the source itself");
    }

    #[test]
    fn a_closed_source_is_not_opened_by_announcing_it() {
        let sessions = Sessions::new(8);
        let (adopted, _) = sessions.adopt("10.0.0.9".parse().expect("address"), 1).expect("adopted");
        adopted.inner.lock().quarantine = Some(crate::session::Quarantine {
            case: crate::model::CaseId::from_random(1),
            reason: crate::model::Reason::Score,
            by: "staunch".into(),
            note: String::new(),
            since: 0,
            applied: true,
            recorded: false,
        });
        let taken = sessions.announce(announcement("a", &["10.0.0.8", "10.0.0.9"]), true, 1);
        assert!(matches!(taken, Err(AddError::AddressTaken { .. })), "{taken:?}");
        assert!(sessions.by_address("10.0.0.8".parse().expect("address")).is_none(), "nothing was changed");
        // What would be closed, were it enforced, is not.
        adopted.inner.lock().quarantine.as_mut().expect("set above").applied = false;
        sessions.announce(announcement("a", &["10.0.0.8", "10.0.0.9"]), true, 1).expect("announced");
    }

    #[test]
    fn the_table_refuses_rather_than_forgets() {
        let sessions = Sessions::new(2);
        sessions.adopt(IpAddr::from([10, 0, 0, 1]), 1).expect("fits");
        assert_eq!(sessions.adopt(IpAddr::from([10, 0, 0, 2]), 1).expect_err("half"), AddError::Full(2));
        sessions.announce(announcement("a", &["10.0.0.3"]), true, 1).expect("announced ones have the other half");
        assert_eq!(sessions.announce(announcement("b", &["10.0.0.4"]), true, 1).expect_err("full"), AddError::Full(2));
        assert!(sessions.by_address(IpAddr::from([10, 0, 0, 1])).is_some());
        // What must be there is.
        sessions.place_source(IpAddr::from([10, 0, 0, 2]), 1).expect("closed before");
        sessions.place(announcement("b", &["10.0.0.4"]), 1).expect("configured");
        assert_eq!(sessions.adopt(IpAddr::from([10, 0, 0, 5]), 1).expect_err("full"), AddError::Full(2));
    }

    #[test]
    fn one_ipv6_host_is_one_session() {
        let sessions = Sessions::new(8);
        let adopted = (1..100u128)
            .filter(|n| sessions.adopt(IpAddr::V6(Ipv6Addr::from_bits(0x2001_0db8_u128 << 96 | n)), 1).is_ok());
        assert_eq!(adopted.count(), 16, "the addresses that are served");
        let network = IpAddr::V6(Ipv6Addr::from_bits(0x2001_0db8_u128 << 96));
        assert_eq!(sessions.adopt(network, 1).expect_err("no room"), AddError::Full(16));
        assert_eq!(sessions.len(), 1);
        // As a restart knows it by its id, ahead of its addresses.
        let sessions = Sessions::new(8);
        let adopted = (0..100u128)
            .filter(|n| sessions.adopt(IpAddr::V6(Ipv6Addr::from_bits(0x2001_0db8_u128 << 96 | n)), 1).is_ok());
        assert_eq!(adopted.count(), 17, "the network's own takes nobody's place");
    }
}
