//! Log-likelihood ratios of "k of n" against a flat attack, tabulated at start.
//!
//! The benign share varies from tenant to tenant as a beta density does, so k of n is beta-binomial; under an attack
//! every share is as likely as every other, so every k is: one of n + 1. Exact for few events, which is when speed
//! counts; from [`MOST`] events on only the share matters.
//!
//! The signals that use it never speak for a name: a sender chooses its types and its pace, so that it lacks a habit of
//! some tools exonerates nobody.

use statrs::function::beta::ln_beta;
use statrs::function::factorial::ln_binomial;

use super::CAP;

/// Events that are told apart.
const MOST: usize = 16;

/// Contributions by n and k.
pub(super) struct Share {
    table: Box<[[f32; MOST + 1]; MOST + 1]>,
}

impl Share {
    /// Of a benign share with the beta density (`alpha`, `beta`), both positive.
    pub fn of(alpha: f64, beta: f64) -> Self {
        let mut table = Box::new([[0.0; MOST + 1]; MOST + 1]);
        for (n, row) in table.iter_mut().enumerate() {
            let mut most = f64::NEG_INFINITY;
            for (k, cell) in row.iter_mut().enumerate().take(n + 1) {
                let (n, k) = (n as f64, k as f64);
                let benign = ln_binomial(n as u64, k as u64) + ln_beta(k + alpha, n - k + beta) - ln_beta(alpha, beta);
                // Never falling in k, as every signal.
                most = most.max(-(n + 1.0).ln() - benign);
                *cell = (most as f32).clamp(-CAP, CAP);
            }
        }
        Self { table }
    }

    /// The contribution of `k` of `n`; `k` above `n` counts as `n`.
    pub fn at(&self, k: u32, n: u32) -> f32 {
        let most = MOST as u32;
        let (k, n) = if n > most {
            // Rounded towards what speaks for nothing in particular: down.
            ((u64::from(k.min(n)) * u64::from(most) / u64::from(n)) as u32, most)
        } else {
            (k.min(n), n)
        };
        self.table.get(n as usize).and_then(|row| row.get(k as usize)).copied().unwrap_or(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_seen_says_nothing() {
        assert!(Share::of(0.3, 3.0).at(0, 0).abs() < 1e-6);
    }

    #[test]
    fn ratios_rise_with_the_share_and_stay_within_the_cap() {
        let share = Share::of(0.3, 3.0);
        for n in [1u32, 5, 16, 100, 70_000] {
            let all: Vec<f32> = (0..=n.min(200)).map(|k| share.at(k * (n / n.min(200)), n)).collect();
            assert!(all.windows(2).all(|pair| pair[0] <= pair[1]), "{n}");
            assert!(all.iter().all(|c| (-CAP..=CAP).contains(c)));
        }
        assert!(share.at(4, 4) > 1.0 && share.at(0, 16) < 0.0);
        assert_eq!(share.at(9, 4), share.at(4, 4));
    }

    #[test]
    fn both_sides_are_distributions() {
        let (alpha, beta) = (0.7, 2.0);
        for n in [1u64, 7, 16] {
            let benign =
                |k: u64| ln_binomial(n, k) + ln_beta(k as f64 + alpha, (n - k) as f64 + beta) - ln_beta(alpha, beta);
            let sum: f64 = (0..=n).map(|k| benign(k).exp()).sum();
            assert!((sum - 1.0).abs() < 1e-9, "{sum}");
        }
    }
}
