//! One flight per question: who asks what is being asked already shares its outcome.
//!
//! Identical questions in parallel would hand an off-path attacker as many chances per guess, and sessions could make
//! upstream traffic out of nothing.

use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::query::Ask;
use super::{Counters, ForwardError, Inner, Response, race};

type Outcome = Result<Arc<Response>, ForwardError>;

/// Name, and type with DO and CD.
type Key = (Box<[u8]>, u32);

/// An exchange under way, as somebody who waits for it holds it. Dropping it does not end the exchange.
#[derive(Debug, Clone)]
pub struct Flight(watch::Receiver<Option<Outcome>>);

impl Flight {
    /// Its outcome.
    pub async fn landed(&mut self) -> Outcome {
        let landed = self.0.wait_for(Option::is_some).await.map_err(|_| ForwardError::Abandoned)?;
        landed.clone().unwrap_or(Err(ForwardError::Abandoned))
    }
}

/// Exchanges under way. Bounded by the forwarder's semaphore: a flight holds one permit from take-off to landing.
#[derive(Default)]
pub(super) struct Flights {
    map: Mutex<HashMap<Key, watch::Receiver<Option<Outcome>>, foldhash::quality::RandomState>>,
}

impl Flights {
    /// Waits for the flight that asks `ask`, starting it if there is none.
    pub(super) async fn join_or_start(&self, inner: &Arc<Inner>, ask: Ask) -> Outcome {
        self.board(inner, ask)?.landed().await
    }

    /// Takes a seat. Looking and starting happen under one lock, so that no two flights ask the same.
    pub(super) fn board(&self, inner: &Arc<Inner>, ask: Ask) -> Result<Flight, ForwardError> {
        let key: Key = (ask.qname().into(), ask.kind());
        let mut map = self.map.lock();
        if let Some(flight) = map.get(&key) {
            Counters::add(&inner.counters.coalesced);
            return Ok(Flight(flight.clone()));
        }
        let Ok(permit) = inner.exchanges.clone().try_acquire_owned() else {
            Counters::add(&inner.counters.busy);
            return Err(ForwardError::Busy);
        };
        let (tell, outcome) = watch::channel(None);
        map.insert(key.clone(), outcome.clone());
        drop(map);
        let landing = Landing { inner: inner.clone(), key };
        tokio::spawn(async move {
            let found = race::run(&landing.inner, ask).await.map(Arc::new);
            // Told before the seat is given up: who comes in between still finds this outcome.
            let _ = tell.send(Some(found));
            drop(landing);
            drop(permit);
        });
        Ok(Flight(outcome))
    }

    /// Flights under way.
    pub(super) fn len(&self) -> usize {
        self.map.lock().len()
    }
}

/// Takes the flight off the map however its task ends.
struct Landing {
    inner: Arc<Inner>,
    key: Key,
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.inner.flights.map.lock().remove(&self.key);
    }
}
