//! Unconnected: names of a tenant that were resolved and never connected to.
//!
//! A name is asked to reach its address. Known only where the packet filter tells which pins were used; elsewhere it
//! reads nothing. Prefetching programs leave a third of their names unused, so the density is wide; chosen, not fitted.

use std::sync::LazyLock;

use super::share::Share;
use super::{Reading, Signal};

/// First parameter of the benign share's beta density; chosen.
pub const BENIGN_ALPHA: f64 = 1.0;
/// Second parameter.
pub const BENIGN_BETA: f64 = 1.5;
/// Fewer say nothing.
pub const FEWEST: u32 = 6;

static RATIO: LazyLock<Share> = LazyLock::new(|| Share::of(BENIGN_ALPHA, BENIGN_BETA));

/// Reading of `k` names without a connection among `n` resolved.
pub fn read(k: u32, n: u32) -> Reading {
    if n < FEWEST {
        return Signal::Unconnected.unknown();
    }
    Signal::Unconnected.reading(Some(k as f32 / n as f32), RATIO.at(k, n).max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_ever_connected_speaks_and_prefetching_does_not() {
        assert!(read(16, 16).contribution > 1.0);
        assert!(read(5, 16).contribution < 0.3);
    }
}
