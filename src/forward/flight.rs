//! One flight per question: who asks what is being asked already shares its outcome.
//!
//! Identical questions in parallel would hand an off-path attacker as many chances per guess, and sessions could make
//! upstream traffic out of nothing. Whoever asks first leads: its own task does the exchange, and the flight is over when it
//! says that the answer is where others find it ([`Landed::kept`]), so that between the exchange and the cache nobody finds
//! neither. Where the leader goes away before, the exchange goes on in a task of its own.

use std::fmt;
use std::hash::BuildHasher;
use std::ops::Deref;
use std::pin::{Pin, pin};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use foldhash::quality::RandomState;
use hashbrown::HashTable;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::time::{Instant, sleep};

use super::query::Ask;
use super::{Counters, ForwardError, Inner, Response, race};

/// How long a flight that nobody leads any more is there behind its landing: nobody may have kept its answer.
const LANDED: Duration = Duration::from_millis(100);

type Outcome = Result<Arc<Response>, ForwardError>;

/// An exchange under way.
struct Flying {
    ask: Ask,
    begun: Instant,
    outcome: OnceLock<Outcome>,
    told: Notify,
    /// Whether a datagram came that does not fit.
    noise: AtomicBool,
}

/// An exchange under way, as somebody who waits for it holds it. Dropping it does not end the exchange.
#[derive(Clone)]
pub struct Flight {
    flying: Arc<Flying>,
    /// How much longer than the exchange its outcome is waited for, so that nobody notices that it was under way.
    late: Duration,
}

impl Flight {
    /// Its outcome.
    pub async fn landed(&self) -> Outcome {
        let told = self.flying.told.notified();
        let mut told = pin!(told);
        // From here on the word is not missed.
        told.as_mut().enable();
        if self.flying.outcome.get().is_none() {
            told.await;
        }
        if !self.late.is_zero() {
            Box::pin(sleep(self.late)).await;
        }
        self.flying.outcome.get().cloned().unwrap_or(Err(ForwardError::Abandoned))
    }
}

impl fmt::Debug for Flight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Flight")
    }
}

/// Exchanges under way. Bounded by the forwarder's semaphore: a flight holds one permit from take-off to landing, and one
/// that has landed is here as long as somebody is at work on its answer, or for [`LANDED`].
#[derive(Default)]
pub(super) struct Flights {
    table: Mutex<HashTable<Arc<Flying>>>,
    hasher: RandomState,
}

/// A place in a flight.
pub(super) enum Seat {
    /// Nobody asked before.
    Lead(Lead),
    /// Somebody did.
    Follow(Flight),
}

impl Seat {
    /// The flight, for somebody else to wait for.
    pub(super) fn flight(&self) -> Flight {
        match self {
            Self::Lead(lead) => Flight { flying: lead.landing.flying.clone(), late: Duration::ZERO },
            Self::Follow(flight) => flight.clone(),
        }
    }
}

impl Flights {
    /// Takes a seat. Looking and starting happen under one lock, so that no two flights ask the same.
    pub(super) fn board(&self, inner: &Arc<Inner>, ask: Ask) -> Result<Seat, ForwardError> {
        let hash = self.hash(&ask);
        let mut table = self.table.lock();
        if let Some(flying) = table.find(hash, |flying| flying.ask.is(&ask)) {
            Counters::add(&inner.counters.coalesced);
            let late = if ask.sharing().private { flying.begun.elapsed() } else { Duration::ZERO };
            return Ok(Seat::Follow(Flight { flying: flying.clone(), late }));
        }
        let Ok(permit) = inner.exchanges.clone().try_acquire_owned() else {
            Counters::add(&inner.counters.busy);
            return Err(ForwardError::Busy);
        };
        let noise = AtomicBool::new(false);
        let begun = Instant::now();
        let flying = Arc::new(Flying { ask, begun, outcome: OnceLock::new(), told: Notify::new(), noise });
        table.insert_unique(hash, flying.clone(), |flying| self.hash(&flying.ask));
        drop(table);
        Ok(Seat::Lead(Lead { landing: Landing { inner: inner.clone(), flying }, permit }))
    }

    /// Flights under way.
    pub(super) fn len(&self) -> usize {
        self.table.lock().len()
    }

    fn hash(&self, ask: &Ask) -> u64 {
        self.hasher.hash_one((ask.qname(), ask.kind(), ask.sharing().partition))
    }

    fn remove(&self, flying: &Arc<Flying>) {
        let mut table = self.table.lock();
        if let Ok(found) = table.find_entry(self.hash(&flying.ask), |other| Arc::ptr_eq(other, flying)) {
            found.remove();
        }
    }
}

/// Who has to do the exchange.
pub(super) struct Lead {
    landing: Landing,
    permit: OwnedSemaphorePermit,
}

impl Lead {
    /// Does the exchange. Dropping the future leaves the rest of it to a task.
    pub(super) async fn land(self) -> Result<Landed, ForwardError> {
        let (inner, flying) = (self.landing.inner.clone(), self.landing.flying.clone());
        let permit = self.permit;
        let race = Box::pin(async move {
            let _permit = permit;
            let mut outcome = race::run(&inner, &flying.ask, &flying.noise).await;
            if let Ok(response) = &mut outcome {
                response.took = flying.begun.elapsed();
            }
            outcome
        });
        let mut led = Led(Some((race, self.landing)));
        let outcome = match &mut led.0 {
            Some((race, _)) => race.as_mut().await,
            // It is taken below and in `drop` alone.
            None => Err(ForwardError::Abandoned),
        };
        let Some((_, landing)) = led.0.take() else { return Err(ForwardError::Abandoned) };
        match outcome {
            Ok(response) => {
                let response = Arc::new(response);
                landing.tell(Ok(response.clone()));
                Ok(Landed { response, _landing: Some(landing) })
            }
            Err(error) => {
                landing.tell(Err(error.clone()));
                Err(error)
            }
        }
    }
}

type Race = Pin<Box<dyn Future<Output = Result<Response, ForwardError>> + Send>>;

/// An exchange that its leader does.
struct Led(Option<(Race, Landing)>);

impl Drop for Led {
    fn drop(&mut self) {
        let Some((race, landing)) = self.0.take() else { return };
        // One that has panicked cannot go on, and whoever waits learns it from the landing's end.
        if let Ok(runtime) = Handle::try_current()
            && !std::thread::panicking()
        {
            runtime.spawn(async move {
                let outcome = race.await.map(Arc::new);
                let is_answered = outcome.is_ok();
                landing.tell(outcome);
                if is_answered {
                    sleep(LANDED).await;
                }
            });
        }
    }
}

/// Takes the flight off the table, however it ends.
struct Landing {
    inner: Arc<Inner>,
    flying: Arc<Flying>,
}

impl Landing {
    /// Tells whoever waits; what was told first holds.
    fn tell(&self, outcome: Outcome) {
        let _ = self.flying.outcome.set(outcome);
        self.flying.told.notify_waiters();
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        // Off the table first: who comes from now on begins anew.
        self.inner.flights.remove(&self.flying);
        if self.flying.outcome.get().is_none() {
            self.tell(Err(ForwardError::Abandoned));
        }
    }
}

/// An upstream's answer and, for who led the exchange, the flight, which is there until this is dropped.
pub struct Landed {
    response: Arc<Response>,
    _landing: Option<Landing>,
}

impl Landed {
    /// Says that the answer is where others find it: who asks the same from now on and does not find it there starts an
    /// exchange. Until then, whoever asks is handed it.
    pub fn kept(self) {}

    /// The answer itself, for somebody else.
    pub fn response(&self) -> Arc<Response> {
        self.response.clone()
    }
}

impl Deref for Landed {
    type Target = Response;

    fn deref(&self) -> &Response {
        &self.response
    }
}

impl From<Arc<Response>> for Landed {
    fn from(response: Arc<Response>) -> Self {
        Self { response, _landing: None }
    }
}

impl fmt::Debug for Landed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.response.fmt(f)
    }
}
