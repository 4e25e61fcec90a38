//! What stands between a fetched list and the tables: is it one, and has it changed by more than is likely.
//!
//! Pure.

/// What a gate says of a new version of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Judged {
    /// It may take the old one's place.
    Good,
    /// It is a list and may be right; somebody has to say so.
    Held(String),
    /// It is none that could be right.
    Refused(&'static str),
}

/// Judges a version with `new` entries against the last good one. A first version has nothing to be measured by.
pub(super) fn judge(good: Option<u32>, new: u32, max_growth: f64, min_share: f64) -> Judged {
    if new == 0 {
        return Judged::Refused("it has no entries");
    }
    let Some(good) = good.filter(|good| *good > 0) else { return Judged::Good };
    let times = f64::from(new) / f64::from(good);
    if times > max_growth {
        Judged::Held(format!("it has grown from {good} to {new} entries, more than {max_growth} times"))
    } else if times < min_share {
        Judged::Held(format!("it has shrunk from {good} to {new} entries, below {min_share} of them"))
    } else {
        Judged::Good
    }
}

/// When a list is to be fetched again, milliseconds from now. `draw` is random, all of its range alike: a day's worth of
/// deployments must not ask one server in the same minute.
pub(super) fn pause(refresh_ms: u64, failures: u32, draw: u32) -> u64 {
    const FIRST_RETRY_MS: u64 = 60_000;
    let base = match failures.checked_sub(1) {
        None => refresh_ms,
        Some(doublings) => (FIRST_RETRY_MS << doublings.min(16)).min(refresh_ms),
    };
    // A tenth less to a tenth more.
    let tenth = (base / 10).max(1);
    base - tenth + ((u64::from(draw) * 2 * tenth) >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grows_or_shrinks_too_much_is_held() {
        for (good, new, expected) in [
            (None, 5, "good"),
            (Some(0), 5, "good"),
            (Some(100), 0, "refused"),
            (None, 0, "refused"),
            (Some(100), 100, "good"),
            (Some(100), 200, "good"),
            (Some(100), 201, "held"),
            (Some(100), 50, "good"),
            (Some(100), 49, "held"),
            (Some(20_000_000), 1, "held"),
        ] {
            let judged = match judge(good, new, 2.0, 0.5) {
                Judged::Good => "good",
                Judged::Held(_) => "held",
                Judged::Refused(_) => "refused",
            };
            assert_eq!(judged, expected, "{good:?} to {new}");
        }
    }

    #[test]
    fn the_next_fetch_is_near_its_time_and_failures_wait_longer_and_longer() {
        const DAY: u64 = 86_400_000;
        for draw in [0, 1 << 31, u32::MAX] {
            let next = pause(DAY, 0, draw);
            assert!((DAY * 9 / 10..=DAY * 11 / 10).contains(&next), "{next}");
            let mut last = 0;
            for failures in 1..40 {
                let next = pause(DAY, failures, draw);
                assert!(next >= last && next <= DAY * 11 / 10, "{failures}: {next}");
                last = next;
            }
            assert!((54_000..=66_000).contains(&pause(DAY, 1, draw)));
        }
        assert_ne!(pause(DAY, 0, 0), pause(DAY, 0, u32::MAX));
    }
}
