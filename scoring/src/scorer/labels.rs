//! Known labels: a third code for a name that repeats labels already sent under its tenant.
//!
//! Directory look-ups, shards and regions say one long label again and again in different company, and the hosts of one
//! place all end alike (`api.eu-west-1.prod`, `shop.eu-west-1.prod`). Such a name is coded from the left: one bit for whether
//! more follows, one for whether it is known, then which known label or end, or the next label itself under the model. Only
//! labels of [`LEAST`] octets and more are remembered, and ends of [`LEAST_END`]; shorter ones cost little anyway.

use crate::bits::Bits;
use crate::ledger::sent::{Tag, tag};
use crate::model::Information;
use crate::state::SessionState;

/// Price of saying that a name is coded so: log2 of 16.
pub(super) const LABELLED: Bits = Bits::whole(4);
/// Octets of a label that is worth remembering.
const LEAST: usize = 10;
/// Octets of an end that is worth remembering: all that stands behind the first label or behind the first two, in wire form.
const LEAST_END: usize = 12;
/// Octets of a payload part that is looked at: what is longer is read once, so that no name takes twice the time.
const MOST_OCTETS: usize = 128;
/// Labels of a payload part that is looked at: more are no directory's.
const MOST: usize = 8;

/// The labels of a payload part, each with its length octet, so that it is a payload part of its own.
struct Labels<'p> {
    labels: [(&'p [u8], Option<Tag>); MOST],
    count: usize,
    /// What stands behind the first label, and behind the first two.
    ends: [Option<Tag>; 2],
}

impl<'p> Labels<'p> {
    /// With tags where they are remembered; `None` for more labels or octets than are looked at and where nothing is long
    /// enough.
    fn of(state: &SessionState, tenant: u64, payload: &'p [u8]) -> Option<Self> {
        if payload.len() > MOST_OCTETS {
            return None;
        }
        let mut labels = Self { labels: [(&[], None); MOST], count: 0, ends: [None; 2] };
        let (mut rest, mut kept) = (payload, false);
        while let Some(&len) = rest.first() {
            let (whole, next) = rest.split_at_checked(1 + usize::from(len))?;
            let remembered = |octets: &[u8]| tag(state.hash_octets(octets) ^ tenant);
            let tag = (usize::from(len) >= LEAST).then(|| remembered(whole));
            *labels.labels.get_mut(labels.count)? = (whole, tag);
            if let Some(end) = labels.count.checked_sub(1).and_then(|behind| labels.ends.get_mut(behind)) {
                *end = match tag {
                    // The last label alone is remembered already.
                    Some(_) if next.is_empty() => tag,
                    _ => (rest.len() >= LEAST_END).then(|| remembered(rest)),
                };
                kept |= end.is_some();
            }
            kept |= tag.is_some();
            labels.count += 1;
            rest = next;
        }
        kept.then_some(labels)
    }

    fn iter(&self) -> impl Iterator<Item = &(&'p [u8], Option<Tag>)> {
        self.labels.iter().take(self.count)
    }

    /// Labels in front of the longest end that is known; all where none is.
    fn before_end(&self, is_known: impl Fn(&Option<Tag>) -> bool) -> usize {
        self.ends.iter().position(is_known).map_or(self.count, |behind| behind + 1)
    }
}

/// What `payload` is worth in known labels and new ones; `None` where it has no known one. `known`: labels and ends
/// remembered under the tenant.
pub(super) fn worth(
    read: impl Fn(&[u8]) -> Information,
    state: &SessionState,
    tenant: u64,
    known: u16,
    payload: &[u8],
) -> Option<Information> {
    if known == 0 || payload.len() <= LEAST_END {
        return None;
    }
    let labels = Labels::of(state, tenant, payload)?;
    let is_known = |tag: &Option<Tag>| tag.is_some_and(|tag| state.sent.contains(tag));
    let before = labels.before_end(is_known);
    if before == labels.count && !labels.iter().any(|(_, tag)| is_known(tag)) {
        return None;
    }
    // One bit for whether more follows and one for whether it is known, each time.
    let (item, which) = (Bits::whole(2), Bits::log2(known.into()));
    let mut sum = Information { total: LABELLED.plus(Bits::whole(1)), richest: Bits::ZERO, richest_symbols: 0 };
    for (label, tag) in labels.iter().take(before) {
        sum.total = sum.total.plus(item);
        if is_known(tag) {
            sum.total = sum.total.plus(which);
            continue;
        }
        let new = read(label);
        sum.total = sum.total.plus(new.total);
        if new.richest > sum.richest {
            (sum.richest, sum.richest_symbols) = (new.richest, new.richest_symbols);
        }
    }
    if before < labels.count {
        sum.total = sum.total.plus(item).plus(which);
    }
    Some(sum)
}

/// Remembers the labels of a name that was sent, and its ends; how many of them are new.
pub(super) fn remember(state: &mut SessionState, tenant: u64, payload: &[u8]) -> u16 {
    let Some(labels) = Labels::of(state, tenant, payload) else { return 0 };
    let mut new = 0;
    for tag in labels.iter().map(|(_, tag)| tag).chain(&labels.ends).filter_map(|tag| *tag) {
        // A set that is full remembers no more, and then nobody gains by it.
        if !state.sent.contains(tag) && state.sent.has_spare_room() {
            state.sent.insert(tag);
            new += u16::from(state.sent.contains(tag));
        }
    }
    new
}
