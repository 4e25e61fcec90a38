//! Known labels: a third code for a name that repeats labels already sent under its tenant.
//!
//! Directory look-ups, shards and regions say one long label again and again in different company. Such a name is coded
//! label by label: one bit for whether another label follows, one for whether it is a known one, then which, or the
//! label itself under the model. Only labels of [`LEAST`] octets and more are remembered; shorter ones cost little
//! anyway.

use crate::bits::Bits;
use crate::ledger::sent::{Tag, tag};
use crate::model::Information;
use crate::state::SessionState;

/// Price of saying that a name is coded so: log2 of 16.
pub(super) const LABELLED: Bits = Bits::whole(4);
/// Octets of a label that is worth remembering.
const LEAST: usize = 10;
/// Octets of a payload part that is looked at: what is longer is read once, so that no name takes twice the time.
const MOST_OCTETS: usize = 128;
/// Labels of a payload part that is looked at: more are no directory's.
const MOST: usize = 8;

/// The labels of a payload part, each with its length octet, so that it is a payload part of its own.
struct Labels<'p> {
    labels: [(&'p [u8], Option<Tag>); MOST],
    count: usize,
}

impl<'p> Labels<'p> {
    /// With tags where they are remembered; `None` for more labels than are looked at and where none is long enough.
    fn of(state: &SessionState, tenant: u64, payload: &'p [u8]) -> Option<Self> {
        let mut labels = Self { labels: [(&[], None); MOST], count: 0 };
        let (mut rest, mut kept) = (payload, false);
        while let Some(&len) = rest.first() {
            let (whole, next) = rest.split_at_checked(1 + usize::from(len))?;
            let tag = (usize::from(len) >= LEAST).then(|| tag(state.hash_octets(whole) ^ tenant));
            kept |= tag.is_some();
            *labels.labels.get_mut(labels.count)? = (whole, tag);
            labels.count += 1;
            rest = next;
        }
        kept.then_some(labels)
    }

    fn iter(&self) -> impl Iterator<Item = &(&'p [u8], Option<Tag>)> {
        self.labels.iter().take(self.count)
    }
}

/// What `payload` is worth in known labels and new ones; `None` where it has no known one. `known`: labels remembered
/// under the tenant.
pub(super) fn worth(
    read: impl Fn(&[u8]) -> Information,
    state: &SessionState,
    tenant: u64,
    known: u16,
    payload: &[u8],
) -> Option<Information> {
    if known == 0 || payload.len() <= LEAST || payload.len() > MOST_OCTETS {
        return None;
    }
    let labels = Labels::of(state, tenant, payload)?;
    let is_known = |tag: &Option<Tag>| tag.is_some_and(|tag| state.sent.contains(tag));
    if !labels.iter().any(|(_, tag)| is_known(tag)) {
        return None;
    }
    let which = Bits::log2(known.into());
    let mut sum = Information { total: LABELLED.plus(Bits::whole(1)), richest: Bits::ZERO, richest_symbols: 0 };
    for (label, tag) in labels.iter() {
        sum.total = sum.total.plus(Bits::whole(2));
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
    Some(sum)
}

/// Remembers the labels of a name that was sent; how many of them are new.
pub(super) fn remember(state: &mut SessionState, tenant: u64, payload: &[u8]) -> u16 {
    let Some(labels) = Labels::of(state, tenant, payload) else { return 0 };
    let mut new = 0;
    for tag in labels.iter().filter_map(|(_, tag)| *tag) {
        // A set that is full remembers no more, and then nobody gains by it.
        if !state.sent.contains(tag) && state.sent.has_spare_room() {
            state.sent.insert(tag);
            new += u16::from(state.sent.contains(tag));
        }
    }
    new
}
