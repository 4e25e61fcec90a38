//! How long an upstream takes: a histogram of fixed size that forgets.
//!
//! Knows no clock. Four bins an octave from 64 µs on, so a quantile is told too high by at most a fifth.

use std::time::Duration;

/// Bins: sixteen octaves, up to 4.2 s; what is longer counts as the last.
const BINS: usize = 64;
/// Lower end of the first bin's octave, as a power of two of microseconds.
const FIRST_OCTAVE: u32 = 6;
/// Weight at which everything is halved: about the last 512 responses count, the newest most.
const FULL: u32 = 512;
/// Fewer responses say nothing of a quantile. Chosen without a source.
const LEAST: u32 = 16;

/// Times of responses, newest weighing most.
#[derive(Debug)]
pub(super) struct Histogram {
    bins: [u16; BINS],
    total: u32,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { bins: [0; BINS], total: 0 }
    }
}

impl Histogram {
    /// Notes a response that took `time`.
    pub(super) fn note(&mut self, time: Duration) {
        if self.total >= FULL {
            self.bins.iter_mut().for_each(|bin| *bin /= 2);
            self.total = self.bins.iter().map(|bin| u32::from(*bin)).sum();
        }
        if let Some(bin) = self.bins.get_mut(bin_of(time)) {
            *bin += 1;
            self.total += 1;
        }
    }

    /// The time within which 95 of 100 responses came, rounded up to a bin; `None` before there are enough of them.
    pub(super) fn p95(&self) -> Option<Duration> {
        if self.total < LEAST {
            return None;
        }
        let wanted = (self.total * 95).div_ceil(100);
        let mut seen = 0;
        let bin = self.bins.iter().position(|bin| {
            seen += u32::from(*bin);
            seen >= wanted
        })?;
        Some(upper(bin))
    }
}

fn bin_of(time: Duration) -> usize {
    let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1 << FIRST_OCTAVE);
    let octave = us.ilog2();
    // The two bits behind the leading one.
    let quarter = (us >> (octave - 2)) & 3;
    ((octave - FIRST_OCTAVE) as usize * 4 + quarter as usize).min(BINS - 1)
}

fn upper(bin: usize) -> Duration {
    let (octave, quarter) = (FIRST_OCTAVE + bin as u32 / 4, bin as u64 % 4);
    Duration::from_micros((quarter + 5) << (octave - 2))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn few_responses_say_nothing() {
        let mut times = Histogram::default();
        for _ in 0..15 {
            times.note(Duration::from_millis(10));
            assert_eq!(times.p95(), None);
        }
        times.note(Duration::from_millis(10));
        assert!(times.p95().is_some());
    }

    #[test]
    fn the_old_is_forgotten() {
        let mut times = Histogram::default();
        for _ in 0..10_000 {
            times.note(Duration::from_millis(800));
        }
        assert!(times.p95() >= Some(Duration::from_millis(800)));
        for _ in 0..3_000 {
            times.note(Duration::from_millis(5));
        }
        assert!(times.p95() < Some(Duration::from_millis(8)), "{:?}", times.p95());
        assert!(times.total <= FULL);
    }

    #[test]
    fn one_slow_response_in_ten_is_seen_and_one_in_fifty_is_not() {
        for (every, slow) in [(10, true), (50, false)] {
            let mut times = Histogram::default();
            for i in 0..400 {
                times.note(Duration::from_millis(if i % every == 0 { 300 } else { 4 }));
            }
            assert_eq!(times.p95() > Some(Duration::from_millis(100)), slow, "{:?}", times.p95());
        }
    }

    proptest! {
        #[test]
        fn a_quantile_is_never_too_low_and_little_too_high(us in 64u64..4_000_000) {
            let time = Duration::from_micros(us);
            let mut times = Histogram::default();
            (0..LEAST).for_each(|_| times.note(time));
            let p95 = times.p95().expect("enough");
            prop_assert!(p95 >= time && p95 <= time * 5 / 4 + Duration::from_micros(1), "{time:?} {p95:?}");
        }

        #[test]
        fn any_time_is_taken(secs in any::<u64>(), nanos in 0u32..1_000_000_000) {
            let mut times = Histogram::default();
            (0..2_000).for_each(|_| times.note(Duration::new(secs, nanos)));
            prop_assert!(times.p95().is_some());
        }
    }
}
