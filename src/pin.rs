//! Pins: which address which session may reach, until when, and what TTL the stub is shown for it.
//!
//! Between [`crate::answer`] (what resolved) and [`crate::enforce`] (what the packet filter holds). Knows no packet
//! filter and no clock: `now` is handed in, in mono milliseconds. [`plan`] gives an answer's lifetime and TTL;
//! [`SessionPins`] remembers what was acknowledged for one session, so that an answer from the cache whose addresses
//! are still covered needs no round trip to the kernel.
//!
//! Invariants: a pin outlives the TTL the stub was shown by at least the grace, so a stub that honours the TTL asks
//! again before its path closes; a refresh never shortens; after a revoke nothing is covered, also not by an
//! acknowledgement that was under way.

use std::net::IpAddr;
use std::time::Duration;

use hashbrown::HashMap;

/// Most addresses remembered for one session. An address beyond it takes the place of the least recently answered one,
/// which the caller must unpin. A page with 40 hosts has some hundred; chosen without a source, well above that. Filling it
/// gains an agent nothing but the loss of its own oldest pins.
pub const SESSION_PINS_MAX: usize = 4096;

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

/// Which revoke a pin was planned under. A pin acknowledged after a later one counts for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Epoch(u64);

/// What the packet filter has acknowledged for one session address.
///
/// To be read and changed under the session's lock, in the order in which commands are submitted.
#[derive(Debug, Default)]
pub struct SessionPins {
    pins: HashMap<IpAddr, Pin, foldhash::fast::RandomState>,
    epoch: u64,
    answered: u64,
}

#[derive(Debug, Clone, Copy)]
struct Pin {
    /// Mono milliseconds.
    end: u64,
    /// Counts up with every answer.
    answered: u64,
}

impl SessionPins {
    /// Nothing pinned.
    pub fn new() -> Self {
        Self::default()
    }

    /// To be read before a pin is submitted and given to [`SessionPins::note`] with its acknowledgement.
    pub fn epoch(&self) -> Epoch {
        Epoch(self.epoch)
    }

    /// Whether `address` is pinned until `until` (mono milliseconds) at least. Allocates nothing.
    pub fn covers(&self, address: IpAddr, until: u64) -> bool {
        self.pins.get(&address).is_some_and(|pin| pin.end >= until)
    }

    /// Whether each of `addresses` is pinned until `until` at least; marks them as answered now, so that what is in
    /// use is evicted last. Allocates nothing.
    pub fn cover_all(&mut self, addresses: &[IpAddr], until: u64) -> bool {
        if !addresses.iter().all(|address| self.covers(*address, until)) {
            return false;
        }
        self.answered += 1;
        for address in addresses {
            if let Some(pin) = self.pins.get_mut(address) {
                pin.answered = self.answered;
            }
        }
        true
    }

    /// Books an acknowledged pin that ends at `end` (mono milliseconds); the later end of old and new counts. `end`
    /// must be reckoned from before the pin was submitted, so that the kernel's is never earlier.
    ///
    /// Gives the address that had to make room, which the caller unpins. Does nothing where a revoke came after
    /// `epoch` was read.
    #[must_use = "an evicted address must be unpinned"]
    pub fn note(&mut self, epoch: Epoch, address: IpAddr, end: u64, now: u64) -> Option<IpAddr> {
        if epoch.0 != self.epoch {
            return None;
        }
        self.answered += 1;
        let answered = self.answered;
        if let Some(pin) = self.pins.get_mut(&address) {
            *pin = Pin { end: pin.end.max(end), answered };
            return None;
        }
        let mut evicted = None;
        if self.pins.len() >= SESSION_PINS_MAX {
            self.expire(now);
        }
        if self.pins.len() >= SESSION_PINS_MAX {
            // A walk over all of them, some microseconds; only met by a session that has gone beyond all ordinary use.
            evicted = self.pins.iter().min_by_key(|(_, pin)| pin.answered).map(|(address, _)| *address);
            if let Some(evicted) = &evicted {
                self.pins.remove(evicted);
            }
        }
        self.pins.insert(address, Pin { end, answered });
        evicted
    }

    /// Forgets pins that have ended, and gives memory back; how many.
    pub fn expire(&mut self, now: u64) -> usize {
        let before = self.pins.len();
        self.pins.retain(|_, pin| pin.end > now);
        if self.pins.len() * 4 < self.pins.capacity() {
            self.pins.shrink_to_fit();
        }
        before - self.pins.len()
    }

    /// Nothing is covered any more, and no acknowledgement under way will change that. To be called in the same
    /// critical section in which the quarantine (or whatever revokes) is submitted.
    pub fn revoke(&mut self) {
        self.pins = HashMap::default();
        self.epoch += 1;
    }

    /// Every address with the end of its pin, mono milliseconds; ended ones may be among them.
    pub fn iter(&self) -> impl Iterator<Item = (IpAddr, u64)> {
        self.pins.iter().map(|(address, pin)| (*address, pin.end))
    }

    /// Addresses remembered.
    pub fn len(&self) -> usize {
        self.pins.len()
    }

    /// Whether none is remembered.
    pub fn is_empty(&self) -> bool {
        self.pins.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn address(n: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from(0xc612_0000 + n))
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

    #[test]
    fn the_least_recently_answered_makes_room_and_is_told() {
        let mut pins = SessionPins::new();
        let epoch = pins.epoch();
        for n in 0..SESSION_PINS_MAX as u32 {
            assert_eq!(pins.note(epoch, address(n), 1_000, 0), None);
        }
        assert!(pins.cover_all(&[address(0)], 1_000), "0 is in use again");
        assert_eq!(pins.note(epoch, address(9_999), 1_000, 0), Some(address(1)));
        assert_eq!(pins.len(), SESSION_PINS_MAX);
        assert!(pins.covers(address(0), 1_000) && !pins.covers(address(1), 1));
        assert_eq!(pins.note(epoch, address(10_000), 2_000, 1_000), None, "ended ones make room first");
        assert_eq!(pins.len(), 1);
    }

    #[test]
    fn an_acknowledgement_after_a_revoke_counts_for_nothing() {
        let mut pins = SessionPins::new();
        let before = pins.epoch();
        pins.revoke();
        assert_eq!(pins.note(before, address(1), 1_000, 0), None);
        assert!(pins.is_empty());
        assert_eq!(pins.note(pins.epoch(), address(1), 1_000, 0), None);
        assert!(pins.covers(address(1), 1_000));
    }

    /// What the packet filter would hold, told everything the session table is told.
    #[derive(Debug, Clone)]
    enum Step {
        Answer { addresses: Vec<u32>, ttl: u32 },
        Pass { ms: u64 },
        Revoke,
        LateAcknowledgement { address: u32 },
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (proptest::collection::vec(0u32..40, 1..5), 0u32..8_000)
                .prop_map(|(addresses, ttl)| Step::Answer { addresses, ttl }),
            3 => (0u64..4_000_000).prop_map(|ms| Step::Pass { ms }),
            1 => Just(Step::Revoke),
            1 => (0u32..40).prop_map(|address| Step::LateAcknowledgement { address }),
        ];
        proptest::collection::vec(step, 0..60)
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

        #[test]
        fn refresh_never_shortens_and_no_pin_survives_a_revoke(steps in steps()) {
            let policy = PinPolicy::new(seconds(60), seconds(3600), seconds(30)).expect("valid");
            let mut pins = SessionPins::new();
            let mut model: std::collections::HashMap<u32, u64> = std::collections::HashMap::new();
            let (mut now, mut stale) = (0, pins.epoch());
            for step in steps {
                match step {
                    Step::Answer { addresses, ttl } => {
                        let end = now + plan(&policy, ttl).lifetime.as_millis() as u64;
                        for n in addresses {
                            prop_assert_eq!(pins.note(pins.epoch(), address(n), end, now), None);
                            let held = model.entry(n).or_default();
                            *held = end.max(*held);
                        }
                    }
                    Step::Pass { ms } => {
                        now += ms;
                        pins.expire(now);
                        model.retain(|_, end| *end > now);
                    }
                    Step::Revoke => {
                        stale = pins.epoch();
                        pins.revoke();
                        model.clear();
                        prop_assert!(pins.is_empty());
                    }
                    Step::LateAcknowledgement { address: n } => {
                        if stale != pins.epoch() {
                            prop_assert_eq!(pins.note(stale, address(n), u64::MAX, now), None);
                        }
                    }
                }
                for n in 0..40 {
                    let held = model.get(&n).copied().unwrap_or(0);
                    prop_assert_eq!(pins.covers(address(n), held.max(now + 1)), held > now);
                    prop_assert!(!pins.covers(address(n), held.max(now) + 1));
                }
            }
        }
    }
}
