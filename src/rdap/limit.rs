//! How often a server is asked: an even pace with a small burst, pauses it asks for, and growing ones when it fails.
//!
//! Pure; times are monotonic milliseconds.

/// Look-ups that may go out at once after a quiet time.
const BURST: u64 = 4;
/// First pause after a failure; doubles with each further one.
const FIRST_PAUSE_MS: u64 = 5_000;
/// Longest pause of our own making.
const MOST_PAUSE_MS: u64 = 600_000;
/// Longest pause that a server can ask for: a day.
const MOST_ASKED_MS: u64 = 86_400_000;

/// One server's pace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limit {
    /// When the allowance is whole again (the generic cell rate algorithm's theoretical arrival time).
    whole_at: u64,
    /// Not before this.
    paused_until: u64,
    /// In a row.
    failures: u32,
}

impl Limit {
    /// From when on the server may be asked, at `per_minute` look-ups a minute.
    pub fn ready_at(&self, per_minute: u32) -> u64 {
        self.whole_at.saturating_sub((BURST - 1) * interval(per_minute)).max(self.paused_until)
    }

    /// Books a look-up that goes out at `now`.
    pub fn take(&mut self, per_minute: u32, now: u64) {
        self.whole_at = self.whole_at.max(now).saturating_add(interval(per_minute));
    }

    /// The server answered.
    pub fn answered(&mut self) {
        self.failures = 0;
    }

    /// The server failed, or asked to be left alone for `wait` milliseconds (RFC 9110 section 10.2.3).
    pub fn failed(&mut self, now: u64, wait: Option<u64>) {
        let own = FIRST_PAUSE_MS.saturating_mul(1u64.checked_shl(self.failures).unwrap_or(u64::MAX)).min(MOST_PAUSE_MS);
        self.failures = self.failures.saturating_add(1).min(32);
        let pause = wait.map_or(own, |wait| wait.clamp(1_000, MOST_ASKED_MS));
        self.paused_until = self.paused_until.max(now.saturating_add(pause));
    }
}

/// Time from one look-up to the next where many wait, milliseconds.
pub(super) fn interval(per_minute: u32) -> u64 {
    60_000 / u64::from(per_minute.max(1))
}

/// Reads a Retry-After value: seconds, or a date (RFC 9110 section 10.2.3). Milliseconds from `wall` (Unix
/// milliseconds) on.
pub fn retry_after(text: &str, wall: u64) -> Option<u64> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(seconds.saturating_mul(1000));
    }
    let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    Some(u64::try_from(date.as_millisecond()).unwrap_or(0).saturating_sub(wall))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_an_even_pace() {
        let mut limit = Limit::default();
        let start = 1_000_000;
        let mut at = start;
        let mut sent = Vec::new();
        while at < start + 60_000 {
            if limit.ready_at(10) <= at {
                limit.take(10, at);
                sent.push(at - start);
            }
            at += 100;
        }
        assert_eq!(sent[..5], [0, 100, 200, 300, 6_000], "four at once, then one each six seconds");
        assert_eq!(sent.len(), 13, "ten a minute and the burst");
    }

    #[test]
    fn pauses_double_and_the_servers_word_counts() {
        let mut limit = Limit::default();
        let mut pauses = Vec::new();
        let mut now = 0;
        for _ in 0..9 {
            limit.failed(now, None);
            pauses.push(limit.ready_at(60) - now);
            now = limit.ready_at(60);
        }
        assert_eq!(pauses, [5_000, 10_000, 20_000, 40_000, 80_000, 160_000, 320_000, 600_000, 600_000]);
        limit.answered();
        limit.failed(now, Some(30_000));
        assert_eq!(limit.ready_at(60), now + 30_000);
        limit.failed(now, Some(1));
        assert_eq!(limit.ready_at(60), now + 30_000, "a shorter word does not lift a longer one");
        limit.failed(now, Some(u64::MAX));
        assert_eq!(limit.ready_at(60), now + MOST_ASKED_MS);
    }

    #[test]
    fn retry_after_in_both_forms() {
        let wall = "2026-11-21T10:00:00Z".parse::<jiff::Timestamp>().unwrap().as_millisecond() as u64;
        for (text, expected) in [
            ("120", Some(120_000)),
            (" 0 ", Some(0)),
            ("Sat, 21 Nov 2026 10:01:30 GMT", Some(90_000)),
            ("Fri, 20 Nov 2026 10:00:00 GMT", Some(0)),
            ("soon", None),
            ("-5", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(retry_after(text, wall), expected, "{text}");
        }
    }
}
