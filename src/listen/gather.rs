//! Whether a worker lets datagrams gather before it takes the next batch.
//!
//! A worker that is a little faster than its stubs is woken for a few datagrams at a time, and pays for each handful with two
//! system calls, a sleep, a wake-up, and a wake-up of each stub. Network cards hold their interrupts back for the same reason.
//! So where very much comes, and as long as that brings enough at a time, a worker waits a moment behind each batch: the
//! same questions in fewer batches. Where little comes, or stubs wait for one answer before they ask again, nothing waits.
//!
//! Pure. Two comparisons a batch.

use std::time::Duration;

use super::mmsg::BATCH;

/// How long datagrams gather. The kernel adds its timer slack, 50 us unless somebody changed that, so that an answer is late
/// by about a tenth of a millisecond at most: less than it waits in a queue where so much comes.
pub(super) const PAUSE: Duration = Duration::from_micros(50);
/// How long the rate is counted before it is believed, milliseconds.
const WINDOW: u64 = 10;
/// So many in a window are worth a try: with fewer, a pause cannot bring [`WORTH`].
const BUSY: usize = 600;
/// What a pause has to bring, on average.
const WORTH: usize = 8;
/// So many pauses in a window before it is decided that they bring too little.
const TRIES: usize = 2;

/// What one worker knows of its rate.
#[derive(Debug, Default)]
pub(super) struct Gather {
    /// When the window ends (milliseconds, monotonic), and what came in it.
    ends: u64,
    seen: usize,
    /// Whether pauses are made in it, how many were, and what came behind them.
    on: bool,
    pauses: usize,
    brought: usize,
    /// Whether the last batch was followed by one.
    paused: bool,
}

impl Gather {
    /// A batch of `count` has come at `now` (milliseconds, monotonic): whether to wait for [`PAUSE`] when it is dealt with.
    pub(super) fn behind(&mut self, count: usize, now: u64) -> bool {
        if now >= self.ends {
            // Who has not looked for a whole window was asleep, and what was counted before is old.
            let awake = now < self.ends.saturating_add(WINDOW);
            *self = Self { ends: now + WINDOW, on: awake && self.seen >= BUSY, ..Self::default() };
        }
        self.seen += count;
        if self.paused {
            self.pauses += 1;
            self.brought += count;
            self.on &= self.pauses < TRIES || self.brought >= self.pauses * WORTH;
        }
        // Behind a full batch there is more already.
        self.paused = self.on && count < BATCH;
        self.paused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Batches of `count`, `each` a millisecond, for `ms`; how many of those in the second half were to be followed by a pause.
    fn pauses(gather: &mut Gather, from: u64, ms: u64, each: usize, count: usize) -> usize {
        let turns = (from..from + ms).flat_map(|now| std::iter::repeat_n(now, each));
        let waits: Vec<bool> = turns.map(|now| gather.behind(count, now)).collect();
        waits.iter().skip(waits.len() / 2).filter(|waits| **waits).count()
    }

    #[test]
    fn it_waits_where_much_comes_and_waiting_brings_much() {
        let half = |ms: u64, each: usize| ms as usize * each / 2;
        for (each, count, wanted, why) in [
            (20, 4, 20, "80 a millisecond but four at a time, behind a pause too: two tries each of ten windows"),
            (8, 12, half(200, 8), "a pause brings twelve"),
            (8, 7, 0, "56 a millisecond: not enough for a try"),
            (1, 1, 0, "hardly anything"),
            (5, BATCH, 0, "there is more already"),
        ] {
            assert_eq!(pauses(&mut Gather::default(), 1000, 200, each, count), wanted, "{why}");
        }
    }

    #[test]
    fn it_ends_with_the_load_and_begins_with_none() {
        let mut gather = Gather::default();
        assert!(!gather.behind(12, 5000), "nothing was counted yet");
        assert!(pauses(&mut gather, 5000, 100, 10, 12) > 0);
        assert!(!gather.behind(1, 9000), "what came seconds ago is no load");
        assert_eq!(pauses(&mut gather, 9000, 100, 1, 1), 0);
    }

    #[test]
    fn a_batch_that_is_small_by_chance_ends_nothing() {
        let mut gather = Gather::default();
        pauses(&mut gather, 1000, 10, 10, 12);
        let waits = (1010..1020).flat_map(|now| [20, 20, 3, 1, 20].map(|count| (now, count)));
        assert!(waits.fold(true, |all, (now, count)| gather.behind(count, now) && all));
    }
}
