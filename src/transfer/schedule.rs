//! When a zone's primaries are asked next, and whether the zone has expired. Pure: times are milliseconds since the Unix epoch.

use crate::rpz::Soa;

/// Shortest and longest time between two questions, seconds: a SOA that says zero must not make a flood, and one that says a year
/// must not keep a removed rule for a year.
const REFRESH: (u32, u32) = (10, 86_400);
/// The same after a failure.
const RETRY: (u32, u32) = (5, 3600);
/// The same where there is no copy yet, by the number of failures: doubled each time.
const FIRST_RETRY: (u64, u64) = (2_000, 300_000);
/// Shortest time after which a zone expires, seconds: always longer than it takes to ask again.
const EXPIRE_MIN: u32 = 60;

/// When to ask again after an answer.
pub(super) fn refreshed(soa: Soa, now: u64) -> u64 {
    now.saturating_add(u64::from(soa.refresh.clamp(REFRESH.0, REFRESH.1)) * 1000)
}

/// When to ask again after a failure; `failures` in a row so far.
pub(super) fn failed(soa: Option<Soa>, failures: u32, now: u64) -> u64 {
    let wait = match soa {
        Some(soa) => u64::from(soa.retry.clamp(RETRY.0, RETRY.1)) * 1000,
        None => (FIRST_RETRY.0 << failures.min(10)).min(FIRST_RETRY.1),
    };
    now.saturating_add(wait)
}

/// When a zone expires that a primary was last heard of at `checked`.
pub(super) fn expires(soa: Soa, checked: u64) -> u64 {
    checked.saturating_add(u64::from(soa.expire.max(EXPIRE_MIN)) * 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_what_the_soa_says_within_reason() {
        let soa = |refresh, retry, expire| Soa { serial: 1, refresh, retry, expire, minimum: 60 };
        for (soa, next, again, end) in [
            (soa(3600, 600, 86_400), 3_600_000, 600_000, 86_400_000),
            (soa(0, 0, 0), 10_000, 5_000, 60_000),
            (soa(u32::MAX, u32::MAX, u32::MAX), 86_400_000, 3_600_000, u64::from(u32::MAX) * 1000),
        ] {
            assert_eq!(
                (refreshed(soa, 1000), failed(Some(soa), 3, 1000), expires(soa, 1000)),
                (1000 + next, 1000 + again, 1000 + end),
                "{soa:?}"
            );
        }
        let waits: Vec<u64> = (0..10).map(|failures| failed(None, failures, 0)).collect();
        assert_eq!(waits, [2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 128_000, 256_000, 300_000, 300_000]);
        assert_eq!(failed(None, u32::MAX, 0), 300_000);
    }
}
