//! The options of a bench: `--name value` or `--name=value`, each at most once, all optional. No more than that.

use std::str::FromStr;

/// The options that were given.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Arguments(Vec<(String, String)>);

impl Arguments {
    /// Reads the command line; `known` are the options with their help. The error says what was wrong.
    pub(super) fn parse(line: &[String], known: &[(&str, &str)]) -> Result<Self, String> {
        let mut given: Vec<(String, String)> = Vec::new();
        let mut words = line.iter();
        while let Some(word) = words.next() {
            let option = word
                .strip_prefix("--")
                .ok_or_else(|| format!("expected an option, not {word:?}"))?;
            let (name, value) = match option.split_once('=') {
                Some((name, value)) => (name, value),
                None => (option, words.next().map_or("", String::as_str)),
            };
            if !known.iter().any(|(known, _)| *known == name) {
                return Err(format!("there is no option --{name}"));
            }
            if value.is_empty() {
                return Err(format!("--{name} needs a value"));
            }
            if given.iter().any(|(earlier, _)| earlier == name) {
                return Err(format!("--{name} is given twice"));
            }
            given.push((name.to_string(), value.to_string()));
        }
        Ok(Self(given))
    }

    /// The text of an option.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(given, _)| given == name)?;
        Some(value)
    }

    /// A number, or the default if the option was not given.
    pub(super) fn number<T: FromStr>(&self, name: &str, default: T) -> Result<T, String> {
        let Some(text) = self.text(name) else {
            return Ok(default);
        };
        text.parse()
            .map_err(|_| format!("--{name} is {text:?}, which is no number"))
    }

    /// A number of bytes, such as `64MiB`, or the default if the option was not given.
    pub(super) fn bytes(&self, name: &str, default: u64) -> Result<u64, String> {
        let Some(text) = self.text(name) else {
            return Ok(default);
        };
        bytes(text).ok_or_else(|| {
            format!("--{name} is {text:?}, which is no size such as 64KiB, 64MiB or 1GiB")
        })
    }
}

fn bytes(text: &str) -> Option<u64> {
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30)];
    let (number, shift) = units
        .iter()
        .find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, *shift)))?;
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_and_mistakes_are_named() {
        let known = [("rounds", ""), ("henge", "")];
        for (line, expected) in [
            ("", Ok(vec![])),
            ("--rounds 5", Ok(vec![("rounds", "5")])),
            (
                "--rounds=5 --henge a=b",
                Ok(vec![("rounds", "5"), ("henge", "a=b")]),
            ),
            ("rounds", Err("expected an option, not \"rounds\"")),
            ("--round 5", Err("there is no option --round")),
            ("--rounds", Err("--rounds needs a value")),
            ("--rounds=", Err("--rounds needs a value")),
            ("--rounds 5 --rounds=6", Err("--rounds is given twice")),
        ] {
            let words: Vec<String> = line.split_whitespace().map(String::from).collect();
            let expected = expected.map_err(String::from).map(|pairs| {
                Arguments(
                    pairs
                        .into_iter()
                        .map(|(name, value)| (name.to_string(), value.to_string()))
                        .collect(),
                )
            });
            assert_eq!(Arguments::parse(&words, &known), expected, "{line}");
        }
        let given = Arguments(vec![
            ("rounds".into(), "5".into()),
            ("x".into(), "y".into()),
        ]);
        assert_eq!(given.number("rounds", 1), Ok(5));
        assert_eq!(given.number("secs", 1.5), Ok(1.5));
        assert!(given.number("x", 1).is_err());
        assert_eq!(given.bytes("none", 7), Ok(7));
        assert!(given.bytes("rounds", 7).is_err());
        for (text, expected) in [
            ("3KiB", Some(3 << 10)),
            ("64MiB", Some(64 << 20)),
            ("1GiB", Some(1 << 30)),
            ("1.5GiB", None),
            ("99999999999GiB", None),
            ("GiB", None),
            ("7", None),
        ] {
            assert_eq!(bytes(text), expected, "{text}");
        }
    }
}
