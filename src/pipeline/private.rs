//! Sessions that share answers and must not notice it.
//!
//! Where `private_timing` is on, a session's first question for a name is judged, charged and refused as if nobody had asked
//! it before, waits as long as the first one did (and for a random moment, where that is due), and is shown a TTL that says
//! nothing of when that was. From then on the answer is the session's own for the floor; then it is asked as if anew. An
//! answer that has less than the floor left is asked for by whoever comes, and so is one that failed.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::finish::key_asked;
use super::show::STALE_TTL;
use super::{Live, Pipeline, Walk};
use crate::cache::{Entry, Key};
use crate::clock;
use crate::event::Source;
use crate::model::Now;
use crate::partition::View;
use crate::session::Inner;
use crate::wire::Query;

/// Answers come at multiples of this, milliseconds: what is far below it (a timer's grain, the work on a fresh answer) tells
/// nothing. Chosen without a source: little beside an exchange over the internet.
const STEP_MS: u32 = 5;
/// What is done with a fresh answer takes less, milliseconds.
const SLACK_MS: u32 = 2;

/// Whether an answer lasts for as long as it would be a session's own, so that its end tells nothing.
pub(super) fn is_whole(live: &Live, entry: &Entry, now: Now) -> bool {
    entry.usable.saturating_sub(now.mono) >= live.repeats.floor.as_millis() as u64
}

/// When an answer that took so many milliseconds is due: a whole number of [`STEP_MS`] behind the question, and late enough
/// that what is done with a fresh answer has been done.
fn due(took: u32) -> Duration {
    Duration::from_millis(u64::from((took.saturating_add(SLACK_MS) / STEP_MS).saturating_add(1)) * u64::from(STEP_MS))
}

impl Pipeline {
    /// What a session may know of an answer at hand. Called under its lock.
    pub(super) fn view_in(&self, inner: &Inner, private: bool, key: Key<'_>, now: Now) -> View {
        if private { inner.views.of(self.hash(key), now.mono) } else { View::Open }
    }

    /// The same, taking the lock.
    pub(super) fn view(&self, walk: &Walk, private: bool, key: Key<'_>, now: Now) -> View {
        if private { walk.session.inner.lock().views.of(self.hash(key), now.mono) } else { View::Open }
    }

    /// The answer that may be given at once.
    pub(super) fn at_hand(&self, key: Key<'_>, view: View, now: Now) -> Option<Arc<Entry>> {
        if view.is_now() { self.cache.get(key, now.mono) } else { None }
    }

    /// Makes the answer to a question the session's own for so long.
    pub(super) fn note_view(&self, live: &Live, walk: &Walk, key: Key<'_>, own: Duration) {
        if live.sharing.private {
            let until = clock::now().mono.saturating_add(own.as_millis() as u64);
            // No verdict that stands rests on it.
            walk.session.inner.lock().quietly().views.note(self.hash(key), until);
        }
    }

    /// Waits until an answer that took so many milliseconds is due since `begun`, and makes it the session's own: whoever had
    /// it from the upstream and who has it from them wait for the same moment, by the same timer. One that is due when the time
    /// of what led here is up is as good as not asked for.
    pub(super) async fn as_if_asked(&self, live: &Live, walk: &Walk, key: Key<'_>, begun: Instant, took: u32) {
        let due = begun + due(took);
        if let Some(until) = walk.led.until().filter(|until| *until <= due) {
            return sleep_until(until).await;
        }
        sleep_until(due).await;
        self.note_view(live, walk, key, live.repeats.floor);
    }

    /// The longest TTL that a walk's answer may be shown with, so that it says nothing of others.
    pub(super) fn cap(&self, live: &Live, walk: &Walk, query: &Query<'_>, now: Now) -> u32 {
        if !live.sharing.private || !matches!(walk.record.source, Source::Cache | Source::Upstream) {
            return u32::MAX;
        }
        let key = key_asked(query, live.sharing_of(&walk.session.context()).partition);
        self.view(walk, true, key, now).cap(now.mono, None, STALE_TTL)
    }
}
