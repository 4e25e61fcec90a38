//! Work beside questions on which a thread of its own must not end: a mistake in one piece of it costs that piece, and is told.
//!
//! The log says which piece it was, once a minute for each kind; [`count`] is what the metrics page and an alert are made of.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::clock;
use crate::sparing::Sparing;

static COUNT: AtomicU64 = AtomicU64::new(0);

/// What panicked here since the process began.
pub fn count() -> u64 {
    COUNT.load(Relaxed)
}

/// Does one piece of work; `None` where it panicked. What the work has changed may be half done then: the caller makes anew what it
/// goes on with. `what` is told.
pub fn survived<T>(what: &'static str, told: &Sparing, work: impl FnOnce() -> T) -> Option<T> {
    let done = catch_unwind(AssertUnwindSafe(work)).ok();
    if done.is_none() {
        note(what, told);
    }
    done
}

/// Tells of what somebody else has caught.
pub(crate) fn note(what: &'static str, told: &Sparing) {
    COUNT.fetch_add(1, Relaxed);
    if let Some(kept_back) = told.turn(clock::now().mono) {
        tracing::error!(what, kept_back, "a part of the service panicked, which is a mistake in it, and goes on");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_panics_is_counted_and_what_does_not_is_as_it_was() {
        let told = Sparing::new();
        let before = count();
        assert_eq!(survived("adding", &told, || 1 + 1), Some(2));
        assert_eq!(survived("failing", &told, || panic!("what a mistake in our own code does")), None::<u32>);
        assert!(count() > before);
    }
}
