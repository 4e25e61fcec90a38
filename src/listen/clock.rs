//! The one reading of both clocks. Everything behind the listeners is handed a [`Now`] instead.

use std::sync::LazyLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::model::Now;

/// Reads both clocks. Milliseconds of `mono` count from the first call in this process.
pub fn now() -> Now {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    let start = *START;
    Now {
        mono: u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX),
        // A clock set before 1970 reads as 1970: only display and rule expiry depend on it.
        wall: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)),
    }
}
