//! Golden files: what the first version of a format has written, which is read and written for ever. With `UPDATE_GOLDEN=1` in
//! the environment they are written anew, which is right only with a new number of the format.

use std::fs;
use std::path::Path;

/// The bytes of a golden file, which are those that were written just now.
pub(crate) fn golden(name: &str, written: &[u8]) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, written).expect("the folder of golden files can be written to");
    }
    let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(
        bytes == written,
        "{}: the format changed without a new number",
        path.display()
    );
    bytes
}
