//! Verdicts that stand: a question that the same session has asked a moment ago, with nothing changed since.
//!
//! An answer from memory and a refusal by a rule or list change nothing that a verdict rests on (`Outcome::Cached` books
//! nothing), so the same question of the same session would be judged alike. From the second time on within [`STANDS`], such a
//! question is counted and gets its answer by the verdict that was made, as long as the session's state, its context, the
//! configuration, the policy zones and the grants are those it was made on, its pins and the answer last, and the ways out are
//! closed. Its events are one, with their number.
//!
//! What was said last is kept as it was written, as long as its TTLs would be the same, for a query of the same kind.
//!
//! Capacity: [`BUCKETS`] times [`WAYS`] verdicts, about 1.5 KiB each, 2 KiB at most. A question that finds its bucket full takes
//! the oldest one's place; what that costs is a judgement and an event more.

use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Live, Pipeline, is_guarded};
use crate::cache::Entry;
use crate::event::Verdict;
use crate::model::{Now, Transport};
use crate::reply::{self, Rendered};
use crate::session::Session;
use crate::telemetry::Record;
use crate::wire::Query;

/// How long a verdict stands, milliseconds: what moves with time alone (ages of domains, ends of grants) is this late at most.
const STANDS: u64 = 1_000;
const BUCKETS: usize = 1_024;
const WAYS: usize = 4;

/// What a verdict was made on, beside the question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Basis {
    session: u64,
    live: u64,
    vetting: u64,
    grants: u64,
    zones: u64,
}

impl Basis {
    pub(super) fn new(session: u64, live: &Live, grants: u64, zones: u64) -> Self {
        Self { session, live: live.version, vetting: live.vetting(), grants, zones }
    }
}

/// What is said.
pub(super) enum Said {
    /// An answer at hand, shown with so many seconds when the verdict was made.
    Answer(Arc<Entry>, u32),
    /// A refusal, as NODATA or not.
    Refusal(bool),
}

/// A verdict. In this order: what is looked at each time stands together, and the record is long.
#[repr(C)]
struct Stand {
    session: Arc<Session>,
    basis: Basis,
    /// How often it was given, the first time included, and when last (Unix milliseconds).
    count: u64,
    last: u64,
    made: u64,
    /// What was written last, and until when (monotonic milliseconds, inclusive) its TTLs are right.
    written: Option<(Rendered, u64)>,
    flags: u8,
    /// Whether its session is held back by the packet filter.
    guarded: bool,
    /// The first record that it stands for.
    record: Record,
    said: Said,
}

impl Stand {
    fn is_of(&self, session: &Arc<Session>, query: &Query<'_>, from: IpAddr, transport: Transport) -> bool {
        Arc::ptr_eq(&self.session, session)
            && self.record.qname.as_ref() == query.qname.as_ref()
            && self.record.qtype == query.qtype
            && self.flags == flags(query)
            && self.record.address == from
            && self.record.transport == transport
    }
}

/// What of a query's flags an answer depends on.
fn flags(query: &Query<'_>) -> u8 {
    u8::from(query.edns.is_some_and(|edns| edns.dnssec_ok)) | u8::from(query.checking_disabled) << 1
}

/// A question that was seen lately.
#[derive(Default)]
struct Slot {
    /// Keyed hash of the question that was seen last.
    tag: u64,
    /// Until when it counts as seen, or the verdict stands; monotonic milliseconds.
    until: u64,
    stand: Option<Box<Stand>>,
}

/// Questions whose tags fall together.
type Bucket = [Slot; WAYS];

/// All verdicts that stand.
pub(super) struct Standing {
    buckets: Box<[Mutex<Bucket>]>,
}

impl Default for Standing {
    fn default() -> Self {
        Self { buckets: (0..BUCKETS).map(|_| Mutex::default()).collect() }
    }
}

impl Standing {
    fn bucket(&self, tag: u64) -> &Mutex<Bucket> {
        &self.buckets[(tag % BUCKETS as u64) as usize] // there are so many
    }
}

/// Seconds since a verdict was made, rounded up, so that pins outlive what is shown.
fn elapsed(made: u64, now: u64) -> u64 {
    now.saturating_sub(made).div_ceil(1_000)
}

/// Until when (monotonic milliseconds, inclusive) an answer that has not expired shows the same TTLs as now.
fn alike_until(made: u64, entry: &Entry, now: u64) -> u64 {
    let older = entry.stored.saturating_add((u64::from(entry.age(now)) + 1) * 1_000);
    let later = made.saturating_add(elapsed(made, now) * 1_000);
    later.min(older.min(entry.expires).saturating_sub(1)).max(now)
}

impl Pipeline {
    fn tag(&self, session: &Arc<Session>, query: &Query<'_>, from: IpAddr, transport: Transport) -> u64 {
        let to = (Arc::as_ptr(session) as usize, query.qtype.0, flags(query), transport == Transport::Tcp);
        self.hash((to, from, query.qname.as_ref().as_wire()))
    }

    /// Answers a question whose verdict stands; `false` where it has to be judged.
    pub(super) fn stands(
        &self,
        query: &Query<'_>,
        from: IpAddr,
        transport: Transport,
        now: Now,
        out: &mut Vec<u8>,
    ) -> bool {
        let Some(session) = self.sessions.by_address(from) else { return false };
        let tag = self.tag(&session, query, from, transport);
        let mut bucket = self.standing.bucket(tag).lock();
        let Some(slot) = bucket.iter_mut().find(|slot| slot.tag == tag && slot.stand.is_some()) else { return false };
        let until = slot.until;
        let live = self.live.load();
        if let Some(stand) = slot.stand.as_deref_mut()
            && now.mono < until
            && stand.is_of(&session, query, from, transport)
            && stand.basis
                == Basis::new(session.inner.version(), &live, live.grants.load().version(), live.rpz.load().version())
            && self.give(&live, stand, query, transport, now, out)
        {
            stand.count += 1;
            stand.last = now.wall.shown;
            return true;
        }
        let over = slot.stand.take();
        drop(bucket);
        self.count_over(over);
        false
    }

    /// Writes what a verdict says, if that may still be said.
    fn give(
        &self,
        live: &Live,
        stand: &mut Stand,
        query: &Query<'_>,
        transport: Transport,
        now: Now,
        out: &mut Vec<u8>,
    ) -> bool {
        if stand.guarded && !(self.enforcer.healthy() && self.holds(live, now)) {
            return false;
        }
        if let Some((rendered, until)) = &stand.written
            && now.mono <= *until
            && rendered.write(out, query, transport)
        {
            return true;
        }
        let until = match &stand.said {
            Said::Answer(entry, ttl) => {
                let elapsed = elapsed(stand.made, now.mono);
                if entry.is_expired(now.mono) || u64::from(*ttl) <= elapsed {
                    return false;
                }
                let cap = ttl.saturating_sub(elapsed as u32); // below the TTL
                let age = entry.age(now.mono);
                reply::from_answer(out, query, &entry.answer, transport, age, cap);
                alike_until(stand.made, entry, now.mono)
            }
            Said::Refusal(nodata) => {
                self.refuse(live, query, *nodata, &mut stand.record, out);
                u64::MAX
            }
        };
        stand.written = Rendered::of(query, transport, out).map(|rendered| (rendered, until));
        true
    }

    /// Hands over the record of a question that was answered at once. The second time within [`STANDS`] its verdict is kept, if
    /// it is one that may stand: `said` is nothing where it may not.
    pub(super) fn keep_standing(
        &self,
        query: &Query<'_>,
        session: &Arc<Session>,
        basis: Basis,
        said: Said,
        record: Record,
        now: Now,
    ) {
        let tag = self.tag(session, query, record.address, record.transport);
        let mut bucket = self.standing.bucket(tag).lock();
        let at = bucket.iter().position(|slot| slot.tag == tag);
        let at = at.or_else(|| (0..WAYS).min_by_key(|at| bucket[*at].until)).unwrap_or(0);
        let slot = &mut bucket[at]; // one of so many
        let over = slot.stand.take();
        let again = slot.tag == tag && now.mono < slot.until;
        (slot.tag, slot.until) = (tag, now.mono + STANDS);
        if again {
            let guarded = is_guarded(&self.live.load(), &record.context);
            slot.stand = Some(Box::new(Stand {
                session: session.clone(),
                basis,
                count: 1,
                last: record.wall,
                made: now.mono,
                written: None,
                flags: flags(query),
                guarded,
                record,
                said,
            }));
            drop(bucket);
        } else {
            drop(bucket);
            self.telemetry.record(record);
        }
        self.count_over(over);
    }

    /// Ends verdicts whose time is over, or all of them: counts what they stood for. Called every half second, and where counts
    /// are shown.
    pub fn settle_standing(&self, now: Now, all: bool) {
        for bucket in &self.standing.buckets {
            let over = |slot: &mut Slot| {
                if all || now.mono >= slot.until { slot.stand.take() } else { None }
            };
            let over = bucket.lock().each_mut().map(over);
            for over in over {
                self.count_over(over);
            }
        }
    }

    /// Counts what a verdict stood for, and writes its one event.
    fn count_over(&self, over: Option<Box<Stand>>) {
        let Some(over) = over else { return };
        let Stand { session, mut record, count, last, .. } = *over;
        record.wall = last;
        // The first of them was counted when it was judged.
        let more = count - 1;
        let mut held = session.inner.lock();
        let counts = &mut held.quietly().counts;
        counts.queries += more;
        counts.refused += if record.would == Verdict::Answer { 0 } else { more };
        drop(held);
        record.count = count;
        self.telemetry.record(record);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::answer::WireAnswer;

    proptest! {
        /// TTLs move when they would if each reply were written anew, and not before.
        #[test]
        fn what_was_written_is_right_until_a_second_is_over(stored in 0u64..5_000, after in 0u64..3_000, passed in 0u64..2_000) {
            let answer = WireAnswer {
                rcode: 0,
                authentic_data: false,
                ede: None,
                answers: 0,
                authorities: 0,
                body: Box::default(),
                ttl_at: Box::default(),
                ttl: 3,
                pins: Box::default(),
                beyond: false,
            };
            let entry = Entry::passing(0, answer, Box::default(), stored);
            let made = stored + after;
            let now = made + passed;
            prop_assume!(!entry.is_expired(now));
            let shows = |now| (elapsed(made, now), entry.age(now), entry.is_expired(now));
            let until = alike_until(made, &entry, now);
            prop_assert!(now <= until && (now..=until).all(|then| shows(then) == shows(now)));
            prop_assert!(shows(until + 1) != shows(now));
        }
    }
}
