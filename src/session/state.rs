//! The changing part of a session behind its lock, with a number that rises when something changes on which a verdict may rest.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};

use super::Inner;

/// A session's [`Inner`] behind a short mutex, held for microseconds and never across an await.
///
/// Whoever changes it makes [`version`](Self::version) rise, unless by [`Held::quietly`]; so a verdict that was made under a
/// version stands as long as the version does.
#[derive(Debug)]
pub struct StateLock {
    inner: Mutex<Inner>,
    version: AtomicU64,
}

impl StateLock {
    pub(super) fn new(inner: Inner) -> Self {
        Self { inner: Mutex::new(inner), version: AtomicU64::new(0) }
    }

    /// Waits for the lock.
    pub fn lock(&self) -> Held<'_> {
        Held { inner: self.inner.lock(), version: &self.version, risen: false }
    }

    /// How often it was changed. Reading takes no lock: a change that is under way may or may not be counted.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Counts a change of what lies outside the lock.
    pub(super) fn raise(&self) {
        self.version.fetch_add(1, Ordering::AcqRel);
    }
}

/// The lock, held.
#[derive(Debug)]
pub struct Held<'s> {
    inner: MutexGuard<'s, Inner>,
    version: &'s AtomicU64,
    risen: bool,
}

impl Held<'_> {
    /// For what no verdict of another question rests on (counts, what was asked last), and for samples, by which names with a
    /// suffix behind them are denied: an answer that stands for one of those is over within the second. The version stays.
    pub fn quietly(&mut self) -> &mut Inner {
        &mut self.inner
    }

    /// The version, for a verdict made on this state.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Relaxed)
    }
}

impl Deref for Held<'_> {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.inner
    }
}

impl DerefMut for Held<'_> {
    fn deref_mut(&mut self) -> &mut Inner {
        if !self.risen {
            self.risen = true;
            self.version.fetch_add(1, Ordering::AcqRel);
        }
        &mut self.inner
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changes_that_matter_are_counted() {
        let state = StateLock::new(Inner::new(1));
        assert_eq!((state.lock().counts.queries, state.version()), (0, 0), "reading");
        state.lock().quietly().counts.queries += 1;
        assert_eq!((state.lock().counts.queries, state.version()), (1, 0), "quietly");
        let mut held = state.lock();
        held.watched = true;
        held.ended = true;
        assert_eq!(held.version(), 1, "once for each time it is held");
        drop(held);
        state.lock().release();
        state.raise();
        assert_eq!(state.version(), 3);
    }
}
