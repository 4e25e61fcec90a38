//! Pins: which address which session may reach, until when, and what TTL the stub is shown for it.
//!
//! Between [`crate::answer`] (what resolved) and [`crate::enforce`] (what the packet filter holds). Knows no packet
//! filter and no clock: `now` is handed in, in mono milliseconds. [`plan`] gives an answer's lifetime and TTL;
//! [`SessionPins`] remembers what was acknowledged for one session and by which names, so that an answer from the cache whose
//! addresses are still covered needs no round trip to the kernel, and so that what a change of policy closes can be told
//! from what stays open.
//!
//! Invariants: a pin outlives the TTL the stub was shown by at least the grace, so a stub that honours the TTL asks
//! again before its path closes; a refresh never shortens; after a revoke nothing is covered, also not by an
//! acknowledgement that was under way.

mod session;

use std::time::Duration;

pub use session::{Asked, Details, Epoch, Passed, SessionPins, Tightened, Word};

/// Most addresses remembered for one session. An address beyond it takes the place of the least recently answered one that
/// has no open flow, which the caller must unpin. A page with 40 hosts has some hundred; chosen without a source, well above
/// that. Filling it gains an agent nothing but the loss of its own oldest pins.
pub const SESSION_PINS_MAX: usize = 2048;

/// Lifetimes of pins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PinPolicy {
    min: Duration,
    max: Duration,
    grace: Duration,
}

/// Why lifetimes do not make a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// The shortest is longer than the longest.
    #[error("the shortest pin lifetime is longer than the longest")]
    Order,
    /// No second of TTL could be shown.
    #[error("the longest pin lifetime must exceed the grace by a second or more")]
    Grace,
    /// Longer than a week, the most the packet filter is asked for.
    #[error("the longest pin lifetime is at most a week")]
    Long,
}

/// What a session needs for one answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// How long each address must stay open, from now.
    pub lifetime: Duration,
    /// TTL to show, seconds: at most the answer's, and at most the lifetime less the grace.
    pub ttl: u32,
}

impl PinPolicy {
    /// `min` and `max` bound the lifetime, `grace` is how long a pin outlives the TTL shown.
    ///
    /// # Errors
    ///
    /// [`PolicyError`], where no answer could be pinned and shown under these bounds.
    pub fn new(min: Duration, max: Duration, grace: Duration) -> Result<Self, PolicyError> {
        const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);
        if max > WEEK {
            return Err(PolicyError::Long);
        }
        if min > max {
            return Err(PolicyError::Order);
        }
        if grace.saturating_add(Duration::from_secs(1)) > max {
            return Err(PolicyError::Grace);
        }
        Ok(Self { min, max, grace })
    }

    /// How long a pin outlives the TTL shown.
    pub fn grace(&self) -> Duration {
        self.grace
    }
}

/// Lifetime and TTL for an answer with `ttl` seconds to live.
///
/// The TTL plus the grace, within the policy's bounds; a TTL that does not fit below the longest lifetime is shown
/// shorter (RFC 1035 section 3.2.1 makes it an upper limit, so showing less is always allowed).
pub fn plan(policy: &PinPolicy, ttl: u32) -> Plan {
    let wanted = Duration::from_secs(u64::from(ttl)).saturating_add(policy.grace);
    let lifetime = wanted.clamp(policy.min, policy.max);
    let room = lifetime.saturating_sub(policy.grace).as_secs();
    Plan { lifetime, ttl: ttl.min(u32::try_from(room).unwrap_or(u32::MAX)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn lifetimes_follow_the_ttl_within_bounds() {
        let policy = PinPolicy::new(seconds(60), seconds(3600), seconds(30)).expect("valid");
        for (ttl, lifetime, shown, why) in [
            (0, 60, 0, "nothing to show, the shortest lifetime"),
            (5, 60, 5, "short TTLs are shown as they are"),
            (30, 60, 30, "just fits the shortest"),
            (300, 330, 300, "TTL plus grace"),
            (3570, 3600, 3570, "just fits the longest"),
            (86_400, 3600, 3570, "shown shorter than it is"),
            (u32::MAX, 3600, 3570, "no overflow"),
        ] {
            assert_eq!(plan(&policy, ttl), Plan { lifetime: seconds(lifetime), ttl: shown }, "{why}");
        }
    }

    #[test]
    fn bounds_that_pin_nothing_are_refused() {
        for (min, max, grace, error) in [
            (60, 30, 0, PolicyError::Order),
            (1, 30, 30, PolicyError::Grace),
            (1, 8 * 24 * 3600, 30, PolicyError::Long),
        ] {
            assert_eq!(PinPolicy::new(seconds(min), seconds(max), seconds(grace)), Err(error));
        }
        assert!(PinPolicy::new(seconds(0), seconds(u64::MAX), Duration::MAX).is_err());
    }

    proptest! {
        #[test]
        fn a_pin_outlives_the_ttl_shown_by_the_grace(
            ttl in any::<u32>(), min in 0u64..1_000, more in 0u64..600_000, grace in 0u64..1_000
        ) {
            let max = (min + more).min(7 * 24 * 3600);
            if let Ok(policy) = PinPolicy::new(seconds(min), seconds(max), seconds(grace)) {
                let plan = plan(&policy, ttl);
                prop_assert!(plan.ttl <= ttl);
                prop_assert!(plan.lifetime <= seconds(max) && plan.lifetime >= seconds(min));
                prop_assert!(seconds(plan.ttl.into()) + policy.grace() <= plan.lifetime);
            }
        }
    }
}
