//! Values sealed and opened: the vectors of the page, every way to damage one, and keys that come and go.

use std::collections::BTreeMap;

use super::*;

const KEY: &[u8] = b"greeting";

fn keys(numbers: &[u8]) -> EncryptionKeys {
    let keys = numbers.iter().map(|&byte| (u32::from(byte), [byte; 32]));
    EncryptionKeys::new(keys).expect("keys")
}

fn sealed(value: &[u8]) -> Vec<u8> {
    keys(&[1]).seal(KEY, value).expect("it is sealed")
}

fn opened(sealed: &[u8]) -> Result<Bytes, EncryptionError> {
    keys(&[1]).open(KEY, sealed.to_vec())
}

/// The bytes of hexadecimal digits.
fn bytes(digits: &str) -> Vec<u8> {
    let pairs = digits.as_bytes().chunks(2);
    pairs
        .map(|pair| {
            let pair = std::str::from_utf8(pair).expect("ASCII");
            u8::from_str_radix(pair, 16).expect("hexadecimal digits")
        })
        .collect()
}

#[test]
fn vectors_of_the_page() {
    let page = include_str!("../../../../docs/client-encryption.md");
    let mut count = 0;
    for block in page.split("```text\n").skip(1) {
        let (block, _) = block.split_once("```").expect("a block ends");
        let lines = block.lines();
        let lines = lines.map(|line| line.split_once(' ').unwrap_or((line, "")));
        let fields: BTreeMap<&str, &str> = lines.collect();
        let Some(expected) = fields.get("sealed").map(|digits| bytes(digits)) else {
            continue;
        };
        let number: u32 = fields["number"].parse().expect("a number");
        let (key, value) = (bytes(fields["cache-key"]), bytes(fields["value"]));
        let nonce = bytes(fields["nonce"]).try_into().expect("12 bytes");
        let secret = bytes(fields["key"]).try_into().expect("32 bytes");
        let keys = EncryptionKeys::new([(number, secret)]).expect("a key");
        let found = sealed::seal(number, keys.writer().1, &key, &value, nonce);
        assert_eq!(found.as_deref(), Ok(&expected[..]), "{block}");
        assert_eq!(keys.open(&key, expected), Ok(value.into()), "{block}");
        count += 1;
    }
    assert_eq!(count, 4, "the page has its vectors");
}

#[test]
fn what_was_sealed_opens() {
    for len in [0, 1, 15, 16, 17, 1000, 100_000] {
        let value = vec![b'v'; len];
        let sealed = sealed(&value);
        assert_eq!(sealed.len(), len + 37);
        assert_eq!(opened(&sealed), Ok(value.into()));
    }
    // Of shared bytes the others stay as they are.
    let shared = Bytes::from(sealed(b"value"));
    for _ in 0..2 {
        let value = keys(&[1]).open(KEY, shared.clone());
        assert_eq!(value, Ok(Bytes::from_static(b"value")));
    }
    // Equal values do not look equal.
    assert_ne!(sealed(b"value"), sealed(b"value"));
}

#[test]
fn what_was_changed_does_not_open() {
    let whole = sealed(b"value");
    for place in 0..whole.len() {
        for bit in 0..8 {
            let mut changed = whole.clone();
            changed[place] ^= 1 << bit;
            let expected = match place {
                0..4 => EncryptionError::NotSealed { bytes: 42 },
                4 => EncryptionError::Format(changed[4]),
                5..9 => EncryptionError::UnknownKey {
                    number: 1 ^ 1 << (8 * (place - 5) + bit),
                    known: vec![1],
                },
                _ => EncryptionError::NotOpened { number: 1 },
            };
            assert_eq!(opened(&changed), Err(expected), "byte {place}, bit {bit}");
        }
    }
    for bytes in 0..whole.len() {
        let expected = match bytes {
            0..4 => EncryptionError::NotSealed { bytes },
            4..37 => EncryptionError::Short { bytes },
            _ => EncryptionError::NotOpened { number: 1 },
        };
        assert_eq!(opened(&whole[..bytes]), Err(expected), "{bytes} bytes");
    }
    let longer = [&whole[..], b"x"].concat();
    assert_eq!(
        opened(&longer),
        Err(EncryptionError::NotOpened { number: 1 })
    );
}

#[test]
fn a_value_belongs_to_its_key_of_the_cache_and_to_the_key_that_sealed_it() {
    let whole = sealed(b"value");
    let not_opened = Err(EncryptionError::NotOpened { number: 1 });
    for other in [
        &b""[..],
        b"greetinG",
        b"greetin",
        b"greeting2",
        b"\0greeting",
    ] {
        let found = keys(&[1]).open(other, whole.clone());
        assert_eq!(found, not_opened, "{other:?}");
    }
    // The number is right, and the key is not.
    let other = EncryptionKeys::new([(1, [2; 32])]).expect("a key");
    assert_eq!(other.open(KEY, whole.clone()), not_opened);
    // The number of another key that has the same bytes: the header is bound as well.
    let same = EncryptionKeys::new([(1, [1; 32]), (2, [1; 32])]).expect("keys");
    let mut renamed = whole;
    renamed[5] = 2;
    assert_eq!(
        same.open(KEY, renamed),
        Err(EncryptionError::NotOpened { number: 2 })
    );
}

#[test]
fn keys_come_and_go() {
    let by_old = keys(&[1]).seal(KEY, b"old").expect("sealed");
    let both = keys(&[1, 2]);
    let by_new = both.seal(KEY, b"new").expect("sealed");
    assert_eq!((by_old[5], by_new[5]), (1, 2));
    assert_eq!(both.open(KEY, by_old.clone()), Ok("old".into()));
    assert_eq!(both.open(KEY, by_new.clone()), Ok("new".into()));
    let unknown = |number, known| Err(EncryptionError::UnknownKey { number, known });
    assert_eq!(keys(&[2]).open(KEY, by_old), unknown(1, vec![2]));
    assert_eq!(keys(&[1]).open(KEY, by_new), unknown(2, vec![1]));
    let named = both.written_by(1).expect("it is there");
    assert_eq!(named.seal(KEY, b"").expect("sealed")[5], 1);
}

#[test]
fn a_line_says_what_was_found_and_what_was_expected() {
    let table: &[(&[u8], &str)] = &[
        (
            b"hello",
            "found a value of 5 bytes that is not sealed; expected one that was stored with encryption",
        ),
        (
            b"",
            "found a value of 0 bytes that is not sealed; expected one that was stored with encryption",
        ),
        (
            b"\x89HSV\x02",
            "found a value that is sealed in format 2; expected format 1",
        ),
        (
            b"\x89HSV\x01\x01",
            "found a sealed value of 6 bytes; expected at least 37, so some are missing",
        ),
        (
            &keys(&[7]).seal(KEY, b"").expect("sealed"),
            "found a value that is sealed under key 7; expected one of those given: 1, 3",
        ),
        (
            &keys(&[3]).seal(b"other", b"").expect("sealed"),
            "found a sealed value that key 3 does not open; expected one that was sealed by it, for this key of the cache, and not changed since",
        ),
    ];
    for (sealed, line) in table {
        let error = keys(&[1, 3]).open(KEY, sealed.to_vec());
        let error = error.expect_err("it does not open");
        assert_eq!(error.to_string(), *line);
    }
}
