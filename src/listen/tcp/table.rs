//! Which connections there are, and which gives way to a new one.
//!
//! Pure bookkeeping given `now`; [`super`] holds the sockets. Connections are counted by [`Home`]: all addresses of a
//! session, all of an IPv6 /64, together. A home at its own limit can only displace connections of its own, and those whom
//! nobody announced, who have half of the table at most, only each other's. At the limit of all the connection that has
//! been idle longest gives way, whosever it is: a home can hold no more than its share of them, and a busy connection is
//! never cut. What filling the table gains an attacker with many addresses is that idle connections of others are closed,
//! which RFC 7766 section 6.2.3 asks every client to expect.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};

use super::guard::Progress;
use crate::listen::Home;

/// Queries a connection may have in the slow path at once; more wait unread (RFC 7766 section 6.2.1.1).
pub(super) const PIPELINE: usize = 16;

/// The connections of one listener, all addresses.
pub(in crate::listen) struct Table {
    total: usize,
    per_home: usize,
    /// Octets of replies that wait to be written, all connections.
    unsent: Arc<AtomicUsize>,
    // Held for one lookup or one scan of `total` entries; orders admission against release.
    seats: Mutex<Seats>,
}

#[derive(Default)]
struct Seats {
    next: u64,
    by_id: HashMap<u64, Arc<Connection>>,
    by_home: HashMap<IpAddr, usize>,
    strangers: usize,
}

/// What the table and a connection's task share.
pub(super) struct Connection {
    home: Home,
    /// When it last was admitted, sent a message or was sent what had waited, milliseconds of [`crate::model::Now::mono`].
    active: AtomicU64,
    /// One permit for each query that may be in the slow path.
    pub(super) turns: Arc<Semaphore>,
    /// What was read of it and what waits to be written.
    pub(super) progress: Arc<Progress>,
    /// Told once when the connection has to give way.
    pub(super) evict: Notify,
}

impl Connection {
    /// Notes that a message arrived, or that a reply which was owed is on its way.
    pub(super) fn touch(&self, now: u64) {
        self.active.store(now, Relaxed);
    }

    /// How long nothing was noted at `now` (milliseconds).
    pub(super) fn silent(&self, now: u64) -> Duration {
        Duration::from_millis(now.saturating_sub(self.active.load(Relaxed)))
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
        self.strangers -= usize::from(!connection.home.announced);
        if let Some(count) = self.by_home.get_mut(&connection.home.address) {
            *count -= 1;
            if *count == 0 {
                self.by_home.remove(&connection.home.address);
            }
        }
    }
}

impl Table {
    /// At most `total` connections, at most `per_home` of one home; 0 means 1.
    pub(in crate::listen) fn new(total: usize, per_home: usize) -> Arc<Self> {
        let (total, per_home) = (total.max(1), per_home.max(1));
        Arc::new(Self { total, per_home, unsent: Arc::default(), seats: Mutex::default() })
    }

    /// Whether seven eighths of the places are taken, so that connections had better end soon.
    pub(super) fn is_crowded(&self) -> bool {
        self.seats.lock().by_id.len() >= self.total - self.total / 8
    }

    /// Finds a place for a connection from `home` at `now` (milliseconds).
    pub(super) fn admit(self: &Arc<Self>, home: Home, now: u64) -> Admission {
        let mut seats = self.seats.lock();
        let own = seats.by_home.get(&home.address).copied().unwrap_or(0) >= self.per_home;
        let strangers = !home.announced && seats.strangers >= self.total.div_ceil(2);
        let evicts = own || strangers || seats.by_id.len() >= self.total;
        if evicts {
            let gives_way = |connection: &Connection| match (own, strangers) {
                (true, _) => connection.home.address == home.address,
                (false, true) => !connection.home.announced,
                (false, false) => true,
            };
            let oldest = seats
                .by_id
                .iter()
                .filter(|(_, c)| gives_way(c) && c.is_idle())
                .min_by_key(|(id, c)| (c.active.load(Relaxed), **id))
                .map(|(id, c)| (*id, Arc::clone(c)));
            let Some((id, connection)) = oldest else { return Admission::Full };
            seats.remove(id);
            connection.evict.notify_one();
        }
        let id = seats.next;
        seats.next += 1;
        let connection = Arc::new(Connection {
            home,
            active: AtomicU64::new(now),
            turns: Arc::new(Semaphore::new(PIPELINE)),
            progress: Progress::new(self.unsent.clone()),
            evict: Notify::new(),
        });
        seats.by_id.insert(id, Arc::clone(&connection));
        seats.strangers += usize::from(!home.announced);
        *seats.by_home.entry(home.address).or_insert(0) += 1;
        Admission::Seat(Seat { id, table: Arc::clone(self), connection }, evicts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> Home {
        Home { address: IpAddr::from([10, 0, 0, last]), announced: true }
    }

    fn stranger(last: u8) -> Home {
        Home { announced: false, ..ip(last) }
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
    fn strangers_have_half_and_displace_each_other() {
        let table = Table::new(4, 2);
        let (known, _) = seat(table.admit(ip(1), 0));
        let (first, _) = seat(table.admit(stranger(2), 1));
        let (_second, _) = seat(table.admit(stranger(3), 2));
        assert!(!table.is_crowded());
        let (_third, made_room) = seat(table.admit(stranger(4), 3));
        assert!(made_room && evicted(&first) && !evicted(&known));
        let (_more, made_room) = seat(table.admit(ip(5), 4));
        assert!(!made_room && table.is_crowded(), "the other half is for those that were announced");
    }

    #[test]
    fn counts_return_to_zero() {
        let table = Table::new(3, 2);
        let home = |i: u8| if i.is_multiple_of(2) { ip(i % 5) } else { stranger(i % 5) };
        let seats: Vec<_> = (0..50u8).map(|i| table.admit(home(i), u64::from(i))).collect();
        assert_eq!(table.seats.lock().by_id.len(), 3);
        assert!(table.seats.lock().by_home.values().all(|count| *count <= 2));
        drop(seats);
        let seats = table.seats.lock();
        assert!(seats.by_id.is_empty() && seats.by_home.is_empty() && seats.strangers == 0);
    }
}
