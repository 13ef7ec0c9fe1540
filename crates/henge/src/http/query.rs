//! Query strings, form-decoded, and the path of the raw form, percent-decoded once. A parameter that is not expected, or
//! comes twice, is refused: a misspelt one would otherwise be ignored without a word.

use std::borrow::Cow;
use std::str::FromStr;

use super::problem::{Code, Problem};

/// The values of the parameters that a route knows, in the order of `names`.
pub(crate) fn parse<'q, const N: usize>(
    query: Option<&'q str>,
    names: [&str; N],
) -> Result<[Option<Cow<'q, [u8]>>; N], Problem> {
    let mut values = [const { None }; N];
    for pair in query.unwrap_or_default().split('&') {
        if pair.is_empty() {
            continue;
        }
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = form_decoded(name)?;
        let Some(index) = names.iter().position(|known| known.as_bytes() == &*name) else {
            let name = String::from_utf8_lossy(&name);
            return Err(invalid(format!(
                "unknown parameter {name:?}; expected {}",
                names.join(", ")
            )));
        };
        if values[index].is_some() {
            return Err(invalid(format!("{} is given twice", names[index])));
        }
        values[index] = Some(form_decoded(value)?);
    }
    Ok(values)
}

fn invalid(detail: String) -> Problem {
    Problem::new(Code::InvalidQuery, detail)
}

/// A parameter that is text.
pub(crate) fn text<'a>(name: &str, value: &'a [u8]) -> Result<&'a str, Problem> {
    std::str::from_utf8(value).map_err(|_| invalid(format!("{name} is not UTF-8")))
}

/// A whole number from 0 up, in digits only: Rust would take `+1` too, and a `+` that nobody has escaped is a space in a query.
pub(crate) fn whole<T: FromStr>(text: &str) -> Option<T> {
    let is_digits = text.bytes().all(|byte| byte.is_ascii_digit());
    is_digits.then(|| text.parse().ok()).flatten()
}

/// A parameter that says yes or no; not given is no.
pub(crate) fn is_set(name: &str, value: Option<&[u8]>) -> Result<bool, Problem> {
    match value.map(|value| text(name, value)).transpose()? {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(other) => Err(invalid(format!(
            "{name}: found {other:?}, expected true or false"
        ))),
    }
}

/// `application/x-www-form-urlencoded`: `%XX` is a byte, `+` a space.
fn form_decoded(text: &str) -> Result<Cow<'_, [u8]>, Problem> {
    decoded(text, true).map_err(invalid)
}

/// A path: `%XX` is a byte, `+` a plus.
pub(crate) fn path_decoded(text: &str) -> Result<Cow<'_, [u8]>, Problem> {
    decoded(text, false).map_err(|detail| Problem::new(Code::InvalidPath, detail))
}

fn decoded(text: &str, plus_is_space: bool) -> Result<Cow<'_, [u8]>, String> {
    let bytes = text.as_bytes();
    let special = |&byte: &u8| byte == b'%' || (byte == b'+' && plus_is_space);
    let Some(first) = bytes.iter().position(special) else {
        return Ok(Cow::Borrowed(bytes));
    };
    let mut out = Vec::with_capacity(bytes.len());
    out.extend_from_slice(&bytes[..first]);
    let mut rest = &bytes[first..];
    while let [byte, tail @ ..] = rest {
        rest = tail;
        match byte {
            b'%' => {
                let pair = tail.split_first_chunk::<2>();
                let Some((value, tail)) = pair.and_then(|(pair, tail)| Some((hex(*pair)?, tail)))
                else {
                    let at = bytes.len() - tail.len() - 1;
                    return Err(format!(
                        "the % at byte {at} is not followed by two hexadecimal digits; a percent sign is written %25"
                    ));
                };
                out.push(value);
                rest = tail;
            }
            b'+' if plus_is_space => out.push(b' '),
            _ => out.push(*byte),
        }
    }
    Ok(Cow::Owned(out))
}

fn hex(digits: [u8; 2]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    Some((digit(digits[0])? << 4) | digit(digits[1])?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_strings() {
        let show = |query: &str| match parse(Some(query), ["key", "limit"]) {
            Ok(values) => values
                .iter()
                .map(|value| match value {
                    None => "-".to_owned(),
                    Some(value) => value.escape_ascii().to_string(),
                })
                .collect::<Vec<_>>()
                .join("|"),
            Err(problem) => problem.detail.split(" not").next().unwrap_or("").to_owned(),
        };
        for (query, expected) in [
            ("", "-|-"),
            ("key=a", "a|-"),
            ("key", "|-"),
            ("key=&limit=5", "|5"),
            ("limit=5&key=a+b%20c%2B", "a b c+|5"),
            ("k%65y=a=b", "a=b|-"),
            ("key=%00%ff%C3%a4", "\\x00\\xff\\xc3\\xa4|-"),
            ("key=a&key=a", "key is given twice"),
            ("kye=a", "unknown parameter \"kye\"; expected key, limit"),
            ("key=%", "the % at byte 0 is"),
            ("key=ab%2", "the % at byte 2 is"),
            ("key=%+1", "the % at byte 0 is"),
        ] {
            assert_eq!(show(query), expected, "{query}");
        }
    }

    #[test]
    fn whole_numbers_are_digits() {
        for (text, expected) in [
            ("0", Some(0)),
            ("007", Some(7)),
            ("255", Some(255)),
            ("256", None),
            ("", None),
            ("+1", None),
            ("-1", None),
            ("-0", None),
            (" 1", None),
            ("1 ", None),
            ("1.0", None),
            ("1e1", None),
            ("0x1", None),
            ("1_0", None),
            ("١", None),
        ] {
            assert_eq!(whole::<u8>(text), expected, "{text:?}");
        }
    }

    #[test]
    fn paths_are_decoded_once() {
        for (path, expected) in [("a/b", "a/b"), ("a%2Fb%252F+", "a/b%2F+")] {
            let decoded = path_decoded(path).ok();
            assert_eq!(decoded.as_deref(), Some(expected.as_bytes()));
        }
        assert!(path_decoded("%zz").is_err());
    }
}
