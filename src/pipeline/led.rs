//! Questions that something other than a client asks: an alias of a zone, of a policy zone, or across a border has led to them.
//!
//! Each goes the whole walk by itself, for the same session, and none has time of its own: the client has asked once, and waits
//! as long as for any question. What was cut short by that says nothing of the name, so no failure is kept, and nobody hears of
//! it who came along and has time left.

use std::future::Future;
use std::pin::Pin;
use std::time::Instant as Moment;

use tokio::time::{Instant, timeout_at};

use super::rides::Ride;
use super::{Pipeline, Walk};
use crate::clock;
use crate::listen::Fast;
use crate::model::{Ede, Transport};
use crate::reply;
use crate::wire::{self, Parsed};

/// What is said where the time was up before the last name was answered for.
const TOO_LATE: &str = "its aliases took all the time that there was";

/// What has led to a question that is not a client's own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Led {
    /// A policy zone, so that none is asked.
    pub(super) aliased: bool,
    /// Aliases into zones with upstreams of their own, so many.
    pub(super) borders: u8,
    /// How long the client's own question lasts.
    pub(super) lasts: Option<Lasts>,
    /// How that came, where this one is answered as if it came another way.
    pub(super) over: Option<Transport>,
}

impl Led {
    /// Whether the time of the client's own question is up.
    pub(super) fn is_over(&self) -> bool {
        self.lasts.is_some_and(|lasts| Instant::now() >= lasts.until)
    }

    /// When it is; never for a question that nothing has led to.
    pub(super) fn until(&self) -> Option<Instant> {
        self.lasts.map(|lasts| lasts.until)
    }

    /// Waits for `wait`, or until the time is up.
    pub(super) async fn within(&self, wait: impl Future<Output = ()>) {
        match self.until() {
            // Whoever asks next sees that it is.
            Some(until) => drop(timeout_at(until, wait).await),
            None => wait.await,
        }
    }
}

/// How long a client's question lasts, with all that it leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lasts {
    pub(super) from: Moment,
    pub(super) until: Instant,
}

impl Pipeline {
    /// How long a question lasts that began at `started`, or what has led to it.
    pub(super) fn lasts(&self, led: Led, started: Moment) -> Lasts {
        let until = Instant::from_std(started) + self.forwarder.total_timeout();
        led.lasts.unwrap_or(Lasts { from: started, until })
    }

    /// Leaves a question that has waited for its domain's age half of an exchange's time, with all that it leads to.
    pub(super) fn prolong(&self, walk: &mut Walk) {
        if walk.led.until().is_none() {
            walk.lasts.until = walk.lasts.until.max(Instant::now() + self.forwarder.total_timeout() / 2);
        }
    }

    /// Until when an upstream is awaited: siblings and random waits are within the time of an exchange, of which half is
    /// left in any case (for a name that waited for its domain's age), but for names that something has led to.
    pub(super) fn patience(&self, walk: &Walk) -> Instant {
        let total = self.forwarder.total_timeout();
        let own = (Instant::from_std(walk.started) + total).max(Instant::now() + total / 2);
        walk.led.until().map_or(own, |until| own.min(until))
    }

    /// Whether a question that something has led to may come along with the same one on its way. What led here may be on a trip
    /// that ends with the session's own question, and must not wait for its own end.
    pub(super) fn ride_of(&self, led: Led) -> Ride {
        let live = self.live.load();
        let is_own = Led { lasts: None, over: None, ..led } == Led::default();
        let may_wait_for_itself = !is_own && (live.sharing.private || live.validator.is_some());
        if may_wait_for_itself { Ride::Never } else { Ride::FIRST }
    }

    /// The whole walk of a question that `walk` has led to, for the same session, as if it came over `transport`. Nothing,
    /// where nothing is to be said.
    pub(super) fn walk_led<'p>(
        &'p self,
        walk: &'p Walk,
        packet: &'p [u8],
        transport: Transport,
        led: Led,
    ) -> Pin<Box<dyn Future<Output = Option<Vec<u8>>> + Send + 'p>> {
        Box::pin(async move {
            let Parsed::Query(query) = wire::parse(packet) else { return None };
            let mut out = Vec::with_capacity(512);
            let led = Led { lasts: Some(walk.lasts), ..led };
            let ride = self.ride_of(led);
            let (from, now) = (walk.from, clock::now());
            let response = match self.walk(&query, packet, from, transport, now, None, &mut out, None, led, ride) {
                Fast::Reply => return Some(out),
                Fast::Drop => return None,
                Fast::Deferred(deferred) => self.complete(deferred).await?,
            };
            // An answer at hand that would have come too late says by that that it was.
            let says_failed = response.get(3).is_some_and(|flags| flags & 0x0f == 2);
            if !led.is_over() || !says_failed && !self.live.load().sharing.private {
                return Some(response);
            }
            reply::servfail(&mut out, &query, Ede::NoReachableAuthority, TOO_LATE);
            Some(out)
        })
    }
}
