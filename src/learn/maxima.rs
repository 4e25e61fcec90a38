//! What one session adds to what is learned: the largest score it reached under each tenant, in bounded memory.
//!
//! Filled by [`crate::policy::Policy::commit`] under the session's lock, emptied by nobody: [`super::Book::fold`] hands
//! on what is new since it last looked, so a session counts once however long it runs.
//!
//! What an agent gains by filling it: nothing past [`TENANTS`] pairs. A session weighs one value for each tenant,
//! whatever it asks under it.

use std::hash::BuildHasher as _;

use foldhash::fast::RandomState;
use staunch_scoring::{Assessment, Bits, Facts, Listing};

use super::histogram::bin_of_nats;
use crate::lists::Scope;

/// Pairs of tenant and phase that one session adds at most; further ones are counted and left out. Benign sessions
/// meet 31 in the mean.
pub const TENANTS: usize = 64;

/// One session under one tenant in one phase.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pair {
    tag: u32,
    pub(super) scope: u8,
    /// Largest score, as its bin.
    pub(super) any: u8,
    /// Largest score that would have sinkholed a name where it is past the threshold, as its bin.
    pub(super) refusable: u8,
    /// Whether it was handed on, and as what.
    pub(super) folded: bool,
    pub(super) folded_any: u8,
    pub(super) folded_refusable: u8,
    pub(super) folded_told: u16,
    /// Spent under the tenant.
    pub(super) told: Bits,
}

/// One session in one phase.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    pub(super) scope: u8,
    /// Spent by the session over all unlisted domains, at its last query in this phase.
    pub(super) told: Bits,
    pub(super) folded: bool,
    pub(super) folded_told: u16,
    pub(super) folded_over: bool,
    /// Pairs for which there was no room.
    pub(super) left_out: u32,
    pub(super) folded_left_out: u32,
}

/// See the module. 72 octets while idle, 2 KiB at most.
#[derive(Debug, Default)]
pub struct Maxima {
    /// Keyed for each session, so that nobody can choose tenants that share a place.
    hasher: RandomState,
    pub(super) pairs: Vec<Pair>,
    /// At most one for each phase of each type the session ever had.
    pub(super) parts: Vec<Part>,
    /// Something was noted that was not handed on.
    pub(super) fresh: bool,
    /// It is no example: it would have been closed.
    pub(super) barred: bool,
    /// It was said to be none.
    pub(super) barred_told: bool,
    /// The state of the book that it was handed on to.
    pub(super) epoch: u32,
}

impl Maxima {
    /// Notes one query that was judged in monitor mode; names that a rule covers are passed over. Allocates when a session meets its 1st, 5th, 9th, 17th and 33rd tenant, else never.
    pub fn note(&mut self, scope: Scope, facts: &Facts<'_>, assessment: &Assessment, allowance: Bits) {
        if facts.listing != Listing::Unlisted || self.barred {
            return;
        }
        let scope = scope.index() as u8;
        // There are no more bins than an octet holds.
        let any = bin_of_nats(assessment.score) as u8;
        let refusable = if refusable(facts, assessment, allowance) { any } else { 0 };
        let ledger = if facts.cached { assessment.before } else { assessment.after };
        self.fresh = true;
        let at = match self.parts.iter().position(|part| part.scope == scope) {
            Some(at) => at,
            None => {
                let (told, folded, folded_told, folded_over) = (Bits::ZERO, false, 0, false);
                let (left_out, folded_left_out) = (0, 0);
                self.parts.push(Part { scope, told, folded, folded_told, folded_over, left_out, folded_left_out });
                self.parts.len() - 1
            }
        };
        // Just found or pushed.
        let part = &mut self.parts[at];
        part.told = part.told.max(ledger.session);
        let tag = (self.hasher.hash_one(facts.split.tenant(facts.qname).as_wire()) >> 32) as u32;
        if let Some(pair) = self.pairs.iter_mut().find(|pair| pair.tag == tag && pair.scope == scope) {
            pair.any = pair.any.max(any);
            pair.refusable = pair.refusable.max(refusable);
            pair.told = pair.told.max(ledger.tenant);
        } else if self.pairs.len() < TENANTS {
            let told = ledger.tenant;
            let (folded, folded_any, folded_refusable, folded_told) = (false, 0, 0, 0);
            self.pairs.push(Pair {
                tag,
                scope,
                any,
                refusable,
                folded,
                folded_any,
                folded_refusable,
                folded_told,
                told,
            });
        } else {
            part.left_out = part.left_out.saturating_add(1);
        }
    }

    /// The session would have been closed, or was: what it asked is no example of ordinary work, before or after.
    pub fn bar(&mut self) {
        self.barred = true;
    }

    /// Whether anything was handed on.
    pub(super) fn is_folded(&self) -> bool {
        self.parts.iter().any(|part| part.folded)
    }

    /// Forgets everything but whether the session is an example.
    pub(super) fn forget(&mut self) {
        self.pairs = Vec::new();
        self.parts = Vec::new();
    }

    /// Pairs noted.
    pub fn pairs(&self) -> usize {
        self.pairs.len()
    }

    /// Pairs whose score was enough for a sinkhole by the shipped threshold, whose bin is `shipped`.
    pub(super) fn over(&self, shipped: u16) -> usize {
        self.pairs.iter().filter(|pair| u16::from(pair.refusable) >= shipped).count()
    }
}

/// Whether the score alone decides if this name is sinkholed: it would tell something new, and two families agree or the
/// tenant's soft budget is spent. The scorer's own gate, without its threshold.
pub fn refusable(facts: &Facts<'_>, assessment: &Assessment, allowance: Bits) -> bool {
    let tells = !facts.cached && !assessment.charge.repeat;
    let soft = facts.budgets.tenant_soft.plus(allowance);
    tells && (assessment.agreeing >= 2 || assessment.told > soft)
}
