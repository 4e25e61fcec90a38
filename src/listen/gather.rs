//! Whether a worker lets datagrams gather before it takes the next batch.
//!
//! A worker that is a little faster than its stubs is woken for a few datagrams at a time, and pays for each handful with two
//! system calls, a sleep, a wake-up, and a wake-up of each stub. Network cards hold their interrupts back for the same reason.
//! So where very much comes, a worker waits a moment behind each batch that has emptied its queue: the same questions in fewer
//! batches. It goes on as long as that brings enough at a time, and as long as not much less is asked than without: stubs that
//! wait for answers before they ask again would be held up. Where little comes nothing waits.
//!
//! Pure. Three comparisons a batch.

use std::time::Duration;

/// How long datagrams gather. The kernel adds its timer slack, 50 us unless somebody changed that, so an answer is late by
/// about a tenth of a millisecond: less than it waits in a queue where so much comes.
pub(super) const PAUSE: Duration = Duration::from_micros(50);
/// How long is counted before it is decided, milliseconds.
const WINDOW: u64 = 100;
/// So many in a window are worth a try: with fewer, a pause cannot bring [`WORTH`].
const BUSY: usize = 6_000;
/// What a pause has to bring, on average.
const WORTH: usize = 8;
/// So many pauses in a window before it is decided that they bring too little.
const TRIES: usize = 2;
/// So many windows in a row with less than three quarters of what came without pauses end them: one may be chance.
const POOR: u32 = 2;
/// For so many windows there is no other try then.
const REST: u32 = 20;
/// Behind so many windows with pauses one without them shows anew what comes then.
const KEEP: u32 = 50;

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
    /// What came in the last window without pauses, and how many in a row with them had much less.
    free: usize,
    poor: u32,
    /// For so many windows it stays as it is.
    left: u32,
}

impl Gather {
    /// A batch of `count` has come at `now` (milliseconds, monotonic), which emptied the queue or not (`drained`): whether to
    /// wait for [`PAUSE`] when it is dealt with.
    pub(super) fn behind(&mut self, count: usize, drained: bool, now: u64) -> bool {
        if now >= self.ends {
            // Who has not looked for a whole window was asleep, and what was counted before is old.
            self.turn(now < self.ends.saturating_add(WINDOW));
            self.ends = now + WINDOW;
        }
        self.seen += count;
        if self.paused {
            self.pauses += 1;
            self.brought += count;
            if self.pauses >= TRIES && self.brought < self.pauses * WORTH {
                self.stop();
            }
        }
        self.paused = self.on && drained;
        self.paused
    }

    /// One window is over and the next begins.
    fn turn(&mut self, awake: bool) {
        let seen = std::mem::take(&mut self.seen);
        (self.pauses, self.brought) = (0, 0);
        self.left = self.left.saturating_sub(1);
        if self.on {
            self.poor = if seen < self.free / 4 * 3 { self.poor + 1 } else { 0 };
            if !awake || self.poor >= POOR {
                self.stop();
            } else if self.left == 0 && self.poor == 0 {
                self.on = false;
            }
        } else if self.left == 0 && awake && seen >= BUSY {
            (self.on, self.free, self.poor, self.left) = (true, seen, 0, KEEP);
        }
    }

    fn stop(&mut self) {
        (self.on, self.left) = (false, REST);
    }
}

#[cfg(test)]
mod tests {
    use super::super::mmsg::BATCH;
    use super::*;

    /// Batches of `count`, `each` a millisecond, for `ms`; how many of those in the second half were to be followed by a pause.
    fn pauses(gather: &mut Gather, from: u64, ms: u64, each: usize, count: usize, drained: bool) -> usize {
        let turns = (from..from + ms).flat_map(|now| std::iter::repeat_n(now, each));
        let waits: Vec<bool> = turns.map(|now| gather.behind(count, drained, now)).collect();
        waits.iter().skip(waits.len() / 2).filter(|waits| **waits).count()
    }

    #[test]
    fn it_waits_where_much_comes_and_waiting_brings_much() {
        let half = |each: usize| 1_000 * each;
        for (each, count, drained, wanted, why) in [
            (8, 12, true, half(8), "a pause brings twelve"),
            (8, 12, false, 0, "there is more already"),
            (20, 4, true, 0, "80 a millisecond, but four at a time behind a pause too: tried and left"),
            (8, 7, true, 0, "56 a millisecond: not enough for a try"),
            (1, 1, true, 0, "hardly anything"),
        ] {
            assert_eq!(pauses(&mut Gather::default(), 1_000, 2_000, each, count, drained), wanted, "{why}");
        }
    }

    #[test]
    fn it_ends_with_the_load_and_begins_with_none() {
        let mut gather = Gather::default();
        assert!(!gather.behind(12, true, 5_000), "nothing was counted yet");
        assert!(pauses(&mut gather, 5_000, 500, 10, 12, true) > 0);
        assert!(!gather.behind(1, true, 9_000), "what came seconds ago is no load");
        assert_eq!(pauses(&mut gather, 9_000, 500, 1, 1, true), 0);
    }

    #[test]
    fn a_batch_that_is_small_by_chance_ends_nothing() {
        let mut gather = Gather::default();
        pauses(&mut gather, 1_000, 100, 10, 12, true);
        let waits = (1_100..1_200).flat_map(|now| [20, 20, 3, 1, 20].map(|count| (now, count)));
        assert!(waits.fold(true, |all, (now, count)| gather.behind(count, true, now) && all));
    }

    /// Questions answered in ten seconds where stubs have so many under way together and ask the next one when they are answered,
    /// each costs 2 us, a wake-up 10 us, and a pause 110 us. With pauses if there is somebody to decide on them.
    fn answered(under_way: usize, mut gather: Option<Gather>) -> usize {
        let (mut clock, mut answered) = (1_000_000, 0);
        while clock < 11_000_000 {
            let count = under_way.min(BATCH);
            let waits =
                gather.as_mut().is_some_and(|gather| gather.behind(count, under_way <= BATCH, clock as u64 / 1_000));
            answered += count;
            clock += 2 * count + if waits { 110 } else { 10 };
        }
        answered
    }

    #[test]
    fn stubs_that_wait_for_answers_are_not_held_up() {
        for under_way in [1, 2, 4, 7, 8, 12, 16, 24, 32, 48, 63, 64, 65, 200] {
            let (with, without) = (answered(under_way, Some(Gather::default())), answered(under_way, None));
            assert!(with * 10 >= without * 9, "{under_way} under way: {with} answered, {without} without pauses");
        }
    }
}
