//! How often strangers of one network are answered: a bucket for each, without locks, in a table of fixed size.
//!
//! Who is refused by its source alone may not be there at all: the source may be forged, and the answer goes to somebody
//! who has not asked. So answers to one network have a pace, and past it there is silence, which over TCP there never is.
//! Networks that fall into one bucket share its pace.

use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use foldhash::quality::RandomState;

use crate::range::prefix_of;

/// Buckets.
const BUCKETS: usize = 1024;
/// Leading bits that make a network, IPv4 and IPv6.
const NETWORK: (u8, u8) = (24, 48);
/// Answers in a second. Chosen without a source: a host that is set up wrongly asks less, and at 300 octets each it is
/// half a megabit a second.
const PER_SECOND: u64 = 200;
/// Microseconds from one answer to the next, and how far the bucket may run ahead.
const STEP: u64 = 1_000_000 / PER_SECOND;
const AHEAD: u64 = 1_000_000;

/// The buckets: when each is empty again, microseconds of the monotonic clock.
#[derive(Debug)]
pub(super) struct Pace {
    empty_at: Box<[AtomicU64]>,
    hasher: RandomState,
    silent: AtomicU64,
}

impl Default for Pace {
    fn default() -> Self {
        let empty_at = (0..BUCKETS).map(|_| AtomicU64::new(0)).collect();
        Self { empty_at, hasher: RandomState::default(), silent: AtomicU64::new(0) }
    }
}

impl Pace {
    /// Whether a stranger at `from` is answered now (milliseconds, monotonic); counts where not.
    pub(super) fn answers(&self, from: IpAddr, now: u64) -> bool {
        let at = self.hasher.hash_one(prefix_of(from, NETWORK)) as usize % BUCKETS;
        let Some(bucket) = self.empty_at.get(at) else { return true };
        let now = now.saturating_mul(1000);
        let one_more = |empty_at: u64| {
            let next = empty_at.max(now) + STEP;
            (next <= now + AHEAD).then_some(next)
        };
        let answers = bucket.fetch_update(Relaxed, Relaxed, one_more).is_ok();
        if !answers {
            self.silent.fetch_add(1, Relaxed);
        }
        answers
    }

    /// Datagrams that were not answered.
    pub(super) fn silent(&self) -> u64 {
        self.silent.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_its_pace_and_others_have_theirs() {
        let pace = Pace::default();
        let near = |n: u32| IpAddr::from((0xc633_6400 | (n % 256)).to_be_bytes());
        let got = (0..10_000).filter(|n| pace.answers(near(*n), 5_000)).count();
        assert_eq!(got, PER_SECOND as usize, "a second's worth at once");
        let got = (0..10_000).filter(|n| pace.answers(near(*n), 5_100)).count();
        assert_eq!(got, PER_SECOND as usize / 10);
        assert_eq!(pace.silent(), 20_000 - 220);
        // One network in a thousand may fall into the same bucket.
        let others = (1..20u8).filter(|n| pace.answers([203, 0, *n, 1].into(), 5_100)).count();
        assert!(others >= 18, "{others}");
        assert!((0..200).all(|n| pace.answers(near(n), 9_000)), "what is past is forgotten");
    }
}
