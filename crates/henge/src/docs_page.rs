//! Pages of documentation that are made of a table: a test compares each with its file in `docs/`, and writes the file where
//! `UPDATE_DOCS` is set.

use std::path::Path;

/// Checks, or writes, the page of this name.
pub(crate) fn check(name: &str, page: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../docs")
        .join(name);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, page).expect("the page can be written");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == page,
        "docs/{name} is not what the table gives: UPDATE_DOCS=1 cargo test -p henge --lib docs_page"
    );
}
