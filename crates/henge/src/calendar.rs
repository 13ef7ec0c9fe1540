//! Times as RFC 3339 has them, in UTC, from text and as text.

use std::fmt;

/// Milliseconds of a day.
const DAY_MS: u64 = 86_400_000;
/// Days from the first of March of the year 0 to the Unix epoch.
const EPOCH_DAYS: i64 = 719_468;
/// Days of 400 years.
const ERA_DAYS: i64 = 146_097;

/// A text is no time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct NoTime(String);

impl fmt::Display for NoTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: String = self.0.chars().take(80).collect();
        write!(
            f,
            "{shown:?} is no time; expected one of 1970 to 9999 in UTC, such as 2027-01-31T12:00:00Z or 2027-01-31"
        )
    }
}

/// Milliseconds since the Unix epoch. A day alone is its beginning.
pub(crate) fn parse(text: &str) -> Result<u64, NoTime> {
    read(text).ok_or_else(|| NoTime(text.to_owned()))
}

fn read(text: &str) -> Option<u64> {
    let (day, time) = match text.split_once(['T', 't', ' ']) {
        Some((day, time)) => (day, time.strip_suffix(['Z', 'z'])?),
        None => (text, "00:00:00"),
    };
    let [year, month, day] = fields(day, '-', [4, 2, 2])?;
    let [hour, minute, second] = fields(time, ':', [2, 2, 2])?;
    if !(1970..=9999).contains(&year) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let days = days_from_civil(year, month, day);
    // A day that its month does not have is one of the next.
    if civil_from_days(days) != (year, month, day) {
        return None;
    }
    let days = u64::try_from(days).ok()?;
    let seconds = u64::try_from(hour * 3600 + minute * 60 + second).ok()?;
    Some(days * DAY_MS + seconds * 1000)
}

/// Numbers of so many digits each.
fn fields(text: &str, between: char, digits: [usize; 3]) -> Option<[i64; 3]> {
    let mut numbers = [0; 3];
    let mut parts = text.split(between);
    for (number, len) in numbers.iter_mut().zip(digits) {
        let part = parts.next()?;
        if part.len() != len || !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        *number = part.parse().ok()?;
    }
    parts.next().is_none().then_some(numbers)
}

/// Years begin in March here, so that the day that comes and goes is the last of one.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * ERA_DAYS + of_era * 365 + of_era / 4 - of_era / 100 + of_year - EPOCH_DAYS
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + EPOCH_DAYS;
    let (era, of_era) = (days.div_euclid(ERA_DAYS), days.rem_euclid(ERA_DAYS));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + i64::from(month <= 2);
    (year, month, day)
}

/// A time of the years 1970 to 9999 as text.
pub(crate) fn text_with_millis(at_ms: u64) -> String {
    let text = text(at_ms);
    let second = text.strip_suffix('Z').unwrap_or(&text);
    format!("{second}.{:03}Z", at_ms % 1000)
}

/// The same without its milliseconds.
pub(crate) fn text(at_ms: u64) -> String {
    let days = i64::try_from(at_ms / DAY_MS).unwrap_or(i64::MAX / 2);
    let second = at_ms % DAY_MS / 1000;
    let (year, month, day) = civil_from_days(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_as_text_and_back() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("1970-01-01", 0),
            ("2000-02-29T12:34:56Z", 951_827_696),
            ("2024-02-29 00:00:00z", 1_709_164_800),
            ("2026-11-27t19:30:00Z", 1_795_807_800),
            ("9999-12-31T23:59:59Z", 253_402_300_799),
        ] {
            assert_eq!(parse(text), Ok(seconds * 1000), "{text}");
            let again = super::text(seconds * 1000);
            assert_eq!(parse(&again), Ok(seconds * 1000), "{again}");
        }
        assert_eq!(super::text(951_827_696_999), "2000-02-29T12:34:56Z");
        for wrong in [
            "",
            "tomorrow",
            "2026-02-30",
            "2026-13-01",
            "2026-00-01",
            "2026-01-00",
            "1969-12-31",
            "10000-01-01",
            "2026-1-1",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:60:00Z",
            "2026-01-01T00:00:00",
            "2026-01-01T00:00:00+01:00",
            "2026-01-01T00:00Z",
            "+026-01-01",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_day_is_one() {
        for days in 0..4 * ERA_DAYS {
            let (year, month, day) = civil_from_days(days);
            assert_eq!(days_from_civil(year, month, day), days);
            assert!((1..=12).contains(&month) && (1..=31).contains(&day));
        }
    }
}
