//! A file as the rules see it: its text, and for Rust its code, its comments and its tests told apart.
//!
//! Telling them apart takes a lexer of four kinds of token and no parser, so that a rule can look for a word in code
//! without meeting it in a string or a comment. It understands what rustfmt leaves behind, not all that rustc accepts.

use std::ops::Range;

/// One file. The views of a Rust file have the lines and columns of its text, with all else blanked.
pub(super) struct Source<'a> {
    /// From the root of the project, with `/` between its parts.
    pub(super) path: &'a str,
    pub(super) text: &'a str,
    /// The text without comments and without what stands between quotes; empty for what is not Rust.
    pub(super) code: String,
    /// The comments, doc comments among them; for what is not Rust, the whole text.
    pub(super) comments: String,
    /// The bytes of the items under `#[cfg(test)]`.
    tests: Vec<Range<usize>>,
}

impl<'a> Source<'a> {
    pub(super) fn new(path: &'a str, text: &'a str) -> Self {
        let (code, comments) = if ending(path) == "rs" {
            split(text)
        } else {
            (String::new(), text.to_owned())
        };
        let tests = find_tests(&code);
        Self {
            path,
            text,
            code,
            comments,
            tests,
        }
    }

    pub(super) fn is_rust(&self) -> bool {
        ending(self.path) == "rs"
    }

    /// The lines, from 1, on which `pattern` stands in the code, and whether that is code of a test.
    pub(super) fn find_in_code(&self, pattern: &str) -> Vec<(usize, bool)> {
        let whole_file = is_test_file(self.path);
        find_words(&self.code, pattern)
            .map(|at| {
                (
                    line_at(&self.code, at),
                    whole_file || self.tests.iter().any(|range| range.contains(&at)),
                )
            })
            .collect()
    }
}

/// Where `pattern` stands in `text` and is not part of a longer word at either end.
pub(super) fn find_words<'t>(text: &'t str, pattern: &'t str) -> impl Iterator<Item = usize> + 't {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(pattern)
        .map(|(at, _)| at)
        .filter(move |&at| {
            let before = text[..at]
                .chars()
                .next_back()
                .filter(|_| pattern.starts_with(is_word));
            let after = text[at + pattern.len()..]
                .chars()
                .next()
                .filter(|_| pattern.ends_with(is_word));
            !before.is_some_and(is_word) && !after.is_some_and(is_word)
        })
}

/// The line, from 1, of the byte at `at`.
pub(super) fn line_at(text: &str, at: usize) -> usize {
    1 + text[..at].matches('\n').count()
}

/// What stands behind the last dot of a path.
pub(super) fn ending(path: &str) -> &str {
    path.rsplit_once('.').map_or("", |(_, ending)| ending)
}

/// Cargo's folder of integration tests, and a module of tests that was moved to a file of its own.
fn is_test_file(path: &str) -> bool {
    path.contains("/tests/") || path.ends_with("/tests.rs")
}

#[derive(Clone, Copy, PartialEq)]
enum Token {
    Code,
    Comment,
    Quoted,
}

/// The code and the comments of a Rust file, each with all else blanked and the lines kept.
fn split(text: &str) -> (String, String) {
    let mut code = String::with_capacity(text.len());
    let mut comments = String::with_capacity(text.len());
    let mut rest = text;
    let mut in_word = false;
    while let Some(first) = rest.chars().next() {
        let (token, length) = next_token(rest, first, in_word);
        let (piece, remaining) = rest.split_at(length);
        let blank: String = piece
            .bytes()
            .map(|b| if b == b'\n' { '\n' } else { ' ' })
            .collect();
        let keep = |wanted| if token == wanted { piece } else { &blank };
        code.push_str(keep(Token::Code));
        comments.push_str(keep(Token::Comment));
        in_word = token == Token::Code && (first.is_alphanumeric() || first == '_');
        rest = remaining;
    }
    (code, comments)
}

/// The kind and the length in bytes of what `rest` begins with. Code comes one character at a time.
fn next_token(rest: &str, first: char, in_word: bool) -> (Token, usize) {
    let one = (Token::Code, first.len_utf8());
    match first {
        '/' if rest.starts_with("//") => (Token::Comment, rest.find('\n').unwrap_or(rest.len())),
        '/' if rest.starts_with("/*") => (Token::Comment, block_comment(rest)),
        '"' => (Token::Quoted, quoted(rest)),
        '\'' => character(rest).map_or(one, |length| (Token::Quoted, length)),
        // A prefix of a literal, unless it is the end of a longer word.
        'r' | 'b' | 'c' if !in_word => {
            let prefix = rest.len() - rest.trim_start_matches(['r', 'b', 'c']).len();
            let after = &rest[prefix..];
            if rest[..prefix].ends_with('r') {
                raw(after).map_or(one, |length| (Token::Quoted, prefix + length))
            } else if after.starts_with('"') {
                (Token::Quoted, prefix + quoted(after))
            } else {
                one
            }
        }
        _ => one,
    }
}

/// The length of a block comment; they nest.
fn block_comment(rest: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

/// The length of a string literal, both quotes included.
fn quoted(rest: &str) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// The length of a raw string from its first `#` or quote on; `None` for a raw identifier and for a plain word.
fn raw(rest: &str) -> Option<usize> {
    let hashes = rest.len() - rest.trim_start_matches('#').len();
    let body = rest[hashes..].strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(hashes));
    let end = body.find(&close).map_or(body.len(), |at| at + close.len());
    Some(hashes + 1 + end)
}

/// The length of a character literal; `None` for a lifetime, which has no quote behind its first character.
fn character(rest: &str) -> Option<usize> {
    let mut chars = rest.char_indices().skip(1);
    let (_, first) = chars.next()?;
    if first == '\\' {
        // What is escaped may be a quote itself.
        chars.next()?;
        return chars.find(|&(_, c)| c == '\'').map(|(at, _)| at + 1);
    }
    chars
        .next()
        .filter(|&(_, c)| c == '\'')
        .map(|(at, _)| at + 1)
}

/// The items under `#[cfg(test)]`: from the attribute to the brace that closes the item, or to its semicolon. With a
/// `!` it is the whole file.
fn find_tests(code: &str) -> Vec<Range<usize>> {
    let mut tests = Vec::new();
    if code.contains("#![cfg(test)]") {
        tests.push(0..code.len());
    }
    for (start, _) in code.match_indices("#[cfg(test)]") {
        let mut depth = 0_usize;
        for (at, c) in code[start..].char_indices() {
            match c {
                '{' | '[' | '(' => depth += 1,
                '}' | ']' | ')' => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth == 0 && matches!(c, '}' | ';') {
                tests.push(start..start + at + 1);
                break;
            }
        }
    }
    tests
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_and_comments_are_told_apart() {
        // (text, the words of its code, the words of its comments)
        let table: &[(&str, &str, &str)] = &[
            ("a // b\nc", "a c", "// b"),
            ("a /* b /* c */ d */ e", "a e", "/* b /* c */ d */"),
            (r#"a("b // c") d"#, "a( ) d", ""),
            (r#"a("\"b") c"#, "a( ) c", ""),
            (r##"r#"a " b"# c"##, "c", ""),
            (r#"br"a\" b"#, "b", ""),
            (r#"b"a" c"d" e"#, "e", ""),
            ("r#type b", "r#type b", ""),
            ("for\"a\"", "for", ""),
            (
                "fn f<'a>(x: &'a str) // 'b",
                "fn f<'a>(x: &'a str)",
                "// 'b",
            ),
            (
                r#"match c { '"' => 1, '\'' => 2, '\u{7f}' => 3, '/' => 4 }"#,
                "match c { => 1, => 2, => 3, => 4 }",
                "",
            ),
            ("é /* ü */ \"ß\" ö", "é ö", "/* ü */"),
            ("/// a \"b\nc", "c", "/// a \"b"),
            ("\"open", "", ""),
            ("/* open", "", "/* open"),
        ];
        let words = |view: String| view.split_whitespace().collect::<Vec<_>>().join(" ");
        for (text, code, comments) in table {
            let source = Source::new("a.rs", text);
            assert_eq!(source.code.len(), text.len(), "{text:?} keeps its places");
            assert_eq!(words(source.code), *code, "the code of {text:?}");
            assert_eq!(
                words(source.comments),
                *comments,
                "the comments of {text:?}"
            );
        }
    }

    #[test]
    fn tests_are_told_from_what_ships() {
        let text = "x();\n#[cfg(test)]\nmod tests {\n  fn f() { x(); }\n  x();\n}\nx();\n#[cfg(test)]\nuse x;\nx();\n";
        let expected = [
            (1, false),
            (4, true),
            (5, true),
            (7, false),
            (9, true),
            (10, false),
        ];
        assert_eq!(
            Source::new("crates/a/src/b.rs", text).find_in_code("x"),
            expected
        );
    }

    #[test]
    fn a_test_may_be_a_whole_file_or_one_item() {
        type Case<'a> = (&'a str, &'a str, &'a [(usize, bool)]);
        let table: &[Case] = &[
            ("crates/a/tests/b.rs", "x();", &[(1, true)]),
            ("crates/a/src/b/tests.rs", "x();", &[(1, true)]),
            ("crates/a/src/b.rs", "#![cfg(test)]\nx();", &[(2, true)]),
            (
                "crates/a/src/b.rs",
                "#[cfg(test)]\nconst A: [u8; 1] = [x];\nx();",
                &[(2, true), (3, false)],
            ),
        ];
        for (path, text, expected) in table {
            assert_eq!(
                Source::new(path, text).find_in_code("x"),
                *expected,
                "{path} {text:?}"
            );
        }
    }

    #[test]
    fn words_are_whole() {
        let table: &[(&str, &str, usize)] = &[
            ("unsafe", "unsafe_code unsafe {", 1),
            ("println!(", "eprintln!() println!()", 1),
            (".unwrap()", "a.unwrap() a.unwrap_or(b)", 1),
            ("sleep", "sleep_until sleep(", 1),
        ];
        for (pattern, text, count) in table {
            assert_eq!(
                find_words(text, pattern).count(),
                *count,
                "{pattern} in {text}"
            );
        }
    }
}
