//! The oracles of the Redis protocol, and of what nodes say to each other, over every file in `fuzz/corpus/`, and over streams made up of its words. This is no
//! search for what nobody thought of, which is `fuzz/`'s; it keeps what was found from coming back.

mod oracle;

use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

use proptest::prelude::*;

/// Runs a target's oracle over all of its files.
fn replay(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz/corpus")
        .join(target);
    let entries = fs::read_dir(&folder).expect("the corpus is part of the project");
    let mut files: Vec<_> = entries
        .map(|entry| entry.expect("its files can be listed").path())
        .collect();
    files.sort();
    assert!(!files.is_empty());
    let fails = |file: &&std::path::PathBuf| {
        let input = fs::read(file).expect("its files can be read");
        catch_unwind(|| check(&input)).is_err()
    };
    let failed: Vec<_> = files.iter().filter(fails).collect();
    assert!(failed.is_empty(), "{failed:?}");
}

#[test]
fn requests_of_the_corpus() {
    replay("requests", oracle::requests::check);
}

#[test]
fn replies_of_the_corpus() {
    replay("replies", oracle::replies::check);
}

#[test]
fn peers_of_the_corpus() {
    replay("peer", oracle::peer::check);
}

#[test]
fn keys_of_the_corpus() {
    replay("keys", oracle::keys::check);
}

/// Words that requests or replies are made of, and some that only look like it.
const WORDS: &[&[u8]] = &[
    b"\r\n",
    b"\r",
    b"\n",
    b"*",
    b"$",
    b"*1\r\n",
    b"*2\r\n",
    b"*3\r\n",
    b"$0\r\n\r\n",
    b"$1\r\nx\r\n",
    b"$4\r\nPING\r\n",
    b"$-1\r\n",
    b"*-1\r\n",
    b"*0\r\n",
    b"PING\r\n",
    b"GET ",
    b"\"a\\x41\" ",
    b"'",
    b"\"",
    b"\\",
    b"0",
    b"1",
    b"12",
    b"-",
    b"9223372036854775807",
    b"9223372036854775808",
    b"+OK\r\n",
    b"-ERR no\r\n",
    b":1\r\n",
    b"%1\r\n",
    b"~2\r\n",
    b">1\r\n",
    b"|1\r\n",
    b"_\r\n",
    b"#t\r\n",
    b",1.5\r\n",
    b",nan\r\n",
    b"(12\r\n",
    b"=5\r\ntxt:a\r\n",
    b"!3\r\nERR\r\n",
    b"\0",
    b"x",
    b" ",
];

proptest! {
    #[test]
    fn any_words(
        head in any::<[u8; 3]>(),
        words in proptest::collection::vec(proptest::sample::select(WORDS), 0..40),
    ) {
        let input = [&head[..], &words.concat()].concat();
        oracle::requests::check(&input);
        oracle::replies::check(&input);
    }
}
