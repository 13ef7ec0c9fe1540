//! The oracle of what replicas say to each other over every file in `fuzz/corpus/frames/`. This is no search for what nobody
//! thought of, which is `fuzz/`'s; it keeps what was found from coming back.

mod oracle;

use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

#[test]
fn frames_of_the_corpus() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/frames");
    let entries = fs::read_dir(&folder).expect("the corpus is part of the project");
    let mut files: Vec<_> = entries
        .map(|entry| entry.expect("its files can be listed").path())
        .collect();
    files.sort();
    assert!(!files.is_empty());
    let fails = |file: &&std::path::PathBuf| {
        let input = fs::read(file).expect("its files can be read");
        catch_unwind(|| oracle::frames::check(&input)).is_err()
    };
    let failed: Vec<_> = files.iter().filter(fails).collect();
    assert!(failed.is_empty(), "{failed:?}");
}
