//! Questions that are asked again while the same question is on its way.
//!
//! A question pays for what its leaving tells. Of several at one time that ask the same and share the answer one leaves, so
//! one pays: it is on a *trip* from the moment its charge is booked until it is answered, whatever it waits for meanwhile.
//! Whoever asks the same comes along: judged as if the answer were at hand, nothing booked; and when the trip is over,
//! walked anew, as a question that has waited for its domain's age is. Then the answer is at hand, or, where it could not be
//! kept, what the trip brought is taken in its place, a failure too. Nobody who came along leaves on what it has not paid: where a
//! trip ends without a word (its session was closed, its connection has ended), the question is judged as any other.
//!
//! Coming along shows nothing outside, and no more inside than a full cache does. With `private_timing` a session meets its
//! own trips alone, and what it came along with is over when its own first question is, whether that left, joined the exchange
//! of another session, or waited for as long as that one took.

use std::pin::{Pin, pin};
use std::sync::{Arc, OnceLock};

use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Duration, timeout_at};

use super::{Pipeline, Walk, decoy};
use crate::clock;
use crate::forward::{ForwardError, Landed, Response};
use crate::listen::Fast;
use crate::wire::Query;

/// Most trips at once; each is a question that waits, and of these there are fewer. At the limit nobody can come along.
const TRIPS: usize = 1 << 16;
/// How often a question comes along before it goes by itself, where trips end without a word.
const TRIES: u8 = 3;
/// How much longer than its own exchange could take a question waits: whoever asked before it is through by then.
const SLACK: Duration = Duration::from_millis(500);

/// What an upstream was heard to say, or why nothing was.
pub(super) type Heard = Result<Arc<Response>, ForwardError>;

/// A question on its way.
#[derive(Default)]
pub(super) struct Trip {
    /// Set when it is over: what was heard, if anything.
    over: OnceLock<Option<Heard>>,
    told: Notify,
}

impl Trip {
    async fn ended(&self) -> Option<Heard> {
        let mut told = pin!(self.told.notified());
        // From here on the word is not missed.
        told.as_mut().enable();
        if self.over.get().is_none() {
            told.await;
        }
        self.over.get().cloned().flatten()
    }
}

/// Trips by hashes of their questions, and of whose answers they share.
#[derive(Default)]
pub(super) struct Rides(Mutex<HashMap<u64, Arc<Trip>, foldhash::quality::RandomState>>);

impl Rides {
    /// Begins a trip; nothing where the same question is on one. `whole`: it goes on until all is done, and not only until
    /// there is an answer.
    pub(super) fn begin(self: &Arc<Self>, question: u64, whole: bool) -> Option<Fare> {
        self.begin_or_join(question, whole, 0).ok().flatten()
    }

    /// Begins a trip, or gives the one that the same question is on by now, for whom may come along `tries` times. Nothing where
    /// there are too many.
    pub(super) fn begin_or_join(
        self: &Arc<Self>,
        question: u64,
        whole: bool,
        tries: u8,
    ) -> Result<Option<Fare>, Along> {
        let mut trips = self.0.lock();
        if let Some(trip) = trips.get(&question) {
            let along = |tries| Along { trip: trip.clone(), question, tries, again: None };
            return tries.checked_sub(1).map_or(Ok(None), |tries| Err(along(tries)));
        }
        if trips.len() >= TRIPS {
            return Ok(None);
        }
        let trip = Arc::<Trip>::default();
        trips.insert(question, trip.clone());
        Ok(Some(Fare { rides: self.clone(), question, whole, trip, heard: OnceLock::new() }))
    }

    fn find(&self, question: u64) -> Option<Arc<Trip>> {
        self.0.lock().get(&question).cloned()
    }
}

/// Held by who is on a trip, which ends with it.
pub(super) struct Fare {
    rides: Arc<Rides>,
    question: u64,
    /// Whether the trip goes on until all is done: what its session may notice, what the answer has to be checked for.
    whole: bool,
    trip: Arc<Trip>,
    heard: OnceLock<Heard>,
}

impl Fare {
    /// Tells whoever came along what was heard; what was told first holds.
    pub(super) fn tell(&self, outcome: &Result<Landed, ForwardError>) {
        let _ = self.heard.set(outcome.as_ref().map(Landed::response).map_err(Clone::clone));
        if !self.whole {
            self.end();
        }
    }

    fn end(&self) {
        let _ = self.trip.over.set(self.heard.get().cloned());
        self.trip.told.notify_waiters();
    }
}

impl Drop for Fare {
    fn drop(&mut self) {
        // Off the table first: who comes from now on begins anew.
        self.rides.0.lock().remove(&self.question);
        self.end();
    }
}

/// How a question of the walk stands to others on their way.
pub(super) enum Ride {
    /// It may come along, so many times.
    May(u8),
    /// It is asked on behalf of a question that may be on a trip itself, and waits for none.
    Never,
    /// It came along with this question, and this was heard.
    Over(u64, Heard),
}

impl Ride {
    /// For a question that was not walked before.
    pub(super) const FIRST: Self = Self::May(TRIES);

    /// How often it may come along yet.
    pub(super) fn tries(&self) -> u8 {
        match self {
            Self::May(tries) => *tries,
            Self::Never | Self::Over(..) => 0,
        }
    }

    /// What was heard of `question`, or the trip to wait for.
    pub(super) fn with(self, rides: &Rides, question: u64) -> (Option<Heard>, Option<Along>) {
        match self {
            Self::Over(of, heard) if of == question => (Some(heard), None),
            Self::May(tries @ 1..) => {
                let along = |trip| Along { trip, question, tries: tries - 1, again: None };
                (None, rides.find(question).map(along))
            }
            Self::May(_) | Self::Never | Self::Over(..) => (None, None),
        }
    }
}

/// A question that came along.
pub(super) struct Along {
    trip: Arc<Trip>,
    question: u64,
    tries: u8,
    again: Option<decoy::Again>,
}

impl Along {
    /// With what became of its first walk.
    pub(super) fn after(self, again: Option<decoy::Again>) -> Box<Self> {
        Box::new(Self { again, ..self })
    }
}

impl Pipeline {
    /// Waits until the trip is over, then walks the question anew.
    pub(super) fn come_along<'p>(
        &'p self,
        walk: Box<Walk>,
        query: &'p Query<'_>,
        packet: &'p [u8],
        along: Box<Along>,
    ) -> Pin<Box<dyn Future<Output = Option<Vec<u8>>> + Send + 'p>> {
        Box::pin(async move {
            let Along { trip, question, tries, again } = *along;
            self.forwarder.counters().joined();
            let until = walk.led.until().unwrap_or_else(|| self.patience(&walk) + SLACK);
            let ride = match timeout_at(until, trip.ended()).await {
                Ok(Some(heard)) => Ride::Over(question, heard),
                Ok(None) => Ride::May(tries),
                Err(_) => Ride::Over(question, Err(ForwardError::Late(Vec::new()))),
            };
            drop(trip);
            let (from, transport, now) = (walk.from, walk.transport, clock::now());
            let (waited, led) = (Some(walk.started), walk.led);
            let mut out = Vec::with_capacity(512);
            match self.walk(query, packet, from, transport, now, waited, &mut out, again, led, ride) {
                Fast::Reply => Some(out),
                Fast::Drop => None,
                Fast::Deferred(deferred) => self.complete(deferred).await,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed() -> Result<Landed, ForwardError> {
        Err(ForwardError::Busy)
    }

    fn ended(trip: &Trip) -> Option<Option<Heard>> {
        trip.over.get().cloned()
    }

    #[test]
    fn a_trip_is_met_by_its_question_alone_and_for_as_long_as_it_lasts() {
        let rides = Arc::<Rides>::default();
        let met = |question| Ride::FIRST.with(&rides, question).1.map(|along| along.trip);
        let fare = rides.begin(1, false).expect("a trip");
        assert!(rides.begin(1, false).is_none(), "once");
        let later = |tries| rides.begin_or_join(1, false, tries).err().map(|along| along.tries);
        assert_eq!((later(2), later(0)), (Some(1), None), "who finds it begun comes along, but not for ever");
        let (trip, other) = (met(1).expect("a trip"), met(2));
        assert!(other.is_none() && ended(&trip).is_none());
        fare.tell(&failed());
        assert_eq!(ended(&trip), Some(Some(Err(ForwardError::Busy))), "at once");
        assert!(met(1).is_some(), "until whoever heard it has kept it");
        drop(fare);
        assert!(met(1).is_none() && rides.0.lock().is_empty());
    }

    #[test]
    fn a_private_trip_is_over_when_all_is_done() {
        let rides = Arc::<Rides>::default();
        let fare = rides.begin(1, true).expect("a trip");
        let trip = rides.find(1).expect("a trip");
        fare.tell(&failed());
        assert!(ended(&trip).is_none());
        drop(fare);
        assert_eq!(ended(&trip), Some(Some(Err(ForwardError::Busy))));
    }

    #[test]
    fn who_came_along_leaves_by_nothing_but_a_verdict_of_its_own() {
        let rides = Arc::<Rides>::default();
        let fare = rides.begin(1, false).expect("a trip");
        let trip = rides.find(1).expect("a trip");
        drop(fare);
        assert_eq!(ended(&trip), Some(None), "without a word");
        let _next = rides.begin(1, false).expect("a trip");
        assert!(Ride::May(0).with(&rides, 1).1.is_none(), "not for ever");
        assert!(Ride::Never.with(&rides, 1).1.is_none());
        let (heard, along) = Ride::Over(1, Err(ForwardError::Busy)).with(&rides, 1);
        assert!(heard.is_some() && along.is_none());
        let (heard, along) = Ride::Over(2, Err(ForwardError::Busy)).with(&rides, 1);
        assert!(heard.is_none() && along.is_none(), "of another question, or of another partition since a reload");
    }

    #[test]
    fn a_full_table_takes_no_more() {
        let rides = Arc::<Rides>::default();
        let held: Vec<_> = (0..TRIPS as u64).map(|question| rides.begin(question, false)).collect();
        assert!(held.iter().all(Option::is_some) && rides.begin(u64::MAX, false).is_none());
        drop(held);
        assert!(rides.begin(u64::MAX, false).is_some());
    }
}
