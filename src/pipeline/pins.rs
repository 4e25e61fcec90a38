//! Pin before answer: what an answer opens is ordered under the session's lock and acknowledged before the answer is released.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use staunch_scoring::NameRef;

use super::finish::fail;
use super::{Live, Pipeline, Walk, is_guarded};
use crate::answer::{self, WireAnswer};
use crate::clock;
use crate::enforce::{self, Command, Ticket};
use crate::model::{Ede, Reason};
use crate::pin::{self, Asked, Word};
use crate::ports::Ports;
use crate::session::Context;
use crate::wire::Query;

/// What the addresses of a name are pinned for.
pub(super) fn asked<'a>(live: &Live, name: NameRef<'a>, ports: &'a Ports, volume: Option<u64>) -> Asked<'a> {
    Asked { name, ports, volume, most: live.pins_per_name, by: None }
}

/// Whether `context` has an address from which `destination` could be reached.
fn can_reach(context: &Context, destination: IpAddr) -> bool {
    context.addresses_like(destination).next().is_some()
}

/// Whether an answer opens an address that the packet filter cannot open for this session.
pub(super) fn opens_too_much(live: &Live, context: &Context, answer: &WireAnswer) -> bool {
    is_guarded(live, context) && answer.pins.iter().any(|pin| !can_reach(context, *pin))
}

/// `answer` as a session is shown it that cannot reach all that it opens: without address hints, so that the client asks for
/// addresses, and hears which there are for it. `None` where it can be shown as it is.
pub(super) fn within_reach(
    live: &Live,
    context: &Context,
    query: &Query<'_>,
    answer: &WireAnswer,
) -> Option<WireAnswer> {
    let dnssec_ok = query.edns.is_some_and(|edns| edns.dnssec_ok);
    let asked = answer::Asked { qname: query.qname.as_ref(), qtype: query.qtype, dnssec_ok };
    if opens_too_much(live, context, answer) { answer.without_hints(asked) } else { None }
}

/// By what an answer was judged: what it opens is ordered only while all of it is in force.
#[derive(Clone, Copy)]
pub(super) struct Judged<'a> {
    pub(super) live: &'a Live,
    /// The version of the grants.
    pub(super) grants: u64,
    /// Whose it is, of what kind and in which phase.
    pub(super) context: &'a Context,
}

impl Pipeline {
    /// Pins `destinations`, which are the operator's own word, for the walk's session so that they outlive `ttl` seconds.
    /// `opens` gives what is opened of them, as long as `word` stands. `false`: the reply is already written, and it is not
    /// the answer.
    pub(super) async fn pin_by_word(
        &self,
        walk: &mut Walk,
        query: &Query<'_>,
        (word, opens): (Word, impl Fn(&Live, &Context) -> Option<(Ports, Option<u64>)>),
        destinations: &[IpAddr],
        ttl: u32,
        out: &mut Vec<u8>,
    ) -> bool {
        for _ in 0..PIN_TRIES {
            let (live, context) = (self.live.load_full(), walk.session.context());
            let Some((ports, volume)) = opens(&live, &context) else {
                fail(walk, query, Ede::Other, CHANGED, out);
                return false;
            };
            let asked = Asked { by: Some(word), ..asked(&live, query.qname.as_ref(), &ports, volume) };
            let judged = Judged { live: &live, grants: live.grants.load().version(), context: &context };
            match self.pin_once(judged, walk, query, &asked, destinations, ttl, out).await {
                Ordered::Held => return true,
                Ordered::Told => return false,
                Ordered::Changed => {}
            }
        }
        not_pinned(walk, query, out);
        false
    }

    /// Pins `destinations` for the walk's session so that they outlive `ttl` seconds, as they were judged.
    #[allow(clippy::too_many_arguments)]
    pub(super) async fn pin_once(
        &self,
        judged: Judged<'_>,
        walk: &mut Walk,
        query: &Query<'_>,
        asked: &Asked<'_>,
        destinations: &[IpAddr],
        ttl: u32,
        out: &mut Vec<u8>,
    ) -> Ordered {
        let live = judged.live;
        match self.try_pin(judged, walk, asked, destinations, ttl).await {
            Pinned::Held => {
                walk.record.pins = if live.enforcing { destinations.to_vec() } else { Vec::new() };
                Ordered::Held
            }
            Pinned::Revoked => Ordered::Changed,
            Pinned::Closed => {
                Box::pin(self.refuse_closed(walk, query, out)).await;
                Ordered::Told
            }
            Pinned::Failed(error) => {
                tracing::debug!(%error, session = %walk.session.id(), "an answer could not be pinned");
                if !is_guarded(live, &walk.session.context()) {
                    return Ordered::Held;
                }
                not_pinned(walk, query, out);
                Ordered::Told
            }
        }
    }

    /// Whether all that an answer was judged by is in force.
    fn is_in_force(&self, judged: Judged<'_>, context: &Context) -> bool {
        let current = self.live.load();
        current.version == judged.live.version
            && current.grants.load().version() == judged.grants
            && context.is_as(judged.context)
    }

    async fn try_pin(
        &self,
        judged: Judged<'_>,
        walk: &Walk,
        asked: &Asked<'_>,
        destinations: &[IpAddr],
        ttl: u32,
    ) -> Pinned {
        let live = judged.live;
        // A second more than the TTL needs, so that rounding never makes a cached answer pin again.
        let lifetime = pin::plan(&live.pins, ttl.saturating_add(1)).lifetime;
        let now = clock::now();
        let end = now.mono + lifetime.as_millis() as u64;
        let (epoch, orders) = {
            let mut inner = walk.session.inner.lock();
            // Under the lock, so that an address gained or lost is seen in the order of orders.
            let context = walk.session.context();
            if inner.is_closed() {
                return Pinned::Closed;
            }
            if !live.enforcing || destinations.is_empty() {
                return Pinned::Held;
            }
            // What has changed before this was ordered has judged nothing of it.
            if !self.is_in_force(judged, &context) {
                return Pinned::Revoked;
            }
            // An answer may have been on its way when the lockdown fell.
            let healthy = self.enforcer.healthy() && (!is_guarded(live, &context) || self.holds(live, now));
            let until = now.mono + u64::from(ttl) * 1000 + live.pins.grace().as_millis() as u64;
            if healthy && inner.pins.cover_all(asked, destinations, until) {
                return Pinned::Held;
            }
            if !healthy && is_guarded(live, &context) {
                return Pinned::Failed(enforce::Error::Stopped);
            }
            for evicted in inner.pins.order(asked, destinations, end, now.mono) {
                self.unpin(&context, evicted);
            }
            (inner.pins.epoch(), self.order_pins(&context, asked, destinations, lifetime, is_guarded(live, &context)))
        };
        let (tickets, mut failed) = orders;
        let (ordered, mut taken) = (tickets.len(), 0);
        // One deadline for all of them: they were ordered at one time.
        let until = Instant::now() + live.pin_deadline;
        for ticket in tickets {
            match ticket.wait(until.saturating_duration_since(Instant::now())).await {
                Ok(()) => taken += 1,
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        let mut inner = walk.session.inner.lock();
        if inner.is_closed() {
            return Pinned::Closed;
        }
        match failed {
            // Of a name that newer ones have pushed out no change of policy is told to the pins.
            None if inner.pins.acknowledge(epoch, asked, destinations, end)
                && self.is_in_force(judged, &walk.session.context()) =>
            {
                Pinned::Held
            }
            None => Pinned::Revoked,
            Some(error) => {
                // What is open for some addresses, or may be yet, stays known, so that a change of policy closes it.
                let is_whole = taken == 0 && ordered <= 1 && !matches!(error, enforce::Error::Deadline(_));
                if inner.pins.epoch() == epoch && is_whole {
                    let context = walk.session.context();
                    for forgotten in inner.pins.refused(asked, destinations) {
                        self.unpin(&context, forgotten);
                    }
                }
                Pinned::Failed(error)
            }
        }
    }

    /// Orders a pin for each of the session's addresses that can reach an address of the answer, as far as orders are taken;
    /// what was not. Called under the session's lock.
    fn order_pins(
        &self,
        context: &Context,
        asked: &Asked<'_>,
        destinations: &[IpAddr],
        lifetime: Duration,
        guarded: bool,
    ) -> (Vec<Ticket>, Option<enforce::Error>) {
        let mut tickets = Vec::new();
        if let Some(destination) = destinations.iter().copied().find(|d| guarded && !can_reach(context, *d)) {
            // Shown to a session that cannot have it pinned, an address would be a promise nobody keeps. Nothing is opened for
            // an answer that is not shown.
            let session = context.announcement.addresses.first().copied().unwrap_or(destination);
            return (tickets, Some(enforce::Error::Family { session, destination }));
        }
        for v4 in [true, false] {
            let family: Vec<IpAddr> = destinations.iter().copied().filter(|d| d.is_ipv4() == v4).collect();
            let Some(first) = family.first().copied() else { continue };
            for session in context.addresses_like(first) {
                let (destinations, ports) = (family.clone(), asked.ports.clone());
                let command = Command::Pin { session, destinations, ports, volume: asked.volume, lifetime };
                match self.enforcer.submit(command) {
                    Ok(ticket) => tickets.push(ticket),
                    Err(error) => return (tickets, Some(error)),
                }
            }
        }
        (tickets, None)
    }

    fn unpin(&self, context: &Context, evicted: IpAddr) {
        for session in context.addresses_like(evicted) {
            // A pin that stays in spite of this ends by its own timeout.
            if let Err(error) = self.enforcer.submit(Command::Unpin { session, destinations: vec![evicted] }) {
                tracing::debug!(%error, "an evicted pin stays until it expires");
            }
        }
    }

    /// Notes which other names lead to the addresses that were pinned.
    pub(super) fn note_exposed(&self, walk: &mut Walk, destinations: &[IpAddr]) {
        let name = self.hash(walk.record.qname.as_ref());
        walk.record.shared = destinations.iter().map(|address| self.exposure.note(*address, name)).collect();
    }
}

/// Tries to pin one answer: what is revoked while its acknowledgement is on its way (a policy changed, an address gained, a
/// quarantine lifted) is judged and ordered anew, twice, which is more than any operator causes.
pub(super) const PIN_TRIES: u32 = 3;

/// What is said where policy has changed and what is at hand is of before.
pub(super) const CHANGED: &str = "policy has changed meanwhile; ask again";

/// An address that cannot be reached would be a mystery to the client; that there is none for now is not.
pub(super) fn not_pinned(walk: &mut Walk, query: &Query<'_>, out: &mut Vec<u8>) {
    walk.record.reason = Some(Reason::NotPinned);
    fail(walk, query, Ede::NotReady, "the address could not be pinned; nothing was answered", out);
}

/// What a caller is to do.
pub(super) enum Ordered {
    /// Show the answer.
    Held,
    /// Nothing: the reply is written, and it is not the answer.
    Told,
    /// Judge it anew, for what it was judged by has changed.
    Changed,
}

/// How pinning an answer ended.
enum Pinned {
    /// Every destination is open, or needs no pin.
    Held,
    /// What was acknowledged has been revoked meanwhile.
    Revoked,
    /// The session was closed meanwhile.
    Closed,
    /// The packet filter did not take it.
    Failed(enforce::Error),
}
