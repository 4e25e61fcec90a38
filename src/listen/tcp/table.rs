//! Which connections there are, and which gives way to a new one.
//!
//! Pure bookkeeping given `now`; [`super`] holds the sockets. A source at its own limit can only displace connections
//! of its own. At the limit of all sources the connection that has been idle longest gives way, whosever it is: a
//! source can hold no more than its share of them, and a busy connection is never cut. What filling the table gains an
//! attacker with many addresses is that idle connections of others are closed, which RFC 7766 section 6.2.3 asks every
//! client to expect.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};

/// Queries a connection may have in the slow path at once; more wait unread (RFC 7766 section 6.2.1.1).
pub(super) const PIPELINE: usize = 16;

/// The connections of one listener, all addresses.
pub(in crate::listen) struct Table {
    total: usize,
    per_source: usize,
    // Held for one lookup or one scan of `total` entries; orders admission against release.
    seats: Mutex<Seats>,
}

#[derive(Default)]
struct Seats {
    next: u64,
    by_id: HashMap<u64, Arc<Connection>>,
    by_source: HashMap<IpAddr, usize>,
}

/// What the table and a connection's task share.
pub(super) struct Connection {
    source: IpAddr,
    /// When it last was admitted or sent a message, milliseconds of [`crate::model::Now::mono`].
    active: AtomicU64,
    /// One permit for each query that may be in the slow path.
    pub(super) turns: Arc<Semaphore>,
    /// Told once when the connection has to give way.
    pub(super) evict: Notify,
}

impl Connection {
    /// Notes that a message arrived.
    pub(super) fn touch(&self, now: u64) {
        self.active.store(now, Relaxed);
    }

    /// Whether no query is in the slow path.
    pub(super) fn is_idle(&self) -> bool {
        self.turns.available_permits() == PIPELINE
    }
}

/// Outcome of [`Table::admit`].
pub(super) enum Admission {
    /// Welcome; true if another connection had to give way.
    Seat(Seat, bool),
    /// No room: every connection that could give way is busy.
    Full,
}

/// A place in the table, given back when dropped.
pub(super) struct Seat {
    id: u64,
    table: Arc<Table>,
    pub(super) connection: Arc<Connection>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.table.seats.lock().remove(self.id);
    }
}

impl Seats {
    fn remove(&mut self, id: u64) {
        let Some(connection) = self.by_id.remove(&id) else { return };
        if let Some(count) = self.by_source.get_mut(&connection.source) {
            *count -= 1;
            if *count == 0 {
                self.by_source.remove(&connection.source);
            }
        }
    }
}

impl Table {
    /// At most `total` connections, at most `per_source` from one address; 0 means 1.
    pub(in crate::listen) fn new(total: usize, per_source: usize) -> Arc<Self> {
        Arc::new(Self { total: total.max(1), per_source: per_source.max(1), seats: Mutex::default() })
    }

    /// Finds a place for a connection from `source` at `now` (milliseconds).
    pub(super) fn admit(self: &Arc<Self>, source: IpAddr, now: u64) -> Admission {
        let mut seats = self.seats.lock();
        let own = seats.by_source.get(&source).copied().unwrap_or(0);
        let own_limit = own >= self.per_source;
        let evicts = own_limit || seats.by_id.len() >= self.total;
        if evicts {
            let oldest = seats
                .by_id
                .iter()
                .filter(|(_, c)| (!own_limit || c.source == source) && c.is_idle())
                .min_by_key(|(id, c)| (c.active.load(Relaxed), **id))
                .map(|(id, c)| (*id, Arc::clone(c)));
            let Some((id, connection)) = oldest else { return Admission::Full };
            seats.remove(id);
            connection.evict.notify_one();
        }
        let id = seats.next;
        seats.next += 1;
        let connection = Arc::new(Connection {
            source,
            active: AtomicU64::new(now),
            turns: Arc::new(Semaphore::new(PIPELINE)),
            evict: Notify::new(),
        });
        seats.by_id.insert(id, Arc::clone(&connection));
        *seats.by_source.entry(source).or_insert(0) += 1;
        Admission::Seat(Seat { id, table: Arc::clone(self), connection }, evicts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    fn seat(admission: Admission) -> (Seat, bool) {
        match admission {
            Admission::Seat(seat, evicted) => (seat, evicted),
            Admission::Full => panic!("full"),
        }
    }

    /// Whether this connection was told to give way.
    fn evicted(seat: &Seat) -> bool {
        !seat.table.seats.lock().by_id.contains_key(&seat.id)
    }

    #[test]
    fn a_source_displaces_only_its_own() {
        let table = Table::new(100, 2);
        let (other, _) = seat(table.admit(ip(9), 0));
        let (first, _) = seat(table.admit(ip(1), 10));
        let (second, _) = seat(table.admit(ip(1), 20));
        first.connection.touch(30);
        let (third, made_room) = seat(table.admit(ip(1), 40));
        assert!(made_room && evicted(&second), "idle for longest, of the same source");
        assert!(!evicted(&first) && !evicted(&other) && !evicted(&third));
    }

    #[test]
    fn busy_connections_stay() {
        let table = Table::new(2, 2);
        let (a, _) = seat(table.admit(ip(1), 0));
        let (b, _) = seat(table.admit(ip(2), 1));
        let turn = a.connection.turns.clone().try_acquire_owned().expect("a turn");
        let (c, made_room) = seat(table.admit(ip(3), 2));
        assert!(made_room && evicted(&b) && !evicted(&a));
        let _busy = c.connection.turns.clone().try_acquire_owned().expect("a turn");
        assert!(matches!(table.admit(ip(4), 3), Admission::Full));
        drop(turn);
        assert!(matches!(table.admit(ip(4), 3), Admission::Seat(_, true)));
    }

    #[test]
    fn counts_return_to_zero() {
        let table = Table::new(3, 2);
        let seats: Vec<_> = (0..50u8).map(|i| table.admit(ip(i % 5), u64::from(i))).collect();
        assert_eq!(table.seats.lock().by_id.len(), 3);
        assert!(table.seats.lock().by_source.values().all(|count| *count <= 2));
        drop(seats);
        let seats = table.seats.lock();
        assert!(seats.by_id.is_empty() && seats.by_source.is_empty());
    }
}
