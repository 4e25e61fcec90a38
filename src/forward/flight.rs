//! One flight per question: who asks what is being asked already shares its outcome.
//!
//! Identical questions in parallel would hand an off-path attacker as many chances per guess, and sessions could make
//! upstream traffic out of nothing. A flight that has landed with an answer is there until somebody says that it is kept
//! ([`Response::kept`](super::Response::kept)), so that between the exchange and the cache nobody finds neither.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};

use super::query::Ask;
use super::{Counters, ForwardError, Inner, Response, race};
use crate::partition::Partition;

/// How long a flight that has landed is there at most: nobody may have kept its answer.
const LANDED: Duration = Duration::from_millis(100);

type Outcome = Result<Arc<Response>, ForwardError>;

/// Name, type with DO and CD, and who shares the outcome.
type Key = (Box<[u8]>, u32, Partition);

/// An exchange under way, as somebody who waits for it holds it. Dropping it does not end the exchange.
#[derive(Debug, Clone)]
pub struct Flight {
    outcome: watch::Receiver<Option<Outcome>>,
    /// How much longer than the exchange its outcome is waited for, so that nobody notices that it was under way.
    late: Duration,
}

impl Flight {
    /// Its outcome.
    pub async fn landed(&mut self) -> Outcome {
        let landed = self.outcome.wait_for(Option::is_some).await.map_err(|_| ForwardError::Abandoned)?.clone();
        if !self.late.is_zero() {
            tokio::time::sleep(std::mem::take(&mut self.late)).await;
        }
        landed.unwrap_or(Err(ForwardError::Abandoned))
    }
}

/// Exchanges under way. Bounded by the forwarder's semaphore: a flight holds one permit from take-off to landing, and one
/// that has landed is gone within [`LANDED`].
#[derive(Default)]
pub(super) struct Flights {
    map: Mutex<HashMap<Key, (watch::Receiver<Option<Outcome>>, Instant), foldhash::quality::RandomState>>,
}

impl Flights {
    /// Waits for the flight that asks `ask`, starting it if there is none.
    pub(super) async fn join_or_start(&self, inner: &Arc<Inner>, ask: Ask) -> Outcome {
        self.board(inner, ask)?.landed().await
    }

    /// Takes a seat. Looking and starting happen under one lock, so that no two flights ask the same.
    pub(super) fn board(&self, inner: &Arc<Inner>, ask: Ask) -> Result<Flight, ForwardError> {
        let sharing = ask.sharing();
        let key: Key = (ask.qname().into(), ask.kind(), sharing.partition);
        let mut map = self.map.lock();
        if let Some((outcome, begun)) = map.get(&key) {
            Counters::add(&inner.counters.coalesced);
            let late = if sharing.private { begun.elapsed() } else { Duration::ZERO };
            return Ok(Flight { outcome: outcome.clone(), late });
        }
        let Ok(permit) = inner.exchanges.clone().try_acquire_owned() else {
            Counters::add(&inner.counters.busy);
            return Err(ForwardError::Busy);
        };
        let (tell, outcome) = watch::channel(None);
        let begun = Instant::now();
        map.insert(key.clone(), (outcome.clone(), begun));
        drop(map);
        let landing = Landing { inner: inner.clone(), key, is_over: AtomicBool::new(false), over: Notify::new() };
        tokio::spawn(async move {
            let landing = Arc::new(landing);
            let mut found = race::run(&landing.inner, ask).await;
            if let Ok(response) = &mut found {
                response.seat = Seat(Some(landing.clone()));
                response.took = begun.elapsed();
            }
            let is_answered = found.is_ok();
            // Told before the flight is gone: who comes in between still finds this outcome.
            let _ = tell.send(Some(found.map(Arc::new)));
            drop(permit);
            if is_answered {
                let _ = timeout(LANDED, landing.over.notified()).await;
            }
            landing.end();
        });
        Ok(Flight { outcome, late: Duration::ZERO })
    }

    /// Flights under way.
    pub(super) fn len(&self) -> usize {
        self.map.lock().len()
    }
}

/// Takes the flight off the map, once, however its task ends.
struct Landing {
    inner: Arc<Inner>,
    key: Key,
    is_over: AtomicBool,
    over: Notify,
}

impl Landing {
    fn end(&self) {
        if !self.is_over.swap(true, Ordering::Relaxed) {
            self.inner.flights.map.lock().remove(&self.key);
            self.over.notify_one();
        }
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.end();
    }
}

/// The flight that an answer came with.
#[derive(Clone, Default)]
pub(super) struct Seat(Option<Arc<Landing>>);

impl Seat {
    /// The answer is where others find it.
    pub(super) fn give_up(&self) {
        if let Some(landing) = &self.0 {
            landing.end();
        }
    }
}

/// It says nothing of an answer.
impl PartialEq for Seat {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Seat {}

impl fmt::Debug for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seat")
    }
}
