//! The oracles of what other nodes say over every file in `fuzz/corpus/`. This is no search for what nobody thought of, which is
//! `fuzz/`'s; it keeps what was found from coming back.

mod oracle;

use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

fn check_all(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    let folder = folder.join(target);
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
fn frames_of_the_corpus() {
    check_all("frames", oracle::frames::check);
}

#[test]
fn gossip_of_the_corpus() {
    check_all("gossip", oracle::gossip::check);
}

#[test]
fn greetings_of_the_corpus() {
    check_all("greeting", oracle::greeting::check);
}

#[test]
fn sealed_datagrams_of_the_corpus() {
    check_all("sealed", oracle::sealed::check);
}
