//! Log-likelihood ratios of a benign density against a flat attack density, tabulated at start.
//!
//! A density costs a hundred nanoseconds and more; a table look-up one. The table also makes the ratio monotone:
//! below the benign mode it keeps the mode's value, above it never falls.

use statrs::distribution::{Continuous, LogNormal};

use super::CAP;

/// Contributions by value, in steps of equal width.
pub(super) struct Ratio {
    table: Box<[f32]>,
    steps_a_unit: f32,
}

impl Ratio {
    /// Of `benign`, largest at `mode`, against an attack spread evenly over 0..=`limit`.
    pub fn of(benign: &impl Continuous<f64, f64>, mode: f64, limit: f64, steps_a_unit: f32) -> Self {
        let flat = -limit.ln();
        let steps = (limit * f64::from(steps_a_unit)) as usize + 1;
        let mut most = f64::NEG_INFINITY;
        let table = (0..steps)
            .map(|step| {
                let value = (step as f64 / f64::from(steps_a_unit)).max(mode);
                most = most.max(flat - benign.ln_pdf(value));
                (most as f32).clamp(-CAP, CAP)
            })
            .collect();
        Self { table, steps_a_unit }
    }

    /// The contribution of `value`; beyond the limit that of the limit.
    pub fn at(&self, value: f32) -> f32 {
        // `as` saturates and maps NaN to zero.
        let step = ((value * self.steps_a_unit) as usize).min(self.table.len().saturating_sub(1));
        self.table.get(step).copied().unwrap_or(0.0)
    }
}

/// Log-normal by location and scale of the logarithm, with its mode.
pub(super) fn log_normal(location: f64, scale: f64) -> (LogNormal, f64) {
    let density = LogNormal::new(location, scale).expect("the constants handed in are finite, the scale positive");
    (density, (location - scale * scale).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_rise_and_stay_within_the_cap() {
        let (density, mode) = log_normal(3.0, 1.2);
        let ratio = Ratio::of(&density, mode, 2_048.0, 0.25);
        let all: Vec<f32> = (0..3_000).map(|value| ratio.at(value as f32)).collect();
        assert!(all.windows(2).all(|pair| pair[0] <= pair[1]));
        assert!(all.iter().all(|c| (-CAP..=CAP).contains(c)));
        assert_eq!(ratio.at(1e9), ratio.at(2_048.0));
        assert_eq!(ratio.at(f32::NAN), ratio.at(0.0));
        assert_eq!(ratio.at(-5.0), ratio.at(0.0));
    }
}
