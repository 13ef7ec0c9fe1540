//! Lifetimes as clients write them, in seconds, and as the engine takes them, as deadlines.

use henge_wire::Expiry;

use super::problem::{Code, Problem};

/// The longest lifetime: 6,300 years, so that until the year 3600 none ends after 9999, past which dates cannot be written. One that
/// is longer is a mistake in its unit. It is no date, so that what is taken today is taken tomorrow.
pub(crate) const LONGEST_SECONDS: u64 = 200_000_000_000;

/// The deadline of a lifetime in seconds, from now; none when it is absent or 0.
pub(crate) fn expiry(ttl_seconds: Option<f64>, now_ms: u64) -> Result<Expiry, Problem> {
    let Some(seconds) = ttl_seconds else {
        return Ok(Expiry::Never);
    };
    if seconds == 0.0 {
        return Ok(Expiry::Never);
    }
    if !seconds.is_finite() || seconds < 0.0 {
        return Err(invalid(format!(
            "ttl is {seconds}; expected seconds from 0 up, where 0 means no expiry"
        )));
    }
    if seconds > LONGEST_SECONDS as f64 {
        return Err(invalid(format!(
            "ttl is {seconds} seconds; the most is {LONGEST_SECONDS}, 6,300 years"
        )));
    }
    // At least one, or a lifetime of a tenth of a millisecond would mean none.
    let millis = (seconds * 1000.0).round().max(1.0);
    #[expect(clippy::cast_sign_loss, reason = "it was checked to be positive")]
    let millis = millis as u64;
    Ok(Expiry::At(now_ms + millis))
}

/// A lifetime written as text, in a header.
pub(crate) fn parse(name: &str, text: &str) -> Result<f64, Problem> {
    let text = text.trim();
    // f64 also reads "inf", "NaN" and "1e3"; only digits and a dot are a lifetime here.
    let plain = !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'.');
    match text.parse() {
        Ok(seconds) if plain => Ok(seconds),
        _ => Err(invalid(format!(
            "{name} is {text:?}; expected seconds, such as 60 or 0.5"
        ))),
    }
}

fn invalid(detail: String) -> Problem {
    Problem::new(Code::InvalidTtl, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_become_deadlines() {
        let now = 1_700_000_000_000;
        for (ttl, expected) in [
            (None, Some(Expiry::Never)),
            (Some(0.0), Some(Expiry::Never)),
            (Some(-0.0), Some(Expiry::Never)),
            (Some(1.5), Some(Expiry::At(now + 1500))),
            (Some(0.0001), Some(Expiry::At(now + 1))),
            (Some(2.0e11), Some(Expiry::At(now + 200_000_000_000_000))),
            (Some(200_000_000_000.1), None),
            (Some(3.0e11), None),
            (Some(1e300), None),
            (Some(-1.0), None),
            (Some(f64::NAN), None),
            (Some(f64::INFINITY), None),
        ] {
            assert_eq!(expiry(ttl, now).ok(), expected, "{ttl:?}");
        }
        for (text, seconds) in [
            ("60", Some(60.0)),
            (" 0.5 ", Some(0.5)),
            ("inf", None),
            ("-1", None),
            ("", None),
            ("1e3", None),
        ] {
            assert_eq!(parse("X-TTL", text).ok(), seconds, "{text:?}");
        }
    }
}
