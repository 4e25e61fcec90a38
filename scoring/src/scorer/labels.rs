//! Known labels: a third code for a name that repeats labels already sent under its tenant.
//!
//! Directory look-ups, shards and regions say one long label again and again in different company. Such a name is coded
//! label by label: one bit for whether another label follows, one for whether it is a known one, then which, or the
//! label itself under the model. Only labels of [`LEAST`] octets and more are remembered; shorter ones cost little
//! anyway.

use crate::bits::Bits;
use crate::ledger::sent::{Tag, tag};
use crate::model::{Information, Model};
use crate::state::SessionState;

/// Price of saying that a name is coded so: log2 of 16.
pub(super) const LABELLED: Bits = Bits::whole(4);
/// Octets of a label that is worth remembering.
const LEAST: usize = 10;
/// Labels of a payload part that is looked at: more are no directory's.
const MOST: usize = 8;

/// The labels of `payload` with their tags, where they are remembered.
fn labels<'p>(state: &SessionState, tenant: u64, payload: &'p [u8]) -> impl Iterator<Item = (&'p [u8], Option<Tag>)> {
    let mut rest = payload;
    std::iter::from_fn(move || {
        let (&len, tail) = rest.split_first()?;
        // With its length octet a label is a payload part of its own.
        let whole = rest.get(..1 + usize::from(len)).unwrap_or(rest);
        rest = tail.get(usize::from(len)..).unwrap_or_default();
        let kept = usize::from(len) >= LEAST;
        Some((whole, kept.then(|| tag(state.hash_octets(whole) ^ tenant))))
    })
}

/// What `payload` is worth in known labels and new ones; `None` where it has no known one. `known`: labels remembered
/// under the tenant.
pub(super) fn worth(
    model: &Model,
    state: &SessionState,
    tenant: u64,
    known: u16,
    payload: &[u8],
) -> Option<Information> {
    // A payload part with so few labels may have a long one; with more it is not looked at.
    if known == 0 || payload.len() <= LEAST || labels(state, tenant, payload).nth(MOST).is_some() {
        return None;
    }
    if !labels(state, tenant, payload).any(|(_, tag)| tag.is_some_and(|tag| state.sent.contains(tag))) {
        return None;
    }
    let which = Bits::log2(known.into());
    let mut sum = Information { total: LABELLED.plus(Bits::whole(1)), richest: Bits::ZERO, richest_symbols: 0 };
    for (label, tag) in labels(state, tenant, payload) {
        sum.total = sum.total.plus(Bits::whole(2));
        if tag.is_some_and(|tag| state.sent.contains(tag)) {
            sum.total = sum.total.plus(which);
            continue;
        }
        let new = model.read(label);
        sum.total = sum.total.plus(new.total);
        if new.richest > sum.richest {
            (sum.richest, sum.richest_symbols) = (new.richest, new.richest_symbols);
        }
    }
    Some(sum)
}

/// Remembers the labels of a name that was sent; how many of them are new.
pub(super) fn remember(state: &mut SessionState, tenant: u64, payload: &[u8]) -> u16 {
    let mut new = 0;
    let mut tags = [None; MOST];
    for (slot, (_, tag)) in tags.iter_mut().zip(labels(state, tenant, payload)) {
        *slot = tag;
    }
    for tag in tags.into_iter().flatten() {
        // A set that is full remembers no more, and then nobody gains by it.
        if !state.sent.contains(tag) {
            state.sent.insert(tag);
            new += u16::from(state.sent.contains(tag));
        }
    }
    new
}
