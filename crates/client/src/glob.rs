//! Patterns of keys, as the Redis protocol has them, for a server that only knows prefixes. One loop with one place to go
//! back to, so that no pattern costs more than its length times the key's.

/// Whether the whole key is as the pattern says. A bracket that is not closed stands for itself.
pub(crate) fn matches(pattern: &[u8], key: &[u8]) -> bool {
    let (mut p, mut k) = (0, 0);
    // The last star, and the first byte of the key that it did not take yet. An earlier star need not take more: whatever
    // could follow it has been found as early as possible.
    let mut star: Option<(usize, usize)> = None;
    while k < key.len() {
        if pattern.get(p) == Some(&b'*') {
            p += 1;
            star = Some((p, k));
        } else if let Some(len) = one(&pattern[p..], key[k]) {
            p += len;
            k += 1;
        } else if let Some((after, taken)) = star {
            star = Some((after, taken + 1));
            (p, k) = (after, taken + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// What every matching key begins with.
pub(crate) fn literal_prefix(pattern: &[u8]) -> Vec<u8> {
    let mut prefix = Vec::new();
    let mut rest = pattern;
    while let [first, after @ ..] = rest {
        let (literal, after) = match (first, after) {
            (b'*' | b'?' | b'[', _) => break,
            (b'\\', [escaped, after @ ..]) => (escaped, after),
            _ => (first, after),
        };
        prefix.push(*literal);
        rest = after;
    }
    prefix
}

/// How much of the pattern stands for this one byte, if it does. It begins with no star.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    let (is_it, len) = match pattern {
        [] => return None,
        [b'?', ..] => (true, 1),
        [b'[', rest @ ..] => match set(rest, byte) {
            Some((is_it, len)) => (is_it, len + 1),
            None => (byte == b'[', 1),
        },
        [b'\\', literal, ..] => (*literal == byte, 2),
        [literal, ..] => (*literal == byte, 1),
    };
    is_it.then_some(len)
}

/// Whether a byte is in a set that begins behind its bracket, and the set's length with the closing one; none if there is no
/// closing one.
fn set(pattern: &[u8], byte: u8) -> Option<(bool, usize)> {
    let negated = pattern.first() == Some(&b'^');
    let mut at = usize::from(negated);
    let mut found = false;
    loop {
        match pattern[at..] {
            [b']', ..] => return Some((found != negated, at + 1)),
            [b'\\', literal, ..] => {
                found |= literal == byte;
                at += 2;
            }
            [low, b'-', high, ..] if high != b']' => {
                found |= (low.min(high)..=low.max(high)).contains(&byte);
                at += 3;
            }
            [literal, ..] => {
                found |= literal == byte;
                at += 1;
            }
            [] => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        // (pattern, what matches, what does not)
        let table: &[(&str, &[&str], &[&str])] = &[
            ("", &[""], &["a"]),
            ("*", &["", "a", "abc"], &[]),
            ("a", &["a"], &["", "b", "ab"]),
            ("a*", &["a", "ab"], &["", "ca"]),
            ("*a", &["a", "aa", "ca"], &["", "ab"]),
            ("a*b*c", &["abc", "aXbYc", "abbcc"], &["ab", "acb", "abcd"]),
            ("**a**", &["a", "bab"], &["", "b"]),
            ("h?llo", &["hello", "h*llo"], &["hllo", "heello"]),
            ("h[ae]llo", &["hello", "hallo"], &["hillo", "h[ae]llo"]),
            ("h[^e]llo", &["hallo"], &["hello", "hllo"]),
            ("[a-c]", &["a", "b", "c"], &["d", "-", ""]),
            ("[c-a]", &["a", "b", "c"], &["d"]),
            ("[a-]", &["a", "-"], &["b"]),
            ("[\\]]x", &["]x"], &["\\x"]),
            ("[]x", &[], &["]x", "x"]),
            ("[ab", &["[ab"], &["a", "b"]),
            ("\\*", &["*"], &["a", "\\*"]),
            ("a\\", &["a\\"], &["a"]),
            ("*[0-9]", &["a1", "1"], &["a", "1a"]),
        ];
        for (pattern, yes, no) in table {
            for key in *yes {
                assert!(
                    matches(pattern.as_bytes(), key.as_bytes()),
                    "{pattern} {key}"
                );
                assert!(
                    key.as_bytes()
                        .starts_with(&literal_prefix(pattern.as_bytes())),
                    "{pattern} {key}"
                );
            }
            for key in *no {
                assert!(
                    !matches(pattern.as_bytes(), key.as_bytes()),
                    "{pattern} {key}"
                );
            }
        }
    }

    #[test]
    fn prefixes() {
        for (pattern, prefix) in [
            ("", ""),
            ("*", ""),
            ("user:*", "user:"),
            ("a?b", "a"),
            ("a[b]c", "a"),
            ("a\\*b*", "a*b"),
            ("abc", "abc"),
            ("a\\", "a\\"),
        ] {
            assert_eq!(literal_prefix(pattern.as_bytes()), prefix.as_bytes());
        }
    }

    /// Stars that each tried every place would take longer than the universe for this.
    #[test]
    fn no_pattern_is_slow() {
        let pattern = b"*a".repeat(100);
        let key = [&b"a".repeat(99)[..], &b"b".repeat(10_000)].concat();
        assert!(!matches(&pattern, &key));
    }
}
