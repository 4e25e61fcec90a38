//! The one place that reads clocks. Everything behind it is handed a [`Now`].

use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::model::Now;

/// Reads both clocks. Monotonic time counts from the first call in this process, plus one second so that "an instant
/// ago" never underflows.
pub fn now() -> Now {
    static START: OnceLock<Instant> = OnceLock::new();
    let mono = START.get_or_init(Instant::now).elapsed().as_millis() as u64 + 1000;
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64);
    Now { mono, wall }
}
