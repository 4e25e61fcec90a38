//! Group novelty: since when the session's group knows the registrable domain.
//!
//! Sessions of one image or owner do the same work, so a domain that none of them has asked for is worth a second look,
//! and no more: first use of anything is novel once. Stays below [`super::AGREES`]. An agent's own look-ups must not age
//! a domain for itself, so only the first sight counts, however often it is asked.

use super::{Reading, Signal};

/// (days known below this, contribution).
const STEPS: [(f32, f32); 3] = [(0.05, 0.8), (2.0, 0.4), (32.0, 0.0)];
/// Contribution beyond the last step.
const SETTLED: f32 = -0.5;

/// Reading of the days the group has known the domain; `None` without a group or while it warms up.
pub fn read(days: Option<f32>) -> Reading {
    let Some(days) = days.filter(|days| days.is_finite()).map(|days| days.max(0.0)) else {
        return Signal::GroupNovelty.unknown();
    };
    let contribution = STEPS.iter().find(|(below, _)| days < *below).map_or(SETTLED, |(_, nats)| *nats);
    Signal::GroupNovelty.reading(Some(days), contribution)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signals::AGREES;

    #[test]
    fn novelty_fades_and_never_agrees_alone() {
        let at = |days| read(Some(days)).contribution;
        assert!(at(0.0) > at(1.0) && at(1.0) > at(10.0) && at(10.0) > at(100.0));
        assert!(at(0.0) < AGREES);
        assert_eq!(read(None).contribution, 0.0);
        assert_eq!(read(Some(f32::NAN)).value, None);
    }
}
