//! Whether the packet filter owes what an order was to close.
//!
//! While it does, it may hold leases and flows that are nobody's any more, and this process alone knows so: whoever is told
//! here has to see to it that a start behind a crash does not take them for what they were.

use std::panic::{AssertUnwindSafe, catch_unwind};

use parking_lot::Mutex;

use super::{Command, Error};

/// See [`super::Enforcer::on_owed`].
type Watcher = Box<dyn Fn(bool) + Send>;

#[derive(Default)]
pub(super) struct Owing(Mutex<State>);

#[derive(Default)]
struct State {
    owed: bool,
    watchers: Vec<Watcher>,
}

impl Owing {
    /// Has `watcher` told of every change from here on, and of what holds now where something is owed.
    pub(super) fn watch(&self, watcher: Watcher) {
        let mut state = self.0.lock();
        if state.owed {
            tell(&watcher, true);
        }
        state.watchers.push(watcher);
    }

    /// Notes that all that was ordered is in place, unless what was owed still `waits`.
    pub(super) fn settle(&self, waits: impl FnOnce() -> bool) {
        let mut state = self.0.lock();
        if state.owed && !waits() {
            state.owed = false;
            state.watchers.iter().for_each(|watcher| tell(watcher, false));
        }
    }

    /// Notes that something is owed, or that nothing is. Whoever watches has been told when this returns, whichever thread it
    /// was that told: the lock is held meanwhile.
    pub(super) fn note(&self, owed: bool) {
        let mut state = self.0.lock();
        if std::mem::replace(&mut state.owed, owed) != owed {
            state.watchers.iter().for_each(|watcher| tell(watcher, owed));
        }
    }
}

fn tell(watcher: &Watcher, owed: bool) {
    // Enforcement must not end because somebody who watches it fails.
    if catch_unwind(AssertUnwindSafe(|| watcher(owed))).is_err() {
        tracing::error!("a watcher of what the packet filter owes panicked");
    }
}

/// Whether the failure says that the packet filter does not hold what it must, before the next look finds out.
pub(super) fn alarming(command: &Command, error: &Error) -> bool {
    match error {
        Error::Unhealthy(_) | Error::Io { .. } => true,
        // A pin too few refuses a flow; any other order that is missing may let one pass.
        Error::Kernel { .. } => !matches!(command, Command::Pin { .. }),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_debt_lasts_for_as_long_as_what_was_to_be_closed_waits() {
        let (owing, told) = (Owing::default(), std::sync::Arc::new(Mutex::new(Vec::new())));
        let tell = told.clone();
        owing.watch(Box::new(move |owed| tell.lock().push(owed)));
        owing.settle(|| false);
        owing.note(true);
        owing.note(true);
        owing.settle(|| true);
        assert_eq!(*told.lock(), [true], "once, and it stays");
        owing.settle(|| false);
        assert_eq!(*told.lock(), [true, false]);
    }
}
