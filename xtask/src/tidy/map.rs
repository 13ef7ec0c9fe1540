//! The code map: each file that the architecture page lists exists, and each that exists is listed.
//!
//! A section headed ``### `crates/x` `` lists the places under `crates/x/src` in the first column of a table: a file as
//! `name.rs`, a folder as `name/`. Only the top level is held to it; what a folder holds is told by its own files.

use std::collections::BTreeMap;

use super::source::ending;
use super::{ARCHITECTURE, Finding, Tree};

/// The roots of a crate, which say themselves what they are.
const ROOTS: &[&str] = &["lib.rs", "main.rs"];

/// Both ways in which the map and the land may differ.
pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let Some(page) = tree.get(ARCHITECTURE) else {
        return vec![Finding::new(
            ARCHITECTURE,
            1,
            "there is no map; write the page before the code",
        )];
    };
    let mapped = places(page);
    let mut findings = Vec::new();
    for (path, line) in &mapped {
        let there = if path.ends_with('/') {
            tree.keys().any(|file| file.starts_with(path.as_str()))
        } else {
            tree.contains_key(path)
        };
        if !there {
            let wrong = format!(
                "`{path}` does not exist; the page maps the house as it stands, so take the row out"
            );
            findings.push(Finding::new(ARCHITECTURE, *line, wrong));
        }
    }
    for file in tree.keys() {
        let Some((src, rest)) = in_crate(file) else {
            continue;
        };
        // `x.rs` may be the head of the folder `x/`, so either row names both.
        let name = rest
            .split('/')
            .next()
            .unwrap_or(rest)
            .trim_end_matches(".rs");
        let is_mapped = [format!("{src}{name}.rs"), format!("{src}{name}/")]
            .iter()
            .any(|row| mapped.contains_key(row));
        if !ROOTS.contains(&rest) && !is_mapped {
            let wrong = format!(
                "not on the map; give it a row in {ARCHITECTURE}, or move it under a place that has one"
            );
            findings.push(Finding::new(file, 1, wrong));
        }
    }
    findings
}

/// Every place on the map, from the root of the project, with its line.
fn places(page: &str) -> BTreeMap<String, usize> {
    let mut places = BTreeMap::new();
    let mut folder = None;
    for (number, line) in (1..).zip(page.lines()) {
        if line.starts_with('#') {
            folder = line
                .strip_prefix("### `")
                .and_then(|line| line.strip_suffix('`'));
        } else if let (Some(folder), Some(row)) = (folder, line.strip_prefix("| `"))
            && let Some((place, _)) = row.split_once("` |")
        {
            places.insert(format!("{folder}/src/{place}"), number);
        }
    }
    places
}

/// A Rust file of a crate, as `crates/x/src/` and the rest; `None` for all else.
fn in_crate(file: &str) -> Option<(&str, &str)> {
    let inside = file.strip_prefix("crates/")?;
    let (name, rest) = inside.split_once("/src/")?;
    let is_source = !name.contains('/') && ending(file) == "rs";
    is_source.then(|| (file.strip_suffix(rest).unwrap_or(file), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# A\n\n### `crates/a`\n\n| file | what |\n|---|---|\n| `b.rs` | b |\n| `c/` | c |\n\n## Words\n\n| `d.rs` | d |\n";

    #[test]
    fn the_map_and_the_land_agree() {
        // (the files there are, where something is found)
        type Case<'a> = (&'a [&'a str], &'a [(&'a str, usize)]);
        let table: &[Case] = &[
            (&["crates/a/src/b.rs", "crates/a/src/c/d.rs"], &[]),
            (
                &[
                    "crates/a/src/lib.rs",
                    "crates/a/src/b/e.rs",
                    "crates/a/src/b.rs",
                    "crates/a/src/c/d.rs",
                ],
                &[],
            ),
            (&["crates/a/src/b.rs"], &[(ARCHITECTURE, 8)]),
            (
                &["crates/a/src/c.rs", "crates/a/src/c/d.rs"],
                &[(ARCHITECTURE, 7)],
            ),
            (
                &[
                    "crates/a/src/b.rs",
                    "crates/a/src/c/d.rs",
                    "crates/a/src/d.rs",
                    "crates/a/src/e/f.rs",
                ],
                &[("crates/a/src/d.rs", 1), ("crates/a/src/e/f.rs", 1)],
            ),
            (
                &[
                    "crates/a/src/b.rs",
                    "crates/a/src/c/d.rs",
                    "crates/b/src/b.rs",
                ],
                &[("crates/b/src/b.rs", 1)],
            ),
            (
                &[
                    "crates/a/src/b.rs",
                    "crates/a/src/c/d.rs",
                    "crates/a/tests/x.rs",
                    "xtask/src/x.rs",
                ],
                &[],
            ),
        ];
        for (files, expected) in table {
            let mut tree: Tree = files
                .iter()
                .map(|file| ((*file).to_owned(), String::new()))
                .collect();
            tree.insert(ARCHITECTURE.to_owned(), PAGE.to_owned());
            let found = check(&tree);
            let at: Vec<_> = found
                .iter()
                .map(|finding| (finding.path.as_str(), finding.line))
                .collect();
            assert_eq!(at, *expected, "{files:?}");
        }
        assert_eq!(check(&Tree::new()).len(), 1, "no page, no map");
    }
}
