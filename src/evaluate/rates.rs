//! Shares with the limit that chance allows.
//!
//! Counts in, a share and its upper limit out. Knows nothing of DNS.

use serde::Serialize;
use statrs::distribution::{Beta, ContinuousCDF};

/// Confidence of the limits.
const CONFIDENCE: f64 = 0.95;

/// How many of how many.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Rate {
    /// How many.
    pub events: u64,
    /// Of how many.
    pub of: u64,
    /// The share; `None` of nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    /// One-sided upper limit of the true share at 95 % (Clopper and Pearson 1934); for none of n it is near 3 / n.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upper_95: Option<f64>,
}

impl Rate {
    /// `events` of `of`, at most all of them.
    pub fn new(events: u64, of: u64) -> Self {
        let events = events.min(of);
        let share = (of > 0).then(|| events as f64 / of as f64);
        Self { events, of, rate: share.map(rounded), upper_95: upper(events, of).map(rounded) }
    }
}

fn upper(events: u64, of: u64) -> Option<f64> {
    if events == of {
        return (of > 0).then_some(1.0);
    }
    let (events, rest) = (events as f64, (of - events) as f64);
    if events == 0.0 {
        // The Beta distribution's quantile in closed form.
        return Some(1.0 - (1.0 - CONFIDENCE).powf(1.0 / rest));
    }
    Some(Beta::new(events + 1.0, rest).ok()?.inverse_cdf(CONFIDENCE))
}

/// To four digits that count, so that a report is the same on every machine.
pub(super) fn rounded(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return 0.0;
    }
    format!("{value:.3e}").parse().unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_those_of_the_binomial() {
        // The limit p is where seeing no more events than were seen has a chance of 5 %.
        for (events, of) in [(0, 10), (0, 4681), (1, 1), (3, 4681), (2, 151), (9, 10), (120, 151)] {
            let upper = upper(events, of).expect("a limit");
            if events == of {
                assert_eq!(upper, 1.0);
                continue;
            }
            let (n, p) = (of as f64, upper);
            let mut term = n * (-p).ln_1p();
            let mut below = term.exp();
            for k in 1..=events {
                let k = k as f64;
                term += ((n - k + 1.0) / k).ln() + p.ln() - (-p).ln_1p();
                below += term.exp();
            }
            assert!((below - 0.05).abs() < 1e-6, "{events} of {of}: {below}");
        }
        assert_eq!(upper(0, 0), None);
        let none = Rate::new(0, 4674);
        assert!((none.upper_95.expect("limit") - 6.4e-4).abs() < 1e-5, "the rule of three");
    }

    #[test]
    fn four_digits_count() {
        assert_eq!(rounded(0.000_123_456), 0.000_123_5);
        assert_eq!(rounded(12_345.6), 12_350.0);
        assert_eq!(rounded(-2.0), -2.0);
        assert_eq!(rounded(0.0), 0.0);
    }
}
