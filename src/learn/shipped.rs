//! The shipped distribution: how scores of benign pairs were spread where they were measured, as a prior.
//!
//! It enters every decision beside a deployment's own sample, with the weight of [`PRIOR_SESSIONS`] pseudo-sessions, so
//! that a small or one-sided sample cannot talk a threshold away from it.
//!
//! `STAUNCH_CORPORA=DIR cargo test --release --test learn_corpus -- --nocapture` prints the table anew; it has to be
//! taken over whenever the scoring changes, and a test says so.

use super::histogram::{PER_NAT, Scale};

/// Pseudo-sessions that the shipped distribution weighs.
pub const PRIOR_SESSIONS: u32 = 1_000;
/// Pseudo-pairs: as many to a session as were measured.
pub const PRIOR_PAIRS: f64 = 31_000.0;

/// [`super::version::scoring`] under which the tables were measured.
pub const SCORING: &str = "0c9a9ca307e2f50a";

/// Pairs measured, in 151 sessions.
pub const MEASURED: u32 = 4681;
/// Of them, those whose largest score is at least 0, 0.5, 1, ... nats.
pub const ANY: [u32; 25] = [4681, 98, 70, 43, 31, 23, 18, 12, 10, 6, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// The same for the largest score that would have refused a name where it is past the threshold.
pub const REFUSABLE: [u32; 25] = [4681, 4, 4, 4, 4, 3, 3, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Bins from one entry of a table to the next.
pub const STEP: u16 = PER_NAT / 2;

/// A shipped distribution.
#[derive(Debug, Clone, Copy)]
pub struct Prior {
    table: &'static [u32; 25],
}

impl Prior {
    /// Of [`ANY`].
    pub fn any() -> Self {
        Self { table: &ANY }
    }

    /// Of [`REFUSABLE`].
    pub fn refusable() -> Self {
        Self { table: &REFUSABLE }
    }

    /// Share of pairs in this bin and those above, 0 to 1. Between two entries it falls by the same factor with every
    /// bin; from the last entry that holds a pair on it goes on falling by as much as it does before.
    pub fn at_or_above(self, bin: u16) -> f64 {
        let share = |at: usize| f64::from(self.table.get(at).copied().unwrap_or(0)) / f64::from(MEASURED);
        let filled = self.table.iter().take_while(|count| **count > 0).count().max(2);
        let (at, part) = (usize::from(bin / STEP), f64::from(bin % STEP) / f64::from(STEP));
        if at + 1 < filled {
            return share(at) * (share(at + 1) / share(at)).powf(part);
        }
        let (last, before) = (filled - 1, filled.saturating_sub(3));
        // At least one pair in two entries lies between them, else the tail would never end.
        let ratio = (share(last) / share(before)).min(0.9).powf(1.0 / (last - before).max(1) as f64);
        share(last) * ratio.powf(at as f64 + part - last as f64)
    }

    /// Pseudo-pairs in this bin and those above.
    pub fn pairs(self, bin: u16) -> f64 {
        PRIOR_PAIRS * self.at_or_above(bin.min(Scale::Nats.bins()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_fall_from_one_and_never_rise() {
        for prior in [Prior::any(), Prior::refusable()] {
            assert_eq!(prior.at_or_above(0), 1.0);
            for bin in 0..Scale::Nats.bins() {
                let (here, next) = (prior.at_or_above(bin), prior.at_or_above(bin + 1));
                assert!(next <= here && next > 0.0 && here.is_finite(), "{bin}: {here} {next}");
            }
            for (at, count) in prior.table.iter().enumerate().take_while(|(_, count)| **count > 0) {
                let told = prior.at_or_above(at as u16 * STEP) * f64::from(MEASURED);
                assert!((told - f64::from(*count)).abs() < 1e-6, "{at}");
            }
        }
        for (any, refusable) in ANY.iter().zip(REFUSABLE) {
            assert!(refusable <= *any);
        }
    }

    #[test]
    fn the_tables_were_measured_under_this_scoring() {
        assert_eq!(
            SCORING,
            super::super::version::scoring(),
            "the scoring has changed since the tables were measured: run `cargo test --release --test learn_corpus -- \
             --nocapture` with STAUNCH_CORPORA set and take over what it prints"
        );
    }
}
