//! The reading of both clocks that the walk of a question goes by, and what it means when they part. Pure stages are handed a
//! [`Now`]; stages that wait measure their own waits.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::model::{Now, Wall};

/// How far the wall clock may part from the monotonic one before it is told: further than a time service moves a clock that it
/// keeps, and than a leap second.
pub const PARTED: Duration = Duration::from_secs(60);

/// Reads both clocks. Monotonic time counts from the first call in this process, plus one second so that "an instant
/// ago" never underflows.
pub fn now() -> Now {
    static START: OnceLock<(Instant, u64)> = OnceLock::new();
    let (start, wall) = START.get_or_init(|| (Instant::now(), wall()));
    let since = start.elapsed().as_millis() as u64;
    Now { mono: since + 1000, wall: Wall { shown: self::wall(), steady: wall + since } }
}

fn wall() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

/// Sees when somebody sets the wall clock.
#[derive(Debug, Default)]
pub struct Watch {
    /// [`Wall::set_by`] as it was last told.
    told: i64,
}

impl Watch {
    /// How far the clock was set since this was last told, milliseconds, where that is more than [`PARTED`]; positive where
    /// it was set forward, or the machine slept.
    pub fn look(&mut self, wall: Wall) -> Option<i64> {
        let (set_by, limit) = (wall.set_by(), PARTED.as_millis() as u64);
        let by = set_by.saturating_sub(self.told);
        (by.unsigned_abs() > limit).then(|| {
            self.told = set_by;
            by
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_is_told_once_each_time_and_one_that_drifts_is_not() {
        const DAY: i64 = 86_400_000;
        let start = 1_800_000_000_000;
        let mut watch = Watch::default();
        let mut look = |second: u64, set_by: i64| {
            let steady = start + second * 1000;
            watch.look(Wall { shown: steady.wrapping_add_signed(set_by), steady })
        };
        for (second, set_by, told, why) in [
            (1, 0, None, "nothing was set"),
            (2, 60_000, None, "a time service may"),
            (3, 60_001, Some(60_001), "more than that"),
            (4, 60_050, None, "told already"),
            (5, 10 * DAY, Some(10 * DAY - 60_001), "ten days on"),
            (6, 10 * DAY, None, "told already"),
            (7, 0, Some(-10 * DAY), "set right again"),
            (8, -10 * DAY, Some(-10 * DAY), "ten days back"),
            (9, -10 * DAY + 59_000, None, "little"),
        ] {
            assert_eq!(look(second, set_by), told, "{why}");
        }
    }

    #[test]
    fn what_opens_ends_by_the_earlier_word_and_what_closes_by_the_later() {
        let ahead = Wall { shown: 900, steady: 100 };
        let behind = Wall { shown: 100, steady: 900 };
        for wall in [ahead, behind] {
            assert_eq!((wall.earliest(), wall.latest()), (100, 900));
        }
        assert_eq!((ahead.set_by(), behind.set_by(), Wall::at(5).set_by()), (800, -800, 0));
    }

    #[test]
    fn both_clocks_start_together() {
        let (first, second) = (now(), now());
        assert!(second.mono >= first.mono && second.wall.steady >= first.wall.steady);
        assert!(first.wall.set_by().unsigned_abs() < 60_000, "nobody sets the clock during this test: {first:?}");
    }
}
