//! Writing JSON by hand, for answers: a serializer would walk a struct that was built only for it. Reading JSON is
//! serde's work.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use henge_wire::Version;
use serde_json::{Value, json};

/// What each byte becomes within a JSON string: itself (0), `\u00xx` (b'u'), or a backslash and this letter.
static ESCAPES: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 0x20 {
        table[byte] = b'u';
        byte += 1;
    }
    table[b'\n' as usize] = b'n';
    table[b'\r' as usize] = b'r';
    table[b'\t' as usize] = b't';
    table[b'"' as usize] = b'"';
    table[b'\\' as usize] = b'\\';
    table
};

/// A string with its quotes.
pub(crate) fn write_string(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut copied = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        let escape = ESCAPES[usize::from(byte)];
        if escape != 0 {
            out.extend_from_slice(&bytes[copied..at]);
            copied = at + 1;
            if escape == b'u' {
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(byte >> 4)]);
                out.push(HEX[usize::from(byte & 15)]);
            } else {
                out.extend_from_slice(&[b'\\', escape]);
            }
        }
    }
    out.extend_from_slice(&bytes[copied..]);
    out.push(b'"');
}

/// How long `write_string` makes it. One pass, for what is too large to be written into a buffer that doubles.
fn string_len(text: &str) -> usize {
    // The tables' letters stand for two bytes, but for `\u00xx`.
    let grown = |&byte: &u8| match ESCAPES[usize::from(byte)] {
        0 => 1,
        b'u' => 6,
        _ => 2,
    };
    2 + text.as_bytes().iter().map(grown).sum::<usize>()
}

/// How long `write_bytes` makes it.
pub(crate) fn bytes_len(name: &str, bytes: &[u8]) -> usize {
    let value = match std::str::from_utf8(bytes) {
        Ok(text) => string_len(text),
        Err(_) => "_base64".len() + 2 + bytes.len().div_ceil(3) * 4,
    };
    name.len() + "\"\":".len() + value
}

/// A member of bytes: under `name` if they are UTF-8, else under `name_base64`.
pub(crate) fn write_bytes(out: &mut Vec<u8>, name: &str, bytes: &[u8]) {
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    if let Ok(text) = std::str::from_utf8(bytes) {
        out.extend_from_slice(b"\":");
        write_string(out, text);
    } else {
        out.extend_from_slice(b"_base64\":");
        write_base64(out, bytes);
    }
}

/// The same, into a page.
pub(crate) fn put_bytes(page: &mut Value, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => page[name] = json!(text),
        Err(_) => page[format!("{name}_base64")] = json!(STANDARD.encode(bytes)),
    }
}

/// Bytes in base64, with its quotes.
pub(crate) fn write_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    let start = out.len();
    let len = base64::encoded_len(bytes.len(), true).expect("limits keep values below 4 GiB");
    out.resize(start + len, 0);
    let written = STANDARD.encode_slice(bytes, &mut out[start..]);
    assert_eq!(written, Ok(len), "the length of base64 is known beforehand");
    out.push(b'"');
}

/// A whole number.
pub(crate) fn write_u64(out: &mut Vec<u8>, mut number: u64) {
    // 20 digits hold the largest u64.
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// A whole number with its sign.
pub(crate) fn write_i64(out: &mut Vec<u8>, number: i64) {
    if number < 0 {
        out.push(b'-');
    }
    write_u64(out, number.unsigned_abs());
}

/// A version, `"term-seq"` with its quotes: also the form of an `ETag`.
pub(crate) fn write_version(out: &mut Vec<u8>, version: Version) {
    out.push(b'"');
    write_u64(out, u64::from(version.term()));
    out.push(b'-');
    write_u64(out, version.seq());
    out.push(b'"');
}

/// Milliseconds, as seconds with three decimals.
pub(crate) fn write_seconds(out: &mut Vec<u8>, millis: u64) {
    write_u64(out, millis / 1000);
    let rest = (millis % 1000) as u16;
    let digit = |n: u16| b'0' + (n % 10) as u8;
    out.extend_from_slice(&[b'.', digit(rest / 100), digit(rest / 10), digit(rest)]);
}

/// What remains until a deadline, in seconds with three decimals; null for none.
pub(crate) fn write_ttl(out: &mut Vec<u8>, expires_at_ms: Option<u64>, now_ms: u64) {
    match expires_at_ms {
        None => out.extend_from_slice(b"null"),
        Some(deadline) => write_seconds(out, deadline.saturating_sub(now_ms)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).expect("JSON is text")
    }

    #[test]
    fn strings_read_back() {
        let all: String = (0..0x250).filter_map(char::from_u32).collect();
        for text in [
            "",
            "plain",
            "a\"b\\c\n\r\t\u{0}\u{1f}\u{7f}",
            "käse 🧀",
            &all,
        ] {
            let json = written(|out| write_string(out, text));
            let read = serde_json::from_str::<String>(&json).ok();
            assert_eq!(read.as_deref(), Some(text), "{json}");
            let member = written(|out| write_bytes(out, "value", text.as_bytes()));
            assert_eq!(member.len(), bytes_len("value", text.as_bytes()));
        }
        assert_eq!(written(|out| write_bytes(out, "key", b"a")), r#""key":"a""#);
        let bytes = written(|out| write_bytes(out, "key", b"\xff\0"));
        assert_eq!(bytes, r#""key_base64":"/wA=""#);
        for len in 1..9 {
            let binary = vec![0xff; len];
            let member = written(|out| write_bytes(out, "key", &binary));
            assert_eq!(member.len(), bytes_len("key", &binary));
        }
    }

    #[test]
    fn numbers() {
        for number in [0, 7, 10, 12_345, u64::MAX] {
            assert_eq!(written(|out| write_u64(out, number)), number.to_string());
        }
        for number in [0, -1, i64::MIN, i64::MAX] {
            assert_eq!(written(|out| write_i64(out, number)), number.to_string());
        }
        for (millis, text) in [
            (0, "0.000"),
            (5, "0.005"),
            (1_020, "1.020"),
            (98_765_432, "98765.432"),
        ] {
            assert_eq!(written(|out| write_seconds(out, millis)), text);
        }
        let version = written(|out| write_version(out, Version::new(3, 14)));
        assert_eq!(version, r#""3-14""#);
    }
}
