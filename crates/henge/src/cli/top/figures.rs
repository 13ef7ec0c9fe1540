//! Figures for people, as short as they can be read in a table.

use std::time::Duration;

use crate::cli::simulate::grouped;

/// A number: whole and grouped, and small ones with a digit behind the point.
pub(super) fn count(number: f64) -> String {
    if number < 9.95 && number.fract() > 0.05 {
        return format!("{number:.1}");
    }
    if number >= 10e6 {
        return format!("{:.1}M", number / 1e6);
    }
    grouped(whole(number))
}

/// The nearest whole number; 0 for what is below it.
#[expect(
    clippy::cast_sign_loss,
    reason = "what is below 0 is 0, as a cast has it"
)]
pub(super) fn whole(number: f64) -> u64 {
    number.round() as u64
}

/// A part of one.
pub(super) fn percent(part: f64) -> String {
    format!("{:.1}%", part * 100.0)
}

/// A size with a digit behind the point.
pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1 << 10 {
        return format!("{bytes}B");
    }
    let (mut size, mut units) = (bytes as f64 / 1024.0, UNITS.into_iter());
    let mut unit = units.next().unwrap_or_default();
    for larger in units {
        // What would be shown as 1024.0.
        if size < 1023.95 {
            break;
        }
        (size, unit) = (size / 1024.0, larger);
    }
    format!("{size:.1}{unit}")
}

pub(super) fn took(took: Duration) -> String {
    let micros = took.as_secs_f64() * 1e6;
    if micros < 1e3 {
        format!("{micros:.0}us")
    } else if micros < 1e6 {
        format!("{:.1}ms", micros / 1e3)
    } else {
        format!("{:.1}s", micros / 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        for (number, text) in [
            (0.0, "0"),
            (0.5, "0.5"),
            (9.0, "9"),
            (12.4, "12"),
            (12_345.0, "12,345"),
            (12_345_678.0, "12.3M"),
        ] {
            assert_eq!(count(number), text);
        }
        assert_eq!(percent(0.9876), "98.8%");
        for (size, text) in [
            (0, "0B"),
            (1023, "1023B"),
            (1536, "1.5KiB"),
            ((1 << 20) - 1, "1.0MiB"),
            (3 << 30, "3.0GiB"),
            (u64::MAX, "16777216.0TiB"),
        ] {
            assert_eq!(bytes(size), text);
        }
        for (micros, text) in [
            (0, "0us"),
            (131, "131us"),
            (2_100, "2.1ms"),
            (1_500_000, "1.5s"),
        ] {
            assert_eq!(took(Duration::from_micros(micros)), text);
        }
    }
}
