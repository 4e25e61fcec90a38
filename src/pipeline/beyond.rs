//! An alias whose target is a question of its own: it leads into a zone with upstreams of its own, out of one, or to a name of
//! which a server that looks for nothing itself has said nothing (RFC 1034 section 5.3.3, step 4c).
//!
//! Whoever was asked about the alias has no word for what is there, so its answer ends with it. Where it leads is asked as a
//! question of the same session's: judged, charged and pinned like any other, by whose upstreams it is. It is never kept with
//! the alias, since another session may have no leave to ask. What is not public is not shown behind an outsider's alias,
//! whatever the target's own names may answer with: anybody could borrow its rule.

use std::net::IpAddr;

use staunch_scoring::NameBuf;

use super::rewrite::packet_for;
use super::show::{STALE_TTL, held_text, is_old, is_stale};
use super::{Led, Live, Pipeline, Walk};
use crate::answer::{self, Alias, AnswerRules, Asked, Kind, VetError, Vetted};
use crate::cache::Entry;
use crate::model::{Ede, Now};
use crate::policy::RefusalText;
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
        // How old the entry is tells when others asked.
        let (age, cap) = (entry.age(now.mono), self.cap(live, walk, query, now));
        let (is_old, is_stale) = (is_old(&walk.record, entry, now), is_stale(&walk.record, entry, now));
        let left = |ttl: u32| if is_stale { STALE_TTL } else { ttl.saturating_sub(age) };
        let ttls = entry.answer.alias_ttls().map(|ttl| left(ttl).min(cap));
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
        let asked = Asked { qname: target, qtype: query.qtype, dnssec_ok: false };
        let reason = reply::reason_in(&response);
        let led = LedTo { response: &response, aliases: &aliases, asked, reason };
        let Some(vetted) = led.vet(live, walk, query, out) else { return };
        let inside = |address: &&IpAddr| !live.answers.may_show(first, **address);
        walk.record.withheld = vetted.answer.pins.iter().filter(inside).copied().collect();
        if !walk.record.withheld.is_empty() {
            return self.refuse_inside(live, walk, query, now, out);
        }
        walk.record.rcode = u16::from(vetted.answer.rcode);
        // What is said of the last name goes before what is said of the aliases.
        let text = held_text(&walk.record);
        let old = is_old.then(|| (Ede::StaleAnswer, text.as_ref().map_or("", RefusalText::as_str)));
        let reasons = led.reasons().or(old);
        reply::rewritten(out, query, &vetted.answer, walk.transport, u32::MAX, reasons.as_slice());
    }
}

/// What has become of the question that aliases have led to.
pub(super) struct LedTo<'l> {
    pub(super) response: &'l [u8],
    pub(super) aliases: &'l [Alias<'l>],
    pub(super) asked: Asked<'l>,
    /// What was said beside it.
    pub(super) reason: Option<(Ede, String)>,
}

impl LedTo<'_> {
    /// What was said beside it, for the reply.
    pub(super) fn reasons(&self) -> Option<(Ede, &str)> {
        self.reason.as_ref().map(|(ede, text)| (*ede, text.as_str()))
    }

    /// The response behind the aliases. `None`: there is none, and the reply that says so is written.
    pub(super) fn vet(&self, live: &Live, walk: &mut Walk, query: &Query<'_>, out: &mut Vec<u8>) -> Option<Vetted> {
        // It was vetted on its own way, and addresses of our own zones are the operator's word.
        let rules = AnswerRules { max_ttl: live.answers.max_ttl, ..AnswerRules::everything(self.asked.qname) };
        match answer::vet_behind(self.response, self.aliases, self.asked, &rules) {
            Ok(vetted) if vetted.kind != Kind::Failure => Some(vetted),
            Err(VetError::Truncated) => {
                let (ede, text) = self.reasons().unwrap_or((Ede::Other, "longer than a datagram"));
                walk.record.rcode = 0;
                reply::truncated(out, query, ede, text);
                None
            }
            _ => {
                let (ede, text) =
                    self.reasons().unwrap_or((Ede::Other, "the name that its aliases lead to could not be asked for"));
                super::finish::fail(walk, query, ede, text, out);
                None
            }
        }
    }
}
