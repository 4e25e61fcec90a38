//! How often a second upstream may be asked before the first one has failed.
//!
//! When all upstreams are slow because they are overloaded, asking each question twice would keep them so. A second one that
//! answers in its usual time, and in that of the first, is not overloaded, so what was paid for it is given back: of an upstream that loses a third of all
//! questions none waits longer than until the next one is asked.

use std::sync::atomic::{AtomicU32, Ordering};

/// What a hedge costs.
const PRICE: u32 = 100;
/// What a question earns: five hedges for a hundred questions.
const EARNED: u32 = 5;
/// Most that is saved: the first hundred questions that meet an upstream gone silent need no more, and a burst is told
/// apart from a state that lasts. Chosen without a source.
const MOST: u32 = 100 * PRICE;

/// A bucket of tokens, full at the start.
#[derive(Debug)]
pub(super) struct Budget(AtomicU32);

impl Default for Budget {
    fn default() -> Self {
        Self(AtomicU32::new(MOST))
    }
}

impl Budget {
    /// A question is asked.
    pub(super) fn earn(&self) {
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |saved| Some((saved + EARNED).min(MOST)));
    }

    /// The hedge that was paid for was answered, and as soon as usual.
    pub(super) fn repay(&self) {
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |saved| Some((saved + PRICE).min(MOST)));
    }

    /// Pays for a hedge, if there is enough.
    pub(super) fn spend(&self) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |saved| saved.checked_sub(PRICE)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_at_once_then_one_in_twenty() {
        let budget = Budget::default();
        assert_eq!((0..1000).filter(|_| budget.spend()).count(), 100);
        let mut hedged = 0;
        for _ in 0..1000 {
            budget.earn();
            hedged += u32::from(budget.spend());
        }
        assert_eq!(hedged, 50);
        (0..1_000_000).for_each(|_| budget.earn());
        assert_eq!((0..1000).filter(|_| budget.spend()).count(), 100);
        // What is given back can be spent once.
        budget.repay();
        assert_eq!((0..1000).filter(|_| budget.spend()).count(), 1);
        (0..1000).for_each(|_| budget.repay());
        assert_eq!((0..1000).filter(|_| budget.spend()).count(), 100, "never more than there may be");
    }
}
