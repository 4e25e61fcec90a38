//! How sure a count is: 95 % limits of a rate, given that `k` of `n` pairs passed a threshold.
//!
//! The exact limits of a Poisson count (Garwood 1936): a rate is told apart from another only by as much as `n` carries.
//! None of `n` gives an upper limit of 3.0 / n. Counts may be broken numbers, since the shipped distribution enters with
//! a weight.

use statrs::function::gamma::checked_gamma_lr;

/// How sure a limit is, on its side.
pub const CONFIDENCE: f64 = 0.95;

/// Whether the upper limit of the rate is at most `rate`, given `k` of `n`.
pub fn surely_at_most(k: f64, n: f64, rate: f64) -> bool {
    // P(count <= k) at this rate is at most 5 %.
    regularized(k + 1.0, rate * n).is_some_and(|p| p >= CONFIDENCE)
}

/// Whether the lower limit of the rate is more than `rate`, given `k` of `n`.
pub fn surely_more_than(k: f64, n: f64, rate: f64) -> bool {
    // P(count >= k) at this rate is less than 5 %.
    k > 0.0 && regularized(k, rate * n).is_some_and(|p| p < 1.0 - CONFIDENCE)
}

/// The upper limit itself, 0 to 1; 1 where nothing is known.
pub fn upper_limit(k: f64, n: f64) -> f64 {
    if n.is_nan() || n <= 0.0 || k >= n {
        return 1.0;
    }
    let (mut low, mut high) = (0.0, 1.0);
    // Sixty halvings are more than a double holds.
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if surely_at_most(k, n, middle) { high = middle } else { low = middle }
    }
    high
}

/// Lower regularized incomplete gamma function; `None` outside its domain.
fn regularized(a: f64, x: f64) -> Option<f64> {
    if x == 0.0 {
        return Some(0.0);
    }
    checked_gamma_lr(a, x).ok().filter(|p| p.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_those_of_the_tables() {
        // One-sided 95 % limits of a Poisson count, as printed in any table of them.
        for (k, upper) in [(0.0, 2.9957), (1.0, 4.7439), (2.0, 6.2958), (10.0, 16.9622)] {
            let n = 1e6;
            assert!((upper_limit(k, n) * n - upper).abs() < 1e-3, "{k}");
            assert!(surely_at_most(k, n, (upper + 1e-3) / n) && !surely_at_most(k, n, (upper - 1e-3) / n), "{k}");
        }
        for (k, lower) in [(1.0, 0.05129), (2.0, 0.35536), (10.0, 5.42541)] {
            let n = 1e6;
            assert!(surely_more_than(k, n, (lower - 1e-3) / n) && !surely_more_than(k, n, (lower + 1e-3) / n), "{k}");
        }
    }

    #[test]
    fn nothing_is_sure_of_nothing() {
        assert_eq!(upper_limit(0.0, 0.0), 1.0);
        assert_eq!(upper_limit(0.0, f64::NAN), 1.0);
        assert_eq!(upper_limit(5.0, 5.0), 1.0);
        assert!(!surely_at_most(0.0, 0.0, 0.5) && !surely_more_than(0.0, 100.0, 0.0));
        assert!((upper_limit(0.0, 3_000.0) - 1e-3).abs() < 2e-6, "3 / n");
    }
}
