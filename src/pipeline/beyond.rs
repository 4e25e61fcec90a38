//! An alias that leads into a zone with upstreams of its own.
//!
//! Whoever was asked about the alias has no word for what is there, so its answer ends with it. Where it leads is asked as a
//! question of the same session's: judged, charged and pinned like any other, by the zone's own upstreams. It is never kept with
//! the alias, since another session may have no leave to ask. What is not public is not shown behind an outsider's alias,
//! whatever the zone's own names may answer with: anybody could borrow its rule.

use std::net::IpAddr;

use staunch_scoring::NameBuf;

use super::rewrite::packet_for;
use super::{Led, Live, Pipeline, Walk};
use crate::answer::{self, Alias, AnswerRules, Asked, Kind, VetError};
use crate::cache::Entry;
use crate::model::{Ede, Now};
use crate::reply;
use crate::wire::Query;

/// Borders that one question is led across at most.
const MAX_BORDERS: u8 = 3;

/// Whether what is at hand is only the way to an answer. Who validates wants the aliases as they were signed, and follows
/// them himself.
pub(super) fn leads(query: &Query<'_>, entry: &Entry) -> bool {
    entry.answer.beyond && !query.edns.is_some_and(|edns| edns.dnssec_ok)
}

impl Pipeline {
    /// Asks where the aliases of `entry` lead, and shows that behind them.
    pub(super) async fn lead_beyond(
        &self,
        live: &Live,
        walk: &mut Walk,
        query: &Query<'_>,
        entry: &Entry,
        now: Now,
        out: &mut Vec<u8>,
    ) {
        let first = query.qname.as_ref();
        let Some(target) = entry.hops.last().filter(|_| walk.led.borders < MAX_BORDERS) else {
            return super::finish::fail(walk, query, Ede::Other, "its aliases lead through too many zones", out);
        };
        let target = target.as_ref();
        let owners = std::iter::once(first).chain(entry.hops.iter().map(NameBuf::as_ref)).take(entry.hops.len());
        let age = entry.age(now.mono);
        let ttls = entry.answer.alias_ttls().map(|ttl| ttl.saturating_sub(age));
        let aliases: Vec<Alias<'_>> = owners.zip(ttls).map(|(owner, ttl)| Alias { owner, ttl }).collect();
        let packet = packet_for(target, query);
        let led = Led { borders: walk.led.borders + 1, ..walk.led };
        // Silence, where a policy zone wants it.
        let Some(response) = self.walk_led(walk, &packet, walk.transport, led).await else { return };
        // What has changed meanwhile is changed for this answer too.
        let current = self.live.load_full();
        let grants = current.grants.load();
        let is_open = current.policy.opens(&walk.session.context(), &grants, first, crate::clock::now().wall).is_ok();
        if entry.vetting != current.vetting() || !is_open {
            return super::finish::fail(walk, query, Ede::Other, super::pins::CHANGED, out);
        }
        let reason = reply::reason_in(&response);
        let reasons = reason.as_ref().map(|(ede, text)| (*ede, text.as_str()));
        // It was vetted on its own way.
        let rules = AnswerRules { max_ttl: live.answers.max_ttl, ..AnswerRules::everything(target) };
        let asked = Asked { qname: target, qtype: query.qtype, dnssec_ok: false };
        let vetted = match answer::vet_behind(&response, &aliases, asked, &rules) {
            Ok(vetted) if vetted.kind != Kind::Failure => vetted,
            Err(VetError::Truncated) => {
                let (ede, text) = reasons.unwrap_or((Ede::Other, "longer than a datagram"));
                walk.record.rcode = 0;
                return reply::truncated(out, query, ede, text);
            }
            _ => {
                let (ede, text) = reasons.unwrap_or((Ede::NetworkError, "the name it leads to could not be asked for"));
                return super::finish::fail(walk, query, ede, text, out);
            }
        };
        let inside = |address: &&IpAddr| !live.answers.may_show(first, **address);
        walk.record.withheld = vetted.answer.pins.iter().filter(inside).copied().collect();
        if !walk.record.withheld.is_empty() {
            return self.refuse_inside(live, walk, query, now, out);
        }
        walk.record.rcode = u16::from(vetted.answer.rcode);
        reply::rewritten(out, query, &vetted.answer, walk.transport, u32::MAX, reasons.as_slice());
    }
}
