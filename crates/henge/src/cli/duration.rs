//! Durations on the command line: `30s`, `500ms`, `2m`, `1.5h`; a number without a unit is seconds. Whether one may be zero
//! is for its flag to say.

use std::time::Duration;

/// The units, longest name first, so that `ms` is not taken for `s`.
const UNITS: [(&str, f64); 6] = [
    ("ms", 1e-3),
    ("us", 1e-6),
    ("s", 1.0),
    ("m", 60.0),
    ("h", 3600.0),
    ("d", 86_400.0),
];

/// Understands a duration; the error says what was expected.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    let unit = UNITS
        .iter()
        .find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, *seconds)));
    let (number, seconds) = unit.unwrap_or((text, 1.0));
    // f64 also reads "inf", "nan" and "1e3".
    let is_plain = number
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.');
    number
        .parse::<f64>()
        .ok()
        .filter(|_| is_plain)
        .and_then(|number| Duration::try_from_secs_f64(number * seconds).ok())
        .ok_or_else(|| "expected a duration such as 30s, 500ms or 2m".to_owned())
}

/// The same for a duration that lasts.
pub(super) fn parse_positive(text: &str) -> Result<Duration, String> {
    let duration = parse(text)?;
    if duration.is_zero() {
        return Err("expected a duration longer than zero".to_owned());
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        for (text, expected) in [
            ("30s", Some(Duration::from_secs(30))),
            ("500ms", Some(Duration::from_millis(500))),
            ("250us", Some(Duration::from_micros(250))),
            ("2m", Some(Duration::from_mins(2))),
            ("1.5h", Some(Duration::from_mins(90))),
            ("1d", Some(Duration::from_hours(24))),
            ("7", Some(Duration::from_secs(7))),
            ("0", Some(Duration::ZERO)),
            ("", None),
            ("s", None),
            ("-1s", None),
            ("1e3s", None),
            ("inf", None),
            ("1 s", None),
            ("1w", None),
            ("99999999999999999999d", None),
        ] {
            assert_eq!(parse(text).ok(), expected, "{text:?}");
        }
        assert!(parse_positive("0s").is_err());
    }
}
