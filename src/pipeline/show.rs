//! How an answer that is at hand is shown: with which TTL, and with what said beside it.

use super::Live;
use super::pins::{asked, opens_too_much};
use crate::cache::Entry;
use crate::event::{Source, Verdict};
use crate::model::Now;
use crate::partition::View;
use crate::pin;
use crate::policy::{Opens, RefusalText};
use crate::reply;
use crate::session::{Context, Inner};
use crate::telemetry::Record;
use crate::wire::Query;

/// TTL of an answer that has expired and is shown because its question is held or no upstream answers, seconds (RFC 8767
/// section 4).
pub(super) const STALE_TTL: u32 = 30;

/// Whether a record's answer is from memory and its time is over.
pub(super) fn is_old(record: &Record, entry: &Entry, now: Now) -> bool {
    record.source == Source::Cache && entry.is_expired(now.mono)
}

/// Whether it is shown all the same because its question is held or no upstream answers, and not only until its floor.
pub(super) fn is_stale(record: &Record, entry: &Entry, now: Now) -> bool {
    // One that is not kept has no time of use beyond its own, and was not fetched from memory.
    is_old(record, entry, now) && (record.verdict == Verdict::Hold || now.mono >= entry.usable)
}

/// The TTL that a record's answer may be shown with as far as its age goes.
pub(super) fn ttl_of(record: &Record, entry: &Entry, now: Now) -> u32 {
    if is_stale(record, entry, now) { STALE_TTL } else { entry.ttl_left(now.mono) }
}

/// The TTL under which a cached answer may be shown without asking the packet filter again; `None` if the pins of this
/// session are to be renewed first.
///
/// Pins that have less left than the answer shorten what is shown (RFC 1035 section 3.2.1 makes a TTL an upper limit) down to
/// half of it. Else an answer that lives longer than the longest pin would be pinned anew each time that it is asked for.
pub(super) fn shown(
    live: &Live,
    context: &Context,
    inner: &mut Inner,
    record: &Record,
    (entry, opens): (&Entry, &Opens<'_>),
    view: View,
    now: Now,
) -> Option<u32> {
    // Another answer is made of it for this session, elsewhere.
    if opens_too_much(live, context, &entry.answer) {
        return None;
    }
    let left = ttl_of(record, entry, now).min(view.cap(now.mono, None, STALE_TTL));
    let Some(first) = entry.answer.pins.first().filter(|_| live.enforcing) else { return Some(left) };
    if context.addresses_like(*first).next().is_none() {
        return Some(left);
    }
    let plan = pin::plan(&live.pins, left);
    let grace = live.pins.grace().as_millis() as u64;
    let least = now.mono + u64::from(plan.ttl.div_ceil(2)) * 1000 + grace;
    let asked = asked(live, record.qname.as_ref(), opens.ports, opens.volume);
    let end = inner.pins.all_open_until(&asked, &entry.answer.pins, least)?;
    let room = end.saturating_sub(now.mono + grace) / 1000;
    Some(plan.ttl.min(u32::try_from(room).unwrap_or(u32::MAX)))
}

/// Writes an answer that is pinned for `ttl` seconds and more. One from the cache that has expired says so: within the
/// floor its TTL is what is left of it, nothing; where its question is held, the reason stands beside it.
pub(super) fn show(out: &mut Vec<u8>, query: &Query<'_>, record: &mut Record, entry: &Entry, ttl: u32, now: Now) {
    record.rcode = u16::from(entry.answer.rcode);
    if !is_old(record, entry, now) {
        return reply::from_answer(out, query, &entry.answer, record.transport, entry.age(now.mono), ttl);
    }
    let text = held_text(record);
    let text = text.as_ref().map_or("", RefusalText::as_str);
    reply::stale(out, query, &entry.answer, record.transport, ttl, text);
}

/// What is said beside an old answer, where its question is held.
pub(super) fn held_text(record: &Record) -> Option<RefusalText> {
    record.case.filter(|_| record.verdict == Verdict::Hold).map(RefusalText::held)
}
