//! Pauses between tries: doubling, capped, half of each random so that many instances do not come back at once; or as long as
//! the other side asks for.

use std::time::Duration;

use super::{Failure, Retry};

/// Pause after the `tries`-th failure in a row (from 1). `random` is any 32 bits.
pub(super) fn pause(retry: Retry, tries: u32, failure: &Failure, random: u32) -> Duration {
    let doubled = retry.first.saturating_mul(1u32.checked_shl(tries.saturating_sub(1)).unwrap_or(u32::MAX));
    let full = match failure {
        // Who says when to come back is not asked before that.
        Failure::Busy { wait: Some(wait), .. } => return (*wait).max(retry.first).min(retry.most),
        Failure::Unreachable(_) | Failure::Busy { wait: None, .. } => doubled,
        // Nothing but a change by a person helps.
        Failure::Refused(_) => retry.most,
    };
    let full = full.min(retry.most);
    full / 2 + (full / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_cap_and_are_spread() {
        let retry = Retry::default();
        let down = Failure::Unreachable(String::new());
        let longest = |tries| pause(retry, tries, &down, u32::MAX).as_millis();
        assert_eq!(
            [1, 2, 3, 8, 9, 32, 33, u32::MAX].map(longest),
            [200, 400, 800, 25_600, 30_000, 30_000, 30_000, 30_000]
        );
        assert_eq!(pause(retry, 1, &down, 0).as_millis(), 100);
        assert_eq!(pause(retry, 1, &Failure::Refused(404), u32::MAX), retry.most);
        let seconds = |s| Some(Duration::from_secs(s));
        for (random, own) in [(u32::MAX, 200), (0, 100)] {
            let busy = |wait| pause(retry, 1, &Failure::Busy { status: 429, wait }, random).as_millis();
            assert_eq!([None, seconds(0), seconds(5), seconds(86_400)].map(busy), [own, 200, 5_000, 30_000]);
        }
    }
}
