//! The half of the walk that waits: an upstream, the packet filter's acknowledgement, the journal.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use staunch_scoring::Bits;

use super::{Deferred, Live, Pipeline, Step, Walk, is_guarded};
use crate::answer::{self, Asked};
use crate::cache::{Entry, Key};
use crate::clock;
use crate::enforce::{Command, Ticket};
use crate::event::{Source, Verdict};
use crate::model::{CaseId, Ede, Now, Reason};
use crate::pin;
use crate::policy::{Permit, RefusalText, ede_of};
use crate::reply::{self, Refusal};
use crate::session::{Context, Inner};
use crate::store::Commit;
use crate::wire::{self, Parsed, Query};

impl Pipeline {
    /// Finishes a deferred query; `None` only if the packet is no query, which `fast` has ruled out.
    pub(super) async fn complete(&self, deferred: Deferred) -> Option<Vec<u8>> {
        let Deferred { mut walk, step } = deferred;
        let packet = std::mem::take(&mut walk.packet);
        let Parsed::Query(query) = wire::parse(&packet) else { return None };
        let mut out = Vec::with_capacity(512);
        match step {
            Step::Forward(permit) => self.forward(&mut walk, &query, *permit, &mut out).await,
            Step::Pin(entry) => self.release(&mut walk, &query, entry, &mut out).await,
            Step::Zone => self.zone(&mut walk, &query, &packet, &mut out).await,
            Step::Announce(commit) => self.announce_refusal(&mut walk, &query, commit, &mut out).await,
        }
        let Walk { record, started, .. } = *walk;
        self.done(record, started);
        Some(out)
    }

    async fn forward(&self, walk: &mut Walk, query: &Query<'_>, permit: Permit, out: &mut Vec<u8>) {
        let response = match self.forwarder.resolve(permit).await {
            Ok(response) => response,
            Err(error) => {
                tracing::debug!(%error, "no upstream answered");
                let (ede, text) = error.ede();
                return fail(walk, query, ede, &text, out);
            }
        };
        let live = self.live.load_full();
        let vetted = match answer::vet(&response.wire, Asked::from(&permit), &live.answers) {
            Ok(vetted) => vetted,
            Err(error) => {
                tracing::debug!(%error, "an answer was not usable");
                return fail(walk, query, Ede::NetworkError, "the upstream's answer was not usable", out);
            }
        };
        let now = clock::now();
        self.first_seen.saw(walk.record.split.icann(permit.qname()), now.wall);
        walk.record.withheld = vetted.rebinding;
        // Every hop of the chain is judged by lists; the name itself was judged before it left.
        let context = walk.session.context();
        let denied = vetted.names.iter().find_map(|hop| live.policy.denied_hop(&context, hop.as_ref(), now.wall));
        if let Some((reason, rule)) = denied {
            walk.record.would = Verdict::Sinkhole;
            walk.record.reason = Some(reason);
            walk.record.rule = Some(rule);
            let case = self.fresh_case(self.hash(permit.qname()), now.wall);
            walk.record.case = Some(case);
            if walk.record.mode == crate::model::Mode::Enforce {
                walk.record.verdict = Verdict::Sinkhole;
                walk.record.source = Source::Policy;
                return refuse_with(&live, walk, query, reason, case, out);
            }
        }
        let key = Key {
            qname: permit.qname(),
            qtype: permit.qtype(),
            dnssec_ok: permit.dnssec_ok(),
            checking_disabled: permit.checking_disabled(),
        };
        let entry = if vetted.cacheable && walk.record.reason.is_none() {
            self.cache.put(key, vetted.answer, now.mono)
        } else {
            Arc::new(Entry::passing(vetted.answer, now.mono))
        };
        self.release(walk, query, entry, out).await;
    }

    /// Pin before answer: the state check and the orders to the packet filter happen under one lock, only the
    /// acknowledgement is awaited, and the state is checked again before the answer goes out.
    async fn release(&self, walk: &mut Walk, query: &Query<'_>, entry: Arc<Entry>, out: &mut Vec<u8>) {
        let live = self.live.load_full();
        let now = clock::now();
        let plan = pin::plan(&live.pins, entry.ttl_left(now.mono));
        if !self.pin(&live, walk, query, &entry.answer.pins, plan.ttl, now, out).await {
            return;
        }
        walk.record.rcode = u16::from(entry.answer.rcode);
        reply::from_answer(out, query, &entry.answer, walk.transport, entry.age(now.mono), plan.ttl);
    }

    /// Pins `destinations` for the walk's session so that they outlive `ttl` seconds. `false`: the reply is already
    /// written, and it is not the answer.
    #[allow(clippy::too_many_arguments)]
    async fn pin(
        &self,
        live: &Live,
        walk: &mut Walk,
        query: &Query<'_>,
        destinations: &[IpAddr],
        ttl: u32,
        now: Now,
        out: &mut Vec<u8>,
    ) -> bool {
        let session = walk.session.clone();
        let context = session.context();
        let guarded = is_guarded(live, &context);
        // A second more than the TTL needs, so that rounding never makes a cached answer pin again.
        let lifetime = pin::plan(&live.pins, ttl.saturating_add(1)).lifetime;
        let (epoch, orders) = {
            let inner = session.inner.lock();
            if inner.is_closed() {
                refuse_closed(live, &inner, walk, query, out);
                return false;
            }
            let orders =
                if live.enforcing { self.order_pins(&context, destinations, lifetime) } else { Ok(Vec::new()) };
            (inner.pins.epoch(), orders)
        };
        let mut outcome = Ok(());
        match orders {
            Ok(tickets) => {
                for ticket in tickets {
                    outcome = outcome.and(ticket.wait(live.pin_deadline).await);
                }
            }
            Err(error) => outcome = Err(error),
        }
        if let Err(error) = &outcome {
            tracing::debug!(%error, session = %walk.session.id(), "an answer could not be pinned");
        }
        let mut inner = session.inner.lock();
        if inner.is_closed() {
            refuse_closed(live, &inner, walk, query, out);
            return false;
        }
        if outcome.is_err() {
            drop(inner);
            if guarded {
                fail(walk, query, Ede::Other, "the address could not be pinned; nothing was answered", out);
            }
            return !guarded;
        }
        if live.enforcing {
            let end = now.mono + lifetime.as_millis() as u64;
            for destination in destinations {
                if let Some(evicted) = inner.pins.note(epoch, *destination, end, now.mono) {
                    self.unpin(&context, evicted);
                }
            }
            walk.record.pins = destinations.to_vec();
        }
        true
    }

    /// Orders a pin for each of the session's addresses that can reach an address of the answer. Called under the
    /// session's lock.
    fn order_pins(
        &self,
        context: &Context,
        destinations: &[IpAddr],
        lifetime: Duration,
    ) -> Result<Vec<Ticket>, crate::enforce::Error> {
        let mut tickets = Vec::new();
        for v4 in [true, false] {
            let family: Vec<IpAddr> = destinations.iter().copied().filter(|d| d.is_ipv4() == v4).collect();
            let Some(first) = family.first().copied() else { continue };
            for session in context.addresses_like(first) {
                let destinations = family.clone();
                tickets.push(self.enforcer.submit(Command::Pin { session, destinations, lifetime })?);
            }
        }
        Ok(tickets)
    }

    fn unpin(&self, context: &Context, evicted: IpAddr) {
        for session in context.addresses_like(evicted) {
            // A pin that stays in spite of this ends by its own timeout.
            if let Err(error) = self.enforcer.submit(Command::Unpin { session, destinations: vec![evicted] }) {
                tracing::debug!(%error, "an evicted pin stays until it expires");
            }
        }
    }

    /// Addresses of our own zones are the operator's word, so the rebinding guard does not apply to them.
    async fn zone(&self, walk: &mut Walk, query: &Query<'_>, packet: &[u8], out: &mut Vec<u8>) {
        /// A zone's records keep their TTL; pins outlive any that a zone file should have.
        const LONGEST_TTL: u32 = 3600;
        let live = self.live.load_full();
        let source = std::net::SocketAddr::new(walk.from, 0);
        let (reply, addresses) = live.zones.answer(packet, source, walk.transport).await;
        if !self.pin(&live, walk, query, &addresses, LONGEST_TTL, clock::now(), out).await {
            return;
        }
        walk.record.rcode = reply.get(3).map_or(2, |flags| u16::from(flags & 0xf));
        *out = reply;
    }

    /// A quarantine is on disk before anybody is told of it.
    async fn announce_refusal(&self, walk: &mut Walk, query: &Query<'_>, commit: Option<Commit>, out: &mut Vec<u8>) {
        if let Some(commit) = commit
            && let Err(error) = commit.await
        {
            // The session stays closed in memory; the refusal still says nothing that is not true.
            tracing::error!(%error, session = %walk.session.id(), "a quarantine could not be made durable");
            self.telemetry.metrics.not_durable();
        }
        let live = self.live.load_full();
        let session = walk.session.clone();
        let inner = session.inner.lock();
        refuse_as(&live, &inner, walk, query, out);
    }

    /// What a session has been charged since its ledger was last handed to the store; a snapshot when it is enough.
    pub(super) fn ledger_step(&self, inner: &mut Inner, charged: Bits) -> Option<staunch_scoring::StateSnapshot> {
        /// How much may be spent between two snapshots: what a crash could give back to a session.
        const STEP: Bits = Bits::whole(64);
        inner.charged = inner.charged.plus(charged);
        inner.unstored = inner.unstored.plus(charged);
        if inner.unstored < STEP {
            return None;
        }
        inner.unstored = Bits::ZERO;
        Some(inner.score.snapshot())
    }
}

/// Answers a query of a session that was closed while the query was on its way.
fn refuse_closed(live: &Live, inner: &Inner, walk: &mut Walk, query: &Query<'_>, out: &mut Vec<u8>) {
    walk.record.verdict = Verdict::Sinkhole;
    walk.record.would = Verdict::Sinkhole;
    walk.record.reason = Some(Reason::Quarantined);
    walk.record.source = Source::Policy;
    walk.record.pins = Vec::new();
    refuse_as(live, inner, walk, query, out);
}

fn refuse_as(live: &Live, inner: &Inner, walk: &mut Walk, query: &Query<'_>, out: &mut Vec<u8>) {
    let case = match &inner.quarantine {
        Some(quarantine) => quarantine.case,
        // Released in the same instant: the event's own case still explains it.
        None => walk.record.case.unwrap_or(CaseId::from_random(walk.wall)),
    };
    walk.record.case = Some(case);
    refuse_with(live, walk, query, Reason::Quarantined, case, out);
}

fn refuse_with(live: &Live, walk: &mut Walk, query: &Query<'_>, reason: Reason, case: CaseId, out: &mut Vec<u8>) {
    let text = RefusalText::new(reason, case, live.sinkhole.contact.as_deref());
    let refusal = Refusal {
        rcode: 3,
        soa_owner: walk.record.split.icann(query.qname.as_ref()),
        negative_ttl: live.sinkhole.negative_ttl,
        ede: ede_of(reason),
        text: text.as_str(),
        txt: true,
    };
    walk.record.rcode = u16::from(refusal.rcode);
    walk.record.pins = Vec::new();
    reply::refusal(out, query, &refusal);
}

fn fail(walk: &mut Walk, query: &Query<'_>, ede: Ede, text: &str, out: &mut Vec<u8>) {
    walk.record.source = Source::Failed;
    walk.record.rcode = 2;
    walk.record.pins = Vec::new();
    reply::servfail(out, query, ede, text);
}
