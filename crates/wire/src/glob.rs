//! Patterns over names and keys as Redis has them: `*`, `?`, `[a-z]`, `[^x]`, and `\` before what stands for itself. A
//! pattern is parsed once, and a search goes in steps that can be counted, so that no pattern holds a thread. It knows
//! no regular expressions.

use crate::MAX_KEY_BYTES;

/// The longest text that a pattern is for. Elements past it could never match, so they are not kept: that bounds what a
/// pattern costs, whatever its length.
const MAX_TEXT_BYTES: usize = MAX_KEY_BYTES;

/// The longest pattern that is worth parsing: with every byte of the longest key in a class, as in `[kK][eE][yY]`, one has
/// four times its bytes. Whoever takes patterns from outside refuses longer ones, as parsing is not done in steps.
pub const MAX_PATTERN_BYTES: usize = 4 * MAX_KEY_BYTES;

/// A parsed pattern. It is for texts of up to [`MAX_KEY_BYTES`]; longer ones do not match what has to have more bytes.
#[derive(Clone, Debug)]
pub struct Glob {
    elements: Vec<Element>,
    classes: Vec<Class>,
    /// Elements that stand for one byte each: the shortest text that matches has this length.
    least: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Element {
    /// Any run of bytes. Never two in a row.
    Run,
    Any,
    Byte(u8),
    /// One of the bytes of the class in this place.
    Class(u32),
}

/// A set of bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Class([u64; 4]);

impl Class {
    fn add(&mut self, byte: u8) {
        self.0[usize::from(byte >> 6)] |= 1 << (byte & 63);
    }

    /// Adds all bytes between two, both included, in whichever order they are given: a few operations for each class, as a
    /// pattern may have tens of thousands of ranges.
    fn add_range(&mut self, one: u8, other: u8) {
        let (first, last) = (u32::from(one.min(other)), u32::from(one.max(other)));
        for (word, start) in self.0.iter_mut().zip((0u32..).step_by(64)) {
            if last < start || first > start + 63 {
                continue;
            }
            let from = first.saturating_sub(start);
            let to = (last - start).min(63);
            *word |= u64::MAX << from & u64::MAX >> (63 - to);
        }
    }

    fn contains(&self, byte: u8) -> bool {
        self.0[usize::from(byte >> 6)] >> (byte & 63) & 1 == 1
    }
}

/// How far a search has come.
#[derive(Clone, Copy, Debug, Default)]
pub struct Search {
    element: usize,
    at: usize,
    /// The element behind the last run that was begun, and where the run ends so far. Earlier runs never need to be longer
    /// than the shortest that they can be, so this is all that a search has to go back to.
    resume: Option<(usize, usize)>,
}

impl Glob {
    /// Parses a pattern. Every text is one, as Redis has it: what is not closed goes to the end.
    pub fn new(pattern: &[u8]) -> Self {
        let mut glob = Self {
            elements: Vec::new(),
            classes: Vec::new(),
            least: 0,
        };
        let mut rest = pattern;
        while let [first, tail @ ..] = rest {
            if glob.least > MAX_TEXT_BYTES {
                break;
            }
            rest = tail;
            let element = match first {
                b'*' => {
                    if glob.elements.last() != Some(&Element::Run) {
                        glob.elements.push(Element::Run);
                    }
                    continue;
                }
                b'?' => Element::Any,
                b'[' => {
                    let class;
                    (class, rest) = Self::class(tail);
                    glob.classes.push(class);
                    Element::Class(glob.classes.len() as u32 - 1)
                }
                b'\\' => match tail {
                    [escaped, tail @ ..] => {
                        rest = tail;
                        Element::Byte(*escaped)
                    }
                    // At the end it stands for itself.
                    [] => Element::Byte(b'\\'),
                },
                byte => Element::Byte(*byte),
            };
            glob.elements.push(element);
            glob.least += 1;
        }
        glob
    }

    /// Reads a class behind its bracket, and gives what follows. One that is not closed goes to the end of the pattern.
    fn class(mut rest: &[u8]) -> (Class, &[u8]) {
        let mut class = Class::default();
        let is_negated = rest.first() == Some(&b'^');
        if is_negated {
            rest = &rest[1..];
        }
        loop {
            rest = match rest {
                [] => break,
                [b'\\', escaped, tail @ ..] => {
                    class.add(*escaped);
                    tail
                }
                [b']', tail @ ..] => {
                    rest = tail;
                    break;
                }
                // Whatever stands behind the hyphen is the end of a range, a bracket too.
                [start, b'-', end, tail @ ..] => {
                    class.add_range(*start, *end);
                    tail
                }
                [byte, tail @ ..] => {
                    class.add(*byte);
                    tail
                }
            };
        }
        if is_negated {
            class.0 = class.0.map(|bits| !bits);
        }
        (class, rest)
    }

    /// What every text that matches begins with.
    pub fn literal_prefix(&self) -> Vec<u8> {
        let literal = |element: &Element| match element {
            Element::Byte(byte) => Some(*byte),
            _ => None,
        };
        self.elements.iter().map_while(literal).collect()
    }

    /// Whether the whole of a text matches. It takes at most as many steps as text and pattern have bytes, multiplied; for
    /// texts from outside there is [`Glob::advance`].
    pub fn matches(&self, text: &[u8]) -> bool {
        let mut search = Search::default();
        loop {
            if let Some(is_match) = self.advance(&mut search, text, u32::MAX) {
                return is_match;
            }
        }
    }

    /// Goes on with a search in the same text for up to this many steps. None if it is not decided.
    pub fn advance(&self, search: &mut Search, text: &[u8], steps: u32) -> Option<bool> {
        if text.len() < self.least {
            return Some(false);
        }
        for _ in 0..steps {
            let element = self.elements.get(search.element);
            let fits = match (element, text.get(search.at)) {
                (Some(Element::Run), _) => {
                    search.element += 1;
                    if search.element == self.elements.len() {
                        return Some(true);
                    }
                    search.resume = Some((search.element, search.at));
                    continue;
                }
                (None, None) => return Some(true),
                // A longer run would leave even less.
                (Some(_), None) => return Some(false),
                (None, Some(_)) => false,
                (Some(Element::Any), Some(_)) => true,
                (Some(Element::Byte(byte)), Some(found)) => byte == found,
                (Some(Element::Class(class)), Some(found)) => {
                    self.classes[*class as usize].contains(*found)
                }
            };
            if fits {
                search.element += 1;
                search.at += 1;
            } else if let Some((element, end)) = search.resume {
                search.resume = Some((element, end + 1));
                (search.element, search.at) = (element, end + 1);
            } else {
                return Some(false);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_matches() {
        for (pattern, texts, others) in [
            ("", &[""][..], &["a"][..]),
            ("*", &["", "a", "abc"], &[]),
            ("**", &["", "a"], &[]),
            ("abc", &["abc"], &["", "ab", "abcd", "ABC"]),
            ("a*", &["a", "ab"], &["", "ba"]),
            ("*a", &["a", "ba", "aa"], &["", "ab"]),
            ("a*c", &["ac", "abc", "acc"], &["a", "acb"]),
            ("*b*", &["b", "abc"], &["", "ac"]),
            ("a?c", &["abc", "a?c"], &["ac", "abbc"]),
            ("?*", &["a", "ab"], &[""]),
            ("*?", &["a", "ab"], &[""]),
            ("[abc]", &["a", "b", "c"], &["", "d", "ab", "[abc]"]),
            ("[a-c]x", &["ax", "bx", "cx"], &["dx", "-x", "x"]),
            ("[c-a]", &["a", "b", "c"], &["d", "-"]),
            ("[^a-c]", &["d", "^", "-"], &["a", "b", ""]),
            ("[a^]", &["a", "^"], &["b"]),
            ("[a-]", &["a", "]", "^"], &["-", "b"]),
            ("[a-", &["a", "-"], &["b", "["]),
            ("[]", &[], &["", "[", "]", "a"]),
            ("[^]", &["a", "]"], &[""]),
            ("[", &[], &["", "[", "a"]),
            ("[^", &["a", "["], &["", "ab"]),
            ("[ab", &["a", "b"], &["[ab", "c"]),
            ("[\\]]", &["]"], &["\\", "\\]"]),
            ("[\\a-c]", &["a", "-", "c"], &["b", "\\"]),
            ("[\\", &["\\"], &["[", "a"]),
            ("[+--]", &["+", ",", "-"], &["."]),
            ("[a-\\]]", &["a]", "\\]", "_]"], &["a", "]"]),
            ("\\*", &["*"], &["a", "\\*", ""]),
            ("\\a\\[b]", &["a[b]"], &["ab"]),
            ("a\\", &["a\\"], &["a"]),
            ("*[0-9]*x?", &["1xa", "a1bx-"], &["xa", "1x"]),
            ("*ab*ab", &["abab", "xabyab"], &["ab", "abb"]),
        ] {
            let glob = Glob::new(pattern.as_bytes());
            for text in texts {
                assert!(glob.matches(text.as_bytes()), "{pattern} is {text:?}");
            }
            for text in others {
                assert!(!glob.matches(text.as_bytes()), "{pattern} is not {text:?}");
            }
        }
        assert!(Glob::new(b"[\x80-\xff]?").matches(b"\xc3\0"));
        assert!(!Glob::new(b"[a-\xff]").matches(b"0"));
    }

    /// The patterns that take a naive search longer than the universe has.
    #[test]
    fn a_hostile_pattern_costs_its_length_times_the_texts() {
        let text = vec![b'a'; 2_000];
        for pattern in ["a*", "*a", "?*", "*[a]", "a*[^b]", "a*?"] {
            let mut pattern = pattern.repeat(500);
            pattern.push('b');
            let glob = Glob::new(pattern.as_bytes());
            let mut search = Search::default();
            let steps = (pattern.len() * text.len()) as u32;
            assert_eq!(glob.advance(&mut search, &text, steps), Some(false));
        }
    }

    #[test]
    fn a_pattern_that_nothing_fits_is_not_kept() {
        let glob = Glob::new(&vec![b'?'; 1 << 20]);
        assert!(glob.elements.len() <= MAX_TEXT_BYTES + 1);
        assert!(!glob.matches(&vec![b'a'; MAX_TEXT_BYTES]));
        assert!(Glob::new(&vec![b'?'; MAX_TEXT_BYTES]).matches(&vec![b'a'; MAX_TEXT_BYTES]));
        assert_eq!(Glob::new(&vec![b'*'; 1 << 20]).elements.len(), 1);
    }

    #[test]
    fn a_range_has_what_is_between_its_ends() {
        for one in 0..=255 {
            for other in 0..=255 {
                let (mut range, mut naive) = (Class::default(), Class::default());
                range.add_range(one, other);
                (one.min(other)..=one.max(other)).for_each(|byte| naive.add(byte));
                assert_eq!(range, naive, "{one} to {other}");
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
            ("a[b", "a"),
            ("a\\*b*", "a*b"),
            ("abc", "abc"),
            ("a\\", "a\\"),
        ] {
            let found = Glob::new(pattern.as_bytes()).literal_prefix();
            assert_eq!(found, prefix.as_bytes(), "{pattern}");
        }
    }

    /// What a pattern means, said as plainly as can be.
    fn naive(elements: &[Element], classes: &[Class], text: &[u8]) -> bool {
        match (elements, text) {
            ([], text) => text.is_empty(),
            ([Element::Run, rest @ ..], text) => {
                (0..=text.len()).any(|from| naive(rest, classes, &text[from..]))
            }
            (_, []) => false,
            ([Element::Any, rest @ ..], [_, text @ ..]) => naive(rest, classes, text),
            ([Element::Byte(byte), rest @ ..], [found, text @ ..]) => {
                byte == found && naive(rest, classes, text)
            }
            ([Element::Class(class), rest @ ..], [found, text @ ..]) => {
                classes[*class as usize].contains(*found) && naive(rest, classes, text)
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        /// As the naive search finds it, in however many steps at a time.
        #[test]
        fn as_a_naive_search(
            pattern in r"[ab*?\[\]^\\-]{0,12}",
            text in "[abc]{0,12}",
            steps in 1u32..8,
        ) {
            let glob = Glob::new(pattern.as_bytes());
            let mut search = Search::default();
            let found = loop {
                if let Some(found) = glob.advance(&mut search, text.as_bytes(), steps) {
                    break found;
                }
            };
            let expected = naive(&glob.elements, &glob.classes, text.as_bytes());
            prop_assert_eq!(found, expected, "{} on {}", pattern, text);
            prop_assert_eq!(glob.matches(text.as_bytes()), expected);
        }
    }
}
