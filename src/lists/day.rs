//! Calendar days (UTC): registration, review, expiry.

use std::fmt;

use jiff::civil::Date;

/// Milliseconds in a day.
const DAY_MS: u64 = 86_400_000;

/// A day, counted from 1970-01-01; reaches to 2149.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(pub u16);

impl Day {
    /// The last there is.
    pub const LAST: Self = Self(u16::MAX);

    /// Reads `YYYY-MM-DD`; `None` for anything else, for days that do not exist, and outside 1970..=2149.
    pub fn parse(text: &str) -> Option<Self> {
        u16::try_from(days(text)?).ok().map(Self)
    }

    /// Whether it is the text of a day behind [`Day::LAST`].
    pub fn is_later(text: &str) -> bool {
        days(text).is_some_and(|days| days > i32::from(u16::MAX))
    }

    /// The day of a moment, milliseconds since the Unix epoch.
    pub fn of_wall(wall: u64) -> Self {
        Self(u16::try_from(wall / DAY_MS).unwrap_or(u16::MAX))
    }

    /// Its first moment (UTC), milliseconds since the Unix epoch.
    pub fn start(self) -> u64 {
        u64::from(self.0) * DAY_MS
    }

    /// Days from its start to `wall` (milliseconds since the Unix epoch); 0 if it lies ahead.
    pub fn age_at(self, wall: u64) -> f32 {
        (wall.saturating_sub(self.start()) as f64 / DAY_MS as f64) as f32
    }
}

/// Days from 1970-01-01 to the one that `YYYY-MM-DD` is, if it is one.
fn days(text: &str) -> Option<i32> {
    let octets: &[u8; 10] = text.as_bytes().try_into().ok()?;
    let number = |range: std::ops::Range<usize>| {
        octets.get(range)?.iter().try_fold(0i16, |acc, b| b.is_ascii_digit().then(|| acc * 10 + i16::from(b - b'0')))
    };
    if octets[4] != b'-' || octets[7] != b'-' {
        return None;
    }
    let (month, day) = (i8::try_from(number(5..7)?).ok()?, i8::try_from(number(8..10)?).ok()?);
    let date = Date::new(number(0..4)?, month, day).ok()?;
    Some((date - Date::constant(1970, 1, 1)).get_days())
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let span = jiff::Span::new().days(i64::from(self.0));
        match Date::constant(1970, 1, 1).checked_add(span) {
            Ok(date) => date.fmt(f),
            Err(_) => Err(fmt::Error), // 65,535 days after 1970 is within jiff's calendar
        }
    }
}

impl serde::Serialize for Day {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_round_trip() {
        for text in ["1970-01-01", "2000-02-29", "2026-11-21", "2149-06-06"] {
            assert_eq!(Day::parse(text).expect(text).to_string(), text);
        }
        assert_eq!(Day::parse("1970-01-02"), Some(Day(1)));
        assert_eq!(Day::parse("2149-06-06"), Some(Day::LAST));
        let later =
            ["2149-06-06", "2149-06-07", "2150-01-01", "9999-12-31", "2150-02-30", "1969-12-31"].map(Day::is_later);
        assert_eq!(later, [false, true, true, true, false, false]);
        assert_eq!(
            Day::of_wall(Day::parse("2026-11-21").expect("day").start() + 5),
            Day::parse("2026-11-21").expect("day")
        );
    }

    #[test]
    fn what_is_no_day_is_refused() {
        for text in
            ["", "2026-1-1", "2026-02-30", "2026-13-01", "1969-12-31", "2149-06-07", "2026/01/01", "\u{e9}026-01-0"]
        {
            assert_eq!(Day::parse(text), None, "{text}");
        }
    }

    #[test]
    fn age_counts_from_midnight_and_never_below_zero() {
        let day = Day::parse("2026-11-20").expect("day");
        assert_eq!(day.age_at(day.start() + DAY_MS * 3 / 2), 1.5);
        assert_eq!(day.age_at(0), 0.0);
    }
}
