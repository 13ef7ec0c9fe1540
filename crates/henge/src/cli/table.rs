//! What the commands show as a table: rows under each other, with words in colour where that is wanted, and nothing in them that a
//! terminal would obey.

use std::fmt::Write as _;

use serde_json::Value;

use super::colour::{Painter, Tone};

/// Rows under each other; the columns that are figures end at the right.
pub(super) fn columns<const N: usize>(rows: &[[String; N]], figures: &[usize]) -> String {
    painted(rows, figures, Painter::default(), |_, _| Tone::Plain)
}

/// The same with cells in colour, by their row and column. A cell is as wide as without.
pub(super) fn painted<const N: usize>(
    rows: &[[String; N]],
    figures: &[usize],
    painter: Painter,
    tone: impl Fn(usize, usize) -> Tone,
) -> String {
    let width = |column: usize| {
        let lengths = rows.iter().map(|row| row[column].chars().count());
        lengths.max().unwrap_or(0)
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for (nth, row) in rows.iter().enumerate() {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
            let gap = " ".repeat(width - cell.chars().count());
            let (before, after) = if figures.contains(&column) {
                (&*gap, "")
            } else {
                ("", &*gap)
            };
            let cell = painter.paint(cell, tone(nth, column));
            let _ = write!(line, "{before}{cell}{after}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// The most letters of a key that are shown; the whole of one may be 64 KiB.
const SHOWN_LETTERS: usize = 64;

/// A key as a page has it: as text, or in base64 where it is no UTF-8.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Text(String),
    Base64(String),
}

impl Key {
    /// That of an object; none if it has none.
    pub(super) fn of(object: &Value) -> Option<Self> {
        let text = |name: &str| object[name].as_str().map(str::to_owned);
        let key = text("key").map(Self::Text);
        key.or_else(|| text("key_base64").map(Self::Base64))
    }

    /// The member of an object that has it.
    pub(super) fn member(&self) -> (&'static str, &str) {
        match self {
            Self::Text(key) => ("key", key),
            Self::Base64(key) => ("key_base64", key),
        }
    }

    /// For people: what a terminal would obey, or show elsewhere or not at all, is escaped, so that two keys do not look alike.
    pub(super) fn shown(&self) -> String {
        let (before, text) = match self {
            Self::Text(key) => ("", key),
            Self::Base64(key) => ("base64:", key),
        };
        let mut shown = before.to_owned();
        for (nth, letter) in text.chars().enumerate() {
            if nth == SHOWN_LETTERS {
                shown.push('…');
                break;
            }
            match letter {
                '\n' | '\r' | '\t' | '\\' => shown.extend(letter.escape_default()),
                _ if letter.is_control() || is_unseen(letter) => {
                    shown.extend(letter.escape_unicode());
                }
                _ => shown.push(letter),
            }
        }
        if shown.is_empty() {
            // Which is a key.
            shown.push_str("\"\"");
        }
        shown
    }
}

/// What another machine says, without what a terminal would obey.
pub(super) fn printable(text: &str) -> String {
    let obeyed = |letter: char| letter.is_control() || is_unseen(letter);
    text.chars()
        .map(|letter| if obeyed(letter) { '?' } else { letter })
        .collect()
}

/// Whether a letter is none that is seen, and has others be seen elsewhere or not at all: marks of width zero, and of the direction of
/// text, by which a name can look like another one.
pub(super) fn is_unseen(letter: char) -> bool {
    matches!(
        letter,
        '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_takes_no_room() {
        let rows = [
            ["NAME", "STATE", "N"],
            ["a", "up", "1"],
            ["bcdef", "down", "100"],
        ];
        let rows = rows.map(|row| row.map(str::to_owned));
        let tone = |row, column| match (row, column) {
            (1, 1) => Tone::Good,
            (2, 1) => Tone::Bad,
            _ => Tone::Plain,
        };
        let plain = columns(&rows, &[2]);
        assert_eq!(
            plain,
            "NAME   STATE    N\na      up       1\nbcdef  down   100\n"
        );
        let coloured = painted(&rows, &[2], Painter { is_on: true }, tone);
        let expected = "NAME   STATE    N\na      \x1b[32mup\x1b[0m       1\nbcdef  \x1b[31mdown\x1b[0m   100\n";
        assert_eq!(coloured, expected);
        let mut left = coloured;
        for code in ["\x1b[32m", "\x1b[31m", "\x1b[0m"] {
            left = left.replace(code, "");
        }
        assert_eq!(left, plain);
        assert_eq!(painted(&rows, &[2], Painter { is_on: false }, tone), plain);
    }

    #[test]
    fn keys_do_not_look_alike() {
        let long = "k".repeat(65);
        let cut = format!("{}…", "k".repeat(64));
        for (key, shown) in [
            ("user:1 ö", "user:1 ö"),
            ("", "\"\""),
            ("a\x1b]0;x\x07", "a\\u{1b}]0;x\\u{7}"),
            ("a\n\\n\u{202e}\u{9b}", "a\\n\\\\n\\u{202e}\\u{9b}"),
            (&long, &cut),
            (&long[1..], &long[1..]),
        ] {
            assert_eq!(Key::Text(key.to_owned()).shown(), shown);
        }
        assert_eq!(Key::Base64("/w==".to_owned()).shown(), "base64:/w==");
    }

    #[test]
    fn nothing_is_obeyed() {
        assert_eq!(
            printable("a\x1b[2J\u{9b}b\r\u{202e}c\u{200b}"),
            "a?[2J?b??c?"
        );
        assert_eq!(printable("nöde-1 日本"), "nöde-1 日本");
    }
}
