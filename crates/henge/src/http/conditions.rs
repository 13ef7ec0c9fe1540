//! If-Match and If-None-Match as RFC 9110 has them, over versions as entity tags. A tag that is no version of ours is
//! legal and matches nothing.

use henge_wire::{Match, Precondition, Version};
use http::header::{GetAll, IF_MATCH, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue};

use super::problem::{Code, Problem};

/// What one of the headers lists.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Tags {
    Any,
    Versions(Vec<Version>),
}

impl Tags {
    fn as_match(&self) -> Match<'_> {
        match self {
            Self::Any => Match::Any,
            Self::Versions(versions) => Match::OneOf(versions),
        }
    }
}

/// The conditions of a request.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Conditions {
    matches: Option<Tags>,
    none_matches: Option<Tags>,
}

impl Conditions {
    /// Reads them from the headers.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        Ok(Self {
            // If-Match compares strongly: a weak tag never matches.
            matches: tags("If-Match", &headers.get_all(IF_MATCH), false)?,
            none_matches: tags("If-None-Match", &headers.get_all(IF_NONE_MATCH), true)?,
        })
    }

    /// For the engine to decide.
    pub(crate) fn precondition(&self) -> Precondition<'_> {
        Precondition {
            matches: self.matches.as_ref().map(Tags::as_match),
            none_matches: self.none_matches.as_ref().map(Tags::as_match),
        }
    }

    /// For a read of what exists in this version: whether the client has it already (304); an error if it wanted another.
    pub(crate) fn of_read(&self, version: Version) -> Result<bool, Problem> {
        let Precondition {
            matches,
            none_matches,
        } = self.precondition();
        if matches.is_some_and(|matches| !matches.contains(Some(version))) {
            return Err(Problem::precondition_failed(Some(version)));
        }
        Ok(none_matches.is_some_and(|matches| matches.contains(Some(version))))
    }

    /// For a read of what does not exist: it fails only if the client wanted something to.
    pub(crate) fn of_absent(&self) -> Result<(), Problem> {
        match self.matches {
            None => Ok(()),
            Some(_) => Err(Problem::precondition_failed(None)),
        }
    }
}

fn tags(
    name: &str,
    lines: &GetAll<'_, HeaderValue>,
    weak_matches: bool,
) -> Result<Option<Tags>, Problem> {
    let invalid = |line: &[u8]| {
        let detail = format!(
            "{name} is {:?}; expected * or a list of tags in quotes, such as \"1-42\"",
            String::from_utf8_lossy(line)
        );
        Problem::new(Code::InvalidPrecondition, detail)
    };
    let mut found: Option<Tags> = None;
    for line in lines {
        let line = line.as_bytes();
        if line.trim_ascii() == b"*" {
            found = Some(Tags::Any);
            continue;
        }
        let mut listed = false;
        let mut rest = line.trim_ascii_start();
        loop {
            // A list may have empty elements (RFC 9110, 5.6.1.2).
            while let [b',', more @ ..] = rest {
                rest = more.trim_ascii_start();
            }
            if rest.is_empty() && listed {
                break;
            }
            let (weak, tag) = match rest {
                [b'W', b'/', b'"', tag @ ..] => (true, tag),
                [b'"', tag @ ..] => (false, tag),
                _ => return Err(invalid(line)),
            };
            let Some(end) = tag.iter().position(|&byte| byte == b'"') else {
                return Err(invalid(line));
            };
            let version = std::str::from_utf8(&tag[..end])
                .ok()
                .and_then(|text| text.parse::<Version>().ok())
                .filter(|_| weak_matches || !weak);
            match found.get_or_insert_with(|| Tags::Versions(Vec::new())) {
                Tags::Any => {}
                Tags::Versions(versions) => versions.extend(version),
            }
            listed = true;
            rest = tag[end + 1..].trim_ascii_start();
            if !matches!(rest, [] | [b',', ..]) {
                return Err(invalid(line));
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_tags() {
        let parsed = |name: &'static str, value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static(value));
            let conditions = Conditions::of(&headers).ok()?;
            let tags = conditions.matches.or(conditions.none_matches)?;
            Some(match tags {
                Tags::Any => "*".to_owned(),
                Tags::Versions(versions) => format!("{versions:?}"),
            })
        };
        for (name, value, expected) in [
            ("if-match", "*", Some("*")),
            ("if-match", r#""1-2""#, Some("[1-2]")),
            ("if-match", r#" "1-2" , "3-4""#, Some("[1-2, 3-4]")),
            ("if-match", r#"W/"1-2", "other, one""#, Some("[]")),
            ("if-none-match", r#"W/"1-2","a""#, Some("[1-2]")),
            ("if-match", "1-2", None),
            ("if-match", "", None),
            ("if-match", r#""1-2"#, None),
            ("if-match", r#""1-2","#, Some("[1-2]")),
            (
                "if-none-match",
                r#", "1-2" ,, "3-4" , ,"#,
                Some("[1-2, 3-4]"),
            ),
            ("if-match", ",", None),
            ("if-match", r#""1-2" "3-4""#, None),
        ] {
            assert_eq!(parsed(name, value).as_deref(), expected, "{name}: {value}");
        }
    }
}
