//! What response policy zones make of questions and answers: refusals that name the zone, silence, an empty reply that asks for
//! TCP, records of the zone's own, and names that are led elsewhere.
//!
//! Policy has judged a question by the zones before anything else here sees it; answers are looked at when they are at hand,
//! fresh or from the cache. A name that is led elsewhere is a question for its target: it goes the whole walk by itself (lists,
//! score, ledger, pins, its own event), with no zone asked a second time, and what it gets stands behind the alias.

use std::net::IpAddr;
use std::sync::Arc;

use staunch_scoring::{NameBuf, NameRef, QName, Split};

use super::pins::within_reach;
use super::{Deferred, Led, Live, Pipeline, Walk, is_guarded};
use crate::answer::{self, Alias, AnswerRules, Asked, Kind};
use crate::cache::Entry;
use crate::clock;
use crate::event::{self, Source, Verdict};
use crate::listen::Fast;
use crate::lists::Grants;
use crate::model::{CaseId, Ede, Mode, Now, Qtype, Reason, Transport, Wall};
use crate::pin::{self, Word};
use crate::policy::{Decision, Policy, RefusalText};
use crate::reply::{self, Refusal};
use crate::rpz::{self, Action, Chain, Exempt, Hit, Target, Trigger, Zone};
use crate::session::Context;
use crate::telemetry::Record;
use crate::wire::Query;

/// A rule that matched, to be kept while a query waits.
pub(super) struct Rewrite {
    zone: Arc<Zone>,
    place: usize,
    rule: u32,
    trigger: Trigger,
    action: Action,
}

impl Rewrite {
    pub(super) fn of(hit: &Hit<'_>) -> Self {
        Self { zone: hit.zone.clone(), place: hit.place, rule: hit.rule, trigger: hit.trigger, action: hit.action }
    }

    fn hit(&self) -> Hit<'_> {
        Hit { zone: &self.zone, place: self.place, rule: self.rule, trigger: self.trigger, action: self.action }
    }
}

/// Writes down what zones say of a question, and counts it.
pub(super) fn note_question(record: &mut Record, decision: &Decision<'_>) {
    if let Some(hit) = &decision.rpz_logged {
        note(record, hit, false);
    }
    if let Some(hit) = &decision.rpz {
        let lets_pass = decision.reason != Some(Reason::Rpz);
        note(record, hit, lets_pass || decision.applied != Verdict::Answer);
    }
}

fn note(record: &mut Record, hit: &Hit<'_>, applied: bool) {
    match applied {
        true => hit.zone.counters.count(hit.action),
        false => hit.zone.counters.count_logged(),
    }
    if hit.zone.settings.log {
        record.rpz = Some(noted(hit, applied));
    }
}

/// What is recorded of a rule that matched.
pub(super) fn noted(hit: &Hit<'_>, applied: bool) -> event::Rpz {
    event::Rpz { zone: hit.zone.settings.id.clone(), trigger: hit.trigger, action: hit.action, applied }
}

/// Writes what needs no waiting; nothing for records of the zone's own. [`Fast::Drop`]: nothing is to be said at all.
pub(super) fn at_once(
    live: &Live,
    query: &Query<'_>,
    hit: &Hit<'_>,
    nodata: bool,
    record: &mut Record,
    out: &mut Vec<u8>,
) -> Option<Fast<Deferred>> {
    match hit.action {
        Action::Local => return None,
        Action::Drop => return Some(Fast::Drop),
        Action::TcpOnly => truncate(live, query, hit, record, out),
        Action::Nxdomain | Action::Nodata | Action::Passthru => refuse(live, query, hit, nodata, record, out),
    }
    Some(Fast::Reply)
}

fn text(live: &Live, hit: &Hit<'_>, refused: bool, record: &Record) -> RefusalText {
    let case = record.case.unwrap_or(CaseId::from_random(record.wall));
    RefusalText::rpz(&hit.zone.settings.id, refused, case, live.sinkhole.contact.as_deref())
}

fn truncate(live: &Live, query: &Query<'_>, hit: &Hit<'_>, record: &mut Record, out: &mut Vec<u8>) {
    record.rcode = 0;
    reply::truncated(out, query, hit.zone.settings.ede, text(live, hit, false, record).as_str());
}

/// A refusal as every other one: NXDOMAIN or NODATA with a SOA and a short negative TTL, so that the stub asks again when the
/// zone has changed.
fn refuse(live: &Live, query: &Query<'_>, hit: &Hit<'_>, nodata: bool, record: &mut Record, out: &mut Vec<u8>) {
    let text = text(live, hit, true, record);
    let refusal = Refusal {
        rcode: if nodata { 0 } else { 3 },
        soa_owner: Split::of(query.qname.as_ref()).icann(query.qname.as_ref()),
        negative_ttl: live.sinkhole.negative_ttl,
        ede: hit.zone.settings.ede,
        text: text.as_str(),
        txt: false,
    };
    record.rcode = u16::from(refusal.rcode);
    record.pins = Vec::new();
    reply::refusal(out, query, &refusal);
}

/// An answer's names and addresses, as zones are asked about them.
struct Links<'e>(&'e Entry);

impl Chain for Links<'_> {
    fn hops(&self) -> impl Iterator<Item = NameRef<'_>> {
        // Behind the aliases stand targets of service records, which the client will ask for by themselves.
        let aliases = self.0.answer.records().filter(|(rtype, _)| *rtype == Qtype::CNAME).count();
        self.0.hops.iter().take(aliases).map(NameBuf::as_ref)
    }

    fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let shown = self.0.answer.records().filter_map(|(rtype, data)| match rtype {
            Qtype::A => <[u8; 4]>::try_from(data).ok().map(IpAddr::from),
            Qtype::AAAA => <[u8; 16]>::try_from(data).ok().map(IpAddr::from),
            _ => None,
        });
        // Hints of service records are opened too, where they are not taken out; of other answers what is opened is shown.
        let has_hints = self.0.answer.records().any(|(rtype, _)| matches!(rtype, Qtype::SVCB | Qtype::HTTPS));
        shown.chain(self.0.answer.pins.iter().copied().filter(move |_| has_hints))
    }
}

/// Names that a grant or a rule speaks of: zones are not asked about them.
struct Written<'w> {
    policy: &'w Policy,
    context: &'w Context,
    grants: &'w Grants,
    wall: Wall,
}

impl Exempt for Written<'_> {
    fn name(&self, name: NameRef<'_>, depth: usize) -> bool {
        // Of the question itself policy has made what any rule says of it; of an alias only leave counts.
        self.policy.is_written(self.context, self.grants, name, self.wall, depth == 0)
    }
}

/// Whether zones have anything to say of an answer, be it only for the record.
#[allow(clippy::too_many_arguments)]
pub(super) fn says_anything(
    live: &Live,
    zones: &rpz::Snapshot,
    context: &Context,
    grants: &Grants,
    qname: NameRef<'_>,
    from: IpAddr,
    transport: Transport,
    entry: &Entry,
    now: Now,
) -> bool {
    if zones.is_empty() || grants.look_up(qname, &context.announcement.id, now.wall.steady).is_some() {
        return false;
    }
    let written = Written { policy: &live.policy, context, grants, wall: now.wall };
    let found = zones.answer(qname, from, transport == Transport::Tcp, &Links(entry), &written);
    found.hit.is_some() || found.logged.is_some()
}

/// Whether zones have a word of their own for a name that is asked for with ANY. Such a question never leaves, so what zones
/// let pass, or would only write down, is answered as ever.
#[allow(clippy::too_many_arguments)]
pub(super) fn answers_any(
    live: &Live,
    zones: &rpz::Snapshot,
    context: &Context,
    grants: &Grants,
    qname: NameRef<'_>,
    from: IpAddr,
    tcp: bool,
    now: Now,
) -> bool {
    !zones.is_empty()
        && live.policy.mode_of(context) == Mode::Enforce
        && zones.question(qname, from).hit.is_some_and(|hit| !hit.action.lets_pass(tcp))
        && !live.policy.is_written(context, grants, qname, now.wall, true)
}

/// A question that is led elsewhere, as a packet of its own: the client's flags, and room for any answer.
pub(super) fn packet_for(target: NameRef<'_>, query: &Query<'_>) -> Vec<u8> {
    let flags = 0x0100 | u16::from(query.checking_disabled) << 4 | u16::from(query.authentic_data) << 5;
    let dnssec_ok = query.edns.is_some_and(|edns| edns.dnssec_ok);
    let mut packet = Vec::with_capacity(64);
    for word in [0, flags, 1, 0, 0, 1] {
        packet.extend_from_slice(&u16::to_be_bytes(word));
    }
    packet.extend_from_slice(target.as_wire());
    for word in [query.qtype.0, 1] {
        packet.extend_from_slice(&word.to_be_bytes());
    }
    packet.push(0);
    for word in [Qtype::OPT.0, u16::MAX, 0, u16::from(dnssec_ok) << 15, 0] {
        packet.extend_from_slice(&word.to_be_bytes());
    }
    packet
}

/// The question for `name` in the place of the client's.
fn question_for(name: NameRef<'_>, qtype: Qtype) -> Vec<u8> {
    let mut question = name.as_wire().to_vec();
    question.extend_from_slice(&qtype.0.to_be_bytes());
    question.extend_from_slice(&1u16.to_be_bytes());
    question
}

impl Pipeline {
    /// Answers a question with what a zone has for it.
    pub(super) async fn rewrite_question(
        &self,
        walk: &mut Walk,
        query: &Query<'_>,
        rewrite: &Rewrite,
        out: &mut Vec<u8>,
    ) {
        let live = self.live.load_full();
        self.rewrite(&live, walk, query, rewrite, query.qname.as_ref(), Vec::new(), out).await;
    }

    /// Asks the zones about an answer that is at hand. Whether one of them has put something in its place, which is then
    /// written; where that is silence, `out` stays empty.
    pub(super) async fn rewrite_answer(
        &self,
        live: &Live,
        walk: &mut Walk,
        query: &Query<'_>,
        entry: &Entry,
        now: Now,
        out: &mut Vec<u8>,
    ) -> bool {
        let zones = live.rpz.load_full();
        // What monitor mode has recorded of the question is not recorded again of the answer.
        if walk.led.aliased || zones.is_empty() || walk.record.reason == Some(Reason::Rpz) {
            return false;
        }
        let qname = query.qname.as_ref();
        let context = walk.session.context();
        let found = {
            let grants = live.grants.load();
            if grants.look_up(qname, &context.announcement.id, now.wall.steady).is_some() {
                return false;
            }
            let written = Written { policy: &live.policy, context: &context, grants: &grants, wall: now.wall };
            zones.answer(qname, walk.from, walk.transport == Transport::Tcp, &Links(entry), &written)
        };
        if let Some(hit) = &found.logged {
            note(&mut walk.record, hit, false);
        }
        let Some(hit) = found.hit else { return false };
        let applied = live.policy.mode_of(&context) == Mode::Enforce;
        note(&mut walk.record, &hit, applied);
        self.note_refusal(walk, query, Reason::Rpz, Some(hit.reference()), now);
        if !applied {
            return false;
        }
        walk.record.verdict = Verdict::Sinkhole;
        walk.record.source = Source::Policy;
        let hops = entry.hops.get(..found.depth).unwrap_or_default();
        let name = hops.last().map_or(qname, NameBuf::as_ref);
        let owners = std::iter::once(qname).chain(hops.iter().map(NameBuf::as_ref)).take(hops.len());
        // They are not the zone's: they live no longer than they would have without it (RFC 2181 section 8).
        let (age, most) = (entry.age(now.mono), hit.zone.settings.max_ttl);
        let ttls = entry.answer.alias_ttls().map(|ttl| ttl.saturating_sub(age).min(most));
        let aliases = owners.zip(ttls).map(|(owner, ttl)| Alias { owner, ttl }).collect();
        Box::pin(self.rewrite(live, walk, query, &Rewrite::of(&hit), name, aliases, out)).await;
        true
    }

    /// Writes what a rule says of `name`, which `aliases` lead to.
    #[allow(clippy::too_many_arguments)]
    async fn rewrite(
        &self,
        live: &Live,
        walk: &mut Walk,
        query: &Query<'_>,
        rewrite: &Rewrite,
        name: NameRef<'_>,
        mut aliases: Vec<Alias<'_>>,
        out: &mut Vec<u8>,
    ) {
        let hit = rewrite.hit();
        let context = walk.session.context();
        let unreachable = is_guarded(live, &context) && context.cannot_reach(query.qtype);
        let nodata = match hit.action {
            Action::Drop => return out.clear(),
            Action::TcpOnly => return truncate(live, query, &hit, &mut walk.record, out),
            Action::Nxdomain | Action::Passthru => false,
            Action::Nodata => true,
            Action::Local if unreachable => true,
            Action::Local => match hit.target(name) {
                // Who asks for the alias itself is not led anywhere.
                Target::Name(target, ttl) if query.qtype != Qtype::CNAME => {
                    aliases.push(Alias { owner: name, ttl });
                    return self.lead(live, walk, query, &hit, &aliases, &target, out).await;
                }
                // Never a name that is cut off: nothing would be what the zone says.
                Target::TooLong => false,
                Target::Name(..) | Target::None => {
                    let (response, count) = hit.response(name, query.qtype);
                    if count > 0 {
                        return self.give_records(live, walk, query, &hit, &aliases, name, &response, out).await;
                    }
                    true
                }
            },
        };
        if aliases.is_empty() {
            return refuse(live, query, &hit, nodata, &mut walk.record, out);
        }
        // The refusal of the name itself, behind what leads to it.
        let question = question_for(name, query.qtype);
        let of_name = Query { qname: QName::copy_of(name), question: &question, edns: None, ..*query };
        let mut refusal = Vec::with_capacity(512);
        refuse(live, &of_name, &hit, nodata, &mut walk.record, &mut refusal);
        let asked = Asked { qname: name, qtype: query.qtype, dnssec_ok: false };
        match answer::vet_behind(&refusal, &aliases, asked, &live.answers) {
            Ok(vetted) => {
                show(live, walk, query, &hit, &vetted.answer, hit.zone.settings.max_ttl, true, None, out);
            }
            Err(_) => refuse(live, query, &hit, nodata, &mut walk.record, out),
        }
    }

    /// Gives the zone's own records, guarded and pinned like any answer.
    #[allow(clippy::too_many_arguments)]
    async fn give_records(
        &self,
        live: &Live,
        walk: &mut Walk,
        query: &Query<'_>,
        hit: &Hit<'_>,
        aliases: &[Alias<'_>],
        name: NameRef<'_>,
        response: &[u8],
        out: &mut Vec<u8>,
    ) {
        let asked_for = Asked { qname: name, qtype: query.qtype, dnssec_ok: false };
        let mut vetted = match answer::vet_behind(response, aliases, asked_for, &live.answers) {
            Ok(vetted) if vetted.kind != Kind::Failure => vetted,
            // More than an answer may hold: what would be left of it is not what the zone says.
            _ => return refuse(live, query, hit, false, &mut walk.record, out),
        };
        walk.record.withheld = vetted.rebinding.clone();
        if super::finish::is_emptied(&vetted) {
            return self.refuse_inside(live, walk, query, clock::now(), out);
        }
        if let Some(less) = within_reach(live, &walk.session.context(), query, &vetted.answer) {
            vetted.answer = less;
        }
        let plan = pin::plan(&live.pins, vetted.answer.ttl);
        let opens = |live: &Live, context: &Context| {
            let stands = live.rpz.load().says_as(hit) && pins_all(live, name, &vetted.answer.pins);
            let profile = live.policy.profiles.of(context.kind(), context.phase());
            stands.then(|| (profile.ports.clone(), profile.volume.cut))
        };
        if !self.pin_by_word(walk, query, (Word::PolicyZone, opens), &vetted.answer.pins, plan.ttl, out).await {
            return;
        }
        self.note_exposed(walk, &vetted.answer.pins);
        show(live, walk, query, hit, &vetted.answer, plan.ttl, false, None, out);
    }

    /// Judges and asks for the name that a rule leads to, and puts its answer behind the aliases.
    #[allow(clippy::too_many_arguments)]
    async fn lead(
        &self,
        live: &Live,
        walk: &mut Walk,
        query: &Query<'_>,
        hit: &Hit<'_>,
        aliases: &[Alias<'_>],
        target: &QName,
        out: &mut Vec<u8>,
    ) {
        let packet = packet_for(target.as_ref(), query);
        // Over TCP, as it were: the client's own limits are kept when all is put together.
        let led = Led { aliased: true, over: Some(walk.record.over), ..walk.led };
        let Some(reply) = self.walk_led(walk, &packet, Transport::Tcp, led).await else {
            return refuse(live, query, hit, false, &mut walk.record, out);
        };
        let target = target.as_ref();
        // It has been vetted on its own way, and addresses of our own zones are the operator's word: nothing is taken out again.
        let everywhere = AnswerRules::everything(target);
        let dnssec_ok = query.edns.is_some_and(|edns| edns.dnssec_ok);
        let asked = Asked { qname: target, qtype: query.qtype, dnssec_ok };
        let reason = reply::reason_in(&reply);
        let reason = reason.as_ref().map(|(ede, text)| (*ede, text.as_str()));
        match answer::vet_behind(&reply, aliases, asked, &everywhere) {
            Ok(vetted) if vetted.kind != Kind::Failure => {
                show(live, walk, query, hit, &vetted.answer, u32::MAX, false, reason, out);
            }
            _ => {
                let (ede, text) = reason.unwrap_or((Ede::Other, "the name it is led to could not be asked for"));
                super::finish::fail(walk, query, ede, text, out);
            }
        }
    }
}

/// Whether `name` may be answered with all of these addresses.
fn pins_all(live: &Live, name: NameRef<'_>, addresses: &[IpAddr]) -> bool {
    addresses.iter().all(|address| live.answers.pins(name, *address))
}

/// Writes what stands in an answer's place, and says so.
#[allow(clippy::too_many_arguments)]
fn show(
    live: &Live,
    walk: &mut Walk,
    query: &Query<'_>,
    hit: &Hit<'_>,
    answer: &answer::WireAnswer,
    cap: u32,
    refused: bool,
    more: Option<(Ede, &str)>,
    out: &mut Vec<u8>,
) {
    let text = text(live, hit, refused, &walk.record);
    walk.record.rcode = u16::from(answer.rcode);
    let own = (hit.zone.settings.ede, text.as_str());
    let forged = (Ede::ForgedAnswer, "");
    let reasons = [forged, own, more.unwrap_or(own)];
    let from = usize::from(refused);
    let reasons = reasons.get(from..if more.is_some() { 3 } else { 2 }).unwrap_or_default();
    reply::rewritten(out, query, answer, walk.transport, cap, reasons);
}
