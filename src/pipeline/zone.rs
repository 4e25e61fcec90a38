//! Questions for names of the operator's own zones.
//!
//! Aliases are followed here, one by one: from zone to zone, and out of them, where the target is a question of its own that
//! goes the whole walk. What is found is put behind them and shown like any other answer.

use std::net::IpAddr;

use staunch_scoring::NameBuf;

use super::beyond::LedTo;
use super::pins::{Judged, Ordered, PIN_TRIES, asked, not_pinned, within_reach};
use super::rewrite::packet_for;
use super::{Led, Pipeline, Walk, is_guarded};
use crate::answer::{Alias, Asked, Kind, MAX_HOPS};
use crate::model::{Ede, Qtype};
use crate::pin::{self, Word};
use crate::reply;
use crate::wire::Query;

/// AA in the third octet of a header (RFC 1035 section 4.1.1).
const AUTHORITATIVE: u8 = 0x04;

impl Pipeline {
    /// Answers from a zone, with authority.
    pub(super) async fn zone(&self, walk: &mut Walk, query: &Query<'_>, out: &mut Vec<u8>) {
        for _ in 0..PIN_TRIES {
            if self.zone_as_it_is(walk, query, out).await {
                return;
            }
        }
        not_pinned(walk, query, out);
    }

    /// The same by the present configuration; `false`, and nothing is written, where that has changed before the answer's
    /// addresses were pinned: another one may say something else.
    async fn zone_as_it_is(&self, walk: &mut Walk, query: &Query<'_>, out: &mut Vec<u8>) -> bool {
        let live = self.live.load_full();
        let first = query.qname.as_ref();
        let mut name = first.to_owned();
        let mut followed: Vec<(NameBuf, u32)> = Vec::new();
        while !stays_at_the_alias(query.qtype) && live.zones.covers(name.as_ref()) {
            let Some((target, ttl)) = live.zones.alias(name.as_ref()).await else { break };
            if followed.len() >= MAX_HOPS {
                super::finish::fail(walk, query, Ede::Other, "the zone's aliases do not end", out);
                return true;
            }
            followed.push((std::mem::replace(&mut name, target), ttl));
        }
        if walk.led.aliased && !live.zones.covers(name.as_ref()) {
            // A policy zone has led here, and no policy zone would be asked about where this one leads: the client's own question
            // for it will be judged like any other.
            if let Some((owner, _)) = followed.pop() {
                name = owner;
            }
        }
        let name = name.as_ref();
        let inside = live.zones.covers(name);
        let response = if inside {
            live.zones.answer(name, query.qtype).await
        } else {
            let packet = packet_for(name, query);
            match self.walk_led(walk, &packet, walk.transport, Led { aliased: false, ..walk.led }).await {
                Some(response) => response,
                // Silence, where a policy zone wants it.
                None => return true,
            }
        };
        let aliases: Vec<Alias<'_>> =
            followed.iter().map(|(owner, ttl)| Alias { owner: owner.as_ref(), ttl: *ttl }).collect();
        let dnssec_ok = query.edns.is_some_and(|edns| edns.dnssec_ok);
        let reason = if inside { None } else { reply::reason_in(&response) };
        let asked_for = Asked { qname: name, qtype: query.qtype, dnssec_ok };
        let led = LedTo { response: &response, aliases: &aliases, asked: asked_for, reason };
        let Some(mut vetted) = led.vet(&live, walk, query, out) else { return true };
        let mut cap = u32::MAX;
        if inside {
            let context = walk.session.context();
            if vetted.kind == Kind::Positive && is_guarded(&live, &context) && context.cannot_reach(query.qtype) {
                // An address that no pin could open is not shown.
                walk.record.rcode = 0;
                reply::no_data(out, query, first, vetted.answer.ttl);
                mark_authoritative(out);
                return true;
            }
            if let Some(less) = within_reach(&live, &context, query, &vetted.answer) {
                vetted.answer = less;
            }
            let reachable = |addr: &&IpAddr| !addr.is_loopback() && !addr.is_unspecified() && !addr.is_multicast();
            let addresses: Vec<IpAddr> = vetted.answer.pins.iter().filter(reachable).copied().collect();
            let plan = pin::plan(&live.pins, vetted.answer.ttl);
            let profile = live.policy.profiles.of(context.kind(), context.phase());
            let asked = pin::Asked { by: Some(Word::Zone), ..asked(&live, first, &profile.ports, None) };
            let judged = Judged { live: &live, grants: live.grants.load().version(), context: &context };
            match self.pin_once(judged, walk, query, &asked, &addresses, plan.ttl, out).await {
                Ordered::Held => {}
                Ordered::Told => return true,
                Ordered::Changed => return false,
            }
            if live.enforcing && !addresses.is_empty() {
                cap = plan.ttl;
            }
        }
        walk.record.rcode = u16::from(vetted.answer.rcode);
        reply::rewritten(out, query, &vetted.answer, walk.transport, cap, led.reasons().as_slice());
        mark_authoritative(out);
        true
    }
}

/// Whether a question of this type is about an alias itself, and not where it leads: signatures and denials stand beside it (RFC
/// 4035 section 2.5), also where a zone has none.
fn stays_at_the_alias(qtype: Qtype) -> bool {
    matches!(qtype, Qtype::CNAME | Qtype::ANY | Qtype::RRSIG | Qtype::NSEC)
}

fn mark_authoritative(out: &mut [u8]) {
    if let Some(flags) = out.get_mut(2) {
        *flags |= AUTHORITATIVE;
    }
}
